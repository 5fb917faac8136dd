//! The two child processes: `cykl simulator` and `cykl run`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::processes;

/// The program under test, built with the same profile as this one.
const CYKL: &str = env!("CARGO_BIN_EXE_cykl");

/// How long a child may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(120);

/// A process that is killed when this value is dropped.
pub struct Process {
    child: Child,
    pid: i32,
}

impl Process {
    fn spawn(arguments: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(CYKL);
        command
            .args(arguments)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let child = command
            .spawn()
            .with_context(|| format!("couldn't start {CYKL}"))?;
        let pid = child.id().context("the child ended at once")?;
        Ok(Self {
            child,
            pid: i32::try_from(pid).context("a process id is positive")?,
        })
    }

    /// CPU time so far.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        processes::cpu_of(self.pid)
    }

    /// The most memory resident so far, in KiB.
    pub fn peak_rss_kib(&self) -> anyhow::Result<u64> {
        processes::peak_rss_kib(self.pid)
    }

    /// Fails when the process has ended by itself.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self
            .child
            .try_wait()
            .context("couldn't look after a child")?
        {
            Some(status) => bail!("the child ended too early: {status}"),
            None => Ok(()),
        }
    }

    /// Asks the process to end and waits for that.
    async fn stop(&mut self) -> anyhow::Result<()> {
        kill(Pid::from_raw(self.pid), Signal::SIGTERM).context("couldn't signal a child")?;
        let status = timeout(PATIENCE, self.child.wait())
            .await
            .context("the child does not end")?
            .context("couldn't wait for a child")?;
        ensure!(status.success(), "the child failed: {status}");
        Ok(())
    }
}

/// `cykl run`.
pub struct Daemon(Process);

impl Daemon {
    /// Starts the daemon with a configuration file.
    pub fn start(config: &Path) -> anyhow::Result<Self> {
        let config = config.to_str().context("the path is not UTF-8")?;
        Ok(Self(Process::spawn(&["run", "--config", config])?))
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.0
    }

    /// Lets it drain and end.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.0.stop().await.context("cykl run")
    }
}

/// `cykl simulator`, whose every debit settles at once.
pub struct Gateway {
    process: Process,
    output: BufReader<ChildStdout>,
    base_url: String,
}

/// What the simulator says when it ends.
pub struct Ledger {
    /// Transactions by status.
    pub transactions: BTreeMap<String, u64>,
    /// Whether no order id was debited twice.
    pub is_each_order_debited_once: bool,
}

impl Gateway {
    /// Starts the simulator on a free port.
    pub async fn start(directory: &Path) -> anyhow::Result<Self> {
        let script = directory.join("simulator.toml");
        std::fs::write(&script, "[default]\nfate = \"settle_at_once\"\n")
            .with_context(|| format!("couldn't write {}", script.display()))?;
        let script = script.to_str().context("the path is not UTF-8")?;
        let arguments = ["simulator", "--listen", "127.0.0.1:0", "--script", script];
        let mut process = Process::spawn(&arguments)?;
        let stdout = process.child.stdout.take().context("stdout is piped")?;
        let mut output = BufReader::new(stdout);
        let base_url = timeout(PATIENCE, read_base_url(&mut output))
            .await
            .context("the simulator does not start")??;
        Ok(Self {
            process,
            output,
            base_url,
        })
    }

    /// The address of its API, up to and without the merchant.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Ends it and reads its ledger.
    pub async fn stop(mut self) -> anyhow::Result<Ledger> {
        let mut text = String::new();
        let (stopped, read) =
            tokio::join!(self.process.stop(), self.output.read_to_string(&mut text));
        stopped.context("cykl simulator")?;
        read.context("couldn't read the simulator's ledger")?;
        Ok(Ledger {
            transactions: text.lines().filter_map(status_line).collect(),
            is_each_order_debited_once: text.contains("no order id was debited twice"),
        })
    }
}

/// Reads the block of configuration that the simulator prints when it listens, to its end.
async fn read_base_url(output: &mut BufReader<ChildStdout>) -> anyhow::Result<String> {
    let mut base_url = None;
    loop {
        let mut line = String::new();
        let length = output
            .read_line(&mut line)
            .await
            .context("couldn't read the simulator's output")?;
        ensure!(length > 0, "the simulator ended before it listened");
        if let Some(value) = line.trim().strip_prefix("base_url = ") {
            base_url = Some(value.trim_matches('"').to_owned());
        }
        if line.contains("Ctrl-C") {
            return base_url.context("the simulator names no base_url");
        }
    }
}

/// A line of the ledger like `50000   settled`.
fn status_line(line: &str) -> Option<(String, u64)> {
    let mut words = line.split_whitespace();
    let (count, status, rest) = (words.next()?, words.next()?, words.next());
    let is_status = rest.is_none() && status != "transactions";
    Some((status.to_owned(), count.parse().ok()?)).filter(|_| is_status)
}
