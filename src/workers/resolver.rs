//! The resolver: what is not final becomes final by asking imoje, or by asking people.
//!
//! A notice only tells which transaction to read. A read is the authority; it may be repeated at will, because it moves no
//! money. Without a transaction id nothing can be read, and time decides only whom to ask.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::domain::answer::{Doubt, Verdict};
use crate::domain::attempt::AttemptState;
use crate::domain::id::{AttemptId, NoticeId, TransactionId};
use crate::domain::money::Money;
use crate::domain::order_id::OrderId;
use crate::domain::resolution::{self, DoubtStage, News, Policy};
use crate::domain::shop::ShopName;
use crate::gateway::{ReadAnswer, ReadError};
use crate::metrics::{CallOutcome, Metrics};
use crate::store::Store;
use crate::store::inbox::{self, NoticeState, NoticedAttempt, OpenNotice};
use crate::store::polling::{self, Unresolved};
use crate::store::resolution::{Evidence, Finding};
use crate::workers::count;
use crate::workers::shops::Shops;

/// Makes attempts final.
#[derive(Clone)]
pub struct Resolver {
    /// The books.
    pub store: Store,
    /// The shops to ask for.
    pub shops: Shops,
    /// What follows from an answer, and when to ask again.
    pub policy: Policy,
    /// As many attempts in doubt as may be: from there on people are asked at once.
    pub in_doubt_max: u32,
    /// What is counted.
    pub metrics: Metrics,
}

/// What one run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Notices followed up.
    pub notices: usize,
    /// Transactions read.
    pub read: usize,
    /// Attempts that became settled, rejected or surplus.
    pub decided: usize,
    /// Charges brought to people.
    pub cases_opened: usize,
    /// Charges given up although their outcome is unknown.
    pub written_off: usize,
}

/// How many reads are under way at once.
const READS_MAX: usize = 32;
/// How many batches one run takes at most; the next run goes on.
const BATCHES_MAX: usize = 10_000;

/// A transaction to read, and the attempt that it should be about.
struct Question {
    attempt_id: AttemptId,
    shop: ShopName,
    order_id: String,
    amount: Money,
    transaction_id: TransactionId,
}

impl Resolver {
    /// Follows up every notice that waits, and looks at every attempt whose time has come by `now`.
    ///
    /// # Errors
    /// When the database fails; what was recorded stays, and the rest is taken again later.
    pub async fn run_once(&self, now: DateTime<Utc>) -> anyhow::Result<Report> {
        let mut report = Report::default();
        let shops = self.shops.names();
        for _ in 0..BATCHES_MAX {
            let notices = self.store.take_notices(&shops, now).await?;
            let is_last = notices.len() < inbox::BATCH;
            self.follow_up(notices, now, &mut report).await?;
            if is_last {
                break;
            }
        }
        if self.store.count_in_doubt(now).await? >= self.in_doubt_max {
            self.store.hasten_doubts(now).await?;
        }
        for _ in 0..BATCHES_MAX {
            let unresolved = self
                .store
                .take_unresolved(&shops, &self.policy.resolver, now)
                .await?;
            let is_last = unresolved.len() < polling::BATCH;
            self.look_at(unresolved, now, &mut report).await?;
            if is_last {
                break;
            }
        }
        Ok(report)
    }

    async fn follow_up(
        &self,
        notices: Vec<OpenNotice>,
        now: DateTime<Utc>,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        report.notices += notices.len();
        let mut closed = Vec::new();
        let mut questions: HashMap<TransactionId, Question> = HashMap::new();
        let mut asked: Vec<(NoticeId, TransactionId, bool)> = Vec::new();
        for notice in notices {
            match (notice.transaction_id, &notice.attempt) {
                (Some(transaction_id), Some(attempt)) if is_known(attempt, transaction_id) => {
                    closed.push((notice.notice_id, NoticeState::Done));
                }
                (Some(transaction_id), Some(attempt)) => {
                    asked.push((notice.notice_id, transaction_id, self.insists(&notice, now)));
                    questions
                        .entry(transaction_id)
                        .or_insert_with(|| question(&notice.shop, attempt, transaction_id));
                }
                (Some(transaction_id), None) if names_an_order_of_ours(&notice) => {
                    self.look_for_orphan(&notice, transaction_id, now).await?;
                }
                (Some(_), None) => closed.push((notice.notice_id, NoticeState::Foreign)),
                // A payment that was cancelled or expired without a transaction tells nothing about a debit.
                (None, _) => closed.push((notice.notice_id, NoticeState::Done)),
            }
        }
        let told = self
            .ask(questions.into_values().collect(), now, report)
            .await?;
        closed.extend(
            asked
                .into_iter()
                .filter_map(|(notice_id, transaction_id, insists)| {
                    let told = told.get(&transaction_id)?;
                    let is_done = *told == Told::Finally || !insists;
                    is_done.then_some((notice_id, NoticeState::Done))
                }),
        );
        self.store.close_notices(&closed).await?;
        Ok(())
    }

    /// Whether a notice says that the money moved and is to be asked about until the gateway's own reads say so too, which may lag
    /// behind. It is given up with the time in which notices come at all.
    fn insists(&self, notice: &OpenNotice, now: DateTime<Utc>) -> bool {
        notice.says_settled && now < notice.received_at + self.policy.resolver.answer_window
    }

    async fn look_at(
        &self,
        unresolved: Vec<Unresolved>,
        now: DateTime<Utc>,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let (with_id, without_id): (Vec<_>, Vec<_>) = unresolved
            .into_iter()
            .partition(|attempt| attempt.transaction_id.is_some());
        // A transaction that never ends is told as one whose outcome is unknown; it is read on all the same.
        let endless: Vec<_> = with_id
            .iter()
            .filter(|attempt| attempt.state == AttemptState::Pending && !attempt.case_open)
            .filter(|attempt| now >= attempt.permitted_at + self.policy.resolver.answer_window)
            .map(|attempt| {
                let write_off_at = attempt.permitted_at + self.policy.resolver.write_off_after;
                (
                    attempt.attempt_id,
                    DoubtStage::OpenCase {
                        write_off_at: write_off_at.max(now),
                    },
                )
            })
            .collect();
        let questions = with_id
            .into_iter()
            .filter_map(|attempt| {
                Some(Question {
                    attempt_id: attempt.attempt_id,
                    shop: attempt.shop,
                    order_id: attempt.order_id,
                    amount: attempt.amount,
                    transaction_id: attempt.transaction_id?,
                })
            })
            .collect();
        self.ask(questions, now, report).await?;
        report.cases_opened += self.store.stage_doubts(&endless, now).await?.opened;
        if without_id.is_empty() {
            return Ok(());
        }
        let many = self.store.count_in_doubt(now).await? >= self.in_doubt_max;
        let stages: Vec<_> = without_id
            .iter()
            .filter(|attempt| attempt.state == AttemptState::InDoubt)
            .map(|attempt| {
                let stage = resolution::doubt_stage(
                    attempt.permitted_at,
                    attempt.case_open,
                    many,
                    &self.policy.resolver,
                    now,
                );
                (attempt.attempt_id, stage)
            })
            .collect();
        let staged = self.store.stage_doubts(&stages, now).await?;
        report.cases_opened += staged.opened;
        report.written_off += staged.written_off;
        Ok(())
    }

    /// Reads transactions and records what they say. Returns those about which imoje told something.
    async fn ask(
        &self,
        questions: Vec<Question>,
        now: DateTime<Utc>,
        report: &mut Report,
    ) -> anyhow::Result<HashMap<TransactionId, Told>> {
        let limit = Arc::new(Semaphore::new(READS_MAX));
        let mut reads = JoinSet::new();
        for question in questions {
            let (resolver, limit) = (self.clone(), Arc::clone(&limit));
            reads.spawn(async move {
                let _permit = limit.acquire_owned().await;
                let transaction_id = question.transaction_id;
                let finding = resolver.read(question).await?;
                Some((transaction_id, finding))
            });
        }
        let (asked, findings): (Vec<_>, Vec<_>) =
            reads.join_all().await.into_iter().flatten().unzip();
        report.read += findings.len();
        let recorded = self.store.record(&findings, &self.policy, now).await?;
        count::recorded(&self.metrics, &recorded);
        report.decided += recorded
            .iter()
            .filter(|one| {
                one.attempt_became
                    .is_some_and(|state| state != AttemptState::Pending)
            })
            .count();
        Ok(asked
            .into_iter()
            .zip(&findings)
            .filter_map(|(transaction_id, finding)| Some((transaction_id, told(&finding.news)?)))
            .collect())
    }

    /// One read. `None` when no HTTP answer came: the question is asked again later.
    async fn read(&self, question: Question) -> Option<Finding> {
        let shop = self.shops.get(&question.shop)?;
        let expected = crate::domain::answer::Expected {
            order_id: question.order_id,
            amount: question.amount,
            service_id: shop.service_id.clone(),
        };
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

    /// A notice about an order of ours that is not in the books: if imoje really has it, money may have moved that nobody here
    /// knows of.
    async fn look_for_orphan(
        &self,
        notice: &OpenNotice,
        transaction_id: TransactionId,
        now: DateTime<Utc>,
    ) -> anyhow::Result<()> {
        let Some(shop) = self.shops.get(&notice.shop) else {
            return Ok(());
        };
        match shop.client.shown_transaction(transaction_id).await {
            Ok(Some(shown))
                if shown.order_id == notice.order_id && shown.id == Some(transaction_id) =>
            {
                tracing::error!(
                    order.id = notice.order_id,
                    "imoje has a debit that is not in the books"
                );
                self.store.record_orphan(notice, now).await?;
            }
            // Forged, or a mistake: it is asked again with ever longer waits, and decides nothing.
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "couldn't read the transaction of an unknown order");
            }
        }
        Ok(())
    }
}

/// Whether a notice can tell nothing new about an attempt: its money has moved, by that very transaction.
fn is_known(attempt: &NoticedAttempt, transaction_id: TransactionId) -> bool {
    matches!(attempt.state, AttemptState::Settled | AttemptState::Surplus)
        && attempt.transaction_id == Some(transaction_id)
}

fn question(shop: &ShopName, attempt: &NoticedAttempt, transaction_id: TransactionId) -> Question {
    Question {
        attempt_id: attempt.attempt_id,
        shop: shop.clone(),
        order_id: attempt.order_id.clone(),
        amount: attempt.amount,
        transaction_id,
    }
}

fn names_an_order_of_ours(notice: &OpenNotice) -> bool {
    notice
        .order_id
        .as_deref()
        .is_some_and(|order_id| order_id.parse::<OrderId>().is_ok())
}

/// How far an answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// The money has moved, or the transaction is not ours: asking again would tell the same.
    Finally,
    /// It may change.
    ForNow,
}

/// How far an answer goes; `None` when it told nothing about the transaction.
fn told(news: &News) -> Option<Told> {
    match news {
        News::Read(Verdict::Settled { .. } | Verdict::InDoubt(Doubt::Mismatch)) => {
            Some(Told::Finally)
        }
        News::Read(Verdict::InDoubt(_)) => None,
        News::Read(_) | News::Answered(_) | News::NotSent | News::Unsendable => Some(Told::ForNow),
    }
}

fn outcome_word(answer: &Result<ReadAnswer, ReadError>) -> &'static str {
    match answer {
        Ok(answer) => count::verdict_word(&answer.verdict),
        Err(_) => "no_answer",
    }
}
