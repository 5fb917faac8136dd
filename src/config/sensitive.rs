//! Values that must not be seen, in whole or in part, and files that hold them.

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::config::parse;

/// What is shown in place of a secret.
pub(super) const REDACTED: &str = "[redacted]";

/// No token or key is longer.
const SECRET_BYTES_MAX: u64 = 4_096;

/// The database to use.
#[derive(Debug, Clone)]
pub enum DatabaseUrl {
    /// A private cluster that Cykl starts itself in `database.data_dir`.
    Embedded,
    /// A PostgreSQL URL, which may hold a password.
    Url(SecretString),
}

/// Reads `embedded` or a PostgreSQL URL; the message does not quote it.
pub(super) fn database_url(text: &str) -> Result<DatabaseUrl, &'static str> {
    if text == "embedded" {
        return Ok(DatabaseUrl::Embedded);
    }
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "postgres" | "postgresql") => {
            Ok(DatabaseUrl::Url(text.into()))
        }
        Ok(_) | Err(_) => Err(
            "is neither \"embedded\" nor a PostgreSQL URL such as postgresql://cykl@localhost/cykl?host=/run/postgresql (special characters in a password are written %XX)",
        ),
    }
}

/// Shown with its passwords hidden.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DatabaseUrl::Embedded => f.write_str("embedded"),
            DatabaseUrl::Url(secret) => f.write_str(&without_passwords(secret.expose_secret())),
        }
    }
}

fn without_passwords(text: &str) -> String {
    let Ok(mut url) = Url::parse(text) else {
        return REDACTED.to_owned();
    };
    if url.password().is_some() && url.set_password(Some("redacted")).is_err() {
        return REDACTED.to_owned();
    }
    let is_secret = |name: &str| name.to_ascii_lowercase().contains("password");
    if url.query_pairs().any(|(name, _)| is_secret(&name)) {
        // A password may also stand among the parameters, and what else stands there is not worth a mistake.
        url.set_query(Some("redacted"));
    }
    url.to_string()
}

/// The address of a webhook. Whoever knows the whole of it can post to it, so only its beginning is ever shown.
#[derive(Clone, PartialEq, Eq)]
pub struct HookUrl(Url);

impl HookUrl {
    /// The whole address, for the request alone.
    pub fn expose(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for HookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{REDACTED}", self.0.origin().ascii_serialization())
    }
}

impl fmt::Debug for HookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HookUrl({self})")
    }
}

/// Reads the address of a webhook; the message does not quote it.
pub(super) fn hook_url(text: &str) -> Result<HookUrl, &'static str> {
    match Url::parse(text) {
        Ok(url)
            if url.scheme() == "https" || (url.scheme() == "http" && parse::is_loopback(&url)) =>
        {
            Ok(HookUrl(url))
        }
        Ok(_) | Err(_) => Err(
            "is not the address of a webhook; use https, or http on 127.0.0.1, ::1 or localhost",
        ),
    }
}

/// Reads a secret that goes into headers and signatures: printable ASCII without spaces. The message does not quote it.
pub(super) fn secret(text: &str) -> Result<SecretString, &'static str> {
    if text.is_empty() {
        Err("is empty")
    } else if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(text.into())
    } else {
        Err("holds a space or a character that is not printable ASCII; copy it again")
    }
}

/// A secret that stood in a file.
pub(super) struct SecretFile {
    pub(super) secret: SecretString,
    pub(super) readable_by_all: bool,
}

/// Reads a secret from a file, without the line break at its end. The message quotes nothing of it.
pub(super) fn read_secret(path: &Path) -> Result<SecretFile, String> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| format!("couldn't read {shown}: {error}");
    // Asked before it is opened: opening a pipe would wait for somebody to write to it.
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(format!("{shown} is not a file"));
    }
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(SECRET_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > SECRET_BYTES_MAX) {
        return Err(format!(
            "{shown} is longer than {SECRET_BYTES_MAX} bytes, which no token or key is"
        ));
    }
    let text = String::from_utf8(bytes).map_err(|_| format!("{shown} is not text"))?;
    let secret = secret(text.trim_end_matches(['\r', '\n']))
        .map_err(|message| format!("{shown} {message}"))?;
    Ok(SecretFile {
        secret,
        readable_by_all: metadata.permissions().mode() & 0o004 != 0,
    })
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;

    #[test]
    fn passwords_of_the_database_are_hidden() {
        for (text, shown) in [
            ("embedded", "embedded"),
            (
                "postgresql://cykl@localhost/cykl",
                "postgresql://cykl@localhost/cykl",
            ),
            (
                "postgres://u:hunter2@host/db",
                "postgres://u:redacted@host/db",
            ),
            (
                "postgres://host/db?password=hunter2",
                "postgres://host/db?redacted",
            ),
        ] {
            let url = database_url(text).unwrap();
            assert_eq!(url.to_string(), shown);
            assert!(!format!("{url:?}").contains("hunter2"));
        }
        for text in [
            "",
            "hunter2",
            "mysql://u:hunter2@host/db",
            "postgres://u:hunter2/@host",
        ] {
            if let Err(message) = database_url(text) {
                assert!(!message.contains("hunter2"));
            }
        }
    }

    #[test]
    fn only_the_beginning_of_a_webhook_is_shown() {
        let url = hook_url("https://hooks.example.com/services/T0/hunter2").unwrap();
        assert_eq!(
            format!("{url} {url:?}"),
            "https://hooks.example.com/[redacted] HookUrl(https://hooks.example.com/[redacted])"
        );
        assert!(url.expose().as_str().ends_with("hunter2"));
        assert!(hook_url("http://127.0.0.1:9000/x").is_ok());
        assert!(
            hook_url("http://hooks.example.com/hunter2")
                .is_err_and(|message| !message.contains("hunter2"))
        );
    }

    #[test]
    fn a_secret_is_read_from_a_file_without_its_line_break() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, "hunter2\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let file = read_secret(&path).unwrap();
        assert_eq!(file.secret.expose_secret(), "hunter2");
        assert!(!file.readable_by_all);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(read_secret(&path).unwrap().readable_by_all);
    }

    #[test]
    fn a_file_without_a_usable_secret_is_refused_and_not_quoted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let long = "hunter2".repeat(1_000);
        for content in [
            &b""[..],
            b"\n",
            b"hunter2 hunter2",
            b"hunter2\xff",
            long.as_bytes(),
        ] {
            fs::write(&path, content).unwrap();
            let message = read_secret(&path).err().unwrap();
            assert!(
                message.contains("token") && !message.contains("hunter2"),
                "{message}"
            );
        }
        assert!(
            read_secret(directory.path())
                .err()
                .unwrap()
                .contains("is not a file")
        );
        assert!(
            read_secret(&directory.path().join("none"))
                .err()
                .unwrap()
                .contains("couldn't read")
        );
    }
}
