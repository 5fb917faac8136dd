//! What commands stand on: the configuration, the clock, who runs them, and the database.

use std::io;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use nix::unistd::{Uid, User, getuid};
use secrecy::ExposeSecret;
use sqlx::postgres::PgConnectOptions;

use crate::cli::{CliError, GlobalArgs, Outcome, daemon, kept};
use crate::clock::Clock;
use crate::config::{ClockConfig, Config, DatabaseUrl, ShopConfig};
use crate::domain::shop::ShopName;
use crate::embedded::{EmbeddedConfig, EmbeddedDatabase};
use crate::store::installation::ShopIdentity;
use crate::store::{Channels, Store, StoreError, StoreOptions};
use crate::telemetry;

/// The name of the database in the embedded cluster.
const EMBEDDED_DATABASE: &str = "cykl";

/// The configuration, the clock, and who runs the command.
#[derive(Debug)]
pub struct Context {
    /// What the operator has decided.
    pub config: Config,
    /// What time it is.
    pub clock: Clock,
    /// Who is recorded as having done it.
    pub actor: String,
}

impl Context {
    /// Reads the configuration, starts logging, and finds out who runs the command.
    ///
    /// # Errors
    /// [`CliError`] with [`Exit::Config`](crate::cli::Exit::Config) when the configuration is wrong.
    pub fn new(global: &GlobalArgs) -> Result<Self, CliError> {
        let config = Config::load(global.config.as_deref())?;
        let format = global.log_format.unwrap_or(config.log.format);
        telemetry::init(format, &config.log.filter)?;
        let actor = match &global.actor {
            Some(actor) => kept("actor", actor)?.to_owned(),
            None => system_user()?,
        };
        Ok(Self {
            clock: clock(config.clock),
            config,
            actor,
        })
    }

    /// The time.
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// The shop of this name; without one, the only shop.
    ///
    /// # Errors
    /// [`CliError`] with [`Exit::Usage`](crate::cli::Exit::Usage) when there is no such shop, or none is named although there are several.
    pub fn shop(&self, name: Option<&ShopName>) -> Result<(&ShopName, &ShopConfig), CliError> {
        let shops = &self.config.shops;
        let found = match name {
            Some(name) => shops
                .get_key_value(name)
                .ok_or_else(|| format!("there is no shop {name}")),
            None if shops.len() > 1 => {
                Err("there are several shops; say which with --shop NAME".to_owned())
            }
            None => shops
                .iter()
                .next()
                .ok_or_else(|| "there is no shop".to_owned()),
        };
        found.map_err(|error| {
            let known: Vec<_> = shops.keys().map(ShopName::as_str).collect();
            CliError::usage(error).hint(format!("the shops are {}", known.join(", ")))
        })
    }

    /// The shops of the configuration, as the installation fence knows them.
    pub fn shop_identities(&self) -> Vec<ShopIdentity> {
        daemon::identities(&self.config)
    }

    /// Connects to the database, whatever its schema; starts the embedded one when the configuration says so.
    ///
    /// # Errors
    /// [`CliError`] with [`Exit::Unavailable`](crate::cli::Exit::Unavailable) when there is no database to be had.
    pub async fn connect(&self) -> Result<Database, CliError> {
        let database = &self.config.database;
        let (options, embedded) = match &database.url {
            DatabaseUrl::Url(url) => (connect_options(url.expose_secret())?, None),
            DatabaseUrl::Embedded => {
                let embedded = EmbeddedDatabase::start(EmbeddedConfig {
                    data_dir: database.data_dir.clone(),
                    bin_dir: None,
                    durable: true,
                    settings: Vec::new(),
                })
                .await?;
                embedded.ensure_database(EMBEDDED_DATABASE).await?;
                (embedded.connect_options(EMBEDDED_DATABASE), Some(embedded))
            }
        };
        let place = describe(&options);
        let store_options = StoreOptions {
            max_connections: database.max_connections,
            channels: Channels {
                webhook: self.config.events.webhook_url.is_some(),
            },
        };
        let store = Store::connect(options, store_options)
            .await
            .map_err(|error| unreachable(error, &place))?;
        Ok(Database { store, embedded })
    }

    /// Connects to a database whose schema is the one of this program.
    ///
    /// # Errors
    /// As [`Context::connect`], and [`Exit::Config`](crate::cli::Exit::Config) when the schema is of another version.
    pub async fn open(&self) -> Result<Database, CliError> {
        let database = self.connect().await?;
        match database.store.check_schema().await {
            Ok(()) => Ok(database),
            Err(error) => {
                database.close().await?;
                Err(error.into())
            }
        }
    }

    /// Opens the database, lets `work` use it, and closes it whatever came of that.
    ///
    /// # Errors
    /// As [`Context::open`], and those of `work`.
    pub async fn with_store(&self, work: impl AsyncFnOnce(&Store) -> Outcome) -> Outcome {
        let database = self.open().await?;
        let outcome = work(&database.store).await;
        let closed = database.close().await;
        let exit = outcome?;
        closed?;
        Ok(exit)
    }
}

/// A connected database. An embedded one that this process started lives as long as this value.
#[derive(Debug)]
pub struct Database {
    /// The books.
    pub store: Store,
    /// The server, when it is a private one.
    pub embedded: Option<EmbeddedDatabase>,
}

impl Database {
    /// Closes the connections and, if this process started the server, stops it and waits for that.
    ///
    /// # Errors
    /// When the embedded server does not stop cleanly.
    pub async fn close(self) -> Result<(), CliError> {
        self.store.close().await;
        if let Some(embedded) = self.embedded {
            embedded.stop().await?;
        }
        Ok(())
    }
}

fn clock(config: ClockConfig) -> Clock {
    match config {
        ClockConfig::System => Clock::system(),
        ClockConfig::Scaled { start, scale } => Clock::scaled(start, scale),
    }
}

/// The options of a URL. An error never quotes the URL, which may hold a password.
fn connect_options(url: &str) -> Result<PgConnectOptions, CliError> {
    PgConnectOptions::from_str(url)
        .map_err(|error| CliError::config(error).context("couldn't understand database.url"))
}

/// Where a database is, without how to get in.
fn describe(options: &PgConnectOptions) -> String {
    let host = options.get_socket().map_or_else(
        || options.get_host().to_owned(),
        |socket| socket.display().to_string(),
    );
    let database = options.get_database().unwrap_or(options.get_username());
    format!(
        "{database} on {host}, port {}, as {}",
        options.get_port(),
        options.get_username()
    )
}

fn unreachable(error: StoreError, place: &str) -> CliError {
    CliError::from(error)
        .context(format!("couldn't connect to the database {place}"))
        .hint("check database.url, and that PostgreSQL runs there and lets this user in")
}

/// The name of the user who runs the program: of the real user id, so that a set-user-id wrapper hides nobody. Under sudo
/// that is root, so sudo's word (`SUDO_USER`) is taken: only root could have forged it, and root may say `--actor` as well.
fn system_user() -> Result<String, CliError> {
    let uid = getuid();
    if uid.is_root()
        && let Ok(name) = std::env::var("SUDO_USER")
        && let Ok(name) = super::one_line(&name)
    {
        return Ok(name);
    }
    name_of(uid).map_err(|error| {
        CliError::internal(error)
            .context("couldn't find out which user runs this")
            .hint("say it with --actor NAME")
    })
}

fn name_of(uid: Uid) -> io::Result<String> {
    let user = User::from_uid(uid)?;
    Ok(user.map_or_else(|| format!("uid {uid}"), |user| user.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_described_without_its_password() {
        let url = "postgres://billing:hunter2@db.example.com:5433/books";
        let place = describe(&connect_options(url).unwrap());
        assert_eq!(place, "books on db.example.com, port 5433, as billing");
        let broken = connect_options("postgres://billing:hunter2@db:notaport/books").unwrap_err();
        assert!(!broken.to_string().contains("hunter2"), "{broken}");
    }

    #[test]
    fn a_user_without_a_name_is_recorded_by_number() {
        assert_eq!(name_of(Uid::from_raw(0)).unwrap(), "root");
        assert_eq!(
            name_of(Uid::from_raw(3_999_999_999)).unwrap(),
            "uid 3999999999"
        );
    }
}
