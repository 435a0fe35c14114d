//! Tools whose input is free text, for APIs whose tools take JSON.
//!
//! OpenAI's custom tools (Codex edits files with one) become functions with one string, `input`.
//! What the model then calls is a function whose arguments are `{"input": "…"}`; the client waits
//! for the text itself, so the writer of its answer takes it out again, while it streams.

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::canon::{Tool, ToolCall};

/// The function that stands for a custom tool; `None` for any other tool.
pub fn as_function(tool: &Tool) -> Option<Tool> {
    let Tool::Custom { name, description, format } = tool else { return None };
    let mut text = description.clone().unwrap_or_default();
    if let Some(grammar) = format.as_ref().and_then(grammar) {
        text.push_str(if text.is_empty() { "" } else { "\n\n" });
        text.push_str(&grammar);
    }
    Some(Tool::Function {
        name: name.clone(),
        description: (!text.is_empty()).then_some(text),
        schema: Some(json!({
            "type": "object",
            "properties": {"input": {"type": "string", "description": "The whole input as plain text."}},
            "required": ["input"],
            "additionalProperties": false,
        })),
        strict: None,
        cache: None,
    })
}

/// What the model must know of a grammar that nobody enforces for it.
fn grammar(format: &Value) -> Option<String> {
    let grammar = format.get("grammar").unwrap_or(format);
    let definition = grammar.get("definition")?.as_str()?;
    let syntax = grammar.get("syntax").and_then(Value::as_str).unwrap_or("formal");
    Some(format!("`input` must follow this {syntax} grammar:\n{definition}"))
}

/// A call's arguments as JSON, whatever kind of tool it calls.
pub fn arguments(call: &ToolCall) -> Cow<'_, str> {
    if call.custom {
        Cow::Owned(json!({ "input": call.arguments }).to_string())
    } else {
        Cow::Borrowed(&call.arguments)
    }
}

/// The text in `{"input": "…"}`; anything else as it is.
pub fn unwrap(arguments: &str) -> String {
    let mut text = String::new();
    let mut unwrapper = Unwrapper::default();
    unwrapper.feed(arguments, &mut text);
    unwrapper.finish(&mut text);
    text
}

/// Takes the text out of `{"input": "…"}` as the JSON arrives.
#[derive(Debug, Default)]
pub struct Unwrapper {
    state: State,
    /// What is not decided yet: the beginning of the object, or of an escape.
    held: String,
    /// The first half of a surrogate pair.
    high: Option<u16>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the text.
    #[default]
    Lead,
    Text,
    Escape,
    /// Past the text.
    Done,
    /// Not of the expected shape: kept until all of it is there.
    Other,
}

/// What stands before the text, white space aside.
const LEAD: &[&str] = &["{", "\"input\"", ":", "\""];

// === impl Unwrapper ===

impl Unwrapper {
    /// Appends to `out` what `arguments` adds to the text.
    pub fn feed(&mut self, arguments: &str, out: &mut String) {
        let rest = match self.state {
            State::Lead | State::Other => {
                self.held.push_str(arguments);
                match self.lead() {
                    Some(text) => text,
                    None => return,
                }
            }
            _ => arguments.to_owned(),
        };
        for character in rest.chars() {
            self.character(character, out);
        }
    }

    /// All has arrived.
    pub fn finish(&mut self, out: &mut String) {
        if !matches!(self.state, State::Lead | State::Other) {
            return;
        }
        let held = std::mem::take(&mut self.held);
        let value: Option<Value> = serde_json::from_str(&held).ok();
        let text = value.as_ref().and_then(|value| value.get("input")).and_then(Value::as_str);
        out.push_str(text.unwrap_or(&held));
        self.state = State::Done;
    }

    /// Looks for the text's beginning in what is held; gives what stands behind it.
    fn lead(&mut self) -> Option<String> {
        if self.state == State::Other {
            return None;
        }
        let mut rest = self.held.as_str();
        for mark in LEAD {
            rest = rest.trim_ascii_start();
            match rest.strip_prefix(mark) {
                Some(behind) => rest = behind,
                None if mark.starts_with(rest) => return None,
                None => {
                    self.state = State::Other;
                    return None;
                }
            }
        }
        let rest = rest.to_owned();
        self.held.clear();
        self.state = State::Text;
        Some(rest)
    }

    fn character(&mut self, character: char, out: &mut String) {
        match (self.state, character) {
            (State::Text, '"') => self.state = State::Done,
            (State::Text, '\\') => self.state = State::Escape,
            (State::Text, _) => out.push(character),
            (State::Escape, _) => self.escape(character, out),
            _ => {}
        }
    }

    fn escape(&mut self, character: char, out: &mut String) {
        if self.held.is_empty() && character != 'u' {
            out.push(match character {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                'b' => '\u{8}',
                'f' => '\u{c}',
                other => other,
            });
            self.state = State::Text;
            return;
        }
        self.held.push(character);
        if self.held.chars().count() < 5 {
            return;
        }
        let unit = self.held.get(1..).and_then(|digits| u16::from_str_radix(digits, 16).ok());
        self.held.clear();
        self.state = State::Text;
        let unit = unit.unwrap_or(0xfffd);
        if (0xd800..0xdc00).contains(&unit) {
            self.high = Some(unit);
            return;
        }
        let units = self.high.take().into_iter().chain([unit]);
        out.extend(char::decode_utf16(units).map(|found| found.unwrap_or('\u{fffd}')));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_custom_tool_becomes_a_function_with_one_string_and_its_grammar_in_words() {
        let tool = Tool::Custom {
            name: "apply_patch".into(),
            description: Some("Edits files.".into()),
            format: Some(
                json!({"type": "grammar", "syntax": "lark", "definition": "start: \"x\""}),
            ),
        };
        let Some(Tool::Function { name, description, schema, .. }) = as_function(&tool) else {
            panic!("no function");
        };
        assert_eq!(name, "apply_patch");
        assert!(description.unwrap().ends_with("lark grammar:\nstart: \"x\""));
        assert_eq!(schema.unwrap()["required"], json!(["input"]));
    }

    #[test]
    fn arguments_of_another_shape_are_not_lost() {
        assert_eq!(unwrap(r#"{"x": 1, "input": "a\"b"}"#), "a\"b");
        assert_eq!(unwrap("*** Begin Patch"), "*** Begin Patch");
        assert_eq!(unwrap(r#"{"other": 1}"#), r#"{"other": 1}"#);
        assert_eq!(unwrap(r#"{ "input" : "😀\n" , "y": 2}"#), "😀\n");
    }

    proptest! {
        #[test]
        fn the_text_comes_out_whole_in_any_pieces(text in "\\PC*[\\n\\t\"\\\\]?\\PC*", cut in 1_usize..7) {
            let wrapped = serde_json::to_string(&json!({ "input": text })).unwrap();
            let mut unwrapper = Unwrapper::default();
            let mut out = String::new();
            let characters: Vec<char> = wrapped.chars().collect();
            for piece in characters.chunks(cut) {
                unwrapper.feed(&piece.iter().collect::<String>(), &mut out);
            }
            unwrapper.finish(&mut out);
            prop_assert_eq!(out, text);
        }

        #[test]
        fn no_text_breaks_it(text in "\\{\"input\":\"(\\\\.{0,6}|\\PC){0,20}") {
            unwrap(&text);
        }
    }
}
