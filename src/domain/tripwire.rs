//! What makes the brake come on by itself, apart from single answers that [`resolution`](crate::domain::resolution) decides about:
//! a gateway that gives no answers, one that declines everything, clocks that disagree, a day with far more charges than planned, and a
//! database that is not what it was.

use std::collections::VecDeque;

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::daily_cap::Extent;
use crate::domain::event::EventKind;
use crate::domain::permit_record::PermitRecord;

/// The reasons for which the brake stops charging by itself, until a person releases it.
pub const STOPS: [&str; 10] = [
    "unauthorized",
    "answer_mismatch",
    "transaction_mismatch",
    "contradicting_news",
    "surplus_settlement",
    "orphan_transaction",
    "mass_declines",
    "daily_cap",
    "guards_missing",
    "books_behind",
];

/// The reasons for which charging pauses by itself.
pub const PAUSES: [&str; 2] = ["mass_doubts", "clock_disagreement"];

/// Why the brake comes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trip {
    /// Too many of the last debits of a shop had no answer that tells anything.
    Doubts {
        /// How many.
        doubts: usize,
        /// Of how many.
        sends: usize,
    },
    /// Far more of the last debits of a shop were declined than usual.
    Declines {
        /// How many.
        declined: usize,
        /// Of how many.
        finals: usize,
    },
    /// Two clocks disagree.
    Clocks(Disagreement),
    /// More is to be permitted on a day than was planned for it, by far.
    DailyCap {
        /// How much, with what is asked for now.
        permitted: Extent,
        /// Of how much.
        planned: Extent,
    },
    /// Constraints, indexes or triggers of the schema are missing or not in force.
    Guards {
        /// How many.
        missing: usize,
    },
    /// The permit journal names a permit that the database has forgotten.
    BooksBehind {
        /// When that was given.
        permitted_at: DateTime<Utc>,
    },
}

impl Trip {
    /// That the books have forgotten `permit`.
    pub const fn behind(permit: &PermitRecord) -> Self {
        Trip::BooksBehind {
            permitted_at: permit.permitted_at,
        }
    }

    /// How it is spelt as the reason of the brake.
    pub const fn reason(&self) -> &'static str {
        match self {
            Trip::Doubts { .. } => "mass_doubts",
            Trip::Declines { .. } => "mass_declines",
            Trip::Clocks(_) => "clock_disagreement",
            Trip::DailyCap { .. } => "daily_cap",
            Trip::Guards { .. } => "guards_missing",
            Trip::BooksBehind { .. } => "books_behind",
        }
    }

    /// How long charging pauses; `None` when a person has to release it.
    pub const fn pause(&self) -> Option<TimeDelta> {
        match self {
            Trip::Doubts { .. } => Some(DOUBTS_PAUSE),
            Trip::Clocks(_) => Some(CLOCK_PAUSE),
            Trip::Declines { .. }
            | Trip::DailyCap { .. }
            | Trip::Guards { .. }
            | Trip::BooksBehind { .. } => None,
        }
    }

    /// The event that tells it.
    pub const fn event(&self) -> EventKind {
        match self {
            Trip::Doubts { .. } => EventKind::IncidentDoubts,
            Trip::Declines { .. } => EventKind::IncidentDeclines,
            Trip::Clocks(_) => EventKind::IncidentClock,
            Trip::DailyCap { .. } => EventKind::IncidentDailyCap,
            Trip::Guards { .. } => EventKind::IncidentGuards,
            Trip::BooksBehind { .. } => EventKind::IncidentBooksBehind,
        }
    }
}

/// How many of the last debits are looked at for doubts.
const SENDS: usize = 10;

/// So many of them without an answer are too many.
const DOUBTS_MAX: usize = 3;

/// How long charging pauses then.
const DOUBTS_PAUSE: TimeDelta = TimeDelta::minutes(15);

/// The last debits of a shop: whether each ended in doubt.
#[derive(Debug, Clone, Default)]
pub struct Sends(VecDeque<bool>);

impl Sends {
    /// Notes a debit that was sent. Says when there are too many doubts.
    pub fn note(&mut self, is_doubt: bool) -> Option<Trip> {
        keep_last(&mut self.0, is_doubt, SENDS);
        let doubts = count(&self.0);
        (doubts >= DOUBTS_MAX).then_some(Trip::Doubts {
            doubts,
            sends: self.0.len(),
        })
    }
}

/// How many of the last outcomes are looked at for declines.
const FINALS: usize = 50;

/// Fewer of them tell nothing.
const FINALS_MIN: usize = 10;

/// How often debits of a shop are declined at other times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usual {
    /// How many were declined.
    pub declined: u64,
    /// Of how many that settled or were declined.
    pub finals: u64,
}

/// The last outcomes of a shop: whether each was a decline.
#[derive(Debug, Clone, Default)]
pub struct Finals(VecDeque<bool>);

impl Finals {
    /// Notes an outcome. Says when the declines are more than half, and more than three times their usual share.
    pub fn note(&mut self, is_decline: bool, usual: Usual) -> Option<Trip> {
        keep_last(&mut self.0, is_decline, FINALS);
        let (declined, finals) = (count(&self.0), self.0.len());
        let is_most = declined * 2 > finals;
        let is_unusual = usual.finals == 0
            || as_wide(declined) * u128::from(usual.finals)
                > 3 * u128::from(usual.declined) * as_wide(finals);
        (finals >= FINALS_MIN && is_most && is_unusual)
            .then_some(Trip::Declines { declined, finals })
    }
}

fn keep_last(last: &mut VecDeque<bool>, one: bool, max: usize) {
    last.push_back(one);
    if last.len() > max {
        last.pop_front();
    }
}

fn count(last: &VecDeque<bool>) -> usize {
    last.iter().filter(|&&one| one).count()
}

fn as_wide(number: usize) -> u128 {
    u128::try_from(number).expect("a usize has at most 64 bits")
}

/// How long charging pauses after clocks disagreed, unless the one who saw it sees them agree before. It is extended as long as they
/// disagree.
const CLOCK_PAUSE: TimeDelta = TimeDelta::minutes(5);

/// Clocks, read at the same moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    /// This machine's.
    pub host: DateTime<Utc>,
    /// The database's.
    pub database: DateTime<Utc>,
    /// imoje's, when one of its answers told it lately.
    pub gateway: Option<DateTime<Utc>>,
    /// By how much this machine's clock was set since it was looked at last, measured by one that cannot be set.
    pub jump: TimeDelta,
}

/// Clocks that disagree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disagreement {
    /// Which of them.
    pub clocks: &'static str,
    /// By how much.
    pub by: TimeDelta,
}

/// Which clocks are more than `gap_max` apart, if any are. Who is right is not known.
pub fn disagreement(clocks: &Clocks, gap_max: TimeDelta) -> Option<Disagreement> {
    let Clocks {
        host,
        database,
        gateway,
        jump,
    } = *clocks;
    let pairs = [
        Some(("this machine, before and after", jump)),
        Some(("this machine and the database", database - host)),
        gateway.map(|gateway| ("this machine and imoje", gateway - host)),
        gateway.map(|gateway| ("the database and imoje", gateway - database)),
    ];
    pairs
        .into_iter()
        .flatten()
        .find(|(_, by)| by.abs() > gap_max)
        .map(|(clocks, by)| Disagreement { clocks, by })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_doubts_in_ten_debits_are_too_many_and_in_eleven_they_are_not() {
        let trips = |sends: &[bool]| {
            let mut window = Sends::default();
            sends
                .iter()
                .filter_map(|&is_doubt| window.note(is_doubt))
                .count()
        };
        assert_eq!(trips(&[true, true]), 0);
        assert_eq!(trips(&[true, true, true]), 1);
        let mut spread = [false; 10];
        for doubt in [0, 4, 9] {
            spread[doubt] = true;
        }
        assert_eq!(trips(&spread), 1);
        let mut thin = [false; 11];
        for doubt in [0, 5, 10] {
            thin[doubt] = true;
        }
        assert_eq!(trips(&thin), 0);
    }

    #[test]
    fn declines_are_too_many_from_ten_outcomes_beyond_half_and_three_times_the_usual() {
        let trips = |declined: usize, settled: usize, usual: Usual| {
            let mut window = Finals::default();
            let mut last = None;
            for _ in 0..settled {
                last = window.note(false, usual);
            }
            for _ in 0..declined {
                last = window.note(true, usual);
            }
            last.is_some()
        };
        let usual = |declined, finals| Usual { declined, finals };
        for (declined, settled, of, expected) in [
            (9, 0, usual(0, 0), false),
            (10, 0, usual(0, 0), true),
            (5, 5, usual(0, 0), false),
            (6, 5, usual(0, 0), true),
            (25, 25, usual(1, 100), false),
            (26, 24, usual(1, 100), true),
            (30, 20, usual(20, 100), false),
            (31, 19, usual(20, 100), true),
            (50, 0, usual(34, 100), false),
            // Only the last fifty count.
            (26, 400, usual(0, 0), true),
        ] {
            assert_eq!(
                trips(declined, settled, of),
                expected,
                "{declined} of {}",
                declined + settled
            );
        }
    }

    const GAP_MAX: TimeDelta = TimeDelta::seconds(120);

    #[test]
    fn clocks_that_are_two_minutes_apart_disagree_whichever_they_are() {
        let at: DateTime<Utc> = "2027-01-01T07:00:00Z".parse().unwrap();
        let agreeing = Clocks {
            host: at,
            database: at + TimeDelta::seconds(120),
            gateway: Some(at + TimeDelta::seconds(1)),
            jump: TimeDelta::seconds(-120),
        };
        assert_eq!(disagreement(&agreeing, GAP_MAX), None);
        let off = TimeDelta::seconds(121);
        for by in [off, -off] {
            let right = Clocks {
                host: at,
                database: at,
                gateway: Some(at),
                jump: TimeDelta::zero(),
            };
            for (wrong, clocks) in [
                (
                    Clocks { jump: by, ..right },
                    "this machine, before and after",
                ),
                (
                    Clocks {
                        database: at + by,
                        ..right
                    },
                    "this machine and the database",
                ),
                (
                    Clocks {
                        gateway: Some(at + by),
                        ..right
                    },
                    "this machine and imoje",
                ),
            ] {
                assert_eq!(
                    disagreement(&wrong, GAP_MAX),
                    Some(Disagreement { clocks, by })
                );
            }
        }
        // Each is near this machine's, on another side of it.
        let apart = Clocks {
            host: at,
            database: at - TimeDelta::seconds(80),
            gateway: Some(at + TimeDelta::seconds(80)),
            jump: TimeDelta::zero(),
        };
        let found = disagreement(&apart, GAP_MAX).unwrap();
        assert_eq!(found.clocks, "the database and imoje");
    }

    #[test]
    fn each_trip_has_a_reason_that_is_listed() {
        let clocks = Disagreement {
            clocks: "this machine and imoje",
            by: TimeDelta::hours(1),
        };
        for trip in [
            Trip::Doubts {
                doubts: 3,
                sends: 10,
            },
            Trip::Declines {
                declined: 10,
                finals: 10,
            },
            Trip::Clocks(clocks),
        ] {
            let listed = if trip.pause().is_some() {
                &PAUSES[..]
            } else {
                &STOPS[..]
            };
            assert!(listed.contains(&trip.reason()), "{trip:?}");
            assert!(trip.event().is_alert());
        }
    }
}
