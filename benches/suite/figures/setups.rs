//! Other circumstances: generic plans, several daemons, and slices beside the bare loop.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use sqlx::AssertSqlSafe;

use super::charging::PLAIN;
use super::{Bench, Label, cores, cores_of};
use crate::books;
use crate::reference::{self, Until};
use crate::report::{Amount, Goal};
use crate::scene::{Cost, Scene, stop_all};

/// How long PostgreSQL may finish what the daemon has asked for before it was halted.
const SETTLE: Duration = Duration::from_millis(200);

async fn charge(
    bench: &mut Bench,
    count: u64,
    daemons: u32,
    setting: Option<&str>,
) -> anyhow::Result<Cost> {
    let mut scene = Scene::set(&mut bench.world, bench.sizes.small, PLAIN).await?;
    if let Some(setting) = setting {
        let statement = format!("ALTER DATABASE {} SET {setting}", scene.database.name);
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&scene.database.observer)
            .await?;
    }
    let cost = scene.charge(count, daemons).await?;
    scene.close(&bench.world).await?;
    Ok(cost)
}

/// Plans that know no parameters, against plans that may.
pub async fn plan(bench: &mut Bench) -> anyhow::Result<()> {
    let count = bench.sizes.some;
    let runs = bench
        .rounds(
            |(_, generic)| cores_of(generic),
            async |bench| {
                let auto = charge(bench, count, 1, Some("plan_cache_mode = auto")).await?;
                let setting = "plan_cache_mode = force_generic_plan";
                let generic = charge(bench, count, 1, Some(setting)).await?;
                Ok((auto, generic))
            },
        )
        .await?;
    let label = |key, name, goal| Label::new("plan", key, name, goal);
    let by_cpu = |(auto, generic): &(Cost, Cost)| Amount::of_times(auto.cpu(), generic.cpu());
    let by_wall = |(auto, generic): &(Cost, Cost)| Amount::of_times(auto.wall, generic.wall);
    let name = "charges per CPU second, generic plans / auto";
    let ratio = label("plan_ratio", name, Goal::AtLeast(900));
    bench.add(ratio, &runs, by_cpu, Some(|run| cores_of(&run.1)));
    let wall = label("plan_wall_ratio", "  by time", Goal::None);
    bench.add(wall, &runs, by_wall, Some(|run| cores_of(&run.1)));
    Ok(())
}

/// Several daemons on one database. That no order was debited twice is compared with the ledger each time.
pub async fn instances(bench: &mut Bench) -> anyhow::Result<()> {
    let count = bench.sizes.some;
    let runs = bench
        .rounds(
            |costs: &[Cost; 3]| cores_of(&costs[0]),
            async |bench| {
                let one = charge(bench, count, 1, None).await?;
                let two = charge(bench, count, 2, None).await?;
                Ok([one, two, charge(bench, count, 4, None).await?])
            },
        )
        .await?;
    let goal = Goal::AtLeast(1_000);
    let label = |key, name| Label::new("instances", key, name, goal);
    let by_wall =
        |which: usize| move |costs: &[Cost; 3]| Amount::of_times(costs[0].wall, costs[which].wall);
    let two = label("instances_2", "charges per second, two daemons / one");
    bench.add(two, &runs, by_wall(1), Some(|costs| cores_of(&costs[1])));
    let four = label("instances_4", "charges per second, four daemons / one");
    bench.add(four, &runs, by_wall(2), Some(|costs| cores_of(&costs[2])));
    let label = Label::new(
        "instances",
        "instances_duplicates",
        "orders debited twice (it would have failed)",
        Goal::AtMost(0),
    );
    bench.add(label, &runs, |_| Amount::whole(0), None);
    Ok(())
}

/// A slice of charging and a slice of bare calls.
struct Pair {
    charges_per_second: Amount,
    calls_per_second: Amount,
    cores: Amount,
    reference_cores: Amount,
}

impl Pair {
    /// Whether the machine gave both sides alike, to a tenth.
    fn is_fair(&self) -> bool {
        let (less, more) = if self.cores < self.reference_cores {
            (self.cores, self.reference_cores)
        } else {
            (self.reference_cores, self.cores)
        };
        less.per(more) >= Amount::ratio(9, 10)
    }
}

/// Charges and bare calls in turns: while the loop runs the daemon is halted.
pub async fn wall(bench: &mut Bench) -> anyhow::Result<()> {
    let mut scene = Scene::set(&mut bench.world, bench.sizes.small, PLAIN).await?;
    let count = scene.database.unreleased();
    let count = scene.database.release(count)?;
    scene.database.checkpoint().await?;
    let daemons = scene.start_daemons(1)?;
    let halt = |signal| daemons.iter().try_for_each(|daemon| daemon.signal(signal));
    tokio::time::sleep(bench.sizes.slice).await;
    halt(Signal::SIGSTOP)?;
    tokio::time::sleep(SETTLE).await;
    let mut paid = books::paid(&scene.database.observer).await?;
    let mut pairs = Vec::new();
    for _ in 0..bench.sizes.pairs {
        let used = || -> anyhow::Result<Duration> {
            Ok(daemons[0].cpu()? + scene.postgres_cpu()? + scene.gateway_cpu()?)
        };
        let (before, started) = (used()?, Instant::now());
        halt(Signal::SIGCONT)?;
        tokio::time::sleep(bench.sizes.slice).await;
        halt(Signal::SIGSTOP)?;
        let wall = started.elapsed();
        tokio::time::sleep(SETTLE).await;
        let cpu = used()? - before;
        let paid_before = paid;
        paid = books::paid(&scene.database.observer).await?;
        if paid == count {
            println!("  all is paid before the last slice");
            break;
        }
        let millis = Until::Millis(u64::try_from(bench.sizes.slice.as_millis())?);
        let directory = bench.world.directory();
        let reference = reference::debit(directory, PLAIN.script, PLAIN.in_flight, millis).await?;
        pairs.push(Pair {
            charges_per_second: Amount::per_second(paid - paid_before, wall),
            calls_per_second: Amount::per_second(reference.calls, reference.wall),
            cores: cores(cpu, wall),
            reference_cores: cores(reference.cpu, reference.wall),
        });
    }
    halt(Signal::SIGCONT)?;
    stop_all(daemons).await?;
    scene.close(&bench.world).await?;
    add_pairs(bench, &pairs);
    Ok(())
}

fn add_pairs(bench: &mut Bench, pairs: &[Pair]) {
    let label = |key, name, goal| Label::new("wall", key, name, goal);
    let name = "charges per second / bare calls per second";
    let ratio = label("wall_ratio", name, Goal::AtLeast(400));
    let each = |pair: &Pair| pair.charges_per_second.per(pair.calls_per_second);
    bench.add(ratio, pairs, each, Some(|pair| pair.cores));
    let charges = label("wall_charges_per_second", "  charges", Goal::None);
    bench.add(
        charges,
        pairs,
        |pair| pair.charges_per_second,
        Some(|pair| pair.cores),
    );
    let calls = label("wall_calls_per_second", "  bare calls", Goal::None);
    let given = |pair: &Pair| pair.reference_cores;
    bench.add(calls, pairs, |pair| pair.calls_per_second, Some(given));
    let fair = label(
        "wall_pairs_fair",
        "  1: both got as many cores, to a tenth",
        Goal::None,
    );
    bench.add(
        fair,
        pairs,
        |pair| Amount::whole(pair.is_fair().into()),
        None,
    );
}
