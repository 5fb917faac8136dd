//! The figures: which there are, how much is measured for each, and what they have in common.

mod backlog;
mod charging;
mod claims;
mod doors;
mod journal;
mod latency;
mod quiet;
mod setups;
mod views;

use std::time::Duration;

use clap::ValueEnum;

use crate::report::{Amount, Goal, Report, Row};
use crate::scene::Cost;
use crate::world::{Database, World};

/// A run that was given less CPU than this is repeated: the machine was busy with something else.
const CORES_MIN_PERCENT: u64 = 80;

/// How many runs of one figure are repeated at most.
const REPEATS_MAX: u32 = 3;

/// What can be measured, in this order. What leaves a database half charged comes last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Figure {
    /// CPU time of a charge, beside that of a bare HTTP call
    Cpu,
    /// The same, where the outcome is told by a notice
    Notices,
    /// Charges per second beside bare HTTP calls per second, in turns
    Wall,
    /// A day's charges out of ten times as many subscriptions
    Backlog,
    /// Thousands of calls in flight to an imoje that takes its time
    Latency,
    /// The time of a claim as the tables grow
    Claim,
    /// The time of a claim while another session holds a snapshot
    Snapshot,
    /// The time of a claim after millions of charges
    Soak,
    /// Generic plans
    Plan,
    /// Memory per call in flight
    Memory,
    /// Several daemons on one database
    Instances,
    /// Notices taken per second
    Inbox,
    /// Rows imported per second
    Import,
    /// What the permit journal costs
    Journal,
    /// What is used when nothing is due
    Idle,
    /// How soon the daemon is ready
    Cold,
    /// The views that operators read, over a year of charges
    Views,
}

impl Figure {
    /// Its name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }

    /// How large the databases are that it needs.
    pub fn databases(self, sizes: &Sizes) -> Vec<u64> {
        match self {
            Figure::Backlog | Figure::Soak => vec![sizes.large],
            Figure::Claim => sizes.claims.to_vec(),
            Figure::Import => vec![0],
            Figure::Journal => vec![sizes.claims[1]],
            Figure::Cpu
            | Figure::Notices
            | Figure::Wall
            | Figure::Latency
            | Figure::Snapshot
            | Figure::Plan
            | Figure::Memory
            | Figure::Instances
            | Figure::Inbox
            | Figure::Idle
            | Figure::Cold
            | Figure::Views => vec![sizes.small],
        }
    }

    /// How many subscriptions with a year of charges it needs, if it needs any.
    pub fn history(self, sizes: &Sizes) -> Option<u64> {
        matches!(self, Figure::Views).then_some(sizes.small)
    }

    /// Measures it.
    pub async fn measure(self, bench: &mut Bench) -> anyhow::Result<()> {
        match self {
            Figure::Cpu => charging::cpu(bench).await,
            Figure::Notices => charging::notices(bench).await,
            Figure::Wall => setups::wall(bench).await,
            Figure::Backlog => backlog::backlog(bench).await,
            Figure::Latency => latency::latency(bench).await,
            Figure::Claim => claims::claim(bench).await,
            Figure::Snapshot => claims::snapshot(bench).await,
            Figure::Soak => claims::soak(bench).await,
            Figure::Plan => setups::plan(bench).await,
            Figure::Memory => latency::memory(bench).await,
            Figure::Instances => setups::instances(bench).await,
            Figure::Inbox => doors::inbox(bench).await,
            Figure::Import => doors::import(bench).await,
            Figure::Journal => journal::journal(bench).await,
            Figure::Idle => quiet::idle(bench).await,
            Figure::Cold => quiet::cold(bench).await,
            Figure::Views => views::views(bench).await,
        }
    }
}

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// How often.
    pub rounds: u32,
    /// Whether runs are repeated that got too little CPU.
    pub repeats: bool,
    /// Subscriptions in the database of most figures.
    pub small: u64,
    /// Subscriptions in the large database.
    pub large: u64,
    /// Charges of a backlog, which is measured once, and rows of an import.
    pub many: u64,
    /// Charges of the figure about what one costs.
    pub several: u64,
    /// Charges of the figures about some.
    pub some: u64,
    /// Calls of the bare loop.
    pub calls: u64,
    /// Subscriptions in the databases whose claims are compared.
    pub claims: &'static [u64],
    /// Charges under a held snapshot.
    pub snapshot: u64,
    /// Charges in the long run, at most.
    pub soak: u64,
    /// How long the long run takes, at most.
    pub soak_time: Duration,
    /// How long charging and the bare loop work in turns.
    pub slice: Duration,
    /// How often.
    pub pairs: u32,
    /// How long nothing is due.
    pub idle: Duration,
}

/// What the goals are about.
pub const FULL: Sizes = Sizes {
    rounds: 3,
    repeats: true,
    small: 1_000_000,
    large: 10_000_000,
    many: 1_000_000,
    several: 150_000,
    some: 30_000,
    calls: 200_000,
    claims: &[10_000, 100_000, 1_000_000, 10_000_000],
    snapshot: 75_000,
    soak: 5_000_000,
    soak_time: Duration::from_secs(60),
    slice: Duration::from_secs(5),
    pairs: 4,
    idle: Duration::from_secs(60),
};

/// To see that it works.
pub const QUICK: Sizes = Sizes {
    rounds: 1,
    repeats: false,
    small: 20_000,
    large: 100_000,
    many: 10_000,
    several: 10_000,
    some: 5_000,
    calls: 20_000,
    claims: &[10_000, 20_000, 100_000],
    snapshot: 10_000,
    soak: 20_000,
    soak_time: Duration::from_secs(10),
    slice: Duration::from_millis(500),
    pairs: 3,
    idle: Duration::from_secs(10),
};

/// To see that it still compiles and ends.
pub const SMOKE: Sizes = Sizes {
    rounds: 1,
    repeats: false,
    small: 200,
    large: 200,
    many: 200,
    several: 200,
    some: 200,
    calls: 200,
    ..QUICK
};

/// What the figures share.
pub struct Bench {
    /// PostgreSQL.
    pub world: World,
    /// How much is measured.
    pub sizes: Sizes,
    /// What was measured.
    pub report: Report,
    /// The large database, once somebody has used it; so that it is copied once.
    large: Option<Database>,
}

impl Bench {
    /// Nothing has been measured yet.
    pub fn new(world: World, sizes: Sizes) -> Self {
        Self {
            world,
            sizes,
            report: Report::default(),
            large: None,
        }
    }

    /// Removes everything.
    pub async fn stop(self) -> anyhow::Result<()> {
        if let Some(large) = self.large {
            large.observer.close().await;
        }
        self.world.stop().await
    }

    /// Takes the large database, as the figures before have left it.
    async fn take_large(&mut self) -> anyhow::Result<Database> {
        match self.large.take() {
            Some(database) => Ok(database),
            None => self.world.copy(self.sizes.large).await,
        }
    }

    /// Measures as often as asked for, and again where the machine gave too little CPU. `cores` says how much a run got.
    async fn rounds<T>(
        &mut self,
        cores: impl Fn(&T) -> Amount,
        mut measure: impl AsyncFnMut(&mut Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<Vec<T>> {
        let least = Amount::ratio(CORES_MIN_PERCENT.into(), 100);
        let mut repeats = if self.sizes.repeats { REPEATS_MAX } else { 0 };
        let mut measured = Vec::new();
        while measured.len() < usize::try_from(self.sizes.rounds)? {
            let run = measure(self).await?;
            let given = cores(&run);
            if given < least && repeats > 0 {
                repeats -= 1;
                println!("  a run with {given} cores is repeated");
            } else {
                measured.push(run);
            }
        }
        Ok(measured)
    }

    /// Adds a row to the report: `amount` of every run.
    fn add<T>(
        &mut self,
        label: Label,
        runs: &[T],
        amount: impl Fn(&T) -> Amount,
        cores: Option<fn(&T) -> Amount>,
    ) {
        self.report.add(Row {
            figure: label.figure,
            key: label.key.to_owned(),
            name: label.name,
            goal: label.goal,
            rounds: runs.iter().map(amount).collect(),
            cores: cores.map_or_else(Vec::new, |cores| runs.iter().map(cores).collect()),
        });
    }
}

/// What a row is called, and what it should be.
struct Label {
    figure: &'static str,
    key: &'static str,
    name: String,
    goal: Goal,
}

impl Label {
    fn new(figure: &'static str, key: &'static str, name: impl Into<String>, goal: Goal) -> Self {
        Self {
            figure,
            key,
            name: name.into(),
            goal,
        }
    }
}

/// How many cores charging was given.
fn cores_of(cost: &Cost) -> Amount {
    cores(cost.cpu(), cost.wall)
}

/// How many cores were at work.
fn cores(cpu: Duration, wall: Duration) -> Amount {
    Amount::of_times(cpu, wall)
}
