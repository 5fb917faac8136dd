//! The documented request bodies, as tables. Source: imoje API, POST transaction/profile and POST profile/deactivate.

use serde_json::Value;

/// A property of a JSON object.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) required: bool,
    pub(super) kind: Kind,
}

/// What a JSON value must be.
pub(super) enum Kind {
    /// A string of `min` to `max` characters.
    Text {
        min: usize,
        max: usize,
        pattern: Option<Pattern>,
    },
    /// An id in imoje's pattern.
    UuidV4,
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// An address for notices: no `localhost`, no port.
    NotificationUrl,
    /// An e-mail address.
    Email,
    /// A whole number.
    Integer { min: i64, max: i64 },
    /// A number that is not negative.
    Quantity,
    /// `true` or `false`.
    Boolean,
    /// An object with these properties and no others.
    Object(&'static [Field]),
    /// An array.
    List(&'static Kind),
    /// A kind, and a condition across its properties that returns a message for each breach.
    Also(&'static Kind, fn(&Value) -> Vec<String>),
}

/// A documented pattern of the form `^[..]+$` or `^[..]*$`.
pub(super) struct Pattern {
    /// The pattern as the documents write it.
    pub(super) text: &'static str,
    may_be_empty: bool,
    accepts: fn(char) -> bool,
}

impl Pattern {
    pub(super) fn accepts(&self, text: &str) -> bool {
        (self.may_be_empty || !text.is_empty()) && text.chars().all(self.accepts)
    }
}

fn is_letter_or_digit(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '\u{c0}'..='\u{2c0}')
}

const ORDER_ID: Pattern = Pattern {
    text: r"^[A-Za-z0-9#_\-\.\\\\/ \u00C0-\u02C0]+$",
    may_be_empty: false,
    accepts: |letter| is_letter_or_digit(letter) || r"#_-.\/ ".contains(letter),
};
const TITLE: Pattern = Pattern {
    text: r#"^[A-Za-z0-9#&_\-\,\.\\\\/ \u00C0-\u02C0"']+$"#,
    may_be_empty: false,
    accepts: |letter| is_letter_or_digit(letter) || r#"#&_-,.\/ "'"#.contains(letter),
};
const LABEL: Pattern = Pattern {
    text: r#"^[A-Za-z0-9\-\,\. \u00C0-\u02C0"']+$"#,
    may_be_empty: false,
    accepts: |letter| is_letter_or_digit(letter) || r#"-,. "'"#.contains(letter),
};
const FULL_NAME: Pattern = Pattern {
    text: r#"^[A-Za-z0-9#&_\-\,\.\\\\/ \u00C0-\u02C0\u0400-\u04FF"']+$"#,
    may_be_empty: false,
    accepts: |letter| (TITLE.accepts)(letter) || matches!(letter, '\u{400}'..='\u{4ff}'),
};
const ADDRESS: Pattern = Pattern {
    text: r#"^[0-9a-zA-Z\s\-#.'"&,_/\u00C0-\u02C0]*$"#,
    may_be_empty: true,
    accepts: |letter| {
        is_letter_or_digit(letter) || letter.is_whitespace() || r#"-#.'"&,_/"#.contains(letter)
    },
};
const ACCOUNT_NUMBER: Pattern = Pattern {
    text: "^[0-9]{26}$",
    may_be_empty: false,
    accepts: |letter| letter.is_ascii_digit(),
};

/// `^[A-Za-z0-9\x2D]+$`, at most 36 characters: the pattern of `cid`.
pub(super) fn is_cid(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 36
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// The currencies of the documents.
pub(super) const CURRENCIES: &[&str] = &[
    "PLN", "EUR", "USD", "GBP", "CHF", "SEK", "HUF", "CZK", "BGN", "RON",
];

/// The largest amount, in minor units.
pub(super) const AMOUNT_MAX: i64 = 999_999_999;

const AMOUNT: Kind = Kind::Integer {
    min: 1,
    max: AMOUNT_MAX,
};
const ANY_INTEGER: Kind = Kind::Integer {
    min: i64::MIN,
    max: i64::MAX,
};
const ANY_TEXT: Kind = Kind::Text {
    min: 0,
    max: usize::MAX,
    pattern: None,
};

const fn required(name: &'static str, kind: Kind) -> Field {
    Field {
        name,
        required: true,
        kind,
    }
}

const fn optional(name: &'static str, kind: Kind) -> Field {
    Field {
        name,
        required: false,
        kind,
    }
}

const fn text(max: usize) -> Kind {
    Kind::Text {
        min: 0,
        max,
        pattern: None,
    }
}

const fn pattern(max: usize, pattern: Pattern) -> Kind {
    Kind::Text {
        min: 0,
        max,
        pattern: Some(pattern),
    }
}

/// The body of `POST transaction/profile`.
pub(super) static DEBIT: &[Field] = &[
    required("serviceId", Kind::UuidV4),
    required("paymentProfileId", Kind::UuidV4),
    required("amount", AMOUNT),
    required("currency", Kind::OneOf(CURRENCIES)),
    required("orderId", pattern(100, ORDER_ID)),
    optional("title", pattern(255, TITLE)),
    optional("notificationUrl", Kind::NotificationUrl),
    optional("data", Kind::Object(DATA)),
    optional("invoice", Kind::Object(INVOICE)),
];

/// The body of `POST profile/deactivate`.
pub(super) static DEACTIVATE: &[Field] = &[required("paymentProfileId", Kind::UuidV4)];

static DATA: &[Field] = &[required(
    "multipayout",
    Kind::Also(&Kind::List(&Kind::Object(PAYOUT)), titles_in_all_or_none),
)];

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

static INVOICE: &[Field] = &[
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
    required("email", Kind::Email),
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

fn missing(value: &Value, names: &[&str]) -> Vec<String> {
    let missing = names.iter().filter(|name| value.get(**name).is_none());
    missing
        .map(|name| format!("requires property \"{name}\""))
        .collect()
}

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
