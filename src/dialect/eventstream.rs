//! AWS event-stream frames (`application/vnd.amazon.eventstream`) made into server-sent events.

use aws_smithy_eventstream::frame::read_message_from;
use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Map, Value};

use super::Misread;

/// The lengths and the checksum over them, with which every frame begins.
const PRELUDE: usize = 12;
/// A frame without headers and payload: the prelude, and a checksum over everything.
const SHORTEST: usize = PRELUDE + 4;
/// As long as AWS lets a frame be.
const LONGEST: usize = 24 * 1024 * 1024;

/// Cuts a stream of bytes into frames, in any chunking, and writes each as one event.
#[derive(Debug, Default)]
pub struct Transcoder {
    buffer: BytesMut,
    broken: bool,
}

/// Why nothing that follows can be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("a frame claims to be {0} bytes long")]
    Length(usize),
    #[error("a frame is malformed: {0}")]
    Frame(String),
    #[error("the stream was malformed before")]
    Broken,
}

// === impl Transcoder ===

impl Transcoder {
    /// Appends an event to `out` for each frame that `bytes` completes:
    /// `event: TYPE`, `data: PAYLOAD`, and an empty line. An exception becomes the event `error`
    /// with the exception's name as `__type`.
    pub fn feed(&mut self, bytes: &[u8], out: &mut BytesMut) -> Result<(), Fault> {
        if self.broken {
            return Err(Fault::Broken);
        }
        self.buffer.extend_from_slice(bytes);
        self.drain(out).inspect_err(|_| self.broken = true)
    }

    /// Whether the stream may end here: between two frames.
    pub fn is_complete(&self) -> bool {
        !self.broken && self.buffer.is_empty()
    }

    fn drain(&mut self, out: &mut BytesMut) -> Result<(), Fault> {
        while let Some(length) = self.buffer.first_chunk::<4>() {
            let length = u32::from_be_bytes(*length) as usize;
            // Checked before it is complete: a false length must not make us wait for it.
            if !(SHORTEST..=LONGEST).contains(&length) {
                return Err(Fault::Length(length));
            }
            if self.buffer.len() < length {
                break;
            }
            write(self.buffer.split_to(length).freeze(), out)?;
        }
        Ok(())
    }
}

/// Writes one whole frame, whose checksums are verified on the way.
fn write(frame: Bytes, out: &mut BytesMut) -> Result<(), Fault> {
    let message = read_message_from(frame).map_err(|error| Fault::Frame(error.to_string()))?;
    let header = |name: &str| {
        let found = message.headers().iter().find(|header| header.name().as_str() == name);
        found.and_then(|header| Some(header.value().as_string().ok()?.as_str()))
    };
    match header(":message-type") {
        Some("event") | None => {
            let name = header(":event-type").unwrap_or("message");
            write_event(name, message.payload(), out);
        }
        Some(_) => {
            let name = header(":exception-type").or_else(|| header(":error-code"));
            let mut error = match serde_json::from_slice(message.payload()) {
                Ok(Value::Object(error)) => error,
                Ok(_) | Err(_) => Map::new(),
            };
            error.shift_insert(0, "__type".to_owned(), name.unwrap_or("unknown").into());
            if let Some(text) = header(":error-message") {
                error.insert("message".to_owned(), text.into());
            }
            write_event("error", Value::Object(error).to_string().as_bytes(), out);
        }
    }
    Ok(())
}

fn write_event(name: &str, data: &[u8], out: &mut BytesMut) {
    out.reserve(name.len() + data.len() + 16);
    out.put_slice(b"event: ");
    put_line(name.as_bytes(), out);
    out.put_slice(b"data: ");
    put_line(data, out);
    out.put_u8(b'\n');
}

/// In JSON a bare line break is white space between two tokens, and so a space says the same.
fn put_line(text: &[u8], out: &mut BytesMut) {
    let start = out.len();
    out.put_slice(text);
    let mut rest = &mut out[start..];
    while let Some(at) = memchr::memchr2(b'\n', b'\r', rest) {
        rest[at] = b' ';
        rest = &mut rest[at + 1..];
    }
    out.put_u8(b'\n');
}

/// A whole stream as lines.
pub fn lines(stream: &[u8]) -> Result<Bytes, Misread> {
    let (mut transcoder, mut lines) = (Transcoder::default(), BytesMut::new());
    let fed = transcoder.feed(stream, &mut lines);
    fed.map_err(|_| Misread::new("The stream's framing is malformed."))?;
    Ok(lines.freeze())
}

#[cfg(test)]
mod tests {
    use aws_smithy_eventstream::frame::write_message_to;
    use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
    use proptest::prelude::*;

    use super::*;

    fn frame(headers: &[(&'static str, &str)], payload: &[u8]) -> Vec<u8> {
        let message = Message::new(payload.to_vec());
        let message = headers.iter().fold(message, |message, (name, value)| {
            message.add_header(Header::new(*name, HeaderValue::String((*value).to_owned().into())))
        });
        let mut frame = Vec::new();
        write_message_to(&message, &mut frame).unwrap();
        frame
    }

    fn event(name: &str, payload: &str) -> Vec<u8> {
        let headers = [
            (":event-type", name),
            (":content-type", "application/json"),
            (":message-type", "event"),
        ];
        frame(&headers, payload.as_bytes())
    }

    fn text_of(bytes: &[u8]) -> Result<String, Fault> {
        let (mut transcoder, mut out) = (Transcoder::default(), BytesMut::new());
        transcoder.feed(bytes, &mut out)?;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    #[test]
    fn the_frame_of_the_reference_implementation_is_read() {
        // From aws-c-event-stream's own tests: no headers, the payload {'foo':'bar'}.
        let bytes =
            b"\x00\x00\x00\x1D\x00\x00\x00\x00\xfd\x52\x8c\x5a{'foo':'bar'}\xc3\x65\x39\x36";
        assert_eq!(text_of(bytes).unwrap(), "event: message\ndata: {'foo':'bar'}\n\n");
    }

    #[test]
    fn a_frame_becomes_an_event_on_one_line() {
        let bytes = event("contentBlockDelta", "{\r\n \"a\": \"x\\ny\"\n}");
        assert_eq!(
            text_of(&bytes).unwrap(),
            "event: contentBlockDelta\ndata: {   \"a\": \"x\\ny\" }\n\n"
        );
        let forged = event("a\n\ndata: b", "{}");
        assert_eq!(text_of(&forged).unwrap(), "event: a  data: b\ndata: {}\n\n");
    }

    #[test]
    fn an_exception_keeps_its_type() {
        let headers = [(":exception-type", "throttlingException"), (":message-type", "exception")];
        assert_eq!(
            text_of(&frame(&headers, br#"{"message":"Too many"}"#)).unwrap(),
            "event: error\ndata: {\"__type\":\"throttlingException\",\"message\":\"Too many\"}\n\n"
        );
        let headers = [
            (":message-type", "error"),
            (":error-code", "InternalError"),
            (":error-message", "a \"quoted\"\nword"),
        ];
        assert_eq!(
            text_of(&frame(&headers, b"")).unwrap(),
            "event: error\ndata: {\"__type\":\"InternalError\",\
             \"message\":\"a \\\"quoted\\\"\\nword\"}\n\n"
        );
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed_and_ends_the_stream() {
        let whole = event("a", "{\"b\":1}");
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            let (mut transcoder, mut out) = (Transcoder::default(), BytesMut::new());
            let result = transcoder.feed(&bytes, &mut out);
            assert!(out.is_empty(), "byte {at}");
            // A longer length waits for the bytes that it promises.
            assert!(result.is_err() || !transcoder.is_complete(), "byte {at}");
            if result.is_err() {
                assert_eq!(transcoder.feed(&whole, &mut out), Err(Fault::Broken));
            }
        }
    }

    #[test]
    fn a_length_that_no_frame_has_is_refused_before_it_is_waited_for() {
        assert_eq!(text_of(&[0xff; 4]), Err(Fault::Length(0xffff_ffff)));
        assert_eq!(text_of(&[0, 0, 0, 15]), Err(Fault::Length(15)));
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_events(
            payloads in prop::collection::vec("\\{[ -~]{0,40}\\}", 0..6),
            sizes in prop::collection::vec(1_usize..50, 1..40),
        ) {
            let bytes: Vec<u8> =
                payloads.iter().flat_map(|payload| event("delta", payload)).collect();
            let (mut transcoder, mut out) = (Transcoder::default(), BytesMut::new());
            let (mut rest, mut sizes) = (bytes.as_slice(), sizes.iter().cycle());
            while !rest.is_empty() {
                let (piece, after) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
                transcoder.feed(piece, &mut out).unwrap();
                rest = after;
            }
            prop_assert!(transcoder.is_complete());
            prop_assert_eq!(String::from_utf8_lossy(&out).into_owned(), text_of(&bytes).unwrap());
        }

        #[test]
        fn no_bytes_are_too_strange_to_be_refused_politely(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            headers in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let _ = text_of(&bytes);
            // A true prelude, so that what follows it is looked at.
            let header_length = u32::try_from(headers.len()).unwrap();
            let mut framed = (header_length + 16).to_be_bytes().to_vec();
            framed.extend(header_length.to_be_bytes());
            framed.extend(checksum(&framed).to_be_bytes());
            framed.extend(&headers);
            framed.extend(checksum(&framed).to_be_bytes());
            let _ = text_of(&framed);
        }
    }

    /// CRC-32 as in zip files, a bit at a time.
    fn checksum(bytes: &[u8]) -> u32 {
        let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
    }
}
