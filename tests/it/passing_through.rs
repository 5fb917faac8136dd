//! What a subscription says besides is passed on to imoje with each of its requests, as it was stored.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::IntoResponse;
use cykl::domain::enrolment::Column;
use cykl::domain::id::SubscriptionId;
use cykl::simulator::{Script, SimulatedProfile};
use cykl::store::registrations::WantedPayment;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::harness::World;
use crate::registering::{enrolled, link};

const NOTICES: &str = "https://shop.example.test/imoje";

fn invoice() -> Value {
    json!({
        "buyer": {"type": "PERSON", "email": "a@example.test", "fullName": "Anna Nowak", "street": "Polna 1", "city": "Łódź",
            "postalCode": "90-001", "countryCodeAlpha2": "PL"},
        "positions": [{"name": "Abonament", "code": "1", "quantity": 1, "unit": "szt.", "grossAmount": 4900, "taxStake": "TAX_23"}],
        "issueInvoice": true
    })
}

fn payouts() -> Value {
    json!([{"amount": 100, "ban": "61109010140000071219812874", "label": "A", "title": "Udział"}])
}

/// What stands before the gateway and keeps what is posted to it.
#[derive(Clone)]
struct Recorder {
    origin: String,
    posted: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Recorder {
    /// Has all requests of `world` pass by.
    async fn before(world: &mut World) -> Self {
        let base_url = world.simulator.base_url();
        let origin = base_url.strip_suffix("/v1/merchant").unwrap().to_owned();
        let recorder = Self {
            origin,
            posted: Arc::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(pass_on).with_state(recorder.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        for shop in world.config.shops.values_mut() {
            shop.base_url = format!("http://{address}/v1/merchant").parse().unwrap();
        }
        world.workers = world.another_instance_of(&world.config, &world.clock).await;
        recorder
    }

    /// The only body that was posted to this path.
    fn posted_to(&self, path: &str) -> Value {
        let posted = self.posted.lock().unwrap();
        let mut bodies = posted.iter().filter(|(to, _)| to.ends_with(path));
        let (_, body) = bodies.next().unwrap();
        assert!(bodies.next().is_none());
        body.clone()
    }
}

async fn pass_on(
    State(recorder): State<Recorder>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> impl IntoResponse {
    if let Ok(json) = serde_json::from_slice(&body) {
        let posted = (uri.path().to_owned(), json);
        recorder.posted.lock().unwrap().push(posted);
    }
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client
        .request(method, format!("{}{uri}", recorder.origin))
        .header(header::AUTHORIZATION, &headers[header::AUTHORIZATION])
        .header(header::CONTENT_TYPE, "application/json")
        .body(body)
        .send()
        .await
        .unwrap();
    let status: StatusCode = answer.status();
    (status, answer.bytes().await.unwrap())
}

/// Stores a subscription with all that is passed on, and with these fields.
async fn stored(world: &World, more: &[(Column, &str)], is_without_card: bool) -> SubscriptionId {
    let invoice = invoice().to_string();
    let usual = [
        (Column::AnchorDate, "2027-01-01"),
        (Column::Title, "Abonament {period} {number} {shop}"),
        (Column::NotificationUrl, NOTICES),
        (Column::Invoice, invoice.as_str()),
    ];
    enrolled(world, &[&usual, more].concat(), is_without_card).await
}

/// What every request says.
fn says_all(body: &Value) {
    assert_eq!(body["title"], "Abonament 2027-01 1 main");
    assert_eq!(body["notificationUrl"], NOTICES);
    assert_eq!(body["invoice"], invoice());
}

#[tokio::test]
async fn the_debit_of_a_profile_says_what_its_subscription_says() {
    let mut world = World::new(Script::default()).await;
    let recorder = Recorder::before(&mut world).await;
    let profile = SimulatedProfile::new(Uuid::new_v4()).with_cid("anna-1");
    let (id, payouts_text) = (profile.id.to_string(), payouts().to_string());
    world.simulator.register_profile(profile);
    let fields = [
        (Column::Cid, "anna-1"),
        (Column::PaymentProfileId, id.as_str()),
        (Column::Multipayout, payouts_text.as_str()),
    ];
    stored(&world, &fields, false).await;
    world.run_days(1).await;
    assert_eq!(world.charges().await, ["paid"]);
    let body = recorder.posted_to("/transaction/profile");
    says_all(&body);
    assert_eq!(body["data"]["multipayout"], payouts());
    world.settle_up().await;
}

#[tokio::test]
async fn the_debit_of_a_card_without_a_profile_says_what_its_subscription_says() {
    let mut world = World::new(Script::default()).await;
    let recorder = Recorder::before(&mut world).await;
    let mut profile = SimulatedProfile::new(Uuid::new_v4()).with_cid("anna-1");
    profile.first_transaction_id = Some("first-1".to_owned());
    world.simulator.register_profile(profile);
    let fields = [
        (Column::Cid, "anna-1"),
        (Column::FirstTransactionId, "first-1"),
        (
            Column::Customer,
            r#"{"firstName": "Anna", "lastName": "Nowak", "email": "anna@example.test", "phone": "+48501501501", "company": "Nowak", "locale": "pl"}"#,
        ),
    ];
    stored(&world, &fields, false).await;
    world.run_days(1).await;
    assert_eq!(world.charges().await, ["paid"]);
    let body = recorder.posted_to("/transaction");
    says_all(&body);
    assert_eq!(
        body["customer"],
        json!({
            "firstName": "Anna", "lastName": "Nowak", "email": "anna@example.test", "phone": "+48501501501", "company": "Nowak",
            "locale": "pl", "cid": "anna-1"
        })
    );
    world.settle_up().await;
}

#[tokio::test]
async fn the_link_of_a_first_charge_says_what_its_subscription_says() {
    let mut world = World::new(Script::default()).await;
    let recorder = Recorder::before(&mut world).await;
    let payouts_text = payouts().to_string();
    let id = stored(
        &world,
        &[(Column::Multipayout, payouts_text.as_str())],
        true,
    )
    .await;
    link(&world, id, WantedPayment::FirstCharge).await.unwrap();
    let body = recorder.posted_to("/payment");
    says_all(&body);
    assert_eq!(body["multipayout"], payouts());
}
