//! What works on the jobs of the peers that are written in Rust. `peers` starts it; the crate's [`Assignment`] says what for.
//! The same as node/runner.mjs.

mod cron_script;
mod debits;
mod graphile_worker;

use std::sync::Arc;

use anyhow::{Context, bail};
use cykl_bench_peers::{Assignment, Message, Step};
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};

use debits::Debits;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let text = std::env::args().nth(1).context("an assignment is needed")?;
    let assignment: Assignment =
        serde_json::from_str(&text).context("couldn't read the assignment")?;
    match assignment.step {
        Step::Enqueue => enqueue(&assignment).await,
        Step::Work => work(assignment).await,
    }
}

async fn enqueue(assignment: &Assignment) -> anyhow::Result<()> {
    match assignment.peer.as_str() {
        "cron-script" => cron_script::enqueue(assignment).await,
        "graphile-worker-rust" => graphile_worker::enqueue(assignment).await,
        peer => bail!("{peer} is not written in Rust"),
    }
}

async fn work(assignment: Assignment) -> anyhow::Result<()> {
    let debits = Arc::new(Debits::new(&assignment)?);
    let mut words = BufReader::new(tokio::io::stdin()).lines();
    say(Message::Ready)?;
    next(&mut words).await?;
    let all = async {
        match assignment.peer.as_str() {
            "cron-script" => cron_script::work(&assignment, &debits).await,
            "graphile-worker-rust" => graphile_worker::work(&assignment, &debits).await,
            peer => bail!("{peer} is not written in Rust"),
        }
    };
    tokio::select! {
        ended = all => ended?,
        word = next(&mut words) => return finish(word, &debits),
    }
    finish(next(&mut words).await, &debits)
}

async fn next(words: &mut Lines<BufReader<Stdin>>) -> anyhow::Result<()> {
    words
        .next_line()
        .await
        .context("couldn't read standard input")?;
    Ok(())
}

fn finish(word: anyhow::Result<()>, debits: &Debits) -> anyhow::Result<()> {
    word?;
    say(Message::Counts(debits.counts()))
}

fn say(message: Message) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(&message)?);
    Ok(())
}
