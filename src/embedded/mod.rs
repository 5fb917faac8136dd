//! The embedded database: a private PostgreSQL cluster for `database.url = "embedded"`.
//!
//! It is started from the system's PostgreSQL programs, keeps its data between runs and listens on a unix socket in a
//! directory that only its user (and root) can enter; it never listens on the network and never touches another cluster.
//!
//! The process that starts the server owns it. Others that start the same data directory meanwhile use the owner's server
//! and do not stop it; when the owner ends, however it ends, the server shuts down cleanly and they see a lost connection.
//! Started as root, the server runs as the user who owns the data directory, else as `postgres` or `nobody`.
//! In a container whose first process is Cykl itself, a killed Cykl takes everything with it, and PostgreSQL recovers at
//! the next start.

mod account;
mod cluster;
mod error;
mod home;
mod postmaster;
mod programs;
mod supervisor;

use std::path::{Path, PathBuf};

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

pub use error::EmbeddedError;
pub use home::default_data_dir;

use account::Account;
use cluster::{Cluster, START_LIMIT};
use programs::Search;
use supervisor::Supervised;

/// The role that owns everything in the cluster.
const USER: &str = "cykl";

/// What to start.
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// Where the cluster lives; created when missing. [`default_data_dir`] is the usual choice.
    pub data_dir: PathBuf,
    /// The directory of `initdb` and `postgres`. `None`: `$CYKL_PG_BINDIR`, `$PATH`, then where packages put them.
    pub bin_dir: Option<PathBuf>,
    /// Whether a commit survives a power failure. `false` is for data that is thrown away, and much faster.
    pub durable: bool,
    /// More server settings, by name and value. They win over our own.
    pub settings: Vec<(String, String)>,
}

/// A running embedded database. Dropping it asks the server to stop if this process started it; [`Self::stop`] also waits.
#[derive(Debug)]
pub struct EmbeddedDatabase {
    cluster: Cluster,
    socket_dir: PathBuf,
    search: Search,
    /// `None` when the server belongs to another process.
    server: Option<Supervised>,
}

impl EmbeddedDatabase {
    /// Starts the server in the data directory, or uses the one that runs there already. Creates the cluster if there is
    /// none yet. On return the server accepts connections.
    ///
    /// A future that is dropped half-way leaves a directory that the next start can use.
    ///
    /// # Errors
    /// See [`EmbeddedError`]; nothing keeps running after an error.
    pub async fn start(config: EmbeddedConfig) -> Result<Self, EmbeddedError> {
        let cluster = Cluster::new(&config.data_dir)?;
        let search = Search::from_environment(config.bin_dir.as_deref());
        let account = Account::for_home(&cluster.home)?;
        home::prepare(&cluster.home, &account).await?;

        // Held until the server accepts connections, so that of several starters one starts and the others find it.
        let _lock = home::lock(&cluster.home, &account, START_LIMIT).await?;
        if let Some(socket_dir) = cluster.running_server().await? {
            return Ok(Self {
                cluster,
                socket_dir,
                search,
                server: None,
            });
        }
        cluster.remove_unfinished()?;
        let cluster_major = cluster.major()?;
        let bin_dir = search
            .server_programs(&account, &cluster.home, cluster_major)
            .await?;
        home::ensure_enterable(
            &bin_dir,
            &account,
            "use programs elsewhere (CYKL_PG_BINDIR)",
        )
        .await?;
        if cluster_major.is_none() {
            cluster.create(&account, &bin_dir, config.durable).await?;
        }
        let socket_dir = home::socket_dir(&cluster.home, &account)?;
        let server = cluster
            .serve(&account, &bin_dir, &socket_dir, &config)
            .await?;
        Ok(Self {
            cluster,
            socket_dir,
            search,
            server: Some(server),
        })
    }

    /// How to connect to a database of the cluster.
    #[must_use]
    pub fn connect_options(&self, database: &str) -> PgConnectOptions {
        // Everything that `PGHOST` and its kin could change is set.
        PgConnectOptions::new_without_pgpass()
            .socket(&self.socket_dir)
            .port(home::PORT)
            .username(USER)
            .database(database)
            .ssl_mode(PgSslMode::Disable)
    }

    /// The shell command that opens psql on a database of the cluster.
    #[must_use]
    pub fn psql_line(&self, database: &str) -> String {
        format!(
            "{} -h {} -U {USER} -d {}",
            shell_quoted(&self.search.psql().to_string_lossy()),
            shell_quoted(&self.socket_dir.to_string_lossy()),
            shell_quoted(database),
        )
    }

    /// Whether another process had started the server, and owns it.
    #[must_use]
    pub fn was_running(&self) -> bool {
        self.server.is_none()
    }

    /// The directory of the socket.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// Creates the database when it is missing.
    ///
    /// # Errors
    /// [`EmbeddedError::Database`] when the server refuses, or is gone.
    pub async fn ensure_database(&self, name: &str) -> Result<(), EmbeddedError> {
        const DUPLICATE_DATABASE: &str = "42P04";
        const UNIQUE_VIOLATION: &str = "23505";

        let create = async {
            let mut connection = self.connect_options("postgres").connect().await?;
            let exists =
                sqlx::query("-- ensure_database\nSELECT 1 FROM pg_database WHERE datname = $1")
                    .bind(name)
                    .fetch_optional(&mut connection)
                    .await?
                    .is_some();
            if !exists {
                // A name cannot be a parameter here. It is quoted as an identifier.
                let identifier = format!("\"{}\"", name.replace('"', "\"\""));
                let statement = format!("-- ensure_database\nCREATE DATABASE {identifier}");
                match sqlx::query(AssertSqlSafe(statement))
                    .execute(&mut connection)
                    .await
                {
                    // Another process created it between the two statements.
                    Err(sqlx::Error::Database(error))
                        if matches!(
                            error.code().as_deref(),
                            Some(DUPLICATE_DATABASE | UNIQUE_VIOLATION)
                        ) => {}
                    result => {
                        result?;
                    }
                }
            }
            connection.close().await
        };
        create.await.map_err(|source| EmbeddedError::Database {
            database: name.to_owned(),
            source,
        })
    }

    /// Stops the server and waits until it has shut down. A server of another process is left alone.
    ///
    /// # Errors
    /// [`EmbeddedError::StopFailed`] when the server had crashed, or is still busy after a minute.
    pub async fn stop(self) -> Result<(), EmbeddedError> {
        let Some(server) = self.server else {
            return Ok(());
        };
        self.cluster.stop(server).await
    }
}

/// `text` as one word of a POSIX shell.
fn shell_quoted(text: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_-+./:=@%,".contains(letter);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_for_the_shell_is_quoted_only_when_it_must_be() {
        assert_eq!(
            shell_quoted("/var/lib/cykl/postgres"),
            "/var/lib/cykl/postgres"
        );
        assert_eq!(shell_quoted("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(shell_quoted(""), "''");
    }
}
