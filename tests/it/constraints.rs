//! What a row must be by itself, and which rows cannot stand beside each other. Each constraint is taken away as well, as in
//! `schema.rs`, to see that it was that one which refused.

use crate::harness::START;
use crate::schema::{
    CHARGE_BIRTH, CHARGE_FACTS, become_attempt, charge, is_refused, one_planned_charge, permit,
    with_changes,
};

/// Takes a constraint away, with the foreign keys that rest on it.
fn without(table: &str, constraint: &str) -> String {
    format!("ALTER TABLE {table} DROP CONSTRAINT {constraint} CASCADE")
}

/// Another subscription, with some columns other than those of the one that there is.
fn subscription(changed: &[(&str, &str)]) -> String {
    let columns = [
        ("subscription_id", "gen_random_uuid()"),
        ("shop", "shop"),
        ("external_id", "'another'"),
        ("status", "status"),
        ("card_id", "card_id"),
        ("amount_minor", "amount_minor"),
        ("currency", "currency"),
        ("period", "period"),
        ("anchor_date", "anchor_date"),
        ("timezone", "timezone"),
        ("max_charges", "max_charges"),
        ("first_period_no", "first_period_no"),
        ("created_at", "created_at"),
        ("updated_at", "updated_at"),
    ];
    let (names, values) = with_changes(&columns, changed);
    format!("INSERT INTO subscriptions ({names}) SELECT {values} FROM subscriptions")
}

/// An event, of the subscription or of none.
fn event(event_id: &str, subscription_id: &str, sequence_no: &str) -> String {
    format!(
        "INSERT INTO events (event_id, subscription_id, sequence_no, kind, is_alert, payload, occurred_at)
         SELECT {event_id}, {subscription_id}, {sequence_no}, 'test', false, '{{}}', '{START}' FROM subscriptions"
    )
}

/// A notice of a shop, of so many bytes of a hash.
fn notice(notice_id: &str, shop: &str, sha256: &str) -> String {
    format!(
        "INSERT INTO notices (notice_id, shop, body_sha256, body, state, received_at)
         VALUES ({notice_id}, {shop}, {sha256}, '{{}}', 'done', '{START}')"
    )
}

/// What has one of these ids.
const ONE_ID: &str = "'00000000-0000-7000-8000-000000000001'::uuid";

#[tokio::test]
async fn an_agreement_that_cannot_be_billed_is_refused() {
    let world = one_planned_charge().await;
    for (constraint, column, wrong) in [
        ("subscriptions_amount_minor_check", "amount_minor", "0"),
        (
            "subscriptions_amount_minor_check",
            "amount_minor",
            "1000000000",
        ),
        ("subscriptions_external_id_check", "external_id", "''"),
        (
            "subscriptions_external_id_check",
            "external_id",
            "repeat('x', 201)",
        ),
        (
            "subscriptions_first_period_no_check",
            "first_period_no",
            "-1",
        ),
        ("subscriptions_max_charges_check", "max_charges", "0"),
        ("subscriptions_period_check", "period", "'P0M'"),
        ("subscriptions_period_check", "period", "'1 month'"),
        ("subscriptions_period_check", "period", "'P13M'"),
        ("subscriptions_period_check", "period", "'P367D'"),
    ] {
        let guard = without("subscriptions", constraint);
        let wrong = subscription(&[(column, wrong)]);
        is_refused(&world, "23514", &guard, &[&wrong]).await;
    }
    is_refused(
        &world,
        "23505",
        &without("subscriptions", "subscriptions_shop_external_id_key"),
        &[&subscription(&[("external_id", "external_id")])],
    )
    .await;
}

#[tokio::test]
async fn names_that_imoje_or_an_operator_cannot_write_are_refused() {
    let world = one_planned_charge().await;
    for cid in ["''", "'a b'", "repeat('x', 37)"] {
        let card = format!(
            "INSERT INTO cards (card_id, shop, cid, payment_profile_id, created_at)
             SELECT gen_random_uuid(), shop, {cid}, gen_random_uuid(), created_at FROM cards"
        );
        let guard = without("cards", "cards_cid_check");
        is_refused(&world, "23514", &guard, &[&card]).await;
    }
    for name in ["", "Main", "-main", "a b"] {
        let shop = format!(
            "INSERT INTO shops SELECT '{name}', environment, merchant_id, service_id, recorded_at FROM shops"
        );
        let guard = without("shops", "shops_shop_check");
        is_refused(&world, "23514", &guard, &[&shop]).await;
        let brake = format!(
            "INSERT INTO brakes SELECT '{name}', 'stop', reason, actor, changed_at FROM brakes"
        );
        let guard = without("brakes", "brakes_shop_check");
        is_refused(&world, "23514", &guard, &[&brake]).await;
    }
    // All shops have a brake, but are no shop.
    let all = "INSERT INTO shops SELECT '*', environment, merchant_id, service_id, recorded_at FROM shops";
    is_refused(
        &world,
        "23514",
        &without("shops", "shops_shop_check"),
        &[all],
    )
    .await;
}

#[tokio::test]
async fn a_charge_is_about_an_amount_and_a_period_and_counts_upwards() {
    let world = one_planned_charge().await;
    // The terms of the subscription refuse these as well.
    for (constraint, column, wrong) in [
        ("charges_amount_minor_check", "amount_minor", "0"),
        ("charges_amount_minor_check", "amount_minor", "1000000000"),
        ("charges_period_no_check", "period_no", "-1"),
    ] {
        let guard = without("charges", constraint);
        let wrong = charge(&[(column, wrong)]);
        is_refused(&world, "23514", &guard, &[CHARGE_BIRTH, &wrong]).await;
    }
    for (constraint, wrong) in [
        ("charges_attempts_check", "attempts = -1"),
        ("charges_declines_check", "declines = -1"),
        ("charges_unsent_check", "unsent = -1"),
    ] {
        let guard = without("charges", constraint);
        let wrong = format!("UPDATE charges SET {wrong}");
        is_refused(&world, "23514", &guard, &[CHARGE_FACTS, &wrong]).await;
    }
    is_refused(
        &world,
        "23514",
        &without("due_periods", "due_periods_period_no_check"),
        &["UPDATE due_periods SET period_no = -1"],
    )
    .await;
}

#[tokio::test]
async fn an_attempt_says_what_its_state_rests_on() {
    let world = one_planned_charge().await;
    let first = permit(&[]);
    let unnumbered = permit(&[("{n}", "0")]);
    let guard = without("attempts", "attempts_attempt_no_check");
    is_refused(&world, "23514", &guard, &[&unnumbered]).await;

    let changed = |state: &str, was: &str, is: &str| {
        let becomes = become_attempt(state);
        assert!(becomes.contains(was), "{becomes}");
        becomes.replace(was, is)
    };
    let undecided = changed(
        "refused",
        &format!("ELSE timestamptz '{START}' END"),
        "ELSE NULL::timestamptz END",
    );
    let decided = format!("UPDATE attempts SET decided_at = '{START}'");
    let guard = without("attempts", "final_attempts_say_when");
    is_refused(&world, "23514", &guard, &[&first, &undecided]).await;
    is_refused(&world, "23514", &guard, &[&first, &decided]).await;

    let drawn = "ELSE coalesce(transaction_id, gen_random_uuid()) END";
    let guard = without("attempts", "the_gateway_named_it");
    for state in ["pending", "settled", "surplus", "rejected"] {
        let nameless = changed(state, drawn, "END");
        is_refused(&world, "23514", &guard, &[&first, &nameless]).await;
    }

    let unclassed = changed("rejected", "decline = 'soft'", "decline = NULL");
    let guard = without("attempts", "declines_have_a_class");
    is_refused(&world, "23514", &guard, &[&first, &unclassed]).await;
}

#[tokio::test]
async fn notices_and_events_are_whole_and_about_something_that_there_is() {
    let world = one_planned_charge().await;
    for (constraint, sqlstate, wrong) in [
        (
            "notices_body_sha256_check",
            "23514",
            notice("gen_random_uuid()", "'main'", "'x'"),
        ),
        (
            "notices_shop_fkey",
            "23503",
            notice("gen_random_uuid()", "'nowhere'", "sha256('x')"),
        ),
    ] {
        let guard = without("notices", constraint);
        is_refused(&world, sqlstate, &guard, &[&wrong]).await;
    }
    for (subscription_id, sequence_no) in [("subscription_id", "NULL"), ("NULL", "1")] {
        let guard = without("events", "events_of_a_subscription_have_a_number");
        let wrong = event("gen_random_uuid()", subscription_id, sequence_no);
        is_refused(&world, "23514", &guard, &[&wrong]).await;
    }
    let numbered = event("gen_random_uuid()", "subscription_id", "1000");
    let guard = without("events", "events_are_numbered_per_subscription");
    is_refused(&world, "23505", &guard, &[&numbered, &numbered]).await;

    let told = event(ONE_ID, "NULL::uuid", "NULL::bigint");
    let deliver = |event_id: &str, channel: &str| {
        format!(
            "INSERT INTO outbox (event_id, channel, next_attempt_at) VALUES ({event_id}, '{channel}', '{START}')"
        )
    };
    let guard = without("outbox", "outbox_channel_check");
    is_refused(&world, "23514", &guard, &[&told, &deliver(ONE_ID, "mail")]).await;
    let guard = without("outbox", "outbox_event_id_fkey");
    is_refused(
        &world,
        "23503",
        &guard,
        &[&told, &deliver("gen_random_uuid()", "log")],
    )
    .await;
}

#[tokio::test]
async fn there_is_one_installation_and_one_archive() {
    let world = one_planned_charge().await;
    for (table, key, check, columns) in [
        (
            "installation",
            "installation_pkey",
            "installation_singleton_check",
            "fence_id, system_identifier, timeline, database_oid, adopted_at, adopted_by, reason",
        ),
        (
            "archive",
            "archive_pkey",
            "archive_singleton_check",
            "kept_from",
        ),
    ] {
        for (constraint, sqlstate, singleton) in [(key, "23505", true), (check, "23514", false)] {
            let another = format!(
                "INSERT INTO {table} (singleton, {columns}) SELECT {singleton}, {columns} FROM {table}"
            );
            is_refused(&world, sqlstate, &without(table, constraint), &[&another]).await;
        }
    }
}

#[tokio::test]
async fn nothing_is_there_twice_under_one_key() {
    let world = one_planned_charge().await;
    let worked =
        format!("INSERT INTO worker_runs (worker, last_started_at) VALUES ('test', '{START}')");
    let told = event(ONE_ID, "NULL::uuid", "NULL::bigint");
    let delivered = format!("INSERT INTO outbox VALUES ({ONE_ID}, 'log', 0, '{START}')");
    let card = "INSERT INTO cards (card_id, shop, cid, payment_profile_id, created_at)
                SELECT card_id, shop, 'another', gen_random_uuid(), created_at FROM cards";
    let permitted = permit(&[("attempt_id", ONE_ID)]);
    // Written down, not asked: what was never sent needs no distance.
    let again = permit(&[
        ("attempt_id", ONE_ID),
        ("{n}", "2"),
        ("state", "'not_sent'"),
        ("decided_at", "{at}"),
    ]);
    let proven = "INSERT INTO evidence (evidence_id, attempt_id, subscription_id, kind, verdict, actor, recorded_at)
                  SELECT attempt_id, attempt_id, subscription_id, 'read', 'refused', 'test', permitted_at FROM attempts";
    let lost = format!(
        "INSERT INTO lost_permits
         SELECT {ONE_ID}, subscription_id, shop, card_id, 0, 1, 'test', 1, currency, false, '{START}', NULL, '{START}', 'unplaced'
         FROM subscriptions"
    );
    let planned = "INSERT INTO daily_plans VALUES ('main', '2020-01-01', 'PLN', 1, 1, now())";
    let counted = "INSERT INTO daily_permits VALUES ('main', '2020-01-01', 'PLN', 1, 1, 1)";
    for (table, key, statements) in [
        (
            "shops",
            "shops_pkey",
            &["INSERT INTO shops SELECT * FROM shops"][..],
        ),
        (
            "brakes",
            "brakes_pkey",
            &["INSERT INTO brakes SELECT * FROM brakes"],
        ),
        ("cards", "cards_pkey", &[card]),
        (
            "subscriptions",
            "subscriptions_pkey",
            &[&subscription(&[("subscription_id", "subscription_id")])],
        ),
        (
            "due_periods",
            "due_periods_pkey",
            &["INSERT INTO due_periods SELECT * FROM due_periods"],
        ),
        (
            "charges",
            "charges_pkey",
            &[&charge(&[("charge_id", "(SELECT charge_id FROM charges)")])],
        ),
        ("attempts", "attempts_pkey", &[&permitted, &again]),
        ("evidence", "evidence_pkey", &[&permitted, proven, proven]),
        (
            "notices",
            "notices_pkey",
            &[
                &notice(ONE_ID, "'main'", "sha256('x')"),
                &notice(ONE_ID, "'main'", "sha256('y')"),
            ],
        ),
        ("events", "events_pkey", &[&told, &told]),
        ("outbox", "outbox_pkey", &[&told, &delivered, &delivered]),
        ("worker_runs", "worker_runs_pkey", &[&worked, &worked]),
        ("lost_permits", "lost_permits_pkey", &[&lost, &lost]),
        ("daily_plans", "daily_plans_pkey", &[planned, planned]),
        ("daily_permits", "daily_permits_pkey", &[counted, counted]),
    ] {
        is_refused(&world, "23505", &without(table, key), statements).await;
    }
}
