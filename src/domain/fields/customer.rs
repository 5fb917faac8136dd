//! The payer, and the card of a debit without a profile (imoje API, `POST payment` and `POST transaction`, `customer` and `card`).

use serde_json::Value;

use crate::domain::fields::members::Members;
use crate::domain::fields::{FieldError, text};

/// `customer.locale`
const LOCALES: [&str; 17] = [
    "pl", "en", "cs", "de", "es", "fr", "it", "lt", "ru", "sk", "sl", "uk", "nl", "hu", "ro", "bg",
    "sv",
];

/// The payer of a debit or of a payment link: `customer`, without its `cid`, which Cykl adds itself.
///
/// # Errors
/// The first thing that is wrong, with its path.
pub fn validate_customer(customer: &Value) -> Result<(), FieldError> {
    let known = [
        "firstName",
        "lastName",
        "email",
        "phone",
        "company",
        "locale",
    ];
    let customer = Members::of("customer", customer, &known)?;
    customer.text("firstName", &text::NAME)?;
    customer.text("lastName", &text::NAME)?;
    customer.email("email")?;
    customer.optional_text("phone", &text::PHONE)?;
    customer.optional_text("company", &text::COMPANY)?;
    if customer.has("locale") {
        customer.one_of("locale", &LOCALES)?;
    }
    Ok(())
}

/// The members of `card` that go through a tokenising proxy, which puts the real ones in their place. None of them is a card number.
///
/// Which of them imoje needs beside `firstTransactionId` is not documented, so all of a registration but the security code are asked
/// for.
///
/// # Errors
/// The first thing that is wrong, with its path.
pub fn validate_card_aliases(card: &Value) -> Result<(), FieldError> {
    let names = ["firstName", "lastName", "number", "month", "year"];
    let card = Members::of("card", card, &names)?;
    for name in names {
        card.text(name, &text::ALIAS)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::fields::Problem;

    fn customer() -> Value {
        json!({
            "firstName": "Anna", "lastName": "Nowak-Żółć Київ", "email": "anna@example.test", "phone": "+48 501-501-501",
            "company": "Nowak & Co. \"Łódź\"", "locale": "pl"
        })
    }

    fn aliases() -> Value {
        json!({"firstName": "Anna", "lastName": "Nowak", "number": "tok_sandbox_4yaC", "month": "12", "year": "2029"})
    }

    fn spoilt(mut whole: Value, name: &str, value: &Value) -> Value {
        if value.is_null() {
            whole.as_object_mut().unwrap().remove(name).unwrap();
        } else {
            whole[name] = value.clone();
        }
        whole
    }

    #[test]
    fn a_full_and_a_smallest_customer_pass() {
        assert_eq!(validate_customer(&customer()), Ok(()));
        let smallest = json!({"firstName": "A", "lastName": "N", "email": "a@example.test"});
        assert_eq!(validate_customer(&smallest), Ok(()));
    }

    #[test]
    fn every_wrong_member_of_a_customer_is_named() {
        let long = |length| json!("x".repeat(length));
        let character = |character, position| Problem::Character {
            character,
            position,
        };
        for (name, value, problem) in [
            ("firstName", Value::Null, Problem::Missing),
            ("lastName", Value::Null, Problem::Missing),
            ("email", Value::Null, Problem::Missing),
            ("firstName", json!("A:B"), character(':', 2)),
            ("lastName", long(101), Problem::TooLong { length: 101 }),
            ("email", json!("anna"), Problem::Form),
            ("phone", json!("501.501"), character('.', 4)),
            ("phone", long(21), Problem::TooLong { length: 21 }),
            ("phone", json!("4111 1111 1111 1111"), Problem::CardNumber),
            ("company", json!("a\\b"), character('\\', 2)),
            ("locale", json!("PL"), Problem::NotListed),
            ("cid", json!("c-1"), Problem::Unknown),
        ] {
            let error = validate_customer(&spoilt(customer(), name, &value)).unwrap_err();
            assert_eq!(
                (error.field, error.problem),
                (format!("customer.{name}"), problem)
            );
        }
        assert!(validate_customer(&json!("Anna")).is_err());
    }

    #[test]
    fn aliases_are_complete_and_none_of_them_is_a_card_number() {
        assert_eq!(validate_card_aliases(&aliases()), Ok(()));
        for (name, value, problem) in [
            ("number", json!("4111111111111111"), Problem::CardNumber),
            ("number", json!("4111 1111 1111 1111"), Problem::CardNumber),
            ("number", Value::Null, Problem::Missing),
            ("month", json!(12), Problem::Form),
            ("cvv", json!("123"), Problem::Unknown),
            ("firstTransactionId", json!("x"), Problem::Unknown),
        ] {
            let error = validate_card_aliases(&spoilt(aliases(), name, &value)).unwrap_err();
            assert_eq!(
                (error.field, error.problem),
                (format!("card.{name}"), problem)
            );
        }
    }
}
