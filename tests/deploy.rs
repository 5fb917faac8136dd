//! What stands in `deploy/` and `config/` is held against the tools that will read it, and against each other: the unit
//! against systemd, the alert rules against promtool and the runbook, the samples against the list of keys.
//!
//! A tool that is missing skips its tests with a message; under `CI` it fails them. `.ci/install-tools` fetches them.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::str::FromStr;

const UNIT: &str = include_str!("../deploy/cykl.service");
const SYSUSERS: &str = include_str!("../deploy/cykl.sysusers.conf");
const RULES: &str = include_str!("../deploy/prometheus/cykl.rules.yml");
const RULE_TESTS: &str = include_str!("../deploy/prometheus/cykl.rules.test.yml");
const RUNBOOK: &str = include_str!("../docs/operations.md");
const DEFAULTS: &str = include_str!("../config/default.toml");
const PRODUCTION: &str = include_str!("../config/production.example.toml");

/// The metrics that Cykl promises to export; a histogram is listed without its suffixes.
const METRICS: [&str; 19] = [
    "cykl_attempts_total",
    "cykl_brake",
    "cykl_brake_stage",
    "cykl_brake_tripped",
    "cykl_build_info",
    "cykl_charges_total",
    "cykl_daily_permitted_charges",
    "cykl_daily_planned_charges",
    "cykl_declines_total",
    "cykl_expected_charges_total",
    "cykl_fence_closed",
    "cykl_gateway_request_seconds",
    "cykl_held",
    "cykl_in_doubt",
    "cykl_notices_total",
    "cykl_oldest_due_seconds",
    "cykl_outbox_pending",
    "cykl_refunds_in_doubt",
    "cykl_worker_lag_seconds",
];

/// Every documented key but the table `retry.classes`, with `shops.main` for `shops.<name>`.
const KEYS: [&str; 63] = [
    "alerts.webhook_url",
    "charging.card_budget_24h",
    "charging.card_budget_30d",
    "charging.claim_ahead",
    "charging.clock_gap_max",
    "charging.connect_timeout",
    "charging.in_doubt_max",
    "charging.in_flight_max",
    "charging.min_gap",
    "charging.request_timeout",
    "clock.kind",
    "clock.scale",
    "clock.start",
    "database.data_dir",
    "database.max_connections",
    "database.migrate",
    "database.url",
    "events.webhook_secret",
    "events.webhook_secret_file",
    "events.webhook_url",
    "gateway.card_proxy_url",
    "history.archive_after",
    "history.keep_years",
    "journal.dir",
    "journal.keep",
    "http.failed_notices_max",
    "http.listen",
    "http.notice_networks",
    "http.notice_timeout",
    "http.proxy_header",
    "http.public_url",
    "log.filter",
    "log.format",
    "resolver.absent_after",
    "resolver.answer_window",
    "resolver.poll",
    "resolver.write_off_after",
    "retry.days",
    "retry.unknown_code_tries",
    "schedule.caretaker",
    "schedule.charger",
    "schedule.notifier",
    "schedule.resolver",
    "schedule.scheduler",
    "shops.main.base_url",
    "shops.main.catch_up",
    "shops.main.charge_time",
    "shops.main.environment",
    "shops.main.failure_return_url",
    "shops.main.gateway",
    "shops.main.max_lateness",
    "shops.main.merchant_id",
    "shops.main.previous_service_key",
    "shops.main.previous_service_key_file",
    "shops.main.rate_per_second",
    "shops.main.service_id",
    "shops.main.service_key",
    "shops.main.service_key_file",
    "shops.main.spread",
    "shops.main.success_return_url",
    "shops.main.timezone",
    "shops.main.token",
    "shops.main.token_file",
];

/// imoje's list of card codes, without the approvals CODE_000 and CODE_11 (imoje API, card codes).
const DECLINE_CODES: &str = "01 02 03 04 05 06 07 08 10 12 13 14 15 19 30 33 39 41 43 51 52 53 54 56 57 59 61 62 63 64 65 75 83 \
    90 93 99 114 570 581 AC PF P1 N0 N8 P9 Q1 SD T3 T5 T8 Z3";

/// The path of `tool`, or `None` after saying which test is skipped. Under `CI` a missing tool is a failure.
fn find_tool(tool: &str, override_variable: &str) -> Option<PathBuf> {
    let named = std::env::var_os(override_variable).map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = named
        .into_iter()
        .chain(std::env::split_paths(&path).map(|folder| folder.join(tool)))
        .find(|candidate| candidate.is_file());
    if found.is_none() {
        let message =
            format!("{tool} is neither in PATH nor in ${override_variable}; see .ci/install-tools");
        assert!(
            std::env::var_os("CI").is_none_or(|value| value.is_empty()),
            "{message}"
        );
        // Not `eprintln!`, which the test harness hides when a test passes.
        writeln!(std::io::stderr(), "SKIPPED: {message}").expect("standard error can be written");
    }
    found
}

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn run(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|error| panic!("couldn't run {command:?}: {error}"))
}

fn assert_success(output: &Output) {
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The values of `key` in the unit, in order.
fn unit_values(key: &str) -> Vec<&'static str> {
    UNIT.lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        .collect()
}

fn parse(sample: &str) -> config::Config {
    config::Config::builder()
        .add_source(config::File::from_str(sample, config::FileFormat::Toml))
        .build()
        .expect("a sample is valid TOML")
}

/// The full names of the keys of a sample; those in comments too when `commented`.
fn keys(sample: &str, commented: bool) -> BTreeSet<String> {
    let mut section = String::new();
    let mut keys = BTreeSet::new();
    for line in sample.lines() {
        let line = if commented {
            line.strip_prefix("# ").unwrap_or(line)
        } else {
            line
        };
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            section = name.to_owned();
        } else if let Some((key, _)) = line.split_once(" = ")
            && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        {
            keys.insert(format!("{section}.{key}"));
        }
    }
    keys
}

/// The name of each alert with the text of its rule.
fn alerts() -> Vec<(&'static str, &'static str)> {
    RULES
        .split("\n      - ")
        .filter_map(|rule| {
            let rule = rule.strip_prefix("alert: ")?;
            Some((rule.lines().next()?, rule))
        })
        .collect()
}

/// The anchors that the headings of the runbook have when it is shown on the web.
fn runbook_anchors() -> BTreeSet<String> {
    RUNBOOK
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .replace(' ', "-")
        })
        .collect()
}

#[test]
fn the_unit_is_exposed_to_at_most_1_5_of_10() {
    let Some(analyze) = find_tool("systemd-analyze", "CYKL_SYSTEMD_ANALYZE") else {
        return;
    };
    // The threshold is given in tenths of the exposure level.
    let output = run(Command::new(analyze)
        .args(["security", "--offline=true", "--threshold=15", "--no-pager"])
        .arg(in_repository("deploy/cykl.service")));
    assert_success(&output);
}

#[test]
fn systemd_finds_no_fault_in_the_unit() {
    let Some(analyze) = find_tool("systemd-analyze", "CYKL_SYSTEMD_ANALYZE") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("cykl.service");
    // The programs it names belong to the machine it is installed on.
    std::fs::write(
        &unit,
        UNIT.replace("/usr/bin/cykl", "/usr/bin/true")
            .replace("/usr/bin/kill", "/usr/bin/true"),
    )
    .unwrap();
    let output = run(Command::new(analyze)
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .arg(&unit));
    assert_success(&output);
    let faults = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!faults.contains("cykl.service"), "{faults}");
}

#[test]
fn the_unit_runs_as_the_static_user_that_peer_authentication_knows() {
    assert_eq!(unit_values("User"), ["cykl"]);
    assert!(unit_values("DynamicUser").is_empty());
    assert!(SYSUSERS.lines().any(|line| line.starts_with("u cykl ")));
}

#[test]
fn the_unit_restarts_after_everything_that_a_restart_may_cure() {
    assert_eq!(unit_values("Restart"), ["on-failure"]);
    assert_eq!(unit_values("RestartPreventExitStatus"), ["2 77 78"]);
    assert_eq!(unit_values("StartLimitIntervalSec"), ["0"]);
}

#[test]
fn a_stop_waits_longer_than_a_request_may_take() {
    let stop = humantime::parse_duration(unit_values("TimeoutStopSec")[0]).unwrap();
    let request = parse(DEFAULTS)
        .get_string("charging.request_timeout")
        .unwrap();
    assert!(stop >= 2 * humantime::parse_duration(&request).unwrap());
}

#[test]
fn promtool_accepts_the_alert_rules() {
    let Some(promtool) = find_tool("promtool", "CYKL_PROMTOOL") else {
        return;
    };
    assert_success(&run(Command::new(promtool)
        .args(["check", "rules"])
        .arg(in_repository("deploy/prometheus/cykl.rules.yml"))));
}

#[test]
fn the_alerts_fire_when_they_should_and_only_then() {
    let Some(promtool) = find_tool("promtool", "CYKL_PROMTOOL") else {
        return;
    };
    let tests = in_repository("deploy/prometheus/cykl.rules.test.yml");
    assert_success(&run(Command::new(promtool)
        .args(["test", "rules"])
        .arg(tests)));
}

#[test]
fn the_alert_rules_name_only_metrics_that_are_exported() {
    let words = RULES.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    let unknown: BTreeSet<&str> = words
        .filter(|word| word.starts_with("cykl_"))
        .filter(|word| {
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| word.strip_suffix(suffix));
            !METRICS.contains(word) && !base.is_some_and(|base| METRICS.contains(&base))
        })
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn every_alert_says_how_bad_it_is_and_what_to_do_and_where_to_read_on() {
    let anchors = runbook_anchors();
    for (name, rule) in alerts() {
        assert!(
            rule.contains("severity: critical") || rule.contains("severity: warning"),
            "{name} has no severity"
        );
        assert!(
            rule.contains("summary: ") && rule.contains("description: "),
            "{name} does not explain itself"
        );
        let anchor = name.to_lowercase();
        assert!(
            rule.trim_end()
                .ends_with(&format!("runbook_url: docs/operations.md#{anchor}")),
            "{name} points elsewhere"
        );
        assert!(
            anchors.contains(&anchor),
            "the runbook has no section for {name}"
        );
    }
}

#[test]
fn the_links_within_the_runbook_lead_somewhere() {
    let anchors = runbook_anchors();
    for link in RUNBOOK.split("](#").skip(1) {
        let anchor = link.split(')').next().unwrap();
        assert!(anchors.contains(anchor), "no heading for #{anchor}");
    }
}

#[test]
fn every_alert_is_tested_both_firing_and_quiet() {
    let (mut firing, mut quiet) = (BTreeSet::new(), BTreeSet::new());
    let mut asked = None;
    for line in RULE_TESTS.lines() {
        if line.contains("- expr: ") {
            asked = line
                .split("alertname=\"")
                .nth(1)
                .and_then(|rest| rest.split('"').next());
        } else if let (Some(alert), Some(samples)) =
            (asked, line.trim().strip_prefix("exp_samples:"))
        {
            if samples.is_empty() {
                firing.insert(alert)
            } else {
                quiet.insert(alert)
            };
        }
    }
    let alerts: BTreeSet<&str> = alerts().into_iter().map(|(name, _)| name).collect();
    assert!(!alerts.is_empty());
    assert_eq!(firing, alerts);
    assert_eq!(quiet, alerts);
}

#[test]
fn the_defaults_explain_every_key_and_no_other() {
    let explained: BTreeSet<String> = keys(DEFAULTS, true)
        .into_iter()
        .filter(|key| !key.starts_with("retry.classes."))
        .collect();
    assert_eq!(
        explained,
        KEYS.iter().map(|key| (*key).to_owned()).collect()
    );
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let defaults = parse(DEFAULTS);
    for (key, value) in [
        ("charging.in_flight_max", "64"),
        ("charging.claim_ahead", "0"),
        ("charging.in_doubt_max", "5"),
        ("charging.request_timeout", "60s"),
        ("charging.connect_timeout", "10s"),
        ("charging.min_gap", "20h"),
        ("charging.clock_gap_max", "120s"),
        ("charging.card_budget_30d", "8"),
        ("charging.card_budget_24h", "1"),
        ("retry.unknown_code_tries", "3"),
        ("resolver.answer_window", "96h"),
        ("resolver.absent_after", "100h"),
        ("resolver.write_off_after", "10d"),
        ("http.listen", "127.0.0.1:8480"),
        ("clock.kind", "system"),
    ] {
        assert_eq!(defaults.get_string(key).unwrap(), value, "{key}");
    }
    assert_eq!(
        defaults.get::<Vec<u32>>("retry.days").unwrap(),
        [1, 3, 7, 14]
    );
    assert_eq!(
        defaults.get::<Vec<String>>("resolver.poll").unwrap(),
        ["5s", "15s", "60s", "5m", "1h", "6h"]
    );
}

#[test]
fn the_default_schedules_are_cron_expressions_with_seconds() {
    let schedules = parse(DEFAULTS).get_table("schedule").unwrap();
    assert_eq!(schedules.len(), 5);
    for (worker, schedule) in schedules {
        let expression = schedule.into_string().unwrap();
        assert_eq!(expression.split_whitespace().count(), 6, "{worker}");
        cron::Schedule::from_str(&expression).unwrap_or_else(|error| panic!("{worker}: {error}"));
    }
}

#[test]
fn every_decline_code_of_imoje_has_one_of_the_five_classes() {
    let classes = parse(DEFAULTS).get_table("retry.classes").unwrap();
    let expected: BTreeSet<String> = DECLINE_CODES
        .split_whitespace()
        .map(|code| format!("CODE_{code}"))
        .chain(["INT_CREDIT_CARD_DISABLED".to_owned()])
        .collect();
    assert_eq!(classes.keys().cloned().collect::<BTreeSet<_>>(), expected);
    for (code, class) in classes {
        let class = class.into_string().unwrap();
        assert!(
            ["never", "new_card", "funds", "soft", "technical"].contains(&class.as_str()),
            "{code} is {class}"
        );
    }
}

#[test]
fn the_production_sample_uses_known_keys_and_holds_no_secret() {
    let known: BTreeSet<String> = KEYS.iter().map(|key| (*key).to_owned()).collect();
    let used = keys(PRODUCTION, true);
    assert!(used.is_subset(&known), "{:?}", used.difference(&known));
    for key in keys(PRODUCTION, true) {
        let last = key.rsplit('.').next().unwrap();
        assert!(
            ![
                "token",
                "service_key",
                "previous_service_key",
                "webhook_secret"
            ]
            .contains(&last),
            "{key} belongs into a file"
        );
    }
}

#[test]
fn the_unit_passes_on_the_credentials_that_the_production_sample_reads() {
    let production = parse(PRODUCTION);
    let files: Vec<String> = keys(PRODUCTION, false)
        .into_iter()
        .filter(|key| key.ends_with("_file"))
        .collect();
    assert_eq!(
        files,
        ["shops.main.service_key_file", "shops.main.token_file"]
    );
    for key in files {
        let path = production.get_string(&key).unwrap();
        let name = path.strip_prefix("/run/credentials/cykl.service/").unwrap();
        let passed = format!("{name}:/etc/cykl/credentials/{name}");
        assert!(
            unit_values("LoadCredential").contains(&passed.as_str()),
            "the unit does not pass on {name}"
        );
    }
}
