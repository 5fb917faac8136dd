//! An attempt: one permit for one request to the gateway, and its fate.
//!
//! Attempts are born in doubt. Time never moves one out of doubt; only news about it does.

use serde::{Deserialize, Serialize};

use crate::domain::IllegalTransition;

/// What is known about an attempt.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, sqlx::Type,
)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "attempt_state", rename_all = "snake_case")]
pub enum AttemptState {
    /// The request may have been sent and the money may have moved. Blocks the charge. The charger's answer, the
    /// resolver or a person moves it on.
    InDoubt,
    /// No byte of the request left us. Frees the charge.
    NotSent,
    /// The gateway refused the request before it touched the card. Frees the charge.
    Refused,
    /// The gateway has the transaction and has not finished it. Blocks the charge. The resolver asks until it is final.
    Pending,
    /// The money moved. Final, and blocks the charge for ever.
    Settled,
    /// The card was declined. Frees the charge.
    Rejected,
    /// Two people established that the gateway never had the transaction. Frees the charge.
    Absent,
    /// The money moved although another attempt of the charge may move it too: an incident that a person refunds. Final.
    Surplus,
}

/// News about an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptEvent {
    /// We can prove that no byte of the request left.
    NotSent,
    /// The gateway refused the request.
    Refused,
    /// The gateway says the transaction is open.
    Pending,
    /// The gateway says the money moved, and no other attempt of the charge can have moved it.
    Settled,
    /// The gateway says the money moved, and another attempt of the charge is in doubt, pending or settled.
    SettledBesideAnother,
    /// The gateway says the card was declined.
    Rejected,
    /// Two people declared the transaction absent.
    DeclaredAbsent,
}

impl AttemptState {
    /// All states, for tests that enumerate them.
    pub const ALL: [AttemptState; 8] = [
        AttemptState::InDoubt,
        AttemptState::NotSent,
        AttemptState::Refused,
        AttemptState::Pending,
        AttemptState::Settled,
        AttemptState::Rejected,
        AttemptState::Absent,
        AttemptState::Surplus,
    ];

    /// How it is spelt in the database, in metrics and in events.
    pub const fn as_str(self) -> &'static str {
        match self {
            AttemptState::InDoubt => "in_doubt",
            AttemptState::NotSent => "not_sent",
            AttemptState::Refused => "refused",
            AttemptState::Pending => "pending",
            AttemptState::Settled => "settled",
            AttemptState::Rejected => "rejected",
            AttemptState::Absent => "absent",
            AttemptState::Surplus => "surplus",
        }
    }

    /// Whether it is not known yet whether money moved by this attempt.
    pub const fn is_open(self) -> bool {
        match self {
            AttemptState::InDoubt | AttemptState::Pending => true,
            AttemptState::NotSent
            | AttemptState::Refused
            | AttemptState::Settled
            | AttemptState::Rejected
            | AttemptState::Absent
            | AttemptState::Surplus => false,
        }
    }

    /// Whether money may move, or has moved, by this attempt, so that no other may be made.
    pub const fn blocks(self) -> bool {
        match self {
            AttemptState::InDoubt | AttemptState::Pending | AttemptState::Settled => true,
            AttemptState::NotSent
            | AttemptState::Refused
            | AttemptState::Rejected
            | AttemptState::Absent
            | AttemptState::Surplus => false,
        }
    }

    /// What `event` makes of this attempt. The same state again means that the event is no news.
    ///
    /// # Errors
    /// [`IllegalTransition`] when the event contradicts what is known: the attempt stays as it is and people are told.
    #[expect(
        clippy::too_many_lines,
        reason = "one table; a pair that is decided elsewhere is a pair that is overlooked"
    )]
    pub fn after(
        self,
        event: AttemptEvent,
    ) -> Result<AttemptState, IllegalTransition<AttemptState, AttemptEvent>> {
        let contradiction = Err(IllegalTransition { state: self, event });
        match self {
            AttemptState::InDoubt => match event {
                AttemptEvent::NotSent => Ok(AttemptState::NotSent),
                AttemptEvent::Refused => Ok(AttemptState::Refused),
                AttemptEvent::Pending => Ok(AttemptState::Pending),
                AttemptEvent::Settled => Ok(AttemptState::Settled),
                AttemptEvent::SettledBesideAnother => Ok(AttemptState::Surplus),
                AttemptEvent::Rejected => Ok(AttemptState::Rejected),
                AttemptEvent::DeclaredAbsent => Ok(AttemptState::Absent),
            },
            AttemptState::Pending => match event {
                AttemptEvent::Pending => Ok(AttemptState::Pending),
                AttemptEvent::Settled => Ok(AttemptState::Settled),
                AttemptEvent::SettledBesideAnother => Ok(AttemptState::Surplus),
                AttemptEvent::Rejected => Ok(AttemptState::Rejected),
                AttemptEvent::NotSent | AttemptEvent::Refused | AttemptEvent::DeclaredAbsent => {
                    contradiction
                }
            },
            // A late truth: the money moved after all. Whatever freed the charge was wrong.
            AttemptState::NotSent => match event {
                AttemptEvent::NotSent => Ok(AttemptState::NotSent),
                AttemptEvent::Settled => Ok(AttemptState::Settled),
                AttemptEvent::SettledBesideAnother => Ok(AttemptState::Surplus),
                AttemptEvent::Refused
                | AttemptEvent::Pending
                | AttemptEvent::Rejected
                | AttemptEvent::DeclaredAbsent => contradiction,
            },
            AttemptState::Refused => match event {
                AttemptEvent::Refused => Ok(AttemptState::Refused),
                AttemptEvent::Settled => Ok(AttemptState::Settled),
                AttemptEvent::SettledBesideAnother => Ok(AttemptState::Surplus),
                AttemptEvent::NotSent
                | AttemptEvent::Pending
                | AttemptEvent::Rejected
                | AttemptEvent::DeclaredAbsent => contradiction,
            },
            AttemptState::Rejected => match event {
                // A notice that was overtaken still says pending; the decline stands.
                AttemptEvent::Rejected | AttemptEvent::Pending => Ok(AttemptState::Rejected),
                AttemptEvent::Settled => Ok(AttemptState::Settled),
                AttemptEvent::SettledBesideAnother => Ok(AttemptState::Surplus),
                AttemptEvent::NotSent | AttemptEvent::Refused | AttemptEvent::DeclaredAbsent => {
                    contradiction
                }
            },
            AttemptState::Absent => match event {
                AttemptEvent::DeclaredAbsent => Ok(AttemptState::Absent),
                AttemptEvent::Settled => Ok(AttemptState::Settled),
                AttemptEvent::SettledBesideAnother => Ok(AttemptState::Surplus),
                AttemptEvent::NotSent
                | AttemptEvent::Refused
                | AttemptEvent::Pending
                | AttemptEvent::Rejected => contradiction,
            },
            AttemptState::Settled => match event {
                AttemptEvent::Settled
                | AttemptEvent::SettledBesideAnother
                | AttemptEvent::Pending => Ok(AttemptState::Settled),
                AttemptEvent::NotSent
                | AttemptEvent::Refused
                | AttemptEvent::Rejected
                | AttemptEvent::DeclaredAbsent => contradiction,
            },
            AttemptState::Surplus => match event {
                AttemptEvent::Settled
                | AttemptEvent::SettledBesideAnother
                | AttemptEvent::Pending => Ok(AttemptState::Surplus),
                AttemptEvent::NotSent
                | AttemptEvent::Refused
                | AttemptEvent::Rejected
                | AttemptEvent::DeclaredAbsent => contradiction,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [AttemptEvent; 7] = [
        AttemptEvent::NotSent,
        AttemptEvent::Refused,
        AttemptEvent::Pending,
        AttemptEvent::Settled,
        AttemptEvent::SettledBesideAnother,
        AttemptEvent::Rejected,
        AttemptEvent::DeclaredAbsent,
    ];

    #[test]
    fn money_that_moved_is_always_recorded_and_never_forgotten() {
        for state in AttemptState::ALL {
            let moved = [AttemptState::Settled, AttemptState::Surplus];
            for event in [AttemptEvent::Settled, AttemptEvent::SettledBesideAnother] {
                assert!(moved.contains(&state.after(event).unwrap()), "{state:?}");
            }
            if moved.contains(&state) {
                for event in EVENTS {
                    assert!(state.after(event).is_err() || state.after(event) == Ok(state));
                }
            }
        }
    }

    #[test]
    fn a_second_settlement_never_takes_the_place_of_the_first() {
        for state in AttemptState::ALL {
            if !state.blocks() {
                let after = state.after(AttemptEvent::SettledBesideAnother).unwrap();
                assert!(!after.blocks(), "{state:?} would break one_live_attempt");
            }
        }
    }

    #[test]
    fn nothing_comes_back_into_doubt_and_nothing_is_undecided() {
        for state in AttemptState::ALL {
            for event in EVENTS {
                match state.after(event) {
                    Ok(after) if after == state => {}
                    Ok(after) => {
                        assert_ne!(after, AttemptState::InDoubt);
                        assert!(after != AttemptState::Pending || state == AttemptState::InDoubt);
                    }
                    Err(error) => assert_eq!(error, IllegalTransition { state, event }),
                }
            }
        }
    }
}
