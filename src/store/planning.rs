//! From subscriptions that are due to charges, in batches.

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::PgTransaction;

use crate::domain::charge::ChargeState;
use crate::domain::event::EventKind;
use crate::domain::id::{ChargeId, SubscriptionId};
use crate::domain::money::Currency;
use crate::domain::schedule::{Birth, TOO_LATE, Terms};
use crate::domain::shop::ShopName;
use crate::store::events::{self, NewEvent};
use crate::store::readings::{self, Zone};
use crate::store::{Store, StoreError, Wake, despite_others, new_id, rolled_back, wake};

/// How many subscriptions are planned in one transaction.
pub const BATCH: i64 = 1_000;

/// A period that has fallen due.
#[derive(Debug, Clone)]
pub struct DueSubscription {
    /// The subscription.
    pub subscription_id: SubscriptionId,
    /// Its shop.
    pub shop: ShopName,
    /// Its dates.
    pub terms: Terms,
    /// The zone in which its dates are meant.
    pub zone: Zone,
    /// The period that is due.
    pub period_no: u32,
    /// The date on which it is due.
    pub due_on: NaiveDate,
    /// The instant at which it fell due.
    pub due_at: DateTime<Utc>,
    amount_minor: i64,
    currency: Currency,
}

/// What the scheduler decided about a due period.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// What its charge is born as.
    pub birth: Birth,
    /// The period after it, if there is one.
    pub next: Option<NextPeriod>,
}

/// The next period of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextPeriod {
    /// Counted from 0 at the anchor date.
    pub period_no: u32,
    /// The date on which it is due.
    pub due_on: NaiveDate,
    /// The instant at which it falls due.
    pub due_at: DateTime<Utc>,
}

/// A period that has its charge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Its shop.
    pub shop: ShopName,
    /// The instant at which it fell due.
    pub due_at: DateTime<Utc>,
    /// What its charge was born as.
    pub birth: Birth,
}

/// Which periods are to be planned.
#[derive(Debug, Clone, Copy)]
struct Due {
    only: Option<SubscriptionId>,
    from: Option<DateTime<Utc>>,
    by: DateTime<Utc>,
}

impl Store {
    /// Plans up to [`BATCH`] periods of `shops` that are due by `now`, each with what `plan` decides, and moves their
    /// subscriptions on to the next period, all in one transaction. Returns what it planned. When one of them cannot be planned,
    /// they are planned one by one, and that one is left where it is and logged. What fell due before `due_from` is left alone: see
    /// [`Following`](crate::store::permits::Following).
    ///
    /// # Errors
    /// [`StoreError`]; the next call finds what was not planned.
    pub async fn plan_due(
        &self,
        shops: &[ShopName],
        due_from: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
        plan: impl Fn(&DueSubscription) -> Plan + Send + Sync,
    ) -> Result<Vec<Planned>, StoreError> {
        let due = Due {
            only: None,
            from: due_from,
            by: now,
        };
        let planned = despite_others(StoreError::is_busy, || {
            self.plan_batch(shops, due, now, &plan)
        });
        match planned.await {
            Err(error) if is_about_one(&error) => self.plan_each(shops, now, &plan).await,
            planned => planned,
        }
    }

    async fn plan_each(
        &self,
        shops: &[ShopName],
        now: DateTime<Utc>,
        plan: &(impl Fn(&DueSubscription) -> Plan + Send + Sync),
    ) -> Result<Vec<Planned>, StoreError> {
        let due = sqlx::query_scalar!(
            r#"-- due_subscription_ids
            SELECT d.subscription_id AS "subscription_id: SubscriptionId"
            FROM due_periods d JOIN subscriptions s USING (subscription_id)
            WHERE d.due_at <= $1 AND s.shop = ANY($2) AND s.status IN ('active', 'past_due')
            ORDER BY d.due_at, d.subscription_id LIMIT 1000"#,
            now,
            shops as &[ShopName],
        )
        .fetch_all(&self.pool)
        .await?;
        let mut planned = Vec::new();
        for subscription_id in due {
            let one = Due {
                only: Some(subscription_id),
                from: None,
                by: now,
            };
            match self.plan_batch(shops, one, now, plan).await {
                Ok(one) => planned.extend(one),
                Err(error) if is_about_one(&error) => {
                    tracing::error!(subscription.id = %subscription_id, %error, "couldn't plan a due period");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(planned)
    }

    /// One transaction, for all that is due or for one subscription of it.
    async fn plan_batch(
        &self,
        shops: &[ShopName],
        due: Due,
        now: DateTime<Utc>,
        plan: &(impl Fn(&DueSubscription) -> Plan + Send + Sync),
    ) -> Result<Vec<Planned>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        match self
            .try_to_plan(&mut transaction, shops, due, now, plan)
            .await
        {
            Ok(planned) => {
                transaction.commit().await?;
                Ok(planned)
            }
            Err(error) => Err(rolled_back(transaction, error).await),
        }
    }

    /// What a batch writes, to be committed.
    async fn try_to_plan(
        &self,
        transaction: &mut PgTransaction<'_>,
        shops: &[ShopName],
        due: Due,
        now: DateTime<Utc>,
        plan: &(impl Fn(&DueSubscription) -> Plan + Send + Sync),
    ) -> Result<Vec<Planned>, StoreError> {
        let due = due_subscriptions(transaction, shops, due).await?;
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let plans: Vec<Plan> = due.iter().map(plan).collect();
        let events = insert_charges(transaction, &due, &plans, now).await?;
        move_on(transaction, &due, &plans).await?;
        events::append(transaction, &events, self.channels, now).await?;
        wake(transaction, Wake::Charger).await?;
        Ok(due
            .into_iter()
            .zip(plans)
            .map(|(due, plan)| Planned {
                shop: due.shop,
                due_at: due.due_at,
                birth: plan.birth,
            })
            .collect())
    }

    /// Completes the subscriptions whose last period is closed. Returns how many.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is completed then.
    pub async fn complete_finished(&self, now: DateTime<Utc>) -> Result<usize, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let completed = sqlx::query!(
            r#"-- complete_finished
            WITH finished AS (
                SELECT s.subscription_id FROM subscriptions s
                WHERE s.is_finishing AND s.status IN ('active', 'past_due') AND NOT EXISTS (
                    SELECT FROM charges c WHERE c.subscription_id = s.subscription_id
                        AND c.state IN ('planned', 'in_flight', 'retry_wait', 'held'))
                ORDER BY s.subscription_id LIMIT 1000 FOR NO KEY UPDATE SKIP LOCKED
            )
            UPDATE subscriptions s SET status = 'completed', status_reason = NULL, is_finishing = false, updated_at = $1
            FROM finished f WHERE s.subscription_id = f.subscription_id
            RETURNING s.subscription_id AS "subscription_id: SubscriptionId", s.shop AS "shop: ShopName""#,
            now,
        )
        .fetch_all(&mut *transaction)
        .await?;
        let events: Vec<_> = completed
            .into_iter()
            .map(|row| NewEvent {
                kind: EventKind::SubscriptionCompleted,
                subscription_id: Some(row.subscription_id),
                shop: Some(row.shop),
                charge_id: None,
                attempt_id: None,
                payload: events::payload(&serde_json::json!({})),
            })
            .collect();
        events::append(&mut transaction, &events, self.channels, now).await?;
        transaction.commit().await?;
        Ok(events.len())
    }
}

/// Whether an error is about one of the rows, rather than about the database.
fn is_about_one(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Refused { .. } | StoreError::Unreadable { .. }
    )
}

async fn due_subscriptions(
    transaction: &mut PgTransaction<'_>,
    shops: &[ShopName],
    due: Due,
) -> Result<Vec<DueSubscription>, StoreError> {
    let rows = sqlx::query!(
        r#"-- due_subscriptions
        SELECT s.subscription_id AS "subscription_id: SubscriptionId", s.shop AS "shop: ShopName", s.amount_minor,
               s.currency AS "currency: Currency", s.period, s.anchor_date, s.timezone, s.starts_on, s.ends_on, s.max_charges,
               d.period_no, d.due_on, d.due_at
        FROM due_periods d JOIN subscriptions s USING (subscription_id)
        WHERE d.due_at <= $1 AND d.due_at >= coalesce($4::timestamptz, '-infinity') AND s.shop = ANY($2)
            AND s.status IN ('active', 'past_due') AND ($3::uuid IS NULL OR d.subscription_id = $3)
        ORDER BY d.due_at, d.subscription_id LIMIT 1000 FOR UPDATE OF d SKIP LOCKED"#,
        due.by,
        shops as &[ShopName],
        due.only as Option<SubscriptionId>,
        due.from,
    )
    .fetch_all(&mut **transaction)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(DueSubscription {
                subscription_id: row.subscription_id,
                shop: row.shop,
                terms: Terms {
                    anchor: row.anchor_date,
                    period: readings::period(&row.period)?,
                    starts_on: row.starts_on,
                    ends_on: row.ends_on,
                    max_charges: row.max_charges.map(readings::count).transpose()?,
                },
                zone: readings::zone(&row.timezone)?,
                period_no: readings::count(row.period_no)?,
                due_on: row.due_on,
                due_at: row.due_at,
                amount_minor: row.amount_minor,
                currency: row.currency,
            })
        })
        .collect()
}

async fn insert_charges(
    transaction: &mut PgTransaction<'_>,
    due: &[DueSubscription],
    plans: &[Plan],
    now: DateTime<Utc>,
) -> Result<Vec<NewEvent>, StoreError> {
    let ids: Vec<_> = due
        .iter()
        .map(|_| ChargeId::from_uuid(new_id(now)))
        .collect();
    let subscriptions: Vec<_> = due.iter().map(|due| due.subscription_id).collect();
    let shops: Vec<_> = due.iter().map(|due| due.shop.clone()).collect();
    let periods: Vec<_> = due
        .iter()
        .map(|due| readings::stored_count(due.period_no))
        .collect::<Result<_, _>>()?;
    let due_on: Vec<_> = due.iter().map(|due| due.due_on).collect();
    let due_at: Vec<_> = due.iter().map(|due| due.due_at).collect();
    let amounts: Vec<_> = due.iter().map(|due| due.amount_minor).collect();
    let currencies: Vec<_> = due.iter().map(|due| due.currency).collect();
    let born: Vec<_> = plans.iter().map(|plan| born(plan.birth)).collect();
    let states: Vec<_> = born.iter().map(|(state, _)| *state).collect();
    let reasons: Vec<_> = born
        .iter()
        .map(|(_, told)| told.map(|(reason, _)| reason.to_owned()))
        .collect();
    let next: Vec<_> = plans
        .iter()
        .map(|plan| plan.next.map(|next| next.due_at))
        .collect();
    // Idempotent: a period that has its charge already keeps it. Nobody else plans it meanwhile: its row in due_periods is locked.
    sqlx::query!(
        "-- insert_charges
        INSERT INTO charges (charge_id, subscription_id, shop, period_no, due_on, due_at, amount_minor, currency, state, reason,
                             next_action_at, next_due_at, planned_at)
        SELECT n.charge_id, n.subscription_id, n.shop, n.period_no, n.due_on, n.due_at, n.amount_minor, n.currency, n.state,
               n.reason, CASE WHEN n.state = 'skipped' THEN NULL ELSE n.due_at END, n.next_due_at, $12
        FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::integer[], $5::date[], $6::timestamptz[], $7::bigint[],
                    $8::currency[], $9::charge_state[], $10::text[], $11::timestamptz[])
            AS n (charge_id, subscription_id, shop, period_no, due_on, due_at, amount_minor, currency, state, reason, next_due_at)
        WHERE NOT EXISTS (SELECT FROM charges c WHERE c.subscription_id = n.subscription_id AND c.period_no = n.period_no)",
        &ids as &[ChargeId],
        &subscriptions as &[SubscriptionId],
        &shops as &[ShopName],
        &periods,
        &due_on,
        &due_at,
        &amounts,
        &currencies as &[Currency],
        &states as &[ChargeState],
        &reasons as &[Option<String>],
        &next as &[Option<DateTime<Utc>>],
        now,
    )
    .execute(&mut **transaction)
    .await?;
    let events = due.iter().zip(&ids).zip(&born).filter_map(|((due, id), (_, told))| {
        let (reason, kind) = (*told)?;
        Some(NewEvent {
            kind,
            subscription_id: Some(due.subscription_id),
            shop: Some(due.shop.clone()),
            charge_id: Some(*id),
            attempt_id: None,
            payload: events::payload(&serde_json::json!({ "reason": reason, "period_no": due.period_no, "due_on": due.due_on })),
        })
    });
    Ok(events.collect())
}

/// The state of a new charge, and what is told about it with which reason.
fn born(birth: Birth) -> (ChargeState, Option<(&'static str, EventKind)>) {
    let told = match birth {
        Birth::Planned => None,
        Birth::Held => Some((TOO_LATE, EventKind::ChargeHeld)),
        Birth::Skipped => Some(("overtaken_by_next_period", EventKind::ChargeSkipped)),
    };
    (birth.charge_state(), told)
}

async fn move_on(
    transaction: &mut PgTransaction<'_>,
    due: &[DueSubscription],
    plans: &[Plan],
) -> Result<(), StoreError> {
    let steps = || due.iter().zip(plans.iter().map(|plan| plan.next));
    let (going_on, next): (Vec<&DueSubscription>, Vec<NextPeriod>) =
        steps().filter_map(|(due, next)| Some((due, next?))).unzip();
    let subscriptions: Vec<_> = going_on.iter().map(|due| due.subscription_id).collect();
    let were_due_at: Vec<_> = going_on.iter().map(|due| due.due_at).collect();
    let periods: Vec<_> = next
        .iter()
        .map(|next| readings::stored_count(next.period_no))
        .collect::<Result<_, _>>()?;
    let due_on: Vec<_> = next.iter().map(|next| next.due_on).collect();
    let due_at: Vec<_> = next.iter().map(|next| next.due_at).collect();
    sqlx::query!(
        "-- move_on
        UPDATE due_periods d
        SET due_at = n.due_at, period_no = n.period_no, due_on = n.due_on
        FROM unnest($1::uuid[], $2::timestamptz[], $3::integer[], $4::date[], $5::timestamptz[])
            AS n (subscription_id, was_due_at, period_no, due_on, due_at)
        WHERE d.due_at = n.was_due_at AND d.subscription_id = n.subscription_id",
        &subscriptions as &[SubscriptionId],
        &were_due_at,
        &periods,
        &due_on,
        &due_at,
    )
    .execute(&mut **transaction)
    .await?;
    let finishing: Vec<_> = steps()
        .filter(|(_, next)| next.is_none())
        .map(|(due, _)| (due.subscription_id, due.due_at))
        .collect();
    finish(transaction, &finishing).await
}

/// Takes subscriptions whose last period was planned out of the queue.
async fn finish(
    transaction: &mut PgTransaction<'_>,
    finishing: &[(SubscriptionId, DateTime<Utc>)],
) -> Result<(), StoreError> {
    if finishing.is_empty() {
        return Ok(());
    }
    let (subscriptions, due_at): (Vec<_>, Vec<_>) = finishing.iter().copied().unzip();
    sqlx::query!(
        "-- finish
        WITH finishing AS (
            DELETE FROM due_periods d USING unnest($1::uuid[], $2::timestamptz[]) AS n (subscription_id, due_at)
            WHERE d.due_at = n.due_at AND d.subscription_id = n.subscription_id
            RETURNING d.subscription_id
        )
        UPDATE subscriptions s SET is_finishing = true FROM finishing f WHERE s.subscription_id = f.subscription_id",
        &subscriptions as &[SubscriptionId],
        &due_at,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}
