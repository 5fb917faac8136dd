//! The program itself, as operators and scripts run it: output, exit codes, and what it says when something is wrong.

#![allow(clippy::unwrap_used, reason = "a failed set-up should panic")]

mod against;
mod audit;
#[path = "../card_proxy/mod.rs"]
mod card_proxy;
mod cards;
mod commands;
mod place;
mod refunds;
mod registering;
#[path = "../scratch/mod.rs"]
mod scratch;
mod start;
