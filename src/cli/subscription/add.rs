//! `cykl subscription add`: one subscription, by the rules of the import.

use clap::Args;

use crate::cli::context::Context;
use crate::cli::output::OutputArgs;
use crate::cli::subscription::import::told;
use crate::cli::subscription::{Calendars, circumstances, read};
use crate::cli::{CliError, Outcome, ReasonArgs, kept_reason};
use crate::domain::enrolment::{Column, Fields, NewSubscription, enrol};
use crate::store::enrolment::{EnrolError, Telling};
use crate::store::status::By;
use crate::store::subscriptions::SubscriptionRow;
use crate::store::{Store, StoreError};

/// Arguments of `cykl subscription add`. They are the columns of the import.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// Your own name for the subscription; once per shop (required)
    #[arg(long, value_name = "TEXT")]
    external_id: Option<String>,

    /// The card, as imoje knows it (required)
    #[arg(long, value_name = "CID")]
    cid: Option<String>,

    /// imoje's id of the stored card (required, or first-transaction-id)
    #[arg(long, value_name = "UUID")]
    payment_profile_id: Option<String>,

    /// Of a card without a profile, instead: what imoje shows as firstTransactionId
    #[arg(long, value_name = "ID")]
    first_transaction_id: Option<String>,

    /// Of a card without a profile: who pays, as {"firstName": .., "lastName": .., "email": ..}
    #[arg(long, value_name = "JSON")]
    customer: Option<String>,

    /// Of a card without a profile: further members of the card as aliases that gateway.card_proxy_url knows, never a card number
    #[arg(long, value_name = "JSON")]
    card: Option<String>,

    /// Without a card: nothing is charged until "cykl card register" has led the payer to register one
    #[arg(long)]
    without_card: bool,

    /// The amount of every charge in minor units: 1999 is 19.99 (required)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    amount_minor: Option<String>,

    /// PLN, EUR, USD, GBP, CHF, SEK, HUF, CZK, BGN or RON (required)
    #[arg(long, value_name = "CODE")]
    currency: Option<String>,

    /// P7D, P2W, P1M, P3M, P1Y: at most one year (required)
    #[arg(long, value_name = "PERIOD")]
    period: Option<String>,

    /// When period 0 is due; every due date is counted from it (required)
    #[arg(long, value_name = "DATE")]
    anchor_date: Option<String>,

    /// The shop, when there are several
    #[arg(long, value_name = "NAME")]
    shop: Option<String>,

    /// What the payer reads
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,

    /// Nothing due before this date is charged
    #[arg(long, value_name = "DATE")]
    starts_on: Option<String>,

    /// Nothing due after this date is charged
    #[arg(long, value_name = "DATE")]
    ends_on: Option<String>,

    /// How many periods there are, whoever charged them
    #[arg(long, value_name = "N")]
    max_charges: Option<String>,

    /// Nothing due on or before this date is charged [default: the day before today]
    #[arg(long, value_name = "DATE")]
    paid_until: Option<String>,

    /// In which zone dates are meant [default: the shop's]
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,

    /// Where imoje sends its notices instead of to Cykl
    #[arg(long, value_name = "URL")]
    notification_url: Option<String>,

    /// The invoice that imoje issues
    #[arg(long, value_name = "JSON")]
    invoice: Option<String>,

    /// How imoje divides the money
    #[arg(long, value_name = "JSON")]
    multipayout: Option<String>,

    #[command(flatten)]
    reason: ReasonArgs,

    #[command(flatten)]
    output: OutputArgs,
}

impl AddArgs {
    fn fields(&self) -> Fields<'_> {
        Column::ALL
            .into_iter()
            .filter_map(|column| Some((column, self.text(column).as_deref()?)))
            .collect()
    }

    fn text(&self, column: Column) -> &Option<String> {
        match column {
            Column::ExternalId => &self.external_id,
            Column::Shop => &self.shop,
            Column::Cid => &self.cid,
            Column::PaymentProfileId => &self.payment_profile_id,
            Column::FirstTransactionId => &self.first_transaction_id,
            Column::Customer => &self.customer,
            Column::Card => &self.card,
            Column::AmountMinor => &self.amount_minor,
            Column::Currency => &self.currency,
            Column::Period => &self.period,
            Column::AnchorDate => &self.anchor_date,
            Column::StartsOn => &self.starts_on,
            Column::EndsOn => &self.ends_on,
            Column::MaxCharges => &self.max_charges,
            Column::PaidUntil => &self.paid_until,
            Column::Timezone => &self.timezone,
            Column::Title => &self.title,
            Column::NotificationUrl => &self.notification_url,
            Column::Invoice => &self.invoice,
            Column::Multipayout => &self.multipayout,
        }
    }
}

pub(super) async fn run(args: &AddArgs, context: &Context) -> Outcome {
    let reason = kept_reason(&args.reason.reason)?;
    let circumstances = circumstances(context, None, args.without_card, context.now()).await?;
    let new = enrol(&args.fields(), &circumstances)
        .map_err(|mistakes| refused(mistakes.iter().map(ToString::to_string)))?;
    let by = By {
        actor: &context.actor,
        reason,
    };
    context
        .with_store(async |store| {
            store
                .record_shops(&context.shop_identities(), context.now())
                .await?;
            let stored = add(new, store, by, context).await?;
            read::print(&stored, args.output.output)
        })
        .await
}

async fn add(
    new: NewSubscription,
    store: &Store,
    by: By<'_>,
    context: &Context,
) -> Result<SubscriptionRow, CliError> {
    let calendars = Calendars::of(context);
    let list = [new];
    let enrolled = store
        .enrol(&list, Telling::Everybody, by, context.now(), |id, new| {
            calendars.due_at(id, &new.shop, new.zone, new.first.due_on)
        })
        .await
        .map_err(|error| match error {
            EnrolError::Conflicts(conflicts) => {
                let [new] = &list;
                refused(conflicts.iter().map(|conflict| told(new, &conflict.with)))
            }
            EnrolError::Store(error) => error.into(),
        })?;
    let gone = || StoreError::Unexpected(sqlx::Error::RowNotFound);
    let subscription_id = enrolled.subscription_ids.first().ok_or_else(gone)?;
    let mut found = store
        .find_subscriptions(&subscription_id.to_string(), None)
        .await?;
    Ok(found.pop().ok_or_else(gone)?)
}

fn refused(mistakes: impl Iterator<Item = String>) -> CliError {
    let mistakes: Vec<String> = mistakes.collect();
    CliError::bad_data(anyhow::anyhow!(
        "nothing was stored:\n  {}",
        mistakes.join("\n  ")
    ))
}
