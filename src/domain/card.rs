//! What a card is charged by, and what a debit without a profile says about it besides. Never a card number.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use serde_json::Value;

use crate::domain::fields::{self, FieldError};
use crate::domain::id::ProfileId;

/// What names the card in a debit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CardKey {
    /// imoje has stored it, under this id.
    Profile(ProfileId),
    /// imoje has no profile of it; this is the transaction that it was registered with.
    FirstTransaction(FirstTransactionId),
}

impl fmt::Display for CardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CardKey::Profile(id) => id.fmt(f),
            CardKey::FirstTransaction(id) => id.fmt(f),
        }
    }
}

/// `firstTransactionId`: the value that imoje shows for the transaction that registered a card without a profile (imoje API, "OneClick
/// and recurring payments without a profile"). Its form is not documented.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, sqlx::Type)]
#[sqlx(transparent)]
#[serde(transparent)]
pub struct FirstTransactionId(String);

impl FirstTransactionId {
    /// The bare text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FirstTransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for FirstTransactionId {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        fields::validate_first_transaction_id(text)?;
        Ok(Self(text.to_owned()))
    }
}

/// How a card is charged.
#[derive(Debug, Clone, PartialEq)]
pub enum ChargedCard {
    /// By its profile alone.
    Stored(ProfileId),
    /// Without a profile: every debit says who pays.
    Plain(Box<PlainCard>),
}

/// What a debit without a profile says about the card and its holder (imoje API, `POST transaction`, `profileType` `STANDARD`).
#[derive(Debug, Clone, PartialEq)]
pub struct PlainCard {
    /// What stands in the place of the security code.
    pub first_transaction_id: FirstTransactionId,
    /// The payer, as documented for `customer`, without the `cid`.
    pub customer: Value,
    /// Further members of `card`, as aliases that a tokenising proxy knows.
    pub aliases: Option<Value>,
}

impl ChargedCard {
    /// What names it.
    pub fn key(&self) -> CardKey {
        match self {
            ChargedCard::Stored(id) => CardKey::Profile(*id),
            ChargedCard::Plain(plain) => {
                CardKey::FirstTransaction(plain.first_transaction_id.clone())
            }
        }
    }
}
