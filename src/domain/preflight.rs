//! The pre-flight of a card: whether the next charge of it can be expected to go through, as far as imoje shows beforehand.
//!
//! It decides nothing about a charge. A card is debited on its day whatever the pre-flight found, and what the debit says counts.

use chrono::{Days, Months, NaiveDate, TimeDelta};
use serde::Serialize;

/// How long before a charge falls due its card is looked at: long enough for a payer to register another one.
pub const LOOK_AHEAD: TimeDelta = TimeDelta::days(7);

/// A card that expires so soon after a charge is told: the next charge of a monthly subscription would come too late to tell it.
const GOOD_FOR: Days = Days::new(30);

/// Why a card needs its payer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, sqlx::Type)]
#[sqlx(type_name = "card_concern", rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum CardConcern {
    /// It expires before the next charge, or within 30 days after it.
    Expiring,
    /// imoje says that it is inactive, so it cannot be debited.
    Inactive,
    /// It was registered for something else than recurring debits.
    NotRecurring,
}

impl CardConcern {
    /// All of them.
    pub const ALL: [CardConcern; 3] = [
        CardConcern::Expiring,
        CardConcern::Inactive,
        CardConcern::NotRecurring,
    ];

    /// Its stable name, in the database and in events.
    pub const fn as_str(self) -> &'static str {
        match self {
            CardConcern::Expiring => "expiring",
            CardConcern::Inactive => "inactive",
            CardConcern::NotRecurring => "not_recurring",
        }
    }
}

/// What imoje shows of a card. A member is absent when it is not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CardFacts {
    /// Whether it can be debited.
    pub is_active: Option<bool>,
    /// Whether it was registered for recurring debits.
    pub is_recurring: Option<bool>,
    /// The last day on which it is good.
    pub expires_on: Option<NaiveDate>,
}

/// What is to be told about a card whose next charge is due on `due_on`. What imoje does not show is no concern.
pub fn concern(facts: CardFacts, due_on: NaiveDate) -> Option<CardConcern> {
    let is_soon = |expires_on| {
        due_on
            .checked_add_days(GOOD_FOR)
            .is_some_and(|good_until| expires_on < good_until)
    };
    if facts.is_active == Some(false) {
        Some(CardConcern::Inactive)
    } else if facts.is_recurring == Some(false) {
        Some(CardConcern::NotRecurring)
    } else {
        facts
            .expires_on
            .is_some_and(is_soon)
            .then_some(CardConcern::Expiring)
    }
}

/// Cards are good until the end of the month that is printed on them. `None` when there is no such month.
pub fn expires_on(year: u16, month: u8) -> Option<NaiveDate> {
    NaiveDate::from_ymd_opt(i32::from(year), u32::from(month), 1)?
        .checked_add_months(Months::new(1))?
        .checked_sub_days(Days::new(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> NaiveDate {
        text.parse().expect("a date")
    }

    #[test]
    fn a_card_is_good_until_the_end_of_its_month() {
        for (year, month, last_day) in [
            (2028, 2, Some("2028-02-29")),
            (2027, 2, Some("2027-02-28")),
            (2027, 12, Some("2027-12-31")),
            (2027, 13, None),
            (2027, 0, None),
        ] {
            assert_eq!(expires_on(year, month), last_day.map(day), "{year}-{month}");
        }
    }

    #[test]
    fn a_card_that_ends_within_thirty_days_after_a_charge_is_told() {
        for (last_day, expected) in [
            ("2026-12-31", Some(CardConcern::Expiring)),
            ("2027-01-14", Some(CardConcern::Expiring)),
            ("2027-02-13", Some(CardConcern::Expiring)),
            ("2027-02-14", None),
            ("2030-09-30", None),
        ] {
            let facts = CardFacts {
                expires_on: Some(day(last_day)),
                ..CardFacts::default()
            };
            assert_eq!(concern(facts, day("2027-01-15")), expected, "{last_day}");
        }
    }

    #[test]
    fn what_ends_every_debit_comes_first_and_what_is_not_shown_is_no_concern() {
        let due_on = day("2027-01-15");
        assert_eq!(concern(CardFacts::default(), due_on), None);
        let worst = CardFacts {
            is_active: Some(false),
            is_recurring: Some(false),
            expires_on: Some(due_on),
        };
        assert_eq!(concern(worst, due_on), Some(CardConcern::Inactive));
        let other = CardFacts {
            is_active: Some(true),
            ..worst
        };
        assert_eq!(concern(other, due_on), Some(CardConcern::NotRecurring));
        let good = CardFacts {
            is_recurring: Some(true),
            expires_on: None,
            ..other
        };
        assert_eq!(concern(good, due_on), None);
    }

    #[test]
    fn names_are_those_of_events() {
        for concern in CardConcern::ALL {
            let json = serde_json::to_value(concern).expect("a word");
            assert_eq!(json, concern.as_str());
        }
    }
}
