//! `cykl audit`: proves the promise from the books, or names what contradicts it; and compares them with what imoje exported.
//! Nothing is changed.

pub mod sheet;

mod against;

use chrono::{DateTime, Utc};
use clap::Args;
use serde::Serialize;
use uuid::Uuid;

use against::{Against, AgainstArgs};

use crate::cli::context::Context;
use crate::cli::output::{self, Format, OutputArgs, Row};
use crate::cli::{CliError, Exit, Outcome};
use crate::store::audit::Check;

/// Arguments of `cykl audit`.
#[derive(Debug, Args)]
#[command(after_long_help = against::AFTER_LONG_HELP)]
pub struct AuditArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    against: AgainstArgs,
}

/// What was checked, and what was found.
#[derive(Debug, Serialize)]
struct Audit {
    audited_at: DateTime<Utc>,
    is_clean: bool,
    checks: Vec<Check>,
    #[serde(skip_serializing_if = "Option::is_none")]
    against: Option<Against>,
}

/// A check, as it is listed.
#[derive(Debug, Serialize)]
struct CheckRow {
    result: String,
    check: &'static str,
    claim: &'static str,
}

impl Row for CheckRow {
    const FIELDS: &'static [&'static str] = &["result", "check", "claim"];
    const SHOWN: &'static [&'static str] = Self::FIELDS;
}

/// A finding, as it is listed.
#[derive(Debug, Serialize)]
struct FindingRow {
    check: &'static str,
    subscription_id: Option<Uuid>,
    charge_id: Option<Uuid>,
    attempt_id: Option<Uuid>,
    detail: String,
}

impl Row for FindingRow {
    const FIELDS: &'static [&'static str] = &[
        "check",
        "subscription_id",
        "charge_id",
        "attempt_id",
        "detail",
    ];
    const SHOWN: &'static [&'static str] = Self::FIELDS;
}

pub(super) async fn run(args: &AuditArgs, context: &Context) -> Outcome {
    // Before the database is opened: a file with mistakes is told at once.
    let read = args.against.read(context)?;
    let audited_at = context.now();
    context
        .with_store(async |store| {
            let (checks, against) = match read {
                Some(read) => {
                    let (checks, unseen) = store
                        .audit_against(&read.export, &read.coverage, audited_at)
                        .await?;
                    (checks, Some(Against::new(read, unseen)))
                }
                None => (store.audit(audited_at).await?, None),
            };
            let audit = Audit {
                audited_at,
                is_clean: checks.iter().all(|check| check.findings.is_empty()),
                checks,
                against,
            };
            print(args.output.output, &audit)?;
            Ok(if audit.is_clean { Exit::Ok } else { Exit::No })
        })
        .await
}

fn print(format: Format, audit: &Audit) -> Result<(), CliError> {
    match format {
        Format::Json => output::json(audit),
        Format::Csv => output::list(format, &findings(&audit.checks)),
        Format::Table => {
            let width = output::width();
            let mut text = output::table(&checks(&audit.checks), width)?;
            match (audit.is_clean, &audit.against) {
                (true, None) => text.push_str("\nnothing found: the books keep the promise\n"),
                (true, Some(against)) if !against.is_whole() => text.push_str(
                    "\nnothing found: the books keep the promise, and the export agrees with them as far as it goes\n",
                ),
                (true, Some(_)) => text.push_str(
                    "\nnothing found: the books keep the promise, and the export agrees with them\n",
                ),
                (false, _) => {
                    text.push('\n');
                    text.push_str(&output::table(&findings(&audit.checks), width)?);
                }
            }
            if let Some(against) = &audit.against {
                text.push('\n');
                text.push_str(&against.told());
            }
            output::write(text.as_bytes())
        }
    }
}

fn checks(checks: &[Check]) -> Vec<CheckRow> {
    let result = |check: &Check| match (check.findings.len(), check.has_more) {
        (0, _) => "ok".to_owned(),
        (found, false) => format!("{found} found"),
        (found, true) => format!("over {found} found"),
    };
    checks
        .iter()
        .map(|check| CheckRow {
            result: result(check),
            check: check.check,
            claim: check.claim,
        })
        .collect()
}

fn findings(checks: &[Check]) -> Vec<FindingRow> {
    checks
        .iter()
        .flat_map(|check| {
            check.findings.iter().map(|finding| FindingRow {
                check: check.check,
                subscription_id: finding.subscription_id,
                charge_id: finding.charge_id,
                attempt_id: finding.attempt_id,
                detail: finding.detail.clone(),
            })
        })
        .collect()
}
