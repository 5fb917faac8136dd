//! The books spread over machines: the tables in the shape that Citus demands, hash-partitioned by subscription, with the
//! subscription in every unique constraint. See `docs/scaling.md`.

use std::collections::{BTreeMap, BTreeSet};

use cykl::simulator::{Behaviour, Rule, Script};
use sqlx::{AssertSqlSafe, PgConnection, Row};
use uuid::Uuid;

use crate::harness::{Agreement, World};

/// What is distributed by subscription. Everything else is small, or is not about a subscription, and would be a reference table.
const DISTRIBUTED: [&str; 6] = [
    "subscriptions",
    "due_periods",
    "charges",
    "attempts",
    "evidence",
    "events",
];

const PARTS: usize = 4;

/// The unique constraints that say less when the subscription is part of them. The first two are what Citus costs; the others are about
/// ids that are made at random.
const WEAKER: [&str; 7] = [
    "subscriptions_shop_external_id_key",
    "transaction_belongs_to_one_attempt",
    "attempts_pkey",
    "charges_pkey",
    "events_pkey",
    "evidence_pkey",
    "one_live_attempt",
];

/// The outbox cannot refer to a table whose events are unique only together with their subscription; the audit misses that.
const OUTBOX: [&str; 1] = ["guards_stand"];

/// Rebuilds the distributed tables as partitioned ones, with the same columns, checks, indexes, triggers and views. Returns the unique
/// indexes that had to take the subscription in.
async fn distribute(world: &World) -> BTreeSet<String> {
    let mut books = world.books.acquire().await.unwrap();
    let views = pairs(
        &mut books,
        "SELECT table_schema || '.' || table_name, view_definition FROM information_schema.views
         WHERE table_schema IN ('cykl', 'billing') ORDER BY table_schema = 'billing'",
    )
    .await;
    run(
        &mut books,
        "DROP SCHEMA billing CASCADE; CREATE SCHEMA billing",
    )
    .await;
    for (view, _) in &views {
        run(&mut books, &format!("DROP VIEW IF EXISTS {view}")).await;
    }
    let mut widened = BTreeSet::new();
    for table in DISTRIBUTED {
        widened.extend(distribute_table(&mut books, table).await);
    }
    for (view, definition) in views {
        run(&mut books, &format!("CREATE VIEW {view} AS {definition}")).await;
    }
    widened
}

/// Rebuilds one table. Returns the unique indexes that had to take the subscription in.
async fn distribute_table(books: &mut PgConnection, table: &str) -> Vec<String> {
    let mut widened = Vec::new();
    let indexes = pairs(
        books,
        &format!(
            "SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid) FROM pg_index i
             WHERE i.indrelid = 'cykl.{table}'::regclass"
        ),
    )
    .await;
    let triggers = pairs(
        books,
        &format!(
            "SELECT tgname::text, pg_get_triggerdef(oid) FROM pg_trigger
             WHERE tgrelid = 'cykl.{table}'::regclass AND NOT tgisinternal"
        ),
    )
    .await;
    run(
        books,
        &format!(
            "ALTER TABLE cykl.{table} RENAME TO {table}_whole;
             CREATE TABLE cykl.{table} (LIKE cykl.{table}_whole INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING CONSTRAINTS)
                 PARTITION BY HASH (subscription_id);
             DROP TABLE cykl.{table}_whole CASCADE"
        ),
    )
    .await;
    for part in 0..PARTS {
        run(
            books,
            &format!(
                "CREATE TABLE cykl.{table}_{part} PARTITION OF cykl.{table}
                     FOR VALUES WITH (MODULUS {PARTS}, REMAINDER {part})"
            ),
        )
        .await;
    }
    for (name, definition) in indexes {
        let (before, columns) = definition.split_once('(').unwrap();
        let (columns, rest) = columns.split_once(')').unwrap();
        let is_unique = before.starts_with("CREATE UNIQUE");
        let is_wider = is_unique && !columns.contains("subscription_id");
        let key = if is_wider { ", subscription_id" } else { "" };
        let statement = if is_unique && rest.is_empty() {
            format!("ALTER TABLE cykl.{table} ADD CONSTRAINT {name} UNIQUE ({columns}{key})")
        } else {
            format!("{before}({columns}{key}){rest}")
        };
        run(books, &statement).await;
        if is_wider {
            widened.push(name);
        }
    }
    for (_, definition) in triggers {
        run(books, &definition).await;
    }
    widened
}

async fn run(books: &mut PgConnection, statements: &str) {
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))
        .execute(books)
        .await
        .unwrap_or_else(|error| panic!("{statements}: {error}"));
}

async fn pairs(books: &mut PgConnection, query: &str) -> Vec<(String, String)> {
    sqlx::query_as(AssertSqlSafe(query.to_owned()))
        .fetch_all(books)
        .await
        .unwrap_or_else(|error| panic!("{query}: {error}"))
}

#[tokio::test]
async fn the_daemon_charges_from_partitions_by_subscription() {
    let world = World::new(Script::default()).await;
    let widened = distribute(&world).await;
    assert_eq!(
        widened,
        WEAKER.map(str::to_owned).into_iter().collect(),
        "docs/scaling.md says what these cost"
    );
    world
        .simulator
        .add_rule(Rule::debits(Behaviour::decline_at_once("CODE_51")).times(10));
    world
        .simulator
        .add_rule(Rule::debits(Behaviour::take_money_and_lose_answer()).times(3));
    for _ in 0..60 {
        world.subscribe(Agreement::monthly("2027-01-01")).await;
    }
    world.run_days(65).await;
    let used: i64 = world
        .one("SELECT count(DISTINCT tableoid) FROM attempts")
        .await;
    assert_eq!(used, 4, "each part was charged from");
    let open: i64 = world
        .one("SELECT count(*) FROM charges WHERE state NOT IN ('paid', 'retry_wait')")
        .await;
    assert_eq!(open, 0);
    world.settle_up_except(&OUTBOX).await;
}

/// The claim, sent to one part: what Citus does with a statement that it pushes down to a shard.
fn claim_of(part: usize) -> String {
    let mut claim = include_str!("../../src/store/sql/claim_candidates.sql").to_owned();
    for table in ["charges", "attempts", "subscriptions"] {
        for place in ["FROM", "JOIN"] {
            claim = claim.replace(
                &format!("{place} {table} "),
                &format!("{place} {table}_{part} "),
            );
        }
    }
    claim
}

#[tokio::test]
async fn a_claim_stays_within_a_partition() {
    let world = World::new(Script::default()).await;
    distribute(&world).await;
    for _ in 0..200 {
        world.subscribe(Agreement::monthly("2027-01-01")).await;
    }
    let now = world.clock.now();
    world.workers.scheduler.run_once(now).await.unwrap();
    let mut claimed = BTreeMap::new();
    for part in 0..PARTS {
        let mut transaction = world.books.begin().await.unwrap();
        let rows = sqlx::query(AssertSqlSafe(claim_of(part)))
            .bind(now)
            .bind(vec!["main"])
            .bind(500_i64)
            .bind(now)
            .bind(None::<chrono::DateTime<chrono::Utc>>)
            .fetch_all(&mut *transaction)
            .await
            .unwrap();
        let ids: BTreeSet<Uuid> = rows.iter().map(|row| row.get(1)).collect();
        assert_eq!(ids.len(), rows.len());
        // What it has locked, of what there is: its own part, the cards, and the notices of what is tried again.
        let locked: Vec<String> = sqlx::query_scalar(
            "SELECT DISTINCT c.relname::text FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
             WHERE l.pid = pg_backend_pid() AND c.relkind IN ('r', 'p') AND c.relnamespace = 'cykl'::regnamespace ORDER BY 1",
        )
        .fetch_all(&mut *transaction)
        .await
        .unwrap();
        let own = ["attempts", "charges", "subscriptions"].map(|table| format!("{table}_{part}"));
        let expected: BTreeSet<String> = own
            .into_iter()
            .chain(["cards", "notices"].map(str::to_owned))
            .collect();
        assert_eq!(locked.into_iter().collect::<BTreeSet<_>>(), expected);
        let at_home: i64 = sqlx::query_scalar(AssertSqlSafe(format!(
            "SELECT count(*) FROM subscriptions_{part} WHERE subscription_id = ANY($1)"
        )))
        .bind(ids.iter().copied().collect::<Vec<_>>())
        .fetch_one(&mut *transaction)
        .await
        .unwrap();
        assert_eq!(usize::try_from(at_home).unwrap(), ids.len());
        assert!(!ids.is_empty());
        claimed.insert(part, ids);
        transaction.rollback().await.unwrap();
    }
    let all: BTreeSet<Uuid> = claimed.values().flatten().copied().collect();
    assert_eq!(all.len(), 200, "together the parts claim everything");
    assert_eq!(
        claimed.values().map(BTreeSet::len).sum::<usize>(),
        200,
        "once"
    );
    // The same subscriptions are charged in the end.
    world.run_until_idle().await;
    assert_eq!(world.posts(), 200);
    world.settle_up_except(&OUTBOX).await;
}
