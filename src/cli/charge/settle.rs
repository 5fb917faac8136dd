//! `cykl charge settle`: gives Cykl the id of a transaction that a person found at imoje. imoje is asked about it, and only its
//! answer counts.

use clap::Args;

use crate::cli::context::Context;
use crate::cli::{CliError, Exit, Outcome, ReasonArgs, daemon, decider, kept_reason, output};
use crate::domain::id::{ChargeId, TransactionId};
use crate::store::status::By;
use crate::workers::resolver::{SettleError, Settled};

/// Arguments of `cykl charge settle`.
#[derive(Debug, Args)]
pub struct SettleArgs {
    /// The charge, by its id
    #[arg(value_name = "CHARGE")]
    charge: ChargeId,
    /// imoje's id of the transaction, as its panel shows it
    #[arg(long, value_name = "ID")]
    transaction: TransactionId,
    #[command(flatten)]
    reason: ReasonArgs,
}

pub(super) async fn run(args: &SettleArgs, context: &Context) -> Outcome {
    let by = By {
        actor: decider(context)?,
        reason: kept_reason(&args.reason.reason)?,
    };
    context
        .with_store(async |store| {
            let resolver =
                daemon::lone_resolver(&context.config, store).map_err(CliError::config)?;
            let settled = resolver
                .settle(args.charge, args.transaction, by, context.now())
                .await
                .map_err(|error| refused(error, args.charge))?;
            output::write(told(args.charge, &settled).as_bytes())?;
            let is_incident = settled.recorded.brake.is_some();
            Ok(if is_incident { Exit::No } else { Exit::Ok })
        })
        .await
}

fn refused(error: SettleError, charge_id: ChargeId) -> CliError {
    let is_away = match &error {
        SettleError::Unreachable(_) => true,
        SettleError::NotShown { http_status, .. } => {
            matches!(http_status, 408 | 429 | 500..=599)
        }
        SettleError::Charge(_)
        | SettleError::NothingSent
        | SettleError::PaidByLink
        | SettleError::UnknownShop(_)
        | SettleError::Differs(_) => false,
    };
    let error = match error {
        SettleError::Charge(error) => super::decide::refused(error, charge_id),
        SettleError::Unreachable(_) | SettleError::NotShown { .. } if is_away => {
            CliError::unavailable(error).hint("nothing was changed; ask again later")
        }
        SettleError::UnknownShop(_) => CliError::config(error),
        SettleError::PaidByLink => CliError::new(Exit::TryAgain, error),
        SettleError::NothingSent
        | SettleError::Unreachable(_)
        | SettleError::NotShown { .. }
        | SettleError::Differs(_) => CliError::new(Exit::No, error).hint("nothing was changed"),
    };
    error.context(format!("couldn't settle charge {charge_id}"))
}

fn told(charge_id: ChargeId, settled: &Settled) -> String {
    let recorded = &settled.recorded;
    let is_known = recorded.attempt_became.is_none()
        && recorded.charge_became.is_none()
        && recorded.brake.is_none();
    let known = if is_known {
        "that was known already; nothing was changed\n"
    } else {
        ""
    };
    let incident = recorded.brake.map_or_else(String::new, |reason| {
        format!(
            "this contradicts the books ({reason}): all charging is stopped until somebody has looked into it\n"
        )
    });
    format!(
        "imoje says {} about {}\n{known}the attempt is {}, charge {charge_id} is {}\n{incident}",
        output::visible(&settled.gateway_status),
        settled.order_id,
        recorded.attempt.as_str(),
        recorded.charge.as_str(),
    )
}
