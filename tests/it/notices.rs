//! The door: which notices are taken, what they lead to, and what health and metrics say.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use cykl::clock::Moment;
use cykl::domain::card::ChargedCard;
use cykl::domain::id::{AttemptId, ProfileId, SubscriptionId};
use cykl::domain::money::{Currency, Money};
use cykl::domain::order_id::OrderId;
use cykl::gateway::{Algorithm, DebitOrder, notice_token};
use cykl::metrics::Metrics;
use cykl::simulator::{Behaviour, Notices, Rule, Script};
use cykl::store::Wake;
use nix::sys::signal::Signal;
use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use secrecy::SecretString;
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::harness::{
    Agreement, MERCHANT_ID, PUBLIC_HOST, SERVICE_ID, SERVICE_KEY, Setting, World,
};
use crate::site::{Site, until};

/// The signature of `body`, as imoje writes it.
pub fn signature(body: &str) -> String {
    signature_with(SERVICE_KEY, body)
}

fn signature_with(key: &str, body: &str) -> String {
    let hash = Sha256::new()
        .chain_update(body)
        .chain_update(key)
        .finalize();
    header(&hex::encode(hash), "sha256")
}

fn header(signature: &str, algorithm: &str) -> String {
    format!("merchantid={MERCHANT_ID};serviceid={SERVICE_ID};signature={signature};alg={algorithm}")
}

/// A notice that says settled.
pub fn notice(order_id: &str, transaction_id: Uuid) -> String {
    json!({ "transaction": {
        "id": transaction_id, "type": "sale", "status": "settled", "orderId": order_id, "amount": 4900,
        "currency": "PLN", "serviceId": SERVICE_ID,
    }})
    .to_string()
}

fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only(std::iter::empty())
        .build()
        .unwrap()
}

/// Posts a body with this signature header, and returns the status and the body of the answer.
async fn post(url: &str, body: &str, signature: Option<&str>) -> (StatusCode, String) {
    let mut request = client().post(url).body(body.to_owned());
    if let Some(signature) = signature {
        request = request.header("X-Imoje-Signature", signature);
    }
    let answer = request.send().await.unwrap();
    (answer.status(), answer.text().await.unwrap())
}

pub async fn post_signed(url: &str, body: &str) -> (StatusCode, String) {
    post(url, body, Some(&signature(body))).await
}

pub fn panel_address(door: &str) -> String {
    format!("{door}/imoje/notifications")
}

fn key() -> SecretString {
    SecretString::from(SERVICE_KEY)
}

pub async fn stored(world: &World) -> i64 {
    world.one("SELECT count(*) FROM notices").await
}

#[tokio::test]
async fn a_good_notice_is_stored_once_however_often_it_is_sent() {
    let world = World::new(Script::default()).await;
    let body = notice("inv-1042-a1", Uuid::new_v4());
    for _ in 0..5 {
        assert_eq!(
            post_signed(&panel_address(&world.door), &body).await,
            (StatusCode::OK, r#"{"status":"ok"}"#.to_owned())
        );
    }
    assert_eq!(
        world
            .column("SELECT received_count || ' ' || body FROM notices")
            .await,
        [format!("5 {body}")]
    );
    let metrics = world.metrics.encode();
    assert!(metrics.contains("cykl_notices_total{outcome=\"accepted\"} 1\n"));
    assert!(metrics.contains("cykl_notices_total{outcome=\"duplicate\"} 4\n"));
}

#[tokio::test]
async fn a_notice_about_a_profile_alone_is_taken_and_tells_nothing() {
    let world = World::new(Script::default()).await;
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world.run_until_idle().await;
    let body = json!({ "paymentProfile": { "id": Uuid::new_v4(), "isActive": 0 } }).to_string();
    let (status, _) = post_signed(&panel_address(&world.door), &body).await;
    assert_eq!(status, StatusCode::OK);
    world.run_days(5).await;
    let open: i64 = world
        .one("SELECT count(*) FROM notices WHERE state = 'new'")
        .await;
    // Beside that of the debit.
    assert_eq!((stored(&world).await, open), (2, 0));
    assert_eq!(world.charges().await, ["paid"]);
    world.settle_up().await;
}

#[tokio::test]
async fn what_imoje_did_not_sign_is_refused_without_a_word() {
    let world = World::new(Script::default()).await;
    let address = panel_address(&world.door);
    let body = notice("inv-1042-a1", Uuid::new_v4());
    let fine = signature(&body);
    let with_key = |key: &str| {
        hex::encode(
            Sha256::new()
                .chain_update(&body)
                .chain_update(key)
                .finalize(),
        )
    };
    let wrong = [
        header(&with_key("another-key"), "sha256"),
        header(&with_key(""), "sha256"),
        signature("another body"),
        fine.replace(MERCHANT_ID, "simmerchant000000002"),
        fine.replace(SERVICE_ID, "3b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b"),
        fine.replace("alg=sha256", "alg=md5"),
        fine.replace("alg=sha256", "alg=none"),
        fine.replace("alg=sha256", "alg=sha512"),
        fine.to_uppercase(),
        format!("{fine};alg=sha256"),
        String::new(),
    ];
    let refused = (StatusCode::UNAUTHORIZED, String::new());
    for signature in &wrong {
        assert_eq!(
            post(&address, &body, Some(signature)).await,
            refused,
            "{signature}"
        );
    }
    assert_eq!(post(&address, &body, None).await, refused);
    assert_eq!(
        post(&address, &format!("{body} "), Some(&fine)).await,
        refused
    );
    assert_eq!(stored(&world).await, 0);
    let sent = client().get(&address).send().await.unwrap();
    assert_eq!(sent.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notices_signed_with_the_previous_key_are_taken_until_the_configuration_drops_it() {
    let site = Site::new(1, "").await;
    let current = format!("service_key = \"{SERVICE_KEY}\"\n");
    let previous = site.path("previous_key");
    let both = format!(
        "{current}previous_service_key_file = \"{}\"\n",
        previous.display()
    );
    std::fs::write(previous, "the-key-before\n").unwrap();
    let without = site.file_text(site.door);
    let mut daemon = site.start_with(&without.replace(&current, &both), "cykl");
    daemon.says("started").await;
    let address = panel_address(&format!("http://{}", site.door));
    let answer = async |key: &str| {
        let body = notice("inv-1042-a1", Uuid::new_v4());
        post(&address, &body, Some(&signature_with(key, &body)))
            .await
            .0
    };
    assert_eq!(answer(SERVICE_KEY).await, StatusCode::OK);
    assert_eq!(answer("the-key-before").await, StatusCode::OK);
    assert_eq!(answer("another-key").await, StatusCode::UNAUTHORIZED);

    std::fs::write(&daemon.file, without).unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.says("configuration read again").await;
    until("a refusal of the previous key", async || {
        answer("the-key-before").await == StatusCode::UNAUTHORIZED
    })
    .await;
    assert_eq!(answer(SERVICE_KEY).await, StatusCode::OK);
    daemon.stops().await;
    site.reckoning().await.settle_up().await;
}

#[tokio::test]
async fn an_algorithm_that_the_operator_does_not_allow_is_refused() {
    let world = World::new(Script::default()).await;
    let narrow = world
        .another_door(world.store.clone(), &[Algorithm::Sha256])
        .await;
    let body = notice("inv-1042-a1", Uuid::new_v4());
    let hash = Sha512::new()
        .chain_update(&body)
        .chain_update(SERVICE_KEY)
        .finalize();
    let sha512 = header(&hex::encode(hash), "sha512");
    let (status, _) = post(&panel_address(&narrow), &body, Some(&sha512)).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let (status, _) = post(&panel_address(&world.door), &body, Some(&sha512)).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn a_signed_body_that_is_no_notice_is_a_bad_request() {
    let world = World::new(Script::default()).await;
    let whole = notice("inv-1042-a1", Uuid::new_v4());
    for body in [
        &whole[..whole.len() / 2],
        "",
        "null",
        "[]",
        "{}",
        "{\"transaction\":{}",
        "hello",
    ] {
        let (status, said) = post_signed(&panel_address(&world.door), body).await;
        assert_eq!(
            (status, said.as_str()),
            (StatusCode::BAD_REQUEST, ""),
            "{body}"
        );
    }
    assert_eq!(stored(&world).await, 0);
}

/// Writes a request by hand and returns the status that comes back, without having sent all that was announced.
async fn status_of(door: &str, headers: &str, sent: &[u8]) -> u16 {
    let address = door.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("POST /imoje/notifications HTTP/1.1\r\nHost: door\r\n{headers}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(sent).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    answer.strip_prefix("HTTP/1.1 ").unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_body_beyond_64_kib_is_refused_announced_or_not() {
    let world = World::new(Script::default()).await;
    // Announced, it is refused before a byte of it is read.
    assert_eq!(
        status_of(&world.door, "Content-Length: 1048576", b"").await,
        413
    );
    let chunk = format!("{:x}\r\n{}\r\n", 65_537, "x".repeat(65_537));
    assert_eq!(
        status_of(&world.door, "Transfer-Encoding: chunked", chunk.as_bytes()).await,
        413
    );
    // As much as is allowed is read, and then lacks a signature.
    let (status, _) = post(&panel_address(&world.door), &"x".repeat(65_536), None).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert_eq!(stored(&world).await, 0);
}

#[tokio::test]
async fn card_numbers_in_a_signed_body_are_not_stored() {
    let world = World::new(Script::default()).await;
    let body = json!({ "transaction": {
        "id": Uuid::new_v4(), "orderId": "inv-1", "title": "4111111111111111",
        "note": "card 5500-0000-0000-0004, thanks", "other": "4111 1111 1111 1111",
    }})
    .to_string();
    let (status, _) = post_signed(&panel_address(&world.door), &body).await;
    assert_eq!(status, StatusCode::OK);
    let kept: String = world.one("SELECT body FROM notices").await;
    for number in ["4111", "5500", "0004"] {
        assert!(!kept.contains(number), "{kept}");
    }
    assert_eq!(kept.matches("[card number removed]").count(), 3, "{kept}");
}

#[tokio::test]
async fn a_notice_with_characters_that_postgresql_cannot_store_is_taken_all_the_same() {
    let world = World::new(Script::default()).await;
    for order in [r"inv-\u0000-1", r"inv-\ud83d\ude00", r"cykl-\u0000"] {
        let body = format!(
            r#"{{"transaction":{{"id":"{}","orderId":"{order}"}}}}"#,
            Uuid::new_v4()
        );
        let (status, _) = post_signed(&panel_address(&world.door), &body).await;
        assert_eq!(status, StatusCode::OK, "{order}");
    }
    world.run_days(1).await;
    assert_eq!(
        world.column("SELECT state::text FROM notices").await,
        ["foreign"; 3]
    );
}

#[tokio::test]
async fn a_forged_notice_about_an_unknown_order_of_ours_is_told_once_and_decides_nothing() {
    let world = World::new(Script::default()).await;
    let order = format!("cykl-{}-0-1", Uuid::now_v7().simple());
    let transaction = Uuid::new_v4();
    let (status, _) = post_signed(&panel_address(&world.door), &notice(&order, transaction)).await;
    assert_eq!(status, StatusCode::OK);
    // imoje may not show at once what it tells: it is asked three times, at 0, 10 and 30 seconds.
    world
        .run_until(world.clock.now() + TimeDelta::seconds(29))
        .await;
    assert_eq!(world.incidents().await, Vec::<String>::new());
    world.run_days(5).await;
    assert_eq!(
        world.column("SELECT state::text FROM notices").await,
        ["new"]
    );
    assert_eq!(world.brakes().await, ["* run first start"]);
    assert_eq!(
        unknown_transactions(&world).await,
        [format!("{order} {transaction}")]
    );
    let metrics = world.metrics.encode();
    assert!(metrics.contains("cykl_notices_total{outcome=\"unknown_transaction\"} 1\n"));
}

/// What was told of notices about transactions that imoje does not know.
async fn unknown_transactions(world: &World) -> Vec<String> {
    world
        .column(
            "SELECT concat_ws(' ', payload->>'order_id', payload->>'transaction_id') FROM events
             WHERE kind = 'incident.unknown_transaction' AND is_alert AND shop = 'main' ORDER BY event_id",
        )
        .await
}

#[tokio::test]
async fn a_forged_notice_that_says_settled_pays_nothing() {
    let world = World::new(Script::default()).await;
    world
        .simulator
        .add_rule(Rule::debits(Behaviour::lose_request()).times(1));
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world.charge().await;
    let order: String = world.one("SELECT order_id FROM attempts").await;
    let transaction = Uuid::new_v4();
    post_signed(&panel_address(&world.door), &notice(&order, transaction)).await;
    world.run_days(1).await;
    assert_eq!(world.attempts().await, ["in_doubt"]);
    assert_eq!(
        unknown_transactions(&world).await,
        [format!("{order} {transaction}")]
    );
    // Nor does the transaction of somebody else's order.
    world.subscribe(Agreement::monthly("2027-01-02")).await;
    world.run_until_idle().await;
    let ledger = world.simulator.ledger();
    let other = ledger.transactions().first().unwrap();
    post_signed(&panel_address(&world.door), &notice(&order, other.id)).await;
    world.run_days(1).await;
    assert_eq!(world.attempts().await, ["in_doubt", "settled"]);
    assert_eq!(world.charges().await, ["in_flight", "paid"]);
    assert_eq!(
        world.incidents().await,
        ["incident.mismatch", "incident.unknown_transaction"]
    );
    world.settle_up().await;
}

#[tokio::test]
async fn a_debit_that_imoje_has_and_the_books_lack_stops_everything() {
    let world = World::new(Script::default()).await;
    let shop = world.workers.charger.shops.iter().next().unwrap();
    // As after a restored backup: the debit was made, its row is gone.
    let lost = DebitOrder {
        order_id: OrderId {
            subscription_id: SubscriptionId::from_uuid(Uuid::now_v7()),
            period_no: 0,
            attempt_no: 1,
        },
        cid: "card-1".to_owned(),
        card: ChargedCard::Stored(ProfileId::from_uuid(Uuid::new_v4())),
        amount: Money::new(4900, Currency::Pln).unwrap(),
        title: None,
        notification_url: None,
        invoice: None,
        multipayout: None,
    };
    shop.client.debit(&lost, Moment::now()).await.unwrap();
    world.subscribe(Agreement::monthly("2027-01-02")).await;
    world.run_days(2).await;
    let states: BTreeSet<String> = world
        .column("SELECT state::text FROM notices")
        .await
        .into_iter()
        .collect();
    assert!(states.contains("orphan"), "{states:?}");
    assert_eq!(world.brakes().await, ["* stop orphan_transaction"]);
    assert_eq!(world.incidents().await, ["incident.orphan"]);
    let alerts: i64 = world
        .one("SELECT count(*) FROM events WHERE kind = 'incident.orphan' AND is_alert")
        .await;
    assert!(alerts >= 1);
    assert_eq!(world.charges().await, ["planned"]);
    assert_eq!(world.posts(), 1, "nothing was sent after that");
}

#[tokio::test]
async fn orders_of_other_systems_on_the_shop_are_left_alone() {
    let world = World::new(Script::default()).await;
    for order in ["inv-1042-a1", "cykl-1", "CYKL-0-0-0", ""] {
        post_signed(&panel_address(&world.door), &notice(order, Uuid::new_v4())).await;
    }
    world.run_days(1).await;
    assert_eq!(
        world.column("SELECT state::text FROM notices").await,
        ["foreign"; 4]
    );
    assert_eq!(world.simulator.totals().calls, 0, "nobody asked about them");
    assert_eq!(world.incidents().await, Vec::<String>::new());
}

#[tokio::test]
async fn the_address_of_an_attempt_finds_it_without_its_order_id() {
    let world = World::new(Script::default()).await;
    let unheard = Behaviour::take_money_and_lose_answer().with_notices(Notices::none());
    world.simulator.add_rule(Rule::debits(unheard));
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world.charge().await;
    let attempt: Uuid = world.one("SELECT attempt_id FROM attempts").await;
    let token = notice_token(AttemptId::from_uuid(attempt), &key());
    let id = world.simulator.ledger().transactions()[0].id;
    let body = json!({ "transaction": { "id": id } }).to_string();
    // A token that does not fit names nothing; the signature is good, so the notice is taken all the same.
    let wrong = [
        notice_token(AttemptId::from_uuid(attempt), &SecretString::from("other")),
        notice_token(AttemptId::from_uuid(Uuid::now_v7()), &key()).replace('-', ""),
        token.to_uppercase(),
        token[..token.len() - 1].to_owned(),
        attempt.simple().to_string(),
    ];
    for token in wrong {
        let address = format!("{}/{token}", panel_address(&world.door));
        let (taken, _) = post_signed(&address, &body).await;
        assert_eq!(taken, StatusCode::OK, "{token}");
    }
    world.run_until_idle().await;
    assert_eq!(world.charges().await, ["in_flight"]);
    let body = json!({ "transaction": { "id": id }, "again": true }).to_string();
    let address = format!("{}/{token}", panel_address(&world.door));
    let (unsigned, _) = post(&address, &body, None).await;
    assert_eq!(unsigned, StatusCode::UNAUTHORIZED);
    assert_eq!(stored(&world).await, 1);
    let (taken, _) = post_signed(&address, &body).await;
    assert_eq!(taken, StatusCode::OK);
    world.run_until_idle().await;
    assert_eq!(world.charges().await, ["paid"]);
    world.settle_up().await;
}

#[tokio::test]
async fn with_a_public_address_each_debit_names_its_own() {
    let world = World::with(Setting {
        toml: format!("[http]\npublic_url = \"https://{PUBLIC_HOST}\"\n"),
        ..Setting::default()
    })
    .await;
    world
        .simulator
        .add_rule(Rule::debits(Behaviour::take_money_and_lose_answer()));
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world.run_days(1).await;
    assert_eq!(world.charges().await, ["paid", "paid"]);
    let matched: i64 = world
        .one("SELECT count(*) FROM notices n JOIN attempts a USING (attempt_id) WHERE n.order_id = a.order_id")
        .await;
    assert_eq!(matched, 2);
    world.settle_up().await;
}

async fn get(url: String) -> (StatusCode, String, String) {
    let answer = client().get(url).send().await.unwrap();
    let content_type = answer
        .headers()
        .get(CONTENT_TYPE)
        .map(|value| value.to_str().unwrap().to_owned())
        .unwrap_or_default();
    (answer.status(), content_type, answer.text().await.unwrap())
}

async fn get_json(url: String) -> (StatusCode, Value) {
    let (status, content_type, body) = get(url).await;
    assert_eq!(content_type, "application/json");
    (status, serde_json::from_str(&body).unwrap())
}

#[tokio::test]
async fn the_daemon_is_ready_when_every_worker_ran_lately_and_the_schema_fits() {
    let world = World::new(Script::default()).await;
    let live = || get_json(format!("{}/health/live", world.door));
    let ready = || get_json(format!("{}/health/ready", world.door));
    assert_eq!(live().await, (StatusCode::OK, json!({ "status": "ok" })));
    let (status, said) = ready().await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "no worker has run");
    assert_eq!(said["status"], "unavailable");
    for worker in Wake::ALL {
        let now = world.clock.now();
        world.store.note_run(worker, now, now, 0).await.unwrap();
    }
    let (status, said) = ready().await;
    assert_eq!((status, &said["status"]), (StatusCode::OK, &json!("ok")));
    assert_eq!(said["workers"]["charger"]["lag_seconds"], 0);
    world.advance(TimeDelta::minutes(6));
    let (status, said) = ready().await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(said["workers"]["charger"]["lag_seconds"], 360);
    for worker in Wake::ALL {
        let now = world.clock.now();
        world.store.note_run(worker, now, now, 0).await.unwrap();
    }
    assert_eq!(ready().await.0, StatusCode::OK);
    sqlx::query("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'later', true, '', 0)")
        .execute(&world.books)
        .await
        .unwrap();
    assert_eq!(ready().await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(live().await.0, StatusCode::OK);
}

/// The names of the contract; a counter's sample ends in `_total`.
const CONTRACT: [&str; 13] = [
    "cykl_charges_total",
    "cykl_attempts_total",
    "cykl_declines_total",
    "cykl_in_doubt",
    "cykl_held",
    "cykl_oldest_due_seconds",
    "cykl_expected_charges_total",
    "cykl_gateway_request_seconds_bucket",
    "cykl_worker_lag_seconds",
    "cykl_brake",
    "cykl_notices_total",
    "cykl_outbox_pending",
    "cykl_build_info",
];

/// Every sample of an OpenMetrics text: its name, its labels, its value.
fn samples(text: &str) -> Vec<(String, String, f64)> {
    assert!(text.ends_with("# EOF\n"), "OpenMetrics ends so");
    text.lines()
        .filter(|line| !line.starts_with("# "))
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = match series.split_once('{') {
                Some((name, labels)) => (name, labels.strip_suffix('}').unwrap()),
                None => (series, ""),
            };
            (name.to_owned(), labels.to_owned(), value.parse().unwrap())
        })
        .collect()
}

#[tokio::test]
async fn the_metrics_have_the_names_of_the_contract_and_tell_what_happened() {
    let world = World::new(Script::default()).await;
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world
        .subscribe(Agreement::monthly("2027-01-01").with_card(Behaviour::decline("CODE_51")))
        .await;
    world
        .subscribe(Agreement::monthly("2027-01-01").with_card(Behaviour::lose_request()))
        .await;
    world
        .run_until(world.clock.now() + TimeDelta::hours(100))
        .await;
    let now = world.clock.now();
    for worker in Wake::ALL {
        world.store.note_run(worker, now, now, 0).await.unwrap();
    }
    world.advance(TimeDelta::seconds(7));
    let (status, content_type, text) = get(format!("{}/metrics", world.door)).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(content_type, Metrics::CONTENT_TYPE);
    let samples = samples(&text);
    for name in CONTRACT {
        assert!(samples.iter().any(|(sample, ..)| sample == name), "{name}");
    }
    let value = |name: &str, labels: &str| {
        samples
            .iter()
            .find(|(sample, of, _)| sample == name && of == labels)
            .unwrap_or_else(|| panic!("{name}{{{labels}}} is missing"))
            .2
    };
    for (name, labels, expected) in [
        ("cykl_expected_charges_total", "shop=\"main\"", 3.0),
        ("cykl_charges_total", "shop=\"main\",state=\"paid\"", 1.0),
        (
            "cykl_attempts_total",
            "shop=\"main\",state=\"settled\"",
            1.0,
        ),
        ("cykl_declines_total", "shop=\"main\",class=\"funds\"", 3.0),
        ("cykl_in_doubt", "", 1.0),
        ("cykl_held", "", 1.0),
        ("cykl_worker_lag_seconds", "worker=\"charger\"", 7.0),
        ("cykl_brake", "shop=\"*\",mode=\"run\"", 1.0),
        ("cykl_brake", "shop=\"*\",mode=\"stop\"", 0.0),
        ("cykl_outbox_pending", "", 0.0),
    ] {
        let shown = value(name, labels);
        assert!(
            (shown - expected).abs() < 1e-9,
            "{name}{{{labels}}} is {shown}"
        );
    }
    world.settle_up().await;
}

#[tokio::test]
async fn without_the_database_nothing_is_taken_and_only_liveness_is_claimed() {
    let world = World::new(Script::default()).await;
    let away = world.another_store().await;
    away.close().await;
    let door = world.another_door(away, &Algorithm::ALL).await;
    let body = notice("inv-1042-a1", Uuid::new_v4());
    assert_eq!(
        post_signed(&panel_address(&door), &body).await,
        (StatusCode::SERVICE_UNAVAILABLE, String::new())
    );
    let (unsigned, _) = post(&panel_address(&door), &body, None).await;
    assert_eq!(unsigned, StatusCode::UNAUTHORIZED);
    let (status, said) = get_json(format!("{door}/health/ready")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        said,
        json!({ "status": "unavailable", "database": "unavailable" })
    );
    let (status, ..) = get(format!("{door}/metrics")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let (status, _) = get_json(format!("{door}/health/live")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(stored(&world).await, 0);
}
