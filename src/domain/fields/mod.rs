//! What imoje allows in each field, checked before anything is sent or stored.
//!
//! The import and the gateway client use the same rules, so a row that was imported is a request that can be sent. The rules
//! are those of imoje's documents (imoje API, `POST transaction/profile`, body), character by character. A text that looks
//! like a card number is refused in every field. No error repeats the text that it is about.

mod customer;
mod invoice;
mod link;
mod members;
mod multipayout;
mod text;

use std::fmt;

use url::Url;
use uuid::{Uuid, Variant};

use crate::domain::id::ProfileId;

pub use customer::{validate_browser, validate_card_aliases, validate_customer, validate_new_card};
pub use invoice::validate_invoice;
pub use link::{validate_billing, validate_cart, validate_description, validate_shipping};
pub use multipayout::{validate_multipayout, validate_payout_sum};

/// What is wrong with a field, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}; allowed: {allowed}")]
pub struct FieldError {
    /// The field in imoje's spelling, with its path: `invoice.positions[2].taxStake`.
    pub field: String,
    /// What is wrong.
    pub problem: Problem,
    /// What imoje takes, for a person to read.
    pub allowed: String,
}

/// What can be wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// It is required and not there.
    Missing,
    /// imoje's documents do not know it.
    Unknown,
    /// It has nothing in it.
    Empty,
    /// It has more characters than imoje takes.
    TooLong {
        /// How many it has.
        length: usize,
    },
    /// It has fewer characters than imoje takes.
    TooShort {
        /// How many it has.
        length: usize,
    },
    /// It has a character that imoje does not take.
    Character {
        /// The first such character.
        character: char,
        /// Where it stands, counted from 1.
        position: usize,
    },
    /// It looks like a card number, and card numbers never enter Cykl.
    CardNumber,
    /// It is not of the right kind: a text where a number belongs, or a text without the form of an address.
    Form,
    /// It is a number outside of its range.
    Range,
    /// It is not in the list of values.
    NotListed,
    /// It names a port.
    Port,
    /// It names `localhost`.
    Localhost,
    /// It has a placeholder that is not replaced by anything.
    Placeholder,
    /// Its check digits do not fit.
    CheckDigits,
    /// It is more, together, than what it is a part of.
    Sum {
        /// How much it is, in minor units.
        minor: i64,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Missing => f.write_str("is missing"),
            Problem::Unknown => f.write_str("is not a field of imoje"),
            Problem::Empty => f.write_str("is empty"),
            Problem::TooLong { length } => write!(f, "is too long with {length} characters"),
            Problem::TooShort { length } => write!(f, "is too short with {length} characters"),
            Problem::Character {
                character,
                position,
            } => {
                write!(f, "has the character {character:?} at position {position}")
            }
            Problem::CardNumber => f.write_str("looks like a card number"),
            Problem::Form => f.write_str("does not have the right form"),
            Problem::Range => f.write_str("is out of range"),
            Problem::NotListed => f.write_str("is not one of the values"),
            Problem::Port => f.write_str("names a port"),
            Problem::Localhost => f.write_str("names localhost"),
            Problem::Placeholder => f.write_str("has a placeholder that does not exist"),
            Problem::CheckDigits => f.write_str("has check digits that do not fit"),
            Problem::Sum { minor } => write!(f, "is {minor} in sum, which is too much"),
        }
    }
}

impl FieldError {
    fn new(field: &str, problem: Problem, allowed: &str) -> Self {
        Self {
            field: field.to_owned(),
            problem,
            allowed: allowed.to_owned(),
        }
    }
}

/// The most characters of an address, for notices or to return to.
const URL_MAX: usize = 300;

/// The title of a debit: `title`, 1 to 255 characters.
///
/// # Errors
/// What is wrong with it.
pub fn validate_title(title: &str) -> Result<(), FieldError> {
    text::TITLE.check("title", title)
}

/// The title of a payment by imoje's widget: `data-order-description`, 1 to 255 characters.
///
/// # Errors
/// What is wrong with it.
pub fn validate_widget_title(title: &str) -> Result<(), FieldError> {
    text::WIDGET_TITLE.check("orderDescription", title)
}

/// The payer's `firstName` or `lastName` in imoje's widget, which takes fewer characters than the API.
///
/// # Errors
/// What is wrong with it.
pub fn validate_widget_name(field: &str, name: &str) -> Result<(), FieldError> {
    text::WIDGET_NAME.check(field, name)
}

/// The id of a payment instrument: `cid`, 1 to 36 letters, digits and hyphens (imoje API, `GET profile/cid`).
///
/// # Errors
/// What is wrong with it.
pub fn validate_cid(cid: &str) -> Result<(), FieldError> {
    text::CID.check("cid", cid)
}

/// The order id of a debit: `orderId`, 1 to 100 characters.
///
/// # Errors
/// What is wrong with it.
pub fn validate_order_id(order_id: &str) -> Result<(), FieldError> {
    text::ORDER_ID.check("orderId", order_id)
}

/// The shop's own name for a subscription: 1 to 200 characters, none of them a control character. It is never sent to imoje.
///
/// # Errors
/// What is wrong with it.
pub fn validate_external_id(external_id: &str) -> Result<(), FieldError> {
    text::EXTERNAL_ID.check("external_id", external_id)
}

/// The stored card to debit: `paymentProfileId`, a UUID v4.
///
/// # Errors
/// [`Problem::Form`] for a UUID of another version.
pub fn validate_profile_id(profile_id: ProfileId) -> Result<(), FieldError> {
    if is_uuid_v4(profile_id.as_uuid()) {
        Ok(())
    } else {
        Err(FieldError::new(
            "paymentProfileId",
            Problem::Form,
            "a UUID of version 4",
        ))
    }
}

/// Whether `uuid` is of version 4, as all ids of imoje are: `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`
pub fn is_uuid_v4(uuid: Uuid) -> bool {
    uuid.get_version_num() == 4 && uuid.get_variant() == Variant::RFC4122
}

/// What names a card without a profile: `card.firstTransactionId`. Its form is not documented.
///
/// # Errors
/// What is wrong with it.
pub fn validate_first_transaction_id(id: &str) -> Result<(), FieldError> {
    text::FIRST_TRANSACTION_ID.check("firstTransactionId", id)
}

/// Where a payer is led back to: `successReturnUrl`, `failureReturnUrl` or `returnUrl`, an http or https address of at most 300
/// characters.
///
/// # Errors
/// What is wrong with it.
pub fn validate_return_url(field: &str, address: &str) -> Result<(), FieldError> {
    let wrong = |problem| {
        FieldError::new(
            field,
            problem,
            "an http or https address of at most 300 characters",
        )
    };
    web_address(address).map(drop).map_err(wrong)
}

/// Where imoje sends its notices about one debit: `notificationUrl`, an http or https address of at most 300 characters.
/// "Addresses containing localhost and ports will be rejected", so a port is refused even when it is the default one.
///
/// # Errors
/// What is wrong with it.
pub fn validate_notification_url(address: &str) -> Result<(), FieldError> {
    let wrong = |problem| {
        FieldError::new(
            "notificationUrl",
            problem,
            "an http or https address of at most 300 characters, without a port and without localhost",
        )
    };
    let url = web_address(address).map_err(wrong)?;
    if url.port().is_some() || spells_out_a_port(address) {
        return Err(wrong(Problem::Port));
    }
    if address.to_ascii_lowercase().contains("localhost") {
        return Err(wrong(Problem::Localhost));
    }
    Ok(())
}

/// A web address, as far as imoje's documents ask for one: RFC 3986.
fn web_address(address: &str) -> Result<Url, Problem> {
    text::check_card_number(address)?;
    if address.is_empty() {
        return Err(Problem::Empty);
    }
    let length = address.chars().count();
    if length > URL_MAX {
        return Err(Problem::TooLong { length });
    }
    // A parser of URLs drops tabs and escapes spaces without a word; imoje would be sent the text as it stands.
    text::check_characters(address, |character| character.is_ascii_graphic())?;
    let url = Url::parse(address).map_err(|_| Problem::Form)?;
    if matches!(url.scheme(), "http" | "https") && url.has_host() {
        Ok(url)
    } else {
        Err(Problem::Form)
    }
}

/// Whether the address has a port written in it, which a parser leaves out when it is the default one.
fn spells_out_a_port(address: &str) -> bool {
    let Some((_, rest)) = address.split_once("://") else {
        return false;
    };
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_to_return_to_is_a_web_address() {
        for address in [
            "https://shop.example.test/ok?order=1#top",
            "http://localhost:8080/ok",
        ] {
            assert_eq!(validate_return_url("returnUrl", address), Ok(()));
        }
        for (address, problem) in [
            ("", Problem::Empty),
            ("shop.example.test", Problem::Form),
            ("javascript:alert(1)", Problem::Form),
            (
                &*format!("https://shop.example.test/{}", "a".repeat(300)),
                Problem::TooLong { length: 326 },
            ),
        ] {
            let error = validate_return_url("returnUrl", address).unwrap_err();
            assert_eq!(
                (error.field.as_str(), error.problem),
                ("returnUrl", problem)
            );
        }
    }

    #[test]
    fn a_notification_address_is_a_public_web_address() {
        for address in [
            "https://billing.example.test/imoje/notifications/abc",
            "http://billing.example.test",
            "https://user:pass@billing.example.test/",
            "https://billing.example.test/a:b?c=d:80#e",
        ] {
            assert_eq!(validate_notification_url(address), Ok(()), "{address}");
        }
        let long = format!("https://billing.example.test/{}", "a".repeat(300));
        for (address, problem) in [
            ("", Problem::Empty),
            ("billing.example.test", Problem::Form),
            ("/imoje", Problem::Form),
            ("ftp://billing.example.test/", Problem::Form),
            ("mailto:a@example.test", Problem::Form),
            ("https://", Problem::Form),
            ("https://billing.example.test:8443/", Problem::Port),
            ("https://billing.example.test:443/", Problem::Port),
            ("http://billing.example.test:/", Problem::Port),
            ("https://localhost/n", Problem::Localhost),
            ("https://my.LocalHost.test/n", Problem::Localhost),
            ("https://billing.example.test/localhost", Problem::Localhost),
            (
                "https://billing.example.test/4111111111111111",
                Problem::CardNumber,
            ),
            (
                "https://billing.example.test/a b",
                Problem::Character {
                    character: ' ',
                    position: 31,
                },
            ),
            (
                "https://żółw.example.test/",
                Problem::Character {
                    character: 'ż',
                    position: 9,
                },
            ),
            (&long, Problem::TooLong { length: 329 }),
        ] {
            assert_eq!(
                validate_notification_url(address).unwrap_err().problem,
                problem,
                "{address}"
            );
        }
    }

    #[test]
    fn the_longest_notification_address_has_three_hundred_characters() {
        let address = |length: usize| format!("https://a.test/{}", "x".repeat(length - 15));
        assert_eq!(validate_notification_url(&address(300)), Ok(()));
        assert!(validate_notification_url(&address(301)).is_err());
    }

    #[test]
    fn a_profile_is_a_uuid_of_version_four() {
        let profile = |text: &str| ProfileId::from_uuid(Uuid::parse_str(text).unwrap());
        assert_eq!(
            validate_profile_id(profile("c0de0b1e-1111-4222-8333-9a4b5c6d7e8f")),
            Ok(())
        );
        for wrong in [
            "c0de0b1e-1111-7222-8333-9a4b5c6d7e8f",
            "c0de0b1e-1111-4222-c333-9a4b5c6d7e8f",
            "00000000-0000-0000-0000-000000000000",
        ] {
            assert!(validate_profile_id(profile(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_error_says_the_field_the_problem_and_what_is_allowed() {
        let error = validate_cid("cus_77").unwrap_err();
        assert_eq!(
            error.to_string(),
            "cid has the character '_' at position 4; allowed: 1 to 36 characters of A-Z a-z 0-9 -"
        );
    }

    #[test]
    fn a_card_number_is_refused_in_every_field_and_not_repeated() {
        for check in [
            validate_title,
            validate_cid,
            validate_order_id,
            validate_external_id,
        ] {
            for number in ["4111111111111111", "4111-1111-1111-1111"] {
                let error = check(number).unwrap_err();
                assert_eq!(error.problem, Problem::CardNumber);
                assert!(!error.to_string().contains("4111"));
            }
        }
    }

    #[test]
    fn an_external_id_is_any_printable_text() {
        for fine in ["a", "klient nr 1: ąćę, 北京 @ <shop>", &"x".repeat(200)] {
            assert_eq!(validate_external_id(fine), Ok(()), "{fine}");
        }
        for (wrong, problem) in [
            ("", Problem::Empty),
            (
                "a\nb",
                Problem::Character {
                    character: '\n',
                    position: 2,
                },
            ),
            (
                "\u{2028}",
                Problem::Character {
                    character: '\u{2028}',
                    position: 1,
                },
            ),
            (&*"x".repeat(201), Problem::TooLong { length: 201 }),
        ] {
            assert_eq!(validate_external_id(wrong).unwrap_err().problem, problem);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_address_check_panic(text in any::<String>()) {
            let _outcome = validate_notification_url(&text);
        }

        #[test]
        fn an_accepted_address_survives_parsing_without_a_port(text in "https?://[a-z.:@0-9\\[\\]]{1,20}(/[!-~]{0,20})?") {
            if validate_notification_url(&text).is_ok() {
                let url = Url::parse(&text).unwrap();
                prop_assert!(url.port().is_none() && url.has_host());
            }
        }
    }
}
