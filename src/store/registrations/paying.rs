//! Recording what a payer paid by a link: the charge of a period, a verification, or money that has to go back.

use chrono::{DateTime, NaiveDate, Utc};
use serde_json::json;
use sqlx::PgTransaction;

use super::{Subject, lock, look_again};
use crate::domain::attempt::AttemptState;
use crate::domain::charge::ChargeState;
use crate::domain::event::EventKind;
use crate::domain::id::{
    AttemptId, ChargeId, EvidenceId, RegistrationId, SubscriptionId, TransactionId,
};
use crate::domain::money::Currency;
use crate::domain::registration::{Purpose, RegistrationEvent, RegistrationState};
use crate::domain::resolution::{ResolverPolicy, SubscriptionStep};
use crate::domain::shop::ShopName;
use crate::domain::subscription::SubscriptionEvent;
use crate::store::events::{self, NewEvent};
use crate::store::resolution::{AttemptPayload, Evidence, EvidenceKind, step_subscription};
use crate::store::status::{self, StepError, Stopped};
use crate::store::{Store, StoreError, despite_others, new_id, readings};

/// A payment by a link that imoje shows as settled.
#[derive(Debug, Clone)]
pub struct PaidByLink {
    /// The registration.
    pub registration_id: RegistrationId,
    /// imoje's id of the payment.
    pub transaction_id: TransactionId,
    /// Where that is known from.
    pub evidence: Evidence,
}

/// The charge of the period that is paid, under lock.
struct Charge {
    charge_id: ChargeId,
    state: ChargeState,
    attempts: i16,
    /// Whether another attempt of it has moved money, or may.
    is_blocked: bool,
}

impl Store {
    /// Records a payment by a link. `due_at` says when a date of the subscription falls due. Recording the same again changes nothing.
    ///
    /// Returns the state of the registration.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is recorded then.
    pub async fn record_paid_by_link(
        &self,
        paid: &PaidByLink,
        policy: &ResolverPolicy,
        now: DateTime<Utc>,
        due_at: impl Fn(&Stopped, NaiveDate) -> DateTime<Utc> + Send + Sync,
    ) -> Result<RegistrationState, StoreError> {
        despite_others(StoreError::is_busy, || {
            self.record_paid_once(paid, policy, now, &due_at)
        })
        .await
    }

    async fn record_paid_once(
        &self,
        paid: &PaidByLink,
        policy: &ResolverPolicy,
        now: DateTime<Utc>,
        due_at: &(impl Fn(&Stopped, NaiveDate) -> DateTime<Utc> + Send + Sync),
    ) -> Result<RegistrationState, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let (subscription_id, period_no) = what_for(&mut transaction, paid.registration_id).await?;
        // In the order in which every transaction locks: charges, next period, subscription, and then what is about them.
        let charge = match period_no {
            Some(period_no) => lock_charge(&mut transaction, subscription_id, period_no).await?,
            None => None,
        };
        let (_, stopped) = status::lock(&mut transaction, subscription_id)
            .await
            .map_err(of_step)?;
        let subject = lock(&mut transaction, paid.registration_id).await?;
        let id = paid.transaction_id;
        if subject.transaction_id == Some(id) || subject.surplus_ids.contains(&id) {
            return Ok(subject.state);
        }
        let (state, is_first) = match subject.state.after(RegistrationEvent::Paid) {
            Ok(state) => (state, true),
            Err(_) => (subject.state, false),
        };
        note_payment(&mut transaction, &subject, id, is_first, policy, now).await?;
        let mut told = Vec::new();
        if is_first {
            let more = json!({ "transaction_id": id });
            told.push(subject.event(EventKind::RegistrationPaid, state, more));
        }
        match (subject.purpose, period_no) {
            (Purpose::FirstCharge, Some(period_no)) => {
                let charge = match charge {
                    Some(charge) => charge,
                    None => {
                        insert_charge(&mut transaction, &subject, &stopped, period_no, now, due_at)
                            .await?
                    }
                };
                told.extend(book(&mut transaction, &subject, period_no, &charge, paid, now).await?);
            }
            (Purpose::FirstCharge | Purpose::Verification, _) if !is_first => {
                let more = json!({ "transaction_id": id });
                told.push(subject.event(EventKind::IncidentSurplus, state, more));
            }
            (Purpose::FirstCharge | Purpose::Verification, _) => {}
        }
        // Another link of the subscription may have lost its purpose by this.
        look_again(&mut transaction, subscription_id, now).await?;
        events::append(&mut transaction, &told, self.channels, now).await?;
        transaction.commit().await?;
        Ok(state)
    }
}

fn of_step(error: StepError) -> StoreError {
    match error {
        StepError::Store(error) => error,
        // A registration is of a subscription that there is, and a lock takes no step.
        StepError::Missing(_) | StepError::Illegal(_) => {
            StoreError::Unexpected(sqlx::Error::RowNotFound)
        }
    }
}

async fn what_for(
    transaction: &mut PgTransaction<'_>,
    registration_id: RegistrationId,
) -> Result<(SubscriptionId, Option<i32>), StoreError> {
    let row = sqlx::query!(
        r#"-- what_registration_is_for
        SELECT subscription_id AS "subscription_id: SubscriptionId", period_no FROM registrations WHERE registration_id = $1"#,
        registration_id as RegistrationId,
    )
    .fetch_one(&mut **transaction)
    .await?;
    Ok((row.subscription_id, row.period_no))
}

async fn lock_charge(
    transaction: &mut PgTransaction<'_>,
    subscription_id: SubscriptionId,
    period_no: i32,
) -> Result<Option<Charge>, StoreError> {
    // Locked first and read afterwards, so that what is read includes what the lock had to wait for.
    sqlx::query!(
        "-- lock_paid_charge
        SELECT charge_id FROM charges WHERE subscription_id = $1 AND period_no = $2 FOR UPDATE",
        subscription_id as SubscriptionId,
        period_no,
    )
    .fetch_optional(&mut **transaction)
    .await?;
    Ok(sqlx::query_as!(
        Charge,
        r#"-- charge_paid_by_link
        SELECT c.charge_id AS "charge_id: ChargeId", c.state AS "state: ChargeState", c.attempts,
               EXISTS (SELECT FROM attempts a
                       WHERE a.subscription_id = c.subscription_id AND a.period_no = c.period_no
                         AND a.state IN ('in_doubt', 'pending', 'settled', 'surplus')) AS "is_blocked!"
        FROM charges c WHERE c.subscription_id = $1 AND c.period_no = $2"#,
        subscription_id as SubscriptionId,
        period_no,
    )
    .fetch_optional(&mut **transaction)
    .await?)
}

/// Notes the payment in the registration: the first registers the card, and every further one is one too many.
async fn note_payment(
    transaction: &mut PgTransaction<'_>,
    subject: &Subject,
    transaction_id: TransactionId,
    is_first: bool,
    policy: &ResolverPolicy,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    if is_first {
        sqlx::query!(
            "-- note_payment_of_registration
            UPDATE registrations
            SET state = 'paid', reason = NULL, transaction_id = $2, paid_at = $3, ended_at = NULL, next_poll_at = $4, polls = 0
            WHERE registration_id = $1",
            subject.registration_id as RegistrationId,
            transaction_id as TransactionId,
            now,
            now + policy.poll_after(0),
        )
        .execute(&mut **transaction)
        .await?;
    } else {
        sqlx::query!(
            "-- note_surplus_of_registration
            UPDATE registrations SET surplus_ids = surplus_ids || $2::uuid WHERE registration_id = $1",
            subject.registration_id as RegistrationId,
            transaction_id as TransactionId,
        )
        .execute(&mut **transaction)
        .await?;
    }
    Ok(())
}

/// The charge of a period that nobody has planned.
async fn insert_charge(
    transaction: &mut PgTransaction<'_>,
    subject: &Subject,
    stopped: &Stopped,
    period_no: i32,
    now: DateTime<Utc>,
    due_at: &(impl Fn(&Stopped, NaiveDate) -> DateTime<Utc> + Send + Sync),
) -> Result<Charge, StoreError> {
    let period = stopped.terms.period(readings::count(period_no)?);
    let due_on = period
        .ok_or_else(|| StoreError::Unexpected(sqlx::Error::RowNotFound))?
        .due_on;
    let charge_id = ChargeId::from_uuid(new_id(now));
    let due_at = due_at(stopped, due_on);
    sqlx::query!(
        "-- insert_first_charge
        INSERT INTO charges (charge_id, subscription_id, shop, period_no, due_on, due_at, amount_minor, currency, state, next_action_at,
                             planned_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'planned', $6, $9)",
        charge_id as ChargeId,
        subject.subscription_id as SubscriptionId,
        &subject.shop as &ShopName,
        period_no,
        due_on,
        due_at,
        subject.amount_minor,
        subject.currency as Currency,
        now,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(Charge {
        charge_id,
        state: ChargeState::Planned,
        attempts: 0,
        is_blocked: false,
    })
}

/// Books a payment as an attempt of its charge, which is paid by it unless it was before. Returns what is told about it.
async fn book(
    transaction: &mut PgTransaction<'_>,
    subject: &Subject,
    period_no: i32,
    charge: &Charge,
    paid: &PaidByLink,
    now: DateTime<Utc>,
) -> Result<Vec<NewEvent>, StoreError> {
    let attempt = if charge.is_blocked {
        AttemptState::Surplus
    } else {
        AttemptState::Settled
    };
    let attempt_id = AttemptId::from_uuid(new_id(now));
    let attempt_no = charge.attempts + 1;
    insert_attempt(
        transaction,
        subject,
        period_no,
        charge,
        (attempt_id, attempt_no, attempt),
        paid,
        now,
    )
    .await?;
    sqlx::query!(
        "-- pay_charge_by_link
        UPDATE charges
        SET attempts = $2, first_attempt_at = coalesce(first_attempt_at, $3), state = 'paid', reason = NULL, next_action_at = NULL,
            paid_at = coalesce(paid_at, $3), paid_attempt_id = coalesce(paid_attempt_id, $4)
        WHERE charge_id = $1 AND subscription_id = $5",
        charge.charge_id as ChargeId,
        attempt_no,
        now,
        attempt_id as AttemptId,
        subject.subscription_id as SubscriptionId,
    )
    .execute(&mut **transaction)
    .await?;
    let event = |kind| NewEvent {
        kind,
        subscription_id: Some(subject.subscription_id),
        shop: Some(subject.shop.clone()),
        charge_id: Some(charge.charge_id),
        attempt_id: Some(attempt_id),
        payload: events::payload(&AttemptPayload {
            period_no,
            attempt_no,
            amount_minor: subject.amount_minor,
            currency: subject.currency,
            state: Some(ChargeState::Paid),
            next_action_at: None,
            reason: None,
            decline: None,
            status_code: None,
            brake: None,
        }),
    };
    let mut told = Vec::new();
    if charge.state != ChargeState::Paid {
        told.push(event(EventKind::ChargePaid));
    }
    if attempt == AttemptState::Surplus {
        told.push(event(EventKind::IncidentSurplus));
    }
    let caught_up = SubscriptionStep {
        event: SubscriptionEvent::CaughtUp,
        reason: None,
    };
    told.extend(step_subscription(transaction, subject.subscription_id, caught_up, now).await?);
    Ok(told)
}

async fn insert_attempt(
    transaction: &mut PgTransaction<'_>,
    subject: &Subject,
    period_no: i32,
    charge: &Charge,
    (attempt_id, attempt_no, state): (AttemptId, i16, AttemptState),
    paid: &PaidByLink,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let evidence_id = EvidenceId::from_uuid(new_id(now));
    sqlx::query!(
        "-- insert_attempt_by_link
        INSERT INTO attempts (attempt_id, charge_id, subscription_id, shop, period_no, attempt_no, order_id, amount_minor, currency,
                              state, is_retry, fence_id, permitted_at, deadline_at, quiet_until, transaction_id, card_masked, decided_at,
                              last_evidence_id)
        SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, false, i.fence_id, $11, $11, $11, $12, $13, $11, $14 FROM installation i",
        attempt_id as AttemptId,
        charge.charge_id as ChargeId,
        subject.subscription_id as SubscriptionId,
        &subject.shop as &ShopName,
        period_no,
        attempt_no,
        subject.order_id(),
        subject.amount_minor,
        subject.currency as Currency,
        state as AttemptState,
        now,
        paid.transaction_id as TransactionId,
        paid.evidence.card_masked,
        evidence_id as EvidenceId,
    )
    .execute(&mut **transaction)
    .await?;
    sqlx::query!(
        "-- insert_evidence_by_link
        INSERT INTO evidence (evidence_id, attempt_id, subscription_id, kind, verdict, http_status, gateway_status, transaction_id,
                              detail, actor, recorded_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'paid by a link', 'cykl', $9)",
        evidence_id as EvidenceId,
        attempt_id as AttemptId,
        subject.subscription_id as SubscriptionId,
        EvidenceKind::Read as EvidenceKind,
        state as AttemptState,
        paid.evidence.http_status.map(i16::try_from).and_then(Result::ok),
        paid.evidence.gateway_status,
        paid.transaction_id as TransactionId,
        now,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}
