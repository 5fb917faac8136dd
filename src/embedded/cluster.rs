//! One cluster: made by initdb, served by a postmaster, described by what they leave in the data directory.
//!
//! `data` is complete or absent: initdb works beside it and its result is renamed. Files that PostgreSQL maintains are
//! never changed from here.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::account::Account;
use super::error::EmbeddedError;
use super::home::{PORT, socket_path};
use super::postmaster::{Postmaster, Status};
use super::programs::leading_number;
use super::supervisor::Supervised;
use super::{EmbeddedConfig, USER};

/// How long creating, starting and waiting for another starter may each take. Crash recovery is part of starting.
pub(super) const START_LIMIT: Duration = Duration::from_secs(300);

/// How long a fast shutdown, which ends with a checkpoint, may take.
pub(super) const STOP_LIMIT: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(10);

/// How much of a log is repeated in an error.
const TAIL_BYTES: u64 = 8 * 1024;
const TAIL_LINES: usize = 20;

/// What the directory that initdb works in is called, before a unique end.
const UNFINISHED: &str = "unfinished-";

/// The paths of one data directory, and what is done with them.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) home: PathBuf,
    data: PathBuf,
    log: PathBuf,
}

impl Cluster {
    pub(super) fn new(data_dir: &Path) -> Result<Self, EmbeddedError> {
        let home = std::path::absolute(data_dir).map_err(|source| EmbeddedError::System {
            attempt: format!(
                "find the absolute path of the data directory {}",
                data_dir.display()
            ),
            source,
        })?;
        Ok(Self {
            data: home.join("data"),
            log: home.join("postgres.log"),
            home,
        })
    }

    /// The socket directory of the server that runs in the cluster, if any. Waits for one that starts or stops.
    pub(super) async fn running_server(&self) -> Result<Option<PathBuf>, EmbeddedError> {
        let started = Instant::now();
        loop {
            let Some(postmaster) = self.postmaster()?.filter(Postmaster::process_exists) else {
                return Ok(None);
            };
            match postmaster.status {
                Status::Ready => {
                    let socket = socket_path(&postmaster.socket_dir);
                    // A file that a crash left behind names no server. PostgreSQL itself decides what becomes of it.
                    let is_live = UnixStream::connect(socket).await.is_ok();
                    return Ok(is_live.then_some(postmaster.socket_dir));
                }
                // Its owner is gone already, or holds no lock any more: it will not take long.
                Status::Starting | Status::Stopping if started.elapsed() < STOP_LIMIT => {
                    sleep(POLL).await
                }
                // The process is not a server, or is beyond us. PostgreSQL refuses to start beside it and says so.
                Status::Starting | Status::Stopping => return Ok(None),
            }
        }
    }

    fn postmaster(&self) -> Result<Option<Postmaster>, EmbeddedError> {
        Postmaster::read(&self.data).map_err(|source| EmbeddedError::System {
            attempt: format!("read {}/postmaster.pid", self.data.display()),
            source,
        })
    }

    /// The version of PostgreSQL that made the cluster, or `None` before there is one.
    pub(super) fn major(&self) -> Result<Option<u32>, EmbeddedError> {
        let path = self.data.join("PG_VERSION");
        let failed = |source| EmbeddedError::System {
            attempt: format!("read {}", path.display()),
            source,
        };
        match fs::read_to_string(&path) {
            Ok(version) => match leading_number(&version) {
                Some(major) => Ok(Some(major)),
                None => Err(failed(io::Error::other(
                    "it does not start with a version number",
                ))),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Removes what killed starters left behind. What cannot be removed now, because an initdb is about to do so itself,
    /// is removed by it or by a later start.
    pub(super) fn remove_unfinished(&self) -> Result<(), EmbeddedError> {
        let failed = |source| EmbeddedError::System {
            attempt: format!("read {}", self.home.display()),
            source,
        };
        for entry in fs::read_dir(&self.home).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry
                .file_name()
                .as_bytes()
                .starts_with(UNFINISHED.as_bytes())
            {
                match fs::remove_dir_all(entry.path()) {
                    Ok(()) | Err(_) => {}
                }
            }
        }
        Ok(())
    }

    /// Runs initdb beside the final place and renames the result, so that `data` is complete or absent.
    pub(super) async fn create(
        &self,
        account: &Account,
        bin_dir: &Path,
        durable: bool,
    ) -> Result<(), EmbeddedError> {
        let failed = |output: String| EmbeddedError::InitFailed {
            directory: self.home.clone(),
            output,
        };
        // A killed starter's initdb removes its own directory by name, perhaps only now: ours needs another name.
        let unfinished = self.home.join(format!("{UNFINISHED}{}", Uuid::new_v4()));
        let mut arguments: Vec<OsString> = [
            "--auth-local=trust",
            "--auth-host=reject",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--data-checksums",
            "-U",
            USER,
        ]
        .map(OsString::from)
        .into();
        if !durable {
            arguments.push("--no-sync".into());
        }
        arguments.extend(["-D".into(), unfinished.clone().into_os_string()]);
        let initdb = async {
            Supervised::spawn(account, None, &bin_dir.join("initdb"), &arguments)
                .await?
                .output()
                .await
        };
        let output = timeout(START_LIMIT, initdb)
            .await
            .map_err(|_elapsed| {
                failed(format!("it did not end within {} s", START_LIMIT.as_secs()))
            })?
            .map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            return Err(failed(format!(
                "{}\n{}",
                output.status,
                tail(&output.stderr)
            )));
        }
        let publish = || {
            fs::rename(&unfinished, &self.data)?;
            if durable {
                File::open(&self.home)?.sync_all()?;
            }
            Ok(())
        };
        publish().map_err(|error: io::Error| {
            failed(format!("its result could not be moved into place: {error}"))
        })
    }

    /// Starts the server and waits until it is ready: the file must name our own process, not one that was there before.
    pub(super) async fn serve(
        &self,
        account: &Account,
        bin_dir: &Path,
        socket_dir: &Path,
        config: &EmbeddedConfig,
    ) -> Result<Supervised, EmbeddedError> {
        self.keep_previous_log()?;
        let failed = |reason: String| EmbeddedError::StartFailed {
            directory: self.home.clone(),
            reason,
            log: self.log.clone(),
            tail: tail_of(&self.log),
        };
        let arguments = server_arguments(&self.data, socket_dir, config);
        let mut server = Supervised::spawn(
            account,
            Some(&self.log),
            &bin_dir.join("postgres"),
            &arguments,
        )
        .await
        .map_err(|error| failed(error.to_string()))?;
        let started = Instant::now();
        loop {
            if let Some(status) = server
                .exit_status()
                .map_err(|error| failed(error.to_string()))?
            {
                return Err(failed(status.to_string()));
            }
            if let Some(postmaster) = self.postmaster()?
                && postmaster.pid == server.program_pid()
                && postmaster.status == Status::Ready
            {
                return Ok(server);
            }
            if started.elapsed() > START_LIMIT {
                return Err(failed(format!(
                    "it is not ready after {} s",
                    START_LIMIT.as_secs()
                )));
            }
            sleep(POLL).await;
        }
    }

    /// Stops the server and waits until it has shut down.
    pub(super) async fn stop(&self, server: Supervised) -> Result<(), EmbeddedError> {
        let reason = match timeout(STOP_LIMIT, server.stop()).await {
            Ok(Ok(status)) if status.success() => return Ok(()),
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_elapsed) => format!("it is still shutting down after {} s", STOP_LIMIT.as_secs()),
        };
        Err(EmbeddedError::StopFailed {
            directory: self.home.clone(),
            reason,
            log: self.log.clone(),
            tail: tail_of(&self.log),
        })
    }

    /// One log per start, and the one before it.
    fn keep_previous_log(&self) -> Result<(), EmbeddedError> {
        match fs::rename(&self.log, self.log.with_extension("log.1")) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(EmbeddedError::System {
                attempt: format!("rename {}", self.log.display()),
                source,
            }),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// What the server is started with. The settings of `config` come last: of two settings of one name the later counts.
fn server_arguments(data: &Path, socket_dir: &Path, config: &EmbeddedConfig) -> Vec<OsString> {
    let mut sockets = OsString::from("unix_socket_directories=");
    sockets.push(list_entry(socket_dir.as_os_str()));
    let mut settings = vec![
        sockets,
        OsString::from("listen_addresses="),
        OsString::from("unix_socket_permissions=0700"),
        OsString::from(format!("port={PORT}")),
        OsString::from("logging_collector=off"),
        OsString::from("log_destination=stderr"),
        // Queries here are short: compiling them costs more than it saves.
        OsString::from("jit=off"),
    ];
    if !config.durable {
        settings.extend(
            [
                "fsync=off",
                "synchronous_commit=off",
                "full_page_writes=off",
            ]
            .map(OsString::from),
        );
    }
    settings.extend(
        config
            .settings
            .iter()
            .map(|(name, value)| OsString::from(format!("{name}={value}"))),
    );

    let mut arguments = vec![OsString::from("-D"), data.as_os_str().to_owned()];
    arguments.extend(
        settings
            .into_iter()
            .flat_map(|setting| [OsString::from("-c"), setting]),
    );
    arguments
}

/// An entry of a list in PostgreSQL's settings. In quotes it may contain commas and spaces.
fn list_entry(value: &OsStr) -> OsString {
    let mut quoted = vec![b'"'];
    for &byte in value.as_bytes() {
        if byte == b'"' {
            quoted.push(byte);
        }
        quoted.push(byte);
    }
    quoted.push(b'"');
    OsString::from_vec(quoted)
}

/// The last lines of a file; when it cannot be read, why.
fn tail_of(path: &Path) -> String {
    let read = || {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut end = Vec::new();
        file.read_to_end(&mut end)?;
        Ok(end)
    };
    match read() {
        Ok(end) => tail(&end),
        Err(error) => io::Error::to_string(&error),
    }
}

fn tail(output: &[u8]) -> String {
    let output = String::from_utf8_lossy(output);
    let lines: Vec<&str> = output.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_entry_keeps_commas_spaces_and_quotes() {
        assert_eq!(
            list_entry(OsStr::new(r#"/a, "b""#)),
            OsStr::new(r#""/a, ""b""""#)
        );
    }

    #[test]
    fn an_error_repeats_only_the_end_of_a_long_log() {
        let log: String = (1..=1000).map(|line| format!("line {line}\n")).collect();
        let end = tail(log.as_bytes());
        assert!(
            end.starts_with("line 981\n") && end.ends_with("line 1000"),
            "{end}"
        );
        assert_eq!(tail(b""), "");
    }

    #[test]
    fn configured_settings_come_after_our_own() {
        let config = EmbeddedConfig {
            data_dir: PathBuf::from("/srv/db"),
            bin_dir: None,
            durable: true,
            settings: vec![("jit".to_owned(), "on".to_owned())],
        };
        let arguments = server_arguments(Path::new("/srv/db/data"), Path::new("/srv/db"), &config);
        assert_eq!(arguments.last().unwrap(), "jit=on");
        assert!(!arguments.contains(&OsString::from("fsync=off")));
    }
}
