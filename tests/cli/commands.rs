//! What each command prints, in each form, and what it does not accept.

use std::collections::BTreeSet;
use std::process::Stdio;

use cykl::clock::Clock;
use cykl::simulator::{Channel, Currency, Script};
use serde_json::Value;

use crate::place::Place;

/// The columns of `billing.charges` (the contract).
const CHARGE_FIELDS: &str = "charge_id,subscription_id,external_id,shop,period_no,due_on,due_at,amount_minor,currency,state,\
attempts,next_action_at,paid_at,last_status_code,transaction_id,reason";

#[tokio::test]
async fn charges_are_listed_newest_first_in_every_form() {
    let place = Place::healthy().await;
    let list = place
        .run(&["charge", "list", "--output", "json"])
        .succeeded()
        .json();
    let list = list.as_array().unwrap();
    assert_eq!(list.len(), 6);
    let fields: BTreeSet<_> = list[0]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(fields, CHARGE_FIELDS.split(',').collect());
    assert_eq!(list[0]["charge_id"], "00000000-0000-7000-8000-0000000d4000");
    assert_eq!(list[0]["state"], "failed");
    assert_eq!(list[0]["amount_minor"], 4900);

    let csv = place
        .run(&["charge", "list", "--output", "csv"])
        .succeeded()
        .stdout;
    let lines: Vec<_> = csv.split("\r\n").collect();
    assert_eq!(lines[0], CHARGE_FIELDS);
    assert_eq!(lines.len(), 8);
    // What a shop calls its subscription is no formula of a spreadsheet.
    assert!(lines[6].contains(",'=1+1,"), "{csv}");

    let table = place.run(&["charge", "list"]).succeeded().stdout;
    assert_eq!(table.lines().count(), 7);
    assert!(
        table.lines().next().unwrap().contains("external_id"),
        "{table}"
    );
}

#[tokio::test]
async fn what_imoje_does_not_take_is_not_stored() {
    let place = Place::healthy().await;
    let script = Script {
        channel: Channel {
            currencies: vec![Currency::Pln],
            min: 2_000,
            max: 5_000,
        },
        ..Script::default()
    };
    let file = place.path().join("subscriptions.csv");
    std::fs::write(
        &file,
        "external_id,cid,payment_profile_id,amount_minor,currency,period,anchor_date\n\
         S-1,c-1,c0de0b1e-1111-4222-8333-9a4b5c6d7e8f,1999,PLN,P1M,2030-01-31\n\
         S-2,c-2,c0de0b1e-2222-4222-8333-9a4b5c6d7e8f,2000,EUR,P1M,2030-01-31\n",
    )
    .unwrap();
    let import = ["subscription", "import", file.to_str().unwrap()];
    let alone = place.run(&[&import[..], &["--dry-run"]].concat());
    let alone = alone.succeeded();
    assert!(
        alone
            .stderr
            .contains("warning: couldn't ask imoje what shop"),
        "{alone:?}"
    );
    let _gateway = place.open_gateway(script).await;
    let refused = place.run_aside(&import).await.ended(65);
    for told in [
        "line 2: amount_minor \"1999\" is outside of what the shop's recurring channel takes; allowed: 2000 to 5000 in PLN",
        "line 3: currency \"EUR\" is not a currency of the shop's recurring channel; allowed: PLN",
    ] {
        assert!(refused.stderr.contains(told), "{refused:?}");
    }
    let add = "subscription add --external-id S-1 --cid c-1 --payment-profile-id c0de0b1e-1111-4222-8333-9a4b5c6d7e8f \
               --currency PLN --period P1M --anchor-date 2030-01-31 --reason test --amount-minor";
    let add = async |amount| {
        let words: Vec<_> = add.split_whitespace().chain([amount]).collect();
        place.run_aside(&words).await
    };
    let refused = add("5001").await.ended(65);
    assert!(
        refused.stderr.contains("allowed: 2000 to 5000"),
        "{refused:?}"
    );
    add("5000").await.succeeded();
    let checked = place.run_aside(&["check"]).await;
    assert!(
        checked
            .stdout
            .contains("recurring payments in PLN take 2000 to 5000 minor units"),
        "{checked:?}"
    );
}

#[tokio::test]
async fn charges_are_found_by_state_shop_and_subscription() {
    let place = Place::healthy().await;
    let count = |arguments: &[&str]| {
        let arguments = [&["charge", "list", "--output", "json"], arguments].concat();
        place
            .run(&arguments)
            .succeeded()
            .json()
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(count(&["--state", "paid"]), 4);
    assert_eq!(count(&["--state", "held"]), 1);
    assert_eq!(count(&["--shop", "main"]), 6);
    assert_eq!(count(&["--shop", "other"]), 0);
    assert_eq!(count(&["--subscription", "=1+1"]), 3);
    assert_eq!(
        count(&["--subscription", "00000000-0000-7000-8000-000000005001"]),
        3
    );
    assert_eq!(count(&["--subscription", "=1+1", "--state", "paid"]), 2);
    assert_eq!(count(&["--subscription", "nobody"]), 0);
    assert_eq!(count(&["--limit", "2"]), 2);
    let cut = place.run(&["charge", "list", "--limit", "2"]).succeeded();
    assert!(cut.stderr.contains("--limit"), "{cut:?}");
    for wrong in [
        ["--state", "lost"],
        ["--limit", "0"],
        ["--limit", "many"],
        ["--shop", "Main Shop"],
    ] {
        let ran = place
            .run(&[&["charge", "list"], &wrong[..]].concat())
            .ended(2);
        assert!(ran.stderr.contains(wrong[0]), "{ran:?}");
    }
}

#[tokio::test]
async fn a_charge_is_shown_with_all_that_is_known_about_it() {
    let place = Place::healthy().await;
    let id = "00000000-0000-7000-8000-0000000d1001";
    let story = place
        .run(&["charge", "show", id, "--output", "json"])
        .succeeded()
        .json();
    assert_eq!(story["charge_id"], id);
    assert_eq!(story["state"], "paid");
    let states: Vec<_> = story["attempt_list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|attempt| attempt["state"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["rejected", "settled"]);
    assert_eq!(story["evidence"].as_array().unwrap().len(), 2);
    let events: Vec<_> = story["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| &event["kind"])
        .collect();
    assert_eq!(events, ["charge.declined", "charge.paid"]);

    let text = place.run(&["charge", "show", id]).succeeded().stdout;
    for part in [
        "ATTEMPTS",
        "EVIDENCE",
        "EVENTS",
        "CODE_51",
        "cykl-0000000000007000800000000000500",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("WHAT TO DO"), "{text}");
    let csv = place
        .run(&["charge", "show", id, "--output", "csv"])
        .succeeded()
        .stdout;
    assert_eq!(csv.lines().count(), 2);
}

/// The charge of the healthy books whose outcome is unknown.
const IN_DOUBT: &str = "00000000-0000-7000-8000-0000000d1002";
/// The one that failed, of a subscription that was deactivated.
const FAILED: &str = "00000000-0000-7000-8000-0000000d4000";
/// One that is paid.
const PAID: &str = "00000000-0000-7000-8000-0000000d1000";

/// A notice of another order, from the time in which the one of the charge in doubt would have come.
const NOTICE: &str = "INSERT INTO cykl.notices (notice_id, shop, body_sha256, body, order_id, state, received_at)
    VALUES ('0195ef81-8e00-7000-8000-000000000001', 'main', sha256('x'), 'x', 'another', 'done', '2025-04-01T04:00Z')";

#[tokio::test]
async fn a_charge_in_doubt_is_shown_with_a_checklist() {
    let place = Place::healthy().await;
    let ran = place.run(&["charge", "show", IN_DOUBT]).succeeded();
    let (_, checklist) = ran.stdout.split_once("WHAT TO DO").unwrap();
    for part in [
        "cykl-00000000000070008000000000005001-2-1",
        "49.00 PLN",
        "****1111",
        "2025-03-31T05:50:00+02:00 to 2025-03-31T06:15:00+02:00",
        "2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b",
        "simulator",
        "Q1.",
        "Q2.",
        "Q3.",
        "Q4.",
    ] {
        assert!(checklist.contains(part), "{part}: {checklist}");
    }
    let (_, decisions) = checklist.split_once("WHAT CAN BE DECIDED").unwrap();
    for part in [
        "cykl charge settle 00000000-0000-7000-8000-0000000d1002 --transaction ID --reason TEXT --actor NAME\n      now\n",
        "cykl charge declare-absent 00000000-0000-7000-8000-0000000d1002 --reason TEXT --actor NAME\n      not possible; no notice",
        "cykl charge write-off 00000000-0000-7000-8000-0000000d1002 --reason TEXT --actor NAME\n      now\n",
    ] {
        assert!(decisions.contains(part), "{part}: {decisions}");
    }
    assert!(!decisions.contains("approve"), "{decisions}");
}

#[tokio::test]
async fn a_charge_is_shown_with_the_decisions_that_come_into_question() {
    let place = Place::healthy().await;
    let decisions = |charge: &str| {
        let arguments = ["charge", "show", charge, "--output", "json"];
        let shown = place.run(&arguments).succeeded().json();
        shown["decisions"].as_array().unwrap().clone()
    };
    assert_eq!(decisions(PAID), Vec::<Value>::new());
    let failed = decisions(FAILED);
    assert_eq!(failed.len(), 2, "{failed:?}");
    assert_eq!(failed[0]["decision"], "settle");
    assert_eq!(failed[1]["decision"], "retry_now");
    assert_eq!(failed[1]["possible_at"], Value::Null);
    assert_eq!(
        failed[1]["note"],
        "the subscription is deactivated, and nothing is charged for it"
    );
    place.sql(NOTICE).await;
    let in_doubt = decisions(IN_DOUBT);
    let absent = &in_doubt[1];
    assert_eq!(absent["decision"], "declare_absent");
    assert_eq!(
        absent["command"],
        format!("cykl charge declare-absent {IN_DOUBT} --reason TEXT --actor NAME")
    );
    assert!(absent["possible_at"].is_string(), "{absent}");
    // Before the hundred hours are over the time is told.
    place.sql("SET session_replication_role = replica; UPDATE cykl.attempts SET permitted_at = now(), deadline_at = now() WHERE state = 'in_doubt'").await;
    let early = &decisions(IN_DOUBT)[1];
    let possible_at: chrono::DateTime<chrono::Utc> =
        early["possible_at"].as_str().unwrap().parse().unwrap();
    assert!(
        possible_at > Clock::system().now() + chrono::TimeDelta::hours(99),
        "{early}"
    );
}

#[tokio::test]
async fn two_people_declare_a_debit_absent_from_the_command_line() {
    let place = Place::healthy().await;
    let declare = |actor: &str| {
        place.run(&[
            "charge",
            "declare-absent",
            IN_DOUBT,
            "--reason",
            "not in the panel",
            "--actor",
            actor,
        ])
    };
    let daemon = declare("cykl").ended(2);
    assert!(daemon.stderr.contains("--actor NAME"), "{daemon:?}");
    let silent = declare("jan").ended(1);
    assert!(
        silent.stderr.contains("no notice of any kind"),
        "{silent:?}"
    );
    place.sql(NOTICE).await;
    let first = declare("jan").succeeded();
    assert!(first.stdout.contains("a second person"), "{first:?}");
    let shown = place
        .run(&["charge", "show", IN_DOUBT, "--actor", "jan"])
        .succeeded();
    assert!(
        shown.stdout.contains("now; jan has declared it already"),
        "{shown:?}"
    );
    let same = declare(" Jan").ended(1);
    assert!(same.stderr.contains("another person has to"), "{same:?}");
    let shown = place.run(&["charge", "show", IN_DOUBT]).succeeded();
    assert!(shown.stdout.contains("not in the panel"), "{shown:?}");
    let second = declare("ewa").succeeded();
    assert!(second.stdout.contains("is retry_wait now"), "{second:?}");
    let third = declare("ola").succeeded();
    assert!(third.stdout.contains("nothing was changed"), "{third:?}");
    place.run(&["audit"]).succeeded();
}

#[tokio::test]
async fn a_charge_in_doubt_is_written_off_from_the_command_line() {
    let place = Place::healthy().await;
    let write_off = |charge: &str| {
        place.run(&[
            "charge",
            "write-off",
            charge,
            "--reason",
            "small",
            "--actor",
            "jan",
        ])
    };
    let done = write_off(IN_DOUBT).succeeded();
    assert!(done.stdout.contains("is failed now"), "{done:?}");
    let again = write_off(IN_DOUBT).succeeded();
    assert!(again.stdout.contains("nothing was changed"), "{again:?}");
    let paid = write_off(PAID).ended(1);
    assert!(paid.stderr.contains("the charge is paid"), "{paid:?}");
    assert!(paid.stderr.contains("charge show"), "{paid:?}");
    let evidence = "SELECT kind || ' ' || verdict || ' ' || actor || ' ' || detail FROM evidence WHERE actor <> 'cykl'";
    assert_eq!(place.texts(evidence).await, ["person in_doubt jan small"]);
    place.run(&["audit"]).succeeded();
}

#[tokio::test]
async fn what_the_rules_do_not_allow_is_a_no_and_what_makes_no_sense_is_usage() {
    let place = Place::healthy().await;
    let missing = "00000000-0000-7000-8000-0000000d9999";
    for (command, charge, told) in [
        ("approve", IN_DOUBT, "held because of in_doubt"),
        ("approve", FAILED, "the charge is failed"),
        ("retry-now", IN_DOUBT, "money may have moved"),
        ("retry-now", FAILED, "the subscription is deactivated"),
        ("retry-now", PAID, "the charge is paid"),
        ("declare-absent", PAID, "no attempt of it is in doubt"),
        ("write-off", missing, "there is no charge"),
    ] {
        let ran = place
            .run(&["charge", command, charge, "--reason", "x"])
            .ended(1);
        assert!(ran.stderr.contains(told), "{told}: {ran:?}");
        place.run(&["charge", command, charge]).ended(2);
        place
            .run(&["charge", command, charge, "--reason", "4111111111111111"])
            .ended(2);
        place
            .run(&["charge", command, "1042", "--reason", "x"])
            .ended(2);
    }
    let approved = place
        .run(&["charge", "approve", PAID, "--reason", "x"])
        .succeeded();
    assert!(
        approved.stdout.contains("nothing was changed"),
        "{approved:?}"
    );
}

#[tokio::test]
async fn a_transaction_is_settled_only_by_the_gateway() {
    let place = Place::healthy().await;
    let before = place
        .texts("SELECT to_jsonb(a)::text FROM attempts a ORDER BY 1")
        .await;
    let settle = |charge: &'static str, id: &'static str| {
        [
            "charge",
            "settle",
            charge,
            "--transaction",
            id,
            "--reason",
            "found",
        ]
    };
    let id = "00000000-0000-4000-8000-000000e10201";
    let away = place.run(&settle(IN_DOUBT, id)).ended(69);
    assert!(away.stderr.contains("nothing was changed"), "{away:?}");
    place.run(&settle(IN_DOUBT, "T-1042")).ended(2);
    let _gateway = place.open_gateway(Script::default()).await;
    let unknown = place.run_aside(&settle(IN_DOUBT, id)).await.ended(1);
    assert!(
        unknown
            .stderr
            .contains("did not show the transaction (HTTP 404"),
        "{unknown:?}"
    );
    let after = place
        .texts("SELECT to_jsonb(a)::text FROM attempts a ORDER BY 1")
        .await;
    assert_eq!(before, after);
}

#[tokio::test]
async fn a_charge_that_does_not_exist_is_a_no() {
    let place = Place::migrated().await;
    let ran = place
        .run(&["charge", "show", "00000000-0000-7000-8000-0000000d9999"])
        .ended(1);
    assert!(ran.stderr.contains("there is no charge"), "{ran:?}");
    place.run(&["charge", "show", "1042"]).ended(2);
    place.run(&["charge", "show"]).ended(2);
}

#[tokio::test]
async fn the_brake_is_put_on_and_released_by_somebody_for_a_reason() {
    let place = Place::migrated().await;
    let show = || {
        place
            .run(&["brake", "show", "--output", "json"])
            .succeeded()
            .json()
    };
    assert_eq!(show()[0]["mode"], "stop", "nothing is sent from new books");
    for wrong in [
        &["brake", "stop"][..],
        &["brake", "stop", "--reason", " "],
        &["brake", "stop", "--reason", "two\nlines"],
        &["brake", "stop", "--reason", "x", "--shop", "maim"],
        &["brake", "stop", "--reason", "4111 1111 1111 1111"],
        &[
            "brake",
            "stop",
            "--reason",
            "x",
            "--actor",
            "4111 1111 1111 1111",
        ],
        &["brake", "release"],
        &["brake", "halt", "--reason", "x"],
        &["brake"],
    ] {
        let ran = place.run(wrong).ended(2);
        assert!(!ran.stderr.is_empty() && !ran.stderr.contains("4111"));
    }
    place
        .run(&["brake", "release", "--reason", "ready", "--actor", "Jan"])
        .succeeded();
    place
        .run(&[
            "brake",
            "drain",
            "--reason",
            "slow answers",
            "--shop",
            "main",
        ])
        .succeeded();
    let brakes = show();
    assert_eq!(brakes[0]["shop"], "*");
    assert_eq!(brakes[0]["stage"], Value::Null, "nothing was ever charged");
    assert_eq!(
        (&brakes[0]["mode"], &brakes[0]["actor"]),
        (&Value::from("run"), &Value::from("Jan"))
    );
    assert_eq!(brakes[1]["shop"], "main");
    assert_eq!(
        (&brakes[1]["mode"], &brakes[1]["reason"]),
        (&Value::from("drain"), &Value::from("slow answers"))
    );
    let check = place.run(&["check"]);
    assert!(
        check.stdout.contains("WARN  brake: drain for main"),
        "{check:?}"
    );
    let told = place
        .texts(
            "SELECT payload ->> 'mode' FROM events WHERE kind = 'brake.changed' ORDER BY event_id",
        )
        .await;
    assert_eq!(told, ["run", "drain"]);
}

#[tokio::test]
async fn a_brake_that_was_on_shows_the_slow_start_after_its_release() {
    let place = Place::migrated().await;
    for step in ["stop", "release"] {
        let of_shop = ["brake", step, "--reason", "x", "--shop", "main"];
        place.run(&of_shop).succeeded();
    }
    let shown = place.run(&["brake", "show", "--output", "json"]);
    let slow = &shown.succeeded().json()[1];
    assert_eq!(
        (&slow["stage"], &slow["stage_max"], &slow["stage_permits"]),
        (&Value::from(1), &Value::from(1), &Value::from(0))
    );
    assert_ne!(slow["stage_since"], Value::Null);
    let check = place.run(&["check"]);
    assert!(check.stdout.contains("starts slowly"), "{check:?}");
}

#[tokio::test]
async fn the_user_who_runs_the_program_is_recorded() {
    let place = Place::migrated().await;
    place.run(&["brake", "stop", "--reason", "x"]).succeeded();
    let user = nix::unistd::User::from_uid(nix::unistd::getuid())
        .unwrap()
        .unwrap();
    assert_eq!(place.texts("SELECT actor FROM brakes").await, [user.name]);
    if nix::unistd::getuid().is_root() {
        let mut command = place.command(&["brake", "stop", "--reason", "x"]);
        assert!(
            command
                .env("SUDO_USER", "alice")
                .output()
                .unwrap()
                .status
                .success()
        );
        assert_eq!(place.texts("SELECT actor FROM brakes").await, ["alice"]);
    }
}

#[tokio::test]
async fn the_status_shows_how_things_stand() {
    let place = Place::healthy().await;
    let status = place
        .run(&["status", "--output", "json"])
        .succeeded()
        .json();
    for (figure, value) in [
        ("held", 1),
        ("failed", 1),
        ("planned", 0),
        ("in_doubt", 1),
        ("paid_24h", 0),
        ("outbox_pending", 1),
    ] {
        assert_eq!(status[figure], value, "{figure}: {status:#}");
    }
    assert_eq!(status["oldest_due_at"], "2025-04-05T04:00:00Z");
    assert_eq!(status["subscriptions"][0]["status"], "active");
    assert_eq!(status["subscriptions"][0]["subscriptions"], 2);
    assert_eq!(status["brakes"][0]["mode"], "run");
    let table = place.run(&["status"]).succeeded().stdout;
    for part in [
        "FENCE\nclosed",
        "BRAKE",
        "CHARGES",
        "SUBSCRIPTIONS",
        "WORKERS",
    ] {
        assert!(table.contains(part), "{part}: {table}");
    }
    let csv = place.run(&["status", "--output", "csv"]).succeeded().stdout;
    assert!(csv.starts_with("figure,value\r\nplanned,0\r\n"), "{csv}");
}

#[test]
fn every_shell_gets_completions() {
    let place = Place::with_config("");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = place.run(&["completions", shell]).succeeded();
        assert!(ran.stdout.contains("audit"), "{shell}");
    }
    place.run(&["completions", "cmd"]).ended(2);
}

#[test]
fn the_manual_covers_every_command() {
    let place = Place::with_config("");
    let pages = place.run(&["man"]).succeeded().stdout;
    let directory = place.path().join("man");
    place
        .run(&["man", "--dir", directory.to_str().unwrap()])
        .succeeded();
    for page in [
        "cykl",
        "cykl-check",
        "cykl-charge-show",
        "cykl-brake-stop",
        "cykl-audit",
    ] {
        assert!(directory.join(format!("{page}.1")).exists(), "{page}");
        assert!(pages.contains(&format!(".TH {page} ")), "{page}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let place = Place::with_config("");
    let mut child = place
        .command(&["man"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stderr, b"");
}

#[test]
fn help_and_version_are_no_errors_and_nonsense_is() {
    let place = Place::with_config("");
    let help = place.run(&["--help"]).succeeded();
    assert!(help.stdout.contains("Exit codes: 0 ok"), "{help:?}");
    place.run(&["--version"]).succeeded();
    place.run(&["charge"]).ended(2);
    place.run(&["pay"]).ended(2);
    place.run(&["status", "--output", "xml"]).ended(2);
    place.run(&["status", "--actor", ""]).ended(2);
}
