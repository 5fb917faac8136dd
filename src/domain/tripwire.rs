//! What makes the brake come on by itself, apart from single answers that [`resolution`](crate::domain::resolution) decides about:
//! a gateway that gives no answers, is off line, or declines everything, clocks that disagree, a day with far more charges than planned, and a
//! database that is not what it was.

use std::collections::VecDeque;

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::daily_cap::Extent;
use crate::domain::event::EventKind;
use crate::domain::permit_record::PermitRecord;

/// The reasons for which the brake stops charging by itself, until a person releases it.
pub const STOPS: [&str; 11] = [
    "unauthorized",
    "card_data_disabled",
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
pub const PAUSES: [&str; 3] = ["mass_doubts", "clock_disagreement", "channel_offline"];

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
    Declines(Declines),
    /// Two clocks disagree.
    Clocks(Disagreement),
    /// imoje says that its channel for recurring debits is off line.
    ChannelOffline,
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
            Trip::Declines(_) => "mass_declines",
            Trip::Clocks(_) => "clock_disagreement",
            Trip::ChannelOffline => "channel_offline",
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
            Trip::ChannelOffline => Some(CHANNEL_PAUSE),
            Trip::Declines(_)
            | Trip::DailyCap { .. }
            | Trip::Guards { .. }
            | Trip::BooksBehind { .. } => None,
        }
    }

    /// The event that tells it.
    pub const fn event(&self) -> EventKind {
        match self {
            Trip::Doubts { .. } => EventKind::IncidentDoubts,
            Trip::Declines(_) => EventKind::IncidentDeclines,
            Trip::Clocks(_) => EventKind::IncidentClock,
            Trip::ChannelOffline => EventKind::IncidentChannel,
            Trip::DailyCap { .. } => EventKind::IncidentDailyCap,
            Trip::Guards { .. } => EventKind::IncidentGuards,
            Trip::BooksBehind { .. } => EventKind::IncidentBooksBehind,
        }
    }
}

/// How long charging pauses when imoje's channel is off line.
const CHANNEL_PAUSE: TimeDelta = TimeDelta::minutes(15);

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

/// How many of the last outcomes, and of the last debits, are looked at for declines.
pub const OUTCOMES: u8 = 50;

/// Debits of longer ago than that tell nothing about now.
pub const OUTCOMES_AGE_MAX: TimeDelta = TimeDelta::days(7);

/// Fewer of them tell nothing.
const OUTCOMES_MIN: u64 = 10;

/// How many debits of a shop were declined.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Declines {
    /// How many.
    pub declined: u64,
    /// Of how many.
    pub debits: u64,
}

impl Declines {
    /// Whether they are more than half, and more than three times their `usual` share.
    fn are_too_many(self, usual: Self) -> bool {
        let is_unusual = usual.debits == 0
            || u128::from(self.declined) * u128::from(usual.debits)
                > 3 * u128::from(usual.declined) * u128::from(self.debits);
        self.debits >= OUTCOMES_MIN && self.declined * 2 > self.debits && is_unusual
    }

    /// What it means that so many of the last [`OUTCOMES`] debits of a shop were declined, in the order in which they were permitted
    /// and up to one that was. Those whose outcome is not known yet count among the debits.
    pub fn trip(self, usual: Self) -> Option<Trip> {
        self.are_too_many(usual).then_some(Trip::Declines(self))
    }
}

/// The last outcomes of a shop, in the order in which they came: whether each was a decline.
#[derive(Debug, Clone, Default)]
pub struct Outcomes(VecDeque<bool>);

impl Outcomes {
    /// Notes an outcome. Says whether it is time to look at the debits themselves: declines are told sooner than settlements, so that
    /// the first outcomes of a batch may be declines one and all, and mean nothing.
    pub fn note(&mut self, is_decline: bool, usual: Declines) -> bool {
        keep_last(&mut self.0, is_decline, OUTCOMES.into());
        let lately = Declines {
            declined: as_wide(count(&self.0)),
            debits: as_wide(self.0.len()),
        };
        lately.are_too_many(usual)
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

fn as_wide(number: usize) -> u64 {
    u64::try_from(number).expect("a usize has at most 64 bits")
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
    use std::iter::repeat_n;

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
    fn declines_are_too_many_from_ten_debits_beyond_half_and_three_times_the_usual() {
        let of = |declined, debits| Declines { declined, debits };
        for (declined, others, usual, expected) in [
            (9, 0, of(0, 0), false),
            (10, 0, of(0, 0), true),
            (5, 5, of(0, 0), false),
            (6, 5, of(0, 0), true),
            (25, 25, of(1, 100), false),
            (26, 24, of(1, 100), true),
            (30, 20, of(20, 100), false),
            (31, 19, of(20, 100), true),
            (50, 0, of(34, 100), false),
        ] {
            let lately = of(as_wide(declined), as_wide(declined + others));
            let trip = expected.then_some(Trip::Declines(lately));
            assert_eq!(lately.trip(usual), trip, "{lately:?}");
            let mut window = Outcomes::default();
            let mut is_suspicious = false;
            for is_decline in repeat_n(false, others).chain(repeat_n(true, declined)) {
                is_suspicious = window.note(is_decline, usual);
            }
            assert_eq!(is_suspicious, expected, "{lately:?}");
        }
    }

    #[test]
    fn only_the_last_fifty_outcomes_are_suspicious() {
        let mut window = Outcomes::default();
        let outcomes = repeat_n(false, 400).chain(repeat_n(true, 26));
        let suspicions =
            outcomes.filter(|&is_decline| window.note(is_decline, Declines::default()));
        assert_eq!(suspicions.count(), 1);
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
            Trip::Declines(Declines::default()),
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
