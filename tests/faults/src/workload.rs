//! Clients that write and read a few keys, and now and then read what may be old.
//!
//! Invariants: a client is sequential and talks to one member; only an error that the server gives before it proposes
//! counts as "no effect", everything else is unknown. Not here: watchers (collect.rs), holders of leases and locks
//! (holders.rs).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tonic::{Code, Status};
use wire::etcdserverpb as pb;
use wire::mvccpb;

use crate::cluster::client;
use crate::history::{Answer, Entry, Key, LEASED, Operation, Outcome, Request, Value};
use crate::journal::Journal;
use crate::stale::Read;

const PREFIX: &str = "k/";
/// Keys that members name (locks have such) get numbers from here on.
const NAMED: Key = 1_000_000;
/// Some values are written as long as this, so that packets have all sizes.
const LONG_VALUE_BYTES: usize = 3_000;
const KEYS: Key = 8;
/// After this a client stops waiting and does not know.
pub(crate) const OPERATION_TIMEOUT: Duration = Duration::from_secs(2);
pub(crate) const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(50);
/// Between a client's operations, so that a run is about faults and not about speed.
const PAUSE: Duration = Duration::from_millis(2);

/// What all clients of a run share.
pub struct Shared {
    pub started: Instant,
    pub values: AtomicU64,
    pub stop: AtomicBool,
    /// Per watcher the last revision that it was given.
    pub collected: Vec<AtomicI64>,
    /// The highest revision that anybody was told.
    pub told: AtomicI64,
    pub leased_keys: AtomicU32,
    /// While disks are copied nothing is compacted, so that each copy can be asked for what was told before the first.
    pub copying: AtomicBool,
    /// Operations that clients were answered.
    pub answered: AtomicU64,
    pub journal: Option<Journal>,
    names: Mutex<HashMap<Vec<u8>, Key>>,
}

impl Shared {
    pub fn new(members: usize) -> Arc<Shared> {
        Shared::with_journal(members, None)
    }

    /// Writes one line to the journal, if there is one.
    pub(crate) fn note(&self, name: &'static str, record: &impl serde::Serialize) {
        if let Some(journal) = &self.journal {
            journal.write(name, record);
        }
    }

    pub fn with_journal(members: usize, journal: Option<Journal>) -> Arc<Shared> {
        Arc::new(Shared {
            started: Instant::now(),
            values: AtomicU64::new(1),
            stop: AtomicBool::new(false),
            collected: (0..members).map(|_| AtomicI64::new(0)).collect(),
            told: AtomicI64::new(0),
            leased_keys: AtomicU32::new(LEASED + 1),
            copying: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            journal,
            names: Mutex::new(HashMap::new()),
        })
    }

    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The number of a key: its own, or one that is given when its name is first seen.
    pub fn key(&self, name: &[u8]) -> Key {
        let own = name.strip_prefix(PREFIX.as_bytes()).and_then(|digits| number(digits).ok());
        own.unwrap_or_else(|| {
            let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            let next = NAMED + names.len() as Key;
            *names.entry(name.to_vec()).or_insert(next)
        })
    }

    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

pub(crate) fn key_bytes(key: Key) -> Bytes {
    Bytes::from(format!("{PREFIX}{key}"))
}

pub(crate) fn value_bytes(value: Value) -> Bytes {
    let width = if value.is_multiple_of(8) { LONG_VALUE_BYTES } else { 1 };
    Bytes::from(format!("{value:0width$}"))
}

pub(crate) fn number<T: std::str::FromStr>(bytes: &[u8]) -> Result<T> {
    let text = std::str::from_utf8(bytes).context("not UTF-8")?;
    text.parse().ok().with_context(|| format!("{text:?} is nothing that was written"))
}

/// A key that a lock made holds nothing, which counts as zero.
pub(crate) fn entry(kv: &mvccpb::KeyValue) -> Result<Entry> {
    Ok(Entry {
        value: if kv.value.is_empty() { 0 } else { number(&kv.value)? },
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
    })
}

/// What one client did and was told, in order.
#[derive(Default)]
pub struct Client {
    pub operations: Vec<Operation>,
    pub reads: Vec<Read>,
}

/// Runs one client until told to stop.
pub async fn run_client(
    number: usize,
    member: usize,
    url: String,
    seed: u64,
    shared: Arc<Shared>,
) -> Result<Client> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut client = client(&url)?;
    let mut done = Client::default();
    // Per key what this client saw last, for the comparison of a swap.
    let mut seen: Vec<Option<Entry>> = vec![None; KEYS as usize];
    while !shared.stop.load(Ordering::Relaxed) {
        if random.random_bool(0.1) {
            let asked =
                (random.random_range(0..KEYS), random.random_bool(0.5).then(|| random.random_range(0..60)));
            let read = read_old(&mut client, number, member, asked, &shared).await?;
            read.iter().for_each(|read| shared.note("reads", read));
            done.reads.extend(read);
            continue;
        }
        let request = choose(&mut random, &seen, &shared);
        let call_ns = shared.now_ns();
        let outcome = match tokio::time::timeout(OPERATION_TIMEOUT, send(&mut client, request)).await {
            Ok(Ok(answer)) => Outcome::Done(answer?),
            Ok(Err(status)) => failed(&status),
            Err(_) => Outcome::Unknown(format!("no answer within {OPERATION_TIMEOUT:?}")),
        };
        let return_ns = shared.now_ns();
        let ok = matches!(outcome, Outcome::Done(_));
        shared.answered.fetch_add(u64::from(ok), Ordering::Relaxed);
        if let Outcome::Done(Answer::Found { entry, .. } | Answer::Kept { entry, .. }) = &outcome {
            seen[request.key() as usize] = *entry;
        }
        if let Outcome::Done(answer) = &outcome {
            shared.told.fetch_max(answer.revision(), Ordering::Relaxed);
        }
        let operation = Operation { client: number, member, call_ns, return_ns, request, outcome };
        shared.note("operations", &operation);
        done.operations.push(operation);
        tokio::time::sleep(if ok { PAUSE } else { PAUSE_AFTER_ERROR }).await;
    }
    Ok(done)
}

/// A serializable read, or one `back` revisions behind what somebody was told. `None`: not answered, or that revision
/// has been compacted.
async fn read_old(
    client: &mut wire::Client,
    number: usize,
    member: usize,
    (key, back): (Key, Option<i64>),
    shared: &Shared,
) -> Result<Option<Read>> {
    let at = back.map(|back| (shared.told.load(Ordering::Relaxed) - back).max(1));
    let request = pb::RangeRequest {
        key: key_bytes(key),
        revision: at.unwrap_or(0),
        serializable: at.is_none_or(|at| at % 2 == 0),
        ..Default::default()
    };
    let call_ns = shared.now_ns();
    let Ok(Ok(answer)) = tokio::time::timeout(OPERATION_TIMEOUT, client.kv.range(request)).await else {
        tokio::time::sleep(PAUSE_AFTER_ERROR).await;
        return Ok(None);
    };
    let (revision, entry) = found(answer.get_ref())?;
    let return_ns = shared.now_ns();
    Ok(Some(Read { client: number, member, call_ns, return_ns, key, at, revision, entry }))
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
        // Said by our own transport, which sends a request at most once, of one that it had no connection for.
        Code::Unavailable
            if status.message().starts_with("http") && status.message().contains("Connection refused") =>
        {
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

pub(crate) fn revision(header: Option<&pb::ResponseHeader>) -> Result<i64> {
    Ok(header.context("an answer without a header")?.revision)
}
