//! From named texts to a subscription that can be stored: what `cykl subscription add` and `import` accept.
//!
//! Everything that is wrong with a description is found at once, and said with what would be right. A description that passes
//! can be stored and its debits can be sent, as far as that can be known without the database and imoje. Card numbers are
//! refused in every text and never repeated.

mod card;
mod columns;
mod mistake;
mod reading;
mod roll;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use serde_json::Value;

use crate::domain::calendar::Period;
use crate::domain::card::ChargedCard;
use crate::domain::channel::Channel;
use crate::domain::money::{Currency, Money};
use crate::domain::schedule::{DuePeriod, Terms};
use crate::domain::shop::ShopName;
use reading::Reading;

pub use columns::{Column, Fields};
pub use mistake::{Mistake, shown};
pub use roll::Roll;

/// What a description is read against.
#[derive(Debug, Clone)]
pub struct Circumstances {
    /// The shops of the configuration, each with the zone of its due dates.
    pub shops: BTreeMap<ShopName, Tz>,
    /// The shop of a description that names none.
    pub usual_shop: Option<ShopName>,
    /// The channels of shops that imoje was asked about. What others take is found out when it is charged.
    pub channels: BTreeMap<ShopName, Vec<Channel>>,
    /// The shops that can debit cards without a profile: imoje wants addresses to lead payers back to, though none is there.
    pub plain_cards: BTreeSet<ShopName>,
    /// Whether there is a tokenising proxy that puts card numbers in the place of aliases.
    pub has_card_proxy: bool,
    /// Whether the payer registers a card later: then the description names none.
    pub is_without_card: bool,
    /// When it is read.
    pub now: DateTime<Utc>,
}

/// A subscription that can be stored. Only [`enrol`] makes one.
#[derive(Debug, Clone, PartialEq)]
pub struct NewSubscription {
    /// The shop's own name for it; unique per shop.
    pub external_id: String,
    /// Its shop.
    pub shop: ShopName,
    /// The card that is charged, unless the payer registers one later.
    pub card: Option<NewCard>,
    /// The amount of every charge.
    pub amount: Money,
    /// Its dates.
    pub terms: Terms,
    /// The zone in which its dates are meant.
    pub zone: Tz,
    /// What the payer reads.
    pub title: Option<String>,
    /// Nothing due on or before this date is charged.
    pub paid_until: Option<NaiveDate>,
    /// Where imoje sends its notices instead of to Cykl.
    pub notification_url: Option<String>,
    /// The invoice that imoje issues.
    pub invoice: Option<Value>,
    /// How imoje divides the money.
    pub multipayout: Option<Value>,
    /// The first period that is charged.
    pub first: DuePeriod,
    /// How many periods before that count as paid elsewhere.
    pub paid_elsewhere: u32,
    /// Whether the first period was due before the day on which the description was read.
    pub is_overdue: bool,
}

/// A card of a new subscription, which may be stored already.
#[derive(Debug, Clone, PartialEq)]
pub struct NewCard {
    /// The card, as imoje knows it.
    pub cid: String,
    /// How it is charged.
    pub charged: ChargedCard,
}

/// Reads a description.
///
/// # Errors
/// Every mistake in it, in the order of the columns; at least one.
pub fn enrol(
    fields: &Fields<'_>,
    circumstances: &Circumstances,
) -> Result<NewSubscription, Vec<Mistake>> {
    let mut reading = Reading::of(fields);
    let external_id = reading.external_id();
    let card = if circumstances.is_without_card {
        reading.refuse_card();
        None
    } else {
        reading.card(circumstances)
    };
    let amount = reading.amount();
    let terms = reading.terms();
    let shop = reading.shop(circumstances);
    reading.compare_with_channels(amount, shop.as_ref(), circumstances);
    reading.compare_with_shop(card.as_ref(), shop.as_ref(), circumstances);
    let title = reading.title(shop.as_ref());
    let paid_until = reading.date(Column::PaidUntil);
    let timezone = reading.timezone();
    let notification_url = reading.notification_url();
    let invoice = reading.invoice();
    let multipayout = reading.multipayout(amount, invoice.as_ref());
    let shop_zone = shop.as_ref().and_then(|shop| circumstances.shops.get(shop));
    let zone = timezone.or(shop_zone.copied());
    let beginning = terms.zip(zone).and_then(|(terms, zone)| {
        let today = circumstances.now.with_timezone(&zone).date_naive();
        reading.beginning(&terms, paid_until, today)
    });
    let (Some(external_id), Some(amount), Some(terms), Some(shop)) =
        (external_id, amount, terms, shop)
    else {
        return Err(reading.mistakes());
    };
    match (zone, beginning) {
        (Some(zone), Some(beginning)) if reading.is_right() => Ok(NewSubscription {
            external_id,
            shop,
            card,
            amount,
            terms,
            zone,
            title,
            paid_until,
            notification_url,
            invoice,
            multipayout,
            first: beginning.first,
            paid_elsewhere: beginning.paid_elsewhere,
            is_overdue: beginning.is_overdue,
        }),
        (_, _) => Err(reading.mistakes()),
    }
}

/// Reads dates alone, for a preview of a schedule that nobody has agreed to yet.
///
/// # Errors
/// Every mistake in `anchor_date`, `period`, `starts_on`, `ends_on` and `max_charges`; at least one.
pub fn preview(fields: &Fields<'_>) -> Result<Terms, Vec<Mistake>> {
    let mut reading = Reading::of(fields);
    match reading.terms() {
        Some(terms) if reading.is_right() => Ok(terms),
        Some(_) | None => Err(reading.mistakes()),
    }
}

#[cfg(test)]
mod tests;
