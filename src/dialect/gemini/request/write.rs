//! Writes a question for Gemini.

use serde_json::{Map, Value, json};

use super::field::camel;
use super::{FUNCTION_FIELD, RESULT_FIELD, message, settings};
use crate::canon::{ChatRequest, Dialect, Extras, Foreign, Part, Reasoning, Tool, ToolChoice};
use crate::dialect::gemini::model::Model;
use crate::dialect::lost::{self, Dropped};
use crate::dialect::{Aim, Inexpressible, Written, custom, schema};

/// A question while it is written.
pub(super) struct Draft<'a> {
    pub(super) request: &'a ChatRequest,
    pub(super) model: Model,
    pub(super) config: Map<String, Value>,
    pub(super) dropped: Dropped,
}

pub(in super::super) fn write(
    request: &ChatRequest,
    aim: &Aim<'_>,
) -> Result<Written, Inexpressible> {
    let model = Model::of(aim.model);
    let mut draft = Draft { request, model, config: Map::new(), dropped: Dropped::default() };
    let mut body = Map::new();
    if !aim.traits.model_in_path {
        body.insert("model".into(), json!(aim.model));
    }
    let (mut system, contents) = message::write(&mut draft)?;
    if let Some(words) = settings::shape_in_words(&draft) {
        draft.dropped.add_if(true, "response_format");
        let system = system.get_or_insert_with(|| json!({ "parts": [] }));
        if let Some(parts) = system["parts"].as_array_mut() {
            parts.push(json!({ "text": words }));
        }
    }
    body.extend(system.map(|system| ("systemInstruction".to_owned(), system)));
    let tools = draft.tools()?;
    if !tools.is_empty() {
        body.insert("tools".into(), Value::Array(tools));
    }
    if let Some(config) = draft.tool_config() {
        body.insert("toolConfig".into(), json!({ "functionCallingConfig": config }));
    }
    body.insert("contents".into(), Value::Array(contents));
    settings::write(&mut draft)?;
    if !draft.config.is_empty() {
        body.insert("generationConfig".into(), Value::Object(std::mem::take(&mut draft.config)));
    }
    if let Some(tier) = &request.service_tier {
        draft.tier(tier, aim, &mut body);
    }
    draft.unplaced();
    draft.extras(&mut body);
    Ok(Written {
        body: Value::Object(body).to_string().into_bytes(),
        dropped: draft.dropped.into_names(),
    })
}

// === impl Draft ===

impl Draft<'_> {
    /// A schema, and the name of the field that takes it: JSON Schema or a part of `OpenAPI`.
    pub(super) fn schema(
        &mut self,
        schema: &Value,
        (json, openapi): (&'static str, &'static str),
        owner: &str,
    ) -> Result<(&'static str, Value), Inexpressible> {
        let (name, profile) = if self.model.json_schema {
            (json, &schema::GEMINI)
        } else {
            (openapi, &schema::GEMINI_OPENAPI)
        };
        let compiled = schema::compile(schema, profile)
            .map_err(|cause| Inexpressible(format!("in `{owner}`, {cause}").into()))?;
        for pointer in compiled.lost {
            self.dropped.add_if(true, format!("{owner}{pointer}"));
        }
        Ok((name, compiled.schema))
    }

    /// The tools in order; functions that stand together share a declaration.
    fn tools(&mut self) -> Result<Vec<Value>, Inexpressible> {
        let mut tools = Vec::new();
        let mut functions = Vec::new();
        for tool in &self.request.tools {
            match tool {
                Tool::Hosted(Foreign { dialect: Dialect::Gemini, value }) => {
                    declare(&mut functions, &mut tools);
                    tools.push(value.clone());
                }
                Tool::Hosted(Foreign { value, .. }) => {
                    self.dropped.add_if(true, value["type"].as_str().unwrap_or("tools").to_owned());
                }
                Tool::Function { .. } | Tool::Custom { .. } => {
                    self.dropped.add_if(custom::has_grammar(tool), custom::FORMAT);
                    let function = custom::as_function(tool);
                    functions.push(self.function(function.as_ref().unwrap_or(tool))?);
                }
            }
        }
        declare(&mut functions, &mut tools);
        Ok(tools)
    }

    fn function(&mut self, tool: &Tool) -> Result<Value, Inexpressible> {
        let mut out = Map::new();
        match tool {
            Tool::Function { name, description, schema, strict, cache } => {
                out.insert("name".into(), json!(name));
                out.extend(description.iter().map(|text| ("description".to_owned(), json!(text))));
                let filled = schema
                    .as_ref()
                    .filter(|schema| self.model.json_schema || has_properties(schema));
                if let Some(schema) = filled {
                    let fields = ("parametersJsonSchema", "parameters");
                    let (field, schema) = self.schema(schema, fields, &format!("tools.{name}"))?;
                    out.insert(field.into(), schema);
                }
                self.dropped.add_if(cache.is_some(), "cache_control");
                self.dropped.add_if(*strict == Some(true) && !self.model.validated, "strict");
                out.extend(self.own_fields(name));
            }
            // Made functions or written where they stand, in `tools`.
            Tool::Custom { .. } | Tool::Hosted(_) => {}
        }
        Ok(Value::Object(out))
    }

    /// What only Gemini's clients say of a function.
    fn own_fields(&self, function: &str) -> Vec<(String, Value)> {
        let Extras { dialect, fields } = &self.request.extras;
        let fields = fields.iter().filter(|_| *dialect == Some(Dialect::Gemini));
        let own = fields.filter_map(|(name, values)| {
            let field = name.strip_prefix(FUNCTION_FIELD)?;
            Some((field.to_owned(), values.get(function)?.clone()))
        });
        own.collect()
    }

    fn tool_config(&mut self) -> Option<Value> {
        let request = self.request;
        self.dropped.add_if(request.parallel_tool_calls == Some(false), "parallel_tool_calls");
        let strict = request
            .tools
            .iter()
            .any(|tool| matches!(tool, Tool::Function { strict: Some(true), .. }));
        let hosted = request.tools.iter().any(|tool| matches!(tool, Tool::Hosted(_)));
        let auto = if strict && !hosted && self.model.validated { "VALIDATED" } else { "AUTO" };
        Some(match &request.tool_choice {
            None if auto == "AUTO" => return None,
            None | Some(ToolChoice::Auto) => json!({ "mode": auto }),
            Some(ToolChoice::None) => json!({ "mode": "NONE" }),
            Some(ToolChoice::Required) => json!({ "mode": "ANY" }),
            Some(ToolChoice::Named(name)) => {
                json!({ "mode": "ANY", "allowedFunctionNames": [name] })
            }
            Some(ToolChoice::Among { names, required }) => {
                let mode = if *required { "ANY" } else { "VALIDATED" };
                json!({ "mode": mode, "allowedFunctionNames": names })
            }
        })
    }

    /// What only Gemini says of the result with this id.
    pub(super) fn result_fields(&self, id: &str) -> impl Iterator<Item = (String, Value)> {
        let fields = self.request.extras.fields.iter();
        fields.filter_map(move |(path, values)| {
            let name = path.strip_prefix(RESULT_FIELD)?;
            Some((name.to_owned(), values.get(id)?.clone()))
        })
    }

    /// OpenAI's `auto` and `default` are what Gemini does unasked.
    fn tier(&mut self, tier: &str, aim: &Aim<'_>, body: &mut Map<String, Value>) {
        match tier {
            "auto" | "default" | "standard_only" => {}
            // Where a header says it, the usual tier is what there is without one.
            _ if aim.traits.tier_header.is_some() => {
                let known = tier == "standard" || shared_tier(tier).is_some();
                self.dropped.add_if(!known, "service_tier");
            }
            _ if self.request.extras.dialect == Some(Dialect::Gemini)
                || ["standard", "flex", "priority"].contains(&tier) =>
            {
                body.insert("serviceTier".into(), json!(tier));
            }
            _ => self.dropped.add_if(true, "service_tier"),
        }
    }

    /// What Gemini has no place for.
    fn unplaced(&mut self) {
        let request = self.request;
        self.dropped.add_if(request.verbosity.is_some(), "verbosity");
        self.dropped.add_if(request.user.is_some(), "user");
        self.dropped.add_if(request.metadata.is_some(), "metadata");
        self.dropped.add_if(request.cache_key.is_some(), "prompt_cache_key");
        let keeps = |part: &Part, thought: &Reasoning| {
            !thought.text.is_empty() || part.opaque_for(Dialect::Gemini).is_some()
        };
        let thoughts = lost::thoughts(request, keeps).into_iter();
        let cited = lost::citations(request, |_| false);
        let beside = lost::beside(request, Dialect::Gemini);
        for name in thoughts.chain(cited).chain(beside).chain(lost::format_labels(request, &[])) {
            self.dropped.add_if(true, name);
        }
    }

    /// Fields that only Gemini has go back to their places.
    fn extras(&mut self, body: &mut Map<String, Value>) {
        let Extras { dialect, fields } = &self.request.extras;
        if *dialect != Some(Dialect::Gemini) {
            for name in fields.keys() {
                self.dropped.add_if(true, name.clone());
            }
            return;
        }
        let of_functions =
            |path: &str| path.starts_with(FUNCTION_FIELD) || path.starts_with(RESULT_FIELD);
        for (path, value) in fields.iter().filter(|(path, _)| !of_functions(path)) {
            // The fields of a container stand beside ours, by one name.
            let mut at = &mut *body;
            let (containers, name) = path.rsplit_once('.').unwrap_or(("", path));
            for container in containers.split('.').filter(|name| !name.is_empty()) {
                let inner = at.entry(camel(container)).or_insert_with(|| json!({}));
                match inner {
                    Value::Object(inner) => at = inner,
                    _ => return,
                }
            }
            at.insert(name.to_owned(), value.clone());
        }
    }
}

/// A tier other than the usual one, by the word that Vertex AI has for it.
pub fn shared_tier(tier: &str) -> Option<&'static str> {
    let tier = tier.to_ascii_lowercase();
    let tier = tier.strip_prefix("service_tier_").unwrap_or(&tier);
    ["flex", "priority"].into_iter().find(|known| *known == tier)
}

fn declare(functions: &mut Vec<Value>, tools: &mut Vec<Value>) {
    if !functions.is_empty() {
        tools.push(json!({ "functionDeclarations": std::mem::take(functions) }));
    }
}

/// Older models refuse an object without properties, and take no parameters as such.
fn has_properties(schema: &Value) -> bool {
    schema["properties"].as_object().is_none_or(|properties| !properties.is_empty())
        && schema.as_object().is_some_and(|schema| schema.len() > 1 || !schema.contains_key("type"))
}
