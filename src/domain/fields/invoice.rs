//! The invoice that imoje issues or splits by (imoje API, `POST transaction/profile`, `invoice`).

use serde_json::Value;

use crate::domain::fields::members::{Members, elements};
use crate::domain::fields::{FieldError, Problem, text};

/// `positions[].taxStake`
const TAX_STAKES: [&str; 11] = [
    "TAX_23",
    "TAX_22",
    "TAX_8",
    "TAX_7",
    "TAX_5",
    "TAX_3",
    "TAX_0",
    "TAX_EXEMPT",
    "TAX_NOT_LIABLE",
    "TAX_REVERSE_CHARGE",
    "TAX_EXCLUDING",
];

/// `basisForVatExemption.type`, in imoje's spelling.
const VAT_EXEMPTIONS: [&str; 19] = [
    "DENTAL_TECHNICAN_SERVICES",
    "DOCTOR_DENTIST_SERVICES",
    "PHYSIOTHERAPY_SERVICES",
    "NURSING_SERVICES",
    "PSYCHOLOGICAL_SERVICES",
    "MEDICAL_TRANSPORT_SERVICES",
    "CARE_SERVICES",
    "TUTORING",
    "TEACHING_FOREIGN_LANGUAGES",
    "ARTISTS",
    "RENTING_PROPERTY",
    "INSURANCE_SERVICES",
    "CREDITS_AND_LOANS_SERVICES",
    "GUARANTIEES",
    "SPECIAL_CONDITIONS_FOR_EXEMPTION",
    "UE_TRANSACTIONS",
    "SUBJECTIVE_EXEMPTIONS",
    "OTHER",
    "OTHER_OBJECTIVE_EXEMPTIONS",
];

/// The invoice of a debit: who buys, what, and on what ground without tax.
///
/// # Errors
/// The first thing that is wrong, with its path.
pub fn validate_invoice(invoice: &Value) -> Result<(), FieldError> {
    let known = [
        "buyer",
        "positions",
        "issueInvoice",
        "basisForVatExemption",
        "invoiceId",
    ];
    let members = Members::of("invoice", invoice, &known)?;
    check_buyer(members.required("buyer", "the buyer, a JSON object")?)?;
    let positions = members.required("positions", "the list of products, a JSON array")?;
    // "Required only for Split Payment" is said of the invoice's number and of the tax of its positions.
    let is_split = members.has("invoiceId");
    for (path, position) in elements("invoice.positions", positions)? {
        check_position(&path, position, is_split)?;
    }
    if members.has("issueInvoice") && !members.required("issueInvoice", "")?.is_boolean() {
        return Err(FieldError::new(
            "invoice.issueInvoice",
            Problem::Form,
            "true or false",
        ));
    }
    if members.has("basisForVatExemption") {
        check_exemption(members.required("basisForVatExemption", "")?)?;
    }
    members.optional_text("invoiceId", &text::PRINTABLE)
}

fn check_buyer(buyer: &Value) -> Result<(), FieldError> {
    let known = [
        "type",
        "email",
        "fullName",
        "street",
        "city",
        "postalCode",
        "countryCodeAlpha2",
        "idCountryCodeAlpha2",
        "idType",
        "idNumber",
    ];
    let buyer = Members::of("invoice.buyer", buyer, &known)?;
    let is_company = buyer.one_of("type", &["PERSON", "COMPANY"])? == "COMPANY";
    buyer.email("email")?;
    buyer.text("fullName", &text::FULL_NAME)?;
    buyer.text("street", &text::STREET)?;
    buyer.text("city", &text::CITY)?;
    buyer.text("postalCode", &text::UP_TO_30)?;
    buyer.text("countryCodeAlpha2", &text::COUNTRY)?;
    // `idType` and `idNumber` are required of companies, `idCountryCodeAlpha2` of whoever gives a VAT number.
    if (is_company || buyer.has("idType")) && buyer.one_of("idType", &["ID", "VAT_ID"])? == "VAT_ID"
    {
        buyer.text("idCountryCodeAlpha2", &text::COUNTRY)?;
    }
    if is_company {
        buyer.text("idNumber", &text::UP_TO_30)?;
    }
    buyer.optional_text("idNumber", &text::UP_TO_30)?;
    buyer.optional_text("idCountryCodeAlpha2", &text::COUNTRY)
}

fn check_position(path: &str, position: &Value, is_split: bool) -> Result<(), FieldError> {
    let known = [
        "name",
        "code",
        "quantity",
        "unit",
        "grossAmount",
        "taxStake",
        "discountAmount",
        "taxAmount",
    ];
    let position = Members::of(path, position, &known)?;
    for name in ["name", "code", "unit"] {
        position.text(name, &text::PRINTABLE)?;
    }
    let allowed = "a number of at least 0";
    let quantity = position.required("quantity", allowed)?;
    if !quantity.is_number() {
        return Err(FieldError::new(
            &position.path_of("quantity"),
            Problem::Form,
            allowed,
        ));
    }
    if !quantity.as_f64().is_some_and(|quantity| quantity >= 0.0) {
        return Err(FieldError::new(
            &position.path_of("quantity"),
            Problem::Range,
            allowed,
        ));
    }
    position.amount("grossAmount", 0)?;
    position.one_of("taxStake", &TAX_STAKES)?;
    if is_split || position.has("taxAmount") {
        position.amount("taxAmount", 0)?;
    }
    if position.has("discountAmount") {
        position.amount("discountAmount", 0)?;
    }
    Ok(())
}

fn check_exemption(exemption: &Value) -> Result<(), FieldError> {
    let exemption = Members::of("invoice.basisForVatExemption", exemption, &["type", "text"])?;
    if exemption.one_of("type", &VAT_EXEMPTIONS)? == "OTHER" {
        exemption.text("text", &text::PRINTABLE)?;
    }
    exemption.optional_text("text", &text::PRINTABLE)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn invoice() -> Value {
        json!({
            "buyer": {
                "type": "COMPANY", "email": "biuro@example.test", "fullName": "Żółw Sp. z o.o. Київ", "street": "ul. Długa 1/2",
                "city": "Łódź", "postalCode": "90-001", "countryCodeAlpha2": "PL", "idCountryCodeAlpha2": "PL",
                "idType": "VAT_ID", "idNumber": "5260250274"
            },
            "positions": [{
                "name": "Abonament", "code": "AB-1", "quantity": 1.5, "unit": "szt.", "grossAmount": 4900,
                "taxStake": "TAX_23", "discountAmount": 0, "taxAmount": 916
            }],
            "issueInvoice": true,
            "basisForVatExemption": {"type": "OTHER", "text": "art. 43"},
            "invoiceId": "FV/1/2026"
        })
    }

    #[test]
    fn a_full_and_a_smallest_invoice_pass() {
        assert_eq!(validate_invoice(&invoice()), Ok(()));
        let smallest = json!({
            "buyer": {
                "type": "PERSON", "email": "anna@example.test", "fullName": "Anna", "street": "", "city": "",
                "postalCode": "1", "countryCodeAlpha2": "DE"
            },
            "positions": [{"name": "A", "code": "1", "quantity": 0, "unit": "u", "grossAmount": 0, "taxStake": "TAX_0"}]
        });
        assert_eq!(validate_invoice(&smallest), Ok(()));
    }

    #[test]
    fn required_members_are_required() {
        for path in [
            "buyer",
            "positions",
            "buyer/type",
            "buyer/email",
            "buyer/fullName",
            "buyer/street",
            "buyer/city",
            "buyer/postalCode",
            "buyer/countryCodeAlpha2",
            "buyer/idType",
            "buyer/idNumber",
            "buyer/idCountryCodeAlpha2",
            "positions/0/name",
            "positions/0/code",
            "positions/0/quantity",
            "positions/0/unit",
            "positions/0/grossAmount",
            "positions/0/taxStake",
            "basisForVatExemption/type",
            "basisForVatExemption/text",
        ] {
            let mut invoice = invoice();
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
            let parent = if parent.is_empty() {
                String::new()
            } else {
                format!("/{parent}")
            };
            invoice
                .pointer_mut(&parent)
                .unwrap()
                .as_object_mut()
                .unwrap()
                .remove(name)
                .unwrap();
            let error = validate_invoice(&invoice).unwrap_err();
            assert_eq!(error.problem, Problem::Missing, "{path}");
            assert!(error.field.ends_with(name), "{path}: {error}");
        }
    }

    #[test]
    fn unknown_members_are_refused_on_every_level() {
        for path in ["", "/buyer", "/positions/0", "/basisForVatExemption"] {
            let mut invoice = invoice();
            invoice.pointer_mut(path).unwrap()["nip"] = json!("1");
            let error = validate_invoice(&invoice).unwrap_err();
            assert_eq!(error.problem, Problem::Unknown, "{path}");
            assert!(error.field.ends_with(".nip"));
        }
        let error = validate_invoice(&json!({"4111111111111111": 1})).unwrap_err();
        assert!(!error.to_string().contains("4111"), "{error}");
    }

    #[test]
    fn wrong_values_of_the_buyer_are_refused() {
        refuses_each([
            ("/buyer/type", json!("person"), Problem::NotListed),
            ("/buyer/type", json!(1), Problem::Form),
            ("/buyer/email", json!("anna"), Problem::Form),
            ("/buyer/email", json!("anna@example..test"), Problem::Form),
            ("/buyer/email", json!("a nna@example.test"), Problem::Form),
            ("/buyer/email", json!("a@b@example.test"), Problem::Form),
            (
                "/buyer/email",
                json!(format!("a@{}test", "x.".repeat(99))),
                Problem::TooLong { length: 204 },
            ),
            (
                "/buyer/fullName",
                json!("Anna (A)"),
                Problem::Character {
                    character: '(',
                    position: 6,
                },
            ),
            (
                "/buyer/street",
                json!("Długa 1\\2"),
                Problem::Character {
                    character: '\\',
                    position: 8,
                },
            ),
            (
                "/buyer/city",
                json!("x".repeat(101)),
                Problem::TooLong { length: 101 },
            ),
            (
                "/buyer/postalCode",
                json!("x".repeat(31)),
                Problem::TooLong { length: 31 },
            ),
            (
                "/buyer/countryCodeAlpha2",
                json!("POL"),
                Problem::TooLong { length: 3 },
            ),
            ("/buyer/idType", json!("NIP"), Problem::NotListed),
            (
                "/buyer/idNumber",
                json!("4111111111111111"),
                Problem::CardNumber,
            ),
        ]);
    }

    #[test]
    fn wrong_values_of_positions_and_grounds_are_refused() {
        refuses_each([
            ("/positions", json!([]), Problem::Empty),
            ("/positions/0/quantity", json!(-1), Problem::Range),
            ("/positions/0/quantity", json!("1"), Problem::Form),
            ("/positions/0/grossAmount", json!(49.5), Problem::Form),
            ("/positions/0/taxAmount", json!(-1), Problem::Range),
            ("/positions/0/taxStake", json!("TAX_24"), Problem::NotListed),
            (
                "/positions/0/name",
                json!("a\u{0}"),
                Problem::Character {
                    character: '\0',
                    position: 2,
                },
            ),
            ("/issueInvoice", json!("true"), Problem::Form),
            (
                "/basisForVatExemption/type",
                json!("NONE"),
                Problem::NotListed,
            ),
            ("/invoiceId", json!(""), Problem::Empty),
        ]);
    }

    fn refuses_each<const N: usize>(cases: [(&str, Value, Problem); N]) {
        for (path, value, problem) in cases {
            let mut invoice = invoice();
            *invoice.pointer_mut(path).unwrap() = value;
            let error = validate_invoice(&invoice).unwrap_err();
            assert_eq!(error.problem, problem, "{path}");
        }
    }
}
