//! What the brakes leave of a claim: nothing, everything, or as much as a slow start allows.
//!
//! A claim holds the brakes `FOR SHARE`, so that claims do not wait for each other and a stop waits for all of them. Where a shop
//! starts slowly, claims count in the row of the brake and lock it against each other: two that count at once would both take what is
//! left. That costs nothing, for so few charges are on their way then.

use chrono::{DateTime, Utc};
use sqlx::PgTransaction;

use crate::domain::id::AttemptId;
use crate::domain::shop::ShopName;
use crate::domain::slow_start::{PATIENCE, Progress, Stage, Tally, progress};
use crate::store::brakes::{ALL_SHOPS, BrakeMode};
use crate::store::permits::Permit;
use crate::store::{StoreError, readings};

/// How a claim holds the brakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// Beside other claims.
    Shared,
    /// Alone.
    Alone,
}

/// What the brakes say to a claim.
pub(super) enum Answer {
    /// It may take as much as this.
    Allows(Allowance),
    /// It may take nothing.
    Refuses(Obstacle),
}

/// Why a claim may take nothing.
pub(super) enum Obstacle {
    /// The brake of all shops is on.
    Braked,
    /// What was sent in a slow start has to be final first.
    StartsSlowly,
    /// There is a slow start, and only a claim that holds the brakes alone may count.
    MustHoldAlone,
    /// A pause is over and has to be ended first.
    PauseIsOver,
}

/// What a claim may take.
pub(super) struct Allowance {
    /// Of these shops.
    pub shops: Vec<ShopName>,
    /// So many at most.
    pub room: u32,
    slow: Vec<SlowStart>,
}

/// A slow start, as far as it is now.
struct SlowStart {
    /// The shop, or `*` for all.
    scope: String,
    /// Where it is; `None` once it is over.
    stage: Option<Stage>,
    permits_max: u32,
    is_new: bool,
    attempts: Vec<AttemptId>,
    room: u32,
}

struct Row {
    shop: String,
    mode: BrakeMode,
    until: Option<DateTime<Utc>>,
    stage: Option<i16>,
    stage_max: Option<i32>,
    stage_attempts: Vec<AttemptId>,
}

/// Locks the brakes of `shops` and of all until the transaction ends, and says what they allow.
pub(super) async fn ask(
    transaction: &mut PgTransaction<'_>,
    shops: &[ShopName],
    hold: Hold,
    in_flight_max: u32,
    now: DateTime<Utc>,
) -> Result<Answer, StoreError> {
    let brakes = lock(transaction, shops, hold).await?;
    if brakes
        .iter()
        .any(|brake| brake.until.is_some_and(|until| until <= now))
    {
        return Ok(Answer::Refuses(Obstacle::PauseIsOver));
    }
    let runs = |shop: &str| {
        brakes
            .iter()
            .find(|brake| brake.shop == shop)
            .map(|brake| brake.mode == BrakeMode::Run)
    };
    if runs(ALL_SHOPS) != Some(true) {
        return Ok(Answer::Refuses(Obstacle::Braked));
    }
    let running = shops
        .iter()
        .filter(|shop| runs(shop.as_str()) != Some(false))
        .cloned()
        .collect();
    let slow: Vec<_> = brakes
        .into_iter()
        .filter(|brake| brake.stage.is_some())
        .collect();
    if slow.is_empty() {
        return Ok(Answer::Allows(Allowance {
            shops: running,
            room: u32::MAX,
            slow: Vec::new(),
        }));
    }
    match hold {
        Hold::Shared => Ok(Answer::Refuses(Obstacle::MustHoldAlone)),
        Hold::Alone => slowly(transaction, running, slow, in_flight_max, now).await,
    }
}

async fn lock(
    transaction: &mut PgTransaction<'_>,
    shops: &[ShopName],
    hold: Hold,
) -> Result<Vec<Row>, StoreError> {
    // In one order, so that two that lock several rows do not wait for each other.
    let rows = match hold {
        Hold::Shared => {
            sqlx::query_as!(
                Row,
                r#"-- lock_brakes
                SELECT shop, mode AS "mode: BrakeMode", until, stage, stage_max, '{}'::uuid[] AS "stage_attempts!: Vec<AttemptId>"
                FROM brakes WHERE shop = '*' OR shop = ANY($1) ORDER BY shop FOR SHARE"#,
                shops as &[ShopName],
            )
            .fetch_all(&mut **transaction)
            .await?
        }
        Hold::Alone => {
            sqlx::query_as!(
                Row,
                r#"-- lock_brakes_alone
                SELECT shop, mode AS "mode: BrakeMode", until, stage, stage_max, stage_attempts AS "stage_attempts: Vec<AttemptId>"
                FROM brakes WHERE shop = '*' OR shop = ANY($1) ORDER BY shop FOR UPDATE"#,
                shops as &[ShopName],
            )
            .fetch_all(&mut **transaction)
            .await?
        }
    };
    Ok(rows)
}

/// What slow starts allow, of all shops and of each.
async fn slowly(
    transaction: &mut PgTransaction<'_>,
    mut shops: Vec<ShopName>,
    brakes: Vec<Row>,
    in_flight_max: u32,
    now: DateTime<Utc>,
) -> Result<Answer, StoreError> {
    let mut slow = Vec::new();
    for brake in brakes {
        slow.push(SlowStart::read(transaction, brake, in_flight_max, now).await?);
    }
    let room_of = |scope: &str| {
        let start = slow.iter().find(|start| start.scope == scope);
        start.map_or(u32::MAX, |start| start.room)
    };
    let had_shops = !shops.is_empty();
    shops.retain(|shop| room_of(shop.as_str()) > 0);
    // Of several shops that start slowly, a claim takes as much as each of them alone might.
    let room = shops
        .iter()
        .map(|shop| room_of(shop.as_str()))
        .fold(room_of(ALL_SHOPS), u32::min);
    if room == 0 || had_shops && shops.is_empty() {
        return Ok(Answer::Refuses(Obstacle::StartsSlowly));
    }
    Ok(Answer::Allows(Allowance { shops, room, slow }))
}

impl SlowStart {
    /// How far it is.
    async fn read(
        transaction: &mut PgTransaction<'_>,
        brake: Row,
        in_flight_max: u32,
        now: DateTime<Utc>,
    ) -> Result<Self, StoreError> {
        let stage = readings::stage(brake.stage.unwrap_or_default())?;
        let permits_max = readings::count(brake.stage_max.unwrap_or_default())?;
        let (attempts, tally) = follow(transaction, &brake.stage_attempts, now).await?;
        let begins = |stage: Stage| (Some(stage), stage.permits_max(in_flight_max));
        let (stage, permits_max) = match progress(stage, permits_max, tally) {
            Progress::Stays(room) => {
                return Ok(Self {
                    scope: brake.shop,
                    stage: Some(stage),
                    permits_max,
                    is_new: false,
                    attempts,
                    room,
                });
            }
            Progress::Passes(next) => begins(next),
            Progress::BeginsAgain => begins(Stage::One),
            Progress::Over => (None, u32::MAX),
        };
        Ok(Self {
            scope: brake.shop,
            stage,
            permits_max,
            is_new: true,
            attempts: Vec::new(),
            room: permits_max,
        })
    }
}

/// What became of the permits of a stage, and which of them count. One that is not there any more is final: it went to the
/// archive.
async fn follow(
    transaction: &mut PgTransaction<'_>,
    attempts: &[AttemptId],
    now: DateTime<Utc>,
) -> Result<(Vec<AttemptId>, Tally), StoreError> {
    if attempts.is_empty() {
        return Ok((Vec::new(), Tally::default()));
    }
    let rows = sqlx::query!(
        r#"-- follow_slow_start
        SELECT s.attempt_id AS "attempt_id!: AttemptId",
               coalesce(a.state = 'in_doubt' OR a.state = 'pending' AND a.permitted_at > $2, false) AS "is_open!",
               coalesce(a.state = 'in_doubt' AND a.permitted_at <= $2, false) AS "is_doubt!"
        FROM unnest($1::uuid[]) AS s (attempt_id) LEFT JOIN attempts a USING (attempt_id)
        WHERE a.state IS DISTINCT FROM 'not_sent'"#,
        attempts as &[AttemptId],
        now - PATIENCE,
    )
    .fetch_all(&mut **transaction)
    .await?;
    let mut tally = Tally::default();
    for row in &rows {
        tally.given += 1;
        tally.open += u32::from(row.is_open);
        tally.doubts += u32::from(row.is_doubt);
    }
    Ok((rows.into_iter().map(|row| row.attempt_id).collect(), tally))
}

impl Allowance {
    /// Whether a slow start is to be counted in.
    pub fn is_slow(&self) -> bool {
        !self.slow.is_empty()
    }

    /// Counts `permits`, which are not written yet, and notes how far each slow start is.
    pub async fn count(
        self,
        transaction: &mut PgTransaction<'_>,
        permits: &[Permit],
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        for start in self.slow {
            let mut attempts = start.attempts;
            if start.stage.is_some() {
                let counts =
                    |permit: &&Permit| [ALL_SHOPS, permit.shop.as_str()].contains(&&*start.scope);
                attempts.extend(
                    permits
                        .iter()
                        .filter(counts)
                        .map(|permit| permit.attempt_id),
                );
            }
            sqlx::query!(
                "-- count_slow_start
                UPDATE brakes SET stage = $2, stage_max = $3, stage_attempts = $4,
                    stage_since = CASE WHEN $2::smallint IS NULL THEN NULL WHEN $5 THEN $6 ELSE stage_since END
                WHERE shop = $1",
                start.scope,
                start.stage.map(Stage::number),
                start
                    .stage
                    .map(|_| readings::stored_count(start.permits_max))
                    .transpose()?,
                &attempts as &[AttemptId],
                start.is_new,
                now,
            )
            .execute(&mut **transaction)
            .await?;
        }
        Ok(())
    }
}
