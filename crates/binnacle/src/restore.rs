//! `snapshot restore`, whatever name it is asked for under: the command line is etcdutl's, the work is the store's.
//!
//! Not here: flags (crate `ctl`), the data directory (crate `store`).

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use ctl::command::SnapshotRestore;
use store::backup::restore::{Options, restore};

/// For `ctl`, which does not know the store.
pub(crate) fn from_snapshot(asked: SnapshotRestore) -> Result<String, String> {
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
    } = asked;
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
    let restored = restore(&options).map_err(|error| error.to_string())?;
    Ok(format!(
        "restored snapshot {} to {}: member {:x} of cluster {:x}, revision {}",
        options.snapshot.display(),
        options.data_dir.display(),
        restored.member_id,
        restored.cluster_id,
        restored.revision
    ))
}

/// `binnacle store restore`.
pub(crate) fn store_restore(arguments: &[OsString]) -> ExitCode {
    let words = ["snapshot", "restore"].into_iter().map(OsString::from);
    ctl::command::main(words.chain(arguments.iter().cloned()).collect(), from_snapshot)
}

/// `etcdutl`, of which the commands for snapshots exist.
pub(crate) fn utl(arguments: Vec<OsString>) -> ExitCode {
    let word = arguments.iter().find(|argument| !argument.to_string_lossy().starts_with('-'));
    match word.map(|word| word.to_string_lossy()) {
        Some(word) if word != "snapshot" && word != "version" => {
            let _ = writeln!(
                std::io::stderr(),
                "Error: command {word:?} of etcdutl is not built: it works on etcd's own files"
            );
            ExitCode::FAILURE
        }
        Some(_) | None => ctl::command::main(arguments, from_snapshot),
    }
}
