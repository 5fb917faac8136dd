//! The debit that is every job's work.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use cykl_bench_peers::{Assignment, Counts, Message};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Url};
use serde_json::json;
use uuid::Uuid;

/// Debits, and keeps count of them.
#[derive(Debug)]
pub struct Debits {
    client: Client,
    address: Url,
    token: String,
    service_id: String,
    profile_id: Uuid,
    order_prefix: String,
    is_debited: Vec<AtomicBool>,
    calls: AtomicU64,
    distinct: AtomicU64,
    jobs: u64,
}

impl Debits {
    /// None yet.
    pub fn new(assignment: &Assignment) -> anyhow::Result<Self> {
        let client = Client::builder()
            .http1_only()
            .no_proxy()
            .timeout(Duration::from_secs(60))
            .build()
            .context("couldn't build the HTTP client")?;
        Ok(Self {
            client,
            address: assignment.endpoint.parse().context("the endpoint")?,
            token: assignment.token.clone(),
            service_id: assignment.service_id.clone(),
            profile_id: assignment.profile_id,
            order_prefix: assignment.order_prefix.clone(),
            is_debited: (0..assignment.jobs)
                .map(|_| AtomicBool::new(false))
                .collect(),
            calls: AtomicU64::new(0),
            distinct: AtomicU64::new(0),
            jobs: assignment.jobs.into(),
        })
    }

    /// Makes the debit of a job. Says so when it was the last one.
    pub async fn debit(&self, number: u32) -> anyhow::Result<()> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let body = json!({
            "serviceId": self.service_id,
            "paymentProfileId": self.profile_id,
            "amount": 4900,
            "currency": "PLN",
            "orderId": format!("{}-{number}", self.order_prefix),
        });
        let response = self
            .client
            .post(self.address.clone())
            .bearer_auth(&self.token)
            .header(CONTENT_TYPE, "application/json")
            .body(body.to_string())
            .send()
            .await
            .context("a debit failed")?;
        ensure!(
            response.status().is_success(),
            "the debit {number} was refused: {}",
            response.status()
        );
        response.bytes().await.context("an answer broke off")?;
        self.count(number)
    }

    fn count(&self, number: u32) -> anyhow::Result<()> {
        let is_debited = self
            .is_debited
            .get(usize::try_from(number)?)
            .with_context(|| format!("there is no job {number}"))?;
        if !is_debited.swap(true, Ordering::Relaxed)
            && self.distinct.fetch_add(1, Ordering::Relaxed) + 1 == self.jobs
        {
            crate::say(Message::Called)?;
        }
        Ok(())
    }

    /// What was done so far.
    pub fn counts(&self) -> Counts {
        Counts {
            calls: self.calls.load(Ordering::Relaxed),
            distinct: self.distinct.load(Ordering::Relaxed),
        }
    }
}
