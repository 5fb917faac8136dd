//! What is still to happen, in the order of simulated time.

use std::{cmp::Reverse, collections::BinaryHeap};

use chrono::{DateTime, Utc};

/// What a notice tells. Transactions and links are named by their position in the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    /// A transaction has reached a step of its course.
    Step { position: usize, step: usize },
    /// A transaction that never was, modelled on this one, has settled.
    Forgery { position: usize },
    /// A link cannot be paid any more.
    End { link: usize },
}

impl Topic {
    /// Notices of one subject stay in their order.
    pub(super) fn subject(self) -> (bool, usize) {
        match self {
            Topic::Step { position, .. } | Topic::Forgery { position } => (false, position),
            Topic::End { link } => (true, link),
        }
    }
}

/// Which notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NoticeItem {
    pub(super) topic: Topic,
    pub(super) try_number: u8,
}

/// Something that happens at a known time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Item {
    /// A transaction reaches the next step of its course.
    Change { position: usize, step: usize },
    /// A link is not valid any longer.
    Expiry { link: usize },
    /// A notice leaves.
    Notice(NoticeItem),
}

/// Items by time; those of one moment in the order in which they were planned.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    heap: BinaryHeap<Reverse<(DateTime<Utc>, u64, Item)>>,
    planned: u64,
}

impl Agenda {
    pub(super) fn plan(&mut self, due: DateTime<Utc>, item: Item) {
        self.planned += 1;
        self.heap.push(Reverse((due, self.planned, item)));
    }

    /// The time of the next item.
    pub(super) fn next_due_at(&self) -> Option<DateTime<Utc>> {
        self.heap.peek().map(|Reverse((due, ..))| *due)
    }

    /// Takes the next item if it is due.
    pub(super) fn take_due(&mut self, now: DateTime<Utc>) -> Option<Item> {
        if self.next_due_at()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((.., item))| item)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn items_come_in_the_order_of_time_and_then_of_planning() {
        let start = DateTime::<Utc>::UNIX_EPOCH;
        let change = |position| Item::Change { position, step: 1 };
        let mut agenda = Agenda::default();
        agenda.plan(start + TimeDelta::seconds(9), change(9));
        agenda.plan(start, change(2));
        agenda.plan(start, change(1));
        assert_eq!(agenda.take_due(start), Some(change(2)));
        assert_eq!(agenda.take_due(start), Some(change(1)));
        assert_eq!(agenda.take_due(start), None);
        assert_eq!(agenda.next_due_at(), Some(start + TimeDelta::seconds(9)));
    }
}
