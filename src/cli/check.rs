//! `cykl check`: would the daemon start, and would imoje listen to it? Nothing is charged, and the books are not
//! changed; an embedded database is started, and created when it is missing.
//!
//! Fit for a monitoring system: one line per check, and an exit code. 0: nothing failed, whatever was warned of. 78: the
//! configuration, the schema or the fence needs a person. 69: the database or a gateway is not there. 1: anything else.
//!
//! With `--sandbox` it does something else: see [`sandbox`].

use std::collections::BTreeSet;

use chrono::{DateTime, Months, Offset, TimeZone, Utc};
use chrono_tz::Tz;
use clap::Args;

use crate::cli::context::{Context, Database};
use crate::cli::{CliError, Exit, Outcome, daemon, journal, output, sandbox};
use crate::config::ShopConfig;
use crate::domain::channel::Channel;
use crate::domain::money::Currency;
use crate::domain::shop::ShopName;
use crate::gateway::Service;
use crate::store::brakes::{ALL_SHOPS, BrakeMode};
use crate::store::installation::FenceError;
use crate::store::zones::ZoneOffset;
use crate::store::{Store, StoreError};

/// Arguments of `cykl check`.
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_LONG_HELP)]
pub struct CheckArgs {
    /// Look at the configuration alone: neither the database nor the gateway is asked
    #[arg(long)]
    offline: bool,

    /// Try out an account of imoje's sandbox instead: debit a test card, and tell what imoje does where its documents are silent
    #[arg(long, conflicts_with = "offline")]
    sandbox: bool,

    #[command(flatten)]
    trial: sandbox::TrialArgs,
}

const AFTER_LONG_HELP: &str = "\
With --sandbox neither the database nor a subscription is touched, and a shop whose environment is production is refused. The test card is
debited 1.00 up to a dozen times, some of them under one order id; it takes up to five minutes. Notices are waited for when http.public_url is
set and no daemon listens. docs/sandbox.md tells what is asked and what follows from the findings.

  cykl check --sandbox --payment-profile-id UUID --report FILE
  cykl check --sandbox --again FILE                              some days later: has `rejected` changed?";

/// What the checks said.
#[derive(Debug, Default)]
struct Report {
    text: String,
    failures: Vec<Exit>,
}

impl Report {
    fn line(&mut self, verdict: &str, what: &str, detail: &str) {
        let detail = output::visible(detail);
        self.text
            .push_str(&format!("{verdict:<4}  {what}: {detail}\n"));
    }

    fn ok(&mut self, what: &str, detail: &str) {
        self.line("OK", what, detail);
    }

    fn warn(&mut self, what: &str, detail: &str) {
        self.line("WARN", what, detail);
    }

    fn fail(&mut self, what: &str, detail: &str, exit: Exit) {
        self.line("FAIL", what, detail);
        self.failures.push(exit);
    }

    fn failed(&mut self, what: &str, error: &CliError) {
        self.fail(what, &error.to_string().replace('\n', "; "), error.exit());
    }

    /// The most telling failure: what a person must mend before what may mend itself.
    fn exit(&self) -> Exit {
        [Exit::Config, Exit::Unavailable]
            .into_iter()
            .find(|exit| self.failures.contains(exit))
            .unwrap_or(if self.failures.is_empty() {
                Exit::Ok
            } else {
                Exit::No
            })
    }
}

pub(super) async fn run(args: &CheckArgs, context: &Context) -> Outcome {
    if args.sandbox {
        let report = sandbox::run(&args.trial, context).await?;
        output::write(report.to_string().as_bytes())?;
        return Ok(report.exit());
    }
    let mut report = Report::default();
    configuration(context, &mut report);
    if !args.offline {
        match context.connect().await {
            Ok(database) => {
                report.ok("database", "it answers");
                let checked = books(context, &database, &mut report).await;
                let closed = database.close().await;
                for outcome in [checked, closed] {
                    if let Err(error) = outcome {
                        report.failed("database", &error);
                    }
                }
            }
            Err(error) => report.failed("database", &error),
        }
        for (name, shop) in &context.config.shops {
            gateway(context, name, shop, &mut report).await;
        }
    }
    output::write(report.text.as_bytes())?;
    Ok(report.exit())
}

/// Every setting with where it came from. A configuration with mistakes never gets here.
fn configuration(context: &Context, report: &mut Report) {
    let settings = context.config.describe();
    for setting in settings {
        let line = format!("{} = {}  ({})", setting.key, setting.value, setting.origin);
        report
            .text
            .push_str(&format!("{}\n", output::visible(&line)));
    }
    report.text.push('\n');
    for warning in context.config.warnings() {
        report.warn("configuration", &warning.to_string());
    }
    report.ok(
        "configuration",
        &format!("{} settings in force", settings.len()),
    );
}

async fn books(
    context: &Context,
    database: &Database,
    report: &mut Report,
) -> Result<(), CliError> {
    let store = &database.store;
    match store.check_schema().await {
        Ok(()) => report.ok("schema", "of this version"),
        Err(error @ StoreError::SchemaVersion { .. }) => {
            // What follows reads tables that may not be there.
            report.fail("schema", &error.to_string(), Exit::Config);
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    }
    match store.look_at_fence(&context.shop_identities()).await {
        Ok(Some(_)) => report.ok("fence", "charging was allowed here"),
        Ok(None) => report.ok(
            "fence",
            "new: the first start of the daemon allows charging here",
        ),
        Err(error @ (FenceError::Moved { .. } | FenceError::OtherShop { .. })) => {
            report.fail("fence", &error.to_string(), Exit::Config);
        }
        Err(FenceError::Store(error)) => return Err(error.into()),
    }
    permit_journal(context, store, report).await?;
    brakes(store, report).await?;
    zones(context, store, report).await
}

async fn permit_journal(
    context: &Context,
    store: &Store,
    report: &mut Report,
) -> Result<(), CliError> {
    if context.config.journal.dir.is_none() {
        return Ok(());
    }
    match journal::gap(context, store).await? {
        None => report.ok(
            "journal",
            "the database has every permit that it names last",
        ),
        Some(gap) => report.fail("journal", &gap.to_string(), Exit::Config),
    }
    Ok(())
}

async fn brakes(store: &Store, report: &mut Report) -> Result<(), CliError> {
    for brake in store.brakes().await? {
        let whose = if brake.shop == ALL_SHOPS {
            "all shops"
        } else {
            &brake.shop
        };
        let detail = format!(
            "{} for {whose} since {}, by {}: {}",
            brake.mode.as_str(),
            output::instant(brake.changed_at),
            brake.actor,
            brake.reason
        );
        match brake.mode {
            BrakeMode::Run if brake.stage.is_some() => {
                report.warn("brake", &format!("{detail}; charging starts slowly"));
            }
            BrakeMode::Run => report.ok("brake", &detail),
            BrakeMode::Drain | BrakeMode::Stop => report.warn("brake", &detail),
        }
    }
    Ok(())
}

/// PostgreSQL has time zone tables of its own; local dates in views would differ from those of charges.
async fn zones(context: &Context, store: &Store, report: &mut Report) -> Result<(), CliError> {
    let zones: BTreeSet<String> = context
        .config
        .shops
        .values()
        .map(|shop| shop.timezone.name().to_owned())
        .collect();
    let zones: Vec<String> = zones.into_iter().collect();
    let now = context.now();
    let instants = [now, now + Months::new(6)];
    for seen in store.zone_offsets(&zones, &instants).await? {
        let ours = our_offset(&seen);
        let what = format!("time zone {}", seen.zone);
        let day = seen.at.date_naive();
        match seen.offset_seconds {
            Some(theirs) if Some(theirs) == ours => {
                report.ok(&what, &format!("the database agrees about {day}"));
            }
            Some(_) => report.fail(
                &what,
                &format!("the database has another local time on {day}: update its time zone data, or Cykl"),
                Exit::No,
            ),
            None => report.fail(
                &what,
                "the database does not know it: update its time zone data",
                Exit::No,
            ),
        }
    }
    Ok(())
}

fn our_offset(seen: &ZoneOffset) -> Option<i64> {
    let zone: Tz = seen.zone.parse().ok()?;
    let at: DateTime<Utc> = seen.at;
    let offset = zone.offset_from_utc_datetime(&at.naive_utc()).fix();
    Some(i64::from(offset.local_minus_utc()))
}

async fn gateway(context: &Context, name: &ShopName, shop: &ShopConfig, report: &mut Report) {
    let what = format!("gateway of {name}");
    let client = match daemon::client(&context.config, shop) {
        Ok(client) => client,
        Err(error) => return report.fail(&what, &error.to_string(), Exit::Config),
    };
    match client.service().await {
        Ok(service) => verdict(&what, &service, report),
        Err(error) => {
            let exit = CliError::from(error.clone()).exit();
            report.fail(&what, &format!("{error} ({})", shop.base_url), exit);
        }
    }
}

fn verdict(what: &str, service: &Service, report: &mut Report) {
    if service.is_active == Some(false) {
        return report.fail(what, "imoje says that the shop is not active", Exit::No);
    }
    match (service.is_online(), service.recurring.as_deref()) {
        (Some(false), Some([])) => report.fail(
            what,
            "imoje lists no channel for recurring payments; it has to be turned on for this shop",
            Exit::No,
        ),
        (Some(false), _) => report.fail(
            what,
            "imoje says that the channel for recurring payments is off line",
            Exit::No,
        ),
        (Some(true), _) => report.ok(what, "the credentials are accepted, recurring payments are on line"),
        (None, _) => report.warn(
            what,
            "the credentials are accepted, but imoje does not say whether recurring payments are on line",
        ),
    }
    for channel in service.recurring.iter().flatten() {
        report.ok(what, &amounts(channel));
    }
}

/// What a channel takes.
fn amounts(channel: &Channel) -> String {
    let currency = channel.currency.map_or("any currency", Currency::code);
    let amounts = channel.amounts();
    format!(
        "recurring payments in {currency} take {} to {} minor units",
        amounts.start(),
        amounts.end()
    )
}
