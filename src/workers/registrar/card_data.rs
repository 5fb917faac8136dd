//! Cards that are registered by their data, by shops that may send it. The payer is present, and money may move at once.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use url::Url;

use super::{RegisterError, Registrar, notification_url, own_notification_url};
use crate::clock::Moment;
use crate::domain::fields::{
    FieldError, validate_browser, validate_customer, validate_new_card, validate_return_url,
    validate_title,
};
use crate::domain::id::{RegistrationId, TransactionId};
use crate::domain::money::Currency;
use crate::domain::registration::{RegistrationEvent, RegistrationOrderId};
use crate::domain::shop::ReturnUrls;
use crate::gateway::{Action, FirstDetails, FirstOrder, FirstOutcome, NoAnswer};
use crate::store::registrations::{Begun, CardData, EndError, Wanted};
use crate::store::status::By;
use crate::workers::shops::Shop;

/// What is said about the payer and the card, besides what the subscription says.
#[derive(Debug, Clone, PartialEq)]
pub struct NewCard {
    /// The payer, as documented for `customer`, without the `cid`.
    pub customer: Value,
    /// The members of `card` with the security code, all of them aliases of the tokenising proxy. That of the code is not kept.
    pub card: Value,
    /// `additionalData.browser`
    pub browser: Value,
    /// Where the payer goes on after 3-D Secure, instead of to the addresses of the shop.
    pub return_to: Option<ReturnUrls>,
    /// What the payer reads, instead of the title of the subscription.
    pub title: Option<String>,
    /// What else is said.
    pub details: FirstDetails,
}

/// A transaction that registers a card. What becomes of its money the daemon finds out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Made {
    /// The registration.
    pub registration_id: RegistrationId,
    /// imoje's id of the transaction.
    pub transaction_id: TransactionId,
    /// imoje's first word on it, such as `pending`.
    pub status: String,
    /// Where the payer's browser has to go first, for 3-D Secure.
    pub url: Option<Url>,
    /// How it goes there: `GET`, or `POST` with the content.
    pub method: Option<String>,
    /// The content type of what is posted.
    pub content_type: Option<String>,
    /// What is posted.
    pub content: Option<String>,
    /// Until when the payer can confirm it.
    pub valid_to: DateTime<Utc>,
    /// How much, in minor units.
    pub amount_minor: i64,
    /// In which currency.
    pub currency: Currency,
    /// The period that is paid by it; absent for a verification.
    pub period_no: Option<u32>,
    /// Under which name imoje knows the card.
    pub cid: String,
    /// What imoje was told as `orderId`.
    pub order_id: String,
}

impl NewCard {
    fn validate(&self) -> Result<(), FieldError> {
        validate_customer(&self.customer)?;
        validate_new_card(&self.card)?;
        validate_browser(&self.browser)?;
        if let Some(return_to) = &self.return_to {
            validate_return_url("successReturnUrl", &return_to.success)?;
            validate_return_url("failureReturnUrl", &return_to.failure)?;
        }
        self.title.as_deref().map_or(Ok(()), validate_title)?;
        self.details.validate()
    }

    /// What later debits say: all but the security code, which is for this once.
    fn aliases(&self) -> Value {
        let mut aliases = self.card.clone();
        if let Some(members) = aliases.as_object_mut() {
            members.remove("cvv");
        }
        aliases
    }
}

impl Registrar {
    /// Registers a card by its data: commits what is asked for, sends it once, and notes what imoje has made of it.
    ///
    /// # Errors
    /// [`RegisterError`]. Money has not moved then, but for [`RegisterError::InDoubt`] and [`RegisterError::Unrecorded`]: no other
    /// registration of the subscription begins before it is known, or given up by a person after imoje's last notice.
    pub async fn register_card(
        &self,
        wanted: &Wanted<'_>,
        new_card: NewCard,
    ) -> Result<Made, RegisterError> {
        new_card.validate()?;
        let shop = self.shop_of(wanted).await?;
        if !shop.client.takes_card_data() {
            return Err(RegisterError::NoCardData(shop.name.clone()));
        }
        let aliases = new_card.aliases();
        let card_data = CardData {
            customer: &new_card.customer,
            aliases: &aliases,
        };
        let wanted = Wanted {
            card_data: Some(card_data),
            ..*wanted
        };
        // Before the commit, so that a process that slept after it sends nothing.
        let permitted_at = Moment::now();
        let begun = self.begin(shop, &wanted).await?;
        let id = begun.registration_id;
        let order = order(&begun, &new_card, shop);
        let outcome = match shop.client.register_card(&order, permitted_at).await {
            Ok(outcome) => outcome,
            Err(NoAnswer::NotSent(why)) => return Err(self.not_sent(&begun, why).await?),
            Err(NoAnswer::Unknown(_)) => FirstOutcome::Unclear,
        };
        match outcome {
            FirstOutcome::Made {
                transaction_id,
                status,
                action,
            } => {
                let url = action.as_ref().map(|action| &action.url);
                self.note(id, (transaction_id, url), wanted.by).await?;
                Ok(made(begun, transaction_id, status, action))
            }
            FirstOutcome::Declined {
                transaction_id,
                status_code,
            } => {
                self.note(id, (transaction_id, None), wanted.by).await?;
                self.end(&begun, RegistrationEvent::Cancelled, "declined")
                    .await?;
                Err(RegisterError::Declined { status_code })
            }
            FirstOutcome::Refused { code, message } => {
                self.end(&begun, RegistrationEvent::Refused, &code).await?;
                Err(RegisterError::Refused { code, message })
            }
            FirstOutcome::Unclear => {
                let now = self.clock.now();
                self.store.tell_unanswered_registration(id, now).await?;
                Err(RegisterError::InDoubt {
                    registration_id: id,
                    order_id: order.order_id,
                })
            }
        }
    }

    /// Notes which transaction it is.
    async fn note(
        &self,
        id: RegistrationId,
        sale: (TransactionId, Option<&Url>),
        by: By<'_>,
    ) -> Result<(), RegisterError> {
        let transaction_id = sale.0;
        match self.store.note_sale(id, sale, by, self.clock.now()).await {
            Ok(()) => Ok(()),
            // A notice was faster.
            Err(EndError::Illegal(illegal)) if !illegal.state.is_over() => Ok(()),
            Err(EndError::Illegal(_)) => Err(RegisterError::Ended { transaction_id }),
            Err(source @ EndError::Store(_)) => Err(RegisterError::Unrecorded {
                transaction_id,
                order_id: RegistrationOrderId(id).to_string(),
                source,
            }),
        }
    }
}

fn made(
    begun: Begun,
    transaction_id: TransactionId,
    status: String,
    action: Option<Action>,
) -> Made {
    let (url, method, content_type, content) = match action {
        Some(action) => (
            Some(action.url),
            Some(action.method),
            action.content_type,
            action.content,
        ),
        None => (None, None, None, None),
    };
    Made {
        registration_id: begun.registration_id,
        transaction_id,
        status,
        url,
        method,
        content_type,
        content,
        valid_to: begun.valid_to,
        amount_minor: begun.amount.minor(),
        currency: begun.amount.currency(),
        period_no: begun.period_no,
        order_id: RegistrationOrderId(begun.registration_id).to_string(),
        cid: begun.cid,
    }
}

/// The transaction to be ordered.
fn order(begun: &Begun, new_card: &NewCard, shop: &Shop) -> FirstOrder {
    FirstOrder {
        order_id: RegistrationOrderId(begun.registration_id).to_string(),
        amount: begun.amount,
        customer: new_card.customer.clone(),
        cid: begun.cid.clone(),
        card: new_card.card.clone(),
        browser: new_card.browser.clone(),
        return_to: new_card.return_to.clone(),
        title: new_card.title.clone().or_else(|| begun.title.clone()),
        // What became of it while its answer is lost, a notice alone tells.
        notification_url: notification_url(shop).or_else(|| own_notification_url(begun)),
        valid_to: begun.valid_to,
        invoice: begun.invoice.clone(),
        details: new_card.details.clone(),
    }
}
