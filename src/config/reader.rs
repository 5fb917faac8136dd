//! Reads settings one by one and gathers every mistake, instead of stopping at the first.
//!
//! A key is known because somebody asks for it, so the list of known keys cannot differ from the code.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use secrecy::SecretString;

use crate::config::layers::{DEFAULTS_ORIGIN, Given, Leaf, Leaves};
use crate::config::sensitive::{self, REDACTED};
use crate::domain::spelling::nearest;

/// A setting in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its full key, such as `database.url`.
    pub key: String,
    /// Its value as written; `[redacted]` for a secret.
    pub value: String,
    /// The file or the variable that it came from.
    pub origin: String,
}

/// A mistake in the configuration, or something that is allowed and unwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key that it is about.
    pub key: String,
    /// The file or the variable in which it was written; `None` when it was written nowhere.
    pub origin: Option<String>,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin) => write!(f, "{} ({origin}): {}", self.key, self.message),
            None => write!(f, "{} (not set): {}", self.key, self.message),
        }
    }
}

/// What a file with a secret that everybody on the machine can read is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exposure {
    /// Money depends on it.
    Mistake,
    /// Nobody loses anything by it.
    Warning,
}

/// The settings while they are being read.
pub(super) struct Reader {
    leaves: Leaves,
    credentials_directory: Option<PathBuf>,
    asked: BTreeSet<String>,
    settings: Vec<Setting>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Reader {
    pub(super) fn new(leaves: Leaves, credentials_directory: Option<PathBuf>) -> Self {
        Self {
            leaves,
            credentials_directory,
            asked: BTreeSet::new(),
            settings: Vec::new(),
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// The names directly below a section: `main` for `shops.main.token`.
    pub(super) fn names_below(&self, section: &str) -> BTreeSet<String> {
        self.leaves
            .keys()
            .filter_map(|key| key.strip_prefix(section)?.strip_prefix('.'))
            .filter_map(|rest| rest.split('.').next())
            .map(str::to_owned)
            .collect()
    }

    /// Whether `key` was given in any layer.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.leaves.contains_key(key)
    }

    /// The value of `key`; `None` when it is not set, or is a mistake, which is noted.
    pub(super) fn optional<T, E: fmt::Display>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        self.shown(key, parse, |text, _| text.to_owned())
    }

    /// As [`Reader::optional`]; that it is not set is a mistake, and `advice` says what to do about it.
    pub(super) fn required<T, E: fmt::Display>(
        &mut self,
        key: &str,
        advice: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        if !self.is_set(key) {
            self.problem(key, advice);
        }
        self.optional(key, parse)
    }

    /// The value of `key`, which has a default in `config/default.toml`.
    pub(super) fn value<T, E: fmt::Display>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        self.required(key, "has no value and no default", parse)
    }

    /// The value of `key`, which cannot have its default in the file because its section has a name of the operator's.
    pub(super) fn value_or<T, E: fmt::Display>(
        &mut self,
        key: &str,
        default: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        self.leaves.entry(key.to_owned()).or_insert_with(|| Leaf {
            given: Given::One(default.to_owned()),
            origin: DEFAULTS_ORIGIN.to_owned(),
        });
        self.optional(key, parse)
    }

    /// As [`Reader::optional`], for a value that is sensitive in part; `show` makes of it what may be seen. The messages
    /// of `parse` must not quote it.
    pub(super) fn sensitive<T, E: fmt::Display>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
        show: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        self.shown(key, parse, |_, value| show(value))
    }

    fn shown<T, E: fmt::Display>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
        show: impl FnOnce(&str, &T) -> String,
    ) -> Option<T> {
        let leaf = self.leaf(key)?;
        let Given::One(text) = leaf.given else {
            self.problem(key, "takes a single value");
            return None;
        };
        match parse(&text) {
            Ok(value) => {
                self.setting(key, show(&text, &value), leaf.origin);
                Some(value)
            }
            Err(error) => {
                self.problem(key, &error.to_string());
                None
            }
        }
    }

    /// The values of `key`: a list, or a text with commas, which is how a variable gives a list. Every item is parsed.
    pub(super) fn list<T, E: fmt::Display>(
        &mut self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<Vec<T>> {
        let leaf = self.leaf(key)?;
        let items = match leaf.given {
            Given::Many(items) => items,
            Given::One(text) => text.split(',').map(|item| item.trim().to_owned()).collect(),
            Given::EmptySection | Given::Nested => {
                self.problem(key, "takes a list of single values");
                return None;
            }
        };
        match items.iter().map(|item| parse(item)).collect() {
            Ok(values) => {
                self.setting(key, items.join(", "), leaf.origin);
                Some(values)
            }
            Err(error) => {
                self.problem(key, &error.to_string());
                None
            }
        }
    }

    /// A secret that must be given as `key` or, by the path of a file that holds it, as `key_file`.
    pub(super) fn required_secret(
        &mut self,
        key: &str,
        exposure: Exposure,
    ) -> Option<SecretString> {
        let file_key = format!("{key}_file");
        if !self.is_set(key) && !self.is_set(&file_key) {
            let advice =
                format!("give the secret, or set {file_key} to the path of a file that holds it");
            self.problem(key, &advice);
        }
        self.secret(key, exposure)
    }

    /// As [`Reader::required_secret`], but it need not be given.
    pub(super) fn secret(&mut self, key: &str, exposure: Exposure) -> Option<SecretString> {
        let file_key = format!("{key}_file");
        let both = self.is_set(key) && self.is_set(&file_key);
        if both {
            let advice = format!("is given twice, as {key} and as {file_key}; remove one of them");
            self.problem(key, &advice);
        }
        let value = self.sensitive(key, sensitive::secret, |_| REDACTED.to_owned());
        let path = self.optional(&file_key, |path| match path {
            "" => Err("is empty; give the path of a file"),
            path => Ok(PathBuf::from(path)),
        });
        let (Some(path), false) = (path, both) else {
            return value;
        };
        let path = match &self.credentials_directory {
            Some(directory) => directory.join(path),
            None => path,
        };
        match sensitive::read_secret(&path) {
            Ok(file) => {
                if file.readable_by_all {
                    self.exposed(&file_key, &path.display().to_string(), exposure);
                }
                Some(file.secret)
            }
            Err(message) => {
                self.problem(&file_key, &message);
                None
            }
        }
    }

    fn exposed(&mut self, key: &str, path: &str, exposure: Exposure) {
        let message = format!("everybody on this machine can read {path}; run: chmod o-rwx {path}");
        let problem = self.describe(key, &message);
        match exposure {
            Exposure::Mistake => self.problems.push(problem),
            Exposure::Warning => self.warnings.push(problem),
        }
    }

    /// Notes a mistake about `key`.
    pub(super) fn problem(&mut self, key: &str, message: &str) {
        let problem = self.describe(key, message);
        self.problems.push(problem);
    }

    /// Notes what is allowed and unwise about `key`.
    pub(super) fn warn(&mut self, key: &str, message: &str) {
        let problem = self.describe(key, message);
        self.warnings.push(problem);
    }

    fn describe(&self, key: &str, message: &str) -> Problem {
        let written = self
            .leaves
            .iter()
            .find(|(name, _)| *name == key || is_below(name, key));
        Problem {
            key: key.to_owned(),
            origin: written.map(|(_, leaf)| leaf.origin.clone()),
            message: message.to_owned(),
        }
    }

    fn leaf(&mut self, key: &str) -> Option<Leaf> {
        self.asked.insert(key.to_owned());
        self.leaves.get(key).cloned()
    }

    fn setting(&mut self, key: &str, value: String, origin: String) {
        self.settings.push(Setting {
            key: key.to_owned(),
            value,
            origin,
        });
    }

    /// Leaves out of account whatever stands below a section that was already found to be a mistake.
    pub(super) fn forget(&mut self, section: &str) {
        self.leaves
            .retain(|key, _| !is_below(key, section) && key != section);
    }

    /// All keys that were asked for.
    #[cfg(test)]
    pub(super) fn asked(&self) -> &BTreeSet<String> {
        &self.asked
    }

    /// The settings and the warnings, or all mistakes, each kind sorted by key. Keys that nobody asked for are mistakes.
    pub(super) fn finish(mut self) -> Result<(Vec<Setting>, Vec<Problem>), Vec<Problem>> {
        let unknown: Vec<String> = self
            .leaves
            .iter()
            .filter(|(key, leaf)| !self.asked.contains(*key) && !self.is_section(key, leaf))
            .map(|(key, _)| key.clone())
            .collect();
        for key in unknown {
            let message = match nearest(&key, self.asked.iter().map(String::as_str)) {
                Some(nearest) => format!("is not a setting; the nearest one is {nearest}"),
                None => "is not a setting".to_owned(),
            };
            self.problem(&key, &message);
        }
        self.problems.sort_by(|a, b| a.key.cmp(&b.key));
        self.warnings.sort_by(|a, b| a.key.cmp(&b.key));
        self.settings.sort_by(|a, b| a.key.cmp(&b.key));
        if self.problems.is_empty() {
            Ok((self.settings, self.warnings))
        } else {
            Err(self.problems)
        }
    }

    fn is_section(&self, key: &str, leaf: &Leaf) -> bool {
        leaf.given == Given::EmptySection && self.asked.iter().any(|asked| is_below(asked, key))
    }
}

fn is_below(key: &str, section: &str) -> bool {
    key.strip_prefix(section)
        .is_some_and(|rest| rest.starts_with('.'))
}
