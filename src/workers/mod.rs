//! The loops. They meet only in the database and never call each other, so a crash, a restart and a second instance are the
//! same case.
//!
//! Each worker has one step, `run_once(now) -> Report`: load, decide, act, record. Time comes in, counts go out.

pub mod caretaker;
pub mod charger;
pub mod notifier;
pub mod preflight;
pub mod refunder;
pub mod registrar;
pub mod resolver;
pub mod scheduler;

pub mod crew;
pub mod shops;
pub mod tripwires;

mod count;
mod posts;
mod round;
mod webhook;
