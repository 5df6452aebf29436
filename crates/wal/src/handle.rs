//! The cloneable handle. (First step: signatures; requests answer with a clear error until the writer lands.)
use std::io;
use std::ops::Range;

use bytes::Bytes;

use crate::{Config, Disk, Done, Entry, Metrics, OpenError, ReadError, Recovered};

#[derive(Clone)]
pub struct Wal {}

/// Does the log's work when no thread is wanted (simulation).
pub struct Owner {}

impl Owner {
    /// Writes all that waits, or does one piece of background work; `false`: there was nothing to do.
    pub fn step(&mut self) -> bool {
        false
    }
}

/// Recovers the log and starts its owner thread.
pub fn open(config: Config, disk: impl Disk) -> Result<(Wal, Recovered), OpenError> {
    let _ = (config, disk);
    Err(OpenError::Thread(io::Error::other("the log is not built yet")))
}

/// Like `open`, without a thread: the caller calls `Owner::step`.
pub fn open_inline(config: Config, disk: impl Disk) -> Result<(Wal, Owner, Recovered), OpenError> {
    let _ = (config, disk);
    Err(OpenError::Thread(io::Error::other("the log is not built yet")))
}

fn unbuilt(done: Done) {
    done(Err(io::Error::other("the log is not built yet")));
}

impl Wal {
    /// Indexes must follow the last one without a gap.
    pub fn append(&self, entries: Vec<Entry>, done: Done) {
        let _ = entries;
        unbuilt(done);
    }

    pub fn save_vote(&self, payload: Bytes, done: Done) {
        let _ = payload;
        unbuilt(done);
    }

    /// A hint: written with the next batch or after some idle milliseconds.
    pub fn save_committed(&self, payload: Bytes) {
        let _ = payload;
    }

    /// Drops the entries with `index >= from_index`.
    pub fn truncate(&self, from_index: u64, done: Done) {
        let _ = from_index;
        unbuilt(done);
    }

    /// Drops the entries with `index <= upto_index`; whole segments are recycled later.
    pub fn purge(&self, upto_index: u64, payload: Bytes, done: Done) {
        let _ = (upto_index, payload);
        unbuilt(done);
    }

    /// The quarantine after `Damage::LostAcknowledged` is over.
    pub fn healed(&self, done: Done) {
        unbuilt(done);
    }

    /// Entries of the range that are on disk, from its start, at least one if there is one, about `size_bytes_max`.
    pub fn read(&self, range: Range<u64>, size_bytes_max: u64) -> Result<Vec<Entry>, ReadError> {
        let _ = (range, size_bytes_max);
        Ok(Vec::new())
    }

    pub fn metrics(&self) -> Metrics {
        Metrics::default()
    }

    /// Writes what is queued, ends the owner thread, waits for that; the lock is free afterwards.
    pub fn close(&self) {}
}
