//! The candidates of a claim: the charges that are due, and whether each may have a permit now.

use std::collections::HashSet;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use sqlx::PgTransaction;
use sqlx::types::JsonValue;

use crate::domain::card::FirstTransactionId;
use crate::domain::id::{AttemptId, CardId, ChargeId, ProfileId, SubscriptionId};
use crate::domain::money::Currency;
use crate::domain::order_id::OrderId;
use crate::domain::retry::WAITS_FOR_BUDGET;
use crate::domain::shop::ShopName;
use crate::domain::subscription::SubscriptionStatus;
use crate::domain::title::{self, Occasion};
use crate::store::card_budgets::{Over, Spent};
use crate::store::permit_rows::HeldCharge;
use crate::store::permits::{Asked, Limits, Permit, PermitRow};
use crate::store::{StoreError, new_id, readings};

/// A due charge as the claim sees it.
pub(super) struct Candidate {
    charge_id: ChargeId,
    subscription_id: SubscriptionId,
    shop: ShopName,
    period_no: i32,
    due_on: NaiveDate,
    pub send_at: DateTime<Utc>,
    amount_minor: i64,
    currency: Currency,
    attempts: i16,
    pub is_retry: bool,
    is_new_try: bool,
    first_attempt_at: Option<DateTime<Utc>>,
    status: SubscriptionStatus,
    title: Option<String>,
    period: String,
    invoice: Option<JsonValue>,
    multipayout: Option<JsonValue>,
    notification_url: Option<String>,
    pub card_id: Option<CardId>,
    cid: Option<String>,
    profile_id: Option<ProfileId>,
    first_transaction_id: Option<FirstTransactionId>,
    customer: Option<JsonValue>,
    aliases: Option<JsonValue>,
    card_is_active: bool,
    quiet_until: Option<DateTime<Utc>>,
    is_stale: bool,
    is_blocked: bool,
}

/// What the claim does with a candidate.
enum Verdict {
    Permit(Box<Permit>),
    /// Not before then. Its declined attempts are read again at that time, because a decline can be reversed while a retry waits.
    PutOff(DateTime<Utc>),
    /// The gateway's word on its declined attempts is too old: they are read again first.
    Reread,
    Hold(&'static str),
}

/// What becomes of candidates.
#[derive(Default)]
pub(super) struct Sorted {
    pub permits: Vec<Permit>,
    pub put_off: Vec<(ChargeId, DateTime<Utc>)>,
    pub reread: Vec<ChargeId>,
    pub held: Vec<HeldCharge>,
}

/// Locks and reads up to `wanted` charges of `shops` that are due, oldest first.
pub(super) async fn due(
    transaction: &mut PgTransaction<'_>,
    asked: Asked<'_>,
    shops: &[ShopName],
    wanted: u32,
) -> Result<Vec<Candidate>, StoreError> {
    Ok(sqlx::query_file_as!(
        Candidate,
        "src/store/sql/claim_candidates.sql",
        asked.now,
        shops as &[ShopName],
        i64::from(wanted),
        asked.now - asked.limits.decline_holds,
        asked.following.due_from,
    )
    .fetch_all(&mut **transaction)
    .await?)
}

/// Says of each candidate what becomes of it.
pub(super) fn sort(
    candidates: Vec<Candidate>,
    spent: &Spent,
    limits: &Limits,
    now: DateTime<Utc>,
) -> Result<Sorted, StoreError> {
    let mut sorted = Sorted::default();
    let mut permitted = HashSet::new();
    for candidate in candidates {
        let is_first = !permitted.contains(&candidate.subscription_id);
        let charge = (
            candidate.charge_id,
            candidate.subscription_id,
            candidate.shop.clone(),
        );
        match judge(candidate, is_first, &sorted.permits, spent, limits, now)? {
            Verdict::Permit(permit) => {
                permitted.insert(permit.order_id.subscription_id);
                sorted.permits.push(*permit);
            }
            Verdict::PutOff(until) => sorted.put_off.push((charge.0, until)),
            Verdict::Reread => sorted.reread.push(charge.0),
            Verdict::Hold(reason) => sorted.held.push((charge, reason)),
        }
    }
    Ok(sorted)
}

/// What becomes of a charge while a budget of its card is spent.
fn wait_for_budget(
    over: Over,
    is_retry: bool,
    first_attempt_at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Verdict {
    let waits_until = first_attempt_at.unwrap_or(now) + WAITS_FOR_BUDGET;
    match over {
        Over::Month(_) if is_retry && now >= waits_until => Verdict::Hold("card_budget_spent"),
        Over::Month(until) if is_retry => Verdict::PutOff(until.min(waits_until)),
        // Younger retries of the card may go first day after day as well.
        Over::Day(_) if is_retry && now >= waits_until + TimeDelta::days(1) => {
            Verdict::Hold("card_budget_spent")
        }
        Over::Month(until) | Over::Day(until) => Verdict::PutOff(until),
    }
}

fn judge(
    candidate: Candidate,
    is_first_of_subscription: bool,
    permits: &[Permit],
    spent: &Spent,
    limits: &Limits,
    now: DateTime<Utc>,
) -> Result<Verdict, StoreError> {
    if !candidate.status.is_billable() {
        return Ok(Verdict::Hold("subscription_not_billable"));
    }
    let (Some(card_id), Some(cid), true) =
        (candidate.card_id, candidate.cid, candidate.card_is_active)
    else {
        return Ok(Verdict::Hold("card_inactive"));
    };
    if let Some(quiet_until) = candidate.quiet_until.filter(|&until| until > now) {
        return Ok(Verdict::PutOff(quiet_until));
    }
    if candidate.is_blocked {
        return Ok(Verdict::Hold("in_doubt"));
    }
    if candidate.is_stale {
        return Ok(Verdict::Reread);
    }
    if !is_first_of_subscription {
        return Ok(Verdict::PutOff(now + limits.min_gap));
    }
    if let Some(over) = spent.over_budget(card_id, candidate.is_retry, permits, limits, now) {
        return Ok(wait_for_budget(
            over,
            candidate.is_retry,
            candidate.first_attempt_at,
            now,
        ));
    }
    let title = match &candidate.title {
        Some(template) => Some(title::of_debit(
            template,
            &Occasion {
                period: readings::period(&candidate.period)?,
                period_no: readings::count(candidate.period_no)?,
                due_on: candidate.due_on,
                shop: &candidate.shop,
            },
        )),
        None => None,
    };
    Ok(Verdict::Permit(Box::new(Permit {
        attempt_id: AttemptId::from_uuid(new_id(now)),
        shop: candidate.shop,
        order_id: OrderId {
            subscription_id: candidate.subscription_id,
            period_no: readings::count(candidate.period_no)?,
            attempt_no: readings::small_count(candidate.attempts)? + 1,
        },
        amount: readings::money(candidate.amount_minor, candidate.currency)?,
        cid,
        card: readings::charged_card(
            candidate.profile_id,
            candidate.first_transaction_id,
            candidate.customer,
            candidate.aliases,
        )?,
        title,
        invoice: candidate.invoice,
        multipayout: candidate.multipayout,
        notification_url: candidate.notification_url,
        permitted_at: now,
        row: PermitRow {
            charge_id: candidate.charge_id,
            card_id,
            is_retry: candidate.is_retry,
            is_new_try: candidate.is_new_try,
            first_attempt_at: candidate.first_attempt_at.unwrap_or(now),
        },
    })))
}
