//! The scheduler: subscriptions that are due get their charge, and move on to the next period.
//!
//! It looks for `due <= now`, never for `due = today`, so downtime loses nothing; and it plans one period of a subscription at a
//! time, in one transaction with moving it on, so a crash plans nothing twice.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use crate::domain::id::SubscriptionId;
use crate::domain::schedule::Birth;
use crate::domain::shop::ShopName;
use crate::metrics::{Metrics, ShopOnly, ShopState};
use crate::store::Store;
use crate::store::planning::{DueSubscription, NextPeriod, Plan};
use crate::workers::shops::Shops;

/// How many batches one run plans at most; the next run goes on.
const BATCHES_MAX: usize = 100_000;

/// How many batches may wait to be sent before planning slows down.
const BATCHES_AHEAD: usize = 1;

/// How often it is looked whether a batch was sent.
const GLANCE: Duration = Duration::from_millis(50);

/// How long planning waits for a batch to be sent, at most.
const PATIENCE: Duration = Duration::from_secs(1);

/// Plans charges.
#[derive(Clone)]
pub struct Scheduler {
    store: Store,
    shops: Shops,
    metrics: Metrics,
    stop: CancellationToken,
    permitted: Arc<BTreeSet<(SubscriptionId, u32)>>,
}

/// What one run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Charges planned.
    pub planned: usize,
    /// Subscriptions whose last period was closed.
    pub completed: usize,
}

impl Scheduler {
    /// A scheduler for `shops`, until `stop` is cancelled.
    pub fn new(store: Store, shops: Shops, metrics: Metrics, stop: CancellationToken) -> Self {
        Self {
            store,
            shops,
            metrics,
            stop,
            permitted: Arc::default(),
        }
    }

    /// The same, which knows that these periods were permitted already: however late they are, their charges are neither held nor
    /// skipped.
    #[must_use]
    pub fn knowing(self, permitted: BTreeSet<(SubscriptionId, u32)>) -> Self {
        Self {
            permitted: Arc::new(permitted),
            ..self
        }
    }

    /// Plans everything that is due by `now`.
    ///
    /// # Errors
    /// When the database fails; what was planned before stays planned, and the next run finds the rest.
    pub async fn run_once(&self, now: DateTime<Utc>) -> anyhow::Result<Report> {
        let names = self.shops.names();
        let mut report = Report::default();
        if !self.store.has_work_for_scheduler(&names, now).await? {
            return Ok(report);
        }
        let mut due_from = None;
        let mut waiting = VecDeque::new();
        for _ in 0..BATCHES_MAX {
            if self.stop.is_cancelled() {
                return Ok(report);
            }
            // Nobody sends anything while books catch up before an adoption.
            if self.permitted.is_empty()
                && waiting.len() > BATCHES_AHEAD
                && let Some((from, until)) = waiting.pop_front()
            {
                self.keep_pace(&names, from, until).await?;
            }
            let planned = self
                .store
                .plan_due(&names, due_from, now, |due| self.plan(due, now))
                .await?;
            if planned.is_empty() && due_from.is_none() {
                break;
            }
            // At the end it looks once more for what came in before the place where it is.
            due_from = planned.first().map(|first| first.due_at);
            if let (Some(first), Some(last)) = (planned.first(), planned.last()) {
                waiting.push_back((first.due_at, last.due_at));
            }
            report.planned += planned.len();
            for one in planned {
                self.metrics
                    .expected_charges
                    .get_or_create(&ShopOnly::of(&one.shop))
                    .inc();
                self.metrics
                    .charges
                    .get_or_create(&ShopState::of(&one.shop, one.birth.charge_state().as_str()))
                    .inc();
            }
        }
        report.completed = self.store.complete_finished(now).await?;
        Ok(report)
    }

    /// Waits until the charges that fell due in this time were sent, or a moment at most: what is not planned now is planned late.
    ///
    /// Far ahead of the charger, the scheduler would push out of memory what the charger needs again for each charge.
    async fn keep_pace(
        &self,
        shops: &[ShopName],
        from: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> anyhow::Result<()> {
        let patience = Instant::now() + PATIENCE;
        while self.store.waits_to_be_sent(shops, from, until).await? && Instant::now() < patience {
            let glance = tokio::time::sleep(GLANCE);
            if self.stop.run_until_cancelled(glance).await.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn plan(&self, due: &DueSubscription, now: DateTime<Utc>) -> Plan {
        let Some(shop) = self.shops.get(&due.shop) else {
            // The store is asked for configured shops only.
            return Plan {
                birth: Birth::Held,
                next: None,
            };
        };
        let next = due.terms.period(due.period_no + 1).map(|next| NextPeriod {
            period_no: next.period_no,
            due_on: next.due_on,
            due_at: shop
                .calendar
                .due_at(due.subscription_id, due.zone, next.due_on),
        });
        let birth = shop.calendar.catch_up.birth(
            shop.calendar.max_lateness,
            due.due_at,
            next.map(|next| next.due_at),
            now,
        );
        let was_permitted = self
            .permitted
            .contains(&(due.subscription_id, due.period_no));
        Plan {
            birth: if was_permitted { Birth::Planned } else { birth },
            next,
        }
    }
}
