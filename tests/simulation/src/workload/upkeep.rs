//! What operators do while clients go on: history is compacted, a leader is asked to hand over.
//!
//! Not here: the list of members (operator.rs), alarms (caretaker.rs).

use std::sync::Arc;
use std::time::Duration;

use wal::sim_disk::crash::Random;
use wire::etcdserverpb as pb;
use wire::etcdserverpb::kv_client::KvClient;
use wire::etcdserverpb::maintenance_client::MaintenanceClient;

use super::Shared;
use crate::member::{CLIENT_PORT, host};
use crate::network::channel;

const MOVE_TIME_MAX: Duration = Duration::from_secs(1);

/// Asks leaders to hand over when the run says so.
pub(crate) async fn hands_over(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let Some((leader, target_id)) = shared.take_move() else { continue };
        let mut maintenance = MaintenanceClient::new(channel(&host(leader), CLIENT_PORT));
        let asking = maintenance.move_leader(pb::MoveLeaderRequest { target_id });
        let moved = matches!(tokio::time::timeout(MOVE_TIME_MAX, asking).await, Ok(Ok(_)));
        shared.trace.line(&format!("member {leader} has handed over: {moved}"));
    }
}

/// Drops history that every watcher has seen.
pub(super) async fn compactor(seed: u64, shared: Arc<Shared>, members: usize) {
    let _running = shared.begin();
    let mut random = Random(seed);
    while !shared.stopping() {
        tokio::time::sleep(Duration::from_millis(200 + random.below(1_500))).await;
        let revision = shared.seen_by_all() - i64::try_from(random.below(8)).unwrap_or(0);
        if revision <= shared.compacted_and_last().0 {
            continue;
        }
        let member = shared.roster.any(usize::try_from(random.below(members as u64)).unwrap_or(0));
        let mut kv = KvClient::new(channel(&host(member), CLIENT_PORT));
        let request = pb::CompactionRequest { revision, physical: false };
        let timeout = Duration::from_millis(shared.load.timeout_ms);
        let done = matches!(tokio::time::timeout(timeout, kv.compact(request)).await, Ok(Ok(_)));
        shared.trace.line(&format!("compaction at {revision}: {done}"));
        if done {
            shared.compacted(revision);
        }
    }
}
