//! Refunds: money goes back once for each order, never more than was taken, and whatever becomes of the answer is found out.

use std::time::Duration;

use axum::http::StatusCode;
use chrono::TimeDelta;
use cykl::cli::daemon;
use cykl::domain::attempt::AttemptState;
use cykl::domain::id::ChargeId;
use cykl::simulator::{Behaviour, Call, ErrorBody, Fate, Notices, Rule, Script, WrongEcho};
use cykl::store::brakes::BrakeMode;
use cykl::store::status::By;
use cykl::store::{Refusal, StoreError};
use cykl::workers::refunder::{RefundError, Refunded, Refunder, Wanted};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Agreement, MERCHANT_ID, SERVICE_ID, TOKEN, World};
use crate::notices::{panel_address, post_signed};

const BY: By<'static> = By {
    actor: "eve",
    reason: "the customer asked",
};

/// A world with one charge of 49.00 that is paid.
async fn paid() -> World {
    let world = World::new(Script::default()).await;
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world.run_until_idle().await;
    assert_eq!(world.charges().await, ["paid"]);
    world
}

fn on_refunds(behaviour: Behaviour) -> Rule {
    Rule::debits(behaviour).on(Call::Refund)
}

fn refunder(world: &World) -> Refunder {
    daemon::refunder(&world.config, &world.store, &world.clock, world.fence_id).unwrap()
}

async fn the_charge(world: &World) -> ChargeId {
    let id = world
        .one::<Uuid>("SELECT charge_id FROM all_charges ORDER BY due_on, charge_id LIMIT 1")
        .await;
    ChargeId::from_uuid(id)
}

async fn wanted(world: &World, amount_minor: Option<i64>) -> Wanted<'static> {
    Wanted {
        charge_id: the_charge(world).await,
        attempt_no: None,
        amount_minor,
        title: None,
        is_confirmed_by_email: false,
        by: BY,
    }
}

/// Orders a refund, some time after the one before.
async fn refund(world: &World, amount_minor: Option<i64>) -> Result<Refunded, RefundError> {
    world.advance(TimeDelta::seconds(6));
    refunder(world)
        .refund(wanted(world, amount_minor).await)
        .await
}

fn state(refunded: &Result<Refunded, RefundError>) -> AttemptState {
    refunded.as_ref().unwrap().recorded.state
}

async fn refunds(world: &World) -> Vec<String> {
    world
        .column("SELECT origin || ' ' || state || ' ' || amount_minor FROM refunds ORDER BY permitted_at, refund_id")
        .await
}

/// What was told of refunds, in its order.
async fn told(world: &World) -> Vec<String> {
    world
        .column("SELECT kind FROM events WHERE kind LIKE 'refund.%' ORDER BY sequence_no")
        .await
}

/// Somebody orders a refund in the gateway's panel. Returns the ids of the debit and of the refund.
async fn refund_in_the_panel(world: &World, amount_minor: u32) -> (Uuid, Uuid) {
    world.advance(TimeDelta::seconds(6));
    let sale = world.simulator.ledger().transactions()[0].id;
    let url = format!(
        "{}/{MERCHANT_ID}/transaction/{sale}/refund",
        world.simulator.base_url()
    );
    let body = json!({"type": "refund", "serviceId": SERVICE_ID, "amount": amount_minor});
    let answer = reqwest::Client::new()
        .post(url)
        .bearer_auth(TOKEN)
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let answer: Value = answer.json().await.unwrap();
    let id = answer["transaction"]["id"].as_str().unwrap();
    (sale, id.parse().unwrap())
}

#[tokio::test]
async fn money_goes_back_in_parts_and_never_more_than_was_taken() {
    let world = paid().await;
    let first = refund(&world, Some(900)).await;
    assert_eq!(state(&first), AttemptState::Settled);
    let too_much = refund(&world, Some(4_001)).await.unwrap_err();
    assert_eq!(
        too_much.to_string(),
        "40.01 PLN is more than the 40.00 PLN that can still go back"
    );
    let rest = refund(&world, None).await.unwrap();
    assert_eq!(rest.amount.to_string(), "40.00 PLN");
    for amount in [None, Some(1)] {
        let nothing = refund(&world, amount).await.unwrap_err();
        assert!(matches!(nothing, RefundError::NothingLeft(_)), "{nothing}");
    }
    assert_eq!(
        refunds(&world).await,
        ["cykl settled 900", "cykl settled 4000"]
    );
    let shown: i64 = world
        .one("SELECT refunded_minor FROM billing.charges")
        .await;
    assert_eq!(shown, 4_900);
    let listed: String = world
        .one(
            "SELECT string_agg(format('%s %s %s %s', external_id <> '', actor, reason, currency), ';') FROM billing.refunds",
        )
        .await;
    assert_eq!(
        listed,
        "t eve the customer asked PLN;t eve the customer asked PLN"
    );
    assert_eq!(told(&world).await, ["refund.settled", "refund.settled"]);
    assert_eq!(
        world.charges().await,
        ["paid"],
        "what went back was paid before"
    );
    world.run_until_idle().await;
    world.settle_up().await;
}

#[tokio::test]
async fn a_refund_whose_answer_was_lost_is_found_in_the_list_and_blocks_until_then() {
    let world = paid().await;
    let lost = Behaviour::take_money_and_lose_answer();
    world.simulator.add_rule(on_refunds(lost).times(1));
    assert_eq!(
        state(&refund(&world, Some(900)).await),
        AttemptState::InDoubt
    );
    assert_eq!(told(&world).await, ["refund.in_doubt"]);
    let another = refund(&world, Some(900)).await.unwrap_err();
    assert!(matches!(another, RefundError::InDoubt { .. }), "{another}");
    // Its notice names a refund that may be this one, whose answer is still to come.
    world.run_until_idle().await;
    assert_eq!(refunds(&world).await, ["cykl in_doubt 900"]);
    world.run_days(1).await;
    assert_eq!(refunds(&world).await, ["cykl settled 900"]);
    assert_eq!(told(&world).await, ["refund.in_doubt", "refund.settled"]);
    assert_eq!(
        state(&refund(&world, Some(900)).await),
        AttemptState::Settled
    );
    world.settle_up().await;
}

#[tokio::test]
async fn whoever_is_killed_while_the_request_is_on_its_way_leaves_a_refund_that_is_found() {
    for booked in [true, false] {
        let world = paid().await;
        world
            .simulator
            .add_rule(on_refunds(Behaviour::hang(booked)).times(1));
        let refunder = refunder(&world);
        let wanted = wanted(&world, None).await;
        let killed = tokio::spawn(async move { refunder.refund(wanted).await.unwrap() });
        while world.simulator.ledger().refund_posts().is_empty() {
            tokio::task::yield_now().await;
        }
        killed.abort();
        assert!(killed.await.unwrap_err().is_cancelled());
        assert_eq!(refunds(&world).await, ["cykl in_doubt 4900"]);
        world.run_days(1).await;
        let expected = if booked { "settled" } else { "in_doubt" };
        assert_eq!(refunds(&world).await, [format!("cykl {expected} 4900")]);
        world.settle_up().await;
    }
}

#[tokio::test]
async fn a_refund_that_never_arrived_is_declared_absent_by_a_person_and_then_ordered_again() {
    let world = paid().await;
    let lost = Behaviour::lose_request();
    world.simulator.add_rule(on_refunds(lost).times(1));
    assert_eq!(state(&refund(&world, None).await), AttemptState::InDoubt);
    let charge_id = the_charge(&world).await;
    world.run_days(4).await;
    let declare = || async { refunder(&world).declare_absent(charge_id, BY).await };
    let early = declare().await.unwrap_err();
    assert!(matches!(early, RefundError::TooEarly(_)), "{early}");
    world
        .run_until(world.clock.now() + TimeDelta::hours(6))
        .await;
    assert_eq!(
        told(&world).await,
        ["refund.in_doubt", "refund.case_opened"]
    );
    let recorded = declare().await.unwrap();
    assert_eq!(recorded.state, AttemptState::Absent);
    let again = declare().await.unwrap_err();
    assert!(matches!(again, RefundError::NoDoubt(_)), "{again}");
    assert_eq!(state(&refund(&world, None).await), AttemptState::Settled);
    assert_eq!(
        refunds(&world).await,
        ["cykl absent 4900", "cykl settled 4900"]
    );
    world.run_until_idle().await;
    world.settle_up().await;
}

#[tokio::test]
async fn what_imoje_lists_after_all_is_not_declared_absent() {
    let world = paid().await;
    let late = Behaviour::take_money_and_lose_answer();
    world.simulator.add_rule(on_refunds(late));
    // No read shows it until a person asks.
    let lag = Behaviour::default().with_read_lag(Duration::from_secs(90 * 3_600));
    world
        .simulator
        .add_rule(Rule::debits(lag).on(Call::Transaction).times(1));
    assert_eq!(state(&refund(&world, None).await), AttemptState::InDoubt);
    world.advance(TimeDelta::hours(101));
    let charge_id = the_charge(&world).await;
    let recorded = refunder(&world)
        .declare_absent(charge_id, BY)
        .await
        .unwrap();
    assert_eq!(recorded.state, AttemptState::Settled);
    world.run_until_idle().await;
    world.settle_up().await;
}

#[tokio::test]
async fn a_refund_that_takes_its_time_is_followed_by_its_notices_and_without_them() {
    for is_told in [true, false] {
        let world = paid().await;
        let slow = Behaviour::default().with_fate(Fate::SettleAfter(Duration::from_secs(86_400)));
        let slow = if is_told {
            slow
        } else {
            slow.with_notices(Notices::none())
        };
        world.simulator.add_rule(on_refunds(slow));
        assert_eq!(state(&refund(&world, None).await), AttemptState::Pending);
        let nothing = refund(&world, None).await.unwrap_err();
        assert!(matches!(nothing, RefundError::NothingLeft(_)), "{nothing}");
        world.run_days(2).await;
        assert_eq!(refunds(&world).await, ["cykl settled 4900"]);
        assert_eq!(told(&world).await, ["refund.settled"]);
        world.settle_up().await;
    }
}

#[tokio::test]
async fn a_refund_made_in_the_panel_is_told_counted_and_leaves_the_rest() {
    let world = paid().await;
    refund_in_the_panel(&world, 900).await;
    world.run_until_idle().await;
    assert_eq!(refunds(&world).await, ["elsewhere settled 900"]);
    assert_eq!(told(&world).await, ["refund.found"]);
    let rest = refund(&world, None).await.unwrap();
    assert_eq!(rest.amount.minor(), 4_000);
    world.run_until_idle().await;
    world.settle_up().await;
}

#[tokio::test]
async fn a_refund_made_in_the_panel_of_which_no_notice_came_is_seen_before_another_is_ordered() {
    let world = paid().await;
    world
        .simulator
        .add_rule(on_refunds(Behaviour::default().with_notices(Notices::none())).times(1));
    refund_in_the_panel(&world, 900).await;
    world.run_until_idle().await;
    assert_eq!(refunds(&world).await, Vec::<String>::new());
    let too_much = refund(&world, Some(4_001)).await.unwrap_err();
    assert!(
        matches!(too_much, RefundError::TooMuch { .. }),
        "{too_much}"
    );
    assert_eq!(refunds(&world).await, ["elsewhere settled 900"]);
    world.settle_up().await;
}

#[tokio::test]
async fn a_refund_tells_of_a_debit_whose_answer_was_lost() {
    let world = World::new(Script::default()).await;
    let lost = Behaviour::take_money_and_lose_answer().with_notices(Notices::none());
    world.simulator.add_rule(Rule::debits(lost).times(1));
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world.run_until_idle().await;
    assert_eq!(world.attempts().await, ["in_doubt"]);
    refund_in_the_panel(&world, 4_900).await;
    world.run_until_idle().await;
    assert_eq!(world.attempts().await, ["settled"]);
    assert_eq!(world.charges().await, ["paid"]);
    assert_eq!(refunds(&world).await, ["elsewhere settled 4900"]);
    world.settle_up().await;
}

#[tokio::test]
async fn notices_about_strange_refunds_decide_nothing() {
    let world = paid().await;
    let order = world.one::<String>("SELECT order_id FROM attempts").await;
    let sale = world.simulator.ledger().transactions()[0].id;
    let refund = |original: Value, order: &str| {
        json!({
            "transaction": {"id": Uuid::new_v4(), "type": "refund", "status": "settled", "orderId": order,
                            "serviceId": SERVICE_ID, "amount": 4_900, "currency": "PLN"},
            "originalTransactionId": original,
        })
        .to_string()
    };
    for body in [
        refund(json!(sale), &order),
        refund(Value::Null, &order),
        refund(json!(Uuid::new_v4()), "somebody-elses"),
    ] {
        assert_eq!(post_signed(&panel_address(&world.door), &body).await.0, 200);
    }
    world.run_days(6).await;
    assert_eq!(refunds(&world).await, Vec::<String>::new());
    let open: i64 = world
        .one("SELECT count(*) FROM notices WHERE state = 'new'")
        .await;
    assert_eq!(open, 0);
    assert_eq!(world.incidents().await, Vec::<String>::new());
    world.settle_up().await;
}

#[tokio::test]
async fn what_imoje_would_not_give_back_is_not_asked_for() {
    let world = paid().await;
    let refuse = Behaviour::garbage(
        r#"{"id":"x","refundable":false,"balance":false,"fullRefund":false}"#,
        false,
    );
    world
        .simulator
        .add_rule(Rule::debits(refuse).on(Call::CanRefund).times(1));
    let refused = refund(&world, None).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "imoje says that 49.00 PLN cannot go back: the balance of the shop does not cover it"
    );
    assert_eq!(refunds(&world).await, Vec::<String>::new());
    assert!(world.simulator.ledger().refund_posts().is_empty());
    world.settle_up().await;
}

#[tokio::test]
async fn every_way_to_refuse_is_told_and_leaves_the_money_where_it_is() {
    for (behaviour, expected, events) in [
        (
            Behaviour::error(StatusCode::UNPROCESSABLE_ENTITY, ErrorBody::Object, false),
            AttemptState::Refused,
            ["refund.failed"].as_slice(),
        ),
        (
            Behaviour::default().with_fate(Fate::RejectAtOnce("CODE_05".to_owned())),
            AttemptState::Rejected,
            &["refund.failed"],
        ),
        (
            Behaviour::error(StatusCode::INTERNAL_SERVER_ERROR, ErrorBody::Object, false),
            AttemptState::InDoubt,
            &["refund.in_doubt"],
        ),
        (
            Behaviour::error(StatusCode::NOT_FOUND, ErrorBody::Html, false),
            AttemptState::InDoubt,
            &["refund.in_doubt"],
        ),
    ] {
        let world = paid().await;
        world.simulator.add_rule(on_refunds(behaviour).times(1));
        let refunded = refund(&world, Some(100)).await;
        assert_eq!(state(&refunded), expected);
        assert_eq!(told(&world).await, events);
        assert_eq!(world.brakes().await, ["* run first start"]);
        world.settle_up().await;
    }
}

#[tokio::test]
async fn answers_that_nobody_expects_stop_all_charging() {
    let unauthorized = Behaviour::error(StatusCode::UNAUTHORIZED, ErrorBody::Object, false);
    let other_amount = Behaviour::default().echoing_wrongly(WrongEcho::Amount);
    for (behaviour, expected, brake) in [
        (unauthorized, AttemptState::Refused, "* stop unauthorized"),
        (
            other_amount,
            AttemptState::InDoubt,
            "* stop answer_mismatch",
        ),
    ] {
        let world = paid().await;
        world.simulator.add_rule(on_refunds(behaviour).times(1));
        let refunded = refund(&world, Some(100)).await;
        assert_eq!(state(&refunded), expected);
        assert_eq!(world.brakes().await, [brake]);
        world.run_days(1).await;
        world.settle_up().await;
    }
}

#[tokio::test]
async fn the_brake_lets_refunds_through_and_the_fence_does_not() {
    let world = paid().await;
    let now = world.clock.now();
    world
        .store
        .set_brake(None, BrakeMode::Stop, "eve", "a test", now)
        .await
        .unwrap();
    assert_eq!(
        state(&refund(&world, Some(100)).await),
        AttemptState::Settled
    );
    world.adopt(&world.store).await;
    let refused = refund(&world, Some(100)).await.unwrap_err();
    let RefundError::Store(StoreError::Refused { refusal, .. }) = refused else {
        panic!("{refused}");
    };
    assert_eq!(refusal, Refusal::Fence);
    assert_eq!(refunds(&world).await, ["cykl settled 100"]);
    world.run_until_idle().await;
    world.settle_up().await;
}

#[tokio::test]
async fn of_many_who_want_all_of_it_at_once_one_gets_it() {
    let world = paid().await;
    let wanted = wanted(&world, None).await;
    let mut orders = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let store = world.another_store().await;
        let refunder =
            daemon::refunder(&world.config, &store, &world.clock, world.fence_id).unwrap();
        orders.spawn(async move { refunder.refund(wanted).await });
    }
    let clock = world.clock.clone();
    let time = tokio::spawn(async move {
        loop {
            clock.advance(TimeDelta::milliseconds(100));
            tokio::task::yield_now().await;
        }
    });
    let done = orders.join_all().await;
    time.abort();
    let settled = done.iter().filter(|one| one.is_ok()).count();
    assert_eq!(settled, 1, "{done:#?}");
    assert_eq!(world.simulator.ledger().refund_posts().len(), 1);
    world.run_until_idle().await;
    world.settle_up().await;
}

#[tokio::test]
async fn the_second_refund_of_a_shop_waits_its_turn() {
    let world = paid().await;
    assert_eq!(
        state(&refund(&world, Some(100)).await),
        AttemptState::Settled
    );
    let first_at = world.clock.now();
    let refunder = refunder(&world);
    let wanted = wanted(&world, Some(100)).await;
    let second = tokio::spawn(async move { refunder.refund(wanted).await });
    while !second.is_finished() {
        world.advance(TimeDelta::milliseconds(50));
        tokio::task::yield_now().await;
    }
    assert_eq!(state(&second.await.unwrap()), AttemptState::Settled);
    let posts = world.simulator.ledger();
    let second_at = posts.refund_posts()[1].at;
    assert!(second_at >= first_at + TimeDelta::seconds(5), "{second_at}");
    world.run_until_idle().await;
    world.settle_up().await;
}

#[tokio::test]
async fn each_of_two_debits_of_one_charge_can_go_back() {
    let world = World::new(Script::default()).await;
    let flips = Behaviour::default().with_fate(Fate::RejectThenSettle {
        code: "CODE_51".to_owned(),
        after: Duration::from_secs(1),
        settle_after: Duration::from_secs(5 * 86_400),
    });
    world.simulator.add_rule(Rule::debits(flips).times(1));
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world.run_days(20).await;
    assert_eq!(world.attempts().await, ["surplus", "settled"]);
    let several = refund(&world, None).await.unwrap_err();
    assert_eq!(
        several.to_string(),
        "money was taken more than once for this charge, by the attempts 1 and 2; say which goes back"
    );
    let of_attempt = |attempt_no| {
        let world = &world;
        async move {
            world.advance(TimeDelta::seconds(6));
            let wanted = Wanted {
                attempt_no: Some(attempt_no),
                ..wanted(world, None).await
            };
            refunder(world).refund(wanted).await
        }
    };
    let refunded = of_attempt(1).await.unwrap();
    assert!(refunded.order_id.ends_with("-0-1"), "{refunded:?}");
    let nobody = of_attempt(3).await.unwrap_err();
    assert!(matches!(nobody, RefundError::NotTaken(3)), "{nobody}");
    world.run_until_idle().await;
    world.audit_except(&["money_moved_once"]).await;
    world.compare_with_ledger().await;
}
