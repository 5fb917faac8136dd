//! `cykl subscription ...`: storing subscriptions, looking at them, and stopping them.

mod add;
mod channels;
mod import;
mod read;
mod schedule;
mod step;

pub mod sheet;

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use clap::{Args, Subcommand};

use crate::cli::context::Context;
use crate::cli::{CliError, GlobalArgs, Outcome, daemon};
use crate::domain::enrolment::{Circumstances, shown};
use crate::domain::id::SubscriptionId;
use crate::domain::shop::ShopName;
use crate::store::Store;
use crate::store::subscriptions::SubscriptionRow;
use crate::workers::shops::ShopCalendar;

/// What to do with subscriptions.
#[derive(Debug, Subcommand)]
pub enum SubscriptionCommand {
    /// Store the subscriptions of a CSV file, all of them or none
    Import(import::ImportArgs),
    /// Store one subscription
    Add(Box<add::AddArgs>),
    /// List subscriptions
    List(read::ListArgs),
    /// Show one subscription
    Show(read::ShowArgs),
    /// Stop charging for a while; periods that fall due meanwhile are never charged
    Pause(step::StepArgs),
    /// Go on after a pause, with the next period that falls due
    Resume(step::StepArgs),
    /// End a subscription for good
    Cancel(step::StepArgs),
    /// Print the next due dates of a subscription, or of one that does not exist yet
    Schedule(Box<schedule::ScheduleArgs>),
}

/// Which subscription.
#[derive(Debug, Clone, Args)]
pub struct Which {
    /// Its id, or the shop's own name for it (external_id)
    #[arg(value_name = "ID|EXTERNAL_ID")]
    name: String,

    /// Its shop, when several have a subscription of that name
    #[arg(long, value_name = "NAME")]
    shop: Option<ShopName>,
}

pub(super) async fn run(command: &SubscriptionCommand, global: &GlobalArgs) -> Outcome {
    if let SubscriptionCommand::Schedule(args) = command
        && let Some(preview) = args.preview()
    {
        return preview;
    }
    let context = Context::new(global)?;
    match command {
        SubscriptionCommand::Import(args) => import::run(args, &context).await,
        SubscriptionCommand::Add(args) => add::run(args, &context).await,
        SubscriptionCommand::List(args) => read::list(args, &context).await,
        SubscriptionCommand::Show(args) => read::show(args, &context).await,
        SubscriptionCommand::Pause(args) => step::run(args, step::Kind::Pause, &context).await,
        SubscriptionCommand::Resume(args) => step::run(args, step::Kind::Resume, &context).await,
        SubscriptionCommand::Cancel(args) => step::run(args, step::Kind::Cancel, &context).await,
        SubscriptionCommand::Schedule(args) => schedule::run(args, &context).await,
    }
}

impl Which {
    /// The one subscription that is meant.
    pub(in crate::cli) async fn find(&self, store: &Store) -> Result<SubscriptionRow, CliError> {
        let name = shown(&self.name).unwrap_or_else(|| "of that name".to_owned());
        let mut found = store
            .find_subscriptions(&self.name, self.shop.as_ref())
            .await?;
        match (found.pop(), found.is_empty()) {
            (Some(one), true) => Ok(one),
            (Some(last), false) => {
                let mut shops: Vec<_> = found.iter().map(|row| row.shop.as_str()).collect();
                shops.push(last.shop.as_str());
                let shops = shops.join(", ");
                Err(CliError::usage(format!(
                    "there are several subscriptions {name}: in {shops}"
                ))
                .hint("say which with --shop NAME, or give the id"))
            }
            (None, _) => {
                let place = match &self.shop {
                    Some(shop) => format!(" in shop {shop}"),
                    None => String::new(),
                };
                Err(CliError::no(format!(
                    "there is no subscription {name}{place}"
                )))
            }
        }
    }
}

/// What descriptions are read against: the shops of the configuration with what imoje takes for each, and `shop` for those that name
/// none.
async fn circumstances(
    context: &Context,
    shop: Option<&ShopName>,
    is_without_card: bool,
    now: DateTime<Utc>,
) -> Result<Circumstances, CliError> {
    let shops: BTreeMap<ShopName, Tz> = context
        .config
        .shops
        .iter()
        .map(|(name, shop)| (name.clone(), shop.timezone))
        .collect();
    let usual_shop = match shop {
        Some(shop) if !shops.contains_key(shop) => {
            let names: Vec<_> = shops.keys().map(ShopName::as_str).collect();
            return Err(CliError::usage(format!(
                "there is no shop {shop} in the configuration; allowed: {}",
                names.join(", ")
            )));
        }
        Some(shop) => Some(shop.clone()),
        None if shops.len() == 1 => shops.keys().next().cloned(),
        None => None,
    };
    Ok(Circumstances {
        shops,
        usual_shop,
        channels: channels::ask(context).await?,
        plain_cards: context
            .config
            .shops
            .iter()
            .filter(|(_, shop)| shop.return_urls.is_some())
            .map(|(name, _)| name.clone())
            .collect(),
        has_card_proxy: context.config.gateway.card_proxy_url.is_some(),
        is_without_card,
        now,
    })
}

/// When the charges of each configured shop fall due.
struct Calendars(BTreeMap<ShopName, ShopCalendar>);

impl Calendars {
    fn of(context: &Context) -> Self {
        let shops = context.config.shops.iter();
        Self(
            shops
                .map(|(name, shop)| (name.clone(), daemon::calendar(shop)))
                .collect(),
        )
    }

    /// The calendar of a stored subscription's shop.
    fn get(&self, shop: &ShopName) -> Result<ShopCalendar, CliError> {
        self.0.get(shop).copied().ok_or_else(|| {
            CliError::config(anyhow::anyhow!(
                "shop {shop} is not in the configuration, so nobody knows at what time it charges"
            ))
        })
    }

    /// When a new subscription is due first. Its shop was found in the configuration.
    fn due_at(
        &self,
        subscription_id: SubscriptionId,
        shop: &ShopName,
        zone: Tz,
        date: NaiveDate,
    ) -> DateTime<Utc> {
        self.0
            .get(shop)
            .expect("descriptions name shops of the configuration")
            .due_at(subscription_id, zone, date)
    }
}
