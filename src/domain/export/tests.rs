use chrono::{DateTime, NaiveDate, Utc};
use proptest::prelude::*;

use super::*;

const HEADER: [&str; 8] = [
    "transaction_id",
    "order_id",
    "amount",
    "currency",
    "status",
    "type",
    "shop",
    "created_at",
];

const ORDER: &str = "cykl-0192f0c1a2b37c4d8e5f60718293a4b5-17-2";
const TRANSACTION: &str = "7c1f3b52-5a0e-4c1d-9f2a-3d9b8f6a1e01";

pub(super) fn rules() -> Rules {
    Rules {
        shops: vec![shop("main", 1)],
        shop: None,
        settled: vec![],
        refunds: vec![],
    }
}

fn shop(name: &str, service: u128) -> Shop {
    Shop {
        name: name.parse().unwrap(),
        service_id: Uuid::from_u128(service),
        zone: chrono_tz::Europe::Warsaw,
    }
}

fn good() -> [&'static str; 8] {
    [
        TRANSACTION,
        ORDER,
        "49,00",
        "PLN",
        "Settled",
        "sale",
        "main",
        "2026-11-20 12:00:00",
    ]
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn day(text: &str) -> NaiveDate {
    text.parse().unwrap()
}

fn read(cells: &[&str]) -> Result<Row, Vec<String>> {
    read_by(&rules(), cells)
}

fn read_by(rules: &Rules, cells: &[&str]) -> Result<Row, Vec<String>> {
    rules.read(&Layout::of(&HEADER, &[], rules).unwrap(), cells)
}

fn with(place: usize, cell: &'static str) -> Result<Row, Vec<String>> {
    let mut cells = good();
    cells[place] = cell;
    read(&cells)
}

fn debit(row: Row) -> Debit {
    match row.matter {
        Matter::Debit(debit) => debit,
        Matter::Strange { .. } | Matter::ByLink(_) | Matter::Refund | Matter::Foreign => {
            panic!("{row:?}")
        }
    }
}

#[test]
fn a_debit_of_ours_is_read() {
    let row = read(&good()).unwrap();
    assert_eq!(row.shop, Some("main".parse().unwrap()));
    assert_eq!(row.created_at, Some(at("2026-11-20T11:00:00Z")));
    assert_eq!(
        debit(row),
        Debit {
            order_id: ORDER.parse().unwrap(),
            transaction_id: TRANSACTION.parse().unwrap(),
            amount_minor: 4900,
            currency: Currency::Pln,
            status: "settled".to_owned(),
            has_moved: true,
        }
    );
}

#[test]
fn only_known_words_say_that_money_moved() {
    let has_moved = |rules: &Rules, word: &str| {
        let mut cells = good();
        cells[4] = word;
        debit(read_by(rules, &cells).unwrap()).has_moved
    };
    for word in ["pending", "rejected", "settle", "Zrealizowana", "unsettled"] {
        assert!(!has_moved(&rules(), word), "{word}");
    }
    let mut rules = rules();
    rules.settled = vec!["ZREALIZOWANA".to_owned()];
    for word in ["settled", "SETTLED", " Zrealizowana "] {
        assert!(has_moved(&rules, word), "{word}");
    }
}

#[test]
fn refunds_and_payments_of_others_are_told_apart() {
    for (place, cell, matter) in [
        (5, "Refund", Matter::Refund),
        (1, "inv-1042", Matter::Foreign),
        (1, "", Matter::Foreign),
        (
            1,
            "cykl-1042",
            Matter::Strange {
                order_id: "cykl-1042".to_owned(),
                has_moved: true,
            },
        ),
    ] {
        assert_eq!(with(place, cell).unwrap().matter, matter, "{cell}");
    }
    let mut rules = rules();
    rules.refunds = vec!["Zwrot".to_owned()];
    let mut cells = good();
    cells[5] = "zwrot";
    assert_eq!(read_by(&rules, &cells).unwrap().matter, Matter::Refund);
    // What others sell is none of our business, whatever it looks like.
    let foreign = ["x", "inv-1", "-", "BTC", "", "", "elsewhere", ""];
    assert_eq!(read(&foreign).unwrap().shop, None);
}

#[test]
fn an_amount_that_could_be_read_in_two_ways_is_a_mistake() {
    for amount in ["49.00", "49,00", "049.00"] {
        assert_eq!(debit(with(2, amount).unwrap()).amount_minor, 4900);
    }
    for amount in [
        "49",
        "4900",
        "49.0",
        "49.000",
        "1 234,56",
        "1.234,56",
        "1,234.56",
        "-49.00",
        "+49.00",
        "49.00 PLN",
        ".50",
        "0.00",
        "99999999999.00",
        "٤٩.٠٠",
    ] {
        let told = with(2, amount).unwrap_err();
        assert!(told[0].starts_with("amount \""), "{told:?}");
    }
    let header = HEADER.map(|name| {
        if name == "amount" {
            "amount_minor"
        } else {
            name
        }
    });
    let layout = Layout::of(&header, &[], &rules()).unwrap();
    let read = |amount| {
        let mut cells = good();
        cells[2] = amount;
        rules().read(&layout, &cells)
    };
    assert_eq!(debit(read("4900").unwrap()).amount_minor, 4900);
    for amount in ["49.00", "-1", "0", "1000000000", "99999999999999999999"] {
        assert!(read(amount).is_err(), "{amount}");
    }
}

#[test]
fn times_are_read_in_the_zone_of_the_shop_unless_they_say_theirs() {
    for text in [
        "2026-07-20T10:00:00Z",
        "2026-07-20T12:00:00+02:00",
        "2026-07-20 12:00:00",
        "2026-07-20 12:00",
        "2026-07-20T12:00",
        "20.07.2026 12:00:00",
        "20.07.2026 12:00",
        "1784541600",
    ] {
        let read = with(7, text).unwrap().created_at;
        assert_eq!(read, Some(at("2026-07-20T10:00:00Z")), "{text}");
    }
    let midnight = with(7, "2026-07-20").unwrap().created_at;
    assert_eq!(midnight, Some(at("2026-07-19T22:00:00Z")));
    // The hour that no clock showed.
    let gap = with(7, "2026-03-29 02:30").unwrap().created_at;
    assert_eq!(gap, Some(at("2026-03-29T01:00:00Z")));
    assert_eq!(with(7, "").unwrap().created_at, None);
    for text in [
        "soon",
        "07/20/2026",
        "20-07-2026",
        "2026-02-30",
        "1784541600000",
        "0001-01-01",
    ] {
        assert!(with(7, text).is_err(), "{text}");
    }
}

#[test]
fn everything_that_is_wrong_with_a_row_is_told_at_once() {
    let cells = ["7c1f", ORDER, "49", "JPY", "", "sale", "other", "soon"];
    let told = read(&cells).unwrap_err();
    let columns: Vec<_> = told
        .iter()
        .map(|told| told.split(' ').next().unwrap())
        .collect();
    let expected = [
        "shop",
        "created_at",
        "status",
        "transaction_id",
        "amount",
        "currency",
    ];
    assert_eq!(columns, expected, "{told:?}");
}

#[test]
fn shops_are_told_apart_by_name_or_service() {
    let mut rules = rules();
    rules.shops.push(shop("second", 2));
    let mut cells = good();
    cells[6] = "second";
    let second = Some("second".parse().unwrap());
    assert_eq!(read_by(&rules, &cells).unwrap().shop, second);
    cells[6] = "00000000-0000-0000-0000-000000000002";
    assert!(read_by(&rules, &cells).is_err());
    let header = HEADER.map(|name| if name == "shop" { "service_id" } else { name });
    let layout = Layout::of(&header, &[], &rules).unwrap();
    assert_eq!(rules.read(&layout, &cells).unwrap().shop, second);
    rules.shop = Some("main".parse().unwrap());
    cells[6] = "Sklep w Gdyni";
    let said = rules.read(&layout, &cells).unwrap().shop;
    assert_eq!(said, rules.shop);
}

#[test]
fn an_export_counts_what_it_is_made_of() {
    let mut export = Export::default();
    let mut line = 1;
    let mut add = |place, cell| {
        line += 1;
        export.add(line, with(place, cell).unwrap())
    };
    for (place, cell) in [
        (7, "2026-11-01"),
        (4, "rejected"),
        (4, "SETTLED"),
        (5, "refund"),
        (1, "inv-1"),
        (1, "cykl-1"),
        (7, ""),
    ] {
        add(place, cell).unwrap();
    }
    assert_eq!((export.rows, export.refunds, export.foreign), (7, 1, 1));
    let lines: Vec<_> = export.entries.iter().map(|entry| entry.line).collect();
    assert_eq!(lines, [2, 3, 4, 8]);
    let words = export.statuses.iter();
    let words: Vec<_> = words
        .map(|status| (status.word.as_str(), status.has_moved, status.count))
        .collect();
    assert_eq!(words, [("settled", true, 3), ("rejected", false, 1)]);
    assert_eq!(export.strangers[0].line, 7);
    let span = Span {
        from: at("2026-10-31T23:00:00Z"),
        to: at("2026-11-20T11:00:00Z"),
    };
    let spans: Vec<_> = export.spans.into_values().collect();
    assert_eq!(spans, [Some(span)]);
}

#[test]
fn a_column_of_anything_is_not_taken_for_the_status() {
    let mut export = Export::default();
    let told = (0..).find_map(|number| {
        let word = format!("word {number}");
        let mut cells = good();
        cells[4] = &word;
        export.add(number, read(&cells).unwrap()).err()
    });
    assert!(told.unwrap().contains("--column status=HEADER"));
    assert_eq!(export.statuses.len(), STATUSES_MAX);
}

#[test]
fn nothing_is_missed_at_the_edges_of_what_is_covered() {
    let mut export = Export::default();
    let days = |from: &str, to: &str| Days {
        from: Some(day(from)),
        to: Some(day(to)),
    };
    let main = || "main".parse().unwrap();
    let said = days("2026-11-01", "2026-11-30");
    let empty = coverage(&export, &rules(), said).unwrap();
    assert_eq!(
        empty,
        [Coverage {
            shop: main(),
            covered: Span {
                from: at("2026-10-31T23:00:00Z"),
                to: at("2026-11-30T23:00:00Z"),
            },
            complete: Span {
                from: at("2026-11-01T23:00:00Z"),
                to: at("2026-11-29T23:00:00Z"),
            },
        }]
    );
    let unsaid = || Days::default();
    let undated = coverage(&export, &rules(), unsaid());
    assert_eq!(undated, Err(CoverageError::Undated(main())));
    let two_days = days("2026-11-01", "2026-11-02");
    let short = coverage(&export, &rules(), two_days);
    assert!(matches!(short, Err(CoverageError::TooShort(..))));
    let backwards = coverage(&export, &rules(), days("2026-11-30", "2026-11-01"));
    assert!(matches!(backwards, Err(CoverageError::TooShort(..))));
    for (line, created_at) in [(2, "2026-11-01"), (3, "2026-11-20")] {
        export.add(line, with(7, created_at).unwrap()).unwrap();
    }
    let dated = coverage(&export, &rules(), unsaid()).unwrap();
    assert_eq!(dated[0].complete.to, at("2026-11-18T23:00:00Z"));
    let mut several = rules();
    several.shops.push(shop("second", 2));
    assert_eq!(coverage(&export, &several, unsaid()).unwrap(), dated);
    let nobody = coverage(&Export::default(), &several, said);
    assert_eq!(nobody, Err(CoverageError::NoShop));
}

proptest! {
    #[test]
    fn no_row_makes_reading_panic(cells in prop::collection::vec(any::<String>(), 8), place in 0..8usize) {
        let mut row: Vec<&str> = good().to_vec();
        row[place] = &cells[place];
        let _ours = read(&row);
        let _all = read(&cells.iter().map(String::as_str).collect::<Vec<_>>());
    }

    #[test]
    fn a_written_amount_is_read_back(minor in 1..=999_999_999i64) {
        let written = format!("{},{:02}", minor / 100, minor % 100);
        let mut cells = good();
        cells[2] = &written;
        prop_assert_eq!(debit(read(&cells).unwrap()).amount_minor, minor);
    }
}
