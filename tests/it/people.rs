//! What people decide about charges: what each decision does, when it is refused, and that the database refuses it as well.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use cykl::domain::charge::ChargeState;
use cykl::domain::id::{ChargeId, SubscriptionId, TransactionId};
use cykl::domain::people::Refused;
use cykl::domain::subscription::SubscriptionStatus;
use cykl::simulator::{Behaviour, ErrorBody, Notices, Rule, Script};
use cykl::store::people::{Effect, Instruction, Ruled, RulingError};
use cykl::store::status::By;
use cykl::workers::resolver::{SettleError, Settled};
use reqwest::StatusCode;
use uuid::Uuid;

use crate::harness::{Agreement, World};
use crate::notices::{notice, panel_address, post_signed};
use crate::schema::{is_refused, outcome};

const HOUR: Duration = Duration::from_secs(3_600);

const ABSENCE_GUARD: &str = "ALTER TABLE evidence DISABLE TRIGGER absence_is_established";
const TWO_PEOPLE: &str = "ALTER TABLE attempts DISABLE TRIGGER absence_needs_two";
const GOING_ON: &str = "ALTER TABLE charges DISABLE TRIGGER charge_goes_on";
const GIVING_UP: &str = "ALTER TABLE charges DISABLE TRIGGER charge_gives_up";

fn by(actor: &str) -> By<'_> {
    By {
        actor,
        reason: "looked into the panel",
    }
}

/// The charge of the first subscription.
async fn the_charge(world: &World) -> ChargeId {
    let id = world
        .one::<Uuid>("SELECT charge_id FROM charges ORDER BY due_on, charge_id LIMIT 1")
        .await;
    ChargeId::from_uuid(id)
}

/// The order id of the first attempt.
async fn the_order(world: &World) -> String {
    world
        .one("SELECT order_id FROM attempts ORDER BY permitted_at, attempt_no LIMIT 1")
        .await
}

async fn rule(world: &World, instruction: Instruction, actor: &str) -> Result<Ruled, RulingError> {
    let charge_id = the_charge(world).await;
    let policy = &world.config.policy;
    world
        .store
        .rule(charge_id, instruction, by(actor), policy, world.clock.now())
        .await
}

async fn declare_absent(world: &World, actor: &str) -> Result<Ruled, RulingError> {
    let absent_after = world.config.absent_after;
    rule(world, Instruction::DeclareAbsent { absent_after }, actor).await
}

async fn settle(world: &World, transaction_id: Uuid) -> Result<Settled, SettleError> {
    let (charge_id, now) = (the_charge(world).await, world.clock.now());
    let transaction_id = TransactionId::from_uuid(transaction_id);
    world
        .workers
        .resolver
        .settle(charge_id, transaction_id, by("jan"), now)
        .await
}

/// imoje's id of an order, as a person reads it in the panel.
fn in_the_panel(world: &World, order_id: &str) -> Uuid {
    world.simulator.ledger().transactions_of(order_id)[0].id
}

fn refusal<T: std::fmt::Debug>(outcome: Result<T, RulingError>) -> Refused {
    match outcome.unwrap_err() {
        RulingError::Refused(refused) => refused,
        other => panic!("{other}"),
    }
}

/// All that a decision could change.
async fn books(world: &World) -> Vec<String> {
    world
        .column(
            "SELECT to_jsonb(c)::text FROM charges c UNION ALL SELECT to_jsonb(a)::text FROM attempts a
             UNION ALL SELECT to_jsonb(e)::text FROM evidence e UNION ALL SELECT to_jsonb(e)::text FROM events e
             UNION ALL SELECT to_jsonb(s)::text FROM subscriptions s UNION ALL SELECT to_jsonb(b)::text FROM brakes b ORDER BY 1",
        )
        .await
}

/// A world whose first debit went as `lost` says, and in which another subscription is charged on the next day.
async fn one_in_doubt(lost: Behaviour) -> World {
    let world = World::new(Script::default()).await;
    world.simulator.add_rule(Rule::debits(lost).times(1));
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world.charge().await;
    assert_eq!(world.attempts().await, ["in_doubt"]);
    world.subscribe(Agreement::monthly("2027-01-02")).await;
    world
}

async fn after(world: &World, hours: i64) {
    world
        .run_until(world.clock.now() + TimeDelta::hours(hours))
        .await;
}

/// What a person says of the first attempt, in the books.
fn declaration(actor: &str, at: DateTime<Utc>) -> String {
    format!(
        "INSERT INTO evidence (evidence_id, attempt_id, subscription_id, kind, verdict, detail, actor, recorded_at)
         SELECT gen_random_uuid(), attempt_id, subscription_id, 'person', 'absent', 'not there', '{actor}', '{at}'
         FROM attempts ORDER BY permitted_at LIMIT 1"
    )
}

#[tokio::test]
async fn two_people_declare_a_debit_absent_and_it_is_made_once_more_under_another_order() {
    let world = one_in_doubt(Behaviour::lose_request()).await;
    after(&world, 100).await;
    assert_eq!(world.charges().await, ["held", "paid"]);
    let first = declare_absent(&world, "jan").await.unwrap();
    assert_eq!(
        (first.effect, first.charge),
        (Effect::Noted, ChargeState::Held)
    );
    assert_eq!(world.attempts().await, ["in_doubt", "settled"]);
    assert_eq!(
        refusal(declare_absent(&world, "Jan ").await),
        Refused::SamePerson("jan".to_owned())
    );
    let second = declare_absent(&world, "ewa").await.unwrap();
    assert_eq!(second.effect, Effect::Done);
    assert_eq!(second.charge, ChargeState::RetryWait);
    assert_eq!(world.attempts().await, ["absent", "settled"]);
    let again = declare_absent(&world, "ola").await.unwrap();
    assert_eq!(again.effect, Effect::Nothing);
    let said = world
        .column("SELECT kind || ' ' || verdict || ' ' || actor || ': ' || detail FROM evidence WHERE actor <> 'cykl' ORDER BY recorded_at, evidence_id")
        .await;
    assert_eq!(
        said,
        [
            "person absent jan: looked into the panel",
            "person absent ewa: looked into the panel"
        ]
    );
    let told = world
        .column("SELECT (payload ->> 'decision') || ' ' || (payload ->> 'actor') || ' ' || (payload ->> 'state') FROM events WHERE kind = 'charge.decided' ORDER BY sequence_no")
        .await;
    assert_eq!(
        told,
        ["declare_absent jan held", "declare_absent ewa retry_wait"]
    );
    after(&world, 1).await;
    assert_eq!(world.charges().await, ["paid", "paid"]);
    let orders: i64 = world
        .one("SELECT count(DISTINCT order_id) FROM attempts")
        .await;
    assert_eq!(orders, 3);
    world.settle_up().await;
}

#[tokio::test]
async fn one_person_who_declares_twice_at_once_is_one() {
    let world = one_in_doubt(Behaviour::lose_request()).await;
    after(&world, 100).await;
    let (jan, once_more) =
        tokio::join!(declare_absent(&world, "jan"), declare_absent(&world, "jan"));
    let noted = [&jan, &once_more]
        .iter()
        .filter(|outcome| {
            outcome
                .as_ref()
                .is_ok_and(|ruled| ruled.effect == Effect::Noted)
        })
        .count();
    assert_eq!(noted, 1, "{jan:?} {once_more:?}");
    assert_eq!(world.attempts().await, ["in_doubt", "settled"]);
    world.settle_up().await;
}

#[tokio::test]
async fn two_people_who_declare_at_once_are_two() {
    let world = one_in_doubt(Behaviour::lose_request()).await;
    after(&world, 100).await;
    let (jan, ewa) = tokio::join!(declare_absent(&world, "jan"), declare_absent(&world, "ewa"));
    let mut effects = [jan.unwrap().effect, ewa.unwrap().effect];
    effects.sort_by_key(|effect| *effect == Effect::Done);
    assert_eq!(effects, [Effect::Noted, Effect::Done]);
    after(&world, 1).await;
    assert_eq!(world.charges().await, ["paid", "paid"]);
    assert_eq!(world.posts(), 3);
    world.settle_up().await;
}

#[tokio::test]
async fn nothing_is_declared_absent_before_a_hundred_hours() {
    let world = one_in_doubt(Behaviour::lose_request()).await;
    let possible_at = world.clock.now() + TimeDelta::hours(100);
    world.run_until(possible_at - TimeDelta::seconds(1)).await;
    assert_eq!(
        refusal(declare_absent(&world, "jan").await),
        Refused::NotBefore(possible_at)
    );
    let early = declaration("jan", world.clock.now());
    is_refused(&world, "CY011", ABSENCE_GUARD, &[&early]).await;
    let in_time = declaration("jan", possible_at);
    assert_eq!(outcome(&world, &[&in_time]).await, "ok");
    // A person's machine may be ahead of the database: for a real gateway the clock of both counts.
    let recent = "ALTER TABLE attempts DISABLE TRIGGER attempt_facts;
        UPDATE attempts SET permitted_at = now() - interval '99 hours';
        INSERT INTO notices (notice_id, shop, body_sha256, body, state, received_at)
        SELECT first_notice_id(permitted_at + interval '1 hour'), shop, sha256('x'), 'x', 'done', permitted_at + interval '1 hour'
        FROM attempts LIMIT 1";
    let ahead = "INSERT INTO evidence (evidence_id, attempt_id, subscription_id, kind, verdict, detail, actor, recorded_at)
        SELECT gen_random_uuid(), attempt_id, subscription_id, 'person', 'absent', 'x', 'jan', now() + interval '2 hours'
        FROM attempts WHERE state = 'in_doubt'";
    assert_eq!(outcome(&world, &[recent, ahead]).await, "ok");
    let real = "UPDATE shops SET environment = 'production'";
    is_refused(&world, "CY011", ABSENCE_GUARD, &[real, recent, ahead]).await;
    world.settle_up().await;
}

#[tokio::test]
async fn nothing_is_declared_absent_while_the_inbox_was_silent() {
    let world = World::new(Script::default()).await;
    world
        .simulator
        .add_rule(Rule::debits(Behaviour::lose_request()).times(1));
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    after(&world, 97).await;
    // A notice that comes after the time in which its own would have come shows nothing about that time.
    world.subscribe(Agreement::monthly("2027-01-06")).await;
    after(&world, 48).await;
    assert_eq!(world.charges().await, ["held", "paid"]);
    assert_eq!(
        refusal(declare_absent(&world, "jan").await),
        Refused::InboxSilent
    );
    let said = declaration("jan", world.clock.now());
    is_refused(&world, "CY011", ABSENCE_GUARD, &[&said]).await;
    // Nor does the notice of another shop show anything.
    let other_shop = "INSERT INTO shops SELECT 'other', environment, merchant_id, service_id, recorded_at FROM shops";
    let heard = |shop: &str| {
        format!(
            "INSERT INTO notices (notice_id, shop, body_sha256, body, state, received_at)
             SELECT first_notice_id(permitted_at + interval '95 hours'), '{shop}', sha256('x'), 'x', 'done',
                    permitted_at + interval '95 hours'
             FROM attempts WHERE state = 'in_doubt'"
        )
    };
    let elsewhere = [other_shop, &heard("other"), &said];
    is_refused(&world, "CY011", ABSENCE_GUARD, &elsewhere).await;
    assert_eq!(outcome(&world, &[&heard("main"), &said]).await, "ok");
    world.settle_up().await;
}

#[tokio::test]
async fn nothing_is_declared_absent_that_imoje_has_spoken_of() {
    let world = one_in_doubt(Behaviour::lose_request()).await;
    after(&world, 100).await;
    // Genuine, although the transaction cannot be read.
    let body = notice(&the_order(&world).await, Uuid::new_v4());
    let (status, _) = post_signed(&panel_address(&world.door), &body).await;
    assert_eq!(status, StatusCode::OK);
    world.run_until_idle().await;
    assert_eq!(world.attempts().await, ["in_doubt", "settled"]);
    assert_eq!(
        refusal(declare_absent(&world, "jan").await),
        Refused::NoticeCame
    );
    let said = declaration("jan", world.clock.now());
    is_refused(&world, "CY011", ABSENCE_GUARD, &[&said]).await;
    world.settle_up().await;
}

#[tokio::test]
async fn nothing_is_declared_absent_that_imoje_has() {
    let pending = Behaviour::pending_for_ever().with_notices(Notices::none());
    let world = World::new(Script::default()).await;
    world.simulator.add_rule(Rule::debits(pending).times(1));
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world.charge().await;
    world.subscribe(Agreement::monthly("2027-01-02")).await;
    after(&world, 100).await;
    let refused = refusal(declare_absent(&world, "jan").await);
    assert!(matches!(refused, Refused::HasTransaction(_)), "{refused}");
    let said = declaration("jan", world.clock.now());
    is_refused(&world, "CY011", ABSENCE_GUARD, &[&said]).await;
    world.settle_up().await;
}

#[tokio::test]
async fn nothing_is_declared_absent_whose_id_is_known_or_that_is_decided() {
    let world = one_in_doubt(Behaviour::lose_request()).await;
    after(&world, 100).await;
    let known = "UPDATE attempts SET transaction_id = gen_random_uuid() WHERE state = 'in_doubt'";
    let said = declaration("jan", world.clock.now());
    is_refused(&world, "CY011", ABSENCE_GUARD, &[known, &said]).await;
    declare_absent(&world, "jan").await.unwrap();
    declare_absent(&world, "ewa").await.unwrap();
    after(&world, 1).await;
    assert_eq!(
        refusal(declare_absent(&world, "ola").await),
        Refused::NothingInDoubt
    );
    let said = declaration("ola", world.clock.now());
    is_refused(&world, "CY011", ABSENCE_GUARD, &[&said]).await;
    world.settle_up().await;
}

#[tokio::test]
async fn the_database_takes_an_absence_only_from_two_people_with_names_and_reasons() {
    let world = one_in_doubt(Behaviour::lose_request()).await;
    after(&world, 100).await;
    let now = world.clock.now();
    let jan = declaration("jan", now);
    let once_more = declaration(" JAN", now);
    let twice = "DROP INDEX nobody_declares_twice";
    is_refused(&world, "23505", twice, &[&jan, &once_more]).await;
    let nameless = "ALTER TABLE evidence DROP CONSTRAINT people_say_who_and_why";
    for actor in ["", " ", "Cykl"] {
        is_refused(&world, "23514", nameless, &[&declaration(actor, now)]).await;
    }
    let groundless = jan.replace("'not there'", "NULL");
    is_refused(&world, "23514", nameless, &[&groundless]).await;
    let absent = format!(
        "UPDATE attempts a SET state = 'absent', decided_at = '{now}', next_poll_at = NULL, last_evidence_id = e.evidence_id
         FROM evidence e WHERE e.attempt_id = a.attempt_id AND e.verdict = 'absent'"
    );
    is_refused(&world, "CY011", TWO_PEOPLE, &[&jan, &absent]).await;
    let ewa = declaration("ewa", now);
    assert_eq!(outcome(&world, &[&jan, &ewa, &absent]).await, "ok");
    world.settle_up().await;
}

#[tokio::test]
async fn money_that_moved_although_two_people_saw_none_pays_the_charge_before_it_is_tried_again() {
    let late = Notices::late_by(100 * HOUR + Duration::from_secs(30));
    let world = one_in_doubt(Behaviour::take_money_and_lose_answer().with_notices(late)).await;
    after(&world, 100).await;
    declare_absent(&world, "jan").await.unwrap();
    declare_absent(&world, "ewa").await.unwrap();
    assert_eq!(world.charges().await, ["retry_wait", "paid"]);
    after(&world, 48).await;
    assert_eq!(world.attempts().await, ["settled", "settled"]);
    assert_eq!(world.charges().await, ["paid", "paid"]);
    assert_eq!(world.posts(), 2);
    assert_eq!(world.incidents().await, Vec::<String>::new());
    world.settle_up().await;
}

#[tokio::test]
async fn money_that_moved_although_two_people_saw_none_is_surplus_beside_the_second_debit() {
    let late = Notices::late_by(102 * HOUR);
    let world = one_in_doubt(Behaviour::take_money_and_lose_answer().with_notices(late)).await;
    after(&world, 100).await;
    declare_absent(&world, "jan").await.unwrap();
    declare_absent(&world, "ewa").await.unwrap();
    after(&world, 48).await;
    assert_eq!(world.charges().await, ["paid", "paid"]);
    assert_eq!(world.attempts().await, ["surplus", "settled", "settled"]);
    assert_eq!(world.incidents().await, ["incident.surplus"]);
    assert_eq!(world.brakes().await, ["* stop surplus_settlement"]);
    world.compare_with_ledger().await;
}

#[tokio::test]
async fn a_transaction_that_is_found_after_two_people_saw_none_pays_the_charge() {
    let lost = Behaviour::take_money_and_lose_answer().with_notices(Notices::none());
    let world = one_in_doubt(lost).await;
    after(&world, 100).await;
    declare_absent(&world, "jan").await.unwrap();
    declare_absent(&world, "ewa").await.unwrap();
    let id = in_the_panel(&world, &the_order(&world).await);
    let settled = settle(&world, id).await.unwrap();
    assert_eq!(settled.recorded.charge, ChargeState::Paid);
    assert_eq!(settled.recorded.brake, None);
    world.run_days(2).await;
    assert_eq!(world.posts(), 2);
    world.settle_up().await;
}

#[tokio::test]
async fn a_transaction_that_contradicts_the_books_stops_all_charging_whoever_names_it() {
    let lost = Behaviour::take_money_and_lose_answer().with_notices(Notices::none());
    let world = World::new(Script::default()).await;
    world.simulator.add_rule(Rule::debits(lost).times(1));
    let card = Behaviour::decline_at_once("CODE_51").with_notices(Notices::none());
    world
        .subscribe(Agreement::monthly("2027-01-01").with_card(card))
        .await;
    world.charge().await;
    world.subscribe(Agreement::monthly("2027-01-02")).await;
    after(&world, 100).await;
    declare_absent(&world, "jan").await.unwrap();
    declare_absent(&world, "ewa").await.unwrap();
    // imoje had it after all, and declined it.
    let id = in_the_panel(&world, &the_order(&world).await);
    let settled = settle(&world, id).await.unwrap();
    assert_eq!(settled.recorded.brake, Some("contradicting_news"));
    assert_eq!(world.attempts().await, ["absent", "settled"]);
    assert_eq!(world.incidents().await, ["incident.contradiction"]);
    world.run_days(2).await;
    assert_eq!(world.charges().await, ["held", "paid"]);
    assert_eq!(world.posts(), 2);
    world.settle_up().await;
}

#[tokio::test]
async fn an_absent_debit_of_a_subscription_that_ended_meanwhile_is_not_made_again() {
    let world = one_in_doubt(Behaviour::lose_request()).await;
    after(&world, 100).await;
    let subscription_id: Uuid = world
        .one("SELECT subscription_id FROM charges WHERE state = 'held'")
        .await;
    let ended = SubscriptionId::from_uuid(subscription_id);
    let now = world.clock.now();
    world.store.cancel(ended, by("jan"), now).await.unwrap();
    declare_absent(&world, "jan").await.unwrap();
    let second = declare_absent(&world, "ewa").await.unwrap();
    assert_eq!(second.charge, ChargeState::Failed);
    after(&world, 48).await;
    assert_eq!(world.charges().await, ["failed", "paid"]);
    assert_eq!(world.posts(), 2);
    world.settle_up().await;
}

#[tokio::test]
async fn a_transaction_that_a_person_finds_is_read_and_recorded_as_imoje_shows_it() {
    let fates = [
        (Behaviour::settle_at_once(), "settled", "paid"),
        (
            Behaviour::decline_at_once("CODE_51"),
            "rejected",
            "retry_wait",
        ),
        (Behaviour::settle_after(2 * HOUR), "pending", "in_flight"),
    ];
    for (fate, attempt, charge) in fates {
        let world = World::new(Script::default()).await;
        let lost = Behaviour::take_money_and_lose_answer();
        world.simulator.add_rule(Rule::debits(lost).times(1));
        let card = fate.with_notices(Notices::none());
        world
            .subscribe(Agreement::monthly("2027-01-01").with_card(card))
            .await;
        world.charge().await;
        assert_eq!(world.attempts().await, ["in_doubt"]);
        let id = in_the_panel(&world, &the_order(&world).await);
        let settled = settle(&world, id).await.unwrap();
        assert_eq!(settled.gateway_status, attempt);
        assert_eq!(world.attempts().await, [attempt]);
        assert_eq!(world.charges().await, [charge]);
        assert_eq!(
            world
                .column("SELECT kind || ' ' || verdict || ' ' || actor || ' ' || detail FROM evidence WHERE actor <> 'cykl'")
                .await,
            [format!("read {attempt} jan looked into the panel")]
        );
        let decided = "SELECT count(*) FROM events WHERE kind = 'charge.decided' AND payload ->> 'actor' = 'jan'";
        assert_eq!(world.one::<i64>(decided).await, 1);
        let before = books(&world).await;
        let again = settle(&world, id).await.unwrap();
        assert_eq!(again.recorded.attempt_became, None);
        assert_eq!(books(&world).await, before, "the same again is no news");
        world.run_days(2).await;
        assert_eq!(world.incidents().await, Vec::<String>::new());
        world.settle_up().await;
    }
}

#[tokio::test]
async fn a_transaction_of_something_else_changes_nothing_and_is_told_apart() {
    let world =
        one_in_doubt(Behaviour::take_money_and_lose_answer().with_notices(Notices::none())).await;
    after(&world, 97).await;
    let before = books(&world).await;
    let foreign: String = world
        .one("SELECT transaction_id::text FROM attempts WHERE state = 'settled'")
        .await;
    match settle(&world, foreign.parse().unwrap()).await.unwrap_err() {
        SettleError::Differs(differences) => {
            let fields: Vec<_> = differences.iter().map(|one| one.field).collect();
            assert_eq!(fields, ["orderId"]);
        }
        other => panic!("{other}"),
    }
    let unknown = settle(&world, Uuid::new_v4()).await.unwrap_err();
    assert!(
        matches!(
            unknown,
            SettleError::NotShown {
                http_status: 404,
                ..
            }
        ),
        "{unknown}"
    );
    let id = in_the_panel(&world, &the_order(&world).await);
    for (unreadable, expected) in [
        (Behaviour::garbage("{\"transaction\":{}}", false), "Differs"),
        (Behaviour::garbage("[]", false), "NotShown"),
        (
            Behaviour::error(StatusCode::BAD_GATEWAY, ErrorBody::Html, false),
            "NotShown",
        ),
        (Behaviour::reset(false), "Unreachable"),
    ] {
        world.simulator.add_rule(Rule::reads(unreadable));
        let error = settle(&world, id).await.unwrap_err();
        assert!(format!("{error:?}").starts_with(expected), "{error:?}");
        world.simulator.clear_rules();
    }
    assert_eq!(books(&world).await, before);
    settle(&world, id).await.unwrap();
    assert_eq!(world.charges().await, ["paid", "paid"]);
    world.settle_up().await;
}

#[tokio::test]
async fn a_charge_in_doubt_is_written_off_by_one_person_and_paid_by_a_late_truth_all_the_same() {
    let lost = Behaviour::take_money_and_lose_answer().with_notices(Notices::none());
    let world = one_in_doubt(lost).await;
    let answers_until = world.clock.now() + TimeDelta::hours(96);
    after(&world, 1).await;
    assert_eq!(
        refusal(rule(&world, Instruction::WriteOff, "jan").await),
        Refused::AnswerMayCome(answers_until)
    );
    let failed = "UPDATE charges SET state = 'failed', reason = 'x', next_action_at = NULL WHERE state = 'in_flight'";
    is_refused(&world, "CY005", GIVING_UP, &[failed]).await;
    after(&world, 96).await;
    let ruled = rule(&world, Instruction::WriteOff, "jan").await.unwrap();
    assert_eq!(
        (ruled.effect, ruled.charge),
        (Effect::Done, ChargeState::Failed)
    );
    let before = books(&world).await;
    let again = rule(&world, Instruction::WriteOff, "ewa").await.unwrap();
    assert_eq!(again.effect, Effect::Nothing);
    assert_eq!(books(&world).await, before);
    assert_eq!(
        world
            .column("SELECT a.state || ' ' || (a.next_poll_at IS NULL) || ' ' || c.reason FROM attempts a JOIN charges c USING (charge_id) WHERE c.state = 'failed'")
            .await,
        ["in_doubt true written_off_in_doubt"]
    );
    let told = "SELECT kind FROM events WHERE kind IN ('charge.decided', 'charge.written_off') ORDER BY sequence_no";
    assert_eq!(
        world.column(told).await,
        ["charge.decided", "charge.written_off"]
    );
    // Nothing goes on by itself, and nobody lets it.
    world.run_days(8).await;
    assert_eq!(world.charges().await, ["failed", "paid"]);
    let refused = refusal(rule(&world, Instruction::RetryNow, "jan").await);
    assert!(matches!(refused, Refused::Undecided(_)), "{refused}");
    let id = in_the_panel(&world, &the_order(&world).await);
    settle(&world, id).await.unwrap();
    assert_eq!(world.charges().await, ["paid", "paid"]);
    assert_eq!(
        refusal(rule(&world, Instruction::WriteOff, "jan").await),
        Refused::State(ChargeState::Paid)
    );
    assert_eq!(world.posts(), 2);
    world.settle_up().await;
}

#[tokio::test]
async fn a_charge_whose_debit_is_pending_is_not_given_up_before_people_were_asked() {
    let world = World::new(Script::default()).await;
    world
        .subscribe(Agreement::monthly("2027-01-01").with_card(Behaviour::settle_after(96 * HOUR)))
        .await;
    world.charge().await;
    assert_eq!(world.attempts().await, ["pending"]);
    let failed = "UPDATE charges SET state = 'failed', reason = 'x', next_action_at = NULL";
    is_refused(&world, "CY005", GIVING_UP, &[failed]).await;
    let asked = "UPDATE attempts SET case_opened_at = permitted_at";
    assert_eq!(outcome(&world, &[asked, failed]).await, "ok");
    world.settle_up().await;
}

#[tokio::test]
async fn a_charge_whose_money_moved_is_never_given_up() {
    let world = World::new(Script::default()).await;
    let reversed = Behaviour::decline_then_settle("CODE_51", 48 * HOUR);
    world.simulator.add_rule(Rule::debits(reversed).times(1));
    world
        .simulator
        .add_rule(Rule::debits(Behaviour::settle_after(96 * HOUR)).times(1));
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world.run_days(3).await;
    assert_eq!(world.charges().await, ["held"]);
    for instruction in [Instruction::WriteOff, Instruction::RetryNow] {
        let refused = refusal(rule(&world, instruction, "jan").await);
        assert!(matches!(refused, Refused::MoneyMoved(_)), "{refused}");
    }
    let failed = "UPDATE charges SET state = 'failed', reason = 'x', next_action_at = NULL";
    is_refused(&world, "CY005", GIVING_UP, &[failed]).await;
    let going_on = "UPDATE charges SET state = 'retry_wait', reason = NULL";
    is_refused(&world, "CY005", GOING_ON, &[going_on]).await;
    world.release_brake().await;
    world.run_days(4).await;
    assert_eq!(world.charges().await, ["paid"]);
    world.compare_with_ledger().await;
}

/// A charge that was found twelve days late.
async fn one_late() -> World {
    let world = World::new(Script::default()).await;
    world.subscribe(Agreement::monthly("2026-12-20")).await;
    world.run_until_idle().await;
    assert_eq!(world.charges().await, ["held"]);
    world
}

#[tokio::test]
async fn a_charge_that_came_too_late_is_made_when_a_person_approves_it() {
    let world = one_late().await;
    let ruled = rule(&world, Instruction::Approve, "jan").await.unwrap();
    assert_eq!(ruled.charge, ChargeState::RetryWait);
    assert_eq!(ruled.next_action_at, Some(world.clock.now()));
    let before = books(&world).await;
    let again = rule(&world, Instruction::Approve, "jan").await.unwrap();
    assert_eq!(again.effect, Effect::Nothing);
    assert_eq!(books(&world).await, before);
    world.run_until_idle().await;
    assert_eq!(world.charges().await, ["paid"]);
    let decided = "SELECT (payload ->> 'decision') || ' ' || (payload ->> 'reason') FROM events WHERE kind = 'charge.decided'";
    assert_eq!(
        world.column(decided).await,
        ["approve looked into the panel"]
    );
    world.settle_up().await;
}

#[tokio::test]
async fn a_charge_that_came_too_late_is_given_up_when_a_person_says_so() {
    let world = one_late().await;
    assert_eq!(
        refusal(rule(&world, Instruction::RetryNow, "jan").await),
        Refused::HeldFor("too_late".to_owned())
    );
    let ruled = rule(&world, Instruction::WriteOff, "jan").await.unwrap();
    assert_eq!(ruled.charge, ChargeState::Failed);
    assert_eq!(
        world.column("SELECT reason FROM charges").await,
        ["written_off"]
    );
    let told = "SELECT kind FROM events WHERE charge_id IS NOT NULL ORDER BY sequence_no";
    assert_eq!(
        world.column(told).await,
        ["charge.held", "charge.decided", "charge.failed"]
    );
    assert_eq!(
        refusal(rule(&world, Instruction::Approve, "jan").await),
        Refused::State(ChargeState::Failed)
    );
    // Nothing of it is in doubt, so another person may change that.
    rule(&world, Instruction::RetryNow, "ewa").await.unwrap();
    world.run_until_idle().await;
    assert_eq!(world.charges().await, ["paid"]);
    world.settle_up().await;
}

#[tokio::test]
async fn nothing_is_approved_that_is_in_doubt_or_of_a_subscription_that_stopped() {
    let world = one_in_doubt(Behaviour::lose_request()).await;
    after(&world, 97).await;
    assert_eq!(
        refusal(rule(&world, Instruction::Approve, "jan").await),
        Refused::HeldFor("in_doubt".to_owned())
    );
    let going_on =
        "UPDATE charges SET state = 'retry_wait', reason = NULL WHERE state IN ('held', 'failed')";
    is_refused(&world, "CY005", GOING_ON, &[going_on]).await;
    world.settle_up().await;

    let world = one_late().await;
    let subscription_id: Uuid = world.one("SELECT subscription_id FROM subscriptions").await;
    let paused = SubscriptionId::from_uuid(subscription_id);
    let now = world.clock.now();
    world.store.pause(paused, by("jan"), now).await.unwrap();
    assert_eq!(
        refusal(rule(&world, Instruction::Approve, "jan").await),
        Refused::NotBillable(SubscriptionStatus::Paused)
    );
    is_refused(&world, "CY003", GOING_ON, &[going_on]).await;
    let failed = "UPDATE charges SET state = 'failed', reason = 'x', next_action_at = NULL";
    let reopened =
        "UPDATE charges SET state = 'retry_wait', reason = NULL, next_action_at = planned_at";
    is_refused(&world, "CY003", GOING_ON, &[failed, reopened]).await;
    world.settle_up().await;
}

#[tokio::test]
async fn a_retry_goes_out_early_when_a_person_says_so_and_keeps_its_distance() {
    let world = World::new(Script::default()).await;
    world
        .simulator
        .add_rule(Rule::debits(Behaviour::decline_at_once("CODE_51")).times(1));
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world.run_until_idle().await;
    assert_eq!(world.charges().await, ["retry_wait"]);
    let earliest = world.clock.now() + world.config.charging.min_gap;
    let ruled = rule(&world, Instruction::RetryNow, "jan").await.unwrap();
    assert_eq!(ruled.next_action_at, Some(earliest));
    let again = rule(&world, Instruction::RetryNow, "jan").await.unwrap();
    assert_eq!(again.effect, Effect::Nothing);
    world.run_until(earliest - TimeDelta::seconds(1)).await;
    assert_eq!(world.posts(), 1);
    world.run_until(earliest + TimeDelta::minutes(1)).await;
    assert_eq!(world.attempts().await, ["rejected", "settled"]);
    assert_eq!(world.charges().await, ["paid"]);
    world.settle_up().await;
}

#[tokio::test]
async fn retries_that_a_person_wants_keep_the_budget_of_their_card() {
    let world = World::new(Script::default()).await;
    world
        .simulator
        .add_rule(Rule::debits(Behaviour::decline_at_once("CODE_51")).times(2));
    let first = Agreement::monthly("2027-01-01");
    let second = Agreement::monthly("2027-01-01").on_the_card_of(&first);
    world.subscribe(first).await;
    world.subscribe(second).await;
    world.run_until_idle().await;
    assert_eq!(world.charges().await, ["retry_wait", "retry_wait"]);
    for charge_id in world.column("SELECT charge_id::text FROM charges").await {
        let (policy, now) = (&world.config.policy, world.clock.now());
        world
            .store
            .rule(
                charge_id.parse().unwrap(),
                Instruction::RetryNow,
                by("jan"),
                policy,
                now,
            )
            .await
            .unwrap();
    }
    after(&world, 21).await;
    assert_eq!(world.posts(), 3, "one retry of a card in 24 hours");
    after(&world, 24).await;
    assert_eq!(world.posts(), 4);
    assert_eq!(world.charges().await, ["paid", "paid"]);
    world.settle_up().await;
}

#[tokio::test]
async fn a_retry_that_has_waited_a_month_for_the_budget_of_its_card_is_put_before_a_person() {
    let world = World::new(Script::default()).await;
    // Enough good debits that the declines stop nothing.
    for _ in 0..4 {
        let good = Agreement::monthly("2027-01-01").every("P1D");
        world.subscribe(good).await;
    }
    let card = Behaviour::decline_at_once("CODE_51");
    let first = Agreement::monthly("2027-01-01").times(1).with_card(card);
    let daily = Agreement::monthly("2027-01-02")
        .every("P1D")
        .on_the_card_of(&first);
    let waits = world.subscribe(first).await;
    daily
        .store(&world.books, &world.config, world.clock.now())
        .await;
    world.run_days(29).await;
    let stands = "SELECT c.state || coalesce(' ' || c.reason, '') FROM charges c WHERE c.subscription_id = $1";
    let charge = async || -> String {
        let read = sqlx::query_scalar(stands).bind(waits);
        read.fetch_one(&world.books).await.unwrap()
    };
    assert_eq!(charge().await, "retry_wait");
    world.run_days(4).await;
    assert_eq!(charge().await, "held card_budget_spent");
    let told: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM events WHERE subscription_id = $1 AND kind = 'charge.held'",
    )
    .bind(waits)
    .fetch_one(&world.books)
    .await
    .unwrap();
    assert_eq!(told, 1);
    let declines: i64 = world
        .one(
            "SELECT max(n) FROM (
                 SELECT (SELECT count(*) FROM attempts b WHERE b.card_id = a.card_id AND b.state = 'rejected'
                             AND b.decided_at > a.decided_at - interval '30 days' AND b.decided_at <= a.decided_at) AS n
                 FROM attempts a WHERE a.state = 'rejected') AS counts",
        )
        .await;
    assert_eq!(declines, 8, "the budget of the card");
    world.settle_up().await;
}

#[tokio::test]
async fn a_decline_that_was_reversed_is_not_retried_although_a_person_says_so() {
    let world = World::new(Script::default()).await;
    let reversed = Behaviour::decline_then_settle("CODE_51", HOUR).with_notices(Notices::none());
    world.simulator.add_rule(Rule::debits(reversed).times(1));
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world
        .run_until(world.clock.now() + TimeDelta::minutes(30))
        .await;
    rule(&world, Instruction::RetryNow, "jan").await.unwrap();
    world.run_days(1).await;
    assert_eq!(world.attempts().await, ["settled"]);
    assert_eq!(world.charges().await, ["paid"]);
    assert_eq!(world.posts(), 1);
    world.settle_up().await;
}

#[tokio::test]
async fn a_card_that_must_never_be_tried_again_is_tried_only_after_it_was_replaced() {
    let world = World::new(Script::default()).await;
    world
        .simulator
        .add_rule(Rule::debits(Behaviour::decline_at_once("CODE_43")).times(1));
    world
        .subscribe(Agreement::monthly("2027-01-01").times(1))
        .await;
    world.run_until_idle().await;
    assert_eq!(world.charges().await, ["failed"]);
    assert_eq!(
        refusal(rule(&world, Instruction::RetryNow, "jan").await),
        Refused::NotBillable(SubscriptionStatus::Deactivated)
    );
    // The same card is attached again.
    sqlx::query(
        "UPDATE subscriptions SET status = 'active', status_reason = NULL, is_finishing = true",
    )
    .execute(&world.books)
    .await
    .unwrap();
    assert_eq!(
        refusal(rule(&world, Instruction::RetryNow, "jan").await),
        Refused::CardBlocked
    );
    let reopened =
        "UPDATE charges SET state = 'retry_wait', reason = NULL, next_action_at = planned_at";
    is_refused(&world, "CY003", GOING_ON, &[reopened]).await;
    // Another card is.
    let other = Agreement::monthly("2027-01-01");
    world.simulator.register_profile(other.profile());
    sqlx::query(
        "WITH card AS (
            INSERT INTO cards (card_id, shop, cid, payment_profile_id, created_at) VALUES ($1, 'main', $2, $3, now())
            RETURNING card_id)
         UPDATE subscriptions SET card_id = card.card_id FROM card",
    )
    .bind(Uuid::now_v7())
    .bind(&other.cid)
    .bind(other.profile)
    .execute(&world.books)
    .await
    .unwrap();
    assert_eq!(outcome(&world, &[reopened]).await, "ok");
    let ruled = rule(&world, Instruction::RetryNow, "jan").await.unwrap();
    assert_eq!(ruled.charge, ChargeState::RetryWait);
    world.run_days(2).await;
    assert_eq!(world.charges().await, ["paid"]);
    assert_eq!(world.attempts().await, ["rejected", "settled"]);
    world.settle_up().await;
}

#[tokio::test]
async fn a_charge_that_failed_is_tried_again_and_its_subscription_is_behind_until_it_is_paid() {
    let world = one_late().await;
    rule(&world, Instruction::WriteOff, "jan").await.unwrap();
    rule(&world, Instruction::RetryNow, "jan").await.unwrap();
    let status = "SELECT status::text FROM subscriptions";
    assert_eq!(world.column(status).await, ["past_due"]);
    world.run_until_idle().await;
    assert_eq!(world.column(status).await, ["active"]);
    assert_eq!(
        refusal(rule(&world, Instruction::RetryNow, "jan").await),
        Refused::State(ChargeState::Paid)
    );
    world.settle_up().await;
}

#[tokio::test]
async fn a_charge_held_for_what_is_mended_goes_on_when_a_person_says_so() {
    let world = World::new(Script::default()).await;
    let refused = Behaviour::error(StatusCode::UNPROCESSABLE_ENTITY, ErrorBody::Object, false);
    world.simulator.add_rule(Rule::debits(refused).times(1));
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world.run_until_idle().await;
    assert_eq!(
        world.column("SELECT reason FROM held").await,
        ["request_refused"]
    );
    rule(&world, Instruction::RetryNow, "jan").await.unwrap();
    world.run_days(1).await;
    assert_eq!(world.charges().await, ["paid"]);
    assert_eq!(world.attempts().await, ["refused", "settled"]);
    world.settle_up().await;
}

#[tokio::test]
async fn nothing_is_decided_about_a_charge_that_is_archived_or_that_does_not_exist() {
    let world = World::new(Script::default()).await;
    sqlx::raw_sql(
        "SELECT add_archive_quarter('2025-01-01');
         INSERT INTO archived_charges (charge_id, subscription_id, shop, period_no, due_on, due_at, amount_minor, currency, state,
                                       reason, attempts, declines, unsent, planned_at)
         VALUES ('00000000-0000-7000-8000-000000000001', gen_random_uuid(), 'main', 0, '2025-01-05', '2025-01-05T05:00Z', 4900, 'PLN',
                 'failed', 'x', 0, 0, 0, '2025-01-05T05:00Z')",
    )
    .execute(&world.books)
    .await
    .unwrap();
    let archived: ChargeId = "00000000-0000-7000-8000-000000000001".parse().unwrap();
    let missing = ChargeId::from_uuid(Uuid::new_v4());
    let (policy, now) = (&world.config.policy, world.clock.now());
    let absent_after = world.config.absent_after;
    for instruction in [
        Instruction::DeclareAbsent { absent_after },
        Instruction::WriteOff,
        Instruction::Approve,
        Instruction::RetryNow,
    ] {
        let ruled = world
            .store
            .rule(archived, instruction, by("jan"), policy, now)
            .await;
        assert!(matches!(ruled, Err(RulingError::Archived(_))), "{ruled:?}");
        let ruled = world
            .store
            .rule(missing, instruction, by("jan"), policy, now)
            .await;
        assert!(matches!(ruled, Err(RulingError::Missing(_))), "{ruled:?}");
    }
    let transaction_id = TransactionId::from_uuid(Uuid::new_v4());
    let settled = world
        .workers
        .resolver
        .settle(archived, transaction_id, by("jan"), now)
        .await;
    assert!(
        matches!(settled, Err(SettleError::Charge(RulingError::Archived(_)))),
        "{settled:?}"
    );
}

#[tokio::test]
async fn no_debit_follows_an_absent_one_while_a_notice_about_it_is_not_read() {
    let lost = Behaviour::take_money_and_lose_answer().with_notices(Notices::late_by(HOUR * 100));
    let world = one_in_doubt(lost).await;
    after(&world, 99).await;
    world.advance(TimeDelta::minutes(59));
    // The second person and the notice come at the same time, and imoje cannot be read.
    world.simulator.add_rule(Rule::reads(Behaviour::error(
        StatusCode::BAD_GATEWAY,
        ErrorBody::Html,
        true,
    )));
    world.advance(TimeDelta::minutes(1));
    declare_absent(&world, "jan").await.unwrap();
    declare_absent(&world, "ewa").await.unwrap();
    after(&world, 20).await;
    assert_eq!(world.charges().await, ["retry_wait", "paid"]);
    assert_eq!(world.posts(), 2, "the notice is not read yet");
    let charge_id = the_charge(&world).await;
    let permit = "INSERT INTO attempts SELECT (jsonb_populate_record(a, jsonb_build_object(
            'attempt_id', gen_random_uuid(), 'attempt_no', 2, 'state', 'in_doubt', 'last_evidence_id', NULL, 'decided_at', NULL,
            'order_id', regexp_replace(order_id, '-1$', '-2'), 'permitted_at', permitted_at + interval '5 days',
            'quiet_until', permitted_at + interval '6 days'))).*
        FROM attempts a WHERE charge_id = $1";
    let refused = sqlx::query(permit)
        .bind(charge_id.as_uuid())
        .execute(&world.books)
        .await
        .unwrap_err();
    assert_eq!(
        refused.as_database_error().unwrap().code().unwrap(),
        "CY005"
    );
    world.simulator.clear_rules();
    world.run_days(3).await;
    assert_eq!(world.charges().await, ["paid", "paid"]);
    assert_eq!(world.posts(), 2);
    world.settle_up().await;
}

#[tokio::test]
async fn nothing_is_declared_absent_whose_notices_go_elsewhere() {
    let world = one_in_doubt(Behaviour::lose_request()).await;
    sqlx::query(
        "UPDATE subscriptions SET notification_url = 'https://shop.example.com/imoje'
         WHERE subscription_id = (SELECT subscription_id FROM attempts)",
    )
    .execute(&world.books)
    .await
    .unwrap();
    after(&world, 100).await;
    let refused = refusal(declare_absent(&world, "jan").await);
    assert_eq!(refused, Refused::InboxSilent);
    let now = world.clock.now();
    let refused = sqlx::query(sqlx::AssertSqlSafe(declaration("jan", now)))
        .execute(&world.books)
        .await
        .unwrap_err();
    assert_eq!(
        refused.as_database_error().unwrap().code().unwrap(),
        "CY011"
    );
}
