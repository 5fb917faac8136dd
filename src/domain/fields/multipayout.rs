//! The bank accounts among which the money of a debit is divided (imoje API, `POST transaction/profile`, `data.multipayout`).

use serde_json::Value;

use crate::domain::fields::members::{Members, elements};
use crate::domain::fields::{FieldError, Problem, text};
use crate::domain::money::Money;

/// The payouts of a debit: an array of `{ban, amount, label, title}`, where `title` is given in all or in none.
///
/// # Errors
/// The first thing that is wrong, with its path.
pub fn validate_multipayout(payouts: &Value) -> Result<(), FieldError> {
    let mut titled = None;
    for (path, payout) in elements("multipayout", payouts)? {
        let payout = Members::of(&path, payout, &["ban", "amount", "label", "title"])?;
        let account = payout.text("ban", &text::ACCOUNT)?;
        if !has_fitting_check_digits(account) {
            return Err(FieldError::new(
                &payout.path_of("ban"),
                Problem::CheckDigits,
                "a Polish account number (NRB) of 26 digits",
            ));
        }
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

/// Whether payouts fit into what is debited: together at most its amount, or, when the tax is paid apart, "the net amount of the order"
/// (imoje API, `multipayout`).
///
/// # Errors
/// [`Problem::Sum`]. Payouts that are not valid have no sum.
pub fn validate_payout_sum(
    payouts: &Value,
    amount: Money,
    invoice: Option<&Value>,
) -> Result<(), FieldError> {
    let sum: i64 = amounts(payouts, "amount").sum();
    let tax = invoice.map_or(0, split_tax);
    let most = amount.minor() - tax;
    if sum <= most {
        return Ok(());
    }
    let allowed = if tax > 0 {
        format!("at most {most}, the amount of the debit without the tax of its invoice")
    } else {
        format!("at most {most}, the amount of the debit")
    };
    Err(FieldError::new(
        "multipayout",
        Problem::Sum { minor: sum },
        &allowed,
    ))
}

/// The tax of an invoice by which imoje pays the tax apart (split payment): then it has a number, and its positions say their tax.
fn split_tax(invoice: &Value) -> i64 {
    if invoice.get("invoiceId").is_none() {
        return 0;
    }
    amounts(&invoice["positions"], "taxAmount").sum()
}

fn amounts<'a>(list: &'a Value, name: &'a str) -> impl Iterator<Item = i64> + 'a {
    let elements = list.as_array().map(Vec::as_slice).unwrap_or_default();
    elements
        .iter()
        .filter_map(move |element| element[name].as_i64())
}

/// The first two digits of an NRB are those of the IBAN (ISO 13616, with the letters of PL as 2521).
fn has_fitting_check_digits(account: &str) -> bool {
    let (check, number) = account.split_at(2);
    let rest = number
        .bytes()
        .chain("2521".bytes())
        .chain(check.bytes())
        .fold(0, |rest, digit| (rest * 10 + u32::from(digit - b'0')) % 97);
    rest == 1
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::money::Currency;

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
    fn an_account_number_is_checked() {
        for account in ["61109010140000071219812874", "27114020040000300201355387"] {
            assert!(has_fitting_check_digits(account), "{account}");
        }
        for wrong in [
            "61109010140000071219812875",
            "16109010140000071219812874",
            "61109010140000071219812847",
        ] {
            let mut payout = payout();
            payout["ban"] = json!(wrong);
            let error = validate_multipayout(&json!([payout])).unwrap_err();
            assert_eq!(
                (error.field.as_str(), error.problem),
                ("multipayout[0].ban", Problem::CheckDigits)
            );
        }
    }

    #[test]
    fn payouts_are_at_most_what_is_debited_and_without_the_tax_that_is_paid_apart() {
        let amount = |minor| Money::new(minor, Currency::Pln).unwrap();
        let payouts = json!([payout(), payout()]);
        assert_eq!(validate_payout_sum(&payouts, amount(200), None), Ok(()));
        let error = validate_payout_sum(&payouts, amount(199), None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "multipayout is 200 in sum, which is too much; allowed: at most 199, the amount of the debit"
        );
        let invoice =
            json!({"invoiceId": "FV 1", "positions": [{"taxAmount": 23}, {"taxAmount": 8}, {}]});
        assert_eq!(
            validate_payout_sum(&payouts, amount(231), Some(&invoice)),
            Ok(())
        );
        let error = validate_payout_sum(&payouts, amount(230), Some(&invoice)).unwrap_err();
        assert_eq!(error.problem, Problem::Sum { minor: 200 });
        // Without a number the tax is not paid apart.
        let plain = json!({"positions": [{"taxAmount": 23}]});
        assert_eq!(
            validate_payout_sum(&payouts, amount(200), Some(&plain)),
            Ok(())
        );
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
