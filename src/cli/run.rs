//! `cykl run`: the daemon. It charges until it is told to stop, then drains.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cli::context::{Context, Database};
use crate::cli::{CliError, Exit, GlobalArgs, Outcome, daemon, journal};
use crate::config::Config;
use crate::domain::id::FenceId;
use crate::http::{self, HttpState, ShopDoor};
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::workers::charger::Ground;
use crate::workers::crew::Crew;

pub(super) async fn run(global: &GlobalArgs) -> Outcome {
    let context = Context::new(global)?;
    let signals = Signals::listen()?;
    let database = context.connect().await?;
    let outcome = serve(global, context, &database, signals).await;
    let closed = database.close().await;
    let exit = outcome?;
    closed?;
    Ok(exit)
}

/// What the operator or systemd asks for.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

/// What to do next.
enum Asked {
    Stop,
    Reload,
    Broken,
}

impl Signals {
    fn listen() -> Result<Self, CliError> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| CliError::internal(error).context("couldn't listen for signals"))
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    async fn asked(&mut self, crew: &mut Crew) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.hang_up.recv() => Asked::Reload,
            () = crew.broken() => Asked::Broken,
        }
    }
}

async fn serve(
    global: &GlobalArgs,
    mut context: Context,
    database: &Database,
    mut signals: Signals,
) -> Outcome {
    let store = &database.store;
    if context.config.database.migrate {
        store.migrate().await?;
    }
    store.check_schema().await?;
    let fence_id = pass_fence(&context, store).await?;
    let ground = Ground::new(open_journal(&context, store).await?);
    let metrics = daemon::metrics(&context.config);
    let (doors, open_doors) = watch::channel(daemon::doors(&context.config));
    let door = Door::open(&context, store, &metrics, open_doors).await?;
    let watchdog = tokio::spawn(feed_watchdog(store.clone()));
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        shops = context.config.shops.len(),
        listen = %door.address,
        "started"
    );
    let exit = loop {
        let mut crew = start_crew(&context, store, &metrics, fence_id, &ground)?;
        tell_systemd(&[NotifyState::Ready]);
        match signals.asked(&mut crew).await {
            Asked::Stop => {
                tell_systemd(&[NotifyState::Stopping]);
                tracing::info!("stopping: nothing more is sent; what is in flight is finished");
                tokio::select! {
                    () = crew.drain() => tracing::info!("stopped"),
                    () = signals.stop() => tracing::warn!("told to stop twice: what is in flight stays in doubt"),
                }
                break Exit::Ok;
            }
            Asked::Broken => {
                // A worker that broke takes nobody with it: the others finish what they have begun.
                crew.drain().await;
                break Exit::Internal;
            }
            Asked::Reload => {
                if let Some(config) = reload(global, &context).await {
                    crew.drain().await;
                    context.config = config;
                    doors.send_replace(daemon::doors(&context.config));
                }
            }
        }
    };
    watchdog.abort();
    door.close().await;
    Ok(exit)
}

async fn pass_fence(context: &Context, store: &Store) -> Result<FenceId, CliError> {
    let shops = context.shop_identities();
    Ok(store
        .pass_fence(&shops, &context.actor, context.now())
        .await?)
}

/// Opens the journal, if one is kept, provided that the database has not gone back behind it.
async fn open_journal(context: &Context, store: &Store) -> Result<Journal, CliError> {
    if let Some(gap) = journal::gap(context, store).await? {
        return Err(CliError::config(gap));
    }
    let settings = &context.config.journal;
    let Some(dir) = settings.dir.clone() else {
        return Ok(Journal::none());
    };
    Journal::open(dir, settings.keep, context.now())
        .await
        .map_err(|error| {
            CliError::config(error)
                .hint("check journal.dir: nothing is sent that is not in the permit journal")
        })
}

fn start_crew(
    context: &Context,
    store: &Store,
    metrics: &Metrics,
    fence_id: FenceId,
    ground: &Ground,
) -> Result<Crew, CliError> {
    let stop = CancellationToken::new();
    let workers = daemon::workers(
        &context.config,
        store,
        &context.clock,
        metrics,
        fence_id,
        ground,
        stop,
    )
    .map_err(CliError::config)?;
    Ok(Crew::start(
        &workers,
        &daemon::ticks(&context.config),
        store,
        &context.clock,
    ))
}

/// The configuration as it is now, when it can take the place of the running one. Otherwise the running one stays.
async fn reload(global: &GlobalArgs, running: &Context) -> Option<Config> {
    let now = NotifyState::monotonic_usec_now().ok();
    tell_systemd(&[NotifyState::Reloading]);
    if let Some(now) = now {
        tell_systemd(&[now]);
    }
    let path = global.config.clone();
    let loaded = tokio::task::spawn_blocking(move || Config::load(path.as_deref())).await;
    let config = match loaded {
        Ok(Ok(config)) => config,
        Ok(Err(error)) => {
            tracing::error!(%error, "the new configuration is wrong; the running one stays");
            return None;
        }
        Err(error) => {
            tracing::error!(%error, "couldn't read the configuration; the running one stays");
            return None;
        }
    };
    let needs_restart = fixed(&config) != fixed(&running.config);
    if needs_restart {
        tracing::error!(
            "database, journal, http.listen, clock, log and the shops' identities change only with a restart; the running configuration stays"
        );
        return None;
    }
    tracing::info!("configuration read again");
    Some(config)
}

/// The settings that hold for the life of the process, as they are described, secrets left out.
fn fixed(config: &Config) -> Vec<(String, String)> {
    let holds = |key: &str| {
        ["database.", "journal.", "clock.", "log.", "http.listen"]
            .iter()
            .any(|fixed| key.starts_with(fixed))
            || [".environment", ".merchant_id", ".service_id"]
                .iter()
                .any(|fixed| key.ends_with(fixed))
    };
    let settings = config
        .describe()
        .iter()
        .filter(|setting| holds(&setting.key));
    settings
        .map(|setting| (setting.key.clone(), setting.value.clone()))
        .collect()
}

/// The HTTP server, open.
struct Door {
    address: std::net::SocketAddr,
    stop: CancellationToken,
    server: JoinHandle<std::io::Result<()>>,
}

impl Door {
    async fn open(
        context: &Context,
        store: &Store,
        metrics: &Metrics,
        doors: watch::Receiver<Arc<[ShopDoor]>>,
    ) -> Result<Self, CliError> {
        let listen = context.config.http.listen;
        let unopened = |error: std::io::Error| {
            CliError::unavailable(error)
                .context(format!("couldn't listen on http.listen = {listen}"))
        };
        let listener = TcpListener::bind(listen).await.map_err(unopened)?;
        let address = listener.local_addr().map_err(unopened)?;
        let state = HttpState {
            store: store.clone(),
            clock: context.clock.clone(),
            metrics: metrics.clone(),
            doors,
            rules: daemon::notice_rules(&context.config),
            worker_lag_max: daemon::worker_lag_max(&context.config),
        };
        let stop = CancellationToken::new();
        let server = tokio::spawn(http::serve(listener, state, stop.clone()));
        Ok(Self {
            address,
            stop,
            server,
        })
    }

    async fn close(self) {
        self.stop.cancel();
        match tokio::time::timeout(CLOSE_MAX, self.server).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::error!(%error, "the HTTP server failed"),
            Ok(Err(error)) => tracing::error!(%error, "the HTTP server broke"),
            Err(_) => tracing::warn!("an HTTP request did not end in time"),
        }
    }
}

/// How long a request may keep the HTTP server open.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// Tells systemd that the daemon works, as often as it asks for, each time after a round trip to the database.
async fn feed_watchdog(store: Store) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    loop {
        match store.ping().await {
            Ok(()) => tell_systemd(&[NotifyState::Watchdog]),
            Err(error) => tracing::warn!(%error, "the database does not answer the watchdog"),
        }
        tokio::time::sleep(limit / 3).await;
    }
}

fn tell_systemd(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "couldn't notify systemd");
    }
}
