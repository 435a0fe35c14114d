//! A JSON object written field by field, for lines that every call writes.

use std::fmt::{self, Display, Formatter};
use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

/// An object that is being written. The names of its fields are ours: nothing in them is escaped.
pub(super) struct Object<'a> {
    buffer: &'a mut Vec<u8>,
    /// What stands before the next field.
    before: u8,
}

/// Milliseconds with microseconds behind the point.
pub(super) struct Milliseconds(pub(super) Duration);

// === impl Object ===

impl<'a> Object<'a> {
    pub(super) fn begin(buffer: &'a mut Vec<u8>) -> Self {
        Self { buffer, before: b'{' }
    }

    pub(super) fn text(&mut self, name: &'static str, text: &str) -> io::Result<()> {
        // Hardly a text of ours needs an escape.
        if text.bytes().any(|byte| matches!(byte, 0..=0x1f | b'"' | b'\\')) {
            return self.value(name, text);
        }
        self.name(name);
        self.buffer.push(b'"');
        self.buffer.extend_from_slice(text.as_bytes());
        self.buffer.push(b'"');
        Ok(())
    }

    /// Nothing, if there is none.
    pub(super) fn maybe(&mut self, name: &'static str, text: Option<&str>) -> io::Result<()> {
        text.map_or(Ok(()), |text| self.text(name, text))
    }

    /// As it is shown, which needs no escapes.
    pub(super) fn shown(&mut self, name: &'static str, shown: impl Display) -> io::Result<()> {
        self.name(name);
        write!(self.buffer, "\"{shown}\"")
    }

    pub(super) fn milliseconds(&mut self, name: &'static str, time: Duration) -> io::Result<()> {
        // Digit by digit: a formatter takes longer than the rest of a line's field.
        let micros = Milliseconds(time).micros();
        let digit = |at: u64| b'0' + (micros / at % 10).to_le_bytes()[0];
        self.value(name, &(micros / 1000))?;
        self.buffer.extend_from_slice(&[b'.', digit(100), digit(10), digit(1)]);
        Ok(())
    }

    pub(super) fn value<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> io::Result<()> {
        self.name(name);
        Ok(serde_json::to_writer(&mut *self.buffer, value)?)
    }

    /// Nothing, if it is empty.
    pub(super) fn list<T: Serialize>(&mut self, name: &'static str, list: &[T]) -> io::Result<()> {
        if list.is_empty() { Ok(()) } else { self.value(name, list) }
    }

    pub(super) fn end(self) {
        if self.before == b'{' {
            self.buffer.push(b'{');
        }
        self.buffer.push(b'}');
    }

    fn name(&mut self, name: &'static str) {
        self.buffer.push(std::mem::replace(&mut self.before, b','));
        self.buffer.push(b'"');
        self.buffer.extend_from_slice(name.as_bytes());
        self.buffer.extend_from_slice(b"\":");
    }
}

// === impl Milliseconds ===

impl Milliseconds {
    fn micros(&self) -> u64 {
        self.0.as_secs() * 1_000_000 + (u64::from(self.0.subsec_nanos()) + 500) / 1000
    }
}

impl Display for Milliseconds {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let micros = self.micros();
        write!(formatter, "{}.{:03}", micros / 1000, micros % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_field_by_field_is_json() {
        let mut buffer = Vec::new();
        let mut object = Object::begin(&mut buffer);
        object.text("plain", "wörd").unwrap();
        object.text("odd", "a \"b\"\n\\ \u{1}").unwrap();
        object.maybe("none", None).unwrap();
        object.list::<u8>("empty", &[]).unwrap();
        object.list("list", &[1, 2]).unwrap();
        object.shown("shown", format_args!("{:04x}", 255)).unwrap();
        object.milliseconds("time", Duration::from_nanos(1_002_499)).unwrap();
        object.value("null", &None::<u8>).unwrap();
        object.end();
        let expected = r#"{"plain":"wörd","odd":"a \"b\"\n\\ \u0001","list":[1,2],"shown":"00ff","time":1.002,"null":null}"#;
        assert_eq!(String::from_utf8(buffer).unwrap(), expected);
        let mut buffer = Vec::new();
        Object::begin(&mut buffer).end();
        assert_eq!(buffer, b"{}");
    }
}
