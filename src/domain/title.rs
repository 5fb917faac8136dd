//! The title of a debit, which may name the period that it is for: `Abonament {period}, {number}. rata`.
//!
//! imoje's titles have no braces, so whatever stands in braces is meant to be replaced. A template is checked once, when the
//! subscription is stored, with the longest values that can come.

use chrono::NaiveDate;

use crate::domain::calendar::Period;
use crate::domain::fields::{FieldError, Problem, validate_title};
use crate::domain::shop::ShopName;

/// What can be replaced.
const PLACEHOLDERS: &str = "{period}, {number}, {shop}";

/// More periods than a lifetime has days.
const LONGEST_NUMBER: &str = "99999";

/// What a debit is for, as far as a title can say it.
#[derive(Debug, Clone, Copy)]
pub struct Occasion<'a> {
    /// The time between two charges.
    pub period: Period,
    /// Counted from 0.
    pub period_no: u32,
    /// The local date on which the charge is due.
    pub due_on: NaiveDate,
    /// The shop's name.
    pub shop: &'a ShopName,
}

/// Checks a title with placeholders for `shop`.
///
/// # Errors
/// A placeholder that there is not, or what imoje would refuse once they are replaced.
pub fn validate_template(template: &str, shop: &ShopName) -> Result<(), FieldError> {
    let longest = replaced(template, |name| match name {
        "period" => Some("2027-01-31".to_owned()),
        "number" => Some(LONGEST_NUMBER.to_owned()),
        "shop" => Some(shop.to_string()),
        _ => None,
    });
    let longest = longest.ok_or_else(|| FieldError {
        field: "title".to_owned(),
        problem: Problem::Placeholder,
        allowed: PLACEHOLDERS.to_owned(),
    })?;
    validate_title(&longest)
}

/// The title of one debit. What is no placeholder stays as it is.
///
/// `{period}` is the month that the charge is due in, such as 2027-01, or, between two charges less than a month apart, the day;
/// `{number}` counts the periods from 1; `{shop}` is the shop's name.
pub fn of_debit(template: &str, occasion: &Occasion<'_>) -> String {
    let written = replaced(template, |name| match name {
        "period" if occasion.period.is_of_months() => {
            Some(occasion.due_on.format("%Y-%m").to_string())
        }
        "period" => Some(occasion.due_on.to_string()),
        "number" => Some((u64::from(occasion.period_no) + 1).to_string()),
        "shop" => Some(occasion.shop.to_string()),
        _ => None,
    });
    written.unwrap_or_else(|| template.to_owned())
}

/// The template with every placeholder replaced by what `value` says; `None` when it has none to say, or a brace stands alone.
fn replaced(template: &str, value: impl Fn(&str) -> Option<String>) -> Option<String> {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}')?;
        text.push_str(before);
        text.push_str(&value(name)?);
        rest = after;
    }
    text.push_str(rest);
    (!text.contains('}')).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shop() -> ShopName {
        "sklep-1".parse().unwrap()
    }

    fn debit(template: &str, period: &str, period_no: u32, due_on: &str) -> String {
        let occasion = Occasion {
            period: period.parse().unwrap(),
            period_no,
            due_on: due_on.parse().unwrap(),
            shop: &shop(),
        };
        of_debit(template, &occasion)
    }

    #[test]
    fn a_title_names_its_period_its_number_and_its_shop() {
        let template = "{shop}: nothing of this is allowed, {number}. {period}";
        assert_eq!(
            debit(template, "P1M", 0, "2027-01-31"),
            "sklep-1: nothing of this is allowed, 1. 2027-01"
        );
        for (period, expected) in [
            ("P1M", "2027-02"),
            ("P3M", "2027-02"),
            ("P1Y", "2027-02"),
            ("P7D", "2027-02-28"),
            ("P2W", "2027-02-28"),
        ] {
            assert_eq!(debit("{period}", period, 7, "2027-02-28"), expected);
        }
        assert_eq!(debit("Abonament", "P1M", 0, "2027-01-31"), "Abonament");
    }

    #[test]
    fn a_template_is_checked_with_the_longest_values_that_can_come() {
        let shop = shop();
        for template in [
            "Abonament",
            "Abonament {period}, {number}. rata, {shop}",
            "{period}{period}",
        ] {
            assert_eq!(validate_template(template, &shop), Ok(()), "{template}");
        }
        let problem = |template: &str| validate_template(template, &shop).unwrap_err().problem;
        for template in ["{month}", "{}", "{period", "period}", "{{period}}", "a}b{c"] {
            assert_eq!(problem(template), Problem::Placeholder, "{template}");
        }
        assert_eq!(
            problem("Rata: {number}"),
            Problem::Character {
                character: ':',
                position: 5
            }
        );
        let just_fits = format!("{}{{number}}", "x".repeat(250));
        assert_eq!(validate_template(&just_fits, &shop), Ok(()));
        assert_eq!(
            problem(&format!("x{just_fits}")),
            Problem::TooLong { length: 256 }
        );
    }

    #[test]
    fn whatever_was_stored_a_debit_has_a_title() {
        assert_eq!(debit("{month}", "P1M", 0, "2027-01-31"), "{month}");
    }
}
