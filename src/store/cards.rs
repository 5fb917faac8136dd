//! Cards as people see and end them.

use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::PgTransaction;

use crate::domain::event::EventKind;
use crate::domain::id::{CardId, ProfileId};
use crate::domain::shop::ShopName;
use crate::store::events::{self, NewEvent};
use crate::store::status::By;
use crate::store::{Store, StoreError};

/// A card of the books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownCard {
    /// The card.
    pub card_id: CardId,
    /// What the shop calls it at imoje.
    pub cid: String,
    /// Whether it may be charged.
    pub is_active: bool,
    /// What the shop calls the subscriptions that are charged to it, now or after a pause.
    pub subscriptions: Vec<String>,
}

/// Why a card was not deactivated.
#[derive(Debug, thiserror::Error)]
pub enum DeactivateError {
    /// Subscriptions are charged to it.
    #[error("it is the card of {}", .0.join(", "))]
    InUse(Vec<String>),
    /// The database failed; nothing is changed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// The card with this profile, if the books have it.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn known_card(
        &self,
        shop: &ShopName,
        profile_id: ProfileId,
    ) -> Result<Option<KnownCard>, StoreError> {
        Ok(sqlx::query_as!(
            KnownCard,
            r#"-- known_card
            SELECT card_id AS "card_id: CardId", cid, is_active,
                   ARRAY(SELECT s.external_id FROM subscriptions s
                         WHERE s.card_id = k.card_id AND s.status IN ('active', 'past_due', 'paused')
                         ORDER BY s.external_id) AS "subscriptions!"
            FROM cards k WHERE payment_profile_id = $1 AND shop = $2"#,
            profile_id as ProfileId,
            shop as &ShopName,
        )
        .fetch_optional(&self.pool)
        .await?)
    }

    /// Takes care that a card is never charged again, and tells it; changes nothing about one that is inactive already. Returns whether
    /// anything was changed.
    ///
    /// # Errors
    /// [`DeactivateError::InUse`] while subscriptions are charged to it.
    pub async fn deactivate_card(
        &self,
        shop: &ShopName,
        profile_id: ProfileId,
        by: By<'_>,
        now: DateTime<Utc>,
    ) -> Result<bool, DeactivateError> {
        let Some(card) = self.known_card(shop, profile_id).await? else {
            return Ok(false);
        };
        if !card.subscriptions.is_empty() {
            return Err(DeactivateError::InUse(card.subscriptions));
        }
        let mut transaction = self.pool.begin().await.map_err(StoreError::from)?;
        if mark_inactive(&mut transaction, &[card.card_id]).await? == 0 {
            return Ok(false);
        }
        let event = NewEvent {
            kind: EventKind::CardDeactivated,
            subscription_id: None,
            shop: Some(shop.clone()),
            charge_id: None,
            attempt_id: None,
            payload: events::payload(&json!({
                "cid": card.cid,
                "payment_profile_id": profile_id,
                "actor": by.actor,
                "reason": by.reason,
            })),
        };
        events::append(&mut transaction, &[event], self.channels, now).await?;
        transaction.commit().await.map_err(StoreError::from)?;
        Ok(true)
    }
}

/// Takes care that cards are never charged again. Returns how many of them could be.
pub(super) async fn mark_inactive(
    transaction: &mut PgTransaction<'_>,
    cards: &[CardId],
) -> Result<u64, StoreError> {
    let marked = sqlx::query!(
        "-- mark_cards_inactive
        UPDATE cards SET is_active = false WHERE card_id = ANY($1) AND is_active",
        cards as &[CardId],
    )
    .execute(&mut **transaction)
    .await?;
    Ok(marked.rows_affected())
}
