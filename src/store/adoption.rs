//! Adoption: a person accepts a database that was moved, restored, promoted or copied, and what the permit journal says about it.
//!
//! What the journal names and the books have forgotten comes back as attempts in doubt, under the order ids that imoje was told. So those
//! order ids are never given again, nothing else is sent for those periods, and a notice, a read or a person settles what became of each.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde_json::json;
use sqlx::{PgConnection, PgTransaction};

use crate::domain::event::EventKind;
use crate::domain::id::{AttemptId, CardId, FenceId, SubscriptionId, TransactionId};
use crate::domain::money::Currency;
use crate::domain::permit_record::PermitRecord;
use crate::domain::shop::ShopName;
use crate::store::events::{self, NewEvent};
use crate::store::installation::{self, ShopIdentity};
use crate::store::permits::Limits;
use crate::store::status::By;
use crate::store::{Store, StoreError, Wake, brakes, new_id, readings, take_time, wake};

/// How many attempts are looked up or written at once.
const BATCH: usize = 10_000;

/// What a database is, as far as a person has to know who is to trust it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Books {
    /// Where charging was allowed last, if it ever was.
    pub adopted_in: Option<String>,
    /// Where the database is now.
    pub place: String,
    /// When the last permit in it was given.
    pub last_permit_at: Option<DateTime<Utc>>,
    /// When the last thing in it happened.
    pub last_event_at: Option<DateTime<Utc>>,
    /// When the last notice in it came.
    pub last_notice_at: Option<DateTime<Utc>>,
    /// How many subscriptions it has.
    pub subscriptions: i64,
    /// How many charges are open.
    pub open_charges: i64,
    /// How many attempts have no verdict.
    pub open_attempts: i64,
}

/// What became of a permit that the books had forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "lost_fate", rename_all = "snake_case")]
pub enum LostFate {
    /// Its attempt is in the books again, in doubt.
    Restored,
    /// A later attempt of its period was permitted, so it was known then that this one had moved nothing.
    Superseded,
    /// Another attempt has its order id: the database was adopted without this journal before, and the period charged again.
    OrderIdTaken,
    /// Its subscription, card or charge is not in the books as it was. Nothing is permitted for its period.
    Unplaced,
}

impl LostFate {
    /// How it is spelt in the database and in lists.
    pub const fn as_str(self) -> &'static str {
        match self {
            LostFate::Restored => "restored",
            LostFate::Superseded => "superseded",
            LostFate::OrderIdTaken => "order_id_taken",
            LostFate::Unplaced => "unplaced",
        }
    }
}

/// A permit that the books had forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LostPermit {
    /// What imoje was told as `orderId`.
    pub order_id: String,
    /// Its shop.
    pub shop: ShopName,
    /// In minor units.
    pub amount_minor: i64,
    /// Of the amount.
    pub currency: Currency,
    /// When it was given.
    pub permitted_at: DateTime<Utc>,
    /// imoje's id, when the journal knows it.
    pub transaction_id: Option<TransactionId>,
    /// What became of it.
    pub fate: LostFate,
}

/// What an adoption did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Adoption {
    /// The installation that may charge now.
    pub fence_id: FenceId,
    /// Permits that the books had forgotten, now and at earlier adoptions as far as they were not placed then.
    pub lost: Vec<LostPermit>,
    /// Attempts in doubt that the journal has a transaction for.
    pub named: u64,
}

/// What the permit journal says that the books do not.
#[derive(Debug, Clone, Default)]
pub struct JournalNews {
    /// Permits that the books have forgotten.
    pub lost: Vec<PermitRecord>,
    /// Under which transactions imoje has attempts.
    pub named: BTreeMap<AttemptId, TransactionId>,
}

impl Store {
    /// What this database is.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn describe_books(&self) -> Result<Books, StoreError> {
        let mut transaction = self.pool.begin().await?;
        // There may be much to look through after a restore, and nothing of it is in memory.
        take_time(&mut transaction).await?;
        Ok(sqlx::query_as!(
            Books,
            r#"-- describe_books
            SELECT (SELECT format('system %s, timeline %s, database %s', i.system_identifier, i.timeline, i.database_oid)
                    FROM installation i) AS adopted_in,
                   format('system %s, timeline %s, database %s', p.system_identifier, p.timeline, p.database_oid) AS "place!",
                   -- Ids begin with the time, so the last one is nearly the latest.
                   (SELECT a.permitted_at FROM attempts a ORDER BY a.attempt_id DESC LIMIT 1) AS last_permit_at,
                   (SELECT e.occurred_at FROM events e ORDER BY e.event_id DESC LIMIT 1) AS last_event_at,
                   (SELECT n.received_at FROM notices n ORDER BY n.notice_id DESC LIMIT 1) AS last_notice_at,
                   (SELECT count(*) FROM subscriptions) AS "subscriptions!",
                   (SELECT count(*) FROM charges WHERE next_action_at IS NOT NULL) AS "open_charges!",
                   (SELECT count(*) FROM attempts WHERE state IN ('in_doubt', 'pending')) AS "open_attempts!"
            FROM current_place() p"#
        )
        .fetch_one(&mut *transaction)
        .await?)
    }

    /// Those of `permits` that the books have forgotten. What an adoption has looked at before is not forgotten any more.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn forgotten(
        &self,
        permits: Vec<PermitRecord>,
    ) -> Result<Vec<PermitRecord>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let mut known = BTreeSet::new();
        for batch in permits.chunks(BATCH) {
            known.extend(known_of(&mut connection, batch).await?);
        }
        let is_unknown = |permit: &PermitRecord| !known.contains(&permit.attempt_id);
        Ok(permits.into_iter().filter(is_unknown).collect())
    }

    /// Attempts that nobody knows a transaction of.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn nameless_doubts(&self) -> Result<BTreeSet<AttemptId>, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"-- nameless_doubts
            SELECT attempt_id AS "attempt_id: AttemptId" FROM attempts WHERE state = 'in_doubt' AND transaction_id IS NULL"#
        )
        .fetch_all(&self.pool)
        .await?
        .into_iter()
        .collect())
    }

    /// Refuses every running daemon from now on, as the first step of an adoption: what happens until it is done must not be sent.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn lock_daemons_out(&self, now: DateTime<Utc>) -> Result<(), StoreError> {
        sqlx::query!(
            "-- lock_daemons_out
            UPDATE installation SET fence_id = $1",
            FenceId::from_uuid(new_id(now)) as FenceId,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Accepts this database, where it is and with these shops, and takes in what the permit journal says. Every running daemon that
    /// passed the fence before is refused from then on.
    ///
    /// # Errors
    /// [`StoreError`] when the database refuses; nothing is changed then.
    pub async fn adopt(
        &self,
        shops: &[ShopIdentity],
        by: By<'_>,
        news: &JournalNews,
        limits: &Limits,
        now: DateTime<Utc>,
    ) -> Result<Adoption, StoreError> {
        let mut transaction = self.pool.begin().await?;
        // There may be much to look through after a restore, and nothing of it is in memory.
        take_time(&mut transaction).await?;
        let fence_id = installation::record(&mut transaction, by, now).await?;
        brakes::start_slowly(&mut transaction, now).await?;
        for shop in shops {
            installation::record_shop(&mut transaction, shop, now).await?;
        }
        note_lost(&mut transaction, news, now).await?;
        place_lost(&mut transaction, limits, fence_id, now).await?;
        let lost = lost_permits(&mut transaction, now).await?;
        let named = name_doubts(&mut transaction, news, now).await?;
        let count = |fate| lost.iter().filter(|lost| lost.fate == fate).count();
        let event = NewEvent {
            kind: EventKind::InstallationAdopted,
            subscription_id: None,
            shop: None,
            charge_id: None,
            attempt_id: None,
            payload: events::payload(&json!({
                "actor": by.actor,
                "reason": by.reason,
                "fence_id": fence_id,
                "restored": count(LostFate::Restored),
                "superseded": count(LostFate::Superseded),
                "order_ids_taken": count(LostFate::OrderIdTaken),
                "unplaced": count(LostFate::Unplaced),
            })),
        };
        events::append(&mut transaction, &[event], self.channels, now).await?;
        wake(&mut transaction, Wake::Resolver).await?;
        transaction.commit().await?;
        Ok(Adoption {
            fence_id,
            lost,
            named,
        })
    }
}

/// Those of `permits` that the books know, or that an adoption has looked at.
async fn known_of(
    connection: &mut PgConnection,
    permits: &[PermitRecord],
) -> Result<Vec<AttemptId>, StoreError> {
    let attempts: Vec<_> = permits.iter().map(|permit| permit.attempt_id).collect();
    let orders = || permits.iter().map(|permit| permit.order_id);
    let subscriptions: Vec<_> = orders().map(|order_id| order_id.subscription_id).collect();
    let periods: Vec<_> = orders()
        .map(|order_id| readings::stored_count(order_id.period_no))
        .collect::<Result<_, _>>()?;
    let numbers: Vec<_> = orders()
        .map(|order_id| readings::stored_small_count(order_id.attempt_no))
        .collect::<Result<_, _>>()?;
    Ok(sqlx::query_scalar!(
        r#"-- known_permits
        SELECT n.attempt_id AS "attempt_id!: AttemptId"
        FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::smallint[])
            AS n (attempt_id, subscription_id, period_no, attempt_no)
        WHERE EXISTS (SELECT FROM attempts a WHERE a.attempt_id = n.attempt_id)
           OR EXISTS (SELECT FROM lost_permits l WHERE l.attempt_id = n.attempt_id)
           OR EXISTS (SELECT FROM archived_attempts h
                      WHERE (h.subscription_id, h.period_no, h.attempt_no) = (n.subscription_id, n.period_no, n.attempt_no)
                        AND h.attempt_id = n.attempt_id)"#,
        &attempts as &[AttemptId],
        &subscriptions as &[SubscriptionId],
        &periods,
        &numbers,
    )
    .fetch_all(connection)
    .await?)
}

/// `permit`, if the books have forgotten it: this database went back in time.
pub(super) async fn forgotten_of<'a>(
    transaction: &mut PgTransaction<'_>,
    permit: Option<&'a PermitRecord>,
) -> Result<Option<&'a PermitRecord>, StoreError> {
    let Some(permit) = permit else {
        return Ok(None);
    };
    let known = known_of(transaction, std::slice::from_ref(permit)).await?;
    Ok(known.is_empty().then_some(permit))
}

/// Permits, by column.
#[derive(Default)]
struct Columns {
    attempts: Vec<AttemptId>,
    subscriptions: Vec<SubscriptionId>,
    shops: Vec<ShopName>,
    cards: Vec<CardId>,
    periods: Vec<i32>,
    numbers: Vec<i16>,
    orders: Vec<String>,
    amounts: Vec<i64>,
    currencies: Vec<Currency>,
    retries: Vec<bool>,
    permitted: Vec<DateTime<Utc>>,
}

impl Columns {
    fn of<'a>(permits: impl Iterator<Item = &'a PermitRecord>) -> Result<Self, StoreError> {
        let mut columns = Self::default();
        for permit in permits {
            let order_id = permit.order_id;
            columns.attempts.push(permit.attempt_id);
            columns.subscriptions.push(order_id.subscription_id);
            columns.shops.push(permit.shop.clone());
            columns.cards.push(permit.card_id);
            columns
                .periods
                .push(readings::stored_count(order_id.period_no)?);
            columns
                .numbers
                .push(readings::stored_small_count(order_id.attempt_no)?);
            columns.orders.push(order_id.to_string());
            columns.amounts.push(permit.amount_minor);
            columns.currencies.push(permit.currency);
            columns.retries.push(permit.is_retry);
            columns.permitted.push(permit.permitted_at);
        }
        Ok(columns)
    }
}

/// Notes what the journal names and the books lack, as not placed yet.
async fn note_lost(
    transaction: &mut PgTransaction<'_>,
    news: &JournalNews,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    for batch in news.lost.chunks(BATCH) {
        let columns = Columns::of(batch.iter())?;
        let transactions: Vec<_> = batch
            .iter()
            .map(|permit| news.named.get(&permit.attempt_id).copied())
            .collect();
        sqlx::query!(
            "-- note_lost_permits
            INSERT INTO lost_permits (attempt_id, subscription_id, shop, card_id, period_no, attempt_no, order_id, amount_minor, currency,
                                      is_retry, permitted_at, transaction_id, found_at, fate)
            SELECT n.*, $13, 'unplaced'
            FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::integer[], $6::smallint[], $7::text[], $8::bigint[],
                        $9::currency[], $10::boolean[], $11::timestamptz[], $12::uuid[])
                AS n (attempt_id, subscription_id, shop, card_id, period_no, attempt_no, order_id, amount_minor, currency, is_retry,
                      permitted_at, transaction_id)
            ON CONFLICT (attempt_id) DO NOTHING",
            &columns.attempts as &[AttemptId],
            &columns.subscriptions as &[SubscriptionId],
            &columns.shops as &[ShopName],
            &columns.cards as &[CardId],
            &columns.periods,
            &columns.numbers,
            &columns.orders,
            &columns.amounts,
            &columns.currencies as &[Currency],
            &columns.retries,
            &columns.permitted,
            &transactions as &[Option<TransactionId>],
            now,
        )
        .execute(&mut **transaction)
        .await?;
    }
    Ok(())
}

/// Finds a place for what has none yet: an attempt in doubt at its charge, where that waits.
async fn place_lost(
    transaction: &mut PgTransaction<'_>,
    limits: &Limits,
    fence_id: FenceId,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query_file!("src/store/sql/judge_lost_permits.sql", now)
        .execute(&mut **transaction)
        .await?;
    // One transaction has one attempt; that it is named twice would be for people to look into.
    sqlx::query!(
        "-- restore_attempts
        INSERT INTO attempts (attempt_id, charge_id, subscription_id, shop, card_id, period_no, attempt_no, order_id, amount_minor,
                              currency, is_retry, permitted_at, deadline_at, quiet_until, state, fence_id, next_poll_at, transaction_id)
        SELECT l.attempt_id, c.charge_id, l.subscription_id, l.shop, l.card_id, l.period_no, l.attempt_no, l.order_id, l.amount_minor,
               l.currency, l.is_retry, l.permitted_at, l.permitted_at + $1::interval, l.permitted_at + $2::interval, 'in_doubt', $3,
               CASE WHEN t.is_free THEN $4 ELSE greatest(l.permitted_at + $1::interval, $4) END,
               CASE WHEN t.is_free THEN l.transaction_id END
        FROM lost_permits l
            JOIN charges c USING (subscription_id, period_no)
            CROSS JOIN LATERAL (
                SELECT l.transaction_id IS NOT NULL
                   AND NOT EXISTS (SELECT FROM attempts a WHERE a.transaction_id = l.transaction_id)
                   AND NOT EXISTS (SELECT FROM lost_permits m
                                   WHERE m.transaction_id = l.transaction_id AND m.attempt_id > l.attempt_id) AS is_free) t
        WHERE l.fate = 'restored' AND NOT EXISTS (SELECT FROM attempts a WHERE a.attempt_id = l.attempt_id)
          AND NOT EXISTS (SELECT FROM archived_attempts h
                          WHERE (h.subscription_id, h.period_no, h.attempt_no) = (l.subscription_id, l.period_no, l.attempt_no))",
        limits.answer_timeout as TimeDelta,
        limits.min_gap as TimeDelta,
        fence_id as FenceId,
        now,
    )
    .execute(&mut **transaction)
    .await?;
    // The numbers of those that came back, and of those before them, are used up.
    sqlx::query!(
        "-- restore_charges
        UPDATE charges c
        SET state = 'in_flight', next_action_at = l.deadline_at,
            attempts = greatest(c.attempts, l.attempt_no),
            first_attempt_at = coalesce(c.first_attempt_at, l.first_attempt_at)
        FROM (
            SELECT l.subscription_id, l.period_no, max(l.attempt_no) AS attempt_no, min(l.permitted_at) AS first_attempt_at,
                   max(l.permitted_at) + $1::interval AS deadline_at
            FROM lost_permits l
            WHERE l.found_at = $2 AND l.fate IN ('restored', 'superseded')
            GROUP BY l.subscription_id, l.period_no
            HAVING bool_or(l.fate = 'restored')
        ) l
        WHERE (c.subscription_id, c.period_no) = (l.subscription_id, l.period_no)
          AND c.state IN ('planned', 'retry_wait')",
        limits.answer_timeout as TimeDelta,
        now,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// What was found now, and what still has no place.
async fn lost_permits(
    transaction: &mut PgTransaction<'_>,
    now: DateTime<Utc>,
) -> Result<Vec<LostPermit>, StoreError> {
    Ok(sqlx::query_as!(
        LostPermit,
        r#"-- lost_permits
        SELECT order_id, shop AS "shop: ShopName", amount_minor, currency AS "currency: Currency", permitted_at,
               transaction_id AS "transaction_id: TransactionId", fate AS "fate: LostFate"
        FROM lost_permits WHERE found_at = $1 OR fate = 'unplaced' ORDER BY permitted_at, order_id"#,
        now,
    )
    .fetch_all(&mut **transaction)
    .await?)
}

/// Lets attempts in doubt be read under the transactions that the journal names. Returns how many.
async fn name_doubts(
    transaction: &mut PgTransaction<'_>,
    news: &JournalNews,
    now: DateTime<Utc>,
) -> Result<u64, StoreError> {
    let named: Vec<_> = news.named.iter().collect();
    let mut count = 0;
    for batch in named.chunks(BATCH) {
        let (attempts, transactions): (Vec<AttemptId>, Vec<TransactionId>) = batch
            .iter()
            .map(|(attempt_id, transaction_id)| (**attempt_id, **transaction_id))
            .unzip();
        count += sqlx::query!(
            "-- name_doubts
            UPDATE attempts a SET transaction_id = n.transaction_id, next_poll_at = $3
            FROM (SELECT DISTINCT ON (n.transaction_id) n.attempt_id, n.transaction_id
                  FROM unnest($1::uuid[], $2::uuid[]) AS n (attempt_id, transaction_id)
                  ORDER BY n.transaction_id, n.attempt_id) n
            WHERE a.attempt_id = n.attempt_id AND a.state = 'in_doubt' AND a.transaction_id IS NULL
              AND NOT EXISTS (SELECT FROM attempts o WHERE o.transaction_id = n.transaction_id)",
            &attempts as &[AttemptId],
            &transactions as &[TransactionId],
            now,
        )
        .execute(&mut **transaction)
        .await?
        .rows_affected();
    }
    Ok(count)
}
