//! `cykl card` shows what imoje and the books know of a card, and ends it in both.

use axum::http::StatusCode;
use cykl::simulator::{Behaviour, Call, ErrorBody, Rule, Script, SimulatedProfile, Simulator};
use serde_json::{Value, json};

use crate::place::{MERCHANT_ID, NO_GATEWAY, Place, Ran, SERVICE_ID};

/// The healthy books, and a gateway that has their cards.
struct Shop {
    place: Place,
    simulator: Simulator,
    /// The profiles, in the order of their `cid`.
    cards: Vec<String>,
}

impl Shop {
    async fn open() -> Self {
        let place = Place::healthy().await;
        let script = Script {
            accept_unknown_profiles: false,
            ..Script::default()
        };
        let simulator = place.open_gateway(script).await;
        let cards = place
            .texts("SELECT payment_profile_id::text FROM cards ORDER BY cid")
            .await;
        for (card, cid) in cards.iter().zip(["cid-1", "cid-2", "cid-3", "cid-4"]) {
            let profile = SimulatedProfile::new(card.parse().unwrap())
                .with_cid(cid)
                .expiring(2, 2028);
            simulator.register_profile(profile);
        }
        Self {
            place,
            simulator,
            cards,
        }
    }

    async fn card(&self, arguments: &[&str]) -> Ran {
        self.place.run_aside(&[&["card"], arguments].concat()).await
    }

    async fn shown(&self, arguments: &[&str]) -> Value {
        let arguments = [&["show"], arguments, &["--output", "json"]].concat();
        self.card(&arguments).await.succeeded().json()
    }

    async fn deactivate(&self, card: &str) -> Ran {
        self.card(&["deactivate", card, "--reason", "left", "--actor", "eve"])
            .await
    }

    /// What the books and imoje hold of all cards, and what was told.
    async fn state(&self) -> (Vec<String>, Vec<bool>, Vec<String>) {
        let books = self
            .place
            .texts("SELECT cid || ' ' || is_active FROM cards ORDER BY cid")
            .await;
        let mut gateway = Vec::new();
        for card in &self.cards {
            let shown = self.shown(&[card]).await;
            gateway.push(shown[0]["is_active"] == true);
        }
        let told = self
            .place
            .texts("SELECT payload::text FROM events WHERE kind = 'card.deactivated'")
            .await;
        (books, gateway, told)
    }
}

#[tokio::test]
async fn a_card_is_shown_as_imoje_and_the_books_know_it() {
    let shop = Shop::open().await;
    let by_id = shop.shown(&[&shop.cards[0]]).await;
    assert_eq!(
        by_id,
        json!([{
            "payment_profile_id": shop.cards[0], "cid": "cid-1", "shop": "main", "is_active": true,
            "masked_number": "****1111", "organization": "VISA", "expires_on": "2028-02-29", "kind": "recurring",
            "first_transaction_id": null, "is_chargeable": true, "subscriptions": ["=1+1"],
        }])
    );
    assert_eq!(shop.shown(&["--cid", "cid-1"]).await, by_id);
    // One that was registered again under the same cid, which the books do not have.
    let again = uuid::Uuid::new_v4();
    let profile = SimulatedProfile::new(again).with_cid("cid-1");
    shop.simulator.register_profile(profile);
    let both = shop.shown(&["--cid", "cid-1"]).await;
    let both = both.as_array().unwrap();
    assert_eq!(both.len(), 2);
    let strange = both
        .iter()
        .find(|card| card["payment_profile_id"] == again.to_string())
        .unwrap();
    assert_eq!(
        (&strange["is_chargeable"], &strange["subscriptions"]),
        (&Value::Null, &json!([]))
    );
    let table = shop.card(&["show", &shop.cards[0]]).await.succeeded();
    assert!(table.stdout.contains("2028-02-29"), "{table:?}");
}

#[tokio::test]
async fn what_names_a_card_without_a_profile_is_read_from_the_transaction_that_registered_it() {
    let shop = Shop::open().await;
    shop.simulator
        .add_rule(Rule::debits(Behaviour::settle_at_once()));
    let order = json!({
        "type": "sale", "serviceId": SERVICE_ID, "amount": 100, "currency": "PLN", "orderId": "shop-first-1",
        "paymentMethod": "card", "paymentMethodCode": "recurring", "profileType": "FIRST",
        "successReturnUrl": "https://shop.example.test/yes", "failureReturnUrl": "https://shop.example.test/no",
        "customer": {"firstName": "Anna", "lastName": "Nowak", "email": "anna@example.test", "cid": "cid-9"},
        "card": {
            "firstName": "Anna", "lastName": "Nowak", "number": "4111111111111111", "month": "12", "year": "2029", "cvv": "123",
        },
    });
    let answer = reqwest::Client::new()
        .post(format!(
            "{}/{MERCHANT_ID}/transaction",
            shop.simulator.base_url()
        ))
        .bearer_auth("sim-token")
        .json(&order)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let registered = shop.simulator.ledger().transactions()[0].id.to_string();
    let shown = shop.shown(&["--transaction", &registered]).await;
    let first = shown[0]["first_transaction_id"].as_str().unwrap();
    assert_eq!(
        shown,
        json!([{
            "transaction_id": registered, "shop": "main", "status": "settled", "order_id": "shop-first-1",
            "masked_number": null, "payment_profile_id": null, "first_transaction_id": first,
        }])
    );
    // It names the card in a debit.
    let mut again = order.clone();
    again["profileType"] = json!("STANDARD");
    again["orderId"] = json!("shop-standard-1");
    let card = again["card"].as_object_mut().unwrap();
    card.remove("cvv");
    card.insert("firstTransactionId".to_owned(), json!(first));
    let answer = reqwest::Client::new()
        .post(format!(
            "{}/{MERCHANT_ID}/transaction",
            shop.simulator.base_url()
        ))
        .bearer_auth("sim-token")
        .json(&again)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let stranger = uuid::Uuid::new_v4().to_string();
    let ran = shop
        .card(&["show", "--transaction", &stranger])
        .await
        .ended(1);
    assert!(
        ran.stderr.contains("no such transaction of shop main"),
        "{ran:?}"
    );
    shop.card(&["show", &stranger, "--transaction", &stranger])
        .await
        .ended(2);
}

#[tokio::test]
async fn a_card_that_is_not_there_is_a_no_and_nonsense_is_usage() {
    let shop = Shop::open().await;
    let stranger = uuid::Uuid::new_v4().to_string();
    for arguments in [
        &["show", &stranger][..],
        &["show", "--cid", "nobody"],
        &["deactivate", &stranger, "--reason", "left"],
    ] {
        let ran = shop.card(arguments).await.ended(1);
        assert!(ran.stderr.contains("no such card of shop main"), "{ran:?}");
    }
    for arguments in [
        &["show"][..],
        &["show", "4111111111111111"],
        &["show", "00000000-0000-7000-8000-00000000c001"],
        &["show", "--cid", "a_b"],
        &["show", &stranger, "--cid", "cid-1"],
        &["show", &stranger, "--shop", "other"],
        &["deactivate", &stranger],
    ] {
        shop.card(arguments).await.ended(2);
    }
    shop.place
        .reconfigure(&shop.simulator.base_url(), NO_GATEWAY);
    let before = shop
        .place
        .texts("SELECT k::text FROM cards k ORDER BY 1")
        .await;
    shop.card(&["show", &stranger]).await.ended(69);
    shop.deactivate(&shop.cards[2]).await.ended(69);
    let after = shop
        .place
        .texts("SELECT k::text FROM cards k ORDER BY 1")
        .await;
    assert_eq!(before, after);
}

#[tokio::test]
async fn of_several_shops_one_has_to_be_named() {
    let shop = Shop::open().await;
    shop.place.reconfigure(
        "[shops.main]",
        "[shops.other]\nenvironment = \"simulator\"\nbase_url = \"http://127.0.0.1:9\"\nmerchant_id = \"m\"\n\
         service_id = \"3b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b\"\ntoken = \"t\"\nservice_key = \"k\"\n[shops.main]",
    );
    let ran = shop.card(&["show", &shop.cards[0]]).await.ended(2);
    assert!(ran.stderr.contains("the shops are main, other"), "{ran:?}");
    let found = shop.shown(&[&shop.cards[0], "--shop", "main"]).await;
    assert_eq!(found[0]["cid"], "cid-1");
}

#[tokio::test]
async fn a_card_is_ended_once_nothing_is_charged_to_it() {
    let shop = Shop::open().await;
    let before = shop.state().await;
    let refused = shop.deactivate(&shop.cards[1]).await.ended(1);
    assert!(
        refused.stderr.contains("it is the card of B-2"),
        "{refused:?}"
    );
    assert_eq!(shop.state().await, before);

    shop.deactivate(&shop.cards[2]).await.succeeded();
    let (books, gateway, told) = shop.state().await;
    assert_eq!(
        books,
        ["cid-1 true", "cid-2 true", "cid-3 false", "cid-4 true"]
    );
    assert_eq!(gateway, [true, true, false, true]);
    let told: Vec<Value> = told
        .iter()
        .map(|payload| serde_json::from_str(payload).unwrap())
        .collect();
    assert_eq!(
        told,
        [
            json!({"cid": "cid-3", "payment_profile_id": shop.cards[2], "actor": "eve", "reason": "left"})
        ]
    );
    let again = shop.deactivate(&shop.cards[2]).await.succeeded();
    assert!(again.stdout.contains("nothing was changed"), "{again:?}");
    assert_eq!(shop.state().await.2.len(), 1);
}

#[tokio::test]
async fn a_card_that_imoje_does_not_end_is_not_charged_and_can_be_ended_later() {
    let shop = Shop::open().await;
    let error = |status, effect| Behaviour::error(status, ErrorBody::Empty, effect);
    // It answers that something went wrong, or that all is well, and does nothing.
    for (behaviour, code) in [
        (error(StatusCode::SERVICE_UNAVAILABLE, false), 69),
        (error(StatusCode::OK, false), 1),
    ] {
        shop.simulator
            .add_rule(Rule::debits(behaviour).on(Call::Deactivate).times(1));
        let failed = shop.deactivate(&shop.cards[2]).await.ended(code);
        assert!(
            failed.stderr.contains("run this command again"),
            "{failed:?}"
        );
        let (books, gateway, told) = shop.state().await;
        assert_eq!(books[2], "cid-3 false");
        assert_eq!((gateway[2], told.len()), (true, 1));
    }
    let ended = shop.deactivate(&shop.cards[2]).await.succeeded();
    assert!(ended.stdout.contains("is inactive"), "{ended:?}");
    let (_, gateway, told) = shop.state().await;
    assert_eq!((gateway[2], told.len()), (false, 1));
}

/// The arguments of a widget that a payer could use.
const WIDGET: [&str; 14] = [
    "card",
    "widget",
    "--order-id",
    "reg-1",
    "--amount-minor",
    "4900",
    "--currency",
    "PLN",
    "--cid",
    "cus-1",
    "--customer",
    r#"{"firstName": "Anna", "lastName": "Nowak", "email": "anna@example.test"}"#,
    "--title",
    "Abonament",
];

#[test]
fn the_widget_is_printed_signed_for_the_environment_of_the_shop() {
    let sandbox = |toml: &str| {
        let place = Place::with_config(toml);
        place.run(&WIDGET)
    };
    let toml = crate::place::config("postgres://nobody@localhost/none", NO_GATEWAY);
    let simulated = sandbox(&toml).ended(2);
    assert!(simulated.stderr.contains("sandbox"), "{simulated:?}");
    let toml = toml
        .replace("\"simulator\"", "\"sandbox\"")
        .replace(&format!("base_url = \"{NO_GATEWAY}\"\n"), "");
    let html = sandbox(&toml).succeeded().stdout;
    assert!(
        html.starts_with("<script\n  src=\"https://sandbox.paywall.imoje.pl/js/widget.min.js\""),
        "{html}"
    );
    assert!(html.contains("data-customer-id=\"cus-1\""), "{html}");
    assert!(!html.contains("sim-service-key"), "{html}");
    let of = |gateway: &str| {
        let key = format!("[shops.main]\ngateway = \"{gateway}\"\n");
        sandbox(&toml.replace("[shops.main]\n", &key))
    };
    let ing_pay = of("ing_pay").succeeded().stdout;
    assert!(
        ing_pay.contains("\"https://paywall.sandbox.pay.ing.pl/js/widget.min.js\""),
        "{ing_pay}"
    );
    let axepta = toml.replace(
        "[shops.main]\n",
        "[shops.main]\ngateway = \"axepta\"\nbase_url = \"https://sandbox.example.test/v1/merchant\"\n",
    );
    let axepta = sandbox(&axepta).ended(2);
    assert!(axepta.stderr.contains("Axepta"), "{axepta:?}");
    let place = Place::with_config(&toml);
    let quoted = [&WIDGET[..], &["--cancel-url", "shop"]].concat();
    let refused = place.run(&quoted).ended(65);
    assert!(refused.stderr.contains("urlCancel"), "{refused:?}");
}
