//! Money: a whole number of minor units with a currency. No floats, no silent overflow.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The currencies that imoje takes (imoje API, `POST transaction/profile`, field `currency`).
///
/// Each of them has two decimals, so an amount in minor units is a hundred times the amount a person says.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, sqlx::Type,
)]
#[serde(rename_all = "UPPERCASE")]
#[sqlx(type_name = "currency", rename_all = "UPPERCASE")]
pub enum Currency {
    /// Polish zloty.
    Pln,
    /// Euro.
    Eur,
    /// US dollar.
    Usd,
    /// Pound sterling.
    Gbp,
    /// Swiss franc.
    Chf,
    /// Swedish krona.
    Sek,
    /// Hungarian forint; ISO 4217 gives it two decimals.
    Huf,
    /// Czech koruna.
    Czk,
    /// Bulgarian lev.
    Bgn,
    /// Romanian leu.
    Ron,
}

impl Currency {
    /// All of them, in the order of imoje's documents.
    pub const ALL: [Currency; 10] = [
        Currency::Pln,
        Currency::Eur,
        Currency::Usd,
        Currency::Gbp,
        Currency::Chf,
        Currency::Sek,
        Currency::Huf,
        Currency::Czk,
        Currency::Bgn,
        Currency::Ron,
    ];

    /// The ISO 4217 code.
    pub const fn code(self) -> &'static str {
        match self {
            Currency::Pln => "PLN",
            Currency::Eur => "EUR",
            Currency::Usd => "USD",
            Currency::Gbp => "GBP",
            Currency::Chf => "CHF",
            Currency::Sek => "SEK",
            Currency::Huf => "HUF",
            Currency::Czk => "CZK",
            Currency::Bgn => "BGN",
            Currency::Ron => "RON",
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}

impl FromStr for Currency {
    type Err = MoneyError;

    /// Takes the code in capitals, as imoje does.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Currency::ALL
            .into_iter()
            .find(|currency| currency.code() == text)
            .ok_or_else(|| MoneyError::UnknownCurrency(text.to_owned()))
    }
}

/// What is wrong with an amount or a currency.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// The currency is not one of the ten.
    #[error(
        "\"{0}\" is not a currency that imoje takes; allowed are PLN, EUR, USD, GBP, CHF, SEK, HUF, CZK, BGN, RON"
    )]
    UnknownCurrency(String),
    /// imoje would not take this amount.
    #[error(
        "{0} minor units cannot be charged; allowed are 1 to {max}",
        max = Money::CHARGE_MINOR_MAX
    )]
    OutOfRange(i64),
}

/// An amount that can be charged: 1 to 999 999 999 minor units of one of the ten currencies.
///
/// The upper bound is imoje's `integer(9)` for amounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Money {
    minor: i64,
    currency: Currency,
}

impl Money {
    /// The largest amount of a single charge, in minor units.
    pub const CHARGE_MINOR_MAX: i64 = 999_999_999;

    /// An amount of `minor` units.
    ///
    /// # Errors
    /// [`MoneyError::OutOfRange`] unless it lies between 1 and [`Money::CHARGE_MINOR_MAX`].
    pub fn new(minor: i64, currency: Currency) -> Result<Self, MoneyError> {
        if (1..=Self::CHARGE_MINOR_MAX).contains(&minor) {
            Ok(Self { minor, currency })
        } else {
            Err(MoneyError::OutOfRange(minor))
        }
    }

    /// The amount in minor units.
    pub const fn minor(self) -> i64 {
        self.minor
    }

    /// The currency.
    pub const fn currency(self) -> Currency {
        self.currency
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format_minor(self.minor, self.currency))
    }
}

/// Writes any number of minor units, a sum for example, as a person reads it: `1234.05 PLN`.
pub fn format_minor(minor: i64, currency: Currency) -> String {
    let sign = if minor < 0 { "-" } else { "" };
    let units = minor.unsigned_abs();
    format!("{sign}{}.{:02} {currency}", units / 100, units % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_currency_is_read_back_from_its_code_and_no_other_spelling_is() {
        for currency in Currency::ALL {
            assert_eq!(currency.code().parse(), Ok(currency));
            assert!(currency.code().to_lowercase().parse::<Currency>().is_err());
        }
        assert!("XXX".parse::<Currency>().is_err());
    }

    #[test]
    fn only_what_imoje_can_charge_is_money() {
        for minor in [i64::MIN, -1, 0, Money::CHARGE_MINOR_MAX + 1, i64::MAX] {
            assert_eq!(
                Money::new(minor, Currency::Pln),
                Err(MoneyError::OutOfRange(minor))
            );
        }
        for minor in [1, Money::CHARGE_MINOR_MAX] {
            assert_eq!(Money::new(minor, Currency::Eur).unwrap().minor(), minor);
        }
    }

    #[test]
    fn amounts_are_written_with_two_decimals() {
        assert_eq!(
            Money::new(5, Currency::Pln).unwrap().to_string(),
            "0.05 PLN"
        );
        assert_eq!(format_minor(123_456, Currency::Huf), "1234.56 HUF");
        assert_eq!(format_minor(-1, Currency::Chf), "-0.01 CHF");
        assert!(format_minor(i64::MIN, Currency::Eur).starts_with("-92233720368547758.08"));
    }
}
