//! The rows that a record changes for each attempt: its evidence, itself, its charge.

use chrono::{DateTime, Utc};
use sqlx::PgTransaction;

use super::Resolved;
use crate::domain::answer::{Doubt, Verdict};
use crate::domain::attempt::AttemptState;
use crate::domain::charge::ChargeState;
use crate::domain::decline::DeclineClass;
use crate::domain::id::{AttemptId, ChargeId, EvidenceId, SubscriptionId, TransactionId};
use crate::domain::resolution::{News, NextPoll};
use crate::store::{StoreError, new_id};

pub(super) async fn write(
    transaction: &mut PgTransaction<'_>,
    news: &[&Resolved<'_>],
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let evidence: Vec<EvidenceId> = news
        .iter()
        .map(|_| EvidenceId::from_uuid(new_id(now)))
        .collect();
    insert_evidence(transaction, news, &evidence, now).await?;
    update_attempts(transaction, news, &evidence, now).await?;
    update_charges(transaction, news, now).await
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "evidence_kind", rename_all = "snake_case")]
pub(in crate::store) enum EvidenceKind {
    Local,
    Answer,
    Read,
    Person,
}

impl EvidenceKind {
    pub fn of(news: &News) -> Self {
        match news {
            News::NotSent | News::Unsendable => EvidenceKind::Local,
            News::Answered(_) => EvidenceKind::Answer,
            News::Read(_) => EvidenceKind::Read,
            News::DeclaredAbsent => EvidenceKind::Person,
        }
    }
}

/// Why a piece of news tells nothing for certain, for the record.
fn doubt(news: &News) -> Option<Doubt> {
    match news {
        News::Answered(Verdict::InDoubt(doubt)) | News::Read(Verdict::InDoubt(doubt)) => {
            Some(*doubt)
        }
        News::NotSent
        | News::Unsendable
        | News::DeclaredAbsent
        | News::Answered(_)
        | News::Read(_) => None,
    }
}

async fn insert_evidence(
    transaction: &mut PgTransaction<'_>,
    news: &[&Resolved<'_>],
    evidence: &[EvidenceId],
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let attempts: Vec<_> = news.iter().map(|one| one.subject.attempt_id).collect();
    let subscriptions: Vec<_> = news.iter().map(|one| one.subject.subscription_id).collect();
    let kinds: Vec<_> = news
        .iter()
        .map(|one| EvidenceKind::of(&one.finding.news))
        .collect();
    let verdicts: Vec<_> = news.iter().map(|one| one.decision.attempt).collect();
    let statuses: Vec<_> = news
        .iter()
        .map(|one| one.finding.evidence.http_status.map(i32::from))
        .collect();
    let errors: Vec<_> = news
        .iter()
        .map(|one| one.finding.evidence.error_code.clone())
        .collect();
    let words: Vec<_> = news
        .iter()
        .map(|one| one.finding.evidence.gateway_status.clone())
        .collect();
    let codes: Vec<_> = news
        .iter()
        .map(|one| one.decision.status_code.clone())
        .collect();
    let transactions: Vec<_> = news
        .iter()
        .map(|one| one.finding.news.transaction_id())
        .collect();
    let details: Vec<_> = news
        .iter()
        .map(|one| {
            let doubt = doubt(&one.finding.news).map(|doubt| doubt.as_str().to_owned());
            let reason = one.finding.evidence.by.as_ref().map(|by| by.reason.clone());
            reason.or(one.finding.evidence.detail.clone()).or(doubt)
        })
        .collect();
    let actors: Vec<_> = news
        .iter()
        .map(|one| one.finding.evidence.by.as_ref().map(|by| by.actor.clone()))
        .collect();
    sqlx::query!(
        "-- insert_evidence
        INSERT INTO evidence (evidence_id, attempt_id, subscription_id, kind, verdict, http_status, error_code, gateway_status,
                              status_code, transaction_id, detail, actor, recorded_at)
        SELECT n.evidence_id, n.attempt_id, n.subscription_id, n.kind, n.verdict, n.http_status, n.error_code,
               n.gateway_status, n.status_code, n.transaction_id, n.detail, coalesce(n.actor, 'cykl'), $12
        FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::evidence_kind[], $5::attempt_state[], $6::integer[], $7::text[],
                    $8::text[], $9::text[], $10::uuid[], $11::text[], $13::text[])
            AS n (evidence_id, attempt_id, subscription_id, kind, verdict, http_status, error_code, gateway_status, status_code,
                  transaction_id, detail, actor)",
        evidence as &[EvidenceId],
        &attempts as &[AttemptId],
        &subscriptions as &[SubscriptionId],
        &kinds as &[EvidenceKind],
        &verdicts as &[AttemptState],
        &statuses as &[Option<i32>],
        &errors as &[Option<String>],
        &words as &[Option<String>],
        &codes as &[Option<String>],
        &transactions as &[Option<TransactionId>],
        &details as &[Option<String>],
        now,
        &actors as &[Option<String>],
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

#[expect(
    clippy::too_many_lines,
    reason = "one statement with a list for each of its columns"
)]
async fn update_attempts(
    transaction: &mut PgTransaction<'_>,
    news: &[&Resolved<'_>],
    evidence: &[EvidenceId],
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let attempts: Vec<_> = news.iter().map(|one| one.subject.attempt_id).collect();
    let subscriptions: Vec<_> = news.iter().map(|one| one.subject.subscription_id).collect();
    let states: Vec<_> = news.iter().map(|one| one.decision.attempt).collect();
    let transactions: Vec<_> = news.iter().map(|one| one.decision.transaction_id).collect();
    let codes: Vec<_> = news
        .iter()
        .map(|one| one.decision.status_code.clone())
        .collect();
    let declines: Vec<_> = news.iter().map(|one| one.decision.decline).collect();
    let masked: Vec<_> = news
        .iter()
        .map(|one| one.finding.evidence.card_masked.clone())
        .collect();
    let keeps_poll: Vec<_> = news
        .iter()
        .map(|one| one.decision.next_poll == NextPoll::AsPlanned)
        .collect();
    let polls: Vec<_> = news
        .iter()
        .map(|one| match one.decision.next_poll {
            NextPoll::At(at) => Some(at),
            NextPoll::AsPlanned | NextPoll::Never => None,
        })
        .collect();
    // An answer that told nothing ends the time in which one could still come by itself.
    let answered: Vec<_> = news
        .iter()
        .map(|one| matches!(one.finding.news, News::Answered(Verdict::InDoubt(_))))
        .collect();
    // The gateway itself says now that it was declined; a retry needs that to be fresh.
    let confirmed: Vec<_> = news
        .iter()
        .map(|one| {
            one.decision.attempt == AttemptState::Rejected
                && matches!(one.finding.news, News::Read(Verdict::Rejected { .. }))
        })
        .collect();
    sqlx::query!(
        "-- update_attempts
        UPDATE attempts a
        SET state = n.state, transaction_id = coalesce(n.transaction_id, a.transaction_id),
            status_code = coalesce(n.status_code, a.status_code), decline = coalesce(n.decline, a.decline),
            card_masked = coalesce(n.card_masked, a.card_masked),
            next_poll_at = CASE WHEN n.keeps_poll THEN a.next_poll_at ELSE n.next_poll_at END,
            polls = CASE WHEN n.keeps_poll THEN a.polls ELSE 0 END,
            deadline_at = CASE WHEN n.answered THEN least(a.deadline_at, $11) ELSE a.deadline_at END,
            confirmed_at = CASE WHEN n.confirmed THEN $11 ELSE a.confirmed_at END,
            decided_at = CASE WHEN n.state IN ('in_doubt', 'pending') THEN NULL
                              WHEN n.state = a.state THEN a.decided_at ELSE $11 END,
            last_evidence_id = n.evidence_id
        FROM unnest($1::uuid[], $2::attempt_state[], $3::uuid[], $4::text[], $5::decline_class[], $6::text[], $7::boolean[],
                    $8::timestamptz[], $9::boolean[], $10::uuid[], $12::boolean[], $13::uuid[])
            AS n (attempt_id, state, transaction_id, status_code, decline, card_masked, keeps_poll, next_poll_at, answered,
                  evidence_id, confirmed, subscription_id)
        WHERE a.attempt_id = n.attempt_id AND a.subscription_id = n.subscription_id",
        &attempts as &[AttemptId],
        &states as &[AttemptState],
        &transactions as &[Option<TransactionId>],
        &codes as &[Option<String>],
        &declines as &[Option<DeclineClass>],
        &masked as &[Option<String>],
        &keeps_poll,
        &polls as &[Option<DateTime<Utc>>],
        &answered,
        evidence as &[EvidenceId],
        now,
        &confirmed,
        &subscriptions as &[SubscriptionId],
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

#[expect(
    clippy::too_many_lines,
    reason = "one statement with a list for each of its columns"
)]
async fn update_charges(
    transaction: &mut PgTransaction<'_>,
    news: &[&Resolved<'_>],
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let changed: Vec<_> = news
        .iter()
        .filter(|one| {
            one.decision.charge.is_some() || one.decision.attempt != one.subject.standing.attempt
        })
        .collect();
    let charges: Vec<_> = changed.iter().map(|one| one.subject.charge_id).collect();
    let subscriptions: Vec<_> = changed
        .iter()
        .map(|one| one.subject.subscription_id)
        .collect();
    let states: Vec<_> = changed
        .iter()
        .map(|one| one.decision.charge.map(|step| step.state))
        .collect();
    let actions: Vec<_> = changed
        .iter()
        .map(|one| one.decision.charge.and_then(|step| step.next_action_at))
        .collect();
    let reasons: Vec<_> = changed
        .iter()
        .map(|one| {
            one.decision
                .charge
                .and_then(|step| step.reason)
                .map(str::to_owned)
        })
        .collect();
    let declined: Vec<_> = changed
        .iter()
        .map(|one| became(one, AttemptState::Rejected))
        .collect();
    let unsent: Vec<_> = changed
        .iter()
        .map(|one| became(one, AttemptState::NotSent) || became(one, AttemptState::Refused))
        .collect();
    let codes: Vec<_> = changed
        .iter()
        .map(|one| one.decision.status_code.clone())
        .collect();
    let payments: Vec<_> = changed.iter().map(|one| payment(one)).collect();
    sqlx::query!(
        "-- update_charges
        UPDATE charges c
        SET state = coalesce(n.state, c.state),
            next_action_at = CASE WHEN n.state IS NULL THEN c.next_action_at ELSE n.next_action_at END,
            reason = CASE WHEN n.state IS NULL THEN c.reason ELSE n.reason END,
            declines = c.declines + n.declined::integer, unsent = c.unsent + n.unsent::integer,
            last_status_code = coalesce(n.status_code, c.last_status_code),
            paid_at = CASE WHEN n.state = 'paid' AND c.state <> 'paid' THEN $9 ELSE c.paid_at END,
            paid_attempt_id = CASE WHEN n.state = 'paid' AND c.state <> 'paid' THEN n.payment ELSE c.paid_attempt_id END
        FROM unnest($1::uuid[], $2::charge_state[], $3::timestamptz[], $4::text[], $5::boolean[], $6::boolean[], $7::text[],
                    $8::uuid[], $10::uuid[])
            AS n (charge_id, state, next_action_at, reason, declined, unsent, status_code, payment, subscription_id)
        WHERE c.charge_id = n.charge_id AND c.subscription_id = n.subscription_id",
        &charges as &[ChargeId],
        &states as &[Option<ChargeState>],
        &actions as &[Option<DateTime<Utc>>],
        &reasons as &[Option<String>],
        &declined,
        &unsent,
        &codes as &[Option<String>],
        &payments as &[Option<AttemptId>],
        now,
        &subscriptions as &[SubscriptionId],
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Whether the attempt has just entered `state`.
fn became(one: &Resolved<'_>, state: AttemptState) -> bool {
    one.decision.attempt == state && one.subject.standing.attempt != state
}

/// The attempt that moved the money of the charge, if one did.
fn payment(one: &Resolved<'_>) -> Option<AttemptId> {
    match one.decision.attempt {
        AttemptState::Settled | AttemptState::Surplus => Some(one.subject.attempt_id),
        AttemptState::InDoubt
        | AttemptState::NotSent
        | AttemptState::Refused
        | AttemptState::Pending
        | AttemptState::Rejected
        | AttemptState::Absent => one.subject.moved_by,
    }
}
