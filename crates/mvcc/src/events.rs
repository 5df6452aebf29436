//! Events: what changed, in whole revisions.

use crate::keys::{KeyRange, KeyValue, Revision};

/// All changes of one revision, in the order in which they were made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventBatch {
    pub revision: i64,
    pub events: Vec<Event>,
}

impl EventBatch {
    /// The changes of keys in `range`.
    pub fn matching<'a>(&'a self, range: &'a KeyRange) -> impl Iterator<Item = &'a Event> + 'a {
        self.events.iter().filter(move |event| range.contains(&event.kv.key))
    }

    /// Bytes that the batch takes on the wire, about.
    pub fn size_bytes(&self) -> usize {
        self.events.iter().map(|event| event.kv.size_bytes()).sum()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub kind: EventKind,
    /// After the change; a deletion has only key and `mod_revision`.
    pub kv: KeyValue,
    /// The record that this one replaced, when the log still knows it: makes `Store::previous` cheap.
    pub(crate) replaced: Option<Revision>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Put,
    Delete,
}

/// How much history one call may return. One revision is returned even if it alone is above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventsBound {
    pub revisions_max: usize,
    pub size_bytes_max: usize,
}
