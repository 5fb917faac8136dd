//! What each index that guards nothing is for: a statement of Cykl's own, in books of some size, is planned over it and costs
//! more without it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use cykl::simulator::Script;
use cykl::store::Store;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgTransaction};
use uuid::Uuid;

use crate::harness::World;
use crate::schema::permit;

/// Each index with a statement that needs it: one of the program's by the name in its first line, or what a person asks a view, as about
/// a transaction that imoje's panel shows.
const READ_BY: [(&str, &str); 21] = [
    (
        "archived_attempts_by_transaction",
        "SELECT * FROM billing.attempts WHERE transaction_id = '00000000-0000-4000-8000-000000000001'",
    ),
    ("archived_charges_by_id", "attempts_of_charge"),
    ("attempts_declined_by_card", "declines_of_cards"),
    ("attempts_in_doubt", "count_in_doubt"),
    ("attempts_retried_by_card", "retries_of_cards"),
    ("attempts_to_resolve", "take_unresolved"),
    ("charges_failed", "situation"),
    ("charges_held", "situation"),
    ("charges_to_send", "claim_candidates"),
    ("notices_to_read", "take_notices"),
    ("outbox_due", "take_deliveries"),
    ("refunds_by_charge", "refunds_of"),
    ("refunds_by_sale", "known_refunds"),
    ("refunds_of_shop", "last_refund_at"),
    ("refunds_to_resolve", "take_refunds"),
    ("registrations_by_cid", "is_cid_taken"),
    ("registrations_by_subscription", "open_registration_of"),
    ("registrations_to_resolve", "take_registrations"),
    ("subscriptions_by_card", "hold_charges_of_cards"),
    ("subscriptions_finishing", "complete_finished"),
    ("subscriptions_without_card", "figures_of_deactivations"),
];

/// Each index that a guard needs, with its trigger.
const READ_IN: [(&str, &str); 3] = [
    ("archived_events_by_id", "events_are_archived"),
    ("charges_waiting", "attempt_insert"),
    ("lost_permits_by_period", "attempt_insert"),
];

/// A connection as the store opens them.
async fn connect(world: &World) -> PgConnection {
    PgConnection::connect_with(&Store::session(world.database.clone()))
        .await
        .unwrap()
}

/// A transaction with books of some size in it, which the planner knows about. Never committed.
async fn large_books(connection: &mut PgConnection) -> PgTransaction<'_> {
    let mut books = connection.begin().await.unwrap();
    for statement in [
        include_str!("plans.sql"),
        "ANALYZE",
        "SET LOCAL session_replication_role = origin",
        // As a statement is planned that a connection has used for a while.
        "SET LOCAL plan_cache_mode = force_generic_plan",
    ] {
        run(&mut books, statement).await;
    }
    books
}

async fn run(books: &mut PgTransaction<'_>, statement: &str) {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(&mut **books)
        .await
        .unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// The statements of the program by their names, each with the number of its parameters, as they were checked when it was built.
fn statements() -> BTreeMap<String, (String, usize)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(".sqlx");
    fs::read_dir(folder)
        .unwrap()
        .map(|file| fs::read_to_string(file.unwrap().path()).unwrap())
        .filter_map(|file| {
            let checked: Value = serde_json::from_str(&file).unwrap();
            let text = checked["query"].as_str().unwrap().to_owned();
            let name = text.lines().next()?.strip_prefix("-- ")?.to_owned();
            let parameters = checked["describe"]["parameters"]["Left"]
                .as_array()
                .map_or(0, Vec::len);
            Some((name, (text, parameters)))
        })
        .collect()
}

/// How PostgreSQL would run a statement.
struct Plan {
    cost: f64,
    indexes: BTreeSet<String>,
}

async fn plan(books: &mut PgTransaction<'_>, (text, parameters): &(String, usize)) -> Plan {
    run(books, &format!("PREPARE planned AS {text}")).await;
    let arguments = match parameters {
        0 => String::new(),
        parameters => format!("({})", vec!["NULL"; *parameters].join(", ")),
    };
    let explain = format!("EXPLAIN (FORMAT JSON) EXECUTE planned{arguments}");
    let plan: Value = sqlx::query_scalar(AssertSqlSafe(explain))
        .fetch_one(&mut **books)
        .await
        .unwrap();
    run(books, "DEALLOCATE planned").await;
    let root = &plan[0]["Plan"];
    Plan {
        cost: root["Total Cost"].as_f64().unwrap(),
        indexes: indexes_of(root),
    }
}

fn indexes_of(node: &Value) -> BTreeSet<String> {
    let own = node["Index Name"].as_str().map(str::to_owned);
    let below = node["Plans"].as_array().into_iter().flatten();
    own.into_iter().chain(below.flat_map(indexes_of)).collect()
}

/// What an index is called in plans: its own name or, when it is one of the archive, those of its quarters.
async fn names_in_plans(books: &mut PgTransaction<'_>, index: &str) -> BTreeSet<String> {
    sqlx::query_scalar(
        "SELECT $1 UNION ALL
         SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = to_regclass($1)",
    )
    .bind(index)
    .fetch_all(&mut **books)
    .await
    .unwrap()
    .into_iter()
    .collect()
}

#[tokio::test]
async fn each_index_is_read_by_the_statement_that_needs_it_which_costs_more_without() {
    let world = World::new(Script::default()).await;
    let mut connection = connect(&world).await;
    let mut books = large_books(&mut connection).await;
    let statements = statements();
    for (index, reader) in READ_BY {
        let asked = (reader.to_owned(), 0);
        let statement = statements.get(reader).unwrap_or(&asked);
        let names = names_in_plans(&mut books, index).await;
        let with = plan(&mut books, statement).await;
        assert!(
            !with.indexes.is_disjoint(&names),
            "{reader} does without {index}, by {:?}",
            with.indexes
        );
        run(&mut books, "SAVEPOINT whole").await;
        run(&mut books, &format!("DROP INDEX {index}")).await;
        let without = plan(&mut books, statement).await;
        assert!(without.indexes.is_disjoint(&names));
        assert!(
            without.cost > with.cost,
            "{index} saves {reader} nothing: {} with it, {} without",
            with.cost,
            without.cost
        );
        run(&mut books, "ROLLBACK TO whole").await;
    }
    books.rollback().await.unwrap();
}

/// How often an index was read in this transaction, in all quarters of one of the archive. An index that is not there was not read.
async fn reads(books: &mut PgTransaction<'_>, index: &str) -> i64 {
    sqlx::query_scalar(
        "SELECT coalesce(sum(pg_stat_get_xact_numscans(c.oid)), 0)::bigint FROM pg_class c
         WHERE c.oid = to_regclass($1) OR c.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass($1))",
    )
    .bind(index)
    .fetch_one(&mut **books)
    .await
    .unwrap()
}

/// The statements inside of the guards are not planned by themselves, so these are run, and what they read is counted.
#[tokio::test]
async fn each_index_that_a_guard_needs_is_read_by_it() {
    let world = World::new(Script::default()).await;
    let mut connection = connect(&world).await;
    let mut books = large_books(&mut connection).await;
    let old: Vec<Uuid> =
        sqlx::query_scalar("SELECT event_id FROM events WHERE sequence_no = 1 LIMIT 100")
            .fetch_all(&mut *books)
            .await
            .unwrap();
    let (drop_events, _) = &statements()["drop_events"];
    for (index, guard) in READ_IN {
        for is_there in [true, false] {
            run(&mut books, "SAVEPOINT whole").await;
            if !is_there {
                run(&mut books, &format!("DROP INDEX {index}")).await;
            }
            let before = reads(&mut books, index).await;
            match guard {
                "attempt_insert" => run(&mut books, &permit(&[])).await,
                "events_are_archived" => {
                    sqlx::query(AssertSqlSafe(drop_events.clone()))
                        .bind(&old)
                        .execute(&mut *books)
                        .await
                        .unwrap();
                }
                _ => panic!("nothing runs {guard}"),
            }
            let after = reads(&mut books, index).await;
            assert_eq!(after > before, is_there, "{guard} and {index}");
            run(&mut books, "ROLLBACK TO whole").await;
        }
    }
    books.rollback().await.unwrap();
}
