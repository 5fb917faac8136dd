//! The HTTP door: routes, and the calls that are not debits.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{ConnectInfo, Path, State},
    http::{HeaderMap, StatusCode},
    response::Response,
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    answers::{ProfileJson, TransactionJson, service},
    behaviour::{Answer, Behaviour},
    connection::{Door, Line},
    debit::{debit, read_json, unprocessable},
    director::Facts,
    engine::{Caller, Engine},
    page, payment,
    plain::transact,
    refund::{can_refund, refund},
    reply::Reply,
    schema::{DEACTIVATE, is_cid},
    script::Call,
    validation,
};

/// What every handler needs.
#[derive(Clone)]
struct Desk {
    engine: Arc<Engine>,
    /// Where the pages of links are.
    origin: Arc<str>,
    closing: CancellationToken,
}

/// Serves until `closing` is cancelled. Then no connection is kept and no caller is waited for.
pub(super) async fn serve(listener: TcpListener, engine: Arc<Engine>, closing: CancellationToken) {
    let origin = listener
        .local_addr()
        .map_or_else(
            |_| "http://127.0.0.1".to_owned(),
            |at| format!("http://{at}"),
        )
        .into();
    let router = Router::new()
        .route(
            "/v1/merchant/{merchant_id}/transaction/profile",
            post(post_debit),
        )
        .route(
            "/v1/merchant/{merchant_id}/transaction",
            post(post_transaction),
        )
        .route(
            "/v1/merchant/{merchant_id}/transaction/{id}",
            get(get_transaction),
        )
        .route(
            "/v1/merchant/{merchant_id}/transaction/{id}/refund",
            post(post_refund),
        )
        .route(
            "/v1/merchant/{merchant_id}/transaction/{id}/can-refund",
            post(post_can_refund),
        )
        .route(
            "/v1/merchant/{merchant_id}/profile/id/{id}",
            get(get_profile).delete(delete_profile),
        )
        .route(
            "/v1/merchant/{merchant_id}/profile/cid/{cid}",
            get(get_profiles_of_customer),
        )
        .route(
            "/v1/merchant/{merchant_id}/profile/deactivate",
            post(post_deactivate),
        )
        .route("/v1/merchant/{merchant_id}/service/{id}", get(get_service))
        .route("/v1/merchant/{merchant_id}/payment", post(post_payment))
        .route(
            "/v1/merchant/{merchant_id}/payment/cancel",
            post(post_cancel_payment),
        )
        .route("/v1/merchant/{merchant_id}/payment/{id}", get(get_payment))
        .route("/pay/{id}", get(get_page).post(post_page))
        .route("/3ds/{id}", get(get_challenge).post(post_challenge))
        .fallback(unknown_endpoint)
        .method_not_allowed_fallback(unknown_endpoint)
        .with_state(Desk {
            engine,
            origin,
            closing: closing.clone(),
        });
    let door = Door::new(listener, closing.clone());
    let served = axum::serve(door, router.into_make_service_with_connect_info::<Line>())
        .with_graceful_shutdown(closing.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the simulator stopped serving");
    }
}

impl Desk {
    async fn send(&self, line: &Line, reply: Reply) -> Response {
        reply.send(line, self.engine.now(), &self.closing).await
    }

    /// Counts a call that is not a debit, and answers it if its caller may make it.
    async fn answer(
        &self,
        line: &Line,
        merchant_id: &str,
        headers: &HeaderMap,
        reply: impl FnOnce(&Caller) -> Result<Reply, Box<Reply>>,
    ) -> Response {
        self.engine.book().count_call();
        let replied = self
            .engine
            .authorise(headers, merchant_id)
            .and_then(|caller| reply(&caller));
        self.send(line, replied.unwrap_or_else(|refusal| *refusal))
            .await
    }

    /// What the script says about a call that is not a debit.
    fn behaviour(
        &self,
        call: Call,
        payment_profile_id: Option<Uuid>,
        order_id: Option<&str>,
    ) -> Behaviour {
        self.engine.book().behaviour_of(Facts {
            call,
            payment_profile_id,
            order_id,
            repetition: 0,
        })
    }
}

async fn post_debit(
    State(desk): State<Desk>,
    ConnectInfo(line): ConnectInfo<Line>,
    Path(merchant_id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    desk.engine.book().count_call();
    let reply = debit(&desk.engine, &merchant_id, &headers, &body).await;
    desk.send(&line, reply).await
}

async fn post_transaction(
    State(desk): State<Desk>,
    ConnectInfo(line): ConnectInfo<Line>,
    Path(merchant_id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    desk.engine.book().count_call();
    let reply = transact(&desk.engine, &desk.origin, &merchant_id, &headers, &body).await;
    desk.send(&line, reply).await
}

async fn get_transaction(
    State(desk): State<Desk>,
    ConnectInfo(line): ConnectInfo<Line>,
    Path((merchant_id, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    desk.answer(&line, &merchant_id, &headers, |caller| {
        Ok(desk.transaction(caller, &id))
    })
    .await
}

async fn post_refund(
    State(desk): State<Desk>,
    ConnectInfo(line): ConnectInfo<Line>,
    Path((merchant_id, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    desk.engine.book().count_call();
    let reply = match desk.engine.authorise(&headers, &merchant_id) {
        Ok(caller) => refund(&desk.engine, &caller, id_of(&id), &headers, &body).await,
        Err(refusal) => *refusal,
    };
    desk.send(&line, reply).await
}

async fn post_can_refund(
    State(desk): State<Desk>,
    ConnectInfo(line): ConnectInfo<Line>,
    Path((merchant_id, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    desk.answer(&line, &merchant_id, &headers, |caller| {
        let sale_id = id_of(&id);
        Ok(can_refund(&desk.engine, caller, sale_id, &headers, &body))
    })
    .await
}

async fn get_profile(
    State(desk): State<Desk>,
    ConnectInfo(line): ConnectInfo<Line>,
    Path((merchant_id, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    desk.answer(&line, &merchant_id, &headers, |caller| {
        Ok(desk.profile(caller, &id))
    })
    .await
}

async fn get_profiles_of_customer(
    State(desk): State<Desk>,
    ConnectInfo(line): ConnectInfo<Line>,
    Path((merchant_id, cid)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    desk.answer(&line, &merchant_id, &headers, |caller| {
        Ok(desk.profiles_of(caller, &cid))
    })
    .await
}

async fn post_deactivate(
    State(desk): State<Desk>,
    ConnectInfo(line): ConnectInfo<Line>,
    Path(merchant_id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    desk.answer(&line, &merchant_id, &headers, |caller| {
        desk.deactivate(caller, &read_json(&headers, &body)?)
    })
    .await
}

async fn delete_profile(
    State(desk): State<Desk>,
    ConnectInfo(line): ConnectInfo<Line>,
    Path((merchant_id, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    desk.answer(&line, &merchant_id, &headers, |caller| {
        Ok(id_of(&id).map_or_else(not_found, |id| desk.end(caller, id, &Value::Null)))
    })
    .await
}

async fn get_service(
    State(desk): State<Desk>,
    ConnectInfo(line): ConnectInfo<Line>,
    Path((merchant_id, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    desk.answer(&line, &merchant_id, &headers, |caller| {
        Ok(desk.service(caller, &id))
    })
    .await
}

async fn post_payment(
    State(desk): State<Desk>,
    ConnectInfo(line): ConnectInfo<Line>,
    Path(merchant_id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    desk.answer(&line, &merchant_id, &headers, |caller| {
        payment::create(&desk.engine, caller, &desk.origin, &headers, &body)
    })
    .await
}

async fn get_payment(
    State(desk): State<Desk>,
    ConnectInfo(line): ConnectInfo<Line>,
    Path((merchant_id, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    desk.answer(&line, &merchant_id, &headers, |caller| {
        Ok(payment::show(
            &desk.engine,
            caller,
            &desk.origin,
            id_of(&id),
        ))
    })
    .await
}

async fn post_cancel_payment(
    State(desk): State<Desk>,
    ConnectInfo(line): ConnectInfo<Line>,
    Path(merchant_id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    desk.answer(&line, &merchant_id, &headers, |caller| {
        payment::cancel(&desk.engine, caller, &desk.origin, &headers, &body)
    })
    .await
}

async fn get_page(
    State(desk): State<Desk>,
    ConnectInfo(line): ConnectInfo<Line>,
    Path(id): Path<String>,
) -> Response {
    desk.send(&line, page::show(&desk.engine, id_of(&id))).await
}

async fn post_page(
    State(desk): State<Desk>,
    ConnectInfo(line): ConnectInfo<Line>,
    Path(id): Path<String>,
    body: Bytes,
) -> Response {
    let reply = page::submit(&desk.engine, id_of(&id), &body).await;
    desk.send(&line, reply).await
}

async fn get_challenge(
    State(desk): State<Desk>,
    ConnectInfo(line): ConnectInfo<Line>,
    Path(id): Path<String>,
) -> Response {
    desk.send(&line, page::ask(&desk.engine, id_of(&id))).await
}

async fn post_challenge(
    State(desk): State<Desk>,
    ConnectInfo(line): ConnectInfo<Line>,
    Path(id): Path<String>,
    body: Bytes,
) -> Response {
    let reply = page::confirm(&desk.engine, id_of(&id), &body);
    desk.send(&line, reply).await
}

async fn unknown_endpoint(
    State(desk): State<Desk>,
    ConnectInfo(line): ConnectInfo<Line>,
) -> Response {
    desk.engine.book().count_call();
    desk.send(&line, not_found()).await
}

/// The id in a path, if it is one of imoje's.
fn id_of(text: &str) -> Option<Uuid> {
    validation::is_uuid_v4(text)
        .then(|| text.parse().ok())
        .flatten()
}

fn not_found() -> Reply {
    Reply::plain_error(StatusCode::NOT_FOUND, &Value::Null)
}

impl Desk {
    fn transaction(&self, caller: &Caller, id: &str) -> Reply {
        let now = self.engine.now();
        let found = id_of(id).and_then(|id| self.engine.book().transaction(id, now));
        let Some((transaction, profile)) =
            found.filter(|(transaction, _)| transaction.shop.merchant_id == caller.merchant_id)
        else {
            let behaviour = self.behaviour(Call::Transaction, None, None);
            return not_found().altered(&behaviour, &Value::Null);
        };
        let behaviour = self.behaviour(
            Call::Transaction,
            Some(transaction.payment_profile_id),
            Some(&transaction.order_id),
        );
        let lag = behaviour
            .read_lag
            .map_or(transaction.course.read_lag, super::course::delta);
        let seen_at = now
            .checked_sub_signed(lag)
            .unwrap_or(transaction.created_at);
        let step = transaction.step_at(seen_at);
        let refunds = self.engine.book().refunds_of(transaction.id);
        let json = TransactionJson::new(&transaction, &profile, step);
        let json = if transaction.refund_of.is_none() {
            json.with_payment(transaction.payment_id)
                .with_first_transaction_id(&transaction, &profile)
                .with_refunds(&refunds, seen_at)
                .with_status_code()
        } else {
            json
        };
        Reply::ok(json.body(&behaviour)).altered(&behaviour, &Value::Null)
    }

    fn profile(&self, caller: &Caller, id: &str) -> Reply {
        let id = id_of(id);
        let behaviour = self.behaviour(Call::Profile, id, None);
        let now = self.engine.now();
        let found = id
            .and_then(|id| self.engine.book().profiles().find(id, now))
            .filter(|profile| !profile.is_plain);
        let reply = found.map_or_else(not_found, |profile| {
            let json = ProfileJson::new(&caller.merchant_id, &profile).in_full(&profile);
            Reply::ok(json!({ "paymentProfile": json }).to_string())
        });
        reply.altered(&behaviour, &Value::Null)
    }

    fn profiles_of(&self, caller: &Caller, cid: &str) -> Reply {
        if !is_cid(cid) {
            return Reply::plain_error(StatusCode::UNPROCESSABLE_ENTITY, &Value::Null);
        }
        let now = self.engine.now();
        let found = self.engine.book().profiles().of_customer(cid, now);
        let behaviour = self.behaviour(
            Call::Profile,
            found.first().map(|profile| profile.profile.id),
            None,
        );
        let json: Vec<_> = found
            .iter()
            .map(|profile| ProfileJson::new(&caller.merchant_id, profile).in_full(profile))
            .collect();
        Reply::ok(json!({ "paymentProfiles": json }).to_string()).altered(&behaviour, &Value::Null)
    }

    fn deactivate(&self, caller: &Caller, instance: &Value) -> Result<Reply, Box<Reply>> {
        let errors = validation::violations(DEACTIVATE, instance);
        let id: Option<Uuid> = instance["paymentProfileId"]
            .as_str()
            .and_then(|text| text.parse().ok());
        let (true, Some(id)) = (errors.is_empty(), id) else {
            return Err(unprocessable("REQ-ERROR-100002", instance, &errors));
        };
        Ok(self.end(caller, id, instance))
    }

    /// Ends a profile.
    fn end(&self, caller: &Caller, id: Uuid, instance: &Value) -> Reply {
        let behaviour = self.behaviour(Call::Deactivate, Some(id), None);
        let takes_effect = behaviour.takes_effect();
        let now = self.engine.now();
        let found = {
            let mut book = self.engine.book();
            let known = book.profiles().find(id, now).is_some();
            if known && takes_effect {
                book.profiles().deactivate(id);
            }
            book.profiles().find(id, now)
        };
        let reply = found.map_or_else(not_found, |profile| {
            let json = ProfileJson::new(&caller.merchant_id, &profile).in_full(&profile);
            Reply::ok(json!({ "paymentProfile": json }).to_string())
        });
        reply.altered(&behaviour, instance)
    }

    fn service(&self, caller: &Caller, id: &str) -> Reply {
        let behaviour = self.behaviour(Call::Service, None, None);
        let online = behaviour.answer != Some(Answer::ChannelOffline);
        let shop = id.parse().ok().and_then(|id| caller.shop(id));
        let reply = match shop {
            Some(shop) => {
                Reply::ok(service(shop, self.engine.book().channel(), online).to_string())
            }
            None => Reply::plain_error(StatusCode::FORBIDDEN, &Value::Null),
        };
        reply.altered(&behaviour, &Value::Null)
    }
}
