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

/// Each with a seed that finds it. A change of what seeds mean makes them worthless, not wrong: then others are tried.
const BUGS: [(Planted, u64); 25] = [
    (Planted::Wal(Wal::AcknowledgeBeforeSync), 3),
    (Planted::Wal(Wal::DirectoryNotSynced), 1),
    (Planted::Wal(Wal::MarksIgnored), 11),
    (Planted::Wal(Wal::SyncRetried), 66),
    (Planted::Replica(Replica::JoinsRunningRound), 29),
    (Planted::Replica(Replica::QuarantineIgnored), 24),
    (Planted::Replica(Replica::ExpireAnyTerm), 77),
    (Planted::Replica(Replica::IdsFromZero), 17),
    (Planted::Replica(Replica::ReadBeforeApply), 8),
    (Planted::Replica(Replica::ReadWithoutQuorum), 3),
    (Planted::Replica(Replica::PurgeAheadOfState), 1),
    (Planted::Replica(Replica::LayerEmptiedEarly), 1),
    (Planted::Replica(Replica::AnswersSwapped), 8),
    (Planted::Replica(Replica::AnswerLost), 3),
    (Planted::Replica(Replica::ProposeTwice), 5),
    (Planted::Replica(Replica::StreamEndRefuses), 6),
    (Planted::Replica(Replica::NoFullTime), 1),
    (Planted::Replica(Replica::SnapshotWithoutLeases), 6),
    (Planted::Store(Store::ProgressOvertakes), 1),
    (Planted::Store(Store::CursorReset), 2),
    (Planted::Store(Store::BehindSkipped), 2),
    (Planted::Store(Store::BehindRepeats), 2),
    (Planted::Store(Store::TombstoneDropped), 15),
    (Planted::Store(Store::FutureBeginsNow), 2),
    (Planted::Store(Store::BarrierSkipped), 3),
];

/// Of a violation; with `SEED` the swarm tells all of it.
const SENTENCE_CHARS_MAX: usize = 160;
/// Seeds that are tried where the known one finds nothing.
const FRESH_SEEDS: u64 = 40;

/// How the run of one seed with the bug fails, if it does.
fn finding(bug: Planted, seed: u64) -> Option<String> {
    let failure = run_after(&Plan::draw(seed), Keep::Newest, move || bug.plant()).err()?;
    (!failure.what.starts_with("not a valid run")).then_some(failure.what)
}

/// `BUG=NAME SEEDS=3,6,9`: which of these seeds find it, to choose a known one.
#[test]
fn the_seeds_that_find_a_bug() {
    let (Ok(only), Ok(seeds)) = (std::env::var("BUG"), std::env::var("SEEDS")) else { return };
    for bug in BUGS.iter().map(|(bug, _)| bug).filter(|bug| format!("{bug:?}").contains(&only)) {
        for seed in seeds.split(',').filter_map(|seed| seed.parse().ok()) {
            let began = Instant::now();
            let found = finding(*bug, seed);
            println!("{bug:?} {seed} {:.1} s {found:?}", began.elapsed().as_secs_f64());
        }
    }
}

/// `BUG=NAME` chooses, `FIRST=100` ignores the known seeds and begins there.
#[test]
fn every_planted_bug_is_found() {
    let only = std::env::var("BUG").unwrap_or_default();
    let first = std::env::var("FIRST").ok().and_then(|text| text.parse().ok());
    let wanted: Vec<_> = BUGS.iter().copied().filter(|(bug, _)| format!("{bug:?}").contains(&only)).collect();
    let mut missed = Vec::new();
    println!("\n| bug | seed | seconds | found because |\n|---|---|---|---|");
    for (bug, known) in &wanted {
        let began = Instant::now();
        let fresh = first.unwrap_or(1);
        let known = first.is_none().then_some(*known);
        let seeds = known.into_iter().chain((fresh..fresh + FRESH_SEEDS).filter(|seed| Some(*seed) != known));
        let mut tried = 0;
        let found = seeds.inspect(|_| tried += 1).find_map(|seed| Some((seed, finding(*bug, seed)?)));
        let seconds = began.elapsed().as_secs_f64();
        match found {
            Some((seed, what)) => {
                let what: String = what.chars().take(SENTENCE_CHARS_MAX).collect();
                println!("| {bug:?} | {seed} | {seconds:.1} | {what} |");
            }
            None => {
                println!("| {bug:?} | none of {tried} | {seconds:.1} | |");
                missed.push(*bug);
            }
        }
    }
    println!("found {} of {}", wanted.len() - missed.len(), wanted.len());
    assert!(missed.is_empty(), "not found: {missed:?}");
}
