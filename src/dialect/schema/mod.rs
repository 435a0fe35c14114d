//! JSON Schemas as each target takes them: reworded where that is possible, refused where it is not.
//!
//! What a target understands is a row of data, a `Profile`. Keywords that constrain and that a
//! target lacks are left out and named in `lost`; those that only describe go without a word.
//! The order of properties stays as the client wrote it.

mod piece;
mod profile;

pub use piece::{from_openapi, holds_reference};
pub use profile::{BEDROCK, COHERE, GEMINI, GEMINI_OPENAPI, OPENAI_STRICT, Profile};

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use self::piece::{allow_null, close, is_nullable, is_object, kind_of, lay_over, types_apart};
use self::profile::{DESCRIPTIVE, has};
use super::Inexpressible;

/// A schema in a target's words.
#[derive(Debug, Clone, PartialEq)]
pub struct Compiled {
    pub schema: Value,
    /// JSON pointers of the constraints that the target does not know.
    pub lost: Vec<String>,
}

/// More schemas than this are no description of a tool but an attack on its reader.
const MOST_SCHEMAS: usize = 10_000;
const DEEPEST: usize = 100;

const RECURSION: &str = "refers to itself, and this target takes no recursion";

struct Compiler<'a> {
    root: &'a Value,
    profile: &'static Profile,
    /// The references that are being written out.
    open: Vec<String>,
    /// Where we are, as the pieces of a JSON pointer.
    place: Vec<String>,
    lost: Vec<String>,
    schemas: usize,
}

/// Puts a schema into the words that `profile` knows.
pub fn compile(schema: &Value, profile: &'static Profile) -> Result<Compiled, Inexpressible> {
    let mut compiler = Compiler {
        root: schema,
        profile,
        open: Vec::new(),
        place: Vec::new(),
        lost: Vec::new(),
        schemas: 0,
    };
    let schema = compiler.schema(schema)?;
    Ok(Compiled { schema, lost: compiler.lost })
}

// === impl Compiler ===

impl Compiler<'_> {
    fn schema(&mut self, schema: &Value) -> Result<Value, Inexpressible> {
        self.schemas += 1;
        if self.schemas > MOST_SCHEMAS || self.place.len() > DEEPEST {
            return Err(self.refuse("is too large once its references are written out"));
        }
        match schema {
            Value::Bool(true) => Ok(json!({})),
            Value::Bool(false) => {
                self.lost.push(self.pointer());
                Ok(json!({}))
            }
            Value::Object(fields) => self.object(fields),
            _ => Err(self.refuse("is neither an object nor a boolean")),
        }
    }

    fn object(&mut self, fields: &Map<String, Value>) -> Result<Value, Inexpressible> {
        if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
            let near = reference.strip_prefix("#/$defs/").is_some_and(|name| !name.contains('/'));
            // The root is an object everywhere, and the definitions stand in it.
            if self.profile.references && near && !self.place.is_empty() {
                return Ok(json!({ "$ref": reference }));
            }
            return self.written_out(reference, fields);
        }
        if fields.contains_key("allOf") && !self.knows("allOf") {
            let merged = self.merged(fields)?;
            return self.object(&merged);
        }
        let mut out = Map::new();
        for (keyword, value) in fields {
            self.place.push(keyword.clone());
            self.keyword(keyword, value, fields, &mut out)?;
            self.place.pop();
        }
        self.finish(&mut out);
        Ok(Value::Object(out))
    }

    /// What a reference stands for, with what is said beside it.
    fn written_out(
        &mut self,
        reference: &str,
        fields: &Map<String, Value>,
    ) -> Result<Value, Inexpressible> {
        self.enter(reference)?;
        let target = self.target(reference)?;
        let mut whole = target.as_object().cloned().unwrap_or_default();
        let beside = fields.iter().filter(|(keyword, _)| *keyword != "$ref");
        whole.extend(beside.map(|(keyword, value)| (keyword.clone(), value.clone())));
        let written = self.schema(&Value::Object(whole));
        self.open.pop();
        written
    }

    /// Notes a reference that is being written out.
    fn enter(&mut self, reference: &str) -> Result<(), Inexpressible> {
        if self.open.iter().any(|open| open == reference) {
            return Err(self.refuse(RECURSION));
        }
        self.open.push(reference.to_owned());
        Ok(())
    }

    fn target(&self, reference: &str) -> Result<Value, Inexpressible> {
        let pointer = reference.strip_prefix('#');
        let pointer = pointer.map(|pointer| pointer.replace("%24", "$"));
        let target = pointer.and_then(|pointer| self.root.pointer(&pointer));
        target
            .cloned()
            .ok_or_else(|| self.refuse(&format!("refers to `{reference}`, which it does not hold")))
    }

    /// The schemas of `allOf` laid over one another.
    fn merged(&mut self, fields: &Map<String, Value>) -> Result<Map<String, Value>, Inexpressible> {
        let mut whole = fields.clone();
        let parts = whole.shift_remove("allOf");
        for part in parts.as_ref().and_then(Value::as_array).into_iter().flatten() {
            let mut part = part.clone();
            let depth = self.open.len();
            while let Some(reference) = part.get("$ref").and_then(Value::as_str) {
                self.enter(reference)?;
                part = self.target(reference)?;
            }
            let part = part.as_object().cloned().unwrap_or_default();
            let part = if part.contains_key("allOf") { self.merged(&part)? } else { part };
            self.open.truncate(depth);
            for (keyword, value) in part {
                lay_over(&mut whole, keyword, value);
            }
        }
        Ok(whole)
    }

    fn keyword(
        &mut self,
        keyword: &str,
        value: &Value,
        fields: &Map<String, Value>,
        out: &mut Map<String, Value>,
    ) -> Result<(), Inexpressible> {
        match (keyword, value) {
            ("const", value) if !self.knows("const") => {
                self.list(std::slice::from_ref(value), fields, out);
            }
            ("enum", Value::Array(values)) => self.list(values, fields, out),
            ("type", Value::Array(types)) if self.profile.nullable => types_apart(types, out),
            ("exclusiveMinimum" | "exclusiveMaximum", _) if !self.knows(keyword) => {
                self.bound(keyword, value, fields, out);
            }
            ("anyOf" | "oneOf", Value::Array(arms)) => self.arms(keyword, arms, out)?,
            ("properties" | "$defs", Value::Object(members)) if self.knows(keyword) => {
                let members = self.members(members)?;
                out.insert(keyword.to_owned(), Value::Object(members));
            }
            ("items", Value::Array(arms)) => self.tuple(arms, out)?,
            ("prefixItems", Value::Array(arms)) if !self.knows(keyword) => self.tuple(arms, out)?,
            ("allOf" | "prefixItems", Value::Array(arms)) => {
                let arms = self.each(arms)?;
                out.insert(keyword.to_owned(), Value::Array(arms));
            }
            ("items", schema) => {
                let schema = self.schema(schema)?;
                out.insert(keyword.to_owned(), schema);
            }
            ("additionalProperties", Value::Object(_)) if self.profile.closed => {
                self.lost.push(self.pointer());
            }
            ("additionalProperties", Value::Object(_)) if self.knows(keyword) => {
                let schema = self.schema(value)?;
                out.insert(keyword.to_owned(), schema);
            }
            ("additionalProperties", Value::Object(_)) => self.lost.push(self.pointer()),
            ("format", Value::String(format)) => self.format(format, fields, out),
            // A default is no duty where every property is one.
            ("default", _) if self.profile.closed => {}
            ("nullable", Value::Bool(true)) if !self.profile.nullable => {
                out.insert("nullable".into(), json!(true));
            }
            ("nullable", Value::Bool(_)) => {
                out.insert("nullable".into(), value.clone());
            }
            _ if self.knows(keyword) => lay_over(out, keyword.to_owned(), value.clone()),
            _ if has(DESCRIPTIVE, keyword) || keyword.starts_with("x-") => {}
            _ => self.lost.push(self.pointer()),
        }
        Ok(())
    }

    fn members(
        &mut self,
        members: &Map<String, Value>,
    ) -> Result<Map<String, Value>, Inexpressible> {
        let mut out = Map::new();
        for (name, schema) in members {
            self.place.push(name.clone());
            out.insert(name.clone(), self.schema(schema)?);
            self.place.pop();
        }
        Ok(out)
    }

    fn each(&mut self, arms: &[Value]) -> Result<Vec<Value>, Inexpressible> {
        let mut out = Vec::with_capacity(arms.len());
        for (number, arm) in arms.iter().enumerate() {
            self.place.push(number.to_string());
            out.push(self.schema(arm)?);
            self.place.pop();
        }
        Ok(out)
    }

    /// The values that are allowed. Where none may be listed that is null, the type tells of it.
    fn list(
        &mut self,
        values: &[Value],
        fields: &Map<String, Value>,
        out: &mut Map<String, Value>,
    ) {
        let some_null = values.iter().any(Value::is_null);
        let listed: Vec<Value> =
            values.iter().filter(|value| (self.profile.listed)(value)).cloned().collect();
        let told = self.profile.nullable
            || !self.lists_null() && !listed.is_empty() && is_nullable(fields);
        let kept = values.len() - usize::from(some_null && told);
        if some_null && self.profile.nullable {
            out.insert("nullable".into(), json!(true));
        }
        if listed.len() < kept {
            self.lost.push(self.pointer());
        } else if !listed.is_empty() {
            // A constant tells its type; other lists say it beside them.
            let constant = self.place.last().is_some_and(|keyword| keyword == "const");
            if let (Some(kind), true) = (kind_of(&listed[0]), constant) {
                out.entry("type").or_insert_with(|| json!(kind));
            }
            out.insert("enum".into(), Value::Array(listed));
        }
    }

    /// One of several schemas; the one that is only `null` becomes `nullable` where that is meant.
    fn arms(
        &mut self,
        keyword: &str,
        arms: &[Value],
        out: &mut Map<String, Value>,
    ) -> Result<(), Inexpressible> {
        let mut arms = self.each(arms)?;
        if self.profile.nullable {
            let before = arms.len();
            arms.retain(|arm| arm.get("type").is_none_or(|kind| kind != "null"));
            if arms.len() < before {
                out.insert("nullable".into(), json!(true));
            }
            if arms.len() == 1
                && let Some(Value::Object(only)) = arms.pop()
            {
                only.into_iter().for_each(|(keyword, value)| lay_over(out, keyword, value));
                return Ok(());
            }
        }
        let keyword = if self.knows(keyword) { keyword } else { "anyOf" };
        if !arms.is_empty() {
            out.insert(keyword.to_owned(), Value::Array(arms));
        }
        Ok(())
    }

    /// A list whose places have schemas of their own, for a target that knows only one for all.
    fn tuple(&mut self, arms: &[Value], out: &mut Map<String, Value>) -> Result<(), Inexpressible> {
        let arms = self.each(arms)?;
        if self.knows("prefixItems") {
            out.insert("prefixItems".into(), Value::Array(arms));
        } else if !arms.is_empty() {
            self.lost.push(self.pointer());
            out.insert("items".into(), json!({ "anyOf": arms }));
        }
        Ok(())
    }

    /// An open bound as a closed one: exact for whole numbers, looser for others.
    fn bound(
        &mut self,
        keyword: &str,
        value: &Value,
        fields: &Map<String, Value>,
        out: &mut Map<String, Value>,
    ) {
        let (closed, step) =
            if keyword == "exclusiveMinimum" { ("minimum", 1) } else { ("maximum", -1) };
        // In the fourth draft it is a flag beside the bound.
        let limit = if value.is_boolean() { fields.get(closed) } else { Some(value) };
        if value == &json!(false) {
            return;
        }
        let whole = fields.get("type").is_some_and(|kind| kind == "integer");
        let exact = limit.and_then(Value::as_i64).and_then(|limit| limit.checked_add(step));
        match (whole, exact, limit) {
            (true, Some(exact), _) => _ = out.insert(closed.into(), json!(exact)),
            (_, _, Some(limit)) => {
                self.lost.push(self.pointer());
                out.insert(closed.into(), limit.clone());
            }
            (_, _, None) => self.lost.push(self.pointer()),
        }
    }

    fn format(&self, format: &str, fields: &Map<String, Value>, out: &mut Map<String, Value>) {
        let known = self.profile.formats.is_none_or(|formats| has(formats, format));
        if known && self.knows("format") {
            out.insert("format".into(), json!(format));
            return;
        }
        let said = fields.get("description").and_then(Value::as_str);
        let said = said.map_or_else(
            || format!("Format: {format}"),
            |said| format!("{said} (format: {format})"),
        );
        out.insert("description".into(), json!(said));
    }

    /// What can only be said once all keywords are known.
    fn finish(&self, out: &mut Map<String, Value>) {
        if !self.profile.nullable && out.shift_remove("nullable").is_some() {
            allow_null(out);
            if let (Some(Value::Array(values)), false) = (out.get_mut("enum"), self.lists_null()) {
                values.retain(|value| !value.is_null());
            }
        }
        let names = out.get("properties").and_then(Value::as_object);
        let names: Vec<Value> =
            names.map_or_else(Vec::new, |names| names.keys().map(|name| json!(name)).collect());
        if self.profile.ordered && names.len() > 1 {
            out.insert("propertyOrdering".into(), Value::Array(names.clone()));
        }
        if self.profile.closed && is_object(out) {
            close(out, names);
        }
    }

    fn lists_null(&self) -> bool {
        (self.profile.listed)(&Value::Null)
    }

    fn knows(&self, keyword: &str) -> bool {
        has(self.profile.keywords, keyword)
    }

    fn pointer(&self) -> String {
        let escaped = self.place.iter().map(|piece| piece.replace('~', "~0").replace('/', "~1"));
        escaped.fold("#".to_owned(), |pointer, piece| pointer + "/" + &piece)
    }

    fn refuse(&self, why: &str) -> Inexpressible {
        Inexpressible(Cow::Owned(format!("the schema at `{}` {why}.", self.pointer())))
    }
}

#[cfg(test)]
mod tests;
