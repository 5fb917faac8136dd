//! Recurring card billing through imoje.

pub mod domain;

pub mod embedded;
pub mod store;

pub mod workers;

pub mod clock;
pub mod metrics;
pub mod reconnect;
pub mod telemetry;
