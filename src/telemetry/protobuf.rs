//! Writes the protobuf wire format, as far as spans need it, straight into a buffer.
//!
//! Why not by a library: that wants each span as a tree of owned strings first, some ninety
//! allocations a call, where most names are constants and most values lie in the record already.

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// Appends fields of one message.
pub(super) struct Message<'a>(pub(super) &'a mut Vec<u8>);

/// The value of an attribute.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Text(&'a str),
    Whole(u64),
    Fraction(f64),
    Flag(bool),
}

// === impl Message ===

impl Message<'_> {
    pub(super) fn varint(&mut self, field: u64, value: u64) {
        self.push(field << 3 | VARINT);
        self.push(value);
    }

    pub(super) fn fixed64(&mut self, field: u64, value: u64) {
        self.push(field << 3 | FIXED64);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn fixed32(&mut self, field: u64, value: u32) {
        self.push(field << 3 | FIXED32);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn bytes(&mut self, field: u64, value: &[u8]) {
        self.push(field << 3 | BYTES);
        self.push(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    /// A message in this one, whose length is known when it is written.
    pub(super) fn message(&mut self, field: u64, write: impl FnOnce(&mut Message<'_>)) {
        self.push(field << 3 | BYTES);
        let start = self.0.len();
        write(&mut Message(self.0));
        let end = self.0.len();
        self.push((end - start) as u64);
        let written = self.0.len() - end;
        self.0[start..].rotate_right(written);
    }

    /// `KeyValue` of the OpenTelemetry protocol. What the name is empty of has none here.
    pub(super) fn attribute(&mut self, field: u64, name: &str, value: Value<'_>) {
        if name.is_empty() {
            return;
        }
        let held = value.size();
        let size = 1 + varint_size(name.len() as u64) + name.len() + 1 + varint_size(held) + {
            // Sizes here come from strings in memory.
            usize::try_from(held).unwrap_or(usize::MAX)
        };
        self.push(field << 3 | BYTES);
        self.push(size as u64);
        self.bytes(1, name.as_bytes());
        self.push(2 << 3 | BYTES);
        self.push(held);
        self.value(value);
    }

    /// An attribute that is a list of texts.
    pub(super) fn attribute_list<'a>(
        &mut self,
        field: u64,
        name: &str,
        values: impl Iterator<Item = &'a str>,
    ) {
        if name.is_empty() {
            return;
        }
        let list = |list: &mut Message<'_>| {
            values.for_each(|text| list.message(1, |any| any.bytes(1, text.as_bytes())));
        };
        self.message(field, |pair| {
            pair.bytes(1, name.as_bytes());
            pair.message(2, |any| any.message(5, list));
        });
    }

    fn value(&mut self, value: Value<'_>) {
        match value {
            Value::Text(text) => self.bytes(1, text.as_bytes()),
            Value::Flag(flag) => self.varint(2, flag.into()),
            Value::Whole(number) => self.varint(3, number),
            Value::Fraction(number) => self.fixed64(4, number.to_bits()),
        }
    }

    fn push(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }
}

impl Value<'_> {
    /// Its bytes with their key.
    fn size(self) -> u64 {
        let size = match self {
            Value::Text(text) => varint_size(text.len() as u64) + text.len(),
            Value::Flag(_) => 1,
            Value::Whole(number) => varint_size(number),
            Value::Fraction(_) => 8,
        };
        1 + size as u64
    }
}

fn varint_size(value: u64) -> usize {
    // Seven bits a byte, and one byte at least.
    (64 - (value | 1).leading_zeros()).div_ceil(7) as usize
}
