//! `cykl audit` finds what is wrong with books, and nothing in books with which nothing is wrong.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::place::Place;

/// What is done to healthy books, with all triggers off, and the check that has to find it.
const FAULTS: &[(&str, &str)] = &[
    (
        "one_charge_per_period",
        "ALTER TABLE charges DROP CONSTRAINT one_charge_per_period;
         INSERT INTO charges (charge_id, subscription_id, shop, period_no, due_on, due_at, amount_minor, currency, state, reason,
                              planned_at)
         SELECT gen_random_uuid(), subscription_id, shop, period_no, due_on, due_at, amount_minor, currency, 'void', 'x', planned_at
         FROM charges WHERE charge_id = '00000000-0000-7000-8000-0000000d1000'",
    ),
    (
        "money_moved_once",
        "UPDATE attempts SET state = 'surplus' WHERE attempt_id = '00000000-0000-7000-8000-000000a10101'",
    ),
    (
        "moved_money_is_booked",
        "UPDATE charges SET state = 'failed', reason = 'x', paid_at = NULL, paid_attempt_id = NULL
         WHERE charge_id = '00000000-0000-7000-8000-0000000d1000'",
    ),
    (
        "moved_money_is_booked",
        "UPDATE attempts SET charge_id = gen_random_uuid() WHERE attempt_id = '00000000-0000-7000-8000-000000a10001'",
    ),
    (
        "paid_charges_have_a_payment",
        "UPDATE attempts SET state = 'rejected', decline = 'soft' WHERE attempt_id = '00000000-0000-7000-8000-000000a10001'",
    ),
    (
        "paid_charges_have_a_payment",
        "UPDATE charges SET paid_attempt_id = '00000000-0000-7000-8000-000000a20001'
         WHERE charge_id = '00000000-0000-7000-8000-0000000d1000'",
    ),
    (
        "payments_are_told_once",
        "UPDATE events SET kind = 'charge.failed' WHERE charge_id = '00000000-0000-7000-8000-0000000d1000'",
    ),
    (
        "sums_agree",
        "UPDATE events SET payload = payload || '{\"amount_minor\": 4901}' WHERE kind = 'charge.paid'",
    ),
    (
        "sums_agree",
        "UPDATE charges SET paid_at = paid_at + interval '1 day' WHERE charge_id = '00000000-0000-7000-8000-0000000d1000'",
    ),
    (
        "sums_agree",
        "UPDATE attempts SET currency = 'EUR' WHERE attempt_id = '00000000-0000-7000-8000-000000a10001'",
    ),
    (
        "terms_agree",
        "UPDATE attempts SET amount_minor = 4901 WHERE attempt_id = '00000000-0000-7000-8000-000000a10001'",
    ),
    (
        "terms_agree",
        "UPDATE cards SET shop = 'other' WHERE card_id = '00000000-0000-7000-8000-00000000c001'",
    ),
    (
        "refunds_are_covered",
        "UPDATE refunds SET amount_minor = 4801 WHERE origin = 'elsewhere'",
    ),
    (
        "refunds_are_covered",
        "UPDATE refunds SET order_id = 'inv-1042' WHERE origin = 'elsewhere'",
    ),
    (
        "refunds_are_covered",
        "UPDATE refunds SET sale_transaction_id = gen_random_uuid() WHERE origin = 'elsewhere'",
    ),
    (
        "refunds_are_covered",
        "UPDATE attempts SET state = 'rejected', decline = 'soft' WHERE attempt_id = '00000000-0000-7000-8000-000000a30001'",
    ),
    (
        "refund_verdicts_have_evidence",
        "DELETE FROM refund_evidence WHERE kind = 'read'",
    ),
    (
        "refund_verdicts_have_evidence",
        "UPDATE refund_evidence SET transaction_id = gen_random_uuid() WHERE kind = 'answer'",
    ),
    (
        "refund_verdicts_have_evidence",
        "UPDATE refund_evidence SET verdict = 'absent'; UPDATE refunds SET state = 'absent'",
    ),
    (
        "charges_fit_their_subscription",
        "UPDATE charges SET due_on = '2025-03-01' WHERE charge_id = '00000000-0000-7000-8000-0000000d1001'",
    ),
    (
        "charges_fit_their_subscription",
        "UPDATE subscriptions SET ends_on = '2025-03-30' WHERE subscription_id = '00000000-0000-7000-8000-000000005001'",
    ),
    (
        "order_ids_are_derived",
        "ALTER TABLE attempts DROP CONSTRAINT order_id_is_derived;
         UPDATE attempts SET order_id = 'inv-1042' WHERE attempt_id = '00000000-0000-7000-8000-000000a10001'",
    ),
    (
        "names_are_used_once",
        "ALTER TABLE attempts DROP CONSTRAINT transaction_belongs_to_one_attempt;
         UPDATE attempts SET transaction_id = '00000000-0000-4000-8000-000000e20001' WHERE transaction_id IS NOT NULL",
    ),
    (
        "one_live_attempt",
        "DROP INDEX one_live_attempt;
         UPDATE attempts SET state = 'pending', decided_at = NULL WHERE attempt_id = '00000000-0000-7000-8000-000000a10101'",
    ),
    (
        "live_attempts_block_their_charge",
        "UPDATE charges SET state = 'retry_wait' WHERE charge_id = '00000000-0000-7000-8000-0000000d1002'",
    ),
    (
        "live_attempts_block_their_charge",
        "UPDATE charges SET state = 'in_flight', next_action_at = '2025-01-06Z'
         WHERE charge_id = '00000000-0000-7000-8000-0000000d4000'",
    ),
    (
        "verdicts_have_evidence",
        "DELETE FROM evidence WHERE attempt_id = '00000000-0000-7000-8000-000000a10001'",
    ),
    (
        "verdicts_have_evidence",
        "UPDATE evidence SET kind = 'local' WHERE attempt_id = '00000000-0000-7000-8000-000000a10101'",
    ),
    // By one person, twice.
    (
        "absence_needs_two",
        "DROP INDEX nobody_declares_twice;
         INSERT INTO evidence (evidence_id, attempt_id, subscription_id, kind, verdict, detail, actor, recorded_at)
         SELECT gen_random_uuid(), attempt_id, subscription_id, 'person', 'absent', 'x', actor, '2025-01-10T00:00Z'
         FROM attempts, unnest(ARRAY['jan', ' Jan']) AS actor WHERE attempt_id = '00000000-0000-7000-8000-000000a40001';
         UPDATE attempts SET state = 'absent' WHERE attempt_id = '00000000-0000-7000-8000-000000a40001'",
    ),
    // By two people, too early.
    (
        "absence_needs_two",
        "INSERT INTO evidence (evidence_id, attempt_id, subscription_id, kind, verdict, detail, actor, recorded_at)
         SELECT gen_random_uuid(), attempt_id, subscription_id, 'person', 'absent', 'x', actor, '2025-01-09T08:59Z'
         FROM attempts, unnest(ARRAY['jan', 'ewa']) AS actor WHERE attempt_id = '00000000-0000-7000-8000-000000a40001';
         UPDATE attempts SET state = 'absent' WHERE attempt_id = '00000000-0000-7000-8000-000000a40001'",
    ),
    (
        "doubts_are_followed_up",
        "UPDATE attempts SET next_poll_at = NULL, case_opened_at = NULL WHERE state = 'in_doubt'",
    ),
    (
        "attempts_are_spaced",
        "UPDATE attempts SET permitted_at = '2025-03-01T00:59Z' WHERE attempt_id = '00000000-0000-7000-8000-000000a10102'",
    ),
    (
        "attempts_are_counted",
        "UPDATE charges SET attempts = 0 WHERE charge_id = '00000000-0000-7000-8000-0000000d1002'",
    ),
    (
        "nothing_was_permitted_while_braked",
        "INSERT INTO events (event_id, kind, is_alert, payload, occurred_at) VALUES
         (gen_random_uuid(), 'brake.changed', true, '{\"shop\": \"main\", \"mode\": \"drain\"}', '2025-01-31T04:00Z'),
         (gen_random_uuid(), 'brake.changed', true, '{\"shop\": \"main\", \"mode\": \"run\"}', '2025-01-31T06:00Z')",
    ),
    (
        "open_charges_are_looked_at",
        "ALTER TABLE charges DROP CONSTRAINT open_charges_are_looked_at;
         UPDATE charges SET next_action_at = NULL WHERE state = 'held'",
    ),
    (
        "billed_subscriptions_go_on",
        "DELETE FROM due_periods WHERE subscription_id = '00000000-0000-7000-8000-000000005001'",
    ),
    (
        "billed_subscriptions_go_on",
        "UPDATE due_periods SET due_on = '2025-04-29' WHERE subscription_id = '00000000-0000-7000-8000-000000005001'",
    ),
    (
        "billed_subscriptions_go_on",
        "UPDATE due_periods SET due_at = due_at + interval '1 day' WHERE subscription_id = '00000000-0000-7000-8000-000000005001'",
    ),
    (
        "billed_subscriptions_go_on",
        "INSERT INTO due_periods SELECT due_at + interval '1 day', subscription_id, period_no, due_on FROM due_periods",
    ),
    (
        "billed_subscriptions_go_on",
        "UPDATE subscriptions SET status = 'paused' WHERE subscription_id = '00000000-0000-7000-8000-000000005001'",
    ),
    // The next period was moved on without a charge.
    (
        "no_period_is_forgotten",
        "UPDATE due_periods SET period_no = 4, due_on = '2025-05-31'
         WHERE subscription_id = '00000000-0000-7000-8000-000000005001'",
    ),
    // The pause was over before the last of the periods that were left out.
    (
        "no_period_is_forgotten",
        "UPDATE events SET occurred_at = '2025-02-20T12:00Z' WHERE kind = 'subscription.resumed'",
    ),
    // There was no pause.
    (
        "no_period_is_forgotten",
        "UPDATE events SET kind = 'charge.declined' WHERE kind = 'subscription.paused'",
    ),
    // A payment by a link that counts as a verification and as a charge, and one that counts as nothing.
    (
        "payments_by_link_count_once",
        "INSERT INTO registrations (registration_id, subscription_id, shop, cid, way, purpose, order_id, amount_minor, currency, state,
                                    transaction_id, card_id, actor, created_at, valid_to, paid_at, ended_at)
         SELECT '00000000-0000-7000-8000-0000000000f1', subscription_id, shop, 'cid-9', 'link', 'verification',
                'cykl-r-000000000000700080000000000000f1', 100, 'PLN', 'attached', transaction_id, card_id, 'eve', permitted_at,
                permitted_at, permitted_at, permitted_at
         FROM attempts WHERE subscription_id = '00000000-0000-7000-8000-000000005003'",
    ),
    (
        "payments_by_link_count_once",
        "INSERT INTO registrations (registration_id, subscription_id, shop, cid, way, purpose, period_no, order_id, amount_minor, currency,
                                    state, transaction_id, card_id, actor, created_at, valid_to, paid_at, ended_at)
         SELECT '00000000-0000-7000-8000-0000000000f1', subscription_id, shop, 'cid-9', 'link', 'first_charge', 0,
                'cykl-r-000000000000700080000000000000f1', 4900, 'PLN', 'attached', gen_random_uuid(), card_id, 'eve', permitted_at,
                permitted_at, permitted_at, permitted_at
         FROM attempts WHERE subscription_id = '00000000-0000-7000-8000-000000005003'",
    ),
    // Paid by a link that nobody made.
    (
        "order_ids_are_derived",
        "UPDATE attempts SET card_id = NULL, order_id = 'cykl-r-000000000000700080000000000000f1'
         WHERE subscription_id = '00000000-0000-7000-8000-000000005003'",
    ),
    (
        "nothing_ends_early",
        "UPDATE subscriptions SET max_charges = 2 WHERE external_id = 'C-3'",
    ),
    (
        "events_are_numbered",
        "DELETE FROM events WHERE subscription_id = '00000000-0000-7000-8000-000000005001' AND sequence_no = 3",
    ),
    (
        "archived_payments_are_counted",
        "UPDATE subscriptions SET archived_payments = 1 WHERE subscription_id = '00000000-0000-7000-8000-000000005001'",
    ),
    (
        "archived_payments_are_counted",
        "UPDATE subscriptions SET archived_to = 0 WHERE subscription_id = '00000000-0000-7000-8000-000000005001'",
    ),
    ("guards_stand", "DROP TRIGGER attempt_insert ON attempts"),
    (
        "guards_stand",
        "SELECT add_archive_quarter('2025-01-01'); DROP TRIGGER archived_events_2025_q1_stays ON archived_events_2025_q1",
    ),
    (
        "guards_stand",
        "ALTER TABLE attempts DISABLE TRIGGER attempt_facts",
    ),
    ("guards_stand", "DROP INDEX charges_to_send"),
    (
        "guards_stand",
        "ALTER TABLE charges DROP CONSTRAINT charges_say_why;
         ALTER TABLE charges ADD CONSTRAINT charges_say_why CHECK (true) NOT VALID",
    ),
    (
        "guards_stand",
        "DROP INDEX one_live_attempt; CREATE INDEX one_live_attempt ON attempts (charge_id)",
    ),
];

fn checks_with_findings(audit: &Value) -> BTreeSet<String> {
    audit["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| !check["findings"].as_array().unwrap().is_empty())
        .map(|check| check["check"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn books_with_which_nothing_is_wrong_pass() {
    let place = Place::healthy().await;
    let audit = place.run(&["audit", "--output", "json"]).succeeded().json();
    assert_eq!(audit["is_clean"], true, "{audit:#}");
    let table = place.run(&["audit"]).succeeded();
    assert!(
        table
            .stdout
            .contains("nothing found: the books keep the promise"),
        "{table:?}"
    );
    let csv = place.run(&["audit", "--output", "csv"]).succeeded();
    assert_eq!(
        csv.stdout,
        "check,subscription_id,charge_id,attempt_id,detail\r\n"
    );
}

#[tokio::test]
async fn each_planted_fault_is_found_by_the_check_that_names_it() {
    for (check, fault) in FAULTS {
        let place = Place::healthy().await;
        place
            .sql(&format!(
                "SET search_path = cykl; SET session_replication_role = replica; {fault}"
            ))
            .await;
        let audit = place.run(&["audit", "--output", "json"]).ended(1).json();
        let found = checks_with_findings(&audit);
        assert!(
            found.contains(*check),
            "{check} did not find: {fault}\nbut found {found:?}"
        );
    }
}

#[tokio::test]
async fn every_check_has_a_fault_that_it_is_tested_with() {
    let place = Place::migrated().await;
    let audit = place.run(&["audit", "--output", "json"]).succeeded().json();
    let checks: BTreeSet<_> = audit["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| check["check"].as_str().unwrap())
        .collect();
    let tested: BTreeSet<_> = FAULTS.iter().map(|(check, _)| *check).collect();
    assert_eq!(checks, tested);
}

/// The audit writes the names of guards down a second time. A guard that a migration adds belongs there as well.
#[tokio::test]
async fn every_guard_of_the_schema_is_attested() {
    let attested: BTreeSet<_> = include_str!("../../src/store/sql/audit/guards_stand.sql")
        .lines()
        .filter_map(|line| line.strip_prefix("    ('"))
        .map(|line| line.trim_end_matches(',').to_owned())
        .collect();
    let place = Place::migrated().await;
    let guards = place
        .texts(
            "SELECT format('constraint'', %L, %L)', conrelid::regclass::text, conname)
             FROM pg_constraint WHERE connamespace = 'cykl'::regnamespace AND contype IN ('p', 'u', 'c', 'f', 'x')
             UNION ALL
             SELECT format('%s'', %L, %L)', CASE WHEN i.indisunique THEN 'unique index' ELSE 'index' END,
                           i.indrelid::regclass::text, c.relname)
             FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
             WHERE c.relnamespace = 'cykl'::regnamespace AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = c.oid)
             UNION ALL
             SELECT format('trigger'', %L, %L)', tgrelid::regclass::text, tgname) FROM pg_trigger WHERE NOT tgisinternal",
        )
        .await;
    let guards: BTreeSet<_> = guards
        .into_iter()
        .filter(|guard| !guard.contains("_sqlx_migrations"))
        .collect();
    assert_eq!(attested, guards);
}

#[tokio::test]
async fn findings_are_told_with_what_they_are_about() {
    let place = Place::healthy().await;
    place
        .sql("SET search_path = cykl; SET session_replication_role = replica; UPDATE events SET sequence_no = sequence_no + 100")
        .await;
    let table = place.run(&["audit"]).ended(1);
    assert!(table.stdout.contains("4 found"), "{table:?}");
    assert!(
        table
            .stdout
            .contains("00000000-0000-7000-8000-000000005004"),
        "{table:?}"
    );
    let csv = place.run(&["audit", "--output", "csv"]).ended(1).stdout;
    assert_eq!(csv.lines().count(), 5);
    assert!(csv.contains("events_are_numbered,00000000-0000-7000-8000-000000005001,,,\"7 events, numbered 101 to 107\""), "{csv}");
}
