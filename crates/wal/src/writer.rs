//! The log's only writer: turns requests into batches, one sync each, and keeps the files.
//!
//! Always holds: a callback runs after the sync that covers its request, in request order. The index shows an entry
//! only after its sync. A batch opens with a mark unless one directly precedes it, so a mark only ever speaks of
//! what an earlier sync covered. A segment gets its name after its header is synced; the directory is synced before
//! anything is acknowledged from it. Files leave oldest first, one directory sync each, so what stays is always a
//! suffix. After one failure nothing is written again.
//! Not here: what is refused (request.rs), reading a directory back (recovery.rs), threads and queues (handle.rs), spare files (spare.rs).

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::api::{Config, Done};
use crate::damage::Note;
use crate::disk::{DirectoryLock, Disk, DiskFile};
use crate::handle::Shared;
use crate::index::Segment;
use crate::planted::{self, Bug};
use crate::record::{self, RecordKind, Seed};
use crate::request::{Bounds, Request};
use crate::segment::{self, write_full};
use crate::spare::Spares;
use crate::vote_file::{Place, Saved, VoteFile};

/// A batch is written once it has this many bytes, though more may wait.
const BATCH_SIZE_BYTES_MAX: usize = 4 << 20;
/// Largest piece of zeros written in the background at a time.
const FILL_SLICE_BYTES_MAX: u64 = 256 << 10;
/// Zeros behind each batch, so that the end of a log in a recycled file does not look like a torn record.
const TERMINATOR_SIZE_BYTES: u64 = record::HEADER_SIZE_BYTES as u64;

/// What killed the log; every later request gets it.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    kind: io::ErrorKind,
    message: String,
}

impl Failure {
    fn new(action: &str, path: &Path, error: &io::Error) -> Failure {
        Failure { kind: error.kind(), message: format!("{action} {}: {error}", path.display()) }
    }

    pub(crate) fn to_error(&self) -> io::Error {
        io::Error::new(self.kind, self.message.clone())
    }
}

/// What each new segment repeats, so that older ones can go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Carried {
    pub(crate) vote: Option<Bytes>,
    pub(crate) committed: Option<Bytes>,
    pub(crate) purged: Option<(u64, Bytes)>,
    pub(crate) loss: Option<Note>,
}

pub(crate) struct Active {
    pub(crate) sequence: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) seed: Seed,
    /// Where the next record goes.
    pub(crate) position: u64,
    /// Up to here the file's blocks exist.
    pub(crate) filled_bytes: u64,
}

enum Change {
    Append { index: u64, offset: u32 },
    Truncate(u64),
    Purge(u64),
}

#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    changes: Vec<Change>,
    /// In request order; a request that was refused carries its error.
    dones: Vec<(Done, Option<io::Error>)>,
    /// Payload of the requests in it.
    queued_bytes: u64,
}

pub(crate) struct Writer {
    pub(crate) disk: Box<dyn Disk>,
    pub(crate) config: Config,
    pub(crate) shared: Arc<Shared>,
    /// `None`: no segment holds anything.
    pub(crate) active: Option<Active>,
    /// Above all that the directory has.
    pub(crate) next_sequence: u64,
    pub(crate) carried: Carried,
    /// Index of the next entry; `None`: any.
    pub(crate) next_index: Option<u64>,
    /// Nothing follows the last mark (or the carried records).
    pub(crate) marked: bool,
    /// Acknowledged data was found lost: nothing is changed until a first request, which goes on in a new segment.
    pub(crate) repair_waits: bool,
    /// Files that nobody needs, oldest first.
    pub(crate) obsolete: VecDeque<PathBuf>,
    pub(crate) spares: Spares,
    pub(crate) vote_file: VoteFile,
    /// Of a vote that the vote file does not have yet.
    vote_waits: Option<Place>,
    committed_waits: bool,
    batch: Batch,
    fill_debt_bytes: u64,
    failure: Option<Failure>,
    lock: Option<Box<dyn DirectoryLock>>,
}

impl Writer {
    pub(crate) fn new(
        disk: Box<dyn Disk>,
        lock: Box<dyn DirectoryLock>,
        config: Config,
        shared: Arc<Shared>,
    ) -> Writer {
        Writer {
            vote_file: VoteFile::new(&config.dir),
            vote_waits: None,
            disk,
            config,
            shared,
            active: None,
            next_sequence: 1,
            carried: Carried::default(),
            next_index: None,
            marked: true,
            repair_waits: false,
            obsolete: VecDeque::new(),
            spares: Spares::default(),
            committed_waits: false,
            batch: Batch::default(),
            fill_debt_bytes: 0,
            failure: None,
            lock: Some(lock),
        }
    }

    pub(crate) fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// Gives the directory free; nothing is written afterwards.
    pub(crate) fn release(&mut self) {
        self.lock = None;
    }

    /// Writes all requests in as few batches as possible and runs their callbacks.
    pub(crate) fn process(&mut self, requests: Vec<(Request, Option<Done>)>) {
        for (request, done) in requests {
            self.batch.queued_bytes += request.size_bytes();
            let accepted = match self.failure.clone() {
                Some(failure) => Err(failure),
                None => self.accept(request),
            };
            match (accepted, done) {
                (Ok(refused), Some(done)) => self.batch.dones.push((done, refused)),
                (Ok(_), None) => {}
                (Err(failure), done) => {
                    self.die(failure.clone());
                    if let Some(done) = done {
                        done(Err(failure.to_error()));
                    }
                }
            }
        }
        if self.failure.is_none()
            && let Err(failure) = self.flush()
        {
            self.die(failure);
        }
        self.pay_fill_debt();
    }

    /// Puts the request into the batch; `Some`: refused, the log is unharmed.
    fn accept(&mut self, request: Request) -> Result<Option<io::Error>, Failure> {
        let bounds = Bounds {
            segment_size_bytes: self.config.segment_size_bytes,
            next_index: self.next_index,
            purged_index: self.carried.purged.as_ref().map(|(purged, _)| *purged),
        };
        if let Some(refusal) = request.refusal(&bounds) {
            return Ok(Some(io::Error::new(io::ErrorKind::InvalidInput, refusal)));
        }
        if !matches!(request, Request::Committed(_)) {
            self.repair()?;
        }
        match request {
            Request::Append(entries) => {
                for entry in entries {
                    let offset = self.push(RecordKind::Entry, (entry.term, entry.index), &entry.payload)?;
                    self.batch.changes.push(Change::Append { index: entry.index, offset });
                    self.next_index = Some(entry.index + 1);
                }
            }
            Request::Vote(payload) => {
                let offset = self.push(RecordKind::Vote, (0, 0), &payload)?;
                self.vote_waits = self.active.as_ref().map(|active| (active.sequence, offset.into()));
                self.carried.vote = Some(payload);
            }
            Request::Committed(payload) => {
                self.carried.committed = Some(payload);
                self.committed_waits = true;
            }
            Request::Truncate(from_index) => {
                if self.next_index.is_some_and(|next| from_index < next) {
                    self.push(RecordKind::Truncate, (0, from_index), &[])?;
                    self.batch.changes.push(Change::Truncate(from_index));
                    self.next_index = Some(from_index);
                }
            }
            Request::Purge(upto_index, payload) => {
                if self.carried.purged.as_ref().is_none_or(|(purged, _)| *purged < upto_index) {
                    self.push(RecordKind::Purge, (0, upto_index), &payload)?;
                    self.batch.changes.push(Change::Purge(upto_index));
                    self.next_index = self.next_index.max(Some(upto_index + 1));
                    self.carried.purged = Some((upto_index, payload));
                }
            }
            Request::Healed => {
                self.push(RecordKind::Healed, (0, 0), &[])?;
                self.carried.loss = None;
            }
        }
        Ok(None)
    }

    /// Returns the record's offset in the segment.
    fn push(&mut self, kind: RecordKind, place: (u64, u64), payload: &[u8]) -> Result<u32, Failure> {
        let needed = record::size_bytes(payload.len()) + record::HEADER_SIZE_BYTES as u64;
        if self.room_bytes() < needed {
            self.flush()?;
            self.begin_segment()?;
        }
        if self.batch.bytes.len() >= BATCH_SIZE_BYTES_MAX {
            self.flush()?;
        }
        self.push_mark();
        self.encode(kind, place, payload)
    }

    fn push_mark(&mut self) {
        if self.batch.bytes.is_empty() && !self.marked {
            let last_index = self.next_index.map_or(0, |next| next.saturating_sub(1));
            // Cannot fail: there is an active segment, or `marked` would be true.
            let _offset = self.encode(RecordKind::Mark, (0, last_index), &[]);
        }
    }

    fn encode(&mut self, kind: RecordKind, place: (u64, u64), payload: &[u8]) -> Result<u32, Failure> {
        let Some(active) = &self.active else {
            return Err(Failure { kind: io::ErrorKind::Other, message: "no segment is open".to_owned() });
        };
        let offset =
            record::encode(&mut self.batch.bytes, active.position, active.seed, kind, place, payload);
        // A segment is at most 1 GiB.
        Ok(offset as u32)
    }

    fn room_bytes(&self) -> u64 {
        let used = |active: &Active| active.position + self.batch.bytes.len() as u64;
        self.active.as_ref().map_or(0, |active| self.config.segment_size_bytes.saturating_sub(used(active)))
    }

    /// One write, one sync, then the index and the callbacks.
    fn flush(&mut self) -> Result<(), Failure> {
        if self.batch.bytes.is_empty() {
            self.run_dones();
            return Ok(());
        }
        if self.committed_waits
            && let Some(payload) = self.carried.committed.clone()
            && self.room_bytes() >= record::size_bytes(payload.len())
        {
            self.encode(RecordKind::Committed, (0, 0), &payload)?;
            self.committed_waits = false;
        }
        if planted::is(Bug::MarkTooEarly) && self.room_bytes() >= TERMINATOR_SIZE_BYTES {
            let last_index = self.next_index.map_or(0, |next| next.saturating_sub(1));
            self.encode(RecordKind::Mark, (0, last_index), &[])?;
        }
        let acknowledged_early = planted::is(Bug::AcknowledgeBeforeSync);
        if acknowledged_early {
            self.sync_active()?; // of the batch before
            self.run_dones();
        }
        let room = self.room_bytes();
        let Some(active) = &mut self.active else { return Ok(()) };
        let size_bytes = self.batch.bytes.len() as u64;
        self.batch.bytes.resize((size_bytes + TERMINATOR_SIZE_BYTES.min(room)) as usize, 0);
        write_full(&*active.file, &self.batch.bytes, active.position)
            .map_err(|error| Failure::new("write", &active.path, &error))?;
        active.position += size_bytes;
        active.filled_bytes = active.filled_bytes.max(active.position);
        self.marked = false;
        self.fill_debt_bytes += 2 * size_bytes;
        self.batch.bytes.clear();
        self.batch.bytes.shrink_to(2 * BATCH_SIZE_BYTES_MAX);
        if !acknowledged_early {
            self.sync_active()?;
        }
        if let Some(place) = self.vote_waits.take() {
            self.save_vote(place)?;
        }
        self.publish(size_bytes);
        self.run_dones();
        Ok(())
    }

    fn sync_active(&mut self) -> Result<(), Failure> {
        let Some(active) = self.active.as_ref().filter(|_| self.config.fsync) else { return Ok(()) };
        let started = self.disk.elapsed();
        let mut synced = active.file.sync_data();
        if planted::is(Bug::SyncRetried) && synced.is_err() {
            synced = active.file.sync_data();
        }
        synced.map_err(|error| Failure::new("sync", &active.path, &error))?;
        let duration_s = self.disk.elapsed().saturating_sub(started).as_secs_f64();
        self.shared.metrics.lock().observe_fsync(duration_s);
        Ok(())
    }

    /// Writes the second copy of the vote that the log has on disk at `place`.
    fn save_vote(&mut self, place: Place) -> Result<(), Failure> {
        let Some(vote) = self.carried.vote.clone().filter(|_| !planted::is(Bug::VoteInLogOnly)) else {
            return Ok(());
        };
        let saved = Saved { place, vote };
        self.vote_file
            .save(&*self.disk, &saved, self.config.fsync)
            .map_err(|error| Failure::new("write", &self.vote_file.path, &error))
    }

    /// Writes the second copy of the vote anew, for all of the log as it is on disk now: what a failed sync left in the
    /// page cache is not believed, and an older build may have written later votes to the log alone.
    pub(crate) fn renew_vote_file(&mut self) -> Result<(), Failure> {
        match self.active.as_ref().map(|active| (active.sequence, active.position)) {
            Some(place) => self.save_vote(place),
            None => Ok(()),
        }
    }

    fn publish(&mut self, size_bytes: u64) {
        let mut index = self.shared.index.write();
        for change in self.batch.changes.drain(..) {
            match change {
                Change::Append { index: entry, offset } => index.append(entry, offset),
                Change::Truncate(from_index) => index.truncate(from_index),
                Change::Purge(upto_index) => index.purge(upto_index),
            }
        }
        drop(index);
        self.collect_obsolete();
        let mut metrics = self.shared.metrics.lock();
        metrics.written_bytes += size_bytes;
        metrics.batches += 1;
    }

    /// Takes the segments that nobody needs out of the index; `background` recycles them.
    pub(crate) fn collect_obsolete(&mut self) {
        let mut index = self.shared.index.write();
        while let Some(segment) = index.take_obsolete() {
            self.obsolete.push_back(segment.path);
        }
        self.shared.metrics.lock().segments = index.segment_count() as u64;
    }

    fn run_dones(&mut self) {
        self.leave_queue();
        for (done, refused) in self.batch.dones.drain(..) {
            done(refused.map_or(Ok(()), Err));
        }
    }

    fn leave_queue(&mut self) {
        let bytes = std::mem::take(&mut self.batch.queued_bytes);
        let mut metrics = self.shared.metrics.lock();
        metrics.queued_bytes = metrics.queued_bytes.saturating_sub(bytes);
    }

    fn die(&mut self, failure: Failure) {
        self.leave_queue();
        if self.failure.is_none() {
            tracing::error!(error = %failure.message, "the log is dead, the process must end");
            self.shared.metrics.lock().failed = true;
            self.failure = Some(failure.clone());
        }
        for (done, refused) in self.batch.dones.drain(..) {
            done(Err(refused.unwrap_or_else(|| failure.to_error())));
        }
        self.batch = Batch::default();
    }

    /// Goes on in a new file; the batch must be empty.
    pub(crate) fn begin_segment(&mut self) -> Result<(), Failure> {
        let sequence = self.next_sequence;
        let (previous_sequence, previous_end_bytes) =
            self.active.as_ref().map_or((0, 0), |active| (active.sequence, active.position));
        let salt = self.config.salt;
        let identity = self.config.identity.map(|identity| (identity.cluster_id, identity.member_id));
        let header = segment::Header {
            sequence,
            salt,
            identity,
            first_index: self.next_index,
            previous_sequence,
            previous_end_bytes,
        };
        let path = segment::path(&self.config.dir, sequence);
        let failed = |action: &str, error: &io::Error| Failure::new(action, &path, error);
        let mut bytes = header.encode().map_err(|error| failed("encode", &io::Error::other(error)))?;
        let seed = Seed::new(sequence, salt);
        self.encode_carried(&mut bytes, seed);
        let position = bytes.len() as u64;
        let spare =
            self.spares.take(&*self.disk, &self.config.dir).map_err(|error| failed("create", &error))?;
        let mut zeros = TERMINATOR_SIZE_BYTES;
        if self.config.fsync && spare.filled_bytes < self.fill_slice_bytes() {
            // No spare was ready: begin with a slice that filling ahead can stay in front of.
            zeros = zeros.max(self.fill_slice_bytes() - position);
        }
        bytes.resize((position + zeros) as usize, 0);
        write_full(&*spare.file, &bytes, 0).map_err(|error| failed("write", &error))?;
        if self.config.fsync && !planted::is(Bug::NameBeforeHeader) {
            spare.file.sync_data().map_err(|error| failed("sync", &error))?;
        }
        self.disk.rename(&spare.path, &path).map_err(|error| failed("rename", &error))?;
        if self.config.fsync && !planted::is(Bug::DirectoryNotSynced) {
            self.disk
                .sync_directory(&self.config.dir)
                .map_err(|error| failed("sync directory of", &error))?;
        }
        let filled_bytes = spare.filled_bytes.max(position + zeros);
        let segment = Segment::new(path.clone(), Arc::clone(&spare.file), seed, self.next_index);
        self.shared.index.write().begin_segment(segment);
        self.active = Some(Active { sequence, path, file: spare.file, seed, position, filled_bytes });
        self.next_sequence = sequence + 1;
        self.marked = true;
        self.committed_waits = false;
        self.spares.unblock();
        Ok(())
    }

    fn encode_carried(&self, bytes: &mut Vec<u8>, seed: Seed) {
        if let Some(vote) = &self.carried.vote {
            record::encode(bytes, 0, seed, RecordKind::Vote, (0, 0), vote);
        }
        if let Some(committed) = &self.carried.committed {
            record::encode(bytes, 0, seed, RecordKind::Committed, (0, 0), committed);
        }
        if let Some((purged, payload)) = &self.carried.purged {
            record::encode(bytes, 0, seed, RecordKind::Purge, (0, *purged), payload);
        }
        if let Some(note) = &self.carried.loss {
            record::encode(bytes, 0, seed, RecordKind::Loss, (0, note.last_good_index), &note.encode());
        }
    }

    /// Goes on behind the damage. The new segment carries the note; from its name on the lost part is void.
    fn repair(&mut self) -> Result<(), Failure> {
        if !self.repair_waits {
            return Ok(());
        }
        self.sync_active()?;
        self.begin_segment()?;
        self.renew_vote_file()?;
        self.repair_waits = false;
        self.collect_obsolete();
        Ok(())
    }

    /// A mark of its own after idling, and a commit hint that nothing else took along; `false`: not needed.
    pub(crate) fn idle_mark(&mut self) -> bool {
        let wanted = !self.marked || self.committed_waits;
        if !wanted || self.failure.is_some() || self.repair_waits || self.active.is_none() {
            return false;
        }
        let committed = self.carried.committed.clone().filter(|_| self.committed_waits);
        let payload_bytes = committed.as_ref().map_or(0, |payload| record::size_bytes(payload.len()));
        let result = if self.room_bytes() < record::HEADER_SIZE_BYTES as u64 + payload_bytes {
            // The next segment's header is as good as a mark, and carries the hint.
            self.begin_segment()
        } else {
            self.write_mark(committed)
        };
        if let Err(failure) = result {
            self.die(failure);
        }
        true
    }

    fn write_mark(&mut self, committed: Option<Bytes>) -> Result<(), Failure> {
        let only_mark = committed.is_none();
        self.push_mark();
        if let Some(payload) = committed {
            self.committed_waits = false;
            self.encode(RecordKind::Committed, (0, 0), &payload)?;
        }
        self.flush()?;
        self.marked = only_mark;
        Ok(())
    }

    /// Under load nothing is idle: for each byte written two are filled ahead, so that the first segment of a busy
    /// log gets filled itself and leaves a filled one behind.
    fn pay_fill_debt(&mut self) {
        let slice = self.fill_slice_bytes();
        while self.fill_debt_bytes >= slice {
            self.fill_debt_bytes -= slice;
            if !self.background() {
                self.fill_debt_bytes = 0;
            }
        }
    }

    fn fill_slice_bytes(&self) -> u64 {
        FILL_SLICE_BYTES_MAX.min(self.config.segment_size_bytes)
    }

    /// One small piece of work that can wait: recycle a file, or fill a slice ahead; `false`: nothing to do.
    pub(crate) fn background(&mut self) -> bool {
        if self.failure.is_some() || self.repair_waits {
            return false;
        }
        let slice = self.fill_slice_bytes();
        let config = &self.config;
        if let Some(path) = self.obsolete.pop_front() {
            let result = self.spares.recycle(&*self.disk, config, &path);
            if let Err(error) = result {
                self.die(Failure::new("recycle", &path, &error));
            }
            return true;
        }
        if !config.fsync {
            return false;
        }
        let result = match &mut self.active {
            Some(active) if active.filled_bytes < config.segment_size_bytes => {
                let file = &*active.file;
                self.spares.fill(file, &mut active.filled_bytes, config.segment_size_bytes, slice)
            }
            _ => self.spares.prepare(&*self.disk, config, slice),
        };
        result.unwrap_or_else(|error| {
            self.die(Failure::new("fill ahead in", &self.config.dir.clone(), &error));
            false
        })
    }
}
