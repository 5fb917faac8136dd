//! Carrying out a decision: what it writes, and what is told.

use chrono::{DateTime, Utc};
use sqlx::PgTransaction;

use super::{ChargeCase, Effect, Ruled, RulingError};
use crate::domain::attempt::AttemptState;
use crate::domain::charge::{ChargeEvent, ChargeState};
use crate::domain::event::EventKind;
use crate::domain::id::{AttemptId, ChargeId, EvidenceId, SubscriptionId};
use crate::domain::people::{Declaration, GoingOn, Refused, Ruling, WriteOff};
use crate::domain::resolution::{News, Policy, SubscriptionStep};
use crate::domain::subscription::SubscriptionEvent;
use crate::store::events::{self, Channels, NewEvent};
use crate::store::polling::{self, DoubtStep};
use crate::store::resolution::{
    Bearer, DecidedPayload, Evidence, Finding, record_in, step_subscription,
};
use crate::store::status::By;
use crate::store::{StoreError, Wake, daily_cap, new_id, permit_rows, wake};

/// A decision that is being carried out.
pub(super) struct Scene<'a> {
    pub found: &'a ChargeCase,
    pub ruling: Ruling,
    pub by: By<'a>,
    pub channels: Channels,
    pub now: DateTime<Utc>,
}

impl Scene<'_> {
    fn unchanged(&self, effect: Effect) -> Ruled {
        Ruled {
            effect,
            charge: self.found.case.charge,
            next_action_at: self.found.case.next_action_at,
        }
    }

    pub async fn declare_absent(
        &self,
        transaction: &mut PgTransaction<'_>,
        declaration: Declaration,
        policy: &Policy,
    ) -> Result<Ruled, RulingError> {
        match declaration {
            Declaration::Already => Ok(self.unchanged(Effect::Nothing)),
            Declaration::First(attempt_id) => {
                self.say(transaction, attempt_id, AttemptState::Absent)
                    .await?;
                let noted = self.unchanged(Effect::Noted);
                self.tell(transaction, noted, Some(attempt_id)).await?;
                Ok(noted)
            }
            Declaration::Second(attempt_id) => {
                let finding = Finding {
                    subscription_id: self.found.subscription_id,
                    attempt_id,
                    news: News::DeclaredAbsent,
                    evidence: Evidence {
                        by: Some(Bearer {
                            ruling: self.ruling,
                            actor: self.by.actor.to_owned(),
                            reason: self.by.reason.to_owned(),
                        }),
                        ..Evidence::default()
                    },
                };
                let (recorded, _) =
                    record_in(transaction, &[&finding], policy, self.channels, self.now).await?;
                let recorded = recorded.first().ok_or(Refused::NothingInDoubt)?;
                Ok(Ruled {
                    effect: Effect::Done,
                    charge: recorded.charge,
                    next_action_at: recorded.next_action_at,
                })
            }
        }
    }

    pub async fn write_off(
        &self,
        transaction: &mut PgTransaction<'_>,
        write_off: WriteOff,
    ) -> Result<Ruled, RulingError> {
        let failed = Ruled {
            effect: Effect::Done,
            charge: self.step(ChargeEvent::GivenUp)?,
            next_action_at: None,
        };
        match write_off {
            WriteOff::Already => return Ok(self.unchanged(Effect::Nothing)),
            WriteOff::InDoubt(attempt_id) => {
                let doubt = polling::lock_doubt(transaction, attempt_id)
                    .await?
                    .ok_or(Refused::NothingInDoubt)?;
                self.say(transaction, attempt_id, doubt.state()).await?;
                self.tell(transaction, failed, Some(attempt_id)).await?;
                doubt
                    .take(transaction, DoubtStep::GiveUp, self.channels, self.now)
                    .await?;
            }
            WriteOff::Plain => {
                self.tell(transaction, failed, None).await?;
                self.fail(transaction).await?;
            }
        }
        Ok(failed)
    }

    pub async fn go_on(
        &self,
        transaction: &mut PgTransaction<'_>,
        going_on: GoingOn,
    ) -> Result<Ruled, RulingError> {
        let GoingOn::At(at) = going_on else {
            return Ok(self.unchanged(Effect::Nothing));
        };
        let was = self.found.case.charge;
        let event = if was == ChargeState::RetryWait {
            ChargeEvent::Retried
        } else {
            ChargeEvent::Reopened
        };
        let ruled = Ruled {
            effect: Effect::Done,
            charge: self.step(event)?,
            next_action_at: Some(at),
        };
        sqlx::query!(
            "-- go_on
            UPDATE charges SET state = $2, reason = NULL, next_action_at = $3 WHERE charge_id = $1 AND state = $4",
            self.found.charge_id as ChargeId,
            ruled.charge as ChargeState,
            at,
            was as ChargeState,
        )
        .execute(&mut **transaction)
        .await?;
        // Declined attempts are read again before the next permit, at the time of which they may have been reversed.
        permit_rows::put_off(transaction, &[(self.found.charge_id, at)]).await?;
        daily_cap::add_period(transaction, self.found.subscription_id, at, self.now).await?;
        self.tell(transaction, ruled, None).await?;
        if was == ChargeState::Failed {
            let behind = SubscriptionStep {
                event: SubscriptionEvent::FellBehind,
                reason: None,
            };
            let told = step_subscription(transaction, self.found.subscription_id, behind, self.now)
                .await?;
            events::append(transaction, told.as_slice(), self.channels, self.now).await?;
        }
        wake(transaction, Wake::Resolver).await?;
        wake(transaction, Wake::Charger).await?;
        Ok(ruled)
    }

    /// The charge after `event`, which the rules have allowed.
    fn step(&self, event: ChargeEvent) -> Result<ChargeState, Refused> {
        let was = self.found.case.charge;
        was.after(event).map_err(|_| Refused::State(was))
    }

    /// Gives up a charge of which nothing is in doubt.
    async fn fail(&self, transaction: &mut PgTransaction<'_>) -> Result<(), StoreError> {
        const REASON: &str = "written_off";
        sqlx::query!(
            "-- fail_charge
            UPDATE charges SET state = 'failed', reason = $2, next_action_at = NULL WHERE charge_id = $1 AND state = $3",
            self.found.charge_id as ChargeId,
            REASON,
            self.found.case.charge as ChargeState,
        )
        .execute(&mut **transaction)
        .await?;
        let failed = self.event(
            EventKind::ChargeFailed,
            None,
            &serde_json::json!({
                "period_no": self.found.period_no,
                "amount_minor": self.found.amount.minor(),
                "currency": self.found.amount.currency(),
                "state": ChargeState::Failed,
                "reason": REASON,
            }),
        );
        events::append(transaction, &[failed], self.channels, self.now).await
    }

    /// Keeps what a person says of an attempt.
    async fn say(
        &self,
        transaction: &mut PgTransaction<'_>,
        attempt_id: AttemptId,
        verdict: AttemptState,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "-- say
            INSERT INTO evidence (evidence_id, attempt_id, subscription_id, kind, verdict, detail, actor, recorded_at)
            VALUES ($1, $2, $3, 'person', $4, $5, $6, $7)",
            EvidenceId::from_uuid(new_id(self.now)) as EvidenceId,
            attempt_id as AttemptId,
            self.found.subscription_id as SubscriptionId,
            verdict as AttemptState,
            self.by.reason,
            self.by.actor,
            self.now,
        )
        .execute(&mut **transaction)
        .await?;
        Ok(())
    }

    /// Tells that the person decided.
    async fn tell(
        &self,
        transaction: &mut PgTransaction<'_>,
        ruled: Ruled,
        attempt_id: Option<AttemptId>,
    ) -> Result<(), StoreError> {
        let found = self.found;
        let attempts = &found.case.attempts;
        let attempt =
            attempt_id.and_then(|id| attempts.iter().find(|attempt| attempt.attempt_id == id));
        let decided = self.event(
            EventKind::ChargeDecided,
            attempt_id,
            &DecidedPayload {
                decision: self.ruling.as_str(),
                actor: self.by.actor,
                reason: self.by.reason,
                period_no: found.period_no,
                amount_minor: found.amount.minor(),
                currency: found.amount.currency(),
                state: ruled.charge,
                next_action_at: ruled.next_action_at,
                attempt_no: attempt.map(|attempt| attempt.attempt_no),
                attempt_state: attempt.map(|attempt| attempt.state),
                transaction_id: None,
            },
        );
        events::append(transaction, &[decided], self.channels, self.now).await
    }

    fn event(
        &self,
        kind: EventKind,
        attempt_id: Option<AttemptId>,
        payload: &impl serde::Serialize,
    ) -> NewEvent {
        NewEvent {
            kind,
            subscription_id: Some(self.found.subscription_id),
            shop: Some(self.found.shop.clone()),
            charge_id: Some(self.found.charge_id),
            attempt_id,
            payload: events::payload(payload),
        }
    }
}
