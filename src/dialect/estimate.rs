//! Tokens of a question by estimate, where nobody has counted them.
//!
//! Text is counted by the maker's tokenizer where that is public and open, and else by a rule of
//! thumb, for Anthropic's and Google's are not. There text is cut as tokenizers cut it before they look words
//! up: a run of letters is a token for every seven, digits one for three, signs one for two, spaces
//! belong to the word behind them. Against what Anthropic counted for recorded questions it is
//! within a quarter or thirty tokens, and with tools up to 260 tokens, as much as the prompt
//! about them has grown in a year (tested where the recordings are at hand).

use super::tokenizer::Tokenizer;
use crate::canon::{
    ChatRequest, ChatResponse, Content, Dialect, Format, Media, Part, Source, Tool, ToolChoice,
};

/// Around a conversation and around each message: roles and separators.
const CONVERSATION: u64 = 7;
const MESSAGE: u64 = 4;
/// Around each tool.
const TOOL: u64 = 14;
/// What Anthropic's models are told about tools before the first one, and if one must be called.
const TOOL_PROMPT: u64 = 480;
const FORCED_TOOL_PROMPT: u64 = 570;
/// What they are told about thinking with a budget.
const THINKING_PROMPT: u64 = 28;
/// An image of common size: makers count by area and bound it at about this.
const IMAGE: u64 = 1_300;
/// A page of a document is text and an image of it, and about this many bytes of a file.
const PAGE: u64 = 2_200;
const PAGE_BYTES: u64 = 50_000;
/// Base64 says three bytes in four characters.
const SOUND_BYTES: u64 = 1_500;

/// Tokens that a target of this dialect, with this tokenizer, will count for the question.
pub fn tokens(request: &ChatRequest, target: Dialect, tokenizer: Option<Tokenizer>) -> u64 {
    let scale = Scale(tokenizer);
    let messages: u64 =
        request.messages.iter().map(|message| MESSAGE + scale.parts(&message.parts)).sum();
    let tools: u64 = request.tools.iter().map(|tool| scale.tool(tool)).sum();
    let prompt = if target == Dialect::Messages { prompt(request) } else { 0 };
    let format = match &request.format {
        Format::JsonSchema { schema, .. } => scale.text(&schema.to_string()),
        Format::Text | Format::JsonObject => 0,
    };
    CONVERSATION + messages + tools + prompt + format
}

/// Tokens of an answer, where nobody has counted them.
pub fn answer(response: &ChatResponse, tokenizer: Option<Tokenizer>) -> u64 {
    let scale = Scale(tokenizer);
    let parts = response.choices.iter().flat_map(|choice| &choice.parts);
    parts
        .map(|part| match &part.content {
            Content::Reasoning(reasoning) => scale.text(&reasoning.text),
            content => scale.content(content),
        })
        .sum()
}

/// The same of a chat that is nothing but these messages of one text each.
pub fn texts<'a>(texts: impl Iterator<Item = &'a str>, tokenizer: Option<Tokenizer>) -> u64 {
    let scale = Scale(tokenizer);
    CONVERSATION + texts.map(|text| MESSAGE + scale.text(text)).sum::<u64>()
}

/// What Anthropic adds of its own.
fn prompt(request: &ChatRequest) -> u64 {
    let tools = match request.tool_choice {
        _ if request.tools.is_empty() => 0,
        Some(ToolChoice::Required | ToolChoice::Named(_)) => FORCED_TOOL_PROMPT,
        _ => TOOL_PROMPT,
    };
    let budget = request.reasoning.as_ref().and_then(|thinking| thinking.budget);
    tools + if budget.is_some() { THINKING_PROMPT } else { 0 }
}

/// What text is measured by.
#[derive(Debug, Clone, Copy)]
struct Scale(Option<Tokenizer>);

impl Scale {
    fn text(self, words: &str) -> u64 {
        let counted = self.0.and_then(|tokenizer| tokenizer.count(words));
        counted.unwrap_or_else(|| text(words))
    }

    fn parts(self, list: &[Part]) -> u64 {
        list.iter().map(|part| self.content(&part.content)).sum()
    }

    fn content(self, content: &Content) -> u64 {
        match content {
            Content::Text { text: words, .. } | Content::Refusal(words) => self.text(words),
            Content::Media(one) => self.media(one),
            // Thoughts of earlier turns are mostly dropped by the provider, but not all.
            Content::Reasoning(reasoning) => self.text(&reasoning.text) / 2,
            Content::ToolCall(call) => MESSAGE + self.text(&call.name) + self.text(&call.arguments),
            Content::ToolResult(result) => MESSAGE + self.parts(&result.parts),
            Content::Foreign(foreign) => self.text(&foreign.value.to_string()),
        }
    }

    fn media(self, media: &Media) -> u64 {
        use crate::canon::MediaKind;
        let bytes = match &media.source {
            Source::Text(words) => return self.text(words),
            Source::Base64 { data, .. } => data.len() as u64 / 4 * 3,
            Source::Url { .. } | Source::File { .. } => 0,
        };
        match media.kind {
            MediaKind::Image => IMAGE,
            MediaKind::Document => PAGE * (1 + bytes / PAGE_BYTES),
            MediaKind::Audio | MediaKind::Video => 1 + bytes / SOUND_BYTES,
        }
    }

    fn tool(self, tool: &Tool) -> u64 {
        let words = |words: &Option<String>| words.as_deref().map_or(0, |words| self.text(words));
        TOOL + match tool {
            Tool::Function { name, description, schema, .. } => {
                let schema = schema.as_ref().map_or(0, |schema| self.text(&schema.to_string()));
                self.text(name) + words(description) + schema
            }
            Tool::Custom { name, description, format } => {
                let format = format.as_ref().map_or(0, |format| self.text(&format.to_string()));
                self.text(name) + words(description) + format
            }
            Tool::Hosted(foreign) => self.text(&foreign.value.to_string()),
        }
    }
}

/// What a run of characters is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    Letters,
    Digits,
    Space,
    Lines,
    Sign,
    /// Chinese, Japanese, Korean.
    Syllable,
    /// Letters beyond ASCII.
    Script,
    Picture,
}

/// Tokens of a text by the rule of thumb.
pub fn text(text: &str) -> u64 {
    let mut count = Count::default();
    count.take(text);
    count.tokens()
}

/// Counts the tokens of a text that comes in pieces.
#[derive(Debug, Clone, Copy)]
pub struct Count {
    tenths: u64,
    last: Run,
    length: u64,
}

impl Default for Count {
    fn default() -> Self {
        Self { tenths: 0, last: Run::Space, length: 0 }
    }
}

impl Count {
    pub fn take(&mut self, piece: &str) {
        for character in piece.chars() {
            let known = ASCII.get(u32::from(character) as usize).copied();
            let run = known.unwrap_or_else(|| run(character));
            if run != self.last {
                self.tenths += cost(self.last, self.length);
                (self.last, self.length) = (run, 0);
            }
            self.length += 1;
        }
    }

    pub fn tokens(&self) -> u64 {
        (self.tenths + cost(self.last, self.length)).div_ceil(10)
    }
}

/// What most texts consist of, looked up.
const ASCII: [Run; 128] = {
    let mut runs = [Run::Sign; 128];
    let mut byte = 0_u8;
    while byte < 128 {
        runs[byte as usize] = run(byte as char);
        byte += 1;
    }
    runs
};

const fn run(character: char) -> Run {
    match character {
        'a'..='z' | 'A'..='Z' => Run::Letters,
        '0'..='9' => Run::Digits,
        '\n' | '\r' => Run::Lines,
        _ if character.is_whitespace() => Run::Space,
        '\0'..='\x7f' => Run::Sign,
        '\u{3000}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}' | '\u{ff00}'..='\u{ffef}' => {
            Run::Syllable
        }
        '\u{1f000}'..='\u{1ffff}' => Run::Picture,
        _ => Run::Script,
    }
}

/// Tenths of a token for a run of this length.
fn cost(run: Run, length: u64) -> u64 {
    match run {
        Run::Letters => length.div_ceil(7) * 10,
        Run::Digits => length.div_ceil(3) * 10,
        // One space belongs to the word behind it.
        Run::Space => (length.saturating_sub(1)).min(1) * 5,
        Run::Lines => length.min(1) * 6,
        Run::Sign => length.div_ceil(2) * 10,
        Run::Syllable => length * 11,
        Run::Script => length * 5,
        Run::Picture => length * 25,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_about_as_long_as_tokenizers_find() {
        // Counts of a public tokenizer, each with a quarter to spare.
        for (words, counted) in [
            ("", 0),
            ("The quick brown fox jumps over the lazy dog.", 10),
            ("What is the capital of France?", 7),
            ("{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\"}}}", 17),
            ("日本の首都はどこですか", 9),
            ("1234567890", 4),
        ] {
            let estimate = text(words);
            let spare = counted / 4 + 4;
            assert!(estimate.abs_diff(counted) <= spare, "{words}: {estimate} for {counted}");
        }
    }

    #[test]
    fn longer_text_is_never_fewer_tokens() {
        let long = "Words, 12 of them; ünd 日本 😀\n\n".repeat(20);
        let ends: Vec<usize> = long.char_indices().map(|(at, _)| at).collect();
        for pair in ends.windows(2) {
            assert!(text(&long[..pair[0]]) <= text(&long[..pair[1]]));
        }
    }
}
