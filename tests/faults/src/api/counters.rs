//! Updates that are guarded by a version are never lost, never done twice, and never done on something else.
//!
//! Invariant of a correct server: a counter's history is its increments, each on top of the version that it has read; a
//! read shows at least what was acknowledged before it was asked for.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::history::{Change, Facts, Increment, Outcome};
use crate::api::truth::Truth;
use crate::history::Violation;

/// The number of increments that were checked.
pub fn check(truth: &Truth, increments: &[Increment]) -> Result<usize, Violation> {
    history_is_its_increments(truth, increments)?;
    reads_are_fresh(increments)?;
    Ok(increments.len())
}

fn history_is_its_increments(truth: &Truth, increments: &[Increment]) -> Result<(), Violation> {
    let by_writer: BTreeMap<u64, (usize, &Increment)> = increments
        .iter()
        .enumerate()
        .map(|(position, increment)| (increment.writer, (position, increment)))
        .collect();
    let mut happened = BTreeSet::new();
    // Per counter its version and count.
    let mut now: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (change, object) in truth.changes() {
        let Facts::Counter { count, writer } = object.facts else { continue };
        if *change == Change::Deleted {
            return Err(format!("nobody deletes counters, yet this one is gone: {object}").into());
        }
        let Some((version, before)) = now.insert(&object.name, (object.version, count)) else { continue };
        let Some((position, increment)) = by_writer.get(&writer) else {
            return Err(format!("nobody has written {object}").into());
        };
        let says = |sentence| Err(Violation::at(*position, sentence));
        if !happened.insert(writer) {
            return says(format!(
                "happened twice, the second time at version {}: {increment}",
                object.version
            ));
        }
        match &increment.outcome {
            Outcome::Refused(_) => {
                return says(format!("refused, and happened at version {}: {increment}", object.version));
            }
            Outcome::Done(at) if *at != object.version => {
                return says(format!(
                    "acknowledged at version {at}, happened at {}: {increment}",
                    object.version
                ));
            }
            Outcome::Done(_) | Outcome::Unknown(_) => {}
        }
        if increment.read_version != version || count != before + 1 {
            return says(format!(
                "a lost update: at version {} {} went from {before} (version {version}) to {count}: {increment}",
                object.version, object.name
            ));
        }
    }
    let lost = increments.iter().enumerate().find(|(_, increment)| {
        matches!(increment.outcome, Outcome::Done(_)) && !happened.contains(&increment.writer)
    });
    match lost {
        Some((position, lost)) => Err(Violation::at(position, format!("acknowledged and lost: {lost}"))),
        None => Ok(()),
    }
}

fn reads_are_fresh(increments: &[Increment]) -> Result<(), Violation> {
    let mut done: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
    for increment in increments {
        if let Outcome::Done(version) = increment.outcome {
            done.entry(&increment.name).or_default().push((increment.return_ns, version));
        }
    }
    for writes in done.values_mut() {
        writes.sort_unstable();
        let mut highest = 0;
        for (_, version) in writes {
            highest = highest.max(*version);
            *version = highest;
        }
    }
    for (position, increment) in increments.iter().enumerate() {
        let Some(writes) = done.get(increment.name.as_str()) else { continue };
        let before = writes.partition_point(|(return_ns, _)| *return_ns < increment.read_call_ns);
        if let Some((_, version)) = writes[..before].last()
            && increment.read_version < *version
        {
            let sentence =
                format!("read an old state, version {version} had been acknowledged before: {increment}");
            return Err(Violation::at(position, sentence));
        }
    }
    Ok(())
}
