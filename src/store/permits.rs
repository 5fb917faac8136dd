//! Permits: one committed row for each request that may be sent, in batches.
//!
//! A claim looks at the charges that are due, gives a permit to each that may have one, puts the others off to the time
//! when they may, and commits. Nothing is sent unless that commit is confirmed.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgTransaction;
use sqlx::types::JsonValue;

use crate::domain::card::ChargedCard;
use crate::domain::id::{AttemptId, CardId, ChargeId, FenceId};
use crate::domain::money::Money;
use crate::domain::order_id::OrderId;
use crate::domain::permit_record::PermitRecord;
use crate::domain::shop::ShopName;
use crate::domain::tripwire::Trip;
use crate::store::candidates::{self, Sorted};
use crate::store::card_budgets::Spent;
use crate::store::permit_rows;
use crate::store::slow_start::{self, Answer, Hold, Obstacle};
use crate::store::{Refusal, Store, StoreError, TRIES_MAX, readings, rolled_back};
use crate::store::{adoption, brakes, daily_cap};

/// The limits that a permit must keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most attempts that may wait for their answer at once.
    pub unanswered_max: u32,
    /// The most requests on the wire at once; a slow start begins with a part of them.
    pub in_flight_max: u32,
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
    /// The card, as imoje knows it.
    pub cid: String,
    /// How it is charged.
    pub card: ChargedCard,
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
    /// Whether it is the first after the charge was planned or declined, rather than after one that was not sent.
    pub is_new_try: bool,
    pub first_attempt_at: DateTime<Utc>,
}

impl Permit {
    /// What the permit journal keeps of it.
    pub fn record(&self) -> PermitRecord {
        PermitRecord {
            attempt_id: self.attempt_id,
            card_id: self.row.card_id,
            shop: self.shop.clone(),
            order_id: self.order_id,
            amount_minor: self.amount.minor(),
            currency: self.amount.currency(),
            is_retry: self.row.is_retry,
            permitted_at: self.permitted_at,
        }
    }
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
    /// The brake of all shops is on, or came on with this claim.
    Braked,
    /// As much as a slow start allows was sent; it goes on once that is final.
    StartsSlowly,
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

/// What a claim follows on. Nothing, by default.
#[derive(Debug, Clone, Copy, Default)]
pub struct Following<'a> {
    /// What fell due before is left alone: the head of the queue, where nothing is left but the traces of what was claimed before, which
    /// are there for as long as any session holds an old snapshot.
    pub due_from: Option<DateTime<Utc>>,
    /// The last permit there was. A database that does not know it went back in time, and permits nothing.
    pub last_permit: Option<&'a PermitRecord>,
}

/// What is asked for.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub following: Following<'a>,
    shops: &'a [ShopName],
    wanted: u32,
    pub limits: &'a Limits,
    fence_id: FenceId,
    pub now: DateTime<Utc>,
}

/// How one transaction of a claim ended.
enum Tried {
    Claimed(Claim),
    Stopped(Obstacle),
    /// Nothing may be permitted until a person has looked.
    Tripped(Option<ShopName>, Trip),
}

/// What a try has written, before it is committed.
enum Draft {
    Written(Claim),
    /// There is nothing to commit.
    Nothing(Tried),
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
        let following = Following::default();
        self.claim_following(following, shops, wanted, limits, fence_id, now)
            .await
    }

    /// As [`Store::claim`], after what came before.
    ///
    /// # Errors
    /// As [`Store::claim`].
    pub async fn claim_following(
        &self,
        following: Following<'_>,
        shops: &[ShopName],
        wanted: u32,
        limits: &Limits,
        fence_id: FenceId,
        now: DateTime<Utc>,
    ) -> Result<Claim, ClaimError> {
        let asked = Asked {
            following,
            shops,
            wanted,
            limits,
            fence_id,
            now,
        };
        let mut hold = Hold::Shared;
        let mut tries = 0;
        loop {
            match self.claim_once(asked, hold).await {
                Ok(Tried::Claimed(claim)) => return Ok(claim),
                Ok(Tried::Stopped(obstacle)) => match obstacle {
                    Obstacle::Braked => return Ok(Claim::Braked),
                    Obstacle::StartsSlowly => return Ok(Claim::StartsSlowly),
                    Obstacle::MustHoldAlone => hold = Hold::Alone,
                    Obstacle::PauseIsOver => self.end_pauses(now).await?,
                },
                Ok(Tried::Tripped(shop, trip)) => {
                    if self.trip(shop.as_ref(), trip, now).await? {
                        let shop = shop.as_ref().map_or(brakes::ALL_SHOPS, ShopName::as_str);
                        tracing::error!(shop, reason = trip.reason(), "the brake came on");
                    }
                    return Ok(Claim::Braked);
                }
                // A deadlock with a step of one of the subscriptions, for example.
                Err(ClaimError::Failed(error)) if error.is_busy() && tries < TRIES_MAX => {
                    tries += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn claim_once(&self, asked: Asked<'_>, hold: Hold) -> Result<Tried, ClaimError> {
        let mut transaction = self.pool.begin().await.map_err(StoreError::from)?;
        let claim = match self.try_to_claim(&mut transaction, asked, hold).await {
            Ok(Draft::Written(claim)) => claim,
            Ok(Draft::Nothing(tried)) => return Ok(tried),
            Err(error) => return Err(rolled_back(transaction, error).await),
        };
        match (transaction.commit().await.map_err(StoreError::from), claim) {
            (Ok(()), claim) => Ok(Tried::Claimed(claim)),
            (Err(source), Claim::Permits { permits, .. }) => {
                Err(ClaimError::Unconfirmed { permits, source })
            }
            (
                Err(source),
                Claim::NothingDue
                | Claim::Braked
                | Claim::StartsSlowly
                | Claim::TooManyInDoubt
                | Claim::Full,
            ) => Err(ClaimError::Failed(source)),
        }
    }

    async fn try_to_claim(
        &self,
        transaction: &mut PgTransaction<'_>,
        asked: Asked<'_>,
        hold: Hold,
    ) -> Result<Draft, ClaimError> {
        let Asked { limits, now, .. } = asked;
        let answer = slow_start::ask(transaction, asked.shops, hold, limits.in_flight_max, now);
        let allowance = match answer.await? {
            Answer::Allows(allowance) => allowance,
            Answer::Refuses(obstacle) => return Ok(Draft::Nothing(Tried::Stopped(obstacle))),
        };
        let (in_flight, in_doubt) = unanswered(transaction, now).await?;
        if in_doubt >= limits.in_doubt_max {
            return Ok(Draft::Nothing(Tried::Claimed(Claim::TooManyInDoubt)));
        }
        let free = limits.unanswered_max.saturating_sub(in_flight);
        if free == 0 {
            return Ok(Draft::Nothing(Tried::Claimed(Claim::Full)));
        }
        let wanted = asked.wanted.min(free).min(allowance.room).min(BATCH_MAX);
        let candidates = candidates::due(transaction, asked, &allowance.shops, wanted).await?;
        let due_from = candidates.first().map(|candidate| candidate.send_at);
        let is_all = u32::try_from(candidates.len()).is_ok_and(|found| found < wanted);
        if candidates.is_empty() {
            if allowance.is_slow() {
                allowance.count(transaction, &[], now).await?;
                return Ok(Draft::Written(Claim::NothingDue));
            }
            return Ok(Draft::Nothing(Tried::Claimed(Claim::NothingDue)));
        }
        if let Some(forgotten) =
            adoption::forgotten_of(transaction, asked.following.last_permit).await?
        {
            let tripped = Tried::Tripped(None, Trip::behind(forgotten));
            return Ok(Draft::Nothing(tripped));
        }
        let spent = Spent::of_cards(transaction, &candidates, now).await?;
        let Sorted {
            permits,
            put_off,
            reread,
            held,
        } = candidates::sort(candidates, &spent, limits, now)?;
        if let Some((shop, trip)) = daily_cap::count(transaction, &permits, now).await? {
            return Ok(Draft::Nothing(Tried::Tripped(Some(shop), trip)));
        }
        allowance.count(transaction, &permits, now).await?;
        permit_rows::insert(transaction, &permits, limits, asked.fence_id)
            .await
            .map_err(|error| of_refusal(error, &permits))?;
        permit_rows::put_off(transaction, &put_off).await?;
        permit_rows::reread(transaction, &reread, now).await?;
        permit_rows::hold(transaction, &held, self.channels, now).await?;
        Ok(Draft::Written(Claim::Permits {
            due_from,
            is_all,
            permits,
            put_off: put_off.len() + reread.len() + held.len(),
        }))
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
            | Refusal::Forgotten
            | Refusal::RefundSpacing
            | Refusal::RefundSum
            | Refusal::Duplicate
            | Refusal::Value,
        ) => ClaimError::Refused {
            charges: permits.iter().map(|permit| permit.row.charge_id).collect(),
            source,
        },
    }
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
