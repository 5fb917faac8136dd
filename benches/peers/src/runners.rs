//! The programs that work on the jobs, and what is said to them.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use cykl_bench_peers::{Assignment, Counts, Message};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::plans::Program;

/// Where `node/` and `node_modules/` are.
const FOLDER: &str = env!("CARGO_MANIFEST_DIR");

/// The oldest Node for which all the packages are made, as major and minor version.
const NODE_VERSION_MIN: (u32, u32) = (22, 19);

/// How long a runner may take to count and to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program that works on jobs. It is killed when this value is dropped.
pub struct Runner {
    child: Child,
    pid: i32,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Runner {
    /// Starts the program with what it has to do.
    pub fn start(program: Program, assignment: &Assignment) -> anyhow::Result<Self> {
        let mut command = command(program)?;
        let text = serde_json::to_string(assignment).context("an assignment is JSON")?;
        let mut child = command
            .arg(text)
            .current_dir(FOLDER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("couldn't start {:?}", command.as_std().get_program()))?;
        let pid = child.id().context("the runner ended at once")?;
        let input = child.stdin.take().context("stdin is piped")?;
        let output = child.stdout.take().context("stdout is piped")?;
        Ok(Self {
            child,
            pid: i32::try_from(pid).context("a process id is positive")?,
            input,
            output: BufReader::new(output).lines(),
        })
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits until it has ended by itself.
    pub async fn wait(mut self) -> anyhow::Result<()> {
        let status = self
            .child
            .wait()
            .await
            .context("couldn't wait for a runner")?;
        ensure!(status.success(), "the runner failed: {status}");
        Ok(())
    }

    /// Waits until it has only to be told to begin.
    pub async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        self.expect(Message::Ready).await
    }

    /// Tells it to begin.
    pub async fn begin(&mut self) -> anyhow::Result<()> {
        self.input
            .write_all(b"begin\n")
            .await
            .context("couldn't tell the runner to begin")
    }

    /// Waits until it has debited every job.
    pub async fn wait_until_called(&mut self) -> anyhow::Result<()> {
        self.expect(Message::Called).await
    }

    /// Fails when it has ended by itself.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self
            .child
            .try_wait()
            .context("couldn't look after a runner")?
        {
            Some(status) => bail!("the runner ended too early: {status}"),
            None => Ok(()),
        }
    }

    /// Asks it for its counts and lets it end.
    pub async fn stop(self) -> anyhow::Result<Counts> {
        let Self {
            mut child,
            input,
            mut output,
            ..
        } = self;
        drop(input);
        let ending = async {
            let message = listen(&mut output).await?;
            let status = child.wait().await.context("couldn't wait for a runner")?;
            ensure!(status.success(), "the runner failed: {status}");
            match message {
                Message::Counts(counts) => Ok(counts),
                Message::Ready | Message::Called => bail!("the runner ends but says {message:?}"),
            }
        };
        timeout(PATIENCE, ending)
            .await
            .context("the runner does not end")?
    }

    async fn expect(&mut self, expected: Message) -> anyhow::Result<()> {
        let message = listen(&mut self.output).await?;
        ensure!(message == expected, "the runner says {message:?}");
        Ok(())
    }
}

async fn listen(output: &mut Lines<BufReader<ChildStdout>>) -> anyhow::Result<Message> {
    let line = output
        .next_line()
        .await
        .context("couldn't read what the runner says")?
        .context("the runner ended too early")?;
    serde_json::from_str(&line).with_context(|| format!("the runner says {line:?}"))
}

fn command(program: Program) -> anyhow::Result<Command> {
    match program {
        Program::Rust => {
            let own = std::env::current_exe().context("couldn't find this program")?;
            Ok(Command::new(own.with_file_name("rust_runner")))
        }
        Program::Node(script) => {
            let folder = Path::new(FOLDER);
            ensure!(
                folder.join("node_modules/undici").is_dir(),
                "the npm packages are not installed"
            );
            let mut command = Command::new(node()?);
            // With the second, Graphile Worker's perfTest spares itself a line for each job.
            command
                .env("NODE_ENV", "production")
                .env("NO_LOG_SUCCESS", "1")
                .arg(folder.join("node").join(script));
            Ok(command)
        }
    }
}

/// The Node that came with the packages, or else the one on the path.
fn node() -> anyhow::Result<PathBuf> {
    let packaged = Path::new(FOLDER).join("node_modules/.bin/node");
    let node = if packaged.exists() {
        packaged
    } else {
        PathBuf::from("node")
    };
    let output = std::process::Command::new(&node)
        .arg("--version")
        .output()
        .context("Node was not found")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.trim();
    let mut numbers = version.trim_start_matches('v').split('.');
    let mut number = || numbers.next().and_then(|number| number.parse::<u32>().ok());
    let (Some(major), Some(minor)) = (number(), number()) else {
        bail!("Node says {version:?} for its version");
    };
    ensure!(
        (major, minor) >= NODE_VERSION_MIN,
        "Node {version} is older than {}.{}",
        NODE_VERSION_MIN.0,
        NODE_VERSION_MIN.1
    );
    Ok(node)
}
