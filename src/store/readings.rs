//! From what a row holds to what the domain means, and back. A value that this program never wrote is an error, not a panic.

use sqlx::types::JsonValue;

use crate::domain::calendar::Period;
use crate::domain::card::{ChargedCard, FirstTransactionId, PlainCard};
use crate::domain::id::ProfileId;
use crate::domain::money::{Currency, Money};
use crate::domain::slow_start::Stage;
use crate::store::StoreError;

pub use chrono_tz::Tz as Zone;

pub(super) fn period(text: &str) -> Result<Period, StoreError> {
    text.parse().map_err(|_| unreadable("period", text))
}

pub(super) fn zone(text: &str) -> Result<Zone, StoreError> {
    text.parse().map_err(|_| unreadable("time zone", text))
}

pub(super) fn count<T: TryInto<u32> + Copy + std::fmt::Display>(
    value: T,
) -> Result<u32, StoreError> {
    value
        .try_into()
        .map_err(|_| unreadable("count", &value.to_string()))
}

pub(super) fn sum(value: i64) -> Result<u64, StoreError> {
    u64::try_from(value).map_err(|_| unreadable("sum", &value.to_string()))
}

pub(super) fn small_count(value: i16) -> Result<u16, StoreError> {
    u16::try_from(value).map_err(|_| unreadable("count", &value.to_string()))
}

pub(super) fn stored_small_count(value: u16) -> Result<i16, StoreError> {
    i16::try_from(value).map_err(|_| unreadable("count", &value.to_string()))
}

pub(super) fn stored_count(value: u32) -> Result<i32, StoreError> {
    i32::try_from(value).map_err(|_| unreadable("count", &value.to_string()))
}

pub(super) fn stage(number: i16) -> Result<Stage, StoreError> {
    Stage::of_number(number).ok_or_else(|| unreadable("stage of a slow start", &number.to_string()))
}

fn unreadable(what: &'static str, value: &str) -> StoreError {
    StoreError::Unreadable {
        what,
        value: value.to_owned(),
    }
}

/// How a card is charged, of which exactly one of the first two is there (`cards_have_one_way_to_be_charged`).
pub(super) fn charged_card(
    profile_id: Option<ProfileId>,
    first_transaction_id: Option<FirstTransactionId>,
    customer: Option<JsonValue>,
    aliases: Option<JsonValue>,
) -> Result<ChargedCard, StoreError> {
    match (profile_id, first_transaction_id, customer) {
        (Some(profile_id), None, _) => Ok(ChargedCard::Stored(profile_id)),
        (None, Some(first_transaction_id), Some(customer)) => {
            Ok(ChargedCard::Plain(Box::new(PlainCard {
                first_transaction_id,
                customer,
                aliases,
            })))
        }
        (_, _, _) => Err(unreadable("card", "without one way to be charged")),
    }
}

pub(super) fn money(minor: i64, currency: Currency) -> Result<Money, StoreError> {
    Money::new(minor, currency).map_err(|_| unreadable("amount", &minor.to_string()))
}
