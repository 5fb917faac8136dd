//! Figures from measurements, for people and for programs.

use std::fmt;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

/// What N jobs cost.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// N.
    pub jobs: u32,
    /// From the word to begin until the last job was recorded.
    pub wall: Duration,
    /// CPU time of the program that worked on them.
    pub runner_cpu: Duration,
    /// CPU time of all of PostgreSQL.
    pub postgres_cpu: Duration,
    /// CPU time of the pretend imoje.
    pub gateway_cpu: Duration,
    /// What PostgreSQL wrote to its log.
    pub wal_bytes: u64,
    /// Whether every job was done exactly once.
    pub is_each_once: bool,
}

/// How it went.
pub enum Outcome {
    /// To the end.
    Measured(Figures),
    /// Not, and why.
    NotRun(String),
}

/// How it went with one peer.
pub struct Report {
    /// Who.
    pub peer: &'static str,
    /// With which settings.
    pub mode: &'static str,
    /// How.
    pub outcome: Outcome,
}

impl Figures {
    fn jobs_per_second(&self) -> u64 {
        whole(u128::from(self.jobs) * 1_000_000_000 / self.wall.as_nanos().max(1))
    }

    fn cpu(&self) -> Duration {
        self.runner_cpu + self.postgres_cpu + self.gateway_cpu
    }

    fn cpu_us(&self, cpu: Duration) -> u64 {
        whole(cpu.as_micros() / u128::from(self.jobs))
    }

    /// Cores that were really in use, with two decimals.
    fn effective_cores(&self) -> String {
        format!("{:.2}", self.cpu().div_duration_f64(self.wall))
    }

    fn wal_bytes_per_job(&self) -> u64 {
        self.wal_bytes / u64::from(self.jobs)
    }
}

impl Report {
    fn json(&self) -> Value {
        match &self.outcome {
            Outcome::Measured(figures) => json!({
                "peer": self.peer,
                "mode": self.mode,
                "jobs": figures.jobs,
                "jobs_per_second": figures.jobs_per_second(),
                "cpu_us_per_job": figures.cpu_us(figures.cpu()),
                "runner_cpu_us_per_job": figures.cpu_us(figures.runner_cpu),
                "postgres_cpu_us_per_job": figures.cpu_us(figures.postgres_cpu),
                "gateway_cpu_us_per_job": figures.cpu_us(figures.gateway_cpu),
                "effective_cores": figures.effective_cores().parse::<f64>().ok(),
                "wal_bytes_per_job": figures.wal_bytes_per_job(),
                "exactly_once": figures.is_each_once,
            }),
            Outcome::NotRun(reason) => json!({
                "peer": self.peer,
                "mode": self.mode,
                "not_run": reason,
            }),
        }
    }

    fn row(&self) -> Vec<String> {
        let mut row = vec![self.peer.to_owned(), self.mode.to_owned()];
        match &self.outcome {
            Outcome::Measured(figures) => row.extend([
                figures.jobs.to_string(),
                figures.jobs_per_second().to_string(),
                figures.cpu_us(figures.cpu()).to_string(),
                figures.cpu_us(figures.runner_cpu).to_string(),
                figures.cpu_us(figures.postgres_cpu).to_string(),
                figures.cpu_us(figures.gateway_cpu).to_string(),
                figures.effective_cores(),
                figures.wal_bytes_per_job().to_string(),
                if figures.is_each_once { "yes" } else { "NO" }.to_owned(),
            ]),
            Outcome::NotRun(_) => row.push("not run".to_owned()),
        }
        row
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}, {}: ", self.peer, self.mode)?;
        match &self.outcome {
            Outcome::Measured(figures) => {
                write!(formatter, "{} jobs/s", figures.jobs_per_second())
            }
            Outcome::NotRun(reason) => write!(formatter, "not run: {reason}"),
        }
    }
}

/// For people.
pub fn table(reports: &[Report]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([
        "peer",
        "settings",
        "jobs",
        "jobs/s",
        "CPU us/job",
        "runner",
        "PostgreSQL",
        "gateway",
        "cores",
        "WAL B/job",
        "once",
    ]);
    for report in reports {
        table.add_row(report.row());
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// For programs.
pub fn json(reports: &[Report]) -> Value {
    reports.iter().map(Report::json).collect()
}

fn whole(figure: u128) -> u64 {
    u64::try_from(figure).unwrap_or(u64::MAX)
}
