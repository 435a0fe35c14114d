//! How single values are spelled: durations, sizes, addresses, names.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeValue;

use super::reader::kind_of;

const DURATION_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZE_UNITS: [(&str, u64); 4] =
    [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];

/// A share of 1 of calls that are drawn by chance, in its unit: millionths.
pub const ALL_CALLS: u32 = 1_000_000;

/// Deadlines are added to clock readings, so they must stay far from overflow.
const LONGEST: Duration = Duration::from_hours(365 * 24);

pub(super) fn text(value: &DeValue<'_>) -> Result<String, String> {
    match value.as_str() {
        Some("") => Err("must not be empty".to_owned()),
        Some(text) => Ok(text.to_owned()),
        None => Err(format!("must be text in \"quotes\", not {}", kind_of(value))),
    }
}

pub(super) fn flag(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("must be true or false, not {}", kind_of(value)))
}

pub(super) fn whole(value: &DeValue<'_>, range: RangeInclusive<u64>) -> Result<u64, String> {
    let number = integer(value).filter(|number| range.contains(number));
    number.ok_or_else(|| {
        let (low, high) = (range.start(), range.end());
        format!("must be a whole number from {low} to {high}, not {}", shown(value))
    })
}

/// A count that fits the machine, at least `least`.
pub(super) fn count(value: &DeValue<'_>, least: u64) -> Result<usize, String> {
    let most = u64::from(u32::MAX);
    usize::try_from(whole(value, least..=most)?).map_err(|error| error.to_string())
}

/// One of a few words.
pub(super) fn one_of<T: Copy>(value: &DeValue<'_>, words: &[(&str, T)]) -> Result<T, String> {
    let text = text(value)?;
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let words: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        format!("{text:?} is none of {}", words.join(", "))
    })
}

/// A share from 0 to 1, in thousandths.
pub(super) fn permille(value: &DeValue<'_>) -> Result<u32, String> {
    let written = share(value)?;
    // Counted out, since a cast would be one that could lose something.
    let steps = (0..=1000u32).rev();
    let below = |step: &u32| f64::from(*step) <= written.mul_add(1000.0, 1e-6);
    Ok(steps.into_iter().find(below).unwrap_or_default())
}

/// A share of many calls from 0 to 1, in millionths.
pub(super) fn sample(value: &DeValue<'_>) -> Result<u32, String> {
    let wrong = || "must be 0, or at least a millionth".to_owned();
    millionths(share(value)?).ok_or_else(wrong)
}

/// A share from 0 to 1, in millionths; `None` for what is none, or so small that it would be 0.
pub(super) fn millionths(share: f64) -> Option<u32> {
    let whole = Some(share).filter(|share| (0.0..=1.0).contains(share))?;
    let whole = format!("{:.0}", whole * f64::from(ALL_CALLS)).parse().ok()?;
    (whole > 0 || share == 0.0).then_some(whole)
}

/// A number from 0 to 1.
fn share(value: &DeValue<'_>) -> Result<f64, String> {
    let written = match value {
        DeValue::Float(float) => float.as_str().parse::<f64>().ok(),
        DeValue::Integer(_) => {
            integer(value).and_then(|whole| u32::try_from(whole).ok()).map(f64::from)
        }
        _ => None,
    };
    let wrong = || format!("{} is not a share; write a number from 0 to 1", shown(value));
    written.filter(|share| (0.0..=1.0).contains(share)).ok_or_else(wrong)
}

/// A duration longer than nothing: a deadline of zero would refuse everything.
pub(super) fn deadline(value: &DeValue<'_>) -> Result<Duration, String> {
    match pause(value)? {
        Duration::ZERO => Err("must be longer than 0".to_owned()),
        duration => Ok(duration),
    }
}

/// A duration that may be zero.
pub(super) fn pause(value: &DeValue<'_>) -> Result<Duration, String> {
    const EXAMPLES: &str = "\"250ms\", \"10s\", \"5m\", \"2h\" or \"1d\"";
    let wrong = || format!("{} is not a duration; write {EXAMPLES}", shown(value));
    let millis = value.as_str().and_then(|text| measure(text, &DURATION_UNITS));
    let duration = Duration::from_millis(millis.ok_or_else(wrong)?);
    if duration > LONGEST { Err("must be at most 365d".to_owned()) } else { Ok(duration) }
}

pub(super) fn size(value: &DeValue<'_>) -> Result<usize, String> {
    const EXAMPLES: &str = "\"512KiB\", \"64MiB\", \"1GiB\", or a number of bytes";
    let bytes = match value.as_str() {
        Some(text) => measure(text, &SIZE_UNITS),
        None => integer(value),
    };
    let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok());
    match bytes {
        Some(0) => Err("must be more than 0".to_owned()),
        Some(bytes) => Ok(bytes),
        None => Err(format!("{} is not a size; write {EXAMPLES}", shown(value))),
    }
}

pub(super) fn address(value: &DeValue<'_>) -> Result<SocketAddr, String> {
    text(value)?.parse().map_err(|_| {
        let value = shown(value);
        format!("{value} is not an address; write an IP and a port, as in \"127.0.0.1:4000\"")
    })
}

/// An absolute http or https URL to which paths can be appended. Credentials are refused,
/// because addresses are logged and secrets are not.
pub(super) fn url(value: &DeValue<'_>) -> Result<String, String> {
    let text = text(value)?;
    // Not repeated here, for what is no URL may well be a secret in the wrong place.
    let wrong = || "is not a URL; write one as in \"https://api.example.com/v1\"".to_owned();
    let uri: http::Uri = text.parse().map_err(|_| wrong())?;
    let authority = uri.authority().filter(|authority| !authority.host().is_empty());
    match (uri.scheme_str(), authority) {
        (Some("http" | "https"), Some(authority)) if authority.as_str().contains('@') => {
            Err("must not contain a user name or password".to_owned())
        }
        (Some("http" | "https"), Some(_)) if text.contains(['?', '#']) => {
            Err("must not contain a query or a fragment".to_owned())
        }
        (Some("http" | "https"), Some(_)) => Ok(text),
        _ => Err(wrong()),
    }
}

/// The digest in `sha256:<64 hex digits>`.
pub(super) fn digest(value: &DeValue<'_>) -> Result<[u8; 32], String> {
    const SPELLING: &str = "must be \"sha256:\" and 64 hex digits";
    let text = text(value)?;
    let hex = text.strip_prefix("sha256:").unwrap_or_default();
    let digits: Vec<u8> = hex
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .filter_map(|digit| u8::try_from(digit).ok())
        .collect();
    if hex.len() != 64 || digits.len() != 64 {
        return Err(SPELLING.to_owned());
    }
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    bytes.try_into().map_err(|_| SPELLING.to_owned())
}

/// Whether a provider, route or key may be called this.
pub fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !name.is_empty() && name.chars().all(allowed)
}

fn measure(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn integer(value: &DeValue<'_>) -> Option<u64> {
    let integer = value.as_integer()?;
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// The value as the operator wrote it, as far as that helps.
fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => kind_of(value).to_owned(),
    }
}
