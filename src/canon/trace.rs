//! Where a call stands in its caller's trace, spelled as W3C Trace Context and Baggage do.

use super::{CallId, Leg};

/// A longer `tracestate` is not passed on, nor one with more members.
const LONGEST_STATE: usize = 512;
const MOST_STATES: usize = 32;
/// The same of `baggage`: what the standard wants passed on at least.
const LONGEST_BAGGAGE: usize = 8192;
const MOST_BAGS: usize = 64;
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

/// What those are told who are called for a client: its place in a trace, and what it wants them to
/// know. Nothing in it that is not spelled as the standards have it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Passed {
    parent: Option<Box<str>>,
    state: Option<Box<str>>,
    baggage: Option<Box<str>>,
}

impl Passed {
    /// What a client has said, as far as it makes sense.
    pub fn read(parent: Option<&str>, state: Option<&str>, baggage: Option<&str>) -> Self {
        let trace = parent.and_then(|parent| Trace::read(parent, state));
        Self {
            parent: parent.filter(|_| trace.is_some()).map(|parent| parent.trim().into()),
            state: trace.and_then(|trace| trace.state),
            baggage: baggage.and_then(baggage_of),
        }
    }

    /// What `span` of this trace says to those whom it calls.
    pub fn below(trace: &Trace, span: u64, baggage: Option<&str>) -> Self {
        let parent = trace.parent_of_next(span, trace.sampled == Some(true));
        Self {
            parent: Some(String::from_utf8_lossy(&parent).into()),
            state: trace.state.clone(),
            baggage: baggage.map(Into::into),
        }
    }

    /// The names are those of headers of HTTP, and of what stands beside requests of MCP.
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [
            ("traceparent", &self.parent),
            ("tracestate", &self.state),
            ("baggage", &self.baggage),
        ];
        all.into_iter().filter_map(|(name, said)| Some((name, said.as_deref()?)))
    }

    /// The place in the trace, and nothing that others have written.
    pub fn parent(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.fields().take(usize::from(self.parent.is_some()))
    }
}

/// What a client wants those to know who work for it, if it is spelled as W3C Baggage has it.
pub fn baggage_of(text: &str) -> Option<Box<str>> {
    let text = text.trim();
    let members = text.split(',').map(str::trim);
    let fits = text.len() <= LONGEST_BAGGAGE && members.clone().count() <= MOST_BAGS;
    (fits && members.clone().all(is_bag)).then(|| text.into())
}

/// `key=value`, and perhaps properties of it behind semicolons.
fn is_bag(member: &str) -> bool {
    let is_key = |key: &str| {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        !key.is_empty() && key.bytes().all(token)
    };
    let is_value = |value: &str| {
        value.bytes().all(|byte| byte.is_ascii_graphic() && !b"\",;\\".contains(&byte))
    };
    let pair = |text: &str| {
        let (key, value) = text.split_once('=')?;
        Some(is_key(key.trim()) && is_value(value.trim()))
    };
    let mut parts = member.split(';');
    let first = parts.next().unwrap_or_default();
    pair(first) == Some(true) && parts.all(|it| pair(it).unwrap_or_else(|| is_key(it.trim())))
}

/// Whether a `tracestate` is a list of `key=value`, as Trace Context has it.
fn is_state(text: &str) -> bool {
    let is_key = |key: &str| {
        let known = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/@".contains(&byte)
        };
        !key.is_empty() && key.bytes().all(known)
    };
    let is_value = |value: &str| {
        !value.is_empty() && value.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=')
    };
    let is_member = |member: &str| {
        let pair = member.split_once('=');
        member.is_empty() || pair.is_some_and(|(key, value)| is_key(key) && is_value(value))
    };
    let members = text.split(',').map(str::trim);
    text.len() <= LONGEST_STATE
        && members.clone().count() <= MOST_STATES
        && members.clone().any(|member| !member.is_empty())
        && members.clone().all(is_member)
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
        let state = state.filter(|state| is_state(state));
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
    fn a_state_that_is_no_list_of_pairs_is_not_passed_on() {
        let state = |text: &str| Trace::read(GIVEN, Some(text)).unwrap().state;
        for right in ["congo=t61", "a=1,,b@c=x y", " a=1 , b=2", "0k/_-*=~"] {
            assert_eq!(state(right).as_deref(), Some(right));
        }
        let (long, many) = (format!("a={}", "1".repeat(511)), vec!["a=1"; 33].join(","));
        for wrong in ["", ",", "congo", "Congo=1", "a=", "a=1=2", "a=\u{e9}", &long, &many] {
            assert_eq!(state(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn baggage_is_passed_on_whole_or_not_at_all() {
        for right in [
            "userId=alice,serverNode=DF%2028,isProduction=false",
            "key1=value1;property1;property2=x, key2 = value2",
            "empty=",
        ] {
            assert_eq!(baggage_of(right).as_deref(), Some(right));
        }
        let (long, many) = (format!("a={}", "1".repeat(8191)), vec!["a=1"; 65].join(","));
        for wrong in ["", "a", "a=1,", "a b=1", "a=\"1\"", "a=1 2", "a=\u{e9}", &long, &many] {
            assert_eq!(baggage_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_passed_on_has_no_state_without_a_trace() {
        let fields = |passed: &Passed| {
            let all = passed.fields().map(|(name, said)| format!("{name}: {said}"));
            all.collect::<Vec<_>>()
        };
        let all = Passed::read(Some(GIVEN), Some("congo=t61"), Some("a=1"));
        let expected = [&format!("traceparent: {GIVEN}"), "tracestate: congo=t61", "baggage: a=1"];
        assert_eq!(fields(&all), expected);
        assert_eq!(all.parent().collect::<Vec<_>>(), [("traceparent", GIVEN)]);
        let lost = Passed::read(Some("00-1-2-3"), Some("congo=t61"), Some("a=1"));
        assert_eq!(fields(&lost), ["baggage: a=1"]);
        assert_eq!(lost.parent().count(), 0);
    }

    #[test]
    fn each_attempt_has_a_span_of_its_own() {
        let leg =
            |place, millis| Leg { place, began: Duration::from_millis(millis), ..Leg::default() };
        let legs = (0..10).flat_map(|place| (0..100).map(move |millis| leg(place, millis)));
        let spans: BTreeSet<u64> = legs.map(|leg| span_of_attempt(7, &leg)).collect();
        assert_eq!(spans.len(), 1000);
        assert!(!spans.contains(&0));
    }
}
