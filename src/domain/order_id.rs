//! The order id of an attempt: derived, never drawn, so that the same intent has the same name after a crash.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::id::SubscriptionId;
use crate::domain::registration::RegistrationOrderId;

/// What imoje is told as `orderId`: `cykl-<subscription>-<period number>-<attempt number>`.
///
/// Two attempts never share one, because the database holds each (subscription, period, attempt) at most once. It stays
/// inside imoje's alphabet and its 100 characters (imoje API, `POST transaction/profile`, field `orderId`), and it
/// says nothing about the payer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OrderId {
    /// The subscription that is charged.
    pub subscription_id: SubscriptionId,
    /// The period that is charged, counted from 0 at the anchor date.
    pub period_no: u32,
    /// The attempt at that charge, counted from 1.
    pub attempt_no: u16,
}

/// A text that is not an order id of ours: of another system on the same shop, or damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an order id of Cykl")]
pub struct ForeignOrderId;

impl OrderId {
    const PREFIX: &str = "cykl-";
}

/// What imoje is told as `orderId` by an experiment in a sandbox: `cyklx-<run>-<number>`.
///
/// It does not begin as the others do, so neither a daemon that hears of it nor a comparison with an export takes it for a debit of theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TrialOrderId {
    /// The run of experiments.
    pub run: Uuid,
    /// The experiment, counted from 1.
    pub number: u16,
}

impl TrialOrderId {
    /// What all order ids of a run begin with, and no other order id does.
    pub fn prefix(run: Uuid) -> String {
        format!("cyklx-{}-", run.simple())
    }
}

impl fmt::Display for TrialOrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::prefix(self.run), self.number)
    }
}

/// Whether an order id is one that Cykl makes, of a debit or of a payment link.
pub fn is_ours(order_id: &str) -> bool {
    order_id.parse::<OrderId>().is_ok() || order_id.parse::<RegistrationOrderId>().is_ok()
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}{}-{}-{}",
            Self::PREFIX,
            self.subscription_id.as_uuid().simple(),
            self.period_no,
            self.attempt_no
        )
    }
}

impl FromStr for OrderId {
    type Err = ForeignOrderId;

    /// Reads back exactly what [`OrderId`] writes: anything that would be written differently is foreign.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text
            .strip_prefix(Self::PREFIX)
            .ok_or(ForeignOrderId)?
            .split('-');
        let (Some(subscription), Some(period), Some(attempt), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(ForeignOrderId);
        };
        let order_id = OrderId {
            subscription_id: SubscriptionId::from_uuid(
                Uuid::try_parse(subscription).map_err(|_| ForeignOrderId)?,
            ),
            period_no: period.parse().map_err(|_| ForeignOrderId)?,
            attempt_no: attempt.parse().map_err(|_| ForeignOrderId)?,
        };
        if order_id.to_string() == text {
            Ok(order_id)
        } else {
            Err(ForeignOrderId)
        }
    }
}

impl TryFrom<String> for OrderId {
    type Error = ForeignOrderId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<OrderId> for String {
    fn from(order_id: OrderId) -> Self {
        order_id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_order_id_is_read_back_and_fits_imoje(uuid in any::<u128>(), period_no in any::<u32>(), attempt_no in any::<u16>()) {
            let order_id = OrderId {
                subscription_id: SubscriptionId::from_uuid(Uuid::from_u128(uuid)),
                period_no,
                attempt_no,
            };
            let text = order_id.to_string();
            prop_assert_eq!(text.parse(), Ok(order_id));
            prop_assert!(text.len() <= 100);
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
        }

        #[test]
        fn whatever_parses_is_written_the_same_way(text in "(cykl-)?[0-9a-fA-F]{30,33}-[0-9+]{1,11}-[0-9+]{1,6}") {
            if let Ok(order_id) = text.parse::<OrderId>() {
                prop_assert_eq!(order_id.to_string(), text);
            }
        }
    }

    #[test]
    fn an_order_of_an_experiment_fits_imoje_and_is_none_of_ours() {
        let order_id = TrialOrderId {
            run: Uuid::max(),
            number: u16::MAX,
        };
        let text = order_id.to_string();
        assert_eq!(crate::domain::fields::validate_order_id(&text), Ok(()));
        assert!(
            !is_ours(&text) && !text.starts_with(OrderId::PREFIX),
            "{text}"
        );
    }

    #[test]
    fn orders_of_other_systems_are_foreign() {
        let ours = "cykl-0192f0c1a2b37c4d8e5f60718293a4b5-17-2";
        assert!(ours.parse::<OrderId>().is_ok());
        for foreign in [
            "",
            "inv-1042",
            "cykl-",
            "cykl-0192f0c1a2b37c4d8e5f60718293a4b5-17",
            "cykl-0192f0c1a2b37c4d8e5f60718293a4b5-17-2-3",
            "cykl-0192F0C1A2B37C4D8E5F60718293A4B5-17-2",
            "cykl-0192f0c1a2b37c4d8e5f60718293a4b5-017-2",
            "cykl-0192f0c1a2b37c4d8e5f60718293a4b5-+17-2",
            "cykl-0192f0c1-a2b3-7c4d-8e5f-60718293a4b5-17-2",
        ] {
            assert_eq!(foreign.parse::<OrderId>(), Err(ForeignOrderId), "{foreign}");
        }
    }
}
