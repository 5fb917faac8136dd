//! Reading a CSV file of imoje's transactions: UTF-8, separated by commas or semicolons, with a header.
//!
//! Every mistake in the file is found, each with its line. The file itself is kept in memory while it is read; it may not be larger
//! than [`BYTES_MAX`](crate::cli::records::BYTES_MAX).

use crate::cli::records::{Fault, Record, Records, without_mark};
use crate::domain::card_number::looks_like_card_number;
use crate::domain::export::{Column, Export, Layout, Mapping, Rules};

/// What a file says, and everything that is wrong with it, by line. What it says is worth nothing while something is wrong.
#[derive(Debug, Default)]
pub struct Sheet {
    /// What it says.
    pub export: Export,
    /// Everything that is wrong.
    pub faults: Vec<Fault>,
}

impl Sheet {
    /// Reads a file. A file without any row is right: there are shops and weeks without transactions.
    pub fn read(bytes: &[u8], rules: &Rules, mappings: &[Mapping]) -> Self {
        let mut sheet = Self::default();
        let bytes = without_mark(bytes);
        let mut records = Records::new(bytes, separator(bytes));
        let Some(header) = records.advance() else {
            let names = Column::ALL.map(Column::name).join(", ");
            let told =
                format!("the file is empty; its first line names the columns, some of: {names}");
            sheet.fault(1, told);
            return sheet;
        };
        let layout = match header.texts() {
            Ok(names) => Layout::of(&names, mappings, rules),
            Err(told) => Err(vec![told]),
        };
        let line = header.line;
        let layout = match layout {
            Ok(layout) => layout,
            Err(faults) => {
                sheet
                    .faults
                    .extend(faults.into_iter().map(|told| Fault { line, told }));
                return sheet;
            }
        };
        while let Some(record) = records.advance() {
            sheet.row(&record, &layout, rules);
        }
        sheet
    }

    fn row(&mut self, record: &Record<'_>, layout: &Layout, rules: &Rules) {
        let cells = match record.texts() {
            Ok(cells) => cells,
            Err(told) => return self.fault(record.line, told),
        };
        if cells.iter().all(|cell| cell.trim().is_empty()) {
            return;
        }
        if cells.len() != layout.width() {
            let told = record.wrong_length(cells.len(), layout.width());
            return self.fault(record.line, told);
        }
        let card = (1..)
            .zip(&cells)
            .find(|(_, cell)| looks_like_card_number(cell));
        if let Some((place, _)) = card {
            let told = format!(
                "field {place} looks like a card number, and those never enter Cykl; take that column out of the file"
            );
            return self.fault(record.line, told);
        }
        match rules.read(layout, &cells) {
            Ok(row) => {
                if let Err(told) = self.export.add(record.line, row) {
                    self.fault(record.line, told);
                }
            }
            Err(faults) => {
                for told in faults {
                    self.fault(record.line, told);
                }
            }
        }
    }

    fn fault(&mut self, line: u64, told: String) {
        self.faults.push(Fault { line, told });
    }
}

/// What sets the cells apart: of comma and semicolon the one that the first line has more of.
fn separator(bytes: &[u8]) -> u8 {
    let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let begin = bytes
        .iter()
        .position(|byte| !is_end(byte))
        .unwrap_or(bytes.len());
    let lines = &bytes[begin..];
    let end = lines.iter().position(is_end).unwrap_or(lines.len());
    let count = |letter| lines[..end].iter().filter(|byte| **byte == letter).count();
    if count(b';') > count(b',') {
        b';'
    } else {
        b','
    }
}
