//! The rows of a claim: attempts born in doubt, charges in flight, charges put off, and tombstones.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use sqlx::{Connection, PgTransaction};

use crate::domain::attempt::AttemptState;
use crate::domain::event::EventKind;
use crate::domain::id::{AttemptId, CardId, ChargeId, FenceId, SubscriptionId};
use crate::domain::money::Currency;
use crate::domain::retry::READ_AHEAD;
use crate::domain::shop::ShopName;
use crate::store::events::{self, Channels, NewEvent};
use crate::store::permits::{Limits, Permit};
use crate::store::{Refusal, Store, StoreError, Wake, readings, wake};

/// Writes an attempt for each permit and puts its charge in flight.
pub(super) async fn insert(
    transaction: &mut PgTransaction<'_>,
    permits: &[Permit],
    limits: &Limits,
    fence_id: FenceId,
) -> Result<(), StoreError> {
    if permits.is_empty() {
        return Ok(());
    }
    insert_attempts(
        transaction,
        permits,
        AttemptState::InDoubt,
        limits,
        fence_id,
    )
    .await?;
    let charges: Vec<_> = permits.iter().map(|permit| permit.row.charge_id).collect();
    let subscriptions: Vec<_> = permits
        .iter()
        .map(|permit| permit.order_id.subscription_id)
        .collect();
    let first: Vec<_> = permits
        .iter()
        .map(|permit| permit.row.first_attempt_at)
        .collect();
    let deadlines: Vec<_> = permits
        .iter()
        .map(|permit| permit.permitted_at + limits.answer_timeout)
        .collect();
    sqlx::query!(
        "-- put_in_flight
        UPDATE charges c
        SET state = 'in_flight', attempts = c.attempts + 1, next_action_at = n.deadline_at, first_attempt_at = n.first_attempt_at
        FROM unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[], $4::uuid[])
            AS n (charge_id, first_attempt_at, deadline_at, subscription_id)
        WHERE c.charge_id = n.charge_id AND c.subscription_id = n.subscription_id",
        &charges as &[ChargeId],
        &first,
        &deadlines,
        &subscriptions as &[SubscriptionId],
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// The attempt rows themselves. One whose key is taken is refused, and with it all of them.
async fn insert_attempts(
    transaction: &mut PgTransaction<'_>,
    permits: &[Permit],
    state: AttemptState,
    limits: &Limits,
    fence_id: FenceId,
) -> Result<(), StoreError> {
    let ids: Vec<_> = permits.iter().map(|permit| permit.attempt_id).collect();
    let charges: Vec<_> = permits.iter().map(|permit| permit.row.charge_id).collect();
    let subscriptions: Vec<_> = permits
        .iter()
        .map(|permit| permit.order_id.subscription_id)
        .collect();
    let shops: Vec<_> = permits.iter().map(|permit| permit.shop.clone()).collect();
    let cards: Vec<_> = permits.iter().map(|permit| permit.row.card_id).collect();
    let periods: Vec<_> = permits
        .iter()
        .map(|permit| readings::stored_count(permit.order_id.period_no))
        .collect::<Result<_, _>>()?;
    let numbers: Vec<_> = permits
        .iter()
        .map(|permit| i32::from(permit.order_id.attempt_no))
        .collect();
    let orders: Vec<_> = permits
        .iter()
        .map(|permit| permit.order_id.to_string())
        .collect();
    let amounts: Vec<_> = permits.iter().map(|permit| permit.amount.minor()).collect();
    let currencies: Vec<_> = permits
        .iter()
        .map(|permit| permit.amount.currency())
        .collect();
    let retries: Vec<_> = permits.iter().map(|permit| permit.row.is_retry).collect();
    let permitted: Vec<_> = permits.iter().map(|permit| permit.permitted_at).collect();
    let deadlines: Vec<_> = permits
        .iter()
        .map(|permit| permit.permitted_at + limits.answer_timeout)
        .collect();
    let quiet: Vec<_> = permits
        .iter()
        .map(|permit| permit.permitted_at + limits.min_gap)
        .collect();
    sqlx::query_file!(
        "src/store/sql/insert_attempts.sql",
        &ids as &[AttemptId],
        &charges as &[ChargeId],
        &subscriptions as &[SubscriptionId],
        &shops as &[ShopName],
        &cards as &[CardId],
        &periods,
        &numbers,
        &orders,
        &amounts,
        &currencies as &[Currency],
        &retries,
        &permitted,
        &deadlines,
        &quiet,
        state as AttemptState,
        fence_id as FenceId,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Puts charges off to the time when they may be tried, and lets their declined attempts be read again shortly before: what is still
/// to be read when its time comes is overtaken by the younger periods of its subscription, for as long as there are any.
pub(super) async fn put_off(
    transaction: &mut PgTransaction<'_>,
    charges: &[(ChargeId, DateTime<Utc>)],
) -> Result<(), StoreError> {
    if charges.is_empty() {
        return Ok(());
    }
    let ids: Vec<_> = charges.iter().map(|(id, _)| *id).collect();
    let until: Vec<_> = charges.iter().map(|(_, until)| *until).collect();
    sqlx::query!(
        "-- put_off
        WITH put_off AS (
            UPDATE charges c SET next_action_at = n.until
            FROM unnest($1::uuid[], $2::timestamptz[]) AS n (charge_id, until)
            WHERE c.charge_id = n.charge_id
            RETURNING c.subscription_id, c.period_no, n.until
        )
        UPDATE attempts a SET next_poll_at = p.until - $3::interval
        FROM put_off p
        WHERE a.subscription_id = p.subscription_id AND a.period_no = p.period_no AND a.state = 'rejected'",
        &ids as &[ChargeId],
        &until,
        READ_AHEAD as TimeDelta,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Lets the declined attempts of charges be read again now. The charges stay due.
pub(super) async fn reread(
    transaction: &mut PgTransaction<'_>,
    charges: &[ChargeId],
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    if charges.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "-- reread
        UPDATE attempts a SET next_poll_at = $2
        FROM charges c
        WHERE c.charge_id = ANY($1) AND a.subscription_id = c.subscription_id AND a.period_no = c.period_no
          AND a.state = 'rejected'",
        charges as &[ChargeId],
        now,
    )
    .execute(&mut **transaction)
    .await?;
    wake(transaction, Wake::Resolver).await
}

/// A charge that a person has to look at: the charge, its subscription and its shop, and why.
pub(super) type HeldCharge = ((ChargeId, SubscriptionId, ShopName), &'static str);

/// Holds charges that cannot be sent as they are.
pub(super) async fn hold(
    transaction: &mut PgTransaction<'_>,
    charges: &[HeldCharge],
    channels: Channels,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    if charges.is_empty() {
        return Ok(());
    }
    let ids: Vec<_> = charges.iter().map(|((id, ..), _)| *id).collect();
    let reasons: Vec<_> = charges
        .iter()
        .map(|(_, reason)| (*reason).to_owned())
        .collect();
    sqlx::query!(
        "-- hold_unsendable
        UPDATE charges c SET state = 'held', reason = n.reason
        FROM unnest($1::uuid[], $2::text[]) AS n (charge_id, reason)
        WHERE c.charge_id = n.charge_id",
        &ids as &[ChargeId],
        &reasons,
    )
    .execute(&mut **transaction)
    .await?;
    let events: Vec<_> = charges
        .iter()
        .map(|((charge_id, subscription_id, shop), reason)| NewEvent {
            kind: EventKind::ChargeHeld,
            subscription_id: Some(*subscription_id),
            shop: Some(shop.clone()),
            charge_id: Some(*charge_id),
            attempt_id: None,
            payload: events::payload(&json!({ "reason": reason })),
        })
        .collect();
    events::append(transaction, &events, channels, now).await
}

/// How long a charge is put off that was refused a permit.
const REFUSED_WAIT: TimeDelta = TimeDelta::hours(1);

impl Store {
    /// Puts a charge off that the database refused a permit, so that it does not stand in the way of the others. Unless another
    /// instance was merely faster, people are told: the books and this program disagree.
    ///
    /// # Errors
    /// [`StoreError`]; the charge is claimed and refused again then.
    pub async fn put_off_refused(
        &self,
        charge_id: ChargeId,
        refused: &StoreError,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        let row = sqlx::query!(
            r#"-- put_off_refused
            UPDATE charges SET next_action_at = $2
            WHERE charge_id = $1 AND state IN ('planned', 'retry_wait')
            RETURNING subscription_id AS "subscription_id: SubscriptionId", shop AS "shop: ShopName""#,
            charge_id as ChargeId,
            now + REFUSED_WAIT,
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let was_overtaken = matches!(
            refused.refusal(),
            Some(Refusal::Spacing | Refusal::Unresolved | Refusal::Duplicate)
        );
        if let (Some(row), false) = (row, was_overtaken) {
            let event = NewEvent {
                kind: EventKind::IncidentPermitRefused,
                subscription_id: Some(row.subscription_id),
                shop: Some(row.shop),
                charge_id: Some(charge_id),
                attempt_id: None,
                payload: events::payload(
                    &json!({ "refusal": refused.to_string(), "next_action_at": now + REFUSED_WAIT }),
                ),
            };
            events::append(&mut transaction, &[event], self.channels, now).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Makes sure that permits of which nobody knows whether they were committed can never be used: writes a tombstone under each
    /// one's key. The insert waits for the lost transaction, if that is still alive, and then either takes the key, so that
    /// it can never commit, or finds its row. Returns the permits that turned out to be committed; the caller records
    /// them as not sent.
    ///
    /// # Errors
    /// [`StoreError`]; call it again until it succeeds.
    pub async fn bury(
        &self,
        permits: &[Permit],
        limits: &Limits,
        fence_id: FenceId,
    ) -> Result<Vec<(SubscriptionId, AttemptId)>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        for permit in permits {
            let mut tombstone = transaction.begin().await?;
            let one = std::slice::from_ref(permit);
            match insert_attempts(&mut tombstone, one, AttemptState::NotSent, limits, fence_id)
                .await
            {
                Ok(()) => tombstone.commit().await?,
                Err(error) if error.refusal() == Some(Refusal::Duplicate) => {
                    tombstone.rollback().await?;
                }
                Err(error) => return Err(error),
            }
        }
        let ids: Vec<_> = permits.iter().map(|permit| permit.attempt_id).collect();
        sqlx::query!(
            "-- count_tombstones
            UPDATE charges c SET attempts = greatest(c.attempts, a.attempt_no)
            FROM attempts a
            WHERE a.attempt_id = ANY($1) AND a.state = 'not_sent' AND c.charge_id = a.charge_id",
            &ids as &[AttemptId],
        )
        .execute(&mut *transaction)
        .await?;
        let committed = sqlx::query!(
            r#"-- committed_permits
            SELECT subscription_id AS "subscription_id: SubscriptionId", attempt_id AS "attempt_id: AttemptId"
            FROM attempts WHERE attempt_id = ANY($1) AND state = 'in_doubt'"#,
            &ids as &[AttemptId],
        )
        .fetch_all(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(committed
            .into_iter()
            .map(|row| (row.subscription_id, row.attempt_id))
            .collect())
    }
}
