//! The JSON, as imoje documents it. Nobody outside of the gateway sees it.
//!
//! Requests are written member by member in the order of the documents. Answers are read with patience: members that are not
//! known are ignored, and one that cannot be read is absent, which the classifier takes for doubt. A body that is not JSON to
//! its last byte, or that says one thing twice, is [`Body::Unreadable`] as a whole. Reading never fails and never panics.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::domain::answer::{Body, ListedRefund, ShownTransaction};
use crate::domain::card_number::looks_like_card_number;
use crate::domain::channel::Channel;
use crate::domain::id::{ProfileId, TransactionId};
use crate::gateway::answer::{Profile, ProfileKind, Refundable, Service};

/// The longest text that is taken from an answer; the longest that Cykl compares is an order id of 100 characters.
const TEXT_LENGTH_MAX: usize = 200;

/// imoje's documents write every id as a hyphenated UUID.
const UUID_LENGTH: usize = 36;

/// The body of a request.
pub(super) fn to_json(request: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(request).expect("texts, numbers and JSON values are always written")
}

/// `POST {merchantId}/transaction/profile`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DebitRequest<'a> {
    pub(super) service_id: Uuid,
    pub(super) payment_profile_id: Uuid,
    pub(super) amount: i64,
    pub(super) currency: &'static str,
    pub(super) order_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) notification_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<DebitData<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) invoice: Option<&'a Value>,
}

/// `data` of a debit.
#[derive(Serialize)]
pub(super) struct DebitData<'a> {
    pub(super) multipayout: &'a Value,
}

/// `POST {merchantId}/transaction`, for a card without a profile.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PlainDebitRequest<'a> {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) service_id: Uuid,
    pub(super) amount: i64,
    pub(super) currency: &'static str,
    pub(super) order_id: &'a str,
    pub(super) payment_method: &'static str,
    pub(super) payment_method_code: &'static str,
    pub(super) success_return_url: &'a str,
    pub(super) failure_return_url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) notification_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) title: Option<&'a str>,
    pub(super) customer: &'a Value,
    pub(super) card: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) invoice: Option<&'a Value>,
    pub(super) profile_type: &'static str,
}

/// `POST {merchantId}/transaction/{transactionId}/refund`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RefundRequest<'a> {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) service_id: Uuid,
    pub(super) amount: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) title: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) send_refund_confirmation_email: bool,
}

/// `POST {merchantId}/transaction/{transactionId}/can-refund`
#[derive(Serialize)]
pub(super) struct CanRefundRequest {
    pub(super) amount: i64,
}

/// `POST {merchantId}/profile/deactivate`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeactivateRequest {
    pub(super) payment_profile_id: Uuid,
}

/// A text of an answer that is safe to keep: short, without control characters, and no card number.
#[derive(Debug, Default)]
pub(super) struct Text(pub(super) Option<String>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        let text: Option<String> = serde_json::from_str(raw.get()).ok();
        Ok(Self(text.filter(|text| is_safe(text))))
    }
}

/// An id of a transaction.
#[derive(Debug, Default)]
pub(super) struct TransactionNumber(pub(super) Option<TransactionId>);

impl<'de> Deserialize<'de> for TransactionNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?;
        Ok(Self(
            text.0
                .as_deref()
                .and_then(uuid)
                .map(TransactionId::from_uuid),
        ))
    }
}

/// A whole number, given as a number or as a text of digits, as amounts sometimes are.
#[derive(Debug, Default)]
struct Whole(Option<i64>);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(whole(&Value::deserialize(deserializer)?)))
    }
}

/// A yes or no, given as 0 or 1, as `true` or `false`, or as a text of one of these.
#[derive(Debug, Default)]
struct Flag(Option<bool>);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(flag(&Value::deserialize(deserializer)?)))
    }
}

fn flag(value: &Value) -> Option<bool> {
    match (value.as_bool(), value.as_str(), whole(value)) {
        (Some(flag), _, _) => Some(flag),
        (_, Some("true"), _) | (_, _, Some(1)) => Some(true),
        (_, Some("false"), _) | (_, _, Some(0)) => Some(false),
        _ => None,
    }
}

fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(digits)
            if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) =>
        {
            digits.parse().ok()
        }
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            None
        }
    }
}

fn is_safe(text: &str) -> bool {
    text.chars().count() <= TEXT_LENGTH_MAX
        && !text.chars().any(char::is_control)
        && !looks_like_card_number(text)
}

fn uuid(text: &str) -> Option<Uuid> {
    (text.len() == UUID_LENGTH)
        .then(|| Uuid::try_parse(text).ok())
        .flatten()
}

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
    refunds: Refunds,
}

/// The refunds of a transaction, if each of them can be read. Without the member there are none.
struct Refunds(Option<Vec<ListedRefund>>);

impl Default for Refunds {
    fn default() -> Self {
        Self(Some(Vec::new()))
    }
}

impl<'de> Deserialize<'de> for Refunds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
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
        let raw = <&RawValue>::deserialize(deserializer)?;
        // Each is an object with a transaction in it (as ING's plugins read them), or the transaction itself.
        let elements: Option<Vec<&RawValue>> = serde_json::from_str(raw.get()).ok();
        let read = |element: &RawValue| {
            let members = match serde_json::from_str::<Element>(element.get()) {
                Ok(element) => element.transaction,
                Err(_) => serde_json::from_str(element.get()).ok()?,
            };
            Some(ListedRefund {
                id: members.id.0?,
                amount_minor: members.amount.0?,
                status: members.status.0?,
            })
        };
        let listed = elements.and_then(|elements| elements.into_iter().map(read).collect());
        Ok(Self(listed))
    }
}

/// The card that a transaction shows, of which the masked number is read.
#[derive(Default)]
struct ProfileShown {
    masked_number: Text,
}

impl<'de> Deserialize<'de> for ProfileShown {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Members {
            #[serde(default)]
            masked_number: Text,
        }
        let raw = <&RawValue>::deserialize(deserializer)?;
        let members: Option<Members> = serde_json::from_str(raw.get()).ok();
        Ok(Self {
            masked_number: members
                .map(|members| members.masked_number)
                .unwrap_or_default(),
        })
    }
}

impl Transaction {
    fn shown(self) -> ShownTransaction {
        ShownTransaction {
            id: self.id.0,
            kind: self.kind.0,
            status: self.status.0,
            order_id: self.order_id.0,
            amount_minor: self.amount.0,
            currency: self.currency.0,
            service_id: self.service_id.0,
            status_code: self.status_code.0,
            masked_number: self.payment_profile.masked_number.0,
            refunds: self.refunds.0,
        }
    }
}

/// The profile in an answer, wrapped or bare, if it has an id.
pub(super) fn read_profile(bytes: &[u8]) -> Option<Profile> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Wrapped {
        payment_profile: ProfileMembers,
    }
    let members = match serde_json::from_slice::<Wrapped>(bytes) {
        Ok(wrapped) => wrapped.payment_profile,
        Err(_) => serde_json::from_slice(bytes).ok()?,
    };
    members.shown()
}

/// The profiles in an answer, if each of them has an id.
pub(super) fn read_profiles(bytes: &[u8]) -> Option<Vec<Profile>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Wrapped {
        payment_profiles: Vec<ProfileMembers>,
    }
    let wrapped: Wrapped = serde_json::from_slice(bytes).ok()?;
    wrapped
        .payment_profiles
        .into_iter()
        .map(ProfileMembers::shown)
        .collect()
}

impl ProfileMembers {
    fn shown(self) -> Option<Profile> {
        Some(Profile {
            id: ProfileId::from_uuid(uuid(self.id.0.as_deref()?)?),
            is_active: self.is_active.0,
            cid: self.merchant_customer_id.0,
            masked_number: self.masked_number.0,
            month: self
                .month
                .0
                .and_then(|month| u8::try_from(month).ok())
                .filter(|month| (1..=12).contains(month)),
            year: self.year.0.and_then(full_year),
            organization: self.organization.0,
            kind: match self.profile.0.as_deref() {
                Some("RECURRING") => Some(ProfileKind::Recurring),
                Some("ONE_CLICK") => Some(ProfileKind::OneClick),
                Some(_) | None => None,
            },
            first_transaction_id: self.first_transaction_id.0,
        })
    }
}

/// Years are documented with four digits; the sandbox cards are printed with two.
fn full_year(year: i64) -> Option<u16> {
    let year = u16::try_from(year).ok()?;
    match year {
        0..=99 => Some(2000 + year),
        2000..=2999 => Some(year),
        _ => None,
    }
}

/// The members of a profile that Cykl reads. The name and the e-mail address of the payer are not among them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProfileMembers {
    #[serde(default)]
    id: Text,
    #[serde(default)]
    is_active: Flag,
    #[serde(default)]
    merchant_customer_id: Text,
    #[serde(default)]
    masked_number: Text,
    #[serde(default)]
    month: Whole,
    #[serde(default)]
    year: Whole,
    #[serde(default)]
    organization: Text,
    #[serde(default)]
    profile: Text,
    #[serde(default)]
    first_transaction_id: Text,
}

/// What an answer to `can-refund` says, wrapped in nothing.
pub(super) fn read_refundable(bytes: &[u8]) -> Option<Refundable> {
    let answer: Value = serde_json::from_slice(bytes).ok()?;
    let partial = answer.get("partialRefund");
    let amount = |name| partial?.get(name).and_then(whole);
    Some(Refundable {
        is_refundable: answer.get("refundable").and_then(flag)?,
        has_balance: answer.get("balance").and_then(flag),
        min_minor: amount("minRefundAmount"),
        max_minor: amount("maxRefundAmount"),
    })
}

/// What an answer to `GET service/{id}` shows, wrapped or bare, if it is a JSON object.
pub(super) fn read_service(bytes: &[u8]) -> Option<Service> {
    let answer: Value = serde_json::from_slice(bytes).ok()?;
    let service = answer.get("service").unwrap_or(&answer).as_object()?;
    let methods = service.get("paymentMethods").and_then(Value::as_array);
    Some(Service {
        is_active: service.get("isActive").and_then(flag),
        recurring: methods.map(|methods| methods.iter().filter_map(recurring).collect()),
        sent_at: None,
    })
}

/// A payment method, if it is the channel `recurring` in a currency that Cykl charges.
fn recurring(method: &Value) -> Option<Channel> {
    let text = |name| method.get(name).and_then(Value::as_str);
    if text("paymentMethodCode") != Some("recurring") {
        return None;
    }
    let currency = match text("currency") {
        Some(code) => Some(code.parse().ok()?),
        None => None,
    };
    let says = |name| method.get(name).and_then(flag);
    // A limit of 0 is none, as in imoje's own plugins.
    let limit = |name| {
        method
            .get("transactionLimits")?
            .get(name)?
            .get("value")
            .and_then(whole)
            .filter(|minor| *minor > 0)
    };
    Some(Channel {
        currency,
        is_online: match (says("isActive"), says("isOnline")) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            (None, _) | (_, None) => None,
        },
        min_minor: limit("minTransaction"),
        max_minor: limit("maxTransaction"),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::domain::money::Currency;

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

    #[test]
    fn a_profile_is_read_in_all_its_spellings() {
        let id = "c0de0b1e-1111-4222-8333-9a4b5c6d7e8f";
        let documented = json!({
            "id": id, "merchantMid": "m", "merchantCustomerId": "cus-77", "firstName": "Anna", "email": "a@example.test",
            "maskedNumber": "****4242", "month": "09", "year": "2030", "organization": "VISA", "isActive": 1,
            "profile": "RECURRING", "firstTransactionId": "1"
        });
        let expected = Profile {
            id: id.parse().unwrap(),
            is_active: Some(true),
            cid: Some("cus-77".to_owned()),
            masked_number: Some("****4242".to_owned()),
            month: Some(9),
            year: Some(2030),
            organization: Some("VISA".to_owned()),
            kind: Some(ProfileKind::Recurring),
            first_transaction_id: Some("1".to_owned()),
        };
        for answer in [json!({"paymentProfile": documented}), documented.clone()] {
            let shown = read_profile(answer.to_string().as_bytes()).unwrap();
            assert_eq!(shown, expected);
        }
        let several = json!({"paymentProfiles": [documented, documented]}).to_string();
        assert_eq!(
            read_profiles(several.as_bytes()),
            Some(vec![expected.clone(), expected])
        );
        let one_without_id = json!({"paymentProfiles": [documented, {"isActive": 1}]}).to_string();
        assert_eq!(read_profiles(one_without_id.as_bytes()), None);
        assert_eq!(
            read_profiles(br#"{"paymentProfiles":[]}"#),
            Some(Vec::new())
        );
        for (is_active, expected) in [
            (json!(0), Some(false)),
            (json!("1"), Some(true)),
            (json!(true), Some(true)),
            (json!("false"), Some(false)),
            (json!(2), None),
            (json!("yes"), None),
            (Value::Null, None),
        ] {
            let answer = json!({"paymentProfile": {"id": id, "isActive": is_active, "month": 13, "year": 29}}).to_string();
            let profile = read_profile(answer.as_bytes()).unwrap();
            assert_eq!(
                (profile.is_active, profile.month, profile.year),
                (expected, None, Some(2029))
            );
        }
        for answer in [
            "",
            "{}",
            r#"{"paymentProfile":{}}"#,
            r#"{"paymentProfiles":[]}"#,
        ] {
            assert!(read_profile(answer.as_bytes()).is_none(), "{answer}");
        }
    }

    #[test]
    fn a_service_tells_whether_the_recurring_channel_is_on_line() {
        let service = |methods: Value| json!({"service": {"id": "s", "isActive": true, "paymentMethods": methods}});
        let recurring = |active: Value, online: Value| {
            json!([{"paymentMethodCode": "blik", "isActive": 1, "isOnline": 1},
                {"paymentMethodCode": "recurring", "isActive": active, "isOnline": online}])
        };
        for (answer, expected) in [
            (service(recurring(json!(true), json!(true))), Some(true)),
            (service(recurring(json!(1), json!("1"))), Some(true)),
            (service(recurring(json!(true), json!(false))), Some(false)),
            (service(recurring(json!(false), Value::Null)), Some(false)),
            (service(recurring(Value::Null, json!(true))), None),
            (service(json!([])), Some(false)),
            (service(Value::Null), None),
            (
                json!({"isActive": 0, "paymentMethods": recurring(json!(1), json!(1))}),
                Some(false),
            ),
        ] {
            let shown = read_service(answer.to_string().as_bytes()).unwrap();
            assert_eq!(shown.is_online(), expected, "{answer}");
        }
        assert_eq!(read_service(b"{}"), Some(Service::default()));
        for unreadable in ["", "<html>", "[]", "7", r#"{"service":null}"#] {
            assert_eq!(read_service(unreadable.as_bytes()), None, "{unreadable}");
        }
    }

    #[test]
    fn the_limits_of_a_channel_are_minor_units_and_may_be_missing() {
        let limits = |limits: Value| {
            let methods = json!([{"paymentMethodCode": "recurring", "currency": "PLN", "transactionLimits": limits}]);
            let service = json!({ "paymentMethods": methods }).to_string();
            let channel = read_service(service.as_bytes()).unwrap().recurring.unwrap()[0];
            assert_eq!(channel.currency, Some(Currency::Pln));
            (channel.min_minor, channel.max_minor)
        };
        let value = |value: Value| json!({"type": "number", "value": value});
        for (given, expected) in [
            (
                json!({"minTransaction": value(json!(100)), "maxTransaction": value(json!("500000"))}),
                (Some(100), Some(500_000)),
            ),
            (
                json!({"minTransaction": value(json!(0)), "maxTransaction": value(Value::Null)}),
                (None, None),
            ),
            (json!({"maxTransaction": 5}), (None, None)),
            (Value::Null, (None, None)),
        ] {
            assert_eq!(limits(given.clone()), expected, "{given}");
        }
        let foreign =
            json!({"paymentMethods": [{"paymentMethodCode": "recurring", "currency": "UAH"}]});
        assert_eq!(
            read_service(foreign.to_string().as_bytes())
                .unwrap()
                .recurring,
            Some(Vec::new())
        );
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _body = read_body(&bytes);
            let _profile = read_profile(&bytes);
            let _profiles = read_profiles(&bytes);
            let _service = read_service(&bytes);
        }

        #[test]
        fn a_body_cut_anywhere_is_unreadable(at in any::<prop::sample::Index>(), wrapped in any::<bool>()) {
            let whole = if wrapped { json!({"transaction": transaction()}) } else { transaction() }.to_string();
            let at = at.index(whole.len());
            prop_assert_eq!(read_body(&whole.as_bytes()[..at]), Body::Unreadable);
        }
    }
}
