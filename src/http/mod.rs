//! HTTP, inbound only: notices from imoje, health, metrics. It stores and shows; it never changes a charge.

mod health;
mod intake;
mod notices;
mod scrape;
mod sources;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::domain::shop::ShopName;
use crate::gateway::{Algorithm, NoticeCredentials};
use crate::metrics::Metrics;
use crate::store::Store;
use intake::Intake;
use notices::Reception;
use sources::Gate;

pub use sources::NoticeRules;

/// The largest notice that is read, in bytes.
pub const NOTICE_BYTES_MAX: usize = 64 * 1024;

/// What the handlers need.
#[derive(Clone)]
pub struct HttpState {
    /// The books.
    pub store: Store,
    /// Stamps notices.
    pub clock: Clock,
    /// What is counted and shown.
    pub metrics: Metrics,
    /// Whose notices are taken; the sender changes them when the configuration is read again.
    pub doors: watch::Receiver<Arc<[ShopDoor]>>,
    /// Who may send notices.
    pub rules: NoticeRules,
    /// How long ago every worker must have finished for the daemon to be ready.
    pub worker_lag_max: chrono::TimeDelta,
}

/// What a shop's notices are checked against.
pub struct ShopDoor {
    /// The shop.
    pub shop: ShopName,
    /// What the signature is checked against.
    pub credentials: NoticeCredentials,
    /// Which algorithms are believed.
    pub algorithms: Vec<Algorithm>,
}

impl ShopDoor {
    /// The keys that sign notices and make their addresses unguessable.
    fn keys(&self) -> &[SecretString] {
        &self.credentials.service_keys
    }
}

/// The routes.
fn router(http: HttpState, intake: Intake) -> Router {
    let notices = Router::new()
        .route("/imoje/notifications", post(notices::at_the_shop_address))
        .route(
            "/imoje/notifications/{token}",
            post(notices::at_an_attempt_address),
        )
        // The handlers limit the body themselves, to tell one that is too large from one that broke off.
        .layer(DefaultBodyLimit::disable())
        .with_state(Reception {
            gate: Arc::new(Gate::new(http.rules.clone())),
            http: http.clone(),
            intake,
        });
    Router::new()
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/metrics", get(scrape::metrics))
        .with_state(http)
        .merge(notices)
}

/// Serves until `stop` is cancelled, then finishes the requests that have begun.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    state: HttpState,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let (intake, writer) = Intake::open(state.store.clone(), state.clock.clone());
    let service = router(state, intake).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service)
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .await?;
    writer.await.map_err(std::io::Error::other)
}
