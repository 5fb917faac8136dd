//! What is wrong with the description of a subscription, for the person who has to correct it.

use std::fmt;

use crate::domain::card_number;
use crate::domain::enrolment::Column;

/// The most characters of a wrong text that are shown.
const SHOWN_MAX: usize = 60;

/// One thing that is wrong.
///
/// Displayed as `amount_minor "-5" is out of range; allowed: 1 to 999999999`. It never repeats what looks like a card number, nor
/// the text of a column with personal data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where; `None` when it is about the subscription as a whole.
    pub column: Option<Column>,
    /// What stands there, when it may be shown.
    pub value: Option<String>,
    /// What is wrong with it.
    pub problem: String,
    /// What would be right.
    pub allowed: String,
}

impl Mistake {
    /// A mistake in the text `value` of `column`.
    pub(super) fn new(column: Column, value: &str, wrong: Wrong) -> Self {
        Self {
            column: Some(column),
            value: (!column.is_private()).then(|| shown(value)).flatten(),
            problem: card_number::scrub(&wrong.problem),
            allowed: wrong.allowed,
        }
    }

    /// A text that has to be there and is not.
    pub(super) fn missing(column: Column, allowed: &str) -> Self {
        Self {
            column: Some(column),
            value: None,
            problem: "is missing".to_owned(),
            allowed: allowed.to_owned(),
        }
    }

    /// A mistake that stands in no column.
    pub(super) fn whole(wrong: Wrong) -> Self {
        Self {
            column: None,
            value: None,
            problem: wrong.problem,
            allowed: wrong.allowed,
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(column) = self.column {
            write!(f, "{column} ")?;
        }
        if let Some(value) = &self.value {
            write!(f, "{value} ")?;
        }
        write!(f, "{}; allowed: {}", self.problem, self.allowed)
    }
}

/// What is wrong with a text, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub problem: String,
    pub allowed: String,
}

impl Wrong {
    pub fn new(problem: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self {
            problem: problem.into(),
            allowed: allowed.into(),
        }
    }

    /// It looks like a card number, and those never enter Cykl.
    pub fn card_number() -> Self {
        Self::new("looks like a card number", "no card numbers anywhere")
    }
}

/// A foreign text in quotation marks, cut short and without control characters; `None` when it looks like a card number, or does so once
/// it stands there.
pub fn shown(text: &str) -> Option<String> {
    let short: String = text.chars().take(SHOWN_MAX).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    let quoted = format!("\"{}{more}\"", short.escape_debug());
    let is_card_number = [text, &quoted]
        .into_iter()
        .any(card_number::looks_like_card_number);
    (!is_card_number).then_some(quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_says_where_what_and_what_is_allowed() {
        let wrong = Wrong::new("is out of range", "1 to 999999999");
        assert_eq!(
            Mistake::new(Column::AmountMinor, "-5", wrong).to_string(),
            "amount_minor \"-5\" is out of range; allowed: 1 to 999999999"
        );
        assert_eq!(
            Mistake::missing(Column::Cid, "a text").to_string(),
            "cid is missing; allowed: a text"
        );
    }

    #[test]
    fn what_is_shown_is_no_card_number_either() {
        for text in ["4111111111111111", "\ta4111111111111111"] {
            assert_eq!(shown(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_foreign_text_cannot_move_the_cursor_or_flood_the_screen() {
        assert_eq!(
            shown("a\u{1b}[31m\u{202e}\n").unwrap(),
            "\"a\\u{1b}[31m\\u{202e}\\n\""
        );
        assert_eq!(
            shown(&"ż".repeat(61)).unwrap(),
            format!("\"{}…\"", "ż".repeat(60))
        );
    }

    #[test]
    fn card_numbers_and_personal_data_are_not_repeated() {
        let wrong = || Wrong::new("is wrong with 4111111111111111", "b");
        let mistake = Mistake::new(Column::Cid, "4111111111111111", wrong());
        assert!(!mistake.to_string().contains("4111"), "{mistake}");
        let mistake = Mistake::new(Column::Invoice, "{\"email\":\"a@b.test\"}", wrong());
        assert!(!mistake.to_string().contains("a@b"), "{mistake}");
    }
}
