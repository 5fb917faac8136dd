//! The registration of a card without a profile, for merchants with a PCI DSS certificate. The payer is present, and money may move at once.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

use crate::clock::Moment;
use crate::domain::answer::{Body, Verdict, classify_debit};
use crate::domain::fields::{
    FieldError, validate_billing, validate_browser, validate_cid, validate_customer,
    validate_description, validate_invoice, validate_new_card, validate_notification_url,
    validate_order_id, validate_shipping, validate_title,
};
use crate::domain::id::TransactionId;
use crate::domain::money::Money;
use crate::domain::shop::ReturnUrls;
use crate::gateway::answer::{NoAnswer, NotSent};
use crate::gateway::client::{ImojeClient, transaction_body};
use crate::gateway::order::missing;
use crate::gateway::wire::{self, AdditionalData, Payer, PlainRequest, ShownAction, to_json};

/// A transaction that registers a card (imoje API, `POST transaction`, `profileType` `FIRST`). The card is named by aliases, so it goes
/// through a tokenising proxy, or not at all.
#[derive(Debug, Clone, PartialEq)]
pub struct FirstOrder {
    /// `orderId`
    pub order_id: String,
    /// How much is taken.
    pub amount: Money,
    /// The payer, as documented for `customer`, without the `cid`.
    pub customer: Value,
    /// Under which name imoje knows the card: one instrument, one `cid`.
    pub cid: String,
    /// The members of `card` with the security code, all of them aliases.
    pub card: Value,
    /// `additionalData.browser`, for 3-D Secure.
    pub browser: Value,
    /// Where the payer goes on after 3-D Secure; to the addresses of the shop when absent.
    pub return_to: Option<ReturnUrls>,
    /// What the payer reads.
    pub title: Option<String>,
    /// Where imoje sends its notices; the shop's address in imoje's panel when absent.
    pub notification_url: Option<Url>,
    /// Until when the payer can confirm it; at least a minute from now.
    pub valid_to: DateTime<Utc>,
    /// The invoice, as documented.
    pub invoice: Option<Value>,
    /// What else is said.
    pub details: FirstDetails,
}

/// What the transaction may say besides. Nothing, by default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FirstDetails {
    /// `additionalDescription`
    pub description: Option<String>,
    /// `billing`, as documented.
    pub billing: Option<Value>,
    /// `shipping`, as documented.
    pub shipping: Option<Value>,
}

/// What became of a transaction that was to register a card: an HTTP answer came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstOutcome {
    /// It is there. What becomes of its money, a read of it says.
    Made {
        /// imoje's id of it.
        transaction_id: TransactionId,
        /// `status`, such as `pending`.
        status: String,
        /// What the payer has to do first, if anything.
        action: Option<Action>,
    },
    /// It is there, and the card was declined.
    Declined {
        /// imoje's id of it.
        transaction_id: TransactionId,
        /// `statusCode`, the issuer's word on it.
        status_code: Option<String>,
    },
    /// There is none.
    Refused {
        /// imoje's error code.
        code: String,
        /// imoje's words, when they can be read.
        message: Option<String>,
    },
    /// There may be one, and money may have moved.
    Unclear,
}

/// Where the payer's browser has to go, for 3-D Secure: `action` of type `redirect`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// The address.
    pub url: Url,
    /// `GET` or `POST`
    pub method: String,
    /// Of what is sent there by `POST`: its content type.
    pub content_type: Option<String>,
    /// And the content itself.
    pub content: Option<String>,
}

impl FirstDetails {
    /// Whether imoje takes each of them.
    ///
    /// # Errors
    /// The first thing that is wrong, with its path.
    pub fn validate(&self) -> Result<(), FieldError> {
        let description = self.description.as_deref();
        description.map_or(Ok(()), validate_description)?;
        self.billing.as_ref().map_or(Ok(()), validate_billing)?;
        self.shipping.as_ref().map_or(Ok(()), validate_shipping)
    }
}

impl FirstOrder {
    /// The request, once every field is known to be one that imoje takes.
    fn to_body(&self, service_id: Uuid, return_to: &ReturnUrls) -> Result<Vec<u8>, FieldError> {
        validate_order_id(&self.order_id)?;
        validate_customer(&self.customer)?;
        validate_cid(&self.cid)?;
        validate_new_card(&self.card)?;
        validate_browser(&self.browser)?;
        self.title.as_deref().map_or(Ok(()), validate_title)?;
        let notification_url = self.notification_url.as_ref().map(Url::as_str);
        notification_url.map_or(Ok(()), validate_notification_url)?;
        self.invoice.as_ref().map_or(Ok(()), validate_invoice)?;
        self.details.validate()?;
        let mut customer = self.customer.clone();
        customer["cid"] = json!(self.cid);
        Ok(to_json(&PlainRequest {
            additional_description: self.details.description.as_deref(),
            valid_to: Some(self.valid_to.timestamp()),
            billing: self.details.billing.as_ref(),
            shipping: self.details.shipping.as_ref(),
            additional_data: Some(AdditionalData {
                browser: &self.browser,
            }),
            notification_url,
            title: self.title.as_deref(),
            invoice: self.invoice.as_ref(),
            ..PlainRequest::new(
                "FIRST",
                service_id,
                (self.amount, &self.order_id),
                &Payer {
                    customer: &customer,
                    card: &self.card,
                    return_to,
                },
            )
        }))
    }
}

impl ImojeClient {
    /// Whether [`ImojeClient::register_card`] has a proxy to go through, and the debits that follow have addresses to lead payers back to.
    pub fn takes_card_data(&self) -> bool {
        self.proxied_debit_url.is_some() && self.return_to.is_some()
    }

    /// Registers a card and takes money with it: `POST {merchantId}/transaction`, by way of the tokenising proxy. Sent once, if at all.
    ///
    /// # Errors
    /// As [`ImojeClient::debit`].
    pub async fn register_card(
        &self,
        order: &FirstOrder,
        permitted_at: Moment,
    ) -> Result<FirstOutcome, NoAnswer> {
        let not_sent = NoAnswer::NotSent;
        let return_to = order.return_to.as_ref().or(self.return_to.as_ref());
        let json = return_to
            .ok_or_else(|| missing("successReturnUrl", "success_return_url of the shop"))
            .and_then(|return_to| order.to_body(self.service_id, return_to))
            .map_err(|field| not_sent(NotSent::Invalid(field)))?;
        let url = self
            .proxied_debit_url
            .clone()
            .ok_or_else(|| not_sent(NotSent::NoCardProxy))?;
        let received = self.send_once(url, json, permitted_at).await?;
        let body = transaction_body(&received);
        let expected = self.expected(order.order_id.clone(), order.amount);
        let verdict = classify_debit(received.http_status, &body, &expected);
        let action = received.body.as_deref().and_then(wire::read_action);
        Ok(outcome(&verdict, body, action))
    }
}

fn outcome(verdict: &Verdict, body: Body, action: Option<ShownAction>) -> FirstOutcome {
    match (verdict, body) {
        (Verdict::Rejected { .. }, Body::Transaction(shown)) => {
            shown.id.map_or(FirstOutcome::Unclear, |transaction_id| {
                FirstOutcome::Declined {
                    transaction_id,
                    status_code: shown.status_code,
                }
            })
        }
        (Verdict::Settled { .. } | Verdict::Pending { .. }, Body::Transaction(shown)) => {
            match (shown.id, shown.status) {
                (Some(transaction_id), Some(status)) => FirstOutcome::Made {
                    transaction_id,
                    status,
                    action: action.and_then(to_do),
                },
                _ => FirstOutcome::Unclear,
            }
        }
        (Verdict::Refused(_), Body::Error { code, message }) => {
            FirstOutcome::Refused { code, message }
        }
        (
            Verdict::Settled { .. }
            | Verdict::Pending { .. }
            | Verdict::Rejected { .. }
            | Verdict::Refused(_)
            | Verdict::InDoubt(_),
            _,
        ) => FirstOutcome::Unclear,
    }
}

/// What a browser can do. Anything else leaves the payer where he is, and the transaction comes to nothing.
fn to_do(shown: ShownAction) -> Option<Action> {
    let url = Url::parse(shown.url.as_deref()?).ok()?;
    let is_for_browsers = matches!(url.scheme(), "http" | "https")
        && shown.kind.as_deref() == Some("redirect")
        && matches!(shown.method.as_deref(), Some("GET" | "POST"));
    is_for_browsers.then(|| Action {
        url,
        method: shown.method.unwrap_or_default(),
        content_type: shown.content_type,
        content: shown.content_body_raw,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::money::Currency;

    fn service_id() -> Uuid {
        Uuid::parse_str("2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b").unwrap()
    }

    fn return_to() -> ReturnUrls {
        ReturnUrls {
            success: "https://shop.example.test/ok".to_owned(),
            failure: "https://shop.example.test/no".to_owned(),
        }
    }

    fn order() -> FirstOrder {
        FirstOrder {
            order_id: "cykl-r-0192f0c1a2b37c4d8e5f60718293a4b5".to_owned(),
            amount: Money::new(4900, Currency::Pln).unwrap(),
            customer: json!({"firstName": "Anna", "lastName": "Nowak", "email": "anna@example.test"}),
            cid: "cus-77-card-1".to_owned(),
            card: json!({
                "firstName": "Anna", "lastName": "Nowak", "number": "tok-1", "month": "12", "year": "2029", "cvv": "tok-2"
            }),
            browser: json!({
                "ip": "203.0.113.9", "language": "pl-PL", "jsEnabled": true, "timezoneOffset": -60, "userAgent": "UA",
                "accept": "text/html", "javaEnabled": false, "screenColorDepth": 24, "screenHeight": 1080, "screenWidth": 1920
            }),
            return_to: None,
            title: None,
            notification_url: None,
            valid_to: DateTime::from_timestamp(1_790_003_600, 0).unwrap(),
            invoice: None,
            details: FirstDetails::default(),
        }
    }

    #[test]
    fn all_that_a_registration_by_card_data_can_say_is_said() {
        let address = json!({"firstName": "Anna", "lastName": "Nowak", "city": "Lodz"});
        let invoice = json!({
            "buyer": {"type": "PERSON", "email": "a@example.test", "fullName": "A", "street": "", "city": "",
                "postalCode": "1", "countryCodeAlpha2": "PL"},
            "positions": [{"name": "A", "code": "1", "quantity": 1, "unit": "u", "grossAmount": 1, "taxStake": "TAX_0"}]
        });
        let full = FirstOrder {
            title: Some("Abonament 1".to_owned()),
            notification_url: Some(Url::parse("https://pay.example.test/n").unwrap()),
            invoice: Some(invoice.clone()),
            details: FirstDetails {
                description: Some("Twelve months".to_owned()),
                billing: Some(address.clone()),
                shipping: Some(address.clone()),
            },
            ..order()
        };
        let json = String::from_utf8(full.to_body(service_id(), &return_to()).unwrap()).unwrap();
        let card = concat!(
            r#""card":{"cvv":"tok-2","firstName":"Anna","lastName":"Nowak","month":"12","number":"tok-1","year":"2029"},"#,
            r#""additionalData":{"browser":{"accept":"text/html","ip":"203.0.113.9","javaEnabled":false,"jsEnabled":true,"#,
            r#""language":"pl-PL","screenColorDepth":24,"screenHeight":1080,"screenWidth":1920,"timezoneOffset":-60,"userAgent":"UA"}}"#
        );
        let end = r#","profileType":"FIRST"}"#;
        let head = concat!(
            r#"{"type":"sale","serviceId":"2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b","amount":4900,"currency":"PLN","#,
            r#""orderId":"cykl-r-0192f0c1a2b37c4d8e5f60718293a4b5","paymentMethod":"card","paymentMethodCode":"recurring","#,
            r#""successReturnUrl":"https://shop.example.test/ok","failureReturnUrl":"https://shop.example.test/no","#
        );
        let customer = r#""customer":{"cid":"cus-77-card-1","email":"anna@example.test","firstName":"Anna","lastName":"Nowak"},"#;
        assert_eq!(
            json,
            format!(
                r#"{head}"notificationUrl":"https://pay.example.test/n","title":"Abonament 1","additionalDescription":"Twelve months","validTo":1790003600,{customer}"billing":{address},"shipping":{address},{card},"invoice":{invoice}{end}"#
            )
        );
        let smallest = order().to_body(service_id(), &return_to()).unwrap();
        assert_eq!(
            String::from_utf8(smallest).unwrap(),
            format!(r#"{head}"validTo":1790003600,{customer}{card}{end}"#)
        );
    }

    #[test]
    fn a_browser_is_led_where_browsers_can_go_only() {
        let shown = |kind: &str, url: &str, method: &str| ShownAction {
            kind: Some(kind.to_owned()),
            url: Some(url.to_owned()),
            method: Some(method.to_owned()),
            ..ShownAction::default()
        };
        let url = "https://acs.example.test/challenge";
        for method in ["GET", "POST"] {
            let action = to_do(shown("redirect", url, method)).unwrap();
            assert_eq!((action.url.as_str(), action.method.as_str()), (url, method));
        }
        for not in [
            shown("transfer", url, "GET"),
            shown("redirect", url, "PUT"),
            shown("redirect", "javascript:alert(1)", "GET"),
            shown("redirect", "nowhere", "GET"),
            ShownAction::default(),
        ] {
            assert_eq!(to_do(not), None);
        }
    }
}
