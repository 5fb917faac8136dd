//! A line of the journal: sixteen digits that check it, and what it says, as JSON.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::domain::id::{AttemptId, TransactionId};
use crate::domain::permit_record::PermitRecord;

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Entry {
    /// A permit was committed, and its request leaves after this.
    Permit(PermitRecord),
    /// imoje has an attempt under this transaction.
    Named {
        attempt_id: AttemptId,
        transaction_id: TransactionId,
    },
}

/// How many digits check a line.
const CHECK: usize = 16;

impl Entry {
    /// The line, with its end.
    pub fn to_line(&self) -> String {
        let text = serde_json::to_string(self).expect("ids, numbers and words are JSON");
        format!("{} {text}\n", check_of(&text))
    }

    /// What a line without its end says; `None` when it is damaged.
    pub fn of_line(line: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?;
        let (check, text) = line.split_once(' ')?;
        if check != check_of(text) {
            return None;
        }
        serde_json::from_str(text).ok()
    }
}

fn check_of(text: &str) -> String {
    let mut check = hex::encode(Sha256::digest(text));
    check.truncate(CHECK);
    check
}
