//! Recurring card billing through imoje.
