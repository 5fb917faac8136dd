//! What a record changes beyond the attempts and their charges: subscriptions, cards, the brake, and what is told.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use sqlx::PgTransaction;

use super::Resolved;
use crate::domain::attempt::AttemptState;
use crate::domain::charge::ChargeState;
use crate::domain::decline::DeclineClass;
use crate::domain::event::EventKind;
use crate::domain::id::{CardId, ChargeId, SubscriptionId, TransactionId};
use crate::domain::money::Currency;
use crate::domain::resolution::SubscriptionStep;
use crate::domain::shop::ShopName;
use crate::domain::subscription::{SubscriptionEvent, SubscriptionStatus};
use crate::store::events::{self, Channels, NewEvent};
use crate::store::status::set_status;
use crate::store::{StoreError, brakes, cards};

pub(super) async fn write(
    transaction: &mut PgTransaction<'_>,
    news: &[&Resolved<'_>],
    channels: Channels,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let mut told: Vec<NewEvent> = news.iter().flat_map(|one| own_events(one)).collect();
    told.extend(step_subscriptions(transaction, news, now).await?);
    told.extend(hold_charges_of_inactive_cards(transaction, news).await?);
    if let Some(reason) = news.iter().find_map(|one| one.decision.brake) {
        told.extend(brakes::stop_all(transaction, reason, now).await?);
    }
    events::append(transaction, &told, channels, now).await
}

/// What is told about a decision of a person; see `docs/events.md`.
#[derive(Serialize)]
pub(in crate::store) struct DecidedPayload<'a> {
    pub decision: &'static str,
    pub actor: &'a str,
    pub reason: &'a str,
    pub period_no: i32,
    pub amount_minor: i64,
    pub currency: Currency,
    pub state: ChargeState,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_action_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt_no: Option<i16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt_state: Option<AttemptState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transaction_id: Option<TransactionId>,
}

/// What is told about an attempt; see `docs/events.md`.
#[derive(Serialize)]
pub(in crate::store) struct AttemptPayload<'a> {
    pub period_no: i32,
    pub attempt_no: i16,
    pub amount_minor: i64,
    pub currency: Currency,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<ChargeState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_action_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decline: Option<DeclineClass>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub brake: Option<&'a str>,
}

/// The person's decision that brought the news, and the events that follow from it.
fn own_events(one: &Resolved<'_>) -> Vec<NewEvent> {
    let (subject, decision) = (&one.subject, &one.decision);
    let event = |kind, payload| NewEvent {
        kind,
        subscription_id: Some(subject.subscription_id),
        shop: Some(subject.shop.clone()),
        charge_id: Some(subject.charge_id),
        attempt_id: Some(subject.attempt_id),
        payload,
    };
    let decided = one.finding.evidence.by.as_ref().map(|by| {
        let payload = events::payload(&DecidedPayload {
            decision: by.ruling.as_str(),
            actor: &by.actor,
            reason: &by.reason,
            period_no: subject.period_no,
            amount_minor: subject.amount_minor,
            currency: subject.currency,
            state: decision
                .charge
                .map_or(subject.standing.charge, |step| step.state),
            next_action_at: decision.charge.and_then(|step| step.next_action_at),
            attempt_no: Some(subject.attempt_no),
            attempt_state: Some(decision.attempt),
            transaction_id: one.finding.news.transaction_id(),
        });
        event(EventKind::ChargeDecided, payload)
    });
    let payload = events::payload(&AttemptPayload {
        period_no: subject.period_no,
        attempt_no: subject.attempt_no,
        amount_minor: subject.amount_minor,
        currency: subject.currency,
        state: decision.charge.map(|step| step.state),
        next_action_at: decision.charge.and_then(|step| step.next_action_at),
        reason: decision.charge.and_then(|step| step.reason),
        decline: decision.decline,
        status_code: decision.status_code.as_deref(),
        brake: decision.brake,
    });
    let events = (decision.events.iter()).map(|&kind| event(kind, payload.clone()));
    decided.into_iter().chain(events).collect()
}

/// Applies the subscription events, under lock, to whatever each subscription's status is by now.
async fn step_subscriptions(
    transaction: &mut PgTransaction<'_>,
    news: &[&Resolved<'_>],
    now: DateTime<Utc>,
) -> Result<Vec<NewEvent>, StoreError> {
    let mut steps: Vec<_> = news
        .iter()
        .filter_map(|one| {
            one.decision
                .subscription
                .map(|step| (one.subject.subscription_id, step))
        })
        .collect();
    steps.sort_by_key(|(subscription_id, _)| *subscription_id);
    let mut told = Vec::new();
    for (subscription_id, step) in steps {
        told.extend(step_subscription(transaction, subscription_id, step, now).await?);
    }
    Ok(told)
}

/// Applies an event to a subscription, under lock, whatever its status is by now. Returns what is told, if anything changed.
pub(in crate::store) async fn step_subscription(
    transaction: &mut PgTransaction<'_>,
    subscription_id: SubscriptionId,
    step: SubscriptionStep,
    now: DateTime<Utc>,
) -> Result<Option<NewEvent>, StoreError> {
    let row = sqlx::query!(
        r#"-- lock_subscription
        SELECT s.status AS "status: SubscriptionStatus", s.shop AS "shop: ShopName",
               EXISTS (SELECT FROM charges c WHERE c.subscription_id = s.subscription_id AND c.state = 'retry_wait') AS "is_behind!"
        FROM subscriptions s WHERE s.subscription_id = $1 FOR NO KEY UPDATE"#,
        subscription_id as SubscriptionId,
    )
    .fetch_one(&mut **transaction)
    .await?;
    if step.event == SubscriptionEvent::CaughtUp && row.is_behind {
        return Ok(None);
    }
    let Ok(status) = row.status.after(step.event) else {
        return Ok(None);
    };
    if status == row.status {
        return Ok(None);
    }
    let reason = step.reason.map(|reason| reason.as_str());
    let voided = set_status(transaction, subscription_id, status, reason, now).await?;
    Ok(Some(NewEvent {
        kind: event_kind(status),
        subscription_id: Some(subscription_id),
        shop: Some(row.shop),
        charge_id: None,
        attempt_id: None,
        payload: events::payload(
            &json!({ "status": status, "reason": reason, "voided_charges": voided }),
        ),
    }))
}

fn event_kind(status: SubscriptionStatus) -> EventKind {
    match status {
        SubscriptionStatus::PastDue => EventKind::SubscriptionPastDue,
        SubscriptionStatus::Registering | SubscriptionStatus::Active => {
            EventKind::SubscriptionRecovered
        }
        SubscriptionStatus::Paused => EventKind::SubscriptionPaused,
        SubscriptionStatus::Deactivated => EventKind::SubscriptionDeactivated,
        SubscriptionStatus::Cancelled => EventKind::SubscriptionCancelled,
        SubscriptionStatus::Completed => EventKind::SubscriptionCompleted,
    }
}

/// A card whose profile imoje calls inactive is charged by nobody: what other subscriptions have open on it is held.
async fn hold_charges_of_inactive_cards(
    transaction: &mut PgTransaction<'_>,
    news: &[&Resolved<'_>],
) -> Result<Vec<NewEvent>, StoreError> {
    let cards: Vec<_> = news
        .iter()
        .filter(|one| one.decision.card_inactive)
        .filter_map(|one| one.subject.card_id)
        .collect();
    if cards.is_empty() {
        return Ok(Vec::new());
    }
    cards::mark_inactive(transaction, &cards).await?;
    let held = sqlx::query!(
        r#"-- hold_charges_of_cards
        UPDATE charges c SET state = 'held', reason = 'card_inactive'
        FROM subscriptions s
        WHERE s.card_id = ANY($1) AND c.subscription_id = s.subscription_id AND c.state IN ('planned', 'retry_wait')
        RETURNING c.charge_id AS "charge_id: ChargeId", c.subscription_id AS "subscription_id: SubscriptionId",
                  c.shop AS "shop: ShopName", c.period_no, c.amount_minor, c.currency AS "currency: Currency""#,
        &cards as &[CardId],
    )
    .fetch_all(&mut **transaction)
    .await?;
    Ok(held
        .into_iter()
        .map(|row| NewEvent {
            kind: EventKind::ChargeHeld,
            subscription_id: Some(row.subscription_id),
            shop: Some(row.shop),
            charge_id: Some(row.charge_id),
            attempt_id: None,
            payload: events::payload(&json!({
                "period_no": row.period_no,
                "amount_minor": row.amount_minor,
                "currency": row.currency,
                "reason": "card_inactive",
            })),
        })
        .collect())
}
