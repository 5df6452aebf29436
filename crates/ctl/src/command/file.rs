//! What only etcdutl does: `defrag` of a data directory, `hashkv` of a database file; `backup` and `migrate` say why not.
//!
//! A data directory is the store's business (offline.rs). Not here: `snapshot status` and `restore` (snapshot.rs).

use std::{
    collections::HashMap,
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bolt::{Entry, ReadAt, ReadError, Reader};
use bytes::{Buf, Bytes};
use prost::Message as _;
use wire::mvccpb::KeyValue;

use crate::{
    catalog::{Command, Context, Run},
    failure::Failure,
    flags::{Line, number, switch, text},
    offline, output,
    progress::Progress,
    session::{Format, cause},
    signals::Signals,
    table,
};

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "defrag",
        takes: "--data-dir <dir>",
        about: "Defragments the storage of a data directory that is not in use",
        detail: "Moves what is stored to the front of the file and gives the rest back to the file system.",
        example: "defrag --data-dir /var/lib/binnacle",
        flags: &[text("data-dir", "", "Required. Defragments a data directory not in use by a member.")],
        run: Run::Offline(|context, line| Box::pin(defragment(context, line))),
    },
    Command {
        name: "hashkv",
        takes: "<filename>",
        about: "Prints the KV history hash of a given file",
        detail: "The file is a snapshot, or the database of an etcd. The hash is what `endpoint hashkv` prints of a member\n\
                 at that revision.",
        example: "hashkv /backup/etcd-snapshot.db",
        flags: &[number("rev", "0", "maximum revision to hash (default: latest revision)")],
        run: Run::Offline(|_context, line| Box::pin(async move { hashkv(line) })),
    },
    Command {
        name: "backup",
        takes: "",
        about: "[not supported] Copies a data directory of etcd with its v2 store",
        detail: "",
        example: "snapshot restore --help",
        flags: &[
            text("backup-dir", "", "Path to the backup dir"),
            text("backup-wal-dir", "", "Path to the backup wal dir"),
            text("data-dir", "", "Path to the etcd data dir"),
            text("wal-dir", "", "Path to the etcd wal dir"),
            switch("with-v3", "Backup v3 backend data").on(),
        ],
        run: Run::Offline(|_context, _line| {
            Box::pin(async {
                Err(Failure::feature(
                    "backup is not supported: there is no v2 store here; use `etcdctl snapshot save` on a running member",
                ))
            })
        }),
    },
    Command {
        name: "migrate",
        takes: "",
        about: "[not supported] Rewrites a data directory of etcd for another version",
        detail: "",
        example: "snapshot restore --help",
        flags: &[
            text("data-dir", "", "Path to the etcd data dir"),
            switch("force", "Ignore migration failure and forcefully override storage version"),
            text("target-version", "", "Target etcd version to migrate contents of data dir"),
        ],
        run: Run::Offline(|_context, _line| {
            Box::pin(async {
                Err(Failure::feature(
                    "migrate is not supported: data directories here have one format; to change between etcd and this \
                     store, save a snapshot and restore it",
                ))
            })
        }),
    },
];

const TICK: Duration = Duration::from_millis(200);

/// Runs long work on a thread of its own, with a progress bar; a signal stops it at its next step.
pub(crate) async fn blocking(
    doing: &str,
    work: impl FnOnce(offline::Progress<'_>) -> Result<String, String> + Send + 'static,
) -> Result<String, Failure> {
    let (done, total, stop) =
        (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let told = (done.clone(), total.clone(), stop.clone());
    let mut signals = Signals::catch();
    let mut work = tokio::task::spawn_blocking(move || {
        work(&|now, all| {
            told.0.store(now, Ordering::Relaxed);
            told.1.store(all, Ordering::Relaxed);
            !told.2.load(Ordering::Relaxed)
        })
    });
    let progress = Progress::bytes(doing, 0);
    let result = loop {
        tokio::select! {
            result = &mut work => break result,
            _ = signals.next() => stop.store(true, Ordering::Relaxed),
            () = tokio::time::sleep(TICK) => {
                progress.set(done.load(Ordering::Relaxed), total.load(Ordering::Relaxed));
            }
        }
    };
    drop(progress);
    let result = result.map_err(|error| Failure::error(error.to_string()))?;
    result.map_err(|text| {
        if stop.load(Ordering::Relaxed) { Failure::interrupted(text) } else { Failure::error(text) }
    })
}

async fn defragment(context: &Context, line: &Line) -> Result<(), Failure> {
    let [] = line.words_of("defrag takes no arguments but --data-dir")?;
    let data_dir = match line.text("data-dir") {
        "" => return Err(Failure::error("required flag(s) \"data-dir\" not set")),
        data_dir => PathBuf::from(data_dir),
    };
    let defragment = context.offline.defragment;
    let said = blocking("Defragmenting", move |progress| {
        defragment(&data_dir, progress)
            .map_err(|reason| format!("Failed to defragment etcd data[{}] ({reason})", data_dir.display()))
    });
    output::error(&said.await?);
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
struct Hash {
    hash: u32,
    revision: i64,
    compact_revision: i64,
}

fn hashkv(line: &Line) -> Result<(), Failure> {
    let words = line.words.len();
    let [path] = line.words_of(&format!("accepts 1 arg(s), received {words}"))?;
    let file = File::open(path).map_err(|error| Failure::file(format!("open {path}: {}", cause(&error))))?;
    let read = |error: ReadError| Failure::error(format!("{path}: {error}"));
    let reader = Reader::open(file).map_err(read)?;
    let Hash { hash, revision, compact_revision } =
        hash(&reader, line.number("rev"), Path::new(path)).map_err(Failure::error)?;
    let row = vec![hash.to_string(), revision.to_string(), compact_revision.to_string()];
    match Format::read(line)? {
        Format::Simple => output::line(row.join(", ")),
        Format::Table => {
            output::raw(table::draw(&["hash", "hash revision", "compact revision"], &[row]).as_bytes());
        }
        Format::Json => output::line(format!(
            "{{\"hash\":{hash},\"hashRevision\":{revision},\"compactRevision\":{compact_revision}}}"
        )),
        Format::Fields => output::line(format!(
            "\"Hash\" : {hash}\n\"Hash revision\" : {revision}\n\"Compact revision\" : {compact_revision}"
        )),
        Format::Protobuf => return Err(Format::Protobuf.unsupported()),
    }
    Ok(())
}

/// A revision as the key bucket has it: 8 bytes, `_`, 8 bytes, and `t` behind a deletion.
fn revision(key: &[u8]) -> Option<((i64, i64), bool)> {
    let (mut main, mut sub) = (key.get(..8)?, key.get(9..17)?);
    Some(((main.get_i64(), sub.get_i64()), key.get(17) == Some(&b't')))
}

/// etcd's hash of the history up to a revision: of what a compaction there would keep, and of all that is newer than the
/// last compaction. Holds one entry for each key.
fn hash<S: ReadAt>(reader: &Reader<S>, asked: i64, path: &Path) -> Result<Hash, String> {
    let read = |error: ReadError| format!("{}: {error}", path.display());
    let bucket = |name: &[u8]| reader.bucket(name).map_err(read);
    let keys = bucket(b"key")?.ok_or_else(|| format!("{}: no bucket \"key\"", path.display()))?;
    let mut compact_revision = -1; // as etcd says that there was none
    if let Some(meta) = bucket(b"meta")? {
        for entry in reader.entries(&meta).map_err(read)? {
            if let Entry::Pair { key, value } = entry.map_err(read)?
                && matches!(key.as_ref(), b"scheduledCompactRev" | b"finishedCompactRev")
            {
                compact_revision = compact_revision.max(revision(&value).map_or(-1, |((main, _), _)| main));
            }
        }
    }
    let pairs = || {
        let entries = reader.entries(&keys).map_err(read)?;
        Ok::<_, String>(entries.filter_map(move |entry| match entry {
            Ok(Entry::Pair { key, value }) => {
                let parsed =
                    revision(&key).ok_or_else(|| format!("{}: a malformed revision", path.display()));
                Some(parsed.map(|(revision, is_delete)| (key, value, revision, is_delete)))
            }
            Ok(Entry::Bucket { .. }) => None,
            Err(error) => Some(Err(read(error))),
        }))
    };
    let mut current = compact_revision.max(1);
    let mut newest: HashMap<Bytes, ((i64, i64), bool)> = HashMap::new();
    for pair in pairs()? {
        let (_, value, revision, is_delete) = pair?;
        current = current.max(revision.0);
        // Revisions ascend, so the last one stays.
        if (asked == 0 || revision.0 <= asked) && !value.is_empty() {
            let pair = KeyValue::decode(value).map_err(|error| format!("{}: {error}", path.display()))?;
            newest.insert(pair.key, (revision, is_delete));
        }
    }
    let at = if asked == 0 { current } else { asked };
    if at < compact_revision {
        return Err("mvcc: required revision has been compacted".to_owned());
    }
    if at > current {
        return Err("mvcc: required revision is a future revision".to_owned());
    }
    let keep: std::collections::HashSet<(i64, i64)> =
        newest.into_values().filter(|(_, is_delete)| !is_delete).map(|(revision, _)| revision).collect();
    let mut hash = crc32c::crc32c(b"key");
    for pair in pairs()? {
        let (key, value, revision, is_delete) = pair?;
        let compacted = revision.0 <= compact_revision && !keep.is_empty() && !keep.contains(&revision);
        if revision.0 > at || compacted || (revision.0 == compact_revision && is_delete) {
            continue;
        }
        hash = crc32c::crc32c_append(crc32c::crc32c_append(hash, &key), &value);
    }
    Ok(Hash { hash, revision: at, compact_revision })
}
