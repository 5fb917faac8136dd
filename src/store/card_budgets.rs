//! The card schemes' budgets: how often a card may be tried, over all its subscriptions.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgTransaction;

use crate::domain::id::CardId;
use crate::store::StoreError;
use crate::store::candidates::Candidate;
use crate::store::permits::{Limits, Permit};

/// When something happened with each card, newest first.
type Times = HashMap<CardId, Vec<DateTime<Utc>>>;

/// Which budget of a card is spent, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// That of the declines of 30 days.
    Month(DateTime<Utc>),
    /// That of the retries of 24 hours, or, for a moment, that of what is on its way.
    Day(DateTime<Utc>),
}

/// What the cards of a claim have spent of their budgets.
pub(super) struct Spent {
    /// The declines of the last 30 days.
    declines: Times,
    /// The retries of the last 24 hours, of the cards that would be retried.
    retries: Times,
}

impl Spent {
    /// Locks the cards that would be retried, and reads what was spent. Two claims for one card wait for each other here, so that
    /// each sees the other's retry.
    pub async fn of_cards(
        transaction: &mut PgTransaction<'_>,
        candidates: &[Candidate],
        now: DateTime<Utc>,
    ) -> Result<Self, StoreError> {
        let retries = candidates.iter().filter(|candidate| candidate.is_retry);
        let retried: Vec<CardId> = retries.filter_map(|candidate| candidate.card_id).collect();
        let retries = retries_of(transaction, &retried, now).await?;
        let cards: Vec<CardId> = candidates
            .iter()
            .filter_map(|candidate| candidate.card_id)
            .collect();
        let declines = sqlx::query!(
            r#"-- declines_of_cards
            SELECT card_id AS "card_id!: CardId", array_agg(decided_at ORDER BY decided_at DESC) AS "decided_at!"
            FROM attempts
            WHERE card_id = ANY($1) AND state = 'rejected' AND decided_at > $2::timestamptz - interval '30 days'
            GROUP BY card_id"#,
            &cards as &[CardId],
            now,
        )
        .fetch_all(&mut **transaction)
        .await?;
        Ok(Self {
            declines: declines
                .into_iter()
                .map(|row| (row.card_id, row.decided_at))
                .collect(),
            retries,
        })
    }

    /// When the card schemes' budgets of the card allow this attempt, unless it does now. It counts over all subscriptions of the
    /// card, and over the `permits` of this claim; a first attempt is no retry, but a card that was declined too often is left alone
    /// altogether.
    pub fn over_budget(
        &self,
        card_id: CardId,
        is_retry: bool,
        permits: &[Permit],
        limits: &Limits,
        now: DateTime<Utc>,
    ) -> Option<Over> {
        let count = |max: u32| usize::try_from(max).expect("a usize holds a u32");
        let frees = |past: &Times, max: u32, window: TimeDelta| {
            let past = past.get(&card_id).map_or(&[][..], Vec::as_slice);
            let max = count(max);
            let recent: Vec<_> = past.iter().filter(|&&at| at > now - window).collect();
            // Newest first: the budget is free again when the oldest that counts has left the window.
            (recent.len() >= max)
                .then(|| recent.get(max.saturating_sub(1)).map_or(now, |&&at| at) + window)
        };
        let declines = frees(
            &self.declines,
            limits.card_declines_30d,
            TimeDelta::days(30),
        );
        if let Some(until) = declines {
            return Some(Over::Month(until));
        }
        // What this claim permits on a card that was declined before may be declined as well. Most cards never were.
        if let Some(declined) = self.declines.get(&card_id) {
            let of_card = |permit: &&Permit| permit.row.card_id == card_id;
            let possible = declined.len() + permits.iter().filter(of_card).count();
            if possible >= count(limits.card_declines_30d) {
                return Some(Over::Day(now + TimeDelta::hours(1)));
            }
        }
        if !is_retry {
            return None;
        }
        let in_this_batch = permits
            .iter()
            .any(|permit| permit.row.card_id == card_id && permit.row.is_retry);
        if in_this_batch {
            return Some(Over::Day(now + TimeDelta::hours(24)));
        }
        frees(&self.retries, limits.card_retries_24h, TimeDelta::hours(24)).map(Over::Day)
    }
}

async fn retries_of(
    transaction: &mut PgTransaction<'_>,
    cards: &[CardId],
    now: DateTime<Utc>,
) -> Result<Times, StoreError> {
    if cards.is_empty() {
        return Ok(Times::new());
    }
    sqlx::query!(
        "-- lock_cards
        SELECT card_id FROM cards WHERE card_id = ANY($1) ORDER BY card_id FOR NO KEY UPDATE",
        cards as &[CardId],
    )
    .fetch_all(&mut **transaction)
    .await?;
    let rows = sqlx::query!(
        r#"-- retries_of_cards
        SELECT card_id AS "card_id!: CardId", array_agg(permitted_at ORDER BY permitted_at DESC) AS "permitted_at!"
        FROM attempts
        WHERE card_id = ANY($1) AND is_retry AND permitted_at > $2::timestamptz - interval '24 hours'
        GROUP BY card_id"#,
        cards as &[CardId],
        now,
    )
    .fetch_all(&mut **transaction)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.card_id, row.permitted_at))
        .collect())
}
