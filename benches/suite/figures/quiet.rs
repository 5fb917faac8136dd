//! What is used when there is nothing to do, and how soon there could be.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::charging::PLAIN;
use super::{Bench, Label};
use crate::children::CYKL;
use crate::report::{Amount, Goal};
use crate::scene::{Scene, stop_all};

/// How long the daemon may take to come to rest after its start.
const COME_TO_REST: Duration = Duration::from_secs(3);

/// What the figure is about, however long it was measured.
const MINUTE: Duration = Duration::from_secs(60);

/// How often starts are measured.
const STARTS: usize = 5;

/// What a daemon uses in a minute in which nothing is due. Measured once, since it counts.
pub async fn idle(bench: &mut Bench) -> anyhow::Result<()> {
    let time = bench.sizes.idle;
    let scene = Scene::set(&mut bench.world, bench.sizes.small, PLAIN).await?;
    // What PostgreSQL does by itself is not the daemon's doing.
    let before = scene.postgres_cpu()?;
    tokio::time::sleep(time / 3).await;
    let by_itself = (scene.postgres_cpu()? - before) * 3;
    let daemons = scene.start_daemons(1)?;
    scene.until_ready().await?;
    tokio::time::sleep(COME_TO_REST).await;
    let postgres_before = scene.postgres_cpu()?;
    let (daemon_before, statements_before) = (daemons[0].cpu()?, scene.counts().await?.statements);
    tokio::time::sleep(time).await;
    let daemon = daemons[0].cpu()? - daemon_before;
    let postgres = (scene.postgres_cpu()? - postgres_before).saturating_sub(by_itself);
    let statements = scene.counts().await?.statements - statements_before;
    stop_all(daemons).await?;
    scene.close(&bench.world).await?;
    let label = |key, name, goal| Label::new("idle", key, name, goal);
    let per_minute = |used: &Duration| {
        Amount::ratio(
            used.as_nanos() * MINUTE.as_millis(),
            time.as_millis() * 1_000_000_000,
        )
    };
    let cpu = label(
        "idle_cpu_seconds",
        "CPU of an idle minute, s",
        Goal::AtMost(200),
    );
    bench.add(cpu, &[daemon + postgres], per_minute, None);
    let part = label("idle_daemon_cpu_seconds", "  of it the daemon", Goal::None);
    bench.add(part, &[daemon], per_minute, None);
    let name = "statements of an idle minute";
    let counted = label("idle_statements", name, Goal::AtMost(60_000));
    let each =
        |count: &u64| Amount::ratio(u128::from(*count) * MINUTE.as_millis(), time.as_millis());
    bench.add(counted, &[statements], each, None);
    Ok(())
}

/// How soon `cykl run` could charge in a database that it knows, and how soon `cykl --help` is read.
pub async fn cold(bench: &mut Bench) -> anyhow::Result<()> {
    let scene = Scene::set(&mut bench.world, bench.sizes.small, PLAIN).await?;
    let mut starts = Vec::new();
    // The first start is not measured: it finds nothing in memory.
    for number in 0..=STARTS {
        let started = Instant::now();
        let daemons = scene.start_daemons(1)?;
        scene.until_ready().await?;
        let took = started.elapsed();
        stop_all(daemons).await?;
        if number > 0 {
            starts.push(took);
        }
    }
    scene.close(&bench.world).await?;
    let mut helps = Vec::new();
    for _ in 0..=STARTS {
        let started = Instant::now();
        let status = Command::new(CYKL)
            .arg("--help")
            .stdout(Stdio::null())
            .status()?;
        helps.push(started.elapsed());
        ensure!(status.success(), "cykl --help failed: {status}");
    }
    let millis = |time: &Duration| Amount::ratio(time.as_micros(), 1000);
    let label = |key, name, goal| Label::new("cold", key, name, goal);
    let start = label(
        "start_ms",
        "cykl run until ready, ms",
        Goal::AtMost(300_000),
    );
    bench.add(start, &starts, millis, None);
    let help = label("help_ms", "cykl --help, ms", Goal::AtMost(10_000));
    bench.add(help, &helps[1..], millis, None);
    Ok(())
}
