//! The JSON, as imoje documents it. Nobody outside of the gateway sees it.
//!
//! Requests are written member by member in the order of the documents. Answers are read with patience: members that are not
//! known are ignored, and one that cannot be read is absent, which the classifier takes for doubt. A body that is not JSON to
//! its last byte, or that says one thing twice, is [`Body::Unreadable`](crate::domain::answer::Body::Unreadable) as a whole. Reading never fails and never panics.

mod action;
mod envelope;
mod members;
mod payment;
mod profile;
mod refund;
mod requests;
mod service;
mod transaction;

pub(super) use action::{ShownAction, read_action};
pub(super) use envelope::opened;
pub(super) use members::{Text, TransactionNumber};
pub(super) use payment::{read_link, read_payment};
pub(super) use profile::{read_profile, read_profiles};
pub(super) use refund::read_refundable;
pub(super) use requests::{
    AdditionalData, CanRefundRequest, CancelRequest, DeactivateRequest, DebitData, DebitRequest,
    Payer, PaymentRequest, PlainRequest, RefundRequest, to_json,
};
pub(super) use service::read_service;
pub use transaction::read_body;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn reading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _body = read_body(&bytes);
            let _opened = opened(bytes.clone());
            let _profile = read_profile(&bytes);
            let _profiles = read_profiles(&bytes);
            let _service = read_service(&bytes);
            let _action = read_action(&bytes);
            let _link = read_link(&bytes);
            let _payment = read_payment(&bytes);
        }
    }
}
