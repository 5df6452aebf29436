//! Makes a failing schedule small: which of its faults are needed.
//!
//! Halves first, then single faults, while the run still fails; bounded in runs, since each takes about a second.

use crate::plan::Plan;
use crate::run::{Failure, Keep, run};

const RUNS_MAX: usize = 60;

/// The smallest schedule that was found to fail, the positions of its faults in the original one, and how it fails.
#[derive(Debug)]
pub struct Shrunk {
    pub plan: Plan,
    pub kept: Vec<usize>,
    pub failure: Failure,
}

/// `failure` is what the whole plan ends with.
pub fn shrink(plan: &Plan, failure: Failure) -> Shrunk {
    let mut best = Shrunk { plan: plan.clone(), kept: (0..plan.faults.len()).collect(), failure };
    let mut runs = 0;
    let mut piece = best.kept.len().div_ceil(2);
    while piece > 0 && runs < RUNS_MAX {
        let mut from = 0;
        let mut smaller = false;
        while from < best.kept.len() && runs < RUNS_MAX {
            let mut kept = best.kept.clone();
            kept.drain(from..(from + piece).min(kept.len()));
            let candidate = plan.only(&kept);
            runs += 1;
            match run(&candidate, Keep::Newest) {
                Err(failure) if !failure.what.starts_with("not a valid run") => {
                    best = Shrunk { plan: candidate, kept, failure };
                    smaller = true;
                }
                Ok(_) | Err(_) => from += piece,
            }
        }
        piece = if piece == 1 && !smaller { 0 } else { piece / 2 + usize::from(piece == 1) };
    }
    best
}
