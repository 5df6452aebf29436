//! A queue of keys under a prefix, each held by a lease: what locks and elections have in common.
//!
//! A key's place is its creation revision; the first one holds. Whoever waits watches only the key right before its
//! own, so one leaving wakes one. The creation revision is also the fencing token: it only grows from holder to holder.
//! Keys and steps are those of etcd's `concurrency` package, so clients that do it by themselves can take part.

use std::sync::Arc;

use bytes::Bytes;
use mvcc::{
    CheckError, Command, Compare, CompareResult, CompareTarget, DeleteRange, KeyRange, KeyValue, LeaseGrant,
    Op, OpReply, Put, RangeQuery, Reply, SortOrder, SortTarget, Txn,
};
use tonic::Status;

use crate::{
    context::{Asker, Context},
    status::{self, Refusal},
    turns::Connection,
    watch::hub::{INBOX_ENTRIES_MAX, Inbox},
};

/// Lifetime of a lease that is made for a caller who brought none. Source: etcd concurrency/session.go.
const SESSION_TTL_S: i64 = 60;

/// One queue on behalf of one caller.
pub(crate) struct Queue {
    context: Arc<Context>,
    asker: Asker,
    connection: Option<Connection>,
    prefix: Bytes,
}

/// A place in it.
pub(crate) struct Place {
    pub key: Bytes,
    /// Creation revision of the key.
    pub revision: i64,
    pub lease: i64,
    /// The store's revision after entering.
    pub entered: i64,
    /// What the key held when the caller had entered before; `None` when it entered just now.
    pub value_before: Option<Bytes>,
}

impl Queue {
    pub(crate) fn new(
        context: Arc<Context>,
        (asker, connection): (Asker, Option<Connection>),
        name: &[u8],
    ) -> Queue {
        let mut prefix = name.to_vec();
        prefix.push(b'/');
        Queue { context, asker, connection, prefix: prefix.into() }
    }

    /// Puts the caller's key behind all others; a caller that is in the queue already keeps its place.
    pub(crate) async fn enter(&self, lease: i64, value: Bytes) -> Result<Place, Status> {
        let lease = if lease == 0 { self.session().await? } else { lease };
        let key = Bytes::from([&self.prefix[..], format!("{lease:x}").as_bytes()].concat());
        let range = KeyRange::Key(key.clone());
        let missing = Compare {
            range: range.clone(),
            result: CompareResult::Equal,
            target: CompareTarget::CreateRevision(0),
        };
        let put = Put { key: key.clone(), value, lease, ..Put::default() };
        let txn = Txn {
            compare: vec![missing],
            success: vec![Op::Put(put)],
            failure: vec![Op::Range(RangeQuery::latest(range))],
        };
        let (revision, reply) = self.txn(txn).await?;
        if reply.succeeded {
            return Ok(Place { key, revision, lease, entered: revision, value_before: None });
        }
        let Some(OpReply::Range(found)) = reply.responses.into_iter().next() else {
            return Err(status::mismatched_reply());
        };
        let found = found.kvs.into_iter().next().ok_or_else(status::mismatched_reply)?;
        Ok(Place {
            key,
            revision: found.create_revision,
            lease,
            entered: revision,
            value_before: Some(found.value),
        })
    }

    /// Waits until every earlier key is gone; answers whether the caller's own is still there, that is whether its lease
    /// still lives. A caller that stops waiting leaves the queue, and so does one that is told of an error: it does not
    /// know that it would hold.
    pub(crate) async fn hold(&self, place: &Place) -> Result<bool, Status> {
        let mut guard = Leave { queue: Some(self), key: place.key.clone() };
        tokio::select! {
            waited = self.wait(place.revision) => waited?,
            () = self.context.shutdown.cancelled() => return Err(Refusal::Stopped.into()),
        }
        let own = self.one(RangeQuery::latest(KeyRange::Key(place.key.clone())))?;
        guard.queue = None;
        Ok(own.is_some())
    }

    async fn wait(&self, revision: i64) -> Result<(), Status> {
        let stream = self.context.hub.stream_id();
        loop {
            let Some(before) = self.before(revision)? else { return Ok(()) };
            let range = KeyRange::Key(before.key);
            let ear = Ear::new(self.context.clone(), stream, range);
            // It may have left between the look and the listening.
            if self.before(revision)?.is_some_and(|now| now.key == *ear.range.start()) {
                ear.inbox.wake.notified().await;
            }
        }
    }

    /// The last key that was created before this revision.
    fn before(&self, revision: i64) -> Result<Option<KeyValue>, Status> {
        let mut query = RangeQuery::latest(KeyRange::prefix(self.prefix.clone()));
        query.sort = Some((SortTarget::Create, SortOrder::Descend));
        query.max_create_revision = revision - 1;
        self.one(query)
    }

    /// Who holds: the key that was created first.
    pub(crate) fn first(&self) -> Result<Option<KeyValue>, Status> {
        let mut query = RangeQuery::latest(KeyRange::prefix(self.prefix.clone()));
        query.sort = Some((SortTarget::Create, SortOrder::Ascend));
        self.one(query)
    }

    fn one(&self, mut query: RangeQuery) -> Result<Option<KeyValue>, Status> {
        query.limit = 1;
        Ok(self
            .context
            .gate
            .authorize(&self.context.who(&self.asker)?, query)?
            .range()?
            .kvs
            .into_iter()
            .next())
    }

    /// Listens to every change in the queue.
    pub(crate) fn listen(&self) -> Ear {
        let stream = self.context.hub.stream_id();
        Ear::new(self.context.clone(), stream, KeyRange::prefix(self.prefix.clone()))
    }

    /// Runs `op` if the key still has the place that the caller believes. Gives the revision and whether it ran.
    pub(crate) async fn if_held(&self, key: Bytes, revision: i64, op: Op) -> Result<(i64, bool), Status> {
        if key.is_empty() {
            return Err(status::check(CheckError::EmptyKey));
        }
        let target = CompareTarget::CreateRevision(revision);
        let held = Compare { range: KeyRange::Key(key), result: CompareResult::Equal, target };
        let txn = Txn { compare: vec![held], success: vec![op], failure: Vec::new() };
        let (revision, reply) = self.txn(txn).await?;
        Ok((revision, reply.succeeded))
    }

    /// Takes the key out of the queue.
    pub(crate) async fn leave(&self, key: Bytes) -> Result<i64, Status> {
        let size_bytes = key.len();
        let delete = DeleteRange { range: KeyRange::Key(key), prev_kv: false };
        Ok(self.write(size_bytes, Command::DeleteRange(delete)).await?.0)
    }

    async fn session(&self) -> Result<i64, Status> {
        let grant = LeaseGrant { id: rand::random_range(1..=i64::MAX), ttl_s: SESSION_TTL_S };
        self.write(size_of::<LeaseGrant>(), Command::LeaseGrant(grant)).await?;
        Ok(grant.id)
    }

    async fn txn(&self, txn: Txn) -> Result<(i64, mvcc::TxnReply), Status> {
        match self.write(size_bytes(&txn), Command::Txn(txn)).await? {
            (revision, Reply::Txn(reply)) => Ok((revision, reply)),
            _ => Err(status::mismatched_reply()),
        }
    }

    /// Takes a turn for this one step: whoever waits in a queue holds none.
    async fn write(&self, size_bytes: usize, command: Command) -> Result<(i64, Reply), Status> {
        let caller = self.context.who(&self.asker)?;
        self.context.write((caller, self.connection), size_bytes, command).await
    }
}

/// Keys and values; the message in which they would have come is a little longer.
fn size_bytes(txn: &Txn) -> usize {
    let compared = txn.compare.iter().map(|compare| compare.range.start().len());
    let operations = txn.success.iter().chain(&txn.failure).map(|op| match op {
        Op::Put(put) => put.key.len() + put.value.len(),
        Op::DeleteRange(delete) => delete.range.start().len(),
        Op::Range(query) => query.range.start().len(),
        Op::Txn(nested) => size_bytes(nested),
    });
    compared.chain(operations).sum()
}

/// Takes the key out when the waiting is given up, that is when its future fails or is dropped.
struct Leave<'a> {
    queue: Option<&'a Queue>,
    key: Bytes,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let Some(queue) = self.queue else { return };
        let queue = Queue {
            context: queue.context.clone(),
            asker: queue.asker.clone(),
            connection: queue.connection,
            prefix: queue.prefix.clone(),
        };
        let key = std::mem::take(&mut self.key);
        tokio::spawn(async move {
            if let Err(status) = queue.leave(key).await {
                tracing::debug!(error = status.message(), "a queue's key stays until its lease ends");
            }
        });
    }
}

/// Wakes when a key of its range changes.
pub(crate) struct Ear {
    context: Arc<Context>,
    stream: u64,
    range: KeyRange,
    pub inbox: Arc<Inbox>,
}

impl Ear {
    fn new(context: Arc<Context>, stream: u64, range: KeyRange) -> Ear {
        let inbox = Arc::new(Inbox::new(INBOX_ENTRIES_MAX));
        context.hub.add(stream, 0, &range, &inbox);
        Ear { context, stream, range, inbox }
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.context.hub.remove(self.stream, 0, &self.range);
    }
}
