//! Moves what apply produced into the state file, on a thread of its own.
//!
//! Every 100 ms (sooner when much waits) one transaction that is not waited for; about every second one that is fsynced.
//! Only the latter moves the durable index, behind which the log may be cut. Physical compaction runs here too, in
//! slices that hold the lock for a fraction of a millisecond.
//! Invariant: a failed commit ends the member; it is never retried.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mvcc::Row;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::fatal::{Fatal, FatalReason};
use crate::raft_types::next_index;
use crate::state::State;
use crate::state_file::{Position, StateFile};

const FLUSH_INTERVAL: Duration = Duration::from_millis(100);
const DURABLE_INTERVAL: Duration = Duration::from_secs(1);
/// A pause between two slices of compaction, so that apply gets the lock.
const COMPACT_PAUSE: Duration = Duration::from_millis(2);
const COMPACT_KEYS_MAX: usize = 1_000;
/// Unflushed bytes at which the flusher does not wait for its interval.
const NUDGE_SIZE_BYTES: usize = 16 << 20;

#[derive(Debug, Clone, thiserror::Error)]
#[error("the member stops, its state file is not written any more")]
pub struct FlushError;

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
    nudged: Arc<AtomicBool>,
    pub counters: Arc<Counters>,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub commits: AtomicU64,
    pub durable_commits: AtomicU64,
    pub commit_us_total: AtomicU64,
    pub durable_commit_us_total: AtomicU64,
    pub rows: AtomicU64,
}

/// The running thread; `stop` joins it.
pub(crate) struct Flusher {
    thread: Mutex<Option<JoinHandle<()>>>,
    handle: FlusherHandle,
}

/// Made before the state machine, which nudges it; started after replay.
pub(crate) fn channel() -> (FlusherHandle, FlusherInbox) {
    let (sender, receiver) = sync_channel(64);
    let handle = FlusherHandle { sender, nudged: Arc::default(), counters: Arc::default() };
    (handle, FlusherInbox(receiver))
}

pub(crate) struct FlusherInbox(Receiver<Message>);

impl FlusherHandle {
    pub(crate) fn nudge(&self, unflushed_size_bytes: usize) {
        if unflushed_size_bytes > NUDGE_SIZE_BYTES && !self.nudged.swap(true, Ordering::Relaxed) {
            // A full queue means that the thread has work already.
            let _ = self.sender.try_send(Message::Nudge);
        }
    }

    pub(crate) async fn flush(&self) -> Result<(), FlushError> {
        let (sender, receiver) = oneshot::channel();
        self.sender.try_send(Message::Flush(sender)).map_err(|_| FlushError)?;
        receiver.await.map_err(|_| FlushError)
    }
}

impl Flusher {
    pub(crate) fn start(
        handle: FlusherHandle,
        inbox: FlusherInbox,
        state: Arc<State>,
        fatal: Fatal,
    ) -> std::io::Result<Flusher> {
        let written = state.with_core(|core| core.file.position()).ok();
        let durable_at = Instant::now();
        let mut work =
            Work { state, handle: handle.clone(), fatal, written, durable_at, durable_written: true };
        let thread = std::thread::Builder::new().name("flusher".into()).spawn(move || work.run(&inbox.0))?;
        Ok(Flusher { thread: Mutex::new(Some(thread)), handle })
    }

    /// Blocks until the thread has ended.
    pub(crate) fn stop(&self, flush: bool) {
        // Fails only when the thread is gone.
        let _ = self.handle.sender.send(Message::Stop { flush });
        let thread = self.thread.lock().take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the flusher thread panicked");
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
}

impl Work {
    fn run(&mut self, inbox: &Receiver<Message>) {
        let mut flush_at = Instant::now() + FLUSH_INTERVAL;
        let mut compacting = false;
        loop {
            let until_flush = flush_at.saturating_duration_since(Instant::now());
            let pause = if compacting { COMPACT_PAUSE.min(until_flush) } else { until_flush };
            let mut answer = None;
            match inbox.recv_timeout(pause) {
                Ok(Message::Nudge) => flush_at = Instant::now(),
                Ok(Message::Flush(sender)) => answer = Some(sender),
                Ok(Message::Stop { flush }) => {
                    if flush && !self.fatal.is_set() {
                        self.flush(true);
                    }
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.fatal.is_set() {
                return;
            }
            compacting = self.state.change(|core| core.store.compact_step(COMPACT_KEYS_MAX));
            if answer.is_some() || Instant::now() >= flush_at {
                let durable = answer.is_some() || self.durable_at.elapsed() >= DURABLE_INTERVAL;
                if !self.flush(durable) {
                    return;
                }
                flush_at = Instant::now() + FLUSH_INTERVAL;
            }
            if let Some(answer) = answer {
                let _ = answer.send(());
            }
        }
    }

    /// `false` when the member must end.
    fn flush(&mut self, durable: bool) -> bool {
        self.handle.nudged.store(false, Ordering::Relaxed);
        let (rows, position, file) =
            self.state.change(|core| (core.store.take_rows(), core.position.clone(), core.file.clone()));
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

    fn committed(&mut self, rows: &[Row], position: Position, file: &Arc<StateFile>, durable: bool) {
        let last = rows.iter().rev().find_map(|row| match row {
            Row::Record(revision, _) => Some(*revision),
            Row::DeleteRecord(_) | Row::Meta(..) | Row::DeleteMeta(_) => None,
        });
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
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        counters.commits.fetch_add(1, Ordering::Relaxed);
        counters.commit_us_total.fetch_add(us, Ordering::Relaxed);
        counters.rows.fetch_add(rows as u64, Ordering::Relaxed);
        if durable {
            counters.durable_commits.fetch_add(1, Ordering::Relaxed);
            counters.durable_commit_us_total.fetch_add(us, Ordering::Relaxed);
        }
    }
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
