//! The registrar: makes and ends the links by which payers register cards, and has cards registered by their data. What comes of it is found
//! out by the resolver.

mod card_data;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde_json::Value;
use url::Url;

use crate::clock::{Clock, Moment};
use crate::domain::fields::{FieldError, validate_customer, validate_title};
use crate::domain::id::{PaymentId, RegistrationId, TransactionId};
use crate::domain::money::Currency;
use crate::domain::registration::{RegistrationEvent, RegistrationOrderId, Way};
use crate::domain::resolution::ResolverPolicy;
use crate::domain::shop::ShopName;
use crate::gateway::{
    LinkDetails, LinkOrder, LinkOutcome, ListedPayment, NoAnswer, NotSent, ReadError,
    registration_url,
};
use crate::store::registrations::{BeginError, Begun, EndError, Wanted};
use crate::store::status::By;
use crate::store::{Store, StoreError};
use crate::workers::shops::{Shop, Shops};

pub use card_data::{Made, NewCard};

/// Makes and ends links.
#[derive(Clone)]
pub struct Registrar {
    /// The books.
    pub store: Store,
    /// The shops to ask for.
    pub shops: Shops,
    /// When to look at a link.
    pub policy: ResolverPolicy,
    /// How long after its order card data that were never answered may be given up.
    pub absent_after: TimeDelta,
    /// What time it is.
    pub clock: Clock,
}

/// What is said about the payer and the link, besides what the subscription says.
#[derive(Debug, Clone, PartialEq)]
pub struct Invitation {
    /// The payer, as documented for `customer`, without the `cid`.
    pub customer: Value,
    /// What the payer reads, instead of the title of the subscription.
    pub title: Option<String>,
    /// What else is said.
    pub details: LinkDetails,
}

/// A link that can be paid.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Registered {
    /// The registration.
    pub registration_id: RegistrationId,
    /// Where the payer pays.
    pub url: Url,
    /// Until when.
    pub valid_to: DateTime<Utc>,
    /// How much, in minor units.
    pub amount_minor: i64,
    /// In which currency.
    pub currency: Currency,
    /// The period that is paid by it; absent for a verification.
    pub period_no: Option<u32>,
    /// Under which name imoje keeps the card.
    pub cid: String,
    /// What imoje was told as `orderId`.
    pub order_id: String,
    /// imoje's id of the link.
    pub payment_id: PaymentId,
}

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The books do not allow it.
    #[error(transparent)]
    Begin(#[from] BeginError),
    /// Nobody knows how to ask.
    #[error("shop {0} is not in the configuration, so imoje cannot be asked")]
    UnknownShop(ShopName),
    /// imoje would refuse a field.
    #[error(transparent)]
    Invalid(#[from] FieldError),
    /// The shop has no way to send card data.
    #[error(
        "shop {0} has no way for card data: it needs gateway.card_proxy_url, success_return_url and failure_return_url"
    )]
    NoCardData(ShopName),
    /// The issuer declined the card.
    #[error("the card was declined{}", .status_code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default())]
    Declined {
        /// The issuer's word on it.
        status_code: Option<String>,
    },
    /// Card data were sent, and money may have moved.
    #[error(
        "imoje's answer was lost or unreadable, so it is not known whether the card was charged (order {order_id}); nothing else is registered until it is"
    )]
    InDoubt {
        /// The registration.
        registration_id: RegistrationId,
        /// What imoje was told as `orderId`.
        order_id: String,
    },
    /// imoje has made a transaction, and could not be recorded to have. Money may have moved.
    #[error(
        "imoje has made transaction {transaction_id} of order {order_id}, and it could not be recorded: {source}"
    )]
    Unrecorded {
        /// imoje's id of it.
        transaction_id: TransactionId,
        /// What imoje was told as `orderId`.
        order_id: String,
        /// Why.
        source: EndError,
    },
    /// The registration was ended while imoje was asked.
    #[error(
        "the registration has ended meanwhile, so its payer must not be led to transaction {transaction_id}; what becomes of it is found out"
    )]
    Ended {
        /// imoje's id of it.
        transaction_id: TransactionId,
    },
    /// imoje refused.
    #[error("imoje refused: {code}{}", .message.as_ref().map(|message| format!(" {message}")).unwrap_or_default())]
    Refused {
        /// imoje's error code.
        code: String,
        /// imoje's words, when they can be read.
        message: Option<String>,
    },
    /// Nothing was asked.
    #[error("imoje could not be asked: {0}")]
    NotSent(NotSent),
    /// imoje may have made a link whose address nobody knows.
    #[error(
        "imoje's answer was lost or unreadable, so nobody knows the address of the link, if there is one"
    )]
    AnswerLost,
    /// imoje has made the link, and it could not be recorded.
    #[error("imoje has made the link, and it could not be recorded: {0}")]
    NotRecorded(EndError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a link was not ended.
#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    /// There is none.
    #[error("there is no such registration")]
    Missing,
    /// Nobody knows how to ask.
    #[error("shop {0} is not in the configuration, so imoje cannot be asked")]
    UnknownShop(ShopName),
    /// imoje does not say that it has ended.
    #[error("imoje does not say that the link has ended: {0}")]
    Gateway(ReadError),
    /// Card data were sent and never answered: they may have been charged, and imoje may tell of it until then.
    #[error(
        "imoje never answered, so the card may have been charged, and imoje may tell of it until {0}"
    )]
    TooEarly(DateTime<Utc>),
    /// Somebody pays, or has paid just now.
    #[error("somebody pays, or has paid: what comes of that is found out")]
    BeingPaid,
    /// It was paid, or has ended otherwise.
    #[error(transparent)]
    End(#[from] EndError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Registrar {
    /// Makes a link by which a payer registers a card for a subscription.
    ///
    /// # Errors
    /// [`RegisterError`]; there is no link then that anybody knows of, and another can be made. imoje may have one all the same, whose
    /// address nobody knows.
    pub async fn register(
        &self,
        wanted: &Wanted<'_>,
        invitation: Invitation,
    ) -> Result<Registered, RegisterError> {
        validate_customer(&invitation.customer)?;
        invitation.title.as_deref().map_or(Ok(()), validate_title)?;
        invitation.details.validate()?;
        let shop = self.shop_of(wanted).await?;
        let begun = self.begin(shop, wanted).await?;
        match shop
            .client
            .create_link(&order(&begun, invitation, shop), Moment::now())
            .await
        {
            Ok(answer) => match answer.outcome {
                LinkOutcome::Created { payment_id, url } => {
                    self.opened(shop, begun, (payment_id, url), wanted.by).await
                }
                LinkOutcome::Refused { code, message } => {
                    self.end(&begun, RegistrationEvent::Refused, &code).await?;
                    Err(RegisterError::Refused { code, message })
                }
                LinkOutcome::Unclear => self.lost(&begun).await,
            },
            Err(NoAnswer::NotSent(why)) => Err(self.not_sent(&begun, why).await?),
            Err(NoAnswer::Unknown(_)) => self.lost(&begun).await,
        }
    }

    async fn begin(&self, shop: &Shop, wanted: &Wanted<'_>) -> Result<Begun, BeginError> {
        self.store
            .begin_registration(wanted, self.clock.now(), |stopped, date| {
                let id = stopped.subscription_id;
                shop.calendar.due_at(id, stopped.zone, date)
            })
            .await
    }

    /// Nothing was asked, so there is nothing.
    async fn not_sent(&self, begun: &Begun, why: NotSent) -> Result<RegisterError, StoreError> {
        let error = if let NotSent::Invalid(field) = why {
            RegisterError::Invalid(field)
        } else {
            RegisterError::NotSent(why)
        };
        let reason = error.to_string();
        self.end(begun, RegistrationEvent::Refused, &reason).await?;
        Ok(error)
    }

    async fn shop_of(&self, wanted: &Wanted<'_>) -> Result<&Shop, RegisterError> {
        let id = wanted.subscription_id;
        let shop = self.store.shop_of_subscription(id).await?;
        let shop = shop.ok_or(BeginError::Missing(id))?;
        self.shops
            .get(&shop)
            .ok_or(RegisterError::UnknownShop(shop))
    }

    async fn opened(
        &self,
        shop: &Shop,
        begun: Begun,
        (payment_id, url): (PaymentId, Url),
        by: By<'_>,
    ) -> Result<Registered, RegisterError> {
        let id = begun.registration_id;
        let now = self.clock.now();
        let opened = self
            .store
            .open_registration(id, (payment_id, &url), by, &self.policy, now)
            .await;
        if let Err(error) = opened {
            // Nobody is told of it, so nobody needs it.
            if let Err(error) = shop.client.cancel_payment(payment_id).await {
                tracing::warn!(%error, registration.id = %id, "couldn't end a payment link");
            }
            return Err(RegisterError::NotRecorded(error));
        }
        Ok(Registered {
            registration_id: id,
            url,
            valid_to: begun.valid_to,
            amount_minor: begun.amount.minor(),
            currency: begun.amount.currency(),
            period_no: begun.period_no,
            order_id: RegistrationOrderId(id).to_string(),
            cid: begun.cid,
            payment_id,
        })
    }

    /// A payer who gets at such a link all the same is found by the notice of the payment.
    async fn lost(&self, begun: &Begun) -> Result<Registered, RegisterError> {
        self.end(begun, RegistrationEvent::Cancelled, "answer_lost")
            .await?;
        Err(RegisterError::AnswerLost)
    }

    async fn end(
        &self,
        begun: &Begun,
        event: RegistrationEvent,
        reason: &str,
    ) -> Result<(), StoreError> {
        let by = By::itself(reason);
        let ended = self
            .store
            .end_registration(begun.registration_id, event, Some(by), self.clock.now())
            .await;
        match ended {
            // Somebody else was faster; it has ended either way, or was paid.
            Ok(_) | Err(EndError::Illegal(_)) => Ok(()),
            Err(EndError::Store(error)) => Err(error),
        }
    }

    /// Ends a link that nobody has paid, at imoje and here; or, here, an order with card data that was never answered, when a person has
    /// seen that it came to nothing.
    ///
    /// # Errors
    /// [`CancelError`]; it can be repeated.
    pub async fn cancel(
        &self,
        registration_id: RegistrationId,
        by: By<'_>,
    ) -> Result<(), CancelError> {
        let found = self.store.registration(registration_id).await?;
        let found = found.ok_or(CancelError::Missing)?;
        if found.way == Way::CardData && found.state.is_payable() {
            // imoje has no call that ends a transaction, so it is given up only when nobody can tell anything of it any more.
            let now = self.clock.now();
            let unanswered_until = found.created_at + self.absent_after;
            match found.sale_id {
                Some(_) if now < found.valid_to + self.absent_after => {
                    return Err(CancelError::BeingPaid);
                }
                None if now < unanswered_until => {
                    return Err(CancelError::TooEarly(unanswered_until));
                }
                Some(_) | None => {}
            }
        }
        if let Some(payment_id) = found.payment_id
            && found.state.is_payable()
        {
            let shop = self
                .shops
                .get(&found.shop)
                .ok_or(CancelError::UnknownShop(found.shop))?;
            let closed = shop.client.cancel_payment(payment_id).await;
            if self.clock.now() < found.valid_to {
                closed.map_err(CancelError::Gateway)?;
            }
            // A payment that is under way may still come through, and then it counts.
            let link = shop.client.payment(payment_id).await;
            let payments = link.map_err(CancelError::Gateway)?.transactions;
            let is_quiet = payments
                .is_some_and(|payments| !payments.iter().any(ListedPayment::may_have_moved_money));
            if !is_quiet {
                return Err(CancelError::BeingPaid);
            }
        }
        let event = RegistrationEvent::Cancelled;
        let now = self.clock.now();
        self.store
            .end_registration(registration_id, event, Some(by), now)
            .await?;
        Ok(())
    }
}

/// Where the subscription has imoje send its notices.
fn own_notification_url(begun: &Begun) -> Option<Url> {
    begun.notification_url.as_ref()?.parse().ok()
}

/// Where imoje sends notices of registrations to Cykl.
fn notification_url(shop: &Shop) -> Option<Url> {
    let notices = shop.notices.as_ref()?;
    Some(registration_url(&notices.public_url))
}

/// The link to be ordered.
fn order(begun: &Begun, invitation: Invitation, shop: &Shop) -> LinkOrder {
    LinkOrder {
        order_id: RegistrationOrderId(begun.registration_id).to_string(),
        amount: begun.amount,
        customer: invitation.customer,
        cid: begun.cid.clone(),
        title: invitation.title.or_else(|| begun.title.clone()),
        notification_url: own_notification_url(begun).or_else(|| notification_url(shop)),
        valid_to: begun.valid_to,
        multipayout: begun.multipayout.clone(),
        invoice: begun.invoice.clone(),
        details: invitation.details,
    }
}
