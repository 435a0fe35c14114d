//! Replaces spans of a body by slicing it, never by writing it anew.

use bytes::{Bytes, BytesMut};
use memchr::memmem;

use super::marks::Mark;
use super::peek::{Envelope, Span, StreamOptions};

/// Bytes of what is joined of small pieces.
const SMALL: usize = 4096;

/// A body as the pieces it arrived in or was cut into.
#[derive(Debug, Clone, Default)]
pub struct Payload {
    parts: Vec<Bytes>,
    length: usize,
}

/// One change: the bytes of `span` become `with`.
#[derive(Debug, Clone)]
pub struct Edit {
    pub span: Span,
    pub with: Bytes,
}

impl Payload {
    pub fn push(&mut self, part: Bytes) {
        if !part.is_empty() {
            self.length += part.len();
            self.parts.push(part);
        }
    }

    /// Takes in a piece as it came over a wire. Small ones are joined: by itself each takes more
    /// memory than what it says.
    pub fn gather(&mut self, piece: Bytes) {
        let Some(last) = self.parts.pop_if(|last| last.len() + piece.len() <= SMALL) else {
            return self.push(piece);
        };
        let mut joined = last.try_into_mut().unwrap_or_else(|last| {
            let mut room = BytesMut::with_capacity(SMALL);
            room.extend_from_slice(&last);
            room
        });
        joined.extend_from_slice(&piece);
        self.length += piece.len();
        self.parts.push(joined.freeze());
    }

    pub fn parts(&self) -> &[Bytes] {
        &self.parts
    }

    /// Its size in bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether it bears this mark.
    pub fn bears(&self, mark: &Mark) -> bool {
        mark.has.iter().all(|text| self.contains(text.as_bytes()))
            && !mark.lacks.iter().any(|text| self.contains(text.as_bytes()))
    }

    /// Whether these bytes stand in it, which may be in two of its pieces.
    fn contains(&self, bytes: &[u8]) -> bool {
        let finder = memmem::Finder::new(bytes);
        let mut seam: Vec<u8> = Vec::new();
        self.parts.iter().any(|part| {
            let overlap = part.len().min(bytes.len() - 1);
            seam.extend_from_slice(&part[..overlap]);
            let found = finder.find(&seam).is_some() || finder.find(part).is_some();
            // The last bytes, of this piece and of those before it if it is short.
            if overlap == bytes.len() - 1 {
                seam.clear();
                seam.extend_from_slice(&part[part.len() - overlap..]);
            } else {
                seam.drain(..seam.len().saturating_sub(bytes.len() - 1));
            }
            found
        })
    }

    /// The whole body in one piece; copies only when it arrived in several.
    pub fn to_bytes(&self) -> Bytes {
        match self.parts.as_slice() {
            [] => Bytes::new(),
            [whole] => whole.clone(),
            parts => parts.concat().into(),
        }
    }

    /// The same body with `edits` made, which must be sorted and apart. Shares the bytes.
    #[must_use]
    pub fn edited(&self, edits: &[Edit]) -> Self {
        let mut edited =
            Self { parts: Vec::with_capacity(self.parts.len() + 2 * edits.len()), length: 0 };
        let mut edits = edits.iter().peekable();
        // Bytes before this offset are copied or replaced already.
        let mut done = 0;
        let mut offset = 0;
        for part in &self.parts {
            let end = offset + part.len();
            while let Some(edit) = edits.next_if(|edit| edit.span.start < end) {
                edited.push(part.slice(done.max(offset) - offset..edit.span.start - offset));
                edited.push(edit.with.clone());
                done = edit.span.end;
            }
            if done < end {
                edited.push(part.slice(done.max(offset) - offset..));
                done = end;
            }
            offset = end;
        }
        edited
    }
}

impl From<Bytes> for Payload {
    fn from(whole: Bytes) -> Self {
        let mut payload = Self::default();
        payload.push(whole);
        payload
    }
}

/// How a target takes `stream_options`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// A stream is made to report its usage.
    Ask,
    /// The field would be refused, so it is cut out.
    Omit,
    /// Nothing is changed.
    Leave,
}

/// What becomes of `model` in a body.
#[derive(Debug, Clone)]
pub enum Model {
    /// Its value becomes this, a quoted JSON string.
    Value(Bytes),
    /// Key and value become this member of the object.
    Member(&'static str),
    /// The target is told elsewhere.
    Leave,
}

/// What must change in a body so that the target answers it. The second value says whether a
/// stream was made to report usage that the client did not ask for.
pub fn edits(envelope: &Envelope, model: Model, usage: Usage) -> (Vec<Edit>, bool) {
    let mut edits = Vec::with_capacity(2);
    edits.extend(envelope.model_place.and_then(|place| match model {
        Model::Value(quoted) => Some(Edit { span: place.value, with: quoted }),
        Model::Member(member) => {
            Some(Edit { span: place.member, with: Bytes::from_static(member.as_bytes()) })
        }
        Model::Leave => None,
    }));
    let change = match usage {
        Usage::Ask if envelope.stream => usage_edit(envelope),
        Usage::Omit => envelope.stream_options_member.map(|span| Edit { span, with: Bytes::new() }),
        Usage::Ask | Usage::Leave => None,
    };
    let asked = usage == Usage::Ask && change.is_some();
    edits.extend(change);
    edits.sort_unstable_by_key(|edit| edit.span.start);
    (edits, asked)
}

/// What the limit of an answer's tokens is called: by OpenAI's newer models, and before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    Completion,
    Tokens,
}

/// The edit that calls the answer's limit what the target calls it.
pub fn rename_limit(envelope: &Envelope, limit: Limit) -> Option<Edit> {
    let most = &envelope.most;
    let (span, name) = match limit {
        Limit::Completion => {
            (most.key.filter(|_| most.completion.is_none()), "\"max_completion_tokens\"")
        }
        // Who says both is understood, and put into other words.
        Limit::Tokens => (most.completion_key.filter(|_| most.key.is_none()), "\"max_tokens\""),
    };
    Some(Edit { span: span?, with: Bytes::from_static(name.as_bytes()) })
}

/// The edit that makes a stream report its usage, unless the client asked for that itself.
fn usage_edit(envelope: &Envelope) -> Option<Edit> {
    let at = |at| Span { start: at, end: at };
    let (span, with) = match envelope.stream_options {
        // At the end, so that the prefix a provider may have cached stays as it was.
        StreamOptions::Absent => {
            (at(envelope.close), r#","stream_options":{"include_usage":true}"#)
        }
        StreamOptions::Null(span) => (span, r#"{"include_usage":true}"#),
        StreamOptions::Without { open, empty: true } => (at(open), r#""include_usage":true"#),
        StreamOptions::Without { open, empty: false } => (at(open), r#""include_usage":true,"#),
        StreamOptions::Declined(span) => (span, "true"),
        StreamOptions::Asked => return None,
    };
    Some(Edit { span, with: Bytes::from_static(with.as_bytes()) })
}

#[cfg(test)]
mod tests {
    use super::super::peek::Scanner;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_body_in_tiny_pieces_is_kept_in_large_ones() {
        let body: Vec<u8> = (0..20_000_u32).map(|it| u8::try_from(it % 251).unwrap()).collect();
        for size in [1, 3, 1000, 3000, 5000] {
            let mut payload = Payload::default();
            let wire = Bytes::copy_from_slice(&body);
            let pieces = (0..body.len()).step_by(size).map(|at| at..(at + size).min(body.len()));
            pieces.for_each(|piece| payload.gather(wire.slice(piece)));
            assert_eq!((payload.len(), &payload.to_bytes()[..]), (body.len(), &body[..]), "{size}");
            assert!(payload.parts().len() <= body.len() / SMALL.min(2 * size) * 2 + 1, "{size}");
        }
    }

    fn chunked(body: &[u8], size: usize) -> Payload {
        let mut payload = Payload::default();
        body.chunks(size).for_each(|part| payload.push(Bytes::copy_from_slice(part)));
        payload
    }

    fn spliced(parts: &[&[u8]]) -> String {
        let mut scanner = Scanner::default();
        let mut payload = Payload::default();
        for part in parts {
            scanner.feed(part).unwrap();
            payload.push(Bytes::copy_from_slice(part));
        }
        let envelope = scanner.finish().unwrap();
        let (edits, _) = edits(&envelope, Model::Value(Bytes::from_static(b"\"new\"")), Usage::Ask);
        let edited = payload.edited(&edits);
        assert_eq!(edited.len(), edited.to_bytes().len());
        String::from_utf8(edited.to_bytes().to_vec()).unwrap()
    }

    #[test]
    fn changes_the_model_and_asks_for_usage_and_leaves_the_rest_alone() {
        let cases = [
            (
                r#"{"a" : 1, "model":"old", "stream":true }"#,
                r#"{"a" : 1, "model":"new", "stream":true ,"stream_options":{"include_usage":true}}"#,
            ),
            (
                r#"{"stream_options":{},"model":"old","stream":true}"#,
                r#"{"stream_options":{"include_usage":true},"model":"new","stream":true}"#,
            ),
            (
                r#"{"stream":true,"model":"old","stream_options":{ "x":1}}"#,
                r#"{"stream":true,"model":"new","stream_options":{"include_usage":true, "x":1}}"#,
            ),
            (
                r#"{"stream":true,"stream_options":{"include_usage":false},"model":"old"}"#,
                r#"{"stream":true,"stream_options":{"include_usage":true},"model":"new"}"#,
            ),
            (r#"{"model":"old"}"#, r#"{"model":"new"}"#),
        ];
        for (body, expected) in cases {
            assert_eq!(spliced(&[body.as_bytes()]), expected);
        }
    }

    #[test]
    fn the_limit_is_renamed_at_the_top_and_nowhere_else() {
        let limit = |body: &str, name| {
            let mut scanner = Scanner::default();
            scanner.feed(body.as_bytes()).unwrap();
            let edit = rename_limit(&scanner.finish().unwrap(), name)?;
            let edited = chunked(body.as_bytes(), 7).edited(&[edit]).to_bytes();
            Some(String::from_utf8(edited.to_vec()).unwrap())
        };
        let body = r#"{"x":{"max_tokens":1},"model":"m","max_tokens" : 2}"#;
        let expected = r#"{"x":{"max_tokens":1},"model":"m","max_completion_tokens" : 2}"#;
        assert_eq!(limit(body, Limit::Completion).as_deref(), Some(expected));
        assert_eq!(limit(expected, Limit::Tokens).as_deref(), Some(body));
        for body in
            [r#"{"model":"m"}"#, r#"{"model":"m","max_tokens":1,"max_completion_tokens":2}"#]
        {
            assert_eq!(limit(body, Limit::Completion), None, "{body}");
            assert_eq!(limit(body, Limit::Tokens), None, "{body}");
        }
    }

    #[test]
    fn options_with_nothing_but_a_key_too_long_to_be_ours_are_not_taken_for_empty() {
        let key = "x".repeat(200);
        let body = format!(r#"{{"stream":true,"model":"old","stream_options":{{"{key}":1}}}}"#);
        let expected = format!(
            r#"{{"stream":true,"model":"new","stream_options":{{"include_usage":true,"{key}":1}}}}"#
        );
        assert_eq!(spliced(&[body.as_bytes()]), expected);
    }

    proptest! {
        #[test]
        fn finds_bytes_however_they_arrived(size in 1_usize..9, at in 0_usize..20) {
            let mut body = b"abcabcabcabcabcabcabcab".to_vec();
            prop_assert!(!chunked(&body, size).contains(b"needle"));
            body.splice(at..at, *b"needle");
            prop_assert!(chunked(&body, size).contains(b"needle"));
        }

        #[test]
        fn gives_the_same_body_however_it_arrived(cuts in proptest::collection::vec(0_usize..70, 0..6)) {
            let body = br#"{"stream":true,"stream_options":null,"model":"old","messages":["x"]}"#;
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(body.len())).collect();
            cuts.sort_unstable();
            cuts.insert(0, 0);
            cuts.push(body.len());
            let parts: Vec<&[u8]> = cuts.windows(2).map(|pair| &body[pair[0]..pair[1]]).collect();
            prop_assert_eq!(spliced(&parts), spliced(&[body]));
        }
    }
}
