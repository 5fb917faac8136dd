//! `POST transaction/profile`: the debit of a stored profile; and what it shares with `POST transaction`.

use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode, header};
use serde_json::Value;
use uuid::Uuid;

use super::{
    SimulatedShop,
    answers::TransactionJson,
    book::{Debit, DebitOutcome, DebitRequest, NamedCard},
    challenge::Challenge,
    currency::Currency,
    engine::{Caller, Engine},
    ledger::Post,
    reply::Reply,
    schema::DEBIT,
    validation,
};

/// A request that imoje would take, and the shop that it is for.
pub(super) type Accepted = Result<(DebitRequest, Arc<SimulatedShop>), Box<Reply>>;

/// Decides about a debit of a profile. Whatever comes of it is in the ledger before this returns.
pub(super) async fn debit(
    engine: &Arc<Engine>,
    merchant_id: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Reply {
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    let is_json = parsed.is_some();
    let instance = parsed.unwrap_or_default();
    let accepted = accept(engine, merchant_id, headers, is_json, &instance);
    execute(engine, accepted, &instance).await
}

/// Does what was accepted, or answers with the refusal.
pub(super) async fn execute(engine: &Arc<Engine>, accepted: Accepted, instance: &Value) -> Reply {
    let (request, shop) = match accepted {
        Ok(accepted) => accepted,
        Err(reply) => {
            engine
                .book()
                .record_post(refused_post(engine, instance, reply.status()));
            log(instance, "refused", Some(reply.status().as_u16()));
            return *reply;
        }
    };
    let now = engine.now();
    let Debit { behaviour, outcome } = engine.book().debit(&request, &shop, now);
    let (status, reply) = match outcome {
        DebitOutcome::Dropped => (
            "nothing done",
            Reply::plain_error(StatusCode::BAD_REQUEST, instance),
        ),
        DebitOutcome::UnknownProfile => (
            "unknown profile",
            refuse(instance, "SIM-ERROR-PROFILE", "Payment profile not found."),
        ),
        DebitOutcome::InactiveProfile => (
            "inactive profile",
            refuse(instance, "TRX-ERROR-120301", "Payment profile inactive."),
        ),
        DebitOutcome::RepeatedOrder => {
            let (code, message) = ("SIM-ERROR-ORDER", "Order id already used.");
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            (
                "repeated order",
                Reply::error(status, code, message, instance, &[]),
            )
        }
        DebitOutcome::Booked {
            transaction,
            profile,
            notices,
        } => {
            engine.deliver_before_answer(notices).await;
            let action = engine
                .book()
                .challenges
                .get(&transaction.id)
                .map(|challenge| challenge.action(transaction.id));
            let json = TransactionJson::new(&transaction, &profile, 0)
                .with_payment(transaction.payment_id)
                .with_action(action);
            let json = if behaviour.status_code_in_answer == Some(true) {
                json.with_status_code()
            } else {
                json
            };
            ("booked", Reply::ok(json.body(&behaviour)))
        }
    };
    log(
        instance,
        status,
        behaviour.status_sent(reply.status().as_u16()),
    );
    reply.altered(&behaviour, instance)
}

fn refuse(instance: &Value, code: &str, message: &str) -> Reply {
    Reply::error(StatusCode::BAD_REQUEST, code, message, instance, &[])
}

/// One line for each debit: what was asked, what became of it, and the HTTP status that the caller sees.
fn log(instance: &Value, outcome: &str, answer: Option<u16>) {
    tracing::info!(
        order.id = instance["orderId"].as_str(),
        amount = instance["amount"].as_i64(),
        currency = instance["currency"].as_str(),
        profile = instance["paymentProfileId"].as_str(),
        outcome,
        answer = answer.map_or_else(|| "lost".to_owned(), |status| status.to_string()),
        "debit"
    );
}

/// Everything that is checked before the script is asked, so that a script never hides a caller's mistake.
fn accept(
    engine: &Engine,
    merchant_id: &str,
    headers: &HeaderMap,
    is_json: bool,
    instance: &Value,
) -> Accepted {
    let caller = engine.authorise(headers, merchant_id)?;
    check_json(headers, is_json)?;
    let errors = validation::violations(DEBIT, instance);
    if !errors.is_empty() {
        return Err(unprocessable("TRX-ERROR-120001", instance, &errors));
    }
    let profile_id = uuid(instance, "paymentProfileId").unwrap_or_default();
    request(
        engine,
        &caller,
        instance,
        NamedCard::Profile(profile_id),
        None,
    )
}

/// What a valid body asks for, if the shop's channel takes it.
pub(super) fn request(
    engine: &Engine,
    caller: &Caller,
    instance: &Value,
    card: NamedCard,
    challenge: Option<Challenge>,
) -> Accepted {
    let shop = shop(caller, instance)?;
    let text = |field: &str| instance[field].as_str();
    let request = DebitRequest {
        order_id: text("orderId").unwrap_or_default().into(),
        card,
        amount_minor: amount(instance).unwrap_or_default(),
        currency: currency(instance).expect("the schema allows known currencies only"),
        title: text("title").unwrap_or_default().into(),
        notification_url: text("notificationUrl").map(Into::into),
        challenge,
    };
    let is_taken = engine
        .book()
        .channel()
        .takes(request.amount_minor, request.currency);
    if is_taken {
        Ok((request, shop))
    } else {
        Err(not_acceptable(instance))
    }
}

/// "The payload is valid but contains values that cannot be accepted at this time" (imoje API, POST transaction, 406).
pub(super) fn not_acceptable(instance: &Value) -> Box<Reply> {
    Box::new(Reply::plain_error(StatusCode::NOT_ACCEPTABLE, instance))
}

pub(super) fn shop(caller: &Caller, instance: &Value) -> Result<Arc<SimulatedShop>, Box<Reply>> {
    uuid(instance, "serviceId")
        .and_then(|service_id| caller.shop(service_id))
        .map(Arc::clone)
        .ok_or_else(|| Box::new(Reply::plain_error(StatusCode::FORBIDDEN, instance)))
}

/// 400 unless the body says that it is JSON, and is.
pub(super) fn check_json(headers: &HeaderMap, is_json: bool) -> Result<(), Box<Reply>> {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/json") && is_json {
        return Ok(());
    }
    Err(Box::new(Reply::plain_error(
        StatusCode::BAD_REQUEST,
        &Value::Null,
    )))
}

/// The body, which has to be JSON and to say so.
pub(super) fn read_json(headers: &HeaderMap, body: &[u8]) -> Result<Value, Box<Reply>> {
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    check_json(headers, parsed.is_some())?;
    Ok(parsed.unwrap_or_default())
}

/// 422 with everything that is wrong.
pub(super) fn unprocessable(
    code: &str,
    instance: &Value,
    errors: &[validation::Violation],
) -> Box<Reply> {
    Box::new(Reply::error(
        StatusCode::UNPROCESSABLE_ENTITY,
        code,
        "Unprocessable Entity.",
        instance,
        errors,
    ))
}

pub(super) fn uuid(instance: &Value, field: &str) -> Option<Uuid> {
    instance[field].as_str().and_then(|text| text.parse().ok())
}

pub(super) fn amount(instance: &Value) -> Option<u32> {
    instance["amount"]
        .as_u64()
        .and_then(|amount| u32::try_from(amount).ok())
}

pub(super) fn currency(instance: &Value) -> Option<Currency> {
    instance["currency"].as_str().and_then(Currency::from_code)
}

fn refused_post(engine: &Engine, instance: &Value, status: StatusCode) -> Post {
    Post {
        at: engine.now(),
        order_id: instance["orderId"].as_str().map(Into::into),
        payment_profile_id: uuid(instance, "paymentProfileId"),
        amount_minor: amount(instance),
        currency: currency(instance),
        transaction_id: None,
        answered: Some(status.as_u16()),
    }
}
