//! What `ctl` does with a data directory while no member runs on it: the command line is etcdutl's, the work is the
//! store's.
//!
//! Not here: flags (crate `ctl`), the data directory (crates `store` and `replica`).

use std::{ffi::OsString, path::Path, process::ExitCode};

use ctl::{Offline, Program, Progress, SnapshotRestore};
use store::backup::restore::{Options, restore};

/// For `ctl`, which does not know the store.
pub(crate) const OFFLINE: Offline = Offline { restore: from_snapshot, defragment };

fn from_snapshot(asked: &SnapshotRestore, progress: Progress<'_>) -> Result<String, String> {
    let SnapshotRestore {
        snapshot,
        name,
        initial_cluster,
        initial_cluster_token,
        initial_advertise_peer_urls,
        data_dir,
        skip_hash_check,
        bump_revision,
        mark_compacted,
    } = asked.clone();
    let options = Options {
        snapshot,
        name,
        initial_cluster,
        initial_cluster_token,
        initial_advertise_peer_urls,
        data_dir,
        skip_hash_check,
        bump_revision,
        mark_compacted,
    };
    let restored = restore(&options, progress).map_err(|error| error.to_string())?;
    Ok(format!(
        "restored snapshot {} to {}: member {:x} of cluster {:x}, revision {}",
        options.snapshot.display(),
        options.data_dir.display(),
        restored.member_id,
        restored.cluster_id,
        restored.revision
    ))
}

/// Cannot be told to stop: redb moves pages in steps that it does not report.
fn defragment(data_dir: &Path, _progress: Progress<'_>) -> Result<String, String> {
    let done = replica::defragment(data_dir).map_err(|error| error.to_string())?;
    let (dir, before, after) = (data_dir.display(), done.before_bytes, done.after_bytes);
    Ok(format!("defragmented {dir}: {before} bytes before, {after} after"))
}

/// `binnacle store restore`.
pub(crate) fn store_restore(arguments: &[OsString]) -> ExitCode {
    let words = ["snapshot", "restore"].into_iter().map(OsString::from);
    ctl::main(Program::Etcdutl, words.chain(arguments.iter().cloned()).collect(), OFFLINE)
}
