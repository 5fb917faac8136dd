//! What people do in the stories: each command goes through the process that may die, and is given again when it failed.

use std::collections::{BTreeSet, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};
use cykl::cli::daemon;
use cykl::domain::id::{ChargeId, SubscriptionId, TransactionId};
use cykl::store::Store;
use cykl::store::brakes::BrakeMode;
use cykl::store::people::{Instruction, RulingError};
use cykl::store::registrations::{BeginError, EndError, WantedPayment};
use cykl::store::status::{By, StepError, Stopped};
use cykl::workers::crew::Workers;
use cykl::workers::refunder::{RefundError, Refunder, Wanted};
use cykl::workers::registrar::{CancelError, RegisterError, Registrar};
use cykl::workers::resolver::{NamePaymentError, SettleError};
use cykl::workers::shops::ShopCalendar;
use uuid::Uuid;

use crate::card_data::{confirm, new_card};
use crate::fire::{Instance, Stage};
use crate::harness::{START, World};
use crate::registering::{GOOD, invitation, pay, wanted};

/// Something that a person does.
#[derive(Clone, Copy)]
pub struct Deed {
    /// How many hours after the beginning, at the earliest.
    pub hour: i64,
    /// The charge that it is about, if any, among all charges and their attempts `a`. It waits until there is one.
    pub about: Option<&'static str>,
    /// What is done.
    pub command: Command,
}

/// What a person tells Cykl to do.
#[derive(Clone, Copy)]
pub enum Command {
    Pause,
    Resume,
    Cancel,
    Brake(BrakeMode),
    DeclareAbsent(&'static str),
    WriteOff,
    Approve,
    RetryNow,
    /// The transaction is the one that the panel shows for the charge.
    Settle,
    /// All of it goes back.
    Refund,
    /// A payer is sent a link.
    Register(WantedPayment),
    /// The payer pays by the link that is open.
    Pay,
    /// The payer's card is registered by its data.
    RegisterCard,
    /// The payer confirms that.
    Confirm,
}

/// What came of a command.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// It said that it was done.
    Done,
    /// It said why not.
    Refused(String),
    /// It could not say whether it was done.
    Failed,
    /// It cannot be done yet.
    Later,
}

/// What people did about the charge so far, and what they are going to do.
pub struct People {
    deeds: VecDeque<Deed>,
    /// The charge of the first of them, once it was begun.
    begun: Option<Uuid>,
    subscription_id: SubscriptionId,
    /// What was refused. A command that is given again may be: it was carried out, and what it was about has gone on since.
    pub refused: Vec<String>,
    /// The numbers of the effects that their commands had.
    pub effects: BTreeSet<usize>,
}

impl People {
    pub fn new(deeds: &[Deed], subscription_id: Uuid) -> Self {
        Self {
            deeds: deeds.iter().copied().collect(),
            begun: None,
            subscription_id: SubscriptionId::from_uuid(subscription_id),
            refused: Vec::new(),
            effects: BTreeSet::new(),
        }
    }

    /// How many things are still to be done.
    pub fn left(&self) -> usize {
        self.deeds.len()
    }

    /// When the next of them may be done.
    pub fn next_at(&self) -> Option<DateTime<Utc>> {
        let start: DateTime<Utc> = START.parse().unwrap();
        self.deeds
            .front()
            .map(|deed| start + TimeDelta::hours(deed.hour))
    }

    /// Does what is to be done now, if anything, in `instance`. Returns whether that was something.
    pub async fn act_in(&mut self, instance: &Instance, stage: &Stage) -> bool {
        let Some(errand) = self.errand(&stage.world).await else {
            return false;
        };
        let (workers, store) = (instance.workers.clone(), instance.store.clone());
        let before = instance.effects.names().len();
        let outcome = instance
            .run(async move { errand.run(&workers, &store).await })
            .await;
        self.effects.extend(before..instance.effects.names().len());
        self.note(outcome.unwrap_or(Outcome::Failed))
    }

    /// As [`People::act_in`], in a process that nothing goes wrong with.
    pub async fn act(&mut self, world: &World) -> bool {
        let Some(errand) = self.errand(world).await else {
            return false;
        };
        let outcome = errand.run(&world.workers, &world.store).await;
        assert_ne!(outcome, Outcome::Failed);
        self.note(outcome)
    }

    async fn errand(&mut self, world: &World) -> Option<Errand> {
        let now = world.clock.now();
        let deed = *self.deeds.front()?;
        if self.next_at()? > now {
            return None;
        }
        if let (None, Some(about)) = (self.begun, deed.about) {
            let query = format!(
                "SELECT charge_id FROM charges LEFT JOIN attempts a USING (charge_id) WHERE {} ORDER BY charges.due_on LIMIT 1",
                about
            );
            self.begun = sqlx::query_scalar(sqlx::AssertSqlSafe(query))
                .fetch_optional(&world.books)
                .await
                .unwrap();
        }
        if deed.about.is_some() && self.begun.is_none() {
            return None;
        }
        let charge_id = self.begun.unwrap_or_default();
        let order_ids: Vec<String> =
            sqlx::query_scalar("SELECT order_id FROM attempts WHERE charge_id = $1")
                .bind(charge_id)
                .fetch_all(&world.books)
                .await
                .unwrap();
        let ledger = world.simulator.ledger();
        let in_the_panel = order_ids
            .iter()
            .flat_map(|order_id| ledger.transactions_of(order_id))
            .map(|transaction| TransactionId::from_uuid(transaction.id))
            .next();
        Some(Errand {
            command: deed.command,
            subscription_id: self.subscription_id,
            charge_id: ChargeId::from_uuid(charge_id),
            in_the_panel,
            of_card_data: world
                .column("SELECT order_id FROM registrations WHERE way = 'card_data' AND state = 'requested'")
                .await
                .iter()
                .flat_map(|order_id| ledger.transactions_of(order_id))
                .map(|transaction| TransactionId::from_uuid(transaction.id))
                .next(),
            link: world
                .column("SELECT url FROM registrations WHERE state = 'open' AND url IS NOT NULL")
                .await
                .pop(),
            absent_after: world.config.absent_after,
            calendar: daemon::calendar(world.config.shops.values().next().unwrap()),
            now,
        })
    }

    /// Notes what came of a command. Returns whether something may have been done.
    fn note(&mut self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Failed => return true,
            Outcome::Later => return false,
            Outcome::Done => {}
            Outcome::Refused(why) => self.refused.push(why),
        }
        self.deeds.pop_front();
        self.begun = None;
        true
    }
}

/// A command with all that it needs.
struct Errand {
    command: Command,
    subscription_id: SubscriptionId,
    charge_id: ChargeId,
    in_the_panel: Option<TransactionId>,
    /// What the panel shows for card data that were never answered.
    of_card_data: Option<TransactionId>,
    link: Option<String>,
    absent_after: TimeDelta,
    calendar: ShopCalendar,
    now: DateTime<Utc>,
}

impl Errand {
    async fn run(self, workers: &Workers, store: &Store) -> Outcome {
        let (by, now) = (by("jan"), self.now);
        match self.command {
            Command::Pause => stepped(store.pause(self.subscription_id, by, now).await),
            Command::Resume => {
                let next = |stopped: &Stopped| self.calendar.next_period(stopped, now);
                stepped(store.resume(self.subscription_id, by, now, next).await)
            }
            Command::Cancel => stepped(store.cancel(self.subscription_id, by, now).await),
            Command::Brake(mode) => {
                let set = store.set_brake(None, mode, by.actor, by.reason, now);
                set.await.map_or(Outcome::Failed, |()| Outcome::Done)
            }
            Command::DeclareAbsent(actor) => {
                let absent_after = self.absent_after;
                let instruction = Instruction::DeclareAbsent { absent_after };
                self.rule(workers, store, instruction, actor).await
            }
            Command::WriteOff => {
                self.rule(workers, store, Instruction::WriteOff, by.actor)
                    .await
            }
            Command::Approve => {
                self.rule(workers, store, Instruction::Approve, by.actor)
                    .await
            }
            Command::RetryNow => {
                self.rule(workers, store, Instruction::RetryNow, by.actor)
                    .await
            }
            Command::Settle => self.settle(workers).await,
            Command::Refund => self.refund(workers, store).await,
            Command::Register(payment) => self.register(workers, store, payment).await,
            Command::Pay => self.pay().await,
            Command::RegisterCard => self.register_card(workers, store).await,
            Command::Confirm => self.confirm().await,
        }
    }

    async fn rule(
        &self,
        workers: &Workers,
        store: &Store,
        instruction: Instruction,
        actor: &'static str,
    ) -> Outcome {
        let policy = &workers.charger.policy;
        let ruled = store.rule(self.charge_id, instruction, by(actor), policy, self.now);
        match ruled.await {
            Ok(_) => Outcome::Done,
            Err(RulingError::Store(_)) => Outcome::Failed,
            Err(refused) => Outcome::Refused(refused.to_string()),
        }
    }

    async fn refund(&self, workers: &Workers, store: &Store) -> Outcome {
        let charger = &workers.charger;
        let refunder = Refunder {
            store: store.clone(),
            shops: charger.shops.clone(),
            policy: charger.policy.resolver.clone(),
            fence_id: charger.fence_id,
            answer_timeout: charger.limits.answer_timeout,
            absent_after: self.absent_after,
            clock: charger.clock.clone(),
        };
        let wanted = Wanted {
            charge_id: self.charge_id,
            attempt_no: None,
            amount_minor: None,
            title: None,
            is_confirmed_by_email: false,
            by: by("jan"),
        };
        match refunder.refund(wanted).await {
            Ok(_) => Outcome::Done,
            Err(
                RefundError::Store(_)
                | RefundError::Unreachable(_)
                | RefundError::Unconfirmed(_)
                | RefundError::NotRecorded { .. },
            ) => Outcome::Failed,
            Err(refused) => Outcome::Refused(refused.to_string()),
        }
    }

    /// Makes a link. One that a process left behind when it died is ended first.
    async fn register(&self, workers: &Workers, store: &Store, payment: WantedPayment) -> Outcome {
        let registrar = registrar(workers, store);
        let id = self.subscription_id;
        match registrar.register(&wanted(id, payment), invitation()).await {
            Ok(_) => Outcome::Done,
            // Its answer was lost, and it may be ended by now: another one is made, whose address is known.
            Err(RegisterError::Begin(BeginError::Open {
                registration_id, ..
            })) => match registrar.cancel(registration_id, by("jan")).await {
                Ok(()) => Box::pin(self.register(workers, store, payment)).await,
                Err(_) => Outcome::Failed,
            },
            Err(
                RegisterError::Store(_)
                | RegisterError::Begin(BeginError::Store(_))
                | RegisterError::NotSent(_)
                | RegisterError::AnswerLost
                | RegisterError::NotRecorded(_),
            ) => Outcome::Failed,
            Err(refused) => Outcome::Refused(refused.to_string()),
        }
    }

    async fn pay(&self) -> Outcome {
        match &self.link {
            Some(link) if pay(link, GOOD).await.is_success() => Outcome::Done,
            Some(_) | None => Outcome::Refused("there is no link to pay by".to_owned()),
        }
    }

    /// Registers a card by its data. While it is not known what became of an order that was never answered, nobody orders another.
    async fn register_card(&self, workers: &Workers, store: &Store) -> Outcome {
        let wanted = wanted(self.subscription_id, WantedPayment::FirstCharge);
        let registrar = registrar(workers, store);
        let registered = registrar.register_card(&wanted, new_card());
        match registered.await {
            Ok(_) => Outcome::Done,
            // Nobody knows what became of it, until a person names what the panel shows, or gives it up.
            Err(RegisterError::Begin(BeginError::Open { .. }))
                if let Some(named) = self.of_card_data =>
            {
                let (resolver, id) = (&workers.resolver, self.subscription_id);
                match resolver.name_payment(id, named, self.now).await {
                    Ok(_) => Outcome::Done,
                    Err(NamePaymentError::Unfinished) => Outcome::Later,
                    Err(_) => Outcome::Failed,
                }
            }
            Err(RegisterError::Begin(BeginError::Open {
                registration_id, ..
            })) => match registrar.cancel(registration_id, by("jan")).await {
                Ok(()) => Box::pin(self.register_card(workers, store)).await,
                Err(CancelError::Store(_) | CancelError::End(EndError::Store(_))) => {
                    Outcome::Failed
                }
                Err(_) => Outcome::Later,
            },
            Err(
                RegisterError::Store(_)
                | RegisterError::Begin(BeginError::Store(_))
                | RegisterError::NotSent(_)
                | RegisterError::InDoubt { .. }
                | RegisterError::Unrecorded { .. },
            ) => Outcome::Failed,
            Err(refused) => Outcome::Refused(refused.to_string()),
        }
    }

    async fn confirm(&self) -> Outcome {
        match &self.link {
            Some(link) if confirm(link, "confirm").await.is_some() => Outcome::Done,
            Some(_) | None => Outcome::Refused("there is nothing to confirm".to_owned()),
        }
    }

    async fn settle(&self, workers: &Workers) -> Outcome {
        let Some(transaction_id) = self.in_the_panel else {
            return Outcome::Refused("imoje has no such order".to_owned());
        };
        let resolver = &workers.resolver;
        let settled = resolver.settle(self.charge_id, transaction_id, by("jan"), self.now);
        match settled.await {
            Ok(_) => Outcome::Done,
            Err(SettleError::Charge(RulingError::Store(_)) | SettleError::Unreachable(_)) => {
                Outcome::Failed
            }
            Err(refused) => Outcome::Refused(refused.to_string()),
        }
    }
}

fn by(actor: &'static str) -> By<'static> {
    By {
        actor,
        reason: "looked into the panel",
    }
}

fn stepped<T>(step: Result<T, StepError>) -> Outcome {
    match step {
        Ok(_) => Outcome::Done,
        Err(StepError::Store(_)) => Outcome::Failed,
        Err(refused) => Outcome::Refused(refused.to_string()),
    }
}

fn registrar(workers: &Workers, store: &Store) -> Registrar {
    let charger = &workers.charger;
    Registrar {
        store: store.clone(),
        shops: charger.shops.clone(),
        policy: charger.policy.resolver.clone(),
        absent_after: TimeDelta::hours(100),
        clock: charger.clock.clone(),
    }
}
