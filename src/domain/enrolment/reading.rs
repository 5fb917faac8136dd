//! Reading the columns one by one and gathering every mistake, instead of stopping at the first.

use std::str::FromStr;

use chrono::{Datelike, NaiveDate};
use chrono_tz::Tz;
use serde_json::Value;

use crate::domain::calendar::PeriodError;
use crate::domain::card_number::looks_like_card_number;
use crate::domain::channel::{self, NotTaken};
use crate::domain::enrolment::mistake::Wrong;
use crate::domain::enrolment::{
    Circumstances, Column, Currency, DuePeriod, Fields, Mistake, Money, Period, ShopName, Terms,
};
use crate::domain::fields::{self, FieldError};
use crate::domain::title;

/// Dates outside of these years are slips of the pen.
const YEARS: std::ops::RangeInclusive<i32> = 1970..=2199;

/// More periods than a lifetime has days are a slip of the pen as well.
const MAX_CHARGES_MAX: u32 = 99_999;

const DATE: &str = "a date from 1970 to 2199, written like 2027-01-31";
const PERIOD: &str = "P7D, P2W, P1M, P3M, P1Y: days, weeks, months or years, at most one year";
const AMOUNT: &str = "1 to 999999999, in minor units: 1999 is 19.99";
const MAX_CHARGES: &str = "1 to 99999";
const CURRENCY: &str = "PLN, EUR, USD, GBP, CHF, SEK, HUF, CZK, BGN, RON";

pub(super) struct Reading<'a> {
    pub fields: Fields<'a>,
    mistakes: Vec<Mistake>,
}

/// Where charging begins.
pub(super) struct Beginning {
    pub first: DuePeriod,
    pub paid_elsewhere: u32,
    pub is_overdue: bool,
}

impl<'a> Reading<'a> {
    /// Begins with the texts that hold no card number; the others are mistakes already and are not looked at again.
    pub fn of(fields: &Fields<'a>) -> Self {
        let mut reading = Self {
            fields: fields.clone(),
            mistakes: Vec::new(),
        };
        for (column, text) in fields.iter() {
            if looks_like_card_number(text) {
                reading.mistake(column, Wrong::card_number());
                reading.fields.set(column, "");
            }
        }
        reading
    }

    pub fn is_right(&self) -> bool {
        self.mistakes.is_empty()
    }

    pub fn mistakes(self) -> Vec<Mistake> {
        let mut mistakes = self.mistakes;
        mistakes.sort_by_key(|mistake| {
            let place = |column| Column::ALL.iter().position(|known| *known == column);
            mistake
                .column
                .map_or(usize::MAX, |column| place(column).unwrap_or(usize::MAX))
        });
        mistakes
    }

    pub fn external_id(&mut self) -> Option<String> {
        self.required(
            Column::ExternalId,
            "1 to 200 printable characters",
            |text| {
                fields::validate_external_id(text).map_err(of_text)?;
                Ok(text.to_owned())
            },
        )
    }

    pub fn amount(&mut self) -> Option<Money> {
        let minor = self.required(Column::AmountMinor, AMOUNT, |text| {
            let wrong = |problem| Wrong::new(problem, AMOUNT);
            let minor = whole_number(text).ok_or_else(|| wrong("is not a whole number"))?;
            // The currency does not matter to the range.
            Money::new(minor, Currency::Pln).map_err(|_| wrong("is out of range"))?;
            Ok(minor)
        });
        let currency = self.required(Column::Currency, CURRENCY, |text| {
            Currency::from_str(text)
                .map_err(|_| Wrong::new("is not a currency that imoje takes", CURRENCY))
        });
        Money::new(minor?, currency?).ok()
    }

    pub fn terms(&mut self) -> Option<Terms> {
        let period = self.required(Column::Period, PERIOD, |text| {
            Period::from_str(text).map_err(|error| {
                let problem = match error {
                    PeriodError::Malformed(_) => "is not a period",
                    PeriodError::OutOfRange(_) => "is not between one day and one year",
                };
                Wrong::new(problem, PERIOD)
            })
        });
        let anchor = self.required(Column::AnchorDate, DATE, date);
        let starts_on = self.date(Column::StartsOn);
        let ends_on = self.date(Column::EndsOn);
        let max_charges = self.optional(Column::MaxCharges, |text| {
            let wrong = |problem| Wrong::new(problem, MAX_CHARGES);
            let number = whole_number(text).ok_or_else(|| wrong("is not a whole number"))?;
            u32::try_from(number)
                .ok()
                .filter(|count| (1..=MAX_CHARGES_MAX).contains(count))
                .ok_or_else(|| wrong("is out of range"))
        });
        for (column, begin) in [(Column::AnchorDate, anchor), (Column::StartsOn, starts_on)] {
            if let (Some(end), Some(begin)) = (ends_on, begin)
                && end < begin
            {
                let wrong = Wrong::new(
                    format!("is before {column} {begin}"),
                    format!("{begin} or later"),
                );
                self.mistake(Column::EndsOn, wrong);
            }
        }
        Some(Terms {
            anchor: anchor?,
            period: period?,
            starts_on,
            ends_on,
            max_charges,
        })
    }

    pub fn date(&mut self, column: Column) -> Option<NaiveDate> {
        self.optional(column, date)
    }

    pub fn shop(&mut self, circumstances: &Circumstances) -> Option<ShopName> {
        if self.fields.get(Column::Shop).is_none()
            && !self.has_mistake(Column::Shop)
            && let Some(usual) = &circumstances.usual_shop
        {
            return Some(usual.clone());
        }
        let names: Vec<&str> = circumstances.shops.keys().map(ShopName::as_str).collect();
        let allowed = names.join(", ");
        self.required(Column::Shop, &allowed, |text| {
            let known = circumstances.shops.keys();
            known
                .into_iter()
                .find(|shop| shop.as_str() == text)
                .cloned()
                .ok_or_else(|| Wrong::new("is not a shop of the configuration", allowed.as_str()))
        })
    }

    /// Whether imoje takes `amount` for `shop`, as far as that is known.
    pub fn compare_with_channels(
        &mut self,
        amount: Option<Money>,
        shop: Option<&ShopName>,
        circumstances: &Circumstances,
    ) {
        let (Some(amount), Some(channels)) = (
            amount,
            shop.and_then(|shop| circumstances.channels.get(shop)),
        ) else {
            return;
        };
        let Err(not_taken) = channel::takes(channels, amount) else {
            return;
        };
        let problem = not_taken.to_string();
        match not_taken {
            NotTaken::NoChannel => self.mistakes.push(Mistake::whole(Wrong::new(
                problem,
                "a shop for which imoje has turned recurring payments on",
            ))),
            NotTaken::Currency { offered } => {
                let offered: Vec<_> = offered.into_iter().map(Currency::code).collect();
                self.mistake(Column::Currency, Wrong::new(problem, offered.join(", ")));
            }
            NotTaken::Amount {
                min_minor,
                max_minor,
            } => {
                let allowed = format!("{min_minor} to {max_minor} in {}", amount.currency());
                self.mistake(Column::AmountMinor, Wrong::new(problem, allowed));
            }
        }
    }

    pub fn timezone(&mut self) -> Option<Tz> {
        self.optional(Column::Timezone, |text| {
            text.parse()
                .map_err(|_| Wrong::new("is not a time zone", "an IANA name such as Europe/Warsaw"))
        })
    }

    /// A title, perhaps with placeholders. Without its shop, it is checked once that is right.
    pub fn title(&mut self, shop: Option<&ShopName>) -> Option<String> {
        self.optional(Column::Title, |text| {
            if let Some(shop) = shop {
                title::validate_template(text, shop).map_err(of_text)?;
            }
            Ok(text.to_owned())
        })
    }

    pub fn notification_url(&mut self) -> Option<String> {
        self.optional(Column::NotificationUrl, |text| {
            fields::validate_notification_url(text).map_err(of_text)?;
            Ok(text.to_owned())
        })
    }

    pub fn invoice(&mut self) -> Option<Value> {
        self.optional(Column::Invoice, |text| json(text, fields::validate_invoice))
    }

    /// Payouts, which are compared with the amount, and with the invoice when the tax is paid apart.
    pub fn multipayout(&mut self, amount: Option<Money>, invoice: Option<&Value>) -> Option<Value> {
        self.optional(Column::Multipayout, |text| {
            json(text, |payouts| {
                fields::validate_multipayout(payouts)?;
                amount.map_or(Ok(()), |amount| {
                    fields::validate_payout_sum(payouts, amount, invoice)
                })
            })
        })
    }

    /// Finds the first period to charge. It is a mistake when there is none.
    pub fn beginning(
        &mut self,
        terms: &Terms,
        paid_until: Option<NaiveDate>,
        today: NaiveDate,
    ) -> Option<Beginning> {
        // Wrong dates would only give a second mistake for the same cause.
        let dates = [
            Column::StartsOn,
            Column::EndsOn,
            Column::MaxCharges,
            Column::PaidUntil,
        ];
        if dates.into_iter().any(|column| self.has_mistake(column)) {
            return None;
        }
        let Some(first) = terms.first_period(paid_until, today) else {
            let after = match paid_until {
                Some(paid_until) => format!("after paid_until {paid_until}"),
                None => format!("today, {today}, or later"),
            };
            self.mistakes.push(Mistake::whole(Wrong::new(
                format!("has nothing left to charge: no period is due {after}"),
                "at least one period to charge",
            )));
            return None;
        };
        let begin = terms.starts_on.unwrap_or(terms.anchor);
        let first_owed = terms.period.first_due_from(terms.anchor, begin)?;
        Some(Beginning {
            first,
            paid_elsewhere: first.period_no.saturating_sub(first_owed),
            is_overdue: first.due_on < today,
        })
    }

    /// Says of whatever stands in `column` that it does not belong there.
    pub fn refuse(&mut self, column: Column, wrong: Wrong) {
        if self.fields.get(column).is_some() {
            self.mistake(column, wrong);
            self.fields.set(column, "");
        }
    }

    pub fn has_mistake(&self, column: Column) -> bool {
        let mut mistakes = self.mistakes.iter();
        mistakes.any(|mistake| mistake.column == Some(column))
    }

    pub fn required<T>(
        &mut self,
        column: Column,
        allowed: &str,
        read: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        if self.fields.get(column).is_none() && !self.has_mistake(column) {
            self.mistakes.push(Mistake::missing(column, allowed));
        }
        self.optional(column, read)
    }

    pub fn optional<T>(
        &mut self,
        column: Column,
        read: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        match read(self.fields.get(column)?) {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.mistake(column, wrong);
                None
            }
        }
    }

    pub fn mistake(&mut self, column: Column, wrong: Wrong) {
        let text = self.fields.get(column).unwrap_or_default();
        self.mistakes.push(Mistake::new(column, text, wrong));
    }
}

pub(super) fn of_text(error: FieldError) -> Wrong {
    Wrong::new(error.problem.to_string(), error.allowed)
}

/// Digits, perhaps after a minus sign; nothing else that Rust takes for a number.
fn whole_number(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // What does not fit is out of every range.
    Some(text.parse().unwrap_or(i64::MAX))
}

fn date(text: &str) -> Result<NaiveDate, Wrong> {
    let has_form = text.len() == 10
        && text.bytes().enumerate().all(|(place, byte)| match place {
            4 | 7 => byte == b'-',
            0..=3 | 5..=6 | 8.. => byte.is_ascii_digit(),
        });
    if !has_form {
        return Err(Wrong::new("is not a date", DATE));
    }
    let date = NaiveDate::from_str(text)
        .map_err(|_| Wrong::new("is a date that no calendar has", DATE))?;
    if YEARS.contains(&date.year()) {
        Ok(date)
    } else {
        Err(Wrong::new("is out of range", DATE))
    }
}

pub(super) fn json(
    text: &str,
    validate: impl FnOnce(&Value) -> Result<(), FieldError>,
) -> Result<Value, Wrong> {
    let value = serde_json::from_str(text).map_err(|error| {
        Wrong::new(
            format!(
                "is not JSON (line {}, column {} of it)",
                error.line(),
                error.column()
            ),
            "a JSON text as imoje documents it",
        )
    })?;
    match validate(&value) {
        Ok(()) => Ok(value),
        Err(error) => Err(Wrong::new(
            format!("is wrong: {} {}", error.field, error.problem),
            error.allowed,
        )),
    }
}
