//! Reading a CSV file of subscriptions: RFC 4180, UTF-8, a header in any order.
//!
//! Every mistake in the file is found, each with its line. What is right is handed on in parts while the rest is being read. The file
//! itself is kept in memory; it may not be larger than [`BYTES_MAX`](crate::cli::records::BYTES_MAX).

use crate::cli::records::{Fault, Record, Records, without_mark};
use crate::domain::enrolment::{
    Circumstances, Column, Fields, NewSubscription, Roll, enrol, shown,
};
use crate::store::enrolment::BATCH;

/// Some of the subscriptions of a file, at most [`BATCH`] of them.
#[derive(Debug, Default)]
pub struct Part {
    /// The subscriptions.
    pub subscriptions: Vec<NewSubscription>,
    /// The line of each.
    pub lines: Vec<u64>,
}

/// What is known of a file when all of it is read.
#[derive(Debug, Default)]
pub struct Sheet {
    /// How many cards its subscriptions are charged to.
    pub cards: usize,
    /// Everything that is wrong, by line.
    pub faults: Vec<Fault>,
}

impl Sheet {
    /// Reads a file. `progress` hears how many bytes are read. `take` gets its subscriptions, up to the first mistake at most; then
    /// only mistakes are looked for. A file without any subscription has a mistake.
    pub fn read(
        bytes: &[u8],
        circumstances: &Circumstances,
        progress: impl Fn(usize),
        mut take: impl FnMut(Part),
    ) -> Self {
        let mut sheet = Self::default();
        let mut records = Records::new(without_mark(bytes), b',');
        let Some(header) = records.advance() else {
            let names = Column::ALL.map(Column::name).join(", ");
            sheet.fault(
                1,
                format!("the file is empty; its first line names the columns: {names}"),
            );
            return sheet;
        };
        let columns = match header.texts() {
            Ok(names) => columns(&names),
            Err(told) => Err(vec![told]),
        };
        let columns = match columns {
            Ok(columns) => columns,
            Err(faults) => {
                for told in faults {
                    sheet.fault(header.line, told);
                }
                return sheet;
            }
        };
        let header_line = header.line;
        let mut roll = Roll::default();
        let mut part = Part::default();
        let mut count = 0;
        while let Some(record) = records.advance() {
            progress(record.end);
            let subscription = sheet.row(&record, &columns, circumstances, &mut roll);
            let Some(subscription) = subscription.filter(|_| sheet.faults.is_empty()) else {
                continue;
            };
            count += 1;
            part.subscriptions.push(subscription);
            part.lines.push(record.line);
            if part.lines.len() == BATCH {
                take(std::mem::take(&mut part));
            }
        }
        if sheet.faults.is_empty() && count == 0 {
            sheet.fault(
                header_line,
                "no subscription stands below the header".to_owned(),
            );
        }
        sheet.cards = roll.cards();
        if sheet.faults.is_empty() && !part.lines.is_empty() {
            take(part);
        }
        sheet
    }

    /// The subscription in a row, unless it is empty or wrong.
    fn row(
        &mut self,
        record: &Record<'_>,
        columns: &[Column],
        circumstances: &Circumstances,
        roll: &mut Roll,
    ) -> Option<NewSubscription> {
        let texts = match record.texts() {
            Ok(texts) => texts,
            Err(told) => {
                self.fault(record.line, told);
                return None;
            }
        };
        if texts.iter().all(|text| text.is_empty()) {
            return None;
        }
        if texts.len() != columns.len() {
            let told = record.wrong_length(texts.len(), columns.len());
            self.fault(record.line, told);
            return None;
        }
        let fields: Fields<'_> = columns.iter().copied().zip(texts).collect();
        let twins = roll.enter(record.line, &fields, circumstances);
        let (subscription, mistakes) = match enrol(&fields, circumstances) {
            Ok(subscription) if twins.is_empty() => (Some(subscription), Vec::new()),
            Ok(_) => (None, Vec::new()),
            Err(mistakes) => (None, mistakes),
        };
        for mistake in mistakes.iter().chain(&twins) {
            self.fault(record.line, mistake.to_string());
        }
        subscription
    }

    fn fault(&mut self, line: u64, told: String) {
        self.faults.push(Fault { line, told });
    }
}

/// The columns of a header, or everything that is wrong with it.
fn columns(names: &[&str]) -> Result<Vec<Column>, Vec<String>> {
    if let [name] = names
        && let Some(separator) = [(';', "semicolons"), ('\t', "tabs")]
            .iter()
            .find_map(|(letter, word)| name.contains(*letter).then_some(word))
    {
        return Err(vec![format!(
            "the columns are separated by {separator}; separate them with commas"
        )]);
    }
    let mut faults = Vec::new();
    let mut columns = Vec::new();
    for name in names {
        match Column::named(name) {
            Some(column) if columns.contains(&column) => {
                faults.push(format!("the column {column} stands in the header twice"));
            }
            Some(column) => columns.push(column),
            None => faults.push(unknown(name)),
        }
    }
    for column in Column::REQUIRED {
        if !columns.contains(&column) {
            faults.push(format!("the header lacks the column {column}"));
        }
    }
    if !Column::CARD_KEYS.iter().any(|key| columns.contains(key)) {
        let [profile, first_transaction] = Column::CARD_KEYS;
        faults.push(format!(
            "the header lacks the column {profile}, or {first_transaction} for cards without a profile"
        ));
    }
    if faults.is_empty() {
        Ok(columns)
    } else {
        Err(faults)
    }
}

fn unknown(name: &str) -> String {
    /// No column has a name that is nearly as long.
    const LENGTH_MAX: usize = 60;
    let Some(shown) = shown(name) else {
        return "a column of the header looks like a card number; allowed: no card numbers anywhere"
            .to_owned();
    };
    let near = Column::nearest(name).filter(|_| name.len() <= LENGTH_MAX);
    match near {
        Some(near) if !name.is_empty() => {
            format!("there is no column {shown}; the nearest one is {near}")
        }
        Some(_) | None => format!(
            "there is no column {shown}; allowed: {}",
            Column::ALL.map(Column::name).join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::cli::records::BYTE_ORDER_MARK;
    use crate::domain::card_number::looks_like_card_number;

    const HEADER: &str =
        "external_id,cid,payment_profile_id,amount_minor,currency,period,anchor_date,title";

    fn circumstances() -> Circumstances {
        Circumstances {
            shops: [("main".parse().unwrap(), chrono_tz::Europe::Warsaw)].into(),
            usual_shop: Some("main".parse().unwrap()),
            channels: BTreeMap::new(),
            plain_cards: BTreeSet::new(),
            has_card_proxy: false,
            is_without_card: false,
            now: "2026-11-20T12:00:00Z".parse().unwrap(),
        }
    }

    fn row(number: u32) -> String {
        format!(
            "sub-{number},cus-{number},c0de0b1e-1111-4222-8333-{number:012},1999,PLN,P1M,2027-01-31,Abonament"
        )
    }

    /// What a file says before its first mistake, and its mistakes.
    fn read(file: &[u8]) -> (Part, Sheet) {
        let mut all = Part::default();
        let sheet = Sheet::read(
            file,
            &circumstances(),
            |_| {},
            |part| {
                assert!((1..=BATCH).contains(&part.lines.len()));
                all.subscriptions.extend(part.subscriptions);
                all.lines.extend(part.lines);
            },
        );
        (all, sheet)
    }

    fn faults(file: &[u8]) -> Vec<String> {
        let (_, sheet) = read(file);
        sheet.faults.iter().map(ToString::to_string).collect()
    }

    fn file(rows: &[&str]) -> Vec<u8> {
        format!("{HEADER}\n{}\n", rows.join("\n")).into_bytes()
    }

    #[test]
    fn lines_are_counted_whatever_ends_them() {
        for end in ["\n", "\r\n", "\r"] {
            let file_with = |second: &str| {
                let lines = [
                    "",
                    HEADER,
                    "",
                    "",
                    &row(0),
                    ",,,,,,,",
                    second,
                    &row(2).replace("Abonament", "\"Abonament\""),
                    "",
                    &row(3),
                ];
                [BYTE_ORDER_MARK, lines.join(end).as_bytes()].concat()
            };
            let (part, sheet) = read(&file_with(&row(1)));
            assert_eq!(part.lines, [5, 7, 8, 10], "{end:?}");
            assert_eq!((sheet.cards, sheet.faults), (4, vec![]), "{end:?}");
            let broken = row(1).replace("Abonament", &format!("\"A{end}B\""));
            let bad_after_it = file_with(&format!("{broken}{end}{}", row(4).replace("PLN", "JPY")));
            let told = faults(&bad_after_it);
            assert_eq!(told.len(), 2, "{end:?}");
            assert!(told[0].starts_with("line 7: title \"A"), "{end:?}");
            assert!(told[1].starts_with("line 9: currency "), "{end:?}");
        }
    }

    #[test]
    fn a_header_may_stand_in_any_order_and_is_complete() {
        let swapped = "currency,external_id,cid,payment_profile_id,amount_minor,period,anchor_date\n\
             PLN,a,b,c0de0b1e-1111-4222-8333-9a4b5c6d7e8f,1,P1W,2027-01-01";
        assert_eq!(read(swapped.as_bytes()).0.subscriptions.len(), 1);
        assert_eq!(
            faults(b"external_id,cid,cid,amount,currency,period,4111111111111111,\n"),
            [
                "line 1: the column cid stands in the header twice",
                "line 1: there is no column \"amount\"; the nearest one is amount_minor",
                "line 1: a column of the header looks like a card number; allowed: no card numbers anywhere",
                "line 1: there is no column \"\"; allowed: external_id, cid, payment_profile_id, first_transaction_id, \
                 customer, card, amount_minor, currency, period, anchor_date, shop, title, starts_on, ends_on, max_charges, paid_until, \
                 timezone, notification_url, invoice, multipayout",
                "line 1: the header lacks the column amount_minor",
                "line 1: the header lacks the column anchor_date",
                "line 1: the header lacks the column payment_profile_id, or first_transaction_id for cards without a profile",
            ]
        );
        assert_eq!(
            faults(b"external_id;cid;currency\na;b;c\n"),
            ["line 1: the columns are separated by semicolons; separate them with commas"]
        );
    }

    #[test]
    fn a_file_with_nothing_in_it_is_refused() {
        for empty in [b"".as_slice(), b"\n\r\n", BYTE_ORDER_MARK] {
            assert!(
                faults(empty)[0].starts_with("line 1: the file is empty; its first line names"),
                "{empty:?}"
            );
        }
        assert_eq!(
            faults(HEADER.as_bytes()),
            ["line 1: no subscription stands below the header"]
        );
    }

    #[test]
    fn a_row_of_another_length_is_refused() {
        assert_eq!(
            faults(&file(&[
                "a,b,c",
                &row(1),
                &format!("{},x", row(2)),
                "\"a,b"
            ])),
            [
                "line 2: has 3 fields and the header 8; a text with a comma stands in quotation marks",
                "line 4: has 9 fields and the header 8; a text with a comma stands in quotation marks",
                "line 5: has 1 fields and the header 8; a quotation mark is not closed",
            ]
        );
    }

    #[test]
    fn a_byte_that_is_not_utf8_is_found() {
        let mut bytes = file(&[&row(1)]);
        bytes.extend(b"sub-2,ab\xb3,");
        assert_eq!(
            faults(&bytes),
            ["line 3: byte 9 is 0xb3, which is not UTF-8; save the file as UTF-8"]
        );
        assert_eq!(
            faults(b"\xff\xfee\0x\0"),
            ["line 1: byte 1 is 0xff, which is not UTF-8; save the file as UTF-8"]
        );
    }

    #[test]
    fn rows_that_contradict_each_other_are_found_among_other_mistakes() {
        let negative = row(1).replace("1999", "-5");
        let found = faults(&file(&[&row(1), &negative]));
        assert_eq!(
            found,
            [
                "line 3: amount_minor \"-5\" is out of range; allowed: 1 to 999999999, in minor units: 1999 is 19.99",
                "line 3: external_id \"sub-1\" stands in line 2 already; allowed: each external_id once per shop",
            ]
        );
    }

    #[test]
    fn every_bad_line_is_told_and_nothing_is_handed_on_after_it() {
        let bad = |number| row(number).replace("PLN", "JPY").replace("P1M", "P2Y");
        let (part, sheet) = read(&file(&[&row(1), &bad(2), &row(3), &bad(4)]));
        assert!(part.lines.is_empty());
        let lines: Vec<u64> = sheet.faults.iter().map(|fault| fault.line).collect();
        assert_eq!(lines, [3, 3, 5, 5]);
    }

    #[test]
    fn what_is_right_is_handed_on_in_parts_until_a_mistake() {
        let count = u32::try_from(BATCH).unwrap();
        let rows: Vec<String> = (0..count + 2).map(row).collect();
        let mut rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        let (all, sheet) = read(&file(&rows));
        assert_eq!((all.lines.len(), sheet.cards), (BATCH + 2, BATCH + 2));
        let twin = row(0);
        rows.push(&twin);
        let (all, sheet) = read(&file(&rows));
        assert_eq!((all.lines.len(), sheet.faults.len()), (BATCH, 1));
    }

    proptest! {
        #[test]
        fn no_cell_makes_reading_panic_or_repeat_a_card_number(
            cell in prop_oneof![any::<String>(), "[\",\r\n;a-z0-9]{0,30}", ".{0,5}4111111111111111.{0,5}"],
            place in 0..8usize,
        ) {
            let good = row(1);
            let mut cells: Vec<&str> = good.split(',').collect();
            cells[place] = &cell;
            for bytes in [file(&[&cells.join(","), &row(2)]), file(&[&format!("\"{cell}\",")])] {
                for told in faults(&bytes) {
                    prop_assert!(!looks_like_card_number(&told), "{}", told);
                }
            }
        }

        #[test]
        fn no_file_makes_reading_panic(bytes in any::<Vec<u8>>(), rest in any::<Vec<u8>>()) {
            read(&bytes);
            let mut headed = format!("{HEADER}\n").into_bytes();
            headed.extend(&rest);
            let (part, sheet) = read(&headed);
            prop_assert_eq!(part.lines.len(), part.subscriptions.len());
            let rows = part.lines.len() + sheet.faults.len();
            prop_assert!(rows > 0);
        }
    }
}
