//! `cykl subscription add --without-card` and `cykl card register`: a payer is led to a page of imoje's.

use std::sync::Arc;

use axum::http::StatusCode;
use cykl::clock::Clock;
use cykl::simulator::{Behaviour, Call, ErrorBody, Rule, Script, Simulator};
use serde_json::Value;

use crate::card_proxy::{ALIAS, CODE_ALIAS, NUMBER, Proxy};
use crate::place::{Place, Ran};

const CUSTOMER: &str =
    r#"{"firstName": "Anna", "lastName": "Nowak", "email": "anna@example.test"}"#;

async fn add(place: &Place, more: &[&str]) -> Ran {
    let usual = [
        "subscription",
        "add",
        "--without-card",
        "--external-id",
        "S-1",
        "--amount-minor",
        "4900",
        "--currency",
        "PLN",
        "--period",
        "P1M",
        "--anchor-date",
        "2099-01-31",
        "--reason",
        "new",
        "--output",
        "json",
    ];
    place.run_aside(&[&usual, more].concat()).await
}

async fn register(place: &Place, more: &[&str]) -> Ran {
    let usual = [
        "card", "register", "S-1", "--reason", "new", "--actor", "eve",
    ];
    place.run_aside(&[&usual, more].concat()).await
}

async fn waiting() -> (Place, Simulator) {
    let place = Place::migrated().await;
    let clock = Clock::system();
    let now = Arc::new(move || clock.now());
    let simulator = place.open_gateway_at(Script::default(), now).await;
    add(&place, &[]).await.succeeded();
    (place, simulator)
}

#[tokio::test]
async fn a_subscription_is_stored_without_a_card_and_names_none() {
    let (place, _simulator) = waiting().await;
    let shown: Value = place
        .run_aside(&["subscription", "show", "S-1", "--output", "json"])
        .await
        .succeeded()
        .json();
    assert_eq!(shown["status"], "registering");
    assert_eq!(shown["cid"], Value::Null);
    assert_eq!(shown["next_charge_on"], Value::Null);
    let refused = add(&place, &["--cid", "anna", "--payment-profile-id", "x"])
        .await
        .ended(65);
    for text in [
        "cid \"anna\" names a card that is registered later",
        "payment_profile_id \"x\" names a card that is registered later",
    ] {
        assert!(refused.stderr.contains(text), "{refused:?}");
    }
    let again = add(&place, &[]).await.ended(65);
    assert!(again.stderr.contains("is stored already"), "{again:?}");
}

#[tokio::test]
async fn a_link_is_made_shown_and_ended() {
    let (place, simulator) = waiting().await;
    let json = ["--customer", CUSTOMER, "--output", "json"];
    let made = register(&place, &json).await.succeeded().json();
    assert_eq!(made["amount_minor"], 4_900);
    assert_eq!(made["period_no"], 0);
    let id = made["registration_id"].as_str().unwrap();
    assert_eq!(made["cid"], id);
    assert_eq!(made["order_id"], format!("cykl-r-{}", id.replace('-', "")));
    let link = simulator.ledger().links()[0].clone();
    let url = made["url"].as_str().unwrap();
    assert!(url.ends_with(&format!("/pay/{}", link.id)), "{url}");
    assert_eq!(link.request["customer"]["cid"], id);
    assert_eq!(link.request["visibleMethod"][0], "card");
    assert_eq!(link.request["preselectMethodCode"], "recurring");
    let open = register(&place, &json).await.ended(1);
    assert!(
        open.stderr.contains("is open already") && open.stderr.contains("--cancel"),
        "{open:?}"
    );
    let ended = register(&place, &["--cancel"]).await.succeeded();
    assert_eq!(
        ended.stdout,
        "the registration of subscription S-1 has ended\n"
    );
    let none = register(&place, &["--cancel"]).await.ended(1);
    assert!(
        none.stderr
            .contains("no registration that may still be paid")
    );
    assert_eq!(
        place
            .texts("SELECT kind || ' ' || (payload ->> 'actor') FROM events WHERE kind LIKE 'registration.%' ORDER BY sequence_no")
            .await,
        ["registration.opened eve", "registration.cancelled eve"]
    );
}

#[tokio::test]
async fn all_that_a_link_can_say_is_said() {
    let (place, simulator) = waiting().await;
    let address = r#"{"firstName":"Anna","lastName":"Nowak","street":"Polna 1","city":"Warszawa","region":"Mazowieckie","postalCode":"00-001","countryCodeAlpha2":"PL"}"#;
    let made = register(
        &place,
        &[
            "--customer",
            CUSTOMER,
            "--verification-minor",
            "100",
            "--cid",
            "anna-1",
            "--valid-for",
            "2h",
            "--title",
            "Karta",
            "--description",
            "Weryfikacja",
            "--return-url",
            "https://shop.example.test/r",
            "--success-url",
            "https://shop.example.test/ok",
            "--failure-url",
            "https://shop.example.test/no",
            "--billing",
            address,
            "--shipping",
            address,
            "--ksef",
        ],
    )
    .await
    .succeeded();
    assert!(made.stdout.contains("/pay/"), "{made:?}");
    let link = simulator.ledger().links()[0].clone();
    let said = &link.request;
    for (field, value) in [
        ("title", "Karta"),
        ("additionalDescription", "Weryfikacja"),
        ("returnUrl", "https://shop.example.test/r"),
        ("successReturnUrl", "https://shop.example.test/ok"),
        ("failureReturnUrl", "https://shop.example.test/no"),
    ] {
        assert_eq!(said[field], value);
    }
    assert_eq!(said["amount"], 100);
    assert_eq!(said["customer"]["cid"], "anna-1");
    assert_eq!(said["isKsef"], true);
    assert_eq!(said["billing"]["city"], "Warszawa");
    assert_eq!(said["shipping"]["city"], "Warszawa");
}

#[tokio::test]
async fn what_cannot_be_is_told_with_the_way_out() {
    let (place, simulator) = waiting().await;
    for (more, code, said) in [
        (["--customer", "{"].as_slice(), 2, "--customer"),
        (&[], 2, "--customer"),
        (&["--customer", r#"{"firstName":"Anna"}"#], 65, "customer"),
        (
            &["--customer", CUSTOMER, "--valid-for", "5m"],
            2,
            "an hour and a year",
        ),
        (&["--customer", CUSTOMER, "--cid", "a b"], 2, "cid"),
        (
            &["--customer", CUSTOMER, "--return-url", "nowhere"],
            65,
            "returnUrl",
        ),
        (&["--customer", CUSTOMER, "--cancel"], 2, "--cancel"),
        (
            &["--customer", CUSTOMER, "--verification-minor", "0"],
            2,
            "--verification-minor",
        ),
        (
            &[
                "--customer",
                r#"{"firstName":"4111111111111111","lastName":"N","email":"a@example.test"}"#,
            ],
            65,
            "card number",
        ),
    ] {
        let ran = register(&place, more).await.ended(code);
        assert!(ran.stderr.contains(said), "{more:?}: {ran:?}");
        assert!(!ran.stderr.contains("4111111111111111"), "{ran:?}");
    }
    let refused = Behaviour::error(StatusCode::UNPROCESSABLE_ENTITY, ErrorBody::Object, false);
    simulator.add_rule(Rule::debits(refused).on(Call::Link));
    let no = register(&place, &["--customer", CUSTOMER]).await.ended(1);
    assert!(
        no.stderr.contains("imoje refused: TRX-ERROR-120001"),
        "{no:?}"
    );
    simulator.clear_rules();
    let lost = Behaviour::take_money_and_lose_answer();
    simulator.add_rule(Rule::debits(lost).on(Call::Link));
    let lost = register(&place, &["--customer", CUSTOMER]).await.ended(69);
    assert!(lost.stderr.contains("try again"), "{lost:?}");
    simulator.clear_rules();
    register(&place, &["--customer", CUSTOMER])
        .await
        .succeeded();
    drop(simulator);
    let away = register(&place, &["--cancel"]).await.ended(69);
    assert!(
        away.stderr.contains("couldn't end the registration"),
        "{away:?}"
    );
}

const BROWSER: &str = r#"{"ip": "203.0.113.9", "language": "pl-PL", "jsEnabled": true, "timezoneOffset": -60, "userAgent": "UA",
    "accept": "text/html", "javaEnabled": false, "screenColorDepth": 24, "screenHeight": 1080, "screenWidth": 1920}"#;

/// A card as aliases, the number and the security code of which are these.
fn card(number: &str, code: &str) -> String {
    format!(
        r#"{{"firstName": "Anna", "lastName": "Nowak", "number": "{number}", "month": "12", "year": "2029", "cvv": "{code}"}}"#
    )
}

async fn register_card(place: &Place, card: &str, more: &[&str]) -> Ran {
    let usual = ["--customer", CUSTOMER, "--card", card, "--browser", BROWSER];
    register(place, &[&usual, more].concat()).await
}

/// Has the card data of a place, in which a daemon has charged before, go through a proxy.
async fn through_a_proxy(place: &Place, simulator: &Simulator) -> Proxy {
    place
        .sql(
            "SET search_path = cykl;
             INSERT INTO installation (fence_id, system_identifier, timeline, database_oid, adopted_at, adopted_by, reason)
             SELECT gen_random_uuid(), p.system_identifier, p.timeline, p.database_oid, now(), 'test', 'first start' FROM current_place() p;
             INSERT INTO brakes (shop, mode, reason, actor, changed_at) VALUES ('*', 'run', 'first start', 'test', now())",
        )
        .await;
    let proxy = Proxy::in_front_of(&simulator.base_url()).await;
    place.reconfigure(
        "[shops.main]\n",
        &format!(
            "[gateway]\ncard_proxy_url = \"{}\"\n[shops.main]\nsuccess_return_url = \"https://shop.example.test/ok\"\n\
             failure_return_url = \"https://shop.example.test/no\"\n",
            proxy.base_url
        ),
    );
    proxy
}

#[tokio::test]
async fn a_card_is_registered_by_its_data_through_the_proxy_and_said_where_its_payer_confirms_it() {
    let (place, simulator) = waiting().await;
    let card = card(ALIAS, CODE_ALIAS);
    let nowhere = register_card(&place, &card, &[]).await.ended(78);
    assert!(
        nowhere.stderr.contains("gateway.card_proxy_url"),
        "{nowhere:?}"
    );
    let proxy = through_a_proxy(&place, &simulator).await;
    let json = ["--output", "json"];
    let made = register_card(&place, &card, &json).await.succeeded().json();
    assert_eq!(
        (&made["status"], &made["amount_minor"], &made["period_no"]),
        (&"pending".into(), &4_900.into(), &0.into())
    );
    let id = simulator.ledger().transactions()[0].id;
    assert_eq!(made["transaction_id"], id.to_string());
    let url = made["url"].as_str().unwrap();
    assert!(url.ends_with(&format!("/3ds/{id}")), "{url}");
    let open = register_card(&place, &card, &[]).await.ended(1);
    assert!(open.stderr.contains("is open already"), "{open:?}");
    let busy = register(&place, &["--cancel"]).await.ended(75);
    assert!(busy.stderr.contains("somebody pays"), "{busy:?}");
    assert_eq!(
        place
            .texts("SELECT way || ' ' || state || ' ' || sale_id FROM billing.registrations")
            .await,
        [format!("card_data open {id}")]
    );
    let seen = proxy.seen.lock().unwrap();
    assert_eq!((seen.len(), &seen[0]["profileType"]), (1, &"FIRST".into()));
}

#[tokio::test]
async fn a_card_whose_data_cannot_be_taken_is_told_why_and_a_lost_answer_what_to_do() {
    let (place, simulator) = waiting().await;
    let good = card(ALIAS, CODE_ALIAS);
    for (card, more, code, said) in [
        (
            card(NUMBER, CODE_ALIAS),
            [].as_slice(),
            65,
            "card.number looks like a card number",
        ),
        (
            card(ALIAS, "123"),
            &[],
            65,
            "card.cvv does not have the right form",
        ),
        (
            format!("{{\"number\":\"{NUMBER}\""),
            &[],
            2,
            "--card is not JSON",
        ),
        (
            good.clone(),
            &["--success-url", "https://shop.example.test/ok"],
            2,
            "both or neither",
        ),
        (good.clone(), &["--cart", "{}"], 2, "--cart"),
    ] {
        let ran = register_card(&place, &card, more).await.ended(code);
        assert!(ran.stderr.contains(said), "{said}: {ran:?}");
        assert!(!ran.stderr.contains(NUMBER), "{ran:?}");
    }
    let without = register(&place, &["--customer", CUSTOMER, "--card", &good])
        .await
        .ended(2);
    assert!(without.stderr.contains("--browser"), "{without:?}");
    let _proxy = through_a_proxy(&place, &simulator).await;
    simulator.add_rule(Rule::debits(Behaviour::decline_at_once("CODE_51")).times(1));
    let declined = register_card(&place, &good, &[]).await.ended(1);
    assert!(declined.stderr.contains("declined"), "{declined:?}");
    simulator.add_rule(Rule::debits(Behaviour::take_money_and_lose_answer()).times(1));
    let lost = register_card(&place, &good, &[]).await.ended(75);
    for text in [
        "not known whether the card was charged",
        "order cykl-r-",
        "--transaction",
    ] {
        assert!(lost.stderr.contains(text), "{text}: {lost:?}");
    }
    let early = register(&place, &["--cancel"]).await.ended(1);
    assert!(early.stderr.contains("may have been charged"), "{early:?}");
    let ledger = simulator.ledger();
    let id = ledger.transactions().last().unwrap().id.to_string();
    let named = register(&place, &["--transaction", &id]).await.ended(75);
    assert!(named.stderr.contains("neither moved nor"), "{named:?}");
    assert_eq!(
        place
            .texts("SELECT state::text FROM registrations ORDER BY created_at")
            .await,
        ["cancelled", "open"]
    );
}
