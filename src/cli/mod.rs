//! One module for each subcommand.

pub mod simulator;
