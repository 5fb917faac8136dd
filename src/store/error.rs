//! What can go wrong with the books, by what the caller does next.

use std::borrow::Cow;

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached or went away. Nothing is known about a commit that was under way.
    #[error("the database is unavailable: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// Another transaction was in the way; doing it again may work.
    #[error("the database is busy: {0}")]
    Busy(#[source] sqlx::Error),
    /// The database refused what must not be.
    #[error("{refusal}: {message}")]
    Refused {
        /// Which rule.
        refusal: Refusal,
        /// What PostgreSQL said.
        message: String,
    },
    /// The schema could not be migrated.
    #[error("couldn't migrate the database: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// The schema is of another version.
    #[error("the database schema is {found}, this program needs {expected}; {advice}",
        found = Version(*found), expected = Version(*expected), advice = schema_advice(*found, *expected))]
    SchemaVersion {
        /// The version in the database, if it has one.
        found: Option<i64>,
        /// The version of this program.
        expected: Option<i64>,
    },
    /// A row holds what this program never wrote.
    #[error("the database holds an unreadable {what}: {value:?}")]
    Unreadable {
        /// What was read.
        what: &'static str,
        /// What it held.
        value: String,
    },
    /// A fault in this program, or a database that was altered by hand.
    #[error("unexpected answer of the database: {0}")]
    Unexpected(#[source] sqlx::Error),
}

struct Version(Option<i64>);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(version) => write!(f, "version {version}"),
            None => write!(f, "empty"),
        }
    }
}

fn schema_advice(found: Option<i64>, expected: Option<i64>) -> &'static str {
    if found > expected {
        "install the newer program that this database belongs to"
    } else {
        "run \"cykl migrate\""
    }
}

/// A rule that the database enforces. See `migrations/0007_guards.sql` and `0008_refunds.sql` for the SQLSTATEs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The brake is on.
    #[error("the brake is on")]
    Brake,
    /// The database was moved, restored, promoted or copied.
    #[error("the installation fence is closed")]
    Fence,
    /// The row does not fit what it belongs to.
    #[error("the terms differ")]
    Terms,
    /// Two attempts of one subscription would be too close to each other.
    #[error("the attempts are too close")]
    Spacing,
    /// An earlier attempt of the charge has to be read first.
    #[error("an earlier attempt is unresolved")]
    Unresolved,
    /// A state would take a step that does not exist.
    #[error("the transition is illegal")]
    Transition,
    /// A fact would change.
    #[error("the fact is immutable")]
    Immutable,
    /// An attempt would change its state without evidence.
    #[error("the evidence is missing")]
    Evidence,
    /// A row of the record would be changed or removed.
    #[error("the record is append-only")]
    AppendOnly,
    /// A charge would be paid without a settled attempt.
    #[error("the settlement is missing")]
    Settlement,
    /// An attempt would be absent although people could not know that, or one said so alone.
    #[error("the absence is not established")]
    Absence,
    /// The permit journal names a permit for this period that the books lack.
    #[error("a permit for this period was forgotten")]
    Forgotten,
    /// Two refunds of one shop would be too close to each other.
    #[error("the refunds are too close")]
    RefundSpacing,
    /// More would go back than was taken.
    #[error("more would go back than was taken")]
    RefundSum,
    /// A row would exist twice.
    #[error("it exists already")]
    Duplicate,
    /// A column or a reference has a value that it must not have.
    #[error("the value is not allowed")]
    Value,
}

impl Refusal {
    fn from_sqlstate(code: &str) -> Option<Self> {
        Some(match code {
            "CY001" => Refusal::Brake,
            "CY002" => Refusal::Fence,
            "CY003" => Refusal::Terms,
            "CY004" => Refusal::Spacing,
            "CY005" => Refusal::Unresolved,
            "CY006" => Refusal::Transition,
            "CY007" => Refusal::Immutable,
            "CY008" => Refusal::Evidence,
            "CY009" => Refusal::AppendOnly,
            "CY010" => Refusal::Settlement,
            "CY011" => Refusal::Absence,
            "CY012" => Refusal::Forgotten,
            "CY013" => Refusal::RefundSpacing,
            "CY014" => Refusal::RefundSum,
            "23505" => Refusal::Duplicate,
            "23502" | "23503" | "23514" | "23P01" => Refusal::Value,
            _ => return None,
        })
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let Some(database_error) = error.as_database_error() else {
            return if is_connection_trouble(&error) {
                StoreError::Unavailable(error)
            } else {
                StoreError::Unexpected(error)
            };
        };
        // Another transaction told something else about the subscription at the same time.
        if database_error.constraint() == Some("events_are_numbered_per_subscription") {
            return StoreError::Busy(error);
        }
        let code = database_error.code().unwrap_or(Cow::Borrowed(""));
        if let Some(refusal) = Refusal::from_sqlstate(&code) {
            let message = database_error.message().to_owned();
            return StoreError::Refused { refusal, message };
        }
        match code.as_ref() {
            // Serialisation failure, deadlock, lock not available, statement timeout.
            "40001" | "40P01" | "55P03" | "57014" => StoreError::Busy(error),
            // Connection exceptions, shutdown, starting up, too many connections, full disk, read-only standby, bad login.
            code if code.starts_with("08")
                || code.starts_with("57P")
                || code.starts_with("53")
                || code.starts_with("28")
                || code == "3D000"
                || code == "25006" =>
            {
                StoreError::Unavailable(error)
            }
            _ => StoreError::Unexpected(error),
        }
    }
}

fn is_connection_trouble(error: &sqlx::Error) -> bool {
    matches!(
        error,
        sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::Protocol(_)
    )
}

impl StoreError {
    /// Whether the same transaction may succeed when it is tried again at once.
    pub fn is_busy(&self) -> bool {
        matches!(self, StoreError::Busy(_))
    }

    /// The rule that refused, if one did.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            StoreError::Refused { refusal, .. } => Some(*refusal),
            StoreError::Unavailable(_)
            | StoreError::Busy(_)
            | StoreError::Migration(_)
            | StoreError::SchemaVersion { .. }
            | StoreError::Unreadable { .. }
            | StoreError::Unexpected(_) => None,
        }
    }
}
