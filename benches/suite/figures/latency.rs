//! An imoje that takes its time: many calls in flight.

use std::time::{Duration, Instant};

use super::charging::{self, Run};
use super::{Bench, Label};
use crate::books;
use crate::children::Script;
use crate::report::{Amount, Goal};
use crate::scene::{Scene, Stage, stop_all};

/// How long the simulator thinks in the figures about the rate and the memory.
const THINKS_MS: u32 = 200;

/// How many calls are in flight where the rate is compared with the one that this allows.
const RATE_IN_FLIGHT: u32 = 1_000;

/// Calls in flight whose memory is compared.
const MEMORY_IN_FLIGHT: [u32; 2] = [128, 2_048];

/// How often it is looked how many are paid.
const GLANCE: Duration = Duration::from_millis(200);

fn stage(in_flight: u32, answer_after_ms: u32) -> Stage {
    Stage {
        in_flight,
        script: Script {
            settles_later: false,
            answer_after_ms,
        },
        keeps_journal: false,
    }
}

/// CPU time beside a bare loop with the same latency and as many calls in flight, and the rate.
pub async fn latency(bench: &mut Bench) -> anyhow::Result<()> {
    let goal = Goal::AtLeast(450);
    let cases = [
        (
            stage(2_048, 50),
            "latency_50ms_ratio",
            "CPU of a bare call / of a charge, 2,048 in flight, 50 ms",
        ),
        (
            stage(8_000, 200),
            "latency_200ms_ratio",
            "CPU of a bare call / of a charge, 8,000 in flight, 200 ms",
        ),
    ];
    let count = bench.sizes.some;
    for (stage, key, name) in cases {
        let runs = bench
            .rounds(Run::cores, async |bench| {
                charging::run(bench, stage, count, count).await
            })
            .await?;
        let label = Label::new("latency", key, name, goal);
        bench.add(label, &runs, Run::cpu_ratio, Some(Run::cores));
        let rss = Label::new("latency", key, "  peak memory, MiB", Goal::None);
        let mib = |run: &Run| Amount::ratio(run.cost.peak_rss_kib.into(), 1024);
        bench.add(rss, &runs, mib, None);
    }
    let runs = bench
        .rounds(
            |_| Amount::whole(1),
            async |bench| rate(bench, count / 2).await,
        )
        .await?;
    let name = "charges per second / calls that 1,000 in flight allow at 200 ms";
    let label = Label::new("latency", "latency_rate", name, Goal::AtLeast(950));
    bench.add(label, &runs, |rate| *rate, None);
    Ok(())
}

/// The steady rate, for each of the calls per second that so many in flight allow.
async fn rate(bench: &mut Bench, count: u64) -> anyhow::Result<Amount> {
    let stage = stage(RATE_IN_FLIGHT, THINKS_MS);
    let mut scene = Scene::set(&mut bench.world, bench.sizes.small, stage).await?;
    let count = scene.database.release(count)?;
    let started = Instant::now();
    let mut daemons = scene.start_daemons(1)?;
    let (from, paid_from) = until_paid(&scene, count / 10).await?;
    let (to, paid_to) = until_paid(&scene, count / 10 * 8).await?;
    scene.until_done(&mut daemons, started).await?;
    stop_all(daemons).await?;
    scene.close(&bench.world).await?;
    let rate = Amount::per_second(paid_to - paid_from, to - from);
    Ok(rate.per(Amount::whole(
        u64::from(RATE_IN_FLIGHT) * 1000 / u64::from(THINKS_MS),
    )))
}

/// Waits until so many are paid; says when that was seen, and how many they were.
async fn until_paid(scene: &Scene, count: u64) -> anyhow::Result<(Instant, u64)> {
    loop {
        let seen = Instant::now();
        let paid = books::paid(&scene.database.observer).await?;
        if paid >= count {
            return Ok((seen, paid));
        }
        tokio::time::sleep(GLANCE).await;
    }
}

/// How much memory one further call in flight costs the daemon.
pub async fn memory(bench: &mut Bench) -> anyhow::Result<()> {
    let [few, many] = MEMORY_IN_FLIGHT;
    let count = bench.sizes.some;
    let runs = bench
        .rounds(
            |_| Amount::whole(1),
            async |bench| {
                let at_few = peak(bench, few, count / 20).await?;
                let at_many = peak(bench, many, count).await?;
                Ok((at_few, at_many))
            },
        )
        .await?;
    let label = |key, name, goal| Label::new("memory", key, name, goal);
    let name = "memory per further call in flight, KiB";
    let growth = label("memory_per_call_kib", name, Goal::AtMost(80_000));
    let each = |&(at_few, at_many): &(u64, u64)| {
        Amount::ratio(at_many.saturating_sub(at_few).into(), (many - few).into())
    };
    bench.add(growth, &runs, each, None);
    let at_few = label("memory_128_mib", "  peak at 128, MiB", Goal::None);
    bench.add(at_few, &runs, |run| Amount::ratio(run.0.into(), 1024), None);
    let at_many = label("memory_2048_mib", "  peak at 2,048, MiB", Goal::None);
    bench.add(
        at_many,
        &runs,
        |run| Amount::ratio(run.1.into(), 1024),
        None,
    );
    Ok(())
}

async fn peak(bench: &mut Bench, in_flight: u32, count: u64) -> anyhow::Result<u64> {
    let stage = stage(in_flight, THINKS_MS);
    let mut scene = Scene::set(&mut bench.world, bench.sizes.small, stage).await?;
    let cost = scene.charge(count, 1).await?;
    scene.close(&bench.world).await?;
    Ok(cost.peak_rss_kib)
}
