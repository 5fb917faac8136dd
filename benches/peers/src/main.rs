//! What other job systems reach with the debit that Cykl makes. `run` beside this folder's README.md starts all it needs.
//!
//! Every peer gets a database of its own, N jobs in it, and a runner: a program that works on them, each with one debit at the
//! pretend imoje. The figures span the time from the word to begin to the last job that the peer's own tables call done.
//!
//! A peer that cannot run is reported and passed over. Nothing asserts a time.

mod figures;
mod plans;
mod processes;
mod runners;
mod world;

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use url::Url;

use figures::{Outcome, Report};
use plans::{PLANS, Peer, Plan};
use world::World;

/// Measure other job systems with the debit that Cykl makes.
#[derive(Debug, Parser)]
#[command(name = "peers")]
struct Args {
    /// A PostgreSQL server and a superuser of it; databases are made and dropped there
    #[arg(long, value_name = "URL")]
    database_url: Url,

    /// The server's first process
    #[arg(long, value_name = "PID")]
    postmaster_pid: i32,

    /// The base_url that `cykl simulator` printed
    #[arg(long, value_name = "URL")]
    gateway: Url,

    /// The process of `cykl simulator`
    #[arg(long, value_name = "PID")]
    gateway_pid: i32,

    /// Jobs of each peer; those that wait get a tenth or less
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    jobs: u32,

    /// Debits at a time, where a peer's settings leave it open
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    in_flight: u16,

    /// Write the figures to FILE
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Which peers to measure [default: all]
    #[arg(value_enum)]
    peers: Vec<Peer>,
}

impl Args {
    fn wants(&self, plan: &Plan) -> bool {
        self.peers.is_empty() || self.peers.contains(&plan.peer)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let world = World {
        server: args.database_url.clone(),
        postmaster_pid: args.postmaster_pid,
        gateway: args.gateway.clone(),
        gateway_pid: args.gateway_pid,
        in_flight: args.in_flight,
    };
    println!("{}", world.description().await?);
    let mut reports = Vec::new();
    for plan in PLANS.iter().filter(|plan| args.wants(plan)) {
        let jobs = args.jobs.div_ceil(plan.jobs_divisor);
        let outcome = match world.measure(plan, jobs).await {
            Ok(figures) => Outcome::Measured(figures),
            Err(error) => Outcome::NotRun(format!("{error:#}")),
        };
        let report = Report {
            peer: plan.peer.name(),
            mode: plan.mode,
            outcome,
        };
        println!("{report}");
        reports.push(report);
    }
    println!("{}", figures::table(&reports));
    if let Some(path) = &args.json {
        let text = format!("{:#}\n", figures::json(&reports));
        fs::write(path, text).with_context(|| format!("couldn't write {}", path.display()))?;
    }
    Ok(())
}
