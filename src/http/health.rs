//! Health: whether the process lives, and whether it can do its work.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::HttpState;
use crate::store::Wake;

/// `GET /health/live`: the process answers.
pub(super) async fn live() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// `GET /health/ready`: the database answers, its schema is the right one, and every worker that charging needs has run lately.
pub(super) async fn ready(State(state): State<HttpState>) -> (StatusCode, Json<Value>) {
    let database = match state.store.check_schema().await {
        Ok(()) => "ok",
        Err(error) => {
            tracing::warn!(%error, "not ready");
            return not_ready(json!({ "status": "unavailable", "database": "unavailable" }));
        }
    };
    let now = state.clock.now();
    let lags = match state.store.worker_lags(now).await {
        Ok(lags) => lags,
        Err(error) => {
            tracing::warn!(%error, "not ready");
            return not_ready(json!({ "status": "unavailable", "database": "unavailable" }));
        }
    };
    let workers: serde_json::Map<String, Value> = lags
        .iter()
        .map(|lag| (lag.worker.clone(), json!({ "lag_seconds": lag.seconds })))
        .collect();
    let is_lately = |worker: &Wake| {
        let lag = lags.iter().find(|lag| lag.worker == worker.as_str());
        lag.is_some_and(|lag| lag.seconds <= state.worker_lag_max.num_seconds())
    };
    let mut vital = Wake::ALL.iter().filter(|worker| worker.is_vital());
    let is_ready = vital.all(is_lately);
    let body = json!({
        "status": if is_ready { "ok" } else { "unavailable" },
        "database": database,
        "workers": workers,
    });
    if is_ready {
        (StatusCode::OK, Json(body))
    } else {
        not_ready(body)
    }
}

fn not_ready(body: Value) -> (StatusCode, Json<Value>) {
    (StatusCode::SERVICE_UNAVAILABLE, Json(body))
}
