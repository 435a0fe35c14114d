//! Where one answer is carried on by another: the client sees one, without a seam.

use super::WriteStream;
use crate::canon::{Delta, Event, Opening};

/// Where one answer may be carried on by another.
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each true or not")]
#[derive(Debug, Default)]
pub(super) struct Seam {
    /// The text so far, while there is nothing but text.
    pub(super) said: Option<String>,
    /// Its part is still open.
    pub(super) open: bool,
    /// This answer carries another one on, whose writer is not here yet.
    pub(super) waiting: bool,
    pub(super) held: Vec<Event>,
    /// Thoughts of a target that carries on are no part of the answer.
    pub(super) thinking: bool,
    /// This answer carries another one on.
    pub(super) follows: bool,
    /// White space that the answer had at its end, and the target was not shown.
    pub(super) trimmed: String,
}

// === impl Seam ===

impl Seam {
    pub(super) fn pass(&mut self, event: &Event, writer: &mut dyn WriteStream, out: &mut Vec<u8>) {
        match event {
            Event::Start(_) if self.follows => return,
            Event::Open { part: Opening::Reasoning { .. }, .. } if self.follows => {
                self.thinking = true;
                return;
            }
            Event::Close { .. } if std::mem::take(&mut self.thinking) => return,
            Event::Delta { .. } if self.thinking => return,
            Event::Open { part: Opening::Text, .. } => {
                if std::mem::replace(&mut self.open, true) && self.follows {
                    return;
                }
            }
            Event::Open { choice, part } => {
                // What is more than text cannot be carried on.
                if !matches!(part, Opening::Reasoning { .. }) {
                    self.said = None;
                }
                if std::mem::take(&mut self.open) {
                    writer.write(&Event::Close { choice: *choice }, out);
                }
            }
            Event::Close { .. } => self.open = false,
            Event::Delta { choice, delta: Delta::Text(text) } => {
                return self.say(*choice, text, writer, out);
            }
            Event::Delta { .. }
            | Event::Start(_)
            | Event::Finish { .. }
            | Event::Usage(_)
            | Event::Failed(_)
            | Event::Aside(_)
            | Event::End => {}
        }
        writer.write(event, out);
    }

    /// The first words of what is carried on begin with the space that was there already, or with
    /// none.
    fn say(&mut self, choice: u32, text: &str, writer: &mut dyn WriteStream, out: &mut Vec<u8>) {
        let mut text = text;
        while let (Some(space), Some(first)) = (self.trimmed.chars().next(), text.chars().next()) {
            if space != first {
                self.trimmed.clear();
                break;
            }
            self.trimmed.drain(..space.len_utf8());
            text = &text[first.len_utf8()..];
        }
        if text.is_empty() {
            return;
        }
        if let Some(said) = &mut self.said {
            said.push_str(text);
        }
        let delta = Delta::Text(text.to_owned());
        writer.write(&Event::Delta { choice, delta }, out);
    }
}
