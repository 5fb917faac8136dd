//! `cykl charge`: what was to be paid, what became of it, and what people decide about it.

mod checklist;
mod decide;
mod settle;
mod show;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::cli::context::Context;
use crate::cli::output::{self, OutputArgs, Row};
use crate::cli::{Exit, Outcome};
use crate::domain::charge::ChargeState;
use crate::domain::shop::ShopName;
use crate::store::books::{ChargeFilter, ListedCharge};
use crate::store::people::Instruction;

/// What to do with charges.
#[derive(Debug, Subcommand)]
pub enum ChargeCommand {
    /// List charges, the newest first
    List(ListArgs),
    /// Show a charge with its attempts, why they stand where they stand, what was told about it, and what can be decided
    Show(show::ShowArgs),
    /// Name the transaction that was found at imoje; imoje is asked about it, and its answer counts
    Settle(settle::SettleArgs),
    /// Declare that imoje never had the debit in doubt; two people have to, not before 100 hours
    DeclareAbsent(decide::DecideArgs),
    /// Give up a charge that is held or in doubt; only news from imoje changes that again
    WriteOff(decide::DecideArgs),
    /// Make a charge that is held because it is late
    Approve(decide::DecideArgs),
    /// Try a charge again that waits for its retry, failed, or was held because of something that is mended
    RetryNow(decide::DecideArgs),
}

/// Arguments of `cykl charge list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only charges in this state
    #[arg(long, value_name = "STATE", value_parser = state_parser())]
    state: Option<ChargeState>,
    /// Only charges of this shop
    #[arg(long, value_name = "NAME")]
    shop: Option<ShopName>,
    /// Only charges of this subscription, by its id or by what the shop calls it
    #[arg(long, value_name = "ID")]
    subscription: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) async fn run(command: &ChargeCommand, context: &Context) -> Outcome {
    match command {
        ChargeCommand::List(args) => list(args, context).await,
        ChargeCommand::Show(args) => show::run(args, context).await,
        ChargeCommand::Settle(args) => settle::run(args, context).await,
        ChargeCommand::DeclareAbsent(args) => {
            let absent_after = context.config.absent_after;
            decide::run(args, Instruction::DeclareAbsent { absent_after }, context).await
        }
        ChargeCommand::WriteOff(args) => decide::run(args, Instruction::WriteOff, context).await,
        ChargeCommand::Approve(args) => decide::run(args, Instruction::Approve, context).await,
        ChargeCommand::RetryNow(args) => decide::run(args, Instruction::RetryNow, context).await,
    }
}

impl Row for ListedCharge {
    const FIELDS: &'static [&'static str] = &[
        "charge_id",
        "subscription_id",
        "external_id",
        "shop",
        "period_no",
        "due_on",
        "due_at",
        "amount_minor",
        "currency",
        "state",
        "attempts",
        "next_action_at",
        "paid_at",
        "last_status_code",
        "transaction_id",
        "reason",
    ];
    const SHOWN: &'static [&'static str] = &[
        "charge_id",
        "external_id",
        "shop",
        "due_on",
        "amount_minor",
        "currency",
        "state",
        "reason",
        "attempts",
        "next_action_at",
    ];
}

async fn list(args: &ListArgs, context: &Context) -> Outcome {
    let filter = ChargeFilter {
        state: args.state,
        shop: args.shop.clone(),
        subscription: args.subscription.clone(),
    };
    context
        .with_store(async |store| {
            let charges = store.list_charges(&filter, args.limit).await?;
            output::list(args.output.output, &charges)?;
            if u32::try_from(charges.len()).is_ok_and(|listed| listed == args.limit) {
                eprintln!(
                    "only the newest {} are listed; --limit N lists more",
                    args.limit
                );
            }
            Ok(Exit::Ok)
        })
        .await
}

fn state_parser() -> impl TypedValueParser<Value = ChargeState> {
    PossibleValuesParser::new(ChargeState::ALL.map(state_name))
        .try_map(|name| serde_json::from_value(Value::String(name)))
}

/// How a state is spelt in the database and in JSON.
fn state_name(state: ChargeState) -> &'static str {
    match state {
        ChargeState::Planned => "planned",
        ChargeState::InFlight => "in_flight",
        ChargeState::Paid => "paid",
        ChargeState::RetryWait => "retry_wait",
        ChargeState::Failed => "failed",
        ChargeState::Held => "held",
        ChargeState::Skipped => "skipped",
        ChargeState::Void => "void",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_named_as_they_are_shown() {
        for state in ChargeState::ALL {
            let shown = serde_json::to_value(state).unwrap();
            assert_eq!(shown, state_name(state));
        }
    }
}
