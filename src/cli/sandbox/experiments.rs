//! The experiments themselves. Each has a limit in requests and in time, and there is a pause before every request but those that are
//! meant to come together.

use chrono::{DateTime, TimeDelta, Utc};
use url::Url;
use uuid::Uuid;

use super::answers::{answer, see};
use super::ear::{Ear, Heard};
use super::report::{
    Answer, Finding, Repeat, RepeatKind, Seen, StatusAt, Timing, Wrong, WrongKind, finding,
};
use super::scrub::Secrets;
use crate::clock::Clock;
use crate::domain::answer::Expected;
use crate::domain::id::{ProfileId, TransactionId};
use crate::domain::money::Money;
use crate::domain::order_id::TrialOrderId;
use crate::gateway::{NoAnswer, Said, TrialClient, TrialDebit};

/// The pause before a request, and between two reads.
pub(super) const PAUSE: TimeDelta = TimeDelta::seconds(1);

/// For how long an outcome or a notice is waited for.
const WAIT_MAX: TimeDelta = TimeDelta::minutes(2);

/// The cards that are debited.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cards {
    /// One whose debits settle.
    pub good: ProfileId,
    /// One whose debits are declined.
    pub declined: Option<ProfileId>,
    /// One that is inactive.
    pub inactive: Option<ProfileId>,
}

/// What experiments are made with.
pub(super) struct Lab<'a> {
    pub client: TrialClient,
    /// The same shop, with a token that nobody has.
    pub with_wrong_token: TrialClient,
    /// The same token, for a merchant that there is not.
    pub with_other_merchant: TrialClient,
    pub clock: &'a Clock,
    pub secrets: Secrets,
    pub run: Uuid,
    pub amount: Money,
    pub other_amount: Money,
    /// What listens for notices, and the address that imoje is told; or why nobody does.
    pub ear: Result<(Ear, Url), String>,
    pub orders: u16,
    /// What imoje made, once each.
    pub made: Vec<(TrialDebit, TransactionId)>,
}

/// What the experiments found.
pub(super) struct Found {
    pub timing: Timing,
    pub repeats: Vec<Repeat>,
    pub wrong: Vec<Wrong>,
    pub transactions: Vec<Seen>,
}

impl Lab<'_> {
    /// Makes all experiments.
    pub(super) async fn try_out(&mut self, cards: Cards) -> Found {
        let timing = self.time(cards.good).await;
        let mut repeats = Vec::new();
        for what in [
            RepeatKind::SameAmount,
            RepeatKind::OtherAmount,
            RepeatKind::Parallel,
        ] {
            repeats.push(self.repeat(what, cards.good).await);
        }
        if let Some(declined) = cards.declined {
            repeats.push(self.repeat(RepeatKind::AfterDecline, declined).await);
        }
        let wrong = self.wrong(cards).await;
        let transactions = self.all_seen().await;
        for repeat in &mut repeats {
            repeat.finding = finding(&repeat.first, repeat.second.as_ref(), &transactions);
        }
        Found {
            timing,
            repeats,
            wrong,
            transactions,
        }
    }

    /// Debits once and waits until reads and, if somebody listens, notices have told the outcome.
    async fn time(&mut self, card: ProfileId) -> Timing {
        let debit = self.next_debit(card);
        self.pause().await;
        let sent_at = self.clock.now();
        let answer = self.debit(&debit).await;
        let mut timing = Timing {
            order_id: debit.order_id.to_string(),
            read: Vec::new(),
            notices: Vec::new(),
            unsigned: 0,
            deaf_because: self.ear.as_ref().err().cloned(),
            answer,
        };
        let mut next_read = self.clock.now();
        // Of a debit that was refused there is nothing to hear. One whose answer was lost may still have its notice.
        while !timing.answer.is_refusal() {
            let is_heard = timing.deaf_because.is_some() || is_over(&timing.notices);
            let is_read = timing.answer.transaction_id.is_none() || is_over(&timing.read);
            if is_heard && is_read {
                break;
            }
            tokio::select! {
                Some(heard) = next_notice(&mut self.ear) => {
                    hear(&mut timing, &heard, sent_at);
                    continue;
                }
                () = self.clock.sleep_until(next_read), if !is_read => {}
                () = self.clock.sleep_until(sent_at + WAIT_MAX) => break,
            }
            if let Some(id) = timing.answer.transaction_id {
                let seen = self.see(&timing.order_id, id, debit.amount).await;
                add(&mut timing.read, seen.status, seen.seen_at, sent_at);
                next_read = self.clock.now() + PAUSE;
            }
        }
        if let Ok((ear, _)) = &self.ear {
            timing.unsigned = ear.unsigned();
        }
        timing
    }

    /// Sends an order id twice.
    async fn repeat(&mut self, what: RepeatKind, card: ProfileId) -> Repeat {
        let debit = self.next_debit(card);
        self.pause().await;
        let (first, second) = match what {
            RepeatKind::Parallel => {
                let (first, second) = tokio::join!(
                    self.send(&self.client, &debit),
                    self.send(&self.client, &debit)
                );
                self.note(&debit, &first);
                self.note(&debit, &second);
                (first, Some(second))
            }
            RepeatKind::SameAmount => {
                let first = self.debit(&debit).await;
                (first, Some(self.debit_again(&debit).await))
            }
            RepeatKind::OtherAmount => {
                let first = self.debit(&debit).await;
                let amount = self.other_amount;
                let other = TrialDebit {
                    amount,
                    ..debit.clone()
                };
                (first, Some(self.debit_again(&other).await))
            }
            RepeatKind::AfterDecline => {
                let first = self.debit(&debit).await;
                let second = if self.is_declined(&debit, &first).await {
                    Some(self.debit_again(&debit).await)
                } else {
                    None
                };
                (first, second)
            }
        };
        Repeat {
            what,
            order_id: debit.order_id.to_string(),
            finding: Finding::Unclear,
            first,
            second,
        }
    }

    async fn debit_again(&mut self, debit: &TrialDebit) -> Answer {
        self.pause().await;
        self.debit(debit).await
    }

    /// Whether the debit that was answered so is declined, once that is known.
    async fn is_declined(&self, debit: &TrialDebit, answer: &Answer) -> bool {
        let Some(id) = answer.transaction_id else {
            return false;
        };
        let deadline = self.clock.now() + WAIT_MAX;
        let seen = self.seen_by(deadline, debit, id).await;
        seen.status.as_deref() == Some("rejected")
    }

    /// Sends requests that have something wrong.
    async fn wrong(&mut self, cards: Cards) -> Vec<Wrong> {
        let unknown = ProfileId::from_uuid(Uuid::new_v4());
        let debits = [
            (WrongKind::WrongToken, Some(cards.good)),
            (WrongKind::OtherMerchant, Some(cards.good)),
            (WrongKind::UnknownProfile, Some(unknown)),
            (WrongKind::InactiveProfile, cards.inactive),
        ];
        let mut found = Vec::new();
        for (what, card) in debits {
            let Some(card) = card else { continue };
            let debit = self.next_debit(card);
            self.pause().await;
            let client = match what {
                WrongKind::WrongToken => &self.with_wrong_token,
                WrongKind::OtherMerchant => &self.with_other_merchant,
                WrongKind::UnknownProfile
                | WrongKind::InactiveProfile
                | WrongKind::CutOff
                | WrongKind::UnknownTransaction
                | WrongKind::UnknownPath => &self.client,
            };
            let answer = self.send(client, &debit).await;
            self.note(&debit, &answer);
            found.push(Wrong { what, answer });
        }
        let no_order = self.next_order();
        self.pause().await;
        let sent_at = self.clock.now();
        let said = self.client.cut_off().await;
        let expected = self.client.expected(no_order, self.amount);
        let answer = self.answer(sent_at, said, Some(&expected));
        found.push(Wrong {
            what: WrongKind::CutOff,
            answer,
        });
        for what in [WrongKind::UnknownTransaction, WrongKind::UnknownPath] {
            self.pause().await;
            let sent_at = self.clock.now();
            let unknown = TransactionId::from_uuid(Uuid::new_v4());
            let said = if what == WrongKind::UnknownTransaction {
                self.client.transaction(unknown).await
            } else {
                self.client.nowhere().await
            };
            let answer = self.answer(sent_at, said, None);
            found.push(Wrong { what, answer });
        }
        found
    }

    /// Everything that was made, once it has an outcome or was waited for long enough.
    async fn all_seen(&self) -> Vec<Seen> {
        let deadline = self.clock.now() + WAIT_MAX;
        let mut all = Vec::new();
        for (debit, id) in &self.made {
            all.push(self.seen_by(deadline, debit, *id).await);
        }
        all
    }

    async fn seen_by(
        &self,
        deadline: DateTime<Utc>,
        debit: &TrialDebit,
        id: TransactionId,
    ) -> Seen {
        loop {
            self.pause().await;
            let seen = self
                .see(&debit.order_id.to_string(), id, debit.amount)
                .await;
            let is_over = seen.status.as_deref().is_some_and(is_final);
            if is_over || self.clock.now() >= deadline {
                return seen;
            }
        }
    }

    async fn see(&self, order_id: &str, id: TransactionId, amount: Money) -> Seen {
        let (minor, currency) = (amount.minor(), amount.currency());
        see(&self.client, self.clock, order_id, id, (minor, currency)).await
    }

    fn next_order(&mut self) -> TrialOrderId {
        self.orders += 1;
        TrialOrderId {
            run: self.run,
            number: self.orders,
        }
    }

    fn next_debit(&mut self, profile_id: ProfileId) -> TrialDebit {
        TrialDebit {
            order_id: self.next_order(),
            profile_id,
            amount: self.amount,
            notification_url: self.ear.as_ref().ok().map(|(_, url)| url.clone()),
        }
    }

    async fn pause(&self) {
        self.clock.sleep_until(self.clock.now() + PAUSE).await;
    }

    async fn debit(&mut self, debit: &TrialDebit) -> Answer {
        let answer = self.send(&self.client, debit).await;
        self.note(debit, &answer);
        answer
    }

    async fn send(&self, client: &TrialClient, debit: &TrialDebit) -> Answer {
        tracing::info!(order.id = %debit.order_id, amount_minor = debit.amount.minor(), "debiting for an experiment");
        let sent_at = self.clock.now();
        let said = client.debit(debit).await;
        let expected = client.expected(debit.order_id, debit.amount);
        self.answer(sent_at, said, Some(&expected))
    }

    fn note(&mut self, debit: &TrialDebit, answer: &Answer) {
        if let Some(id) = answer.transaction_id
            && self.made.iter().all(|(_, made)| *made != id)
        {
            self.made.push((debit.clone(), id));
        }
    }

    /// What came of a request that was sent then, for the report. Without `expected` it was no debit that was asked for.
    fn answer(
        &self,
        sent_at: DateTime<Utc>,
        said: Result<Said, NoAnswer>,
        expected: Option<&Expected>,
    ) -> Answer {
        let after_ms = (self.clock.now() - sent_at).num_milliseconds();
        answer(after_ms, said, expected, &self.secrets)
    }
}

/// The next notice; never, when nobody listens.
async fn next_notice(ear: &mut Result<(Ear, Url), String>) -> Option<Heard> {
    match ear {
        Ok((ear, _)) => ear.next().await,
        Err(_) => None,
    }
}

/// Adds what a notice says, if it is about the debit that is timed.
fn hear(timing: &mut Timing, heard: &Heard, sent_at: DateTime<Utc>) {
    if heard.notice.order_id.as_deref() == Some(&timing.order_id) {
        let status = heard.notice.status.clone();
        add(&mut timing.notices, status, heard.at, sent_at);
    }
}

/// Adds a status, unless it was the last one already.
fn add(
    statuses: &mut Vec<StatusAt>,
    status: Option<String>,
    at: DateTime<Utc>,
    sent_at: DateTime<Utc>,
) {
    let last = statuses.last().map(|last| &last.status);
    if let Some(status) = status
        && last != Some(&status)
    {
        let after_ms = (at - sent_at).num_milliseconds();
        statuses.push(StatusAt { status, after_ms });
    }
}

/// Whether the last of the statuses is an outcome.
fn is_over(statuses: &[StatusAt]) -> bool {
    statuses.last().is_some_and(|last| is_final(&last.status))
}

/// Whether imoje's documents call a status an outcome.
fn is_final(status: &str) -> bool {
    matches!(status, "settled" | "rejected" | "cancelled" | "error")
}
