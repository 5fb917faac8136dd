//! Everything here that knows the tables: how they are filled, whether all is done, what was paid, and how a claim is made.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use cykl::domain::id::FenceId;
use cykl::domain::schedule::Birth;
use cykl::domain::shop::ShopName;
use cykl::store::Store;
use cykl::store::permits::{Claim, Limits};
use cykl::store::planning::{DueSubscription, NextPeriod, Plan};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, PgPool};

/// Subscriptions fall due in so many waves of equal size, an hour apart.
pub const WAVES: u64 = 100;

/// The statements that take what is due, by the name in their first line.
pub const CLAIM_STATEMENTS: [&str; 1] = ["claim_candidates"];

/// How many rows a claim takes.
pub const CLAIM: u32 = 500;

/// Ids in an order that looks random, at half the price of `md5`: tens of millions are needed. And when each is due: the wave, and
/// the moment within its first ten minutes.
const MAKE_IDS: &str = "CREATE FUNCTION pg_temp.id_of(n bigint, kind bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT encode(int8send(hashint8extended(n, kind)) || int8send(hashint8extended(n, -kind)), 'hex')::uuid $$;
    CREATE FUNCTION pg_temp.wave_of(n bigint, first timestamptz, waves bigint) RETURNS timestamptz LANGUAGE sql AS $$
    SELECT first + make_interval(hours => (n * 37 % waves)::int) $$;
    CREATE FUNCTION pg_temp.place_in_wave(n bigint) RETURNS interval LANGUAGE sql IMMUTABLE AS $$
    SELECT (n * 7919 % 600000) * interval '1 millisecond' $$";

/// The tables of subscriptions that have never been charged, and their rows, each on a card of its own: $1 how many, $2 when the
/// first wave is due. Agreements and cards lie in an order that has nothing to do with the order in which they fall due.
const TABLES: [(&str, &str); 3] = [
    (
        "cards",
        "INSERT INTO cards (card_id, shop, cid, payment_profile_id, created_at)
         SELECT pg_temp.id_of(n, 1), 'main', lpad(to_hex(n), 6, '0'), gen_random_uuid(), $2
         FROM generate_series(1, $1::bigint) n",
    ),
    (
        "subscriptions",
        "INSERT INTO subscriptions (subscription_id, shop, external_id, status, card_id, amount_minor, currency, period,
                                    anchor_date, timezone, first_period_no, from_due_at, created_at, updated_at)
         SELECT pg_temp.id_of(n, 2), 'main', 'subscription-' || lpad(n::text, 9, '0'), 'active', pg_temp.id_of(n, 1), 4900,
                'PLN', 'P1M', (pg_temp.wave_of(n, $2, $3) AT TIME ZONE 'Europe/Warsaw')::date, 'Europe/Warsaw', 0,
                pg_temp.wave_of(n, $2, $3) + pg_temp.place_in_wave(n), $2, $2
         FROM generate_series(1, $1::bigint) n",
    ),
    (
        "due_periods",
        "INSERT INTO due_periods (due_at, subscription_id, period_no, due_on)
         SELECT wave + pg_temp.place_in_wave(n), pg_temp.id_of(n, 2), 0, (wave AT TIME ZONE 'Europe/Warsaw')::date
         FROM (SELECT n, pg_temp.wave_of(n, $2, $3) AS wave FROM generate_series(1, $1::bigint) n) due
         ORDER BY 1",
    ),
];

/// Fills the empty tables with `count` subscriptions in [`WAVES`] waves, of which the first is due at `first_due_at`. The indexes
/// are built at the end, in one go.
pub async fn fill(
    connection: &mut PgConnection,
    count: u64,
    first_due_at: DateTime<Utc>,
) -> anyhow::Result<()> {
    let count = i64::try_from(count)?;
    let mut script = vec![
        MAKE_IDS.to_owned(),
        "BEGIN".to_owned(),
        "SET LOCAL session_replication_role = replica".to_owned(),
    ];
    for (table, _) in TABLES {
        // Rows of a table that was emptied in the same transaction need no WAL.
        script.push(format!("TRUNCATE {table} CASCADE"));
        script.push(format!(
            "UPDATE pg_index SET indisready = false WHERE indrelid = '{table}'::regclass"
        ));
    }
    run_all(connection, &script).await?;
    for (table, insert) in TABLES {
        sqlx::query(insert)
            .bind(count)
            .bind(first_due_at)
            .bind(i64::try_from(WAVES)?)
            .execute(&mut *connection)
            .await
            .with_context(|| format!("couldn't fill {table}"))?;
        let ready =
            format!("UPDATE pg_index SET indisready = true WHERE indrelid = '{table}'::regclass");
        run_all(connection, &[ready, format!("REINDEX TABLE {table}")]).await?;
    }
    run_all(connection, &["COMMIT".to_owned()]).await?;
    // What autovacuum does soon after an import.
    let tables = TABLES.map(|(table, _)| table).join(", ");
    run_all(connection, &[format!("VACUUM (ANALYZE) {tables}")]).await
}

async fn run_all(connection: &mut PgConnection, statements: &[String]) -> anyhow::Result<()> {
    for statement in statements {
        sqlx::raw_sql(AssertSqlSafe(statement.clone()))
            .execute(&mut *connection)
            .await
            .with_context(|| format!("couldn't run {statement}"))?;
    }
    Ok(())
}

/// Whether nothing is left to plan, to charge, to follow up or to tell.
pub async fn is_all_done(observer: &PgPool, now: DateTime<Utc>) -> anyhow::Result<bool> {
    Ok(sqlx::query_scalar(
        "SELECT NOT EXISTS (SELECT FROM due_periods WHERE due_at <= $1)
            AND NOT EXISTS (SELECT FROM charges WHERE send_at IS NOT NULL)
            AND NOT EXISTS (SELECT FROM attempts WHERE next_poll_at IS NOT NULL)
            AND NOT EXISTS (SELECT FROM notices WHERE state = 'new')
            AND NOT EXISTS (SELECT FROM outbox)",
    )
    .bind(now)
    .fetch_one(observer)
    .await?)
}

/// How many charges are paid.
pub async fn paid(observer: &PgPool) -> anyhow::Result<u64> {
    count(
        observer,
        "SELECT count(*) FROM charges WHERE state = 'paid'",
    )
    .await
}

/// How many transactions the books hold to be settled.
pub async fn settled(observer: &PgPool) -> anyhow::Result<u64> {
    let query = "SELECT count(DISTINCT transaction_id) FROM attempts WHERE state = 'settled'";
    count(observer, query).await
}

/// How many notices are stored.
pub async fn notices(observer: &PgPool) -> anyhow::Result<u64> {
    count(observer, "SELECT count(*) FROM notices").await
}

/// How many subscriptions are stored.
pub async fn subscriptions(observer: &PgPool) -> anyhow::Result<u64> {
    count(observer, "SELECT count(*) FROM subscriptions").await
}

async fn count(observer: &PgPool, query: &'static str) -> anyhow::Result<u64> {
    let count: i64 = sqlx::query_scalar(query).fetch_one(observer).await?;
    Ok(u64::try_from(count)?)
}

/// Makes `claims` claims ready that are due by `now`, so that [`claim`] has nothing else to do.
pub async fn prepare_claims(
    store: &Store,
    shop: &ShopName,
    claims: u64,
    now: DateTime<Utc>,
) -> anyhow::Result<()> {
    for _ in 0..claims {
        let plan = |due: &DueSubscription| Plan {
            birth: Birth::Planned,
            next: Some(NextPeriod {
                period_no: due.period_no + 1,
                due_on: due.due_on,
                due_at: due.due_at + TimeDelta::days(30),
            }),
        };
        let planned = store
            .plan_due(std::slice::from_ref(shop), None, now, plan)
            .await?;
        ensure!(!planned.is_empty(), "too little is due");
    }
    Ok(())
}

/// Makes one claim of [`CLAIM`] rows, commits it, and says how long that took.
pub async fn claim(
    store: &Store,
    shop: &ShopName,
    fence_id: FenceId,
    now: DateTime<Utc>,
) -> anyhow::Result<Duration> {
    let limits = Limits {
        unanswered_max: 1_000_000,
        in_doubt_max: 5,
        answer_timeout: TimeDelta::hours(1),
        min_gap: TimeDelta::hours(20),
        card_declines_30d: 8,
        card_retries_24h: 1,
        decline_holds: TimeDelta::minutes(10),
    };
    let started = Instant::now();
    let claim = store
        .claim(std::slice::from_ref(shop), CLAIM, &limits, fence_id, now)
        .await?;
    let took = started.elapsed();
    let Claim::Permits { permits, .. } = &claim else {
        anyhow::bail!("nothing was permitted: {claim:?}");
    };
    ensure!(
        permits.len() == usize::try_from(CLAIM)?,
        "a claim took {} rows",
        permits.len()
    );
    Ok(took)
}
