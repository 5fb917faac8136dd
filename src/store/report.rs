//! What came of a stretch of billing, in figures.

use chrono::{DateTime, Utc};

use crate::domain::id::TransactionId;
use crate::domain::money::Currency;
use crate::domain::shop::ShopName;
use crate::store::{Store, StoreError};

/// The figures of a stretch of billing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// Charges that fell due.
    pub charges: i64,
    /// Charges paid.
    pub paid: i64,
    /// Of those, the ones that had been declined before.
    pub recovered: i64,
    /// Charges that wait: planned, in flight, for a retry, for a person.
    pub open: i64,
    /// Charges given up.
    pub failed: i64,
    /// Requests permitted.
    pub attempts: i64,
    /// Requests declined.
    pub declined: i64,
    /// What was collected in each currency, and by how many charges.
    pub collected: Vec<Collected>,
    /// Why subscriptions were deactivated, and how many.
    pub deactivated: Vec<(String, i64)>,
    /// How attempts whose answer told nothing came to an end, and how many.
    pub doubts: Vec<(String, i64)>,
}

/// What was collected in a currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Collected {
    /// The currency.
    pub currency: Currency,
    /// The sum, in minor units.
    pub minor: i64,
    /// By how many charges.
    pub charges: i64,
}

/// Money that moved, according to the books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Movement {
    /// imoje's id of it.
    pub transaction_id: TransactionId,
    /// What imoje was told as `orderId`.
    pub order_id: String,
    /// How much, in minor units.
    pub amount_minor: i64,
    /// In which currency.
    pub currency: Currency,
}

/// How things stand while billing goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Charges that fell due.
    pub charges: i64,
    /// Charges paid.
    pub paid: i64,
    /// Attempts declined.
    pub declined: i64,
    /// Attempts in doubt now.
    pub in_doubt: i64,
    /// Attempts that are not final: in doubt or pending.
    pub unsettled: i64,
}

impl Store {
    /// The figures of everything in the books.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn figures(&self) -> Result<Figures, StoreError> {
        let charges = sqlx::query!(
            r#"-- figures_of_charges
            SELECT count(*) AS "charges!",
                   count(*) FILTER (WHERE state = 'paid') AS "paid!",
                   count(*) FILTER (WHERE state = 'paid' AND declines > 0) AS "recovered!",
                   count(*) FILTER (WHERE next_action_at IS NOT NULL) AS "open!",
                   count(*) FILTER (WHERE state = 'failed') AS "failed!",
                   coalesce(sum(attempts), 0) AS "attempts!",
                   coalesce(sum(declines), 0) AS "declined!"
            FROM all_charges"#
        )
        .fetch_one(&self.pool)
        .await?;
        let collected = sqlx::query_as!(
            Collected,
            r#"-- figures_of_currencies
            SELECT currency AS "currency!: Currency", sum(amount_minor)::bigint AS "minor!", count(*) AS "charges!"
            FROM all_charges WHERE state = 'paid' GROUP BY currency ORDER BY 3 DESC"#
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(Figures {
            charges: charges.charges,
            paid: charges.paid,
            recovered: charges.recovered,
            open: charges.open,
            failed: charges.failed,
            attempts: charges.attempts,
            declined: charges.declined,
            collected,
            deactivated: self.deactivations().await?,
            doubts: self.ends_of_doubts().await?,
        })
    }

    async fn deactivations(&self) -> Result<Vec<(String, i64)>, StoreError> {
        let rows = sqlx::query!(
            r#"-- figures_of_deactivations
            SELECT coalesce(status_reason, '') AS "reason!", count(*) AS "count!"
            FROM subscriptions WHERE status = 'deactivated' GROUP BY 1 ORDER BY 2 DESC, 1"#
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| (row.reason, row.count))
            .collect())
    }

    async fn ends_of_doubts(&self) -> Result<Vec<(String, i64)>, StoreError> {
        let rows = sqlx::query!(
            r#"-- figures_of_doubts
            SELECT CASE
                       WHEN a.state <> 'in_doubt' THEN 'read at the gateway: ' || replace(a.state::text, '_', ' ')
                       WHEN c.state = 'failed' THEN 'never known: written off'
                       ELSE 'still open' END AS "how!",
                   count(*) AS "count!"
            FROM all_attempts a JOIN all_charges c USING (charge_id)
            WHERE EXISTS (SELECT FROM all_evidence e WHERE e.attempt_id = a.attempt_id AND e.kind = 'answer' AND e.verdict = 'in_doubt')
            GROUP BY 1 ORDER BY 2 DESC, 1"#
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| (row.how, row.count)).collect())
    }

    /// Every movement of money in the books.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn movements(&self) -> Result<Vec<Movement>, StoreError> {
        Ok(sqlx::query_as!(
            Movement,
            r#"-- movements
            SELECT transaction_id AS "transaction_id!: TransactionId", order_id AS "order_id!",
                   amount_minor AS "amount_minor!", currency AS "currency!: Currency"
            FROM all_attempts WHERE state IN ('settled', 'surplus')"#
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// How things stand.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn progress(&self) -> Result<Progress, StoreError> {
        Ok(sqlx::query_as!(
            Progress,
            r#"-- progress
            SELECT (SELECT count(*) FROM all_charges) AS "charges!",
                   (SELECT count(*) FROM all_charges WHERE state = 'paid') AS "paid!",
                   (SELECT count(*) FROM all_attempts WHERE state = 'rejected') AS "declined!",
                   (SELECT count(*) FROM attempts WHERE state = 'in_doubt' AND next_poll_at IS NOT NULL) AS "in_doubt!",
                   (SELECT count(*) FROM attempts
                    WHERE state IN ('in_doubt', 'pending') AND next_poll_at IS NOT NULL) AS "unsettled!""#
        )
        .fetch_one(&self.pool)
        .await?)
    }

    /// How many periods of billed subscriptions were due by `now` and have no charge.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn unplanned(
        &self,
        shops: &[ShopName],
        now: DateTime<Utc>,
    ) -> Result<i64, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"-- unplanned
            SELECT count(*) AS "count!" FROM due_periods d JOIN subscriptions s USING (subscription_id)
            WHERE d.due_at <= $1 AND s.status IN ('active', 'past_due') AND s.shop = ANY($2)"#,
            now,
            shops as &[ShopName],
        )
        .fetch_one(&self.pool)
        .await?)
    }
}
