//! Times and prices as the config writes them.

use serde_json::{Value as Json, json};

/// A time in seconds as a duration; `None` for what is none.
pub(super) fn seconds(seconds: f64) -> Option<String> {
    milliseconds(seconds * 1000.0)
}

pub(super) fn milliseconds(milliseconds: f64) -> Option<String> {
    if !(milliseconds > 0.0 && milliseconds <= 365.0 * 86_400_000.0) {
        return None;
    }
    let whole = format!("{milliseconds:.0}");
    Some(match whole.strip_suffix("000").filter(|seconds| !seconds.is_empty()) {
        Some(seconds) => format!("{seconds}s"),
        None => format!("{whole}ms"),
    })
}

/// A price of a token as one of a million tokens, without the crumbs of binary fractions.
pub(super) fn per_million(rate: f64) -> Json {
    let text = format!("{:.6}", rate * 1e6);
    decimal(&text)
}

/// A number with the digits that it is written with.
pub(super) fn decimal(text: &str) -> Json {
    let text =
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text };
    match text.parse::<u64>() {
        Ok(whole) => json!(whole),
        Err(_) => text.parse::<f64>().map_or_else(|_| json!(0), |number| json!(number)),
    }
}

/// Weights as whole numbers in the same proportion; none where all are alike.
pub(super) fn whole_weights(weights: impl Iterator<Item = f64> + Clone) -> Vec<Option<u64>> {
    let alike =
        weights.clone().zip(weights.clone().skip(1)).all(|(one, two)| one.total_cmp(&two).is_eq());
    let broken = weights.clone().any(|weight| weight.fract() != 0.0);
    let factor = if broken { 1000.0 } else { 1.0 };
    let whole =
        |weight: f64| format!("{:.0}", (weight * factor).clamp(0.0, 1_000_000.0)).parse().ok();
    weights.map(|weight| if alike { None } else { whole(weight) }).collect()
}

/// A target as a route names it.
pub(super) fn target(name: &str, weight: Option<u64>) -> Json {
    weight.map_or_else(|| json!(name), |weight| json!({"target": name, "weight": weight}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_prices_are_written_as_people_write_them() {
        assert_eq!(seconds(30.0).as_deref(), Some("30s"));
        assert_eq!(seconds(0.25).as_deref(), Some("250ms"));
        assert_eq!(seconds(0.0), None);
        assert_eq!(milliseconds(1000.0).as_deref(), Some("1s"));
        assert_eq!(per_million(0.000_002_5), json!(2.5));
        assert_eq!(per_million(0.000_03), json!(30));
        assert_eq!(per_million(0.0), json!(0));
        assert_eq!(decimal("100"), json!(100));
    }
}
