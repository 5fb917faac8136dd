//! Recurring card billing through imoje.

pub mod domain;
pub mod embedded;
pub mod store;
