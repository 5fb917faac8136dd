//! Recurring card billing through imoje.

pub mod domain;
