//! The border to the disk: rows that leave the store, and records that it reads back.
//!
//! Invariants: record rows leave in revision order, once each. The unflushed layer answers until `Store::flushed`,
//! so a revision is readable at every moment. Not here: files.

use crate::keys::Revision;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One change for the state file, and one row of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// Written once, never changed. The bytes carry their own checksum.
    Record(Revision, Bytes),
    /// Compacted away.
    DeleteRecord(Revision),
    /// Small state beside the keys; replaces the row of the same key.
    Meta(Bytes, Bytes),
    DeleteMeta(Bytes),
}

/// The records in the state file, below the unflushed layer.
pub trait Records {
    fn read(&self, revision: Revision) -> Result<Option<Bytes>, RecordsError>;
    /// The records at or after `from`, ascending, as many as the bound lets.
    fn scan(&self, from: Revision, bound: ScanBound) -> Result<Scanned, RecordsError>;
    /// Told of what these records should have held and do not, besides the error that the read gives.
    fn damaged(&self, _error: &RecordsError) {}
}

/// How much a scan takes at once. The first record always fits.
#[derive(Clone, Copy, Debug)]
pub struct ScanBound {
    pub rows_max: usize,
    pub size_bytes_max: usize,
}

/// What a scan found.
#[derive(Clone, Debug, Default)]
pub struct Scanned {
    pub rows: Vec<(Revision, Bytes)>,
    /// There are no more.
    pub is_last: bool,
    /// Of all rows, without their revisions.
    pub size_bytes: usize,
}

impl Scanned {
    /// Takes from `found` what the bound has room for, and looks at nothing more.
    pub fn take<E>(
        &mut self,
        found: impl Iterator<Item = Result<(Revision, Bytes), E>>,
        bound: ScanBound,
    ) -> Result<(), E> {
        self.is_last = false;
        let mut found = found;
        while self.rows.is_empty()
            || (self.rows.len() < bound.rows_max && self.size_bytes < bound.size_bytes_max)
        {
            let Some(row) = found.next() else {
                self.is_last = true;
                break;
            };
            let (revision, bytes) = row?;
            self.size_bytes += bytes.len();
            self.rows.push((revision, bytes));
        }
        Ok(())
    }
}

/// Passes the result on, and tells the records of an error.
pub(crate) fn noted<T>(records: &dyn Records, result: Result<T, RecordsError>) -> Result<T, RecordsError> {
    result.inspect_err(|error| records.damaged(error))
}

/// Why a record cannot be had. Always fatal for the member: its state file does not hold what it must.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RecordsError {
    #[error("record {revision} is missing")]
    Missing { revision: Revision },
    #[error("record {revision} is damaged: {reason}")]
    Damaged { revision: Revision, reason: &'static str },
    #[error("state file cannot be read")]
    Read(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

impl PartialEq for RecordsError {
    /// Two read failures are equal when their texts are.
    fn eq(&self, other: &RecordsError) -> bool {
        self.to_string() == other.to_string()
    }
}

/// Records in memory: the fake that tests and simulations put under a store.
#[derive(Clone, Debug, Default)]
pub struct MemoryRecords {
    pub records: BTreeMap<Revision, Bytes>,
    pub meta: BTreeMap<Bytes, Bytes>,
}

impl MemoryRecords {
    /// Does what the state file does with rows, and returns the last record's revision, for `Store::flushed`.
    pub fn write(&mut self, rows: Vec<Row>) -> Option<Revision> {
        let mut last = None;
        for row in rows {
            match row {
                Row::Record(revision, bytes) => {
                    self.records.insert(revision, bytes);
                    last = Some(revision);
                }
                Row::DeleteRecord(revision) => {
                    self.records.remove(&revision);
                }
                Row::Meta(key, value) => {
                    self.meta.insert(key, value);
                }
                Row::DeleteMeta(key) => {
                    self.meta.remove(&key);
                }
            }
        }
        last
    }
}

impl Records for MemoryRecords {
    fn read(&self, revision: Revision) -> Result<Option<Bytes>, RecordsError> {
        Ok(self.records.get(&revision).cloned())
    }

    fn scan(&self, from: Revision, bound: ScanBound) -> Result<Scanned, RecordsError> {
        let mut scanned = Scanned::default();
        let found = self.records.range(from..).map(|(revision, bytes)| Ok((*revision, bytes.clone())));
        scanned.take(found, bound)?;
        Ok(scanned)
    }
}
