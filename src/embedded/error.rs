//! Why the embedded database is not there, by what the operator does next.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why the embedded database could not be started, used or stopped.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// Install PostgreSQL, say where it is, or use another server.
    #[error(
        "PostgreSQL server programs (initdb, postgres) were not found, so cykl cannot start its private database.

  looked in: {looked_in}

  Do one of these, then run the same command again:
    sudo apt install postgresql            Debian, Ubuntu
    sudo dnf install postgresql-server     Fedora, RHEL
    export CYKL_PG_BINDIR=DIR              programs are elsewhere
    export CYKL__DATABASE__URL=postgres://USER@HOST/DB     use a server you have (an empty database)"
    )]
    ProgramsMissing {
        /// The places that were searched, in order.
        looked_in: String,
    },

    /// Install that major version, or move the data to the installed one.
    #[error(
        "the database in {} was made by PostgreSQL {cluster_major}, but only {found} was found

  Do one of these, then run the same command again:
    install PostgreSQL {cluster_major} beside it, or set CYKL_PG_BINDIR to the directory of its programs
    move the data to the installed version with pg_upgrade, or with pg_dump and a new data directory",
        directory.display()
    )]
    IncompatibleVersion {
        /// The data directory.
        directory: PathBuf,
        /// What its `PG_VERSION` says.
        cluster_major: u32,
        /// The versions that were found, with their directories.
        found: String,
    },

    /// Choose another directory, or change this one as the reason says.
    #[error("cannot use the directory {}: {reason}", directory.display())]
    DirectoryUnusable {
        /// The directory that stands in the way; an ancestor of the data directory, perhaps.
        directory: PathBuf,
        /// What is wrong with it and what helps.
        reason: String,
    },

    /// Give the process a user that exists, e.g. with `docker run --user` or `User=`.
    #[error(
        "PostgreSQL needs a user with a name, and uid {uid} has no entry in the user database (/etc/passwd): \
         run cykl as a user that has one"
    )]
    NoUser {
        /// The user id without an entry.
        uid: u32,
    },

    /// Create one of the users, or run Cykl as an ordinary user.
    #[error(
        "PostgreSQL refuses to run as root, and neither the user postgres nor the user nobody exists: \
         create one of them, or run cykl as an ordinary user"
    )]
    NoUserForRoot,

    /// Read the output of initdb.
    #[error("initdb could not create a database in {}: {output}", directory.display())]
    InitFailed {
        /// The data directory.
        directory: PathBuf,
        /// The last lines that initdb printed.
        output: String,
    },

    /// Read the server's log.
    #[error("PostgreSQL did not start in {}: {reason}\n\nlast lines of {}:\n{tail}", directory.display(), log.display())]
    StartFailed {
        /// The data directory.
        directory: PathBuf,
        /// What was observed.
        reason: String,
        /// The whole log.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },

    /// Find out what the other process is doing, or try again.
    #[error("gave up on {} after {} s: {reason}", directory.display(), waited.as_secs())]
    TimedOut {
        /// The data directory.
        directory: PathBuf,
        /// What was waited for.
        reason: &'static str,
        /// The limit that was reached.
        waited: Duration,
    },

    /// Read the server's log. Committed data is safe: PostgreSQL recovers it at the next start.
    #[error("PostgreSQL in {} did not stop cleanly: {reason}\n\nlast lines of {}:\n{tail}", directory.display(), log.display())]
    StopFailed {
        /// The data directory.
        directory: PathBuf,
        /// What was observed.
        reason: String,
        /// The whole log.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },

    /// A file or a process could not be handled; the operating system says why.
    #[error("could not {attempt}")]
    System {
        /// What was attempted, and on what.
        attempt: String,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },

    /// The server runs but refused a statement.
    #[error("could not create the database {database} in the embedded server")]
    Database {
        /// The database that was asked for.
        database: String,
        /// The server's answer.
        #[source]
        source: sqlx::Error,
    },
}
