//! `cykl subscription import`: all subscriptions of a file, or none.

use std::fmt::Write as _;
use std::path::PathBuf;

use chrono::NaiveDate;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::cli::context::Context;
use crate::cli::records::{self, Fault, plural, read_file};
use crate::cli::subscription::sheet::{Part, Sheet};
use crate::cli::subscription::{Calendars, circumstances};
use crate::cli::{CliError, Exit, Outcome, kept_reason, one_line, output};
use crate::domain::card::CardKey;
use crate::domain::enrolment::{Circumstances, NewSubscription, shown};
use crate::domain::shop::ShopName;
use crate::store::enrolment::{Conflict, EnrolError, Stored, Telling};
use crate::store::status::By;
use crate::store::{Store, StoreError};

/// How many parts of the file may be read while one is being stored.
const PARTS_AHEAD: usize = 1;

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
  payment_profile_id    imoje's id of the stored card; for cards without a profile instead
  first_transaction_id  what imoje shows as firstTransactionId, with the column customer
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
  customer, card        JSON, for cards without a profile: who pays (firstName, lastName, email), and
                        further members of the card as aliases that gateway.card_proxy_url knows

Importing charges nobody. Every mistake is printed with its line, and then nothing is stored
(exit 65). The event of each subscription is kept in the books and not delivered to the shop."#;

/// A file that is being read while what was read of it is stored.
struct Reader {
    parts: mpsc::Receiver<Part>,
    reading: JoinHandle<Sheet>,
    sheet: Option<Sheet>,
    tally: Tally,
}

/// What is said of the subscriptions of a file at the end.
#[derive(Default)]
struct Tally {
    subscriptions: usize,
    first_due_on: Option<NaiveDate>,
    paid_elsewhere: u64,
    overdue: usize,
}

/// What became of a file.
enum Taken {
    Stored {
        new_cards: usize,
    },
    Compared,
    /// It contradicts what is stored.
    Refused(Vec<Fault>),
    /// It has mistakes of its own.
    Mistaken,
}

pub(super) async fn run(args: &ImportArgs, context: &Context) -> Outcome {
    let reason = reason(args)?;
    let bytes = read_file(&args.file)?;
    let circumstances = circumstances(context, args.shop.as_ref(), false, context.now()).await?;
    let mut reader = Reader::start(bytes, circumstances);
    let outcome = match reader.next().await {
        Some(first) => {
            let by = By {
                actor: &context.actor,
                reason: &reason,
            };
            context
                .with_store(async |store| take(first, &mut reader, store, args, by, context).await)
                .await
        }
        None => Ok(Exit::Ok),
    };
    // They come before whatever the database said of the rows above the first of them.
    match reader.sheet().await.faults.as_slice() {
        [] => outcome,
        faults => Err(refused(args, faults)),
    }
}

async fn take(
    first: Part,
    reader: &mut Reader,
    store: &Store,
    args: &ImportArgs,
    by: By<'_>,
    context: &Context,
) -> Outcome {
    let taken = if args.dry_run {
        compare(Some(first), reader, store).await?
    } else {
        store
            .record_shops(&context.shop_identities(), context.now())
            .await?;
        enrol(first, reader, store, by, context).await?
    };
    let new_cards = match taken {
        Taken::Stored { new_cards } => Some(new_cards),
        Taken::Compared => None,
        Taken::Refused(faults) => return Err(refused(args, &faults)),
        Taken::Mistaken => return Ok(Exit::Ok),
    };
    let cards = reader.sheet().await.cards;
    output::write(reader.tally.summary(cards, new_cards).as_bytes())?;
    Ok(Exit::Ok)
}

/// Stores every part as it comes, and all of them together when the file has turned out to be right.
async fn enrol(
    first: Part,
    reader: &mut Reader,
    store: &Store,
    by: By<'_>,
    context: &Context,
) -> Result<Taken, StoreError> {
    let calendars = Calendars::of(context);
    let due_at =
        |id, new: &NewSubscription| calendars.due_at(id, &new.shop, new.zone, new.first.due_on);
    let mut enrolment = store
        .begin_enrolment(Telling::Nobody, by, context.now())
        .await?;
    let mut next = Some(first);
    while let Some(part) = next {
        enrolment = match enrolment.add(&part.subscriptions, due_at).await {
            Ok(enrolment) => enrolment,
            Err(EnrolError::Conflicts(_)) => return compare(Some(part), reader, store).await,
            Err(EnrolError::Store(error)) => return Err(error),
        };
        next = reader.next().await;
    }
    if reader.sheet().await.faults.is_empty() {
        let new_cards = enrolment.commit().await?.new_cards;
        Ok(Taken::Stored { new_cards })
    } else {
        Ok(Taken::Mistaken)
    }
}

/// Compares what is left of the file with what is stored.
async fn compare(
    mut next: Option<Part>,
    reader: &mut Reader,
    store: &Store,
) -> Result<Taken, StoreError> {
    let mut faults = Vec::new();
    while let Some(part) = next {
        let conflicts = store.conflicts(&part.subscriptions).await?;
        faults.extend(conflicts.iter().map(|conflict| part.fault(conflict)));
        next = reader.next().await;
    }
    if !reader.sheet().await.faults.is_empty() {
        Ok(Taken::Mistaken)
    } else if faults.is_empty() {
        Ok(Taken::Compared)
    } else {
        Ok(Taken::Refused(faults))
    }
}

impl Reader {
    fn start(bytes: Vec<u8>, circumstances: Circumstances) -> Self {
        let (handed_on, parts) = mpsc::channel(PARTS_AHEAD);
        let reading = tokio::task::spawn_blocking(move || {
            let bar = progress_bar(bytes.len());
            let sheet = Sheet::read(
                &bytes,
                &circumstances,
                |read| bar.set_position(count(read)),
                |part| match handed_on.blocking_send(part) {
                    // When storing has failed, mistakes are looked for all the same.
                    Ok(()) | Err(_) => {}
                },
            );
            bar.finish_and_clear();
            sheet
        });
        Self {
            parts,
            reading,
            sheet: None,
            tally: Tally::default(),
        }
    }

    /// The next part. `None`: the file has ended, or has a mistake.
    async fn next(&mut self) -> Option<Part> {
        let part = self.parts.recv().await?;
        self.tally.add(&part.subscriptions);
        Some(part)
    }

    /// All that is known of the file when it is read to its end.
    async fn sheet(&mut self) -> &Sheet {
        self.parts.close();
        if self.sheet.is_none() {
            let read = (&mut self.reading).await;
            self.sheet = Some(read.expect("it is never aborted, and does not panic"));
        }
        self.sheet.as_ref().expect("set above")
    }
}

impl Part {
    /// What a conflict says of its line.
    fn fault(&self, conflict: &Conflict) -> Fault {
        Fault {
            line: self.lines[conflict.place],
            told: told(&self.subscriptions[conflict.place], &conflict.with),
        }
    }
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

/// A bar on standard error; nothing when that is not a terminal.
fn progress_bar(length: usize) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{wide_bar} {percent}%").expect("the template has known keys");
    ProgressBar::new(count(length)).with_style(style)
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// Prints what is wrong and says that nothing was stored.
fn refused(args: &ImportArgs, faults: &[Fault]) -> CliError {
    records::print(faults, args.all_errors);
    CliError::bad_data(anyhow::anyhow!(
        "couldn't import {}: {}; nothing was stored",
        args.file.display(),
        plural(faults.len(), "mistake")
    ))
}

/// In what a description contradicts the database.
pub(super) fn told(new: &NewSubscription, stored: &Stored) -> String {
    let quoted = |text: &str| shown(text).unwrap_or_default();
    let (cid, name, key) = match &new.card {
        Some(card) => match card.charged.key() {
            CardKey::Profile(id) => (quoted(&card.cid), "payment_profile_id", id.to_string()),
            CardKey::FirstTransaction(id) => {
                (quoted(&card.cid), "first_transaction_id", id.to_string())
            }
        },
        // Nothing but its name can stand in the way.
        None => Default::default(),
    };
    match stored {
        Stored::Name => format!(
            "external_id {} is stored already; allowed: each external_id once per shop",
            quoted(&new.external_id)
        ),
        Stored::OtherCard(other) => {
            format!("cid {cid} is stored as the card {other}; allowed: one card for each cid")
        }
        Stored::OtherCid(other) => format!(
            "{name} \"{key}\" is stored with the cid {other}; allowed: one cid for each card"
        ),
        Stored::OtherDetails => format!(
            "cid {cid} is stored with another customer, or other aliases; allowed: the same for each subscription of a card"
        ),
        Stored::InactiveCard => format!(
            "cid {cid} cannot be charged any more, imoje called it inactive; allowed: an active card"
        ),
    }
}

impl Tally {
    fn add(&mut self, subscriptions: &[NewSubscription]) {
        self.subscriptions += subscriptions.len();
        for new in subscriptions {
            let earlier = self.first_due_on.filter(|first| *first <= new.first.due_on);
            self.first_due_on = earlier.or(Some(new.first.due_on));
            self.paid_elsewhere += u64::from(new.paid_elsewhere);
            self.overdue += usize::from(new.is_overdue);
        }
    }

    /// `new_cards` is `None` when nothing was stored.
    fn summary(&self, cards: usize, new_cards: Option<usize>) -> String {
        let cards = plural(cards, "card");
        let (done, cards) = match new_cards {
            Some(new_cards) => ("stored", format!("{cards} ({new_cards} new)")),
            None => ("would store", cards),
        };
        let mut text = format!(
            "{done} {} on {cards}\n",
            plural(self.subscriptions, "subscription")
        );
        let mut line = |told: String| writeln!(text, "{told}").expect("a String can be written to");
        if let Some(first) = self.first_due_on {
            line(format!("first due date: {first}"));
        }
        if self.paid_elsewhere > 0 {
            line(format!(
                "taken as paid elsewhere: {} periods",
                self.paid_elsewhere
            ));
        }
        if self.overdue > 0 {
            line(format!(
                "overdue: {}; what is unpaid since paid_until falls due at once, and catch_up of the shop decides what of it is charged",
                plural(self.overdue, "subscription")
            ));
        }
        text
    }
}
