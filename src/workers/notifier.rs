//! The notifier: what is told leaves the outbox, alerts to the log and every event to the shop's webhook.
//!
//! At least once, oldest first. A receiver that is away is tried again, longer and longer apart; nothing is dropped.

use chrono::{DateTime, Utc};

use crate::store::Store;
use crate::store::outbox::{self, Channel, Event};
pub use crate::workers::webhook::{Webhook, WebhookError};

/// Delivers events.
#[derive(Clone)]
pub struct Notifier {
    /// The books.
    pub store: Store,
    /// Where the shop listens, if it does.
    pub webhook: Option<Webhook>,
}

/// What one run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Alerts written to the log.
    pub logged: usize,
    /// Events that the webhook took.
    pub posted: usize,
    /// Events that the webhook did not take.
    pub refused: usize,
}

/// How many batches one run takes at most; the next run goes on.
const BATCHES_MAX: usize = 10_000;

impl Notifier {
    /// Delivers everything that waits by `now`.
    ///
    /// # Errors
    /// When the database fails; what was delivered and not recorded is delivered again.
    pub async fn run_once(&self, now: DateTime<Utc>) -> anyhow::Result<Report> {
        let mut report = Report::default();
        if !self.store.has_work_for_notifier(now).await? {
            return Ok(report);
        }
        for _ in 0..BATCHES_MAX {
            let events = self.store.take_deliveries(Channel::Log, now).await?;
            let is_last = events.len() < outbox::BATCH;
            events.iter().for_each(log);
            let delivered: Vec<_> = events.iter().map(|event| event.event_id).collect();
            self.store.delivered(Channel::Log, &delivered).await?;
            report.logged += events.len();
            if is_last {
                break;
            }
        }
        if let Some(webhook) = &self.webhook {
            self.post(webhook, now, &mut report).await?;
        }
        Ok(report)
    }

    async fn post(
        &self,
        webhook: &Webhook,
        now: DateTime<Utc>,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        for _ in 0..BATCHES_MAX {
            let events = self.store.take_deliveries(Channel::Webhook, now).await?;
            let is_last = events.len() < outbox::BATCH;
            let mut delivered = Vec::new();
            let mut refused = 0;
            for event in &events {
                match webhook.post(event, now).await {
                    Ok(()) => delivered.push(event.event_id),
                    Err(error) => {
                        refused += 1;
                        tracing::warn!(%error, event.id = %event.event_id, "the webhook did not take an event");
                    }
                }
                // A receiver that is away would only be asked in vain for the rest.
                if refused >= REFUSALS_MAX {
                    break;
                }
            }
            self.store.delivered(Channel::Webhook, &delivered).await?;
            report.posted += delivered.len();
            report.refused += refused;
            if is_last || refused > 0 {
                break;
            }
        }
        Ok(())
    }
}

/// How many refusals end a run.
const REFUSALS_MAX: usize = 3;

/// One line per alert. The payload holds ids, states and codes, never names or bodies.
fn log(event: &Event) {
    tracing::warn!(
        event.kind = event.kind,
        event.id = %event.event_id,
        shop = event.shop.as_ref().map(ToString::to_string),
        subscription.id = event.subscription_id.map(|id| id.to_string()),
        subscription.external_id = event.external_id,
        charge.id = event.charge_id.map(|id| id.to_string()),
        attempt.id = event.attempt_id.map(|id| id.to_string()),
        payload = %event.payload,
        "alert"
    );
}
