//! How a question betrays, before it is read, that it cannot pass to a target as it is.
//!
//! Its bytes are searched, not parsed: a word too many costs a translation, nothing else.

use super::{EffortField, JsonMode, Thoughts, Traits};
use crate::canon::Dialect;

/// Bytes that stand in a question, and bytes that do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub has: &'static [&'static str],
    pub lacks: &'static [&'static str],
}

/// Bears all of these.
pub const fn has(has: &'static [&'static str]) -> Mark {
    Mark { has, lacks: &[] }
}

/// Marks of a conversation that another provider has answered in part: state that is sealed for
/// it, or calls without the state that this dialect's own provider wants with them in any case.
pub fn of_strangers(dialect: Dialect) -> &'static [Mark] {
    match dialect {
        Dialect::Chat => const { &[has(&["\"switchpoint"])] },
        Dialect::Responses => const { &[has(&["\"sp1."]), has(&["\"rs_sp"])] },
        Dialect::Messages => {
            const {
                &[
                    has(&["\"sp1."]),
                    has(&["\"signature\":\"\""]),
                    has(&["\"signature\": \"\""]),
                    has(&["\"encrypted_index\":\"\""]),
                    has(&["\"encrypted_index\": \"\""]),
                    Mark { has: &["\"tool_use\"", "\"budget_tokens\""], lacks: &["\"signature\""] },
                ]
            }
        }
        // Base64 of the prefix: that field is decoded by clients.
        Dialect::Gemini => const { &[has(&["\"c3AxL"])] },
        Dialect::Converse | Dialect::Cohere => &[],
    }
}

/// Marks of what a server that speaks chat completions does not take as OpenAI has it; with those
/// of what only other servers give their clients to keep, where there are such.
pub fn of_traits(traits: &Traits, mixed: bool) -> impl Iterator<Item = Mark> {
    let role = (!traits.developer && !traits.lenient).then(|| has(&["\"developer\""]));
    let json = match traits.json {
        JsonMode::Both => None,
        JsonMode::ObjectOnly => Some(has(&["\"json_schema\""])),
        JsonMode::SchemaOnly => Some(has(&["\"json_object\""])),
    };
    // Whoever says it in the server's own words is left to it.
    let effort = match traits.effort {
        EffortField::Thinking(_) => {
            Some(Mark { has: &["\"reasoning_effort\""], lacks: &["\"thinking\""] })
        }
        EffortField::EnableThinking => {
            Some(Mark { has: &["\"reasoning_effort\""], lacks: &["\"enable_thinking\""] })
        }
        _ => None,
    };
    let ids = traits.short_ids.then(|| has(&["\"tool_call_id\""]));
    let thoughts: &[Mark] = match traits.thoughts {
        Thoughts::Unknown if mixed => {
            const { &[has(&["\"reasoning_content\""]), has(&["\"reasoning_details\""])] }
        }
        // A turn with tools is refused without the thoughts that led to it.
        Thoughts::Field("reasoning_content") => {
            const {
                &[
                    has(&["\"reasoning_details\""]),
                    Mark { has: &["\"tool_calls\""], lacks: &["\"reasoning_content\""] },
                ]
            }
        }
        Thoughts::Field(_) => const { &[has(&["\"reasoning_details\""])] },
        Thoughts::Unknown | Thoughts::Details => &[],
        // Its thoughts come as parts of the content, which OpenAI's clients do not expect.
        Thoughts::Parts => {
            const {
                &[
                    has(&["\"reasoning_content\""]),
                    has(&["\"reasoning_details\""]),
                    has(&["\"reasoning_effort\""]),
                ]
            }
        }
    };
    let listed = thoughts.iter().chain(traits.stumbles).copied();
    json.into_iter().chain(role).chain(effort).chain(ids).chain(listed)
}

/// Marks of a question that gives the model tools.
pub const TOOLS: &[Mark] = &[has(&["\"tools\""]), has(&["\"functions\""])];

/// Marks of calls without signatures in a question to Gemini, some of whose models want them.
pub const UNSIGNED_CALLS: &[Mark] = &[
    Mark { has: &["\"functionCall\""], lacks: &["\"thoughtSignature\""] },
    Mark { has: &["\"function_call\""], lacks: &["\"thought_signature\""] },
];

/// Marks of a question to Gemini that says how urgent it is.
pub const TIER: &[Mark] = &[has(&["\"serviceTier\""]), has(&["\"service_tier\""])];

/// Marks of tools that OpenAI's responses API has for its clients besides functions, and of their
/// calls.
pub const BESIDE_FUNCTIONS: &[Mark] = &[
    has(&["\"custom\""]),
    has(&["\"namespace\""]),
    has(&["\"custom_tool_call"]),
    has(&["\"additional_tools\""]),
    has(&["\"local_shell"]),
    has(&["\"shell"]),
    has(&["\"apply_patch"]),
];

/// Marks of what a provider keeps under an id: files, and items of the responses API.
pub fn of_references(dialect: Option<Dialect>) -> &'static [Mark] {
    match dialect {
        Some(Dialect::Responses) => {
            const { &[has(&["\"file_id"]), has(&["\"file-"]), has(&["\"id\""])] }
        }
        Some(Dialect::Gemini) => const { &[has(&["\"file_uri\""]), has(&["\"fileUri\""])] },
        Some(Dialect::Messages) => const { &[has(&["\"file_id"])] },
        _ => const { &[has(&["\"file_id"]), has(&["\"file-"])] },
    }
}

/// Something that is spelled with escapes, letters perhaps: no serializer does that, and whoever
/// does it may hide another mark.
pub const ESCAPES: Mark = has(&["\\u00"]);
pub const ESCAPED_LETTERS: [Mark; 5] =
    [has(&["\\u005"]), has(&["\\u006"]), has(&["\\u007"]), has(&["\\u002d"]), has(&["\\u002D"])];

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    use super::*;
    use crate::canon::{ChatRequest, ChatResponse, Choice, Citation, Content, Opaque, Part};
    use crate::dialect::{ClientSide, Context, messages, opaque};

    #[test]
    fn a_server_is_known_to_stumble_over_what_only_openai_knows() {
        let marks = |traits: &Traits, mixed, word: &str| {
            of_traits(traits, mixed).any(|mark| mark.has.contains(&word))
        };
        assert!(marks(&Traits::FOLLOWER, false, "\"developer\""));
        assert!(!marks(&Traits::LENIENT, true, "\"developer\""));
        // How much to think is said there by another name, but not by those who know that.
        let thinker = Traits { effort: EffortField::Thinking(&[]), ..Traits::FOLLOWER };
        let effort = Mark { has: &["\"reasoning_effort\""], lacks: &["\"thinking\""] };
        assert!(of_traits(&thinker, false).any(|mark| mark == effort));
        // Its own thoughts are left to a server of which nothing is known.
        let thought = "\"reasoning_content\"";
        assert!(marks(&Traits::LENIENT, true, thought) && !marks(&Traits::LENIENT, false, thought));
    }

    #[test]
    fn a_citation_that_was_written_here_bears_a_mark() {
        let citation = Citation { url: Some("https://a.example".into()), ..Citation::default() };
        let text = Content::Text { text: "So.".into(), citations: vec![citation] };
        let choice = Choice { parts: vec![Part::new(text)], ..Choice::default() };
        let response = ChatResponse { choices: vec![choice], ..ChatResponse::default() };
        let request = &ChatRequest::default();
        let context =
            Context { id: "1", created: 7, model: "m", input_estimate: 3, previous: None, request };
        let body = messages::CODEC.write_response(&response, &context);
        let body = String::from_utf8(body).unwrap();
        let bears = |mark: &Mark| mark.has.iter().all(|word| body.contains(word));
        assert!(of_strangers(Dialect::Messages).iter().any(bears), "{body}");
    }

    #[test]
    fn sealed_state_begins_as_its_marks_say() {
        let state = Opaque { dialect: Dialect::Messages, data: json!({"signature": "x"}) };
        let sealed = opaque::seal(&state);
        let begins = |dialect, text: &str| text.starts_with(of_strangers(dialect)[0].has[0]);
        assert!(begins(Dialect::Messages, &format!("\"{sealed}")));
        assert!(begins(Dialect::Gemini, &format!("\"{}", STANDARD.encode(&sealed))));
    }
}
