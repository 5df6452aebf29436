//! One member of a replicated store: Raft (openraft) over the write-ahead log, the key space of `mvcc` as its state, the
//! other members over gRPC.
//!
//! What always holds: a proposal is answered by local apply, at most once in the log; a linearizable read follows a
//! round that began after it; a lease never expires early; what cannot be known is said to be unknown; after a failed
//! write to a disk the member ends. Not here: what commands mean (mvcc), bytes of the log (wal), client protocols (store).

mod backup;
mod codec;
mod config;
mod corruption;
#[doc(hidden)]
pub mod crash_suite;
mod damage;
mod data_dir;
mod defragment;
mod fatal;
mod flusher;
mod force;
#[doc(hidden)]
pub mod fuzzing;
mod handle;
mod histogram;
mod ids;
mod leadership;
mod leases;
mod log_owner;
mod log_store;
mod membership;
mod metrics;
mod peers;
#[cfg(feature = "planted")]
pub mod planted;
#[cfg(not(feature = "planted"))]
mod planted;
mod propose;
mod purge;
mod quarantine;
mod raft_types;
mod read_index;
mod scrub;
mod slow_apply;
mod snapshot;
mod start;
mod state;
mod state_file;
mod state_machine;
mod surroundings;
mod waiters;
mod watchdog;

pub use backup::{BackupError, Frozen, NewState};
pub use config::{Config, Member, PeerTls, STATE_SYNC_INTERVAL};
pub use corruption::Inconsistent;
pub use data_dir::{Identity, stored_identity};
pub use defragment::{Defragmented, defragment};
pub use fatal::FatalReason;
pub use flusher::FlushError;
pub use handle::{Handle, LeaseError, Status};
pub use histogram::{Durations, Histogram};
pub use ids::{cluster_id, member_id};
pub use leadership::Leadership;
pub use leases::LeaseRemaining;
pub use log_store::LogView;
pub use membership::MembershipError;
pub use metrics::{APPLY_BUCKETS_S, AppliedMetrics, ApplyDurations, CompactionMetrics, Metrics};
pub use peers::meter::PeerMetrics;
pub use peers::{DiscoverError, Discovered, LinkError, discover};
pub use propose::ProposeError;
pub use read_index::ReadError;
pub use scrub::ScrubPace;
pub use start::{StartError, start};
pub use state::RestoreError;
pub use state_file::StateFileError;
pub use surroundings::{BoxFuture, Latency, Listener, Network, Stream, Surroundings, Threads};
/// Bounds of `Metrics::wal.fsync_buckets`, in seconds.
pub use wal::FSYNC_BUCKETS_S;

pub(crate) type Raft = openraft::Raft<raft_types::TypeConfig, state_machine::StateMachine>;

/// A member as the newest membership in the log (not only the applied one) knows it.
fn node_of(raft: &Raft, id: u64) -> Option<raft_types::Node> {
    use openraft::async_runtime::watch::WatchReceiver;
    raft.metrics().borrow_watched().membership_config.get_node(&id).cloned()
}
