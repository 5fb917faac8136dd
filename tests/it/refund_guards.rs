//! What the database refuses about refunds, whoever asks. Each guard is taken away as well, as in `schema.rs`.

use cykl::simulator::{Behaviour, Script};

use crate::harness::{Agreement, START, World};
use crate::schema::{is_refused, outcome, with_changes};

const PERMIT_GATE: &str = "ALTER TABLE refunds DISABLE TRIGGER refund_insert";
const STEP: &str = "ALTER TABLE refunds DISABLE TRIGGER refund_step";
const FACTS: &str = "ALTER TABLE refunds DISABLE TRIGGER refund_facts";
const EVIDENCE: &str = "ALTER TABLE refunds DISABLE TRIGGER refund_needs_evidence";

/// Of the same refund, wherever it is named.
const ID: &str = "'00000000-0000-7000-8000-000000000001'::uuid";

/// Takes a constraint away.
fn without(table: &str, constraint: &str) -> String {
    format!("ALTER TABLE {table} DROP CONSTRAINT {constraint} CASCADE")
}

/// A world with one charge that is paid.
async fn paid() -> World {
    let world = World::new(Script::default()).await;
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world.run_until_idle().await;
    world
}

/// A permit to give all of it back, with some columns other than that.
fn refund(changed: &[(&str, &str)]) -> String {
    let start = format!("'{START}'");
    let columns = [
        ("refund_id", "gen_random_uuid()"),
        ("attempt_id", "attempt_id"),
        ("charge_id", "charge_id"),
        ("subscription_id", "subscription_id"),
        ("shop", "shop"),
        ("sale_transaction_id", "transaction_id"),
        ("order_id", "order_id"),
        ("origin", "'cykl'"),
        ("amount_minor", "amount_minor"),
        ("currency", "currency"),
        ("state", "'in_doubt'"),
        ("transaction_id", "NULL"),
        ("reason", "'a test'"),
        ("actor", "'eve'"),
        ("fence_id", "fence_id"),
        ("permitted_at", &start),
        ("deadline_at", &start),
        ("next_poll_at", &start),
        ("decided_at", "NULL"),
    ];
    let (names, values) = with_changes(&columns, changed);
    format!("INSERT INTO refunds ({names}) SELECT {values} FROM attempts")
}

/// One that imoje lists and nobody here ordered.
fn found(changed: &[(&str, &str)]) -> String {
    let start = format!("'{START}'");
    let elsewhere = [
        ("origin", "'elsewhere'"),
        ("state", "'settled'"),
        ("transaction_id", "gen_random_uuid()"),
        ("next_poll_at", "NULL"),
        ("decided_at", start.as_str()),
    ];
    let kept = elsewhere
        .iter()
        .filter(|(name, _)| changed.iter().all(|(changed, _)| changed != name));
    let all: Vec<_> = kept.chain(changed).copied().collect();
    refund(&all)
}

/// What was found out about the refund.
fn evidence(changed: &[(&str, &str)]) -> String {
    let start = format!("'{START}'");
    let columns = [
        ("evidence_id", "gen_random_uuid()"),
        ("refund_id", ID),
        ("kind", "'answer'"),
        ("verdict", "'settled'"),
        ("detail", "NULL"),
        ("actor", "'cykl'"),
        ("recorded_at", &start),
    ];
    let (names, values) = with_changes(&columns, changed);
    format!("INSERT INTO refund_evidence ({names}) SELECT {values}")
}

/// The refund becomes this, by its only evidence.
fn become_state(state: &str) -> String {
    let is_open = matches!(state, "in_doubt" | "pending");
    let (decided, poll) = if is_open {
        ("NULL".to_owned(), format!("'{START}'"))
    } else {
        (format!("'{START}'"), "NULL".to_owned())
    };
    format!(
        "UPDATE refunds SET state = '{state}', transaction_id = coalesce(transaction_id, gen_random_uuid()),
                decided_at = {decided}, next_poll_at = {poll},
                last_evidence_id = (SELECT evidence_id FROM refund_evidence WHERE verdict = '{state}' LIMIT 1)
         WHERE refund_id = {ID}"
    )
}

#[tokio::test]
async fn a_refund_says_what_its_state_rests_on() {
    let world = paid().await;
    let start = format!("'{START}'");
    for (constraint, statement) in [
        (
            "refunds_amount_minor_check",
            refund(&[("amount_minor", "0")]),
        ),
        ("refunds_state_check", found(&[("state", "'surplus'")])),
        ("final_refunds_say_when", found(&[("decided_at", "NULL")])),
        ("final_refunds_say_when", refund(&[("decided_at", &start)])),
        (
            "open_refunds_are_looked_at",
            refund(&[("next_poll_at", "NULL")]),
        ),
        (
            "open_refunds_are_looked_at",
            found(&[("next_poll_at", &start)]),
        ),
        ("our_refunds_say_who_and_why", refund(&[("reason", "NULL")])),
        ("our_refunds_say_who_and_why", refund(&[("reason", "' '")])),
        (
            "our_refunds_say_who_and_why",
            refund(&[("actor", "' Cykl '")]),
        ),
        (
            "refunds_from_elsewhere_are_named",
            found(&[("transaction_id", "NULL"), ("state", "'refused'")]),
        ),
    ] {
        is_refused(
            &world,
            "23514",
            &without("refunds", constraint),
            &[&statement],
        )
        .await;
    }
    let unnamed = without("refunds", "refunds_from_elsewhere_are_named");
    is_refused(
        &world,
        "23514",
        &without("refunds", "the_gateway_named_the_refund"),
        &[&unnamed, &found(&[("transaction_id", "NULL")])],
    )
    .await;
    let permit = refund(&[("refund_id", ID)]);
    for nobody in [
        [("kind", "'person'"), ("actor", "'eve'")],
        [("kind", "'person'"), ("detail", "'not there'")],
    ] {
        is_refused(
            &world,
            "23514",
            &without("refund_evidence", "people_say_who_and_why_of_refunds"),
            &[&permit, &evidence(&nobody)],
        )
        .await;
    }
    is_refused(
        &world,
        "23503",
        &without("refund_evidence", "refund_evidence_refund_id_fkey"),
        &[&evidence(&[])],
    )
    .await;
}

#[tokio::test]
async fn a_refund_is_there_once_under_each_of_its_names() {
    let world = paid().await;
    let half = ("amount_minor", "100");
    let later = ("permitted_at", "'2027-01-01T08:00:00Z'");
    for (guard, first, second) in [
        (
            without("refunds", "refunds_pkey"),
            refund(&[("refund_id", ID), half]),
            found(&[("refund_id", ID)]),
        ),
        (
            without("refunds", "transaction_belongs_to_one_refund"),
            found(&[("transaction_id", ID)]),
            found(&[("transaction_id", ID)]),
        ),
        (
            "DROP INDEX one_refund_in_doubt".to_owned(),
            refund(&[half]),
            refund(&[half, later]),
        ),
    ] {
        is_refused(&world, "23505", &guard, &[&first, &second]).await;
    }
    let once = evidence(&[("evidence_id", ID)]);
    is_refused(
        &world,
        "23505",
        &without("refund_evidence", "refund_evidence_pkey"),
        &[&refund(&[("refund_id", ID)]), &once, &once],
    )
    .await;
}

#[tokio::test]
async fn a_refund_is_of_a_debit_that_moved_money() {
    let world = paid().await;
    for wrong in [
        ("sale_transaction_id", "gen_random_uuid()"),
        ("attempt_id", "gen_random_uuid()"),
        ("charge_id", "gen_random_uuid()"),
        ("subscription_id", "gen_random_uuid()"),
        ("shop", "'other'"),
        ("order_id", "'another'"),
        ("currency", "'EUR'"),
    ] {
        is_refused(&world, "CY003", PERMIT_GATE, &[&refund(&[wrong])]).await;
        is_refused(&world, "CY003", PERMIT_GATE, &[&found(&[wrong])]).await;
    }
    let settled = [
        ("state", "'settled'"),
        ("transaction_id", "gen_random_uuid()"),
        ("next_poll_at", "NULL"),
        ("decided_at", "permitted_at"),
    ];
    is_refused(&world, "CY006", PERMIT_GATE, &[&refund(&settled)]).await;
    let pending = World::new(Script::default()).await;
    let endless = Behaviour::pending_for_ever();
    pending
        .subscribe(Agreement::monthly("2027-01-01").with_card(endless))
        .await;
    pending.charge().await;
    is_refused(&pending, "CY003", PERMIT_GATE, &[&refund(&[])]).await;
}

#[tokio::test]
async fn no_refund_is_permitted_in_another_installation() {
    let world = paid().await;
    let strange = refund(&[("fence_id", "gen_random_uuid()")]);
    is_refused(&world, "CY002", PERMIT_GATE, &[&strange]).await;
    for moved in ["system_identifier", "timeline", "database_oid"] {
        let moved = format!("UPDATE installation SET {moved} = {moved} + 1");
        is_refused(&world, "CY002", PERMIT_GATE, &[&moved, &refund(&[])]).await;
    }
    let found = found(&[("fence_id", "NULL")]);
    assert_eq!(outcome(&world, &[&found]).await, "ok", "it is a fact");
}

#[tokio::test]
async fn refunds_of_a_shop_keep_their_distance() {
    let world = paid().await;
    let some = ("amount_minor", "100");
    let first = refund(&[("refund_id", ID), some]);
    let settle = become_state("settled");
    let at = |time| refund(&[some, ("permitted_at", time)]);
    let soon = at("'2027-01-01T07:00:05.999Z'");
    let decided = [first.as_str(), &evidence(&[]), &settle];
    is_refused(
        &world,
        "CY013",
        PERMIT_GATE,
        &[&decided[..], &[&soon]].concat(),
    )
    .await;
    let later = at("'2027-01-01T07:00:06Z'");
    assert_eq!(
        outcome(&world, &[&decided[..], &[&later]].concat()).await,
        "ok"
    );
    let found = found(&[some]);
    assert_eq!(outcome(&world, &[&found, &soon]).await, "ok");
}

#[tokio::test]
async fn no_more_is_permitted_to_go_back_than_was_taken() {
    let world = paid().await;
    let more = refund(&[("amount_minor", "amount_minor + 1")]);
    is_refused(&world, "CY014", PERMIT_GATE, &[&more]).await;
    let part = found(&[("amount_minor", "1")]);
    is_refused(&world, "CY014", PERMIT_GATE, &[&part, &refund(&[])]).await;
    let rest = refund(&[("amount_minor", "amount_minor - 1")]);
    assert_eq!(outcome(&world, &[&part, &rest]).await, "ok");
    let failed = found(&[("state", "'rejected'")]);
    assert_eq!(outcome(&world, &[&failed, &refund(&[])]).await, "ok");
}

#[tokio::test]
async fn a_refund_takes_the_steps_of_an_attempt() {
    let world = paid().await;
    let permit = refund(&[("refund_id", ID)]);
    let settled = [permit.as_str(), &evidence(&[]), &become_state("settled")];
    for undone in ["in_doubt", "pending", "rejected", "absent"] {
        let verdict = format!("'{undone}'");
        let said = evidence(&[
            ("verdict", verdict.as_str()),
            ("kind", "'person'"),
            ("actor", "'eve'"),
            ("detail", "'undone'"),
        ]);
        let unguarded = "ALTER TABLE refunds DISABLE TRIGGER refund_needs_evidence";
        let step = become_state(undone);
        let steps = [&settled[..], &[unguarded, &said, &step]].concat();
        is_refused(&world, "CY006", STEP, &steps).await;
    }
}

#[tokio::test]
async fn the_facts_of_a_refund_never_change() {
    let world = paid().await;
    let permit = refund(&[("refund_id", ID)]);
    let settled = [permit.as_str(), &evidence(&[]), &become_state("settled")];
    for changed in [
        "attempt_id = gen_random_uuid()",
        "charge_id = gen_random_uuid()",
        "subscription_id = gen_random_uuid()",
        "shop = 'other'",
        "sale_transaction_id = gen_random_uuid()",
        "order_id = 'another'",
        "origin = 'elsewhere'",
        "amount_minor = amount_minor - 1",
        "currency = 'EUR'",
        "title = 'x'",
        "reason = 'another'",
        "actor = 'mallory'",
        "fence_id = gen_random_uuid()",
        "permitted_at = now()",
        "deadline_at = now()",
        "transaction_id = gen_random_uuid()",
    ] {
        let change = format!("UPDATE refunds SET {changed}");
        let steps = [&settled[..], &[&change]].concat();
        is_refused(&world, "CY007", FACTS, &steps).await;
    }
}

#[tokio::test]
async fn a_refund_moves_only_with_evidence() {
    let world = paid().await;
    let permit = refund(&[("refund_id", ID)]);
    for said in [
        evidence(&[("verdict", "'rejected'")]),
        // About another refund.
        found(&[("refund_id", "'00000000-0000-7000-8000-000000000002'")])
            + "; "
            + &evidence(&[("refund_id", "'00000000-0000-7000-8000-000000000002'")]),
    ] {
        let steps = [permit.as_str(), &said, &become_state("settled")];
        is_refused(&world, "CY008", EVIDENCE, &steps).await;
    }
    let absent = |changed: &[(&str, &str)]| {
        let said = [
            ("verdict", "'absent'"),
            ("kind", "'person'"),
            ("actor", "'eve'"),
            ("detail", "'not there'"),
            ("recorded_at", "'2027-01-05T11:00:00Z'"),
        ];
        let kept = said
            .iter()
            .filter(|(name, _)| changed.iter().all(|(changed, _)| changed != name));
        evidence(&kept.chain(changed).copied().collect::<Vec<_>>())
    };
    let step = become_state("absent").replace(
        "coalesce(transaction_id, gen_random_uuid())",
        "transaction_id",
    );
    assert_eq!(outcome(&world, &[&permit, &absent(&[]), &step]).await, "ok");
    for unfounded in [
        ("kind", "'read'"),
        ("recorded_at", "'2027-01-05T10:59:59Z'"),
    ] {
        let steps = [permit.as_str(), &absent(&[unfounded]), &step];
        is_refused(&world, "CY011", EVIDENCE, &steps).await;
    }
}

#[tokio::test]
async fn what_is_known_of_refunds_is_only_ever_added_to() {
    let world = paid().await;
    let permit = refund(&[("refund_id", ID)]);
    for statement in ["DELETE FROM refunds", "TRUNCATE refunds CASCADE"] {
        // Evidence would go with them.
        let guard = "ALTER TABLE refunds DISABLE TRIGGER refunds_are_kept; \
                     ALTER TABLE refund_evidence DISABLE TRIGGER refund_evidence_is_append_only";
        is_refused(&world, "CY009", guard, &[&permit, statement]).await;
    }
    for statement in [
        "UPDATE refund_evidence SET detail = 'another'",
        "DELETE FROM refund_evidence",
        "TRUNCATE refund_evidence",
    ] {
        let guard = "ALTER TABLE refund_evidence DISABLE TRIGGER refund_evidence_is_append_only";
        let steps = [permit.as_str(), &evidence(&[]), statement];
        is_refused(&world, "CY009", guard, &steps).await;
    }
}
