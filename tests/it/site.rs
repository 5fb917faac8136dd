//! A place where the real program runs: a database, a gateway, a configuration, a log, and a clock that runs fast.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
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
use nix::unistd::{Pid, geteuid};
use serde_json::Value;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use crate::fire::Dice;
use crate::harness::{
    Agreement, Parts, SERVICE_KEY, START, TOKEN, World, compare_with_journal, connect,
    fresh_database, open_books, simulator, toml,
};
use crate::scratch;

/// How long a process may take for what it usually does in well under a second.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A clock that runs while daemons do, and is stopped for the reckoning.
#[derive(Clone)]
pub struct Time(Arc<Mutex<Clock>>);

impl Time {
    pub fn scaled(scale: u32) -> Self {
        let clock = Clock::scaled(START.parse().unwrap(), NonZeroU32::new(scale).unwrap());
        Self(Arc::new(Mutex::new(clock)))
    }

    pub fn now(&self) -> DateTime<Utc> {
        self.0.lock().unwrap().now()
    }

    /// From now on time moves only by the clock that is returned.
    pub fn stop(&self) -> Clock {
        let mut clock = self.0.lock().unwrap();
        *clock = Clock::manual(clock.now());
        clock.clone()
    }
}

/// Where daemons run: a database, a gateway, a configuration, and a log.
pub struct Site {
    directory: TempDir,
    pub database: PgConnectOptions,
    pub books: PgPool,
    pub simulator: Simulator,
    pub time: Time,
    scale: u32,
    pub door: SocketAddr,
    sections: String,
}

/// An address that is free now.
pub async fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

impl Site {
    /// A site where `scale` seconds pass in one, with more sections of configuration.
    pub async fn new(scale: u32, sections: &str) -> Self {
        Self::on(fresh_database().await, scale, sections).await
    }

    /// As [`Site::new`], on this database.
    pub async fn on(database: PgConnectOptions, scale: u32, sections: &str) -> Self {
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
    pub fn database_url(&self) -> String {
        format!(
            "postgres://{}@localhost:{}/{}?host={}",
            self.database.get_username(),
            self.database.get_port(),
            self.database.get_database().unwrap(),
            self.database.get_socket().unwrap().display()
        )
    }

    pub fn shop(&self) -> &'static str {
        // Over the day, so that something is always being sent.
        "spread = \"20h\""
    }

    /// The configuration, without the clock. Every daemon keeps a journal.
    pub fn config_text(&self) -> String {
        let (sections, journal) = (&self.sections, self.path("journal"));
        toml(
            &self.database_url(),
            &self.simulator.base_url(),
            self.shop(),
            &format!("{sections}\n[journal]\ndir = \"{}\"\n", journal.display()),
        )
    }

    pub fn config(&self) -> Config {
        Config::from_toml(&self.config_text()).unwrap()
    }

    /// The whole file, for a daemon that starts now and listens at `door`.
    pub fn file_text(&self, door: SocketAddr) -> String {
        format!(
            "{}\n[http]\nlisten = \"{door}\"\n[clock]\nkind = \"scaled\"\nstart = \"{}\"\nscale = {}\n\
             [log]\nformat = \"text\"\n",
            self.config_text(),
            self.time.now().to_rfc3339(),
            self.scale
        )
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts a daemon that logs into `log`.
    pub fn start(&self) -> Daemon {
        self.start_with(&self.file_text(self.door), "cykl")
    }

    pub fn start_with(&self, text: &str, name: &str) -> Daemon {
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

    /// Runs another command with the configuration of the daemon, and returns what it printed as JSON.
    pub async fn run(&self, arguments: &[&str]) -> Value {
        let file = self.path("command.toml");
        std::fs::write(&file, self.file_text(self.door)).unwrap();
        let ran = Command::new(env!("CARGO_BIN_EXE_cykl"))
            .args(arguments)
            .args(["--output", "json", "--config"])
            .arg(&file)
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{arguments:?}: {said}");
        serde_json::from_slice(&ran.stdout).unwrap()
    }

    /// Goes on with another database.
    pub async fn move_to(&mut self, database: PgConnectOptions) {
        self.books = open_books(&database).await;
        self.database = database;
    }

    /// Stores an agreement and its card.
    pub async fn subscribe(&self, agreement: Agreement, card: SimulatedProfile) {
        self.simulator.register_profile(card);
        agreement
            .store(&self.books, &self.config(), self.time.now())
            .await;
    }

    pub async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query)
            .fetch_one(&self.books)
            .await
            .unwrap()
    }

    /// How many permits given since `start` have no word about what became of them.
    pub async fn unrecorded_since(&self, start: DateTime<Utc>) -> i64 {
        sqlx::query_scalar(
            "SELECT count(*) FROM attempts a WHERE permitted_at >= $1
                 AND NOT EXISTS (SELECT FROM evidence e WHERE e.attempt_id = a.attempt_id)",
        )
        .bind(start)
        .fetch_one(&self.books)
        .await
        .unwrap()
    }

    /// Whether the journal kept its promise, as far back as its files are kept.
    async fn compare_with_journal(&self) {
        let kept = self.time.now() - TimeDelta::days(30);
        let store = connect(self.database.clone(), 1).await;
        compare_with_journal(&self.path("journal"), &self.simulator, &store, Some(kept)).await;
        store.close().await;
    }

    /// The orders that imoje was sent and the books have no permit for.
    pub async fn sent_without_permit(&self) -> Vec<String> {
        // The ledger first: what is sent meanwhile was permitted before.
        let ledger = self.simulator.ledger();
        let sent: Vec<_> = (ledger.posts().iter())
            .map(|post| post.order_id.as_deref().unwrap_or_default())
            .collect();
        sqlx::query_scalar(
            "SELECT sent FROM unnest($1::text[]) sent
             WHERE NOT EXISTS (SELECT FROM all_attempts WHERE order_id = sent)",
        )
        .bind(sent)
        .fetch_all(&self.books)
        .await
        .unwrap()
    }

    /// The world that the daemons leave behind: their books and their gateway, time standing still.
    pub async fn reckoning(self) -> World {
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
pub struct Daemon {
    child: Child,
    pub file: PathBuf,
    pub log: PathBuf,
}

impl Daemon {
    pub fn signal(&self, signal: Signal) {
        let pid = self.child.id().expect("it was not waited for");
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
    }

    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until the daemon has logged `words`.
    pub async fn says(&mut self, words: &str) {
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

    /// Waits for the end. It has told no secret then.
    pub async fn ends(&mut self) -> ExitStatus {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let said = self.said();
        for secret in [TOKEN, SERVICE_KEY] {
            assert!(!said.contains(secret), "a secret in the log: {said}");
        }
        match ended {
            Ok(status) => status.unwrap(),
            Err(_) => panic!("it does not end: {said}"),
        }
    }

    /// Asks it to stop, and expects that it does so cleanly.
    pub async fn stops(&mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.ends().await;
        assert_eq!(status.code(), Some(0), "{}", self.said());
    }

    /// Waits for an end with this code, and returns what was said.
    pub async fn fails(&mut self, code: i32) -> String {
        let status = self.ends().await;
        assert_eq!(status.code(), Some(code), "{}", self.said());
        self.said()
    }
}

/// Waits until a condition holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let since = Instant::now();
    while !holds().await {
        assert!(since.elapsed() < PATIENCE, "{what} never came true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// About two weeks in half a minute. The notices of a debit are repeated for 95 hours, within which the daemon has to be up for once.
pub const WEEKS_IN_HALF_A_MINUTE: u32 = 40_000;

/// Ticks and waits that make sense at that pace.
pub const HURRIED: &str = "[charging]\nin_flight_max = 500\nin_doubt_max = 500\nrequest_timeout = \"3s\"\nconnect_timeout = \"2s\"\n\
     [resolver]\npoll = [\"30m\", \"6h\"]\n\
     [schedule]\nscheduler = \"0 0 * * * *\"\ncharger = \"0 */20 * * * *\"\nresolver = \"0 */20 * * * *\"\n\
     notifier = \"0 0 * * * *\"\n";

/// Agreements of every pace on cards of every kind.
pub async fn subscribe_mixed(site: &Site, dice: &mut Dice) {
    for number in 0..80 {
        let period = ["P1D", "P1D", "P2D", "P1W", "P1M"][number % 5];
        let slow = Duration::from_millis(dice.below(60));
        let behaviour = match number % 8 {
            0 | 1 => Behaviour::settle_at_once(),
            2 => Behaviour::settle_after(Duration::from_secs(3_600 * dice.below(30))),
            // Few enough that charging is not paused most of the time, at a pace where a slow start takes days.
            3 if number % 16 == 3 => Behaviour::take_money_and_lose_answer(),
            4 if number % 16 == 4 => Behaviour::decline_at_once("CODE_43"),
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
pub async fn nothing_but_pauses(world: &World) {
    let incidents = world.incidents().await;
    assert!(
        incidents.iter().all(|kind| kind == "incident.doubts"),
        "{incidents:?}"
    );
    let brakes = world.column("SELECT mode::text FROM brakes").await;
    assert!(brakes.iter().all(|mode| mode == "run"), "{brakes:?}");
}

/// A PostgreSQL for one site alone, with an empty database of this version.
pub struct OwnServer {
    pub home: TempDir,
    pub settings: EmbeddedConfig,
    pub server: EmbeddedDatabase,
}

impl OwnServer {
    /// Starts it, with more server settings.
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        let home = tempfile::Builder::new()
            .permissions(PermissionsExt::from_mode(0o755))
            .tempdir_in(scratch::directory())
            .unwrap();
        let settings = EmbeddedConfig {
            data_dir: home.path().join("db"),
            bin_dir: None,
            durable: true,
            settings: settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        };
        let server = EmbeddedDatabase::start(settings.clone()).await.unwrap();
        server.ensure_database("cykl").await.unwrap();
        let store = connect(server.connect_options("cykl"), 1).await;
        store.migrate().await.unwrap();
        store.close().await;
        Self {
            home,
            settings,
            server,
        }
    }

    /// How to connect to its books.
    pub fn database(&self) -> PgConnectOptions {
        self.server.connect_options("cykl")
    }

    /// The process id of the server.
    pub fn pid(&self) -> Pid {
        let file = self.settings.data_dir.join("data/postmaster.pid");
        let text = std::fs::read_to_string(file).unwrap();
        Pid::from_raw(text.lines().next().unwrap().trim().parse().unwrap())
    }
}

impl OwnServer {
    /// A program that runs as the user that the server runs as.
    pub fn command(&self, program: impl AsRef<OsStr>) -> std::process::Command {
        let home = std::fs::metadata(&self.settings.data_dir).unwrap();
        let mut command = std::process::Command::new(program);
        command.current_dir("/");
        if geteuid().is_root() {
            command.uid(home.uid()).gid(home.gid());
        }
        command
    }

    /// What the server has logged since it was started.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.settings.data_dir.join("postgres.log")).unwrap()
    }
}

/// A server and all its sessions, those of one that has ended being none.
pub fn with_sessions(server: Pid) -> Vec<Pid> {
    let children = format!("/proc/{server}/task/{server}/children");
    let children = std::fs::read_to_string(children).unwrap_or_default();
    let children = children.split_whitespace();
    std::iter::once(server)
        .chain(children.map(|pid| Pid::from_raw(pid.parse().unwrap())))
        .collect()
}

/// Starts the server again. What the one that was killed has left behind may take a moment to end.
pub async fn start_again(settings: &EmbeddedConfig) -> EmbeddedDatabase {
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
/// books are compared with the ledger. At least so many days must have been lived through.
pub async fn go_on_and_settle_up(site: Site, days_min: i64, cut_off: i64) {
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

    site.compare_with_journal().await;
    let world = site.reckoning().await;
    world.run_until_idle().await;
    let posts = world.simulator.ledger().posts().len();
    let days = (world.clock.now() - START.parse::<DateTime<Utc>>().unwrap()).num_days();
    println!("{posts} debits in {days} days, {cut_off} of them cut off");
    assert!(cut_off > 0, "no kill hit a debit");
    let least = usize::try_from(days_min).unwrap();
    assert!(
        days >= days_min && posts >= 20 * least,
        "too little happened: {posts} debits in {days} days"
    );
    let forgotten: Vec<String> = sqlx::query_scalar(
        "SELECT s.external_id || ': ' || coalesce(d.period_no, -1) || ' next, ' || count(c.charge_id) || ' charges'
         FROM subscriptions s LEFT JOIN due_periods d USING (subscription_id) LEFT JOIN all_charges c USING (subscription_id)
         GROUP BY s.subscription_id, d.due_at, d.period_no
         HAVING (s.status IN ('active', 'past_due')
                 AND (d.due_at IS NULL OR d.due_at <= $1 OR d.period_no <> count(c.charge_id)))
             OR count(c.charge_id) <> coalesce(max(c.period_no) + 1, 0)",
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
