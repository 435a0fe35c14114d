//! The requests every subject is sent, and what a whole answer to them is.

use bytes::Bytes;

/// Chunks the upstream sends per stream, the first and the last included.
pub(crate) const CHUNKS: usize = 200;

/// One kind of traffic.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Also tells the upstream how to answer.
    pub(crate) model: &'static str,
    pub(crate) streams: bool,
    pub(crate) prompt_bytes: usize,
    pub(crate) connections: usize,
}

pub(crate) const SMALL: Case = Case {
    name: "small chat",
    model: "bench-small",
    streams: false,
    prompt_bytes: 110,
    connections: 64,
};
pub(crate) const LONG: Case =
    Case { name: "32 KiB prompt", prompt_bytes: 32 << 10, connections: 32, ..SMALL };
pub(crate) const HUGE: Case =
    Case { name: "1 MiB body", prompt_bytes: 1 << 20, connections: 8, ..SMALL };
pub(crate) const FAST: Case =
    Case { name: "stream, no gaps", model: "bench-fast", streams: true, connections: 16, ..SMALL };
pub(crate) const PACED: Case =
    Case { name: "stream, 5 ms gaps", model: "bench-paced", connections: 64, ..FAST };
pub(crate) const SLOW: Case =
    Case { name: "stream, 1 s gaps", model: "bench-slow", connections: 1000, ..FAST };

/// The models the upstream knows, and the milliseconds between their chunks.
pub(crate) const MODELS: [(&str, u64); 4] =
    [("bench-small", 0), ("bench-fast", 0), ("bench-paced", 5), ("bench-slow", 1000)];

/// What makes an answer whole.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    Completion,
    Stream,
}

/// A request as it goes over the wire, again and again.
pub(crate) struct Request {
    pub(crate) bytes: Bytes,
    pub(crate) expected: Expected,
}

// === impl Case ===

impl Case {
    pub(crate) fn with_connections(self, connections: usize) -> Self {
        Self { connections, ..self }
    }

    /// Spells the request for an address such as `http://127.0.0.1:80/v1`.
    pub(crate) fn request(&self, host: &str, base_path: &str) -> Request {
        const SENTENCE: &str = "The quick brown fox jumps over the lazy dog, and then naps. ";
        let prompt: String = SENTENCE.chars().cycle().take(self.prompt_bytes).collect();
        let body = format!(
            r#"{{"model":"{}","stream":{},"messages":[{{"role":"user","content":"{prompt}"}}],"temperature":0.7}}"#,
            self.model, self.streams
        );
        let head = format!(
            "POST {base_path}/chat/completions HTTP/1.1\r\nhost: {host}\r\n\
             authorization: Bearer sk-bench\r\nuser-agent: compare/1\r\naccept: */*\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let expected = if self.streams { Expected::Stream } else { Expected::Completion };
        Request { bytes: Bytes::from(head + &body), expected }
    }
}
