//! Refunds: money that goes back to the payer.
//!
//! A refund is one permit for one request, like an attempt, and goes through the same states: it is born in doubt, only evidence moves it
//! on, and it is never sent again. It has no order id of its own, but imoje lists the refunds of a transaction with it, so one
//! whose answer was lost can be looked for, which a debit cannot.

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::answer::{Doubt, ListedRefund, RefusalReason, Verdict};
use crate::domain::attempt::{AttemptEvent, AttemptState};
use crate::domain::event::EventKind;
use crate::domain::id::{RefundId, TransactionId};
use crate::domain::resolution::{News, NextPoll, ResolverPolicy};

/// The time between two permits of one shop: "leave at least 5 seconds between refunds" (imoje API, refunds), and one for the way there.
pub const GAP: TimeDelta = TimeDelta::seconds(6);

/// What is known before the news, read under lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Where the refund stands. Never [`AttemptState::Surplus`].
    pub state: AttemptState,
    /// imoje's id of it, once known.
    pub transaction_id: Option<TransactionId>,
    /// When its permit was committed.
    pub permitted_at: DateTime<Utc>,
    /// How often it was looked at.
    pub polls: u16,
    /// Whether people were asked to look.
    pub case_open: bool,
}

/// Everything that follows from a piece of news about a refund.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The state afterwards; the same as before when nothing is new.
    pub state: AttemptState,
    /// imoje's id, when the news brought it for the first time.
    pub transaction_id: Option<TransactionId>,
    /// When to look again.
    pub next_poll: NextPoll,
    /// Why all charging must stop, when it must.
    pub brake: Option<&'static str>,
    /// What to tell.
    pub events: Vec<EventKind>,
}

impl Decision {
    fn unchanged(standing: &Standing, next_poll: NextPoll) -> Self {
        Self {
            state: standing.state,
            transaction_id: None,
            next_poll,
            brake: None,
            events: Vec::new(),
        }
    }

    fn incident(self, kind: EventKind, brake: &'static str) -> Self {
        Self {
            brake: Some(brake),
            events: [self.events, vec![kind]].concat(),
            ..self
        }
    }
}

/// Decides what follows from `news` about a refund that stands as `standing`.
pub fn decide(
    standing: &Standing,
    news: &News,
    policy: &ResolverPolicy,
    now: DateTime<Utc>,
) -> Decision {
    let later = NextPoll::At(now + policy.poll_after(standing.polls));
    let verdict = match news {
        News::NotSent | News::Unsendable => {
            return step(standing, AttemptEvent::NotSent, None, later);
        }
        News::DeclaredAbsent => return step(standing, AttemptEvent::DeclaredAbsent, None, later),
        News::Answered(verdict) | News::Read(verdict) => verdict,
    };
    if let Some(shown) = verdict.transaction_id()
        && standing.transaction_id.is_some_and(|known| known != shown)
    {
        let unchanged = Decision::unchanged(standing, later);
        return unchanged.incident(EventKind::IncidentMismatch, "transaction_mismatch");
    }
    let named = verdict.transaction_id();
    match verdict {
        Verdict::Settled { .. } => step(standing, AttemptEvent::Settled, named, later),
        Verdict::Pending { .. } => step(standing, AttemptEvent::Pending, named, later),
        Verdict::Rejected { .. } => step(standing, AttemptEvent::Rejected, named, later),
        Verdict::Refused(refusal) => {
            let refused = step(standing, AttemptEvent::Refused, None, later);
            match refusal.reason {
                RefusalReason::Unauthorized => {
                    refused.incident(EventKind::IncidentUnauthorized, "unauthorized")
                }
                RefusalReason::ProfileInactive
                | RefusalReason::CardDataDisabled
                | RefusalReason::Unavailable
                | RefusalReason::Invalid => refused,
            }
        }
        Verdict::InDoubt(Doubt::Mismatch) => Decision::unchanged(standing, later)
            .incident(EventKind::IncidentMismatch, "answer_mismatch"),
        Verdict::InDoubt(Doubt::Unauthorized) => Decision::unchanged(standing, later)
            .incident(EventKind::IncidentUnauthorized, "unauthorized"),
        Verdict::InDoubt(
            Doubt::NoAnswer | Doubt::HttpStatus | Doubt::UnknownBody | Doubt::Incomplete,
        ) => {
            let mut decision = Decision::unchanged(standing, later);
            if news.is_answer() && standing.state == AttemptState::InDoubt {
                decision.events.push(EventKind::RefundInDoubt);
            }
            decision
        }
    }
}

fn step(
    standing: &Standing,
    event: AttemptEvent,
    named: Option<TransactionId>,
    later: NextPoll,
) -> Decision {
    let Ok(state) = standing.state.after(event) else {
        return Decision::unchanged(standing, NextPoll::AsPlanned)
            .incident(EventKind::IncidentContradiction, "contradicting_news");
    };
    let mut events = Vec::new();
    if state != standing.state {
        events.extend(match state {
            AttemptState::Settled => Some(EventKind::RefundSettled),
            AttemptState::Refused | AttemptState::Rejected | AttemptState::NotSent => {
                Some(EventKind::RefundFailed)
            }
            AttemptState::InDoubt
            | AttemptState::Pending
            | AttemptState::Absent
            | AttemptState::Surplus => None,
        });
    }
    Decision {
        state,
        transaction_id: named.filter(|_| standing.transaction_id.is_none()),
        next_poll: if state.is_open() {
            later
        } else {
            NextPoll::Never
        },
        brake: None,
        events,
    }
}

/// Whether people should look for a refund that nothing has told of for as long as notices may come.
pub fn opens_case(standing: &Standing, policy: &ResolverPolicy, now: DateTime<Utc>) -> bool {
    standing.state.is_open()
        && !standing.case_open
        && now >= standing.permitted_at + policy.answer_window
}

/// A refund of the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// The refund.
    pub refund_id: RefundId,
    /// Where it stands.
    pub state: AttemptState,
    /// imoje's id of it, once known.
    pub transaction_id: Option<TransactionId>,
    /// How much goes back.
    pub amount_minor: i64,
    /// Until then its answer may still come by itself.
    pub deadline_at: DateTime<Utc>,
}

impl Known {
    /// Whether it counts against what can go back: it did, or may.
    pub fn counts(&self) -> bool {
        self.state.blocks()
    }

    fn is_lost(&self) -> bool {
        self.state == AttemptState::InDoubt && self.transaction_id.is_none()
    }
}

/// What the books have of a refund that imoje lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// It is this one: whose answer was lost, or which went on since.
    Ours(RefundId, ListedRefund),
    /// Nothing: somebody ordered it in imoje's panel, or the books have forgotten it.
    New(ListedRefund),
}

/// What the list of a transaction's refunds says about those in the books. One whose answer was lost is taken to be the first of its
/// amount that the books have no other for: at most one refund of a transaction is in doubt at any time. While an answer may still come
/// by itself, nothing is said about what the books do not know: whose it is will be known soon.
pub fn news_of_list(known: &[Known], listed: &[ListedRefund], now: DateTime<Utc>) -> Vec<Match> {
    let mut lost: Vec<&Known> = known.iter().filter(|refund| refund.is_lost()).collect();
    let is_in_flight = lost.iter().any(|refund| now < refund.deadline_at);
    listed
        .iter()
        .filter_map(|refund| {
            let named = known
                .iter()
                .find(|known| known.transaction_id == Some(refund.id));
            if let Some(named) = named {
                return Some(Match::Ours(named.refund_id, refund.clone()));
            }
            if is_in_flight {
                return None;
            }
            let place = lost
                .iter()
                .position(|known| known.amount_minor == refund.amount_minor);
            Some(match place {
                Some(place) => Match::Ours(lost.remove(place).refund_id, refund.clone()),
                None => Match::New(refund.clone()),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::answer::Refusal;

    fn now() -> DateTime<Utc> {
        "2027-01-01T06:00:00Z".parse().unwrap()
    }

    fn policy() -> ResolverPolicy {
        ResolverPolicy {
            poll: vec![TimeDelta::seconds(5), TimeDelta::hours(6)],
            answer_window: TimeDelta::hours(96),
            write_off_after: TimeDelta::days(10),
        }
    }

    fn id(number: u128) -> TransactionId {
        TransactionId::from_uuid(Uuid::from_u128(number))
    }

    fn standing(state: AttemptState, transaction_id: Option<TransactionId>) -> Standing {
        Standing {
            state,
            transaction_id,
            permitted_at: now(),
            polls: 0,
            case_open: false,
        }
    }

    fn verdicts() -> Vec<Verdict> {
        let transaction_id = id(7);
        let refused = |reason| {
            Verdict::Refused(Refusal {
                reason,
                http_status: 422,
                code: "X".to_owned(),
            })
        };
        vec![
            Verdict::Settled { transaction_id },
            Verdict::Pending {
                transaction_id,
                status: "new".to_owned(),
            },
            Verdict::Rejected {
                transaction_id,
                status_code: None,
            },
            refused(RefusalReason::Invalid),
            refused(RefusalReason::Unauthorized),
            Verdict::InDoubt(Doubt::NoAnswer),
            Verdict::InDoubt(Doubt::Mismatch),
            Verdict::InDoubt(Doubt::Unauthorized),
        ]
    }

    #[test]
    fn what_went_back_is_never_forgotten_and_doubt_is_left_only_with_evidence() {
        for state in AttemptState::ALL {
            for verdict in verdicts() {
                for news in [News::Answered(verdict.clone()), News::Read(verdict.clone())] {
                    let known = (state == AttemptState::Settled).then(|| id(7));
                    let decision = decide(&standing(state, known), &news, &policy(), now());
                    if state == AttemptState::Settled {
                        assert_eq!(decision.state, state, "{verdict:?}");
                    }
                    if matches!(verdict, Verdict::InDoubt(_)) {
                        assert_eq!(decision.state, state, "{verdict:?}");
                    }
                    let is_open = matches!(
                        decision.state,
                        AttemptState::InDoubt | AttemptState::Pending
                    );
                    let is_looked_at = match decision.next_poll {
                        NextPoll::At(at) => at > now(),
                        // What contradicts it changes nothing about that.
                        NextPoll::AsPlanned => decision.brake.is_some(),
                        NextPoll::Never => false,
                    };
                    assert!(!is_open || is_looked_at, "{verdict:?}");
                }
            }
        }
    }

    #[test]
    fn each_answer_means_what_it_says() {
        let told = |news: &News| {
            let decision = decide(
                &standing(AttemptState::InDoubt, None),
                news,
                &policy(),
                now(),
            );
            (decision.state, decision.events, decision.brake)
        };
        let answered = |verdict: &Verdict| told(&News::Answered(verdict.clone()));
        let all = verdicts();
        for (verdict, expected) in [
            (
                &all[0],
                (AttemptState::Settled, vec![EventKind::RefundSettled], None),
            ),
            (&all[1], (AttemptState::Pending, vec![], None)),
            (
                &all[2],
                (AttemptState::Rejected, vec![EventKind::RefundFailed], None),
            ),
            (
                &all[3],
                (AttemptState::Refused, vec![EventKind::RefundFailed], None),
            ),
            (
                &all[4],
                (
                    AttemptState::Refused,
                    vec![EventKind::RefundFailed, EventKind::IncidentUnauthorized],
                    Some("unauthorized"),
                ),
            ),
            (
                &all[5],
                (AttemptState::InDoubt, vec![EventKind::RefundInDoubt], None),
            ),
            (
                &all[6],
                (
                    AttemptState::InDoubt,
                    vec![EventKind::IncidentMismatch],
                    Some("answer_mismatch"),
                ),
            ),
        ] {
            assert_eq!(answered(verdict), expected, "{verdict:?}");
        }
        assert_eq!(told(&News::NotSent).0, AttemptState::NotSent);
        assert_eq!(told(&News::DeclaredAbsent).0, AttemptState::Absent);
    }

    #[test]
    fn another_transaction_than_the_known_one_is_an_incident() {
        let known = standing(AttemptState::Pending, Some(id(8)));
        let news = News::Read(Verdict::Settled {
            transaction_id: id(7),
        });
        let decision = decide(&known, &news, &policy(), now());
        assert_eq!(decision.state, AttemptState::Pending);
        assert_eq!(decision.brake, Some("transaction_mismatch"));
    }

    #[test]
    fn people_look_once_when_nothing_was_told_for_as_long_as_notices_come() {
        let doubt = standing(AttemptState::InDoubt, None);
        let late = now() + TimeDelta::hours(96);
        assert!(!opens_case(&doubt, &policy(), late - TimeDelta::seconds(1)));
        assert!(opens_case(&doubt, &policy(), late));
        let asked = Standing {
            case_open: true,
            ..doubt
        };
        assert!(!opens_case(&asked, &policy(), late));
        let settled = standing(AttemptState::Settled, Some(id(7)));
        assert!(!opens_case(&settled, &policy(), late));
    }

    #[test]
    fn a_listed_refund_is_known_or_the_lost_one_or_somebody_elses() {
        let refund_id = |number| RefundId::from_uuid(Uuid::from_u128(number));
        let settled = Known {
            refund_id: refund_id(1),
            state: AttemptState::Settled,
            transaction_id: Some(id(1)),
            amount_minor: 100,
            deadline_at: now(),
        };
        let lost = Known {
            refund_id: refund_id(2),
            state: AttemptState::InDoubt,
            transaction_id: None,
            ..settled
        };
        let known = [settled, lost];
        let listed = |number, amount_minor| ListedRefund {
            id: id(number),
            amount_minor,
            status: "settled".to_owned(),
        };
        let (first, found, other) = (listed(1, 100), listed(5, 100), listed(6, 100));
        let ours = |number, refund: &ListedRefund| Match::Ours(refund_id(number), refund.clone());
        assert_eq!(
            news_of_list(
                &known,
                &[first.clone(), found.clone(), other.clone()],
                now()
            ),
            [ours(1, &first), ours(2, &found), Match::New(other.clone())]
        );
        let another_amount = listed(7, 99);
        assert_eq!(
            news_of_list(&known, std::slice::from_ref(&another_amount), now()),
            [Match::New(another_amount)]
        );
        let in_flight = Known {
            deadline_at: now() + TimeDelta::seconds(1),
            ..lost
        };
        assert_eq!(
            news_of_list(&[settled, in_flight], &[first.clone(), found, other], now()),
            [ours(1, &first)]
        );
    }
}
