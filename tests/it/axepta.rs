//! Axepta, the same platform under another name: what it frames is read as if it were not, and its notices are signed in another header.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::IntoResponse;
use cykl::simulator::{Behaviour, Script};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::harness::{Agreement, World};
use crate::notices::{notice, panel_address, signature, stored};

/// A gateway that frames what the one at `base_url` says.
async fn framing(base_url: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (origin, path) = base_url.split_once("/v1").unwrap();
    let router = Router::new()
        .fallback(pass_on)
        .with_state(origin.to_owned());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}/v1{path}")
}

async fn pass_on(
    State(origin): State<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> impl IntoResponse {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut request = client
        .request(method, format!("{origin}{uri}"))
        .header(header::AUTHORIZATION, &headers[header::AUTHORIZATION])
        .body(body);
    if let Some(kind) = headers.get(header::CONTENT_TYPE) {
        request = request.header(header::CONTENT_TYPE, kind);
    }
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let said: Value = answer.json().await.unwrap();
    let framed = match said.get("apiErrorResponse") {
        None => json!({"status": "SUCCESS", "data": said}),
        Some(error) if error["code"] == "TRX-ERROR-120301" => json!({
            "status": "FAIL", "message": "Payment profile inactive.",
            "data": {"errorCode": "PAYMENT_PROFILE_INACTIVE", "errorId": 120_301, "bqh": "6jO"},
        }),
        Some(error) => json!({"status": "FAIL", "message": error["message"], "data": {}}),
    };
    (status, framed.to_string())
}

#[tokio::test]
async fn a_year_of_framed_answers_is_billed_like_any_other() {
    let world = World::new(Script::default()).await;
    let base_url = framing(&world.simulator.base_url()).await;
    let workers = world.another_instance_at(&base_url).await;
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    let inactive = Agreement::monthly("2027-01-01").with_card(Behaviour::inactive());
    world.subscribe(inactive).await;
    for _ in 0..12 {
        while world.step(&workers).await {}
        world.advance(chrono::TimeDelta::days(31));
    }
    let states = world
        .column("SELECT DISTINCT status || ' ' || coalesce(status_reason, '') FROM subscriptions ORDER BY 1")
        .await;
    assert_eq!(states, ["active ", "deactivated profile_inactive"]);
    let paid: i64 = world
        .one("SELECT count(*) FROM charges WHERE state = 'paid'")
        .await;
    assert!(paid >= 11, "{paid}");
    world.settle_up().await;
}

#[tokio::test]
async fn its_notices_are_believed_by_its_own_header() {
    let world = World::new(Script::default()).await;
    let body = notice("inv-1", Uuid::new_v4());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for (signed, expected) in [
        (body.as_str(), StatusCode::OK),
        ("another", StatusCode::UNAUTHORIZED),
    ] {
        let answer = client
            .post(panel_address(&world.door))
            .header("X-Axepta-Signature", signature(signed))
            .body(body.clone())
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), expected);
    }
    assert_eq!(stored(&world).await, 1);
}
