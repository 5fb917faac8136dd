//! Who is measured, and with which settings.

use clap::ValueEnum;

/// A job system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    /// A script that takes one due row after the other
    CronScript,
    /// `graphile_worker`, the crate
    GraphileWorkerRust,
    /// Graphile Worker, the npm package
    GraphileWorkerNpm,
    /// pg-boss, the npm package
    PgBoss,
}

/// The program that works on the jobs.
#[derive(Debug, Clone, Copy)]
pub enum Program {
    /// `rust_runner`.
    Rust,
    /// A script in `node/`, for Node.
    Node(&'static str),
}

/// A peer with settings. The settings themselves are with the runner, which looks at the name of the mode.
#[derive(Debug)]
pub struct Plan {
    /// Who.
    pub peer: Peer,
    /// The name of the settings.
    pub mode: &'static str,
    /// It gets this fraction of the jobs.
    pub jobs_divisor: u32,
}

/// All that is measured, in this order. Those that wait, for a commit or for the next poll, get fewer jobs.
pub const PLANS: [Plan; 7] = [
    plan(Peer::CronScript, "row-by-row", 10),
    plan(Peer::GraphileWorkerRust, "perf-test", 1),
    plan(Peer::GraphileWorkerRust, "defaults", 1000),
    plan(Peer::GraphileWorkerNpm, "perf-test", 1),
    plan(Peer::GraphileWorkerNpm, "defaults", 20),
    plan(Peer::PgBoss, "fetch-500", 1),
    plan(Peer::PgBoss, "work-500", 10),
];

const fn plan(peer: Peer, mode: &'static str, jobs_divisor: u32) -> Plan {
    Plan {
        peer,
        mode,
        jobs_divisor,
    }
}

impl Peer {
    /// What it is called in figures and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::CronScript => "cron-script",
            Self::GraphileWorkerRust => "graphile-worker-rust",
            Self::GraphileWorkerNpm => "graphile-worker-npm",
            Self::PgBoss => "pg-boss",
        }
    }

    /// What runs it.
    pub fn program(self) -> Program {
        match self {
            Self::CronScript | Self::GraphileWorkerRust => Program::Rust,
            Self::GraphileWorkerNpm => Program::Node("graphile_worker.mjs"),
            Self::PgBoss => Program::Node("pg_boss.mjs"),
        }
    }

    /// Asks the peer's own tables whether anything is left to do. What fails for good is left.
    pub fn unfinished_query(self) -> &'static str {
        match self {
            Self::CronScript => "SELECT EXISTS (SELECT FROM debits WHERE state <> 'paid')",
            Self::GraphileWorkerRust | Self::GraphileWorkerNpm => {
                "SELECT EXISTS (SELECT FROM graphile_worker._private_jobs)"
            }
            Self::PgBoss => {
                "SELECT EXISTS (SELECT FROM pgboss.job WHERE name = 'debits' AND state <> 'completed')"
            }
        }
    }

    /// Asks the peer's own tables how many jobs were done at the first attempt; `None` where such jobs are deleted.
    pub fn finished_query(self) -> Option<&'static str> {
        match self {
            Self::CronScript => Some("SELECT count(*) FROM debits WHERE state = 'paid'"),
            Self::GraphileWorkerRust | Self::GraphileWorkerNpm => None,
            Self::PgBoss => Some(
                "SELECT count(*) FROM pgboss.job WHERE name = 'debits' AND state = 'completed' AND retry_count = 0",
            ),
        }
    }
}
