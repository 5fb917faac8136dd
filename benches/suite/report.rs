//! Figures: what was measured, what it should be, and how that is shown. Whole numbers of millionths throughout.

use std::fmt;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

/// A measured number, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(u64);

const MILLION: u64 = 1_000_000;

impl Amount {
    /// A whole number.
    pub fn whole(number: u64) -> Self {
        Self(number.saturating_mul(MILLION))
    }

    /// `part` for each `whole`. Nothing for each nothing is 0.
    pub fn ratio(part: u128, whole: u128) -> Self {
        let millionths = part * u128::from(MILLION) / whole.max(1);
        Self(u64::try_from(millionths).unwrap_or(u64::MAX))
    }

    /// `part` for each `whole`, of times.
    pub fn of_times(part: Duration, whole: Duration) -> Self {
        Self::ratio(part.as_nanos(), whole.as_nanos())
    }

    /// How many there were per second.
    pub fn per_second(count: u64, time: Duration) -> Self {
        Self::ratio(u128::from(count) * 1_000_000_000, time.as_nanos())
    }

    /// Microseconds of `time` for each of `count`.
    pub fn micros_each(time: Duration, count: u64) -> Self {
        Self::ratio(time.as_nanos(), u128::from(count) * 1000)
    }

    /// `self` for each `other`.
    pub fn per(self, other: Self) -> Self {
        Self::ratio(self.0.into(), other.0.into())
    }

    fn json(self) -> Value {
        let text = format!("{}.{:06}", self.0 / MILLION, self.0 % MILLION);
        text.parse::<f64>().map_or(Value::Null, Value::from)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, millionths) = (self.0 / MILLION, self.0 % MILLION);
        match whole {
            0 => write!(formatter, "0.{:04}", millionths / 100),
            1..100 => write!(formatter, "{whole}.{:02}", millionths / 10_000),
            100.. => {
                let digits = whole.to_string();
                for (position, digit) in digits.chars().enumerate() {
                    if position > 0 && (digits.len() - position).is_multiple_of(3) {
                        write!(formatter, ",")?;
                    }
                    write!(formatter, "{digit}")?;
                }
                Ok(())
            }
        }
    }
}

/// The median: of an even number of values the upper one of the middle, of none 0.
pub fn median<T: Ord + Copy + Default>(values: &[T]) -> T {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

impl Default for Amount {
    fn default() -> Self {
        Self::whole(0)
    }
}

/// What a figure should be.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// This or more, in thousandths.
    AtLeast(u64),
    /// This or less, in thousandths.
    AtMost(u64),
    /// Shown to explain another figure.
    None,
}

impl Goal {
    fn is_met(self, amount: Amount) -> Option<bool> {
        let of_thousandths = |thousandths: u64| Amount(thousandths * 1000);
        match self {
            Goal::AtLeast(least) => Some(amount >= of_thousandths(least)),
            Goal::AtMost(most) => Some(amount <= of_thousandths(most)),
            Goal::None => None,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Goal::AtLeast(least) => write!(formatter, ">= {}", Amount(least * 1000)),
            Goal::AtMost(most) => write!(formatter, "<= {}", Amount(most * 1000)),
            Goal::None => Ok(()),
        }
    }
}

/// One number of one figure, measured once or several times; the median counts.
pub struct Row {
    /// The figure that it belongs to.
    pub figure: &'static str,
    /// Its name for programs.
    pub key: String,
    /// Its name for people, with the unit.
    pub name: String,
    /// What it should be.
    pub goal: Goal,
    /// What was measured.
    pub rounds: Vec<Amount>,
    /// How much CPU the measured side was given in each round. May be empty.
    pub cores: Vec<Amount>,
}

/// Everything that was measured.
#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Adds a row and prints it.
    pub fn add(&mut self, row: Row) {
        let goal = match row.goal.is_met(median(&row.rounds)) {
            Some(true) => format!("  [{}: met]", row.goal),
            Some(false) => format!("  [{}: NOT met]", row.goal),
            None => String::new(),
        };
        println!("  {}: {}{goal}", row.name, median(&row.rounds));
        self.rows.push(row);
    }

    /// For people.
    pub fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["figure", "", "median", "goal", "met", "cores", "rounds"]);
        for row in &self.rows {
            let amount = median(&row.rounds);
            let met = row.goal.is_met(amount);
            table.add_row([
                row.figure.to_owned(),
                row.name.clone(),
                amount.to_string(),
                row.goal.to_string(),
                met.map_or("", |met| if met { "yes" } else { "NO" })
                    .to_owned(),
                if row.cores.is_empty() {
                    String::new()
                } else {
                    median(&row.cores).to_string()
                },
                words(&row.rounds),
            ]);
        }
        for column in table.column_iter_mut().skip(2).take(4) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    /// For programs.
    pub fn json(&self, heading: &Value) -> Value {
        let figures: Vec<Value> = self.rows.iter().map(row_json).collect();
        let mut report = heading.clone();
        report["figures"] = Value::from(figures);
        report
    }
}

/// Each round, or, of many, between what they are.
fn words(amounts: &[Amount]) -> String {
    const FEW: usize = 6;
    match (amounts.iter().min(), amounts.iter().max()) {
        (Some(least), Some(most)) if amounts.len() > FEW => {
            format!("{} from {least} to {most}", amounts.len())
        }
        _ => {
            let words: Vec<String> = amounts.iter().map(Amount::to_string).collect();
            words.join("  ")
        }
    }
}

fn row_json(row: &Row) -> Value {
    let amount = median(&row.rounds);
    let values =
        |amounts: &[Amount]| -> Vec<Value> { amounts.iter().copied().map(Amount::json).collect() };
    json!({
        "figure": row.figure,
        "key": row.key,
        "name": row.name,
        "median": amount.json(),
        "rounds": values(&row.rounds),
        "cores": values(&row.cores),
        "goal": row.goal.is_met(amount).map(|_| row.goal.to_string()),
        "met": row.goal.is_met(amount),
    })
}
