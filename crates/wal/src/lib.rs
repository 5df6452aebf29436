//! Segmented write-ahead log: group commit on one owner thread, sync marks, recovery that tells a torn write from
//! lost data.
//!
//! Always holds: `done` runs only after an fdatasync that covers the request. After one failed write or sync the log
//! is dead: every later request gets the error and nothing is retried. A log found damaged behind the last sync mark
//! is cut there; damage before it is `Damage::LostAcknowledged`.
//! Format: docs/formats.md, "Write-ahead log". Not here: what the payloads mean, Raft, tokio.

mod api;
mod chain;
pub mod crash_suite;
mod damage;
mod disk;
#[doc(hidden)]
pub mod fuzzing;
mod handle;
mod index;
#[cfg(feature = "planted")]
pub mod planted;
#[cfg(not(feature = "planted"))]
mod planted;
mod record;
mod recovery;
mod replay;
mod request;
mod segment;
pub mod sim_disk;
mod spare;
mod vote_file;
mod writer;

pub use api::{
    Config, Damage, Done, Entry, FSYNC_BUCKETS_S, Identity, Metrics, OpenError, ReadError, Recovered,
};
pub use disk::{DirectoryLock, Disk, DiskFile, RealDisk};
pub use handle::{Owner, Turn, Wal, open, open_inline};
