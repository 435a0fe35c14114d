//! Which window of a calendar a point in time lies in: computed, so that nothing has to reset it.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use crate::config::{Every, Window};

/// From `start` to before `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
}

const FIRST: Date = Date::constant(1970, 1, 1);
/// From a Monday to the first of January 1970.
const INTO_THE_WEEK: i64 = 3;

// === impl Frame ===

impl Frame {
    const FOR_EVER: Self = Self { start: Timestamp::MIN, end: Timestamp::MAX };

    /// The window around `now`. One that rolls has no marks, and what is prepaid no end.
    pub(super) fn around(window: &Window, now: Timestamp) -> Self {
        match window {
            Window::Never | Window::Rolling(_) => Self::FOR_EVER,
            Window::Calendar(Every::Seconds(seconds), _) => Self::of_seconds(*seconds, now),
            Window::Calendar(every, zone) => Self::of_days(*every, zone, now),
        }
    }

    /// Whether it comes to an end at all.
    pub(super) fn ends(&self) -> bool {
        self.end < Timestamp::MAX
    }

    /// Whether `now` is not behind it, and if before it then by less than its length: threads do not
    /// agree to the moment, and clocks are corrected.
    pub(super) fn keeps(&self, now: Timestamp) -> bool {
        let length = || self.end.duration_since(self.start);
        now < self.end
            && (now >= self.start
                || self.start.checked_sub(length()).is_ok_and(|earliest| now >= earliest))
    }

    /// Larger for a later window; 0 for the only one.
    pub(super) fn number(&self) -> i64 {
        if self.ends() { self.start.as_second() } else { 0 }
    }

    fn of_seconds(seconds: u64, now: Timestamp) -> Self {
        let length = i64::try_from(seconds).unwrap_or(i64::MAX).max(1);
        let start = now.as_second().div_euclid(length).saturating_mul(length);
        let at = |second, or| Timestamp::from_second(second).unwrap_or(or);
        Self {
            start: at(start, Timestamp::MIN),
            end: at(start.saturating_add(length), Timestamp::MAX),
        }
    }

    /// A day begins at the first instant that bears its date. Where clocks go back over midnight
    /// a date comes twice, and belongs to the window that has begun.
    fn of_days(every: Every, zone: &TimeZone, now: Timestamp) -> Self {
        let (from, to) = dates(every, zone.to_datetime(now).date());
        let frame = Self { start: first_instant(from, zone), end: first_instant(to, zone) };
        if now < frame.end || !frame.ends() {
            return frame;
        }
        let (_, after) = dates(every, to);
        Self { start: frame.end, end: first_instant(after, zone) }
    }
}

/// The first date of the window that has `date` in it, and the first of the next.
fn dates(every: Every, date: Date) -> (Date, Date) {
    match every {
        Every::Seconds(_) => (date, date),
        Every::Days(count) => of_so_many_days(i64::from(count), 0, date),
        Every::Weeks(count) => of_so_many_days(i64::from(count) * 7, INTO_THE_WEEK, date),
        Every::Months(count) => {
            let count = i64::from(count).max(1);
            let into =
                (i64::from(date.year()) * 12 + i64::from(date.month()) - 1).rem_euclid(count);
            let from = date.first_of_month().saturating_sub(into.months());
            (from, from.saturating_add(count.months()))
        }
    }
}

fn of_so_many_days(count: i64, shift: i64, date: Date) -> (Date, Date) {
    let count = count.max(1);
    let day = date.duration_since(FIRST).as_hours() / 24;
    let from = date.saturating_sub((day + shift).rem_euclid(count).days());
    (from, from.saturating_add(count.days()))
}

/// Midnight, or what comes instead where clocks skip it.
fn first_instant(date: Date, zone: &TimeZone) -> Timestamp {
    let noon = date.at(12, 0, 0, 0);
    let start = zone.to_zoned(noon).and_then(|noon| noon.start_of_day());
    let far = if date < FIRST { Timestamp::MIN } else { Timestamp::MAX };
    start.map_or(far, |start| start.timestamp())
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use proptest::prelude::*;

    use super::*;

    const ZONES: [&str; 10] = [
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "America/Sao_Paulo",
        "America/St_Johns",
        "America/Havana",
        "Asia/Kathmandu",
        "Australia/Lord_Howe",
        "Africa/Cairo",
        "Pacific/Apia",
    ];

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn frame(every: Every, zone_name: &str, now: &str) -> (String, String) {
        let frame = Frame::around(&Window::Calendar(every, zone(zone_name)), at(now));
        let shown =
            |at: Timestamp| at.display_with_offset(zone(zone_name).to_offset(at)).to_string();
        (shown(frame.start), shown(frame.end))
    }

    fn between(start: &str, end: &str) -> (String, String) {
        (start.to_owned(), end.to_owned())
    }

    #[test]
    fn a_day_lasts_from_midnight_to_midnight_of_its_zone_even_when_clocks_change() {
        let day = |now| frame(Every::Days(1), "Europe/Berlin", now);
        let usual = between("2026-11-21T00:00:00+01:00", "2026-11-22T00:00:00+01:00");
        assert_eq!(day("2026-11-20T23:00:00Z"), usual);
        assert_eq!(day("2026-11-21T22:59:59.999Z"), usual);
        let of_23_hours = between("2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00");
        assert_eq!(day("2026-03-29T21:30:00Z"), of_23_hours);
        let of_25_hours = between("2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00");
        assert_eq!(day("2026-10-25T22:30:00Z"), of_25_hours);
    }

    #[test]
    fn a_day_without_midnight_begins_with_its_first_instant() {
        let day = frame(Every::Days(1), "America/Sao_Paulo", "2018-11-04T12:00:00Z");
        assert_eq!(day, between("2018-11-04T01:00:00-02:00", "2018-11-05T00:00:00-02:00"));
        let day = frame(Every::Days(1), "Africa/Cairo", "2026-04-24T12:00:00Z");
        assert_eq!(day, between("2026-04-24T01:00:00+03:00", "2026-04-25T00:00:00+03:00"));
    }

    #[test]
    fn a_midnight_that_comes_twice_begins_one_day() {
        // At 00:01 clocks went back to 23:01 of the day before.
        let day = |now| frame(Every::Days(1), "America/St_Johns", now);
        let (_, end) = day("2006-10-29T02:00:00Z");
        assert_eq!(end, "2006-10-29T00:00:00-02:30");
        assert_eq!(day("2006-10-29T02:30:30Z"), day("2006-10-29T02:45:00Z"));
        assert_eq!(day("2006-10-29T02:30:30Z"), day("2006-10-29T12:00:00Z"));
    }

    #[test]
    fn weeks_begin_on_monday_months_on_the_first_and_days_are_counted_from_1970() {
        let week = frame(Every::Weeks(1), "Europe/Berlin", "2026-11-22T22:59:59Z");
        assert_eq!(week, between("2026-11-16T00:00:00+01:00", "2026-11-23T00:00:00+01:00"));
        let month = frame(Every::Months(1), "Europe/Berlin", "2026-10-31T23:00:00Z");
        assert_eq!(month, between("2026-11-01T00:00:00+01:00", "2026-12-01T00:00:00+01:00"));
        let quarter = frame(Every::Months(3), "UTC", "2026-11-21T00:00:00Z");
        assert_eq!(quarter, between("2026-10-01T00:00:00+00:00", "2027-01-01T00:00:00+00:00"));
        let days = frame(Every::Days(30), "UTC", "1970-01-30T23:59:59Z");
        assert_eq!(days, between("1970-01-01T00:00:00+00:00", "1970-01-31T00:00:00+00:00"));
        let days = frame(Every::Days(30), "UTC", "1969-12-31T23:59:59Z");
        assert_eq!(days, between("1969-12-02T00:00:00+00:00", "1970-01-01T00:00:00+00:00"));
        let hour = frame(Every::Seconds(3600), "UTC", "2026-11-21T09:59:59Z");
        assert_eq!(hour, between("2026-11-21T09:00:00+00:00", "2026-11-21T10:00:00+00:00"));
    }

    fn every() -> impl Strategy<Value = Every> {
        prop_oneof![
            (1..200_000u64).prop_map(Every::Seconds),
            (1..=366u32).prop_map(Every::Days),
            (1..=52u32).prop_map(Every::Weeks),
            (1..=12u32).prop_map(Every::Months),
        ]
    }

    proptest! {
        #[test]
        fn every_instant_lies_in_one_window_and_windows_touch(
            every in every(),
            zone_name in prop::sample::select(&ZONES[..]),
            second in 0..4_000_000_000i64,
        ) {
            let window = Window::Calendar(every, zone(zone_name));
            let now = Timestamp::from_second(second).unwrap();
            let frame = Frame::around(&window, now);
            prop_assert!(frame.start <= now && now < frame.end, "{frame:?}");
            let last = frame.end - SignedDuration::from_nanos(1);
            prop_assert_eq!(Frame::around(&window, frame.start), frame);
            prop_assert_eq!(Frame::around(&window, last), frame);
            let next = Frame::around(&window, frame.end);
            prop_assert_eq!(next.start, frame.end);
        }

        #[test]
        fn no_instant_is_too_far_away(every in every(), second in -377_705_000_000..253_400_000_000i64) {
            let now = Timestamp::from_second(second).unwrap();
            let frame = Frame::around(&Window::Calendar(every, zone("Europe/Berlin")), now);
            prop_assert!(frame.start <= now && now <= frame.end, "{frame:?}");
        }
    }
}
