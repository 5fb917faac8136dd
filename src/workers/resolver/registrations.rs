//! Registrations: what payers did by their links, what became of card data, and the cards that imoje knows from then on.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::task::JoinSet;

use super::{Report, Resolver};
use crate::domain::answer::{Doubt, ShownTransaction, Verdict};
use crate::domain::card::{CardKey, FirstTransactionId};
use crate::domain::id::{RegistrationId, SubscriptionId, TransactionId};
use crate::domain::registration::{
    CARD_LAG, KeptCard, LINGERS, NoCard, RegisteredCard, RegistrationEvent, RegistrationOrderId,
    RegistrationState, Way, card_of,
};
use crate::domain::shop::ShopName;
use crate::gateway::{
    Lookup, Profile, ProfileKind, ReadAnswer, ReadError, ShownPayment, is_denial,
};
use crate::store::StoreError;
use crate::store::inbox::{NoticeState, OpenNotice};
use crate::store::registrations::{self, Attached, EndError, OpenRegistration, PaidByLink};
use crate::store::resolution::Evidence;
use crate::store::status::By;
use crate::workers::shops::Shop;

/// A payment that is under way, or a link that cannot be read, keeps a registration open for so long after its time, and then no other
/// from being made. Card data keep it open until it is known what became of them, or a person gives them up.
const HOLDS_OPEN: TimeDelta = TimeDelta::days(3);

/// Such a link goes on to be looked at for so long after its time. What comes through later is found by its notice.
const KEEPS_LOOKING: TimeDelta = TimeDelta::days(30);

/// Which look for the card of a payment it is. However long ago the payment was made, its card may appear after it was heard of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// The payment is heard of just now.
    First,
    /// It was known before.
    Later,
}

/// What imoje says about a payment.
pub(super) enum Followed {
    /// Its word is final, and recorded.
    Final,
    /// Its word is final, and no money moved.
    Declined,
    /// It has no such payment.
    Denied,
    /// It may say more later.
    Open,
}

/// Why the transaction that a person named tells nothing about a registration.
#[derive(Debug, thiserror::Error)]
pub enum NamePaymentError {
    /// Nobody knows how to ask.
    #[error("shop {0} is not in the configuration, so imoje cannot be asked")]
    UnknownShop(ShopName),
    /// imoje did not answer.
    #[error("couldn't ask imoje about the transaction: {0}")]
    Unreachable(ReadError),
    /// imoje shows no such transaction.
    #[error("imoje does not show the transaction")]
    NotShown,
    /// It is the transaction of something else.
    #[error("the transaction is of no registration of this subscription")]
    Foreign,
    /// What becomes of it is not known yet.
    #[error("imoje shows the transaction, and its money has neither moved nor come to nothing")]
    Unfinished,
    /// It could not be recorded.
    #[error("the payment could not be recorded: {0}")]
    Unrecorded(anyhow::Error),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Resolver {
    /// Looks at every registration whose time has come.
    pub(super) async fn look_at_registrations(
        &self,
        now: DateTime<Utc>,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        loop {
            let taken = self
                .store
                .take_registrations(&self.shops.names(), &self.policy.resolver, now)
                .await?;
            let is_last = taken.len() < registrations::BATCH;
            report.read += taken.len();
            let turns = self.turns();
            let mut looks = JoinSet::new();
            for registration in taken {
                let (resolver, turns) = (self.clone(), turns.clone());
                looks.spawn(async move {
                    let _turn = turns.acquire_owned().await;
                    resolver.look_at_registration(&registration, now).await
                });
            }
            // One that fails keeps no other from its end.
            while let Some(looked) = looks.join_next().await {
                outcome = outcome.and(looked?);
            }
            if is_last {
                return outcome;
            }
        }
    }

    async fn look_at_registration(
        &self,
        registration: &OpenRegistration,
        now: DateTime<Utc>,
    ) -> anyhow::Result<()> {
        let Some(shop) = self.shops.get(&registration.shop) else {
            return Ok(());
        };
        let is_unwanted = registration.state.is_payable() && !registration.is_wanted;
        let is_closed = is_unwanted && close(shop, registration, now).await;
        if let Some(transaction_id) = registration.transaction_id {
            self.attach(shop, registration, transaction_id, now).await?;
        }
        let id = registration.registration_id;
        let is_unanswered = registration.state == RegistrationState::Requested
            && registration.sale_id.is_none()
            || registration.state.is_payable() && now >= registration.valid_to + HOLDS_OPEN;
        if registration.way == Way::CardData && is_unanswered {
            self.store.tell_unanswered_registration(id, now).await?;
        }
        let mut link = look_at_link(shop, registration).await;
        let mut is_known = link.is_some();
        if let Some(link) = &mut link {
            for transaction_id in link.payments.clone() {
                if Some(transaction_id) != registration.transaction_id
                    && !registration.mismatched_ids.contains(&transaction_id)
                {
                    let followed = self
                        .follow_payment(shop, registration, transaction_id, now)
                        .await?;
                    is_known &= matches!(followed, Followed::Final | Followed::Declined);
                    if matches!(followed, Followed::Declined) && registration.way == Way::CardData {
                        // It was the only one, and there will be no other.
                        (link.payments, link.is_ended) = (Vec::new(), true);
                    }
                }
            }
        }
        // Last of all: whoever dies before it looks once more.
        let is_over = |ended_at: &DateTime<Utc>| now >= *ended_at + LINGERS;
        if let Some(ended_at) = registration.ended_at.filter(is_over)
            && (is_known || now >= registration.valid_to + KEEPS_LOOKING)
        {
            self.store
                .stop_looking_at_registration(id, ended_at)
                .await?;
        }
        self.end_if_over(registration, link.as_ref(), is_closed, now)
            .await
    }

    /// Ends a registration that nobody pays just now when its link is over, or not wanted any more.
    async fn end_if_over(
        &self,
        registration: &OpenRegistration,
        link: Option<&Link>,
        is_closed: bool,
        now: DateTime<Utc>,
    ) -> anyhow::Result<()> {
        if !registration.state.is_payable() {
            return Ok(());
        }
        let is_quiet = link.is_some_and(|link| {
            link.payments
                .iter()
                .all(|payment| registration.mismatched_ids.contains(payment))
        });
        let is_ended_there = link.is_some_and(|link| link.is_ended);
        let (event, by) = if is_quiet && is_closed {
            let by = By::itself("no_longer_wanted");
            (RegistrationEvent::Cancelled, Some(by))
        } else if registration.way == Way::Link && now >= registration.valid_to + HOLDS_OPEN
            || is_quiet && now >= registration.valid_to
        {
            (RegistrationEvent::Expired, None)
        } else if is_quiet && is_ended_there {
            let by = By::itself(match registration.way {
                Way::Link => "ended_at_imoje",
                Way::CardData => "declined",
            });
            (RegistrationEvent::Cancelled, Some(by))
        } else {
            return Ok(());
        };
        let id = registration.registration_id;
        match self.store.end_registration(id, event, by, now).await {
            // It was paid meanwhile, or a person was faster.
            Ok(_) | Err(EndError::Illegal(_)) => Ok(()),
            Err(EndError::Store(error)) => Err(error.into()),
        }
    }

    /// Reads a payment, and records it when its money has moved.
    pub(super) async fn follow_payment(
        &self,
        shop: &Shop,
        registration: &OpenRegistration,
        transaction_id: TransactionId,
        now: DateTime<Utc>,
    ) -> anyhow::Result<Followed> {
        let Some(answer) = read(shop, registration, transaction_id).await else {
            return Ok(Followed::Open);
        };
        let id = registration.registration_id;
        self.note_sale(registration, transaction_id, &answer.verdict, now)
            .await?;
        match &answer.verdict {
            Verdict::Settled { .. } => {}
            Verdict::Rejected { .. } => return Ok(Followed::Declined),
            Verdict::InDoubt(Doubt::Mismatch) if is_settled_sale(&answer, registration) => {
                let shown = answer.shown.as_deref();
                self.store
                    .tell_mismatched_payment(id, transaction_id, shown, now)
                    .await?;
                return Ok(Followed::Final);
            }
            Verdict::InDoubt(_) if is_denial(answer.http_status) => return Ok(Followed::Denied),
            // "Failure to complete the payment by this time will result in its cancellation" (imoje API, `POST transaction`, `validTo`).
            Verdict::Pending { status, .. }
                if ["cancelled", "canceled"].contains(&status.as_str())
                    && now >= registration.valid_to =>
            {
                return Ok(Followed::Declined);
            }
            Verdict::Pending { .. } | Verdict::Refused(_) | Verdict::InDoubt(_) => {
                return Ok(Followed::Open);
            }
        }
        let paid_with = answer.shown.clone();
        let paid_at = paid_with.as_ref().and_then(|shown| shown.created_at);
        let paid = PaidByLink {
            registration_id: id,
            transaction_id,
            paid_at,
            evidence: Evidence::of_answer(answer.http_status, answer.error_code, answer.shown),
        };
        let state = self
            .store
            .record_paid_by_link(&paid, &self.policy.resolver, now, |stopped, date| {
                let id = stopped.subscription_id;
                shop.calendar.due_at(id, stopped.zone, date)
            })
            .await?;
        tracing::info!(
            shop = %registration.shop,
            registration.id = %id,
            registration.state = state.as_str(),
            "paid"
        );
        // It is read again, since its first payment may be another than this.
        if state == RegistrationState::Paid
            && let Some(registration) = self.store.registration(id).await?
        {
            self.attach_paid(shop, &registration, paid_with.as_deref(), Look::First, now)
                .await?;
        }
        Ok(Followed::Final)
    }

    /// Notes which transaction imoje has made of card data, if its answer to them was lost and this is it.
    async fn note_sale(
        &self,
        registration: &OpenRegistration,
        transaction_id: TransactionId,
        verdict: &Verdict,
        now: DateTime<Utc>,
    ) -> anyhow::Result<()> {
        let is_ours = match verdict {
            Verdict::Settled { .. } | Verdict::Pending { .. } | Verdict::Rejected { .. } => true,
            Verdict::Refused(_) | Verdict::InDoubt(_) => false,
        };
        if registration.way == Way::Link || registration.sale_id.is_some() || !is_ours {
            return Ok(());
        }
        let (id, by) = (registration.registration_id, By::itself("found"));
        match (self.store.note_sale(id, (transaction_id, None), by, now)).await {
            // It has ended, and the transaction is noted all the same.
            Ok(()) | Err(EndError::Illegal(_)) => Ok(()),
            Err(EndError::Store(error)) => Err(error.into()),
        }
    }

    /// Follows the transaction that a person says a payer paid for a registration of a subscription. Returns where that stands then.
    ///
    /// # Errors
    /// [`NamePaymentError`]
    pub async fn name_payment(
        &self,
        subscription_id: SubscriptionId,
        transaction_id: TransactionId,
        now: DateTime<Utc>,
    ) -> Result<RegistrationState, NamePaymentError> {
        let shop = self.store.shop_of_subscription(subscription_id).await?;
        let shop = shop.ok_or(NamePaymentError::Foreign)?;
        let shop = self
            .shops
            .get(&shop)
            .ok_or(NamePaymentError::UnknownShop(shop))?;
        let shown = shop.client.shown_transaction(transaction_id).await;
        let Lookup::Shown(shown) = shown.map_err(NamePaymentError::Unreachable)? else {
            return Err(NamePaymentError::NotShown);
        };
        let order_id = shown.order_id.unwrap_or_default();
        let RegistrationOrderId(id) = order_id.parse().map_err(|_| NamePaymentError::Foreign)?;
        let registration = self.store.registration(id).await?;
        let registration = registration
            .filter(|registration| registration.subscription_id == subscription_id)
            .ok_or(NamePaymentError::Foreign)?;
        let followed = self.follow_payment(shop, &registration, transaction_id, now);
        let followed = followed.await.map_err(NamePaymentError::Unrecorded)?;
        self.store.hasten_registrations(&[id], now).await?;
        match followed {
            Followed::Final | Followed::Declined => {}
            Followed::Open => return Err(NamePaymentError::Unfinished),
            Followed::Denied => return Err(NamePaymentError::NotShown),
        }
        let registration = self.store.registration(id).await?;
        let registration = registration.ok_or(NamePaymentError::Foreign)?;
        Ok(registration.state)
    }

    /// Looks for the card of a registration that was paid, and attaches it.
    async fn attach(
        &self,
        shop: &Shop,
        registration: &OpenRegistration,
        transaction_id: TransactionId,
        now: DateTime<Utc>,
    ) -> anyhow::Result<()> {
        if !matches!(
            registration.state,
            RegistrationState::Paid | RegistrationState::Cardless
        ) {
            return Ok(());
        }
        let Some(answer) = read(shop, registration, transaction_id).await else {
            return Ok(());
        };
        // What names a card is believed of our own payment alone.
        let is_ours = matches!(answer.verdict, Verdict::Settled { .. });
        let paid_with = answer.shown.filter(|_| is_ours);
        self.attach_paid(shop, registration, paid_with.as_deref(), Look::Later, now)
            .await
    }

    async fn attach_paid(
        &self,
        shop: &Shop,
        registration: &OpenRegistration,
        paid_with: Option<&ShownTransaction>,
        look: Look,
        now: DateTime<Utc>,
    ) -> anyhow::Result<()> {
        let (id, Some(paid_at)) = (registration.registration_id, registration.paid_at) else {
            return Ok(());
        };
        let found = match registered_card(shop, registration, paid_with).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, registration.id = %id, "couldn't look for a registered card");
                // What cannot be read for so long is not there to be attached.
                if now < paid_at + LINGERS || look == Look::First {
                    return Ok(());
                }
                Err(NoCard::Unknown)
            }
        };
        let refused = match found {
            Ok(card) => {
                let attached = self
                    .store
                    .attach_card(id, &card, now, |stopped, how| {
                        shop.calendar.period_with_card(stopped, how, paid_at)
                    })
                    .await?;
                match attached {
                    Attached::Done => {
                        tracing::info!(shop = %registration.shop, registration.id = %id, "card attached");
                        None
                    }
                    Attached::Decided(_) => None,
                    Attached::Refused(why) => Some(why),
                }
            }
            Err(_) if now < paid_at + CARD_LAG || look == Look::First => None,
            Err(why) => Some(why),
        };
        if let Some(why) = refused {
            if registration.state != RegistrationState::Cardless {
                tracing::error!(registration.id = %id, reason = why.as_str(), "paid, and there is no card to attach");
            }
            self.store.give_up_card(id, why, now).await?;
        }
        Ok(())
    }

    /// Follows up notices about registrations: the payment that each names is read, and the link of those that name none.
    pub(super) async fn follow_up_registrations(
        &self,
        notices: Vec<(OpenNotice, RegistrationId)>,
        now: DateTime<Utc>,
    ) -> anyhow::Result<()> {
        let mut closed = Vec::new();
        let mut denied = Vec::new();
        let mut ended = Vec::new();
        let mut outcome = Ok(());
        let mut found: HashMap<RegistrationId, OpenRegistration> = HashMap::new();
        for (notice, id) in notices {
            let Some(transaction_id) = notice.transaction_id else {
                ended.push(id);
                closed.push((notice.notice_id, NoticeState::Done));
                continue;
            };
            if !found.contains_key(&id) {
                found.extend(self.store.registration(id).await?.map(|one| (id, one)));
            }
            let (Some(registration), Some(shop)) = (found.get(&id), self.shops.get(&notice.shop))
            else {
                continue;
            };
            match self
                .follow_payment(shop, registration, transaction_id, now)
                .await
            {
                Ok(Followed::Final | Followed::Declined) => {
                    closed.push((notice.notice_id, NoticeState::Done))
                }
                Ok(Followed::Denied) => denied.push(notice.notice_id),
                Ok(Followed::Open) if self.insists(&notice, now) => {}
                Ok(Followed::Open) => closed.push((notice.notice_id, NoticeState::Done)),
                // One that fails keeps no other from being followed up.
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        self.note_denials(&denied, now).await?;
        self.store.hasten_registrations(&ended, now).await?;
        self.store.close_notices(&closed).await?;
        outcome
    }
}

/// A link, as far as it matters.
struct Link {
    /// The payments that did not come to nothing.
    payments: Vec<TransactionId>,
    /// Whether imoje says that it was ended.
    is_ended: bool,
}

impl From<Vec<TransactionId>> for Link {
    fn from(payments: Vec<TransactionId>) -> Self {
        Self {
            payments,
            is_ended: false,
        }
    }
}

/// What there is to follow. `None` when nothing is known.
async fn look_at_link(shop: &Shop, registration: &OpenRegistration) -> Option<Link> {
    match (registration.way, registration.payment_id) {
        (Way::Link, Some(payment_id)) => {
            read_link(shop.client.payment(payment_id).await, registration)
        }
        // Nobody knows its address.
        (Way::Link, None) => Some(Vec::new().into()),
        // The answer to card data was lost: a notice may tell of the transaction.
        (Way::CardData, _) => registration.sale_id.map(|sale_id| vec![sale_id].into()),
    }
}

/// `None` when nothing is known.
fn read_link(
    shown: Result<ShownPayment, ReadError>,
    registration: &OpenRegistration,
) -> Option<Link> {
    match shown {
        // Whether it is active is not asked: imoje's own sample of a link that was cancelled says that it is.
        Ok(shown) => Some(Link {
            is_ended: shown
                .status
                .as_deref()
                .is_some_and(|status| ["cancelled", "canceled", "expired"].contains(&status)),
            payments: shown
                .transactions?
                .into_iter()
                .filter(|payment| payment.may_have_moved_money())
                .map(|payment| payment.transaction_id)
                .collect(),
        }),
        Err(error) => {
            tracing::warn!(%error, registration.id = %registration.registration_id, "couldn't read a payment link");
            None
        }
    }
}

/// Ends a link at imoje whose payment would be for nothing any more. Returns whether nobody can pay by it from now on. No call of imoje ends
/// a transaction.
async fn close(shop: &Shop, registration: &OpenRegistration, now: DateTime<Utc>) -> bool {
    let Some(payment_id) = registration.payment_id else {
        return registration.way == Way::Link;
    };
    match shop.client.cancel_payment(payment_id).await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(%error, registration.id = %registration.registration_id, "couldn't end a payment link");
            now >= registration.valid_to
        }
    }
}

async fn read(
    shop: &Shop,
    registration: &OpenRegistration,
    transaction_id: TransactionId,
) -> Option<ReadAnswer> {
    let expected = shop
        .client
        .expected(registration.order_id(), registration.amount);
    match shop.client.transaction(transaction_id, &expected).await {
        Ok(answer) => Some(answer),
        Err(error) => {
            tracing::warn!(%error, registration.id = %registration.registration_id, "couldn't read a payment by a link");
            None
        }
    }
}

/// Whether imoje shows that money was taken for the order of a registration, of whatever amount.
fn is_settled_sale(answer: &ReadAnswer, registration: &OpenRegistration) -> bool {
    answer.shown.as_ref().is_some_and(|shown| {
        shown.order_id.as_deref() == Some(&registration.order_id())
            && shown.status.as_deref() == Some("settled")
            && shown.kind.as_deref() != Some("refund")
    })
}

/// The card that was registered by a payment, of which imoje shows this.
async fn registered_card(
    shop: &Shop,
    registration: &OpenRegistration,
    paid_with: Option<&ShownTransaction>,
) -> Result<Result<RegisteredCard, NoCard>, ReadError> {
    match registration.way {
        Way::Link => {
            let kept = kept_cards(shop, registration).await?;
            let paid_with = paid_with.and_then(|shown| shown.profile_id);
            Ok(card_of(&kept, paid_with).map(RegisteredCard::from))
        }
        Way::CardData => plain_card(shop, registration, paid_with).await,
    }
}

/// What names the card of a registration without a profile. imoje's documents say that a read of its transaction shows it, and document
/// it as a member of the profile; so that is asked for as well.
async fn plain_card(
    shop: &Shop,
    registration: &OpenRegistration,
    paid_with: Option<&ShownTransaction>,
) -> Result<Result<RegisteredCard, NoCard>, ReadError> {
    let shown = paid_with.and_then(|shown| {
        let first = shown.first_transaction_id.clone()?;
        Some((first, shown.masked_number.clone()))
    });
    let named = match shown {
        Some(named) => Some(named),
        None => match shop.client.profiles_of(&registration.cid).await {
            Ok(profiles) if profiles.len() > 1 => return Ok(Err(NoCard::Several)),
            Ok(mut profiles) => profiles.pop().and_then(|profile| {
                let first = profile.first_transaction_id?;
                Some((first, profile.masked_number))
            }),
            Err(ReadError::NotFound) => None,
            Err(error) => return Err(error),
        },
    };
    let card = named.and_then(|(first, masked_number)| {
        let first: FirstTransactionId = first.parse().ok()?;
        Some(RegisteredCard {
            key: CardKey::FirstTransaction(first),
            masked_number,
        })
    });
    Ok(card.ok_or(NoCard::Unknown))
}

/// The cards under the `cid` of a registration, if imoje lists its payment with its link.
async fn kept_cards(
    shop: &Shop,
    registration: &OpenRegistration,
) -> Result<Vec<KeptCard>, ReadError> {
    if let Some(payment_id) = registration.payment_id {
        let link = shop.client.payment(payment_id).await?;
        let is_listed = link.transactions.is_some_and(|payments| {
            payments
                .iter()
                .any(|payment| Some(payment.transaction_id) == registration.transaction_id)
        });
        if !is_listed {
            return Ok(Vec::new());
        }
    }
    match shop.client.profiles_of(&registration.cid).await {
        Ok(profiles) => Ok(profiles.into_iter().filter_map(kept).collect()),
        Err(ReadError::NotFound) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// A card that may be debited, or may be one. What imoje calls inactive is the card of no payment any more.
fn kept(profile: Profile) -> Option<KeptCard> {
    (profile.is_active != Some(false)).then(|| KeptCard {
        profile_id: profile.id,
        is_good: profile.is_active == Some(true) && profile.kind == Some(ProfileKind::Recurring),
        masked_number: profile.masked_number,
    })
}
