//! The text of one event, or of one object in it.

/// A value that is written as it stands.
#[derive(Debug, Clone, Copy)]
pub(super) enum Json<'a> {
    Text(&'a str),
    Number(u64),
    /// JSON already.
    Raw(&'a [u8]),
}

/// Counts the events of one stream as it writes them.
#[derive(Debug, Default, Clone)]
pub(super) struct Lines {
    pub(super) sequence: u64,
}

// === impl Lines ===

impl Lines {
    pub(super) fn event(&mut self, out: &mut Vec<u8>, name: &str, fields: &[(&str, Json<'_>)]) {
        for piece in ["event: response.", name, "\ndata: {\"type\":\"response.", name] {
            out.extend_from_slice(piece.as_bytes());
        }
        out.extend_from_slice(b"\",\"sequence_number\":");
        put(out, Json::Number(self.sequence));
        for (name, value) in fields {
            out.push(b',');
            field(out, name, *value);
        }
        out.extend_from_slice(b"}\n\n");
        self.sequence += 1;
    }
}

pub(super) fn object(fields: &[(&str, Json<'_>)]) -> Vec<u8> {
    let mut out = vec![b'{'];
    for (place, (name, value)) in fields.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        field(&mut out, name, *value);
    }
    out.push(b'}');
    out
}

/// JSON of anything that serialises.
pub(super) fn json(value: &impl serde::Serialize) -> Vec<u8> {
    // What is written here always serialises.
    serde_json::to_vec(value).unwrap_or_default()
}

fn field(out: &mut Vec<u8>, name: &str, value: Json<'_>) {
    put(out, Json::Text(name));
    out.push(b':');
    put(out, value);
}

fn put(out: &mut Vec<u8>, value: Json<'_>) {
    // Writing to memory does not fail.
    let _ = match value {
        Json::Text(text) => serde_json::to_writer(&mut *out, text),
        Json::Number(number) => serde_json::to_writer(&mut *out, &number),
        Json::Raw(json) => {
            out.extend_from_slice(json);
            Ok(())
        }
    };
}
