//! A config on trial, as operators order it and see it.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::config::Fields;
use super::ledger::time;
use crate::config;
use crate::error::Error;
use crate::gateway::trial::{Sticky, Terms, Trial, WHOLE};
use crate::route::condition::{FIGURES, Figures, Watch};

/// What is tried unless the order says otherwise.
const LASTS: Duration = Duration::from_mins(10);
const LEAST: u64 = 20;

const KNOWN: &[&str] = &["share", "for", "rollback_on", "min_requests", "sticky"];

/// What the order says of the trial.
pub(super) fn terms(written: &Map<String, Value>) -> Result<Terms, Error> {
    let fields = Fields(written).knowing(KNOWN)?;
    let share = fields.get("share").and_then(share).ok_or_else(|| {
        Error::invalid("`share` is how many of the calls try the config, as in \"5%\".")
    })?;
    let lasts = match fields.word("for")? {
        Some(text) => config::duration(text).map_err(|wrong| wrong_in("for", &wrong))?,
        None => LASTS,
    };
    if lasts.is_zero() {
        return Err(wrong_in("for", "must be longer than nothing"));
    }
    let rollback_on = fields.word("rollback_on")?.map(Watch::compile).transpose();
    let sticky = match fields.word("sticky")? {
        None => Sticky::Session,
        Some(name) => {
            let found = Sticky::ALL.into_iter().find(|sticky| sticky.name() == name);
            found.ok_or_else(|| wrong_in("sticky", "is `session`, `key` or `call`"))?
        }
    };
    Ok(Terms {
        share,
        lasts,
        sticky,
        rollback_on: rollback_on.map_err(|wrong| wrong_in("rollback_on", &wrong))?,
        least: fields.number("min_requests")?.unwrap_or(LEAST),
    })
}

fn wrong_in(name: &str, message: &str) -> Error {
    Error::invalid(format!("`canary.{name}`: {message}."))
}

/// `"5%"`, or a fraction of one, in hundredths of a percent.
fn share(value: &Value) -> Option<u32> {
    let part = match value {
        Value::String(text) => text.trim().strip_suffix('%')?.trim().parse::<f64>().ok()? / 100.0,
        value => value.as_f64()?,
    };
    let whole = f64::from(WHOLE);
    let found = (1..=WHOLE).find(|share| f64::from(*share) / whole >= part - 0.5 / whole);
    found.filter(|_| part > 0.0 && part <= 1.0)
}

pub(super) fn shown(trial: &Trial) -> Value {
    let (tried, baseline) = trial.figures();
    let terms = &trial.terms;
    json!({
        "generation": trial.generation(),
        "share": f64::from(terms.share) / f64::from(WHOLE),
        "since": time(trial.since),
        "until": time(trial.since + terms.lasts),
        "by": trial.by,
        "sticky": terms.sticky.name(),
        "rollback_on": terms.rollback_on.as_ref().map(Watch::source),
        "min_requests": terms.least,
        "canary": told(&tried),
        "baseline": told(&baseline),
    })
}

fn told(figures: &Figures) -> Value {
    let figures = FIGURES.iter().zip(figures);
    Value::Object(figures.map(|(name, figure)| ((*name).to_owned(), json!(figure))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_percentage_or_a_fraction() {
        for (written, expected) in [
            (json!("5%"), Some(500)),
            (json!("0.5 %"), Some(50)),
            (json!("100%"), Some(WHOLE)),
            (json!(0.25), Some(2500)),
            (json!("0.001%"), Some(1)),
            (json!("0%"), None),
            (json!("101%"), None),
            (json!("5"), None),
            (json!(null), None),
        ] {
            assert_eq!(share(&written), expected, "{written}");
        }
    }
}
