//! Writes a question for a server of this API. Nothing is left there: state travels with the call.

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::hosted::Hosted;
use super::tools::{self, Spelling};
use super::{content, item};
use crate::canon::{
    ChatRequest, Citation, Content, Dialect, Effort, Foreign, Format, MediaKind, Message, Opaque,
    Part, Role, Sampling, Source, Tool, ToolCall, ToolResult,
};
use crate::dialect::lost::{self, Dropped};
use crate::dialect::openai::family;
use crate::dialect::traits::nearest;
use crate::dialect::{Aim, Inexpressible, Written, custom, portable_id};

/// The API refuses a smaller limit.
const FEWEST_TOKENS: u64 = 16;

type Fields = Map<String, Value>;

pub(super) fn write(request: &ChatRequest, aim: &Aim<'_>) -> Result<Written, Inexpressible> {
    let own = request.extras.dialect == Some(Dialect::Responses);
    // Servers that follow OpenAI have its functions and none of its other tools for clients.
    let flat = !aim.traits.custom_tools && !aim.traits.lenient;
    let spelling = Spelling { lenient: !own, flat };
    let grammar = flat && request.tools.iter().any(custom::has_grammar);
    let request = if flat { custom::without(request) } else { Cow::Borrowed(request) };
    let request = &*request;
    let marks = own || knows_breakpoints(aim.model);
    let (instructions, messages) = instructions(&request.messages);
    let mut input = Input { marks, spelling, items: Vec::new(), custom: HashSet::new() };
    for message in messages {
        input.write_message(message)?;
    }
    let mut fields = Fields::new();
    if !aim.traits.model_in_path {
        fields.insert("model".into(), aim.model.into());
    }
    fields.extend(instructions.map(|text| ("instructions".into(), text.into())));
    write_tools(request, spelling, &mut fields);
    write_text(request, &mut fields);
    let thought = write_reasoning(request, aim, &mut fields);
    // Its own clients are told by OpenAI itself what a model refuses.
    let untouched = || (request.sampling.clone(), Vec::new());
    let (sampling, refused) = if own { untouched() } else { family::spared(aim.model, request) };
    write_sampling(&sampling, &mut fields);
    write_rest(request, &mut fields);
    write_state(request, aim.model, &sampling, own, &mut fields);
    fields.insert("input".into(), Value::Array(input.items));
    let body = serde_json::to_vec(&fields).unwrap_or_default();
    let mut dropped = dropped(request, marks, own);
    let grammar = grammar.then_some(custom::FORMAT);
    dropped.extend(refused.into_iter().chain(grammar).chain(thought));
    Ok(Written { body, dropped: dropped.into_names() })
}

/// Whether a model keeps a prompt by marks: `GPT-5.6` and its successors do.
fn knows_breakpoints(model: &str) -> bool {
    let version = model.rsplit('/').next().and_then(|name| name.strip_prefix("gpt-"));
    let version = version.and_then(|version| version.split('-').next()).and_then(|version| {
        let (major, minor) = version.split_once('.').unwrap_or((version, "0"));
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    });
    version.is_some_and(|version| version >= (5, 6))
}

/// The first message, if it is an operator's text and nothing else.
fn instructions(messages: &[Message]) -> (Option<&str>, &[Message]) {
    let Some((first, others)) = messages.split_first() else { return (None, messages) };
    match first.parts.as_slice() {
        [Part { content: Content::Text { text, .. }, cache: None, .. }]
            if first.role == Role::System && first.name.is_none() =>
        {
            (Some(text), others)
        }
        _ => (None, messages),
    }
}

fn write_tools(request: &ChatRequest, spelling: Spelling, fields: &mut Fields) {
    let written = tools::write(&request.tools, spelling);
    if !written.is_empty() {
        fields.insert("tools".into(), Value::Array(written));
    }
    let choice = request.tool_choice.as_ref();
    let choice = choice.map(|choice| tools::write_choice(choice, &request.tools, spelling));
    fields.extend(choice.map(|choice| ("tool_choice".into(), choice)));
    let parallel = request.parallel_tool_calls;
    fields.extend(parallel.map(|parallel| ("parallel_tool_calls".into(), parallel.into())));
}

pub(super) fn write_format(format: &Format) -> Option<Value> {
    match format {
        Format::Text => None,
        Format::JsonObject => Some(json!({"type": "json_object"})),
        Format::JsonSchema { name, description, schema, strict } => {
            let mut value = json!({"type": "json_schema", "name": name});
            if let Some(description) = description {
                value["description"] = description.as_str().into();
            }
            value["schema"] = schema.clone();
            if let Some(strict) = strict {
                value["strict"] = (*strict).into();
            }
            Some(value)
        }
    }
}

fn write_text(request: &ChatRequest, fields: &mut Fields) {
    let mut text = Fields::new();
    text.extend(write_format(&request.format).map(|format| ("format".into(), format)));
    let verbosity = request.verbosity.as_deref();
    text.extend(verbosity.map(|verbosity| ("verbosity".into(), verbosity.into())));
    if !text.is_empty() {
        fields.insert("text".into(), Value::Object(text));
    }
}

/// How much to think, in a word that the model takes; its own clients' stays as it is. Gives the
/// name of what is lost.
fn write_reasoning(
    request: &ChatRequest,
    aim: &Aim<'_>,
    fields: &mut Fields,
) -> Option<&'static str> {
    let thinking = request.reasoning.as_ref()?;
    let own = request.extras.dialect == Some(Dialect::Responses);
    let mut reasoning = Fields::new();
    let effort = thinking.as_effort();
    let words = aim.traits.effort.words(aim.model).filter(|_| !own);
    let max = effort == Some(Effort::Max) && family::takes_max(aim.model);
    let (word, lost) = match (effort, words) {
        (None, _) => (None, false),
        (Some(effort), Some(words)) if !max => nearest(words, effort),
        (Some(effort), _) => (Some(effort.name()), false),
    };
    reasoning.extend(word.map(|word| ("effort".into(), word.into())));
    let automatic = (thinking.visible == Some(true)).then_some("auto");
    let summary = thinking.summary.as_deref().or(automatic);
    reasoning.extend(summary.map(|summary| ("summary".into(), summary.into())));
    if !reasoning.is_empty() {
        fields.insert("reasoning".into(), Value::Object(reasoning));
    }
    lost.then_some("reasoning_effort")
}

fn write_sampling(sampling: &Sampling, fields: &mut Fields) {
    let most = sampling.max_tokens.map(|most| most.max(FEWEST_TOKENS));
    fields.extend(most.map(|most| ("max_output_tokens".into(), most.into())));
    fields.extend(sampling.temperature.map(|heat| ("temperature".into(), heat.into())));
    fields.extend(sampling.top_p.map(|share| ("top_p".into(), share.into())));
    fields.extend(sampling.logprobs.map(|count| ("top_logprobs".into(), count.into())));
}

fn write_rest(request: &ChatRequest, fields: &mut Fields) {
    let mut text = |name: &str, value: &Option<String>| {
        fields.extend(value.as_deref().map(|value| (name.to_owned(), value.into())));
    };
    text("safety_identifier", &request.user);
    text("service_tier", &request.service_tier);
    text("prompt_cache_key", &request.cache_key);
    let metadata = request.metadata.clone();
    fields.extend(metadata.map(|metadata| ("metadata".into(), Value::Object(metadata))));
}

/// The client's own fields, what the server is to keep, and what it is to tell.
fn write_state(
    request: &ChatRequest,
    model: &str,
    sampling: &Sampling,
    own: bool,
    fields: &mut Fields,
) {
    let mut include = Vec::new();
    for (name, value) in request.extras.fields.iter().filter(|_| own) {
        match (name.as_str(), value, fields.get_mut(name)) {
            ("include", Value::Array(list), _) => include.clone_from(list),
            (_, Value::Object(more), Some(Value::Object(said))) => said.extend(more.clone()),
            (_, _, Some(_)) => {}
            (_, value, None) => {
                fields.insert(name.clone(), value.clone());
            }
        }
    }
    let stored = fields.entry("store").or_insert(Value::Bool(false)) != &Value::Bool(false);
    if !stored && (family::thinks(model) || request.reasoning.is_some()) {
        include.push("reasoning.encrypted_content".into());
    }
    if sampling.logprobs.is_some() {
        include.push("message.output_text.logprobs".into());
    }
    if !include.is_empty() {
        fields.insert("include".into(), Value::Array(include));
    }
    if request.stream {
        fields.insert("stream".into(), true.into());
    }
}

/// What the API has no place for, by the names in chat completions.
fn dropped(request: &ChatRequest, marks: bool, own: bool) -> Dropped {
    let sampling = &request.sampling;
    let parts = || request.messages.iter().flat_map(|message| &message.parts);
    let marked = |tool: &Tool| matches!(tool, Tool::Function { cache: Some(_), .. });
    let unmarked = parts().any(|part| part.cache.is_some()) && !marks;
    let foreign =
        |tool: &Tool| matches!(tool, Tool::Hosted(other) if other.dialect != Dialect::Responses);
    let table = [
        ("stop", !sampling.stop.is_empty()),
        ("seed", sampling.seed.is_some()),
        ("frequency_penalty", sampling.frequency_penalty.is_some()),
        ("presence_penalty", sampling.presence_penalty.is_some()),
        ("n", sampling.choices.is_some_and(|choices| choices > 1)),
        ("logit_bias", sampling.logit_bias.is_some()),
        ("top_k", sampling.top_k.is_some()),
        ("audio", request.audio.is_some()),
        ("name", request.messages.iter().any(|message| message.name.is_some())),
        ("cache_control", unmarked || request.tools.iter().any(marked)),
        ("tools", request.tools.iter().any(foreign)),
        ("is_error", !own && parts().any(fails)),
        ("citations", parts().any(is_citable)),
        ("audio", parts().any(is_named_sound)),
        ("images", request.messages.iter().any(has_strange_picture)),
    ];
    let general = table.into_iter().filter(|(_, lost)| *lost).map(|(name, _)| Cow::Borrowed(name));
    let extras = request.extras.fields.keys().filter(|_| !own);
    let extras = extras.map(|name| Cow::Owned(name.clone()));
    let blocks = parts().filter_map(lost_block).map(Cow::Owned);
    let blocks = blocks.chain(lost::thoughts(request, |part, _| {
        part.opaque_for(Dialect::Responses).is_some_and(tells)
    }));
    let cites = |cited: &Citation| {
        let original = cited.original.as_ref();
        cited.url.is_some() || original.is_none_or(|it| it.dialect == Dialect::Responses)
    };
    let blocks = blocks.chain(lost::citations(request, cites));
    let blocks = blocks.chain(lost::beside(request, Dialect::Responses));
    let mut dropped = Dropped::default();
    dropped.extend(general.chain(extras).chain(blocks));
    dropped
}

/// A result that says of itself that the tool failed, which here only its text can.
fn fails(part: &Part) -> bool {
    matches!(&part.content, Content::ToolResult(ToolResult { is_error: true, .. }))
}

/// The type of a block that only another API has.
fn lost_block(part: &Part) -> Option<String> {
    let Content::Foreign(foreign @ Foreign { dialect, .. }) = &part.content else { return None };
    (*dialect != Dialect::Responses).then(|| lost::kind(foreign))
}

fn is_citable(part: &Part) -> bool {
    matches!(&part.content, Content::Media(media) if media.citable)
}

/// A picture of the model's that no tool of this API has made: only a user may show one.
fn has_strange_picture(message: &Message) -> bool {
    let is_strange = |part: &Part| {
        let Content::Media(media) = &part.content else { return false };
        media.kind == MediaKind::Image && part.opaque_for(Dialect::Responses).is_none()
    };
    message.role == Role::Assistant && message.parts.iter().any(is_strange)
}

/// What the model has spoken, by an id that only another API knows.
fn is_named_sound(part: &Part) -> bool {
    let Content::Media(media) = &part.content else { return false };
    media.kind == MediaKind::Audio && matches!(media.source, Source::File { .. })
}

/// The items of a conversation as they are written.
struct Input {
    /// The target knows cache breakpoints.
    marks: bool,
    spelling: Spelling,
    items: Vec<Value>,
    /// Calls of custom tools, whose results have an item of their own.
    custom: HashSet<String>,
}

// === impl Input ===

impl Input {
    fn write_message(&mut self, message: &Message) -> Result<(), Inexpressible> {
        match message.role {
            Role::Assistant => {
                for part in &message.parts {
                    self.write_answer(part);
                }
                Ok(())
            }
            Role::Tool => message.parts.iter().try_for_each(|part| match &part.content {
                Content::ToolResult(result) => self.write_result(part, result),
                _ => Ok(()),
            }),
            Role::System => self.write_words("system", message),
            Role::Developer => self.write_words("developer", message),
            Role::User => self.write_words("user", message),
        }
    }

    fn write_words(&mut self, role: &str, message: &Message) -> Result<(), Inexpressible> {
        let content = match message.parts.as_slice() {
            [Part { content: Content::Text { text, .. }, cache: None, .. }] => text.as_str().into(),
            parts => self.write_parts(parts)?,
        };
        self.items.push(json!({"type": "message", "role": role, "content": content}));
        Ok(())
    }

    fn write_parts(&self, parts: &[Part]) -> Result<Value, Inexpressible> {
        let written = parts.iter().map(|part| content::write_input(part, self.marks));
        Ok(Value::Array(written.filter_map(Result::transpose).collect::<Result<_, _>>()?))
    }

    /// A part of what the model said.
    fn write_answer(&mut self, part: &Part) {
        let own = part.opaque_for(Dialect::Responses);
        match &part.content {
            Content::ToolCall(call) => self.write_call(call, own.filter(|_| !self.spelling.flat)),
            Content::Text { text, citations } => {
                let citations: Vec<Value> =
                    citations.iter().filter_map(content::write_citation).collect();
                let said = json!({"type": "output_text", "text": text, "annotations": citations});
                self.write_said(said, own);
            }
            Content::Refusal(text) => {
                self.write_said(json!({"type": "refusal", "refusal": text}), own);
            }
            // Its state is the whole item: without it the server takes no thoughts.
            Content::Reasoning(_) => self.items.extend(own.filter(|item| tells(item)).cloned()),
            Content::Media(media) => {
                if let (Some(Value::Object(rest)), Source::Base64 { data, .. }) =
                    (own, &media.source)
                {
                    let mut item = rest.clone();
                    item.insert("status".into(), "completed".into());
                    item.insert("result".into(), data.as_str().into());
                    self.items.push(Value::Object(item));
                }
            }
            Content::Foreign(Foreign { dialect: Dialect::Responses, value }) => {
                self.items.push(value.clone());
            }
            Content::Foreign(_) | Content::ToolResult(_) => {}
        }
    }

    /// Words of the model's; those of one message stay together.
    fn write_said(&mut self, said: Value, rest: Option<&Value>) {
        let mut item = json!({"type": "message", "role": "assistant", "content": []});
        merge(&mut item, rest);
        let content = item["content"].take();
        let same = self.items.last_mut().filter(|last| {
            last["role"] == "assistant"
                && last.as_object().map(Map::len) == item.as_object().map(Map::len)
                && item.as_object().is_some_and(|fields| {
                    fields.iter().all(|(name, value)| name == "content" || last[name] == *value)
                })
        });
        if let Some(list) = same.and_then(|last| last["content"].as_array_mut()) {
            list.push(said);
            return;
        }
        item["content"] = content;
        if let Some(list) = item["content"].as_array_mut() {
            list.push(said);
        }
        self.items.push(item);
    }

    fn write_call(&mut self, call: &ToolCall, own: Option<&Value>) {
        let id = portable_id(&call.id);
        let hosted = own.and_then(|own| item::string(own, "type")).and_then(Hosted::of_call);
        if let Some(hosted) = hosted {
            let arguments: Value = serde_json::from_str(&call.arguments).unwrap_or_default();
            let mut item = json!({"type": hosted.call, "call_id": id});
            item[hosted.field] = arguments;
            item["status"] = "completed".into();
            merge(&mut item, own);
            self.items.push(item);
            return;
        }
        let (kind, field) = if call.custom {
            self.custom.insert(call.id.clone());
            ("custom_tool_call", "input")
        } else {
            // Some clients number their calls anew in each turn.
            self.custom.remove(&call.id);
            ("function_call", "arguments")
        };
        let (namespace, name) = self.spelling.split(&call.name);
        let mut item = json!({"type": kind, "call_id": id, "name": name});
        if let Some(namespace) = namespace {
            item["namespace"] = namespace.into();
        }
        let empty = call.arguments.is_empty() && !call.custom;
        item[field] = if empty { "{}" } else { call.arguments.as_str() }.into();
        merge(&mut item, own);
        self.items.push(item);
    }

    fn write_result(&mut self, part: &Part, result: &ToolResult) -> Result<(), Inexpressible> {
        let own = part.opaque_for(Dialect::Responses).filter(|_| !self.spelling.flat);
        let id = portable_id(&result.id);
        let hosted = own.and_then(|own| item::string(own, "type")).and_then(Hosted::of_output);
        if let Some(hosted) = hosted {
            let text: String = result.parts.iter().filter_map(Part::as_text).collect();
            let list = serde_json::from_str(&text).ok().filter(Value::is_array);
            let mut item = json!({"type": hosted.output, "call_id": id});
            item["output"] = list.unwrap_or_else(|| text.into());
            merge(&mut item, own);
            self.items.push(item);
            return Ok(());
        }
        let custom = result.custom || self.custom.contains(&result.id);
        let kind = if custom { "custom_tool_call_output" } else { "function_call_output" };
        let output = match result.parts.as_slice() {
            [] => "".into(),
            [Part { content: Content::Text { text, .. }, cache: None, .. }] => text.as_str().into(),
            parts => self.write_parts(parts)?,
        };
        let mut item = json!({"type": kind, "call_id": id, "output": output});
        merge(&mut item, own);
        self.items.push(item);
        Ok(())
    }
}

/// Whether an item of reasoning says more than its id, which a server that keeps nothing does not
/// know.
fn tells(item: &Value) -> bool {
    ["summary", "content", "encrypted_content"].iter().any(|name| match &item[*name] {
        Value::Array(list) => !list.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => false,
    })
}

/// Adds the fields that the item has besides.
fn merge(item: &mut Value, rest: Option<&Value>) {
    let Some(Value::Object(rest)) = rest else { return };
    for (name, value) in rest {
        if item.get(name).is_none() {
            item[name] = value.clone();
        }
    }
}

/// Who can read a state.
pub(super) fn is_item(opaque: &Opaque) -> bool {
    opaque.dialect == Dialect::Responses && opaque.data["type"] == "reasoning"
}
