//! Results on standard output, as a table for people, JSON for programs or CSV for spreadsheets.
//!
//! JSON has every field, named as the columns of the SQL views; so has CSV. A table shows the fields that fit a terminal. A
//! reader that goes away (`| head`) is no error.

use std::io::{self, ErrorKind, IsTerminal, Write};

use chrono::{DateTime, SecondsFormat, Utc};
use clap::{Args, ValueEnum};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::Value;

use crate::cli::CliError;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub struct OutputArgs {
    /// How to print the result
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    pub output: Format,
}

/// A form of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// For programs: every field
    Json,
    /// For spreadsheets (RFC 4180): every field
    Csv,
}

/// Something that is listed.
pub trait Row: Serialize {
    /// Every field as serialised, in order.
    const FIELDS: &'static [&'static str];
    /// The fields that a table shows.
    const SHOWN: &'static [&'static str];
}

/// Prints a list: JSON as an array, CSV with a header.
///
/// # Errors
/// [`CliError`] when standard output cannot be written to.
pub fn list<R: Row>(format: Format, rows: &[R]) -> Result<(), CliError> {
    match format {
        Format::Table => write(table(rows, width())?.as_bytes()),
        Format::Json => json(&rows),
        Format::Csv => write(&csv(rows)?),
    }
}

/// Prints one thing as a JSON object.
///
/// # Errors
/// [`CliError`] when standard output cannot be written to.
pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<(), CliError> {
    let mut text = serde_json::to_vec_pretty(value).map_err(CliError::internal)?;
    text.push(b'\n');
    write(&text)
}

/// Writes to standard output.
///
/// # Errors
/// [`CliError`] when that fails, except because nobody reads any more.
pub fn write(bytes: &[u8]) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(CliError::internal(error).context("couldn't write to standard output"))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The columns of the terminal; `None` when standard output is not one, so that lines are never broken.
pub fn width() -> Option<u16> {
    if !io::stdout().is_terminal() {
        return None;
    }
    terminal_size::terminal_size().map(|(width, _)| width.0)
}

/// Rows as an aligned table that ends with a line break; just the header when there are none.
///
/// # Errors
/// [`CliError`] when a row cannot be serialised, which is a fault in this program.
pub fn table<R: Row>(rows: &[R], width: Option<u16>) -> Result<String, CliError> {
    let mut table = plain_table(width);
    table.set_header(R::SHOWN.to_vec());
    for row in rows {
        let cells = cells(row, R::SHOWN)?;
        table.add_row(
            cells
                .iter()
                .map(|value| visible(&text(value)))
                .collect::<Vec<_>>(),
        );
    }
    Ok(lines(&table))
}

/// One thing as lines of field and value, for people.
///
/// # Errors
/// As [`table`].
pub fn fields<R: Row>(row: &R, width: Option<u16>) -> Result<String, CliError> {
    let mut table = plain_table(width);
    for (field, value) in R::FIELDS.iter().zip(cells(row, R::FIELDS)?) {
        if value != Value::Null {
            table.add_row([(*field).to_owned(), visible(&text(&value))]);
        }
    }
    Ok(lines(&table))
}

/// An instant as people read it in a sentence: to the second.
pub fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn plain_table(width: Option<u16>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if let Some(width) = width {
        table
            .set_width(width)
            .set_content_arrangement(ContentArrangement::Dynamic);
    }
    table
}

fn lines(table: &Table) -> String {
    table
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

/// Rows as RFC 4180, with a header.
fn csv<R: Row>(rows: &[R]) -> Result<Vec<u8>, CliError> {
    let mut writer = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
    writer.write_record(R::FIELDS).map_err(CliError::internal)?;
    for row in rows {
        let cells = cells(row, R::FIELDS)?;
        writer
            .write_record(cells.iter().map(guarded))
            .map_err(CliError::internal)?;
    }
    writer
        .into_inner()
        .map_err(|error| CliError::internal(error.into_error()))
}

fn cells<R: Row>(row: &R, fields: &[&str]) -> Result<Vec<Value>, CliError> {
    let Value::Object(mut values) = serde_json::to_value(row).map_err(CliError::internal)? else {
        return Err(CliError::internal(anyhow::anyhow!(
            "a row is not made of fields"
        )));
    };
    fields
        .iter()
        .map(|field| {
            values
                .remove(*field)
                .ok_or_else(|| CliError::internal(anyhow::anyhow!("a row has no field {field}")))
        })
        .collect()
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// A text that cannot move the cursor, colour the terminal or break the line: it may come from a shop's import.
pub fn visible(text: &str) -> String {
    text.chars()
        .map(|letter| {
            if letter.is_control() {
                '\u{fffd}'
            } else {
                letter
            }
        })
        .collect()
}

/// A cell that no spreadsheet takes for a formula (OWASP, "CSV Injection"). Numbers are left alone.
fn guarded(value: &Value) -> String {
    let cell = text(value);
    let is_formula = value.is_string() && cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
    if is_formula { format!("'{cell}") } else { cell }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Sample {
        name: &'static str,
        amount_minor: i64,
        note: Option<&'static str>,
    }

    impl Row for Sample {
        const FIELDS: &'static [&'static str] = &["name", "amount_minor", "note"];
        const SHOWN: &'static [&'static str] = &["name", "amount_minor"];
    }

    fn samples() -> [Sample; 2] {
        [
            Sample {
                name: "=cmd|' /C calc'!A0",
                amount_minor: -5,
                note: None,
            },
            Sample {
                name: "Jan, \"Kowal\"",
                amount_minor: 1999,
                note: Some("two\nlines\u{1b}[31m"),
            },
        ]
    }

    #[test]
    fn a_spreadsheet_gets_every_field_and_no_formula() {
        let csv = String::from_utf8(csv(&samples()).unwrap()).unwrap();
        assert_eq!(
            csv,
            "name,amount_minor,note\r\n\
             '=cmd|' /C calc'!A0,-5,\r\n\
             \"Jan, \"\"Kowal\"\"\",1999,\"two\nlines\u{1b}[31m\"\r\n"
        );
    }

    #[test]
    fn a_table_shows_its_columns_and_ends_each_line_at_its_text() {
        let table = table(&samples(), None).unwrap();
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].contains("name") && lines[0].ends_with("amount_minor"));
        assert!(lines[2].ends_with("1999"));
    }

    #[test]
    fn a_table_fits_the_terminal() {
        let table = table(&samples(), Some(24)).unwrap();
        assert!(
            table.lines().all(|line| line.chars().count() <= 24),
            "{table}"
        );
    }

    #[test]
    fn what_is_not_known_is_left_out_and_control_characters_are_not_passed_on() {
        let [unknown, known] = samples();
        assert!(!fields(&unknown, None).unwrap().contains("note"));
        let shown = fields(&known, None).unwrap();
        assert!(
            shown.contains("note") && !shown.contains('\u{1b}'),
            "{shown}"
        );
    }
}
