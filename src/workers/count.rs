//! Counting and logging what the workers did, under the names of the contract.

use std::collections::BTreeMap;

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

/// News that was recorded; a line in the log for each. The counters are looked up once for all news alike, not once for each.
pub(super) fn recorded(metrics: &Metrics, recorded: &[Recorded]) {
    let mut attempts = BTreeMap::new();
    let mut charges = BTreeMap::new();
    let mut declines = BTreeMap::new();
    for one in recorded {
        tracing::info!(
            shop = %one.shop,
            attempt.id = %one.attempt_id,
            attempt.state = one.attempt.as_str(),
            charge.state = one.charge_became.map(ChargeState::as_str),
            "recorded"
        );
        if let Some(state) = one.attempt_became {
            *attempts.entry((state.as_str(), &one.shop)).or_default() += 1;
        }
        if let Some(state) = one.charge_became {
            *charges.entry((state.as_str(), &one.shop)).or_default() += 1;
        }
        if let Some(class) = one.decline {
            *declines.entry((class.as_str(), &one.shop)).or_default() += 1;
        }
    }
    for ((state, shop), count) in attempts {
        let labels = ShopState::of(shop, state);
        metrics.attempts.get_or_create(&labels).inc_by(count);
    }
    for ((state, shop), count) in charges {
        let labels = ShopState::of(shop, state);
        metrics.charges.get_or_create(&labels).inc_by(count);
    }
    for ((class, shop), count) in declines {
        let labels = ShopClass::of(shop, class);
        metrics.declines.get_or_create(&labels).inc_by(count);
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
