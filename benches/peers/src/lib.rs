//! What `peers` and the runners agree on.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What a runner is to do: the only argument of its program, as JSON.
///
/// With [`Step::Work`] it says [`Message::Ready`], waits for a line, works, says [`Message::Called`] when every job has been
/// debited, waits until its standard input ends, and says [`Message::Counts`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Assignment {
    /// The job system.
    pub peer: String,
    /// Its settings.
    pub mode: String,
    /// Which half of the work.
    pub step: Step,
    /// A database of the peer's own.
    pub database_url: String,
    /// Where a debit is posted.
    pub endpoint: String,
    /// The bearer token.
    pub token: String,
    /// The shop.
    pub service_id: String,
    /// The card.
    pub profile_id: Uuid,
    /// An order's id is this, a dash and the number of the job.
    pub order_prefix: String,
    /// How many jobs, numbered from 0.
    pub jobs: u32,
    /// How many debits at a time, where the settings leave it open.
    pub in_flight: u16,
}

/// Which half of the work a runner does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Puts the jobs into the queue, and ends.
    Enqueue,
    /// Works on them.
    Work,
}

/// What a runner says on standard output, as JSON in a line of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// It has only to be told to begin.
    Ready,
    /// Every job has been debited. Not all of them may be recorded yet.
    Called,
    /// What it did in all.
    Counts(Counts),
}

/// What a runner did in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// How many debits it made.
    pub calls: u64,
    /// How many different jobs it debited.
    pub distinct: u64,
}
