//! A day's charges out of ten times as many subscriptions, from the start of the daemon to the last payment.

use super::charging::{PENDING, PLAIN, Run};
use super::{Bench, Label};
use crate::reference::{self, Until};
use crate::report::{Amount, Goal};
use crate::scene::{Scene, Stage};

/// How many times longer charging takes than bare calls.
fn wall_ratio(run: &Run) -> Amount {
    let call = Amount::micros_each(run.reference.wall, run.reference.calls);
    Amount::micros_each(run.cost.wall, run.cost.charges).per(call)
}

/// Charges a part of the large database.
async fn run(bench: &mut Bench, stage: Stage, count: u64) -> anyhow::Result<Run> {
    let (directory, until) = (bench.world.directory(), Until::Calls(count));
    let reference = reference::debit(directory, stage.script, stage.in_flight, until).await?;
    let database = bench.take_large().await?;
    let mut scene = Scene::reset(&bench.world, database, stage).await?;
    let cost = scene.charge(count, 1).await?;
    bench.large = Some(scene.compare().await?);
    let run = Run { cost, reference };
    println!(
        "  {} charges in {} s on {} cores",
        cost.charges,
        cost.wall.as_secs(),
        run.cores()
    );
    Ok(run)
}

/// With and without notices.
pub async fn backlog(bench: &mut Bench) -> anyhow::Result<()> {
    let count = bench.sizes.many.min(bench.sizes.large / 10);
    // Each is measured once: it takes as long as all other figures about charging.
    let runs = [run(bench, PLAIN, count).await?];
    let label = |key, name, goal| Label::new("backlog", key, name, goal);
    let name = "time of a backlog / of as many bare calls";
    let ratio = label("backlog_ratio", name, Goal::AtMost(2_500));
    bench.add(ratio, &runs, wall_ratio, Some(Run::cores));
    let wal = label(
        "backlog_wal_bytes",
        "WAL per charge of a backlog, bytes",
        Goal::AtMost(3_000_000),
    );
    let bytes =
        |run: &Run| Amount::ratio(run.cost.counts.wal_bytes.into(), run.cost.charges.into());
    bench.add(wal, &runs, bytes, None);
    let name = "CPU of a bare call / of a charge of a backlog";
    let cpu = label("backlog_cpu_ratio", name, Goal::None);
    bench.add(cpu, &runs, Run::cpu_ratio, Some(Run::cores));
    let name = "peak memory of the daemon after a backlog, MiB";
    let rss = label("backlog_peak_rss_mib", name, Goal::AtMost(64_000));
    let mib = |run: &Run| Amount::ratio(run.cost.peak_rss_kib.into(), 1024);
    bench.add(rss, &runs, mib, None);
    let seconds = label("backlog_seconds", "time of a backlog, s", Goal::None);
    let wall = |run: &Run| Amount::ratio(run.cost.wall.as_millis(), 1000);
    bench.add(seconds, &runs, wall, Some(Run::cores));

    let few = bench.sizes.some;
    let runs = [run(bench, PENDING, few).await?];
    let name = "the same with notices (estimated from a part)";
    let ratio = label("backlog_notices_ratio", name, Goal::AtMost(8_000));
    bench.add(ratio, &runs, wall_ratio, Some(Run::cores));
    Ok(())
}
