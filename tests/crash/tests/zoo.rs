//! Bugs of the disk layer that were made on purpose: each must be found within so many crash states.
//!
//! Runs only with the feature `planted` (`cargo xtask zoo`). Prints a line for each: the bug, and what found it. Not here:
//! the bugs (`planted.rs` of wal and replica).

#![cfg(feature = "planted")]
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test tells and fails")]

/// What found a bug, in one line.
fn told(finding: &impl ToString) -> String {
    finding.to_string().lines().next().unwrap_or_default().to_owned()
}

#[test]
fn zoo() {
    let mut missed = Vec::new();
    let (mut found, mut all) = (0, 0);
    let mut count = |bug: String, finding: Option<String>| {
        all += 1;
        match finding {
            Some(finding) => {
                found += 1;
                println!("{bug}: {finding}");
            }
            None => {
                println!("{bug}: not found");
                missed.push(bug);
            }
        }
    };
    for (bug, states) in wal::planted::BUGS {
        wal::planted::plant(Some(bug));
        let result = wal::crash_suite::run(states, 1);
        wal::planted::plant(None);
        count(format!("wal::{bug:?}"), result.err().map(|finding| told(&finding)));
    }
    for (bug, seed) in replica::planted::DISK_BUGS {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let states_max = replica::planted::DISK_BUG_STATES_MAX;
        replica::planted::plant(Some(bug));
        let result = runtime.block_on(replica::crash_suite::run(states_max, seed));
        replica::planted::plant(None);
        count(format!("replica::{bug:?}"), result.err().map(|finding| told(&finding)));
    }
    println!("found {found} of {all}");
    assert!(missed.is_empty(), "not found: {missed:?}");
}
