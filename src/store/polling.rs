//! Attempts that have to be looked at again, and what time does to charges whose outcome is unknown.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use sqlx::PgTransaction;

use crate::domain::attempt::AttemptState;
use crate::domain::charge::{ChargeEvent, ChargeState};
use crate::domain::event::EventKind;
use crate::domain::id::{AttemptId, ChargeId, SubscriptionId, TransactionId};
use crate::domain::money::{Currency, Money};
use crate::domain::resolution::{DoubtStage, ResolverPolicy};
use crate::domain::shop::ShopName;
use crate::store::events::{self, Channels, NewEvent};
use crate::store::{Store, StoreError, readings};

/// How many attempts are taken at once.
pub const BATCH: usize = 500;

/// An attempt that it is time to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unresolved {
    /// Whose charge it is about.
    pub subscription_id: SubscriptionId,
    /// The attempt.
    pub attempt_id: AttemptId,
    /// Its state.
    pub state: AttemptState,
    /// Its shop.
    pub shop: ShopName,
    /// What imoje was told as `orderId`.
    pub order_id: String,
    /// How much.
    pub amount: Money,
    /// imoje's id, once known.
    pub transaction_id: Option<TransactionId>,
    /// When its permit was committed.
    pub permitted_at: DateTime<Utc>,
    /// Whether people were asked already.
    pub case_open: bool,
}

/// How many charges in doubt were brought to people, or given up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Staged {
    /// Cases opened.
    pub opened: usize,
    /// Charges written off.
    pub written_off: usize,
}

impl Store {
    /// Takes attempts of `shops` whose time to be looked at has come, and puts each off by the poll schedule, so that neither a
    /// crash nor a second instance asks at once again.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is taken then.
    pub async fn take_unresolved(
        &self,
        shops: &[ShopName],
        policy: &ResolverPolicy,
        now: DateTime<Utc>,
    ) -> Result<Vec<Unresolved>, StoreError> {
        let waits: Vec<i64> = policy.poll.iter().map(TimeDelta::num_seconds).collect();
        let rows = sqlx::query!(
            r#"-- take_unresolved
            WITH due AS (
                -- What only time can move needs no gateway, so it is done for shops that are not configured here, too.
                SELECT attempt_id, subscription_id FROM attempts
                WHERE next_poll_at <= $1 AND (shop = ANY($3) OR (state = 'in_doubt' AND transaction_id IS NULL))
                ORDER BY next_poll_at LIMIT 500 FOR UPDATE SKIP LOCKED
            )
            UPDATE attempts a
            SET next_poll_at = $1 + make_interval(secs => ($2::bigint[])[least(a.polls + 1, cardinality($2::bigint[]))]),
                polls = least(a.polls + 1, 1000)
            FROM due WHERE a.attempt_id = due.attempt_id AND a.subscription_id = due.subscription_id
            RETURNING a.subscription_id AS "subscription_id: SubscriptionId", a.attempt_id AS "attempt_id: AttemptId", a.state AS "state: AttemptState", a.shop AS "shop: ShopName",
                      a.order_id, a.amount_minor, a.currency AS "currency: Currency",
                      a.transaction_id AS "transaction_id: TransactionId", a.permitted_at,
                      a.case_opened_at IS NOT NULL AS "case_open!""#,
            now,
            &waits,
            shops as &[ShopName],
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(Unresolved {
                    subscription_id: row.subscription_id,
                    attempt_id: row.attempt_id,
                    state: row.state,
                    shop: row.shop,
                    order_id: row.order_id,
                    amount: readings::money(row.amount_minor, row.currency)?,
                    transaction_id: row.transaction_id,
                    permitted_at: row.permitted_at,
                    case_open: row.case_open,
                })
            })
            .collect()
    }

    /// How many attempts are in doubt past their deadline and not given up.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn count_in_doubt(&self, now: DateTime<Utc>) -> Result<u32, StoreError> {
        let count = sqlx::query_scalar!(
            r#"-- count_in_doubt
            SELECT count(*) AS "count!" FROM attempts
            WHERE state = 'in_doubt' AND next_poll_at IS NOT NULL AND deadline_at <= $1"#,
            now,
        )
        .fetch_one(&self.pool)
        .await?;
        readings::count(count)
    }

    /// Lets every attempt in doubt past its deadline that people have not been asked about be looked at now, instead of when the time
    /// for its notice is over.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer; nothing is changed then.
    pub async fn hasten_doubts(&self, now: DateTime<Utc>) -> Result<(), StoreError> {
        sqlx::query!(
            "-- hasten_doubts
            UPDATE attempts SET next_poll_at = $1
            WHERE state = 'in_doubt' AND deadline_at <= $1 AND case_opened_at IS NULL AND next_poll_at > $1",
            now,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Brings attempts that are still in doubt to their stage: waits on, asks people, or gives the charge up. The attempt stays in
    /// doubt whatever happens here: time is no evidence.
    ///
    /// # Errors
    /// [`StoreError`]; the attempts that were not staged are found again later.
    pub async fn stage_doubts(
        &self,
        stages: &[(AttemptId, DoubtStage)],
        now: DateTime<Utc>,
    ) -> Result<Staged, StoreError> {
        let mut staged = Staged::default();
        for (attempt_id, stage) in stages {
            match stage {
                DoubtStage::WaitUntil(until) => self.wait_on(*attempt_id, *until).await?,
                DoubtStage::OpenCase { write_off_at } => {
                    let step = DoubtStep::Hold {
                        write_off_at: *write_off_at,
                    };
                    let opened = self.step_doubt(*attempt_id, step, now).await?;
                    staged.opened += usize::from(opened);
                }
                DoubtStage::WriteOff => {
                    let written_off = self.step_doubt(*attempt_id, DoubtStep::GiveUp, now).await?;
                    staged.written_off += usize::from(written_off);
                }
            }
        }
        Ok(staged)
    }

    async fn wait_on(&self, attempt_id: AttemptId, until: DateTime<Utc>) -> Result<(), StoreError> {
        sqlx::query!(
            "-- wait_on
            UPDATE attempts SET next_poll_at = $2 WHERE attempt_id = $1 AND state = 'in_doubt' AND next_poll_at IS NOT NULL",
            attempt_id as AttemptId,
            until,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    async fn step_doubt(
        &self,
        attempt_id: AttemptId,
        step: DoubtStep,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let Some(doubt) = lock_doubt(&mut transaction, attempt_id).await? else {
            return Ok(false);
        };
        let is_taken = doubt
            .take(&mut transaction, step, self.channels, now)
            .await?;
        transaction.commit().await?;
        Ok(is_taken)
    }
}

/// What becomes of a charge whose outcome is unknown.
#[derive(Debug, Clone, Copy)]
pub(super) enum DoubtStep {
    /// People are asked; the attempt is looked at again at `write_off_at`.
    Hold { write_off_at: DateTime<Utc> },
    /// It is given up. The attempt is not looked at any more.
    GiveUp,
}

/// An attempt that may have moved money, and its charge, under lock.
pub(super) struct Doubt {
    attempt_id: AttemptId,
    attempt: AttemptState,
    charge_id: ChargeId,
    subscription_id: SubscriptionId,
    shop: ShopName,
    charge: ChargeState,
    period_no: i32,
    order_id: String,
    amount_minor: i64,
    currency: Currency,
    permitted_at: DateTime<Utc>,
    card_masked: Option<String>,
}

/// What is told about it; see `docs/events.md`.
#[derive(Serialize)]
struct DoubtPayload<'a> {
    period_no: i32,
    order_id: &'a str,
    amount_minor: i64,
    currency: Currency,
    permitted_at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    card_masked: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    write_off_at: Option<DateTime<Utc>>,
}

/// Locks an attempt that is in doubt, or pending without an end, and its charge. `None` when it is not, is not looked at any more, or
/// another attempt moved the money.
pub(super) async fn lock_doubt(
    transaction: &mut PgTransaction<'_>,
    attempt_id: AttemptId,
) -> Result<Option<Doubt>, StoreError> {
    Ok(sqlx::query_as!(
        Doubt,
        r#"-- lock_doubt
        SELECT a.attempt_id AS "attempt_id: AttemptId", a.state AS "attempt: AttemptState", c.charge_id AS "charge_id: ChargeId",
               c.subscription_id AS "subscription_id: SubscriptionId", c.shop AS "shop: ShopName", c.state AS "charge: ChargeState",
               c.period_no, a.order_id, a.amount_minor, a.currency AS "currency: Currency", a.permitted_at, a.card_masked
        FROM attempts a JOIN charges c USING (charge_id)
        WHERE a.attempt_id = $1 AND a.state IN ('in_doubt', 'pending') AND a.next_poll_at IS NOT NULL
          AND NOT EXISTS (SELECT FROM attempts o
                          WHERE o.subscription_id = a.subscription_id AND o.period_no = a.period_no
                            AND o.state IN ('settled', 'surplus'))
        FOR UPDATE OF c, a"#,
        attempt_id as AttemptId,
    )
    .fetch_optional(&mut **transaction)
    .await?)
}

impl Doubt {
    /// The attempt's state, which stays what it is.
    pub(super) fn state(&self) -> AttemptState {
        self.attempt
    }

    /// Moves the charge, and tells it. Returns whether there was such a step to take.
    pub(super) async fn take(
        &self,
        transaction: &mut PgTransaction<'_>,
        step: DoubtStep,
        channels: Channels,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let (event, reason, kind, until) = match step {
            DoubtStep::Hold { write_off_at } => (
                ChargeEvent::Held,
                "in_doubt",
                EventKind::CaseOpened,
                Some(write_off_at),
            ),
            DoubtStep::GiveUp => (
                ChargeEvent::GivenUp,
                "written_off_in_doubt",
                EventKind::ChargeWrittenOff,
                None,
            ),
        };
        let Ok(state) = self.charge.after(event) else {
            return Ok(false);
        };
        sqlx::query!(
            "-- stage_attempt
            UPDATE attempts
            SET next_poll_at = CASE WHEN state = 'pending' THEN next_poll_at ELSE $2 END,
                case_opened_at = coalesce(case_opened_at, $3)
            WHERE attempt_id = $1",
            self.attempt_id as AttemptId,
            until,
            now,
        )
        .execute(&mut **transaction)
        .await?;
        sqlx::query!(
            "-- stage_charge
            UPDATE charges SET state = $2, reason = $3, next_action_at = $4 WHERE charge_id = $1",
            self.charge_id as ChargeId,
            state as ChargeState,
            reason,
            until.filter(|_| state.is_open()),
        )
        .execute(&mut **transaction)
        .await?;
        let event = NewEvent {
            kind,
            subscription_id: Some(self.subscription_id),
            shop: Some(self.shop.clone()),
            charge_id: Some(self.charge_id),
            attempt_id: Some(self.attempt_id),
            payload: events::payload(&DoubtPayload {
                period_no: self.period_no,
                order_id: &self.order_id,
                amount_minor: self.amount_minor,
                currency: self.currency,
                permitted_at: self.permitted_at,
                card_masked: self.card_masked.as_deref(),
                write_off_at: until,
            }),
        };
        events::append(transaction, &[event], channels, now).await?;
        Ok(true)
    }
}
