//! The brake: the kill switch of all shops and of each.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::PgTransaction;

use crate::domain::event::EventKind;
use crate::domain::shop::ShopName;
use crate::domain::tripwire::Trip;
use crate::store::events::{self, NewEvent};
use crate::store::{Store, StoreError, Wake, daily_cap, wake};

/// What may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "brake_mode", rename_all = "snake_case")]
pub enum BrakeMode {
    /// Everything.
    Run,
    /// No new debit; what has its permit is still sent.
    Drain,
    /// No debit at all; permits that were not sent yet are given back.
    Stop,
}

impl BrakeMode {
    /// How it is spelt in the database, in metrics and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            BrakeMode::Run => "run",
            BrakeMode::Drain => "drain",
            BrakeMode::Stop => "stop",
        }
    }
}

/// The brake of one shop, or of all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Brake {
    /// The shop, or `*` for all.
    pub shop: String,
    /// What may be sent.
    pub mode: BrakeMode,
    /// Why it was set so.
    pub reason: String,
    /// Who set it.
    pub actor: String,
    /// When.
    pub changed_at: DateTime<Utc>,
    /// When charging goes on by itself, in a pause.
    pub until: Option<DateTime<Utc>>,
    /// Of a slow start, from 1 to 3.
    pub stage: Option<i16>,
    /// When that stage began.
    pub stage_since: Option<DateTime<Utc>>,
    /// How many permits it gives.
    pub stage_max: Option<i32>,
    /// How many it has given.
    pub stage_permits: i32,
}

impl Brake {
    /// Why it came on by itself, when it is on and nobody set it.
    pub fn tripped_by(&self) -> Option<&str> {
        match self.mode {
            BrakeMode::Run => None,
            BrakeMode::Drain | BrakeMode::Stop => {
                (self.actor == ITSELF).then_some(self.reason.as_str())
            }
        }
    }
}

/// The name of the row that brakes every shop.
pub const ALL_SHOPS: &str = "*";

impl Store {
    /// Every brake that was ever set; a shop without one follows the brake of all.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn brakes(&self) -> Result<Vec<Brake>, StoreError> {
        Ok(sqlx::query_as!(
            Brake,
            r#"-- brakes
            SELECT shop, mode AS "mode: BrakeMode", reason, actor, changed_at, until, stage, stage_since, stage_max,
                   cardinality(stage_attempts) AS "stage_permits!"
            FROM brakes ORDER BY shop"#
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// Whether the brake of `shop`, or of all, says stop, or charging pauses: then even what has its permit is not sent.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn is_stopped(&self, shop: &ShopName) -> Result<bool, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"-- is_shop_stopped
            SELECT EXISTS (SELECT FROM brakes WHERE shop IN ('*', $1) AND (mode = 'stop' OR until IS NOT NULL)) AS "is_stopped!""#,
            shop.as_str(),
        )
        .fetch_one(&self.pool)
        .await?)
    }

    /// Sets the brake of one shop, or of all. Effective for every permit that is not committed yet, everywhere. A release is a slow
    /// start.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn set_brake(
        &self,
        shop: Option<&ShopName>,
        mode: BrakeMode,
        actor: &str,
        reason: &str,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        let set = Setting {
            shop,
            mode,
            actor,
            reason,
            until: None,
        };
        let event = put(&mut transaction, set, now).await?;
        events::append(&mut transaction, &[event], self.channels, now).await?;
        if mode == BrakeMode::Run {
            daily_cap::forget(&mut transaction, shop, now).await?;
            wake(&mut transaction, Wake::Charger).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Puts on the brake of `shop`, or of all, because of a trip. Returns whether that was needed: a brake that is on already stays as it
    /// is, unless this is a stop and that was none.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is changed then.
    pub async fn trip(
        &self,
        shop: Option<&ShopName>,
        trip: Trip,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let until = trip.pause().map(|pause| now + pause);
        let mode = match until {
            Some(_) => BrakeMode::Drain,
            None => BrakeMode::Stop,
        };
        let set = Setting {
            shop,
            mode,
            actor: ITSELF,
            reason: trip.reason(),
            until,
        };
        let changed = tighten(&mut transaction, set, now).await?;
        let is_news = changed.is_some();
        if let Some(changed) = changed {
            let incident = NewEvent {
                kind: trip.event(),
                subscription_id: None,
                shop: shop.cloned(),
                charge_id: None,
                attempt_id: None,
                payload: events::payload(&particulars(trip, until)),
            };
            events::append(&mut transaction, &[incident, changed], self.channels, now).await?;
        }
        transaction.commit().await?;
        Ok(is_news)
    }

    /// Ends the pauses that are over by `now`: charging starts slowly.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is changed then.
    pub async fn end_pauses(&self, now: DateTime<Utc>) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        let over = sqlx::query_scalar!(
            r#"-- lock_pauses
            SELECT nullif(shop, '*') AS "shop: ShopName" FROM brakes WHERE until <= $1 ORDER BY brakes.shop FOR UPDATE"#,
            now,
        )
        .fetch_all(&mut *transaction)
        .await?;
        let mut told = Vec::new();
        for shop in over {
            let set = Setting {
                shop: shop.as_ref(),
                mode: BrakeMode::Run,
                actor: ITSELF,
                reason: "the pause is over",
                until: None,
            };
            told.push(put(&mut transaction, set, now).await?);
        }
        events::append(&mut transaction, &told, self.channels, now).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Lets the pause for clocks that disagree be over now.
    ///
    /// # Errors
    /// [`StoreError`]; the pause lasts as long as it was meant to then.
    pub async fn clocks_agree_again(&self, now: DateTime<Utc>) -> Result<(), StoreError> {
        sqlx::query!(
            "-- clocks_agree_again
            UPDATE brakes SET until = $1 WHERE shop = '*' AND reason = 'clock_disagreement' AND until > $1",
            now,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The time of the database's own clock.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn time_of_database(&self) -> Result<DateTime<Utc>, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"-- time_of_database
            SELECT clock_timestamp() AS "at!""#
        )
        .fetch_one(&self.pool)
        .await?)
    }
}

/// Who sets the brake when nobody does.
pub(super) const ITSELF: &str = "cykl";

/// What a brake is set to.
#[derive(Clone, Copy)]
struct Setting<'a> {
    shop: Option<&'a ShopName>,
    mode: BrakeMode,
    actor: &'a str,
    reason: &'a str,
    until: Option<DateTime<Utc>>,
}

/// What the event of a trip says.
fn particulars(trip: Trip, until: Option<DateTime<Utc>>) -> Value {
    let brake = trip.reason();
    match trip {
        Trip::Doubts { doubts, sends } => {
            json!({ "brake": brake, "doubts": doubts, "sends": sends, "until": until })
        }
        Trip::Declines(lately) => {
            json!({ "brake": brake, "declined": lately.declined, "debits": lately.debits })
        }
        Trip::Clocks(disagreement) => json!({
            "brake": brake,
            "clocks": disagreement.clocks,
            "seconds": disagreement.by.num_seconds(),
            "until": until,
        }),
        Trip::ChannelOffline => json!({ "brake": brake, "until": until }),
        Trip::DailyCap { permitted, planned } => json!({
            "brake": brake,
            "charges": permitted.charges,
            "planned_charges": planned.charges,
            "amount_minor": permitted.amount_minor,
            "planned_amount_minor": planned.amount_minor,
        }),
        Trip::Guards { missing } => json!({ "brake": brake, "missing": missing }),
        Trip::BooksBehind { permitted_at } => {
            json!({ "brake": brake, "permitted_at": permitted_at })
        }
    }
}

/// Writes the brake and returns the event that tells it.
async fn put(
    transaction: &mut PgTransaction<'_>,
    set: Setting<'_>,
    now: DateTime<Utc>,
) -> Result<NewEvent, StoreError> {
    let scope = set.shop.map_or(ALL_SHOPS, ShopName::as_str);
    sqlx::query!(
        "-- put_brake
        SELECT put_brake($1, $2, $3, $4, $5, $6)",
        scope,
        set.mode as BrakeMode,
        set.reason,
        set.actor,
        set.until,
        now,
    )
    .execute(&mut **transaction)
    .await?;
    let mut payload =
        json!({ "shop": scope, "mode": set.mode, "actor": set.actor, "reason": set.reason });
    if let Some(until) = set.until {
        payload["until"] = json!(until);
    }
    Ok(NewEvent {
        kind: EventKind::BrakeChanged,
        subscription_id: None,
        shop: set.shop.cloned(),
        charge_id: None,
        attempt_id: None,
        payload: events::payload(&payload),
    })
}

/// Puts the brake on, unless it is on already; a stop comes before everything else, and a pause lasts as long as the longest.
async fn tighten(
    transaction: &mut PgTransaction<'_>,
    set: Setting<'_>,
    now: DateTime<Utc>,
) -> Result<Option<NewEvent>, StoreError> {
    let scope = set.shop.map_or(ALL_SHOPS, ShopName::as_str);
    let was = sqlx::query_scalar!(
        r#"-- lock_brake
        SELECT mode AS "mode: BrakeMode" FROM brakes WHERE shop = $1 FOR UPDATE"#,
        scope,
    )
    .fetch_optional(&mut **transaction)
    .await?;
    match (was, set.mode) {
        (None | Some(BrakeMode::Run), _) | (Some(BrakeMode::Drain), BrakeMode::Stop) => {
            put(transaction, set, now).await.map(Some)
        }
        (Some(BrakeMode::Drain), BrakeMode::Run | BrakeMode::Drain) => {
            sqlx::query!(
                "-- lengthen_pause
                UPDATE brakes SET until = $2 WHERE shop = $1 AND until < $2",
                scope,
                set.until,
            )
            .execute(&mut **transaction)
            .await?;
            Ok(None)
        }
        (Some(BrakeMode::Stop), _) => Ok(None),
    }
}

/// Stops every shop because of an incident, unless everything is stopped already.
pub(super) async fn stop_all(
    transaction: &mut PgTransaction<'_>,
    reason: &str,
    now: DateTime<Utc>,
) -> Result<Option<NewEvent>, StoreError> {
    let set = Setting {
        shop: None,
        mode: BrakeMode::Stop,
        actor: ITSELF,
        reason,
        until: None,
    };
    tighten(transaction, set, now).await
}

/// Lets charging start slowly, unless the brake is on.
pub(super) async fn start_slowly(
    transaction: &mut PgTransaction<'_>,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "-- start_slowly
        UPDATE brakes SET stage = 1, stage_max = 1, stage_since = $1, stage_attempts = '{}' WHERE shop = '*' AND mode = 'run'",
        now,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}
