//! Bugs that were made on purpose, one to a process, for `cargo xtask zoo`.
//!
//!     simulation-zoo list            a line of JSON for each bug: its name and the seeds to try
//!     simulation-zoo run BUG SEED    runs the seed with the bug and says in a line of JSON what was found
//!     simulation-zoo clean BUG SEED  runs the seed without it
//!
//! Not here: the bugs (`planted.rs` of replica and its neighbours), what a run checks (the library).

#![expect(clippy::print_stdout, reason = "the lines are the output")]

use mvcc::planted::Bug as Mvcc;
use replica::planted::Bug as Replica;
use serde_json::json;
use simulation::{Keep, Plan, alike, run_after};
use store::planted::Bug as Store;
use wal::planted::Bug as Wal;

#[derive(Clone, Copy, Debug)]
enum Planted {
    Wal(Wal),
    Mvcc(Mvcc),
    Replica(Replica),
    Store(Store),
}

impl Planted {
    fn plant(self) {
        match self {
            Planted::Wal(bug) => wal::planted::plant(Some(bug)),
            Planted::Mvcc(bug) => mvcc::planted::plant(Some(bug)),
            Planted::Replica(bug) => replica::planted::plant(Some(bug)),
            Planted::Store(bug) => store::planted::plant(Some(bug)),
        }
    }

    /// `wal::SyncRetried`
    fn name(self) -> String {
        match self {
            Planted::Wal(bug) => format!("wal::{bug:?}"),
            Planted::Mvcc(bug) => format!("mvcc::{bug:?}"),
            Planted::Replica(bug) => format!("replica::{bug:?}"),
            Planted::Store(bug) => format!("store::{bug:?}"),
        }
    }
}

/// Each with a seed that is quick to find it. A change of what seeds mean makes that worthless, not wrong: seeds like it
/// are tried then.
const BUGS: [(Planted, u64); 26] = [
    (Planted::Wal(Wal::MarksIgnored), 11),
    (Planted::Wal(Wal::SyncRetried), 66),
    (Planted::Mvcc(Mvcc::RefusedByReadInPart), 101),
    (Planted::Replica(Replica::JoinsRunningRound), 29),
    (Planted::Replica(Replica::QuarantineIgnored), 24),
    (Planted::Replica(Replica::ExpireAnyTerm), 77),
    (Planted::Replica(Replica::IdsFromZero), 17),
    (Planted::Replica(Replica::ReadBeforeApply), 41),
    (Planted::Replica(Replica::ReadWithoutQuorum), 3),
    (Planted::Replica(Replica::PurgeAheadOfState), 1),
    (Planted::Replica(Replica::LayerEmptiedEarly), 1),
    (Planted::Replica(Replica::AnswersSwapped), 8),
    (Planted::Replica(Replica::AnswerLost), 3),
    (Planted::Replica(Replica::ProposeTwice), 5),
    (Planted::Replica(Replica::StreamEndRefuses), 6),
    (Planted::Replica(Replica::NoFullTime), 1),
    (Planted::Replica(Replica::SnapshotWithoutLeases), 6),
    (Planted::Replica(Replica::ReplaysUncommitted), 5),
    (Planted::Replica(Replica::NotComparedIsEqual), 115),
    (Planted::Store(Store::ProgressOvertakes), 1),
    (Planted::Store(Store::CursorReset), 2),
    (Planted::Store(Store::BehindSkipped), 2),
    (Planted::Store(Store::BehindRepeats), 2),
    (Planted::Store(Store::TombstoneDropped), 15),
    (Planted::Store(Store::FutureBeginsNow), 2),
    (Planted::Store(Store::BarrierSkipped), 3),
];

/// Seeds that are tried after the known one.
const SEEDS_MORE: usize = 12;

/// Bugs that end the process, and what it says before: a panic within a panic cannot be reported as a finding.
const DEADLY: [(&str, &str); 1] = [("replica::ReplaysUncommitted", "<= self.committed()")];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["list"] => list(),
        ["run", bug, seed] => run(Some(known(bug)), seed),
        ["clean", _, seed] => run(None, seed),
        _ => panic!("simulation-zoo list | run BUG SEED | clean BUG SEED"),
    }
}

fn list() {
    for (bug, known) in BUGS {
        let name = bug.name();
        let seeds: Vec<u64> = [known].into_iter().chain(alike(known).take(SEEDS_MORE)).collect();
        let dies = DEADLY.iter().find(|(deadly, _)| *deadly == name).map(|(_, says)| says);
        println!("{}", json!({ "bug": name, "level": "S", "seeds": seeds, "dies_saying": dies }));
    }
}

fn known(name: &str) -> Planted {
    let bugs = BUGS.into_iter().map(|(bug, _)| bug);
    bugs.into_iter().find(|bug| bug.name() == name).expect("the name of a bug")
}

fn run(bug: Option<Planted>, seed: &str) {
    let seed: u64 = seed.parse().expect("a seed is a number");
    let first = move || bug.into_iter().for_each(Planted::plant);
    let failure = run_after(&Plan::draw(seed), Keep::Newest, first).err();
    let (is_valid, what) = match failure.map(|failure| failure.what) {
        Some(what) if what.starts_with("not a valid run") => (false, Some(what)),
        what => (true, what),
    };
    println!("{}", json!({ "seed": seed, "found": what, "is_valid": is_valid }));
}
