//! `cykl adopt`: accepts a moved, restored or copied database, after a person has seen what there is to trust.

use std::collections::BTreeSet;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use clap::Args;
use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::output::{self, Format, OutputArgs, Row};
use crate::cli::{CliError, Exit, Outcome, daemon, journal, kept_reason, one_line};
use crate::domain::money::format_minor;
use crate::domain::permit_record::PermitRecord;
use crate::domain::shop::ShopName;
use crate::store::Store;
use crate::store::adoption::{Adoption, Books, JournalNews, LostFate, LostPermit};
use crate::store::status::By;

/// Arguments of `cykl adopt`.
#[derive(Debug, Args)]
pub struct AdoptArgs {
    /// Why, for the record
    #[arg(long, value_name = "TEXT", value_parser = one_line, required_unless_present = "dry_run")]
    reason: Option<String>,

    /// Show what would be trusted, and change nothing
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    output: OutputArgs,
}

/// What there is to trust, and what became of it.
#[derive(Debug, Serialize)]
struct Trust {
    books: Books,
    journal: Option<JournalState>,
    /// Permits that the books have forgotten.
    forgotten: Vec<Forgotten>,
    #[serde(skip_serializing_if = "Option::is_none")]
    adoption: Option<Adoption>,
}

/// The permit journal, as far as it is there.
#[derive(Debug, Serialize)]
struct JournalState {
    dir: PathBuf,
    last_permit_at: Option<DateTime<Utc>>,
    damaged_lines: usize,
}

/// A permit that the books have forgotten, as it is listed.
#[derive(Debug, Serialize)]
struct Forgotten {
    order_id: String,
    shop: ShopName,
    amount: String,
    permitted_at: DateTime<Utc>,
    transaction_id: Option<String>,
    fate: Option<&'static str>,
}

impl Row for Forgotten {
    const FIELDS: &'static [&'static str] = &[
        "order_id",
        "shop",
        "amount",
        "permitted_at",
        "transaction_id",
        "fate",
    ];
    const SHOWN: &'static [&'static str] = Self::FIELDS;
}

pub(super) async fn run(args: &AdoptArgs, context: &Context) -> Outcome {
    let reason = args.reason.as_deref().map(kept_reason).transpose()?;
    context
        .with_store(async |store| {
            let (mut trust, news) = look(context, store).await?;
            match (reason, args.dry_run) {
                (Some(reason), false) => {
                    if args.output.output == Format::Table {
                        output::write(tell(&trust)?.as_bytes())?;
                    }
                    let adoption = adopt(context, store, reason, news).await?;
                    trust.forgotten = adoption.lost.iter().map(Forgotten::placed).collect();
                    trust.adoption = Some(adoption);
                    print(args.output.output, &trust)?;
                    eprintln!(
                        "adopted: daemons that run on this database have to be started again"
                    );
                }
                (None, _) | (Some(_), true) => print(args.output.output, &trust)?,
            }
            Ok(Exit::Ok)
        })
        .await
}

async fn look(context: &Context, store: &Store) -> Result<(Trust, JournalNews), CliError> {
    let books = store.describe_books().await?;
    let Some(dir) = context.config.journal.dir.clone() else {
        let trust = Trust {
            books,
            journal: None,
            forgotten: Vec::new(),
            adoption: None,
        };
        return Ok((trust, JournalNews::default()));
    };
    let found = journal::compare(dir.clone(), store).await?;
    let JournalNews { lost, named } = found.news;
    let trust = Trust {
        books,
        journal: Some(JournalState {
            dir,
            last_permit_at: found.last_permit_at,
            damaged_lines: found.damaged,
        }),
        forgotten: lost
            .iter()
            .map(|permit| Forgotten {
                transaction_id: named.get(&permit.attempt_id).map(ToString::to_string),
                ..Forgotten::of(permit)
            })
            .collect(),
        adoption: None,
    };
    Ok((trust, JournalNews { lost, named }))
}

async fn adopt(
    context: &Context,
    store: &Store,
    reason: &str,
    news: JournalNews,
) -> Result<Adoption, CliError> {
    let (shops, now) = (context.shop_identities(), context.now());
    if !news.lost.is_empty() {
        // The books catch up first, so that what was permitted finds its charge. Nothing may be sent before it has.
        store.lock_daemons_out(now).await?;
        let permitted: BTreeSet<_> = news
            .lost
            .iter()
            .map(|permit| (permit.order_id.subscription_id, permit.order_id.period_no))
            .collect();
        let scheduler = daemon::lone_scheduler(&context.config, store, permitted)
            .map_err(CliError::internal)?;
        scheduler
            .run_once(now)
            .await
            .map_err(CliError::unavailable)?;
    }
    let by = By {
        actor: &context.actor,
        reason,
    };
    let limits = daemon::limits(&context.config);
    Ok(store.adopt(&shops, by, &news, &limits, now).await?)
}

impl Forgotten {
    fn of(permit: &PermitRecord) -> Self {
        Self {
            order_id: permit.order_id.to_string(),
            shop: permit.shop.clone(),
            amount: format_minor(permit.amount_minor, permit.currency),
            permitted_at: permit.permitted_at,
            transaction_id: None,
            fate: None,
        }
    }

    fn placed(lost: &LostPermit) -> Self {
        Self {
            order_id: lost.order_id.clone(),
            shop: lost.shop.clone(),
            amount: format_minor(lost.amount_minor, lost.currency),
            permitted_at: lost.permitted_at,
            transaction_id: lost.transaction_id.map(|id| id.to_string()),
            fate: Some(lost.fate.as_str()),
        }
    }
}

fn print(format: Format, trust: &Trust) -> Result<(), CliError> {
    match (format, &trust.adoption) {
        (Format::Json, _) => output::json(trust),
        (Format::Csv, _) => output::list(format, &trust.forgotten),
        (Format::Table, None) => output::write(tell(trust)?.as_bytes()),
        (Format::Table, Some(adoption)) => {
            output::write(tell_adoption(trust, adoption)?.as_bytes())
        }
    }
}

/// What there is to trust.
fn tell(trust: &Trust) -> Result<String, CliError> {
    let books = &trust.books;
    let at = |at: Option<DateTime<Utc>>| at.map_or_else(|| "never".to_owned(), output::instant);
    let mut text = format!(
        "DATABASE\n  it is          {}\n  charged in     {}\n  last permit    {}\n  last event     {}\n  last notice    {}\n  \
         subscriptions  {}\n  open           {} charges, {} attempts\n\n",
        books.place,
        books
            .adopted_in
            .as_deref()
            .unwrap_or("none: nothing was ever charged from it"),
        at(books.last_permit_at),
        at(books.last_event_at),
        at(books.last_notice_at),
        books.subscriptions,
        books.open_charges,
        books.open_attempts,
    );
    match &trust.journal {
        None => text.push_str(
            "PERMIT JOURNAL\n  none is kept (journal.dir), so nobody knows what this database has forgotten:\n  compare it with imoje, \
             for example by \"cykl audit --against\", before it is adopted\n",
        ),
        Some(journal) => {
            text.push_str(&format!(
                "PERMIT JOURNAL\n  it is in       {}\n  last permit    {}\n  damaged lines  {}\n  forgotten      {} permits{}\n",
                output::visible(&journal.dir.display().to_string()),
                at(journal.last_permit_at),
                journal.damaged_lines,
                trust.forgotten.len(),
                if trust.forgotten.is_empty() { "" } else { ": their debits may have been made" },
            ));
            if !trust.forgotten.is_empty() {
                text.push('\n');
                text.push_str(&output::table(&trust.forgotten, output::width())?);
            }
        }
    }
    Ok(text)
}

/// What became of it.
fn tell_adoption(trust: &Trust, adoption: &Adoption) -> Result<String, CliError> {
    let mut text = format!("\nADOPTED as {}\n", adoption.fence_id);
    if trust.forgotten.is_empty() {
        return Ok(text);
    }
    text.push_str(&output::table(&trust.forgotten, output::width())?);
    let advice = |fate| match fate {
        LostFate::Restored => {
            "restored: in the books again, in doubt, until a read, a notice or a person tells what became of it"
        }
        LostFate::Superseded => {
            "superseded: a later attempt of its period was permitted, so this one had moved nothing"
        }
        LostFate::OrderIdTaken => {
            "order_id_taken: its period was charged again under the same order id; look for two debits in imoje's panel"
        }
        LostFate::Unplaced => {
            "unplaced: its subscription, card or charge is not in the books as it was; look the order up in imoje's panel. Nothing is \
             permitted for its period; adopt again when its charge waits. Store a lost subscription again with paid_until after it"
        }
    };
    let fates: BTreeSet<_> = adoption.lost.iter().map(|lost| lost.fate).collect();
    for fate in fates {
        text.push_str(&format!("  {}\n", advice(fate)));
    }
    Ok(text)
}
