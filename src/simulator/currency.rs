//! The currencies of imoje's API.

use std::fmt;

use serde::Deserialize;

/// A currency of imoje's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "ISO 4217 says what they are")]
pub enum Currency {
    Pln,
    Eur,
    Usd,
    Gbp,
    Chf,
    Sek,
    Huf,
    Czk,
    Bgn,
    Ron,
}

impl Currency {
    /// All of them.
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
    pub fn code(self) -> &'static str {
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

    /// The currency with this ISO 4217 code.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|currency| currency.code() == code)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.code())
    }
}
