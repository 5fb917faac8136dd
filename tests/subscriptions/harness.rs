//! A database of its own for each test, and the real program to run on it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use cykl::embedded::{EmbeddedConfig, EmbeddedDatabase};
use cykl::simulator::{SimulatedShop, Simulator, SimulatorConfig};
use cykl::store::{Channels, Store, StoreOptions};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::scratch;

/// The time at which every desk begins.
pub const NOW: &str = "2026-11-20T12:00:00Z";

static CLUSTER: OnceCell<EmbeddedDatabase> = OnceCell::const_new();
static NEXT_DATABASE: AtomicU32 = AtomicU32::new(0);

/// The private PostgreSQL that all tests of this binary share. It ends with the process.
async fn cluster() -> &'static EmbeddedDatabase {
    CLUSTER
        .get_or_init(|| async {
            let database = EmbeddedDatabase::start(EmbeddedConfig {
                data_dir: scratch::postgres(),
                bin_dir: None,
                durable: false,
                settings: vec![("max_connections".to_owned(), "300".to_owned())],
            })
            .await
            .unwrap();
            database.ensure_database("template_cykl").await.unwrap();
            let store = connect(database.connect_options("template_cykl")).await;
            store.migrate().await.unwrap();
            store.close().await;
            database
        })
        .await
}

/// The address of the gateway that all desks share: it says that it takes everything. It ends with the process.
fn gateway() -> &'static str {
    static BASE_URL: OnceLock<String> = OnceLock::new();
    BASE_URL.get_or_init(|| {
        let (opening, opened) = std::sync::mpsc::channel();
        // Of its own, because a test waits for the commands that ask it, and its runtime ends with it.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let shops = (1..=SHOPS_MAX).map(simulated_shop).collect();
                let now = Arc::new(|| NOW.parse().unwrap());
                let simulator = Simulator::start(SimulatorConfig {
                    shops,
                    ..SimulatorConfig::new(now)
                });
                let simulator = simulator.await.unwrap();
                opening.send(simulator.base_url()).unwrap();
                std::future::pending::<()>().await;
            });
        });
        opened.recv().unwrap()
    })
}

/// The most shops of a desk.
const SHOPS_MAX: usize = 9;

fn simulated_shop(number: usize) -> SimulatedShop {
    SimulatedShop {
        merchant_id: format!("simmerchant00000000{number}"),
        service_id: format!("2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3{number}")
            .parse()
            .unwrap(),
        ..SimulatedShop::default()
    }
}

async fn connect(options: PgConnectOptions) -> Store {
    let store_options = StoreOptions {
        max_connections: 4,
        channels: Channels { webhook: false },
    };
    Store::connect(options, store_options).await.unwrap()
}

/// One test's database, configuration and time.
pub struct Desk {
    pub store: Store,
    pub books: PgPool,
    directory: TempDir,
    config: PathBuf,
    url: String,
    shops: &'static [&'static str],
}

/// How a command ended.
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Desk {
    /// A desk with the one shop `main`.
    pub async fn new() -> Self {
        Self::with_shops(&["main"]).await
    }

    pub async fn with_shops(shops: &'static [&'static str]) -> Self {
        let cluster = cluster().await;
        let name = format!("desk_{}", NEXT_DATABASE.fetch_add(1, Ordering::Relaxed));
        let mut admin = PgConnection::connect_with(&cluster.connect_options("postgres"))
            .await
            .unwrap();
        let create = format!("CREATE DATABASE {name} TEMPLATE template_cykl");
        sqlx::raw_sql(AssertSqlSafe(create))
            .execute(&mut admin)
            .await
            .unwrap();
        let options = cluster.connect_options(&name);
        let url = format!(
            "postgres://cykl@localhost:{}/{name}?host={}",
            options.get_port(),
            cluster.socket_dir().display()
        );
        let directory = tempfile::tempdir_in(scratch::directory()).unwrap();
        let desk = Self {
            store: connect(options.clone()).await,
            books: PgPool::connect_with(options.options([("search_path", "cykl,billing")]))
                .await
                .unwrap(),
            config: directory.path().join("cykl.toml"),
            directory,
            url,
            shops,
        };
        desk.set_time(NOW);
        desk
    }

    /// What time it is for the commands that follow.
    pub fn set_time(&self, now: &str) {
        let shops: String = self
            .shops
            .iter()
            .zip((1..=SHOPS_MAX).map(simulated_shop))
            .map(|(name, shop)| {
                format!(
                    "[shops.{name}]\nenvironment = \"simulator\"\nbase_url = \"{}\"\nmerchant_id = \"{}\"\nservice_id = \"{}\"\n\
                     token = \"{}\"\nservice_key = \"{}\"\n\
                     success_return_url = \"https://shop.example.test/ok\"\nfailure_return_url = \"https://shop.example.test/no\"\n",
                    gateway(),
                    shop.merchant_id,
                    shop.service_id,
                    shop.token,
                    shop.service_key
                )
            })
            .collect();
        let toml = format!(
            "[database]\nurl = \"{}\"\n[clock]\nkind = \"scaled\"\nstart = \"{now}\"\nscale = 1\n{shops}",
            self.url
        );
        std::fs::write(&self.config, toml).unwrap();
    }

    /// Writes a file to import.
    pub fn file(&self, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.directory.path().join("subscriptions.csv");
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Runs `cykl subscription` with `args`.
    pub fn run(&self, args: &[&str]) -> Ended {
        let config = self.config.to_str().unwrap();
        let global = ["--config", config, "--actor", "tester", "subscription"];
        ended(program().args(global).args(args).output().unwrap())
    }

    /// Runs `cykl subscription import` on a file with this content.
    pub fn import(&self, content: impl AsRef<[u8]>, args: &[&str]) -> Ended {
        let path = self.file(content);
        self.run(&[&["import", path_text(&path)], args].concat())
    }

    /// How many rows a table or view has.
    pub async fn count(&self, table: &str) -> i64 {
        let query = format!("SELECT count(*) FROM {table}");
        sqlx::query_scalar(AssertSqlSafe(query))
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

    /// Asserts that no trace of a subscription is in the books.
    pub async fn assert_empty(&self) {
        for table in ["subscriptions", "due_periods", "cards", "events", "outbox"] {
            assert_eq!(self.count(&format!("cykl.{table}")).await, 0, "{table}");
        }
    }
}

/// The program, without the settings of whoever runs the tests.
pub fn program() -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_cykl"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CYKL__")) {
        program.env_remove(name);
    }
    program
}

pub fn ended(output: Output) -> Ended {
    Ended {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn path_text(path: &Path) -> &str {
    path.to_str().unwrap()
}
