//! The tripwires: what the last debits and outcomes say about going on.
//!
//! Each instance remembers what it saw itself, and forgets it when it ends. No safety rests on that: attempts in doubt and budgets of
//! cards are counted in the database. What is decided here goes into the database, and holds for all instances from the next permit
//! on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};

use crate::domain::attempt::AttemptState;
use crate::domain::shop::ShopName;
use crate::domain::tripwire::{Finals, Sends, Trip, Usual};
use crate::store::Store;
use crate::store::resolution::Recorded;

/// What was seen of each shop. Clones share it.
#[derive(Clone, Default)]
pub struct Tripwires(Arc<Mutex<HashMap<ShopName, Seen>>>);

/// What was seen of a shop since the last trip.
#[derive(Default)]
struct Seen {
    sends: Sends,
    finals: Finals,
    usual: Usual,
}

/// Who brings what was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The answers to debits.
    Answers,
    /// Reads of transactions.
    Reads,
}

impl Tripwires {
    /// Notes what was recorded, and puts on the brake of the shops for which it is too much.
    pub(super) async fn note(
        &self,
        store: &Store,
        recorded: &[Recorded],
        source: Source,
        now: DateTime<Utc>,
    ) {
        for (shop, trip) in self.trips(recorded, source) {
            match store.trip(Some(&shop), trip, now).await {
                Ok(is_news) => {
                    if is_news {
                        tracing::error!(%shop, reason = trip.reason(), "the brake came on");
                    }
                    self.forget(&shop, trip);
                }
                // What was seen is kept: the next answer says so again.
                Err(error) => {
                    tracing::error!(%error, %shop, reason = trip.reason(), "couldn't put on the brake");
                }
            }
        }
    }

    /// The trips that `recorded` causes, each once.
    fn trips(&self, recorded: &[Recorded], source: Source) -> Vec<(ShopName, Trip)> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut trips: Vec<(ShopName, Trip)> = Vec::new();
        for one in recorded {
            let shop = seen.entry(one.shop.clone()).or_default();
            let doubts = match (source, one.attempt) {
                (Source::Reads, _) | (Source::Answers, AttemptState::NotSent) => None,
                (Source::Answers, state) => shop.sends.note(state == AttemptState::InDoubt),
            };
            let declines = match one.attempt_became {
                Some(AttemptState::Settled) => shop.finals.note(false, shop.usual),
                Some(AttemptState::Rejected) => shop.finals.note(true, shop.usual),
                Some(
                    AttemptState::InDoubt
                    | AttemptState::NotSent
                    | AttemptState::Refused
                    | AttemptState::Pending
                    | AttemptState::Absent
                    | AttemptState::Surplus,
                )
                | None => None,
            };
            for trip in [doubts, declines].into_iter().flatten() {
                let is_told = |(of, told): &(ShopName, Trip)| {
                    *of == one.shop && told.reason() == trip.reason()
                };
                if !trips.iter().any(is_told) {
                    trips.push((one.shop.clone(), trip));
                }
            }
        }
        trips
    }

    /// Begins anew after a trip, so that what led to it does not trip again after the release.
    fn forget(&self, shop: &ShopName, trip: Trip) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let shop = seen.entry(shop.clone()).or_default();
        match trip {
            Trip::Doubts { .. } => shop.sends = Sends::default(),
            Trip::Declines { .. } => shop.finals = Finals::default(),
            Trip::Clocks(_)
            | Trip::DailyCap { .. }
            | Trip::Guards { .. }
            | Trip::BooksBehind { .. } => {}
        }
    }

    /// Takes note of how often each shop's debits are declined at other times.
    pub(super) fn set_usual(&self, usual: HashMap<ShopName, Usual>) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (shop, usual) in usual {
            seen.entry(shop).or_default().usual = usual;
        }
    }
}
