//! The payer, and the card of a debit without a profile (imoje API, `POST payment` and `POST transaction`, `customer` and `card`).

use serde_json::Value;

use crate::domain::fields::members::Members;
use crate::domain::fields::{FieldError, Problem, text};

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
    check_aliases(&Members::of("card", card, &ALIASES)?)
}

/// The members of `card` of a registration (`profileType` `FIRST`): those of [`validate_card_aliases`], and the security code, `cvv`, which
/// is an alias as well. A bare code is refused: it belongs nowhere but in imoje.
///
/// # Errors
/// The first thing that is wrong, with its path.
pub fn validate_new_card(card: &Value) -> Result<(), FieldError> {
    const CODE: &str = "an alias of the security code, and not the code itself";
    let card = Members::of("card", card, &[&ALIASES[..], &["cvv"]].concat())?;
    check_aliases(&card)?;
    let code = card.text("cvv", &text::ALIAS)?;
    if code.len() <= 4 && code.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(FieldError::new(&card.path_of("cvv"), Problem::Form, CODE));
    }
    Ok(())
}

const ALIASES: [&str; 5] = ["firstName", "lastName", "number", "month", "year"];

fn check_aliases(card: &Members<'_>) -> Result<(), FieldError> {
    for name in ALIASES {
        card.text(name, &text::ALIAS)?;
    }
    Ok(())
}

/// What the payer's browser says about itself, which 3-D Secure asks for: `additionalData.browser`.
///
/// # Errors
/// The first thing that is wrong, with its path.
pub fn validate_browser(browser: &Value) -> Result<(), FieldError> {
    const PIXELS: (i64, i64) = (0, 999_999);
    let known = [
        "ip",
        "language",
        "jsEnabled",
        "timezoneOffset",
        "userAgent",
        "accept",
        "javaEnabled",
        "screenColorDepth",
        "screenHeight",
        "screenWidth",
    ];
    let browser = Members::of("additionalData.browser", browser, &known)?;
    browser.ip_address("ip")?;
    browser.text("language", &text::LANGUAGE)?;
    browser.boolean("jsEnabled")?;
    browser.whole("timezoneOffset", (-840, 840))?;
    browser.text("userAgent", &text::HEADER)?;
    browser.text("accept", &text::HEADER)?;
    browser.boolean("javaEnabled")?;
    browser.whole("screenColorDepth", (1, 48))?;
    browser.whole("screenHeight", PIXELS)?;
    browser.whole("screenWidth", PIXELS)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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

    fn browser() -> Value {
        json!({
            "ip": "203.0.113.9", "language": "pl-PL", "jsEnabled": true, "timezoneOffset": -60, "userAgent": "Mozilla/5.0",
            "accept": "text/html", "javaEnabled": false, "screenColorDepth": 24, "screenHeight": 1080, "screenWidth": 1920
        })
    }

    #[test]
    fn a_security_code_is_an_alias_as_well() {
        let mut card = aliases();
        card["cvv"] = json!("tok_cvv_1");
        assert_eq!(validate_new_card(&card), Ok(()));
        for (code, problem) in [
            (Value::Null, Problem::Missing),
            (json!("123"), Problem::Form),
            (json!("1234"), Problem::Form),
            (json!(123), Problem::Form),
            (json!(""), Problem::Empty),
        ] {
            let error = validate_new_card(&spoilt(card.clone(), "cvv", &code)).unwrap_err();
            assert_eq!((error.field.as_str(), error.problem), ("card.cvv", problem));
        }
        let error = validate_card_aliases(&card).unwrap_err();
        assert_eq!(
            (error.field.as_str(), error.problem),
            ("card.cvv", Problem::Unknown)
        );
    }

    #[test]
    fn every_wrong_member_of_a_browser_is_named() {
        assert_eq!(validate_browser(&browser()), Ok(()));
        for ip in ["::1", "2001:db8::7"] {
            assert_eq!(
                validate_browser(&spoilt(browser(), "ip", &json!(ip))),
                Ok(())
            );
        }
        for (name, value, problem) in [
            ("ip", json!("203.0.113"), Problem::Form),
            ("ip", Value::Null, Problem::Missing),
            (
                "language",
                json!("pl-PL-x-12"),
                Problem::TooLong { length: 10 },
            ),
            ("jsEnabled", json!("true"), Problem::Form),
            ("timezoneOffset", json!(841), Problem::Range),
            ("timezoneOffset", json!(1.5), Problem::Form),
            ("userAgent", json!(""), Problem::Empty),
            (
                "userAgent",
                json!("4111 1111 1111 1111"),
                Problem::CardNumber,
            ),
            ("accept", Value::Null, Problem::Missing),
            ("javaEnabled", json!(0), Problem::Form),
            ("screenColorDepth", json!(0), Problem::Range),
            ("screenHeight", json!(-1), Problem::Range),
            ("screenWidth", json!("1920"), Problem::Form),
        ] {
            let error = validate_browser(&spoilt(browser(), name, &value)).unwrap_err();
            assert_eq!(error.field, format!("additionalData.browser.{name}"));
            assert_eq!(error.problem, problem, "{name}");
        }
    }
}
