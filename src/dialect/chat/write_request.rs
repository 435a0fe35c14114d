//! Writes questions for OpenAI and for each of the servers that follow it, by their traits.

use serde_json::{Map, Value, json};

use super::media::write_mark;
use super::write_message::Transcript;
use crate::canon::{
    ChatRequest, Dialect, Effort, Format, Part, Reasoning, Sampling, Thinking, Tool, ToolChoice,
};
use crate::dialect::lost::{self, Dropped};
use crate::dialect::openai::family;
use crate::dialect::traits::nearest;
use crate::dialect::{Aim, EffortField, Inexpressible, JsonMode, Thoughts, Written, custom};

/// Extras that change nothing of the answer: not worth a word when they are left out.
const BOOKKEEPING: [&str; 3] = ["store", "safety_identifier", "prompt_cache_retention"];

/// What the limit is called by OpenAI and those that have its newer models.
const COMPLETION: &str = "max_completion_tokens";

/// A question on its way into a body.
struct Question<'a> {
    aim: &'a Aim<'a>,
    body: Map<String, Value>,
    dropped: Dropped,
}

pub(super) fn write(request: &ChatRequest, aim: &Aim<'_>) -> Result<Written, Inexpressible> {
    let mut transcript = Transcript::new(aim, schema_to_tell(request, aim));
    for message in &request.messages {
        transcript.add(message)?;
    }
    let (messages, dropped) = transcript.finish(request.prefix.as_deref());
    let mut question = Question { aim, body: Map::new(), dropped };
    let keeps =
        |part: &Part, thought: &Reasoning| keeps_thought(aim.traits.thoughts, part, thought);
    for name in lost::thoughts(request, keeps)
        .into_iter()
        .chain(lost::citations(request, |_| false))
        .chain(lost::beside(request, Dialect::Chat))
    {
        question.dropped.add(name);
    }
    if !aim.traits.model_in_path {
        question.set("model", json!(aim.model));
    }
    question.set("messages", messages.into());
    question.tools(request);
    question.format(&request.format);
    // OpenAI's own clients are told by itself what a model refuses.
    let is_own = request.extras.dialect == Some(Dialect::Chat);
    let verbatim = is_own && aim.traits.developer;
    if aim.traits.max_tokens == COMPLETION && !is_own {
        let (sampling, refused) = family::spared(aim.model, request);
        for name in refused {
            question.dropped.add(name);
        }
        question.sampling(&sampling);
    } else {
        question.sampling(&request.sampling);
    }
    if let Some(thinking) = &request.reasoning {
        question.thinking(thinking, verbatim);
        let unseen = aim.traits.thoughts == Thoughts::Unknown && thinking.visible == Some(true);
        if unseen && thinking.summary.is_none() && aim.traits.effort != EffortField::Reasoning {
            question.dropped.add(lost::display(request));
        }
    }
    question.rest(request);
    question.extras(request);
    if let Some(injection) = aim.cache.filter(|_| aim.traits.cache_control) {
        super::cache::inject(&mut question.body, injection);
    }
    Ok(Written {
        body: Value::Object(question.body).to_string().into_bytes(),
        dropped: question.dropped.into_names(),
    })
}

/// Whether the server is given a thought of an earlier turn.
fn keeps_thought(thoughts: Thoughts, part: &Part, thought: &Reasoning) -> bool {
    let own = part.opaque_for(Dialect::Chat);
    own.is_some_and(|state| state.get("extra_content").is_some())
        || match thoughts {
            Thoughts::Unknown => false,
            Thoughts::Details => own.is_some() || !thought.text.is_empty(),
            Thoughts::Field(_) | Thoughts::Parts => !thought.text.is_empty(),
        }
}

/// The schema that the model itself must be told, since the server does not take it.
fn schema_to_tell<'a>(request: &'a ChatRequest, aim: &Aim<'_>) -> Option<&'a Value> {
    match &request.format {
        Format::JsonSchema { schema, .. } if aim.traits.json == JsonMode::ObjectOnly => {
            Some(schema)
        }
        Format::Text | Format::JsonObject | Format::JsonSchema { .. } => None,
    }
}

// === impl Question ===

impl Question<'_> {
    fn set(&mut self, name: &str, value: Value) {
        self.body.insert(name.to_owned(), value);
    }

    fn refuses(&self, name: &str) -> bool {
        self.aim.traits.refused.contains(&name)
    }

    /// Sets a field, or names it where the target refuses it.
    fn put<T: Into<Value>>(&mut self, name: &'static str, value: Option<T>) {
        let Some(value) = value else { return };
        if self.refuses(name) {
            self.dropped.add(name);
        } else {
            self.set(name, value.into());
        }
    }

    fn tools(&mut self, request: &ChatRequest) {
        let only = match &request.tool_choice {
            Some(ToolChoice::Among { names, .. }) if self.refuses("allowed_tools") => Some(names),
            _ => None,
        };
        let mut tools = Vec::new();
        for tool in &request.tools {
            if let Some(tool) = self.tool(tool, only) {
                tools.push(tool);
            }
        }
        if tools.is_empty() {
            return;
        }
        self.set("tools", tools.into());
        if let Some(choice) = &request.tool_choice {
            let choice = self.choice(choice, &request.tools);
            self.put("tool_choice", Some(choice));
        }
        self.put("parallel_tool_calls", request.parallel_tool_calls);
    }

    fn tool(&mut self, tool: &Tool, only: Option<&Vec<String>>) -> Option<Value> {
        let is_wanted = |name: &String| only.is_none_or(|names| names.contains(name));
        match tool {
            Tool::Function { name, description, schema, strict, cache } => {
                if !is_wanted(name) {
                    return None;
                }
                let mut function = json!({ "name": name });
                if let Some(description) = description {
                    function["description"] = json!(description);
                }
                if let Some(schema) = schema {
                    function["parameters"] = schema.clone();
                }
                match strict {
                    Some(true) if self.refuses("strict") => self.dropped.add("strict"),
                    Some(strict) if !self.refuses("strict") => function["strict"] = json!(strict),
                    Some(_) | None => {}
                }
                let mut written = json!({ "type": "function", "function": function });
                match cache {
                    Some(mark) if self.aim.traits.cache_control => {
                        written["cache_control"] = write_mark(*mark);
                    }
                    Some(_) => self.dropped.add("cache_control"),
                    None => {}
                }
                Some(written)
            }
            Tool::Custom { .. } if !self.aim.traits.custom_tools => {
                if custom::has_grammar(tool) {
                    self.dropped.add(custom::FORMAT);
                }
                self.tool(&custom::as_function(tool)?, only)
            }
            Tool::Custom { name, .. } if !is_wanted(name) => None,
            Tool::Custom { name, description, format } => {
                let mut custom = json!({ "name": name });
                if let Some(description) = description {
                    custom["description"] = json!(description);
                }
                if let Some(format) = format {
                    custom["format"] = format.clone();
                }
                Some(json!({ "type": "custom", "custom": custom }))
            }
            Tool::Hosted(tool) if tool.dialect == Dialect::Chat => Some(tool.value.clone()),
            Tool::Hosted(tool) => {
                self.dropped.add(tool.value["type"].as_str().unwrap_or("tools").to_owned());
                None
            }
        }
    }

    fn choice(&self, choice: &ToolChoice, tools: &[Tool]) -> Value {
        let named = |name: &String| {
            let is_it =
                |tool: &Tool| matches!(tool, Tool::Custom { name: other, .. } if other == name);
            let custom = self.aim.traits.custom_tools && tools.iter().any(is_it);
            let kind = if custom { "custom" } else { "function" };
            json!({ "type": kind, kind: { "name": name } })
        };
        match choice {
            ToolChoice::Auto => json!("auto"),
            ToolChoice::None => json!("none"),
            ToolChoice::Required => json!("required"),
            ToolChoice::Named(name) => named(name),
            // The other tools were left out instead.
            ToolChoice::Among { required, .. } if self.refuses("allowed_tools") => {
                json!(if *required { "required" } else { "auto" })
            }
            ToolChoice::Among { names, required } => {
                let tools: Vec<Value> = names.iter().map(named).collect();
                let mode = if *required { "required" } else { "auto" };
                json!({ "type": "allowed_tools", "allowed_tools": { "mode": mode, "tools": tools } })
            }
        }
    }

    fn format(&mut self, format: &Format) {
        let written = match (format, self.aim.traits.json) {
            (Format::Text, _) => return,
            (Format::JsonObject, JsonMode::SchemaOnly) => json!({
                "type": "json_schema",
                "json_schema": { "name": "answer", "schema": { "type": "object" } },
            }),
            (Format::JsonObject, _) | (Format::JsonSchema { .. }, JsonMode::ObjectOnly) => {
                json!({ "type": "json_object" })
            }
            (Format::JsonSchema { name, description, schema, strict }, _) => {
                let mut inner = json!({ "name": name });
                if let Some(description) = description {
                    inner["description"] = json!(description);
                }
                inner["schema"] = schema.clone();
                if let Some(strict) = strict {
                    inner["strict"] = json!(strict);
                }
                json!({ "type": "json_schema", "json_schema": inner })
            }
        };
        // What is told to the model in words binds it less.
        if matches!(format, Format::JsonSchema { .. })
            && self.aim.traits.json == JsonMode::ObjectOnly
        {
            self.dropped.add("response_format.schema");
        }
        self.put("response_format", Some(written));
    }

    fn sampling(&mut self, sampling: &Sampling) {
        if let Some(limit) = sampling.max_tokens {
            self.set(self.aim.traits.max_tokens, json!(limit));
        }
        self.put("temperature", sampling.temperature);
        self.put("top_p", sampling.top_p);
        self.put("top_k", sampling.top_k);
        self.put("stop", (!sampling.stop.is_empty()).then(|| json!(sampling.stop)));
        match sampling.seed {
            Some(_) if self.refuses("seed") => self.dropped.add("seed"),
            Some(seed) => self.set(self.aim.traits.seed, json!(seed)),
            None => {}
        }
        self.put("frequency_penalty", sampling.frequency_penalty);
        self.put("presence_penalty", sampling.presence_penalty);
        // One is what everyone gives unasked.
        let several = sampling.choices.filter(|choices| *choices != 1 || !self.refuses("n"));
        self.put("n", several);
        self.put("logit_bias", sampling.logit_bias.clone());
        if let Some(top) = sampling.logprobs {
            self.put("logprobs", Some(true));
            let wants_more = top > 0 && !self.refuses("logprobs");
            self.put("top_logprobs", wants_more.then_some(top));
        }
    }

    fn thinking(&mut self, thinking: &Thinking, verbatim: bool) {
        let effort = thinking.as_effort();
        match self.aim.traits.effort {
            EffortField::Unknown => {
                if effort.is_some() {
                    self.dropped.add("reasoning_effort");
                }
            }
            EffortField::Effort(_) if verbatim => {
                let word = effort.map(|effort| json!(effort.name()));
                self.put("reasoning_effort", word);
            }
            EffortField::Effort(_) => {
                let words = self.aim.traits.effort.words(self.aim.model);
                self.effort(words.unwrap_or_default(), effort);
            }
            EffortField::Thinking(words) => {
                let on = effort != Some(Effort::None);
                self.set("thinking", json!({ "type": if on { "enabled" } else { "disabled" } }));
                if on && !words.is_empty() {
                    self.effort(words, effort);
                }
            }
            EffortField::EnableThinking => {
                self.set("enable_thinking", json!(effort != Some(Effort::None)));
                let budget = thinking.budget.or_else(|| thinking.effort.map(Effort::budget));
                if let Some(budget) = budget.filter(|budget| *budget > 0) {
                    self.set("thinking_budget", json!(budget));
                }
            }
            EffortField::Reasoning => self.reasoning(thinking),
        }
        if thinking.summary.is_some() && self.aim.traits.effort != EffortField::Reasoning {
            self.dropped.add("reasoning.summary");
        }
    }

    fn effort(&mut self, words: family::Words, effort: Option<Effort>) {
        let Some(effort) = effort else { return };
        let (word, lost) = nearest(words, effort);
        self.dropped.add_if(lost, "reasoning_effort");
        if let Some(word) = word {
            self.set("reasoning_effort", json!(word));
        }
    }

    /// OpenRouter's object; it takes effort or budget, not both.
    fn reasoning(&mut self, thinking: &Thinking) {
        const WORDS: [&str; 6] = ["none", "minimal", "low", "medium", "high", "xhigh"];
        let mut reasoning = Map::new();
        if let Some(budget) = thinking.budget.filter(|budget| *budget > 0) {
            reasoning.insert("max_tokens".into(), json!(budget));
        } else if let Some(effort) = thinking.effort {
            reasoning.insert("effort".into(), json!(nearest(&WORDS, effort).0));
        } else {
            reasoning.insert("enabled".into(), json!(thinking.budget.is_none()));
        }
        if let Some(visible) = thinking.visible {
            reasoning.insert("exclude".into(), json!(!visible));
        }
        if let Some(summary) = &thinking.summary {
            reasoning.insert("summary".into(), json!(summary));
        }
        self.set("reasoning", reasoning.into());
    }

    fn rest(&mut self, request: &ChatRequest) {
        self.put("verbosity", request.verbosity.clone());
        if request.audio.is_some() && !self.refuses("audio") {
            self.set("modalities", json!(["text", "audio"]));
        }
        self.put("audio", request.audio.clone());
        self.put("user", request.user.clone());
        // OpenAI refuses metadata on what it is not to store.
        let stores = request.extras.dialect == Some(Dialect::Chat)
            && request.extras.fields.get("store") == Some(&Value::Bool(true));
        match &request.metadata {
            Some(_) if !stores => self.dropped.add("metadata"),
            metadata => self.put("metadata", metadata.clone()),
        }
        self.put("service_tier", request.service_tier.clone());
        self.put("prompt_cache_key", request.cache_key.clone());
        if request.stream {
            self.set("stream", json!(true));
            // The gateway wants to know, whether the client asked or not.
            if !self.refuses("stream_options") {
                self.set("stream_options", json!({ "include_usage": true }));
            }
        }
    }

    fn extras(&mut self, request: &ChatRequest) {
        let is_ours = request.extras.dialect == Some(Dialect::Chat);
        for (name, value) in &request.extras.fields {
            let said = self.body.get_mut(name).and_then(Value::as_object_mut);
            if let (true, Some(said), Some(more)) = (is_ours, said, value.as_object()) {
                said.extend(more.clone());
            } else if is_ours && !self.refuses(name) {
                self.body.entry(name.clone()).or_insert_with(|| value.clone());
            } else if name != "store" && !(is_ours && BOOKKEEPING.contains(&name.as_str())) {
                self.dropped.add(name.clone());
            }
        }
    }
}
