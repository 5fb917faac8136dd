//! What PostgreSQL knows about time zones. Views compute local dates with its tables, Cykl with its own; they must agree.

use chrono::{DateTime, Utc};

use crate::store::{Store, StoreError};

/// An instant in a zone, as PostgreSQL sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneOffset {
    /// The IANA name.
    pub zone: String,
    /// The instant.
    pub at: DateTime<Utc>,
    /// How far local time is ahead of UTC then, in seconds; `None` when PostgreSQL does not know the zone.
    pub offset_seconds: Option<i64>,
}

impl Store {
    /// The offset of each zone at each instant.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn zone_offsets(
        &self,
        zones: &[String],
        instants: &[DateTime<Utc>],
    ) -> Result<Vec<ZoneOffset>, StoreError> {
        // PostgreSQL fails on the name of a zone that it does not know, hence CASE and not AND.
        Ok(sqlx::query_as!(
            ZoneOffset,
            r#"-- zone_offsets
            SELECT n.zone AS "zone!", i.at AS "at!",
                   CASE WHEN z.name IS NOT NULL
                        THEN extract(epoch FROM (i.at AT TIME ZONE n.zone) - (i.at AT TIME ZONE 'UTC'))::bigint
                   END AS offset_seconds
            FROM unnest($1::text[]) AS n (zone)
                CROSS JOIN unnest($2::timestamptz[]) AS i (at)
                LEFT JOIN pg_timezone_names z ON z.name = n.zone
            ORDER BY n.zone, i.at"#,
            zones,
            instants,
        )
        .fetch_all(&self.pool)
        .await?)
    }
}
