//! How things stand, for `cykl status`: exact, and yet quick on books of any size, because what is closed is not counted.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use uuid::Uuid;

use crate::domain::subscription::SubscriptionStatus;
use crate::store::{Store, StoreError};

/// How things stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Situation {
    /// Charges that are due and wait to be sent.
    pub planned: i64,
    /// Charges with an attempt that is in doubt or pending.
    pub in_flight: i64,
    /// Charges that are tried again later.
    pub retry_wait: i64,
    /// Charges that wait for a person.
    pub held: i64,
    /// Charges that were given up and are not archived.
    pub failed: i64,
    /// Attempts in doubt past their deadline that were not given up.
    pub in_doubt: i64,
    /// Attempts that imoje has not finished.
    pub pending: i64,
    /// Charges paid in the last 24 hours.
    pub paid_24h: i64,
    /// Declines in the last 24 hours after which the charge is tried again.
    pub declined_24h: i64,
    /// Charges given up in the last 24 hours.
    pub failed_24h: i64,
    /// Notices that nobody has read yet.
    pub notices_new: i64,
    /// Events that wait to be delivered.
    pub outbox_pending: i64,
    /// Since when the oldest period or charge that is due has been due; `None` when nothing is.
    pub oldest_due_at: Option<DateTime<Utc>>,
    /// When the next one falls due.
    pub next_due_at: Option<DateTime<Utc>>,
}

/// How many subscriptions have a status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StatusCount {
    /// The status.
    pub status: SubscriptionStatus,
    /// How many.
    pub subscriptions: i64,
}

/// The last run of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WorkerRun {
    /// The worker.
    pub worker: String,
    /// When it last began.
    pub last_started_at: DateTime<Utc>,
    /// When it last ended.
    pub last_ended_at: Option<DateTime<Utc>>,
    /// How much it has handled, ever.
    pub handled: i64,
}

/// The place that charging was allowed in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Adoption {
    /// Since when.
    pub adopted_at: DateTime<Utc>,
    /// By whom.
    pub adopted_by: String,
    /// Why.
    pub reason: String,
}

impl Store {
    /// How things stand at `now`.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn situation(&self, now: DateTime<Utc>) -> Result<Situation, StoreError> {
        Ok(sqlx::query_file_as!(
            Situation,
            "src/store/sql/situation.sql",
            now,
            first_id_of(now - TimeDelta::hours(24)),
        )
        .fetch_one(&self.pool)
        .await?)
    }

    /// How many subscriptions have each status. Reads every subscription.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn count_subscriptions(&self) -> Result<Vec<StatusCount>, StoreError> {
        Ok(sqlx::query_as!(
            StatusCount,
            r#"-- count_subscriptions
            SELECT status AS "status: SubscriptionStatus", count(*) AS "subscriptions!"
            FROM subscriptions GROUP BY status ORDER BY status"#
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// The last run of each worker, anywhere.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn worker_runs(&self) -> Result<Vec<WorkerRun>, StoreError> {
        Ok(sqlx::query_as!(
            WorkerRun,
            "-- worker_runs
            SELECT worker, last_started_at, last_ended_at, handled FROM worker_runs ORDER BY worker"
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// The last adoption; `None` when nothing has ever charged from this database.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn adoption(&self) -> Result<Option<Adoption>, StoreError> {
        Ok(sqlx::query_as!(
            Adoption,
            "-- adoption
            SELECT adopted_at, adopted_by, reason FROM installation"
        )
        .fetch_optional(&self.pool)
        .await?)
    }
}

/// The least id that is made at `at` or later: UUIDv7 begins with the time in milliseconds (RFC 9562, section 5.7).
pub(super) fn first_id_of(at: DateTime<Utc>) -> Uuid {
    let millis = u64::try_from(at.timestamp_millis()).unwrap_or(0);
    Uuid::from_u128(u128::from(millis) << 80)
}

#[cfg(test)]
mod tests {
    use uuid::{NoContext, Timestamp};

    use super::*;

    #[test]
    fn the_bound_lies_between_the_ids_of_two_milliseconds() {
        let at: DateTime<Utc> = "2026-03-01T12:00:00.123456Z".parse().unwrap();
        let id = |at: DateTime<Utc>| {
            let seconds = u64::try_from(at.timestamp()).unwrap();
            Uuid::new_v7(Timestamp::from_unix(
                NoContext,
                seconds,
                at.timestamp_subsec_nanos(),
            ))
        };
        assert!(id(at) >= first_id_of(at));
        assert!(id(at - TimeDelta::milliseconds(1)) < first_id_of(at));
    }
}
