//! Recording news about attempts: the only transaction that makes an attempt final.
//!
//! Loads where each attempt stands, under lock, lets [`domain::resolution::decide`](crate::domain::resolution::decide) say what
//! follows, and writes all of it: evidence, attempt, charge, subscription, card, brake and events.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use sqlx::PgTransaction;

use crate::domain::answer::ShownTransaction;
use crate::domain::attempt::AttemptState;
use crate::domain::charge::ChargeState;
use crate::domain::decline::DeclineClass;
use crate::domain::id::{AttemptId, CardId, ChargeId, SubscriptionId, TransactionId};
use crate::domain::people::Ruling;
use crate::domain::resolution::{self, Decision, News, Policy, Standing};
use crate::domain::shop::ShopName;
use crate::domain::subscription::SubscriptionStatus;
use crate::store::{Channels, Store, StoreError, TRIES_MAX, Wake, readings, wake};

mod consequences;
mod rows;

pub(super) use consequences::{AttemptPayload, DecidedPayload, step_subscription};
pub(super) use rows::EvidenceKind;

/// News about an attempt, with what is kept as evidence of it.
#[derive(Debug, Clone)]
pub struct Finding {
    /// Whose charge the attempt is about: what is stored is found by it.
    pub subscription_id: SubscriptionId,
    /// The attempt.
    pub attempt_id: AttemptId,
    /// The news.
    pub news: News,
    /// Where it comes from.
    pub evidence: Evidence,
}

impl Finding {
    /// That no byte of a request left us, and why.
    pub fn not_sent(subscription_id: SubscriptionId, attempt_id: AttemptId, why: &str) -> Self {
        Self {
            subscription_id,
            attempt_id,
            news: News::NotSent,
            evidence: Evidence::of_words(why),
        }
    }
}

/// What is kept of the source of a piece of news. No names, no bodies.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// The HTTP status of the answer.
    pub http_status: Option<u16>,
    /// imoje's error code.
    pub error_code: Option<String>,
    /// imoje's word for where the transaction stands.
    pub gateway_status: Option<String>,
    /// The card, masked as imoje shows it.
    pub card_masked: Option<String>,
    /// What happened, in a few words.
    pub detail: Option<String>,
    /// The person who brought it, when one did.
    pub by: Option<Bearer>,
}

/// A person who brought a piece of news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// By deciding what.
    pub ruling: Ruling,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
}

impl Evidence {
    /// What happened, in a few words, where there is no answer to keep.
    pub fn of_words(detail: impl Into<String>) -> Self {
        Self {
            detail: Some(detail.into()),
            ..Self::default()
        }
    }

    /// What is kept of an HTTP answer of the gateway.
    pub fn of_answer(
        http_status: u16,
        error_code: Option<String>,
        shown: Option<Box<ShownTransaction>>,
    ) -> Self {
        let (gateway_status, card_masked) = shown
            .map(|shown| (shown.status, shown.masked_number))
            .unwrap_or_default();
        Self {
            http_status: Some(http_status),
            error_code,
            gateway_status,
            card_masked,
            detail: None,
            by: None,
        }
    }
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The attempt.
    pub attempt_id: AttemptId,
    /// Its shop.
    pub shop: ShopName,
    /// Its state now.
    pub attempt: AttemptState,
    /// The state that it entered, if it entered one.
    pub attempt_became: Option<AttemptState>,
    /// The state of its charge now.
    pub charge: ChargeState,
    /// The state that its charge entered, if it entered one.
    pub charge_became: Option<ChargeState>,
    /// When its charge is looked at again, if it entered an open state.
    pub next_action_at: Option<DateTime<Utc>>,
    /// The class of its decline, if it was declined just now.
    pub decline: Option<DeclineClass>,
    /// Why all charging was stopped, if it was.
    pub brake: Option<&'static str>,
}

/// An attempt as the record finds it.
struct Subject {
    attempt_id: AttemptId,
    charge_id: ChargeId,
    subscription_id: SubscriptionId,
    card_id: Option<CardId>,
    shop: ShopName,
    amount_minor: i64,
    currency: crate::domain::money::Currency,
    period_no: i32,
    attempt_no: i16,
    moved_by: Option<AttemptId>,
    standing: Standing,
}

/// A subject with its finding and what follows from it.
struct Resolved<'a> {
    subject: Subject,
    finding: &'a Finding,
    decision: Decision,
}

impl Store {
    /// Records findings, as few transactions as possible, each charge at most once in one. An attempt that is not in the books, because
    /// it went to the archive, is left out of what is returned.
    ///
    /// # Errors
    /// [`StoreError`]; what was recorded before the error stays, and recording the same findings again changes nothing twice.
    pub async fn record(
        &self,
        findings: &[Finding],
        policy: &Policy,
        now: DateTime<Utc>,
    ) -> Result<Vec<Recorded>, StoreError> {
        let mut open: Vec<&Finding> = findings.iter().collect();
        let mut recorded = Vec::with_capacity(findings.len());
        let mut tries = 0;
        while !open.is_empty() {
            match self.record_once(&open, policy, now).await {
                Ok((done, rest)) => {
                    recorded.extend(done);
                    open = rest;
                }
                Err(error) if error.is_busy() && tries < TRIES_MAX => tries += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(recorded)
    }

    /// One transaction. Returns what it recorded and the findings it left for the next: further news about the same charge.
    async fn record_once<'a>(
        &self,
        findings: &[&'a Finding],
        policy: &Policy,
        now: DateTime<Utc>,
    ) -> Result<(Vec<Recorded>, Vec<&'a Finding>), StoreError> {
        let mut transaction = self.pool.begin().await?;
        let recorded = record_in(&mut transaction, findings, policy, self.channels, now).await?;
        transaction.commit().await?;
        Ok(recorded)
    }
}

/// Records findings as a part of `transaction`. Returns those that it left out: further news about the same charge.
pub(super) async fn record_in<'a>(
    transaction: &mut PgTransaction<'_>,
    findings: &[&'a Finding],
    policy: &Policy,
    channels: Channels,
    now: DateTime<Utc>,
) -> Result<(Vec<Recorded>, Vec<&'a Finding>), StoreError> {
    let (now_findings, mut later) = one_per_attempt(findings);
    let subjects = subjects(transaction, &now_findings).await?;
    let by_attempt: HashMap<_, _> = now_findings
        .iter()
        .map(|finding| (finding.attempt_id, *finding))
        .collect();
    let mut charges = HashSet::new();
    let mut resolved = Vec::with_capacity(subjects.len());
    for subject in subjects {
        let Some(&finding) = by_attempt.get(&subject.attempt_id) else {
            continue;
        };
        if !charges.insert(subject.charge_id) {
            later.push(finding);
            continue;
        }
        let decision = resolution::decide(&subject.standing, &finding.news, policy, now);
        resolved.push(Resolved {
            subject,
            finding,
            decision,
        });
    }
    let news: Vec<&Resolved<'_>> = resolved
        .iter()
        .filter(|resolved| resolved.decision.is_news(&resolved.subject.standing))
        .collect();
    if !news.is_empty() {
        rows::write(transaction, &news, now).await?;
        consequences::write(transaction, &news, channels, now).await?;
        // The charger is awake when it brings an answer itself.
        if news.iter().any(|one| !one.finding.news.is_answer()) {
            wake(transaction, Wake::Charger).await?;
        }
    }
    let recorded = resolved.into_iter().map(
        |Resolved {
             subject, decision, ..
         }| Recorded {
            attempt_id: subject.attempt_id,
            shop: subject.shop,
            attempt: decision.attempt,
            attempt_became: (decision.attempt != subject.standing.attempt)
                .then_some(decision.attempt),
            charge: decision
                .charge
                .map_or(subject.standing.charge, |step| step.state),
            charge_became: decision.charge.map(|step| step.state),
            next_action_at: decision.charge.and_then(|step| step.next_action_at),
            decline: decision.decline,
            brake: decision.brake,
        },
    );
    Ok((recorded.collect(), later))
}

fn one_per_attempt<'a>(findings: &[&'a Finding]) -> (Vec<&'a Finding>, Vec<&'a Finding>) {
    let mut seen = HashSet::new();
    findings
        .iter()
        .copied()
        .partition(|finding| seen.insert(finding.attempt_id))
}

async fn subjects(
    transaction: &mut PgTransaction<'_>,
    findings: &[&Finding],
) -> Result<Vec<Subject>, StoreError> {
    let attempts: Vec<_> = findings.iter().map(|finding| finding.attempt_id).collect();
    let subscriptions: Vec<_> = findings
        .iter()
        .map(|finding| finding.subscription_id)
        .collect();
    let transactions: Vec<_> = findings
        .iter()
        .map(|finding| finding.news.transaction_id())
        .collect();
    // Locked first and read afterwards, so that what is read includes what the lock had to wait for.
    sqlx::query!(
        "-- lock_charges
        SELECT charge_id FROM charges
        WHERE (charge_id, subscription_id) IN (
            SELECT a.charge_id, a.subscription_id
            FROM unnest($1::uuid[], $2::uuid[]) AS f (attempt_id, subscription_id) JOIN attempts a USING (attempt_id, subscription_id))
        ORDER BY charge_id FOR UPDATE",
        &attempts as &[AttemptId],
        &subscriptions as &[SubscriptionId],
    )
    .fetch_all(&mut **transaction)
    .await?;
    let rows = sqlx::query_file!(
        "src/store/sql/read_standings.sql",
        &attempts as &[AttemptId],
        &transactions as &[Option<TransactionId>],
        &subscriptions as &[SubscriptionId],
    )
    .fetch_all(&mut **transaction)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Subject {
                attempt_id: row.attempt_id,
                charge_id: row.charge_id,
                subscription_id: row.subscription_id,
                card_id: row.card_id,
                shop: row.shop,
                amount_minor: row.amount_minor,
                currency: row.currency,
                period_no: row.period_no,
                attempt_no: row.attempt_no,
                moved_by: row.moved_by,
                standing: Standing {
                    attempt: row.attempt_state,
                    transaction_id: row.transaction_id,
                    permitted_at: row.permitted_at,
                    charge: row.charge_state,
                    subscription: row.status,
                    declines: readings::small_count(row.declines)?,
                    unsent: readings::small_count(row.unsent)?,
                    retry_at: row.retry_at,
                    first_attempt_at: row.first_attempt_at.unwrap_or(row.permitted_at),
                    zone: readings::zone(&row.timezone)?,
                    another_blocks: row.another_blocks,
                    another_moved_money: row.moved_by.is_some(),
                    another_is_by_link: row.moved_by_link,
                    card_replaced: row.card_replaced,
                    transaction_taken: row.transaction_taken,
                },
            })
        })
        .collect()
}
