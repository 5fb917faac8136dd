//! Members of an answer, each read with patience: one that cannot be read is absent.

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::domain::card_number::looks_like_card_number;
use crate::domain::id::TransactionId;

/// The longest text that is taken from an answer; the longest that Cykl compares is an order id of 100 characters.
const TEXT_LENGTH_MAX: usize = 200;

/// imoje's documents write every id as a hyphenated UUID.
const UUID_LENGTH: usize = 36;

/// A text of an answer that is safe to keep: short, without control characters, and no card number.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Text(pub(in crate::gateway) Option<String>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        let text: Option<String> = serde_json::from_str(raw.get()).ok();
        Ok(Self(text.filter(|text| is_safe(text))))
    }
}

/// An id of a transaction.
#[derive(Debug, Default)]
pub(in crate::gateway) struct TransactionNumber(pub(in crate::gateway) Option<TransactionId>);

impl<'de> Deserialize<'de> for TransactionNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?;
        Ok(Self(
            text.0
                .as_deref()
                .and_then(uuid)
                .map(TransactionId::from_uuid),
        ))
    }
}

/// An element of a list in an answer.
pub(super) trait Listed: Sized {
    /// The element, if all that matters of it can be read.
    fn read(json: &RawValue) -> Option<Self>;
}

/// A list in an answer, if each element of it can be read. Without the member it has none.
pub(super) struct List<T>(pub(super) Option<Vec<T>>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Some(Vec::new()))
    }
}

impl<'de, T: Listed> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        let elements: Option<Vec<&RawValue>> = serde_json::from_str(raw.get()).ok();
        let listed = elements.and_then(|elements| elements.into_iter().map(T::read).collect());
        Ok(Self(listed))
    }
}

/// A whole number, given as a number or as a text of digits, as amounts sometimes are.
#[derive(Debug, Default)]
pub(super) struct Whole(pub(super) Option<i64>);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(whole(&Value::deserialize(deserializer)?)))
    }
}

/// A yes or no, given as 0 or 1, as `true` or `false`, or as a text of one of these.
#[derive(Debug, Default)]
pub(super) struct Flag(pub(super) Option<bool>);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(flag(&Value::deserialize(deserializer)?)))
    }
}

pub(super) fn flag(value: &Value) -> Option<bool> {
    match (value.as_bool(), value.as_str(), whole(value)) {
        (Some(flag), _, _) => Some(flag),
        (_, Some("true"), _) | (_, _, Some(1)) => Some(true),
        (_, Some("false"), _) | (_, _, Some(0)) => Some(false),
        _ => None,
    }
}

pub(super) fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(digits)
            if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) =>
        {
            digits.parse().ok()
        }
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            None
        }
    }
}

fn is_safe(text: &str) -> bool {
    text.chars().count() <= TEXT_LENGTH_MAX
        && !text.chars().any(char::is_control)
        && !looks_like_card_number(text)
}

pub(super) fn uuid(text: &str) -> Option<Uuid> {
    (text.len() == UUID_LENGTH)
        .then(|| Uuid::try_parse(text).ok())
        .flatten()
}
