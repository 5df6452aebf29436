//! Which faults happen when, drawn from a seed before the run starts.
//!
//! Invariants: the same seed and length give the same schedule; faults overlap, but each is over before the run's quiet
//! end; a schedule that is long enough holds every kind at least once.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `kill -9`, started again after `lasts`.
    Kill,
    /// Stopped by a signal as a long pause of the machine would, then continued.
    Pause,
}

/// Whom a fault meets; who leads is only known when it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    Leader,
    Follower,
    /// Two of three: the cluster stands still meanwhile.
    Majority,
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    pub kind: Kind,
    pub target: Target,
    pub at: Duration,
    pub lasts: Duration,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { kind, target, at, lasts } = self;
        write!(f, "{kind:?} {target:?} at {:.1} s for {:.1} s", at.as_secs_f64(), lasts.as_secs_f64())
    }
}

const COMBINATIONS: [(Kind, Target); 7] = [
    (Kind::Kill, Target::Leader),
    (Kind::Pause, Target::Leader),
    (Kind::Kill, Target::Follower),
    (Kind::Pause, Target::Follower),
    (Kind::Kill, Target::All),
    (Kind::Kill, Target::Majority),
    (Kind::Pause, Target::All),
];

/// Faults within `length`, one beginning every one to two seconds, in order of their beginning.
pub fn draw(seed: u64, length: Duration) -> Vec<Fault> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut faults = Vec::new();
    let mut at = Duration::from_millis(random.random_range(500..1_000));
    let mut deck: Vec<(Kind, Target)> = Vec::new();
    loop {
        if deck.is_empty() {
            deck = COMBINATIONS.to_vec();
        }
        let (kind, target) = deck.swap_remove(random.random_range(0..deck.len()));
        // Longer than an election timeout, so that a lost leader is replaced before it returns.
        let lasts = Duration::from_millis(random.random_range(400..3_000));
        if at + lasts > length {
            return faults;
        }
        faults.push(Fault { kind, target, at, lasts });
        at += Duration::from_millis(random.random_range(1_000..2_000));
    }
}
