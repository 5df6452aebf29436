//! Bugs of the disk layer that were made on purpose, one to a process, for `cargo xtask zoo`.
//!
//!     crash-zoo list            a line of JSON for each bug: its name and the seeds to begin with
//!     crash-zoo run BUG SEED    tries the bug's number of states from that seed on; a line of JSON says what was found
//!     crash-zoo clean BUG SEED  tries all states of that seed in the suite that finds the bug, without the bug
//!
//! Not here: the bugs (`planted.rs` of wal and replica), the suites (`crash_suite.rs` there).

#![expect(clippy::print_stdout, reason = "the lines are the output")]

use serde_json::json;

/// Where to begin when the known seed finds nothing within its states.
const SEEDS_MORE: [u64; 2] = [10_000, 20_000];

#[derive(Clone, Copy)]
enum Planted {
    Wal(wal::planted::Bug),
    Replica(replica::planted::Bug),
}

/// The bug, its name, within how many states it must be found, and a seed that is quick to find it.
fn bugs() -> Vec<(Planted, String, u64, u64)> {
    let wal = wal::planted::BUGS
        .into_iter()
        .map(|(bug, states)| (Planted::Wal(bug), format!("wal::{bug:?}"), states, 1));
    let replica = replica::planted::DISK_BUGS.into_iter().map(|(bug, seed)| {
        (Planted::Replica(bug), format!("replica::{bug:?}"), replica::planted::DISK_BUG_STATES_MAX, seed)
    });
    wal.chain(replica).collect()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let known =
        |name: &str| bugs().into_iter().find(|(_, known, ..)| known == name).expect("the name of a bug");
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["list"] => {
            for (_, name, _, seed) in bugs() {
                let seeds: Vec<u64> = [seed].into_iter().chain(SEEDS_MORE).collect();
                println!("{}", json!({ "bug": name, "level": "C", "seeds": seeds }));
            }
        }
        ["run", name, seed] => {
            let (bug, _, states, _) = known(name);
            match bug {
                Planted::Wal(bug) => wal::planted::plant(Some(bug)),
                Planted::Replica(bug) => replica::planted::plant(Some(bug)),
            }
            tell(bug, states, seed);
        }
        ["clean", name, seed] => tell(known(name).0, 1, seed),
        _ => panic!("crash-zoo list | run BUG SEED | clean BUG SEED"),
    }
}

/// Tries so many states, and all of each seed that is begun.
fn tell(suite: Planted, states: u64, seed: &str) {
    let seed: u64 = seed.parse().expect("a seed is a number");
    let found = match suite {
        Planted::Wal(_) => {
            wal::crash_suite::run(states, seed).err().map(|found| (found.seed, found.to_string()))
        }
        Planted::Replica(_) => {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            let running = replica::crash_suite::run(states, seed);
            let ended = runtime.expect("a runtime of one thread").block_on(running);
            ended.err().map(|found| (found.seed, found.to_string()))
        }
    };
    let (seed, what) = found.map_or((seed, None), |(seed, what)| (seed, Some(what)));
    println!("{}", json!({ "seed": seed, "found": what, "is_valid": true }));
}
