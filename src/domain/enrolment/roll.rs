//! Who is on the list already: subscriptions that cannot be stored together.

use std::collections::HashMap;
use std::rc::Rc;

use crate::domain::card_number::looks_like_card_number;
use crate::domain::enrolment::mistake::Wrong;
use crate::domain::enrolment::{Circumstances, Column, Fields, Mistake};

/// The subscriptions of one list so far. Rows are compared as they are written, so that a row with another mistake is compared
/// as well.
#[derive(Debug, Default)]
pub struct Roll {
    shops: HashMap<Box<str>, ShopRoll>,
}

/// Those of one shop, each text with its line.
#[derive(Debug, Default)]
struct ShopRoll {
    names: HashMap<Box<str>, u64>,
    keys_by_cid: Pairs,
    cids_by_key: Pairs,
    /// What is said of cards without a profile, by what names them.
    details: HashMap<Box<str>, (Details, u64)>,
}

/// The texts of the columns `customer` and `card`.
type Details = [Option<Box<str>>; 2];

/// The text that goes with another, and the line in which it was so first.
type Pairs = HashMap<Rc<str>, (Rc<str>, u64)>;

impl Roll {
    /// Enters the row in `line`. Returns in what it contradicts an earlier one: the same name, a `cid` with another card, a
    /// card with another `cid`, or with another payer.
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
        let of_shop = self.of_shop(shop);
        if let Some(name) = text(Column::ExternalId) {
            mistakes.extend(of_shop.enter_name(line, name));
        }
        for column in Column::CARD_KEYS {
            if let (Some(cid), Some(key)) = (text(Column::Cid), text(column)) {
                mistakes.extend(of_shop.enter_card(line, cid, column, key));
            }
        }
        if let Some(key) = text(Column::FirstTransactionId) {
            let details =
                [Column::Customer, Column::Card].map(|column| text(column).map(Into::into));
            mistakes.extend(of_shop.enter_details(line, key, details));
        }
        mistakes
    }

    /// How many cards there are.
    pub fn cards(&self) -> usize {
        let shops = self.shops.values();
        shops.map(|shop| shop.keys_by_cid.len()).sum()
    }

    fn of_shop(&mut self, shop: &str) -> &mut ShopRoll {
        if !self.shops.contains_key(shop) {
            self.shops.insert(shop.into(), ShopRoll::default());
        }
        self.shops.get_mut(shop).expect("inserted if missing")
    }
}

impl ShopRoll {
    fn enter_name(&mut self, line: u64, name: &str) -> Option<Mistake> {
        let Some(earlier) = self.names.get(name) else {
            self.names.insert(name.into(), line);
            return None;
        };
        Some(Mistake::new(
            Column::ExternalId,
            name,
            Wrong::new(
                format!("stands in line {earlier} already"),
                "each external_id once per shop",
            ),
        ))
    }

    fn enter_details(&mut self, line: u64, key: &str, details: Details) -> Option<Mistake> {
        let Some((known, earlier)) = self.details.get(key) else {
            self.details.insert(key.into(), (details, line));
            return None;
        };
        let wrong = || {
            Wrong::new(
                format!("has another customer, or other aliases, than in line {earlier}"),
                "the same for each subscription of a card",
            )
        };
        (*known != details).then(|| Mistake::new(Column::FirstTransactionId, key, wrong()))
    }

    fn enter_card(&mut self, line: u64, cid: &str, column: Column, key: &str) -> Vec<Mistake> {
        let known_cid = self.keys_by_cid.get(cid);
        let known_key = self.cids_by_key.get(key);
        let mut mistakes = Vec::new();
        let mut wrong = |column, text, problem| {
            mistakes.push(Mistake::new(column, text, Wrong::new(problem, ONE_CARD)));
        };
        if let Some((other, earlier)) = known_cid
            && **other != *key
        {
            let problem = format!("is the card {other} in line {earlier} and another one here");
            wrong(Column::Cid, cid, problem);
        }
        if let Some((other, earlier)) = known_key
            && **other != *cid
        {
            let problem = format!("has the cid {other} in line {earlier} and another one here");
            wrong(column, key, problem);
        }
        let (is_new_cid, is_new_key) = (known_cid.is_none(), known_key.is_none());
        if is_new_cid || is_new_key {
            let (cid, key): (Rc<str>, Rc<str>) = (cid.into(), key.into());
            if is_new_cid {
                let pair = (Rc::clone(&key), line);
                self.keys_by_cid.insert(Rc::clone(&cid), pair);
            }
            if is_new_key {
                self.cids_by_key.insert(key, (cid, line));
            }
        }
        mistakes
    }
}

/// The rule of imoje: "Each payment instrument must have its own cid" (imoje API, one-click and recurring).
pub(super) const ONE_CARD: &str = "one card for each cid and one cid for each card";
