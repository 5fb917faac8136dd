//! Whether anything waits: one statement for each worker, which locks and changes nothing, so that a tick with nothing to do costs
//! no more. Each says yes at least whenever the worker would find something; that the worker finds nothing then does no harm.

use chrono::{DateTime, Utc};

use crate::domain::shop::ShopName;
use crate::store::{Store, StoreError};

/// So many charges of a shop that are due together are many.
pub const CROWD: i64 = 100;

/// How many of the charges that are due are looked at to see whether those of a shop are many.
const CROWDS_SEEN: i64 = 1_000;

/// What waits for the charger.
#[derive(Debug, Clone, Copy)]
pub struct ChargerWork {
    /// Whether anything does.
    pub is_there: bool,
    /// The time of the database's own clock.
    pub time_of_database: DateTime<Utc>,
}

impl Store {
    /// Whether a period of `shops` is due, or a subscription is over.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn has_work_for_scheduler(
        &self,
        shops: &[ShopName],
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"-- has_work_for_scheduler
            SELECT EXISTS (
                SELECT FROM due_periods d JOIN subscriptions s USING (subscription_id)
                WHERE d.due_at <= $1 AND s.shop = ANY($2) AND s.status IN ('active', 'past_due')
            ) OR EXISTS (
                SELECT FROM subscriptions s
                WHERE s.is_finishing AND s.status IN ('active', 'past_due') AND NOT EXISTS (
                    SELECT FROM charges c WHERE c.subscription_id = s.subscription_id
                        AND c.state IN ('planned', 'in_flight', 'retry_wait', 'held'))
            ) AS "has_work!""#,
            now,
            shops as &[ShopName],
        )
        .fetch_one(&self.pool)
        .await?)
    }

    /// Whether a charge of `shops` is due, or a pause is over, and what time it is by the database's own clock.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn has_work_for_charger(
        &self,
        shops: &[ShopName],
        now: DateTime<Utc>,
    ) -> Result<ChargerWork, StoreError> {
        Ok(sqlx::query_as!(
            ChargerWork,
            r#"-- has_work_for_charger
            SELECT EXISTS (SELECT FROM charges WHERE send_at <= $1 AND shop = ANY($2))
                OR EXISTS (SELECT FROM brakes WHERE until <= $1) AS "is_there!",
                clock_timestamp() AS "time_of_database!""#,
            now,
            shops as &[ShopName],
        )
        .fetch_one(&self.pool)
        .await?)
    }

    /// Of `shops` those of which many charges are due: at least [`CROWD`] of the first thousand of all.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn crowded_shops(
        &self,
        shops: &[ShopName],
        now: DateTime<Utc>,
    ) -> Result<Vec<ShopName>, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"-- crowded_shops
            SELECT w.shop AS "shop!: ShopName"
            FROM (SELECT c.shop FROM charges c WHERE c.send_at <= $1 AND c.shop = ANY($2) ORDER BY c.send_at LIMIT $3) w
            GROUP BY w.shop HAVING count(*) >= $4"#,
            now,
            shops as &[ShopName],
            CROWDS_SEEN,
            CROWD,
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// Whether a charge of `shops` that fell due in this time still waits to be sent.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn waits_to_be_sent(
        &self,
        shops: &[ShopName],
        from: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"-- waits_to_be_sent
            SELECT EXISTS (SELECT FROM charges WHERE send_at BETWEEN $1 AND $2 AND shop = ANY($3)) AS "waits!""#,
            from,
            until,
            shops as &[ShopName],
        )
        .fetch_one(&self.pool)
        .await?)
    }

    /// Whether a notice of `shops` is to be followed up, an attempt, a refund or a registration is to be looked at, or, because as many attempts as
    /// `in_doubt_max` are in doubt past their deadline, people are to be asked about one of them before its time.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn has_work_for_resolver(
        &self,
        shops: &[ShopName],
        in_doubt_max: u32,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"-- has_work_for_resolver
            SELECT EXISTS (
                SELECT FROM notices WHERE state = 'new' AND next_action_at <= $1 AND shop = ANY($2)
            ) OR EXISTS (
                SELECT FROM attempts
                WHERE next_poll_at <= $1 AND (shop = ANY($2) OR (state = 'in_doubt' AND transaction_id IS NULL))
            ) OR EXISTS (
                SELECT FROM refunds WHERE next_poll_at <= $1 AND shop = ANY($2)
            ) OR EXISTS (
                SELECT FROM registrations WHERE next_poll_at <= $1 AND shop = ANY($2)
            ) OR EXISTS (
                SELECT FROM attempts
                WHERE state = 'in_doubt' AND deadline_at <= $1 AND case_opened_at IS NULL AND next_poll_at > $1
            ) AND (
                SELECT count(*) FROM attempts WHERE state = 'in_doubt' AND next_poll_at IS NOT NULL AND deadline_at <= $1
            ) >= $3 AS "has_work!""#,
            now,
            shops as &[ShopName],
            i64::from(in_doubt_max),
        )
        .fetch_one(&self.pool)
        .await?)
    }

    /// Whether an event is to be delivered, on whatever channel.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn has_work_for_notifier(&self, now: DateTime<Utc>) -> Result<bool, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"-- has_work_for_notifier
            SELECT EXISTS (SELECT FROM outbox WHERE next_attempt_at <= $1) AS "has_work!""#,
            now,
        )
        .fetch_one(&self.pool)
        .await?)
    }
}
