//! The client against small servers that answer with canned bytes, or do not answer.

mod payments;
mod refunds;

use std::time::Duration;

use chrono::TimeDelta;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use url::Url;
use uuid::Uuid;

use crate::clock::Moment;
use crate::domain::answer::{Doubt, Expected, Refusal, RefusalReason, Verdict};
use crate::domain::card::ChargedCard;
use crate::domain::fields::Problem;
use crate::domain::id::{ProfileId, SubscriptionId, TransactionId};
use crate::domain::money::{Currency, Money};
use crate::domain::order_id::OrderId;
use crate::gateway::{
    ClientConfig, ClientError, ConnectStep, DebitOrder, ImojeClient, Lost, NoAnswer, NotSent,
    PostAnswer, ReadError,
};

const TOKEN: &str = "sim-token-5f2c";
const SERVICE: &str = "2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b";
const TRANSACTION: &str = "7c1f3b52-5a0e-4c1d-9f2a-3d9b8f6a1e01";
const PROFILE: &str = "c0de0b1e-1111-4222-8333-9a4b5c6d7e8f";
const ORDER: &str = "cykl-0192f0c1a2b37c4d8e5f60718293a4b5-17-2";

/// What a server does with one request.
#[derive(Clone)]
enum Act {
    /// Writes these bytes and waits for the next request on the same connection.
    Answer(Vec<u8>),
    /// Writes these bytes and closes the connection.
    AnswerAndClose(Vec<u8>),
    /// Keeps the connection open without another byte.
    Hold(Vec<u8>),
}

/// A server that takes one act for each request, in order, and the requests that it saw.
struct Server {
    address: String,
    requests: mpsc::UnboundedReceiver<String>,
}

impl Server {
    async fn start(acts: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (seen, requests) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut acts = acts.into_iter();
            let mut held = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                while let Some(request) = read_request(&mut stream).await {
                    seen.send(request).unwrap();
                    match acts.next() {
                        Some(Act::Answer(bytes)) => stream.write_all(&bytes).await.unwrap(),
                        Some(Act::AnswerAndClose(bytes)) => {
                            stream.write_all(&bytes).await.unwrap();
                            break;
                        }
                        Some(Act::Hold(bytes)) => {
                            stream.write_all(&bytes).await.unwrap();
                            held.push(stream);
                            break;
                        }
                        None => break,
                    }
                }
            }
        });
        Self { address, requests }
    }

    async fn answering(http_status: u16, body: &str) -> Self {
        Self::start(vec![Act::Answer(http(http_status, body))]).await
    }

    fn client(&self) -> ImojeClient {
        ImojeClient::new(config(&format!("http://{}/v1/merchant", self.address))).unwrap()
    }

    /// The requests so far; whatever was sent before an answer was awaited is among them.
    fn seen(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.requests.try_recv().ok()).collect()
    }
}

/// One request with a body of the announced length, or nothing when the connection ends.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        if let Some((head, body)) = std::str::from_utf8(&bytes).unwrap().split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                return Some(String::from_utf8(bytes).unwrap());
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

pub(super) fn http(http_status: u16, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {http_status} X\r\nContent-Type: application/json\r\nx-trace-id: abc-1\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

pub(super) fn config(base_url: &str) -> ClientConfig {
    ClientConfig {
        base_url: Url::parse(base_url).unwrap(),
        merchant_id: "simmerchant000000001".to_owned(),
        service_id: Uuid::parse_str(SERVICE).unwrap(),
        token: SecretString::from(TOKEN),
        return_to: None,
        card_proxy_url: None,
        connect_timeout: Duration::from_secs(10),
        request_timeout: Duration::from_secs(60),
        permit_age_max: Duration::from_secs(60),
    }
}

/// For servers that never answer: long enough to reach them, short enough to wait for.
fn impatient(base_url: &str) -> ClientConfig {
    ClientConfig {
        connect_timeout: Duration::from_secs(1),
        request_timeout: Duration::from_millis(1500),
        ..config(base_url)
    }
}

fn amount() -> Money {
    Money::new(4900, Currency::Pln).unwrap()
}

pub(super) fn order() -> DebitOrder {
    DebitOrder {
        order_id: OrderId {
            subscription_id: SubscriptionId::from_uuid(Uuid::from_u128(
                0x0192_f0c1_a2b3_7c4d_8e5f_6071_8293_a4b5,
            )),
            period_no: 17,
            attempt_no: 2,
        },
        cid: "cus-77-card-1".to_owned(),
        card: ChargedCard::Stored(PROFILE.parse().unwrap()),
        amount: amount(),
        title: Some("Abonament 2026-10".to_owned()),
        notification_url: None,
        invoice: None,
        multipayout: None,
    }
}

fn expected() -> Expected {
    Expected {
        order_id: ORDER.to_owned(),
        amount: amount(),
        service_id: SERVICE.to_owned(),
    }
}

fn id() -> TransactionId {
    TRANSACTION.parse().unwrap()
}

fn transaction(status: &str) -> Value {
    json!({
        "id": TRANSACTION, "type": "sale", "status": status, "serviceId": SERVICE, "amount": 4900, "currency": "PLN",
        "orderId": ORDER, "statusCode": "CODE_51", "paymentProfile": {"maskedNumber": "****4242"}
    })
}

pub(super) fn wrapped(status: &str) -> String {
    json!({"transaction": transaction(status)}).to_string()
}

fn error(code: &str) -> String {
    json!({"apiErrorResponse": {"code": code, "message": "m", "errors": []}}).to_string()
}

async fn debit(server: &Server) -> Result<PostAnswer, NoAnswer> {
    server.client().debit(&order(), Moment::now()).await
}

async fn verdict_on(http_status: u16, body: &str) -> Verdict {
    debit(&Server::answering(http_status, body).await)
        .await
        .unwrap()
        .verdict
}

#[tokio::test]
async fn a_debit_is_sent_exactly_as_documented() {
    let mut server = Server::answering(200, &wrapped("pending")).await;
    debit(&server).await.unwrap();
    let seen = server.seen();
    let [request] = &seen[..] else {
        panic!("{seen:?}")
    };
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert_eq!(
        body,
        format!(
            r#"{{"serviceId":"{SERVICE}","paymentProfileId":"{PROFILE}","amount":4900,"currency":"PLN","orderId":"{ORDER}","title":"Abonament 2026-10"}}"#
        )
    );
    let mut lines = head.lines();
    assert_eq!(
        lines.next(),
        Some("POST /v1/merchant/simmerchant000000001/transaction/profile HTTP/1.1")
    );
    let mut headers: Vec<&str> = lines.collect();
    headers.sort_unstable();
    assert_eq!(
        headers,
        [
            "accept: application/json",
            &format!("authorization: Bearer {TOKEN}"),
            &format!("content-length: {}", body.len()),
            "content-type: application/json",
            &format!("host: {}", server.address),
            concat!("user-agent: cykl/", env!("CARGO_PKG_VERSION")),
        ]
    );
}

#[tokio::test]
async fn an_answer_is_returned_with_its_evidence() {
    let server = Server::answering(200, &wrapped("rejected")).await;
    let answer = debit(&server).await.unwrap();
    assert_eq!(answer.http_status, 200);
    assert_eq!(
        answer.verdict,
        Verdict::Rejected {
            transaction_id: id(),
            status_code: Some("CODE_51".to_owned())
        }
    );
    assert_eq!(answer.trace_id.as_deref(), Some("abc-1"));
    assert_eq!(answer.error_code, None);
    let shown = answer.shown.unwrap();
    assert_eq!(shown.status.as_deref(), Some("rejected"));
    assert_eq!(shown.masked_number.as_deref(), Some("****4242"));
}

#[tokio::test]
async fn the_answers_of_the_whitelist_are_told_apart() {
    assert_eq!(
        verdict_on(200, &wrapped("settled")).await,
        Verdict::Settled {
            transaction_id: id()
        }
    );
    assert_eq!(
        verdict_on(200, &wrapped("pending")).await,
        Verdict::Pending {
            transaction_id: id(),
            status: "pending".to_owned()
        }
    );
    for (http_status, code, reason) in [
        (400, "TRX-ERROR-120301", RefusalReason::ProfileInactive),
        (401, "AUTH", RefusalReason::Unauthorized),
        (406, "TRX-ERROR-120003", RefusalReason::Unavailable),
        (422, "TRX-ERROR-120001", RefusalReason::Invalid),
    ] {
        assert_eq!(
            verdict_on(http_status, &error(code)).await,
            Verdict::Refused(Refusal {
                reason,
                http_status,
                code: code.to_owned()
            })
        );
    }
}

#[tokio::test]
async fn everything_outside_of_the_whitelist_is_doubt() {
    let other_order = wrapped("settled").replace("-17-2", "-17-3");
    for (http_status, body, doubt) in [
        (200, "", Doubt::Incomplete),
        (200, "<html></html>", Doubt::Incomplete),
        (200, &wrapped("settled")[..100], Doubt::Incomplete),
        (201, &wrapped("settled"), Doubt::Incomplete),
        (200, &other_order, Doubt::Mismatch),
        (400, "<html></html>", Doubt::UnknownBody),
        (401, "", Doubt::Unauthorized),
        (429, &error("X"), Doubt::HttpStatus),
        (500, &error("ACQ-ERROR-130004"), Doubt::HttpStatus),
        (503, "", Doubt::HttpStatus),
    ] {
        assert_eq!(
            verdict_on(http_status, body).await,
            Verdict::InDoubt(doubt),
            "{http_status} {body}"
        );
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    for http_status in [301, 302, 307, 308] {
        let answer = format!(
            "HTTP/1.1 {http_status} X\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"
        );
        let mut server = Server::start(vec![
            Act::Answer(answer.into_bytes()),
            Act::Answer(http(200, &wrapped("settled"))),
        ])
        .await;
        let answer = debit(&server).await.unwrap();
        assert_eq!(answer.verdict, Verdict::InDoubt(Doubt::HttpStatus));
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_refused_connection_means_that_nothing_was_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let client = ImojeClient::new(config(&format!("http://{address}/v1/merchant"))).unwrap();
    let NoAnswer::NotSent(NotSent::Connect(failure)) =
        client.debit(&order(), Moment::now()).await.unwrap_err()
    else {
        panic!("a debit without a connection was not sent");
    };
    assert_eq!(failure.step, ConnectStep::Tcp);
    assert!(!failure.detail.contains("simmerchant"), "{failure}");
    assert!(matches!(
        client.transaction(id(), &expected()).await,
        Err(ReadError::Connect(_))
    ));
}

#[tokio::test]
async fn a_failed_or_endless_tls_handshake_means_that_nothing_was_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("https://{}/v1/merchant", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut first, _) = listener.accept().await.unwrap();
        first
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        let (_second, _) = listener.accept().await.unwrap();
        std::future::pending::<()>().await;
    });
    for (config, step) in [
        (config(&base_url), ConnectStep::Tls),
        (impatient(&base_url), ConnectStep::Timeout),
    ] {
        let client = ImojeClient::new(config).unwrap();
        match client.debit(&order(), Moment::now()).await {
            Err(NoAnswer::NotSent(NotSent::Connect(failure))) => {
                assert_eq!(failure.step, step, "{failure}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_connection_closed_without_an_answer_leaves_the_debit_unknown() {
    for bytes in [&b""[..], b"HTTP/1.1 2", b"garbage\r\n\r\n"] {
        let mut server = Server::start(vec![Act::AnswerAndClose(bytes.to_vec())]).await;
        let lost = debit(&server).await.unwrap_err();
        assert!(
            matches!(lost, NoAnswer::Unknown(Lost::Broken(_))),
            "{lost:?}"
        );
        assert!(!lost.to_string().contains("simmerchant") && !lost.to_string().contains(TOKEN));
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_lost_answer_on_a_reused_connection_is_not_sent_again() {
    let mut server = Server::start(vec![
        Act::Answer(http(200, &wrapped("pending"))),
        Act::AnswerAndClose(Vec::new()),
        Act::Answer(http(200, &wrapped("settled"))),
    ])
    .await;
    let client = server.client();
    client.debit(&order(), Moment::now()).await.unwrap();
    let lost = client.debit(&order(), Moment::now()).await.unwrap_err();
    assert!(
        matches!(lost, NoAnswer::Unknown(Lost::Broken(_))),
        "{lost:?}"
    );
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn no_answer_in_time_leaves_the_debit_unknown() {
    let mut server = Server::start(vec![Act::Hold(Vec::new())]).await;
    let client =
        ImojeClient::new(impatient(&format!("http://{}/v1/merchant", server.address))).unwrap();
    let lost = client.debit(&order(), Moment::now()).await.unwrap_err();
    assert_eq!(lost, NoAnswer::Unknown(Lost::Timeout));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn an_answer_that_breaks_off_or_does_not_end_is_doubt_with_its_status() {
    let whole = http(200, &wrapped("settled"));
    let part = whole[..whole.len() - 1].to_vec();
    for act in [Act::AnswerAndClose(part.clone()), Act::Hold(part)] {
        let server = Server::start(vec![act]).await;
        let client =
            ImojeClient::new(impatient(&format!("http://{}/v1/merchant", server.address))).unwrap();
        let answer = client.debit(&order(), Moment::now()).await.unwrap();
        assert_eq!(answer.http_status, 200);
        assert_eq!(answer.verdict, Verdict::InDoubt(Doubt::Incomplete));
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_not_read() {
    let padded = |length: usize| {
        let mut body = wrapped("settled");
        body.push_str(&" ".repeat(length - body.len()));
        body
    };
    assert_eq!(
        verdict_on(200, &padded(256 * 1024)).await,
        Verdict::Settled {
            transaction_id: id()
        }
    );
    assert_eq!(
        verdict_on(200, &padded(256 * 1024 + 1)).await,
        Verdict::InDoubt(Doubt::Incomplete)
    );
}

#[tokio::test]
async fn an_old_permit_sends_nothing() {
    let mut server = Server::answering(200, &wrapped("settled")).await;
    let client = server.client();
    let permitted_at = Moment::now() - TimeDelta::seconds(60);
    let refused = client.debit(&order(), permitted_at).await.unwrap_err();
    assert!(
        matches!(refused, NoAnswer::NotSent(NotSent::PermitTooOld { .. })),
        "{refused:?}"
    );
    assert!(server.seen().is_empty());
    let permitted_at = Moment::now() - TimeDelta::seconds(30);
    client.debit(&order(), permitted_at).await.unwrap();
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn an_invalid_order_sends_nothing() {
    let mut server = Server::answering(200, &wrapped("settled")).await;
    let order = DebitOrder {
        title: Some("4111111111111111".to_owned()),
        ..order()
    };
    let NoAnswer::NotSent(NotSent::Invalid(field)) = server
        .client()
        .debit(&order, Moment::now())
        .await
        .unwrap_err()
    else {
        panic!("an invalid order was not refused");
    };
    assert_eq!(
        (field.field.as_str(), field.problem),
        ("title", Problem::CardNumber)
    );
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_transaction_is_read_wrapped_or_bare_and_with_its_amount_as_text() {
    let mut text_amount = transaction("settled");
    text_amount["amount"] = json!("4900");
    for body in [
        wrapped("settled"),
        transaction("settled").to_string(),
        text_amount.to_string(),
    ] {
        let mut server = Server::answering(200, &body).await;
        let answer = server
            .client()
            .transaction(id(), &expected())
            .await
            .unwrap();
        assert_eq!(
            answer.verdict,
            Verdict::Settled {
                transaction_id: id()
            }
        );
        let seen = server.seen();
        let path =
            format!("GET /v1/merchant/simmerchant000000001/transaction/{TRANSACTION} HTTP/1.1\r\n");
        assert!(seen[0].starts_with(&path), "{seen:?}");
    }
}

#[tokio::test]
async fn a_read_that_shows_another_transaction_or_an_error_decides_nothing() {
    let other = wrapped("settled").replace(TRANSACTION, "7c1f3b52-5a0e-4c1d-9f2a-3d9b8f6a1e02");
    let unnamed = wrapped("settled").replace(TRANSACTION, "x");
    for (http_status, body, doubt) in [
        (200, other, Doubt::Mismatch),
        (200, unnamed, Doubt::Incomplete),
        (404, error("X"), Doubt::UnknownBody),
        (422, error("TRX-ERROR-120001"), Doubt::UnknownBody),
        (401, String::new(), Doubt::Unauthorized),
        (500, wrapped("settled"), Doubt::HttpStatus),
    ] {
        let server = Server::answering(http_status, &body).await;
        let answer = server
            .client()
            .transaction(id(), &expected())
            .await
            .unwrap();
        assert_eq!(
            answer.verdict,
            Verdict::InDoubt(doubt),
            "{http_status} {body}"
        );
        assert_eq!(answer.http_status, http_status);
    }
    let server = Server::start(vec![Act::AnswerAndClose(Vec::new())]).await;
    let lost = server
        .client()
        .transaction(id(), &expected())
        .await
        .unwrap_err();
    assert!(matches!(lost, ReadError::Lost(Lost::Broken(_))), "{lost:?}");
}

#[tokio::test]
async fn a_profile_is_read_and_its_absence_is_told_from_other_errors() {
    let id: ProfileId = PROFILE.parse().unwrap();
    let found =
        json!({"paymentProfile": {"id": PROFILE, "isActive": 0, "month": "09", "year": "2030"}})
            .to_string();
    let mut server = Server::answering(200, &found).await;
    let profile = server.client().profile(id).await.unwrap();
    assert_eq!(
        (profile.is_active, profile.month, profile.year),
        (Some(false), Some(9), Some(2030))
    );
    let path = format!("GET /v1/merchant/simmerchant000000001/profile/id/{PROFILE} HTTP/1.1\r\n");
    assert!(server.seen()[0].starts_with(&path));

    for (http_status, body, error) in [
        (404, String::new(), ReadError::NotFound),
        (
            401,
            String::new(),
            ReadError::Unauthorized { http_status: 401 },
        ),
        (
            403,
            error("X"),
            ReadError::Unauthorized { http_status: 403 },
        ),
        (
            503,
            error("X"),
            ReadError::Status {
                http_status: 503,
                code: Some("X".to_owned()),
            },
        ),
        (200, "{}".to_owned(), ReadError::Unreadable),
        (
            200,
            found.replace("c0de0b1e", "c0de0b1f"),
            ReadError::Mismatch,
        ),
    ] {
        let server = Server::answering(http_status, &body).await;
        assert_eq!(
            server.client().profile(id).await,
            Err(error),
            "{http_status} {body}"
        );
    }
}

#[tokio::test]
async fn the_cards_of_a_cid_are_read_and_no_others_are_taken_for_them() {
    let cards = json!({"paymentProfiles": [{"id": PROFILE, "merchantCustomerId": "cus-77", "isActive": 1}]}).to_string();
    let mut server = Server::answering(200, &cards).await;
    let found = server.client().profiles_of("cus-77").await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].id, PROFILE.parse().unwrap());
    let path = "GET /v1/merchant/simmerchant000000001/profile/cid/cus-77 HTTP/1.1\r\n";
    assert!(server.seen()[0].starts_with(path));
    for (http_status, body, expected) in [
        (200, r#"{"paymentProfiles":[]}"#, Ok(Vec::new())),
        (200, cards.as_str(), Err(ReadError::Mismatch)),
        (200, "{}", Err(ReadError::Unreadable)),
        (404, "", Err(ReadError::NotFound)),
    ] {
        let server = Server::answering(http_status, body).await;
        assert_eq!(server.client().profiles_of("cus-78").await, expected);
    }
}

#[tokio::test]
async fn a_card_is_ended_by_the_call_that_the_gateway_knows() {
    let id: ProfileId = PROFILE.parse().unwrap();
    let post = "POST /v1/merchant/simmerchant000000001/profile/deactivate HTTP/1.1\r\n".to_owned();
    let delete =
        format!("DELETE /v1/merchant/simmerchant000000001/profile/id/{PROFILE} HTTP/1.1\r\n");
    let both = [post, delete];
    for (answers, calls, expected) in [
        (&[(200, "{}")][..], &both[..1], Ok(())),
        (&[(204, "")], &both[..1], Ok(())),
        (&[(404, ""), (200, "{}")], &both, Ok(())),
        (&[(405, ""), (200, "")], &both, Ok(())),
        (&[(404, ""), (404, "")], &both, Err(ReadError::NotFound)),
        (
            &[(401, "")],
            &both[..1],
            Err(ReadError::Unauthorized { http_status: 401 }),
        ),
        (
            &[(500, "")],
            &both[..1],
            Err(ReadError::Status {
                http_status: 500,
                code: None,
            }),
        ),
    ] {
        let acts = answers
            .iter()
            .map(|(status, body)| Act::Answer(http(*status, body)));
        let mut server = Server::start(acts.collect()).await;
        assert_eq!(server.client().deactivate_profile(id).await, expected);
        let seen = server.seen();
        assert_eq!(seen.len(), calls.len());
        for (request, call) in seen.iter().zip(calls) {
            assert!(request.starts_with(call), "{request}");
        }
        let body = format!(r#"{{"paymentProfileId":"{PROFILE}"}}"#);
        assert!(seen[0].ends_with(&body), "{}", seen[0]);
    }
}

#[tokio::test]
async fn the_service_tells_whether_the_credentials_are_accepted() {
    let methods = json!([{"paymentMethod": "card", "paymentMethodCode": "recurring", "isActive": true, "isOnline": true}]);
    let body = json!({"service": {"id": SERVICE, "isActive": true, "paymentMethods": methods}})
        .to_string();
    let mut server = Server::answering(200, &body).await;
    let service = server.client().service().await.unwrap();
    assert_eq!(service.is_active, Some(true));
    assert_eq!(service.is_online(), Some(true));
    let path = format!("GET /v1/merchant/simmerchant000000001/service/{SERVICE} HTTP/1.1\r\n");
    assert!(server.seen()[0].starts_with(&path));

    let server = Server::answering(401, "").await;
    let refused = server.client().service().await;
    assert_eq!(refused, Err(ReadError::Unauthorized { http_status: 401 }));
}

#[test]
fn a_configuration_that_could_leak_the_token_or_cannot_work_is_refused() {
    let refusal = |config| ImojeClient::new(config).err();
    for (base_url, expected) in [
        ("http://api.imoje.pl/v1/merchant", ClientError::PlainHttp),
        ("http://10.0.0.1/v1/merchant", ClientError::PlainHttp),
        ("http://127.0.0.1.example.test/", ClientError::PlainHttp),
        ("ftp://127.0.0.1/", ClientError::BaseUrl),
        ("mailto:a@example.test", ClientError::BaseUrl),
        ("http://user:secret@127.0.0.1/", ClientError::BaseUrl),
        ("http://127.0.0.1/?a=b", ClientError::BaseUrl),
        ("http://127.0.0.1/#a", ClientError::BaseUrl),
    ] {
        assert_eq!(refusal(config(base_url)), Some(expected), "{base_url}");
    }
    for base_url in [
        "http://127.0.0.1:8080/v1/merchant",
        "http://[::1]/",
        "http://localhost:8080/v1/merchant/",
    ] {
        assert_eq!(refusal(config(base_url)), None, "{base_url}");
    }
    let local = || config("http://127.0.0.1:8080/v1/merchant");
    for merchant_id in ["", "a/b", "..", "ż", &"x".repeat(65)] {
        let config = ClientConfig {
            merchant_id: merchant_id.to_owned(),
            ..local()
        };
        assert_eq!(
            refusal(config),
            Some(ClientError::MerchantId),
            "{merchant_id}"
        );
    }
    for token in ["", "a b", "a\n", "ż"] {
        let config = ClientConfig {
            token: SecretString::from(token),
            ..local()
        };
        assert_eq!(refusal(config), Some(ClientError::Token), "{token:?}");
    }
    let config = ClientConfig {
        service_id: Uuid::nil(),
        ..local()
    };
    assert_eq!(refusal(config), Some(ClientError::ServiceId));
    for connect_timeout in [Duration::ZERO, Duration::from_secs(60)] {
        let config = ClientConfig {
            connect_timeout,
            ..local()
        };
        assert_eq!(refusal(config), Some(ClientError::Timeouts));
    }
}

#[test]
fn the_token_does_not_show_in_debug_output() {
    let config = config("http://127.0.0.1:8080/v1/merchant/");
    assert!(!format!("{config:?}").contains(TOKEN));
    let client = ImojeClient::new(config).unwrap();
    let debug = format!("{client:?}");
    assert!(
        !debug.contains(TOKEN) && debug.contains("/v1/merchant/simmerchant000000001\""),
        "{debug}"
    );
}
