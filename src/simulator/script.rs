//! A script: which call meets which behaviour.
//!
//! Rules are asked in the order in which they stand or were added; the first that matches decides. A script can be read
//! from TOML (`config/simulator.example.toml` shows everything), and unknown keys are errors.

use std::path::Path;

use config::{Config, ConfigError, File, FileFormat};
use serde::Deserialize;
use uuid::Uuid;

use super::{behaviour::Behaviour, currency::Currency, profile::SimulatedProfile};

/// What the simulator does.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Script {
    /// Debit and show any profile whose id is a UUID v4, whether it was registered or not. Default: yes.
    pub accept_unknown_profiles: bool,
    /// What debits do when no rule and no profile says otherwise. `[default]` in a file.
    #[serde(rename = "default")]
    pub behaviour: Behaviour,
    /// What the recurring channel takes.
    pub channel: Channel,
    /// Whether shops may send card data.
    pub card_data: CardData,
    /// What becomes of a card with which a payment link is paid.
    pub registration: Registration,
    /// What becomes of a debit under an order id that has a transaction already.
    pub repeated_orders: RepeatedOrders,
    /// `[[rule]]` in a file.
    #[serde(rename = "rule")]
    pub rules: Vec<Rule>,
    /// `[[profile]]` in a file.
    #[serde(rename = "profile")]
    pub profiles: Vec<SimulatedProfile>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            accept_unknown_profiles: true,
            behaviour: Behaviour::default(),
            channel: Channel::default(),
            card_data: CardData::default(),
            registration: Registration::default(),
            repeated_orders: RepeatedOrders::default(),
            rules: Vec::new(),
            profiles: Vec::new(),
        }
    }
}

/// The channel for recurring debits, of every shop: what `GET service` tells, and what debits are held to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Channel {
    /// The currencies in which it is open; all unless given.
    pub currencies: Vec<Currency>,
    /// The least amount, in minor units.
    pub min: u32,
    /// The largest amount, in minor units.
    pub max: u32,
}

impl Default for Channel {
    fn default() -> Self {
        Self {
            currencies: Currency::ALL.to_vec(),
            min: 1,
            max: 999_999_999,
        }
    }
}

impl Channel {
    pub(super) fn takes(&self, amount_minor: u32, currency: Currency) -> bool {
        self.currencies.contains(&currency) && (self.min..=self.max).contains(&amount_minor)
    }
}

/// What `POST transaction` does with `card`. imoje's documents leave open what a `STANDARD` debit needs, so both readings can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CardData {
    /// Whether shops may send it at all: imoje asks for a PCI DSS certificate first.
    pub allowed: bool,
    /// Whether a `STANDARD` debit needs all of the card but the security code, and not `firstTransactionId` alone.
    pub standard_needs_all: bool,
    /// Whether it takes any text for a number and a security code, as if a tokenising proxy stood before it.
    pub knows_aliases: bool,
    /// Whether `firstTransactionId` is a member of the profile alone, and no read of the transaction shows it.
    pub first_on_profile_only: bool,
}

impl Default for CardData {
    fn default() -> Self {
        Self {
            allowed: true,
            standard_needs_all: false,
            knows_aliases: false,
            first_on_profile_only: false,
        }
    }
}

/// What becomes of a card with which a payment link for recurring debits is paid. imoje's documents show no such link from its beginning to
/// its end, so what they leave open can be had either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Registration {
    /// Whether imoje makes a profile of it.
    pub creates_profile: bool,
    /// Whether a link that was paid can be paid once more.
    pub pays_again: bool,
}

impl Default for Registration {
    fn default() -> Self {
        Self {
            creates_profile: true,
            pays_again: false,
        }
    }
}

/// What becomes of a debit under an order id that has a transaction of the shop already, whatever came of that one. imoje's documents do
/// not say, so either finding of an experiment in its sandbox can be had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RepeatedOrders {
    /// It is a debit like any other.
    #[default]
    Book,
    /// It is refused: HTTP 422, with a code of the simulator's own.
    Refuse,
}

/// A script could not be read.
#[derive(Debug, thiserror::Error)]
#[error("couldn't read the simulator's script {name}")]
pub struct ScriptError {
    name: String,
    source: Box<ConfigError>,
}

impl Script {
    /// A script in which every debit does this.
    pub fn always(behaviour: Behaviour) -> Self {
        Self {
            behaviour,
            ..Self::default()
        }
    }

    /// Reads a script in TOML.
    pub fn parse(toml: &str) -> Result<Self, ScriptError> {
        Self::from_source("given as text", File::from_str(toml, FileFormat::Toml))
    }

    /// Reads a script from a TOML file.
    pub fn read(path: &Path) -> Result<Self, ScriptError> {
        Self::from_source(
            &path.display().to_string(),
            File::from(path).format(FileFormat::Toml),
        )
    }

    fn from_source(
        name: &str,
        source: impl config::Source + Send + Sync + 'static,
    ) -> Result<Self, ScriptError> {
        Config::builder()
            .add_source(source)
            .build()
            .and_then(Config::try_deserialize)
            .map_err(|source| ScriptError {
                name: name.to_owned(),
                source: Box::new(source),
            })
    }
}

/// When this, then that.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Which calls it concerns; without it, every debit.
    #[serde(default)]
    pub when: When,
    /// After so many uses the rule no longer matches.
    #[serde(default)]
    pub times: Option<u32>,
    /// The share of matching calls it decides; drawn from the seed and the order id, so a run can be repeated.
    #[serde(default)]
    pub percent: Option<Percent>,
    /// What happens.
    pub then: Behaviour,
}

/// Which calls a rule concerns. All conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct When {
    /// The kind of call; `debit` if left out.
    pub call: Call,
    /// Only calls about this profile.
    pub payment_profile_id: Option<Uuid>,
    /// Only calls about this share of profiles: the same ones each time.
    pub percent_of_profiles: Option<Percent>,
    /// Only calls about an order whose id contains this.
    pub order_id_contains: Option<String>,
    /// Only the nth call, counted from 1, for which all other conditions hold.
    pub nth: Option<u32>,
}

/// A kind of call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// `POST transaction/profile`
    #[default]
    Debit,
    /// `GET transaction/{id}`
    Transaction,
    /// `GET profile/id/{id}` and `GET profile/cid/{cid}`
    Profile,
    /// `POST profile/deactivate` and `DELETE profile/id/{id}`
    Deactivate,
    /// `POST payment`
    Link,
    /// `GET payment/{id}`
    Payment,
    /// `POST payment/cancel`
    CancelPayment,
    /// A payer who pays by a link.
    Payer,
    /// `POST transaction/{id}/refund`
    Refund,
    /// `POST transaction/{id}/can-refund`
    CanRefund,
    /// `GET service/{id}`
    Service,
    /// All of them; only meaningful in a rule.
    Any,
}

impl Call {
    /// Whether a rule for `self` concerns `call`.
    pub(super) fn covers(self, call: Call) -> bool {
        self == Call::Any || self == call
    }
}

/// A whole number from 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "u8")]
pub struct Percent(u8);

impl Percent {
    /// This many percent; more than 100 is 100.
    pub fn of(percent: u8) -> Self {
        Self(percent.min(100))
    }

    /// Whether a number drawn evenly from 0 to 99 falls into this share.
    pub(super) fn includes(self, drawn: u64) -> bool {
        drawn < u64::from(self.0)
    }
}

impl TryFrom<u8> for Percent {
    type Error = String;

    fn try_from(percent: u8) -> Result<Self, String> {
        if percent > 100 {
            return Err(format!("{percent} is more than 100 percent"));
        }
        Ok(Self(percent))
    }
}

impl Rule {
    /// Decides every debit.
    pub fn debits(then: Behaviour) -> Self {
        Self {
            when: When::default(),
            times: None,
            percent: None,
            then,
        }
    }

    /// Decides every `GET transaction/{id}`.
    pub fn reads(then: Behaviour) -> Self {
        Self::debits(then).on(Call::Transaction)
    }

    /// Decides every call of any kind.
    pub fn every_call(then: Behaviour) -> Self {
        Self::debits(then).on(Call::Any)
    }

    /// The same rule for calls of another kind.
    pub fn on(mut self, call: Call) -> Self {
        self.when.call = call;
        self
    }

    /// The same rule for one profile.
    pub fn of_profile(mut self, payment_profile_id: Uuid) -> Self {
        self.when.payment_profile_id = Some(payment_profile_id);
        self
    }

    /// The same rule for a fixed share of profiles.
    pub fn of_percent_of_profiles(mut self, percent: u8) -> Self {
        self.when.percent_of_profiles = Some(Percent::of(percent));
        self
    }

    /// The same rule for orders whose id contains `part`.
    pub fn of_order(mut self, part: &str) -> Self {
        self.when.order_id_contains = Some(part.to_owned());
        self
    }

    /// The same rule for the nth matching call only, counted from 1.
    pub fn nth(mut self, nth: u32) -> Self {
        self.when.nth = Some(nth);
        self
    }

    /// The same rule for at most so many calls.
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// The same rule for one matching call in so many hundred.
    pub fn percent(mut self, percent: u8) -> Self {
        self.percent = Some(Percent::of(percent));
        self
    }
}

#[cfg(test)]
mod tests {
    use std::{error::Error, time::Duration};

    use super::*;
    use crate::simulator::behaviour::{Answer, ErrorBody, Fate};

    #[test]
    fn the_example_file_parses() {
        let script = Script::read(Path::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/config/simulator.example.toml"
        )));
        let script = script.unwrap();
        assert!(
            script.rules.len() >= 20,
            "the example shows every behaviour"
        );
        assert!(!script.profiles.is_empty());
    }

    #[test]
    fn a_rule_is_read_as_it_is_written() {
        let script = Script::parse(
            r#"
            [default]
            fate = { settle_after = "3s" }
            [[rule]]
            when = { call = "transaction", order_id_contains = "-a1", nth = 2 }
            times = 3
            percent = 10
            then = { answer = { error = { status = 503, body = "html", booked = true } } }
            "#,
        )
        .unwrap();
        assert_eq!(
            script.behaviour.fate,
            Some(Fate::SettleAfter(Duration::from_secs(3)))
        );
        let then = Behaviour::error(
            axum::http::StatusCode::SERVICE_UNAVAILABLE,
            ErrorBody::Html,
            true,
        );
        assert_eq!(
            script.rules,
            [Rule::reads(then)
                .of_order("-a1")
                .nth(2)
                .times(3)
                .percent(10)]
        );
        assert!(script.accept_unknown_profiles);
    }

    #[test]
    fn unit_behaviours_are_plain_words() {
        let script =
            Script::parse("[default]\nfate = 'pending_for_ever'\nanswer = 'normal'").unwrap();
        assert_eq!(script.behaviour.fate, Some(Fate::PendingForEver));
        assert_eq!(script.behaviour.answer, Some(Answer::Normal));
    }

    #[test]
    fn mistakes_in_a_script_are_refused() {
        for (wrong, named) in [
            ("[default]\nfat = 'settle_at_once'", "fat"),
            ("[[rule]]\nthen = {}\nwhne = {}", "whne"),
            ("[[rule]]\npercent = 101\nthen = {}", "101"),
            ("[default]\nfate = { settle_after = 'soon' }", "soon"),
            ("[default]\nanswer = { error = { status = 99 } }", "99"),
            (
                "[default]\nanswer = { error = { status = 500, boked = true } }",
                "boked",
            ),
            ("[default]\nanswer = 'explode'", "explode"),
        ] {
            let error = Script::parse(wrong).unwrap_err();
            let cause = error.source().unwrap().to_string();
            assert!(cause.contains(named), "`{cause}` names `{named}`");
        }
    }
}
