//! The report at the end of the demo.

use std::time::Duration;

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};

use super::comparison::Comparison;
use crate::domain::money::format_minor;
use crate::store::report::Figures;

/// Prints what was charged, and whether the books agree with the ledger.
pub(super) fn print(figures: &Figures, comparison: &Comparison, unplanned: i64, took: Duration) {
    println!("\n{}", summary(figures));
    println!("\n{}", compared(comparison, unplanned));
    let verdict = if comparison.agrees() && unplanned == 0 {
        "The books and the gateway's ledger agree: nobody was charged twice, and nothing was forgotten."
    } else {
        "THE BOOKS AND THE GATEWAY'S LEDGER DIFFER."
    };
    println!("\n{verdict}  ({} s)", took.as_secs());
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    table
}

fn summary(figures: &Figures) -> Table {
    let mut rows: Vec<(String, String)> = vec![
        (
            "charges that fell due".to_owned(),
            figures.charges.to_string(),
        ),
        ("  charged".to_owned(), figures.paid.to_string()),
        (
            "  of these recovered by retries".to_owned(),
            figures.recovered.to_string(),
        ),
        (
            "  still open (retry or person)".to_owned(),
            figures.open.to_string(),
        ),
        ("  given up".to_owned(), figures.failed.to_string()),
        ("debits sent".to_owned(), figures.attempts.to_string()),
        ("  declined".to_owned(), figures.declined.to_string()),
    ];
    rows.extend(figures.collected.iter().map(|collected| {
        (
            format!("collected in {}", collected.currency),
            format!(
                "{} in {}",
                format_minor(collected.minor, collected.currency),
                collected.charges
            ),
        )
    }));
    let named = |what: &str, list: &[(String, i64)]| -> Vec<(String, String)> {
        if list.is_empty() {
            return vec![(what.to_owned(), "0".to_owned())];
        }
        list.iter()
            .map(|(name, count)| {
                (
                    format!("{what}: {}", name.replace('_', " ")),
                    count.to_string(),
                )
            })
            .collect()
    };
    rows.extend(named("deactivated", &figures.deactivated));
    rows.extend(named("in doubt", &figures.doubts));
    let mut table = table();
    table.set_header(["what was billed", ""]);
    for (name, value) in rows {
        table.add_row([name, value]);
    }
    right_aligned(table)
}

fn compared(comparison: &Comparison, unplanned: i64) -> Table {
    let mut table = table();
    table.set_header(["our books beside the gateway's ledger", ""]);
    for (name, value) in [
        (
            "movements of money in our books",
            comparison.ours.to_string(),
        ),
        (
            "movements of money in the ledger",
            comparison.theirs.to_string(),
        ),
        (
            "double: periods charged twice",
            comparison.double.to_string(),
        ),
        ("lost: only the gateway knows", comparison.lost.to_string()),
        ("invented: only we know", comparison.invented.to_string()),
        (
            "different order, amount or currency",
            comparison.different.to_string(),
        ),
        ("order ids sent twice", comparison.sent_twice.to_string()),
        ("due periods without a charge", unplanned.to_string()),
    ] {
        table.add_row([name.to_owned(), value]);
    }
    right_aligned(table)
}

fn right_aligned(mut table: Table) -> Table {
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
