//! The invoice and the payouts of a request.

use serde_json::Value;

use super::{
    AMOUNT, ANY_INTEGER, ANY_TEXT, Field, Format, Kind, missing, optional, pattern,
    patterns::{ACCOUNT_NUMBER, ADDRESS, FULL_NAME, LABEL, TITLE},
    required, text,
};

/// A list of payouts.
pub(super) const PAYOUTS: Kind =
    Kind::Also(&Kind::List(&Kind::Object(PAYOUT)), titles_in_all_or_none);

static PAYOUT: &[Field] = &[
    required(
        "ban",
        Kind::Text {
            min: 26,
            max: 26,
            pattern: Some(ACCOUNT_NUMBER),
        },
    ),
    required("amount", AMOUNT),
    required("label", pattern(70, LABEL)),
    optional("title", pattern(105, TITLE)),
];

/// The invoice.
pub(super) static INVOICE: &[Field] = &[
    required("buyer", Kind::Also(&Kind::Object(BUYER), buyer_conditions)),
    required("positions", Kind::List(&Kind::Object(POSITION))),
    optional("issueInvoice", Kind::Boolean),
    optional(
        "basisForVatExemption",
        Kind::Also(&Kind::Object(EXEMPTION), exemption_conditions),
    ),
    optional("invoiceId", ANY_TEXT),
];

static BUYER: &[Field] = &[
    required("type", Kind::OneOf(&["PERSON", "COMPANY"])),
    required("email", Kind::Format(Format::Email)),
    required("fullName", pattern(200, FULL_NAME)),
    required("street", pattern(200, ADDRESS)),
    required("city", pattern(100, ADDRESS)),
    required("postalCode", text(30)),
    required("countryCodeAlpha2", text(2)),
    optional("idCountryCodeAlpha2", text(2)),
    optional("idType", Kind::OneOf(&["ID", "VAT_ID"])),
    optional("idNumber", text(30)),
];

static POSITION: &[Field] = &[
    required("name", ANY_TEXT),
    required("code", ANY_TEXT),
    required("quantity", Kind::Quantity),
    required("unit", ANY_TEXT),
    required("grossAmount", ANY_INTEGER),
    required(
        "taxStake",
        Kind::OneOf(&[
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
        ]),
    ),
    optional("discountAmount", ANY_INTEGER),
    optional("taxAmount", ANY_INTEGER),
];

// `DENTAL_TECHNICAN_SERVICES` and `GUARANTIEES` are spelt as imoje spells them.
static EXEMPTION: &[Field] = &[
    required(
        "type",
        Kind::OneOf(&[
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
        ]),
    ),
    optional("text", ANY_TEXT),
];

/// A payout title in one element makes it due in all others.
fn titles_in_all_or_none(payouts: &Value) -> Vec<String> {
    let payouts = payouts.as_array().map(Vec::as_slice).unwrap_or_default();
    let with_title = payouts
        .iter()
        .filter(|payout| payout.get("title").is_some())
        .count();
    if with_title == 0 || with_title == payouts.len() {
        return Vec::new();
    }
    vec!["requires property \"title\" in all elements or in none".to_owned()]
}

/// A company is named with the kind and number of its id, and a VAT id with its country.
fn buyer_conditions(buyer: &Value) -> Vec<String> {
    let is = |name: &str, wanted: &str| buyer.get(name).and_then(Value::as_str) == Some(wanted);
    let mut messages = Vec::new();
    if is("type", "COMPANY") {
        messages.extend(missing(buyer, &["idType", "idNumber"]));
    }
    if is("idType", "VAT_ID") {
        messages.extend(missing(buyer, &["idCountryCodeAlpha2"]));
    }
    messages
}

/// The exemption `OTHER` is described in words.
fn exemption_conditions(exemption: &Value) -> Vec<String> {
    if exemption.get("type").and_then(Value::as_str) == Some("OTHER") {
        return missing(exemption, &["text"]);
    }
    Vec::new()
}
