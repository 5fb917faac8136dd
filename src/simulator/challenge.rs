//! 3-D Secure: a payer who is present confirms a payment on a page, which stands for that of the card's issuer.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{agenda::Item, behaviour::Fate, book::Book, course::Course, ledger::Transaction};

/// imoje's code for "3-D Secure authentication failed".
const NOT_CONFIRMED: &str = "CODE_570";

/// What a payer is asked about a transaction.
#[derive(Clone, Debug)]
pub(super) struct Challenge {
    /// Below which address the page is.
    origin: Arc<str>,
    /// The request that made the transaction.
    request: Arc<Value>,
}

impl Challenge {
    /// What the request asks its payer for: where it says what his browser is like, the card is one with 3-D Secure (imoje API,
    /// `POST transaction`, `additionalData`).
    pub(super) fn of(request: &Value, origin: &Arc<str>) -> Option<Self> {
        request.get("additionalData")?;
        Some(Self {
            origin: Arc::clone(origin),
            request: Arc::new(request.clone()),
        })
    }

    /// The statuses of a transaction that waits for its payer until the time that its request names.
    pub(super) fn course(&self, like: &Course, now: DateTime<Utc>) -> Course {
        let valid_for = self.request["validTo"]
            .as_i64()
            .and_then(|seconds| DateTime::from_timestamp(seconds, 0))
            .and_then(|valid_to| (valid_to - now).to_std().ok());
        Course::waiting(valid_for, like)
    }

    /// `action`: where the payer's browser has to go.
    pub(super) fn action(&self, transaction_id: Uuid) -> Value {
        json!({
            "type": "redirect",
            "url": format!("{}/3ds/{transaction_id}", self.origin),
            "method": "GET",
            "contentType": "",
            "contentBodyRaw": "",
        })
    }

    /// A text of the request.
    pub(super) fn text(&self, field: &str) -> &str {
        self.request[field].as_str().unwrap_or_default()
    }
}

impl Book {
    /// A payer says whether a transaction is his. `None` when it waits for nobody.
    pub(super) fn confirm(
        &mut self,
        id: Uuid,
        is_his: bool,
        now: DateTime<Utc>,
    ) -> Option<(Transaction, Challenge)> {
        let position = *self.positions.get(&id)?;
        if self.transactions[position].status_at(now) != "pending" {
            return None;
        }
        let challenge = self.challenges.remove(&id)?;
        let transaction = &mut self.transactions[position];
        let after = (now - transaction.created_at).to_std().unwrap_or_default();
        let fate = if is_his {
            Fate::SettleAfter(after)
        } else {
            Fate::RejectAfter {
                code: NOT_CONFIRMED.to_owned(),
                after,
            }
        };
        let was = &transaction.course;
        let read_lag = was.read_lag.to_std().unwrap_or_default();
        transaction.course = Arc::new(Course::new(&fate, was.notices.clone(), read_lag));
        let confirmed = transaction.clone();
        self.agenda.plan(now, Item::Change { position, step: 1 });
        Some((confirmed, challenge))
    }
}
