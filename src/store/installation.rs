//! The installation fence: which database, and which shops, charging was allowed in.

use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::PgTransaction;

use crate::domain::event::EventKind;
use crate::domain::id::FenceId;
use crate::domain::shop::{Environment, ShopName};
use crate::store::events::{self, NewEvent};
use crate::store::status::By;
use crate::store::{Store, StoreError, new_id};

/// A shop as the configuration names it, as far as the fence is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShopIdentity {
    /// Its name in the configuration.
    pub shop: ShopName,
    /// Whose money it moves.
    pub environment: Environment,
    /// imoje's id of the merchant.
    pub merchant_id: String,
    /// imoje's id of the shop.
    pub service_id: String,
}

/// Why this installation may not charge from this database.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    /// The database was restored, promoted, moved or copied.
    #[error(
        "this database was moved, restored, promoted or copied since charging was allowed in it ({was} then, {is} now): \
         its books may lack debits that were made. Compare them with imoje, then run \"cykl adopt --reason ...\""
    )]
    Moved {
        /// The place that was recorded.
        was: String,
        /// The place it is in now.
        is: String,
    },
    /// A shop of the database is configured with other credentials.
    #[error(
        "shop {shop} belongs to {recorded} in this database, but the configuration says {configured}: its cards could be \
         charged in the wrong place. Correct the configuration, or run \"cykl adopt --reason ...\" if the change is meant"
    )]
    OtherShop {
        /// The shop's name.
        shop: ShopName,
        /// What the database recorded.
        recorded: String,
        /// What the configuration says.
        configured: String,
    },
    /// The database could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a running daemon finds at the fence that it has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FenceLook {
    /// It is as it was.
    Open,
    /// No permit is given to this daemon any more, whatever it asks for.
    Closed {
        /// Whether nobody had told it yet.
        is_news: bool,
    },
}

impl Store {
    /// Passes the fence: records this installation in an empty database, or compares it with what is recorded. The id goes
    /// into every permit.
    ///
    /// # Errors
    /// [`FenceError::Moved`] or [`FenceError::OtherShop`]: nothing may be charged until `cykl adopt`.
    pub async fn pass_fence(
        &self,
        shops: &[ShopIdentity],
        actor: &str,
        now: DateTime<Utc>,
    ) -> Result<FenceId, FenceError> {
        let mut transaction = self.pool.begin().await.map_err(StoreError::from)?;
        // Locked, so that an adoption that is under way is seen.
        sqlx::query!("SELECT singleton FROM installation FOR UPDATE")
            .fetch_optional(&mut *transaction)
            .await
            .map_err(StoreError::from)?;
        let fence_id = match recorded_installation(&mut transaction).await? {
            Some(installation) => installation.in_place()?,
            None => record_first_installation(&mut transaction, actor, now).await?,
        };
        record_new_shops(&mut transaction, shops, now).await?;
        self.note_webhook(&mut transaction).await?;
        transaction.commit().await.map_err(StoreError::from)?;
        Ok(fence_id)
    }

    /// Notes whether this daemon has a webhook, for the functions by which people change something in SQL.
    async fn note_webhook(&self, transaction: &mut PgTransaction<'_>) -> Result<(), StoreError> {
        sqlx::query!(
            "-- note_webhook
            UPDATE installation SET has_webhook = $1 WHERE has_webhook <> $1",
            self.channels.webhook,
        )
        .execute(&mut **transaction)
        .await?;
        Ok(())
    }

    /// Whether the fence would let these shops through, and changes nothing. `None` in a database that nothing ever charged from.
    ///
    /// # Errors
    /// As [`Store::pass_fence`].
    pub async fn look_at_fence(
        &self,
        shops: &[ShopIdentity],
    ) -> Result<Option<FenceId>, FenceError> {
        let mut transaction = self.pool.begin().await.map_err(StoreError::from)?;
        let installation = recorded_installation(&mut transaction).await?;
        let fence_id = installation
            .map(RecordedInstallation::in_place)
            .transpose()?;
        for shop in shops {
            is_recorded(&mut transaction, shop).await?;
        }
        Ok(fence_id)
    }

    /// Looks whether the fence that a daemon passed as `fence_id` has closed behind it, and tells each such change once, whichever daemon
    /// sees it first.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn watch_fence(
        &self,
        fence_id: FenceId,
        now: DateTime<Utc>,
    ) -> Result<FenceLook, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let found = recorded_installation(&mut transaction).await?;
        let Some(found) = found else {
            // Somebody has deleted the row that would say whether it was told.
            return Ok(FenceLook::Closed { is_news: true });
        };
        if found.is_here && found.fence_id == fence_id {
            if found.is_told_elsewhere {
                forget_place(&mut transaction).await?;
                transaction.commit().await?;
            }
            return Ok(FenceLook::Open);
        }
        // That the database is elsewhere is true for every daemon; that it was adopted, for those that had passed before.
        let (is_news, payload) = if found.is_here {
            let payload = json!({ "cause": "adopted", "fence_id": found.fence_id });
            (is_adoption_told_first(&mut transaction).await?, payload)
        } else {
            let payload = json!({ "cause": "moved", "was": found.was, "is": found.is });
            (
                is_place_told_first(&mut transaction, &found.is).await?,
                payload,
            )
        };
        if is_news {
            let event = NewEvent {
                kind: EventKind::IncidentFence,
                subscription_id: None,
                shop: None,
                charge_id: None,
                attempt_id: None,
                payload: events::payload(&payload),
            };
            events::append(&mut transaction, &[event], self.channels, now).await?;
            transaction.commit().await?;
        }
        Ok(FenceLook::Closed { is_news })
    }

    /// Records shops that the database does not know yet, for commands that store subscriptions before the daemon ever ran.
    ///
    /// # Errors
    /// As [`Store::pass_fence`], without looking at where the database is.
    pub async fn record_shops(
        &self,
        shops: &[ShopIdentity],
        now: DateTime<Utc>,
    ) -> Result<(), FenceError> {
        let mut transaction = self.pool.begin().await.map_err(StoreError::from)?;
        record_new_shops(&mut transaction, shops, now).await?;
        transaction.commit().await.map_err(StoreError::from)?;
        Ok(())
    }
}

/// What the database says about the installation, and whether it still is where it was.
struct RecordedInstallation {
    fence_id: FenceId,
    is_here: bool,
    was: String,
    is: String,
    is_told_elsewhere: bool,
}

impl RecordedInstallation {
    /// The id of its fence, provided that the database is where it was.
    fn in_place(self) -> Result<FenceId, FenceError> {
        if self.is_here {
            Ok(self.fence_id)
        } else {
            Err(FenceError::Moved {
                was: self.was,
                is: self.is,
            })
        }
    }
}

/// The installation that is recorded, if one is.
async fn recorded_installation(
    transaction: &mut PgTransaction<'_>,
) -> Result<Option<RecordedInstallation>, StoreError> {
    Ok(sqlx::query_as!(
        RecordedInstallation,
        r#"-- recorded_installation
        SELECT i.fence_id AS "fence_id: FenceId", i.told_place IS NOT NULL AS "is_told_elsewhere!",
               (i.system_identifier, i.timeline, i.database_oid) = (p.system_identifier, p.timeline, p.database_oid) AS "is_here!",
               format('system %s, timeline %s, database %s', i.system_identifier, i.timeline, i.database_oid) AS "was!",
               format('system %s, timeline %s, database %s', p.system_identifier, p.timeline, p.database_oid) AS "is!"
        FROM installation i, current_place() p"#
    )
    .fetch_optional(&mut **transaction)
    .await?)
}

/// Notes that the database is back where it was: if it goes away again, that is news.
async fn forget_place(transaction: &mut PgTransaction<'_>) -> Result<(), StoreError> {
    sqlx::query!(
        "-- forget_place
        UPDATE installation SET told_place = NULL WHERE told_place IS NOT NULL"
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Notes that it is told that the database is at `place`. Returns whether nobody had.
async fn is_place_told_first(
    transaction: &mut PgTransaction<'_>,
    place: &str,
) -> Result<bool, StoreError> {
    let noted = sqlx::query!(
        "-- note_place
        UPDATE installation SET told_place = $1 WHERE told_place IS DISTINCT FROM $1",
        place,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(noted.rows_affected() > 0)
}

/// Notes that the last adoption is told to daemons that run. Returns whether nobody had.
async fn is_adoption_told_first(transaction: &mut PgTransaction<'_>) -> Result<bool, StoreError> {
    let noted = sqlx::query!(
        "-- note_adoption
        UPDATE installation SET told_fence_id = fence_id WHERE told_fence_id IS DISTINCT FROM fence_id"
    )
    .execute(&mut **transaction)
    .await?;
    Ok(noted.rows_affected() > 0)
}

/// Whether the shop is recorded, provided that it is recorded as it is configured.
async fn is_recorded(
    transaction: &mut PgTransaction<'_>,
    shop: &ShopIdentity,
) -> Result<bool, FenceError> {
    match recorded_shop(transaction, &shop.shop).await? {
        Some(recorded) if recorded == *shop => Ok(true),
        Some(recorded) => Err(FenceError::OtherShop {
            shop: shop.shop.clone(),
            recorded: describe(&recorded),
            configured: describe(shop),
        }),
        None => Ok(false),
    }
}

async fn record_new_shops(
    transaction: &mut PgTransaction<'_>,
    shops: &[ShopIdentity],
    now: DateTime<Utc>,
) -> Result<(), FenceError> {
    for shop in shops {
        if !is_recorded(transaction, shop).await? {
            record_shop(transaction, shop, now).await?;
        }
    }
    Ok(())
}

fn describe(shop: &ShopIdentity) -> String {
    format!(
        "{} merchant {} service {}",
        shop.environment, shop.merchant_id, shop.service_id
    )
}

/// Records the first installation, unless another instance has just done it; returns the one that counts.
async fn record_first_installation(
    transaction: &mut PgTransaction<'_>,
    actor: &str,
    now: DateTime<Utc>,
) -> Result<FenceId, StoreError> {
    sqlx::query!(
        "-- record_first_installation
        INSERT INTO installation (fence_id, system_identifier, timeline, database_oid, adopted_at, adopted_by, reason)
        SELECT $1, p.system_identifier, p.timeline, p.database_oid, $2, $3, 'first start' FROM current_place() p
        ON CONFLICT (singleton) DO NOTHING",
        FenceId::from_uuid(new_id(now)) as FenceId,
        now,
        actor,
    )
    .execute(&mut **transaction)
    .await?;
    release_unset_brake(transaction, actor, now).await?;
    Ok(sqlx::query_scalar!(
        r#"-- first_installation
        SELECT fence_id AS "fence_id: FenceId" FROM installation"#
    )
    .fetch_one(&mut **transaction)
    .await?)
}

/// Records that charging is allowed in this database from now on, where it is.
pub(super) async fn record(
    transaction: &mut PgTransaction<'_>,
    by: By<'_>,
    now: DateTime<Utc>,
) -> Result<FenceId, StoreError> {
    let fence_id = FenceId::from_uuid(new_id(now));
    sqlx::query!(
        "-- record_installation
        INSERT INTO installation (fence_id, system_identifier, timeline, database_oid, adopted_at, adopted_by, reason)
        SELECT $1, p.system_identifier, p.timeline, p.database_oid, $2, $3, $4 FROM current_place() p
        ON CONFLICT (singleton) DO UPDATE SET
            fence_id = excluded.fence_id, system_identifier = excluded.system_identifier, timeline = excluded.timeline,
            database_oid = excluded.database_oid, adopted_at = excluded.adopted_at, adopted_by = excluded.adopted_by,
            reason = excluded.reason",
        fence_id as FenceId,
        now,
        by.actor,
        by.reason,
    )
    .execute(&mut **transaction)
    .await?;
    release_unset_brake(transaction, by.actor, now).await?;
    Ok(fence_id)
}

/// A database in which the brake was never set may charge from its first installation on.
async fn release_unset_brake(
    transaction: &mut PgTransaction<'_>,
    actor: &str,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "-- release_unset_brake
        INSERT INTO brakes (shop, mode, reason, actor, changed_at) VALUES ('*', 'run', 'first start', $1, $2)
        ON CONFLICT (shop) DO NOTHING",
        actor,
        now,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

async fn recorded_shop(
    transaction: &mut PgTransaction<'_>,
    shop: &ShopName,
) -> Result<Option<ShopIdentity>, StoreError> {
    Ok(sqlx::query_as!(
        ShopIdentity,
        r#"-- recorded_shop
        SELECT shop AS "shop: ShopName", environment AS "environment: Environment", merchant_id, service_id
        FROM shops WHERE shop = $1"#,
        shop.as_str(),
    )
    .fetch_optional(&mut **transaction)
    .await?)
}

/// Records a shop, or what it is now.
pub(super) async fn record_shop(
    transaction: &mut PgTransaction<'_>,
    shop: &ShopIdentity,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "-- record_shop
        INSERT INTO shops (shop, environment, merchant_id, service_id, recorded_at) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (shop) DO UPDATE SET
            environment = excluded.environment, merchant_id = excluded.merchant_id, service_id = excluded.service_id,
            recorded_at = excluded.recorded_at",
        shop.shop.as_str(),
        shop.environment as Environment,
        shop.merchant_id,
        shop.service_id,
        now,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}
