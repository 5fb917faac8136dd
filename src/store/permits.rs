//! Permits: one committed row for each request that may be sent, in batches.
//!
//! A claim looks at the charges that are due, gives a permit to each that may have one, puts the others off to the time
//! when they may, and commits. Nothing is sent unless that commit is confirmed.

use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgTransaction;
use sqlx::types::JsonValue;

use crate::domain::id::{AttemptId, CardId, ChargeId, FenceId, ProfileId, SubscriptionId};
use crate::domain::money::{Currency, Money};
use crate::domain::order_id::OrderId;
use crate::domain::shop::ShopName;
use crate::domain::subscription::SubscriptionStatus;
use crate::store::brakes::{ALL_SHOPS, BrakeMode};
use crate::store::card_budgets::Spent;
use crate::store::permit_rows;
use crate::store::{Refusal, Store, StoreError, TRIES_MAX, new_id, readings};

/// The limits that a permit must keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most attempts that may wait for their answer at once.
    pub unanswered_max: u32,
    /// The most attempts that may be in doubt past their deadline; beyond it nothing is sent.
    pub in_doubt_max: u32,
    /// How long after its permit an attempt's answer may still come by itself.
    pub answer_timeout: TimeDelta,
    /// The least time between two attempts of one subscription.
    pub min_gap: TimeDelta,
    /// The most declined attempts of one card in 30 days.
    pub card_declines_30d: u32,
    /// The most retries of one card in 24 hours.
    pub card_retries_24h: u32,
    /// How long the gateway's word that an earlier attempt was declined holds good for a retry; then it is read again.
    pub decline_holds: TimeDelta,
}

/// A request that may be sent, once.
#[derive(Debug, Clone, PartialEq)]
pub struct Permit {
    /// The attempt that it belongs to.
    pub attempt_id: AttemptId,
    /// The shop that is paid.
    pub shop: ShopName,
    /// What imoje is told as `orderId`.
    pub order_id: OrderId,
    /// How much.
    pub amount: Money,
    /// Whose card.
    pub profile_id: ProfileId,
    /// What the payer reads.
    pub title: Option<String>,
    /// Passed through to imoje.
    pub invoice: Option<JsonValue>,
    /// Passed through to imoje.
    pub multipayout: Option<JsonValue>,
    /// The shop's own address for notices about this subscription, instead of ours.
    pub notification_url: Option<String>,
    /// When the permit was committed.
    pub permitted_at: DateTime<Utc>,
    pub(super) row: PermitRow,
}

/// What the attempt's row needs besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PermitRow {
    pub charge_id: ChargeId,
    pub card_id: CardId,
    pub is_retry: bool,
    pub first_attempt_at: DateTime<Utc>,
}

/// What a claim brought.
#[derive(Debug)]
pub enum Claim {
    /// Requests to send. May be empty when every due charge had to be put off.
    Permits {
        /// When the first of the charges fell due, or was to be retried.
        due_from: Option<DateTime<Utc>>,
        /// Whether these were all that are due.
        is_all: bool,
        /// The permits, committed.
        permits: Vec<Permit>,
        /// How many charges were put off.
        put_off: usize,
    },
    /// Nothing is due.
    NothingDue,
    /// The brake of all shops is on.
    Braked,
    /// As many attempts are in doubt as may be.
    TooManyInDoubt,
    /// As many attempts wait for their answer as may, here and elsewhere.
    Full,
}

/// A claim that failed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Nothing was permitted.
    #[error(transparent)]
    Failed(#[from] StoreError),
    /// The database refused one of these charges a permit, and with it all of them. None was permitted; claim them one by one.
    #[error("a permit was refused: {source}")]
    Refused {
        /// The charges that were claimed together.
        charges: Vec<ChargeId>,
        /// Which rule refused.
        source: StoreError,
    },
    /// Whether these permits were committed is not known. None of them may be sent; they have to be buried.
    #[error("the outcome of a commit is unknown: {source}")]
    Unconfirmed {
        /// The permits.
        permits: Vec<Permit>,
        /// What happened to the commit.
        source: StoreError,
    },
}

/// A due charge as the claim sees it.
pub(super) struct Candidate {
    charge_id: ChargeId,
    subscription_id: SubscriptionId,
    shop: ShopName,
    period_no: i32,
    send_at: DateTime<Utc>,
    amount_minor: i64,
    currency: Currency,
    attempts: i16,
    pub is_retry: bool,
    first_attempt_at: Option<DateTime<Utc>>,
    status: SubscriptionStatus,
    title: Option<String>,
    invoice: Option<JsonValue>,
    multipayout: Option<JsonValue>,
    notification_url: Option<String>,
    pub card_id: Option<CardId>,
    profile_id: Option<ProfileId>,
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

/// The largest claim.
pub const BATCH_MAX: u32 = 1_000;

impl Store {
    /// Gives permits to up to `wanted` due charges of `shops`, and commits them.
    ///
    /// # Errors
    /// [`ClaimError::Failed`]: nothing was permitted. [`ClaimError::Unconfirmed`]: call [`Store::bury`].
    pub async fn claim(
        &self,
        shops: &[ShopName],
        wanted: u32,
        limits: &Limits,
        fence_id: FenceId,
        now: DateTime<Utc>,
    ) -> Result<Claim, ClaimError> {
        self.claim_from(None, shops, wanted, limits, fence_id, now)
            .await
    }

    /// As [`Store::claim`], but leaves alone what fell due before `due_from`: the head of the queue, where nothing is left but the
    /// traces of what was claimed before, which are there for as long as any session holds an old snapshot.
    ///
    /// # Errors
    /// As [`Store::claim`].
    pub async fn claim_from(
        &self,
        due_from: Option<DateTime<Utc>>,
        shops: &[ShopName],
        wanted: u32,
        limits: &Limits,
        fence_id: FenceId,
        now: DateTime<Utc>,
    ) -> Result<Claim, ClaimError> {
        let mut tries = 0;
        loop {
            let claim = self
                .claim_once(due_from, shops, wanted, limits, fence_id, now)
                .await;
            match claim {
                // A deadlock with a step of one of the subscriptions, for example.
                Err(ClaimError::Failed(error)) if error.is_busy() && tries < TRIES_MAX => {
                    tries += 1
                }
                claim => return claim,
            }
        }
    }

    async fn claim_once(
        &self,
        due_from: Option<DateTime<Utc>>,
        shops: &[ShopName],
        wanted: u32,
        limits: &Limits,
        fence_id: FenceId,
        now: DateTime<Utc>,
    ) -> Result<Claim, ClaimError> {
        let mut transaction = self.pool.begin().await.map_err(StoreError::from)?;
        let Some(shops) = unbraked(&mut transaction, shops).await? else {
            return Ok(Claim::Braked);
        };
        let (in_flight, in_doubt) = unanswered(&mut transaction, now).await?;
        if in_doubt >= limits.in_doubt_max {
            return Ok(Claim::TooManyInDoubt);
        }
        let free = limits.unanswered_max.saturating_sub(in_flight);
        if free == 0 {
            return Ok(Claim::Full);
        }
        let wanted = wanted.min(free).min(BATCH_MAX);
        let candidates = candidates(
            &mut transaction,
            &shops,
            wanted,
            now - limits.decline_holds,
            due_from,
            now,
        )
        .await?;
        let due_from = candidates.first().map(|candidate| candidate.send_at);
        let is_all = u32::try_from(candidates.len()).is_ok_and(|found| found < wanted);
        if candidates.is_empty() {
            return Ok(Claim::NothingDue);
        }
        let spent = Spent::of_cards(&mut transaction, &candidates, now).await?;
        let mut permits: Vec<Permit> = Vec::new();
        let mut put_off = Vec::new();
        let mut reread = Vec::new();
        let mut held = Vec::new();
        let mut permitted = HashSet::new();
        for candidate in candidates {
            let is_first = !permitted.contains(&candidate.subscription_id);
            let charge = (
                candidate.charge_id,
                candidate.subscription_id,
                candidate.shop.clone(),
            );
            match judge(candidate, is_first, &permits, &spent, limits, now)? {
                Verdict::Permit(permit) => {
                    permitted.insert(permit.order_id.subscription_id);
                    permits.push(*permit);
                }
                Verdict::PutOff(until) => put_off.push((charge.0, until)),
                Verdict::Reread => reread.push(charge.0),
                Verdict::Hold(reason) => held.push((charge, reason)),
            }
        }
        permit_rows::insert(&mut transaction, &permits, limits, fence_id)
            .await
            .map_err(|error| of_refusal(error, &permits))?;
        permit_rows::put_off(&mut transaction, &put_off).await?;
        permit_rows::reread(&mut transaction, &reread, now).await?;
        permit_rows::hold(&mut transaction, &held, self.channels, now).await?;
        match transaction.commit().await.map_err(StoreError::from) {
            Ok(()) => Ok(Claim::Permits {
                due_from,
                is_all,
                permits,
                put_off: put_off.len() + reread.len() + held.len(),
            }),
            Err(source) => Err(ClaimError::Unconfirmed { permits, source }),
        }
    }
}

/// Whether the refusal is about one of the charges, rather than about charging altogether.
fn of_refusal(source: StoreError, permits: &[Permit]) -> ClaimError {
    match source.refusal() {
        None | Some(Refusal::Brake | Refusal::Fence) => ClaimError::Failed(source),
        Some(
            Refusal::Terms
            | Refusal::Spacing
            | Refusal::Unresolved
            | Refusal::Transition
            | Refusal::Immutable
            | Refusal::Evidence
            | Refusal::AppendOnly
            | Refusal::Settlement
            | Refusal::Absence
            | Refusal::Duplicate
            | Refusal::Value,
        ) => ClaimError::Refused {
            charges: permits.iter().map(|permit| permit.row.charge_id).collect(),
            source,
        },
    }
}

/// The shops whose brake, and the brake of all, say run. `None` when the brake of all does not.
async fn unbraked(
    transaction: &mut PgTransaction<'_>,
    shops: &[ShopName],
) -> Result<Option<Vec<ShopName>>, StoreError> {
    let brakes = sqlx::query!(
        r#"-- lock_brakes
        SELECT shop, mode AS "mode: BrakeMode" FROM brakes FOR SHARE"#
    )
    .fetch_all(&mut **transaction)
    .await?;
    let runs = |shop: &str| {
        brakes
            .iter()
            .find(|brake| brake.shop == shop)
            .map(|brake| brake.mode == BrakeMode::Run)
    };
    if runs(ALL_SHOPS) != Some(true) {
        return Ok(None);
    }
    Ok(Some(
        shops
            .iter()
            .filter(|shop| runs(shop.as_str()) != Some(false))
            .cloned()
            .collect(),
    ))
}

/// How many attempts wait for their answer, and how many are in doubt past their deadline. One that was written off is not
/// looked at any more and does not count.
async fn unanswered(
    transaction: &mut PgTransaction<'_>,
    now: DateTime<Utc>,
) -> Result<(u32, u32), StoreError> {
    let counts = sqlx::query!(
        r#"-- unanswered
        SELECT count(*) FILTER (WHERE deadline_at > $1) AS "in_flight!",
               count(*) FILTER (WHERE deadline_at <= $1) AS "in_doubt!"
        FROM attempts WHERE state = 'in_doubt' AND next_poll_at IS NOT NULL"#,
        now,
    )
    .fetch_one(&mut **transaction)
    .await?;
    Ok((
        readings::count(counts.in_flight)?,
        readings::count(counts.in_doubt)?,
    ))
}

async fn candidates(
    transaction: &mut PgTransaction<'_>,
    shops: &[ShopName],
    wanted: u32,
    confirmed_since: DateTime<Utc>,
    due_from: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<Vec<Candidate>, StoreError> {
    Ok(sqlx::query_file_as!(
        Candidate,
        "src/store/sql/claim_candidates.sql",
        now,
        shops as &[ShopName],
        i64::from(wanted),
        confirmed_since,
        due_from,
    )
    .fetch_all(&mut **transaction)
    .await?)
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
    let (Some(card_id), true) = (candidate.card_id, candidate.card_is_active) else {
        return Ok(Verdict::Hold("card_inactive"));
    };
    let Some(profile_id) = candidate.profile_id else {
        return Ok(Verdict::Hold("card_without_profile"));
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
    if let Some(until) = spent.over_budget(card_id, candidate.is_retry, permits, limits, now) {
        return Ok(Verdict::PutOff(until));
    }
    Ok(Verdict::Permit(Box::new(Permit {
        attempt_id: AttemptId::from_uuid(new_id(now)),
        shop: candidate.shop,
        order_id: OrderId {
            subscription_id: candidate.subscription_id,
            period_no: readings::count(candidate.period_no)?,
            attempt_no: readings::small_count(candidate.attempts)? + 1,
        },
        amount: readings::money(candidate.amount_minor, candidate.currency)?,
        profile_id,
        title: candidate.title,
        invoice: candidate.invoice,
        multipayout: candidate.multipayout,
        notification_url: candidate.notification_url,
        permitted_at: now,
        row: PermitRow {
            charge_id: candidate.charge_id,
            card_id,
            is_retry: candidate.is_retry,
            first_attempt_at: candidate.first_attempt_at.unwrap_or(now),
        },
    })))
}
