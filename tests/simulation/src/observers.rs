//! Watchers that come and go, read slowly, begin in the past, now or in the future; and transactions of many keys.
//!
//! Always holds: what is recorded of a stream is what it delivered in one piece, from `from` on. The keys of the
//! transactions (`BATCH_KEYS`) belong to nobody else, and every value in them is written once.
//! Not here: what is right (checks.rs), watchers that see everything (workload.rs).

use std::sync::Arc;
use std::time::Duration;

use faults::history::{Entry, Key, Value};
use faults::log::Change;
use tokio::time::Instant;
use tonic::Code;
use wal::sim_disk::crash::Random;
use wire::etcdserverpb as pb;
use wire::etcdserverpb::kv_client::KvClient;
use wire::etcdserverpb::watch_client::WatchClient;

use crate::member::{CLIENT_PORT, host};
use crate::network::{channel, narrow_channel};
use crate::workload::{
    LEASE_KEYS, LocalRead, PREFIX, Shared, change, entry, is_about_users, key_bytes, now_ns, revision,
};

/// Keys from here on are written by transactions of many keys alone.
pub(crate) const BATCH_KEYS: Key = LEASE_KEYS + 1_000_000;
/// How far ahead a watch of a future revision begins.
const AHEAD_REVISIONS_MAX: u64 = 60;
const OPEN_TIME_MAX: Duration = Duration::from_secs(2);

/// One stream of a watcher that came late or left early.
#[derive(Clone, Debug)]
pub(crate) struct Observed {
    pub member: usize,
    /// The first revision that it was to hear of.
    pub from: i64,
    pub changes: Vec<Change>,
    /// It was told that there is nothing more up to here.
    pub complete: i64,
}

/// A transaction of many keys.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub puts: Vec<(Key, Value)>,
    pub deletes: Vec<Key>,
    /// `None`: unknown, or without effect.
    pub done: Option<i64>,
    /// Its answer was that it cannot be.
    pub refused: bool,
}

/// Watches through one member after the other until the load ends.
pub(crate) async fn observer(seed: u64, members: usize, shared: Arc<Shared>) {
    let _running = shared.begin();
    let mut random = Random(seed);
    while !shared.stopping() {
        let member = shared.roster.any(usize::try_from(random.below(members as u64)).unwrap_or(0));
        let observed = observe(member, &mut random, &shared).await;
        if let Some(observed) = observed {
            shared.trace.line(&format!(
                "observer of member {member} from {}: {} changes, complete up to {}",
                observed.from,
                observed.changes.len(),
                observed.complete
            ));
            shared.observed(observed);
        }
        tokio::time::sleep(Duration::from_millis(20 + random.below(300))).await;
    }
}

/// The revision to ask for; 0 is "from now".
fn start_revision(random: &mut Random, shared: &Shared) -> i64 {
    let (compacted, last) = shared.compacted_and_last();
    let below = |random: &mut Random, below: u64| i64::try_from(random.below(below)).unwrap_or(0);
    match random.below(4) {
        0 => 0,
        1 => last + 1 + below(random, AHEAD_REVISIONS_MAX),
        2 => compacted.max(1),
        _ => (last - below(random, 100)).max(compacted).max(1),
    }
}

/// `None`: there was no stream.
async fn observe(member: usize, random: &mut Random, shared: &Shared) -> Option<Observed> {
    let start_revision = start_revision(random, shared);
    let mut watch = WatchClient::new(narrow_channel(&host(member), CLIENT_PORT));
    let create = pb::WatchCreateRequest {
        key: PREFIX.into(),
        range_end: wire::prefix_end(PREFIX.as_bytes()),
        start_revision,
        progress_notify: true,
        ..Default::default()
    };
    let request = |union| pb::WatchRequest { request_union: Some(union) };
    let (sender, requests) = tokio::sync::mpsc::channel(4);
    let _receiver_is_here = sender.try_send(request(pb::watch_request::RequestUnion::CreateRequest(create)));
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let answer = tokio::time::timeout(OPEN_TIME_MAX, watch.watch(requests)).await.ok()?.ok()?;
    let mut stream = answer.into_inner();
    let created = tokio::time::timeout(OPEN_TIME_MAX, stream.message()).await.ok()?.ok()??;
    let now = created.header.as_ref().map_or(0, |header| header.revision);
    let from = if start_revision == 0 { now + 1 } else { start_revision };
    let mut observed = Observed { member, from, changes: Vec::new(), complete: from - 1 };
    let ends = Instant::now() + Duration::from_millis(200 + random.below(2_500));
    let slow_ms = [0, 0, 30, 300][random.below(4) as usize];
    while Instant::now() < ends && !shared.stopping() {
        tokio::time::sleep(Duration::from_millis(random.below(slow_ms + 1))).await;
        if random.below(8) == 0 {
            let ask = pb::watch_request::RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
            let _ = sender.try_send(request(ask));
        }
        let response = match tokio::time::timeout_at(ends, stream.message()).await {
            Ok(Ok(Some(response))) => response,
            Ok(Ok(None) | Err(_)) | Err(_) => break,
        };
        if response.canceled {
            let next = observed.changes.last().map_or(from, |change| change.revision + 1);
            if response.compact_revision <= next && !is_about_users(&response.cancel_reason) {
                shared.find(format!(
                    "the watch through member {member} was cancelled at {next}: {:?}, compacted at {}",
                    response.cancel_reason, response.compact_revision
                ));
            }
            break;
        }
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        if response.events.is_empty() && !response.created {
            observed.complete = observed.complete.max(revision);
        }
        for event in response.events {
            match change(&event) {
                Ok(change) => {
                    if change.revision <= observed.complete {
                        shared.find(format!(
                            "a watch through member {member} from {from} told {change:?} after {}",
                            observed.complete
                        ));
                    }
                    observed.changes.push(change);
                }
                Err(finding) => shared.find(finding),
            }
        }
    }
    Some(observed)
}

/// Puts and deletes keys of its own, many at once, and reads them all at once.
pub(crate) async fn batcher(number: usize, member: usize, seed: u64, shared: Arc<Shared>) {
    let _running = shared.begin();
    let mut random = Random(seed);
    let mut kv = KvClient::new(channel(&host(member), CLIENT_PORT));
    let timeout = Duration::from_millis(shared.load.timeout_ms);
    let count = [2, 4, 32][random.below(3) as usize];
    let (first, mut member) = (member, member);
    while !shared.stopping() {
        let at = shared.roster.stay(member, first);
        if at != member {
            member = at;
            kv = KvClient::new(channel(&host(member), CLIENT_PORT));
        }
        let asked = match random.below(3) {
            0 => read(count),
            _ => write(&mut random, count, &shared),
        };
        let (request, mut batch) = asked;
        let answer = tokio::time::timeout(timeout, kv.txn(request)).await;
        batch.refused = matches!(&answer, Ok(Err(status)) if status.code() == Code::OutOfRange);
        if let Ok(Ok(answer)) = answer {
            let answer = answer.into_inner();
            match revision(answer.header.as_ref()) {
                Ok(revision) => {
                    batch.done = Some(revision);
                    for read in reads(number, member, revision, &answer) {
                        match read {
                            Ok(read) => shared.read(read),
                            Err(finding) => shared.find(finding),
                        }
                    }
                }
                Err(finding) => shared.find(finding),
            }
        }
        shared.trace.line(&format!("client {number} member {member}: {batch:?}"));
        if !batch.puts.is_empty() || !batch.deletes.is_empty() {
            shared.batch(batch);
        }
        tokio::time::sleep(Duration::from_millis(random.below(4 * shared.load.pause_ms_max + 1))).await;
    }
}

fn transaction(operations: Vec<pb::request_op::Request>) -> pb::TxnRequest {
    let success = operations.into_iter().map(|request| pb::RequestOp { request: Some(request) }).collect();
    pb::TxnRequest { success, ..Default::default() }
}

/// All of the keys with one range each, so that an answer is many states at one revision.
fn read(count: u32) -> (pb::TxnRequest, Batch) {
    let get = |key| {
        pb::request_op::Request::RequestRange(pb::RangeRequest { key: key_bytes(key), ..Default::default() })
    };
    let request = transaction((BATCH_KEYS..BATCH_KEYS + count).map(get).collect());
    (request, Batch { puts: Vec::new(), deletes: Vec::new(), done: None, refused: false })
}

fn write(random: &mut Random, count: u32, shared: &Shared) -> (pb::TxnRequest, Batch) {
    let mut batch = Batch { puts: Vec::new(), deletes: Vec::new(), done: None, refused: false };
    let deletes_of_ten = [0, 3, 10][random.below(3) as usize];
    let mut operations = Vec::new();
    for key in BATCH_KEYS..BATCH_KEYS + count {
        if random.below(10) < deletes_of_ten {
            batch.deletes.push(key);
            let delete = pb::DeleteRangeRequest { key: key_bytes(key), ..Default::default() };
            operations.push(pb::request_op::Request::RequestDeleteRange(delete));
        } else {
            let value = shared.value();
            batch.puts.push((key, value));
            let put =
                pb::PutRequest { key: key_bytes(key), value: value.to_string().into(), ..Default::default() };
            operations.push(pb::request_op::Request::RequestPut(put));
        }
    }
    if shared.load.refusals && random.below(3) == 0 {
        operations.insert(operations.len() / 2, unreadable(shared));
    }
    (transaction(operations), batch)
}

/// A read at a revision that is compacted, or still to come: it refuses all of its transaction.
fn unreadable(shared: &Shared) -> pb::request_op::Request {
    let (compacted, last) = shared.compacted_and_last();
    let revision = if compacted > 1 { compacted - 1 } else { last + 1_000_000 };
    let key = key_bytes(BATCH_KEYS);
    pb::request_op::Request::RequestRange(pb::RangeRequest { key, revision, ..Default::default() })
}

fn reads(
    client: usize,
    member: usize,
    revision: i64,
    answer: &pb::TxnResponse,
) -> impl Iterator<Item = Result<LocalRead, String>> {
    use pb::response_op::Response;
    let ranges = answer.responses.iter().enumerate().filter_map(|(place, response)| {
        let Some(Response::ResponseRange(range)) = &response.response else { return None };
        Some((BATCH_KEYS + u32::try_from(place).unwrap_or(0), range))
    });
    ranges.map(move |(key, range)| {
        let entry: Option<Entry> = range.kvs.first().map(entry).transpose()?;
        Ok(LocalRead { client, member, revision, key, entry, return_ns: now_ns() })
    })
}
