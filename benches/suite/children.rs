//! The child processes: `cykl simulator`, `cykl run`, and this program itself as a bare HTTP loop.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::processes;

/// The program under test, built with the same profile as this one.
pub const CYKL: &str = env!("CARGO_BIN_EXE_cykl");

/// How long a child may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(120);

/// Lets this process and its children have as many files open as the system allows: thousands of calls are in flight at once.
pub fn raise_file_limit() -> anyhow::Result<()> {
    let (_, most) =
        getrlimit(Resource::RLIMIT_NOFILE).context("couldn't read the limit of files")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("couldn't raise the limit of files")
}

/// A port of the loopback interface that nobody used a moment ago.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .context("couldn't find a free port")
}

/// A process that is killed when this value is dropped.
pub struct Process {
    child: Child,
    pid: i32,
}

impl Process {
    /// Starts a program with an empty environment, and its output piped.
    pub fn spawn(program: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let child = command
            .spawn()
            .with_context(|| format!("couldn't start {}", program.display()))?;
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

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill(Pid::from_raw(self.pid), signal).context("couldn't signal a child")
    }

    /// What it prints, once.
    pub fn output(&mut self) -> anyhow::Result<BufReader<ChildStdout>> {
        let stdout = self.child.stdout.take().context("stdout is piped once")?;
        Ok(BufReader::new(stdout))
    }

    /// Waits for its end.
    pub async fn wait(&mut self) -> anyhow::Result<()> {
        let status = self
            .child
            .wait()
            .await
            .context("couldn't wait for a child")?;
        ensure!(status.success(), "the child failed: {status}");
        Ok(())
    }

    /// Asks the process to end and waits for that.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGTERM)?;
        timeout(PATIENCE, self.wait())
            .await
            .context("the child does not end")?
    }
}

/// Starts `cykl run` with a configuration file.
pub fn start_daemon(config: &Path) -> anyhow::Result<Process> {
    let config = config.to_str().context("the path is not UTF-8")?;
    Process::spawn(Path::new(CYKL), &["run", "--config", config])
}

/// What the simulator does with every debit.
#[derive(Debug, Clone, Copy, Default)]
pub struct Script {
    /// It answers that the debit is pending; it settles two seconds later, and one notice says so. Otherwise the answer says settled.
    pub settles_later: bool,
    /// How long it thinks before it answers, in milliseconds.
    pub answer_after_ms: u32,
}

impl Script {
    fn toml(self) -> String {
        let fate = if self.settles_later {
            "fate = { settle_after = \"2s\" }\nnotices = { final_only = true }\n"
        } else {
            "fate = \"settle_at_once\"\n"
        };
        let after = match self.answer_after_ms {
            0 => String::new(),
            after => format!("answer_after = \"{after}ms\"\n"),
        };
        format!("[default]\n{fate}{after}")
    }
}

/// The public name of the daemon, which the simulator finds on this machine.
pub const PUBLIC_NAME: &str = "billing.example.test";

/// `cykl simulator`.
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
    /// Starts the simulator on a free port. Notices go to `daemon`, when it is given.
    pub async fn start(
        directory: &Path,
        script: Script,
        daemon: Option<SocketAddr>,
    ) -> anyhow::Result<Self> {
        let file = directory.join("simulator.toml");
        std::fs::write(&file, script.toml())
            .with_context(|| format!("couldn't write {}", file.display()))?;
        let file = file.to_str().context("the path is not UTF-8")?;
        let mut arguments = vec!["simulator", "--listen", "127.0.0.1:0", "--script", file];
        let resolve = daemon.map(|address| format!("{PUBLIC_NAME}={address}"));
        if let Some(resolve) = &resolve {
            arguments.extend(["--resolve", resolve]);
        }
        let mut process = Process::spawn(Path::new(CYKL), &arguments)?;
        let mut output = process.output()?;
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
