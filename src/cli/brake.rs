//! `cykl brake`: the kill switch, of all shops or of one.

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::output::{self, OutputArgs, Row};
use crate::cli::{Exit, Outcome, ReasonArgs, kept_reason};
use crate::domain::shop::ShopName;
use crate::store::brakes::{ALL_SHOPS, Brake, BrakeMode};

/// What to do with the brake.
#[derive(Debug, Subcommand)]
pub enum BrakeCommand {
    /// Show every brake: who set it, when and why
    Show(OutputArgs),
    /// Send nothing: permits that were not sent yet are given back
    Stop(BrakeArgs),
    /// Give no new permits: what has one is still sent
    Drain(BrakeArgs),
    /// Charge again, slowly at first: 1 charge, then 5, then a quarter, then all
    Release(BrakeArgs),
}

/// Which brake, and why.
#[derive(Debug, Args)]
pub struct BrakeArgs {
    /// Only of this shop [default: of all shops]
    #[arg(long, value_name = "NAME")]
    shop: Option<ShopName>,
    #[command(flatten)]
    reason: ReasonArgs,
}

pub(super) async fn run(command: &BrakeCommand, context: &Context) -> Outcome {
    match command {
        BrakeCommand::Show(args) => show(args, context).await,
        BrakeCommand::Stop(args) => set(args, BrakeMode::Stop, context).await,
        BrakeCommand::Drain(args) => set(args, BrakeMode::Drain, context).await,
        BrakeCommand::Release(args) => set(args, BrakeMode::Run, context).await,
    }
}

/// A brake, as it is listed.
#[derive(Debug, Clone, Serialize)]
pub(super) struct BrakeRow {
    shop: String,
    mode: BrakeMode,
    reason: String,
    actor: String,
    changed_at: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
    stage: Option<i16>,
    stage_since: Option<DateTime<Utc>>,
    stage_max: Option<i32>,
    stage_permits: Option<i32>,
}

impl Row for BrakeRow {
    const FIELDS: &'static [&'static str] = &[
        "shop",
        "mode",
        "reason",
        "actor",
        "changed_at",
        "until",
        "stage",
        "stage_since",
        "stage_max",
        "stage_permits",
    ];
    const SHOWN: &'static [&'static str] = &[
        "shop",
        "mode",
        "reason",
        "actor",
        "changed_at",
        "until",
        "stage",
    ];
}

/// The rows of the brakes. That of all shops is always among them: while it was never set, nothing is sent.
pub(super) fn rows(brakes: Vec<Brake>) -> Vec<BrakeRow> {
    let is_set = brakes.iter().any(|brake| brake.shop == ALL_SHOPS);
    let missing = (!is_set).then(|| BrakeRow {
        shop: ALL_SHOPS.to_owned(),
        mode: BrakeMode::Stop,
        reason: "never set: the first start of the daemon releases it".to_owned(),
        actor: String::new(),
        changed_at: None,
        until: None,
        stage: None,
        stage_since: None,
        stage_max: None,
        stage_permits: None,
    });
    let set = brakes.into_iter().map(|brake| BrakeRow {
        shop: brake.shop,
        mode: brake.mode,
        reason: brake.reason,
        actor: brake.actor,
        changed_at: Some(brake.changed_at),
        until: brake.until,
        stage: brake.stage,
        stage_since: brake.stage_since,
        stage_max: brake.stage_max,
        stage_permits: brake.stage.map(|_| brake.stage_permits),
    });
    missing.into_iter().chain(set).collect()
}

async fn show(args: &OutputArgs, context: &Context) -> Outcome {
    context
        .with_store(async |store| {
            output::list(args.output, &rows(store.brakes().await?))?;
            Ok(Exit::Ok)
        })
        .await
}

async fn set(args: &BrakeArgs, mode: BrakeMode, context: &Context) -> Outcome {
    // A misspelt shop would leave the right one charging.
    if let Some(shop) = &args.shop {
        context.shop(Some(shop))?;
    }
    let reason = kept_reason(&args.reason.reason)?;
    context
        .with_store(async |store| {
            store
                .set_brake(
                    args.shop.as_ref(),
                    mode,
                    &context.actor,
                    reason,
                    context.now(),
                )
                .await?;
            let whose = args
                .shop
                .as_ref()
                .map_or_else(|| "all shops".to_owned(), |shop| format!("shop {shop}"));
            eprintln!("the brake of {whose} says {} now", mode.as_str());
            Ok(Exit::Ok)
        })
        .await
}
