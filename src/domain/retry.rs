//! Whether, and when, a declined charge is tried again.

use chrono::{DateTime, Days, TimeDelta, Utc};
use chrono_tz::Tz;

use crate::domain::calendar;
use crate::domain::decline::{Decline, DeclineTable};
use crate::domain::subscription::DeactivationReason;

/// How long before a retry the declined attempts are read again, so that the gateway's word is there when the time has come.
pub const READ_AHEAD: TimeDelta = TimeDelta::minutes(5);

/// How long after the first attempt a retry is still made that the card's budget keeps waiting. Card schemes count declines over 30
/// days, and by then younger charges of the card may have taken its place again and again: whether it is still wanted is a person's to say.
pub const WAITS_FOR_BUDGET: TimeDelta = TimeDelta::days(30);

/// The retry policy of an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Days after the first attempt on which to try again, increasing.
    pub days: Vec<u16>,
    /// How often a charge is tried in all when the decline's code is not in the table.
    pub unknown_code_tries: u16,
    /// Which code means what.
    pub classes: DeclineTable,
}

/// What becomes of a charge after a decline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterDecline {
    /// It is tried again at this time.
    RetryAt(DateTime<Utc>),
    /// It is not tried again, and the subscription is deactivated.
    Deactivate(DeactivationReason),
}

impl RetryPolicy {
    /// Decides on the `declines`-th decline of a charge (counted from 1) that was first attempted at `first_attempt_at`.
    ///
    /// A retry falls on the same local time of day as the first attempt, the configured number of days later, and is
    /// never put into the past: a retry day that has gone by while nobody ran counts as today.
    pub fn after_decline(
        &self,
        decline: Decline,
        declines: u16,
        first_attempt_at: DateTime<Utc>,
        zone: Tz,
        now: DateTime<Utc>,
    ) -> AfterDecline {
        if let Some(reason) = decline.class.deactivates() {
            return AfterDecline::Deactivate(reason);
        }
        let spent = AfterDecline::Deactivate(DeactivationReason::RetriesSpent);
        if !decline.known && declines >= self.unknown_code_tries {
            return spent;
        }
        let Some(days) = self.days.get(usize::from(declines).saturating_sub(1)) else {
            return spent;
        };
        let first_local = first_attempt_at.with_timezone(&zone).naive_local();
        match first_local.checked_add_days(Days::new(u64::from(*days))) {
            Some(local) => AfterDecline::RetryAt(calendar::instant(zone, local).max(now)),
            None => spent,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::decline::DeclineClass;

    const ZONE: Tz = chrono_tz::Europe::Warsaw;

    fn policy() -> RetryPolicy {
        RetryPolicy {
            days: vec![1, 3, 7, 14],
            unknown_code_tries: 3,
            classes: DeclineTable::default(),
        }
    }

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn known(class: DeclineClass) -> Decline {
        Decline { class, known: true }
    }

    #[test]
    fn retries_keep_the_local_time_of_the_first_attempt() {
        // 06:00 in Warsaw; the clocks change on 28 March 2027.
        let first = at("2027-03-25T05:00:00Z");
        let retry = |declines| {
            policy().after_decline(known(DeclineClass::Funds), declines, first, ZONE, first)
        };
        assert_eq!(retry(1), AfterDecline::RetryAt(at("2027-03-26T05:00:00Z")));
        assert_eq!(retry(2), AfterDecline::RetryAt(at("2027-03-28T04:00:00Z")));
        assert_eq!(retry(3), AfterDecline::RetryAt(at("2027-04-01T04:00:00Z")));
        assert_eq!(retry(4), AfterDecline::RetryAt(at("2027-04-08T04:00:00Z")));
        assert_eq!(
            retry(5),
            AfterDecline::Deactivate(DeactivationReason::RetriesSpent)
        );
    }

    #[test]
    fn a_card_that_must_not_be_tried_again_is_not() {
        let first = at("2027-03-25T05:00:00Z");
        for (class, reason) in [
            (DeclineClass::Never, DeactivationReason::CardBlocked),
            (DeclineClass::NewCard, DeactivationReason::CardExpired),
        ] {
            assert_eq!(
                policy().after_decline(known(class), 1, first, ZONE, first),
                AfterDecline::Deactivate(reason)
            );
        }
    }

    #[test]
    fn an_unknown_code_is_tried_three_times_in_all() {
        let first = at("2027-01-01T05:00:00Z");
        let unknown = Decline {
            class: DeclineClass::Soft,
            known: false,
        };
        let retried = |declines| {
            matches!(
                policy().after_decline(unknown, declines, first, ZONE, first),
                AfterDecline::RetryAt(_)
            )
        };
        assert_eq!([1, 2, 3, 4].map(retried), [true, true, false, false]);
    }

    proptest! {
        #[test]
        fn a_charge_is_tried_at_most_once_more_than_there_are_retry_days_and_never_in_the_past(
            declines in 1..40u16, known in any::<bool>(), late_hours in 0..2_000i64,
        ) {
            let first = at("2027-01-01T05:00:00Z");
            let now = first + chrono::TimeDelta::hours(late_hours);
            let decline = Decline { class: DeclineClass::Technical, known };
            match policy().after_decline(decline, declines, first, ZONE, now) {
                AfterDecline::RetryAt(at) => {
                    prop_assert!(usize::from(declines) <= policy().days.len());
                    prop_assert!(at >= now);
                }
                AfterDecline::Deactivate(reason) => {
                    prop_assert_eq!(reason, DeactivationReason::RetriesSpent);
                }
            }
        }
    }
}
