//! Payment links by which a payer registers a card. A link moves no money: the payer does, on imoje's own page, if at all.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

use crate::clock::Moment;
use crate::domain::answer::Body;
use crate::domain::fields::{
    FieldError, validate_billing, validate_cart, validate_cid, validate_customer,
    validate_description, validate_invoice, validate_multipayout, validate_notification_url,
    validate_order_id, validate_return_url, validate_shipping, validate_title,
};
use crate::domain::id::PaymentId;
use crate::domain::money::Money;
use crate::gateway::answer::{LinkAnswer, LinkOutcome, NoAnswer, NotSent, ReadError, ShownPayment};
use crate::gateway::client::{ImojeClient, below, found, transaction_body};
use crate::gateway::transport::{self, Received};
use crate::gateway::wire::{self, CancelRequest, PaymentRequest, to_json};

/// A payment link that registers a card for recurring debits (imoje API, `POST payment`).
///
/// imoje's documents name no recipe for that. `customer.cid` is "required for oneclick and recurring payments" and `recurring` is a
/// code to preselect, so both are sent, and no other method but the card is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkOrder {
    /// `orderId`
    pub order_id: String,
    /// How much the payer pays.
    pub amount: Money,
    /// The payer, as documented for `customer`, without the `cid`.
    pub customer: Value,
    /// Under which name imoje stores the card: one instrument, one `cid`.
    pub cid: String,
    /// What the payer reads.
    pub title: Option<String>,
    /// Where imoje sends its notices; the shop's address in imoje's panel when absent.
    pub notification_url: Option<Url>,
    /// Until when it can be paid; at least a minute from now.
    pub valid_to: DateTime<Utc>,
    /// The payouts, an array as documented for `multipayout`.
    pub multipayout: Option<Value>,
    /// The invoice, as documented.
    pub invoice: Option<Value>,
    /// What else is said.
    pub details: LinkDetails,
}

/// What a payment link may say besides. Nothing, by default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LinkDetails {
    /// `additionalDescription`
    pub description: Option<String>,
    /// `returnUrl`: where the payer goes when the outcome is open.
    pub return_url: Option<String>,
    /// `successReturnUrl`
    pub success_return_url: Option<String>,
    /// `failureReturnUrl`
    pub failure_return_url: Option<String>,
    /// `billing`, as documented.
    pub billing: Option<Value>,
    /// `shipping`, as documented.
    pub shipping: Option<Value>,
    /// `cart`, as documented.
    pub cart: Option<Value>,
    /// `isKsef`: whether imoje makes a KSeF payment identifier.
    pub is_ksef: bool,
}

impl LinkDetails {
    /// Whether imoje takes each of them.
    ///
    /// # Errors
    /// The first thing that is wrong, with its path.
    pub fn validate(&self) -> Result<(), FieldError> {
        fn each<T: ?Sized>(
            value: Option<&T>,
            check: impl Fn(&T) -> Result<(), FieldError>,
        ) -> Result<(), FieldError> {
            value.map_or(Ok(()), check)
        }
        each(self.description.as_deref(), validate_description)?;
        for (field, url) in [
            ("returnUrl", &self.return_url),
            ("successReturnUrl", &self.success_return_url),
            ("failureReturnUrl", &self.failure_return_url),
        ] {
            each(url.as_deref(), |url| validate_return_url(field, url))?;
        }
        each(self.billing.as_ref(), validate_billing)?;
        each(self.shipping.as_ref(), validate_shipping)?;
        each(self.cart.as_ref(), validate_cart)
    }
}

impl LinkOrder {
    /// The request, once every field is known to be one that imoje takes.
    fn to_body(&self, service_id: Uuid) -> Result<Vec<u8>, FieldError> {
        validate_order_id(&self.order_id)?;
        validate_customer(&self.customer)?;
        validate_cid(&self.cid)?;
        self.title.as_deref().map_or(Ok(()), validate_title)?;
        let notification_url = self.notification_url.as_ref().map(Url::as_str);
        notification_url.map_or(Ok(()), validate_notification_url)?;
        self.multipayout
            .as_ref()
            .map_or(Ok(()), validate_multipayout)?;
        self.invoice.as_ref().map_or(Ok(()), validate_invoice)?;
        self.details.validate()?;
        let mut customer = self.customer.clone();
        customer["cid"] = json!(self.cid);
        let details = &self.details;
        Ok(to_json(&PaymentRequest {
            service_id,
            amount: self.amount.minor(),
            currency: self.amount.currency().code(),
            order_id: &self.order_id,
            customer: &customer,
            title: self.title.as_deref(),
            additional_description: details.description.as_deref(),
            visible_method: ["card"],
            preselect_method_code: "recurring",
            return_url: details.return_url.as_deref(),
            success_return_url: details.success_return_url.as_deref(),
            failure_return_url: details.failure_return_url.as_deref(),
            notification_url,
            valid_to: self.valid_to.timestamp(),
            billing: details.billing.as_ref(),
            shipping: details.shipping.as_ref(),
            cart: details.cart.as_ref(),
            multipayout: self.multipayout.as_ref(),
            invoice: self.invoice.as_ref(),
            is_ksef: details.is_ksef,
        }))
    }
}

impl ImojeClient {
    /// Makes a payment link: `POST {merchantId}/payment`. Sent once, if at all; a link whose answer is lost has an address that nobody
    /// knows.
    ///
    /// # Errors
    /// As [`ImojeClient::debit`].
    pub async fn create_link(
        &self,
        order: &LinkOrder,
        permitted_at: Moment,
    ) -> Result<LinkAnswer, NoAnswer> {
        let json = order
            .to_body(self.service_id)
            .map_err(|field| NoAnswer::NotSent(NotSent::Invalid(field)))?;
        let url = below(&self.merchant_url, &["payment"]);
        let received = self.send_once(url, json, permitted_at).await?;
        Ok(LinkAnswer {
            http_status: received.http_status,
            outcome: self.outcome(&received, order),
        })
    }

    fn outcome(&self, received: &Received, order: &LinkOrder) -> LinkOutcome {
        if received.http_status != 200 {
            return match transaction_body(received) {
                Body::Error { code, message } if received.http_status < 500 => {
                    LinkOutcome::Refused { code, message }
                }
                Body::Error { .. } | Body::Transaction(_) | Body::Unreadable => {
                    LinkOutcome::Unclear
                }
            };
        }
        let Some(link) = received.body.as_deref().and_then(wire::read_link) else {
            return LinkOutcome::Unclear;
        };
        let is_ours = link.order_id.as_deref() == Some(&order.order_id)
            && link.amount_minor == Some(order.amount.minor())
            && link.currency.as_deref() == Some(order.amount.currency().code())
            && link.service_id.as_deref() == Some(&self.service_id.to_string());
        match Url::parse(&link.url) {
            Ok(url) if is_ours && matches!(url.scheme(), "http" | "https") => {
                LinkOutcome::Created {
                    payment_id: link.id,
                    url,
                }
            }
            Ok(_) | Err(_) => LinkOutcome::Unclear,
        }
    }

    /// Reads a payment link and the transactions that were made by it: `GET {merchantId}/payment/{id}`. It may be asked again at will.
    ///
    /// # Errors
    /// As [`ImojeClient::profile`].
    pub async fn payment(&self, id: PaymentId) -> Result<ShownPayment, ReadError> {
        let received = self.read(&["payment", &id.to_string()]).await?;
        let shown = wire::read_payment(&found(received)?).ok_or(ReadError::Unreadable)?;
        if shown.id == id {
            Ok(shown)
        } else {
            Err(ReadError::Mismatch)
        }
    }

    /// Ends a payment link, so that it cannot be paid any more: `POST {merchantId}/payment/cancel`. It may be repeated. A payment that is
    /// under way may still come through; [`ImojeClient::payment`] says what became of it.
    ///
    /// # Errors
    /// As [`ImojeClient::profile`].
    pub async fn cancel_payment(&self, id: PaymentId) -> Result<(), ReadError> {
        let url = below(&self.merchant_url, &["payment", "cancel"]);
        let json = to_json(&CancelRequest {
            service_id: self.service_id,
            payment_id: id.as_uuid(),
        });
        let received = self
            .ask(transport::json_post(&self.http, url, json))
            .await?;
        found(received).map(drop)
    }
}
