//! Payment profiles: cards that were registered for recurring payments, as imoje keeps them.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use chrono::{DateTime, Datelike, Utc};
use serde::Deserialize;
use uuid::Uuid;

use super::behaviour::{Behaviour, DEFAULT_DELAY, Fate};

/// A card profile that the simulator knows. Only the id must be given in a script.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimulatedProfile {
    /// `id`, a UUID v4.
    pub id: Uuid,
    /// `merchantCustomerId`; the profile's id if left out.
    #[serde(default)]
    pub cid: Option<String>,
    /// `firstName` of the card holder.
    #[serde(default = "first_name")]
    pub first_name: String,
    /// `lastName` of the card holder.
    #[serde(default = "last_name")]
    pub last_name: String,
    /// `email` of the card holder.
    #[serde(default)]
    pub email: String,
    /// `maskedNumber`, e.g. `****4242`.
    #[serde(default = "masked_number")]
    pub masked_number: String,
    /// `organization`: `VISA` or `MASTERCARD`.
    #[serde(default = "organization")]
    pub organization: String,
    /// Month of expiry, 1 to 12. A card is good until the end of this month; then it is declined with `CODE_54`.
    #[serde(default = "expiry_month")]
    pub expiry_month: u32,
    /// Year of expiry, four digits.
    #[serde(default = "expiry_year")]
    pub expiry_year: i32,
    /// Whether the profile may be debited at all.
    #[serde(default = "yes")]
    pub active: bool,
    /// From this moment on the profile is inactive.
    #[serde(default)]
    pub inactive_from: Option<DateTime<Utc>>,
    /// The first debits are declined.
    #[serde(default)]
    pub declines_first: Option<DeclinesFirst>,
    /// `firstTransactionId` of the registration, if the profile has one.
    #[serde(default)]
    pub first_transaction_id: Option<String>,
    /// How debits of this profile behave where no rule says otherwise.
    #[serde(default)]
    pub behaviour: Behaviour,
}

/// The first `count` debits of a profile are declined with `code`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclinesFirst {
    /// How many.
    pub count: u32,
    /// imoje's `statusCode`.
    pub code: String,
}

fn first_name() -> String {
    "Anna".to_owned()
}
fn last_name() -> String {
    "Nowak".to_owned()
}
fn masked_number() -> String {
    "****1111".to_owned()
}
fn organization() -> String {
    "VISA".to_owned()
}
fn expiry_month() -> u32 {
    12
}
fn expiry_year() -> i32 {
    2099
}
fn yes() -> bool {
    true
}

impl SimulatedProfile {
    /// An active profile of a card that does not expire soon.
    pub fn new(id: Uuid) -> Self {
        Self {
            id,
            cid: None,
            first_name: first_name(),
            last_name: last_name(),
            email: String::new(),
            masked_number: masked_number(),
            organization: organization(),
            expiry_month: expiry_month(),
            expiry_year: expiry_year(),
            active: true,
            inactive_from: None,
            declines_first: None,
            first_transaction_id: None,
            behaviour: Behaviour::default(),
        }
    }

    /// The same profile with this `merchantCustomerId`.
    pub fn with_cid(self, cid: &str) -> Self {
        Self {
            cid: Some(cid.to_owned()),
            ..self
        }
    }

    /// The same profile of a card that is good until the end of this month.
    pub fn expiring(self, month: u32, year: i32) -> Self {
        Self {
            expiry_month: month,
            expiry_year: year,
            ..self
        }
    }

    /// The same profile, inactive from this moment on.
    pub fn inactive_from(self, moment: DateTime<Utc>) -> Self {
        Self {
            inactive_from: Some(moment),
            ..self
        }
    }

    /// The same profile, whose first `count` debits are declined with `code`.
    pub fn declining_first(self, count: u32, code: &str) -> Self {
        Self {
            declines_first: Some(DeclinesFirst {
                count,
                code: code.to_owned(),
            }),
            ..self
        }
    }

    /// `merchantCustomerId`.
    pub fn customer_id(&self) -> String {
        self.cid.clone().unwrap_or_else(|| self.id.to_string())
    }

    /// Whether the card's last month is over.
    pub(super) fn is_expired(&self, now: DateTime<Utc>) -> bool {
        (now.year(), now.month()) > (self.expiry_year, self.expiry_month)
    }
}

/// A profile as it stands at some moment.
#[derive(Clone, Debug)]
pub(super) struct ProfileNow {
    pub(super) profile: Arc<SimulatedProfile>,
    pub(super) is_active: bool,
    /// How many debits of it were booked before.
    pub(super) debits: u32,
    /// Whether there is no profile of the card: it was registered without one.
    pub(super) is_plain: bool,
}

impl ProfileNow {
    /// What becomes of a debit: the rule's word if it has one, or else that of the profile and the script, as far as
    /// the condition of the card allows.
    pub(super) fn fate(&self, rule: Option<Fate>, base: &Behaviour, now: DateTime<Utc>) -> Fate {
        if let Some(fate) = rule {
            return fate;
        }
        let fate = base
            .fate
            .clone()
            .unwrap_or(Fate::SettleAfter(DEFAULT_DELAY));
        if self.profile.is_expired(now) {
            return fate.declined_instead("CODE_54");
        }
        match &self.profile.declines_first {
            Some(first) if self.debits < first.count => fate.declined_instead(&first.code),
            Some(_) | None => fate,
        }
    }
}

/// All profiles. One that is merely accepted takes no memory.
#[derive(Debug, Default)]
pub(super) struct Profiles {
    accept_unknown: bool,
    registered: HashMap<Uuid, Registered>,
    by_customer: HashMap<String, Vec<Uuid>>,
    by_first_transaction: HashMap<String, Uuid>,
    deactivated: HashSet<Uuid>,
}

#[derive(Debug)]
struct Registered {
    profile: Arc<SimulatedProfile>,
    debits: u32,
    is_plain: bool,
}

impl Profiles {
    pub(super) fn new(accept_unknown: bool, profiles: Vec<SimulatedProfile>) -> Self {
        let mut all = Self {
            accept_unknown,
            ..Self::default()
        };
        for profile in profiles {
            all.register(profile);
        }
        all
    }

    /// Adds a profile, or replaces the one with its id.
    pub(super) fn register(&mut self, profile: SimulatedProfile) {
        let (id, cid) = (profile.id, profile.customer_id());
        self.keep(profile, false);
        self.by_customer.entry(cid).or_default().push(id);
    }

    /// Adds a card that has no profile.
    pub(super) fn register_plain(&mut self, profile: SimulatedProfile) {
        self.keep(profile, true);
    }

    fn keep(&mut self, profile: SimulatedProfile, is_plain: bool) {
        let id = profile.id;
        self.deactivated.remove(&id);
        if let Some(first_transaction_id) = &profile.first_transaction_id {
            self.by_first_transaction
                .insert(first_transaction_id.clone(), id);
        }
        if let Some(before) = self.registered.insert(
            id,
            Registered {
                profile: Arc::new(profile),
                debits: 0,
                is_plain,
            },
        ) && let Some(ids) = self.by_customer.get_mut(&before.profile.customer_id())
        {
            ids.retain(|other| *other != id);
        }
    }

    pub(super) fn deactivate(&mut self, id: Uuid) {
        self.deactivated.insert(id);
    }

    pub(super) fn count_debit(&mut self, id: Uuid) {
        if let Some(registered) = self.registered.get_mut(&id) {
            registered.debits = registered.debits.saturating_add(1);
        }
    }

    pub(super) fn find(&self, id: Uuid, now: DateTime<Utc>) -> Option<ProfileNow> {
        let (profile, debits, is_plain) = match self.registered.get(&id) {
            Some(registered) => (
                Arc::clone(&registered.profile),
                registered.debits,
                registered.is_plain,
            ),
            None if self.accept_unknown => (Arc::new(SimulatedProfile::new(id)), 0, false),
            None => return None,
        };
        let is_active = profile.active
            && !self.deactivated.contains(&id)
            && profile
                .inactive_from
                .is_none_or(|inactive_from| now < inactive_from);
        Some(ProfileNow {
            profile,
            is_active,
            debits,
            is_plain,
        })
    }

    /// The card that was registered with this transaction, whether it has a profile or not.
    pub(super) fn find_first(
        &mut self,
        first_transaction_id: &str,
        now: DateTime<Utc>,
    ) -> Option<ProfileNow> {
        if let Some(id) = self.by_first_transaction.get(first_transaction_id) {
            return self.find(*id, now);
        }
        if !self.accept_unknown {
            return None;
        }
        let id = Uuid::new_v4();
        self.register_plain(SimulatedProfile {
            first_transaction_id: Some(first_transaction_id.to_owned()),
            ..SimulatedProfile::new(id)
        });
        self.find(id, now)
    }

    pub(super) fn of_customer(&self, cid: &str, now: DateTime<Utc>) -> Vec<ProfileNow> {
        let ids = self
            .by_customer
            .get(cid)
            .map(Vec::as_slice)
            .unwrap_or_default();
        ids.iter().filter_map(|id| self.find(*id, now)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn a_card_is_good_until_the_end_of_its_month() {
        let profile = SimulatedProfile::new(Uuid::new_v4()).expiring(2, 2028);
        assert!(!profile.is_expired(moment("2028-02-29T23:59:59Z")));
        assert!(profile.is_expired(moment("2028-03-01T00:00:00Z")));
        assert!(!profile.is_expired(moment("2027-12-31T00:00:00Z")));
    }

    #[test]
    fn an_unknown_profile_is_accepted_only_when_the_script_says_so() {
        let id = Uuid::new_v4();
        let now = moment("2026-10-01T00:00:00Z");
        assert!(Profiles::new(true, Vec::new()).find(id, now).is_some());
        assert!(Profiles::new(false, Vec::new()).find(id, now).is_none());
    }

    #[test]
    fn a_profile_becomes_inactive_by_hand_or_by_date() {
        let id = Uuid::new_v4();
        let profile = SimulatedProfile::new(id).inactive_from(moment("2026-11-01T00:00:00Z"));
        let mut profiles = Profiles::new(false, vec![profile]);
        assert!(
            profiles
                .find(id, moment("2026-10-31T23:59:59Z"))
                .unwrap()
                .is_active
        );
        assert!(
            !profiles
                .find(id, moment("2026-11-01T00:00:00Z"))
                .unwrap()
                .is_active
        );
        profiles.deactivate(id);
        assert!(
            !profiles
                .find(id, moment("2026-10-01T00:00:00Z"))
                .unwrap()
                .is_active
        );
    }

    #[test]
    fn profiles_are_found_by_the_customer_id_they_have_now() {
        let id = Uuid::new_v4();
        let now = moment("2026-10-01T00:00:00Z");
        let mut profiles = Profiles::new(false, vec![SimulatedProfile::new(id).with_cid("old")]);
        profiles.register(SimulatedProfile::new(id).with_cid("new"));
        assert!(profiles.of_customer("old", now).is_empty());
        assert_eq!(profiles.of_customer("new", now).len(), 1);
    }
}
