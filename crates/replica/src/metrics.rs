//! Numbers about a member. The store layer turns them into etcd's metric names.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mvcc::{Applied, AuthCommand, Command, OpReply, Reply, TxnReply};

use crate::histogram::{Durations, Histogram};
use crate::peers::meter::PeerMetrics;

/// Bounds in seconds, as etcd has them for snapshots between members.
const SNAPSHOT_BUCKETS_S: [f64; 10] = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2];

/// Bounds of applies in seconds. Source: etcd server/etcdserver/metrics.go.
pub const APPLY_BUCKETS_S: [f64; 20] = [
    0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032, 0.0064, 0.0128, 0.0256, 0.0512, 0.1024, 0.2048, 0.4096,
    0.8192, 1.6384, 3.2768, 6.5536, 13.1072, 26.2144, 52.4288,
];
/// Bounds of leases' times in seconds. Source: etcd server/lease/metrics.go.
const LEASE_BUCKETS_S: [f64; 24] = [
    1.0,
    2.0,
    4.0,
    8.0,
    16.0,
    32.0,
    64.0,
    128.0,
    256.0,
    512.0,
    1024.0,
    2048.0,
    4096.0,
    8192.0,
    16384.0,
    32768.0,
    65536.0,
    131_072.0,
    262_144.0,
    524_288.0,
    1_048_576.0,
    2_097_152.0,
    4_194_304.0,
    8_388_608.0,
];

/// Counted where things happen.
pub(crate) struct Counters {
    pub leader_changes: AtomicU64,
    pub slow_read_indexes: AtomicU64,
    pub read_indexes_failed: AtomicU64,
    pub snapshots_sent: AtomicU64,
    pub snapshots_received: AtomicU64,
    pub heartbeats_answered_early: AtomicU64,
    pub log_purges: AtomicU64,
    pub corruption_checks: CorruptionChecks,
    pub applied: AppliedCounters,
    pub snapshots_being_sent: AtomicU64,
    pub snapshots_being_received: AtomicU64,
    pub snapshot_send: Histogram,
    pub snapshot_receive: Histogram,
    pub snapshot_sync: Histogram,
}

impl Default for Counters {
    fn default() -> Counters {
        Counters {
            leader_changes: AtomicU64::new(0),
            slow_read_indexes: AtomicU64::new(0),
            read_indexes_failed: AtomicU64::new(0),
            snapshots_sent: AtomicU64::new(0),
            snapshots_received: AtomicU64::new(0),
            heartbeats_answered_early: AtomicU64::new(0),
            log_purges: AtomicU64::new(0),
            corruption_checks: CorruptionChecks::default(),
            applied: AppliedCounters::default(),
            snapshots_being_sent: AtomicU64::new(0),
            snapshots_being_received: AtomicU64::new(0),
            snapshot_send: Histogram::new(&SNAPSHOT_BUCKETS_S),
            snapshot_receive: Histogram::new(&SNAPSHOT_BUCKETS_S),
            snapshot_sync: Histogram::new(&wal::FSYNC_BUCKETS_S),
        }
    }
}

/// What was applied since the member started.
pub(crate) struct AppliedCounters {
    pub puts: AtomicU64,
    pub deletions: AtomicU64,
    pub transactions: AtomicU64,
    pub leases_granted: AtomicU64,
    pub leases_revoked: AtomicU64,
    pub leases_expired: AtomicU64,
    pub slow: AtomicU64,
    lease_time: Histogram,
    /// By place in `OPERATIONS`, failed ones first.
    durations: [[Histogram; 2]; OPERATIONS.len()],
}

impl Default for AppliedCounters {
    fn default() -> AppliedCounters {
        AppliedCounters {
            puts: AtomicU64::new(0),
            deletions: AtomicU64::new(0),
            transactions: AtomicU64::new(0),
            leases_granted: AtomicU64::new(0),
            leases_revoked: AtomicU64::new(0),
            leases_expired: AtomicU64::new(0),
            slow: AtomicU64::new(0),
            lease_time: Histogram::new(&LEASE_BUCKETS_S),
            durations: std::array::from_fn(|_| std::array::from_fn(|_| Histogram::new(&APPLY_BUCKETS_S))),
        }
    }
}

/// etcd's names of what the log holds.
const OPERATIONS: [&str; 22] = [
    "Put",
    "DeleteRange",
    "Txn",
    "Compaction",
    "LeaseGrant",
    "LeaseRevoke",
    "LeaseCheckpoint",
    "Alarm",
    "ClusterMemberAttrSet",
    "ClusterVersionSet",
    "Authenticate",
    "AuthEnable",
    "AuthDisable",
    "AuthUserAdd",
    "AuthUserDelete",
    "AuthUserChangePassword",
    "AuthUserGrantRole",
    "AuthUserRevokeRole",
    "AuthRoleAdd",
    "AuthRoleDelete",
    "AuthRoleGrantPermission",
    "AuthRoleRevokePermission",
];

/// The place in `OPERATIONS`.
fn operation(command: &Command) -> Option<usize> {
    Some(match command {
        Command::Noop => return None,
        Command::Put(_) => 0,
        Command::DeleteRange(_) => 1,
        Command::Txn(_) => 2,
        Command::Compact(_) => 3,
        Command::LeaseGrant(_) => 4,
        Command::LeaseRevoke(_) | Command::LeaseExpire(_) => 5,
        Command::LeaseCheckpoint(_) => 6,
        Command::Alarm(_) => 7,
        Command::MemberAttributes(_) => 8,
        Command::ClusterVersion(_) => 9,
        Command::Auth(command) => match command {
            AuthCommand::Token { .. } => 10,
            AuthCommand::Enable => 11,
            AuthCommand::Disable => 12,
            AuthCommand::UserAdd { .. } => 13,
            AuthCommand::UserDelete { .. } => 14,
            AuthCommand::UserChangePassword { .. } => 15,
            AuthCommand::UserGrantRole { .. } => 16,
            AuthCommand::UserRevokeRole { .. } => 17,
            AuthCommand::RoleAdd { .. } => 18,
            AuthCommand::RoleDelete { .. } => 19,
            AuthCommand::RoleGrantPermission { .. } => 20,
            AuthCommand::RoleRevokePermission { .. } => 21,
        },
    })
}

impl AppliedCounters {
    pub(crate) fn count(&self, command: &Command, applied: &Applied, took: Duration) {
        if let Some(durations) = operation(command).and_then(|place| self.durations.get(place)) {
            durations[usize::from(applied.result.is_ok())].observe(took);
        }
        if let (Command::LeaseGrant(grant), Ok(_)) = (command, &applied.result) {
            self.lease_time.observe(Duration::from_secs(grant.ttl_s.max(0).cast_unsigned()));
        }
        let add = |counter: &AtomicU64, number: usize| {
            counter.fetch_add(number as u64, Ordering::Relaxed);
        };
        match &applied.result {
            Ok(Reply::Put(_)) => add(&self.puts, 1),
            Ok(Reply::DeleteRange(_)) => add(&self.deletions, 1),
            Ok(Reply::Txn(reply)) => self.count_txn(reply),
            Ok(Reply::LeaseGrant(_)) => add(&self.leases_granted, 1),
            Ok(Reply::LeaseRevoke) => add(&self.leases_revoked, 1),
            Ok(Reply::LeaseExpire(ids)) => add(&self.leases_expired, ids.len()),
            Ok(
                Reply::Noop
                | Reply::Compact
                | Reply::LeaseCheckpoint(_)
                | Reply::Alarm(_)
                | Reply::Auth
                | Reply::MemberAttributes
                | Reply::ClusterVersion,
            )
            | Err(_) => {}
        }
    }

    fn count_txn(&self, reply: &TxnReply) {
        self.transactions.fetch_add(1, Ordering::Relaxed);
        for reply in &reply.responses {
            match reply {
                OpReply::Put(_) => _ = self.puts.fetch_add(1, Ordering::Relaxed),
                OpReply::DeleteRange(_) => _ = self.deletions.fetch_add(1, Ordering::Relaxed),
                OpReply::Txn(nested) => self.count_txn(nested),
                OpReply::Range(_) => {}
            }
        }
    }

    pub(crate) fn metrics(&self) -> AppliedMetrics {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        AppliedMetrics {
            puts: load(&self.puts),
            deletions: load(&self.deletions),
            transactions: load(&self.transactions),
            leases_granted: load(&self.leases_granted),
            leases_revoked: load(&self.leases_revoked),
            leases_expired: load(&self.leases_expired),
            slow: load(&self.slow),
            lease_time: self.lease_time.durations(),
            durations: OPERATIONS
                .iter()
                .zip(&self.durations)
                .flat_map(|(operation, [failed, done])| {
                    [(false, failed), (true, done)].map(|(succeeded, histogram)| ApplyDurations {
                        operation,
                        succeeded,
                        durations: histogram.durations(),
                    })
                })
                .filter(|applies| applies.durations.count() > 0)
                .collect(),
        }
    }
}

/// See `AppliedCounters`; operations inside of transactions count too.
#[derive(Clone, Debug, Default)]
pub struct AppliedMetrics {
    pub puts: u64,
    pub deletions: u64,
    pub transactions: u64,
    pub leases_granted: u64,
    pub leases_revoked: u64,
    pub leases_expired: u64,
    /// Took longer than `Config::slow_apply`.
    pub slow: u64,
    /// Times to live that were granted.
    pub lease_time: Durations,
    /// Of operations that happened.
    pub durations: Vec<ApplyDurations>,
}

/// How long one kind of entry takes to apply.
#[derive(Clone, Debug)]
pub struct ApplyDurations {
    /// etcd's name.
    pub operation: &'static str,
    pub succeeded: bool,
    pub durations: Durations,
}

/// Something that is under way and counted as long as this lives.
pub(crate) struct InFlight<'a>(&'a AtomicU64);

impl InFlight<'_> {
    pub(crate) fn begin(counter: &AtomicU64) -> InFlight<'_> {
        counter.fetch_add(1, Ordering::Relaxed);
        InFlight(counter)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Comparisons with the other members, by outcome.
#[derive(Default)]
pub(crate) struct CorruptionChecks {
    pub passed: AtomicU64,
    pub failed: AtomicU64,
    pub incomplete: AtomicU64,
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
    /// Comparisons that found every member equal.
    pub corruption_checks_passed: u64,
    /// That found a difference.
    pub corruption_checks_failed: u64,
    /// That could not compare every member, and so say nothing.
    pub corruption_checks_incomplete: u64,
    pub wal: wal::Metrics,
    pub applied: AppliedMetrics,
    /// The other members, by id.
    pub peers: Vec<PeerMetrics>,
    pub snapshots_being_sent: u64,
    pub snapshots_being_received: u64,
    pub snapshot_send: Durations,
    pub snapshot_receive: Durations,
    /// Received state that was made durable.
    pub snapshot_sync: Durations,
    /// Transactions of the state file, and those of them that were synced.
    pub state_commit: Durations,
    pub state_durable_commit: Durations,
    pub state_rows: u64,
    pub compaction: CompactionMetrics,
    /// Places of the state file that were found damaged.
    pub state_damage_found: u64,
    pub scrub_passes: u64,
    pub scrub_size_bytes: u64,
    pub unflushed_size_bytes: u64,
}

/// Physical compaction since the member started.
#[derive(Clone, Debug, Default)]
pub struct CompactionMetrics {
    /// Records removed.
    pub rows: u64,
    /// When a pass last ended, in seconds since 1970; 0: never.
    pub last_unix_s: u64,
    /// Time in which readers and writers waited for a slice.
    pub pauses: Durations,
    /// From the first slice of a pass to its last.
    pub passes: Durations,
}
