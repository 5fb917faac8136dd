//! Places to run the program in: a private PostgreSQL, databases in it, and configurations.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cykl::embedded::{EmbeddedConfig, EmbeddedDatabase};
use cykl::simulator::{Now, Script, Simulator, SimulatorConfig};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::scratch;

/// The merchant of every configuration here.
pub const MERCHANT_ID: &str = "simmerchant000000001";
/// Where no gateway is.
pub const NO_GATEWAY: &str = "http://127.0.0.1:9/v1/merchant";
/// The shop of every configuration here.
pub const SERVICE_ID: &str = "2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b";

const HEALTHY: &str = include_str!("healthy.sql");

static CLUSTER: OnceCell<EmbeddedDatabase> = OnceCell::const_new();
static HEALTHY_TEMPLATE: OnceCell<()> = OnceCell::const_new();
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A directory that PostgreSQL's own user can enter.
pub fn directory() -> TempDir {
    tempfile::Builder::new()
        .permissions(PermissionsExt::from_mode(0o755))
        .tempdir_in(scratch::directory())
        .unwrap()
}

async fn cluster() -> &'static EmbeddedDatabase {
    CLUSTER
        .get_or_init(|| async {
            EmbeddedDatabase::start(EmbeddedConfig {
                data_dir: scratch::postgres(),
                bin_dir: None,
                durable: false,
                settings: vec![],
            })
            .await
            .unwrap()
        })
        .await
}

async fn admin(statement: &str) {
    let options = cluster().await.connect_options("postgres");
    let mut connection = PgConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

/// Where a program is run: a configuration file and, mostly, a database.
pub struct Place {
    directory: TempDir,
    config: PathBuf,
    database: Option<String>,
}

impl Place {
    /// A place with this configuration.
    pub fn with_config(toml: &str) -> Self {
        let directory = directory();
        let config = directory.path().join("cykl.toml");
        std::fs::write(&config, toml).unwrap();
        Self {
            directory,
            config,
            database: None,
        }
    }

    /// A place with an empty database.
    pub async fn empty() -> Self {
        Self::cloned("template0").await
    }

    /// A place with a database of this version, which nothing ever charged from.
    pub async fn migrated() -> Self {
        let place = Self::empty().await;
        place.run(&["migrate"]).succeeded();
        place
    }

    /// A place with a copy of the healthy books.
    pub async fn healthy() -> Self {
        const NAME: &str = "healthy";
        HEALTHY_TEMPLATE
            .get_or_init(|| async {
                let mut place = Self::migrated().await;
                place.run(&["adopt", "--reason", "new"]).succeeded();
                place.sql(HEALTHY).await;
                let name = place.database.take().unwrap();
                admin(&format!("ALTER DATABASE {name} RENAME TO {NAME}")).await;
            })
            .await;
        Self::cloned(NAME).await
    }

    async fn cloned(template: &str) -> Self {
        let name = format!("place_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        admin(&format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
        let socket = cluster().await.socket_dir();
        let url = format!("postgres://cykl@localhost/{name}?host={}", socket.display());
        let mut place = Self::with_config(&config(&url, NO_GATEWAY));
        place.database = Some(name);
        place
    }

    /// Replaces a text of the configuration.
    pub fn reconfigure(&self, from: &str, to: &str) {
        let toml = std::fs::read_to_string(&self.config).unwrap();
        assert!(toml.contains(from), "{from} is not in {toml}");
        std::fs::write(&self.config, toml.replace(from, to)).unwrap();
    }

    /// Opens a gateway that does what `script` says, and leads the configuration to it.
    pub async fn open_gateway(&self, script: Script) -> Simulator {
        let start = "2027-01-01T07:00:00Z".parse().unwrap();
        self.open_gateway_at(script, Arc::new(move || start)).await
    }

    /// As [`Place::open_gateway`], with a gateway for which it is this time.
    pub async fn open_gateway_at(&self, script: Script, now: Now) -> Simulator {
        let simulator = Simulator::start(SimulatorConfig {
            script,
            ..SimulatorConfig::new(now)
        })
        .await
        .unwrap();
        self.reconfigure(NO_GATEWAY, &simulator.base_url());
        simulator
    }

    /// Runs SQL in the database, by hand.
    pub async fn sql(&self, statements: &str) {
        let options = cluster()
            .await
            .connect_options(self.database.as_deref().unwrap());
        let mut connection = PgConnection::connect_with(&options).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(statements))
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
    }

    /// The texts that a query finds in the schema of the books.
    pub async fn texts(&self, query: &str) -> Vec<String> {
        let options = cluster()
            .await
            .connect_options(self.database.as_deref().unwrap())
            .options([("search_path", "cykl")]);
        let mut connection = PgConnection::connect_with(&options).await.unwrap();
        let texts = sqlx::query_scalar(AssertSqlSafe(query))
            .fetch_all(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
        texts
    }

    /// A directory for files of this place.
    pub fn path(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// Runs `cykl` with these arguments and the configuration of this place.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::from(self.command(arguments).output().unwrap())
    }

    /// As [`Place::run`], while the test does something else: it may be the gateway.
    pub async fn run_aside(&self, arguments: &[&str]) -> Ran {
        let mut command = self.command(arguments);
        let output = tokio::task::spawn_blocking(move || command.output());
        Ran::from(output.await.unwrap().unwrap())
    }

    /// The command of [`Place::run`].
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cykl"));
        command
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| {
                name == "PATH" || name == "CYKL_PG_BINDIR" || name == "LLVM_PROFILE_FILE"
            }))
            .stdin(Stdio::null())
            .args(arguments)
            .arg("--config")
            .arg(&self.config);
        command
    }
}

/// A configuration of one shop.
pub fn config(url: &str, base_url: &str) -> String {
    format!(
        "[database]\n\
         url = \"{url}\"\n\
         [shops.main]\n\
         environment = \"simulator\"\n\
         base_url = \"{base_url}\"\n\
         merchant_id = \"{MERCHANT_ID}\"\n\
         service_id = \"{SERVICE_ID}\"\n\
         token = \"sim-token\"\n\
         service_key = \"sim-service-key-000\"\n"
    )
}

/// What a run of the program left.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    /// The same, provided that the exit code is 0.
    pub fn succeeded(self) -> Self {
        self.ended(0)
    }

    /// The same, provided that the exit code is this one.
    pub fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// Standard output as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}
