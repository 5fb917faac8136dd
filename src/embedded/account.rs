//! The user that runs PostgreSQL, and the clean surroundings its programs start in.
//!
//! PostgreSQL refuses to run as root, so root hands the cluster to another user; everybody else runs it as themselves.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;

use nix::unistd::{Uid, User};
use tokio::process::Command;

use super::error::EmbeddedError;

/// Whom root hands the cluster to, in order of preference. `nobody` exists on every system.
const ACCOUNTS_FOR_ROOT: [&str; 2] = ["postgres", "nobody"];

/// The user that owns the cluster and runs its programs.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// We are root and this is somebody else.
    pub(super) is_handed_over: bool,
}

impl Account {
    /// Ourselves; for root the owner of `home` when that is somebody else, then `postgres`, then `nobody`.
    pub(super) fn for_home(home: &Path) -> Result<Self, EmbeddedError> {
        let uid = Uid::effective();
        if !uid.is_root() {
            return Self::of_uid(uid, false);
        }
        // A directory that does not exist or cannot be read has no owner to respect; preparing it reports why.
        match home.metadata().map(|metadata| metadata.uid()) {
            Ok(owner) if owner != uid.as_raw() => Self::of_uid(Uid::from_raw(owner), true),
            Ok(_) | Err(_) => ACCOUNTS_FOR_ROOT
                .into_iter()
                .find_map(|name| User::from_name(name).ok().flatten())
                .map(|user| Self::of_user(user, true))
                .ok_or(EmbeddedError::NoUserForRoot),
        }
    }

    fn of_uid(uid: Uid, is_handed_over: bool) -> Result<Self, EmbeddedError> {
        // An error of the user database and a missing entry are the same to initdb: it cannot name the user.
        User::from_uid(uid)
            .ok()
            .flatten()
            .map(|user| Self::of_user(user, is_handed_over))
            .ok_or(EmbeddedError::NoUser { uid: uid.as_raw() })
    }

    fn of_user(user: User, is_handed_over: bool) -> Self {
        Self {
            name: user.name,
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            is_handed_over,
        }
    }

    /// `program` as this user, with nothing of our environment, in its own process group, so that Ctrl-C in a terminal
    /// reaches Cykl alone.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("TZ", "UTC")
            .env("LC_ALL", "C.UTF-8")
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::null());
        if self.is_handed_over {
            // The standard library also drops root's supplementary groups.
            command.uid(self.uid).gid(self.gid);
        }
        command
    }
}

/// How to speak of the user with this id.
pub(super) fn user_name(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => format!("uid {uid}"),
    }
}
