//! What `postmaster.pid` says about the server of a cluster. The file is PostgreSQL's: it is read, never written or removed.
//!
//! PostgreSQL, `src/include/utils/pidfile.h`: line 1 is the process id, line 5 the socket directory, line 8 the status.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// A server as its `postmaster.pid` describes it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Postmaster {
    pub(super) pid: i32,
    pub(super) socket_dir: PathBuf,
    pub(super) status: Status,
}

/// Where a server is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// Not yet ready for connections; crash recovery may be going on.
    Starting,
    /// Accepts connections.
    Ready,
    /// Will be gone soon, and the file with it.
    Stopping,
}

impl Postmaster {
    /// What the file in `cluster` says, or `None` without one. After a crash it may speak of a process long gone.
    pub(super) fn read(cluster: &Path) -> io::Result<Option<Self>> {
        match fs::read(cluster.join("postmaster.pid")) {
            Ok(content) => Ok(Self::parse(&String::from_utf8_lossy(&content))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `None` while PostgreSQL has created the file but not yet written its first line.
    fn parse(content: &str) -> Option<Self> {
        let mut lines = content.lines();
        let pid = lines.next()?.trim().parse().ok()?;
        let socket_dir = PathBuf::from(lines.nth(3).unwrap_or_default());
        let status = match lines.nth(2).unwrap_or_default().trim() {
            "ready" | "standby" => Status::Ready,
            "stopping" => Status::Stopping,
            _ => Status::Starting,
        };
        Some(Self {
            pid,
            socket_dir,
            status,
        })
    }

    /// Whether a process with this id exists. It may be an unrelated one when the file is stale.
    pub(super) fn process_exists(&self) -> bool {
        kill(Pid::from_raw(self.pid), None) != Err(Errno::ESRCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: &str = "4711\n/srv/db/data\n1790000000\n5432\n/srv/db\n\n  123 4\nready   \n";

    #[test]
    fn a_ready_server_is_read_from_its_file() {
        let expected = Postmaster {
            pid: 4711,
            socket_dir: PathBuf::from("/srv/db"),
            status: Status::Ready,
        };
        assert_eq!(Postmaster::parse(READY), Some(expected));
    }

    #[test]
    fn a_file_without_a_status_line_is_of_a_server_that_starts() {
        let postmaster = Postmaster::parse("4711\n/srv/db/data\n1790000000\n5432\n").unwrap();
        assert_eq!(postmaster.status, Status::Starting);
    }

    #[test]
    fn a_server_that_shuts_down_is_not_ready() {
        let postmaster = Postmaster::parse(&READY.replace("ready   ", "stopping")).unwrap();
        assert_eq!(postmaster.status, Status::Stopping);
    }

    #[test]
    fn an_empty_file_says_nothing() {
        assert_eq!(Postmaster::parse(""), None);
    }

    #[test]
    fn a_cluster_without_the_file_has_no_server() {
        let cluster = tempfile::tempdir().unwrap();
        assert_eq!(Postmaster::read(cluster.path()).unwrap(), None);
    }
}
