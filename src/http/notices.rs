//! Notices: check the signature over the raw bytes, store in the inbox, answer 200 after the commit.
//!
//! Nothing here decides about money. The answers tell the sender nothing about the cause of a refusal.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::intake::{Intake, NotStored};
use super::{HttpState, NOTICE_BYTES_MAX, ShopDoor};
use crate::domain::card_number;
use crate::domain::id::AttemptId;
use crate::gateway::{
    NoticeKind, SIGNATURE_HEADER, parse_notice, verify_notice, verify_notice_token,
};
use crate::metrics::NoticeOutcome;
use crate::store::inbox::NewNotice;

/// What the handlers of notices need.
#[derive(Clone)]
pub(super) struct Reception {
    pub http: HttpState,
    pub intake: Intake,
}

/// `POST /imoje/notifications`: the address that is set in imoje's panel.
pub(super) async fn at_the_shop_address(
    State(state): State<Reception>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    take(&state, &headers, body, None).await
}

/// `POST /imoje/notifications/{token}`: the address that was sent with one debit.
pub(super) async fn at_an_attempt_address(
    State(state): State<Reception>,
    Path(token): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    take(&state, &headers, body, Some(&token)).await
}

async fn take(
    Reception { http, intake }: &Reception,
    headers: &HeaderMap,
    body: Body,
    token: Option<&str>,
) -> Response {
    let body = match read(headers, body).await {
        Ok(body) => body,
        Err(status) => {
            http.metrics.count_notice(NoticeOutcome::Unreadable);
            return status.into_response();
        }
    };
    let doors = Arc::clone(&http.doors.borrow());
    let Some((door, attempt_id)) = opened(&doors, headers, &body, token) else {
        http.metrics.count_notice(NoticeOutcome::BadSignature);
        return StatusCode::UNAUTHORIZED.into_response();
    };
    let Ok(parsed) = parse_notice(&body) else {
        http.metrics.count_notice(NoticeOutcome::Unreadable);
        tracing::warn!(shop = %door.shop, bytes = body.len(), "a signed notice is not readable");
        return StatusCode::BAD_REQUEST.into_response();
    };
    let notice = NewNotice {
        shop: door.shop.clone(),
        body_sha256: Sha256::digest(&body).into(),
        body: card_number::scrub(&String::from_utf8_lossy(&body)).replace('\0', ""),
        order_id: parsed.order_id,
        transaction_id: parsed.transaction_id,
        attempt_id,
        is_refund: parsed.kind == Some(NoticeKind::Refund),
        refund_of: parsed.original_transaction_id,
        says_settled: parsed.status.as_deref() == Some("settled"),
    };
    let (outcome, answer) = match intake.store(notice).await {
        Ok(true) => (NoticeOutcome::Accepted, stored()),
        Ok(false) => (NoticeOutcome::Duplicate, stored()),
        Err(NotStored) => (
            NoticeOutcome::Unavailable,
            StatusCode::SERVICE_UNAVAILABLE.into_response(),
        ),
    };
    http.metrics.count_notice(outcome);
    answer
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
    let signature = headers.get(SIGNATURE_HEADER)?.to_str().ok()?;
    let door = doors
        .iter()
        .find(|door| verify_notice(signature, body, &door.credentials, &door.algorithms).is_ok())?;
    // The signature is the authority. A token that does not fit, made with an older key for example, only names nothing.
    let attempt_id = token.and_then(|token| verify_notice_token(token, door.keys()));
    Some((door, attempt_id))
}
