//! Refunds that people order. Money goes back once for each order, and never more than was taken.
//!
//! imoje is asked first what went back already and whether it would give back more. Then the permit is committed, the request is sent
//! once, and what came of it is recorded, as with a debit. The brake stops debits and not refunds; the fence stops both.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::clock::{Clock, Moment};
use crate::domain::answer::{ListedRefund, Verdict};
use crate::domain::attempt::AttemptState;
use crate::domain::id::{ChargeId, FenceId, RefundId};
use crate::domain::money::{Money, MoneyError};
use crate::domain::refund::GAP;
use crate::domain::resolution::{News, ResolverPolicy};
use crate::domain::shop::ShopName;
use crate::gateway::{NoAnswer, PostAnswer, ReadError, RefundOrder, Refundable};
use crate::reconnect::Delays;
use crate::store::refunds::{NewRefund, RecordedRefund, RefundFinding, RefundPermitError, Sale};
use crate::store::resolution::Evidence;
use crate::store::status::By;
use crate::store::{Refusal, Store, StoreError};
use crate::workers::posts;
use crate::workers::shops::{Shop, Shops};

/// How often the record of an answer is tried while the database is away; after that it stays in doubt, which is safe.
const RECORD_TRIES_MAX: usize = 20;

/// Gives money back.
#[derive(Clone)]
pub struct Refunder {
    /// The books.
    pub store: Store,
    /// The shops to ask for.
    pub shops: Shops,
    /// When to look again at what is not final.
    pub policy: ResolverPolicy,
    /// As which installation permits are given.
    pub fence_id: FenceId,
    /// How long after its permit the answer to a refund may come by itself.
    pub answer_timeout: TimeDelta,
    /// How long after its permit a refund may be declared absent.
    pub absent_after: TimeDelta,
    /// What time it is.
    pub clock: Clock,
}

/// What a person wants back.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Of which charge.
    pub charge_id: ChargeId,
    /// Of which attempt at it, where money moved twice.
    pub attempt_no: Option<i16>,
    /// How much, in minor units; everything that is left, unless given.
    pub amount_minor: Option<i64>,
    /// What the payer may read about it.
    pub title: Option<&'a str>,
    /// Whether imoje writes to the payer once it is settled.
    pub is_confirmed_by_email: bool,
    /// Who wants it, and why.
    pub by: By<'a>,
}

/// What became of a refund.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refunded {
    /// What is recorded now.
    pub recorded: RecordedRefund,
    /// What imoje was told as `orderId` of the debit.
    pub order_id: String,
    /// How much goes back, or would have.
    pub amount: Money,
    /// imoje's words, when it refused.
    pub refusal: Option<String>,
}

/// Why no refund was ordered. Nothing has gone back.
#[derive(Debug, thiserror::Error)]
pub enum RefundError {
    /// There is no such charge.
    #[error("there is no charge {0}")]
    NoCharge(ChargeId),
    /// There is nothing to give back.
    #[error("no money was taken for charge {0}")]
    NothingTaken(ChargeId),
    /// Money moved twice, and it was not said which of the two goes back.
    #[error("money was taken more than once for this charge, by the attempts {}; say which goes back", list(.0))]
    SeveralTaken(Vec<i16>),
    /// There is no such attempt, or it moved no money.
    #[error("attempt {0} took no money for this charge")]
    NotTaken(i16),
    /// Nobody knows how to ask.
    #[error("shop {0} is not in the configuration, so imoje cannot be asked")]
    UnknownShop(ShopName),
    /// Another refund of the debit is not answered yet, or was never answered.
    #[error(
        "another refund of {order_id} is in doubt; it has to be known first whether it happened"
    )]
    InDoubt {
        /// The order of the debit.
        order_id: String,
    },
    /// Everything went back, or is on its way.
    #[error("all of {0} went back already, or is on its way")]
    NothingLeft(Money),
    /// It is more than is left.
    #[error("{wanted} is more than the {left} that can still go back")]
    TooMuch {
        /// How much was asked for.
        wanted: Money,
        /// How much can go back.
        left: Money,
    },
    /// It is no amount.
    #[error(transparent)]
    Amount(#[from] MoneyError),
    /// imoje would refuse.
    #[error("imoje says that {wanted} cannot go back{}", explained(.can))]
    NotRefundable {
        /// How much was asked for.
        wanted: Money,
        /// What imoje says.
        can: Refundable,
    },
    /// imoje did not answer.
    #[error("couldn't ask imoje about the refund: {0}")]
    Unreachable(ReadError),
    /// imoje does not show the debit as one whose money moved.
    #[error(
        "imoje does not show {order_id} as settled, with the refunds of it (HTTP {http_status})"
    )]
    NotShown {
        /// The order of the debit.
        order_id: String,
        /// The HTTP status.
        http_status: u16,
    },
    /// A refund of the charge cannot be declared absent.
    #[error("charge {0} has no refund in doubt")]
    NoDoubt(ChargeId),
    /// imoje may still tell of it.
    #[error(
        "the refund cannot be declared absent before {0}: until then imoje may still tell of it"
    )]
    TooEarly(DateTime<Utc>),
    /// The database failed, or refused it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The permit may have been committed; nothing was sent for it.
    #[error("the outcome of a commit is unknown, so nothing was sent: {0}")]
    Unconfirmed(StoreError),
    /// The request was sent, and what came of it could not be recorded. It is in doubt, and looked for.
    #[error("refund {refund_id} was sent, and its answer could not be recorded: {source}")]
    NotRecorded {
        /// The refund.
        refund_id: RefundId,
        /// Why.
        source: StoreError,
    },
    /// The books have lost the refund since its permit was committed.
    #[error("the books have no refund {0} any more; did the database go back in time?")]
    Forgotten(RefundId),
}

fn list(attempts: &[i16]) -> String {
    let attempts: Vec<_> = attempts.iter().map(i16::to_string).collect();
    attempts.join(" and ")
}

fn explained(can: &Refundable) -> String {
    if can.has_balance == Some(false) {
        return ": the balance of the shop does not cover it".to_owned();
    }
    match (can.min_minor, can.max_minor) {
        (Some(min), Some(max)) => format!(": it takes {min} to {max} minor units"),
        (None, Some(max)) => format!(": it takes up to {max} minor units"),
        (_, None) => String::new(),
    }
}

impl Refunder {
    /// Gives money back: asks imoje what went back already and whether it can be done, permits, sends once, and records what came of it.
    ///
    /// # Errors
    /// [`RefundError`]; nothing has gone back then, but for [`RefundError::NotRecorded`].
    pub async fn refund(&self, wanted: Wanted<'_>) -> Result<Refunded, RefundError> {
        let sale = self.sale(wanted.charge_id, wanted.attempt_no).await?;
        let shop = self.shop(&sale)?;
        let listed = read_list(shop, &sale).await?;
        let now = self.clock.now();
        self.store
            .record_refund_list(&sale, &listed, &self.policy, now)
            .await?;
        let amount = self.amount(&sale, wanted.amount_minor).await?;
        let answer = shop.client.can_refund(sale.transaction_id, amount).await;
        let can = answer.map_err(RefundError::Unreachable)?;
        if !can.is_refundable {
            return Err(RefundError::NotRefundable {
                wanted: amount,
                can,
            });
        }
        let order = RefundOrder {
            sale: sale.transaction_id,
            order_id: sale.order_id.clone(),
            amount,
            title: wanted.title.map(str::to_owned),
            is_confirmed_by_email: wanted.is_confirmed_by_email,
        };
        let refund_id = self.permit(&sale, &order, wanted.by).await?;
        let permitted_at = Moment::now();
        let answer = shop.client.refund(&order, permitted_at).await;
        let refusal = refusal(&answer);
        let (news, evidence) = posts::told_by(answer);
        let finding = RefundFinding {
            refund_id,
            news,
            evidence,
            by: None,
        };
        Ok(Refunded {
            recorded: self.record(&finding).await?,
            order_id: sale.order_id,
            amount,
            refusal,
        })
    }

    /// Declares on a person's word that imoje never had the refund in doubt of a charge, if imoje does not list it and would have told
    /// of it by now.
    ///
    /// # Errors
    /// [`RefundError`]; nothing is changed then, but for what imoje lists.
    pub async fn declare_absent(
        &self,
        charge_id: ChargeId,
        by: By<'_>,
    ) -> Result<RecordedRefund, RefundError> {
        if !self.store.has_charge(charge_id).await? {
            return Err(RefundError::NoCharge(charge_id));
        }
        let refunds = self.store.refunds_of(charge_id).await?;
        let doubt = refunds
            .iter()
            .find(|refund| refund.state == AttemptState::InDoubt)
            .ok_or(RefundError::NoDoubt(charge_id))?;
        let now = self.clock.now();
        let possible_at = doubt.permitted_at + self.absent_after;
        if now < possible_at {
            return Err(RefundError::TooEarly(possible_at));
        }
        let sales = self.store.sales_of(charge_id).await?;
        let sale = sales
            .into_iter()
            .find(|sale| sale.attempt_id == doubt.attempt_id)
            .ok_or(RefundError::NothingTaken(charge_id))?;
        let listed = read_list(self.shop(&sale)?, &sale).await?;
        let recorded = self
            .store
            .record_refund_list(&sale, &listed, &self.policy, now)
            .await?;
        if let Some(found) = recorded
            .into_iter()
            .find(|recorded| recorded.refund_id == doubt.refund_id)
        {
            return Ok(found);
        }
        let finding = RefundFinding {
            refund_id: doubt.refund_id,
            news: News::DeclaredAbsent,
            evidence: Evidence::default(),
            by: Some(by),
        };
        self.record(&finding).await
    }

    async fn sale(
        &self,
        charge_id: ChargeId,
        attempt_no: Option<i16>,
    ) -> Result<Sale, RefundError> {
        let mut sales = self.store.sales_of(charge_id).await?;
        match (attempt_no, sales.len()) {
            (_, 0) if self.store.has_charge(charge_id).await? => {
                Err(RefundError::NothingTaken(charge_id))
            }
            (_, 0) => Err(RefundError::NoCharge(charge_id)),
            (None, 1) => Ok(sales.remove(0)),
            (None, _) => {
                let attempts = sales.iter().map(|sale| sale.attempt_no).collect();
                Err(RefundError::SeveralTaken(attempts))
            }
            (Some(attempt_no), _) => sales
                .into_iter()
                .find(|sale| sale.attempt_no == attempt_no)
                .ok_or(RefundError::NotTaken(attempt_no)),
        }
    }

    fn shop(&self, sale: &Sale) -> Result<&Shop, RefundError> {
        self.shops
            .get(&sale.shop)
            .ok_or_else(|| RefundError::UnknownShop(sale.shop.clone()))
    }

    /// How much goes back, as far as the books know.
    async fn amount(&self, sale: &Sale, wanted: Option<i64>) -> Result<Money, RefundError> {
        let known = self.store.known_refunds(sale).await?;
        if known
            .iter()
            .any(|refund| refund.state == AttemptState::InDoubt)
        {
            return Err(RefundError::InDoubt {
                order_id: sale.order_id.clone(),
            });
        }
        let gone: i64 = known
            .iter()
            .filter(|refund| refund.counts())
            .map(|refund| refund.amount_minor)
            .sum();
        let of = |minor| Money::new(minor, sale.amount.currency());
        let left =
            of(sale.amount.minor() - gone).map_err(|_| RefundError::NothingLeft(sale.amount))?;
        let wanted = wanted.map(of).transpose()?.unwrap_or(left);
        if wanted.minor() > left.minor() {
            return Err(RefundError::TooMuch { wanted, left });
        }
        Ok(wanted)
    }

    /// Waits until the shop may ask for another refund, and gives the permit.
    async fn permit(
        &self,
        sale: &Sale,
        order: &RefundOrder,
        by: By<'_>,
    ) -> Result<RefundId, RefundError> {
        loop {
            if let Some(last) = self.store.last_refund_at(&sale.shop).await? {
                self.clock.sleep_until(last + GAP).await;
            }
            let refund = NewRefund {
                sale,
                amount: order.amount,
                title: order.title.as_deref(),
                by,
                fence_id: self.fence_id,
                answer_timeout: self.answer_timeout,
            };
            match self.store.permit_refund(refund, self.clock.now()).await {
                Ok(refund_id) => return Ok(refund_id),
                // Somebody else was faster.
                Err(RefundPermitError::Failed(error))
                    if error.refusal() == Some(Refusal::RefundSpacing) || error.is_busy() => {}
                Err(RefundPermitError::Failed(error)) => return Err(error.into()),
                Err(RefundPermitError::Unconfirmed { refund_id, source }) => {
                    let finding = not_sent(refund_id, "its permit was not confirmed");
                    return Err(match self.record(&finding).await {
                        Ok(_) | Err(_) => RefundError::Unconfirmed(source),
                    });
                }
            }
        }
    }

    /// Records a finding, trying again while the database is away: an answer is worth waiting for.
    async fn record(&self, finding: &RefundFinding<'_>) -> Result<RecordedRefund, RefundError> {
        let refund_id = finding.refund_id;
        let mut delays = Delays::new(Duration::from_millis(100), Duration::from_secs(5));
        for tried in 1.. {
            let now = self.clock.now();
            let recorded = self.store.record_refund(finding, &self.policy, now).await;
            let source = match recorded {
                Ok(Some(recorded)) => return Ok(recorded),
                Ok(None) => break,
                Err(source) => source,
            };
            let is_away = matches!(source, StoreError::Unavailable(_) | StoreError::Busy(_));
            if !is_away || tried >= RECORD_TRIES_MAX {
                return Err(RefundError::NotRecorded { refund_id, source });
            }
            tokio::time::sleep(delays.next_delay()).await;
        }
        Err(RefundError::Forgotten(refund_id))
    }
}

/// The refunds that imoje lists with a debit, if it shows that as settled.
pub(super) async fn read_list(shop: &Shop, sale: &Sale) -> Result<Vec<ListedRefund>, RefundError> {
    let expected = shop.client.expected(sale.order_id.clone(), sale.amount);
    let answer = shop
        .client
        .transaction(sale.transaction_id, &expected)
        .await
        .map_err(RefundError::Unreachable)?;
    let is_settled = matches!(answer.verdict, Verdict::Settled { .. });
    answer
        .shown
        .filter(|_| is_settled)
        .and_then(|shown| shown.refunds)
        .ok_or_else(|| RefundError::NotShown {
            order_id: sale.order_id.clone(),
            http_status: answer.http_status,
        })
}

fn not_sent<'a>(refund_id: RefundId, why: &str) -> RefundFinding<'a> {
    RefundFinding {
        refund_id,
        news: News::NotSent,
        evidence: Evidence::of_words(why),
        by: None,
    }
}

/// What imoje said when nothing went back.
fn refusal(answer: &Result<PostAnswer, NoAnswer>) -> Option<String> {
    match answer {
        Ok(answer) => match &answer.verdict {
            Verdict::Refused(refusal) => {
                Some(format!("HTTP {} {}", refusal.http_status, refusal.code))
            }
            Verdict::Settled { .. }
            | Verdict::Pending { .. }
            | Verdict::Rejected { .. }
            | Verdict::InDoubt(_) => None,
        },
        Err(no_answer) => Some(no_answer.to_string()),
    }
}
