//! Reading the books for people: charges, and the story of one.
//!
//! Nothing here changes anything. The fields have the names of the columns of the views in the schema `billing`.

use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use sqlx::types::JsonValue;
use uuid::Uuid;

use crate::domain::attempt::AttemptState;
use crate::domain::charge::ChargeState;
use crate::domain::decline::DeclineClass;
use crate::domain::id::{AttemptId, ChargeId, EventId, EvidenceId, SubscriptionId, TransactionId};
use crate::domain::money::Currency;
use crate::domain::shop::ShopName;
use crate::store::refunds::ListedRefund;
use crate::store::{Store, StoreError};

/// The most events of a charge that its story tells; the oldest are left out.
pub const EVENTS_MAX: i64 = 200;

/// Which charges to list. `None` stands for any.
#[derive(Debug, Clone, Default)]
pub struct ChargeFilter {
    /// In this state.
    pub state: Option<ChargeState>,
    /// Of this shop.
    pub shop: Option<ShopName>,
    /// Of the subscription with this id, or that a shop calls this.
    pub subscription: Option<String>,
}

/// A charge, as `billing.charges` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListedCharge {
    /// The charge.
    pub charge_id: ChargeId,
    /// Its subscription.
    pub subscription_id: SubscriptionId,
    /// What the shop calls the subscription.
    pub external_id: String,
    /// Its shop.
    pub shop: ShopName,
    /// Its period, counted from 0 at the anchor date.
    pub period_no: i32,
    /// The local date on which it is due.
    pub due_on: NaiveDate,
    /// The instant at which it falls due.
    pub due_at: DateTime<Utc>,
    /// How much, in minor units.
    pub amount_minor: i64,
    /// Of what.
    pub currency: Currency,
    /// Where it stands.
    pub state: ChargeState,
    /// How many permits were given for it.
    pub attempts: i16,
    /// When it is looked at again; `None` exactly when it is closed.
    pub next_action_at: Option<DateTime<Utc>>,
    /// When its payment was established.
    pub paid_at: Option<DateTime<Utc>>,
    /// The issuer's reason for the last decline.
    pub last_status_code: Option<String>,
    /// imoje's id of the payment.
    pub transaction_id: Option<TransactionId>,
    /// Why it stands there.
    pub reason: Option<String>,
}

/// An attempt at a charge, as `billing.attempts` shows it, and what happens to it next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListedAttempt {
    /// The attempt.
    pub attempt_id: AttemptId,
    /// Counted from 1.
    pub attempt_no: i16,
    /// What imoje was told as `orderId`.
    pub order_id: String,
    /// What is known about it.
    pub state: AttemptState,
    /// imoje's id.
    pub transaction_id: Option<TransactionId>,
    /// The issuer's reason for a decline.
    pub status_code: Option<String>,
    /// What the decline means.
    pub decline: Option<DeclineClass>,
    /// How much, in minor units.
    pub amount_minor: i64,
    /// Of what.
    pub currency: Currency,
    /// When its permit was committed, before the request was sent.
    pub permitted_at: DateTime<Utc>,
    /// Until then an answer might come by itself.
    pub deadline_at: DateTime<Utc>,
    /// When its fate was established.
    pub decided_at: Option<DateTime<Utc>>,
    /// When it is looked at again.
    pub next_poll_at: Option<DateTime<Utc>>,
    /// When people were asked to look.
    pub case_opened_at: Option<DateTime<Utc>>,
    /// The card, masked as imoje shows it.
    pub card_masked: Option<String>,
}

/// Why an attempt changed its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListedEvidence {
    /// The evidence.
    pub evidence_id: EvidenceId,
    /// The attempt that it is about.
    pub attempt_id: AttemptId,
    /// Where it comes from: `local`, `answer`, `read` or `person`.
    pub kind: String,
    /// What the attempt was held to be because of it.
    pub verdict: AttemptState,
    /// The HTTP status of the answer.
    pub http_status: Option<i16>,
    /// imoje's error code.
    pub error_code: Option<String>,
    /// imoje's word for where the transaction stands.
    pub gateway_status: Option<String>,
    /// The issuer's reason for a decline.
    pub status_code: Option<String>,
    /// The transaction that it names.
    pub transaction_id: Option<TransactionId>,
    /// In a few words.
    pub detail: Option<String>,
    /// Who brought it.
    pub actor: String,
    /// When.
    pub recorded_at: DateTime<Utc>,
}

/// What was told about a charge.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ListedEvent {
    /// The event.
    pub event_id: EventId,
    /// Its place among the events of the subscription.
    pub sequence_no: Option<i64>,
    /// What kind of fact.
    pub kind: String,
    /// When it happened.
    pub occurred_at: DateTime<Utc>,
    /// The particulars.
    pub payload: JsonValue,
}

/// All that is known about a charge.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChargeStory {
    /// The charge.
    #[serde(flatten)]
    pub charge: ListedCharge,
    /// What went back of its money, or was to, oldest first.
    pub refunds: Vec<ListedRefund>,
    /// Its attempts, the first one first. (`attempts` is how many.)
    pub attempt_list: Vec<ListedAttempt>,
    /// Why they stand where they stand, oldest first.
    pub evidence: Vec<ListedEvidence>,
    /// What was told, oldest first.
    pub events: Vec<ListedEvent>,
}

impl Store {
    /// The newest charges that pass `filter`, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn list_charges(
        &self,
        filter: &ChargeFilter,
        limit: u32,
    ) -> Result<Vec<ListedCharge>, StoreError> {
        let subscriptions = match &filter.subscription {
            Some(name) => Some(self.subscriptions_named(name).await?),
            None => None,
        };
        self.charges(None, filter, subscriptions.as_deref(), limit)
            .await
    }

    /// All that is known about one charge; `None` when there is none with this id.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn charge_story(
        &self,
        charge_id: ChargeId,
    ) -> Result<Option<ChargeStory>, StoreError> {
        let any = ChargeFilter::default();
        let Some(charge) = self.charges(Some(charge_id), &any, None, 1).await?.pop() else {
            return Ok(None);
        };
        Ok(Some(ChargeStory {
            charge,
            refunds: self.refunds_of(charge_id).await?,
            attempt_list: self.attempts_of(charge_id).await?,
            evidence: self.evidence_about(charge_id).await?,
            events: self.events_about(charge_id).await?,
        }))
    }

    async fn charges(
        &self,
        charge_id: Option<ChargeId>,
        filter: &ChargeFilter,
        subscriptions: Option<&[SubscriptionId]>,
        limit: u32,
    ) -> Result<Vec<ListedCharge>, StoreError> {
        Ok(sqlx::query_file_as!(
            ListedCharge,
            "src/store/sql/list_charges.sql",
            charge_id as Option<ChargeId>,
            filter.state as Option<ChargeState>,
            filter.shop.as_ref().map(ShopName::as_str),
            subscriptions as Option<&[SubscriptionId]>,
            i64::from(limit),
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// The subscriptions with this id, or that a shop calls this: what a shop calls a subscription may look like an id.
    async fn subscriptions_named(&self, name: &str) -> Result<Vec<SubscriptionId>, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"-- subscriptions_named
            SELECT s.subscription_id AS "subscription_id!: SubscriptionId"
            FROM shops p JOIN subscriptions s USING (shop) WHERE s.external_id = $1
            UNION
            SELECT s.subscription_id FROM subscriptions s WHERE s.subscription_id = $2"#,
            name,
            Uuid::parse_str(name).ok(),
        )
        .fetch_all(&self.pool)
        .await?)
    }

    async fn attempts_of(&self, charge_id: ChargeId) -> Result<Vec<ListedAttempt>, StoreError> {
        Ok(sqlx::query_file_as!(
            ListedAttempt,
            "src/store/sql/attempts_of_charge.sql",
            charge_id as ChargeId,
        )
        .fetch_all(&self.pool)
        .await?)
    }

    async fn evidence_about(&self, charge_id: ChargeId) -> Result<Vec<ListedEvidence>, StoreError> {
        Ok(sqlx::query_as!(
            ListedEvidence,
            r#"-- evidence_about
            SELECT e.evidence_id AS "evidence_id!: EvidenceId", e.attempt_id AS "attempt_id!: AttemptId", e.kind::text AS "kind!",
                   e.verdict AS "verdict!: AttemptState", e.http_status, e.error_code, e.gateway_status, e.status_code,
                   e.transaction_id AS "transaction_id: TransactionId", e.detail, e.actor AS "actor!",
                   e.recorded_at AS "recorded_at!"
            FROM all_charges c JOIN all_attempts a USING (subscription_id, period_no) JOIN all_evidence e USING (attempt_id)
            WHERE c.charge_id = $1 ORDER BY e.recorded_at, e.evidence_id"#,
            charge_id as ChargeId,
        )
        .fetch_all(&self.pool)
        .await?)
    }

    async fn events_about(&self, charge_id: ChargeId) -> Result<Vec<ListedEvent>, StoreError> {
        let mut events = sqlx::query_as!(
            ListedEvent,
            r#"-- events_about
            SELECT e.event_id AS "event_id!: EventId", e.sequence_no, e.kind AS "kind!", e.occurred_at AS "occurred_at!", e.payload AS "payload!"
            FROM all_charges c JOIN all_events e USING (subscription_id)
            WHERE c.charge_id = $1 AND e.charge_id = $1 ORDER BY e.sequence_no DESC LIMIT $2"#,
            charge_id as ChargeId,
            EVENTS_MAX,
        )
        .fetch_all(&self.pool)
        .await?;
        events.reverse();
        Ok(events)
    }
}
