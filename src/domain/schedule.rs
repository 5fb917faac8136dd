//! Which periods a subscription has, and what a charge is born as when its period falls due.

use chrono::{DateTime, Days, NaiveDate, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::domain::calendar::Period;
use crate::domain::charge::ChargeState;

/// What a subscription was agreed for, as far as dates go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The date on which period 0 falls due.
    pub anchor: NaiveDate,
    /// The time between two periods.
    pub period: Period,
    /// Nothing due before this date is charged.
    pub starts_on: Option<NaiveDate>,
    /// Nothing due after this date is charged.
    pub ends_on: Option<NaiveDate>,
    /// How many periods there are: numbers 0 to `max_charges - 1`, whoever charged them.
    pub max_charges: Option<u32>,
}

/// A period and the date on which it falls due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DuePeriod {
    /// Counted from 0 at the anchor date.
    pub period_no: u32,
    /// Local to the subscription's zone.
    pub due_on: NaiveDate,
}

impl Terms {
    /// The period numbered `period_no`, unless the subscription has ended by then.
    pub fn period(&self, period_no: u32) -> Option<DuePeriod> {
        if self.max_charges.is_some_and(|max| period_no >= max) {
            return None;
        }
        let due_on = self.period.due_on(self.anchor, period_no)?;
        if self.ends_on.is_some_and(|end| due_on > end) {
            return None;
        }
        Some(DuePeriod { period_no, due_on })
    }

    /// The first period that Cykl charges: the first that is due after `paid_until`, or, when nobody says what was paid, the first
    /// that is due on `today` or later; in any case not before `starts_on`.
    ///
    /// `None` when nothing is left to charge.
    pub fn first_period(
        &self,
        paid_until: Option<NaiveDate>,
        today: NaiveDate,
    ) -> Option<DuePeriod> {
        let unpaid_from = match paid_until {
            Some(paid_until) => paid_until.succ_opt()?,
            None => today,
        };
        let from = self
            .starts_on
            .map_or(unpaid_from, |start| start.max(unpaid_from));
        self.period(self.period.first_due_from(self.anchor, from)?)
    }

    /// The first period, from number `from_period_no` on, that is due on `date` or later.
    pub fn first_period_from(&self, date: NaiveDate, from_period_no: u32) -> Option<DuePeriod> {
        let period_no = self.period.first_due_from(self.anchor, date)?;
        self.period(period_no.max(from_period_no))
    }

    /// The first period, from number `from_period_no` on, that falls due after `now`, where `due_at` says when a date does.
    ///
    /// What fell due by `now` is passed over, so a subscription that goes on after a pause charges nothing of that time; a period
    /// of today whose hour is still to come counts.
    pub fn first_period_due_after(
        &self,
        now: DateTime<Utc>,
        from_period_no: u32,
        due_at: impl Fn(NaiveDate) -> DateTime<Utc>,
    ) -> Option<DuePeriod> {
        // No zone is further than 14 hours from UTC and no shop spreads its charges over more than a day, so whatever is due on
        // an earlier date fell due before now.
        const REACH: Days = Days::new(3);
        let date = now.date_naive().checked_sub_days(REACH)?;
        let mut period_no = self
            .period
            .first_due_from(self.anchor, date)?
            .max(from_period_no);
        loop {
            let due = self.period(period_no)?;
            if due_at(due.due_on) > now {
                return Some(due);
            }
            period_no = period_no.checked_add(1)?;
        }
    }
}

/// What to do about periods that fell due while nobody ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CatchUp {
    /// The oldest missed period is charged now and each further one `min_gap` later; what is later than `max_lateness` waits for
    /// approval.
    OneNow,
    /// As `one_now`, however late.
    AllSpaced,
    /// Only the latest missed period is charged; the older ones are skipped.
    SkipOld,
    /// Whatever is more than a day late waits for approval.
    Ask,
}

/// What a charge is born as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Birth {
    /// The charger takes it.
    Planned,
    /// A person approves it first.
    Held,
    /// It is recorded and not charged.
    Skipped,
}

impl Birth {
    /// The state that it means.
    pub const fn charge_state(self) -> ChargeState {
        match self {
            Birth::Planned => ChargeState::Planned,
            Birth::Held => ChargeState::Held,
            Birth::Skipped => ChargeState::Skipped,
        }
    }
}

/// Why a charge is born held.
pub const TOO_LATE: &str = "too_late";

/// Beyond this a charge counts as late, for [`CatchUp::Ask`].
const LATE: TimeDelta = TimeDelta::days(1);

impl CatchUp {
    /// What the charge is born as that was due at `due_at`, when the period after it is due at `next_due_at`.
    pub fn birth(
        self,
        max_lateness: TimeDelta,
        due_at: DateTime<Utc>,
        next_due_at: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Birth {
        let lateness = now - due_at;
        match self {
            CatchUp::OneNow if lateness > max_lateness => Birth::Held,
            CatchUp::Ask if lateness > LATE => Birth::Held,
            CatchUp::SkipOld if next_due_at.is_some_and(|next| next <= now) => Birth::Skipped,
            CatchUp::OneNow | CatchUp::AllSpaced | CatchUp::SkipOld | CatchUp::Ask => {
                Birth::Planned
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    fn terms() -> Terms {
        Terms {
            anchor: date("2026-01-31"),
            period: "P1M".parse().unwrap(),
            starts_on: None,
            ends_on: None,
            max_charges: None,
        }
    }

    fn first(terms: Terms, paid_until: Option<&str>, today: &str) -> Option<(u32, String)> {
        terms
            .first_period(paid_until.map(date), date(today))
            .map(|due| (due.period_no, due.due_on.to_string()))
    }

    #[test]
    fn what_was_paid_elsewhere_is_not_charged() {
        let first_of = |paid_until, today| first(terms(), paid_until, today).unwrap();
        assert_eq!(
            first_of(Some("2026-02-28"), "2026-06-15"),
            (2, "2026-03-31".to_owned())
        );
        assert_eq!(
            first_of(Some("2026-02-27"), "2026-06-15"),
            (1, "2026-02-28".to_owned())
        );
        assert_eq!(
            first_of(Some("2020-01-01"), "2026-06-15"),
            (0, "2026-01-31".to_owned())
        );
    }

    #[test]
    fn without_a_word_everything_before_today_counts_as_paid() {
        assert_eq!(
            first(terms(), None, "2026-06-15"),
            Some((5, "2026-06-30".to_owned()))
        );
        assert_eq!(
            first(terms(), None, "2026-06-30"),
            Some((5, "2026-06-30".to_owned()))
        );
        assert_eq!(
            first(terms(), None, "2020-01-01"),
            Some((0, "2026-01-31".to_owned()))
        );
    }

    #[test]
    fn a_card_that_was_verified_is_charged_from_that_day_on() {
        let first = |date_, from| {
            let due = terms().first_period_from(date(date_), from).unwrap();
            (due.period_no, due.due_on.to_string())
        };
        assert_eq!(first("2026-02-28", 0), (1, "2026-02-28".to_owned()));
        assert_eq!(first("2026-03-01", 0), (2, "2026-03-31".to_owned()));
        assert_eq!(first("2026-03-01", 4), (4, "2026-05-31".to_owned()));
    }

    #[test]
    fn a_subscription_ends_with_its_date_or_its_number_of_periods() {
        let ends = Terms {
            ends_on: Some(date("2026-03-30")),
            ..terms()
        };
        assert!(ends.period(1).is_some() && ends.period(2).is_none());
        let counted = Terms {
            max_charges: Some(3),
            ..terms()
        };
        assert!(counted.period(2).is_some() && counted.period(3).is_none());
        assert_eq!(first(counted, None, "2026-06-15"), None);
        let later = Terms {
            starts_on: Some(date("2026-05-01")),
            ..terms()
        };
        assert_eq!(
            first(later, Some("2026-02-28"), "2026-01-01"),
            Some((4, "2026-05-31".to_owned()))
        );
    }

    #[test]
    fn after_a_pause_the_next_period_is_the_first_whose_hour_is_still_to_come() {
        let daily = Terms {
            anchor: date("2026-06-01"),
            period: "P1D".parse().unwrap(),
            ..terms()
        };
        let warsaw = |hour| {
            move |date: NaiveDate| {
                let local = date.and_hms_opt(hour, 0, 0).unwrap();
                crate::domain::calendar::instant(chrono_tz::Europe::Warsaw, local)
            }
        };
        let next = |hour, from, now: &str| {
            let due = daily.first_period_due_after(now.parse().unwrap(), from, warsaw(hour));
            due.unwrap().due_on.to_string()
        };
        // 06:00 in Warsaw is 04:00 in UTC.
        assert_eq!(next(6, 0, "2026-06-10T03:59:59Z"), "2026-06-10");
        assert_eq!(next(6, 0, "2026-06-10T04:00:00Z"), "2026-06-11");
        // It is the 11th in Warsaw already.
        assert_eq!(next(1, 0, "2026-06-10T22:30:00Z"), "2026-06-11");
        assert_eq!(next(0, 0, "2026-06-10T22:30:00Z"), "2026-06-12");
        assert_eq!(next(6, 30, "2026-06-10T03:00:00Z"), "2026-07-01");
        let ended = Terms {
            ends_on: Some(date("2026-06-09")),
            ..daily
        };
        let now = "2026-06-10T03:00:00Z".parse().unwrap();
        assert_eq!(ended.first_period_due_after(now, 0, warsaw(6)), None);
    }

    #[test]
    fn each_catch_up_policy_treats_lateness_its_own_way() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let week = TimeDelta::days(7);
        let birth = |policy: CatchUp, due_at, next, now| {
            policy.birth(week, at(due_at), Some(at(next)), at(now))
        };
        let three_days_late = (
            "2026-01-01T05:00:00Z",
            "2026-02-01T05:00:00Z",
            "2026-01-04T05:00:00Z",
        );
        let overtaken = (
            "2026-01-01T05:00:00Z",
            "2026-01-08T05:00:00Z",
            "2026-01-09T05:00:00Z",
        );
        for (policy, when_late, when_overtaken) in [
            (CatchUp::OneNow, Birth::Planned, Birth::Held),
            (CatchUp::AllSpaced, Birth::Planned, Birth::Planned),
            (CatchUp::SkipOld, Birth::Planned, Birth::Skipped),
            (CatchUp::Ask, Birth::Held, Birth::Held),
        ] {
            let (due, next, now) = three_days_late;
            assert_eq!(birth(policy, due, next, now), when_late, "{policy:?}");
            let (due, next, now) = overtaken;
            assert_eq!(birth(policy, due, next, now), when_overtaken, "{policy:?}");
            assert_eq!(
                birth(policy, due, next, due),
                Birth::Planned,
                "{policy:?} on time"
            );
        }
    }
}
