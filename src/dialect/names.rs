//! Names of tools that a target refuses: each goes there under another one, always the same, and
//! comes back as what the client calls it.

use std::borrow::Cow;
use std::collections::HashMap;

use super::{Misread, ReadStream, fnv};
use crate::canon::{
    ChatRequest, ChatResponse, Content, Dialect, Event, FinishReason, Opening, Tool, ToolChoice,
};

/// The longest name that everybody takes.
const LONGEST: usize = 64;
/// What a digest of the whole name needs, with the stroke before it.
const DIGEST: usize = 17;

/// Whether a target takes this name of a tool.
fn fits(name: &str, into: Dialect) -> bool {
    let longest = if into == Dialect::Messages { 128 } else { LONGEST };
    let begins = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let first = name.bytes().next().is_some_and(|first| match into {
        Dialect::Gemini | Dialect::Cohere => begins(first),
        _ => true,
    });
    let goes_on = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || byte == b'_'
            || (byte == b'-' && into != Dialect::Cohere)
            || (matches!(byte, b'.' | b':') && into == Dialect::Gemini)
    };
    first && name.len() <= longest && name.bytes().all(goes_on)
}

/// A name that everybody takes and that nobody else has. It ends like the one that it stands for,
/// since what a tool does is said there.
fn alias(name: &str) -> String {
    let plain = |byte: u8| if byte.is_ascii_alphanumeric() { char::from(byte) } else { '_' };
    let mut kept: Vec<char> = name.bytes().rev().map(plain).take(LONGEST - DIGEST - 1).collect();
    kept.push('_');
    kept.reverse();
    format!("{}_{:016x}", kept.into_iter().collect::<String>(), fnv(name, 0))
}

/// The question with names that the target takes.
pub fn fitted(request: Cow<'_, ChatRequest>, into: Dialect) -> Cow<'_, ChatRequest> {
    if names(&request).all(|name| fits(name, into)) {
        return request;
    }
    let mut request = request.into_owned();
    let rename = |name: &mut String| {
        if !fits(name, into) {
            *name = alias(name);
        }
    };
    for tool in &mut request.tools {
        if let Tool::Function { name, .. } | Tool::Custom { name, .. } = tool {
            rename(name);
        }
    }
    match &mut request.tool_choice {
        Some(ToolChoice::Named(name)) => rename(name),
        Some(ToolChoice::Among { names, .. }) => names.iter_mut().for_each(rename),
        _ => {}
    }
    for part in request.messages.iter_mut().flat_map(|message| &mut message.parts) {
        match &mut part.content {
            Content::ToolCall(call) => rename(&mut call.name),
            Content::ToolResult(result) => result.name.iter_mut().for_each(rename),
            _ => {}
        }
    }
    Cow::Owned(request)
}

/// Every name of a tool in a question.
fn names(request: &ChatRequest) -> impl Iterator<Item = &String> {
    let parts = request.messages.iter().flat_map(|message| &message.parts);
    let called = parts.filter_map(|part| match &part.content {
        Content::ToolCall(call) => Some(&call.name),
        Content::ToolResult(result) => result.name.as_ref(),
        _ => None,
    });
    tools(request).chain(called)
}

fn tools(request: &ChatRequest) -> impl Iterator<Item = &String> {
    request.tools.iter().filter_map(|tool| match tool {
        Tool::Function { name, .. } | Tool::Custom { name, .. } => Some(name),
        Tool::Hosted(_) => None,
    })
}

/// The client's names of the tools that may have gone there under others.
#[derive(Debug, Default)]
pub struct Aliases(HashMap<String, String>);

impl Aliases {
    pub fn of(request: &ChatRequest, into: Dialect) -> Self {
        let odd = tools(request).filter(|name| !fits(name, into));
        Self(odd.map(|name| (alias(name), name.clone())).collect())
    }

    /// Puts the client's names into an answer.
    pub fn restore(&self, response: &mut ChatResponse) {
        for part in response.choices.iter_mut().flat_map(|choice| &mut choice.parts) {
            if let Content::ToolCall(call) = &mut part.content {
                self.put_back(&mut call.name);
            }
        }
    }

    /// A reader of an answer that tells the client's names.
    pub fn restoring(self, reader: Box<dyn ReadStream>) -> Box<dyn ReadStream> {
        if self.0.is_empty() { reader } else { Box::new(Restoring { reader, aliases: self }) }
    }

    fn put_back(&self, name: &mut String) {
        if let Some(own) = self.0.get(name) {
            name.clone_from(own);
        }
    }
}

struct Restoring {
    reader: Box<dyn ReadStream>,
    aliases: Aliases,
}

impl Restoring {
    fn restore(&self, events: &mut [Event]) {
        for event in events {
            if let Event::Open { part: Opening::ToolCall { name, .. }, .. } = event {
                self.aliases.put_back(name);
            }
        }
    }
}

impl ReadStream for Restoring {
    fn read(
        &mut self,
        name: Option<&[u8]>,
        data: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), Misread> {
        let before = events.len();
        let read = self.reader.read(name, data, events);
        self.restore(&mut events[before..]);
        read
    }

    fn end(&mut self, events: &mut Vec<Event>) {
        let before = events.len();
        self.reader.end(events);
        self.restore(&mut events[before..]);
    }

    fn endings(&self) -> Option<(u32, FinishReason)> {
        self.reader.endings()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &str) -> Tool {
        let name = name.to_owned();
        Tool::Function { name, description: None, schema: None, strict: None, cache: None }
    }

    #[test]
    fn a_name_that_a_target_refuses_goes_there_as_one_that_all_take_and_comes_back() {
        let long = format!("mcp__{}__do_something", "very_long_server_name_".repeat(3));
        for odd in [long.as_str(), "files/read", "größe", "9 lives", &"x".repeat(200)] {
            let request = ChatRequest { tools: vec![tool(odd)], ..ChatRequest::default() };
            let asked = fitted(Cow::Borrowed(&request), Dialect::Chat).into_owned();
            let told = tools(&asked).next().unwrap();
            assert!(Dialect::ALL.into_iter().all(|dialect| fits(told, dialect)), "{told}");
            let mut name = told.clone();
            Aliases::of(&request, Dialect::Chat).put_back(&mut name);
            assert_eq!(name, odd);
        }
        assert!(alias(&long).contains("do_something"));
    }

    #[test]
    fn a_name_stays_where_it_is_taken() {
        for (name, dialect) in [
            (&*"x".repeat(128), Dialect::Messages),
            ("get-weather", Dialect::Chat),
            ("ns.read:1", Dialect::Gemini),
            ("9lives", Dialect::Responses),
        ] {
            let request = ChatRequest { tools: vec![tool(name)], ..ChatRequest::default() };
            assert!(matches!(fitted(Cow::Borrowed(&request), dialect), Cow::Borrowed(_)), "{name}");
            assert!(Aliases::of(&request, dialect).0.is_empty());
        }
    }
}
