//! Cards that are looked at before they are charged, and what was found.

use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use uuid::Uuid;

use crate::domain::event::EventKind;
use crate::domain::id::{CardId, ProfileId, SubscriptionId};
use crate::domain::preflight::{CardConcern, LOOK_AHEAD};
use crate::domain::shop::ShopName;
use crate::store::events::{self, NewEvent};
use crate::store::{Store, StoreError, despite_others};

/// How many cards are taken at most.
pub const BATCH: usize = 200;

/// A card with a charge that falls due before long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardToLookAt {
    /// The card.
    pub card_id: CardId,
    /// Whose it is.
    pub shop: ShopName,
    /// imoje's id of it.
    pub profile_id: ProfileId,
    /// When the charge falls due.
    pub due_at: DateTime<Utc>,
    /// The local date of it.
    pub due_on: NaiveDate,
    /// Of which subscription.
    pub subscription_id: SubscriptionId,
}

/// How far the queue of what falls due was looked through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// When the last charge that was looked at falls due.
    pub due_at: DateTime<Utc>,
    /// Of which subscription.
    pub subscription_id: SubscriptionId,
}

impl Place {
    /// Before everything that falls due after `now`.
    pub fn after(now: DateTime<Utc>) -> Self {
        Self {
            due_at: now,
            subscription_id: SubscriptionId::from_uuid(Uuid::max()),
        }
    }
}

/// What imoje showed of a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look<'a> {
    /// `****` and the last four digits, if shown.
    pub masked_number: Option<&'a str>,
    /// The last day on which it is good, if shown.
    pub expires_on: Option<NaiveDate>,
    /// What is to be told.
    pub concern: Option<CardConcern>,
}

/// What an event says about a card.
#[derive(Debug, Serialize)]
struct Told<'a> {
    reason: CardConcern,
    cid: &'a str,
    payment_profile_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    masked_number: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_on: Option<NaiveDate>,
    next_charge_on: NaiveDate,
}

impl Store {
    /// The next cards, at most [`BATCH`], of `shops` behind `place` that have a profile and a charge within [`LOOK_AHEAD`], and were not looked at
    /// since that began; in the order of their charges. A card with several such charges may be there several times.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn cards_to_look_at(
        &self,
        shops: &[ShopName],
        place: Place,
        now: DateTime<Utc>,
    ) -> Result<Vec<CardToLookAt>, StoreError> {
        Ok(sqlx::query_as!(
            CardToLookAt,
            r#"-- cards_to_look_at
            SELECT k.card_id AS "card_id: CardId", k.shop AS "shop: ShopName", k.payment_profile_id AS "profile_id!: ProfileId",
                   d.due_at, d.due_on, d.subscription_id AS "subscription_id: SubscriptionId"
            FROM due_periods d
                JOIN subscriptions s ON s.subscription_id = d.subscription_id
                JOIN cards k ON k.card_id = s.card_id
            WHERE (d.due_at, d.subscription_id) > ($1, $2) AND d.due_at <= $3
                AND k.shop = ANY($4) AND k.is_active AND k.payment_profile_id IS NOT NULL
                AND (k.looked_at IS NULL OR k.looked_at < d.due_at - ($3 - $5))
            ORDER BY d.due_at, d.subscription_id LIMIT 200"#,
            place.due_at,
            place.subscription_id as SubscriptionId,
            now + LOOK_AHEAD,
            shops as &[ShopName],
            now,
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// Writes down that `card_id` was looked at and what imoje showed, and tells a concern to the subscriptions that are charged to it: once,
    /// until it is another or none. Returns whether something was told.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is changed then.
    pub async fn note_look(
        &self,
        card_id: CardId,
        look: Look<'_>,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        despite_others(StoreError::is_busy, || {
            self.note_look_once(card_id, look, now)
        })
        .await
    }

    async fn note_look_once(
        &self,
        card_id: CardId,
        look: Look<'_>,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin().await?;
        // Subscriptions before cards, as everybody locks them: they are told about.
        let billed = sqlx::query!(
            r#"-- lock_subscriptions_of_card
            SELECT s.subscription_id AS "subscription_id: SubscriptionId", d.due_on
            FROM subscriptions s JOIN due_periods d ON d.subscription_id = s.subscription_id
            WHERE s.card_id = $1 ORDER BY s.subscription_id FOR NO KEY UPDATE OF s"#,
            card_id as CardId,
        )
        .fetch_all(&mut *transaction)
        .await?;
        let card = sqlx::query!(
            r#"-- lock_card_for_look
            SELECT shop AS "shop: ShopName", cid, payment_profile_id, masked_number, expires_on, concern AS "concern: CardConcern"
            FROM cards WHERE card_id = $1 FOR NO KEY UPDATE"#,
            card_id as CardId,
        )
        .fetch_one(&mut *transaction)
        .await?;
        let masked_number = look.masked_number.or(card.masked_number.as_deref());
        let expires_on = look.expires_on.or(card.expires_on);
        sqlx::query!(
            "-- note_look
            UPDATE cards SET looked_at = $2, masked_number = $3, expires_on = $4, concern = $5 WHERE card_id = $1",
            card_id as CardId,
            now,
            masked_number,
            expires_on,
            look.concern as Option<CardConcern>,
        )
        .execute(&mut *transaction)
        .await?;
        let told: Vec<NewEvent> = match look.concern {
            Some(reason) if card.concern != Some(reason) => billed
                .iter()
                .map(|billed| NewEvent {
                    kind: kind(reason),
                    subscription_id: Some(billed.subscription_id),
                    shop: Some(card.shop.clone()),
                    charge_id: None,
                    attempt_id: None,
                    payload: events::payload(&Told {
                        reason,
                        cid: &card.cid,
                        payment_profile_id: card.payment_profile_id,
                        masked_number,
                        expires_on,
                        next_charge_on: billed.due_on,
                    }),
                })
                .collect(),
            Some(_) | None => Vec::new(),
        };
        events::append(&mut transaction, &told, self.channels, now).await?;
        transaction.commit().await?;
        Ok(!told.is_empty())
    }
}

fn kind(concern: CardConcern) -> EventKind {
    match concern {
        CardConcern::Expiring => EventKind::CardExpiring,
        CardConcern::Inactive | CardConcern::NotRecurring => EventKind::CardInactive,
    }
}
