//! `cykl completions SHELL`: a script that completes commands and arguments.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::{Cli, Exit, Outcome, output};

/// Arguments of `cykl completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell that is to complete
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "cykl", &mut script);
    output::write(&script)?;
    Ok(Exit::Ok)
}
