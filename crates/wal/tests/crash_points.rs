//! Tries the crash points of the log: see `wal::crash_suite` for what is tried and what must hold.
//!
//! Always holds: the seed is printed when something is found. `WAL_CRASH_STATES` asks for more states,
//! `WAL_CRASH_SEED` for another start.

#![allow(clippy::unwrap_used, reason = "a test that unwraps in vain fails, as it should")]

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

#[test]
fn no_crash_loses_what_was_acknowledged() {
    let (states, seed) = (setting("WAL_CRASH_STATES", 20_000), setting("WAL_CRASH_SEED", 1));
    let report = wal::crash_suite::run(states, seed).unwrap_or_else(|finding| panic!("{finding}"));
    println!("{report:?}");
    assert!(report.crashes_in_recovery > states / 20, "{report:?}");
    assert!(report.torn_tails > states / 100, "{report:?}");
    assert!(report.losses_noticed > 0 && report.kills > 0, "{report:?}");
}
