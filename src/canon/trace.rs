//! Where a call stands in its caller's trace, spelled as W3C Trace Context does.

use super::{CallId, Leg};

/// A longer `tracestate` is not passed on.
const LONGEST_STATE: usize = 512;
/// The bytes of a `traceparent`.
const PARENT: usize = 55;

/// The trace that a call belongs to, and by whom it was called there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    pub id: u128,
    /// The span that called; 0 where the trace begins here.
    pub parent: u64,
    /// That span is another process's.
    pub is_remote: bool,
    /// Whether the caller keeps its part of the trace; `None` where nobody has decided yet.
    pub sampled: Option<bool>,
    /// What others keep for themselves in the trace.
    pub state: Option<Box<str>>,
}

impl Trace {
    /// A trace that begins with this call: its id is the call's, so one leads to the other.
    pub fn begin(call: CallId) -> Self {
        let id = call.bits();
        Self { id, parent: 0, is_remote: false, sampled: None, state: None }
    }

    /// What a client's headers say; `None` where they make no sense.
    pub fn read(parent: &str, state: Option<&str>) -> Option<Self> {
        let parent = parent.trim();
        let bytes = parent.as_bytes();
        let version = hex(parent.get(..2)?)?;
        // Later versions may say more behind it; version 0 may not.
        let ends = bytes.len() == PARENT || (version > 0 && bytes.get(PARENT) == Some(&b'-'));
        let parted = [2, 35, 52].iter().all(|place| bytes.get(*place) == Some(&b'-'));
        if version == 0xff || !ends || !parted {
            return None;
        }
        let id = hex(parent.get(3..35)?).filter(|id| *id != 0)?;
        let span = u64::try_from(hex(parent.get(36..52)?)?).ok().filter(|span| *span != 0)?;
        let flags = hex(parent.get(53..55)?)?;
        let state = state.filter(|state| !state.is_empty() && state.len() <= LONGEST_STATE);
        Some(Self {
            id,
            parent: span,
            is_remote: true,
            sampled: Some(flags & 1 == 1),
            state: state.map(Into::into),
        })
    }

    /// The trace of a call that the gateway makes for the one of this span.
    #[must_use]
    pub fn below(&self, span: u64) -> Self {
        Self { parent: span, is_remote: false, ..self.clone() }
    }

    /// The `traceparent` of what is called from `span`.
    pub fn parent_of_next(&self, span: u64, sampled: bool) -> [u8; PARENT] {
        let mut written = [b'-'; PARENT];
        written[..2].copy_from_slice(b"00");
        write_hex(self.id, &mut written[3..35]);
        write_hex(span.into(), &mut written[36..52]);
        written[53..].copy_from_slice(if sampled { b"01" } else { b"00" });
        written
    }
}

/// The span of an attempt: drawn from the call's own by what no two attempts of it share, where it
/// went and when.
pub fn span_of_attempt(call: u64, leg: &Leg) -> u64 {
    let began = u64::try_from(leg.began.as_nanos()).unwrap_or(u64::MAX);
    span_below(call, began.rotate_left(16) ^ u64::from(leg.place))
}

/// The span of a guard that asks somebody. No attempt leaves so late.
pub fn span_of_guard(call: u64, number: u32) -> u64 {
    span_below(call, u64::MAX - u64::from(number))
}

/// The span of what is known by a number below another span: always the same for the same two.
pub fn span_below(span: u64, number: u64) -> u64 {
    // One step of SplitMix64, which mixes all bits.
    let step = number.wrapping_add(1);
    let mut mixed = span.wrapping_add(step.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)).max(1)
}

/// Lowercase digits only, as the standard has it.
fn hex(digits: &str) -> Option<u128> {
    let lowercase = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if !digits.bytes().all(lowercase) {
        return None;
    }
    u128::from_str_radix(digits, 16).ok()
}

fn write_hex(mut number: u128, into: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for digit in into.iter_mut().rev() {
        *digit = DIGITS[usize::from(number.to_le_bytes()[0] & 15)];
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_parent_is_read_and_written_as_it_was() {
        let trace = Trace::read(GIVEN, Some("congo=t61")).unwrap();
        assert_eq!(trace.id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!((trace.parent, trace.sampled), (0x00f0_67aa_0ba9_02b7, Some(true)));
        assert_eq!(trace.state.as_deref(), Some("congo=t61"));
        assert_eq!(trace.parent_of_next(trace.parent, true), *GIVEN.as_bytes());
        assert!(trace.parent_of_next(1, false).ends_with(b"-0000000000000001-00"));
    }

    #[test]
    fn a_later_version_may_say_more_and_version_0_may_not() {
        let later = GIVEN.replacen("00", "01", 1) + "-what-comes";
        assert!(Trace::read(&later, None).is_some());
        for wrong in [
            &format!("{GIVEN}-more"),
            &GIVEN.replacen("00", "ff", 1),
            &GIVEN.to_uppercase(),
            &GIVEN.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &GIVEN.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &GIVEN.replace('-', "_"),
            "00-é",
            "",
        ] {
            assert_eq!(Trace::read(wrong, None), None, "{wrong}");
        }
    }

    #[test]
    fn each_attempt_has_a_span_of_its_own() {
        let leg = |place, millis| Leg { place, began: Duration::from_millis(millis), system: "" };
        let legs = (0..10).flat_map(|place| (0..100).map(move |millis| leg(place, millis)));
        let spans: BTreeSet<u64> = legs.map(|leg| span_of_attempt(7, &leg)).collect();
        assert_eq!(spans.len(), 1000);
        assert!(!spans.contains(&0));
    }
}
