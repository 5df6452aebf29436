//! A member's directory below Raft: state file, flusher, log, snapshots, and what an operator does to it; the figures of
//! the run.
//!
//! Always holds: the run counts as valid only if each kind of fault really took effect.
//! `CRASH_STATES` asks for more states, `CRASH_SEED` for others. What is tried: `replica::crash_suite`.

#![allow(clippy::unwrap_used, reason = "a test that unwraps in vain fails, as it should")]

use std::time::Instant;

use replica::crash_suite;
use serde_json::json;

/// The short part; .ci/run asks for more.
const STATES: u64 = 8_000;
const SEED: u64 = 2_000_000;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

#[test]
fn no_power_cut_takes_back_what_a_member_promised() {
    let (states, seed) = (setting("CRASH_STATES", STATES), setting("CRASH_SEED", SEED));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let started = Instant::now();
    let result = runtime.block_on(crash_suite::run(states, seed));
    let wall_s = started.elapsed().as_secs_f64();
    let (report, violation) = match result {
        Ok(report) => (report, None),
        Err(finding) => (crash_suite::Report::default(), Some(finding.to_string())),
    };
    let lossy = [report.with_losses, report.crashes_in_recovery];
    let rare = [report.log_behind_state, report.restored, report.defragmented, report.forced];
    let done = [report.flushes, report.purges, report.truncations, report.snapshots];
    let effective = lossy.iter().all(|count| count * 20 > report.states)
        && rare.iter().all(|count| count * 1000 > report.states)
        && done.iter().all(|count| *count > 0);
    // One seed alone need not have everything.
    let valid = effective || states < STATES;
    let figures = json!({
        "level": "C", "config": "member", "seed": seed, "seeds": report.seeds, "wall_s": wall_s,
        "crash_states_explored": report.states, "crash_points": report.points,
        "crashes_in_recovery": report.crashes_in_recovery, "states_with_losses": report.with_losses,
        "log_behind_state": report.log_behind_state, "flushes": report.flushes, "purges": report.purges,
        "truncations": report.truncations, "snapshots_installed": report.snapshots,
        "restored": report.restored, "defragmented": report.defragmented, "forced": report.forced,
        "valid_test": valid, "violations": u8::from(violation.is_some()),
    });
    println!("{figures}");
    if let Some(violation) = violation {
        panic!(
            "VIOLATION: {violation}\nrepeat: CRASH_SEED=<seed> CRASH_STATES=1 cargo test -p crash --test member_directory"
        );
    }
    assert!(valid, "a fault had no effect: {figures}");
}
