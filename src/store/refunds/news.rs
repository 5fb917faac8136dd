//! Recording news about refunds: the only transactions that make a refund final.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgTransaction;

use super::{RefundOrigin, Sale};
use crate::domain::answer::{ListedRefund, Verdict};
use crate::domain::attempt::AttemptState;
use crate::domain::event::EventKind;
use crate::domain::id::{AttemptId, ChargeId, EvidenceId, RefundId, SubscriptionId, TransactionId};
use crate::domain::money::Currency;
use crate::domain::refund::{self, Decision, Known, Match, Standing};
use crate::domain::resolution::{News, NextPoll, ResolverPolicy};
use crate::domain::shop::ShopName;
use crate::store::events::{self, NewEvent};
use crate::store::resolution::{Evidence, EvidenceKind};
use crate::store::status::By;
use crate::store::{Store, StoreError, brakes, despite_others, new_id, readings};

/// News about a refund, with what is kept as evidence of it.
#[derive(Debug, Clone)]
pub struct RefundFinding<'a> {
    /// The refund.
    pub refund_id: RefundId,
    /// The news.
    pub news: News,
    /// Where it comes from.
    pub evidence: Evidence,
    /// The person who brought it, when one did.
    pub by: Option<By<'a>>,
}

/// What became of a refund.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedRefund {
    /// The refund.
    pub refund_id: RefundId,
    /// Its shop.
    pub shop: ShopName,
    /// Its state now.
    pub state: AttemptState,
    /// The state that it entered, if it entered one.
    pub became: Option<AttemptState>,
    /// Why all charging was stopped, if it was.
    pub brake: Option<&'static str>,
}

/// What is told about a refund; see `docs/events.md`.
#[derive(Serialize)]
struct RefundPayload<'a> {
    refund_id: RefundId,
    order_id: &'a str,
    origin: RefundOrigin,
    amount_minor: i64,
    currency: Currency,
    state: AttemptState,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction_id: Option<TransactionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    brake: Option<&'a str>,
}

/// A refund, under lock.
struct Subject {
    refund_id: RefundId,
    attempt_id: AttemptId,
    charge_id: ChargeId,
    subscription_id: SubscriptionId,
    shop: ShopName,
    order_id: String,
    origin: RefundOrigin,
    amount_minor: i64,
    currency: Currency,
    standing: Standing,
}

impl Subject {
    fn event(
        &self,
        kind: EventKind,
        state: AttemptState,
        transaction_id: Option<TransactionId>,
        brake: Option<&str>,
    ) -> NewEvent {
        NewEvent {
            kind,
            subscription_id: Some(self.subscription_id),
            shop: Some(self.shop.clone()),
            charge_id: Some(self.charge_id),
            attempt_id: Some(self.attempt_id),
            payload: events::payload(&RefundPayload {
                refund_id: self.refund_id,
                order_id: &self.order_id,
                origin: self.origin,
                amount_minor: self.amount_minor,
                currency: self.currency,
                state,
                transaction_id: transaction_id.or(self.standing.transaction_id),
                brake,
            }),
        }
    }
}

impl Store {
    /// Records what is known of a refund now. `None` when there is no such refund: its permit was never committed.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is recorded then, and recording the same again changes nothing twice.
    pub async fn record_refund(
        &self,
        finding: &RefundFinding<'_>,
        policy: &ResolverPolicy,
        now: DateTime<Utc>,
    ) -> Result<Option<RecordedRefund>, StoreError> {
        despite_others(StoreError::is_busy, || async {
            let mut transaction = self.pool.begin().await?;
            let recorded = self
                .record_one(&mut transaction, finding, policy, now)
                .await?;
            transaction.commit().await?;
            Ok(recorded)
        })
        .await
    }

    /// Records what imoje lists as the refunds of a debit: those of the books, and those that nobody here ordered.
    ///
    /// # Errors
    /// As [`Store::record_refund`].
    pub async fn record_refund_list(
        &self,
        sale: &Sale,
        listed: &[ListedRefund],
        policy: &ResolverPolicy,
        now: DateTime<Utc>,
    ) -> Result<Vec<RecordedRefund>, StoreError> {
        despite_others(StoreError::is_busy, || {
            self.record_list_once(sale, listed, policy, now)
        })
        .await
    }

    async fn record_list_once(
        &self,
        sale: &Sale,
        listed: &[ListedRefund],
        policy: &ResolverPolicy,
        now: DateTime<Utc>,
    ) -> Result<Vec<RecordedRefund>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let known = sqlx::query_as!(
            Known,
            r#"-- lock_refunds
            SELECT refund_id AS "refund_id: RefundId", state AS "state: AttemptState",
                   transaction_id AS "transaction_id: TransactionId", amount_minor, deadline_at
            FROM refunds WHERE sale_transaction_id = $1 ORDER BY refund_id FOR UPDATE"#,
            sale.transaction_id as TransactionId,
        )
        .fetch_all(&mut *transaction)
        .await?;
        let mut recorded = Vec::new();
        for news in refund::news_of_list(&known, listed, now) {
            recorded.extend(match news {
                Match::Ours(refund_id, listed) => {
                    let finding = RefundFinding {
                        refund_id,
                        news: News::Read(listed.verdict()),
                        evidence: listed_evidence(&listed),
                        by: None,
                    };
                    self.record_one(&mut transaction, &finding, policy, now)
                        .await?
                }
                Match::New(listed) => {
                    self.record_found(&mut transaction, sale, &listed, policy, now)
                        .await?
                }
            });
        }
        transaction.commit().await?;
        Ok(recorded)
    }

    async fn record_one(
        &self,
        transaction: &mut PgTransaction<'_>,
        finding: &RefundFinding<'_>,
        policy: &ResolverPolicy,
        now: DateTime<Utc>,
    ) -> Result<Option<RecordedRefund>, StoreError> {
        let Some(subject) = lock(transaction, finding.refund_id).await? else {
            return Ok(None);
        };
        let decision = refund::decide(&subject.standing, &finding.news, policy, now);
        let became = (decision.state != subject.standing.state).then_some(decision.state);
        let is_news = became.is_some()
            || decision.transaction_id.is_some()
            || decision.brake.is_some()
            || !decision.events.is_empty();
        if is_news {
            let evidence_id = insert_evidence(transaction, finding, &decision, now).await?;
            update(transaction, &subject, &decision, evidence_id, now).await?;
            let named = decision.transaction_id;
            let mut told: Vec<NewEvent> = decision
                .events
                .iter()
                .map(|&kind| subject.event(kind, decision.state, named, decision.brake))
                .collect();
            if let Some(reason) = decision.brake {
                told.extend(brakes::stop_all(transaction, reason, now).await?);
            }
            events::append(transaction, &told, self.channels, now).await?;
        }
        Ok(Some(RecordedRefund {
            refund_id: subject.refund_id,
            shop: subject.shop,
            state: decision.state,
            became,
            brake: decision.brake,
        }))
    }

    /// Records a refund that nobody here ordered.
    async fn record_found(
        &self,
        transaction: &mut PgTransaction<'_>,
        sale: &Sale,
        listed: &ListedRefund,
        policy: &ResolverPolicy,
        now: DateTime<Utc>,
    ) -> Result<Option<RecordedRefund>, StoreError> {
        let state = match listed.verdict() {
            Verdict::Settled { .. } => AttemptState::Settled,
            Verdict::Rejected { .. } => AttemptState::Rejected,
            Verdict::Pending { .. } | Verdict::Refused(_) | Verdict::InDoubt(_) => {
                AttemptState::Pending
            }
        };
        let subject = Subject {
            refund_id: RefundId::from_uuid(new_id(now)),
            attempt_id: sale.attempt_id,
            charge_id: sale.charge_id,
            subscription_id: sale.subscription_id,
            shop: sale.shop.clone(),
            order_id: sale.order_id.clone(),
            origin: RefundOrigin::Elsewhere,
            amount_minor: listed.amount_minor,
            currency: sale.amount.currency(),
            standing: Standing {
                state,
                transaction_id: Some(listed.id),
                permitted_at: now,
                polls: 0,
                case_open: false,
            },
        };
        let evidence_id = EvidenceId::from_uuid(new_id(now));
        let next_poll_at = now + policy.poll_after(0);
        if !insert_found(transaction, &subject, sale, evidence_id, next_poll_at).await? {
            return Ok(None);
        }
        let finding = RefundFinding {
            refund_id: subject.refund_id,
            news: News::Read(listed.verdict()),
            evidence: listed_evidence(listed),
            by: None,
        };
        write_evidence(transaction, evidence_id, &finding, state, now).await?;
        let told = subject.event(EventKind::RefundFound, state, None, None);
        events::append(transaction, &[told], self.channels, now).await?;
        Ok(Some(RecordedRefund {
            refund_id: subject.refund_id,
            shop: subject.shop,
            state,
            became: Some(state),
            brake: None,
        }))
    }

    /// Asks people to look for refunds of which nothing was told for as long as notices may come. Returns how many there were.
    ///
    /// # Errors
    /// [`StoreError`]; those that were not brought to people are found again later.
    pub async fn open_refund_cases(
        &self,
        refunds: &[RefundId],
        policy: &ResolverPolicy,
        now: DateTime<Utc>,
    ) -> Result<usize, StoreError> {
        let mut opened = 0;
        for &refund_id in refunds {
            let is_opened = despite_others(StoreError::is_busy, || {
                self.open_refund_case(refund_id, policy, now)
            })
            .await?;
            opened += usize::from(is_opened);
        }
        Ok(opened)
    }

    async fn open_refund_case(
        &self,
        refund_id: RefundId,
        policy: &ResolverPolicy,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let Some(subject) = lock(&mut transaction, refund_id).await? else {
            return Ok(false);
        };
        if !refund::opens_case(&subject.standing, policy, now) {
            return Ok(false);
        }
        sqlx::query!(
            "-- open_refund_case
            UPDATE refunds SET case_opened_at = $2 WHERE refund_id = $1",
            refund_id as RefundId,
            now,
        )
        .execute(&mut *transaction)
        .await?;
        let told = subject.event(
            EventKind::RefundCaseOpened,
            subject.standing.state,
            None,
            None,
        );
        events::append(&mut transaction, &[told], self.channels, now).await?;
        transaction.commit().await?;
        Ok(true)
    }
}

/// Inserts a refund that nobody here ordered. Returns whether it is new.
async fn insert_found(
    transaction: &mut PgTransaction<'_>,
    subject: &Subject,
    sale: &Sale,
    evidence_id: EvidenceId,
    next_poll_at: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let found_at = subject.standing.permitted_at;
    let is_open = subject.standing.state.is_open();
    let inserted = sqlx::query!(
        "-- insert_found_refund
        INSERT INTO refunds (refund_id, attempt_id, charge_id, subscription_id, shop, sale_transaction_id, order_id, origin,
                             amount_minor, currency, state, transaction_id, actor, permitted_at, deadline_at, next_poll_at,
                             decided_at, last_evidence_id)
        VALUES ($1, $2, $3, $4, $5, $6, $7, 'elsewhere', $8, $9, $10, $11, $12, $13, $13, $14, $15, $16)
        ON CONFLICT ON CONSTRAINT transaction_belongs_to_one_refund DO NOTHING",
        subject.refund_id as RefundId,
        subject.attempt_id as AttemptId,
        subject.charge_id as ChargeId,
        subject.subscription_id as SubscriptionId,
        &subject.shop as &ShopName,
        sale.transaction_id as TransactionId,
        subject.order_id,
        subject.amount_minor,
        subject.currency as Currency,
        subject.standing.state as AttemptState,
        subject.standing.transaction_id as Option<TransactionId>,
        brakes::ITSELF,
        found_at,
        is_open.then_some(next_poll_at),
        (!is_open).then_some(found_at),
        evidence_id as EvidenceId,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

fn listed_evidence(listed: &ListedRefund) -> Evidence {
    Evidence {
        http_status: Some(200),
        gateway_status: Some(listed.status.clone()),
        detail: Some("listed with its debit".to_owned()),
        ..Evidence::default()
    }
}

async fn lock(
    transaction: &mut PgTransaction<'_>,
    refund_id: RefundId,
) -> Result<Option<Subject>, StoreError> {
    let row = sqlx::query!(
        r#"-- lock_refund
        SELECT refund_id AS "refund_id: RefundId", attempt_id AS "attempt_id: AttemptId", charge_id AS "charge_id: ChargeId",
               subscription_id AS "subscription_id: SubscriptionId", shop AS "shop: ShopName", order_id,
               origin AS "origin: RefundOrigin", amount_minor, currency AS "currency: Currency", state AS "state: AttemptState",
               transaction_id AS "transaction_id: TransactionId", permitted_at, polls, case_opened_at IS NOT NULL AS "case_open!"
        FROM refunds WHERE refund_id = $1 FOR UPDATE"#,
        refund_id as RefundId,
    )
    .fetch_optional(&mut **transaction)
    .await?;
    row.map(|row| {
        Ok(Subject {
            refund_id: row.refund_id,
            attempt_id: row.attempt_id,
            charge_id: row.charge_id,
            subscription_id: row.subscription_id,
            shop: row.shop,
            order_id: row.order_id,
            origin: row.origin,
            amount_minor: row.amount_minor,
            currency: row.currency,
            standing: Standing {
                state: row.state,
                transaction_id: row.transaction_id,
                permitted_at: row.permitted_at,
                polls: readings::small_count(row.polls)?,
                case_open: row.case_open,
            },
        })
    })
    .transpose()
}

async fn insert_evidence(
    transaction: &mut PgTransaction<'_>,
    finding: &RefundFinding<'_>,
    decision: &Decision,
    now: DateTime<Utc>,
) -> Result<EvidenceId, StoreError> {
    let evidence_id = EvidenceId::from_uuid(new_id(now));
    write_evidence(transaction, evidence_id, finding, decision.state, now).await?;
    Ok(evidence_id)
}

async fn write_evidence(
    transaction: &mut PgTransaction<'_>,
    evidence_id: EvidenceId,
    finding: &RefundFinding<'_>,
    verdict: AttemptState,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let evidence = &finding.evidence;
    let (actor, detail) = match finding.by {
        Some(by) => (by.actor, Some(by.reason)),
        None => (brakes::ITSELF, evidence.detail.as_deref()),
    };
    sqlx::query!(
        "-- insert_refund_evidence
        INSERT INTO refund_evidence (evidence_id, refund_id, kind, verdict, http_status, error_code, gateway_status, transaction_id,
                                     detail, actor, recorded_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        evidence_id as EvidenceId,
        finding.refund_id as RefundId,
        EvidenceKind::of(&finding.news) as EvidenceKind,
        verdict as AttemptState,
        evidence.http_status.and_then(|status| i16::try_from(status).ok()),
        evidence.error_code,
        evidence.gateway_status,
        finding.news.transaction_id() as Option<TransactionId>,
        detail,
        actor,
        now,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

async fn update(
    transaction: &mut PgTransaction<'_>,
    subject: &Subject,
    decision: &Decision,
    evidence_id: EvidenceId,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let next_poll_at = match decision.next_poll {
        NextPoll::At(at) => Some(at),
        NextPoll::Never | NextPoll::AsPlanned => None,
    };
    sqlx::query!(
        "-- update_refund
        UPDATE refunds
        SET state = $2, transaction_id = coalesce(transaction_id, $3), last_evidence_id = $4,
            decided_at = CASE WHEN $5 THEN NULL WHEN state <> $2 THEN $6 ELSE decided_at END,
            next_poll_at = CASE WHEN $5 THEN coalesce($7, next_poll_at) END
        WHERE refund_id = $1",
        subject.refund_id as RefundId,
        decision.state as AttemptState,
        decision.transaction_id as Option<TransactionId>,
        evidence_id as EvidenceId,
        decision.state.is_open(),
        now,
        next_poll_at,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}
