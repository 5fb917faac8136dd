//! All sections but the shops, and the rules that hold between sections.
//!
//! Every function reads all its keys before it gives up on one, so that all mistakes are found at once.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::path::PathBuf;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;

use crate::config::layers::{Leaves, Process};
use crate::config::reader::{Exposure, Reader};
use crate::config::{
    AlertsConfig, ChargingConfig, ClockConfig, Config, ConfigError, DatabaseConfig, EventsConfig,
    GatewayConfig, JournalConfig, LogConfig, ScheduleConfig, ShopConfig, http, parse, sensitive,
    shops,
};
use crate::domain::decline::DeclineTable;
use crate::domain::history::HistoryPolicy;
use crate::domain::people::ABSENT_AFTER_MIN;
use crate::domain::resolution::{Policy, ResolverPolicy};
use crate::domain::retry::RetryPolicy;
use crate::domain::shop::{Environment, ShopName};
use crate::domain::tick::Tick;
use crate::telemetry;

/// The section that maps imoje's codes to classes.
pub(super) const CLASSES: &str = "retry.classes";

/// The declines of 30 days count for a card's budget, and an attempt is looked into for days before it is final.
const ARCHIVE_AFTER_MIN: TimeDelta = TimeDelta::days(60);

/// A year in half a minute. A faster clock reaches the end of the calendar while one looks on.
const SCALE_MAX: NonZeroU32 = NonZeroU32::new(1_000_000).expect("not zero");

/// Builds the configuration, or says all that is wrong with it.
pub(super) fn build(leaves: Leaves, process: Process) -> Result<Config, ConfigError> {
    let mut reader = Reader::new(leaves, process.credentials_directory);
    let config = read(&mut reader);
    let (settings, warnings) = reader.finish().map_err(ConfigError::Invalid)?;
    let config = config.expect("what cannot be read is noted as a mistake");
    Ok(Config {
        settings,
        warnings,
        ..config
    })
}

/// Reads every section; `None` when a mistake was noted that leaves a hole.
pub(super) fn read(reader: &mut Reader) -> Option<Config> {
    let shops = shops::read(reader);
    let known_shops = shops.as_ref();
    let database = database(reader);
    let gateway = gateway(reader, known_shops);
    let charging = charging(reader);
    let retry = retry(reader);
    let resolver = resolver(reader);
    let schedule = schedule(reader, shared_zone(known_shops));
    let journal = journal(reader, known_shops);
    let history = history(reader, charging.as_ref());
    let http = http::read(reader, only_simulators(known_shops));
    let events = events(reader, known_shops);
    let alerts = AlertsConfig {
        webhook_url: reader.sensitive(
            "alerts.webhook_url",
            sensitive::hook_url,
            ToString::to_string,
        ),
    };
    let log = log(reader);
    let clock = clock(reader, known_shops);
    let (resolver, absent_after) = resolver?;
    Some(Config {
        database: database?,
        shops: shops?,
        gateway,
        charging: charging?,
        policy: Policy {
            retry: retry?,
            resolver,
        },
        absent_after,
        schedule: schedule?,
        journal: journal?,
        history: history?,
        http: http?,
        events,
        alerts,
        log: log?,
        clock: clock?,
        settings: Vec::new(),
        warnings: Vec::new(),
    })
}

fn is_production(shop: &ShopConfig) -> bool {
    shop.environment == Environment::Production
}

type Shops<'a> = Option<&'a BTreeMap<ShopName, ShopConfig>>;

/// Whether no real gateway is involved. While the shops are mistakes themselves, nothing is said about them.
fn only_simulators(shops: Shops) -> bool {
    shops.is_none_or(|shops| {
        shops
            .values()
            .all(|shop| shop.environment == Environment::Simulator)
    })
}

/// The zone that all shops share, else UTC.
fn shared_zone(shops: Shops) -> Tz {
    let zones: Vec<Tz> = shops
        .into_iter()
        .flatten()
        .map(|(_, shop)| shop.timezone)
        .collect();
    match zones.split_first() {
        Some((first, others)) if others.iter().all(|zone| zone == first) => *first,
        Some(_) | None => Tz::UTC,
    }
}

fn database(reader: &mut Reader) -> Option<DatabaseConfig> {
    if !reader.is_set("database.url") {
        reader.problem(
            "database.url",
            "write a PostgreSQL URL such as postgresql://cykl@localhost/cykl?host=/run/postgresql, or \"embedded\"",
        );
    }
    let url = reader.sensitive("database.url", sensitive::database_url, ToString::to_string);
    let data_dir = reader.value("database.data_dir", absolute_path);
    let max_connections = reader.value("database.max_connections", parse::within(2..=1_000));
    let migrate = reader.value("database.migrate", parse::boolean);
    Some(DatabaseConfig {
        url: url?,
        data_dir: data_dir?,
        max_connections: max_connections?,
        migrate: migrate?,
    })
}

fn gateway(reader: &mut Reader, shops: Shops) -> GatewayConfig {
    let card_proxy_url = reader.optional("gateway.card_proxy_url", parse::private_base_url);
    let environments: BTreeSet<Environment> = shops
        .into_iter()
        .flatten()
        .map(|(_, shop)| shop.environment)
        .collect();
    if card_proxy_url.is_some() && environments.len() > 1 {
        reader.problem(
            "gateway.card_proxy_url",
            "is for all shops, and they are of different environments; a proxy stands in front of one of them",
        );
    }
    GatewayConfig { card_proxy_url }
}

fn charging(reader: &mut Reader) -> Option<ChargingConfig> {
    let in_flight_max = reader.value("charging.in_flight_max", parse::within(1..=10_000));
    let claim_ahead = reader.value("charging.claim_ahead", parse::within(0..=10_000));
    let in_doubt_max = reader.value("charging.in_doubt_max", parse::within(1..=10_000));
    let request_timeout = reader.value("charging.request_timeout", parse::timeout);
    let connect_timeout = reader.value("charging.connect_timeout", parse::timeout);
    let min_gap = reader.value("charging.min_gap", parse::positive_duration);
    let clock_gap_max = reader.value("charging.clock_gap_max", parse::positive_duration);
    // The card schemes' ceiling of 15 attempts is not a matter of configuration.
    let card_budget_30d = reader.value("charging.card_budget_30d", parse::within(1..=15));
    let card_budget_24h = reader.value("charging.card_budget_24h", parse::within(1..=15));
    if let (Some(connect), Some(request)) = (connect_timeout, request_timeout)
        && connect > request
    {
        reader.problem(
            "charging.connect_timeout",
            "is longer than charging.request_timeout, which includes it",
        );
    }
    Some(ChargingConfig {
        in_flight_max: in_flight_max?,
        claim_ahead: claim_ahead?,
        in_doubt_max: in_doubt_max?,
        request_timeout: request_timeout?,
        connect_timeout: connect_timeout?,
        min_gap: min_gap?,
        clock_gap_max: clock_gap_max?,
        card_budget_30d: card_budget_30d?,
        card_budget_24h: card_budget_24h?,
    })
}

fn retry(reader: &mut Reader) -> Option<RetryPolicy> {
    let days = reader.list("retry.days", parse::within(1..=30u16));
    if days
        .as_ref()
        .is_some_and(|days| !days.is_sorted_by(|day, next| day < next))
    {
        reader.problem("retry.days", "must increase, such as 1, 3, 7, 14");
    }
    let unknown_code_tries = reader.value("retry.unknown_code_tries", parse::within(1..=15));
    let mut classes = BTreeMap::new();
    for code in reader.names_below(CLASSES) {
        let key = format!("{CLASSES}.{code}");
        if !is_code(&code) {
            reader.problem(
                &key,
                "is not a code of imoje's, such as CODE_51; write it in capitals",
            );
            reader.forget(&key);
        } else if let Some(class) = reader.optional(&key, parse::decline_class) {
            classes.insert(code, class);
        }
    }
    Some(RetryPolicy {
        days: days?,
        unknown_code_tries: unknown_code_tries?,
        classes: DeclineTable::new(classes),
    })
}

/// Up to 24 characters (imoje API, notifications, field `statusCode`), capitals in all that are published.
fn is_code(text: &str) -> bool {
    let fits = |byte: u8| {
        byte.is_ascii_uppercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-')
    };
    (1..=24).contains(&text.len()) && text.bytes().all(fits)
}

fn resolver(reader: &mut Reader) -> Option<(ResolverPolicy, TimeDelta)> {
    let poll = reader.list("resolver.poll", parse::positive_duration);
    if poll.as_ref().is_some_and(Vec::is_empty) {
        reader.problem(
            "resolver.poll",
            "is empty; write at least one wait, such as 60s",
        );
    }
    let answer_window = reader.value("resolver.answer_window", parse::positive_duration);
    let absent_after = reader.value("resolver.absent_after", parse::positive_duration);
    let write_off_after = reader.value("resolver.write_off_after", parse::positive_duration);
    if absent_after.is_some_and(|absent| absent < ABSENT_AFTER_MIN) {
        reader.problem(
            "resolver.absent_after",
            "is too short; imoje repeats notices for 95h 25m, and the database takes no declaration before 100h",
        );
    }
    if let (Some(window), Some(write_off)) = (answer_window, write_off_after)
        && window >= write_off
    {
        reader.problem(
            "resolver.answer_window",
            "must be shorter than resolver.write_off_after, or nobody gets to decide",
        );
    }
    let policy = ResolverPolicy {
        poll: poll?,
        answer_window: answer_window?,
        write_off_after: write_off_after?,
    };
    Some((policy, absent_after?))
}

fn schedule(reader: &mut Reader, zone: Tz) -> Option<ScheduleConfig> {
    let mut tick = |key: &str| reader.value(key, |text| Tick::new(text, zone));
    let scheduler = tick("schedule.scheduler");
    let charger = tick("schedule.charger");
    let resolver = tick("schedule.resolver");
    let notifier = tick("schedule.notifier");
    let caretaker = tick("schedule.caretaker");
    Some(ScheduleConfig {
        scheduler: scheduler?,
        charger: charger?,
        resolver: resolver?,
        notifier: notifier?,
        caretaker: caretaker?,
    })
}

fn journal(reader: &mut Reader, shops: Shops) -> Option<JournalConfig> {
    let dir = reader.optional("journal.dir", absolute_path);
    let keep = reader.value("journal.keep", parse::positive_duration);
    if keep.is_some_and(|keep| keep < TimeDelta::days(2)) {
        reader.problem(
            "journal.keep",
            "is too short; it has to outlast the oldest backup that may be restored, so write at least 2d",
        );
    }
    if !reader.is_set("journal.dir") && shops.is_some_and(|shops| shops.values().any(is_production))
    {
        reader.warn(
            "journal.dir",
            "is not set, so nothing tells what a restored database has forgotten; write a folder on another disk than the database's",
        );
    }
    Some(JournalConfig { dir, keep: keep? })
}

fn absolute_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(format!("\"{text}\" is not an absolute path"))
    }
}

fn history(reader: &mut Reader, charging: Option<&ChargingConfig>) -> Option<HistoryPolicy> {
    let archive_after = reader.value("history.archive_after", parse::duration);
    let keep_years = reader.optional("history.keep_years", parse::within(1..=100));
    if archive_after.is_some_and(|after| after < ARCHIVE_AFTER_MIN) {
        reader.problem(
            "history.archive_after",
            "is too short; cards' budgets look back 30 days and people may decide until resolver.write_off_after, so write at least 60d",
        );
    }
    if let (Some(after), Some(charging)) = (archive_after, charging)
        && after <= charging.min_gap
    {
        reader.problem(
            "history.archive_after",
            "must be longer than charging.min_gap, or the attempt that another must keep away from is not seen any more",
        );
    }
    Some(HistoryPolicy {
        archive_after: archive_after?,
        keep_years,
    })
}

fn events(reader: &mut Reader, shops: Shops) -> EventsConfig {
    let exposure = match shops {
        Some(shops) if shops.values().any(is_production) => Exposure::Mistake,
        Some(_) | None => Exposure::Warning,
    };
    let webhook_url = reader.sensitive(
        "events.webhook_url",
        sensitive::hook_url,
        ToString::to_string,
    );
    let webhook_secret = reader.secret("events.webhook_secret", exposure);
    if webhook_url.is_some()
        && !reader.is_set("events.webhook_secret")
        && !reader.is_set("events.webhook_secret_file")
    {
        reader.problem(
            "events.webhook_secret",
            "events.webhook_url needs a secret to sign with; set it, or events.webhook_secret_file",
        );
    }
    EventsConfig {
        webhook_url,
        webhook_secret,
    }
}

fn log(reader: &mut Reader) -> Option<LogConfig> {
    let format = reader.value("log.format", |text| text.parse());
    let filter = reader.value("log.filter", |text| match telemetry::check_filter(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(error) => Err(format!(
            "\"{text}\" is not a list of log directives: {error}"
        )),
    });
    Some(LogConfig {
        format: format?,
        filter: filter?,
    })
}

fn clock(reader: &mut Reader, shops: Shops) -> Option<ClockConfig> {
    let scaled = reader.value("clock.kind", |text| match text {
        "system" => Ok(false),
        "scaled" => Ok(true),
        _ => Err(format!(
            "\"{text}\" is not a clock; allowed are system and scaled"
        )),
    });
    let start = reader.optional("clock.start", |text| {
        DateTime::parse_from_rfc3339(text)
            .map(|start| start.with_timezone(&Utc))
            .map_err(|_| {
                format!("\"{text}\" is not a time; write for example 2026-01-01T00:00:00Z")
            })
    });
    let scale = reader.optional("clock.scale", |text| {
        parse::within(NonZeroU32::MIN..=SCALE_MAX)(text)
    });
    if !scaled? {
        for key in ["clock.start", "clock.scale"] {
            if reader.is_set(key) {
                reader.problem(key, "is for clock.kind = \"scaled\" only; remove it");
            }
        }
        return Some(ClockConfig::System);
    }
    if !only_simulators(shops) {
        reader.problem(
            "clock.kind",
            "a scaled clock is refused unless every shop is a simulator",
        );
    }
    for key in ["clock.start", "clock.scale"] {
        if !reader.is_set(key) {
            reader.problem(key, "is needed when clock.kind is \"scaled\"");
        }
    }
    Some(ClockConfig::Scaled {
        start: start?,
        scale: scale?,
    })
}
