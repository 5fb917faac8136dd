//! The caretaker: what has long been over goes to the archive, and what has been there for as long as the books are kept is dropped.
//!
//! It does a little at a time, so that charging never waits for it: what it does not get to waits for its next turn.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::domain::history::HistoryPolicy;
use crate::store::Store;
use crate::store::archive::Part;
use crate::workers::tripwires::Tripwires;

/// Archives and drops.
#[derive(Clone)]
pub struct Caretaker {
    store: Store,
    policy: HistoryPolicy,
    tripwires: Tripwires,
    stop: CancellationToken,
    round: Arc<Mutex<Round>>,
}

/// How far the caretaker is. It begins anew when the daemon starts; nothing rests on it.
#[derive(Debug, Clone, Copy, Default)]
struct Round {
    /// Which part is walked through, and the last row of it that was looked at. `None` between two rounds.
    place: Option<(usize, Option<Uuid>)>,
    /// When the last round began.
    began_at: Option<DateTime<Utc>>,
}

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
            round: Arc::default(),
        }
    }

    /// Goes on with the round of the day.
    ///
    /// # Errors
    /// When the database fails; what was archived before stays archived, and the next run goes on.
    pub async fn run_once(&self, now: DateTime<Utc>) -> anyhow::Result<Report> {
        let mut report = Report::default();
        let mut round = self.round();
        if round.place.is_none() {
            let is_early = |began_at| began_at <= now && now < began_at + ROUND_EVERY;
            if round.began_at.is_some_and(is_early) {
                return Ok(report);
            }
            round = Round {
                place: Some((0, None)),
                began_at: Some(now),
            };
            self.keep(round);
            self.note_what_is_usual(now).await;
            report.dropped = self.drop_what_is_not_kept(now).await;
        }
        let before = now - self.policy.archive_after;
        for _ in 0..STEPS_MAX {
            let Some((part_no, after)) = round.place else {
                break;
            };
            if self.stop.is_cancelled() {
                break;
            }
            round.place = match Part::ALL.get(part_no) {
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
            self.keep(round);
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

    fn round(&self) -> Round {
        *self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, round: Round) {
        *self.round.lock().unwrap_or_else(PoisonError::into_inner) = round;
    }
}
