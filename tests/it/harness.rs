//! A world of its own for each test: a fresh database, a simulator, a clock that stands still until it is moved.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use cykl::cli::daemon;
use cykl::clock::Clock;
use cykl::config::Config;
use cykl::domain::id::FenceId;
use cykl::domain::permit_record::PermitRecord;
use cykl::embedded::{EmbeddedConfig, EmbeddedDatabase};
use cykl::gateway::Algorithm;
use cykl::http::{HttpState, NoticeRules, ShopDoor};
use cykl::journal::{self, Journal};
use cykl::metrics::Metrics;
use cykl::simulator::{
    Delivery, Ledger, Now, Script, SimulatedProfile, Simulator, SimulatorConfig,
};
use cykl::store::adoption::JournalNews;
use cykl::store::brakes::BrakeMode;
use cykl::store::status::By;
use cykl::store::{Channels, Store, StoreOptions};
use cykl::workers::charger::Ground;
use cykl::workers::crew::Workers;
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, PgPool};
use tokio::net::TcpListener;
use tokio::sync::{OnceCell, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::scratch;

/// The shop of every test, as the simulator knows it.
pub const MERCHANT_ID: &str = "simmerchant000000001";
/// imoje's id of that shop.
pub const SERVICE_ID: &str = "2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b";
/// Its bearer token.
pub const TOKEN: &str = "sim-token";
/// The key that signs its notices.
pub const SERVICE_KEY: &str = "sim-service-key-000";

/// A public name that the simulator takes for the door of its world, for `http.public_url`.
pub const PUBLIC_HOST: &str = "billing.example.com";

/// The private PostgreSQL that all tests of this binary share. It ends with the process.
static CLUSTER: OnceCell<EmbeddedDatabase> = OnceCell::const_new();
static TEMPLATE: OnceCell<()> = OnceCell::const_new();
static NEXT_DATABASE: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

async fn cluster() -> &'static EmbeddedDatabase {
    CLUSTER
        .get_or_init(|| async {
            EmbeddedDatabase::start(EmbeddedConfig {
                data_dir: scratch::postgres(),
                bin_dir: None,
                durable: false,
                settings: vec![("max_connections".to_owned(), "300".to_owned())],
            })
            .await
            .unwrap()
        })
        .await
}

/// A fresh, migrated database.
pub async fn fresh_database() -> PgConnectOptions {
    let cluster = cluster().await;
    TEMPLATE
        .get_or_init(|| async {
            cluster.ensure_database("cykl_template").await.unwrap();
            let store = connect(cluster.connect_options("cykl_template"), 2).await;
            store.migrate().await.unwrap();
            store.close().await;
        })
        .await;
    create_database("cykl_template").await
}

/// A copy of a world's database, as a person makes one for a staging system. Nothing else may use the original meanwhile, so every
/// connection to it is cut; the pools open new ones.
pub async fn copy_of(world: &World) -> PgConnectOptions {
    let name = world.database.get_database().unwrap();
    create_database(name).await
}

async fn create_database(template: &str) -> PgConnectOptions {
    let cluster = cluster().await;
    let number = NEXT_DATABASE.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let name = format!("cykl_{number}");
    let mut admin = PgConnection::connect_with(&cluster.connect_options("postgres"))
        .await
        .unwrap();
    let statements = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{template}';
         CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy"
    );
    for statement in statements.split(';') {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned()))
            .execute(&mut admin)
            .await
            .unwrap();
    }
    cluster.connect_options(&name)
}

/// Removes the database of a world that has served its purpose, for tests that need hundreds of them.
pub async fn drop_database(world: World) {
    let name = world.database.get_database().unwrap().to_owned();
    world.close_door();
    world.store.close().await;
    world.books.close().await;
    let mut admin = PgConnection::connect_with(&cluster().await.connect_options("postgres"))
        .await
        .unwrap();
    let statement = format!("DROP DATABASE {name} WITH (FORCE)");
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
        .execute(&mut admin)
        .await
        .unwrap();
}

/// Connects to books.
pub async fn connect(options: PgConnectOptions, max_connections: u32) -> Store {
    let channels = Channels { webhook: false };
    connect_telling(options, max_connections, channels).await
}

/// Connects to books, whose events go to these channels.
async fn connect_telling(
    options: PgConnectOptions,
    max_connections: u32,
    channels: Channels,
) -> Store {
    let options_of_store = StoreOptions {
        max_connections,
        channels,
    };
    Store::connect(options, options_of_store).await.unwrap()
}

/// One test's world.
pub struct World {
    pub store: Store,
    /// For looking at the books, and for planting faults.
    pub books: PgPool,
    pub clock: Clock,
    pub simulator: Simulator,
    pub config: Config,
    pub workers: Workers,
    pub metrics: Metrics,
    pub fence_id: FenceId,
    pub database: PgConnectOptions,
    pub door: String,
    stop_door: CancellationToken,
}

/// What a world is put together from.
pub struct Parts {
    pub clock: Clock,
    pub listener: TcpListener,
    pub simulator: Simulator,
    pub config: Config,
    pub database: PgConnectOptions,
}

impl Parts {
    /// Those of a fresh world, whose notices go to `notices`, or else to its own door.
    pub async fn new(clock: Clock, setting: Setting, notices: Option<SocketAddr>) -> Self {
        cykl::gateway::install_crypto();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let notices = notices.unwrap_or_else(|| listener.local_addr().unwrap());
        let now = clock_of(&clock);
        let simulator = simulator(now, notices, setting.script, Delivery::Manual).await;
        let config = toml(UNUSED, &simulator.base_url(), &setting.shop, &setting.toml);
        Self {
            clock,
            listener,
            simulator,
            config: Config::from_toml(&config).unwrap(),
            database: fresh_database().await,
        }
    }
}

/// An address of the database for a configuration that nothing connects by.
pub const UNUSED: &str = "postgres://unused@localhost/unused";

/// How a world differs from the usual one.
#[derive(Default, Clone)]
pub struct Setting {
    /// What the simulator does.
    pub script: Script,
    /// More configuration, as TOML sections.
    pub toml: String,
    /// More settings of the shop, as lines.
    pub shop: String,
}

/// The time at which every world begins: eight in the morning in Warsaw, two hours after the shop's charge time.
pub const START: &str = "2027-01-01T07:00:00Z";

impl World {
    /// A world whose gateway behaves as `script` says.
    pub async fn new(script: Script) -> Self {
        Self::with(Setting {
            script,
            ..Setting::default()
        })
        .await
    }

    /// A world with all its particulars.
    pub async fn with(setting: Setting) -> Self {
        let clock = Clock::manual(START.parse().unwrap());
        Self::assemble(Parts::new(clock, setting, None).await).await
    }

    /// A world of parts that exist already.
    pub async fn assemble(parts: Parts) -> Self {
        let Parts {
            clock,
            listener,
            simulator,
            config,
            database,
        } = parts;
        let channels = Channels {
            webhook: config.events.webhook_url.is_some(),
        };
        let store = connect_telling(database.clone(), 8, channels).await;
        let fence_id = store
            .pass_fence(&daemon::identities(&config), "test", clock.now())
            .await
            .unwrap();
        let metrics = daemon::metrics(&config);
        let stop = CancellationToken::new();
        let ground = Ground::default();
        let workers =
            daemon::workers(&config, &store, &clock, &metrics, fence_id, &ground, stop).unwrap();
        let stop_door = CancellationToken::new();
        let rules = daemon::notice_rules(&config);
        let state = http_state(&store, &clock, &metrics, daemon::doors(&config), rules);
        let door = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(cykl::http::serve(listener, state, stop_door.clone()));
        let books = open_books(&database).await;
        Self {
            store,
            books,
            clock,
            simulator,
            config,
            workers,
            metrics,
            fence_id,
            database,
            door,
            stop_door,
        }
    }

    /// Opens another door on `store`, which believes only `algorithms`, and returns its address.
    pub async fn another_door(&self, store: Store, algorithms: &[Algorithm]) -> String {
        let doors: Arc<[ShopDoor]> = daemon::doors(&self.config)
            .iter()
            .map(|door| ShopDoor {
                shop: door.shop.clone(),
                credentials: door.credentials.clone(),
                algorithms: algorithms.to_vec(),
            })
            .collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let door = format!("http://{}", listener.local_addr().unwrap());
        let rules = daemon::notice_rules(&self.config);
        let state = http_state(&store, &self.clock, &self.metrics, doors, rules);
        tokio::spawn(cykl::http::serve(listener, state, self.stop_door.clone()));
        door
    }

    /// The daemon is told to stop: the door takes no further request.
    pub fn close_door(&self) {
        self.stop_door.cancel();
    }

    /// Connects to the books once more.
    pub async fn another_store(&self) -> Store {
        connect(self.database.clone(), 8).await
    }

    /// Adopts `store`, without a journal, and returns the installation that may charge from then on.
    pub async fn adopt(&self, store: &Store) -> FenceId {
        let shops = daemon::identities(&self.config);
        let by = By {
            actor: "test",
            reason: "a test",
        };
        let (limits, now) = (self.workers.charger.limits, self.clock.now());
        let no_news = JournalNews::default();
        let adopted = store.adopt(&shops, by, &no_news, &limits, now);
        adopted.await.unwrap().fence_id
    }

    /// A second daemon on the same database.
    pub async fn another_instance(&self) -> Workers {
        self.another_instance_of(&self.config, &self.clock).await
    }

    /// A second daemon on the same database, which reaches imoje at `base_url`.
    pub async fn another_instance_at(&self, base_url: &str) -> Workers {
        let mut config = self.config.clone();
        for shop in config.shops.values_mut() {
            shop.base_url = base_url.parse().unwrap();
        }
        self.another_instance_of(&config, &self.clock).await
    }

    /// A second daemon on the same database, with its own configuration and clock.
    pub async fn another_instance_of(&self, config: &Config, clock: &Clock) -> Workers {
        let store = self.another_store().await;
        self.workers_of(config, &store, clock, self.fence_id, &Ground::default())
    }

    /// Workers on `store` that keep a journal in `folder`.
    pub async fn with_journal(&self, store: &Store, fence_id: FenceId, folder: &Path) -> Workers {
        let ground = Ground::new(open_journal(folder, self.clock.now()).await);
        self.workers_of(&self.config, store, &self.clock, fence_id, &ground)
    }

    fn workers_of(
        &self,
        config: &Config,
        store: &Store,
        clock: &Clock,
        fence_id: FenceId,
        ground: &Ground,
    ) -> Workers {
        let stop = CancellationToken::new();
        daemon::workers(config, store, clock, &self.metrics, fence_id, ground, stop).unwrap()
    }

    /// Moves the clock.
    pub fn advance(&self, by: TimeDelta) {
        self.clock.advance(by);
    }

    /// Runs every worker and the gateway's deliveries until nothing moves at this time any more.
    pub async fn run_until_idle(&self) {
        for _ in 0..1_000 {
            if !self.step(&self.workers).await {
                return;
            }
        }
        panic!("the workers never come to rest");
    }

    /// One round of every worker. Returns whether anything happened.
    pub async fn step(&self, workers: &Workers) -> bool {
        self.step_at(workers, self.clock.now()).await
    }

    /// One round of every worker of an instance for which it is `now`. Returns whether anything happened.
    pub async fn step_at(&self, workers: &Workers, now: DateTime<Utc>) -> bool {
        let planned = workers.scheduler.run_once(now).await.unwrap();
        let charged = workers.charger.run_once(now).await.unwrap();
        let delivered = self.simulator.deliver_due().await;
        let resolved = workers.resolver.run_once(now).await.unwrap();
        let told = workers.notifier.run_once(now).await.unwrap();
        planned.planned + planned.completed + charged.permitted + charged.put_off > 0
            || delivered.sent > 0
            || resolved.notices + resolved.read + resolved.cases_opened + resolved.written_off > 0
            || told.logged + told.posted > 0
    }

    /// Lets time pass until `end`, stopping wherever something is due, as a daemon would that always runs.
    pub async fn run_until(&self, end: DateTime<Utc>) {
        self.run_until_every(TimeDelta::seconds(1), end).await;
    }

    /// As [`World::run_until`], but what falls due within `tick` of the last stop waits for the next one.
    pub async fn run_until_every(&self, tick: TimeDelta, end: DateTime<Utc>) {
        loop {
            self.run_until_idle().await;
            let now = self.clock.now();
            let next = self.next_due().await.map(|next| next.max(now + tick));
            let Some(next) = next.filter(|&next| next < end) else {
                break;
            };
            self.clock.set(next);
        }
        if self.clock.now() < end {
            self.clock.set(end);
        }
        self.run_until_idle().await;
    }

    /// Lets days pass.
    pub async fn run_days(&self, days: i64) {
        self.run_until(self.clock.now() + TimeDelta::days(days))
            .await;
    }

    /// The next time at which the books or the gateway have something to do. What is due already and was not done is blocked,
    /// and time alone does not move it.
    pub async fn next_due(&self) -> Option<DateTime<Utc>> {
        let ours: Option<DateTime<Utc>> = sqlx::query_scalar(
            "SELECT min(due) FROM (
                 SELECT due_at FROM due_periods
                 UNION ALL SELECT send_at FROM charges
                 UNION ALL SELECT next_poll_at FROM attempts
                 UNION ALL SELECT next_poll_at FROM refunds
                 UNION ALL SELECT next_poll_at FROM registrations
                 UNION ALL SELECT next_action_at FROM notices WHERE state = 'new'
                 UNION ALL SELECT next_attempt_at FROM outbox
                 UNION ALL SELECT until FROM brakes) d (due)
             WHERE due > $1",
        )
        .bind(self.clock.now())
        .fetch_one(&self.books)
        .await
        .unwrap();
        [ours, self.simulator.next_due_at()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Stores a subscription on a card of its own.
    pub async fn subscribe(&self, agreement: Agreement) -> Uuid {
        if agreement.has_card {
            self.simulator.register_profile(agreement.profile());
        }
        agreement
            .store(&self.books, &self.config, self.clock.now())
            .await
    }

    /// One value from the books.
    pub async fn one<T>(&self, query: &'static str) -> T
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
    {
        sqlx::query_scalar(query)
            .fetch_one(&self.books)
            .await
            .unwrap()
    }

    /// A column of text from the books.
    pub async fn column(&self, query: &'static str) -> Vec<String> {
        sqlx::query_scalar(query)
            .fetch_all(&self.books)
            .await
            .unwrap()
    }

    /// Plans and debits what is due, and follows nothing up.
    pub async fn charge(&self) {
        let now = self.clock.now();
        self.workers.scheduler.run_once(now).await.unwrap();
        self.workers.charger.run_once(now).await.unwrap();
    }

    /// The state of every charge, oldest period first.
    pub async fn charges(&self) -> Vec<String> {
        self.column("SELECT state::text FROM charges ORDER BY due_on, charge_id")
            .await
    }

    /// The state of every attempt, oldest first.
    pub async fn attempts(&self) -> Vec<String> {
        self.column("SELECT state::text FROM attempts ORDER BY permitted_at, attempt_id")
            .await
    }

    /// The mode of every brake that was ever set, with its reason.
    pub async fn brakes(&self) -> Vec<String> {
        self.column("SELECT shop || ' ' || mode || ' ' || reason FROM brakes ORDER BY shop")
            .await
    }

    /// The incidents that were told, each kind once.
    pub async fn incidents(&self) -> Vec<String> {
        self.column("SELECT DISTINCT kind FROM events WHERE kind LIKE 'incident.%' ORDER BY kind")
            .await
    }

    /// A person releases the brake of all shops.
    pub async fn release_brake(&self) {
        self.store
            .set_brake(None, BrakeMode::Run, "test", "looked at", self.clock.now())
            .await
            .unwrap();
    }

    /// How often the gateway was debited.
    pub fn posts(&self) -> u64 {
        self.simulator.totals().posts
    }

    /// How every test that moves money ends: the books agree with the gateway's ledger, and no period was charged twice.
    pub async fn settle_up(&self) {
        self.settle_up_except(&[]).await;
    }

    /// As [`World::settle_up`], without the checks of the audit that the test itself has made untrue.
    pub async fn settle_up_except(&self, untrue: &[&str]) {
        self.audit_except(untrue).await;
        self.compare_with_ledger().await;
        self.nothing_was_charged_twice().await;
    }

    /// As [`World::settle_up`], but money may have moved for attempts that imoje never told about and people were asked about.
    pub async fn settle_up_beside_doubts(&self, untrue: &[&str]) {
        self.audit_except(untrue).await;
        self.compare_beside_doubts().await;
        self.nothing_was_charged_twice().await;
    }

    /// The audit finds nothing but what these checks find.
    pub async fn audit_except(&self, untrue: &[&str]) {
        for check in self.store.audit(self.clock.now()).await.unwrap() {
            let is_clean = check.findings.is_empty() || untrue.contains(&check.check);
            let about = check
                .findings
                .first()
                .filter(|_| !is_clean)
                .and_then(|finding| finding.subscription_id);
            let story = match about {
                Some(id) => self.story_of(id).await,
                None => Vec::new(),
            };
            assert!(is_clean, "the audit found {check:#?} in {story:#?}");
        }
    }

    /// What happened to a subscription, for a failure to say.
    async fn story_of(&self, subscription_id: Uuid) -> Vec<String> {
        sqlx::query_scalar(
            "SELECT format('%s %s %s', occurred_at, kind, payload) FROM all_events WHERE subscription_id = $1
             UNION ALL
             SELECT format('%s period %s due %s %s', planned_at, period_no, due_on, state) FROM all_charges WHERE subscription_id = $1
             UNION ALL
             SELECT format('next %s due %s', period_no, due_at) FROM due_periods WHERE subscription_id = $1
             ORDER BY 1",
        )
        .bind(subscription_id)
        .fetch_all(&self.books)
        .await
        .unwrap()
    }

    /// Every period that fell due has a charge, and every subscription that is billed has a next one.
    pub async fn nothing_due_is_forgotten(&self) {
        let forgotten: Vec<String> = sqlx::query_scalar(
            "SELECT format('%s, due at %s', s.external_id, coalesce(d.due_at::text, 'no time'))
             FROM subscriptions s LEFT JOIN due_periods d USING (subscription_id)
             WHERE s.status IN ('active', 'past_due') AND NOT s.is_finishing AND (d.due_at IS NULL OR d.due_at <= $1)",
        )
        .bind(self.clock.now())
        .fetch_all(&self.books)
        .await
        .unwrap();
        assert_eq!(
            forgotten,
            Vec::<String>::new(),
            "a due period has no charge"
        );
    }

    async fn nothing_was_charged_twice(&self) {
        let twice = self
            .column(
                "SELECT subscription_id || ' period ' || period_no FROM all_attempts WHERE state IN ('settled', 'surplus')
                 GROUP BY subscription_id, period_no HAVING count(*) > 1",
            )
            .await;
        assert_eq!(twice, Vec::<String>::new(), "a period was charged twice");
    }

    /// The books agree with the gateway's ledger, even when the gateway itself moved money twice.
    pub async fn compare_with_ledger(&self) {
        self.compare(&BTreeSet::new()).await;
    }

    /// The books agree with the ledger, but for open questions that people were asked.
    pub async fn compare_beside_doubts(&self) {
        let asked = self
            .column("SELECT order_id FROM all_attempts WHERE state = 'in_doubt' AND case_opened_at IS NOT NULL")
            .await;
        self.compare(&asked.into_iter().collect()).await;
    }

    /// As [`World::settle_up`], where a payer may have paid what was debited as well.
    pub async fn compare_beside_surplus(&self, paid_twice: bool) {
        let untrue: &[&str] = if paid_twice {
            &["money_moved_once"]
        } else {
            &[]
        };
        self.audit_except(untrue).await;
        self.compare_moved(&BTreeSet::new()).await;
    }

    async fn compare(&self, asked: &BTreeSet<String>) {
        self.compare_moved(asked).await;
        let unexplained = self
            .column(
                "SELECT charge_id::text FROM all_charges c WHERE (state = 'paid') <> EXISTS (
                     SELECT FROM all_attempts a WHERE a.charge_id = c.charge_id AND a.state = 'settled')",
            )
            .await;
        assert_eq!(unexplained, Vec::<String>::new(), "paid means settled");
    }

    async fn compare_moved(&self, asked: &BTreeSet<String>) {
        let ledger = self.simulator.ledger();
        assert_eq!(
            ledger.order_ids_posted_twice(),
            Vec::<&str>::new(),
            "an order id was posted twice"
        );
        let theirs: BTreeSet<String> = ledger
            .settled()
            .filter(|transaction| !asked.contains(&*transaction.order_id))
            .map(|transaction| format!("{} {}", transaction.order_id, transaction.id))
            .collect();
        let ours: BTreeSet<String> = self
            .column(
                "SELECT order_id || ' ' || transaction_id FROM all_attempts WHERE state IN ('settled', 'surplus')
                 UNION ALL
                 SELECT r.order_id || ' ' || p.transaction_id
                 FROM registrations r, unnest(r.surplus_ids || r.transaction_id) AS p (transaction_id)
                 WHERE r.purpose = 'verification' AND p.transaction_id IS NOT NULL",
            )
            .await
            .into_iter()
            .collect();
        let only_ours: Vec<_> = ours.difference(&theirs).collect();
        let only_theirs: Vec<_> = theirs.difference(&ours).collect();
        assert!(
            only_ours.is_empty() && only_theirs.is_empty(),
            "settled in our books only: {only_ours:?}; at the gateway only: {only_theirs:?}"
        );
        self.compare_refunds(&ledger, asked).await;
        let (by_card_data, debits): (Vec<_>, Vec<_>) = ledger
            .posts()
            .iter()
            .partition(|post| post.order_id.as_deref().is_some_and(is_registration));
        let permits: i64 = self.one("SELECT count(*) FROM all_attempts").await;
        assert!(
            debits.len() <= usize::try_from(permits).unwrap(),
            "more requests than permits"
        );
        let registrations: i64 = self
            .one("SELECT count(*) FROM registrations WHERE way = 'card_data'")
            .await;
        assert!(
            by_card_data.len() <= usize::try_from(registrations).unwrap(),
            "more cards registered than asked for"
        );
    }
}

impl World {
    /// What went back is what our books say, and no refund was asked for twice or too soon after another.
    async fn compare_refunds(&self, ledger: &Ledger, asked: &BTreeSet<String>) {
        let theirs: BTreeSet<String> = ledger
            .refunds()
            .iter()
            .filter(|refund| {
                ledger.status_of(refund) == "settled" && !asked.contains(&*refund.order_id)
            })
            .map(|refund| format!("{} {} {}", refund.order_id, refund.id, refund.amount_minor))
            .collect();
        let ours: BTreeSet<String> = self
            .column("SELECT order_id || ' ' || transaction_id || ' ' || amount_minor FROM refunds WHERE state = 'settled'")
            .await
            .into_iter()
            .collect();
        assert_eq!(
            ours, theirs,
            "the books and the gateway differ about refunds"
        );
        for sale in ledger.transactions() {
            assert!(
                ledger.refunded(sale.id) <= u64::from(sale.amount_minor),
                "{sale:?}"
            );
        }
        let permits: i64 = self.one("SELECT count(*) FROM refunds").await;
        assert!(
            ledger.refund_posts().len() <= usize::try_from(permits).unwrap(),
            "more refunds were asked for than the books know of"
        );
        assert_eq!(ledger.totals().hasty_refunds, 0, "refunds came too close");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop_door.cancel();
    }
}

/// A journal in `folder` from which nothing is deleted.
pub async fn open_journal(folder: &Path, now: DateTime<Utc>) -> Journal {
    let keep = TimeDelta::days(400);
    Journal::open(folder.to_owned(), keep, now).await.unwrap()
}

/// Every permit that the journal in `folder` names.
pub async fn permits_in(folder: &Path) -> Vec<PermitRecord> {
    let mut permits = Vec::new();
    for file in journal::files(folder.to_owned()).await.unwrap() {
        permits.extend(journal::read(file).await.unwrap().permits);
    }
    permits
}

/// Whether the order is that of a registration.
pub fn is_registration(order_id: &str) -> bool {
    order_id.starts_with("cykl-r-")
}

/// Whether the journal in `folder` kept its promise: nothing was sent, from `since` on, that it does not name. Nor does it name what
/// never was in the books, which would make them look as if they had gone back in time.
pub async fn compare_with_journal(
    folder: &Path,
    simulator: &Simulator,
    store: &Store,
    since: Option<DateTime<Utc>>,
) {
    let permits = permits_in(folder).await;
    let named: BTreeSet<String> = permits
        .iter()
        .map(|permit| permit.order_id.to_string())
        .collect();
    let ledger = simulator.ledger();
    let unnamed: Vec<_> = ledger
        .posts()
        .iter()
        .filter(|post| since.is_none_or(|since| post.at >= since))
        .map(|post| post.order_id.as_deref().unwrap_or_default())
        // Registrations have no permit; their payments are known by their notices, as those of links.
        .filter(|order_id| !named.contains(*order_id) && !is_registration(order_id))
        .collect();
    assert_eq!(unnamed, Vec::<&str>::new(), "sent, and not in the journal");
    let forgotten = store.forgotten(permits).await.unwrap();
    assert_eq!(forgotten, [], "in the journal, and not in the books");
}

/// A pool for looking at the books.
pub async fn open_books(database: &PgConnectOptions) -> PgPool {
    PgPool::connect_with(database.clone().options([("search_path", "cykl,billing")]))
        .await
        .unwrap()
}

/// What a door needs.
pub fn http_state(
    store: &Store,
    clock: &Clock,
    metrics: &Metrics,
    doors: Arc<[ShopDoor]>,
    rules: NoticeRules,
) -> HttpState {
    let (_, doors) = watch::channel(doors);
    HttpState {
        store: store.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
        doors,
        rules,
        worker_lag_max: TimeDelta::minutes(5),
    }
}

/// The time of the simulator, from a clock of ours.
pub fn clock_of(clock: &Clock) -> Now {
    let clock = clock.clone();
    Arc::new(move || clock.now())
}

/// A simulator that sends its notices to `door`.
pub async fn simulator(
    now: Now,
    door: SocketAddr,
    script: Script,
    delivery: Delivery,
) -> Simulator {
    let mut config = SimulatorConfig::new(now);
    for shop in &mut config.shops {
        shop.notify_url = Some(
            format!("http://{door}/imoje/notifications")
                .parse()
                .unwrap(),
        );
    }
    config.resolve.insert(PUBLIC_HOST.to_owned(), door);
    config.script = script;
    config.delivery = delivery;
    Simulator::start(config).await.unwrap()
}

/// A configuration with one shop; `shop` are more settings of it, `more` are more sections.
pub fn toml(database: &str, base_url: &str, shop: &str, more: &str) -> String {
    format!(
        "[database]\nurl = \"{database}\"\n\
         [shops.main]\nenvironment = \"simulator\"\nbase_url = \"{base_url}\"\nmerchant_id = \"{MERCHANT_ID}\"\n\
         service_id = \"{SERVICE_ID}\"\ntoken = \"{TOKEN}\"\nservice_key = \"{SERVICE_KEY}\"\n\
         success_return_url = \"https://shop.example.test/ok\"\nfailure_return_url = \"https://shop.example.test/no\"\n{shop}\n{more}"
    )
}

/// An agreement to store. Its card is its own unless two share a profile.
#[derive(Clone)]
pub struct Agreement {
    pub id: Uuid,
    pub external_id: String,
    pub cid: String,
    pub profile: Uuid,
    pub amount_minor: i64,
    pub period: String,
    pub anchor: NaiveDate,
    pub behaviour: cykl::simulator::Behaviour,
    pub max_charges: Option<i32>,
    /// Whether the card has no profile, and the aliases that its debits name.
    pub plain: Option<Option<Value>>,
    /// Whether it has a card; else it waits for one.
    pub has_card: bool,
}

static NUMBER: OnceLock<std::sync::atomic::AtomicU32> = OnceLock::new();

impl Agreement {
    /// 49.00 PLN each month from `anchor`.
    pub fn monthly(anchor: &str) -> Self {
        let number = NUMBER
            .get_or_init(Default::default)
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Self {
            id: Uuid::now_v7(),
            external_id: format!("sub-{number}"),
            cid: format!("card-{number}"),
            profile: Uuid::new_v4(),
            amount_minor: 4900,
            period: "P1M".to_owned(),
            anchor: anchor.parse().unwrap(),
            behaviour: cykl::simulator::Behaviour::settle_at_once(),
            max_charges: None,
            plain: None,
            has_card: true,
        }
    }

    /// Without a card: it waits for one.
    pub fn without_card(mut self) -> Self {
        self.has_card = false;
        self
    }

    /// With a card that has no profile.
    pub fn without_profile(mut self) -> Self {
        self.plain = Some(None);
        self
    }

    /// With a card that has no profile, and is named by these aliases.
    pub fn with_aliases(mut self, aliases: Value) -> Self {
        self.plain = Some(Some(aliases));
        self
    }

    /// What names its card, if that has no profile.
    fn first_transaction_id(&self) -> Option<String> {
        self.plain.as_ref()?;
        Some(format!("first-{}", self.cid))
    }

    /// Every `period`.
    pub fn every(mut self, period: &str) -> Self {
        self.period = period.to_owned();
        self
    }

    /// With a card that behaves like this.
    pub fn with_card(mut self, behaviour: cykl::simulator::Behaviour) -> Self {
        self.behaviour = behaviour;
        self
    }

    /// On the same card as `other`.
    pub fn on_the_card_of(mut self, other: &Agreement) -> Self {
        self.cid = other.cid.clone();
        self.profile = other.profile;
        self.behaviour = other.behaviour.clone();
        self
    }

    /// For so many periods.
    pub fn times(mut self, max_charges: i32) -> Self {
        self.max_charges = Some(max_charges);
        self
    }

    /// Its card, as the gateway knows it.
    pub fn profile(&self) -> SimulatedProfile {
        SimulatedProfile {
            behaviour: self.behaviour.clone(),
            first_transaction_id: self.first_transaction_id(),
            ..SimulatedProfile::new(self.profile).with_cid(&self.cid)
        }
    }

    /// Stores it.
    pub async fn store(self, books: &PgPool, config: &Config, now: DateTime<Utc>) -> Uuid {
        if !self.has_card {
            return self.store_waiting(books, now).await;
        }
        let subscription_id = self.id;
        let first_transaction_id = self.first_transaction_id();
        let calendar = daemon::calendar(config.shops.values().next().unwrap());
        let due_at = calendar.due_at(
            cykl::domain::id::SubscriptionId::from_uuid(subscription_id),
            chrono_tz::Europe::Warsaw,
            self.anchor,
        );
        sqlx::query(
            "WITH card AS (
                INSERT INTO cards (card_id, shop, cid, payment_profile_id, first_transaction_id, customer, aliases, created_at)
                VALUES ($1, 'main', $2, $3, $12, $13, $14, $4)
                ON CONFLICT (shop, cid) DO UPDATE SET cid = excluded.cid RETURNING card_id
            ), subscription AS (
                INSERT INTO subscriptions (subscription_id, shop, external_id, status, card_id, amount_minor, currency, period,
                                           anchor_date, timezone, max_charges, first_period_no, from_due_at, created_at, updated_at)
                SELECT $5, 'main', $6, 'active', card_id, $7, 'PLN', $8, $9, 'Europe/Warsaw', $10, 0, $11, $4, $4 FROM card
            )
            INSERT INTO due_periods (due_at, subscription_id, period_no, due_on) VALUES ($11, $5, 0, $9)",
        )
        .bind(Uuid::now_v7())
        .bind(&self.cid)
        .bind(self.plain.is_none().then_some(self.profile))
        .bind(now)
        .bind(subscription_id)
        .bind(self.external_id)
        .bind(self.amount_minor)
        .bind(self.period)
        .bind(self.anchor)
        .bind(self.max_charges)
        .bind(due_at)
        .bind(first_transaction_id)
        .bind(self.plain.is_some().then(|| {
            json!({"firstName": "Anna", "lastName": "Nowak", "email": "anna@example.test"})
        }))
        .bind(self.plain.flatten())
        .execute(books)
        .await
        .unwrap();
        subscription_id
    }
}

impl Agreement {
    /// Stores it as one that waits for its card.
    async fn store_waiting(self, books: &PgPool, now: DateTime<Utc>) -> Uuid {
        sqlx::query(
            "WITH subscription AS (
                INSERT INTO subscriptions (subscription_id, shop, external_id, status, amount_minor, currency, period, anchor_date,
                                           timezone, max_charges, first_period_no, created_at, updated_at)
                VALUES ($1, 'main', $2, 'registering', $3, 'PLN', $4, $5, 'Europe/Warsaw', $6, 0, $7, $7)
            )
            INSERT INTO events (event_id, subscription_id, sequence_no, kind, is_alert, shop, payload, occurred_at)
            VALUES ($8, $1, 1, 'subscription.created', false, 'main', '{}', $7)",
        )
        .bind(self.id)
        .bind(self.external_id)
        .bind(self.amount_minor)
        .bind(self.period)
        .bind(self.anchor)
        .bind(self.max_charges)
        .bind(now)
        .bind(Uuid::now_v7())
        .execute(books)
        .await
        .unwrap();
        self.id
    }
}

/// A number from the environment, for long runs.
pub fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is a number, not {text}")),
    )
}
