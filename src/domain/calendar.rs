//! Due dates and the instants at which they fall.
//!
//! A due date comes from the anchor alone: `due(n) = anchor + n × period`, clamped to the end of the month, never from the
//! last payment, so it cannot drift. An instant comes from the date, the shop's time of day and the subscription's zone.

use std::fmt;
use std::str::FromStr;

use chrono::{
    DateTime, Days, Months, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Utc,
};
use chrono_tz::Tz;
use uuid::Uuid;

/// The time between two charges of a subscription: a number of days, weeks, months or years, at most one year.
///
/// "Regular intervals of at most one year" is a rule of the card schemes for recurring payments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Period {
    unit: Unit,
    count: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Unit {
    Days,
    Weeks,
    Months,
    Years,
}

impl Unit {
    const fn letter(self) -> char {
        match self {
            Unit::Days => 'D',
            Unit::Weeks => 'W',
            Unit::Months => 'M',
            Unit::Years => 'Y',
        }
    }

    /// How many of them are at most a year.
    const fn count_max(self) -> u16 {
        match self {
            Unit::Days => 365,
            Unit::Weeks => 52,
            Unit::Months => 12,
            Unit::Years => 1,
        }
    }
}

/// A text that is not a period.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeriodError {
    /// Not `P`, a whole number and one of `D`, `W`, `M`, `Y`.
    #[error(
        "\"{0}\" is not a period; write P7D, P2W, P1M, P3M or P1Y: a number of days, weeks, months or years"
    )]
    Malformed(String),
    /// Nothing, or longer than the card schemes allow.
    #[error("\"{0}\" is not between one day and one year, which is what the card schemes allow")]
    OutOfRange(String),
}

impl Period {
    /// Whether it is counted in months or years, rather than in days or weeks.
    pub const fn is_of_months(self) -> bool {
        match self.unit {
            Unit::Months | Unit::Years => true,
            Unit::Days | Unit::Weeks => false,
        }
    }

    /// The date on which period `period_no` falls due. Period 0 is due on the anchor itself.
    ///
    /// `None` when the date lies beyond what the calendar can hold (the year 262142).
    pub fn due_on(self, anchor: NaiveDate, period_no: u32) -> Option<NaiveDate> {
        let count = u32::from(self.count).checked_mul(period_no)?;
        match self.unit {
            Unit::Days => anchor.checked_add_days(Days::new(u64::from(count))),
            Unit::Weeks => anchor.checked_add_days(Days::new(u64::from(count) * 7)),
            Unit::Months => anchor.checked_add_months(Months::new(count)),
            Unit::Years => anchor.checked_add_months(Months::new(count.checked_mul(12)?)),
        }
    }

    /// The first period that falls due on `date` or later.
    ///
    /// `None` when there is none that the calendar can hold.
    pub fn first_due_from(self, anchor: NaiveDate, date: NaiveDate) -> Option<u32> {
        let days = u32::try_from((date - anchor).num_days().max(0)).ok()?;
        let days_per_period = u32::from(self.count)
            * match self.unit {
                Unit::Days => 1,
                Unit::Weeks => 7,
                Unit::Months => 31,
                Unit::Years => 366,
            };
        // A period is never longer than `days_per_period`, so the estimate is at most the answer.
        let mut period_no = days / days_per_period;
        while self.due_on(anchor, period_no)? < date {
            period_no = period_no.checked_add(1)?;
        }
        Some(period_no)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("P{}{}", self.count, self.unit.letter()))
    }
}

impl FromStr for Period {
    type Err = PeriodError;

    /// Reads the one-unit durations of ISO 8601: `P7D`, `P2W`, `P1M`, `P3M`, `P1Y`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || PeriodError::Malformed(text.to_owned());
        let unit = [Unit::Days, Unit::Weeks, Unit::Months, Unit::Years]
            .into_iter()
            .find(|unit| text.ends_with(unit.letter()))
            .ok_or_else(malformed)?;
        let digits = text
            .strip_prefix('P')
            .and_then(|rest| rest.strip_suffix(unit.letter()))
            .filter(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
            .ok_or_else(malformed)?;
        digits
            .parse()
            .ok()
            .filter(|count| (1..=unit.count_max()).contains(count))
            .map(|count| Period { unit, count })
            .ok_or_else(|| PeriodError::OutOfRange(text.to_owned()))
    }
}

/// The time of day at which a subscription's charges fall due: in its zone, at the shop's hour, a little later for some
/// so that a day's charges are spread out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChargeTime {
    /// The zone in which the date is meant.
    pub zone: Tz,
    /// The shop's local time of day.
    pub time_of_day: NaiveTime,
    /// How much later than that; from [`spread_offset`].
    pub offset: TimeDelta,
}

impl ChargeTime {
    /// The instant at which a charge due on `date` falls due.
    pub fn on(&self, date: NaiveDate) -> DateTime<Utc> {
        instant(self.zone, date.and_time(self.time_of_day)) + self.offset
    }
}

/// The instant of a local time: in a DST overlap the first occurrence, in a DST gap the first valid time after it.
pub fn instant(zone: Tz, local: NaiveDateTime) -> DateTime<Utc> {
    match zone.from_local_datetime(&local).earliest() {
        Some(instant) => instant.with_timezone(&Utc),
        None => end_of_gap(zone, local),
    }
}

/// The first instant whose local time is not before `local`, which no clock in `zone` ever showed.
fn end_of_gap(zone: Tz, local: NaiveDateTime) -> DateTime<Utc> {
    // No zone is further than a day from UTC and no gap is longer than a day, so the instant lies within these bounds.
    const REACH: TimeDelta = TimeDelta::hours(52);
    let guess = local.and_utc();
    let (mut before, mut after) = ((guess - REACH).timestamp(), (guess + REACH).timestamp());
    let local_at = |timestamp: i64| {
        DateTime::from_timestamp(timestamp, 0)
            .expect("two days around a representable time")
            .with_timezone(&zone)
            .naive_local()
    };
    while before + 1 < after {
        let middle = before.midpoint(after);
        if local_at(middle) < local {
            before = middle;
        } else {
            after = middle;
        }
    }
    DateTime::from_timestamp(after, 0).expect("two days around a representable time")
}

/// How much later than the shop's time of day a subscription is charged: a stable point in `0..spread`, derived from its id.
pub fn spread_offset(subscription: Uuid, spread: TimeDelta) -> TimeDelta {
    let seconds = u128::try_from(spread.num_seconds()).unwrap_or(0);
    if seconds == 0 {
        return TimeDelta::zero();
    }
    // The low half of a UUIDv7 is random, so it is already a uniform hash.
    let point = (subscription.as_u128() & u128::from(u64::MAX)) % seconds;
    TimeDelta::seconds(i64::try_from(point).expect("smaller than the seconds of a TimeDelta"))
}

#[cfg(test)]
mod tests {
    use chrono::Datelike;
    use proptest::prelude::*;

    use super::*;

    fn date(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    fn period(text: &str) -> Period {
        text.parse().unwrap()
    }

    fn any_period() -> impl Strategy<Value = Period> {
        prop_oneof![
            (1..=365u16).prop_map(|count| Period {
                unit: Unit::Days,
                count
            }),
            (1..=52u16).prop_map(|count| Period {
                unit: Unit::Weeks,
                count
            }),
            (1..=12u16).prop_map(|count| Period {
                unit: Unit::Months,
                count
            }),
            Just(Period {
                unit: Unit::Years,
                count: 1
            }),
        ]
    }

    fn any_date() -> impl Strategy<Value = NaiveDate> {
        (0..36_525u64).prop_map(|days| date("1970-01-01") + Days::new(days))
    }

    #[test]
    fn a_month_end_anchor_is_clamped_and_comes_back() {
        let due: Vec<String> = (0..6)
            .map(|n| {
                period("P1M")
                    .due_on(date("2027-01-31"), n)
                    .unwrap()
                    .to_string()
            })
            .collect();
        assert_eq!(
            due,
            [
                "2027-01-31",
                "2027-02-28",
                "2027-03-31",
                "2027-04-30",
                "2027-05-31",
                "2027-06-30"
            ]
        );
        assert_eq!(
            period("P1M").due_on(date("2027-12-31"), 2),
            Some(date("2028-02-29"))
        );
        assert_eq!(
            period("P1Y").due_on(date("2028-02-29"), 1),
            Some(date("2029-02-28"))
        );
        assert_eq!(
            period("P1Y").due_on(date("2028-02-29"), 4),
            Some(date("2032-02-29"))
        );
    }

    #[test]
    fn periods_are_one_unit_and_at_most_a_year() {
        for text in [
            "P1D", "P7D", "P365D", "P1W", "P2W", "P52W", "P1M", "P3M", "P12M", "P1Y",
        ] {
            assert_eq!(period(text).to_string(), text);
        }
        for text in ["P0D", "P366D", "P53W", "P13M", "P2Y", "P99999999999D"] {
            assert_eq!(
                text.parse::<Period>(),
                Err(PeriodError::OutOfRange(text.to_owned()))
            );
        }
        for text in [
            "", "P", "PM", "1M", "P1", "P1M2D", "PT1H", "P-1M", "P+1M", "P1.5M", "p1m", "P1m",
            "P 1M", "P1MM",
        ] {
            assert_eq!(
                text.parse::<Period>(),
                Err(PeriodError::Malformed(text.to_owned()))
            );
        }
    }

    #[test]
    fn a_gap_takes_the_first_valid_time_and_an_overlap_the_first_occurrence() {
        let warsaw = chrono_tz::Europe::Warsaw;
        let at = |text: &str| instant(warsaw, text.parse().unwrap()).to_rfc3339();
        // Clocks jump from 02:00 to 03:00 on 28 March 2027 and back from 03:00 to 02:00 on 31 October 2027.
        assert_eq!(at("2027-03-28T02:30:00"), "2027-03-28T01:00:00+00:00");
        assert_eq!(at("2027-03-28T01:59:59"), "2027-03-28T00:59:59+00:00");
        assert_eq!(at("2027-10-31T02:30:00"), "2027-10-31T00:30:00+00:00");
        // Samoa had no 30 December 2011 at all.
        let apia = instant(
            chrono_tz::Pacific::Apia,
            "2011-12-30T06:00:00".parse().unwrap(),
        );
        assert_eq!(
            apia.with_timezone(&chrono_tz::Pacific::Apia).to_rfc3339(),
            "2011-12-31T00:00:00+14:00"
        );
    }

    #[test]
    fn a_hundred_years_of_due_dates_in_every_zone_do_not_drift_and_strictly_increase() {
        for zone in chrono_tz::TZ_VARIANTS {
            for (text, anchor, time) in [
                ("P1D", "2026-01-01", "00:00:00"),
                ("P1M", "2026-01-31", "02:30:00"),
                ("P1W", "2026-03-29", "23:59:59"),
            ] {
                let charge_time = ChargeTime {
                    zone,
                    time_of_day: time.parse().unwrap(),
                    offset: TimeDelta::zero(),
                };
                // A daily period covers the zone's rules for nine years; the longer ones go on for a hundred.
                let count = if text == "P1M" { 1_200 } else { 3_300 };
                let mut previous = None;
                for period_no in 0..count {
                    let due_on = period(text).due_on(date(anchor), period_no).unwrap();
                    let due_at = charge_time.on(due_on);
                    assert!(previous < Some(due_at), "{zone} {text} {due_on}");
                    previous = Some(due_at);
                    let local = due_at.with_timezone(&zone).naive_local();
                    assert_eq!(local.date(), due_on, "{zone} {text}");
                    assert!(
                        local.time() >= charge_time.time_of_day,
                        "{zone} {text} {due_on}"
                    );
                }
            }
        }
    }

    proptest! {
        #[test]
        fn due_dates_strictly_increase_and_come_from_the_anchor_alone(
            anchor in any_date(), period in any_period(), period_no in 0..1_200u32,
        ) {
            let due_on = period.due_on(anchor, period_no).unwrap();
            prop_assert!(due_on < period.due_on(anchor, period_no + 1).unwrap());
            match period.unit {
                Unit::Days | Unit::Weeks => {
                    let days = u32::from(period.count) * if period.unit == Unit::Weeks { 7 } else { 1 };
                    prop_assert_eq!((due_on - anchor).num_days(), i64::from(days * period_no));
                }
                Unit::Months | Unit::Years => {
                    let months = u32::from(period.count) * if period.unit == Unit::Years { 12 } else { 1 };
                    let month = |date: NaiveDate| i64::from(date.year()) * 12 + i64::from(date.month0());
                    prop_assert_eq!(month(due_on) - month(anchor), i64::from(months * period_no));
                    let next_day = due_on.succ_opt().unwrap();
                    prop_assert!(due_on.day() == anchor.day() || (due_on.day() < anchor.day() && next_day.day() == 1));
                }
            }
        }

        #[test]
        fn the_first_period_from_a_date_is_the_first(
            anchor in any_date(), period in any_period(), date in any_date(),
        ) {
            let period_no = period.first_due_from(anchor, date).unwrap();
            prop_assert!(period.due_on(anchor, period_no).unwrap() >= date);
            if let Some(earlier) = period_no.checked_sub(1) {
                prop_assert!(period.due_on(anchor, earlier).unwrap() < date);
            }
        }

        #[test]
        fn an_instant_is_never_before_the_local_time_that_was_asked_for(
            zone in proptest::sample::select(chrono_tz::TZ_VARIANTS.as_slice()), day in any_date(), seconds in 0..86_400u32,
        ) {
            let local = day.and_time(NaiveTime::from_num_seconds_from_midnight_opt(seconds, 0).unwrap());
            let shown = instant(zone, local).with_timezone(&zone).naive_local();
            prop_assert!(shown >= local);
            let second_before = (instant(zone, local) - TimeDelta::seconds(1)).with_timezone(&zone).naive_local();
            prop_assert!(second_before < local);
        }

        #[test]
        fn the_spread_is_stable_and_within_its_bounds(uuid in any::<u128>(), seconds in 0..86_400i64) {
            let spread = TimeDelta::seconds(seconds);
            let offset = spread_offset(Uuid::from_u128(uuid), spread);
            prop_assert_eq!(offset, spread_offset(Uuid::from_u128(uuid), spread));
            prop_assert!(offset >= TimeDelta::zero() && (offset < spread || seconds == 0));
        }
    }
}
