//! What each step makes of the world.

use cykl::domain::attempt::AttemptState;
use cykl::domain::charge::{ChargeEvent, ChargeState};
use cykl::domain::resolution::News;
use cykl::domain::subscription::SubscriptionEvent;

use crate::bookkeeping::{self, admits, record, step_charge};
use crate::configuration::Variant;
use crate::news;
use crate::protocol::Protocol;
use crate::step::{Move, Step, Write};
use crate::surroundings::{
    add, bring_retry_day, deliver, forget, grow, make_declines_final, restore, set_fate,
    waiting_for,
};
use crate::world::{
    Attempt, Backup, FOREIGN, Fate, Instance, Permit, Reading, Shown, Transaction, Word, World,
};

impl Protocol {
    /// Takes a step.
    pub fn take(&self, world: &mut World, step: Step) {
        self.do_step(world, step);
        if !self.rules.configuration.takes_back {
            make_declines_final(world);
        }
        forget(
            world,
            self.rules.configuration.guards.order_id_is_never_reused,
        );
    }

    fn do_step(&self, world: &mut World, step: Step) {
        match step {
            Step::Claim(instance) => self.claim(world, instance),
            Step::GoOn(instance, next) => self.go_on(world, instance, next),
            Step::Poll(instance, number) => {
                let row = world.books.attempts[usize::from(number)];
                if let Some(id) = row.and_then(|row| row.transaction) {
                    self.read(world, instance, number, id, false);
                }
            }
            Step::Notice(instance, id) => {
                if let Some(transaction) = world.ledger[usize::from(id)] {
                    self.read(world, instance, transaction.order, id, false);
                }
            }
            Step::ForgedNotice(instance, number) => {
                self.read(world, instance, number, FOREIGN, true);
            }
            Step::Rescue(instance, attempt) => {
                if let Some(row) = world.books.attempts[usize::from(attempt)] {
                    let permit = Permit {
                        attempt,
                        id: row.id,
                    };
                    world.put(
                        instance,
                        Instance::Permitted {
                            permit,
                            is_old: false,
                        },
                    );
                }
            }
            Step::Deliver(attempt, outcome) => deliver(world, attempt, outcome),
            Step::LoseRequest(attempt) => {
                world.wire[usize::from(attempt)] -= 1;
                // Nothing will come any more, and whoever waits for it may as well know it now.
                if let Some((waiting, permit)) = waiting_for(world, attempt) {
                    let next = self.end(world, permit, Word::Nothing);
                    world.put(waiting, next);
                }
            }
            Step::Finish(id, fate) => set_fate(world, id, fate),
            Step::TakeBack(id) => set_fate(world, id, Fate::Settled),
            Step::Twin(order) => {
                add(
                    world,
                    Transaction {
                        order,
                        fate: Fate::Declined,
                    },
                );
                world.has_twin = false;
            }
            Step::Grow(age) => grow(world, age),
            Step::RetryDay => bring_retry_day(world),
            Step::Write(write) => self.write(world, write),
            Step::TakeBackup => world.backup = Backup::Taken(world.books),
            Step::Restore => restore(world),
            Step::Adopt => world.backup = Backup::Adopted,
        }
    }

    /// What the charger does with a due charge; see `judge` in `src/store/permits.rs`.
    fn claim(&self, world: &mut World, instance: usize) {
        let books = &mut world.books;
        let is_blocked = books
            .rows()
            .any(|(_, row)| row.state.blocks() || row.state == AttemptState::Surplus);
        let is_stale =
            |row: &&mut Attempt| row.state == AttemptState::Rejected && !row.is_confirmed;
        if is_blocked {
            step_charge(books, ChargeEvent::Held);
            return;
        }
        if !self.rules.is(Variant::RetryWithoutReread) {
            let mut stale = books
                .attempts
                .iter_mut()
                .flatten()
                .filter(is_stale)
                .peekable();
            if stale.peek().is_some() {
                stale.for_each(|row| row.is_polled = true);
                return;
            }
        }
        let attempt = books.next_number();
        let id = world.unused_id(attempt);
        world.put(instance, Instance::Permitting(Permit { attempt, id }));
    }

    /// What an instance that is at something does next.
    fn go_on(&self, world: &mut World, instance: usize, next: Move) {
        let now = world.instances[instance];
        let Some(permit) = now.permit() else {
            return;
        };
        let number = usize::from(permit.attempt);
        let next = match next {
            Move::Commit => self.commit(world, now, permit),
            Move::LoseCommit => {
                world.lost_commits[number] = Some(permit.id);
                if self.rules.is(Variant::CommitErrorIgnored) {
                    Instance::Permitted {
                        permit,
                        is_old: false,
                    }
                } else {
                    Instance::Unconfirmed(permit)
                }
            }
            Move::Bury => {
                bookkeeping::bury(world, permit, &self.rules);
                Instance::Idle
            }
            Move::Send | Move::Resend => {
                world.wire[number] += 1;
                if matches!(now, Instance::Permitting(_)) {
                    Instance::SentEarly(permit)
                } else {
                    Instance::Waiting(permit)
                }
            }
            Move::Withhold => self.end(world, permit, Word::NotSent),
            Move::GiveUpWaiting => self.end(world, permit, Word::Nothing),
            Move::TakeFault => self.end(world, permit, Word::Fault),
            Move::Record => {
                if let Instance::Read(reading) = now {
                    self.record_reading(world, reading);
                    Instance::Idle
                } else if let Instance::Answering(_, word) = now {
                    self.end(world, permit, word)
                } else {
                    Instance::Idle
                }
            }
            Move::Crash => Instance::Idle,
        };
        world.put(instance, next);
    }

    fn commit(&self, world: &mut World, now: Instance, permit: Permit) -> Instance {
        if !admits(world, permit, &self.rules) {
            return Instance::Idle;
        }
        let permit = bookkeeping::permit(world, permit, &self.rules);
        if matches!(now, Instance::SentEarly(_)) {
            Instance::Waiting(permit)
        } else {
            Instance::Permitted {
                permit,
                is_old: false,
            }
        }
    }

    /// Records what an instance learnt about its request, which is over with that.
    fn end(&self, world: &mut World, permit: Permit, word: Word) -> Instance {
        // A row that was lost with a restored backup is not recorded about.
        if world.row(permit).is_some() {
            let news = news::of_word(permit.attempt, word, &self.rules);
            record(&mut world.books, permit.attempt, &news, false, &self.rules);
        }
        Instance::Idle
    }

    fn record_reading(&self, world: &mut World, reading: Reading) {
        if world.row(reading.permit).is_some() {
            let news = news::of_reading(reading, &self.rules);
            let attempt = reading.permit.attempt;
            record(
                &mut world.books,
                attempt,
                &news,
                reading.was_due,
                &self.rules,
            );
        }
    }

    /// Reads a transaction for an attempt. What cannot change any more is recorded at once: later would be the same as reading
    /// it later.
    fn read(&self, world: &mut World, instance: usize, attempt: u8, id: u8, is_forged: bool) {
        let Some(row) = world.books.attempts[usize::from(attempt)] else {
            return;
        };
        let in_ledger = world.ledger.get(usize::from(id)).copied().flatten();
        let is_trusted = is_forged && self.rules.is(Variant::NegativeNoticeTrusted);
        let shown = match in_ledger {
            Some(Transaction { order, fate }) => Shown::Ours { order, fate },
            None if is_trusted => Shown::Invented,
            None => Shown::Foreign,
        };
        let reading = Reading {
            permit: Permit {
                attempt,
                id: row.id,
            },
            transaction: id,
            shown,
            was_due: world.books.charge == ChargeState::RetryWait && world.books.is_due,
        };
        match shown {
            Shown::Ours {
                fate: Fate::Open | Fate::Declined,
                ..
            } => {
                world.put(instance, Instance::Read(reading));
            }
            Shown::Ours {
                fate: Fate::Settled | Fate::DeclinedForGood,
                ..
            }
            | Shown::Foreign
            | Shown::Invented => self.record_reading(world, reading),
        }
    }

    /// What is written to the books by nobody's request or read.
    fn write(&self, world: &mut World, write: Write) {
        let books = &mut world.books;
        match write {
            Write::LostCommitLands(attempt) => {
                if let Some(id) = world.lost_commits[usize::from(attempt)] {
                    bookkeeping::permit(world, Permit { attempt, id }, &self.rules);
                }
            }
            Write::Stage(attempt, many) => {
                if let Some(stage) = bookkeeping::stage(books, attempt, many, &self.rules) {
                    bookkeeping::put_on_stage(books, attempt, stage, &self.rules);
                }
            }
            Write::FailUnanswered(attempt) => {
                record(books, attempt, &News::NotSent, false, &self.rules);
            }
            Write::DeclareAbsent(attempt) => {
                bookkeeping::declare_absent(books, attempt, &self.rules)
            }
            Write::RetryHeld => {
                step_charge(books, ChargeEvent::Reopened);
            }
            Write::GiveUpHeld => bookkeeping::give_up(books),
            Write::Reopen => {
                bookkeeping::step_subscription(books, SubscriptionEvent::CardAttached);
                step_charge(books, ChargeEvent::Reopened);
            }
            Write::Skip => {
                step_charge(books, ChargeEvent::Skipped);
            }
        }
    }
}
