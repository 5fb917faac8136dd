//! The JSON of imoje's answers, field by field as documented. Not shared with the client: two independent statements.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    SimulatedShop,
    behaviour::{Behaviour, WrongEcho},
    codes,
    currency::Currency,
    ledger::{ProfileType, Transaction},
    profile::ProfileNow,
    script::Channel,
};

/// An id that nobody has.
const STRANGER: Uuid = Uuid::from_u128(0x0bad_0bad_0bad_4bad_8bad_0bad_0bad_0bad);

/// The `transaction` object.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TransactionJson<'a> {
    id: Uuid,
    #[serde(rename = "type")]
    kind: &'static str,
    status: &'a str,
    source: &'static str,
    created: i64,
    modified: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    notification_url: Option<&'a str>,
    service_id: Uuid,
    amount: Amount,
    currency: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    order_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_method: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_method_code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment: Option<PaymentState<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_profile: Option<ProfileJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_transaction_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refunds: Vec<ListedRefundJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_code_description: Option<String>,
    #[serde(skip)]
    known_status_code: Option<&'a str>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Amount {
    Number(u32),
    Text(String),
}

/// A refund in the list of its debit. Of the members of `transaction`, imoje's own plugins read these.
#[derive(Debug, Serialize)]
struct ListedRefundJson<'a> {
    transaction: ListedRefundState<'a>,
}

#[derive(Debug, Serialize)]
struct ListedRefundState<'a> {
    id: Uuid,
    #[serde(rename = "type")]
    kind: &'static str,
    status: &'a str,
    amount: u32,
}

#[derive(Debug, Serialize)]
struct PaymentState<'a> {
    id: Uuid,
    status: &'a str,
}

/// The `paymentProfile` object.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProfileJson<'a> {
    id: Uuid,
    merchant_mid: &'a str,
    merchant_customer_id: String,
    first_name: &'a str,
    last_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    masked_number: &'a str,
    month: String,
    year: String,
    organization: &'a str,
    is_active: u8,
    profile: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_transaction_id: Option<&'a str>,
}

impl<'a> TransactionJson<'a> {
    /// The transaction as it is at a step of its course: what a notice tells, without `payment` and status code. A refund shows less than
    /// a debit (imoje API, refunds).
    pub(super) fn new(transaction: &'a Transaction, profile: &'a ProfileNow, step: usize) -> Self {
        let state = transaction.course.step(step);
        let is_sale = transaction.refund_of.is_none();
        Self {
            id: transaction.id,
            kind: if is_sale { "sale" } else { "refund" },
            status: &state.status,
            source: if transaction.is_by_link { "web" } else { "api" },
            created: transaction.created_at.timestamp(),
            modified: transaction
                .course
                .begins(step, transaction.created_at)
                .timestamp(),
            notification_url: transaction.notification_url(),
            service_id: transaction.service_id(),
            amount: Amount::Number(transaction.amount_minor),
            currency: transaction.currency.code(),
            title: is_sale.then_some(&transaction.title),
            order_id: transaction.order_id.to_string(),
            payment_method: is_sale.then_some("card"),
            payment_method_code: is_sale.then_some("recurring"),
            payment: None,
            payment_profile: (is_sale && transaction.profile_type.is_none() && !profile.is_plain)
                .then(|| ProfileJson::new(&transaction.shop.merchant_id, profile)),
            first_transaction_id: None,
            action: None,
            refunds: Vec::new(),
            status_code: None,
            status_code_description: None,
            known_status_code: state.code.as_deref(),
        }
    }

    /// With `statusCode` and its description, where the status has one.
    pub(super) fn with_status_code(mut self) -> Self {
        self.status_code = self.known_status_code;
        self.status_code_description = self.status_code.map(codes::description);
        self
    }

    /// With `firstTransactionId`, where the transaction registered a card without a profile. The documents say that a read of it
    /// returns the value, and not where.
    pub(super) fn with_first_transaction_id(
        mut self,
        transaction: &Transaction,
        profile: &'a ProfileNow,
    ) -> Self {
        if transaction.profile_type == Some(ProfileType::First) && profile.is_plain {
            self.first_transaction_id = profile.profile.first_transaction_id.as_deref();
        }
        self
    }

    /// Without `paymentProfile`, which comes beside.
    pub(super) fn without_profile(mut self) -> (Self, Option<ProfileJson<'a>>) {
        let profile = self.payment_profile.take();
        (self, profile)
    }

    /// With `action`, where the payer has to do something.
    pub(super) fn with_action(mut self, action: Option<Value>) -> Self {
        self.action = action;
        self
    }

    /// With `refunds`, as they were at a moment.
    pub(super) fn with_refunds(mut self, refunds: &'a [Transaction], at: DateTime<Utc>) -> Self {
        self.refunds = refunds
            .iter()
            .filter(|refund| refund.created_at <= at)
            .map(|refund| ListedRefundJson {
                transaction: ListedRefundState {
                    id: refund.id,
                    kind: "refund",
                    status: refund.status_at(at),
                    amount: refund.amount_minor,
                },
            })
            .collect();
        self
    }

    /// With `payment`, whose id is not the transaction's.
    pub(super) fn with_payment(mut self, payment_id: Uuid) -> Self {
        self.payment = Some(PaymentState {
            id: payment_id,
            status: self.status,
        });
        self
    }

    /// The body of an answer, as the script wants it.
    pub(super) fn body(mut self, behaviour: &Behaviour) -> String {
        #[derive(Serialize)]
        struct Wrapped<'a> {
            transaction: TransactionJson<'a>,
        }
        if let Some(field) = behaviour.wrong_echo {
            self.echo_wrongly(field);
        }
        if behaviour.amount_as_text == Some(true)
            && let Amount::Number(amount) = self.amount
        {
            self.amount = Amount::Text(amount.to_string());
        }
        let body = if behaviour.bare == Some(true) {
            serde_json::to_string(&self)
        } else {
            serde_json::to_string(&Wrapped { transaction: self })
        };
        body.expect("an answer has text keys only")
    }

    fn echo_wrongly(&mut self, field: WrongEcho) {
        match field {
            WrongEcho::OrderId => self.order_id.push_str("-other"),
            WrongEcho::Amount => {
                if let Amount::Number(amount) = self.amount {
                    self.amount = Amount::Number(amount.saturating_add(1));
                }
            }
            WrongEcho::Currency => {
                let other = if self.currency == "PLN" {
                    Currency::Eur
                } else {
                    Currency::Pln
                };
                self.currency = other.code();
            }
            WrongEcho::ServiceId => self.service_id = STRANGER,
            WrongEcho::PaymentProfileId => {
                if let Some(profile) = &mut self.payment_profile {
                    profile.id = STRANGER;
                }
            }
        }
    }
}

impl<'a> ProfileJson<'a> {
    /// The fields that every answer shows.
    pub(super) fn new(merchant_id: &'a str, now: &'a ProfileNow) -> Self {
        let profile = &*now.profile;
        Self {
            id: profile.id,
            merchant_mid: merchant_id,
            merchant_customer_id: profile.customer_id(),
            first_name: &profile.first_name,
            last_name: &profile.last_name,
            email: None,
            masked_number: &profile.masked_number,
            month: format!("{:02}", profile.expiry_month),
            year: profile.expiry_year.to_string(),
            organization: &profile.organization,
            is_active: u8::from(now.is_active),
            profile: "RECURRING",
            first_transaction_id: None,
        }
    }

    /// The fields that only a read of the profile shows.
    pub(super) fn in_full(mut self, now: &'a ProfileNow) -> Self {
        self.email = Some(&now.profile.email);
        self.first_transaction_id = now.profile.first_transaction_id.as_deref();
        self
    }
}

/// The answer to `GET service/{id}`: the recurring card channel in each of its currencies.
pub(super) fn service(shop: &SimulatedShop, channel: &Channel, online: bool) -> Value {
    let in_currency = |currency: &Currency| {
        json!({
            "paymentMethod": "card",
            "paymentMethodCode": "recurring",
            "isActive": true,
            "isOnline": online,
            "description": "Recurring",
            "currency": currency.code(),
            "transactionLimits": {
                "minTransaction": {"type": "number", "value": channel.min},
                "maxTransaction": {"type": "number", "value": channel.max},
            },
        })
    };
    let channels: Vec<Value> = channel.currencies.iter().map(in_currency).collect();
    json!({"service": {"id": shop.service_id, "created": null, "isActive": true, "paymentMethods": channels}})
}
