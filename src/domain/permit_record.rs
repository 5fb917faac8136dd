//! What is kept of a permit outside the database.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::domain::id::{AttemptId, CardId};
use crate::domain::money::Currency;
use crate::domain::order_id::OrderId;
use crate::domain::shop::ShopName;

/// A permit, as the permit journal keeps it: what the row of its attempt is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermitRecord {
    /// The attempt.
    pub attempt_id: AttemptId,
    /// The card that is debited.
    pub card_id: CardId,
    /// The shop that is paid.
    pub shop: ShopName,
    /// What imoje is told as `orderId`.
    pub order_id: OrderId,
    /// In minor units.
    pub amount_minor: i64,
    /// Of the amount.
    pub currency: Currency,
    /// Whether it was given after a decline.
    pub is_retry: bool,
    /// When it was given.
    pub permitted_at: DateTime<Utc>,
}
