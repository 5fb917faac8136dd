//! `POST transaction/{id}/refund`, which gives money back, and `POST transaction/{id}/can-refund`, which asks whether that can be done.

use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    answers::TransactionJson,
    behaviour::{Behaviour, Fate},
    book::{Book, NoticeJob},
    course::Course,
    debit::{amount, check_json, read_json, shop, unprocessable},
    director::Facts,
    engine::{Caller, Engine},
    ledger::{RefundPost, Transaction},
    profile::ProfileNow,
    reply::Reply,
    schema::{CAN_REFUND, REFUND},
    script::Call,
    validation,
};

/// "Leave at least 5 seconds between refunds" (imoje API, refunds). Whoever does not is counted.
const GAP: TimeDelta = TimeDelta::seconds(5);

/// imoje publishes no codes for a refund that is refused.
const REFUSED: &str = "SIM-ERROR-REFUND";

/// What became of a request for a refund.
struct Refund {
    behaviour: Behaviour,
    /// The refund that it made.
    refund_id: Option<Uuid>,
    /// What is to be delivered before the answer.
    notices: Vec<NoticeJob>,
    reply: Reply,
}

impl Refund {
    fn nothing(behaviour: Behaviour, reply: Reply) -> Self {
        Self {
            behaviour,
            refund_id: None,
            notices: Vec::new(),
            reply,
        }
    }
}

/// Decides about a refund. Whatever comes of it is in the ledger before this returns.
pub(super) async fn refund(
    engine: &Arc<Engine>,
    caller: &Caller,
    sale_id: Option<Uuid>,
    headers: &HeaderMap,
    body: &[u8],
) -> Reply {
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    let is_json = parsed.is_some();
    let instance = parsed.unwrap_or_default();
    let now = engine.now();
    let accepted = accept(caller, headers, is_json, &instance);
    let Refund {
        behaviour,
        refund_id,
        notices,
        reply,
    } = match accepted {
        Ok(amount_minor) => {
            engine
                .book()
                .refund(&caller.merchant_id, sale_id, amount_minor, &instance, now)
        }
        Err(reply) => Refund::nothing(Behaviour::default(), *reply),
    };
    let answered = behaviour.status_sent(reply.status().as_u16());
    engine.book().refund_posts.push(RefundPost {
        at: now,
        sale_id,
        amount_minor: amount(&instance),
        refund_id,
        answered,
    });
    tracing::info!(
        sale = sale_id.map(tracing::field::display),
        amount = instance["amount"].as_i64(),
        outcome = if refund_id.is_some() {
            "booked"
        } else {
            "nothing done"
        },
        answer = answered.map_or_else(|| "lost".to_owned(), |status| status.to_string()),
        "refund"
    );
    engine.deliver_before_answer(notices).await;
    reply.altered(&behaviour, &instance)
}

/// Says whether an amount can be refunded.
pub(super) fn can_refund(
    engine: &Engine,
    caller: &Caller,
    sale_id: Option<Uuid>,
    headers: &HeaderMap,
    body: &[u8],
) -> Reply {
    let instance = match read_json(headers, body) {
        Ok(instance) => instance,
        Err(reply) => return *reply,
    };
    let errors = validation::violations(CAN_REFUND, &instance);
    if !errors.is_empty() {
        return *unprocessable("REQ-ERROR-100002", &instance, &errors);
    }
    let now = engine.now();
    let mut book = engine.book();
    let Some((sale, _)) = book.sale(&caller.merchant_id, sale_id, now) else {
        return Reply::plain_error(StatusCode::NOT_FOUND, &instance);
    };
    let behaviour = book.behaviour_of(Facts {
        call: Call::CanRefund,
        payment_profile_id: Some(sale.payment_profile_id),
        order_id: Some(&sale.order_id),
        repetition: 0,
    });
    let left = book.refundable(&sale, now);
    let answer = json!({
        "id": sale.id,
        "refundable": amount(&instance).is_some_and(|amount| amount <= left),
        "balance": true,
        "fullRefund": left == sale.amount_minor,
        "partialRefund": {"maxRefundAmount": left, "minRefundAmount": left.min(1)},
    });
    Reply::ok(answer.to_string()).altered(&behaviour, &instance)
}

/// The amount of a valid request.
fn accept(
    caller: &Caller,
    headers: &HeaderMap,
    is_json: bool,
    instance: &Value,
) -> Result<u32, Box<Reply>> {
    check_json(headers, is_json)?;
    let errors = validation::violations(REFUND, instance);
    if !errors.is_empty() {
        return Err(unprocessable("TRX-ERROR-120001", instance, &errors));
    }
    shop(caller, instance)?;
    Ok(amount(instance).unwrap_or_default())
}

impl Book {
    /// The debit of a merchant with this id.
    fn sale(
        &self,
        merchant_id: &str,
        id: Option<Uuid>,
        now: DateTime<Utc>,
    ) -> Option<(Transaction, ProfileNow)> {
        self.transaction(id?, now)
            .filter(|(found, _)| found.refund_of.is_none() && found.shop.merchant_id == merchant_id)
    }

    /// How much of a debit can still go back.
    fn refundable(&self, sale: &Transaction, now: DateTime<Utc>) -> u32 {
        if sale.status_at(now) != "settled" {
            return 0;
        }
        let gone: u32 = self
            .refunds_of(sale.id)
            .iter()
            .filter(|refund| matches!(refund.status_at(now), "settled" | "new"))
            .map(|refund| refund.amount_minor)
            .sum();
        sale.amount_minor.saturating_sub(gone)
    }

    fn refund(
        &mut self,
        merchant_id: &str,
        sale_id: Option<Uuid>,
        amount_minor: u32,
        instance: &Value,
        now: DateTime<Utc>,
    ) -> Refund {
        let Some((sale, profile)) = self.sale(merchant_id, sale_id, now) else {
            let reply = Reply::plain_error(StatusCode::NOT_FOUND, instance);
            return Refund::nothing(Behaviour::default(), reply);
        };
        let asked_before = self
            .refund_posts
            .iter()
            .filter(|post| post.sale_id == sale_id);
        let behaviour = self.behaviour_of(Facts {
            call: Call::Refund,
            payment_profile_id: Some(sale.payment_profile_id),
            order_id: Some(&sale.order_id),
            repetition: u32::try_from(asked_before.count()).unwrap_or(u32::MAX),
        });
        if !behaviour.takes_effect() || amount_minor > self.refundable(&sale, now) {
            let reply = Reply::error(
                StatusCode::UNPROCESSABLE_ENTITY,
                REFUSED,
                "Refund not possible.",
                instance,
                &[],
            );
            return Refund::nothing(behaviour, reply);
        }
        let last = self.last_refunds.insert(sale.service_id(), now);
        if last.is_some_and(|last| now < last + GAP) {
            self.totals.hasty_refunds += 1;
        }
        let course = Course::of_refund(
            behaviour.fate.as_ref().unwrap_or(&Fate::SettleAtOnce),
            behaviour.notices.clone().unwrap_or_default(),
            behaviour.read_lag.unwrap_or_default(),
        );
        let refund = Transaction {
            id: Uuid::new_v4(),
            refund_of: Some(sale.id),
            amount_minor,
            created_at: now,
            title: instance["title"].as_str().unwrap_or_default().into(),
            course: Arc::new(course),
            ..sale
        };
        self.totals.refunds += 1;
        let notices = self.add(refund.clone(), now);
        let body = TransactionJson::new(&refund, &profile, 0).body(&behaviour);
        Refund {
            behaviour,
            refund_id: Some(refund.id),
            notices,
            reply: Reply::ok(body),
        }
    }
}
