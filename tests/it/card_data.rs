//! Cards that are registered by their data, which pass by as aliases: the payer is present, money may move at once, and later debits name
//! the transaction.

use std::time::Duration;

use chrono::TimeDelta;
use cykl::domain::id::{RegistrationId, SubscriptionId, TransactionId};
use cykl::domain::registration::RegistrationState;
use cykl::domain::shop::ReturnUrls;
use cykl::gateway::FirstDetails;
use cykl::simulator::{Behaviour, CardData, ErrorBody, Fate, Notices, ProfileType, Rule, Script};
use cykl::store::brakes::BrakeMode;
use cykl::store::registrations::{BeginError, EndError, WantedPayment};
use cykl::workers::registrar::{CancelError, Made, NewCard, RegisterError};
use cykl::workers::resolver::NamePaymentError;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::card_proxy::{ALIAS, CODE_ALIAS, NUMBER, Proxy};
use crate::harness::World;
use crate::plain::aliases;
use crate::registering::{
    BY, VERIFICATION, customer, link, payers_client, post_form, registering, registrar,
    registrations, statuses, told, wanted,
};

fn card() -> Value {
    let mut card = aliases();
    card["cvv"] = json!(CODE_ALIAS);
    card
}

pub fn new_card() -> NewCard {
    NewCard {
        customer: customer(),
        card: card(),
        browser: json!({
            "ip": "203.0.113.9", "language": "pl-PL", "jsEnabled": true, "timezoneOffset": -60, "userAgent": "Mozilla/5.0",
            "accept": "text/html", "javaEnabled": false, "screenColorDepth": 24, "screenHeight": 1080, "screenWidth": 1920
        }),
        return_to: None,
        title: None,
        details: FirstDetails::default(),
    }
}

/// A world whose card data go through a proxy, and what that has seen.
pub async fn with_proxy(script: Script) -> (World, Proxy) {
    let mut world = World::new(script).await;
    let proxy = Proxy::in_front_of(&world.simulator.base_url()).await;
    world.config.gateway.card_proxy_url = Some(proxy.base_url.parse().unwrap());
    world.workers = world.another_instance_of(&world.config, &world.clock).await;
    (world, proxy)
}

pub async fn register_card(
    world: &World,
    id: SubscriptionId,
    payment: WantedPayment,
) -> Result<Made, RegisterError> {
    registrar(world)
        .register_card(&wanted(id, payment), new_card())
        .await
}

/// As [`confirm`], on the page that was made.
async fn answer(made: &Made, action: &str) -> Option<String> {
    confirm(made.url.as_ref().unwrap().as_str(), action).await
}

/// The payer says on the page of 3-D Secure whether the payment is his. Returns where he is led to.
pub async fn confirm(page: &str, action: &str) -> Option<String> {
    let shown = payers_client().get(page).send().await.ok()?;
    assert_eq!(shown.status(), StatusCode::OK);
    assert!(shown.text().await.unwrap().contains(" PLN</p>"));
    let answered = post_form(page, format!("action={action}")).await.unwrap();
    assert_eq!(answered.status(), StatusCode::SEE_OTHER);
    let location = answered.headers().get("location")?;
    Some(location.to_str().unwrap().to_owned())
}

fn debits(behaviour: Behaviour) -> Rule {
    Rule::debits(behaviour).times(1)
}

/// Nothing in the books knows the card's number, nor by which alias its security code went.
async fn no_card_data_is_kept(world: &World) {
    let rows: String = world
        .one(
            "SELECT concat_ws(' ', (SELECT string_agg(r::text, ' ') FROM registrations r), (SELECT string_agg(k::text, ' ') FROM cards k),
                 (SELECT string_agg(e::text, ' ') FROM events e), (SELECT string_agg(n.body, ' ') FROM notices n))",
        )
        .await;
    assert!(rows.contains(ALIAS));
    assert!(
        !rows.contains(NUMBER) && !rows.contains(CODE_ALIAS),
        "{rows}"
    );
}

#[tokio::test]
async fn a_card_is_registered_by_its_data_as_the_first_charge_and_debited_from_then_on() {
    let (world, proxy) = with_proxy(Script {
        card_data: CardData {
            standard_needs_all: true,
            ..CardData::default()
        },
        ..Script::default()
    })
    .await;
    let id = registering(&world).await;
    let made = register_card(&world, id, WantedPayment::FirstCharge)
        .await
        .unwrap();
    assert_eq!(
        (made.status.as_str(), made.period_no, made.amount_minor),
        ("pending", Some(0), 4900)
    );
    assert_eq!(made.method.as_deref(), Some("GET"));
    world.run_until_idle().await;
    assert_eq!(registrations(&world).await, ["open"]);
    assert_eq!(statuses(&world).await, ["registering"]);
    let led_to = answer(&made, "confirm").await.unwrap();
    assert!(led_to.ends_with("/ok"), "{led_to}");
    world.run_until_idle().await;
    assert_eq!(registrations(&world).await, ["attached"]);
    assert_eq!(
        told(&world).await,
        [
            "subscription.created",
            "registration.opened",
            "registration.paid",
            "charge.paid",
            "card.attached",
            "subscription.activated"
        ]
    );
    world.run_days(40).await;
    assert_eq!(world.charges().await, ["paid"; 2]);
    let types: Vec<_> = world
        .simulator
        .ledger()
        .transactions()
        .iter()
        .map(|one| one.profile_type)
        .collect();
    assert_eq!(
        types,
        [Some(ProfileType::First), Some(ProfileType::Standard)]
    );
    {
        let seen = proxy.seen.lock().unwrap();
        let first = &seen[0];
        assert_eq!(first["profileType"], "FIRST");
        assert_eq!(first["card"], card());
        assert_eq!(first["additionalData"]["browser"], new_card().browser);
        assert_eq!(first["customer"]["cid"], made.cid.as_str());
        assert_eq!(first["title"], "Abonament 2027-01");
        assert_eq!(first["validTo"], made.valid_to.timestamp());
        let second = &seen[1];
        assert_eq!(second["card"]["number"], ALIAS);
        assert_eq!(second["card"].get("cvv"), None);
        assert!(second["card"]["firstTransactionId"].is_string());
    }
    no_card_data_is_kept(&world).await;
    world.settle_up().await;
}

#[tokio::test]
async fn a_verification_by_card_data_is_no_charge_wherever_imoje_shows_what_names_the_card() {
    for first_on_profile_only in [false, true] {
        let (world, _proxy) = with_proxy(Script {
            card_data: CardData {
                first_on_profile_only,
                ..CardData::default()
            },
            ..Script::default()
        })
        .await;
        let id = registering(&world).await;
        let made = register_card(&world, id, VERIFICATION).await.unwrap();
        assert_eq!((made.period_no, made.amount_minor), (None, 100));
        answer(&made, "confirm").await;
        world.run_days(1).await;
        assert_eq!(registrations(&world).await, ["attached"]);
        let charged = world
            .column("SELECT c.period_no || ' ' || c.state || ' ' || k.first_transaction_id FROM charges c, cards k")
            .await;
        assert!(charged[0].starts_with("0 paid first-"), "{charged:?}");
        world.settle_up().await;
    }
}

#[tokio::test]
async fn who_does_not_confirm_has_not_paid_and_may_try_again() {
    let (world, _proxy) = with_proxy(Script::default()).await;
    let id = registering(&world).await;
    let first = register_card(&world, id, WantedPayment::FirstCharge)
        .await
        .unwrap();
    let own = NewCard {
        return_to: Some(ReturnUrls {
            success: "https://shop.example.test/thanks".to_owned(),
            failure: "https://shop.example.test/sorry".to_owned(),
        }),
        ..new_card()
    };
    let again = register_card(&world, id, WantedPayment::FirstCharge).await;
    assert!(matches!(
        again,
        Err(RegisterError::Begin(BeginError::Open { .. }))
    ));
    assert!(matches!(
        registrar(&world).cancel(first.registration_id, BY).await,
        Err(CancelError::BeingPaid)
    ));
    answer(&first, "leave").await;
    world.run_until_idle().await;
    assert_eq!(registrations(&world).await, ["cancelled declined"]);
    // The second is forgotten, and ends by itself.
    let second = registrar(&world)
        .register_card(&wanted(id, WantedPayment::FirstCharge), own.clone())
        .await
        .unwrap();
    world.run_days(4).await;
    assert_eq!(
        registrations(&world).await,
        ["cancelled declined", "expired"]
    );
    assert_ne!(second.order_id, first.order_id);
    let third = registrar(&world)
        .register_card(&wanted(id, WantedPayment::FirstCharge), own)
        .await
        .unwrap();
    let led_to = answer(&third, "confirm").await;
    assert_eq!(led_to.as_deref(), Some("https://shop.example.test/thanks"));
    world.run_until_idle().await;
    assert_eq!(statuses(&world).await, ["active"]);
    assert_eq!(world.charges().await, ["paid"]);
    world.settle_up().await;
}

#[tokio::test]
async fn while_an_answer_is_lost_no_other_card_is_registered_and_a_notice_tells_what_became_of_it()
{
    for (fate, then, charges) in [
        (Fate::SettleAtOnce, "attached", vec!["paid"]),
        (
            Fate::RejectAtOnce("CODE_51".to_owned()),
            "cancelled declined",
            vec![],
        ),
        // The payer was never led to the page on which he would confirm it, and imoje cancels it in time.
        (Fate::PendingForEver, "expired", vec![]),
    ] {
        let takes = Behaviour::take_money_and_lose_answer().with_fate(fate);
        let (world, _proxy) = with_proxy(Script::default()).await;
        let id = registering(&world).await;
        world.simulator.add_rule(debits(takes));
        let lost = register_card(&world, id, WantedPayment::FirstCharge).await;
        assert!(
            matches!(lost, Err(RegisterError::InDoubt { .. })),
            "{lost:?}"
        );
        world.advance(TimeDelta::minutes(10));
        for other in [
            register_card(&world, id, WantedPayment::FirstCharge)
                .await
                .err(),
            link(&world, id, VERIFICATION).await.err(),
        ] {
            assert!(matches!(
                other,
                Some(RegisterError::Begin(BeginError::Open { .. }))
            ));
        }
        assert_eq!(registrations(&world).await, ["requested"]);
        world.run_days(1).await;
        assert_eq!(registrations(&world).await, [then]);
        assert_eq!(world.charges().await, charges);
        no_card_data_is_kept(&world).await;
        world.settle_up().await;
    }
}

/// A card whose data were sent, and nothing else is known.
async fn unanswered(world: &World, behaviour: Behaviour) -> (SubscriptionId, RegistrationId) {
    let id = registering(world).await;
    world.simulator.add_rule(debits(behaviour));
    match register_card(world, id, WantedPayment::FirstCharge).await {
        Err(RegisterError::InDoubt {
            registration_id, ..
        }) => (id, registration_id),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_order_that_nobody_tells_of_is_told_and_given_up_by_a_person_after_imojes_last_notice() {
    let (world, _proxy) = with_proxy(Script::default()).await;
    let (id, registration_id) = unanswered(&world, Behaviour::lose_request()).await;
    world.run_days(4).await;
    assert_eq!(
        told(&world).await,
        ["subscription.created", "registration.in_doubt"]
    );
    let early = registrar(&world).cancel(registration_id, BY).await;
    assert!(matches!(early, Err(CancelError::TooEarly(_))), "{early:?}");
    let again = register_card(&world, id, WantedPayment::FirstCharge).await;
    assert!(matches!(
        again,
        Err(RegisterError::Begin(BeginError::Open { .. }))
    ));
    // Nobody but a person gives it up.
    world.run_days(10).await;
    assert_eq!(registrations(&world).await, ["requested"]);
    registrar(&world).cancel(registration_id, BY).await.unwrap();
    assert_eq!(registrations(&world).await, ["cancelled a new customer"]);
    let made = register_card(&world, id, WantedPayment::FirstCharge)
        .await
        .unwrap();
    answer(&made, "confirm").await;
    world.run_days(1).await;
    assert_eq!(world.charges().await, ["paid"]);
    world.settle_up().await;
}

#[tokio::test]
async fn a_payment_of_which_no_notice_comes_is_taken_when_a_person_names_it() {
    let (world, _proxy) = with_proxy(Script::default()).await;
    let silent = Behaviour::take_money_and_lose_answer()
        .with_fate(Fate::SettleAtOnce)
        .with_notices(Notices::none());
    let (id, _) = unanswered(&world, silent).await;
    let (stranger, _) = unanswered(&world, Behaviour::lose_request()).await;
    world.run_days(2).await;
    assert_eq!(registrations(&world).await, ["requested"; 2]);
    let paid = TransactionId::from_uuid(world.simulator.ledger().transactions()[0].id);
    let (resolver, now) = (&world.workers.resolver, world.clock.now());
    let foreign = resolver.name_payment(stranger, paid, now).await;
    assert!(matches!(foreign, Err(NamePaymentError::Foreign)));
    let unknown = TransactionId::from_uuid(uuid::Uuid::new_v4());
    let unknown = resolver.name_payment(id, unknown, now).await;
    assert!(matches!(unknown, Err(NamePaymentError::NotShown)));
    let state = resolver.name_payment(id, paid, now).await.unwrap();
    assert_eq!(state, RegistrationState::Attached);
    assert_eq!(world.charges().await, ["paid"]);
    world.settle_up().await;
}

#[tokio::test]
async fn a_payment_that_is_heard_of_after_a_person_gave_it_up_is_one_too_many_and_stops_everything()
{
    let (world, _proxy) = with_proxy(Script::default()).await;
    let silent = Behaviour::take_money_and_lose_answer()
        .with_fate(Fate::SettleAtOnce)
        .with_notices(Notices::none());
    let (id, registration_id) = unanswered(&world, silent).await;
    world.run_days(5).await;
    registrar(&world).cancel(registration_id, BY).await.unwrap();
    let made = register_card(&world, id, WantedPayment::FirstCharge)
        .await
        .unwrap();
    answer(&made, "confirm").await;
    world.run_until_idle().await;
    assert_eq!(world.attempts().await, ["settled"]);
    let paid = TransactionId::from_uuid(world.simulator.ledger().transactions()[0].id);
    let (resolver, now) = (&world.workers.resolver, world.clock.now());
    resolver.name_payment(id, paid, now).await.unwrap();
    assert_eq!(world.attempts().await, ["settled", "surplus"]);
    assert_eq!(world.brakes().await, ["* stop surplus_settlement"]);
    world.compare_beside_surplus(true).await;
}

/// While imoje is asked, its order is given up, as by a process that slept for days.
#[tokio::test]
async fn who_is_answered_after_the_registration_has_ended_leads_no_payer_on() {
    let (world, _proxy) = with_proxy(Script::default()).await;
    let id = registering(&world).await;
    let made = register_card(&world, id, WantedPayment::FirstCharge)
        .await
        .unwrap();
    let ended = "UPDATE registrations SET state = 'cancelled', reason = 'a test', ended_at = created_at + interval '5 days'";
    sqlx::query(ended).execute(&world.books).await.unwrap();
    let sale = (made.transaction_id, made.url.as_ref());
    let noted = world
        .store
        .note_sale(made.registration_id, sale, BY, world.clock.now())
        .await;
    assert!(matches!(noted, Err(EndError::Illegal(illegal)) if illegal.state.is_over()));
}

#[tokio::test]
async fn a_decline_and_a_refusal_leave_nothing_open_and_a_decline_that_is_reversed_counts() {
    let (world, _proxy) = with_proxy(Script::default()).await;
    let id = registering(&world).await;
    let reversed = Behaviour::decline_then_settle("CODE_51", Duration::from_secs(3_600));
    let refused = Behaviour::error(StatusCode::UNPROCESSABLE_ENTITY, ErrorBody::Object, false);
    for behaviour in [Behaviour::decline_at_once("CODE_51"), refused] {
        world.simulator.add_rule(debits(behaviour));
    }
    let declined = register_card(&world, id, WantedPayment::FirstCharge).await;
    assert!(
        matches!(&declined, Err(RegisterError::Declined { status_code }) if status_code.is_none()),
        "{declined:?}"
    );
    let refused = register_card(&world, id, WantedPayment::FirstCharge).await;
    assert!(
        matches!(refused, Err(RegisterError::Refused { .. })),
        "{refused:?}"
    );
    assert_eq!(registrations(&world).await.len(), 2);
    world.run_days(1).await;
    assert_eq!(world.charges().await, Vec::<String>::new());
    world.simulator.add_rule(debits(reversed));
    let made = register_card(&world, id, WantedPayment::FirstCharge).await;
    assert_eq!(made.unwrap().url, None, "the issuer asks for nothing");
    world
        .run_until(world.clock.now() + TimeDelta::minutes(30))
        .await;
    assert_eq!(registrations(&world).await[2], "cancelled declined");
    world.run_days(1).await;
    let states = registrations(&world).await;
    assert!(states[0].starts_with("cancelled declined") && states[1].starts_with("refused "));
    assert_eq!(states[2], "attached");
    assert_eq!(world.charges().await, ["paid"]);
    world.settle_up().await;
}

#[tokio::test]
async fn a_shop_that_may_not_send_card_data_is_told_so_and_the_brake_holds_registrations_back() {
    let (world, _proxy) = with_proxy(Script {
        card_data: CardData {
            allowed: false,
            ..CardData::default()
        },
        ..Script::default()
    })
    .await;
    let id = registering(&world).await;
    let refused = register_card(&world, id, VERIFICATION).await.unwrap_err();
    assert!(
        refused.to_string().contains("Plain card data disabled"),
        "{refused}"
    );
    let now = world.clock.now();
    for mode in [BrakeMode::Drain, BrakeMode::Stop] {
        let brake = world.store.set_brake(None, mode, "test", "a test", now);
        brake.await.unwrap();
        let braked = register_card(&world, id, VERIFICATION).await;
        assert!(matches!(
            braked,
            Err(RegisterError::Begin(BeginError::Braked(_)))
        ));
    }
    assert_eq!(world.posts(), 1);
    world.settle_up().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_card_is_said_before_anything_is_begun() {
    let (world, proxy) = with_proxy(Script::default()).await;
    let id = registering(&world).await;
    let with = |name: &str, value: Value| {
        let mut card = card();
        card[name] = value;
        NewCard { card, ..new_card() }
    };
    for (field, wrong) in [
        ("card.number", with("number", json!(NUMBER))),
        ("card.cvv", with("cvv", json!("123"))),
        ("card.cvv", with("cvv", Value::Null)),
        (
            "additionalData.browser",
            NewCard {
                browser: json!([]),
                ..new_card()
            },
        ),
        (
            "customer.email",
            NewCard {
                customer: json!({"firstName": "A", "lastName": "B"}),
                ..new_card()
            },
        ),
        (
            "failureReturnUrl",
            NewCard {
                return_to: Some(ReturnUrls {
                    success: "https://shop.example.test/ok".to_owned(),
                    failure: "nowhere".to_owned(),
                }),
                ..new_card()
            },
        ),
    ] {
        let error = registrar(&world)
            .register_card(&wanted(id, VERIFICATION), wrong)
            .await
            .unwrap_err();
        assert!(
            matches!(&error, RegisterError::Invalid(wrong) if wrong.field == field),
            "{field}: {error}"
        );
        assert!(!error.to_string().contains(NUMBER));
    }
    sqlx::query("UPDATE subscriptions SET multipayout = '[]'")
        .execute(&world.books)
        .await
        .unwrap();
    let payouts = register_card(&world, id, VERIFICATION).await;
    assert!(matches!(
        payouts,
        Err(RegisterError::Begin(BeginError::Payouts))
    ));
    let without = World::new(Script::default()).await;
    let id = registering(&without).await;
    let no_proxy = register_card(&without, id, VERIFICATION).await;
    assert!(matches!(no_proxy, Err(RegisterError::NoCardData(_))));
    for world in [&world, &without] {
        assert_eq!(registrations(world).await, Vec::<String>::new());
    }
    assert_eq!(proxy.seen.lock().unwrap().len(), 0);
}
