//! What real providers sent, where recordings of it are at hand.

use std::path::{Path, PathBuf};

use bytes::BytesMut;
use serde_json::Value;
use switchpoint::canon::Dialect;
use switchpoint::dialect::eventstream::Transcoder;

/// One recorded answer.
pub(crate) struct Recording {
    pub(crate) id: String,
    pub(crate) facts: Value,
    pub(crate) body: Vec<u8>,
}

/// All recordings, or nothing, which is said, where none are at hand.
pub(crate) fn all() -> Vec<Recording> {
    let Some(folder) = std::env::var_os("SWITCHPOINT_RECORDINGS") else {
        println!("SWITCHPOINT_RECORDINGS is not set: no recorded answer was read");
        return Vec::new();
    };
    let list = |path: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let dialects = list(Path::new(&folder)).into_iter().filter(|path| path.is_dir());
    let files = dialects.flat_map(|path| list(&path));
    let mut facts: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    facts.sort();
    let read = |path: PathBuf| {
        let facts: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let body = std::fs::read(path.with_extension("body")).unwrap();
        Recording { id: facts["id"].as_str().unwrap_or_default().to_owned(), facts, body }
    };
    let recordings: Vec<_> = facts.into_iter().map(read).collect();
    let count = recordings.len();
    assert!(count > 50, "only {count} recordings in {}", folder.display());
    recordings
}

// === impl Recording ===

impl Recording {
    pub(crate) fn path(&self) -> &str {
        let uri = self.facts["request"]["uri"].as_str().unwrap_or_default();
        uri.split(['?', '#']).next().unwrap_or_default()
    }

    /// The dialect of a chat; `None` for embeddings and the like.
    pub(crate) fn dialect(&self) -> Option<Dialect> {
        let endings = [
            ("/chat/completions", Dialect::Chat),
            ("/responses", Dialect::Responses),
            ("/messages", Dialect::Messages),
            (":generateContent", Dialect::Gemini),
            (":streamGenerateContent", Dialect::Gemini),
            ("/converse", Dialect::Converse),
            ("/converse-stream", Dialect::Converse),
            ("/v2/chat", Dialect::Cohere),
        ];
        let found = endings.into_iter().find(|(ending, _)| self.path().ends_with(ending));
        found.map(|(_, dialect)| dialect)
    }

    /// Whether the provider took the question, and did not just echo the call.
    pub(crate) fn is_answer(&self) -> bool {
        self.facts["status"] == 200 && !self.kind().starts_with("text/plain")
    }

    pub(crate) fn is_stream(&self) -> bool {
        let kind = self.kind();
        kind.starts_with("text/event-stream") || kind.starts_with("application/vnd.amazon")
    }

    /// The answer as server-sent events, if it is a stream.
    pub(crate) fn events(&self) -> BytesMut {
        let mut out = BytesMut::from(self.body.as_slice());
        if self.kind().starts_with("application/vnd.amazon") {
            out.clear();
            Transcoder::default().feed(&self.body, &mut out).unwrap();
        }
        out
    }

    fn kind(&self) -> &str {
        self.facts["headers"]["content-type"].as_str().unwrap_or_default()
    }
}
