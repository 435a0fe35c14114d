//! Reads responses from bytes, and tells when one is whole.

use std::io;

use bytes::{Buf, BytesMut};
use memchr::memmem;

use crate::traffic::{CHUNKS, Expected};

/// Where in a response the reader stands.
#[derive(Clone, Copy)]
enum Stage {
    Head,
    Sized(usize),
    ChunkSize,
    ChunkData(usize),
    ChunkEnd,
    /// The empty line after the last chunk.
    Trailer,
    Whole,
}

/// One connection's responses, one after another.
pub(crate) struct Reply {
    /// Bytes read from the socket and not yet understood.
    pub(crate) input: BytesMut,
    /// The body without its framing.
    pub(crate) body: Vec<u8>,
    stage: Stage,
}

// === impl Reply ===

impl Reply {
    pub(crate) fn new() -> Self {
        Self { input: BytesMut::with_capacity(4096), body: Vec::new(), stage: Stage::Head }
    }

    /// Forgets the last response.
    pub(crate) fn restart(&mut self) {
        self.body.clear();
        self.stage = Stage::Head;
    }

    /// Understands what has arrived; true when the response is whole.
    pub(crate) fn advance(&mut self) -> io::Result<bool> {
        loop {
            let next = match self.stage {
                Stage::Head => self.head()?,
                Stage::Sized(left) => self.data(left).map(|left| match left {
                    0 => Stage::Whole,
                    left => Stage::Sized(left),
                }),
                Stage::ChunkSize => self.chunk_size()?,
                Stage::ChunkData(left) => self.data(left).map(|left| match left {
                    0 => Stage::ChunkEnd,
                    left => Stage::ChunkData(left),
                }),
                Stage::ChunkEnd => self.line_end()?.then_some(Stage::ChunkSize),
                Stage::Trailer => self.line_end()?.then_some(Stage::Whole),
                Stage::Whole => return Ok(true),
            };
            let Some(next) = next else { return Ok(false) };
            self.stage = next;
        }
    }

    /// Checks a whole response's body.
    pub(crate) fn check(&self, expected: Expected) -> io::Result<()> {
        let whole = match expected {
            Expected::Completion => {
                self.body.starts_with(b"{")
                    && self.body.trim_ascii_end().ends_with(b"}")
                    && memmem::find(&self.body, b"chat.completion").is_some()
            }
            Expected::Stream => {
                // An answer from memory has its words in fewer events.
                let words = memmem::find_iter(&self.body, b" word").count();
                self.body.trim_ascii_end().ends_with(b"data: [DONE]") && words >= CHUNKS - 2
            }
        };
        if whole { Ok(()) } else { Err(unexpected("the body is not whole", &self.body)) }
    }

    /// Events in the body so far.
    pub(crate) fn events(&self) -> usize {
        memmem::find_iter(&self.body, b"data: ").count()
    }

    fn head(&mut self) -> io::Result<Option<Stage>> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        let status = response.parse(&self.input).map_err(io::Error::other)?;
        let httparse::Status::Complete(length) = status else { return Ok(None) };
        if response.code != Some(200) {
            return Err(unexpected("the status is not 200", &self.input));
        }
        let value = |name: &str| {
            let found = response.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name))?;
            str::from_utf8(found.value).ok()
        };
        let stage = if value("transfer-encoding").is_some_and(|it| it.contains("chunked")) {
            Stage::ChunkSize
        } else if let Some(size) = value("content-length").and_then(|size| size.parse().ok()) {
            Stage::Sized(size)
        } else {
            return Err(unexpected("the body has no length", &self.input));
        };
        self.input.advance(length);
        Ok(Some(stage))
    }

    /// Moves up to `left` bytes into the body; none when nothing moved.
    fn data(&mut self, left: usize) -> Option<usize> {
        let length = left.min(self.input.len());
        self.body.extend_from_slice(&self.input[..length]);
        self.input.advance(length);
        (length > 0 || left == 0).then_some(left - length)
    }

    fn chunk_size(&mut self) -> io::Result<Option<Stage>> {
        let parsed = httparse::parse_chunk_size(&self.input)
            .map_err(|_| unexpected("a chunk without a size", &self.input))?;
        let httparse::Status::Complete((used, size)) = parsed else { return Ok(None) };
        self.input.advance(used);
        Ok(Some(match usize::try_from(size).map_err(io::Error::other)? {
            0 => Stage::Trailer,
            size => Stage::ChunkData(size),
        }))
    }

    /// Takes a line end; false when it has not arrived yet.
    fn line_end(&mut self) -> io::Result<bool> {
        if self.input.len() < 2 {
            return Ok(false);
        }
        if !self.input.starts_with(b"\r\n") {
            return Err(unexpected("a chunk without its end", &self.input));
        }
        self.input.advance(2);
        Ok(true)
    }
}

fn unexpected(what: &str, bytes: &[u8]) -> io::Error {
    let shown = &bytes[..bytes.len().min(200)];
    io::Error::other(format!("{what}: {}", shown.escape_ascii()))
}
