//! What the documents claim, held against the program: names, lists, states, examples and links.
//!
//! The documents are read as text. A claim that a test cannot see is not here; one that it can see and nobody wrote down is found
//! by comparing both ways.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::fs;
use std::path::{Component, Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::CommandFactory as _;
use cykl::cli::{Cli, Exit};
use cykl::domain::IllegalTransition;
use cykl::domain::attempt::{AttemptEvent, AttemptState};
use cykl::domain::charge::{ChargeEvent, ChargeState};
use cykl::domain::event::EventKind;
use cykl::domain::subscription::{SubscriptionEvent, SubscriptionStatus};
use cykl::domain::tripwire::{PAUSES, STOPS};
use cykl::store::outbox::Event;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

const README: &str = include_str!("../README.md");
const ARCHITECTURE: &str = include_str!("../ARCHITECTURE.md");
const EVENTS: &str = include_str!("../docs/events.md");
const FAILURE_MATRIX: &str = include_str!("../docs/failure-matrix.md");
const MUTANTS: &str = include_str!("../docs/mutants.md");
const BRAKES: &str = include_str!("../docs/brakes.md");
const RULES: &str = include_str!("../deploy/prometheus/cykl.rules.yml");
const DEFAULTS: &str = include_str!("../config/default.toml");
const METRICS: &str = include_str!("../src/metrics.rs");

/// How long the architecture may get before nobody reads it.
const ARCHITECTURE_LINES_MAX: usize = 150;

#[test]
fn every_event_is_documented_with_its_alert() {
    let documented: Vec<_> = rows(section(EVENTS, "Kinds"))
        .into_iter()
        .map(|cells| (code(cells[0]), cells[1].to_owned()))
        .collect();
    let told = EventKind::ALL.map(|kind| {
        let alert = if kind.is_alert() { "yes" } else { "no" };
        (kind.as_str().to_owned(), alert.to_owned())
    });
    assert_eq!(documented, told, "docs/events.md, in the order of the code");
}

#[test]
fn every_trip_of_the_brake_is_documented_with_its_event_its_alert_and_its_test() {
    let trips = rows(section(BRAKES, "What sets it"));
    let of_trips = trips.iter().filter(|cells| cells.len() == 8);
    let reasons: BTreeSet<_> = of_trips.clone().flat_map(|cells| codes(cells[4])).collect();
    let known: BTreeSet<_> = STOPS.into_iter().chain(PAUSES).map(str::to_owned).collect();
    assert_eq!(reasons, known);
    let events = EventKind::ALL.map(EventKind::as_str);
    for cells in of_trips {
        let told = code(cells[5]);
        assert!(events.contains(&told.as_str()), "there is no event {told}");
    }
    for cells in trips {
        let [alerts, tests] = [cells[cells.len() - 2], cells[cells.len() - 1]];
        for alert in codes(alerts) {
            let rule = format!("- alert: {alert}\n");
            assert!(RULES.contains(&rule), "there is no alert {alert}");
        }
        assert!(!codes(tests).is_empty(), "nothing tests: {}", cells[0]);
    }
}

#[test]
fn every_test_that_the_text_about_the_brake_names_exists() {
    let tests = tests_in(&sources());
    let named: Vec<_> = codes(BRAKES)
        .into_iter()
        .filter(|name| name.matches('_').count() > 3 && !name.contains(' '))
        .collect();
    assert!(named.len() > 10, "{named:?}");
    for name in named {
        assert!(tests.contains(&name), "there is no test {name}");
    }
}

#[test]
fn the_signature_of_the_example_is_right() {
    let example = fence(section(EVENTS, "Webhook"), "http");
    let (head, body) = example.split_once("\n\n").unwrap();
    let header = |name: &str| {
        head.lines()
            .find_map(|line| line.strip_prefix(&format!("{name}: ")))
            .unwrap()
    };
    let secret = EVENTS.split_once("the secret is `whsec_").unwrap().1;
    let secret = STANDARD.decode(secret.split_once('`').unwrap().0).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&secret).unwrap();
    let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
    mac.update(format!("{id}.{timestamp}.{}", body.trim_end()).as_bytes());
    let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    assert_eq!(header("webhook-signature"), signature);
}

#[test]
fn the_example_of_an_event_has_the_members_of_an_event() {
    let example = fence(section(EVENTS, "Webhook"), "http");
    let body = example.split_once("\n\n").unwrap().1;
    let shown: serde_json::Value = serde_json::from_str(body).unwrap();
    let event = Event {
        event_id: shown["event_id"].as_str().unwrap().parse().unwrap(),
        kind: EventKind::ChargePaid.as_str().to_owned(),
        is_alert: EventKind::ChargePaid.is_alert(),
        occurred_at: shown["occurred_at"].as_str().unwrap().parse().unwrap(),
        shop: Some("main".parse().unwrap()),
        subscription_id: Some(shown["subscription_id"].as_str().unwrap().parse().unwrap()),
        external_id: Some("S-1042".to_owned()),
        sequence_no: Some(7),
        charge_id: Some(shown["charge_id"].as_str().unwrap().parse().unwrap()),
        attempt_id: Some(shown["attempt_id"].as_str().unwrap().parse().unwrap()),
        payload: shown["payload"].clone(),
    };
    assert_eq!(body.trim_end(), serde_json::to_string(&event).unwrap());
}

#[test]
fn every_configuration_key_is_in_the_readme_with_its_default() {
    let documented: BTreeMap<_, _> = rows(section(README, "Configuration"))
        .into_iter()
        .map(|cells| (code(cells[0]), cells[1].trim_matches('`').to_owned()))
        .collect();
    let keys = keys_of(DEFAULTS);
    let listed: BTreeSet<_> = documented.keys().cloned().collect();
    assert_eq!(listed, keys.keys().cloned().collect());
    for (key, default) in keys {
        if let Some(default) = default {
            assert_eq!(documented[&key], default, "the default of {key}");
        }
    }
}

#[test]
fn every_metric_is_in_the_readme() {
    let registered: BTreeSet<_> = METRICS
        .split("registry.register(")
        .skip(1)
        .map(|call| call.split('"').nth(1).unwrap().to_owned())
        .collect();
    let documented: BTreeSet<_> = rows(section(README, "Metrics"))
        .into_iter()
        .map(|cells| code(cells[0]))
        .map(|name| {
            let name = name.strip_prefix("cykl_").unwrap();
            name.strip_suffix("_total").unwrap_or(name).to_owned()
        })
        .collect();
    assert_eq!(documented, registered);
}

#[test]
fn every_view_is_in_the_readme_with_its_columns() {
    let documented: BTreeMap<_, _> = rows(section(README, "SQL"))
        .into_iter()
        .map(|cells| (code(cells[0]), codes(cells[1])))
        .collect();
    assert_eq!(documented, views_of(&migrations()));
}

#[test]
fn every_sql_function_for_people_is_in_the_readme() {
    for rest in migrations().split("CREATE FUNCTION billing.").skip(1) {
        let name = rest.split('(').next().unwrap();
        let shown = format!("`billing.{name}(");
        assert!(
            section(README, "SQL").contains(&shown),
            "{shown} is missing"
        );
    }
}

#[test]
fn the_readme_lists_the_commands_that_there_are() {
    assert_eq!(documented_commands(), commands());
}

#[test]
fn every_exit_code_is_in_the_readme() {
    let documented: Vec<u8> = rows(section(README, "Commands"))
        .into_iter()
        .filter_map(|cells| cells[0].parse().ok())
        .collect();
    assert_eq!(documented, Exit::ALL.map(Exit::code));
}

#[test]
fn the_states_are_drawn_as_the_domain_has_them() {
    assert_eq!(
        drawn("A charge"),
        steps(
            &ChargeState::ALL,
            ChargeState::as_str,
            &CHARGE_EVENTS,
            ChargeState::after
        )
    );
    assert_eq!(
        drawn("An attempt"),
        steps(
            &AttemptState::ALL,
            AttemptState::as_str,
            &ATTEMPT_EVENTS,
            AttemptState::after
        )
    );
    assert_eq!(
        drawn("A subscription"),
        steps(
            &SubscriptionStatus::ALL,
            SubscriptionStatus::as_str,
            &SUBSCRIPTION_EVENTS,
            SubscriptionStatus::after,
        )
    );
}

const CHARGE_EVENTS: [ChargeEvent; 8] = [
    ChargeEvent::Permitted,
    ChargeEvent::Settled,
    ChargeEvent::Retried,
    ChargeEvent::GivenUp,
    ChargeEvent::Held,
    ChargeEvent::Skipped,
    ChargeEvent::Voided,
    ChargeEvent::Reopened,
];

const ATTEMPT_EVENTS: [AttemptEvent; 7] = [
    AttemptEvent::NotSent,
    AttemptEvent::Refused,
    AttemptEvent::Pending,
    AttemptEvent::Settled,
    AttemptEvent::SettledBesideAnother,
    AttemptEvent::Rejected,
    AttemptEvent::DeclaredAbsent,
];

const SUBSCRIPTION_EVENTS: [SubscriptionEvent; 8] = [
    SubscriptionEvent::CardAttached,
    SubscriptionEvent::FellBehind,
    SubscriptionEvent::CaughtUp,
    SubscriptionEvent::Paused,
    SubscriptionEvent::Resumed,
    SubscriptionEvent::Deactivated,
    SubscriptionEvent::Cancelled,
    SubscriptionEvent::Finished,
];

/// A new event does not compile here until it is in its list above.
#[test]
fn the_lists_of_events_are_whole() {
    for (place, event) in CHARGE_EVENTS.into_iter().enumerate() {
        let expected = match event {
            ChargeEvent::Permitted => 0,
            ChargeEvent::Settled => 1,
            ChargeEvent::Retried => 2,
            ChargeEvent::GivenUp => 3,
            ChargeEvent::Held => 4,
            ChargeEvent::Skipped => 5,
            ChargeEvent::Voided => 6,
            ChargeEvent::Reopened => 7,
        };
        assert_eq!(place, expected);
    }
    for (place, event) in ATTEMPT_EVENTS.into_iter().enumerate() {
        let expected = match event {
            AttemptEvent::NotSent => 0,
            AttemptEvent::Refused => 1,
            AttemptEvent::Pending => 2,
            AttemptEvent::Settled => 3,
            AttemptEvent::SettledBesideAnother => 4,
            AttemptEvent::Rejected => 5,
            AttemptEvent::DeclaredAbsent => 6,
        };
        assert_eq!(place, expected);
    }
    for (place, event) in SUBSCRIPTION_EVENTS.into_iter().enumerate() {
        let expected = match event {
            SubscriptionEvent::CardAttached => 0,
            SubscriptionEvent::FellBehind => 1,
            SubscriptionEvent::CaughtUp => 2,
            SubscriptionEvent::Paused => 3,
            SubscriptionEvent::Resumed => 4,
            SubscriptionEvent::Deactivated => 5,
            SubscriptionEvent::Cancelled => 6,
            SubscriptionEvent::Finished => 7,
        };
        assert_eq!(place, expected);
    }
}

#[test]
fn every_guard_of_the_architecture_is_in_the_migrations() {
    let schema = migrations();
    for cells in rows(section(ARCHITECTURE, "Invariants, and what holds each")) {
        let guards = codes(cells[1]);
        assert!(!guards.is_empty(), "nothing holds: {}", cells[0]);
        for guard in guards {
            assert!(is_word_of(&schema, &guard), "{guard} is not in migrations/");
        }
    }
}

#[test]
fn every_row_of_the_failure_matrix_names_tests_that_exist() {
    let all_tests = tests_in(&sources());
    let mut numbers = Vec::new();
    for cells in rows(FAILURE_MATRIX) {
        let [number, _fault, _truth, behaviour, _held_by, tests] = &cells[..] else {
            panic!("row {cells:?} has {} cells", cells.len());
        };
        let tests = codes(tests);
        let is_missing = behaviour.contains("not built") || behaviour.contains("not tested");
        assert_eq!(tests.is_empty(), is_missing, "row {number}");
        for test in tests {
            let is_there = all_tests.contains(&test);
            assert!(is_there, "row {number}: there is no test {test}");
        }
        numbers.push((*number).to_owned());
    }
    let mut expected: Vec<String> = (1..=56).map(|number| number.to_string()).collect();
    expected.splice(23..23, ["23a".to_owned(), "23b".to_owned()]);
    expected.extend((1..=12).map(|number| format!("R{number}")));
    expected.extend((1..=6).map(|number| format!("P{number}")));
    expected.extend((1..=33).map(|number| format!("L{number}")));
    assert_eq!(numbers, expected);
}

/// What imoje's documents name in answers, notices and samples, besides what the simulator checks in requests.
const ANSWERED: [&str; 34] = [
    "action",
    "apiErrorResponse",
    "code",
    "contentBodyRaw",
    "contentType",
    "created",
    "errors",
    "firstTransactionId",
    "id",
    "installment",
    "instance",
    "isActive",
    "maskedNumber",
    "merchantCustomerId",
    "merchantId",
    "merchantMid",
    "message",
    "method",
    "modified",
    "month",
    "organization",
    "originalTransactionId",
    "payment",
    "paymentProfile",
    "profile",
    "property",
    "refunds",
    "simp",
    "source",
    "status",
    "statusCode",
    "transaction",
    "url",
    "year",
];

/// Everything that the simulator checks is a field of the documents; each stands in the table with the test that shows it, and so does what
/// they name in answers.
#[test]
fn every_field_of_imojes_documents_is_in_the_readme_with_a_test() {
    let table = section(README, "imoje, endpoint by endpoint");
    let all_tests = tests_in(&sources());
    let mut named = BTreeSet::new();
    for cells in rows(table) {
        let [endpoint, fields, how, tests] = &cells[..] else {
            panic!("row {cells:?} has {} cells", cells.len());
        };
        // A row without a name of its own goes on with the endpoint above it.
        named.extend(codes(endpoint));
        named.extend(codes(fields));
        named.extend(codes(how));
        let tests = codes(tests);
        assert!(!tests.is_empty(), "{cells:?}");
        for test in tests {
            assert!(all_tests.contains(&test), "there is no test {test}");
        }
    }
    let schema = [
        include_str!("../src/simulator/schema/bodies.rs"),
        include_str!("../src/simulator/schema/invoice.rs"),
    ];
    for marker in ["required(", "optional("] {
        for rest in schema.iter().flat_map(|text| text.split(marker).skip(1)) {
            let Some(field) = rest.trim_start().strip_prefix('"') else {
                continue;
            };
            let field = field.split('"').next().unwrap();
            assert!(named.contains(field), "{field} is not in the table");
        }
    }
    for field in ANSWERED {
        assert!(named.contains(field), "{field} is not in the table");
    }
    for endpoint in [
        "POST transaction/profile",
        "POST transaction",
        "GET transaction/{id}",
        "POST transaction/{id}/refund",
        "POST transaction/{id}/can-refund",
        "POST payment",
        "GET payment/{id}",
        "POST payment/cancel",
        "GET profile/id/{id}",
        "GET profile/cid/{cid}",
        "POST profile/deactivate",
        "DELETE profile/id/{id}",
        "GET service/{id}",
    ] {
        assert!(named.contains(endpoint), "{endpoint} is not in the table");
    }
}

/// A test of the database compares the rows with the schema; a test that is named runs what is seen here.
#[test]
fn every_mutant_of_the_schema_is_noticed_by_the_tests_that_are_named() {
    let files = test_files();
    let all_tests = tests_in(&files.concat());
    let mutants = rows(MUTANTS);
    assert!(!mutants.is_empty());
    for cells in mutants {
        let [name, _on, keeps, noticed, tests] = &cells[..] else {
            panic!("row {cells:?} has {} cells", cells.len());
        };
        let (name, noticed, tests) = (code(name), code(noticed), codes(tests));
        assert!(!keeps.is_empty(), "what does {name} keep?");
        assert!(!tests.is_empty(), "nothing tests {name}");
        for test in tests {
            assert!(all_tests.contains(&test), "{name}: there is no test {test}");
            let text = text_of_test(&files, &test).expect("a test is an item of its file");
            assert!(takes_away(&text, &name), "{test} does not take {name} away");
            assert!(
                is_word_of(&text, &noticed),
                "{test} does not see what {name} is for, {noticed}"
            );
        }
    }
}

#[test]
fn a_test_that_does_not_take_away_what_it_is_named_for_is_found() {
    let file = r#"
const STEP: &str = "ALTER TABLE charges DISABLE TRIGGER charge_step";
const FACTS: &str = "ALTER TABLE charges DISABLE TRIGGER charge_facts";
fn without(constraint: &str) -> String {
    format!("ALTER TABLE charges DROP CONSTRAINT {constraint}")
}
async fn the_first() {
    is_refused("CY006", STEP);
}
async fn the_second() {
    is_refused("23514", without("charges_say_why"));
}
async fn the_third() {
    assert!(is_there("charges_say_why"));
}
"#;
    let files = [file.to_owned()];
    let does = |test: &str, name: &str| takes_away(&text_of_test(&files, test).unwrap(), name);
    assert!(does("the_first", "charge_step"));
    assert!(!does("the_first", "charge_facts"));
    assert!(!does("the_first", "charge"));
    assert!(does("the_second", "charges_say_why"));
    assert!(!does("the_third", "charges_say_why"));
    assert_eq!(text_of_test(&files, "the_fourth"), None);
}

#[test]
fn a_function_that_nobody_runs_is_no_test() {
    let file = r#"
#[test]
fn the_first() {
    fn inside() {}
}
fn a_helper() {}
#[tokio::test(flavor = "multi_thread")]
#[expect(
    clippy::too_many_lines,
    reason = "a story"
)]
/// Told at length.
async fn the_second() {}
#[cfg(test)]
mod tests {
    async fn another_helper() {}
    proptest! {
        #[test]
        fn the_third(number: u32) {}
    }
}
"#;
    let tests = ["the_first", "the_second", "the_third"].map(str::to_owned);
    assert_eq!(tests_in(file), BTreeSet::from(tests));
}

#[test]
fn the_architecture_stays_short() {
    let lines = ARCHITECTURE.lines().count();
    assert!(lines <= ARCHITECTURE_LINES_MAX, "{lines} lines");
}

#[test]
fn every_relative_link_leads_somewhere() {
    let mut broken = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for target in links(&text) {
            if let Err(reason) = follow(&document, &target) {
                broken.push(format!("{}: ({target}) {reason}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn every_file_that_a_document_names_exists() {
    let mut missing = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for name in text.split('`').filter(|name| is_path_of_ours(name)) {
            if !root().join(name).exists() {
                missing.push(format!("{}: `{name}`", document.display()));
            }
        }
    }
    assert!(missing.is_empty(), "\n{}\n", missing.join("\n"));
}

#[test]
fn every_command_that_a_text_names_exists() {
    let mut wrong = Vec::new();
    for file in texts() {
        let text = fs::read_to_string(&file).unwrap();
        for line in command_lines(&text) {
            if let Err(reason) = understand(&line) {
                wrong.push(format!("{}: `{line}`: {reason}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn every_view_that_a_text_names_exists() {
    let schema = migrations();
    let views = views_of(&schema);
    let mut missing = Vec::new();
    for file in texts() {
        let text = fs::read_to_string(&file).unwrap();
        for name in views_named_in(&text) {
            let is_function = schema.contains(&format!("CREATE FUNCTION {name}("));
            if !views.contains_key(&name) && !is_function {
                missing.push(format!("{}: {name}", file.display()));
            }
        }
    }
    assert!(missing.is_empty(), "\n{}\n", missing.join("\n"));
}

#[test]
fn a_command_that_does_not_exist_is_found() {
    let understood = |text: &str| {
        let lines = command_lines(text);
        assert_eq!(lines.len(), 1, "one command in {text:?}: {lines:?}");
        understand(&lines[0])
    };
    for right in [
        "`cykl status`",
        "`cykl charge show CHARGE`",
        "`cykl brake stop --shop NAME\n  --reason TEXT`",
        "`cykl --config FILE run`",
        "`cykl --config=FILE COMMAND --help`",
        "`cykl brake`",
        "`sudo -u cykl cykl brake release --reason 'a cause | gone'`",
        "```sh\nsudo systemd-run --pipe \\\n  -p LoadCredential=a:/b /usr/bin/cykl check\n```",
        "```sh\n  /usr/bin/cykl --actor \"$USER\" \"$@\"\n```",
        "```sh\nsystemctl start cykl\njournalctl -u cykl | grep a && cykl_once check # cykl nothing\n```",
        "ExecStart=/usr/bin/cykl run\n",
    ] {
        assert_eq!(understood(right), Ok(()), "{right}");
    }
    for wrong in [
        "`cykl forecast`",
        "`cykl charge\n  refund CHARGE`",
        "`cykl status --days 31`",
        "`cykl brake stop --reazon TEXT`",
        "`sudo -u cykl cykl nothing`",
        "```sh\ntrue; target/debug/cykl --config run status2\n```",
        "ExecStart=/usr/bin/cykl runs\n",
    ] {
        assert!(understood(wrong).is_err(), "{wrong}");
    }
    for other in [
        "`journalctl -u cykl -n 100`",
        "```sh\nsudo install -m 0755 target/release/cykl /usr/bin/cykl\n```",
        "```sh\nsudo -u postgres createdb --owner=cykl cykl\n```",
        "cykl nothing",
    ] {
        assert!(command_lines(other).is_empty(), "{other}");
    }
}

#[test]
fn views_are_found_in_texts_and_addresses_are_not() {
    let text = "`billing.held`, SELECT * FROM billing.due_today; https://billing.example.com and the end of billing.\n";
    assert_eq!(views_named_in(text), ["billing.held", "billing.due_today"]);
}

#[test]
fn a_broken_link_is_found() {
    let readme = root().join("README.md");
    assert_eq!(follow(&readme, "docs/events.md#kinds"), Ok(()));
    assert_eq!(follow(&readme, "#what-it-does-not-do"), Ok(()));
    assert!(follow(&readme, "docs/nothing.md").is_err());
    assert!(follow(&readme, "docs/events.md#nothing").is_err());
    let text = "[a](b.md) `[c](d.md)` [e](https://example.test)\n```\n[f](g.md)\n```\n![h](i.png)";
    assert_eq!(links(text), ["b.md", "i.png"]);
}

#[test]
fn views_are_read_with_their_columns() {
    let sql = "CREATE VIEW billing.a AS\nSELECT DISTINCT s.id, (SELECT max(x) FROM y) AS most, now() AS at, k.\"b\"\nFROM s;\n\
               CREATE OR REPLACE VIEW billing.b AS WITH z AS (SELECT q FROM r) SELECT z.q::text AS w FROM z UNION ALL SELECT v FROM u;";
    let views = views_of(sql);
    assert_eq!(views["billing.a"], ["id", "most", "at", "b"]);
    assert_eq!(views["billing.b"], ["w"]);
}

/// Every command that can be run, as it is written.
fn commands() -> BTreeSet<String> {
    fn walk(command: &clap::Command, path: &str, found: &mut BTreeSet<String>) {
        let is_group = command.get_subcommands().next().is_some();
        if !is_group {
            found.insert(path.to_owned());
        }
        for inner in command.get_subcommands() {
            walk(inner, &format!("{path} {}", inner.get_name()), found);
        }
    }
    let mut found = BTreeSet::new();
    walk(&Cli::command(), "cykl", &mut found);
    found
}

/// Every text that tells operators what to run: the documents, and what stands in `deploy/` and `config/`.
fn texts() -> Vec<PathBuf> {
    let mut found = documents();
    found.extend(files(&root().join("deploy")));
    found.extend(files(&root().join("config")));
    found
}

/// The text of every source, tests included.
fn sources() -> String {
    ["src", "tests"]
        .iter()
        .flat_map(|folder| files(&root().join(folder)))
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| fs::read_to_string(path).expect("a source is readable"))
        .collect()
}

/// The names of the functions in a source that are run as tests: `#[test]` or `#[tokio::test]` stands above them.
fn tests_in(source: &str) -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    let mut is_marked = false;
    for line in source.lines().map(str::trim) {
        let item = line.strip_prefix("pub ").unwrap_or(line);
        let item = item.strip_prefix("async ").unwrap_or(item);
        if let Some((name, _)) = item
            .strip_prefix("fn ")
            .and_then(|rest| rest.split_once('('))
        {
            if is_marked {
                tests.insert(name.to_owned());
            }
            is_marked = false;
        } else if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_marked = true;
        }
    }
    tests
}

/// The sources of the tests against a database, one by one.
fn test_files() -> Vec<String> {
    files(&root().join("tests/it"))
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| fs::read_to_string(path).expect("a source is readable"))
        .collect()
}

/// The text of a test with the constants and the functions that it names, from its own file or else from those that lend theirs.
fn text_of_test(files: &[String], test: &str) -> Option<String> {
    let (file, body) = files
        .iter()
        .find_map(|file| Some((file, item(file, "fn ", test)?)))?;
    let lent = files.iter().map(String::as_str);
    let words: BTreeSet<_> = body
        .split(|letter: char| !letter.is_alphanumeric() && letter != '_')
        .filter(|word| *word != test && !word.is_empty())
        .collect();
    let named = words.into_iter().filter_map(|word| {
        let own = item(file, "const ", word).or_else(|| item(file, "fn ", word));
        own.or_else(|| lent.clone().find_map(|file| item(file, "pub const ", word)))
    });
    Some(named.fold(body.to_owned(), |text, item| text + item))
}

/// Whether a test drops or disables something, by its name or with that as one of a list.
fn takes_away(text: &str, name: &str) -> bool {
    let is_listed = text.contains(&format!("\"{name}\""));
    ["DROP INDEX ", "DROP CONSTRAINT ", "DISABLE TRIGGER "]
        .iter()
        .any(|how| {
            is_word_of(text, &format!("{how}{name}"))
                || is_listed && text.contains(&format!("{how}{{"))
        })
}

/// An item at the outermost level of a file: up to the end of its statement or of its block.
fn item<'a>(file: &'a str, kind: &str, name: &str) -> Option<&'a str> {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    let head = format!("{kind}{name}");
    let start = file.match_indices(&head).find_map(|(start, _)| {
        let line = file[..start].rfind('\n').map_or(0, |end| end + 1);
        let is_outermost = matches!(&file[line..start], "" | "pub " | "async " | "pub async ");
        let is_whole = !file[start + head.len()..].starts_with(is_part);
        (is_outermost && is_whole).then_some(start)
    })?;
    let end = if kind.ends_with("fn ") {
        "\n}\n"
    } else {
        ";\n"
    };
    let rest = &file[start..];
    Some(rest.split_once(end).map_or(rest, |(item, _)| item))
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder is readable") {
        let path = entry.expect("the folder is readable").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// The calls of Cykl in a text, from the program's name on: those in code, and those of a unit.
fn command_lines(text: &str) -> Vec<String> {
    let pieces: Vec<_> = text.split('`').collect();
    let mut lines: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("ExecStart="))
        .map(str::to_owned)
        .collect();
    for (place, piece) in pieces.iter().enumerate().skip(1).step_by(2) {
        // Two empty pieces before it are the three marks of a fence, whose first line names the language.
        let is_fenced = place > 2 && pieces[place - 2..place].concat().is_empty();
        if is_fenced {
            let block = piece.replace("\\\n", " ");
            lines.extend(block.lines().skip(1).map(str::to_owned));
        } else {
            lines.push(piece.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    lines.iter().flat_map(|line| calls(line)).collect()
}

/// The calls of Cykl in a line of shell.
fn calls(line: &str) -> Vec<String> {
    let line = line.split(" #").next().unwrap_or(line);
    let mut calls = Vec::new();
    for call in line.split(['|', ';', '&']) {
        let mut words = call.split_whitespace().peekable();
        if words.next_if_eq(&"sudo").is_some() && words.next_if_eq(&"-u").is_some() {
            words.next();
        }
        if words.next_if_eq(&"systemd-run").is_some() {
            while words.next_if(|word| !is_program(word)).is_some() {}
        }
        if words.next_if(|word| is_program(word)).is_some() {
            let words: Vec<_> = words.collect();
            calls.push(format!("cykl {}", words.join(" ")));
        }
    }
    calls
}

/// Whether a word calls Cykl; `cykl_once` is the runbook's function that does.
fn is_program(word: &str) -> bool {
    matches!(word, "cykl" | "cykl_once") || word.ends_with("/cykl")
}

/// Whether Cykl has the command, and the command the options, of a line. Words in capitals, and those in quotes or of the shell, stand
/// for something else.
fn understand(line: &str) -> Result<(), String> {
    let mut root = Cli::command();
    root.build();
    let mut command = &root;
    let mut words = line.split_whitespace().skip(1);
    while let Some(word) = words.next() {
        let is_named = word.starts_with(|letter: char| letter.is_ascii_lowercase());
        if let Some(option) = word.strip_prefix("--") {
            let (name, value) = option
                .split_once('=')
                .map_or((option, None), |(name, value)| (name, Some(value)));
            let argument = command
                .get_arguments()
                .find(|argument| argument.get_long() == Some(name))
                .ok_or_else(|| format!("{} has no --{name}", command.get_name()))?;
            if value.is_none() && argument.get_action().takes_values() {
                words.next();
            }
        } else if is_named && command.has_subcommands() {
            command = command
                .find_subcommand(word)
                .ok_or_else(|| format!("{} has no command {word}", command.get_name()))?;
        }
    }
    Ok(())
}

/// Everything that a text calls `billing.` something, but for the names of hosts.
fn views_named_in(text: &str) -> Vec<String> {
    text.match_indices("billing.")
        .filter(|(start, _)| {
            let before = text[..*start].chars().next_back();
            !before.is_some_and(|letter| letter.is_alphanumeric() || "/._-@".contains(letter))
        })
        .map(|(start, schema)| {
            let rest = &text[start + schema.len()..];
            let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
            let end = rest.find(|letter| !is_name(letter));
            rest[..end.unwrap_or(rest.len())].to_owned()
        })
        .filter(|name| !name.is_empty())
        .map(|name| format!("billing.{name}"))
        .collect()
}

/// Every command of the README's table.
fn documented_commands() -> BTreeSet<String> {
    rows(section(README, "Commands"))
        .into_iter()
        .flat_map(|cells| codes(cells[0]))
        .collect()
}

/// The keys of `config/default.toml`, commented ones included, with the default of those that are set.
fn keys_of(defaults: &str) -> BTreeMap<String, Option<String>> {
    let mut keys = BTreeMap::new();
    let mut section = String::new();
    for line in defaults.lines() {
        let (line, is_set) = match line.strip_prefix("# ") {
            Some(line) => (line, false),
            None => (line, true),
        };
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            section = name.replace("shops.main", "shops.<name>");
        } else if let Some((key, value)) = line.split_once(" = ") {
            let is_key = key
                .chars()
                .all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
            if section == "retry.classes" {
                keys.insert("retry.classes.<code>".to_owned(), None);
            } else if is_key {
                let value = value.trim_matches('"').to_owned();
                keys.insert(format!("{section}.{key}"), is_set.then_some(value));
            }
        }
    }
    keys
}

/// All migrations, in their order.
fn migrations() -> String {
    let mut paths: Vec<_> = fs::read_dir(root().join("migrations"))
        .and_then(Iterator::collect::<Result<_, _>>)
        .map(|entries: Vec<fs::DirEntry>| entries.iter().map(fs::DirEntry::path).collect())
        .expect("migrations/ is readable");
    paths.sort();
    paths
        .iter()
        .map(|path| fs::read_to_string(path).expect("a migration is readable"))
        .collect()
}

/// The views of the schema `billing` with their columns, in order; a later definition wins.
fn views_of(sql: &str) -> BTreeMap<String, Vec<String>> {
    let mut views = BTreeMap::new();
    for rest in sql.split("VIEW billing.").skip(1) {
        let (name, rest) = rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len()));
        let Some(query) = rest.trim_start().strip_prefix("AS") else {
            // A COMMENT ON VIEW.
            continue;
        };
        let query = query.split(';').next().unwrap_or(query);
        let columns = selected(query)
            .iter()
            .map(|column| name_of(column))
            .collect();
        views.insert(format!("billing.{name}"), columns);
    }
    views
}

/// The expressions of the first `SELECT` of a query that is not inside of brackets.
fn selected(query: &str) -> Vec<String> {
    let mut depth = 0_usize;
    let mut columns: Option<Vec<String>> = None;
    for word in query.split_inclusive([' ', '\n', ',', '(', ')']) {
        let bare = word.trim_end_matches([' ', '\n', ',', '(', ')']);
        match (&mut columns, bare) {
            (None, "SELECT") if depth == 0 => columns = Some(vec![String::new()]),
            (Some(_), "FROM") if depth == 0 => break,
            (Some(_), "DISTINCT") if depth == 0 => {}
            (Some(columns), _) => {
                let ends_column = depth == 0 && word.ends_with(',');
                let last = columns.last_mut().expect("there is a first column");
                last.push_str(if ends_column { bare } else { word });
                if ends_column {
                    columns.push(String::new());
                }
            }
            (None, _) => {}
        }
        depth += word.matches('(').count();
        depth -= word.matches(')').count();
    }
    columns.unwrap_or_default()
}

/// What a column is called: its alias, or the name behind the last dot.
fn name_of(column: &str) -> String {
    let column = column.trim();
    let name = column
        .rsplit_once(" AS ")
        .map_or(column, |(_, alias)| alias);
    let name = name.rsplit_once('.').map_or(name, |(_, name)| name);
    name.trim().trim_matches('"').to_owned()
}

/// The steps that a machine takes: from each state to all others that an event leads to.
fn steps<S: Copy + PartialEq + Debug, E: Copy + Debug>(
    states: &[S],
    name: fn(S) -> &'static str,
    events: &[E],
    after: fn(S, E) -> Result<S, IllegalTransition<S, E>>,
) -> BTreeMap<String, BTreeSet<String>> {
    states
        .iter()
        .map(|&state| {
            let next = events
                .iter()
                .filter_map(|&event| after(state, event).ok())
                .filter(|&next| next != state)
                .map(|next| name(next).to_owned());
            (name(state).to_owned(), next.collect())
        })
        .collect()
}

/// The steps that ARCHITECTURE.md draws below the paragraph that begins with `subject`.
fn drawn(subject: &str) -> BTreeMap<String, BTreeSet<String>> {
    let states = section(ARCHITECTURE, "States");
    let start = states
        .find(&format!("\n{subject} (`src/domain/"))
        .expect("the machine is drawn");
    fence(&states[start..], "text")
        .lines()
        .map(|line| {
            let (state, next) = line
                .split_once("->")
                .expect("a line is a state and its steps");
            let next = next
                .split('|')
                .map(str::trim)
                .filter(|next| !next.is_empty());
            (state.trim().to_owned(), next.map(str::to_owned).collect())
        })
        .collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every document of the repository.
fn documents() -> Vec<PathBuf> {
    let mut found: Vec<_> = ["", "docs"]
        .iter()
        .flat_map(|folder| fs::read_dir(root().join(folder)).expect("the folder is readable"))
        .map(|entry| entry.expect("the folder is readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    found.sort();
    found
}

/// The text below a heading of any level, up to the next of the same or a higher one.
fn section<'a>(document: &'a str, heading: &str) -> &'a str {
    let (start, level) = headings(document)
        .into_iter()
        .find(|(_, _, text)| *text == heading)
        .map(|(start, level, _)| (start, level))
        .unwrap_or_else(|| panic!("there is no heading {heading}"));
    let end = headings(document)
        .into_iter()
        .find(|(next, next_level, _)| *next > start && *next_level <= level)
        .map_or(document.len(), |(next, ..)| next);
    &document[start..end]
}

/// Where each heading begins, its level and its text.
fn headings(document: &str) -> Vec<(usize, usize, &str)> {
    let mut found = Vec::new();
    let mut position = 0;
    let mut is_fenced = false;
    for line in document.split_inclusive('\n') {
        is_fenced ^= line.trim_start().starts_with("```");
        let level = line.len() - line.trim_start_matches('#').len();
        if !is_fenced && level > 0 && line[level..].starts_with(' ') {
            found.push((position, level, line[level..].trim()));
        }
        position += line.len();
    }
    found
}

/// The first fenced block of a language.
fn fence<'a>(text: &'a str, language: &str) -> &'a str {
    let opening = format!("```{language}\n");
    let start = text.find(&opening).expect("there is such a block") + opening.len();
    let end = text[start..].find("```").expect("the block is closed");
    &text[start..start + end]
}

/// The rows of the tables of a section, without their heads.
fn rows(section: &str) -> Vec<Vec<&str>> {
    let lines: Vec<_> = section.lines().collect();
    let is_row = |line: &str| line.starts_with('|') && !line.starts_with("|-");
    lines
        .iter()
        .enumerate()
        .filter(|(place, line)| {
            let is_head = lines
                .get(place + 1)
                .is_some_and(|next| next.starts_with("|-"));
            is_row(line) && !is_head
        })
        .map(|(_, line)| cells(line))
        .collect()
}

/// The cells of a row. A bar inside of code does not end a cell.
fn cells(line: &str) -> Vec<&str> {
    let mut cells = Vec::new();
    let mut start = 1;
    let mut is_code = false;
    for (position, character) in line.char_indices().skip(1) {
        if character == '`' {
            is_code = !is_code;
        } else if character == '|' && !is_code {
            cells.push(line[start..position].trim());
            start = position + 1;
        }
    }
    cells
}

/// What a cell has in code, once.
fn code(cell: &str) -> String {
    let found = codes(cell);
    assert_eq!(found.len(), 1, "one name in {cell}");
    found.concat()
}

/// Everything that a text has in code.
fn codes(text: &str) -> Vec<String> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// Whether `word` is in `text`, and not as a part of a longer one.
fn is_word_of(text: &str, word: &str) -> bool {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    text.match_indices(word).any(|(start, _)| {
        let before = text[..start].chars().next_back();
        let after = text[start + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

/// Whether a name in code is meant as a path in this repository.
fn is_path_of_ours(name: &str) -> bool {
    let folders = [
        "src/",
        "tests/",
        "docs/",
        "config/",
        "deploy/",
        "migrations/",
        ".ci/",
    ];
    let is_plain = name
        .chars()
        .all(|letter| letter.is_ascii_alphanumeric() || "._-/".contains(letter));
    is_plain && folders.iter().any(|folder| name.starts_with(folder))
}

/// The targets of the links of a document, but for those that lead out of the repository.
fn links(document: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_fenced = false;
    for line in document.lines() {
        is_fenced ^= line.trim_start().starts_with("```");
        if is_fenced {
            continue;
        }
        let prose: String = line.split('`').step_by(2).collect();
        for rest in prose.split("](").skip(1) {
            let target = rest.split(')').next().unwrap_or(rest);
            if !target.contains("://") && !target.starts_with("mailto:") {
                found.push(target.to_owned());
            }
        }
    }
    found
}

/// Whether a link of `document` leads to a file and, if it names one, to a heading.
fn follow(document: &Path, target: &str) -> Result<(), String> {
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let folder = document.parent().unwrap_or(root());
    let path = if file.is_empty() {
        document.to_owned()
    } else {
        normal(&folder.join(file))
    };
    if !path.starts_with(root()) {
        return Err("leads out of the repository".to_owned());
    }
    if !path.exists() {
        return Err("there is no such file".to_owned());
    }
    if anchor.is_empty() {
        return Ok(());
    }
    let text = fs::read_to_string(&path).map_err(|error| error.to_string())?;
    let has_anchor = headings(&text)
        .iter()
        .any(|(_, _, heading)| slug(heading) == anchor);
    has_anchor
        .then_some(())
        .ok_or_else(|| "there is no such heading".to_owned())
}

/// A path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => {
                normal.push(component);
            }
        }
    }
    normal
}

/// What GitHub calls the anchor of a heading.
fn slug(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter))
        .map(|letter| if letter == ' ' { '-' } else { letter })
        .collect()
}
