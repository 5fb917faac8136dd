//! What PostgreSQL counts by itself: WAL, statements, pages.

use std::time::Duration;

use anyhow::Context;
use sqlx::PgPool;

use crate::books;

/// What PostgreSQL has counted so far, or since an earlier count.
#[derive(Debug, Clone, Copy)]
pub struct Counts {
    /// Bytes of WAL.
    pub wal_bytes: u64,
    /// How often it was made durable.
    pub fsyncs: u64,
    /// Statements of the daemon in this database, or its transactions where PostgreSQL lacks `pg_stat_statements`.
    pub statements: u64,
}

impl Counts {
    /// What was counted since.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            wal_bytes: self.wal_bytes.saturating_sub(earlier.wal_bytes),
            fsyncs: self.fsyncs.saturating_sub(earlier.fsyncs),
            statements: self.statements.saturating_sub(earlier.statements),
        }
    }
}

/// The rows of `pg_stat_statements` that the daemon's role caused in this database.
const DAEMONS: &str = "FROM pg_stat_statements JOIN pg_roles ON userid = pg_roles.oid
    WHERE rolname = 'cykl' AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())";

/// Reads the counts.
pub async fn counts(observer: &PgPool, counts_statements: bool) -> anyhow::Result<Counts> {
    let statements = if counts_statements {
        format!("(SELECT coalesce(sum(calls), 0)::bigint {DAEMONS})")
    } else {
        "(SELECT xact_commit FROM pg_stat_database WHERE datname = current_database())".to_owned()
    };
    let query = format!(
        "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint, (SELECT wal_sync FROM pg_stat_wal), {statements}"
    );
    let (wal_bytes, fsyncs, statements): (i64, i64, i64) =
        sqlx::query_as(sqlx::AssertSqlSafe(query))
            .fetch_one(observer)
            .await?;
    Ok(Counts {
        wal_bytes: u64::try_from(wal_bytes)?,
        fsyncs: u64::try_from(fsyncs)?,
        statements: u64::try_from(statements)?,
    })
}

/// How many pages the daemon's statements have touched in this database.
pub async fn pages(observer: &PgPool) -> anyhow::Result<u64> {
    let query =
        format!("SELECT coalesce(sum(shared_blks_hit + shared_blks_read), 0)::bigint {DAEMONS}");
    let pages: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(query))
        .fetch_one(observer)
        .await?;
    Ok(u64::try_from(pages)?)
}

/// What the claims have taken so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Claims {
    /// How many there were.
    pub calls: u64,
    /// How many rows they took.
    pub rows: u64,
    /// How long PostgreSQL worked on them.
    pub time: Duration,
}

/// Reads what the statements of [`books::CLAIM_STATEMENTS`] have taken.
pub async fn claims(observer: &PgPool) -> anyhow::Result<Claims> {
    let names = books::CLAIM_STATEMENTS.map(|name| format!("-- {name}\n%"));
    let query = format!(
        "SELECT coalesce(sum(calls), 0)::bigint, coalesce(sum(rows), 0)::bigint,
                (coalesce(sum(total_exec_time), 0) * 1000000)::bigint {DAEMONS} AND query LIKE ANY($1)"
    );
    let (calls, rows, nanos): (i64, i64, i64) = sqlx::query_as(sqlx::AssertSqlSafe(query))
        .bind(&names[..])
        .fetch_one(observer)
        .await
        .context("couldn't read pg_stat_statements")?;
    Ok(Claims {
        calls: u64::try_from(calls)?,
        rows: u64::try_from(rows)?,
        time: Duration::from_nanos(u64::try_from(nanos)?),
    })
}
