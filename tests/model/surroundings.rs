//! What happens around the instances: to requests, to the ledger, with time, and to the database as a whole.

use cykl::domain::attempt::AttemptState;
use cykl::domain::charge::ChargeState;

use crate::step::Outcome;
use crate::world::{Age, Backup, Fate, Instance, Permit, Transaction, Word, World};

/// Forgets what cannot matter any more, so that worlds which only differ in it are one.
pub fn forget(world: &mut World, has_keys: bool) {
    for instance in &mut world.instances {
        // A permit whose number is taken cannot be committed any more.
        if let Instance::Permitting(permit) = instance
            && has_keys
            && world.books.attempts[usize::from(permit.attempt)].is_some()
        {
            *instance = Instance::Idle;
        }
    }
    let asks_for_freshness = world.books.charge == ChargeState::RetryWait && world.books.is_due;
    for row in world.books.attempts.iter_mut().flatten() {
        row.is_confirmed &= asks_for_freshness;
    }
    // A read that was begun before a later time was set for the retry comes before that time.
    for instance in &mut world.instances {
        if let Instance::Read(reading) = instance {
            reading.was_due &= world.books.is_due;
        }
    }
    world.instances.sort_unstable();
}

/// From now on no decline is taken back.
pub fn make_declines_final(world: &mut World) {
    for transaction in world.ledger.iter_mut().flatten() {
        if transaction.fate == Fate::Declined {
            transaction.fate = Fate::DeclinedForGood;
        }
    }
}

/// The gateway takes a request, and answers whoever waits for it.
pub fn deliver(world: &mut World, attempt: u8, outcome: Outcome) {
    world.wire[usize::from(attempt)] -= 1;
    let word = match outcome {
        Outcome::Transaction(fate) => {
            let transaction = Transaction {
                order: attempt,
                fate,
            };
            Word::Shown(add(world, transaction), fate)
        }
        Outcome::Refused(refusal) => Word::Refused(refusal),
        Outcome::Fault => Word::Fault,
    };
    if let Some((waiting, permit)) = waiting_for(world, attempt) {
        world.put(waiting, Instance::Answering(permit, word));
    }
}

/// The instance that waits for an answer about an attempt.
pub fn waiting_for(world: &World, attempt: u8) -> Option<(usize, Permit)> {
    world
        .instances
        .iter()
        .enumerate()
        .find_map(|(number, instance)| {
            let is_waiting =
                matches!(instance, Instance::Waiting(permit) if permit.attempt == attempt);
            instance
                .permit()
                .filter(|_| is_waiting)
                .map(|permit| (number, permit))
        })
}

/// Adds a transaction to the ledger, which has room for it, and returns its id.
pub fn add(world: &mut World, transaction: Transaction) -> u8 {
    let id = world
        .ledger
        .iter()
        .position(Option::is_none)
        .expect("there is room");
    world.ledger[id] = Some(transaction);
    u8::try_from(id).expect("there are few")
}

/// A transaction comes to an end, or to another.
pub fn set_fate(world: &mut World, id: u8, fate: Fate) {
    if let Some(transaction) = &mut world.ledger[usize::from(id)] {
        transaction.fate = fate;
    }
}

/// Everything that is not resolved, and every permit that is not used, is at least so old.
pub fn grow(world: &mut World, age: Age) {
    for row in world.books.attempts.iter_mut().flatten() {
        if matches!(row.state, AttemptState::InDoubt | AttemptState::Pending) {
            row.age = row.age.max(age);
        }
    }
    for instance in &mut world.instances {
        if let Instance::Permitted { is_old, .. } = instance {
            *is_old = true;
        }
    }
    world.instances.sort_unstable();
}

/// The charge is due again. What was said before about its declines is stale, and none of them is taken back from now on.
pub fn bring_retry_day(world: &mut World) {
    world.books.is_due = true;
    for row in world.books.attempts.iter_mut().flatten() {
        row.is_confirmed = false;
    }
    make_declines_final(world);
}

/// The copy takes the place of the database; what was open in the old one is gone.
pub fn restore(world: &mut World) {
    let Backup::Taken(books) = world.backup else {
        return;
    };
    world.books = books;
    world.backup = Backup::Restored;
    world.lost_commits = Default::default();
    for instance in &mut world.instances {
        if matches!(instance, Instance::Permitting(_) | Instance::SentEarly(_)) {
            *instance = Instance::Idle;
        }
    }
    world.instances.sort_unstable();
}
