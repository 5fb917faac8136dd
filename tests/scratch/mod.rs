//! The directory of a test process: whatever it puts there is gone when it has ended, however that happens.
//!
//! What tests share lives as long as the process, in statics that nothing drops, and a process that is killed drops nothing at all.
//! So a shell waits for the end of a pipe that only this process can write to, as the supervisor of the embedded database does.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

/// Removes the directory `$1` after the end of standard input, and of the server in it, which ends for the same reason. A server that
/// takes longer than half a minute ends when its files are gone.
const SCRIPT: &str = r#"
trap '' HUP INT QUIT TERM
read -r line
tries=0
while [ -e "$1/postgres/data/postmaster.pid" ] && [ "$tries" -lt 300 ]; do
    tries=$((tries + 1))
    sleep 0.1
done
rm -rf -- "$1"
"#;

static SCRATCH: LazyLock<Scratch> = LazyLock::new(Scratch::new);

struct Scratch {
    directory: PathBuf,
    /// Holds the pipe. Nothing is ever written to it.
    _remover: Child,
}

/// The directory of this process, made when it is asked for first.
pub fn directory() -> &'static Path {
    &SCRATCH.directory
}

/// Where the private PostgreSQL of this process keeps its files.
pub fn postgres() -> PathBuf {
    directory().join("postgres")
}

impl Scratch {
    fn new() -> Self {
        let made = tempfile::Builder::new()
            .prefix(concat!("cykl-", env!("CARGO_CRATE_NAME"), "-"))
            // As root the server runs as another user, who has to be let through.
            .permissions(Permissions::from_mode(0o755))
            .tempdir()
            .unwrap();
        let remover = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "sh"])
            .arg(made.path())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // What is sent to the tests' group, as by a terminal, is not meant for it.
            .process_group(0)
            .spawn()
            .unwrap();
        Self {
            directory: made.keep(),
            _remover: remover,
        }
    }
}
