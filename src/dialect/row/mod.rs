//! Blocks of an answer that may overlap, put in a row: one after the other, as our events want it.
//!
//! A block goes out as it comes while it is the only one. A text ends where another block begins;
//! a tool call does not, since servers are known to send the calls of one turn side by side: what
//! begins before a call has ended waits for its end.

use std::collections::VecDeque;

use serde_json::Value;

use crate::canon::{Delta, Dialect, Event, Opaque, Opening, StreamFailure};

/// The blocks of the first answer, each known by its `Key`.
#[derive(Debug)]
pub struct Row<Key> {
    dialect: Dialect,
    open: Option<Block<Key>>,
    waiting: VecDeque<Block<Key>>,
}

#[derive(Debug)]
struct Block<Key> {
    key: Key,
    is_call: bool,
    /// Something of it has been said.
    filled: bool,
    stopped: bool,
    /// State for its provider, gathered to its end.
    state: String,
    /// What waits to be said.
    opening: Option<Opening>,
    deltas: Vec<Delta>,
}

// === impl Row ===

impl<Key: Copy + PartialEq> Row<Key> {
    pub fn new(dialect: Dialect) -> Self {
        Self { dialect, open: None, waiting: VecDeque::new() }
    }

    /// Whether a block of this key has begun and not ended.
    pub fn has(&self, key: Key) -> bool {
        self.open.iter().chain(&self.waiting).any(|block| block.key == key && !block.stopped)
    }

    /// Begins a block. A key that is in use now belongs to the new block.
    pub fn start(&mut self, key: Key, opening: Opening, events: &mut Vec<Event>) {
        self.stop(key, events);
        let block = Block {
            key,
            is_call: matches!(opening, Opening::ToolCall { .. }),
            filled: false,
            stopped: false,
            state: String::new(),
            opening: Some(opening),
            deltas: Vec::new(),
        };
        self.waiting.push_back(block);
        if self.open.as_ref().is_some_and(|open| open.is_call) {
            return;
        }
        self.close(events);
        self.advance(events);
    }

    /// Adds to a block; `false` when there is none of this key.
    pub fn add(&mut self, key: Key, delta: Delta, events: &mut Vec<Event>) -> bool {
        if let Some(open) = self.open.as_mut().filter(|open| open.key == key) {
            open.filled = true;
            events.push(Event::Delta { choice: 0, delta });
            return true;
        }
        let waiting = self.waiting.iter_mut().find(|block| block.key == key && !block.stopped);
        waiting.is_some_and(|block| {
            block.deltas.push(delta);
            true
        })
    }

    /// Adds to the state that a block's provider wants back; it goes out whole at the block's end.
    pub fn keep(&mut self, key: Key, state: &str) -> bool {
        let mut blocks = self.open.iter_mut().chain(&mut self.waiting);
        blocks.find(|block| block.key == key && !block.stopped).is_some_and(|block| {
            block.state.push_str(state);
            true
        })
    }

    pub fn stop(&mut self, key: Key, events: &mut Vec<Event>) {
        if self.open.as_ref().is_some_and(|open| open.key == key) {
            self.close(events);
            self.advance(events);
        } else if let Some(block) = self.waiting.iter_mut().rfind(|block| block.key == key) {
            block.stopped = true;
        }
    }

    /// Ends whatever has begun.
    pub fn finish(&mut self, events: &mut Vec<Event>) {
        for block in &mut self.waiting {
            block.stopped = true;
        }
        self.close(events);
        self.advance(events);
    }

    /// Lets waiting blocks out, up to one that has not ended.
    fn advance(&mut self, events: &mut Vec<Event>) {
        while let Some(mut block) = self.waiting.pop_front() {
            let opening = block.opening.take().map(|part| Event::Open { choice: 0, part });
            events.extend(opening);
            block.filled = !block.deltas.is_empty();
            let deltas = std::mem::take(&mut block.deltas).into_iter();
            events.extend(deltas.map(|delta| Event::Delta { choice: 0, delta }));
            // A text does not hold up what came behind it.
            let passes = block.stopped || (!block.is_call && !self.waiting.is_empty());
            self.open = Some(block);
            if !passes {
                return;
            }
            self.close(events);
        }
    }

    fn close(&mut self, events: &mut Vec<Event>) {
        let Some(block) = self.open.take() else { return };
        if block.is_call && !block.filled {
            // A call that has ended without a word has no arguments.
            let delta = Delta::Arguments("{}".to_owned());
            events.push(Event::Delta { choice: 0, delta });
        }
        if !block.state.is_empty() {
            let opaque = Opaque { dialect: self.dialect, data: Value::String(block.state) };
            events.push(Event::Delta { choice: 0, delta: Delta::Opaque(opaque) });
        }
        events.push(Event::Close { choice: 0 });
    }
}

/// What becomes of an answer that had a call nobody can make.
pub fn lost_call() -> StreamFailure {
    StreamFailure {
        message: "The upstream sent a tool call without its name.".to_owned(),
        kind: Some("malformed_tool_call".to_owned()),
        code: None,
        status: Some(502),
    }
}

#[cfg(test)]
pub(super) mod tests;
