//! `cykl audit --against FILE`: what the export is, and what is said of it.

use std::fmt::Write as _;
use std::path::PathBuf;

use chrono::{DateTime, NaiveDate, Utc};
use clap::Args;
use serde::Serialize;

use crate::cli::audit::sheet::Sheet;
use crate::cli::context::Context;
use crate::cli::output::{instant, visible};
use crate::cli::records::{self, read_file};
use crate::cli::{CliError, one_line};
use crate::domain::export::{
    Coverage, CoverageError, Days, Export, Mapping, Rules, Shop, Status, coverage,
};
use crate::domain::shop::ShopName;
use crate::store::audit::export::Unseen;

/// What the export is.
#[derive(Debug, Args)]
pub(super) struct AgainstArgs {
    /// Compare the books with a CSV export of imoje's transactions as well
    #[arg(long, value_name = "FILE.csv")]
    against: Option<PathBuf>,

    /// What a column is called in the export, like order_id=Zamówienie; may be repeated
    #[arg(long = "column", value_name = "NAME=HEADER", requires = "against")]
    columns: Vec<Mapping>,

    /// A status that means "settled" in the export: money moved; may be repeated
    #[arg(long, value_name = "WORD", requires = "against", value_parser = one_line)]
    settled: Vec<String>,

    /// A type that means "refund" in the export; may be repeated
    #[arg(long, value_name = "WORD", requires = "against", value_parser = one_line)]
    refund: Vec<String>,

    /// The shop of the whole export; needed when there are several and no column says it
    #[arg(long, value_name = "NAME", requires = "against")]
    shop: Option<ShopName>,

    /// The first day that the export covers, in the shop's zone [default: its earliest created_at]
    #[arg(long, value_name = "DATE", requires = "against")]
    from: Option<NaiveDate>,

    /// The last day that the export covers, in the shop's zone [default: its latest created_at]
    #[arg(long, value_name = "DATE", requires = "against")]
    to: Option<NaiveDate>,

    /// Print every mistake in the export, however many there are
    #[arg(long, requires = "against")]
    all_errors: bool,
}

pub(super) const AFTER_LONG_HELP: &str = r#"Columns of the export, in any order among others; it is separated by commas or semicolons:
  transaction_id        imoje's id of the transaction
  order_id              what Cykl called the debit; others than cykl-... are counted and passed over
  amount_minor          the amount in minor units: 1999 is 19.99
  amount                instead of it: 19.99 or 19,99
  currency              PLN, EUR, USD, GBP, CHF, SEK, HUF, CZK, BGN or RON
  status                money moved when it is "settled"; other words are counted and shown
Optional:
  type                  rows that say "refund" are counted and passed over
  shop, service_id      the shop by its name in the configuration, or by imoje's id of it
  created_at            2027-01-31 12:00:00, with a zone or in that of the shop

imoje does not document the export of its panel: --column, --settled and --refund say what differs.
A settled attempt is missing when its permit is at least a day inside of what the export covers.
Every mistake in the file is printed with its line, and then nothing is compared (exit 65)."#;

/// An export that can be compared.
pub(super) struct ReadExport {
    pub export: Export,
    pub coverage: Vec<Coverage>,
    configured: Vec<ShopName>,
    file: PathBuf,
}

/// What is said of an export that the books were compared with.
#[derive(Debug, Serialize)]
pub(super) struct Against {
    file: String,
    rows: u64,
    compared: usize,
    by_link: usize,
    refunds: u64,
    foreign: u64,
    statuses: Vec<StatusCount>,
    shops: Vec<ShopCoverage>,
    shops_not_in_export: Vec<ShopName>,
    doubts_not_in_export: Unseen,
}

/// How often a word stands in the export.
#[derive(Debug, Serialize)]
struct StatusCount {
    status: String,
    is_settled: bool,
    rows: u64,
}

/// What the export covers of a shop.
#[derive(Debug, Serialize)]
struct ShopCoverage {
    shop: ShopName,
    covers_from: DateTime<Utc>,
    covers_to: DateTime<Utc>,
    complete_from: DateTime<Utc>,
    complete_to: DateTime<Utc>,
}

impl AgainstArgs {
    /// Reads the export, when there is one to compare with.
    pub fn read(&self, context: &Context) -> Result<Option<ReadExport>, CliError> {
        let Some(file) = &self.against else {
            return Ok(None);
        };
        let rules = self.rules(context)?;
        let bytes = read_file(file)?;
        let sheet = Sheet::read(&bytes, &rules, &self.columns);
        drop(bytes);
        if !sheet.faults.is_empty() {
            records::print(&sheet.faults, self.all_errors);
            return Err(CliError::bad_data(anyhow::anyhow!(
                "couldn't understand {}: {}; nothing was compared",
                file.display(),
                records::plural(sheet.faults.len(), "mistake")
            )));
        }
        let days = Days {
            from: self.from,
            to: self.to,
        };
        let coverage = coverage(&sheet.export, &rules, days).map_err(not_covered)?;
        Ok(Some(ReadExport {
            export: sheet.export,
            coverage,
            configured: rules.shops.iter().map(|shop| shop.name.clone()).collect(),
            file: file.clone(),
        }))
    }

    fn rules(&self, context: &Context) -> Result<Rules, CliError> {
        let shops = &context.config.shops;
        if let Some(shop) = self.shop.as_ref().filter(|shop| !shops.contains_key(shop)) {
            let names: Vec<_> = shops.keys().map(ShopName::as_str).collect();
            return Err(CliError::usage(format!(
                "there is no shop {shop} in the configuration; allowed: {}",
                names.join(", ")
            )));
        }
        let shops = shops.iter().map(|(name, shop)| Shop {
            name: name.clone(),
            service_id: shop.service_id,
            zone: shop.timezone,
        });
        Ok(Rules {
            shops: shops.collect(),
            shop: self.shop.clone(),
            settled: self.settled.clone(),
            refunds: self.refund.clone(),
        })
    }
}

fn not_covered(error: CoverageError) -> CliError {
    let hint = match &error {
        CoverageError::NoShop => "say it with --shop NAME",
        CoverageError::Undated(_) => {
            "say it with --from DATE and --to DATE, or name the column that has the time of each transaction: --column \
             created_at=HEADER"
        }
        CoverageError::TooShort(..) => {
            "export more days; or, if the file covers more than its rows show, say so with --from DATE and --to DATE"
        }
    };
    CliError::usage(error.to_string()).hint(hint)
}

impl Against {
    pub fn new(read: ReadExport, doubts_not_in_export: Unseen) -> Self {
        let ReadExport {
            export,
            coverage,
            configured,
            file,
        } = read;
        let status = |status: Status| StatusCount {
            status: status.word,
            is_settled: status.has_moved,
            rows: status.count,
        };
        let shop = |one: Coverage| ShopCoverage {
            shop: one.shop,
            covers_from: one.covered.from,
            covers_to: one.covered.to,
            complete_from: one.complete.from,
            complete_to: one.complete.to,
        };
        let is_covered = |shop: &ShopName| coverage.iter().any(|one| one.shop == *shop);
        let shops_not_in_export = configured
            .into_iter()
            .filter(|shop| !is_covered(shop))
            .collect();
        Self {
            file: file.display().to_string(),
            rows: export.rows,
            compared: export.entries.len(),
            by_link: export.by_link.len(),
            refunds: export.refunds,
            foreign: export.foreign,
            statuses: export.statuses.into_iter().map(status).collect(),
            shops: coverage.into_iter().map(shop).collect(),
            shops_not_in_export,
            doubts_not_in_export,
        }
    }

    /// Whether every shop was compared.
    pub fn is_whole(&self) -> bool {
        self.shops_not_in_export.is_empty()
    }

    /// What a person has to know to judge the comparison.
    pub fn told(&self) -> String {
        let mut text = String::new();
        let mut line = |told: String| {
            writeln!(text, "{}", visible(&told)).expect("a String can be written to")
        };
        line(format!(
            "compared with {}: rows: {}, debits of Cykl: {}, payments by links: {}, refunds: {}, of other systems: {}",
            self.file, self.rows, self.compared, self.by_link, self.refunds, self.foreign
        ));
        for status in &self.statuses {
            let meaning = if status.is_settled {
                "money moved"
            } else {
                "money did not move"
            };
            line(format!("  {}: {} ({meaning})", status.status, status.rows));
        }
        for shop in &self.shops {
            line(format!(
                "shop {}: it covers {} to {}; what was permitted from {} to {} must be in it",
                shop.shop,
                instant(shop.covers_from),
                instant(shop.covers_to),
                instant(shop.complete_from),
                instant(shop.complete_to)
            ));
        }
        for shop in &self.shops_not_in_export {
            line(format!(
                "shop {shop}: the export has no row of it, so it was not compared"
            ));
        }
        let unseen = &self.doubts_not_in_export;
        if !unseen.attempts.is_empty() {
            line(
                "in doubt, and not in the export although it covers that time. That is a reason to look for them in imoje's panel, \
                 and no proof that no money moved:"
                    .to_owned(),
            );
            for attempt in &unseen.attempts {
                let charge = attempt
                    .charge_id
                    .map(|charge| format!(": cykl charge show {charge}"));
                line(format!(
                    "  {}{}",
                    attempt.detail,
                    charge.unwrap_or_default()
                ));
            }
            if unseen.has_more {
                line("  and more".to_owned());
            }
        }
        text
    }
}
