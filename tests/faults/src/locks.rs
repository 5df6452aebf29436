//! LOC: sections that are fenced by their lock's key never overlap.
//!
//! A section takes the lock, reads a counter, and writes the next number in a transaction that only happens while its
//! lock's key exists. Without the fence a holder whose lease has ended may still act, which is known of such locks and
//! not checked.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::history::{Key, Value, Violation};
use crate::log::Log;

/// The key of the counter that sections increment.
pub const COUNTER: Key = crate::history::LEASED;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    pub client: usize,
    pub member: usize,
    /// The key that the lock gave, and the revision that made it the holder's.
    pub lock: Key,
    pub locked_revision: i64,
    pub entered_ns: u64,
    pub left_ns: u64,
    /// The counter that was read.
    pub read: Value,
    /// The revision of the write of `read + 1`; `None`: not told, or refused because the lock was gone.
    pub written_revision: Option<i64>,
}

/// The number of sections that wrote.
pub fn check(log: &Log, sections: &[Section]) -> Result<usize, Violation> {
    let counted = log.changes().iter().filter(|change| change.key == COUNTER);
    for (counter, change) in (0..).zip(counted) {
        if change.value != Some(counter + 1) {
            let sentence =
                format!("the counter under the lock went from {counter} to {:?}: {change:?}", change.value);
            return Err(sentence.into());
        }
    }
    let mut held: HashMap<Key, (i64, Option<i64>)> = HashMap::new();
    for change in log.changes() {
        match change.value {
            Some(_) => drop(held.entry(change.key).or_insert((change.revision, None))),
            None => {
                if let Some(entry) = held.get_mut(&change.key) {
                    entry.1 = Some(change.revision);
                }
            }
        }
    }
    let mut wrote: Vec<(&Section, i64)> =
        sections.iter().filter_map(|section| Some((section, section.written_revision?))).collect();
    wrote.sort_by_key(|(_, revision)| *revision);
    for (section, revision) in &wrote {
        if log.change(*revision).map(|change| (change.key, change.value))
            != Some((COUNTER, Some(section.read + 1)))
        {
            let found = log.at(*revision);
            return Err(format!("acknowledged, but the log has {found:?} there: {section:?}").into());
        }
        match held.get(&section.lock) {
            Some((from, until)) if *from < *revision && until.is_none_or(|until| *revision < until) => {}
            other => {
                let sentence =
                    format!("it wrote at revision {revision} without its lock ({other:?}): {section:?}");
                return Err(sentence.into());
            }
        }
    }
    for pair in wrote.windows(2) {
        let ((earlier, written), (later, _)) = (pair[0], pair[1]);
        if later.locked_revision < written {
            return Err(format!("two sections at once: {earlier:?} and {later:?}").into());
        }
    }
    Ok(wrote.len())
}
