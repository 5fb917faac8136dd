//! The documented request bodies, as tables. Source: imoje API, the operation that each of them names.

use serde_json::Value;

mod bodies;
mod invoice;
mod patterns;

pub(super) use bodies::{CAN_REFUND, CANCEL, DEACTIVATE, DEBIT, PAYMENT, REFUND, TRANSACTION};
pub(super) use patterns::Pattern;

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
    /// A string of this form.
    Format(Format),
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// A whole number.
    Integer { min: i64, max: i64 },
    /// A whole number, or `null`.
    IntegerOrNull { min: i64 },
    /// A number that is not negative.
    Quantity,
    /// Any number.
    Number,
    /// One of these whole numbers, as a number or a text, or one of these words.
    NumberOrWord(&'static [i64], &'static [&'static str]),
    /// `true` or `false`.
    Boolean,
    /// An object with these properties and no others.
    Object(&'static [Field]),
    /// An array.
    List(&'static Kind),
    /// A kind, and a condition across its properties that returns a message for each breach.
    Also(&'static Kind, fn(&Value) -> Vec<String>),
}

/// The form of a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// An id in imoje's pattern.
    UuidV4,
    /// An address to return to.
    Url,
    /// An address for notices: no `localhost`, no port.
    NotificationUrl,
    /// An IPv4 or IPv6 address.
    IpAddress,
    /// An e-mail address.
    Email,
}

/// `^[A-Za-z0-9\x2D]+$`, at most 36 characters: the pattern of `cid`.
pub(in crate::simulator) fn is_cid(text: &str) -> bool {
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

fn missing(value: &Value, names: &[&str]) -> Vec<String> {
    let missing = names.iter().filter(|name| value.get(**name).is_none());
    missing
        .map(|name| format!("requires property \"{name}\""))
        .collect()
}
