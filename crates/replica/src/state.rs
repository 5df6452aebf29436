//! The replicated state on this member: the key space in memory over its state file, and its place in the log.
//!
//! Invariants: `Core` changes only under the write lock, by apply, the flusher or a snapshot install; key space, state
//! file and position always belong together. Nobody awaits while holding the lock.
//! Not here: openraft's traits (state_machine.rs), moving rows to disk (flusher.rs).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mvcc::{HashCursor, HashKv, RangeError, Records, RecordsError, ScanBound, Store};
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::damage::{Damage, Watched};
use crate::raft_types::next_index;
use crate::state_file::{Position, StateFile, StateFileError, StateView};

/// What one visit adds to a checksum.
const HASH_STEP: ScanBound = ScanBound { rows_max: 1024, size_bytes_max: 1024 * 1024 };

pub(crate) struct State {
    core: RwLock<Core>,
    /// First index that is not applied.
    applied_next: watch::Sender<u64>,
    /// First index that is not durable in the state file.
    durable_next: watch::Sender<u64>,
    revision: watch::Sender<i64>,
    pub damage: Damage,
    /// Applied term, for status.
    pub applied_term: AtomicU64,
}

pub(crate) struct Core {
    pub store: Store,
    pub position: Position,
    pub file: Arc<StateFile>,
}

#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(transparent)]
    StateFile(#[from] StateFileError),
    #[error("state file {path}: {source}")]
    Store {
        path: std::path::PathBuf,
        #[source]
        source: mvcc::RestoreError,
    },
}

/// Rebuilds the key space from the file.
pub(crate) fn restore(view: &StateView, limits: mvcc::Limits) -> Result<Store, RestoreError> {
    let meta = view.meta()?.into_iter().map(Ok);
    let records = view.records()?.map(|row| row.map_err(|error| RecordsError::Read(Arc::new(error))));
    Store::restore(limits, meta, records)
        .map_err(|source| RestoreError::Store { path: view.path().to_owned(), source })
}

impl State {
    pub(crate) fn new(store: Store, position: Position, file: Arc<StateFile>) -> State {
        let next = next_index(position.applied.as_ref());
        let term = position.applied.map_or(0, |id| id.leader_id.term);
        State {
            revision: watch::Sender::new(store.revision()),
            damage: Damage::default(),
            core: RwLock::new(Core { store, position, file }),
            applied_next: watch::Sender::new(next),
            durable_next: watch::Sender::new(next),
            applied_term: AtomicU64::new(term),
        }
    }

    pub(crate) fn read<T>(&self, f: impl FnOnce(&Store, &dyn Records) -> T) -> T {
        let core = self.core.read();
        f(&core.store, &Watched { file: core.file.as_ref(), damage: &self.damage })
    }

    /// Checksum of the records up to a revision (0: the current one), in steps between which apply and other
    /// reads go on. A compaction in between makes it begin again.
    pub(crate) async fn hash_kv(&self, revision: i64) -> Result<HashKv, RangeError> {
        let mut cursor = HashCursor::new(revision);
        let mut begun_at = self.read(|store, _| store.compact_revision());
        loop {
            let (step, compacted) = self.read(|store, records| {
                (store.hash_kv_step(records, &mut cursor, HASH_STEP), store.compact_revision())
            });
            match step {
                Ok(Some(hash)) => return Ok(hash),
                Ok(None) => {}
                Err(RangeError::Compacted) if compacted > begun_at => {
                    begun_at = compacted;
                    cursor = HashCursor::new(revision);
                }
                Err(error) => return Err(error),
            }
            tokio::task::yield_now().await;
        }
    }

    pub(crate) fn with_core<T>(&self, f: impl FnOnce(&Core) -> T) -> T {
        f(&self.core.read())
    }

    pub(crate) fn change<T>(&self, f: impl FnOnce(&mut Core) -> T) -> T {
        f(&mut self.core.write())
    }

    pub(crate) fn position(&self) -> Position {
        self.core.read().position.clone()
    }

    /// Tells whoever waits that apply (or a snapshot) moved on. Called after the lock is released.
    pub(crate) fn announce(&self) {
        let (position, revision) = {
            let core = self.core.read();
            (core.position.applied, core.store.revision())
        };
        if let Some(id) = position {
            self.applied_term.store(id.leader_id.term, Ordering::Relaxed);
        }
        let next = next_index(position.as_ref());
        self.revision.send_if_modified(|current| std::mem::replace(current, revision) != revision);
        self.applied_next.send_if_modified(|current| std::mem::replace(current, next) != next);
    }

    /// Like `announce`, for a snapshot: watchers look again even if the revision is the same.
    pub(crate) fn announce_install(&self) {
        let revision = self.core.read().store.revision();
        self.announce();
        self.revision.send_replace(revision);
    }

    pub(crate) fn durable(&self, next: u64) {
        self.durable_next.send_if_modified(|current| {
            let moved = next > *current;
            *current = next.max(*current);
            moved
        });
    }

    pub(crate) fn applied_watch(&self) -> watch::Receiver<u64> {
        self.applied_next.subscribe()
    }

    pub(crate) fn durable_watch(&self) -> watch::Receiver<u64> {
        self.durable_next.subscribe()
    }

    pub(crate) fn revision_watch(&self) -> watch::Receiver<i64> {
        self.revision.subscribe()
    }

    pub(crate) fn applied_next(&self) -> u64 {
        *self.applied_next.borrow()
    }

    pub(crate) fn durable_next(&self) -> u64 {
        *self.durable_next.borrow()
    }
}
