//! How the strings of a body begin, in a few bits: what saves searching it for each mark.

use crate::dialect::marks::Mark;

/// A filter over the first three bytes of all strings, keys among them. What is not in it does not
/// stand in the body; what is in it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beginnings {
    seen: [u64; 4],
    /// Some letter is spelled by its number.
    escapes: bool,
}

// === impl Beginnings ===

impl Default for Beginnings {
    /// Of a body that nobody looked through: anything.
    fn default() -> Self {
        Self { seen: [u64::MAX; 4], escapes: true }
    }
}

impl Beginnings {
    pub(super) fn none() -> Self {
        Self { seen: [0; 4], escapes: false }
    }

    /// A string begins with these bytes.
    pub(super) fn note(&mut self, string: &[u8]) {
        match string {
            [first, second, third, ..] => {
                let (word, bit) = place([*first, *second, *third]);
                self.seen[word] |= bit;
            }
            // The rest of it has yet to arrive.
            _ => self.seen = [u64::MAX; 4],
        }
    }

    pub(super) fn note_escape(&mut self) {
        self.escapes = true;
    }

    /// Whether the body can bear this at all.
    pub fn may_bear(&self, mark: &Mark) -> bool {
        mark.has.iter().all(|text| match text.as_bytes() {
            [b'"', first, second, third, ..] => {
                let (word, bit) = place([*first, *second, *third]);
                self.seen[word] & bit != 0
            }
            [b'\\', ..] => self.escapes,
            _ => true,
        })
    }
}

/// A multiplicative hash, of which the upper eight bits are the best.
fn place([first, second, third]: [u8; 3]) -> (usize, u64) {
    let hash = u32::from_le_bytes([first, second, third, 0]).wrapping_mul(0x9e37_79b1);
    let [.., high] = hash.to_le_bytes();
    (usize::from(high >> 6), 1 << (high & 63))
}

#[cfg(test)]
mod tests {
    use super::super::Scanner;
    use super::*;
    use crate::dialect::marks::has;

    fn beginnings(body: &str, piece: usize) -> Beginnings {
        let mut scanner = Scanner::default();
        for piece in body.as_bytes().chunks(piece) {
            scanner.feed(piece).unwrap();
        }
        scanner.finish().unwrap().beginnings
    }

    #[test]
    fn what_a_body_bears_passes_however_it_arrives() {
        let body = r#"{"model":"m","a":{"file_id" : ["file-1",{"id":""}]},"b":"\u0066"}"#;
        for piece in 1..body.len() {
            let beginnings = beginnings(body, piece);
            for mark in [has(&["\"file_id"]), has(&["\"file-", "\"id\""]), has(&["\\u00"])] {
                assert!(beginnings.may_bear(&mark), "{mark:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn what_no_string_begins_with_is_told_without_a_search() {
        let body = r#"{"model":"m","messages":[{"role":"user","content":"a \"file_id\""}]}"#;
        let beginnings = beginnings(body, body.len());
        for mark in [has(&["\"file_id"]), has(&["\"rol", "\"sp1."]), has(&["\\u00"])] {
            assert!(!beginnings.may_bear(&mark), "{mark:?}");
        }
        assert!(beginnings.may_bear(&has(&["image"])), "not every mark is the beginning of one");
        assert!(Beginnings::default().may_bear(&has(&["\"file_id"])));
    }
}
