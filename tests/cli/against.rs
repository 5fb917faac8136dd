//! `cykl audit --against` finds where an export and the books differ, and nothing where they agree.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::place::{Place, Ran, SERVICE_ID};

/// What imoje would have exported of the healthy books, with payments of another system around them.
const EXPORT: &str = "\
created_at,transaction_id,order_id,amount_minor,currency,status,type,payer
2025-01-01 12:00:00,,inv-1,1,PLN,settled,sale,\"Nowak, Ewa\"
2025-01-05 06:00:10,00000000-0000-4000-8000-000000e20001,cykl-00000000000070008000000000005002-0-1,4900,PLN,settled,sale,a
2025-01-05 06:00:11,00000000-0000-4000-8000-000000e30001,cykl-00000000000070008000000000005003-0-1,4900,PLN,settled,sale,b
2025-01-05 06:00:12,00000000-0000-4000-8000-000000e40001,cykl-00000000000070008000000000005004-0-1,4900,PLN,rejected,sale,c
2025-01-31 06:00:10,00000000-0000-4000-8000-000000e10001,cykl-00000000000070008000000000005001-0-1,4900,PLN,settled,sale,d
2025-02-10 12:00:00,0000c0de-0000-4000-8000-000000e10001,cykl-00000000000070008000000000005001-0-1,4900,PLN,settled,refund,d
2025-02-28 06:00:10,00000000-0000-4000-8000-000000e10101,cykl-00000000000070008000000000005001-1-1,4900,PLN,rejected,sale,d
2025-03-01 06:00:10,00000000-0000-4000-8000-000000e10102,cykl-00000000000070008000000000005001-1-2,4900,PLN,settled,sale,d
2025-04-15 12:00:00,,inv-2,1,PLN,settled,sale,e
";

/// The attempt in doubt, as imoje would show it.
const DOUBT: &str = "2025-03-31 06:00:10,00000000-0000-4000-8000-000000e10201,cykl-00000000000070008000000000005001-2-1,4900,PLN,";

/// What is done to the export, and the checks that find it, no more and no less, with a part of what they say.
const DIFFERENCES: &[(&str, &str, &[&str], &str)] = &[
    (
        "2025-01-05 06:00:10,00000000-0000-4000-8000-000000e20001,cykl-00000000000070008000000000005002-0-1,4900,PLN,settled,sale,a\n",
        "",
        &["export_has_what_is_settled"],
        "order cykl-00000000000070008000000000005002-0-1, transaction 00000000-0000-4000-8000-000000e20001, 4900 PLN, permitted at",
    ),
    (
        "000000e20001,cykl-00000000000070008000000000005002-0-1,4900,PLN,settled",
        "000000e20001,cykl-00000000000070008000000000005002-0-1,4900,PLN,Pending",
        &["export_has_what_is_settled"],
        "is settled in the books and pending in the export",
    ),
    (
        "5004-0-1,4900,PLN,rejected",
        "5004-0-1,4900,PLN,SETTLED",
        &["books_have_what_is_settled"],
        "it is rejected in the books: cykl charge settle 00000000-0000-7000-8000-0000000d4000 --transaction \
         00000000-0000-4000-8000-000000e40001 --reason TEXT",
    ),
    // Of a period that the books do not have, of a subscription that they do not have, of no period at all.
    (
        "2025-04-15",
        "2025-03-05,1000c0de-0000-4000-8000-000000e20001,cykl-00000000000070008000000000005002-2-1,4900,PLN,settled,,\n2025-04-15",
        &["books_have_what_is_settled"],
        "line 10: order cykl-00000000000070008000000000005002-2-1 is settled in the export, transaction \
         1000c0de-0000-4000-8000-000000e20001, 4900 PLN; the books do not know it",
    ),
    (
        "2025-04-15",
        "2025-03-05,1000c0de-0000-4000-8000-000000e20001,cykl-deadbeef000070008000000000005002-2147483647-1,4900,PLN,settled,,\n\
         2025-03-05,1000c0de-0000-4000-8000-000000e20002,cykl-00000000000070008000000000005002-4294967295-65535,1,PLN,settled,,\n2025-04-15",
        &["books_have_what_is_settled"],
        "the books do not know it",
    ),
    // Declined, but the books would use its name once more.
    (
        "2025-04-15",
        "2025-03-05,1000c0de-0000-4000-8000-000000e20001,cykl-00000000000070008000000000005001-3-1,4900,PLN,rejected,,\n2025-04-15",
        &["books_have_what_is_settled"],
        "line 10: order cykl-00000000000070008000000000005001-3-1 is rejected in the export",
    ),
    (
        "2025-04-15",
        "2025-03-05,,cykl-2-2-1,,,settled,,\n2025-04-15",
        &["books_have_what_is_settled"],
        "line 10: cykl-2-2-1 is settled, and is not an order id that Cykl makes",
    ),
    (
        "5002-0-1,4900,PLN",
        "5002-0-1,490,PLN",
        &["amounts_agree"],
        "is settled over 490 PLN in the export",
    ),
    (
        "5004-0-1,4900,PLN",
        "5004-0-1,4900,EUR",
        &["amounts_agree"],
        "is rejected over 4900 EUR in the export",
    ),
    (
        "00000000-0000-4000-8000-000000e20001",
        "1000c0de-0000-4000-8000-000000e20001",
        &["transactions_agree"],
        "is transaction 1000c0de-0000-4000-8000-000000e20001 in the export, as settled; it is \
         00000000-0000-4000-8000-000000e20001 in the books",
    ),
    // A second transaction under the same order.
    (
        "2025-04-15",
        "2025-01-05,1000c0de-0000-4000-8000-000000e20001,cykl-00000000000070008000000000005002-0-1,4900,PLN,settled,,\n2025-04-15",
        &["transactions_agree", "export_debits_once"],
        "money moved 2 times for period 0 in the export",
    ),
    // The declined attempt of a period that was paid by the next one.
    (
        "5001-1-1,4900,PLN,rejected",
        "5001-1-1,4900,PLN,settled",
        &["books_have_what_is_settled", "export_debits_once"],
        "cykl-00000000000070008000000000005001-1-2 00000000-0000-4000-8000-000000e10102",
    ),
    // A payment by a link that the books have lost. Another that moved no money is none.
    (
        "2025-04-15",
        "2025-03-05,1000c0de-0000-4000-8000-000000e20001,cykl-r-000000000000700080000000000000f1,4900,PLN,settled,,\n2025-04-15",
        &["books_have_what_links_moved"],
        "line 10: order cykl-r-000000000000700080000000000000f1 is settled in the export, transaction \
         1000c0de-0000-4000-8000-000000e20001, 4900 PLN; the books do not know the link",
    ),
    (
        "2025-04-15",
        "2025-03-05,1000c0de-0000-4000-8000-000000e20001,cykl-r-000000000000700080000000000000f1,4900,PLN,rejected,,\n2025-04-15",
        &[],
        "",
    ),
    // The same row once more is no second movement.
    (
        "2025-04-15",
        "2025-03-01,00000000-0000-4000-8000-000000e10102,cykl-00000000000070008000000000005001-1-2,4900,PLN,settled,,\n2025-04-15",
        &[],
        "",
    ),
];

fn checks_with_findings(audit: &Value) -> BTreeSet<String> {
    let checks = audit["checks"].as_array().unwrap().iter();
    checks
        .filter(|check| !check["findings"].as_array().unwrap().is_empty())
        .map(|check| check["check"].as_str().unwrap().to_owned())
        .collect()
}

fn names(checks: &[&str]) -> BTreeSet<String> {
    checks.iter().map(|check| (*check).to_owned()).collect()
}

/// Compares the books of a place with an export.
fn against(place: &Place, export: impl AsRef<[u8]>, arguments: &[&str]) -> Ran {
    let file = place.path().join("export.csv");
    std::fs::write(&file, export).unwrap();
    let mut all = vec!["audit", "--against", file.to_str().unwrap()];
    all.extend(arguments);
    place.run(&all)
}

/// As [`against`], as JSON, with the exit code that belongs to it.
fn compared(place: &Place, export: impl AsRef<[u8]>, arguments: &[&str]) -> Value {
    let ran = against(place, export, &[arguments, &["--output", "json"]].concat());
    let audit = ran.json();
    let code = i32::from(!checks_with_findings(&audit).is_empty());
    assert_eq!(audit["is_clean"], code == 0);
    ran.ended(code);
    audit
}

#[tokio::test]
async fn an_export_that_agrees_passes_and_is_told() {
    let place = Place::healthy().await;
    let audit = compared(&place, EXPORT, &[]);
    assert_eq!(checks_with_findings(&audit), names(&[]), "{audit:#}");
    let told = &audit["against"];
    for (count, is) in [("rows", 9), ("compared", 6), ("refunds", 1), ("foreign", 2)] {
        assert_eq!(told[count], is, "{count}");
    }
    assert_eq!(told["statuses"][0]["status"], "settled");
    assert_eq!(told["statuses"][0]["rows"], 4);
    assert_eq!(told["statuses"][1]["is_settled"], false);
    assert_eq!(told["shops"][0]["covers_from"], "2025-01-01T11:00:00Z");
    assert_eq!(told["shops"][0]["complete_to"], "2025-04-14T10:00:00Z");
    // In doubt and not in the export: told, and no finding.
    let unseen = told["doubts_not_in_export"]["attempts"].as_array().unwrap();
    assert_eq!(unseen.len(), 1);
    assert_eq!(
        unseen[0]["attempt_id"],
        "00000000-0000-7000-8000-000000a10201"
    );
    let table = against(&place, EXPORT, &[]).succeeded().stdout;
    for text in [
        "nothing found: the books keep the promise, and the export agrees with them",
        "rows: 9, debits of Cykl: 6, payments by links: 0, refunds: 1, of other systems: 2",
        "  settled: 4 (money moved)",
        "  rejected: 2 (money did not move)",
        "no proof that no money moved",
        "cykl charge show 00000000-0000-7000-8000-0000000d1002",
    ] {
        assert!(table.contains(text), "{text}: {table}");
    }
    let csv = against(&place, EXPORT, &["--output", "csv"])
        .succeeded()
        .stdout;
    assert_eq!(csv.lines().count(), 1, "{csv}");
    let alone = place.run(&["audit", "--output", "json"]).succeeded().json();
    assert!(alone.get("against").is_none());
    let checks = |audit: &Value| audit["checks"].as_array().unwrap().len();
    assert_eq!(checks(&alone) + 7, checks(&audit));
}

#[tokio::test]
async fn a_first_charge_that_was_paid_by_a_link_is_found_by_its_transaction() {
    let place = Place::healthy().await;
    let paid_by_link = "SET search_path = cykl; SET session_replication_role = replica;
         UPDATE attempts SET card_id = NULL, order_id = 'cykl-r-000000000000700080000000000000f1'
         WHERE subscription_id = '00000000-0000-7000-8000-000000005002';
         INSERT INTO registrations (registration_id, subscription_id, shop, cid, way, purpose, period_no, order_id, amount_minor, currency,
                                    state, transaction_id, card_id, actor, created_at, valid_to, paid_at, ended_at)
         SELECT '00000000-0000-7000-8000-0000000000f1', a.subscription_id, a.shop, 'cid-9', 'link', 'first_charge', 0, a.order_id, 4900, 'PLN',
                'attached', a.transaction_id, s.card_id, 'eve', permitted_at, permitted_at, permitted_at, permitted_at
         FROM attempts a JOIN subscriptions s USING (subscription_id) WHERE a.card_id IS NULL";
    place.sql(paid_by_link).await;
    let debit = "cykl-00000000000070008000000000005002-0-1";
    let link = "cykl-r-000000000000700080000000000000f1";
    assert!(EXPORT.contains(debit));
    let audit = compared(&place, EXPORT.replace(debit, link), &[]);
    assert_eq!(checks_with_findings(&audit), names(&[]), "{audit:#}");
    assert_eq!(audit["against"]["by_link"], 1);
    for (order_id, amount, check) in [
        (debit, "4900", "export_has_what_is_settled"),
        (link, "490", "books_have_what_links_moved"),
    ] {
        let export = EXPORT
            .replace(debit, order_id)
            .replace(&format!("{order_id},4900"), &format!("{order_id},{amount}"));
        let audit = compared(&place, export, &[]);
        assert!(checks_with_findings(&audit).contains(check), "{audit:#}");
    }
}

#[tokio::test]
async fn each_planted_difference_is_found_by_the_check_that_names_it() {
    let place = Place::healthy().await;
    let mut tested = BTreeSet::new();
    for (from, to, checks, detail) in DIFFERENCES {
        assert!(EXPORT.contains(from), "{from}");
        let audit = compared(&place, EXPORT.replace(from, to), &[]);
        assert_eq!(
            checks_with_findings(&audit),
            names(checks),
            "{to}\n{audit:#}"
        );
        assert!(audit.to_string().contains(detail), "{detail}\n{audit:#}");
        tested.extend(names(checks));
    }
    for (status, state) in [
        ("settled", "in_doubt"),
        ("rejected", "in_doubt"),
        ("new", "in_doubt"),
        ("settled", "pending"),
        ("rejected", "pending"),
    ] {
        let place = Place::healthy().await;
        place
            .sql(&format!(
                "SET search_path = cykl; SET session_replication_role = replica;
                 UPDATE attempts SET state = '{state}', next_poll_at = permitted_at,
                        transaction_id = '00000000-0000-4000-8000-000000e10201' WHERE state = 'in_doubt'"
            ))
            .await;
        let audit = compared(&place, format!("{EXPORT}{DOUBT}{status},,\n"), &[]);
        let found = checks_with_findings(&audit);
        assert!(found.contains("doubts_are_answered"), "{audit:#}");
        let detail = "cykl charge settle 00000000-0000-7000-8000-0000000d1002 --transaction \
                      00000000-0000-4000-8000-000000e10201 --reason TEXT";
        assert!(audit.to_string().contains(detail), "{audit:#}");
        let unseen = &audit["against"]["doubts_not_in_export"]["attempts"];
        assert_eq!(*unseen, Value::Array(vec![]));
        tested.extend(names(&["doubts_are_answered"]));
        if state == "pending" {
            let waiting = compared(&place, format!("{EXPORT}{DOUBT}pending,,\n"), &[]);
            assert!(!checks_with_findings(&waiting).contains("doubts_are_answered"));
        }
    }
    let audit = compared(&place, EXPORT, &[]);
    let all = audit["checks"].as_array().unwrap().iter().rev().take(7);
    let all = all.map(|check| check["check"].as_str().unwrap().to_owned());
    assert_eq!(tested, all.collect());
}

#[tokio::test]
async fn a_transaction_of_another_order_is_found() {
    let place = Place::healthy().await;
    let swapped = EXPORT
        .replace("e20001", "swap")
        .replace("e30001", "e20001")
        .replace("swap", "e30001");
    let audit = compared(&place, swapped, &[]);
    assert_eq!(checks_with_findings(&audit), names(&["transactions_agree"]));
    let told = audit.to_string();
    assert!(told.contains("is of order cykl-00000000000070008000000000005003-0-1 in the export"));
    assert!(told.contains("it is of order cykl-00000000000070008000000000005002-0-1 in the books"));
}

#[tokio::test]
async fn what_is_in_the_archive_is_compared_and_what_was_dropped_from_it_is_not_missed() {
    let place = Place::healthy().await;
    place
        .sql(
            "SET search_path = cykl; SET session_replication_role = replica;
             SELECT add_archive_quarter('2025-01-01');
             INSERT INTO archived_charges SELECT charge_id, subscription_id, shop, period_no, due_on, due_at, amount_minor, currency,
                    state, reason, attempts, declines, unsent, first_attempt_at, paid_at, paid_attempt_id, NULL, last_status_code,
                    planned_at, next_due_at
             FROM charges WHERE charge_id = '00000000-0000-7000-8000-0000000d2000';
             INSERT INTO archived_attempts SELECT attempt_id, charge_id, subscription_id, shop, card_id, period_no, '2025-01-05',
                    attempt_no, order_id, amount_minor, currency, state, is_retry, fence_id, permitted_at, deadline_at, quiet_until,
                    transaction_id, status_code, decline, card_masked, polls, case_opened_at, decided_at, confirmed_at,
                    last_evidence_id
             FROM attempts WHERE charge_id = '00000000-0000-7000-8000-0000000d2000';
             DELETE FROM attempts WHERE charge_id = '00000000-0000-7000-8000-0000000d2000';
             DELETE FROM charges WHERE charge_id = '00000000-0000-7000-8000-0000000d2000';
             UPDATE subscriptions SET archived_to = 0, archived_payments = 1 WHERE external_id = 'B-2'",
        )
        .await;
    let audit = compared(&place, EXPORT, &[]);
    assert_eq!(checks_with_findings(&audit), names(&[]), "{audit:#}");
    let (from, to, checks, _) = DIFFERENCES[0];
    let missing = compared(&place, EXPORT.replace(from, to), &[]);
    assert_eq!(checks_with_findings(&missing), names(checks));
    place
        .sql(
            "SET search_path = cykl; SET session_replication_role = replica;
             DROP TABLE archived_charges_2025_q1, archived_attempts_2025_q1",
        )
        .await;
    let lost = checks_with_findings(&compared(&place, EXPORT, &[]));
    assert!(lost.contains("books_have_what_is_settled"));
    place
        .sql("UPDATE cykl.archive SET kept_from = '2025-01-06'")
        .await;
    let dropped = checks_with_findings(&compared(&place, EXPORT, &[]));
    assert!(!dropped.contains("books_have_what_is_settled"));
}

#[tokio::test]
async fn only_what_the_export_covers_is_missed_in_it() {
    let place = Place::healthy().await;
    let header = EXPORT.lines().next().unwrap();
    let missing = |from, to| {
        let audit = compared(&place, header, &["--from", from, "--to", to]);
        let checks = audit["checks"].as_array().unwrap().iter();
        let findings = checks.map(|check| check["findings"].as_array().unwrap().len());
        findings.sum::<usize>()
    };
    // Two on 5 January, one on 31 January, one on 1 March.
    for (from, to, count) in [
        ("2025-01-01", "2025-04-01", 4),
        ("2025-01-04", "2025-01-06", 2),
        ("2025-01-05", "2025-01-31", 0),
        ("2025-01-05", "2025-02-01", 1),
        ("2025-02-01", "2025-03-31", 1),
        ("2025-03-02", "2025-03-31", 0),
    ] {
        assert_eq!(missing(from, to), count, "{from} {to}");
    }
    for (arguments, told) in [
        (&[][..], "does not say which time it covers of shop main"),
        (&["--from", "2025-01-01"], "--to DATE"),
        (
            &["--from", "2025-01-01", "--to", "2025-01-02"],
            "covers too little of shop main",
        ),
        (&["--shop", "other"], "allowed: main"),
    ] {
        let refused = against(&place, header, arguments).ended(2);
        assert!(refused.stderr.contains(told), "{told}: {refused:?}");
        assert_eq!(refused.stdout, "");
    }
    for arguments in [&["--from", "2025-01-01"], &["--column", "status=Stan"]] {
        let refused = place.run(&[&["audit"], &arguments[..]].concat()).ended(2);
        assert!(refused.stderr.contains("--against"), "{refused:?}");
    }
}

#[tokio::test]
async fn an_export_of_another_form_is_mapped() {
    let place = Place::healthy().await;
    let polish = EXPORT
        .replace("transaction_id", "Identyfikator")
        .replace("order_id", "Numer zamówienia")
        .replace("amount_minor", "Kwota")
        .replace(",type,", ",Rodzaj,")
        .replace(",4900,", ",\"49,00\",")
        .replace(",1,", ",\"0,01\",")
        .replace(",refund,", ",Zwrot,")
        .replace(",settled,", ",Zrealizowana,");
    let semicolons: String = polish
        .lines()
        .map(|line| {
            let mut is_quoted = false;
            let line: String = line
                .chars()
                .map(|letter| {
                    is_quoted ^= letter == '"';
                    if letter == ',' && !is_quoted {
                        ';'
                    } else {
                        letter
                    }
                })
                .collect();
            line + "\r\n"
        })
        .collect();
    let mapped = [
        "--column",
        "transaction_id=Identyfikator",
        "--column",
        "order_id=Numer zamówienia",
        "--column",
        "amount=Kwota",
        "--column",
        "type=Rodzaj",
        "--settled",
        "zrealizowana",
        "--refund",
        "zwrot",
    ];
    for file in [polish, format!("\u{feff}{semicolons}")] {
        let audit = compared(&place, &file, &mapped);
        assert_eq!(checks_with_findings(&audit), names(&[]), "{audit:#}");
        // A word that is not mapped is not taken for money, and shown.
        let unmapped = compared(&place, &file, &[&mapped[..8], &mapped[10..]].concat());
        assert_eq!(
            checks_with_findings(&unmapped),
            names(&["export_has_what_is_settled"])
        );
        assert_eq!(unmapped["against"]["statuses"][0]["status"], "zrealizowana");
        assert_eq!(unmapped["against"]["statuses"][0]["is_settled"], false);
    }
}

#[tokio::test]
async fn shops_are_covered_one_by_one() {
    let place = Place::healthy().await;
    let shop = "merchant_id = \"simmerchant000000001\"\nservice_id = \"3b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b\"\n";
    place.reconfigure(
        "[shops.main]",
        &format!(
            "[shops.other]\nenvironment = \"simulator\"\nbase_url = \"http://127.0.0.1:9/v1/merchant\"\n{shop}\
             token = \"sim-token\"\nservice_key = \"sim-service-key-001\"\n[shops.main]"
        ),
    );
    let refused = against(&place, EXPORT, &[]).ended(65);
    assert!(refused.stderr.contains("--shop NAME"), "{refused:?}");
    let audit = compared(&place, EXPORT, &["--shop", "main"]);
    assert_eq!(checks_with_findings(&audit), names(&[]));
    // Of the other there is nothing in the file, and that is said.
    assert_eq!(
        audit["against"]["shops_not_in_export"],
        serde_json::json!(["other"])
    );
    // Whatever the other shop sold says nothing about what must be there of this one.
    let other = "3b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b";
    let named = EXPORT
        .replace(",payer\n", ",service_id\n")
        .replace("\"Nowak, Ewa\"", other)
        .replace(",e\n", &format!(",{other}\n"));
    let named = ["a", "b", "c", "d"].iter().fold(named, |named, payer| {
        named.replace(&format!(",{payer}\n"), &format!(",{SERVICE_ID}\n"))
    });
    let audit = compared(&place, &named, &[]);
    assert_eq!(
        audit["against"]["shops_not_in_export"],
        serde_json::json!([])
    );
    let shops = audit["against"]["shops"].as_array().unwrap();
    let shops: Vec<_> = shops
        .iter()
        .map(|shop| {
            (
                shop["shop"].as_str().unwrap(),
                shop["covers_from"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        shops,
        [
            ("main", "2025-01-05T05:00:10Z"),
            ("other", "2025-01-01T11:00:00Z")
        ]
    );
    let unknown = named.replace(SERVICE_ID, "4b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b");
    let refused = against(&place, unknown, &[]).ended(65);
    assert!(
        refused.stderr.contains("line 3: service_id "),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_file_with_mistakes_is_refused_with_all_of_them() {
    let place = Place::healthy().await;
    let spoilt = EXPORT
        .replace("5002-0-1,4900,PLN", "5002-0-1,49.00,PLN")
        .replace("5003-0-1,4900,PLN,settled", "5003-0-1,4900,zł,")
        .replace(",e\n", ",4111 1111 1111 1111\n");
    let refused = against(&place, &spoilt, &["--output", "json"]).ended(65);
    assert_eq!(refused.stdout, "");
    assert!(!refused.stderr.contains("4111"), "{refused:?}");
    let told: Vec<_> = refused
        .stderr
        .lines()
        .filter_map(|line| line.split(';').next())
        .collect();
    assert_eq!(
        told[..4],
        [
            "line 3: amount_minor \"49.00\" cannot be taken",
            "line 4: status is missing",
            "line 4: currency \"zł\" cannot be taken",
            "line 10: field 8 looks like a card number, and those never enter Cykl",
        ]
    );
    assert!(told[4].contains("4 mistakes"), "{refused:?}");
    for (file, told) in [
        (&b""[..], "line 1: the file is empty"),
        (
            b"a;b\n1;2\n",
            "line 1: the header lacks the column order_id",
        ),
        (b"status\n\xb3\n", "line 1: the header lacks"),
    ] {
        let refused = against(&place, file, &[]).ended(65);
        assert!(refused.stderr.contains(told), "{told}: {refused:?}");
    }
    let many = (0..60).fold(EXPORT.to_owned(), |file, _| file + "x\n");
    let refused = against(&place, &many, &[]).ended(65);
    assert!(
        refused
            .stderr
            .contains("and 10 more; --all-errors prints them")
    );
    let refused = against(&place, &many, &["--all-errors"]).ended(65);
    assert_eq!(refused.stderr.matches("line ").count(), 60);
    let missing = place
        .run(&["audit", "--against", "/nowhere/at/all.csv"])
        .ended(65);
    assert!(missing.stderr.contains("couldn't read /nowhere/at/all.csv"));
}
