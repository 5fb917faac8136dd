//! The slow start after a release: 1 charge, then 5, then a quarter of what may be in flight, then all.
//!
//! What stopped charging may not be over, and the first charge that is sent again is the cheapest way to find out. A stage is over
//! when what was sent in it is final. Nothing is waited for without an end: what imoje has and leaves pending may stay so for days, and
//! is as good as final then; what is in doubt is the very thing that charging may have been stopped for.

use chrono::TimeDelta;

/// For so long a stage waits for an attempt that is pending or in doubt. Most end within a minute, by a notice; the others would stop
/// charging until people have looked.
pub const PATIENCE: TimeDelta = TimeDelta::minutes(15);

/// How much may be sent after a release before it has to be final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// One charge.
    One,
    /// Five.
    Five,
    /// A quarter of what may be in flight, and no fewer than five.
    Quarter,
}

impl Stage {
    /// All of them, in their order.
    pub const ALL: [Stage; 3] = [Stage::One, Stage::Five, Stage::Quarter];

    /// Its number in the database, from 1.
    pub const fn number(self) -> i16 {
        match self {
            Stage::One => 1,
            Stage::Five => 2,
            Stage::Quarter => 3,
        }
    }

    /// The stage of that number.
    pub fn of_number(number: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.number() == number)
    }

    /// How many permits it gives when `in_flight_max` may be in flight.
    pub fn permits_max(self, in_flight_max: u32) -> u32 {
        match self {
            Stage::One => 1,
            Stage::Five => 5,
            Stage::Quarter => in_flight_max.div_ceil(4).max(5),
        }
    }

    const fn next(self) -> Option<Self> {
        match self {
            Stage::One => Some(Stage::Five),
            Stage::Five => Some(Stage::Quarter),
            Stage::Quarter => None,
        }
    }
}

/// What became of the permits of a stage. Those of which no byte left are not counted: they tell nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many were given.
    pub given: u32,
    /// How many of them are in doubt, or were permitted within [`PATIENCE`] and are pending.
    pub open: u32,
    /// How many of those have been in doubt for longer than [`PATIENCE`].
    pub doubts: u32,
}

/// How far a slow start is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// So many more may be sent in this stage; none while it waits for what was sent.
    Stays(u32),
    /// What was sent is final: the next stage begins.
    Passes(Stage),
    /// What was sent in the last stage is final: everything may be sent.
    Over,
    /// The outcome of a charge stays unknown: it begins again with another one. Each such try adds a doubt, and `charging.in_doubt_max`
    /// of them stop charging in any case.
    BeginsAgain,
}

/// How far a slow start is that is at `stage`, which gives `permits_max` permits and has done so to `tally`.
pub fn progress(stage: Stage, permits_max: u32, tally: Tally) -> Progress {
    if tally.doubts > 0 {
        Progress::BeginsAgain
    } else if tally.given > 0 && tally.open == 0 {
        stage.next().map_or(Progress::Over, Progress::Passes)
    } else {
        Progress::Stays(permits_max.saturating_sub(tally.given))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_from_one_to_five_to_a_quarter_to_all() {
        let final_one = Tally {
            given: 1,
            ..Tally::default()
        };
        let steps: Vec<_> = Stage::ALL
            .iter()
            .map(|stage| progress(*stage, stage.permits_max(64), final_one))
            .collect();
        assert_eq!(
            steps,
            [
                Progress::Passes(Stage::Five),
                Progress::Passes(Stage::Quarter),
                Progress::Over
            ]
        );
        assert_eq!(Stage::ALL.map(|stage| stage.permits_max(64)), [1, 5, 16]);
        assert_eq!(Stage::ALL.map(|stage| stage.permits_max(1)), [1, 5, 5]);
    }

    #[test]
    fn a_stage_gives_no_more_than_its_permits_and_waits_for_all_of_them() {
        for (given, open, expected) in [
            (0, 0, Progress::Stays(5)),
            (3, 3, Progress::Stays(2)),
            (5, 5, Progress::Stays(0)),
            (5, 1, Progress::Stays(0)),
            (7, 7, Progress::Stays(0)),
            (5, 0, Progress::Passes(Stage::Quarter)),
        ] {
            let tally = Tally {
                given,
                open,
                doubts: 0,
            };
            assert_eq!(progress(Stage::Five, 5, tally), expected, "{tally:?}");
        }
    }

    #[test]
    fn after_a_lasting_doubt_every_stage_begins_again() {
        for stage in Stage::ALL {
            let tally = Tally {
                given: 5,
                open: 1,
                doubts: 1,
            };
            assert_eq!(progress(stage, 5, tally), Progress::BeginsAgain);
        }
    }

    #[test]
    fn stages_are_numbered_as_in_the_database() {
        for stage in Stage::ALL {
            assert_eq!(Stage::of_number(stage.number()), Some(stage));
        }
        assert_eq!(Stage::of_number(0), None);
        assert_eq!(Stage::of_number(4), None);
    }
}
