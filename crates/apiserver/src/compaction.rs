//! Forgets old revisions of the store, a few minutes after they were written.
//!
//! All servers on one store share the key `compact_rev_key`: in each round the first to count it up compacts, to the
//! revision that it saw a round earlier. Source: upstream pkg/storage/etcd3/compact.go, which our servers thereby share
//! the work with. Not here: the bounded history of the watch cache.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::storage::{CompactionRound, Storage};

pub(crate) async fn run(storage: Storage, interval: Duration, shutdown: CancellationToken) {
    if interval.is_zero() {
        return;
    }
    let mut round = CompactionRound::default();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
        match storage.compact_round(round).await {
            Ok(next) => round = next,
            // The next round tries again; nothing depends on when history goes.
            Err(reason) => tracing::warn!(reason, "history of the store was not compacted"),
        }
    }
}
