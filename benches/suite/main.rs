//! What Cykl achieves, end to end: `cargo bench --bench suite -- [FIGURE...]`.
//!
//! A private PostgreSQL with stock settings and durable commits, the pretend imoje and `cykl run` itself, three sets of processes on
//! one machine. Every figure has a goal, is the median of several rounds, and stands beside a bare HTTP loop that was
//! measured in the same round where the speed of the machine would count.
//!
//! Nothing asserts a time. A figure fails when the books and the ledger of the pretend imoje differ, or an order was debited twice.

mod books;
mod children;
mod counters;
mod figures;
mod processes;
mod reference;
mod report;
mod scene;
mod world;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::{Parser, ValueEnum};
use cykl::clock::Clock;
use serde_json::{Value, json};

use figures::{Bench, Figure, Sizes};
use world::World;

/// Measure what Cykl achieves, end to end.
#[derive(Debug, Parser)]
#[command(name = "suite")]
struct Args {
    /// What to measure; everything unless said
    #[arg(value_name = "FIGURE", value_enum)]
    figures: Vec<Figure>,

    /// Measure small amounts, to see that it works
    #[arg(long)]
    quick: bool,

    /// How often each figure is measured; the median counts
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: Option<u32>,

    /// Write the figures to a file as JSON, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Given by `cargo bench`. Without it, as under `cargo test`, a few charges show that this program still works.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    fn sizes(&self) -> Sizes {
        let sizes = match (self.bench, self.quick) {
            (false, _) => figures::SMOKE,
            (true, true) => figures::QUICK,
            (true, false) => figures::FULL,
        };
        Sizes {
            rounds: self.rounds.unwrap_or(sizes.rounds),
            ..sizes
        }
    }

    fn figures(&self) -> Vec<Figure> {
        match (self.bench, self.figures.is_empty()) {
            (false, true) => vec![Figure::Cpu],
            (true, true) => Figure::value_variants().to_vec(),
            (_, false) => self.figures.clone(),
        }
    }
}

fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    if let (Some(reference::LOOP), Some(task)) = (words.next().as_deref(), words.next()) {
        return reference::run(&task);
    }
    let args = Args::parse();
    children::raise_file_limit()?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("couldn't start the runtime")?
        .block_on(run(&args))
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let started = Instant::now();
    let (sizes, figures) = (args.sizes(), args.figures());
    let databases: BTreeSet<u64> = figures
        .iter()
        .flat_map(|figure| figure.databases(&sizes))
        .collect();
    let histories: BTreeSet<u64> = figures
        .iter()
        .filter_map(|figure| figure.history(&sizes))
        .collect();
    let world = World::start(databases, histories).await?;
    let mut bench = Bench::new(world, sizes);
    let heading = heading(args, &bench.world).await?;
    println!("{heading}");
    let outcome = measure(&mut bench, &figures).await;
    let report = std::mem::take(&mut bench.report);
    bench.stop().await?;
    println!("\n{}", report.table());
    println!("{} s in all", started.elapsed().as_secs());
    if let Some(path) = &args.json {
        let text = format!("{:#}\n", report.json(&heading));
        std::fs::write(path, text).with_context(|| format!("couldn't write {}", path.display()))?;
    }
    outcome
}

/// Measures one figure after the other. One that fails does not keep the others from being measured.
async fn measure(bench: &mut Bench, figures: &[Figure]) -> anyhow::Result<()> {
    let mut failed = Vec::new();
    for figure in figures {
        let (name, started) = (figure.name(), Instant::now());
        println!("{name}");
        if let Err(error) = figure.measure(bench).await {
            println!("  FAILED: {error:#}");
            failed.push(name);
        }
        println!("  ({} s)", started.elapsed().as_secs());
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// When, what and where it was measured.
async fn heading(args: &Args, world: &World) -> anyhow::Result<Value> {
    let cores = std::thread::available_parallelism().context("couldn't count the cores")?;
    Ok(json!({
        "bench": "suite",
        "date": Clock::system().now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        "commit": commit(),
        "postgresql": world.version().await?,
        "counts_statements": world.counts_statements(),
        "cores": cores.get(),
        "quick": args.quick,
    }))
}

/// The commit that was built, if git knows.
fn commit() -> Option<String> {
    let output = std::process::Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| output.status.success() && !text.is_empty())
}
