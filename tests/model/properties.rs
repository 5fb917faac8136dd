//! What must hold in every world, and what must be reachable so that it says something.

use cykl::domain::attempt::AttemptState;
use cykl::domain::charge::ChargeState;
use stateright::Property;

use crate::configuration::Configuration;
use crate::protocol::Protocol;
use crate::world::{Attempt, Backup, Fate, Instance, World};

/// The promise.
pub const AT_MOST_ONCE: &str = "the money moves at most once";

/// See [`paid_is_settled`].
pub const PAID_IS_SETTLED: &str = "what counts as paid is settled";

/// See [`freed_is_true`].
const FREED_IS_TRUE: &str = "what frees a charge is true";

/// See [`is_acted_upon`].
pub const ACTED_UPON: &str = "an open charge is acted upon";

/// See [`is_accounted_for`].
const ACCOUNTED_FOR: &str = "money that moved is in the books, or people know";

/// The properties of a configuration; a broken variant has only the one that catches it.
pub fn of(configuration: &Configuration) -> Vec<Property<Protocol>> {
    let mut always = vec![
        Property::<Protocol>::always(AT_MOST_ONCE, |_, world| world.movements() <= 1),
        Property::always(PAID_IS_SETTLED, |_, world| paid_is_settled(world)),
        Property::always(FREED_IS_TRUE, freed_is_true),
        Property::always(ACTED_UPON, |_, world| is_acted_upon(world)),
        Property::always(ACCOUNTED_FOR, is_accounted_for),
    ];
    if let Some(variant) = configuration.variant {
        always.retain(|property| property.name == variant.breaks());
        return always;
    }
    always.extend([
        Property::sometimes("a charge is paid", |_, world| is_paid_after(world, &[])),
        Property::sometimes("a charge is paid after a decline", |_, world| {
            is_paid_after(world, &[AttemptState::Rejected])
        }),
        Property::sometimes(
            "a charge is paid after people declared an attempt absent",
            |_, world| is_paid_after(world, &[AttemptState::Absent]),
        ),
        Property::sometimes(
            "a charge is paid after a request that was not sent",
            |_, world| is_paid_after(world, &[AttemptState::NotSent]),
        ),
        Property::sometimes("a charge in doubt is written off", |_, world: &World| {
            world.books.charge == ChargeState::Failed && has(world, AttemptState::InDoubt)
        }),
    ]);
    always
}

fn is_paid_after(world: &World, states: &[AttemptState]) -> bool {
    world.books.charge == ChargeState::Paid && states.iter().all(|state| has(world, *state))
}

fn has(world: &World, state: AttemptState) -> bool {
    world.books.rows().any(|(_, row)| row.state == state)
}

/// An attempt that counts as settled is settled at the gateway, and a charge that counts as paid has one.
fn paid_is_settled(world: &World) -> bool {
    let moved = |row: &Attempt| matches!(row.state, AttemptState::Settled | AttemptState::Surplus);
    let settled = |row: Attempt| fate_of(world, row) == Some(Fate::Settled);
    let rows: Vec<_> = world
        .books
        .rows()
        .map(|(_, row)| row)
        .filter(moved)
        .collect();
    let is_paid = world.books.charge == ChargeState::Paid;
    !(is_paid && rows.is_empty()) && rows.into_iter().all(settled)
}

/// An attempt that lets another one be made has moved no money, and nothing of it is on its way. A decline that the gateway took
/// back is the one exception: it is found by the read before the retry.
fn freed_is_true(protocol: &Protocol, world: &World) -> bool {
    let is_restored = matches!(world.backup, Backup::Restored | Backup::Adopted);
    world.books.rows().all(|(number, row)| {
        let is_quiet = world.wire[usize::from(number)] == 0;
        let mut of_order = world.transactions().filter(|(_, one)| one.order == number);
        match row.state {
            AttemptState::NotSent | AttemptState::Refused | AttemptState::Absent => {
                // What was lost with the database may have had the same number.
                let moves = |fate| matches!(fate, Fate::Open | Fate::Settled);
                is_restored || is_quiet && !of_order.any(|(_, one)| moves(one.fate))
            }
            AttemptState::Rejected => match fate_of(world, row) {
                Some(Fate::Declined | Fate::DeclinedForGood) => is_quiet,
                Some(Fate::Settled) => protocol.rules.configuration.takes_back,
                Some(Fate::Open) | None => false,
            },
            AttemptState::InDoubt
            | AttemptState::Pending
            | AttemptState::Settled
            | AttemptState::Surplus => true,
        }
    })
}

fn fate_of(world: &World, row: Attempt) -> Option<Fate> {
    let transaction = world
        .ledger
        .get(usize::from(row.transaction?))
        .copied()
        .flatten();
    transaction.map(|transaction| transaction.fate)
}

/// Somebody looks at an open charge again: the charger at its time, the resolver, or people who were asked.
fn is_acted_upon(world: &World) -> bool {
    let books = &world.books;
    let can_be_read = books.rows().all(|(_, row)| {
        !row.is_polled || row.transaction.is_some() || row.state == AttemptState::InDoubt
    });
    let is_resolved_later = books.rows().any(|(_, row)| {
        row.is_polled && matches!(row.state, AttemptState::InDoubt | AttemptState::Pending)
    });
    match books.charge {
        ChargeState::Planned | ChargeState::RetryWait => can_be_read,
        ChargeState::InFlight => is_resolved_later,
        ChargeState::Held
        | ChargeState::Paid
        | ChargeState::Failed
        | ChargeState::Skipped
        | ChargeState::Void => true,
    }
}

/// When everything has come to an end, money that moved has paid the charge, or people were told that they have to look: the attempt
/// was written off in doubt, or a backup was restored. A decline that is taken back after the end is told by a notice.
fn is_accounted_for(protocol: &Protocol, world: &World) -> bool {
    let is_over = !world.books.charge.is_open()
        && world.instances == [Instance::Idle; crate::world::INSTANCES_MAX]
        && world.wire.iter().all(|requests| *requests == 0)
        && world.lost_commits.iter().all(Option::is_none)
        && world.books.rows().all(|(_, row)| !row.is_polled);
    let are_told = has(world, AttemptState::InDoubt)
        || matches!(world.backup, Backup::Restored | Backup::Adopted)
        || protocol.rules.configuration.takes_back;
    !is_over || world.movements() == 0 || world.books.charge == ChargeState::Paid || are_told
}
