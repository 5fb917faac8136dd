//! The command line. One file per command: its arguments and `run`.
//!
//! Results go to standard output, everything else to standard error. A command returns its [`Exit`] or a [`CliError`];
//! nothing here calls `exit`. What commands share is in [`context`] (configuration, clock, database), [`output`],
//! [`records`] and [`exit`].

pub mod context;
pub mod exit;
pub mod output;
pub mod records;

pub mod audit;
pub mod daemon;
pub mod journal;
pub mod sandbox;
pub mod simulator;
pub mod subscription;

mod adopt;
mod brake;
mod card;
mod charge;
mod check;
mod completions;
mod demo;
mod man;
mod migrate;
mod refund;
mod run;
mod status;

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};

pub use exit::{CliError, Exit, Outcome};

use crate::cli::context::Context;
use crate::cli::output::OutputArgs;
use crate::domain::card_number::looks_like_card_number;
use crate::telemetry::LogFormat;

/// Recurring card billing through imoje: at most one debit per subscription and period, no due charge forgotten.
#[derive(Debug, Parser)]
#[command(
    name = "cykl",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
#[command(after_help = exit::HELP)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub struct GlobalArgs {
    /// Read the configuration from FILE instead of /etc/cykl/cykl.toml
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// How log lines look [default: log.format of the configuration]
    #[arg(long, global = true, value_name = "FORMAT", value_parser = log_format())]
    pub log_format: Option<LogFormat>,

    /// Who does it, for the record [default: the user who runs cykl; under sudo the user who called it]
    #[arg(long, global = true, value_name = "NAME", value_parser = one_line)]
    pub actor: Option<String>,
}

/// Why a change is made; kept in the books.
#[derive(Debug, Clone, Args)]
pub struct ReasonArgs {
    /// Why, for the record
    #[arg(long, value_name = "TEXT", value_parser = one_line)]
    pub reason: String,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bill a year in less than a minute: private database, pretend imoje, fast clock
    Demo(demo::DemoArgs),
    /// Charge what is due, until told to stop
    Run,
    /// Bring the database schema to this version
    Migrate,
    /// Store, show and stop subscriptions
    #[command(subcommand)]
    Subscription(subscription::SubscriptionCommand),
    /// Check the configuration, the database and the gateway
    Check(Box<check::CheckArgs>),
    /// Accept a moved or restored database, after its books were compared with imoje
    Adopt(adopt::AdoptArgs),
    /// Serve the pretend imoje, to try an integration against
    Simulator(Box<simulator::Args>),
    /// See what was to be paid and what became of it, and decide what nobody else can
    #[command(subcommand)]
    Charge(charge::ChargeCommand),
    /// Give money back, whole or in part
    Refund(refund::RefundArgs),
    /// Have a card registered, see what imoje knows about it, or end it
    #[command(subcommand)]
    Card(card::CardCommand),
    /// Stop all charging at once, or let it go on
    #[command(subcommand)]
    Brake(brake::BrakeCommand),
    /// Show how things stand
    Status(OutputArgs),
    /// Prove from the books that money moved at most once per period and no due charge was forgotten
    Audit(Box<audit::AuditArgs>),
    /// Print a script that completes commands in a shell
    Completions(completions::CompletionsArgs),
    /// Print the manual page of cykl and of every command
    Man(man::ManArgs),
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// [`CliError`] with the exit code that says what to do next.
    pub async fn run(self) -> Outcome {
        let Cli { global, command } = self;
        match command {
            Command::Demo(args) => demo::run(&global, args).await,
            Command::Run => run::run(&global).await,
            Command::Simulator(args) => simulator::run(*args)
                .await
                .map(|()| Exit::Ok)
                .map_err(CliError::unavailable),
            Command::Subscription(command) => subscription::run(&command, &global).await,
            Command::Migrate => migrate::run(&Context::new(&global)?).await,
            Command::Check(args) => check::run(&args, &Context::new(&global)?).await,
            Command::Adopt(args) => adopt::run(&args, &Context::new(&global)?).await,
            Command::Charge(command) => charge::run(&command, &Context::new(&global)?).await,
            Command::Refund(args) => refund::run(&args, &Context::new(&global)?).await,
            Command::Card(command) => card::run(&command, &Context::new(&global)?).await,
            Command::Brake(command) => brake::run(&command, &Context::new(&global)?).await,
            Command::Status(args) => status::run(args, &Context::new(&global)?).await,
            Command::Audit(args) => audit::run(&args, &Context::new(&global)?).await,
            Command::Completions(args) => completions::run(&args),
            Command::Man(args) => man::run(&args),
        }
    }
}

fn log_format() -> impl TypedValueParser<Value = LogFormat> {
    PossibleValuesParser::new(LogFormat::ALL.map(LogFormat::as_str))
        .try_map(|text| text.parse::<LogFormat>())
}

/// The longest text of a person that is kept.
const TEXT_MAX: usize = 500;

/// A text of a person: one line, not blank.
fn one_line(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err("it has control characters; write a single line".to_owned());
    }
    if text.chars().count() > TEXT_MAX {
        return Err(format!("it is longer than {TEXT_MAX} characters"));
    }
    Ok(text.to_owned())
}

/// Who decides. A decision about money is a person's, and the daemon's own name is nobody's, although commands are often run as its user.
fn decider(context: &Context) -> Result<&str, CliError> {
    if context.actor.trim().eq_ignore_ascii_case("cykl") {
        let error = "a decision about money is a person's, and \"cykl\" is the daemon";
        return Err(CliError::usage(error).hint("say whose it is with --actor NAME"));
    }
    Ok(&context.actor)
}

/// A reason that may be kept.
fn kept_reason(reason: &str) -> Result<&str, CliError> {
    kept("reason", reason)
}

/// A text of a person that is kept in the books: no card number.
fn kept<'a>(what: &str, text: &'a str) -> Result<&'a str, CliError> {
    if looks_like_card_number(text) {
        return Err(CliError::usage(format!(
            "the {what} looks like a card number, and card numbers are never kept"
        )));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn verify_cli() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_argument_explains_itself() {
        fn explain(command: &clap::Command) {
            let path = command.get_bin_name().unwrap_or("cykl").to_owned();
            assert!(
                command.get_about().is_some(),
                "{path} does not say what it does"
            );
            for argument in command.get_arguments() {
                assert!(
                    argument.get_help().is_some(),
                    "{path} {} is not explained",
                    argument.get_id()
                );
            }
            command.get_subcommands().for_each(explain);
        }
        let mut command = Cli::command();
        command.build();
        explain(&command);
    }

    #[test]
    fn what_a_person_writes_is_one_line_that_says_something() {
        assert_eq!(
            one_line("  a card was stolen "),
            Ok("a card was stolen".to_owned())
        );
        for text in [
            "",
            "  ",
            "two\nlines",
            "\u{1b}[31mred",
            &"x".repeat(TEXT_MAX + 1),
        ] {
            assert!(one_line(text).is_err(), "{text:?}");
        }
    }
}
