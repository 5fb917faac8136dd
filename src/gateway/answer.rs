//! What a call to imoje gives back.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use url::Url;

use crate::domain::answer::{ShownTransaction, Verdict};
use crate::domain::channel::{self, Channel};
use crate::domain::fields::FieldError;
use crate::domain::id::{PaymentId, ProfileId, TransactionId};
use crate::domain::preflight;

/// imoje's word on a debit or a refund: an HTTP answer came.
///
/// That does not make it clear what happened to the money; the verdict can be doubt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostAnswer {
    /// The HTTP status.
    pub http_status: u16,
    /// What the answer means for the money.
    pub verdict: Verdict,
    /// The transaction as it was shown, for evidence.
    pub shown: Option<Box<ShownTransaction>>,
    /// `apiErrorResponse.code`, when the answer has imoje's error object.
    pub error_code: Option<String>,
    /// The header `x-trace-id`, which imoje's support asks for.
    pub trace_id: Option<String>,
    /// What time it was by imoje's clock, in whole seconds.
    pub sent_at: Option<DateTime<Utc>>,
}

/// imoje's word on a transaction that was asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadAnswer {
    /// The HTTP status.
    pub http_status: u16,
    /// What the answer means for the money; never a refusal.
    pub verdict: Verdict,
    /// The transaction as it was shown, for evidence.
    pub shown: Option<Box<ShownTransaction>>,
    /// `apiErrorResponse.code`, when the answer has imoje's error object.
    pub error_code: Option<String>,
}

/// What imoje shows under a transaction id of which nothing else is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// The transaction.
    Shown(Box<ShownTransaction>),
    /// imoje denies that it has one.
    Denied,
    /// Neither.
    Unclear,
}

/// Whether imoje denies with this status of a read that it has the transaction. Its documents do not say what it answers about an id
/// that it does not know; these are what its list of statuses leaves. A lag of its own may look the same, so nothing may follow from
/// it but that people are told.
pub const fn is_denial(http_status: u16) -> bool {
    matches!(http_status, 400 | 404 | 422)
}

/// Why there is no word on a debit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// No byte of the request left this machine, so no money moved.
    #[error("nothing was sent: {0}")]
    NotSent(NotSent),
    /// The card may have been charged.
    #[error("the request was sent and may have been executed: {0}")]
    Unknown(Lost),
}

/// Why a debit was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// The permit was too old when the request was about to leave.
    #[error("its permit is {} s old and is good for {} s", .age.as_secs(), .max.as_secs())]
    PermitTooOld {
        /// How old it was.
        age: Duration,
        /// How old it may be.
        max: Duration,
    },
    /// imoje would refuse a field, or Cykl does.
    #[error("the request is invalid: {0}")]
    Invalid(FieldError),
    /// It names the card by aliases, and nobody is there to put its data in their place.
    #[error("the card has aliases, and no tokenising proxy (gateway.card_proxy_url) is configured")]
    NoCardProxy,
    /// The HTTP request could not be put together.
    #[error("the request could not be built: {0}")]
    Unbuildable(String),
    /// The connection could not be opened.
    #[error(transparent)]
    Connect(ConnectFailure),
}

/// A connection that could not be opened: nothing of the request was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("couldn't connect to the gateway: {detail}")]
pub struct ConnectFailure {
    /// Which step failed.
    pub step: ConnectStep,
    /// The errors underneath, without addresses and secrets.
    pub detail: String,
}

/// The step of opening a connection that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectStep {
    /// The name was not resolved.
    Name,
    /// The address did not accept the connection.
    Tcp,
    /// The other side did not prove who it is. Somebody looks at this at once.
    Tls,
    /// It took longer than the connect timeout.
    Timeout,
}

/// How the answer to a request that was sent, or may have been, was lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// No answer within the request timeout.
    #[error("no answer in time")]
    Timeout,
    /// The connection broke, or what came was not HTTP.
    #[error("the connection broke: {0}")]
    Broken(String),
}

/// Why a question to imoje has no usable answer, or an order that moves no money. Each of these may be repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The connection could not be opened.
    #[error(transparent)]
    Connect(ConnectFailure),
    /// The answer was lost.
    #[error("the gateway's answer was lost: {0}")]
    Lost(Lost),
    /// The HTTP request could not be put together.
    #[error("the request could not be built: {0}")]
    Unbuildable(String),
    /// imoje does not accept the token: 401 or 403.
    #[error("the gateway does not accept the credentials (HTTP {http_status})")]
    Unauthorized {
        /// 401 or 403.
        http_status: u16,
    },
    /// imoje does not know it: 404.
    #[error("the gateway does not know it (HTTP 404)")]
    NotFound,
    /// Another HTTP status than 200.
    #[error("the gateway answered HTTP {http_status}{}", .code.as_ref().map(|code| format!(" {code}")).unwrap_or_default())]
    Status {
        /// The HTTP status.
        http_status: u16,
        /// `apiErrorResponse.code`, when the answer has imoje's error object.
        code: Option<String>,
    },
    /// 200 with a body that is not what was asked for.
    #[error("the gateway's answer is unreadable")]
    Unreadable,
    /// The answer is about something else than was asked for.
    #[error("the gateway answered about something else")]
    Mismatch,
}

/// A stored card (imoje API, `GET profile/id/{id}` and `GET profile/cid/{cid}`). A member is absent when imoje does not show it or
/// shows it unreadably. The name and the e-mail address of the payer are never read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// imoje's id of it.
    pub id: ProfileId,
    /// Whether it can be debited.
    pub is_active: Option<bool>,
    /// `merchantCustomerId`: the `cid` that the card was registered with.
    pub cid: Option<String>,
    /// `****` and the last four digits.
    pub masked_number: Option<String>,
    /// The month in which the card expires, 1 to 12.
    pub month: Option<u8>,
    /// The year in which the card expires, in full.
    pub year: Option<u16>,
    /// `VISA`, `MASTERCARD`
    pub organization: Option<String>,
    /// What it was registered for.
    pub kind: Option<ProfileKind>,
    /// The transaction that registered it, which debits without a profile name.
    pub first_transaction_id: Option<String>,
}

impl Profile {
    /// The last day on which the card is good, if imoje shows a month that there is.
    pub fn expires_on(&self) -> Option<NaiveDate> {
        preflight::expires_on(self.year?, self.month?)
    }
}

/// What a card was registered for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProfileKind {
    /// Debits that the payer is not present at.
    Recurring,
    /// Debits that the payer asks for.
    OneClick,
}

/// imoje's word on a payment link that was ordered: an HTTP answer came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkAnswer {
    /// The HTTP status.
    pub http_status: u16,
    /// What it means.
    pub outcome: LinkOutcome,
}

/// What became of a payment link that was ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkOutcome {
    /// It is there.
    Created {
        /// imoje's id of it.
        payment_id: PaymentId,
        /// Where the payer pays.
        url: Url,
    },
    /// There is none.
    Refused {
        /// imoje's error code.
        code: String,
        /// imoje's words, when they can be read.
        message: Option<String>,
    },
    /// There may be one. Nobody knows its address, so nobody can pay by it.
    Unclear,
}

/// A payment link as imoje shows it. Each field is absent when the answer does not have it or has something unreadable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownPayment {
    /// `id`
    pub id: PaymentId,
    /// `status`
    pub status: Option<String>,
    /// `orderId`
    pub order_id: Option<String>,
    /// `amount`, in minor units
    pub amount_minor: Option<i64>,
    /// `currency`
    pub currency: Option<String>,
    /// `serviceId`
    pub service_id: Option<String>,
    /// `isActive`: whether it can be paid.
    pub is_active: Option<bool>,
    /// `transactions`: what payers did. `None` when the list cannot be read whole.
    pub transactions: Option<Vec<ListedPayment>>,
}

/// A transaction in the list of the payment link by which it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedPayment {
    /// `id`
    pub transaction_id: TransactionId,
    /// `status`
    pub status: String,
}

impl ListedPayment {
    /// Whether its money has moved, or may move yet.
    pub fn may_have_moved_money(&self) -> bool {
        !["rejected", "cancelled", "canceled", "error"].contains(&self.status.as_str())
    }
}

/// What imoje says about a refund before it is asked for (imoje API, `POST transaction/{id}/can-refund`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refundable {
    /// Whether the amount can be refunded.
    pub is_refundable: bool,
    /// Whether the balance of the shop covers it, when the answer tells it.
    pub has_balance: Option<bool>,
    /// The least that can be refunded, when the answer tells it.
    pub min_minor: Option<i64>,
    /// The most that can be refunded, when the answer tells it.
    pub max_minor: Option<i64>,
}

/// The shop as imoje sees it (imoje API, `GET service/{id}`). To have it means that the credentials are accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// Whether the shop is active, when the answer tells it.
    pub is_active: Option<bool>,
    /// The channels for recurring debits, when the answer lists channels at all.
    pub recurring: Option<Vec<Channel>>,
    /// What time it was by imoje's clock, in whole seconds.
    pub sent_at: Option<DateTime<Utc>>,
}

impl Service {
    /// Whether recurring debits go through now, when the answer tells it.
    pub fn is_online(&self) -> Option<bool> {
        if self.is_active == Some(false) {
            return Some(false);
        }
        channel::is_online(self.recurring.as_deref()?)
    }
}
