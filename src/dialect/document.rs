//! Documents that are plain text, though they travel as base64, and what documents are called.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The text of one; `None` if it is none.
pub fn text(media_type: &str, data: &str) -> Option<String> {
    let kind = media_type.split(';').next().unwrap_or_default().trim();
    let is_text = kind.starts_with("text/") || kind.ends_with("json") || kind.ends_with("xml");
    let bytes = STANDARD.decode(data.as_bytes()).ok().filter(|_| is_text)?;
    String::from_utf8(bytes).ok()
}

/// How the names of files end, where a server goes by that.
const ENDINGS: [(&str, &str); 14] = [
    ("application/pdf", "pdf"),
    ("application/json", "json"),
    ("application/xml", "xml"),
    ("application/rtf", "rtf"),
    ("application/msword", "doc"),
    ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", "docx"),
    ("application/vnd.ms-excel", "xls"),
    ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "xlsx"),
    ("application/vnd.ms-powerpoint", "ppt"),
    ("application/vnd.openxmlformats-officedocument.presentationml.presentation", "pptx"),
    ("text/csv", "csv"),
    ("text/html", "html"),
    ("text/markdown", "md"),
    ("text/xml", "xml"),
];

/// The name of a file for a server that wants one, with an ending.
pub fn file_name<'a>(name: Option<&'a str>, media_type: &str) -> Cow<'a, str> {
    let kind = media_type.split(';').next().unwrap_or_default().trim();
    let known = ENDINGS.iter().find(|(name, _)| *name == kind).map(|(_, ending)| *ending);
    let ending = known.or_else(|| kind.starts_with("text/").then_some("txt"));
    let is_ending = |end: &str| end.len() <= 5 && end.bytes().all(|it| it.is_ascii_alphanumeric());
    match (name, ending) {
        (Some(name), _) if name.rsplit_once('.').is_some_and(|(_, end)| is_ending(end)) => {
            name.into()
        }
        (Some(name), None) => name.into(),
        (name, ending) => {
            format!("{}.{}", name.unwrap_or("document"), ending.unwrap_or("pdf")).into()
        }
    }
}

/// What a document that is text says, with its title, to a server that takes only texts for it.
pub fn in_words(title: Option<&str>, text: &str) -> String {
    title.map_or_else(|| text.to_owned(), |title| format!("{title}:\n{text}"))
}

/// A text as one travels.
pub fn of_text(text: &str) -> String {
    STANDARD.encode(text)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::canon::{
        ChatRequest, Content, Dialect, Media, MediaKind, Message, Part, Role, Source,
    };
    use crate::dialect::{Aim, Traits, upstream};

    #[test]
    fn a_file_is_named_after_what_it_is_and_a_text_is_told_with_its_title() {
        let file = |name: Option<&str>, source| {
            let name = name.map(str::to_owned);
            Part::new(Content::Media(Media { name, ..Media::new(MediaKind::Document, source) }))
        };
        let csv = |name| file(name, Source::base64("text/csv", "YSxi"));
        let plain = file(Some("P"), Source::Text("plain".into()));
        let parts = vec![csv(None), csv(Some("of v1.2 today")), csv(Some("a.tsv")), plain];
        let messages = vec![Message::new(Role::User, parts)];
        let request = ChatRequest { messages, ..ChatRequest::default() };
        let aim = Aim { model: "m", traits: &Traits::NONE, cache: None };
        for (target, list, name) in [
            (Dialect::Chat, "/messages/0/content", "/file/filename"),
            (Dialect::Responses, "/input/0/content", "/filename"),
        ] {
            let written = upstream(target).write_request(&request, &aim).unwrap();
            let body: Value = serde_json::from_slice(&written.body).unwrap();
            let parts = body.pointer(list).unwrap();
            let names: Vec<&str> = parts.as_array().unwrap()[..3]
                .iter()
                .map(|part| part.pointer(name).unwrap().as_str().unwrap())
                .collect();
            assert_eq!(names, ["document.csv", "of v1.2 today.csv", "a.tsv"]);
            assert_eq!(parts[3]["text"], json!("P:\nplain"));
        }
    }
}
