//! The versioned key space: index, unflushed layer, event log and accounting, which change together.
//!
//! Invariants: the revision grows by one with each write that changed a key, and never otherwise. Within a write,
//! later operations see earlier ones; between `apply` calls no write is open. Live bytes shrink at the moment of a
//! logical compaction and depend on the log alone, allocated bytes shrink as its steps run.
//! Not here: leases, transactions, permissions.

use crate::events::{Event, EventBatch, EventKind, EventLog};
use crate::index::{History, Index, State, is_unreachable};
use crate::keys::{KeyRange, KeyValue, Revision};
use crate::record::{self, PutState, Record};
use crate::rows::{Records, RecordsError, noted};
use crate::unflushed::Unflushed;
use bytes::Bytes;
use std::collections::VecDeque;

pub(crate) struct Space {
    pub(crate) index: Index,
    pub(crate) revision: i64,
    /// What a backup was restored at; up to there revisions may have no records. 0: it began empty.
    pub(crate) restored: i64,
    pub(crate) unflushed: Unflushed,
    pub(crate) log: EventLog,
    pub(crate) compaction: crate::compaction::Compaction,
    pub(crate) sizes: Sizes,
    /// Keys that are not deleted.
    pub(crate) live_keys: usize,
    /// Sum over the latest records of live keys; order does not matter, so it can be kept while they change.
    pub(crate) live_hash: u64,
    /// Changes of the write in progress.
    open: Vec<Event>,
}

impl Space {
    pub(crate) fn new(log: EventLog) -> Space {
        Space {
            index: Index::default(),
            revision: 1,
            restored: 0,
            unflushed: Unflushed::default(),
            log,
            compaction: Default::default(),
            sizes: Sizes::default(),
            live_keys: 0,
            live_hash: 0,
            open: Vec::new(),
        }
    }

    /// The revision that a read inside the write in progress reports.
    pub(crate) fn working_revision(&self) -> i64 {
        self.revision + i64::from(!self.open.is_empty())
    }

    fn next_revision(&self) -> Revision {
        Revision::new(self.revision + 1, self.open.len() as i64)
    }

    /// Puts a key in the write in progress.
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8], lease: i64) {
        let revision = self.next_revision();
        let (replaced, encoded) = match self.index.get_mut(key) {
            Some(history) => {
                let before = history.latest();
                let state = next_put(revision, Some(before), lease);
                let encoded = record::encode_put(revision, key, value, state);
                let checksum_before = history.checksum();
                history.push(state_of(revision, state, &encoded.bytes), encoded.checksum);
                self.sizes.replaced(before, revision.main);
                if before.is_live() {
                    self.live_hash = self.live_hash.wrapping_sub(mix(before.revision, checksum_before));
                } else {
                    self.live_keys += 1;
                }
                (Some(before).filter(State::is_live), encoded)
            }
            None => {
                let state = next_put(revision, None, lease);
                let encoded = record::encode_put(revision, key, value, state);
                let history = History::new(state_of(revision, state, &encoded.bytes), encoded.checksum);
                self.index.insert(key, history);
                self.live_keys += 1;
                (None, encoded)
            }
        };
        self.live_hash = self.live_hash.wrapping_add(mix(revision, encoded.checksum));
        self.sizes.added(encoded.bytes.len());
        self.sizes.put_bytes += (key.len() + value.len()) as u64;
        self.unflushed.push(revision, encoded.bytes);
        let replaced = replaced.map(|state| state.revision).filter(|before| before.main < revision.main);
        self.note(Event { kind: EventKind::Put, kv: encoded.kv, replaced });
    }

    /// Deletes a key in the write in progress; false if there is nothing to delete.
    pub(crate) fn delete(&mut self, key: &[u8]) -> bool {
        let revision = self.next_revision();
        let Some(history) = self.index.get_mut(key) else { return false };
        let before = history.latest();
        if !before.is_live() {
            return false;
        }
        let encoded = record::encode_delete(revision, key);
        let tombstone =
            State { revision, create_revision: 0, version: 0, size_bytes: encoded.bytes.len() as u32 };
        self.live_hash = self.live_hash.wrapping_sub(mix(before.revision, history.checksum()));
        history.push(tombstone, encoded.checksum);
        self.live_keys -= 1;
        self.sizes.added(encoded.bytes.len());
        self.sizes.replaced(before, revision.main);
        self.sizes.deleted(tombstone);
        self.unflushed.push(revision, encoded.bytes);
        let replaced = Some(before.revision).filter(|before| before.main < revision.main);
        self.note(Event { kind: EventKind::Delete, kv: encoded.kv, replaced });
        true
    }

    /// Most writes are one change, and their events stay in memory: no room is taken beyond what is needed.
    fn note(&mut self, event: Event) {
        if self.open.is_empty() {
            self.open.reserve_exact(1);
        }
        self.open.push(event);
    }

    /// Ends the write in progress. Returns whether it changed anything, which makes the new revision.
    pub(crate) fn commit(&mut self) -> bool {
        if self.open.is_empty() {
            return false;
        }
        self.revision += 1;
        let events = std::mem::take(&mut self.open);
        self.log.append(EventBatch { revision: self.revision, events });
        true
    }

    /// Live keys of the range, copied out so that they can be deleted.
    pub(crate) fn live_keys_of(&self, range: &KeyRange) -> Vec<Bytes> {
        match range {
            KeyRange::Key(key) => self.index.live(key).map(|_| key.clone()).into_iter().collect(),
            KeyRange::Span { .. } | KeyRange::From(_) => self
                .index
                .range(range)
                .filter(|(_, history)| history.latest().is_live())
                .map(|(key, _)| Bytes::copy_from_slice(key))
                .collect(),
        }
    }

    /// Whether a key's latest state is there on every member: what compaction took from the state may still be in this
    /// member's index, for as long as its own clean-up takes.
    pub(crate) fn is_kept(&self, latest: State) -> bool {
        !is_unreachable(latest, None, self.compaction.scheduled)
    }

    /// The verified record of a revision that the index knows.
    pub(crate) fn record(&self, records: &dyn Records, revision: Revision) -> Result<Record, RecordsError> {
        match self.unflushed.read(revision) {
            Some(bytes) => record::decode(revision, bytes),
            None => match records.read(revision)? {
                Some(bytes) => noted(records, record::decode(revision, &bytes)),
                // Whether it should be there, the caller knows.
                None => Err(RecordsError::Missing { revision }),
            },
        }
    }

    /// What the key holds now.
    pub(crate) fn latest(&self, records: &dyn Records, key: &[u8]) -> Result<Option<KeyValue>, RecordsError> {
        match self.index.live(key) {
            Some(state) => self.record(records, state.revision).map(|record| Some(record.kv)),
            None => Ok(None),
        }
    }

    /// Takes in a record that a state file or snapshot holds; records must come in revision order.
    pub(crate) fn load(&mut self, record: &Record, size_bytes: u32) {
        let kv = &record.kv;
        let state = State {
            revision: record.revision,
            create_revision: kv.create_revision,
            version: kv.version,
            size_bytes,
        };
        match self.index.get_mut(&kv.key) {
            Some(history) => {
                let before = history.latest();
                if before.is_live() {
                    self.live_hash = self.live_hash.wrapping_sub(mix(before.revision, history.checksum()));
                    self.live_keys -= 1;
                }
                history.push(state, record.checksum);
                self.sizes.replaced(before, record.revision.main);
            }
            None => self.index.insert(&kv.key, History::new(state, record.checksum)),
        }
        self.sizes.added(size_bytes as usize);
        if record.is_delete {
            self.sizes.deleted(state);
        } else {
            self.live_keys += 1;
            self.live_hash = self.live_hash.wrapping_add(mix(record.revision, record.checksum));
        }
    }
}

fn next_put(revision: Revision, before: Option<State>, lease: i64) -> PutState {
    match before {
        Some(before) if before.is_live() => {
            PutState { create_revision: before.create_revision, version: before.version + 1, lease }
        }
        Some(_) | None => PutState { create_revision: revision.main, version: 1, lease },
    }
}

fn state_of(revision: Revision, put: PutState, bytes: &Bytes) -> State {
    State {
        revision,
        create_revision: put.create_revision,
        version: put.version,
        size_bytes: u32::try_from(bytes.len()).expect("a request is far below 4 GiB"),
    }
}

/// One record's share of the live hash. Neighbouring inputs must not give related outputs, since shares are summed.
fn mix(revision: Revision, checksum: u32) -> u64 {
    let seed = (revision.main as u64).rotate_left(32) ^ (revision.sub as u64).rotate_left(56);
    crate::hash::scramble(seed ^ u64::from(checksum))
}

/// Bytes of records, by two measures.
#[derive(Default)]
pub(crate) struct Sizes {
    /// Reachable at some revision that is not compacted.
    pub(crate) live_bytes: u64,
    /// In the state file or on the way there.
    pub(crate) allocated_bytes: u64,
    /// Keys and values put since this process has the state; never shrinks.
    pub(crate) put_bytes: u64,
    compact_revision: i64,
    /// Bytes that become unreachable when the compact revision reaches the first number; ascending.
    unreachable_from: VecDeque<(i64, u64)>,
}

impl Sizes {
    fn added(&mut self, size_bytes: usize) {
        self.live_bytes += size_bytes as u64;
        self.allocated_bytes += size_bytes as u64;
    }

    /// A later state at `main` took the place of `before`. A deletion was counted when it was made.
    fn replaced(&mut self, before: State, main: i64) {
        if before.is_live() {
            self.expires(main, before.size_bytes);
        }
    }

    fn deleted(&mut self, tombstone: State) {
        self.expires(tombstone.revision.main + 1, tombstone.size_bytes);
    }

    fn expires(&mut self, main: i64, size_bytes: u32) {
        if main <= self.compact_revision {
            self.live_bytes -= u64::from(size_bytes);
            return;
        }
        // Numbers come in order but for one step back: a deletion counts from the next revision on.
        let at = self.unreachable_from.partition_point(|(own, _)| *own < main);
        match self.unreachable_from.get_mut(at) {
            Some((own, sum)) if *own == main => *sum += u64::from(size_bytes),
            Some(_) | None => self.unreachable_from.insert(at, (main, u64::from(size_bytes))),
        }
    }

    pub(crate) fn compacted(&mut self, revision: i64) {
        self.compact_revision = revision;
        while let Some((main, size_bytes)) = self.unreachable_from.front().copied() {
            if main > revision {
                break;
            }
            self.unreachable_from.pop_front();
            self.live_bytes -= size_bytes;
        }
    }

    pub(crate) fn dropped(&mut self, state: State) {
        self.allocated_bytes -= u64::from(state.size_bytes);
    }
}
