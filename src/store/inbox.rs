//! The inbox: notices from imoje, as they came in.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::PgTransaction;

use crate::domain::attempt::AttemptState;
use crate::domain::event::EventKind;
use crate::domain::id::{AttemptId, NoticeId, RegistrationId, SubscriptionId, TransactionId};
use crate::domain::money::Currency;
use crate::domain::order_id::is_ours;
use crate::domain::shop::ShopName;
use crate::store::events::{self, NewEvent};
use crate::store::{Store, StoreError, Wake, brakes, despite_others, new_id, readings, wake};

/// How many notices are taken at once.
pub const BATCH: usize = 500;

/// So often imoje has to deny that it has the transaction of a notice before that is told. The reads of a gateway may lag behind the
/// notices that it sends; the third is half a minute after the first.
const DENIALS: i16 = 3;

/// A notice with a valid signature, ready to be stored.
#[derive(Debug, Clone)]
pub struct NewNotice {
    /// Whose key signed it.
    pub shop: ShopName,
    /// The SHA-256 of the raw body; the same body is stored once.
    pub body_sha256: [u8; 32],
    /// The body, without anything that looks like a card number.
    pub body: String,
    /// The `orderId` that it names.
    pub order_id: Option<String>,
    /// The transaction that it names.
    pub transaction_id: Option<TransactionId>,
    /// The attempt that its address named.
    pub attempt_id: Option<AttemptId>,
    /// Whether it is about a refund, which is a transaction of its own under the order of its debit.
    pub is_refund: bool,
    /// The debit that the refund is of, where it says so.
    pub refund_of: Option<TransactionId>,
    /// Whether it says that the money moved. That is not believed, but looked for longer.
    pub says_settled: bool,
}

impl NewNotice {
    /// What it is stored as. A transaction under an order id that is not ours, at an address that is not an attempt's, is about no
    /// attempt of these books whoever looks.
    fn first_state(&self) -> NoticeState {
        let names_an_order_of_ours = self.order_id.as_deref().is_some_and(is_ours);
        let may_be_ours = self.attempt_id.is_some() || names_an_order_of_ours;
        if self.transaction_id.is_some() && !may_be_ours {
            NoticeState::Foreign
        } else {
            NoticeState::New
        }
    }
}

/// Notices of one group with the same body.
struct Copies<'a> {
    first: &'a NewNotice,
    first_place: usize,
    count: i32,
}

/// The notices, each body once, since one statement cannot store a row twice. In the order of their key, so that two statements
/// with the same bodies do not wait for each other.
fn by_body(notices: &[NewNotice]) -> Vec<Copies<'_>> {
    let mut copies = BTreeMap::new();
    for (first_place, first) in notices.iter().enumerate() {
        copies
            .entry((&first.shop, first.body_sha256))
            .and_modify(|copies: &mut Copies<'_>| copies.count += 1)
            .or_insert(Copies {
                first,
                first_place,
                count: 1,
            });
    }
    copies.into_values().collect()
}

/// A notice that waits to be followed up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenNotice {
    /// The notice.
    pub notice_id: NoticeId,
    /// Its shop.
    pub shop: ShopName,
    /// The `orderId` that it names.
    pub order_id: Option<String>,
    /// The transaction that it names.
    pub transaction_id: Option<TransactionId>,
    /// Whether it is about a refund.
    pub is_refund: bool,
    /// The debit that the refund is of, where it says so.
    pub refund_of: Option<TransactionId>,
    /// Whether it says that the money moved.
    pub says_settled: bool,
    /// When it came in.
    pub received_at: DateTime<Utc>,
    /// The attempt that it is about, when this database has it.
    pub attempt: Option<NoticedAttempt>,
    /// The registration that it is about, when this database has it.
    pub registration_id: Option<RegistrationId>,
    /// Whether it repeats what the archive says about an attempt of long ago.
    pub is_archived: bool,
}

/// The attempt that a notice is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoticedAttempt {
    /// Whose charge it is about.
    pub subscription_id: SubscriptionId,
    /// The attempt.
    pub attempt_id: AttemptId,
    /// Its state.
    pub state: AttemptState,
    /// Its order.
    pub order_id: String,
    /// How much.
    pub amount: crate::domain::money::Money,
    /// imoje's id, once known.
    pub transaction_id: Option<TransactionId>,
}

/// What became of a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "notice_state", rename_all = "snake_case")]
pub enum NoticeState {
    /// It waits to be followed up.
    New,
    /// What it led to is recorded.
    Done,
    /// It is about somebody else's order.
    Foreign,
    /// imoje has a debit of ours that this database does not know.
    Orphan,
}

impl Store {
    /// Stores notices that came in together, in one commit. Returns for each whether it is new; the same body again is only counted.
    ///
    /// # Errors
    /// [`StoreError`]; none of them is stored then, and imoje has to send them again.
    pub async fn receive_notices(
        &self,
        notices: &[NewNotice],
        now: DateTime<Utc>,
    ) -> Result<Vec<bool>, StoreError> {
        let copies = by_body(notices);
        let firsts: Vec<&NewNotice> = copies.iter().map(|copies| copies.first).collect();
        let ids: Vec<_> = firsts
            .iter()
            .map(|_| NoticeId::from_uuid(new_id(now)))
            .collect();
        let counts: Vec<_> = copies.iter().map(|copies| copies.count).collect();
        let states: Vec<_> = firsts.iter().map(|notice| notice.first_state()).collect();
        let mut transaction = self.pool.begin().await?;
        let stored = insert_notices(&mut transaction, &firsts, &ids, &counts, &states, now).await?;
        if states.contains(&NoticeState::New) {
            wake(&mut transaction, Wake::Resolver).await?;
        }
        transaction.commit().await?;
        let mut is_new = vec![false; notices.len()];
        for (copies, id) in copies.iter().zip(&ids) {
            // A body that was there already keeps the id that it has.
            is_new[copies.first_place] = stored.contains(id);
        }
        Ok(is_new)
    }

    /// Takes notices of `shops` that wait, with the attempt that each is about, and puts each off, longer each time.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is taken then.
    pub async fn take_notices(
        &self,
        shops: &[ShopName],
        now: DateTime<Utc>,
    ) -> Result<Vec<OpenNotice>, StoreError> {
        let rows = sqlx::query_file!("src/store/sql/take_notices.sql", now, shops as &[ShopName])
            .fetch_all(&self.pool)
            .await?;
        rows.into_iter()
            .map(|row| {
                let attempt = match (
                    row.subscription_id,
                    row.attempt_id,
                    row.state,
                    row.attempt_order_id,
                    row.amount_minor,
                    row.currency,
                ) {
                    (
                        Some(subscription_id),
                        Some(attempt_id),
                        Some(state),
                        Some(order_id),
                        Some(amount_minor),
                        Some(currency),
                    ) => Some(NoticedAttempt {
                        subscription_id,
                        attempt_id,
                        state,
                        order_id,
                        amount: readings::money(amount_minor, currency)?,
                        transaction_id: row.attempt_transaction_id,
                    }),
                    _ => None,
                };
                Ok(OpenNotice {
                    notice_id: row.notice_id,
                    shop: row.shop,
                    order_id: row.order_id,
                    transaction_id: row.transaction_id,
                    is_refund: row.is_refund,
                    refund_of: row.refund_of,
                    says_settled: row.says_settled,
                    received_at: row.received_at,
                    attempt,
                    registration_id: row.registration_id,
                    is_archived: row.is_archived,
                })
            })
            .collect()
    }

    /// Closes notices.
    ///
    /// # Errors
    /// [`StoreError`]; they are followed up again then, which changes nothing twice.
    pub async fn close_notices(
        &self,
        notices: &[(NoticeId, NoticeState)],
    ) -> Result<(), StoreError> {
        if notices.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = notices.iter().map(|(id, _)| *id).collect();
        let states: Vec<_> = notices.iter().map(|(_, state)| *state).collect();
        // Copies of the same notices may come in at the same time, in another order.
        despite_others(StoreError::is_busy, || self.close_once(&ids, &states)).await
    }

    async fn close_once(&self, ids: &[NoticeId], states: &[NoticeState]) -> Result<(), StoreError> {
        sqlx::query!(
            "-- close_notices
            UPDATE notices n SET state = c.state, next_action_at = NULL
            FROM unnest($1::uuid[], $2::notice_state[]) AS c (notice_id, state)
            WHERE n.notice_id = c.notice_id",
            ids as &[NoticeId],
            states as &[NoticeState],
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Records that imoje has a debit under an order id of ours that this database does not know, and stops everything: the
    /// usual cause is a restored backup, or a second system on the same shop.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is recorded then.
    pub async fn record_orphan(
        &self,
        notice: &OpenNotice,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query!(
            "-- record_orphan
            UPDATE notices SET state = 'orphan', next_action_at = NULL WHERE notice_id = $1",
            notice.notice_id as NoticeId,
        )
        .execute(&mut *transaction)
        .await?;
        let mut told = vec![incident(
            EventKind::IncidentOrphan,
            notice.notice_id,
            &notice.shop,
            notice.order_id.as_deref(),
            notice.transaction_id,
        )];
        told.extend(brakes::stop_all(&mut transaction, "orphan_transaction", now).await?);
        events::append(&mut transaction, &told, self.channels, now).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Notes that imoje denied once more that it has the transactions of these notices, and tells it about those of which it has done so
    /// often enough, each once. Returns these. A notice like that is forged, with the right key, or imoje has lost a transaction; it
    /// decides nothing, and waits on.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is noted then.
    pub async fn note_denials(
        &self,
        notices: &[NoticeId],
        now: DateTime<Utc>,
    ) -> Result<Vec<NoticeId>, StoreError> {
        if notices.is_empty() {
            return Ok(Vec::new());
        }
        despite_others(StoreError::is_busy, || self.note_denials_once(notices, now)).await
    }

    async fn note_denials_once(
        &self,
        notices: &[NoticeId],
        now: DateTime<Utc>,
    ) -> Result<Vec<NoticeId>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let noted = sqlx::query!(
            r#"-- note_denials
            UPDATE notices SET denials = denials + 1
            WHERE notice_id = ANY($1) AND state = 'new' AND denials < $2
            RETURNING notice_id AS "notice_id: NoticeId", shop AS "shop: ShopName", order_id,
                      transaction_id AS "transaction_id: TransactionId", denials = $2 AS "is_enough!""#,
            notices as &[NoticeId],
            DENIALS,
        )
        .fetch_all(&mut *transaction)
        .await?;
        let enough: Vec<_> = noted.iter().filter(|notice| notice.is_enough).collect();
        let told: Vec<_> = enough
            .iter()
            .map(|notice| {
                incident(
                    EventKind::IncidentUnknownTransaction,
                    notice.notice_id,
                    &notice.shop,
                    notice.order_id.as_deref(),
                    notice.transaction_id,
                )
            })
            .collect();
        events::append(&mut transaction, &told, self.channels, now).await?;
        transaction.commit().await?;
        Ok(enough.iter().map(|notice| notice.notice_id).collect())
    }
}

/// What is told about a notice whose transaction these books cannot explain.
fn incident(
    kind: EventKind,
    notice_id: NoticeId,
    shop: &ShopName,
    order_id: Option<&str>,
    transaction_id: Option<TransactionId>,
) -> NewEvent {
    NewEvent {
        kind,
        subscription_id: None,
        shop: Some(shop.clone()),
        charge_id: None,
        attempt_id: None,
        payload: events::payload(&json!({
            "notice_id": notice_id,
            "order_id": order_id,
            "transaction_id": transaction_id,
        })),
    }
}

/// Inserts one row for each of `notices` and counts those that are there already. Returns the ids of all rows.
async fn insert_notices(
    transaction: &mut PgTransaction<'_>,
    notices: &[&NewNotice],
    ids: &[NoticeId],
    counts: &[i32],
    states: &[NoticeState],
    now: DateTime<Utc>,
) -> Result<HashSet<NoticeId>, StoreError> {
    let shops: Vec<_> = notices.iter().map(|notice| notice.shop.as_str()).collect();
    let hashes: Vec<_> = notices
        .iter()
        .map(|notice| notice.body_sha256.as_slice())
        .collect();
    let bodies: Vec<_> = notices.iter().map(|notice| notice.body.as_str()).collect();
    let orders: Vec<_> = notices
        .iter()
        .map(|notice| notice.order_id.as_deref())
        .collect();
    let transactions: Vec<_> = notices.iter().map(|notice| notice.transaction_id).collect();
    let attempts: Vec<_> = notices.iter().map(|notice| notice.attempt_id).collect();
    let settled: Vec<_> = notices.iter().map(|notice| notice.says_settled).collect();
    let refunds: Vec<_> = notices.iter().map(|notice| notice.is_refund).collect();
    let originals: Vec<_> = notices.iter().map(|notice| notice.refund_of).collect();
    let stored = sqlx::query_file_scalar!(
        "src/store/sql/receive_notices.sql",
        ids as &[NoticeId],
        &shops as &[&str],
        &hashes as &[&[u8]],
        &bodies as &[&str],
        &orders as &[Option<&str>],
        &transactions as &[Option<TransactionId>],
        &attempts as &[Option<AttemptId>],
        &settled,
        states as &[NoticeState],
        counts,
        now,
        &refunds,
        &originals as &[Option<TransactionId>],
    )
    .fetch_all(&mut **transaction)
    .await?;
    Ok(stored.into_iter().collect())
}
