//! What the store does to the books, with the rules of `src/domain`: permits, tombstones, records, stages, people.
//!
//! Each function is one transaction of `src/store`. The guards that a permit meets are those of `migrations/0007_guards.sql`.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use cykl::domain::answer::Verdict;
use cykl::domain::attempt::AttemptState;
use cykl::domain::charge::{ChargeEvent, ChargeState};
use cykl::domain::decline::{DeclineClass, DeclineTable};
use cykl::domain::id::AttemptId;
use cykl::domain::people::{self, ABSENT_AFTER_MIN, CardFitness, Case, CaseAttempt, Declaration};
use cykl::domain::resolution::{
    DoubtStage, News, NextPoll, Policy, ResolverPolicy, Standing, decide, doubt_stage,
};
use cykl::domain::retry::RetryPolicy;
use cykl::domain::subscription::{SubscriptionEvent, SubscriptionStatus};
use uuid::Uuid;

use crate::configuration::{Configuration, Variant};
use crate::news::{DECLINE_CODE, transaction_id, transaction_of};
use crate::world::{Age, Attempt, Backup, Books, Permit, World};

/// The time at which everything happens; what matters is how long ago the rest was.
fn now() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(20_000)
}

/// What decides, and what is broken about it.
#[derive(Debug)]
pub struct Rules {
    /// What is explored.
    pub configuration: Configuration,
    /// The policy of the installation.
    pub policy: Policy,
}

impl Rules {
    /// The rules of a configuration.
    pub fn new(configuration: Configuration) -> Self {
        Self {
            configuration,
            policy: policy(configuration.attempts),
        }
    }

    /// Whether this is how they are broken.
    pub fn is(&self, variant: Variant) -> bool {
        self.configuration.variant == Some(variant)
    }
}

/// A policy with as many retries as there may be attempts.
fn policy(attempts: u8) -> Policy {
    Policy {
        retry: RetryPolicy {
            days: (1..u16::from(attempts)).collect(),
            unknown_code_tries: 3,
            classes: DeclineTable::new(BTreeMap::from([(
                DECLINE_CODE.to_owned(),
                DeclineClass::Funds,
            )])),
        },
        resolver: ResolverPolicy {
            poll: vec![TimeDelta::seconds(5), TimeDelta::hours(6)],
            answer_window: TimeDelta::hours(96),
            write_off_after: TimeDelta::days(10),
        },
    }
}

/// Whether the schema lets a permit be committed.
pub fn admits(world: &World, permit: Permit, rules: &Rules) -> bool {
    let books = &world.books;
    let guards = rules.configuration.guards;
    let is_taken = books.attempts[usize::from(permit.attempt)].is_some();
    let is_fenced = world.backup == Backup::Restored && !rules.is(Variant::NoFence);
    let blocks = books.rows().any(|(_, row)| row.state.blocks());
    let rereads = !rules.is(Variant::RetryWithoutReread);
    let is_unresolved = books
        .rows()
        .any(|(_, row)| row.is_polled && rereads || row.state == AttemptState::Surplus);
    let is_waiting = books.charge.after(ChargeEvent::Permitted).is_ok() && !is_unresolved;
    let is_refused = is_fenced
        || guards.one_live_attempt && blocks
        || guards.order_id_is_never_reused && is_taken
        || guards.charge_waits && !is_waiting;
    let has_room = !is_taken || books.next_number() < rules.configuration.attempts;
    books.subscription.is_billable() && has_room && !is_refused
}

/// Commits a permit that the schema admits. Its number is the next one, should a broken schema have let another take it.
pub fn permit(world: &mut World, permit: Permit, rules: &Rules) -> Permit {
    let is_taken = world.books.attempts[usize::from(permit.attempt)].is_some();
    let attempt = if is_taken {
        world.books.next_number()
    } else {
        permit.attempt
    };
    let number = usize::from(attempt);
    world.books.attempts[number] = Some(Attempt {
        state: AttemptState::InDoubt,
        transaction: None,
        is_polled: !rules.is(Variant::NeverPolled),
        is_confirmed: false,
        is_case: false,
        age: Age::Seconds,
        id: permit.id,
    });
    world.lost_commits[number] = None;
    step_charge(&mut world.books, ChargeEvent::Permitted);
    Permit { attempt, ..permit }
}

/// Makes sure that a permit of which nobody knows whether it was committed can never be used.
pub fn bury(world: &mut World, permit: Permit, rules: &Rules) {
    let number = usize::from(permit.attempt);
    match world.row(permit) {
        Some(row) if row.state == AttemptState::InDoubt => {
            record(
                &mut world.books,
                permit.attempt,
                &News::NotSent,
                false,
                rules,
            );
        }
        Some(_) => {}
        None => {
            let tombstone = Attempt {
                state: AttemptState::NotSent,
                transaction: None,
                is_polled: false,
                is_confirmed: false,
                is_case: false,
                age: Age::Seconds,
                id: permit.id,
            };
            world.books.attempts[number].get_or_insert(tombstone);
        }
    }
    if world.lost_commits[number] == Some(permit.id) {
        world.lost_commits[number] = None;
    }
}

/// Records a piece of news about an attempt: what `src/store/resolution` does with what `decide` says.
///
/// `was_due`: the retry was due when the news was asked for.
pub fn record(books: &mut Books, attempt: u8, news: &News, was_due: bool, rules: &Rules) {
    let Some(row) = books.attempts[usize::from(attempt)] else {
        return;
    };
    let mut standing = standing(books, attempt, row, news, was_due);
    if rules.is(Variant::SecondTransactionBelieved) {
        standing.transaction_id = None;
    }
    let decision = decide(&standing, news, &rules.policy, now());
    if !decision.is_news(&standing) {
        return;
    }
    let is_confirmed = decision.attempt == AttemptState::Rejected
        && (row.is_confirmed || matches!(news, News::Read(Verdict::Rejected { .. })));
    let is_unresolved = matches!(
        decision.attempt,
        AttemptState::InDoubt | AttemptState::Pending
    );
    books.attempts[usize::from(attempt)] = Some(Attempt {
        state: decision.attempt,
        transaction: row
            .transaction
            .or(decision.transaction_id.map(transaction_of)),
        is_polled: match decision.next_poll {
            NextPoll::AsPlanned => row.is_polled,
            NextPoll::At(_) => true,
            NextPoll::Never => false,
        },
        is_confirmed,
        is_case: row.is_case && is_unresolved,
        age: if is_unresolved { row.age } else { Age::Seconds },
        id: row.id,
    });
    if let Some(step) = decision.charge {
        books.charge = step.state;
        books.is_due = step.next_action_at.is_some_and(|at| at <= now()) && waits(step.state);
    }
    if let Some(step) = decision.subscription {
        step_subscription(books, step.event);
    }
}

fn standing(books: &Books, attempt: u8, row: Attempt, news: &News, was_due: bool) -> Standing {
    let others = || {
        books
            .rows()
            .filter(|(number, _)| *number != attempt)
            .map(|(_, row)| row)
    };
    let count = |states: &[AttemptState]| {
        let rows = books.rows().filter(|(_, row)| states.contains(&row.state));
        u16::try_from(rows.count()).expect("there are few attempts")
    };
    let moved = |row: Attempt| matches!(row.state, AttemptState::Settled | AttemptState::Surplus);
    let named = named_transaction(news);
    Standing {
        attempt: row.state,
        transaction_id: row.transaction.map(transaction_id),
        permitted_at: permitted_at(row.age),
        charge: books.charge,
        subscription: books.subscription,
        declines: count(&[AttemptState::Rejected]),
        unsent: count(&[AttemptState::NotSent, AttemptState::Refused]),
        retry_at: (books.charge == ChargeState::RetryWait).then(|| {
            let early = if was_due {
                TimeDelta::zero()
            } else {
                TimeDelta::hours(1)
            };
            now() + early
        }),
        first_attempt_at: now(),
        zone: chrono_tz::UTC,
        another_blocks: others().any(|row| row.state.blocks()),
        another_moved_money: others().any(moved),
        another_is_by_link: false,
        card_replaced: false,
        transaction_taken: named.is_some() && others().any(|row| row.transaction == named),
    }
}

fn named_transaction(news: &News) -> Option<u8> {
    match news {
        News::Answered(verdict) | News::Read(verdict) => match verdict {
            Verdict::Settled { transaction_id }
            | Verdict::Pending { transaction_id, .. }
            | Verdict::Rejected { transaction_id, .. } => Some(transaction_of(*transaction_id)),
            Verdict::Refused(_) | Verdict::InDoubt(_) => None,
        },
        News::NotSent | News::Unsendable | News::DeclaredAbsent => None,
    }
}

fn permitted_at(age: Age) -> DateTime<Utc> {
    now()
        - match age {
            Age::Seconds => TimeDelta::seconds(10),
            Age::Hours => TimeDelta::hours(1),
            Age::HundredHours => TimeDelta::hours(100),
            Age::TenDays => TimeDelta::days(10),
        }
}

/// The stage of an attempt, when the resolver has one to bring it to; see `src/workers/resolver/mod.rs` and
/// `src/store/polling.rs`.
pub fn stage(books: &Books, attempt: u8, many: bool, rules: &Rules) -> Option<DoubtStage> {
    let row = books.attempts[usize::from(attempt)].filter(|row| row.is_polled)?;
    let moved = |row: Attempt| matches!(row.state, AttemptState::Settled | AttemptState::Surplus);
    if books.rows().any(|(_, row)| moved(row)) {
        return None;
    }
    let policy = &rules.policy.resolver;
    let stage = doubt_stage(permitted_at(row.age), row.is_case, many, policy, now());
    match (row.state, stage) {
        (AttemptState::InDoubt, DoubtStage::OpenCase { .. } | DoubtStage::WriteOff) => Some(stage),
        // One that never ends is told, and read on.
        (AttemptState::Pending, DoubtStage::OpenCase { .. }) if !many => Some(stage),
        _ => None,
    }
}

/// Brings an attempt to a stage.
pub fn put_on_stage(books: &mut Books, attempt: u8, stage: DoubtStage, rules: &Rules) {
    let (event, is_polled) = match stage {
        DoubtStage::WaitUntil(_) => return,
        DoubtStage::OpenCase { .. } => (ChargeEvent::Held, true),
        DoubtStage::WriteOff => (ChargeEvent::GivenUp, false),
    };
    if !step_charge(books, event) {
        return;
    }
    if let Some(row) = &mut books.attempts[usize::from(attempt)] {
        row.is_case = true;
        row.is_polled = is_polled;
        if stage == DoubtStage::WriteOff && rules.is(Variant::WriteOffFrees) {
            row.state = AttemptState::Absent;
        }
    }
}

/// Whether people who have looked for an attempt and did not find it may declare it absent, the second of them in effect; see
/// `src/domain/people.rs`. Its notices would have come, and none did.
pub fn may_be_declared_absent(row: Attempt, rules: &Rules) -> bool {
    let attempt = CaseAttempt {
        attempt_id: AttemptId::from_uuid(Uuid::nil()),
        attempt_no: 1,
        order_id: String::new(),
        state: row.state,
        transaction_id: row.transaction.map(transaction_id),
        permitted_at: permitted_at(row.age),
        has_case: row.is_case,
        decline: None,
        is_on_present_card: true,
        declared_by: vec!["one".to_owned()],
        inbox_was_alive: true,
        inbox_spoke_of_it: false,
    };
    let case = Case {
        charge: ChargeState::Held,
        reason: None,
        next_action_at: None,
        subscription: SubscriptionStatus::Active,
        card: CardFitness::Usable,
        quiet_until: None,
        attempts: vec![attempt],
    };
    let early = if rules.is(Variant::AbsentTooEarly) {
        ABSENT_AFTER_MIN
    } else {
        TimeDelta::zero()
    };
    let declared = people::declare_absent(&case, "another", ABSENT_AFTER_MIN, now() + early);
    matches!(declared, Ok(Declaration::Second(_)))
}

/// Two people declare an attempt absent. A charge that was given up meanwhile is tried again because a person says so.
pub fn declare_absent(books: &mut Books, attempt: u8, rules: &Rules) {
    record(books, attempt, &News::DeclaredAbsent, false, rules);
    if books.charge == ChargeState::Failed {
        step_charge(books, ChargeEvent::Reopened);
    }
}

/// A person gives the charge up: what is in doubt stays so, and is not looked at any more.
pub fn give_up(books: &mut Books) {
    if step_charge(books, ChargeEvent::GivenUp) {
        for row in books.attempts.iter_mut().flatten() {
            row.is_polled &= row.state != AttemptState::InDoubt;
        }
    }
}

/// Lets an event happen to the charge, if its machine has a step for it.
pub fn step_charge(books: &mut Books, event: ChargeEvent) -> bool {
    let Ok(state) = books.charge.after(event) else {
        return false;
    };
    books.charge = state;
    books.is_due = false;
    true
}

/// Lets an event happen to the subscription. What was not sent becomes void when it is not billed any more.
pub fn step_subscription(books: &mut Books, event: SubscriptionEvent) {
    if event == SubscriptionEvent::CaughtUp && books.charge == ChargeState::RetryWait {
        return;
    }
    let Ok(status) = books.subscription.after(event) else {
        return;
    };
    books.subscription = status;
    if !status.is_billable() && waits(books.charge) {
        step_charge(books, ChargeEvent::Voided);
    }
}

/// Whether a charge waits to be sent.
pub fn waits(charge: ChargeState) -> bool {
    matches!(charge, ChargeState::Planned | ChargeState::RetryWait)
}
