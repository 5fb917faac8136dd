//! Everything that can happen next.

use crate::world::{Age, Fate, Refusal};

/// One step of the world. Instances, attempts and transactions are named by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// An instance finds the charge due and writes a permit; or holds the charge, or asks for a read first.
    Claim(usize),
    /// An instance goes on with what it is at.
    GoOn(usize, Move),
    /// The transaction of an attempt is read because its time has come.
    Poll(usize, u8),
    /// A transaction is read because a notice named it.
    Notice(usize, u8),
    /// Somebody else's transaction is read because a forged notice named it for this attempt.
    ForgedNotice(usize, u8),
    /// Broken variants only: another instance sends for an attempt whose own is silent.
    Rescue(usize, u8),
    /// The gateway takes a request.
    Deliver(u8, Outcome),
    /// A request is lost on its way.
    LoseRequest(u8),
    /// The gateway finishes a transaction.
    Finish(u8, Fate),
    /// The gateway takes a decline back: the money moves.
    TakeBack(u8),
    /// The gateway makes a second, declined transaction for an order.
    Twin(u8),
    /// Time passes, until something is so old.
    Grow(Age),
    /// The time of the retry comes.
    RetryDay,
    /// Time or people change the books.
    Write(Write),
    /// The database is copied.
    TakeBackup,
    /// The copy takes the place of the database.
    Restore,
    /// People have compared the restored database with the gateway.
    Adopt,
}

/// What an instance does that is at something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// The permit is committed, or refused by a guard.
    Commit,
    /// The connection breaks while the permit is being committed.
    LoseCommit,
    /// It makes sure that its unconfirmed permit can never be used.
    Bury,
    /// The request leaves.
    Send,
    /// The request does not leave: no connection, too old, stopping.
    Withhold,
    /// The time for the answer is over, or its connection breaks.
    GiveUpWaiting,
    /// The answer arrives as a 5xx.
    TakeFault,
    /// Broken variants only: the request leaves once more.
    Resend,
    /// The answer arrives and is recorded, or what was read is.
    Record,
    /// It is killed.
    Crash,
}

/// What is written to the books by nobody's request or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// A commit that was lost happens after all.
    LostCommitLands(u8),
    /// An attempt is brought to its stage. `true`: as many are in doubt as may be.
    Stage(u8, bool),
    /// Two people declare an attempt absent.
    DeclareAbsent(u8),
    /// A person lets a held charge be tried again.
    RetryHeld,
    /// A person gives a held charge up.
    GiveUpHeld,
    /// A person attaches a card, and the failed charge is tried again.
    Reopen,
    /// A person does not charge a period that was charged before a backup was restored.
    Skip,
    /// Broken variants only: an attempt without an answer counts as failed.
    FailUnanswered(u8),
}

/// What the gateway does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It makes a transaction, which stands like this.
    Transaction(Fate),
    /// It refuses it.
    Refused(Refusal),
    /// It fails without any effect.
    Fault,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Outcome; 7] = [
        Outcome::Transaction(Fate::Settled),
        Outcome::Transaction(Fate::Declined),
        Outcome::Transaction(Fate::Open),
        Outcome::Refused(Refusal::ALL[0]),
        Outcome::Refused(Refusal::ALL[1]),
        Outcome::Refused(Refusal::ALL[2]),
        Outcome::Fault,
    ];
}
