//! `snapshot status` and `snapshot restore`: what etcdutl does with a file, without a cluster.
//!
//! Making a data directory is the store's business (offline.rs). Not here: `snapshot save` (save.rs).

use std::fs::File;

use bolt::{Entry, ReadError, Reader};

use super::file::blocking;
use crate::{
    catalog::{Command, Context, Run},
    failure::Failure,
    flags::{Flag, Line, number, switch, text as text_flag},
    offline::SnapshotRestore,
    output,
    session::{Format, cause},
    table, text,
};

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "snapshot status",
        takes: "<filename>",
        about: "Gets backend snapshot status of a given file",
        detail: "When --write-out is set to simple, this command prints out comma-separated status lists for each endpoint.\n\
                 The items in the lists are hash, revision, total keys, total size, storage version.",
        example: "snapshot status /backup/etcd-snapshot.db -w table",
        flags: &[],
        run: Run::Offline(|_context, line| Box::pin(async move { status(line) })),
    },
    Command {
        name: "snapshot restore",
        takes: "<filename> --data-dir {output dir} [options]",
        about: "Restores a snapshot to a data directory",
        detail: "Each member of the new cluster restores the same file with the same --initial-cluster and its own --name.\n\
                 The directory must be missing or empty; if the work fails or is stopped, nothing is left in it.\n\
                 With --bump-revision and --mark-compacted, revisions that clients have seen are not used again and\n\
                 their watches and caches start over.",
        example: "snapshot restore snapshot.db --name m1 --data-dir m1.etcd --initial-cluster m1=http://h1:2380 \
                  --initial-advertise-peer-urls http://h1:2380",
        flags: RESTORE_FLAGS,
        run: Run::Offline(|context, line| Box::pin(restore(context, line))),
    },
];

const RESTORE_FLAGS: &[Flag] = &[
    number("bump-revision", "0", "How much to increase the latest revision after restore"),
    text_flag("data-dir", "", "Path to the output data directory (default: <name>.etcd)"),
    text_flag(
        "initial-advertise-peer-urls",
        "http://localhost:2380",
        "List of this member's peer URLs to advertise to the rest of the cluster",
    ),
    text_flag(
        "initial-cluster",
        "default=http://localhost:2380",
        "Initial cluster configuration for restore bootstrap",
    ),
    text_flag(
        "initial-cluster-token",
        "etcd-cluster",
        "Initial cluster token for the etcd cluster during restore bootstrap",
    ),
    switch(
        "mark-compacted",
        "Mark the latest revision after restore as compacted (required if --bump-revision > 0, disallowed otherwise)",
    ),
    text_flag("name", "default", "Human-readable name for this member"),
    switch(
        "skip-hash-check",
        "Ignore snapshot integrity hash value (required if copied from data directory)",
    ),
    text_flag("wal-dir", "", "Path to the WAL directory (not supported: the log lies in the data directory)"),
];

async fn restore(context: &Context, line: &Line) -> Result<(), Failure> {
    let asked = asked(line)?;
    let restore = context.offline.restore;
    let said = blocking("Restoring", move |progress| restore(&asked, progress)).await?;
    output::error(&said);
    Ok(())
}

fn asked(line: &Line) -> Result<SnapshotRestore, Failure> {
    let [snapshot] = line.words_of("snapshot restore requires exactly one argument")?;
    if !line.text("wal-dir").is_empty() {
        return Err(Failure::arguments("--wal-dir is not supported: the log lies in the data directory"));
    }
    let bump = line.text("bump-revision");
    let bump_revision = text::parse_u64(bump, 10).map_err(|reason| {
        Failure::error(format!("invalid argument {bump:?} for \"--bump-revision\" flag: {reason}"))
    })?;
    if (bump_revision > 0) != line.has("mark-compacted") {
        return Err(Failure::arguments("--mark-compacted required if --revision-bump > 0"));
    }
    let name = line.text("name");
    let data_dir = match line.text("data-dir") {
        "" => format!("{name}.etcd"),
        data_dir => data_dir.to_owned(),
    };
    Ok(SnapshotRestore {
        snapshot: snapshot.into(),
        name: name.to_owned(),
        initial_cluster: line.text("initial-cluster").to_owned(),
        initial_cluster_token: line.text("initial-cluster-token").to_owned(),
        initial_advertise_peer_urls: line.text("initial-advertise-peer-urls").to_owned(),
        data_dir: data_dir.into(),
        skip_hash_check: line.has("skip-hash-check"),
        bump_revision,
        mark_compacted: line.has("mark-compacted"),
    })
}

/// What etcdutl counts in a database.
#[derive(Debug, PartialEq, Eq)]
struct Status {
    /// CRC-32C over the names of the buckets and all that is in them.
    hash: u32,
    /// Of the last key.
    revision: i64,
    keys: u64,
    size_bytes: u64,
    storage_version: String,
}

fn status(line: &Line) -> Result<(), Failure> {
    let [path] = line.words_of("snapshot status requires exactly one argument")?;
    let file = File::open(path).map_err(|error| {
        let call = if error.kind() == std::io::ErrorKind::NotFound { "stat" } else { "open" };
        Failure::error(format!("{call} {path}: {}", cause(&error)))
    })?;
    let read = |error: ReadError| Failure::error(format!("snapshot file integrity check failed. {error}"));
    let status = count(&Reader::open(file).map_err(read)?).map_err(read)?;
    let Status { hash, revision, keys, size_bytes, storage_version } = status;
    let row = || {
        let size = text::size(size_bytes);
        vec![format!("{hash:x}"), revision.to_string(), keys.to_string(), size, storage_version.clone()]
    };
    match Format::read(line)? {
        Format::Simple => output::line(row().join(", ")),
        Format::Table => {
            let titles = ["hash", "revision", "total keys", "total size", "storage version"];
            output::raw(table::draw(&titles, &[row()]).as_bytes());
        }
        Format::Protobuf => return Err(Format::Protobuf.unsupported()),
        Format::Json => output::line(format!(
            "{{\"hash\":{hash},\"revision\":{revision},\"totalKey\":{keys},\"totalSize\":{size_bytes},\"version\":{}}}",
            serde_json::Value::from(storage_version.as_str())
        )),
        Format::Fields => output::line(format!(
            "\"Hash\" : {hash}\n\"Revision\" : {revision}\n\"Keys\" : {keys}\n\"Size\" : {size_bytes}\n\"Version\" : {storage_version}"
        )),
    }
    Ok(())
}

fn count<S: bolt::ReadAt>(reader: &Reader<S>) -> Result<Status, ReadError> {
    let mut status = Status {
        hash: 0,
        revision: 0,
        keys: 0,
        size_bytes: reader.size_bytes(),
        storage_version: String::new(),
    };
    for entry in reader.entries(&reader.root())? {
        let Entry::Bucket { name, bucket } = entry? else { continue };
        status.hash = crc32c::crc32c_append(status.hash, &name);
        for entry in reader.entries(&bucket)? {
            let Entry::Pair { key, value } = entry? else { continue };
            status.hash = crc32c::crc32c_append(crc32c::crc32c_append(status.hash, &key), &value);
            status.keys += 1;
            if let (b"key", Some(main)) = (name.as_ref(), key.first_chunk::<8>()) {
                status.revision = i64::from_be_bytes(*main);
            }
            if name == "meta" && key == "storageVersion" {
                status.storage_version = String::from_utf8_lossy(&value).into_owned();
            }
        }
    }
    Ok(status)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// The hash of a file is that of its contents in order.
    #[test]
    fn a_status_counts_what_is_in_the_buckets() -> Result<(), Box<dyn std::error::Error>> {
        let mut writer = bolt::Writer::new(std::io::Cursor::new(Vec::new()))?;
        writer.bucket(b"meta")?;
        writer.put(b"storageVersion", b"3.6.0")?;
        writer.bucket(b"key")?;
        writer.put(b"\0\0\0\0\0\0\0\x02_\0\0\0\0\0\0\0\0", b"a")?;
        writer.put(b"\0\0\0\0\0\0\0\x09_\0\0\0\0\0\0\0\0t", b"b")?;
        let (file, size_bytes) = writer.finish()?;
        let hash = crc32c::crc32c(
            b"key\0\0\0\0\0\0\0\x02_\0\0\0\0\0\0\0\0a\0\0\0\0\0\0\0\x09_\0\0\0\0\0\0\0\0tbmetastorageVersion3.6.0",
        );
        let status = count(&Reader::open(file.into_inner())?)?;
        assert_eq!(
            status,
            Status { hash, revision: 9, keys: 3, size_bytes, storage_version: "3.6.0".into() }
        );
        Ok(())
    }

    #[test]
    fn flags_have_etcdutls_defaults() {
        let words = ["a.db", "--name", "m1", "--skip-hash-check"].map(str::to_owned);
        let asked = asked(&Line::parse(&words, &[RESTORE_FLAGS]).expect("known flags")).expect("one file");
        assert_eq!(asked.data_dir, PathBuf::from("m1.etcd"));
        assert_eq!(asked.initial_cluster, "default=http://localhost:2380");
        assert!(asked.skip_hash_check && !asked.mark_compacted);
    }
}
