//! The state file: one redb database with the records of the key space and a small table of metadata.
//! Drawn in docs/formats.md (`## State file`).
//!
//! Invariants: one writer (the flusher thread; the snapshot receiver writes a file of its own). The applied log id, the
//! membership and every row that apply produced up to it are in the same transaction, so that replay from the applied
//! index is exact after a crash between any two transactions. Readers see the last committed transaction through a
//! cached read transaction that is renewed after each commit.
//! Not here: when to flush (flusher.rs), what rows mean (mvcc).

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{BufMut, Bytes};
use mvcc::{Records, RecordsError, Revision, Row, ScanBound, Scanned};
use parking_lot::{Mutex, RwLock};
use redb::{Database, Durability, ReadOnlyTable, ReadableDatabase, TableDefinition};
use wal::{Disk, DiskFile};

use crate::codec::{self, CodecError};
use crate::planted::{self, Bug};
use crate::raft_types::{LogId, StoredMembership};
use crate::surroundings::{Pages, exists, remove};

/// Key: main revision in the high 64 bits, sub revision in the low 64. Only ever appended to and deleted from.
const RECORDS: TableDefinition<u128, &[u8]> = TableDefinition::new("records");
/// Keys with the prefix `m/` are the key space's, `r/` are the replica's.
const META: TableDefinition<&[u8], &[u8]> = TableDefinition::new("meta");

const STORE_PREFIX: &[u8] = b"m/";
const FORMAT_KEY: &[u8] = b"r/format";
const APPLIED_KEY: &[u8] = b"r/applied";
const FORMAT_VERSION: u8 = 1;
/// Rows that go in through one cursor. It copies them into one growing buffer: a large one is given back to the kernel
/// and cleared page by page again each time, which was a sixth of all CPU under load.
const APPEND_ROWS_MAX: usize = 128;
const COMPACT_CACHE_SIZE_BYTES: usize = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    #[error("state file {path}: {source}")]
    Database {
        path: PathBuf,
        #[source]
        source: Box<redb::Error>,
    },
    #[error("state file {path}: {source}")]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("state file {path} is closed, the member has stopped")]
    Closed { path: PathBuf },
    #[error("state file {path} has format {found}, this version reads format {FORMAT_VERSION}")]
    Format { path: PathBuf, found: u8 },
    #[error("state file {path} is damaged: {source}")]
    Damaged {
        path: PathBuf,
        #[source]
        source: CodecError,
    },
    #[error("state file {path} is damaged: checksum of row {key:?} does not match")]
    Checksum { path: PathBuf, key: String },
}

/// What the state file says about its place in the log. Goes into every transaction.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Position {
    pub applied: Option<LogId>,
    pub membership: StoredMembership,
    /// Ids of members that were removed; they never come back.
    pub removed: Vec<u64>,
}

impl Position {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        codec::put_log_id(&mut out, self.applied.as_ref());
        codec::put_stored_membership(&mut out, &self.membership);
        out.put_u32_le(u32::try_from(self.removed.len()).expect("members are few"));
        for id in &self.removed {
            out.put_u64_le(*id);
        }
        out
    }

    pub(crate) fn from_bytes(mut bytes: Bytes) -> Result<Position, CodecError> {
        use bytes::Buf;
        let damaged = || codec::junk("position");
        let applied = codec::take_log_id(&mut bytes)?;
        let membership = codec::take_stored_membership(&mut bytes)?;
        let count = bytes.try_get_u32_le().map_err(|_| damaged())?;
        let mut removed = Vec::new();
        for _ in 0..count {
            removed.push(bytes.try_get_u64_le().map_err(|_| damaged())?);
        }
        Ok(Position { applied, membership, removed })
    }
}

/// An open state file. Cheap to read from any thread.
pub(crate) struct StateFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// Used by the one writer; `None` after `close`.
    database: Mutex<Option<Database>>,
    reader: RwLock<Option<Arc<Reader>>>,
}

struct Reader {
    records: ReadOnlyTable<u128, &'static [u8]>,
    meta: ReadOnlyTable<&'static [u8], &'static [u8]>,
}

impl StateFile {
    /// Opens or creates. `cache_size_bytes` bounds redb's page cache, which is otherwise 1 GiB.
    pub(crate) fn open(
        disk: &Arc<dyn Disk>,
        path: &Path,
        cache_size_bytes: usize,
    ) -> Result<StateFile, StateFileError> {
        if !exists(&**disk, path).map_err(|source| io_error(path, source))? {
            create(&**disk, path, cache_size_bytes)?;
        }
        let pages = disk.open(path).map_err(|source| io_error(path, source))?;
        let database = database(path, pages, cache_size_bytes)?;
        let wrap = |source: redb::Error| database_error(path, source);
        create_tables(&database).map_err(wrap)?;
        let reader = Arc::new(Reader::new(&database).map_err(wrap)?);
        let format = meta_row(path, &reader, FORMAT_KEY)?;
        match format.as_deref() {
            Some([FORMAT_VERSION]) => Ok(StateFile {
                disk: Arc::clone(disk),
                path: path.to_owned(),
                database: Mutex::new(Some(database)),
                reader: RwLock::new(Some(reader)),
            }),
            found => Err(StateFileError::Format {
                path: path.to_owned(),
                found: found.and_then(|bytes| bytes.first()).copied().unwrap_or(0),
            }),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn wrap(&self, source: impl Into<redb::Error>) -> StateFileError {
        database_error(&self.path, source)
    }

    /// Moves rows into the file together with the position that they belong to. `durable` waits for the disk and keeps
    /// a later open fast; otherwise the rows are visible to readers but may be lost in a crash, whole transactions at a
    /// time, newest first.
    pub(crate) fn write(
        &self,
        rows: &[Row],
        position: &Position,
        durable: bool,
    ) -> Result<(), StateFileError> {
        let database = self.database.lock();
        let database = database.as_ref().ok_or_else(|| self.closed())?;
        let mut transaction = database.begin_write().map_err(|error| self.wrap(error))?;
        let durable = durable && !planted::is(Bug::NeverDurable);
        let durability = if durable { Durability::Immediate } else { Durability::None };
        transaction.set_durability(durability).expect("no savepoint is ever made");
        transaction.set_quick_repair(durable);
        if planted::is(Bug::PositionAlone) {
            write_position(&transaction, position).map_err(|error| self.wrap(error))?;
            transaction.commit().map_err(|error| self.wrap(error))?;
            transaction = database.begin_write().map_err(|error| self.wrap(error))?;
            transaction.set_durability(durability).expect("no savepoint is ever made");
            transaction.set_quick_repair(durable);
        }
        write_rows(&transaction, rows).map_err(|error| self.wrap(error))?;
        write_position(&transaction, position).map_err(|error| self.wrap(error))?;
        transaction.commit().map_err(|error| self.wrap(error))?;
        let reader = Reader::new(database).map_err(|error| self.wrap(error))?;
        *self.reader.write() = Some(Arc::new(reader));
        Ok(())
    }

    /// Gives the file back, for a member that stops. Views that are still held keep it open.
    pub(crate) fn close(&self) {
        *self.reader.write() = None;
        *self.database.lock() = None;
    }

    pub(crate) fn position(&self) -> Result<Position, StateFileError> {
        position(&self.path, &*self.reader()?)
    }

    fn reader(&self) -> Result<Arc<Reader>, StateFileError> {
        self.reader.read().clone().ok_or_else(|| self.closed())
    }

    fn closed(&self) -> StateFileError {
        StateFileError::Closed { path: self.path.clone() }
    }

    /// A frozen view: stays as it is while transactions go on. Pins pages, so it must not be kept for long.
    pub(crate) fn view(&self) -> Result<StateView, StateFileError> {
        let reader = self.reader()?;
        let position = position(&self.path, &reader)?;
        Ok(StateView { path: self.path.clone(), reader, position })
    }

    /// For a file that was renamed while it is open.
    pub(crate) fn renamed(self, path: PathBuf) -> StateFile {
        StateFile { path, ..self }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.reader.read().is_none()
    }

    /// Looks at every row of the metadata. Answers their size.
    pub(crate) fn check_meta(
        &self,
        mut damaged: impl FnMut(String, &StateFileError),
    ) -> Result<u64, StateFileError> {
        let reader = self.reader()?;
        let mut size_bytes = 0;
        for row in reader.meta.range::<&[u8]>(..).map_err(|error| self.wrap(error))? {
            let (key, value) = row.map_err(|error| self.wrap(error))?;
            size_bytes += (key.value().len() + value.value().len()) as u64;
            if let Err(error) = checked(&self.path, key.value(), value.value()) {
                damaged(format!("row {}", String::from_utf8_lossy(key.value())), &error);
            }
        }
        Ok(size_bytes)
    }

    /// Looks at records from the key `from` on, about `size_bytes_max` of them. Answers the key to go on from (`None`: the
    /// end) and what was looked at.
    pub(crate) fn check_records(
        &self,
        from: u128,
        size_bytes_max: u64,
        mut damaged: impl FnMut(&RecordsError),
    ) -> Result<(Option<u128>, u64), StateFileError> {
        let reader = self.reader()?;
        let mut size_bytes = 0;
        for row in reader.records.range(from..).map_err(|error| self.wrap(error))? {
            let (key, value) = row.map_err(|error| self.wrap(error))?;
            if size_bytes >= size_bytes_max {
                return Ok((Some(key.value()), size_bytes));
            }
            size_bytes += value.value().len() as u64;
            if let Err(error) = mvcc::verify_record(revision(key.value()), value.value()) {
                damaged(&error);
            }
        }
        Ok((None, size_bytes))
    }

    pub(crate) fn size_on_disk_bytes(&self) -> u64 {
        self.disk.open(&self.path).and_then(|file| file.size_bytes()).unwrap_or(0)
    }
}

/// The whole file at one moment, for a restart, a snapshot or a backup.
pub(crate) struct StateView {
    path: PathBuf,
    reader: Arc<Reader>,
    pub position: Position,
}

impl StateView {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Metadata rows of the key space.
    pub(crate) fn meta(&self) -> Result<Vec<(Bytes, Bytes)>, StateFileError> {
        let wrap = |error: redb::StorageError| database_error(&self.path, error);
        let mut rows = Vec::new();
        for row in self.reader.meta.range::<&[u8]>(STORE_PREFIX..).map_err(wrap)? {
            let (key, value) = row.map_err(wrap)?;
            let Some(name) = key.value().strip_prefix(STORE_PREFIX) else { break };
            rows.push((Bytes::copy_from_slice(name), checked(&self.path, key.value(), value.value())?));
        }
        Ok(rows)
    }

    /// All records in revision order; an unreadable page ends the iteration with the error.
    pub(crate) fn records(
        &self,
    ) -> Result<impl Iterator<Item = Result<(Revision, Bytes), StateFileError>> + use<>, StateFileError> {
        let path = self.path.clone();
        let range = self.reader.records.range::<u128>(..).map_err(|error| database_error(&path, error))?;
        Ok(range.map(move |row| {
            let (key, value) = row.map_err(|error| database_error(&path, error))?;
            Ok((revision(key.value()), Bytes::copy_from_slice(value.value())))
        }))
    }
}

impl Records for StateFile {
    fn read(&self, revision: Revision) -> Result<Option<Bytes>, RecordsError> {
        let reader = self.reader().map_err(unreadable)?;
        let found = reader.records.get(record_key(revision)).map_err(unreadable)?;
        Ok(found.map(|guard| Bytes::copy_from_slice(guard.value())))
    }

    fn scan(&self, from: Revision, bound: ScanBound) -> Result<Scanned, RecordsError> {
        let reader = self.reader().map_err(unreadable)?;
        let range = reader.records.range(record_key(from)..).map_err(unreadable)?;
        let mut scanned = Scanned::default();
        scanned.take(
            range.map(|row| {
                let (key, value) = row.map_err(unreadable)?;
                Ok((revision(key.value()), Bytes::copy_from_slice(value.value())))
            }),
            bound,
        )?;
        Ok(scanned)
    }
}

fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> RecordsError {
    RecordsError::Read(Arc::new(error))
}

impl Reader {
    fn new(database: &Database) -> Result<Reader, redb::Error> {
        let transaction = database.begin_read()?;
        Ok(Reader { records: transaction.open_table(RECORDS)?, meta: transaction.open_table(META)? })
    }
}

/// A state file that is being filled from a snapshot, under a name of its own.
pub(crate) struct NewStateFile {
    path: PathBuf,
    database: Database,
    records: Vec<Row>,
}

impl NewStateFile {
    /// Replaces whatever is at `path`.
    pub(crate) fn create(
        disk: &dyn Disk,
        path: &Path,
        cache_size_bytes: usize,
    ) -> Result<NewStateFile, StateFileError> {
        let pages = remove(disk, path).and_then(|()| disk.create(path));
        let database = database(path, pages.map_err(|source| io_error(path, source))?, cache_size_bytes)?;
        create_tables(&database).map_err(|error| database_error(path, error))?;
        Ok(NewStateFile { path: path.to_owned(), database, records: Vec::new() })
    }

    /// Rows must come in the order in which a view yields them.
    pub(crate) fn add(&mut self, rows: Vec<Row>) -> Result<(), StateFileError> {
        self.records = rows;
        self.commit(None)
    }

    /// Fsyncs. After this the file may take its final name.
    pub(crate) fn finish(mut self, position: &Position) -> Result<(), StateFileError> {
        self.commit(Some(position))
    }

    fn commit(&mut self, position: Option<&Position>) -> Result<(), StateFileError> {
        let path = self.path.clone();
        let wrap =
            |source: redb::Error| StateFileError::Database { path: path.clone(), source: Box::new(source) };
        let mut transaction = self.database.begin_write().map_err(|error| wrap(error.into()))?;
        let durability = if position.is_some() { Durability::Immediate } else { Durability::None };
        transaction.set_durability(durability).expect("no savepoint is ever made");
        transaction.set_quick_repair(position.is_some());
        write_rows(&transaction, &std::mem::take(&mut self.records)).map_err(wrap)?;
        if let Some(position) = position {
            write_position(&transaction, position).map_err(wrap)?;
        }
        transaction.commit().map_err(|error| wrap(error.into()))
    }
}

fn database(
    path: &Path,
    pages: Arc<dyn DiskFile>,
    cache_size_bytes: usize,
) -> Result<Database, StateFileError> {
    let mut builder = redb::Builder::new();
    builder.set_cache_size(cache_size_bytes);
    builder.create_with_backend(Pages(pages)).map_err(|error| database_error(path, error))
}

fn io_error(path: &Path, source: std::io::Error) -> StateFileError {
    StateFileError::Io { path: path.to_owned(), source }
}

fn database_error(path: &Path, source: impl Into<redb::Error>) -> StateFileError {
    StateFileError::Database { path: path.to_owned(), source: Box::new(source.into()) }
}

fn position(path: &Path, reader: &Reader) -> Result<Position, StateFileError> {
    let Some(bytes) = meta_row(path, reader, APPLIED_KEY)? else { return Ok(Position::default()) };
    Position::from_bytes(bytes).map_err(|source| StateFileError::Damaged { path: path.to_owned(), source })
}

fn meta_row(path: &Path, reader: &Reader, key: &[u8]) -> Result<Option<Bytes>, StateFileError> {
    let found = reader.meta.get(key).map_err(|error| database_error(path, error))?;
    found.map(|guard| checked(path, key, guard.value())).transpose()
}

fn checked(path: &Path, key: &[u8], stored: &[u8]) -> Result<Bytes, StateFileError> {
    unsealed(key, stored).ok_or_else(|| StateFileError::Checksum {
        path: path.to_owned(),
        key: String::from_utf8_lossy(key).into_owned(),
    })
}

/// redb refuses a file whose creation a crash cut short, so the file gets its name when it is whole.
fn create(disk: &dyn Disk, path: &Path, cache_size_bytes: usize) -> Result<(), StateFileError> {
    if planted::is(Bug::StateNamedFirst) {
        NewStateFile::create(disk, path, cache_size_bytes)?.finish(&Position::default())?;
        let synced = disk.sync_directory(path.parent().unwrap_or(path));
        return synced.map_err(|source| io_error(path, source));
    }
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = PathBuf::from(unfinished);
    let position = Position::default();
    NewStateFile::create(disk, &unfinished, cache_size_bytes)?.finish(&position)?;
    disk.rename(&unfinished, path)
        .and_then(|()| disk.sync_directory(path.parent().unwrap_or(path)))
        .map_err(|source| io_error(path, source))
}

/// Moves pages to the front and shortens the file, until there is no more to gain.
pub(crate) fn compact(disk: &dyn Disk, path: &Path) -> Result<(), StateFileError> {
    let pages = disk.open(path).map_err(|source| io_error(path, source))?;
    let mut database = database(path, pages, COMPACT_CACHE_SIZE_BYTES)?;
    while database.compact().map_err(|error| database_error(path, error))? {}
    drop(database);
    if planted::is(Bug::DefragmentedNotSynced) {
        return replace_by_copy(disk, path).map_err(|source| io_error(path, source));
    }
    Ok(())
}

/// Of a planted bug: a copy takes the file's name before its content is on disk.
fn replace_by_copy(disk: &dyn Disk, path: &Path) -> std::io::Result<()> {
    let old = disk.open(path)?;
    let mut bytes = vec![0; usize::try_from(old.size_bytes()?).unwrap_or(0)];
    let read = old.read_at(&mut bytes, 0)?;
    let mut copied = path.as_os_str().to_owned();
    copied.push(".copy");
    let copied = PathBuf::from(copied);
    let written = disk.create(&copied)?.write_at(&bytes, 0)?;
    if read < bytes.len() || written < bytes.len() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    disk.rename(&copied, path)?;
    disk.sync_directory(path.parent().unwrap_or(path))
}

fn create_tables(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        transaction.open_table(RECORDS)?;
        let mut meta = transaction.open_table(META)?;
        if redb::ReadableTable::get(&meta, FORMAT_KEY)?.is_none() {
            meta.insert(FORMAT_KEY, sealed(FORMAT_KEY, &[FORMAT_VERSION]).as_slice())?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn write_position(transaction: &redb::WriteTransaction, position: &Position) -> Result<(), redb::Error> {
    let mut meta = transaction.open_table(META)?;
    meta.insert(APPLIED_KEY, sealed(APPLIED_KEY, &position.to_bytes()).as_slice())?;
    Ok(())
}

fn write_rows(transaction: &redb::WriteTransaction, rows: &[Row]) -> Result<(), redb::Error> {
    let mut records = transaction.open_table(RECORDS)?;
    let mut meta = transaction.open_table(META)?;
    let mut rest = rows;
    while !rest.is_empty() {
        // Runs of records go in through a cursor at the end of the table: half the work of single inserts.
        let run = rest.iter().take_while(|row| matches!(row, Row::Record(..))).count();
        let (ahead, behind) = rest.split_at(run);
        for chunk in ahead.chunks(APPEND_ROWS_MAX) {
            append_records(&mut records, chunk)?;
        }
        rest = behind;
        let Some((row, behind)) = rest.split_first() else { break };
        rest = behind;
        match row {
            Row::Record(revision, bytes) => {
                records.insert(record_key(*revision), bytes.as_ref())?;
            }
            Row::DeleteRecord(revision) => {
                records.remove(record_key(*revision))?;
            }
            Row::Meta(key, _) if planted::is(Bug::RevisionLeftOut) && key == "revision" && compacts(rows) => {
            }
            Row::Meta(key, value) => {
                let key = store_key(key);
                meta.insert(key.as_slice(), sealed(&key, value).as_slice())?;
            }
            Row::DeleteMeta(key) => {
                meta.remove(store_key(key).as_slice())?;
            }
        }
    }
    Ok(())
}

fn compacts(rows: &[Row]) -> bool {
    rows.iter().any(|row| matches!(row, Row::DeleteRecord(_)))
}

fn append_records(
    records: &mut redb::Table<'_, u128, &'static [u8]>,
    rows: &[Row],
) -> Result<(), redb::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut cursor = records.upper_bound_mut(Bound::<u128>::Unbounded)?;
    for row in rows {
        let Row::Record(revision, bytes) = row else { continue };
        match cursor.insert_before(record_key(*revision), bytes.as_ref()) {
            Ok(()) => {}
            Err(redb::CursorError::UnorderedKey) => {
                panic!("record {revision} leaves the store after a later one: mvcc breaks its order")
            }
            Err(redb::CursorError::Storage(error)) => return Err(error.into()),
            Err(error) => return Err(redb::Error::Corrupted(error.to_string())),
        }
    }
    cursor.close()?;
    Ok(())
}

fn store_key(name: &[u8]) -> Vec<u8> {
    [STORE_PREFIX, name].concat()
}

fn record_key(revision: Revision) -> u128 {
    let main = u128::try_from(revision.main).unwrap_or(0);
    let sub = u128::try_from(revision.sub).unwrap_or(0);
    main << 64 | sub
}

fn revision(key: u128) -> Revision {
    let part = |bits: u128| i64::try_from(bits & u128::from(u64::MAX)).unwrap_or(i64::MAX);
    Revision { main: part(key >> 64), sub: part(key) }
}

/// A metadata row: CRC-32C over key and value, then the value. redb does not notice flipped bits.
fn sealed(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() + 4);
    out.put_u32_le(crc32c::crc32c_append(crc32c::crc32c(key), value));
    out.put_slice(value);
    out
}

fn unsealed(key: &[u8], stored: &[u8]) -> Option<Bytes> {
    let (sum, value) = stored.split_first_chunk::<4>()?;
    (u32::from_le_bytes(*sum) == crc32c::crc32c_append(crc32c::crc32c(key), value))
        .then(|| Bytes::copy_from_slice(value))
}

#[cfg(test)]
mod crash_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft_types::log_id;

    fn open(path: &Path) -> StateFile {
        let disk: Arc<dyn Disk> = Arc::new(wal::RealDisk::new());
        StateFile::open(&disk, path, 1 << 20).unwrap()
    }

    fn record(main: i64, sub: i64, text: &str) -> Row {
        Row::Record(Revision { main, sub }, Bytes::copy_from_slice(text.as_bytes()))
    }

    fn position(index: u64) -> Position {
        Position { applied: Some(log_id(1, index)), removed: vec![7], ..Position::default() }
    }

    #[test]
    fn rows_come_back_in_revision_order_with_their_position() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.redb");
        let file = open(&path);
        assert_eq!(file.position().unwrap(), Position::default());
        let meta = Row::Meta(Bytes::from_static(b"alarm"), Bytes::from_static(b"none"));
        file.write(&[record(2, 0, "a"), record(2, 1, "b"), meta, record(3, 0, "c")], &position(5), false)
            .unwrap();
        file.write(&[Row::DeleteRecord(Revision { main: 2, sub: 0 }), record(4, 0, "d")], &position(6), true)
            .unwrap();
        drop(file);

        let file = Arc::new(open(&path));
        let view = file.view().unwrap();
        assert_eq!(view.position, position(6));
        assert_eq!(view.meta().unwrap(), [(Bytes::from_static(b"alarm"), Bytes::from_static(b"none"))]);
        let records: Vec<_> = view.records().unwrap().map(|row| row.unwrap().1).collect();
        assert_eq!(records, ["b", "c", "d"]);
        assert_eq!(file.read(Revision { main: 3, sub: 0 }).unwrap().unwrap(), "c");
        assert_eq!(file.read(Revision { main: 2, sub: 0 }).unwrap(), None);
        let scan = |rows_max, size_bytes_max| {
            let bound = ScanBound { rows_max, size_bytes_max };
            let scanned = file.scan(Revision { main: 3, sub: 0 }, bound).unwrap();
            (scanned.rows.len(), scanned.is_last)
        };
        assert_eq!(
            [scan(1, 100), scan(9, 1), scan(9, 2), scan(9, 3)],
            [(1, false), (1, false), (2, false), (2, true)]
        );
    }

    #[test]
    fn a_view_does_not_move_while_the_file_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let file = Arc::new(open(&directory.path().join("s")));
        file.write(&[record(2, 0, "a")], &position(1), false).unwrap();
        let view = file.view().unwrap();
        file.write(&[record(3, 0, "b")], &position(2), true).unwrap();
        assert_eq!(view.records().unwrap().count(), 1);
        assert_eq!(view.position, position(1));
    }

    #[test]
    fn a_flipped_bit_in_a_metadata_row_is_noticed() {
        let mut stored = sealed(b"k", b"value");
        assert_eq!(unsealed(b"k", &stored).unwrap(), "value");
        assert_eq!(unsealed(b"other", &stored), None);
        stored[6] ^= 1;
        assert_eq!(unsealed(b"k", &stored), None);
    }
}
