//! `GET /metrics`: counters of this process, and gauges read from the books.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::HttpState;
use crate::domain::tripwire;
use crate::metrics::{Metrics, ShopMode, ShopOnly, ShopReason, WorkerOnly};
use crate::store::StoreError;
use crate::store::brakes::BrakeMode;

pub(super) async fn metrics(State(state): State<HttpState>) -> Response {
    if let Err(error) = read_gauges(&state).await {
        // Stale gauges would look like calm.
        tracing::warn!(%error, "couldn't read the gauges");
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    (
        [(header::CONTENT_TYPE, Metrics::CONTENT_TYPE)],
        state.metrics.encode(),
    )
        .into_response()
}

async fn read_gauges(state: &HttpState) -> Result<(), StoreError> {
    let now = state.clock.now();
    let gauges = state.store.gauges(now).await?;
    let metrics = &state.metrics;
    metrics.in_doubt.set(gauges.in_doubt);
    metrics.refunds_in_doubt.set(gauges.refunds_in_doubt);
    metrics.held.set(gauges.held);
    metrics.oldest_due_seconds.set(gauges.oldest_due_seconds);
    metrics.outbox_pending.set(gauges.outbox_pending);
    for today in state.store.daily_counts(now).await? {
        let shop = ShopOnly::of(&today.shop);
        metrics
            .daily_planned
            .get_or_create(&shop)
            .set(today.planned);
        metrics
            .daily_permitted
            .get_or_create(&shop)
            .set(today.permitted);
    }
    for lag in state.store.worker_lags(now).await? {
        metrics
            .worker_lag_seconds
            .get_or_create(&WorkerOnly::of(&lag.worker))
            .set(lag.seconds);
    }
    for brake in state.store.brakes().await? {
        let stage = brake.stage.unwrap_or_default();
        metrics
            .brake_stage
            .get_or_create(&ShopOnly::of(&brake.shop))
            .set(stage.into());
        for reason in tripwire::STOPS.into_iter().chain(tripwire::PAUSES) {
            metrics
                .brake_tripped
                .get_or_create(&ShopReason::of(&brake.shop, reason))
                .set((brake.tripped_by() == Some(reason)).into());
        }
        for mode in [BrakeMode::Run, BrakeMode::Drain, BrakeMode::Stop] {
            metrics
                .brake
                .get_or_create(&ShopMode::of(&brake.shop, mode.as_str()))
                .set(i64::from(mode == brake.mode));
        }
    }
    Ok(())
}
