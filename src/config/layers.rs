//! The layers, merged into one flat list of settings that remember where they were written.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ::config::{Environment, FileFormat, Source, Value, ValueKind};

use crate::config::ConfigError;
use crate::config::sections::CLASSES;

/// The lowest layer.
pub(super) const DEFAULTS: &str = include_str!("../../config/default.toml");

/// How the lowest layer is called in messages.
pub(super) const DEFAULTS_ORIGIN: &str = "built-in default";

const PREFIX: &str = "CYKL";
const SEPARATOR: &str = "__";

/// A setting as it was written.
#[derive(Debug, Clone)]
pub(super) struct Leaf {
    pub(super) given: Given,
    /// A file, or the name of a variable.
    pub(super) origin: String,
}

/// A value before anybody knows what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Given {
    One(String),
    Many(Vec<String>),
    /// A section without a single key.
    EmptySection,
    /// A list of lists or of sections.
    Nested,
}

/// The settings of all layers by their full key, such as `database.url`.
pub(super) type Leaves = BTreeMap<String, Leaf>;

/// What the surroundings of the process say.
#[derive(Debug, Default)]
pub(super) struct Process {
    /// Variables that begin with `CYKL__`.
    pub(super) variables: BTreeMap<String, String>,
    /// `$CREDENTIALS_DIRECTORY`, where systemd puts what `LoadCredential=` names (systemd.exec, "Credentials").
    pub(super) credentials_directory: Option<PathBuf>,
}

impl Process {
    pub(super) fn current() -> Result<Self, ConfigError> {
        let prefix = format!("{PREFIX}{SEPARATOR}");
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| {
                let name = name
                    .into_string()
                    .ok()
                    .filter(|name| name.starts_with(&prefix))?;
                let value = value.into_string();
                Some(match value {
                    Ok(value) => Ok((name, value)),
                    Err(_) => Err(ConfigError::Variable(name)),
                })
            })
            .collect::<Result<_, _>>()?;
        let credentials_directory = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        Ok(Self {
            variables,
            credentials_directory,
        })
    }
}

/// The text of a layer in TOML.
pub(super) struct File {
    text: String,
    origin: String,
}

impl File {
    pub(super) fn inline(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            origin: "inline settings".to_owned(),
        }
    }
}

/// Reads a file that must be there.
pub(super) fn read_file(path: &Path) -> Result<File, ConfigError> {
    let origin = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(File { text, origin }),
        Err(source) => Err(ConfigError::File {
            path: origin,
            source,
        }),
    }
}

/// Reads a file that need not be there, but must be readable when it is.
pub(super) fn read_file_if_present(path: &Path) -> Result<Option<File>, ConfigError> {
    match read_file(path) {
        Err(ConfigError::File { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

/// All layers, later ones over earlier ones.
pub(super) fn merge(file: Option<File>, process: &Process) -> Result<Leaves, ConfigError> {
    let defaults = File {
        text: DEFAULTS.to_owned(),
        origin: DEFAULTS_ORIGIN.to_owned(),
    };
    let mut leaves = Leaves::new();
    for file in std::iter::once(defaults).chain(file) {
        let source = ::config::File::from_str(&file.text, FileFormat::Toml);
        flatten(
            collect(source, &file.origin)?,
            "",
            &|_| file.origin.clone(),
            &mut leaves,
        );
    }
    let variables = process.variables.clone().into_iter().collect();
    // Values are left as text: guessing their types would turn the merchant 00123 into 123.
    let source = Environment::with_prefix(PREFIX)
        .prefix_separator(SEPARATOR)
        .separator(SEPARATOR)
        .ignore_empty(true)
        .source(Some(variables));
    let mut given = Leaves::new();
    flatten(
        collect(source, "the environment")?,
        "",
        &variable_of,
        &mut given,
    );
    leaves.extend(
        given
            .into_iter()
            .map(|(key, leaf)| (with_code_in_capitals(key), leaf)),
    );
    Ok(leaves)
}

fn collect<S: Source + Send + Sync + 'static>(
    source: S,
    origin: &str,
) -> Result<Value, ConfigError> {
    ::config::Config::builder()
        .add_source(source)
        .build()
        .map(|layer| layer.cache)
        .map_err(|error| ConfigError::Syntax {
            origin: origin.to_owned(),
            reason: without_excerpt(&error.to_string()),
        })
}

/// The variable that sets `key`.
fn variable_of(key: &str) -> String {
    let name = key.replace('.', SEPARATOR).to_uppercase();
    format!("{PREFIX}{SEPARATOR}{name}")
}

/// Names of variables lose their case on the way, and imoje's codes are capitals.
fn with_code_in_capitals(key: String) -> String {
    match key
        .strip_prefix(CLASSES)
        .and_then(|rest| rest.strip_prefix('.'))
    {
        Some(code) => format!("{CLASSES}.{}", code.to_uppercase()),
        None => key,
    }
}

/// The message of the TOML parser without the lines that quote the file, which may hold a secret.
fn without_excerpt(message: &str) -> String {
    let is_excerpt = |line: &&str| {
        line.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == ' ')
            .starts_with('|')
    };
    message
        .lines()
        .filter(|line| !line.trim().is_empty() && !is_excerpt(line))
        .collect::<Vec<_>>()
        .join(": ")
}

fn flatten(value: Value, key: &str, origin: &dyn Fn(&str) -> String, leaves: &mut Leaves) {
    let given = match value.kind {
        ValueKind::Table(table) if table.is_empty() => Given::EmptySection,
        ValueKind::Table(table) => {
            for (name, value) in table {
                let key = if key.is_empty() {
                    name
                } else {
                    format!("{key}.{name}")
                };
                flatten(value, &key, origin, leaves);
            }
            return;
        }
        ValueKind::Array(items) => {
            match items.into_iter().map(|item| scalar(item.kind)).collect() {
                Some(items) => Given::Many(items),
                None => Given::Nested,
            }
        }
        kind @ (ValueKind::Nil
        | ValueKind::Boolean(_)
        | ValueKind::I64(_)
        | ValueKind::I128(_)
        | ValueKind::U64(_)
        | ValueKind::U128(_)
        | ValueKind::Float(_)
        | ValueKind::String(_)) => scalar(kind).map_or(Given::Nested, Given::One),
    };
    if !key.is_empty() {
        leaves.insert(
            key.to_owned(),
            Leaf {
                given,
                origin: origin(key),
            },
        );
    }
}

/// A single value as text: every setting is read from text, so that a file and a variable are read alike.
fn scalar(kind: ValueKind) -> Option<String> {
    match kind {
        ValueKind::Nil => Some(String::new()),
        ValueKind::Boolean(value) => Some(value.to_string()),
        ValueKind::I64(value) => Some(value.to_string()),
        ValueKind::I128(value) => Some(value.to_string()),
        ValueKind::U64(value) => Some(value.to_string()),
        ValueKind::U128(value) => Some(value.to_string()),
        ValueKind::Float(value) => Some(value.to_string()),
        ValueKind::String(value) => Some(value),
        ValueKind::Table(_) | ValueKind::Array(_) => None,
    }
}
