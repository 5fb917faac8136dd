//! The caretaker: what has long been over goes to the archive, and what has been there for as long as the books are kept is dropped.
//!
//! It does a little at a time, so that charging never waits for it: what it does not get to waits for its next turn.

use chrono::{DateTime, TimeDelta, Utc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::domain::history::HistoryPolicy;
use crate::store::Store;
use crate::store::archive::Part;
use crate::workers::round::Rounds;
use crate::workers::tripwires::Tripwires;

/// Archives and drops.
#[derive(Clone)]
pub struct Caretaker {
    store: Store,
    policy: HistoryPolicy,
    tripwires: Tripwires,
    stop: CancellationToken,
    rounds: Rounds<Place>,
}

/// Which part is walked through, and the last row of it that was looked at.
type Place = (usize, Option<Uuid>);

/// What one run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Periods, events and notices that were archived.
    pub archived: usize,
    /// Quarters that were dropped.
    pub dropped: usize,
}

/// How many steps one run makes at most; the next run goes on.
const STEPS_MAX: usize = 200;

/// Rows that cannot be archived yet are looked at once in that time.
const ROUND_EVERY: TimeDelta = TimeDelta::hours(24);

impl Caretaker {
    /// A caretaker that follows `policy`, and tells `tripwires` what is usual, until `stop` is cancelled.
    pub fn new(
        store: Store,
        policy: HistoryPolicy,
        tripwires: Tripwires,
        stop: CancellationToken,
    ) -> Self {
        Self {
            store,
            policy,
            tripwires,
            stop,
            rounds: Rounds::new(ROUND_EVERY),
        }
    }

    /// Goes on with the round of the day.
    ///
    /// # Errors
    /// When the database fails; what was archived before stays archived, and the next run goes on.
    pub async fn run_once(&self, now: DateTime<Utc>) -> anyhow::Result<Report> {
        let mut report = Report::default();
        let Some(turn) = self.rounds.turn((0, None), now) else {
            return Ok(report);
        };
        if turn.begins {
            self.note_what_is_usual(now).await;
            report.dropped = self.drop_what_is_not_kept(now).await;
        }
        let before = now - self.policy.archive_after;
        let mut place = Some(turn.place);
        for _ in 0..STEPS_MAX {
            let Some((part_no, after)) = place else {
                break;
            };
            if self.stop.is_cancelled() {
                break;
            }
            place = match Part::ALL.get(part_no) {
                None => None,
                Some(&part) => {
                    let step = self.store.archive_step(part, after, before).await?;
                    report.archived += step.archived;
                    if let Some(error) = step.refused {
                        tracing::error!(?part, %error, "couldn't archive some rows; they stay until the next round");
                    }
                    match step.reached {
                        Some(reached) => Some((part_no, Some(reached))),
                        None => Some((part_no + 1, None)),
                    }
                }
            };
            self.rounds.keep(place);
        }
        Ok(report)
    }

    /// Counts how often each shop's debits were declined in the last 30 days, or leaves it at what was counted before.
    async fn note_what_is_usual(&self, now: DateTime<Utc>) {
        match self.store.usual_declines(now).await {
            Ok(usual) => self.tripwires.set_usual(usual),
            Err(error) => {
                tracing::warn!(%error, "couldn't count how often debits are declined");
            }
        }
    }

    /// Drops it, or leaves that to the next round: whoever reads the archive just now goes first.
    async fn drop_what_is_not_kept(&self, now: DateTime<Utc>) -> usize {
        let Some(kept_from) = self.policy.kept_from(now) else {
            return 0;
        };
        match self.store.drop_archive(kept_from).await {
            Ok(0) => 0,
            Ok(quarters) => {
                tracing::info!(quarters, %kept_from, "dropped what was archived before the years that are kept");
                usize::try_from(quarters).unwrap_or(0)
            }
            Err(error) => {
                tracing::warn!(%error, %kept_from, "couldn't drop what was archived before the years that are kept");
                0
            }
        }
    }
}
