//! `cykl charge show`: the story of one charge, what a person can do to find out its outcome when that is unknown, and what can be
//! decided.

use std::fmt::Write;

use chrono::{DateTime, Utc};
use clap::Args;
use serde::Serialize;

use super::checklist::{self, Prospect};
use super::decide;
use crate::cli::context::Context;
use crate::cli::output::{self, Format, OutputArgs, Row};
use crate::cli::{CliError, Exit, Outcome};
use crate::domain::attempt::AttemptState;
use crate::domain::id::ChargeId;
use crate::store::books::{ChargeStory, ListedAttempt, ListedEvent, ListedEvidence};
use crate::store::people::RulingError;
use crate::store::refunds::ListedRefund;

/// Arguments of `cykl charge show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The charge, by its id
    #[arg(value_name = "CHARGE")]
    charge: ChargeId,
    #[command(flatten)]
    output: OutputArgs,
}

impl Row for ListedAttempt {
    const FIELDS: &'static [&'static str] = &[
        "attempt_id",
        "attempt_no",
        "order_id",
        "state",
        "transaction_id",
        "status_code",
        "decline",
        "amount_minor",
        "currency",
        "permitted_at",
        "deadline_at",
        "decided_at",
        "next_poll_at",
        "case_opened_at",
        "card_masked",
    ];
    const SHOWN: &'static [&'static str] = &[
        "attempt_no",
        "order_id",
        "state",
        "status_code",
        "decline",
        "permitted_at",
        "decided_at",
        "next_poll_at",
        "transaction_id",
    ];
}

impl Row for ListedEvidence {
    const FIELDS: &'static [&'static str] = &[
        "evidence_id",
        "attempt_id",
        "kind",
        "verdict",
        "http_status",
        "error_code",
        "gateway_status",
        "status_code",
        "transaction_id",
        "detail",
        "actor",
        "recorded_at",
    ];
    const SHOWN: &'static [&'static str] = &[
        "recorded_at",
        "kind",
        "verdict",
        "http_status",
        "error_code",
        "gateway_status",
        "status_code",
        "detail",
        "actor",
    ];
}

impl Row for ListedEvent {
    const FIELDS: &'static [&'static str] =
        &["event_id", "sequence_no", "kind", "occurred_at", "payload"];
    const SHOWN: &'static [&'static str] = &["occurred_at", "sequence_no", "kind"];
}

impl Row for ListedRefund {
    const FIELDS: &'static [&'static str] = &[
        "refund_id",
        "attempt_id",
        "origin",
        "amount_minor",
        "currency",
        "state",
        "transaction_id",
        "actor",
        "reason",
        "permitted_at",
        "decided_at",
        "case_opened_at",
    ];
    const SHOWN: &'static [&'static str] = &[
        "permitted_at",
        "amount_minor",
        "currency",
        "state",
        "origin",
        "actor",
        "reason",
        "transaction_id",
    ];
}

/// A charge with what can be decided about it.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    story: &'a ChargeStory,
    decisions: &'a [Prospect],
}

pub(super) async fn run(args: &ShowArgs, context: &Context) -> Outcome {
    context
        .with_store(async |store| {
            let story = store
                .charge_story(args.charge)
                .await?
                .ok_or_else(|| CliError::no(format!("there is no charge {}", args.charge)))?;
            let decisions = match store.charge_case(args.charge).await {
                Ok(found) => checklist::prospects(args.charge, &found.case, context),
                // What is in the archive is over.
                Err(RulingError::Archived(_) | RulingError::Missing(_)) => Vec::new(),
                Err(error) => return Err(decide::refused(error, args.charge)),
            };
            match args.output.output {
                Format::Json => output::json(&Shown {
                    story: &story,
                    decisions: &decisions,
                })?,
                Format::Csv => output::list(Format::Csv, std::slice::from_ref(&story.charge))?,
                Format::Table => {
                    output::write(tell(&story, &decisions, context)?.as_bytes())?;
                }
            }
            Ok(Exit::Ok)
        })
        .await
}

fn tell(
    story: &ChargeStory,
    decisions: &[Prospect],
    context: &Context,
) -> Result<String, CliError> {
    let width = output::width();
    let mut text = output::fields(&story.charge, width)?;
    let mut section =
        |title: &str, table: String| write!(text, "\n{title}\n{table}").map_err(CliError::internal);
    if !story.attempt_list.is_empty() {
        section("ATTEMPTS", output::table(&story.attempt_list, width)?)?;
    }
    if !story.refunds.is_empty() {
        section("REFUNDS", output::table(&story.refunds, width)?)?;
    }
    if !story.evidence.is_empty() {
        section("EVIDENCE", output::table(&story.evidence, width)?)?;
    }
    if !story.events.is_empty() {
        section("EVENTS", output::table(&story.events, width)?)?;
    }
    for attempt in &story.attempt_list {
        if is_unknown(attempt, context.now()) {
            section("WHAT TO DO", checklist::questions(story, attempt, context))?;
        }
    }
    if !decisions.is_empty() {
        let zone = checklist::zone(story, context);
        let commands = checklist::decisions(decisions, zone, context.now())?;
        section("WHAT CAN BE DECIDED", commands)?;
    }
    Ok(text)
}

/// Whether nobody knows what became of an attempt, and no answer can come by itself any more.
fn is_unknown(attempt: &ListedAttempt, now: DateTime<Utc>) -> bool {
    match attempt.state {
        AttemptState::InDoubt => attempt.deadline_at <= now,
        AttemptState::Pending => attempt.case_opened_at.is_some(),
        AttemptState::NotSent
        | AttemptState::Refused
        | AttemptState::Settled
        | AttemptState::Rejected
        | AttemptState::Absent
        | AttemptState::Surplus => false,
    }
}
