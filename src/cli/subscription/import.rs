//! `cykl subscription import`: all subscriptions of a file, or none.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::context::Context;
use crate::cli::subscription::sheet::{BYTES_MAX, Fault, Sheet};
use crate::cli::subscription::{Calendars, circumstances, kept_reason};
use crate::cli::{CliError, Exit, Outcome, one_line, output};
use crate::domain::enrolment::{NewSubscription, shown};
use crate::domain::shop::ShopName;
use crate::store::Store;
use crate::store::enrolment::{Conflict, EnrolError, Stored, Telling};
use crate::store::status::By;

/// How many mistakes are printed unless all are asked for.
const FAULTS_SHOWN: usize = 50;

/// Arguments of `cykl subscription import`.
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_LONG_HELP)]
pub struct ImportArgs {
    /// The file: UTF-8, comma-separated (RFC 4180), with a header
    #[arg(value_name = "FILE.csv")]
    file: PathBuf,

    /// Check the file against the rules and the database, and store nothing
    #[arg(long)]
    dry_run: bool,

    /// The shop of rows that name none
    #[arg(long, value_name = "NAME")]
    shop: Option<ShopName>,

    /// Why, for the record [default: import of FILE.csv]
    #[arg(long, value_name = "TEXT", value_parser = one_line)]
    reason: Option<String>,

    /// Print every mistake, however many there are
    #[arg(long)]
    all_errors: bool,
}

const AFTER_LONG_HELP: &str = r#"Columns, in any order:
  external_id           your own name for the subscription; once per shop
  cid                   the card, as imoje knows it; rows may share a card: same cid, same profile
  payment_profile_id    imoje's id of the stored card
  amount_minor          the amount of every charge in minor units: 1999 is 19.99
  currency              PLN, EUR, USD, GBP, CHF, SEK, HUF, CZK, BGN or RON
  period                P7D, P2W, P1M, P3M, P1Y: at most one year
  anchor_date           when period 0 is due, like 2027-01-31; every due date is counted from it
Optional:
  shop                  its name in the configuration; needed when there are several and no --shop
  title                 what the payer reads
  starts_on, ends_on    nothing due before or after these dates is charged
  max_charges           how many periods there are, whoever charged them
  paid_until            nothing due on or before this date is charged; without it, everything
                        due before the day of import counts as paid elsewhere
  timezone              in which dates are meant, like Europe/Warsaw; the shop's unless given
  notification_url      where imoje sends its notices instead of to Cykl
  invoice, multipayout  JSON, as imoje documents them

Importing charges nobody. Every mistake is printed with its line, and then nothing is stored
(exit 65). The event of each subscription is kept in the books and not delivered to the shop."#;

pub(super) async fn run(args: &ImportArgs, context: &Context) -> Outcome {
    let reason = reason(args)?;
    let bytes = read_file(&args.file)?;
    let now = context.now();
    let circumstances = circumstances(context, args.shop.as_ref(), now)?;
    let bar = progress_bar(bytes.len(), "reading");
    let sheet = Sheet::read(&bytes, &circumstances, |read| bar.set_position(count(read)));
    bar.finish_and_clear();
    if !sheet.faults.is_empty() {
        return Err(refused(args, &sheet.faults));
    }
    let by = By {
        actor: &context.actor,
        reason: &reason,
    };
    context
        .with_store(async |store| {
            let stored = if args.dry_run {
                compare(&sheet, store).await
            } else {
                store.record_shops(&context.shop_identities(), now).await?;
                enrol(&sheet, store, by, context).await
            };
            let new_cards = match stored {
                Ok(new_cards) => new_cards,
                Err(EnrolError::Conflicts(conflicts)) => {
                    return Err(refused(args, &faults(&sheet, &conflicts)));
                }
                Err(EnrolError::Store(error)) => return Err(error.into()),
            };
            output::write(summary(&sheet.subscriptions, new_cards).as_bytes())?;
            Ok(Exit::Ok)
        })
        .await
}

fn reason(args: &ImportArgs) -> Result<String, CliError> {
    let reason = match &args.reason {
        Some(reason) => reason.clone(),
        None => one_line(&format!("import of {}", args.file.display())).map_err(|problem| {
            CliError::usage(format!(
                "the name of the file cannot be kept as the reason: {problem}"
            ))
            .hint("give another one with --reason TEXT")
        })?,
    };
    kept_reason(&reason)?;
    Ok(reason)
}

fn read_file(path: &Path) -> Result<Vec<u8>, CliError> {
    let unread = |error: std::io::Error| {
        CliError::bad_data(error).context(format!("couldn't read {}", path.display()))
    };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(unread)?;
    if count(bytes.len()) > BYTES_MAX {
        return Err(CliError::bad_data(anyhow::anyhow!(
            "{} is larger than {} MiB; divide it into several files",
            path.display(),
            BYTES_MAX / 1024 / 1024
        )));
    }
    Ok(bytes)
}

/// Compares with what is stored. `None`: nobody knows how many cards would be new.
async fn compare(sheet: &Sheet, store: &Store) -> Result<Option<usize>, EnrolError> {
    let conflicts = store.conflicts(&sheet.subscriptions).await?;
    if conflicts.is_empty() {
        Ok(None)
    } else {
        Err(EnrolError::Conflicts(conflicts))
    }
}

async fn enrol(
    sheet: &Sheet,
    store: &Store,
    by: By<'_>,
    context: &Context,
) -> Result<Option<usize>, EnrolError> {
    let bar = progress_bar(sheet.subscriptions.len(), "storing");
    let calendars = Calendars::of(context);
    let enrolled = store
        .enrol(
            &sheet.subscriptions,
            Telling::Nobody,
            by,
            context.now(),
            |id, new| calendars.due_at(id, &new.shop, new.zone, new.first.due_on),
            |stored| bar.set_position(count(stored)),
        )
        .await;
    bar.finish_and_clear();
    Ok(Some(enrolled?.new_cards))
}

/// A bar on standard error; nothing when that is not a terminal.
fn progress_bar(length: usize, doing: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {percent}%")
        .expect("the template has known keys");
    ProgressBar::new(count(length))
        .with_style(style)
        .with_message(doing)
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// Prints what is wrong and says that nothing was stored.
fn refused(args: &ImportArgs, faults: &[Fault]) -> CliError {
    let shown = if args.all_errors {
        faults.len()
    } else {
        FAULTS_SHOWN
    };
    let mut told: String = faults
        .iter()
        .take(shown)
        .fold(String::new(), |told, fault| {
            told + &fault.to_string() + "\n"
        });
    if let Some(more) = faults.len().checked_sub(shown).filter(|more| *more > 0) {
        told += &format!("and {more} more; --all-errors prints them\n");
    }
    eprint!("{told}");
    CliError::bad_data(anyhow::anyhow!(
        "couldn't import {}: {}; nothing was stored",
        args.file.display(),
        plural(faults.len(), "mistake")
    ))
}

fn faults(sheet: &Sheet, conflicts: &[Conflict]) -> Vec<Fault> {
    conflicts
        .iter()
        .map(|conflict| Fault {
            line: sheet.lines[conflict.place],
            told: told(&sheet.subscriptions[conflict.place], &conflict.with),
        })
        .collect()
}

/// In what a description contradicts the database.
pub(super) fn told(new: &NewSubscription, stored: &Stored) -> String {
    let quoted = |text: &str| shown(text).unwrap_or_default();
    let cid = quoted(&new.card.cid);
    let profile = new.card.payment_profile_id;
    match stored {
        Stored::Name => format!(
            "external_id {} is stored already; allowed: each external_id once per shop",
            quoted(&new.external_id)
        ),
        Stored::OtherProfile(Some(other)) => format!(
            "cid {cid} is stored with the profile {other}; allowed: one profile for each cid"
        ),
        Stored::OtherProfile(None) => format!(
            "cid {cid} is stored as a card without a profile; allowed: a cid of its own for each card"
        ),
        Stored::OtherCid(other) => format!(
            "payment_profile_id \"{profile}\" is stored with the cid {other}; allowed: one cid for each profile"
        ),
        Stored::InactiveCard => format!(
            "cid {cid} cannot be charged any more, imoje called its profile inactive; allowed: an active card"
        ),
    }
}

fn summary(subscriptions: &[NewSubscription], new_cards: Option<usize>) -> String {
    let cards: HashSet<_> = subscriptions
        .iter()
        .map(|new| (&new.shop, &new.card.cid))
        .collect();
    let (done, cards) = match new_cards {
        Some(new_cards) => (
            "stored",
            format!("{} ({new_cards} new)", plural(cards.len(), "card")),
        ),
        None => ("would store", plural(cards.len(), "card")),
    };
    let mut text = format!(
        "{done} {} on {cards}\n",
        plural(subscriptions.len(), "subscription")
    );
    let mut line = |told: String| writeln!(text, "{told}").expect("a String can be written to");
    if let Some(first) = subscriptions.iter().map(|new| new.first.due_on).min() {
        line(format!("first due date: {first}"));
    }
    let elsewhere: u64 = subscriptions
        .iter()
        .map(|new| u64::from(new.paid_elsewhere))
        .sum();
    if elsewhere > 0 {
        line(format!("taken as paid elsewhere: {elsewhere} periods"));
    }
    let overdue = subscriptions.iter().filter(|new| new.is_overdue).count();
    if overdue > 0 {
        line(format!(
            "overdue: {}; what is unpaid since paid_until falls due at once, and catch_up of the shop decides what of it is charged",
            plural(overdue, "subscription")
        ));
    }
    text
}

fn plural(number: usize, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{ending}")
}
