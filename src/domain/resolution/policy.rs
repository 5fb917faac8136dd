//! The rules that decisions follow, and what time alone decides.

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::retry::RetryPolicy;

/// The rules that a decision follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// For declines.
    pub retry: RetryPolicy,
    /// For asking about what is not final.
    pub resolver: ResolverPolicy,
}

/// When to ask again, and when to ask people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolverPolicy {
    /// Waits between reads of a transaction that is not final; the last one repeats.
    pub poll: Vec<TimeDelta>,
    /// How long a notice may still bring the id of an attempt in doubt: imoje's retry cycle lasts 95 h 25 min.
    pub answer_window: TimeDelta,
    /// How long after the permit a charge in doubt is written off unless a person decides otherwise.
    pub write_off_after: TimeDelta,
}

impl ResolverPolicy {
    /// The wait before the read that follows `polls` earlier ones.
    pub fn poll_after(&self, polls: u16) -> TimeDelta {
        self.poll
            .get(usize::from(polls))
            .or(self.poll.last())
            .copied()
            .unwrap_or(TimeDelta::hours(6))
    }
}

/// What to do about an attempt in doubt whose transaction id nobody has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DoubtStage {
    /// A notice may still come: look again then.
    WaitUntil(DateTime<Utc>),
    /// People should look; if they do nothing, look again at `write_off_at`.
    OpenCase {
        /// When the charge is written off.
        write_off_at: DateTime<Utc>,
    },
    /// Nobody decided in time: the charge is given up, the attempt stays in doubt for ever, and both are reported.
    WriteOff,
}

/// The stage of an attempt in doubt since `permitted_at`. `many` says that as many are in doubt as may be, so that people
/// are asked at once.
pub fn doubt_stage(
    permitted_at: DateTime<Utc>,
    case_open: bool,
    many: bool,
    policy: &ResolverPolicy,
    now: DateTime<Utc>,
) -> DoubtStage {
    let case_at = permitted_at + policy.answer_window;
    let write_off_at = permitted_at + policy.write_off_after;
    if case_open && now >= write_off_at {
        DoubtStage::WriteOff
    } else if case_open {
        DoubtStage::WaitUntil(write_off_at)
    } else if many || now >= case_at {
        DoubtStage::OpenCase {
            write_off_at: write_off_at.max(now),
        }
    } else {
        DoubtStage::WaitUntil(case_at)
    }
}
