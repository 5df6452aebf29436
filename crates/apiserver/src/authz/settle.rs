//! Waiting until the feed has seen all that the store had committed when the waiting began.
//!
//! Invariants: any number of waiters share one question to the store at a time; a question that was already under way
//! when a waiter came does not count for it; nobody waits longer than `SETTLE_MS_MAX`. Not here: what is decided then.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::registry::Registry;

/// A denial is answered after this time even if the store does not answer.
const SETTLE_MS_MAX: u64 = 1_500;

#[derive(Default)]
pub(super) struct Settle {
    /// Number of the last question that was begun.
    begun: AtomicU64,
    /// The last answer: the number of its question, and the revision.
    answered: Mutex<(u64, i64)>,
}

impl Settle {
    /// True when the feed has caught up.
    pub(super) async fn wait(&self, registry: &Registry) -> bool {
        let deadline = Instant::now() + Duration::from_millis(SETTLE_MS_MAX);
        let settled = async {
            let revision = self.revision(registry).await?;
            registry.feed().wait(revision, deadline).await.then_some(())
        };
        matches!(tokio::time::timeout_at(deadline, settled).await, Ok(Some(())))
    }

    /// A revision that the store had reached after this call began.
    async fn revision(&self, registry: &Registry) -> Option<i64> {
        let needed = self.begun.load(Ordering::SeqCst) + 1;
        // Whoever gets the lock asks for all that wait behind it.
        let mut answered = self.answered.lock().await;
        if answered.0 >= needed {
            return Some(answered.1);
        }
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let revision = registry.store_revision().await.ok()?;
        *answered = (number, revision);
        Some(revision)
    }
}
