//! Clients, lease holders, a compactor and watchers, each talking to one member over simulated sockets.
//!
//! Always holds: a client is sequential; only an error that a member gives before it proposes counts as "no effect";
//! every value is written once; each change has a revision of its own, because every operation changes one key and a
//! lease holds one key. A watcher that lost its stream resumes behind the last change that it was given.
//! Not here: what is right (checks.rs).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use faults::history::{Answer, Entry, Key, Operation, Outcome, Request, Value};
use faults::log::{Change, FIRST_REVISION};
use parking_lot::Mutex;
use tonic::transport::Channel;
use tonic::{Code, Status};
use wal::sim_disk::crash::Random;
use wire::etcdserverpb as pb;
use wire::etcdserverpb::kv_client::KvClient;
use wire::etcdserverpb::lease_client::LeaseClient;
use wire::etcdserverpb::maintenance_client::MaintenanceClient;
use wire::etcdserverpb::watch_client::WatchClient;
use wire::mvccpb;

use crate::member::{CLIENT_PORT, host};
use crate::network::channel;
use crate::observers::{Batch, Observed};
use crate::roster::Roster;
use crate::trace::Trace;

pub(crate) const PREFIX: &str = "k/";
/// Keys from here on belong to leases, one each.
pub(crate) const LEASE_KEYS: Key = faults::history::LEASED;
const PAUSE_AFTER_ERROR_MS: u64 = 20;
const MOVE_TIME_MAX: Duration = Duration::from_secs(1);

/// What the clients of one run do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    pub clients: usize,
    pub keys: Key,
    /// At most, between operations of one client.
    pub pause_ms_max: u64,
    pub timeout_ms: u64,
    pub lease_holders: usize,
    /// They renew late, and again at once when that failed, rather than three times within the time of a lease.
    pub lazy_holders: bool,
    pub compactions: bool,
    /// Keys are made and deleted, hardly ever changed.
    pub short_lives: bool,
    /// Watchers that come and go.
    pub observers: usize,
    /// Transactions of many keys.
    pub batches: bool,
}

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

    pub(crate) fn ask_to_move(&self, leader: usize, to: u64) {
        self.inner.lock().to_move = Some((leader, to));
    }

    pub(crate) fn set_until(&self, revision: i64) {
        self.inner.lock().until = Some(revision);
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
        }
    }

    fn record(&self, operation: Operation) {
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

pub(crate) fn key_bytes(key: Key) -> Bytes {
    Bytes::from(format!("{PREFIX}{key}"))
}

fn number<T: std::str::FromStr>(bytes: &[u8]) -> Result<T, String> {
    let text = String::from_utf8_lossy(bytes);
    text.parse().map_err(|_| format!("{text:?} is nothing that was written"))
}

pub(crate) fn entry(kv: &mvccpb::KeyValue) -> Result<Entry, String> {
    Ok(Entry {
        value: number(&kv.value)?,
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
    })
}

/// A client at one member until it is told to stop.
pub(crate) async fn client(number: usize, member: usize, seed: u64, shared: Arc<Shared>) {
    shared.inner.lock().clients_running += 1;
    let mut random = Random(seed);
    let (first, mut member) = (member, member);
    let mut kv = KvClient::new(channel(&host(member), CLIENT_PORT));
    let timeout = Duration::from_millis(shared.load.timeout_ms);
    let mut seen: BTreeMap<Key, Option<Entry>> = BTreeMap::new();
    while !shared.stopping() {
        let at = shared.roster.stay(member, first);
        if at != member {
            member = at;
            kv = KvClient::new(channel(&host(member), CLIENT_PORT));
        }
        let key = Key::try_from(random.below(u64::from(shared.load.keys))).unwrap_or(0);
        if random.below(100) < 15 {
            local_read(number, member, key, &mut kv, timeout, &shared).await;
        } else {
            let request = choose(key, &mut random, &seen, &shared);
            let call_ns = now_ns();
            let outcome = outcome(send(&mut kv, request), timeout, &shared).await;
            if let Outcome::Done(Answer::Found { entry, .. } | Answer::Kept { entry, .. }) = &outcome {
                seen.insert(key, *entry);
            }
            if let Outcome::Done(Answer::Deleted { .. }) = &outcome {
                seen.insert(key, None);
            }
            if let (true, Outcome::Done(Answer::Put { .. })) = (shared.load.short_lives, &outcome) {
                seen.insert(key, Some(Entry { value: 0, create_revision: 0, mod_revision: 0, version: 0 }));
            }
            let failed = !matches!(outcome, Outcome::Done(_));
            let return_ns = now_ns();
            shared.record(Operation { client: number, member, call_ns, return_ns, request, outcome });
            if failed {
                tokio::time::sleep(Duration::from_millis(PAUSE_AFTER_ERROR_MS)).await;
            }
        }
        let pause_ms = random.below(shared.load.pause_ms_max + 1);
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
    }
    shared.inner.lock().clients_running -= 1;
}

fn choose(key: Key, random: &mut Random, seen: &BTreeMap<Key, Option<Entry>>, shared: &Shared) -> Request {
    if shared.load.short_lives {
        return match (random.below(100), seen.get(&key)) {
            (0..25, _) => Request::Get { key },
            (_, Some(None) | None) => Request::Put { key, value: shared.value() },
            (_, Some(Some(_))) => Request::Delete { key },
        };
    }
    match random.below(100) {
        0..35 => Request::Get { key },
        35..70 => Request::Put { key, value: shared.value() },
        70..80 => Request::Delete { key },
        _ => {
            let known = seen.get(&key).copied().flatten();
            Request::Swap {
                key,
                expected_revision: known.map_or(0, |entry| entry.mod_revision),
                expected: known.map(|entry| entry.value),
                value: shared.value(),
            }
        }
    }
}

async fn outcome(
    sending: impl Future<Output = Result<Result<Answer, String>, Status>>,
    timeout: Duration,
    shared: &Shared,
) -> Outcome {
    match tokio::time::timeout(timeout, sending).await {
        Ok(Ok(Ok(answer))) => Outcome::Done(answer),
        Ok(Ok(Err(finding))) => {
            shared.find(finding.clone());
            Outcome::Unknown(finding)
        }
        Ok(Err(status)) => failed(&status),
        Err(_) => Outcome::Unknown("no answer in time".to_owned()),
    }
}

/// Errors that a member gives before it has proposed anything.
fn failed(status: &Status) -> Outcome {
    let text = format!("{:?}: {}", status.code(), status.message());
    match status.code() {
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange | Code::PermissionDenied => {
            Outcome::Refused(text)
        }
        _ => Outcome::Unknown(text),
    }
}

async fn local_read(
    number: usize,
    member: usize,
    key: Key,
    kv: &mut KvClient<Channel>,
    timeout: Duration,
    shared: &Shared,
) {
    let request = pb::RangeRequest { key: key_bytes(key), serializable: true, ..Default::default() };
    let Ok(Ok(answer)) = tokio::time::timeout(timeout, kv.range(request)).await else { return };
    match found(&answer.into_inner()) {
        Ok((revision, entry)) => {
            shared.trace.line(&format!("client {number} member {member} has {key} {entry:?} at {revision}"));
            let read = LocalRead { client: number, member, revision, key, entry, return_ns: now_ns() };
            shared.inner.lock().local_reads.push(read);
        }
        Err(finding) => shared.find(finding),
    }
}

async fn send(kv: &mut KvClient<Channel>, request: Request) -> Result<Result<Answer, String>, Status> {
    let key = key_bytes(request.key());
    match request {
        Request::Get { .. } => {
            let answer = kv.range(pb::RangeRequest { key, ..Default::default() }).await?.into_inner();
            Ok(found(&answer).map(|(revision, entry)| Answer::Found { revision, entry }))
        }
        Request::Put { value, .. } => put(kv, request.key(), value, 0).await,
        Request::Delete { .. } => {
            let delete = pb::DeleteRangeRequest { key, ..Default::default() };
            let answer = kv.delete_range(delete).await?.into_inner();
            let existed = answer.deleted > 0;
            Ok(revision(answer.header.as_ref()).map(|revision| Answer::Deleted { revision, existed }))
        }
        Request::Swap { expected_revision, value, .. } => {
            let answer = kv.txn(swap(key, expected_revision, value)).await?.into_inner();
            Ok(swapped(&answer))
        }
    }
}

async fn put(
    kv: &mut KvClient<Channel>,
    key: Key,
    value: Value,
    lease: i64,
) -> Result<Result<Answer, String>, Status> {
    let value = Bytes::from(value.to_string());
    let put = pb::PutRequest { key: key_bytes(key), value, lease, ..Default::default() };
    let answer = kv.put(put).await?.into_inner();
    Ok(revision(answer.header.as_ref()).map(|revision| Answer::Put { revision }))
}

fn swap(key: Bytes, expected_revision: i64, value: Value) -> pb::TxnRequest {
    use pb::request_op::Request as Op;
    let compare = pb::Compare {
        result: pb::compare::CompareResult::Equal.into(),
        target: pb::compare::CompareTarget::Mod.into(),
        key: key.clone(),
        target_union: Some(pb::compare::TargetUnion::ModRevision(expected_revision)),
        ..Default::default()
    };
    let put = pb::PutRequest { key: key.clone(), value: value.to_string().into(), ..Default::default() };
    let get = pb::RangeRequest { key, ..Default::default() };
    pb::TxnRequest {
        compare: vec![compare],
        success: vec![pb::RequestOp { request: Some(Op::RequestPut(put)) }],
        failure: vec![pb::RequestOp { request: Some(Op::RequestRange(get)) }],
    }
}

fn swapped(answer: &pb::TxnResponse) -> Result<Answer, String> {
    use pb::response_op::Response;
    let revision = revision(answer.header.as_ref())?;
    if answer.succeeded {
        return Ok(Answer::Swapped { revision });
    }
    match answer.responses.first().and_then(|response| response.response.as_ref()) {
        Some(Response::ResponseRange(range)) => {
            Ok(Answer::Kept { revision, entry: range.kvs.first().map(entry).transpose()? })
        }
        other => Err(format!("a get in a transaction was answered with {other:?}")),
    }
}

fn found(answer: &pb::RangeResponse) -> Result<(i64, Option<Entry>), String> {
    Ok((revision(answer.header.as_ref())?, answer.kvs.first().map(entry).transpose()?))
}

pub(crate) fn revision(header: Option<&pb::ResponseHeader>) -> Result<i64, String> {
    Ok(header.ok_or("an answer without a header")?.revision)
}

/// Takes leases with a key each, renews them for a while and leaves or revokes them.
pub(crate) async fn lease_holder(number: usize, member: usize, seed: u64, shared: Arc<Shared>) {
    shared.inner.lock().clients_running += 1;
    let mut random = Random(seed);
    let channel = channel(&host(member), CLIENT_PORT);
    let mut holder = Holder {
        number,
        member,
        kv: KvClient::new(channel.clone()),
        lease: LeaseClient::new(channel),
        timeout: Duration::from_millis(shared.load.timeout_ms),
        shared: shared.clone(),
    };
    while !shared.stopping() {
        holder.move_to(shared.roster.stay(holder.member, member));
        holder.one_lease(&mut random).await;
        tokio::time::sleep(Duration::from_millis(50 + random.below(500))).await;
    }
    shared.inner.lock().clients_running -= 1;
}

struct Holder {
    number: usize,
    member: usize,
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    timeout: Duration,
    shared: Arc<Shared>,
}

impl Holder {
    fn move_to(&mut self, member: usize) {
        if member != self.member {
            let channel = channel(&host(member), CLIENT_PORT);
            self.member = member;
            self.kv = KvClient::new(channel.clone());
            self.lease = LeaseClient::new(channel);
        }
    }

    async fn one_lease(&mut self, random: &mut Random) {
        let lazy = self.shared.load.lazy_holders;
        let ttl_s = 1 + i64::try_from(random.below(if lazy { 2 } else { 4 })).unwrap_or(0);
        let id = i64::try_from(random.number() >> 2).unwrap_or(1) + 1;
        let mut renewed_ns = now_ns();
        let grant = pb::LeaseGrantRequest { ttl: ttl_s, id };
        let Ok(Ok(granted)) = tokio::time::timeout(self.timeout, self.lease.lease_grant(grant)).await else {
            return;
        };
        let ttl_ns = u64::try_from(granted.into_inner().ttl).unwrap_or(0) * 1_000_000_000;
        let key = {
            let mut inner = self.shared.inner.lock();
            inner.next_lease_key += 1;
            inner.next_lease_key
        };
        let value = self.shared.value();
        let request = Request::Put { key, value };
        let call_ns = now_ns();
        let sending = put(&mut self.kv, key, value, id);
        // A lease whose time is over meanwhile is refused with NotFound: nothing happened.
        let outcome = match tokio::time::timeout(self.timeout, sending).await {
            Ok(Err(status)) if status.code() == Code::NotFound => {
                Outcome::Refused(status.message().to_owned())
            }
            Ok(answered) => outcome(async { answered }, self.timeout, &self.shared).await,
            Err(_) => Outcome::Unknown("no answer in time".to_owned()),
        };
        self.record(call_ns, request, outcome);
        let renewals = random.below(if lazy { 12 } else { 6 });
        let mut failed = false;
        for _ in 0..renewals {
            let pause_ns = match lazy {
                true if failed => PAUSE_AFTER_ERROR_MS * 1_000_000,
                true => ttl_ns * (60 + random.below(35)) / 100,
                false => ttl_ns / 3,
            };
            tokio::time::sleep(Duration::from_nanos(pause_ns)).await;
            if self.shared.stopping() {
                break;
            }
            self.read(key).await;
            let asked_ns = now_ns();
            let renewed = self.renew(id).await;
            match renewed {
                Some(true) => renewed_ns = asked_ns,
                Some(false) => break, // it is over, so says the leader
                None => {}
            }
            failed = renewed.is_none();
        }
        let revoked = random.below(4) == 0;
        let left_ns = now_ns();
        let held = Held { key, ttl_ns, renewed_ns, revoked, left_ns };
        // Before the request: it counts from when it may take effect.
        self.shared.inner.lock().leases.push(held);
        if revoked {
            let revoke = self.lease.lease_revoke(pb::LeaseRevokeRequest { id });
            let _may_fail = tokio::time::timeout(self.timeout, revoke).await;
        }
        self.read(key).await;
    }

    /// `None`: unknown.
    async fn renew(&mut self, id: i64) -> Option<bool> {
        let requests = tokio_stream::once(pb::LeaseKeepAliveRequest { id });
        let asking = async {
            let mut answers = self.lease.lease_keep_alive(requests).await.ok()?.into_inner();
            Some(answers.message().await.ok()??.ttl > 0)
        };
        let renewed = tokio::time::timeout(self.timeout, asking).await.ok().flatten();
        self.shared.trace.line(&format!("lease {id} renewed: {renewed:?}"));
        renewed
    }

    async fn read(&mut self, key: Key) {
        let request = Request::Get { key };
        let call_ns = now_ns();
        let outcome = outcome(send(&mut self.kv, request), self.timeout, &self.shared).await;
        self.record(call_ns, request, outcome);
    }

    fn record(&self, call_ns: u64, request: Request, outcome: Outcome) {
        let (client, member, return_ns) = (self.number, self.member, now_ns());
        self.shared.record(Operation { client, member, call_ns, return_ns, request, outcome });
    }
}

/// Asks leaders to hand over when the run says so.
pub(crate) async fn operator(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let Some((leader, target_id)) = shared.inner.lock().to_move.take() else { continue };
        let mut maintenance = MaintenanceClient::new(channel(&host(leader), CLIENT_PORT));
        let asking = maintenance.move_leader(pb::MoveLeaderRequest { target_id });
        let moved = matches!(tokio::time::timeout(MOVE_TIME_MAX, asking).await, Ok(Ok(_)));
        shared.trace.line(&format!("member {leader} has handed over: {moved}"));
    }
}

/// Drops history that every watcher has seen.
pub(crate) async fn compactor(seed: u64, shared: Arc<Shared>, members: usize) {
    shared.inner.lock().clients_running += 1;
    let mut random = Random(seed);
    while !shared.stopping() {
        tokio::time::sleep(Duration::from_millis(200 + random.below(1_500))).await;
        let seen = {
            let inner = shared.inner.lock();
            let last = |stream: &Vec<Change>| stream.last().map_or(1, |change| change.revision);
            inner.streams.values().map(last).min().unwrap_or(1)
        };
        let revision = seen - i64::try_from(random.below(8)).unwrap_or(0);
        if revision <= shared.inner.lock().compacted {
            continue;
        }
        let member = shared.roster.any(usize::try_from(random.below(members as u64)).unwrap_or(0));
        let mut kv = KvClient::new(channel(&host(member), CLIENT_PORT));
        let request = pb::CompactionRequest { revision, physical: false };
        let timeout = Duration::from_millis(shared.load.timeout_ms);
        let done = matches!(tokio::time::timeout(timeout, kv.compact(request)).await, Ok(Ok(_)));
        shared.trace.line(&format!("compaction at {revision}: {done}"));
        if done {
            let mut inner = shared.inner.lock();
            inner.compacted = revision;
            inner.compactions += 1;
        }
    }
    shared.inner.lock().clients_running -= 1;
}

/// Collects every change through one member until it has seen the last one.
pub(crate) async fn watcher(member: usize, shared: Arc<Shared>) {
    shared.inner.lock().streams.insert(member, Vec::new());
    let mut at = member;
    loop {
        at = shared.roster.stay(at, member);
        let from = {
            let inner = shared.inner.lock();
            let last = inner.streams[&member].last().map_or(FIRST_REVISION - 1, |change| change.revision);
            if inner.until.is_some_and(|until| last >= until) {
                return;
            }
            last + 1
        };
        tokio::select! {
            () = follow(member, at, from, &shared) => {}
            // The end became known while the stream is silent, or may have been reached.
            () = tokio::time::sleep(Duration::from_secs(3)), if shared.inner.lock().until.is_some() => {}
        }
        tokio::time::sleep(Duration::from_millis(PAUSE_AFTER_ERROR_MS)).await;
    }
}

/// Appends what one stream through the member `at` delivers. An answer that cannot be is a finding; a lost stream is not.
async fn follow(member: usize, at: usize, from: i64, shared: &Shared) {
    let mut watch = WatchClient::new(channel(&host(at), CLIENT_PORT));
    let create = pb::WatchCreateRequest {
        key: PREFIX.into(),
        range_end: wire::prefix_end(PREFIX.as_bytes()),
        start_revision: from,
        progress_notify: true,
        ..Default::default()
    };
    let request = |union| pb::WatchRequest { request_union: Some(union) };
    let (sender, requests) = tokio::sync::mpsc::channel(4);
    let created = request(pb::watch_request::RequestUnion::CreateRequest(create));
    let _receiver_is_here = sender.try_send(created);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let Ok(Ok(answer)) = tokio::time::timeout(Duration::from_secs(2), watch.watch(requests)).await else {
        return;
    };
    let mut stream = answer.into_inner();
    let mut asks = tokio::time::interval(Duration::from_millis(300));
    let mut told = from - 1;
    loop {
        let message = tokio::select! {
            message = stream.message() => message,
            _ = asks.tick() => {
                let ask = pb::watch_request::RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
                // A full queue: the member does not read, there is no need to ask more.
                let _ = sender.try_send(request(ask));
                continue;
            }
        };
        let Ok(Some(response)) = message else { return };
        if response.canceled {
            return shared.find(format!(
                "the watch through member {member} from revision {from} was cancelled: {}, compacted at {}",
                response.cancel_reason, response.compact_revision
            ));
        }
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        if response.events.is_empty() && !response.created {
            // Progress: nothing up to this revision is still to come.
            told = told.max(revision);
            continue;
        }
        for event in response.events {
            match change(&event) {
                Ok(change) => {
                    if change.revision <= told {
                        shared.find(format!(
                            "the watch through member {member} told {change:?} after it had said that it was at {told}"
                        ));
                    }
                    shared.trace.line(&format!("watch {member}: {change:?}"));
                    if let Some(stream) = shared.inner.lock().streams.get_mut(&member) {
                        stream.push(change);
                    }
                }
                Err(finding) => return shared.find(finding),
            }
        }
    }
}

pub(crate) fn change(event: &mvccpb::Event) -> Result<Change, String> {
    let kv = event.kv.as_ref().ok_or("an event without a key")?;
    let name = kv.key.strip_prefix(PREFIX.as_bytes()).ok_or("an event of another key")?;
    let deleted = event.r#type == mvccpb::event::EventType::Delete as i32;
    let value = if deleted { None } else { Some(number(&kv.value)?) };
    Ok(Change { revision: kv.mod_revision, key: number(name)?, value })
}
