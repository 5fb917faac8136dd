//! The charger: charges that are due are debited.
//!
//! Batches of permits are committed, each is sent once, and answers are recorded together as they come in; the three go on at
//! the same time. A permit whose commit is not confirmed is buried, never sent. What has no answer stays in doubt; the resolver
//! looks after it.

mod answers;
mod channels;
mod claims;
mod clocks;
mod flight;
mod ground;
mod requests;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::domain::attempt::AttemptState;
use crate::domain::id::FenceId;
use crate::domain::resolution::Policy;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::store::permits::Limits;
use crate::store::resolution::Recorded;
use crate::workers::shops::Shops;
use crate::workers::tripwires::Tripwires;
pub use channels::ChannelWatch;
pub use clocks::ClockWatch;
use flight::Flight;
pub use ground::Ground;

/// Debits what is due.
#[derive(Clone)]
pub struct Charger {
    /// The books.
    pub store: Store,
    /// The shops to bill for.
    pub shops: Shops,
    /// The most requests on the wire at once.
    pub requests_max: u32,
    /// What a permit must keep.
    pub limits: Limits,
    /// What follows from an answer.
    pub policy: Policy,
    /// The installation that may charge.
    pub fence_id: FenceId,
    /// Stamps permits and answers.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Metrics,
    /// What the last debits say about going on.
    pub tripwires: Tripwires,
    /// When imoje was asked about its channel.
    pub channels: ChannelWatch,
    /// What was seen of the clocks.
    pub clocks: ClockWatch,
    /// How far they may be apart.
    pub clock_gap_max: TimeDelta,
    /// What charging stands on, with the journal in which permits are written down before their requests leave.
    pub ground: Ground,
    /// How often that is looked at, in real time.
    pub look_every: Duration,
    /// Once cancelled, nothing more is claimed, and what waits for its turn is not sent.
    pub stop: CancellationToken,
}

/// What one run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Requests that were permitted.
    pub permitted: usize,
    /// Charges that were put off: too close to another, over a card's budget, or not sendable.
    pub put_off: usize,
    /// Attempts that settled at once.
    pub settled: usize,
    /// Attempts that imoje has and has not finished.
    pub pending: usize,
    /// Attempts that were declined at once.
    pub rejected: usize,
    /// Attempts that imoje refused.
    pub refused: usize,
    /// Attempts of which no byte left.
    pub not_sent: usize,
    /// Attempts whose outcome is unknown.
    pub in_doubt: usize,
}

/// One run of the charger.
#[derive(Clone)]
struct Run {
    charger: Arc<Charger>,
    flight: Arc<Flight>,
}

impl Charger {
    /// Debits everything that is due by `now`, as far as the limits allow, and records every answer.
    ///
    /// # Errors
    /// When the database fails. What was sent is recorded first, or stays in doubt.
    pub async fn run_once(&self, now: DateTime<Utc>) -> anyhow::Result<Report> {
        let charged = self.charge(now).await;
        if charged.is_err() {
            // The database may have been away, and may have come back as it was before.
            self.ground.doubt();
        }
        charged
    }

    async fn charge(&self, now: DateTime<Utc>) -> anyhow::Result<Report> {
        if !self.is_ground_sound(now).await? {
            return Ok(Report::default());
        }
        let names = self.shops.names();
        let work = self.store.has_work_for_charger(&names, now).await?;
        if !self.do_clocks_agree(work.time_of_database).await? || !work.is_there {
            return Ok(Report::default());
        }
        self.look_at_channels(now).await?;
        let run = Run {
            charger: Arc::new(self.clone()),
            flight: Flight::new(self.requests_max),
        };
        // Ends when the last request has dropped its end of the channel.
        let (landing, landed) = mpsc::unbounded_channel();
        let (claimed, recorded) = tokio::join!(run.claim_all(now, landing), run.record_all(landed));
        // What could not be recorded weighs more than what could not be claimed.
        let recorded = recorded?;
        let claimed = claimed?;
        Ok(Report {
            permitted: claimed.permitted,
            put_off: claimed.put_off,
            ..recorded
        })
    }
}

impl Report {
    fn add(&mut self, recorded: &Recorded) {
        match recorded.attempt {
            AttemptState::Settled | AttemptState::Surplus => self.settled += 1,
            AttemptState::Pending => self.pending += 1,
            AttemptState::Rejected => self.rejected += 1,
            AttemptState::Refused => self.refused += 1,
            AttemptState::NotSent => self.not_sent += 1,
            AttemptState::InDoubt | AttemptState::Absent => self.in_doubt += 1,
        }
    }
}
