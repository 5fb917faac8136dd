//! What a payment link says besides the payer (imoje API, `POST payment`).

use serde_json::Value;

use crate::domain::fields::members::{Members, elements};
use crate::domain::fields::{FieldError, Problem, text, validate_return_url};

/// `cart.items[].taxStake`, where it is a word.
const TAX_WORDS: [&str; 4] = [
    "TAX_EXEMPT",
    "TAX_NOT_LIABLE",
    "TAX_REVERSE_CHARGE",
    "TAX_EXCLUDING",
];

/// `cart.items[].taxStake`, where it is a percentage.
const TAX_PERCENTAGES: [i64; 7] = [23, 22, 8, 7, 5, 3, 0];

/// What is paid for: `additionalDescription`, 1 to 255 characters.
///
/// # Errors
/// What is wrong with it.
pub fn validate_description(description: &str) -> Result<(), FieldError> {
    text::DESCRIPTION.check("additionalDescription", description)
}

/// The members of every address.
const ADDRESS: [&str; 8] = [
    "firstName",
    "lastName",
    "company",
    "street",
    "city",
    "region",
    "postalCode",
    "countryCodeAlpha2",
];

/// The payer's address: `billing`.
///
/// # Errors
/// The first thing that is wrong, with its path.
pub fn validate_billing(billing: &Value) -> Result<(), FieldError> {
    let known = [&ADDRESS[..], &["taxId"]].concat();
    let billing = Members::of("billing", billing, &known)?;
    check_address(&billing)?;
    billing.optional_text("company", &text::COMPANY)?;
    billing.optional_text("taxId", &text::TAX_ID)
}

/// Where things are sent: `shipping`.
///
/// # Errors
/// The first thing that is wrong, with its path.
pub fn validate_shipping(shipping: &Value) -> Result<(), FieldError> {
    let shipping = Members::of("shipping", shipping, &ADDRESS)?;
    check_address(&shipping)?;
    shipping.optional_text("company", &text::SHIPPING_COMPANY)
}

fn check_address(address: &Members<'_>) -> Result<(), FieldError> {
    address.text("firstName", &text::NAME)?;
    address.text("lastName", &text::NAME)?;
    address.optional_text("street", &text::PLAIN_STREET)?;
    address.optional_text("city", &text::PLAIN_PLACE)?;
    address.optional_text("region", &text::PLAIN_PLACE)?;
    address.optional_text("postalCode", &text::UP_TO_30)?;
    address.optional_text("countryCodeAlpha2", &text::COUNTRY)
}

/// What is bought, for ING Lease Now: `cart`.
///
/// # Errors
/// The first thing that is wrong, with its path.
pub fn validate_cart(cart: &Value) -> Result<(), FieldError> {
    let cart = Members::of("cart", cart, &["items"])?;
    let items = cart.required("items", "the list of products, a JSON array")?;
    for (path, item) in elements("cart.items", items)? {
        check_item(&path, item)?;
    }
    Ok(())
}

fn check_item(path: &str, item: &Value) -> Result<(), FieldError> {
    let known = [
        "id",
        "name",
        "amount",
        "tax",
        "taxStake",
        "quantity",
        "url",
        "categoryId",
        "unit",
        "state",
        "discount",
    ];
    let item = Members::of(path, item, &known)?;
    for name in ["id", "name", "categoryId"] {
        item.text(name, &text::PRINTABLE)?;
    }
    item.amount("amount", 0)?;
    item.number("tax")?;
    check_tax_stake(&item)?;
    item.amount("quantity", 1)?;
    let url = item.text("url", &text::PRINTABLE)?;
    validate_return_url(&item.path_of("url"), url)?;
    item.optional_text("unit", &text::UNIT)?;
    if item.has("state") {
        item.one_of("state", &["NEW", "USED"])?;
    }
    if item.has("discount") {
        let discount = item.required("discount", "")?;
        let discount = Members::of(&item.path_of("discount"), discount, &["amount", "tax"])?;
        if discount.has("amount") {
            discount.amount("amount", 0)?;
        }
        if discount.has("tax") {
            discount.number("tax")?;
        }
    }
    Ok(())
}

/// A percentage or a word.
fn check_tax_stake(item: &Members<'_>) -> Result<(), FieldError> {
    let percentages = TAX_PERCENTAGES.map(|percentage| percentage.to_string());
    let allowed = [&percentages[..], &TAX_WORDS.map(str::to_owned)]
        .concat()
        .join(", ");
    let stake = item.required("taxStake", &allowed)?;
    let is_listed = match stake {
        Value::Number(number) => number
            .as_i64()
            .is_some_and(|number| TAX_PERCENTAGES.contains(&number)),
        Value::String(word) => TAX_WORDS.contains(&word.as_str()) || percentages.contains(word),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => false,
    };
    if is_listed {
        return Ok(());
    }
    Err(FieldError::new(
        &item.path_of("taxStake"),
        Problem::NotListed,
        &allowed,
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn address() -> Value {
        json!({
            "firstName": "Anna", "lastName": "Nowak", "company": "Nowak", "street": "Piotrkowska 1", "city": "Lodz",
            "region": "Lodzkie", "postalCode": "90-001", "countryCodeAlpha2": "PL"
        })
    }

    fn item() -> Value {
        json!({
            "id": "1", "name": "Laptop", "amount": 0, "tax": 23.5, "taxStake": 23, "quantity": 1,
            "url": "https://shop.example.test/1", "categoryId": "laptops", "unit": "szt.", "state": "NEW",
            "discount": {"amount": 10, "tax": 1}
        })
    }

    fn with(mut whole: Value, name: &str, value: &Value) -> Value {
        if value.is_null() {
            whole.as_object_mut().unwrap().remove(name).unwrap();
        } else {
            whole[name] = value.clone();
        }
        whole
    }

    fn problem(outcome: Result<(), FieldError>) -> (String, Problem) {
        let error = outcome.unwrap_err();
        (error.field, error.problem)
    }

    #[test]
    fn what_is_documented_passes() {
        assert_eq!(
            validate_billing(&with(address(), "taxId", &json!("PL1234567890"))),
            Ok(())
        );
        assert_eq!(validate_shipping(&address()), Ok(()));
        let smallest = json!({"firstName": "A", "lastName": "N"});
        assert_eq!(validate_billing(&smallest), Ok(()));
        assert_eq!(validate_shipping(&smallest), Ok(()));
        assert_eq!(validate_cart(&json!({"items": [item()]})), Ok(()));
        for stake in [json!(0), json!("0"), json!("TAX_EXEMPT")] {
            let item = with(item(), "taxStake", &stake);
            assert_eq!(validate_cart(&json!({"items": [item]})), Ok(()), "{stake}");
        }
        assert_eq!(validate_description("1x \"A\",\n2x B"), Ok(()));
    }

    #[test]
    fn every_wrong_member_of_an_address_is_named() {
        let character = |character, position| Problem::Character {
            character,
            position,
        };
        let long = |length| json!("x".repeat(length));
        for (name, value, expected) in [
            ("firstName", Value::Null, Problem::Missing),
            ("lastName", json!("A:"), character(':', 2)),
            ("street", json!("Łódzka 1"), character('Ł', 1)),
            ("street", long(201), Problem::TooLong { length: 201 }),
            ("city", json!("Bielsko-Biala"), character('-', 8)),
            ("region", long(101), Problem::TooLong { length: 101 }),
            ("postalCode", long(31), Problem::TooLong { length: 31 }),
            (
                "countryCodeAlpha2",
                json!("POL"),
                Problem::TooLong { length: 3 },
            ),
            ("company", json!("a\\b"), character('\\', 2)),
            ("street", json!("4111 1111 1111 1111"), Problem::CardNumber),
            ("phone", json!("1"), Problem::Unknown),
        ] {
            let wrong = with(address(), name, &value);
            let expected = |of| (format!("{of}.{name}"), expected.clone());
            assert_eq!(problem(validate_billing(&wrong)), expected("billing"));
            assert_eq!(problem(validate_shipping(&wrong)), expected("shipping"));
        }
        let ampersand = with(address(), "company", &json!("A & B"));
        assert_eq!(validate_billing(&ampersand), Ok(()));
        assert_eq!(
            problem(validate_shipping(&ampersand)),
            ("shipping.company".to_owned(), character('&', 3))
        );
        let taxed = with(address(), "taxId", &long(13));
        assert_eq!(
            problem(validate_billing(&taxed)),
            ("billing.taxId".to_owned(), Problem::TooLong { length: 13 })
        );
    }

    #[test]
    fn every_wrong_member_of_a_cart_is_named() {
        for (name, value, path, expected) in [
            ("id", Value::Null, "id", Problem::Missing),
            ("amount", json!(-1), "amount", Problem::Range),
            ("amount", json!("1"), "amount", Problem::Form),
            ("tax", json!("1"), "tax", Problem::Form),
            ("taxStake", json!(21), "taxStake", Problem::NotListed),
            ("taxStake", json!("VAT"), "taxStake", Problem::NotListed),
            ("taxStake", json!(true), "taxStake", Problem::NotListed),
            ("quantity", json!(0), "quantity", Problem::Range),
            ("url", json!("shop"), "url", Problem::Form),
            (
                "unit",
                json!("x".repeat(36)),
                "unit",
                Problem::TooLong { length: 36 },
            ),
            ("state", json!("BROKEN"), "state", Problem::NotListed),
            (
                "discount",
                json!({"amount": -1}),
                "discount.amount",
                Problem::Range,
            ),
            (
                "discount",
                json!({"amount": 1, "tax": "1"}),
                "discount.tax",
                Problem::Form,
            ),
            ("colour", json!("red"), "colour", Problem::Unknown),
        ] {
            let cart = json!({"items": [with(item(), name, &value)]});
            let expected = (format!("cart.items[0].{path}"), expected);
            assert_eq!(problem(validate_cart(&cart)), expected, "{name}");
        }
        for (cart, field, expected) in [
            (json!({}), "cart.items", Problem::Missing),
            (json!({"items": []}), "cart.items", Problem::Empty),
            (json!({"items": [1]}), "cart.items[0]", Problem::Form),
            (json!([]), "cart", Problem::Form),
        ] {
            assert_eq!(problem(validate_cart(&cart)), (field.to_owned(), expected));
        }
    }
}
