//! How a command ends: the exit code, which scripts and systemd act on, and the message, which people act on.
//!
//! The codes are those of `sysexits.h`, besides 0, 1 and clap's own 2. The unit file keeps systemd from starting Cykl again
//! after 2 and 78: waiting does not help there.

use std::fmt;
use std::process::ExitCode;

use sqlx::migrate::MigrateError;

use crate::config::ConfigError;
use crate::embedded::EmbeddedError;
use crate::gateway::ReadError;
use crate::store::installation::FenceError;
use crate::store::{Refusal, StoreError};
use crate::telemetry::TelemetryError;

/// What `cykl --help` says about exit codes.
pub(super) const HELP: &str = "\
Exit codes: 0 ok, 1 the command's own \"no\", 2 usage, 65 bad input data, 69 database or gateway unavailable, \
70 internal error, 75 try again, 78 configuration.";

/// The exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It is done.
    Ok,
    /// The command's own "no": the audit found something, there is no such charge.
    No,
    /// The command line makes no sense.
    Usage,
    /// What was given as data is wrong.
    BadData,
    /// The database or the gateway is not there.
    Unavailable,
    /// A fault in this program, or a database that was altered by hand.
    Internal,
    /// Somebody else was in the way.
    TryAgain,
    /// A person has to change the configuration or the installation; waiting does not help.
    Config,
}

impl Exit {
    /// All of them.
    pub const ALL: [Exit; 8] = [
        Exit::Ok,
        Exit::No,
        Exit::Usage,
        Exit::BadData,
        Exit::Unavailable,
        Exit::Internal,
        Exit::TryAgain,
        Exit::Config,
    ];

    /// Its number.
    pub const fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::No => 1,
            Exit::Usage => 2,
            Exit::BadData => 65,
            Exit::Unavailable => 69,
            Exit::Internal => 70,
            Exit::TryAgain => 75,
            Exit::Config => 78,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

/// What a command returns: `Ok` when it could do its work, even if the answer is "no".
pub type Outcome = Result<Exit, CliError>;

/// Why a command could not do its work. Displayed as its message with its causes, and the hint on a line of its own.
#[derive(Debug)]
pub struct CliError {
    exit: Exit,
    error: anyhow::Error,
    hint: Option<String>,
}

impl CliError {
    /// An error that ends the program with `exit`.
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit,
            error: error.into(),
            hint: None,
        }
    }

    /// The command's own "no", for which there is nothing to print on standard output.
    pub fn no(message: impl Into<String>) -> Self {
        Self::new(Exit::No, anyhow::Error::msg(message.into()))
    }

    /// The command line makes no sense in a way that clap cannot know.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, anyhow::Error::msg(message.into()))
    }

    /// What was given as data is wrong.
    pub fn bad_data(error: impl Into<anyhow::Error>) -> Self {
        Self::new(Exit::BadData, error)
    }

    /// The database or the gateway is not there.
    pub fn unavailable(error: impl Into<anyhow::Error>) -> Self {
        Self::new(Exit::Unavailable, error)
    }

    /// A fault in this program, or in the system under it.
    pub fn internal(error: impl Into<anyhow::Error>) -> Self {
        Self::new(Exit::Internal, error)
    }

    /// A person has to change the configuration.
    pub fn config(error: impl Into<anyhow::Error>) -> Self {
        Self::new(Exit::Config, error)
    }

    /// The same error, told from further away: "couldn't do this: because of that".
    #[must_use]
    pub fn context(mut self, attempted: impl fmt::Display + Send + Sync + 'static) -> Self {
        self.error = self.error.context(attempted);
        self
    }

    /// What a person can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = String::new();
        for cause in self.error.chain() {
            let cause = cause.to_string();
            // Some errors repeat their source in their own message.
            if told.is_empty() {
                told = cause;
            } else if !told.contains(&cause) {
                told = format!("{told}: {cause}");
            }
        }
        f.write_str(&told)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        Self::config(error)
    }
}

impl From<TelemetryError> for CliError {
    fn from(error: TelemetryError) -> Self {
        Self::config(error)
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        let exit = match &error {
            StoreError::Unavailable(_) => Exit::Unavailable,
            StoreError::Busy(_) => Exit::TryAgain,
            StoreError::Refused { refusal, .. } => of_refusal(*refusal),
            StoreError::Migration(error) => of_migration(error),
            // A person has to upgrade the database or the program. 69 would make systemd start it again and again.
            StoreError::SchemaVersion { .. } => Exit::Config,
            StoreError::Unreadable { .. } | StoreError::Unexpected(_) => Exit::Internal,
        };
        Self::new(exit, error)
    }
}

/// A migration fails because the database went away, or refuses it, or has a history that is not this program's.
fn of_migration(error: &MigrateError) -> Exit {
    let (MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) = error else {
        return Exit::Config;
    };
    if error.as_database_error().is_some() {
        Exit::Internal
    } else {
        Exit::Unavailable
    }
}

fn of_refusal(refusal: Refusal) -> Exit {
    match refusal {
        Refusal::Fence => Exit::Config,
        Refusal::Brake | Refusal::Spacing | Refusal::RefundSpacing | Refusal::Unresolved => {
            Exit::TryAgain
        }
        Refusal::Duplicate | Refusal::Value => Exit::BadData,
        // A person was faster than the check before.
        Refusal::Absence | Refusal::Forgotten | Refusal::RefundSum => Exit::No,
        Refusal::Terms
        | Refusal::Transition
        | Refusal::Immutable
        | Refusal::Evidence
        | Refusal::AppendOnly
        | Refusal::Settlement => Exit::Internal,
    }
}

impl From<FenceError> for CliError {
    fn from(error: FenceError) -> Self {
        match error {
            FenceError::Moved { .. } | FenceError::OtherShop { .. } => Self::config(error),
            FenceError::Store(error) => error.into(),
        }
    }
}

impl From<ReadError> for CliError {
    fn from(error: ReadError) -> Self {
        let exit = match &error {
            ReadError::Unauthorized { .. } | ReadError::NotFound | ReadError::Unbuildable(_) => {
                Exit::Config
            }
            ReadError::Connect(_)
            | ReadError::Lost(_)
            | ReadError::Status { .. }
            | ReadError::Unreadable
            | ReadError::Mismatch => Exit::Unavailable,
        };
        Self::new(exit, error)
    }
}

impl From<EmbeddedError> for CliError {
    fn from(error: EmbeddedError) -> Self {
        let exit = match &error {
            EmbeddedError::ProgramsMissing { .. }
            | EmbeddedError::InitFailed { .. }
            | EmbeddedError::StartFailed { .. }
            | EmbeddedError::StopFailed { .. }
            | EmbeddedError::System { .. }
            | EmbeddedError::Database { .. } => Exit::Unavailable,
            EmbeddedError::TimedOut { .. } => Exit::TryAgain,
            EmbeddedError::IncompatibleVersion { .. }
            | EmbeddedError::DirectoryUnusable { .. }
            | EmbeddedError::NoUser { .. }
            | EmbeddedError::NoUserForRoot => Exit::Config,
        };
        Self::new(exit, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_with_its_causes_and_its_hint() {
        let cause = std::io::Error::other("the disk is full");
        let error = CliError::internal(cause)
            .context("couldn't write the report")
            .hint("free some space");
        assert_eq!(
            error.to_string(),
            "couldn't write the report: the disk is full\nhint: free some space"
        );
    }

    #[test]
    fn a_cause_that_its_error_tells_already_is_not_repeated() {
        let error = CliError::from(StoreError::Unavailable(sqlx::Error::PoolTimedOut));
        let told = error.to_string();
        assert_eq!(told.matches("timed out").count(), 1, "{told}");
        assert_eq!(error.exit(), Exit::Unavailable);
    }

    #[test]
    fn the_help_names_every_exit_code() {
        for exit in Exit::ALL {
            let code = exit.code().to_string();
            assert!(
                HELP.split([' ', ',', '.']).any(|word| word == code),
                "{code}"
            );
        }
    }

    #[test]
    fn what_waiting_cannot_mend_is_a_matter_of_configuration() {
        let newer = StoreError::SchemaVersion {
            found: Some(99),
            expected: Some(7),
        };
        assert_eq!(CliError::from(newer).exit(), Exit::Config);
        let moved = FenceError::Moved {
            was: "there".to_owned(),
            is: "here".to_owned(),
        };
        assert_eq!(CliError::from(moved).exit(), Exit::Config);
    }
}
