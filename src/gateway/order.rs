//! One debit to be sent.

use serde_json::Value;
use url::Url;
use uuid::Uuid;

use crate::domain::fields::{
    FieldError, validate_invoice, validate_multipayout, validate_notification_url,
    validate_order_id, validate_profile_id, validate_title,
};
use crate::domain::id::ProfileId;
use crate::domain::money::Money;
use crate::domain::order_id::OrderId;
use crate::gateway::wire::{DebitData, DebitRequest};

/// A debit of a stored card (imoje API, `POST transaction/profile`). There is one for each attempt, and it is sent once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebitOrder {
    /// The attempt's own order id.
    pub order_id: OrderId,
    /// The stored card.
    pub profile_id: ProfileId,
    /// How much.
    pub amount: Money,
    /// What the payer may read about it.
    pub title: Option<String>,
    /// Where imoje sends its notices; the shop's address in imoje's panel when absent.
    pub notification_url: Option<Url>,
    /// The invoice, as documented.
    pub invoice: Option<Value>,
    /// The payouts, an array as documented for `data.multipayout`.
    pub multipayout: Option<Value>,
}

impl DebitOrder {
    /// The body of the request, once every field is known to be one that imoje takes.
    pub(super) fn to_json(&self, service_id: Uuid) -> Result<Vec<u8>, FieldError> {
        let order_id = self.order_id.to_string();
        let notification_url = self.notification_url.as_ref().map(Url::as_str);
        validate_order_id(&order_id)?;
        validate_profile_id(self.profile_id)?;
        self.title.as_deref().map_or(Ok(()), validate_title)?;
        notification_url.map_or(Ok(()), validate_notification_url)?;
        self.invoice.as_ref().map_or(Ok(()), validate_invoice)?;
        self.multipayout
            .as_ref()
            .map_or(Ok(()), validate_multipayout)?;
        let request = DebitRequest {
            service_id,
            payment_profile_id: self.profile_id.as_uuid(),
            amount: self.amount.minor(),
            currency: self.amount.currency().code(),
            order_id: &order_id,
            title: self.title.as_deref(),
            notification_url,
            data: self
                .multipayout
                .as_ref()
                .map(|multipayout| DebitData { multipayout }),
            invoice: self.invoice.as_ref(),
        };
        Ok(
            serde_json::to_vec(&request)
                .expect("texts, numbers and JSON values are always written"),
        )
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
            profile_id: "c0de0b1e-1111-4222-8333-9a4b5c6d7e8f".parse().unwrap(),
            amount: Money::new(4900, Currency::Pln).unwrap(),
            title: None,
            notification_url: None,
            invoice: None,
            multipayout: None,
        }
    }

    fn json_of(order: &DebitOrder) -> String {
        String::from_utf8(order.to_json(service_id()).unwrap()).unwrap()
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
                    profile_id: ProfileId::from_uuid(Uuid::nil()),
                    ..order()
                },
            ),
        ];
        for (field, order) in orders {
            assert_eq!(order.to_json(service_id()).unwrap_err().field, field);
        }
    }
}
