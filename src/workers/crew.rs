//! The crew: all workers, each in its own loop, until they are told to stop.
//!
//! A loop runs its worker, then waits for the next tick of its cron expression or for a hint from the database, whichever comes
//! first. Stopping is a drain: what is in flight is finished and recorded.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::domain::tick::Tick;
use crate::reconnect::Delays;
use crate::store::{Store, StoreError, Wake};
use crate::workers::caretaker::Caretaker;
use crate::workers::charger::Charger;
use crate::workers::notifier::Notifier;
use crate::workers::preflight::Preflight;
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
    /// Clears away.
    pub caretaker: Caretaker,
    /// Looks at cards, when the caretaker is through.
    pub preflight: Preflight,
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
    /// The caretaker.
    pub caretaker: Tick,
}

/// How much one run of a worker handled; nothing is 0.
type Handled = usize;

/// How often the runs of a worker with nothing to do are noted.
const IDLE_NOTE_EVERY: TimeDelta = TimeDelta::seconds(30);

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
            Wake::Caretaker => {
                let report = self.caretaker.run_once(now).await?;
                let cards = self.preflight.run_once(now).await?;
                let cleared = report_if(&report, report.archived + report.dropped, worker);
                cleared + report_if(&cards, cards.looked_at, worker)
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
    loops: JoinSet<()>,
    stop: CancellationToken,
}

impl Crew {
    /// Starts every worker of `workers`, each when `ticks` says and when the database hints at work.
    pub fn start(workers: &Workers, ticks: &Ticks, store: &Store, clock: &Clock) -> Self {
        let stop = workers.charger.stop.clone();
        let hints = Hints::default();
        let mut loops = JoinSet::new();
        for (worker, tick) in [
            (Wake::Scheduler, &ticks.scheduler),
            (Wake::Charger, &ticks.charger),
            (Wake::Resolver, &ticks.resolver),
            (Wake::Notifier, &ticks.notifier),
            (Wake::Caretaker, &ticks.caretaker),
        ] {
            let one = Loop {
                workers: workers.clone(),
                worker,
                tick: tick.clone(),
                clock: clock.clone(),
                store: store.clone(),
                hints: hints.clone(),
                stop: stop.clone(),
            };
            loops.spawn(one.keep_running());
        }
        loops.spawn(listen(store.clone(), hints, stop.clone()));
        Self { loops, stop }
    }

    /// Waits for a loop to end by itself, which none should.
    pub async fn broken(&mut self) {
        match self.loops.join_next().await {
            Some(Err(error)) => tracing::error!(%error, "a worker broke"),
            Some(Ok(())) | None => tracing::error!("a worker ended by itself"),
        }
    }

    /// Lets every worker finish what it has begun, and waits for that.
    pub async fn drain(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.loops.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a worker broke");
            }
        }
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
            Wake::Caretaker => &self.0[4],
        }
    }
}

/// One worker, running.
struct Loop {
    workers: Workers,
    worker: Wake,
    tick: Tick,
    clock: Clock,
    store: Store,
    hints: Hints,
    stop: CancellationToken,
}

impl Loop {
    async fn keep_running(self) {
        let mut failed = Delays::new(Duration::from_millis(500), Duration::from_secs(30));
        let mut noted_at = None;
        while !self.stop.is_cancelled() {
            let started_at = self.clock.now();
            match self.workers.run_once(self.worker, started_at).await {
                Ok(handled) => {
                    failed.reset();
                    let ended_at = self.clock.now();
                    if is_noteworthy(handled, noted_at, ended_at)
                        && self.note_run(started_at, ended_at, handled).await
                    {
                        noted_at = Some(ended_at);
                    }
                    self.wait().await;
                }
                Err(error) => {
                    let worker = self.worker.as_str();
                    tracing::error!(worker, error = format!("{error:#}"), "worker run failed");
                    let pause = tokio::time::sleep(failed.next_delay());
                    self.stop.run_until_cancelled(pause).await;
                }
            }
        }
    }

    /// Notes that the worker ran, for operators and for health, and returns whether it is noted. A failure is only logged: it says
    /// nothing about the work.
    async fn note_run(
        &self,
        started_at: DateTime<Utc>,
        ended_at: DateTime<Utc>,
        handled: Handled,
    ) -> bool {
        let noted = self
            .store
            .note_run(self.worker, started_at, ended_at, handled)
            .await;
        if let Err(error) = &noted {
            let worker = self.worker.as_str();
            tracing::warn!(%error, worker, "couldn't note a worker's run");
        }
        noted.is_ok()
    }

    /// Until the next tick, a hint, or the end.
    async fn wait(&self) {
        let next = self.tick.next_after(self.clock.now());
        let tick = async {
            match next {
                Some(next) => self.clock.sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tick => {}
            () = self.hints.of(self.worker).notified() => {}
            () = self.stop.cancelled() => {}
        }
    }
}

/// Whether a run is noted: one that handled something always, of the others one in a while.
fn is_noteworthy(
    handled: Handled,
    noted_at: Option<DateTime<Utc>>,
    ended_at: DateTime<Utc>,
) -> bool {
    // A clock that was set back is no reason to wait for it.
    handled > 0 || noted_at.is_none_or(|noted_at| (ended_at - noted_at).abs() >= IDLE_NOTE_EVERY)
}

/// Passes hints from the database on to the workers, reconnecting as long as it takes: without it they still look by themselves.
async fn listen(store: Store, hints: Hints, stop: CancellationToken) {
    let mut delays = Delays::new(Duration::from_millis(200), Duration::from_secs(30));
    while !stop.is_cancelled() {
        let heard = pass_on(&store, &hints, &mut delays);
        match stop.run_until_cancelled(heard).await {
            None => break,
            Some(error) => tracing::warn!(%error, "lost the connection for hints"),
        }
        let pause = tokio::time::sleep(delays.next_delay());
        if stop.run_until_cancelled(pause).await.is_none() {
            break;
        }
    }
}

/// Passes hints on until the connection fails, and says how.
async fn pass_on(store: &Store, hints: &Hints, delays: &mut Delays) -> StoreError {
    let mut listener = match store.listen().await {
        Ok(listener) => listener,
        Err(error) => return error,
    };
    delays.reset();
    loop {
        let notification = match listener.recv().await {
            Ok(notification) => notification,
            Err(error) => return error.into(),
        };
        let hinted = Wake::ALL
            .into_iter()
            .find(|worker| worker.as_str() == notification.payload());
        if let Some(worker) = hinted {
            hints.of(worker).notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_noted_at_once_and_idleness_now_and_then() {
        let noted_at: DateTime<Utc> = "2027-01-01T07:00:00Z".parse().expect("a time");
        for (handled, noted_at, seconds, expected) in [
            (0, None, 0, true),
            (1, Some(noted_at), 0, true),
            (0, Some(noted_at), 5, false),
            (0, Some(noted_at), 29, false),
            (0, Some(noted_at), 30, true),
            (0, Some(noted_at), -3600, true),
        ] {
            let ended_at = noted_at.unwrap_or_default() + TimeDelta::seconds(seconds);
            assert_eq!(
                is_noteworthy(handled, noted_at, ended_at),
                expected,
                "{handled} handled, {seconds} s after {noted_at:?}"
            );
        }
    }
}
