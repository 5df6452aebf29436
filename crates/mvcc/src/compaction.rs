//! Compaction: logical at once, physical in bounded steps.
//!
//! Invariants: reads below the compact revision fail from the moment the command is applied, on every member; when
//! the garbage goes is each member's own business and shows in no answer and no hash. The scheduled revision is
//! saved with the command, the finished one after the last step, so an interrupted pass is run again after a
//! restart. Not here: which states are unreachable (index.rs), when steps run.

use crate::reply::ApplyError;
use crate::space::Space;

pub(crate) struct Compaction {
    /// Below this, history is gone for readers.
    pub(crate) scheduled: i64,
    /// The garbage of this revision is gone physically.
    pub(crate) finished: i64,
    /// Removed since this process has the state.
    pub(crate) rows_dropped: u64,
    pass: Option<Pass>,
}

impl Default for Compaction {
    fn default() -> Compaction {
        Compaction { scheduled: NEVER_COMPACTED, finished: NEVER_COMPACTED, rows_dropped: 0, pass: None }
    }
}

/// etcd's number before the first compaction.
const NEVER_COMPACTED: i64 = -1;

struct Pass {
    revision: i64,
    next_key: Box<[u8]>,
}

impl Space {
    /// Makes history below `revision` unreachable.
    pub(crate) fn compact(&mut self, revision: i64) -> Result<(), ApplyError> {
        if revision <= self.compaction.scheduled {
            return Err(ApplyError::Compacted);
        }
        if revision > self.revision {
            return Err(ApplyError::FutureRevision);
        }
        self.compaction.scheduled = revision;
        self.sizes.compacted(revision);
        Ok(())
    }

    pub(crate) fn compaction_pending(&self) -> bool {
        self.compaction.finished < self.compaction.scheduled
    }

    /// Removes garbage for about `work_max` keys and states. Returns whether a pass ended.
    pub(crate) fn compact_step(&mut self, work_max: usize) -> bool {
        if !self.compaction_pending() {
            return false;
        }
        let revision = self.compaction.scheduled;
        let pass = self.compaction.pass.take().unwrap_or_else(|| Pass { revision, next_key: Box::default() });
        let (sizes, unflushed) = (&mut self.sizes, &mut self.unflushed);
        let mut rows_dropped = 0;
        let next = self.index.compact(pass.revision, &pass.next_key, work_max.max(1), |state| {
            sizes.dropped(state);
            unflushed.delete(state.revision);
            rows_dropped += 1;
        });
        self.compaction.rows_dropped += rows_dropped;
        match next {
            Some(next_key) => {
                self.compaction.pass = Some(Pass { next_key, ..pass });
                false
            }
            None => {
                self.compaction.finished = pass.revision;
                true
            }
        }
    }
}
