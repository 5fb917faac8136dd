//! What there is at one moment: the books, what the gateway has really done, what is on its way, and where each instance stands.
//!
//! Everything is small and without identity of its own, so that two worlds that cannot be told apart are one state. Instances
//! are kept sorted for the same reason: it does not matter which of them did something.

use cykl::domain::attempt::AttemptState;
use cykl::domain::charge::ChargeState;
use cykl::domain::subscription::SubscriptionStatus;

/// The most instances of any configuration.
pub const INSTANCES_MAX: usize = 2;

/// The most attempts of any configuration.
pub const ATTEMPTS_MAX: usize = 3;

/// The most transactions that the gateway may make: one for each attempt, and one too many.
pub const TRANSACTIONS_MAX: usize = 4;

/// The whole world, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct World {
    /// The database.
    pub books: Books,
    /// A copy of the books, to be restored.
    pub backup: Backup,
    /// What the gateway has, by transaction id.
    pub ledger: [Option<Transaction>; TRANSACTIONS_MAX],
    /// How many requests are on the wire, by attempt.
    pub wire: [u8; ATTEMPTS_MAX],
    /// The instances, sorted.
    pub instances: [Instance; INSTANCES_MAX],
    /// Permits whose commit is lost and may still happen, by attempt, with their [`Permit::id`].
    pub lost_commits: [Option<u8>; ATTEMPTS_MAX],
    /// Whether the gateway may still make a second transaction for an order.
    pub has_twin: bool,
}

/// The books as far as one charge is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Books {
    /// The charge.
    pub charge: ChargeState,
    /// Whether `next_action_at` of a charge that waits has come.
    pub is_due: bool,
    /// Its subscription.
    pub subscription: SubscriptionStatus,
    /// Its attempts, by number.
    pub attempts: [Option<Attempt>; ATTEMPTS_MAX],
}

/// A row of `attempts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Attempt {
    /// Its state.
    pub state: AttemptState,
    /// `transaction_id`
    pub transaction: Option<u8>,
    /// Whether `next_poll_at` is set.
    pub is_polled: bool,
    /// Whether the gateway's word that it was declined is fresh (`confirmed_at`).
    pub is_confirmed: bool,
    /// Whether people were asked (`case_opened_at`).
    pub is_case: bool,
    /// How long ago it was permitted, as long as that matters.
    pub age: Age,
    /// `attempt_id`: tells it from another permit that was to have the same number.
    pub id: u8,
}

/// How old an attempt is, between the times that a rule asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Age {
    /// Less than the 60 seconds in which it may be sent.
    Seconds,
    /// More than that: what was sent has arrived or is lost.
    Hours,
    /// More than the 100 hours after which people may declare it absent; the time for notices is over.
    HundredHours,
    /// More than the ten days after which it is written off.
    TenDays,
}

impl Age {
    /// All of them, in order.
    pub const ALL: [Age; 4] = [Age::Seconds, Age::Hours, Age::HundredHours, Age::TenDays];
}

/// A copy of the database server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Backup {
    /// Nobody takes one.
    Never,
    /// One may be taken.
    Possible,
    /// One was taken.
    Taken(Books),
    /// It was restored. The fence refuses permits until people have adopted the database.
    Restored,
    /// It was restored, and people have compared it with the gateway and adopted it.
    Adopted,
}

/// A transaction in the gateway's ledger: the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Transaction {
    /// The attempt whose order id it carries.
    pub order: u8,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fate {
    /// Not decided yet.
    Open,
    /// The money moved.
    Settled,
    /// Declined; the gateway may still take it back.
    Declined,
    /// Declined, and too long ago to be taken back.
    DeclinedForGood,
}

/// Where an instance stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Instance {
    /// At nothing.
    Idle,
    /// It has written a permit and not committed it.
    Permitting(Permit),
    /// It has sent the request before the commit. Broken variants only.
    SentEarly(Permit),
    /// It does not know whether the permit was committed.
    Unconfirmed(Permit),
    /// The permit is committed and not used. `is_old`: for longer than it may be.
    Permitted {
        /// The permit.
        permit: Permit,
        /// Whether it may not be used any more.
        is_old: bool,
    },
    /// The request was sent.
    Waiting(Permit),
    /// The answer is on its way back.
    Answering(Permit, Word),
    /// It has read a transaction, and what it saw may have changed before it is recorded.
    Read(Reading),
}

impl Instance {
    /// The permit that it holds, or that it asks about.
    pub const fn permit(self) -> Option<Permit> {
        match self {
            Instance::Idle => None,
            Instance::Permitting(permit)
            | Instance::SentEarly(permit)
            | Instance::Unconfirmed(permit)
            | Instance::Permitted { permit, .. }
            | Instance::Waiting(permit)
            | Instance::Answering(permit, _)
            | Instance::Read(Reading { permit, .. }) => Some(permit),
        }
    }
}

/// What allows one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Permit {
    /// The attempt, by number from 0.
    pub attempt: u8,
    /// See [`Attempt::id`].
    pub id: u8,
}

/// Why the gateway refuses a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// Not now: 406.
    Unavailable,
    /// Never like this: 422.
    Invalid,
    /// The card's profile is inactive: 400.
    ProfileInactive,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Refusal; 3] = [
        Refusal::Unavailable,
        Refusal::Invalid,
        Refusal::ProfileInactive,
    ];
}

/// What an instance learnt about its own request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Word {
    /// No byte of it left.
    NotSent,
    /// No answer came.
    Nothing,
    /// A 5xx came.
    Fault,
    /// It was refused.
    Refused(Refusal),
    /// It made this transaction, which stood like this then.
    Shown(u8, Fate),
}

/// What a read showed, and about which attempt it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reading {
    /// The attempt.
    pub permit: Permit,
    /// The transaction that was read.
    pub transaction: u8,
    /// What it showed.
    pub shown: Shown,
    /// Whether the retry of the charge was due when it was read.
    pub was_due: bool,
}

/// What a read shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shown {
    /// A transaction under the order id of `order`.
    Ours {
        /// The attempt that its order id names.
        order: u8,
        /// What became of it.
        fate: Fate,
    },
    /// A declined transaction of somebody else's order.
    Foreign,
    /// A broken variant's own idea: a decline that nobody read.
    Invented,
}

/// The id of somebody else's transaction, which a forger names.
pub const FOREIGN: u8 = 9;

impl World {
    /// How often the money of the charge has moved.
    pub fn movements(&self) -> usize {
        self.transactions()
            .filter(|(_, transaction)| transaction.fate == Fate::Settled)
            .count()
    }

    /// The gateway's transactions with their ids.
    pub fn transactions(&self) -> impl Iterator<Item = (u8, Transaction)> {
        (0..)
            .zip(self.ledger)
            .filter_map(|(id, transaction)| Some((id, transaction?)))
    }

    /// The row that a permit is about, unless it was lost with a restored backup.
    pub fn row(&self, permit: Permit) -> Option<&Attempt> {
        self.books.attempts[usize::from(permit.attempt)]
            .as_ref()
            .filter(|attempt| attempt.id == permit.id)
    }

    /// An `attempt_id` that nothing else names which is, was or is to be the attempt of this number.
    pub fn unused_id(&self, attempt: u8) -> u8 {
        let kept = match self.backup {
            Backup::Taken(books) => books.attempts[usize::from(attempt)],
            Backup::Never | Backup::Possible | Backup::Restored | Backup::Adopted => None,
        };
        let rows = [self.books.attempts[usize::from(attempt)], kept];
        let is_used = |id: u8| {
            rows.iter().flatten().any(|row| row.id == id)
                || self.lost_commits[usize::from(attempt)] == Some(id)
                || self
                    .instances
                    .iter()
                    .filter_map(|instance| instance.permit())
                    .any(|permit| permit == Permit { attempt, id })
        };
        (0..).find(|id| !is_used(*id)).unwrap_or(u8::MAX)
    }

    /// Replaces an instance and brings them into order.
    pub fn put(&mut self, instance: usize, now: Instance) {
        self.instances[instance] = now;
        self.instances.sort_unstable();
    }
}

impl Books {
    /// The attempts with their numbers.
    pub fn rows(&self) -> impl Iterator<Item = (u8, Attempt)> {
        (0..)
            .zip(self.attempts)
            .filter_map(|(number, attempt)| Some((number, attempt?)))
    }

    /// The number of the next attempt, which may be one more than there may be.
    pub fn next_number(&self) -> u8 {
        self.rows().map(|(number, _)| number + 1).max().unwrap_or(0)
    }
}
