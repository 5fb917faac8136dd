//! Declines, by what may be done about them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::subscription::DeactivationReason;

/// What a decline says about trying again. The table from imoje's `statusCode` to a class is configuration
/// (`retry.classes`), because the card schemes change their lists.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, sqlx::Type,
)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "decline_class", rename_all = "snake_case")]
pub enum DeclineClass {
    /// Stolen, closed, fraud, do not try again. The subscription is deactivated.
    Never,
    /// Expired, replaced or inactive. The subscription is deactivated and the payer is asked for a new card.
    NewCard,
    /// Not enough money, or over a limit, today. Tried again on the retry days.
    Funds,
    /// The issuer said no without saying why, or a code that we do not know. Tried again on the retry days.
    Soft,
    /// Something between us and the issuer failed. Tried again on the retry days.
    Technical,
}

impl DeclineClass {
    /// All classes.
    pub const ALL: [DeclineClass; 5] = [
        DeclineClass::Never,
        DeclineClass::NewCard,
        DeclineClass::Funds,
        DeclineClass::Soft,
        DeclineClass::Technical,
    ];

    /// How it is spelt in the database, in metrics and in events.
    pub const fn as_str(self) -> &'static str {
        match self {
            DeclineClass::Never => "never",
            DeclineClass::NewCard => "new_card",
            DeclineClass::Funds => "funds",
            DeclineClass::Soft => "soft",
            DeclineClass::Technical => "technical",
        }
    }

    /// Why the subscription ends with this decline, when it does.
    pub const fn deactivates(self) -> Option<DeactivationReason> {
        match self {
            DeclineClass::Never => Some(DeactivationReason::CardBlocked),
            DeclineClass::NewCard => Some(DeactivationReason::CardExpired),
            DeclineClass::Funds | DeclineClass::Soft | DeclineClass::Technical => None,
        }
    }
}

/// A decline as the retry policy sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decline {
    /// What may be done about it.
    pub class: DeclineClass,
    /// Whether the code was in the table; an unknown one gets fewer tries.
    pub known: bool,
}

/// The table from imoje's `statusCode` to a class.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeclineTable(BTreeMap<String, DeclineClass>);

impl DeclineTable {
    /// A table of exact codes, such as `CODE_51`.
    pub fn new(classes: BTreeMap<String, DeclineClass>) -> Self {
        Self(classes)
    }

    /// What `status_code` means. A code that is not in the table, or none at all, is soft.
    pub fn decline(&self, status_code: Option<&str>) -> Decline {
        match status_code.and_then(|code| self.0.get(code)) {
            Some(&class) => Decline { class, known: true },
            None => Decline {
                class: DeclineClass::Soft,
                known: false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_code_is_soft_and_marked_as_unknown() {
        let table = DeclineTable::new(BTreeMap::from([(
            "CODE_43".to_owned(),
            DeclineClass::Never,
        )]));
        assert_eq!(
            table.decline(Some("CODE_43")),
            Decline {
                class: DeclineClass::Never,
                known: true
            }
        );
        for code in [None, Some(""), Some("CODE_4"), Some("code_43")] {
            assert_eq!(
                table.decline(code),
                Decline {
                    class: DeclineClass::Soft,
                    known: false
                }
            );
        }
    }
}
