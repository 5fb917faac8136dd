//! `POST payment`, `GET payment/{id}` and `POST payment/cancel`: payment links, as a shop sees them.

use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    debit::{amount, currency, not_acceptable, read_json, shop, unprocessable, uuid},
    engine::{Caller, Engine},
    links::Link,
    reply::Reply,
    schema::{CANCEL, PAYMENT},
    script::Call,
    validation::{self, Violation},
};

/// "The least time for which a link is valid is 60 seconds" (imoje API, `POST payment`, `validTo`).
const VALID_FOR_MIN: TimeDelta = TimeDelta::seconds(60);

/// What a link is refused with (imoje API, `POST payment`, 422).
const INVALID: &str = "REQ-ERROR-100002";

/// Makes a link, whose page is below `origin`.
pub(super) fn create(
    engine: &Engine,
    caller: &Caller,
    origin: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Reply, Box<Reply>> {
    let instance = read_json(headers, body)?;
    let now = engine.now();
    let mut errors = validation::violations(PAYMENT, &instance);
    let valid_to = instance["validTo"]
        .as_i64()
        .and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    if valid_to.is_some_and(|valid_to| valid_to < now + VALID_FOR_MIN) {
        errors.push(Violation {
            property: "instance.validTo".to_owned(),
            message: "must be at least 60 seconds from now".to_owned(),
        });
    }
    if !errors.is_empty() {
        return Err(unprocessable(INVALID, &instance, &errors));
    }
    let shop = shop(caller, &instance)?;
    let (Some(amount_minor), Some(currency)) = (amount(&instance), currency(&instance)) else {
        return Err(unprocessable(INVALID, &instance, &[]));
    };
    let is_recurring = instance["preselectMethodCode"].as_str() == Some("recurring");
    let mut book = engine.book();
    if is_recurring && !book.channel().takes(amount_minor, currency) {
        return Err(not_acceptable(&instance));
    }
    let order_id = instance["orderId"].as_str().unwrap_or_default();
    let behaviour = book.behaviour_of_order(Call::Link, Some(order_id));
    let link = Link {
        id: Uuid::new_v4(),
        order_id: order_id.into(),
        amount_minor,
        currency,
        created_at: now,
        modified_at: now,
        valid_to,
        ended_at: None,
        request: Arc::new(instance.clone()),
        shop,
    };
    let reply = Reply::ok(json!({ "payment": made(&link, origin) }).to_string());
    if behaviour.takes_effect() {
        tracing::info!(
            order.id = order_id,
            amount = amount_minor,
            url = url_of(&link, origin),
            "link made"
        );
        book.add_link(link);
    }
    Ok(reply.altered(&behaviour, &instance))
}

/// Shows a link with what payers did by it.
pub(super) fn show(engine: &Engine, caller: &Caller, origin: &str, id: Option<Uuid>) -> Reply {
    let now = engine.now();
    let mut book = engine.book();
    let found = id
        .and_then(|id| book.link(id))
        .filter(|link| caller.shop(link.shop.service_id).is_some())
        .cloned();
    let behaviour =
        book.behaviour_of_order(Call::Payment, found.as_ref().map(|link| &*link.order_id));
    let reply = match found {
        None => Reply::plain_error(StatusCode::NOT_FOUND, &Value::Null),
        Some(link) => {
            let seen_at = behaviour
                .read_lag
                .map_or(now, |lag| now - super::course::delta(lag));
            let payments: Vec<Value> = book
                .payments_by(link.id)
                .into_iter()
                .filter(|payment| payment.created_at <= seen_at)
                .map(|payment| {
                    json!({
                        "id": payment.id, "type": "sale", "status": payment.status_at(seen_at), "source": "web",
                        "orderId": payment.order_id, "amount": payment.amount_minor,
                        "currency": payment.currency.code(), "paymentMethod": "card",
                        "paymentMethodCode": link.text("preselectMethodCode").unwrap_or("ecom3ds"),
                    })
                })
                .collect();
            Reply::ok(shown(&link, origin, payments, now).to_string())
        }
    };
    reply.altered(&behaviour, &Value::Null)
}

/// Ends a link.
pub(super) fn cancel(
    engine: &Engine,
    caller: &Caller,
    origin: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Reply, Box<Reply>> {
    let instance = read_json(headers, body)?;
    let errors = validation::violations(CANCEL, &instance);
    if !errors.is_empty() {
        return Err(unprocessable(INVALID, &instance, &errors));
    }
    let shop = shop(caller, &instance)?;
    let now = engine.now();
    let mut book = engine.book();
    let found = uuid(&instance, "paymentId")
        .and_then(|id| book.link(id))
        .filter(|link| link.shop.service_id == shop.service_id)
        .cloned();
    let behaviour = book.behaviour_of_order(
        Call::CancelPayment,
        found.as_ref().map(|link| &*link.order_id),
    );
    let reply = match found {
        None => Reply::plain_error(StatusCode::NOT_FOUND, &instance),
        Some(link) if behaviour.takes_effect() && !book.cancel_link(link.id, now) => Reply::error(
            StatusCode::UNPROCESSABLE_ENTITY,
            "SIM-ERROR-PAYMENT",
            "Payment cannot be cancelled.",
            &instance,
            &[],
        ),
        // "isActive" stays true in imoje's own sample.
        Some(link) => {
            let mut body = made(&link, origin);
            body["status"] = json!("cancelled");
            Reply::ok(body.to_string())
        }
    };
    Ok(reply.altered(&behaviour, &instance))
}

/// The page of a link.
fn url_of(link: &Link, origin: &str) -> String {
    format!("{origin}/pay/{}", link.id)
}

/// A link as the answer to its making shows it: what was asked for, and no status.
fn made(link: &Link, origin: &str) -> Value {
    let mut body = json!({
        "id": link.id,
        "url": url_of(link, origin),
        "serviceId": link.shop.service_id,
        "orderId": link.order_id,
        "title": link.text("title").unwrap_or_default(),
        "simp": "",
        "amount": link.amount_minor,
        "currency": link.currency.code(),
        "customer": link.request["customer"],
        "isActive": true,
        "validTo": link.valid_to.map(|valid_to| valid_to.timestamp()),
        "created": link.created_at.timestamp(),
        "modified": link.modified_at.timestamp(),
    });
    for name in [
        "notificationUrl",
        "returnUrl",
        "successReturnUrl",
        "failureReturnUrl",
    ] {
        if let Some(url) = link.text(name) {
            body[name] = json!(url);
        }
    }
    body
}

/// A link as a read shows it.
fn shown(link: &Link, origin: &str, payments: Vec<Value>, now: DateTime<Utc>) -> Value {
    let has = |status: &str| payments.iter().any(|payment| payment["status"] == status);
    let status = if has("settled") {
        "settled"
    } else if !link.is_open(now) {
        "cancelled"
    } else if has("pending") {
        "pending"
    } else if payments.is_empty() {
        "new"
    } else {
        "rejected"
    };
    let mut body = made(link, origin);
    body["status"] = json!(status);
    body["isActive"] = json!(link.is_open(now) && status != "settled");
    body["isGenerated"] = json!(false);
    body["isUsed"] = json!(!payments.is_empty());
    body["transactions"] = Value::Array(payments);
    body
}
