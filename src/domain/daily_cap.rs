//! The daily cap: far more than a day's plan is never permitted, whatever the reason.
//!
//! Nothing that is sent twice gets past the database, and nothing that is due is held back by this. It is for what nobody thought of:
//! a mistake that makes too much fall due costs a fifth of a day, and then a person looks.

use chrono::{DateTime, Days, NaiveDate, Utc};

/// More of the plan than this is too much, in percent.
const PERCENT: u128 = 120;

/// So many charges beyond the plan are never too many, nor are so many on any day, whatever they come to: a person who lets some
/// subscriptions go on is no accident.
const SLACK: u64 = 20;

/// How much money, in how many charges, of one currency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    /// How many charges.
    pub charges: u64,
    /// Their sum in minor units.
    pub amount_minor: u64,
}

/// Whether so much on a day is beyond the cap of what was planned for it.
///
/// The sum has the same slack as the number, in charges of the plan's mean. Without a plan there is no mean, and the number alone
/// counts.
pub fn is_beyond(permitted: Extent, planned: Extent) -> bool {
    let over = |permitted: u64, planned: u64, slack: u128| {
        u128::from(permitted) * 100 > u128::from(planned) * PERCENT + slack * 100
    };
    let mean = planned.amount_minor.checked_div(planned.charges);
    over(permitted.charges, planned.charges, SLACK.into())
        || mean.is_some_and(|mean| {
            permitted.charges > SLACK
                && over(
                    permitted.amount_minor,
                    planned.amount_minor,
                    u128::from(SLACK) * u128::from(mean),
                )
        })
}

/// The day of a plan, in UTC.
pub fn day_of(at: DateTime<Utc>) -> NaiveDate {
    at.date_naive()
}

/// When the day of `at` is over.
pub fn end_of_day(at: DateTime<Utc>) -> DateTime<Utc> {
    day_of(at)
        .checked_add_days(Days::new(1))
        .and_then(|next| next.and_hms_opt(0, 0, 0))
        .map_or(DateTime::<Utc>::MAX_UTC, |midnight| midnight.and_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(charges: u64, amount_minor: u64) -> Extent {
        Extent {
            charges,
            amount_minor,
        }
    }

    #[test]
    fn a_fifth_more_than_planned_and_some_is_still_all_right() {
        for (charges, planned, expected) in [
            (20, 0, false),
            (21, 0, true),
            (140, 100, false),
            (141, 100, true),
            (1_200_020, 1_000_000, false),
            (1_200_021, 1_000_000, true),
        ] {
            let found = is_beyond(extent(charges, charges), extent(planned, planned));
            assert_eq!(found, expected, "{charges} of {planned}");
        }
    }

    #[test]
    fn the_sum_counts_as_well_as_the_number() {
        // A hundred charges of 49.00 were planned; thirty of 1,000.00 are too much, and twenty are not.
        let planned = extent(100, 490_000);
        assert!(!is_beyond(extent(30, 147_000), planned));
        assert!(!is_beyond(extent(140, 686_000), planned));
        assert!(is_beyond(extent(30, 3_000_000), planned));
        assert!(!is_beyond(extent(20, 2_000_000), planned));
    }

    #[test]
    fn without_a_plan_the_number_alone_counts() {
        assert!(!is_beyond(extent(3, 99_999_999), Extent::default()));
    }

    #[test]
    fn a_day_is_one_of_utc() {
        let at: DateTime<Utc> = "2027-03-28T23:30:00Z".parse().unwrap();
        assert_eq!(day_of(at).to_string(), "2027-03-28");
        assert_eq!(end_of_day(at).to_rfc3339(), "2027-03-29T00:00:00+00:00");
    }

    #[test]
    fn nothing_overflows() {
        let most = extent(u64::MAX, u64::MAX);
        assert!(!is_beyond(most, most));
        assert!(is_beyond(most, Extent::default()));
    }
}
