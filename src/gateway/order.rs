//! One debit to be sent.

use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

use crate::domain::card::{ChargedCard, PlainCard};
use crate::domain::fields::{
    FieldError, Problem, validate_card_aliases, validate_cid, validate_customer, validate_invoice,
    validate_multipayout, validate_notification_url, validate_order_id, validate_profile_id,
    validate_title,
};
use crate::domain::id::ProfileId;
use crate::domain::money::Money;
use crate::domain::order_id::OrderId;
use crate::domain::shop::ReturnUrls;
use crate::gateway::wire::{DebitData, DebitRequest, Payer, PlainRequest, to_json};

/// A debit of a card, by its profile (imoje API, `POST transaction/profile`) or without one (`POST transaction`). There is one for each
/// attempt, and it is sent once.
#[derive(Debug, Clone, PartialEq)]
pub struct DebitOrder {
    /// The attempt's own order id.
    pub order_id: OrderId,
    /// The card, as imoje knows it. Named by debits without a profile only.
    pub cid: String,
    /// How it is charged.
    pub card: ChargedCard,
    /// How much.
    pub amount: Money,
    /// What the payer may read about it.
    pub title: Option<String>,
    /// Where imoje sends its notices; the shop's address in imoje's panel when absent.
    pub notification_url: Option<Url>,
    /// The invoice, as documented.
    pub invoice: Option<Value>,
    /// The payouts, an array as documented for `data.multipayout`; for cards with a profile only.
    pub multipayout: Option<Value>,
}

/// A debit as it is sent.
pub(super) struct DebitBody {
    /// Where it belongs.
    pub endpoint: Endpoint,
    /// What it says.
    pub json: Vec<u8>,
}

/// Where a debit belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// `POST transaction/profile`
    Profile,
    /// `POST transaction`
    Plain,
    /// `POST transaction`, by way of the tokenising proxy.
    PlainThroughProxy,
}

impl DebitOrder {
    /// The request, once every field is known to be one that imoje takes.
    pub(super) fn to_body(
        &self,
        service_id: Uuid,
        return_to: Option<&ReturnUrls>,
    ) -> Result<DebitBody, FieldError> {
        let order_id = self.order_id.to_string();
        validate_order_id(&order_id)?;
        self.title.as_deref().map_or(Ok(()), validate_title)?;
        let notification_url = self.notification_url.as_ref().map(Url::as_str);
        notification_url.map_or(Ok(()), validate_notification_url)?;
        self.invoice.as_ref().map_or(Ok(()), validate_invoice)?;
        self.multipayout
            .as_ref()
            .map_or(Ok(()), validate_multipayout)?;
        let (endpoint, json) = match &self.card {
            ChargedCard::Stored(profile_id) => (
                Endpoint::Profile,
                self.stored_card(*profile_id, service_id, &order_id, notification_url)?,
            ),
            ChargedCard::Plain(plain) => {
                let endpoint = match &plain.aliases {
                    Some(_) => Endpoint::PlainThroughProxy,
                    None => Endpoint::Plain,
                };
                let return_to = return_to
                    .ok_or_else(|| missing("successReturnUrl", "success_return_url of the shop"))?;
                let json =
                    self.plain_card(plain, service_id, &order_id, notification_url, return_to)?;
                (endpoint, json)
            }
        };
        Ok(DebitBody { endpoint, json })
    }

    fn stored_card(
        &self,
        profile_id: ProfileId,
        service_id: Uuid,
        order_id: &str,
        notification_url: Option<&str>,
    ) -> Result<Vec<u8>, FieldError> {
        validate_profile_id(profile_id)?;
        Ok(to_json(&DebitRequest {
            service_id,
            payment_profile_id: profile_id.as_uuid(),
            amount: self.amount.minor(),
            currency: self.amount.currency().code(),
            order_id,
            title: self.title.as_deref(),
            notification_url,
            data: self
                .multipayout
                .as_ref()
                .map(|multipayout| DebitData { multipayout }),
            invoice: self.invoice.as_ref(),
        }))
    }

    fn plain_card(
        &self,
        plain: &PlainCard,
        service_id: Uuid,
        order_id: &str,
        notification_url: Option<&str>,
        return_to: &ReturnUrls,
    ) -> Result<Vec<u8>, FieldError> {
        validate_cid(&self.cid)?;
        validate_customer(&plain.customer)?;
        plain
            .aliases
            .as_ref()
            .map_or(Ok(()), validate_card_aliases)?;
        if self.multipayout.is_some() {
            return Err(FieldError {
                field: "multipayout".to_owned(),
                problem: Problem::Unknown,
                allowed: "debits of cards with a profile".to_owned(),
            });
        }
        let mut customer = plain.customer.clone();
        customer["cid"] = json!(self.cid);
        let mut card = plain.aliases.clone().unwrap_or_else(|| json!({}));
        card["firstTransactionId"] = json!(plain.first_transaction_id);
        let payer = Payer {
            customer: &customer,
            card: &card,
            return_to,
        };
        Ok(to_json(&PlainRequest {
            notification_url,
            title: self.title.as_deref(),
            invoice: self.invoice.as_ref(),
            ..PlainRequest::new("STANDARD", service_id, (self.amount, order_id), &payer)
        }))
    }
}

pub(super) fn missing(field: &str, allowed: &str) -> FieldError {
    FieldError {
        field: field.to_owned(),
        problem: Problem::Missing,
        allowed: allowed.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::id::SubscriptionId;
    use crate::domain::money::Currency;

    fn service_id() -> Uuid {
        Uuid::parse_str("2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b").unwrap()
    }

    fn order() -> DebitOrder {
        DebitOrder {
            order_id: OrderId {
                subscription_id: SubscriptionId::from_uuid(Uuid::from_u128(
                    0x0192_f0c1_a2b3_7c4d_8e5f_6071_8293_a4b5,
                )),
                period_no: 17,
                attempt_no: 2,
            },
            cid: "cus-77-card-1".to_owned(),
            card: stored("c0de0b1e-1111-4222-8333-9a4b5c6d7e8f"),
            amount: Money::new(4900, Currency::Pln).unwrap(),
            title: None,
            notification_url: None,
            invoice: None,
            multipayout: None,
        }
    }

    fn stored(profile_id: &str) -> ChargedCard {
        ChargedCard::Stored(profile_id.parse().unwrap())
    }

    fn plain(aliases: Option<Value>) -> DebitOrder {
        DebitOrder {
            card: ChargedCard::Plain(Box::new(PlainCard {
                first_transaction_id: "first-77".parse().unwrap(),
                customer: json!({"firstName": "Anna", "lastName": "Nowak", "email": "anna@example.test"}),
                aliases,
            })),
            ..order()
        }
    }

    fn return_to() -> ReturnUrls {
        ReturnUrls {
            success: "https://shop.example.test/ok".to_owned(),
            failure: "https://shop.example.test/no".to_owned(),
        }
    }

    fn body_of(order: &DebitOrder) -> (Endpoint, String) {
        let body = order.to_body(service_id(), Some(&return_to())).unwrap();
        (body.endpoint, String::from_utf8(body.json).unwrap())
    }

    fn json_of(order: &DebitOrder) -> String {
        let (endpoint, json) = body_of(order);
        assert_eq!(endpoint, Endpoint::Profile);
        json
    }

    #[test]
    fn a_debit_without_a_profile_says_who_pays_and_what_stands_for_the_security_code() {
        let (endpoint, json) = body_of(&plain(None));
        assert_eq!(endpoint, Endpoint::Plain);
        assert_eq!(
            json,
            concat!(
                r#"{"type":"sale","serviceId":"2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b","amount":4900,"currency":"PLN","#,
                r#""orderId":"cykl-0192f0c1a2b37c4d8e5f60718293a4b5-17-2","paymentMethod":"card","paymentMethodCode":"recurring","#,
                r#""successReturnUrl":"https://shop.example.test/ok","failureReturnUrl":"https://shop.example.test/no","#,
                r#""customer":{"cid":"cus-77-card-1","email":"anna@example.test","firstName":"Anna","lastName":"Nowak"},"#,
                r#""card":{"firstTransactionId":"first-77"},"profileType":"STANDARD"}"#
            )
        );
    }

    #[test]
    fn aliases_go_by_way_of_the_proxy() {
        let aliases = json!({"firstName": "Anna", "lastName": "Nowak", "number": "tok-1", "month": "12", "year": "2029"});
        let (endpoint, json) = body_of(&plain(Some(aliases.clone())));
        assert_eq!(endpoint, Endpoint::PlainThroughProxy);
        let sent: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(sent["card"]["number"], "tok-1");
        assert_eq!(sent["card"]["firstTransactionId"], "first-77");
        let mut number = aliases;
        number["number"] = json!("4111111111111111");
        let refused = plain(Some(number)).to_body(service_id(), Some(&return_to()));
        assert_eq!(refused.err().unwrap().problem, Problem::CardNumber);
    }

    #[test]
    fn what_is_documented_for_profiles_alone_is_not_sent_without_one() {
        let payouts = DebitOrder {
            multipayout: Some(
                json!([{"amount": 1, "ban": "61109010140000071219812874", "label": "A"}]),
            ),
            ..plain(None)
        };
        let error = payouts
            .to_body(service_id(), Some(&return_to()))
            .err()
            .unwrap();
        assert_eq!(
            (error.field.as_str(), error.problem),
            ("multipayout", Problem::Unknown)
        );
        let error = plain(None).to_body(service_id(), None).err().unwrap();
        assert_eq!(error.field, "successReturnUrl");
    }

    #[test]
    fn the_smallest_debit_has_the_five_required_members_in_documented_order() {
        assert_eq!(
            json_of(&order()),
            concat!(
                r#"{"serviceId":"2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b","#,
                r#""paymentProfileId":"c0de0b1e-1111-4222-8333-9a4b5c6d7e8f","amount":4900,"currency":"PLN","#,
                r#""orderId":"cykl-0192f0c1a2b37c4d8e5f60718293a4b5-17-2"}"#
            )
        );
    }

    #[test]
    fn optional_members_follow_in_documented_order() {
        let invoice = json!({
            "buyer": {"type": "PERSON", "email": "a@example.test", "fullName": "A", "street": "", "city": "",
                "postalCode": "1", "countryCodeAlpha2": "PL"},
            "positions": [{"name": "A", "code": "1", "quantity": 1, "unit": "u", "grossAmount": 1, "taxStake": "TAX_0"}]
        });
        let multipayout = json!([{"amount": 1, "ban": "61109010140000071219812874", "label": "A"}]);
        let order = DebitOrder {
            title: Some("Łódź 1".to_owned()),
            notification_url: Some(Url::parse("https://pay.example.test/n").unwrap()),
            invoice: Some(invoice.clone()),
            multipayout: Some(multipayout.clone()),
            ..order()
        };
        let json = json_of(&order);
        let (_, optional) = json.split_once("-17-2\",").unwrap();
        assert_eq!(
            optional,
            format!(
                r#""title":"Łódź 1","notificationUrl":"https://pay.example.test/n","data":{{"multipayout":{multipayout}}},"invoice":{invoice}}}"#
            )
        );
    }

    #[test]
    fn a_field_that_imoje_would_refuse_stops_the_debit() {
        let orders = [
            (
                "title",
                DebitOrder {
                    title: Some("a:b".to_owned()),
                    ..order()
                },
            ),
            (
                "notificationUrl",
                DebitOrder {
                    notification_url: Some(Url::parse("https://pay.example.test:8443/").unwrap()),
                    ..order()
                },
            ),
            (
                "invoice.buyer",
                DebitOrder {
                    invoice: Some(json!({})),
                    ..order()
                },
            ),
            (
                "multipayout",
                DebitOrder {
                    multipayout: Some(json!([])),
                    ..order()
                },
            ),
            (
                "paymentProfileId",
                DebitOrder {
                    card: ChargedCard::Stored(ProfileId::from_uuid(Uuid::nil())),
                    ..order()
                },
            ),
        ];
        for (field, order) in orders {
            assert_eq!(
                order.to_body(service_id(), None).err().unwrap().field,
                field
            );
        }
    }
}
