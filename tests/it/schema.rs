//! What the database refuses, whoever asks. Each guard is taken away as well, to see that it was that one which refused.

use std::collections::BTreeSet;
use std::sync::Arc;

use cykl::domain::attempt::{AttemptEvent, AttemptState};
use cykl::domain::charge::{ChargeEvent, ChargeState};
use cykl::domain::decline::DeclineClass;
use cykl::domain::money::Currency;
use cykl::domain::shop::Environment;
use cykl::domain::subscription::{SubscriptionEvent, SubscriptionStatus};
use cykl::simulator::Script;
use cykl::store::brakes::BrakeMode;
use cykl::store::permits::Claim;
use sqlx::AssertSqlSafe;
use tokio::task::JoinSet;

use crate::harness::{Agreement, START, World};

/// A world with one subscription, due on the last day of each month, and its charge for December, planned and not sent.
pub async fn one_planned_charge() -> World {
    let world = World::new(Script::default()).await;
    world.subscribe(Agreement::monthly("2026-12-31")).await;
    let now = world.clock.now();
    world.workers.scheduler.run_once(now).await.unwrap();
    assert_eq!(world.charges().await, ["planned"]);
    world
}

/// A permit for every charge, with some columns other than they should be.
pub fn permit(changed: &[(&str, &str)]) -> String {
    let columns = [
        ("attempt_id", "gen_random_uuid()"),
        ("charge_id", "c.charge_id"),
        ("subscription_id", "c.subscription_id"),
        ("shop", "c.shop"),
        ("card_id", "s.card_id"),
        ("period_no", "c.period_no"),
        ("attempt_no", "{n}"),
        (
            "order_id",
            "'cykl-' || replace(c.subscription_id::text, '-', '') || '-' || c.period_no || '-' || {n}",
        ),
        ("amount_minor", "c.amount_minor"),
        ("currency", "c.currency"),
        ("state", "'in_doubt'"),
        ("is_retry", "false"),
        ("fence_id", "i.fence_id"),
        ("permitted_at", "{at}"),
        ("deadline_at", "{at} + interval '150 seconds'"),
        ("quiet_until", "{at} + interval '20 hours'"),
        ("transaction_id", "NULL"),
        ("decided_at", "NULL"),
    ];
    let value_of = |name: &str| {
        changed
            .iter()
            .find(|(of, _)| *of == name)
            .map(|(_, to)| *to)
    };
    let number = value_of("{n}").unwrap_or("1");
    let at = format!(
        "timestamptz '{START}' + interval '{}'",
        value_of("{at}").unwrap_or("0")
    );
    let (names, values): (Vec<_>, Vec<_>) = columns
        .into_iter()
        .map(|(name, usual)| {
            let value = value_of(name).unwrap_or(usual);
            (name, value.replace("{n}", number).replace("{at}", &at))
        })
        .unzip();
    format!(
        "INSERT INTO attempts ({}) SELECT {} FROM charges c JOIN subscriptions s USING (subscription_id), installation i
         WHERE c.state IN ({})",
        names.join(", "),
        values.join(", "),
        value_of("{of}").unwrap_or("'planned'")
    )
}

/// Takes every attempt to `state`, with evidence.
pub fn become_attempt(state: &str) -> String {
    format!(
        "WITH proof AS (
            INSERT INTO evidence (evidence_id, attempt_id, subscription_id, kind, verdict, actor, recorded_at)
            SELECT gen_random_uuid(), attempt_id, subscription_id, 'read', '{state}', 'test', '{START}' FROM attempts
            RETURNING attempt_id, evidence_id
        )
        UPDATE attempts a SET state = '{state}', last_evidence_id = p.evidence_id,
            transaction_id = CASE WHEN '{state}' IN ('in_doubt', 'not_sent', 'refused', 'absent') THEN transaction_id
                                  ELSE coalesce(transaction_id, gen_random_uuid()) END,
            decided_at = CASE WHEN '{state}' IN ('in_doubt', 'pending') THEN NULL ELSE timestamptz '{START}' END,
            decline = 'soft'
        FROM proof p WHERE a.attempt_id = p.attempt_id"
    )
}

/// Takes every charge to `state`, with whatever its columns need.
fn become_charge(state: &str) -> String {
    format!(
        "UPDATE charges c SET state = '{state}', reason = 'test',
            next_action_at = CASE WHEN '{state}' IN ('planned', 'in_flight', 'retry_wait', 'held')
                                  THEN timestamptz '{START}' END,
            paid_at = CASE WHEN '{state}' = 'paid' THEN timestamptz '{START}' END,
            paid_attempt_id = CASE WHEN '{state}' = 'paid'
                                   THEN (SELECT attempt_id FROM attempts a WHERE a.charge_id = c.charge_id LIMIT 1) END"
    )
}

/// The names and the values of a row, of which some are other than usual.
pub fn with_changes(usual: &[(&str, &str)], changed: &[(&str, &str)]) -> (String, String) {
    let (names, values): (Vec<_>, Vec<_>) = usual
        .iter()
        .map(|(name, value)| {
            let other = changed.iter().find(|(of, _)| of == name);
            (*name, other.map_or(*value, |(_, to)| *to))
        })
        .unzip();
    (names.join(", "), values.join(", "))
}

/// A charge for February, with some columns other than they should be.
pub fn charge(changed: &[(&str, &str)]) -> String {
    let columns = [
        ("charge_id", "gen_random_uuid()"),
        ("subscription_id", "s.subscription_id"),
        ("shop", "s.shop"),
        ("period_no", "2"),
        ("due_on", "date '2027-02-28'"),
        ("due_at", "timestamptz '2027-02-28T05:00:00Z'"),
        ("amount_minor", "s.amount_minor"),
        ("currency", "s.currency"),
        ("state", "'planned'"),
        ("reason", "NULL"),
        ("next_action_at", "timestamptz '2027-02-28T05:00:00Z'"),
        ("attempts", "0"),
        ("planned_at", "timestamptz '2027-02-28T05:00:00Z'"),
    ];
    let (names, values) = with_changes(&columns, changed);
    format!("INSERT INTO charges ({names}) SELECT {values} FROM subscriptions s")
}

/// Runs statements in a transaction that is rolled back. Returns the SQLSTATE of the last one, `ok` when it succeeds; the others
/// must succeed.
pub async fn outcome(world: &World, statements: &[&str]) -> String {
    let mut transaction = world.books.begin().await.unwrap();
    let (last, before) = statements.split_last().unwrap();
    for statement in before {
        sqlx::raw_sql(AssertSqlSafe((*statement).to_owned()))
            .execute(&mut *transaction)
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    let outcome = sqlx::raw_sql(AssertSqlSafe((*last).to_owned()))
        .execute(&mut *transaction)
        .await;
    transaction.rollback().await.unwrap();
    match outcome {
        Ok(_) => "ok".to_owned(),
        Err(error) => match error.as_database_error().and_then(|error| error.code()) {
            Some(code) => code.into_owned(),
            None => panic!("{last}: {error}"),
        },
    }
}

/// The last of `statements` is refused with `sqlstate`, and would not be without `guard`, a statement that removes it.
pub async fn is_refused(world: &World, sqlstate: &str, guard: &str, statements: &[&str]) {
    assert_eq!(
        outcome(world, statements).await,
        sqlstate,
        "{statements:#?}"
    );
    let unguarded: Vec<&str> = [guard].iter().chain(statements).copied().collect();
    assert_eq!(
        outcome(world, &unguarded).await,
        "ok",
        "something else than {guard} refuses {statements:#?}"
    );
}

const PERMIT_GATE: &str = "ALTER TABLE attempts DISABLE TRIGGER attempt_insert";
const ATTEMPT_STEP: &str = "ALTER TABLE attempts DISABLE TRIGGER attempt_step";
const ATTEMPT_FACTS: &str = "ALTER TABLE attempts DISABLE TRIGGER attempt_facts";
const NEW_EVIDENCE: &str = "ALTER TABLE attempts DISABLE TRIGGER attempt_needs_evidence";
const FITTING_EVIDENCE: &str = "ALTER TABLE attempts DISABLE TRIGGER attempt_evidence";
pub const CHARGE_BIRTH: &str = "ALTER TABLE charges DISABLE TRIGGER charge_insert";
const CHARGE_STEP: &str = "ALTER TABLE charges DISABLE TRIGGER charge_step";
pub const CHARGE_FACTS: &str = "ALTER TABLE charges DISABLE TRIGGER charge_facts";
const CHARGE_PAYMENT: &str = "ALTER TABLE charges DISABLE TRIGGER charge_payment";
/// What tests of other guards are not about.
const ABSENCE: &str = "ALTER TABLE attempts DISABLE TRIGGER absence_needs_two";
const GIVING_UP_AND_GOING_ON: &str =
    "ALTER TABLE charges DISABLE TRIGGER charge_gives_up, DISABLE TRIGGER charge_goes_on";
pub const SUBSCRIPTION_GUARD: &str =
    "ALTER TABLE subscriptions DISABLE TRIGGER subscription_update";

#[tokio::test]
async fn a_permit_that_fits_is_given() {
    let world = one_planned_charge().await;
    assert_eq!(outcome(&world, &[&permit(&[])]).await, "ok");
    // The tombstone of a permit that was never committed is no permit: no brake and no fence stops it.
    let tombstone = permit(&[("state", "'not_sent'"), ("decided_at", "{at}")]);
    assert_eq!(
        outcome(
            &world,
            &["DELETE FROM brakes", "DELETE FROM installation", &tombstone]
        )
        .await,
        "ok"
    );
}

#[tokio::test]
async fn an_attempt_is_unique_in_every_way_that_money_could_move_twice() {
    let world = one_planned_charge().await;
    let first = permit(&[]);
    let next = permit(&[("{n}", "2"), ("{at}", "21 hours")]);
    is_refused(
        &world,
        "23505",
        "DROP INDEX one_live_attempt",
        &[&first, &next],
    )
    .await;
    for live in ["pending", "settled"] {
        let first_is = become_attempt(live);
        is_refused(
            &world,
            "23505",
            "DROP INDEX one_live_attempt",
            &[&first, &first_is, &next],
        )
        .await;
    }
    let unsent = become_attempt("not_sent");
    let again = permit(&[("{at}", "21 hours")]);
    is_refused(
        &world,
        "23505",
        "ALTER TABLE attempts DROP CONSTRAINT order_id_is_never_reused",
        &[&first, &unsent, &again],
    )
    .await;
    is_refused(
        &world,
        "23514",
        "ALTER TABLE attempts DROP CONSTRAINT order_id_is_derived",
        &[&permit(&[("order_id", "'cykl-of-my-own'")])],
    )
    .await;
    let named = permit(&[("transaction_id", "'00000000-0000-4000-8000-000000000001'")]);
    let named_again = permit(&[
        ("{n}", "2"),
        ("{at}", "21 hours"),
        ("transaction_id", "'00000000-0000-4000-8000-000000000001'"),
    ]);
    is_refused(
        &world,
        "23505",
        "ALTER TABLE attempts DROP CONSTRAINT transaction_belongs_to_one_attempt",
        &[&named, &unsent, &named_again],
    )
    .await;
}

#[tokio::test]
async fn no_permit_is_given_while_a_brake_is_on() {
    let world = one_planned_charge().await;
    let permit = permit(&[]);
    for braked in [
        "UPDATE brakes SET mode = 'stop'",
        "UPDATE brakes SET mode = 'drain'",
        "INSERT INTO brakes SELECT 'main', 'stop', reason, actor, changed_at FROM brakes",
        "INSERT INTO brakes SELECT 'main', 'drain', reason, actor, changed_at FROM brakes",
        "UPDATE brakes SET mode = 'drain', until = changed_at",
        "DELETE FROM brakes",
    ] {
        is_refused(&world, "CY001", PERMIT_GATE, &[braked, &permit]).await;
    }
    let other = "INSERT INTO brakes SELECT 'other', 'stop', reason, actor, changed_at FROM brakes";
    assert_eq!(outcome(&world, &[other, &permit]).await, "ok");
}

/// A slow start that has given its only permit.
const SLOW: &str = "UPDATE brakes SET stage = 1, stage_since = changed_at, stage_max = 1, stage_attempts = ARRAY[gen_random_uuid()]";

#[tokio::test]
async fn no_permit_is_given_that_a_slow_start_has_not_counted() {
    let world = one_planned_charge().await;
    is_refused(&world, "CY001", PERMIT_GATE, &[SLOW, &permit(&[])]).await;
    let of_the_shop =
        "INSERT INTO brakes (shop, mode, reason, actor, changed_at, stage, stage_since, stage_max)
         SELECT 'main', 'run', reason, actor, changed_at, 1, changed_at, 1 FROM brakes";
    is_refused(&world, "CY001", PERMIT_GATE, &[of_the_shop, &permit(&[])]).await;
    let counted = permit(&[("attempt_id", "(SELECT stage_attempts[1] FROM brakes)")]);
    assert_eq!(outcome(&world, &[SLOW, &counted]).await, "ok");
}

#[tokio::test]
async fn a_slow_start_runs_within_its_limit_and_a_pause_is_a_drain() {
    let world = one_planned_charge().await;
    for (constraint, wrong) in [
        (
            "slow_starts_keep_their_limit",
            "UPDATE brakes SET stage_attempts = stage_attempts || gen_random_uuid()",
        ),
        ("slow_starts_run", "UPDATE brakes SET mode = 'stop'"),
        ("slow_starts_run", "UPDATE brakes SET stage_since = NULL"),
        ("brakes_stage_check", "UPDATE brakes SET stage = 4"),
        ("pauses_are_drains", "UPDATE brakes SET until = changed_at"),
    ] {
        let guard = format!("ALTER TABLE brakes DROP CONSTRAINT {constraint}");
        is_refused(&world, "23514", &guard, &[SLOW, wrong]).await;
    }
}

#[tokio::test]
async fn no_permit_is_given_in_another_installation() {
    let world = one_planned_charge().await;
    let stranger = permit(&[("fence_id", "gen_random_uuid()")]);
    is_refused(&world, "CY002", PERMIT_GATE, &[&stranger]).await;
    for moved in [
        "UPDATE installation SET system_identifier = system_identifier + 1",
        "UPDATE installation SET timeline = timeline + 1",
        "UPDATE installation SET database_oid = database_oid + 1",
    ] {
        is_refused(&world, "CY002", PERMIT_GATE, &[moved, &permit(&[])]).await;
    }
    // Without a row nothing may be charged either; then there is no fence id to write.
    let nowhere = permit(&[])
        .replace(", installation i", "")
        .replace("i.fence_id", "gen_random_uuid()");
    is_refused(
        &world,
        "CY002",
        PERMIT_GATE,
        &["DELETE FROM installation", &nowhere],
    )
    .await;
}

#[tokio::test]
async fn a_permit_fits_its_charge_its_subscription_and_its_card() {
    let world = one_planned_charge().await;
    world.subscribe(Agreement::monthly("2028-01-01")).await;
    for (column, value) in [
        ("amount_minor", "c.amount_minor + 1"),
        ("currency", "'EUR'"),
        (
            "card_id",
            "(SELECT card_id FROM cards k WHERE k.card_id <> s.card_id)",
        ),
        (
            "subscription_id",
            "(SELECT subscription_id FROM subscriptions o WHERE o.subscription_id <> c.subscription_id)",
        ),
        ("shop", "'other'"),
    ] {
        let mut changed = vec![(column, value)];
        if column == "subscription_id" {
            changed.push((
                "order_id",
                "'cykl-' || (SELECT replace(o.subscription_id::text, '-', '') FROM subscriptions o
                             WHERE o.subscription_id <> c.subscription_id) || '-0-1'",
            ));
        }
        is_refused(&world, "CY003", PERMIT_GATE, &[&permit(&changed)]).await;
    }
    let other_period = permit(&[
        ("period_no", "7"),
        (
            "order_id",
            "'cykl-' || replace(c.subscription_id::text, '-', '') || '-7-1'",
        ),
    ]);
    is_refused(&world, "CY003", PERMIT_GATE, &[&other_period]).await;
    for unfit in [
        "UPDATE cards SET is_active = false",
        "UPDATE subscriptions SET status = 'paused'",
        "UPDATE subscriptions SET status = 'cancelled'",
        "UPDATE subscriptions SET status = 'deactivated', status_reason = 'test'",
    ] {
        is_refused(&world, "CY003", PERMIT_GATE, &[unfit, &permit(&[])]).await;
    }
}

#[tokio::test]
async fn no_permit_is_given_for_a_charge_that_does_not_wait_for_one() {
    let world = one_planned_charge().await;
    for state in ["in_flight", "held", "skipped", "void"] {
        let of = format!("'{state}'");
        let permit = permit(&[("{of}", &of)]);
        is_refused(
            &world,
            "CY003",
            PERMIT_GATE,
            &[&become_charge(state), &permit],
        )
        .await;
    }
    // A charge can be failed or paid only after an attempt; the late truth of a surplus frees the index again.
    let (first, next) = (
        permit(&[]),
        permit(&[
            ("{n}", "2"),
            ("{at}", "21 hours"),
            ("{of}", "'paid', 'failed'"),
        ]),
    );
    let surplus = become_attempt("surplus");
    is_refused(
        &world,
        "CY003",
        PERMIT_GATE,
        &[&first, &surplus, &become_charge("paid"), &next],
    )
    .await;
    let refused = become_attempt("refused");
    is_refused(
        &world,
        "CY003",
        PERMIT_GATE,
        &[
            &first,
            &refused,
            &become_charge("in_flight"),
            &become_charge("failed"),
            &next,
        ],
    )
    .await;
}

#[tokio::test]
async fn permits_of_a_subscription_keep_their_distance() {
    let world = one_planned_charge().await;
    let first = permit(&[]);
    for state in ["refused", "rejected", "absent"] {
        let ended = become_attempt(state);
        let soon = permit(&[("{n}", "2"), ("{at}", "19 hours 59 minutes")]);
        let statements = [ABSENCE, &first, &ended, &soon];
        is_refused(&world, "CY004", PERMIT_GATE, &statements).await;
        let later = permit(&[("{n}", "2"), ("{at}", "20 hours")]);
        let statements = [ABSENCE, &first, &ended, &later];
        assert_eq!(outcome(&world, &statements).await, "ok");
    }
    // What was never sent needs no distance.
    let unsent = become_attempt("not_sent");
    let soon = permit(&[("{n}", "2"), ("{at}", "1 minute")]);
    assert_eq!(outcome(&world, &[&first, &unsent, &soon]).await, "ok");
    // Another period of the same subscription keeps it too, whatever became of the first.
    let flying = become_charge("in_flight");
    let february = charge(&[]);
    let next = permit(&[("{at}", "1 hour")]);
    for state in ["in_doubt", "pending", "settled", "rejected"] {
        let stands = become_attempt(state);
        is_refused(
            &world,
            "CY004",
            PERMIT_GATE,
            &[&first, &stands, &flying, &february, &next],
        )
        .await;
    }
}

#[tokio::test]
async fn no_permit_is_given_before_an_earlier_attempt_was_read_again() {
    let world = one_planned_charge().await;
    let first = permit(&[]);
    let next = permit(&[("{n}", "2"), ("{at}", "21 hours")]);
    let to_read = "UPDATE attempts SET next_poll_at = permitted_at";
    let rejected = become_attempt("rejected");
    is_refused(
        &world,
        "CY005",
        PERMIT_GATE,
        &[&first, &rejected, to_read, &next],
    )
    .await;
    let surplus = become_attempt("surplus");
    is_refused(&world, "CY005", PERMIT_GATE, &[&first, &surplus, &next]).await;
    assert_eq!(outcome(&world, &[&first, &rejected, &next]).await, "ok");
}

/// A permit for the charge that the books have forgotten.
fn forgotten(fate: &str, attempt_id: &str, amount_minor: &str) -> String {
    format!(
        "INSERT INTO lost_permits
         SELECT {attempt_id}, c.subscription_id, c.shop, s.card_id, c.period_no, 1,
                'cykl-' || replace(c.subscription_id::text, '-', '') || '-' || c.period_no || '-1', {amount_minor}, c.currency, false,
                '{START}', NULL, '{START}', '{fate}'
         FROM charges c JOIN subscriptions s USING (subscription_id)"
    )
}

#[tokio::test]
async fn no_permit_is_given_for_a_period_of_which_one_was_forgotten() {
    let world = one_planned_charge().await;
    let unplaced = forgotten("unplaced", "gen_random_uuid()", "c.amount_minor");
    is_refused(&world, "CY012", PERMIT_GATE, &[&unplaced, &permit(&[])]).await;
    let superseded = forgotten("superseded", "gen_random_uuid()", "c.amount_minor");
    assert_eq!(outcome(&world, &[&superseded, &permit(&[])]).await, "ok");
}

#[tokio::test]
async fn only_what_was_permitted_comes_back_under_a_brake() {
    const ID: &str = "'00000000-0000-4000-8000-000000000001'::uuid";
    let world = one_planned_charge().await;
    let braked = "UPDATE brakes SET mode = 'stop'";
    let back = permit(&[("attempt_id", ID)]);
    let restored = forgotten("restored", ID, "c.amount_minor");
    assert_eq!(outcome(&world, &[braked, &restored, &back]).await, "ok");
    for other in [
        forgotten("restored", ID, "c.amount_minor + 1"),
        forgotten("restored", "gen_random_uuid()", "c.amount_minor"),
        forgotten("superseded", ID, "c.amount_minor"),
    ] {
        is_refused(&world, "CY001", PERMIT_GATE, &[braked, &other, &back]).await;
    }
}

#[tokio::test]
async fn attempts_are_born_in_doubt() {
    let world = one_planned_charge().await;
    for state in AttemptState::ALL {
        let name = format!("'{}'", state.as_str());
        let born = permit(&[
            ("state", &name),
            ("transaction_id", "gen_random_uuid()"),
            (
                "decided_at",
                match state {
                    AttemptState::InDoubt | AttemptState::Pending => "NULL",
                    AttemptState::NotSent
                    | AttemptState::Refused
                    | AttemptState::Settled
                    | AttemptState::Rejected
                    | AttemptState::Absent
                    | AttemptState::Surplus => "{at}",
                },
            ),
        ]);
        let refusal = match state {
            AttemptState::InDoubt | AttemptState::NotSent => "ok",
            // A decline without a class is refused before anything else.
            AttemptState::Rejected => "23514",
            AttemptState::Refused
            | AttemptState::Pending
            | AttemptState::Settled
            | AttemptState::Absent
            | AttemptState::Surplus => "CY006",
        };
        assert_eq!(outcome(&world, &[&born]).await, refusal, "{state:?}");
    }
}

#[tokio::test]
async fn the_facts_of_an_attempt_never_change() {
    let world = one_planned_charge().await;
    let first = permit(&[]);
    for change in [
        "amount_minor = 1",
        "currency = 'EUR'",
        "shop = 'other'",
        "is_retry = true",
        "fence_id = gen_random_uuid()",
        "permitted_at = permitted_at - interval '1 day'",
        "quiet_until = permitted_at",
        "attempt_no = 2, order_id = left(order_id, -1) || '2'",
    ] {
        let change = format!("UPDATE attempts SET {change}");
        is_refused(&world, "CY007", ATTEMPT_FACTS, &[&first, &change]).await;
    }
    for change in [
        "transaction_id = gen_random_uuid()",
        "transaction_id = NULL",
    ] {
        let change = format!("UPDATE attempts SET {change}");
        let named = "UPDATE attempts SET transaction_id = gen_random_uuid()";
        is_refused(&world, "CY007", ATTEMPT_FACTS, &[&first, named, &change]).await;
    }
    let renamed = "UPDATE attempts SET attempt_id = gen_random_uuid()";
    is_refused(&world, "CY007", ATTEMPT_FACTS, &[&first, renamed]).await;
}

#[tokio::test]
async fn no_attempt_changes_its_state_without_evidence() {
    let world = one_planned_charge().await;
    let first = permit(&[]);
    let bare = format!("UPDATE attempts SET state = 'refused', decided_at = '{START}'");
    is_refused(&world, "CY008", NEW_EVIDENCE, &[&first, &bare]).await;
    let other_verdict = become_attempt("absent").replace("state = 'absent'", "state = 'refused'");
    is_refused(&world, "CY008", FITTING_EVIDENCE, &[&first, &other_verdict]).await;
    // The evidence that brought it into its state does not take it out again.
    let settled_by_the_same =
        "UPDATE attempts SET state = 'settled', transaction_id = gen_random_uuid()";
    is_refused(
        &world,
        "CY008",
        &format!("{NEW_EVIDENCE}; {FITTING_EVIDENCE}"),
        &[&first, &become_attempt("refused"), settled_by_the_same],
    )
    .await;
    let used_twice = format!(
        "UPDATE attempts SET state = 'refused', decided_at = '{START}',
            last_evidence_id = (SELECT evidence_id FROM evidence LIMIT 1)"
    );
    let of_another = format!(
        "WITH other AS (
            INSERT INTO evidence (evidence_id, attempt_id, subscription_id, kind, verdict, actor, recorded_at)
            SELECT gen_random_uuid(), a.attempt_id, a.subscription_id, 'read', 'refused', 'test', '{START}'
            FROM attempts a ORDER BY a.attempt_no DESC LIMIT 1)
         SELECT 1"
    );
    let second = permit(&[
        ("{n}", "2"),
        ("state", "'not_sent'"),
        ("decided_at", "{at}"),
    ]);
    let only_first = format!("{used_twice} WHERE attempt_no = 1");
    is_refused(
        &world,
        "CY008",
        FITTING_EVIDENCE,
        &[&first, &second, &of_another, &only_first],
    )
    .await;
}

#[tokio::test]
async fn the_record_is_only_ever_added_to() {
    let world = one_planned_charge().await;
    let first = permit(&[]);
    let proven = become_attempt("refused");
    for (table, guard, statement) in [
        ("attempts", "attempts_are_archived", "DELETE FROM attempts"),
        ("charges", "charges_are_archived", "DELETE FROM charges"),
        ("evidence", "evidence_is_archived", "DELETE FROM evidence"),
        (
            "subscriptions",
            "subscriptions_are_kept",
            "DELETE FROM subscriptions",
        ),
        ("attempts", "attempts_are_kept", "TRUNCATE attempts"),
        ("charges", "charges_are_kept", "TRUNCATE charges"),
        (
            "subscriptions",
            "subscriptions_are_kept",
            "TRUNCATE subscriptions",
        ),
        ("cards", "cards_are_kept", "TRUNCATE cards"),
        ("notices", "notices_are_kept", "TRUNCATE notices"),
        ("evidence", "evidence_is_append_only", "TRUNCATE evidence"),
        (
            "events",
            "events_are_append_only",
            "TRUNCATE events CASCADE",
        ),
        (
            "evidence",
            "evidence_is_append_only",
            "UPDATE evidence SET detail = 'another'",
        ),
        (
            "events",
            "events_are_append_only",
            "UPDATE events SET kind = 'another'",
        ),
    ] {
        let guard = format!("ALTER TABLE {table} DISABLE TRIGGER {guard}");
        is_refused(&world, "CY009", &guard, &[&first, &proven, statement]).await;
    }
    // With the shops go the notices of theirs, which their own guard refuses as well.
    let notices_are_kept = "ALTER TABLE notices DISABLE TRIGGER notices_are_kept";
    let shops_are_kept = "ALTER TABLE shops DISABLE TRIGGER shops_are_kept";
    let truncated = "TRUNCATE shops CASCADE";
    is_refused(
        &world,
        "CY009",
        shops_are_kept,
        &[notices_are_kept, truncated],
    )
    .await;
}

#[tokio::test]
async fn a_charge_is_born_with_the_terms_of_its_subscription_on_a_date_of_the_calendar() {
    let world = one_planned_charge().await;
    assert_eq!(outcome(&world, &[&charge(&[])]).await, "ok");
    for (column, value) in [
        ("amount_minor", "s.amount_minor + 1"),
        ("currency", "'EUR'"),
        ("shop", "'other'"),
        ("subscription_id", "gen_random_uuid()"),
        // Twelve months of 31 days are not what the anchor says.
        ("due_on", "date '2027-03-03'"),
        ("due_on", "date '2027-02-27'"),
        ("due_on", "date '2027-01-31'"),
        ("state", "'in_flight'"),
        ("state", "'retry_wait'"),
        ("attempts", "1"),
    ] {
        is_refused(
            &world,
            "CY003",
            CHARGE_BIRTH,
            &[&charge(&[(column, value)])],
        )
        .await;
    }
    let started_later = charge(&[]);
    let starts = "ALTER TABLE subscriptions DISABLE TRIGGER subscription_update";
    let imported = "UPDATE subscriptions SET first_period_no = 3";
    is_refused(
        &world,
        "CY003",
        CHARGE_BIRTH,
        &[starts, imported, &started_later],
    )
    .await;
    let again = charge(&[("period_no", "0"), ("due_on", "date '2026-12-31'")]);
    is_refused(
        &world,
        "23505",
        "ALTER TABLE charges DROP CONSTRAINT one_charge_per_period",
        &[&again],
    )
    .await;
    is_refused(
        &world,
        "23514",
        "ALTER TABLE charges DROP CONSTRAINT open_charges_are_looked_at",
        &[&charge(&[("next_action_at", "NULL")])],
    )
    .await;
    is_refused(
        &world,
        "23514",
        "ALTER TABLE charges DROP CONSTRAINT open_charges_are_looked_at",
        &[&charge(&[("state", "'skipped'"), ("reason", "'test'")])],
    )
    .await;
    is_refused(
        &world,
        "23514",
        "ALTER TABLE charges DROP CONSTRAINT charges_say_why",
        &[&charge(&[("state", "'held'")])],
    )
    .await;
}

#[tokio::test]
async fn the_facts_of_a_charge_never_change() {
    let world = one_planned_charge().await;
    for change in [
        "amount_minor = 1",
        "currency = 'EUR'",
        "shop = 'other'",
        "period_no = 5",
        "due_on = due_on + 1",
        "due_at = due_at + interval '1 hour'",
        "planned_at = planned_at - interval '1 hour'",
    ] {
        let change = format!("UPDATE charges SET {change}");
        is_refused(&world, "CY007", CHARGE_FACTS, &[&change]).await;
    }
    let sent = "UPDATE charges SET attempts = 2, declines = 2, first_attempt_at = planned_at";
    for change in [
        "attempts = 1",
        "declines = 1",
        "first_attempt_at = NULL",
        "first_attempt_at = planned_at + interval '1 day'",
    ] {
        let change = format!("UPDATE charges SET {change}");
        is_refused(&world, "CY007", CHARGE_FACTS, &[sent, &change]).await;
    }
    let paid = [
        permit(&[]),
        become_attempt("settled"),
        become_charge("paid"),
    ];
    let [permitted, settled, paid] = paid.each_ref().map(String::as_str);
    for change in [
        "paid_at = paid_at + interval '1 day'",
        "paid_attempt_id = gen_random_uuid()",
    ] {
        let change = format!("UPDATE charges SET {change}");
        is_refused(
            &world,
            "CY007",
            &format!("{CHARGE_FACTS}; {CHARGE_PAYMENT}"),
            &[permitted, settled, paid, &change],
        )
        .await;
    }
    is_refused(
        &world,
        "23514",
        "ALTER TABLE charges DROP CONSTRAINT paid_charges_name_their_payment",
        &["UPDATE charges SET paid_at = due_at, paid_attempt_id = gen_random_uuid()"],
    )
    .await;
}

#[tokio::test]
async fn steps_that_no_rule_knows_are_refused() {
    let world = one_planned_charge().await;
    let (first, settled) = (permit(&[]), become_attempt("settled"));
    let rejected = become_attempt("rejected");
    is_refused(
        &world,
        "CY006",
        ATTEMPT_STEP,
        &[&first, &settled, &rejected],
    )
    .await;
    is_refused(&world, "CY006", CHARGE_STEP, &[&become_charge("failed")]).await;
}

#[tokio::test]
async fn evidence_is_about_an_attempt_of_its_subscription() {
    let world = one_planned_charge().await;
    let first = permit(&[]);
    for (attempt, subscription) in [
        ("gen_random_uuid()", "subscription_id"),
        ("attempt_id", "gen_random_uuid()"),
    ] {
        let evidence = format!(
            "INSERT INTO evidence (evidence_id, attempt_id, subscription_id, kind, verdict, actor, recorded_at)
             SELECT gen_random_uuid(), {attempt}, {subscription}, 'read', 'settled', 'test', '{START}' FROM attempts"
        );
        is_refused(
            &world,
            "23503",
            "ALTER TABLE evidence DISABLE TRIGGER evidence_insert",
            &[&first, &evidence],
        )
        .await;
    }
}

#[tokio::test]
async fn a_charge_is_paid_only_by_a_settled_attempt_of_its_own() {
    let world = one_planned_charge().await;
    let (first, flying, paid) = (
        permit(&[]),
        become_charge("in_flight"),
        become_charge("paid"),
    );
    for state in [
        "in_doubt", "pending", "rejected", "refused", "not_sent", "absent",
    ] {
        let stands = become_attempt(state);
        is_refused(
            &world,
            "CY010",
            CHARGE_PAYMENT,
            &[ABSENCE, &first, &stands, &flying, &paid],
        )
        .await;
    }
    for state in ["settled", "surplus"] {
        let stands = become_attempt(state);
        assert_eq!(
            outcome(&world, &[&first, &stands, &flying, &paid]).await,
            "ok"
        );
    }
    let by_another = format!(
        "UPDATE charges SET state = 'paid', next_action_at = NULL, paid_at = '{START}',
            paid_attempt_id = (SELECT attempt_id FROM attempts) WHERE period_no = 2"
    );
    is_refused(
        &world,
        "CY010",
        CHARGE_PAYMENT,
        &[
            &first,
            &become_attempt("settled"),
            &paid,
            &charge(&[]),
            &by_another,
        ],
    )
    .await;
}

#[tokio::test]
async fn the_agreement_never_changes() {
    let world = one_planned_charge().await;
    for change in [
        "amount_minor = amount_minor + 1",
        "currency = 'EUR'",
        "period = 'P1W'",
        "anchor_date = anchor_date + 1",
        "timezone = 'UTC'",
        "external_id = 'another'",
        "first_period_no = 1",
        "created_at = created_at - interval '1 day'",
    ] {
        let change = format!("UPDATE subscriptions SET {change}");
        is_refused(&world, "CY007", SUBSCRIPTION_GUARD, &[&change]).await;
    }
    for (constraint, change) in [
        ("subscriptions_have_a_card", "card_id = NULL"),
        ("subscriptions_say_why", "status = 'deactivated'"),
    ] {
        let change = format!("UPDATE subscriptions SET {change}");
        let guard = format!("ALTER TABLE subscriptions DROP CONSTRAINT {constraint}");
        is_refused(&world, "23514", &guard, &[&change]).await;
    }
}

#[tokio::test]
async fn a_card_belongs_to_a_shop_and_a_subscription_to_a_card_of_its_shop() {
    let world = one_planned_charge().await;
    let card = "INSERT INTO cards (card_id, shop, cid, payment_profile_id, created_at)
                SELECT gen_random_uuid(), 'other', 'other', gen_random_uuid(), created_at FROM cards";
    let card_insert = "ALTER TABLE cards DISABLE TRIGGER card_insert";
    is_refused(&world, "23503", card_insert, &[card]).await;

    let other_shop = "INSERT INTO shops (shop, environment, merchant_id, service_id, recorded_at)
                      SELECT 'other', environment, merchant_id, service_id, recorded_at FROM shops";
    let cards_of = |shop: &str| format!("(SELECT card_id FROM cards WHERE shop = '{shop}')");
    let subscription = |shop: &str, card_id: &str| {
        format!(
            "INSERT INTO subscriptions (subscription_id, shop, external_id, status, card_id, amount_minor, currency, period,
                 anchor_date, timezone, first_period_no, created_at, updated_at)
             SELECT gen_random_uuid(), '{shop}', 'new', 'registering', {card_id}, amount_minor, currency, period,
                 anchor_date, timezone, first_period_no, created_at, updated_at FROM subscriptions"
        )
    };
    let subscription_insert = "ALTER TABLE subscriptions DISABLE TRIGGER subscription_insert";
    for (shop, card_id) in [
        ("nowhere", "NULL"),
        ("nowhere", &cards_of("main")),
        ("main", "gen_random_uuid()"),
        ("main", &cards_of("other")),
    ] {
        let statements = [other_shop, card, &subscription(shop, card_id)];
        is_refused(&world, "23503", subscription_insert, &statements).await;
    }
    for (shop, card_id) in [("other", "NULL"), ("other", &cards_of("other"))] {
        let statements = [other_shop, card, &subscription(shop, card_id)];
        assert_eq!(outcome(&world, &statements).await, "ok");
    }

    let subscription_card = "ALTER TABLE subscriptions DISABLE TRIGGER subscription_card";
    for card_id in ["gen_random_uuid()", &cards_of("other")] {
        let change = format!("UPDATE subscriptions SET card_id = {card_id}");
        is_refused(
            &world,
            "23503",
            subscription_card,
            &[other_shop, card, &change],
        )
        .await;
    }
}

#[tokio::test]
async fn what_is_referred_to_keeps_its_key_and_stays() {
    let world = one_planned_charge().await;
    let cards_are_kept = "ALTER TABLE cards DISABLE TRIGGER cards_are_kept";
    for change in [
        "UPDATE cards SET card_id = gen_random_uuid()",
        "UPDATE cards SET shop = 'other'",
        "DELETE FROM cards",
    ] {
        is_refused(&world, "CY009", cards_are_kept, &[change]).await;
    }
    let shops_are_kept = "ALTER TABLE shops DISABLE TRIGGER shops_are_kept";
    for change in ["UPDATE shops SET shop = 'other'", "DELETE FROM shops"] {
        is_refused(&world, "CY009", shops_are_kept, &[change]).await;
    }
    assert_eq!(
        outcome(&world, &["UPDATE shops SET merchant_id = 'other'"]).await,
        "ok"
    );
}

#[tokio::test]
async fn a_card_has_one_cid_and_one_way_to_be_charged() {
    let world = one_planned_charge().await;
    let insert = |cid: &str, profile: &str, first: &str, customer: &str, aliases: &str| {
        format!(
            "INSERT INTO cards (card_id, shop, cid, payment_profile_id, first_transaction_id, customer, aliases, created_at)
             SELECT gen_random_uuid(), shop, {cid}, {profile}, {first}, {customer}, {aliases}, created_at FROM cards LIMIT 1"
        )
    };
    for (constraint, statements) in [
        (
            "cards_have_one_way_to_be_charged",
            [
                insert("'other'", "NULL", "NULL", "NULL", "NULL"),
                insert("'other'", "gen_random_uuid()", "'x'", "'{}'", "NULL"),
            ],
        ),
        (
            "cards_without_a_profile_say_who_pays",
            [
                insert("'other'", "NULL", "'x'", "NULL", "NULL"),
                insert("'other'", "gen_random_uuid()", "NULL", "'{}'", "NULL"),
            ],
        ),
        (
            "aliases_are_of_cards_without_a_profile",
            [
                insert("'other'", "gen_random_uuid()", "NULL", "NULL", "'{}'"),
                insert("'another'", "gen_random_uuid()", "NULL", "NULL", "'{}'"),
            ],
        ),
    ] {
        let guard = format!("ALTER TABLE cards DROP CONSTRAINT {constraint}");
        for statement in statements {
            is_refused(&world, "23514", &guard, &[&statement]).await;
        }
    }
    let plain = insert("'plain'", "NULL", "'x'", "'{}'", "NULL");
    let twin = insert("'twin'", "NULL", "'x'", "'{}'", "NULL");
    for (constraint, statements) in [
        (
            "cards_cid_shop_key",
            vec![insert("cid", "gen_random_uuid()", "NULL", "NULL", "NULL")],
        ),
        (
            "cards_payment_profile_id_shop_key",
            vec![insert(
                "'other'",
                "payment_profile_id",
                "NULL",
                "NULL",
                "NULL",
            )],
        ),
        ("cards_first_transaction_id_shop_key", vec![plain, twin]),
    ] {
        let guard = format!("ALTER TABLE cards DROP CONSTRAINT {constraint}");
        let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
        is_refused(&world, "23505", &guard, &statements).await;
    }
}

#[tokio::test]
async fn a_notice_is_stored_once_and_an_open_one_is_looked_at() {
    let world = one_planned_charge().await;
    let notice = |state: &str, next: &str| {
        format!(
            "INSERT INTO notices (notice_id, shop, body_sha256, body, state, received_at, next_action_at)
             VALUES (gen_random_uuid(), 'main', decode(repeat('ab', 32), 'hex'), '{{}}', '{state}', '{START}', {next})"
        )
    };
    let fine = notice("done", "NULL");
    is_refused(
        &world,
        "23505",
        "ALTER TABLE notices DROP CONSTRAINT a_notice_is_stored_once",
        &[&fine, &fine],
    )
    .await;
    let now = format!("timestamptz '{START}'");
    for forgotten in [notice("new", "NULL"), notice("done", &now)] {
        is_refused(
            &world,
            "23514",
            "ALTER TABLE notices DROP CONSTRAINT new_notices_are_looked_at",
            &[&forgotten],
        )
        .await;
    }
}

#[tokio::test]
async fn every_step_of_an_attempt_is_legal_in_the_database_exactly_when_it_is_in_the_domain() {
    const EVENTS: [AttemptEvent; 7] = [
        AttemptEvent::NotSent,
        AttemptEvent::Refused,
        AttemptEvent::Pending,
        AttemptEvent::Settled,
        AttemptEvent::SettledBesideAnother,
        AttemptEvent::Rejected,
        AttemptEvent::DeclaredAbsent,
    ];
    let world = one_planned_charge().await;
    let first = permit(&[]);
    for was in AttemptState::ALL {
        for becomes in AttemptState::ALL {
            let is_legal =
                was == becomes || EVENTS.iter().any(|&event| was.after(event) == Ok(becomes));
            let done = outcome(
                &world,
                &[
                    ABSENCE,
                    &first,
                    &become_attempt(was.as_str()),
                    &become_attempt(becomes.as_str()),
                ],
            )
            .await;
            let expected = if is_legal { "ok" } else { "CY006" };
            assert_eq!(done, expected, "{was:?} to {becomes:?}");
        }
    }
}

#[tokio::test]
async fn every_step_of_a_charge_is_legal_in_the_database_exactly_when_it_is_in_the_domain() {
    const EVENTS: [ChargeEvent; 8] = [
        ChargeEvent::Permitted,
        ChargeEvent::Settled,
        ChargeEvent::Retried,
        ChargeEvent::GivenUp,
        ChargeEvent::Held,
        ChargeEvent::Skipped,
        ChargeEvent::Voided,
        ChargeEvent::Reopened,
    ];
    let world = one_planned_charge().await;
    let first = permit(&[]);
    let settled = become_attempt("settled");
    for was in ChargeState::ALL {
        let path: &[ChargeState] = match was {
            ChargeState::Planned => &[],
            ChargeState::InFlight
            | ChargeState::Paid
            | ChargeState::Held
            | ChargeState::Skipped
            | ChargeState::Void => &[was],
            ChargeState::RetryWait | ChargeState::Failed => &[ChargeState::InFlight, was],
        };
        let path: Vec<String> = path
            .iter()
            .map(|state| become_charge(state.as_str()))
            .collect();
        for becomes in ChargeState::ALL {
            let is_legal =
                was == becomes || EVENTS.iter().any(|&event| was.after(event) == Ok(becomes));
            let step = become_charge(becomes.as_str());
            let mut statements = vec![GIVING_UP_AND_GOING_ON, first.as_str(), &settled];
            statements.extend(path.iter().map(String::as_str));
            statements.push(&step);
            let expected = if is_legal { "ok" } else { "CY006" };
            assert_eq!(
                outcome(&world, &statements).await,
                expected,
                "{was:?} to {becomes:?}"
            );
        }
    }
}

#[tokio::test]
async fn every_step_of_a_subscription_is_legal_in_the_database_exactly_when_it_is_in_the_domain() {
    const EVENTS: [SubscriptionEvent; 8] = [
        SubscriptionEvent::CardAttached,
        SubscriptionEvent::FellBehind,
        SubscriptionEvent::CaughtUp,
        SubscriptionEvent::Paused,
        SubscriptionEvent::Resumed,
        SubscriptionEvent::Deactivated,
        SubscriptionEvent::Cancelled,
        SubscriptionEvent::Finished,
    ];
    let world = one_planned_charge().await;
    for was in SubscriptionStatus::ALL {
        for becomes in SubscriptionStatus::ALL {
            let is_legal =
                was == becomes || EVENTS.iter().any(|&event| was.after(event) == Ok(becomes));
            let begin = format!(
                "INSERT INTO subscriptions (subscription_id, shop, external_id, status, status_reason, card_id, amount_minor,
                     currency, period, anchor_date, timezone, first_period_no, created_at, updated_at)
                 SELECT gen_random_uuid(), shop, 'another', '{}', 'test', card_id, amount_minor, currency, period,
                     anchor_date, timezone, 0, created_at, updated_at FROM subscriptions",
                was.as_str()
            );
            let step = format!(
                "UPDATE subscriptions SET status = '{}' WHERE external_id = 'another'",
                becomes.as_str()
            );
            let expected = if is_legal { "ok" } else { "CY006" };
            assert_eq!(
                outcome(&world, &[&begin, &step]).await,
                expected,
                "{was:?} to {becomes:?}"
            );
        }
    }
}

#[tokio::test]
async fn the_words_of_the_database_are_those_of_the_domain() {
    let world = World::new(Script::default()).await;
    let words_of = async |name: &'static str| -> Vec<String> {
        sqlx::query_scalar("SELECT enumlabel::text FROM pg_enum WHERE enumtypid = $1::regtype ORDER BY enumsortorder")
            .bind(name)
            .fetch_all(&world.books)
            .await
            .unwrap()
    };
    let brakes = [BrakeMode::Run, BrakeMode::Drain, BrakeMode::Stop];
    assert_eq!(
        words_of("attempt_state").await,
        AttemptState::ALL.map(AttemptState::as_str)
    );
    assert_eq!(
        words_of("charge_state").await,
        ChargeState::ALL.map(ChargeState::as_str)
    );
    assert_eq!(
        words_of("subscription_status").await,
        SubscriptionStatus::ALL.map(SubscriptionStatus::as_str)
    );
    assert_eq!(
        words_of("decline_class").await,
        DeclineClass::ALL.map(DeclineClass::as_str)
    );
    assert_eq!(
        words_of("currency").await,
        Currency::ALL.map(Currency::code)
    );
    assert_eq!(words_of("brake_mode").await, brakes.map(BrakeMode::as_str));
    assert_eq!(
        words_of("environment").await,
        Environment::ALL.map(Environment::as_str)
    );
}

#[tokio::test]
async fn sixteen_sessions_that_race_for_permits_get_one_for_each_charge() {
    let world = World::new(Script::default()).await;
    for _ in 0..40 {
        world.subscribe(Agreement::monthly("2027-01-01")).await;
    }
    let now = world.clock.now();
    world.workers.scheduler.run_once(now).await.unwrap();
    let charges = Arc::new(world.column("SELECT charge_id::text FROM charges").await);
    assert_eq!(charges.len(), 40);
    let mut sessions = JoinSet::new();
    for session in 0..16 {
        let charges = Arc::clone(&charges);
        let options = world.database.clone().options([("search_path", "cykl")]);
        sessions.spawn(async move {
            let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect_with(&options)
                .await
                .unwrap();
            // Each by a number of its own and without distance, so that only the index on live attempts stands between them.
            let number = (session + 1).to_string();
            let permit = permit(&[("{n}", &number), ("quiet_until", "{at}")]);
            let mut given = 0;
            for place in 0..charges.len() {
                let charge = &charges[(place * 7 + session * 3) % charges.len()];
                let one = format!("{permit} AND c.charge_id = '{charge}'");
                match sqlx::raw_sql(AssertSqlSafe(one))
                    .execute(&mut connection)
                    .await
                {
                    Ok(_) => given += 1,
                    Err(error) => {
                        let code = error.as_database_error().and_then(|error| error.code());
                        assert_eq!(code.as_deref(), Some("23505"), "{error}");
                    }
                }
            }
            given
        });
    }
    let given: i32 = sessions.join_all().await.into_iter().sum();
    assert_eq!(given, 40);
    let live: i64 = world
        .one("SELECT count(DISTINCT charge_id) FROM attempts WHERE state = 'in_doubt'")
        .await;
    assert_eq!(live, 40);
}

#[tokio::test]
async fn sixteen_instances_that_claim_at_once_share_the_charges() {
    let world = World::new(Script::default()).await;
    for _ in 0..40 {
        world.subscribe(Agreement::monthly("2027-01-01")).await;
    }
    let now = world.clock.now();
    world.workers.scheduler.run_once(now).await.unwrap();
    let shops = world.workers.charger.shops.names();
    let limits = world.workers.charger.limits;
    let fence_id = world.fence_id;
    let mut instances = JoinSet::new();
    for _ in 0..16 {
        let store = world.another_store().await;
        let shops = shops.clone();
        instances.spawn(async move {
            let mut orders = Vec::new();
            loop {
                let claimed = store
                    .claim(&shops, 3, &limits, fence_id, now)
                    .await
                    .unwrap();
                let Claim::Permits { permits, .. } = claimed else {
                    assert!(matches!(claimed, Claim::NothingDue), "{claimed:?}");
                    break orders;
                };
                orders.extend(
                    permits
                        .into_iter()
                        .map(|permit| permit.order_id.to_string()),
                );
            }
        });
    }
    let orders: Vec<String> = instances.join_all().await.into_iter().flatten().collect();
    assert_eq!(orders.len(), 40);
    assert_eq!(orders.iter().collect::<BTreeSet<_>>().len(), 40);
    let flying: i64 = world
        .one("SELECT count(*) FROM charges WHERE state = 'in_flight'")
        .await;
    assert_eq!(flying, 40);
}
