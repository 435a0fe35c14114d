//! Which files and items a question refers to by ids: they lie with a provider, perhaps another's.
//!
//! Looked for is every place from which a provider reads. Where an answer only says that it has
//! used a file, and inside of what tools are told and tell, an id reads nothing.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::marks::{self, Mark};
use crate::canon::Dialect;

/// The ids that a question refers to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct References {
    pub files: Vec<String>,
    /// Items that stand for what was said, and thoughts that have nothing but their id.
    pub items: Vec<String>,
}

/// A question's JSON: strings are borrowed, and a key that occurs twice stands there twice, since
/// nobody knows which of them its provider reads.
enum Node<'a> {
    Text(Cow<'a, str>),
    List(Vec<Node<'a>>),
    Object(Vec<(Cow<'a, str>, Node<'a>)>),
    Null,
    Other,
}

/// Kinds of objects that name a file without reading it.
const MENTIONS: [&str; 5] = [
    "file_citation",
    "container_file_citation",
    "file_path",
    "code_execution_output",
    "bash_code_execution_output",
];
/// What tools are told and tell, and what their arguments look like.
const FREE: [&str; 6] = ["metadata", "parameters", "input_schema", "schema", "args", "response"];
const CALLS: [&str; 3] = ["tool_use", "server_tool_use", "mcp_tool_use"];

/// Whether the bytes of a question may refer to something, by the marks that it bears. `None` is a
/// question without a dialect.
pub fn may_refer(dialect: Option<Dialect>, bears: impl Fn(&Mark) -> bool) -> bool {
    marks::of_references(dialect).iter().any(&bears)
        || (bears(&marks::ESCAPES) && marks::ESCAPED_LETTERS.iter().any(&bears))
}

/// What a question refers to; `None` where that cannot be told, which is no reason to send it.
pub fn read(dialect: Option<Dialect>, body: &[u8]) -> Option<References> {
    let question: Node = serde_json::from_slice(body).ok()?;
    let mut found = References::default();
    question.collect(&mut found);
    if dialect == Some(Dialect::Responses) {
        question.collect_items(&mut found);
    }
    Some(found)
}

/// The same of a line of a batch, which has its question in `body`.
pub fn read_line(line: &[u8]) -> Option<References> {
    let line: Node = serde_json::from_slice(line).ok()?;
    let mut found = References::default();
    line.collect(&mut found);
    for body in line.all("body") {
        body.collect_items(&mut found);
    }
    Some(found)
}

// === impl Node ===

impl<'a> Node<'a> {
    fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    fn list(&self) -> Option<&[Node<'a>]> {
        if let Self::List(list) = self { Some(list) } else { None }
    }

    fn fields(&self) -> &[(Cow<'a, str>, Node<'a>)] {
        if let Self::Object(fields) = self { fields } else { &[] }
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &Node<'a>> {
        self.fields().iter().filter(move |(key, _)| key == name).map(|(_, value)| value)
    }

    fn has(&self, name: &str) -> bool {
        self.all(name).any(|value| !matches!(value, Self::Null))
    }

    /// Whether it says that it is one of these, and nothing else besides.
    fn is(&self, kinds: &[&str]) -> bool {
        let is = |kind: &Node| kind.text().is_some_and(|kind| kinds.contains(&kind));
        self.has("type") && self.all("type").all(is)
    }

    fn collect(&self, found: &mut References) {
        self.list().unwrap_or_default().iter().for_each(|node| node.collect(found));
        let mentions = self.is(&MENTIONS);
        for (key, value) in self.fields() {
            match key.as_ref() {
                "file_id" if !mentions => found.files.extend(value.text().map(str::to_owned)),
                "file_ids" => {
                    let ids = value.list().unwrap_or_default().iter().filter_map(Node::text);
                    found.files.extend(ids.map(str::to_owned));
                }
                "file_uri" | "fileUri" => {
                    let uri = value.text().filter(|uri| is_of_google(uri));
                    found.files.extend(uri.map(str::to_owned));
                }
                "image_url" | "url" if value.text().is_some_and(is_id) => {
                    found.files.extend(value.text().map(str::to_owned));
                }
                "input" if self.is(&CALLS) => {}
                "results" if self.is(&["file_search_call"]) => {}
                _ => value.collect(found),
            }
        }
    }

    fn collect_items(&self, found: &mut References) {
        let inputs = self.all("input").filter_map(Node::list).flatten();
        found.items.extend(inputs.filter_map(Node::item).map(str::to_owned));
    }

    /// The id of an item of the responses API that says nothing but that.
    fn item(&self) -> Option<&str> {
        let refers = self.all("type").any(|kind| kind.text() == Some("item_reference"));
        let bare = !self.has("type") && !self.has("role");
        let thought = self.is(&["reasoning"]) && !self.has("encrypted_content");
        let hollow = thought && !self.has("content");
        let id = self.all("id").filter(|_| refers || bare || hollow).find_map(Node::text);
        // Thoughts that were named here no provider finds by their names.
        id.filter(|id| refers || bare || !id.starts_with("rs_sp"))
    }
}

fn is_id(text: &str) -> bool {
    text.starts_with("file-")
}

/// Whether it names a file that Google keeps for an account; others are addresses.
fn is_of_google(uri: &str) -> bool {
    !uri.contains("://") || uri.to_ascii_lowercase().contains("generativelanguage")
}

impl<'de: 'a, 'a> Deserialize<'de> for Node<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader(std::marker::PhantomData))
    }
}

/// A string that is borrowed where it has no escapes.
struct Word<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Word<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Node::deserialize(deserializer)? {
            Node::Text(text) => Ok(Self(text)),
            _ => Err(serde::de::Error::custom("a key is a string")),
        }
    }
}

struct Reader<'a>(std::marker::PhantomData<&'a ()>);

impl<'de: 'a, 'a> Visitor<'de> for Reader<'a> {
    type Value = Node<'a>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Node<'a>, E> {
        Ok(Node::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node<'a>, E> {
        Ok(Node::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node<'a>, E> {
        Ok(Node::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node<'a>, E> {
        Ok(Node::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node<'a>, E> {
        Ok(Node::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node<'a>, E> {
        Ok(Node::Other)
    }

    fn visit_unit<E>(self) -> Result<Node<'a>, E> {
        Ok(Node::Null)
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Node<'a>, S::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element()? {
            nodes.push(node);
        }
        Ok(Node::List(nodes))
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Node<'a>, M::Error> {
        let mut fields = Vec::new();
        while let Some(Word(key)) = map.next_key()? {
            if FREE.contains(&key.as_ref()) {
                map.next_value::<IgnoredAny>()?;
            } else {
                fields.push((key, map.next_value()?));
            }
        }
        Ok(Node::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::super::splice::Payload;
    use super::*;

    fn files(body: &str) -> Vec<String> {
        read(Some(Dialect::Chat), body.as_bytes()).unwrap().files
    }

    #[test]
    fn a_file_is_found_wherever_a_provider_reads_one() {
        for body in [
            r#"{"messages":[{"content":[{"type":"file","file":{"file_id":"file-1"}}]}]}"#,
            r#"{"input":[{"content":[{"type":"input_file","file_id":"file-1"}]}]}"#,
            r#"{"input":[{"type":"function_call_output","output":[{"type":"input_image","file_id":"file-1"}]}]}"#,
            r#"{"tools":[{"type":"code_interpreter","container":{"file_ids":["file-1"]}}]}"#,
            r#"{"messages":[{"content":[{"source":{"type":"file","file_id":"file-1"}}]}]}"#,
            r#"{"content":[{"type":"image_url","image_url":{"url":"file-1"}}]}"#,
            r#"{"images":[{"file_id":"file-1"}],"mask":null}"#,
            r#"{"contents":[{"parts":[{"file_data":{"file_uri":"file-1"}}]}]}"#,
            r#"{"x":{"type":"file_path","type":"input_file","\u0066ile_id":"file-1"}}"#,
        ] {
            assert_eq!(files(body), ["file-1"], "{body}");
        }
        let twice = r#"{"file_id":"a","file_id":"b"}"#;
        assert_eq!(files(twice), ["a", "b"]);
        let google = "https://generativelanguage.googleapis.com/v1beta/files/x";
        assert_eq!(files(&format!(r#"{{"fileData":{{"fileUri":"{google}"}}}}"#)), [google]);
    }

    #[test]
    fn what_reads_nothing_refers_to_nothing() {
        for body in [
            r#"{"annotations":[{"type":"container_file_citation","file_id":"cfile_1"}]}"#,
            r#"{"type":"tool_use","input":{"file_id":"file-1"}}"#,
            r#"{"functionCall":{"args":{"fileUri":"a"}}}"#,
            r#"{"properties":{"file_id":{"type":"string"}},"metadata":{"file_id":"x"}}"#,
            r#"{"type":"file_search_call","results":[{"file_id":"file-1"}]}"#,
            r#"{"fileUri":"gs://bucket/a.pdf"}"#,
            r#"{"image_url":{"url":"https://files.test/file-1"}}"#,
        ] {
            assert_eq!(files(body), [""; 0], "{body}");
        }
    }

    #[test]
    fn items_are_found_that_are_nothing_but_an_id() {
        let body = r#"{"input":[
            {"type":"item_reference","id":"a"},{"id":"b"},{"type":null,"id":"c"},
            {"type":"reasoning","id":"d","summary":[]},
            {"type":"reasoning","id":"e","encrypted_content":"x"},
            {"role":"user","content":"Hi","id":"f"},{"type":"message","id":"g","content":[]}]}"#;
        let found = read(Some(Dialect::Responses), body.as_bytes()).unwrap();
        assert_eq!(found.items, ["a", "b", "c", "d"]);
    }

    #[test]
    fn only_what_bears_a_mark_is_read() {
        let may = |dialect, body: &'static str| {
            let payload = Payload::from(bytes::Bytes::from_static(body.as_bytes()));
            may_refer(dialect, |mark| payload.bears(mark))
        };
        for (dialect, body) in [
            (Some(Dialect::Chat), r#"{"a":{"file_id":"x"}}"#),
            (Some(Dialect::Chat), r#"{"a":{"\u0066ile_id":"x"}}"#),
            (Some(Dialect::Chat), r#"{"a":{"file\u005Fid":"x"}}"#),
            (Some(Dialect::Responses), r#"{"input":[{"id":"x"}]}"#),
            (Some(Dialect::Gemini), r#"{"fileUri":"x"}"#),
            (None, r#"{"image":{"file_id":"x"}}"#),
        ] {
            assert!(may(dialect, body), "{body}");
        }
        for body in [r#"{"a":"\u00e9\u001b","file_path":1,"id":"x"}"#, r#"{"a":"the file_id"}"#] {
            assert!(!may(Some(Dialect::Chat), body), "{body}");
        }
    }
}
