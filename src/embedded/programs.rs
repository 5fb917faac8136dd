//! Where PostgreSQL's programs are on this machine.
//!
//! An explicit directory is the only place searched: a wrong one is an error and never replaced by a guess.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::account::Account;
use super::error::EmbeddedError;

const VARIABLE: &str = "CYKL_PG_BINDIR";

/// Where packages put a directory per major version: the parent, and what precedes the version in the name.
const INSTALLED: [(&str, &str); 4] = [
    ("/usr/lib/postgresql", ""),
    ("/usr", "pgsql-"),
    ("/opt/homebrew/opt", "postgresql@"),
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql@"),
];

/// The places to search.
#[derive(Debug)]
pub(super) struct Search {
    configured: Option<PathBuf>,
    variable: Option<PathBuf>,
    /// Absolute directories only: what runs as root must not depend on the working directory.
    path: Vec<PathBuf>,
    /// Newest major version first within each parent.
    installed: Vec<PathBuf>,
}

impl Search {
    /// `configured` wins over `$CYKL_PG_BINDIR`, which wins over `$PATH` and the packages' directories.
    pub(super) fn from_environment(configured: Option<&Path>) -> Self {
        let path = env::var_os("PATH").unwrap_or_default();
        Self {
            configured: configured.map(Path::to_path_buf),
            variable: env::var_os(VARIABLE)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from),
            path: env::split_paths(&path)
                .filter(|directory| directory.is_absolute())
                .collect(),
            installed: INSTALLED
                .into_iter()
                .flat_map(|(parent, prefix)| versions(parent, prefix))
                .collect(),
        }
    }

    /// The directory with `initdb` and `postgres`; of `cluster_major` when there is data already.
    pub(super) async fn server_programs(
        &self,
        account: &Account,
        home: &Path,
        cluster_major: Option<u32>,
    ) -> Result<PathBuf, EmbeddedError> {
        let directories = self.directories_with(&["initdb", "postgres"]);
        let Some(first) = directories.first() else {
            return Err(EmbeddedError::ProgramsMissing {
                looked_in: self.looked_in(),
            });
        };
        let Some(cluster_major) = cluster_major else {
            return Ok(first.clone());
        };
        let mut found = Vec::new();
        for directory in directories {
            let major = major_version(account, &directory.join("postgres")).await?;
            if major == Some(cluster_major) {
                return Ok(directory);
            }
            let version = major.map_or_else(
                || "an unknown version".to_owned(),
                |major| major.to_string(),
            );
            found.push(format!("{version} ({})", directory.display()));
        }
        Err(EmbeddedError::IncompatibleVersion {
            directory: home.to_path_buf(),
            cluster_major,
            found: found.join(", "),
        })
    }

    /// How to call psql in a shell: its name when it is on `$PATH` or nowhere to be found, else where it is.
    pub(super) fn psql(&self) -> OsString {
        if self
            .path
            .iter()
            .any(|directory| is_program(&directory.join("psql")))
        {
            return OsString::from("psql");
        }
        self.directories_with(&["psql"]).first().map_or_else(
            || OsString::from("psql"),
            |directory| directory.join("psql").into_os_string(),
        )
    }

    fn directories_with(&self, programs: &[&str]) -> Vec<PathBuf> {
        let candidates = match self.explicit() {
            Some(directory) => vec![directory],
            None => self.path.iter().chain(&self.installed).collect(),
        };
        candidates
            .into_iter()
            .filter(|directory| {
                programs
                    .iter()
                    .all(|program| is_program(&directory.join(program)))
            })
            .cloned()
            .collect()
    }

    fn explicit(&self) -> Option<&PathBuf> {
        self.configured.as_ref().or(self.variable.as_ref())
    }

    fn looked_in(&self) -> String {
        if let Some(directory) = &self.configured {
            return format!("{} (configured)", directory.display());
        }
        if let Some(directory) = &self.variable {
            return format!("{} (${VARIABLE})", directory.display());
        }
        let mut places = vec![format!("${VARIABLE} (not set)"), "$PATH".to_owned()];
        places.extend(INSTALLED.map(|(parent, prefix)| format!("{parent}/{prefix}*/bin")));
        places.join(", ")
    }
}

/// The `bin` directories of the versions installed side by side, newest first.
fn versions(parent: &str, prefix: &str) -> Vec<PathBuf> {
    // A parent that is absent or unreadable offers no version.
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.strip_prefix(prefix)?.to_owned();
            Some((leading_number(&version)?, entry.path().join("bin")))
        })
        .collect();
    found.sort_by(|left, right| right.cmp(left));
    found.into_iter().map(|(_, directory)| directory).collect()
}

/// `None` when the program does not run or says something unexpected.
async fn major_version(account: &Account, postgres: &Path) -> Result<Option<u32>, EmbeddedError> {
    let output = account
        .command(postgres)
        .arg("-V")
        .output()
        .await
        .map_err(|source| EmbeddedError::System {
            attempt: format!("run {} as the user {}", postgres.display(), account.name),
            source,
        })?;
    Ok(parse_version(&String::from_utf8_lossy(&output.stdout)))
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` -> 15.
fn parse_version(line: &str) -> Option<u32> {
    leading_number(line.split_once("(PostgreSQL) ")?.1)
}

/// The number a text starts with: the major version in `15`, `9.6` and `18beta1`.
pub(super) fn leading_number(text: &str) -> Option<u32> {
    let end = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    text.get(..end)?.parse().ok()
}

fn is_program(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nowhere() -> Search {
        Search {
            configured: None,
            variable: None,
            path: Vec::new(),
            installed: Vec::new(),
        }
    }

    fn directory_with(programs: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for program in programs {
            let path = directory.path().join(program);
            fs::write(&path, "#!/bin/sh\necho 'postgres (PostgreSQL) 9.6.24'\n").unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        directory
    }

    async fn search(search: &Search, cluster_major: Option<u32>) -> Result<PathBuf, EmbeddedError> {
        let home = Path::new("/srv/cykl");
        search
            .server_programs(&Account::for_home(home).unwrap(), home, cluster_major)
            .await
    }

    #[tokio::test]
    async fn missing_programs_are_explained_with_what_to_do() {
        let error = search(&nowhere(), None).await.unwrap_err();
        insta::assert_snapshot!(error, @r"
        PostgreSQL server programs (initdb, postgres) were not found, so cykl cannot start its private database.

          looked in: $CYKL_PG_BINDIR (not set), $PATH, /usr/lib/postgresql/*/bin, /usr/pgsql-*/bin, /opt/homebrew/opt/postgresql@*/bin, /home/linuxbrew/.linuxbrew/opt/postgresql@*/bin

          Do one of these, then run the same command again:
            sudo apt install postgresql            Debian, Ubuntu
            sudo dnf install postgresql-server     Fedora, RHEL
            export CYKL_PG_BINDIR=DIR              programs are elsewhere
            export CYKL__DATABASE__URL=postgres://USER@HOST/DB     use a server you have (an empty database)
        ");
    }

    #[tokio::test]
    async fn an_explicit_directory_without_the_programs_is_an_error_though_others_have_them() {
        let complete = directory_with(&["initdb", "postgres"]);
        let elsewhere = Search {
            variable: Some(PathBuf::from("/opt/pg/bin")),
            path: vec![complete.path().to_path_buf()],
            ..nowhere()
        };
        let message = search(&elsewhere, None).await.unwrap_err().to_string();
        assert!(
            message.contains("looked in: /opt/pg/bin ($CYKL_PG_BINDIR)\n"),
            "{message}"
        );
    }

    #[tokio::test]
    async fn a_directory_with_the_client_programs_alone_is_passed_over() {
        let client = directory_with(&["psql"]);
        let server = directory_with(&["initdb", "postgres"]);
        let both = Search {
            path: vec![client.path().to_path_buf()],
            installed: vec![server.path().to_path_buf()],
            ..nowhere()
        };
        assert_eq!(search(&both, None).await.unwrap(), server.path());
        assert_eq!(both.psql(), "psql");
    }

    #[tokio::test]
    async fn data_of_a_version_that_is_not_installed_is_explained() {
        let old = directory_with(&["initdb", "postgres"]);
        let only_old = Search {
            installed: vec![old.path().to_path_buf()],
            ..nowhere()
        };
        assert_eq!(search(&only_old, Some(9)).await.unwrap(), old.path());

        let message = search(&only_old, Some(15)).await.unwrap_err().to_string();
        let message = message.replace(&old.path().display().to_string(), "OLD");
        insta::assert_snapshot!(message, @r"
        the database in /srv/cykl was made by PostgreSQL 15, but only 9 (OLD) was found

          Do one of these, then run the same command again:
            install PostgreSQL 15 beside it, or set CYKL_PG_BINDIR to the directory of its programs
            move the data to the installed version with pg_upgrade, or with pg_dump and a new data directory
        ");
    }

    #[test]
    fn a_psql_that_is_not_on_the_path_is_called_by_its_full_name() {
        let packaged = directory_with(&["psql"]);
        let search = Search {
            installed: vec![packaged.path().to_path_buf()],
            ..nowhere()
        };
        assert_eq!(search.psql(), packaged.path().join("psql").into_os_string());
        assert_eq!(nowhere().psql(), "psql");
    }

    #[test]
    fn installed_versions_are_tried_newest_first() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["pgsql-9.6", "pgsql-15", "pgsql-16", "pgsql-common", "other"] {
            fs::create_dir(parent.path().join(name)).unwrap();
        }
        let expected =
            ["16", "15", "9.6"].map(|version| parent.path().join(format!("pgsql-{version}/bin")));
        assert_eq!(
            versions(parent.path().to_str().unwrap(), "pgsql-"),
            expected
        );
    }

    #[test]
    fn the_major_version_is_read_from_what_postgres_prints() {
        assert_eq!(
            parse_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"),
            Some(15)
        );
        assert_eq!(parse_version("postgres (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(parse_version("sh: not found\n"), None);
    }
}
