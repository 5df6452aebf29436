//! LOC: sections that are fenced by their lock's key never overlap.
//!
//! A section takes the lock, reads a counter, and writes the next number in a transaction that only happens while its
//! lock's key exists. Without the fence a holder whose lease has ended may still act, which is known of such locks and
//! not checked.

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::history::{Key, Value, Violation, seconds};
use crate::log::{Log, told};

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

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "client {} through m{} from {} to {}, locked at revision {}: read {}, ",
            self.client,
            self.member + 1,
            seconds(self.entered_ns),
            seconds(self.left_ns),
            self.locked_revision,
            self.read
        )?;
        match self.written_revision {
            Some(revision) => write!(f, "wrote the next number at revision {revision}"),
            None => f.write_str("was not told that it wrote"),
        }
    }
}

/// The number of sections that wrote.
pub fn check(log: &Log, sections: &[Section]) -> Result<usize, Violation> {
    let counted = log.changes().iter().filter(|change| change.key == COUNTER);
    for (counter, change) in (0..).zip(counted) {
        if change.value != Some(counter + 1) {
            let sentence =
                format!("the counter under the lock was {counter} and did not go up by one: {change}");
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
            let found = told(log.at(*revision));
            let sentence = format!("acknowledged, but the log has {found} there: {section}");
            return Err(Violation::seen(section.left_ns, sentence));
        }
        match held.get(&section.lock) {
            Some((from, until)) if *from < *revision && until.is_none_or(|until| *revision < until) => {}
            other => {
                let lock = match other {
                    None => "which never was there".to_owned(),
                    Some((from, None)) => format!("which is there since revision {from}"),
                    Some((from, Some(until))) => format!("which was there from revision {from} to {until}"),
                };
                let sentence = format!("it wrote at revision {revision} without its lock, {lock}: {section}");
                return Err(Violation::seen(section.left_ns, sentence));
            }
        }
    }
    for pair in wrote.windows(2) {
        let ((earlier, written), (later, _)) = (pair[0], pair[1]);
        if later.locked_revision < written {
            let sentence = format!("two sections at once: {earlier}; and {later}");
            return Err(Violation::seen(later.entered_ns, sentence));
        }
    }
    Ok(wrote.len())
}
