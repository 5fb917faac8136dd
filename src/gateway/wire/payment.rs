//! What an answer about a payment link shows.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::members::{Flag, List, Listed, Text, TransactionNumber, Whole, uuid};
use crate::domain::id::PaymentId;
use crate::gateway::answer::{ListedPayment, ShownPayment};

/// A link that was made, with what its answer repeats of the request.
pub(in crate::gateway) struct Link {
    pub(in crate::gateway) id: PaymentId,
    pub(in crate::gateway) url: String,
    pub(in crate::gateway) order_id: Option<String>,
    pub(in crate::gateway) amount_minor: Option<i64>,
    pub(in crate::gateway) currency: Option<String>,
    pub(in crate::gateway) service_id: Option<String>,
}

/// The link in an answer to `POST payment`, wrapped or bare, if it has an id and an address.
pub(in crate::gateway) fn read_link(bytes: &[u8]) -> Option<Link> {
    let members = read_members(bytes)?;
    Some(Link {
        id: members.id()?,
        url: members.url.0?,
        order_id: members.order_id.0,
        amount_minor: members.amount.0,
        currency: members.currency.0,
        service_id: members.service_id.0,
    })
}

/// The link in an answer to `GET payment/{id}`, wrapped or bare, if it has an id.
pub(in crate::gateway) fn read_payment(bytes: &[u8]) -> Option<ShownPayment> {
    let members = read_members(bytes)?;
    Some(ShownPayment {
        id: members.id()?,
        status: members.status.0,
        order_id: members.order_id.0,
        amount_minor: members.amount.0,
        currency: members.currency.0,
        service_id: members.service_id.0,
        is_active: members.is_active.0,
        transactions: members.transactions.0,
    })
}

fn read_members(bytes: &[u8]) -> Option<Members> {
    #[derive(Deserialize)]
    struct Wrapped {
        payment: Members,
    }
    match serde_json::from_slice::<Wrapped>(bytes) {
        Ok(wrapped) => Some(wrapped.payment),
        Err(_) => serde_json::from_slice(bytes).ok(),
    }
}

/// The members of a link that Cykl reads. The payer is not among them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Members {
    #[serde(default)]
    id: Text,
    #[serde(default)]
    url: Text,
    #[serde(default)]
    status: Text,
    #[serde(default)]
    order_id: Text,
    #[serde(default)]
    amount: Whole,
    #[serde(default)]
    currency: Text,
    #[serde(default)]
    service_id: Text,
    #[serde(default)]
    is_active: Flag,
    #[serde(default)]
    transactions: List<ListedPayment>,
}

impl Members {
    fn id(&self) -> Option<PaymentId> {
        Some(PaymentId::from_uuid(uuid(self.id.0.as_deref()?)?))
    }
}

impl Listed for ListedPayment {
    fn read(json: &RawValue) -> Option<Self> {
        #[derive(Deserialize)]
        struct Element {
            #[serde(default)]
            id: TransactionNumber,
            #[serde(default)]
            status: Text,
        }
        let element: Element = serde_json::from_str(json.get()).ok()?;
        Some(Self {
            transaction_id: element.id.0?,
            status: element.status.0?,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ID: &str = "e4b1d0aa-6f55-4b7e-a1c2-5f60718293a4";
    const TRANSACTION: &str = "7c1f3b52-5a0e-4c1d-9f2a-3d9b8f6a1e01";

    fn payment() -> Value {
        json!({
            "id": ID, "url": "https://paywall.imoje.pl/s/Ab3dEf9hI0", "serviceId": "s", "orderId": "cykl-1", "title": "", "simp": "",
            "amount": 100, "currency": "PLN", "isActive": true, "validTo": null, "customer": {"email": "a@b"},
            "transactions": [{"id": TRANSACTION, "status": "settled", "orderId": "cykl-1", "amount": "100"}]
        })
    }

    fn read(value: &Value) -> Option<ShownPayment> {
        read_payment(value.to_string().as_bytes())
    }

    #[test]
    fn a_link_is_read_wrapped_and_bare() {
        for body in [payment(), json!({"payment": payment()})] {
            let link = read_link(body.to_string().as_bytes()).unwrap();
            assert_eq!(link.id, ID.parse().unwrap());
            assert_eq!(link.url, "https://paywall.imoje.pl/s/Ab3dEf9hI0");
            assert_eq!(link.amount_minor, Some(100));
            let shown = read(&body).unwrap();
            assert_eq!(shown.is_active, Some(true));
            assert_eq!(
                shown.transactions,
                Some(vec![ListedPayment {
                    transaction_id: TRANSACTION.parse().unwrap(),
                    status: "settled".to_owned()
                }])
            );
        }
    }

    #[test]
    fn what_lacks_an_id_is_no_link() {
        for name in ["id", "url"] {
            let mut body = payment();
            body.as_object_mut().unwrap().remove(name);
            assert!(read_link(body.to_string().as_bytes()).is_none(), "{name}");
        }
        for body in [
            json!({}),
            json!([]),
            json!({"payment": null}),
            json!({"payment": {"id": "x"}}),
        ] {
            assert_eq!(read(&body), None, "{body}");
        }
        assert_eq!(read_payment(b"<html>"), None);
    }

    #[test]
    fn transactions_are_read_all_or_none() {
        let transactions = |list: Option<Value>| {
            let mut body = payment();
            match list {
                Some(list) => body["transactions"] = list,
                None => drop(body.as_object_mut().unwrap().remove("transactions")),
            }
            read(&body).unwrap().transactions
        };
        assert_eq!(transactions(None), Some(Vec::new()));
        assert_eq!(transactions(Some(json!([]))), Some(Vec::new()));
        for unreadable in [
            json!([{"id": TRANSACTION}]),
            json!([{"id": "x", "status": "settled"}]),
            json!(["x"]),
            json!({}),
            Value::Null,
        ] {
            assert_eq!(transactions(Some(unreadable)), None);
        }
    }
}
