//! The outbox: events on their way out. At least once, oldest first.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::types::JsonValue;

use crate::domain::id::{AttemptId, ChargeId, EventId, SubscriptionId};
use crate::domain::shop::ShopName;
use crate::store::{Store, StoreError};

/// How many deliveries are taken at once.
pub const BATCH: usize = 200;

/// Where an event is delivered to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// The log.
    Log,
    /// The webhook of the configuration.
    Webhook,
}

impl Channel {
    const fn as_str(self) -> &'static str {
        match self {
            Channel::Log => "log",
            Channel::Webhook => "webhook",
        }
    }
}

/// An event, as it is told.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    /// Its id; a receiver that sees it twice ignores the second.
    pub event_id: EventId,
    /// What kind of fact it is.
    pub kind: String,
    /// Whether operators are alerted.
    pub is_alert: bool,
    /// When it happened.
    pub occurred_at: DateTime<Utc>,
    /// Its shop.
    pub shop: Option<ShopName>,
    /// Its subscription.
    pub subscription_id: Option<SubscriptionId>,
    /// The shop's own name for that subscription.
    pub external_id: Option<String>,
    /// Its place among the events of that subscription, from 1 without gaps.
    pub sequence_no: Option<i64>,
    /// Its charge.
    pub charge_id: Option<ChargeId>,
    /// Its attempt.
    pub attempt_id: Option<AttemptId>,
    /// The particulars.
    pub payload: JsonValue,
}

impl Store {
    /// Takes events that wait for `channel`, and puts each off, longer each time, so that a crash delivers it again.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is taken then.
    pub async fn take_deliveries(
        &self,
        channel: Channel,
        now: DateTime<Utc>,
    ) -> Result<Vec<Event>, StoreError> {
        Ok(sqlx::query_as!(
            Event,
            r#"-- take_deliveries
            WITH due AS (
                SELECT event_id, channel FROM outbox
                WHERE next_attempt_at <= $1 AND channel = $2
                ORDER BY next_attempt_at, event_id LIMIT 200 FOR UPDATE SKIP LOCKED
            ), taken AS (
                UPDATE outbox o
                SET next_attempt_at = $1 + least(interval '30 seconds' * (2 ^ least(o.tries, 20)), interval '6 hours'),
                    tries = least(o.tries + 1, 1000)
                FROM due WHERE o.event_id = due.event_id AND o.channel = due.channel
                RETURNING o.event_id
            )
            SELECT e.event_id AS "event_id: EventId", e.kind, e.is_alert, e.occurred_at, e.shop AS "shop: ShopName",
                   e.subscription_id AS "subscription_id: SubscriptionId", s.external_id AS "external_id?", e.sequence_no,
                   e.charge_id AS "charge_id: ChargeId", e.attempt_id AS "attempt_id: AttemptId", e.payload
            FROM taken JOIN events e USING (event_id) LEFT JOIN subscriptions s USING (subscription_id)
            ORDER BY e.event_id"#,
            now,
            channel.as_str(),
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// Takes events out of the outbox that `channel` has received.
    ///
    /// # Errors
    /// [`StoreError`]; they are delivered again then.
    pub async fn delivered(&self, channel: Channel, events: &[EventId]) -> Result<(), StoreError> {
        sqlx::query!(
            "-- delivered
            DELETE FROM outbox WHERE channel = $1 AND event_id = ANY($2)",
            channel.as_str(),
            events as &[EventId],
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
