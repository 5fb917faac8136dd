//! The tripwires: what the last debits and outcomes say about going on.
//!
//! Each instance remembers what it saw itself, and forgets it when it ends. No safety rests on that: attempts in doubt and budgets of
//! cards are counted in the database. What is decided here goes into the database, and holds for all instances from the next permit
//! on.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};

use crate::domain::attempt::AttemptState;
use crate::domain::id::AttemptId;
use crate::domain::shop::ShopName;
use crate::domain::tripwire::{Declines, OUTCOMES_AGE_MAX, Outcomes, Sends, Trip};
use crate::store::Store;
use crate::store::resolution::Recorded;

/// What was seen of each shop. Clones share it.
#[derive(Clone, Default)]
pub struct Tripwires(Arc<Mutex<HashMap<ShopName, Seen>>>);

/// What was seen of a shop since the last trip.
#[derive(Default)]
struct Seen {
    sends: Sends,
    outcomes: Outcomes,
    usual: Declines,
}

/// Who brings what was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The answers to debits.
    Answers,
    /// Reads of transactions.
    Reads,
}

/// The shops at which something is wrong, or may be.
#[derive(Default)]
struct Suspects {
    /// Too many of the last debits are in doubt.
    doubts: BTreeMap<ShopName, Trip>,
    /// Most of the last outcomes were declines, with the newest attempt that was declined now.
    declines: BTreeMap<ShopName, (AttemptId, Declines)>,
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
        let suspects = self.suspects(recorded, source);
        for (shop, trip) in suspects.doubts {
            self.trip(store, &shop, trip, now).await;
        }
        let since = now - OUTCOMES_AGE_MAX;
        for (shop, (newest, usual)) in suspects.declines {
            match store.declines_up_to(&shop, since, newest).await {
                Ok(lately) => {
                    if let Some(trip) = lately.trip(usual) {
                        self.trip(store, &shop, trip, now).await;
                    }
                }
                // The next outcome says so again.
                Err(error) => tracing::error!(%error, %shop, "couldn't count declines"),
            }
        }
    }

    fn suspects(&self, recorded: &[Recorded], source: Source) -> Suspects {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut suspects = Suspects::default();
        for one in recorded {
            let shop = seen.entry(one.shop.clone()).or_default();
            if source == Source::Answers && one.attempt != AttemptState::NotSent {
                let trip = shop.sends.note(one.attempt == AttemptState::InDoubt);
                suspects
                    .doubts
                    .extend(trip.map(|trip| (one.shop.clone(), trip)));
            }
            let is_suspicious = match one.attempt_became {
                Some(AttemptState::Settled) => shop.outcomes.note(false, shop.usual),
                Some(AttemptState::Rejected) => shop.outcomes.note(true, shop.usual),
                Some(
                    AttemptState::InDoubt
                    | AttemptState::NotSent
                    | AttemptState::Refused
                    | AttemptState::Pending
                    | AttemptState::Absent
                    | AttemptState::Surplus,
                )
                | None => false,
            };
            if is_suspicious {
                let (newest, _) = suspects
                    .declines
                    .entry(one.shop.clone())
                    .or_insert((one.attempt_id, shop.usual));
                *newest = (*newest).max(one.attempt_id);
            }
        }
        suspects
    }

    async fn trip(&self, store: &Store, shop: &ShopName, trip: Trip, now: DateTime<Utc>) {
        match store.trip(Some(shop), trip, now).await {
            Ok(is_news) => {
                if is_news {
                    tracing::error!(%shop, reason = trip.reason(), "the brake came on");
                }
                self.forget(shop, trip);
            }
            // What was seen is kept: the next answer says so again.
            Err(error) => {
                tracing::error!(%error, %shop, reason = trip.reason(), "couldn't put on the brake");
            }
        }
    }

    /// Begins anew after a trip, so that what led to it does not trip again after the release.
    fn forget(&self, shop: &ShopName, trip: Trip) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let shop = seen.entry(shop.clone()).or_default();
        match trip {
            Trip::Doubts { .. } => shop.sends = Sends::default(),
            Trip::Declines(_) => shop.outcomes = Outcomes::default(),
            Trip::Clocks(_)
            | Trip::ChannelOffline
            | Trip::DailyCap { .. }
            | Trip::Guards { .. }
            | Trip::BooksBehind { .. } => {}
        }
    }

    /// Takes note of how often each shop's debits are declined at other times.
    pub(super) fn set_usual(&self, usual: HashMap<ShopName, Declines>) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (shop, usual) in usual {
            seen.entry(shop).or_default().usual = usual;
        }
    }
}
