//! What is sent, member by member in the order of the documents.

use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::domain::money::Money;
use crate::domain::shop::ReturnUrls;

/// The body of a request.
pub(in crate::gateway) fn to_json(request: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(request).expect("texts, numbers and JSON values are always written")
}

/// `POST {merchantId}/transaction/profile`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::gateway) struct DebitRequest<'a> {
    pub(in crate::gateway) service_id: Uuid,
    pub(in crate::gateway) payment_profile_id: Uuid,
    pub(in crate::gateway) amount: i64,
    pub(in crate::gateway) currency: &'static str,
    pub(in crate::gateway) order_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::gateway) title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::gateway) notification_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::gateway) data: Option<DebitData<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::gateway) invoice: Option<&'a Value>,
}

/// `data` of a debit.
#[derive(Serialize)]
pub(in crate::gateway) struct DebitData<'a> {
    pub(in crate::gateway) multipayout: &'a Value,
}

/// `POST {merchantId}/transaction`, for a card without a profile.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::gateway) struct PlainRequest<'a> {
    #[serde(rename = "type")]
    pub(in crate::gateway) kind: &'static str,
    pub(in crate::gateway) service_id: Uuid,
    pub(in crate::gateway) amount: i64,
    pub(in crate::gateway) currency: &'static str,
    pub(in crate::gateway) order_id: &'a str,
    pub(in crate::gateway) payment_method: &'static str,
    pub(in crate::gateway) payment_method_code: &'static str,
    pub(in crate::gateway) success_return_url: &'a str,
    pub(in crate::gateway) failure_return_url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::gateway) notification_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::gateway) title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::gateway) additional_description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::gateway) valid_to: Option<i64>,
    pub(in crate::gateway) customer: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::gateway) billing: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::gateway) shipping: Option<&'a Value>,
    pub(in crate::gateway) card: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::gateway) additional_data: Option<AdditionalData<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::gateway) invoice: Option<&'a Value>,
    pub(in crate::gateway) profile_type: &'static str,
}

/// Who pays, with which card, and where to lead him back to.
pub(in crate::gateway) struct Payer<'a> {
    pub(in crate::gateway) customer: &'a Value,
    pub(in crate::gateway) card: &'a Value,
    pub(in crate::gateway) return_to: &'a ReturnUrls,
}

/// `additionalData` of a transaction.
#[derive(Serialize)]
pub(in crate::gateway) struct AdditionalData<'a> {
    pub(in crate::gateway) browser: &'a Value,
}

impl<'a> PlainRequest<'a> {
    /// What is required, and nothing else.
    pub(in crate::gateway) fn new(
        profile_type: &'static str,
        service_id: Uuid,
        (amount, order_id): (Money, &'a str),
        payer: &Payer<'a>,
    ) -> Self {
        Self {
            kind: "sale",
            service_id,
            amount: amount.minor(),
            currency: amount.currency().code(),
            order_id,
            payment_method: "card",
            payment_method_code: "recurring",
            success_return_url: &payer.return_to.success,
            failure_return_url: &payer.return_to.failure,
            notification_url: None,
            title: None,
            additional_description: None,
            valid_to: None,
            customer: payer.customer,
            billing: None,
            shipping: None,
            card: payer.card,
            additional_data: None,
            invoice: None,
            profile_type,
        }
    }
}

/// `POST {merchantId}/payment`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::gateway) struct PaymentRequest<'a> {
    pub(in crate::gateway) service_id: Uuid,
    pub(in crate::gateway) amount: i64,
    pub(in crate::gateway) currency: &'static str,
    pub(in crate::gateway) order_id: &'a str,
    pub(in crate::gateway) customer: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::gateway) title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::gateway) additional_description: Option<&'a str>,
    pub(in crate::gateway) visible_method: [&'static str; 1],
    pub(in crate::gateway) preselect_method_code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::gateway) return_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::gateway) success_return_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::gateway) failure_return_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::gateway) notification_url: Option<&'a str>,
    pub(in crate::gateway) valid_to: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::gateway) billing: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::gateway) shipping: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::gateway) cart: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::gateway) multipayout: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::gateway) invoice: Option<&'a Value>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::gateway) is_ksef: bool,
}

/// `POST {merchantId}/payment/cancel`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::gateway) struct CancelRequest {
    pub(in crate::gateway) service_id: Uuid,
    pub(in crate::gateway) payment_id: Uuid,
}

/// `POST {merchantId}/transaction/{transactionId}/refund`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::gateway) struct RefundRequest<'a> {
    #[serde(rename = "type")]
    pub(in crate::gateway) kind: &'static str,
    pub(in crate::gateway) service_id: Uuid,
    pub(in crate::gateway) amount: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::gateway) title: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::gateway) send_refund_confirmation_email: bool,
}

/// `POST {merchantId}/transaction/{transactionId}/can-refund`
#[derive(Serialize)]
pub(in crate::gateway) struct CanRefundRequest {
    pub(in crate::gateway) amount: i64,
}

/// `POST {merchantId}/profile/deactivate`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::gateway) struct DeactivateRequest {
    pub(in crate::gateway) payment_profile_id: Uuid,
}
