//! Chance that can be repeated.

use uuid::Uuid;

use crate::harness::number_from;

/// Draws numbers, the same from the same seed (splitmix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The dice of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The dice of `CYKL_TEST_SEED`, or of chance. The seed is printed, for a failure to be tried again.
    pub fn from_environment() -> Self {
        let seed = number_from("CYKL_TEST_SEED");
        let seed = seed.unwrap_or_else(|| Uuid::new_v4().as_u64_pair().0);
        println!("CYKL_TEST_SEED={seed}");
        Self(seed)
    }

    /// Dice of their own, so that what one part of a run draws does not change what another draws.
    pub fn split(&mut self) -> Self {
        Self(self.next())
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Whether something of this chance happens.
    pub fn hits(&mut self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }

    /// One of `choices`.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        let index = self.below(u64::try_from(choices.len()).unwrap());
        &choices[usize::try_from(index).unwrap()]
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
