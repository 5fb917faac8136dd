//! What one charge costs, beside a bare HTTP call to the same simulator.

use super::{Bench, Label, cores, cores_of};
use crate::children::Script;
use crate::reference::{self, Done, Until};
use crate::report::{Amount, Goal};
use crate::scene::{Cost, Scene, Stage};

/// `charging.in_flight_max`, and how many calls the bare loop makes at once.
pub const IN_FLIGHT: u32 = 128;

/// The usual scene: every debit settles at once.
pub const PLAIN: Stage = Stage {
    in_flight: IN_FLIGHT,
    script: Script {
        settles_later: false,
        answer_after_ms: 0,
    },
    keeps_journal: false,
};

/// A debit is pending, and settles with a notice.
pub const PENDING: Stage = Stage {
    in_flight: IN_FLIGHT,
    script: Script {
        settles_later: true,
        answer_after_ms: 0,
    },
    keeps_journal: false,
};

/// What charges cost, and what bare calls cost.
pub struct Run {
    /// The charges.
    pub cost: Cost,
    /// The calls.
    pub reference: Done,
}

impl Run {
    /// Calls per charge, by CPU time.
    pub fn cpu_ratio(&self) -> Amount {
        let call = Amount::micros_each(self.reference.cpu, self.reference.calls);
        call.per(Amount::micros_each(self.cost.cpu(), self.cost.charges))
    }

    /// How many cores charging was given.
    pub fn cores(&self) -> Amount {
        cores_of(&self.cost)
    }
}

/// Charges `count` of the small database's subscriptions, after the bare loop.
pub async fn run(bench: &mut Bench, stage: Stage, count: u64, calls: u64) -> anyhow::Result<Run> {
    let until = Until::Calls(calls);
    let directory = bench.world.directory();
    let reference = reference::debit(directory, stage.script, stage.in_flight, until).await?;
    let mut scene = Scene::set(&mut bench.world, bench.sizes.small, stage).await?;
    let cost = scene.charge(count, 1).await?;
    scene.close(&bench.world).await?;
    println!(
        "  {} charges/s on {} cores, {} bare calls/s",
        Amount::per_second(cost.charges, cost.wall),
        cores_of(&cost),
        Amount::per_second(reference.calls, reference.wall),
    );
    Ok(Run { cost, reference })
}

/// The answer says settled.
pub async fn cpu(bench: &mut Bench) -> anyhow::Result<()> {
    let (count, calls) = (bench.sizes.several, bench.sizes.calls);
    let runs = bench
        .rounds(Run::cores, async |bench| {
            run(bench, PLAIN, count, calls).await
        })
        .await?;
    let goal = Goal::AtLeast(400);
    let ratio = Label::new("cpu", "cpu_ratio", "CPU of a bare call / of a charge", goal);
    bench.add(ratio, &runs, Run::cpu_ratio, Some(Run::cores));
    add_split(bench, "cpu", &runs);
    let label = |key, name, goal| Label::new("cpu", key, name, goal);
    let statements = label(
        "statements_per_charge",
        "statements per charge",
        Goal::AtMost(30),
    );
    bench.add(
        statements,
        &runs,
        |run| each(run, run.cost.counts.statements),
        None,
    );
    let fsyncs = label("fsyncs_per_charge", "fsyncs per charge", Goal::AtMost(20));
    bench.add(fsyncs, &runs, |run| each(run, run.cost.counts.fsyncs), None);
    let wal = label("wal_bytes_per_charge", "WAL per charge, bytes", Goal::None);
    bench.add(wal, &runs, |run| each(run, run.cost.counts.wal_bytes), None);
    let rss = label(
        "peak_rss_mib",
        "peak memory of the daemon, MiB",
        Goal::AtMost(64_000),
    );
    let mib = |run: &Run| Amount::ratio(run.cost.peak_rss_kib.into(), 1024);
    bench.add(rss, &runs, mib, None);
    Ok(())
}

/// The answer says pending, a notice comes, and the daemon reads the transaction.
pub async fn notices(bench: &mut Bench) -> anyhow::Result<()> {
    let count = bench.sizes.some;
    let runs = bench
        .rounds(Run::cores, async |bench| {
            run(bench, PENDING, count, count).await
        })
        .await?;
    let goal = Goal::AtLeast(120);
    let name = "CPU of a bare call / of a charge told by a notice";
    let ratio = Label::new("notices", "notice_cpu_ratio", name, goal);
    bench.add(ratio, &runs, Run::cpu_ratio, Some(Run::cores));
    add_split(bench, "notices", &runs);
    Ok(())
}

/// Rows that explain a ratio.
fn add_split(bench: &mut Bench, figure: &'static str, runs: &[Run]) {
    type Part = (&'static str, &'static str, fn(&Run) -> Amount);
    let parts: [Part; 7] = [
        ("cpu_us_per_charge", "CPU per charge, us", |run| {
            Amount::micros_each(run.cost.cpu(), run.cost.charges)
        }),
        ("daemon_us_per_charge", "  the daemon", |run| {
            Amount::micros_each(run.cost.daemon_cpu, run.cost.charges)
        }),
        ("postgres_us_per_charge", "  PostgreSQL", |run| {
            Amount::micros_each(run.cost.postgres_cpu, run.cost.charges)
        }),
        ("gateway_us_per_charge", "  the simulator", |run| {
            Amount::micros_each(run.cost.gateway_cpu, run.cost.charges)
        }),
        ("charges_per_second", "charges per second", |run| {
            Amount::per_second(run.cost.charges, run.cost.wall)
        }),
        ("call_us", "CPU per bare call, us", |run| {
            Amount::micros_each(run.reference.cpu, run.reference.calls)
        }),
        ("calls_per_second", "bare calls per second", |run| {
            Amount::per_second(run.reference.calls, run.reference.wall)
        }),
    ];
    for (position, (key, name, amount)) in parts.into_iter().enumerate() {
        let cores: fn(&Run) -> Amount = if position < 5 {
            Run::cores
        } else {
            |run| cores(run.reference.cpu, run.reference.wall)
        };
        let label = Label::new(figure, key, name, Goal::None);
        bench.add(label, runs, amount, Some(cores));
    }
}

fn each(run: &Run, count: u64) -> Amount {
    Amount::ratio(count.into(), run.cost.charges.into())
}
