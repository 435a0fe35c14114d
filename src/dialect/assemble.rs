//! Puts the scattered pieces of streamed tool calls together, one call after the other.
//!
//! Upstreams number and name their pieces as they please: an index of -1 or none, every index 0, an
//! id only in the first piece or in each, a name that comes late, calls that grow in turns. A piece
//! belongs to a call by its id, else by its index, else by its place in the event, and one with none
//! of these to the last call that is not whole. A new id on a used index is a new call, unless it is
//! plain that the one before goes on, and so is one that is named in another place by the id of a
//! call that is whole: it gets an id of its own. The first call is passed on while it grows; pieces of others wait until
//! its arguments are a whole JSON value, or the answer ends. So an ordinary stream is not delayed,
//! and calls that grow in turns come out in order.

use crate::canon::{Delta, Event, Opaque, Opening, StreamFailure};
use crate::dialect::portable_id;

/// A piece of a tool call. An empty id or name is none.
#[derive(Debug, Default)]
pub struct Piece<'a> {
    pub id: &'a str,
    pub name: &'a str,
    pub index: Option<i64>,
    /// Its place among the calls of the same event.
    pub place: usize,
    pub arguments: &'a str,
    /// The tool takes free text.
    pub custom: bool,
    pub opaque: Option<Opaque>,
}

/// The calls of one answer.
#[derive(Debug, Default)]
pub struct Assembler {
    /// The answer's id: ids that are made here differ from answer to answer.
    seed: String,
    calls: Vec<Call>,
    /// The calls before this one are closed.
    current: usize,
}

#[derive(Debug, Default)]
struct Call {
    id: String,
    /// It is that of an earlier call, too.
    is_taken: bool,
    name: String,
    index: Option<i64>,
    place: usize,
    custom: bool,
    /// Arguments that have not been passed on.
    held: String,
    opaque: Option<Opaque>,
    open: bool,
    value: Value,
}

/// How far JSON text has come.
#[derive(Debug, Default)]
struct Value {
    depth: u32,
    in_string: bool,
    escaped: bool,
    /// An object, a list or a string has been closed at the top.
    whole: bool,
}

// === impl Assembler ===

impl Assembler {
    /// For the calls of the answer with this id.
    pub fn new(answer: &str) -> Self {
        Self { seed: answer.to_owned(), ..Self::default() }
    }

    /// Takes a piece in, and gives the events that it makes possible.
    pub fn add(&mut self, choice: u32, piece: Piece<'_>, events: &mut Vec<Event>) {
        let place = self.place_of(&piece);
        let Some(call) = self.calls.get_mut(place) else { return };
        call.take(piece);
        // A call that is closed already was whole; what comes after it would break it.
        if place >= self.current {
            self.advance(choice, events);
        }
    }

    /// Whether a call's arguments have begun and are not whole.
    pub fn is_cut(&self) -> bool {
        self.calls[self.current..].iter().any(|call| !call.custom && call.value.is_cut())
    }

    /// Whether a call is open.
    pub fn is_open(&self) -> bool {
        self.calls.get(self.current).is_some_and(|call| call.open)
    }

    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Whether the arguments of every call are whole, so that something else may come between.
    pub fn is_whole(&self) -> bool {
        self.calls[self.current..].iter().all(|call| !call.name.is_empty() && call.is_whole())
    }

    /// The call with this id gets state that came beside it; `false` if there is none to take it.
    pub fn attach(&mut self, id: &str, opaque: &Opaque) -> bool {
        let current = self.current;
        let call = self.calls.iter_mut().skip(current).find(|call| call.id == id);
        call.map(|call| call.opaque = Some(opaque.clone())).is_some()
    }

    /// Closes every call. One that never had a name is a failure.
    pub fn finish(&mut self, choice: u32, events: &mut Vec<Event>) {
        while let Some(call) = self.calls.get_mut(self.current) {
            if call.name.is_empty() {
                events.push(Event::Failed(StreamFailure {
                    message: "The upstream began a tool call and never named its tool.".into(),
                    kind: Some("malformed_tool_call".into()),
                    ..StreamFailure::default()
                }));
                self.current = self.calls.len();
                return;
            }
            call.value.in_string = false;
            call.pass_on((&self.seed, self.current), choice, events);
            call.close(choice, events);
            self.current += 1;
        }
    }

    /// Passes on what can be, and closes calls that are whole once another waits.
    fn advance(&mut self, choice: u32, events: &mut Vec<Event>) {
        let last = self.calls.len().saturating_sub(1);
        while let Some(call) = self.calls.get_mut(self.current) {
            if call.name.is_empty() {
                return;
            }
            call.pass_on((&self.seed, self.current), choice, events);
            if self.current == last || !call.is_whole() {
                return;
            }
            call.close(choice, events);
            self.current += 1;
        }
    }

    /// The call that a piece belongs to, a new one if there is none.
    fn place_of(&mut self, piece: &Piece<'_>) -> usize {
        let index = piece.index.filter(|index| *index >= 0);
        let found = if piece.id.is_empty() {
            let last = || self.unfinished().filter(|_| piece.name.is_empty());
            let found = self.by_number(index, piece.place).or_else(last);
            found.filter(|place| !self.begins_anew(*place, piece))
        } else {
            // The id may come later than the call's first piece.
            self.by_id(index, piece).or_else(|| {
                let place = self.by_number(index, piece.place)?;
                let call = &self.calls[place];
                let fits = call.id.is_empty() && !call.open && !self.begins_anew(place, piece);
                (fits || (index.is_some() && call.goes_on_with(piece))).then_some(place)
            })
        };
        found.unwrap_or_else(|| {
            let is_it = |call: &Call| !piece.id.is_empty() && call.id == piece.id;
            let call = Call {
                id: piece.id.to_owned(),
                is_taken: self.calls.iter().any(is_it),
                index,
                place: piece.place,
                custom: piece.custom,
                ..Call::default()
            };
            self.calls.push(call);
            self.calls.len() - 1
        })
    }

    /// The latest call with the id of a piece; none where that begins another one by the same id.
    fn by_id(&self, index: Option<i64>, piece: &Piece<'_>) -> Option<usize> {
        let is_it = |call: &Call| call.id == piece.id;
        let is_there = |call: &Call| match index {
            Some(_) => call.index.is_none() || call.index == index,
            None => call.index.is_some() || call.place == piece.place,
        };
        self.calls.iter().rposition(|call| is_it(call) && is_there(call)).or_else(|| {
            let place = self.calls.iter().rposition(is_it)?;
            let says_so = index.is_some() || !piece.arguments.is_empty();
            (!says_so || !self.begins_anew(place, piece)).then_some(place)
        })
    }

    /// The latest call with this index, or, where there is none, in this place of an event.
    fn by_number(&self, index: Option<i64>, place: usize) -> Option<usize> {
        self.calls.iter().rposition(|call| match index {
            Some(_) => call.index == index,
            None => call.index.is_none() && call.place == place,
        })
    }

    /// The last call whose arguments are not whole.
    fn unfinished(&self) -> Option<usize> {
        let place = self.calls.iter().rposition(|call| !call.value.whole)?;
        (place >= self.current).then_some(place)
    }

    /// Whether a piece without a known id names a tool again after the call was complete: some
    /// upstreams give no id and the same index to every call.
    fn begins_anew(&self, place: usize, piece: &Piece<'_>) -> bool {
        let call = &self.calls[place];
        !piece.name.is_empty() && !call.name.is_empty() && call.value.whole
    }
}

// === impl Call ===

impl Call {
    fn take(&mut self, piece: Piece<'_>) {
        if self.id.is_empty() && !self.open {
            piece.id.clone_into(&mut self.id);
        }
        if self.name.is_empty() {
            piece.name.clone_into(&mut self.name);
        }
        self.custom |= piece.custom;
        self.index = self.index.or_else(|| piece.index.filter(|index| *index >= 0));
        if piece.opaque.is_some() {
            self.opaque = piece.opaque;
        }
        if self.custom {
            self.held.push_str(piece.arguments);
            return;
        }
        if !self.value.has_begun() && matches!(piece.arguments.trim(), "null" | "[]") {
            return;
        }
        let end = self.value.read(piece.arguments);
        self.held.push_str(&piece.arguments[..end]);
        if self.value.whole {
            self.unquote();
        }
    }

    /// Some servers write the arguments as JSON twice over.
    fn unquote(&mut self) {
        let inner: Option<String> = serde_json::from_str(&self.held).ok();
        if let Some(inner) =
            inner.filter(|inner| matches!(inner.trim().bytes().next(), None | Some(b'{')))
        {
            self.held = inner;
        }
    }

    /// Whether a piece of the same index and another id is still of this call: some upstreams make
    /// up an id for each piece.
    fn goes_on_with(&self, piece: &Piece<'_>) -> bool {
        if piece.name.is_empty() {
            return !self.value.whole || piece.arguments.is_empty();
        }
        piece.name == self.name && self.value.is_cut()
    }

    /// Free text has no end of its own; its pieces never come in turns with another's.
    fn is_whole(&self) -> bool {
        self.custom || self.value.whole
    }

    fn pass_on(&mut self, seed: (&str, usize), choice: u32, events: &mut Vec<Event>) {
        if !self.open {
            self.open = true;
            let mut id = self.id.clone();
            if id.is_empty() || self.is_taken {
                // Not a character that ids may have, so it becomes a hash.
                let (answer, place) = seed;
                id = portable_id(&format!("{answer}:{}:{place}", self.name)).into_owned();
            }
            if self.id.is_empty() {
                self.id.clone_from(&id);
            }
            let (name, custom) = (self.name.clone(), self.custom);
            events.push(Event::Open { choice, part: Opening::ToolCall { id, name, custom } });
        }
        if !self.held.is_empty() && !self.value.is_text() {
            let delta = Delta::Arguments(std::mem::take(&mut self.held));
            events.push(Event::Delta { choice, delta });
        }
    }

    fn close(&mut self, choice: u32, events: &mut Vec<Event>) {
        if let Some(opaque) = self.opaque.take() {
            events.push(Event::Delta { choice, delta: Delta::Opaque(opaque) });
        }
        events.push(Event::Close { choice });
    }
}

// === impl Value ===

impl Value {
    fn has_begun(&self) -> bool {
        self.whole || self.is_cut()
    }

    /// It is a text that goes on.
    fn is_text(&self) -> bool {
        self.depth == 0 && self.in_string
    }

    /// It has begun and is not whole.
    fn is_cut(&self) -> bool {
        self.depth > 0 || self.in_string
    }

    /// Reads on; how many of the bytes belong to the value. What follows a whole value does not:
    /// some upstreams repeat all arguments in their last piece.
    fn read(&mut self, text: &str) -> usize {
        if self.whole {
            return 0;
        }
        for (at, byte) in text.bytes().enumerate() {
            self.step(byte);
            if self.whole {
                return at + 1;
            }
        }
        text.len()
    }

    fn step(&mut self, byte: u8) {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => {
                    self.in_string = false;
                    self.whole = self.depth == 0;
                }
                _ => {}
            }
            return;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.whole = self.depth == 0;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(pieces: &[Piece<'_>]) -> Vec<(String, String, String)> {
        let mut assembler = Assembler::default();
        let mut events = Vec::new();
        for piece in pieces {
            let opaque = piece.opaque.clone();
            assembler.add(0, Piece { opaque, ..*piece }, &mut events);
        }
        assembler.finish(0, &mut events);
        let mut calls = Vec::new();
        let mut open = false;
        for event in events {
            match event {
                Event::Open { part: Opening::ToolCall { id, name, .. }, .. } if !open => {
                    open = true;
                    calls.push((id, name, String::new()));
                }
                Event::Delta { delta: Delta::Arguments(more), .. } if open => {
                    calls.last_mut().unwrap().2.push_str(&more);
                }
                Event::Close { .. } if open => open = false,
                Event::Failed(failure) => {
                    calls.push((String::new(), failure.message, String::new()));
                }
                other => panic!("{other:?}"),
            }
        }
        calls
    }

    fn piece<'a>(id: &'a str, index: Option<i64>, name: &'a str, arguments: &'a str) -> Piece<'a> {
        Piece { id, name, index, arguments, ..Piece::default() }
    }

    fn two() -> Vec<(String, String, String)> {
        [("a", "look", r#"{"x":1}"#), ("b", "find", r#"{"y":2}"#)]
            .map(|(id, name, text)| (id.into(), name.into(), text.into()))
            .to_vec()
    }

    /// Id, index, name and arguments of a piece.
    type Told = (&'static str, Option<i64>, &'static str, &'static str);

    /// The same two calls in all the ways that they have been seen.
    const SHAPES: &[(&str, &[Told])] = &[
        (
            "ordinary",
            &[
                ("a", Some(0), "look", ""),
                ("", Some(0), "", r#"{"x""#),
                ("", Some(0), "", ":1}"),
                ("b", Some(1), "find", r#"{"y":2}"#),
            ],
        ),
        (
            "arguments only at the end",
            &[
                ("a", Some(0), "look", ""),
                ("b", Some(1), "find", ""),
                ("a", Some(0), "", r#"{"x":1}"#),
                ("b", Some(1), "", r#"{"y":2}"#),
            ],
        ),
        (
            "index -1",
            &[
                ("a", Some(-1), "look", r#"{"x":"#),
                ("", Some(-1), "", "1}"),
                ("b", Some(-1), "find", r#"{"y":2}"#),
            ],
        ),
        (
            "no index",
            &[
                ("a", None, "look", r#"{"x":"#),
                ("", None, "", "1}"),
                ("b", None, "find", r#"{"y":"#),
                ("b", None, "", "2}"),
            ],
        ),
        (
            "arguments that are none come first",
            &[
                ("a", Some(0), "look", "null"),
                ("", Some(0), "", r#"{"x":1}"#),
                ("b", Some(1), "find", "[]"),
                ("", Some(1), "", r#"{"y":2}"#),
            ],
        ),
        (
            "arguments are JSON twice over",
            &[
                ("a", Some(0), "look", r#""{\"x\":1}""#),
                ("b", Some(1), "find", r#" "{\"y\""#),
                ("", Some(1), "", r#":2}""#),
            ],
        ),
        (
            "all index 0",
            &[
                ("a", Some(0), "look", r#"{"x":1}"#),
                ("b", Some(0), "find", r#"{"y":"#),
                ("", Some(0), "", "2}"),
            ],
        ),
        (
            "the index changes",
            &[
                ("a", Some(0), "look", r#"{"x":"#),
                ("a", Some(1), "", "1}"),
                ("b", Some(1), "find", r#"{"y":"#),
                ("b", Some(0), "", "2}"),
            ],
        ),
        (
            "the id comes with every piece",
            &[
                ("a", Some(0), "look", r#"{"x":"#),
                ("a", Some(0), "look", "1}"),
                ("b", Some(1), "find", r#"{"y":2}"#),
            ],
        ),
        (
            "the name comes late",
            &[
                ("a", Some(0), "", r#"{"x":"#),
                ("a", Some(0), "look", "1}"),
                ("b", Some(1), "find", r#"{"y":2}"#),
            ],
        ),
        (
            "the id comes late",
            &[
                ("", Some(0), "", ""),
                ("a", Some(0), "look", r#"{"x":1}"#),
                ("b", Some(1), "find", r#"{"y":2}"#),
            ],
        ),
        (
            "in turns",
            &[
                ("a", Some(0), "look", ""),
                ("b", Some(1), "find", ""),
                ("", Some(0), "", r#"{"x":"#),
                ("", Some(1), "", r#"{"y":"#),
                ("", Some(0), "", "1}"),
                ("", Some(1), "", "2}"),
            ],
        ),
        (
            "the index of the second call's arguments is another",
            &[
                ("a", Some(0), "look", ""),
                ("", Some(0), "", r#"{"x":1}"#),
                ("b", Some(0), "find", ""),
                ("", Some(1), "", r#"{"y":2}"#),
            ],
        ),
        (
            "each piece has an id of its own",
            &[
                ("a", Some(0), "look", ""),
                ("c", Some(0), "", r#"{"x":"#),
                ("d", Some(0), "", "1}"),
                ("e", Some(0), "", ""),
                ("b", Some(1), "find", r#"{"y":"#),
                ("f", Some(1), "find", "2"),
                ("g", Some(1), "find", "}"),
            ],
        ),
        (
            "all arguments again at the end",
            &[
                ("a", Some(0), "look", r#"{"x":1}"#),
                ("b", Some(1), "find", r#"{"y":2}"#),
                ("b", Some(1), "find", r#"{"y":2}"#),
            ],
        ),
    ];

    #[test]
    fn two_calls_come_out_whole_whatever_their_pieces_look_like() {
        for (shape, told) in SHAPES {
            let pieces: Vec<Piece<'_>> =
                told.iter().map(|(id, index, name, text)| piece(id, *index, name, text)).collect();
            assert_eq!(calls(&pieces), two(), "{shape}");
        }
    }

    #[test]
    fn calls_without_ids_are_told_apart_and_get_ids_of_their_own() {
        for indices in [[Some(0), Some(0)], [None, None], [Some(0), Some(1)]] {
            let found = calls(&[
                piece("", indices[0], "look", r#"{"x":1}"#),
                piece("", indices[1], "look", r#"{"x":2}"#),
            ]);
            assert_eq!(found.len(), 2);
            assert_ne!(found[0].0, found[1].0);
            assert!(found.iter().all(|(id, ..)| portable_id(id) == id.as_str()));
        }
    }

    #[test]
    fn calls_of_one_id_are_told_apart_by_their_places_and_get_ids_of_their_own() {
        let (first, second) = (r#"{"x":1}"#, r#"{"x":2}"#);
        let placed = |place, arguments| Piece { place, ..piece("a", None, "look", arguments) };
        for pieces in [
            vec![piece("a", Some(0), "look", first), piece("a", Some(1), "look", second)],
            vec![
                piece("a", Some(0), "look", first),
                piece("a", Some(1), "look", ""),
                piece("", Some(1), "", "{\"x\":"),
                piece("a", Some(1), "", "2}"),
            ],
            vec![placed(0, first), placed(1, second)],
        ] {
            let found = calls(&pieces);
            let told: Vec<_> = found.iter().map(|(_, name, text)| (&**name, &**text)).collect();
            assert_eq!(told, [("look", first), ("look", second)], "{pieces:?}");
            assert!(found[0].0 == "a" && found[1].0 != "a", "{found:?}");
        }
    }

    #[test]
    fn a_call_that_is_never_named_is_a_failure_and_no_call() {
        let found = calls(&[piece("a", Some(0), "", "{}")]);
        assert_eq!(found[0].0, "");
        assert!(found[0].1.contains("never named"));
    }

    #[test]
    fn an_ordinary_call_is_passed_on_piece_by_piece() {
        let mut assembler = Assembler::default();
        for (text, events) in [("", 1), ("{\"a\":", 1), ("\"}\"", 1), ("}", 1)] {
            let mut found = Vec::new();
            assembler.add(0, piece("a", Some(0), "look", text), &mut found);
            assert_eq!(found.len(), events, "{text}");
        }
        assert!(assembler.is_whole());
    }
}
