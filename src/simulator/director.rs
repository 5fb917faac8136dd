//! Chooses the behaviour for a call: the first rule that matches.
//!
//! Chance is a function of the seed, the rule and the call's own data, never of the order in which calls arrive, so
//! that a run with many connections can be repeated.

use std::sync::Arc;

use uuid::Uuid;

use super::{
    behaviour::Behaviour,
    script::{Call, Rule},
};

/// What a rule can look at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    pub(super) call: Call,
    pub(super) payment_profile_id: Option<Uuid>,
    pub(super) order_id: Option<&'a str>,
    /// How many calls of this kind there were before about the same thing.
    pub(super) repetition: u32,
}

/// The rules and how often each was used.
#[derive(Debug)]
pub(super) struct Director {
    seed: u64,
    rules: Vec<ActiveRule>,
    next_number: u64,
}

#[derive(Debug)]
struct ActiveRule {
    rule: Rule,
    then: Arc<Behaviour>,
    number: u64,
    matched: u32,
    used: u32,
}

impl Director {
    pub(super) fn new(seed: u64, rules: Vec<Rule>) -> Self {
        let mut director = Self {
            seed,
            rules: Vec::new(),
            next_number: 1,
        };
        for rule in rules {
            director.add(rule);
        }
        director
    }

    pub(super) fn add(&mut self, rule: Rule) {
        let then = Arc::new(rule.then.clone());
        self.rules.push(ActiveRule {
            rule,
            then,
            number: self.next_number,
            matched: 0,
            used: 0,
        });
        self.next_number += 1;
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
    }

    /// What the first matching rule says; nothing if none matches.
    pub(super) fn choose(&mut self, facts: Facts<'_>) -> Option<Arc<Behaviour>> {
        let seed = self.seed;
        self.rules.iter_mut().find_map(|active| {
            active
                .decides(seed, facts)
                .then(|| Arc::clone(&active.then))
        })
    }
}

impl ActiveRule {
    fn decides(&mut self, seed: u64, facts: Facts<'_>) -> bool {
        if self.rule.times.is_some_and(|times| self.used >= times) || !self.concerns(seed, facts) {
            return false;
        }
        self.matched = self.matched.saturating_add(1);
        if self.rule.when.nth.is_some_and(|nth| self.matched != nth) {
            return false;
        }
        if let Some(percent) = self.rule.percent {
            let subject = match (facts.order_id, facts.payment_profile_id) {
                (Some(order_id), _) => hash(order_id.as_bytes()),
                (None, Some(profile)) => hash(profile.as_bytes()),
                (None, None) => u64::from(self.matched),
            };
            if !percent.includes(draw(&[
                seed,
                self.number,
                subject,
                u64::from(facts.repetition),
            ])) {
                return false;
            }
        }
        self.used = self.used.saturating_add(1);
        true
    }

    fn concerns(&self, seed: u64, facts: Facts<'_>) -> bool {
        let when = &self.rule.when;
        when.call.covers(facts.call)
            && when
                .payment_profile_id
                .is_none_or(|wanted| facts.payment_profile_id == Some(wanted))
            && when
                .order_id_contains
                .as_ref()
                .is_none_or(|part| facts.order_id.is_some_and(|id| id.contains(part)))
            && when.percent_of_profiles.is_none_or(|percent| {
                facts.payment_profile_id.is_some_and(|profile| {
                    percent.includes(draw(&[seed, self.number, hash(profile.as_bytes())]))
                })
            })
    }
}

/// A number from 0 to 99, evenly spread over the values of `parts`.
fn draw(parts: &[u64]) -> u64 {
    parts.iter().fold(0, |state, part| mix(state ^ *part)) % 100
}

/// The step of the splitmix64 generator.
fn mix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn debit(order_id: &str) -> Facts<'_> {
        Facts {
            call: Call::Debit,
            payment_profile_id: None,
            order_id: Some(order_id),
            repetition: 0,
        }
    }

    fn decline() -> Behaviour {
        Behaviour::decline("CODE_51")
    }

    #[test]
    fn rules_are_asked_in_the_order_in_which_they_were_added() {
        let mut director = Director::new(1, vec![Rule::debits(decline()).times(1)]);
        director.add(Rule::debits(Behaviour::settle_at_once()).times(1));
        assert_eq!(*director.choose(debit("a")).unwrap(), decline());
        assert_eq!(
            *director.choose(debit("b")).unwrap(),
            Behaviour::settle_at_once()
        );
        assert!(director.choose(debit("c")).is_none());
    }

    #[test]
    fn a_rule_for_the_nth_call_counts_only_calls_it_concerns() {
        let mut director = Director::new(1, vec![Rule::debits(decline()).of_order("x").nth(2)]);
        let decided = ["x1", "y", "x2", "x3"].map(|order| director.choose(debit(order)).is_some());
        assert_eq!(decided, [false, false, true, false]);
    }

    #[test]
    fn a_rule_for_a_profile_leaves_other_calls_alone() {
        let profile = Uuid::new_v4();
        let mut director = Director::new(1, vec![Rule::debits(decline()).of_profile(profile)]);
        let of = |id| Facts {
            payment_profile_id: Some(id),
            ..debit("a")
        };
        assert!(director.choose(of(profile)).is_some());
        assert!(director.choose(of(Uuid::new_v4())).is_none());
        assert!(
            director
                .choose(Facts {
                    call: Call::Transaction,
                    ..of(profile)
                })
                .is_none()
        );
    }

    #[test]
    fn chance_depends_on_the_order_and_not_on_the_sequence_of_calls() {
        let orders: Vec<String> = (0..1000).map(|number| format!("order-{number}")).collect();
        let rules = || vec![Rule::debits(decline()).percent(10)];
        let mut forwards = Director::new(7, rules());
        let mut backwards = Director::new(7, rules());
        let first: Vec<bool> = orders
            .iter()
            .map(|order| forwards.choose(debit(order)).is_some())
            .collect();
        let mut second: Vec<bool> = orders
            .iter()
            .rev()
            .map(|o| backwards.choose(debit(o)).is_some())
            .collect();
        second.reverse();
        assert_eq!(first, second);
        let hits = first.iter().filter(|hit| **hit).count();
        assert!(
            (60..140).contains(&hits),
            "{hits} of 1000 is about 10 percent"
        );
    }

    #[test]
    fn a_share_of_profiles_is_the_same_each_time() {
        let mut director =
            Director::new(7, vec![Rule::debits(decline()).of_percent_of_profiles(50)]);
        for _ in 0..50 {
            let profile = Uuid::new_v4();
            let of = |order| Facts {
                payment_profile_id: Some(profile),
                ..debit(order)
            };
            assert_eq!(
                director.choose(of("a")).is_some(),
                director.choose(of("b")).is_some()
            );
        }
    }
}
