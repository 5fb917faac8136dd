//! imoje over HTTP: domain words at its edge, imoje's words inside.
//!
//! Two promises stand here, and the product rests on them:
//!
//! - A debit is sent at most once for each call, by no layer twice. `Ok` is the gateway's word, `Err(NotSent)` means that no
//!   byte left, and `Err(Unknown)` that the card may have been charged. A decline is an answer and not an error.
//! - A notice is checked over its raw bytes before anything of it is read, and decides nothing.
//!
//! The first of them does not hold for [`TrialClient`], which makes experiments in a sandbox and refuses a shop with real money.
//!
//! Nothing here keeps state between calls, retries, follows a redirect, reads a proxy from the environment, or puts a secret
//! into an error, a log or debug output. It knows neither the database nor the configuration file.

mod answer;
mod client;
mod client_config;
mod first;
mod notice;
mod order;
mod payments;
mod refunds;
mod signature;
mod transport;
mod trial;
mod widget;
mod wire;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;

pub use answer::{
    ConnectFailure, ConnectStep, LinkAnswer, LinkOutcome, ListedPayment, Lookup, Lost, NoAnswer,
    NotSent, PostAnswer, Profile, ProfileKind, ReadAnswer, ReadError, Refundable, Service,
    ShownPayment, is_denial,
};
pub use client::ImojeClient;
pub use client_config::{ClientConfig, ClientError};
pub use first::{Action, FirstDetails, FirstOrder, FirstOutcome};
pub use notice::{
    NoticeKind, NoticeUnreadable, ParsedNotice, notice_token, notification_url, parse_notice,
    registration_url, verify_notice_token,
};
pub use order::DebitOrder;
pub use payments::{LinkDetails, LinkOrder};
pub use refunds::RefundOrder;
pub use signature::{
    AXEPTA_SIGNATURE_HEADER, Algorithm, NoticeCredentials, NoticeRejected, SIGNATURE_HEADER,
    verify_notice,
};
pub use transport::install_crypto;
pub use trial::{Said, TrialClient, TrialDebit, TrialError};
pub use widget::{WidgetHost, WidgetOrder, WidgetShop};
pub use wire::read_body;
