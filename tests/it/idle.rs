//! What the workers do while there is nothing to do, and how they find work again.

use chrono::TimeDelta;
use cykl::cli::daemon;
use cykl::simulator::{Behaviour, Script};
use cykl::store::Wake;
use cykl::workers::crew::{Crew, Workers};
use sqlx::{Connection, PgConnection};

use crate::harness::{Agreement, World};

/// A daemon that may change nothing, lock nothing and hint at nothing.
async fn onlooker(world: &World) -> Workers {
    let name = world.database.get_database().unwrap();
    let statement = format!("ALTER DATABASE {name} SET default_transaction_read_only = on");
    let mut admin = PgConnection::connect_with(&world.database).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
        .execute(&mut admin)
        .await
        .unwrap();
    world.another_instance().await
}

#[tokio::test]
async fn a_tick_with_nothing_to_do_changes_and_locks_nothing() {
    let world = World::new(Script::default()).await;
    let paid = Agreement::monthly("2027-01-01");
    let pending = Agreement::monthly("2027-01-01").with_card(Behaviour::pending_for_ever());
    world.subscribe(paid).await;
    world.subscribe(pending).await;
    world.run_until_idle().await;
    assert_eq!(world.attempts().await.len(), 2);
    let workers = onlooker(&world).await;
    let now = world.clock.now();
    workers.scheduler.run_once(now).await.unwrap();
    workers.charger.run_once(now).await.unwrap();
    workers.resolver.run_once(now).await.unwrap();
    workers.notifier.run_once(now).await.unwrap();
    // With something to do it would have been refused.
    world.advance(TimeDelta::days(32));
    let now = world.clock.now();
    assert!(workers.scheduler.run_once(now).await.is_err());
    assert!(workers.resolver.run_once(now).await.is_err());
}

/// Starts the crew of `world`, and waits until every worker has run.
async fn start_crew(world: &World) -> Crew {
    let ticks = daemon::ticks(&world.config);
    let crew = Crew::start(&world.workers, &ticks, &world.store, &world.clock);
    let noted = "SELECT count(*) FROM worker_runs";
    while usize::try_from(world.one::<i64>(noted).await).unwrap() < Wake::ALL.len() {}
    crew
}

#[tokio::test]
async fn a_tick_finds_work_that_no_hint_told_of() {
    let world = World::new(Script::default()).await;
    let crew = start_crew(&world).await;
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    while world.charges().await != ["paid"] {
        world.advance(TimeDelta::seconds(1));
    }
    crew.drain().await;
    world.settle_up().await;
}

#[tokio::test]
async fn idle_workers_note_their_runs_twice_a_minute_at_most() {
    let world = World::new(Script::default()).await;
    let history = "CREATE TABLE history (worker text, ended_at timestamptz);
         CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO cykl.history VALUES (NEW.worker, NEW.last_ended_at); RETURN NEW; END $$;
         CREATE TRIGGER keep AFTER INSERT OR UPDATE ON worker_runs FOR EACH ROW EXECUTE FUNCTION keep();";
    sqlx::raw_sql(history).execute(&world.books).await.unwrap();
    let crew = start_crew(&world).await;
    let newest = "SELECT min(last_ended_at) FROM worker_runs";
    let start = world.clock.now();
    for _ in 0..24 {
        world.advance(TimeDelta::seconds(5));
        tokio::task::yield_now().await;
    }
    // Health looks for runs of the last five minutes.
    while world.one::<chrono::DateTime<chrono::Utc>>(newest).await == start {
        world.advance(TimeDelta::seconds(5));
    }
    crew.drain().await;
    let too_often = world
        .column(
            "SELECT worker || ' ' || ended_at FROM (
                 SELECT *, ended_at - lag(ended_at) OVER (PARTITION BY worker ORDER BY ended_at) AS after FROM history) h
             WHERE after < interval '30 seconds'",
        )
        .await;
    assert_eq!(too_often, Vec::<String>::new());
}
