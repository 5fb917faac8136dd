//! What people may decide about a charge: which of their decisions the rules allow, and when.
//!
//! Nobody's word moves money, and only two people's word frees an attempt of doubt. Each function looks at a [`Case`] and says what
//! follows, or why nothing does; the database refuses the same by itself.

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::attempt::AttemptState;
use crate::domain::charge::ChargeState;
use crate::domain::decline::DeclineClass;
use crate::domain::id::{AttemptId, TransactionId};
use crate::domain::resolution::ResolverPolicy;
use crate::domain::schedule::TOO_LATE;
use crate::domain::subscription::SubscriptionStatus;

/// How long after its permit an attempt may be declared absent at the earliest, whatever the configuration says: imoje repeats
/// a notice for 95 h 25 min.
pub const ABSENT_AFTER_MIN: TimeDelta = TimeDelta::hours(100);

/// A decision about a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ruling {
    /// The transaction with this id is the attempt's. imoje is asked; the person's word is not used.
    Settle,
    /// imoje never had the transaction.
    DeclareAbsent,
    /// The period is not collected any more.
    WriteOff,
    /// A charge that comes late is made all the same.
    Approve,
    /// A charge is tried again now.
    RetryNow,
}

impl Ruling {
    /// All decisions, in the order in which a person considers them.
    pub const ALL: [Ruling; 5] = [
        Ruling::Settle,
        Ruling::DeclareAbsent,
        Ruling::WriteOff,
        Ruling::Approve,
        Ruling::RetryNow,
    ];

    /// How it is spelt in events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Ruling::Settle => "settle",
            Ruling::DeclareAbsent => "declare_absent",
            Ruling::WriteOff => "write_off",
            Ruling::Approve => "approve",
            Ruling::RetryNow => "retry_now",
        }
    }
}

/// A charge, as far as decisions about it depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Where it stands.
    pub charge: ChargeState,
    /// Why.
    pub reason: Option<String>,
    /// When it is looked at again.
    pub next_action_at: Option<DateTime<Utc>>,
    /// Of its subscription.
    pub subscription: SubscriptionStatus,
    /// Of the subscription's present card.
    pub card: CardFitness,
    /// Until when another attempt of the subscription would follow too closely on an earlier one.
    pub quiet_until: Option<DateTime<Utc>>,
    /// Its attempts, the first one first.
    pub attempts: Vec<CaseAttempt>,
}

/// Whether a card can be debited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CardFitness {
    /// It can.
    Usable,
    /// There is none, or imoje calls its profile inactive.
    Inactive,
}

/// An attempt at the charge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseAttempt {
    /// The attempt.
    pub attempt_id: AttemptId,
    /// Counted from 1.
    pub attempt_no: i16,
    /// What imoje was told as `orderId`.
    pub order_id: String,
    /// What is known about it.
    pub state: AttemptState,
    /// imoje's id, once known.
    pub transaction_id: Option<TransactionId>,
    /// When its permit was committed.
    pub permitted_at: DateTime<Utc>,
    /// Whether people were asked about it.
    pub has_case: bool,
    /// What its decline means.
    pub decline: Option<DeclineClass>,
    /// Whether it was made on the card that the subscription has now.
    pub is_on_present_card: bool,
    /// Who declared it absent.
    pub declared_by: Vec<String>,
    /// Whether a notice of the shop came in while this attempt's own would have.
    pub inbox_was_alive: bool,
    /// Whether a notice about this attempt came in.
    pub inbox_spoke_of_it: bool,
}

/// Why a decision is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The charge is in a state that the decision is not for.
    #[error("the charge is {}", .0.as_str())]
    State(ChargeState),
    /// Another decision is for this.
    #[error("the charge is held because of {0}")]
    HeldFor(String),
    /// An attempt is in doubt or pending.
    #[error("money may have moved: attempt {0} is not decided")]
    Undecided(String),
    /// An attempt moved money.
    #[error("money has moved, by attempt {0}")]
    MoneyMoved(String),
    /// imoje may still tell by itself.
    #[error("imoje may still tell by itself until {0}")]
    AnswerMayCome(DateTime<Utc>),
    /// The subscription is not billed.
    #[error("the subscription is {}, and nothing is charged for it", .0.as_str())]
    NotBillable(SubscriptionStatus),
    /// The card cannot be debited.
    #[error("{}", card_trouble(*.0))]
    Card(CardFitness),
    /// The issuer forbids another try.
    #[error("the card was declined for good: it must not be tried again, and was not replaced")]
    CardBlocked,
    /// No attempt is in doubt.
    #[error("no attempt of it is in doubt")]
    NothingInDoubt,
    /// imoje has a transaction.
    #[error("imoje has a transaction for it: {0}")]
    HasTransaction(TransactionId),
    /// A notice shows that imoje knows the order.
    #[error("imoje sent a notice about it, so it knows the order")]
    NoticeCame,
    /// Nothing at all was heard.
    #[error(
        "no notice of any kind came in during the 96 hours in which its own would have, so the silence proves nothing"
    )]
    InboxSilent,
    /// Too early.
    #[error("it may be declared absent from {0} on")]
    NotBefore(DateTime<Utc>),
    /// One person is not two.
    #[error("{0} has declared it absent already, and another person has to as well")]
    SamePerson(String),
}

const fn card_trouble(card: CardFitness) -> &'static str {
    match card {
        CardFitness::Usable => "the card can be debited",
        CardFitness::Inactive => "the subscription has no card that can be debited",
    }
}

/// What becomes of a charge that is written off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteOff {
    /// It was given up before.
    Already,
    /// This attempt stays in doubt for ever; only imoje ends that.
    InDoubt(AttemptId),
    /// Nothing of it is in doubt.
    Plain,
}

/// Whether a charge is given up.
///
/// # Errors
/// [`Refused`] when its money moved, when imoje may still tell by itself whether it did, or when there is nothing to give up.
pub fn write_off(
    case: &Case,
    policy: &ResolverPolicy,
    now: DateTime<Utc>,
) -> Result<WriteOff, Refused> {
    match case.charge {
        ChargeState::Failed => return Ok(WriteOff::Already),
        ChargeState::Held | ChargeState::InFlight => {}
        ChargeState::Planned
        | ChargeState::RetryWait
        | ChargeState::Paid
        | ChargeState::Skipped
        | ChargeState::Void => return Err(Refused::State(case.charge)),
    }
    case.money_stayed()?;
    let Some(undecided) = case.undecided() else {
        return Ok(WriteOff::Plain);
    };
    let answers_until = undecided.permitted_at + policy.answer_window;
    if !undecided.has_case && now < answers_until {
        return Err(Refused::AnswerMayCome(answers_until));
    }
    Ok(WriteOff::InDoubt(undecided.attempt_id))
}

/// When a charge goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoingOn {
    /// It does already.
    Already,
    /// At this time, unless brake, budgets or limits put it off further.
    At(DateTime<Utc>),
}

/// Whether a charge that came too late is made all the same.
///
/// # Errors
/// [`Refused`] when it is not held for its lateness, or could not be charged.
pub fn approve(case: &Case, now: DateTime<Utc>) -> Result<GoingOn, Refused> {
    match case.charge {
        ChargeState::Held => {}
        ChargeState::Planned
        | ChargeState::InFlight
        | ChargeState::RetryWait
        | ChargeState::Paid => return Ok(GoingOn::Already),
        ChargeState::Failed | ChargeState::Skipped | ChargeState::Void => {
            return Err(Refused::State(case.charge));
        }
    }
    if case.reason.as_deref() != Some(TOO_LATE) {
        return Err(case.held());
    }
    case.may_go_on()?;
    Ok(GoingOn::At(case.earliest(now)))
}

/// Whether a charge is tried again, and when: a retry that waits for its day, a charge that failed, or one that was held because of
/// something that is mended.
///
/// # Errors
/// [`Refused`] when money moved or may have, or when it could not be charged.
pub fn retry_now(case: &Case, now: DateTime<Utc>) -> Result<GoingOn, Refused> {
    let earliest = case.earliest(now);
    match case.charge {
        ChargeState::RetryWait if case.next_action_at.is_some_and(|at| at <= earliest) => {
            return Ok(GoingOn::Already);
        }
        ChargeState::Held if case.reason.as_deref() == Some(TOO_LATE) => return Err(case.held()),
        ChargeState::RetryWait | ChargeState::Held | ChargeState::Failed => {}
        ChargeState::Planned
        | ChargeState::InFlight
        | ChargeState::Paid
        | ChargeState::Skipped
        | ChargeState::Void => return Err(Refused::State(case.charge)),
    }
    case.may_go_on()?;
    Ok(GoingOn::At(earliest))
}

/// What a declaration of absence does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Declaration {
    /// Two people declared it before.
    Already,
    /// It is the first: another person has to declare it as well.
    First(AttemptId),
    /// It is the second: the attempt is absent.
    Second(AttemptId),
}

/// Whether `actor` may declare that imoje never had the transaction of the attempt in doubt.
///
/// # Errors
/// [`Refused`] when there is none, when it is too early, when imoje has shown that it knows the order, or when it could not have
/// told us.
pub fn declare_absent(
    case: &Case,
    actor: &str,
    absent_after: TimeDelta,
    now: DateTime<Utc>,
) -> Result<Declaration, Refused> {
    let Some(attempt) = case.undecided() else {
        let last = case.attempts.last().map(|attempt| attempt.state);
        return match last {
            Some(AttemptState::Absent) => Ok(Declaration::Already),
            Some(
                AttemptState::InDoubt
                | AttemptState::NotSent
                | AttemptState::Refused
                | AttemptState::Pending
                | AttemptState::Settled
                | AttemptState::Rejected
                | AttemptState::Surplus,
            )
            | None => Err(Refused::NothingInDoubt),
        };
    };
    if let Some(transaction_id) = attempt.transaction_id {
        return Err(Refused::HasTransaction(transaction_id));
    }
    if attempt.inbox_spoke_of_it {
        return Err(Refused::NoticeCame);
    }
    let possible_at = attempt.permitted_at + absent_after.max(ABSENT_AFTER_MIN);
    if now < possible_at {
        return Err(Refused::NotBefore(possible_at));
    }
    if !attempt.inbox_was_alive {
        return Err(Refused::InboxSilent);
    }
    let is_same = |other: &&String| person(other) == person(actor);
    match attempt.declared_by.iter().find(is_same) {
        Some(same) => Err(Refused::SamePerson(same.clone())),
        None if attempt.declared_by.is_empty() => Ok(Declaration::First(attempt.attempt_id)),
        None => Ok(Declaration::Second(attempt.attempt_id)),
    }
}

/// The same name in other letters is the same person.
fn person(actor: &str) -> String {
    actor.trim().to_lowercase()
}

impl Case {
    /// The attempt that may have moved money without anybody knowing. There is one at most.
    pub fn undecided(&self) -> Option<&CaseAttempt> {
        self.attempts.iter().find(|attempt| attempt.state.is_open())
    }

    fn money_stayed(&self) -> Result<(), Refused> {
        let moved = [AttemptState::Settled, AttemptState::Surplus];
        match self
            .attempts
            .iter()
            .find(|attempt| moved.contains(&attempt.state))
        {
            Some(attempt) => Err(Refused::MoneyMoved(attempt.order_id.clone())),
            None => Ok(()),
        }
    }

    fn may_go_on(&self) -> Result<(), Refused> {
        self.money_stayed()?;
        if let Some(attempt) = self.undecided() {
            return Err(Refused::Undecided(attempt.order_id.clone()));
        }
        if !self.subscription.is_billable() {
            return Err(Refused::NotBillable(self.subscription));
        }
        if self.card != CardFitness::Usable {
            return Err(Refused::Card(self.card));
        }
        let is_forbidden = |attempt: &CaseAttempt| {
            attempt.is_on_present_card && attempt.decline == Some(DeclineClass::Never)
        };
        if self.attempts.iter().any(is_forbidden) {
            return Err(Refused::CardBlocked);
        }
        Ok(())
    }

    /// When another attempt keeps its distance from those before it.
    fn earliest(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        self.quiet_until.map_or(now, |until| until.max(now))
    }

    fn held(&self) -> Refused {
        Refused::HeldFor(self.reason.clone().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn now() -> DateTime<Utc> {
        "2027-01-11T06:00:00Z".parse().unwrap()
    }

    fn policy() -> ResolverPolicy {
        ResolverPolicy {
            poll: vec![TimeDelta::hours(6)],
            answer_window: TimeDelta::hours(96),
            write_off_after: TimeDelta::days(10),
        }
    }

    fn attempt(state: AttemptState) -> CaseAttempt {
        CaseAttempt {
            attempt_id: AttemptId::from_uuid(Uuid::from_u128(1)),
            attempt_no: 1,
            order_id: "cykl-1".to_owned(),
            state,
            transaction_id: None,
            permitted_at: now() - ABSENT_AFTER_MIN,
            has_case: true,
            decline: None,
            is_on_present_card: true,
            declared_by: Vec::new(),
            inbox_was_alive: true,
            inbox_spoke_of_it: false,
        }
    }

    fn case(charge: ChargeState, attempts: Vec<CaseAttempt>) -> Case {
        Case {
            charge,
            reason: Some("in_doubt".to_owned()),
            next_action_at: charge.is_open().then(|| now() + TimeDelta::days(3)),
            subscription: SubscriptionStatus::Active,
            card: CardFitness::Usable,
            quiet_until: None,
            attempts,
        }
    }

    fn in_doubt() -> Case {
        case(ChargeState::Held, vec![attempt(AttemptState::InDoubt)])
    }

    fn late() -> Case {
        Case {
            reason: Some(TOO_LATE.to_owned()),
            ..case(ChargeState::Held, Vec::new())
        }
    }

    fn absent(case: &Case, actor: &str) -> Result<Declaration, Refused> {
        declare_absent(case, actor, ABSENT_AFTER_MIN, now())
    }

    #[test]
    fn two_people_declare_an_attempt_absent_and_one_never_does() {
        let mut case = in_doubt();
        let id = case.attempts[0].attempt_id;
        assert_eq!(absent(&case, "jan"), Ok(Declaration::First(id)));
        case.attempts[0].declared_by = vec!["Jan".to_owned()];
        for same in ["Jan", "jan", " JAN "] {
            assert_eq!(
                absent(&case, same),
                Err(Refused::SamePerson("Jan".to_owned()))
            );
        }
        assert_eq!(absent(&case, "ewa"), Ok(Declaration::Second(id)));
        case.attempts[0].state = AttemptState::Absent;
        assert_eq!(absent(&case, "ewa"), Ok(Declaration::Already));
    }

    #[test]
    fn nothing_is_absent_before_a_hundred_hours_whatever_the_configuration_says() {
        let case = in_doubt();
        let early = now() - TimeDelta::seconds(1);
        for after in [TimeDelta::zero(), ABSENT_AFTER_MIN] {
            assert_eq!(
                declare_absent(&case, "jan", after, early),
                Err(Refused::NotBefore(now()))
            );
        }
        let later = now() + TimeDelta::hours(1);
        assert_eq!(
            declare_absent(&case, "jan", TimeDelta::hours(101), now()),
            Err(Refused::NotBefore(later))
        );
    }

    #[test]
    fn nothing_is_absent_that_imoje_has_spoken_of_or_could_not_have() {
        let spoken = |change: fn(&mut CaseAttempt)| {
            let mut case = in_doubt();
            change(&mut case.attempts[0]);
            absent(&case, "jan")
        };
        let id = TransactionId::from_uuid(Uuid::from_u128(7));
        assert_eq!(
            spoken(|attempt| {
                attempt.transaction_id = Some(TransactionId::from_uuid(Uuid::from_u128(7)));
            }),
            Err(Refused::HasTransaction(id))
        );
        assert_eq!(
            spoken(|attempt| attempt.inbox_spoke_of_it = true),
            Err(Refused::NoticeCame)
        );
        assert_eq!(
            spoken(|attempt| attempt.inbox_was_alive = false),
            Err(Refused::InboxSilent)
        );
        for state in AttemptState::ALL {
            let outcome = absent(&case(ChargeState::Held, vec![attempt(state)]), "jan");
            let is_possible = matches!(state, AttemptState::InDoubt | AttemptState::Absent);
            // A pending attempt has an id; the database sees to that.
            assert!(
                outcome.is_ok() == is_possible || state == AttemptState::Pending,
                "{state:?}"
            );
        }
    }

    #[test]
    fn a_charge_is_given_up_only_when_its_money_did_not_move_and_nobody_else_will_tell() {
        for charge in ChargeState::ALL {
            let outcome = write_off(&case(charge, Vec::new()), &policy(), now());
            match charge {
                ChargeState::Failed => assert_eq!(outcome, Ok(WriteOff::Already)),
                ChargeState::Held | ChargeState::InFlight => {
                    assert_eq!(outcome, Ok(WriteOff::Plain));
                }
                ChargeState::Planned
                | ChargeState::RetryWait
                | ChargeState::Paid
                | ChargeState::Skipped
                | ChargeState::Void => assert_eq!(outcome, Err(Refused::State(charge))),
            }
        }
        let mut asked = in_doubt();
        let id = asked.attempts[0].attempt_id;
        asked.attempts[0].permitted_at = now();
        assert_eq!(
            write_off(&asked, &policy(), now()),
            Ok(WriteOff::InDoubt(id))
        );
        asked.attempts[0].has_case = false;
        let until = now() + TimeDelta::hours(96);
        assert_eq!(
            write_off(&asked, &policy(), now()),
            Err(Refused::AnswerMayCome(until))
        );
        assert_eq!(
            write_off(&asked, &policy(), until),
            Ok(WriteOff::InDoubt(id))
        );
        for state in [AttemptState::Settled, AttemptState::Surplus] {
            let moved = case(ChargeState::Held, vec![attempt(state)]);
            let refused = write_off(&moved, &policy(), now());
            assert_eq!(refused, Err(Refused::MoneyMoved("cykl-1".to_owned())));
        }
    }

    #[test]
    fn only_what_is_held_for_its_lateness_is_approved() {
        assert_eq!(approve(&late(), now()), Ok(GoingOn::At(now())));
        let doubted = approve(&in_doubt(), now());
        assert_eq!(doubted, Err(Refused::HeldFor("in_doubt".to_owned())));
        let paused = Case {
            subscription: SubscriptionStatus::Paused,
            ..late()
        };
        assert_eq!(
            approve(&paused, now()),
            Err(Refused::NotBillable(SubscriptionStatus::Paused))
        );
        let sent = case(ChargeState::InFlight, Vec::new());
        assert_eq!(approve(&sent, now()), Ok(GoingOn::Already));
        let failed = case(ChargeState::Failed, Vec::new());
        assert_eq!(
            approve(&failed, now()),
            Err(Refused::State(ChargeState::Failed))
        );
    }

    #[test]
    fn a_retry_keeps_its_distance_from_the_attempt_before() {
        let quiet_until = now() + TimeDelta::hours(3);
        let waiting = Case {
            quiet_until: Some(quiet_until),
            ..case(
                ChargeState::RetryWait,
                vec![attempt(AttemptState::Rejected)],
            )
        };
        assert_eq!(retry_now(&waiting, now()), Ok(GoingOn::At(quiet_until)));
        let due = Case {
            next_action_at: Some(quiet_until),
            ..waiting
        };
        assert_eq!(retry_now(&due, now()), Ok(GoingOn::Already));
    }

    #[test]
    fn nothing_goes_on_while_money_may_have_moved_or_a_card_must_not_be_tried() {
        for state in AttemptState::ALL {
            for charge in [
                ChargeState::Failed,
                ChargeState::Held,
                ChargeState::RetryWait,
            ] {
                let outcome = retry_now(&case(charge, vec![attempt(state)]), now());
                let has_moved = state.blocks() || state == AttemptState::Surplus;
                assert_eq!(outcome.is_err(), has_moved, "{charge:?} {state:?}");
            }
        }
        let mut blocked = case(ChargeState::Failed, vec![attempt(AttemptState::Rejected)]);
        blocked.attempts[0].decline = Some(DeclineClass::Never);
        assert_eq!(retry_now(&blocked, now()), Err(Refused::CardBlocked));
        blocked.attempts[0].is_on_present_card = false;
        assert_eq!(retry_now(&blocked, now()), Ok(GoingOn::At(now())));
        let card = CardFitness::Inactive;
        let unfit = Case { card, ..blocked };
        assert_eq!(retry_now(&unfit, now()), Err(Refused::Card(card)));
        assert_eq!(
            retry_now(&late(), now()),
            Err(Refused::HeldFor(TOO_LATE.to_owned()))
        );
    }
}
