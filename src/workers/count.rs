//! Counting and logging what the workers did, under the names of the contract.

use crate::domain::answer::Verdict;
use crate::domain::attempt::AttemptState;
use crate::domain::charge::ChargeState;
use crate::domain::shop::ShopName;
use crate::metrics::{Metrics, ShopClass, ShopState};
use crate::store::resolution::Recorded;

/// Permits that were committed: attempts born in doubt, charges put in flight.
pub(super) fn permitted(metrics: &Metrics, shop: &ShopName, count: usize) {
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    metrics
        .attempts
        .get_or_create(&ShopState::of(shop, AttemptState::InDoubt.as_str()))
        .inc_by(count);
    metrics
        .charges
        .get_or_create(&ShopState::of(shop, ChargeState::InFlight.as_str()))
        .inc_by(count);
}

/// News that was recorded; a line in the log for each.
pub(super) fn recorded(metrics: &Metrics, recorded: &[Recorded]) {
    for one in recorded {
        tracing::info!(
            shop = %one.shop,
            attempt.id = %one.attempt_id,
            attempt.state = one.attempt.as_str(),
            charge.state = one.charge_became.map(ChargeState::as_str),
            "recorded"
        );
        if let Some(state) = one.attempt_became {
            metrics
                .attempts
                .get_or_create(&ShopState::of(&one.shop, state.as_str()))
                .inc();
        }
        if let Some(state) = one.charge_became {
            metrics
                .charges
                .get_or_create(&ShopState::of(&one.shop, state.as_str()))
                .inc();
        }
        if let Some(class) = one.decline {
            metrics
                .declines
                .get_or_create(&ShopClass::of(&one.shop, class.as_str()))
                .inc();
        }
    }
}

/// The outcome of a call, for the metric of answer times.
pub(super) fn verdict_word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Settled { .. } => "settled",
        Verdict::Pending { .. } => "pending",
        Verdict::Rejected { .. } => "rejected",
        Verdict::Refused(_) => "refused",
        Verdict::InDoubt(_) => "in_doubt",
    }
}
