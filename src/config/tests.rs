use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use secrecy::ExposeSecret;

use super::layers::{DEFAULTS, File};
use super::reader::Reader;
use super::*;
use crate::domain::decline::{Decline, DeclineClass};

/// The keys that operators rely on: none of them may be renamed or go away.
const CONTRACT: [&str; 53] = [
    "database.url",
    "database.data_dir",
    "database.max_connections",
    "database.migrate",
    "shops.main.environment",
    "shops.main.gateway",
    "shops.main.base_url",
    "shops.main.merchant_id",
    "shops.main.service_id",
    "shops.main.token",
    "shops.main.token_file",
    "shops.main.service_key",
    "shops.main.service_key_file",
    "shops.main.previous_service_key",
    "shops.main.previous_service_key_file",
    "shops.main.success_return_url",
    "shops.main.failure_return_url",
    "shops.main.timezone",
    "shops.main.charge_time",
    "shops.main.spread",
    "shops.main.rate_per_second",
    "shops.main.catch_up",
    "shops.main.max_lateness",
    "gateway.card_proxy_url",
    "charging.in_flight_max",
    "charging.in_doubt_max",
    "charging.request_timeout",
    "charging.connect_timeout",
    "charging.min_gap",
    "charging.card_budget_30d",
    "charging.card_budget_24h",
    "retry.days",
    "resolver.poll",
    "resolver.answer_window",
    "resolver.absent_after",
    "resolver.write_off_after",
    "schedule.scheduler",
    "schedule.charger",
    "schedule.resolver",
    "schedule.notifier",
    "schedule.caretaker",
    "http.listen",
    "http.public_url",
    "http.proxy_header",
    "http.notice_networks",
    "http.notice_timeout",
    "http.failed_notices_max",
    "alerts.webhook_url",
    "events.webhook_url",
    "events.webhook_secret",
    "clock.kind",
    "clock.start",
    "clock.scale",
];

const DATABASE: &str = "database.url = \"embedded\"\n";

const SHOP: &str = "[shops.main]\n\
    environment = \"sandbox\"\n\
    merchant_id = \"00123\"\n\
    service_id = \"2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b\"\n\
    token = \"hunter2-token\"\n\
    service_key = \"hunter2-key\"\n";

const SIMULATOR: &str = "[shops.main]\n\
    environment = \"simulator\"\n\
    base_url = \"http://127.0.0.1:8080/v1/merchant/\"\n\
    merchant_id = \"simmerchant000000001\"\n\
    service_id = \"2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b\"\n\
    token = \"hunter2-token\"\n\
    service_key = \"hunter2-key\"\n";

fn sandbox(extra: &str) -> String {
    format!("{DATABASE}{SHOP}{extra}")
}

fn simulator(extra: &str) -> String {
    format!("{DATABASE}{SIMULATOR}{extra}")
}

fn process(variables: &[(&str, &str)]) -> Process {
    Process {
        variables: variables
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect(),
        credentials_directory: None,
    }
}

fn build(text: &str, process: Process) -> Result<Config, ConfigError> {
    sections::build(layers::merge(Some(File::inline(text)), &process)?, process)
}

fn problems(text: &str, process: Process) -> Vec<Problem> {
    match build(text, process) {
        Err(ConfigError::Invalid(problems)) => problems,
        Err(error) => panic!("{error}"),
        Ok(_) => Vec::new(),
    }
}

fn keys(problems: &[Problem]) -> Vec<&str> {
    problems
        .iter()
        .map(|problem| problem.key.as_str())
        .collect()
}

/// The keys that `config/default.toml` explains, with or without a value.
fn explained() -> BTreeSet<String> {
    let mut section = String::new();
    let mut keys = BTreeSet::new();
    for line in DEFAULTS.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            section = name.to_owned();
        } else if let Some((key, _)) = line.split_once(" = ")
            && key
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        {
            keys.insert(format!("{section}.{key}"));
        }
    }
    keys
}

#[test]
fn what_default_toml_explains_is_what_is_read_and_holds_the_contract() {
    let leaves = layers::merge(Some(File::inline(&sandbox(""))), &Process::default()).unwrap();
    let mut reader = Reader::new(leaves, None);
    sections::read(&mut reader).unwrap();
    assert_eq!(*reader.asked(), explained());
    for key in CONTRACT {
        assert!(reader.asked().contains(key), "{key}");
    }
}

#[test]
fn every_file_in_config_parses() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        // What is left for the operator, and nothing else.
        let left: &[&str] = match path.file_name().unwrap().to_str().unwrap() {
            "default.toml" => &["database.url", "shops"],
            "production.example.toml" => &[
                "shops.main.service_id",
                "shops.main.service_key_file",
                "shops.main.token_file",
            ],
            // Scripts for the simulator and subscriptions to import, which have tests of their own.
            "simulator.example.toml" | "demo" => continue,
            other => panic!("say here what {other} leaves to the operator"),
        };
        let file = layers::read_file(&path).unwrap();
        let leaves = layers::merge(Some(file), &Process::default()).unwrap();
        let Err(ConfigError::Invalid(problems)) = sections::build(leaves, Process::default())
        else {
            panic!("{} is a sample and lacks secrets", path.display());
        };
        assert_eq!(keys(&problems), left, "{problems:#?}");
    }
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let config = Config::from_toml(&sandbox("")).unwrap();
    let shop = &config.shops[&"main".parse().unwrap()];
    assert_eq!(
        shop.base_url.as_str(),
        "https://sandbox.api.imoje.pl/v1/merchant"
    );
    assert_eq!(shop.timezone, chrono_tz::Europe::Warsaw);
    assert_eq!(shop.charge_time.to_string(), "06:00:00");
    assert_eq!(
        (shop.spread, shop.max_lateness),
        (TimeDelta::zero(), TimeDelta::days(7))
    );
    assert_eq!(
        (shop.catch_up, shop.rate_per_second),
        (CatchUp::OneNow, None)
    );
    assert_eq!(
        (config.charging.in_flight_max, config.charging.in_doubt_max),
        (64, 5)
    );
    assert_eq!(config.charging.request_timeout, Duration::from_secs(60));
    assert_eq!(config.charging.connect_timeout, Duration::from_secs(10));
    assert_eq!(config.charging.min_gap, TimeDelta::hours(20));
    assert_eq!(
        (
            config.charging.card_budget_30d,
            config.charging.card_budget_24h
        ),
        (8, 1)
    );
    assert_eq!(config.policy.retry.days, [1, 3, 7, 14]);
    assert_eq!(
        config.policy.resolver.poll,
        [5, 15, 60, 300, 3_600, 21_600].map(TimeDelta::seconds)
    );
    assert_eq!(config.policy.resolver.answer_window, TimeDelta::hours(96));
    assert_eq!(config.policy.resolver.write_off_after, TimeDelta::days(10));
    assert_eq!(config.absent_after, TimeDelta::hours(100));
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:8480");
    assert_eq!(config.clock, ClockConfig::System);
    assert!(config.database.migrate && matches!(config.database.url, DatabaseUrl::Embedded));
    let never = Decline {
        class: DeclineClass::Never,
        known: true,
    };
    assert_eq!(config.policy.retry.classes.decline(Some("CODE_43")), never);
    assert!(config.warnings().is_empty());
}

#[test]
fn the_environment_overrides_the_file_which_overrides_the_defaults() {
    let text = sandbox("[charging]\nin_flight_max = 7\nin_doubt_max = 3\n");
    let config = build(
        &text,
        process(&[
            ("CYKL__CHARGING__IN_FLIGHT_MAX", "9"),
            ("CYKL__CHARGING__MIN_GAP", ""),
            ("CYKL__RETRY__DAYS", "2, 5"),
            ("CYKL__RETRY__CLASSES__CODE_51", "soft"),
            ("CYKL__SHOPS__MAIN__MERCHANT_ID", "00456"),
        ]),
    )
    .unwrap();
    assert_eq!(
        (config.charging.in_flight_max, config.charging.in_doubt_max),
        (9, 3)
    );
    assert_eq!(config.charging.min_gap, TimeDelta::hours(20));
    assert_eq!(config.policy.retry.days, [2, 5]);
    assert_eq!(
        config.policy.retry.classes.decline(Some("CODE_51")).class,
        DeclineClass::Soft
    );
    assert_eq!(config.shops[&"main".parse().unwrap()].merchant_id, "00456");
    let origin = |key: &str| {
        let setting = config
            .describe()
            .iter()
            .find(|setting| setting.key == key)
            .unwrap();
        setting.origin.clone()
    };
    assert_eq!(
        origin("charging.in_flight_max"),
        "CYKL__CHARGING__IN_FLIGHT_MAX"
    );
    assert_eq!(origin("charging.in_doubt_max"), "inline settings");
    assert_eq!(origin("charging.min_gap"), "built-in default");
    assert_eq!(origin("shops.main.timezone"), "built-in default");
    assert_eq!(
        origin("retry.classes.CODE_51"),
        "CYKL__RETRY__CLASSES__CODE_51"
    );
}

#[test]
fn a_key_that_nobody_reads_is_named_with_its_place_and_the_nearest_known_one() {
    let found = problems(
        &sandbox("charge_tme = \"07:00\"\n[databse]\n[chargin]\nmin_gap = \"1h\"\n[alerts]\n"),
        process(&[
            ("CYKL__DATABASE__ULR", "embedded"),
            ("CYKL__SHOPS__MAIN__TOKNE", "hunter2"),
        ]),
    );
    let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "chargin.min_gap (inline settings): is not a setting; the nearest one is charging.min_gap",
            "database.ulr (CYKL__DATABASE__ULR): is not a setting; the nearest one is database.url",
            "databse (inline settings): is not a setting; the nearest one is database.url",
            "shops.main.charge_tme (inline settings): is not a setting; the nearest one is shops.main.charge_time",
            "shops.main.tokne (CYKL__SHOPS__MAIN__TOKNE): is not a setting; the nearest one is shops.main.token",
        ]
    );
}

#[test]
fn all_mistakes_are_found_at_once() {
    let text = "[shops.main]\nenvironment = \"prod\"\nservice_id = \"1\"\ntimezone = \"Warsaw\"\n\
        [shops.Second]\ntoken = \"x\"\n[charging]\nin_flight_max = 0\nmin_gap = \"0s\"\n[clock]\nkind = \"fast\"\n";
    let error = build(text, process(&[("CYKL__SCHEDULE__CHARGER", "0 0 30 2 *")])).unwrap_err();
    let shown = error.to_string();
    assert!(
        shown.starts_with("the configuration has mistakes:\n"),
        "{shown}"
    );
    assert_eq!(shown.lines().count(), 13, "{shown}");
    for line in [
        "charging.in_flight_max (inline settings): \"0\" is not a whole number from 1 to 10000",
        "charging.min_gap (inline settings): \"0s\" is too short; it must be longer than nothing",
        "clock.kind (inline settings): \"fast\" is not a clock; allowed are system and scaled",
        "database.url (not set): write a PostgreSQL URL",
        "schedule.charger (CYKL__SCHEDULE__CHARGER): \"0 0 30 2 *\" never comes: no calendar has that date",
        "shops.Second (inline settings): \"Second\" cannot name a shop",
        "shops.main.environment (inline settings): \"prod\" is not an environment",
        "shops.main.merchant_id (not set): copy it from the imoje panel",
        "shops.main.service_id (inline settings): \"1\" is not a service id",
        "shops.main.service_key (not set): give the secret, or set shops.main.service_key_file",
        "shops.main.timezone (inline settings): \"Warsaw\" is not a time zone",
        "shops.main.token (not set): give the secret, or set shops.main.token_file",
    ] {
        assert!(
            shown.contains(&format!("\n  {line}")),
            "{line} is not in\n{shown}"
        );
    }
}

/// What is added to a sandbox shop, and the key that it breaks a rule of.
const BROKEN: &[(&str, &str)] = &[
    ("spread = \"24h\"", "shops.main.spread"),
    ("rate_per_second = 0", "shops.main.rate_per_second"),
    ("catch_up = \"never\"", "shops.main.catch_up"),
    ("charge_time = \"25:00\"", "shops.main.charge_time"),
    ("max_lateness = \"0s\"", "shops.main.max_lateness"),
    (
        "base_url = \"http://api.example.com/v1/merchant\"",
        "shops.main.base_url",
    ),
    (
        "base_url = \"https://api.imoje.pl/v1/merchant\"",
        "shops.main.base_url",
    ),
    (
        "base_url = \"https://api.pay.ing.pl/v1/merchant\"",
        "shops.main.base_url",
    ),
    ("gateway = \"payu\"", "shops.main.gateway"),
    (
        "[database]\nmax_connections = 1",
        "database.max_connections",
    ),
    ("[database]\ndata_dir = \"relative\"", "database.data_dir"),
    ("[database]\nmigrate = \"maybe\"", "database.migrate"),
    (
        "[charging]\nin_flight_max = 10001",
        "charging.in_flight_max",
    ),
    (
        "[charging]\ncard_budget_30d = 16",
        "charging.card_budget_30d",
    ),
    (
        "[charging]\nconnect_timeout = \"61s\"",
        "charging.connect_timeout",
    ),
    ("[charging]\nmin_gap = [\"1h\"]", "charging.min_gap"),
    ("[retry]\ndays = [1, 1]", "retry.days"),
    ("[retry]\ndays = [3, 1]", "retry.days"),
    ("[retry]\ndays = [0]", "retry.days"),
    ("[retry]\ndays = [31]", "retry.days"),
    ("[retry]\ndays = [[1]]", "retry.days"),
    (
        "[retry.classes]\nCODE_51 = \"often\"",
        "retry.classes.CODE_51",
    ),
    (
        "[retry.classes]\ncode_51 = \"soft\"",
        "retry.classes.code_51",
    ),
    ("[resolver]\npoll = []", "resolver.poll"),
    ("[resolver]\npoll = [\"0s\"]", "resolver.poll"),
    (
        "[resolver]\nanswer_window = \"10d\"",
        "resolver.answer_window",
    ),
    (
        "[resolver]\nabsent_after = \"99h\"",
        "resolver.absent_after",
    ),
    (
        "[history]\narchive_after = \"59d\"",
        "history.archive_after",
    ),
    (
        "[history]\narchive_after = \"60d\"\n[charging]\nmin_gap = \"60d\"",
        "history.archive_after",
    ),
    ("[history]\nkeep_years = 0", "history.keep_years"),
    ("[schedule]\nscheduler = \"often\"", "schedule.scheduler"),
    (
        "[schedule]\nscheduler = \"0 0 1 * mon\"",
        "schedule.scheduler",
    ),
    ("[http]\nlisten = \"localhost\"", "http.listen"),
    (
        "[http]\npublic_url = \"http://billing.example.com\"",
        "http.public_url",
    ),
    (
        "[http]\npublic_url = \"https://billing.example.com:8443\"",
        "http.public_url",
    ),
    (
        "[http]\npublic_url = \"https://localhost\"",
        "http.public_url",
    ),
    (
        "[http]\nproxy_header = \"X Forwarded\"",
        "http.proxy_header",
    ),
    (
        "[http]\nproxy_header = \"X-Real-IP\"\nnotice_networks = [\"imoje\", \"10.0.0.0/33\"]",
        "http.notice_networks",
    ),
    (
        "[http]\nnotice_networks = \"imoje\"",
        "http.notice_networks",
    ),
    ("[http]\nnotice_timeout = \"0s\"", "http.notice_timeout"),
    ("[http]\nfailed_notices_max = 0", "http.failed_notices_max"),
    (
        "[events]\nwebhook_url = \"https://shop.example.com\"",
        "events.webhook_secret",
    ),
    (
        "[alerts]\nwebhook_url = \"http://chat.example.com\"",
        "alerts.webhook_url",
    ),
    ("[log]\nformat = \"xml\"", "log.format"),
    ("[log]\nfilter = \"cykl=loud\"", "log.filter"),
    ("[clock]\nscale = 60", "clock.scale"),
    ("[shops.main.more]\nx = 1", "shops.main.more.x"),
];

#[test]
fn each_rule_names_the_key_that_breaks_it() {
    for &(extra, key) in BROKEN {
        let database = process(&[("CYKL__DATABASE__URL", "embedded")]);
        let found = problems(&format!("{SHOP}{extra}"), database);
        assert_eq!(keys(&found), [key], "{extra}: {found:#?}");
        assert!(!found[0].message.is_empty());
    }
}

#[test]
fn only_simulators_have_a_fast_clock_and_a_private_address() {
    let fast = "[clock]\nkind = \"scaled\"\nstart = 2026-01-01T00:00:00Z\nscale = 86400\n";
    let private = "[http]\npublic_url = \"http://127.0.0.1:8480\"\n";
    let config = Config::from_toml(&simulator(&format!("{fast}{private}"))).unwrap();
    assert_eq!(
        config.clock,
        ClockConfig::Scaled {
            start: "2026-01-01T00:00:00Z".parse().unwrap(),
            scale: NonZeroU32::new(86_400).unwrap(),
        }
    );
    let base_url = config.shops[&"main".parse().unwrap()].base_url.as_str();
    assert_eq!(base_url, "http://127.0.0.1:8080/v1/merchant");
    let found = problems(&sandbox(&format!("{fast}{private}")), Process::default());
    assert_eq!(keys(&found), ["clock.kind", "http.public_url"]);
    let mixed = format!(
        "{}{}",
        simulator(fast),
        SHOP.replace("main", "other").replace("2b8a", "3b8a")
    );
    assert_eq!(keys(&problems(&mixed, Process::default())), ["clock.kind"]);
    let incomplete = simulator("[clock]\nkind = \"scaled\"\n");
    assert_eq!(
        keys(&problems(&incomplete, Process::default())),
        ["clock.scale", "clock.start"]
    );
    let nowhere = simulator("").replace("base_url", "#");
    assert_eq!(
        keys(&problems(&nowhere, Process::default())),
        ["shops.main.base_url"]
    );
}

#[test]
fn each_name_of_the_gateway_has_its_addresses() {
    for (environment, gateway, address) in [
        ("production", "imoje", "https://api.imoje.pl/v1/merchant"),
        (
            "sandbox",
            "imoje",
            "https://sandbox.api.imoje.pl/v1/merchant",
        ),
        (
            "production",
            "ing_pay",
            "https://api.pay.ing.pl/v1/merchant",
        ),
        (
            "sandbox",
            "ing_pay",
            "https://api.sandbox.pay.ing.pl/v1/merchant",
        ),
        ("production", "axepta", "https://api.axepta.pl/v1/merchant"),
    ] {
        let text = sandbox(&format!("gateway = \"{gateway}\"\n"));
        let text = text.replace("\"sandbox\"", &format!("\"{environment}\""));
        let config = Config::from_toml(&text).unwrap();
        let shop = &config.shops[&"main".parse().unwrap()];
        assert_eq!(shop.base_url.as_str(), address);
    }
}

#[test]
fn an_address_that_is_not_documented_has_to_be_given() {
    let error = Config::from_toml(&sandbox("gateway = \"axepta\"\n")).unwrap_err();
    assert!(error.to_string().contains("is not documented"), "{error}");
    let given =
        "gateway = \"axepta\"\nbase_url = \"https://axepta-sandbox.example.com/v1/merchant\"\n";
    assert!(Config::from_toml(&sandbox(given)).is_ok());
    let real = "gateway = \"axepta\"\nbase_url = \"https://api.axepta.pl/v1/merchant\"\n";
    let error = Config::from_toml(&sandbox(real)).unwrap_err();
    assert!(
        error.to_string().contains("is the address of production"),
        "{error}"
    );
}

#[test]
fn payers_are_led_back_after_a_payment_and_without_one_or_not_at_all() {
    let text = |lines: &str| sandbox(lines);
    let both = "success_return_url = \"https://shop.example.test/ok\"\nfailure_return_url = \"https://shop.example.test/no\"\n";
    let config = Config::from_toml(&text(both)).unwrap();
    let shop = &config.shops[&"main".parse().unwrap()];
    assert_eq!(
        shop.return_urls,
        Some(ReturnUrls {
            success: "https://shop.example.test/ok".to_owned(),
            failure: "https://shop.example.test/no".to_owned()
        })
    );
    let (one, other) = both.split_once('\n').unwrap();
    for (line, missing) in [
        (one, "shops.main.failure_return_url"),
        (other.trim_end(), "shops.main.success_return_url"),
    ] {
        let found = problems(&text(&format!("{line}\n")), Process::default());
        assert_eq!(keys(&found), [missing]);
    }
    let wrong = both.replace("https://shop.example.test/ok", "shop.example.test");
    assert_eq!(
        keys(&problems(&text(&wrong), Process::default())),
        ["shops.main.success_return_url"]
    );
}

#[test]
fn a_tokenising_proxy_is_private_and_stands_in_front_of_one_environment() {
    let proxy = |url: &str| format!("[gateway]\ncard_proxy_url = \"{url}\"\n");
    let config = Config::from_toml(&sandbox(&proxy("https://proxy.example.test/v1/"))).unwrap();
    let url = config.gateway.card_proxy_url.unwrap();
    assert_eq!(url.as_str(), "https://proxy.example.test/v1");
    let open = problems(
        &sandbox(&proxy("http://proxy.example.test/v1")),
        Process::default(),
    );
    assert_eq!(keys(&open), ["gateway.card_proxy_url"]);
    let mixed = format!(
        "{}{}{}",
        simulator(""),
        SHOP.replace("main", "other").replace("2b8a", "3b8a"),
        proxy("https://proxy.example.test/v1")
    );
    assert_eq!(
        keys(&problems(&mixed, Process::default())),
        ["gateway.card_proxy_url"]
    );
}

#[test]
fn one_imoje_service_has_one_name() {
    let twin = SHOP.replace("main", "again");
    let renamed = format!("{twin}gateway = \"ing_pay\"\n");
    assert_eq!(
        keys(&problems(&sandbox(&renamed), Process::default())),
        ["shops.main.service_id"]
    );
    assert_eq!(
        keys(&problems(&sandbox(&twin), Process::default())),
        ["shops.main.service_id"]
    );
    let other = twin.replace("2b8a", "3b8a");
    assert_eq!(Config::from_toml(&sandbox(&other)).unwrap().shops.len(), 2);
}

#[test]
fn workers_tick_in_the_zone_of_the_shops_when_they_share_one() {
    let next = |text: &str| {
        let config = Config::from_toml(text).unwrap();
        let tick = config
            .schedule
            .caretaker
            .next_after("2027-07-01T00:00:00Z".parse().unwrap());
        tick.unwrap().to_rfc3339()
    };
    let other = SHOP.replace("main", "other").replace("2b8a", "3b8a");
    let schedule = "[schedule]\ncaretaker = \"@daily\"\n";
    assert_eq!(next(&sandbox(schedule)), "2027-07-01T22:00:00+00:00");
    assert_eq!(
        next(&sandbox(&format!("{schedule}{other}"))),
        "2027-07-01T22:00:00+00:00"
    );
    let elsewhere = format!("{schedule}{other}timezone = \"Asia/Tokyo\"\n");
    assert_eq!(next(&sandbox(&elsewhere)), "2027-07-02T00:00:00+00:00");
}

#[test]
fn secrets_are_neither_described_nor_debugged_nor_quoted_by_mistakes() {
    let text = SHOP.to_owned()
        + "[database]\nurl = \"postgresql://cykl:hunter2@db/cykl\"\n\
           [events]\nwebhook_url = \"https://shop.example.com/hunter2\"\nwebhook_secret = \"hunter2\"\n\
           [alerts]\nwebhook_url = \"https://chat.example.com/hunter2\"\n";
    let config = Config::from_toml(&text).unwrap();
    let shown = format!("{config:#?} {:?}", config.describe());
    assert!(!shown.contains("hunter2"), "{shown}");
    let setting = |key: &str| {
        config
            .describe()
            .iter()
            .find(|setting| setting.key == key)
            .unwrap()
            .value
            .clone()
    };
    assert_eq!(setting("shops.main.token"), "[redacted]");
    assert_eq!(
        setting("database.url"),
        "postgresql://cykl:redacted@db/cykl"
    );
    assert_eq!(
        setting("alerts.webhook_url"),
        "https://chat.example.com/[redacted]"
    );
    for mistaken in [
        text.replace("hunter2-token", "hunter2 token"),
        text.replace("postgresql:", "mysql:"),
        text.replace("https:", "http:"),
        text.replace("\"hunter2-token\"", "hunter2-token"),
        text.replace("\"hunter2-token\"", "\"hunter2"),
        text.replace("\"hunter2-token\"", "[\"hunter2\"]"),
        text.replace("token =", "toke ="),
    ] {
        let error = Config::from_toml(&mistaken).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}

#[test]
fn a_file_that_is_not_toml_is_named_with_the_line() {
    let error = Config::from_toml("[database]\nurl = hunter2\n")
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("couldn't understand inline settings: TOML parse error at line 2"),
        "{error}"
    );
    assert!(!error.contains('\n'), "{error}");
    let missing = Config::load(Some(Path::new("/nonexistent/cykl.toml"))).unwrap_err();
    assert_eq!(
        missing.to_string(),
        "couldn't read the configuration file /nonexistent/cykl.toml"
    );
    assert!(
        layers::read_file_if_present(Path::new("/nonexistent/cykl.toml"))
            .unwrap()
            .is_none()
    );
}

#[test]
fn secrets_come_from_files_which_systemd_may_have_put_elsewhere() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("main.token");
    fs::write(&path, "token-from-file\n").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
    let text = sandbox("").replace("token = \"hunter2-token\"", "token_file = \"main.token\"");
    let by_systemd = || Process {
        credentials_directory: Some(directory.path().to_owned()),
        ..Process::default()
    };
    let config = build(&text, by_systemd()).unwrap();
    assert_eq!(
        config.shops[&"main".parse().unwrap()].token.expose_secret(),
        "token-from-file"
    );
    assert!(config.warnings().is_empty());
    let absolute = text.replace("main.token", path.to_str().unwrap());
    assert!(build(&absolute, Process::default()).is_ok());
    assert_eq!(
        keys(&problems(&text, Process::default())),
        ["shops.main.token_file"]
    );
    let twice = text.replace("token_file", "token = \"x\"\ntoken_file");
    assert_eq!(keys(&problems(&twice, by_systemd())), ["shops.main.token"]);
}

#[test]
fn a_secret_that_everybody_can_read_is_a_mistake_in_production_and_a_warning_elsewhere() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("main.token");
    fs::write(&path, "token-from-file").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let token_file = format!("token_file = \"{}\"", path.display());
    let text = sandbox("").replace("token = \"hunter2-token\"", &token_file);
    let config = Config::from_toml(&text).unwrap();
    assert_eq!(keys(config.warnings()), ["shops.main.token_file"]);
    let production = text.replace("sandbox", "production");
    let found = problems(&production, Process::default());
    assert_eq!(keys(&found), ["shops.main.token_file"]);
    assert!(found[0].message.contains("chmod o-rwx"));
}
