//! What an answer about a transaction shows.

use chrono::DateTime;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::members::{List, Listed, Text, TransactionNumber, Whole, uuid};
use crate::domain::answer::{Body, ListedRefund, ShownTransaction};
use crate::domain::id::ProfileId;

/// What an answer about a transaction says.
pub fn read_body(bytes: &[u8]) -> Body {
    // The JSON reader passes over members that nobody asked for, even where they are not text.
    let Ok(json) = std::str::from_utf8(bytes) else {
        return Body::Unreadable;
    };
    let Ok(answer) = serde_json::from_str::<Answer>(json) else {
        return Body::Unreadable;
    };
    match (answer.transaction, answer.api_error_response) {
        (Some(transaction), None) => Body::Transaction(Box::new(transaction.shown())),
        (
            None,
            Some(ApiError {
                code: Text(Some(code)),
                message: Text(message),
            }),
        ) if !code.is_empty() => Body::Error { code, message },
        (None, None) => read_bare(json),
        (_, Some(_)) => Body::Unreadable,
    }
}

/// A transaction without the object around it, as imoje's sample of `GET transaction/{id}` shows it.
fn read_bare(json: &str) -> Body {
    match serde_json::from_str::<Transaction>(json) {
        Ok(transaction) if transaction.id.0.is_some() => {
            Body::Transaction(Box::new(transaction.shown()))
        }
        Ok(_) | Err(_) => Body::Unreadable,
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    transaction: Option<Transaction>,
    api_error_response: Option<ApiError>,
}

#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    code: Text,
    #[serde(default)]
    message: Text,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Transaction {
    #[serde(default)]
    id: TransactionNumber,
    #[serde(default, rename = "type")]
    kind: Text,
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
    status_code: Text,
    #[serde(default)]
    payment_profile: ProfileShown,
    #[serde(default)]
    first_transaction_id: Text,
    #[serde(default)]
    created: Whole,
    #[serde(default)]
    refunds: List<ListedRefund>,
}

impl Listed for ListedRefund {
    fn read(json: &RawValue) -> Option<Self> {
        #[derive(Deserialize)]
        struct Element {
            transaction: Members,
        }
        #[derive(Deserialize)]
        struct Members {
            #[serde(default)]
            id: TransactionNumber,
            #[serde(default)]
            amount: Whole,
            #[serde(default)]
            status: Text,
        }
        // An object with a transaction in it (as ING's plugins read them), or the transaction itself.
        let members = match serde_json::from_str::<Element>(json.get()) {
            Ok(element) => element.transaction,
            Err(_) => serde_json::from_str(json.get()).ok()?,
        };
        Some(Self {
            id: members.id.0?,
            amount_minor: members.amount.0?,
            status: members.status.0?,
        })
    }
}

/// The card that a transaction shows. Whose it is, is not read.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProfileMembers {
    #[serde(default)]
    id: Text,
    #[serde(default)]
    masked_number: Text,
    #[serde(default)]
    first_transaction_id: Text,
}

/// The same, absent where it cannot be read.
#[derive(Default)]
struct ProfileShown(ProfileMembers);

impl<'de> Deserialize<'de> for ProfileShown {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        Ok(Self(serde_json::from_str(raw.get()).unwrap_or_default()))
    }
}

impl Transaction {
    fn shown(self) -> ShownTransaction {
        let profile = self.payment_profile.0;
        ShownTransaction {
            id: self.id.0,
            kind: self.kind.0,
            status: self.status.0,
            order_id: self.order_id.0,
            amount_minor: self.amount.0,
            currency: self.currency.0,
            service_id: self.service_id.0,
            status_code: self.status_code.0,
            masked_number: profile.masked_number.0,
            profile_id: profile
                .id
                .0
                .as_deref()
                .and_then(uuid)
                .map(ProfileId::from_uuid),
            // The documents say that a read of the transaction returns it, and not where.
            first_transaction_id: profile
                .first_transaction_id
                .0
                .or(self.first_transaction_id.0),
            created_at: self
                .created
                .0
                .and_then(|seconds| DateTime::from_timestamp(seconds, 0)),
            refunds: self.refunds.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const ID: &str = "7c1f3b52-5a0e-4c1d-9f2a-3d9b8f6a1e01";

    fn transaction() -> Value {
        json!({
            "id": ID, "type": "sale", "status": "rejected", "source": "api", "created": 1, "modified": null,
            "serviceId": "2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b", "amount": 4900, "currency": "PLN", "orderId": "cykl-1",
            "statusCode": "CODE_51", "payment": {"id": "x"}, "paymentProfile": {"maskedNumber": "****4242", "isActive": 1},
            "somethingNew": [1, 2]
        })
    }

    fn shown() -> ShownTransaction {
        ShownTransaction {
            id: Some(ID.parse().unwrap()),
            kind: Some("sale".to_owned()),
            status: Some("rejected".to_owned()),
            order_id: Some("cykl-1".to_owned()),
            amount_minor: Some(4900),
            currency: Some("PLN".to_owned()),
            service_id: Some("2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b".to_owned()),
            status_code: Some("CODE_51".to_owned()),
            masked_number: Some("****4242".to_owned()),
            profile_id: None,
            first_transaction_id: None,
            created_at: DateTime::from_timestamp(1, 0),
            refunds: Some(Vec::new()),
        }
    }

    fn read(value: &Value) -> Body {
        read_body(value.to_string().as_bytes())
    }

    #[test]
    fn a_transaction_is_read_wrapped_and_bare() {
        let expected = Body::Transaction(Box::new(shown()));
        assert_eq!(
            read(&json!({"transaction": transaction(), "action": {}})),
            expected
        );
        assert_eq!(read(&transaction()), expected);
        assert_eq!(
            read(&json!({"transaction": transaction(), "apiErrorResponse": null})),
            expected
        );
    }

    #[test]
    fn the_card_is_read_wherever_it_is_named() {
        let card = |transaction: Value| match read(&transaction) {
            Body::Transaction(shown) => (shown.profile_id, shown.first_transaction_id),
            other @ (Body::Error { .. } | Body::Unreadable) => panic!("{other:?}"),
        };
        let id = "c0de0b1e-1111-4222-8333-9a4b5c6d7e8f";
        let mut transaction = transaction();
        transaction["firstTransactionId"] = json!("first-1");
        assert_eq!(
            card(transaction.clone()),
            (None, Some("first-1".to_owned()))
        );
        transaction["paymentProfile"] = json!({"id": id, "firstTransactionId": "first-2"});
        let expected = (Some(id.parse().unwrap()), Some("first-2".to_owned()));
        assert_eq!(card(transaction.clone()), expected);
        transaction["paymentProfile"] =
            json!({"id": "x", "firstTransactionId": "4111111111111111"});
        assert_eq!(card(transaction), (None, Some("first-1".to_owned())));
    }

    #[test]
    fn refunds_are_read_all_or_none() {
        let refunds = |list: Value| {
            let mut transaction = transaction();
            transaction["refunds"] = list;
            match read(&transaction) {
                Body::Transaction(shown) => shown.refunds,
                other @ (Body::Error { .. } | Body::Unreadable) => panic!("{other:?}"),
            }
        };
        let one =
            json!({"id": ID, "type": "refund", "status": "settled", "amount": "100", "new": 1});
        let listed = ListedRefund {
            id: ID.parse().unwrap(),
            amount_minor: 100,
            status: "settled".to_owned(),
        };
        assert_eq!(
            refunds(json!([{"transaction": one}, one])),
            Some(vec![listed.clone(), listed])
        );
        assert_eq!(refunds(json!([])), Some(Vec::new()));
        for unreadable in [
            json!([one, {"id": ID}]),
            json!([{"transaction": {"id": "x", "status": "settled", "amount": 1}}]),
            json!({"transaction": one}),
            json!("none"),
            Value::Null,
        ] {
            assert_eq!(refunds(unreadable), None);
        }
    }

    #[test]
    fn amounts_are_whole_numbers_or_digits() {
        for (amount, minor) in [
            (json!(4900), Some(4900)),
            (json!("4900"), Some(4900)),
            (json!(49.0), None),
            (json!("49.00"), None),
            (json!("+4900"), None),
            (json!(" 4900"), None),
            (json!(""), None),
            (json!("99999999999999999999"), None),
            (json!(u64::MAX), None),
            (Value::Null, None),
            (json!([4900]), None),
        ] {
            let mut transaction = transaction();
            transaction["amount"] = amount.clone();
            let expected = ShownTransaction {
                amount_minor: minor,
                ..shown()
            };
            assert_eq!(
                read(&transaction),
                Body::Transaction(Box::new(expected)),
                "{amount}"
            );
        }
    }

    #[test]
    fn an_unreadable_member_is_absent_and_leaves_the_others() {
        let spoilt = json!({"transaction": {
            "id": "7c1f3b525a0e4c1d9f2a3d9b8f6a1e01", "status": ["settled"], "orderId": "a\nb", "currency": "x".repeat(201),
            "serviceId": {}, "amount": 4900, "statusCode": 51, "paymentProfile": "none"
        }});
        let expected = ShownTransaction {
            amount_minor: Some(4900),
            refunds: Some(Vec::new()),
            ..ShownTransaction::default()
        };
        assert_eq!(read(&spoilt), Body::Transaction(Box::new(expected)));
    }

    #[test]
    fn a_member_that_cannot_be_taken_as_text_is_absent_and_leaves_the_others() {
        let deep = format!("{}{}", "[".repeat(1_000), "]".repeat(1_000));
        for status in [r#""\ud800""#, "1e999", deep.as_str()] {
            let body = format!(
                r#"{{"transaction":{{"amount":1,"status":{status},"paymentProfile":{{"maskedNumber":"a","maskedNumber":"b"}}}}}}"#
            );
            let expected = ShownTransaction {
                amount_minor: Some(1),
                refunds: Some(Vec::new()),
                ..ShownTransaction::default()
            };
            assert_eq!(
                read_body(body.as_bytes()),
                Body::Transaction(Box::new(expected)),
                "{body}"
            );
        }
    }

    #[test]
    fn a_card_number_is_never_taken_from_an_answer() {
        let mut transaction = transaction();
        transaction["paymentProfile"]["maskedNumber"] = json!("4111111111111111");
        transaction["statusCode"] = json!("4111 1111 1111 1111");
        let expected = ShownTransaction {
            masked_number: None,
            status_code: None,
            ..shown()
        };
        assert_eq!(read(&transaction), Body::Transaction(Box::new(expected)));
    }

    #[test]
    fn an_error_object_needs_a_code() {
        let error = |code: Value| json!({"apiErrorResponse": {"code": code, "message": "m", "instance": "i", "errors": []}});
        assert_eq!(
            read(&error(json!("TRX-ERROR-120301"))),
            Body::Error {
                code: "TRX-ERROR-120301".to_owned(),
                message: Some("m".to_owned())
            }
        );
        for code in [
            Value::Null,
            json!(""),
            json!(120_301),
            json!("a\u{7}b"),
            json!("x".repeat(300)),
        ] {
            assert_eq!(read(&error(code)), Body::Unreadable);
        }
        let both = json!({"transaction": transaction(), "apiErrorResponse": {"code": "X"}});
        assert_eq!(read(&both), Body::Unreadable);
    }

    #[test]
    fn everything_else_is_unreadable() {
        let whole = json!({"transaction": transaction()}).to_string();
        let bodies = [
            "",
            " ",
            "{}",
            "null",
            "[]",
            "true",
            "<html></html>",
            "{\"transaction\":1}",
            "{\"error\":\"x\"}",
            "\u{feff}{}",
        ];
        for body in bodies.into_iter().chain(
            [format!("{whole}x"), whole.repeat(2)]
                .iter()
                .map(String::as_str),
        ) {
            assert_eq!(read_body(body.as_bytes()), Body::Unreadable, "{body}");
        }
        assert_eq!(read_body(b"\xff\xfe"), Body::Unreadable);
        for ignored in [
            &b"{\"apiErrorResponse\":{\"code\":\"X\",\"message\":\"\xff\"}}"[..],
            b"{\"transaction\":{\"status\":\"rejected\",\"title\":\"\xff\"}}",
        ] {
            assert_eq!(read_body(ignored), Body::Unreadable);
        }
        assert_eq!(read_body("[".repeat(100_000).as_bytes()), Body::Unreadable);
    }

    #[test]
    fn a_body_that_says_one_thing_twice_is_unreadable() {
        for body in [
            r#"{"transaction":{"status":"rejected","status":"settled"}}"#.to_owned(),
            r#"{"transaction":{"status":"rejected"},"transaction":{"status":"settled"}}"#
                .to_owned(),
            format!(r#"{{"id":"{ID}","amount":1,"amount":2}}"#),
        ] {
            assert_eq!(read_body(body.as_bytes()), Body::Unreadable, "{body}");
        }
    }

    proptest! {
        #[test]
        fn a_body_cut_anywhere_is_unreadable(at in any::<prop::sample::Index>(), wrapped in any::<bool>()) {
            let whole = if wrapped { json!({"transaction": transaction()}) } else { transaction() }.to_string();
            let at = at.index(whole.len());
            prop_assert_eq!(read_body(&whole.as_bytes()[..at]), Body::Unreadable);
        }
    }
}
