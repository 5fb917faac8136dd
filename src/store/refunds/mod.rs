//! Refunds: permits to give money back, what imoje says of them, and what it lists that nobody here ordered.

mod news;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use crate::domain::attempt::AttemptState;
use crate::domain::id::{AttemptId, ChargeId, FenceId, RefundId, SubscriptionId, TransactionId};
use crate::domain::money::{Currency, Money};
use crate::domain::refund::Known;
use crate::domain::resolution::ResolverPolicy;
use crate::domain::shop::ShopName;
use crate::store::status::By;
use crate::store::{Store, StoreError, new_id, readings};

pub use news::{RecordedRefund, RefundFinding};

/// How many refunds are taken at once.
pub const BATCH: usize = 500;

/// A debit that moved money, which can go back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sale {
    /// The attempt.
    pub attempt_id: AttemptId,
    /// The attempt at its charge, counted from 1.
    pub attempt_no: i16,
    /// The charge.
    pub charge_id: ChargeId,
    /// Whose charge it is.
    pub subscription_id: SubscriptionId,
    /// Its shop.
    pub shop: ShopName,
    /// What imoje was told as `orderId`.
    pub order_id: String,
    /// imoje's id of it.
    pub transaction_id: TransactionId,
    /// How much was taken.
    pub amount: Money,
}

/// Who asked for a refund.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, sqlx::Type)]
#[sqlx(type_name = "refund_origin", rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum RefundOrigin {
    /// Cykl, because a person told it to.
    Cykl,
    /// Somebody else: imoje lists it.
    Elsewhere,
}

/// A refund that is to be permitted.
#[derive(Debug, Clone, Copy)]
pub struct NewRefund<'a> {
    /// Of which debit.
    pub sale: &'a Sale,
    /// How much goes back.
    pub amount: Money,
    /// What the payer may read about it.
    pub title: Option<&'a str>,
    /// Who wants it, and why.
    pub by: By<'a>,
    /// As which installation.
    pub fence_id: FenceId,
    /// How long after the permit its answer may come by itself.
    pub answer_timeout: TimeDelta,
}

/// Why there is no permit for a refund.
#[derive(Debug, thiserror::Error)]
pub enum RefundPermitError {
    /// Nothing was permitted.
    #[error(transparent)]
    Failed(#[from] StoreError),
    /// Whether the permit was committed is not known. The request must not be sent; the permit has to be recorded as not sent.
    #[error("the outcome of a commit is unknown: {source}")]
    Unconfirmed {
        /// The refund.
        refund_id: RefundId,
        /// What happened to the commit.
        source: StoreError,
    },
}

/// A refund that it is time to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRefund {
    /// The refund.
    pub refund_id: RefundId,
    /// Of which debit.
    pub sale: Sale,
    /// How much goes back.
    pub amount: Money,
    /// imoje's id of it, once known.
    pub transaction_id: Option<TransactionId>,
}

/// A refund, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListedRefund {
    /// The refund.
    pub refund_id: RefundId,
    /// The attempt whose money goes back.
    pub attempt_id: AttemptId,
    /// Who asked for it.
    pub origin: RefundOrigin,
    /// How much goes back.
    pub amount_minor: i64,
    /// The currency.
    pub currency: Currency,
    /// Where it stands.
    pub state: AttemptState,
    /// imoje's id of it, once known.
    pub transaction_id: Option<TransactionId>,
    /// Who wanted it; Cykl itself, where it was found.
    pub actor: String,
    /// Why.
    pub reason: Option<String>,
    /// When its permit was committed, or when it was found.
    pub permitted_at: DateTime<Utc>,
    /// When its fate was established.
    pub decided_at: Option<DateTime<Utc>>,
    /// When people were asked to look.
    pub case_opened_at: Option<DateTime<Utc>>,
}

struct SaleRow {
    attempt_id: AttemptId,
    attempt_no: i16,
    charge_id: ChargeId,
    subscription_id: SubscriptionId,
    shop: ShopName,
    order_id: String,
    transaction_id: TransactionId,
    amount_minor: i64,
    currency: Currency,
}

impl TryFrom<SaleRow> for Sale {
    type Error = StoreError;

    fn try_from(row: SaleRow) -> Result<Self, StoreError> {
        Ok(Self {
            attempt_id: row.attempt_id,
            attempt_no: row.attempt_no,
            charge_id: row.charge_id,
            subscription_id: row.subscription_id,
            shop: row.shop,
            order_id: row.order_id,
            transaction_id: row.transaction_id,
            amount: readings::money(row.amount_minor, row.currency)?,
        })
    }
}

impl Store {
    /// Whether there is such a charge.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn has_charge(&self, charge_id: ChargeId) -> Result<bool, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"-- has_charge
            SELECT EXISTS (SELECT FROM all_charges WHERE charge_id = $1) AS "is_there!""#,
            charge_id as ChargeId,
        )
        .fetch_one(&self.pool)
        .await?)
    }

    /// The debits of a charge that moved money: one, unless it was paid twice. The oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn sales_of(&self, charge_id: ChargeId) -> Result<Vec<Sale>, StoreError> {
        let rows = sqlx::query_as!(
            SaleRow,
            r#"-- sales_of
            SELECT a.attempt_id AS "attempt_id!: AttemptId", a.attempt_no AS "attempt_no!", a.charge_id AS "charge_id!: ChargeId",
                   a.subscription_id AS "subscription_id!: SubscriptionId", a.shop AS "shop!: ShopName", a.order_id AS "order_id!",
                   a.transaction_id AS "transaction_id!: TransactionId", a.amount_minor AS "amount_minor!",
                   a.currency AS "currency!: Currency"
            FROM all_charges c JOIN all_attempts a USING (subscription_id, period_no)
            WHERE c.charge_id = $1 AND a.state IN ('settled', 'surplus')
            ORDER BY a.attempt_no"#,
            charge_id as ChargeId,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(Sale::try_from).collect()
    }

    /// The debit of `shop` that a notice about a refund names, by imoje's id or else by its order, if its money moved.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn sale_noticed(
        &self,
        shop: &ShopName,
        transaction_id: Option<TransactionId>,
        order_id: Option<&str>,
    ) -> Result<Option<Sale>, StoreError> {
        let row = sqlx::query_as!(
            SaleRow,
            r#"-- sale_noticed
            SELECT a.attempt_id AS "attempt_id!: AttemptId", a.attempt_no AS "attempt_no!", a.charge_id AS "charge_id!: ChargeId",
                   a.subscription_id AS "subscription_id!: SubscriptionId", a.shop AS "shop!: ShopName", a.order_id AS "order_id!",
                   a.transaction_id AS "transaction_id!: TransactionId", a.amount_minor AS "amount_minor!",
                   a.currency AS "currency!: Currency"
            FROM all_attempts a
            WHERE a.shop = $3 AND a.state IN ('settled', 'surplus')
              AND a.transaction_id = coalesce($1, (
                  SELECT o.transaction_id FROM all_attempts o
                  -- Found by the subscription that an order id of ours names.
                  WHERE o.subscription_id = CASE WHEN $2 ~ '^cykl-[0-9a-f]{32}-' THEN split_part($2, '-', 2)::uuid END
                    AND o.order_id = $2))"#,
            transaction_id as Option<TransactionId>,
            order_id,
            shop as &ShopName,
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(Sale::try_from).transpose()
    }

    /// The refunds of a debit.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn known_refunds(&self, sale: &Sale) -> Result<Vec<Known>, StoreError> {
        Ok(sqlx::query_as!(
            Known,
            r#"-- known_refunds
            SELECT refund_id AS "refund_id: RefundId", state AS "state: AttemptState",
                   transaction_id AS "transaction_id: TransactionId", amount_minor, deadline_at
            FROM refunds WHERE sale_transaction_id = $1 ORDER BY permitted_at"#,
            sale.transaction_id as TransactionId,
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// The refunds of a charge, the oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn refunds_of(&self, charge_id: ChargeId) -> Result<Vec<ListedRefund>, StoreError> {
        Ok(sqlx::query_as!(
            ListedRefund,
            r#"-- refunds_of
            SELECT refund_id AS "refund_id: RefundId", attempt_id AS "attempt_id: AttemptId", origin AS "origin: RefundOrigin",
                   amount_minor, currency AS "currency: Currency", state AS "state: AttemptState",
                   transaction_id AS "transaction_id: TransactionId", actor, reason, permitted_at, decided_at, case_opened_at
            FROM refunds WHERE charge_id = $1 ORDER BY permitted_at, refund_id"#,
            charge_id as ChargeId,
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// When a refund of `shop` was last permitted.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn last_refund_at(
        &self,
        shop: &ShopName,
    ) -> Result<Option<DateTime<Utc>>, StoreError> {
        Ok(sqlx::query_scalar!(
            "-- last_refund_at
            SELECT max(permitted_at) FROM refunds WHERE shop = $1 AND origin = 'cykl' AND state <> 'not_sent'",
            shop as &ShopName,
        )
        .fetch_one(&self.pool)
        .await?)
    }

    /// Gives a permit to give money back, and commits it.
    ///
    /// # Errors
    /// [`RefundPermitError::Failed`] with the rule that refused: the fence, the time since another refund of the shop, one in doubt, or a
    /// sum above what was taken. [`RefundPermitError::Unconfirmed`]: nothing may be sent.
    pub async fn permit_refund(
        &self,
        refund: NewRefund<'_>,
        now: DateTime<Utc>,
    ) -> Result<RefundId, RefundPermitError> {
        let refund_id = RefundId::from_uuid(new_id(now));
        let sale = refund.sale;
        let deadline_at = now + refund.answer_timeout;
        let mut transaction = self.pool.begin().await.map_err(StoreError::from)?;
        sqlx::query!(
            "-- permit_refund
            INSERT INTO refunds (refund_id, attempt_id, charge_id, subscription_id, shop, sale_transaction_id, order_id, origin,
                                 amount_minor, currency, state, title, reason, actor, fence_id, permitted_at, deadline_at,
                                 next_poll_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, 'cykl', $8, $9, 'in_doubt', $10, $11, $12, $13, $14, $15, $15)",
            refund_id as RefundId,
            sale.attempt_id as AttemptId,
            sale.charge_id as ChargeId,
            sale.subscription_id as SubscriptionId,
            &sale.shop as &ShopName,
            sale.transaction_id as TransactionId,
            sale.order_id,
            refund.amount.minor(),
            refund.amount.currency() as Currency,
            refund.title,
            refund.by.reason,
            refund.by.actor,
            refund.fence_id as FenceId,
            now,
            deadline_at,
        )
        .execute(&mut *transaction)
        .await
        .map_err(StoreError::from)?;
        match transaction.commit().await {
            Ok(()) => Ok(refund_id),
            Err(error) => Err(RefundPermitError::Unconfirmed {
                refund_id,
                source: error.into(),
            }),
        }
    }

    /// Takes refunds of `shops` whose time to be looked at has come, and puts each off by the poll schedule.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is taken then.
    pub async fn take_refunds(
        &self,
        shops: &[ShopName],
        policy: &ResolverPolicy,
        now: DateTime<Utc>,
    ) -> Result<Vec<OpenRefund>, StoreError> {
        let waits: Vec<i64> = policy.poll.iter().map(TimeDelta::num_seconds).collect();
        let rows = sqlx::query!(
            r#"-- take_refunds
            WITH due AS (
                SELECT refund_id FROM refunds WHERE next_poll_at <= $1 AND shop = ANY($3)
                ORDER BY next_poll_at LIMIT 500 FOR UPDATE SKIP LOCKED
            ), taken AS (
                UPDATE refunds r
                SET next_poll_at = $1 + make_interval(secs => ($2::bigint[])[least(r.polls + 1, cardinality($2::bigint[]))]),
                    polls = least(r.polls + 1, 1000)
                FROM due WHERE r.refund_id = due.refund_id
                RETURNING r.refund_id, r.sale_transaction_id, r.amount_minor, r.currency, r.transaction_id
            )
            SELECT t.refund_id AS "refund_id!: RefundId", t.amount_minor AS "amount_minor!", t.currency AS "currency!: Currency",
                   t.transaction_id AS "transaction_id: TransactionId",
                   a.attempt_id AS "attempt_id!: AttemptId", a.attempt_no AS "attempt_no!", a.charge_id AS "charge_id!: ChargeId",
                   a.subscription_id AS "subscription_id!: SubscriptionId", a.shop AS "shop!: ShopName", a.order_id AS "order_id!",
                   a.transaction_id AS "sale_transaction_id!: TransactionId", a.amount_minor AS "sale_amount_minor!"
            FROM taken t JOIN all_attempts a ON a.transaction_id = t.sale_transaction_id"#,
            now,
            &waits,
            shops as &[ShopName],
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                let sale = SaleRow {
                    attempt_id: row.attempt_id,
                    attempt_no: row.attempt_no,
                    charge_id: row.charge_id,
                    subscription_id: row.subscription_id,
                    shop: row.shop,
                    order_id: row.order_id,
                    transaction_id: row.sale_transaction_id,
                    amount_minor: row.sale_amount_minor,
                    currency: row.currency,
                };
                Ok(OpenRefund {
                    refund_id: row.refund_id,
                    amount: readings::money(row.amount_minor, row.currency)?,
                    transaction_id: row.transaction_id,
                    sale: sale.try_into()?,
                })
            })
            .collect()
    }
}
