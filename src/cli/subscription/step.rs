//! `cykl subscription pause`, `resume` and `cancel`.
//!
//! Doing what is done already succeeds and says so; what cannot be done is the command's own "no".

use clap::Args;

use crate::cli::context::Context;
use crate::cli::subscription::{Calendars, Which};
use crate::cli::{CliError, Exit, Outcome, ReasonArgs, kept_reason, output};
use crate::domain::subscription::SubscriptionStatus;
use crate::store::status::{By, Step, StepError, Stopped};

/// Arguments of `cykl subscription pause`, `resume` and `cancel`.
#[derive(Debug, Args)]
pub struct StepArgs {
    #[command(flatten)]
    which: Which,

    #[command(flatten)]
    reason: ReasonArgs,
}

/// Which step.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Pause,
    Resume,
    Cancel,
}

pub(super) async fn run(args: &StepArgs, kind: Kind, context: &Context) -> Outcome {
    let by = By {
        actor: &context.actor,
        reason: kept_reason(&args.reason.reason)?,
    };
    context
        .with_store(async |store| {
            let row = args.which.find(store).await?;
            let id = row.subscription_id;
            let now = context.now();
            let step = match kind {
                Kind::Pause => store.pause(id, by, now).await,
                Kind::Cancel => store.cancel(id, by, now).await,
                Kind::Resume => {
                    let calendar = Calendars::of(context).get(&row.shop)?;
                    let next = |stopped: &Stopped| calendar.next_period(stopped, now);
                    store.resume(id, by, now, next).await
                }
            };
            let step = step.map_err(|error| refused(error, kind, &row.external_id))?;
            output::write(told(&row.external_id, step).as_bytes())?;
            Ok(Exit::Ok)
        })
        .await
}

fn refused(error: StepError, kind: Kind, external_id: &str) -> CliError {
    let verb = match kind {
        Kind::Pause => "paused",
        Kind::Resume => "resumed",
        Kind::Cancel => "cancelled",
    };
    match error {
        StepError::Illegal(illegal) => CliError::no(format!(
            "subscription {external_id} is {} and cannot be {verb}",
            illegal.state.as_str()
        )),
        StepError::Missing(_) => CliError::no(error.to_string()),
        StepError::Store(error) => error.into(),
    }
}

fn told(external_id: &str, step: Step) -> String {
    let status = step.is.as_str();
    if step.is == step.was {
        return format!("subscription {external_id} is {status} already; nothing was changed\n");
    }
    let mut text = format!("subscription {external_id} is {status} now\n");
    if step.voided > 0 {
        text += &format!(
            "not sent and never charged: {} (void)\n",
            charges(step.voided)
        );
    }
    if step.unfinished > 0 {
        text += &format!(
            "still open, on its way or waiting for a person: {}\n",
            charges(step.unfinished)
        );
    }
    match step.next {
        Some(next) => text += &format!("next due date: {}, at {}\n", next.due_on, next.due_at),
        None if step.is == SubscriptionStatus::Active => {
            text += "nothing is left to charge; it will be completed\n";
        }
        None => {}
    }
    text
}

fn charges(number: u64) -> String {
    format!("{number} charge{}", if number == 1 { "" } else { "s" })
}
