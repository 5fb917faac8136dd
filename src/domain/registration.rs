//! The registration of a card: a payer pays once, by a link or with card data that a shop with a certificate sends, and imoje keeps the
//! card for the debits that follow.
//!
//! What is paid counts as the charge of a period, or only shows that the card works; which of the two is decided when the link is made.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::IllegalTransition;
use crate::domain::card::CardKey;
use crate::domain::id::{ProfileId, RegistrationId};
use crate::domain::order_id::ForeignOrderId;
use crate::domain::schedule::{DuePeriod, Terms};

/// How long after a payment its card may still appear at imoje. From then on people are told that there is none.
pub const CARD_LAG: TimeDelta = TimeDelta::hours(1);

/// How long a link is still looked at after it has ended: a payment that was under way then may come through, and a payer may pay twice.
/// A notice has it looked at whenever it comes.
pub const LINGERS: TimeDelta = TimeDelta::days(1);

/// What the payment of a registration is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "registration_purpose", rename_all = "snake_case")]
pub enum Purpose {
    /// It is the charge of a period.
    FirstCharge,
    /// It shows that the card works.
    Verification,
}

/// How the payer pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "registration_way", rename_all = "snake_case")]
pub enum Way {
    /// On imoje's page, by a link. imoje keeps a profile of the card.
    Link,
    /// On a page of the shop, whose tokenising proxy puts the card's data into a transaction of the type `FIRST`. imoje keeps no profile.
    CardData,
}

/// Where a registration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "registration_state", rename_all = "snake_case")]
pub enum RegistrationState {
    /// The link or the transaction was ordered, and imoje has not answered. Nobody knows its address or its id.
    Requested,
    /// The link can be paid, or the transaction is under way.
    Open,
    /// It was paid, and the card is still to be found.
    Paid,
    /// It was paid, and the card is that of the subscription.
    Attached,
    /// It was paid, and there is no card that may be attached.
    Cardless,
    /// Nobody paid in time.
    Expired,
    /// It was ended before anybody paid.
    Cancelled,
    /// imoje refused to make the link or the transaction.
    Refused,
}

/// What happens to a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistrationEvent {
    /// imoje has made the link.
    Opened,
    /// Money moved.
    Paid,
    /// The card was found, and attached.
    Attached,
    /// No card is to be had from it.
    NoCard,
    /// Its time is over.
    Expired,
    /// It is ended.
    Cancelled,
    /// imoje refuses to make the link.
    Refused,
}

impl RegistrationState {
    /// All states, for tests that enumerate them.
    pub const ALL: [RegistrationState; 8] = [
        RegistrationState::Requested,
        RegistrationState::Open,
        RegistrationState::Paid,
        RegistrationState::Attached,
        RegistrationState::Cardless,
        RegistrationState::Expired,
        RegistrationState::Cancelled,
        RegistrationState::Refused,
    ];

    /// How it is spelt in the database and in events.
    pub const fn as_str(self) -> &'static str {
        match self {
            RegistrationState::Requested => "requested",
            RegistrationState::Open => "open",
            RegistrationState::Paid => "paid",
            RegistrationState::Attached => "attached",
            RegistrationState::Cardless => "cardless",
            RegistrationState::Expired => "expired",
            RegistrationState::Cancelled => "cancelled",
            RegistrationState::Refused => "refused",
        }
    }

    /// Whether nobody has paid yet, as far as is known, and somebody may.
    pub const fn is_payable(self) -> bool {
        match self {
            RegistrationState::Requested | RegistrationState::Open => true,
            RegistrationState::Paid
            | RegistrationState::Attached
            | RegistrationState::Cardless
            | RegistrationState::Expired
            | RegistrationState::Cancelled
            | RegistrationState::Refused => false,
        }
    }

    /// Whether it has come to nothing, as far as is known.
    pub const fn is_over(self) -> bool {
        match self {
            RegistrationState::Expired
            | RegistrationState::Cancelled
            | RegistrationState::Refused => true,
            RegistrationState::Requested
            | RegistrationState::Open
            | RegistrationState::Paid
            | RegistrationState::Attached
            | RegistrationState::Cardless => false,
        }
    }

    /// What `event` makes of it. That it was paid is believed whatever was known before: money has moved.
    ///
    /// # Errors
    /// [`IllegalTransition`] when it cannot happen to a registration in this state.
    pub fn after(
        self,
        event: RegistrationEvent,
    ) -> Result<RegistrationState, IllegalTransition<RegistrationState, RegistrationEvent>> {
        let illegal = Err(IllegalTransition { state: self, event });
        match event {
            RegistrationEvent::Opened if self == RegistrationState::Requested => {
                Ok(RegistrationState::Open)
            }
            RegistrationEvent::Refused if self == RegistrationState::Requested => {
                Ok(RegistrationState::Refused)
            }
            RegistrationEvent::Expired if self.is_payable() => Ok(RegistrationState::Expired),
            RegistrationEvent::Cancelled if self.is_payable() => Ok(RegistrationState::Cancelled),
            RegistrationEvent::NoCard if self == RegistrationState::Paid => {
                Ok(RegistrationState::Cardless)
            }
            RegistrationEvent::Attached
                if matches!(self, RegistrationState::Paid | RegistrationState::Cardless) =>
            {
                Ok(RegistrationState::Attached)
            }
            RegistrationEvent::Paid => match self {
                RegistrationState::Requested
                | RegistrationState::Open
                | RegistrationState::Expired
                | RegistrationState::Cancelled
                | RegistrationState::Refused => Ok(RegistrationState::Paid),
                // A further payment is one too many, and changes nothing about the first.
                RegistrationState::Paid
                | RegistrationState::Attached
                | RegistrationState::Cardless => illegal,
            },
            RegistrationEvent::Opened
            | RegistrationEvent::Refused
            | RegistrationEvent::Expired
            | RegistrationEvent::Cancelled
            | RegistrationEvent::NoCard
            | RegistrationEvent::Attached => illegal,
        }
    }
}

/// What imoje is told as `orderId` of a link or a transaction that registers a card: `cykl-r-<registration>`. No order id of a debit looks like it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegistrationOrderId(pub RegistrationId);

impl RegistrationOrderId {
    const PREFIX: &str = "cykl-r-";
}

impl fmt::Display for RegistrationOrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, self.0.as_uuid().simple())
    }
}

impl FromStr for RegistrationOrderId {
    type Err = ForeignOrderId;

    /// Reads back exactly what is written.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uuid = text.strip_prefix(Self::PREFIX).ok_or(ForeignOrderId)?;
        let uuid = Uuid::try_parse(uuid).map_err(|_| ForeignOrderId)?;
        let order_id = Self(RegistrationId::from_uuid(uuid));
        if order_id.to_string() == text {
            Ok(order_id)
        } else {
            Err(ForeignOrderId)
        }
    }
}

/// What a payer pays by a link for a first charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstCharge {
    /// The period that is paid.
    pub period: DuePeriod,
    /// When the period after it falls due, if there is one. The link ends before that.
    pub next_due_at: Option<DateTime<Utc>>,
}

/// The period that a payer pays at `now`, where `due_at` says when a date falls due: the last that has fallen due, but not before
/// `from_period_no`. `None` when nothing is left to charge.
pub fn first_charge(
    terms: &Terms,
    from_period_no: u32,
    now: DateTime<Utc>,
    due_at: impl Fn(NaiveDate) -> DateTime<Utc>,
) -> Option<FirstCharge> {
    let mut period = terms.period(from_period_no)?;
    loop {
        let next = period.period_no.checked_add(1);
        let next = next.and_then(|next| terms.period(next));
        match next {
            Some(next) if due_at(next.due_on) <= now => period = next,
            Some(_) | None => {
                return Some(FirstCharge {
                    period,
                    next_due_at: next.map(|next| due_at(next.due_on)),
                });
            }
        }
    }
}

/// A card that imoje keeps under the `cid` of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptCard {
    /// Its profile.
    pub profile_id: ProfileId,
    /// Whether it can be debited when the payer is not present.
    pub is_good: bool,
    /// `****` and the last four digits.
    pub masked_number: Option<String>,
}

/// A card that was registered, and how it is debited from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredCard {
    /// What names it.
    pub key: CardKey,
    /// `****` and the last four digits.
    pub masked_number: Option<String>,
}

impl From<&KeptCard> for RegisteredCard {
    fn from(kept: &KeptCard) -> Self {
        Self {
            key: CardKey::Profile(kept.profile_id),
            masked_number: kept.masked_number.clone(),
        }
    }
}

/// Why a registration has no card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoCard {
    /// imoje shows none under the `cid`, or not the one that was paid with; or nothing that names a card without a profile.
    Unknown,
    /// imoje shows one that cannot be debited.
    Unusable,
    /// imoje shows several: one instrument, one `cid`.
    Several,
    /// It is the card of another `cid`.
    Known,
    /// The subscription is over.
    Over,
}

impl NoCard {
    /// How it is spelt in the database and in events.
    pub const fn as_str(self) -> &'static str {
        match self {
            NoCard::Unknown => "no_card_on_cid",
            NoCard::Unusable => "card_not_recurring",
            NoCard::Several => "several_cards_on_cid",
            NoCard::Known => "card_has_another_cid",
            NoCard::Over => "subscription_is_over",
        }
    }
}

/// The card to attach, of those that imoje keeps under the `cid` of a registration that was paid with the profile `paid_with`, as far as
/// imoje shows one with the payment.
///
/// # Errors
/// Why there is none.
pub fn card_of(kept: &[KeptCard], paid_with: Option<ProfileId>) -> Result<&KeptCard, NoCard> {
    match kept {
        [] => Err(NoCard::Unknown),
        [one] if paid_with.is_some_and(|paid_with| paid_with != one.profile_id) => {
            Err(NoCard::Unknown)
        }
        [one] if one.is_good => Ok(one),
        [_] => Err(NoCard::Unusable),
        [_, _, ..] => Err(NoCard::Several),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [RegistrationEvent; 7] = [
        RegistrationEvent::Opened,
        RegistrationEvent::Paid,
        RegistrationEvent::Attached,
        RegistrationEvent::NoCard,
        RegistrationEvent::Expired,
        RegistrationEvent::Cancelled,
        RegistrationEvent::Refused,
    ];

    #[test]
    fn money_that_moved_is_never_forgotten() {
        let is_paid = |state| {
            matches!(
                state,
                RegistrationState::Paid | RegistrationState::Attached | RegistrationState::Cardless
            )
        };
        for state in RegistrationState::ALL {
            assert_eq!(
                state.after(RegistrationEvent::Paid).is_err(),
                is_paid(state)
            );
            for event in EVENTS {
                if is_paid(state) {
                    assert!(state.after(event).is_ok_and(is_paid) || state.after(event).is_err());
                }
            }
        }
    }

    #[test]
    fn a_card_is_attached_only_after_money_moved() {
        for state in RegistrationState::ALL {
            let attaches = state.after(RegistrationEvent::Attached).is_ok();
            let was_paid = [RegistrationState::Paid, RegistrationState::Cardless].contains(&state);
            assert_eq!(attaches, was_paid, "{state:?}");
        }
    }

    #[test]
    fn order_ids_of_links_are_read_back_and_are_no_order_ids_of_debits() {
        let order_id = RegistrationOrderId(RegistrationId::from_uuid(Uuid::from_u128(7)));
        let text = order_id.to_string();
        assert_eq!(text, "cykl-r-00000000000000000000000000000007");
        assert_eq!(text.parse(), Ok(order_id));
        assert!(text.parse::<crate::domain::order_id::OrderId>().is_err());
        for strange in [
            "cykl-r-",
            "cykl-r-7",
            "cykl-r-00000000-0000-0000-0000-000000000007",
            "cykl-r-0000000000000000000000000000000A",
            "cykl-00000000000000000000000000000007-0-1",
        ] {
            assert!(strange.parse::<RegistrationOrderId>().is_err(), "{strange}");
        }
    }

    #[test]
    fn a_first_charge_pays_what_fell_due_last() {
        let terms = Terms {
            anchor: "2026-01-31".parse().unwrap(),
            period: "P1M".parse().unwrap(),
            starts_on: None,
            ends_on: None,
            max_charges: Some(4),
        };
        let noon = |date: NaiveDate| date.and_hms_opt(12, 0, 0).unwrap().and_utc();
        let paid = |from, now: &str| {
            first_charge(&terms, from, now.parse().unwrap(), noon).map(|paid| {
                let next = paid.next_due_at.map(|at| at.to_string());
                (paid.period.period_no, next.unwrap_or_default())
            })
        };
        let february = "2026-02-28 12:00:00 UTC".to_owned();
        // In advance, on the day, and until the next one.
        assert_eq!(paid(0, "2026-01-01T00:00:00Z"), Some((0, february.clone())));
        assert_eq!(paid(0, "2026-01-31T12:00:00Z"), Some((0, february.clone())));
        assert_eq!(paid(0, "2026-02-28T11:59:59Z"), Some((0, february)));
        assert_eq!(
            paid(0, "2026-02-28T12:00:00Z"),
            Some((1, "2026-03-31 12:00:00 UTC".to_owned()))
        );
        assert_eq!(
            paid(2, "2026-01-01T00:00:00Z"),
            Some((2, "2026-04-30 12:00:00 UTC".to_owned()))
        );
        // The last one has none after it.
        assert_eq!(paid(0, "2030-01-01T00:00:00Z"), Some((3, String::new())));
        assert_eq!(paid(4, "2026-01-01T00:00:00Z"), None);
    }

    #[test]
    fn one_good_card_that_was_paid_with_is_attached_and_no_other() {
        let profile = |n| ProfileId::from_uuid(Uuid::from_u128(n));
        let card = |n, is_good| KeptCard {
            profile_id: profile(n),
            is_good,
            masked_number: None,
        };
        let one = [card(1, true)];
        assert_eq!(card_of(&one, None), Ok(&one[0]));
        assert_eq!(card_of(&one, Some(profile(1))), Ok(&one[0]));
        assert_eq!(card_of(&one, Some(profile(2))), Err(NoCard::Unknown));
        assert_eq!(card_of(&[], None), Err(NoCard::Unknown));
        assert_eq!(card_of(&[card(1, false)], None), Err(NoCard::Unusable));
        for is_good in [true, false] {
            let two = [card(1, true), card(2, is_good)];
            assert_eq!(card_of(&two, Some(profile(1))), Err(NoCard::Several));
        }
    }
}
