//! The inbox: notices from imoje, as they came in.

use chrono::{DateTime, Utc};
use serde_json::json;

use crate::domain::attempt::AttemptState;
use crate::domain::event::EventKind;
use crate::domain::id::{AttemptId, NoticeId, TransactionId};
use crate::domain::money::Currency;
use crate::domain::shop::ShopName;
use crate::store::events::{self, NewEvent};
use crate::store::{Store, StoreError, Wake, brakes, new_id, readings, wake};

/// How many notices are taken at once.
pub const BATCH: usize = 200;

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
    /// Whether it says that the money moved. That is not believed, but looked for longer.
    pub says_settled: bool,
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
    /// Whether it says that the money moved.
    pub says_settled: bool,
    /// When it came in.
    pub received_at: DateTime<Utc>,
    /// The attempt that it is about, when this database has it.
    pub attempt: Option<NoticedAttempt>,
}

/// The attempt that a notice is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoticedAttempt {
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
    /// Stores a notice. Returns whether it is new; the same body again is only counted.
    ///
    /// # Errors
    /// [`StoreError`]; imoje then has to send it again.
    pub async fn receive_notice(
        &self,
        notice: &NewNotice,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let is_new = sqlx::query_scalar!(
            r#"-- receive_notice
            INSERT INTO notices (notice_id, shop, body_sha256, body, order_id, transaction_id, attempt_id, received_at, next_action_at,
                                 says_settled)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8, $9)
            ON CONFLICT ON CONSTRAINT a_notice_is_stored_once DO UPDATE SET received_count = notices.received_count + 1
            RETURNING received_count = 1 AS "is_new!""#,
            NoticeId::from_uuid(new_id(now)) as NoticeId,
            notice.shop.as_str(),
            &notice.body_sha256[..],
            notice.body,
            notice.order_id.as_deref(),
            notice.transaction_id as Option<TransactionId>,
            notice.attempt_id as Option<AttemptId>,
            now,
            notice.says_settled,
        )
        .fetch_one(&mut *transaction)
        .await?;
        wake(&mut transaction, Wake::Resolver).await?;
        transaction.commit().await?;
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
                    row.attempt_id,
                    row.state,
                    row.attempt_order_id,
                    row.amount_minor,
                    row.currency,
                ) {
                    (
                        Some(attempt_id),
                        Some(state),
                        Some(order_id),
                        Some(amount_minor),
                        Some(currency),
                    ) => Some(NoticedAttempt {
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
                    says_settled: row.says_settled,
                    received_at: row.received_at,
                    attempt,
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
        sqlx::query!(
            "-- close_notices
            UPDATE notices n SET state = c.state, next_action_at = NULL
            FROM unnest($1::uuid[], $2::notice_state[]) AS c (notice_id, state)
            WHERE n.notice_id = c.notice_id",
            &ids as &[NoticeId],
            &states as &[NoticeState],
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
        let mut told = vec![NewEvent {
            kind: EventKind::IncidentOrphan,
            subscription_id: None,
            shop: Some(notice.shop.clone()),
            charge_id: None,
            attempt_id: None,
            payload: json!({
                "notice_id": notice.notice_id,
                "order_id": notice.order_id,
                "transaction_id": notice.transaction_id,
            }),
        }];
        told.extend(brakes::stop_all(&mut transaction, "orphan_transaction", now).await?);
        events::append(&mut transaction, &told, self.channels, now).await?;
        transaction.commit().await?;
        Ok(())
    }
}
