//! Tells the time and calculates with dates, in any time zone.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{RoundMode, Span, SpanRound, Timestamp, Unit, Zoned, ZonedDifference};
use serde_json::{Value, json};

use super::text;

const UNITS: [(&str, Unit); 7] = [
    ("years", Unit::Year),
    ("months", Unit::Month),
    ("weeks", Unit::Week),
    ("days", Unit::Day),
    ("hours", Unit::Hour),
    ("minutes", Unit::Minute),
    ("seconds", Unit::Second),
];

pub(super) fn schema() -> Value {
    let time = json!({
        "type": "string",
        "maxLength": 80,
        "description": "RFC 3339, a date, a date and time, or `now`",
    });
    json!({
        "type": "object",
        "required": ["operation"],
        "additionalProperties": false,
        "properties": {
            "operation": {"enum": ["now", "add", "diff", "convert"]},
            "time": time,
            "until": time,
            "duration": {
                "type": "string",
                "maxLength": 80,
                "description": "for `add`: \"3 days\", \"-2 weeks\", \"1 month 4 hours\" or ISO 8601 \"P1DT2H\"",
            },
            "unit": {"enum": UNITS.map(|(name, _)| name), "description": "of `diff`; days, if absent"},
            "zone": {
                "type": "string",
                "maxLength": 60,
                "description": "of the result, and of times without one: \"Europe/Berlin\"; UTC, if absent",
            },
            "format": {
                "type": "string",
                "maxLength": 80,
                "description": "as strftime has it, for example \"%A, %d %B %Y\"",
            },
        },
    })
}

pub(super) fn run(args: &Value) -> Result<Value, String> {
    let zone = match text(args, "zone") {
        "" => TimeZone::UTC,
        name => TimeZone::get(name).map_err(|_| format!("the time zone {name:?} is not known"))?,
    };
    let now = Timestamp::now().to_zoned(zone.clone());
    answer(args, &now, &zone)
}

fn answer(args: &Value, now: &Zoned, zone: &TimeZone) -> Result<Value, String> {
    let time = |name: &str| match text(args, name) {
        "" | "now" => Ok(now.clone()),
        written => read(written, zone),
    };
    match text(args, "operation") {
        "now" => show(now, args),
        "convert" => show(&time("time")?, args),
        "add" => {
            let written = text(args, "duration");
            let wrong = |_| format!("{written:?} is no duration; write \"3 days\" or \"P3D\"");
            let span: Span = written.parse().map_err(wrong)?;
            let moved = time("time")?.checked_add(span);
            show(&moved.map_err(|_| "the result is beyond the calendar".to_owned())?, args)
        }
        _ => difference(&time("time")?, &time("until")?, text(args, "unit")),
    }
}

fn difference(from: &Zoned, until: &Zoned, unit: &str) -> Result<Value, String> {
    let (name, unit) = *UNITS.iter().find(|(name, _)| *name == unit).unwrap_or(&UNITS[3]);
    let wrong = |_| "the difference cannot be told".to_owned();
    let whole = ZonedDifference::new(until).largest(Unit::Year).mode(RoundMode::Trunc);
    let span = from.until(whole).map_err(wrong)?;
    let total = span.total((unit, from)).map_err(wrong)?;
    let short = SpanRound::new().largest(Unit::Year).smallest(Unit::Second).relative(from);
    let span = span.round(short).map_err(wrong)?;
    let total = (total * 1e6).round() / 1e6;
    Ok(json!({"difference": total, "unit": name, "duration": span.to_string()}))
}

fn show(time: &Zoned, args: &Value) -> Result<Value, String> {
    let mut shown = json!({
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
        "zone": time.time_zone().iana_name().unwrap_or("UTC"),
        "weekday": time.strftime("%A").to_string(),
        "unix": time.timestamp().as_second(),
    });
    let format = text(args, "format");
    if !format.is_empty() {
        let written = jiff::fmt::strtime::format(format, time);
        let written = written.map_err(|_| format!("{format:?} is no format of strftime"))?;
        shown["formatted"] = Value::from(written);
    }
    Ok(shown)
}

/// Fewer are a date, or a part of one.
const DIGITS_OF_UNIX: usize = 9;

/// A time that says its zone keeps its instant; one that does not is meant in `zone`.
fn read(written: &str, zone: &TimeZone) -> Result<Zoned, String> {
    let local = |time: DateTime| time.to_zoned(zone.clone()).ok();
    let digits = written.trim_start_matches('-').len();
    let unix = || Timestamp::from_second(written.parse().ok()?).ok();
    let unix = || unix().filter(|_| digits >= DIGITS_OF_UNIX);
    let found = (written.parse::<Timestamp>().ok())
        .or_else(|| written.parse::<Zoned>().ok().map(|time| time.timestamp()))
        .or_else(|| jiff::fmt::rfc2822::parse(written).ok().map(|time| time.timestamp()))
        .or_else(unix)
        .map(|time| time.to_zoned(zone.clone()))
        .or_else(|| written.parse::<DateTime>().ok().and_then(local))
        .or_else(|| written.parse::<Date>().ok().and_then(|it| local(it.at(0, 0, 0, 0))));
    found
        .ok_or_else(|| format!("{written:?} is no time; write one as in 2026-03-29T14:30:00+02:00"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(args: &Value) -> Result<Value, String> {
        let zone = match text(args, "zone") {
            "" => TimeZone::UTC,
            name => TimeZone::get(name).unwrap(),
        };
        let now = "2026-03-28T12:00:00Z".parse::<Timestamp>().unwrap().to_zoned(zone.clone());
        answer(args, &now, &zone)
    }

    #[test]
    fn the_time_is_told_in_a_zone() {
        let now = at(&json!({"operation": "now", "zone": "Asia/Tokyo"})).unwrap();
        assert_eq!(now["time"], "2026-03-28T21:00:00+09:00");
        assert_eq!((&now["weekday"], &now["zone"]), (&json!("Saturday"), &json!("Asia/Tokyo")));
        let shown = at(&json!({"operation": "now", "format": "%d %B %Y"})).unwrap();
        assert_eq!(shown["formatted"], "28 March 2026");
    }

    #[test]
    fn a_day_later_is_the_same_hour_where_clocks_change() {
        let args = json!({"operation": "add", "duration": "1 day", "zone": "Europe/Berlin"});
        assert_eq!(at(&args).unwrap()["time"], "2026-03-29T13:00:00+02:00");
        let args = json!({"operation": "add", "duration": "24h", "zone": "Europe/Berlin"});
        assert_eq!(at(&args).unwrap()["time"], "2026-03-29T14:00:00+02:00");
        let args = json!({"operation": "add", "time": "2026-01-31", "duration": "1 month"});
        assert_eq!(at(&args).unwrap()["time"], "2026-02-28T00:00:00+00:00");
    }

    #[test]
    fn times_are_told_apart_in_units() {
        let diff = |time: &str, until: &str, unit: &str| {
            let args = json!({"operation": "diff", "time": time, "until": until, "unit": unit});
            at(&args).unwrap()["difference"].clone()
        };
        assert_eq!(diff("2026-01-01", "2026-12-25", "days"), json!(358.0));
        assert_eq!(diff("2026-01-01T00:00:00Z", "2026-01-01T01:30:00Z", "hours"), json!(1.5));
        assert_eq!(diff("2026-12-25", "2026-01-01", "days"), json!(-358.0));
        assert_eq!(diff("2020-07-01", "2026-07-01", "years"), json!(6.0));
    }

    #[test]
    fn times_are_read_as_they_are_commonly_written() {
        for written in [
            "2026-03-28T12:00:00Z",
            "2026-03-28T13:00:00+01:00",
            "1774699200",
            "2026-03-28T12:00:00+00:00[UTC]",
            "Sat, 28 Mar 2026 12:00:00 +0000",
            "2026-03-28 12:00",
            "2026-03-28T12:00:00",
            "now",
        ] {
            let read = at(&json!({"operation": "convert", "time": written}));
            assert_eq!(read.unwrap()["unix"], 1_774_699_200, "{written}");
        }
    }

    #[test]
    fn digits_are_a_date_before_they_are_seconds() {
        let at = |time: &str| {
            at(&json!({"operation": "convert", "time": time})).unwrap()["time"].clone()
        };
        assert_eq!(at("20260328"), "2026-03-28T00:00:00+00:00");
        assert_eq!(at("-100000000"), "1966-10-31T14:13:20+00:00");
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for bad in [
            json!({"operation": "convert", "time": "2026"}),
            json!({"operation": "convert", "time": "20261328"}),
            json!({"operation": "convert", "time": "tomorrow-ish"}),
            json!({"operation": "add", "duration": "a while"}),
            json!({"operation": "add", "duration": "9000 years", "time": "9990-01-01"}),
            json!({"operation": "now", "format": "%!"}),
        ] {
            assert!(at(&bad).is_err(), "{bad}");
        }
        assert!(run(&json!({"operation": "now", "zone": "Middle/Earth"})).is_err());
    }
}
