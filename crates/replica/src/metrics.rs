//! Numbers about a member. The store layer turns them into etcd's metric names.

use std::sync::atomic::AtomicU64;

/// Counted where things happen.
#[derive(Default)]
pub(crate) struct Counters {
    pub leader_changes: AtomicU64,
    pub slow_read_indexes: AtomicU64,
    pub read_indexes_failed: AtomicU64,
    pub snapshots_sent: AtomicU64,
    pub snapshots_received: AtomicU64,
    pub heartbeats_answered_early: AtomicU64,
    pub log_purges: AtomicU64,
}

#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub leader_changes: u64,
    pub has_leader: bool,
    pub is_leader: bool,
    pub is_learner: bool,
    /// Proposals of this member's clients that wait.
    pub proposals_pending: u64,
    /// Committed and applied log index.
    pub proposals_committed: u64,
    pub proposals_applied: u64,
    pub proposals_failed: u64,
    pub slow_read_indexes: u64,
    pub read_indexes_failed: u64,
    pub snapshots_sent: u64,
    pub snapshots_received: u64,
    /// Heartbeats that were answered before the disk had caught up.
    pub heartbeats_answered_early: u64,
    pub log_purges: u64,
    pub wal: wal::Metrics,
    pub state_commits: u64,
    pub state_durable_commits: u64,
    pub state_commit_us_total: u64,
    pub state_durable_commit_us_total: u64,
    pub state_rows: u64,
    pub unflushed_size_bytes: u64,
}
