//! Moves what apply produced into the state file, on a thread of its own (or a task, `Threads::Tasks`).
//!
//! Every 100 ms (sooner when much waits) one transaction that is not waited for; about every second one that is fsynced.
//! Only the latter moves the durable index, behind which the log may be cut. Physical compaction runs here too, in
//! slices that hold the lock for a fraction of a millisecond, and so does the scrubber (scrub.rs), without the lock.
//! Invariant: a failed commit ends the member; it is never retried.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mvcc::{Revision, Row};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::fatal::{Fatal, FatalReason};
use crate::histogram::Histogram;
use crate::metrics::CompactionMetrics;
use crate::planted::{self, Bug};
use crate::raft_types::next_index;
use crate::scrub::{ScrubCounters, ScrubPace, Scrubber};
use crate::state::State;
use crate::state_file::{Position, StateFile};
use crate::surroundings::{Latency, Surroundings, Threads};

/// Bounds in seconds; etcd has them in milliseconds. Source: etcd server/storage/mvcc/metrics.go.
const PAUSE_BUCKETS_S: [f64; 12] =
    [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048];
const PASS_BUCKETS_S: [f64; 14] =
    [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8, 409.6, 819.2];
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);
/// Unflushed bytes at which the flusher does not wait for its interval.
const NUDGE_SIZE_BYTES: usize = 16 << 20;

/// Flushes and nudges that may wait.
const MESSAGES_MAX: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FlushError {
    #[error("the member stops, its state file is not written any more")]
    Stopped,
    /// Others wait already, more than are let.
    #[error("too many requests")]
    TooManyRequests,
}

enum Message {
    Nudge,
    /// Everything applied so far must be durable before the answer.
    Flush(oneshot::Sender<()>),
    /// With a last durable flush, or at once.
    Stop {
        flush: bool,
    },
}

#[derive(Clone)]
pub(crate) struct FlusherHandle {
    sender: SyncSender<Message>,
    /// Wakes the task, where there is no thread that waits for the channel itself.
    wake: Arc<Notify>,
    nudged: Arc<AtomicBool>,
    pub counters: Arc<Counters>,
}

pub(crate) struct Counters {
    pub commit: Histogram,
    pub durable_commit: Histogram,
    pub rows: AtomicU64,
    pub scrub: ScrubCounters,
    pub compaction: CompactionCounters,
}

/// See `CompactionMetrics`.
pub(crate) struct CompactionCounters {
    rows: AtomicU64,
    last_unix_s: AtomicU64,
    pauses: Histogram,
    passes: Histogram,
}

impl Default for CompactionCounters {
    fn default() -> CompactionCounters {
        CompactionCounters {
            rows: AtomicU64::new(0),
            last_unix_s: AtomicU64::new(0),
            pauses: Histogram::new(&PAUSE_BUCKETS_S),
            passes: Histogram::new(&PASS_BUCKETS_S),
        }
    }
}

impl CompactionCounters {
    pub(crate) fn metrics(&self) -> CompactionMetrics {
        CompactionMetrics {
            rows: self.rows.load(Ordering::Relaxed),
            last_unix_s: self.last_unix_s.load(Ordering::Relaxed),
            pauses: self.pauses.durations(),
            passes: self.passes.durations(),
        }
    }
}

impl Default for Counters {
    fn default() -> Counters {
        Counters {
            commit: Histogram::new(&wal::FSYNC_BUCKETS_S),
            durable_commit: Histogram::new(&wal::FSYNC_BUCKETS_S),
            rows: AtomicU64::new(0),
            compaction: CompactionCounters::default(),
            scrub: ScrubCounters::default(),
        }
    }
}

/// How fast the background work goes.
pub(crate) struct Pace {
    /// Keys in a slice of a compaction, and the pause between two of them, so that apply gets the lock.
    pub compact_keys_max: usize,
    pub compact_pause: Duration,
    /// Between two transactions that wait for the disk.
    pub sync_interval: Duration,
    pub scrub: ScrubPace,
}

/// The running thread or task; `stop` joins it.
pub(crate) struct Flusher {
    running: Mutex<Option<Running>>,
    handle: FlusherHandle,
    surroundings: Surroundings,
}

enum Running {
    Thread(std::thread::JoinHandle<()>),
    Task(tokio::task::JoinHandle<()>),
}

/// Made before the state machine, which nudges it; started after replay.
pub(crate) fn channel() -> (FlusherHandle, FlusherInbox) {
    let (sender, receiver) = sync_channel(MESSAGES_MAX);
    let handle =
        FlusherHandle { sender, wake: Arc::default(), nudged: Arc::default(), counters: Arc::default() };
    (handle, FlusherInbox(receiver))
}

pub(crate) struct FlusherInbox(Receiver<Message>);

impl FlusherHandle {
    pub(crate) fn nudge(&self, unflushed_size_bytes: usize) {
        if unflushed_size_bytes > NUDGE_SIZE_BYTES && !self.nudged.swap(true, Ordering::Relaxed) {
            // A full queue means that the thread has work already.
            let _ = self.sender.try_send(Message::Nudge);
            self.wake.notify_one();
        }
    }

    pub(crate) async fn flush(&self) -> Result<(), FlushError> {
        let (sender, receiver) = oneshot::channel();
        self.sender.try_send(Message::Flush(sender)).map_err(|error| match error {
            TrySendError::Full(_) => FlushError::TooManyRequests,
            TrySendError::Disconnected(_) => FlushError::Stopped,
        })?;
        self.wake.notify_one();
        receiver.await.map_err(|_| FlushError::Stopped)
    }
}

impl Flusher {
    pub(crate) fn start(
        handle: FlusherHandle,
        inbox: FlusherInbox,
        state: Arc<State>,
        fatal: Fatal,
        surroundings: Surroundings,
        pace: Pace,
    ) -> std::io::Result<Flusher> {
        let written = state.with_core(|core| core.file.position()).ok();
        let durable_at = Instant::now();
        let compacted = state.read(|store, _| store.compacted_physically());
        let mut work = Work {
            state,
            handle: handle.clone(),
            fatal,
            written,
            durable_at,
            durable_written: true,
            flush_at: durable_at + FLUSH_INTERVAL,
            compacting: false,
            scrubber: Scrubber::new(pace.scrub.clone()),
            pace,
            compacted,
            compaction_began: None,
            held: None,
        };
        let running = match &surroundings.threads {
            Threads::System => {
                let thread = std::thread::Builder::new().name("flusher".into());
                Running::Thread(thread.spawn(move || work.run(&inbox.0))?)
            }
            Threads::Tasks(latency) => {
                let (latency, wake) = (latency.clone(), handle.wake.clone());
                Running::Task(tokio::spawn(work.run_task(inbox.0, wake, latency)))
            }
        };
        Ok(Flusher { running: Mutex::new(Some(running)), handle, surroundings })
    }

    /// Waits until the thread has ended.
    pub(crate) async fn stop(&self, flush: bool) {
        let sender = self.handle.sender.clone();
        // Both fail only when the thread is gone.
        let _ = self.surroundings.blocking(move || sender.send(Message::Stop { flush })).await;
        self.handle.wake.notify_one();
        let running = self.running.lock().take();
        let ended = match running {
            None => return,
            Some(Running::Task(task)) => task.await.is_ok(),
            Some(Running::Thread(thread)) => {
                matches!(self.surroundings.blocking(move || thread.join()).await, Ok(Ok(())))
            }
        };
        if !ended {
            tracing::error!("the flusher panicked");
        }
    }
}

struct Work {
    state: Arc<State>,
    handle: FlusherHandle,
    fatal: Fatal,
    /// What the file says, durable or not.
    written: Option<Position>,
    durable_written: bool,
    durable_at: Instant,
    flush_at: Instant,
    compacting: bool,
    scrubber: Scrubber,
    pace: Pace,
    /// The last compaction whose garbage is gone, and when the one under way began.
    compacted: i64,
    compaction_began: Option<Instant>,
    /// Of the planted bug `LayerEmptiedEarly`.
    held: Option<Taken>,
}

/// A panic of `work` ends the member like any other failure of the state file: redb 4.4 panics at some damage of its own
/// pages where it should return an error, and after that nobody would write any more.
fn or_fatal(fatal: &Fatal, work: impl FnOnce() -> bool) -> bool {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
        fatal.set(FatalReason::StateFile(format!("panic while it was written: {text}")));
        false
    })
}

/// Rows on their way into the file, and the position that they belong to.
type Taken = (Vec<Row>, Position, Arc<StateFile>);

impl Work {
    fn run(&mut self, inbox: &Receiver<Message>) {
        loop {
            let message = match inbox.recv_timeout(self.pause()) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if !self.turn(message) {
                return;
            }
        }
    }

    async fn run_task(mut self, inbox: Receiver<Message>, wake: Arc<Notify>, latency: Latency) {
        loop {
            let message = match inbox.try_recv() {
                Err(TryRecvError::Empty) => {
                    tokio::select! {
                        () = wake.notified() => {}
                        () = tokio::time::sleep(self.pause()) => {}
                    }
                    inbox.try_recv().ok()
                }
                Err(TryRecvError::Disconnected) => return,
                Ok(message) => Some(message),
            };
            tokio::time::sleep(latency()).await;
            if !self.turn(message) {
                return;
            }
        }
    }

    /// How long nothing is to be done if nobody asks.
    fn pause(&self) -> Duration {
        let until_flush = self.flush_at.saturating_duration_since(Instant::now());
        if self.compacting { self.pace.compact_pause.min(until_flush) } else { until_flush }
    }

    /// After a message or a pause; `false` when there will be no other turn.
    fn turn(&mut self, message: Option<Message>) -> bool {
        let fatal = self.fatal.clone();
        or_fatal(&fatal, || self.work(message))
    }

    fn work(&mut self, message: Option<Message>) -> bool {
        let mut answer = None;
        match message {
            Some(Message::Nudge) => self.flush_at = Instant::now(),
            Some(Message::Flush(sender)) => answer = Some(sender),
            Some(Message::Stop { flush }) => {
                if flush && !self.fatal.is_set() {
                    self.flush(true);
                }
                return false;
            }
            None => {}
        }
        if self.fatal.is_set() {
            return false;
        }
        self.compacting = self.compact();
        if answer.is_some() || Instant::now() >= self.flush_at {
            let durable = answer.is_some() || self.durable_at.elapsed() >= self.pace.sync_interval;
            if !self.flush(durable) {
                return false;
            }
            self.flush_at = Instant::now() + FLUSH_INTERVAL;
            // Only when nobody waits for this thread.
            if answer.is_none() {
                let file = self.state.with_core(|core| core.file.clone());
                self.scrubber.step(&file, &self.state.damage, &self.handle.counters.scrub);
            }
        }
        if let Some(answer) = answer {
            let _ = answer.send(());
        }
        true
    }

    /// One slice. `true` if there is more to do.
    fn compact(&mut self) -> bool {
        let keys_max = self.pace.compact_keys_max;
        let slice_began = Instant::now();
        let (more, finished, sizes, rows) = self.state.change(|core| {
            let before = core.store.rows_compacted();
            let more = core.store.compact_step(keys_max);
            let sizes = (core.store.size_bytes_allocated(), core.store.size_bytes_in_use());
            (more, core.store.compacted_physically(), sizes, core.store.rows_compacted() - before)
        });
        let began = *self.compaction_began.get_or_insert(slice_began);
        let ended = finished > self.compacted;
        let counters = &self.handle.counters.compaction;
        if more || ended {
            counters.rows.fetch_add(rows, Ordering::Relaxed);
            counters.pauses.observe(slice_began.elapsed());
        }
        if ended {
            counters.passes.observe(began.elapsed());
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            counters.last_unix_s.store(now, Ordering::Relaxed);
            // etcd's words, which its tools and tests wait for.
            tracing::info!(
                "compact-revision" = finished,
                took = ?began.elapsed(),
                "current-db-size-bytes" = sizes.0,
                "current-db-size-in-use-bytes" = sizes.1,
                "finished scheduled compaction"
            );
        }
        self.compacted = finished;
        if !more || ended {
            self.compaction_began = None;
        }
        more
    }

    /// `false` when the member must end.
    fn flush(&mut self, durable: bool) -> bool {
        self.handle.nudged.store(false, Ordering::Relaxed);
        let (rows, position, file) =
            self.state.change(|core| (core.store.take_rows(), core.position.clone(), core.file.clone()));
        let (rows, position, file) = match planted::is(Bug::LayerEmptiedEarly) {
            true => match self.held.replace(self.emptied_early(rows, position, file)) {
                Some(held) => held,
                None => return true,
            },
            false => (rows, position, file),
        };
        let moved = self.written.as_ref() != Some(&position);
        let worth_it = !rows.is_empty() || (durable && (moved || !self.durable_written));
        if !worth_it {
            return true;
        }
        let started = Instant::now();
        if let Err(error) = file.write(&rows, &position, durable) {
            self.fatal.set(FatalReason::StateFile(chain(&error)));
            return false;
        }
        self.count(durable, started.elapsed(), rows.len());
        self.committed(&rows, position, &file, durable);
        true
    }

    /// Of the planted bug.
    fn emptied_early(&self, rows: Vec<Row>, position: Position, file: Arc<StateFile>) -> Taken {
        if let Some(last) = last_record(&rows) {
            self.state.change(|core| core.store.flushed(last));
        }
        (rows, position, file)
    }

    fn committed(&mut self, rows: &[Row], position: Position, file: &Arc<StateFile>, durable: bool) {
        let last = last_record(rows);
        let next = next_index(position.applied.as_ref());
        // A snapshot may have replaced the file in between; then neither its rows nor its index are ours.
        let still_ours = self.state.change(|core| {
            let ours = Arc::ptr_eq(&core.file, file);
            if let (true, Some(last)) = (ours, last) {
                core.store.flushed(last);
            }
            ours
        });
        if !still_ours {
            self.written = None;
            return;
        }
        self.durable_written = durable;
        self.written = Some(position);
        if durable {
            self.durable_at = Instant::now();
            self.state.durable(next);
        }
    }

    fn count(&self, durable: bool, took: Duration, rows: usize) {
        let counters = &self.handle.counters;
        counters.commit.observe(took);
        counters.rows.fetch_add(rows as u64, Ordering::Relaxed);
        if durable {
            counters.durable_commit.observe(took);
        }
    }
}

fn last_record(rows: &[Row]) -> Option<Revision> {
    rows.iter().rev().find_map(|row| match row {
        Row::Record(revision, _) => Some(*revision),
        Row::DeleteRecord(_) | Row::Meta(..) | Row::DeleteMeta(_) => None,
    })
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn one_flush_too_many_is_refused_and_the_others_still_wait() {
        let (handle, inbox) = channel();
        let mut waiting = Vec::new();
        for _ in 0..MESSAGES_MAX {
            let mut flush = Box::pin(handle.flush());
            assert_eq!(flush.as_mut().now_or_never(), None);
            waiting.push(flush);
        }
        assert_eq!(handle.flush().now_or_never(), Some(Err(FlushError::TooManyRequests)));
        drop(inbox);
        for flush in waiting {
            assert_eq!(flush.now_or_never(), Some(Err(FlushError::Stopped)));
        }
        assert_eq!(handle.flush().now_or_never(), Some(Err(FlushError::Stopped)));
    }

    #[test]
    fn a_panic_while_the_state_file_is_written_ends_the_member_with_its_text() {
        let fatal = Fatal::new();
        assert!(or_fatal(&fatal, || true) && !fatal.is_set());
        let empty: Vec<u8> = Vec::new();
        assert!(!or_fatal(&fatal, || empty[..3].is_empty()));
        let text = "panic while it was written: range end index 3 out of range for slice of length 0";
        assert_eq!(fatal.wait().now_or_never(), Some(FatalReason::StateFile(text.to_owned())));
    }
}
