//! The order of all changes, as watches told it, and the state at each revision.
//!
//! Revisions have no gaps; several changes share one only if they happened in one step (a lease that ends takes all its
//! keys), and then on different keys. A log that the members tell differently, or with a gap or repeat, is a finding by itself.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::history::{Entry, Key, Value, key_name};

/// One event of a watch. `value` is `None` for a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub revision: i64,
    pub key: Key,
    pub value: Option<Value>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = key_name(self.key);
        match self.value {
            Some(value) => write!(f, "revision {}: {key} = {value}", self.revision),
            None => write!(f, "revision {}: {key} deleted", self.revision),
        }
    }
}

/// Changes of one revision, for people.
pub fn told(changes: &[Change]) -> String {
    match changes {
        [] => "nothing".to_owned(),
        changes => changes.iter().map(Change::to_string).collect::<Vec<_>>().join("; "),
    }
}

/// The first revision that a change of a new cluster can have.
pub const FIRST_REVISION: i64 = 2;

#[derive(Debug, Default)]
pub struct Log {
    changes: Vec<Change>,
    /// Per key what it held since which revision; `None` while absent.
    entries: BTreeMap<Key, Vec<(i64, Option<Entry>)>>,
}

impl Log {
    /// From the events that each member's watch delivered, in the order of delivery, from the first revision on.
    /// `Err`: the first place where a stream is not ordered, unique and complete, or where two members differ.
    pub fn agreed(streams: &[Vec<Change>]) -> Result<Log, String> {
        for (member, stream) in streams.iter().enumerate() {
            let mut expected = FIRST_REVISION;
            let mut together: Vec<Key> = Vec::new();
            for change in stream {
                if change.revision == expected {
                    together.clear();
                } else if change.revision + 1 != expected || together.contains(&change.key) {
                    return Err(format!(
                        "the watch through m{} delivered {change} where revision {expected} was due",
                        member + 1
                    ));
                }
                together.push(change.key);
                expected = change.revision + 1;
            }
        }
        let Some((longest, changes)) = streams.iter().enumerate().max_by_key(|(_, stream)| stream.len())
        else {
            return Ok(Log::default());
        };
        for (member, stream) in streams.iter().enumerate() {
            if let Some((one, other)) = stream.iter().zip(changes).find(|(one, other)| one != other) {
                let (one_by, other_by) = (member + 1, longest + 1);
                return Err(format!("members disagree: m{one_by} told {one}, m{other_by} told {other}"));
            }
            if stream.len() != changes.len() {
                return Err(format!(
                    "the watch through m{} ended after {} changes, that through m{} after {}",
                    member + 1,
                    stream.len(),
                    longest + 1,
                    changes.len()
                ));
            }
        }
        Log::new(changes.clone())
    }

    /// As [`Log::agreed`], of streams that were cut off somewhere: they may end at different revisions.
    pub fn agreed_as_far_as_told(streams: &[Vec<Change>]) -> Result<Log, String> {
        let last = |stream: &Vec<Change>| stream.last().map_or(FIRST_REVISION - 1, |change| change.revision);
        let until = streams.iter().map(last).min().unwrap_or(FIRST_REVISION - 1);
        let cut = |stream: &Vec<Change>| {
            stream.iter().filter(|change| change.revision <= until).copied().collect::<Vec<_>>()
        };
        Log::agreed(&streams.iter().map(cut).collect::<Vec<_>>())
    }

    /// `Err`: a deletion of a key that was absent.
    pub fn new(changes: Vec<Change>) -> Result<Log, String> {
        let mut entries: BTreeMap<Key, Vec<(i64, Option<Entry>)>> = BTreeMap::new();
        for change in &changes {
            let versions = entries.entry(change.key).or_default();
            let before = versions.last().and_then(|(_, entry)| *entry);
            let after = match (change.value, before) {
                (Some(value), Some(before)) => Some(Entry {
                    value,
                    create_revision: before.create_revision,
                    mod_revision: change.revision,
                    version: before.version + 1,
                }),
                (Some(value), None) => Some(Entry {
                    value,
                    create_revision: change.revision,
                    mod_revision: change.revision,
                    version: 1,
                }),
                (None, Some(_)) => None,
                (None, None) => return Err(format!("{change} deletes a key that was absent")),
            };
            versions.push((change.revision, after));
        }
        Ok(Log { changes, entries })
    }

    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    pub fn last_revision(&self) -> i64 {
        self.changes.last().map_or(FIRST_REVISION - 1, |change| change.revision)
    }

    /// The changes that happened at `revision`.
    pub fn at(&self, revision: i64) -> &[Change] {
        let from = self.changes.partition_point(|change| change.revision < revision);
        let until = self.changes.partition_point(|change| change.revision <= revision);
        &self.changes[from..until]
    }

    /// The change of `revision`, if it was one alone.
    pub fn change(&self, revision: i64) -> Option<&Change> {
        match self.at(revision) {
            [change] => Some(change),
            _ => None,
        }
    }

    /// What there was at `revision`.
    pub fn state(&self, revision: i64) -> BTreeMap<Key, Entry> {
        self.entries.keys().filter_map(|key| Some((*key, self.entry(*key, revision)?))).collect()
    }

    /// What the key held at `revision`.
    pub fn entry(&self, key: Key, revision: i64) -> Option<Entry> {
        let versions = self.entries.get(&key)?;
        let after = versions.partition_point(|(since, _)| *since <= revision);
        versions[..after].last().and_then(|(_, entry)| *entry)
    }
}
