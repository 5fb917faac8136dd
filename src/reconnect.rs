//! How long to wait before connecting again: longer each time, up to a limit, and never in step with other instances.
//!
//! For the first connection to the database and for its listeners. Never for charges: what a declined or unanswered charge
//! waits for is days, evidence or people, and stands in the database. This is the only file that names the `backoff` crate,
//! which is no longer maintained, so that replacing it touches nothing else.

use std::time::Duration;

use backoff::backoff::Backoff;
use backoff::{ExponentialBackoff, ExponentialBackoffBuilder};

/// The waits between attempts to connect. They go on for ever: how often to try is up to the caller.
#[derive(Debug)]
pub struct Delays {
    backoff: ExponentialBackoff,
    max: Duration,
}

impl Delays {
    /// Waits that start near `initial`, grow by half each time, vary at random by half up and down, and never exceed `max`.
    pub fn new(initial: Duration, max: Duration) -> Self {
        let backoff = ExponentialBackoffBuilder::new()
            .with_initial_interval(initial)
            .with_max_interval(max)
            .with_max_elapsed_time(None)
            .build();
        Self { backoff, max }
    }

    /// The wait before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        // The crate varies the wait after limiting it, so 30 s at most would be up to 45 s.
        self.backoff
            .next_backoff()
            .map_or(self.max, |delay| delay.min(self.max))
    }

    /// Starts over, after a connection was made.
    pub fn reset(&mut self) {
        self.backoff.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INITIAL: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(30);

    #[test]
    fn waits_grow_to_the_limit_and_never_exceed_it() {
        let mut delays = Delays::new(INITIAL, MAX);
        let waits: Vec<Duration> = (0..500).map(|_| delays.next_delay()).collect();
        assert!(waits.iter().all(|wait| *wait <= MAX));
        assert!(waits[0] <= INITIAL * 3 / 2);
        // Half of the limit is the least that random variation leaves of it.
        assert!(waits[50..].iter().all(|wait| *wait >= MAX / 2));
        assert!(waits[50..].iter().any(|wait| *wait != waits[50]));
    }

    #[test]
    fn a_reset_starts_over() {
        let mut delays = Delays::new(INITIAL, MAX);
        for _ in 0..50 {
            delays.next_delay();
        }
        delays.reset();
        assert!(delays.next_delay() <= INITIAL * 3 / 2);
    }

    #[test]
    fn a_limit_below_the_start_holds() {
        let mut delays = Delays::new(MAX, INITIAL);
        assert!((0..20).all(|_| delays.next_delay() <= INITIAL));
    }
}
