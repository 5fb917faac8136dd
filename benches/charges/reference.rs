//! The yardstick: a bare HTTP loop that debits the pretend imoje and keeps nothing.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Url};
use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::children::Gateway;
use crate::figures::Reference;
use crate::processes;
use crate::world::{MERCHANT_ID, SERVICE_ID, TOKEN, World};

/// What every task of the loop shares.
struct Calls {
    client: Client,
    address: Url,
    profile_id: Uuid,
    next: AtomicU64,
    end: u64,
}

/// Makes `count` valid debits, `in_flight` at a time, over connections that are kept.
pub async fn measure(world: &World, count: u64, in_flight: u32) -> anyhow::Result<Reference> {
    let gateway = Gateway::start(world.directory()).await?;
    let address = format!("{}/{MERCHANT_ID}/transaction/profile", gateway.base_url());
    let calls = Arc::new(Calls {
        client: Client::builder()
            .http1_only()
            .no_proxy()
            .timeout(Duration::from_secs(60))
            .build()
            .context("couldn't build the HTTP client")?,
        address: address.parse().context("the simulator's address")?,
        profile_id: Uuid::new_v4(),
        next: AtomicU64::new(0),
        end: count,
    });
    let own_pid = i32::try_from(process::id()).context("a process id is positive")?;
    let cpu = || Ok::<_, anyhow::Error>(processes::cpu_of(own_pid)? + gateway.process().cpu()?);
    let (cpu_before, started) = (cpu()?, Instant::now());
    let mut tasks = JoinSet::new();
    for _ in 0..in_flight {
        tasks.spawn(debit_until_end(Arc::clone(&calls)));
    }
    while let Some(ended) = tasks.join_next().await {
        ended.context("the HTTP loop broke")??;
    }
    let (wall, cpu) = (started.elapsed(), cpu()? - cpu_before);
    let ledger = gateway.stop().await?;
    let settled = ledger.transactions.get("settled").copied().unwrap_or(0);
    ensure!(
        settled == count,
        "the reference settled {settled} of {count} debits"
    );
    Ok(Reference { wall, cpu })
}

async fn debit_until_end(calls: Arc<Calls>) -> anyhow::Result<()> {
    loop {
        let number = calls.next.fetch_add(1, Ordering::Relaxed);
        if number >= calls.end {
            return Ok(());
        }
        let body = json!({
            "serviceId": SERVICE_ID,
            "paymentProfileId": calls.profile_id,
            "amount": 4900,
            "currency": "PLN",
            "orderId": format!("reference-{number}"),
        });
        let response = calls
            .client
            .post(calls.address.clone())
            .bearer_auth(TOKEN)
            .header(CONTENT_TYPE, "application/json")
            .body(body.to_string())
            .send()
            .await
            .context("a call of the reference failed")?;
        ensure!(
            response.status().is_success(),
            "a call of the reference was refused: {}",
            response.status()
        );
        response
            .bytes()
            .await
            .context("an answer of the reference broke off")?;
    }
}
