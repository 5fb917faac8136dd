//! Figures from measurements, in whole numbers whose unit is in their name.

use std::fmt;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

/// What N charges cost.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// From the start of the daemon until all were paid and told.
    pub wall: Duration,
    /// CPU time of `cykl run`, its start included.
    pub daemon_cpu: Duration,
    /// CPU time of all of PostgreSQL.
    pub postgres_cpu: Duration,
    /// CPU time of the pretend imoje.
    pub gateway_cpu: Duration,
    /// What PostgreSQL wrote to its log.
    pub wal_bytes: u64,
    /// How often PostgreSQL made that log durable.
    pub fsyncs: u64,
    /// Statements of the daemon, or its transactions where PostgreSQL lacks `pg_stat_statements`.
    pub statements: u64,
    /// The most memory that the daemon had resident.
    pub daemon_peak_rss_kib: u64,
}

/// What N calls of a bare HTTP loop cost.
#[derive(Debug, Clone, Copy)]
pub struct Reference {
    /// From the first call to the end of the last.
    pub wall: Duration,
    /// CPU time of the loop and the pretend imoje.
    pub cpu: Duration,
}

/// One measurement of both.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    /// How many charges, and how many calls.
    pub charges: u64,
    /// What the charges cost.
    pub cost: Cost,
    /// What the calls cost.
    pub reference: Reference,
}

type Figure = (&'static str, &'static str, fn(&Round) -> u64);

/// Every figure: its key in JSON, its name in the table, and how it is computed.
const FIGURES: [Figure; 16] = [
    ("charges_per_second", "charges per second", |round| {
        per_second(round.charges, round.cost.wall)
    }),
    (
        "reference_calls_per_second",
        "bare HTTP calls per second",
        |round| per_second(round.charges, round.reference.wall),
    ),
    (
        "wall_ratio_permille",
        "charges per 1000 bare calls, by time",
        |round| ratio(round.reference.wall, round.cost.wall),
    ),
    ("cpu_ns_per_charge", "CPU per charge, ns", |round| {
        each(round.cost.cpu(), round)
    }),
    ("daemon_cpu_ns_per_charge", "  of it the daemon", |round| {
        each(round.cost.daemon_cpu, round)
    }),
    (
        "postgres_cpu_ns_per_charge",
        "  of it PostgreSQL",
        |round| each(round.cost.postgres_cpu, round),
    ),
    (
        "gateway_cpu_ns_per_charge",
        "  of it the pretend imoje",
        |round| each(round.cost.gateway_cpu, round),
    ),
    (
        "reference_cpu_ns_per_call",
        "CPU per bare HTTP call, ns",
        |round| each(round.reference.cpu, round),
    ),
    (
        "cpu_ratio_permille",
        "charges per 1000 bare calls, by CPU",
        |round| ratio(round.reference.cpu, round.cost.cpu()),
    ),
    ("cores_permille", "cores in use x 1000, charging", |round| {
        ratio(round.cost.cpu(), round.cost.wall)
    }),
    (
        "reference_cores_permille",
        "cores in use x 1000, bare calls",
        |round| ratio(round.reference.cpu, round.reference.wall),
    ),
    ("wal_bytes_per_charge", "WAL bytes per charge", |round| {
        round.cost.wal_bytes / round.charges
    }),
    (
        "statements_per_1000_charges",
        "statements per 1000 charges",
        |round| round.cost.statements * 1000 / round.charges,
    ),
    (
        "fsyncs_per_1000_charges",
        "fsyncs of the WAL per 1000 charges",
        |round| round.cost.fsyncs * 1000 / round.charges,
    ),
    (
        "daemon_peak_rss_kib",
        "peak memory of the daemon, KiB",
        |round| round.cost.daemon_peak_rss_kib,
    ),
    ("wall_ms", "time for all charges, ms", |round| {
        whole(round.cost.wall.as_millis())
    }),
];

impl Cost {
    fn cpu(&self) -> Duration {
        self.daemon_cpu + self.postgres_cpu + self.gateway_cpu
    }
}

impl fmt::Display for Round {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} charges/s, {} bare calls/s",
            per_second(self.charges, self.cost.wall),
            per_second(self.charges, self.reference.wall),
        )
    }
}

/// Every figure of every round, and their medians.
pub struct Summary {
    charges: u64,
    rows: Vec<Row>,
}

struct Row {
    key: &'static str,
    name: &'static str,
    values: Vec<u64>,
    median: u64,
}

impl Summary {
    /// The figures of `rounds`, of which there is at least one.
    pub fn of(rounds: &[Round]) -> Self {
        let rows = FIGURES.iter().map(|(key, name, figure)| {
            let values: Vec<u64> = rounds.iter().map(figure).collect();
            let mut sorted = values.clone();
            sorted.sort_unstable();
            Row {
                key,
                name,
                median: sorted[sorted.len() / 2],
                values,
            }
        });
        Self {
            charges: rounds[0].charges,
            rows: rows.collect(),
        }
    }

    /// For people.
    pub fn table(&self) -> Table {
        let mut table = Table::new();
        let rounds = self.rows.first().map_or(0, |row| row.values.len());
        let header = ["".to_owned(), "median".to_owned()]
            .into_iter()
            .chain((1..=rounds).map(|number| format!("round {number}")));
        table.load_style(presets::NOTHING);
        table.set_header(header);
        for row in &self.rows {
            let figures = std::iter::once(row.median).chain(row.values.iter().copied());
            let cells = figures.map(|figure| figure.to_string());
            table.add_row(std::iter::once(row.name.to_owned()).chain(cells));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    /// For programs: the medians, in one line.
    pub fn json(&self) -> Value {
        let medians = self.rows.iter().map(|row| (row.key, row.median));
        let mut line = serde_json::Map::from_iter(
            medians.map(|(key, median)| (key.to_owned(), Value::from(median))),
        );
        line.insert("bench".to_owned(), json!("charges"));
        line.insert("charges".to_owned(), json!(self.charges));
        Value::Object(line)
    }
}

fn per_second(count: u64, time: Duration) -> u64 {
    whole(u128::from(count) * 1_000_000_000 / time.as_nanos().max(1))
}

fn each(time: Duration, round: &Round) -> u64 {
    whole(time.as_nanos() / u128::from(round.charges))
}

fn ratio(part: Duration, whole_time: Duration) -> u64 {
    whole(part.as_nanos() * 1000 / whole_time.as_nanos().max(1))
}

fn whole(figure: u128) -> u64 {
    u64::try_from(figure).unwrap_or(u64::MAX)
}
