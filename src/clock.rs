//! What time it is: the system's time, a tester's, or a faster one for demonstrations.
//!
//! The only file that reads the wall clock. Everything else takes `now` as an argument, or asks a [`Clock`] once at the top
//! of a loop. Times are whole microseconds, which is what PostgreSQL stores, so a time that was stored equals itself when it
//! is read back. How old a permit is, is not a matter of the wall clock, which somebody may set: a [`Moment`] tells.

use std::num::NonZeroU32;
use std::ops::Sub;
use std::time::{Duration, Instant};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
#[cfg(target_os = "linux")]
use nix::time::{ClockId, clock_gettime};
use tokio::sync::watch;

/// A source of the time. Clones show the same time.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System,
    Manual(watch::Sender<DateTime<Utc>>),
    Scaled {
        start: DateTime<Utc>,
        scale: NonZeroU32,
        since: Instant,
    },
}

/// The system's clock may be set while somebody sleeps, so a long sleep looks again this often.
const SLEEP_MAX: Duration = Duration::from_secs(60);

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock for tests, which stands still until [`Clock::advance`] or [`Clock::set`] moves it and all its clones.
    pub fn manual(start: DateTime<Utc>) -> Self {
        Self(Source::Manual(watch::Sender::new(start.trunc_subsecs(6))))
    }

    /// A clock that shows `start` now and lets `scale` seconds pass per real second. It does not follow the system's clock.
    pub fn scaled(start: DateTime<Utc>, scale: NonZeroU32) -> Self {
        Self(Source::Scaled {
            start: start.trunc_subsecs(6),
            scale,
            since: Instant::now(),
        })
    }

    /// Whether this is the system's clock, which somebody may set, and which other machines' clocks should agree with.
    pub const fn is_system(&self) -> bool {
        match self.0 {
            Source::System => true,
            Source::Manual(_) | Source::Scaled { .. } => false,
        }
    }

    /// The time, in whole microseconds.
    pub fn now(&self) -> DateTime<Utc> {
        match &self.0 {
            Source::System => system_now().trunc_subsecs(6),
            Source::Manual(time) => *time.borrow(),
            Source::Scaled {
                start,
                scale,
                since,
            } => {
                let passed = since.elapsed().as_micros() * u128::from(scale.get());
                i64::try_from(passed)
                    .ok()
                    .and_then(|micros| start.checked_add_signed(TimeDelta::microseconds(micros)))
                    .unwrap_or(DateTime::<Utc>::MAX_UTC)
            }
        }
    }

    /// How long `target` is away in real time; zero once it is reached.
    ///
    /// [`Duration::MAX`] for a manual clock before `target`, which no real time brings nearer.
    pub fn real_duration_until(&self, target: DateTime<Utc>) -> Duration {
        let away = (target - self.now()).to_std().unwrap_or(Duration::ZERO);
        match &self.0 {
            Source::System => away,
            Source::Manual(_) if away.is_zero() => away,
            Source::Manual(_) => Duration::MAX,
            // Rounded up, so that the target is reached when the time is over.
            Source::Scaled { scale, .. } => away / scale.get() + Duration::from_micros(1),
        }
    }

    /// Returns once `target` is reached; at once when it already is. Dropping the future is harmless.
    pub async fn sleep_until(&self, target: DateTime<Utc>) {
        match &self.0 {
            Source::System | Source::Scaled { .. } => {
                while self.now() < target {
                    tokio::time::sleep(self.real_duration_until(target).min(SLEEP_MAX)).await;
                }
            }
            Source::Manual(time) => {
                time.subscribe()
                    .wait_for(|now| *now >= target)
                    .await
                    .expect("the clock itself holds the sender");
            }
        }
    }

    /// Moves a manual clock, and all its clones, on by `by`.
    ///
    /// # Panics
    /// When `by` is negative or the clock is not manual.
    pub fn advance(&self, by: TimeDelta) {
        self.set(self.now() + by);
    }

    /// Moves a manual clock, and all its clones, on to `to`.
    ///
    /// # Panics
    /// When `to` is in the past or the clock is not manual.
    pub fn set(&self, to: DateTime<Utc>) {
        let Source::Manual(time) = &self.0 else {
            panic!("only a manual clock can be set");
        };
        let to = to.trunc_subsecs(6);
        time.send_modify(|now| {
            assert!(
                *now <= to,
                "a clock never runs backwards, from {now} to {to}"
            );
            *now = to;
        });
    }
}

/// A moment in the life of this machine, to tell afterwards how long ago it was. Nobody can set it, tests included.
///
/// [`Instant`] stands still while the machine is suspended, and would call a permit young that slept for a night. Only a machine
/// that is stopped from outside, by its hypervisor, may know nothing of it by any clock of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(TimeDelta);

impl Moment {
    /// This moment.
    pub fn now() -> Self {
        Self(TimeDelta::from_std(running_time()).expect("no machine runs for millions of years"))
    }

    /// How long ago it was, the time in which the machine was suspended included.
    pub fn elapsed(self) -> Duration {
        (Self::now().0 - self.0).to_std().unwrap_or(Duration::ZERO)
    }
}

impl Sub<TimeDelta> for Moment {
    type Output = Self;

    fn sub(self, by: TimeDelta) -> Self {
        Self(self.0 - by)
    }
}

/// How long this machine has been running, suspended or not.
#[cfg(target_os = "linux")]
fn running_time() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .expect("every Linux that Rust supports has this clock")
        .into()
}

/// How long this process has been running: elsewhere there is no such clock, and the time of a suspension is not counted.
#[cfg(not(target_os = "linux"))]
fn running_time() -> Duration {
    static STARTED: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    STARTED.elapsed()
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the wall clock"
)]
fn system_now() -> DateTime<Utc> {
    Utc::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> DateTime<Utc> {
        "2027-01-01T05:00:00.123456789Z".parse().unwrap()
    }

    #[test]
    fn clones_of_a_manual_clock_share_the_time() {
        let clock = Clock::manual(start());
        let clone = clock.clone();
        clock.advance(TimeDelta::days(30));
        assert_eq!(clone.now(), clock.now());
        assert_eq!(clone.now().to_rfc3339(), "2027-01-31T05:00:00.123456+00:00");
    }

    #[test]
    fn times_are_whole_microseconds() {
        let scale = NonZeroU32::new(86_400).unwrap();
        for clock in [
            Clock::system(),
            Clock::manual(start()),
            Clock::scaled(start(), scale),
        ] {
            assert_eq!(clock.now().timestamp_subsec_nanos() % 1_000, 0, "{clock:?}");
        }
    }

    #[test]
    #[should_panic(expected = "a clock never runs backwards")]
    fn a_manual_clock_refuses_to_run_backwards() {
        Clock::manual(start()).advance(TimeDelta::microseconds(-1));
    }

    #[test]
    #[should_panic(expected = "only a manual clock can be set")]
    fn the_system_clock_cannot_be_set() {
        Clock::system().set(start());
    }

    #[test]
    fn a_scaled_clock_starts_where_it_is_told_and_needs_less_real_time() {
        let clock = Clock::scaled(start(), NonZeroU32::new(86_400).unwrap());
        assert!(clock.now() >= start().trunc_subsecs(6));
        assert!(
            clock.real_duration_until(start() + TimeDelta::days(30)) <= Duration::from_secs(31)
        );
        assert_eq!(
            Clock::system().real_duration_until(DateTime::UNIX_EPOCH),
            Duration::ZERO
        );
    }

    #[test]
    fn a_scaled_clock_stands_still_at_the_end_of_the_calendar() {
        let end = DateTime::<Utc>::MAX_UTC;
        let clock = Clock::scaled(end - TimeDelta::nanoseconds(1), NonZeroU32::MAX);
        while clock.now() < end {
            std::thread::yield_now();
        }
        assert_eq!(clock.real_duration_until(end), Duration::from_micros(1));
    }

    #[test]
    fn a_moment_is_as_old_as_it_is_and_none_is_yet_to_come() {
        let moment = Moment::now();
        let an_hour_ago = moment - TimeDelta::hours(1);
        assert!(an_hour_ago < moment && an_hour_ago.elapsed() >= Duration::from_secs(3_600));
        assert_eq!((moment - TimeDelta::hours(-1)).elapsed(), Duration::ZERO);
    }

    /// The kernel counts suspensions in this file as well.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_moment_counts_the_time_since_the_machine_was_started() {
        let uptime = || {
            let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
            let (seconds, _) = uptime.split_once('.').unwrap();
            TimeDelta::seconds(seconds.parse().unwrap())
        };
        let (before, moment, after) = (uptime(), Moment::now(), uptime());
        assert!(before <= moment.0 && moment.0 <= after + TimeDelta::seconds(1));
    }

    #[tokio::test]
    async fn a_sleeper_wakes_when_the_manual_clock_reaches_the_time() {
        let clock = Clock::manual(start());
        let target = clock.now() + TimeDelta::hours(2);
        assert_eq!(clock.real_duration_until(target), Duration::MAX);
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep_until(target).await }
        });
        clock.advance(TimeDelta::hours(1));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance(TimeDelta::hours(1));
        sleeper.await.unwrap();
        assert_eq!(clock.real_duration_until(target), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_sleep_on_a_scaled_clock_ends_at_or_after_its_time() {
        let clock = Clock::scaled(start(), NonZeroU32::new(86_400).unwrap());
        let target = clock.now() + TimeDelta::minutes(10);
        clock.sleep_until(target).await;
        assert!(clock.now() >= target);
    }
}
