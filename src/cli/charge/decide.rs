//! `cykl charge declare-absent`, `write-off`, `approve` and `retry-now`: what a person decides because nobody else can.
//!
//! Deciding what is decided already succeeds and says so; what the rules do not allow is the command's own "no".

use chrono::{DateTime, Utc};
use clap::Args;

use crate::cli::context::Context;
use crate::cli::{CliError, Exit, Outcome, ReasonArgs, decider, kept_reason, output};
use crate::domain::id::ChargeId;
use crate::store::people::{Effect, Instruction, Ruled, RulingError};
use crate::store::status::By;

/// Arguments of `cykl charge declare-absent`, `write-off`, `approve` and `retry-now`.
#[derive(Debug, Args)]
pub struct DecideArgs {
    /// The charge, by its id
    #[arg(value_name = "CHARGE")]
    charge: ChargeId,
    #[command(flatten)]
    reason: ReasonArgs,
}

pub(super) async fn run(args: &DecideArgs, instruction: Instruction, context: &Context) -> Outcome {
    let by = By {
        actor: decider(context)?,
        reason: kept_reason(&args.reason.reason)?,
    };
    context
        .with_store(async |store| {
            let now = context.now();
            let ruled = store
                .rule(args.charge, instruction, by, &context.config.policy, now)
                .await
                .map_err(|error| {
                    refused(error, args.charge).context(format!(
                        "charge {} cannot be {}",
                        args.charge,
                        participle(instruction)
                    ))
                })?;
            let text = match ruled.effect {
                Effect::Nothing => nothing(args.charge, instruction, ruled),
                Effect::Noted => noted(args.charge, by.actor),
                Effect::Done => done(args.charge, ruled, now),
            };
            output::write(text.as_bytes())?;
            Ok(Exit::Ok)
        })
        .await
}

/// Why nothing was done.
pub(super) fn refused(error: RulingError, charge_id: ChargeId) -> CliError {
    match error {
        RulingError::Refused(_) => CliError::new(Exit::No, error).hint(format!(
            "\"cykl charge show {charge_id}\" tells what can be decided, and when"
        )),
        RulingError::Missing(_) | RulingError::Archived(_) => CliError::new(Exit::No, error),
        RulingError::Store(error) => error.into(),
    }
}

const fn participle(instruction: Instruction) -> &'static str {
    match instruction {
        Instruction::DeclareAbsent { .. } => "declared absent",
        Instruction::WriteOff => "written off",
        Instruction::Approve => "approved",
        Instruction::RetryNow => "retried",
    }
}

fn nothing(charge_id: ChargeId, instruction: Instruction, ruled: Ruled) -> String {
    let absent = match instruction {
        Instruction::DeclareAbsent { .. } => "its last attempt is absent and ",
        Instruction::WriteOff | Instruction::Approve | Instruction::RetryNow => "",
    };
    let due = ruled.next_action_at.map_or_else(String::new, |at| {
        format!(", due at {}", output::instant(at))
    });
    format!(
        "charge {charge_id}: {absent}it is {} already{due}; nothing was changed\n",
        ruled.charge.as_str()
    )
}

fn noted(charge_id: ChargeId, actor: &str) -> String {
    format!(
        "noted: {actor} declares that imoje never had the debit in doubt of charge {charge_id}\n\
         a second person has to declare it as well; until then nothing is sent:\n\
         \x20 cykl charge declare-absent {charge_id} --reason TEXT --actor NAME\n",
        actor = output::visible(actor),
    )
}

fn done(charge_id: ChargeId, ruled: Ruled, now: DateTime<Utc>) -> String {
    let is = ruled.charge.as_str();
    let next = match ruled.next_action_at {
        Some(at) if at > now => format!(
            "it goes out at {} at the earliest, with a new order id\n",
            output::instant(at)
        ),
        Some(_) => {
            "it goes out with a new order id as soon as the brake, the limits and the card's budgets allow\n"
                .to_owned()
        }
        None => "nothing more is sent for it; if imoje says later that its money moved, it becomes paid\n"
            .to_owned(),
    };
    format!("charge {charge_id} is {is} now\n{next}")
}
