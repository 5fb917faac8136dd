//! `cykl subscription import` and `add`.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::generator::{HEADER, file, file_of, profile, row};
use crate::harness::Desk;

#[tokio::test]
async fn a_good_file_is_stored_and_summed_up() {
    let desk = Desk::new().await;
    let shared = format!("sub-9,cus-0,{},500,EUR,P1W,2026-11-21", profile(0));
    let ended = desk.import(file_of([row(0).as_str(), &row(1), "", &shared]), &[]);
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
    assert_eq!(
        ended.out,
        "stored 3 subscriptions on 2 cards (2 new)\nfirst due date: 2026-11-21\n"
    );
    let stored = desk
        .column(
            "SELECT concat_ws(' ', external_id, shop, status, cid, amount_minor, currency, period, timezone, next_charge_on,
                              to_char(next_due_at AT TIME ZONE 'UTC', 'HH24:MI'))
             FROM billing.subscriptions ORDER BY external_id",
        )
        .await;
    assert_eq!(
        stored,
        [
            "sub-0 main active cus-0 1999 PLN P1M Europe/Warsaw 2027-01-31 05:00",
            "sub-1 main active cus-1 1999 PLN P1M Europe/Warsaw 2027-01-31 05:00",
            "sub-9 main active cus-0 500 EUR P1W Europe/Warsaw 2026-11-21 05:00",
        ]
    );
    let told = desk
        .column("SELECT concat_ws(' ', kind, sequence_no, payload ->> 'actor', payload ->> 'reason') FROM events")
        .await;
    assert_eq!(told.len(), 3);
    let told = &told[0];
    assert!(
        told.starts_with("subscription.created 1 tester import of "),
        "{told}"
    );
    assert_eq!(desk.count("outbox").await, 0);
    assert_eq!(desk.count("charges").await, 0);
}

#[tokio::test]
async fn a_dry_run_checks_everything_and_stores_nothing() {
    let desk = Desk::new().await;
    let ended = desk.import(file(2), &["--dry-run"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert_eq!(
        ended.out,
        "would store 2 subscriptions on 2 cards\nfirst due date: 2027-01-31\n"
    );
    desk.assert_empty().await;
    assert_eq!(desk.import(file(1), &[]).code, 0);
    let again = desk.import(file(2), &["--dry-run"]);
    assert_eq!(again.code, 65);
    assert!(
        again
            .err
            .starts_with("line 2: external_id \"sub-0\" is stored already;")
    );
}

#[tokio::test]
async fn what_is_paid_and_what_is_overdue_is_summed_up() {
    let desk = Desk::new().await;
    let rows = format!(
        "{HEADER},paid_until\na,cus-1,{},1,PLN,P1M,2026-01-15,\nb,cus-2,{},1,PLN,P1M,2026-01-15,2026-09-15\n",
        profile(1),
        profile(2)
    );
    let ended = desk.import(rows, &[]);
    assert_eq!(
        ended.out,
        "stored 2 subscriptions on 2 cards (2 new)\n\
         first due date: 2026-10-15\n\
         taken as paid elsewhere: 20 periods\n\
         overdue: 1 subscription; what is unpaid since paid_until falls due at once, and catch_up of the shop decides what \
         of it is charged\n"
    );
    let next = desk
        .column(
            "SELECT concat(external_id, ' ', next_charge_on) FROM billing.subscriptions ORDER BY 1",
        )
        .await;
    assert_eq!(next, ["a 2026-12-15", "b 2026-10-15"]);
}

#[tokio::test]
async fn what_is_imported_during_a_day_belongs_to_its_plan() {
    let desk = Desk::new().await;
    sqlx::query("SELECT plan_day('{main}', '2026-11-20', '2026-11-20T00:00:00Z')")
        .execute(&desk.books)
        .await
        .unwrap();
    // Two were due this morning, one is due tomorrow.
    let rows = format!(
        "{HEADER}\na,cus-1,{},150,PLN,P1M,2026-11-20\nb,cus-2,{},250,PLN,P1M,2026-11-20\nc,cus-3,{},999,PLN,P1M,2026-11-21\n",
        profile(1),
        profile(2),
        profile(3)
    );
    let ended = desk.import(rows, &[]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    let plan = desk
        .column("SELECT concat_ws(' ', shop, currency, charges, amount_minor) FROM daily_plans WHERE charges > 0")
        .await;
    assert_eq!(plan, ["main PLN 2 400"]);
}

#[tokio::test]
async fn every_kind_of_bad_input_is_told_and_nothing_is_stored() {
    let desk = Desk::new().await;
    let swapped = |from: &str, to: &str| row(1).replace(from, to);
    let twin_card = format!("sub-2,cus-1,{},1999,PLN,P1M,2027-01-31", profile(2));
    for (bad, told) in [
        (
            swapped("c0de0b1e", "c0de"),
            "line 3: payment_profile_id \"c0de-1111-4222-8333-000000000001\" is not the id of a profile; allowed:",
        ),
        (
            swapped("1999", "-1"),
            "line 3: amount_minor \"-1\" is out of range; allowed: 1 to 999999999, in minor units: 1999 is 19.99\n",
        ),
        (
            swapped("PLN", "XYZ"),
            "line 3: currency \"XYZ\" is not a currency that imoje takes; allowed: PLN, EUR,",
        ),
        (
            swapped("P1M", "P400D"),
            "line 3: period \"P400D\" is not between one day and one year; allowed: P7D,",
        ),
        (
            swapped("2027-01-31", "31.01.2027"),
            "line 3: anchor_date \"31.01.2027\" is not a date; allowed: a date from 1970",
        ),
        (
            row(0).replace("cus-0", "cus-1"),
            "line 3: external_id \"sub-0\" stands in line 2 already; allowed: each external_id once per shop\n",
        ),
        (
            format!("{}\n{twin_card}", row(1)),
            "line 4: cid \"cus-1\" is the card c0de0b1e-1111-4222-8333-000000000001 in line 3 and another one here;",
        ),
        (
            swapped("sub-1", "4111 1111 1111 1111"),
            "line 3: external_id looks like a card number; allowed: no card numbers anywhere\n",
        ),
        ("a,b".to_owned(), "line 3: has 2 fields and the header 7;"),
    ] {
        let ended = desk.import(file_of([row(0).as_str(), &bad]), &[]);
        assert_eq!((ended.code, ended.out.as_str()), (65, ""), "{bad}");
        assert!(ended.err.contains(told), "{bad}\n{}", ended.err);
        assert!(
            ended.err.contains("; nothing was stored\n"),
            "{}",
            ended.err
        );
        assert!(!ended.err.contains("4111"), "{}", ended.err);
    }
    let not_utf8 = [file(1).as_bytes(), b"sub-1,\xb3\n"].concat();
    let ended = desk.import(not_utf8, &[]);
    assert_eq!(ended.code, 65);
    assert!(
        ended
            .err
            .starts_with("line 3: byte 7 is 0xb3, which is not UTF-8;")
    );
    desk.assert_empty().await;
}

#[tokio::test]
async fn whatever_stands_in_a_cell_a_file_is_stored_whole_or_refused_whole() {
    const CASES: u32 = 60;
    let desk = Desk::new().await;
    let mut runner = TestRunner::deterministic();
    let cell = prop_oneof![
        any::<String>(),
        "[ -~]{0,20}",
        "\"[ -~\r\n]{0,20}\"",
        "-?[0-9]{1,20}",
        "[0-9]{4}-[0-9]{2}-[0-9]{2}",
    ];
    let places = (0..7usize, cell);
    let mut stored = 0;
    for case in 0..CASES {
        let (place, cell) = places.new_tree(&mut runner).unwrap().current();
        let (good, changed) = (row(2 * case), row(2 * case + 1));
        let mut cells: Vec<&str> = changed.split(',').collect();
        cells[place] = &cell;
        let ended = desk.import(file_of([good.as_str(), &cells.join(",")]), &[]);
        match ended.code {
            0 => stored += 2,
            65 => assert!(ended.err.contains("nothing was stored"), "{}", ended.err),
            code => panic!("exit {code} for {cell:?}: {}", ended.err),
        }
        assert_eq!(desk.count("subscriptions").await, stored, "{cell:?}");
    }
    assert!(stored > 0 && stored < i64::from(2 * CASES));
}

#[tokio::test]
async fn a_file_that_is_not_there_is_bad_input() {
    let desk = Desk::new().await;
    let ended = desk.run(&["import", "/nonexistent.csv"]);
    assert_eq!(ended.code, 65);
    assert!(
        ended
            .err
            .contains("couldn't read /nonexistent.csv: No such file"),
        "{}",
        ended.err
    );
}

#[tokio::test]
async fn cards_without_a_profile_are_stored_with_what_their_debits_say() {
    const HEADER: &str =
        "external_id,cid,first_transaction_id,customer,amount_minor,currency,period,anchor_date";
    let customer = |name: &str| {
        format!(
            r#""{{""firstName"":""{name}"",""lastName"":""Nowak"",""email"":""anna@example.test""}}""#
        )
    };
    let row = |external_id: &str, cid: &str, first: &str, name: &str| {
        let customer = customer(name);
        format!("{external_id},{cid},{first},{customer},4900,PLN,P1M,2027-01-31\n")
    };
    let desk = Desk::new().await;
    let twice = row("S-1", "c-1", "first-1", "Anna") + &row("S-2", "c-1", "first-1", "Anna");
    let ended = desk.import(format!("{HEADER}\n{twice}"), &[]);
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
    assert!(
        ended.out.contains("2 subscriptions on 1 card (1 new)"),
        "{}",
        ended.out
    );
    assert_eq!(
        desk.column("SELECT concat_ws(' ', cid, first_transaction_id, customer ->> 'firstName', payment_profile_id) FROM cards")
            .await,
        ["c-1 first-1 Anna"]
    );
    let contradicting = row("S-3", "c-1", "first-2", "Anna")
        + &row("S-4", "c-2", "first-1", "Anna")
        + &row("S-5", "c-2", "first-1", "Ewa");
    let ended = desk.import(format!("{HEADER}\n{contradicting}"), &[]);
    let told: Vec<&str> = ended.err.lines().collect();
    assert_eq!(ended.code, 65);
    // What the file says of itself comes before what the books say of it.
    assert_eq!(
        told[0],
        "line 4: first_transaction_id \"first-1\" has another customer, or other aliases, than in line 3; \
         allowed: the same for each subscription of a card"
    );
    for (row, expected) in [
        (
            row("S-3", "c-1", "first-2", "Anna"),
            "line 2: cid \"c-1\" is stored as the card first-1; allowed: one card for each cid",
        ),
        (
            row("S-4", "c-2", "first-1", "Anna"),
            "line 2: first_transaction_id \"first-1\" is stored with the cid c-1; allowed: one cid for each card",
        ),
        (
            row("S-5", "c-1", "first-1", "Ewa"),
            "line 2: cid \"c-1\" is stored with another customer, or other aliases; allowed: the same for each subscription of a card",
        ),
    ] {
        let ended = desk.import(format!("{HEADER}\n{row}"), &[]);
        assert_eq!(ended.code, 65);
        assert_eq!(ended.err.lines().next(), Some(expected));
    }
    assert_eq!(desk.count("subscriptions").await, 2);
}

#[tokio::test]
async fn what_is_stored_already_is_named() {
    let desk = Desk::new().await;
    assert_eq!(desk.import(file(3), &[]).code, 0);
    sqlx::query("UPDATE cards SET is_active = false WHERE cid = 'cus-2'")
        .execute(&desk.books)
        .await
        .unwrap();
    let other_profile = format!("new-1,cus-1,{},1,PLN,P1M,2027-01-01", profile(7));
    let other_cid = format!("new-2,cus-8,{},1,PLN,P1M,2027-01-01", profile(1));
    let inactive = format!("new-3,cus-2,{},1,PLN,P1M,2027-01-01", profile(2));
    let fine = format!("new-4,cus-0,{},1,PLN,P1M,2027-01-01", profile(0));
    let again = row(0);
    let ended = desk.import(
        file_of([again.as_str(), &other_profile, &other_cid, &inactive, &fine]),
        &[],
    );
    assert_eq!(ended.code, 65);
    let lines: Vec<&str> = ended.err.lines().collect();
    assert_eq!(
        lines[..4],
        [
            "line 2: external_id \"sub-0\" is stored already; allowed: each external_id once per shop",
            "line 3: cid \"cus-1\" is stored as the card c0de0b1e-1111-4222-8333-000000000001; allowed: one card for each cid",
            "line 4: payment_profile_id \"c0de0b1e-1111-4222-8333-000000000001\" is stored with the cid cus-1; allowed: one cid for each card",
            "line 5: cid \"cus-2\" cannot be charged any more, imoje called it inactive; allowed: an active card",
        ]
    );
    assert!(
        lines[4].contains("4 mistakes; nothing was stored"),
        "{}",
        lines[4]
    );
    assert_eq!(desk.count("subscriptions").await, 3);
    // A card may be shared with what is stored.
    let ended = desk.import(file_of([fine.as_str()]), &[]);
    assert!(
        ended
            .out
            .starts_with("stored 1 subscription on 1 card (0 new)\n")
    );
}

#[tokio::test]
async fn fifty_mistakes_are_printed_unless_all_are_asked_for() {
    let desk = Desk::new().await;
    let bad = file(60).replace("PLN", "XYZ");
    let ended = desk.import(&bad, &[]);
    assert_eq!(ended.err.lines().count(), 52);
    assert!(
        ended
            .err
            .contains("\nand 10 more; --all-errors prints them\n")
    );
    let ended = desk.import(&bad, &["--all-errors"]);
    assert_eq!(ended.err.lines().count(), 61);
}

#[tokio::test]
async fn a_hundred_thousand_rows_are_stored_together_or_not_at_all() {
    let desk = Desk::new().await;
    let good = file(100_000);
    let bad = good.replace("sub-77777,", "sub-77776,");
    let ended = desk.import(&bad, &[]);
    assert_eq!(ended.code, 65);
    assert!(
        ended
            .err
            .starts_with("line 77779: external_id \"sub-77776\" stands in line 77778 already"),
        "{}",
        ended.err
    );
    desk.assert_empty().await;
    // One row that only the database can refuse, found among the last.
    assert_eq!(desk.import(file_of([row(99_999).as_str()]), &[]).code, 0);
    assert_eq!(desk.import(&good, &[]).code, 65);
    assert_eq!(desk.count("subscriptions").await, 1);
    let others = good.replace(&format!("{}\n", row(99_999)), "");
    let ended = desk.import(&others, &[]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert_eq!(desk.count("billing.subscriptions").await, 100_000);
    assert_eq!(desk.count("events").await, 100_000);
}

/// More rows than are stored at once.
const MANY: u32 = 12_000;

#[tokio::test]
async fn mistakes_of_the_file_are_told_before_what_the_database_says_of_it() {
    let desk = Desk::new().await;
    assert_eq!(desk.import(file(1), &[]).code, 0);
    let bad = file(MANY).replace("cus-11999,", "cus_11999,");
    for args in [vec![], vec!["--dry-run"]] {
        let ended = desk.import(&bad, &args);
        assert_eq!((ended.code, ended.out.as_str()), (65, ""));
        assert!(
            ended.err.starts_with("line 12001: cid \"cus_11999\" "),
            "{}",
            ended.err
        );
        assert!(ended.err.contains("1 mistake; nothing"), "{}", ended.err);
    }
    assert_eq!(desk.count("subscriptions").await, 1);
}

#[tokio::test]
async fn everything_that_is_stored_already_is_named_however_long_the_file_is() {
    let desk = Desk::new().await;
    let stored = file_of([row(7).as_str(), &row(11_998)]);
    assert_eq!(desk.import(&stored, &[]).code, 0);
    for args in [vec![], vec!["--dry-run"]] {
        let ended = desk.import(file(MANY), &args);
        assert_eq!((ended.code, ended.out.as_str()), (65, ""));
        let lines: Vec<&str> = ended.err.lines().collect();
        assert!(lines[0].starts_with("line 9: external_id \"sub-7\" is stored already;"));
        assert!(lines[1].starts_with("line 12000: external_id \"sub-11998\" is stored already;"));
        assert!(lines[2].contains("2 mistakes; nothing was stored"));
    }
    assert_eq!(desk.count("subscriptions").await, 2);
}

#[tokio::test]
async fn rows_far_apart_share_a_card_whether_it_was_stored_before_or_not() {
    let desk = Desk::new().await;
    for (first, told) in [
        (0, "stored 12001 subscriptions on 12000 cards (12000 new)\n"),
        (1, "stored 12001 subscriptions on 12000 cards (0 new)\n"),
    ] {
        let again = file(MANY).replace("sub-", &format!("sub-{first}-"));
        let last = format!("last-{first},cus-0,{},1,PLN,P1W,2027-01-01\n", profile(0));
        let ended = desk.import(again + &last, &[]);
        assert_eq!(ended.err, "");
        assert!(ended.out.starts_with(told), "{}", ended.out);
    }
    assert_eq!(desk.count("cards").await, 12_000);
    let of_first_card = "SELECT external_id FROM subscriptions JOIN cards USING (card_id) WHERE cid = 'cus-0' ORDER BY 1";
    assert_eq!(
        desk.column(of_first_card).await,
        ["last-0", "last-1", "sub-0-0", "sub-1-0"]
    );
}

#[tokio::test]
async fn of_several_shops_each_row_names_one_or_the_command_does() {
    let desk = Desk::with_shops(&["main", "second"]).await;
    let ended = desk.import(file(1), &[]);
    assert!(
        ended
            .err
            .starts_with("line 2: shop is missing; allowed: main, second\n")
    );
    let ended = desk.import(file(1), &["--shop", "third"]);
    assert_eq!(ended.code, 2);
    assert!(
        ended
            .err
            .contains("there is no shop third in the configuration; allowed: main, second")
    );
    assert_eq!(desk.import(file(1), &["--shop", "second"]).code, 0);
    assert_eq!(desk.import(file(1), &["--shop", "main"]).code, 0);
    let ended = desk.run(&["show", "sub-0"]);
    assert_eq!(ended.code, 2);
    assert!(
        ended
            .err
            .contains("there are several subscriptions \"sub-0\": in main, second"),
        "{}",
        ended.err
    );
    let ended = desk.run(&["show", "sub-0", "--shop", "second", "--output", "json"]);
    assert!(ended.out.contains("\"shop\": \"second\""));
}

const ADD: &[&str] = &[
    "add",
    "--external-id",
    "one",
    "--cid",
    "cus-1",
    "--payment-profile-id",
    "c0de0b1e-1111-4222-8333-000000000001",
    "--currency",
    "PLN",
    "--period",
    "P1M",
    "--anchor-date",
    "2027-01-31",
    "--reason",
    "agreed by telephone",
];

#[tokio::test]
async fn one_subscription_is_added_and_shown() {
    let desk = Desk::new().await;
    let ended = desk.run(&[ADD, &["--amount-minor", "1999", "--output", "json"]].concat());
    assert_eq!(ended.code, 0, "{}", ended.err);
    let added: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(added["next_charge_on"], "2027-01-31");
    assert_eq!(
        desk.column("SELECT kind FROM events").await,
        ["subscription.created"]
    );
    let shown = desk.run(&[
        "show",
        added["subscription_id"].as_str().unwrap(),
        "--output",
        "json",
    ]);
    assert_eq!(shown.out, ended.out);
    let listed = desk.run(&["list", "--status", "active", "--output", "csv"]);
    assert!(
        listed
            .out
            .starts_with("subscription_id,external_id,shop,status,")
    );
    assert_eq!(listed.out.lines().count(), 2);
    assert_eq!(
        desk.run(&["list", "--status", "paused", "--output", "json"])
            .out,
        "[]\n"
    );
    let again = desk.run(&[ADD, &["--amount-minor", "1999"]].concat());
    assert_eq!(again.code, 65);
    assert!(
        again.err.contains("external_id \"one\" is stored already"),
        "{}",
        again.err
    );
}

#[tokio::test]
async fn one_bad_subscription_is_refused_with_all_its_mistakes() {
    let desk = Desk::new().await;
    let ended = desk.run(
        &[
            ADD,
            &["--amount-minor", "-5", "--title", "4111111111111111"],
        ]
        .concat(),
    );
    assert_eq!(ended.code, 65);
    assert_eq!(
        ended.err,
        "error: nothing was stored:\n  \
         amount_minor \"-5\" is out of range; allowed: 1 to 999999999, in minor units: 1999 is 19.99\n  \
         title looks like a card number; allowed: no card numbers anywhere\n"
    );
    let bare = desk.run(&["add", "--reason", "r"]);
    assert_eq!(
        bare.err.matches(" is missing; allowed: ").count(),
        7,
        "{}",
        bare.err
    );
    let reason = desk.run(&["add", "--reason", "4111111111111111"]);
    assert_eq!(reason.code, 2);
    assert!(!reason.err.contains("4111"));
    desk.assert_empty().await;
}
