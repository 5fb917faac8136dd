//! Reading one row of an export, with everything that is wrong with it.

use std::str::FromStr;

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use chrono_tz::Tz;
use uuid::Uuid;

use crate::domain::calendar::instant;
use crate::domain::enrolment::shown;
use crate::domain::export::{
    ByLink, Column, Debit, Layout, Matter, REFUND, Row, Rules, SETTLED, Shop,
};
use crate::domain::id::TransactionId;
use crate::domain::money::{Currency, Money};
use crate::domain::order_id::OrderId;
use crate::domain::registration::RegistrationOrderId;

/// What the order ids of Cykl begin with.
const OURS: &str = "cykl-";

/// The longest word for a status.
const WORD_MAX: usize = 60;

/// The years in which transactions are made.
const YEARS: std::ops::RangeInclusive<i32> = 2000..=2199;

const AMOUNT: &str =
    "units and exactly two decimals, 19.99 or 19,99, without a separator of thousands";
const AMOUNT_MINOR: &str = "1 to 999999999, in minor units: 1999 is 19.99";
const SHOP: &str = "one of the configuration; --shop NAME when all rows are of that shop";
const TRANSACTION: &str = "imoje's id of the transaction, a UUID with hyphens";
const CREATED_AT: &str = "2027-01-31T12:00:00Z, 2027-01-31 12:00[:00], 31.01.2027 12:00[:00], the date alone, or seconds \
                          since 1970";

impl Rules {
    /// Reads a row.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(&self, layout: &Layout, cells: &[&str]) -> Result<Row, Vec<String>> {
        let mut reading = Reading {
            layout,
            cells,
            faults: Vec::new(),
        };
        let order = reading.text(Column::OrderId).unwrap_or_default();
        let is_ours = order.starts_with(OURS);
        let shop = reading.shop(self, is_ours);
        let created_at = reading.created_at(shop.map_or(Tz::UTC, |shop| shop.zone));
        let matter = if self.is_refund(reading.text(Column::Type)) {
            Some(Matter::Refund)
        } else if is_ours {
            reading.ours(self, order)
        } else {
            Some(Matter::Foreign)
        };
        match matter {
            Some(matter) if reading.faults.is_empty() => Ok(Row {
                shop: shop.map(|shop| shop.name.clone()),
                created_at,
                matter,
            }),
            Some(_) | None => Err(reading.faults),
        }
    }

    fn is_refund(&self, word: Option<&str>) -> bool {
        word.is_some_and(|word| word.eq_ignore_ascii_case(REFUND) || is_one_of(word, &self.refunds))
    }

    fn is_settled(&self, word: &str) -> bool {
        word.eq_ignore_ascii_case(SETTLED) || is_one_of(word, &self.settled)
    }

    /// The shop of a row that names none: the one that is said, or the only one.
    pub(super) fn usual_shop(&self) -> Option<&Shop> {
        match (&self.shop, self.shops.as_slice()) {
            (Some(name), shops) => shops.iter().find(|shop| shop.name == *name),
            (None, [shop]) => Some(shop),
            (None, _) => None,
        }
    }
}

fn is_one_of(word: &str, words: &[String]) -> bool {
    let word = word.to_lowercase();
    words
        .iter()
        .any(|known| known.trim().to_lowercase() == word)
}

/// A row that is being read.
struct Reading<'a> {
    layout: &'a Layout,
    cells: &'a [&'a str],
    faults: Vec<String>,
}

impl<'a> Reading<'a> {
    fn text(&self, column: Column) -> Option<&'a str> {
        self.layout.text(column, self.cells)
    }

    /// The shop of the row. One that the configuration does not have is wrong for a row of ours only.
    fn shop<'r>(&mut self, rules: &'r Rules, is_ours: bool) -> Option<&'r Shop> {
        if rules.shop.is_some() {
            return rules.usual_shop();
        }
        let mut shops = rules.shops.iter();
        let (service_id, name) = (self.text(Column::ServiceId), self.text(Column::Shop));
        let found = match (service_id, name) {
            (Some(text), _) => {
                let service_id = Uuid::try_parse(text).ok();
                shops.find(|shop| Some(shop.service_id) == service_id)
            }
            (None, Some(text)) => shops.find(|shop| shop.name.as_str() == text),
            (None, None) => rules.usual_shop(),
        };
        if found.is_none() && is_ours {
            let (column, text) = match service_id {
                Some(text) => (Column::ServiceId, text),
                None => (Column::Shop, name.unwrap_or_default()),
            };
            let problem = "is not of a shop of the configuration";
            self.fault(column, text, problem, SHOP);
        }
        found
    }

    fn created_at(&mut self, zone: Tz) -> Option<DateTime<Utc>> {
        let text = self.text(Column::CreatedAt)?;
        let time = time(text, zone).filter(|time| YEARS.contains(&time.year()));
        if time.is_none() {
            self.fault(Column::CreatedAt, text, "is not a time", CREATED_AT);
        }
        time
    }

    /// What a row under an order id of ours says.
    fn ours(&mut self, rules: &Rules, order: &str) -> Option<Matter> {
        let status = self.status();
        let has_moved = status.as_deref().is_some_and(|word| rules.is_settled(word));
        let (debit, link) = (
            order.parse::<OrderId>(),
            order.parse::<RegistrationOrderId>(),
        );
        if debit.is_err() && link.is_err() {
            return Some(Matter::Strange {
                order_id: order.to_owned(),
                has_moved,
            });
        }
        let transaction_id = self.transaction_id();
        let amount_minor = self.amount();
        let currency = self.currency();
        if let Ok(order_id) = link {
            return Some(Matter::ByLink(ByLink {
                order_id,
                transaction_id: transaction_id?,
                amount_minor: amount_minor?,
                currency: currency?,
                has_moved,
            }));
        }
        Some(Matter::Debit(Debit {
            order_id: debit.ok()?,
            transaction_id: transaction_id?,
            amount_minor: amount_minor?,
            currency: currency?,
            status: status?,
            has_moved,
        }))
    }

    fn transaction_id(&mut self) -> Option<TransactionId> {
        self.required(Column::TransactionId, TRANSACTION, |text| {
            /// Of the form that imoje writes.
            const LENGTH: usize = 36;
            let id = Uuid::try_parse(text).ok()?;
            (text.len() == LENGTH).then_some(TransactionId::from_uuid(id))
        })
    }

    fn amount(&mut self) -> Option<i64> {
        if self.layout.has(Column::AmountMinor) {
            self.required(Column::AmountMinor, AMOUNT_MINOR, |text| in_range(text, ""))
        } else {
            self.required(Column::Amount, AMOUNT, |text| {
                let (units, decimals) = text.split_once(['.', ','])?;
                let has_form = !units.is_empty() && decimals.len() == 2;
                has_form.then(|| in_range(units, decimals)).flatten()
            })
        }
    }

    fn currency(&mut self) -> Option<Currency> {
        let allowed = Currency::ALL.map(Currency::code).join(", ");
        self.required(Column::Currency, &allowed, |text| {
            Currency::from_str(&text.to_ascii_uppercase()).ok()
        })
    }

    fn status(&mut self) -> Option<String> {
        self.required(Column::Status, "a word, such as settled", |text| {
            (text.chars().count() <= WORD_MAX).then(|| text.to_lowercase())
        })
    }

    fn required<T>(
        &mut self,
        column: Column,
        allowed: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let Some(text) = self.text(column) else {
            self.faults
                .push(format!("{column} is missing; allowed: {allowed}"));
            return None;
        };
        let value = read(text);
        if value.is_none() {
            self.fault(column, text, "cannot be taken", allowed);
        }
        value
    }

    fn fault(&mut self, column: Column, text: &str, problem: &str, allowed: &str) {
        let shown = shown(text).map_or_else(String::new, |text| format!(" {text}"));
        self.faults
            .push(format!("{column}{shown} {problem}; allowed: {allowed}"));
    }
}

/// A number of minor units that can be charged, out of its digits and nothing else.
fn in_range(units: &str, decimals: &str) -> Option<i64> {
    let digits = format!("{units}{decimals}");
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let minor = digits.parse().ok()?;
    // The currency does not matter to the range.
    Money::new(minor, Currency::Pln).ok().map(Money::minor)
}

/// A time in one of the forms that are not read in two ways; in `zone` unless it says its own.
fn time(text: &str, zone: Tz) -> Option<DateTime<Utc>> {
    const FORMS: [&str; 6] = [
        "%Y-%m-%d %H:%M:%S",
        "%Y-%m-%d %H:%M",
        "%Y-%m-%dT%H:%M:%S",
        "%Y-%m-%dT%H:%M",
        "%d.%m.%Y %H:%M:%S",
        "%d.%m.%Y %H:%M",
    ];
    const DATES: [&str; 2] = ["%Y-%m-%d", "%d.%m.%Y"];
    /// 2001 to 2286. A number of fewer digits is something else.
    const SECONDS_DIGITS: usize = 10;
    if text.len() == SECONDS_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return DateTime::from_timestamp(text.parse().ok()?, 0);
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.with_timezone(&Utc));
    }
    let local = FORMS
        .iter()
        .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
        .or_else(|| {
            let date = DATES
                .iter()
                .find_map(|form| NaiveDate::parse_from_str(text, form).ok())?;
            Some(date.and_time(NaiveTime::MIN))
        })?;
    // Far years would be out of reach of the zone's arithmetic.
    YEARS.contains(&local.year()).then(|| instant(zone, local))
}
