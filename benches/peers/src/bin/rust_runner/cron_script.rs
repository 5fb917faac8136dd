//! The plain cron script: claims a row, debits, and records, row by row, over 16 connections at once.

use std::sync::Arc;

use anyhow::{Context, ensure};
use cykl_bench_peers::Assignment;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::task::JoinSet;

use crate::debits::Debits;

/// How many rows it works on at a time.
const CONNECTIONS: u32 = 16;

/// Makes the table and its rows.
pub async fn enqueue(assignment: &Assignment) -> anyhow::Result<()> {
    let mut connection = connect(&assignment.database_url).await?;
    sqlx::raw_sql(
        "CREATE TABLE debits (
             number integer PRIMARY KEY,
             due_at timestamptz NOT NULL,
             state text NOT NULL DEFAULT 'due',
             claimed_at timestamptz,
             paid_at timestamptz
         );
         CREATE INDEX due_debits ON debits (due_at) WHERE state = 'due'",
    )
    .execute(&mut connection)
    .await?;
    sqlx::query(
        "INSERT INTO debits (number, due_at)
         SELECT number, now() - random() * interval '1 hour' FROM generate_series(0, $1 - 1) number",
    )
    .bind(i32::try_from(assignment.jobs)?)
    .execute(&mut connection)
    .await?;
    connection.close().await?;
    Ok(())
}

/// Works until no row is due, and keeps its connections until it is dropped.
pub async fn work(assignment: &Assignment, debits: &Arc<Debits>) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let connection = connect(&assignment.database_url).await?;
        tasks.spawn(debit_until_end(connection, Arc::clone(debits)));
    }
    let mut connections = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        connections.push(ended.context("the script broke")??);
    }
    std::future::pending().await
}

async fn debit_until_end(
    mut connection: PgConnection,
    debits: Arc<Debits>,
) -> anyhow::Result<PgConnection> {
    while let Some(number) = claim(&mut connection).await? {
        debits.debit(u32::try_from(number)?).await?;
        record(&mut connection, number).await?;
    }
    Ok(connection)
}

async fn claim(connection: &mut PgConnection) -> anyhow::Result<Option<i32>> {
    sqlx::query_scalar(
        "UPDATE debits SET state = 'claimed', claimed_at = now()
         WHERE number = (SELECT number FROM debits WHERE state = 'due' AND due_at <= now()
                         ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED)
         RETURNING number",
    )
    .fetch_optional(connection)
    .await
    .context("couldn't claim a row")
}

async fn record(connection: &mut PgConnection, number: i32) -> anyhow::Result<()> {
    let updated = sqlx::query(
        "UPDATE debits SET state = 'paid', paid_at = now()
         WHERE number = $1 AND state = 'claimed'",
    )
    .bind(number)
    .execute(connection)
    .await
    .context("couldn't record a debit")?;
    ensure!(
        updated.rows_affected() == 1,
        "the row {number} was not claimed"
    );
    Ok(())
}

async fn connect(url: &str) -> anyhow::Result<PgConnection> {
    let options: PgConnectOptions = url.parse().context("the database's URL")?;
    options
        .connect()
        .await
        .context("couldn't connect to PostgreSQL")
}
