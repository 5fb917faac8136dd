//! Our books beside the gateway's ledger.

use std::collections::BTreeMap;

use uuid::Uuid;

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

/// A movement of money, in either book: order id, amount in minor units, currency.
type Moved = (String, i64, String);

impl Comparison {
    pub fn of(movements: &[Movement], ledger: &Ledger) -> Self {
        let ours = movements.iter().map(|movement| {
            let currency = movement.currency.code().to_owned();
            let moved = (movement.order_id.clone(), movement.amount_minor, currency);
            (movement.transaction_id.as_uuid(), moved)
        });
        let theirs = ledger.settled().map(|transaction| {
            let amount_minor = i64::from(transaction.amount_minor);
            let currency = transaction.currency.code().to_owned();
            (
                transaction.id,
                (transaction.order_id.to_string(), amount_minor, currency),
            )
        });
        let sent_twice = ledger.order_ids_posted_twice().len();
        Self::between(&ours.collect(), &theirs.collect(), sent_twice)
    }

    fn between(
        ours: &BTreeMap<Uuid, Moved>,
        theirs: &BTreeMap<Uuid, Moved>,
        sent_twice: usize,
    ) -> Self {
        let mut periods = BTreeMap::<_, usize>::new();
        for (order_id, ..) in theirs.values() {
            if let Ok(order_id) = order_id.parse::<OrderId>() {
                let period = (order_id.subscription_id, order_id.period_no);
                *periods.entry(period).or_default() += 1;
            }
        }
        let both = || {
            ours.iter()
                .filter_map(|(id, our)| Some((our, theirs.get(id)?)))
        };
        Self {
            ours: ours.len(),
            theirs: theirs.len(),
            double: periods.values().filter(|&&times| times > 1).count(),
            lost: theirs.len() - both().count(),
            invented: ours.len() - both().count(),
            different: both().filter(|(our, their)| our != their).count(),
            sent_twice,
        }
    }

    /// Whether nothing differs.
    pub fn agrees(&self) -> bool {
        self.double + self.lost + self.invented + self.different + self.sent_twice == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBSCRIPTION: &str = "cykl-0192f0c1a2b37c4d8e5f60718293a4b5";

    fn book(movements: &[(u128, &str, i64)]) -> BTreeMap<Uuid, Moved> {
        movements
            .iter()
            .map(|(id, rest, amount_minor)| {
                let order_id = format!("{SUBSCRIPTION}-{rest}");
                (
                    Uuid::from_u128(*id),
                    (order_id, *amount_minor, "PLN".to_owned()),
                )
            })
            .collect()
    }

    #[test]
    fn books_that_agree_agree() {
        let book = book(&[(1, "0-1", 100), (2, "1-2", 100)]);
        assert!(Comparison::between(&book, &book, 0).agrees());
    }

    #[test]
    fn every_difference_is_counted_and_none_is_forgiven() {
        let ours = book(&[(1, "0-1", 100), (2, "1-1", 100), (9, "5-1", 100)]);
        let theirs = book(&[
            (1, "0-1", 100),
            (2, "1-1", 101),
            (3, "2-1", 100),
            (4, "2-2", 100),
        ]);
        let comparison = Comparison::between(&ours, &theirs, 0);
        let expected = Comparison {
            ours: 3,
            theirs: 4,
            double: 1,
            lost: 2,
            invented: 1,
            different: 1,
            sent_twice: 0,
        };
        assert_eq!(comparison, expected);
        assert!(!comparison.agrees());
    }

    #[test]
    fn an_order_id_that_was_sent_twice_is_a_difference_even_when_no_money_moved() {
        assert!(!Comparison::between(&book(&[]), &book(&[]), 1).agrees());
    }
}
