//! A private PostgreSQL, and in it a fresh database for every measurement.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use cykl::clock::Clock;
use cykl::domain::shop::Environment;
use cykl::embedded::{EmbeddedConfig, EmbeddedDatabase};
use cykl::store::installation::ShopIdentity;
use cykl::store::{Channels, Store, StoreOptions};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgPool};
use tempfile::TempDir;

use crate::children::{Daemon, Gateway};
use crate::figures::Cost;
use crate::processes;

/// The simulator's own merchant, shop and token.
pub const MERCHANT_ID: &str = "simmerchant000000001";
/// See [`MERCHANT_ID`].
pub const SERVICE_ID: &str = "2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b";
/// See [`MERCHANT_ID`].
pub const TOKEN: &str = "sim-token";

/// The role of the statements that this program makes itself, so that they can be told from the daemon's.
const OBSERVER: &str = "observer";

/// How often it is looked whether all is done.
const GLANCE: Duration = Duration::from_millis(50);

/// Within this time something has to happen.
const PATIENCE: Duration = Duration::from_secs(3600);

/// PostgreSQL, and where the files of the measurements are.
pub struct World {
    database: EmbeddedDatabase,
    directory: TempDir,
    counts_statements: bool,
    in_flight: u32,
    databases: u32,
}

/// What the daemon has used while much is due.
pub struct Seen {
    /// Charges that were paid by then.
    pub paid: u64,
    /// The most memory it had resident.
    pub peak_rss_kib: u64,
}

/// A database with subscriptions that are due, and a gateway.
struct Scene {
    database: String,
    observer: PgPool,
    postmaster: i32,
    gateway: Gateway,
    config: PathBuf,
}

impl World {
    /// Starts PostgreSQL, with the extension that counts statements where there is one.
    pub async fn start(in_flight: u32) -> anyhow::Result<Self> {
        cykl::gateway::install_crypto();
        let directory = tempfile::Builder::new()
            .prefix("cykl-bench-")
            .tempdir()
            .context("couldn't create a temporary directory")?;
        // As root the server runs as another user, who has to be let through.
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755))
            .context("couldn't open the temporary directory")?;
        let mut database = start_postgres(directory.path(), Vec::new()).await?;
        let mut connection = database.connect_options("postgres").connect().await?;
        let counts_statements: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_stat_statements')",
        )
        .fetch_one(&mut connection)
        .await?;
        connection.close().await?;
        if counts_statements {
            database.stop().await?;
            let setting = ("shared_preload_libraries", "pg_stat_statements");
            let settings = vec![(setting.0.to_owned(), setting.1.to_owned())];
            database = start_postgres(directory.path(), settings).await?;
        }
        let mut connection = database.connect_options("postgres").connect().await?;
        sqlx::raw_sql("CREATE ROLE observer SUPERUSER LOGIN")
            .execute(&mut connection)
            .await?;
        connection.close().await?;
        Ok(Self {
            database,
            directory,
            counts_statements,
            in_flight,
            databases: 0,
        })
    }

    /// Where files may be put.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Stops PostgreSQL and removes everything.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.database.stop().await?;
        self.directory
            .close()
            .context("couldn't remove the temporary directory")
    }

    /// What it is measured on.
    pub async fn description(&self) -> anyhow::Result<String> {
        let mut connection = self.database.connect_options("postgres").connect().await?;
        let version: String = sqlx::query_scalar("SHOW server_version")
            .fetch_one(&mut connection)
            .await?;
        connection.close().await?;
        let cores = std::thread::available_parallelism().context("couldn't count the cores")?;
        let counted = if self.counts_statements {
            "statements as pg_stat_statements counts them"
        } else {
            "pg_stat_statements is missing: transactions stand in for statements"
        };
        Ok(format!(
            "PostgreSQL {version}, stock settings, durable commits; {cores} cores; {counted}"
        ))
    }

    /// Lets the daemon charge `charges` subscriptions that are due, and compares the books with the gateway's ledger.
    pub async fn charge_all(&mut self, charges: u64) -> anyhow::Result<Cost> {
        let scene = self.set_scene(charges).await?;
        let observer = &scene.observer;
        let wal_before: i64 = wal_position(observer).await?;
        let fsyncs_before = fsyncs(observer).await?;
        let postgres_before = processes::cpu_of_family(scene.postmaster)?;
        let started = Instant::now();
        let mut daemon = Daemon::start(&scene.config)?;
        loop {
            tokio::time::sleep(GLANCE).await;
            daemon.process().check()?;
            if is_all_done(observer).await? {
                break;
            }
            ensure!(started.elapsed() < PATIENCE, "the charges do not end");
        }
        let wall = started.elapsed();
        // While all connections are open: a backend that ends takes its CPU time along for a moment.
        let postgres_cpu = processes::cpu_of_family(scene.postmaster)? - postgres_before;
        let daemon_cpu = daemon.process().cpu()?;
        let gateway_cpu = scene.gateway.process().cpu()?;
        let daemon_peak_rss_kib = daemon.process().peak_rss_kib()?;
        let wal_bytes =
            u64::try_from(wal_position(observer).await? - wal_before).context("the WAL grows")?;
        daemon.stop().await?;
        // Backends tell what they counted when they end, at the latest.
        let fsyncs = u64::try_from(fsyncs(observer).await? - fsyncs_before)
            .context("the count of fsyncs grows")?;
        let statements = self.statements(observer).await?;
        let database = scene.database.clone();
        compare_books(scene, charges).await?;
        self.drop_database(&database).await?;
        Ok(Cost {
            wall,
            daemon_cpu,
            postgres_cpu,
            gateway_cpu,
            wal_bytes,
            fsyncs,
            statements,
            daemon_peak_rss_kib,
        })
    }

    /// Lets the daemon work on `charges` subscriptions that are due until all are planned and `paid` are paid.
    pub async fn memory_under_load(&mut self, charges: u64, paid: u64) -> anyhow::Result<Seen> {
        let scene = self.set_scene(charges).await?;
        let started = Instant::now();
        let mut daemon = Daemon::start(&scene.config)?;
        let seen = loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            daemon.process().check()?;
            let paid_now = paid_if_all_planned(&scene.observer).await?;
            if let Some(paid_now) = paid_now.filter(|&now| now >= paid) {
                break Seen {
                    paid: paid_now,
                    peak_rss_kib: daemon.process().peak_rss_kib()?,
                };
            }
            ensure!(started.elapsed() < PATIENCE, "the charges do not get on");
        };
        daemon.stop().await?;
        let charged: i64 =
            sqlx::query_scalar("SELECT count(*) FROM attempts WHERE state = 'settled'")
                .fetch_one(&scene.observer)
                .await?;
        compare_books(scene, u64::try_from(charged)?).await?;
        Ok(seen)
    }

    /// A fresh database in which `charges` subscriptions are due, a fresh gateway, and the configuration of a daemon for both.
    async fn set_scene(&mut self, charges: u64) -> anyhow::Result<Scene> {
        self.databases += 1;
        let name = format!("bench_{}", self.databases);
        self.database.ensure_database(&name).await?;
        let options = self.database.connect_options(&name);
        migrate(options.clone()).await?;
        let observer = PgPoolOptions::new()
            .max_connections(1)
            .connect_with(
                options
                    .clone()
                    .username(OBSERVER)
                    .options([("search_path", "cykl")]),
            )
            .await
            .context("couldn't connect to the private PostgreSQL")?;
        subscribe(&observer, charges).await?;
        if self.counts_statements {
            sqlx::raw_sql(
                "CREATE EXTENSION IF NOT EXISTS pg_stat_statements; SELECT pg_stat_statements_reset()",
            )
            .execute(&observer)
            .await?;
        }
        let backend: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
            .fetch_one(&observer)
            .await?;
        let gateway = Gateway::start(self.directory()).await?;
        let config = self.directory().join(format!("{name}.toml"));
        let toml = self.config(&options, &name, gateway.base_url());
        std::fs::write(&config, toml)
            .with_context(|| format!("couldn't write {}", config.display()))?;
        Ok(Scene {
            database: name,
            observer,
            postmaster: processes::parent_of(backend)?,
            gateway,
            config,
        })
    }

    fn config(&self, options: &PgConnectOptions, database: &str, base_url: &str) -> String {
        let url = format!(
            "postgres://{}@localhost:{}/{database}?host={}",
            options.get_username(),
            options.get_port(),
            self.database.socket_dir().display(),
        );
        format!(
            "[database]\nurl = \"{url}\"\n\
             [shops.main]\nenvironment = \"simulator\"\nbase_url = \"{base_url}\"\nmerchant_id = \"{MERCHANT_ID}\"\n\
             service_id = \"{SERVICE_ID}\"\ntoken = \"{TOKEN}\"\nservice_key = \"sim-service-key-000\"\n\
             [charging]\nin_flight_max = {}\n\
             [http]\nlisten = \"127.0.0.1:0\"\n\
             [log]\nformat = \"text\"\nfilter = \"warn\"\n",
            self.in_flight,
        )
    }

    /// So that nothing is left to be vacuumed while the next round is measured.
    async fn drop_database(&self, name: &str) -> anyhow::Result<()> {
        let mut connection = self.database.connect_options("postgres").connect().await?;
        sqlx::raw_sql(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)")))
            .execute(&mut connection)
            .await?;
        connection.close().await?;
        Ok(())
    }

    /// The statements of the daemon since the scene was set, or its transactions.
    async fn statements(&self, observer: &PgPool) -> anyhow::Result<u64> {
        let query = if self.counts_statements {
            "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements JOIN pg_roles ON userid = pg_roles.oid
             WHERE rolname = 'cykl' AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
        } else {
            "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
        };
        let count: i64 = sqlx::query_scalar(query).fetch_one(observer).await?;
        Ok(u64::try_from(count)?)
    }
}

async fn start_postgres(
    directory: &Path,
    settings: Vec<(String, String)>,
) -> anyhow::Result<EmbeddedDatabase> {
    let config = EmbeddedConfig {
        data_dir: directory.join("postgres"),
        bin_dir: None,
        durable: true,
        settings,
    };
    Ok(EmbeddedDatabase::start(config).await?)
}

/// Gives a database its schema, and the shop that the cards belong to.
async fn migrate(options: PgConnectOptions) -> anyhow::Result<()> {
    let store_options = StoreOptions {
        max_connections: 1,
        channels: Channels { webhook: false },
    };
    let store = Store::connect(options, store_options).await?;
    store.migrate().await?;
    let shop = ShopIdentity {
        shop: "main".parse().context("a shop's name")?,
        environment: Environment::Simulator,
        merchant_id: MERCHANT_ID.to_owned(),
        service_id: SERVICE_ID.to_owned(),
    };
    store
        .pass_fence(&[shop], "bench", Clock::system().now())
        .await?;
    store.close().await;
    Ok(())
}

/// Stores subscriptions, each on a card of its own, whose first period fell due at a random moment of the last hour. Ids are
/// random, so that rows that are worked on together do not lie together.
async fn subscribe(observer: &PgPool, count: u64) -> anyhow::Result<()> {
    let count = i64::try_from(count)?;
    let now = Clock::system().now();
    let statements = [
        "INSERT INTO cards (card_id, shop, cid, payment_profile_id, created_at)
         SELECT md5('card ' || n)::uuid, 'main', 'card-' || n, gen_random_uuid(), $2 FROM generate_series(1, $1) n",
        "INSERT INTO subscriptions (subscription_id, shop, external_id, status, card_id, amount_minor, currency, period,
                                    anchor_date, timezone, first_period_no, created_at, updated_at)
         SELECT md5('subscription ' || n)::uuid, 'main', 'subscription ' || n, 'active', md5('card ' || n)::uuid, 4900, 'PLN',
                'P1M', ($2 AT TIME ZONE 'Europe/Warsaw')::date, 'Europe/Warsaw', 0, $2, $2
         FROM generate_series(1, $1) n",
        "INSERT INTO schedules (subscription_id, next_period_no, next_due_on, next_due_at)
         SELECT md5('subscription ' || n)::uuid, 0, ($2 AT TIME ZONE 'Europe/Warsaw')::date, $2 - random() * interval '1 hour'
         FROM generate_series(1, $1) n",
    ];
    for statement in statements {
        sqlx::query(statement)
            .bind(count)
            .bind(now)
            .execute(observer)
            .await?;
    }
    // What autovacuum does soon after an import, and a checkpoint that every measurement begins with.
    for statement in [
        "VACUUM (ANALYZE) cards, subscriptions, schedules",
        "CHECKPOINT",
    ] {
        sqlx::raw_sql(statement).execute(observer).await?;
    }
    Ok(())
}

/// Whether nothing is left to plan, to charge or to tell.
async fn is_all_done(observer: &PgPool) -> anyhow::Result<bool> {
    Ok(sqlx::query_scalar(
        "SELECT NOT EXISTS (SELECT FROM schedules WHERE next_due_at <= $1)
            AND NOT EXISTS (SELECT FROM charges WHERE state IN ('planned', 'retry_wait'))
            AND NOT EXISTS (SELECT FROM charges WHERE state = 'in_flight')
            AND NOT EXISTS (SELECT FROM outbox)",
    )
    .bind(Clock::system().now())
    .fetch_one(observer)
    .await?)
}

/// How many charges are paid, once no period is left to plan.
async fn paid_if_all_planned(observer: &PgPool) -> anyhow::Result<Option<u64>> {
    let paid: Option<i64> = sqlx::query_scalar(
        "SELECT CASE WHEN NOT EXISTS (SELECT FROM schedules WHERE next_due_at <= $1)
                THEN (SELECT count(*) FROM charges WHERE state = 'paid') END",
    )
    .bind(Clock::system().now())
    .fetch_one(observer)
    .await?;
    Ok(paid.map(u64::try_from).transpose()?)
}

/// How far the WAL has been written, in bytes.
async fn wal_position(observer: &PgPool) -> anyhow::Result<i64> {
    Ok(
        sqlx::query_scalar("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint")
            .fetch_one(observer)
            .await?,
    )
}

async fn fsyncs(observer: &PgPool) -> anyhow::Result<i64> {
    Ok(sqlx::query_scalar("SELECT wal_sync FROM pg_stat_wal")
        .fetch_one(observer)
        .await?)
}

/// Ends the gateway and demands that its ledger and the books agree on `charges` payments, each of another charge.
async fn compare_books(scene: Scene, charges: u64) -> anyhow::Result<()> {
    let (paid, settled): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM charges WHERE state = 'paid'),
                (SELECT count(DISTINCT transaction_id) FROM attempts WHERE state = 'settled')",
    )
    .fetch_one(&scene.observer)
    .await?;
    let (paid, settled) = (u64::try_from(paid)?, u64::try_from(settled)?);
    scene.observer.close().await;
    let ledger = scene.gateway.stop().await?;
    let theirs: u64 = ledger.transactions.values().sum();
    let settled_there = ledger.transactions.get("settled").copied().unwrap_or(0);
    ensure!(
        [paid, settled, theirs, settled_there] == [charges; 4] && ledger.is_each_order_debited_once,
        "the books and the gateway differ: {charges} charges, {paid} paid, {settled} settled transactions; the gateway has \
         {theirs} transactions, {settled_there} of them settled, each order once: {}",
        ledger.is_each_order_debited_once,
    );
    Ok(())
}
