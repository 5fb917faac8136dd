//! The card schemes' budgets: how often a card may be tried, over all its subscriptions.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgTransaction;

use crate::domain::id::CardId;
use crate::store::StoreError;
use crate::store::permits::{Candidate, Limits, Permit};

/// When each card was retried in the last 24 hours, newest first.
pub(super) type RecentRetries = HashMap<CardId, Vec<DateTime<Utc>>>;

/// Locks the cards that would be retried, and reads how often they were. Two claims for one card wait for each other here,
/// so that each sees the other's retry.
pub(super) async fn lock(
    transaction: &mut PgTransaction<'_>,
    candidates: &[Candidate],
    now: DateTime<Utc>,
) -> Result<RecentRetries, StoreError> {
    let retries = candidates.iter().filter(|candidate| candidate.is_retry);
    let cards: Vec<CardId> = retries.filter_map(|candidate| candidate.card_id).collect();
    if cards.is_empty() {
        return Ok(RecentRetries::new());
    }
    sqlx::query!(
        "-- lock_cards
        SELECT card_id FROM cards WHERE card_id = ANY($1) ORDER BY card_id FOR NO KEY UPDATE",
        &cards as &[CardId],
    )
    .fetch_all(&mut **transaction)
    .await?;
    let rows = sqlx::query!(
        r#"-- retries_of_cards
        SELECT card_id AS "card_id: CardId", array_agg(permitted_at ORDER BY permitted_at DESC) AS "permitted_at!"
        FROM attempts
        WHERE card_id = ANY($1) AND is_retry AND permitted_at > $2::timestamptz - interval '24 hours'
        GROUP BY card_id"#,
        &cards as &[CardId],
        now,
    )
    .fetch_all(&mut **transaction)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.card_id, row.permitted_at))
        .collect())
}

/// When the card schemes' budget of the card allows this attempt, unless it does now. It counts over all subscriptions of the
/// card; a first attempt is no retry, but a card that was declined too often is left alone altogether.
pub(super) fn over_budget(
    candidate: &Candidate,
    permits: &[Permit],
    retries: &[DateTime<Utc>],
    limits: &Limits,
    now: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    let frees = |past: &[DateTime<Utc>], max: u32, window: TimeDelta| {
        let max = usize::try_from(max).expect("a usize holds a u32");
        let recent: Vec<_> = past.iter().filter(|&&at| at > now - window).collect();
        // Newest first: the budget is free again when the oldest that counts has left the window.
        (recent.len() >= max)
            .then(|| recent.get(max.saturating_sub(1)).map_or(now, |&&at| at) + window)
    };
    let declines = frees(
        &candidate.last_declines,
        limits.card_declines_30d,
        TimeDelta::days(30),
    );
    if declines.is_some() || !candidate.is_retry {
        return declines;
    }
    let in_this_batch = permits
        .iter()
        .any(|permit| Some(permit.row.card_id) == candidate.card_id && permit.row.is_retry);
    if in_this_batch {
        return Some(now + TimeDelta::hours(24));
    }
    frees(retries, limits.card_retries_24h, TimeDelta::hours(24))
}
