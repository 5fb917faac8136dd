//! One process: the workers and the door of a daemon, in a runtime that can be taken away from them.

use std::net::SocketAddr;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use cykl::cli::daemon;
use cykl::clock::Clock;
use cykl::store::Store;
use cykl::workers::charger::Ground;
use cykl::workers::crew::Workers;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::database_proxy::DatabaseProxy;
use super::gateway_proxy::GatewayProxy;
use super::{Effects, Plan, Stage};
use crate::harness::{connect, http_state};

/// The most connections of a process: for its worker's two sides, its door, and people. Each learns every statement and type anew, so
/// more of them cost more than they save.
const CONNECTIONS: u32 = 4;

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stepped {
    /// Something was done, or could not be done for now.
    Moved,
    /// There was nothing to do.
    Idle,
    /// The process died.
    Crashed,
}

/// A process.
pub struct Instance {
    /// What it does to the world outside.
    pub effects: Arc<Effects>,
    /// Its workers, and its books, for what people do through it.
    pub workers: Workers,
    pub store: Store,
    /// Where it takes notices.
    pub door: SocketAddr,
    clock: Clock,
    /// By how much the clock is behind, and until when.
    behind: (TimeDelta, DateTime<Utc>),
    runtime: Option<Runtime>,
    _database: DatabaseProxy,
    _gateway: GatewayProxy,
}

impl Instance {
    /// Starts a process on `stage`, with which `plan` goes wrong. Its clock is ahead of the true time by `skew` and waits for it, or is
    /// behind and put right after an hour.
    pub async fn start(stage: &Stage, plan: Plan, skew: TimeDelta) -> Self {
        let effects = Arc::new(Effects::of(plan));
        let database = DatabaseProxy::before(&stage.world.database, Arc::clone(&effects));
        let gateway =
            GatewayProxy::open(stage.world.simulator.address(), Arc::clone(&effects)).await;
        let options = stage.world.database.clone().socket(database.directory());
        let config = stage.config(&format!("http://{}/v1/merchant", gateway.address()));
        let clock = Clock::manual(stage.now() + skew);
        let journal = stage.journal(clock.now()).await;
        let (metrics, fence_id) = (stage.world.metrics.clone(), stage.world.fence_id);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let its_clock = clock.clone();
        let built = runtime.spawn(async move {
            let store = connect(options, CONNECTIONS).await;
            let stop = CancellationToken::new();
            let workers = daemon::workers(
                &config,
                &store,
                &its_clock,
                &metrics,
                fence_id,
                &Ground::new(journal),
                stop.clone(),
            )
            .unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let door = listener.local_addr().unwrap();
            let rules = daemon::notice_rules(&config);
            let state = http_state(&store, &its_clock, &metrics, daemon::doors(&config), rules);
            tokio::spawn(cykl::http::serve(listener, state, stop));
            (store, workers, door)
        });
        let (store, workers, door) = built.await.unwrap();
        Self {
            effects,
            workers,
            store,
            door,
            clock,
            behind: (
                -skew.min(TimeDelta::zero()),
                stage.now() + TimeDelta::hours(1),
            ),
            runtime: Some(runtime),
            _database: database,
            _gateway: gateway,
        }
    }

    /// One round of every worker, as their loops would make it at `now`.
    pub async fn step(&self, now: DateTime<Utc>) -> Stepped {
        let workers = self.workers.clone();
        let now = self.look_at_clock(now);
        self.run(async move {
            let mut moved = false;
            // A failed run is logged by the loop and made again.
            moved |= (workers.scheduler.run_once(now).await)
                .map_or(true, |report| report.planned + report.completed > 0);
            moved |= (workers.charger.run_once(now).await)
                .map_or(true, |report| report.permitted + report.put_off > 0);
            moved |= (workers.resolver.run_once(now).await).map_or(true, |report| {
                report.notices + report.read + report.cases_opened + report.written_off > 0
            });
            moved |= (workers.notifier.run_once(now).await)
                .map_or(true, |report| report.logged + report.posted > 0);
            moved
        })
        .await
        .map_or(Stepped::Crashed, |moved| {
            if moved { Stepped::Moved } else { Stepped::Idle }
        })
    }

    /// Archives what is over and looks at the cards of what comes next, as once in a while.
    pub async fn clear_away(&self) {
        let (caretaker, preflight) = (
            self.workers.caretaker.clone(),
            self.workers.preflight.clone(),
        );
        let now = self.clock.now();
        // A failed run is logged by the loop and made again.
        let _ = self
            .run(async move {
                let _ = caretaker.run_once(now).await;
                let _ = preflight.run_once(now).await;
            })
            .await;
    }

    /// What its clock says at `now`.
    fn look_at_clock(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let (behind, until) = self.behind;
        let shown = if now < until { now - behind } else { now };
        let shown = shown.max(self.clock.now());
        self.clock.set(shown);
        shown
    }

    /// Does something in the process. `None` when it died meanwhile.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let runtime = self.runtime.as_ref().unwrap();
        let work = runtime.spawn(work);
        tokio::select! {
            biased;
            () = self.effects.crashed() => None,
            done = work => Some(done.unwrap()),
        }
    }
}

/// The process ends as by `kill -9`: nothing of it runs on, and its connections are cut.
impl Drop for Instance {
    fn drop(&mut self) {
        self.effects.crash();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
