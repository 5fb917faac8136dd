//! What people decide about charges: each decision is one transaction with its evidence, its event, and what follows from it.
//!
//! Whether a decision is allowed is judged by [`domain::people`](crate::domain::people) over what is read under lock, and by the
//! triggers of the schema once more. A transaction id that a person gives is not recorded here: imoje is asked about it first, and its
//! answer goes the way of every answer.

mod case;
mod scene;

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::charge::ChargeState;
use crate::domain::id::ChargeId;
use crate::domain::people::{self, Refused, Ruling};
use crate::domain::resolution::Policy;
use crate::store::status::By;
use crate::store::{Store, StoreError, despite_others};
use scene::Scene;

pub use case::ChargeCase;

/// What a person instructs Cykl to do about a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instruction {
    /// Count the attempt in doubt as one that imoje never had.
    DeclareAbsent {
        /// How long after its permit that may be said.
        absent_after: TimeDelta,
    },
    /// Give the charge up.
    WriteOff,
    /// Make the charge although it is late.
    Approve,
    /// Try the charge again now.
    RetryNow,
}

impl Instruction {
    const fn ruling(self) -> Ruling {
        match self {
            Instruction::DeclareAbsent { .. } => Ruling::DeclareAbsent,
            Instruction::WriteOff => Ruling::WriteOff,
            Instruction::Approve => Ruling::Approve,
            Instruction::RetryNow => Ruling::RetryNow,
        }
    }
}

/// What came of an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ruled {
    /// How far it went.
    pub effect: Effect,
    /// The state of the charge now.
    pub charge: ChargeState,
    /// When the charge is looked at again.
    pub next_action_at: Option<DateTime<Utc>>,
}

/// How far an instruction went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It was so already; nothing was changed.
    Nothing,
    /// It is noted, and takes effect when another person says the same.
    Noted,
    /// It is done.
    Done,
}

/// Why an instruction was not carried out. Nothing is changed then.
#[derive(Debug, thiserror::Error)]
pub enum RulingError {
    /// There is no such charge.
    #[error("there is no charge {0}")]
    Missing(ChargeId),
    /// It has long been over.
    #[error("charge {0} is in the archive, where nothing changes any more")]
    Archived(ChargeId),
    /// The rules do not allow it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The database failed, or refused it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for RulingError {
    fn from(error: sqlx::Error) -> Self {
        RulingError::Store(error.into())
    }
}

impl Store {
    /// Carries out what a person says about a charge. The same again changes nothing.
    ///
    /// # Errors
    /// [`RulingError`]; nothing is changed then.
    pub async fn rule(
        &self,
        charge_id: ChargeId,
        instruction: Instruction,
        by: By<'_>,
        policy: &Policy,
        now: DateTime<Utc>,
    ) -> Result<Ruled, RulingError> {
        let is_busy =
            |error: &RulingError| matches!(error, RulingError::Store(error) if error.is_busy());
        despite_others(is_busy, || {
            self.rule_once(charge_id, instruction, by, policy, now)
        })
        .await
    }

    async fn rule_once(
        &self,
        charge_id: ChargeId,
        instruction: Instruction,
        by: By<'_>,
        policy: &Policy,
        now: DateTime<Utc>,
    ) -> Result<Ruled, RulingError> {
        let mut transaction = self.pool.begin().await?;
        let found = case::lock(&mut transaction, charge_id).await?;
        let scene = Scene {
            found: &found,
            ruling: instruction.ruling(),
            by,
            channels: self.channels,
            now,
        };
        let case = &found.case;
        let ruled = match instruction {
            Instruction::DeclareAbsent { absent_after } => {
                let declaration = people::declare_absent(case, by.actor, absent_after, now)?;
                scene
                    .declare_absent(&mut transaction, declaration, policy)
                    .await?
            }
            Instruction::WriteOff => {
                let write_off = people::write_off(case, &policy.resolver, now)?;
                scene.write_off(&mut transaction, write_off).await?
            }
            Instruction::Approve => {
                let going_on = people::approve(case, now)?;
                scene.go_on(&mut transaction, going_on).await?
            }
            Instruction::RetryNow => {
                let going_on = people::retry_now(case, now)?;
                scene.go_on(&mut transaction, going_on).await?
            }
        };
        match ruled.effect {
            Effect::Nothing => {}
            Effect::Noted | Effect::Done => transaction.commit().await?,
        }
        Ok(ruled)
    }
}
