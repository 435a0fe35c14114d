//! Names of what a client said and a target cannot be told, where several targets lack the same.

use std::borrow::Cow;

use crate::canon::{
    ChatRequest, Citation, Content, Dialect, Foreign, Format, Media, MediaKind, Part, Reasoning,
};

/// As many names as there is room for in a header: clients may make up any number of fields.
const MOST_NAMES: usize = 100;

/// The fields of a question that its target cannot take, each once.
#[derive(Debug, Default)]
pub(super) struct Dropped(Vec<Cow<'static, str>>);

impl Dropped {
    pub(super) fn add(&mut self, name: impl Into<Cow<'static, str>>) {
        let name = name.into();
        if self.0.len() < MOST_NAMES && !self.0.contains(&name) {
            self.0.push(name);
        }
    }

    pub(super) fn add_if(&mut self, lost: bool, name: impl Into<Cow<'static, str>>) {
        if lost {
            self.add(name);
        }
    }

    pub(super) fn into_names(self) -> Vec<Cow<'static, str>> {
        self.0
    }
}

impl<N: Into<Cow<'static, str>>> Extend<N> for Dropped {
    fn extend<I: IntoIterator<Item = N>>(&mut self, names: I) {
        names.into_iter().for_each(|name| self.add(name));
    }
}

/// What the client calls the thoughts of its conversation, if the target is not given all that
/// it sent. `keeps` tells whether the target is given one.
pub(super) fn thoughts(
    request: &ChatRequest,
    mut keeps: impl FnMut(&Part, &Reasoning) -> bool,
) -> Option<Cow<'static, str>> {
    let mut parts = request.messages.iter().flat_map(|message| &message.parts);
    let is_lost = parts.any(|part| match &part.content {
        Content::Reasoning(thought) if !thought.recalled => {
            let says_something =
                thought.redacted || part.opaque.is_some() || !thought.text.is_empty();
            says_something && !keeps(part, thought)
        }
        _ => false,
    });
    is_lost.then(|| match request.extras.dialect {
        Some(Dialect::Messages) => "thinking".into(),
        Some(Dialect::Gemini) => "thought".into(),
        _ => "reasoning".into(),
    })
}

/// What the client calls the sources of what was said, if the target is not given all of them.
pub(super) fn citations(
    request: &ChatRequest,
    mut keeps: impl FnMut(&Citation) -> bool,
) -> Option<Cow<'static, str>> {
    let mut parts = request.messages.iter().flat_map(|message| &message.parts);
    let is_lost = parts.any(|part| match &part.content {
        Content::Text { citations, .. } => !citations.iter().all(&mut keeps),
        _ => false,
    });
    let name =
        if request.extras.dialect == Some(Dialect::Messages) { "citations" } else { "annotations" };
    is_lost.then(|| name.into())
}

/// What is said to a model whose API takes no shape for its answer. It binds less.
pub(super) fn shape_in_words(format: &Format) -> Option<String> {
    match format {
        Format::Text => None,
        Format::JsonObject => Some("Answer with one JSON object and nothing else.".to_owned()),
        Format::JsonSchema { schema, .. } => Some(format!(
            "Answer with one JSON value that follows this schema, and nothing else:\n{schema}"
        )),
    }
}

/// State of a provider that no client has to know of.
const SEALED: [&str; 5] = ["signature", "data", "thoughtSignature", "caller", "mimeType"];

/// What stands beside the parts of a conversation and has no place at a target: names of media, and
/// fields that only the client's own API has.
pub(super) fn beside(request: &ChatRequest, target: Dialect) -> Vec<Cow<'static, str>> {
    let client = request.extras.dialect;
    let mut names: Vec<Cow<'static, str>> = Vec::new();
    for part in request.messages.iter().flat_map(|message| &message.parts) {
        let inner = match &part.content {
            Content::ToolResult(result) => result.parts.as_slice(),
            _ => &[],
        };
        for part in std::iter::once(part).chain(inner) {
            match &part.content {
                Content::Reasoning(_) => continue,
                Content::Media(media) if loses_name(media, client, target) => {
                    names.push(name_of_media(client));
                }
                _ => {}
            }
            let own = part.opaque.as_ref().filter(|own| Some(own.dialect) == client);
            let is_open = |own: &Dialect| matches!(own, Dialect::Messages | Dialect::Gemini);
            let own = own.filter(|own| own.dialect != target && is_open(&own.dialect));
            let fields = own.and_then(|own| own.data.as_object()).into_iter().flatten();
            let fields =
                fields.map(|(name, _)| name).filter(|name| !SEALED.contains(&name.as_str()));
            names.extend(fields.map(|name| Cow::Owned(name.clone())));
        }
    }
    names
}

/// Documents have names nearly everywhere. Gemini's are for its own clients, who know where they
/// may be said.
fn loses_name(media: &Media, client: Option<Dialect>, target: Dialect) -> bool {
    let keeps = match target {
        Dialect::Gemini => client == Some(Dialect::Gemini),
        _ => media.kind == MediaKind::Document,
    };
    media.name.is_some() && !keeps
}

fn name_of_media(client: Option<Dialect>) -> Cow<'static, str> {
    match client {
        Some(Dialect::Messages) => "title".into(),
        Some(Dialect::Gemini) => "displayName".into(),
        _ => "filename".into(),
    }
}

/// What its client calls whether thoughts are shown.
pub(super) fn display(request: &ChatRequest) -> Cow<'static, str> {
    match request.extras.dialect {
        Some(Dialect::Messages) => "thinking.display".into(),
        Some(Dialect::Gemini) => "generationConfig.thinkingConfig.includeThoughts".into(),
        _ => "reasoning.exclude".into(),
    }
}

/// What its API calls a block that no other has: by its type, or by the one field that it is.
pub(super) fn kind(foreign: &Foreign) -> String {
    let known = foreign.value["type"].as_str().map(str::to_owned);
    let only = || foreign.value.as_object()?.keys().next().cloned();
    let only = || only().filter(|_| foreign.dialect == Dialect::Gemini);
    known.or_else(only).unwrap_or_else(|| "content".to_owned())
}

/// What the client said of the answer's schema besides the schema, without what is in `taken`.
pub(super) fn format_labels(
    request: &ChatRequest,
    taken: &[&str],
) -> impl Iterator<Item = Cow<'static, str>> {
    let Format::JsonSchema { name: _, description, schema: _, strict } = &request.format else {
        return Vec::new().into_iter();
    };
    // Where the client's API has no labels for a schema, those at hand are ours.
    let says = matches!(request.extras.dialect, Some(Dialect::Chat | Dialect::Responses));
    let labels = [
        ("name", true, "response_format.name"),
        ("description", description.is_some(), "response_format.description"),
        ("strict", strict.is_some(), "response_format.strict"),
    ];
    let lost =
        labels.into_iter().filter(|(field, said, _)| says && *said && !taken.contains(field));
    lost.map(|(_, _, name)| Cow::Borrowed(name)).collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::canon::Dialect;
    use crate::dialect::{Aim, ClientSide, Traits, chat, gemini, messages, responses, upstream};

    /// What is named when this body is put to a target.
    fn dropped(client: &dyn ClientSide, body: &Value, target: Dialect) -> Vec<String> {
        let request = client.read_request(body.to_string().as_bytes()).unwrap();
        let model = match target {
            Dialect::Messages => "claude-sonnet-4-5",
            Dialect::Converse => "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            Dialect::Gemini => "gemini-3-pro-preview",
            Dialect::Cohere => "command-r-plus",
            Dialect::Chat | Dialect::Responses => "m",
        };
        let aim = Aim { model, traits: &Traits::NONE, cache: None };
        let written = upstream(target).write_request(&request, &aim).unwrap();
        written.dropped.into_iter().map(Into::into).collect()
    }

    #[test]
    fn thoughts_that_stay_behind_are_named_once_as_the_client_calls_them() {
        let user = json!({"role": "user", "content": "Hi"});
        let talk = json!({"max_tokens": 100, "messages": [user, {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
            {"type": "redacted_thinking", "data": "cmVk"},
            {"type": "text", "text": "So."},
        ]}, user]});
        for target in [Dialect::Chat, Dialect::Responses, Dialect::Gemini, Dialect::Cohere] {
            assert_eq!(dropped(&messages::CODEC, &talk, target), ["thinking"], "{target:?}");
        }
        for target in [Dialect::Messages, Dialect::Converse] {
            assert!(dropped(&messages::CODEC, &talk, target).is_empty(), "{target:?}");
        }
        let said = json!({"role": "assistant", "content": "So.", "reasoning_content": "Hm."});
        let talk = json!({"messages": [user, said, user]});
        assert_eq!(dropped(&chat::CODEC, &talk, Dialect::Messages), ["reasoning"]);
        let thought = json!({"type": "reasoning", "id": "rs_1", "encrypted_content": "x",
            "summary": [{"type": "summary_text", "text": "Hm."}]});
        let talk = json!({"input": [user, thought, {"role": "assistant", "content": "So."}, user]});
        assert_eq!(dropped(&responses::CODEC, &talk, Dialect::Messages), ["reasoning"]);
        assert!(dropped(&responses::CODEC, &talk, Dialect::Gemini).is_empty());
        let talk = json!({"contents": [
            {"role": "model", "parts": [{"text": "Hm.", "thought": true}, {"text": "So."}]},
            {"role": "user", "parts": [{"text": "Hi"}]},
        ]});
        assert_eq!(dropped(&gemini::CODEC, &talk, Dialect::Chat), ["thought"]);
    }

    #[test]
    fn what_a_client_says_of_a_schema_besides_the_schema_is_named() {
        let schema = json!({"name": "n", "description": "d", "strict": true, "schema": {
            "type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"],
            "additionalProperties": false,
        }});
        let format = json!({"type": "json_schema", "json_schema": schema});
        let user = json!({"role": "user", "content": "Hi"});
        let talk = json!({"messages": [user], "response_format": format});
        let labels =
            ["response_format.name", "response_format.description", "response_format.strict"];
        for target in [Dialect::Messages, Dialect::Gemini] {
            assert_eq!(dropped(&chat::CODEC, &talk, target), labels, "{target:?}");
        }
        assert!(dropped(&chat::CODEC, &talk, Dialect::Cohere).ends_with(&labels.map(Into::into)));
        assert_eq!(dropped(&chat::CODEC, &talk, Dialect::Converse), labels[2..]);
        assert!(dropped(&chat::CODEC, &talk, Dialect::Responses).is_empty());
    }

    #[test]
    fn what_only_gemini_says_of_a_function_returns_to_it_and_is_named_elsewhere() {
        let function = json!({"name": "f", "behavior": "NON_BLOCKING",
            "response": {"type": "OBJECT", "properties": {"a": {"type": "STRING"}}}});
        let talk = json!({"contents": [{"role": "user", "parts": [{"text": "Hi"}]}],
            "tools": [{"functionDeclarations": [function]}]});
        let fields = ["tools.functionDeclarations.behavior", "tools.functionDeclarations.response"];
        assert_eq!(dropped(&gemini::CODEC, &talk, Dialect::Chat), fields);
        let request = gemini::CODEC.read_request(talk.to_string().as_bytes()).unwrap();
        let aim = Aim { model: "gemini-2.5-flash", traits: &Traits::NONE, cache: None };
        let written = upstream(Dialect::Gemini).write_request(&request, &aim).unwrap();
        let written: Value = serde_json::from_slice(&written.body).unwrap();
        assert_eq!(written["tools"][0]["functionDeclarations"][0], function);
    }
}
