//! `cykl refund`: gives money back, whole or in part, once for each order, and never more than was taken.

use clap::Args;

use crate::cli::context::Context;
use crate::cli::{CliError, Exit, Outcome, ReasonArgs, daemon, decider, kept_reason, output};
use crate::domain::attempt::AttemptState;
use crate::domain::fields::validate_title;
use crate::domain::id::ChargeId;
use crate::domain::money::Money;
use crate::store::refunds::RecordedRefund;
use crate::store::status::By;
use crate::workers::refunder::{RefundError, Refunded, Refunder, Wanted};

/// Arguments of `cykl refund`.
#[derive(Debug, Args)]
pub struct RefundArgs {
    /// The charge, by its id
    #[arg(value_name = "CHARGE")]
    charge: ChargeId,
    /// How much, in minor units [default: all that can still go back]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=Money::CHARGE_MINOR_MAX))]
    amount_minor: Option<i64>,
    /// Of this attempt, by its number, for a charge whose money was taken twice
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    attempt: Option<i16>,
    /// What the payer may read about it
    #[arg(long, value_name = "TEXT", value_parser = title)]
    title: Option<String>,
    /// Let imoje write to the payer once the money went back
    #[arg(long)]
    confirm_by_email: bool,
    /// Declare that imoje never had the refund in doubt, not before 100 hours; imoje is asked once more
    #[arg(long, conflicts_with_all = ["amount_minor", "attempt", "title", "confirm_by_email"])]
    absent: bool,
    #[command(flatten)]
    reason: ReasonArgs,
}

fn title(text: &str) -> Result<String, String> {
    validate_title(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

pub(super) async fn run(args: &RefundArgs, context: &Context) -> Outcome {
    let by = By {
        actor: decider(context)?,
        reason: kept_reason(&args.reason.reason)?,
    };
    context
        .with_store(async |store| {
            let fence_id = store
                .look_at_fence(&context.shop_identities())
                .await?
                .ok_or_else(|| CliError::no("nothing was ever charged from this database"))?;
            let refunder = daemon::refunder(&context.config, store, &context.clock, fence_id)
                .map_err(CliError::config)?;
            let (text, exit) = if args.absent {
                declare_absent(args, &refunder, by).await?
            } else {
                refund(args, &refunder, by).await?
            };
            output::write(text.as_bytes())?;
            Ok(exit)
        })
        .await
}

async fn refund(
    args: &RefundArgs,
    refunder: &Refunder,
    by: By<'_>,
) -> Result<(String, Exit), CliError> {
    let wanted = Wanted {
        charge_id: args.charge,
        attempt_no: args.attempt,
        amount_minor: args.amount_minor,
        title: args.title.as_deref(),
        is_confirmed_by_email: args.confirm_by_email,
        by,
    };
    let refunded = refunder.refund(wanted).await.map_err(|error| {
        refused(error).context(format!("couldn't refund charge {}", args.charge))
    })?;
    Ok(told(args.charge, &refunded))
}

async fn declare_absent(
    args: &RefundArgs,
    refunder: &Refunder,
    by: By<'_>,
) -> Result<(String, Exit), CliError> {
    let recorded = refunder
        .declare_absent(args.charge, by)
        .await
        .map_err(|error| {
            refused(error).context(format!(
                "the refund of charge {} cannot be declared absent",
                args.charge
            ))
        })?;
    let text = format!(
        "refund {} is {}\n",
        recorded.refund_id,
        recorded.state.as_str()
    );
    let is_absent = recorded.state == AttemptState::Absent;
    if is_absent {
        return Ok((text, Exit::Ok));
    }
    Ok((
        format!("imoje lists it, so it is not absent\n{text}"),
        Exit::No,
    ))
}

/// What became of it, and whether it is what was wanted.
fn told(charge_id: ChargeId, refunded: &Refunded) -> (String, Exit) {
    let RecordedRefund {
        refund_id,
        state,
        brake,
        ..
    } = &refunded.recorded;
    let amount = refunded.amount;
    let order_id = &refunded.order_id;
    let refusal = refunded
        .refusal
        .as_deref()
        .map_or_else(String::new, |why| format!(" ({})", output::visible(why)));
    let (line, exit) = match state {
        AttemptState::Settled => (format!("{amount} of {order_id} went back"), Exit::Ok),
        AttemptState::Pending => (
            format!("{amount} of {order_id} is on its way back; Cykl asks imoje until it is there"),
            Exit::Ok,
        ),
        AttemptState::InDoubt => (
            format!(
                "the answer about {amount} of {order_id} is lost{refusal}: it may have gone back. Cykl looks for it at imoje; \
                 \"cykl charge show {charge_id}\" tells"
            ),
            Exit::TryAgain,
        ),
        AttemptState::Refused | AttemptState::NotSent | AttemptState::Rejected => (
            format!(
                "nothing of {order_id} went back: the refund is {}{refusal}",
                state.as_str()
            ),
            Exit::No,
        ),
        AttemptState::Absent | AttemptState::Surplus => {
            (format!("the refund is {}", state.as_str()), Exit::No)
        }
    };
    let incident = brake.map_or_else(String::new, |reason| {
        format!("this contradicts the books ({reason}): all charging is stopped until somebody has looked into it\n")
    });
    let exit = if brake.is_some() { Exit::No } else { exit };
    (format!("{line}\nrefund {refund_id}\n{incident}"), exit)
}

/// Why nothing went back.
fn refused(error: RefundError) -> CliError {
    match error {
        RefundError::Store(error) => error.into(),
        RefundError::NoCharge(_)
        | RefundError::NothingTaken(_)
        | RefundError::NotTaken(_)
        | RefundError::NothingLeft(_)
        | RefundError::TooMuch { .. }
        | RefundError::NotRefundable { .. }
        | RefundError::NotShown { .. }
        | RefundError::NoDoubt(_) => CliError::new(Exit::No, error),
        RefundError::SeveralTaken(_) => {
            CliError::new(Exit::Usage, error).hint("say which with --attempt N")
        }
        RefundError::Amount(_) => CliError::new(Exit::Usage, error),
        RefundError::UnknownShop(_) => CliError::config(error),
        RefundError::InDoubt { .. } => CliError::new(Exit::TryAgain, error).hint(
            "Cykl looks for it at imoje; after 100 hours it can be declared absent with --absent",
        ),
        RefundError::TooEarly(at) => CliError::new(Exit::TryAgain, error)
            .hint(format!("ask again after {}", output::instant(at))),
        RefundError::Unreachable(_) | RefundError::Unconfirmed(_) => {
            CliError::unavailable(error).hint("nothing went back; try again later")
        }
        RefundError::NotRecorded { .. } | RefundError::Forgotten(_) => {
            CliError::unavailable(error).hint("do not repeat it: it is looked for at imoje")
        }
    }
}
