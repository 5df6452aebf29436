//! The etcd calls of the API server: three transactions and one range.
//!
//! Invariants: a key is written only under a compare of its `mod_revision`, so no update is ever lost; what belongs
//! together (`Beside`) is written together or not at all. Reads without a
//! revision are linearizable. An error that leaves open whether a write happened is `WriteError::OutcomeUnknown` and
//! nothing else is. Keys follow upstream's layout `/registry/<storage prefix>/[namespace/]name`.
//! Not here: what the values mean (object.rs), watching (feed.rs).

use std::sync::Arc;
use std::time::Duration;

use apimachinery::Value;
use apimachinery::kinds::Resource;
use apimachinery::status::Status;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;
use wire::etcdserverpb as pb;
use wire::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use wire::etcdserverpb::{request_op, response_op};

/// Rows asked for at once when a whole range is read. Source: upstream pkg/storage/etcd3 `maxLimit` is 10 000; smaller
/// pages keep one answer near 1 MiB.
const PAGE_ROWS: i64 = 1_000;
/// Longest wait for one call to the store when the request itself allows more.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Objects that may share one lease, and how much longer it may live for being shared. Source: upstream
/// etcd3/lease_manager.go (1 000 objects, 5 % of the TTL and at most 60 s).
const LEASE_OBJECTS_MAX: u32 = 1_000;
const LEASE_REUSE_S_MAX: i64 = 60;
/// Outside of `/registry`, as upstream has it.
const COMPACTION_KEY: &[u8] = b"compact_rev_key";

#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("the store did not answer: {0}")]
    Unavailable(String),
    /// The revision asked for has been compacted away.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    #[error("the store refused the read: {0}")]
    Refused(String),
}

#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum WriteError {
    /// The write may or may not have happened, now or later.
    #[error("the outcome of the write is unknown, it may still take effect: {0}")]
    OutcomeUnknown(String),
    #[error("etcdserver: request is too large")]
    TooLarge,
    #[error("etcdserver: too many requests")]
    TooManyRequests,
    #[error("the store refused the write: {0}")]
    Refused(String),
}

/// A value with the revision that wrote it.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) value: Bytes,
    pub(crate) revision: i64,
}

/// Another key of the same transaction.
#[derive(Debug)]
pub(crate) enum Beside {
    /// Must not exist.
    Create { key: String, value: Bytes },
    /// Must be what was written at `expected`.
    Delete { key: String, expected: i64 },
}

impl Beside {
    fn compare(&self) -> pb::Compare {
        match self {
            Beside::Create { key, .. } => unchanged_since(key, 0),
            Beside::Delete { key, expected } => unchanged_since(key, *expected),
        }
    }

    fn operation(&self) -> request_op::Request {
        match self {
            Beside::Create { key, value } => put(key, value.clone(), 0),
            Beside::Delete { key, .. } => delete(key),
        }
    }
}

#[derive(Debug)]
pub(crate) enum Created {
    At(i64),
    Exists,
    /// A key beside it is not what it must be.
    Hindered,
}

#[derive(Debug)]
pub(crate) enum Swapped {
    At(i64),
    /// The key is what it must be, one beside it is not.
    Hindered,
    /// Someone else wrote in between: what is there now, if anything.
    Changed(Option<Stored>),
}

/// One page of a range, in key order.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) rows: Vec<(Bytes, Stored)>,
    /// The store's revision when it was read; the pinned one if the request named one.
    pub(crate) revision: i64,
    pub(crate) more: bool,
}

/// What a server knows of the key that all servers count compactions with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CompactionRound {
    version: i64,
    /// The store's revision when the round ended; 0 before the first.
    revision: i64,
}

#[derive(Clone)]
pub(crate) struct Storage {
    client: wire::Client,
    /// `/registry`, without a trailing slash.
    prefix: String,
    lease: Arc<Mutex<Option<SharedLease>>>,
}

/// The lease that new events are attached to.
#[derive(Debug, Clone, Copy)]
struct SharedLease {
    id: i64,
    ttl_s: i64,
    until: Instant,
    objects: u32,
}

impl Storage {
    pub(crate) fn new(client: wire::Client, prefix: &str) -> Storage {
        let prefix = format!("/{}", prefix.trim_matches('/'));
        Storage { client, prefix, lease: Arc::default() }
    }

    /// `/registry/`: everything that is ours.
    pub(crate) fn root(&self) -> String {
        format!("{}/", self.prefix)
    }

    /// `/registry/pods/`: every object of a resource.
    pub(crate) fn resource_prefix(&self, resource: &Resource) -> String {
        format!("{}/{}/", self.prefix, resource.storage_prefix)
    }

    /// The store's key of an object; `item` is `namespace/name` or `name`.
    pub(crate) fn key(&self, resource: &Resource, item: &str) -> String {
        format!("{}/{}/{item}", self.prefix, resource.storage_prefix)
    }

    pub(crate) fn client(&self) -> &wire::Client {
        &self.client
    }

    /// The store's current revision, by a linearizable read that touches no object.
    pub(crate) async fn revision(&self) -> Result<i64, ReadError> {
        let request = pb::RangeRequest {
            key: Bytes::from(format!("{}/health", self.prefix)),
            count_only: true,
            ..Default::default()
        };
        Ok(self.range(request).await?.revision)
    }

    /// The value of one key now (linearizable), with the store's revision.
    pub(crate) async fn get(&self, key: &str) -> Result<(Option<Stored>, i64), ReadError> {
        let request = pb::RangeRequest { key: Bytes::from(key.to_owned()), limit: 1, ..Default::default() };
        let page = self.range(request).await?;
        Ok((page.rows.into_iter().next().map(|(_, stored)| stored), page.revision))
    }

    /// Rows with `start <= key < end of prefix`. `revision` 0 reads the present, linearizable.
    pub(crate) async fn page(
        &self,
        prefix: &str,
        start: Option<Bytes>,
        revision: i64,
    ) -> Result<Page, ReadError> {
        let request = pb::RangeRequest {
            key: start.unwrap_or_else(|| Bytes::from(prefix.to_owned())),
            range_end: wire::prefix_end(prefix.as_bytes()),
            limit: PAGE_ROWS,
            revision,
            ..Default::default()
        };
        self.range(request).await
    }

    /// Every row under `prefix` at one revision, read page by page.
    pub(crate) async fn list(&self, prefix: &str, revision: i64) -> Result<Page, ReadError> {
        let mut all = self.page(prefix, None, revision).await?;
        if revision != 0 {
            all.revision = revision;
        }
        while all.more {
            let Some((last, _)) = all.rows.last() else { break };
            let mut next = last.to_vec();
            next.push(0);
            let page = self.page(prefix, Some(Bytes::from(next)), all.revision).await?;
            all.more = page.more;
            all.rows.extend(page.rows);
        }
        Ok(all)
    }

    async fn range(&self, request: pb::RangeRequest) -> Result<Page, ReadError> {
        let mut kv = self.client.kv.clone();
        let answer = tokio::time::timeout(CALL_TIMEOUT, kv.range(request))
            .await
            .map_err(|_| ReadError::Unavailable(format!("no answer within {} s", CALL_TIMEOUT.as_secs())))?
            .map_err(|status| read_error(&status))?
            .into_inner();
        let revision = answer.header.map(|header| header.revision).unwrap_or_default();
        let rows = answer
            .kvs
            .into_iter()
            .map(|kv| (kv.key, Stored { value: kv.value, revision: kv.mod_revision }))
            .collect();
        Ok(Page { rows, revision, more: answer.more })
    }

    /// Writes a key that must not exist.
    pub(crate) async fn create(
        &self,
        key: &str,
        value: Bytes,
        ttl_s: Option<i64>,
        beside: &[Beside],
        deadline: Instant,
    ) -> Result<Created, WriteError> {
        let lease = self.lease_for(ttl_s).await?;
        match self.swap(key, 0, put(key, value, lease), beside, deadline).await? {
            Swapped::At(revision) => Ok(Created::At(revision)),
            Swapped::Changed(_) => Ok(Created::Exists),
            Swapped::Hindered => Ok(Created::Hindered),
        }
    }

    /// Replaces the value that was written at `expected`.
    pub(crate) async fn update(
        &self,
        key: &str,
        expected: i64,
        value: Bytes,
        ttl_s: Option<i64>,
        beside: &[Beside],
        deadline: Instant,
    ) -> Result<Swapped, WriteError> {
        let lease = self.lease_for(ttl_s).await?;
        self.swap(key, expected, put(key, value, lease), beside, deadline).await
    }

    /// Deletes the value that was written at `expected`.
    pub(crate) async fn delete(
        &self,
        key: &str,
        expected: i64,
        beside: &[Beside],
        deadline: Instant,
    ) -> Result<Swapped, WriteError> {
        self.swap(key, expected, delete(key), beside, deadline).await
    }

    /// `if mod_revision(key) == expected and beside it the same then write all else read the key`.
    async fn swap(
        &self,
        key: &str,
        expected: i64,
        write: request_op::Request,
        beside: &[Beside],
        deadline: Instant,
    ) -> Result<Swapped, WriteError> {
        let read = pb::RangeRequest { key: Bytes::from(key.to_owned()), limit: 1, ..Default::default() };
        let operation = |request| pb::RequestOp { request: Some(request) };
        let operations = std::iter::once(write).chain(beside.iter().map(Beside::operation));
        let compares = std::iter::once(unchanged_since(key, expected));
        let request = pb::TxnRequest {
            compare: compares.chain(beside.iter().map(Beside::compare)).collect(),
            success: operations.map(operation).collect(),
            failure: vec![operation(request_op::Request::RequestRange(read))],
        };
        let deadline = deadline.min(Instant::now() + CALL_TIMEOUT);
        let mut kv = self.client.kv.clone();
        let answer = tokio::time::timeout_at(deadline, kv.txn(request))
            .await
            .map_err(|_| WriteError::OutcomeUnknown("the store did not answer in time".to_owned()))?
            .map_err(|status| write_error(&status))?
            .into_inner();
        if answer.succeeded {
            return Ok(Swapped::At(answer.header.map(|header| header.revision).unwrap_or_default()));
        }
        let current = read_back(answer.responses);
        if current.as_ref().map_or(0, |kv| kv.mod_revision) == expected {
            return Ok(Swapped::Hindered);
        }
        Ok(Swapped::Changed(current.map(|kv| Stored { value: kv.value, revision: kv.mod_revision })))
    }

    /// One turn of `compaction::run`: whoever counts the shared key up compacts to what it saw a round earlier.
    pub(crate) async fn compact_round(&self, round: CompactionRound) -> Result<CompactionRound, String> {
        let key = Bytes::from_static(COMPACTION_KEY);
        let compare = pb::Compare {
            result: CompareResult::Equal as i32,
            target: CompareTarget::Version as i32,
            key: key.clone(),
            target_union: Some(TargetUnion::Version(round.version)),
            ..Default::default()
        };
        let put = pb::PutRequest {
            key: key.clone(),
            value: Bytes::from(round.revision.to_string()),
            ..Default::default()
        };
        let read = pb::RangeRequest { key, limit: 1, ..Default::default() };
        let request = pb::TxnRequest {
            compare: vec![compare],
            success: vec![pb::RequestOp { request: Some(request_op::Request::RequestPut(put)) }],
            failure: vec![pb::RequestOp { request: Some(request_op::Request::RequestRange(read)) }],
        };
        let mut kv = self.client.kv.clone();
        let answer = kv.txn(request).await.map_err(|status| status.message().to_owned())?.into_inner();
        let revision = answer.header.map(|header| header.revision).unwrap_or_default();
        if !answer.succeeded {
            let version = read_back(answer.responses).map_or(0, |kv| kv.version);
            return Ok(CompactionRound { version, revision });
        }
        if round.revision > 0 {
            let request = pb::CompactionRequest { revision: round.revision, ..Default::default() };
            kv.compact(request).await.map_err(|status| status.message().to_owned())?;
        }
        Ok(CompactionRound { version: round.version + 1, revision })
    }

    /// A lease that lives at least `ttl_s`, shared by what is written within a short window; 0 = none.
    async fn lease_for(&self, ttl_s: Option<i64>) -> Result<i64, WriteError> {
        let Some(ttl_s) = ttl_s.filter(|ttl_s| *ttl_s > 0) else { return Ok(0) };
        if let Some(id) = self.take_shared_lease(ttl_s) {
            return Ok(id);
        }
        let reuse_s = (ttl_s / 20).clamp(1, LEASE_REUSE_S_MAX);
        let mut lease = self.client.lease.clone();
        let request = pb::LeaseGrantRequest { ttl: ttl_s + reuse_s, id: 0 };
        let granted = tokio::time::timeout(CALL_TIMEOUT, lease.lease_grant(request))
            .await
            .map_err(|_| WriteError::Refused("no lease granted in time, nothing was written".to_owned()))?
            .map_err(|status| WriteError::Refused(format!("no lease granted: {}", status.message())))?
            .into_inner();
        let until = Instant::now() + Duration::from_secs(reuse_s.unsigned_abs());
        *self.lease.lock() = Some(SharedLease { id: granted.id, ttl_s, until, objects: 1 });
        Ok(granted.id)
    }

    fn take_shared_lease(&self, ttl_s: i64) -> Option<i64> {
        let mut shared = self.lease.lock();
        let lease = shared.as_mut()?;
        if lease.ttl_s != ttl_s || lease.objects >= LEASE_OBJECTS_MAX || Instant::now() >= lease.until {
            return None;
        }
        lease.objects += 1;
        Some(lease.id)
    }
}

/// The text that is stored: the tree without `metadata.resourceVersion`, which the store itself keeps.
pub(crate) fn encode(value: &Value) -> Bytes {
    let mut value = value.clone();
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
        metadata.remove("selfLink");
    }
    Bytes::from(serde_json::to_vec(&value).expect("a JSON tree serializes into memory"))
}

/// The row that a transaction read because its compare failed.
fn read_back(responses: Vec<pb::ResponseOp>) -> Option<wire::mvccpb::KeyValue> {
    responses.into_iter().find_map(|response| match response.response {
        Some(response_op::Response::ResponseRange(range)) => range.kvs.into_iter().next(),
        _ => None,
    })
}

fn put(key: &str, value: Bytes, lease: i64) -> request_op::Request {
    request_op::Request::RequestPut(pb::PutRequest {
        key: Bytes::from(key.to_owned()),
        value,
        lease,
        ..Default::default()
    })
}

fn delete(key: &str) -> request_op::Request {
    let key = Bytes::from(key.to_owned());
    request_op::Request::RequestDeleteRange(pb::DeleteRangeRequest { key, ..Default::default() })
}

/// 0: it does not exist.
fn unchanged_since(key: &str, revision: i64) -> pb::Compare {
    pb::Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Mod as i32,
        key: Bytes::from(key.to_owned()),
        target_union: Some(TargetUnion::ModRevision(revision)),
        ..Default::default()
    }
}

fn read_error(status: &tonic::Status) -> ReadError {
    let text = status.message().to_owned();
    match status.code() {
        tonic::Code::OutOfRange if text.contains("compacted") => ReadError::Compacted,
        tonic::Code::OutOfRange => ReadError::FutureRevision,
        tonic::Code::InvalidArgument
        | tonic::Code::PermissionDenied
        | tonic::Code::Unauthenticated
        | tonic::Code::Unimplemented
        | tonic::Code::FailedPrecondition => ReadError::Refused(text),
        _ => ReadError::Unavailable(text),
    }
}

/// Only answers that the store gives *before* it proposes anything are definite.
fn write_error(status: &tonic::Status) -> WriteError {
    let text = status.message().to_owned();
    match status.code() {
        tonic::Code::InvalidArgument if text.contains("too large") => WriteError::TooLarge,
        // Unknown is the code that etcd gives it.
        tonic::Code::ResourceExhausted | tonic::Code::Unknown if text == "etcdserver: too many requests" => {
            WriteError::TooManyRequests
        }
        tonic::Code::ResourceExhausted
        | tonic::Code::InvalidArgument
        | tonic::Code::PermissionDenied
        | tonic::Code::Unauthenticated
        | tonic::Code::Unimplemented
        | tonic::Code::FailedPrecondition
        | tonic::Code::NotFound => WriteError::Refused(text),
        _ => WriteError::OutcomeUnknown(text),
    }
}

/// The one place where errors of the store become answers.
impl From<ReadError> for Status {
    fn from(error: ReadError) -> Status {
        match &error {
            ReadError::Unavailable(_) => Status::timeout(&error, 1),
            ReadError::Compacted => Status::expired("The resourceVersion for the provided list is too old."),
            ReadError::FutureRevision | ReadError::Refused(_) => Status::internal(&error),
        }
    }
}

impl From<WriteError> for Status {
    fn from(error: WriteError) -> Status {
        match &error {
            WriteError::OutcomeUnknown(_) => Status::timeout(&error, 1),
            WriteError::TooLarge => Status::request_entity_too_large(&error),
            WriteError::TooManyRequests => Status::too_many_requests(error.to_string(), 1),
            WriteError::Refused(_) => Status::internal(&error),
        }
    }
}
