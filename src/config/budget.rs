//! `budget`: what may be spent in tokens and in money, and over which time.

use std::time::Duration;

use jiff::tz::{self, TimeZone};
use serde::Serialize;
use toml::de::DeValue;

use super::problem::suggestion;
use super::reader::{Field, Section, kind_of};
use super::value;
use crate::canon::{Money, Usage};

pub(super) const KEYS: &[&str] = &["tokens", "usd", "window", "timezone", "rolling", "soft"];
pub(super) const WEIGHT_KEYS: &[&str] = &["input", "cache_read", "cache_write", "output"];

/// More than anybody has, but far from overflow when many are added.
const MOST: u64 = 1_000_000_000_000_000;

/// So much in each window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    pub unit: Unit,
    /// In tokens or nano-dollars.
    pub limit: u64,
    pub window: Window,
    /// The window as it was written.
    pub label: String,
    /// The share, in thousandths, at which somebody is told.
    pub soft_permille: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    Tokens,
    /// Counted in nano-dollars.
    Usd,
}

/// Over which time spending is added up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Window {
    /// For ever: what is prepaid is gone when it is spent.
    Never,
    /// One window follows another, all between the same marks of the clock or calendar.
    Calendar(Every, TimeZone),
    /// The time until now, always as long.
    Rolling(Duration),
}

/// How long the windows are that follow one another, and from where they are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Every {
    /// Minutes and hours, from the beginning of 1970 in UTC.
    Seconds(u64),
    /// From local midnight to local midnight, counted from 1 January 1970.
    Days(u32),
    /// From Monday to Monday, counted from 29 December 1969.
    Weeks(u32),
    /// From the first to the first; counted from a January.
    Months(u32),
}

/// What a token of each class counts in limits and budgets, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weights {
    pub input: u32,
    pub cache_read: u32,
    pub cache_write: u32,
    pub output: u32,
}

// === impl Budget ===

impl Budget {
    /// Reads the `budget` of whoever may have one: a list of tables.
    pub(super) fn read(owner: &Section<'_>) -> Vec<Self> {
        let fields = owner.get("budget").and_then(|field| field.list()).unwrap_or_default();
        let mut budgets: Vec<Self> = Vec::new();
        for field in fields {
            let Some(budget) = Self::one(&field) else { continue };
            if budgets.iter().any(|other| other.counts_like(&budget)) {
                field.fail("there are two budgets of the same unit and window");
            }
            budgets.push(budget);
        }
        budgets
    }

    fn one(field: &Field<'_>) -> Option<Self> {
        let section = field.section(KEYS)?;
        let limit = limit(&section);
        let (label, window) = window(&section)?;
        let soft_permille = section.read("soft", |value| match value::permille(value)? {
            0 => Err("must be more than 0".to_owned()),
            share => Ok(share),
        });
        let (unit, limit) = limit?;
        Some(Self { unit, limit, window, label, soft_permille })
    }

    /// Whether what one has counted, the other has too.
    pub fn counts_like(&self, other: &Self) -> bool {
        self.unit == other.unit && self.window == other.window
    }
}

fn limit(section: &Section<'_>) -> Option<(Unit, u64)> {
    let (tokens, usd) = (section.get("tokens"), section.get("usd"));
    match (tokens, usd) {
        (Some(tokens), None) => {
            Some((Unit::Tokens, tokens.read(|value| value::whole(value, 1..=MOST))?))
        }
        (None, Some(usd)) => Some((Unit::Usd, usd.read(money)?)),
        (Some(_), Some(_)) | (None, None) => {
            section.report.problem(&section.path, "write either `tokens` or `usd`");
            None
        }
    }
}

/// Read from the digits as they stand, for a binary fraction is not what was written.
pub(super) fn money(value: &DeValue<'_>) -> Result<u64, String> {
    let digits = match value {
        DeValue::Float(number) => number.as_str(),
        DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
        _ => return Err(format!("must be an amount of USD, not {}", kind_of(value))),
    };
    let money: Money = digits.parse().map_err(|error| format!("{digits} {error}"))?;
    match money.nanos() {
        0 => Err("must be more than 0".to_owned()),
        nanos => Ok(nanos),
    }
}

// === impl Unit ===

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Usd => "usd",
        }
    }
}

// === impl Window ===

fn window(section: &Section<'_>) -> Option<(String, Window)> {
    let label = section.require("window")?.read(value::text);
    let zone = section.get("timezone");
    let rolling = section.get("rolling");
    let rolls = rolling.as_ref().and_then(|field| field.read(value::flag)).unwrap_or(false);
    let read_zone = zone.as_ref().and_then(|field| field.read(time_zone));
    let label = label?;
    let every = match label.as_str() {
        "none" => None,
        text => Some(section.read("window", |_| every(text))?),
    };
    let of_days = matches!(every, Some(Every::Days(_) | Every::Weeks(_) | Every::Months(_)));
    if let Some(zone) = zone
        && (rolls || !of_days)
    {
        zone.fail("belongs to windows of days, weeks and months that do not roll");
    }
    let window = match every {
        None if rolls => {
            rolling?.fail("a budget without a window cannot roll");
            return None;
        }
        None => Window::Never,
        Some(every) if rolls => {
            let Some(length) = every.fixed() else {
                rolling?.fail("months differ in length; write \"30d\"");
                return None;
            };
            Window::Rolling(length)
        }
        Some(every) => Window::Calendar(every, read_zone.unwrap_or(TimeZone::UTC)),
    };
    Some((label, window))
}

fn every(text: &str) -> Result<Every, String> {
    const WRONG: &str =
        "is not a window; write \"1h\", \"1d\", \"30d\", \"1w\", \"1mo\" or \"none\"";
    let wrong = || format!("{text:?} {WRONG}");
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(wrong)?;
    let (count, unit) = text.split_at(digits);
    let count: u32 = count.parse().map_err(|_| wrong())?;
    let (every, most) = match unit {
        "m" => (Every::Seconds(u64::from(count) * 60), 366 * 24 * 60),
        "h" => (Every::Seconds(u64::from(count) * 3600), 366 * 24),
        "d" => (Every::Days(count), 366),
        "w" => (Every::Weeks(count), 52),
        "mo" => (Every::Months(count), 12),
        _ => return Err(wrong()),
    };
    if (1..=most).contains(&count) {
        Ok(every)
    } else {
        Err(format!("must be 1{unit} to {most}{unit}"))
    }
}

fn time_zone(value: &DeValue<'_>) -> Result<TimeZone, String> {
    let name = value::text(value)?;
    TimeZone::get(&name).map_err(|_| {
        let known: Vec<String> =
            tz::db().available().map(|known| known.as_str().to_owned()).collect();
        let hint = suggestion(&name, known.iter().map(String::as_str));
        format!("no time zone is called \"{name}\"{hint}")
    })
}

// === impl Every ===

impl Every {
    /// Its length, unless that differs.
    fn fixed(self) -> Option<Duration> {
        let days = |days: u32| Duration::from_hours(24) * days;
        match self {
            Self::Seconds(seconds) => Some(Duration::from_secs(seconds)),
            Self::Days(count) => Some(days(count)),
            Self::Weeks(count) => Some(days(count * 7)),
            Self::Months(_) => None,
        }
    }
}

// === impl Weights ===

impl Weights {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let weight = |key| section.read(key, value::permille).unwrap_or(1000);
        Self {
            input: weight("input"),
            cache_read: weight("cache_read"),
            cache_write: weight("cache_write"),
            output: weight("output"),
        }
    }

    /// What a call with this usage counts, rounded once, upwards. Never more than all its tokens.
    pub fn count(&self, usage: &Usage) -> u64 {
        let classes = [
            (self.input, usage.input),
            (self.cache_read, usage.cache_read),
            (self.cache_write, usage.cache_write.saturating_add(usage.cache_write_long)),
            (self.output, usage.output),
        ];
        let weighted =
            classes.iter().map(|(weight, tokens)| u128::from(*weight) * u128::from(*tokens));
        u64::try_from(weighted.sum::<u128>().div_ceil(1000)).unwrap_or(u64::MAX)
    }
}

impl Default for Weights {
    fn default() -> Self {
        Self { input: 1000, cache_read: 1000, cache_write: 1000, output: 1000 }
    }
}
