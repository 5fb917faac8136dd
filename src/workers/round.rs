//! Rounds of a worker that looks through everything a little at a time.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};

/// How far a worker is with its round. It begins anew when the daemon starts; nothing rests on it.
#[derive(Debug, Clone)]
pub(super) struct Rounds<P> {
    every: TimeDelta,
    round: Arc<Mutex<Round<P>>>,
}

#[derive(Debug, Clone, Copy)]
struct Round<P> {
    /// `None` between two rounds.
    place: Option<P>,
    /// When the last round began.
    began_at: Option<DateTime<Utc>>,
}

/// What a run of the worker goes on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn<P> {
    /// Where.
    pub place: P,
    /// Whether a round begins.
    pub begins: bool,
}

impl<P: Copy> Rounds<P> {
    /// Rounds of which one begins in `every`, when the one before is over by then.
    pub fn new(every: TimeDelta) -> Self {
        let round = Round {
            place: None,
            began_at: None,
        };
        Self {
            every,
            round: Arc::new(Mutex::new(round)),
        }
    }

    /// Where the round goes on, or begins at `start`. `None` when it is not time for another.
    pub fn turn(&self, start: P, now: DateTime<Utc>) -> Option<Turn<P>> {
        let mut round = self.round.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = round.place {
            let begins = false;
            return Some(Turn { place, begins });
        }
        // A clock that was set back is no reason to wait for it.
        let is_early = |began_at| began_at <= now && now < began_at + self.every;
        if round.began_at.is_some_and(is_early) {
            return None;
        }
        *round = Round {
            place: Some(start),
            began_at: Some(now),
        };
        Some(Turn {
            place: start,
            begins: true,
        })
    }

    /// Notes how far the round is; `None` when it is over.
    pub fn keep(&self, place: Option<P>) {
        let mut round = self.round.lock().unwrap_or_else(PoisonError::into_inner);
        round.place = place;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("a time")
    }

    #[test]
    fn a_round_goes_on_until_it_is_over_and_begins_again_in_its_time() {
        let rounds = Rounds::new(TimeDelta::hours(1));
        let turn = |place, begins| Some(Turn { place, begins });
        let start = at("2027-01-01T07:00:00Z");
        assert_eq!(rounds.turn(0, start), turn(0, true));
        // Nothing was kept, by a run that failed.
        assert_eq!(rounds.turn(1, start), turn(0, false));
        rounds.keep(Some(7));
        assert_eq!(rounds.turn(0, at("2027-01-01T09:00:00Z")), turn(7, false));
        rounds.keep(None);
        assert_eq!(rounds.turn(0, at("2027-01-01T07:59:59Z")), None);
        assert_eq!(rounds.turn(2, at("2027-01-01T08:00:00Z")), turn(2, true));
        rounds.keep(None);
        assert_eq!(
            rounds.turn(3, at("2027-01-01T06:00:00Z")),
            turn(3, true),
            "the clock was set back"
        );
    }
}
