//! A tokenising proxy, as shops have that may take card data.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// What a proxy knows the card by, and the card. A number of imoje's sandbox.
pub const ALIAS: &str = "tok_1a2b3c";
pub const CODE_ALIAS: &str = "tok_code_9";
pub const NUMBER: &str = "4111111111111111";

/// A tokenising proxy: it stands in front of the gateway and puts the card's data in the place of its alias.
pub struct Proxy {
    pub base_url: String,
    pub seen: Arc<Mutex<Vec<Value>>>,
}

#[derive(Clone)]
struct Upstream {
    base_url: String,
    seen: Arc<Mutex<Vec<Value>>>,
}

impl Proxy {
    pub async fn in_front_of(base_url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
        let upstream = Upstream {
            base_url: base_url.to_owned(),
            seen: Arc::clone(&seen),
        };
        let router = Router::new()
            .route("/cards/{merchant_id}/transaction", post(pass_on))
            .with_state(upstream);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            base_url: format!("http://{address}/cards"),
            seen,
        }
    }
}

async fn pass_on(
    State(upstream): State<Upstream>,
    Path(merchant_id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> impl IntoResponse {
    let mut body: Value = serde_json::from_slice(&body).unwrap();
    upstream.seen.lock().unwrap().push(body.clone());
    if body["card"]["number"] == ALIAS {
        body["card"]["number"] = json!(NUMBER);
    }
    if body["card"]["cvv"] == CODE_ALIAS {
        body["card"]["cvv"] = json!("123");
    }
    let answer = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .build()
        .unwrap()
        .post(format!("{}/{merchant_id}/transaction", upstream.base_url))
        .header(header::AUTHORIZATION, &headers[header::AUTHORIZATION])
        .json(&body)
        .send()
        .await;
    match answer {
        Ok(answer) => (answer.status(), answer.bytes().await.unwrap()),
        // The gateway is gone, whatever it has done.
        Err(_) => (StatusCode::BAD_GATEWAY, Bytes::new()),
    }
}
