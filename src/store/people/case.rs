//! A charge as people decide about it.

use sqlx::{PgConnection, PgTransaction};

use super::RulingError;
use crate::domain::attempt::AttemptState;
use crate::domain::charge::ChargeState;
use crate::domain::decline::DeclineClass;
use crate::domain::id::{AttemptId, ChargeId, SubscriptionId, TransactionId};
use crate::domain::money::{Currency, Money};
use crate::domain::people::{CardFitness, Case, CaseAttempt};
use crate::domain::shop::ShopName;
use crate::domain::subscription::SubscriptionStatus;
use crate::store::{Store, StoreError, readings};

/// A charge that people decide about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChargeCase {
    /// The charge.
    pub charge_id: ChargeId,
    /// Its subscription.
    pub subscription_id: SubscriptionId,
    /// Its shop.
    pub shop: ShopName,
    /// Its period, counted from 0 at the anchor date.
    pub period_no: i32,
    /// How much.
    pub amount: Money,
    /// What decisions about it depend on.
    pub case: Case,
}

impl Store {
    /// What decisions about a charge depend on, as it is at this moment.
    ///
    /// # Errors
    /// [`RulingError`] when there is no such charge, or when it is in the archive, where nothing is decided any more.
    pub async fn charge_case(&self, charge_id: ChargeId) -> Result<ChargeCase, RulingError> {
        let mut connection = self.pool.acquire().await?;
        match read(&mut connection, charge_id).await? {
            Some(case) => Ok(case),
            None => Err(missing(&mut connection, charge_id).await?),
        }
    }
}

/// Locks a charge and then its subscription, as recording news does, and reads what decisions depend on.
pub(super) async fn lock(
    transaction: &mut PgTransaction<'_>,
    charge_id: ChargeId,
) -> Result<ChargeCase, RulingError> {
    let subscription_id = sqlx::query_scalar!(
        r#"-- lock_charge
        SELECT subscription_id AS "subscription_id: SubscriptionId" FROM charges WHERE charge_id = $1 FOR UPDATE"#,
        charge_id as ChargeId,
    )
    .fetch_optional(&mut **transaction)
    .await?;
    if let Some(subscription_id) = subscription_id {
        sqlx::query!(
            "-- lock_subscription_of_charge
            SELECT subscription_id FROM subscriptions WHERE subscription_id = $1 FOR NO KEY UPDATE",
            subscription_id as SubscriptionId,
        )
        .fetch_one(&mut **transaction)
        .await?;
    }
    match read(transaction, charge_id).await? {
        Some(case) => Ok(case),
        None => Err(missing(transaction, charge_id).await?),
    }
}

async fn read(
    connection: &mut PgConnection,
    charge_id: ChargeId,
) -> Result<Option<ChargeCase>, StoreError> {
    let row = sqlx::query_file!("src/store/sql/read_case.sql", charge_id as ChargeId)
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let card = if row.card_is_active {
        CardFitness::Usable
    } else {
        CardFitness::Inactive
    };
    Ok(Some(ChargeCase {
        charge_id,
        subscription_id: row.subscription_id,
        shop: row.shop,
        period_no: row.period_no,
        amount: readings::money(row.amount_minor, row.currency)?,
        case: Case {
            charge: row.state,
            reason: row.reason,
            next_action_at: row.next_action_at,
            subscription: row.status,
            card,
            quiet_until: row.quiet_until,
            attempts: attempts(connection, charge_id).await?,
        },
    }))
}

async fn attempts(
    connection: &mut PgConnection,
    charge_id: ChargeId,
) -> Result<Vec<CaseAttempt>, StoreError> {
    Ok(sqlx::query_file_as!(
        CaseAttempt,
        "src/store/sql/read_case_attempts.sql",
        charge_id as ChargeId,
    )
    .fetch_all(connection)
    .await?)
}

/// Why a charge is not in the books.
async fn missing(
    connection: &mut PgConnection,
    charge_id: ChargeId,
) -> Result<RulingError, StoreError> {
    let is_archived = sqlx::query_scalar!(
        r#"-- is_archived
        SELECT EXISTS (SELECT FROM archived_charges WHERE charge_id = $1) AS "is_archived!""#,
        charge_id as ChargeId,
    )
    .fetch_one(connection)
    .await?;
    Ok(if is_archived {
        RulingError::Archived(charge_id)
    } else {
        RulingError::Missing(charge_id)
    })
}
