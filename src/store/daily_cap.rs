//! Plans of days, and what was permitted of them.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use sqlx::PgTransaction;

use crate::domain::daily_cap::{Extent, day_of, end_of_day, is_beyond};
use crate::domain::id::SubscriptionId;
use crate::domain::money::{Currency, Money};
use crate::domain::shop::ShopName;
use crate::domain::tripwire::Trip;
use crate::store::brakes::ALL_SHOPS;
use crate::store::permits::Permit;
use crate::store::{Store, StoreError, readings};

/// What comes on top of the plans of a day and those after it, by day, shop and currency.
#[derive(Debug, Default)]
pub(super) struct Additions(BTreeMap<(NaiveDate, ShopName, Currency), (i64, i64)>);

/// What falls due later than that is in its plan when that is made, however long storing it takes.
const AHEAD: TimeDelta = TimeDelta::days(2);

impl Additions {
    /// Adds a charge that falls due at `due_at`, if that is soon or was before.
    pub fn add(
        &mut self,
        shop: &ShopName,
        amount: Money,
        due_at: DateTime<Utc>,
        now: DateTime<Utc>,
    ) {
        if due_at < now + AHEAD {
            let day = day_of(due_at.max(now));
            let sum = self
                .0
                .entry((day, shop.clone(), amount.currency()))
                .or_default();
            sum.0 += 1;
            sum.1 += amount.minor();
        }
    }

    /// Adds what was gathered elsewhere.
    pub fn merge(&mut self, others: Self) {
        for (key, (charges, amount_minor)) in others.0 {
            let sum = self.0.entry(key).or_default();
            sum.0 += charges;
            sum.1 += amount_minor;
        }
    }

    /// Raises the plans as far as they are made. A plan that is made later sees by itself what was added.
    pub async fn store(self, transaction: &mut PgTransaction<'_>) -> Result<(), StoreError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let (keys, sums): (Vec<_>, Vec<_>) = self.0.into_iter().unzip();
        let days: Vec<_> = keys.iter().map(|(day, ..)| *day).collect();
        let shops: Vec<_> = keys.iter().map(|(_, shop, _)| shop.clone()).collect();
        let currencies: Vec<_> = keys.iter().map(|(.., currency)| *currency).collect();
        let (charges, amounts): (Vec<_>, Vec<_>) = sums.into_iter().unzip();
        sqlx::query!(
            "-- raise_plans
            WITH locked AS (
                SELECT p.shop, p.day, p.currency
                FROM daily_plans p
                WHERE p.shop = ANY($2) AND p.day >= (SELECT min(day) FROM unnest($1::date[]) AS d (day))
                ORDER BY p.shop, p.day, p.currency FOR UPDATE
            ), sums AS (
                SELECT l.shop, l.day, l.currency, sum(n.charges) AS charges, sum(n.amount_minor) AS amount_minor
                FROM locked l
                    JOIN unnest($1::date[], $2::text[], $3::currency[], $4::bigint[], $5::bigint[])
                        AS n (day, shop, currency, charges, amount_minor)
                        ON (n.shop, n.currency) = (l.shop, l.currency) AND n.day <= l.day
                GROUP BY l.shop, l.day, l.currency
            )
            UPDATE daily_plans p SET charges = p.charges + s.charges, amount_minor = p.amount_minor + s.amount_minor
            FROM sums s WHERE (p.shop, p.day, p.currency) = (s.shop, s.day, s.currency)",
            &days,
            &shops as &[ShopName],
            &currencies as &[Currency],
            &charges,
            &amounts,
        )
        .execute(&mut **transaction)
        .await?;
        Ok(())
    }
}

/// How much of a shop was planned for a day, and permitted on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DailyCount {
    /// The shop.
    pub shop: String,
    /// Charges planned.
    pub planned: i64,
    /// Charges permitted.
    pub permitted: i64,
}

impl Store {
    /// What is known of the day of `now`, for each shop: nothing is planned and nothing permitted before it has a plan.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn daily_counts(&self, now: DateTime<Utc>) -> Result<Vec<DailyCount>, StoreError> {
        Ok(sqlx::query_as!(
            DailyCount,
            r#"-- daily_counts
            SELECT s.shop,
                   (SELECT coalesce(sum(p.charges), 0)::bigint FROM daily_plans p WHERE (p.shop, p.day) = (s.shop, $1)) AS "planned!",
                   (SELECT coalesce(sum(d.charges), 0)::bigint FROM daily_permits d WHERE (d.shop, d.day) = (s.shop, $1)) AS "permitted!"
            FROM shops s"#,
            day_of(now),
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// Makes the plan of the day of `now` for those of `shops` that have none yet, and forgets the plans of long ago.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn plan_day(&self, shops: &[ShopName], now: DateTime<Utc>) -> Result<(), StoreError> {
        let is_planned = sqlx::query_scalar!(
            r#"-- is_day_planned
            SELECT NOT EXISTS (
                SELECT FROM unnest($1::text[]) AS n (shop)
                WHERE NOT EXISTS (SELECT FROM daily_plans p WHERE (p.shop, p.day) = (n.shop, $2))) AS "is_planned!""#,
            shops as &[ShopName],
            day_of(now),
        )
        .fetch_one(&self.pool)
        .await?;
        if is_planned {
            return Ok(());
        }
        let mut transaction = self.pool.begin().await?;
        // All that falls due on a day is counted at once, which is more than ordinary work does.
        sqlx::query!("SET LOCAL statement_timeout = '10min'")
            .execute(&mut *transaction)
            .await?;
        sqlx::query!("SET LOCAL enable_hashjoin = on")
            .execute(&mut *transaction)
            .await?;
        sqlx::query!(
            "-- plan_day
            SELECT plan_day($1, $2, $3)",
            shops as &[ShopName],
            day_of(now),
            now,
        )
        .execute(&mut *transaction)
        .await?;
        sqlx::query!(
            "-- forget_plans
            WITH plans AS (DELETE FROM daily_plans WHERE day < $1::date - 40)
            DELETE FROM daily_permits WHERE day < $1::date - 40",
            day_of(now),
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(())
    }
}

/// Raises the plan of the day of `now` by a period of a subscription, if that is to be charged at `at`, still on that day: because the
/// subscription is billed again, or because a person lets the charge go on.
pub(super) async fn add_period(
    transaction: &mut PgTransaction<'_>,
    subscription_id: SubscriptionId,
    at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    if at >= end_of_day(now) {
        return Ok(());
    }
    sqlx::query!(
        "-- raise_plan
        UPDATE daily_plans p SET charges = p.charges + 1, amount_minor = p.amount_minor + s.amount_minor
        FROM subscriptions s WHERE s.subscription_id = $1 AND (p.shop, p.day, p.currency) = (s.shop, $2, s.currency)",
        subscription_id as SubscriptionId,
        day_of(now),
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Lets the plan of the day be made anew for `shop`, or for all: a person has looked and lets charging go on.
pub(super) async fn forget(
    transaction: &mut PgTransaction<'_>,
    shop: Option<&ShopName>,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "-- forget_plan
        SELECT forget_plan($1, $2)",
        shop.map_or(ALL_SHOPS, ShopName::as_str),
        day_of(now),
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Counts permits that are about to be given. Returns the shop for which the day has too many with them, and why its brake comes on.
///
/// A charge counts once on its day: what was not sent and is permitted again was counted before. A day without a plan has no cap; it is
/// planned when it begins.
pub(super) async fn count(
    transaction: &mut PgTransaction<'_>,
    permits: &[Permit],
    now: DateTime<Utc>,
) -> Result<Option<(ShopName, Trip)>, StoreError> {
    let mut sums: BTreeMap<(&ShopName, Currency), (i64, i64)> = BTreeMap::new();
    let counted = permits.iter().filter(|permit| permit.row.is_new_try);
    for permit in counted {
        let sum = sums
            .entry((&permit.shop, permit.amount.currency()))
            .or_default();
        sum.0 += 1;
        sum.1 += permit.amount.minor();
    }
    if sums.is_empty() {
        return Ok(None);
    }
    let sums = Sums {
        shops: sums.keys().map(|(shop, _)| (*shop).clone()).collect(),
        currencies: sums.keys().map(|(_, currency)| *currency).collect(),
        charges: sums.values().map(|(charges, _)| *charges).collect(),
        amounts: sums.values().map(|(_, amount)| *amount).collect(),
    };
    for total in sums.add(transaction, now).await? {
        let permitted = extent(total.charges, total.amount_minor)?;
        let planned = extent(total.planned_charges, total.planned_minor)?;
        if is_beyond(permitted, planned) {
            return Ok(Some((total.shop, Trip::DailyCap { permitted, planned })));
        }
    }
    Ok(None)
}

fn extent(charges: i64, amount_minor: i64) -> Result<Extent, StoreError> {
    Ok(Extent {
        charges: readings::sum(charges)?,
        amount_minor: readings::sum(amount_minor)?,
    })
}

/// How much one claim permits, by shop and currency.
struct Sums {
    shops: Vec<ShopName>,
    currencies: Vec<Currency>,
    charges: Vec<i64>,
    amounts: Vec<i64>,
}

/// How much was planned and permitted on a day.
struct Total {
    shop: ShopName,
    planned_charges: i64,
    planned_minor: i64,
    charges: i64,
    amount_minor: i64,
}

impl Sums {
    /// Counts them, and reads what the day comes to where it has a plan.
    async fn add(
        &self,
        transaction: &mut PgTransaction<'_>,
        now: DateTime<Utc>,
    ) -> Result<Vec<Total>, StoreError> {
        Ok(sqlx::query_as!(
            Total,
            r#"-- count_daily_permits
            WITH counted AS (
                INSERT INTO daily_permits AS d (shop, day, currency, counted_by, charges, amount_minor)
                SELECT n.shop, $5, n.currency, pg_backend_pid(), n.charges, n.amount_minor
                FROM unnest($1::text[], $2::currency[], $3::bigint[], $4::bigint[]) AS n (shop, currency, charges, amount_minor)
                ON CONFLICT (shop, day, currency, counted_by) DO UPDATE
                SET charges = d.charges + excluded.charges, amount_minor = d.amount_minor + excluded.amount_minor
                RETURNING d.shop, d.currency, d.charges, d.amount_minor
            )
            SELECT c.shop AS "shop!: ShopName", p.charges AS planned_charges, p.amount_minor AS planned_minor,
                   (c.charges + o.charges)::bigint AS "charges!", (c.amount_minor + o.amount_minor)::bigint AS "amount_minor!"
            FROM counted c
                JOIN daily_plans p ON p.shop = c.shop AND p.day = $5 AND p.currency = c.currency
                CROSS JOIN LATERAL (
                    SELECT coalesce(sum(d.charges), 0) AS charges, coalesce(sum(d.amount_minor), 0) AS amount_minor
                    FROM daily_permits d
                    WHERE (d.shop, d.day, d.currency) = (c.shop, $5, c.currency) AND d.counted_by <> pg_backend_pid()) o"#,
            &self.shops as &[ShopName],
            &self.currencies as &[Currency],
            &self.charges,
            &self.amounts,
            day_of(now),
        )
        .fetch_all(&mut **transaction)
        .await?)
    }
}
