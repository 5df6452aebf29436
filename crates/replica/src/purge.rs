//! Cuts the log behind what the state file holds.
//!
//! openraft's own schedule is off: its purge may overtake applies that are still queued (openraft issue 2116), and then
//! the member panics. This one goes only behind the *durable* applied index, and keeps far more than any apply can lag.

use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tokio_util::sync::CancellationToken;

use crate::handle::Inner;
use crate::planted::{self, Bug};
use crate::raft_types::next_index;

const INTERVAL: Duration = Duration::from_millis(500);
/// A log above this is cut harder: it then keeps only `Config::log_entries_min`.
const LOG_SIZE_BYTES_MAX: u64 = 4 << 30;

pub(crate) async fn run(inner: std::sync::Arc<Inner>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        let segments = inner.log.wal().metrics().segments;
        let log_size_bytes = segments.saturating_mul(inner.config.wal_segment_size_bytes);
        let keep = inner.config.snapshot_count.max(1);
        let keep = if log_size_bytes > LOG_SIZE_BYTES_MAX {
            keep.min(inner.config.log_entries_min.max(1))
        } else {
            keep
        };
        let purged_next = next_index(inner.log.purged().as_ref());
        let mut wanted = inner.state.durable_next().saturating_sub(keep);
        if planted::is(Bug::PurgeAheadOfState) {
            wanted = inner.state.applied_next().saturating_sub(1);
        }
        // Not for every entry: a tenth of what is kept at a time.
        if wanted <= purged_next + keep / 10 {
            continue;
        }
        if !advance_snapshot(&inner, wanted - 1).await {
            continue;
        }
        if inner.raft.trigger().purge_log(wanted - 1).await.is_err() {
            return;
        }
        inner.counters.log_purges.fetch_add(1, Ordering::Relaxed);
        // etcd's words, here and below, which its tools and tests wait for.
        tracing::info!("compact-index" = wanted - 1, "compacted Raft logs");
    }
}

/// openraft purges only what it believes to be in a snapshot, so it is told that the state file is one.
async fn advance_snapshot(inner: &Inner, index: u64) -> bool {
    let covers = |snapshot: Option<u64>| snapshot.is_some_and(|snapshot| snapshot >= index);
    let receiver = inner.raft.metrics();
    if covers(receiver.borrow_watched().snapshot.map(|id| id.index)) {
        return true;
    }
    if inner.raft.trigger().snapshot().await.is_err() {
        return false;
    }
    let wait = inner.raft.wait(Some(Duration::from_secs(5)));
    let waited =
        wait.metrics(|metrics| covers(metrics.snapshot.map(|id| id.index)), "a snapshot covers the log");
    let Ok(metrics) = waited.await else { return false };
    tracing::info!("snapshot-index" = metrics.snapshot.map_or(0, |id| id.index), "saved snapshot");
    true
}
