//! openraft's log on our write-ahead log, with the recent entries in memory.
//!
//! Invariants: an entry leaves the memory tail only when it is both applied and on this member's disk, so that apply
//! never reads a file. openraft hears `io_completed` only from the log's owner thread, after the fsync. The log on disk
//! is cut only behind the durable applied index (`purge` waits for it): openraft purges right after it has *ordered* a
//! snapshot to be installed, not after it was installed.
//! Not here: bytes on disk (wal), when to purge (purge.rs).

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use wal::Wal;

use crate::codec;
use crate::fatal::{Fatal, FatalReason};
use crate::planted::{self, Bug};
use crate::raft_types::*;
use crate::surroundings::Surroundings;

/// Replicated in one message at most; more entries travel in the next one.
const READ_SIZE_BYTES_MAX: u64 = 4 << 20;

#[derive(Clone)]
pub(crate) struct LogStore {
    shared: Arc<Shared>,
}

struct Shared {
    wal: Wal,
    inner: Mutex<Inner>,
    /// Next index to apply: what is below may leave the memory tail.
    applied_next: AtomicU64,
    /// Next index after the durable applied one.
    durable_next: watch::Receiver<u64>,
    /// Payload bytes handed to the log and not yet on disk.
    unwritten_size_bytes: AtomicU64,
    /// Truncations that are not on disk yet.
    truncating: watch::Sender<usize>,
    fatal: Fatal,
    surroundings: Surroundings,
}

/// What a member's log holds, for checks of what must hold between members. Places are a term and an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogView {
    pub vote_term: u64,
    pub purged: Option<(u64, u64)>,
    pub committed: Option<(u64, u64)>,
    pub last: Option<(u64, u64)>,
    /// Entries below this index are on disk.
    pub flushed_next: u64,
    /// Without gaps, ascending.
    pub newest: Vec<(u64, u64)>,
}

struct Inner {
    tail: VecDeque<wal::Entry>,
    tail_size_bytes: usize,
    tail_size_bytes_max: usize,
    last: Option<LogId>,
    purged: Option<LogId>,
    vote: Option<Vote>,
    committed: Option<LogId>,
    /// Everything below is on disk.
    flushed_next: u64,
    /// Grows with each truncation: what was flushed before it says nothing about what comes after.
    epoch: u64,
}

impl LogStore {
    /// `applied`: what the state file holds. Nothing in `recovered` contradicts it (`cut_contradiction`).
    pub(crate) fn new(
        wal: Wal,
        recovered: wal::Recovered,
        applied: Option<LogId>,
        durable_next: watch::Receiver<u64>,
        tail_size_bytes_max: usize,
        fatal: Fatal,
        surroundings: Surroundings,
    ) -> Result<LogStore, codec::CodecError> {
        let applied_next = next_index(applied.as_ref());
        let vote = recovered.vote.map(|mut bytes| codec::take_vote(&mut bytes)).transpose()?;
        let committed =
            recovered.committed.map(|mut bytes| codec::take_log_id(&mut bytes)).transpose()?.flatten();
        let purged =
            recovered.purged.map(|(_, mut bytes)| codec::take_log_id(&mut bytes)).transpose()?.flatten();
        let last = recovered.entries.last().map(|entry| log_id(entry.term, entry.index)).or(purged);
        let committed = committed.filter(|hint| is_held(*hint, &recovered.entries, purged, applied));
        let flushed_next = next_index(last.as_ref());
        let mut inner = Inner {
            tail_size_bytes: recovered.entries.iter().map(|entry| entry.payload.len()).sum(),
            tail: recovered.entries.into(),
            tail_size_bytes_max,
            last,
            purged,
            vote,
            committed,
            flushed_next,
            epoch: 0,
        };
        inner.evict(applied_next);
        let shared = Shared {
            wal,
            inner: Mutex::new(inner),
            applied_next: AtomicU64::new(applied_next),
            durable_next,
            unwritten_size_bytes: AtomicU64::new(0),
            truncating: watch::Sender::new(0),
            fatal,
            surroundings,
        };
        Ok(LogStore { shared: Arc::new(shared) })
    }

    /// What `cut_contradiction` found is cut off on disk, too, before anything is appended in its place.
    pub(crate) fn cut(&self, from_index: u64) {
        tracing::warn!(index = from_index, "the log contradicts what was committed from here on: cut off");
        self.truncate_disk(from_index);
    }

    /// To be called by the state machine after it has applied everything below `next`.
    pub(crate) fn applied(&self, next: u64) {
        self.shared.applied_next.store(next, Ordering::Release);
    }

    pub(crate) fn unwritten_size_bytes(&self) -> u64 {
        self.shared.unwritten_size_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn committed(&self) -> Option<LogId> {
        self.shared.inner.lock().committed
    }

    pub(crate) fn purged(&self) -> Option<LogId> {
        self.shared.inner.lock().purged
    }

    /// With at most so many of the entries that memory holds.
    pub(crate) fn view(&self, newest_max: usize) -> LogView {
        let inner = self.shared.inner.lock();
        let place = |id: &LogId| (id.leader_id.term, id.index);
        let skipped = inner.tail.len().saturating_sub(newest_max);
        LogView {
            vote_term: inner.vote.map_or(0, |vote| vote.leader_id.term),
            purged: inner.purged.as_ref().map(place),
            committed: inner.committed.as_ref().map(place),
            last: inner.last.as_ref().map(place),
            flushed_next: inner.flushed_next,
            newest: inner.tail.iter().skip(skipped).map(|entry| (entry.term, entry.index)).collect(),
        }
    }

    pub(crate) fn wal(&self) -> &Wal {
        &self.shared.wal
    }

    /// Resolves when what was cut off is cut off on disk, too. A snapshot's state must not become the member's own before:
    /// a crash in between would leave a log that contradicts it.
    pub(crate) async fn truncated(&self) {
        let mut truncating = self.shared.truncating.subscribe();
        // The sender lives as long as this does.
        let _none = truncating.wait_for(|under_way| *under_way == 0).await;
    }

    /// Makes the log end at what the state file holds, if it ends before: a snapshot was installed, and the log not cut.
    pub(crate) async fn reach(&self, applied: Option<LogId>) -> io::Result<()> {
        let behind = next_index(self.shared.inner.lock().last.as_ref()) < next_index(applied.as_ref());
        match applied {
            Some(applied) if behind => RaftLogStorage::purge(&mut self.clone(), applied).await,
            Some(_) | None => Ok(()),
        }
    }

    /// Notes that entries which were lost are not waited for any more.
    pub(crate) async fn healed(&self) -> io::Result<()> {
        let (sender, healed) = oneshot::channel();
        self.shared.wal.healed(Box::new(move |result| drop(sender.send(result))));
        healed.await.map_err(|_| io::Error::other("the log stopped"))?
    }

    /// Writes an entry before openraft runs: the first one of a new cluster, or the one that makes a cluster of one.
    pub(crate) async fn bootstrap(&self, entry: RaftEntry) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        self.append_entries([entry], move |result| {
            let _ = sender.send(result);
        });
        receiver.await.map_err(|_| io::Error::other("the log stopped"))?
    }

    /// Entries `start..end` as far as memory has them, for replay at start without openraft.
    pub(crate) async fn read(&self, start: u64, end: u64) -> io::Result<Vec<RaftEntry>> {
        self.read_range(start, end, u64::MAX).await
    }

    pub(crate) fn append_entries(
        &self,
        entries: impl IntoIterator<Item = RaftEntry>,
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) {
        let (batch, epoch) = {
            let mut inner = self.shared.inner.lock();
            let batch: Vec<wal::Entry> = entries.into_iter().map(encoded).collect();
            for entry in &batch {
                inner.push(entry.clone());
            }
            inner.evict(self.shared.applied_next.load(Ordering::Acquire));
            (batch, inner.epoch)
        };
        let next = batch.last().map(|entry| entry.index + 1);
        let size = batch.iter().map(|entry| entry.payload.len() as u64).sum();
        self.shared.unwritten_size_bytes.fetch_add(size, Ordering::Relaxed);
        let shared = self.shared.clone();
        let on_disk = move |result: io::Result<()>| {
            shared.unwritten_size_bytes.fetch_sub(size, Ordering::Relaxed);
            match (&result, next) {
                (Ok(()), Some(next)) => shared.inner.lock().flushed(next, epoch),
                (Ok(()), None) => {}
                (Err(error), _) => shared.fatal.set(FatalReason::Log(error.to_string())),
            }
            done(result);
        };
        self.shared.wal.append(batch, Box::new(on_disk));
    }

    async fn read_range(&self, start: u64, end: u64, size_bytes_max: u64) -> io::Result<Vec<RaftEntry>> {
        let mut entries = Vec::new();
        let mut size = 0;
        let mut next = start;
        while next < end && size < size_bytes_max {
            let found = {
                let inner = self.shared.inner.lock();
                inner.in_tail(next, end, size_bytes_max - size)
            };
            let found = match found {
                Tail::Entries(found) => found,
                Tail::Beyond => break,
                Tail::OnDisk { until } => self.read_disk(next, end.min(until), size_bytes_max - size).await?,
            };
            if found.is_empty() {
                break;
            }
            next += found.len() as u64;
            for entry in found {
                size += entry.payload.len() as u64;
                entries.push(codec::entry(entry.term, entry.index, entry.payload)?);
            }
        }
        Ok(entries)
    }

    async fn read_disk(&self, start: u64, end: u64, size_bytes_max: u64) -> io::Result<Vec<wal::Entry>> {
        let wal = self.shared.wal.clone();
        let read =
            move || wal.read(start..end, size_bytes_max.min(READ_SIZE_BYTES_MAX)).map_err(io::Error::other);
        self.shared.surroundings.blocking(read).await.map_err(io::Error::other)?
    }

    /// Not awaited: requests to the log keep their order, and what is appended next is durable only with this.
    fn truncate_disk(&self, from_index: u64) {
        let under_way = Truncating::begin(self.shared.clone());
        let done = self.done("truncate");
        self.shared.wal.truncate(
            from_index,
            Box::new(move |result| {
                done(result);
                drop(under_way);
            }),
        );
    }

    fn done(&self, what: &'static str) -> wal::Done {
        let fatal = self.shared.fatal.clone();
        Box::new(move |result| {
            if let Err(error) = result {
                fatal.set(FatalReason::Log(format!("{what}: {error}")));
            }
        })
    }
}

/// Counts a truncation until it is on disk, or the log is gone.
struct Truncating(Arc<Shared>);

impl Truncating {
    fn begin(shared: Arc<Shared>) -> Truncating {
        shared.truncating.send_modify(|under_way| *under_way += 1);
        Truncating(shared)
    }
}

impl Drop for Truncating {
    fn drop(&mut self) {
        self.0.truncating.send_modify(|under_way| *under_way -= 1);
    }
}

/// Removes what contradicts the state file, which holds only what was committed: a snapshot was installed, and the member
/// ended before the log was cut for it. Answers where the log was cut, if it was.
pub(crate) fn cut_contradiction(entries: &mut Vec<wal::Entry>, applied: LogId) -> Option<u64> {
    let term = applied.leader_id.term;
    let place = match entries.iter().position(|entry| entry.index == applied.index) {
        Some(place) if entries.get(place).is_some_and(|entry| entry.term == term) => None,
        Some(place) => Some(place),
        // The log ends before what was applied. Terms never fall along a log: a later one is of a leader that failed.
        None if entries.last().is_some_and(|entry| entry.index < applied.index) => {
            entries.iter().position(|entry| entry.term > term)
        }
        None => None,
    };
    let from_index = entries.get(place?)?.index;
    entries.truncate(place?);
    Some(from_index)
}

/// Whether a commit hint still speaks of this log. It is written behind the entry that it names, but that may have been
/// lost or cut since, and then nothing says that the entries in its place were ever committed.
fn is_held(hint: LogId, entries: &[wal::Entry], purged: Option<LogId>, applied: Option<LogId>) -> bool {
    if hint.index < next_index(purged.as_ref()).max(next_index(applied.as_ref())) {
        return true;
    }
    let first = entries.first().map_or(u64::MAX, |entry| entry.index);
    let place = hint.index.checked_sub(first).and_then(|place| usize::try_from(place).ok());
    place.and_then(|place| entries.get(place)).is_some_and(|entry| entry.term == hint.leader_id.term)
}

/// The one that is further along the log. Not the greater one: where entries of a failed leader are replaced, a smaller
/// index may have the later term.
pub(crate) fn further(one: Option<LogId>, other: Option<LogId>) -> Option<LogId> {
    if next_index(other.as_ref()) > next_index(one.as_ref()) { other } else { one }
}

enum Tail {
    Entries(Vec<wal::Entry>),
    /// Not in memory; the file has what is below `until`.
    OnDisk {
        until: u64,
    },
    /// Behind the end of the log.
    Beyond,
}

impl Inner {
    fn push(&mut self, entry: wal::Entry) {
        let expected = next_index(self.last.as_ref());
        // The first entry after an installed snapshot follows the snapshot, not the old tail.
        if self.last.is_some() && entry.index != expected {
            panic!("entry {} appended behind {expected}: openraft breaks the order of the log", entry.index);
        }
        if self.tail.back().is_some_and(|back| back.index + 1 != entry.index) {
            self.tail.clear();
            self.tail_size_bytes = 0;
        }
        self.last = Some(log_id(entry.term, entry.index));
        self.tail_size_bytes += entry.payload.len();
        self.tail.push_back(entry);
    }

    fn flushed(&mut self, next: u64, epoch: u64) {
        if epoch == self.epoch {
            self.flushed_next = self.flushed_next.max(next);
        }
    }

    fn evict(&mut self, applied_next: u64) {
        let keep_from = applied_next.min(self.flushed_next);
        while self.tail_size_bytes > self.tail_size_bytes_max {
            match self.tail.front() {
                Some(front) if front.index < keep_from => self.pop_front(),
                Some(_) | None => break,
            }
        }
    }

    fn pop_front(&mut self) {
        if let Some(entry) = self.tail.pop_front() {
            self.tail_size_bytes -= entry.payload.len();
        }
    }

    fn in_tail(&self, start: u64, end: u64, size_bytes_max: u64) -> Tail {
        if start >= next_index(self.last.as_ref()) {
            return Tail::Beyond;
        }
        let Some(front) = self.tail.front() else { return Tail::OnDisk { until: end } };
        let Some(offset) = start.checked_sub(front.index) else { return Tail::OnDisk { until: front.index } };
        let count = end.min(next_index(self.last.as_ref())).saturating_sub(start);
        let mut size = 0;
        let within = |entry: &&wal::Entry| {
            let fits = size < size_bytes_max;
            size += entry.payload.len() as u64;
            fits
        };
        let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(self.tail.len());
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        Tail::Entries(self.tail.range(offset..).take(count).take_while(within).cloned().collect())
    }

    fn truncate(&mut self, last: Option<LogId>) {
        let next = next_index(last.as_ref());
        while self.tail.back().is_some_and(|back| back.index >= next) {
            if let Some(entry) = self.tail.pop_back() {
                self.tail_size_bytes -= entry.payload.len();
            }
        }
        self.last = further(self.purged, last);
        self.flushed_next = self.flushed_next.min(next);
        self.epoch += 1;
    }

    fn purge(&mut self, upto: LogId) {
        while self.tail.front().is_some_and(|front| front.index <= upto.index) {
            self.pop_front();
        }
        self.purged = further(self.purged, Some(upto));
        if next_index(self.last.as_ref()) < next_index(Some(&upto)) {
            self.last = Some(upto);
            self.flushed_next = self.flushed_next.max(upto.index + 1);
        }
    }
}

fn encoded(entry: RaftEntry) -> wal::Entry {
    wal::Entry {
        term: entry.log_id.leader_id.term,
        index: entry.log_id.index,
        payload: codec::entry_payload_bytes(&entry.payload),
    }
}

/// `start..end` of any range of indexes.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(index) => index + 1,
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<RaftEntry>, io::Error> {
        let (start, end) = bounds(&range);
        // openraft tolerates that purged entries are missing at the front.
        let first = {
            let inner = self.shared.inner.lock();
            let kept = inner.tail.front().map_or(u64::MAX, |front| front.index);
            next_index(inner.purged.as_ref()).min(kept)
        };
        self.read_range(start.max(first), end, u64::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<RaftEntry>, io::Error> {
        self.read_range(start, end, READ_SIZE_BYTES_MAX).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared.inner.lock().vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let inner = self.shared.inner.lock();
        Ok(LogState { last_purged_log_id: inner.purged, last_log_id: inner.last })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.shared.inner.lock().vote = Some(*vote);
        let (sender, receiver) = oneshot::channel();
        let fatal = self.shared.fatal.clone();
        let done = move |result: io::Result<()>| {
            if let Err(error) = &result {
                fatal.set(FatalReason::Log(format!("save vote: {error}")));
            }
            let _ = sender.send(result);
        };
        self.shared.wal.save_vote(codec::vote_bytes(vote), Box::new(done));
        if planted::is(Bug::VoteNotSaved) {
            return Ok(());
        }
        receiver.await.map_err(|_| io::Error::other("the log stopped"))?
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.shared.inner.lock().committed = committed;
        self.shared.wal.save_committed(codec::log_id_bytes(committed.as_ref()));
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.shared.inner.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.append_entries(entries, move |result| callback.io_completed(result));
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        self.shared.inner.lock().truncate(last_log_id);
        self.truncate_disk(next_index(last_log_id.as_ref()));
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let mut durable_next = self.shared.durable_next.clone();
        durable_next
            .wait_for(|next| *next > upto.index || planted::is(Bug::PurgeAheadOfState))
            .await
            .map_err(|_| io::Error::other("the state file stopped before the log could be cut"))?;
        self.shared.inner.lock().purge(upto);
        let payload: Bytes = codec::log_id_bytes(Some(&upto));
        self.shared.wal.purge(upto.index, payload, self.done("purge"));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(places: &[(u64, u64)]) -> Vec<wal::Entry> {
        let entry =
            |(term, index): &(u64, u64)| wal::Entry { term: *term, index: *index, payload: Bytes::new() };
        places.iter().map(entry).collect()
    }

    #[test]
    fn a_commit_hint_counts_only_for_the_entry_that_it_names() {
        let log = entries(&[(1, 5), (1, 6), (4, 7)]);
        let held = |hint| is_held(hint, &log, Some(log_id(1, 4)), Some(log_id(1, 5)));
        assert!(held(log_id(1, 3)) && held(log_id(1, 5)) && held(log_id(1, 6)) && held(log_id(4, 7)));
        assert!(!held(log_id(2, 7)), "another entry is in its place");
        assert!(
            !held(log_id(2, 9)),
            "an earlier term, but further than the log: nothing here is known to be committed"
        );
        assert!(!held(log_id(5, 8)));
        assert!(!is_held(log_id(1, 0), &[], None, None));
    }

    #[test]
    fn a_log_is_cut_where_what_was_applied_says_something_else() {
        let cut = |places: &[(u64, u64)], applied| {
            let mut log = entries(places);
            (cut_contradiction(&mut log, applied), log.len())
        };
        assert_eq!(cut(&[(1, 1), (1, 2), (3, 3)], log_id(1, 2)), (None, 3));
        assert_eq!(cut(&[(1, 1), (1, 2), (1, 3)], log_id(2, 2)), (Some(2), 1));
        assert_eq!(
            cut(&[(1, 1), (1, 2)], log_id(2, 9)),
            (None, 2),
            "may well be what the snapshot begins with"
        );
        assert_eq!(cut(&[(1, 1), (7, 2), (7, 3)], log_id(6, 9)), (Some(2), 1), "of a leader that failed");
        assert_eq!(cut(&[(2, 12)], log_id(1, 9)), (None, 1));
        assert_eq!(cut(&[], log_id(1, 9)), (None, 0));
    }

    /// Leader 7 left an entry at index 30 here alone; the snapshot of a later leader ends with index 40 of term 6.
    #[test]
    fn a_snapshot_replaces_a_shorter_log_of_a_later_term() {
        let mut inner = Inner {
            tail: entries(&[(5, 29), (7, 30)]).into(),
            tail_size_bytes: 0,
            tail_size_bytes_max: 1 << 20,
            last: Some(log_id(7, 30)),
            purged: Some(log_id(5, 28)),
            vote: None,
            committed: None,
            flushed_next: 31,
            epoch: 0,
        };
        inner.purge(log_id(6, 40));
        assert_eq!((inner.last, inner.purged), (Some(log_id(6, 40)), Some(log_id(6, 40))));
        inner.push(entries(&[(8, 41)]).remove(0));
        assert_eq!(inner.last, Some(log_id(8, 41)));
        assert_eq!(inner.tail.len(), 1);
    }
}
