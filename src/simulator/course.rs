//! The course of a transaction: which status it has how long after the debit.
//!
//! A status is a function of time, so nothing has to run for a transaction to settle. Courses are shared: a million
//! transactions with one fate have one course.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};

use super::behaviour::{Fate, Notices};

/// imoje's code for success.
const OK: &str = "CODE_000";

/// The statuses of a transaction, in the order of time. The first begins with the debit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Course {
    steps: Vec<Step>,
    pub(super) notices: Notices,
    pub(super) read_lag: TimeDelta,
}

/// One status.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    after: TimeDelta,
    pub(super) status: Arc<str>,
    pub(super) code: Option<Arc<str>>,
}

impl Course {
    pub(super) fn new(fate: &Fate, notices: Notices, read_lag: Duration) -> Self {
        let pending = || step(Duration::ZERO, "pending", None);
        let steps = match fate {
            Fate::SettleAtOnce => vec![step(Duration::ZERO, "settled", Some(OK))],
            Fate::SettleAfter(after) => vec![pending(), step(*after, "settled", Some(OK))],
            Fate::RejectAtOnce(code) => vec![step(Duration::ZERO, "rejected", Some(code))],
            Fate::RejectAfter { code, after } => {
                vec![pending(), step(*after, "rejected", Some(code))]
            }
            Fate::RejectThenSettle {
                code,
                after,
                settle_after,
            } => vec![
                pending(),
                step(*after, "rejected", Some(code)),
                step(*settle_after.max(after), "settled", Some(OK)),
            ],
            Fate::Status(word) => vec![step(Duration::ZERO, word, None)],
            // An inactive profile is refused before there is a transaction; without one there is nothing to end.
            Fate::PendingForEver | Fate::Inactive => vec![pending()],
        };
        Self {
            steps,
            notices,
            read_lag: delta(read_lag),
        }
    }

    /// A course of one whose payer has so long to confirm it, with the notices of another. That it was cancelled is its third step, so that
    /// a course with two that takes its place is never taken for it.
    pub(super) fn waiting(valid_for: Option<Duration>, like: &Self) -> Self {
        let pending = || step(Duration::ZERO, "pending", None);
        let mut steps = vec![pending()];
        if let Some(valid_for) = valid_for {
            steps.extend([pending(), step(valid_for, "cancelled", None)]);
        }
        Self {
            steps,
            notices: like.notices.clone(),
            read_lag: like.read_lag,
        }
    }

    /// The same course for a refund: what is not over is `new`, and no status has a code.
    pub(super) fn of_refund(fate: &Fate, notices: Notices, read_lag: Duration) -> Self {
        let mut course = Self::new(fate, notices, read_lag);
        for step in &mut course.steps {
            step.code = None;
            if &*step.status == "pending" {
                step.status = "new".into();
            }
        }
        course
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The step at this position.
    pub(super) fn step(&self, index: usize) -> &Step {
        &self.steps[index.min(self.steps.len() - 1)]
    }

    /// When the step at this position begins for a transaction that was created then.
    pub(super) fn begins(&self, index: usize, created_at: DateTime<Utc>) -> DateTime<Utc> {
        later(created_at, self.step(index).after)
    }

    /// The position of the step that holds at `at`.
    pub(super) fn index_at(&self, created_at: DateTime<Utc>, at: DateTime<Utc>) -> usize {
        let begun = self
            .steps
            .iter()
            .filter(|step| later(created_at, step.after) <= at)
            .count();
        begun.saturating_sub(1)
    }
}

fn step(after: Duration, status: &str, code: Option<&str>) -> Step {
    Step {
        after: delta(after),
        status: status.into(),
        code: code.map(Into::into),
    }
}

/// The duration, or the longest that a calendar can count with.
pub(super) fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

/// A later moment, or the last that a calendar knows.
pub(super) fn later(moment: DateTime<Utc>, by: TimeDelta) -> DateTime<Utc> {
    moment
        .checked_add_signed(by)
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statuses(fate: &Fate, seconds: [i64; 3]) -> [String; 3] {
        let course = Course::new(fate, Notices::default(), Duration::ZERO);
        let created_at = DateTime::<Utc>::UNIX_EPOCH;
        seconds.map(|after| {
            let at = created_at + TimeDelta::seconds(after);
            course
                .step(course.index_at(created_at, at))
                .status
                .to_string()
        })
    }

    #[test]
    fn a_status_begins_at_its_very_second() {
        let fate = Fate::SettleAfter(Duration::from_secs(5));
        assert_eq!(
            statuses(&fate, [0, 4, 5]),
            ["pending", "pending", "settled"]
        );
    }

    #[test]
    fn a_rejection_can_turn_into_a_settlement() {
        let fate = Fate::RejectThenSettle {
            code: "CODE_05".to_owned(),
            after: Duration::from_secs(5),
            settle_after: Duration::from_secs(60),
        };
        assert_eq!(
            statuses(&fate, [0, 59, 60]),
            ["pending", "rejected", "settled"]
        );
    }

    #[test]
    fn a_status_before_the_debit_is_the_first_one() {
        assert_eq!(
            statuses(&Fate::PendingForEver, [-9, 0, i64::from(i32::MAX)]),
            ["pending"; 3]
        );
    }
}
