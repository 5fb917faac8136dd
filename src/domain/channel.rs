//! The channel for recurring debits, as imoje describes it for a shop (imoje API, `GET service/{serviceId}`): in which currencies it is
//! open, and which amounts it takes. What imoje leaves out is taken to be allowed.

use std::collections::BTreeSet;

use crate::domain::money::{Currency, Money};

/// The recurring channel of a shop, in one currency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Channel {
    /// The currency; of any, when imoje does not say.
    pub currency: Option<Currency>,
    /// Whether it is active in the shop and on line at imoje.
    pub is_online: Option<bool>,
    /// The least amount, in minor units.
    pub min_minor: Option<i64>,
    /// The largest amount, in minor units.
    pub max_minor: Option<i64>,
}

/// Why no channel of a shop takes an amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// The shop has no channel for recurring debits.
    #[error("cannot be charged: imoje lists no recurring channel for the shop")]
    NoChannel,
    /// It has some, in other currencies.
    #[error("is not a currency of the shop's recurring channel")]
    Currency {
        /// The currencies that it has.
        offered: BTreeSet<Currency>,
    },
    /// The amount is too small or too large.
    #[error("is outside of what the shop's recurring channel takes")]
    Amount {
        /// The least that it takes, in minor units.
        min_minor: i64,
        /// The most that it takes, in minor units.
        max_minor: i64,
    },
}

impl Channel {
    fn is_in(&self, currency: Currency) -> bool {
        self.currency.is_none_or(|own| own == currency)
    }

    /// The amounts that it takes, in minor units.
    pub fn amounts(&self) -> std::ops::RangeInclusive<i64> {
        self.min_minor.unwrap_or(1)..=self.max_minor.unwrap_or(Money::CHARGE_MINOR_MAX)
    }
}

/// Whether one of `channels`, all that a shop has for recurring debits, takes `amount` when it is on line.
///
/// # Errors
/// [`NotTaken`], when none does.
pub fn takes(channels: &[Channel], amount: Money) -> Result<(), NotTaken> {
    if channels.is_empty() {
        return Err(NotTaken::NoChannel);
    }
    let in_currency: Vec<_> = channels
        .iter()
        .filter(|channel| channel.is_in(amount.currency()))
        .collect();
    let Some(first) = in_currency.first() else {
        return Err(NotTaken::Currency {
            offered: channels
                .iter()
                .filter_map(|channel| channel.currency)
                .collect(),
        });
    };
    let taken = in_currency
        .iter()
        .any(|channel| channel.amounts().contains(&amount.minor()));
    if taken {
        return Ok(());
    }
    let amounts = first.amounts();
    Err(NotTaken::Amount {
        min_minor: *amounts.start(),
        max_minor: *amounts.end(),
    })
}

/// Whether recurring debits go through at all now: some channel is on line, or imoje does not say of all of them that they are not.
/// Nothing, when it says neither.
pub fn is_online(channels: &[Channel]) -> Option<bool> {
    let says = |word| channels.iter().any(|channel| channel.is_online == word);
    if says(Some(true)) {
        Some(true)
    } else if says(None) {
        None
    } else {
        Some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn money(minor: i64, currency: Currency) -> Money {
        Money::new(minor, currency).unwrap()
    }

    fn channel(currency: Currency, min_minor: i64, max_minor: i64) -> Channel {
        Channel {
            currency: Some(currency),
            is_online: Some(true),
            min_minor: Some(min_minor),
            max_minor: Some(max_minor),
        }
    }

    #[test]
    fn an_amount_within_the_limits_of_its_currency_is_taken() {
        let channels = [
            channel(Currency::Pln, 100, 500_000),
            channel(Currency::Eur, 1, 100),
        ];
        for minor in [100, 4_900, 500_000] {
            assert_eq!(takes(&channels, money(minor, Currency::Pln)), Ok(()));
        }
        for minor in [99, 500_001] {
            assert_eq!(
                takes(&channels, money(minor, Currency::Pln)),
                Err(NotTaken::Amount {
                    min_minor: 100,
                    max_minor: 500_000
                })
            );
        }
        let offered = [Currency::Pln, Currency::Eur].into();
        assert_eq!(
            takes(&channels, money(4_900, Currency::Usd)),
            Err(NotTaken::Currency { offered })
        );
    }

    #[test]
    fn what_imoje_leaves_out_is_allowed() {
        let open = [Channel::default()];
        for currency in Currency::ALL {
            assert_eq!(takes(&open, money(1, currency)), Ok(()));
        }
        let capped = [Channel {
            max_minor: Some(100),
            ..Channel::default()
        }];
        assert!(takes(&capped, money(101, Currency::Czk)).is_err());
        assert_eq!(
            takes(&[], money(1, Currency::Pln)),
            Err(NotTaken::NoChannel)
        );
    }

    #[test]
    fn a_shop_charges_as_long_as_one_channel_is_on_line() {
        let channel = |is_online| Channel {
            is_online,
            ..Channel::default()
        };
        for (channels, expected) in [
            (vec![], Some(false)),
            (vec![Some(false), Some(true)], Some(true)),
            (vec![Some(false), None], None),
            (vec![Some(false)], Some(false)),
            (vec![None], None),
        ] {
            let channels: Vec<_> = channels.into_iter().map(channel).collect();
            assert_eq!(is_online(&channels), expected);
        }
    }
}
