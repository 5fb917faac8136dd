//! People who pause, resume and cancel subscriptions, and what a subscription's status means for its periods and charges.

use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::PgTransaction;

use crate::domain::IllegalTransition;
use crate::domain::event::EventKind;
use crate::domain::id::SubscriptionId;
use crate::domain::schedule::Terms;
use crate::domain::shop::ShopName;
use crate::domain::subscription::{SubscriptionEvent, SubscriptionStatus};
use crate::store::events::{self, NewEvent};
use crate::store::planning::NextPeriod;
use crate::store::readings::{self, Zone};
use crate::store::{
    Store, StoreError, Wake, brakes, daily_cap, despite_others, registrations, wake,
};

/// Who does something, and why.
#[derive(Debug, Clone, Copy)]
pub struct By<'a> {
    /// Who.
    pub actor: &'a str,
    /// Why.
    pub reason: &'a str,
}

impl<'a> By<'a> {
    /// Cykl itself, of its own accord.
    pub const fn itself(reason: &'a str) -> Self {
        Self {
            actor: brakes::ITSELF,
            reason,
        }
    }
}

/// What a step did. The same status before and after means that there was nothing to do, and nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The status before.
    pub was: SubscriptionStatus,
    /// The status now.
    pub is: SubscriptionStatus,
    /// How many charges became void because they had not been sent.
    pub voided: u64,
    /// How many charges go on whatever the status is: they are on their way, or wait for a person.
    pub unfinished: u64,
    /// The next period that falls due.
    pub next: Option<NextPeriod>,
}

/// A subscription that is about to go on after a pause.
#[derive(Debug, Clone)]
pub struct Stopped {
    /// The subscription.
    pub subscription_id: SubscriptionId,
    /// Its shop.
    pub shop: ShopName,
    /// Its dates.
    pub terms: Terms,
    /// The zone in which its dates are meant.
    pub zone: Zone,
    /// The first period that has no charge yet.
    pub from_period_no: u32,
}

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// There is no such subscription.
    #[error("there is no subscription {0}")]
    Missing(SubscriptionId),
    /// A subscription in this status cannot take the step.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition<SubscriptionStatus, SubscriptionEvent>),
    /// The database failed; nothing is changed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for StepError {
    fn from(error: sqlx::Error) -> Self {
        StepError::Store(error.into())
    }
}

impl Store {
    /// Pauses a subscription: what was not sent becomes void, and no period falls due until it is resumed.
    ///
    /// # Errors
    /// [`StepError`]; nothing is changed then.
    pub async fn pause(
        &self,
        subscription_id: SubscriptionId,
        by: By<'_>,
        now: DateTime<Utc>,
    ) -> Result<Step, StepError> {
        let event = SubscriptionEvent::Paused;
        self.take(subscription_id, event, by, now, |_| None).await
    }

    /// Lets a paused subscription go on with the period that `next` finds. Without one it is completed as soon as its charges are.
    ///
    /// # Errors
    /// [`StepError`]; nothing is changed then.
    pub async fn resume(
        &self,
        subscription_id: SubscriptionId,
        by: By<'_>,
        now: DateTime<Utc>,
        next: impl Fn(&Stopped) -> Option<NextPeriod> + Send,
    ) -> Result<Step, StepError> {
        let event = SubscriptionEvent::Resumed;
        self.take(subscription_id, event, by, now, next).await
    }

    /// Ends a subscription for good: what was not sent becomes void, and no period falls due any more.
    ///
    /// # Errors
    /// [`StepError`]; nothing is changed then.
    pub async fn cancel(
        &self,
        subscription_id: SubscriptionId,
        by: By<'_>,
        now: DateTime<Utc>,
    ) -> Result<Step, StepError> {
        let event = SubscriptionEvent::Cancelled;
        self.take(subscription_id, event, by, now, |_| None).await
    }

    async fn take(
        &self,
        subscription_id: SubscriptionId,
        event: SubscriptionEvent,
        by: By<'_>,
        now: DateTime<Utc>,
        next: impl Fn(&Stopped) -> Option<NextPeriod> + Send,
    ) -> Result<Step, StepError> {
        let is_busy =
            |error: &StepError| matches!(error, StepError::Store(error) if error.is_busy());
        despite_others(is_busy, || {
            self.take_once(subscription_id, event, by, now, &next)
        })
        .await
    }

    async fn take_once(
        &self,
        subscription_id: SubscriptionId,
        event: SubscriptionEvent,
        by: By<'_>,
        now: DateTime<Utc>,
        next: &(impl Fn(&Stopped) -> Option<NextPeriod> + Send),
    ) -> Result<Step, StepError> {
        let mut transaction = self.pool.begin().await?;
        let (was, stopped) = lock(&mut transaction, subscription_id).await?;
        let is = was.after(event)?;
        let (voided, next) = if is == was {
            (0, None)
        } else {
            let next = if is.is_billable() {
                next(&stopped)
            } else {
                None
            };
            let reason = (!is.is_billable()).then_some(by.reason);
            let voided = set_status(&mut transaction, subscription_id, is, reason, now).await?;
            if is.is_billable() {
                restart(&mut transaction, subscription_id, next, now).await?;
            }
            let told = told(&stopped, event, is, by, voided, next);
            if is.is_over() {
                registrations::look_again(&mut transaction, subscription_id, now).await?;
            }
            events::append(&mut transaction, &[told], self.channels, now).await?;
            (voided, next)
        };
        let unfinished = unfinished(&mut transaction, subscription_id).await?;
        if is != was {
            transaction.commit().await?;
        }
        Ok(Step {
            was,
            is,
            voided,
            unfinished,
            next,
        })
    }
}

/// Locks everything that a step may change, in the order in which every transaction locks: charges, next period, subscription.
pub(super) async fn lock(
    transaction: &mut PgTransaction<'_>,
    subscription_id: SubscriptionId,
) -> Result<(SubscriptionStatus, Stopped), StepError> {
    sqlx::query!(
        "-- lock_open_charges
        SELECT charge_id FROM charges WHERE subscription_id = $1 AND next_action_at IS NOT NULL
        ORDER BY charge_id FOR NO KEY UPDATE",
        subscription_id as SubscriptionId,
    )
    .fetch_all(&mut **transaction)
    .await?;
    sqlx::query!(
        "SELECT lock_next_period($1) AS due_at",
        subscription_id as SubscriptionId,
    )
    .fetch_one(&mut **transaction)
    .await?;
    // Locked first and read afterwards, so that what is read includes what the lock had to wait for.
    sqlx::query!(
        "-- lock_subscription_for_step
        SELECT subscription_id FROM subscriptions WHERE subscription_id = $1 FOR NO KEY UPDATE",
        subscription_id as SubscriptionId,
    )
    .fetch_optional(&mut **transaction)
    .await?;
    let row = sqlx::query!(
        r#"-- read_subscription_for_step
        SELECT s.status AS "status: SubscriptionStatus", s.shop AS "shop: ShopName", s.period, s.anchor_date, s.timezone,
               s.starts_on, s.ends_on, s.max_charges,
               greatest(s.first_period_no,
                        (SELECT max(c.period_no) + 1 FROM charges c WHERE c.subscription_id = s.subscription_id)) AS "from_period_no!"
        FROM subscriptions s WHERE s.subscription_id = $1"#,
        subscription_id as SubscriptionId,
    )
    .fetch_optional(&mut **transaction)
    .await?
    .ok_or(StepError::Missing(subscription_id))?;
    let stopped = Stopped {
        subscription_id,
        shop: row.shop,
        terms: Terms {
            anchor: row.anchor_date,
            period: readings::period(&row.period)?,
            starts_on: row.starts_on,
            ends_on: row.ends_on,
            max_charges: row.max_charges.map(readings::count).transpose()?,
        },
        zone: readings::zone(&row.timezone)?,
        from_period_no: readings::count(row.from_period_no)?,
    };
    Ok((row.status, stopped))
}

pub(super) fn told(
    stopped: &Stopped,
    event: SubscriptionEvent,
    status: SubscriptionStatus,
    by: By<'_>,
    voided: u64,
    next: Option<NextPeriod>,
) -> NewEvent {
    let kind = match event {
        SubscriptionEvent::Paused => EventKind::SubscriptionPaused,
        SubscriptionEvent::Resumed | SubscriptionEvent::CardAttached => {
            EventKind::SubscriptionResumed
        }
        SubscriptionEvent::Cancelled => EventKind::SubscriptionCancelled,
        SubscriptionEvent::FellBehind => EventKind::SubscriptionPastDue,
        SubscriptionEvent::CaughtUp => EventKind::SubscriptionRecovered,
        SubscriptionEvent::Deactivated => EventKind::SubscriptionDeactivated,
        SubscriptionEvent::Finished => EventKind::SubscriptionCompleted,
    };
    NewEvent {
        kind,
        subscription_id: Some(stopped.subscription_id),
        shop: Some(stopped.shop.clone()),
        charge_id: None,
        attempt_id: None,
        payload: events::payload(&json!({
            "status": status,
            "reason": by.reason,
            "actor": by.actor,
            "voided_charges": voided,
            "next_charge_on": next.map(|next| next.due_on),
        })),
    }
}

/// Gives a subscription that is billed again its next period; without one it is finishing.
pub(super) async fn restart(
    transaction: &mut PgTransaction<'_>,
    subscription_id: SubscriptionId,
    next: Option<NextPeriod>,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "-- go_on_from
        UPDATE subscriptions SET from_due_at = $2, is_finishing = $2::timestamptz IS NULL WHERE subscription_id = $1",
        subscription_id as SubscriptionId,
        next.map(|next| next.due_at),
    )
    .execute(&mut **transaction)
    .await?;
    if let Some(next) = next {
        sqlx::query!(
            "-- queue_next_period
            INSERT INTO due_periods (due_at, subscription_id, period_no, due_on) VALUES ($1, $2, $3, $4)",
            next.due_at,
            subscription_id as SubscriptionId,
            readings::stored_count(next.period_no)?,
            next.due_on,
        )
        .execute(&mut **transaction)
        .await?;
        daily_cap::add_period(transaction, subscription_id, next.due_at, now).await?;
    }
    wake(transaction, Wake::Scheduler).await
}

async fn unfinished(
    transaction: &mut PgTransaction<'_>,
    subscription_id: SubscriptionId,
) -> Result<u64, StoreError> {
    let count = sqlx::query_scalar!(
        r#"-- unfinished_charges
        SELECT count(*) AS "count!" FROM charges WHERE subscription_id = $1 AND state IN ('in_flight', 'held')"#,
        subscription_id as SubscriptionId,
    )
    .fetch_one(&mut **transaction)
    .await?;
    Ok(readings::count(count)?.into())
}

/// Sets a subscription's status. One that is not billed any more has no next period, and what was not sent for it becomes
/// void. Returns how many charges did.
pub(super) async fn set_status(
    transaction: &mut PgTransaction<'_>,
    subscription_id: SubscriptionId,
    status: SubscriptionStatus,
    reason: Option<&str>,
    now: DateTime<Utc>,
) -> Result<u64, StoreError> {
    let voided = if status.is_billable() {
        0
    } else {
        void_unsent(transaction, subscription_id, status).await?
    };
    sqlx::query!(
        "-- set_status
        UPDATE subscriptions
        SET status = $2, status_reason = $3, updated_at = $4, is_finishing = is_finishing AND $5
        WHERE subscription_id = $1",
        subscription_id as SubscriptionId,
        status as SubscriptionStatus,
        reason,
        now,
        status.is_billable(),
    )
    .execute(&mut **transaction)
    .await?;
    Ok(voided)
}

async fn void_unsent(
    transaction: &mut PgTransaction<'_>,
    subscription_id: SubscriptionId,
    status: SubscriptionStatus,
) -> Result<u64, StoreError> {
    // Charges before the next period: the order of every transaction. The next period before anything becomes void: the scheduler
    // may be planning a charge under its lock, and that charge has to be seen below.
    sqlx::query!(
        "-- lock_unsent
        SELECT charge_id FROM charges WHERE subscription_id = $1 AND state IN ('planned', 'retry_wait')
        ORDER BY charge_id FOR NO KEY UPDATE",
        subscription_id as SubscriptionId,
    )
    .fetch_all(&mut **transaction)
    .await?;
    let due_at = sqlx::query_scalar!(
        "SELECT lock_next_period($1)",
        subscription_id as SubscriptionId
    )
    .fetch_one(&mut **transaction)
    .await?;
    sqlx::query!(
        "-- unqueue_next_period
        DELETE FROM due_periods WHERE due_at = $2 AND subscription_id = $1",
        subscription_id as SubscriptionId,
        due_at,
    )
    .execute(&mut **transaction)
    .await?;
    let voided = sqlx::query!(
        "-- void_unsent
        UPDATE charges SET state = 'void', reason = $2, next_action_at = NULL
        WHERE subscription_id = $1 AND state IN ('planned', 'retry_wait')",
        subscription_id as SubscriptionId,
        format!("subscription_{}", status.as_str()),
    )
    .execute(&mut **transaction)
    .await?;
    Ok(voided.rows_affected())
}
