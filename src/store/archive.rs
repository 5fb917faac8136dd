//! The archive: what is over leaves the tables that charging works on, so that a charge costs the same however long Cykl has been in
//! use. See `migrations/0006_archive.sql`.
//!
//! A kind of rows is walked through in the order of their ids, which is the order in which they were made, a batch at a time. Each batch
//! is one transaction: it is in the archive and gone from here, or neither. The database refuses to delete what it does not find in
//! the archive.

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::PgTransaction;
use uuid::Uuid;

use crate::domain::id::{ChargeId, EventId, NoticeId};
use crate::store::situation::first_id_of;
use crate::store::{Store, StoreError, despite_others};

/// What is archived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Charges, with their attempts and evidence.
    Periods,
    /// Events.
    Events,
    /// Notices.
    Notices,
}

impl Part {
    /// All parts.
    pub const ALL: [Part; 3] = [Part::Periods, Part::Events, Part::Notices];
}

/// One step through a part.
#[derive(Debug)]
pub struct Step {
    /// How many rows of the part were archived. What belongs to a charge is not counted.
    pub archived: usize,
    /// Where the next step goes on. `None` when there is nothing behind.
    pub reached: Option<Uuid>,
    /// Why none of them was, if the database refused one.
    pub refused: Option<StoreError>,
}

/// How many rows one step looks at.
const BATCH: i64 = 500;

/// The key of the advisory lock under which quarters are added and dropped.
const QUARTERS: i64 = 0x6379_6b6c_0002;

impl Store {
    /// Archives what of the next rows of `part` was over `before` that time, beginning behind the row `after`.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is archived then. A row that the database refuses is no error of the step: those that it was archived with
    /// stay, and the next step goes on behind them.
    pub async fn archive_step(
        &self,
        part: Part,
        after: Option<Uuid>,
        before: DateTime<Utc>,
    ) -> Result<Step, StoreError> {
        let ids = self.next_ids(part, after, before).await?;
        let mut step = Step {
            archived: 0,
            reached: ids.last().copied(),
            refused: None,
        };
        if ids.is_empty() {
            return Ok(step);
        }
        // One of the subscriptions may be stepped at the same time, for example.
        let archived = despite_others(StoreError::is_busy, || {
            self.archive_rows(part, &ids, before)
        });
        match archived.await {
            Ok(archived) => step.archived = archived,
            Err(error) if error.refusal().is_some() => step.refused = Some(error),
            Err(error) => return Err(error),
        }
        Ok(step)
    }

    /// The next rows of `part` that were made before that time.
    async fn next_ids(
        &self,
        part: Part,
        after: Option<Uuid>,
        before: DateTime<Utc>,
    ) -> Result<Vec<Uuid>, StoreError> {
        let (after, before) = (after.unwrap_or(Uuid::nil()), first_id_of(before));
        Ok(match part {
            Part::Periods => {
                sqlx::query_scalar!(
                    "-- next_charges
                    SELECT charge_id FROM charges WHERE charge_id > $1 AND charge_id < $2 ORDER BY charge_id LIMIT $3",
                    after,
                    before,
                    BATCH,
                )
                .fetch_all(&self.pool)
                .await?
            }
            Part::Events => {
                sqlx::query_scalar!(
                    "-- next_events
                    SELECT event_id FROM events WHERE event_id > $1 AND event_id < $2 ORDER BY event_id LIMIT $3",
                    after,
                    before,
                    BATCH,
                )
                .fetch_all(&self.pool)
                .await?
            }
            Part::Notices => {
                sqlx::query_scalar!(
                    "-- next_notices
                    SELECT notice_id FROM notices WHERE notice_id > $1 AND notice_id < $2 ORDER BY notice_id LIMIT $3",
                    after,
                    before,
                    BATCH,
                )
                .fetch_all(&self.pool)
                .await?
            }
        })
    }

    async fn archive_rows(
        &self,
        part: Part,
        ids: &[Uuid],
        before: DateTime<Utc>,
    ) -> Result<usize, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let archived = match part {
            Part::Periods => archive_periods(&mut transaction, ids, before).await?,
            Part::Events => archive_events(&mut transaction, ids, before).await?,
            Part::Notices => archive_notices(&mut transaction, ids, before).await?,
        };
        transaction.commit().await?;
        Ok(archived)
    }

    /// Drops what the archive has from before the year that begins on `first_of_year`, for good. Returns how many quarters that was.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is dropped then. So it is when somebody reads the archive for longer than a moment.
    pub async fn drop_archive(&self, first_of_year: NaiveDate) -> Result<i32, StoreError> {
        let mut transaction = self.pool.begin().await?;
        lock_quarters(&mut transaction).await?;
        // Whoever reads the archive is not made to wait behind us for longer than this.
        sqlx::query!("SET LOCAL lock_timeout = '2s'")
            .execute(&mut *transaction)
            .await?;
        let quarters = sqlx::query_scalar!(
            r#"-- drop_archive
            SELECT drop_archive_before($1) AS "quarters!""#,
            first_of_year,
        )
        .fetch_one(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(quarters)
    }
}

async fn archive_periods(
    transaction: &mut PgTransaction<'_>,
    ids: &[Uuid],
    before: DateTime<Utc>,
) -> Result<usize, StoreError> {
    let closed = sqlx::query_file!("src/store/sql/archive/lock_closed_periods.sql", ids, before)
        .fetch_all(&mut **transaction)
        .await?;
    if closed.is_empty() {
        return Ok(0);
    }
    let days: Vec<_> = closed.iter().map(|row| row.due_on).collect();
    add_quarters(transaction, &days).await?;
    let closed: Vec<ChargeId> = closed.into_iter().map(|row| row.charge_id).collect();
    let charges = &closed as &[ChargeId];
    sqlx::query_file!("src/store/sql/archive/archive_charges.sql", charges as _)
        .execute(&mut **transaction)
        .await?;
    sqlx::query_file!("src/store/sql/archive/archive_attempts.sql", charges as _)
        .execute(&mut **transaction)
        .await?;
    sqlx::query_file!("src/store/sql/archive/archive_evidence.sql", charges as _)
        .execute(&mut **transaction)
        .await?;
    // In the order in which everybody locks them.
    sqlx::query!(
        "-- lock_subscriptions_of_charges
        SELECT subscription_id FROM subscriptions
        WHERE subscription_id IN (SELECT c.subscription_id FROM charges c WHERE c.charge_id = ANY($1))
        ORDER BY subscription_id FOR NO KEY UPDATE",
        charges as _,
    )
    .fetch_all(&mut **transaction)
    .await?;
    sqlx::query_file!("src/store/sql/archive/count_archived.sql", charges as _)
        .execute(&mut **transaction)
        .await?;
    sqlx::query!(
        "-- drop_evidence
        DELETE FROM evidence e
        USING charges c JOIN attempts a USING (subscription_id, period_no)
        WHERE c.charge_id = ANY($1) AND e.attempt_id = a.attempt_id",
        charges as _,
    )
    .execute(&mut **transaction)
    .await?;
    sqlx::query!(
        "-- drop_attempts
        DELETE FROM attempts a USING charges c
        WHERE c.charge_id = ANY($1) AND a.subscription_id = c.subscription_id AND a.period_no = c.period_no",
        charges as _,
    )
    .execute(&mut **transaction)
    .await?;
    sqlx::query!(
        "-- drop_charges
        DELETE FROM charges WHERE charge_id = ANY($1)",
        charges as _,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(closed.len())
}

async fn archive_events(
    transaction: &mut PgTransaction<'_>,
    ids: &[Uuid],
    before: DateTime<Utc>,
) -> Result<usize, StoreError> {
    let old = sqlx::query_file!("src/store/sql/archive/lock_old_events.sql", ids, before)
        .fetch_all(&mut **transaction)
        .await?;
    if old.is_empty() {
        return Ok(0);
    }
    let days: Vec<_> = old.iter().map(|row| row.occurred_at.date_naive()).collect();
    add_quarters(transaction, &days).await?;
    let old: Vec<EventId> = old.into_iter().map(|row| row.event_id).collect();
    let events = &old as &[EventId];
    sqlx::query_file!("src/store/sql/archive/archive_events.sql", events as _)
        .execute(&mut **transaction)
        .await?;
    sqlx::query!(
        "-- drop_events
        DELETE FROM events WHERE event_id = ANY($1)",
        events as _,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(old.len())
}

async fn archive_notices(
    transaction: &mut PgTransaction<'_>,
    ids: &[Uuid],
    before: DateTime<Utc>,
) -> Result<usize, StoreError> {
    let closed = sqlx::query!(
        r#"-- lock_closed_notices
        SELECT notice_id AS "notice_id: NoticeId", received_at FROM notices
        WHERE notice_id = ANY($1) AND state <> 'new' AND received_at < $2
        ORDER BY notice_id FOR UPDATE SKIP LOCKED"#,
        ids,
        before,
    )
    .fetch_all(&mut **transaction)
    .await?;
    if closed.is_empty() {
        return Ok(0);
    }
    let days: Vec<_> = closed
        .iter()
        .map(|row| row.received_at.date_naive())
        .collect();
    add_quarters(transaction, &days).await?;
    let closed: Vec<NoticeId> = closed.into_iter().map(|row| row.notice_id).collect();
    let notices = &closed as &[NoticeId];
    sqlx::query_file!("src/store/sql/archive/archive_notices.sql", notices as _)
        .execute(&mut **transaction)
        .await?;
    sqlx::query!(
        "-- drop_notices
        DELETE FROM notices WHERE notice_id = ANY($1)",
        notices as _,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(closed.len())
}

/// Makes room for what belongs to these days.
async fn add_quarters(
    transaction: &mut PgTransaction<'_>,
    days: &[NaiveDate],
) -> Result<(), StoreError> {
    let missing = sqlx::query_scalar!(
        r#"-- missing_archive_quarters
        SELECT DISTINCT date_trunc('quarter', d.day)::date AS "quarter!" FROM unnest($1::date[]) AS d (day)
        WHERE to_regclass('archived_notices_' || to_char(d.day, 'YYYY_"q"Q')) IS NULL ORDER BY 1"#,
        days,
    )
    .fetch_all(&mut **transaction)
    .await?;
    if missing.is_empty() {
        return Ok(());
    }
    lock_quarters(transaction).await?;
    for quarter in missing {
        sqlx::query!(
            "-- add_archive_quarter
            SELECT add_archive_quarter($1)",
            quarter
        )
        .execute(&mut **transaction)
        .await?;
    }
    Ok(())
}

/// Lets one instance after the other add and drop quarters.
async fn lock_quarters(transaction: &mut PgTransaction<'_>) -> Result<(), StoreError> {
    sqlx::query!(
        "-- lock_archive_quarters
        SELECT pg_advisory_xact_lock($1)",
        QUARTERS
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}
