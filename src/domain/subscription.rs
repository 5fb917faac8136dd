//! A subscription: the agreement to debit one card by a fixed amount at a fixed period.

use serde::{Deserialize, Serialize};

use crate::domain::IllegalTransition;

/// Where a subscription stands.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, sqlx::Type,
)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "subscription_status", rename_all = "snake_case")]
pub enum SubscriptionStatus {
    /// It has no card yet. Nothing falls due.
    Registering,
    /// Its periods fall due and are charged.
    Active,
    /// As active, and a charge is waiting for a retry.
    PastDue,
    /// A person stopped it for a while; periods that fall due meanwhile are not charged.
    Paused,
    /// Its card can no longer be charged; carries the reason. A new card makes it active again.
    Deactivated,
    /// A person ended it. Final.
    Cancelled,
    /// Its last period is over. Final.
    Completed,
}

/// What happens to a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscriptionEvent {
    /// A card was attached, the first or a new one.
    CardAttached,
    /// A charge failed for now and waits for a retry.
    FellBehind,
    /// No charge waits for a retry any more.
    CaughtUp,
    /// A person pauses it.
    Paused,
    /// A person lets it go on.
    Resumed,
    /// Its card cannot be charged any more.
    Deactivated,
    /// A person ends it.
    Cancelled,
    /// The last of its periods is closed.
    Finished,
}

impl SubscriptionStatus {
    /// All states, for tests that enumerate them.
    pub const ALL: [SubscriptionStatus; 7] = [
        SubscriptionStatus::Registering,
        SubscriptionStatus::Active,
        SubscriptionStatus::PastDue,
        SubscriptionStatus::Paused,
        SubscriptionStatus::Deactivated,
        SubscriptionStatus::Cancelled,
        SubscriptionStatus::Completed,
    ];

    /// How it is spelt in the database and in events.
    pub const fn as_str(self) -> &'static str {
        match self {
            SubscriptionStatus::Registering => "registering",
            SubscriptionStatus::Active => "active",
            SubscriptionStatus::PastDue => "past_due",
            SubscriptionStatus::Paused => "paused",
            SubscriptionStatus::Deactivated => "deactivated",
            SubscriptionStatus::Cancelled => "cancelled",
            SubscriptionStatus::Completed => "completed",
        }
    }

    /// Whether its periods fall due and its charges may be sent.
    pub const fn is_billable(self) -> bool {
        match self {
            SubscriptionStatus::Active | SubscriptionStatus::PastDue => true,
            SubscriptionStatus::Registering
            | SubscriptionStatus::Paused
            | SubscriptionStatus::Deactivated
            | SubscriptionStatus::Cancelled
            | SubscriptionStatus::Completed => false,
        }
    }

    /// Whether it has ended for good.
    pub const fn is_over(self) -> bool {
        match self {
            SubscriptionStatus::Cancelled | SubscriptionStatus::Completed => true,
            SubscriptionStatus::Registering
            | SubscriptionStatus::Active
            | SubscriptionStatus::PastDue
            | SubscriptionStatus::Paused
            | SubscriptionStatus::Deactivated => false,
        }
    }

    /// What `event` makes of this subscription. The same state again means that nothing changes.
    ///
    /// # Errors
    /// [`IllegalTransition`] when it cannot be done to a subscription in this state.
    #[expect(
        clippy::too_many_lines,
        reason = "one table; a pair that is decided elsewhere is a pair that is overlooked"
    )]
    pub fn after(
        self,
        event: SubscriptionEvent,
    ) -> Result<SubscriptionStatus, IllegalTransition<SubscriptionStatus, SubscriptionEvent>> {
        let illegal = Err(IllegalTransition { state: self, event });
        match self {
            SubscriptionStatus::Registering => match event {
                SubscriptionEvent::CardAttached => Ok(SubscriptionStatus::Active),
                SubscriptionEvent::Cancelled => Ok(SubscriptionStatus::Cancelled),
                SubscriptionEvent::FellBehind
                | SubscriptionEvent::CaughtUp
                | SubscriptionEvent::Paused
                | SubscriptionEvent::Resumed
                | SubscriptionEvent::Deactivated
                | SubscriptionEvent::Finished => illegal,
            },
            SubscriptionStatus::Active => match event {
                SubscriptionEvent::FellBehind => Ok(SubscriptionStatus::PastDue),
                SubscriptionEvent::CardAttached
                | SubscriptionEvent::CaughtUp
                | SubscriptionEvent::Resumed => Ok(SubscriptionStatus::Active),
                SubscriptionEvent::Paused => Ok(SubscriptionStatus::Paused),
                SubscriptionEvent::Deactivated => Ok(SubscriptionStatus::Deactivated),
                SubscriptionEvent::Cancelled => Ok(SubscriptionStatus::Cancelled),
                SubscriptionEvent::Finished => Ok(SubscriptionStatus::Completed),
            },
            SubscriptionStatus::PastDue => match event {
                SubscriptionEvent::FellBehind | SubscriptionEvent::CardAttached => {
                    Ok(SubscriptionStatus::PastDue)
                }
                SubscriptionEvent::CaughtUp => Ok(SubscriptionStatus::Active),
                SubscriptionEvent::Paused => Ok(SubscriptionStatus::Paused),
                SubscriptionEvent::Deactivated => Ok(SubscriptionStatus::Deactivated),
                SubscriptionEvent::Cancelled => Ok(SubscriptionStatus::Cancelled),
                SubscriptionEvent::Finished => Ok(SubscriptionStatus::Completed),
                SubscriptionEvent::Resumed => illegal,
            },
            SubscriptionStatus::Paused => match event {
                SubscriptionEvent::Resumed => Ok(SubscriptionStatus::Active),
                // What was in flight when it was paused still comes to an end.
                SubscriptionEvent::FellBehind
                | SubscriptionEvent::CaughtUp
                | SubscriptionEvent::Paused
                | SubscriptionEvent::CardAttached => Ok(SubscriptionStatus::Paused),
                SubscriptionEvent::Deactivated => Ok(SubscriptionStatus::Deactivated),
                SubscriptionEvent::Cancelled => Ok(SubscriptionStatus::Cancelled),
                SubscriptionEvent::Finished => illegal,
            },
            SubscriptionStatus::Deactivated => match event {
                SubscriptionEvent::CardAttached => Ok(SubscriptionStatus::Active),
                SubscriptionEvent::FellBehind
                | SubscriptionEvent::CaughtUp
                | SubscriptionEvent::Deactivated => Ok(SubscriptionStatus::Deactivated),
                SubscriptionEvent::Cancelled => Ok(SubscriptionStatus::Cancelled),
                SubscriptionEvent::Paused
                | SubscriptionEvent::Resumed
                | SubscriptionEvent::Finished => illegal,
            },
            SubscriptionStatus::Cancelled => match event {
                SubscriptionEvent::FellBehind
                | SubscriptionEvent::CaughtUp
                | SubscriptionEvent::Deactivated
                | SubscriptionEvent::Cancelled => Ok(SubscriptionStatus::Cancelled),
                SubscriptionEvent::CardAttached
                | SubscriptionEvent::Paused
                | SubscriptionEvent::Resumed
                | SubscriptionEvent::Finished => illegal,
            },
            SubscriptionStatus::Completed => match event {
                SubscriptionEvent::FellBehind
                | SubscriptionEvent::CaughtUp
                | SubscriptionEvent::Deactivated
                | SubscriptionEvent::Finished => Ok(SubscriptionStatus::Completed),
                SubscriptionEvent::CardAttached
                | SubscriptionEvent::Paused
                | SubscriptionEvent::Resumed
                | SubscriptionEvent::Cancelled => illegal,
            },
        }
    }
}

/// Why a subscription was deactivated, as stored in `status_reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeactivationReason {
    /// imoje says that the payment profile is inactive (HTTP 400, `TRX-ERROR-120301`).
    ProfileInactive,
    /// The issuer said that the card must never be charged again: stolen, closed, fraud.
    CardBlocked,
    /// The card expired or was replaced by the bank.
    CardExpired,
    /// Every retry was declined.
    RetriesSpent,
}

impl DeactivationReason {
    /// How it is spelt in `status_reason` and in events.
    pub const fn as_str(self) -> &'static str {
        match self {
            DeactivationReason::ProfileInactive => "profile_inactive",
            DeactivationReason::CardBlocked => "card_blocked",
            DeactivationReason::CardExpired => "card_expired",
            DeactivationReason::RetriesSpent => "retries_spent",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [SubscriptionEvent; 8] = [
        SubscriptionEvent::CardAttached,
        SubscriptionEvent::FellBehind,
        SubscriptionEvent::CaughtUp,
        SubscriptionEvent::Paused,
        SubscriptionEvent::Resumed,
        SubscriptionEvent::Deactivated,
        SubscriptionEvent::Cancelled,
        SubscriptionEvent::Finished,
    ];

    #[test]
    fn what_has_ended_never_becomes_billable_again() {
        for status in [SubscriptionStatus::Cancelled, SubscriptionStatus::Completed] {
            for event in EVENTS {
                let after = status.after(event);
                assert!(
                    after.is_err() || after == Ok(status),
                    "{status:?} {event:?}"
                );
            }
        }
    }

    #[test]
    fn only_a_person_or_a_new_card_makes_a_stopped_subscription_billable() {
        for status in SubscriptionStatus::ALL {
            for event in EVENTS {
                let starts = !status.is_billable()
                    && status
                        .after(event)
                        .is_ok_and(SubscriptionStatus::is_billable);
                if starts {
                    assert!(
                        matches!(
                            event,
                            SubscriptionEvent::Resumed | SubscriptionEvent::CardAttached
                        ),
                        "{status:?} {event:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn news_about_charges_never_fails() {
        for status in SubscriptionStatus::ALL {
            if status != SubscriptionStatus::Registering {
                for event in [
                    SubscriptionEvent::FellBehind,
                    SubscriptionEvent::CaughtUp,
                    SubscriptionEvent::Deactivated,
                ] {
                    assert!(status.after(event).is_ok(), "{status:?} {event:?}");
                }
            }
        }
    }
}
