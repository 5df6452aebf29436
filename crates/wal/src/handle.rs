//! The cloneable handle, the queue behind it, and the owner that empties the queue.
//!
//! Always holds: requests are written in the order in which they were queued. The owner ends once `close` was called
//! or the last handle is gone, after writing what is queued. The queue has no bound of its own: who queues must
//! bound it (`Metrics::queued_bytes`), because a log that refused a vote or an entry would not be one.
//! The owner runs on a thread of its own (`open`), or wherever the caller turns it (`open_inline`): same loop, same
//! order. Not here: batches and files (writer.rs).

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};

use crate::api::{Config, Done, Entry, Metrics, OpenError, ReadError, Recovered};
use crate::disk::Disk;
use crate::index::{Index, Located, Run};
use crate::recovery;
use crate::replay;
use crate::request::Request;
use crate::segment::Window;
use crate::writer::Writer;

/// Idle time before a piece of background work; short, so that preparing goes on between bursts.
const PAUSE: Duration = Duration::from_millis(2);
/// So many pauses without a request, 10 ms, and a mark of its own is written.
const PAUSES_BEFORE_MARK: u32 = 5;
/// Entries located at once by a read.
const READ_RUN_ENTRIES_MAX: usize = 4096;
/// A read tries again when the file was recycled under it; each time the log has moved on.
const READ_ATTEMPTS_MAX: u32 = 3;

#[derive(Default)]
pub(crate) struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    pub(crate) index: RwLock<Index>,
    pub(crate) metrics: Mutex<Metrics>,
}

#[derive(Default)]
struct Queue {
    requests: Vec<(Request, Option<Done>)>,
    closing: bool,
    /// The owner is gone.
    ended: bool,
    threaded: bool,
    /// Of whoever turns an owner without a thread.
    waker: Option<Waker>,
}

/// Dropped with the last handle.
struct Lifeline(Arc<Shared>);

impl Drop for Lifeline {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Shared {
    fn close(&self) {
        let waker = {
            let mut queue = self.queue.lock();
            queue.closing = true;
            queue.waker.take()
        };
        self.changed.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[derive(Clone)]
pub struct Wal {
    shared: Arc<Shared>,
    _lifeline: Arc<Lifeline>,
}

/// Does the log's work; dropping it releases the directory.
pub struct Owner {
    writer: Writer,
    shared: Arc<Shared>,
    /// Pauses since the last request.
    pauses: u32,
    /// The last turn asked for a pause.
    paused: bool,
}

/// What the owner does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Another turn at once.
    Again,
    /// Another turn when something is queued, or after this time at the latest.
    Pause(Duration),
    /// Another turn when something is queued.
    Wait,
    /// Nothing more: the log is closed and written.
    Ended,
}

/// Recovers the log and starts its owner thread.
pub fn open(config: Config, disk: impl Disk) -> Result<(Wal, Recovered), OpenError> {
    let (wal, owner, recovered) = open_inline(config, disk)?;
    wal.shared.queue.lock().threaded = true;
    thread::Builder::new().name("wal".to_owned()).spawn(move || owner.run()).map_err(OpenError::Thread)?;
    Ok((wal, recovered))
}

/// Like `open`, without a thread: the caller calls `Owner::turn` (or `Owner::step`, which never pauses).
pub fn open_inline(config: Config, disk: impl Disk) -> Result<(Wal, Owner, Recovered), OpenError> {
    let shared = Arc::new(Shared::default());
    let (writer, recovered) = recovery::recover(Box::new(disk), config, Arc::clone(&shared))?;
    let lifeline = Arc::new(Lifeline(Arc::clone(&shared)));
    let wal = Wal { shared: Arc::clone(&shared), _lifeline: lifeline };
    Ok((wal, Owner { writer, shared, pauses: 0, paused: false }, recovered))
}

impl Owner {
    /// Writes all that waits; when nothing waits does one piece of background work or writes the idle mark.
    /// `false`: there was nothing to do.
    pub fn step(&mut self) -> bool {
        self.work() || self.writer.background() || self.writer.idle_mark()
    }

    /// Writes all that waits.
    pub fn work(&mut self) -> bool {
        let requests = std::mem::take(&mut self.shared.queue.lock().requests);
        if requests.is_empty() {
            return false;
        }
        self.writer.process(requests);
        true
    }

    /// One round of the owner's loop.
    pub fn turn(&mut self) -> Turn {
        let closing = {
            let queue = self.shared.queue.lock();
            if std::mem::take(&mut self.paused) && queue.requests.is_empty() && !queue.closing {
                drop(queue);
                self.pauses += 1;
                self.writer.background();
                false
            } else {
                queue.closing
            }
        };
        if self.work() {
            self.pauses = 0;
            return Turn::Again;
        }
        if closing {
            return Turn::Ended;
        }
        if self.pauses >= PAUSES_BEFORE_MARK && !self.writer.idle_mark() && !self.writer.background() {
            self.pauses = 0;
            return Turn::Wait;
        }
        self.paused = true;
        Turn::Pause(PAUSE)
    }

    /// Ready once a turn has something to do, for an owner without a thread.
    pub fn poll_queued(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut queue = self.shared.queue.lock();
        if !queue.requests.is_empty() || queue.closing {
            return Poll::Ready(());
        }
        queue.waker = Some(context.waker().clone());
        Poll::Pending
    }

    fn run(mut self) {
        loop {
            match self.turn() {
                Turn::Again => {}
                Turn::Pause(pause) => self.wait(Some(pause)),
                Turn::Wait => self.wait(None),
                Turn::Ended => return,
            }
        }
    }

    /// Until something is queued, the log closes, or the time is over.
    fn wait(&self, timeout: Option<Duration>) {
        let mut queue = self.shared.queue.lock();
        if queue.requests.is_empty() && !queue.closing {
            match timeout {
                Some(timeout) => {
                    self.shared.changed.wait_for(&mut queue, timeout);
                }
                None => self.shared.changed.wait(&mut queue),
            }
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let failure = self.writer.failure().cloned();
        let error = || failure.as_ref().map_or_else(closed, |failure| failure.to_error());
        self.writer.release();
        let requests = {
            let mut queue = self.shared.queue.lock();
            queue.ended = true;
            std::mem::take(&mut queue.requests)
        };
        self.shared.changed.notify_all();
        for done in requests.into_iter().filter_map(|(_, done)| done) {
            done(Err(error()));
        }
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the log is closed")
}

impl Wal {
    /// Queues the entries; their indexes must follow the last one without a gap, or `done` gets `InvalidInput`.
    /// `done` runs on the owner thread after the sync that covers them. Any other error: the log is dead, the
    /// process must end.
    pub fn append(&self, entries: Vec<Entry>, done: Done) {
        self.queue(Request::Append(entries), Some(done));
    }

    pub fn save_vote(&self, payload: Bytes, done: Done) {
        self.queue(Request::Vote(payload), Some(done));
    }

    /// A hint: written with the next batch, or after some idle milliseconds.
    pub fn save_committed(&self, payload: Bytes) {
        self.queue(Request::Committed(payload), None);
    }

    /// Drops the entries with `index >= from_index`.
    pub fn truncate(&self, from_index: u64, done: Done) {
        self.queue(Request::Truncate(from_index), Some(done));
    }

    /// Drops the entries with `index <= upto_index`; whole segments are recycled in the background. The payload
    /// comes back as `Recovered::purged`.
    pub fn purge(&self, upto_index: u64, payload: Bytes, done: Done) {
        self.queue(Request::Purge(upto_index, payload), Some(done));
    }

    /// Ends the quarantine after `Damage::LostAcknowledged`: what was lost is in the log again.
    pub fn healed(&self, done: Done) {
        self.queue(Request::Healed, Some(done));
    }

    fn queue(&self, request: Request, done: Option<Done>) {
        let size_bytes = request.size_bytes();
        let (refused, waker) = {
            let mut queue = self.shared.queue.lock();
            if queue.ended || queue.closing {
                (done, None)
            } else {
                queue.requests.push((request, done));
                self.shared.metrics.lock().queued_bytes += size_bytes;
                self.shared.changed.notify_all();
                (None, queue.waker.take())
            }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        if let Some(done) = refused {
            done(Err(closed()));
        }
    }

    /// Entries of the range that are on disk, from its start, at least one if there is one, and no more once
    /// `size_bytes_max` of payload are reached. Beyond the log's end: none.
    pub fn read(&self, range: Range<u64>, size_bytes_max: u64) -> Result<Vec<Entry>, ReadError> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut size_bytes = 0;
        let mut index = range.start;
        let mut attempts = 0;
        while index < range.end && (entries.is_empty() || size_bytes < size_bytes_max) {
            let count_max =
                usize::try_from(range.end - index).unwrap_or(usize::MAX).min(READ_RUN_ENTRIES_MAX);
            let run = match self.shared.index.read().locate(index, count_max) {
                Located::Run(run) => run,
                Located::Beyond => break,
                Located::Below(_) if !entries.is_empty() => break,
                Located::Below(first_index) => return Err(ReadError::Purged { index, first_index }),
            };
            let before = index;
            let offset = read_run(&run, &mut index, &mut entries, &mut size_bytes, size_bytes_max)?;
            attempts = if index > before { 0 } else { attempts + 1 };
            if let Some(offset) = offset.filter(|_| attempts >= READ_ATTEMPTS_MAX) {
                return Err(ReadError::Corrupt { file: run.path, offset, index });
            }
        }
        Ok(entries)
    }

    pub fn metrics(&self) -> Metrics {
        self.shared.metrics.lock().clone()
    }

    /// Writes what is queued, ends the owner thread and waits for it; the directory is free afterwards. Not to be
    /// called from a callback. An owner without a thread is not waited for: its next turn ends it.
    pub fn close(&self) {
        self.shared.close();
        let mut queue = self.shared.queue.lock();
        while queue.threaded && !queue.ended {
            self.shared.changed.wait(&mut queue);
        }
    }
}

/// `Some(offset)`: no intact record of `index` lies there.
fn read_run(
    run: &Run,
    index: &mut u64,
    entries: &mut Vec<Entry>,
    size_bytes: &mut u64,
    size_bytes_max: u64,
) -> Result<Option<u64>, ReadError> {
    let failed = |source| ReadError::Disk { file: run.path.clone(), source };
    let mut window = Window::new(&*run.file).map_err(failed)?;
    for offset in run.offsets.iter().copied().map(u64::from) {
        if !entries.is_empty() && *size_bytes >= size_bytes_max {
            break;
        }
        let record = replay::read(&mut window, run.seed, offset).map_err(failed)?;
        let Some((header, payload)) = record.filter(|(header, _)| header.index == *index) else {
            return Ok(Some(offset));
        };
        *size_bytes += payload.len() as u64;
        let payload = Bytes::copy_from_slice(payload);
        entries.push(Entry { term: header.term, index: *index, payload });
        *index += 1;
    }
    Ok(None)
}
