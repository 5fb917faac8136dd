//! Cards without a profile: debited by the transaction that registered them, under all the rules that hold for profiles.

use axum::http::StatusCode;
use chrono::TimeDelta;
use cykl::simulator::{Behaviour, CardData, ErrorBody, ProfileType, Rule, Script};
use cykl::store::brakes::BrakeMode;
use serde_json::{Value, json};

use crate::card_proxy::{ALIAS, NUMBER, Proxy};
use crate::harness::{Agreement, Setting, World};

pub fn aliases() -> Value {
    json!({"firstName": "Anna", "lastName": "Nowak", "number": ALIAS, "month": "12", "year": "2029"})
}

fn plain(anchor: &str) -> Agreement {
    Agreement::monthly(anchor).without_profile()
}

#[tokio::test]
async fn a_card_without_a_profile_is_debited_period_after_period() {
    let world = World::new(Script::default()).await;
    world.subscribe(plain("2027-01-01")).await;
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world.run_days(60).await;
    assert_eq!(world.charges().await, ["paid"; 6]);
    let ledger = world.simulator.ledger();
    let of_type = |wanted: Option<ProfileType>| {
        let all = ledger.transactions().iter();
        all.filter(|one| one.profile_type == wanted).count()
    };
    assert_eq!(
        (of_type(Some(ProfileType::Standard)), of_type(None)),
        (3, 3)
    );
    world.settle_up().await;
}

#[tokio::test]
async fn a_declined_card_without_a_profile_is_tried_again_and_an_answer_that_was_lost_is_never_repeated()
 {
    let world = World::new(Script::default()).await;
    let declined = Behaviour::decline("CODE_51");
    world
        .subscribe(plain("2027-01-01").with_card(declined))
        .await;
    let lost = Behaviour::take_money_and_lose_answer();
    world.subscribe(plain("2027-01-01").with_card(lost)).await;
    let server_error =
        Behaviour::error(StatusCode::INTERNAL_SERVER_ERROR, ErrorBody::Object, false);
    world
        .subscribe(plain("2027-01-01").with_card(server_error))
        .await;
    world.run_days(25).await;
    let mut charges = world.charges().await;
    charges.sort();
    // Declined five times; found by its notice; doubted for ten days and written off.
    assert_eq!(charges, ["failed", "failed", "paid"]);
    assert_eq!(world.posts(), 5 + 1 + 1);
    world.settle_up().await;
}

#[tokio::test]
async fn a_shop_that_may_not_send_card_data_stops_everything_at_once() {
    let world = World::new(Script {
        card_data: CardData {
            allowed: false,
            ..CardData::default()
        },
        ..Script::default()
    })
    .await;
    for _ in 0..3 {
        world.subscribe(plain("2027-01-01")).await;
    }
    world.charge().await;
    assert_eq!(world.brakes().await, ["* stop card_data_disabled"]);
    assert_eq!(world.incidents().await, ["incident.unauthorized"]);
    assert_eq!(world.simulator.totals().booked, 0);
    let mut states = world.attempts().await;
    states.dedup();
    assert_eq!(
        states,
        ["refused"],
        "it is an explicit refusal and no doubt"
    );
    world.settle_up().await;
}

#[tokio::test]
async fn card_numbers_pass_by_in_a_proxy_and_never_enter_cykl() {
    let script = Script {
        card_data: CardData {
            standard_needs_all: true,
            ..CardData::default()
        },
        ..Script::default()
    };
    let unproxied = World::new(script.clone()).await;
    unproxied
        .subscribe(plain("2027-01-01").with_aliases(aliases()))
        .await;
    unproxied.charge().await;
    assert_eq!(unproxied.posts(), 0, "nobody is there who knows the alias");
    assert_eq!(unproxied.charges().await, ["held"]);
    unproxied.settle_up().await;

    let mut world = World::new(script).await;
    let proxy = Proxy::in_front_of(&world.simulator.base_url()).await;
    world.config.gateway.card_proxy_url = Some(proxy.base_url.parse().unwrap());
    world.workers = world.another_instance_of(&world.config, &world.clock).await;
    world
        .subscribe(plain("2027-01-01").with_aliases(aliases()))
        .await;
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world.run_days(1).await;
    assert_eq!(world.charges().await, ["paid"; 2]);
    {
        let seen = proxy.seen.lock().unwrap();
        assert_eq!(seen.len(), 1, "a profile needs no proxy");
        assert_eq!(seen[0]["card"]["number"], ALIAS);
        assert_eq!(seen[0]["profileType"], "STANDARD");
    }
    let rows: String = world
        .one("SELECT string_agg(k::text, ' ') || (SELECT string_agg(n.body, ' ') FROM notices n) FROM cards k")
        .await;
    assert!(!rows.contains(NUMBER), "{rows}");
    world.settle_up().await;
}

#[tokio::test]
async fn a_proxy_that_is_down_sends_nothing_and_the_charge_goes_out_once_it_is_back() {
    let mut world = World::new(Script::default()).await;
    let proxy = Proxy::in_front_of(&world.simulator.base_url()).await;
    world.config.gateway.card_proxy_url = Some("http://127.0.0.1:9/cards".parse().unwrap());
    let without = world.another_instance_of(&world.config, &world.clock).await;
    world
        .subscribe(plain("2027-01-01").with_aliases(aliases()))
        .await;
    let now = world.clock.now();
    without.scheduler.run_once(now).await.unwrap();
    without.charger.run_once(now).await.unwrap();
    assert_eq!(world.attempts().await, ["not_sent"]);
    world.config.gateway.card_proxy_url = Some(proxy.base_url.parse().unwrap());
    world.workers = world.another_instance_of(&world.config, &world.clock).await;
    world
        .run_until(world.clock.now() + TimeDelta::hours(1))
        .await;
    assert_eq!(world.charges().await, ["paid"]);
    world.settle_up().await;
}

#[tokio::test]
async fn the_brake_holds_cards_without_a_profile_back_as_well() {
    let world = World::with(Setting::default()).await;
    world.subscribe(plain("2027-01-01")).await;
    let now = world.clock.now();
    world
        .store
        .set_brake(None, BrakeMode::Stop, "test", "a test", now)
        .await
        .unwrap();
    world.run_days(1).await;
    assert_eq!(
        (world.posts(), world.charges().await),
        (0, vec!["planned".to_owned()])
    );
    world
        .store
        .set_brake(None, BrakeMode::Run, "test", "a test", world.clock.now())
        .await
        .unwrap();
    world
        .simulator
        .add_rule(Rule::debits(Behaviour::settle_at_once()));
    world.run_until_idle().await;
    assert_eq!(world.charges().await, ["paid"]);
    world.settle_up().await;
}
