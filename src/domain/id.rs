//! Identities. One type each, so that a charge is never looked up by the id of an attempt.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, sqlx::Type,
        )]
        #[sqlx(transparent)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Takes a value drawn elsewhere: ids are made by the store, as UUIDv7, and by nobody else.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The bare value, for the wire.
            pub const fn as_uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

id! {
    /// One agreement between a shop and a payer.
    SubscriptionId
}
id! {
    /// One payment instrument of one shop.
    CardId
}
id! {
    /// The obligation for one period of one subscription.
    ChargeId
}
id! {
    /// One permit for one request to the gateway.
    AttemptId
}
id! {
    /// One permit to give money back.
    RefundId
}
id! {
    /// One invitation to register a card.
    RegistrationId
}
id! {
    /// imoje's id of a payment link (`payment.id`).
    PaymentId
}
id! {
    /// One reason why an attempt changed state.
    EvidenceId
}
id! {
    /// One notice in the inbox.
    NoticeId
}
id! {
    /// One fact told to the shop or to its operators.
    EventId
}
id! {
    /// imoje's own id of a transaction: "UUID v4" (imoje API, `POST transaction/profile`, answer).
    TransactionId
}
id! {
    /// imoje's id of a stored card: `paymentProfileId` (imoje API, `POST transaction/profile`, body).
    ProfileId
}
id! {
    /// The installation that a database belongs to; changes with every `cykl adopt`.
    FenceId
}
