//! What each target understands of JSON Schema, a row for each.

use serde_json::Value;

/// What one target understands of JSON Schema.
#[expect(clippy::struct_excessive_bools, reason = "independent facts of a target")]
#[derive(Debug)]
pub struct Profile {
    /// Keywords that pass, with a space between; schemas inside them are looked into.
    pub keywords: &'static str,
    /// `$ref` into `$defs` passes; elsewhere definitions are written out where they are used.
    pub references: bool,
    /// `nullable: true` in the place of the type `null`.
    pub nullable: bool,
    /// The formats of strings that pass; others are told in the description. `None`: all.
    pub formats: Option<&'static str>,
    /// Values that an `enum` may list.
    pub listed: fn(&Value) -> bool,
    /// Every object lists all its properties as required and takes no others.
    pub closed: bool,
    /// Objects say the order of their properties in `propertyOrdering`.
    pub ordered: bool,
}

/// Gemini's `parametersJsonSchema` and `responseJsonSchema`.
pub static GEMINI: Profile = Profile {
    keywords: "$defs $ref type format title description enum items prefixItems minItems \
        maxItems minimum maximum anyOf oneOf properties additionalProperties required \
        propertyOrdering default pattern minLength maxLength minProperties maxProperties",
    references: true,
    nullable: false,
    formats: None,
    listed: |value| value.is_string() || value.is_number(),
    closed: false,
    ordered: false,
};

/// Gemini's `parameters` and `responseSchema`: a part of `OpenAPI` 3.0.
pub static GEMINI_OPENAPI: Profile = Profile {
    keywords: "type format title description enum items minItems maxItems minimum maximum anyOf \
        properties required pattern minLength maxLength minProperties maxProperties \
        default",
    references: false,
    nullable: true,
    formats: Some("enum date-time float double int32 int64"),
    listed: Value::is_string,
    closed: false,
    ordered: true,
};

/// OpenAI's strict mode.
pub static OPENAI_STRICT: Profile = Profile {
    keywords: "$defs $ref type format title description enum const items minItems maxItems \
        minimum maximum exclusiveMinimum exclusiveMaximum multipleOf anyOf properties \
        additionalProperties required pattern",
    references: true,
    nullable: false,
    formats: Some("date-time time date duration email hostname ipv4 ipv6 uuid"),
    listed: |_| true,
    closed: true,
    ordered: false,
};

/// Cohere's `response_format` and strict tools.
pub static COHERE: Profile = Profile {
    keywords: "$defs $ref type format title description enum const items anyOf properties \
        additionalProperties required pattern",
    references: true,
    nullable: false,
    formats: Some("date-time time date uuid"),
    listed: |_| true,
    closed: false,
    ordered: false,
};

/// Bedrock's tools for the models that do not follow references, Amazon's own among them.
pub static BEDROCK: Profile = Profile {
    keywords: "type format title description enum const items minItems maxItems minimum maximum \
        exclusiveMinimum exclusiveMaximum multipleOf anyOf oneOf allOf properties \
        additionalProperties required pattern minLength maxLength default",
    references: false,
    nullable: false,
    formats: None,
    listed: |_| true,
    closed: false,
    ordered: false,
};

/// Keywords that say nothing of which values are right.
pub(super) const DESCRIPTIVE: &str = "$schema $id $comment $anchor $vocabulary $defs definitions title default example \
        examples deprecated readOnly writeOnly discriminator additionalProperties";

/// Whether a list of words holds this one.
pub(super) fn has(list: &str, word: &str) -> bool {
    list.split(' ').any(|listed| listed == word)
}
