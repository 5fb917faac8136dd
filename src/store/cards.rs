//! Cards as people see and end them.

use chrono::{DateTime, Utc};
use serde_json::json;

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
        let marked = sqlx::query!(
            "-- mark_card_inactive
            UPDATE cards SET is_active = false WHERE card_id = $1 AND is_active",
            card.card_id as CardId,
        )
        .execute(&mut *transaction)
        .await
        .map_err(StoreError::from)?;
        if marked.rows_affected() == 0 {
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
