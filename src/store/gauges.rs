//! Figures about the books as they are now, cheap enough to be read at every scrape.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::id::AttemptId;
use crate::domain::shop::ShopName;
use crate::domain::tripwire::{Declines, OUTCOMES};
use crate::store::situation::first_id_of;
use crate::store::{Store, StoreError, readings};

/// Over so many days it is counted how often debits are declined.
const USUAL_DAYS: i32 = 30;

/// How things stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gauges {
    /// Attempts in doubt, answered or not.
    pub in_doubt: i64,
    /// Refunds in doubt past the time for their answer.
    pub refunds_in_doubt: i64,
    /// Charges that wait for a person.
    pub held: i64,
    /// How long the oldest charge or period that is due has been due, in seconds; 0 when nothing is.
    pub oldest_due_seconds: i64,
    /// Events that wait to be delivered.
    pub outbox_pending: i64,
}

/// How long ago a worker last finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerLag {
    /// The worker.
    pub worker: String,
    /// In seconds.
    pub seconds: i64,
}

impl Store {
    /// The gauges at `now`.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn gauges(&self, now: DateTime<Utc>) -> Result<Gauges, StoreError> {
        Ok(sqlx::query_as!(
            Gauges,
            r#"-- gauges
            SELECT (SELECT count(*) FROM attempts
                    WHERE state = 'in_doubt' AND deadline_at <= $1 AND next_poll_at IS NOT NULL) AS "in_doubt!",
                   (SELECT count(*) FROM refunds
                    WHERE next_poll_at IS NOT NULL AND state = 'in_doubt' AND deadline_at <= $1) AS "refunds_in_doubt!",
                   (SELECT count(*) FROM charges WHERE is_held) AS "held!",
                   (SELECT count(*) FROM outbox) AS "outbox_pending!",
                   coalesce(greatest(0, extract(epoch FROM $1 - least(
                       (SELECT min(due_at) FROM due_periods),
                       (SELECT min(send_at) FROM charges WHERE send_at IS NOT NULL))))::bigint, 0)
                       AS "oldest_due_seconds!""#,
            now,
        )
        .fetch_one(&self.pool)
        .await?)
    }

    /// How often the debits of each shop were declined in the last 30 days. A statement for each day, so that none of them takes long.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn usual_declines(
        &self,
        now: DateTime<Utc>,
    ) -> Result<HashMap<ShopName, Declines>, StoreError> {
        let mut usual: HashMap<ShopName, Declines> = HashMap::new();
        for day in 0..USUAL_DAYS {
            let until = now - TimeDelta::days(day.into());
            let rows = sqlx::query_file!(
                "src/store/sql/decline_share.sql",
                first_id_of(until - TimeDelta::days(1)),
                first_id_of(until),
            )
            .fetch_all(&self.pool)
            .await?;
            for row in rows {
                let of_shop = usual.entry(row.shop).or_default();
                of_shop.declined += u64::from(readings::count(row.declined)?);
                of_shop.debits += u64::from(readings::count(row.debits)?);
            }
        }
        Ok(usual)
    }

    /// How many of the last [`OUTCOMES`] debits of `shop` were declined, in the order in which they were permitted, from `since` up to
    /// `newest`.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn declines_up_to(
        &self,
        shop: &ShopName,
        since: DateTime<Utc>,
        newest: AttemptId,
    ) -> Result<Declines, StoreError> {
        // The ids of attempts begin with the time at which they were permitted.
        let row = sqlx::query!(
            r#"-- declines_lately
            SELECT count(*) FILTER (WHERE state = 'rejected') AS "declined!", count(*) AS "debits!"
            FROM (
                SELECT state FROM attempts
                WHERE attempt_id BETWEEN $2 AND $3 AND shop = $1
                    AND state IN ('in_doubt', 'pending', 'settled', 'rejected', 'surplus')
                ORDER BY attempt_id DESC LIMIT $4
            ) debits"#,
            shop as &ShopName,
            first_id_of(since),
            newest as AttemptId,
            i64::from(OUTCOMES),
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(Declines {
            declined: readings::count(row.declined)?.into(),
            debits: readings::count(row.debits)?.into(),
        })
    }

    /// How long ago each worker finished, anywhere, as of `now`.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn worker_lags(&self, now: DateTime<Utc>) -> Result<Vec<WorkerLag>, StoreError> {
        Ok(sqlx::query_as!(
            WorkerLag,
            r#"-- worker_lags
            SELECT worker, greatest(0, extract(epoch FROM $1 - coalesce(last_ended_at, last_started_at)))::bigint AS "seconds!"
            FROM worker_runs ORDER BY worker"#,
            now,
        )
        .fetch_all(&self.pool)
        .await?)
    }
}
