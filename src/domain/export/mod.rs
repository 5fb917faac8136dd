//! An export of the gateway's transactions: what one row of it says, and what all rows say together.
//!
//! imoje does not document the export of its panel, so nothing is guessed. An amount that could be read in two ways is a
//! mistake, and only words that are known to mean it say that money moved. Rows of other systems are counted and passed over.

mod columns;
mod coverage;
mod reading;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use uuid::Uuid;

use crate::domain::id::TransactionId;
use crate::domain::money::Currency;
use crate::domain::order_id::OrderId;
use crate::domain::registration::RegistrationOrderId;
use crate::domain::shop::ShopName;

pub use columns::{Column, Layout, Mapping};
pub use coverage::{Coverage, CoverageError, Days, coverage};

/// More different words for a status than that are no words for a status.
const STATUSES_MAX: usize = 50;

/// How many damaged order ids are kept.
const STRANGERS_MAX: usize = 101;

/// imoje's word for money that moved.
const SETTLED: &str = "settled";

/// imoje's word for money that was given back.
const REFUND: &str = "refund";

/// What an export is read by.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The shops of the configuration.
    pub shops: Vec<Shop>,
    /// The shop of all rows, whatever they say.
    pub shop: Option<ShopName>,
    /// Words that mean what `settled` means, as they are written.
    pub settled: Vec<String>,
    /// Words that mean what `refund` means, as they are written.
    pub refunds: Vec<String>,
}

/// A shop of the configuration.
#[derive(Debug, Clone)]
pub struct Shop {
    /// Its name.
    pub name: ShopName,
    /// imoje's id of it.
    pub service_id: Uuid,
    /// The zone of times that do not say theirs.
    pub zone: Tz,
}

/// What a row says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its shop, when that is one of the configuration.
    pub shop: Option<ShopName>,
    /// When imoje heard of it, if the file says so.
    pub created_at: Option<DateTime<Utc>>,
    /// What it is about.
    pub matter: Matter,
}

/// What a row is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Matter {
    /// A debit of ours.
    Debit(Debit),
    /// A debit under an order id that begins like ours and is not one that we make.
    Strange {
        /// The order id.
        order_id: String,
        /// Whether money moved.
        has_moved: bool,
    },
    /// A payment by a link of ours, which registers a card.
    ByLink(ByLink),
    /// Money that was given back.
    Refund,
    /// A payment of another system.
    Foreign,
}

/// A debit of ours, as imoje has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Debit {
    /// Our name for it.
    pub order_id: OrderId,
    /// imoje's name for it.
    pub transaction_id: TransactionId,
    /// How much.
    pub amount_minor: i64,
    /// Of what.
    pub currency: Currency,
    /// Where it stands, in small letters.
    pub status: String,
    /// Whether that means that money moved.
    pub has_moved: bool,
}

/// A payment by a link of ours, as imoje has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByLink {
    /// Our name for the link.
    pub order_id: RegistrationOrderId,
    /// imoje's name for the payment.
    pub transaction_id: TransactionId,
    /// How much.
    pub amount_minor: i64,
    /// Of what.
    pub currency: Currency,
    /// Whether money moved.
    pub has_moved: bool,
}

/// A debit of an export, small enough to keep millions of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its line in the file.
    pub line: u64,
    /// Our name for it.
    pub order_id: OrderId,
    /// imoje's name for it.
    pub transaction_id: TransactionId,
    /// How much.
    pub amount_minor: i64,
    /// Of what.
    pub currency: Currency,
    /// Its place in [`Export::statuses`].
    pub status: usize,
    /// Whether money moved.
    pub has_moved: bool,
}

/// A word for where a transaction stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The word, in small letters.
    pub word: String,
    /// Whether it means that money moved.
    pub has_moved: bool,
    /// How many debits of ours have it.
    pub count: u64,
}

/// Money that moved under a damaged order id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    /// Its line in the file.
    pub line: u64,
    /// What stands there as the order id.
    pub order_id: String,
}

/// All that an export says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Export {
    /// The debits of ours, by line.
    pub entries: Vec<Entry>,
    /// The payments by links of ours whose money moved, each with its line.
    pub by_link: Vec<(u64, ByLink)>,
    /// The words for where they stand.
    pub statuses: Vec<Status>,
    /// Money that moved under damaged order ids; the first of them.
    pub strangers: Vec<Stranger>,
    /// How many rows there are.
    pub rows: u64,
    /// How many of them are refunds.
    pub refunds: u64,
    /// How many of them are payments of other systems.
    pub foreign: u64,
    /// From when to when the rows of each shop are, if they say so.
    pub spans: BTreeMap<ShopName, Option<Span>>,
}

/// From the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first.
    pub from: DateTime<Utc>,
    /// The last.
    pub to: DateTime<Utc>,
}

impl Export {
    /// Adds what stands in a line.
    ///
    /// # Errors
    /// When there are too many words for a status.
    pub fn add(&mut self, line: u64, row: Row) -> Result<(), String> {
        self.rows += 1;
        if let Some(shop) = row.shop {
            let span = self.spans.entry(shop).or_default();
            if let Some(at) = row.created_at {
                let known = span.get_or_insert(Span { from: at, to: at });
                *known = Span {
                    from: known.from.min(at),
                    to: known.to.max(at),
                };
            }
        }
        match row.matter {
            Matter::Refund => self.refunds += 1,
            Matter::Foreign => self.foreign += 1,
            Matter::ByLink(by_link) => {
                if by_link.has_moved {
                    self.by_link.push((line, by_link));
                }
            }
            Matter::Strange {
                order_id,
                has_moved,
            } => {
                if has_moved && self.strangers.len() < STRANGERS_MAX {
                    self.strangers.push(Stranger { line, order_id });
                }
            }
            Matter::Debit(debit) => {
                let status = self.status(&debit)?;
                self.entries.push(Entry {
                    line,
                    order_id: debit.order_id,
                    transaction_id: debit.transaction_id,
                    amount_minor: debit.amount_minor,
                    currency: debit.currency,
                    status,
                    has_moved: debit.has_moved,
                });
            }
        }
        Ok(())
    }

    /// The place of a debit's status, which is counted.
    fn status(&mut self, debit: &Debit) -> Result<usize, String> {
        let mut known = self.statuses.iter();
        let place = match known.position(|status| status.word == debit.status) {
            Some(place) => place,
            None if self.statuses.len() == STATUSES_MAX => {
                return Err(format!(
                    "there are more than {STATUSES_MAX} different words for a status; does --column status=HEADER name the \
                     right column?"
                ));
            }
            None => {
                self.statuses.push(Status {
                    word: debit.status.clone(),
                    has_moved: debit.has_moved,
                    count: 0,
                });
                self.statuses.len() - 1
            }
        };
        self.statuses[place].count += 1;
        Ok(place)
    }
}

#[cfg(test)]
mod tests;
