//! What a process does to the world outside, one after the other, and what goes wrong there.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::Dice;

/// What goes wrong at an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The process dies, and the effect never happens.
    CrashBefore,
    /// The effect happens, and the process dies before it hears of it.
    CrashAfter,
    /// The connection breaks, and the effect never happens.
    Error,
    /// The effect happens, and the connection breaks before the process hears of it.
    Ambiguous,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Fault; 4] = [
        Fault::CrashBefore,
        Fault::CrashAfter,
        Fault::Error,
        Fault::Ambiguous,
    ];

    /// Whether the effect happens all the same.
    pub fn happens(self) -> bool {
        match self {
            Fault::CrashAfter | Fault::Ambiguous => true,
            Fault::CrashBefore | Fault::Error => false,
        }
    }

    /// Whether the process dies.
    pub fn kills(self) -> bool {
        match self {
            Fault::CrashBefore | Fault::CrashAfter => true,
            Fault::Error | Fault::Ambiguous => false,
        }
    }
}

/// How often each fault happens, per thousand effects.
#[derive(Debug, Clone, Copy, Default)]
pub struct Odds {
    pub crash: u64,
    pub cut: u64,
}

/// What goes wrong in the life of a process.
#[derive(Debug, Clone)]
pub enum Plan {
    /// These faults, at the effects with these numbers, counted from 0.
    At(Vec<(usize, Fault)>),
    /// Whatever the dice say.
    Chance(Odds, Dice),
}

/// The effects of one process.
#[derive(Debug)]
pub struct Effects {
    seen: Mutex<Seen>,
    crashed: CancellationToken,
}

#[derive(Debug)]
struct Seen {
    plan: Plan,
    names: Vec<String>,
    struck: usize,
}

impl Effects {
    /// Of a process with this fate.
    pub fn of(plan: Plan) -> Self {
        Self {
            seen: Mutex::new(Seen {
                plan,
                names: Vec::new(),
                struck: 0,
            }),
            crashed: CancellationToken::new(),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process is about to do `name`. A fault that comes before it has struck when this returns.
    pub fn next(&self, name: String) -> Option<Fault> {
        let mut seen = self.seen();
        let number = seen.names.len();
        seen.names.push(name);
        let fault = match &mut seen.plan {
            Plan::At(faults) => faults
                .iter()
                .find(|(at, _)| *at == number)
                .map(|(_, fault)| *fault),
            Plan::Chance(odds, dice) => {
                let drawn = dice.below(1_000);
                let after = dice.hits(500);
                if drawn < odds.crash {
                    Some(if after {
                        Fault::CrashAfter
                    } else {
                        Fault::CrashBefore
                    })
                } else if drawn < odds.crash + odds.cut {
                    Some(if after {
                        Fault::Ambiguous
                    } else {
                        Fault::Error
                    })
                } else {
                    None
                }
            }
        };
        if let Some(fault) = fault {
            seen.struck += 1;
            if fault == Fault::CrashBefore {
                self.crashed.cancel();
            }
        }
        fault
    }

    /// The process is no more.
    pub fn crash(&self) {
        self.crashed.cancel();
    }

    /// Whether the process is no more. Nothing of it goes through a proxy then.
    pub fn is_crashed(&self) -> bool {
        self.crashed.is_cancelled()
    }

    /// Returns once the process is no more.
    pub async fn crashed(&self) {
        self.crashed.cancelled().await;
    }

    /// The names of all effects so far, in their order.
    pub fn names(&self) -> Vec<String> {
        self.seen().names.clone()
    }

    /// How many faults struck.
    pub fn struck(&self) -> usize {
        self.seen().struck
    }
}
