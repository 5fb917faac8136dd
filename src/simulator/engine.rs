//! The gateway behind the HTTP door: who may call, what a debit does, and the delivery of notices.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::http::{HeaderMap, StatusCode, header};
use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    DeliveryReport, SimulatedShop,
    book::{Book, NoticeJob},
    courier::Courier,
    notices,
    reply::Reply,
};

/// Receivers that are being told at the same time.
const CONCURRENT_RECEIVERS: usize = 64;
/// Notices taken from the agenda at a time.
const BATCH: usize = 1024;
/// How often the background task looks at the simulated clock, in real time.
const TICK: Duration = Duration::from_millis(20);

/// Simulated time, from whoever owns the clock.
pub type Now = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

pub(super) struct Engine {
    shops: Vec<Arc<SimulatedShop>>,
    now: Now,
    book: Mutex<Book>,
    courier: Courier,
}

/// Somebody with a valid token: the shops it speaks for.
pub(super) struct Caller {
    pub(super) merchant_id: String,
    shops: Vec<Arc<SimulatedShop>>,
}

impl Caller {
    /// The shop with this id, if the token speaks for it.
    pub(super) fn shop(&self, service_id: Uuid) -> Option<&Arc<SimulatedShop>> {
        self.shops.iter().find(|shop| shop.service_id == service_id)
    }
}

impl Engine {
    pub(super) fn new(shops: Vec<SimulatedShop>, now: Now, book: Book, courier: Courier) -> Self {
        Self {
            shops: shops.into_iter().map(Arc::new).collect(),
            now,
            book: Mutex::new(book),
            courier,
        }
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        (self.now)()
    }

    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who calls: 401 without a known token, 403 if the token is not for this merchant.
    pub(super) fn authorise(
        &self,
        headers: &HeaderMap,
        merchant_id: &str,
    ) -> Result<Caller, Box<Reply>> {
        let refuse = |status| Box::new(Reply::plain_error(status, &Value::Null));
        let authorization = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let token = authorization.and_then(|value| value.strip_prefix("Bearer "));
        let with_token: Vec<_> = self
            .shops
            .iter()
            .filter(|shop| token == Some(shop.token.as_str()))
            .collect();
        if with_token.is_empty() {
            return Err(refuse(StatusCode::UNAUTHORIZED));
        }
        let shops: Vec<_> = with_token
            .into_iter()
            .filter(|shop| shop.merchant_id == merchant_id)
            .map(Arc::clone)
            .collect();
        if shops.is_empty() {
            return Err(refuse(StatusCode::FORBIDDEN));
        }
        Ok(Caller {
            merchant_id: merchant_id.to_owned(),
            shops,
        })
    }

    /// Delivers what is due until nothing is, and waits for the receivers' answers.
    pub(super) async fn deliver_due(self: &Arc<Self>) -> DeliveryReport {
        let mut report = DeliveryReport::default();
        let mut sending = JoinSet::new();
        loop {
            // The clock is the caller's: it is never asked while the book is locked.
            let now = self.now();
            let (changes, jobs) = self.book().take_due(now, BATCH);
            report.changes += changes;
            if changes == 0 && jobs.is_empty() {
                return report;
            }
            for group in by_subject(jobs) {
                if sending.len() >= CONCURRENT_RECEIVERS {
                    report.add(sending.join_next().await);
                }
                sending.spawn(Arc::clone(self).deliver(group));
            }
            while let Some(delivered) = sending.join_next().await {
                report.add(Some(delivered));
            }
        }
    }

    /// Delivers what becomes due, until cancelled. A receiver that is slow to answer does not hold up the others.
    pub(super) async fn keep_delivering(self: Arc<Self>, stopping: CancellationToken) {
        let mut sending = JoinSet::new();
        while !stopping.is_cancelled() {
            let room = CONCURRENT_RECEIVERS.saturating_sub(sending.len());
            let now = self.now();
            let (_, jobs) = self.book().take_due(now, room);
            for group in by_subject(jobs) {
                sending.spawn(Arc::clone(&self).deliver(group));
            }
            tokio::select! {
                () = stopping.cancelled() => {}
                Some(_) = sending.join_next() => {}
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    /// Delivers what a caller is to be told before the answer, in a task of its own: a caller who leaves does not take it along.
    pub(super) async fn deliver_before_answer(self: &Arc<Self>, jobs: Vec<NoticeJob>) {
        if jobs.is_empty() {
            return;
        }
        let delivery = tokio::spawn(Arc::clone(self).deliver(jobs));
        if let Err(error) = delivery.await {
            tracing::warn!(%error, "a notice could not be delivered before the answer");
        }
    }

    /// Delivers notices one after the other. Returns how many were sent and how many of them accepted.
    pub(super) async fn deliver(self: Arc<Self>, jobs: Vec<NoticeJob>) -> (usize, usize) {
        let (mut sent, mut accepted) = (0, 0);
        for job in jobs {
            let Some(letter) = notices::letter(&job) else {
                continue;
            };
            let answer = self.courier.post(&letter).await;
            let record = notices::record(&job, self.now(), answer);
            tracing::info!(
                order.id = %record.order_id,
                status = %record.status,
                try_number = record.try_number,
                answer,
                url = letter.url,
                "notice sent"
            );
            sent += 1;
            accepted += usize::from(answer == Some(200));
            self.book().record_notice(job.item, record);
        }
        (sent, accepted)
    }
}

/// Notices of one subject stay in their order; those of different ones may overtake each other.
fn by_subject(jobs: Vec<NoticeJob>) -> Vec<Vec<NoticeJob>> {
    let mut groups: BTreeMap<(bool, usize), Vec<NoticeJob>> = BTreeMap::new();
    for job in jobs {
        groups
            .entry(job.item.topic.subject())
            .or_default()
            .push(job);
    }
    groups.into_values().collect()
}
