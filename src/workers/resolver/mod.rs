//! The resolver: what is not final becomes final by asking imoje, or by asking people.
//!
//! A notice only tells which transaction to read. A read is the authority; it may be repeated at will, because it moves no
//! money. Without a transaction id nothing can be read, and time decides only whom to ask.

mod named;
mod reads;
mod refunds;
mod registrations;

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::domain::attempt::AttemptState;
use crate::domain::id::{NoticeId, TransactionId};
use crate::domain::order_id::is_ours;
use crate::domain::resolution::{self, DoubtStage, Policy};
use crate::domain::shop::ShopName;
use crate::gateway::Lookup;
use crate::metrics::{Metrics, NoticeOutcome};
use crate::store::inbox::{self, NoticeState, NoticedAttempt, OpenNotice};
use crate::store::polling::{self, Unresolved};
use crate::store::{Store, StoreError};
use crate::workers::shops::Shops;
use crate::workers::tripwires::Tripwires;
use reads::{Asking, Question};

pub use named::{SettleError, Settled};
pub use registrations::NamePaymentError;

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
    /// As many transactions as may be read at once.
    pub reads_max: u32,
    /// What is counted.
    pub metrics: Metrics,
    /// What the last outcomes say about going on.
    pub tripwires: Tripwires,
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

/// How many batches one run takes at most; the next run goes on.
const BATCHES_MAX: usize = 10_000;

impl Resolver {
    /// Follows up every notice that waits, and looks at every attempt whose time has come by `now`.
    ///
    /// # Errors
    /// When the database fails; what was recorded stays, and the rest is taken again later.
    pub async fn run_once(&self, now: DateTime<Utc>) -> anyhow::Result<Report> {
        let mut report = Report::default();
        let shops = self.shops.names();
        let has_work = self
            .store
            .has_work_for_resolver(&shops, self.in_doubt_max, now)
            .await?;
        if !has_work {
            return Ok(report);
        }
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
        self.look_at_refunds(now, &mut report).await?;
        self.look_at_registrations(now, &mut report).await?;
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
        let mut unknown = Vec::new();
        let mut refunds = Vec::new();
        let mut registrations = Vec::new();
        let mut questions: HashMap<TransactionId, Question> = HashMap::new();
        for notice in notices {
            if notice.is_refund {
                // What went back was taken before, whatever is known of that here.
                if let (Some(sale), Some(attempt)) = (notice.refund_of, &notice.attempt)
                    && !is_known(attempt, sale)
                {
                    questions
                        .entry(sale)
                        .or_insert_with(|| question(&notice.shop, attempt, sale));
                }
                refunds.push(notice);
                continue;
            }
            if let Some(registration_id) = notice.registration_id {
                registrations.push((notice, registration_id));
                continue;
            }
            match (notice.transaction_id, &notice.attempt) {
                (Some(transaction_id), Some(attempt)) if is_known(attempt, transaction_id) => {
                    closed.push((notice.notice_id, NoticeState::Done));
                }
                (Some(transaction_id), Some(attempt)) => {
                    let asking = Asking {
                        notice_id: notice.notice_id,
                        insists: self.insists(&notice, now),
                    };
                    questions
                        .entry(transaction_id)
                        .or_insert_with(|| question(&notice.shop, attempt, transaction_id))
                        .notices
                        .push(asking);
                }
                (Some(_), None) if notice.is_archived => {
                    closed.push((notice.notice_id, NoticeState::Done));
                }
                (Some(transaction_id), None) if names_an_order_of_ours(&notice) => {
                    unknown.push((notice, transaction_id));
                }
                (Some(_), None) => closed.push((notice.notice_id, NoticeState::Foreign)),
                // A payment that was cancelled or expired without a transaction tells nothing about a debit.
                (None, _) => closed.push((notice.notice_id, NoticeState::Done)),
            }
        }
        self.store.close_notices(&closed).await?;
        self.look_for_orphans(unknown, now).await?;
        self.ask(questions.into_values().collect(), now, report)
            .await?;
        self.follow_up_registrations(registrations, now).await?;
        self.follow_up_refunds(refunds, now, report).await
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
                    subscription_id: attempt.subscription_id,
                    attempt_id: attempt.attempt_id,
                    shop: attempt.shop,
                    order_id: attempt.order_id,
                    amount: attempt.amount,
                    transaction_id: attempt.transaction_id?,
                    notices: Vec::new(),
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

    /// Notices about orders of ours that are not in the books: if imoje really has one, money may have moved that nobody here
    /// knows of.
    async fn look_for_orphans(
        &self,
        notices: Vec<(OpenNotice, TransactionId)>,
        now: DateTime<Utc>,
    ) -> anyhow::Result<()> {
        let turns = self.turns();
        let mut looks = JoinSet::new();
        for (notice, transaction_id) in notices {
            let (resolver, turns) = (self.clone(), Arc::clone(&turns));
            looks.spawn(async move {
                let _turn = turns.acquire_owned().await;
                let origin = resolver.origin(&notice, transaction_id).await;
                (notice, origin)
            });
        }
        let mut denied = Vec::new();
        while let Some(looked) = looks.join_next().await {
            match looked? {
                (orphan, Origin::Lost) => {
                    tracing::error!(
                        order.id = orphan.order_id,
                        "imoje has a debit that is not in the books"
                    );
                    self.store.record_orphan(&orphan, now).await?;
                }
                (notice, Origin::Denied) => denied.push(notice.notice_id),
                (_, Origin::Unclear) => {}
            }
        }
        Ok(self.note_denials(&denied, now).await?)
    }

    /// Notes that imoje denies the transactions that these notices name: whoever signed them may have stolen the key.
    async fn note_denials(
        &self,
        denied: &[NoticeId],
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        for notice_id in self.store.note_denials(denied, now).await? {
            self.metrics.count_notice(NoticeOutcome::UnknownTransaction);
            tracing::error!(
                notice.id = %notice_id,
                "a notice with our key's signature names a transaction that imoje does not know"
            );
        }
        Ok(())
    }

    /// A place for each read that may be under way at once.
    fn turns(&self) -> Arc<Semaphore> {
        let reads_max = usize::try_from(self.reads_max).unwrap_or(Semaphore::MAX_PERMITS);
        Arc::new(Semaphore::new(reads_max))
    }

    async fn origin(&self, notice: &OpenNotice, transaction_id: TransactionId) -> Origin {
        let Some(shop) = self.shops.get(&notice.shop) else {
            return Origin::Unclear;
        };
        match shop.client.shown_transaction(transaction_id).await {
            Ok(Lookup::Shown(shown))
                if shown.order_id == notice.order_id && shown.id == Some(transaction_id) =>
            {
                Origin::Lost
            }
            Ok(Lookup::Denied) => Origin::Denied,
            Ok(Lookup::Shown(_) | Lookup::Unclear) => Origin::Unclear,
            Err(error) => {
                tracing::warn!(%error, "couldn't read the transaction of an unknown order");
                Origin::Unclear
            }
        }
    }
}

/// Where a notice about an order of ours comes from that is not in the books.
enum Origin {
    /// imoje has the debit: the books have lost it.
    Lost,
    /// imoje denies that it has the transaction: the notice may be forged.
    Denied,
    /// Forged, or a mistake, or not known yet. Like one that is denied, it is asked about again with ever longer waits, and decides
    /// nothing.
    Unclear,
}

/// Whether a notice can tell nothing new about an attempt: its money has moved, by that very transaction.
fn is_known(attempt: &NoticedAttempt, transaction_id: TransactionId) -> bool {
    matches!(attempt.state, AttemptState::Settled | AttemptState::Surplus)
        && attempt.transaction_id == Some(transaction_id)
}

fn question(shop: &ShopName, attempt: &NoticedAttempt, transaction_id: TransactionId) -> Question {
    Question {
        subscription_id: attempt.subscription_id,
        attempt_id: attempt.attempt_id,
        shop: shop.clone(),
        order_id: attempt.order_id.clone(),
        amount: attempt.amount,
        transaction_id,
        notices: Vec::new(),
    }
}

fn names_an_order_of_ours(notice: &OpenNotice) -> bool {
    notice.order_id.as_deref().is_some_and(is_ours)
}
