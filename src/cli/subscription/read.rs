//! `cykl subscription list` and `show`.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::cli::context::Context;
use crate::cli::output::{self, Format, OutputArgs, Row};
use crate::cli::subscription::Which;
use crate::cli::{Exit, Outcome};
use crate::domain::shop::ShopName;
use crate::domain::subscription::SubscriptionStatus;
use crate::store::subscriptions::{Filter, SubscriptionRow};

/// Arguments of `cykl subscription list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only those in this status
    #[arg(long, value_name = "STATUS", value_parser = status())]
    status: Option<SubscriptionStatus>,

    /// Only those of this shop
    #[arg(long, value_name = "NAME")]
    shop: Option<ShopName>,

    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,

    #[command(flatten)]
    output: OutputArgs,
}

/// Arguments of `cykl subscription show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    which: Which,

    #[command(flatten)]
    output: OutputArgs,
}

impl Row for SubscriptionRow {
    const FIELDS: &'static [&'static str] = &[
        "subscription_id",
        "external_id",
        "shop",
        "status",
        "status_reason",
        "cid",
        "payment_profile_id",
        "amount_minor",
        "currency",
        "period",
        "anchor_date",
        "timezone",
        "next_charge_on",
        "next_due_at",
        "charges_paid",
        "created_at",
        "first_transaction_id",
    ];
    const SHOWN: &'static [&'static str] = &[
        "external_id",
        "shop",
        "status",
        "amount_minor",
        "currency",
        "period",
        "next_charge_on",
        "charges_paid",
    ];
}

pub(super) async fn list(args: &ListArgs, context: &Context) -> Outcome {
    context
        .with_store(async |store| {
            // One more than is shown, to know whether there are more.
            let filter = Filter {
                status: args.status,
                shop: args.shop.clone(),
                limit: args.limit.saturating_add(1),
            };
            let mut rows = store.list_subscriptions(&filter).await?;
            let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
            let has_more = rows.len() > limit;
            rows.truncate(limit);
            output::list(args.output.output, &rows)?;
            if has_more {
                eprintln!("there are more than {limit}; --limit N prints more of them");
            }
            Ok(Exit::Ok)
        })
        .await
}

pub(super) async fn show(args: &ShowArgs, context: &Context) -> Outcome {
    context
        .with_store(async |store| print(&args.which.find(store).await?, args.output.output))
        .await
}

/// Prints one subscription.
pub(super) fn print(row: &SubscriptionRow, format: Format) -> Outcome {
    match format {
        Format::Table => output::write(output::fields(row, output::width())?.as_bytes())?,
        Format::Json => output::json(row)?,
        Format::Csv => output::list(format, std::slice::from_ref(row))?,
    }
    Ok(Exit::Ok)
}

fn status() -> impl TypedValueParser<Value = SubscriptionStatus> {
    PossibleValuesParser::new(SubscriptionStatus::ALL.map(SubscriptionStatus::as_str)).try_map(
        |text| {
            SubscriptionStatus::ALL
                .into_iter()
                .find(|status| status.as_str() == text)
                .ok_or("is not a status")
        },
    )
}
