//! The real program: killed at any moment, stopped, reloaded, started twice, and started where it must not run.
//!
//! Here real time passes, because processes need it: the moments at which the daemon is killed are drawn, and printed as a seed.

use std::time::{Duration, Instant};

use cykl::simulator::{Behaviour, Script};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::TcpListener;

use crate::fire::Dice;
use crate::harness::{Agreement, SERVICE_ID, World, number_from};
use crate::site::{
    Daemon, HURRIED, OwnServer, PATIENCE, Site, WEEKS_IN_HALF_A_MINUTE, free_address,
    go_on_and_settle_up, nothing_but_pauses, start_again, subscribe_mixed, until, with_sessions,
};

/// How many daemons `make test` kills; `CYKL_SOAK_KILLS` asks for more.
const KILLS: u64 = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemons_that_are_killed_and_put_to_sleep_charge_every_period_once() {
    let kills = number_from("CYKL_SOAK_KILLS").unwrap_or(KILLS);
    let mut dice = Dice::from_environment();
    let site = Site::new(WEEKS_IN_HALF_A_MINUTE, HURRIED).await;
    subscribe_mixed(&site, &mut dice).await;
    let other_door = free_address().await;
    let mut cut_off = 0;
    for _ in 0..kills / 2 {
        let started_at = site.time.now();
        let mut daemons = [
            site.start(),
            site.start_with(&site.file_text(other_door), "other"),
        ];
        for number in [0, 1] {
            // Mostly while they start or have just begun, now and then in the midst of their work.
            let longest = if dice.below(4) == 0 { 700 } else { 200 };
            tokio::time::sleep(Duration::from_millis(20 + dice.below(longest))).await;
            if dice.below(4) == 0 {
                // Hours pass for everybody else.
                daemons[number].signal(Signal::SIGSTOP);
                tokio::time::sleep(Duration::from_millis(dice.below(150))).await;
                daemons[number].signal(Signal::SIGCONT);
                tokio::time::sleep(Duration::from_millis(dice.below(30))).await;
            }
            daemons[number].signal(Signal::SIGKILL);
            daemons[number].ends().await;
        }
        cut_off += site.unrecorded_since(started_at).await;
    }
    go_on_and_settle_up(site, 10, cut_off).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_killed_under_its_daemons_forgets_nothing() {
    let mut dice = Dice::from_environment();
    let mut own = OwnServer::start(&[]).await;
    let site = Site::on(own.database(), WEEKS_IN_HALF_A_MINUTE, HURRIED).await;
    subscribe_mixed(&site, &mut dice).await;
    let mut cut_off = 0;
    for _ in 0..60 {
        let started_at = site.time.now();
        let mut daemon = site.start();
        daemon.says("started").await;
        tokio::time::sleep(Duration::from_millis(dice.below(500))).await;
        let pid = own.pid();
        // Power loss for PostgreSQL alone, and its own immediate shutdown.
        let signal = [Signal::SIGKILL, Signal::SIGQUIT][usize::try_from(dice.below(2)).unwrap()];
        kill(pid, signal).unwrap();
        until("the end of the server", async || kill(pid, None).is_err()).await;
        // The daemon goes on by itself, or somebody starts it again.
        let goes_on = dice.below(2) == 0;
        if !goes_on {
            daemon.signal(Signal::SIGKILL);
            daemon.ends().await;
        }
        drop(own.server);
        own.server = start_again(&own.settings).await;
        if goes_on {
            charges_again_and_dies(&site, daemon, 1 + dice.below(12)).await;
        }
        cut_off += site.unrecorded_since(started_at).await;
    }
    go_on_and_settle_up(site, 10, cut_off).await;
    own.server.stop().await.unwrap();
}

/// Waits until a daemon has made so many debits again, and kills it.
async fn charges_again_and_dies(site: &Site, mut daemon: Daemon, debits: u64) {
    let posts = site.simulator.totals().posts + debits;
    let since = Instant::now();
    while site.simulator.totals().posts < posts {
        assert!(
            since.elapsed() < PATIENCE,
            "it never made {debits} debits again: {}",
            daemon.said()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    daemon.signal(Signal::SIGKILL);
    daemon.ends().await;
}

/// Behind this place in a file there is no room any more: its log and most of its tables are longer.
const FULL_AT: &str = "65536";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_of_the_database_costs_no_money_and_forgets_nothing() {
    let mut dice = Dice::from_environment();
    let mut own = OwnServer::start(&[]).await;
    let site = Site::on(own.database(), WEEKS_IN_HALF_A_MINUTE, HURRIED).await;
    subscribe_mixed(&site, &mut dice).await;
    let mut cut_off = 0;
    for round in 0..8 {
        let started_at = site.time.now();
        let mut daemon = site.start();
        daemon.says("started").await;
        let posts = site.simulator.totals().posts;
        until("a debit", async || site.simulator.totals().posts > posts).await;
        // Nothing that PostgreSQL writes from now on fits.
        let server = own.pid();
        limit_files(&own, server, FULL_AT);
        until("PostgreSQL is out of room", async || {
            own.log().contains("File too large")
        })
        .await;
        tokio::time::sleep(Duration::from_millis(dice.below(400))).await;
        let is_alive = || kill(server, None).is_ok();
        if round % 2 == 0 {
            daemon.signal(Signal::SIGKILL);
            daemon.ends().await;
            // Somebody makes room, and starts the server again, which may have given up by itself.
            let _ = kill(server, Signal::SIGQUIT);
            until("the end of the server", async || !is_alive()).await;
            drop(own.server);
            own.server = start_again(&own.settings).await;
            assert_eq!(site.sent_without_permit().await, Vec::<String>::new());
        } else {
            // Somebody makes room while the daemon runs, and starts the server again if it gives up.
            limit_files(&own, server, "unlimited");
            let goes_on = charges_again_and_dies(&site, daemon, 1);
            tokio::pin!(goes_on);
            let has_given_up = until("the end of the server", async || !is_alive());
            tokio::select! {
                () = &mut goes_on => {}
                () = has_given_up => {
                    drop(own.server);
                    own.server = start_again(&own.settings).await;
                    goes_on.await;
                }
            }
            assert_eq!(site.sent_without_permit().await, Vec::<String>::new());
        }
        cut_off += site.unrecorded_since(started_at).await;
    }
    go_on_and_settle_up(site, 2, cut_off).await;
    own.server.stop().await.unwrap();
}

/// Lets the server's files grow to so many bytes. It is told so by the system at the very places where a full disk would tell it, and
/// no session that it starts afterwards can write more either.
fn limit_files(own: &OwnServer, server: Pid, bytes: &str) {
    for pid in with_sessions(server) {
        let mut limit = own.command("prlimit");
        // The soft limit alone, which may be raised again.
        limit.args([format!("--fsize={bytes}:"), format!("--pid={pid}")]);
        let limited = limit.output().unwrap();
        // A session may have ended meanwhile, and the server may have given up.
        let is_gone = kill(pid, None).is_err();
        assert!(limited.status.success() || is_gone, "{limited:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_the_database_that_break_at_any_moment_cost_no_money() {
    let mut dice = Dice::from_environment();
    let world = World::new(Script::default()).await;
    for number in 0..120 {
        let slow = Duration::from_millis(dice.below(40));
        let behaviour = match number % 4 {
            0 => Behaviour::settle_after(Duration::from_secs(5)),
            1 => Behaviour::take_money_and_lose_answer(),
            _ => Behaviour::settle_at_once(),
        };
        let agreement = Agreement::monthly("2027-01-01").with_card(behaviour.answering_after(slow));
        world.subscribe(agreement).await;
    }
    let limits = cykl::store::permits::Limits {
        unanswered_max: 7,
        in_doubt_max: 1_000,
        ..world.workers.charger.limits
    };
    let mut workers = world.workers.clone();
    workers.charger.limits = limits;
    let now = world.clock.now();
    let breaking = async {
        let mut broken = 0;
        for _ in 0..60 {
            tokio::time::sleep(Duration::from_millis(dice.below(40))).await;
            let cut: i64 = world
                .one(
                    "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
                     WHERE datname = current_database() AND application_name = 'cykl' AND state <> 'idle'",
                )
                .await;
            broken += cut;
        }
        broken
    };
    let working = async {
        let mut failures = 0;
        for _ in 0..60 {
            let done = [
                workers.scheduler.run_once(now).await.is_ok(),
                workers.charger.run_once(now).await.is_ok(),
                workers.resolver.run_once(now).await.is_ok(),
            ];
            world.simulator.deliver_due().await;
            failures += done.iter().filter(|&&done| !done).count();
        }
        failures
    };
    let (broken, failures) = tokio::join!(breaking, working);
    println!("{broken} connections broken, {failures} runs failed");
    assert!(
        broken > 0 && failures > 0,
        "nothing went wrong: {broken} connections broken, {failures} runs failed"
    );
    world.run_days(15).await;
    let paid = world.charges().await;
    assert_eq!(paid.len(), 120);
    assert!(
        paid.iter()
            .all(|state| state == "paid" || state == "failed"),
        "{paid:?}"
    );
    nothing_but_pauses(&world).await;
    world.settle_up().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_is_told_to_stop_waits_for_the_answers_and_records_them() {
    let site = Site::new(1, "").await;
    let slow = Behaviour::settle_at_once().answering_after(Duration::from_secs(2));
    for _ in 0..5 {
        let agreement = Agreement::monthly("2026-12-31").with_card(slow.clone());
        let card = agreement.profile();
        site.subscribe(agreement, card).await;
    }
    let mut daemon = site.start();
    until("five debits", async || site.simulator.totals().posts == 5).await;
    daemon.stops().await;
    assert!(daemon.said().contains("stopped"), "{}", daemon.said());
    assert_eq!(
        site.count("SELECT count(*) FROM charges WHERE state = 'paid'")
            .await,
        5
    );
    site.reckoning().await.settle_up().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_is_told_to_stop_twice_leaves_what_is_in_flight_in_doubt() {
    let site = Site::new(1, "").await;
    let agreement = Agreement::monthly("2026-12-31").with_card(Behaviour::hang(true));
    let card = agreement.profile();
    site.subscribe(agreement, card).await;
    let mut daemon = site.start();
    until("a debit", async || site.simulator.totals().posts == 1).await;
    daemon.signal(Signal::SIGTERM);
    daemon.says("stopping").await;
    daemon.stops().await;
    assert_eq!(
        site.count("SELECT count(*) FROM attempts WHERE state = 'in_doubt'")
            .await,
        1
    );
    let world = site.reckoning().await;
    world.run_days(1).await;
    assert_eq!(world.charges().await, ["paid"]);
    assert_eq!(world.posts(), 1);
    world.settle_up().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_daemons_at_the_same_time_share_the_work() {
    let site = Site::new(1, "").await;
    for _ in 0..150 {
        let agreement = Agreement::monthly("2026-12-31");
        let card = agreement.profile();
        site.subscribe(agreement, card).await;
    }
    let mut one = site.start();
    let other_door = free_address().await;
    let mut other = site.start_with(&site.file_text(other_door), "other");
    one.says("started").await;
    other.says("started").await;
    until("150 paid charges", async || {
        site.count("SELECT count(*) FROM charges WHERE state = 'paid'")
            .await
            == 150
    })
    .await;
    tokio::join!(one.stops(), other.stops());
    for daemon in [&one, &other] {
        assert!(!daemon.said().contains("ERROR"), "{}", daemon.said());
    }
    let world = site.reckoning().await;
    world.run_until_idle().await;
    assert_eq!(world.posts(), 150);
    world.settle_up().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_is_wrong_or_needs_a_restart_leaves_the_running_one_in_force() {
    let site = Site::new(1, "").await;
    let mut daemon = site.start();
    daemon.says("started").await;
    let fine = std::fs::read_to_string(&daemon.file).unwrap();
    for (text, said) in [
        (
            fine.replace("[log]", "[lgo]"),
            "the new configuration is wrong",
        ),
        (
            "not toml at all =".to_owned(),
            "the new configuration is wrong",
        ),
        (
            fine.replace(SERVICE_ID, "3b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b"),
            "change only with a restart",
        ),
    ] {
        // A log of its own for each, to see that it was said again.
        std::fs::write(&daemon.log, "").unwrap();
        std::fs::write(&daemon.file, text).unwrap();
        daemon.signal(Signal::SIGHUP);
        daemon.says(said).await;
    }
    std::fs::write(
        &daemon.file,
        fine.replace("[log]", "[retry]\ndays = [2]\n[log]"),
    )
    .unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.says("configuration read again").await;
    let agreement = Agreement::monthly("2026-12-31");
    let card = agreement.profile();
    site.subscribe(agreement, card).await;
    until("a paid charge", async || {
        site.count("SELECT count(*) FROM charges WHERE state = 'paid'")
            .await
            == 1
    })
    .await;
    daemon.stops().await;
    site.reckoning().await.settle_up().await;
}

#[tokio::test]
async fn a_database_of_a_newer_program_is_left_alone() {
    for migrate in ["migrate = true", "migrate = false"] {
        let site = Site::new(1, "").await;
        sqlx::query(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (9999, 'later', true, '', 0)",
        )
        .execute(&site.books)
        .await
        .unwrap();
        let text = site
            .file_text(site.door)
            .replace("[database]\n", &format!("[database]\n{migrate}\n"));
        let said = site.start_with(&text, "cykl").fails(78).await;
        assert!(said.contains("9999"), "{said}");
    }
}

#[tokio::test]
async fn another_shop_in_the_configuration_ends_it_with_advice() {
    let site = Site::new(1, "").await;
    let other = site
        .file_text(site.door)
        .replace(SERVICE_ID, "3b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b");
    let said = site.start_with(&other, "cykl").fails(78).await;
    assert!(
        said.contains("cykl adopt") && said.contains(SERVICE_ID),
        "{said}"
    );
}

#[tokio::test]
async fn a_database_that_moved_ends_it_with_advice() {
    let site = Site::new(1, "").await;
    sqlx::query("UPDATE installation SET timeline = timeline + 1")
        .execute(&site.books)
        .await
        .unwrap();
    let said = site.start().fails(78).await;
    assert!(said.contains("cykl adopt"), "{said}");
}

#[tokio::test]
async fn a_database_or_a_port_that_is_not_to_be_had_is_said_plainly() {
    let site = Site::new(1, "").await;
    let socket = site.database.get_socket().unwrap().display().to_string();
    let nowhere = site.file_text(site.door).replace(&socket, "/nowhere");
    let said = site.start_with(&nowhere, "cykl").fails(69).await;
    assert!(said.contains("/nowhere"), "{said}");
    let _taken = TcpListener::bind(site.door).await.unwrap();
    let said = site.start().fails(69).await;
    assert!(said.contains(&site.door.to_string()), "{said}");
}
