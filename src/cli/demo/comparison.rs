//! Our books beside the gateway's ledger.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::order_id::OrderId;
use crate::simulator::Ledger;
use crate::store::report::Movement;

/// What differs between the books and the ledger. All zero is the promise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    /// Movements of money in our books.
    pub ours: usize,
    /// Movements of money in the gateway's ledger.
    pub theirs: usize,
    /// Periods for which the gateway moved money more than once.
    pub double: usize,
    /// Movements that only the gateway knows.
    pub lost: usize,
    /// Movements that only we know.
    pub invented: usize,
    /// Movements that both know, with another order, amount or currency.
    pub different: usize,
    /// Order ids that were sent more than once.
    pub sent_twice: usize,
}

impl Comparison {
    pub fn of(movements: &[Movement], ledger: &Ledger) -> Self {
        let ours: BTreeMap<_, _> = movements
            .iter()
            .map(|movement| (movement.transaction_id.as_uuid(), described(movement)))
            .collect();
        let theirs: BTreeMap<_, _> = ledger
            .settled()
            .map(|transaction| {
                let amount = i64::from(transaction.amount_minor);
                let currency = transaction.currency.code().to_owned();
                (
                    transaction.id,
                    (transaction.order_id.to_string(), amount, currency),
                )
            })
            .collect();
        let mut periods = BTreeMap::<_, usize>::new();
        for (order_id, ..) in theirs.values() {
            if let Ok(order_id) = order_id.parse::<OrderId>() {
                *periods
                    .entry((order_id.subscription_id, order_id.period_no))
                    .or_default() += 1;
            }
        }
        let ids: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
        let count = |differs: &dyn Fn(bool, bool, bool) -> bool| {
            ids.iter()
                .filter(|id| {
                    let (our, their) = (ours.get(id), theirs.get(id));
                    differs(our.is_some(), their.is_some(), our == their)
                })
                .count()
        };
        Self {
            ours: ours.len(),
            theirs: theirs.len(),
            double: periods.values().filter(|&&times| times > 1).count(),
            lost: count(&|our, their, _| their && !our),
            invented: count(&|our, their, _| our && !their),
            different: count(&|our, their, same| our && their && !same),
            sent_twice: ledger.order_ids_posted_twice().len(),
        }
    }

    /// Whether nothing differs.
    pub fn agrees(&self) -> bool {
        self.double + self.lost + self.invented + self.different + self.sent_twice == 0
    }
}

fn described(movement: &Movement) -> (String, i64, String) {
    (
        movement.order_id.clone(),
        movement.amount_minor,
        movement.currency.code().to_owned(),
    )
}
