//! `cykl charge show`: the story of one charge, and, when its outcome is unknown, what a person can do to find it out.

use std::fmt::Write;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use chrono_tz::Tz;
use clap::Args;

use crate::cli::context::Context;
use crate::cli::output::{self, Format, OutputArgs, Row};
use crate::cli::{CliError, Exit, Outcome};
use crate::domain::attempt::AttemptState;
use crate::domain::id::ChargeId;
use crate::domain::money;
use crate::store::books::{ChargeStory, ListedAttempt, ListedEvent, ListedEvidence};

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

pub(super) async fn run(args: &ShowArgs, context: &Context) -> Outcome {
    context
        .with_store(async |store| {
            let story = store
                .charge_story(args.charge)
                .await?
                .ok_or_else(|| CliError::no(format!("there is no charge {}", args.charge)))?;
            match args.output.output {
                Format::Json => output::json(&story)?,
                Format::Csv => output::list(Format::Csv, std::slice::from_ref(&story.charge))?,
                Format::Table => output::write(tell(&story, context)?.as_bytes())?,
            }
            Ok(Exit::Ok)
        })
        .await
}

fn tell(story: &ChargeStory, context: &Context) -> Result<String, CliError> {
    let width = output::width();
    let mut text = output::fields(&story.charge, width)?;
    let mut section =
        |title: &str, table: String| write!(text, "\n{title}\n{table}").map_err(CliError::internal);
    if !story.attempt_list.is_empty() {
        section("ATTEMPTS", output::table(&story.attempt_list, width)?)?;
    }
    if !story.evidence.is_empty() {
        section("EVIDENCE", output::table(&story.evidence, width)?)?;
    }
    if !story.events.is_empty() {
        section("EVENTS", output::table(&story.events, width)?)?;
    }
    for attempt in &story.attempt_list {
        if attempt.state == AttemptState::InDoubt && attempt.deadline_at <= context.now() {
            section("WHAT TO DO", checklist(story, attempt, context))?;
        }
    }
    Ok(text)
}

/// imoje's panel may show a transaction under the time at which it arrived there, by another clock.
const SEARCH_MARGIN: TimeDelta = TimeDelta::minutes(15);

/// What a person looks for in imoje's panel (design, "Unknown outcomes"). The address of the panel is not ours to know.
fn checklist(story: &ChargeStory, attempt: &ListedAttempt, context: &Context) -> String {
    let shop = &story.charge.shop;
    let configured = context.config.shops.get(shop);
    let zone = configured.map_or(Tz::UTC, |shop| shop.timezone);
    let place = configured.map_or_else(
        || format!("shop {shop}, which is not configured any more"),
        |configured| {
            format!(
                "shop {shop}: {}, service {}",
                configured.environment, configured.service_id
            )
        },
    );
    let answers_until = attempt.permitted_at + context.config.policy.resolver.answer_window;
    let next = attempt.next_poll_at.map_or_else(
        || "The period was written off. A late notice still settles the charge by itself.".to_owned(),
        |at| {
            let written_off_at = attempt.permitted_at + context.config.policy.resolver.write_off_after;
            format!(
                "Otherwise Cykl looks again at {}, and writes the period off at {}: a lost instalment is cheaper than a double debit.",
                local(at, zone),
                local(written_off_at, zone),
            )
        },
    );
    format!(
        "Nobody knows whether this attempt moved money. Nothing more is sent for the charge until that is known.\n\
         \x20 1. Open imoje's panel for {place}.\n\
         \x20 2. Search the transactions for the order id {order_id}\n\
         \x20    amount  {amount}\n\
         \x20    card    {card}\n\
         \x20    time    {from} to {to} ({zone})\n\
         \x20    Without a hit, search again by amount, card and time: the order id is the only proof, they only help to find it.\n\
         \x20 3. Found: write down its transaction id and its status. A notice about it, even a late one, settles the charge by itself.\n\
         \x20    Not found: it may yet appear; imoje repeats its notices until {answers_until}.\n\
         {next}\n",
        order_id = attempt.order_id,
        amount = money::format_minor(attempt.amount_minor, attempt.currency),
        card = attempt.card_masked.as_deref().unwrap_or("not known"),
        from = local(attempt.permitted_at - SEARCH_MARGIN, zone),
        to = local(attempt.deadline_at + SEARCH_MARGIN, zone),
        answers_until = local(answers_until, zone),
    )
}

fn local(at: DateTime<Utc>, zone: Tz) -> String {
    at.with_timezone(&zone)
        .to_rfc3339_opts(SecondsFormat::Secs, false)
}
