//! Notices: check the signature over the raw bytes, store in the inbox, answer 200 after the commit.
//!
//! Nothing here decides about money. The answers tell the sender nothing about the cause of a refusal.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::intake::{Intake, NotStored};
use super::sources::{Gate, Refused};
use super::{HttpState, NOTICE_BYTES_MAX, ShopDoor};
use crate::domain::card_number;
use crate::domain::id::AttemptId;
use crate::gateway::{
    AXEPTA_SIGNATURE_HEADER, NoticeKind, SIGNATURE_HEADER, parse_notice, verify_notice,
    verify_notice_token,
};
use crate::metrics::NoticeOutcome;
use crate::store::inbox::NewNotice;

/// What the handlers of notices need.
#[derive(Clone)]
pub(super) struct Reception {
    pub http: HttpState,
    pub intake: Intake,
    pub gate: Arc<Gate>,
}

/// `POST /imoje/notifications`: the address that is set in imoje's panel.
pub(super) async fn at_the_shop_address(
    State(state): State<Reception>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    state.let_in(peer, &headers, body, None).await
}

/// `POST /imoje/notifications/{token}`: the address that was sent with one debit.
pub(super) async fn at_an_attempt_address(
    State(state): State<Reception>,
    Path(token): Path<String>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    state.let_in(peer, &headers, body, Some(&token)).await
}

/// What became of a notice, and what its sender is told.
type Taken = (NoticeOutcome, Response);

impl Reception {
    async fn let_in(
        &self,
        peer: SocketAddr,
        headers: &HeaderMap,
        body: Body,
        token: Option<&str>,
    ) -> Response {
        let (outcome, answer) = match self.gate.admit(peer, headers, Instant::now()) {
            Ok(sender) => {
                let taken = self.take(headers, body, token).await;
                if taken.0.is_senders_fault() {
                    self.gate.note_failure(sender, Instant::now());
                }
                taken
            }
            Err(Refused::Stranger) => refused(NoticeOutcome::Stranger, StatusCode::FORBIDDEN),
            Err(Refused::Offender) => {
                refused(NoticeOutcome::Limited, StatusCode::TOO_MANY_REQUESTS)
            }
        };
        self.http.metrics.count_notice(outcome);
        answer
    }

    async fn take(&self, headers: &HeaderMap, body: Body, token: Option<&str>) -> Taken {
        let body = match tokio::time::timeout(self.gate.timeout(), read(headers, body)).await {
            Ok(Ok(body)) => body,
            Ok(Err(status)) => return refused(NoticeOutcome::Unreadable, status),
            Err(_) => return refused(NoticeOutcome::TooSlow, StatusCode::REQUEST_TIMEOUT),
        };
        let doors = Arc::clone(&self.http.doors.borrow());
        let Some((door, attempt_id)) = opened(&doors, headers, &body, token) else {
            return refused(NoticeOutcome::BadSignature, StatusCode::UNAUTHORIZED);
        };
        let Some(notice) = read_notice(door, attempt_id, &body) else {
            tracing::warn!(shop = %door.shop, bytes = body.len(), "a signed notice is not readable");
            return refused(NoticeOutcome::Unreadable, StatusCode::BAD_REQUEST);
        };
        match self.intake.store(notice).await {
            Ok(true) => (NoticeOutcome::Accepted, stored()),
            Ok(false) => (NoticeOutcome::Duplicate, stored()),
            Err(NotStored) => refused(NoticeOutcome::Unavailable, StatusCode::SERVICE_UNAVAILABLE),
        }
    }
}

fn refused(outcome: NoticeOutcome, status: StatusCode) -> Taken {
    (outcome, status.into_response())
}

/// A notice as it is stored, if its body can be read.
fn read_notice(door: &ShopDoor, attempt_id: Option<AttemptId>, body: &Bytes) -> Option<NewNotice> {
    let parsed = parse_notice(body).ok()?;
    Some(NewNotice {
        shop: door.shop.clone(),
        body_sha256: Sha256::digest(body).into(),
        body: card_number::scrub(&String::from_utf8_lossy(body)).replace('\0', ""),
        order_id: parsed.order_id,
        transaction_id: parsed.transaction_id,
        attempt_id,
        is_refund: parsed.kind == Some(NoticeKind::Refund),
        refund_of: parsed.original_transaction_id,
        says_settled: parsed.status.as_deref() == Some("settled"),
    })
}

/// What imoje takes for "received".
fn stored() -> Response {
    (
        [(header::CONTENT_TYPE, "application/json")],
        r#"{"status":"ok"}"#,
    )
        .into_response()
}

/// The whole body, or the status to answer with.
async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, StatusCode> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > NOTICE_BYTES_MAX) {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    axum::body::to_bytes(body, NOTICE_BYTES_MAX)
        .await
        .map_err(|error| {
            let is_too_large = std::error::Error::source(&error)
                .is_some_and(|source| source.to_string().contains("length limit exceeded"));
            if is_too_large {
                StatusCode::PAYLOAD_TOO_LARGE
            } else {
                StatusCode::BAD_REQUEST
            }
        })
}

/// The shop whose key signed the body, and the attempt that the address names.
fn opened<'a>(
    doors: &'a [ShopDoor],
    headers: &HeaderMap,
    body: &[u8],
    token: Option<&str>,
) -> Option<(&'a ShopDoor, Option<AttemptId>)> {
    let signature = [SIGNATURE_HEADER, AXEPTA_SIGNATURE_HEADER]
        .into_iter()
        .find_map(|header| headers.get(header))?
        .to_str()
        .ok()?;
    let door = doors
        .iter()
        .find(|door| verify_notice(signature, body, &door.credentials, &door.algorithms).is_ok())?;
    // The signature is the authority. A token that does not fit, made with an older key for example, only names nothing.
    let attempt_id = token.and_then(|token| verify_notice_token(token, door.keys()));
    Some((door, attempt_id))
}
