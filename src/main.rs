//! The `cykl` program: reads the command line, runs one command, and says with its exit code how that went.

use std::process::ExitCode;

use clap::Parser;
use cykl::cli::{Cli, CliError};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::internal(error).context("couldn't start the runtime"))
        .and_then(|runtime| runtime.block_on(cli.run()));
    match outcome {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("error: {error}");
            error.exit().into()
        }
    }
}
