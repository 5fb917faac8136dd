//! From news about an attempt to what becomes of the attempt, its charge and its subscription.
//!
//! This is the only place where an attempt is made final, whoever brought the news: the answer to the debit, a read, our
//! own proof that nothing was sent, or people. The store loads a [`Standing`] under lock, calls [`decide`], and writes
//! the [`Decision`] in the same transaction.

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;

use crate::domain::answer::{Doubt, RefusalReason, Verdict};
use crate::domain::attempt::{AttemptEvent, AttemptState};
use crate::domain::charge::{ChargeEvent, ChargeState};
use crate::domain::decline::DeclineClass;
use crate::domain::event::EventKind;
use crate::domain::id::TransactionId;
use crate::domain::retry::{AfterDecline, RetryPolicy};
use crate::domain::subscription::{DeactivationReason, SubscriptionEvent, SubscriptionStatus};

/// What is known before the news, read under lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Of the attempt that the news is about.
    pub attempt: AttemptState,
    /// The gateway's id of that attempt, once known.
    pub transaction_id: Option<TransactionId>,
    /// When its permit was committed.
    pub permitted_at: DateTime<Utc>,
    /// Of its charge.
    pub charge: ChargeState,
    /// Of its subscription.
    pub subscription: SubscriptionStatus,
    /// How often the charge was declined before.
    pub declines: u16,
    /// How many attempts of the charge never reached the card.
    pub unsent: u16,
    /// When the charge is tried again, while it waits for that.
    pub retry_at: Option<DateTime<Utc>>,
    /// When the charge was first attempted.
    pub first_attempt_at: DateTime<Utc>,
    /// The subscription's zone.
    pub zone: Tz,
    /// Whether another attempt of the charge is in doubt, pending or settled.
    pub another_blocks: bool,
    /// Whether another attempt of the charge has moved money, as settled or as surplus.
    pub another_moved_money: bool,
    /// Whether the transaction named by the news belongs to another attempt.
    pub transaction_taken: bool,
}

/// News about an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// No byte of the request left us.
    NotSent,
    /// No byte of the request left us, because imoje would refuse what it says.
    Unsendable,
    /// What the answer to our debit said.
    Answered(Verdict),
    /// What `GET transaction/{id}` said.
    Read(Verdict),
}

/// The rules that a decision follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// For declines.
    pub retry: RetryPolicy,
    /// For asking about what is not final.
    pub resolver: ResolverPolicy,
}

/// When to ask again, and when to ask people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolverPolicy {
    /// Waits between reads of a transaction that is not final; the last one repeats.
    pub poll: Vec<TimeDelta>,
    /// How long a notice may still bring the id of an attempt in doubt: imoje's retry cycle lasts 95 h 25 min.
    pub answer_window: TimeDelta,
    /// How long after the permit a charge in doubt is written off unless a person decides otherwise.
    pub write_off_after: TimeDelta,
}

impl ResolverPolicy {
    /// The wait before the read that follows `polls` earlier ones.
    pub fn poll_after(&self, polls: u16) -> TimeDelta {
        self.poll
            .get(usize::from(polls))
            .or(self.poll.last())
            .copied()
            .unwrap_or(TimeDelta::hours(6))
    }
}

/// When an attempt is looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextPoll {
    /// As was planned before.
    AsPlanned,
    /// At this time.
    At(DateTime<Utc>),
    /// Never: it is final and nothing waits for it.
    Never,
}

/// What becomes of a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChargeStep {
    /// Its new state.
    pub state: ChargeState,
    /// When it is looked at again; set exactly for open states.
    pub next_action_at: Option<DateTime<Utc>>,
    /// Why, for states that carry a reason.
    pub reason: Option<&'static str>,
}

/// What becomes of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscriptionStep {
    /// The event to apply, under lock, to whatever its status is by then.
    pub event: SubscriptionEvent,
    /// Why, for a deactivation.
    pub reason: Option<DeactivationReason>,
}

/// Everything that follows from a piece of news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The attempt's state afterwards; the same as before when nothing is new.
    pub attempt: AttemptState,
    /// The gateway's id, when the news brought it for the first time.
    pub transaction_id: Option<TransactionId>,
    /// The issuer's reason for a decline.
    pub status_code: Option<String>,
    /// What the decline means.
    pub decline: Option<DeclineClass>,
    /// When to look at the attempt again.
    pub next_poll: NextPoll,
    /// What becomes of the charge, when anything does.
    pub charge: Option<ChargeStep>,
    /// What becomes of the subscription, when anything does.
    pub subscription: Option<SubscriptionStep>,
    /// Whether the gateway says that the card's profile is inactive.
    pub card_inactive: bool,
    /// Why all charging must stop, when it must.
    pub brake: Option<&'static str>,
    /// What to tell.
    pub events: Vec<EventKind>,
}

impl Decision {
    fn unchanged(standing: &Standing) -> Self {
        Self {
            attempt: standing.attempt,
            transaction_id: None,
            status_code: None,
            decline: None,
            next_poll: NextPoll::AsPlanned,
            charge: None,
            subscription: None,
            card_inactive: false,
            brake: None,
            events: Vec::new(),
        }
    }

    /// Whether anything has to be written.
    pub fn is_news(&self, standing: &Standing) -> bool {
        *self != Self::unchanged(standing)
    }

    fn incident(mut self, kind: EventKind, brake: &'static str) -> Self {
        self.events.push(kind);
        self.brake = Some(brake);
        self
    }
}

/// Decides what follows from `news` about an attempt that stands as `standing`.
pub fn decide(standing: &Standing, news: &News, policy: &Policy, now: DateTime<Utc>) -> Decision {
    let unchanged = Decision::unchanged(standing);
    let (verdict, answered) = match news {
        News::NotSent => return freed(standing, AttemptEvent::NotSent, policy, now),
        News::Unsendable => {
            let decision = freed(standing, AttemptEvent::NotSent, policy, now);
            return for_a_person(standing, decision, "request_invalid");
        }
        News::Answered(verdict) => (verdict, true),
        News::Read(verdict) => (verdict, false),
    };
    if let Some(shown) = shown_transaction(verdict) {
        let another_transaction = standing.transaction_id.is_some_and(|known| known != shown);
        if standing.transaction_taken || another_transaction {
            return unchanged.incident(EventKind::IncidentMismatch, "transaction_mismatch");
        }
    }
    match verdict {
        Verdict::Settled { transaction_id } => settled(standing, *transaction_id),
        Verdict::Pending { transaction_id, .. } => pending(standing, *transaction_id, policy, now),
        Verdict::Rejected {
            transaction_id,
            status_code: None,
        } if answered => {
            // The read tells the issuer's reason, and the reason decides whether the card may be tried again.
            let decision = pending(standing, *transaction_id, policy, now);
            Decision {
                next_poll: NextPoll::At(now),
                ..decision
            }
        }
        Verdict::Rejected {
            transaction_id,
            status_code,
        } => rejected(
            standing,
            *transaction_id,
            status_code.as_deref(),
            policy,
            now,
        ),
        Verdict::Refused(refusal) => refused(standing, refusal.reason, policy, now),
        Verdict::InDoubt(Doubt::Mismatch) => {
            unchanged.incident(EventKind::IncidentMismatch, "answer_mismatch")
        }
        Verdict::InDoubt(doubt) => in_doubt(standing, *doubt, answered, policy),
    }
}

fn shown_transaction(verdict: &Verdict) -> Option<TransactionId> {
    match verdict {
        Verdict::Settled { transaction_id }
        | Verdict::Pending { transaction_id, .. }
        | Verdict::Rejected { transaction_id, .. } => Some(*transaction_id),
        Verdict::Refused(_) | Verdict::InDoubt(_) => None,
    }
}

/// The news contradicts what is known: it changes nothing, and people are told.
fn contradiction(standing: &Standing) -> Decision {
    Decision::unchanged(standing).incident(EventKind::IncidentContradiction, "contradicting_news")
}

fn settled(standing: &Standing, transaction_id: TransactionId) -> Decision {
    let event = if standing.another_blocks {
        AttemptEvent::SettledBesideAnother
    } else {
        AttemptEvent::Settled
    };
    let Ok(attempt) = standing.attempt.after(event) else {
        return contradiction(standing);
    };
    if attempt == standing.attempt {
        return Decision::unchanged(standing);
    }
    let mut decision = Decision {
        attempt,
        transaction_id: standing.transaction_id.is_none().then_some(transaction_id),
        next_poll: NextPoll::Never,
        ..Decision::unchanged(standing)
    };
    if attempt == AttemptState::Surplus || standing.another_moved_money {
        decision = decision.incident(EventKind::IncidentSurplus, "surplus_settlement");
    }
    if attempt == AttemptState::Surplus && !standing.another_moved_money {
        // The other attempt is not final: people look, and no further permit is given.
        decision.charge = hold(standing, "surplus_settlement");
        return decision;
    }
    if standing.charge != ChargeState::Paid {
        decision.charge = charge_step(standing, ChargeEvent::Settled, None, None);
        decision.events.push(EventKind::ChargePaid);
        if standing.subscription == SubscriptionStatus::PastDue {
            decision.subscription = Some(SubscriptionStep {
                event: SubscriptionEvent::CaughtUp,
                reason: None,
            });
        }
    }
    decision
}

fn pending(
    standing: &Standing,
    transaction_id: TransactionId,
    policy: &Policy,
    now: DateTime<Utc>,
) -> Decision {
    let Ok(attempt) = standing.attempt.after(AttemptEvent::Pending) else {
        return contradiction(standing);
    };
    if attempt == standing.attempt {
        return Decision::unchanged(standing);
    }
    Decision {
        attempt,
        transaction_id: standing.transaction_id.is_none().then_some(transaction_id),
        next_poll: NextPoll::At(now + policy.resolver.poll_after(0)),
        ..Decision::unchanged(standing)
    }
}

fn rejected(
    standing: &Standing,
    transaction_id: TransactionId,
    status_code: Option<&str>,
    policy: &Policy,
    now: DateTime<Utc>,
) -> Decision {
    let Ok(attempt) = standing.attempt.after(AttemptEvent::Rejected) else {
        return contradiction(standing);
    };
    let decline = policy.retry.classes.decline(status_code);
    if attempt == standing.attempt {
        // Read again just before a retry: the decline stands, so the retry may go ahead. A read before its time, because a notice
        // came, does not count: the decline may be reversed until then.
        let is_early = standing.retry_at.is_some_and(|retry_at| now < retry_at);
        let next_poll = if is_early {
            NextPoll::AsPlanned
        } else {
            NextPoll::Never
        };
        return Decision {
            next_poll,
            ..Decision::unchanged(standing)
        };
    }
    let mut decision = Decision {
        attempt,
        transaction_id: standing.transaction_id.is_none().then_some(transaction_id),
        status_code: status_code.map(str::to_owned),
        decline: Some(decline.class),
        next_poll: NextPoll::Never,
        ..Decision::unchanged(standing)
    };
    if let Some(closed) = closed_otherwise(standing) {
        return Decision {
            charge: closed.0,
            events: closed.1,
            ..decision
        };
    }
    let after = policy.retry.after_decline(
        decline,
        standing.declines.saturating_add(1),
        standing.first_attempt_at,
        standing.zone,
        now,
    );
    match after {
        AfterDecline::RetryAt(at) => {
            decision.next_poll = NextPoll::At(at);
            decision.charge = charge_step(standing, ChargeEvent::Retried, Some(at), None);
            decision.events.push(EventKind::ChargeDeclined);
            decision.subscription = Some(SubscriptionStep {
                event: SubscriptionEvent::FellBehind,
                reason: None,
            });
        }
        AfterDecline::Deactivate(reason) => {
            decision.charge =
                charge_step(standing, ChargeEvent::GivenUp, None, Some(reason.as_str()));
            decision.events.push(EventKind::ChargeFailed);
            decision.subscription = Some(SubscriptionStep {
                event: SubscriptionEvent::Deactivated,
                reason: Some(reason),
            });
        }
    }
    decision
}

fn refused(
    standing: &Standing,
    reason: RefusalReason,
    policy: &Policy,
    now: DateTime<Utc>,
) -> Decision {
    let mut decision = freed(standing, AttemptEvent::Refused, policy, now);
    if decision.attempt == standing.attempt {
        return decision;
    }
    let moved_on = closed_otherwise(standing).is_some();
    match reason {
        RefusalReason::Unavailable => {}
        RefusalReason::Unauthorized => {
            decision = decision.incident(EventKind::IncidentUnauthorized, "unauthorized");
        }
        RefusalReason::Invalid => decision = for_a_person(standing, decision, "request_refused"),
        RefusalReason::ProfileInactive => {
            decision.card_inactive = true;
            decision.subscription = Some(SubscriptionStep {
                event: SubscriptionEvent::Deactivated,
                reason: Some(DeactivationReason::ProfileInactive),
            });
            if !moved_on {
                let why = DeactivationReason::ProfileInactive.as_str();
                decision.charge = charge_step(standing, ChargeEvent::GivenUp, None, Some(why));
                decision.events = vec![EventKind::ChargeFailed];
            }
        }
    }
    decision
}

/// Holds the charge of an attempt that was just freed: sending the same again would not help.
fn for_a_person(standing: &Standing, decision: Decision, reason: &'static str) -> Decision {
    if decision.attempt == standing.attempt || closed_otherwise(standing).is_some() {
        return decision;
    }
    Decision {
        charge: hold(standing, reason),
        events: vec![EventKind::ChargeHeld],
        ..decision
    }
}

/// The attempt never reached the card: the charge waits a while and is tried again, as often as it takes.
fn freed(
    standing: &Standing,
    event: AttemptEvent,
    policy: &Policy,
    now: DateTime<Utc>,
) -> Decision {
    let Ok(attempt) = standing.attempt.after(event) else {
        return contradiction(standing);
    };
    if attempt == standing.attempt {
        return Decision::unchanged(standing);
    }
    let decision = Decision {
        attempt,
        next_poll: NextPoll::Never,
        ..Decision::unchanged(standing)
    };
    if let Some((charge, events)) = closed_otherwise(standing) {
        return Decision {
            charge,
            events,
            ..decision
        };
    }
    let retry_at = now + unsent_delay(standing.unsent, &policy.resolver);
    Decision {
        charge: charge_step(standing, ChargeEvent::Retried, Some(retry_at), None),
        ..decision
    }
}

/// How long a charge waits whose request never reached the card: a minute at first, at most as long as between reads.
fn unsent_delay(unsent: u16, policy: &ResolverPolicy) -> TimeDelta {
    policy.poll_after(unsent).max(TimeDelta::minutes(1))
}

/// What becomes of a charge whose attempt moved no money, when the retry policy has no say in it: another attempt has moved
/// the money, the charge is closed already, or its subscription is not billed any more.
fn closed_otherwise(standing: &Standing) -> Option<(Option<ChargeStep>, Vec<EventKind>)> {
    if standing.another_moved_money {
        let paid = charge_step(standing, ChargeEvent::Settled, None, None);
        return Some((paid, vec![EventKind::ChargePaid]));
    }
    if standing.another_blocks || !standing.charge.is_open() {
        return Some((None, Vec::new()));
    }
    if !standing.subscription.is_billable() {
        let failed = charge_step(
            standing,
            ChargeEvent::GivenUp,
            None,
            Some("subscription_not_billable"),
        );
        return Some((failed, vec![EventKind::ChargeFailed]));
    }
    None
}

fn in_doubt(standing: &Standing, doubt: Doubt, answered: bool, policy: &Policy) -> Decision {
    let mut decision = Decision::unchanged(standing);
    if answered && standing.attempt == AttemptState::InDoubt {
        decision.next_poll = NextPoll::At(standing.permitted_at + policy.resolver.answer_window);
        decision.events.push(EventKind::AttemptInDoubt);
    }
    if doubt == Doubt::Unauthorized {
        decision = decision.incident(EventKind::IncidentUnauthorized, "unauthorized");
    }
    decision
}

fn hold(standing: &Standing, reason: &'static str) -> Option<ChargeStep> {
    charge_step(
        standing,
        ChargeEvent::Held,
        Some(standing.permitted_at + HELD_REMINDER),
        Some(reason),
    )
}

/// A held charge is looked at again at the latest this long after its last permit.
const HELD_REMINDER: TimeDelta = TimeDelta::days(10);

/// The charge's step, or nothing when the machine has none for it or it changes nothing.
fn charge_step(
    standing: &Standing,
    event: ChargeEvent,
    next_action_at: Option<DateTime<Utc>>,
    reason: Option<&'static str>,
) -> Option<ChargeStep> {
    let state = standing.charge.after(event).ok()?;
    (state != standing.charge).then_some(ChargeStep {
        state,
        next_action_at: next_action_at.filter(|_| state.is_open()),
        reason,
    })
}

/// What to do about an attempt in doubt whose transaction id nobody has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DoubtStage {
    /// A notice may still come: look again then.
    WaitUntil(DateTime<Utc>),
    /// People should look; if they do nothing, look again at `write_off_at`.
    OpenCase {
        /// When the charge is written off.
        write_off_at: DateTime<Utc>,
    },
    /// Nobody decided in time: the charge is given up, the attempt stays in doubt for ever, and both are reported.
    WriteOff,
}

/// The stage of an attempt in doubt since `permitted_at`. `many` says that as many are in doubt as may be, so that people
/// are asked at once.
pub fn doubt_stage(
    permitted_at: DateTime<Utc>,
    case_open: bool,
    many: bool,
    policy: &ResolverPolicy,
    now: DateTime<Utc>,
) -> DoubtStage {
    let case_at = permitted_at + policy.answer_window;
    let write_off_at = permitted_at + policy.write_off_after;
    if case_open && now >= write_off_at {
        DoubtStage::WriteOff
    } else if case_open {
        DoubtStage::WaitUntil(write_off_at)
    } else if many || now >= case_at {
        DoubtStage::OpenCase {
            write_off_at: write_off_at.max(now),
        }
    } else {
        DoubtStage::WaitUntil(case_at)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::domain::answer::Refusal;
    use crate::domain::decline::DeclineTable;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn now() -> DateTime<Utc> {
        at("2027-01-01T06:00:00Z")
    }

    fn id(number: u128) -> TransactionId {
        TransactionId::from_uuid(Uuid::from_u128(number))
    }

    fn policy() -> Policy {
        let classes = BTreeMap::from([
            ("CODE_51".to_owned(), DeclineClass::Funds),
            ("CODE_43".to_owned(), DeclineClass::Never),
        ]);
        Policy {
            retry: RetryPolicy {
                days: vec![1, 3, 7, 14],
                unknown_code_tries: 3,
                classes: DeclineTable::new(classes),
            },
            resolver: ResolverPolicy {
                poll: vec![TimeDelta::seconds(5), TimeDelta::hours(6)],
                answer_window: TimeDelta::hours(96),
                write_off_after: TimeDelta::days(10),
            },
        }
    }

    fn in_flight(attempt: AttemptState) -> Standing {
        Standing {
            attempt,
            transaction_id: None,
            permitted_at: now(),
            charge: ChargeState::InFlight,
            subscription: SubscriptionStatus::Active,
            declines: 0,
            unsent: 0,
            retry_at: None,
            first_attempt_at: now(),
            zone: chrono_tz::Europe::Warsaw,
            another_blocks: false,
            another_moved_money: false,
            transaction_taken: false,
        }
    }

    fn settled_news() -> News {
        News::Read(Verdict::Settled {
            transaction_id: id(1),
        })
    }

    fn rejected_news(code: &str) -> News {
        News::Read(Verdict::Rejected {
            transaction_id: id(1),
            status_code: Some(code.to_owned()),
        })
    }

    fn state_of(decision: &Decision) -> Option<ChargeState> {
        decision.charge.map(|step| step.state)
    }

    #[test]
    fn a_settlement_pays_the_charge_whatever_it_was() {
        for charge in ChargeState::ALL {
            let standing = Standing {
                charge,
                ..in_flight(AttemptState::InDoubt)
            };
            let decision = decide(&standing, &settled_news(), &policy(), now());
            assert_eq!(decision.attempt, AttemptState::Settled);
            let paid = state_of(&decision).unwrap_or(charge);
            assert_eq!(paid, ChargeState::Paid, "{charge:?}");
        }
    }

    #[test]
    fn a_settlement_beside_a_living_attempt_holds_the_charge_and_stops_everything() {
        let standing = Standing {
            another_blocks: true,
            ..in_flight(AttemptState::Rejected)
        };
        let decision = decide(&standing, &settled_news(), &policy(), now());
        assert_eq!(decision.attempt, AttemptState::Surplus);
        assert_eq!(state_of(&decision), Some(ChargeState::Held));
        assert!(decision.brake.is_some());
        assert_eq!(decision.events, [EventKind::IncidentSurplus]);
    }

    #[test]
    fn when_the_other_attempt_then_fails_the_surplus_has_paid() {
        let standing = Standing {
            charge: ChargeState::Held,
            another_moved_money: true,
            ..in_flight(AttemptState::Pending)
        };
        let decision = decide(&standing, &rejected_news("CODE_51"), &policy(), now());
        assert_eq!(state_of(&decision), Some(ChargeState::Paid));
        assert_eq!(decision.subscription, None);
    }

    #[test]
    fn only_the_read_at_its_time_allows_the_retry() {
        let retry_at = now() + TimeDelta::days(1);
        let standing = Standing {
            charge: ChargeState::RetryWait,
            retry_at: Some(retry_at),
            transaction_id: Some(id(1)),
            ..in_flight(AttemptState::Rejected)
        };
        let news = rejected_news("CODE_51");
        let early = decide(
            &standing,
            &news,
            &policy(),
            retry_at - TimeDelta::seconds(1),
        );
        assert!(
            !early.is_news(&standing),
            "a notice in between clears nothing"
        );
        let due = decide(&standing, &news, &policy(), retry_at);
        assert_eq!(due.next_poll, NextPoll::Never);
    }

    #[test]
    fn a_decline_without_a_reason_is_read_before_it_is_believed() {
        let news = News::Answered(Verdict::Rejected {
            transaction_id: id(1),
            status_code: None,
        });
        let decision = decide(&in_flight(AttemptState::InDoubt), &news, &policy(), now());
        assert_eq!(decision.attempt, AttemptState::Pending);
        assert_eq!(decision.next_poll, NextPoll::At(now()));
    }

    #[test]
    fn a_card_that_must_not_be_tried_again_ends_the_subscription() {
        let standing = in_flight(AttemptState::Pending);
        let decision = decide(&standing, &rejected_news("CODE_43"), &policy(), now());
        assert_eq!(state_of(&decision), Some(ChargeState::Failed));
        let reason = decision.subscription.and_then(|step| step.reason);
        assert_eq!(reason, Some(DeactivationReason::CardBlocked));
    }

    #[test]
    fn nothing_is_retried_for_a_subscription_that_stopped_meanwhile() {
        for subscription in SubscriptionStatus::ALL {
            let standing = Standing {
                subscription,
                ..in_flight(AttemptState::Pending)
            };
            let decision = decide(&standing, &rejected_news("CODE_51"), &policy(), now());
            let retried = state_of(&decision) == Some(ChargeState::RetryWait);
            assert_eq!(retried, subscription.is_billable(), "{subscription:?}");
        }
    }

    #[test]
    fn another_transaction_under_our_order_is_an_incident() {
        let standing = Standing {
            transaction_id: Some(id(2)),
            ..in_flight(AttemptState::Pending)
        };
        for news in [settled_news(), rejected_news("CODE_51")] {
            let decision = decide(&standing, &news, &policy(), now());
            assert_eq!(decision.events, [EventKind::IncidentMismatch]);
            assert!(decision.brake.is_some() && decision.attempt == AttemptState::Pending);
        }
    }

    #[test]
    fn doubt_is_brought_to_people_and_given_up_by_the_clock_but_never_decided_by_it() {
        let stage = |hours, open, many| {
            let later = now() + TimeDelta::hours(hours);
            doubt_stage(now(), open, many, &policy().resolver, later)
        };
        let write_off_at = now() + TimeDelta::days(10);
        assert_eq!(
            stage(1, false, false),
            DoubtStage::WaitUntil(now() + TimeDelta::hours(96))
        );
        assert_eq!(stage(1, false, true), DoubtStage::OpenCase { write_off_at });
        assert_eq!(
            stage(96, false, false),
            DoubtStage::OpenCase { write_off_at }
        );
        assert_eq!(stage(100, true, false), DoubtStage::WaitUntil(write_off_at));
        assert_eq!(stage(240, true, true), DoubtStage::WriteOff);
    }

    fn any_news() -> impl Strategy<Value = News> {
        let verdict = prop_oneof![
            (1..3u128).prop_map(|number| Verdict::Settled {
                transaction_id: id(number)
            }),
            (1..3u128).prop_map(|number| Verdict::Pending {
                transaction_id: id(number),
                status: "pending".to_owned()
            }),
            (1..3u128, proptest::option::of("CODE_(51|43|XX)")).prop_map(
                |(number, status_code)| {
                    Verdict::Rejected {
                        transaction_id: id(number),
                        status_code,
                    }
                }
            ),
            proptest::sample::select(vec![
                RefusalReason::ProfileInactive,
                RefusalReason::Unauthorized,
                RefusalReason::Unavailable,
                RefusalReason::Invalid,
            ])
            .prop_map(|reason| Verdict::Refused(Refusal {
                reason,
                http_status: 400,
                code: "X".to_owned()
            })),
            proptest::sample::select(vec![Doubt::NoAnswer, Doubt::Mismatch, Doubt::Unauthorized])
                .prop_map(Verdict::InDoubt),
        ];
        prop_oneof![
            Just(News::NotSent),
            Just(News::Unsendable),
            verdict.clone().prop_map(News::Answered),
            verdict.prop_map(News::Read),
        ]
    }

    proptest! {
        #[test]
        fn whatever_the_news_a_charge_is_freed_only_when_its_attempt_is_and_open_means_looked_at(
            attempt in proptest::sample::select(AttemptState::ALL.to_vec()),
            charge in proptest::sample::select(ChargeState::ALL.to_vec()),
            subscription in proptest::sample::select(SubscriptionStatus::ALL.to_vec()),
            declines in 0..8u16,
            another_blocks in any::<bool>(),
            another_moved_money in any::<bool>(),
            known in proptest::option::of(1..3u128),
            news in any_news(),
        ) {
            let standing = Standing {
                charge, subscription, declines, another_blocks, another_moved_money,
                transaction_id: known.map(id),
                ..in_flight(attempt)
            };
            let decision = decide(&standing, &news, &policy(), now());
            if let Some(step) = decision.charge {
                prop_assert_eq!(step.next_action_at.is_some(), step.state.is_open());
                if step.state == ChargeState::RetryWait {
                    prop_assert!(!decision.attempt.blocks() && decision.attempt != AttemptState::Surplus);
                    prop_assert!(!another_blocks && !another_moved_money);
                    prop_assert!(step.next_action_at >= Some(now()));
                }
                if step.state == ChargeState::Paid {
                    let moved = matches!(decision.attempt, AttemptState::Settled | AttemptState::Surplus);
                    prop_assert!(moved || another_moved_money);
                }
            }
            // What is said again changes nothing more.
            let after = Standing {
                attempt: decision.attempt,
                charge: decision.charge.map_or(charge, |step| step.state),
                transaction_id: standing.transaction_id.or(decision.transaction_id),
                ..standing.clone()
            };
            prop_assert_eq!(decide(&after, &news, &policy(), now()).attempt, decision.attempt);
        }
    }
}
