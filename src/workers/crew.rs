//! The crew: all workers, each in its own loop, until they are told to stop.
//!
//! A loop runs its worker, then waits for the next tick of its cron expression or for a hint from the database, whichever comes
//! first. Stopping is a drain: what is in flight is finished and recorded.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::domain::tick::Tick;
use crate::reconnect::Delays;
use crate::store::{Store, Wake};
use crate::workers::charger::Charger;
use crate::workers::notifier::Notifier;
use crate::workers::resolver::Resolver;
use crate::workers::scheduler::Scheduler;

/// The workers of one daemon.
#[derive(Clone)]
pub struct Workers {
    /// Plans.
    pub scheduler: Scheduler,
    /// Debits.
    pub charger: Charger,
    /// Makes final.
    pub resolver: Resolver,
    /// Tells.
    pub notifier: Notifier,
}

/// When each worker looks by itself.
#[derive(Debug, Clone)]
pub struct Ticks {
    /// The scheduler.
    pub scheduler: Tick,
    /// The charger.
    pub charger: Tick,
    /// The resolver.
    pub resolver: Tick,
    /// The notifier.
    pub notifier: Tick,
}

/// How much one run of a worker handled; nothing is 0.
type Handled = usize;

impl Workers {
    async fn run_once(&self, worker: Wake, now: DateTime<Utc>) -> anyhow::Result<Handled> {
        Ok(match worker {
            Wake::Scheduler => {
                let report = self.scheduler.run_once(now).await?;
                report_if(&report, report.planned + report.completed, worker)
            }
            Wake::Charger => {
                let report = self.charger.run_once(now).await?;
                report_if(&report, report.permitted + report.put_off, worker)
            }
            Wake::Resolver => {
                let report = self.resolver.run_once(now).await?;
                let handled =
                    report.notices + report.read + report.cases_opened + report.written_off;
                report_if(&report, handled, worker)
            }
            Wake::Notifier => {
                let report = self.notifier.run_once(now).await?;
                report.logged + report.posted + report.refused
            }
        })
    }
}

fn report_if(report: &impl std::fmt::Debug, handled: Handled, worker: Wake) -> Handled {
    if handled > 0 {
        tracing::debug!(worker = worker.as_str(), ?report, "worker run");
    }
    handled
}

/// Running workers.
pub struct Crew {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Crew {
    /// Starts every worker of `workers`. They stop when `stop` is cancelled.
    pub fn start(
        workers: Workers,
        ticks: &Ticks,
        store: &Store,
        clock: &Clock,
        stop: CancellationToken,
    ) -> Self {
        let tracker = TaskTracker::new();
        let hints = Hints::default();
        for (worker, tick) in [
            (Wake::Scheduler, &ticks.scheduler),
            (Wake::Charger, &ticks.charger),
            (Wake::Resolver, &ticks.resolver),
            (Wake::Notifier, &ticks.notifier),
        ] {
            tracker.spawn(keep_running(
                workers.clone(),
                worker,
                tick.clone(),
                clock.clone(),
                store.clone(),
                hints.clone(),
                stop.clone(),
            ));
        }
        tracker.spawn(listen(store.clone(), hints, stop.clone()));
        tracker.close();
        Self { tracker, stop }
    }

    /// Lets every worker finish what it has begun, and waits for that.
    pub async fn drain(self) {
        self.stop.cancel();
        self.tracker.wait().await;
    }
}

/// One hint for each worker.
#[derive(Clone, Default)]
struct Hints(Arc<[Notify; Wake::ALL.len()]>);

impl Hints {
    fn of(&self, worker: Wake) -> &Notify {
        match worker {
            Wake::Scheduler => &self.0[0],
            Wake::Charger => &self.0[1],
            Wake::Resolver => &self.0[2],
            Wake::Notifier => &self.0[3],
        }
    }
}

async fn keep_running(
    workers: Workers,
    worker: Wake,
    tick: Tick,
    clock: Clock,
    store: Store,
    hints: Hints,
    stop: CancellationToken,
) {
    let mut failed = Delays::new(Duration::from_millis(500), Duration::from_secs(30));
    while !stop.is_cancelled() {
        let started_at = clock.now();
        match workers.run_once(worker, started_at).await {
            Ok(handled) => {
                failed.reset();
                note_run(&store, worker, started_at, clock.now(), handled).await;
            }
            Err(error) => {
                tracing::error!(
                    worker = worker.as_str(),
                    error = format!("{error:#}"),
                    "worker run failed"
                );
                let pause = tokio::time::sleep(failed.next_delay());
                if stop.run_until_cancelled(pause).await.is_none() {
                    break;
                }
                continue;
            }
        }
        let next = tick.next_after(clock.now());
        let wait = async {
            match next {
                Some(next) => clock.sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = wait => {}
            () = hints.of(worker).notified() => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Notes that the worker ran, for the view of operators. A failure is only logged: it says nothing about the work.
async fn note_run(
    store: &Store,
    worker: Wake,
    started_at: DateTime<Utc>,
    ended_at: DateTime<Utc>,
    handled: Handled,
) {
    if let Err(error) = store.note_run(worker, started_at, ended_at, handled).await {
        tracing::warn!(%error, worker = worker.as_str(), "couldn't note a worker's run");
    }
}

/// Passes hints from the database on to the workers, reconnecting as long as it takes: without it they still look by themselves.
async fn listen(store: Store, hints: Hints, stop: CancellationToken) {
    let mut delays = Delays::new(Duration::from_millis(200), Duration::from_secs(30));
    while !stop.is_cancelled() {
        let heard = async {
            let mut listener = store.listen().await?;
            delays.reset();
            loop {
                let notification = listener
                    .recv()
                    .await
                    .map_err(crate::store::StoreError::from)?;
                if let Some(worker) = Wake::ALL
                    .into_iter()
                    .find(|worker| worker.as_str() == notification.payload())
                {
                    hints.of(worker).notify_one();
                }
            }
            #[expect(unreachable_code, reason = "gives the block its type")]
            Ok::<(), crate::store::StoreError>(())
        };
        match stop.run_until_cancelled(heard).await {
            None => break,
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::warn!(%error, "lost the connection for hints"),
        }
        let pause = tokio::time::sleep(delays.next_delay());
        if stop.run_until_cancelled(pause).await.is_none() {
            break;
        }
    }
}
