//! The simulator as its callers meet it: over HTTP.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU16, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::*;

mod links;
mod refunds;

const START: i64 = 1_790_000_000;
const NOTIFY: &str = "https://billing.example.test/imoje/n";

/// A simulator, a clock that only tests move, and a receiver of notices.
struct World {
    simulator: Simulator,
    client: Client,
    clock: Arc<AtomicI64>,
    inbox: Arc<Mutex<Vec<(HeaderMap, String)>>>,
    receiver_answers: Arc<AtomicU16>,
    profile: Uuid,
    _receiver: DropGuard,
}

impl World {
    async fn start(script: Script) -> Self {
        let clock = Arc::new(AtomicI64::new(START));
        let inbox = Arc::new(Mutex::new(Vec::new()));
        let receiver_answers = Arc::new(AtomicU16::new(200));
        let stop = CancellationToken::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = listener.local_addr().unwrap();
        let handler = {
            let (inbox, answers) = (Arc::clone(&inbox), Arc::clone(&receiver_answers));
            move |headers: HeaderMap, body: String| async move {
                inbox.lock().unwrap().push((headers, body));
                StatusCode::from_u16(answers.load(Ordering::SeqCst)).unwrap()
            }
        };
        let serve = axum::serve(listener, Router::new().route("/imoje/n", post(handler)))
            .with_graceful_shutdown(stop.clone().cancelled_owned());
        tokio::spawn(async move { serve.await.unwrap() });
        let now = {
            let clock = Arc::clone(&clock);
            Arc::new(move || DateTime::from_timestamp(clock.load(Ordering::SeqCst), 0).unwrap())
        };
        let resolve = HashMap::from([("billing.example.test".to_owned(), receiver)]);
        let config = SimulatorConfig {
            script,
            resolve,
            ..SimulatorConfig::new(now)
        };
        let simulator = Simulator::start(config).await.unwrap();
        let client = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .tls_certs_only([])
            .build()
            .unwrap();
        let profile = Uuid::new_v4();
        let _receiver = stop.drop_guard();
        Self {
            simulator,
            client,
            clock,
            inbox,
            receiver_answers,
            profile,
            _receiver,
        }
    }

    async fn always(behaviour: Behaviour) -> Self {
        Self::start(Script::always(behaviour)).await
    }

    fn pass(&self, seconds: i64) {
        self.clock.fetch_add(seconds, Ordering::SeqCst);
    }

    fn body(&self, order_id: &str) -> Value {
        json!({"serviceId": SimulatedShop::default().service_id, "paymentProfileId": self.profile,
            "amount": 4900, "currency": "PLN", "orderId": order_id, "notificationUrl": NOTIFY})
    }

    fn url(&self, path: &str) -> String {
        format!("{}/simmerchant000000001/{path}", self.simulator.base_url())
    }

    fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.client
            .post(self.url(path))
            .bearer_auth("sim-token")
            .json(body)
    }

    async fn debit(&self, order_id: &str) -> reqwest::Result<Response> {
        self.post("transaction/profile", &self.body(order_id))
            .send()
            .await
    }

    /// A debit that is answered as documented.
    async fn debited(&self, order_id: &str) -> Value {
        let response = self.debit(order_id).await.unwrap();
        assert_eq!(response.status(), 200);
        response.json::<Value>().await.unwrap()["transaction"].take()
    }

    async fn get(&self, path: &str) -> Response {
        self.client
            .get(self.url(path))
            .bearer_auth("sim-token")
            .send()
            .await
            .unwrap()
    }

    async fn read(&self, transaction: &Value) -> Value {
        let path = format!("transaction/{}", transaction["id"].as_str().unwrap());
        self.get(&path).await.json().await.unwrap()
    }

    fn received(&self) -> Vec<Value> {
        let inbox = self.inbox.lock().unwrap();
        inbox
            .iter()
            .map(|(_, body)| serde_json::from_str(body).unwrap())
            .collect()
    }

    fn received_statuses(&self) -> Vec<String> {
        let words = self.received().into_iter();
        words
            .map(|body| body["payment"]["status"].as_str().unwrap().to_owned())
            .collect()
    }
}

async fn error_of(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    (
        status,
        response.json::<Value>().await.unwrap()["apiErrorResponse"].take(),
    )
}

fn keys(object: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = object
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    keys
}

#[tokio::test]
async fn a_debit_is_answered_with_the_documented_fields_and_no_others() {
    let world = World::start(Script::default()).await;
    world
        .simulator
        .register_profile(SimulatedProfile::new(world.profile).with_cid("cus-77"));
    let answer: Value = world.debit("inv-1").await.unwrap().json().await.unwrap();
    assert_eq!(keys(&answer), ["transaction"]);
    let transaction = &answer["transaction"];
    assert_eq!(
        keys(transaction),
        [
            "amount",
            "created",
            "currency",
            "id",
            "modified",
            "notificationUrl",
            "orderId",
            "payment",
            "paymentMethod",
            "paymentMethodCode",
            "paymentProfile",
            "serviceId",
            "source",
            "status",
            "title",
            "type"
        ]
    );
    assert_eq!(transaction["status"], "pending");
    assert_eq!(transaction["orderId"], "inv-1");
    assert_eq!(transaction["amount"], 4900);
    assert_eq!(transaction["created"], START);
    assert_eq!(transaction["paymentMethodCode"], "recurring");
    assert_eq!(keys(&transaction["payment"]), ["id", "status"]);
    assert_ne!(transaction["payment"]["id"], transaction["id"]);
    assert_eq!(
        keys(&transaction["paymentProfile"]),
        [
            "firstName",
            "id",
            "isActive",
            "lastName",
            "maskedNumber",
            "merchantCustomerId",
            "merchantMid",
            "month",
            "organization",
            "profile",
            "year"
        ]
    );
    assert_eq!(
        transaction["paymentProfile"]["merchantCustomerId"],
        "cus-77"
    );
    assert_eq!(transaction["paymentProfile"]["isActive"], 1);
}

#[tokio::test]
async fn a_transaction_settles_when_its_time_has_come() {
    let world = World::start(Script::default()).await;
    let transaction = world.debited("inv-1").await;
    world.pass(4);
    assert_eq!(
        world.read(&transaction).await["transaction"]["status"],
        "pending"
    );
    assert_eq!(
        world.simulator.next_due_at(),
        Some(DateTime::from_timestamp(START, 0).unwrap())
    );
    world.pass(1);
    let read = world.read(&transaction).await;
    assert_eq!(read["transaction"]["status"], "settled");
    assert_eq!(read["transaction"]["payment"]["status"], "settled");
    assert_eq!(read["transaction"]["modified"], START + 5);
    assert_eq!(read["transaction"]["statusCode"], "CODE_000");
    assert_eq!(
        world.simulator.ledger().settled_by_currency(),
        [(Currency::Pln, 4900)].into()
    );
}

#[tokio::test]
async fn callers_without_the_right_token_are_turned_away() {
    let world = World::start(Script::default()).await;
    let body = world.body("inv-1");
    let url = world.url("transaction/profile");
    let without = world.client.post(&url).json(&body).send().await.unwrap();
    assert_eq!(error_of(without).await.0, 401);
    let wrong = world
        .client
        .post(&url)
        .bearer_auth("guess")
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(error_of(wrong).await.0, 401);
    let elsewhere = url.replace("simmerchant000000001", "othermerchant0000001");
    let other = world
        .client
        .post(elsewhere)
        .bearer_auth("sim-token")
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(error_of(other).await.0, 403);
    let mut foreign = body.clone();
    foreign["serviceId"] = json!(Uuid::new_v4());
    let (status, error) = error_of(
        world
            .post("transaction/profile", &foreign)
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!((status, &error["instance"]), (403, &foreign));
    let ledger = world.simulator.ledger();
    assert!(ledger.transactions().is_empty());
    assert_eq!(
        ledger
            .posts_of("inv-1")
            .iter()
            .map(|post| post.answered)
            .collect::<Vec<_>>()
            .len(),
        4
    );
}

#[tokio::test]
async fn a_request_that_the_documents_do_not_allow_is_refused_and_noted() {
    let world = World::always(Behaviour::take_money_and_lose_answer()).await;
    let mut body = world.body("inv-1");
    body.as_object_mut().unwrap().remove("amount");
    let (status, error) = error_of(
        world
            .post("transaction/profile", &body)
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(status, 422);
    assert_eq!(
        error,
        json!({"code": "TRX-ERROR-120001", "message": "Unprocessable Entity.", "instance": body,
            "errors": [{"property": "instance", "message": "requires property \"amount\""}]})
    );
    let text = world
        .client
        .post(world.url("transaction/profile"))
        .bearer_auth("sim-token");
    let no_json = text
        .try_clone()
        .unwrap()
        .header("content-type", "application/json")
        .body("{");
    assert_eq!(error_of(no_json.send().await.unwrap()).await.0, 400);
    let no_type = text.body(world.body("inv-1").to_string());
    assert_eq!(error_of(no_type.send().await.unwrap()).await.0, 400);
    assert_eq!(world.simulator.ledger().posts().len(), 3);
    assert!(world.simulator.ledger().transactions().is_empty());
}

#[tokio::test]
async fn unknown_endpoints_and_transactions_are_not_found() {
    let world = World::start(Script::default()).await;
    for path in [
        "transactions",
        "transaction/profile",
        &format!("transaction/{}", Uuid::new_v4()),
        "transaction/x",
    ] {
        let (status, error) = error_of(world.get(path).await).await;
        assert_eq!(
            (status, error["code"].as_str().unwrap()),
            (404, "SIM-ERROR-404"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn an_inactive_profile_is_refused_with_the_documented_error() {
    let world = World::start(Script::default()).await;
    world.simulator.deactivate_profile(world.profile);
    let (status, error) = error_of(world.debit("inv-1").await.unwrap()).await;
    assert_eq!(status, 400);
    assert_eq!(
        error,
        json!({"code": "TRX-ERROR-120301", "message": "Payment profile inactive.",
            "instance": world.body("inv-1"), "errors": []})
    );
    assert!(world.simulator.ledger().transactions().is_empty());
    let profile = world
        .get(&format!("profile/id/{}", world.profile))
        .await
        .json::<Value>()
        .await
        .unwrap();
    assert_eq!(profile["paymentProfile"]["isActive"], 0);
}

#[tokio::test]
async fn a_scripted_inactive_profile_stays_inactive() {
    let world = World::start(Script::default()).await;
    world
        .simulator
        .add_rule(Rule::debits(Behaviour::inactive()).times(1));
    for order in ["inv-1", "inv-2"] {
        assert_eq!(
            error_of(world.debit(order).await.unwrap()).await.1["code"],
            "TRX-ERROR-120301"
        );
    }
}

#[tokio::test]
async fn an_unknown_profile_is_refused_when_the_script_says_so() {
    let world = World::start(Script {
        accept_unknown_profiles: false,
        ..Script::default()
    })
    .await;
    let (status, error) = error_of(world.debit("inv-1").await.unwrap()).await;
    assert_eq!(
        (status, error["code"].as_str().unwrap()),
        (400, "SIM-ERROR-PROFILE")
    );
    world
        .simulator
        .register_profile(SimulatedProfile::new(world.profile));
    world.debited("inv-2").await;
}

#[tokio::test]
async fn profiles_are_read_and_deactivated() {
    let world = World::start(Script {
        accept_unknown_profiles: false,
        ..Script::default()
    })
    .await;
    let profile = SimulatedProfile {
        first_transaction_id: Some("first-1".to_owned()),
        ..SimulatedProfile::new(world.profile)
            .with_cid("cus-77")
            .expiring(9, 2030)
    };
    world.simulator.register_profile(profile);
    let by_cid: Value = world.get("profile/cid/cus-77").await.json().await.unwrap();
    assert_eq!(
        by_cid["paymentProfiles"][0]["id"],
        world.profile.to_string()
    );
    assert_eq!(by_cid["paymentProfiles"][0]["month"], "09");
    assert_eq!(
        by_cid["paymentProfiles"][0]["firstTransactionId"],
        "first-1"
    );
    let none: Value = world.get("profile/cid/nobody").await.json().await.unwrap();
    assert_eq!(none, json!({"paymentProfiles": []}));
    assert_eq!(world.get("profile/cid/a_b").await.status(), 422);
    assert_eq!(
        world
            .get(&format!("profile/id/{}", Uuid::new_v4()))
            .await
            .status(),
        404
    );
    let body = json!({"paymentProfileId": world.profile});
    let answer: Value = world
        .post("profile/deactivate", &body)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(answer["paymentProfile"]["isActive"], 0);
    let other = Uuid::new_v4();
    world
        .simulator
        .register_profile(SimulatedProfile::new(other));
    // The second time nothing is left to be ended, and that is no error.
    for _ in 0..2 {
        let ended = world
            .client
            .delete(world.url(&format!("profile/id/{other}")))
            .bearer_auth("sim-token")
            .send()
            .await
            .unwrap();
        assert_eq!(ended.status(), 200);
        let answer: Value = ended.json().await.unwrap();
        assert_eq!(answer["paymentProfile"]["isActive"], 0);
    }
    assert_eq!(
        world
            .post("profile/deactivate", &json!({}))
            .send()
            .await
            .unwrap()
            .status(),
        422
    );
    assert_eq!(world.debit("inv-1").await.unwrap().status(), 400);
}

#[tokio::test]
async fn the_service_says_whether_the_recurring_channel_is_on_line() {
    let world = World::start(Script::default()).await;
    world.simulator.add_rule(
        Rule::debits(Behaviour::channel_offline())
            .on(Call::Service)
            .nth(2),
    );
    let path = format!("service/{}", SimulatedShop::default().service_id);
    for online in [true, false] {
        let service: Value = world.get(&path).await.json().await.unwrap();
        let channel = &service["service"]["paymentMethods"][0];
        assert_eq!(channel["paymentMethodCode"], "recurring");
        assert_eq!(channel["isOnline"], online);
    }
    assert_eq!(
        world
            .get(&format!("service/{}", Uuid::new_v4()))
            .await
            .status(),
        403
    );
}

#[tokio::test]
async fn the_channel_of_the_script_is_what_the_service_tells_and_what_debits_are_held_to() {
    let channel = Channel {
        currencies: vec![Currency::Pln],
        min: 4_900,
        max: 4_900,
    };
    let world = World::start(Script {
        channel,
        ..Script::default()
    })
    .await;
    let path = format!("service/{}", SimulatedShop::default().service_id);
    let service: Value = world.get(&path).await.json().await.unwrap();
    let channels = service["service"]["paymentMethods"].as_array().unwrap();
    assert_eq!(channels.len(), 1);
    assert_eq!(channels[0]["currency"], "PLN");
    for limit in ["minTransaction", "maxTransaction"] {
        assert_eq!(channels[0]["transactionLimits"][limit]["value"], 4_900);
    }
    assert_eq!(world.debit("inv-1").await.unwrap().status(), 200);
    for (field, value) in [
        ("amount", json!(4_899)),
        ("amount", json!(4_901)),
        ("currency", json!("EUR")),
    ] {
        let mut body = world.body("inv-2");
        body[field] = value;
        let refused = world
            .post("transaction/profile", &body)
            .send()
            .await
            .unwrap();
        assert_eq!(refused.status(), 406);
        let refused: Value = refused.json().await.unwrap();
        assert_eq!(refused["apiErrorResponse"]["code"], "TRX-ERROR-120003");
    }
    assert_eq!(world.simulator.totals().booked, 1);
}

#[tokio::test]
async fn money_can_be_taken_while_the_answer_is_lost() {
    let world =
        World::always(Behaviour::take_money_and_lose_answer().with_fate(Fate::SettleAtOnce)).await;
    assert!(world.debit("inv-1").await.is_err());
    let ledger = world.simulator.ledger();
    assert_eq!(ledger.posts_of("inv-1")[0].answered, None);
    assert_eq!(ledger.transactions_of("inv-1").len(), 1);
    assert_eq!(ledger.settled().count(), 1);
}

#[tokio::test]
async fn a_lost_request_has_no_effect() {
    let world = World::always(Behaviour::lose_request()).await;
    assert!(world.debit("inv-1").await.is_err());
    assert!(world.debit("inv-1").await.is_err());
    let ledger = world.simulator.ledger();
    assert!(ledger.transactions().is_empty());
    assert_eq!(ledger.order_ids_posted_twice(), ["inv-1"]);
}

/// Sends a debit by hand and reads until the connection ends.
async fn raw_debit(world: &World, order_id: &str) -> std::io::Result<Vec<u8>> {
    let body = world.body(order_id).to_string();
    let mut stream = TcpStream::connect(world.simulator.address()).await?;
    let head = format!(
        "POST /v1/merchant/simmerchant000000001/transaction/profile HTTP/1.1\r\nHost: sim\r\n\
         Authorization: Bearer sim-token\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn a_closed_connection_ends_before_the_status_line() {
    let world = World::always(Behaviour::take_money_and_lose_answer()).await;
    assert_eq!(raw_debit(&world, "inv-1").await.unwrap(), b"");
}

#[tokio::test]
async fn a_reset_connection_is_reset() {
    for booked in [false, true] {
        let world = World::always(Behaviour::reset(booked)).await;
        let error = raw_debit(&world, "inv-1").await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        assert_eq!(
            world.simulator.ledger().transactions().len(),
            usize::from(booked)
        );
    }
}

#[tokio::test]
async fn a_truncated_answer_begins_well_and_lacks_its_end() {
    let world = World::always(Behaviour::truncated(true)).await;
    let answer = String::from_utf8(raw_debit(&world, "inv-1").await.unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    assert!(body.starts_with("{\"transaction\":{"), "{body}");
    assert!(serde_json::from_str::<Value>(body).is_err());
    let response = world.debit("inv-2").await.unwrap();
    assert!(response.bytes().await.is_err());
}

#[tokio::test]
async fn a_broken_connection_leaves_others_alone() {
    let world = World::start(Script::default()).await;
    world
        .simulator
        .add_rule(Rule::debits(Behaviour::reset(false)).nth(2));
    world.debited("inv-1").await;
    assert!(world.debit("inv-2").await.is_err());
    world.debited("inv-3").await;
}

#[tokio::test]
async fn an_answer_can_drip() {
    let world = World::always(Behaviour::drip(Duration::from_micros(1))).await;
    assert_eq!(world.debited("inv-1").await["status"], "pending");
}

#[tokio::test]
async fn a_slow_answer_is_booked_before_its_delay() {
    let slow = Behaviour::settle_at_once().answering_after(Duration::from_secs(3600));
    let world = World::always(slow).await;
    let call = tokio::spawn(
        world
            .post("transaction/profile", &world.body("inv-1"))
            .send(),
    );
    while world.simulator.totals().booked == 0 {
        tokio::task::yield_now().await;
    }
    call.abort();
    assert_eq!(world.simulator.stop().await.settled().count(), 1);
}

#[tokio::test]
async fn a_hanging_call_ends_when_the_simulator_goes_down() {
    let world = World::always(Behaviour::hang(true)).await;
    let call = tokio::spawn(
        world
            .post("transaction/profile", &world.body("inv-1"))
            .send(),
    );
    while world.simulator.totals().booked == 0 {
        tokio::task::yield_now().await;
    }
    world.simulator.go_down().await;
    assert!(call.await.unwrap().is_err());
}

#[tokio::test]
async fn a_gateway_that_is_down_refuses_connections_until_it_comes_up() {
    let world = World::start(Script::default()).await;
    world.debited("inv-1").await;
    world.simulator.go_down().await;
    assert!(world.debit("inv-2").await.unwrap_err().is_connect());
    world.simulator.come_up().await.unwrap();
    world.debited("inv-3").await;
    assert!(world.simulator.ledger().posts_of("inv-2").is_empty());
}

#[tokio::test]
async fn errors_come_with_and_without_an_effect_and_in_every_dress() {
    let world = World::start(Script::default()).await;
    let refusal = |status: u16| {
        Behaviour::error(
            StatusCode::from_u16(status).unwrap(),
            ErrorBody::Object,
            false,
        )
    };
    for (status, code) in [
        (401, "SIM-ERROR-401"),
        (403, "SIM-ERROR-403"),
        (404, "SIM-ERROR-404"),
        (406, "TRX-ERROR-120003"),
        (422, "TRX-ERROR-120001"),
        (429, "SIM-ERROR-429"),
        (500, "ACQ-ERROR-130004"),
        (503, "SIM-ERROR-503"),
        (504, "SIM-ERROR-504"),
    ] {
        world
            .simulator
            .add_rule(Rule::debits(refusal(status)).times(1));
        let (answered, error) = error_of(world.debit("inv-1").await.unwrap()).await;
        assert_eq!((answered, error["code"].as_str().unwrap()), (status, code));
        assert_eq!(error["instance"]["orderId"], "inv-1");
    }
    assert!(world.simulator.ledger().transactions().is_empty());
    let dressed = |body, booked| {
        Rule::debits(Behaviour::error(StatusCode::BAD_GATEWAY, body, booked)).times(1)
    };
    world.simulator.add_rule(dressed(ErrorBody::Html, true));
    world.simulator.add_rule(dressed(ErrorBody::Empty, false));
    let html = world.debit("inv-2").await.unwrap();
    assert_eq!(html.headers()["content-type"], "text/html; charset=utf-8");
    assert_eq!(
        world.debit("inv-3").await.unwrap().text().await.unwrap(),
        ""
    );
    let ledger = world.simulator.ledger();
    assert_eq!(ledger.transactions_of("inv-2").len(), 1);
    assert!(ledger.transactions_of("inv-3").is_empty());
    assert_eq!(ledger.posts_of("inv-2")[0].answered, Some(502));
}

#[tokio::test]
async fn answers_can_be_strange() {
    let world = World::start(Script::default()).await;
    let next = |behaviour| world.simulator.add_rule(Rule::debits(behaviour).times(1));
    next(Behaviour::redirect("https://elsewhere.example.test/"));
    let redirect = world.debit("inv-1").await.unwrap();
    assert_eq!(redirect.status(), 307);
    assert_eq!(
        redirect.headers()["location"],
        "https://elsewhere.example.test/"
    );
    next(Behaviour::garbage("[]", true));
    assert_eq!(
        world.debit("inv-2").await.unwrap().text().await.unwrap(),
        "[]"
    );
    next(Behaviour::default().bare().amount_as_text());
    let bare: Value = world.debit("inv-3").await.unwrap().json().await.unwrap();
    assert_eq!(
        (&bare["orderId"], &bare["amount"]),
        (&json!("inv-3"), &json!("4900"))
    );
    for (field, pointer, right) in [
        (WrongEcho::OrderId, "/orderId", json!("inv-4")),
        (WrongEcho::Amount, "/amount", json!(4900)),
        (WrongEcho::Currency, "/currency", json!("PLN")),
        (
            WrongEcho::ServiceId,
            "/serviceId",
            json!(SimulatedShop::default().service_id),
        ),
        (
            WrongEcho::PaymentProfileId,
            "/paymentProfile/id",
            json!(world.profile),
        ),
    ] {
        next(Behaviour::default().echoing_wrongly(field));
        assert_ne!(
            *world.debited("inv-4").await.pointer(pointer).unwrap(),
            right,
            "{field:?}"
        );
    }
    next(Behaviour::status("authorized"));
    assert_eq!(world.debited("inv-5").await["status"], "authorized");
    next(Behaviour::decline_at_once("CODE_51").with_status_code_in_answer());
    let declined = world.debited("inv-6").await;
    assert_eq!(
        (&declined["status"], &declined["statusCode"]),
        (&json!("rejected"), &json!("CODE_51"))
    );
}

#[tokio::test]
async fn reads_can_lag_fail_and_be_bare() {
    let world = World::always(Behaviour::settle_at_once()).await;
    let lagging =
        Behaviour::settle_after(Duration::from_secs(5)).with_read_lag(Duration::from_secs(60));
    world
        .simulator
        .add_rule(Rule::debits(lagging).of_order("lag"));
    let transaction = world.debited("lag-1").await;
    world.pass(64);
    assert_eq!(
        world.read(&transaction).await["transaction"]["status"],
        "pending"
    );
    world.pass(1);
    assert_eq!(
        world.read(&transaction).await["transaction"]["status"],
        "settled"
    );
    let broken = Behaviour::error(StatusCode::NOT_FOUND, ErrorBody::Object, false);
    world
        .simulator
        .add_rule(Rule::reads(broken).of_order("lag").times(2));
    world
        .simulator
        .add_rule(Rule::reads(Behaviour::default().bare()));
    assert!(world.read(&transaction).await["apiErrorResponse"].is_object());
    assert!(world.read(&transaction).await["apiErrorResponse"].is_object());
    assert_eq!(world.read(&transaction).await["status"], "settled");
}

#[tokio::test]
async fn a_profile_can_decline_at_first_and_expire() {
    let world = World::always(Behaviour::settle_at_once()).await;
    let profile = SimulatedProfile::new(world.profile).declining_first(2, "CODE_51");
    // The clock starts in September 2026.
    world.simulator.register_profile(profile.expiring(9, 2026));
    let mut codes = Vec::new();
    for order in ["inv-1", "inv-2", "inv-3"] {
        let transaction = world.debited(order).await;
        codes.push(world.read(&transaction).await["transaction"]["statusCode"].clone());
    }
    world.pass(30 * 24 * 3600);
    let transaction = world.debited("inv-4").await;
    codes.push(world.read(&transaction).await["transaction"]["statusCode"].clone());
    assert_eq!(codes, ["CODE_51", "CODE_51", "CODE_000", "CODE_54"]);
}

#[tokio::test]
async fn each_change_of_status_causes_one_notice_with_imojes_headers() {
    let world = World::start(Script::default()).await;
    let transaction = world.debited("inv-1").await;
    world.pass(5);
    let report = world.simulator.deliver_due().await;
    assert_eq!(
        report,
        DeliveryReport {
            changes: 1,
            sent: 2,
            accepted: 2
        }
    );
    assert_eq!(world.received_statuses(), ["pending", "settled"]);
    assert_eq!(world.received()[1]["transaction"]["id"], transaction["id"]);
    let (headers, _) = world.inbox.lock().unwrap()[0].clone();
    assert_eq!(headers["user-agent"], "imoje");
    assert_eq!(headers["accept"], "text/plain");
    assert_eq!(headers["content-type"], "application/json; charset=UTF-8");
    assert_eq!(headers["host"], "billing.example.test");
    let signature = headers["x-imoje-signature"].to_str().unwrap();
    assert!(
        signature.starts_with("merchantid=simmerchant000000001;serviceid=2b8a4e1c"),
        "{signature}"
    );
    assert_eq!(world.simulator.next_due_at(), None);
    let totals = world.simulator.totals();
    assert_eq!(
        (totals.booked, totals.settled, totals.notices_accepted),
        (1, 1, 2)
    );
}

#[tokio::test]
async fn a_notice_is_repeated_on_schedule_until_it_is_accepted() {
    let world = World::always(Behaviour::settle_at_once()).await;
    world.receiver_answers.store(503, Ordering::SeqCst);
    world.debited("inv-1").await;
    let start = DateTime::<Utc>::from_timestamp(START, 0).unwrap();
    let mut tries = Vec::new();
    while let Some(due) = world.simulator.next_due_at() {
        world.clock.store(due.timestamp(), Ordering::SeqCst);
        tries.push(due - start);
        assert_eq!(world.simulator.deliver_due().await.sent, 1);
    }
    assert_eq!(tries.len(), 23);
    assert_eq!(tries[..4], [0, 10, 20, 320].map(TimeDelta::seconds));
    world.receiver_answers.store(200, Ordering::SeqCst);
    world.debited("inv-2").await;
    world.simulator.deliver_due().await;
    assert_eq!(world.simulator.next_due_at(), None);
    assert_eq!(world.simulator.ledger().notices_of("inv-1").len(), 23);
}

#[tokio::test]
async fn notices_can_misbehave() {
    let of = |notices| Behaviour::settle_after(Duration::from_secs(5)).with_notices(notices);
    for (notices, expected) in [
        (Notices::none(), vec![]),
        (
            Notices::duplicated(2),
            vec!["pending", "pending", "settled", "settled"],
        ),
        (
            Notices {
                pending_last: true,
                ..Notices::default()
            },
            vec!["settled", "pending"],
        ),
        (
            Notices {
                final_only: true,
                ..Notices::default()
            },
            vec!["settled"],
        ),
        (
            Notices::late_by(Duration::from_secs(3600)),
            vec!["pending", "settled"],
        ),
        (
            Notices {
                forged_order: Some("ghost".to_owned()),
                ..Notices::default()
            },
            vec!["pending", "settled", "settled"],
        ),
    ] {
        let world = World::always(of(notices.clone())).await;
        world.debited("inv-1").await;
        world.pass(6);
        let early = world.simulator.deliver_due().await.sent;
        assert_eq!(
            early == 0,
            expected.is_empty() || notices.late_by > Duration::ZERO
        );
        world.pass(3600);
        world.simulator.deliver_due().await;
        assert_eq!(world.received_statuses(), expected, "{notices:?}");
    }
}

#[tokio::test]
async fn a_notice_can_come_before_the_answer() {
    let notices = Notices {
        before_answer: true,
        ..Notices::default()
    };
    let world = World::always(Behaviour::settle_at_once().with_notices(notices)).await;
    world.debited("inv-1").await;
    assert_eq!(world.received_statuses(), ["settled"]);
    assert_eq!(world.simulator.next_due_at(), None);
}

#[tokio::test]
async fn with_automatic_delivery_notices_leave_by_themselves() {
    let world = World::start(Script::default()).await;
    let now = Arc::new(|| DateTime::from_timestamp(START, 0).unwrap());
    let shop = SimulatedShop {
        notify_url: Some("https://billing.example.test/imoje/n".parse().unwrap()),
        ..SimulatedShop::default()
    };
    let receiver = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let simulator = Simulator::start(SimulatorConfig {
        delivery: Delivery::Automatic,
        shops: vec![shop],
        resolve: HashMap::from([(
            "billing.example.test".to_owned(),
            receiver.local_addr().unwrap(),
        )]),
        script: Script::always(Behaviour::settle_at_once()),
        ..SimulatorConfig::new(now)
    })
    .await
    .unwrap();
    let mut body = world.body("inv-1");
    body.as_object_mut().unwrap().remove("notificationUrl");
    let url = format!(
        "{}/simmerchant000000001/transaction/profile",
        simulator.base_url()
    );
    let answer = world
        .client
        .post(url)
        .bearer_auth("sim-token")
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let (mut notice, _) = receiver.accept().await.unwrap();
    let mut first = [0; 22];
    notice.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"POST /imoje/n HTTP/1.1");
    assert_eq!(simulator.stop().await.settled().count(), 1);
}

#[tokio::test]
async fn an_order_that_is_debited_twice_is_charged_twice_and_shows() {
    let world = World::always(Behaviour::settle_at_once()).await;
    world.debited("inv-1").await;
    world.debited("inv-1").await;
    let ledger = world.simulator.ledger();
    assert_eq!(ledger.transactions_of("inv-1").len(), 2);
    assert_eq!(ledger.order_ids_posted_twice(), ["inv-1"]);
    assert_eq!(ledger.settled_by_currency()[&Currency::Pln], 9800);
    assert!(ledger.to_string().contains("98.00 PLN settled"), "{ledger}");
}

#[tokio::test]
async fn an_order_that_is_debited_twice_can_be_refused_whatever_became_of_the_first() {
    let world = World::start(Script {
        repeated_orders: RepeatedOrders::Refuse,
        ..Script::always(Behaviour::decline("CODE_51"))
    })
    .await;
    world.debited("inv-1").await;
    world.pass(5);
    let (status, error) = error_of(world.debit("inv-1").await.unwrap()).await;
    assert_eq!((status, &error["code"]), (422, &json!("SIM-ERROR-ORDER")));
    world.debited("inv-2").await;
    let ledger = world.simulator.ledger();
    assert_eq!(ledger.transactions_of("inv-1").len(), 1);
    assert_eq!((ledger.posts().len(), ledger.totals().booked), (3, 2));
    assert_eq!(ledger.posts()[1].answered, Some(422));
}

#[tokio::test]
async fn the_history_of_a_transaction_is_in_the_ledger() {
    let world = World::always(Behaviour::decline_then_settle(
        "CODE_05",
        Duration::from_secs(60),
    ))
    .await;
    world.debited("inv-1").await;
    world.pass(60);
    let ledger = world.simulator.ledger();
    let history = ledger.transactions_of("inv-1")[0].history_until(ledger.as_of());
    let statuses: Vec<_> = history
        .iter()
        .map(|change| (&*change.status, change.at.timestamp() - START))
        .collect();
    assert_eq!(statuses, [("pending", 0), ("rejected", 5), ("settled", 60)]);
    assert_eq!(ledger.settled().count(), 1);
}
