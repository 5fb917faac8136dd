//! The ground that charging stands on: the guards of the schema, a database that has not gone back, and a plan for the day.
//!
//! It is looked at when the daemon starts, once a minute, after a run that failed, and each time after something was found. What is found stops everything until
//! a person has looked.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, NaiveDate, Utc};

use super::Charger;
use crate::domain::daily_cap::day_of;
use crate::domain::permit_record::PermitRecord;
use crate::domain::tripwire::Trip;

/// How often the ground is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// What was seen of the ground. Clones share it.
#[derive(Clone, Default)]
pub struct GroundWatch(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    found_sound_at: Option<Instant>,
    planned_day: Option<NaiveDate>,
    last_permit: Option<PermitRecord>,
}

impl GroundWatch {
    /// Notes a permit that is in the journal.
    pub(super) fn note_permit(&self, permit: PermitRecord) {
        self.seen().last_permit = Some(permit);
    }

    /// The next run looks at once.
    pub(super) fn doubt(&self) {
        self.seen().found_sound_at = None;
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Charger {
    /// Whether charging stands on firm ground. When not, the brake is on.
    ///
    /// # Errors
    /// When the database fails, or the brake cannot be put on.
    pub(super) async fn is_ground_sound(&self, now: DateTime<Utc>) -> anyhow::Result<bool> {
        if self.ground.seen().planned_day != Some(day_of(now)) {
            self.store.plan_day(&self.shops.names(), now).await?;
            self.ground.seen().planned_day = Some(day_of(now));
        }
        let is_fresh = |at: Instant| at.elapsed() < LOOK_EVERY;
        if self.ground.seen().found_sound_at.is_some_and(is_fresh) {
            return Ok(true);
        }
        let looked_at = Instant::now();
        let Some(trip) = self.find_fault().await? else {
            self.ground.seen().found_sound_at = Some(looked_at);
            return Ok(true);
        };
        self.ground.seen().found_sound_at = None;
        if self.store.trip(None, trip, now).await? {
            tracing::error!(reason = trip.reason(), "the brake came on");
        }
        Ok(false)
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
        let last_permit = self.ground.seen().last_permit.clone();
        let forgotten = self
            .store
            .forgotten(last_permit.into_iter().collect())
            .await?;
        Ok(forgotten.first().map(|permit| {
            tracing::error!(order.id = %permit.order_id, "the database has forgotten a permit that was given");
            Trip::BooksBehind {
                permitted_at: permit.permitted_at,
            }
        }))
    }
}
