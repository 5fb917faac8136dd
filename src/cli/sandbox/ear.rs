//! Listening for the notices of experiments, where the daemon would listen.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use chrono::{DateTime, Utc};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::clock::Clock;
use crate::gateway::{
    AXEPTA_SIGNATURE_HEADER, Algorithm, NoticeCredentials, ParsedNotice, SIGNATURE_HEADER,
    parse_notice, verify_notice,
};
use crate::http::NOTICE_BYTES_MAX;

/// How many notices may wait to be looked at; more than the experiments of a run cause.
const WAITING_MAX: usize = 256;

/// A notice about an experiment.
pub(super) struct Heard {
    /// When it came.
    pub at: DateTime<Utc>,
    /// What it says.
    pub notice: ParsedNotice,
}

/// What listens, until it is dropped.
pub(super) struct Ear {
    heard: mpsc::Receiver<Heard>,
    unsigned: Arc<AtomicU32>,
    _close_on_drop: DropGuard,
}

#[derive(Clone)]
struct Door {
    credentials: Arc<NoticeCredentials>,
    /// What the order ids of the experiments begin with.
    order_ids: Arc<str>,
    clock: Clock,
    told: mpsc::Sender<Heard>,
    unsigned: Arc<AtomicU32>,
}

impl Ear {
    /// Listens at `address` for notices about orders that begin with `order_ids`.
    pub(super) async fn open(
        address: SocketAddr,
        credentials: NoticeCredentials,
        order_ids: &str,
        clock: &Clock,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let (told, heard) = mpsc::channel(WAITING_MAX);
        let unsigned = Arc::<AtomicU32>::default();
        let door = Door {
            credentials: Arc::new(credentials),
            order_ids: order_ids.into(),
            clock: clock.clone(),
            told,
            unsigned: Arc::clone(&unsigned),
        };
        let router = Router::new()
            .route("/imoje/notifications", post(take))
            .layer(DefaultBodyLimit::max(NOTICE_BYTES_MAX))
            .with_state(door);
        let closing = CancellationToken::new();
        let closed = closing.clone().cancelled_owned();
        tokio::spawn(async move {
            let served = axum::serve(listener, router)
                .with_graceful_shutdown(closed)
                .await;
            if let Err(error) = served {
                tracing::warn!(%error, "notices are not heard any more");
            }
        });
        Ok(Self {
            heard,
            unsigned,
            _close_on_drop: closing.drop_guard(),
        })
    }

    /// The next notice.
    pub(super) async fn next(&mut self) -> Option<Heard> {
        self.heard.recv().await
    }

    /// How many came in until now that imoje did not sign.
    pub(super) fn unsigned(&self) -> u32 {
        self.unsigned.load(Ordering::Relaxed)
    }
}

async fn take(State(door): State<Door>, headers: HeaderMap, body: Bytes) -> Response {
    let at = door.clock.now();
    if !door.is_signed(&headers, &body) {
        door.unsigned.fetch_add(1, Ordering::Relaxed);
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let is_ours = |notice: &ParsedNotice| {
        let order_id = notice.order_id.as_deref();
        order_id.is_some_and(|order_id| order_id.starts_with(&*door.order_ids))
    };
    let taken = match parse_notice(&body) {
        Ok(notice) if is_ours(&notice) => door.told.try_send(Heard { at, notice }).is_ok(),
        Ok(_) | Err(_) => false,
    };
    if taken {
        (
            [(header::CONTENT_TYPE, "application/json")],
            r#"{"status":"ok"}"#,
        )
            .into_response()
    } else {
        // It may be for the daemon that is to listen here afterwards: imoje has to tell it again.
        StatusCode::SERVICE_UNAVAILABLE.into_response()
    }
}

impl Door {
    fn is_signed(&self, headers: &HeaderMap, body: &[u8]) -> bool {
        [SIGNATURE_HEADER, AXEPTA_SIGNATURE_HEADER]
            .into_iter()
            .find_map(|header| headers.get(header))
            .and_then(|signature| signature.to_str().ok())
            .is_some_and(|signature| {
                verify_notice(signature, body, &self.credentials, &Algorithm::ALL).is_ok()
            })
    }
}
