//! Behaviour of the whole daemon: real PostgreSQL, real HTTP against the simulator, time that a test moves by hand.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test names the answer that it expects and fails on every other"
)]
#![allow(
    clippy::unwrap_used,
    reason = "a failed set-up should panic; helpers are not #[test] functions"
)]

#[path = "../card_proxy/mod.rs"]
mod card_proxy;
mod fire;
mod harness;
#[path = "../scratch/mod.rs"]
mod scratch;
mod site;

mod archive;
mod axepta;
mod brakes;
mod browser;
mod card_data;
mod charging;
mod constraints;
mod crash_points;
mod crash_recovery;
mod export;
mod ground;
mod health;
mod idle;
mod inbox;
mod mutants;
mod notices;
mod passing_through;
mod people;
mod plain;
mod plans;
mod preflight;
mod racing;
mod refund_guards;
mod refunds;
mod registering;
mod registration_guards;
mod resolving;
mod restored;
mod robustness;
mod sandbox;
mod scheduling;
mod schema;
mod senders;
mod sharding;
mod shops;
mod simulation;
mod telling;
mod views;
