//! A whole state on its way from one member to another. Drawn in docs/formats.md (`## Snapshot stream`).
//!
//! The sender reads one frozen view of its state file, row by row; the receiver writes a fresh file beside its own,
//! fsyncs it and rebuilds the key space from it before openraft hears of the snapshot.
//! Invariants: every chunk carries its checksum, the last one the number of rows; a receiver that misses anything throws
//! its file away. Not here: gRPC (peers/), swapping the file (state_machine.rs).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use mvcc::{Revision, Row, Store};
use tokio::time::Instant;
use wal::Disk;

use crate::codec::{self, CodecError};
use crate::planted::{self, Bug};
use crate::raft_types::Vote;
use crate::state::{self, RestoreError};
use crate::state_file::{NewStateFile, Position, StateFile, StateFileError, StateView};

const CHUNK_SIZE_BYTES: usize = 1 << 20;
const STREAM_VERSION: u8 = 1;

const FRAME_HEADER: u8 = 0;
const FRAME_ROWS: u8 = 1;
const FRAME_END: u8 = 2;

const ROW_META: u8 = 0;
const ROW_RECORD: u8 = 1;

/// What openraft carries around as snapshot data.
pub(crate) enum SnapshotBody {
    Outgoing(StateView),
    Incoming(Box<Prepared>),
}

/// A received state, ready to replace the member's own.
pub(crate) struct Prepared {
    pub store: Store,
    pub position: Position,
    pub file: StateFile,
    /// How long it took to make the file durable.
    pub synced_in: Duration,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error(transparent)]
    StateFile(#[from] StateFileError),
    #[error(transparent)]
    Restore(#[from] RestoreError),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("snapshot stream is damaged: {0}")]
    Damaged(&'static str),
    #[error("snapshot stream has version {0}")]
    Version(u8),
    #[error("the other side is gone")]
    Gone,
}

/// A view on its way out, frame by frame. Each frame reads the file, so it blocks.
pub(crate) struct Export {
    rows: Box<dyn Iterator<Item = Result<Row, StateFileError>> + Send>,
    header: Option<Bytes>,
    chunk: Chunk,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Rows,
    End,
    Done,
}

impl Export {
    pub(crate) fn new(view: &StateView, vote: &Vote) -> Result<Export, SnapshotError> {
        let mut header = vec![STREAM_VERSION];
        codec::put_vote(&mut header, vote);
        header.extend_from_slice(&view.position.to_bytes());
        let mut meta = view.meta()?;
        if planted::is(Bug::SnapshotWithoutLeases) {
            meta.retain(|(key, _)| !key.starts_with(b"lease/"));
        }
        let meta = meta.into_iter().map(|(key, value)| Ok(Row::Meta(key, value)));
        let records = view.records()?.map(|row| row.map(|(revision, bytes)| Row::Record(revision, bytes)));
        Ok(Export {
            rows: Box::new(meta.chain(records)),
            header: Some(frame(FRAME_HEADER, &header)),
            chunk: Chunk::default(),
            stage: Stage::Rows,
        })
    }

    /// `None` after the last one.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, SnapshotError> {
        if let Some(header) = self.header.take() {
            return Ok(Some(header));
        }
        while self.stage == Stage::Rows {
            match self.rows.next().transpose()? {
                Some(Row::Meta(key, value)) => self.chunk.meta(&key, &value),
                Some(Row::Record(revision, bytes)) => self.chunk.record(revision, &bytes),
                // A view has none.
                Some(Row::DeleteMeta(_) | Row::DeleteRecord(_)) => {}
                None => self.stage = Stage::End,
            }
            if self.chunk.is_full() || (self.stage == Stage::End && !self.chunk.rows.is_empty()) {
                return Ok(Some(self.chunk.take()));
            }
        }
        if self.stage == Stage::Done {
            return Ok(None);
        }
        self.stage = Stage::Done;
        Ok(Some(frame(FRAME_END, &self.chunk.count.to_le_bytes())))
    }
}

#[derive(Default)]
struct Chunk {
    rows: Vec<u8>,
    count: u64,
}

impl Chunk {
    fn meta(&mut self, key: &[u8], value: &[u8]) {
        self.rows.put_u8(ROW_META);
        self.sized(key);
        self.sized(value);
        self.count += 1;
    }

    fn record(&mut self, revision: Revision, bytes: &[u8]) {
        self.rows.put_u8(ROW_RECORD);
        self.rows.put_i64_le(revision.main);
        self.rows.put_i64_le(revision.sub);
        self.sized(bytes);
        self.count += 1;
    }

    fn sized(&mut self, bytes: &[u8]) {
        self.rows.put_u32_le(u32::try_from(bytes.len()).expect("requests are limited far below 4 GiB"));
        self.rows.put_slice(bytes);
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= CHUNK_SIZE_BYTES
    }

    fn take(&mut self) -> Bytes {
        let bytes = frame(FRAME_ROWS, &self.rows);
        self.rows.clear();
        bytes
    }
}

/// Kind, CRC-32C over kind and body, body.
pub(crate) fn frame(kind: u8, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(body.len() + 5);
    out.put_u8(kind);
    out.put_u32_le(crc32c::crc32c_append(crc32c::crc32c(&[kind]), body));
    out.put_slice(body);
    out.freeze()
}

pub(crate) fn opened(mut frame: Bytes) -> Result<(u8, Bytes), SnapshotError> {
    let damaged = || SnapshotError::Damaged("frame");
    let kind = frame.try_get_u8().map_err(|_| damaged())?;
    let sum = frame.try_get_u32_le().map_err(|_| damaged())?;
    if sum != crc32c::crc32c_append(crc32c::crc32c(&[kind]), &frame) {
        return Err(SnapshotError::Damaged("checksum"));
    }
    Ok((kind, frame))
}

/// The body of a frame with these rows; for fuzzing.rs. Rows of other kinds are in no snapshot.
pub(crate) fn row_bytes(rows: &[Row]) -> Vec<u8> {
    let mut chunk = Chunk::default();
    for row in rows {
        match row {
            Row::Meta(key, value) => chunk.meta(key, value),
            Row::Record(revision, bytes) => chunk.record(*revision, bytes),
            Row::DeleteRecord(_) | Row::DeleteMeta(_) => {}
        }
    }
    chunk.rows
}

pub(crate) fn rows(mut body: Bytes) -> Result<Vec<Row>, SnapshotError> {
    let damaged = |_| SnapshotError::Damaged("row");
    let mut rows = Vec::new();
    while body.has_remaining() {
        match body.get_u8() {
            ROW_META => {
                let key = sized(&mut body)?;
                rows.push(Row::Meta(key, sized(&mut body)?));
            }
            ROW_RECORD => {
                let main = body.try_get_i64_le().map_err(damaged)?;
                let sub = body.try_get_i64_le().map_err(damaged)?;
                rows.push(Row::Record(Revision { main, sub }, sized(&mut body)?));
            }
            _ => return Err(SnapshotError::Damaged("row")),
        }
    }
    Ok(rows)
}

fn sized(body: &mut Bytes) -> Result<Bytes, SnapshotError> {
    let damaged = || SnapshotError::Damaged("row");
    let length = body.try_get_u32_le().map_err(|_| damaged())? as usize;
    if body.len() < length {
        return Err(damaged());
    }
    Ok(body.split_to(length))
}

/// A stream on its way in, frame by frame. Each frame writes the file, so it blocks.
pub(crate) struct Import {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    cache_size_bytes: usize,
    begun: Option<Begun>,
}

struct Begun {
    vote: Vote,
    position: Position,
    file: NewStateFile,
    count: u64,
    /// The last frame was seen.
    complete: bool,
}

impl Import {
    pub(crate) fn new(disk: Arc<dyn Disk>, path: PathBuf, cache_size_bytes: usize) -> Import {
        Import { disk, path, cache_size_bytes, begun: None }
    }

    pub(crate) fn take(&mut self, frame: Bytes) -> Result<(), SnapshotError> {
        let (kind, mut body) = opened(frame)?;
        let Some(begun) = &mut self.begun else {
            if kind != FRAME_HEADER {
                return Err(SnapshotError::Damaged("no header"));
            }
            self.begun = Some(self.begin(body)?);
            return Ok(());
        };
        match kind {
            _ if begun.complete => return Err(SnapshotError::Damaged("end")),
            FRAME_ROWS => {
                let rows = rows(body)?;
                begun.count += rows.len() as u64;
                begun.file.add(rows)?;
            }
            FRAME_END if body.try_get_u64_le() == Ok(begun.count) => begun.complete = true,
            _ => return Err(SnapshotError::Damaged("end")),
        }
        Ok(())
    }

    fn begin(&self, mut body: Bytes) -> Result<Begun, SnapshotError> {
        match body.try_get_u8() {
            Ok(STREAM_VERSION) => {}
            Ok(version) => return Err(SnapshotError::Version(version)),
            Err(_) => return Err(SnapshotError::Damaged("header")),
        }
        let vote = codec::take_vote(&mut body)?;
        let position = Position::from_bytes(body)?;
        let file = NewStateFile::create(&*self.disk, &self.path, self.cache_size_bytes)?;
        Ok(Begun { vote, position, file, count: 0, complete: false })
    }

    /// After the last frame: fsyncs, and rebuilds the key space from what was written.
    pub(crate) fn finish(self, limits: mvcc::Limits) -> Result<(Vote, Prepared), SnapshotError> {
        let begun = self.begun.filter(|begun| begun.complete).ok_or(SnapshotError::Gone)?;
        let Begun { vote, position, file, .. } = begun;
        let begin = Instant::now();
        if planted::is(Bug::SnapshotNamedFirst) {
            let target = self.path.with_extension("");
            let named =
                self.disk.rename(&self.path, &target).and_then(|()| self.disk.rename(&target, &self.path));
            named.map_err(|source| StateFileError::Io { path: self.path.clone(), source })?;
        }
        file.finish(&position)?;
        let synced_in = begin.elapsed();
        let file = StateFile::open(&self.disk, &self.path, self.cache_size_bytes)?;
        let store = state::restore(&file.view()?, limits)?;
        Ok((vote, Prepared { store, position, file, synced_in }))
    }
}

/// The view as frames, for a test that has no network.
#[cfg(test)]
fn frames(view: &StateView, vote: &Vote) -> Vec<Bytes> {
    let mut export = Export::new(view, vote).unwrap();
    std::iter::from_fn(|| export.next().unwrap()).collect()
}

/// Snapshots that leave at the same time; each pins pages of the state file.
pub(crate) fn export_slots() -> Arc<tokio::sync::Semaphore> {
    Arc::new(tokio::sync::Semaphore::new(2))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::raft_types::log_id;

    fn disk() -> Arc<dyn Disk> {
        Arc::new(wal::RealDisk::new())
    }

    fn filled(directory: &Path) -> StateFile {
        let file = StateFile::open(&disk(), &directory.join("s"), 1 << 20).unwrap();
        let mut store = Store::new(mvcc::Limits::default());
        for n in 0..2_000_u64 {
            let put = mvcc::Put {
                key: Bytes::from(format!("key{n:05}")),
                value: Bytes::from(vec![7; 1_000]),
                ..mvcc::Put::default()
            };
            let proposal = mvcc::Proposal {
                id: n,
                member: 1,
                caller: mvcc::Caller::System,
                command: mvcc::Command::Put(put),
            };
            store.apply(&file, 1, &proposal);
        }
        let position = Position { applied: Some(log_id(1, 2_000)), removed: vec![9], ..Position::default() };
        file.write(&store.take_rows(), &position, true).unwrap();
        file
    }

    fn receive(directory: &Path, frames: Vec<Bytes>) -> Result<(Vote, Prepared), SnapshotError> {
        let mut import = Import::new(disk(), directory.join("incoming"), 1 << 20);
        for frame in frames {
            import.take(frame)?;
        }
        import.finish(mvcc::Limits::default())
    }

    #[test]
    fn a_state_arrives_as_it_left() {
        let directory = tempfile::tempdir().unwrap();
        let file = filled(directory.path());
        let view = file.view().unwrap();
        let frames = frames(&view, &Vote::new_committed(3, 2));
        assert!(frames.len() > 3, "several chunks");
        let (vote, prepared) = receive(directory.path(), frames).unwrap();
        assert_eq!(vote, Vote::new_committed(3, 2));
        assert_eq!(prepared.position, view.position);
        let original = state::restore(&view, mvcc::Limits::default()).unwrap();
        assert_eq!(prepared.store.state_hash(), original.state_hash());
        assert_eq!(prepared.store.revision(), 2_001);
    }

    #[test]
    fn a_stream_that_is_cut_or_damaged_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let frames = frames(&filled(directory.path()).view().unwrap(), &Vote::new_committed(1, 1));
        for length in 0..frames.len() {
            assert!(receive(directory.path(), frames[..length].to_vec()).is_err(), "{length} frames");
        }
        let mut without_one = frames.clone();
        without_one.remove(1);
        assert!(receive(directory.path(), without_one).is_err());
        for victim in 0..frames.len() {
            let mut damaged = frames.clone();
            let mut bytes = damaged[victim].to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 4;
            damaged[victim] = bytes.into();
            assert!(receive(directory.path(), damaged).is_err(), "frame {victim}");
        }
    }
}
