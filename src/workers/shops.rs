//! The shops that the workers bill for: their calendar, and their way to imoje.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};
use chrono_tz::Tz;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use secrecy::SecretString;
use url::Url;

use crate::domain::calendar::{self, ChargeTime};
use crate::domain::id::{AttemptId, SubscriptionId};
use crate::domain::schedule::{CatchUp, DuePeriod};
use crate::domain::shop::ShopName;
use crate::gateway::{self, ImojeClient};
use crate::store::planning::NextPeriod;
use crate::store::registrations::Attaching;
use crate::store::status::Stopped;

/// A shop, as the workers see it.
pub struct Shop {
    /// Its name.
    pub name: ShopName,
    /// Its way to imoje.
    pub client: ImojeClient,
    /// When its charges fall due.
    pub calendar: ShopCalendar,
    /// Where imoje is asked to send notices about a debit, when a public address is configured.
    pub notices: Option<NoticeAddress>,
    /// Whether imoje could not be reached for it the last time: then one charge goes ahead of the others.
    pub is_unreachable: AtomicBool,
    rate: Option<Rate>,
}

/// When a shop's charges fall due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShopCalendar {
    /// The local time of day.
    pub charge_time: NaiveTime,
    /// How far a day's charges are spread out after it.
    pub spread: TimeDelta,
    /// What is done about periods that were missed.
    pub catch_up: CatchUp,
    /// How late a charge may be before a person approves it.
    pub max_lateness: TimeDelta,
}

impl ShopCalendar {
    /// The instant at which a charge of `subscription_id` due on `date` falls due.
    pub fn due_at(
        &self,
        subscription_id: SubscriptionId,
        zone: Tz,
        date: NaiveDate,
    ) -> DateTime<Utc> {
        ChargeTime {
            zone,
            time_of_day: self.charge_time,
            offset: calendar::spread_offset(subscription_id.as_uuid(), self.spread),
        }
        .on(date)
    }

    /// The first period of a subscription that was stopped which falls due after `now`, if there is one.
    pub fn next_period(&self, stopped: &Stopped, now: DateTime<Utc>) -> Option<NextPeriod> {
        let due_at = |date| self.due_at(stopped.subscription_id, stopped.zone, date);
        let due = (stopped.terms).first_period_due_after(now, stopped.from_period_no, due_at)?;
        Some(self.with_instant(stopped, due))
    }

    /// The first period of a subscription that goes on with a new card, which was paid with at `paid_at`, if there is one. Not from now on:
    /// however late that was heard of, no period is lost by it.
    pub fn period_with_card(
        &self,
        stopped: &Stopped,
        how: Attaching,
        paid_at: DateTime<Utc>,
    ) -> Option<NextPeriod> {
        let (terms, from) = (&stopped.terms, stopped.from_period_no);
        let due = match how {
            Attaching::AfterFirstCharge => terms.period(from)?,
            Attaching::FromToday => {
                let day = paid_at.with_timezone(&stopped.zone).date_naive();
                terms.first_period_from(day, from)?
            }
            Attaching::AfterStop => return self.next_period(stopped, paid_at),
        };
        Some(self.with_instant(stopped, due))
    }

    fn with_instant(&self, stopped: &Stopped, due: DuePeriod) -> NextPeriod {
        NextPeriod {
            period_no: due.period_no,
            due_on: due.due_on,
            due_at: self.due_at(stopped.subscription_id, stopped.zone, due.due_on),
        }
    }
}

/// The public address for notices, and the key that makes the address of each attempt unguessable.
pub struct NoticeAddress {
    /// Where this daemon is reached from outside.
    pub public_url: Url,
    /// The shop's service key.
    pub key: SecretString,
}

struct Rate {
    per_second: NonZeroU32,
    limiter: DefaultDirectRateLimiter,
}

impl Shop {
    /// A shop whose debits are limited to `rate_per_second`, if given.
    pub fn new(
        name: ShopName,
        client: ImojeClient,
        calendar: ShopCalendar,
        notices: Option<NoticeAddress>,
        rate_per_second: Option<NonZeroU32>,
    ) -> Self {
        let rate = rate_per_second.map(|per_second| Rate {
            per_second,
            limiter: RateLimiter::direct(Quota::per_second(per_second)),
        });
        Self {
            name,
            client,
            calendar,
            notices,
            is_unreachable: AtomicBool::new(false),
            rate,
        }
    }

    /// How many debits may be permitted at once so that the last of them is still sent well before its permit is too old.
    pub fn claim_max(&self) -> u32 {
        const SECONDS: u32 = 20;
        self.rate.as_ref().map_or(u32::MAX, |rate| {
            rate.per_second.get().saturating_mul(SECONDS)
        })
    }

    /// Waits until the shop's rate allows another debit. Returns whether there was anything to wait for.
    pub async fn wait_for_rate(&self) -> bool {
        match &self.rate {
            Some(rate) if rate.limiter.check().is_err() => {
                rate.limiter.until_ready().await;
                true
            }
            Some(_) | None => false,
        }
    }

    /// The address that imoje is asked to send notices about `attempt_id` to.
    pub fn notification_url(&self, attempt_id: AttemptId) -> Option<Url> {
        self.notices
            .as_ref()
            .map(|notices| gateway::notification_url(&notices.public_url, attempt_id, &notices.key))
    }
}

/// Every shop of the configuration, by name.
#[derive(Clone, Default)]
pub struct Shops(Arc<BTreeMap<ShopName, Shop>>);

impl Shops {
    /// The shops.
    pub fn new(shops: impl IntoIterator<Item = Shop>) -> Self {
        Self(Arc::new(
            shops
                .into_iter()
                .map(|shop| (shop.name.clone(), shop))
                .collect(),
        ))
    }

    /// Their names.
    pub fn names(&self) -> Vec<ShopName> {
        self.0.keys().cloned().collect()
    }

    /// The shop of that name.
    pub fn get(&self, name: &ShopName) -> Option<&Shop> {
        self.0.get(name)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Shop> {
        self.0.values()
    }
}
