//! The bank accounts among which the money of a debit is divided (imoje API, `POST transaction/profile`, `data.multipayout`).

use serde_json::Value;

use crate::domain::fields::members::{Members, elements};
use crate::domain::fields::{FieldError, Problem, text};

/// The payouts of a debit: an array of `{ban, amount, label, title}`, where `title` is given in all or in none.
///
/// # Errors
/// The first thing that is wrong, with its path.
pub fn validate_multipayout(payouts: &Value) -> Result<(), FieldError> {
    let mut titled = None;
    for (path, payout) in elements("multipayout", payouts)? {
        let payout = Members::of(&path, payout, &["ban", "amount", "label", "title"])?;
        payout.text("ban", &text::ACCOUNT)?;
        payout.amount("amount", 1)?;
        payout.text("label", &text::PAYOUT_LABEL)?;
        payout.optional_text("title", &text::PAYOUT_TITLE)?;
        // "Supplying the parameter for one element makes it necessary for the others" (imoje API, `multipayout[].title`).
        if *titled.get_or_insert(payout.has("title")) != payout.has("title") {
            return Err(FieldError::new(
                &payout.path_of("title"),
                Problem::Missing,
                "a title in all payouts or in none",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn payout() -> Value {
        json!({"ban": "61109010140000071219812874", "amount": 100, "label": "Łódź Sp. z o.o., \"A\""})
    }

    fn titled() -> Value {
        let mut titled = payout();
        titled["title"] = json!("Faktura 1/2026 & co");
        titled
    }

    #[test]
    fn payouts_as_documented_pass() {
        for payouts in [
            json!([payout()]),
            json!([payout(), payout()]),
            json!([titled(), titled()]),
        ] {
            assert_eq!(validate_multipayout(&payouts), Ok(()));
        }
    }

    #[test]
    fn a_title_stands_in_all_payouts_or_in_none() {
        for payouts in [json!([titled(), payout()]), json!([payout(), titled()])] {
            let error = validate_multipayout(&payouts).unwrap_err();
            assert_eq!(
                (error.field.as_str(), error.problem),
                ("multipayout[1].title", Problem::Missing)
            );
        }
    }

    #[test]
    fn every_wrong_member_is_named() {
        let cases = [
            (
                "ban",
                json!("6110901014000007121981287"),
                Problem::TooShort { length: 25 },
            ),
            (
                "ban",
                json!("6110901014000007121981287a"),
                Problem::Character {
                    character: 'a',
                    position: 26,
                },
            ),
            ("ban", json!(61), Problem::Form),
            ("amount", json!("100"), Problem::Form),
            ("amount", json!(1.5), Problem::Form),
            ("amount", json!(0), Problem::Range),
            ("amount", json!(1_000_000_000), Problem::Range),
            ("amount", json!(u64::MAX), Problem::Range),
            ("label", json!(""), Problem::Empty),
            (
                "label",
                json!("a/b"),
                Problem::Character {
                    character: '/',
                    position: 2,
                },
            ),
            (
                "label",
                json!("x".repeat(71)),
                Problem::TooLong { length: 71 },
            ),
            ("label", json!("5555555555554444"), Problem::CardNumber),
            (
                "title",
                json!("x".repeat(106)),
                Problem::TooLong { length: 106 },
            ),
            ("title", Value::Null, Problem::Form),
            ("iban", json!("PL"), Problem::Unknown),
        ];
        for (name, value, problem) in cases {
            let mut payout = payout();
            payout[name] = value;
            let error = validate_multipayout(&json!([payout])).unwrap_err();
            assert_eq!(
                (error.field, error.problem),
                (format!("multipayout[0].{name}"), problem)
            );
        }
        for name in ["ban", "amount", "label"] {
            let mut payout = payout();
            payout.as_object_mut().unwrap().remove(name);
            let error = validate_multipayout(&json!([payout])).unwrap_err();
            assert_eq!(
                (error.field, error.problem),
                (format!("multipayout[0].{name}"), Problem::Missing)
            );
        }
    }

    #[test]
    fn payouts_are_an_array_of_objects() {
        for (payouts, problem) in [
            (json!([]), Problem::Empty),
            (json!({}), Problem::Form),
            (json!(["a"]), Problem::Form),
            (Value::Null, Problem::Form),
        ] {
            assert_eq!(validate_multipayout(&payouts).unwrap_err().problem, problem);
        }
    }
}
