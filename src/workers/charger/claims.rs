//! Claiming: permits are committed in batches, ahead of their turn on the wire as far as the limits allow.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::mpsc::UnboundedSender;

use super::flight::Landed;
use super::{Report, Run};
use crate::clock::Moment;
use crate::domain::shop::ShopName;
use crate::journal::JournalError;
use crate::reconnect::Delays;
use crate::store::Refusal;
use crate::store::permits::{BATCH_MAX, Claim, ClaimError, Following, Permit};
use crate::store::resolution::Finding;
use crate::workers::count;

/// Claims wait for so much room, unless they are all alone or half of it is less.
const CLAIM_MIN: u32 = 64;

/// What came of a claim.
enum Claimed {
    /// There may be more to claim.
    More,
    /// There is nothing more to claim for now.
    Enough,
    /// So many charges were claimed together and one of them was refused: they have to be claimed one by one.
    Refused(usize),
}

impl Run {
    /// Claims until nothing more is due or may be claimed, and starts a request for each permit.
    pub(super) async fn claim_all(
        &self,
        due_by: DateTime<Utc>,
        landing: UnboundedSender<Landed>,
    ) -> anyhow::Result<Report> {
        let mut report = Report::default();
        let mut open: BTreeSet<ShopName> = self.charger.shops.names().into_iter().collect();
        let mut failure = None;
        loop {
            let permitted_before = report.permitted;
            for shop in open.clone() {
                match self.fill(&shop, due_by, &landing, &mut report).await {
                    Ok(true) => {}
                    Ok(false) => {
                        open.remove(&shop);
                    }
                    Err(error) => {
                        tracing::error!(%shop, error = format!("{error:#}"), "couldn't claim charges");
                        open.remove(&shop);
                        failure = Some(error);
                    }
                }
            }
            open.retain(|shop| !self.flight.is_closed(shop));
            if open.is_empty() || self.flight.is_failed() {
                return failure.map_or(Ok(report), Err);
            }
            if report.permitted == permitted_before && self.flight.open() > 0 {
                self.flight.landing().await;
            }
        }
    }

    /// Claims for `shop` as many charges as there is room for and sends them. Returns whether it is worth asking again.
    async fn fill(
        &self,
        shop: &ShopName,
        due_by: DateTime<Utc>,
        landing: &UnboundedSender<Landed>,
        report: &mut Report,
    ) -> anyhow::Result<bool> {
        if self.charger.stop.is_cancelled() || self.flight.is_closed(shop) {
            return Ok(false);
        }
        let wanted = self.room(shop);
        if wanted == 0 {
            return Ok(true);
        }
        let now = self.charger.clock.now().max(due_by);
        if !self.charger.do_clocks_still_agree().await?
            || !self.charger.is_ground_sound(now).await?
        {
            return Ok(false);
        }
        match self.claim(shop, wanted, due_by, landing, report).await? {
            Claimed::More => Ok(true),
            Claimed::Enough => Ok(false),
            Claimed::Refused(charges) => {
                for _ in 0..charges {
                    self.claim(shop, 1, due_by, landing, report).await?;
                }
                Ok(true)
            }
        }
    }

    /// Claims `wanted` charges and sends what was permitted.
    async fn claim(
        &self,
        shop: &ShopName,
        wanted: u32,
        due_by: DateTime<Utc>,
        landing: &UnboundedSender<Landed>,
        report: &mut Report,
    ) -> anyhow::Result<Claimed> {
        let charger = &self.charger;
        let now = charger.clock.now().max(due_by);
        let shops = [shop.clone()];
        let due_from = self.flight.claimed_until(shop);
        // What is recorded after this is seen only by the next claim.
        let was_open = self.flight.open() > 0;
        let last_permit = charger.ground.last_permit();
        // Before the commit: a permit that waits for the disk grows old as well.
        let permitted_at = Moment::now();
        let claim = charger
            .store
            .claim_following(
                Following {
                    due_from,
                    last_permit: last_permit.as_ref(),
                },
                &shops,
                wanted,
                &charger.limits,
                charger.fence_id,
                now,
            )
            .await;
        match claim {
            Ok(Claim::Permits {
                due_from: next,
                is_all,
                permits,
                put_off,
            }) => {
                // Whatever came in before the place where this claim began is looked for at the end.
                let more = !is_all || due_from.is_some();
                self.flight.claim_on_from(shop, next.filter(|_| !is_all));
                report.put_off += put_off;
                report.permitted += permits.len();
                count::permitted(&charger.metrics, shop, permits.len());
                self.send_all(permits, permitted_at, landing).await;
                let more = more && !self.is_unreachable(shop);
                Ok(if more { Claimed::More } else { Claimed::Enough })
            }
            Ok(Claim::NothingDue) if due_from.is_some() => {
                self.flight.claim_on_from(shop, None);
                Ok(Claimed::More)
            }
            Ok(Claim::NothingDue | Claim::Braked | Claim::TooManyInDoubt) => Ok(Claimed::Enough),
            Ok(Claim::StartsSlowly) if was_open => Ok(Claimed::More),
            Ok(Claim::StartsSlowly) => Ok(Claimed::Enough),
            Ok(Claim::Full) if self.flight.open() == 0 => Ok(Claimed::Enough),
            Ok(Claim::Full) => Ok(Claimed::More),
            Err(ClaimError::Refused { charges, source }) => {
                tracing::warn!(error = %source, charges = charges.len(), "a permit was refused");
                if let [charge_id] = charges[..] {
                    charger
                        .store
                        .put_off_refused(charge_id, &source, now)
                        .await?;
                    return Ok(Claimed::More);
                }
                Ok(Claimed::Refused(charges.len()))
            }
            Err(ClaimError::Unconfirmed { permits, source }) => {
                tracing::error!(error = %source, permits = permits.len(), "the outcome of a commit is unknown; nothing is sent");
                self.bury(&permits).await?;
                Ok(Claimed::Enough)
            }
            Err(ClaimError::Failed(error)) => match error.refusal() {
                Some(Refusal::Brake) => Ok(Claimed::Enough),
                _ => Err(error.into()),
            },
        }
    }

    /// Sends permits once they are in the journal, and gives them back when that cannot be had.
    async fn send_all(
        &self,
        permits: Vec<Permit>,
        permitted_at: Moment,
        landing: &UnboundedSender<Landed>,
    ) {
        let records = permits.iter().map(Permit::record).collect();
        let now = self.charger.clock.now();
        match self.charger.ground.note_permits(records, now).await {
            Ok(()) => self.start_all(permits, permitted_at, landing),
            Err(error) => self.give_back(permits, error, landing),
        }
    }

    /// Records permits that are not in the journal as not sent. The rest of the shop waits for the next run, which begins with a single
    /// charge.
    fn give_back(
        &self,
        permits: Vec<Permit>,
        error: JournalError,
        landing: &UnboundedSender<Landed>,
    ) {
        let detail = format!("{:#}", anyhow::Error::from(error));
        tracing::error!(permits = permits.len(), error = %detail, "permits are not in the journal; none of them is sent");
        for permit in permits {
            if let Some(shop) = self.charger.shops.get(&permit.shop) {
                shop.is_unreachable.store(true, Ordering::Relaxed);
            }
            self.flight.close(&permit.shop);
            let ticket = self.flight.board(&permit.shop);
            let finding =
                Finding::not_sent(permit.order_id.subscription_id, permit.attempt_id, &detail);
            // The other end is open for as long as this one is.
            let _ = landing.send(Landed { finding, ticket });
        }
    }

    /// Starts a request for each permit; it waits for its place on the wire.
    fn start_all(
        &self,
        permits: Vec<Permit>,
        permitted_at: Moment,
        landing: &UnboundedSender<Landed>,
    ) {
        for permit in permits {
            let run = self.clone();
            let landing = landing.clone();
            let ticket = self.flight.board(&permit.shop);
            tokio::spawn(async move {
                let finding = run.send(permit, permitted_at).await;
                // The other end is open for as long as this one is.
                let _ = landing.send(Landed { finding, ticket });
            });
        }
    }

    fn is_unreachable(&self, shop: &ShopName) -> bool {
        self.charger
            .shops
            .get(shop)
            .is_some_and(|shop| shop.is_unreachable.load(Ordering::Relaxed))
    }

    /// How many charges of `shop` may be claimed now. So that claims stay large, they wait until [`CLAIM_MIN`], or half of what may be
    /// permitted ahead, or half of all is free.
    fn room(&self, shop: &ShopName) -> u32 {
        let open = self.flight.open_of(shop);
        if self.is_unreachable(shop) {
            return u32::from(open == 0);
        }
        // What waits for its turn under the shop's rate counts, so that no permit grows too old in the queue.
        let claim_max = self
            .charger
            .shops
            .get(shop)
            .map_or(0, |shop| shop.claim_max());
        let room = self.charger.limits.unanswered_max;
        let max = room.min(claim_max);
        let free = room
            .saturating_sub(self.flight.open())
            .min(max.saturating_sub(open));
        let ahead = room.saturating_sub(self.charger.requests_max).min(max);
        let enough = max.div_ceil(2).min(CLAIM_MIN.max(ahead / 2));
        if open > 0 && free < enough {
            return 0;
        }
        free.min(BATCH_MAX)
    }

    /// Makes unconfirmed permits unusable. Until that is done nothing else is claimed.
    async fn bury(&self, permits: &[Permit]) -> anyhow::Result<()> {
        let charger = &self.charger;
        let mut delays = Delays::new(Duration::from_millis(100), Duration::from_secs(5));
        let committed = loop {
            let buried = charger
                .store
                .bury(permits, &charger.limits, charger.fence_id)
                .await;
            match buried {
                Ok(committed) => break committed,
                Err(error) if charger.stop.is_cancelled() => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(%error, "couldn't bury unconfirmed permits; trying again");
                }
            }
            tokio::time::sleep(delays.next_delay()).await;
        };
        let findings: Vec<_> = committed
            .into_iter()
            .map(|(subscription_id, attempt_id)| {
                Finding::not_sent(
                    subscription_id,
                    attempt_id,
                    "the commit of its permit was not confirmed",
                )
            })
            .collect();
        charger.record(&findings, &mut Report::default()).await
    }
}
