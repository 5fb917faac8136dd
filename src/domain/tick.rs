//! When a worker looks for work: a cron expression in a zone.
//!
//! A tick decides only when to look; what is due is decided by the database. So a missed tick is a delay, and a double one
//! does nothing. Ticks are evaluated on wall time without a zone, and put on the time line here, because the `cron` crate
//! skips ticks in a DST gap, repeats them in an overlap and may answer with a time in the past.

use std::str::FromStr;

use chrono::{DateTime, Offset, TimeZone, Utc};
use chrono_tz::Tz;
use cron::{Schedule, TimeUnitSpec};

use crate::domain::calendar;

/// The ticks of one worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tick {
    expression: String,
    schedule: Schedule,
    zone: Tz,
}

/// A text that is not a usable cron expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TickError {
    /// Neither five nor six fields, nor a known `@` word.
    #[error(
        "\"{0}\" is not a cron expression; write six fields (second minute hour day month weekday), five (without the second), or one of @hourly, @daily, @weekly, @monthly, @yearly"
    )]
    Fields(String),
    /// A weekday field that does not name days of the week.
    #[error("\"{0}\" does not name weekdays; write 0-7 (0 and 7 are Sunday), sun-sat, or *")]
    Weekday(String),
    /// A day of the month and a weekday at once: programs disagree on whether both must match or either.
    #[error("\"{0}\" restricts both the day of the month and the weekday; leave one of them *")]
    BothDays(String),
    /// A field that the `cron` crate cannot read.
    #[error("couldn't read the cron expression \"{expression}\": {reason}")]
    Malformed {
        /// What was written.
        expression: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A date that no calendar has, such as 30 February.
    #[error("\"{0}\" never comes: no calendar has that date")]
    Never(String),
}

impl Tick {
    /// Reads five fields (minute first), six fields (second first), or `@hourly`, `@daily`, `@weekly`, `@monthly`,
    /// `@yearly`. Weekdays are counted as in Vixie cron: 0 and 7 are Sunday.
    ///
    /// # Errors
    /// [`TickError`], when the text is none of these or never comes.
    pub fn new(expression: &str, zone: Tz) -> Result<Self, TickError> {
        let fields: Vec<&str> = match expression.trim() {
            "@hourly" => vec!["0", "0", "*", "*", "*", "*"],
            "@daily" => vec!["0", "0", "0", "*", "*", "*"],
            "@weekly" => vec!["0", "0", "0", "*", "*", "0"],
            "@monthly" => vec!["0", "0", "0", "1", "*", "*"],
            "@yearly" => vec!["0", "0", "0", "1", "1", "*"],
            text if text.split_whitespace().count() == 5 => std::iter::once("0")
                .chain(text.split_whitespace())
                .collect(),
            text => text.split_whitespace().collect(),
        };
        let &[second, minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(TickError::Fields(expression.to_owned()));
        };
        let weekdays = weekdays(weekday)?;
        if weekdays != "*" && !matches!(day, "*" | "?") {
            return Err(TickError::BothDays(expression.to_owned()));
        }
        let line = [second, minute, hour, day, month, &weekdays].join(" ");
        let schedule = Schedule::from_str(&line).map_err(|error| TickError::Malformed {
            expression: expression.to_owned(),
            reason: one_line(&error.to_string()),
        })?;
        if schedule.after(&DateTime::UNIX_EPOCH).next().is_none() {
            return Err(TickError::Never(expression.to_owned()));
        }
        Ok(Self {
            expression: expression.trim().to_owned(),
            schedule,
            zone,
        })
    }

    /// As it was written.
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// The first tick after `now`: later than `now`, whatever the clocks of the zone do. `None` after the year 2100.
    ///
    /// A tick that falls into a DST gap comes at the first valid time after it, one that falls into an overlap at the first
    /// occurrence only. An expression that is meant for every hour of every day goes on through gaps and overlaps alike,
    /// without a pause and without a repetition in real time.
    pub fn next_after(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        if self.is_every_hour() {
            let offset = self.zone.offset_from_utc_datetime(&now.naive_utc()).fix();
            let wall = now.with_timezone(&offset).naive_local().and_utc();
            let tick = self.schedule.after(&wall).next()?;
            return offset
                .from_local_datetime(&tick.naive_utc())
                .single()
                .map(|tick| tick.with_timezone(&Utc));
        }
        let wall = now.with_timezone(&self.zone).naive_local().and_utc();
        self.schedule
            .after(&wall)
            .map(|tick| calendar::instant(self.zone, tick.naive_utc()))
            .find(|tick| *tick > now)
    }

    fn is_every_hour(&self) -> bool {
        self.schedule.hours().is_all()
            && self.schedule.days_of_month().is_all()
            && self.schedule.months().is_all()
            && self.schedule.days_of_week().is_all()
    }
}

/// The weekday field with names instead of numbers, which the `cron` crate counts from Sunday = 1.
fn weekdays(field: &str) -> Result<String, TickError> {
    const NAMES: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
    let mut chosen = [false; 7];
    for item in field.split(',') {
        for day in weekdays_of_item(item).ok_or_else(|| TickError::Weekday(field.to_owned()))? {
            chosen[day % 7] = true;
        }
    }
    if chosen.iter().all(|chosen| *chosen) {
        return Ok("*".to_owned());
    }
    let names: Vec<&str> = NAMES
        .into_iter()
        .zip(chosen)
        .filter_map(|(name, chosen)| chosen.then_some(name))
        .collect();
    Ok(names.join(","))
}

/// The days of `*`, `3`, `fri`, `1-5`, `fri-sun`, `*/2` or `1-5/2`, counted from Sunday = 0, where Sunday may also be 7.
fn weekdays_of_item(item: &str) -> Option<Vec<usize>> {
    let (days, step) = match item.split_once('/') {
        Some((days, step)) => (
            days,
            step.parse().ok().filter(|step| (1..=7).contains(step))?,
        ),
        None => (item, 1),
    };
    let (first, last) = match days.split_once('-') {
        Some((first, last)) => (weekday(first)?, weekday(last)?),
        None if matches!(days, "*" | "?") => (0, 6),
        // A step counts through a range; from a single day it would count to nowhere.
        None if step > 1 => return None,
        None => (weekday(days)?, weekday(days)?),
    };
    let last = if last == 0 && first > 0 { 7 } else { last };
    (first <= last).then(|| (first..=last).step_by(step).collect())
}

/// A day counted from Sunday = 0; the number 7 stays 7, so that it can end a range.
fn weekday(text: &str) -> Option<usize> {
    match text.to_ascii_lowercase().as_str() {
        "0" | "sun" | "sunday" => Some(0),
        "1" | "mon" | "monday" => Some(1),
        "2" | "tue" | "tuesday" => Some(2),
        "3" | "wed" | "wednesday" => Some(3),
        "4" | "thu" | "thursday" => Some(4),
        "5" | "fri" | "friday" => Some(5),
        "6" | "sat" | "saturday" => Some(6),
        "7" => Some(7),
        _ => None,
    }
}

/// The parser draws a caret under the mistake on lines of their own; a message is one line.
fn one_line(text: &str) -> String {
    text.lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty())
        .unwrap_or("not readable")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use chrono::{TimeDelta, Timelike};
    use chrono_tz::Europe::Warsaw;
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn ticks(expression: &str, zone: Tz, from: &str, count: usize) -> Vec<String> {
        let tick = Tick::new(expression, zone).unwrap();
        let mut now = at(from);
        (0..count)
            .map(|_| {
                now = tick.next_after(now).unwrap();
                now.with_timezone(&zone)
                    .format("%a %Y-%m-%dT%H:%M:%S%:z")
                    .to_string()
            })
            .collect()
    }

    #[test]
    fn five_fields_six_fields_and_words_are_read() {
        for (expression, tick) in [
            ("30 6 * * *", "Sun 2027-01-03T06:30:00+01:00"),
            ("5 30 6 * * *", "Sun 2027-01-03T06:30:05+01:00"),
            ("*/10 * * * * *", "Sun 2027-01-03T01:00:10+01:00"),
            ("@hourly", "Sun 2027-01-03T02:00:00+01:00"),
            ("@daily", "Mon 2027-01-04T00:00:00+01:00"),
            ("@weekly", "Sun 2027-01-10T00:00:00+01:00"),
            ("@monthly", "Mon 2027-02-01T00:00:00+01:00"),
            (" @yearly ", "Sat 2028-01-01T00:00:00+01:00"),
            ("0 0 29 2 *", "Tue 2028-02-29T00:00:00+01:00"),
        ] {
            assert_eq!(
                ticks(expression, Warsaw, "2027-01-03T00:00:00Z", 1),
                [tick],
                "{expression}"
            );
        }
    }

    #[test]
    fn weekdays_are_counted_from_sunday_as_zero_or_seven() {
        for (field, days) in [
            ("0", "SUN"),
            ("7", "SUN"),
            ("1", "MON"),
            ("1-5", "MON,TUE,WED,THU,FRI"),
            ("5-7", "SUN,FRI,SAT"),
            ("fri-sun", "SUN,FRI,SAT"),
            ("Monday,3", "MON,WED"),
            ("*/2", "SUN,TUE,THU,SAT"),
            ("1-5/2", "MON,WED,FRI"),
            ("0-7", "*"),
            ("?", "*"),
        ] {
            assert_eq!(weekdays(field).as_deref(), Ok(days), "{field}");
        }
        for field in [
            "",
            "8",
            "-1",
            "5-1",
            "1/2",
            "*/0",
            "*/8",
            "mo",
            "1,",
            "1-2-3",
            "sun-mon-tue",
        ] {
            assert_eq!(weekdays(field), Err(TickError::Weekday(field.to_owned())));
        }
        assert_eq!(
            ticks("0 6 * * 1", Warsaw, "2027-01-03T00:00:00Z", 2),
            [
                "Mon 2027-01-04T06:00:00+01:00",
                "Mon 2027-01-11T06:00:00+01:00"
            ]
        );
    }

    #[test]
    fn what_is_ambiguous_or_impossible_is_refused() {
        let error = |expression: &str| Tick::new(expression, Warsaw).unwrap_err();
        for expression in ["", "* * * *", "* * * * * * *", "@reboot", "@midday"] {
            assert_eq!(error(expression), TickError::Fields(expression.to_owned()));
        }
        for expression in ["0 6 1 * 1", "0 6 */2 * mon"] {
            assert_eq!(
                error(expression),
                TickError::BothDays(expression.to_owned())
            );
        }
        for expression in ["0 0 30 2 *", "0 0 31 4,6,9,11 *"] {
            assert_eq!(error(expression), TickError::Never(expression.to_owned()));
        }
        for expression in ["61 * * * * *", "0 24 * * *", "x * * * *", "*/0 * * * *"] {
            assert!(
                matches!(error(expression), TickError::Malformed { .. }),
                "{expression}"
            );
            assert!(
                !error(expression).to_string().contains('\n'),
                "{expression}"
            );
        }
    }

    #[test]
    fn a_daily_tick_comes_once_a_day_on_the_days_when_the_clocks_change() {
        assert_eq!(
            ticks("30 2 * * *", Warsaw, "2027-03-27T00:00:00Z", 3),
            [
                "Sat 2027-03-27T02:30:00+01:00",
                "Sun 2027-03-28T03:00:00+02:00",
                "Mon 2027-03-29T02:30:00+02:00",
            ]
        );
        assert_eq!(
            ticks("30 2 * * *", Warsaw, "2027-10-30T00:00:00Z", 3),
            [
                "Sat 2027-10-30T02:30:00+02:00",
                "Sun 2027-10-31T02:30:00+02:00",
                "Mon 2027-11-01T02:30:00+01:00",
            ]
        );
        let second_pass = Tick::new("15 2 * * *", Warsaw)
            .unwrap()
            .next_after(at("2027-10-31T01:10:00Z"));
        assert_eq!(second_pass, Some(at("2027-11-01T01:15:00Z")));
    }

    #[test]
    fn a_tick_of_every_hour_pauses_neither_in_a_gap_nor_in_an_overlap() {
        for (zone, from) in [
            (Warsaw, "2027-03-27T22:00:00Z"),
            (Warsaw, "2027-10-30T22:00:00Z"),
            (chrono_tz::Australia::Lord_Howe, "2027-04-03T12:00:00Z"),
            (chrono_tz::Pacific::Apia, "2011-12-30T00:00:00Z"),
        ] {
            let tick = Tick::new("*/15 * * * *", zone).unwrap();
            let mut now = at(from);
            for _ in 0..40 {
                let next = tick.next_after(now).unwrap();
                assert_eq!(next - now, TimeDelta::minutes(15), "{zone} {now}");
                now = next;
            }
        }
    }

    proptest! {
        #[test]
        fn ticks_strictly_increase_and_never_lie_in_the_past(
            zone in proptest::sample::select(chrono_tz::TZ_VARIANTS.as_slice()),
            expression in proptest::sample::select(vec![
                "*/10 * * * * *", "*/7 * * * *", "30 * * * *", "30 2 * * *", "0 0 * * *", "*/20 1-3 * * *",
                "*/30 * * * 0", "59 23 * * *", "15 0,1,2,3 1 * *",
            ]),
            seconds in 1_600_000_000..2_000_000_000i64,
            millis in 0..1_000i64,
        ) {
            let tick = Tick::new(expression, zone).unwrap();
            let mut now = DateTime::from_timestamp(seconds, 0).unwrap() + TimeDelta::milliseconds(millis);
            for _ in 0..30 {
                let next = tick.next_after(now).unwrap();
                prop_assert!(next > now);
                prop_assert_eq!(next.nanosecond(), 0);
                prop_assert_eq!(tick.next_after(next - TimeDelta::nanoseconds(1)), Some(next));
                now = next;
            }
        }

        #[test]
        fn every_change_of_the_clocks_in_warsaw_keeps_ticks_in_order(
            year in 2026..2037i32, spring in any::<bool>(), offset_minutes in -300..300i64,
            expression in proptest::sample::select(vec!["*/5 * * * *", "*/5 2 * * *", "0 0-4 * * *", "30 2 * * *"]),
        ) {
            let month = if spring { 3 } else { 10 };
            let mut now = calendar::instant(
                Warsaw,
                chrono::NaiveDate::from_ymd_opt(year, month, 25).unwrap().and_hms_opt(0, 0, 0).unwrap(),
            ) + TimeDelta::minutes(offset_minutes);
            let tick = Tick::new(expression, Warsaw).unwrap();
            for _ in 0..100 {
                let next = tick.next_after(now).unwrap();
                prop_assert!(next > now && next - now <= TimeDelta::hours(25));
                now = next;
            }
        }
    }
}
