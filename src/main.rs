//! The `cykl` program.

fn main() {}
