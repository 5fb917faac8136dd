//! Looking at the clocks: this machine's, the database's and imoje's have to agree, or nothing is permitted.
//!
//! A wrong clock charges on the wrong day. Only the system's clock is compared: a tester's or a faster one agrees with nobody.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};

use super::Charger;
use crate::domain::shop::ShopName;
use crate::domain::tripwire::{self, Clocks, Trip};

/// For so long what imoje's clock showed is counted on.
const GATEWAY_AGE_MAX: Duration = Duration::from_secs(600);

/// How often the clocks are looked at within a run.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How often imoje is asked for the time while clocks disagree: nothing else is sent then that would tell it.
const ASK_EVERY: Duration = Duration::from_secs(60);

/// What was seen of the clocks. Clones share it.
#[derive(Clone, Default)]
pub struct ClockWatch(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    looked: Option<Look>,
    asked_at: Option<Instant>,
    gateways: HashMap<ShopName, Look>,
}

/// A clock, and when it was looked at by one that nobody can set.
#[derive(Clone, Copy)]
struct Look {
    showed: DateTime<Utc>,
    at: Instant,
    disagreed: bool,
}

impl Look {
    /// What a clock shows that showed this much then, if nobody has set it.
    fn now(&self) -> DateTime<Utc> {
        TimeDelta::from_std(self.at.elapsed()).map_or(self.showed, |elapsed| self.showed + elapsed)
    }
}

impl ClockWatch {
    /// Notes what imoje's clock showed in an answer for `shop`.
    pub(super) fn note_gateway(&self, shop: &ShopName, showed: Option<DateTime<Utc>>) {
        if let Some(showed) = showed {
            let look = Look {
                showed,
                at: Instant::now(),
                disagreed: false,
            };
            self.seen().gateways.insert(shop.clone(), look);
        }
    }

    /// Whether it is long enough since the last look.
    fn is_stale(&self) -> bool {
        let seen = self.seen();
        seen.looked
            .is_none_or(|looked| looked.at.elapsed() >= LOOK_EVERY)
    }

    /// Compares the clocks. Returns the trip that follows, and whether they disagreed at the last look.
    fn compare(
        &self,
        host: DateTime<Utc>,
        database: DateTime<Utc>,
        gap_max: TimeDelta,
    ) -> (Option<Trip>, bool) {
        let mut seen = self.seen();
        let jump = seen
            .looked
            .map_or(TimeDelta::zero(), |looked| host - looked.now());
        let of = |gateway: Option<DateTime<Utc>>| Clocks {
            host,
            database,
            gateway,
            jump,
        };
        let disagreement = seen
            .gateways
            .values()
            .filter(|look| look.at.elapsed() <= GATEWAY_AGE_MAX)
            .map(|look| Some(look.now()))
            .chain([None])
            .find_map(|gateway| tripwire::disagreement(&of(gateway), gap_max));
        let disagreed = seen.looked.is_some_and(|looked| looked.disagreed);
        seen.looked = Some(Look {
            showed: host,
            at: Instant::now(),
            disagreed: disagreement.is_some(),
        });
        (disagreement.map(Trip::Clocks), disagreed)
    }

    /// Whether imoje has to be asked for the time: clocks disagreed, and it was not asked lately.
    fn asks(&self) -> bool {
        let mut seen = self.seen();
        let is_asked = seen.looked.is_some_and(|looked| looked.disagreed)
            && seen
                .asked_at
                .is_none_or(|asked_at| asked_at.elapsed() >= ASK_EVERY);
        if is_asked {
            seen.asked_at = Some(Instant::now());
        }
        is_asked
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Charger {
    /// Whether the clocks agree, of which the database's shows `database`. While they do not, charging pauses, everywhere: who of them
    /// is wrong is not known.
    ///
    /// # Errors
    /// When the pause could not be stored or ended.
    pub(super) async fn do_clocks_agree(
        &self,
        mut database: DateTime<Utc>,
    ) -> anyhow::Result<bool> {
        if !self.clock.is_system() {
            return Ok(true);
        }
        if self.clocks.asks() {
            self.ask_for_the_time().await;
            // The answer may have taken its time.
            database = self.store.time_of_database().await?;
        }
        let now = self.clock.now();
        match self.clocks.compare(now, database, self.clock_gap_max) {
            (Some(trip), _) => {
                if self.store.trip(None, trip, now).await? {
                    tracing::error!(?trip, "clocks disagree; charging pauses");
                }
                Ok(false)
            }
            (None, true) => {
                self.store.clocks_agree_again(now).await?;
                tracing::info!("the clocks agree again");
                Ok(true)
            }
            (None, false) => Ok(true),
        }
    }

    /// As [`Charger::do_clocks_agree`], unless that was looked at just now.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(super) async fn do_clocks_still_agree(&self) -> anyhow::Result<bool> {
        if !self.clock.is_system() || !self.clocks.is_stale() {
            return Ok(true);
        }
        let database = self.store.time_of_database().await?;
        self.do_clocks_agree(database).await
    }

    /// Asks imoje about each shop, for the time at which it answers.
    async fn ask_for_the_time(&self) {
        for shop in self.shops.iter() {
            match shop.client.service().await {
                Ok(service) => self.clocks.note_gateway(&shop.name, service.sent_at),
                Err(error) => {
                    tracing::warn!(%error, shop = %shop.name, "couldn't ask imoje for the time")
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAP_MAX: TimeDelta = TimeDelta::seconds(120);

    #[test]
    fn a_clock_that_is_set_disagrees_with_itself_once() {
        let at: DateTime<Utc> = "2027-01-01T07:00:00Z".parse().unwrap();
        for by in [TimeDelta::hours(1), TimeDelta::hours(-1)] {
            let watch = ClockWatch::default();
            assert_eq!(watch.compare(at, at, GAP_MAX), (None, false));
            let (trip, had_disagreed) = watch.compare(at + by, at + by, GAP_MAX);
            assert!(matches!(trip, Some(Trip::Clocks(_))) && !had_disagreed);
            assert_eq!(watch.compare(at + by, at + by, GAP_MAX), (None, true));
            assert_eq!(watch.compare(at + by, at + by, GAP_MAX), (None, false));
        }
    }

    #[test]
    fn what_imoje_showed_is_compared_and_asked_for_again_only_after_a_disagreement() {
        let at: DateTime<Utc> = "2027-01-01T07:00:00Z".parse().unwrap();
        let shop: ShopName = "main".parse().unwrap();
        let watch = ClockWatch::default();
        watch.note_gateway(&shop, Some(at));
        assert_eq!(watch.compare(at, at, GAP_MAX), (None, false));
        assert!(!watch.asks());
        watch.note_gateway(&shop, Some(at + TimeDelta::minutes(5)));
        assert!(watch.compare(at, at, GAP_MAX).0.is_some());
        assert!(watch.asks());
        assert!(!watch.asks(), "it was asked just now");
        watch.note_gateway(&shop, Some(at));
        assert_eq!(watch.compare(at, at, GAP_MAX), (None, true));
    }
}
