//! HTTP, inbound only: notices from imoje, health, metrics. It stores and shows; it never changes a charge.

mod health;
mod intake;
mod notices;
mod scrape;
mod sources;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, DefaultBodyLimit};
use axum::routing::{get, post};
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
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

/// How long nothing is accepted after the listener failed, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Serves until `stop` is cancelled, then finishes the requests that have begun. The head of a request may take as long as the body of a
/// notice, and so may a connection be idle.
///
/// # Errors
/// When what has come in could not be stored to the end.
pub async fn serve(
    listener: TcpListener,
    state: HttpState,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let (intake, writer) = Intake::open(state.store.clone(), state.clock.clone());
    let mut connections = http1::Builder::new();
    connections
        .timer(TokioTimer::new())
        .header_read_timeout(state.rules.timeout);
    let router = router(state, intake);
    let graceful = GracefulShutdown::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "couldn't accept a connection");
                let _ = stop
                    .run_until_cancelled(tokio::time::sleep(ACCEPT_PAUSE))
                    .await;
                continue;
            }
        };
        let routes = router.clone().layer(Extension(ConnectInfo(peer)));
        let service = TowerToHyperService::new(routes);
        let connection = connections.serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
    drop(listener);
    graceful.shutdown().await;
    // The writer ends when nobody can give it anything any more.
    drop(router);
    writer.await.map_err(std::io::Error::other)
}
