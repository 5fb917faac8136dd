//! `cykl status`: how things stand, on one screen.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;

use crate::cli::brake::{self, BrakeRow};
use crate::cli::context::Context;
use crate::cli::output::{self, Format, OutputArgs, Row};
use crate::cli::{CliError, Exit, Outcome};
use crate::store::Store;

use crate::store::installation::FenceError;
use crate::store::situation::{Adoption, Situation, StatusCount, WorkerRun};

/// How things stand.
#[derive(Debug, Serialize)]
struct Status {
    at: DateTime<Utc>,
    /// `open`, `new` (nothing ever charged from this database) or `closed`.
    fence: &'static str,
    fence_detail: Option<String>,
    adoption: Option<Adoption>,
    brakes: Vec<BrakeRow>,
    #[serde(flatten)]
    situation: Situation,
    subscriptions: Vec<StatusCount>,
    workers: Vec<WorkerRun>,
}

impl Row for Situation {
    const FIELDS: &'static [&'static str] = &[
        "planned",
        "in_flight",
        "retry_wait",
        "held",
        "failed",
        "in_doubt",
        "pending",
        "oldest_due_at",
        "next_due_at",
        "paid_24h",
        "declined_24h",
        "failed_24h",
        "notices_new",
        "outbox_pending",
    ];
    const SHOWN: &'static [&'static str] = Self::FIELDS;
}

impl Row for StatusCount {
    const FIELDS: &'static [&'static str] = &["status", "subscriptions"];
    const SHOWN: &'static [&'static str] = Self::FIELDS;
}

impl Row for WorkerRun {
    const FIELDS: &'static [&'static str] =
        &["worker", "last_started_at", "last_ended_at", "handled"];
    const SHOWN: &'static [&'static str] = Self::FIELDS;
}

/// A figure by name, as CSV lists it.
#[derive(Debug, Serialize)]
struct Figure {
    figure: &'static str,
    value: Value,
}

impl Row for Figure {
    const FIELDS: &'static [&'static str] = &["figure", "value"];
    const SHOWN: &'static [&'static str] = Self::FIELDS;
}

pub(super) async fn run(args: OutputArgs, context: &Context) -> Outcome {
    context
        .with_store(async |store| {
            let status = read(store, context).await?;
            match args.output {
                Format::Json => output::json(&status)?,
                Format::Csv => output::list(Format::Csv, &figures(&status.situation)?)?,
                Format::Table => output::write(tell(&status)?.as_bytes())?,
            }
            Ok(Exit::Ok)
        })
        .await
}

async fn read(store: &Store, context: &Context) -> Result<Status, CliError> {
    let at = context.now();
    let (fence, fence_detail) = match store.look_at_fence(&context.shop_identities()).await {
        Ok(Some(_)) => ("open", None),
        Ok(None) => ("new", None),
        Err(error @ (FenceError::Moved { .. } | FenceError::OtherShop { .. })) => {
            ("closed", Some(error.to_string()))
        }
        Err(FenceError::Store(error)) => return Err(error.into()),
    };
    Ok(Status {
        at,
        fence,
        fence_detail,
        adoption: store.adoption().await?,
        brakes: brake::rows(store.brakes().await?),
        situation: store.situation(at).await?,
        subscriptions: store.count_subscriptions().await?,
        workers: store.worker_runs().await?,
    })
}

fn figures(situation: &Situation) -> Result<Vec<Figure>, CliError> {
    let values = serde_json::to_value(situation).map_err(CliError::internal)?;
    Ok(Situation::FIELDS
        .iter()
        .map(|figure| Figure {
            figure,
            value: values.get(figure).cloned().unwrap_or(Value::Null),
        })
        .collect())
}

fn tell(status: &Status) -> Result<String, CliError> {
    let width = output::width();
    let fence = match (&status.fence_detail, &status.adoption) {
        (Some(detail), _) => format!("{}: {detail}", status.fence),
        (None, Some(adoption)) => format!(
            "{}, adopted by {} at {}: {}",
            status.fence,
            adoption.adopted_by,
            output::instant(adoption.adopted_at),
            adoption.reason
        ),
        (None, None) => format!(
            "{}: nothing was ever charged from this database",
            status.fence
        ),
    };
    let sections = [
        ("FENCE", format!("{}\n", output::visible(&fence))),
        ("BRAKE", output::table(&status.brakes, width)?),
        ("CHARGES", output::fields(&status.situation, width)?),
        (
            "SUBSCRIPTIONS",
            output::table(&status.subscriptions, width)?,
        ),
        ("WORKERS", output::table(&status.workers, width)?),
    ];
    Ok(sections
        .map(|(title, text)| format!("{title}\n{text}"))
        .join("\n"))
}
