//! What is over leaves the books for the archive: nothing is lost, told otherwise or charged again by that.

use std::time::Duration;

use chrono::TimeDelta;
use cykl::domain::id::{ChargeId, SubscriptionId};
use cykl::simulator::{Behaviour, Rule, Script};
use cykl::store::archive::Part;
use cykl::store::books::ChargeFilter;
use cykl::store::status::By;
use cykl::workers::crew::Workers;
use uuid::Uuid;

use crate::harness::{Agreement, Setting, World};
use crate::notices::{notice, panel_address, post_signed};
use crate::schema::{CHARGE_BIRTH, SUBSCRIPTION_GUARD, is_refused, outcome};

/// Lets the caretaker of `workers` finish its round.
async fn take_care(world: &World, workers: &Workers) -> usize {
    let mut archived = 0;
    for _ in 0..100 {
        let report = workers.caretaker.run_once(world.clock.now()).await.unwrap();
        archived += report.archived;
        if report.archived == 0 {
            return archived;
        }
    }
    panic!("the caretaker never comes to an end");
}

/// What operators see of all charges and attempts.
async fn seen(world: &World) -> Vec<String> {
    world
        .column(
            "SELECT to_jsonb(c)::text FROM billing.charges c
             UNION ALL SELECT to_jsonb(a)::text FROM billing.attempts a
             UNION ALL SELECT to_jsonb(s)::text FROM billing.subscriptions s
             UNION ALL SELECT to_jsonb(e)::text FROM all_evidence e
             UNION ALL SELECT to_jsonb(e)::text FROM all_events e ORDER BY 1",
        )
        .await
}

/// A world in which four subscriptions were charged for eight months: one was declined once, two failed to pay
/// their first period and went on, of which one is cancelled in the end.
async fn eight_months() -> World {
    let world = World::new(Script::default()).await;
    // So many that the declines of the others are not the most.
    for _ in 0..12 {
        world.subscribe(Agreement::monthly("2027-01-01")).await;
    }
    world
        .simulator
        .add_rule(Rule::debits(Behaviour::decline_at_once("CODE_51")).times(1));
    // Two more fail for good, and go on with the next period.
    let mut broke = Vec::new();
    for _ in 0..2 {
        let subscription_id = world.subscribe(Agreement::monthly("2027-01-01")).await;
        let order = subscription_id.simple().to_string();
        let declines = Rule::debits(Behaviour::decline_at_once("CODE_51")).of_order(&order);
        world.simulator.add_rule(declines.times(5));
        broke.push(SubscriptionId::from_uuid(subscription_id));
    }
    world.run_days(20).await;
    sqlx::raw_sql(
        "UPDATE subscriptions SET status = 'active', from_due_at = '2027-02-01T05:00Z' WHERE status = 'deactivated';
         INSERT INTO due_periods (due_at, subscription_id, period_no, due_on)
         SELECT from_due_at, subscription_id, 1, '2027-02-01' FROM subscriptions WHERE from_due_at = '2027-02-01T05:00Z'",
    )
    .execute(&world.books)
    .await
    .unwrap();
    world.run_days(225).await;
    let by = By {
        actor: "test",
        reason: "moved away",
    };
    world
        .store
        .cancel(broke[0], by, world.clock.now())
        .await
        .unwrap();
    world
}

#[tokio::test]
async fn closed_periods_move_as_a_whole_and_everybody_sees_what_they_saw() {
    let world = eight_months().await;
    let before = seen(&world).await;
    let posts = world.posts();
    assert!(take_care(&world, &world.workers).await > 0);
    assert_eq!(seen(&world).await, before);

    // Four months back from the end of August everything that was paid is gone, and nothing else is.
    let old = world
        .column(
            "SELECT DISTINCT state::text FROM charges c WHERE due_on < '2027-05-01'
             AND EXISTS (SELECT FROM charges n WHERE n.subscription_id = c.subscription_id AND n.period_no > c.period_no)
             ORDER BY 1",
        )
        .await;
    assert_eq!(
        old,
        ["failed"],
        "failed ones of a subscription that goes on stay"
    );
    assert_eq!(
        world
            .column("SELECT DISTINCT state::text FROM archived_charges ORDER BY 1")
            .await,
        ["failed", "paid"],
        "the failed ones of the cancelled subscription are archived"
    );
    let young: i64 = world
        .one("SELECT count(*) FROM archived_charges WHERE paid_at >= timestamptz '2027-09-03T07:00Z' - interval '120 days'")
        .await;
    assert_eq!(young, 0);
    for orphans in [
        "SELECT count(*) FROM attempts a WHERE NOT EXISTS (SELECT FROM charges c WHERE c.charge_id = a.charge_id)",
        "SELECT count(*) FROM evidence e WHERE NOT EXISTS (SELECT FROM attempts a WHERE a.attempt_id = e.attempt_id)",
        "SELECT count(*) FROM events WHERE occurred_at < '2027-05-01' AND NOT EXISTS (
             SELECT FROM subscriptions s WHERE s.subscription_id = events.subscription_id)",
    ] {
        assert_eq!(world.one::<i64>(orphans).await, 0, "{orphans}");
    }
    // Charging goes on where it was, and charges nothing again.
    world.run_days(31).await;
    assert!(world.posts() > posts);
    world.settle_up().await;
}

#[tokio::test]
async fn what_a_person_asks_about_a_charge_is_answered_from_the_archive() {
    let world = eight_months().await;
    let charge: Uuid = world
        .one("SELECT charge_id FROM charges WHERE attempts = 2 AND state = 'paid' LIMIT 1")
        .await;
    let charge = ChargeId::from_uuid(charge);
    let before = world.store.charge_story(charge).await.unwrap().unwrap();
    take_care(&world, &world.workers).await;
    let left: i64 = world
        .one("SELECT count(*) FROM charges WHERE attempts = 2")
        .await;
    assert_eq!(left, 0, "it is in the archive");
    let after = world.store.charge_story(charge).await.unwrap().unwrap();
    assert_eq!(after, before);
    assert_eq!((after.attempt_list.len(), after.charge.attempts), (2, 2));
    let listed = world
        .store
        .list_charges(&ChargeFilter::default(), 1_000)
        .await
        .unwrap();
    assert!(listed.contains(&before.charge));
}

#[tokio::test]
async fn a_late_notice_that_repeats_the_archive_says_nothing_new() {
    let world = eight_months().await;
    take_care(&world, &world.workers).await;
    let transaction: Uuid = world
        .one("SELECT transaction_id FROM archived_attempts WHERE state = 'settled' ORDER BY order_id LIMIT 1")
        .await;
    let order: String = world
        .one("SELECT order_id FROM archived_attempts WHERE state = 'settled' ORDER BY order_id LIMIT 1")
        .await;
    post_signed(&panel_address(&world.door), &notice(&order, transaction)).await;
    world.run_until_idle().await;
    let states = world
        .column("SELECT state::text FROM notices ORDER BY received_at DESC, notice_id DESC LIMIT 1")
        .await;
    assert_eq!(states, ["done"]);
    assert_eq!(world.incidents().await, Vec::<String>::new());
    world.settle_up().await;
}

/// A world whose first debit is declined, and settles 200 days later all the same.
async fn a_decline_that_settles_late() -> World {
    let world = World::new(Script::default()).await;
    let late = Duration::from_secs(200 * 24 * 3600);
    world
        .simulator
        .add_rule(Rule::debits(Behaviour::decline_then_settle("CODE_51", late)).times(1));
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world
}

/// Lets the caretaker archive it.
async fn archive_the_decline(world: &World) {
    assert!(take_care(world, &world.workers).await > 0);
    assert_eq!(
        world
            .column(
                "SELECT state::text FROM archived_attempts WHERE attempt_no = 1 AND period_no = 0"
            )
            .await,
        ["rejected"]
    );
}

#[tokio::test]
async fn money_that_moves_for_an_archived_decline_stops_everything() {
    let world = a_decline_that_settles_late().await;
    world.run_days(190).await;
    archive_the_decline(&world).await;
    assert_eq!(world.incidents().await, Vec::<String>::new());
    world.run_days(15).await;
    assert_eq!(world.incidents().await, ["incident.orphan"]);
    assert_eq!(world.brakes().await, ["* stop orphan_transaction"]);
}

#[tokio::test]
async fn money_that_moves_while_its_decline_is_archived_stops_everything() {
    let world = a_decline_that_settles_late().await;
    world.run_days(199).await;
    world.advance(TimeDelta::days(2));
    world.simulator.deliver_due().await;
    // The caretaker comes while the transaction is being read.
    let slow = Behaviour::default().answering_after(Duration::from_secs(3));
    world.simulator.add_rule(Rule::reads(slow).times(1));
    let reads = world.simulator.totals().calls;
    let now = world.clock.now();
    let resolver = world.workers.resolver.clone();
    let reading = tokio::spawn(async move { resolver.run_once(now).await });
    while world.simulator.totals().calls == reads {
        tokio::task::yield_now().await;
    }
    archive_the_decline(&world).await;
    reading.await.unwrap().unwrap();
    let open: i64 = world
        .one("SELECT count(*) FROM notices WHERE state = 'new'")
        .await;
    assert_eq!(open, 1, "what it says is in no book");
    world.run_days(1).await;
    assert_eq!(world.incidents().await, ["incident.orphan"]);
    assert_eq!(world.brakes().await, ["* stop orphan_transaction"]);
}

#[tokio::test]
async fn two_caretakers_archive_everything_once() {
    let world = eight_months().await;
    let before = seen(&world).await;
    let other = world.another_instance().await;
    let (ours, theirs) = tokio::join!(take_care(&world, &world.workers), take_care(&world, &other));
    assert!(ours + theirs > 0);
    // What the one skipped because the other had locked it comes with the next round.
    world.advance(TimeDelta::days(1));
    take_care(&world, &world.workers).await;
    assert_eq!(seen(&world).await, before);
    world.settle_up().await;
}

#[tokio::test]
async fn a_round_begins_once_a_day() {
    let world = eight_months().await;
    assert!(take_care(&world, &world.workers).await > 0);
    world.advance(TimeDelta::hours(23));
    assert_eq!(take_care(&world, &world.workers).await, 0);
    world.run_days(31).await;
    assert!(take_care(&world, &world.workers).await > 0);
    world.settle_up().await;
}

#[tokio::test]
async fn years_that_are_not_kept_are_dropped_and_the_audit_knows() {
    let world = World::with(Setting {
        toml: "[history]\nkeep_years = 1".to_owned(),
        // What is due on the first of January is paid in the old year, as UTC has it.
        shop: "charge_time = \"00:30\"".to_owned(),
        ..Setting::default()
    })
    .await;
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    // Ends in 2027: its last period stays, and what was told about it goes.
    world
        .subscribe(Agreement::monthly("2027-01-15").times(2))
        .await;
    world
        .subscribe(Agreement::monthly("2027-01-31").every("P3M"))
        .await;
    for _ in 0..8 {
        world.run_days(100).await;
        take_care(&world, &world.workers).await;
    }
    // March 2029: 2028 is kept, 2027 is not.
    let years = world
        .column("SELECT DISTINCT extract(year FROM due_on)::text FROM archived_charges")
        .await;
    assert_eq!(years, ["2028"]);
    let paid: Vec<String> = world
        .column("SELECT charges_paid::text FROM billing.subscriptions ORDER BY subscriptions.charges_paid")
        .await;
    assert_eq!(paid, ["2", "9", "27"], "what was dropped still counts");
    // The gateway remembers what the books have dropped.
    crate::export::agrees(&world).await;
    let ledger = world.simulator.ledger();
    assert_eq!(ledger.order_ids_posted_twice(), Vec::<&str>::new());
    assert_eq!(ledger.settled().count(), 38);
}

#[tokio::test]
async fn a_step_looks_only_at_what_is_old_enough() {
    let world = eight_months().await;
    let start = world.clock.now() - TimeDelta::days(400);
    for part in Part::ALL {
        let step = world.store.archive_step(part, None, start).await.unwrap();
        assert_eq!((step.archived, step.reached), (0, None), "{part:?}");
    }
}

/// Picks the newest charge of a subscription, or the one before.
const PICK_NEWEST: &str = "CREATE TEMPORARY TABLE picked ON COMMIT DROP AS SELECT * FROM charges WHERE state = 'paid' ORDER BY period_no DESC LIMIT 1";
const PICK_ANOTHER: &str = "CREATE TEMPORARY TABLE picked ON COMMIT DROP AS
    SELECT c.* FROM charges c WHERE c.state = 'paid' AND c.period_no = 7 ORDER BY c.charge_id LIMIT 1";

/// Copies it, its attempts and evidence into the archive, by hand.
const COPY_IT: [&str; 2] = [
    "SELECT add_archive_quarter(due_on) FROM picked",
    "INSERT INTO archived_charges
     SELECT charge_id, subscription_id, shop, period_no, due_on, due_at, amount_minor, currency, state, reason, attempts, declines,
            unsent, first_attempt_at, paid_at, paid_attempt_id, NULL, last_status_code, planned_at, next_due_at FROM picked",
];
const COUNT_IT: &str = "UPDATE subscriptions s SET archived_to = period_no FROM picked n WHERE n.subscription_id = s.subscription_id";
const COPY_ITS_ATTEMPTS: [&str; 2] = [
    "INSERT INTO archived_attempts
     SELECT attempt_id, a.charge_id, subscription_id, a.shop, card_id, period_no, due_on, attempt_no, order_id, a.amount_minor,
            a.currency, a.state, is_retry, fence_id, permitted_at, deadline_at, quiet_until, transaction_id, status_code, decline,
            card_masked, polls, case_opened_at, decided_at, confirmed_at, last_evidence_id
     FROM picked n JOIN attempts a USING (subscription_id, period_no)",
    "INSERT INTO archived_evidence
     SELECT evidence_id, e.attempt_id, e.subscription_id, due_on, kind, verdict, http_status, error_code, gateway_status,
            e.status_code, e.transaction_id, detail, actor, recorded_at
     FROM picked n JOIN attempts a USING (subscription_id, period_no) JOIN evidence e USING (attempt_id)",
];
const DROP_ITS_EVIDENCE: &str = "DELETE FROM evidence WHERE attempt_id IN (SELECT attempt_id FROM attempts JOIN picked USING (subscription_id, period_no))";
const DROP_ITS_ATTEMPTS: &str = "DELETE FROM attempts a USING picked n WHERE (a.subscription_id, a.period_no) = (n.subscription_id, n.period_no)";
const DROP_IT: &str = "DELETE FROM charges WHERE charge_id IN (SELECT charge_id FROM picked)";

#[tokio::test]
async fn nothing_leaves_the_books_but_for_the_archive() {
    let world = eight_months().await;
    take_care(&world, &world.workers).await;
    for (table, guard) in [
        ("charges", "charges_are_archived"),
        ("attempts", "attempts_are_archived"),
        ("evidence", "evidence_is_archived"),
        ("events", "events_are_archived"),
    ] {
        let delete = format!("DELETE FROM {table}");
        let unguarded = format!("ALTER TABLE {table} DISABLE TRIGGER {guard}");
        is_refused(&world, "CY009", &unguarded, &[&delete]).await;
    }
    post_signed(
        &panel_address(&world.door),
        &notice("not-ours", Uuid::new_v4()),
    )
    .await;
    let unguarded = "ALTER TABLE notices DISABLE TRIGGER notices_are_archived";
    is_refused(&world, "CY009", unguarded, &["DELETE FROM notices"]).await;
}

const CHARGES: &str = "ALTER TABLE charges DISABLE TRIGGER charges_are_archived";
const ATTEMPTS: &str = "ALTER TABLE attempts DISABLE TRIGGER attempts_are_archived";
const EVIDENCE: &str = "ALTER TABLE evidence DISABLE TRIGGER evidence_is_archived";
const DROPS: [&str; 3] = [DROP_ITS_EVIDENCE, DROP_ITS_ATTEMPTS, DROP_IT];

#[tokio::test]
async fn a_period_leaves_the_books_as_a_whole_in_order_and_counted() {
    let world = eight_months().await;
    let copies = [&COPY_IT[..], &COPY_ITS_ATTEMPTS].concat();
    let whole = [&[PICK_ANOTHER], &copies[..], &[COUNT_IT], &DROPS].concat();
    assert_eq!(outcome(&world, &whole).await, "ok");
    // The newest charge says where the next period is.
    let newest = [&[PICK_NEWEST], &copies[..], &[COUNT_IT], &DROPS].concat();
    is_refused(&world, "CY009", CHARGES, &newest).await;
    // Uncounted, its period could be planned again.
    let uncounted = [&[PICK_ANOTHER], &copies[..], &DROPS].concat();
    is_refused(&world, "CY009", CHARGES, &uncounted).await;
    // Evidence goes before its attempt, an attempt before its charge, and neither without it.
    for (guard, drop) in [(CHARGES, DROP_IT), (ATTEMPTS, DROP_ITS_ATTEMPTS)] {
        let early = [&[PICK_ANOTHER], &copies[..], &[COUNT_IT, drop]].concat();
        is_refused(&world, "CY009", guard, &early).await;
    }
    let alone = [
        &[PICK_ANOTHER],
        &COPY_IT[..1],
        &COPY_ITS_ATTEMPTS,
        &DROPS[..2],
    ]
    .concat();
    is_refused(&world, "CY009", ATTEMPTS, &alone).await;
}

#[tokio::test]
async fn what_is_in_the_archive_must_be_what_was_in_the_books() {
    let world = eight_months().await;
    let copies = [&COPY_IT[..], &COPY_ITS_ATTEMPTS].concat();
    for (guard, copy, was, is, drop) in [
        (
            CHARGES,
            COPY_IT[1],
            " state, reason, attempts",
            " 'void', reason, attempts",
            3,
        ),
        (
            CHARGES,
            COPY_IT[1],
            "reason, attempts, declines",
            "reason, 9, declines",
            3,
        ),
        (
            CHARGES,
            COPY_IT[1],
            "paid_attempt_id, NULL",
            "gen_random_uuid(), NULL",
            3,
        ),
        (
            ATTEMPTS,
            COPY_ITS_ATTEMPTS[0],
            " a.state, is_retry",
            " 'surplus', is_retry",
            2,
        ),
        (
            ATTEMPTS,
            COPY_ITS_ATTEMPTS[0],
            "transaction_id, status_code",
            "gen_random_uuid(), status_code",
            2,
        ),
        (
            EVIDENCE,
            COPY_ITS_ATTEMPTS[1],
            "verdict, http_status",
            "'surplus', http_status",
            1,
        ),
    ] {
        let values = copy.split_once("SELECT").unwrap().1;
        assert!(values.contains(was), "{values}");
        let changed = copy.replacen(was, is, copy.matches(was).count());
        let changed = if is.contains("void") {
            changed.replace("paid_at, paid_attempt_id, NULL", "NULL, NULL, NULL")
        } else {
            changed
        };
        let others = copies
            .iter()
            .map(|&one| if one == copy { changed.as_str() } else { one });
        let others: Vec<&str> = others.collect();
        let wrong = [&[PICK_ANOTHER], &others[..], &[COUNT_IT], &DROPS[..drop]].concat();
        is_refused(&world, "CY009", guard, &wrong).await;
    }
}

/// A world with something in each table of the archive.
async fn archived() -> World {
    let world = eight_months().await;
    post_signed(
        &panel_address(&world.door),
        &notice("not-ours", Uuid::new_v4()),
    )
    .await;
    world.run_days(130).await;
    take_care(&world, &world.workers).await;
    world
}

#[tokio::test]
async fn what_is_archived_stays_as_it_is() {
    let world = archived().await;
    for (table, guard, column) in [
        ("archived_charges", "archived_charges_stay", "reason"),
        ("archived_attempts", "archived_attempts_stay", "status_code"),
        ("archived_evidence", "archived_evidence_stays", "detail"),
        ("archived_events", "archived_events_stay", "kind"),
        ("archived_notices", "archived_notices_stay", "body"),
    ] {
        let unguarded = format!("ALTER TABLE {table} DISABLE TRIGGER {guard}");
        for change in [
            format!("UPDATE {table} SET {column} = 'another'"),
            format!("DELETE FROM {table}"),
        ] {
            is_refused(&world, "CY009", &unguarded, &[&change]).await;
        }
        // Each quarter refuses this as well.
        let truncated = format!("TRUNCATE {table}");
        assert_eq!(outcome(&world, &[&truncated]).await, "CY009");
        // A quarter by itself, too.
        let quarter: String = world
            .column("SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relname LIKE 'archived%' ORDER BY relname")
            .await
            .into_iter()
            .find(|name| name.starts_with(table))
            .unwrap();
        let unguarded = format!("ALTER TABLE {quarter} DISABLE TRIGGER {quarter}_stays");
        let change = format!("UPDATE {quarter} SET {column} = 'another'");
        is_refused(&world, "CY009", &unguarded, &[&change]).await;
    }
}

#[tokio::test]
async fn the_archive_holds_each_thing_once_and_only_what_is_over() {
    let world = archived().await;
    for (table, constraint, change) in [
        (
            "archived_charges",
            "archived_charges_are_closed",
            "state = 'held', paid_at = NULL",
        ),
        (
            "archived_charges",
            "archived_payments_are_named",
            "paid_at = NULL",
        ),
        (
            "archived_attempts",
            "archived_attempts_are_final",
            "state = 'in_doubt'",
        ),
        (
            "archived_notices",
            "archived_notices_are_closed",
            "state = 'new'",
        ),
    ] {
        let rule = format!("ALTER TABLE {table} DROP CONSTRAINT {constraint}");
        let unlocked = format!("ALTER TABLE {table} DISABLE TRIGGER ALL");
        let change = format!(
            "UPDATE {table} SET {change} WHERE ctid IN (SELECT ctid FROM {table} LIMIT 1) AND true"
        );
        is_refused(&world, "23514", &rule, &[&unlocked, &change]).await;
    }
    for (table, key) in [
        ("archived_charges", "one_archived_charge_per_period"),
        ("archived_attempts", "archived_order_id_is_never_reused"),
        ("archived_evidence", "archived_evidence_pkey"),
        ("archived_events", "archived_events_are_numbered"),
        ("archived_notices", "archived_notices_pkey"),
    ] {
        let rule = format!("ALTER TABLE {table} DROP CONSTRAINT {key}");
        let again = format!("INSERT INTO {table} SELECT * FROM {table} LIMIT 1");
        is_refused(&world, "23505", &rule, &[&again]).await;
    }
    world.settle_up().await;
}

#[tokio::test]
async fn an_archived_period_is_not_planned_again() {
    let world = eight_months().await;
    take_care(&world, &world.workers).await;
    is_refused(
        &world,
        "CY003",
        CHARGE_BIRTH,
        &["INSERT INTO charges (charge_id, subscription_id, shop, period_no, due_on, due_at, amount_minor, currency, state,
                                next_action_at, planned_at)
           SELECT gen_random_uuid(), subscription_id, shop, period_no, due_on, due_at, amount_minor, currency, 'planned', due_at, due_at
           FROM archived_charges LIMIT 1"],
    )
    .await;
    for column in ["archived_to", "archived_payments"] {
        let back = format!("UPDATE subscriptions SET {column} = {column} - 1");
        is_refused(&world, "CY007", SUBSCRIPTION_GUARD, &[&back]).await;
    }
    world.settle_up().await;
}
