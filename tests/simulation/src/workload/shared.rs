//! What all clients of a run share: where they report to, and what they are told.
//!
//! Not here: what is right (checks.rs).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use faults::history::{Entry, Key, Operation, Value};
use faults::log::{Change, FIRST_REVISION};
use parking_lot::Mutex;

use super::{LEASE_KEYS, Load};
use crate::observers::{Batch, Observed};
use crate::permissions::{Asked, Tried};
use crate::roster::Roster;
use crate::trace::Trace;

/// A read of one member's own state, which may be old.
#[derive(Clone, Debug)]
pub(crate) struct LocalRead {
    pub client: usize,
    pub member: usize,
    pub revision: i64,
    pub key: Key,
    pub entry: Option<Entry>,
    pub return_ns: u64,
}

impl std::fmt::Display for LocalRead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let LocalRead { client, member, revision, key, entry, return_ns } = self;
        let at_s = Duration::from_nanos(*return_ns).as_secs_f64();
        write!(
            f,
            "client {client} was told by member {member} at {at_s:.3} s: {key} is {entry:?} at {revision}"
        )
    }
}

/// The life of one lease as its holder knows it.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub key: Key,
    pub ttl_ns: u64,
    /// When the last renewal (or the grant) that was acknowledged had been asked for.
    pub renewed_ns: u64,
    /// Its holder asked for its end.
    pub revoked: bool,
    /// When the holder stopped renewing.
    pub left_ns: u64,
}

/// What all clients of a run share and report to.
pub(crate) struct Shared {
    pub load: Load,
    pub trace: Arc<Trace>,
    pub roster: Roster,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    next_value: Value,
    next_lease_key: Key,
    stop: bool,
    /// The last revision that watchers wait for, once it is known.
    until: Option<i64>,
    operations: Vec<Operation>,
    local_reads: Vec<LocalRead>,
    leases: Vec<Held>,
    streams: BTreeMap<usize, Vec<Change>>,
    observed: Vec<Observed>,
    batches: Vec<Batch>,
    /// Since when nothing is wrong.
    calm_since_ns: Option<u64>,
    clients_running: usize,
    compacted: i64,
    compactions: u64,
    member_changes: u64,
    alarms_cleared: u64,
    findings: Vec<String>,
    asked: Vec<Asked>,
    tried: Vec<Tried>,
    /// Who is to hand over, and to which member id.
    to_move: Option<(usize, u64)>,
}

/// What a run recorded.
pub(crate) struct Recorded {
    pub operations: Vec<Operation>,
    pub local_reads: Vec<LocalRead>,
    pub leases: Vec<Held>,
    pub streams: Vec<Vec<Change>>,
    pub observed: Vec<Observed>,
    pub batches: Vec<Batch>,
    pub calm_since_ns: Option<u64>,
    pub compactions: u64,
    pub findings: Vec<String>,
    /// Changes of users and roles.
    pub asked: Vec<Asked>,
    /// Calls of users that were permitted or denied.
    pub tried: Vec<Tried>,
}

pub(crate) fn now_ns() -> u64 {
    let elapsed = turmoil::sim_elapsed().expect("asked inside of a simulation");
    u64::try_from(elapsed.as_nanos()).expect("a simulation of less than centuries")
}

impl Shared {
    pub(crate) fn new(load: Load, trace: Arc<Trace>, roster: Roster) -> Arc<Shared> {
        let inner = Inner { next_value: 1, next_lease_key: LEASE_KEYS, ..Inner::default() };
        Arc::new(Shared { load, trace, roster, inner: Mutex::new(inner) })
    }

    pub(crate) fn value(&self) -> Value {
        let mut inner = self.inner.lock();
        inner.next_value += 1;
        inner.next_value
    }

    pub(crate) fn stopping(&self) -> bool {
        self.inner.lock().stop
    }

    pub(crate) fn stop(&self) {
        self.inner.lock().stop = true;
    }

    pub(crate) fn clients_running(&self) -> usize {
        self.inner.lock().clients_running
    }

    /// A client counts as running until the answer is dropped.
    pub(crate) fn begin(self: &Arc<Shared>) -> Running {
        self.inner.lock().clients_running += 1;
        Running(Arc::clone(self))
    }

    /// The last compaction that was acknowledged, and the newest revision that a watcher has seen.
    pub(crate) fn compacted_and_last(&self) -> (i64, i64) {
        let inner = self.inner.lock();
        let last = |stream: &Vec<Change>| stream.last().map_or(1, |change| change.revision);
        (inner.compacted, inner.streams.values().map(last).max().unwrap_or(1))
    }

    pub(crate) fn member_changed(&self) {
        self.inner.lock().member_changes += 1;
    }

    pub(crate) fn alarm_cleared(&self) {
        self.inner.lock().alarms_cleared += 1;
    }

    pub(crate) fn alarms_cleared(&self) -> u64 {
        self.inner.lock().alarms_cleared
    }

    pub(crate) fn member_changes(&self) -> u64 {
        self.inner.lock().member_changes
    }

    pub(crate) fn observed(&self, observed: Observed) {
        self.inner.lock().observed.push(observed);
    }

    pub(crate) fn batch(&self, batch: Batch) {
        self.inner.lock().batches.push(batch);
    }

    pub(crate) fn read(&self, read: LocalRead) {
        self.inner.lock().local_reads.push(read);
    }

    /// From now on every operation must be answered; `None`: not any more.
    pub(crate) fn set_calm_since(&self, since_ns: Option<u64>) {
        self.inner.lock().calm_since_ns = since_ns;
    }

    /// A key that no lease had.
    pub(crate) fn lease_key(&self) -> Key {
        let mut inner = self.inner.lock();
        inner.next_lease_key += 1;
        inner.next_lease_key
    }

    pub(crate) fn held(&self, held: Held) {
        self.inner.lock().leases.push(held);
    }

    /// The newest revision that all watchers have seen.
    pub(crate) fn seen_by_all(&self) -> i64 {
        let inner = self.inner.lock();
        let last = |stream: &Vec<Change>| stream.last().map_or(1, |change| change.revision);
        inner.streams.values().map(last).min().unwrap_or(1)
    }

    pub(crate) fn compacted(&self, revision: i64) {
        let mut inner = self.inner.lock();
        inner.compacted = revision;
        inner.compactions += 1;
    }

    pub(crate) fn begin_stream(&self, member: usize) {
        self.inner.lock().streams.insert(member, Vec::new());
    }

    /// What a member's watcher is to begin with; `None`: it has seen everything.
    pub(crate) fn next_of_stream(&self, member: usize) -> Option<i64> {
        let inner = self.inner.lock();
        let last = inner.streams[&member].last().map_or(FIRST_REVISION - 1, |change| change.revision);
        if inner.until.is_some_and(|until| last >= until) { None } else { Some(last + 1) }
    }

    pub(crate) fn is_end_known(&self) -> bool {
        self.inner.lock().until.is_some()
    }

    pub(crate) fn changed(&self, member: usize, change: Change) {
        if let Some(stream) = self.inner.lock().streams.get_mut(&member) {
            stream.push(change);
        }
    }

    /// Who is to hand over and to which member id, once.
    pub(crate) fn take_move(&self) -> Option<(usize, u64)> {
        self.inner.lock().to_move.take()
    }

    pub(crate) fn ask_to_move(&self, leader: usize, to: u64) {
        self.inner.lock().to_move = Some((leader, to));
    }

    pub(crate) fn set_until(&self, revision: i64) {
        self.inner.lock().until = Some(revision);
    }

    pub(crate) fn asked(&self, asked: Asked) {
        self.inner.lock().asked.push(asked);
    }

    pub(crate) fn tried(&self, tried: Tried) {
        self.inner.lock().tried.push(tried);
    }

    pub(crate) fn find(&self, finding: String) {
        self.trace.line(&format!("finding: {finding}"));
        self.inner.lock().findings.push(finding);
    }

    /// The members whose watchers are not at the end yet.
    pub(crate) fn watchers_behind(&self) -> Vec<(usize, i64)> {
        let inner = self.inner.lock();
        let until = inner.until.unwrap_or(0);
        let at = |stream: &Vec<Change>| stream.last().map_or(FIRST_REVISION - 1, |change| change.revision);
        inner
            .streams
            .iter()
            .map(|(member, stream)| (*member, at(stream)))
            .filter(|(_, at)| *at < until)
            .collect()
    }

    pub(crate) fn take(&self) -> Recorded {
        let inner = std::mem::take(&mut *self.inner.lock());
        Recorded {
            operations: inner.operations,
            local_reads: inner.local_reads,
            leases: inner.leases,
            streams: inner.streams.into_values().collect(),
            observed: inner.observed,
            batches: inner.batches,
            calm_since_ns: inner.calm_since_ns,
            compactions: inner.compactions,
            findings: inner.findings,
            asked: inner.asked,
            tried: inner.tried,
        }
    }

    pub(crate) fn record(&self, operation: Operation) {
        self.trace.line(&operation.to_string());
        self.inner.lock().operations.push(operation);
    }
}

/// A client that has not ended.
pub(crate) struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.inner.lock().clients_running -= 1;
    }
}
