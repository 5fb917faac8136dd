//! The named texts that describe a new subscription: columns of an import, options of `cykl subscription add`.

use std::fmt;

use crate::domain::spelling;

/// The name of one text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Column {
    /// The shop's own name for the subscription; unique per shop.
    ExternalId,
    /// The shop; may be left out when there is one only.
    Shop,
    /// The card, as imoje knows it: one `cid` is one payment instrument.
    Cid,
    /// imoje's id of the stored card.
    PaymentProfileId,
    /// What imoje shows as `firstTransactionId`, for cards without a profile.
    FirstTransactionId,
    /// Who pays, JSON; for cards without a profile.
    Customer,
    /// Further members of the card as aliases of a tokenising proxy, JSON; for cards without a profile.
    Card,
    /// The amount of every charge in minor units (grosze, cents).
    AmountMinor,
    /// ISO 4217.
    Currency,
    /// ISO 8601: the time between two charges.
    Period,
    /// The date on which period 0 falls due.
    AnchorDate,
    /// Nothing due before this date is charged.
    StartsOn,
    /// Nothing due after this date is charged.
    EndsOn,
    /// How many periods there are, whoever charged them.
    MaxCharges,
    /// Nothing due on or before this date is charged.
    PaidUntil,
    /// The zone in which dates are meant.
    Timezone,
    /// What the payer reads.
    Title,
    /// Where imoje sends its notices instead of to Cykl.
    NotificationUrl,
    /// The invoice that imoje issues, JSON.
    Invoice,
    /// How imoje divides the money, JSON.
    Multipayout,
}

impl Column {
    /// All of them, in the order of the documentation.
    pub const ALL: [Column; 20] = [
        Column::ExternalId,
        Column::Cid,
        Column::PaymentProfileId,
        Column::FirstTransactionId,
        Column::Customer,
        Column::Card,
        Column::AmountMinor,
        Column::Currency,
        Column::Period,
        Column::AnchorDate,
        Column::Shop,
        Column::Title,
        Column::StartsOn,
        Column::EndsOn,
        Column::MaxCharges,
        Column::PaidUntil,
        Column::Timezone,
        Column::NotificationUrl,
        Column::Invoice,
        Column::Multipayout,
    ];

    /// Those without which no subscription can be described, besides [`Column::CARD_KEYS`].
    pub const REQUIRED: [Column; 6] = [
        Column::ExternalId,
        Column::Cid,
        Column::AmountMinor,
        Column::Currency,
        Column::Period,
        Column::AnchorDate,
    ];

    /// What names the card. A subscription has one of these.
    pub const CARD_KEYS: [Column; 2] = [Column::PaymentProfileId, Column::FirstTransactionId];

    /// Its name in the header of an import.
    pub const fn name(self) -> &'static str {
        match self {
            Column::ExternalId => "external_id",
            Column::Shop => "shop",
            Column::Cid => "cid",
            Column::PaymentProfileId => "payment_profile_id",
            Column::FirstTransactionId => "first_transaction_id",
            Column::Customer => "customer",
            Column::Card => "card",
            Column::AmountMinor => "amount_minor",
            Column::Currency => "currency",
            Column::Period => "period",
            Column::AnchorDate => "anchor_date",
            Column::StartsOn => "starts_on",
            Column::EndsOn => "ends_on",
            Column::MaxCharges => "max_charges",
            Column::PaidUntil => "paid_until",
            Column::Timezone => "timezone",
            Column::Title => "title",
            Column::NotificationUrl => "notification_url",
            Column::Invoice => "invoice",
            Column::Multipayout => "multipayout",
        }
    }

    /// The column of that name.
    pub fn named(name: &str) -> Option<Column> {
        Column::ALL.into_iter().find(|column| column.name() == name)
    }

    /// The column whose name is most like `name`: one that begins with it, or else the one with the fewest letters to change.
    pub fn nearest(name: &str) -> Option<&'static str> {
        let names = Column::ALL.map(Column::name);
        let longer = names.into_iter().find(|known| known.starts_with(name));
        longer.or_else(|| spelling::nearest(name, names))
    }

    /// Whether its text may hold what messages should not repeat: names and addresses of payers, account numbers, passwords.
    pub(super) const fn is_private(self) -> bool {
        match self {
            Column::Customer
            | Column::Card
            | Column::NotificationUrl
            | Column::Invoice
            | Column::Multipayout => true,
            Column::ExternalId
            | Column::Shop
            | Column::Cid
            | Column::PaymentProfileId
            | Column::FirstTransactionId
            | Column::AmountMinor
            | Column::Currency
            | Column::Period
            | Column::AnchorDate
            | Column::StartsOn
            | Column::EndsOn
            | Column::MaxCharges
            | Column::PaidUntil
            | Column::Timezone
            | Column::Title => false,
        }
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The texts of one subscription. An empty text is the same as none.
///
/// There are few enough that looking through them is cheaper than any map, and millions of these are made.
#[derive(Debug, Clone, Default)]
pub struct Fields<'a>(Vec<(Column, &'a str)>);

impl<'a> Fields<'a> {
    /// Says what stands in `column`.
    pub fn set(&mut self, column: Column, text: &'a str) {
        self.0.retain(|(known, _)| *known != column);
        if !text.is_empty() {
            self.0.push((column, text));
        }
    }

    /// What stands in `column`.
    pub fn get(&self, column: Column) -> Option<&'a str> {
        self.iter()
            .find_map(|(known, text)| (known == column).then_some(text))
    }

    /// Everything that stands somewhere.
    pub fn iter(&self) -> impl Iterator<Item = (Column, &'a str)> {
        self.0.iter().copied()
    }
}

impl<'a> FromIterator<(Column, &'a str)> for Fields<'a> {
    fn from_iter<I: IntoIterator<Item = (Column, &'a str)>>(texts: I) -> Self {
        let texts = texts.into_iter();
        let mut fields = Self(Vec::with_capacity(texts.size_hint().0));
        for (column, text) in texts {
            fields.set(column, text);
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_column_is_found_by_its_name() {
        let all: BTreeSet<_> = Column::ALL.into_iter().collect();
        assert_eq!(all.len(), Column::ALL.len());
        for column in Column::ALL {
            assert_eq!(Column::named(column.name()), Some(column));
        }
        assert_eq!(Column::named("Currency"), None);
        assert_eq!(Column::nearest("ammount_minor"), Some("amount_minor"));
        assert_eq!(Column::nearest("amount"), Some("amount_minor"));
        assert!(Column::REQUIRED.iter().all(|column| all.contains(column)));
    }

    #[test]
    fn an_empty_text_is_none() {
        let fields: Fields<'_> = [(Column::Title, ""), (Column::Cid, "a")]
            .into_iter()
            .collect();
        assert_eq!(fields.get(Column::Title), None);
        assert_eq!(fields.get(Column::Cid), Some("a"));
    }
}
