//! Registration: a payer pays once by a link, and the card is charged from then on. The payment is a period's charge or a verification,
//! never both.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Europe::Warsaw;
use cykl::cli::daemon;
use cykl::domain::enrolment::{Circumstances, Column, enrol};
use cykl::domain::id::{ChargeId, RegistrationId, SubscriptionId, TransactionId};
use cykl::domain::registration::RegistrationEvent;
use cykl::gateway::LinkDetails;
use cykl::simulator::{
    Behaviour, Call, ErrorBody, Fate, Notices, Registration, Rule, Script, SimulatedProfile,
    WrongEcho,
};
use cykl::store::Store;
use cykl::store::enrolment::Telling;
use cykl::store::registrations::{BeginError, PaidByLink, Wanted, WantedPayment};
use cykl::store::resolution::Evidence;
use cykl::store::status::{By, Stopped};
use cykl::workers::registrar::{CancelError, Invitation, RegisterError, Registered, Registrar};
use cykl::workers::resolver::SettleError;
use reqwest::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Agreement, MERCHANT_ID, PUBLIC_HOST, SERVICE_ID, Setting, TOKEN, World};
use crate::notices::{notice, panel_address, post_signed};

pub const BY: By<'static> = By {
    actor: "eve",
    reason: "a new customer",
};

pub const GOOD: &str = "4111111111111111";
pub const DECLINED: &str = "4444333322221111";

/// A subscription that waits for its card: 49.00 PLN each month from the day on which every world begins.
pub async fn registering(world: &World) -> SubscriptionId {
    registering_from(world, "2027-01-01").await
}

async fn registering_from(world: &World, anchor: &'static str) -> SubscriptionId {
    let fields = [
        (Column::AnchorDate, anchor),
        (Column::Title, "Abonament {period}"),
    ];
    enrolled(world, &fields, true).await
}

/// Stores a subscription of 49.00 PLN a month with these fields.
pub async fn enrolled(
    world: &World,
    more: &[(Column, &str)],
    is_without_card: bool,
) -> SubscriptionId {
    let circumstances = Circumstances {
        shops: BTreeMap::from([("main".parse().unwrap(), Warsaw)]),
        usual_shop: Some("main".parse().unwrap()),
        channels: BTreeMap::new(),
        plain_cards: BTreeSet::from(["main".parse().unwrap()]),
        has_card_proxy: false,
        is_without_card,
        now: world.clock.now(),
    };
    let name = format!("reg-{}", Uuid::new_v4());
    let usual = [
        (Column::ExternalId, name.as_str()),
        (Column::AmountMinor, "4900"),
        (Column::Currency, "PLN"),
        (Column::Period, "P1M"),
    ];
    let fields = usual.iter().chain(more).copied().collect();
    let new = enrol(&fields, &circumstances).unwrap();
    let calendar = daemon::calendar(&world.config.shops[&new.shop]);
    let enrolled = world
        .store
        .enrol(
            &[new],
            Telling::Everybody,
            BY,
            world.clock.now(),
            |id, new| calendar.due_at(id, new.zone, new.first.due_on),
        )
        .await
        .unwrap();
    enrolled.subscription_ids[0]
}

pub fn registrar(world: &World) -> Registrar {
    daemon::registrar(&world.config, &world.store, &world.clock).unwrap()
}

pub fn customer() -> Value {
    json!({"firstName": "Anna", "lastName": "Nowak", "email": "anna@example.test"})
}

pub fn invitation() -> Invitation {
    Invitation {
        customer: customer(),
        title: None,
        details: LinkDetails::default(),
    }
}

pub fn wanted(subscription_id: SubscriptionId, payment: WantedPayment) -> Wanted<'static> {
    Wanted {
        subscription_id,
        cid: None,
        payment,
        valid_for: None,
        card_data: None,
        by: BY,
    }
}

pub const VERIFICATION: WantedPayment = WantedPayment::Verification(100);

pub async fn link(
    world: &World,
    id: SubscriptionId,
    payment: WantedPayment,
) -> Result<Registered, RegisterError> {
    registrar(world)
        .register(&wanted(id, payment), invitation())
        .await
}

/// A payer types in a card. Returns what the page answers.
pub async fn pay(url: &str, number: &str) -> StatusCode {
    try_to_pay(url, number).await.unwrap()
}

/// A subscription that waits for its card, and the link by which its payer pays the first charge.
async fn invited(world: &World) -> (SubscriptionId, Registered) {
    let id = registering(world).await;
    let first = link(world, id, WantedPayment::FirstCharge).await.unwrap();
    (id, first)
}

/// What stands for a payer's browser. It is not led on.
pub fn payers_client() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap()
}

/// Posts a form to a page of the simulator. `None` when there is no page.
pub async fn post_form(url: &str, form: String) -> Option<reqwest::Response> {
    let posted = payers_client()
        .post(url)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form);
    posted.send().await.ok()
}

/// As [`pay`], when there may be no page.
pub async fn try_to_pay(url: &str, number: &str) -> Option<StatusCode> {
    let form = format!("number={number}&month=12&year=2029&cvv=123&action=pay");
    Some(post_form(url, form).await?.status())
}

pub async fn statuses(world: &World) -> Vec<String> {
    world
        .column("SELECT status::text FROM subscriptions ORDER BY created_at, subscription_id")
        .await
}

pub async fn registrations(world: &World) -> Vec<String> {
    world
        .column(
            "SELECT state || coalesce(' ' || reason, '') FROM registrations ORDER BY created_at, registration_id",
        )
        .await
}

/// What was told of registrations and cards, in its order.
pub async fn told(world: &World) -> Vec<String> {
    world
        .column(
            "SELECT kind FROM events WHERE kind ~ '^(registration|card|incident|charge|subscription)\\.'
             ORDER BY subscription_id, sequence_no",
        )
        .await
}

fn silent() -> Rule {
    Rule::debits(Behaviour::default().with_notices(Notices::none())).on(Call::Payer)
}

#[tokio::test]
async fn the_payment_is_the_charge_of_the_first_period_and_the_card_pays_the_next() {
    let world = World::new(Script::default()).await;
    let id = registering(&world).await;
    world.run_until_idle().await;
    assert_eq!(statuses(&world).await, ["registering"]);
    assert_eq!(world.posts(), 0);
    let link = link(&world, id, WantedPayment::FirstCharge).await.unwrap();
    assert_eq!((link.amount_minor, link.period_no), (4_900, Some(0)));
    assert_eq!(
        world.simulator.ledger().links()[0].request["title"],
        "Abonament 2027-01"
    );
    assert_eq!(pay(link.url.as_str(), GOOD).await, StatusCode::OK);
    world.run_until_idle().await;
    assert_eq!(statuses(&world).await, ["active"]);
    assert_eq!(world.charges().await, ["paid"]);
    assert_eq!(world.posts(), 0, "the first period is not debited as well");
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
    let shown: String = world
        .one(
            "SELECT format('%s %s %s %s', state, purpose, period_no, surplus_payments) FROM billing.registrations",
        )
        .await;
    assert_eq!(shown, "attached first_charge 0 0");
    world.run_days(62).await;
    assert_eq!(world.charges().await, ["paid"; 3]);
    assert_eq!(world.posts(), 2);
    let next: String = world
        .one("SELECT next_charge_on::text FROM billing.subscriptions")
        .await;
    assert_eq!(next, "2027-04-01");
    world.settle_up().await;
    world.nothing_due_is_forgotten().await;
}

#[tokio::test]
async fn a_verification_is_no_charge_and_the_period_of_that_day_is_debited() {
    let world = World::new(Script::default()).await;
    let id = registering(&world).await;
    let link = link(&world, id, VERIFICATION).await.unwrap();
    assert_eq!((link.amount_minor, link.period_no), (100, None));
    pay(link.url.as_str(), GOOD).await;
    world.run_until_idle().await;
    world
        .run_until(world.clock.now() + TimeDelta::hours(1))
        .await;
    // It fell due two hours before it was registered, on the same day.
    assert_eq!(world.charges().await, ["paid"]);
    assert_eq!(world.posts(), 1);
    let orders = world.column("SELECT order_id FROM attempts").await;
    assert!(orders.iter().all(|order| !order.starts_with("cykl-r-")));
    world.run_days(40).await;
    assert_eq!(world.charges().await, ["paid"; 2]);
    world.settle_up().await;
}

#[tokio::test]
async fn what_fell_due_before_the_card_was_there_is_not_charged() {
    for (payment, periods) in [
        (WantedPayment::FirstCharge, vec!["2 paid", "3 paid"]),
        (VERIFICATION, vec!["3 paid"]),
    ] {
        let world = World::new(Script::default()).await;
        let id = registering(&world).await;
        // 5 March: the periods of 1 January, 1 February and 1 March fell due.
        world.run_days(63).await;
        let link = link(&world, id, payment).await.unwrap();
        pay(link.url.as_str(), GOOD).await;
        world.run_days(30).await;
        let charged = world
            .column("SELECT period_no || ' ' || state FROM charges ORDER BY period_no")
            .await;
        assert_eq!(charged, periods, "{payment:?}");
        world.settle_up().await;
        world.nothing_due_is_forgotten().await;
    }
}

#[tokio::test]
async fn without_any_notice_the_payment_is_found_by_asking() {
    let world = World::new(Script {
        rules: vec![silent()],
        ..Script::default()
    })
    .await;
    let (_, link) = invited(&world).await;
    pay(link.url.as_str(), GOOD).await;
    world.run_until_idle().await;
    assert_eq!(statuses(&world).await, ["registering"]);
    world.run_days(1).await;
    assert_eq!(statuses(&world).await, ["active"]);
    world.settle_up().await;
}

#[tokio::test]
async fn notices_of_links_come_to_the_public_address_without_an_attempt() {
    let world = World::with(Setting {
        toml: format!("[http]\npublic_url = \"https://{PUBLIC_HOST}\"\n"),
        ..Setting::default()
    })
    .await;
    let (_, link) = invited(&world).await;
    assert_eq!(
        world.simulator.ledger().links()[0].request["notificationUrl"],
        format!("https://{PUBLIC_HOST}/imoje/notifications")
    );
    pay(link.url.as_str(), GOOD).await;
    world.run_until_idle().await;
    assert_eq!(statuses(&world).await, ["active"]);
    world.settle_up().await;
}

#[tokio::test]
async fn a_declined_payer_may_try_again_by_the_same_link() {
    let world = World::new(Script::default()).await;
    let (_, link) = invited(&world).await;
    pay(link.url.as_str(), DECLINED).await;
    world.run_until_idle().await;
    assert_eq!(registrations(&world).await, ["open"]);
    assert_eq!(world.charges().await, Vec::<String>::new());
    pay(link.url.as_str(), GOOD).await;
    world.run_until_idle().await;
    assert_eq!(registrations(&world).await, ["attached"]);
    assert_eq!(world.charges().await, ["paid"]);
    world.settle_up().await;
}

#[tokio::test]
async fn a_link_that_nobody_pays_expires_and_another_takes_its_place() {
    let world = World::new(Script::default()).await;
    let (id, first) = invited(&world).await;
    let open = link(&world, id, VERIFICATION).await.unwrap_err();
    assert!(
        matches!(&open, RegisterError::Begin(BeginError::Open { registration_id, .. }) if *registration_id == first.registration_id),
        "{open}"
    );
    assert_eq!(first.valid_to, world.clock.now() + TimeDelta::days(7));
    world
        .run_until(first.valid_to + TimeDelta::minutes(1))
        .await;
    assert_eq!(registrations(&world).await, ["expired"]);
    assert_eq!(pay(first.url.as_str(), GOOD).await, StatusCode::GONE);
    let second = link(&world, id, WantedPayment::FirstCharge).await.unwrap();
    pay(second.url.as_str(), GOOD).await;
    world.run_days(3).await;
    assert_eq!(registrations(&world).await, ["expired", "attached"]);
    assert_eq!(world.charges().await, ["paid"]);
    assert_eq!(
        world
            .one::<i64>("SELECT count(*) FROM registrations WHERE next_poll_at IS NOT NULL")
            .await,
        0,
        "what has ended is not asked about for ever"
    );
    world.settle_up().await;
}

#[tokio::test]
async fn a_person_ends_a_link_and_so_does_the_end_of_its_subscription() {
    let world = World::new(Script::default()).await;
    let (id, first) = invited(&world).await;
    registrar(&world)
        .cancel(first.registration_id, BY)
        .await
        .unwrap();
    assert_eq!(pay(first.url.as_str(), GOOD).await, StatusCode::GONE);
    registrar(&world)
        .cancel(first.registration_id, BY)
        .await
        .unwrap_err();
    let second = link(&world, id, VERIFICATION).await.unwrap();
    world.store.cancel(id, BY, world.clock.now()).await.unwrap();
    world.run_until_idle().await;
    assert_eq!(pay(second.url.as_str(), GOOD).await, StatusCode::GONE);
    assert_eq!(
        registrations(&world).await,
        ["cancelled a new customer", "cancelled no_longer_wanted"]
    );
    let over = link(&world, id, VERIFICATION).await.unwrap_err();
    assert!(matches!(over, RegisterError::Begin(BeginError::Over(_))));
    world.run_days(3).await;
    world.settle_up().await;
}

#[tokio::test]
async fn a_payer_who_pays_twice_is_told_of_and_can_have_it_back() {
    let world = World::new(Script {
        registration: Registration {
            pays_again: true,
            ..Registration::default()
        },
        ..Script::default()
    })
    .await;
    let (first, verified) = (registering(&world).await, registering(&world).await);
    let other = world.subscribe(Agreement::monthly("2027-01-05")).await;
    for (id, payment) in [
        (first, WantedPayment::FirstCharge),
        (verified, VERIFICATION),
    ] {
        let link = link(&world, id, payment).await.unwrap();
        pay(link.url.as_str(), GOOD).await;
        world.run_until_idle().await;
        pay(link.url.as_str(), GOOD).await;
        world.run_until_idle().await;
    }
    // Told once for each, and a payer stops nobody.
    let surplus: i64 = world
        .one("SELECT count(*) FROM events WHERE kind = 'incident.surplus' AND is_alert")
        .await;
    assert_eq!(surplus, 2);
    assert!(
        world
            .brakes()
            .await
            .iter()
            .all(|brake| !brake.contains("stop"))
    );
    world.run_days(10).await;
    let charged: i64 =
        sqlx::query_scalar("SELECT count(*) FROM charges WHERE subscription_id = $1")
            .bind(other)
            .fetch_one(&world.books)
            .await
            .unwrap();
    assert_eq!(charged, 1);
    let states = world
        .column("SELECT state::text FROM attempts WHERE card_id IS NULL ORDER BY attempt_no")
        .await;
    assert_eq!(states, ["settled", "surplus"]);
    let charge = world
        .one::<Uuid>("SELECT charge_id FROM attempts WHERE state = 'surplus'")
        .await;
    let refunded = daemon::refunder(&world.config, &world.store, &world.clock, world.fence_id)
        .unwrap()
        .refund(cykl::workers::refunder::Wanted {
            charge_id: cykl::domain::id::ChargeId::from_uuid(charge),
            attempt_no: Some(2),
            amount_minor: None,
            title: None,
            is_confirmed_by_email: false,
            by: BY,
        })
        .await
        .unwrap();
    assert_eq!(refunded.amount.minor(), 4_900);
    world.compare_with_ledger().await;
    world.audit_except(&["money_moved_once"]).await;
}

#[tokio::test]
async fn without_one_good_card_of_its_own_nothing_is_attached_and_people_are_told() {
    for (name, script, second) in [
        (
            "no_card_on_cid",
            Registration {
                creates_profile: false,
                ..Registration::default()
            },
            None,
        ),
        (
            "several_cards_on_cid",
            Registration::default(),
            Some(Uuid::new_v4()),
        ),
    ] {
        let world = World::new(Script {
            registration: script,
            ..Script::default()
        })
        .await;
        let (id, link) = invited(&world).await;
        if let Some(second) = second {
            let profile = SimulatedProfile::new(second).with_cid(&link.cid);
            world.simulator.register_profile(profile);
        }
        pay(link.url.as_str(), GOOD).await;
        world.run_until_idle().await;
        assert_eq!(registrations(&world).await, ["paid"], "{name}");
        world.run_days(1).await;
        assert_eq!(registrations(&world).await, [format!("cardless {name}")]);
        assert_eq!(statuses(&world).await, ["registering"]);
        // The money is the charge's all the same, so that it is not asked for again.
        assert_eq!(world.charges().await, ["paid"]);
        let alerts: i64 = world
            .one("SELECT count(*) FROM events WHERE kind = 'registration.cardless' AND is_alert")
            .await;
        assert_eq!(alerts, 1);
        let again = super::registering::link(&world, id, WantedPayment::FirstCharge)
            .await
            .unwrap_err();
        assert!(matches!(
            again,
            RegisterError::Begin(BeginError::FirstIsPaid)
        ));
        world.settle_up().await;
    }
}

#[tokio::test]
async fn after_a_payment_without_a_card_a_verification_brings_one_and_the_next_period_is_debited() {
    let world = World::new(Script::default()).await;
    let (id, first) = invited(&world).await;
    let second = SimulatedProfile::new(Uuid::new_v4()).with_cid(&first.cid);
    world.simulator.register_profile(second);
    pay(first.url.as_str(), GOOD).await;
    world.run_days(1).await;
    let again = link(&world, id, VERIFICATION).await.unwrap();
    pay(again.url.as_str(), GOOD).await;
    world.run_days(35).await;
    assert_eq!(statuses(&world).await, ["active"]);
    assert_eq!(world.charges().await, ["paid"; 2]);
    assert_eq!(world.posts(), 1);
    world.settle_up().await;
    world.nothing_due_is_forgotten().await;
}

#[tokio::test]
async fn a_card_that_appears_late_is_attached_all_the_same() {
    let world = World::new(Script {
        registration: Registration {
            creates_profile: false,
            ..Registration::default()
        },
        ..Script::default()
    })
    .await;
    let (_, link) = invited(&world).await;
    pay(link.url.as_str(), GOOD).await;
    world
        .run_until(world.clock.now() + TimeDelta::hours(3))
        .await;
    assert_eq!(
        registrations(&world).await,
        ["cardless no_card_on_cid".to_owned()]
    );
    let paid_with = world.simulator.ledger().transactions()[0].payment_profile_id;
    let late = SimulatedProfile::new(paid_with).with_cid(&link.cid);
    world.simulator.register_profile(late);
    world.run_days(1).await;
    assert_eq!(registrations(&world).await, ["attached"]);
    assert_eq!(statuses(&world).await, ["active"]);
    world.settle_up().await;
}

#[tokio::test]
async fn a_payment_that_was_under_way_when_its_link_ended_counts() {
    let world = World::new(Script {
        rules: vec![
            Rule::debits(
                Behaviour::settle_after(Duration::from_secs(3 * 24 * 3_600))
                    .with_notices(Notices::none()),
            )
            .on(Call::Payer),
        ],
        ..Script::default()
    })
    .await;
    let (_, link) = invited(&world).await;
    world.run_days(6).await;
    pay(link.url.as_str(), GOOD).await;
    world.run_until(link.valid_to + TimeDelta::hours(12)).await;
    assert_eq!(
        registrations(&world).await,
        ["open"],
        "somebody is paying, so it has not expired"
    );
    world.run_days(3).await;
    assert_eq!(registrations(&world).await, ["attached"]);
    assert_eq!(world.charges().await, ["paid"]);
    world.settle_up().await;
}

/// Two people, two ways: the link is ended while its payment is on the way, a verification brings the card, the period is debited, and
/// then the payment comes through.
#[tokio::test]
async fn a_late_payment_of_a_period_that_was_debited_is_one_too_many_and_stops_nobody() {
    let world = World::new(Script::default()).await;
    world.simulator.add_rule(
        Rule::debits(Behaviour::settle_after(Duration::from_secs(7_200))).on(Call::Payer),
    );
    let (id, first) = invited(&world).await;
    pay(first.url.as_str(), GOOD).await;
    // imoje ends no link that somebody is paying by; here it does, so the books have ended it alone.
    world
        .store
        .end_registration(
            first.registration_id,
            RegistrationEvent::Cancelled,
            Some(BY),
            world.clock.now(),
        )
        .await
        .unwrap();
    world.simulator.clear_rules();
    let second = link(&world, id, VERIFICATION).await.unwrap();
    pay(second.url.as_str(), GOOD).await;
    world
        .run_until(world.clock.now() + TimeDelta::hours(1))
        .await;
    assert_eq!(world.charges().await, ["paid"]);
    assert_eq!(world.posts(), 1);
    world.run_days(1).await;
    assert_eq!(world.attempts().await, ["settled", "surplus"]);
    assert_eq!(world.incidents().await, ["incident.surplus"]);
    assert!(
        world
            .brakes()
            .await
            .iter()
            .all(|brake| !brake.contains("stop"))
    );
    world.run_days(35).await;
    assert_eq!(world.charges().await, ["paid"; 2]);
    world.compare_with_ledger().await;
    world.audit_except(&["money_moved_once"]).await;
}

#[tokio::test]
async fn a_link_whose_making_was_not_answered_is_given_up_and_its_payment_is_found_all_the_same() {
    let lost = [
        Behaviour::take_money_and_lose_answer(),
        Behaviour::truncated(true),
        Behaviour::error(
            StatusCode::BAD_GATEWAY,
            cykl::simulator::ErrorBody::Html,
            true,
        ),
    ];
    for behaviour in lost {
        let world = World::new(Script {
            rules: vec![Rule::debits(behaviour).on(Call::Link)],
            ..Script::default()
        })
        .await;
        let id = registering(&world).await;
        let error = link(&world, id, WantedPayment::FirstCharge)
            .await
            .unwrap_err();
        assert!(matches!(error, RegisterError::AnswerLost), "{error}");
        assert_eq!(registrations(&world).await, ["cancelled answer_lost"]);
        world.simulator.clear_rules();
        // Somebody finds the link that nobody was told of.
        let made = world.simulator.ledger().links()[0].id;
        let url = world.simulator.base_url();
        let origin = url.split("/v1").next().unwrap();
        assert_eq!(
            pay(&format!("{origin}/pay/{made}"), GOOD).await,
            StatusCode::OK
        );
        world.run_until_idle().await;
        assert_eq!(registrations(&world).await, ["attached"]);
        assert_eq!(statuses(&world).await, ["active"]);
        world.run_days(32).await;
        assert_eq!(world.charges().await, ["paid"; 2]);
        world.settle_up().await;
    }
}

#[tokio::test]
async fn what_imoje_refuses_leaves_nothing_open() {
    let world = World::new(Script {
        rules: vec![
            Rule::debits(Behaviour::error(
                StatusCode::UNPROCESSABLE_ENTITY,
                cykl::simulator::ErrorBody::Object,
                false,
            ))
            .on(Call::Link),
        ],
        ..Script::default()
    })
    .await;
    let id = registering(&world).await;
    let error = link(&world, id, VERIFICATION).await.unwrap_err();
    assert!(matches!(error, RegisterError::Refused { .. }), "{error}");
    world.simulator.clear_rules();
    link(&world, id, VERIFICATION).await.unwrap();
    let states = registrations(&world).await;
    assert!(
        states[0].starts_with("refused ") && states[1] == "open",
        "{states:?}"
    );
}

#[tokio::test]
async fn bad_invitations_are_refused_before_anything_is_begun() {
    let world = World::new(Script::default()).await;
    let id = registering(&world).await;
    let wanted = wanted(id, WantedPayment::FirstCharge);
    let bad = [
        Invitation {
            customer: json!({"firstName": "Anna"}),
            ..invitation()
        },
        Invitation {
            title: Some("{}".to_owned()),
            ..invitation()
        },
        Invitation {
            details: LinkDetails {
                return_url: Some("nowhere".to_owned()),
                ..LinkDetails::default()
            },
            ..invitation()
        },
    ];
    for invitation in bad {
        let error = registrar(&world)
            .register(&wanted, invitation)
            .await
            .unwrap_err();
        assert!(matches!(error, RegisterError::Invalid(_)), "{error}");
    }
    let nobody = SubscriptionId::from_uuid(Uuid::new_v4());
    let missing = link(&world, nobody, VERIFICATION).await.unwrap_err();
    assert!(matches!(
        missing,
        RegisterError::Begin(BeginError::Missing(_))
    ));
    assert_eq!(registrations(&world).await, Vec::<String>::new());
    assert_eq!(world.simulator.ledger().links().len(), 0);
}

#[tokio::test]
async fn a_link_for_a_first_charge_ends_before_the_next_period_falls_due() {
    let world = World::new(Script::default()).await;
    let id = registering(&world).await;
    let next_due_at: DateTime<Utc> = "2027-02-01T05:00:00Z".parse().unwrap();
    let of = |valid_for| Wanted {
        valid_for: Some(valid_for),
        ..wanted(id, WantedPayment::FirstCharge)
    };
    let too_long = registrar(&world)
        .register(&of(TimeDelta::days(31)), invitation())
        .await
        .unwrap_err();
    assert!(
        matches!(too_long, RegisterError::Begin(BeginError::PastNextPeriod { next_due_at: at }) if at == next_due_at),
        "{too_long}"
    );
    world.run_until(next_due_at - TimeDelta::minutes(30)).await;
    let too_late = link(&world, id, WantedPayment::FirstCharge)
        .await
        .unwrap_err();
    assert!(matches!(
        too_late,
        RegisterError::Begin(BeginError::PastNextPeriod { .. })
    ));
    world.run_until(next_due_at - TimeDelta::minutes(10)).await;
    world.run_until(next_due_at).await;
    // From now on it is the charge of the next one.
    let next = link(&world, id, WantedPayment::FirstCharge).await.unwrap();
    assert_eq!(next.period_no, Some(1));
}

#[tokio::test]
async fn one_instrument_has_one_cid() {
    let world = World::new(Script::default()).await;
    let card = Agreement::monthly("2027-01-01");
    let taken = card.cid.clone();
    world.subscribe(card).await;
    let (id, other) = (registering(&world).await, registering(&world).await);
    let with_cid = |id, cid: &'static str| Wanted {
        cid: Some(cid),
        ..wanted(id, VERIFICATION)
    };
    let taken: &'static str = Box::leak(taken.into_boxed_str());
    let first = registrar(&world)
        .register(&with_cid(id, taken), invitation())
        .await
        .unwrap_err();
    assert!(matches!(
        first,
        RegisterError::Begin(BeginError::CidTaken(_))
    ));
    registrar(&world)
        .register(&with_cid(id, "anna"), invitation())
        .await
        .unwrap();
    let second = registrar(&world)
        .register(&with_cid(other, "anna"), invitation())
        .await
        .unwrap_err();
    assert!(matches!(
        second,
        RegisterError::Begin(BeginError::CidTaken(_))
    ));
}

#[tokio::test]
async fn a_billed_subscription_gets_a_new_card_and_misses_no_period() {
    let world = World::new(Script::default()).await;
    let old = Agreement::monthly("2027-01-01");
    let id = SubscriptionId::from_uuid(world.subscribe(old).await);
    world.run_days(1).await;
    let not_first = link(&world, id, WantedPayment::FirstCharge)
        .await
        .unwrap_err();
    assert!(matches!(
        not_first,
        RegisterError::Begin(BeginError::NotFirst(_))
    ));
    let link = link(&world, id, VERIFICATION).await.unwrap();
    pay(link.url.as_str(), GOOD).await;
    world.run_days(60).await;
    assert_eq!(world.charges().await, ["paid"; 3]);
    let new: Uuid = world
        .one("SELECT payment_profile_id FROM cards JOIN registrations USING (card_id)")
        .await;
    let used: Vec<Uuid> = world
        .simulator
        .ledger()
        .transactions()
        .iter()
        .filter(|one| !one.is_by_link)
        .map(|one| one.payment_profile_id)
        .collect();
    assert_eq!((used.len(), &used[1..]), (3, &[new, new][..]));
    world.settle_up().await;
    world.nothing_due_is_forgotten().await;
}

#[tokio::test]
async fn a_deactivated_subscription_goes_on_with_a_new_card() {
    let world = World::new(Script::default()).await;
    let card = Agreement::monthly("2027-01-01").with_card(Behaviour::inactive());
    let id = SubscriptionId::from_uuid(world.subscribe(card).await);
    world.run_days(40).await;
    assert_eq!(statuses(&world).await, ["deactivated"]);
    let link = link(&world, id, VERIFICATION).await.unwrap();
    pay(link.url.as_str(), GOOD).await;
    world.run_days(30).await;
    assert_eq!(statuses(&world).await, ["active"]);
    // January was given up, February fell due meanwhile, and March is debited.
    let charged = world
        .column("SELECT period_no || ' ' || state FROM charges ORDER BY period_no")
        .await;
    assert_eq!(charged, ["0 failed", "2 paid"]);
    world.settle_up().await;
}

#[tokio::test]
async fn two_daemons_that_hear_of_a_payment_at_once_record_it_once() {
    let world = World::new(Script {
        rules: vec![silent()],
        ..Script::default()
    })
    .await;
    let other = world.another_store().await;
    let calendar = daemon::calendar(world.config.shops.values().next().unwrap());
    for _ in 0..10 {
        let (_, link) = invited(&world).await;
        pay(link.url.as_str(), GOOD).await;
        let transaction = world.simulator.ledger().transactions().last().unwrap().id;
        let paid = PaidByLink {
            registration_id: link.registration_id,
            transaction_id: TransactionId::from_uuid(transaction),
            paid_at: None,
            evidence: Evidence::default(),
        };
        let (now, policy) = (world.clock.now(), &world.config.policy.resolver);
        let record = async |store: &Store| {
            let due_at = |stopped: &Stopped, date| {
                calendar.due_at(stopped.subscription_id, stopped.zone, date)
            };
            store.record_paid_by_link(&paid, policy, now, due_at).await
        };
        let both = tokio::join!(
            record(&world.store),
            record(&other),
            record(&world.store),
            record(&other)
        );
        let all = [both.0, both.1, both.2, both.3];
        assert!(all.iter().all(Result::is_ok), "{all:?}");
    }
    world.run_days(1).await;
    assert_eq!(world.charges().await, ["paid"; 10]);
    assert_eq!(world.attempts().await, ["settled"; 10]);
    assert_eq!(statuses(&world).await, ["active"; 10]);
    world.settle_up().await;
}

#[tokio::test]
async fn a_notice_about_a_link_decides_nothing_and_one_of_a_lost_link_stops_everything() {
    let world = World::new(Script::default()).await;
    let (_, open) = invited(&world).await;
    // Of a transaction that imoje does not have.
    let forged = notice(&open.order_id, Uuid::new_v4());
    post_signed(&panel_address(&world.door), &forged).await;
    world.run_until_idle().await;
    assert_eq!(registrations(&world).await, ["open"]);
    assert_eq!(world.charges().await, Vec::<String>::new());
    // Of a link that these books have lost: it was made, and the books went back in time.
    let lost = RegistrationId::from_uuid(Uuid::new_v4());
    let body = json!({
        "serviceId": SERVICE_ID, "amount": 4_900, "currency": "PLN", "visibleMethod": ["card"],
        "orderId": format!("cykl-r-{}", lost.as_uuid().simple()), "preselectMethodCode": "recurring",
        "customer": {"firstName": "Anna", "lastName": "Nowak", "email": "anna@example.test", "cid": "lost"},
    });
    let made = reqwest::Client::new()
        .post(format!(
            "{}/{MERCHANT_ID}/payment",
            world.simulator.base_url()
        ))
        .bearer_auth(TOKEN)
        .json(&body)
        .send()
        .await
        .unwrap();
    let made: Value = made.json().await.unwrap();
    pay(made["payment"]["url"].as_str().unwrap(), GOOD).await;
    world.run_until_idle().await;
    assert_eq!(world.incidents().await, ["incident.orphan"]);
    assert!(world.brakes().await[0].starts_with("* stop"));
}

#[tokio::test]
async fn a_verification_that_goes_back_in_the_panel_is_nobodys_loss() {
    let world = World::new(Script::default()).await;
    let id = registering(&world).await;
    let link = link(&world, id, VERIFICATION).await.unwrap();
    pay(link.url.as_str(), GOOD).await;
    world.run_until_idle().await;
    let sale = world
        .one::<Uuid>("SELECT transaction_id FROM registrations")
        .await;
    let answer = reqwest::Client::new()
        .post(format!(
            "{}/{MERCHANT_ID}/transaction/{sale}/refund",
            world.simulator.base_url()
        ))
        .bearer_auth(TOKEN)
        .json(&json!({"type": "refund", "serviceId": SERVICE_ID, "amount": 100}))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    world.run_days(1).await;
    assert_eq!(world.incidents().await, Vec::<String>::new());
    let open: i64 = world
        .one("SELECT count(*) FROM notices WHERE state = 'new'")
        .await;
    assert_eq!(open, 0);
    world.audit_except(&[]).await;
}

/// Somebody ends the link in the books alone, while it is being paid; imoje does not.
async fn end_here(world: &World, link: &Registered) {
    let event = RegistrationEvent::Cancelled;
    world
        .store
        .end_registration(link.registration_id, event, Some(BY), world.clock.now())
        .await
        .unwrap();
}

fn payers(behaviour: Behaviour) -> Rule {
    Rule::debits(behaviour).on(Call::Payer)
}

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn a_link_that_somebody_pays_by_is_not_ended_for_another() {
    let world = World::new(Script {
        rules: vec![payers(Behaviour::settle_after(2 * HOUR))],
        ..Script::default()
    })
    .await;
    let (id, first) = invited(&world).await;
    pay(first.url.as_str(), GOOD).await;
    let error = registrar(&world)
        .cancel(first.registration_id, BY)
        .await
        .unwrap_err();
    // imoje refuses to end it; the link that it shows is being paid all the same.
    assert!(matches!(error, CancelError::Gateway(_)), "{error}");
    let second = link(&world, id, VERIFICATION).await.unwrap_err();
    assert!(matches!(
        second,
        RegisterError::Begin(BeginError::Open { .. })
    ));
    world.run_days(1).await;
    assert_eq!(registrations(&world).await, ["attached"]);
    assert_eq!(world.charges().await, ["paid"]);
    world.settle_up().await;
}

#[tokio::test]
async fn a_link_whose_time_is_over_is_not_ended_while_a_payment_by_it_is_under_way() {
    let world = World::new(Script {
        rules: vec![payers(Behaviour::settle_after(2 * HOUR))],
        ..Script::default()
    })
    .await;
    let wanted = Wanted {
        valid_for: Some(TimeDelta::hours(1)),
        ..wanted(registering(&world).await, WantedPayment::FirstCharge)
    };
    let (registrar, link) = (registrar(&world), invitation());
    let link = registrar.register(&wanted, link).await.unwrap();
    pay(link.url.as_str(), GOOD).await;
    world.advance(TimeDelta::minutes(61));
    let error = registrar.cancel(link.registration_id, BY).await;
    let error = error.unwrap_err();
    assert!(matches!(error, CancelError::BeingPaid), "{error}");
    world.run_days(1).await;
    assert_eq!(registrations(&world).await, ["attached"]);
    world.settle_up().await;
}

#[tokio::test]
async fn a_payment_that_comes_to_no_end_holds_its_link_open_for_three_days() {
    let world = World::new(Script {
        rules: vec![payers(Behaviour::default().with_fate(Fate::PendingForEver))],
        ..Script::default()
    })
    .await;
    let (id, first) = invited(&world).await;
    pay(first.url.as_str(), GOOD).await;
    world.run_until(first.valid_to + TimeDelta::hours(71)).await;
    assert_eq!(registrations(&world).await, ["open"]);
    world
        .run_until(first.valid_to + TimeDelta::hours(100))
        .await;
    assert_eq!(registrations(&world).await, ["expired"]);
    world.simulator.clear_rules();
    let second = link(&world, id, WantedPayment::FirstCharge).await.unwrap();
    pay(second.url.as_str(), GOOD).await;
    world.run_days(1).await;
    assert_eq!(registrations(&world).await, ["expired", "attached"]);
    assert_eq!(world.charges().await, ["paid"]);
    world.settle_up().await;
}

#[tokio::test]
async fn a_card_is_attached_once_its_link_lists_the_payment_wherever_a_notice_names_the_profile() {
    for profile_beside in [false, true] {
        let notices = Notices {
            profile_beside,
            ..Notices::default()
        };
        let late = Behaviour::default().with_read_lag(Duration::from_secs(30 * 60));
        let world = World::new(Script {
            rules: vec![
                payers(Behaviour::settle_at_once().with_notices(notices)),
                Rule::debits(late).on(Call::Payment),
            ],
            ..Script::default()
        })
        .await;
        let (_, first) = invited(&world).await;
        pay(first.url.as_str(), GOOD).await;
        world
            .run_until(world.clock.now() + TimeDelta::minutes(20))
            .await;
        assert_eq!(registrations(&world).await, ["paid"]);
        world
            .run_until(world.clock.now() + TimeDelta::hours(2))
            .await;
        assert_eq!(registrations(&world).await, ["attached"]);
        world.settle_up().await;
    }
}

/// The debit of the period is pending when the late payment comes through, and then comes to what it comes to.
#[tokio::test]
async fn a_late_payment_beside_a_pending_debit_is_told_once_and_stops_nobody() {
    for (fate, charges, paid_twice) in [
        (Behaviour::settle_after(5 * HOUR), ["paid"], true),
        (
            Behaviour::decline_after("CODE_51", 5 * HOUR),
            ["paid"],
            false,
        ),
    ] {
        let world = World::new(Script::default()).await;
        world
            .simulator
            .add_rule(payers(Behaviour::settle_after(2 * HOUR)));
        let (id, first) = invited(&world).await;
        pay(first.url.as_str(), GOOD).await;
        end_here(&world, &first).await;
        world.simulator.clear_rules();
        let second = link(&world, id, VERIFICATION).await.unwrap();
        pay(second.url.as_str(), GOOD).await;
        world.simulator.add_rule(Rule::debits(fate));
        world
            .run_until(world.clock.now() + TimeDelta::hours(3))
            .await;
        assert_eq!(world.charges().await, ["held"]);
        world.simulator.clear_rules();
        world.run_days(2).await;
        assert_eq!(world.charges().await, charges);
        let told = told(&world).await;
        let count = |kind: &str| told.iter().filter(|told| *told == kind).count();
        assert_eq!(count("charge.paid"), 1, "{told:?}");
        assert!(count("incident.surplus") >= 1);
        assert!(
            world
                .brakes()
                .await
                .iter()
                .all(|brake| !brake.contains("stop"))
        );
        world.compare_beside_surplus(paid_twice).await;
    }
}

#[tokio::test]
async fn a_payment_by_a_link_excuses_no_second_debit_of_ours() {
    let world = World::new(Script::default()).await;
    world
        .simulator
        .add_rule(payers(Behaviour::settle_after(26 * HOUR)));
    let (id, first) = invited(&world).await;
    pay(first.url.as_str(), GOOD).await;
    end_here(&world, &first).await;
    world.simulator.clear_rules();
    let second = link(&world, id, VERIFICATION).await.unwrap();
    pay(second.url.as_str(), GOOD).await;
    // Declined, and tried again the next day; then the link is paid, and after that the decline is reversed.
    let reversed = Behaviour::decline_then_settle("CODE_51", 30 * HOUR);
    world.simulator.add_rule(Rule::debits(reversed).times(1));
    world
        .run_until(world.clock.now() + TimeDelta::hours(28))
        .await;
    assert_eq!(world.attempts().await, ["rejected", "settled", "surplus"]);
    assert!(
        world
            .brakes()
            .await
            .iter()
            .all(|brake| !brake.contains("stop"))
    );
    world.run_days(1).await;
    let mut attempts = world.attempts().await;
    attempts.sort();
    assert_eq!(attempts, ["settled", "surplus", "surplus"]);
    assert!(
        world
            .brakes()
            .await
            .iter()
            .any(|brake| brake.contains("stop"))
    );
    world.compare_beside_surplus(true).await;
}

#[tokio::test]
async fn a_late_payment_in_advance_leaves_the_next_period_where_it_belongs() {
    let world = World::new(Script::default()).await;
    world
        .simulator
        .add_rule(payers(Behaviour::settle_after(2 * HOUR)));
    let id = registering_from(&world, "2027-02-01").await;
    let first = link(&world, id, WantedPayment::FirstCharge).await.unwrap();
    pay(first.url.as_str(), GOOD).await;
    end_here(&world, &first).await;
    world.simulator.clear_rules();
    let second = link(&world, id, VERIFICATION).await.unwrap();
    pay(second.url.as_str(), GOOD).await;
    world.run_days(1).await;
    assert_eq!(world.charges().await, ["paid"]);
    world.settle_up().await;
    let next: String = world
        .one("SELECT next_charge_on::text FROM billing.subscriptions")
        .await;
    assert_eq!(next, "2027-03-01");
    world.run_days(70).await;
    assert_eq!(world.charges().await, ["paid"; 2]);
    world.settle_up().await;
    world.nothing_due_is_forgotten().await;
}

#[tokio::test]
async fn however_late_a_payment_is_heard_of_no_period_is_lost() {
    let world = World::new(Script {
        rules: vec![silent()],
        ..Script::default()
    })
    .await;
    let id = registering(&world).await;
    let verified = link(&world, id, VERIFICATION).await.unwrap();
    pay(verified.url.as_str(), GOOD).await;
    // The daemon is down for two days.
    world.advance(TimeDelta::days(2));
    world.run_days(1).await;
    let charged = world
        .column("SELECT period_no || ' ' || due_on || ' ' || state FROM charges")
        .await;
    assert_eq!(charged, ["0 2027-01-01 paid"]);
    world.settle_up().await;
}

#[tokio::test]
async fn a_payment_that_is_heard_of_long_after_its_link_ended_waits_for_its_card() {
    let world = World::new(Script::default()).await;
    world
        .simulator
        .add_rule(payers(Behaviour::settle_after(60 * HOUR)));
    let (_, first) = invited(&world).await;
    pay(first.url.as_str(), GOOD).await;
    end_here(&world, &first).await;
    world.simulator.clear_rules();
    world.simulator.add_rule(silent());
    let away = Behaviour::error(StatusCode::SERVICE_UNAVAILABLE, ErrorBody::Html, false);
    world
        .simulator
        .add_rule(Rule::debits(away).on(Call::Profile).times(2));
    world.run_days(6).await;
    assert_eq!(registrations(&world).await, ["attached"]);
    assert_eq!(world.charges().await, ["paid"]);
    world.settle_up().await;
}

#[tokio::test]
async fn a_payment_over_another_amount_is_told_once_and_decides_nothing() {
    let world = World::new(Script {
        rules: vec![Rule::reads(
            Behaviour::default().echoing_wrongly(WrongEcho::Amount),
        )],
        ..Script::default()
    })
    .await;
    let (_, first) = invited(&world).await;
    pay(first.url.as_str(), GOOD).await;
    world.run_until(first.valid_to + TimeDelta::days(1)).await;
    assert_eq!(registrations(&world).await, ["expired"]);
    assert_eq!(world.charges().await, Vec::<String>::new());
    let told: i64 = world
        .one("SELECT count(*) FROM events WHERE kind = 'incident.mismatch' AND is_alert")
        .await;
    assert_eq!(told, 1);
    assert_eq!(world.brakes().await, ["* run first start"]);
}

#[tokio::test]
async fn a_link_that_is_ended_in_the_panel_is_ended_here() {
    let world = World::new(Script::default()).await;
    let (id, first) = invited(&world).await;
    let answer = reqwest::Client::new()
        .post(format!(
            "{}/{MERCHANT_ID}/payment/cancel",
            world.simulator.base_url()
        ))
        .bearer_auth(TOKEN)
        .json(&json!({"serviceId": SERVICE_ID, "paymentId": first.payment_id}))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    // The notice has no transaction.
    world.run_until_idle().await;
    assert_eq!(registrations(&world).await, ["cancelled ended_at_imoje"]);
    let second = link(&world, id, WantedPayment::FirstCharge).await.unwrap();
    pay(second.url.as_str(), GOOD).await;
    world.run_until_idle().await;
    assert_eq!(world.charges().await, ["paid"]);
    world.settle_up().await;
}

#[tokio::test]
async fn who_pays_for_a_subscription_that_was_cancelled_meanwhile_is_told_of() {
    let world = World::new(Script {
        rules: vec![payers(Behaviour::settle_after(HOUR))],
        ..Script::default()
    })
    .await;
    let (id, first) = invited(&world).await;
    pay(first.url.as_str(), GOOD).await;
    world.store.cancel(id, BY, world.clock.now()).await.unwrap();
    world.run_days(1).await;
    assert_eq!(
        registrations(&world).await,
        ["cardless subscription_is_over"]
    );
    assert_eq!(world.charges().await, ["paid"]);
    assert_eq!(statuses(&world).await, ["cancelled"]);
    world.run_days(60).await;
    assert_eq!(world.posts(), 0);
    world.settle_up().await;
}

#[tokio::test]
async fn a_decline_of_the_old_card_does_not_end_what_has_a_new_one() {
    for fate in [
        Behaviour::decline_after("CODE_43", 3 * HOUR),
        Behaviour::decline_after("CODE_54", 3 * HOUR),
    ] {
        let world = World::new(Script::default()).await;
        let old = Agreement::monthly("2027-01-01").with_card(fate);
        let id = SubscriptionId::from_uuid(world.subscribe(old).await);
        world.charge().await;
        let link = link(&world, id, VERIFICATION).await.unwrap();
        pay(link.url.as_str(), GOOD).await;
        world.run_days(5).await;
        assert_eq!(statuses(&world).await, ["active"]);
        assert_eq!(world.charges().await, ["paid"]);
        assert_eq!(world.attempts().await, ["rejected", "settled"]);
        world.settle_up().await;
    }
}

#[tokio::test]
async fn periods_between_a_payment_without_a_card_and_a_card_are_no_finding() {
    let world = World::new(Script::default()).await;
    let (id, first) = invited(&world).await;
    let second = SimulatedProfile::new(Uuid::new_v4()).with_cid(&first.cid);
    world.simulator.register_profile(second);
    pay(first.url.as_str(), GOOD).await;
    world.run_days(70).await;
    let again = link(&world, id, VERIFICATION).await.unwrap();
    pay(again.url.as_str(), GOOD).await;
    world.run_days(25).await;
    let charged = world
        .column("SELECT period_no || ' ' || state FROM charges ORDER BY period_no")
        .await;
    assert_eq!(charged, ["0 paid", "3 paid"]);
    world.settle_up().await;
}

#[tokio::test]
async fn a_payment_of_an_older_period_than_the_one_that_brought_the_card_leaves_no_finding() {
    for (payment, next) in [
        (WantedPayment::FirstCharge, "2 paid"),
        (VERIFICATION, "3 paid"),
    ] {
        let world = World::new(Script::default()).await;
        world
            .simulator
            .add_rule(payers(Behaviour::settle_after(70 * 24 * HOUR)));
        let (id, first) = invited(&world).await;
        pay(first.url.as_str(), GOOD).await;
        end_here(&world, &first).await;
        world.simulator.clear_rules();
        world.run_days(65).await;
        let second = link(&world, id, payment).await.unwrap();
        pay(second.url.as_str(), GOOD).await;
        world.run_days(30).await;
        let charged = world
            .column("SELECT period_no || ' ' || state FROM charges ORDER BY period_no")
            .await;
        assert_eq!(charged[..2], ["0 paid", next]);
        world.settle_up().await;
    }
}

#[tokio::test]
async fn a_transaction_that_a_payer_paid_by_a_link_is_found_by_its_link() {
    let world = World::new(Script {
        registration: Registration {
            pays_again: true,
            ..Registration::default()
        },
        ..Script::default()
    })
    .await;
    let (_, first) = invited(&world).await;
    pay(first.url.as_str(), GOOD).await;
    // Long after the link was looked at last, the payer pays once more, and no notice comes.
    world.run_days(3).await;
    world.simulator.add_rule(silent());
    pay(first.url.as_str(), GOOD).await;
    world.run_days(2).await;
    assert_eq!(world.attempts().await, ["settled"]);
    let charge = world.one::<Uuid>("SELECT charge_id FROM charges").await;
    let charge = ChargeId::from_uuid(charge);
    let named = world.simulator.ledger().transactions()[1].id;
    let resolver = &world.workers.resolver;
    let now = world.clock.now();
    let error = resolver
        .settle(charge, TransactionId::from_uuid(named), BY, now)
        .await
        .unwrap_err();
    assert!(matches!(error, SettleError::PaidByLink), "{error}");
    assert_eq!(world.attempts().await, ["settled", "surplus"]);
    // Named once more, it is known.
    resolver
        .settle(charge, TransactionId::from_uuid(named), BY, now)
        .await
        .unwrap();
    assert!(
        world
            .brakes()
            .await
            .iter()
            .all(|brake| !brake.contains("stop"))
    );
    world.compare_with_ledger().await;
    world.audit_except(&["money_moved_once"]).await;
}
