//! Opens a data directory and brings a member up.
//!
//! Order: lock, identity, state file, log, a question to the others if both are empty, peer port, replay of what is known
//! to be committed, Raft, services. Nothing is served before the state is what it was when the member stopped. The port
//! comes behind the question: members that start together find no port where nobody answers yet.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use openraft::SnapshotPolicy;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::codec::CodecError;
use crate::config::{Config, Member};
use crate::data_dir::{DataDir, Identity};
use crate::fatal::Fatal;
use crate::flusher::{self, Flusher, Pace};
use crate::force::{self, Forced};
use crate::handle::{Handle, Inner};
use crate::leadership::{Contact, Leadership, Watcher};
use crate::leases::Leases;
use crate::log_owner::{self, LogOwner, OpenedLog};
use crate::log_store::{LogStore, cut_contradiction};
use crate::metrics::Counters;
use crate::peers::{self, Peers};
use crate::planted::{self, Bug};
use crate::propose::{ForwardTask, Forwarder};
use crate::quarantine::{self, FirstStart, Floor, Reason};
use crate::raft_types::*;
use crate::read_index::{ReadIndex, Rounds};
use crate::snapshot;
use crate::state::{self, RestoreError, State};
use crate::state_file::{StateFile, StateFileError};
use crate::state_machine::StateMachine;
use crate::surroundings::{self, Listener, Network};
use crate::waiters::Waiters;
use crate::{Raft, corruption, damage, purge, watchdog};

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "data directory belongs to another cluster: it says {found:x}, the configuration says {expected:x}"
    )]
    WrongCluster { found: u64, expected: u64 },
    #[error(
        "data directory belongs to another member: it says {found:x}, the configuration says {expected:x}"
    )]
    WrongMember { found: u64, expected: u64 },
    #[error("{path} is held by another process")]
    Locked { path: PathBuf },
    #[error("listen tcp {addr}: bind: address already in use")]
    PortInUse { addr: SocketAddr },
    /// Acknowledged data is damaged, and there is no other member to get it from.
    #[error(
        "{file} is damaged at offset {offset}: acknowledged entries are lost, and a single member cannot get them \
         back; restore a snapshot, or start an empty data directory"
    )]
    Corrupt { file: PathBuf, offset: u64 },
    #[error(
        "the log begins at index {log_first}, the state file ends at {state_last}: entries between are missing"
    )]
    Gap { log_first: u64, state_last: u64 },
    #[error("configuration: {0}")]
    Config(String),
    /// The cluster that `--force-new-cluster` would leave behind takes writes.
    #[error(
        "--force-new-cluster: the cluster lives: {name} ({member:x}) at {url} follows the leader {leader:x}, and what \
         it acknowledges would be lost. Start this member without the flag; if this member is to go on alone, stop \
         the others first"
    )]
    StillLed { name: String, member: u64, url: String, leader: u64 },
    /// Votes and acknowledged entries may be in a log elsewhere.
    #[error("no log in {path}, but the member has run before: give the --wal-dir that it had")]
    NoLog { path: PathBuf },
    #[error("{path}: {source}")]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("listen unix {path}: {source}", path = .path.display())]
    ListenFile { path: std::path::PathBuf, source: std::io::Error },
    #[error("listen tcp {addr}: {source}")]
    Listen {
        addr: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    StateFile(#[from] StateFileError),
    #[error(transparent)]
    Restore(#[from] RestoreError),
    #[error("write-ahead log: {0}")]
    Log(#[from] wal::OpenError),
    #[error("write-ahead log: {0}")]
    LogContent(#[from] CodecError),
    #[error("replay the log: {0}")]
    Replay(#[source] std::io::Error),
    #[error("raft: {0}")]
    Raft(String),
    #[error(transparent)]
    Inconsistent(#[from] corruption::Inconsistent),
}

/// A predecessor in the same directory may still be closing its files.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const REPLAY_ENTRIES: u64 = 4_096;

/// Starts a member; returns when it serves its peers. Leadership may take a moment longer.
pub async fn start(config: Config, shutdown: CancellationToken) -> Result<Handle, StartError> {
    check(&config)?;
    let data_dir = Arc::new(lock(&config).await?);
    check_identity(&data_dir, config.identity)?;
    // Who has a log has something to tell: a member that lost its own and asks gets an answer soon, however long this one
    // takes to open its files. Who has none is not waited for, so that a new cluster starts at once.
    let (listeners, opened) = if data_dir.has_log() {
        let listeners = listen(&config).await?;
        (listeners, open(&config, &data_dir).await?)
    } else {
        let opened = open(&config, &data_dir).await?;
        match listen(&config).await {
            Ok(listeners) => (listeners, opened),
            Err(error) => {
                // The log's thread lets go of its directory before anybody is told that the start failed.
                let wal = opened.log.wal.clone();
                drop(opened);
                let closed = config.surroundings.blocking(move || wal.close()).await;
                return Err(closed.map_or_else(|panic| StartError::Raft(panic.to_string()), |()| error));
            }
        }
    };
    run(config, data_dir, listeners, opened, shutdown.child_token()).await
}

async fn listen(config: &Config) -> Result<Vec<Box<dyn Listener>>, StartError> {
    let mut listeners = bind(&*config.surroundings.network, &config.listen_peer_urls).await?;
    for path in &config.listen_peer_files {
        let failed = |source| StartError::ListenFile { path: path.clone(), source };
        listeners.push(surroundings::listen_file(path).await.map_err(failed)?);
    }
    Ok(listeners)
}

fn check(config: &Config) -> Result<(), StartError> {
    if config.heartbeat_interval_ms == 0 || config.election_timeout_ms < 5 * config.heartbeat_interval_ms {
        return Err(StartError::Config(format!(
            "--election-timeout[{}ms] should be at least as 5 times as --heartbeat-interval[{}ms]",
            config.election_timeout_ms, config.heartbeat_interval_ms
        )));
    }
    Ok(())
}

async fn lock(config: &Config) -> Result<DataDir, StartError> {
    let deadline = tokio::time::Instant::now() + LOCK_PATIENCE;
    loop {
        match DataDir::open(config.surroundings.disk.clone(), &config.data_dir) {
            Err(StartError::Locked { .. }) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            other => return Ok(other?.with_wal(config.wal_dir.clone())),
        }
    }
}

/// A directory that is nobody's is ours from now on.
fn check_identity(data_dir: &DataDir, expected: Identity) -> Result<(), StartError> {
    match data_dir.identity()? {
        None => data_dir.set_identity(expected),
        Some(found) if found.cluster_id != expected.cluster_id => {
            Err(StartError::WrongCluster { found: found.cluster_id, expected: expected.cluster_id })
        }
        Some(found) if found.member_id != expected.member_id => {
            Err(StartError::WrongMember { found: found.member_id, expected: expected.member_id })
        }
        Some(_) => Ok(()),
    }
}

async fn bind(network: &dyn Network, addresses: &[SocketAddr]) -> Result<Vec<Box<dyn Listener>>, StartError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for addr in addresses {
        match network.listen(*addr).await {
            Ok(listener) => listeners.push(listener),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                return Err(StartError::PortInUse { addr: *addr });
            }
            Err(source) => return Err(StartError::Listen { addr: *addr, source }),
        }
    }
    Ok(listeners)
}

/// What the disk had.
struct Opened {
    state: State,
    log: OpenedLog,
    /// From here on the log on disk contradicts the state file; `log` has it no more.
    cut_from: Option<u64>,
    /// Goes into the log before anything else happens.
    bootstrap: Option<RaftEntry>,
    /// The log's lost entries are given up: it counts as whole from now on.
    healed: bool,
    forced: Option<Forced>,
    /// Members that are none any more, whatever is applied.
    left_behind: BTreeSet<u64>,
}

async fn open(config: &Config, data_dir: &Arc<DataDir>) -> Result<Opened, StartError> {
    let mut bootstrap = None;
    let mut healed = false;
    let (blocking_config, blocking_dir) = (config.clone(), data_dir.clone());
    let opening = config.surroundings.blocking(move || open_files(&blocking_config, &blocking_dir));
    let (state, mut log) = opening.await.map_err(|error| StartError::Raft(error.to_string()))??;
    let applied = state.position().applied;
    // Before anybody reads the log: a membership in the part that is void must not be taken for the newest one.
    let cut_from = applied.and_then(|applied| cut_contradiction(&mut log.recovered.entries, applied));
    let recovered = &log.recovered;
    if let wal::Damage::TornTail { file, offset, dropped_bytes } = &recovered.damage {
        tracing::warn!(file = %file.display(), offset, dropped_bytes, "cut off a write that was never acknowledged");
    }
    if let wal::Damage::LostAcknowledged { file, offset, last_good_index, acknowledged_index } =
        &recovered.damage
    {
        let voters = newest_voters(&state, recovered, &config.initial_members)?;
        if config.force_new_cluster {
            tracing::error!(
                file = %file.display(), offset, last_good_index, acknowledged_index,
                "acknowledged log entries are lost for good: the new cluster begins without them"
            );
            healed = true;
        } else if voters.iter().all(|id| *id == config.identity.member_id) {
            return Err(StartError::Corrupt { file: file.clone(), offset: *offset });
        } else {
            tracing::error!(
                file = %file.display(), offset, last_good_index, acknowledged_index,
                "acknowledged log entries are lost: no votes until a leader has sent them again"
            );
            // An emptied directory whose new log is damaged is one that has forgotten its votes still.
            if data_dir.quarantine().is_none() {
                set_quarantine(data_dir, Reason::Damaged)?;
            }
        }
    }
    // Whether there is an identity says nothing: it is the first thing that a start writes, and perhaps the last.
    let empty = recovered.entries.is_empty() && recovered.purged.is_none() && state.applied_next() == 0;
    let lost = matches!(recovered.damage, wal::Damage::LostAcknowledged { .. });
    // A first start that ended before it had written the first entry is one still.
    let before = data_dir.quarantine();
    if empty && !lost && (before.is_none() || before == Some(Reason::FirstStart)) {
        let emptied = if config.new_cluster {
            let first_start = quarantine::first_start(config).await;
            if first_start == FirstStart::Unknown {
                set_quarantine(data_dir, Reason::FirstStart)?;
            }
            first_start == FirstStart::HasHistory
        } else {
            quarantine::was_started_before(config).await
        };
        if emptied {
            tracing::warn!(
                "the cluster has a log, the data directory of this member is empty: no votes until it has caught up"
            );
            set_quarantine(data_dir, Reason::Emptied)?;
        } else if config.new_cluster {
            bootstrap = Some(first_entry(&config.initial_members)?);
        }
    }
    let mut forced = None;
    if config.force_new_cluster && bootstrap.is_none() {
        forced = Some(force::prepare(config, &state, recovered).await?);
    }
    let me = config.identity.member_id;
    let left_behind = force::left_behind(me, forced.as_ref(), recovered, &state.position())?;
    Ok(Opened { state, log, cut_from, bootstrap, healed, forced, left_behind })
}

fn set_quarantine(data_dir: &DataDir, reason: Reason) -> Result<(), StartError> {
    let path = PathBuf::from("quarantine");
    data_dir.set_quarantine(reason).map_err(|source| StartError::Io { path, source })
}

fn open_files(config: &Config, data_dir: &DataDir) -> Result<(State, OpenedLog), StartError> {
    let path = data_dir.state_file();
    let disk = &config.surroundings.disk;
    let file = Arc::new(StateFile::open(disk, &path, config.state_cache_size_bytes)?);
    let view = file.view()?;
    let store = state::restore(&view, config.limits.clone())?;
    // A state made from a backup has term 0 and never had a log.
    let ran_before = view.position.applied.is_some_and(|id| id.leader_id.term > 0);
    if ran_before && !data_dir.has_log() {
        return Err(StartError::NoLog { path: data_dir.wal() });
    }
    let mut log = wal::Config::new(data_dir.wal());
    log.segment_size_bytes = config.wal_segment_size_bytes;
    log.fsync = config.fsync;
    let Identity { cluster_id, member_id } = config.identity;
    log.identity = Some(wal::Identity { cluster_id, member_id });
    let log = log_owner::open(log, &config.surroundings).map_err(|error| match error {
        wal::OpenError::WrongIdentity { expected, found, .. } if expected.cluster_id != found.cluster_id => {
            StartError::WrongCluster { found: found.cluster_id, expected: expected.cluster_id }
        }
        wal::OpenError::WrongIdentity { expected, found, .. } => {
            StartError::WrongMember { found: found.member_id, expected: expected.member_id }
        }
        wal::OpenError::Locked { dir } => StartError::Locked { path: dir },
        other => StartError::Log(other),
    })?;
    let position = view.position.clone();
    drop(view);
    Ok((State::new(store, position, file), log))
}

/// The voters that the newest membership names, whether applied or only logged.
fn newest_voters(
    state: &State,
    recovered: &wal::Recovered,
    initial: &[Member],
) -> Result<Vec<u64>, CodecError> {
    let voters: Vec<u64> = force::newest_membership(recovered, &state.position())?.voter_ids().collect();
    if voters.is_empty() {
        return Ok(initial.iter().filter(|member| !member.is_learner).map(|member| member.id).collect());
    }
    Ok(voters)
}

/// The first entry of a new cluster's log: its members. The same bytes on every member.
pub(crate) fn first_entry(members: &[Member]) -> Result<RaftEntry, StartError> {
    let payload = openraft::EntryPayload::Membership(first_membership(members)?);
    Ok(RaftEntry { log_id: log_id(0, 0), payload })
}

pub(crate) fn first_membership(members: &[Member]) -> Result<Membership, StartError> {
    let voters = members.iter().filter(|member| !member.is_learner).map(|member| member.id).collect();
    let node = |member: &Member| Node {
        name: member.name.clone(),
        peer_urls: member.peer_urls.clone(),
        joining: false,
    };
    let nodes: std::collections::BTreeMap<u64, Node> =
        members.iter().map(|member| (member.id, node(member))).collect();
    Membership::new(vec![voters], nodes)
        .map_err(|error| StartError::Config(format!("initial cluster: {error}")))
}

fn raft_config(config: &Config, quarantined: bool) -> Result<Arc<openraft::Config>, StartError> {
    let heartbeat = config.heartbeat_interval_ms;
    let election = config.election_timeout_ms;
    // openraft waits for the leader's lease (the upper bound) and then for a time between the bounds: together between
    // one and 1.2 election timeouts.
    let election_timeout_max = (election * 3 / 5).max(heartbeat + 3);
    let election_timeout_min = (election * 2 / 5).max(heartbeat + 1).min(election_timeout_max - 1);
    let raft = openraft::Config {
        cluster_name: format!("{:x}", config.identity.cluster_id),
        heartbeat_interval: heartbeat,
        election_timeout_min,
        election_timeout_max,
        max_payload_entries: 1_024,
        // Our own schedule: purge.rs.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        enable_pre_vote: Some(config.pre_vote),
        enable_elect: !quarantined || planted::is(Bug::QuarantineIgnored),
        enable_leader_restore: Some(false),
        // A member that lost its disk starts over; it has no vote until it has caught up.
        allow_log_reversion: Some(true),
        backoff: "20ms 40ms 80ms ...500ms".to_owned(),
        ..openraft::Config::default()
    };
    Ok(Arc::new(raft.validate().map_err(|error| StartError::Config(error.to_string()))?))
}

/// A member whose state is what its disk says, before Raft runs. Nobody else was needed for it.
pub(crate) struct Raised {
    pub(crate) machine: StateMachine,
    pub(crate) flusher: Flusher,
    pub(crate) log_owner: LogOwner,
    left_behind: BTreeSet<u64>,
}

/// Opens a directory without serving anybody.
pub(crate) async fn recover(config: &Config) -> Result<Raised, StartError> {
    let data_dir = Arc::new(lock(config).await?);
    check_identity(&data_dir, config.identity)?;
    let opened = open(config, &data_dir).await?;
    raise(config, data_dir, opened).await
}

async fn raise(config: &Config, data_dir: Arc<DataDir>, opened: Opened) -> Result<Raised, StartError> {
    let Opened { state, log, cut_from, bootstrap, healed, forced, left_behind } = opened;
    let surroundings = config.surroundings.clone();
    let (wal, recovered, log_owner) = log.start(&surroundings);
    let fatal = Fatal::new();
    let state = Arc::new(state);
    let log = LogStore::new(
        wal,
        recovered,
        state.position().applied,
        state.durable_watch(),
        config.log_tail_size_bytes,
        fatal.clone(),
        surroundings.clone(),
    )?;
    if let Some(from_index) = cut_from {
        log.cut(from_index);
    }
    if healed || bootstrap.is_some() || forced.is_some() {
        log.reach(state.position().applied).await.map_err(StartError::Replay)?;
    }
    if let Some(entry) = bootstrap {
        log.bootstrap(entry).await.map_err(StartError::Replay)?;
    }
    let is_forced = forced.is_some();
    if let Some(forced) = forced {
        forced.write(&log).await.map_err(StartError::Replay)?;
    }
    if healed {
        log.healed().await.map_err(StartError::Replay)?;
    }
    if is_forced {
        force::give_vote_back(&data_dir)?;
    }
    let (flusher_handle, inbox) = flusher::channel();
    let mut machine = StateMachine {
        member_id: config.identity.member_id,
        state: state.clone(),
        waiters: Waiters::new(),
        leases: Arc::new(Leases::new(config.lease_checkpoint_interval)),
        log,
        flusher: flusher_handle.clone(),
        data_dir: data_dir.clone(),
        disk: surroundings.disk.clone(),
        counters: Arc::new(Counters::default()),
        slow_apply: config.slow_apply,
        fatal: fatal.clone(),
    };
    let pace = Pace {
        compact_keys_max: config.compact_keys_max.max(1),
        compact_pause: config.compact_pause,
        sync_interval: config.state_sync_interval,
        scrub: config.scrub.clone(),
    };
    let flusher = Flusher::start(flusher_handle, inbox, state, fatal, surroundings, pace)
        .map_err(|source| StartError::Io { path: data_dir.state_file(), source })?;
    replay(&mut machine).await?;
    Ok(Raised { machine, flusher, log_owner, left_behind })
}

async fn run(
    config: Config,
    data_dir: Arc<DataDir>,
    listeners: Vec<Box<dyn Listener>>,
    opened: Opened,
    shutdown: CancellationToken,
) -> Result<Handle, StartError> {
    let Raised { machine, flusher, log_owner, left_behind } =
        raise(&config, data_dir.clone(), opened).await?;
    let surroundings = config.surroundings.clone();
    let identity = config.identity;
    let election_timeout = Duration::from_millis(config.election_timeout_ms);
    let fatal = machine.fatal.clone();
    let state = machine.state.clone();
    let waiters = machine.waiters.clone();
    let leases = machine.leases.clone();
    let counters = machine.counters.clone();
    let log = machine.log.clone();
    let flusher_handle = machine.flusher.clone();
    let contact = Arc::new(Contact::new());

    let quarantine = data_dir.quarantine();
    let quarantined = quarantine.is_some();
    // Who has a log has voted in the term of its last entry at least, or has followed its leader.
    let view = log.view(0);
    let last_term = view.last.map_or(0, |(term, _)| term);
    let forgets_votes = quarantined && view.vote_term < last_term.max(1);
    let network = surroundings.network.clone();
    let peers = Peers::new(identity, network, config.peer_tls.clone(), election_timeout, fatal.clone());
    if config.initial_corrupt_check {
        let checked = corruption::initial(identity.member_id, &state, &peers, &counters).await;
        if let Err(inconsistent) = checked {
            flusher.stop(false).await;
            let closing = move || {
                log.wal().close();
                state.with_core(|core| core.file.close());
            };
            // Fails only when closing panics, and then there is nothing better to say.
            let _closed = surroundings.blocking(closing).await;
            log_owner.ended().await;
            data_dir.unlock();
            return Err(inconsistent.into());
        }
    }
    let network = peers::network::Network {
        peers: peers.clone(),
        export_slots: snapshot::export_slots(),
        counters: counters.clone(),
        surroundings,
    };
    let raft_config = raft_config(&config, quarantined)?;
    let raft = Raft::new(identity.member_id, raft_config, network, log.clone(), machine)
        .await
        .map_err(|error| StartError::Raft(error.to_string()))?;

    let (sender, leadership) = watch::channel(Leadership::default());
    let watcher = Watcher {
        member_id: identity.member_id,
        raft: raft.clone(),
        state: state.clone(),
        leases: leases.clone(),
        contact: contact.clone(),
        counters: counters.clone(),
        fatal: fatal.clone(),
        election_timeout,
        sender,
    };
    tokio::spawn(watcher.run(shutdown.clone()));
    let rounds = Rounds {
        member_id: identity.member_id,
        raft: raft.clone(),
        state: state.clone(),
        peers: peers.clone(),
        counters: counters.clone(),
        leadership: leadership.clone(),
    };
    let forward = ForwardTask {
        member_id: identity.member_id,
        raft: raft.clone(),
        peers: peers.clone(),
        waiters: waiters.clone(),
        leadership: leadership.clone(),
    };
    let inner = Arc::new(Inner {
        read_index: ReadIndex::start(rounds, shutdown.clone()),
        forwarder: Forwarder::start(forward, shutdown.clone()),
        config,
        identity,
        raft,
        state,
        waiters,
        leases,
        log,
        log_owner,
        peers,
        flusher,
        flusher_handle,
        data_dir,
        leadership,
        contact,
        counters,
        fatal,
        quarantine,
        quarantined: AtomicBool::new(quarantined),
        floor: Arc::new(Floor::new(!forgets_votes)),
        left_behind,
        incoming_snapshot: Arc::default(),
        shutdown: shutdown.clone(),
        stopping: Mutex::new(None),
    });
    for listener in listeners {
        tokio::spawn(peers::server::serve(inner.clone(), listener, shutdown.clone()));
    }
    tokio::spawn(inner.clone().expire_leases(shutdown.clone()));
    tokio::spawn(purge::run(inner.clone(), shutdown.clone()));
    tokio::spawn(peers::meter::probe(inner.clone(), shutdown.clone()));
    tokio::spawn(damage::report(inner.clone(), shutdown.clone()));
    tokio::spawn(corruption::run(inner.clone(), shutdown.clone()));
    tokio::spawn(watchdog::first_election(inner.clone(), shutdown.clone()));
    tokio::spawn(watchdog::members(inner.clone(), shutdown.clone()));
    tokio::spawn(quarantine::run(inner.clone(), shutdown));
    Ok(Handle { inner })
}

/// Applies what is known to be committed, so that reads right after the start see it.
async fn replay(machine: &mut StateMachine) -> Result<(), StartError> {
    let purged_next = next_index(machine.log.purged().as_ref());
    let mut next = machine.state.applied_next();
    if purged_next > next {
        return Err(StartError::Gap { log_first: purged_next, state_last: next.saturating_sub(1) });
    }
    let end = match planted::is(Bug::ReplaysUncommitted) {
        true => u64::MAX,
        false => next_index(machine.log.committed().as_ref()),
    };
    let started = tokio::time::Instant::now();
    let first = next;
    while next < end {
        let entries =
            machine.log.read(next, end.min(next + REPLAY_ENTRIES)).await.map_err(StartError::Replay)?;
        if entries.is_empty() {
            break;
        }
        next += entries.len() as u64;
        machine.replay(entries).map_err(StartError::Replay)?;
    }
    if next > first {
        tracing::info!(entries = next - first, took = ?started.elapsed(), "replayed the log");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
