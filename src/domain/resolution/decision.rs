//! What a decision starts from, and all that it may consist of.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use crate::domain::answer::Verdict;
use crate::domain::attempt::AttemptState;
use crate::domain::charge::ChargeState;
use crate::domain::decline::DeclineClass;
use crate::domain::event::EventKind;
use crate::domain::id::TransactionId;
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
    /// Whether that was a payer, by a payment link. Nobody here is to blame for it.
    pub another_is_by_link: bool,
    /// Whether the subscription has another card by now than the one that was debited.
    pub card_replaced: bool,
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
    /// Two people established that imoje never had the transaction.
    DeclaredAbsent,
    /// What the answer to our debit said.
    Answered(Verdict),
    /// What `GET transaction/{id}` said.
    Read(Verdict),
}

impl News {
    /// Whether this is what our own debit was answered.
    pub const fn is_answer(&self) -> bool {
        match self {
            News::Answered(_) => true,
            News::NotSent | News::Unsendable | News::DeclaredAbsent | News::Read(_) => false,
        }
    }

    /// The transaction that it names.
    pub const fn transaction_id(&self) -> Option<TransactionId> {
        match self {
            News::Answered(verdict) | News::Read(verdict) => verdict.transaction_id(),
            News::NotSent | News::Unsendable | News::DeclaredAbsent => None,
        }
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
    pub(super) fn unchanged(standing: &Standing) -> Self {
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

    pub(super) fn incident(mut self, kind: EventKind, brake: &'static str) -> Self {
        self.events.push(kind);
        self.brake = Some(brake);
        self
    }
}
