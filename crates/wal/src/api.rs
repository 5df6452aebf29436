//! What callers give to the log and get from it: plain data and errors.
//!
//! Always holds: payloads are opaque bytes. Not here: behaviour (handle.rs, writer.rs, recovery.rs).

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::PathBuf;

use bytes::Bytes;

/// Upper bounds of the fsync histogram, in seconds; the same as etcd's `etcd_disk_wal_fsync_duration_seconds`.
pub const FSYNC_BUCKETS_S: [f64; 14] =
    [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192];

/// Runs on the owner thread once the request is on disk, or with the error that killed the log. It must not block.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

#[derive(Clone, Debug)]
pub struct Config {
    pub dir: PathBuf,
    /// 1 KiB to 1 GiB; an entry must fit into one segment. May change between runs.
    pub segment_size_bytes: u64,
    /// `false`: nothing is synced, a power cut loses acknowledged data (and recovery says so).
    pub fsync: bool,
    /// Written into every segment; a directory of another member or cluster is refused.
    pub identity: Option<Identity>,
    /// Enters every checksum. Must not be known to clients, so that no value can contain a valid record.
    pub salt: u64,
}

impl Config {
    /// 64 MiB segments, fsync on, no identity, a salt drawn from the operating system.
    pub fn new(dir: impl Into<PathBuf>) -> Config {
        Config {
            dir: dir.into(),
            segment_size_bytes: 64 << 20,
            fsync: true,
            identity: None,
            salt: RandomState::new().hash_one("wal salt"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub cluster_id: u64,
    pub member_id: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub term: u64,
    pub index: u64,
    pub payload: Bytes,
}

/// What the directory held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Contiguous; what was truncated or purged is not in it.
    pub entries: Vec<Entry>,
    pub vote: Option<Bytes>,
    pub committed: Option<Bytes>,
    /// Index and payload of the last purge.
    pub purged: Option<(u64, Bytes)>,
    pub damage: Damage,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    None,
    /// A write that was never acknowledged was cut short by a crash; it is gone and the log goes on.
    TornTail {
        file: PathBuf,
        offset: u64,
        dropped_bytes: u64,
    },
    /// Bytes that had been acknowledged are damaged or missing. `entries` end before them. Opening changes nothing
    /// on disk, the first write does. Every open reports this until `Wal::healed`.
    LostAcknowledged {
        file: PathBuf,
        offset: u64,
        /// 0 when no entry is left.
        last_good_index: u64,
        /// The highest index known to have been acknowledged; at least `last_good_index`, may be too low.
        acknowledged_index: u64,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{dir} is in use by another process")]
    Locked { dir: PathBuf },
    #[error("{file} belongs to {found:?}, this is {expected:?}")]
    WrongIdentity { file: PathBuf, expected: Identity, found: Identity },
    #[error("{file} has format version {version}, this program reads version {supported}")]
    UnsupportedVersion { file: PathBuf, version: u16, supported: u16 },
    #[error("segment size {size_bytes} is outside {min_bytes} to {max_bytes} bytes")]
    SegmentSize { size_bytes: u64, min_bytes: u64, max_bytes: u64 },
    #[error("{action} {path}")]
    Disk {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("start the log's thread")]
    Thread(#[source] io::Error),
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("entry {index} was purged, the log starts at {first_index}")]
    Purged { index: u64, first_index: u64 },
    #[error("{file} is damaged at offset {offset}, entry {index}")]
    Corrupt { file: PathBuf, offset: u64, index: u64 },
    #[error("read {file}")]
    Disk {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    pub fsync_count: u64,
    pub fsync_sum_s: f64,
    /// Per bound of `FSYNC_BUCKETS_S`, not cumulative; the last is above all bounds.
    pub fsync_buckets: [u64; FSYNC_BUCKETS_S.len() + 1],
    pub written_bytes: u64,
    pub batches: u64,
    pub segments: u64,
    /// Payload bytes accepted and not yet on disk. The caller bounds it.
    pub queued_bytes: u64,
    /// The log is dead: a write or sync failed.
    pub failed: bool,
}

impl Metrics {
    pub(crate) fn observe_fsync(&mut self, duration_s: f64) {
        self.fsync_count += 1;
        self.fsync_sum_s += duration_s;
        let bucket = FSYNC_BUCKETS_S.iter().position(|bound| duration_s <= *bound);
        let last = self.fsync_buckets.len() - 1;
        if let Some(count) = self.fsync_buckets.get_mut(bucket.unwrap_or(last)) {
            *count += 1;
        }
    }
}
