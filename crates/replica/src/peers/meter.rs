//! What passes between this member and each other one, for `/metrics`, and whether the other one is there.
//!
//! Bytes are those of the sockets, without TLS. A connection that was accepted belongs to nobody until its first call
//! says who is calling; what passed before is counted then. Numbers of those that are no members are dropped.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::codec::Question;
use crate::config::{Config, Member};
use crate::handle::Inner;
use crate::histogram::{Durations, Histogram};
use crate::raft_types::Node;

/// Source: etcd rafthttp/metrics.go, as `prometheus.ExponentialBuckets(0.0001, 2, 16)`.
const ROUND_TRIP_BUCKETS_S: [f64; 16] = [
    0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032, 0.0064, 0.0128, 0.0256, 0.0512, 0.1024, 0.2048, 0.4096,
    0.8192, 1.6384, 3.2768,
];
/// Between two looks at each member. Source: etcd rafthttp `proberInterval`.
const PROBE_INTERVAL: Duration = Duration::from_secs(4);
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
const MEMBERS_MAX: usize = 256;

pub(crate) struct PeerCounters {
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    pub sent_failures: AtomicU64,
    pub received_failures: AtomicU64,
    pub snapshots_sent: AtomicU64,
    pub snapshot_send_failures: AtomicU64,
    pub snapshots_received: AtomicU64,
    pub snapshot_receive_failures: AtomicU64,
    is_active: AtomicBool,
    disconnections: AtomicU64,
    round_trip: Histogram,
}

/// What passed between this member and another one since it started.
#[derive(Clone, Debug, Default)]
pub struct PeerMetrics {
    pub member: u64,
    pub sent_bytes: u64,
    pub received_bytes: u64,
    /// Messages that did not arrive or were refused.
    pub sent_failures: u64,
    /// Messages that were not understood.
    pub received_failures: u64,
    pub snapshots_sent: u64,
    pub snapshot_send_failures: u64,
    pub snapshots_received: u64,
    pub snapshot_receive_failures: u64,
    /// It answered lately.
    pub is_active: bool,
    /// How often it stopped answering.
    pub disconnections: u64,
    pub round_trip: Durations,
}

impl PeerCounters {
    fn new() -> PeerCounters {
        PeerCounters {
            sent_bytes: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            sent_failures: AtomicU64::new(0),
            received_failures: AtomicU64::new(0),
            snapshots_sent: AtomicU64::new(0),
            snapshot_send_failures: AtomicU64::new(0),
            snapshots_received: AtomicU64::new(0),
            snapshot_receive_failures: AtomicU64::new(0),
            is_active: AtomicBool::new(false),
            disconnections: AtomicU64::new(0),
            round_trip: Histogram::new(&ROUND_TRIP_BUCKETS_S),
        }
    }

    fn probed(&self, took: Option<Duration>) {
        let was_active = self.is_active.swap(took.is_some(), Relaxed);
        match took {
            Some(took) => self.round_trip.observe(took),
            None if was_active => _ = self.disconnections.fetch_add(1, Relaxed),
            None => {}
        }
    }

    fn metrics(&self, member: u64) -> PeerMetrics {
        let load = |counter: &AtomicU64| counter.load(Relaxed);
        PeerMetrics {
            member,
            sent_bytes: load(&self.sent_bytes),
            received_bytes: load(&self.received_bytes),
            sent_failures: load(&self.sent_failures),
            received_failures: load(&self.received_failures),
            snapshots_sent: load(&self.snapshots_sent),
            snapshot_send_failures: load(&self.snapshot_send_failures),
            snapshots_received: load(&self.snapshots_received),
            snapshot_receive_failures: load(&self.snapshot_receive_failures),
            is_active: self.is_active.load(Relaxed),
            disconnections: load(&self.disconnections),
            round_trip: self.round_trip.durations(),
        }
    }
}

/// The other members' counters.
#[derive(Default)]
pub(crate) struct Meters {
    by_member: Mutex<BTreeMap<u64, Arc<PeerCounters>>>,
}

impl Meters {
    /// Whoever claims to be one of too many members is counted for nobody.
    pub(crate) fn of(&self, member: u64) -> Arc<PeerCounters> {
        let mut by_member = self.by_member.lock();
        if let Some(counters) = by_member.get(&member) {
            return counters.clone();
        }
        let counters = Arc::new(PeerCounters::new());
        if by_member.len() < MEMBERS_MAX {
            by_member.insert(member, counters.clone());
        }
        counters
    }

    fn keep(&self, members: &[(u64, Node)]) {
        self.by_member.lock().retain(|id, _| members.iter().any(|(member, _)| member == id));
    }

    pub(crate) fn forget(&self, member: u64) {
        self.by_member.lock().remove(&member);
    }

    pub(crate) fn metrics(&self) -> Vec<PeerMetrics> {
        self.by_member.lock().iter().map(|(member, counters)| counters.metrics(*member)).collect()
    }
}

/// The bytes of one connection.
#[derive(Default)]
pub(crate) struct Meter {
    owner: OnceLock<Arc<PeerCounters>>,
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
}

impl Meter {
    pub(super) fn sent(&self, size_bytes: usize) {
        let counter = self.owner.get().map_or(&self.sent_bytes, |owner| &owner.sent_bytes);
        counter.fetch_add(size_bytes as u64, Relaxed);
    }

    pub(super) fn received(&self, size_bytes: usize) {
        let counter = self.owner.get().map_or(&self.received_bytes, |owner| &owner.received_bytes);
        counter.fetch_add(size_bytes as u64, Relaxed);
    }

    pub(super) fn is_owned(&self) -> bool {
        self.owner.get().is_some()
    }

    pub(super) fn belongs_to(&self, owner: Arc<PeerCounters>) {
        if self.owner.set(owner.clone()).is_ok() {
            owner.sent_bytes.fetch_add(self.sent_bytes.swap(0, Relaxed), Relaxed);
            owner.received_bytes.fetch_add(self.received_bytes.swap(0, Relaxed), Relaxed);
        }
    }
}

/// Those that the member was started with.
fn first_members(config: &Config, me: u64) -> Vec<(u64, Node)> {
    let others = config.initial_members.iter().filter(|member| member.id != me);
    let node = |member: &Member| Node {
        name: member.name.clone(),
        peer_urls: member.peer_urls.clone(),
        joining: false,
    };
    others.map(|member| (member.id, node(member))).collect()
}

/// Asks every other member from time to time for a sign of life.
pub(crate) async fn probe(inner: Arc<Inner>, shutdown: CancellationToken) {
    loop {
        let me = inner.identity.member_id;
        // As the log has it, not only what is applied: a member that joins has connections before.
        let membership = inner.raft.metrics().borrow_watched().membership_config.clone();
        let others = membership.nodes().filter(|(id, _)| **id != me);
        let mut nodes: Vec<(u64, Node)> = others.map(|(id, node)| (*id, node.clone())).collect();
        if membership.nodes().next().is_none() {
            // Nobody has told this member anything yet. If it was removed meanwhile, nobody ever will unless it asks.
            nodes = first_members(&inner.config, me);
        }
        inner.peers.meters.keep(&nodes);
        let probes = nodes.iter().map(async |(member, node)| {
            let begin = Instant::now();
            let answer = inner.peers.ask(*member, node, &Question::WhoAreYou, PROBE_TIMEOUT).await;
            inner.peers.meters.of(*member).probed(answer.is_ok().then(|| begin.elapsed()));
        });
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = async {
                futures_util::future::join_all(probes).await;
                tokio::time::sleep(PROBE_INTERVAL).await;
            } => {}
        }
    }
}
