//! Clients that write and read a few keys as fast as they are answered, and watchers that collect every change.
//!
//! Invariants: a client is sequential and talks to one member; only an error that the server gives before it proposes
//! counts as "no effect", everything else is unknown; a watcher that lost its stream resumes behind the last change it
//! was given.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tonic::{Code, Status};
use wire::etcdserverpb as pb;
use wire::mvccpb;

use crate::cluster::client;
use crate::history::{Answer, Entry, Key, Operation, Outcome, Request, Value};
use crate::log::{Change, FIRST_REVISION};

const PREFIX: &str = "k/";
const KEYS: Key = 8;
/// After this a client stops waiting and does not know.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(2);
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(20);
/// Between a client's operations, so that a run is about faults and not about speed.
const PAUSE: Duration = Duration::from_millis(2);

/// What all clients of a run share.
pub struct Shared {
    pub started: Instant,
    pub values: AtomicU64,
    pub stop: AtomicBool,
}

impl Shared {
    pub fn new() -> Arc<Shared> {
        Arc::new(Shared { started: Instant::now(), values: AtomicU64::new(1), stop: AtomicBool::new(false) })
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

fn key_bytes(key: Key) -> Bytes {
    Bytes::from(format!("{PREFIX}{key}"))
}

fn value_bytes(value: Value) -> Bytes {
    Bytes::from(value.to_string())
}

fn number<T: std::str::FromStr>(bytes: &[u8]) -> Result<T> {
    let text = std::str::from_utf8(bytes).context("not UTF-8")?;
    text.parse().ok().with_context(|| format!("{text:?} is nothing that was written"))
}

fn entry(kv: &mvccpb::KeyValue) -> Result<Entry> {
    Ok(Entry {
        value: number(&kv.value)?,
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
    })
}

/// Runs one client until told to stop; its operations in order.
pub async fn run_client(
    number: usize,
    member: usize,
    url: String,
    seed: u64,
    shared: Arc<Shared>,
) -> Result<Vec<Operation>> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut client = client(&url)?;
    let mut operations = Vec::new();
    // Per key what this client saw last, for the comparison of a swap.
    let mut seen: Vec<Option<Entry>> = vec![None; KEYS as usize];
    while !shared.stop.load(Ordering::Relaxed) {
        let request = choose(&mut random, &seen, &shared);
        let call_ns = shared.now_ns();
        let outcome = match tokio::time::timeout(OPERATION_TIMEOUT, send(&mut client, request)).await {
            Ok(Ok(answer)) => Outcome::Done(answer?),
            Ok(Err(status)) => failed(&status),
            Err(_) => Outcome::Unknown(format!("no answer within {OPERATION_TIMEOUT:?}")),
        };
        let return_ns = shared.now_ns();
        let ok = matches!(outcome, Outcome::Done(_));
        if let Outcome::Done(Answer::Found { entry, .. } | Answer::Kept { entry, .. }) = &outcome {
            seen[request.key() as usize] = *entry;
        }
        operations.push(Operation { client: number, member, call_ns, return_ns, request, outcome });
        tokio::time::sleep(if ok { PAUSE } else { PAUSE_AFTER_ERROR }).await;
    }
    Ok(operations)
}

fn choose(random: &mut StdRng, seen: &[Option<Entry>], shared: &Shared) -> Request {
    let key = random.random_range(0..KEYS);
    let value = || shared.values.fetch_add(1, Ordering::Relaxed);
    match random.random_range(0..100) {
        0..40 => Request::Get { key },
        40..70 => Request::Put { key, value: value() },
        70..80 => Request::Delete { key },
        _ => {
            let known = seen[key as usize];
            Request::Swap {
                key,
                expected_revision: known.map_or(0, |entry| entry.mod_revision),
                expected: known.map(|entry| entry.value),
                value: value(),
            }
        }
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

type Sent = std::result::Result<Result<Answer>, Status>;

async fn send(client: &mut wire::Client, request: Request) -> Sent {
    let key = key_bytes(request.key());
    match request {
        Request::Get { .. } => {
            let answer = client.kv.range(pb::RangeRequest { key, ..Default::default() }).await?.into_inner();
            Ok(found(&answer).map(|(revision, entry)| Answer::Found { revision, entry }))
        }
        Request::Put { value, .. } => {
            let put = pb::PutRequest { key, value: value_bytes(value), ..Default::default() };
            let answer = client.kv.put(put).await?.into_inner();
            Ok(revision(answer.header.as_ref()).map(|revision| Answer::Put { revision }))
        }
        Request::Delete { .. } => {
            let delete = pb::DeleteRangeRequest { key, ..Default::default() };
            let answer = client.kv.delete_range(delete).await?.into_inner();
            let existed = answer.deleted > 0;
            Ok(revision(answer.header.as_ref()).map(|revision| Answer::Deleted { revision, existed }))
        }
        Request::Swap { expected_revision, value, .. } => {
            let answer = client.kv.txn(swap(key, expected_revision, value)).await?.into_inner();
            Ok(swapped(&answer))
        }
    }
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
    let put = pb::PutRequest { key: key.clone(), value: value_bytes(value), ..Default::default() };
    let get = pb::RangeRequest { key, ..Default::default() };
    pb::TxnRequest {
        compare: vec![compare],
        success: vec![pb::RequestOp { request: Some(Op::RequestPut(put)) }],
        failure: vec![pb::RequestOp { request: Some(Op::RequestRange(get)) }],
    }
}

fn swapped(answer: &pb::TxnResponse) -> Result<Answer> {
    use pb::response_op::Response;
    let revision = revision(answer.header.as_ref())?;
    if answer.succeeded {
        return Ok(Answer::Swapped { revision });
    }
    match answer.responses.first().and_then(|response| response.response.as_ref()) {
        Some(Response::ResponseRange(range)) => {
            Ok(Answer::Kept { revision, entry: range.kvs.first().map(entry).transpose()? })
        }
        other => bail!("a get in a transaction was answered with {other:?}"),
    }
}

fn found(answer: &pb::RangeResponse) -> Result<(i64, Option<Entry>)> {
    Ok((revision(answer.header.as_ref())?, answer.kvs.first().map(entry).transpose()?))
}

fn revision(header: Option<&pb::ResponseHeader>) -> Result<i64> {
    Ok(header.context("an answer without a header")?.revision)
}

/// Collects every change through one member until it has seen `until` (0: not known yet).
pub async fn run_watcher(url: String, mut until: tokio::sync::watch::Receiver<i64>) -> Result<Vec<Change>> {
    let mut changes: Vec<Change> = Vec::new();
    loop {
        let seen = changes.last().map_or(FIRST_REVISION - 1, |change| change.revision);
        let end = *until.borrow_and_update();
        if end > 0 && seen >= end {
            return Ok(changes);
        }
        tokio::select! {
            lost = follow(&url, seen + 1, &mut changes) => {
                lost?;
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
            }
            // The end became known, and may be what the stream has delivered already.
            Ok(()) = until.changed() => {}
            // It is known, and the stream stays silent once it is reached.
            () = tokio::time::sleep(Duration::from_millis(500)), if end > 0 => {}
        }
    }
}

/// Appends what one stream delivers. An answer that cannot be is an error; a lost stream is not.
async fn follow(url: &str, from: i64, changes: &mut Vec<Change>) -> Result<()> {
    let mut client = client(url)?;
    let create = pb::WatchCreateRequest {
        key: PREFIX.into(),
        range_end: wire::prefix_end(PREFIX.as_bytes()),
        start_revision: from,
        ..Default::default()
    };
    let request =
        pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) };
    let requests = tokio_stream::StreamExt::chain(tokio_stream::once(request), tokio_stream::pending());
    let Ok(answer) = client.watch.watch(requests).await else { return Ok(()) };
    let mut stream = answer.into_inner();
    while let Ok(Some(response)) = stream.message().await {
        if response.canceled {
            bail!("the watch from revision {from} was cancelled: {}", response.cancel_reason);
        }
        for event in response.events {
            let kv = event.kv.context("an event without a key")?;
            let name = kv.key.strip_prefix(PREFIX.as_bytes()).context("an event of another key")?;
            let deleted = event.r#type == mvccpb::event::EventType::Delete as i32;
            let value = if deleted { None } else { Some(number(&kv.value)?) };
            changes.push(Change { revision: kv.mod_revision, key: number(name)?, value });
        }
    }
    Ok(())
}
