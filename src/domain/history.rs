//! How long the books are kept.

use chrono::{DateTime, Datelike, NaiveDate, TimeDelta, Utc};

/// For how long the books are kept, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryPolicy {
    /// How long after it was paid, or planned if it was not, a closed period goes to the archive; events and notices by their own age.
    pub archive_after: TimeDelta,
    /// How many calendar years the archive is kept after the one in which a period was due. For ever when `None`.
    pub keep_years: Option<u16>,
}

impl HistoryPolicy {
    /// The first day that is still kept.
    pub fn kept_from(&self, now: DateTime<Utc>) -> Option<NaiveDate> {
        let years = i32::from(self.keep_years?);
        NaiveDate::from_ymd_opt(now.year() - years, 1, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_year_is_kept_until_as_many_whole_years_have_followed_it() {
        let policy = |keep_years| HistoryPolicy {
            archive_after: TimeDelta::days(120),
            keep_years,
        };
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let kept_from = |keep_years, now| {
            let day = policy(keep_years).kept_from(at(now));
            day.map(|day| day.to_string())
        };
        let expected = Some("2027-01-01".to_owned());
        assert_eq!(kept_from(Some(5), "2032-01-01T00:00:00Z"), expected);
        assert_eq!(kept_from(Some(5), "2032-12-31T23:59:59Z"), expected);
        assert_eq!(kept_from(None, "2032-12-31T23:59:59Z"), None);
    }
}
