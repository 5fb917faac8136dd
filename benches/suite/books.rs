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

/// Months of charges in the books with a history.
const MONTHS: u32 = 12;

/// How many of them are not archived yet.
const YOUNG_MONTHS: u32 = 4;

/// What every charge of the history is made of: subscription $1 times month $2 to $3, of which 0 is the oldest; $4 is today. Of the
/// newest month a few failed, are held, are retried, or wait for an answer.
const HISTORY: &str = "SELECT s.n, k, s.subscription_id, s.card_id, k AS period_no,
           ($4::date - (n % 30)::int - make_interval(months => 11 - k))::date AS due_on,
           CASE WHEN k < 11 THEN 'paid' WHEN n % 1000 = 0 THEN 'failed' WHEN n % 1000 = 1 THEN 'held'
                WHEN n % 1000 = 2 THEN 'retry_wait' WHEN n % 1000 = 3 THEN 'in_flight' ELSE 'paid' END AS state,
           CASE WHEN k < 11 OR n % 1000 > 3 THEN 'settled' WHEN n % 1000 IN (1, 3) THEN 'in_doubt' ELSE 'rejected' END AS outcome
    FROM (SELECT n, pg_temp.id_of(n, 2) AS subscription_id, pg_temp.id_of(n, 1) AS card_id
          FROM generate_series(1, $1::bigint) n OFFSET 0) s, generate_series($2::int, $3::int) k";

/// Where the history goes, young and archived.
const HISTORY_TABLES: [(&str, bool, &str); 4] = [
    (
        "charges",
        false,
        "(charge_id, subscription_id, shop, period_no, due_on, due_at, amount_minor, currency, state, reason, next_action_at, attempts,
          declines, first_attempt_at, paid_at, paid_attempt_id, planned_at, next_due_at)
         SELECT pg_temp.id_of(n * 12 + k, 3), subscription_id, 'main', period_no, due_on, due_on + time '05:00', 4900, 'PLN', state::charge_state,
                CASE WHEN state IN ('failed', 'held') THEN 'retries_spent' END,
                CASE WHEN state NOT IN ('paid', 'failed') THEN now() + interval '1 hour' END, 1, 0, due_on + time '05:00',
                CASE WHEN state = 'paid' THEN due_on + time '05:00' END,
                CASE WHEN state = 'paid' THEN pg_temp.id_of(n * 12 + k, 4) END, due_on + time '05:00',
                CASE WHEN k = 11 THEN due_on + interval '1 month 5 hours' END",
    ),
    (
        "attempts",
        false,
        "(attempt_id, charge_id, subscription_id, shop, card_id, period_no, attempt_no, order_id, amount_minor, currency, state,
          is_retry, fence_id, permitted_at, deadline_at, quiet_until, transaction_id, decline, next_poll_at, decided_at)
         SELECT pg_temp.id_of(n * 12 + k, 4), pg_temp.id_of(n * 12 + k, 3), subscription_id, 'main', card_id, period_no, 1,
                'cykl-' || replace(subscription_id::text, '-', '') || '-' || period_no || '-1', 4900, 'PLN',
                outcome::attempt_state, false, gen_random_uuid(), due_on + time '05:00', due_on + time '05:03',
                due_on + time '23:00', CASE WHEN outcome <> 'in_doubt' THEN gen_random_uuid() END,
                CASE WHEN outcome = 'rejected' THEN 'soft'::decline_class END,
                CASE WHEN outcome = 'in_doubt' THEN now() + interval '1 hour' END,
                CASE WHEN outcome <> 'in_doubt' THEN due_on + time '05:00' END",
    ),
    (
        "archived_charges",
        true,
        "(charge_id, subscription_id, shop, period_no, due_on, due_at, amount_minor, currency, state, attempts, declines, unsent,
          first_attempt_at, paid_at, paid_attempt_id, paid_transaction_id, planned_at)
         SELECT gen_random_uuid(), subscription_id, 'main', period_no, due_on, due_on + time '05:00', 4900, 'PLN', 'paid', 1, 0, 0,
                due_on + time '05:00', due_on + time '05:00', gen_random_uuid(), gen_random_uuid(),
                due_on + time '05:00'",
    ),
    (
        "archived_attempts",
        true,
        "(attempt_id, charge_id, subscription_id, shop, card_id, period_no, due_on, attempt_no, order_id, amount_minor, currency,
          state, is_retry, fence_id, permitted_at, deadline_at, quiet_until, transaction_id, polls, decided_at)
         SELECT gen_random_uuid(), gen_random_uuid(), subscription_id, 'main', card_id, period_no, due_on, 1,
                'cykl-' || replace(subscription_id::text, '-', '') || '-' || period_no || '-1', 4900, 'PLN', 'settled', false,
                gen_random_uuid(), due_on + time '05:00', due_on + time '05:03', due_on + time '23:00', gen_random_uuid(), 0,
                due_on + time '05:00'",
    ),
];

/// Gives each of `count` subscriptions a charge for each of the last twelve months, of which the older ones are archived, and lets
/// its next one fall due within a month from `now`.
pub async fn fill_history(
    connection: &mut PgConnection,
    count: u64,
    now: DateTime<Utc>,
) -> anyhow::Result<()> {
    let unindexed = |ready: bool| {
        format!(
            "UPDATE pg_index SET indisready = {ready} WHERE indrelid IN (
                 SELECT oid FROM pg_class WHERE relnamespace = 'cykl'::regnamespace AND relkind = 'r'
                     AND relname ~ '^(due_periods|charges|attempts|archived_(charges|attempts)_)')"
        )
    };
    let quarters = format!(
        "SELECT add_archive_quarter((timestamptz '{now}' - make_interval(months => m))::date) FROM generate_series(0, 15, 3) m"
    );
    let start = [
        MAKE_IDS.to_owned(),
        "BEGIN".to_owned(),
        "SET LOCAL session_replication_role = replica".to_owned(),
        "TRUNCATE charges, attempts, due_periods".to_owned(),
        quarters,
        unindexed(false),
    ];
    run_all(connection, &start).await?;
    for (table, is_archived, columns) in HISTORY_TABLES {
        let young = i32::try_from(MONTHS - YOUNG_MONTHS)?;
        let (first, last) = if is_archived {
            (0, young - 1)
        } else {
            (young, i32::try_from(MONTHS)? - 1)
        };
        sqlx::query(AssertSqlSafe(format!(
            "INSERT INTO {table} {columns} FROM ({HISTORY}) h"
        )))
        .bind(i64::try_from(count)?)
        .bind(first)
        .bind(last)
        .bind(now.date_naive())
        .execute(&mut *connection)
        .await
        .with_context(|| format!("couldn't fill {table}"))?;
    }
    let rest = [
        "INSERT INTO due_periods (due_at, subscription_id, period_no, due_on)
         SELECT next_due_at, subscription_id, 12, next_due_at::date FROM charges
         WHERE next_due_at IS NOT NULL AND state <> 'failed' ORDER BY 1"
            .to_owned(),
        "UPDATE subscriptions SET status = 'deactivated', status_reason = 'card_expired'
         WHERE subscription_id IN (SELECT subscription_id FROM charges WHERE is_failed)"
            .to_owned(),
        unindexed(true),
        "DO $$ DECLARE part regclass; BEGIN
             FOR part IN SELECT oid FROM pg_class WHERE relnamespace = 'cykl'::regnamespace AND relkind = 'r'
                 AND relname ~ '^(due_periods|charges|attempts|archived_(charges|attempts)_)'
             LOOP EXECUTE format('REINDEX TABLE %s', part); END LOOP;
         END $$"
            .to_owned(),
        "COMMIT".to_owned(),
        "VACUUM (ANALYZE)".to_owned(),
    ];
    run_all(connection, &rest).await
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
    let wanted = usize::try_from(claims * u64::from(CLAIM))?;
    let mut ready = 0;
    while ready < wanted {
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
        ready += planned.len();
    }
    Ok(())
}

/// Reads what the next claim will read, so that it finds it in memory: how large the tables are must not count by what of them is there.
pub async fn warm(observer: &PgPool) -> anyhow::Result<()> {
    let mut transaction = observer.begin().await?;
    sqlx::raw_sql("SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL enable_seqscan = off")
        .execute(&mut *transaction)
        .await?;
    sqlx::query(
        "SELECT count(k.cid) FROM (SELECT subscription_id FROM charges WHERE send_at IS NOT NULL ORDER BY send_at LIMIT 500) c
             JOIN subscriptions s USING (subscription_id) JOIN cards k USING (card_id)",
    )
    .execute(&mut *transaction)
    .await?;
    Ok(transaction.commit().await?)
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
        in_flight_max: 1_000_000,
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
