//! One permitted request, sent once.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Run;
use crate::clock::Moment;
use crate::domain::id::AttemptId;
use crate::domain::resolution::News;
use crate::domain::shop::ShopName;
use crate::gateway::{DebitOrder, NoAnswer, NotSent, PostAnswer};
use crate::metrics::CallOutcome;
use crate::store::permits::Permit;
use crate::store::resolution::Finding;
use crate::workers::posts;
use crate::workers::shops::Shop;

/// How long ago the brake was looked at last when a request is handed over to be sent.
const BRAKE_AGE_MAX: Duration = Duration::from_millis(500);

impl Run {
    /// Sends one permitted request, once, and says what came of it.
    pub(super) async fn send(&self, permit: Permit, permitted_at: Moment) -> Finding {
        let charger = &self.charger;
        let (subscription_id, attempt_id) = (permit.order_id.subscription_id, permit.attempt_id);
        let finding = |news, evidence| Finding {
            subscription_id,
            attempt_id,
            news,
            evidence,
        };
        let not_sent = |detail: &str| Finding::not_sent(subscription_id, attempt_id, detail);
        let Some(shop) = charger.shops.get(&permit.shop) else {
            return not_sent("its shop is not configured");
        };
        let turn = async {
            let turn = self.flight.turn().await;
            shop.wait_for_rate().await;
            turn
        };
        let Some(_turn) = charger.stop.run_until_cancelled(turn).await else {
            return not_sent("the daemon is stopping");
        };
        let look = self.is_stopped(&permit.shop, permitted_at);
        match charger.stop.run_until_cancelled(look).await {
            Some(Ok(false)) => {}
            Some(Ok(true)) => return not_sent("the brake was put on before its turn"),
            Some(Err(error)) => return not_sent(&format!("couldn't read the brake: {error}")),
            None => return not_sent("the daemon is stopping"),
        }
        let order = match order_of(permit, |attempt| shop.notification_url(attempt)) {
            Ok(order) => order,
            Err(detail) => {
                return Finding {
                    news: News::Unsendable,
                    ..not_sent(&detail)
                };
            }
        };
        let started = Instant::now();
        let answer = shop.client.debit(&order, permitted_at).await;
        charger
            .metrics
            .gateway_request_seconds
            .get_or_create(&CallOutcome::of("debit", posts::outcome_word(&answer)))
            .observe(started.elapsed().as_secs_f64());
        if let Ok(answer) = &answer {
            charger.clocks.note_gateway(&shop.name, answer.sent_at);
        }
        self.note_reach(shop, &answer);
        let (news, evidence) = posts::told_by(answer);
        finding(news, evidence)
    }

    /// Whether the brake of `shop` was put on after a permit was committed. It is looked at once for all permits that wait.
    async fn is_stopped(&self, shop: &ShopName, permitted_at: Moment) -> Result<bool, String> {
        if permitted_at.elapsed() <= BRAKE_AGE_MAX {
            return Ok(false);
        }
        let look = self.flight.brake_look(shop);
        let mut look = look.lock().await;
        if let Some((at, found)) = look.as_ref()
            && at.elapsed() <= BRAKE_AGE_MAX
        {
            return found.clone();
        }
        let at = Moment::now();
        let found = match self.charger.store.is_stopped(shop).await {
            Ok(_) if at.elapsed() > BRAKE_AGE_MAX => Err("it took too long".to_owned()),
            Ok(is_stopped) => Ok(is_stopped),
            Err(error) => Err(error.to_string()),
        };
        // What failed is not tried by each of them in turn.
        let known_at = if found.is_ok() { at } else { Moment::now() };
        *look = Some((known_at, found.clone()));
        found
    }

    /// Notes whether imoje could be reached for `shop`. When not, or when permits grow too old in the queue, the rest of the shop
    /// waits for the next run; after a connection that failed that one begins with a single charge.
    fn note_reach(&self, shop: &Shop, answer: &Result<PostAnswer, NoAnswer>) {
        match answer {
            Ok(_) | Err(NoAnswer::Unknown(_)) => {
                shop.is_unreachable.store(false, Ordering::Relaxed);
            }
            Err(NoAnswer::NotSent(NotSent::Connect(_))) => {
                shop.is_unreachable.store(true, Ordering::Relaxed);
                self.flight.close(&shop.name);
            }
            Err(NoAnswer::NotSent(NotSent::PermitTooOld { .. })) => self.flight.close(&shop.name),
            Err(NoAnswer::NotSent(
                NotSent::Invalid(_) | NotSent::NoCardProxy | NotSent::Unbuildable(_),
            )) => {}
        }
    }
}

/// The request for a permit, or why imoje would refuse it.
fn order_of(
    permit: Permit,
    own_address: impl Fn(AttemptId) -> Option<url::Url>,
) -> Result<DebitOrder, String> {
    let notification_url = match &permit.notification_url {
        Some(address) => Some(
            address
                .parse()
                .map_err(|error| format!("notification_url: {error}"))?,
        ),
        None => own_address(permit.attempt_id),
    };
    Ok(DebitOrder {
        order_id: permit.order_id,
        cid: permit.cid,
        card: permit.card,
        amount: permit.amount,
        title: permit.title,
        notification_url,
        invoice: permit.invoice,
        multipayout: permit.multipayout,
    })
}
