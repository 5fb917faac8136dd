//! `cykl demo`: a private database, the pretend imoje and a fast clock. Months of billing in less than a minute, and at the end
//! our books beside the gateway's ledger.

mod comparison;
mod progress;
mod report;
mod stage;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use clap::ValueEnum;

use crate::cli::{CliError, Exit, GlobalArgs, Outcome};
use crate::telemetry;
use comparison::Comparison;
use progress::Progress;
use stage::Stage;

/// What `cykl demo` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct DemoArgs {
    /// How many subscriptions to bill
    #[arg(long, value_name = "N", default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    subscriptions: u32,

    /// How many days to bill for
    #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=730))]
    days: u32,

    /// Decides which calls meet which fault
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// How the gateway and the cards behave
    #[arg(long, value_enum, default_value_t = Faults::Calm)]
    faults: Faults,

    /// Keep the database, and keep it running until Ctrl-C, to look around in it
    #[arg(long)]
    keep: bool,
}

/// How the gateway and the cards behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Faults {
    /// Everything settles
    None,
    /// Cards decline, expire and go inactive; now and then an answer is lost and a notice is late or comes twice
    Calm,
    /// As calm, and the gateway has a bad year
    Rough,
}

const AFTER_HELP: &str = "\
Everything happens on this machine: PostgreSQL runs on a private socket, the gateway is a simulator on a loopback port, and
no real card is involved. Ends with exit code 1 when the books and the gateway's ledger differ.";

/// How long the billing itself takes, in real time.
const REAL_SECONDS: u32 = 36;
/// How long what is under way at the end may take to come to rest, in real time.
const REST_MAX: Duration = Duration::from_secs(12);
/// How often the progress is shown.
const SHOWN_EVERY: Duration = Duration::from_millis(250);

pub(super) async fn run(global: &GlobalArgs, args: DemoArgs) -> Outcome {
    let format = global.log_format.unwrap_or(telemetry::LogFormat::Auto);
    telemetry::init(format, "error")?;
    let mut interrupted = Box::pin(tokio::signal::ctrl_c());
    let stage = Stage::set(&args).await?;
    let outcome = tokio::select! {
        outcome = perform(&stage, &args) => outcome,
        _ = &mut interrupted => {
            eprintln!("interrupted");
            Ok(Exit::No)
        }
    };
    if args.keep && outcome.is_ok() {
        println!(
            "\nThe books are open until Ctrl-C:\n\n  {}\n",
            stage.psql_line()
        );
        println!(
            "Try:  SELECT * FROM billing.subscriptions;   SELECT * FROM billing.charges WHERE state = 'failed';"
        );
        interrupted.await.map_err(CliError::internal)?;
    }
    stage.clear(args.keep).await?;
    outcome
}

async fn perform(stage: &Stage, args: &DemoArgs) -> Outcome {
    println!(
        "{} subscriptions, {} days from {}, in about {REAL_SECONDS} seconds.",
        stage.subscriptions,
        args.days,
        stage.start.date_naive()
    );
    println!(
        "PostgreSQL on a private socket, imoje simulated at {}.\n",
        stage.gateway_address()
    );
    let began = Instant::now();
    let end = stage.start + TimeDelta::days(args.days.into());
    let progress = Progress::new(std::io::stdout().is_terminal(), stage.start, end);
    let crew = stage.raise_curtain().await?;
    while stage.clock.now() < end {
        tokio::time::sleep(SHOWN_EVERY).await;
        progress.show(stage.clock.now().min(end), &stage.store.progress().await?);
    }
    crew.drain().await;
    stage.come_to_rest(REST_MAX).await?;
    progress.finish(end, &stage.store.progress().await?);
    let figures = stage.store.figures().await?;
    let comparison = Comparison::of(&stage.store.movements().await?, &stage.simulator.ledger());
    let unplanned = stage.store.unplanned(&stage.shops(), end).await?;
    report::print(&figures, &comparison, unplanned, began.elapsed());
    if !args.keep {
        println!("\nTo look around in these books with psql, run: cykl demo --keep");
    }
    Ok(if comparison.agrees() && unplanned == 0 {
        Exit::Ok
    } else {
        Exit::No
    })
}
