//! Writes questions for Cohere.

use serde_json::{Map, Value, json};

use super::PLAN;
use crate::canon::{ChatRequest, Dialect, Effort, Format, Part, Reasoning, Tool, ToolChoice};
use crate::dialect::lost::{self, Dropped};
use crate::dialect::{Aim, Inexpressible, Written, custom, schema, turns};

/// Fields of Cohere itself that a client of any dialect may state.
const OWN: [&str; 5] =
    ["documents", "citation_options", "safety_mode", "priority", "raw_prompting"];

/// Cohere's models that cannot be asked to think; any other is taken to be able to.
const THOUGHTLESS: [&str; 6] = [
    "command-r",
    "command-a-0",
    "command-a-vision",
    "command-a-translate",
    "c4ai",
    "command-light",
];

/// More than this is out of range, and so is exactly 1.
const MOST_TOP_P: f64 = 0.99;

/// A question on its way into Cohere's words.
pub(super) struct Draft<'a> {
    request: &'a ChatRequest,
    pub(super) thinks: bool,
    pub(super) messages: Vec<Value>,
    /// Documents stand beside the conversation, not in it.
    pub(super) documents: Vec<Value>,
    pub(super) dropped: Dropped,
}

pub(super) fn write(request: &ChatRequest, aim: &Aim<'_>) -> Result<Written, Inexpressible> {
    let thinks = !THOUGHTLESS.iter().any(|name| aim.model.contains(name));
    let (messages, documents) = (Vec::new(), Vec::new());
    let mut draft = Draft { request, thinks, messages, documents, dropped: Dropped::default() };
    let (messages, lost) = turns::shown_by_user(&request.messages);
    draft.dropped.add_if(lost, "images");
    for (place, message) in messages.iter().enumerate() {
        draft.message(message, &format!("messages[{place}]"))?;
    }
    let mut body = Map::new();
    body.insert("model".into(), json!(aim.model));
    body.insert("stream".into(), json!(request.stream));
    draft.tools(&mut body)?;
    draft.extras(&mut body);
    draft.format(&mut body)?;
    if !draft.documents.is_empty() {
        let mut documents = std::mem::take(&mut draft.documents);
        let given = body.get_mut("documents").and_then(Value::as_array_mut).map(std::mem::take);
        documents.splice(..0, given.unwrap_or_default());
        body.insert("documents".into(), Value::Array(documents));
    }
    body.insert("messages".into(), Value::Array(std::mem::take(&mut draft.messages)));
    draft.sampling(&mut body);
    draft.thinking(&mut body);
    draft.rest();
    let body = Value::Object(body).to_string().into_bytes();
    Ok(Written { body, dropped: draft.dropped.into_names() })
}

// === impl Draft ===

impl Draft<'_> {
    fn tools(&mut self, body: &mut Map<String, Value>) -> Result<(), Inexpressible> {
        let (only, choice) = match &self.request.tool_choice {
            None | Some(ToolChoice::Auto) => (None, None),
            Some(ToolChoice::None) => (None, Some("NONE")),
            Some(ToolChoice::Required) => (None, Some("REQUIRED")),
            // One tool of several cannot be named, but the others can be left out.
            Some(ToolChoice::Named(name)) => (Some(vec![name]), Some("REQUIRED")),
            Some(ToolChoice::Among { names, required }) => {
                (Some(names.iter().collect()), required.then_some("REQUIRED"))
            }
        };
        let allowed = |name: &String| only.as_ref().is_none_or(|only| only.contains(&name));
        let (mut tools, mut strict) = (Vec::new(), 0);
        for tool in &self.request.tools {
            self.dropped.add_if(custom::has_grammar(tool), custom::FORMAT);
            let function = custom::as_function(tool);
            match function.as_ref().unwrap_or(tool) {
                Tool::Function { name, description, schema, strict: exact, cache }
                    if allowed(name) =>
                {
                    self.dropped.add_if(cache.is_some(), "cache_control");
                    let exact = *exact == Some(true);
                    strict += usize::from(exact);
                    let schema = self.parameters(name, schema.as_ref(), exact)?;
                    tools.push(write_tool(name, description.as_deref(), schema));
                }
                Tool::Function { .. } | Tool::Custom { .. } => {}
                Tool::Hosted(foreign) => {
                    let kind = foreign.value.get("type").and_then(Value::as_str);
                    self.dropped.add(kind.unwrap_or("tools").to_owned());
                }
            }
        }
        if tools.is_empty() {
            return Ok(());
        }
        // Cohere has one switch for all.
        if strict == tools.len() {
            body.insert("strict_tools".into(), json!(true));
        } else {
            self.dropped.add_if(strict > 0, "strict");
        }
        body.insert("tools".into(), Value::Array(tools));
        body.extend(choice.map(|choice| ("tool_choice".to_owned(), json!(choice))));
        self.dropped.add_if(self.request.parallel_tool_calls == Some(false), "parallel_tool_calls");
        Ok(())
    }

    fn parameters(
        &mut self,
        tool: &str,
        schema: Option<&Value>,
        exact: bool,
    ) -> Result<Value, Inexpressible> {
        match schema {
            None => Ok(json!({ "type": "object", "properties": {} })),
            Some(schema) if exact => self.schema(schema, &format!("tools.{tool}")),
            Some(schema) => Ok(schema.clone()),
        }
    }

    /// A schema in the words that Cohere enforces; what it cannot is named.
    fn schema(&mut self, schema: &Value, owner: &str) -> Result<Value, Inexpressible> {
        let compiled = schema::compile(schema, &schema::COHERE)
            .map_err(|why| Inexpressible(format!("in `{owner}`, {why}").into()))?;
        for pointer in compiled.lost {
            self.dropped.add(format!("{owner}{pointer}"));
        }
        Ok(compiled.schema)
    }

    fn format(&mut self, body: &mut Map<String, Value>) -> Result<(), Inexpressible> {
        let format = match &self.request.format {
            Format::Text => return Ok(()),
            // Cohere refuses a format beside tools or documents.
            _ if ["tools", "documents"].iter().any(|name| body.contains_key(*name))
                || !self.documents.is_empty() =>
            {
                self.tell_format();
                return Ok(());
            }
            Format::JsonObject => json!({ "type": "json_object" }),
            Format::JsonSchema { schema, .. } => {
                let schema = self.schema(schema, "response_format")?;
                let labels = lost::format_labels(self.request, &[]);
                labels.for_each(|name| self.dropped.add(name));
                json!({ "type": "json_object", "json_schema": schema })
            }
        };
        body.insert("response_format".into(), format);
        Ok(())
    }

    /// Asks for the answer's format in words, which binds it less: behind the leading instructions.
    fn tell_format(&mut self) {
        self.dropped.add("response_format");
        let Some(wish) = lost::shape_in_words(&self.request.format) else { return };
        let first = self.messages.iter().position(|message| message["role"] != "system");
        let place = first.unwrap_or(self.messages.len());
        self.messages.insert(place, json!({ "role": "system", "content": wish }));
    }

    fn extras(&mut self, body: &mut Map<String, Value>) {
        let extras = &self.request.extras;
        let own = extras.dialect == Some(Dialect::Cohere);
        for (name, value) in &extras.fields {
            if own || OWN.contains(&name.as_str()) {
                body.insert(name.clone(), value.clone());
            } else {
                self.dropped.add(name.clone());
            }
        }
    }

    fn sampling(&mut self, body: &mut Map<String, Value>) {
        let said = &self.request.sampling;
        let mut put = |name: &str, value: Option<Value>| {
            body.extend(value.map(|value| (name.to_owned(), value)));
        };
        put("max_tokens", said.max_tokens.map(|tokens| json!(tokens)));
        put("temperature", said.temperature.map(|it| json!(it.clamp(0.0, 1.0))));
        put("p", said.top_p.map(|it| json!(it.min(MOST_TOP_P))));
        put("k", said.top_k.map(|it| json!(it)));
        put("stop_sequences", (!said.stop.is_empty()).then(|| json!(said.stop)));
        put("seed", said.seed.filter(|seed| *seed >= 0).map(|seed| json!(seed)));
        for (name, penalty) in [
            ("frequency_penalty", said.frequency_penalty),
            ("presence_penalty", said.presence_penalty),
        ] {
            put(name, penalty.map(|it| json!(it.clamp(0.0, 1.0))));
            self.dropped.add_if(penalty.is_some_and(|it| !(0.0..=1.0).contains(&it)), name);
        }
        put("logprobs", said.logprobs.map(|_| json!(true)));
        self.dropped.add_if(said.temperature.is_some_and(|it| it > 1.0), "temperature");
        self.dropped.add_if(said.seed.is_some_and(|seed| seed < 0), "seed");
        self.dropped.add_if(said.logprobs.is_some_and(|most| most > 0), "top_logprobs");
        self.dropped.add_if(said.choices.is_some_and(|choices| choices > 1), "n");
        self.dropped
            .add_if(said.logit_bias.as_ref().is_some_and(|bias| !bias.is_empty()), "logit_bias");
    }

    fn thinking(&mut self, body: &mut Map<String, Value>) {
        let Some(asked) = &self.request.reasoning else { return };
        let budget = asked.budget.or_else(|| asked.effort.map(Effort::budget));
        let Some(budget) = budget else { return };
        if !self.thinks {
            return self.dropped.add_if(budget > 0, "reasoning_effort");
        }
        let thinking = if budget == 0 {
            json!({ "type": "disabled" })
        } else {
            json!({ "type": "enabled", "token_budget": budget })
        };
        body.insert("thinking".into(), thinking);
    }

    fn rest(&mut self) {
        let request = self.request;
        let tier = request.service_tier.as_deref();
        self.dropped
            .add_if(tier.is_some_and(|tier| tier != "auto" && tier != "default"), "service_tier");
        self.dropped.add_if(request.user.is_some(), "user");
        self.dropped.add_if(request.metadata.is_some(), "metadata");
        self.dropped.add_if(request.verbosity.is_some(), "verbosity");
        self.dropped.add_if(request.audio.is_some(), "audio");
        self.dropped.add_if(request.cache_key.is_some(), "prompt_cache_key");
        let model_thinks = self.thinks;
        let keeps = |part: &Part, thought: &Reasoning| {
            let is_plan = part.opaque_for(Dialect::Cohere).is_some_and(|state| state == PLAN);
            !thought.text.is_empty() && (is_plan || model_thinks)
        };
        let cited = lost::citations(request, |_| false);
        let beside = lost::beside(request, Dialect::Cohere);
        let hidden = request.reasoning.as_ref().and_then(|asked| asked.visible) == Some(false);
        let hidden = hidden.then(|| lost::display(request));
        let names = lost::thoughts(request, keeps).into_iter().chain(cited).chain(beside);
        for name in names.chain(hidden) {
            self.dropped.add(name);
        }
    }
}

fn write_tool(name: &str, description: Option<&str>, schema: Value) -> Value {
    let mut function = json!({ "name": name });
    if let Some(text) = description {
        function["description"] = json!(text);
    }
    function["parameters"] = schema;
    json!({ "type": "function", "function": function })
}
