//! The directories of the embedded database: made for the right user, private, and reachable.
//!
//! The data directory, called home here, holds `data` (the cluster), `postgres.log`, the lock file and, when its path is
//! short enough, the socket. A directory with anything else in it is refused rather than filled.

use std::env;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, fchown,
};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::unistd::{Uid, User};
use sha2::{Digest, Sha256};

use super::account::{Account, user_name};
use super::error::EmbeddedError;

/// Marks a directory as ours and serializes those who prepare it.
const LOCK_FILE: &str = "cykl.lock";

/// PostgreSQL names its socket after the port, which nothing listens on.
pub(super) const PORT: u16 = 5432;

/// The longest path of a socket that Linux accepts (`sun_path`, without its final NUL).
const SOCKET_PATH_BYTES_MAX: usize = 107;

const LOCK_POLL: Duration = Duration::from_millis(20);

/// Where the embedded database lives unless configured: `$STATE_DIRECTORY/postgres` under systemd,
/// `/var/lib/cykl/postgres` for root, else `cykl/postgres` in `$XDG_DATA_HOME` or `~/.local/share`.
#[must_use]
pub fn default_data_dir() -> PathBuf {
    let uid = Uid::effective();
    let user_home = || Some(User::from_uid(uid).ok()??.dir);
    data_dir_of(uid.is_root(), |name| env::var_os(name), user_home)
}

fn data_dir_of(
    is_root: bool,
    variable: impl Fn(&str) -> Option<OsString>,
    user_home: impl Fn() -> Option<PathBuf>,
) -> PathBuf {
    // systemd lists several state directories with colons; the first is as good as any. A relative path would depend
    // on the working directory; the XDG specification says to ignore it.
    let directory = |name| {
        let value = variable(name)?;
        env::split_paths(&value)
            .next()
            .filter(|path| path.is_absolute())
    };
    if let Some(state) = directory("STATE_DIRECTORY") {
        return state.join("postgres");
    }
    let of_user = || {
        let shared = || Some(directory("HOME").or_else(&user_home)?.join(".local/share"));
        directory("XDG_DATA_HOME").or_else(shared)
    };
    let shared = if is_root { None } else { of_user() };
    shared
        .unwrap_or_else(|| PathBuf::from("/var/lib"))
        .join("cykl/postgres")
}

/// Makes `home` a private directory of `account`, or makes sure that it is one.
pub(super) async fn prepare(home: &Path, account: &Account) -> Result<(), EmbeddedError> {
    if home.as_os_str().as_encoded_bytes().contains(&b'\n') {
        return Err(unusable(
            home,
            "PostgreSQL cannot describe a path with a line break in postmaster.pid",
        ));
    }
    ensure_enterable(
        home,
        account,
        "choose another data directory (database.data_dir)",
    )
    .await?;
    match home.metadata() {
        Ok(metadata) if !metadata.is_dir() => return Err(unusable(home, "it is not a directory")),
        Ok(metadata) => adopt(home, metadata.uid(), account)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(home, account)?,
        Err(error) => return Err(unusable(home, error)),
    }
    // Directories made just now obey the umask and may be closed too.
    ensure_enterable(
        home,
        account,
        "choose another data directory (database.data_dir)",
    )
    .await
}

/// Root hands the cluster to `account`, which must be able to enter every directory on the way to `path`.
pub(super) async fn ensure_enterable(
    path: &Path,
    account: &Account,
    advice: &str,
) -> Result<(), EmbeddedError> {
    const FIRST_CLOSED: &str =
        r#"for directory do [ -x "$directory" ] || { printf %s "$directory"; exit; }; done"#;

    if !account.is_handed_over {
        return Ok(());
    }
    let mut directories: Vec<&Path> = path
        .ancestors()
        .filter(|directory| directory.exists())
        .collect();
    directories.reverse();
    let output = account
        .command(Path::new("/bin/sh"))
        .args(["-c", FIRST_CLOSED, "sh"])
        .args(&directories)
        .output()
        .await
        .map_err(|source| EmbeddedError::System {
            attempt: format!("run /bin/sh as the user {}", account.name),
            source,
        })?;
    let first_closed = String::from_utf8_lossy(&output.stdout);
    if first_closed.is_empty() && output.status.success() {
        return Ok(());
    }
    let reason = format!(
        "PostgreSQL refuses to run as root, so it runs as the user {}, who cannot enter this directory on the way to {}: \
         {advice}, or open this one with chmod o+x",
        account.name,
        path.display(),
    );
    Err(unusable(Path::new(&*first_closed), reason))
}

fn create(home: &Path, account: &Account) -> Result<(), EmbeddedError> {
    let create = || {
        if let Some(parent) = home.parent() {
            fs::create_dir_all(parent)?;
        }
        create_private(home, account)
    };
    match create() {
        // Another process was faster; what it made is checked like any existing directory.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let owner = home
                .metadata()
                .map_err(|error| unusable(home, error))?
                .uid();
            adopt(home, owner, account)
        }
        result => {
            result.map_err(|error| unusable(home, format!("it could not be created: {error}")))
        }
    }
}

/// Accepts a directory that is ours already, and takes over an empty one.
fn adopt(home: &Path, owner: u32, account: &Account) -> Result<(), EmbeddedError> {
    let owner_is_root = Uid::from_raw(owner).is_root();
    if owner != account.uid && !(owner_is_root && account.is_handed_over) {
        let owner = user_name(owner);
        return Err(unusable(
            home,
            format!(
                "it belongs to {owner}, not to {}: run cykl as {owner} or as root",
                account.name
            ),
        ));
    }
    let entries = fs::read_dir(home)
        .and_then(|entries| {
            entries
                .map(|entry| Ok(entry?.file_name()))
                .collect::<io::Result<Vec<_>>>()
        })
        .map_err(|error| unusable(home, error))?;
    if entries.iter().any(|name| name == LOCK_FILE) {
        return Ok(());
    }
    if !entries.is_empty() {
        return Err(unusable(
            home,
            "it is not empty and not a data directory of cykl: choose an empty or a new one",
        ));
    }
    let take_over = || {
        fs::set_permissions(home, Permissions::from_mode(0o700))?;
        give_to(home, account)
    };
    take_over().map_err(|error| unusable(home, error))
}

fn create_private(directory: &Path, account: &Account) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(directory)?;
    give_to(directory, account)
}

fn give_to(path: &Path, account: &Account) -> io::Result<()> {
    if account.is_handed_over {
        chown(path, Some(account.uid), Some(account.gid))?;
    }
    Ok(())
}

/// Waits until no other process prepares this directory. The lock is gone with the returned file, or with our process.
pub(super) async fn lock(
    home: &Path,
    account: &Account,
    limit: Duration,
) -> Result<File, EmbeddedError> {
    let path = home.join(LOCK_FILE);
    let open = || {
        // The directory belongs to the account: root must not follow a link that it may have put there.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(&path)?;
        if account.is_handed_over {
            fchown(&file, Some(account.uid), Some(account.gid))?;
        }
        Ok(file)
    };
    let failed = |source| EmbeddedError::System {
        attempt: format!("lock {}", path.display()),
        source,
    };
    let file = open().map_err(failed)?;
    let started = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
            Err(TryLockError::WouldBlock) if started.elapsed() > limit => {
                return Err(EmbeddedError::TimedOut {
                    directory: home.to_path_buf(),
                    reason: "another process is still preparing the database",
                    waited: limit,
                });
            }
            Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_POLL).await,
        }
    }
}

/// A private directory for the socket: `home` itself, or a shorter one when its path is unfit for a socket.
pub(super) fn socket_dir(home: &Path, account: &Account) -> Result<PathBuf, EmbeddedError> {
    if fits_a_socket(home) {
        return Ok(home.to_path_buf());
    }
    let name = short_name(home);
    let runtime = env::var_os("XDG_RUNTIME_DIR")
        .filter(|_| !account.is_handed_over)
        .map(PathBuf::from);
    let candidates = [
        runtime.map(|directory| directory.join(format!("cykl-{name}"))),
        make_run_directory(account).map(|directory| directory.join(&name)),
        Some(PathBuf::from(format!("/tmp/cykl-{}-{name}", account.uid))),
    ];
    let mut refusal = unusable(
        home,
        "its path is unfit for a socket (longer than 107 bytes, or with a comma), and so is every other place for it",
    );
    for directory in candidates
        .into_iter()
        .flatten()
        .filter(|path| path.is_absolute() && fits_a_socket(path))
    {
        match own_private(&directory, account) {
            Ok(()) => return Ok(directory),
            Err(error) => {
                refusal = unusable(
                    &directory,
                    format!("the socket of {} needs it: {error}", home.display()),
                )
            }
        }
    }
    Err(refusal)
}

/// psql and everything else on libpq reads a comma in a host as the end of one host and the start of the next.
fn fits_a_socket(directory: &Path) -> bool {
    let path = socket_path(directory).into_os_string();
    path.len() <= SOCKET_PATH_BYTES_MAX && !path.as_encoded_bytes().contains(&b',')
}

/// The socket that PostgreSQL makes in `directory`.
pub(super) fn socket_path(directory: &Path) -> PathBuf {
    directory.join(format!(".s.PGSQL.{PORT}"))
}

/// `/run/cykl`, which systemd makes for a unit with `RuntimeDirectory=cykl` and root makes for itself.
fn make_run_directory(account: &Account) -> Option<PathBuf> {
    let directory = PathBuf::from("/run/cykl");
    let is_there =
        directory.is_dir() || (account.is_handed_over && fs::create_dir(&directory).is_ok());
    is_there.then_some(directory)
}

/// Makes the directory, or accepts one that nobody else can have prepared: not a link, ours, closed to others.
fn own_private(directory: &Path, account: &Account) -> io::Result<()> {
    match create_private(directory, account) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        result => return result,
    }
    let metadata = fs::symlink_metadata(directory)?;
    if metadata.is_dir() && metadata.uid() == account.uid && metadata.mode() & 0o077 == 0 {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "it exists and is not a private directory of {}",
        account.name
    )))
}

/// A name that is short, the same for every process, and different for every data directory.
fn short_name(home: &Path) -> String {
    let digest = Sha256::digest(home.as_os_str().as_encoded_bytes());
    hex::encode(digest).chars().take(16).collect()
}

fn unusable(directory: &Path, reason: impl ToString) -> EmbeddedError {
    EmbeddedError::DirectoryUnusable {
        directory: directory.to_path_buf(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Variables<'a> = &'a [(&'a str, &'a str)];

    fn data_dir(is_root: bool, variables: Variables<'_>) -> PathBuf {
        let variable = |name: &str| {
            let (_, value) = variables.iter().find(|(known, _)| *known == name)?;
            Some(OsString::from(value))
        };
        data_dir_of(is_root, variable, || {
            Some(PathBuf::from("/home/from-passwd"))
        })
    }

    #[test]
    fn the_default_data_directory_is_where_the_kind_of_user_keeps_data() {
        let home = ("HOME", "/home/ann");
        let cases: [(bool, Variables<'_>, &str); 7] = [
            (false, &[], "/home/from-passwd/.local/share/cykl/postgres"),
            (false, &[home], "/home/ann/.local/share/cykl/postgres"),
            (
                false,
                &[home, ("XDG_DATA_HOME", "/data/ann")],
                "/data/ann/cykl/postgres",
            ),
            (
                false,
                &[home, ("XDG_DATA_HOME", "data")],
                "/home/ann/.local/share/cykl/postgres",
            ),
            (
                false,
                &[home, ("STATE_DIRECTORY", "/var/lib/cykl")],
                "/var/lib/cykl/postgres",
            ),
            (true, &[("HOME", "/root")], "/var/lib/cykl/postgres"),
            (
                true,
                &[("STATE_DIRECTORY", "/srv/a:/srv/b")],
                "/srv/a/postgres",
            ),
        ];
        for (is_root, variables, expected) in cases {
            assert_eq!(
                data_dir(is_root, variables),
                Path::new(expected),
                "{is_root} {variables:?}"
            );
        }
    }

    #[test]
    fn a_socket_fits_into_107_bytes_and_a_path_without_commas() {
        assert!(fits_a_socket(Path::new(&format!("/{}", "d".repeat(92)))));
        assert!(!fits_a_socket(Path::new(&format!("/{}", "d".repeat(93)))));
        assert!(!fits_a_socket(Path::new("/srv/a,b")));
    }

    #[test]
    fn a_prepared_directory_that_others_can_enter_is_not_trusted_with_the_socket() {
        let account = Account::for_home(Path::new("/nonexistent")).unwrap();
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("socket");
        own_private(&directory, &account).unwrap();
        own_private(&directory, &account).unwrap();

        fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
        assert!(own_private(&directory, &account).is_err());

        fs::set_permissions(&directory, Permissions::from_mode(0o700)).unwrap();
        let link = parent.path().join("link");
        std::os::unix::fs::symlink(&directory, &link).unwrap();
        assert!(own_private(&link, &account).is_err());
    }

    #[test]
    fn data_directories_share_no_short_name() {
        assert_ne!(
            short_name(Path::new("/srv/a")),
            short_name(Path::new("/srv/b"))
        );
        assert_eq!(short_name(Path::new("/srv/a")).len(), 16);
    }
}
