//! `cykl subscription schedule`: due dates, of a stored subscription or of one that nobody has agreed to yet.

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};
use chrono_tz::Tz;
use clap::Args;
use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::output::{self, OutputArgs, Row};
use crate::cli::subscription::{Calendars, Which};
use crate::cli::{CliError, Exit, Outcome};
use crate::domain::calendar::ChargeTime;
use crate::domain::enrolment::{Column, Fields, preview};
use crate::domain::schedule::DuePeriod;
use crate::domain::shop::ShopName;
use crate::store::subscriptions::{SubscriptionRow, Timetable};
use crate::workers::shops::ShopCalendar;

/// Arguments of `cykl subscription schedule`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("whose").required(true).args(["name", "anchor"]))]
pub struct ScheduleArgs {
    /// The id of a stored subscription, or the shop's own name for it (external_id)
    #[arg(value_name = "ID|EXTERNAL_ID")]
    name: Option<String>,

    /// Its shop, when several have a subscription of that name
    #[arg(long, value_name = "NAME", requires = "name")]
    shop: Option<ShopName>,

    /// How many due dates
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    next: u16,

    /// Instead of a stored subscription: when period 0 is due. Needs neither database nor configuration
    #[arg(long, value_name = "DATE", requires = "period")]
    anchor: Option<String>,

    /// The time between two due dates: P7D, P2W, P1M, P3M, P1Y
    #[arg(long, value_name = "PERIOD", requires = "anchor")]
    period: Option<String>,

    /// Nothing due before this date
    #[arg(long, value_name = "DATE", requires = "anchor")]
    starts_on: Option<String>,

    /// Nothing due after this date
    #[arg(long, value_name = "DATE", requires = "anchor")]
    ends_on: Option<String>,

    /// How many periods there are
    #[arg(long, value_name = "N", requires = "anchor")]
    max_charges: Option<String>,

    /// In which zone dates are meant [default: Europe/Warsaw]
    #[arg(long, value_name = "ZONE", requires = "anchor", value_parser = zone)]
    timezone: Option<Tz>,

    /// Local time of day, HH:MM [default: 06:00]
    #[arg(long, value_name = "TIME", requires = "anchor", value_parser = time_of_day)]
    charge_time: Option<NaiveTime>,

    #[command(flatten)]
    output: OutputArgs,
}

/// One due date.
#[derive(Debug, Serialize)]
struct DueDate {
    period_no: u32,
    due_on: NaiveDate,
    due_at: DateTime<Utc>,
    /// What has become of it, or will.
    state: Option<&'static str>,
}

impl Row for DueDate {
    const FIELDS: &'static [&'static str] = &["period_no", "due_on", "due_at", "state"];
    const SHOWN: &'static [&'static str] = Self::FIELDS;
}

impl ScheduleArgs {
    /// Prints due dates from the arguments alone, unless they name a stored subscription.
    pub(super) fn preview(&self) -> Option<Outcome> {
        self.name.is_none().then(|| self.print_preview())
    }

    fn print_preview(&self) -> Outcome {
        let fields: Fields<'_> = [
            (Column::AnchorDate, &self.anchor),
            (Column::Period, &self.period),
            (Column::StartsOn, &self.starts_on),
            (Column::EndsOn, &self.ends_on),
            (Column::MaxCharges, &self.max_charges),
        ]
        .into_iter()
        .filter_map(|(column, text)| Some((column, text.as_deref()?)))
        .collect();
        let terms = preview(&fields).map_err(|mistakes| {
            let told: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            CliError::bad_data(anyhow::anyhow!("{}", told.join("\n  ")))
        })?;
        let charge_time = ChargeTime {
            zone: self.timezone.unwrap_or(chrono_tz::Europe::Warsaw),
            time_of_day: self.charge_time.unwrap_or(SIX_O_CLOCK),
            offset: TimeDelta::zero(),
        };
        let begin = terms.starts_on.unwrap_or(terms.anchor);
        let first = terms.period.first_due_from(terms.anchor, begin);
        let rows: Vec<DueDate> = (first.unwrap_or(0)..)
            .map_while(|period_no| terms.period(period_no))
            .take(usize::from(self.next))
            .map(|due| DueDate {
                period_no: due.period_no,
                due_on: due.due_on,
                due_at: charge_time.on(due.due_on),
                state: None,
            })
            .collect();
        output::list(self.output.output, &rows)?;
        Ok(Exit::Ok)
    }
}

const SIX_O_CLOCK: NaiveTime = NaiveTime::from_hms_opt(6, 0, 0).expect("a time of day");

pub(super) async fn run(args: &ScheduleArgs, context: &Context) -> Outcome {
    let which = Which {
        name: args.name.clone().unwrap_or_default(),
        shop: args.shop.clone(),
    };
    context
        .with_store(async |store| {
            let row = which.find(store).await?;
            let calendar = Calendars::of(context).get(&row.shop)?;
            let zone: Tz = row.timezone.parse().map_err(CliError::internal)?;
            let today = context.now().with_timezone(&zone).date_naive();
            let timetable = store.timetable(row.subscription_id, today).await?;
            let rows = due_dates(&row, &timetable, &calendar, today, args.next);
            output::list(args.output.output, &rows)?;
            if !row.status.is_billable() {
                eprintln!(
                    "the subscription is {}: nothing falls due",
                    row.status.as_str()
                );
            }
            Ok(Exit::Ok)
        })
        .await
}

/// The due dates from `today` on, or from the next period if that is overdue.
fn due_dates(
    row: &SubscriptionRow,
    timetable: &Timetable,
    calendar: &ShopCalendar,
    today: NaiveDate,
    count: u16,
) -> Vec<DueDate> {
    let terms = &timetable.terms;
    let from_today = terms.period.first_due_from(terms.anchor, today);
    let next = timetable.next.map(|next| next.period_no);
    let first = match (from_today, next) {
        (Some(from_today), Some(next)) => from_today.min(next),
        (from_today, next) => from_today.or(next).unwrap_or(0),
    };
    (first..)
        .map_while(|period_no| terms.period(period_no))
        .take(usize::from(count))
        .map(|due| due_date(row, timetable, calendar, due))
        .collect()
}

fn due_date(
    row: &SubscriptionRow,
    timetable: &Timetable,
    calendar: &ShopCalendar,
    due: DuePeriod,
) -> DueDate {
    let DuePeriod { period_no, due_on } = due;
    let computed = calendar.due_at(row.subscription_id, timetable.zone, due_on);
    let charge = timetable
        .charges
        .iter()
        .find(|charge| charge.period_no == period_no);
    let next = timetable.next.filter(|next| next.period_no <= period_no);
    let (due_at, state) = match (charge, next) {
        (Some(charge), _) => (charge.due_at, charge.state.as_str()),
        (None, Some(next)) if next.period_no == period_no => (next.due_at, "scheduled"),
        (None, Some(_)) => (computed, "scheduled"),
        (None, None) if period_no < timetable.first_period_no => (computed, "paid_elsewhere"),
        (None, None) if !row.status.is_billable() => (computed, row.status.as_str()),
        (None, None) => (computed, "not_charged"),
    };
    DueDate {
        period_no,
        due_on,
        due_at,
        state: Some(state),
    }
}

fn zone(text: &str) -> Result<Tz, String> {
    text.parse()
        .map_err(|_| "it is not an IANA name such as Europe/Warsaw".to_owned())
}

fn time_of_day(text: &str) -> Result<NaiveTime, String> {
    NaiveTime::parse_from_str(text, "%H:%M")
        .map_err(|_| "write HH:MM, for example 06:00".to_owned())
}
