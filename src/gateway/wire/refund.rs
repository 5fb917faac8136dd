//! What an answer about a refund that is not ordered yet shows.

use serde_json::Value;

use super::members::{flag, whole};
use crate::gateway::answer::Refundable;

/// What an answer to `can-refund` says, wrapped in nothing.
pub(in crate::gateway) fn read_refundable(bytes: &[u8]) -> Option<Refundable> {
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
