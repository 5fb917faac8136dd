//! A private PostgreSQL with filled databases to copy from, and a fresh copy for every measurement.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use cykl::clock::Clock;
use cykl::domain::shop::Environment;
use cykl::embedded::{EmbeddedConfig, EmbeddedDatabase};
use cykl::store::installation::ShopIdentity;
use cykl::store::{Channels, Store, StoreOptions};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool};
use tempfile::TempDir;

use crate::books::{self, WAVES};
use crate::processes;

/// The simulator's own merchant, shop, token and key.
pub const MERCHANT_ID: &str = "simmerchant000000001";
/// See [`MERCHANT_ID`].
pub const SERVICE_ID: &str = "2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b";
/// See [`MERCHANT_ID`].
pub const TOKEN: &str = "sim-token";
/// See [`MERCHANT_ID`].
pub const SERVICE_KEY: &str = "sim-service-key-000";

/// The role of the statements that this program makes itself, so that they can be told from the daemon's.
const OBSERVER: &str = "observer";

/// How the databases to copy from are filled: in a hurry, and by a server that is not the one that is measured.
const FILLING: [(&str, &str); 8] = [
    ("fsync", "off"),
    ("wal_level", "minimal"),
    ("max_wal_senders", "0"),
    ("autovacuum", "off"),
    ("shared_buffers", "512MB"),
    ("work_mem", "256MB"),
    ("maintenance_work_mem", "512MB"),
    ("max_wal_size", "8GB"),
];

/// PostgreSQL, and where the files of the measurements are.
pub struct World {
    database: EmbeddedDatabase,
    directory: TempDir,
    counts_statements: bool,
    templates: BTreeMap<u64, DateTime<Utc>>,
    with_history: BTreeSet<u64>,
    copies: u32,
}

/// A copy of a filled database, and what time it is for its daemon.
pub struct Database {
    /// Its name.
    pub name: String,
    /// A connection as somebody else than the daemon.
    pub observer: PgPool,
    /// How to connect as the daemon.
    pub options: PgConnectOptions,
    /// The server's first process.
    pub postmaster: i32,
    wave: u64,
    first_due_at: DateTime<Utc>,
    opened: Instant,
    released: u64,
}

impl World {
    /// Starts PostgreSQL, with the extension that counts statements where there is one, and fills a database of each of `sizes`, and one
    /// with a year of charges for each of `histories`.
    pub async fn start(
        sizes: impl IntoIterator<Item = u64>,
        histories: impl IntoIterator<Item = u64>,
    ) -> anyhow::Result<Self> {
        cykl::gateway::install_crypto();
        let directory = tempfile::Builder::new()
            .prefix("cykl-bench-")
            .tempdir()
            .context("couldn't create a temporary directory")?;
        // As root the server runs as another user, who has to be let through.
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755))
            .context("couldn't open the temporary directory")?;
        let filling = start_postgres(directory.path(), &FILLING).await?;
        let mut connection = filling.connect_options("postgres").connect().await?;
        let counts_statements: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_stat_statements')",
        )
        .fetch_one(&mut connection)
        .await?;
        sqlx::raw_sql("CREATE ROLE observer SUPERUSER LOGIN")
            .execute(&mut connection)
            .await?;
        connection.close().await?;
        let sizes: BTreeSet<u64> = sizes.into_iter().collect();
        let with_history: BTreeSet<u64> = histories.into_iter().collect();
        let first_due_at = Clock::system().now().duration_trunc(TimeDelta::hours(1))?;
        let make = async |size| {
            let started = Instant::now();
            make_template(&filling, size, first_due_at, counts_statements).await?;
            let seconds = started.elapsed().as_secs();
            println!("{size} subscriptions stored in {seconds} s");
            anyhow::Ok(())
        };
        for &size in sizes.difference(&with_history) {
            if Some(&size) != sizes.last() {
                make(size).await?;
            }
        }
        // The largest and those with a history take minutes: side by side.
        let largest = async {
            match sizes.last() {
                Some(size) if !with_history.contains(size) => make(*size).await,
                Some(_) | None => Ok(()),
            }
        };
        let histories = async {
            for &size in &with_history {
                make(size).await?;
                let started = Instant::now();
                make_history(&filling, size).await?;
                let seconds = started.elapsed().as_secs();
                println!("a year of charges of {size} subscriptions stored in {seconds} s");
            }
            anyhow::Ok(())
        };
        tokio::try_join!(largest, histories)?;
        let templates = sizes.into_iter().map(|size| (size, first_due_at)).collect();
        filling.stop().await?;
        // The server wrote without waiting for the disk; what is left of that must not go on while something is measured.
        nix::unistd::syncfs(File::open(directory.path())?)
            .context("couldn't write the databases to the disk")?;
        let preload: &[_] = if counts_statements {
            &[("shared_preload_libraries", "pg_stat_statements")]
        } else {
            &[]
        };
        Ok(Self {
            database: start_postgres(directory.path(), preload).await?,
            directory,
            counts_statements,
            templates,
            with_history,
            copies: 0,
        })
    }

    /// Where files may be put.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Whether `pg_stat_statements` counts; otherwise transactions stand in for statements.
    pub fn counts_statements(&self) -> bool {
        self.counts_statements
    }

    /// The version of PostgreSQL.
    pub async fn version(&self) -> anyhow::Result<String> {
        let mut connection = self.database.connect_options("postgres").connect().await?;
        let version = sqlx::query_scalar("SHOW server_version")
            .fetch_one(&mut connection)
            .await?;
        connection.close().await?;
        Ok(version)
    }

    /// Stops PostgreSQL and removes everything.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.database.stop().await?;
        self.directory
            .close()
            .context("couldn't remove the temporary directory")
    }

    /// A copy of the database of `size` subscriptions, of which none is due yet.
    pub async fn copy(&mut self, size: u64) -> anyhow::Result<Database> {
        let first_due_at = *self
            .templates
            .get(&size)
            .with_context(|| format!("there is no database of {size} subscriptions"))?;
        self.copies += 1;
        let name = format!("bench_{}", self.copies);
        // Before version 15 this was the only way to copy, and had no name.
        let strategy = match self.version().await?.get(..2) {
            Some("13" | "14") => "",
            Some(_) | None => "STRATEGY file_copy",
        };
        let template = template_name(size);
        self.run(format!(
            "CREATE DATABASE {name} TEMPLATE {template} {strategy}"
        ))
        .await?;
        let options = self.database.connect_options(&name);
        let observer = PgPoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(as_observer(&options))
            .await
            .context("couldn't connect to the private PostgreSQL")?;
        let backend: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
            .fetch_one(&observer)
            .await?;
        Ok(Database {
            name,
            observer,
            options,
            postmaster: processes::parent_of(backend)?,
            wave: size / WAVES,
            first_due_at,
            opened: Instant::now(),
            released: 0,
        })
    }

    /// A connection to the database of `size` subscriptions with a year of charges, as the operators' reports connect.
    pub async fn history(&self, size: u64) -> anyhow::Result<PgConnection> {
        anyhow::ensure!(
            self.with_history.contains(&size),
            "there is no history of {size} subscriptions"
        );
        let options = self.database.connect_options(&history_name(size));
        Ok(options.connect().await?)
    }

    /// Removes a copy, so that nothing is left to be vacuumed while the next one is measured.
    pub async fn drop(&self, database: Database) -> anyhow::Result<()> {
        database.observer.close().await;
        self.run(format!("DROP DATABASE {} WITH (FORCE)", database.name))
            .await?;
        self.run("CHECKPOINT".to_owned()).await
    }

    /// The URL of a database, as the configuration wants it.
    pub fn url(&self, database: &Database) -> String {
        format!(
            "postgres://{}@localhost:{}/{}?host={}",
            database.options.get_username(),
            database.options.get_port(),
            database.name,
            self.database.socket_dir().display(),
        )
    }

    async fn run(&self, statement: String) -> anyhow::Result<()> {
        let mut connection = self.database.connect_options("postgres").connect().await?;
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut connection)
            .await?;
        connection.close().await?;
        Ok(())
    }
}

impl Database {
    /// Lets at least `count` further subscriptions fall due, and says how many.
    pub fn release(&mut self, count: u64) -> anyhow::Result<u64> {
        let waves = count.div_ceil(self.wave);
        self.released += waves;
        anyhow::ensure!(
            self.released <= WAVES,
            "the database has too few subscriptions"
        );
        Ok(waves * self.wave)
    }

    /// How many subscriptions have not fallen due yet.
    pub fn unreleased(&self) -> u64 {
        (WAVES - self.released) * self.wave
    }

    /// What time it is for the daemon: long after the last wave that was released, and long before the next one.
    pub fn now(&self) -> DateTime<Utc> {
        let waves = TimeDelta::hours(i64::try_from(self.released).unwrap_or(i64::MAX));
        let elapsed = TimeDelta::from_std(self.opened.elapsed()).unwrap_or(TimeDelta::MAX);
        self.first_due_at + waves - TimeDelta::minutes(45) + elapsed.min(TimeDelta::minutes(30))
    }

    /// A checkpoint, which every measurement begins with.
    pub async fn checkpoint(&self) -> anyhow::Result<()> {
        sqlx::raw_sql("CHECKPOINT").execute(&self.observer).await?;
        Ok(())
    }
}

async fn start_postgres(
    directory: &Path,
    settings: &[(&str, &str)],
) -> anyhow::Result<EmbeddedDatabase> {
    let settings = settings
        .iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()));
    let config = EmbeddedConfig {
        data_dir: directory.join("postgres"),
        bin_dir: None,
        durable: true,
        settings: settings.collect(),
    };
    Ok(EmbeddedDatabase::start(config).await?)
}

fn template_name(size: u64) -> String {
    format!("template_{size}")
}

fn history_name(size: u64) -> String {
    format!("history_{size}")
}

/// Makes a database of `size` subscriptions with a year of charges.
async fn make_history(server: &EmbeddedDatabase, size: u64) -> anyhow::Result<()> {
    let mut admin = server.connect_options("postgres").connect().await?;
    let (name, template) = (history_name(size), template_name(size));
    let copy = format!("CREATE DATABASE {name} TEMPLATE {template}");
    sqlx::raw_sql(AssertSqlSafe(copy))
        .execute(&mut admin)
        .await?;
    admin.close().await?;
    let mut connection = as_observer(&server.connect_options(&name))
        .connect()
        .await?;
    books::fill_history(&mut connection, size, Clock::system().now()).await?;
    Ok(connection.close().await?)
}

fn as_observer(options: &PgConnectOptions) -> PgConnectOptions {
    options
        .clone()
        .username(OBSERVER)
        .options([("search_path", "cykl,public"), ("jit", "off")])
}

/// Makes a database with a schema, a shop and `size` subscriptions. The fence is left for the copies to pass.
async fn make_template(
    server: &EmbeddedDatabase,
    size: u64,
    first_due_at: DateTime<Utc>,
    counts_statements: bool,
) -> anyhow::Result<()> {
    let name = template_name(size);
    server.ensure_database(&name).await?;
    let options = server.connect_options(&name);
    let store = Store::connect(options.clone(), STORE_OPTIONS).await?;
    store.migrate().await?;
    store
        .record_shops(&[shop_identity()?], first_due_at)
        .await?;
    store.close().await;
    let mut connection = as_observer(&options).connect().await?;
    if counts_statements {
        sqlx::raw_sql("CREATE EXTENSION pg_stat_statements SCHEMA public")
            .execute(&mut connection)
            .await?;
    }
    books::fill(&mut connection, size, first_due_at).await?;
    connection.close().await?;
    Ok(())
}

/// How this program itself uses a [`Store`].
pub const STORE_OPTIONS: StoreOptions = StoreOptions {
    max_connections: 1,
    channels: Channels { webhook: false },
};

/// The shop that all cards belong to.
pub fn shop_identity() -> anyhow::Result<ShopIdentity> {
    Ok(ShopIdentity {
        shop: "main".parse().context("a shop's name")?,
        environment: Environment::Simulator,
        merchant_id: MERCHANT_ID.to_owned(),
        service_id: SERVICE_ID.to_owned(),
    })
}
