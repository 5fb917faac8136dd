//! A shop: one imoje service, with the name that the configuration, the database and the metrics know it by.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The imoje that a shop talks to. Real money moves in [`Environment::Production`] only.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, sqlx::Type,
)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "environment", rename_all = "lowercase")]
pub enum Environment {
    /// The real one.
    Production,
    /// imoje's own place for trying out.
    Sandbox,
    /// The pretend imoje that comes with Cykl.
    Simulator,
}

impl Environment {
    /// All of them.
    pub const ALL: [Environment; 3] = [
        Environment::Production,
        Environment::Sandbox,
        Environment::Simulator,
    ];

    /// How it is spelt in the configuration and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Environment::Production => "production",
            Environment::Sandbox => "sandbox",
            Environment::Simulator => "simulator",
        }
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that names no environment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not an environment; allowed are production, sandbox and simulator")]
pub struct EnvironmentError(String);

impl FromStr for Environment {
    type Err = EnvironmentError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Environment::ALL
            .into_iter()
            .find(|environment| environment.as_str() == text)
            .ok_or_else(|| EnvironmentError(text.to_owned()))
    }
}

/// Where imoje leads payers back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReturnUrls {
    /// After a payment: `successReturnUrl`.
    pub success: String,
    /// Without one: `failureReturnUrl`.
    pub failure: String,
}

/// The name of a shop: 1 to 63 lower-case letters, digits, `-` and `_`, of which the first is a letter or a digit.
///
/// It is a label of metrics, a column of reports and a part of environment variables, hence the narrow alphabet.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, sqlx::Type,
)]
#[serde(try_from = "String", into = "String")]
#[sqlx(transparent)]
pub struct ShopName(String);

impl ShopName {
    /// The bare name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ShopName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A text that cannot name a shop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" cannot name a shop; allowed are 1 to 63 of a-z, 0-9, - and _, the first of them a letter or a digit"
)]
pub struct ShopNameError(String);

impl FromStr for ShopName {
    type Err = ShopNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let first_fits = text.bytes().next().is_some_and(plain);
        let all_fit = text
            .bytes()
            .all(|byte| plain(byte) || byte == b'-' || byte == b'_');
        if first_fits && all_fit && text.len() <= 63 {
            Ok(Self(text.to_owned()))
        } else {
            Err(ShopNameError(text.to_owned()))
        }
    }
}

impl TryFrom<String> for ShopName {
    type Error = ShopNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ShopName> for String {
    fn from(name: ShopName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_environment_is_read_back_from_its_name() {
        for environment in Environment::ALL {
            assert_eq!(environment.to_string().parse(), Ok(environment));
        }
        for text in ["", "Production", "prod", " sandbox"] {
            assert!(text.parse::<Environment>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_shop_name_is_what_the_database_accepts_too() {
        let longest = "a".repeat(63);
        for text in ["main", "a", "0", "my-shop_2", longest.as_str()] {
            assert_eq!(text.parse::<ShopName>().unwrap().as_str(), text);
        }
        let too_long = "a".repeat(64);
        for text in [
            "",
            "*",
            "-a",
            "_a",
            "Main",
            "a b",
            "a.b",
            "sklep\u{142}",
            too_long.as_str(),
        ] {
            assert!(text.parse::<ShopName>().is_err(), "{text:?}");
        }
    }
}
