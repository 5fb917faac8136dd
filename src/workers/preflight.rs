//! The pre-flight: cards are looked at a week before they are charged, so that a payer can register another one in time.
//!
//! It reads and tells, and nothing else: a debit goes out on its day whatever was found.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use tokio_util::sync::CancellationToken;

use crate::domain::id::CardId;
use crate::domain::preflight::{self, CardFacts};
use crate::domain::shop::ShopName;
use crate::gateway::{Profile, ProfileKind, ReadError};
use crate::store::Store;
use crate::store::preflight::{BATCH, CardToLookAt, Look, Place};
use crate::workers::round::Rounds;
use crate::workers::shops::Shops;

/// Looks at cards.
#[derive(Clone)]
pub struct Preflight {
    store: Store,
    shops: Shops,
    stop: CancellationToken,
    rounds: Rounds<Place>,
}

/// What one run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Cards that imoje was asked about, and showed.
    pub looked_at: usize,
    /// Of them, those that were told.
    pub told: usize,
}

/// A card that could not be read is tried again after that time.
const ROUND_EVERY: TimeDelta = TimeDelta::hours(1);

impl Preflight {
    /// Looks at the cards of `shops` until `stop` is cancelled.
    pub fn new(store: Store, shops: Shops, stop: CancellationToken) -> Self {
        Self {
            store,
            shops,
            stop,
            rounds: Rounds::new(ROUND_EVERY),
        }
    }

    /// Goes on with the round of the hour, by one batch. Cards are read one after the other, so that charging has imoje to itself.
    ///
    /// # Errors
    /// When the database fails. What was looked at before is written down, and the next run goes on.
    pub async fn run_once(&self, now: DateTime<Utc>) -> anyhow::Result<Report> {
        let mut report = Report::default();
        let Some(turn) = self.rounds.turn(Place::after(now), now) else {
            return Ok(report);
        };
        let mut place = turn.place;
        let shops = self.shops.names();
        let cards = (self.store).cards_to_look_at(&shops, place, now).await?;
        let is_last = cards.len() < BATCH;
        let mut seen = Seen::default();
        for card in cards {
            if self.stop.is_cancelled() {
                break;
            }
            place = Place {
                due_at: card.due_at,
                subscription_id: card.subscription_id,
            };
            // Before the look, so that one that fails stands in no other's way.
            self.rounds.keep(Some(place));
            self.look_at(&card, &mut seen, &mut report, now).await?;
        }
        self.rounds.keep((!is_last).then_some(place));
        Ok(report)
    }

    async fn look_at(
        &self,
        card: &CardToLookAt,
        seen: &mut Seen,
        report: &mut Report,
        now: DateTime<Utc>,
    ) -> anyhow::Result<()> {
        if seen.away.contains(&card.shop) || !seen.cards.insert(card.card_id) {
            return Ok(());
        }
        let Some(shop) = self.shops.get(&card.shop) else {
            return Ok(());
        };
        let profile = match shop.client.profile(card.profile_id).await {
            Ok(profile) => profile,
            Err(error) => {
                seen.failed(card, &error);
                return Ok(());
            }
        };
        let facts = facts(&profile);
        let look = Look {
            masked_number: profile.masked_number.as_deref(),
            expires_on: facts.expires_on,
            concern: preflight::concern(facts, card.due_on),
        };
        report.looked_at += 1;
        if self.store.note_look(card.card_id, look, now).await? {
            report.told += 1;
        }
        Ok(())
    }
}

/// What one run knows already.
#[derive(Debug, Default)]
struct Seen {
    cards: BTreeSet<CardId>,
    /// Shops that imoje was not asked about any more.
    away: BTreeSet<ShopName>,
}

impl Seen {
    fn failed(&mut self, card: &CardToLookAt, error: &ReadError) {
        let (shop, profile_id) = (&card.shop, card.profile_id);
        match error {
            // Another merchant's credentials look the same, and must not tell every payer that the card is gone: the debit will say.
            ReadError::NotFound | ReadError::Unreadable | ReadError::Mismatch => {
                tracing::warn!(%shop, %profile_id, %error, "couldn't look at a card before its charge");
            }
            ReadError::Unauthorized { .. }
            | ReadError::Unbuildable(_)
            | ReadError::Connect(_)
            | ReadError::Lost(_)
            | ReadError::Status { .. } => {
                tracing::warn!(%shop, %error, "couldn't look at cards before their charges; another try follows within the hour");
                self.away.insert(shop.clone());
            }
        }
    }
}

fn facts(profile: &Profile) -> CardFacts {
    CardFacts {
        is_active: profile.is_active,
        is_recurring: profile.kind.map(|kind| match kind {
            ProfileKind::Recurring => true,
            ProfileKind::OneClick => false,
        }),
        expires_on: profile.expires_on(),
    }
}
