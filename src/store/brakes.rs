//! The brake: the kill switch of all shops and of each.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use sqlx::PgTransaction;

use crate::domain::event::EventKind;
use crate::domain::shop::ShopName;
use crate::store::events::{self, NewEvent};
use crate::store::{Store, StoreError, Wake, wake};

/// What may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "brake_mode", rename_all = "snake_case")]
pub enum BrakeMode {
    /// Everything.
    Run,
    /// No new debit; what has its permit is still sent.
    Drain,
    /// No debit at all; permits that were not sent yet are given back.
    Stop,
}

impl BrakeMode {
    /// How it is spelt in the database, in metrics and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            BrakeMode::Run => "run",
            BrakeMode::Drain => "drain",
            BrakeMode::Stop => "stop",
        }
    }
}

/// The brake of one shop, or of all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Brake {
    /// The shop, or `*` for all.
    pub shop: String,
    /// What may be sent.
    pub mode: BrakeMode,
    /// Why it was set so.
    pub reason: String,
    /// Who set it.
    pub actor: String,
    /// When.
    pub changed_at: DateTime<Utc>,
}

/// The name of the row that brakes every shop.
pub const ALL_SHOPS: &str = "*";

impl Store {
    /// Every brake that was ever set; a shop without one follows the brake of all.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn brakes(&self) -> Result<Vec<Brake>, StoreError> {
        Ok(sqlx::query_as!(
            Brake,
            r#"-- brakes
            SELECT shop, mode AS "mode: BrakeMode", reason, actor, changed_at FROM brakes ORDER BY shop"#
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// Whether the brake of `shop`, or of all, says stop: then even what has its permit is not sent.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn is_stopped(&self, shop: &ShopName) -> Result<bool, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"-- is_shop_stopped
            SELECT EXISTS (SELECT FROM brakes WHERE shop IN ('*', $1) AND mode = 'stop') AS "is_stopped!""#,
            shop.as_str(),
        )
        .fetch_one(&self.pool)
        .await?)
    }

    /// Sets the brake of one shop, or of all. Effective for every permit that is not committed yet, everywhere.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn set_brake(
        &self,
        shop: Option<&ShopName>,
        mode: BrakeMode,
        actor: &str,
        reason: &str,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        let event = put(&mut transaction, shop, mode, actor, reason, now).await?;
        events::append(&mut transaction, &[event], self.channels, now).await?;
        if mode == BrakeMode::Run {
            wake(&mut transaction, Wake::Charger).await?;
        }
        transaction.commit().await?;
        Ok(())
    }
}

/// Writes the brake and returns the event that tells it.
async fn put(
    transaction: &mut PgTransaction<'_>,
    shop: Option<&ShopName>,
    mode: BrakeMode,
    actor: &str,
    reason: &str,
    now: DateTime<Utc>,
) -> Result<NewEvent, StoreError> {
    let scope = shop.map_or(ALL_SHOPS, ShopName::as_str);
    sqlx::query!(
        "-- put_brake
        INSERT INTO brakes (shop, mode, reason, actor, changed_at) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (shop) DO UPDATE SET
            mode = excluded.mode, reason = excluded.reason, actor = excluded.actor, changed_at = excluded.changed_at",
        scope,
        mode as BrakeMode,
        reason,
        actor,
        now,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(NewEvent {
        kind: EventKind::BrakeChanged,
        subscription_id: None,
        shop: shop.cloned(),
        charge_id: None,
        attempt_id: None,
        payload: events::payload(
            &json!({ "shop": scope, "mode": mode, "actor": actor, "reason": reason }),
        ),
    })
}

/// Stops every shop because of an incident, unless everything is stopped already.
pub(super) async fn stop_all(
    transaction: &mut PgTransaction<'_>,
    reason: &str,
    now: DateTime<Utc>,
) -> Result<Option<NewEvent>, StoreError> {
    let stopped = sqlx::query_scalar!(
        r#"-- is_stopped
        SELECT EXISTS (SELECT FROM brakes WHERE shop = '*' AND mode = 'stop') AS "stopped!""#
    )
    .fetch_one(&mut **transaction)
    .await?;
    if stopped {
        return Ok(None);
    }
    put(transaction, None, BrakeMode::Stop, "cykl", reason, now)
        .await
        .map(Some)
}
