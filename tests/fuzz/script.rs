//! Bytes as instructions: how a document is spoilt.
//!
//! A target takes plain bytes, so that the corpus is made of readable documents. Bytes that are no document are good for something
//! all the same: they say how to spoil one. That way chance, which would hardly ever write JSON, gets past the first brace.

/// The most that is done to one document.
const EDITS_MAX: usize = 6;

/// The longest stretch that an edit takes out or repeats.
const STRETCH_MAX: usize = 40;

/// Instructions, read from the front. At their end there are zeros.
pub struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    /// The instructions in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// A number below `bound`; 0 when there is none.
    pub fn below(&mut self, bound: usize) -> usize {
        let number = usize::from(u16::from_be_bytes([self.byte(), self.byte()]));
        number.checked_rem(bound).unwrap_or(0)
    }

    /// One of `choices`, of which there is at least one.
    pub fn pick<'c, T: ?Sized>(&mut self, choices: &[&'c T]) -> &'c T {
        choices[self.below(choices.len())]
    }

    /// Yes or no.
    pub fn flip(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// How often something is done: at least once.
    pub fn times(&mut self) -> usize {
        1 + self.below(EDITS_MAX)
    }

    /// Spoils a document byte by byte: changes, cuts, repeats, and words that mean something elsewhere.
    pub fn spoil(&mut self, document: &[u8], words: &[&str]) -> Vec<u8> {
        let mut spoilt = document.to_vec();
        for _ in 0..self.times() {
            let at = self.below(spoilt.len() + 1);
            let end = (at + self.below(STRETCH_MAX)).min(spoilt.len());
            match self.below(7) {
                0 if at < spoilt.len() => spoilt[at] = self.byte(),
                1 if at < spoilt.len() => spoilt[at] ^= 1 << (self.byte() & 7),
                2 => drop(spoilt.drain(at..end)),
                3 => {
                    let again = spoilt[at..end].to_vec();
                    spoilt.splice(at..at, again);
                }
                4 => spoilt.truncate(at),
                5 => drop(spoilt.splice(at..at, self.pick(words).bytes())),
                _ => drop(spoilt.splice(at..end, self.pick(words).bytes())),
            }
        }
        spoilt
    }
}
