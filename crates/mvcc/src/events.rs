//! Events: what changed, in whole revisions, and the newest of them in memory.
//!
//! Invariants: one batch per revision, revisions without a gap, appended in order; a batch is never changed after it
//! was appended, so readers share it. The log is bounded in bytes and revisions and forgets the oldest first; it
//! never waits for a reader. Not here: older history (history.rs), watchers.

use crate::keys::{KeyRange, KeyValue, Revision};
use std::collections::VecDeque;
use std::sync::Arc;

/// What a batch and an event take in memory beside keys and values.
const BATCH_OVERHEAD_BYTES: usize = 320;

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
    /// The record of an earlier revision that this change replaced, when the event comes from memory: makes
    /// `Store::previous` cheap.
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

/// The newest history.
pub(crate) struct EventLog {
    batches: VecDeque<Arc<EventBatch>>,
    size_bytes: usize,
    size_bytes_max: usize,
    revisions_max: usize,
}

impl EventLog {
    pub(crate) fn new(size_bytes_max: usize, revisions_max: usize) -> EventLog {
        EventLog { batches: VecDeque::new(), size_bytes: 0, size_bytes_max, revisions_max }
    }

    pub(crate) fn append(&mut self, batch: EventBatch) {
        debug_assert!(self.batches.back().is_none_or(|last| last.revision + 1 == batch.revision));
        self.size_bytes += memory_bytes(&batch);
        self.batches.push_back(Arc::new(batch));
        while self.size_bytes > self.size_bytes_max || self.batches.len() > self.revisions_max {
            let Some(oldest) = self.batches.pop_front() else { break };
            self.size_bytes -= memory_bytes(&oldest);
        }
    }

    /// The oldest revision that is still here.
    pub(crate) fn first(&self) -> Option<i64> {
        self.batches.front().map(|batch| batch.revision)
    }

    /// Batches from `revision`, which must not be older than `first`.
    pub(crate) fn from(&self, revision: i64) -> impl Iterator<Item = &Arc<EventBatch>> {
        let first = self.first().unwrap_or(revision);
        let skip = usize::try_from(revision - first).unwrap_or(0).min(self.batches.len());
        self.batches.range(skip..)
    }
}

fn memory_bytes(batch: &EventBatch) -> usize {
    batch.size_bytes() + BATCH_OVERHEAD_BYTES * batch.events.len()
}
