//! Who is on the list already: subscriptions that cannot be stored together.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::domain::card_number::looks_like_card_number;
use crate::domain::enrolment::mistake::Wrong;
use crate::domain::enrolment::{Circumstances, Column, Fields, Mistake};

/// The subscriptions of one list so far. Rows are compared as they are written, so that a row with another mistake is compared
/// as well.
#[derive(Debug, Default)]
pub struct Roll {
    names: HashMap<(String, String), u64>,
    profiles: HashMap<(String, String), (String, u64)>,
    cids: HashMap<(String, String), (String, u64)>,
}

impl Roll {
    /// Enters the row in `line`. Returns in what it contradicts an earlier one: the same name, a `cid` with another profile, or a
    /// profile with another `cid`.
    pub fn enter(
        &mut self,
        line: u64,
        fields: &Fields<'_>,
        circumstances: &Circumstances,
    ) -> Vec<Mistake> {
        let usual = circumstances.usual_shop.as_ref().map(|shop| shop.as_str());
        let Some(shop) = fields.get(Column::Shop).or(usual) else {
            return Vec::new();
        };
        let text = |column| {
            fields
                .get(column)
                .filter(|text| !looks_like_card_number(text))
        };
        let mut mistakes = Vec::new();
        if let Some(name) = text(Column::ExternalId) {
            mistakes.extend(self.enter_name(line, shop, name));
        }
        if let (Some(cid), Some(profile)) = (text(Column::Cid), text(Column::PaymentProfileId)) {
            let problem = |other: &str, earlier| {
                format!("has the profile {other} in line {earlier} and another one here")
            };
            mistakes.extend(pair(
                &mut self.profiles,
                line,
                shop,
                (Column::Cid, cid),
                profile,
                problem,
            ));
            let problem = |other: &str, earlier| {
                format!("has the cid {other} in line {earlier} and another one here")
            };
            mistakes.extend(pair(
                &mut self.cids,
                line,
                shop,
                (Column::PaymentProfileId, profile),
                cid,
                problem,
            ));
        }
        mistakes
    }

    fn enter_name(&mut self, line: u64, shop: &str, name: &str) -> Option<Mistake> {
        match self.names.entry((shop.to_owned(), name.to_owned())) {
            Entry::Vacant(free) => {
                free.insert(line);
                None
            }
            Entry::Occupied(earlier) => Some(Mistake::new(
                Column::ExternalId,
                name,
                Wrong::new(
                    format!("stands in line {} already", earlier.get()),
                    "each external_id once per shop",
                ),
            )),
        }
    }
}

/// Remembers that `key` goes with `value`, and finds the earlier line in which it went with another.
fn pair(
    known: &mut HashMap<(String, String), (String, u64)>,
    line: u64,
    shop: &str,
    (column, key): (Column, &str),
    value: &str,
    problem: impl Fn(&str, u64) -> String,
) -> Option<Mistake> {
    match known.entry((shop.to_owned(), key.to_owned())) {
        Entry::Vacant(free) => {
            free.insert((value.to_owned(), line));
            None
        }
        Entry::Occupied(earlier) if earlier.get().0 == value => None,
        Entry::Occupied(earlier) => {
            let (other, earlier_line) = earlier.get();
            let wrong = Wrong::new(problem(other, *earlier_line), ONE_CARD);
            Some(Mistake::new(column, key, wrong))
        }
    }
}

/// The rule of imoje: "Each payment instrument must have its own cid" (imoje API, one-click and recurring).
pub(super) const ONE_CARD: &str = "one profile for each cid and one cid for each profile";
