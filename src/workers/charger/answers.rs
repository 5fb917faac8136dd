//! Recording answers: in groups, so that a commit is shared by many, and as they come in, so that few are lost with a crash.

use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, timeout_at};

use super::flight::Landed;
use super::{Charger, Report, Run};
use crate::domain::resolution::News;
use crate::reconnect::Delays;
use crate::store::StoreError;
use crate::store::resolution::Finding;
use crate::workers::count;
use crate::workers::tripwires::Source;

/// The largest group of answers.
const GROUP_MAX: usize = 1_000;

/// How long an answer waits for others at most. Short beside the answer time of any gateway; a crash meanwhile leaves it in doubt.
const GROUP_WAIT: Duration = Duration::from_millis(20);

/// The same where at least [`AHEAD_MIN`] permits are committed ahead of their turn: others go out meanwhile.
const GROUP_WAIT_AHEAD: Duration = Duration::from_millis(100);

/// See [`GROUP_WAIT_AHEAD`].
const AHEAD_MIN: u32 = 500;

/// How often the record of answers is tried while the database is away; after that they stay in doubt, which is safe.
const RECORD_TRIES_MAX: usize = 60;

impl Run {
    /// Records every answer, until no request is left.
    pub(super) async fn record_all(
        &self,
        mut landed: UnboundedReceiver<Landed>,
    ) -> anyhow::Result<Report> {
        let mut report = Report::default();
        let mut failure = None;
        let mut group = Vec::with_capacity(GROUP_MAX);
        while landed.recv_many(&mut group, GROUP_MAX).await > 0 {
            self.gather(&mut landed, &mut group).await;
            let (findings, tickets): (Vec<_>, Vec<_>) = group
                .drain(..)
                .map(|landed| (landed.finding, landed.ticket))
                .unzip();
            self.write_names(&findings).await;
            if let Err(error) = self.charger.record(&findings, &mut report).await {
                // What is on its way is still waited for: its answers must not be lost with this one.
                self.flight.fail();
                failure = Some(error);
            }
            drop(tickets);
        }
        failure.map_or(Ok(report), Err)
    }

    /// Writes into the journal under which transactions imoje has what was sent, before the database knows it.
    async fn write_names(&self, findings: &[Finding]) {
        let named = findings
            .iter()
            .filter_map(|finding| match &finding.news {
                News::Answered(verdict) => Some((finding.attempt_id, verdict.transaction_id()?)),
                News::NotSent | News::Unsendable | News::DeclaredAbsent | News::Read(_) => None,
            })
            .collect();
        let now = self.charger.clock.now();
        if let Err(error) = self.charger.ground.journal().name(named, now).await {
            // After a restore these are found by their notices, or by people.
            tracing::warn!(
                error = format!("{:#}", anyhow::Error::from(error)),
                "couldn't write answers into the journal"
            );
        }
    }

    /// Waits a moment for further answers, unless none can come.
    async fn gather(&self, landed: &mut UnboundedReceiver<Landed>, group: &mut Vec<Landed>) {
        let (room, on_the_wire) = (
            self.charger.limits.unanswered_max,
            self.charger.requests_max,
        );
        let wait = if room.saturating_sub(on_the_wire) >= AHEAD_MIN {
            GROUP_WAIT_AHEAD
        } else {
            GROUP_WAIT
        };
        let end = Instant::now() + wait;
        while group.len() < GROUP_MAX && !self.is_whole(group) {
            let more = landed.recv_many(group, GROUP_MAX - group.len());
            if !matches!(timeout_at(end, more).await, Ok(1..)) {
                break;
            }
        }
    }

    /// Whether no request is on its way but those of `group`.
    fn is_whole(&self, group: &[Landed]) -> bool {
        usize::try_from(self.flight.open()).is_ok_and(|open| open <= group.len())
    }
}

impl Charger {
    /// Records findings, trying again while the database is away: an answer is worth waiting for.
    pub(super) async fn record(
        &self,
        findings: &[Finding],
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let mut delays = Delays::new(Duration::from_millis(100), Duration::from_secs(5));
        for tried in 1.. {
            let now = self.clock.now();
            let error = match self.store.record(findings, &self.policy, now).await {
                Ok(recorded) => {
                    if recorded.len() < findings.len() {
                        tracing::error!(
                            answers = findings.len(),
                            recorded = recorded.len(),
                            "the books have no attempt for some answers: did the database go back?"
                        );
                        self.ground.doubt();
                    }
                    count::recorded(&self.metrics, &recorded);
                    recorded.iter().for_each(|one| report.add(one));
                    self.tripwires
                        .note(&self.store, &recorded, Source::Answers, now)
                        .await;
                    return Ok(());
                }
                Err(error) => error,
            };
            let is_away = matches!(error, StoreError::Unavailable(_) | StoreError::Busy(_));
            if !is_away && findings.len() > 1 {
                // One of them cannot be recorded; the others can.
                return self.record_each(findings, report).await;
            }
            if !is_away || tried >= RECORD_TRIES_MAX || self.stop.is_cancelled() && tried > 5 {
                return Err(error.into());
            }
            tracing::warn!(%error, answers = findings.len(), "couldn't record answers; trying again");
            tokio::time::sleep(delays.next_delay()).await;
        }
        Ok(())
    }

    /// Records findings one by one, and says at the end whether one of them failed.
    async fn record_each(&self, findings: &[Finding], report: &mut Report) -> anyhow::Result<()> {
        let mut failure = None;
        for finding in findings {
            let one = std::slice::from_ref(finding);
            if let Err(error) = Box::pin(self.record(one, report)).await {
                let attempt = finding.attempt_id;
                tracing::error!(attempt.id = %attempt, error = format!("{error:#}"), "couldn't record an answer");
                failure = Some(error);
            }
        }
        failure.map_or(Ok(()), Err)
    }
}
