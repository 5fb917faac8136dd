//! What the demo shows while it runs: a bar on a terminal, otherwise a line now and then.

use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, Utc};
use indicatif::{ProgressBar, ProgressStyle};

use crate::store::report;

/// The days between two lines when the output is no terminal.
const DAYS_BETWEEN_LINES: i64 = 30;

pub(super) struct Progress {
    bar: Option<ProgressBar>,
    start: DateTime<Utc>,
    next_line: AtomicI64,
}

impl Progress {
    /// For the time from `start` to `end`.
    pub fn new(is_terminal: bool, start: DateTime<Utc>, end: DateTime<Utc>) -> Self {
        let bar = is_terminal.then(|| {
            let days = u64::try_from((end - start).num_days()).unwrap_or(0);
            let style = ProgressStyle::with_template("{wide_bar} {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(days).with_style(style)
        });
        Self {
            bar,
            start,
            next_line: AtomicI64::new(0),
        }
    }

    /// How things stand at `now`.
    pub fn show(&self, now: DateTime<Utc>, progress: &report::Progress) {
        let day = (now - self.start).num_days();
        match &self.bar {
            Some(bar) => {
                bar.set_position(u64::try_from(day).unwrap_or(0));
                bar.set_message(line(now, progress));
            }
            None if day >= self.next_line.load(Ordering::Relaxed) => {
                self.next_line
                    .store(day + DAYS_BETWEEN_LINES, Ordering::Relaxed);
                println!("{}", line(now, progress));
            }
            None => {}
        }
    }

    /// How things stand at the end.
    pub fn finish(&self, end: DateTime<Utc>, progress: &report::Progress) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        println!("{}", line(end, progress));
    }
}

fn line(now: DateTime<Utc>, progress: &report::Progress) -> String {
    format!(
        "{}  due {:>5}  paid {:>5}  declined {:>4}  in doubt {:>3}",
        now.date_naive(),
        progress.charges,
        progress.paid,
        progress.declined,
        progress.in_doubt
    )
}
