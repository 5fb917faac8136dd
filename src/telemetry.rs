//! Where log lines go and how they look.
//!
//! Always to standard error, or to the journal; standard output belongs to the results of commands. A line reads alone, and
//! carries its facts as fields: `shop`, `subscription.id`, `charge.id`, `attempt.id`, `order.id` and `duration_ms`. In the
//! journal these are called `CYKL_SHOP`, `CYKL_SUBSCRIPTION_ID` and so on, so `journalctl CYKL_CHARGE_ID=..` finds the story
//! of a charge. Secrets, card numbers and bodies of requests are never logged, whatever the filter says.

use std::ffi::OsStr;
use std::io::{self, IsTerminal};
use std::str::FromStr;

use nix::sys::stat;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// [`LogFormat::Journald`] when standard error is connected to the journal, [`LogFormat::Text`] otherwise.
    Auto,
    /// For people, in colours on a terminal unless `NO_COLOR` is set.
    Text,
    /// One JSON object per line, for collectors.
    Json,
    /// The journal's own protocol, which keeps fields apart from the message.
    Journald,
}

/// A text that names no format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a log format; allowed are auto, text, json and journald")]
pub struct LogFormatError(String);

impl LogFormat {
    /// All of them.
    pub const ALL: [LogFormat; 4] = [
        LogFormat::Auto,
        LogFormat::Text,
        LogFormat::Json,
        LogFormat::Journald,
    ];

    /// How it is spelt in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            LogFormat::Auto => "auto",
            LogFormat::Text => "text",
            LogFormat::Json => "json",
            LogFormat::Journald => "journald",
        }
    }
}

impl FromStr for LogFormat {
    type Err = LogFormatError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        LogFormat::ALL
            .into_iter()
            .find(|format| format.as_str() == text)
            .ok_or_else(|| LogFormatError(text.to_owned()))
    }
}

/// Why log lines cannot be written as asked.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not made of `tracing` directives.
    #[error("couldn't read the log filter")]
    Filter(#[from] ParseError),
    /// The journal was asked for by name and is not there.
    #[error("couldn't connect to the journal")]
    Journal(#[source] io::Error),
    /// Somebody has set up logging before.
    #[error("couldn't set up logging")]
    Taken(#[from] TryInitError),
}

/// Starts logging. `filter` is a list of `tracing` directives such as `info,cykl::gateway=debug`.
///
/// # Errors
/// [`TelemetryError`]. That the journal does not answer is an error only for [`LogFormat::Journald`].
pub fn init(format: LogFormat, filter: &str) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(filter)?;
    let layer = match format {
        LogFormat::Auto if is_journal(std::env::var_os("JOURNAL_STREAM").as_deref()) => {
            journal_layer().unwrap_or_else(|_| text_layer())
        }
        LogFormat::Auto | LogFormat::Text => text_layer(),
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(io::stderr)
            .boxed(),
        LogFormat::Journald => journal_layer().map_err(TelemetryError::Journal)?,
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .try_init()?;
    Ok(())
}

/// Whether `filter` can be given to [`init`].
///
/// # Errors
/// What is wrong with it.
pub fn check_filter(filter: &str) -> Result<(), ParseError> {
    EnvFilter::try_new(filter).map(drop)
}

fn text_layer() -> Box<dyn Layer<Registry> + Send + Sync> {
    let ansi = wants_colour(
        io::stderr().is_terminal(),
        std::env::var_os("NO_COLOR").as_deref(),
    );
    fmt::layer().with_ansi(ansi).with_writer(io::stderr).boxed()
}

fn journal_layer() -> io::Result<Box<dyn Layer<Registry> + Send + Sync>> {
    let layer = tracing_journald::layer()?
        .with_field_prefix(Some("CYKL".to_owned()))
        .with_syslog_identifier("cykl".to_owned());
    Ok(layer.boxed())
}

/// Any value of `NO_COLOR` but the empty one asks for none (no-color.org).
fn wants_colour(terminal: bool, no_color: Option<&OsStr>) -> bool {
    terminal && no_color.is_none_or(OsStr::is_empty)
}

/// Whether `journal_stream` names the file that standard error writes to (systemd.exec, `$JOURNAL_STREAM`). Being set is not
/// enough: a program started by a service with its output redirected inherits the variable.
fn is_journal(journal_stream: Option<&OsStr>) -> bool {
    let Ok(stderr) = stat::fstat(io::stderr()) else {
        return false;
    };
    journal_stream.is_some_and(|stream| *stream == *format!("{}:{}", stderr.st_dev, stderr.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_is_read_back_from_its_name() {
        for format in LogFormat::ALL {
            assert_eq!(format.as_str().parse(), Ok(format));
        }
        assert!("TEXT".parse::<LogFormat>().is_err());
    }

    #[test]
    fn colours_are_for_terminals_whose_owner_has_not_refused_them() {
        assert!(wants_colour(true, None));
        assert!(wants_colour(true, Some(OsStr::new(""))));
        assert!(!wants_colour(true, Some(OsStr::new("1"))));
        assert!(!wants_colour(false, None));
    }

    #[test]
    fn only_the_file_behind_standard_error_is_the_journal() {
        let stderr = stat::fstat(io::stderr()).unwrap();
        let own = format!("{}:{}", stderr.st_dev, stderr.st_ino);
        assert!(is_journal(Some(OsStr::new(&own))));
        assert!(!is_journal(Some(OsStr::new("0:0"))));
        assert!(!is_journal(Some(OsStr::new(""))));
        assert!(!is_journal(None));
    }

    #[test]
    fn a_filter_is_checked_before_it_is_used() {
        assert!(check_filter("info,cykl::gateway=debug").is_ok());
        assert!(check_filter("info,cykl=loud").is_err());
    }
}
