//! What commands do with a data directory while no member runs on it.
//!
//! That is the store's business, which this crate does not know: whoever runs a command line passes the functions.

use std::path::{Path, PathBuf};

/// Told how many of how many bytes are done; answers whether to go on.
pub type Progress<'a> = &'a dyn Fn(u64, u64) -> bool;

/// The functions; each answers a line that says what it did, or why it did nothing. They block.
#[derive(Clone, Copy)]
pub struct Offline {
    pub restore: fn(&SnapshotRestore, Progress<'_>) -> Result<String, String>,
    pub defragment: fn(&Path, Progress<'_>) -> Result<String, String>,
}

/// The flags of `snapshot restore`, as given or by etcdutl's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRestore {
    pub snapshot: PathBuf,
    pub name: String,
    pub initial_cluster: String,
    pub initial_cluster_token: String,
    pub initial_advertise_peer_urls: String,
    pub data_dir: PathBuf,
    pub skip_hash_check: bool,
    pub bump_revision: u64,
    pub mark_compacted: bool,
}
