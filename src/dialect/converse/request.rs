//! Writes questions for Converse.

use serde_json::{Map, Value, json};

use super::cache::{self, Places};
use super::family::{Caches, Family, Forces, TopK};
use super::messages::Turns;
use crate::canon::{ChatRequest, Dialect, Format, Tool, ToolChoice};
use crate::dialect::lost::{self, Dropped};
use crate::dialect::messages::{Betas, betas, structured, tool_schema};
use crate::dialect::{Aim, Inexpressible, Written, custom, schema};

/// Fields of Converse itself that a client of any dialect may state.
const OWN: [&str; 4] = [
    "guardrailConfig",
    "performanceConfig",
    "promptVariables",
    "additionalModelResponseFieldPaths",
];

/// What only some models know.
const MODEL_FIELDS: &str = "additionalModelRequestFields";

/// Service tiers that Bedrock calls as OpenAI does.
const TIERS: [&str; 4] = ["default", "flex", "priority", "reserved"];

/// A question on its way into Converse's words.
pub(super) struct Draft<'a> {
    pub(super) request: &'a ChatRequest,
    pub(super) family: Family,
    pub(super) model: &'a str,
    pub(super) inference: Map<String, Value>,
    model_fields: Map<String, Value>,
    pub(super) dropped: Dropped,
}

pub(super) fn write(request: &ChatRequest, aim: &Aim<'_>) -> Result<Written, Inexpressible> {
    let family = Family::of(aim.model);
    let mut turns = Turns::write(request, &family)?;
    let mut draft = Draft {
        request,
        family,
        model: aim.model,
        inference: Map::new(),
        model_fields: Map::new(),
        dropped: std::mem::take(&mut turns.dropped),
    };
    let mut tools = draft.tools(&turns)?;
    let places = Places {
        tools: tools.get_mut("tools").and_then(Value::as_array_mut),
        system: &mut turns.system,
        messages: &mut turns.messages,
    };
    let thinned = places.settle(aim.cache, draft.family.caches);
    draft.dropped.add_if(thinned, "cache_control");
    draft.sampling();
    draft.thinking(&turns);
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| {
        let is_empty = value.as_object().is_some_and(Map::is_empty);
        if !is_empty && !value.is_null() {
            body.insert(name.to_owned(), value);
        }
    };
    // What stays from turn to turn comes first.
    put("toolConfig", tools);
    let format = draft.format(&mut turns.system);
    put("system", if turns.system.is_empty() { Value::Null } else { Value::Array(turns.system) });
    put("messages", Value::Array(turns.messages));
    put("outputConfig", format);
    draft.extras(&mut put);
    draft.rest(&mut put);
    put("inferenceConfig", Value::Object(draft.inference));
    put(MODEL_FIELDS, Value::Object(draft.model_fields));
    let body = Value::Object(body).to_string().into_bytes();
    Ok(Written { body, dropped: draft.dropped.into_names() })
}

// === impl Draft ===

impl Draft<'_> {
    fn tools(&mut self, turns: &Turns<'_>) -> Result<Value, Inexpressible> {
        let request = self.request;
        let choice = request.tool_choice.as_ref();
        let allowed = |tool: &str| match choice {
            Some(ToolChoice::Among { names, .. }) => names.iter().any(|name| name == tool),
            _ => true,
        };
        let mut tools = Vec::new();
        for tool in &request.tools {
            self.tool(tool, &allowed, &mut tools)?;
        }
        if choice == Some(&ToolChoice::None) {
            if !turns.has_tools {
                return Ok(Value::Null);
            }
            // The tools in the conversation must be declared, and calling none cannot be asked.
            self.dropped.add_if(!tools.is_empty(), "tool_choice");
        }
        if tools.is_empty() && turns.has_tools {
            let stub = |name| {
                json!({ "toolSpec": {
                "name": name, "inputSchema": { "json": { "type": "object", "properties": {} } }
            } })
            };
            tools.extend(turns.called.iter().map(stub));
        }
        if tools.is_empty() {
            return Ok(Value::Null);
        }
        let mut config = json!({ "tools": tools });
        if let Some(choice) = self.tool_choice() {
            config["toolChoice"] = choice;
        }
        self.dropped.add_if(request.parallel_tool_calls == Some(false), "parallel_tool_calls");
        Ok(config)
    }

    fn tool(
        &mut self,
        tool: &Tool,
        allowed: &dyn Fn(&str) -> bool,
        tools: &mut Vec<Value>,
    ) -> Result<(), Inexpressible> {
        match tool {
            Tool::Function { name, description, schema, strict, cache } if allowed(name) => {
                let mut spec = json!({ "name": name });
                if let Some(text) = description.as_ref().filter(|text| !text.trim().is_empty()) {
                    spec["description"] = json!(text);
                }
                spec["inputSchema"] = json!({ "json": self.schema(name, schema.as_ref())? });
                // As with Anthropic's API, only its own clients and ours mean it.
                let client = self.request.extras.dialect;
                let strict = *strict == Some(true);
                let takes = self.family.strict
                    && matches!(client, None | Some(Dialect::Messages | Dialect::Converse));
                self.dropped.add_if(strict && !takes, "strict");
                if strict && takes {
                    spec["strict"] = json!(true);
                }
                tools.push(json!({ "toolSpec": spec }));
                let point = cache.map(|mark| {
                    cache::point(mark, self.family.caches)
                        .filter(|_| self.family.caches == Caches::All)
                });
                self.dropped.add_if(point == Some(None), "cache_control");
                tools.extend(point.flatten());
            }
            Tool::Function { .. } => {}
            Tool::Custom { name, .. } => {
                self.dropped.add_if(custom::has_grammar(tool) && allowed(name), custom::FORMAT);
                if let Some(function) = custom::as_function(tool) {
                    self.tool(&function, allowed, tools)?;
                }
            }
            Tool::Hosted(foreign) if foreign.dialect == Dialect::Converse => {
                tools.push(foreign.value.clone());
            }
            Tool::Hosted(foreign) => {
                let kind = foreign.value.get("type").and_then(Value::as_str).unwrap_or("tools");
                self.dropped.add(kind.to_owned());
            }
        }
        Ok(())
    }

    /// A tool's schema, reworded where the family does not follow references.
    fn schema(&mut self, tool: &str, schema: Option<&Value>) -> Result<Value, Inexpressible> {
        let Some(schema) = schema else {
            return Ok(json!({ "type": "object", "properties": {} }));
        };
        if self.family.references {
            return Ok(tool_schema(Some(schema)));
        }
        let compiled = schema::compile(schema, &schema::BEDROCK)
            .map_err(|why| Inexpressible(format!("in `tools.{tool}`, {why}").into()))?;
        let lost = compiled.lost.into_iter();
        self.dropped.extend(lost.map(|pointer| format!("tools.{tool}{pointer}")));
        Ok(tool_schema(Some(&compiled.schema)))
    }

    fn tool_choice(&mut self) -> Option<Value> {
        let forced = match self.request.tool_choice.as_ref()? {
            ToolChoice::Auto | ToolChoice::None => return None,
            ToolChoice::Among { required, .. } if !required => return None,
            ToolChoice::Required | ToolChoice::Among { .. } => None,
            ToolChoice::Named(name) => Some(name),
        };
        match (self.family.forces, forced) {
            (Forces::Nothing, _) => {
                self.dropped.add("tool_choice");
                None
            }
            (Forces::All, Some(name)) => Some(json!({ "tool": { "name": name } })),
            (Forces::Any, Some(_)) => {
                self.dropped.add("tool_choice");
                Some(json!({ "any": {} }))
            }
            (Forces::Any | Forces::All, None) => Some(json!({ "any": {} })),
        }
    }

    pub(super) fn forces_a_tool(&self) -> bool {
        let forced = match &self.request.tool_choice {
            Some(ToolChoice::Required | ToolChoice::Named(_)) => true,
            Some(ToolChoice::Among { required, .. }) => *required,
            Some(ToolChoice::Auto | ToolChoice::None) | None => false,
        };
        forced && self.family.forces != Forces::Nothing && !self.request.tools.is_empty()
    }

    fn sampling(&mut self) {
        let said = &self.request.sampling;
        if let Some(tokens) = said.max_tokens {
            self.inference.insert("maxTokens".into(), json!(tokens));
        }
        if let Some(temperature) = said.temperature {
            self.dropped.add_if(temperature > 1.0, "temperature");
            self.inference.insert("temperature".into(), json!(temperature.clamp(0.0, 1.0)));
        }
        if let Some(top_p) = said.top_p {
            let both = said.temperature.is_some();
            if both && self.family.wants_one_of_temperature_and_top_p(self.model) {
                self.dropped.add("top_p");
            } else {
                self.inference.insert("topP".into(), json!(top_p));
            }
        }
        let stops: Vec<&String> = said.stop.iter().filter(|stop| !stop.trim().is_empty()).collect();
        self.dropped.add_if(stops.len() < said.stop.len(), "stop");
        if !stops.is_empty() {
            self.inference.insert("stopSequences".into(), json!(stops));
        }
        if let Some(top_k) = said.top_k {
            match self.family.top_k {
                TopK::Nowhere => self.dropped.add("top_k"),
                TopK::Field(name) => self.model_field(name, json!(top_k)),
                TopK::Inference => self.model_field("inferenceConfig", json!({ "topK": top_k })),
            }
        }
        if self.family.has_no_sampling() {
            self.unset(&["temperature", "topP", "top_k"]);
        }
        self.dropped.add_if(said.seed.is_some(), "seed");
        self.dropped
            .add_if(said.frequency_penalty.is_some_and(|it| it != 0.0), "frequency_penalty");
        self.dropped.add_if(said.presence_penalty.is_some_and(|it| it != 0.0), "presence_penalty");
        self.dropped.add_if(said.choices.is_some_and(|choices| choices > 1), "n");
        self.dropped.add_if(said.logprobs.is_some(), "logprobs");
        self.dropped
            .add_if(said.logit_bias.as_ref().is_some_and(|bias| !bias.is_empty()), "logit_bias");
    }

    pub(super) fn model_field(&mut self, name: &str, value: Value) {
        self.model_fields.insert(name.to_owned(), value);
    }

    /// Takes back what has been set, by Converse's names.
    pub(super) fn unset(&mut self, names: &[&'static str]) {
        for name in names {
            let was = self.inference.shift_remove(*name);
            let was = was.or_else(|| self.model_fields.shift_remove(*name));
            let theirs = match *name {
                "topP" => "top_p",
                "maxTokens" => "max_tokens",
                name => name,
            };
            self.dropped.add_if(was.is_some(), theirs);
        }
    }

    /// The answer's format; where the family has none, it is asked in words, which binds it less.
    fn format(&mut self, system: &mut Vec<Value>) -> Value {
        let native = self.family.strict.then_some(&self.request.format);
        let Some(Format::JsonSchema { name, description, schema, .. }) = native else {
            let wish = lost::shape_in_words(&self.request.format);
            self.dropped.add_if(wish.is_some(), "response_format");
            system.extend(wish.map(|wish| json!({ "text": wish })));
            return Value::Null;
        };
        let (schema, lost) = structured(schema);
        for name in lost {
            self.dropped.add(name);
        }
        let mut named = json!({ "schema": schema.to_string(), "name": name });
        if let Some(text) = description {
            named["description"] = json!(text);
        }
        let labels = lost::format_labels(self.request, &["name", "description"]);
        labels.for_each(|name| self.dropped.add(name));
        json!({ "textFormat": { "type": "json_schema", "structure": { "jsonSchema": named } } })
    }

    /// Fields of the client's dialect that have a meaning here; the others are dropped.
    fn extras(&mut self, put: &mut impl FnMut(&str, Value)) {
        let extras = &self.request.extras;
        let own = extras.dialect == Some(Dialect::Converse);
        for (name, value) in &extras.fields {
            match (name.as_str(), value) {
                (MODEL_FIELDS, Value::Object(fields)) => self.model_fields.extend(fields.clone()),
                ("anthropic_beta", value) if self.family.is_claude() => {
                    self.betas(value);
                }
                (name, value) if own || OWN.contains(&name) => put(name, value.clone()),
                (name, _) => self.dropped.add(name.to_owned()),
            }
        }
        let names_paths = extras.fields.contains_key("additionalModelResponseFieldPaths");
        if self.family.is_claude() && self.inference.contains_key("stopSequences") && !names_paths {
            // Which of them was met is told only on request.
            put("additionalModelResponseFieldPaths", json!(["/stop_sequence"]));
        }
    }

    /// The beta features of Claude that Bedrock has too.
    fn betas(&mut self, value: &Value) {
        let listed = value.as_array().into_iter().flatten().filter_map(Value::as_str);
        let header = listed.chain(value.as_str()).collect::<Vec<_>>().join(",");
        let (kept, lost) = betas(&header, Betas::Bedrock);
        self.dropped.extend(lost.into_iter().map(str::to_owned));
        if !kept.is_empty() {
            let kept: Vec<&str> = kept.split(',').collect();
            self.model_field("anthropic_beta", json!(kept));
        }
    }

    fn rest(&mut self, put: &mut impl FnMut(&str, Value)) {
        let request = self.request;
        match request.service_tier.as_deref() {
            Some(tier) if TIERS.contains(&tier) => put("serviceTier", json!({ "type": tier })),
            None | Some("auto") => {}
            Some(_) => self.dropped.add("service_tier"),
        }
        if let Some(metadata) = &request.metadata {
            if metadata.len() <= 16 && metadata.iter().all(|(name, value)| is_label(name, value)) {
                put("requestMetadata", json!(metadata));
            } else {
                self.dropped.add("metadata");
            }
        }
        self.dropped.add_if(request.user.is_some(), "user");
        self.dropped.add_if(request.verbosity.is_some(), "verbosity");
        self.dropped.add_if(request.audio.is_some(), "audio");
        self.dropped.add_if(request.cache_key.is_some(), "prompt_cache_key");
    }
}

/// Whether Bedrock takes this as an entry of `requestMetadata`.
fn is_label(name: &str, value: &Value) -> bool {
    let fits = |text: &str| {
        let allowed =
            |letter: char| letter.is_ascii_alphanumeric() || " :_@$#=/+,-.".contains(letter);
        text.len() <= 256 && text.chars().all(allowed)
    };
    !name.is_empty() && fits(name) && value.as_str().is_some_and(fits)
}
