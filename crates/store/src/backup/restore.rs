//! `snapshot restore`: a data directory from an etcd database.
//!
//! As etcdutl does: keys with their revisions, compaction, leases, alarms, users and roles stay; the members are
//! replaced by those of the flags, each of which restores the same file. Invariants: a directory that is not empty is
//! never touched, and after a failure an empty one is as it was; the file is not trusted; memory is bounded by one batch.
//! Not here: parsing flags (crate `ctl`).

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use bolt::{Entry, Reader};
use bytes::Bytes;
use mvcc::{Revision, Row, Saved};
use replica::NewState;
use sha2::{Digest, Sha256};

use super::rows::{self, RowError};
use crate::{
    bootstrap,
    config::{Config, ConfigError},
    url::{Url, UrlError},
};

const HASH_SIZE_BYTES: usize = 32;
/// Rows that are written at once.
const BATCH_SIZE_BYTES: usize = 8 << 20;

/// The flags of `snapshot restore`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub snapshot: PathBuf,
    pub name: String,
    /// `name=url,...`
    pub initial_cluster: String,
    pub initial_cluster_token: String,
    pub initial_advertise_peer_urls: String,
    pub data_dir: PathBuf,
    /// Also takes a database without a hash behind it.
    pub skip_hash_check: bool,
    /// Added to the revision, so that clients with caches notice.
    pub bump_revision: u64,
    /// Makes everything up to the raised revision unreadable, so that clients with caches must start over.
    pub mark_compacted: bool,
}

/// What a restored member begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    pub cluster_id: u64,
    pub member_id: u64,
    pub revision: i64,
}

/// Why nothing was restored. The texts of the first ones are etcdutl's.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("data-dir {0:?} not empty or could not be read")]
    DataDir(PathBuf),
    #[error("snapshot missing hash but --skip-hash-check=false")]
    NoHash,
    #[error("expected sha256 {expected:?}, got {found:?}")]
    Hash { expected: Vec<u8>, found: Vec<u8> },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Url(#[from] UrlError),
    #[error("malformed entry {0:?} in --initial-cluster, want name=URL")]
    Cluster(String),
    #[error("--mark-compacted needs a --bump-revision")]
    MarkWithoutBump,
    #[error("--bump-revision {0} is too large")]
    Bump(u64),
    #[error("{path}: {source}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path}: {source}")]
    Database {
        path: PathBuf,
        #[source]
        source: bolt::ReadError,
    },
    #[error("{path}: no bucket {bucket:?}")]
    Bucket { path: PathBuf, bucket: &'static str },
    #[error("{path}: {source}")]
    Row {
        path: PathBuf,
        #[source]
        source: RowError,
    },
    #[error(transparent)]
    Write(#[from] replica::StartError),
    #[error("interrupted, nothing was restored")]
    Interrupted,
}

/// Told how many of how many bytes are done; answers whether to go on.
pub type Progress<'a> = &'a dyn Fn(u64, u64) -> bool;

/// Makes the directory. Blocks; may take long. A failure leaves nothing in it.
pub fn restore(options: &Options, progress: Progress<'_>) -> Result<Restored, RestoreError> {
    if options.mark_compacted && options.bump_revision == 0 {
        return Err(RestoreError::MarkWithoutBump);
    }
    let config = config(options)?;
    check_empty(&options.data_dir)?;
    let path = &options.snapshot;
    let io_error = |source| RestoreError::Io { path: path.clone(), source };
    let file = File::open(path).map_err(io_error)?;
    if !options.skip_hash_check {
        check_hash(&file, progress).map_err(io_error)??;
    }
    let source =
        Source { path, reader: Reader::open(file).map_err(|source| database(path, source))?, progress };
    let bootstrap::Bootstrap { identity, members } = bootstrap::first_members(&config);
    let mut state = NewState::create(&options.data_dir, identity, &members)?;
    let newest = source.records(&mut state)?;
    source.small(&mut state, newest, options)?;
    let revision = state.finish()?;
    Ok(Restored { cluster_id: identity.cluster_id, member_id: identity.member_id, revision })
}

fn database(path: &Path, source: bolt::ReadError) -> RestoreError {
    RestoreError::Database { path: path.to_owned(), source }
}

fn config(options: &Options) -> Result<Config, RestoreError> {
    let mut config = Config::new(&options.name, &options.data_dir);
    config.initial_cluster_token = options.initial_cluster_token.clone();
    config.initial_advertise_peer_urls = Url::parse_list(&options.initial_advertise_peer_urls)?;
    let entries = options.initial_cluster.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    for entry in entries {
        let (name, url) = entry.split_once('=').ok_or_else(|| RestoreError::Cluster(entry.to_owned()))?;
        config.initial_cluster.push((name.trim().to_owned(), url.parse()?));
    }
    config.check_cluster()?;
    Ok(config)
}

/// Missing is as good as empty.
fn check_empty(data_dir: &Path) -> Result<(), RestoreError> {
    let refused = || RestoreError::DataDir(data_dir.to_owned());
    match std::fs::read_dir(data_dir) {
        Ok(mut entries) => entries.next().is_none().then_some(()).ok_or_else(refused),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(_) => Err(refused()),
    }
}

/// What stands behind the pages must be the hash of them.
fn check_hash(file: &File, progress: Progress<'_>) -> io::Result<Result<(), RestoreError>> {
    let size_bytes = file.metadata()?.len();
    let hash_size_bytes = HASH_SIZE_BYTES as u64;
    if size_bytes % 512 != hash_size_bytes {
        return Ok(Err(RestoreError::NoHash));
    }
    let mut file = io::BufReader::with_capacity(256 << 10, file);
    let mut hash = Sha256::new();
    let mut left = size_bytes - hash_size_bytes;
    let mut buffer = vec![0; 64 << 10];
    while left > 0 {
        let length = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        file.read_exact(&mut buffer[..length])?;
        hash.update(&buffer[..length]);
        left -= length as u64;
        if !progress(size_bytes - left, size_bytes) {
            return Ok(Err(RestoreError::Interrupted));
        }
    }
    let mut expected = vec![0; HASH_SIZE_BYTES];
    file.read_exact(&mut expected)?;
    let found = hash.finalize().to_vec();
    if found != expected {
        return Ok(Err(RestoreError::Hash { expected, found }));
    }
    Ok(Ok(()))
}

struct Source<'a> {
    path: &'a Path,
    reader: Reader<File>,
    progress: Progress<'a>,
}

impl Source<'_> {
    fn row<T>(&self, row: Result<T, RowError>) -> Result<T, RestoreError> {
        row.map_err(|source| RestoreError::Row { path: self.path.to_owned(), source })
    }

    /// The pairs of a bucket; none if there is no such bucket, which old versions did not make.
    fn pairs(
        &self,
        bucket: &[u8],
    ) -> Result<impl Iterator<Item = Result<(Bytes, Bytes), RestoreError>>, RestoreError> {
        let path = self.path;
        let found = self.reader.bucket(bucket).map_err(|source| database(path, source))?;
        let entries = found.map(|bucket| self.reader.entries(&bucket)).transpose();
        let entries = entries.map_err(|source| database(path, source))?;
        Ok(entries.into_iter().flatten().filter_map(move |entry| match entry {
            Ok(Entry::Pair { key, value }) => Some(Ok((key, value))),
            Ok(Entry::Bucket { .. }) => None,
            Err(source) => Some(Err(database(path, source))),
        }))
    }

    /// Answers the newest revision.
    fn records(&self, state: &mut NewState) -> Result<i64, RestoreError> {
        let path = self.path.to_owned();
        if self.reader.bucket(rows::KEY).map_err(|source| database(self.path, source))?.is_none() {
            return Err(RestoreError::Bucket { path, bucket: "key" });
        }
        let mut newest = 1;
        let mut batch = Batch::default();
        let mut read_bytes = 0;
        for pair in self.pairs(rows::KEY)? {
            let (key, value) = pair?;
            read_bytes += (key.len() + value.len()) as u64;
            if !(self.progress)(read_bytes, self.reader.size_bytes()) {
                return Err(RestoreError::Interrupted);
            }
            let (revision, is_delete) = self.row(rows::revision(&key))?;
            newest = newest.max(revision.main);
            // Nothing but a revision: `etcdutl snapshot restore --bump-revision` left it.
            if value.is_empty() {
                continue;
            }
            batch.push(self.row(rows::record(revision, is_delete, value))?.to_row());
            batch.write_if_full(state)?;
        }
        batch.write(state)?;
        Ok(newest)
    }

    fn small(&self, state: &mut NewState, newest: i64, options: &Options) -> Result<(), RestoreError> {
        let mut batch = Batch::default();
        let mut revision = newest;
        for pair in self.pairs(rows::META)? {
            let (key, value) = pair?;
            let compaction =
                |value: &[u8]| self.row(rows::revision(value)).map(|(Revision { main, .. }, _)| main);
            match key.as_ref() {
                rows::SCHEDULED_COMPACTION => {
                    let scheduled = compaction(&value)?;
                    revision = revision.max(scheduled);
                    if !options.mark_compacted {
                        batch.push(Saved::CompactScheduled(scheduled).into_row());
                    }
                }
                rows::FINISHED_COMPACTION => {
                    batch.push(Saved::CompactFinished(compaction(&value)?).into_row());
                }
                _ => {}
            }
        }
        let too_large = || RestoreError::Bump(options.bump_revision);
        let bump = i64::try_from(options.bump_revision).map_err(|_| too_large())?;
        revision = revision.checked_add(bump).ok_or_else(too_large)?;
        if options.mark_compacted {
            batch.push(Saved::CompactScheduled(revision).into_row());
        }
        batch.push(Saved::Revision(revision).into_row());
        batch.push(Saved::Restored(revision).into_row());
        for pair in self.pairs(rows::LEASE)? {
            batch.push(Saved::Lease(self.row(rows::lease(pair?.1))?).into_row());
            batch.write_if_full(state)?;
        }
        for pair in self.pairs(rows::ALARM)? {
            batch.rows.extend(self.row(rows::alarm(pair?.0))?.map(|alarm| Saved::Alarm(alarm).into_row()));
        }
        let (mut enabled, mut auth_revision) = (false, 1);
        for pair in self.pairs(rows::AUTH)? {
            let (key, value) = pair?;
            match key.as_ref() {
                rows::AUTH_ENABLED => enabled = value.as_ref() == [1],
                rows::AUTH_REVISION => {
                    let bytes = value.as_ref().try_into();
                    let number =
                        bytes.map(u64::from_be_bytes).map_err(|_| RowError { what: "the auth revision" });
                    auth_revision = self.row(number)?.max(1);
                }
                _ => {}
            }
        }
        batch.push(Saved::Auth { enabled, revision: auth_revision }.into_row());
        for pair in self.pairs(rows::AUTH_USERS)? {
            batch.push(Saved::User(self.row(rows::user(pair?.1))?).into_row());
            batch.write_if_full(state)?;
        }
        for pair in self.pairs(rows::AUTH_ROLES)? {
            batch.push(Saved::Role(self.row(rows::role(pair?.1))?).into_row());
            batch.write_if_full(state)?;
        }
        batch.write(state)
    }
}

#[derive(Default)]
struct Batch {
    rows: Vec<Row>,
    size_bytes: usize,
}

impl Batch {
    fn push(&mut self, row: Row) {
        self.size_bytes += 64
            + match &row {
                Row::Record(_, bytes) => bytes.len(),
                Row::Meta(key, value) => key.len() + value.len(),
                Row::DeleteRecord(_) | Row::DeleteMeta(_) => 0,
            };
        self.rows.push(row);
    }

    fn write_if_full(&mut self, state: &mut NewState) -> Result<(), RestoreError> {
        if self.size_bytes >= BATCH_SIZE_BYTES { self.write(state) } else { Ok(()) }
    }

    fn write(&mut self, state: &mut NewState) -> Result<(), RestoreError> {
        self.size_bytes = 0;
        Ok(state.add(std::mem::take(&mut self.rows))?)
    }
}
