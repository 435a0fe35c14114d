//! Reads from a collector's answer how many spans it did not take, and why.

/// What of a batch was refused, though the rest was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub spans: u64,
    pub message: String,
}

/// A field of a protobuf message.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl Refusal {
    /// Of an `ExportTraceServiceResponse`; `None` where all was taken.
    pub fn read(answer: &[u8]) -> Option<Self> {
        let Field::Bytes(partial) = find(answer, 1)? else { return None };
        let Some(Field::Number(spans)) = find(partial, 1) else { return None };
        let message = match find(partial, 2) {
            Some(Field::Bytes(text)) => String::from_utf8_lossy(text).into_owned(),
            _ => String::new(),
        };
        (spans > 0).then_some(Self { spans, message })
    }
}

/// The first field of this number.
fn find(mut message: &[u8], wanted: u64) -> Option<Field<'_>> {
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let field = match key & 7 {
            0 => Field::Number(varint(&mut message)?),
            1 => Field::Bytes(message.split_off(..8)?),
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                Field::Bytes(message.split_off(..length)?)
            }
            5 => Field::Bytes(message.split_off(..4)?),
            _ => return None,
        };
        if key >> 3 == wanted {
            return Some(field);
        }
    }
    None
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *message.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_read_and_nonsense_is_none() {
        let said = [&[0x0a, 8, 0x08, 3, 0x12, 4][..], b"full"].concat();
        let refusal = Refusal { spans: 3, message: "full".to_owned() };
        assert_eq!(Refusal::read(&said), Some(refusal));
        for none in
            [&b""[..], b"\x0a\x00", b"\x0a\xff", b"\xff\xff", b"not found", b"\x0a\x02\x08\x00"]
        {
            assert_eq!(Refusal::read(none), None);
        }
    }
}
