//! The charger: charges that are due are debited.
//!
//! A batch of permits is committed, each is sent once, and answers are recorded together as they come in. A permit whose commit
//! is not confirmed is buried, never sent. What has no answer stays in doubt; the resolver looks after it.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::domain::answer::{Doubt, Verdict};
use crate::domain::attempt::AttemptState;
use crate::domain::id::FenceId;
use crate::domain::resolution::{News, Policy};
use crate::domain::shop::ShopName;
use crate::gateway::{DebitAnswer, DebitOrder, NoAnswer, NotSent};
use crate::metrics::{CallOutcome, Metrics};
use crate::reconnect::Delays;
use crate::store::permits::{Claim, ClaimError, Limits, Permit};
use crate::store::resolution::{Evidence, Finding, Recorded};
use crate::store::{Refusal, Store, StoreError};
use crate::workers::count;
use crate::workers::shops::Shops;

/// Debits what is due.
#[derive(Clone)]
pub struct Charger {
    /// The books.
    pub store: Store,
    /// The shops to bill for.
    pub shops: Shops,
    /// What a permit must keep.
    pub limits: Limits,
    /// What follows from an answer.
    pub policy: Policy,
    /// The installation that may charge.
    pub fence_id: FenceId,
    /// Stamps permits and answers.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Metrics,
    /// Once cancelled, nothing more is claimed, and what waits for its turn is not sent.
    pub stop: CancellationToken,
}

/// What one run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Requests that were permitted.
    pub permitted: usize,
    /// Charges that were put off: too close to another, over a card's budget, or not sendable.
    pub put_off: usize,
    /// Attempts that settled at once.
    pub settled: usize,
    /// Attempts that imoje has and has not finished.
    pub pending: usize,
    /// Attempts that were declined at once.
    pub rejected: usize,
    /// Attempts that imoje refused.
    pub refused: usize,
    /// Attempts of which no byte left.
    pub not_sent: usize,
    /// Attempts whose outcome is unknown.
    pub in_doubt: usize,
}

/// What came of a claim.
enum Claimed {
    /// There may be more to claim.
    More,
    /// There is nothing more to claim for now.
    Enough,
    /// So many charges were claimed together and one of them was refused: they have to be claimed one by one.
    Refused(usize),
}

/// How often the record of answers is tried while the database is away; after that they stay in doubt, which is safe.
const RECORD_TRIES_MAX: usize = 60;

impl Charger {
    /// Debits everything that is due by `now`, as far as the limits allow, and records every answer.
    ///
    /// # Errors
    /// When the database fails. What was sent is recorded first, or stays in doubt.
    pub async fn run_once(&self, now: DateTime<Utc>) -> anyhow::Result<Report> {
        let mut report = Report::default();
        let mut flight = Flight::new();
        let mut open: BTreeSet<ShopName> = self.shops.names().into_iter().collect();
        let mut failure = None;
        loop {
            for shop in open.clone() {
                match self.fill(&shop, now, &mut flight, &mut report).await {
                    Ok(true) => {}
                    Ok(false) => {
                        open.remove(&shop);
                    }
                    Err(error) => {
                        tracing::error!(%shop, error = format!("{error:#}"), "couldn't claim charges");
                        open.remove(&shop);
                        failure = Some(error);
                    }
                }
            }
            if flight.is_empty() {
                break;
            }
            let landed = landed(&mut flight).await;
            for (shop, finding) in &landed {
                let is_unreachable = is_unreachable(&finding.news);
                if let Some(shop) = self.shops.get(shop) {
                    shop.is_unreachable.store(is_unreachable, Ordering::Relaxed);
                }
                if is_unreachable {
                    // The rest of the shop waits for the next run, which begins with a single charge.
                    open.remove(shop);
                }
            }
            let findings: Vec<_> = landed.into_iter().map(|(_, finding)| finding).collect();
            if let Err(error) = self.record(&findings, &mut report).await {
                // What is on its way is still waited for: its answers must not be lost with this one.
                open.clear();
                failure = Some(error);
            }
        }
        failure.map_or(Ok(report), Err)
    }

    /// Claims for `shop` as many charges as there is room for and sends them. Returns whether it is worth asking again.
    async fn fill(
        &self,
        shop: &ShopName,
        due_by: DateTime<Utc>,
        flight: &mut Flight,
        report: &mut Report,
    ) -> anyhow::Result<bool> {
        let wanted = self.room(shop, flight.len());
        if self.stop.is_cancelled() {
            return Ok(false);
        }
        if wanted == 0 {
            return Ok(true);
        }
        match self.claim(shop, wanted, due_by, flight, report).await? {
            Claimed::More => Ok(true),
            Claimed::Enough => Ok(false),
            Claimed::Refused(charges) => {
                for _ in 0..charges {
                    self.claim(shop, 1, due_by, flight, report).await?;
                }
                Ok(true)
            }
        }
    }

    /// Claims `wanted` charges and sends what was permitted.
    async fn claim(
        &self,
        shop: &ShopName,
        wanted: u32,
        due_by: DateTime<Utc>,
        flight: &mut Flight,
        report: &mut Report,
    ) -> anyhow::Result<Claimed> {
        let now = self.clock.now().max(due_by);
        let shops = [shop.clone()];
        let claim = self
            .store
            .claim(&shops, wanted, &self.limits, self.fence_id, now)
            .await;
        match claim {
            Ok(Claim::Permits { permits, put_off }) => {
                let more = permits.len() + put_off >= usize::try_from(wanted).unwrap_or(usize::MAX);
                report.put_off += put_off;
                report.permitted += permits.len();
                count::permitted(&self.metrics, shop, permits.len());
                let permitted_at = Instant::now();
                for permit in permits {
                    let charger = self.clone();
                    flight.spawn(async move {
                        (
                            permit.shop.clone(),
                            charger.send(permit, permitted_at).await,
                        )
                    });
                }
                let more = more && !self.is_unreachable(shop);
                Ok(if more { Claimed::More } else { Claimed::Enough })
            }
            Ok(Claim::NothingDue | Claim::Braked | Claim::TooManyInDoubt) => Ok(Claimed::Enough),
            Ok(Claim::Full) if flight.is_empty() => Ok(Claimed::Enough),
            Ok(Claim::Full) => Ok(Claimed::More),
            Err(ClaimError::Refused { charges, source }) => {
                tracing::warn!(error = %source, charges = charges.len(), "a permit was refused");
                if let [charge_id] = charges[..] {
                    self.store.put_off_refused(charge_id, &source, now).await?;
                    return Ok(Claimed::More);
                }
                Ok(Claimed::Refused(charges.len()))
            }
            Err(ClaimError::Unconfirmed { permits, source }) => {
                tracing::error!(error = %source, permits = permits.len(), "the outcome of a commit is unknown; nothing is sent");
                self.bury(&permits).await?;
                Ok(Claimed::Enough)
            }
            Err(ClaimError::Failed(error)) => match error.refusal() {
                Some(Refusal::Brake) => Ok(Claimed::Enough),
                _ => Err(error.into()),
            },
        }
    }

    /// How many charges of `shop` may be claimed while `flying` are on their way. Claims wait until half of the room is free, so
    /// that they stay large.
    fn room(&self, shop: &ShopName, flying: usize) -> u32 {
        if self.is_unreachable(shop) {
            return u32::from(flying == 0);
        }
        let flying = u32::try_from(flying).unwrap_or(u32::MAX);
        let free = self.limits.in_flight_max.saturating_sub(flying);
        if flying > 0 && free < self.limits.in_flight_max.div_ceil(2) {
            return 0;
        }
        // What waits for its turn under the shop's rate counts, so that no permit grows too old in the queue.
        let claim_max = self.shops.get(shop).map_or(0, |shop| shop.claim_max());
        free.min(claim_max.saturating_sub(flying))
    }

    fn is_unreachable(&self, shop: &ShopName) -> bool {
        self.shops
            .get(shop)
            .is_some_and(|shop| shop.is_unreachable.load(Ordering::Relaxed))
    }

    /// Sends one permitted request, once, and says what came of it.
    async fn send(&self, permit: Permit, permitted_at: Instant) -> Finding {
        let attempt_id = permit.attempt_id;
        let not_sent = |detail: &str| Finding {
            attempt_id,
            news: News::NotSent,
            evidence: Evidence {
                detail: Some(detail.to_owned()),
                ..Evidence::default()
            },
        };
        let Some(shop) = self.shops.get(&permit.shop) else {
            return not_sent("its shop is not configured");
        };
        let Some(has_waited) = self.stop.run_until_cancelled(shop.wait_for_rate()).await else {
            return not_sent("the daemon is stopping");
        };
        if has_waited {
            match self.store.is_stopped(&permit.shop).await {
                Ok(false) => {}
                Ok(true) => return not_sent("the brake was put on before its turn"),
                Err(error) => return not_sent(&format!("couldn't read the brake: {error}")),
            }
        }
        let order = match order_of(permit, |attempt| shop.notification_url(attempt)) {
            Ok(order) => order,
            Err(detail) => {
                return Finding {
                    news: News::Unsendable,
                    ..not_sent(&detail)
                };
            }
        };
        let started = Instant::now();
        let answer = shop.client.debit(&order, permitted_at).await;
        self.metrics
            .gateway_request_seconds
            .get_or_create(&CallOutcome::of("debit", outcome_word(&answer)))
            .observe(started.elapsed().as_secs_f64());
        finding_of(attempt_id, answer)
    }

    /// Records findings, trying again while the database is away: an answer is worth waiting for.
    async fn record(&self, findings: &[Finding], report: &mut Report) -> anyhow::Result<()> {
        let mut delays = Delays::new(Duration::from_millis(100), Duration::from_secs(5));
        for tried in 1.. {
            let error = match self
                .store
                .record(findings, &self.policy, self.clock.now())
                .await
            {
                Ok(recorded) => {
                    count::recorded(&self.metrics, &recorded);
                    recorded.iter().for_each(|one| report.add(one));
                    return Ok(());
                }
                Err(error) => error,
            };
            let is_away = matches!(error, StoreError::Unavailable(_) | StoreError::Busy(_));
            if !is_away && findings.len() > 1 {
                // One of them cannot be recorded; the others can.
                return self.record_each(findings, report).await;
            }
            if !is_away || tried >= RECORD_TRIES_MAX || self.stop.is_cancelled() && tried > 5 {
                return Err(error.into());
            }
            tracing::warn!(%error, answers = findings.len(), "couldn't record answers; trying again");
            tokio::time::sleep(delays.next_delay()).await;
        }
        Ok(())
    }

    /// Records findings one by one, and says at the end whether one of them failed.
    async fn record_each(&self, findings: &[Finding], report: &mut Report) -> anyhow::Result<()> {
        let mut failure = None;
        for finding in findings {
            let one = std::slice::from_ref(finding);
            if let Err(error) = Box::pin(self.record(one, report)).await {
                let attempt = finding.attempt_id;
                tracing::error!(attempt.id = %attempt, error = format!("{error:#}"), "couldn't record an answer");
                failure = Some(error);
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Makes unconfirmed permits unusable. Until that is done nothing else is claimed.
    async fn bury(&self, permits: &[Permit]) -> anyhow::Result<()> {
        let mut delays = Delays::new(Duration::from_millis(100), Duration::from_secs(5));
        let committed = loop {
            match self.store.bury(permits, &self.limits, self.fence_id).await {
                Ok(committed) => break committed,
                Err(error) if self.stop.is_cancelled() => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(%error, "couldn't bury unconfirmed permits; trying again")
                }
            }
            tokio::time::sleep(delays.next_delay()).await;
        };
        let findings: Vec<_> = committed
            .into_iter()
            .map(|attempt_id| Finding {
                attempt_id,
                news: News::NotSent,
                evidence: Evidence {
                    detail: Some("the commit of its permit was not confirmed".to_owned()),
                    ..Evidence::default()
                },
            })
            .collect();
        self.record(&findings, &mut Report::default()).await
    }
}

impl Report {
    fn add(&mut self, recorded: &Recorded) {
        match recorded.attempt {
            AttemptState::Settled | AttemptState::Surplus => self.settled += 1,
            AttemptState::Pending => self.pending += 1,
            AttemptState::Rejected => self.rejected += 1,
            AttemptState::Refused => self.refused += 1,
            AttemptState::NotSent => self.not_sent += 1,
            AttemptState::InDoubt | AttemptState::Absent => self.in_doubt += 1,
        }
    }
}

/// The requests on their way, each with its shop.
type Flight = JoinSet<(ShopName, Finding)>;

/// Waits for one request to end, and takes every other that has ended by then.
async fn landed(flight: &mut Flight) -> Vec<(ShopName, Finding)> {
    let mut landed = Vec::new();
    let first = flight.join_next().await;
    // Answers come in bursts; one turn of the scheduler lets the rest of a burst land too.
    tokio::task::yield_now().await;
    let rest = std::iter::from_fn(|| flight.try_join_next());
    for ended in first.into_iter().chain(rest) {
        match ended {
            Ok(finding) => landed.push(finding),
            // A panic while sending: the attempt stays in doubt.
            Err(error) => tracing::error!(%error, "sending a debit failed"),
        }
    }
    landed
}

/// The request for a permit, or why imoje would refuse it.
fn order_of(
    permit: Permit,
    own_address: impl Fn(crate::domain::id::AttemptId) -> Option<url::Url>,
) -> Result<DebitOrder, String> {
    let notification_url = match &permit.notification_url {
        Some(address) => Some(
            address
                .parse()
                .map_err(|error| format!("notification_url: {error}"))?,
        ),
        None => own_address(permit.attempt_id),
    };
    Ok(DebitOrder {
        order_id: permit.order_id,
        profile_id: permit.profile_id,
        amount: permit.amount,
        title: permit.title,
        notification_url,
        invoice: permit.invoice,
        multipayout: permit.multipayout,
    })
}

fn finding_of(
    attempt_id: crate::domain::id::AttemptId,
    answer: Result<DebitAnswer, NoAnswer>,
) -> Finding {
    match answer {
        Ok(answer) => Finding {
            attempt_id,
            evidence: Evidence::of_answer(answer.http_status, answer.error_code, answer.shown),
            news: News::Answered(answer.verdict),
        },
        Err(no_answer) => Finding {
            attempt_id,
            evidence: Evidence {
                detail: Some(no_answer.to_string()),
                ..Evidence::default()
            },
            news: match no_answer {
                NoAnswer::NotSent(NotSent::Invalid(_)) => News::Unsendable,
                NoAnswer::NotSent(_) => News::NotSent,
                NoAnswer::Unknown(_) => News::Answered(Verdict::InDoubt(Doubt::NoAnswer)),
            },
        },
    }
}

fn is_unreachable(news: &News) -> bool {
    match news {
        News::NotSent => true,
        News::Unsendable | News::Answered(_) | News::Read(_) => false,
    }
}

fn outcome_word(answer: &Result<DebitAnswer, NoAnswer>) -> &'static str {
    match answer {
        Ok(answer) => count::verdict_word(&answer.verdict),
        Err(NoAnswer::NotSent(_)) => "not_sent",
        Err(NoAnswer::Unknown(_)) => "no_answer",
    }
}
