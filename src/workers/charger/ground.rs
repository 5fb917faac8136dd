//! The ground that charging stands on: the fence, the guards of the schema, a database that has not gone back, and a plan for the day.
//!
//! It is looked at when the daemon starts, once a minute, after a run that failed, and each time after something was found. What is found
//! stops everything until a person has looked. Beyond that each claim makes sure that its database knows the last permit.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, NaiveDate, Utc};

use super::Charger;
use crate::clock::Moment;
use crate::domain::daily_cap::day_of;
use crate::domain::permit_record::PermitRecord;
use crate::domain::tripwire::Trip;
use crate::journal::{Journal, JournalError};
use crate::store::installation::FenceLook;

/// The permit journal, and what was seen of the ground. Clones share it.
#[derive(Clone, Default)]
pub struct Ground {
    journal: Journal,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    found_sound_at: Option<Moment>,
    planned_day: Option<NaiveDate>,
    last_permit: Option<PermitRecord>,
}

impl Ground {
    /// The ground of a daemon that keeps this journal.
    pub fn new(journal: Journal) -> Self {
        Self {
            journal,
            seen: Arc::default(),
        }
    }

    /// The journal.
    pub(super) const fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Writes permits into the journal, and remembers the last of them.
    ///
    /// # Errors
    /// [`JournalError`]: none of them may be sent.
    pub(super) async fn note_permits(
        &self,
        permits: Vec<PermitRecord>,
        now: DateTime<Utc>,
    ) -> Result<(), JournalError> {
        let last = permits.last().cloned();
        self.journal.permit(permits, now).await?;
        self.remember(last);
        Ok(())
    }

    /// The last permit that this process knows of.
    pub(super) fn last_permit(&self) -> Option<PermitRecord> {
        self.seen().last_permit.clone()
    }

    /// The next run looks at once.
    pub(super) fn doubt(&self) {
        self.seen().found_sound_at = None;
    }

    fn remember(&self, permits: impl IntoIterator<Item = PermitRecord>) {
        let mut seen = self.seen();
        seen.last_permit = seen
            .last_permit
            .take()
            .into_iter()
            .chain(permits)
            .max_by_key(|permit| permit.permitted_at);
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Charger {
    /// Whether charging stands on firm ground. When not, the brake is on, or the fence is closed.
    ///
    /// # Errors
    /// When the database fails, or the brake cannot be put on.
    pub(super) async fn is_ground_sound(&self, now: DateTime<Utc>) -> anyhow::Result<bool> {
        let is_fresh = |at: Moment| at.elapsed() < self.look_every;
        let is_fresh = self.ground.seen().found_sound_at.is_some_and(is_fresh);
        if is_fresh && self.ground.seen().planned_day == Some(day_of(now)) {
            return Ok(true);
        }
        match self.store.plan_day(&self.shops.names(), now).await {
            Ok(()) => self.ground.seen().planned_day = Some(day_of(now)),
            // Better a day without a cap than a day without charges.
            Err(error) => {
                tracing::error!(%error, "couldn't plan the day: it has no cap until that is done");
            }
        }
        let looked_at = Moment::now();
        let is_passed = self.is_fence_passed(now).await?;
        let Some(trip) = self.find_fault().await? else {
            self.ground.seen().found_sound_at = is_passed.then_some(looked_at);
            return Ok(is_passed);
        };
        self.ground.doubt();
        if self.store.trip(None, trip, now).await? {
            tracing::error!(reason = trip.reason(), "the brake came on");
        }
        Ok(false)
    }

    /// Whether the fence is open still. A closed one needs no brake: the database gives no permit to this daemon.
    async fn is_fence_passed(&self, now: DateTime<Utc>) -> anyhow::Result<bool> {
        let look = self.store.watch_fence(self.fence_id, now).await?;
        let is_passed = look == FenceLook::Open;
        self.metrics.fence_closed.set((!is_passed).into());
        if let FenceLook::Closed { is_news: true } = look {
            tracing::error!("the fence has closed behind this daemon; it charges nothing");
        }
        Ok(is_passed)
    }

    async fn find_fault(&self) -> anyhow::Result<Option<Trip>> {
        let missing = self.store.missing_guards().await?;
        if !missing.is_empty() {
            for finding in &missing {
                tracing::error!(detail = finding.detail, "a guard of the schema is gone");
            }
            return Ok(Some(Trip::Guards {
                missing: missing.len(),
            }));
        }
        let mut permits = self.ground.journal.newest_permits().await?;
        permits.extend(self.ground.last_permit());
        self.ground.remember(permits.iter().cloned());
        let forgotten = self.store.forgotten(permits).await?;
        Ok(forgotten.first().map(|permit| {
            tracing::error!(order.id = %permit.order_id, "the database has forgotten a permit that was given");
            Trip::behind(permit)
        }))
    }
}
