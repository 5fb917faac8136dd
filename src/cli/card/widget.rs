//! `cykl card widget`: the signed HTML of imoje's card widget, for shops that embed it.

use chrono::{DateTime, Utc};
use clap::Args;
use serde_json::Value;

use super::ShopArgs;
use crate::cli::context::Context;
use crate::cli::{CliError, Exit, Outcome, output};
use crate::config::Gateway;
use crate::domain::money::{Currency, Money};
use crate::domain::shop::Environment;
use crate::gateway::{WidgetHost, WidgetOrder, WidgetShop};

/// Arguments of `cykl card widget`.
#[derive(Debug, Args)]
pub struct WidgetArgs {
    /// The shop's own order id of the payment
    #[arg(long, value_name = "ID")]
    order_id: String,
    /// How much the payer pays with it, in minor units
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=Money::CHARGE_MINOR_MAX))]
    amount_minor: i64,
    /// PLN, EUR, USD, GBP, CHF, SEK, HUF, CZK, BGN or RON
    #[arg(long, value_name = "CODE")]
    currency: Currency,
    /// Under which name imoje stores the card: one card, one cid
    #[arg(long, value_name = "CID")]
    cid: String,
    /// Who pays, as {"firstName": .., "lastName": .., "email": ..}
    #[arg(long, value_name = "JSON", value_parser = json)]
    customer: Value,
    /// What the payer reads
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// Where the payer goes once it is paid
    #[arg(long, value_name = "URL")]
    success_url: Option<String>,
    /// Where the payer goes when it failed
    #[arg(long, value_name = "URL")]
    failure_url: Option<String>,
    /// Where the payer goes when the outcome is open
    #[arg(long, value_name = "URL")]
    return_url: Option<String>,
    /// Where the payer goes after giving up
    #[arg(long, value_name = "URL")]
    cancel_url: Option<String>,
    /// Until when it can be paid
    #[arg(long, value_name = "TIME")]
    valid_to: Option<DateTime<Utc>>,
    /// Open it in the element imoje-widget__wrapper of the page
    #[arg(long)]
    inline: bool,
    #[command(flatten)]
    shop: ShopArgs,
}

fn json(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(text)
}

pub(super) fn run(args: &WidgetArgs, context: &Context) -> Outcome {
    let (name, shop) = context.shop(args.shop.shop.as_ref())?;
    let host = match (shop.environment, shop.gateway) {
        (Environment::Simulator, _) => {
            let error = format!("shop {name} is simulated, and the simulator has no widget");
            return Err(CliError::usage(error).hint("a shop of the environment sandbox has one"));
        }
        (_, Gateway::Axepta) => {
            let error = format!("shop {name} is Axepta's, whose documents know no such widget");
            return Err(CliError::usage(error).hint("`cykl card register` makes a link instead"));
        }
        (Environment::Production, Gateway::Imoje) => WidgetHost::Production,
        (Environment::Sandbox, Gateway::Imoje) => WidgetHost::Sandbox,
        (Environment::Production, Gateway::IngPay) => WidgetHost::IngPay,
        (Environment::Sandbox, Gateway::IngPay) => WidgetHost::IngPaySandbox,
    };
    let order = WidgetOrder {
        order_id: args.order_id.clone(),
        amount: Money::new(args.amount_minor, args.currency)
            .map_err(|error| CliError::usage(error.to_string()))?,
        cid: args.cid.clone(),
        customer: args.customer.clone(),
        title: args.title.clone(),
        success_url: args.success_url.clone(),
        failure_url: args.failure_url.clone(),
        return_url: args.return_url.clone(),
        cancel_url: args.cancel_url.clone(),
        valid_to: args.valid_to,
        is_inline: args.inline,
    };
    let html = order
        .html(WidgetShop {
            host,
            merchant_id: &shop.merchant_id,
            service_id: shop.service_id,
            service_key: &shop.service_key,
        })
        .map_err(CliError::bad_data)?;
    output::write(html.as_bytes())?;
    Ok(Exit::Ok)
}
