//! `[shops.<name>]`: credentials and habits of each imoje service.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use chrono::TimeDelta;
use url::Url;

use crate::config::reader::{Exposure, Reader};
use crate::config::{ShopConfig, parse};
use crate::domain::fields::validate_return_url;
use crate::domain::shop::{Environment, ReturnUrls, ShopName};

const SECTION: &str = "shops";

/// The name under which the gateway is addressed. The first two, of ING's, are taken to lead to the same accounts: if they did not, no more
/// would be lost than a configuration that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gateway {
    /// The name that it was built under.
    Imoje,
    /// Its name since 2026.
    IngPay,
    /// The same platform, of BNP Paribas.
    Axepta,
}

impl Gateway {
    const ALL: [Gateway; 3] = [Gateway::Imoje, Gateway::IngPay, Gateway::Axepta];

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "imoje" => Ok(Gateway::Imoje),
            "ing_pay" => Ok(Gateway::IngPay),
            "axepta" => Ok(Gateway::Axepta),
            _ => Err(format!(
                "\"{text}\" is not a gateway; allowed are imoje, ing_pay and axepta"
            )),
        }
    }

    /// Where its API is (imoje API, "Environments"; for ING Pay the addresses that clients call since the change of the name;
    /// Axepta API, 8.2, whose documents spell no address of its sandbox). The simulator has no address of its own.
    const fn api_url(self, environment: Environment) -> Option<&'static str> {
        match (self, environment) {
            (Gateway::Imoje, Environment::Production) => Some("https://api.imoje.pl/v1/merchant"),
            (Gateway::Imoje, Environment::Sandbox) => {
                Some("https://sandbox.api.imoje.pl/v1/merchant")
            }
            (Gateway::IngPay, Environment::Production) => {
                Some("https://api.pay.ing.pl/v1/merchant")
            }
            (Gateway::IngPay, Environment::Sandbox) => {
                Some("https://api.sandbox.pay.ing.pl/v1/merchant")
            }
            (Gateway::Axepta, Environment::Production) => Some("https://api.axepta.pl/v1/merchant"),
            (Gateway::Axepta, Environment::Sandbox)
            | (Gateway::Imoje | Gateway::IngPay | Gateway::Axepta, Environment::Simulator) => None,
        }
    }
}

/// The environment that an address is known to belong to.
fn environment_of(url: &Url) -> Option<Environment> {
    let is_host_of = |environment: &Environment| {
        Gateway::ALL
            .iter()
            .filter_map(|gateway| gateway.api_url(*environment))
            .filter_map(|address| Url::parse(address).ok())
            .any(|known| known.host_str() == url.host_str())
    };
    Environment::ALL.into_iter().find(is_host_of)
}

/// Reads all shops. `None` when there is none or one is a mistake.
pub(super) fn read(reader: &mut Reader) -> Option<BTreeMap<ShopName, ShopConfig>> {
    let names = reader.names_below(SECTION);
    if names.is_empty() {
        reader.problem(
            SECTION,
            "there is no shop; add a section [shops.main] with its environment and credentials",
        );
        reader.forget(SECTION);
    }
    let read: Vec<Option<(ShopName, ShopConfig)>> = names
        .into_iter()
        .map(|name| {
            let section = format!("{SECTION}.{name}");
            match name.parse::<ShopName>() {
                Ok(name) => shop(reader, &section).map(|shop| (name, shop)),
                Err(error) => {
                    reader.problem(&section, &error.to_string());
                    reader.forget(&section);
                    None
                }
            }
        })
        .collect();
    let shops: BTreeMap<ShopName, ShopConfig> = read.into_iter().collect::<Option<_>>()?;
    refuse_twins(reader, &shops);
    (!shops.is_empty()).then_some(shops)
}

fn shop(reader: &mut Reader, section: &str) -> Option<ShopConfig> {
    let key = |name: &str| format!("{section}.{name}");
    let environment: Option<Environment> = reader.required(
        &key("environment"),
        "write production, sandbox or simulator",
        |text| text.parse(),
    );
    let gateway = reader.value_or(&key("gateway"), "imoje", Gateway::read);
    let base_url = base_url(reader, &key("base_url"), gateway, environment);
    let exposure = match environment {
        Some(Environment::Production) => Exposure::Mistake,
        Some(Environment::Sandbox | Environment::Simulator) | None => Exposure::Warning,
    };
    let from_panel = "copy it from the imoje panel";
    let merchant_id = reader.required(&key("merchant_id"), from_panel, parse::merchant_id);
    let service_id = reader.required(&key("service_id"), from_panel, parse::service_id);
    let token = reader.required_secret(&key("token"), exposure);
    let service_key = reader.required_secret(&key("service_key"), exposure);
    let previous_service_key = reader.secret(&key("previous_service_key"), exposure);
    let return_urls = return_urls(reader, section);
    let timezone = reader.value_or(&key("timezone"), "Europe/Warsaw", parse::zone);
    let charge_time = reader.value_or(&key("charge_time"), "06:00", parse::time_of_day);
    let spread = reader.value_or(&key("spread"), "0s", |text| {
        parse::duration(text).and_then(|spread| {
            if spread < TimeDelta::days(1) {
                Ok(spread)
            } else {
                Err(format!(
                    "\"{text}\" is too long; the charges of a day are spread over less than a day"
                ))
            }
        })
    });
    let rate_per_second = reader.optional(&key("rate_per_second"), |text| {
        parse::within(NonZeroU32::MIN..=RATE_PER_SECOND_MAX)(text)
    });
    let catch_up = reader.value_or(&key("catch_up"), "one_now", parse::catch_up);
    let max_lateness = reader.value_or(&key("max_lateness"), "7d", parse::positive_duration);
    Some(ShopConfig {
        environment: environment?,
        gateway: gateway?,
        base_url: base_url?,
        merchant_id: merchant_id?,
        service_id: service_id?,
        token: token?,
        service_key: service_key?,
        previous_service_key,
        return_urls,
        timezone: timezone?,
        charge_time: charge_time?,
        spread: spread?,
        rate_per_second,
        catch_up: catch_up?,
        max_lateness: max_lateness?,
    })
}

/// Both addresses that payers are led back to, or neither.
fn return_urls(reader: &mut Reader, section: &str) -> Option<ReturnUrls> {
    let [success, failure] = [
        ("success_return_url", "successReturnUrl"),
        ("failure_return_url", "failureReturnUrl"),
    ]
    .map(|(name, field)| {
        reader.optional(&format!("{section}.{name}"), |text| {
            validate_return_url(field, text).map(|()| text.to_owned())
        })
    });
    for (name, other) in [
        ("success_return_url", "failure_return_url"),
        ("failure_return_url", "success_return_url"),
    ] {
        let [key, other] = [name, other].map(|name| format!("{section}.{name}"));
        if reader.is_set(&other) && !reader.is_set(&key) {
            reader.problem(&key, &format!("is needed as well when {other} is set"));
        }
    }
    Some(ReturnUrls {
        success: success?,
        failure: failure?,
    })
}

/// More than any gateway takes from one merchant; a larger number is a slip of the pen.
const RATE_PER_SECOND_MAX: NonZeroU32 = NonZeroU32::new(10_000).expect("not zero");

fn base_url(
    reader: &mut Reader,
    key: &str,
    gateway: Option<Gateway>,
    environment: Option<Environment>,
) -> Option<Url> {
    let (Some(gateway), Some(environment)) = (gateway, environment) else {
        return reader.optional(key, parse::private_base_url);
    };
    let check =
        |text: &str| parse::private_base_url(text).and_then(|url| of_environment(url, environment));
    match gateway.api_url(environment) {
        Some(default) => reader.value_or(key, default, check),
        None => {
            let advice = match environment {
                Environment::Simulator => {
                    "a simulator has no address of its own; write what `cykl simulator` prints, such as http://127.0.0.1:8080/v1/merchant"
                }
                Environment::Production | Environment::Sandbox => {
                    "the address of this gateway's sandbox is not documented; write what the bank tells you, up to /v1/merchant"
                }
            };
            reader.required(key, advice, check)
        }
    }
}

/// Refuses the address of another environment: a sandbox or a simulator must not move real money by a slip of the pen.
fn of_environment(url: Url, environment: Environment) -> Result<Url, String> {
    match environment_of(&url) {
        Some(other) if other != environment => Err(format!(
            "\"{url}\" is the address of {other}, and the environment is {environment}"
        )),
        Some(_) | None => Ok(url),
    }
}

/// Refuses two names for one imoje service: each would charge without knowing of the other.
fn refuse_twins(reader: &mut Reader, shops: &BTreeMap<ShopName, ShopConfig>) {
    let mut seen = BTreeMap::new();
    for (name, shop) in shops {
        // All addresses of one environment.
        let place: &str = match environment_of(&shop.base_url) {
            Some(environment) => environment.as_str(),
            None => shop.base_url.as_str(),
        };
        let identity = (place, shop.merchant_id.as_str(), shop.service_id);
        if let Some(twin) = seen.insert(identity, name) {
            reader.problem(
                &format!("{SECTION}.{name}.service_id"),
                &format!(
                    "the shop {twin} is the same imoje service; each service may have one name only"
                ),
            );
        }
    }
}
