//! Bugs that were made on purpose: the swarm must find each of them within so many seeds.
//!
//! Runs only with the feature `planted` (`cargo xtask zoo`). The table in tests/simulation/README.md is its output.

#![cfg(feature = "planted")]
#![expect(clippy::print_stdout, reason = "the table is the point")]

use std::time::Instant;

use replica::planted::Bug as Replica;
use simulation::{Keep, Plan, run_after};
use store::planted::Bug as Store;
use wal::planted::Bug as Wal;

#[derive(Clone, Copy, Debug)]
enum Planted {
    Wal(Wal),
    Replica(Replica),
    Store(Store),
}

impl Planted {
    fn plant(self) {
        match self {
            Planted::Wal(bug) => wal::planted::plant(Some(bug)),
            Planted::Replica(bug) => replica::planted::plant(Some(bug)),
            Planted::Store(bug) => store::planted::plant(Some(bug)),
        }
    }
}

/// About thrice the seeds that it takes.
const BUGS: [(Planted, u64); 13] = [
    (Planted::Wal(Wal::AcknowledgeBeforeSync), 40),
    (Planted::Wal(Wal::DirectoryNotSynced), 40),
    (Planted::Replica(Replica::ReadWithoutQuorum), 40),
    (Planted::Replica(Replica::ReadBeforeApply), 40),
    (Planted::Replica(Replica::PositionAlone), 40),
    (Planted::Replica(Replica::PurgeAheadOfState), 40),
    (Planted::Replica(Replica::VoteNotSaved), 40),
    (Planted::Replica(Replica::ProposeTwice), 40),
    (Planted::Replica(Replica::NoFullTime), 40),
    (Planted::Store(Store::ProgressOvertakes), 40),
    (Planted::Store(Store::CursorReset), 40),
    (Planted::Store(Store::BehindSkipped), 40),
    (Planted::Store(Store::BarrierSkipped), 40),
];

#[test]
fn every_planted_bug_is_found() {
    let only = std::env::var("BUG").unwrap_or_default();
    let wanted: Vec<_> = BUGS.iter().filter(|(bug, _)| format!("{bug:?}").contains(&only)).collect();
    let mut missed = Vec::new();
    for (bug, seeds) in &wanted {
        let bug = *bug;
        let began = Instant::now();
        let found = (1..=*seeds).find_map(|seed| {
            let failure = run_after(&Plan::draw(seed), Keep::Newest, move || bug.plant()).err()?;
            (!failure.what.starts_with("not a valid run")).then_some((seed, failure.what))
        });
        match found {
            Some((seed, what)) => {
                println!("| {bug:?} | {seed} | {:.0} | {what} |", began.elapsed().as_secs_f64())
            }
            None => {
                println!("| {bug:?} | not within {seeds} | {:.0} | |", began.elapsed().as_secs_f64());
                missed.push(bug);
            }
        }
    }
    println!("found {} of {}", wanted.len() - missed.len(), wanted.len());
    assert!(missed.is_empty(), "not found: {missed:?}");
}
