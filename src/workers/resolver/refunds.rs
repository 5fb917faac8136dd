//! Refunds: those that are not final are read again, and what imoje tells of others is looked for in the list of their debit.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use tokio::task::JoinSet;

use super::{Report, Resolver, names_an_order_of_ours};
use crate::domain::answer::{ListedRefund, Verdict};
use crate::domain::id::TransactionId;
use crate::domain::resolution::News;
use crate::store::StoreError;
use crate::store::inbox::{NoticeState, OpenNotice};
use crate::store::refunds::{self, OpenRefund, RefundFinding, Sale};
use crate::store::resolution::Evidence;
use crate::workers::refunder::read_list;

/// What a read told about a refund.
enum Told {
    /// The refund itself.
    Itself(RefundFinding<'static>),
    /// All refunds of its debit.
    List(Sale, Vec<ListedRefund>),
}

impl Resolver {
    /// Looks at every refund whose time has come.
    pub(super) async fn look_at_refunds(
        &self,
        now: DateTime<Utc>,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        loop {
            let taken = self
                .store
                .take_refunds(&self.shops.names(), &self.policy.resolver, now)
                .await?;
            let is_last = taken.len() < refunds::BATCH;
            let ids: Vec<_> = taken.iter().map(|refund| refund.refund_id).collect();
            let mut reads = JoinSet::new();
            for refund in taken {
                let (resolver, turns) = (self.clone(), self.turns());
                reads.spawn(async move {
                    let _turn = turns.acquire_owned().await;
                    resolver.read_refund(refund).await
                });
            }
            while let Some(told) = reads.join_next().await {
                match told? {
                    Some(Told::Itself(finding)) => {
                        self.store
                            .record_refund(&finding, &self.policy.resolver, now)
                            .await?;
                        report.read += 1;
                    }
                    Some(Told::List(sale, listed)) => {
                        self.record_list(&sale, &listed, now).await?;
                        report.read += 1;
                    }
                    None => {}
                }
            }
            report.cases_opened += self
                .store
                .open_refund_cases(&ids, &self.policy.resolver, now)
                .await?;
            if is_last {
                return Ok(());
            }
        }
    }

    async fn record_list(
        &self,
        sale: &Sale,
        listed: &[ListedRefund],
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let recorded = self
            .store
            .record_refund_list(sale, listed, &self.policy.resolver, now)
            .await?;
        for refund in recorded.iter().filter(|refund| refund.became.is_some()) {
            tracing::info!(
                shop = %refund.shop,
                refund.id = %refund.refund_id,
                refund.state = refund.state.as_str(),
                "recorded"
            );
        }
        Ok(())
    }

    async fn read_refund(&self, refund: OpenRefund) -> Option<Told> {
        let shop = self.shops.get(&refund.sale.shop)?;
        let Some(transaction_id) = refund.transaction_id else {
            return match read_list(shop, &refund.sale).await {
                Ok(listed) => Some(Told::List(refund.sale, listed)),
                Err(error) => {
                    tracing::warn!(%error, refund.id = %refund.refund_id, "couldn't look for a refund");
                    None
                }
            };
        };
        let expected = shop.client.expected(refund.sale.order_id, refund.amount);
        match shop
            .client
            .refund_transaction(transaction_id, &expected)
            .await
        {
            Ok(answer) => Some(Told::Itself(RefundFinding {
                refund_id: refund.refund_id,
                evidence: Evidence::of_answer(answer.http_status, answer.error_code, answer.shown),
                news: News::Read(answer.verdict),
                by: None,
            })),
            Err(error) => {
                tracing::warn!(%error, refund.id = %refund.refund_id, "couldn't read a refund");
                None
            }
        }
    }

    /// Follows up notices about refunds: the debit that each is of is read, which lists all of its refunds.
    pub(super) async fn follow_up_refunds(
        &self,
        notices: Vec<OpenNotice>,
        now: DateTime<Utc>,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let mut of_sales: HashMap<TransactionId, (Sale, Vec<OpenNotice>)> = HashMap::new();
        let mut closed = Vec::new();
        let mut unknown = Vec::new();
        for notice in notices {
            let sale = self
                .store
                .sale_noticed(&notice.shop, notice.refund_of, notice.order_id.as_deref())
                .await?;
            match sale {
                Some(sale) => of_sales
                    .entry(sale.transaction_id)
                    .or_insert_with(|| (sale, Vec::new()))
                    .1
                    .push(notice),
                // Its debit is not known to have moved money, and was asked about just now.
                None if notice.attempt.is_some() => {
                    if now >= notice.received_at + self.policy.resolver.answer_window {
                        closed.push((notice.notice_id, NoticeState::Done));
                    }
                }
                // What was paid for nothing but a verification went back.
                None if notice.registration_id.is_some() => {
                    closed.push((notice.notice_id, NoticeState::Done));
                }
                None => match notice.refund_of.or(notice.transaction_id) {
                    Some(named) if names_an_order_of_ours(&notice) => unknown.push((notice, named)),
                    Some(_) | None => closed.push((notice.notice_id, NoticeState::Foreign)),
                },
            }
        }
        for (sale, notices) in of_sales.into_values() {
            let Some(shop) = self.shops.get(&sale.shop) else {
                continue;
            };
            match read_list(shop, &sale).await {
                Ok(listed) => {
                    self.record_list(&sale, &listed, now).await?;
                    report.read += 1;
                    let answered = notices
                        .iter()
                        .filter(|notice| self.is_answered(notice, &listed, now));
                    closed.extend(answered.map(|notice| (notice.notice_id, NoticeState::Done)));
                }
                Err(error) => {
                    tracing::warn!(%error, order.id = sale.order_id, "couldn't look for a refund");
                }
            }
        }
        self.store.close_notices(&closed).await?;
        self.look_for_orphans(unknown, now).await
    }

    /// Whether the list says as much as a notice: a read may lag behind it.
    fn is_answered(
        &self,
        notice: &OpenNotice,
        listed: &[ListedRefund],
        now: DateTime<Utc>,
    ) -> bool {
        let is_final = |refund: &ListedRefund| {
            matches!(
                refund.verdict(),
                Verdict::Settled { .. } | Verdict::Rejected { .. }
            )
        };
        let is_listed = listed
            .iter()
            .any(|refund| Some(refund.id) == notice.transaction_id && is_final(refund));
        is_listed || !self.insists(notice, now)
    }
}
