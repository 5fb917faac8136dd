//! Registrations: what payers did by their links, and the cards that imoje keeps from then on.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use tokio::task::JoinSet;

use super::{Report, Resolver};
use crate::domain::answer::Verdict;
use crate::domain::id::{RegistrationId, TransactionId};
use crate::domain::registration::{
    CARD_LAG, KeptCard, NoCard, RegistrationEvent, RegistrationState, card_of,
};
use crate::gateway::{ListedPayment, Profile, ProfileKind, ReadAnswer, ReadError};
use crate::store::inbox::{NoticeState, OpenNotice};
use crate::store::registrations::{self, Attached, EndError, OpenRegistration, PaidByLink};
use crate::store::resolution::Evidence;
use crate::store::status::By;
use crate::workers::shops::Shop;

/// imoje's words for a payment by a link that came to nothing.
const CAME_TO_NOTHING: [&str; 3] = ["rejected", "cancelled", "error"];

impl Resolver {
    /// Looks at every registration whose time has come.
    pub(super) async fn look_at_registrations(
        &self,
        now: DateTime<Utc>,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        loop {
            let taken = self
                .store
                .take_registrations(&self.shops.names(), &self.policy.resolver, now)
                .await?;
            let is_last = taken.len() < registrations::BATCH;
            report.read += taken.len();
            let turns = self.turns();
            let mut looks = JoinSet::new();
            for registration in taken {
                let (resolver, turns) = (self.clone(), turns.clone());
                looks.spawn(async move {
                    let _turn = turns.acquire_owned().await;
                    resolver.look_at_registration(&registration, now).await
                });
            }
            while let Some(looked) = looks.join_next().await {
                looked??;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    async fn look_at_registration(
        &self,
        registration: &OpenRegistration,
        now: DateTime<Utc>,
    ) -> anyhow::Result<()> {
        let Some(shop) = self.shops.get(&registration.shop) else {
            return Ok(());
        };
        // Somebody may be paying all the same, so that is looked at whatever comes of it.
        if registration.state.is_payable() && !registration.is_wanted {
            self.cancel(shop, registration, now).await?;
        }
        if let Some(transaction_id) = registration.transaction_id {
            self.attach(shop, registration, transaction_id, now).await?;
        }
        let Some(payment_id) = registration.payment_id else {
            return self.expire(registration, &[], now).await;
        };
        let payments = match shop.client.payment(payment_id).await {
            Ok(shown) => shown.transactions,
            // What imoje shows of a link of long ago is not documented.
            Err(ReadError::NotFound) => Some(Vec::new()),
            Err(error) => {
                tracing::warn!(%error, registration.id = %registration.registration_id, "couldn't read a payment link");
                None
            }
        };
        let Some(payments) = payments else {
            return Ok(());
        };
        for payment in &payments {
            if Some(payment.transaction_id) != registration.transaction_id
                && !CAME_TO_NOTHING.contains(&payment.status.as_str())
            {
                self.follow_payment(shop, registration, payment.transaction_id, now)
                    .await?;
            }
        }
        self.expire(registration, &payments, now).await
    }

    /// Ends a link at imoje whose payment would be for nothing any more.
    async fn cancel(
        &self,
        shop: &Shop,
        registration: &OpenRegistration,
        now: DateTime<Utc>,
    ) -> anyhow::Result<()> {
        if let Some(payment_id) = registration.payment_id
            && let Err(error) = shop.client.cancel_payment(payment_id).await
            && now < registration.valid_to
        {
            tracing::warn!(%error, registration.id = %registration.registration_id, "couldn't end a payment link");
            return Ok(());
        }
        let by = By::itself("no_longer_wanted");
        let event = RegistrationEvent::Cancelled;
        self.end_registration(registration, event, Some(by), now)
            .await
    }

    /// Ends a registration whose time is over and that nobody pays just now.
    async fn expire(
        &self,
        registration: &OpenRegistration,
        payments: &[ListedPayment],
        now: DateTime<Utc>,
    ) -> anyhow::Result<()> {
        let is_paid = |payment: &ListedPayment| !CAME_TO_NOTHING.contains(&payment.status.as_str());
        if !registration.state.is_payable()
            || now < registration.valid_to
            || payments.iter().any(is_paid)
        {
            return Ok(());
        }
        let event = RegistrationEvent::Expired;
        self.end_registration(registration, event, None, now).await
    }

    async fn end_registration(
        &self,
        registration: &OpenRegistration,
        event: RegistrationEvent,
        by: Option<By<'_>>,
        now: DateTime<Utc>,
    ) -> anyhow::Result<()> {
        let id = registration.registration_id;
        match self.store.end_registration(id, event, by, now).await {
            // It was paid meanwhile, or a person was faster.
            Ok(_) | Err(EndError::Illegal(_)) => Ok(()),
            Err(EndError::Store(error)) => Err(error.into()),
        }
    }

    /// Reads a payment, and records it when its money has moved. Returns whether imoje's word on it is final.
    async fn follow_payment(
        &self,
        shop: &Shop,
        registration: &OpenRegistration,
        transaction_id: TransactionId,
        now: DateTime<Utc>,
    ) -> anyhow::Result<bool> {
        let Some(answer) = read(shop, registration, transaction_id).await else {
            return Ok(false);
        };
        match answer.verdict {
            Verdict::Settled { .. } => {}
            Verdict::Rejected { .. } => return Ok(true),
            Verdict::Pending { .. } | Verdict::Refused(_) | Verdict::InDoubt(_) => {
                return Ok(false);
            }
        }
        let paid_with = answer.shown.as_ref().and_then(|shown| shown.profile_id);
        let paid = PaidByLink {
            registration_id: registration.registration_id,
            transaction_id,
            evidence: Evidence::of_answer(answer.http_status, answer.error_code, answer.shown),
        };
        let state = self
            .store
            .record_paid_by_link(&paid, &self.policy.resolver, now, |stopped, date| {
                let id = stopped.subscription_id;
                shop.calendar.due_at(id, stopped.zone, date)
            })
            .await?;
        tracing::info!(
            shop = %registration.shop,
            registration.id = %registration.registration_id,
            registration.state = state.as_str(),
            "paid by a link"
        );
        if state == RegistrationState::Paid {
            self.attach_paid(shop, registration, paid_with, now, now)
                .await?;
        }
        Ok(true)
    }

    /// Looks for the card of a registration that was paid, and attaches it.
    async fn attach(
        &self,
        shop: &Shop,
        registration: &OpenRegistration,
        transaction_id: TransactionId,
        now: DateTime<Utc>,
    ) -> anyhow::Result<()> {
        let is_open = matches!(
            registration.state,
            RegistrationState::Paid | RegistrationState::Cardless
        );
        let (true, Some(paid_at)) = (is_open, registration.paid_at) else {
            return Ok(());
        };
        let Some(answer) = read(shop, registration, transaction_id).await else {
            return Ok(());
        };
        let paid_with = answer.shown.and_then(|shown| shown.profile_id);
        self.attach_paid(shop, registration, paid_with, paid_at, now)
            .await
    }

    async fn attach_paid(
        &self,
        shop: &Shop,
        registration: &OpenRegistration,
        paid_with: Option<crate::domain::id::ProfileId>,
        paid_at: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> anyhow::Result<()> {
        let id = registration.registration_id;
        let profiles = match shop.client.profiles_of(&registration.cid).await {
            Ok(profiles) => profiles,
            Err(ReadError::NotFound) => Vec::new(),
            Err(error) => {
                tracing::warn!(%error, registration.id = %id, "couldn't look for a registered card");
                return Ok(());
            }
        };
        let kept: Vec<KeptCard> = profiles.into_iter().filter_map(kept).collect();
        let refused = match card_of(&kept, paid_with) {
            Ok(card) => {
                let attached = self
                    .store
                    .attach_card(id, card, now, |stopped, how| {
                        shop.calendar.period_with_card(stopped, how, now)
                    })
                    .await?;
                match attached {
                    Attached::Done => {
                        tracing::info!(shop = %registration.shop, registration.id = %id, "card attached");
                        None
                    }
                    Attached::Decided(_) => None,
                    Attached::Refused(why) => Some(why),
                }
            }
            Err(_) if now < paid_at + CARD_LAG => None,
            Err(why) => Some(why),
        };
        if let Some(why) = refused {
            self.give_up(registration, why, now).await?;
        }
        Ok(())
    }

    async fn give_up(
        &self,
        registration: &OpenRegistration,
        why: NoCard,
        now: DateTime<Utc>,
    ) -> anyhow::Result<()> {
        let id = registration.registration_id;
        if registration.state != RegistrationState::Cardless {
            tracing::error!(registration.id = %id, reason = why.as_str(), "paid, and there is no card to attach");
        }
        Ok(self.store.give_up_card(id, why, now).await?)
    }

    /// Follows up notices about registrations: the payment that each names is read, and the link of those that name none.
    pub(super) async fn follow_up_registrations(
        &self,
        notices: Vec<(OpenNotice, RegistrationId)>,
        now: DateTime<Utc>,
    ) -> anyhow::Result<()> {
        let mut closed = Vec::new();
        let mut ended = Vec::new();
        let mut found: HashMap<RegistrationId, OpenRegistration> = HashMap::new();
        for (notice, id) in notices {
            let Some(transaction_id) = notice.transaction_id else {
                ended.push(id);
                closed.push((notice.notice_id, NoticeState::Done));
                continue;
            };
            if !found.contains_key(&id) {
                found.extend(self.store.registration(id).await?.map(|one| (id, one)));
            }
            let (Some(registration), Some(shop)) = (found.get(&id), self.shops.get(&notice.shop))
            else {
                continue;
            };
            let is_final = self
                .follow_payment(shop, registration, transaction_id, now)
                .await?;
            if is_final || !self.insists(&notice, now) {
                closed.push((notice.notice_id, NoticeState::Done));
            }
        }
        self.store.hasten_registrations(&ended, now).await?;
        Ok(self.store.close_notices(&closed).await?)
    }
}

async fn read(
    shop: &Shop,
    registration: &OpenRegistration,
    transaction_id: TransactionId,
) -> Option<ReadAnswer> {
    let expected = shop
        .client
        .expected(registration.order_id(), registration.amount);
    match shop.client.transaction(transaction_id, &expected).await {
        Ok(answer) => Some(answer),
        Err(error) => {
            tracing::warn!(%error, registration.id = %registration.registration_id, "couldn't read a payment by a link");
            None
        }
    }
}

/// A card that may be debited, or may be one. What imoje calls inactive is the card of no payment any more.
fn kept(profile: Profile) -> Option<KeptCard> {
    (profile.is_active != Some(false)).then(|| KeptCard {
        profile_id: profile.id,
        is_good: profile.is_active == Some(true) && profile.kind == Some(ProfileKind::Recurring),
        masked_number: profile.masked_number,
    })
}
