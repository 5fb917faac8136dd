//! A charge: the obligation for one period of one subscription. Read this file first.
//!
//! ```text
//! planned -> in_flight -> paid
//!            in_flight -> retry_wait -> in_flight ..     (declined, refused or never sent; tried again later)
//!            in_flight -> failed                         (no further try; or written off while in doubt)
//!            in_flight -> held -> paid | retry_wait | failed
//! ```
//! While a charge is open (planned, in flight, waiting for a retry, held) it has a time at which somebody looks at it again, so
//! nothing open can be forgotten.

use serde::{Deserialize, Serialize};

use crate::domain::IllegalTransition;

/// Where a charge stands.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, sqlx::Type,
)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "charge_state", rename_all = "snake_case")]
pub enum ChargeState {
    /// Due, and nothing has been sent for it. The charger takes it at `next_action_at`.
    Planned,
    /// An attempt is in doubt or pending. The answer or the resolver moves it on.
    InFlight,
    /// The money moved, once. Final.
    Paid,
    /// The last attempt moved no money; the charger tries again at `next_action_at`.
    RetryWait,
    /// It will not be tried again, unless the card is replaced or a person says so.
    Failed,
    /// A person decides, or the policy for charges in doubt does at `next_action_at`.
    Held,
    /// Its period is not charged: a person or the catch-up policy said so. Final.
    Skipped,
    /// It became void with its subscription before anything was sent. Final.
    Void,
}

/// What happens to a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChargeEvent {
    /// A permit was committed.
    Permitted,
    /// An attempt moved the money.
    Settled,
    /// The attempt moved no money and the policy tries again.
    Retried,
    /// The attempt moved no money, or may never be known to, and nothing more is tried.
    GivenUp,
    /// People have to look: the outcome is unknown, the gateway refuses our data, or the charge came too late.
    Held,
    /// The period is not to be charged.
    Skipped,
    /// The subscription ended, paused or lost its card.
    Voided,
    /// The card was replaced, or a person says try again.
    Reopened,
}

impl ChargeState {
    /// All states, for tests that enumerate them.
    pub const ALL: [ChargeState; 8] = [
        ChargeState::Planned,
        ChargeState::InFlight,
        ChargeState::Paid,
        ChargeState::RetryWait,
        ChargeState::Failed,
        ChargeState::Held,
        ChargeState::Skipped,
        ChargeState::Void,
    ];

    /// How it is spelt in the database, in metrics and in events.
    pub const fn as_str(self) -> &'static str {
        match self {
            ChargeState::Planned => "planned",
            ChargeState::InFlight => "in_flight",
            ChargeState::Paid => "paid",
            ChargeState::RetryWait => "retry_wait",
            ChargeState::Failed => "failed",
            ChargeState::Held => "held",
            ChargeState::Skipped => "skipped",
            ChargeState::Void => "void",
        }
    }

    /// Whether somebody still has to act on it: exactly then `next_action_at` is set.
    pub const fn is_open(self) -> bool {
        match self {
            ChargeState::Planned
            | ChargeState::InFlight
            | ChargeState::RetryWait
            | ChargeState::Held => true,
            ChargeState::Paid | ChargeState::Failed | ChargeState::Skipped | ChargeState::Void => {
                false
            }
        }
    }

    /// What `event` makes of this charge. The same state again means that nothing changes.
    ///
    /// # Errors
    /// [`IllegalTransition`] when the event cannot happen to a charge in this state.
    #[expect(
        clippy::too_many_lines,
        reason = "one table; a pair that is decided elsewhere is a pair that is overlooked"
    )]
    pub fn after(
        self,
        event: ChargeEvent,
    ) -> Result<ChargeState, IllegalTransition<ChargeState, ChargeEvent>> {
        let illegal = Err(IllegalTransition { state: self, event });
        match self {
            ChargeState::Planned => match event {
                ChargeEvent::Permitted => Ok(ChargeState::InFlight),
                ChargeEvent::Skipped => Ok(ChargeState::Skipped),
                ChargeEvent::Voided => Ok(ChargeState::Void),
                ChargeEvent::Held => Ok(ChargeState::Held),
                // A permit whose commit was never confirmed, and the money moved: observed, however impossible.
                ChargeEvent::Settled => Ok(ChargeState::Paid),
                ChargeEvent::Retried | ChargeEvent::GivenUp | ChargeEvent::Reopened => illegal,
            },
            ChargeState::InFlight => match event {
                ChargeEvent::Settled => Ok(ChargeState::Paid),
                ChargeEvent::Retried => Ok(ChargeState::RetryWait),
                ChargeEvent::GivenUp => Ok(ChargeState::Failed),
                ChargeEvent::Held => Ok(ChargeState::Held),
                // Money may move: it is voided, if at all, when the attempt is final.
                ChargeEvent::Voided => Ok(ChargeState::InFlight),
                ChargeEvent::Permitted | ChargeEvent::Skipped | ChargeEvent::Reopened => illegal,
            },
            ChargeState::RetryWait => match event {
                ChargeEvent::Permitted => Ok(ChargeState::InFlight),
                // The decline was reversed before the retry.
                ChargeEvent::Settled => Ok(ChargeState::Paid),
                ChargeEvent::GivenUp => Ok(ChargeState::Failed),
                ChargeEvent::Held => Ok(ChargeState::Held),
                ChargeEvent::Skipped => Ok(ChargeState::Skipped),
                ChargeEvent::Voided => Ok(ChargeState::Void),
                ChargeEvent::Retried => Ok(ChargeState::RetryWait),
                ChargeEvent::Reopened => illegal,
            },
            ChargeState::Held => match event {
                ChargeEvent::Settled => Ok(ChargeState::Paid),
                ChargeEvent::Retried | ChargeEvent::Reopened => Ok(ChargeState::RetryWait),
                ChargeEvent::GivenUp => Ok(ChargeState::Failed),
                ChargeEvent::Held | ChargeEvent::Voided => Ok(ChargeState::Held),
                ChargeEvent::Permitted | ChargeEvent::Skipped => illegal,
            },
            ChargeState::Failed => match event {
                // A late truth after a write-off or a decline that was reversed.
                ChargeEvent::Settled => Ok(ChargeState::Paid),
                ChargeEvent::Reopened => Ok(ChargeState::RetryWait),
                ChargeEvent::GivenUp | ChargeEvent::Voided => Ok(ChargeState::Failed),
                ChargeEvent::Permitted
                | ChargeEvent::Retried
                | ChargeEvent::Held
                | ChargeEvent::Skipped => illegal,
            },
            ChargeState::Paid => match event {
                ChargeEvent::Settled | ChargeEvent::Voided => Ok(ChargeState::Paid),
                ChargeEvent::Permitted
                | ChargeEvent::Retried
                | ChargeEvent::GivenUp
                | ChargeEvent::Held
                | ChargeEvent::Skipped
                | ChargeEvent::Reopened => illegal,
            },
            ChargeState::Skipped => match event {
                // A late truth: an earlier attempt moved the money after all.
                ChargeEvent::Settled => Ok(ChargeState::Paid),
                ChargeEvent::Skipped | ChargeEvent::Voided => Ok(ChargeState::Skipped),
                ChargeEvent::Permitted
                | ChargeEvent::Retried
                | ChargeEvent::GivenUp
                | ChargeEvent::Held
                | ChargeEvent::Reopened => illegal,
            },
            ChargeState::Void => match event {
                ChargeEvent::Settled => Ok(ChargeState::Paid),
                ChargeEvent::Voided => Ok(ChargeState::Void),
                ChargeEvent::Permitted
                | ChargeEvent::Retried
                | ChargeEvent::GivenUp
                | ChargeEvent::Held
                | ChargeEvent::Skipped
                | ChargeEvent::Reopened => illegal,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [ChargeEvent; 8] = [
        ChargeEvent::Permitted,
        ChargeEvent::Settled,
        ChargeEvent::Retried,
        ChargeEvent::GivenUp,
        ChargeEvent::Held,
        ChargeEvent::Skipped,
        ChargeEvent::Voided,
        ChargeEvent::Reopened,
    ];

    #[test]
    fn a_paid_charge_stays_paid() {
        for event in EVENTS {
            let after = ChargeState::Paid.after(event);
            assert!(
                after.is_err() || after == Ok(ChargeState::Paid),
                "{event:?}"
            );
        }
    }

    #[test]
    fn a_permit_is_given_only_to_what_waits_for_one() {
        for state in ChargeState::ALL {
            let permitted = state.after(ChargeEvent::Permitted).is_ok();
            assert_eq!(
                permitted,
                matches!(state, ChargeState::Planned | ChargeState::RetryWait),
                "{state:?}"
            );
        }
    }

    #[test]
    fn money_that_moved_makes_every_charge_paid() {
        for state in ChargeState::ALL {
            assert_eq!(state.after(ChargeEvent::Settled), Ok(ChargeState::Paid));
        }
    }

    #[test]
    fn voiding_never_closes_a_charge_whose_money_may_move() {
        for state in ChargeState::ALL {
            let after = state.after(ChargeEvent::Voided).unwrap();
            let unsent = matches!(state, ChargeState::Planned | ChargeState::RetryWait);
            assert_eq!(
                after == ChargeState::Void && state != ChargeState::Void,
                unsent
            );
        }
    }

    #[test]
    fn every_pair_is_decided() {
        for state in ChargeState::ALL {
            for event in EVENTS {
                if let Err(error) = state.after(event) {
                    assert_eq!(error, IllegalTransition { state, event });
                }
            }
        }
    }
}
