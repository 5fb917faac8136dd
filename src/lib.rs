//! Recurring card billing through imoje.

pub mod domain;

pub mod embedded;
pub mod gateway;
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
