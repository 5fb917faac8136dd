//! Recording what a payer paid by a link: the charge of a period, a verification, or money that has to go back.

use chrono::{DateTime, NaiveDate, Utc};
use serde_json::json;
use sqlx::PgTransaction;

use super::{Subject, lock, look_again};
use crate::domain::answer::ShownTransaction;
use crate::domain::attempt::AttemptState;
use crate::domain::charge::{ChargeEvent, ChargeState};
use crate::domain::event::EventKind;
use crate::domain::id::{
    AttemptId, ChargeId, EvidenceId, RegistrationId, SubscriptionId, TransactionId,
};
use crate::domain::money::Currency;
use crate::domain::registration::{Purpose, RegistrationEvent, RegistrationState, Way};
use crate::domain::resolution::{ResolverPolicy, SubscriptionStep};
use crate::domain::shop::ShopName;
use crate::domain::subscription::SubscriptionEvent;
use crate::store::events::{self, NewEvent};
use crate::store::planning::NextPeriod;
use crate::store::resolution::{AttemptPayload, Evidence, EvidenceKind, step_subscription};
use crate::store::status::{self, StepError, Stopped};
use crate::store::{Store, StoreError, brakes, despite_others, new_id, readings};

/// A payment by a link that imoje shows as settled.
#[derive(Debug, Clone)]
pub struct PaidByLink {
    /// The registration.
    pub registration_id: RegistrationId,
    /// imoje's id of the payment.
    pub transaction_id: TransactionId,
    /// When it was made, as imoje says.
    pub paid_at: Option<DateTime<Utc>>,
    /// Where that is known from.
    pub evidence: Evidence,
}

/// The charge of the period that is paid, under lock.
struct Charge {
    charge_id: ChargeId,
    state: ChargeState,
    attempts: i16,
    /// Whether another attempt of it has moved money.
    is_moved: bool,
    /// Whether that was ours: a debit, or card data.
    is_moved_by_us: bool,
    /// Whether another attempt of it may move money.
    is_live: bool,
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
        if let Some(period_no) = period_no {
            lock_charge(&mut transaction, subscription_id, period_no).await?;
        }
        let (status, stopped) = status::lock(&mut transaction, subscription_id)
            .await
            .map_err(of_lock)?;
        // Somebody may have planned it before all of that was locked.
        let charge = match period_no {
            Some(period_no) => lock_charge(&mut transaction, subscription_id, period_no).await?,
            None => None,
        };
        let subject = lock(&mut transaction, paid.registration_id).await?;
        let id = paid.transaction_id;
        if subject.transaction_id == Some(id) || subject.surplus_ids.contains(&id) {
            return Ok(subject.state);
        }
        let (state, is_first) = match subject.state.after(RegistrationEvent::Paid) {
            Ok(state) => (state, true),
            Err(_) => (subject.state, false),
        };
        note_payment(&mut transaction, &subject, paid, is_first, policy, now).await?;
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
                if status.is_billable() {
                    pass_over(&mut transaction, &stopped, period_no, now, due_at).await?;
                }
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

impl Store {
    /// Tells people that a payment by a link is not over what the link was made for, once. It decides nothing: whether it goes back is
    /// theirs to say, and a payer stops nobody.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is told then.
    pub async fn tell_mismatched_payment(
        &self,
        registration_id: RegistrationId,
        transaction_id: TransactionId,
        shown: Option<&ShownTransaction>,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        despite_others(StoreError::is_busy, || async {
            let mut transaction = self.pool.begin().await?;
            let subject = lock(&mut transaction, registration_id).await?;
            let noted = sqlx::query!(
                "-- note_mismatched_payment
                UPDATE registrations SET mismatched_ids = mismatched_ids || $2::uuid
                WHERE registration_id = $1 AND $2 <> ALL (mismatched_ids)",
                registration_id as RegistrationId,
                transaction_id as TransactionId,
            )
            .execute(&mut *transaction)
            .await?;
            if noted.rows_affected() == 0 {
                return Ok(());
            }
            let more = json!({
                "transaction_id": transaction_id,
                "shown_amount_minor": shown.and_then(|shown| shown.amount_minor),
                "shown_currency": shown.and_then(|shown| shown.currency.as_deref()),
            });
            let told = subject.event(EventKind::IncidentMismatch, subject.state, more);
            events::append(&mut transaction, &[told], self.channels, now).await?;
            transaction.commit().await?;
            Ok(())
        })
        .await
    }
}

/// Why a subscription that a registration is of could not be locked.
pub(super) fn of_lock(error: StepError) -> StoreError {
    match error {
        StepError::Store(error) => error,
        // A registration is of a subscription that there is, and a lock takes no step.
        StepError::Missing(_) | StepError::Illegal(_) => {
            StoreError::Unexpected(sqlx::Error::RowNotFound)
        }
    }
}

/// The subscription of a registration, and the period that is paid by it.
pub(super) async fn what_for(
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
                         AND a.state IN ('settled', 'surplus')) AS "is_moved!",
               EXISTS (SELECT FROM attempts a LEFT JOIN registrations r ON a.card_id IS NULL AND r.order_id = a.order_id
                       WHERE a.subscription_id = c.subscription_id AND a.period_no = c.period_no
                         AND a.state IN ('settled', 'surplus') AND (a.card_id IS NOT NULL OR r.way = 'card_data')) AS "is_moved_by_us!",
               EXISTS (SELECT FROM attempts a
                       WHERE a.subscription_id = c.subscription_id AND a.period_no = c.period_no
                         AND a.state IN ('in_doubt', 'pending')) AS "is_live!"
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
    paid: &PaidByLink,
    is_first: bool,
    policy: &ResolverPolicy,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let transaction_id = paid.transaction_id;
    // Not before the link was there, nor after it was heard of, whatever the clocks of others say.
    let paid_at = paid.paid_at.unwrap_or(now).max(subject.created_at).min(now);
    if is_first {
        sqlx::query!(
            "-- note_payment_of_registration
            UPDATE registrations
            SET state = 'paid', reason = NULL, transaction_id = $2, paid_at = $3, ended_at = NULL, next_poll_at = $4, polls = 0
            WHERE registration_id = $1",
            subject.registration_id as RegistrationId,
            transaction_id as TransactionId,
            paid_at,
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
        is_moved: false,
        is_moved_by_us: false,
        is_live: false,
    })
}

/// Lets a subscription that is billed go on with the period after the one that was paid, when that is the next that would fall due.
async fn pass_over(
    transaction: &mut PgTransaction<'_>,
    stopped: &Stopped,
    paid_no: i32,
    now: DateTime<Utc>,
    due_at: &(impl Fn(&Stopped, NaiveDate) -> DateTime<Utc> + Send + Sync),
) -> Result<(), StoreError> {
    let id = stopped.subscription_id;
    let passed = sqlx::query!(
        "-- pass_over_paid_period
        DELETE FROM due_periods d USING next_period($1) n
        WHERE d.subscription_id = $1 AND d.due_at = n.due_at AND n.period_no <= $2",
        id as SubscriptionId,
        paid_no,
    )
    .execute(&mut **transaction)
    .await?;
    if passed.rows_affected() == 0 {
        return Ok(());
    }
    let next = readings::count(paid_no)?
        .checked_add(1)
        .and_then(|next| stopped.terms.period(next));
    let next = next.map(|next| NextPeriod {
        period_no: next.period_no,
        due_on: next.due_on,
        due_at: due_at(stopped, next.due_on),
    });
    status::restart(transaction, id, next, now).await
}

/// Books a payment as an attempt of its charge, which is paid by it unless it was before. Beside an attempt that may still move money
/// the charge is held, as [`decide`](crate::domain::resolution::decide) does it. Returns what is told about it.
async fn book(
    transaction: &mut PgTransaction<'_>,
    subject: &Subject,
    period_no: i32,
    charge: &Charge,
    paid: &PaidByLink,
    now: DateTime<Utc>,
) -> Result<Vec<NewEvent>, StoreError> {
    let attempt = if charge.is_moved || charge.is_live {
        AttemptState::Surplus
    } else {
        AttemptState::Settled
    };
    let event = match (charge.is_moved, charge.is_live) {
        (true, _) => None,
        (false, true) => Some(ChargeEvent::Held),
        (false, false) => Some(ChargeEvent::Settled),
    };
    // A charge that has no such step stays where it is; the money is on record either way.
    let state = event
        .and_then(|event| charge.state.after(event).ok())
        .unwrap_or(charge.state);
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
    step_charge(
        transaction,
        subject,
        charge,
        state,
        (attempt_id, attempt_no),
        now,
    )
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
            state: Some(state),
            next_action_at: None,
            reason: None,
            decline: None,
            status_code: None,
            brake: None,
        }),
    };
    let mut told = Vec::new();
    if state == ChargeState::Paid && charge.state != ChargeState::Paid {
        told.push(event(EventKind::ChargePaid));
    }
    if attempt == AttemptState::Surplus {
        told.push(event(EventKind::IncidentSurplus));
        told.extend(stop_for_surplus(transaction, subject, charge, now).await?);
    }
    let caught_up = SubscriptionStep {
        event: SubscriptionEvent::CaughtUp,
        reason: None,
    };
    told.extend(step_subscription(transaction, subject.subscription_id, caught_up, now).await?);
    Ok(told)
}

/// Stops all charging when we charged twice. A payer must not be able to stop everybody.
async fn stop_for_surplus(
    transaction: &mut PgTransaction<'_>,
    subject: &Subject,
    charge: &Charge,
    now: DateTime<Utc>,
) -> Result<Option<NewEvent>, StoreError> {
    if subject.way == Way::CardData && charge.is_moved_by_us {
        brakes::stop_all(transaction, "surplus_settlement", now).await
    } else {
        Ok(None)
    }
}

/// Moves the charge to where the payment leads it.
async fn step_charge(
    transaction: &mut PgTransaction<'_>,
    subject: &Subject,
    charge: &Charge,
    state: ChargeState,
    (attempt_id, attempt_no): (AttemptId, i16),
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "-- step_charge_by_link
        UPDATE charges
        SET attempts = $2, first_attempt_at = coalesce(first_attempt_at, $3), state = $6,
            reason = CASE WHEN $6 = state THEN reason WHEN $6 = 'held'::charge_state THEN 'surplus_settlement' END,
            next_action_at = CASE WHEN $6 = state THEN next_action_at WHEN $6 = 'held'::charge_state THEN $3 + interval '10 days' END,
            paid_at = CASE WHEN $6 = 'paid'::charge_state THEN coalesce(paid_at, $3) END,
            paid_attempt_id = CASE WHEN $6 = 'paid'::charge_state THEN coalesce(paid_attempt_id, $4) END
        WHERE charge_id = $1 AND subscription_id = $5",
        charge.charge_id as ChargeId,
        attempt_no,
        now,
        attempt_id as AttemptId,
        subject.subscription_id as SubscriptionId,
        state as ChargeState,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
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
