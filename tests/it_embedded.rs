//! The embedded database on the PostgreSQL programs of this machine, with real processes and real signals.
//!
//! As root, everything also runs as an ordinary user (`nobody`); without root those tests have nothing to add and pass.

#![allow(clippy::unwrap_used, reason = "a failed set-up should panic")]

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cykl::embedded::{EmbeddedConfig, EmbeddedDatabase, EmbeddedError};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, Uid, User, getpgid};
use sqlx::{ConnectOptions, Connection, PgConnection};
use tempfile::TempDir;

const HOME_VARIABLE: &str = "CYKL_TEST_HOME";
const WAIT_MAX: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_new_directory_becomes_a_database_that_answers() {
    let scratch = scratch();
    let database = EmbeddedDatabase::start(config(&scratch.path().join("made/on/the/way")))
        .await
        .unwrap();
    assert!(!database.was_running());
    assert_eq!(setting(&database, "TimeZone").await, "UTC");
    assert_eq!(setting(&database, "server_encoding").await, "UTF8");
    assert_eq!(setting(&database, "data_checksums").await, "on");
    assert_eq!(setting(&database, "listen_addresses").await, "");
    database.stop().await.unwrap();
}

#[tokio::test]
async fn data_survives_stop_and_start() {
    let scratch = scratch();
    let home = scratch.path().join("db");

    let database = EmbeddedDatabase::start(config(&home)).await.unwrap();
    database.ensure_database("cykl").await.unwrap();
    remember(&database, "kept").await;
    database.stop().await.unwrap();

    let database = EmbeddedDatabase::start(config(&home)).await.unwrap();
    assert!(!database.was_running());
    assert_eq!(remembered(&database).await, ["kept"]);
    database.stop().await.unwrap();
}

#[tokio::test]
async fn stopping_leaves_no_process_behind() {
    let scratch = scratch();
    let home = scratch.path().join("db");
    let database = EmbeddedDatabase::start(config(&home)).await.unwrap();
    let group = getpgid(Some(postmaster(&home).unwrap())).unwrap();
    assert_ne!(
        group,
        getpgid(None).unwrap(),
        "Ctrl-C in a terminal must not reach PostgreSQL"
    );
    database.stop().await.unwrap();
    assert_eq!(killpg(group, None), Err(Errno::ESRCH));
}

#[tokio::test]
async fn dropping_the_database_stops_its_server() {
    let scratch = scratch();
    let home = scratch.path().join("db");
    let database = EmbeddedDatabase::start(config(&home)).await.unwrap();
    drop(database);
    eventually("the server stops", || postmaster(&home).is_none()).await;
}

#[tokio::test]
async fn a_second_start_uses_the_running_server_and_does_not_stop_it() {
    let scratch = scratch();
    let home = scratch.path().join("db");
    let owner = EmbeddedDatabase::start(config(&home)).await.unwrap();
    owner.ensure_database("cykl").await.unwrap();

    let guest = EmbeddedDatabase::start(config(&home)).await.unwrap();
    assert!(guest.was_running());
    assert_eq!(guest.socket_dir(), owner.socket_dir());
    remember(&guest, "by the guest").await;
    guest.stop().await.unwrap();

    assert_eq!(remembered(&owner).await, ["by the guest"]);
    owner.stop().await.unwrap();
}

#[tokio::test]
async fn of_several_simultaneous_starts_one_owns_the_server() {
    let scratch = scratch();
    let home = scratch.path().join("db");
    let start = || EmbeddedDatabase::start(config(&home));
    let mut other_process = start_elsewhere(&home, None);
    let (first, second, third) = tokio::join!(start(), start(), start());
    let databases = [first.unwrap(), second.unwrap(), third.unwrap()];
    let is_owner_elsewhere = wait_until_ready(&mut other_process).unwrap() == Role::Owner;
    let owners_here = databases
        .iter()
        .filter(|database| !database.was_running())
        .count();
    assert_eq!(owners_here + usize::from(is_owner_elsewhere), 1);

    for database in &databases {
        database.ensure_database("cykl").await.unwrap();
    }
    end(other_process);
    drop(databases);
    eventually("the server stops", || postmaster(&home).is_none()).await;
}

#[tokio::test]
async fn the_server_stops_cleanly_when_its_owner_is_killed() {
    let scratch = scratch();
    let home = scratch.path().join("db");
    let mut owner = start_elsewhere(&home, None);
    wait_until_ready(&mut owner).unwrap();
    let guest = EmbeddedDatabase::start(config(&home)).await.unwrap();
    assert!(guest.was_running());
    remember(&guest, "committed before the kill").await;
    let group = getpgid(Some(postmaster(&home).unwrap())).unwrap();

    end(owner);
    eventually("the server stops", || postmaster(&home).is_none()).await;
    eventually("its supervisor ends", || is_gone(group)).await;
    assert!(
        log(&home).contains("database system is shut down"),
        "{}",
        log(&home)
    );

    let database = EmbeddedDatabase::start(config(&home)).await.unwrap();
    assert!(!database.was_running());
    assert_eq!(remembered(&database).await, ["committed before the kill"]);
    assert!(
        !log(&home).contains("recovery"),
        "the shutdown was not clean: {}",
        log(&home)
    );
    database.stop().await.unwrap();
}

#[tokio::test]
async fn an_owner_killed_while_it_starts_leaves_a_directory_that_can_be_started() {
    let scratch = scratch();
    let home = scratch.path().join("db");
    let initdb_works = || {
        let mut entries = fs::read_dir(&home)
            .into_iter()
            .flatten()
            .map(Result::unwrap);
        entries.any(|entry| entry.path().join("PG_VERSION").exists())
    };
    let postgres_starts = || postmaster(&home).is_some();
    let stages: [&dyn Fn() -> bool; 2] = [&initdb_works, &postgres_starts];
    for stage in stages {
        let owner = start_elsewhere(&home, None);
        eventually("the owner is busy", stage).await;
        end(owner);
    }
    let database = EmbeddedDatabase::start(config(&home)).await.unwrap();
    assert_eq!(setting(&database, "data_checksums").await, "on");
    database.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_crashes_ends_its_supervisor_and_recovers_at_the_next_start() {
    let scratch = scratch();
    let home = scratch.path().join("db");
    let durable = EmbeddedConfig {
        durable: true,
        ..config(&home)
    };
    let database = EmbeddedDatabase::start(durable).await.unwrap();
    database.ensure_database("cykl").await.unwrap();
    remember(&database, "kept").await;
    let server = postmaster(&home).unwrap();
    let group = getpgid(Some(server)).unwrap();

    kill(server, Signal::SIGKILL).unwrap();
    eventually("PostgreSQL ends", || {
        kill(server, None) == Err(Errno::ESRCH)
    })
    .await;
    let error = database.stop().await.unwrap_err();
    assert!(matches!(error, EmbeddedError::StopFailed { .. }), "{error}");
    assert_eq!(killpg(group, None), Err(Errno::ESRCH));

    let database = start_after_crash(&home).await;
    assert_eq!(remembered(&database).await, ["kept"]);
    database.stop().await.unwrap();
}

#[tokio::test]
async fn a_setting_that_postgresql_refuses_is_explained_with_its_log() {
    let scratch = scratch();
    let home = scratch.path().join("db");
    let mut refused = config(&home);
    refused.settings = vec![("no_such_setting".to_owned(), "1".to_owned())];
    let error = EmbeddedDatabase::start(refused).await.unwrap_err();
    assert!(
        matches!(error, EmbeddedError::StartFailed { .. }),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("unrecognized configuration parameter"),
        "{error}"
    );

    let mut accepted = config(&home);
    accepted.settings = vec![("work_mem".to_owned(), "7MB".to_owned())];
    let database = EmbeddedDatabase::start(accepted).await.unwrap();
    assert_eq!(setting(&database, "work_mem").await, "7MB");
    assert_eq!(setting(&database, "fsync").await, "off");
    database.stop().await.unwrap();
}

#[tokio::test]
async fn data_that_shall_last_is_synced() {
    let scratch = scratch();
    let home = scratch.path().join("db");
    let database = EmbeddedDatabase::start(EmbeddedConfig {
        durable: true,
        ..config(&home)
    })
    .await
    .unwrap();
    for name in ["fsync", "synchronous_commit", "full_page_writes"] {
        assert_eq!(setting(&database, name).await, "on", "{name}");
    }
    database.stop().await.unwrap();
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_gets_one_in_a_shorter_private_directory() {
    let scratch = scratch();
    let home = scratch.path().join("long".repeat(30));
    let owner = EmbeddedDatabase::start(config(&home)).await.unwrap();
    assert!(!owner.socket_dir().starts_with(&home));
    assert_eq!(
        owner.socket_dir().metadata().unwrap().permissions().mode() & 0o777,
        0o700
    );

    let guest = EmbeddedDatabase::start(config(&home)).await.unwrap();
    assert!(guest.was_running());
    assert_eq!(setting(&guest, "fsync").await, "off");
    let socket_dir = owner.socket_dir().to_path_buf();
    owner.stop().await.unwrap();
    fs::remove_dir(socket_dir).unwrap();
}

#[tokio::test]
async fn a_path_with_spaces_and_quotes_works_and_the_psql_line_survives_the_shell() {
    let scratch = scratch();
    let database = EmbeddedDatabase::start(config(&scratch.path().join("it's, a \"test\" $HOME")))
        .await
        .unwrap();
    let line = format!(
        "{} -Atc 'SELECT current_user, current_database()'",
        database.psql_line("postgres")
    );
    let output = Command::new("/bin/sh")
        .args(["-c", &line])
        .env_remove("PGPORT")
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "cykl|postgres\n",
        "{line}\n{output:?}"
    );
    // A comma separates hosts for libpq, so the socket cannot be in a directory with one.
    let socket_dir = database.socket_dir().to_path_buf();
    database.stop().await.unwrap();
    fs::remove_dir(socket_dir).unwrap();
}

#[tokio::test]
async fn a_missing_database_is_created_once_and_its_name_is_taken_literally() {
    let scratch = scratch();
    let database = EmbeddedDatabase::start(config(&scratch.path().join("db")))
        .await
        .unwrap();
    for name in ["cykl", "cykl", r#"Odd "name""#] {
        database.ensure_database(name).await.unwrap();
        let mut connection = connect(&database, name).await;
        let current: String = sqlx::query_scalar("SELECT current_database()::text")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(current, name);
        connection.close().await.unwrap();
    }
    database.stop().await.unwrap();
}

#[tokio::test]
async fn a_directory_with_other_files_is_refused_and_left_alone() {
    let scratch = scratch();
    let home = scratch.path().join("photos");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("cat.jpg"), "meow").unwrap();
    let error = EmbeddedDatabase::start(config(&home)).await.unwrap_err();
    let EmbeddedError::DirectoryUnusable { directory, reason } = error else {
        panic!("{error}")
    };
    assert_eq!(directory, home);
    insta::assert_snapshot!(reason, @"it is not empty and not a data directory of cykl: choose an empty or a new one");
    assert_eq!(fs::read_dir(&home).unwrap().count(), 1);
}

#[tokio::test]
async fn data_of_another_major_version_is_refused_with_what_to_do() {
    let scratch = scratch();
    let home = scratch.path().join("db");
    EmbeddedDatabase::start(config(&home))
        .await
        .unwrap()
        .stop()
        .await
        .unwrap();
    fs::write(home.join("data/PG_VERSION"), "9.6\n").unwrap();
    let error = EmbeddedDatabase::start(config(&home)).await.unwrap_err();
    assert!(
        matches!(
            error,
            EmbeddedError::IncompatibleVersion {
                cluster_major: 9,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn root_is_told_which_directory_the_other_user_cannot_enter() {
    if !Uid::effective().is_root() {
        return;
    }
    let scratch = scratch();
    fs::set_permissions(scratch.path(), Permissions::from_mode(0o700)).unwrap();
    let error = EmbeddedDatabase::start(config(&scratch.path().join("not/made")))
        .await
        .unwrap_err();
    let EmbeddedError::DirectoryUnusable { directory, reason } = error else {
        panic!("{error}")
    };
    assert_eq!(directory, scratch.path());
    let reason = reason.replace(scratch.path().to_str().unwrap(), "CLOSED");
    insta::assert_snapshot!(reason, @"PostgreSQL refuses to run as root, so it runs as the user postgres, who cannot enter this directory on the way to CLOSED/not/made: choose another data directory (database.data_dir), or open this one with chmod o+x");
    assert_eq!(
        fs::read_dir(scratch.path()).unwrap().count(),
        0,
        "nothing may be created on the way"
    );
}

#[tokio::test]
async fn an_ordinary_user_starts_a_database_that_root_can_take_up() {
    if !Uid::effective().is_root() {
        return;
    }
    let scratch = scratch();
    let nobody = User::from_name("nobody").unwrap().unwrap().uid;
    let private = scratch.path().join("private");
    fs::create_dir(&private).unwrap();
    fs::set_permissions(&private, Permissions::from_mode(0o755)).unwrap();
    chown(&private, Some(nobody.as_raw()), None).unwrap();
    let home = private.join("db");

    let mut owner = start_elsewhere(&home, Some((nobody, scratch.path())));
    wait_until_ready(&mut owner).unwrap();
    let guest = EmbeddedDatabase::start(config(&home)).await.unwrap();
    assert!(guest.was_running());
    remember(&guest, "kept").await;
    end(owner);
    eventually("the server stops", || postmaster(&home).is_none()).await;

    let database = EmbeddedDatabase::start(config(&home)).await.unwrap();
    assert!(!database.was_running());
    assert_eq!(remembered(&database).await, ["kept"]);
    database.stop().await.unwrap();
}

#[tokio::test]
async fn a_stranger_is_told_whose_the_directory_is() {
    if !Uid::effective().is_root() {
        return;
    }
    let scratch = scratch();
    let home = scratch.path().join("db");
    let database = EmbeddedDatabase::start(config(&home)).await.unwrap();
    let owner = User::from_name("postgres")
        .unwrap()
        .map_or("nobody", |_| "postgres");
    let stranger = User::from_name("daemon").unwrap().unwrap().uid;
    let mut refused = start_elsewhere(&home, Some((stranger, scratch.path())));
    let message = wait_until_ready(&mut refused).unwrap_err();
    assert!(
        message.contains(&format!("it belongs to {owner}, not to daemon")),
        "{message}"
    );
    end(refused);
    database.stop().await.unwrap();
}

#[tokio::test]
async fn a_user_without_a_name_is_told_so() {
    if !Uid::effective().is_root() {
        return;
    }
    let scratch = scratch();
    fs::set_permissions(scratch.path(), Permissions::from_mode(0o777)).unwrap();
    let nameless = Some((Uid::from_raw(424_242), scratch.path()));
    let mut refused = start_elsewhere(&scratch.path().join("db"), nameless);
    let message = wait_until_ready(&mut refused).unwrap_err();
    assert!(
        message.contains("uid 424242 has no entry in the user database"),
        "{message}"
    );
    end(refused);
}

/// Not a test of its own: other tests run it in a process of its own.
#[tokio::test]
#[ignore = "run by other tests in a process of its own"]
async fn holds_a_database_until_it_is_killed() {
    let home = PathBuf::from(std::env::var_os(HOME_VARIABLE).unwrap());
    match EmbeddedDatabase::start(config(&home)).await {
        Ok(database) => {
            database.ensure_database("cykl").await.unwrap();
            let role = if database.was_running() {
                "guest"
            } else {
                "owner"
            };
            println!("\nready as {role}");
            std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
            drop(database);
        }
        Err(error) => println!("\nrefused: {}", error.to_string().replace('\n', " ")),
    }
}

/// A directory that every user can enter, as PostgreSQL may run as another one.
fn scratch() -> TempDir {
    let scratch = tempfile::tempdir().unwrap();
    fs::set_permissions(scratch.path(), Permissions::from_mode(0o755)).unwrap();
    scratch
}

fn config(home: &Path) -> EmbeddedConfig {
    EmbeddedConfig {
        data_dir: home.to_path_buf(),
        bin_dir: None,
        durable: false,
        settings: Vec::new(),
    }
}

/// PostgreSQL refuses to start while a child of the crashed server still notices that it is an orphan.
async fn start_after_crash(home: &Path) -> EmbeddedDatabase {
    let started = Instant::now();
    loop {
        match EmbeddedDatabase::start(config(home)).await {
            Ok(database) => return database,
            Err(error) => assert!(started.elapsed() < WAIT_MAX, "{error}"),
        }
    }
}

async fn connect(database: &EmbeddedDatabase, name: &str) -> PgConnection {
    database.connect_options(name).connect().await.unwrap()
}

async fn setting(database: &EmbeddedDatabase, name: &str) -> String {
    let mut connection = connect(database, "postgres").await;
    let value = sqlx::query_scalar("SELECT current_setting($1)")
        .bind(name)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    value
}

async fn remember(database: &EmbeddedDatabase, text: &str) {
    let mut connection = connect(database, "cykl").await;
    sqlx::query("CREATE TABLE memory (text text)")
        .execute(&mut connection)
        .await
        .unwrap();
    sqlx::query("INSERT INTO memory VALUES ($1)")
        .bind(text)
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

async fn remembered(database: &EmbeddedDatabase) -> Vec<String> {
    let mut connection = connect(database, "cykl").await;
    let texts = sqlx::query_scalar("SELECT text FROM memory")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    texts
}

/// The process that `postmaster.pid` names.
fn postmaster(home: &Path) -> Option<Pid> {
    let content = fs::read_to_string(home.join("data/postmaster.pid")).ok()?;
    Some(Pid::from_raw(content.lines().next()?.parse().ok()?))
}

fn log(home: &Path) -> String {
    fs::read_to_string(home.join("postgres.log")).unwrap()
}

fn is_gone(group: Pid) -> bool {
    killpg(group, None) == Err(Errno::ESRCH)
}

/// A process of its own that starts the database; as another user from a copy that this user can reach.
fn start_elsewhere(home: &Path, user: Option<(Uid, &Path)>) -> Child {
    let mut program = std::env::current_exe().unwrap();
    if let Some((_, reachable)) = user {
        let copy = reachable.join("tests");
        fs::copy(&program, &copy).unwrap();
        program = copy;
    }
    let mut command = Command::new(program);
    command
        .args([
            "--ignored",
            "--exact",
            "--nocapture",
            "holds_a_database_until_it_is_killed",
        ])
        .env(HOME_VARIABLE, home)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    if let Some((uid, _)) = user {
        command.uid(uid.as_raw()).gid(uid.as_raw());
    }
    // The copy is open for writing for as long as a process that another test has just begun has not yet become its program.
    let since = Instant::now();
    loop {
        match command.spawn() {
            Err(error)
                if error.kind() == ErrorKind::ExecutableFileBusy
                    && since.elapsed() < Duration::from_secs(10) =>
            {
                std::thread::yield_now();
            }
            spawned => return spawned.unwrap(),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Role {
    Owner,
    Guest,
}

/// `Err` with the message when the process could not start the database.
fn wait_until_ready(process: &mut Child) -> Result<Role, String> {
    let lines = BufReader::new(process.stdout.as_mut().unwrap())
        .lines()
        .map(Result::unwrap);
    for line in lines {
        match line.as_str() {
            "ready as owner" => return Ok(Role::Owner),
            "ready as guest" => return Ok(Role::Guest),
            _ => {}
        }
        if let Some(message) = line.strip_prefix("refused: ") {
            return Err(message.to_owned());
        }
    }
    panic!("the process ended without a word");
}

/// `kill -9`, so that none of its own code can tidy up.
fn end(mut process: Child) {
    process.kill().unwrap();
    process.wait().unwrap();
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < WAIT_MAX, "gave up waiting: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
