//! Reading: several transactions at once, and what they say is recorded in groups as it comes in.
//!
//! Reading and recording go on at the same time, so one slow answer keeps no other from being recorded, and a commit is shared by
//! many. A read moves no money: what was not recorded is read again later.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use super::{Report, Resolver};
use crate::domain::answer::{Doubt, Verdict};
use crate::domain::attempt::AttemptState;
use crate::domain::id::{AttemptId, NoticeId, SubscriptionId, TransactionId};
use crate::domain::money::Money;
use crate::domain::resolution::News;
use crate::domain::shop::ShopName;
use crate::gateway::{ReadAnswer, ReadError, is_denial};
use crate::metrics::CallOutcome;
use crate::store::StoreError;
use crate::store::inbox::NoticeState;
use crate::store::resolution::{Evidence, Finding};
use crate::workers::count;
use crate::workers::tripwires::Source;

/// The largest group of answers.
const GROUP_MAX: usize = 500;

/// How long an answer waits for others at most.
const GROUP_WAIT: Duration = Duration::from_millis(20);

/// A transaction to read, and the attempt that it should be about.
pub(super) struct Question {
    pub subscription_id: SubscriptionId,
    pub attempt_id: AttemptId,
    pub shop: ShopName,
    pub order_id: String,
    pub amount: Money,
    pub transaction_id: TransactionId,
    /// The notices that named it.
    pub notices: Vec<Asking>,
}

/// A notice that named a transaction.
pub(super) struct Asking {
    pub notice_id: NoticeId,
    /// Whether it is asked about until the answer is final.
    pub insists: bool,
}

/// What one read told, to be recorded.
struct Told {
    finding: Finding,
    notices: Vec<Asking>,
}

impl Resolver {
    /// Reads transactions, records what they say, and closes the notices that are answered with it.
    pub(super) async fn ask(
        &self,
        questions: Vec<Question>,
        now: DateTime<Utc>,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        // Holds one batch at most.
        let (telling, told) = mpsc::unbounded_channel();
        let ((), recorded) = tokio::join!(
            self.read_all(questions, telling),
            self.record_all(told, now, report)
        );
        recorded
    }

    /// Reads as many transactions at once as may be. What nobody told anything about is asked again later.
    async fn read_all(&self, questions: Vec<Question>, telling: UnboundedSender<Told>) {
        let turns = self.turns();
        let mut reads = JoinSet::new();
        for mut question in questions {
            let (resolver, turns, telling) = (self.clone(), Arc::clone(&turns), telling.clone());
            reads.spawn(async move {
                let _turn = turns.acquire_owned().await;
                let notices = std::mem::take(&mut question.notices);
                if let Some(finding) = resolver.read(question).await {
                    // The other end is open for as long as this one is.
                    let _ = telling.send(Told { finding, notices });
                }
            });
        }
        drop(telling);
        reads.join_all().await;
    }

    async fn record_all(
        &self,
        mut told: UnboundedReceiver<Told>,
        now: DateTime<Utc>,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let mut failure = None;
        let mut group = Vec::with_capacity(GROUP_MAX);
        while told.recv_many(&mut group, GROUP_MAX).await > 0 {
            gather(&mut told, &mut group).await;
            if let Err(error) = self.record(group.split_off(0), now, report).await {
                // The other answers are recorded all the same.
                failure = Some(error);
            }
        }
        failure.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Records a group, or one by one when that cannot be done together, and closes the notices that are answered with it.
    async fn record(
        &self,
        group: Vec<Told>,
        now: DateTime<Utc>,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        let (findings, notices): (Vec<_>, Vec<_>) = group
            .into_iter()
            .map(|told| (told.finding, told.notices))
            .unzip();
        let denied = denied(&findings, &notices);
        let known: HashSet<AttemptId> = match self.store.record(&findings, &self.policy, now).await
        {
            Ok(recorded) => {
                count::recorded(&self.metrics, &recorded);
                self.tripwires
                    .note(&self.store, &recorded, Source::Reads, now)
                    .await;
                report.read += findings.len();
                report.decided += recorded
                    .iter()
                    .filter(|one| {
                        one.attempt_became
                            .is_some_and(|state| state != AttemptState::Pending)
                    })
                    .count();
                recorded.iter().map(|one| one.attempt_id).collect()
            }
            Err(error) if findings.len() == 1 || is_away(&error) => return Err(error),
            Err(_) => {
                // One of them cannot be recorded; the others can.
                let mut failure = None;
                for (finding, notices) in findings.into_iter().zip(notices) {
                    let attempt_id = finding.attempt_id;
                    let alone = vec![Told { finding, notices }];
                    if let Err(error) = Box::pin(self.record(alone, now, report)).await {
                        tracing::error!(attempt.id = %attempt_id, %error, "couldn't record a read");
                        failure = Some(error);
                    }
                }
                return failure.map_or(Ok(()), Err);
            }
        };
        // An attempt that went to the archive while its transaction was read is not known any more: its notices are followed up again,
        // and then it is looked for there.
        let answered: Vec<_> = findings
            .iter()
            .zip(notices)
            .filter(|(finding, _)| known.contains(&finding.attempt_id))
            .flat_map(|(finding, notices)| answered(&finding.news, notices))
            .map(|notice_id| (notice_id, NoticeState::Done))
            .collect();
        self.store.close_notices(&answered).await?;
        self.note_denials(&denied, now).await
    }

    /// One read. `None` when no HTTP answer came: the question is asked again later.
    async fn read(&self, question: Question) -> Option<Finding> {
        let shop = self.shops.get(&question.shop)?;
        let expected = shop.client.expected(question.order_id, question.amount);
        let started = Instant::now();
        let answer = shop
            .client
            .transaction(question.transaction_id, &expected)
            .await;
        self.metrics
            .gateway_request_seconds
            .get_or_create(&CallOutcome::of("transaction", outcome_word(&answer)))
            .observe(started.elapsed().as_secs_f64());
        match answer {
            Ok(answer) => Some(Finding {
                subscription_id: question.subscription_id,
                attempt_id: question.attempt_id,
                evidence: Evidence::of_answer(answer.http_status, answer.error_code, answer.shown),
                news: News::Read(answer.verdict),
            }),
            Err(error) => {
                tracing::warn!(%error, attempt.id = %question.attempt_id, "couldn't read a transaction");
                None
            }
        }
    }
}

/// Waits a moment for further answers, unless none can come.
async fn gather(told: &mut UnboundedReceiver<Told>, group: &mut Vec<Told>) {
    let end = tokio::time::Instant::now() + GROUP_WAIT;
    while group.len() < GROUP_MAX {
        let more = told.recv_many(group, GROUP_MAX - group.len());
        if !matches!(timeout_at(end, more).await, Ok(1..)) {
            break;
        }
    }
}

fn is_away(error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable(_) | StoreError::Busy(_))
}

/// The notices that need no further answer after this one.
fn answered(news: &News, notices: Vec<Asking>) -> Vec<NoticeId> {
    notices
        .into_iter()
        .filter(|notice| match reach(news) {
            Some(Reach::Final) => true,
            Some(Reach::ForNow) => !notice.insists,
            None => false,
        })
        .map(|notice| notice.notice_id)
        .collect()
}

/// The notices whose transaction imoje denies that it has.
fn denied(findings: &[Finding], notices: &[Vec<Asking>]) -> Vec<NoticeId> {
    findings
        .iter()
        .zip(notices)
        .filter(|(finding, _)| {
            reach(&finding.news).is_none() && finding.evidence.http_status.is_some_and(is_denial)
        })
        .flat_map(|(_, notices)| notices.iter().map(|notice| notice.notice_id))
        .collect()
}

/// How far an answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// The money has moved, or the transaction is not ours: asking again would tell the same.
    Final,
    /// It may change.
    ForNow,
}

/// How far an answer goes; `None` when it told nothing about the transaction.
fn reach(news: &News) -> Option<Reach> {
    match news {
        News::Read(Verdict::Settled { .. } | Verdict::InDoubt(Doubt::Mismatch)) => {
            Some(Reach::Final)
        }
        News::Read(Verdict::InDoubt(_)) => None,
        News::Read(_)
        | News::Answered(_)
        | News::NotSent
        | News::Unsendable
        | News::DeclaredAbsent => Some(Reach::ForNow),
    }
}

fn outcome_word(answer: &Result<ReadAnswer, ReadError>) -> &'static str {
    match answer {
        Ok(answer) => count::verdict_word(&answer.verdict),
        Err(_) => "no_answer",
    }
}
