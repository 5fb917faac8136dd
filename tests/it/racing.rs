//! What two do at the same moment.
//!
//! Luck brings no two transactions to the same place at once. A gate does: a trigger that lets nobody through until the test has seen
//! all of them wait there.

use chrono::TimeDelta;
use cykl::simulator::{Behaviour, Notices, Rule, Script};
use cykl::workers::charger::Report;
use sqlx::{AssertSqlSafe, PgConnection, PgPool};
use tokio::task::JoinHandle;

use crate::fire::HeldGateway;
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

/// A debit of `world` whose answer is on its way to an instance that waits for it, until the gateway lets it go.
async fn answer_on_its_way(world: &World, gateway: &HeldGateway) -> JoinHandle<Report> {
    let one = world.another_instance_at(&gateway.base_url()).await.charger;
    let now = world.clock.now();
    world.workers.scheduler.run_once(now).await.unwrap();
    let run = tokio::spawn(async move { one.run_once(now).await.unwrap() });
    gateway.is_asked(1).await;
    while world.posts() == 0 {
        tokio::task::yield_now().await;
    }
    run
}

#[tokio::test]
async fn a_late_answer_that_another_instance_has_just_read_is_recorded_once() {
    for (behaviour, attempt, charge) in [
        (Behaviour::settle_at_once(), "settled", "paid"),
        (Behaviour::decline_at_once("CODE_43"), "rejected", "failed"),
    ] {
        let world = World::new(Script::default()).await;
        let agreement = Agreement::monthly("2027-01-01").times(1);
        world.subscribe(agreement.with_card(behaviour)).await;
        let gateway = HeldGateway::open(world.simulator.address()).await;
        let answered = answer_on_its_way(&world, &gateway).await;
        // Its deadline is over. A notice names the transaction, and another instance reads it.
        world.advance(TimeDelta::hours(1));
        world.simulator.deliver_due().await;
        let now = world.clock.now();
        let mut gate = Gate::before("evidence", &world).await;
        let resolver = world.another_instance().await.resolver;
        let read = tokio::spawn(async move { resolver.run_once(now).await.unwrap() });
        gate.waited_at_by(1).await;
        // The answer comes while that is being written down.
        gateway.let_go();
        let behind_the_other =
            "SELECT count(*) = 2 FROM pg_stat_activity WHERE datname = current_database()
                 AND application_name = 'cykl' AND wait_event_type = 'Lock'";
        while !world.one::<bool>(behind_the_other).await {
            assert!(!answered.is_finished(), "nobody was in its way");
        }
        gate.open().await;
        assert_eq!(read.await.unwrap().read, 1);
        answered.await.unwrap();
        assert_eq!(world.attempts().await, [attempt]);
        assert_eq!(world.charges().await, [charge]);
        let told = "SELECT kind || ' ' || verdict FROM evidence";
        assert_eq!(world.column(told).await, [format!("read {attempt}")]);
        assert_eq!(world.incidents().await, Vec::<String>::new());
        world.run_days(30).await;
        assert_eq!((world.charges().await.len(), world.posts()), (1, 1));
        world.settle_up().await;
    }
}

#[tokio::test]
async fn an_answer_that_comes_after_another_instance_has_tried_again_changes_nothing() {
    let world = World::new(Script::default()).await;
    world
        .simulator
        .add_rule(Rule::debits(Behaviour::decline_at_once("CODE_51")).times(1));
    world
        .subscribe(Agreement::monthly("2027-01-01").times(1))
        .await;
    let gateway = HeldGateway::open(world.simulator.address()).await;
    let answered = answer_on_its_way(&world, &gateway).await;
    // The others hear of the decline by its notice, and try again the next day.
    world.run_days(2).await;
    assert_eq!(world.attempts().await, ["rejected", "settled"]);
    assert_eq!(world.charges().await, ["paid"]);
    gateway.let_go();
    let report = answered.await.unwrap();
    assert_eq!((report.permitted, report.rejected), (1, 1));
    world.run_days(30).await;
    assert_eq!(world.attempts().await, ["rejected", "settled"]);
    assert_eq!(
        (world.charges().await, world.posts()),
        (vec!["paid".to_owned()], 2)
    );
    assert_eq!(world.incidents().await, Vec::<String>::new());
    world.settle_up().await;
}
