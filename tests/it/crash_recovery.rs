//! The real program: killed at any moment, stopped, reloaded, started twice, and started where it must not run.
//!
//! Here real time passes, because processes need it: the moments at which the daemon is killed are drawn, and printed as a seed.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use cykl::cli::daemon;
use cykl::clock::Clock;
use cykl::config::Config;
use cykl::embedded::{EmbeddedConfig, EmbeddedDatabase};
use cykl::simulator::{
    Behaviour, DeclinesFirst, Delivery, Rule, Script, SimulatedProfile, Simulator,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use crate::fire::Dice;
use crate::harness::{
    Agreement, Parts, SERVICE_ID, START, World, connect, fresh_database, number_from, open_books,
    simulator, toml,
};
use crate::scratch;

/// How long a process may take for what it usually does in well under a second.
const PATIENCE: Duration = Duration::from_secs(60);

/// A clock that runs while daemons do, and is stopped for the reckoning.
#[derive(Clone)]
struct Time(Arc<Mutex<Clock>>);

impl Time {
    fn scaled(scale: u32) -> Self {
        let clock = Clock::scaled(START.parse().unwrap(), NonZeroU32::new(scale).unwrap());
        Self(Arc::new(Mutex::new(clock)))
    }

    fn now(&self) -> DateTime<Utc> {
        self.0.lock().unwrap().now()
    }

    /// From now on time moves only by the clock that is returned.
    fn stop(&self) -> Clock {
        let mut clock = self.0.lock().unwrap();
        *clock = Clock::manual(clock.now());
        clock.clone()
    }
}

/// Where daemons run: a database, a gateway, a configuration, and a log.
struct Site {
    directory: TempDir,
    database: PgConnectOptions,
    books: PgPool,
    simulator: Simulator,
    time: Time,
    scale: u32,
    door: SocketAddr,
    sections: String,
}

/// An address that is free now.
async fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

impl Site {
    /// A site where `scale` seconds pass in one, with more sections of configuration.
    async fn new(scale: u32, sections: &str) -> Self {
        Self::on(fresh_database().await, scale, sections).await
    }

    /// As [`Site::new`], on this database.
    async fn on(database: PgConnectOptions, scale: u32, sections: &str) -> Self {
        cykl::gateway::install_crypto();
        let time = Time::scaled(scale);
        let door = free_address().await;
        let simulated = time.clone();
        let now = Arc::new(move || simulated.now());
        let simulator = simulator(now, door, Script::default(), Delivery::Automatic).await;
        let site = Self {
            directory: tempfile::tempdir_in(scratch::directory()).unwrap(),
            books: open_books(&database).await,
            database,
            simulator,
            time,
            scale,
            door,
            sections: sections.to_owned(),
        };
        let store = connect(site.database.clone(), 1).await;
        let shops = daemon::identities(&site.config());
        store
            .pass_fence(&shops, "test", site.time.now())
            .await
            .unwrap();
        store.close().await;
        site
    }

    /// The address of the database, as an operator writes it.
    fn database_url(&self) -> String {
        format!(
            "postgres://{}@localhost:{}/{}?host={}",
            self.database.get_username(),
            self.database.get_port(),
            self.database.get_database().unwrap(),
            self.database.get_socket().unwrap().display()
        )
    }

    fn shop(&self) -> &'static str {
        // Over the day, so that something is always being sent.
        "spread = \"20h\""
    }

    /// The configuration, without the clock.
    fn config_text(&self) -> String {
        toml(
            &self.database_url(),
            &self.simulator.base_url(),
            self.shop(),
            &self.sections,
        )
    }

    fn config(&self) -> Config {
        Config::from_toml(&self.config_text()).unwrap()
    }

    /// The whole file, for a daemon that starts now and listens at `door`.
    fn file_text(&self, door: SocketAddr) -> String {
        format!(
            "{}\n[http]\nlisten = \"{door}\"\n[clock]\nkind = \"scaled\"\nstart = \"{}\"\nscale = {}\n\
             [log]\nformat = \"text\"\n",
            self.config_text(),
            self.time.now().to_rfc3339(),
            self.scale
        )
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts a daemon that logs into `log`.
    fn start(&self) -> Daemon {
        self.start_with(&self.file_text(self.door), "cykl")
    }

    fn start_with(&self, text: &str, name: &str) -> Daemon {
        let (file, log) = (
            self.path(&format!("{name}.toml")),
            self.path(&format!("{name}.log")),
        );
        std::fs::write(&file, text).unwrap();
        let output = std::fs::File::create(&log).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_cykl"))
            .args(["run", "--actor", "test", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .env_remove("NOTIFY_SOCKET")
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Daemon { child, file, log }
    }

    /// Stores an agreement and its card.
    async fn subscribe(&self, agreement: Agreement, card: SimulatedProfile) {
        self.simulator.register_profile(card);
        agreement
            .store(&self.books, &self.config(), self.time.now())
            .await;
    }

    async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query)
            .fetch_one(&self.books)
            .await
            .unwrap()
    }

    /// How many permits given since `start` have no word about what became of them.
    async fn unrecorded_since(&self, start: DateTime<Utc>) -> i64 {
        sqlx::query_scalar(
            "SELECT count(*) FROM attempts a WHERE permitted_at >= $1
                 AND NOT EXISTS (SELECT FROM evidence e WHERE e.attempt_id = a.attempt_id)",
        )
        .bind(start)
        .fetch_one(&self.books)
        .await
        .unwrap()
    }

    /// The world that the daemons leave behind: their books and their gateway, time standing still.
    async fn reckoning(self) -> World {
        let clock = self.time.stop();
        let config = self.config();
        World::assemble(Parts {
            clock,
            listener: TcpListener::bind(self.door).await.unwrap(),
            simulator: self.simulator,
            config,
            database: self.database,
        })
        .await
    }
}

/// A running daemon.
struct Daemon {
    child: Child,
    file: PathBuf,
    log: PathBuf,
}

impl Daemon {
    fn signal(&self, signal: Signal) {
        let pid = self.child.id().expect("it was not waited for");
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until the daemon has logged `words`.
    async fn says(&mut self, words: &str) {
        let since = Instant::now();
        while !self.said().contains(words) {
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && since.elapsed() < PATIENCE,
                "it never said \"{words}\": {}",
                self.said()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits for the end.
    async fn ends(&mut self) -> ExitStatus {
        match tokio::time::timeout(PATIENCE, self.child.wait()).await {
            Ok(status) => status.unwrap(),
            Err(_) => panic!("it does not end: {}", self.said()),
        }
    }

    /// Asks it to stop, and expects that it does so cleanly.
    async fn stops(&mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.ends().await;
        assert_eq!(status.code(), Some(0), "{}", self.said());
    }

    /// Waits for an end with this code, and returns what was said.
    async fn fails(&mut self, code: i32) -> String {
        let status = self.ends().await;
        assert_eq!(status.code(), Some(code), "{}", self.said());
        self.said()
    }
}

/// Waits until a condition holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let since = Instant::now();
    while !holds().await {
        assert!(since.elapsed() < PATIENCE, "{what} never came true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// About two weeks in half a minute. The notices of a debit are repeated for 95 hours, within which the daemon has to be up for once.
const WEEKS_IN_HALF_A_MINUTE: u32 = 40_000;

/// Ticks and waits that make sense at that pace.
const HURRIED: &str = "[charging]\nin_flight_max = 500\nin_doubt_max = 500\nrequest_timeout = \"3s\"\nconnect_timeout = \"2s\"\n\
     [resolver]\npoll = [\"30m\", \"6h\"]\n\
     [schedule]\nscheduler = \"0 0 * * * *\"\ncharger = \"0 */20 * * * *\"\nresolver = \"0 */20 * * * *\"\n\
     notifier = \"0 0 * * * *\"\n";

/// Agreements of every pace on cards of every kind.
async fn subscribe_mixed(site: &Site, dice: &mut Dice) {
    for number in 0..80 {
        let period = ["P1D", "P1D", "P2D", "P1W", "P1M"][number % 5];
        let slow = Duration::from_millis(dice.below(60));
        let behaviour = match number % 8 {
            0 | 1 => Behaviour::settle_at_once(),
            2 => Behaviour::settle_after(Duration::from_secs(3_600 * dice.below(30))),
            // Few enough that charging is not paused most of the time, at a pace where a slow start takes days.
            3 if number % 16 == 3 => Behaviour::take_money_and_lose_answer(),
            4 => Behaviour::decline_at_once("CODE_43"),
            5 => Behaviour::settle_after(Duration::from_secs(60)).amount_as_text(),
            _ => Behaviour::default(),
        };
        let agreement = Agreement::monthly("2027-01-02")
            .every(period)
            .with_card(behaviour.answering_after(slow));
        let mut card = agreement.profile();
        if number % 8 == 6 {
            card.declines_first = Some(DeclinesFirst {
                count: 2,
                code: "CODE_51".to_owned(),
            });
        }
        if number % 16 == 7 {
            let days = i64::try_from(dice.below(20)).unwrap();
            card.inactive_from = Some(site.time.now() + TimeDelta::days(days));
        }
        site.subscribe(agreement, card).await;
    }
    site.simulator
        .add_rule(Rule::debits(Behaviour::lose_request()).percent(1));
    site.simulator
        .add_rule(Rule::debits(Behaviour::reset(true)).percent(1));
}

/// Charging paused when too many answers were lost, and went on by itself.
async fn nothing_but_pauses(world: &World) {
    let incidents = world.incidents().await;
    assert!(
        incidents.iter().all(|kind| kind == "incident.doubts"),
        "{incidents:?}"
    );
    let brakes = world.column("SELECT mode::text FROM brakes").await;
    assert!(brakes.iter().all(|mode| mode == "run"), "{brakes:?}");
}

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
    go_on_and_settle_up(site, cut_off).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_killed_under_its_daemons_forgets_nothing() {
    let mut dice = Dice::from_environment();
    let home = tempfile::tempdir_in(scratch::directory()).unwrap();
    let settings = EmbeddedConfig {
        data_dir: home.path().join("db"),
        bin_dir: None,
        durable: true,
        settings: Vec::new(),
    };
    let mut server = EmbeddedDatabase::start(settings.clone()).await.unwrap();
    server.ensure_database("cykl").await.unwrap();
    let database = server.connect_options("cykl");
    let store = connect(database.clone(), 1).await;
    store.migrate().await.unwrap();
    store.close().await;
    let site = Site::on(database, WEEKS_IN_HALF_A_MINUTE, HURRIED).await;
    subscribe_mixed(&site, &mut dice).await;
    let pid_file = settings.data_dir.join("data/postmaster.pid");
    let mut cut_off = 0;
    for _ in 0..60 {
        let started_at = site.time.now();
        let mut daemon = site.start();
        daemon.says("started").await;
        tokio::time::sleep(Duration::from_millis(dice.below(500))).await;
        let pid = std::fs::read_to_string(&pid_file).unwrap();
        let pid = Pid::from_raw(pid.lines().next().unwrap().trim().parse().unwrap());
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
        drop(server);
        server = start_again(&settings).await;
        if goes_on {
            let posts = site.simulator.totals().posts;
            until("a debit after the server came back", async || {
                site.simulator.totals().posts > posts
            })
            .await;
            daemon.signal(Signal::SIGKILL);
            daemon.ends().await;
        }
        cut_off += site.unrecorded_since(started_at).await;
    }
    go_on_and_settle_up(site, cut_off).await;
    server.stop().await.unwrap();
}

/// Starts the server again. What the one that was killed has left behind may take a moment to end.
async fn start_again(settings: &EmbeddedConfig) -> EmbeddedDatabase {
    let since = Instant::now();
    loop {
        match EmbeddedDatabase::start(settings.clone()).await {
            Ok(server) => return server,
            Err(error) => assert!(since.elapsed() < PATIENCE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A last daemon goes on from where the others died, and stops. Then time passes until all that is open has ended, and the
/// books are compared with the ledger.
async fn go_on_and_settle_up(site: Site, cut_off: i64) {
    let started_at = site.time.now();
    let before = site.simulator.totals().posts;
    let mut last = site.start();
    until("a debit by the last daemon", async || {
        site.simulator.totals().posts > before
    })
    .await;
    last.stops().await;
    let unrecorded = site.unrecorded_since(started_at).await;
    assert_eq!(unrecorded, 0, "it stopped before every answer was recorded");

    let world = site.reckoning().await;
    world.run_until_idle().await;
    let posts = world.simulator.ledger().posts().len();
    let days = (world.clock.now() - START.parse::<DateTime<Utc>>().unwrap()).num_days();
    println!("{posts} debits in {days} days, {cut_off} of them cut off");
    assert!(cut_off > 0, "no kill hit a debit");
    assert!(
        days >= 10 && posts >= 200,
        "too little happened: {posts} debits in {days} days"
    );
    let forgotten: Vec<String> = sqlx::query_scalar(
        "SELECT s.external_id || ': ' || coalesce(d.period_no, -1) || ' next, ' || count(c) || ' charges'
         FROM subscriptions s LEFT JOIN due_periods d USING (subscription_id) LEFT JOIN charges c USING (subscription_id)
         GROUP BY s.subscription_id, d.due_at, d.period_no
         HAVING (s.status IN ('active', 'past_due')
                 AND (d.due_at IS NULL OR d.due_at <= $1 OR d.period_no <> count(c)))
             OR count(c) <> coalesce(max(c.period_no) + 1, 0)",
    )
    .bind(world.clock.now())
    .fetch_all(&world.books)
    .await
    .unwrap();
    assert_eq!(
        forgotten,
        Vec::<String>::new(),
        "a due period has no charge"
    );

    // Nothing more falls due; what is open has all the time it needs.
    sqlx::query(
        "WITH gone AS (DELETE FROM due_periods)
         UPDATE subscriptions SET is_finishing = status IN ('active', 'past_due')",
    )
    .execute(&world.books)
    .await
    .unwrap();
    world.run_days(400).await;
    let open = world
        .column(
            "SELECT DISTINCT state || ' ' || coalesce(reason, '') FROM charges
                 WHERE state IN ('planned', 'in_flight', 'retry_wait')",
        )
        .await;
    assert_eq!(open, Vec::<String>::new(), "a charge never ended");
    nothing_but_pauses(&world).await;
    // The minute that the audit leaves out around a pause is less than two milliseconds here. A notice that finds nobody up for 95
    // hours is never sent again, so a few questions may have been left to people.
    let untrue = ["nothing_ends_early", "nothing_was_permitted_while_braked"];
    world.settle_up_beside_doubts(&untrue).await;
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
