//! Subscriptions as people read them.

use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;

use crate::domain::charge::ChargeState;
use crate::domain::id::{ProfileId, SubscriptionId};
use crate::domain::money::Currency;
use crate::domain::schedule::Terms;
use crate::domain::shop::ShopName;
use crate::domain::subscription::SubscriptionStatus;
use crate::store::planning::NextPeriod;
use crate::store::readings::{self, Zone};
use crate::store::{Store, StoreError};

/// A row of the view `billing.subscriptions`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the view documents its columns")]
pub struct SubscriptionRow {
    pub subscription_id: SubscriptionId,
    pub external_id: String,
    pub shop: ShopName,
    pub status: SubscriptionStatus,
    pub status_reason: Option<String>,
    pub cid: Option<String>,
    pub payment_profile_id: Option<ProfileId>,
    pub amount_minor: i64,
    pub currency: Currency,
    pub period: String,
    pub anchor_date: NaiveDate,
    pub timezone: String,
    pub next_charge_on: Option<NaiveDate>,
    pub next_due_at: Option<DateTime<Utc>>,
    pub charges_paid: i32,
    pub created_at: DateTime<Utc>,
    pub first_transaction_id: Option<String>,
}

/// Which subscriptions are listed.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Those in this status; all of them when `None`.
    pub status: Option<SubscriptionStatus>,
    /// Those of this shop; of all shops when `None`.
    pub shop: Option<ShopName>,
    /// The most that are listed.
    pub limit: u32,
}

/// The dates of a subscription, and what has become of some of them.
#[derive(Debug, Clone)]
pub struct Timetable {
    /// Its dates.
    pub terms: Terms,
    /// The zone in which they are meant.
    pub zone: Zone,
    /// The first period that Cykl charges.
    pub first_period_no: u32,
    /// The next period that falls due; `None` when it is stopped or finishing.
    pub next: Option<NextPeriod>,
    /// The charges of the periods from the one that was asked for.
    pub charges: Vec<PlannedPeriod>,
}

/// A period with a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedPeriod {
    /// Counted from 0 at the anchor date.
    pub period_no: u32,
    /// The instant at which it fell due.
    pub due_at: DateTime<Utc>,
    /// What became of it.
    pub state: ChargeState,
}

impl Store {
    /// Subscriptions by shop and name.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn list_subscriptions(
        &self,
        filter: &Filter,
    ) -> Result<Vec<SubscriptionRow>, StoreError> {
        Ok(sqlx::query_file_as!(
            SubscriptionRow,
            "src/store/sql/list_subscriptions.sql",
            filter.status as Option<SubscriptionStatus>,
            filter.shop.as_ref().map(ShopName::as_str),
            i64::from(filter.limit),
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// The subscriptions that `name` may mean: the one with that id, or those with that `external_id`, at most one in each shop.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn find_subscriptions(
        &self,
        name: &str,
        shop: Option<&ShopName>,
    ) -> Result<Vec<SubscriptionRow>, StoreError> {
        let subscription_id: Option<SubscriptionId> = name.parse().ok();
        Ok(sqlx::query_file_as!(
            SubscriptionRow,
            "src/store/sql/find_subscriptions.sql",
            subscription_id as Option<SubscriptionId>,
            name,
            shop.map(ShopName::as_str),
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// The dates of a subscription, with the charges that fall due on `from` or later.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer, or knows no such subscription.
    pub async fn timetable(
        &self,
        subscription_id: SubscriptionId,
        from: NaiveDate,
    ) -> Result<Timetable, StoreError> {
        let row = sqlx::query!(
            r#"-- timetable
            SELECT s.period, s.anchor_date, s.timezone, s.starts_on, s.ends_on, s.max_charges, s.first_period_no,
                   d.period_no AS "next_period_no?", d.due_on AS "next_due_on?", d.due_at AS "next_due_at?"
            FROM subscriptions s LEFT JOIN next_period($1) d ON true WHERE s.subscription_id = $1"#,
            subscription_id as SubscriptionId,
        )
        .fetch_one(&self.pool)
        .await?;
        let charges = sqlx::query!(
            r#"-- timetable_charges
            SELECT period_no, due_at, state AS "state: ChargeState" FROM charges
            WHERE subscription_id = $1 AND due_on >= $2 ORDER BY period_no"#,
            subscription_id as SubscriptionId,
            from,
        )
        .fetch_all(&self.pool)
        .await?;
        let next = match (row.next_period_no, row.next_due_on, row.next_due_at) {
            (Some(period_no), Some(due_on), Some(due_at)) => Some(NextPeriod {
                period_no: readings::count(period_no)?,
                due_on,
                due_at,
            }),
            (_, _, _) => None,
        };
        Ok(Timetable {
            terms: Terms {
                anchor: row.anchor_date,
                period: readings::period(&row.period)?,
                starts_on: row.starts_on,
                ends_on: row.ends_on,
                max_charges: row.max_charges.map(readings::count).transpose()?,
            },
            zone: readings::zone(&row.timezone)?,
            first_period_no: readings::count(row.first_period_no)?,
            next,
            charges: charges
                .into_iter()
                .map(|charge| {
                    Ok(PlannedPeriod {
                        period_no: readings::count(charge.period_no)?,
                        due_at: charge.due_at,
                        state: charge.state,
                    })
                })
                .collect::<Result<_, StoreError>>()?,
        })
    }
}
