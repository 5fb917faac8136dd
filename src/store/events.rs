//! Appending events and putting them into the outbox, in the transaction of the fact that they tell.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use sqlx::PgTransaction;
use sqlx::types::Json;

use crate::domain::event::EventKind;
use crate::domain::id::{AttemptId, ChargeId, EventId, SubscriptionId};
use crate::domain::shop::ShopName;
use crate::store::copying::Rows;
use crate::store::{StoreError, Wake, new_id, wake};

/// Where events are delivered to, besides being kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channels {
    /// To the webhook of the shop.
    pub webhook: bool,
}

/// A fact to be told.
#[derive(Debug, Clone)]
pub(super) struct NewEvent {
    pub kind: EventKind,
    pub subscription_id: Option<SubscriptionId>,
    pub shop: Option<ShopName>,
    pub charge_id: Option<ChargeId>,
    pub attempt_id: Option<AttemptId>,
    pub payload: Box<RawValue>,
}

/// What an event says. A member that would be null is left out by whoever makes it.
pub(super) fn payload(of: &impl Serialize) -> Box<RawValue> {
    to_raw_value(of).expect("a payload has words for keys")
}

/// The first fact about a subscription that is being stored.
#[derive(Debug)]
pub(super) struct FirstEvent<'a, P> {
    pub kind: EventKind,
    pub subscription_id: SubscriptionId,
    pub shop: &'a ShopName,
    pub payload: P,
}

/// Appends `events` in their order and puts them into the outbox: for the log what operators are alerted to, for the webhook all.
pub(super) async fn append(
    transaction: &mut PgTransaction<'_>,
    events: &[NewEvent],
    channels: Channels,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    if events.is_empty() {
        return Ok(());
    }
    let mut outbox = vec!["log".to_owned()];
    if channels.webhook {
        outbox.push("webhook".to_owned());
    }
    write(transaction, events, &outbox, now).await?;
    if channels.webhook || events.iter().any(|event| event.kind.is_alert()) {
        wake(transaction, Wake::Notifier).await?;
    }
    Ok(())
}

/// Appends the rows of [`FirstEvent::add_to`], and tells nobody: for facts by the thousand that whoever caused them knows.
pub(super) const COPY_FIRST: &str = include_str!("sql/copy_first_events.sql");

impl<P: Serialize> FirstEvent<'_, P> {
    /// Adds its row to those that [`COPY_FIRST`] stores.
    pub fn add_to(&self, rows: &mut Rows, now: DateTime<Utc>) -> Result<(), StoreError> {
        const SEQUENCE_NO: i64 = 1;
        rows.push(&[
            &EventId::from_uuid(new_id(now)),
            &self.subscription_id,
            &SEQUENCE_NO,
            &self.kind.as_str(),
            &self.kind.is_alert(),
            self.shop,
            &Json(&self.payload),
            &now,
        ])
    }
}

async fn write(
    transaction: &mut PgTransaction<'_>,
    events: &[NewEvent],
    outbox: &[String],
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    if events.is_empty() {
        return Ok(());
    }
    let ids: Vec<EventId> = events
        .iter()
        .map(|_| EventId::from_uuid(new_id(now)))
        .collect();
    let subscriptions: Vec<_> = events.iter().map(|event| event.subscription_id).collect();
    let kinds: Vec<_> = events
        .iter()
        .map(|event| event.kind.as_str().to_owned())
        .collect();
    let alerts: Vec<_> = events.iter().map(|event| event.kind.is_alert()).collect();
    let shops: Vec<_> = events.iter().map(|event| event.shop.clone()).collect();
    let charges: Vec<_> = events.iter().map(|event| event.charge_id).collect();
    let attempts: Vec<_> = events.iter().map(|event| event.attempt_id).collect();
    let payloads: Vec<_> = events.iter().map(|event| Json(&*event.payload)).collect();
    sqlx::query_file!(
        "src/store/sql/append_events.sql",
        &ids as &[EventId],
        &subscriptions as &[Option<SubscriptionId>],
        &kinds,
        &alerts,
        &shops as &[Option<ShopName>],
        &charges as &[Option<ChargeId>],
        &attempts as &[Option<AttemptId>],
        &payloads as &[Json<&RawValue>],
        now,
        outbox,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}
