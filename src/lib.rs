//! Recurring card billing through imoje: at most one movement of money per subscription and period, and no due charge
//! forgotten.
//!
//! The map, in reading order:
//!
//! - [`domain`]: the rules of money and time, pure. Read [`domain::charge`] first.
//! - [`store`]: the books, in PostgreSQL. The only place with SQL.
//! - [`gateway`]: imoje over HTTP. `Ok` is its word, `Err` means that we do not know.
//! - [`journal`]: files that name every permit, for the day on which the database is restored.
//! - [`workers`]: the loops. They meet only in the database.
//! - [`http`]: notices in, health and metrics out.
//! - [`cli`]: the commands; `cli::daemon` puts everything together.
//! - [`simulator`]: a pretend imoje, for tests, the demo, and shops that try their integration.
//! - [`embedded`]: a private PostgreSQL out of the system's programs.
//! - [`config`], [`clock`], [`metrics`], [`telemetry`], [`reconnect`]: what they all stand on.
//!
//! Imports point one way: `cli` to `workers` and `http`, these to `store` and `gateway`, these to `domain`. `tests/architecture.rs`
//! holds the direction; `ARCHITECTURE.md` tells the life of one charge.

pub mod domain;

pub mod embedded;
pub mod gateway;
pub mod journal;
pub mod store;

pub mod http;
pub mod simulator;
pub mod workers;

pub mod cli;

pub mod clock;
pub mod config;
pub mod metrics;
pub mod reconnect;
pub mod telemetry;
