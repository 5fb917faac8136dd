//! What a charge costs, end to end: `cargo bench --bench charges`.
//!
//! A private PostgreSQL with stock settings and durable commits, the pretend imoje and `cykl run` itself, three sets of processes
//! on one machine. N subscriptions are due; the figures are taken when all are paid and every event is delivered. Beside
//! each round a bare HTTP loop debits the same pretend imoje N times, which says how fast the machine is right now.
//!
//! `--memory` asks another question: how much memory the daemon needs while a million subscriptions are due.
//!
//! Nothing asserts a time. A round fails when the books and the ledger of the pretend imoje differ.

mod children;
mod figures;
mod processes;
mod reference;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use serde_json::json;

use figures::{Round, Summary};
use world::World;

/// The limit of `--memory`.
const PEAK_RSS_KIB_MAX: u64 = 100 * 1024;

/// How many subscriptions are due with `--memory`.
const MEMORY_CHARGES: u64 = 1_000_000;

/// How many of them are paid when the memory is looked at.
const MEMORY_PAID: u64 = 100_000;

/// Measure what a charge costs, end to end.
#[derive(Debug, Parser)]
#[command(name = "charges")]
struct Args {
    /// Subscriptions that are due
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    charges: Option<u64>,

    /// How often it is measured; the median counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=99))]
    rounds: u64,

    /// Measure once, with 5,000 charges
    #[arg(long)]
    quick: bool,

    /// Measure the daemon's peak memory while a million subscriptions are due; fails at 100 MiB
    #[arg(long)]
    memory: bool,

    /// charging.in_flight_max
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    in_flight: u32,

    /// Given by `cargo bench`. Without it, as under `cargo test`, a few charges show that this program still works.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    /// How many charges, how often.
    fn extent(&self) -> (u64, u64) {
        match (self.bench, self.quick) {
            (false, _) => (self.charges.unwrap_or(200), 1),
            (true, true) => (self.charges.unwrap_or(5_000), 1),
            (true, false) => (self.charges.unwrap_or(50_000), self.rounds),
        }
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("couldn't start the runtime")?
        .block_on(run(&args))
}

async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut world = World::start(args.in_flight).await?;
    let outcome = if args.memory {
        measure_memory(args, &mut world).await
    } else {
        measure_charges(args, &mut world).await
    };
    world.stop().await?;
    outcome
}

async fn measure_charges(args: &Args, world: &mut World) -> anyhow::Result<ExitCode> {
    let (charges, rounds) = args.extent();
    println!("{}", world.description().await?);
    println!(
        "{charges} charges, {} in flight, {rounds} rounds",
        args.in_flight
    );
    let mut measured = Vec::new();
    for number in 1..=rounds {
        let reference = reference::measure(world, charges, args.in_flight).await?;
        let cost = world.charge_all(charges).await?;
        let round = Round {
            charges,
            cost,
            reference,
        };
        println!("round {number}: {round}");
        measured.push(round);
    }
    let summary = Summary::of(&measured);
    println!("{}", summary.table());
    println!("{}", summary.json());
    Ok(ExitCode::SUCCESS)
}

async fn measure_memory(args: &Args, world: &mut World) -> anyhow::Result<ExitCode> {
    let charges = args.charges.unwrap_or(MEMORY_CHARGES);
    let paid = MEMORY_PAID.min(charges);
    println!("{}", world.description().await?);
    println!("{charges} subscriptions are due; waiting until all are planned and {paid} are paid");
    let started = std::time::Instant::now();
    let seen = world.memory_under_load(charges, paid).await?;
    let seconds = Duration::as_secs(&started.elapsed());
    let line = json!({
        "bench": "memory",
        "due": charges,
        "paid": seen.paid,
        "in_flight": args.in_flight,
        "seconds": seconds,
        "daemon_peak_rss_kib": seen.peak_rss_kib,
        "limit_kib": PEAK_RSS_KIB_MAX,
    });
    println!("{line}");
    let is_within = seen.peak_rss_kib < PEAK_RSS_KIB_MAX;
    println!(
        "peak memory of the daemon: {} KiB, which is {} {PEAK_RSS_KIB_MAX} KiB (100 MiB)",
        seen.peak_rss_kib,
        if is_within { "below" } else { "NOT below" },
    );
    Ok(if is_within {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
