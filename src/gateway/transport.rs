//! The HTTP client: one request in, one answer or one reason out.
//!
//! What "not sent" rests on, read in the sources of the versions in `Cargo.lock`:
//!
//! - hyper-util 0.1.21, `src/client/legacy/client.rs`: an error of kind `Connect` is made only in `one_connection_for` and
//!   `connect_to`, that is, while a connection is looked for and before `try_send_request` hands the request to one. reqwest
//!   0.13.5, `src/error.rs`, `is_connect` looks for exactly this kind. TLS handshakes are part of connecting and early data
//!   is off. So `is_connect` means that no byte of the request was written, keep-alive or not.
//! - The same file, `send_request`: on a reused connection a request is silently sent again when the connection gives the
//!   message back. hyper 1.12.0 gives it back in three places: `src/client/conn/http1.rs`, `try_send_request` (the connection
//!   was not ready), `src/client/dispatch.rs`, `Drop for Envelope`, and `src/proto/h1/dispatch.rs`, `recv_msg` (the connection
//!   failed). In all three the message is still in the queue; the dispatcher takes it out of the queue (`poll_msg`) before it
//!   writes the first byte of it, and from then on an error carries no message. So a second sending follows only a first one
//!   of no bytes, and keep-alive is safe.
//! - reqwest's own retries (`src/retry.rs`) and redirects are switched off here.
//!
//! Everything that is not proven to be unsent counts as sent, even where it was not: a fresh connection that is closed before
//! the first byte, for example.

use std::error::Error;
use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderValue};
use reqwest::{Certificate, Client, ClientBuilder, Request, Response, redirect, retry};

use crate::gateway::answer::{ConnectFailure, ConnectStep, Lost};
use crate::gateway::wire;

/// The longest body of an answer that is read.
const BODY_BYTES_MAX: usize = 256 * 1024;

/// How long an idle connection is kept. It is shorter than any server's own limit, so that a debit hardly ever meets a
/// connection that is just being closed and ends in doubt for nothing.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// The longest `x-trace-id` that is kept.
const TRACE_ID_LENGTH_MAX: usize = 100;

const USER_AGENT: &str = concat!("cykl/", env!("CARGO_PKG_VERSION"));

/// How to build the HTTP client.
pub(super) struct TransportConfig {
    pub(super) bearer: HeaderValue,
    pub(super) connect_timeout: Duration,
    pub(super) request_timeout: Duration,
    /// Whether the gateway is addressed with `http://`, which is for this machine only.
    pub(super) plain_http: bool,
    /// Who is believed beside the authorities that the machine knows.
    pub(super) authorities: Vec<Certificate>,
}

/// An HTTP answer as far as it came.
pub(super) struct Received {
    pub(super) http_status: u16,
    /// Absent when it was cut off, too long, or did not come in time.
    pub(super) body: Option<Vec<u8>>,
    pub(super) trace_id: Option<String>,
    /// The time of the gateway's clock, in whole seconds.
    pub(super) sent_at: Option<DateTime<Utc>>,
}

/// Why there is no HTTP answer.
pub(super) enum NotReceived {
    /// No byte of the request was written.
    NotConnected(ConnectFailure),
    /// It may have been written.
    Lost(Lost),
}

/// Chooses the cryptography of every TLS connection of this process. Calling it again changes nothing.
pub fn install_crypto() {
    // An error means that a provider is installed already, by us or by the program around us.
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
}

/// The HTTP client of one shop.
pub(super) fn build(config: TransportConfig) -> Result<Client, String> {
    install_crypto();
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, config.bearer);
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let builder = ClientBuilder::new()
        .default_headers(headers)
        .user_agent(USER_AGENT)
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .no_proxy()
        .referer(false)
        .http1_only()
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .connect_timeout(config.connect_timeout)
        // From connecting to the last byte of the body. imoje may think for long before the first byte, so a separate limit
        // on silence would only turn slow answers into lost ones.
        .timeout(config.request_timeout)
        .https_only(!config.plain_http);
    let builder = if config.plain_http {
        // Without this reqwest loads the certificates of the machine even for http, and fails where there are none.
        builder.tls_certs_only([])
    } else {
        builder.tls_certs_merge(config.authorities)
    };
    builder.build().map_err(describe)
}

/// `POST` with a JSON body, ready to be sent.
pub(super) fn json_post(client: &Client, url: url::Url, json: Vec<u8>) -> Result<Request, String> {
    client
        .post(url)
        .header(CONTENT_TYPE, "application/json")
        .body(json)
        .build()
        .map_err(describe)
}

/// `GET`, ready to be sent.
pub(super) fn get(client: &Client, url: url::Url) -> Result<Request, String> {
    client.get(url).build().map_err(describe)
}

/// `DELETE`, ready to be sent.
pub(super) fn delete(client: &Client, url: url::Url) -> Result<Request, String> {
    client.delete(url).build().map_err(describe)
}

/// Sends `request` once and reads the answer.
///
/// A body that does not come to its end is absent and no error: the status has come, and it says something.
pub(super) async fn send(client: &Client, request: Request) -> Result<Received, NotReceived> {
    let received = send_unopened(client, request).await?;
    Ok(Received {
        body: received.body.map(wire::opened),
        ..received
    })
}

/// As [`send`], with the body as it came.
pub(super) async fn send_unopened(
    client: &Client,
    request: Request,
) -> Result<Received, NotReceived> {
    let response = client.execute(request).await.map_err(not_received)?;
    Ok(Received {
        http_status: response.status().as_u16(),
        trace_id: trace_id(&response),
        sent_at: sent_at(&response),
        body: read_body(response).await,
    })
}

async fn read_body(mut response: Response) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        if body.len() + chunk.len() > BODY_BYTES_MAX {
            return None;
        }
        body.extend_from_slice(&chunk);
    }
    Some(body)
}

fn trace_id(response: &Response) -> Option<String> {
    let text = response.headers().get("x-trace-id")?.to_str().ok()?;
    let plain = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (plain && (1..=TRACE_ID_LENGTH_MAX).contains(&text.len())).then(|| text.to_owned())
}

/// The header `Date` (RFC 9110, section 6.6.1).
fn sent_at(response: &Response) -> Option<DateTime<Utc>> {
    let text = response.headers().get(DATE)?.to_str().ok()?;
    DateTime::parse_from_rfc2822(text)
        .ok()
        .map(|date| date.with_timezone(&Utc))
}

fn not_received(error: reqwest::Error) -> NotReceived {
    if error.is_connect() {
        let step = if error.is_timeout() {
            ConnectStep::Timeout
        } else if error.is_dns() {
            ConnectStep::Name
        } else if is_tls(&error) {
            ConnectStep::Tls
        } else {
            ConnectStep::Tcp
        };
        NotReceived::NotConnected(ConnectFailure {
            step,
            detail: describe(error),
        })
    } else if error.is_timeout() {
        NotReceived::Lost(Lost::Timeout)
    } else {
        NotReceived::Lost(Lost::Broken(describe(error)))
    }
}

/// Whether a TLS error is among the causes. An I/O error hides its own cause from `source`, so it is asked separately.
fn is_tls(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<rustls::Error>() {
            return true;
        }
        let inner = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}

/// The error and its causes in one line, without the address: its path names the merchant and the transaction.
fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
