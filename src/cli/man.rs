//! `cykl man`: the manual pages, in roff.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_mangen::Man;

use crate::cli::{Cli, CliError, Exit, Outcome, output};

/// Arguments of `cykl man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write one file per command into DIR instead, named as man(1) looks for them
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn run(args: &ManArgs) -> Outcome {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    if let Some(directory) = &args.dir {
        std::fs::create_dir_all(directory)
            .and_then(|()| clap_mangen::generate_to(command, directory))
            .map_err(|error| {
                let attempted = format!("couldn't write manual pages into {}", directory.display());
                CliError::bad_data(error).context(attempted)
            })?;
        return Ok(Exit::Ok);
    }
    let mut pages = Vec::new();
    render(&command, &mut pages).map_err(CliError::internal)?;
    output::write(&pages)?;
    Ok(Exit::Ok)
}

/// One page after the other, which man(1) shows as one.
fn render(command: &clap::Command, pages: &mut Vec<u8>) -> std::io::Result<()> {
    Man::new(command.clone()).render(pages)?;
    command
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .try_for_each(|command| render(command, pages))
}
