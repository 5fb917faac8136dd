//! Subscriptions as operators handle them: the real program on a real PostgreSQL.

#![allow(
    clippy::unwrap_used,
    reason = "a failed set-up should panic; helpers are not #[test] functions"
)]

mod generator;
mod harness;
#[path = "../scratch/mod.rs"]
mod scratch;

mod importing;
mod stepping;
