//! The protocol: which steps a world has, and what each makes of it.

use cykl::domain::attempt::AttemptState;
use cykl::domain::charge::ChargeState;
use cykl::domain::subscription::SubscriptionStatus;
use stateright::{Model, Property};

use crate::bookkeeping::{self, Rules, admits, waits};
use crate::configuration::{Configuration, Variant};
use crate::properties;
use crate::step::{Move, Outcome, Step, Write};
use crate::world::{
    ATTEMPTS_MAX, Age, Backup, Books, Fate, INSTANCES_MAX, Instance, Permit, TRANSACTIONS_MAX,
    Word, World,
};

/// A configuration with its rules.
#[derive(Debug)]
pub struct Protocol {
    /// What decides.
    pub rules: Rules,
}

impl Protocol {
    /// The protocol of a configuration.
    pub fn new(configuration: Configuration) -> Self {
        Self {
            rules: Rules::new(configuration),
        }
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Step;

    /// A charge that is due, and two instances that have not seen it yet.
    fn init_states(&self) -> Vec<World> {
        let configuration = &self.rules.configuration;
        vec![World {
            books: Books {
                charge: ChargeState::Planned,
                is_due: true,
                subscription: SubscriptionStatus::Active,
                attempts: [None; ATTEMPTS_MAX],
            },
            backup: if configuration.is_restored {
                Backup::Possible
            } else {
                Backup::Never
            },
            ledger: [None; TRANSACTIONS_MAX],
            wire: [0; ATTEMPTS_MAX],
            instances: [Instance::Idle; INSTANCES_MAX],
            lost_commits: [None; ATTEMPTS_MAX],
            has_twin: configuration.has_twin,
        }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        for instance in 0..INSTANCES_MAX {
            // Two that stand alike do alike.
            if instance == 0 || world.instances[instance] != world.instances[instance - 1] {
                self.steps_of_instance(world, instance, steps);
            }
        }
        self.steps_of_gateway(world, steps);
        self.steps_of_time(world, steps);
        self.steps_of_people(world, steps);
        self.steps_of_database(world, steps);
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = *world;
        self.take(&mut next, step);
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::of(&self.rules.configuration)
    }
}

/// Which steps there are.
impl Protocol {
    fn steps_of_instance(&self, world: &World, instance: usize, steps: &mut Vec<Step>) {
        let now = world.instances[instance];
        match now {
            Instance::Idle => self.steps_of_idle(world, instance, steps),
            Instance::Permitting(permit) => {
                steps.push(Step::GoOn(instance, Move::Commit));
                let is_lost = world.lost_commits[usize::from(permit.attempt)].is_some();
                if self.rules.configuration.loses_commits
                    && !is_lost
                    && admits(world, permit, &self.rules)
                {
                    steps.push(Step::GoOn(instance, Move::LoseCommit));
                }
                if self.rules.is(Variant::SendBeforeCommit) {
                    steps.push(Step::GoOn(instance, Move::Send));
                }
            }
            Instance::SentEarly(_) => steps.push(Step::GoOn(instance, Move::Commit)),
            Instance::Unconfirmed(_) => steps.push(Step::GoOn(instance, Move::Bury)),
            Instance::Permitted { is_old, .. } => {
                steps.push(Step::GoOn(instance, Move::Withhold));
                if !is_old || self.rules.is(Variant::PermitAgeIgnored) {
                    steps.push(Step::GoOn(instance, Move::Send));
                }
            }
            Instance::Waiting(_) => steps.push(Step::GoOn(instance, Move::GiveUpWaiting)),
            Instance::Answering(_, word) => {
                steps.push(Step::GoOn(instance, Move::Record));
                steps.push(Step::GoOn(instance, Move::GiveUpWaiting));
                if matches!(word, Word::Shown(..)) {
                    steps.push(Step::GoOn(instance, Move::TakeFault));
                }
                if self.rules.is(Variant::ClientRetries) {
                    steps.push(Step::GoOn(instance, Move::Resend));
                }
            }
            Instance::Read(_) => steps.push(Step::GoOn(instance, Move::Record)),
        }
        let can_crash = !matches!(now, Instance::Idle | Instance::Read(_));
        if can_crash && self.rules.configuration.has_crashes {
            steps.push(Step::GoOn(instance, Move::Crash));
        }
    }

    fn steps_of_idle(&self, world: &World, instance: usize, steps: &mut Vec<Step>) {
        let books = &world.books;
        let is_ready = waits(books.charge) && books.is_due;
        let rereads = !self.rules.is(Variant::RetryWithoutReread);
        let is_polled = rereads && books.rows().any(|(_, row)| row.is_polled);
        let has_room = books.next_number() < self.rules.configuration.attempts;
        if is_ready && !is_polled && has_room {
            steps.push(Step::Claim(instance));
        }
        for (number, row) in books.rows() {
            let is_its_time = books.charge != ChargeState::RetryWait || books.is_due;
            let is_read = match row.state {
                AttemptState::Pending => true,
                AttemptState::Rejected => is_its_time,
                AttemptState::InDoubt
                | AttemptState::NotSent
                | AttemptState::Refused
                | AttemptState::Absent
                | AttemptState::Settled
                | AttemptState::Surplus => false,
            };
            let shown = row
                .transaction
                .map(|id| world.ledger.get(usize::from(id)).copied().flatten());
            let is_open = shown.flatten().is_some_and(|one| one.fate == Fate::Open);
            let polls = row.is_polled && shown.is_some() && is_read && !is_open;
            if polls {
                steps.push(Step::Poll(instance, number));
            }
            let moved = matches!(row.state, AttemptState::Settled | AttemptState::Surplus);
            for (id, transaction) in world.transactions() {
                // That a transaction is still open is no news to a row that knows it.
                let is_known = row.transaction == Some(id)
                    && (moved || polls || transaction.fate == Fate::Open);
                if transaction.order == number && !is_known {
                    steps.push(Step::Notice(instance, id));
                }
            }
            if self.rules.configuration.has_forger && !moved {
                steps.push(Step::ForgedNotice(instance, number));
            }
            let is_silent = row.state == AttemptState::InDoubt && row.age > Age::Seconds;
            if self.rules.is(Variant::RescuedAfterLease) && is_silent {
                steps.push(Step::Rescue(instance, number));
            }
        }
    }

    fn steps_of_gateway(&self, world: &World, steps: &mut Vec<Step>) {
        let has_room = world.ledger.iter().any(Option::is_none);
        for (attempt, requests) in (0..).zip(world.wire) {
            if requests == 0 {
                continue;
            }
            steps.push(Step::LoseRequest(attempt));
            for outcome in Outcome::ALL {
                let is_left_out = match outcome {
                    Outcome::Transaction(_) => !has_room,
                    Outcome::Refused(refusal) => {
                        !self.rules.configuration.refusals.contains(&refusal)
                    }
                    Outcome::Fault => false,
                };
                if !is_left_out {
                    steps.push(Step::Deliver(attempt, outcome));
                }
            }
        }
        for (id, transaction) in world.transactions() {
            match transaction.fate {
                Fate::Open => {
                    steps.push(Step::Finish(id, Fate::Settled));
                    steps.push(Step::Finish(id, Fate::Declined));
                }
                Fate::Declined => steps.push(Step::TakeBack(id)),
                Fate::Settled | Fate::DeclinedForGood => {}
            }
        }
        if world.has_twin && has_room {
            let named = world
                .books
                .rows()
                .filter(|(_, row)| row.transaction.is_some());
            steps.extend(named.map(|(number, _)| Step::Twin(number)));
        }
    }

    fn steps_of_time(&self, world: &World, steps: &mut Vec<Step>) {
        let books = &world.books;
        let unresolved = || {
            let is_unresolved =
                |state| matches!(state, AttemptState::InDoubt | AttemptState::Pending);
            books
                .rows()
                .map(|(_, row)| row)
                .filter(move |row| is_unresolved(row.state))
        };
        let is_young =
            |instance: &Instance| matches!(instance, Instance::Permitted { is_old: false, .. });
        let youngest = if world.instances.iter().any(is_young) {
            Some(Age::Seconds)
        } else {
            unresolved().map(|row| row.age).min()
        };
        let next = youngest.and_then(|age| Age::ALL.into_iter().find(|next| *next > age));
        // No request and no wait for its answer takes a hundred hours.
        let is_calm = is_calm(world);
        if let Some(age) = next.filter(|age| *age == Age::Hours || is_calm) {
            steps.push(Step::Grow(age));
        }
        let is_wire_clear = world.wire.iter().all(|requests| *requests == 0);
        if books.charge == ChargeState::RetryWait && !books.is_due && is_wire_clear {
            steps.push(Step::RetryDay);
        }
        for (number, row) in books.rows() {
            let is_silent = row.state == AttemptState::InDoubt && row.age > Age::Seconds;
            let may_be_many =
                is_silent && !row.is_case && self.rules.configuration.has_hasty_people;
            for many in [false, true] {
                let stage = bookkeeping::stage(books, number, many, &self.rules);
                if stage.is_some() && (!many || may_be_many) {
                    steps.push(Step::Write(Write::Stage(number, many)));
                }
            }
            if self.rules.is(Variant::FailedAfterPolls) && is_silent {
                steps.push(Step::Write(Write::FailUnanswered(number)));
            }
        }
    }

    fn steps_of_people(&self, world: &World, steps: &mut Vec<Step>) {
        let books = &world.books;
        let blocks = books
            .rows()
            .any(|(_, row)| row.state.blocks() || row.state == AttemptState::Surplus);
        match books.charge {
            ChargeState::Held => {
                steps.push(Step::Write(Write::GiveUpHeld));
                if !blocks && self.is_compared(world) {
                    steps.push(Step::Write(Write::RetryHeld));
                }
            }
            ChargeState::Failed if self.is_compared(world) => {
                if !blocks || self.rules.configuration.has_hasty_people {
                    steps.push(Step::Write(Write::Reopen));
                }
            }
            ChargeState::Planned | ChargeState::RetryWait if !self.is_compared(world) => {
                steps.push(Step::Write(Write::Skip));
            }
            ChargeState::Planned
            | ChargeState::InFlight
            | ChargeState::Paid
            | ChargeState::RetryWait
            | ChargeState::Failed
            | ChargeState::Skipped
            | ChargeState::Void => {}
        }
        for (number, row) in books.rows() {
            let is_asked = row.state == AttemptState::InDoubt && row.is_case;
            let is_found = world.transactions().any(|(_, one)| one.order == number);
            if is_asked
                && !is_found
                && books.charge == ChargeState::Held
                && bookkeeping::may_be_declared_absent(row, &self.rules)
            {
                steps.push(Step::Write(Write::DeclareAbsent(number)));
            }
        }
    }

    fn steps_of_database(&self, world: &World, steps: &mut Vec<Step>) {
        for (attempt, id) in (0..).zip(world.lost_commits) {
            let permit = id.map(|id| Permit { attempt, id });
            if permit.is_some_and(|permit| admits(world, permit, &self.rules)) {
                steps.push(Step::Write(Write::LostCommitLands(attempt)));
            }
        }
        let is_open = world.books.charge.is_open();
        match world.backup {
            Backup::Never | Backup::Adopted => {}
            Backup::Possible => steps.push(Step::TakeBackup),
            Backup::Taken(_) => steps.push(Step::Restore),
            Backup::Restored if is_calm(world) && (self.is_compared(world) || !is_open) => {
                steps.push(Step::Adopt);
            }
            Backup::Restored => {}
        }
    }

    /// Whether the books have every transaction of the charge, or will learn of it. After a restore people compare them with the
    /// gateway, and let the charge go on only then: an attempt that is lost with the database would give its order id to the
    /// next one.
    fn is_compared(&self, world: &World) -> bool {
        let ignores_declines = self.rules.is(Variant::DeclinesOfTheGapIgnored);
        match world.backup {
            Backup::Never | Backup::Possible | Backup::Taken(_) => true,
            Backup::Restored | Backup::Adopted => world.transactions().all(|(id, transaction)| {
                let row = world.books.attempts[usize::from(transaction.order)];
                let is_known = row.is_some_and(|row| {
                    row.state == AttemptState::InDoubt || row.transaction == Some(id)
                });
                is_known || ignores_declines && transaction.fate == Fate::DeclinedForGood
            }),
        }
    }
}

/// Whether no request is on its way, and none can still leave.
fn is_calm(world: &World) -> bool {
    world.wire.iter().all(|requests| *requests == 0)
        && world.instances.iter().all(|instance| match instance {
            Instance::SentEarly(_)
            | Instance::Permitted { is_old: false, .. }
            | Instance::Waiting(_)
            | Instance::Answering(..) => false,
            Instance::Idle
            | Instance::Permitting(_)
            | Instance::Unconfirmed(_)
            | Instance::Permitted { is_old: true, .. }
            | Instance::Read(_) => true,
        })
}
