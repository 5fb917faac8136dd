//! What the operator has decided: read once at start, checked as a whole, and turned into the types that the rest works with.
//!
//! Three layers, later wins: `config/default.toml`, compiled in; the file given on the command line, or [`DEFAULT_FILE`] when
//! it exists; the environment, with `CYKL__SECTION__KEY` for `section.key`. All mistakes are reported at once, each with its
//! key and where it was written. A key that nobody reads is a mistake too. Secrets appear in no error, no log line and no
//! `Debug` output. Nothing here talks to the network or the database.

mod http;
mod layers;
mod parse;
mod reader;
mod sections;
mod sensitive;
mod shops;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::HeaderName;
use chrono::{DateTime, NaiveTime, TimeDelta, Utc};
use chrono_tz::Tz;
use ipnet::IpNet;
use secrecy::SecretString;
use url::Url;
use uuid::Uuid;

use crate::config::layers::Process;
pub use crate::config::reader::{Problem, Setting};
pub use crate::config::sensitive::{DatabaseUrl, HookUrl};
pub use crate::config::shops::Gateway;
use crate::domain::history::HistoryPolicy;
use crate::domain::resolution::Policy;
use crate::domain::schedule::CatchUp;
use crate::domain::shop::{Environment, ReturnUrls, ShopName};
use crate::domain::tick::Tick;
use crate::telemetry::LogFormat;

/// The file that is read when none is given and it exists.
pub const DEFAULT_FILE: &str = "/etc/cykl/cykl.toml";

/// The whole configuration, valid.
#[derive(Debug, Clone)]
pub struct Config {
    /// `[database]`
    pub database: DatabaseConfig,
    /// `[shops.<name>]`; at least one.
    pub shops: BTreeMap<ShopName, ShopConfig>,
    /// `[gateway]`
    pub gateway: GatewayConfig,
    /// `[charging]`
    pub charging: ChargingConfig,
    /// `[retry]` and the waits of `[resolver]`.
    pub policy: Policy,
    /// `resolver.absent_after`: how long after its permit people may declare an attempt absent.
    pub absent_after: TimeDelta,
    /// `[schedule]`
    pub schedule: ScheduleConfig,
    /// `[journal]`
    pub journal: JournalConfig,
    /// `[history]`
    pub history: HistoryPolicy,
    /// `[http]`
    pub http: HttpConfig,
    /// `[events]`
    pub events: EventsConfig,
    /// `[alerts]`
    pub alerts: AlertsConfig,
    /// `[log]`
    pub log: LogConfig,
    /// `[clock]`
    pub clock: ClockConfig,
    settings: Vec<Setting>,
    warnings: Vec<Problem>,
}

/// `[database]`
#[derive(Debug, Clone)]
pub struct DatabaseConfig {
    /// The server to connect to, or that Cykl starts its own.
    pub url: DatabaseUrl,
    /// Where the embedded cluster lives.
    pub data_dir: PathBuf,
    /// Size of the connection pool.
    pub max_connections: u32,
    /// Whether `cykl run` applies migrations first.
    pub migrate: bool,
}

/// `[shops.<name>]`: one imoje service.
#[derive(Debug, Clone)]
pub struct ShopConfig {
    /// Whether real money moves.
    pub environment: Environment,
    /// Under which name the gateway is addressed.
    pub gateway: Gateway,
    /// The API up to and including `/v1/merchant`, without a slash at the end: that of the gateway's environment unless
    /// overridden.
    pub base_url: Url,
    /// The path segment after `base_url`.
    pub merchant_id: String,
    /// imoje's id of the shop.
    pub service_id: Uuid,
    /// Bearer token of the API.
    pub token: SecretString,
    /// Signs the notices.
    pub service_key: SecretString,
    /// Signed them before it was changed, and is believed as well for as long as it is here.
    pub previous_service_key: Option<SecretString>,
    /// The zone of due dates, unless a subscription has its own.
    pub timezone: Tz,
    /// Where payers are led back to. imoje wants these for debits of cards without a profile.
    pub return_urls: Option<ReturnUrls>,
    /// Local time of day at which charges fall due.
    pub charge_time: NaiveTime,
    /// The charges of a day are spread over this long; less than a day.
    pub spread: TimeDelta,
    /// How many debits may be sent per second; no limit when `None`.
    pub rate_per_second: Option<NonZeroU32>,
    /// What to do about periods missed while nobody ran.
    pub catch_up: CatchUp,
    /// How late a charge may be without a person's approval.
    pub max_lateness: TimeDelta,
}

/// `[gateway]`
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// A tokenising proxy that stands in front of the API of all shops, and puts card data in the place of aliases; without a slash at
    /// the end.
    pub card_proxy_url: Option<Url>,
}

/// `[charging]`
#[derive(Debug, Clone)]
pub struct ChargingConfig {
    /// Debits on their way at once.
    pub in_flight_max: u32,
    /// Permits committed ahead of their turn to be sent.
    pub claim_ahead: u32,
    /// Attempts in doubt past their deadline at which permits stop.
    pub in_doubt_max: u32,
    /// Real time for a whole request.
    pub request_timeout: Duration,
    /// Real time for connecting; at most `request_timeout`.
    pub connect_timeout: Duration,
    /// Between two attempts of one subscription.
    pub min_gap: TimeDelta,
    /// How far the clocks of this machine, the database and imoje may be apart.
    pub clock_gap_max: TimeDelta,
    /// Declined attempts per card in 30 days; at most 15, the card schemes' ceiling.
    pub card_budget_30d: u16,
    /// Retries per card in 24 hours.
    pub card_budget_24h: u16,
}

/// `[schedule]`: when each worker looks for work, in the zone that all shops share, or in UTC when they do not share one.
#[derive(Debug, Clone)]
pub struct ScheduleConfig {
    /// Subscriptions that are due get their charge.
    pub scheduler: Tick,
    /// Charges that are due are sent.
    pub charger: Tick,
    /// Open outcomes are looked up.
    pub resolver: Tick,
    /// Events and alerts are delivered.
    pub notifier: Tick,
    /// What is over is archived.
    pub caretaker: Tick,
}

/// `[journal]`: the permit journal beside the database.
#[derive(Debug, Clone)]
pub struct JournalConfig {
    /// Where its files are; there is no journal when `None`.
    pub dir: Option<PathBuf>,
    /// How long they are kept.
    pub keep: TimeDelta,
}

/// `[http]`
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// How imoje reaches us: https without a port, no query, no slash at the end. Anything for simulators.
    pub public_url: Option<Url>,
    /// The header in which the proxy in front says whom it speaks for.
    pub proxy_header: Option<HeaderName>,
    /// The networks that may send notices; all of them when empty. Never without `proxy_header`.
    pub notice_networks: Vec<IpNet>,
    /// How long the body of a notice may take.
    pub notice_timeout: Duration,
    /// How many wrong notices of one sender are looked at in a minute.
    pub failed_notices_max: NonZeroU32,
}

/// `[events]`: what the shop's own system hears.
#[derive(Debug, Clone)]
pub struct EventsConfig {
    /// Where to deliver. Never without a secret.
    pub webhook_url: Option<HookUrl>,
    /// Signs what is delivered.
    pub webhook_secret: Option<SecretString>,
}

/// `[alerts]`: what operators hear.
#[derive(Debug, Clone)]
pub struct AlertsConfig {
    /// A chat channel.
    pub webhook_url: Option<HookUrl>,
}

/// `[log]`
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// How lines look.
    pub format: LogFormat,
    /// `tracing` directives, already checked.
    pub filter: String,
}

/// `[clock]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockConfig {
    /// The system's.
    System,
    /// Another time at another speed; only when every shop is a simulator.
    Scaled {
        /// What it shows at first.
        start: DateTime<Utc>,
        /// Seconds of Cykl's time per real second.
        scale: NonZeroU32,
    },
}

/// Why there is no usable configuration. Whatever the variant, a person has to change something (exit code 78).
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there or not readable.
    #[error("couldn't read the configuration file {path}")]
    File {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML. The reason names the line and quotes nothing of it.
    #[error("couldn't understand {origin}: {reason}")]
    Syntax {
        /// Which file.
        origin: String,
        /// What is wrong and where.
        reason: String,
    },
    /// A variable whose value is not text.
    #[error("couldn't read the environment variable {0}: its value is not UTF-8")]
    Variable(String),
    /// Everything that is wrong with what was read.
    #[error("the configuration has mistakes:{}", listed(.0))]
    Invalid(Vec<Problem>),
}

fn listed(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(|problem| format!("\n  {problem}"))
        .collect()
}

impl Config {
    /// Reads all layers: the built-in defaults, `explicit` or else [`DEFAULT_FILE`] when it exists, and the environment.
    ///
    /// # Errors
    /// [`ConfigError`]; when the layers can be read, with all mistakes at once.
    pub fn load(explicit: Option<&Path>) -> Result<Self, ConfigError> {
        let file = match explicit {
            Some(path) => Some(layers::read_file(path)?),
            None => layers::read_file_if_present(Path::new(DEFAULT_FILE))?,
        };
        let process = Process::current()?;
        sections::build(layers::merge(file, &process)?, process)
    }

    /// The built-in defaults overridden by `text` alone, without a file or the environment: for demonstrations and tests.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let process = Process::default();
        let file = layers::File::inline(text);
        sections::build(layers::merge(Some(file), &process)?, process)
    }

    /// Every setting in force with where it came from, sorted by key; secrets as `[redacted]`.
    pub fn describe(&self) -> &[Setting] {
        &self.settings
    }

    /// What is allowed and unwise, to be logged once at start.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }
}

#[cfg(test)]
mod tests;
