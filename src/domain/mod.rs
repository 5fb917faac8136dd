//! The rules of recurring billing, as pure functions and types.
//!
//! Nothing here does I/O, reads a clock, draws a random number, logs or awaits, so every rule of money and time can be
//! tested exhaustively. The only thing borrowed from outside is how a value is spelt in the database (`sqlx::Type`).
//!
//! Read in this order: [`charge`] and [`attempt`] are the states of one debit, [`answer`] says what the gateway's words mean,
//! [`resolution`] turns news about an attempt into what becomes of its charge and its subscription, [`people`] says what people may
//! decide.

pub mod attempt;
pub mod charge;
pub mod subscription;

pub mod answer;
pub mod decline;
pub mod people;
pub mod resolution;
pub mod retry;

pub mod calendar;
pub mod card;
pub mod card_number;
pub mod channel;
pub mod daily_cap;
pub mod enrolment;
pub mod event;
pub mod export;
pub mod fields;
pub mod history;
pub mod id;
pub mod money;
pub mod order_id;
pub mod permit_record;
pub mod preflight;
pub mod refund;
pub mod registration;
pub mod schedule;
pub mod shop;
pub mod slow_start;
pub mod spelling;
pub mod tick;
pub mod title;
pub mod tripwire;

/// A state that was asked to take a step which the machine does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{state:?} has no step for {event:?}")]
pub struct IllegalTransition<S: std::fmt::Debug, E: std::fmt::Debug> {
    /// The state that was left as it is.
    pub state: S,
    /// The event that it has no answer to.
    pub event: E,
}
