//! Child processes that never outlive us.
//!
//! A small shell script (`supervise.sh`) starts the program and holds the read end of a pipe whose only write end is
//! ours. When this process ends, by whatever means, the kernel closes the write end and the script asks the program to
//! stop. Unlike `PR_SET_PDEATHSIG` this needs no unsafe code and does not depend on which thread spawned the program.
//! Arguments travel as arguments and are never spliced into the script.

use std::ffi::OsStr;
use std::io::{self, PipeWriter};
use std::path::Path;
use std::process::{ExitStatus, Output, Stdio};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

use super::account::Account;

const SCRIPT: &str = include_str!("supervise.sh");

/// A program that runs until it ends by itself, or until this value is dropped or our process ends.
#[derive(Debug)]
pub(super) struct Supervised {
    supervisor: Child,
    program_pid: i32,
    /// Nothing is ever written. Closing it, which also happens when we are killed, asks the program to stop.
    lifeline: PipeWriter,
}

impl Supervised {
    /// Starts `program`. Its output goes to the new file `log`, which the account creates, or else to [`Self::output`].
    pub(super) async fn spawn<Argument: AsRef<OsStr>>(
        account: &Account,
        log: Option<&Path>,
        program: &Path,
        arguments: &[Argument],
    ) -> io::Result<Self> {
        // Both ends are close-on-exec: no other child of ours can keep the pipe open.
        let (pipe_end, lifeline) = io::pipe()?;
        let mut supervisor = account
            .command(Path::new("/bin/sh"))
            .args(["-c", SCRIPT, "cykl-supervise"])
            .arg(log.unwrap_or(Path::new("")))
            .arg(program)
            .args(arguments)
            .stdin(pipe_end)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;

        let mut program_pid = String::new();
        if let Some(stdout) = supervisor.stdout.take() {
            BufReader::new(stdout).read_line(&mut program_pid).await?;
        }
        let Ok(program_pid) = program_pid.trim_end().parse() else {
            // The script ended before it started the program: the log could not be created, for one.
            let output = supervisor.wait_with_output().await?;
            let complaint = String::from_utf8_lossy(&output.stderr);
            return Err(io::Error::other(complaint.trim_end().to_owned()));
        };
        if log.is_some() {
            drop(supervisor.stderr.take());
        }
        Ok(Self {
            supervisor,
            program_pid,
            lifeline,
        })
    }

    /// The process id of the program itself.
    pub(super) fn program_pid(&self) -> i32 {
        self.program_pid
    }

    /// The program's exit status, if it has ended by itself.
    pub(super) fn exit_status(&mut self) -> io::Result<Option<ExitStatus>> {
        self.supervisor.try_wait()
    }

    /// Waits for the program to end by itself; what it printed is in `stderr`.
    pub(super) async fn output(self) -> io::Result<Output> {
        let Self {
            supervisor,
            lifeline,
            ..
        } = self;
        let output = supervisor.wait_with_output().await;
        drop(lifeline);
        output
    }

    /// Asks the program to stop and waits until it has.
    pub(super) async fn stop(self) -> io::Result<ExitStatus> {
        let Self {
            mut supervisor,
            lifeline,
            ..
        } = self;
        drop(lifeline);
        supervisor.wait().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        Account::for_home(Path::new("/nonexistent")).unwrap()
    }

    #[tokio::test]
    async fn arguments_reach_the_program_as_they_are() {
        let arguments = [
            "-c",
            r#"printf '[%s]' "$@"; exit 3"#,
            "sh",
            "$(id)",
            "'; exit",
            "",
        ];
        let program = Supervised::spawn(&account(), None, Path::new("/bin/sh"), &arguments)
            .await
            .unwrap();
        let output = program.output().await.unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stderr),
            "[$(id)]['; exit][]"
        );
        assert_eq!(output.status.code(), Some(3));
    }

    #[tokio::test]
    async fn a_program_that_would_run_forever_stops_when_asked() {
        let program = Supervised::spawn(&account(), None, Path::new("/bin/sleep"), &["3600"])
            .await
            .unwrap();
        let status = program.stop().await.unwrap();
        assert_eq!(status.code(), Some(128 + 15), "by SIGTERM");
    }

    #[tokio::test]
    async fn a_log_that_cannot_be_created_is_named() {
        let log = Some(Path::new("/nonexistent/log"));
        let error = Supervised::spawn(&account(), log, Path::new("/bin/sleep"), &["0"])
            .await
            .unwrap_err();
        assert!(error.to_string().contains("/nonexistent/log"), "{error}");
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let program =
            Supervised::spawn(&account(), None, Path::new("/nonexistent/program"), &["0"])
                .await
                .unwrap();
        let output = program.output().await.unwrap();
        assert_eq!(output.status.code(), Some(127));
        assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent/program"));
    }
}
