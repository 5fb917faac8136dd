//! The yardstick: bare HTTP loops that store nothing, each in a process of its own, so that its CPU time can be told.
//!
//! Their client never changes: a figure is worth something only as long as its yardstick stays the same.

use std::env;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use nix::time::ClockId;
use reqwest::Client;
use reqwest::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::io::AsyncBufReadExt;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::children::{Gateway, Process, Script};
use crate::world::{MERCHANT_ID, SERVICE_ID, SERVICE_KEY, TOKEN};

/// The first argument that makes this program such a loop. The second is its [`Task`].
pub const LOOP: &str = "bare-loop";

/// How many threads each of these processes has, like `cykl run` on two cores.
const THREADS: usize = 2;

/// What such a process does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Task {
    /// Posts again and again.
    Post(Posts),
    /// Answers every POST with its body.
    Echo(SocketAddr),
}

/// What is posted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Posts {
    /// Where to.
    pub address: String,
    /// What.
    pub content: Content,
    /// How many at once.
    pub in_flight: u32,
    /// How often.
    pub until: Until,
}

/// What is posted.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Content {
    /// Valid debits.
    Debits,
    /// Notices, signed with the shop's key, about orders of somebody else.
    Notices,
}

/// How long a loop goes on.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Until {
    /// For so many calls.
    Calls(u64),
    /// For so many milliseconds.
    Millis(u64),
}

/// What a loop has done.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Done {
    /// Calls.
    pub calls: u64,
    /// From the first call to the end of the last.
    pub wall: Duration,
    /// CPU time of the loop, and of the server where that is said.
    pub cpu: Duration,
}

/// Debits a fresh simulator that does as `script` says. The CPU time is that of both.
pub async fn debit(
    directory: &Path,
    script: Script,
    in_flight: u32,
    until: Until,
) -> anyhow::Result<Done> {
    let gateway = Gateway::start(directory, script, None).await?;
    let posts = Posts {
        address: format!("{}/{MERCHANT_ID}/transaction/profile", gateway.base_url()),
        content: Content::Debits,
        in_flight,
        until,
    };
    let before = gateway.process().cpu()?;
    let done = post_all(&posts).await?;
    let cpu = done.cpu + (gateway.process().cpu()? - before);
    let ledger = gateway.stop().await?;
    let booked: u64 = ledger.transactions.values().sum();
    ensure!(
        booked == done.calls,
        "the reference made {booked} transactions with {} debits",
        done.calls
    );
    Ok(Done { cpu, ..done })
}

/// Lets a process of its own post. The CPU time is that of this process alone.
pub async fn post_all(posts: &Posts) -> anyhow::Result<Done> {
    let mut process = start(&Task::Post(posts.clone()))?;
    let mut line = String::new();
    process.output()?.read_line(&mut line).await?;
    process.wait().await.context("the bare loop")?;
    serde_json::from_str(&line).context("couldn't read what the bare loop did")
}

/// Starts such a process.
pub fn start(task: &Task) -> anyhow::Result<Process> {
    let program = env::current_exe().context("couldn't find this program")?;
    Process::spawn(&program, &[LOOP, &serde_json::to_string(task)?])
}

/// Does `task`, in a process that does nothing else.
pub fn run(task: &str) -> anyhow::Result<()> {
    let task: Task = serde_json::from_str(task).context("couldn't read the task")?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .context("couldn't start the runtime")?
        .block_on(async {
            match task {
                Task::Post(posts) => {
                    println!("{}", serde_json::to_string(&do_posts(posts).await?)?)
                }
                Task::Echo(address) => echo(address).await?,
            }
            Ok(())
        })
}

async fn echo(address: SocketAddr) -> anyhow::Result<()> {
    let router = Router::new().fallback(post(|body: Bytes| async { body }));
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening");
    Ok(axum::serve(listener, router).await?)
}

/// What every task of the loop shares.
struct Calls {
    client: Client,
    posts: Posts,
    unique: Uuid,
    started: Instant,
    next: AtomicU64,
}

async fn do_posts(posts: Posts) -> anyhow::Result<Done> {
    cykl::gateway::install_crypto();
    let cpu = || ClockId::CLOCK_PROCESS_CPUTIME_ID.now().map(Duration::from);
    let in_flight = posts.in_flight;
    let client = Client::builder()
        .http1_only()
        .no_proxy()
        .timeout(Duration::from_secs(60))
        .build()
        .context("couldn't build the HTTP client")?;
    let before = cpu()?;
    let calls = Arc::new(Calls {
        client,
        posts,
        unique: Uuid::new_v4(),
        started: Instant::now(),
        next: AtomicU64::new(0),
    });
    let mut tasks = JoinSet::new();
    for _ in 0..in_flight {
        tasks.spawn(post_until_end(Arc::clone(&calls)));
    }
    let mut count = 0;
    while let Some(ended) = tasks.join_next().await {
        count += ended.context("the HTTP loop broke")??;
    }
    Ok(Done {
        calls: count,
        wall: calls.started.elapsed(),
        cpu: cpu()? - before,
    })
}

async fn post_until_end(calls: Arc<Calls>) -> anyhow::Result<u64> {
    let mut made = 0;
    loop {
        let number = calls.next.fetch_add(1, Ordering::Relaxed);
        let is_over = match calls.posts.until {
            Until::Calls(end) => number >= end,
            Until::Millis(millis) => calls.started.elapsed() >= Duration::from_millis(millis),
        };
        if is_over {
            return Ok(made);
        }
        let request = calls.client.post(&calls.posts.address);
        let request = match calls.posts.content {
            Content::Debits => request.bearer_auth(TOKEN).body(debit_body(&calls, number)),
            Content::Notices => {
                let body = notice_body(&calls, number);
                request
                    .header("X-Imoje-Signature", signature(&body))
                    .body(body)
            }
        };
        let response = request
            .header(CONTENT_TYPE, "application/json")
            .send()
            .await
            .context("a call of the bare loop failed")?;
        ensure!(
            response.status().is_success(),
            "a call of the bare loop was refused: {}",
            response.status()
        );
        response
            .bytes()
            .await
            .context("an answer to the bare loop broke off")?;
        made += 1;
    }
}

fn debit_body(calls: &Calls, number: u64) -> String {
    json!({
        "serviceId": SERVICE_ID,
        "paymentProfileId": calls.unique,
        "amount": 4900,
        "currency": "PLN",
        "orderId": format!("reference-{}-{number}", calls.unique),
    })
    .to_string()
}

/// A notice as the simulator writes it, about a debit of a shop's other system.
fn notice_body(calls: &Calls, number: u64) -> String {
    let order_id = format!("reference-{}-{number}", calls.unique);
    json!({
        "transaction": {
            "id": Uuid::new_v4(), "type": "sale", "status": "settled", "source": "api", "created": 1_790_000_000,
            "modified": 1_790_000_001, "serviceId": SERVICE_ID, "amount": 4900, "currency": "PLN", "title": "",
            "orderId": order_id, "paymentMethod": "card", "paymentMethodCode": "recurring",
        },
        "payment": {
            "id": calls.unique, "title": "", "amount": 4900, "status": "settled", "created": 1_790_000_000,
            "orderId": order_id, "currency": "PLN", "modified": 1_790_000_001, "serviceId": SERVICE_ID,
        },
    })
    .to_string()
}

fn signature(body: &str) -> String {
    let hash = Sha256::new()
        .chain_update(body)
        .chain_update(SERVICE_KEY)
        .finalize();
    let hash = hex::encode(hash);
    format!("merchantid={MERCHANT_ID};serviceid={SERVICE_ID};signature={hash};alg=sha256")
}
