//! From news about an attempt to what becomes of the attempt, its charge and its subscription.
//!
//! This is the only place where an attempt is made final, whoever brought the news: the answer to the debit, a read, our
//! own proof that nothing was sent, or people. The store loads a [`Standing`] under lock, calls [`decide`], and writes
//! the [`Decision`] in the same transaction.

mod decision;
mod policy;

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::answer::{Doubt, RefusalReason, Verdict};
use crate::domain::attempt::{AttemptEvent, AttemptState};
use crate::domain::charge::{ChargeEvent, ChargeState};
use crate::domain::event::EventKind;
use crate::domain::id::TransactionId;
use crate::domain::retry::{AfterDecline, READ_AHEAD};
use crate::domain::subscription::{DeactivationReason, SubscriptionEvent, SubscriptionStatus};

pub use decision::{ChargeStep, Decision, News, NextPoll, Standing, SubscriptionStep};
pub use policy::{DoubtStage, Policy, ResolverPolicy, doubt_stage};

/// Decides what follows from `news` about an attempt that stands as `standing`.
pub fn decide(standing: &Standing, news: &News, policy: &Policy, now: DateTime<Utc>) -> Decision {
    let unchanged = Decision::unchanged(standing);
    let (verdict, answered) = match news {
        News::NotSent => return freed(standing, AttemptEvent::NotSent, policy, now),
        News::Unsendable => {
            let decision = freed(standing, AttemptEvent::NotSent, policy, now);
            return for_a_person(standing, decision, "request_invalid");
        }
        News::DeclaredAbsent => return freed(standing, AttemptEvent::DeclaredAbsent, policy, now),
        News::Answered(verdict) => (verdict, true),
        News::Read(verdict) => (verdict, false),
    };
    if let Some(shown) = verdict.transaction_id() {
        if standing.transaction_taken {
            return unchanged.incident(EventKind::IncidentMismatch, "transaction_mismatch");
        }
        if standing.transaction_id.is_some_and(|known| known != shown) {
            return second_transaction(standing, verdict);
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
            let mut decision = pending(standing, *transaction_id, policy, now);
            if decision.attempt == AttemptState::Pending {
                decision.next_poll = NextPoll::At(now);
            }
            decision
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

/// The gateway shows a second transaction under our order id, complete and ours. Money that it moved is believed, because that
/// only blocks; whatever else it says decides nothing.
fn second_transaction(standing: &Standing, verdict: &Verdict) -> Decision {
    let decision = match verdict {
        Verdict::Settled { transaction_id } => settled(standing, *transaction_id),
        Verdict::Pending { .. }
        | Verdict::Rejected { .. }
        | Verdict::Refused(_)
        | Verdict::InDoubt(_) => Decision::unchanged(standing),
    };
    decision.incident(EventKind::IncidentMismatch, "transaction_mismatch")
}

/// The news contradicts what is known: it changes nothing, and people are told. What would have been tried again waits for them.
fn contradiction(standing: &Standing) -> Decision {
    let waits = matches!(
        standing.charge,
        ChargeState::Planned | ChargeState::RetryWait
    );
    let charge = waits
        .then(|| hold(standing, "contradicting_news"))
        .flatten();
    Decision {
        charge,
        ..Decision::unchanged(standing)
    }
    .incident(EventKind::IncidentContradiction, "contradicting_news")
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
    if standing.another_moved_money && standing.another_is_by_link {
        // A payer must not be able to stop everybody.
        decision.events.push(EventKind::IncidentSurplus);
    } else if attempt == AttemptState::Surplus || standing.another_moved_money {
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
        let is_early = standing
            .retry_at
            .is_some_and(|retry_at| now < retry_at - READ_AHEAD);
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
        AfterDecline::RetryAt(at) => tried_again(&mut decision, standing, at),
        // The verdict is on a card that is not the subscription's any more.
        AfterDecline::Deactivate(_) if standing.card_replaced => {
            tried_again(&mut decision, standing, now + REPLACED_CARD_WAIT);
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

/// The charge of a declined attempt waits for another try.
fn tried_again(decision: &mut Decision, standing: &Standing, at: DateTime<Utc>) {
    decision.next_poll = NextPoll::At(at - READ_AHEAD);
    decision.charge = charge_step(standing, ChargeEvent::Retried, Some(at), None);
    decision.events.push(EventKind::ChargeDeclined);
    decision.subscription = Some(SubscriptionStep {
        event: SubscriptionEvent::FellBehind,
        reason: None,
    });
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
        RefusalReason::CardDataDisabled => {
            decision = decision.incident(EventKind::IncidentUnauthorized, "card_data_disabled");
        }
        RefusalReason::Invalid => decision = for_a_person(standing, decision, "request_refused"),
        // The charge goes on with the card that the subscription has now.
        RefusalReason::ProfileInactive if standing.card_replaced => decision.card_inactive = true,
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

/// The attempt never reached the card, or imoje never had it: the charge waits a while and is tried again, as often as it takes.
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
        let told = paid.map(|_| EventKind::ChargePaid);
        return Some((paid, told.into_iter().collect()));
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

/// After a card that was replaced meanwhile, the new one is tried on the next day.
const REPLACED_CARD_WAIT: TimeDelta = TimeDelta::days(1);

/// A held charge is looked at again at the latest this long after its last permit.
const HELD_REMINDER: TimeDelta = TimeDelta::days(10);

/// The charge's step, or nothing when the machine has none for it or it changes nothing. One that waits for a retry already waits for
/// the new one instead.
fn charge_step(
    standing: &Standing,
    event: ChargeEvent,
    next_action_at: Option<DateTime<Utc>>,
    reason: Option<&'static str>,
) -> Option<ChargeStep> {
    let state = standing.charge.after(event).ok()?;
    let is_new = state != standing.charge || event == ChargeEvent::Retried;
    is_new.then_some(ChargeStep {
        state,
        next_action_at: next_action_at.filter(|_| state.is_open()),
        reason,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::domain::answer::Refusal;
    use crate::domain::decline::{DeclineClass, DeclineTable};
    use crate::domain::retry::RetryPolicy;

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
            another_is_by_link: false,
            card_replaced: false,
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
            another_is_by_link: false,
            card_replaced: false,
            ..in_flight(AttemptState::Pending)
        };
        let decision = decide(&standing, &rejected_news("CODE_51"), &policy(), now());
        assert_eq!(state_of(&decision), Some(ChargeState::Paid));
        assert_eq!(decision.subscription, None);
    }

    #[test]
    fn a_decline_puts_off_a_charge_that_was_reopened_meanwhile() {
        let standing = Standing {
            charge: ChargeState::RetryWait,
            retry_at: Some(now()),
            ..in_flight(AttemptState::InDoubt)
        };
        let decision = decide(&standing, &rejected_news("CODE_51"), &policy(), now());
        let step = decision.charge.unwrap();
        assert_eq!(step.state, ChargeState::RetryWait);
        assert_eq!(step.next_action_at, Some(now() + TimeDelta::days(1)));
        let read_at = now() + TimeDelta::days(1) - READ_AHEAD;
        assert_eq!(decision.next_poll, NextPoll::At(read_at));
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
            retry_at - READ_AHEAD - TimeDelta::seconds(1),
        );
        assert!(
            !early.is_news(&standing),
            "a notice in between clears nothing"
        );
        let due = decide(&standing, &news, &policy(), retry_at - READ_AHEAD);
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
        let again = decide(&in_flight(AttemptState::Pending), &news, &policy(), now());
        assert_eq!(again.next_poll, NextPoll::At(now()));
    }

    #[test]
    fn a_decline_without_a_reason_hastens_nothing_that_is_decided() {
        let news = News::Answered(Verdict::Rejected {
            transaction_id: id(1),
            status_code: None,
        });
        for state in [AttemptState::Rejected, AttemptState::Settled] {
            let standing = Standing {
                transaction_id: Some(id(1)),
                ..in_flight(state)
            };
            let decision = decide(&standing, &news, &policy(), now());
            assert_eq!(
                (decision.attempt, decision.next_poll),
                (state, NextPoll::AsPlanned)
            );
        }
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
        let declined = decide(&standing, &rejected_news("CODE_51"), &policy(), now());
        assert_eq!(declined.events, [EventKind::IncidentMismatch]);
        assert!(declined.brake.is_some() && declined.attempt == AttemptState::Pending);
        // Money that moved is money that moved: nothing may be tried again.
        for attempt in [AttemptState::Pending, AttemptState::Rejected] {
            let standing = Standing {
                attempt,
                ..standing.clone()
            };
            let paid = decide(&standing, &settled_news(), &policy(), now());
            assert_eq!(paid.attempt, AttemptState::Settled);
            assert_eq!(state_of(&paid), Some(ChargeState::Paid));
            assert!(paid.brake.is_some() && paid.events.contains(&EventKind::IncidentMismatch));
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

    #[test]
    fn a_charge_whose_attempt_is_absent_is_tried_again_unless_it_was_closed_meanwhile() {
        let doubted = Standing {
            charge: ChargeState::Held,
            ..in_flight(AttemptState::InDoubt)
        };
        let freed = |standing: &Standing| decide(standing, &News::DeclaredAbsent, &policy(), now());
        let decision = freed(&doubted);
        assert_eq!(decision.attempt, AttemptState::Absent);
        let step = decision.charge.unwrap();
        assert_eq!(step.state, ChargeState::RetryWait);
        assert_eq!(step.next_action_at, Some(now() + TimeDelta::minutes(1)));
        let stopped = Standing {
            subscription: SubscriptionStatus::Cancelled,
            ..doubted.clone()
        };
        assert_eq!(state_of(&freed(&stopped)), Some(ChargeState::Failed));
        let written_off = Standing {
            charge: ChargeState::Failed,
            ..doubted
        };
        assert_eq!(freed(&written_off).attempt, AttemptState::Absent);
        assert_eq!(freed(&written_off).charge, None);
    }

    #[test]
    fn money_that_moved_after_all_pays_the_charge_or_is_surplus_beside_its_successor() {
        let declared = Standing {
            charge: ChargeState::RetryWait,
            ..in_flight(AttemptState::Absent)
        };
        let paid = decide(&declared, &settled_news(), &policy(), now());
        assert_eq!(paid.attempt, AttemptState::Settled);
        assert_eq!(state_of(&paid), Some(ChargeState::Paid));
        let overtaken = Standing {
            charge: ChargeState::InFlight,
            another_blocks: true,
            ..declared
        };
        let surplus = decide(&overtaken, &settled_news(), &policy(), now());
        assert_eq!(surplus.attempt, AttemptState::Surplus);
        assert!(surplus.brake.is_some());
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
            Just(News::DeclaredAbsent),
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
