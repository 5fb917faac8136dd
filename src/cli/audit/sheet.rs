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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::domain::export::Shop;

    const HEADER: &str = "transaction_id,order_id,amount_minor,currency,status,payer";
    const ROW: &str = "7c1f3b52-5a0e-4c1d-9f2a-3d9b8f6a1e01,cykl-0192f0c1a2b37c4d8e5f60718293a4b5-17-2,4900,PLN,settled,a";

    fn read(bytes: &[u8]) -> Sheet {
        let rules = Rules {
            shops: vec![Shop {
                name: "main".parse().unwrap(),
                service_id: Uuid::nil(),
                zone: chrono_tz::Europe::Warsaw,
            }],
            shop: None,
            settled: vec![],
            refunds: vec![],
        };
        Sheet::read(bytes, &rules, &[])
    }

    #[test]
    fn the_first_line_says_what_sets_the_cells_apart() {
        for (line, is) in [
            ("a,b", b','),
            ("a;b", b';'),
            ("a;\"b, c\";d\n,,,,", b';'),
            ("\r\n\na;b", b';'),
            ("a", b','),
            ("", b','),
        ] {
            assert_eq!(separator(line.as_bytes()), is, "{line:?}");
        }
    }

    #[test]
    fn rows_are_kept_with_their_line() {
        let row = ROW.replace(",a", ",\"a\nb\"");
        let file = format!("\n{HEADER}\n{ROW}\n\n,,,,,\n{row}\n{ROW}");
        let sheet = read(file.as_bytes());
        assert_eq!(sheet.faults, []);
        let entries = sheet.export.entries.iter();
        let lines: Vec<_> = entries.map(|entry| entry.line).collect();
        assert_eq!(lines, [3, 6, 8]);
    }

    #[test]
    fn a_header_alone_is_an_export_without_transactions() {
        let sheet = read(HEADER.as_bytes());
        assert_eq!((sheet.export, sheet.faults), (Export::default(), vec![]));
    }

    proptest! {
        #[test]
        fn no_cell_makes_reading_panic_or_repeat_a_card_number(
            cell in prop_oneof![any::<String>(), "[\",\r\n;a-z0-9]{0,30}", ".{0,5}4111111111111111.{0,5}"],
            place in 0..6usize,
        ) {
            let mut cells: Vec<&str> = ROW.split(',').collect();
            cells[place] = &cell;
            for told in read(format!("{HEADER}\n{}\n{ROW}\n", cells.join(",")).as_bytes()).faults {
                prop_assert!(!looks_like_card_number(&told.told), "{}", told);
            }
        }
    }
}
