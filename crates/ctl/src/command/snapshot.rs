//! `snapshot status` and `snapshot restore`: what etcdutl does with a file, without a cluster.
//!
//! Making a data directory is the store's business, which this crate does not know: whoever runs it passes a function.
//! Not here: `snapshot save` (maintenance.rs).

use std::{fs::File, path::PathBuf};

use bolt::{Entry, ReadError, Reader};

use super::unknown;
use crate::{
    failure::Failure,
    flags::Line,
    output,
    session::{Format, Options},
    table, text,
};

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

/// Makes a data directory. Answers a line that says what was made, or why nothing was.
pub type Restore = fn(SnapshotRestore) -> Result<String, String>;

pub(crate) fn run(subcommand: &str, line: &Line, options: &Options, restore: Restore) -> Result<(), Failure> {
    match subcommand {
        "status" => status(line, options),
        "restore" => {
            output::error(&restore(asked(line)?).map_err(Failure::error)?);
            Ok(())
        }
        _ => Err(unknown("snapshot", subcommand)),
    }
}

fn asked(line: &Line) -> Result<SnapshotRestore, Failure> {
    let [snapshot] = line.words.as_slice() else {
        return Err(Failure::arguments("snapshot restore requires exactly one argument"));
    };
    if line.text("wal-dir").is_some_and(|dir| !dir.is_empty()) {
        return Err(Failure::arguments("--wal-dir is not supported: the log lies in the data directory"));
    }
    let given = |name: &str, default: &str| line.text(name).unwrap_or(default).to_owned();
    let name = given("name", "default");
    let bump = given("bump-revision", "0");
    let bump_revision = text::parse_u64(&bump, 10).map_err(|reason| {
        Failure::error(format!("invalid argument {bump:?} for \"--bump-revision\" flag: {reason}"))
    })?;
    let data_dir = given("data-dir", "");
    let data_dir = if data_dir.is_empty() { format!("{name}.etcd") } else { data_dir };
    Ok(SnapshotRestore {
        snapshot: snapshot.into(),
        initial_cluster: given("initial-cluster", "default=http://localhost:2380"),
        initial_cluster_token: given("initial-cluster-token", "etcd-cluster"),
        initial_advertise_peer_urls: given("initial-advertise-peer-urls", "http://localhost:2380"),
        data_dir: data_dir.into(),
        skip_hash_check: line.has("skip-hash-check"),
        bump_revision,
        mark_compacted: line.has("mark-compacted"),
        name,
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

fn status(line: &Line, options: &Options) -> Result<(), Failure> {
    let [path] = line.words.as_slice() else {
        return Err(Failure::arguments("snapshot status requires exactly one argument"));
    };
    let file = File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::error(format!("stat {path}: no such file or directory")),
        _ => Failure::error(format!("open {path}: {error}")),
    })?;
    let read = |error: ReadError| Failure::error(format!("snapshot file integrity check failed. {error}"));
    let status = count(&Reader::open(file).map_err(read)?).map_err(read)?;
    let Status { hash, revision, keys, size_bytes, storage_version } = status;
    let row = || {
        let size = human_size(size_bytes);
        vec![format!("{hash:x}"), revision.to_string(), keys.to_string(), size, storage_version.clone()]
    };
    match options.format {
        Format::Simple => output::line(row().join(", ")),
        Format::Table => {
            let titles = ["hash", "revision", "total keys", "total size", "storage version"];
            output::raw(table::draw(&titles, &[row()]).as_bytes());
        }
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

/// As `humanize.Bytes` of Go: powers of 1000, one decimal below 10.
fn human_size(size_bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if size_bytes < 10 {
        return format!("{size_bytes} B");
    }
    let mut unit = 0;
    let mut base = 1_u64;
    while size_bytes / base >= 1000 && unit + 1 < UNITS.len() {
        base *= 1000;
        unit += 1;
    }
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let tenths = (size_bytes as f64 / base as f64 * 10.0 + 0.5).floor() / 10.0;
    let unit = UNITS[unit];
    if tenths < 10.0 { format!("{tenths:.1} {unit}") } else { format!("{tenths:.0} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_in_go() {
        let rows = [
            (0, "0 B"),
            (9, "9 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (20_480, "20 kB"),
            (5_300_000, "5.3 MB"),
        ];
        for (size_bytes, text) in rows {
            assert_eq!(human_size(size_bytes), text);
        }
    }

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
        let asked = asked(&Line::parse(&words).expect("known flags")).expect("one file");
        assert_eq!(asked.data_dir, PathBuf::from("m1.etcd"));
        assert_eq!(asked.initial_cluster, "default=http://localhost:2380");
        assert!(asked.skip_hash_check && !asked.mark_compacted);
    }
}
