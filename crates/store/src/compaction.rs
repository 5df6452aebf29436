//! Automatic compaction: the leader drops history by age or by count, as etcd's two modes do.

use std::{collections::VecDeque, time::Duration};

use mvcc::{Caller, Command, Compact};
use tokio::time;

use crate::{config::AutoCompaction, context::Own};

/// Pause between compactions by count. Source: etcd v3compactor/revision.go `revInterval`.
const REVISION_INTERVAL: Duration = Duration::from_secs(300);
/// Longest pause between compactions by age, and samples of the revision per pause. Source: v3compactor/periodic.go.
const PERIODIC_INTERVAL_MAX: Duration = Duration::from_secs(3600);
const PERIODIC_SAMPLES: u32 = 10;

pub(crate) async fn run(own: Own) {
    let work = async {
        match own.context.config.auto_compaction {
            AutoCompaction::Off => std::future::pending().await,
            AutoCompaction::Revision(keep) => by_revision(&own, keep).await,
            AutoCompaction::Periodic(keep) => by_age(&own, keep).await,
        }
    };
    tokio::select! {
        () = work => {}
        () = own.context.shutdown.cancelled() => {}
    }
}

async fn by_revision(own: &Own, keep: i64) {
    loop {
        time::sleep(REVISION_INTERVAL).await;
        compact(own, own.context.revision() - keep).await;
    }
}

/// Remembers the revision ten times per interval; what is older than `keep` goes, once per interval.
async fn by_age(own: &Own, keep: Duration) {
    let interval = keep.min(PERIODIC_INTERVAL_MAX);
    let pause = interval / PERIODIC_SAMPLES;
    let samples = (keep.as_nanos() / pause.as_nanos().max(1)).min(100_000);
    let mut seen: VecDeque<i64> = VecDeque::new();
    let mut since_compaction = 0;
    loop {
        seen.push_back(own.context.revision());
        time::sleep(pause).await;
        since_compaction += 1;
        if seen.len() as u128 >= samples && since_compaction >= PERIODIC_SAMPLES {
            since_compaction = 0;
            if let Some(revision) = seen.front() {
                compact(own, *revision).await;
            }
        }
        while seen.len() as u128 >= samples {
            seen.pop_front();
        }
    }
}

/// Only the leader does it; what is compacted already is nothing to do.
async fn compact(own: &Own, revision: i64) {
    let compacted = own.handle.read(|store, _| store.compact_revision());
    if revision <= compacted.max(0) || !own.handle.status().is_leader {
        return;
    }
    match own.handle.propose(Caller::System, Command::Compact(Compact { revision })).await {
        Ok(applied) => match applied.result {
            Ok(_) => tracing::info!(revision, "completed auto compaction"),
            Err(error) => tracing::warn!(revision, %error, "auto compaction refused"),
        },
        Err(error) => tracing::warn!(revision, %error, "auto compaction failed"),
    }
}
