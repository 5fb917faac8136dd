//! Experiments in a sandbox: what `cykl check --sandbox` says about a gateway is what that gateway's ledger says.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use chrono::TimeDelta;
use cykl::cli::context::Context;
use cykl::cli::sandbox::report::{Finding, RepeatKind, Report, TakenFor, WrongKind};
use cykl::cli::sandbox::{self, TrialArgs};
use cykl::cli::{CliError, Exit};
use cykl::clock::Clock;
use cykl::config::Config;
use cykl::domain::id::ProfileId;
use cykl::domain::order_id::is_ours;
use cykl::domain::shop::Environment;
use cykl::simulator::{
    Answer, Behaviour, Call, Channel, Currency, Delivery, Notices, RepeatedOrders, Rule, Script,
    SimulatedProfile, Simulator,
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::harness::{PUBLIC_HOST, SERVICE_KEY, START, TOKEN, UNUSED, simulator, toml};
use crate::scratch;
use crate::site::free_address;

/// How many seconds pass in one: pauses are short, and the two minutes of a wait are long enough for a busy machine.
const SCALE: u32 = 20;

/// For waits that go by in vain.
const FAST: u32 = 100;

/// A gateway with three cards, and a configuration that leads to it.
struct Sandbox {
    simulator: Simulator,
    context: Context,
    directory: TempDir,
    door: SocketAddr,
    /// What the gateway's time is ahead of Cykl's, in seconds.
    ahead: Arc<AtomicI64>,
    cards: TrialArgs,
}

impl Sandbox {
    async fn new(script: Script) -> Self {
        Self::with(script, SCALE, "").await
    }

    async fn with(script: Script, scale: u32, sections: &str) -> Self {
        cykl::gateway::install_crypto();
        let door = free_address().await;
        let clock = Clock::scaled(START.parse().unwrap(), scale.try_into().unwrap());
        let ahead = Arc::<AtomicI64>::default();
        let now = {
            let (clock, ahead) = (clock.clone(), Arc::clone(&ahead));
            Arc::new(move || clock.now() + TimeDelta::seconds(ahead.load(Ordering::SeqCst)))
        };
        let simulator = simulator(now, door, script, Delivery::Automatic).await;
        let cards = TrialArgs {
            payment_profile_id: Some(card()),
            declined_payment_profile_id: Some(card()),
            inactive_payment_profile_id: Some(card()),
            ..TrialArgs::default()
        };
        let behaviours = [
            (cards.payment_profile_id, Behaviour::default()),
            (
                cards.declined_payment_profile_id,
                Behaviour::decline("CODE_51"),
            ),
            (cards.inactive_payment_profile_id, Behaviour::inactive()),
        ];
        for (card, behaviour) in behaviours {
            simulator.register_profile(SimulatedProfile {
                behaviour,
                ..SimulatedProfile::new(card.unwrap().as_uuid())
            });
        }
        let text = toml(UNUSED, &simulator.base_url(), "", sections);
        let context = Context {
            config: Config::from_toml(&text).unwrap(),
            clock,
            actor: "test".to_owned(),
        };
        Self {
            simulator,
            context,
            directory: tempfile::tempdir_in(scratch::directory()).unwrap(),
            door,
            ahead,
            cards,
        }
    }

    /// One whose notices can come to where the experiments listen.
    async fn reachable(script: Script, scale: u32) -> Self {
        let mut sandbox = Self::with(script, scale, "").await;
        sandbox.context.config.http.listen = sandbox.door;
        let public_url = format!("https://{PUBLIC_HOST}").parse().unwrap();
        sandbox.context.config.http.public_url = Some(public_url);
        sandbox
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    async fn run(&self, args: &TrialArgs) -> Result<Report, CliError> {
        sandbox::run(args, &self.context).await
    }

    async fn try_out(&self) -> Report {
        let report = self.run(&self.cards).await.unwrap();
        self.compare(&report);
        report
    }

    /// The report has every transaction of the ledger as it is, no other, and no more was sent than is announced.
    fn compare(&self, report: &Report) {
        let ledger = self.simulator.ledger();
        let theirs: BTreeMap<_, _> = ledger
            .transactions()
            .iter()
            .map(|made| {
                let history = made.history_until(ledger.as_of());
                let said = (
                    made.order_id.to_string(),
                    made.amount_minor,
                    history.last().unwrap().status.to_string(),
                );
                (made.id, said)
            })
            .collect();
        let ours: BTreeMap<_, _> = report
            .transactions
            .iter()
            .map(|seen| {
                let said = (
                    seen.order_id.clone(),
                    u32::try_from(seen.amount_minor).unwrap(),
                    seen.status.clone().unwrap(),
                );
                (seen.transaction_id.as_uuid(), said)
            })
            .collect();
        assert_eq!(ours, theirs);
        assert_eq!(report.transactions.len(), theirs.len(), "each once");
        assert!(ledger.posts().len() <= 14, "{}", ledger.posts().len());
        for post in ledger.posts() {
            let Some(order_id) = post.order_id.as_deref() else {
                continue;
            };
            assert!(order_id.starts_with(&report.order_ids), "{order_id}");
            assert!(!is_ours(order_id) && !order_id.starts_with("cykl-"));
            assert!(post.amount_minor.unwrap() <= 101);
        }
    }

    fn booked(&self, order_id: &str) -> usize {
        self.simulator.ledger().transactions_of(order_id).len()
    }
}

fn card() -> ProfileId {
    ProfileId::from_uuid(Uuid::new_v4())
}

fn findings(report: &Report) -> Vec<(RepeatKind, Finding)> {
    let repeats = report.repeats.iter();
    repeats
        .map(|repeat| (repeat.what, repeat.finding))
        .collect()
}

const KINDS: [RepeatKind; 4] = [
    RepeatKind::SameAmount,
    RepeatKind::OtherAmount,
    RepeatKind::Parallel,
    RepeatKind::AfterDecline,
];

#[tokio::test]
async fn a_gateway_that_takes_an_order_id_twice_is_found_out() {
    let sandbox = Sandbox::new(Script::default()).await;
    let report = sandbox.try_out().await;
    assert_eq!(
        findings(&report),
        KINDS.map(|kind| (kind, Finding::TwoTransactions))
    );
    for repeat in &report.repeats {
        assert_eq!(sandbox.booked(&repeat.order_id), 2, "{repeat:?}");
    }
    let statuses: Vec<_> = report
        .transactions
        .iter()
        .map(|seen| seen.status.as_deref().unwrap())
        .collect();
    assert_eq!(
        statuses.iter().filter(|word| **word == "settled").count(),
        // One that is timed, three orders twice, and the card that the simulator takes although nobody registered it.
        1 + 3 * 2 + 1
    );
    assert_eq!(
        statuses.iter().filter(|word| **word == "rejected").count(),
        2
    );
    assert_eq!(report.exit(), Exit::Ok);
}

#[tokio::test]
async fn a_gateway_that_refuses_a_repeated_order_id_is_found_out() {
    let sandbox = Sandbox::new(Script {
        repeated_orders: RepeatedOrders::Refuse,
        ..Script::default()
    })
    .await;
    let report = sandbox.try_out().await;
    assert_eq!(
        findings(&report),
        KINDS.map(|kind| (kind, Finding::Refused))
    );
    for repeat in &report.repeats {
        assert_eq!(sandbox.booked(&repeat.order_id), 1, "{repeat:?}");
        let second = repeat.second.as_ref().unwrap();
        let refused = [&repeat.first, second].map(|answer| answer.code.as_deref());
        assert!(refused.contains(&Some("SIM-ERROR-ORDER")), "{repeat:?}");
    }
    let text = report.to_string();
    assert!(
        text.contains("an order id again after a decline: refused: HTTP 422, SIM-ERROR-ORDER"),
        "{text}"
    );
}

#[tokio::test]
async fn an_answer_that_is_lost_is_unclear_and_no_finding() {
    let sandbox = Sandbox::new(Script::default()).await;
    let lost = Rule::debits(Behaviour::take_money_and_lose_answer());
    sandbox
        .simulator
        // After the debit that is timed, the second of the first order id that is sent twice.
        .add_rule(lost.nth(3).times(1));
    let report = sandbox.run(&sandbox.cards).await.unwrap();
    let repeat = &report.repeats[0];
    assert_eq!(repeat.finding, Finding::Unclear);
    let second = repeat.second.as_ref().unwrap();
    assert_eq!(second.taken_for, TakenFor::Doubt);
    assert!(second.lost.is_some(), "{second:?}");
    assert_eq!(report.exit(), Exit::No);
    assert_eq!(sandbox.booked(&repeat.order_id), 2, "and no third");
}

#[tokio::test]
async fn what_is_debited_is_what_the_channel_takes_and_nothing_when_it_is_off_line() {
    let mut sandbox = Sandbox::new(Script {
        channel: Channel {
            currencies: vec![Currency::Eur],
            min: 500,
            ..Channel::default()
        },
        ..Script::default()
    })
    .await;
    sandbox.cards.declined_payment_profile_id = None;
    let report = sandbox.run(&sandbox.cards).await.unwrap();
    let ledger = sandbox.simulator.ledger();
    let mut amounts: Vec<_> = ledger
        .transactions()
        .iter()
        .map(|made| (made.amount_minor, made.currency))
        .collect();
    amounts.sort_by_key(|(minor, _)| *minor);
    amounts.dedup();
    assert_eq!(amounts, [(500, Currency::Eur), (501, Currency::Eur)]);
    assert_eq!(report.transactions.len(), ledger.transactions().len());

    let posts = sandbox.simulator.totals().posts;
    let offline = Rule::debits(Behaviour::channel_offline()).on(Call::Service);
    sandbox.simulator.add_rule(offline);
    let error = sandbox.run(&sandbox.cards).await.unwrap_err();
    assert_eq!(error.exit(), Exit::No, "{error}");
    assert_eq!(sandbox.simulator.totals().posts, posts);
}

#[tokio::test]
async fn a_debit_that_is_refused_is_not_waited_for() {
    let mut sandbox = Sandbox::reachable(Script::default(), SCALE).await;
    sandbox.cards.payment_profile_id = sandbox.cards.inactive_payment_profile_id;
    sandbox.cards.declined_payment_profile_id = None;
    let report = sandbox.try_out().await;
    let timing = report.timing.as_ref().unwrap();
    assert_eq!(timing.answer.code.as_deref(), Some("TRX-ERROR-120301"));
    let ledger = sandbox.simulator.ledger();
    let [first, second] = [0, 1].map(|place| ledger.posts()[place].at);
    assert!(second - first < TimeDelta::minutes(2));
    assert_eq!(report.exit(), Exit::No, "nothing was found out");
}

#[tokio::test]
async fn a_card_that_is_not_declined_says_nothing_about_declines() {
    let mut sandbox = Sandbox::new(Script::default()).await;
    sandbox.cards.declined_payment_profile_id = sandbox.cards.payment_profile_id;
    let report = sandbox.try_out().await;
    let repeat = report.repeats.last().unwrap();
    assert_eq!(
        (repeat.what, repeat.finding, &repeat.second),
        (RepeatKind::AfterDecline, Finding::Unclear, &None)
    );
    assert_eq!(sandbox.booked(&repeat.order_id), 1);
}

#[tokio::test]
async fn whether_rejected_changes_is_seen_when_a_report_is_read_again() {
    let mut sandbox = Sandbox::new(Script::default()).await;
    let days = Duration::from_secs(2 * 86_400);
    let fickle = SimulatedProfile {
        behaviour: Behaviour::decline_then_settle("CODE_05", days),
        ..SimulatedProfile::new(Uuid::new_v4())
    };
    sandbox.cards.declined_payment_profile_id = Some(ProfileId::from_uuid(fickle.id));
    sandbox.simulator.register_profile(fickle);
    let first = sandbox.path("first.json");
    sandbox.cards.report = Some(first.clone());
    let report = sandbox.try_out().await;
    assert!(
        report
            .to_string()
            .contains("2 of the transactions were declined")
    );

    let posts = sandbox.simulator.totals().posts;
    let second = sandbox.path("second.json");
    let again = TrialArgs {
        again: Some(first),
        report: Some(second.clone()),
        ..TrialArgs::default()
    };
    let same = sandbox.run(&again).await.unwrap();
    let seen = &same.again.as_ref().unwrap().transactions;
    assert_eq!(seen.len(), report.transactions.len());
    assert!(seen.iter().all(|seen| !seen.has_changed()), "{seen:?}");
    assert!(same.to_string().contains("0 changed, 0 not shown"));

    sandbox.ahead.fetch_add(2 * 86_400, Ordering::SeqCst);
    // A report that looked at an earlier one can be looked at itself.
    let again = TrialArgs {
        again: Some(second),
        ..TrialArgs::default()
    };
    let later = sandbox.run(&again).await.unwrap();
    let seen = &later.again.as_ref().unwrap().transactions;
    let changed: Vec<_> = seen.iter().filter(|seen| seen.was_taken_back()).collect();
    assert_eq!(changed.len(), 2);
    for seen in changed {
        assert_eq!(seen.now.status.as_deref(), Some("settled"));
    }
    let text = later.to_string();
    assert!(
        text.contains("2 changed") && text.contains("rejected then, settled now"),
        "{text}"
    );
    assert_eq!(
        sandbox.simulator.totals().posts,
        posts,
        "reading debits nobody"
    );
}

#[tokio::test]
async fn a_report_of_another_account_or_of_nothing_is_not_read_again() {
    let mut sandbox = Sandbox::new(Script::default()).await;
    let path = sandbox.path("report.json");
    std::fs::write(&path, "{}").unwrap();
    let again = TrialArgs {
        again: Some(path),
        ..TrialArgs::default()
    };
    let error = sandbox.run(&again).await.unwrap_err();
    assert_eq!(error.exit(), Exit::BadData, "{error}");
    let path = sandbox.path("other.json");
    sandbox.cards.report = Some(path.clone());
    sandbox.try_out().await;
    for shop in sandbox.context.config.shops.values_mut() {
        shop.service_id = Uuid::new_v4();
    }
    let again = TrialArgs {
        again: Some(path),
        ..TrialArgs::default()
    };
    let error = sandbox.run(&again).await.unwrap_err();
    assert!(error.to_string().contains("another account"), "{error}");
    let nothing = sandbox.run(&TrialArgs::default()).await.unwrap_err();
    assert_eq!(nothing.exit(), Exit::Usage, "{nothing}");
}

#[tokio::test]
async fn what_is_wrong_is_told_with_its_body() {
    let sandbox = Sandbox::new(Script {
        accept_unknown_profiles: false,
        ..Script::default()
    })
    .await;
    let report = sandbox.try_out().await;
    let told: Vec<_> = report
        .wrong
        .iter()
        .map(|wrong| {
            let answer = &wrong.answer;
            (
                wrong.what,
                answer.http_status.unwrap(),
                answer.code.as_deref().unwrap(),
                answer.taken_for,
            )
        })
        .collect();
    let refused = TakenFor::Refused;
    assert_eq!(
        told,
        [
            (WrongKind::WrongToken, 401, "SIM-ERROR-401", refused),
            (WrongKind::OtherMerchant, 403, "SIM-ERROR-403", refused),
            (WrongKind::UnknownProfile, 400, "SIM-ERROR-PROFILE", refused),
            (WrongKind::InactiveProfile, 400, "TRX-ERROR-120301", refused),
            (WrongKind::CutOff, 400, "SIM-ERROR-400", refused),
            (
                WrongKind::UnknownTransaction,
                404,
                "SIM-ERROR-404",
                TakenFor::NoDebit
            ),
            (
                WrongKind::UnknownPath,
                404,
                "SIM-ERROR-404",
                TakenFor::NoDebit
            ),
        ]
    );
    for wrong in &report.wrong {
        let body = wrong.answer.body.as_deref().unwrap();
        assert!(body.contains(wrong.answer.code.as_deref().unwrap()));
    }
}

#[tokio::test]
async fn a_gateway_that_repeats_secrets_does_not_get_them_into_the_report() {
    let sandbox = Sandbox::new(Script::default()).await;
    let chatty = Behaviour {
        answer: Some(Answer::Error {
            status: StatusCode::BAD_REQUEST,
            booked: false,
            body: Default::default(),
            code: Some("TRX-ERROR-120301".to_owned()),
            message: Some(format!(
                "{TOKEN}, {SERVICE_KEY} and 4111 1111 1111 1111, indeed"
            )),
        }),
        ..Behaviour::default()
    };
    let inactive = sandbox.cards.inactive_payment_profile_id.unwrap();
    sandbox
        .simulator
        .add_rule(Rule::debits(chatty).of_profile(inactive.as_uuid()));
    let report = sandbox.try_out().await;
    let chatty = report.wrong[3].answer.body.as_deref().unwrap();
    assert!(
        chatty.contains("[secret removed], [secret removed] and [card number removed], indeed"),
        "{chatty}"
    );
    let json = serde_json::to_string(&report).unwrap();
    for secret in [TOKEN, SERVICE_KEY, "4111"] {
        let all = [&json, &report.to_string()];
        assert!(all.iter().all(|text| !text.contains(secret)), "{secret}");
    }
}

#[tokio::test]
async fn a_shop_with_real_money_is_refused_before_anything_is_sent() {
    let mut sandbox = Sandbox::new(Script::default()).await;
    for shop in sandbox.context.config.shops.values_mut() {
        shop.environment = Environment::Production;
    }
    let path = sandbox.path("report.json");
    sandbox.cards.report = Some(path.clone());
    let error = sandbox.run(&sandbox.cards).await.unwrap_err();
    assert_eq!(error.exit(), Exit::Config);
    assert!(
        error
            .to_string()
            .contains("its environment or its address is production"),
        "{error}"
    );
    assert_eq!(sandbox.simulator.totals().calls, 0);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_report_is_for_its_owner_only_and_never_overwritten() {
    let mut sandbox = Sandbox::new(Script::default()).await;
    let path = sandbox.path("report.json");
    sandbox.cards.report = Some(path.clone());
    let report = sandbox.try_out().await;
    let written = std::fs::read(&path).unwrap();
    assert_eq!(
        serde_json::from_slice::<Report>(&written).unwrap(),
        report,
        "it is read as it was written"
    );
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let posts = sandbox.simulator.totals().posts;
    let error = sandbox.run(&sandbox.cards).await.unwrap_err();
    assert_eq!(error.exit(), Exit::Usage, "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), written);
    assert_eq!(sandbox.simulator.totals().posts, posts);
}

#[tokio::test]
async fn the_time_to_an_outcome_is_measured_by_reads_and_by_notices() {
    let forged = Notices {
        forged_order: Some("ghost-1".to_owned()),
        ..Notices::default()
    };
    let script = Script::always(Behaviour::default().with_notices(forged));
    let sandbox = Sandbox::reachable(script, SCALE).await;
    let report = sandbox.try_out().await;
    let timing = report.timing.as_ref().unwrap();
    assert_eq!((&timing.deaf_because, timing.unsigned), (&None, 0));
    assert_eq!(timing.answer.status.as_deref(), Some("pending"));
    for statuses in [&timing.read, &timing.notices] {
        let last = statuses.last().unwrap();
        assert_eq!(last.status, "settled");
        // The simulator's delay.
        assert!(last.after_ms >= 5_000, "{timing:?}");
    }
    assert_eq!(timing.notices[0].status, "pending");
    let ledger = sandbox.simulator.ledger();
    let told = ledger.notices_of(&timing.order_id);
    assert!(told.iter().all(|notice| notice.answer == Some(200)));
    let others = ledger.notices_of("ghost-1");
    assert_eq!(
        others[0].answer,
        Some(503),
        "somebody else's notice is to be told again"
    );
}

#[tokio::test]
async fn notices_that_do_not_come_or_are_not_signed_are_waited_for_in_vain_and_not_for_ever() {
    let wrong_key = Notices {
        wrong_key: true,
        ..Notices::default()
    };
    let script = Script::always(Behaviour::default().with_notices(wrong_key));
    let sandbox = Sandbox::reachable(script, FAST).await;
    let report = sandbox.try_out().await;
    let timing = report.timing.as_ref().unwrap();
    assert_eq!(timing.notices, []);
    assert!(timing.unsigned > 0);
    let text = report.to_string();
    assert!(text.contains("none came in two minutes"), "{text}");
}

#[tokio::test]
async fn why_nobody_listened_for_notices_is_told() {
    let sandbox = Sandbox::with(Script::default(), FAST, "").await;
    let report = sandbox.try_out().await;
    let reason = report.timing.unwrap().deaf_because.unwrap();
    assert_eq!(reason, "http.public_url is not set");

    let sandbox = Sandbox::reachable(Script::default(), FAST).await;
    let _daemon = TcpListener::bind(sandbox.door).await.unwrap();
    let report = sandbox.try_out().await;
    let reason = report.timing.unwrap().deaf_because.unwrap();
    assert!(reason.contains("couldn't listen on"), "{reason}");
    let posts = sandbox.simulator.ledger().posts().len();
    assert_eq!(posts, 14, "the rest is tried out all the same");
}

#[tokio::test]
async fn the_command_needs_no_database_and_tells_a_line_for_each_experiment() {
    let clock = format!("[clock]\nkind = \"scaled\"\nstart = \"{START}\"\nscale = {FAST}\n");
    let sandbox = Sandbox::with(Script::default(), FAST, &clock).await;
    let config = sandbox.path("cykl.toml");
    let text = toml(UNUSED, &sandbox.simulator.base_url(), "", &clock);
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cykl"));
    let card = sandbox.cards.payment_profile_id.unwrap().to_string();
    command
        .args(["check", "--sandbox", "--payment-profile-id", &card])
        .arg("--config")
        .arg(&config);
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.unwrap().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{stdout}");
    for line in [
        "shop main, simulator at ",
        "from a debit to its outcome: HTTP 200, pending after ",
        "from a debit to its notices: not measured, because http.public_url is not set",
        "an order id twice, with the same amount: accepted twice: two transactions (settled, settled)",
        "an order id twice, with another amount: accepted twice",
        "an order id twice at the same time: accepted twice",
        "a debit with a wrong token: HTTP 401, SIM-ERROR-401",
        "a debit for another merchant: HTTP 403",
        "a read of an unknown path: HTTP 404",
        "whether rejected changes: no debit was declined",
    ] {
        let found = stdout.lines().filter(|told| told.starts_with(line));
        assert_eq!(found.count(), 1, "{line}\n{stdout}");
    }
    assert_eq!(sandbox.simulator.totals().booked, 1 + 3 * 2 + 1);
}
