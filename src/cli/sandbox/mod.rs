//! `cykl check --sandbox`: what imoje's documents leave open, asked of a sandbox account. `docs/sandbox.md` tells what is asked and why.
//!
//! It debits a card, more than once under one order id, which Cykl never does otherwise: a shop with real money is refused before
//! anything is sent. It knows neither the database nor the subscriptions, and nothing that it finds changes what Cykl does.

mod answers;
mod ear;
mod experiments;
pub mod report;
mod scrub;
mod words;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use clap::Args;
use secrecy::SecretString;
use url::Url;
use uuid::Uuid;

use crate::cli::context::Context;
use crate::cli::{CliError, Exit, daemon};
use crate::config::ShopConfig;
use crate::domain::fields::{validate_notification_url, validate_profile_id};
use crate::domain::id::ProfileId;
use crate::domain::money::{Currency, Money};
use crate::domain::order_id::TrialOrderId;
use crate::domain::shop::ShopName;
use crate::gateway::{
    ClientConfig, NoticeCredentials, Service, TrialClient, TrialError, registration_url,
};
use answers::see_again;
use ear::Ear;
use experiments::{Cards, Lab};
use report::{Again, FORMAT, Report, Seen, SeenAgain};
use scrub::Secrets;

/// What is debited, unless the shop's channel takes only more: 1.00.
const AMOUNT_MINOR: i64 = 100;

/// A token that imoje gave to nobody.
const WRONG_TOKEN: &str = "cykl-experiment-wrong-token";

/// How long the id of a merchant is (imoje FRONT API).
const MERCHANT_ID_LENGTH: usize = 20;

/// The longest report that is read again.
const REPORT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Arguments of `cykl check --sandbox`.
#[derive(Debug, Clone, Default, Args)]
pub struct TrialArgs {
    /// With --sandbox: the shop [default: the only one]
    #[arg(long, value_name = "NAME", requires = "sandbox")]
    pub shop: Option<ShopName>,

    /// With --sandbox: the stored test card that is debited, up to a dozen times
    #[arg(long, value_name = "UUID", requires = "sandbox")]
    pub payment_profile_id: Option<ProfileId>,

    /// With --sandbox: a stored test card whose debits are declined
    #[arg(long, value_name = "UUID", requires = "payment_profile_id")]
    pub declined_payment_profile_id: Option<ProfileId>,

    /// With --sandbox: a stored test card that is inactive
    #[arg(long, value_name = "UUID", requires = "payment_profile_id")]
    pub inactive_payment_profile_id: Option<ProfileId>,

    /// With --sandbox: write what was found to FILE, which must not exist
    #[arg(long, value_name = "FILE", requires = "sandbox")]
    pub report: Option<PathBuf>,

    /// With --sandbox: read the transactions of an earlier report again
    #[arg(long, value_name = "REPORT", requires = "sandbox")]
    pub again: Option<PathBuf>,
}

/// Makes the experiments, and writes the report if it is to be written.
///
/// # Errors
/// [`CliError`] when nothing was sent: the shop has real money, the arguments make no sense, imoje cannot be reached, or the report cannot
/// be written. When only the last writing failed, which says so.
pub async fn run(args: &TrialArgs, context: &Context) -> Result<Report, CliError> {
    let cards = cards(args)?;
    let (name, shop) = context.shop(args.shop.as_ref())?;
    let config = daemon::client_config(&context.config, shop);
    let client = client(&config, shop)
        .map_err(|error| error.context(format!("couldn't try out the shop {name}")))?;
    let earlier = args.again.as_deref().map(read).transpose()?;
    if let Some(earlier) = &earlier {
        is_of_this_shop(earlier, shop)?;
    }
    let service = client.service().await?;
    let clock_ahead_seconds = service
        .sent_at
        .filter(|_| context.clock.is_system())
        .map(|sent_at| (sent_at - context.now()).num_seconds());
    let (amount, other_amount) = amounts(&service)?;
    let file = args.report.as_deref().map(create).transpose()?;
    let began_at = context.now();
    let run = Uuid::new_v4();
    let again = match &earlier {
        Some(earlier) => Some(look_again(&client, context, earlier).await),
        None => None,
    };
    let mut report = Report {
        clock_ahead_seconds,
        again,
        ..empty(name, shop, run, began_at)
    };
    if let Some(cards) = cards {
        let mut lab = Lab {
            with_wrong_token: strange(&config, shop, |config| {
                config.token = SecretString::from(WRONG_TOKEN);
            })?,
            with_other_merchant: strange(&config, shop, |config| {
                config.merchant_id = Uuid::new_v4().simple().to_string();
                config.merchant_id.truncate(MERCHANT_ID_LENGTH);
            })?,
            client,
            clock: &context.clock,
            secrets: Secrets::of(shop),
            run,
            amount,
            other_amount,
            ear: ear(context, name, &report.order_ids).await,
            orders: 0,
            made: Vec::new(),
        };
        let found = lab.try_out(cards).await;
        report.timing = Some(found.timing);
        report.repeats = found.repeats;
        report.wrong = found.wrong;
        report.transactions = found.transactions;
    }
    report.ended_at = context.now();
    if let Some((file, path)) = file {
        write(&report, file, path)?;
    }
    Ok(report)
}

fn empty(name: &ShopName, shop: &ShopConfig, run: Uuid, began_at: DateTime<Utc>) -> Report {
    Report {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        shop: name.clone(),
        environment: shop.environment,
        base_url: shop.base_url.clone(),
        service_id: shop.service_id,
        order_ids: TrialOrderId::prefix(run),
        began_at,
        ended_at: began_at,
        clock_ahead_seconds: None,
        timing: None,
        repeats: Vec::new(),
        wrong: Vec::new(),
        transactions: Vec::new(),
        again: None,
    }
}

/// The cards to debit; none, when only an earlier report is read again.
fn cards(args: &TrialArgs) -> Result<Option<Cards>, CliError> {
    let Some(good) = args.payment_profile_id else {
        return if args.again.is_some() {
            Ok(None)
        } else {
            Err(CliError::usage("there is nothing to try out").hint(
                "say which test card is debited with --payment-profile-id UUID, or which report is read again with --again REPORT",
            ))
        };
    };
    let cards = Cards {
        good,
        declined: args.declined_payment_profile_id,
        inactive: args.inactive_payment_profile_id,
    };
    let all = [Some(cards.good), cards.declined, cards.inactive];
    for card in all.into_iter().flatten() {
        validate_profile_id(card).map_err(|error| CliError::new(Exit::Usage, error))?;
    }
    Ok(Some(cards))
}

fn client(config: &ClientConfig, shop: &ShopConfig) -> Result<TrialClient, CliError> {
    TrialClient::new(config.clone(), shop.environment).map_err(|error| {
        let is_production = error == TrialError::Production;
        let error = CliError::config(error);
        if is_production {
            error.hint("take a configuration with the account of imoje's sandbox")
        } else {
            error
        }
    })
}

/// A client whose requests imoje should refuse.
fn strange(
    config: &ClientConfig,
    shop: &ShopConfig,
    change: impl FnOnce(&mut ClientConfig),
) -> Result<TrialClient, CliError> {
    let mut config = config.clone();
    change(&mut config);
    client(&config, shop)
}

/// The amount to debit, and another.
fn amounts(service: &Service) -> Result<(Money, Money), CliError> {
    if service.is_online() == Some(false) {
        return Err(CliError::no(
            "imoje says that the shop, or its channel for recurring payments, is off line: nothing can be tried out",
        ));
    }
    let channels = service.recurring.as_deref().unwrap_or_default();
    let channel = channels
        .iter()
        .find(|channel| channel.currency.is_none_or(|own| own == Currency::Pln))
        .or(channels.first());
    let (currency, least) = channel.map_or((Currency::Pln, 1), |channel| {
        let currency = channel.currency.unwrap_or(Currency::Pln);
        (currency, *channel.amounts().start())
    });
    let minor = least.max(AMOUNT_MINOR);
    let money = |minor| Money::new(minor, currency).map_err(|error| CliError::new(Exit::No, error));
    Ok((money(minor)?, money(minor + 1)?))
}

/// Listens for notices where imoje would reach the daemon; or says why that is not possible.
async fn ear(context: &Context, name: &ShopName, order_ids: &str) -> Result<(Ear, Url), String> {
    let http = &context.config.http;
    let Some(public_url) = &http.public_url else {
        return Err("http.public_url is not set".to_owned());
    };
    let url = registration_url(public_url);
    validate_notification_url(url.as_str()).map_err(|error| error.to_string())?;
    let credentials = credentials(context, name).ok_or("the shop has no key")?;
    Ear::open(http.listen, credentials, order_ids, &context.clock)
        .await
        .map(|ear| (ear, url))
        .map_err(|error| format!("couldn't listen on {}: {error}", http.listen))
}

fn credentials(context: &Context, name: &ShopName) -> Option<NoticeCredentials> {
    let doors = daemon::doors(&context.config);
    let door = doors.iter().find(|door| door.shop == *name)?;
    Some(door.credentials.clone())
}

async fn look_again(client: &TrialClient, context: &Context, earlier: &Report) -> Again {
    let before: Vec<Seen> = last_seen(earlier);
    let now = see_again(client, &context.clock, &before).await;
    let pairs = before.into_iter().zip(now);
    Again {
        order_ids: earlier.order_ids.clone(),
        seen_at: earlier.ended_at,
        transactions: pairs
            .map(|(before, now)| SeenAgain {
                before: before.status,
                now,
            })
            .collect(),
    }
}

/// The transactions of a report as it saw them: those that it made, and those that it looked at again.
fn last_seen(report: &Report) -> Vec<Seen> {
    let again = report.again.iter().flat_map(|again| &again.transactions);
    let again = again.map(|seen| &seen.now);
    report.transactions.iter().chain(again).cloned().collect()
}

fn is_of_this_shop(earlier: &Report, shop: &ShopConfig) -> Result<(), CliError> {
    if (earlier.service_id, &earlier.base_url) == (shop.service_id, &shop.base_url) {
        Ok(())
    } else {
        Err(CliError::usage(format!(
            "the report is about another account: the service {} at {}",
            earlier.service_id, earlier.base_url
        )))
    }
}

/// Reads an earlier report.
fn read(path: &Path) -> Result<Report, CliError> {
    let attempted = || format!("couldn't read the report {}", path.display());
    let bad_data = |error: anyhow::Error| CliError::bad_data(error).context(attempted());
    let size = std::fs::metadata(path).map_err(|error| bad_data(error.into()))?;
    if size.len() > REPORT_BYTES_MAX {
        return Err(bad_data(anyhow::anyhow!("it is too long for one")));
    }
    let bytes = std::fs::read(path).map_err(|error| bad_data(error.into()))?;
    let report: Report = serde_json::from_slice(&bytes).map_err(|error| bad_data(error.into()))?;
    if report.format == FORMAT {
        Ok(report)
    } else {
        let format = report.format;
        Err(bad_data(anyhow::anyhow!(
            "it has the format {format}, and this version reads {FORMAT}"
        )))
    }
}

/// Creates the file for the report before anything is sent, so that nothing is found out in vain.
fn create(path: &Path) -> Result<(File, &Path), CliError> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| CliError::new(Exit::Usage, error).context(not_written(path)))?;
    Ok((file, path))
}

fn write(report: &Report, mut file: File, path: &Path) -> Result<(), CliError> {
    let mut json = serde_json::to_vec_pretty(report).map_err(CliError::internal)?;
    json.push(b'\n');
    file.write_all(&json)
        .and_then(|()| file.sync_all())
        .map_err(|error| CliError::internal(error).context(not_written(path)))
}

fn not_written(path: &Path) -> String {
    format!("couldn't write the report {}", path.display())
}
