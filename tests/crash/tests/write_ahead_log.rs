//! The write-ahead log: many more crash states than its own tests try, and the figures of the run.
//!
//! Always holds: the run counts as valid only if each kind of fault really took effect.
//! `CRASH_STATES` asks for more states, `CRASH_SEED` for others. What is tried: `wal::crash_suite`.

#![allow(clippy::unwrap_used, reason = "a test that unwraps in vain fails, as it should")]

use std::time::Instant;

use serde_json::json;
use wal::crash_suite;

/// The short part; .ci/run asks for more.
const STATES: u64 = 100_000;
const SEED: u64 = 1_000_000;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

#[test]
fn no_power_cut_loses_or_invents_anything() {
    let (states, seed) = (setting("CRASH_STATES", STATES), setting("CRASH_SEED", SEED));
    let started = Instant::now();
    let result = crash_suite::run(states, seed);
    let wall_s = started.elapsed().as_secs_f64();
    let (report, violation) = match result {
        Ok(report) => (report, None),
        Err(finding) => (crash_suite::Report::default(), Some(finding.to_string())),
    };
    let effective =
        [report.crashes_in_recovery, report.torn_tails, report.damaged, report.losses_noticed, report.kills];
    let valid = effective.iter().all(|count| *count * 1000 > states);
    let figures = json!({
        "level": "C", "config": "wal", "seed": seed, "seeds": report.seeds, "wall_s": wall_s,
        "crash_states_explored": report.states, "crashes_in_recovery": report.crashes_in_recovery,
        "torn_tails": report.torn_tails, "failed_syncs": report.kills, "damages": report.damaged,
        "damages_reported_as_loss": report.losses_noticed, "valid_test": valid,
        "violations": u8::from(violation.is_some()),
    });
    println!("{figures}");
    assert_eq!(violation, None);
    assert!(valid, "a fault had no effect: {figures}");
}
