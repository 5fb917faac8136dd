//! What two do at the same moment.
//!
//! Luck brings no two transactions to the same place at once. A gate does: a trigger that lets nobody through until the test has seen
//! all of them wait there.

use chrono::TimeDelta;
use cykl::simulator::{Behaviour, Notices, Script};
use sqlx::{AssertSqlSafe, PgConnection, PgPool};

use crate::harness::{Agreement, Setting, World};

/// Whoever inserts a row into a table waits here until it is opened.
struct Gate {
    keeper: PgConnection,
    books: PgPool,
}

impl Gate {
    async fn before(table: &str, world: &World) -> Self {
        let statements = format!(
            "CREATE SEQUENCE passes;
             CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM pg_advisory_xact_lock_shared(1), nextval('passes');
                 RETURN NEW; END $$;
             CREATE TRIGGER gate BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION pass();
             SELECT pg_advisory_lock(1);"
        );
        let mut keeper = world.books.acquire().await.unwrap().detach();
        sqlx::raw_sql(AssertSqlSafe(statements))
            .execute(&mut keeper)
            .await
            .unwrap();
        Self {
            keeper,
            books: world.books.clone(),
        }
    }

    /// Waits until so many transactions stand before it.
    async fn waited_at_by(&self, transactions: i64) {
        const LOOKS_MAX: u32 = 100_000;
        for _ in 0..LOOKS_MAX {
            let waiting: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                 WHERE l.locktype = 'advisory' AND NOT l.granted AND d.datname = current_database()",
            )
            .fetch_one(&self.books)
            .await
            .unwrap();
            if waiting == transactions {
                return;
            }
        }
        panic!("no {transactions} transactions come to the gate");
    }

    async fn open(&mut self) {
        sqlx::raw_sql("SELECT pg_advisory_unlock(1)")
            .execute(&mut self.keeper)
            .await
            .unwrap();
    }

    /// How many rows went through so far, those of transactions that failed later included.
    async fn passes(&self) -> i64 {
        sqlx::query_scalar("SELECT last_value FROM passes")
            .fetch_one(&self.books)
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn of_two_permits_of_a_subscription_at_the_same_moment_one_is_put_off() {
    let world = World::with(Setting {
        script: Script::always(Behaviour::settle_at_once()),
        shop: "catch_up = \"all_spaced\"".to_owned(),
        ..Setting::default()
    })
    .await;
    world
        .subscribe(Agreement::monthly("2026-12-31").every("P1D").times(2))
        .await;
    let now = world.clock.now();
    world.workers.scheduler.run_once(now).await.unwrap();
    assert_eq!(world.charges().await, ["planned"; 2]);
    let mut gate = Gate::before("attempts", &world).await;
    // The first takes one of the charges, the second finds the other.
    let mut first = world.workers.charger.clone();
    first.limits.unanswered_max = 1;
    let first = tokio::spawn(async move { first.run_once(now).await.unwrap() });
    gate.waited_at_by(1).await;
    let second = world.another_instance().await.charger;
    let second = tokio::spawn(async move { second.run_once(now).await.unwrap() });
    gate.waited_at_by(2).await;
    gate.open().await;
    let permitted = first.await.unwrap().permitted + second.await.unwrap().permitted;
    assert_eq!((permitted, world.posts()), (1, 1));
    world.run_until_idle().await;
    let put_off: i64 = world
        .one("SELECT count(*) FROM charges JOIN attempts USING (subscription_id) WHERE send_at >= quiet_until")
        .await;
    assert_eq!((put_off, world.posts()), (1, 1));
    world.run_days(3).await;
    assert_eq!(world.charges().await, ["paid"; 2]);
    world.settle_up().await;
}

#[tokio::test]
async fn of_two_events_of_a_subscription_at_the_same_moment_one_takes_the_next_number() {
    let world = World::with(Setting {
        shop: "max_lateness = \"3h\"".to_owned(),
        ..Setting::default()
    })
    .await;
    let pending = Behaviour::settle_after(std::time::Duration::from_secs(3600));
    world
        .subscribe(
            Agreement::monthly("2027-01-01")
                .every("P1D")
                .with_card(pending.with_notices(Notices::none())),
        )
        .await;
    world.charge().await;
    assert_eq!(world.attempts().await, ["pending"]);
    let before: i64 = world.one("SELECT count(*) FROM events").await;
    // The next day one worker holds a period that is late, and another reads that the money of the first has moved.
    world.advance(TimeDelta::hours(26));
    let now = world.clock.now();
    let mut gate = Gate::before("events", &world).await;
    let (scheduler, resolver) = (
        world.another_instance().await.scheduler,
        world.another_instance().await.resolver,
    );
    let planned = tokio::spawn(async move { scheduler.run_once(now).await.unwrap() });
    let resolved = tokio::spawn(async move { resolver.run_once(now).await.unwrap() });
    gate.waited_at_by(2).await;
    gate.open().await;
    assert_eq!(planned.await.unwrap().planned, 1);
    resolved.await.unwrap();
    assert_eq!(world.charges().await, ["paid", "held"]);
    let events: i64 = world.one("SELECT count(*) FROM events").await;
    let passes = gate.passes().await;
    assert!(
        passes > events - before,
        "nobody was tried again: {passes} passed"
    );
    let numbers = world
        .column("SELECT sequence_no::text FROM events ORDER BY sequence_no")
        .await;
    let without_gaps: Vec<String> = (1..=events).map(|number| number.to_string()).collect();
    assert_eq!(numbers, without_gaps);
    world.settle_up().await;
}

#[tokio::test]
async fn a_period_that_comes_in_behind_a_run_of_the_scheduler_is_planned_in_it() {
    let world = World::new(Script::always(Behaviour::settle_at_once())).await;
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    let now = world.clock.now();
    let mut gate = Gate::before("charges", &world).await;
    let scheduler = world.another_instance().await.scheduler;
    let run = tokio::spawn(async move { scheduler.run_once(now).await.unwrap() });
    gate.waited_at_by(1).await;
    // It looks on from the first of January, where it has found what it plans now.
    world.subscribe(Agreement::monthly("2026-12-31")).await;
    gate.open().await;
    assert_eq!(run.await.unwrap().planned, 2);
    assert_eq!(world.charges().await, ["planned"; 2]);
    world.run_until_idle().await;
    assert_eq!(world.charges().await, ["paid"; 2]);
    world.settle_up().await;
}
