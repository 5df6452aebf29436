//! What a member is started with. Plain data; parsing flags is the caller's business.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use crate::data_dir::Identity;
use crate::scrub::ScrubPace;
use crate::surroundings::Surroundings;

/// A member as clients see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    pub id: u64,
    /// Empty until the member has started and published it.
    pub name: String,
    pub peer_urls: Vec<String>,
    pub client_urls: Vec<String>,
    pub is_learner: bool,
}

/// TLS between members: one configuration for each direction, with whatever client authentication they ask for. Asked
/// for before each handshake, because certificates change while a member runs; both must offer `h2`.
#[derive(Clone)]
pub struct PeerTls {
    pub server: Arc<dyn Fn() -> Arc<rustls::ServerConfig> + Send + Sync>,
    pub client: Arc<dyn Fn() -> Arc<rustls::ClientConfig> + Send + Sync>,
}

impl std::fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PeerTls")
    }
}

#[derive(Clone, Debug)]
pub struct Config {
    pub identity: Identity,
    pub name: String,
    /// Created with mode 0700.
    pub data_dir: PathBuf,
    /// The members that a new cluster begins with, the same list on each of them. Used only when `new_cluster` is set
    /// and the data directory is empty.
    pub initial_members: Vec<Member>,
    pub new_cluster: bool,
    /// Makes a cluster of this member alone from its data; see force.rs. Without data it has no effect.
    pub force_new_cluster: bool,
    pub listen_peer_urls: Vec<SocketAddr>,
    /// Socket files to listen on, beside those.
    pub listen_peer_files: Vec<PathBuf>,
    pub advertise_peer_urls: Vec<String>,
    pub peer_tls: Option<PeerTls>,
    pub heartbeat_interval_ms: u64,
    pub election_timeout_ms: u64,
    pub pre_vote: bool,
    /// Log entries kept behind the durable applied index, for followers that lag. At least 1.
    pub snapshot_count: u64,
    pub fsync: bool,
    pub wal_segment_size_bytes: u64,
    /// Between two transactions of the state file that wait for the disk.
    pub state_sync_interval: Duration,
    /// redb's page cache.
    pub state_cache_size_bytes: usize,
    /// Recent log entries kept in memory.
    pub log_tail_size_bytes: usize,
    pub limits: mvcc::Limits,
    pub request_size_bytes_max: usize,
    /// How long a proposal or a read waits.
    pub request_timeout: Duration,
    /// Proposals of this member's clients that may wait at the same time, and the greatest distance between the
    /// committed and the applied index. Source: etcd server/etcdserver/v3_server.go `maxGapBetweenApplyAndCommitIndex`.
    pub proposals_max: usize,
    pub learners_max: usize,
    pub strict_reconfig_check: bool,
    /// The system's, or a simulation's.
    pub surroundings: Surroundings,
    /// Compare with the others before anything is served, and refuse to start if they differ.
    pub initial_corrupt_check: bool,
    /// Time between comparisons of everything with the others, while this member leads; `None`: never.
    pub corrupt_check_interval: Option<Duration>,
    /// Time between looks whether there is a compaction whose remains were not compared; `None`: never.
    pub compact_hash_check_interval: Option<Duration>,
    /// Time after which the log learns how much is left of a lease that has more; `None`: never, a new leader gives full
    /// time again.
    pub lease_checkpoint_interval: Option<Duration>,
    /// An apply that takes longer is logged.
    pub slow_apply: Duration,
    /// The directory of the log; `None`: below the data directory.
    pub wal_dir: Option<PathBuf>,
    /// Keys that one step of a compaction handles, and the pause between two steps.
    pub compact_keys_max: usize,
    pub compact_pause: Duration,
    /// Log entries kept however large the log is.
    pub log_entries_min: u64,
    /// How the state file is read through in search of damage.
    pub scrub: ScrubPace,
}

/// What a start after a power cut has to replay at most, in time.
pub const STATE_SYNC_INTERVAL: Duration = Duration::from_secs(1);

impl Config {
    /// etcd's defaults.
    pub fn new(
        identity: Identity,
        name: impl Into<String>,
        data_dir: impl Into<PathBuf>,
        initial_members: Vec<Member>,
        listen_peer_urls: Vec<SocketAddr>,
    ) -> Config {
        let advertised = initial_members.iter().find(|member| member.id == identity.member_id);
        let advertise_peer_urls = advertised.map(|member| member.peer_urls.clone()).unwrap_or_default();
        Config {
            identity,
            name: name.into(),
            data_dir: data_dir.into(),
            initial_members,
            new_cluster: true,
            force_new_cluster: false,
            listen_peer_urls,
            listen_peer_files: Vec::new(),
            advertise_peer_urls,
            peer_tls: None,
            heartbeat_interval_ms: 100,
            election_timeout_ms: 1_000,
            pre_vote: true,
            snapshot_count: 100_000,
            fsync: true,
            wal_segment_size_bytes: 64 << 20,
            state_sync_interval: STATE_SYNC_INTERVAL,
            state_cache_size_bytes: 64 << 20,
            log_tail_size_bytes: 64 << 20,
            limits: mvcc::Limits::default(),
            request_size_bytes_max: 1_572_864,
            request_timeout: Duration::from_millis(5_000 + 2 * 1_000),
            proposals_max: 5_000,
            learners_max: 1,
            strict_reconfig_check: true,
            surroundings: Surroundings::system(),
            initial_corrupt_check: false,
            corrupt_check_interval: None,
            compact_hash_check_interval: None,
            lease_checkpoint_interval: None,
            slow_apply: Duration::from_millis(100),
            wal_dir: None,
            compact_keys_max: 1_000,
            compact_pause: Duration::from_millis(2),
            log_entries_min: 5_000,
            scrub: ScrubPace::default(),
        }
    }
}
