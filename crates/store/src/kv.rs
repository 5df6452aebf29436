//! The KV service: reads at a revision, writes through the log.
//!
//! Invariants: a linearizable read passes the barrier before it looks (`catch_up`), at its caller too; a long read is taken in pieces at one pinned
//! revision, so it holds up neither writes nor other reads.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use futures_util::{Stream, future::BoxFuture, stream};
use mvcc::{
    Command, Compact, KeyValue, OpReply, PlannedRead, RangeError, RangeQuery, RangeReply, ReadPlan, Reply,
    TxnReply,
};
use prost::Message as _;
use tonic::{Request, Response, Status};
use wire::etcdserverpb::{self as pb, kv_server::Kv};

use crate::{
    context::{Context, Learner},
    convert::{self, RangeAsked},
    gate::{Authorized, PieceError, ReadTxn},
    long::{self, MESSAGE_SIZE_BYTES_MAX as ANSWER_SIZE_BYTES_MAX},
    status::{self, Refusal},
    turns::Connection,
};

/// How much one visit to the store may take: rows looked at and bytes copied.
const CHUNK_ROWS_MAX: usize = 2000;
const CHUNK_SIZE_BYTES: usize = 1024 * 1024;
/// How often a read of the latest state is begun again because a compaction came between.
const READ_ATTEMPTS_MAX: usize = 3;
/// More rows than these are sorted on another thread.
const SORTED_HERE_ROWS_MAX: usize = 10_000;
/// Keys in the first piece of a stream. Source: etcd 3.7 `RangeStream`.
const STREAM_ROWS_FIRST: usize = 10;
/// How often a caller of a physical compaction looks whether it is done.
const COMPACTION_POLL: Duration = Duration::from_millis(10);

#[derive(Clone)]
pub(crate) struct KvService {
    pub context: Arc<Context>,
}

type RangeStream = Pin<Box<dyn Stream<Item = Result<pb::RangeStreamResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Kv for KvService {
    type RangeStreamStream = RangeStream;

    async fn range(&self, request: Request<pb::RangeRequest>) -> Result<Response<pb::RangeResponse>, Status> {
        let learner = if request.get_ref().serializable { Learner::Serves } else { Learner::Refuses };
        let (asker, request) = self.context.admit_long(request, learner)?;
        let asked = convert::range(request)?;
        self.context.catch_up(asked.freshness).await?;
        let caller = self.context.who(&asker)?;
        self.context.metrics.ranges.fetch_add(1, Relaxed);
        let begin = Instant::now();
        let reply = match self.context.gate.authorize(&caller, asked.query) {
            Ok(allowed) => read(&self.context, &allowed).await,
            Err(refused) => Err(refused),
        };
        self.context.metrics.range[usize::from(reply.is_ok())].observe(begin.elapsed());
        let Measured { reply, size_bytes } = reply?;
        let header = self.context.header(reply.revision);
        self.respond(size_bytes, move || convert::range_response(header, reply)).await
    }

    async fn range_stream(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<RangeStream>, Status> {
        let learner = if request.get_ref().serializable { Learner::Serves } else { Learner::Refuses };
        let (asker, request) = self.context.admit_long(request, learner)?;
        let RangeAsked { query, freshness } = convert::range(request)?;
        if query.sort.is_some() {
            return Err(Status::unimplemented("RangeStream does not support custom sort orders"));
        }
        if query.is_filtered() {
            return Err(Status::unimplemented("RangeStream does not support revision filters"));
        }
        self.context.catch_up(freshness).await?;
        let caller = self.context.who(&asker)?;
        self.context.metrics.ranges.fetch_add(1, Relaxed);
        Ok(Response::new(self.pieces(self.context.gate.authorize(&caller, query)?)))
    }

    async fn put(&self, request: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        let (connection, size_bytes) = (Connection::of(&request), request.get_ref().encoded_len());
        let (caller, put) = self.context.admit_read(request, Learner::Refuses, convert::put)?;
        match self.context.write((caller, connection), size_bytes, Command::Put(put)).await? {
            (revision, Reply::Put(reply)) => {
                Ok(Response::new(convert::put_response(self.context.header(revision), reply)))
            }
            _ => Err(status::mismatched_reply()),
        }
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let (connection, size_bytes) = (Connection::of(&request), request.get_ref().encoded_len());
        let (caller, delete) = self.context.admit_read(request, Learner::Refuses, convert::delete_range)?;
        match self.context.write((caller, connection), size_bytes, Command::DeleteRange(delete)).await? {
            (revision, Reply::DeleteRange(reply)) => {
                let header = self.context.header(revision);
                let size_bytes = reply.prev_kvs.iter().map(KeyValue::size_bytes).sum();
                self.respond(size_bytes, move || convert::delete_response(header, reply)).await
            }
            _ => Err(status::mismatched_reply()),
        }
    }

    async fn txn(&self, request: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
        let connection = Connection::of(&request);
        let (asker, request) = self.context.admit_long(request, Learner::Refuses)?;
        let size_bytes = request.encoded_len();
        let asked = convert::txn(request, self.context.config.txn_operations_max)?;
        let (revision, Measured { reply, size_bytes }) = if asked.txn.is_read_only() {
            self.context.catch_up(asked.freshness).await?;
            let caller = self.context.who(&asker)?;
            read_txn(&self.context, &self.context.gate.authorize(&caller, ReadTxn(asked.txn))?).await?
        } else {
            let caller = self.context.who(&asker)?;
            match self.context.write((caller, connection), size_bytes, Command::Txn(asked.txn)).await? {
                (revision, Reply::Txn(reply)) => {
                    (revision, Measured { size_bytes: txn_size_bytes(&reply), reply })
                }
                _ => return Err(status::mismatched_reply()),
            }
        };
        let header = self.context.header(revision);
        self.respond(size_bytes, move || convert::txn_response(header, reply)).await
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let caller = self.context.admit(&request, Learner::Refuses)?;
        let pb::CompactionRequest { revision, physical } = request.into_inner();
        let (current, _) = self.context.propose(caller, Command::Compact(Compact { revision })).await?;
        if physical {
            while self.context.gate.compaction_pending() {
                tokio::select! {
                    () = tokio::time::sleep(COMPACTION_POLL) => {}
                    () = self.context.shutdown.cancelled() => return Err(Refusal::Stopped.into()),
                }
            }
        }
        Ok(Response::new(pb::CompactionResponse { header: Some(self.context.header(current)) }))
    }
}

/// A reply, and about how long its answer is.
struct Measured<T> {
    reply: T,
    size_bytes: usize,
}

/// Answers a read as one reply, taken in pieces.
async fn read(context: &Context, asked: &Authorized<RangeQuery>) -> Result<Measured<RangeReply>, Status> {
    for _ in 0..READ_ATTEMPTS_MAX {
        match read_in_pieces(context, asked).await {
            // The history under a read of the latest state was dropped meanwhile: the state is another now.
            Err(PieceError::Range(RangeError::Compacted)) if asked.query().revision <= 0 => {}
            result => return Ok(result?),
        }
    }
    Err(Refusal::TimedOut.into())
}

/// The store's revision and the answer. Compares are decided at once, reads are taken in pieces at the revision of the
/// decision.
async fn read_txn(
    context: &Context,
    asked: &Authorized<ReadTxn>,
) -> Result<(i64, Measured<TxnReply>), Status> {
    for _ in 0..READ_ATTEMPTS_MAX {
        let plan = asked.plan()?;
        let mut left_bytes = ANSWER_SIZE_BYTES_MAX;
        match run_plan(context, asked, &plan, &mut left_bytes).await {
            // History was dropped meanwhile. A revision that the client named is refused with the next plan.
            Err(PieceError::Range(RangeError::Compacted)) => {}
            result => {
                let size_bytes = ANSWER_SIZE_BYTES_MAX - left_bytes;
                return Ok((plan.revision, Measured { reply: result?, size_bytes }));
            }
        }
    }
    // Not in one piece instead: that would keep apply out of the state for as long as the answer is large.
    Err(Refusal::TimedOut.into())
}

fn run_plan<'a>(
    context: &'a Context,
    asked: &'a Authorized<ReadTxn>,
    plan: &'a ReadPlan,
    left_bytes: &'a mut usize,
) -> BoxFuture<'a, Result<TxnReply, PieceError>> {
    Box::pin(async move {
        let mut responses = Vec::with_capacity(plan.reads.len());
        for read in &plan.reads {
            responses.push(match read {
                PlannedRead::Range(query) => {
                    let reply = read_bounded(context, &asked.part(query.clone()), left_bytes).await?;
                    OpReply::Range(RangeReply { revision: plan.revision, ..reply })
                }
                PlannedRead::Txn(nested) => OpReply::Txn(run_plan(context, asked, nested, left_bytes).await?),
            });
        }
        Ok(TxnReply { succeeded: plan.succeeded, responses })
    })
}

async fn read_in_pieces(
    context: &Context,
    asked: &Authorized<RangeQuery>,
) -> Result<Measured<RangeReply>, PieceError> {
    let mut left_bytes = ANSWER_SIZE_BYTES_MAX;
    let reply = read_bounded(context, asked, &mut left_bytes).await?;
    Ok(Measured { reply, size_bytes: ANSWER_SIZE_BYTES_MAX - left_bytes })
}

fn txn_size_bytes(reply: &TxnReply) -> usize {
    let size_bytes = |kvs: &[KeyValue]| kvs.iter().map(KeyValue::size_bytes).sum();
    let responses = reply.responses.iter().map(|response| match response {
        OpReply::Range(reply) => size_bytes(&reply.kvs),
        OpReply::Put(reply) => reply.prev.as_ref().map_or(0, KeyValue::size_bytes),
        OpReply::DeleteRange(reply) => size_bytes(&reply.prev_kvs),
        OpReply::Txn(reply) => txn_size_bytes(reply),
    });
    responses.sum()
}

/// Takes from `left_bytes` what the answer is long.
async fn read_bounded(
    context: &Context,
    asked: &Authorized<RangeQuery>,
    left_bytes: &mut usize,
) -> Result<RangeReply, PieceError> {
    let mut cursor = asked.cursor();
    let (kvs, revision) = asked.piece(&mut cursor, CHUNK_ROWS_MAX, CHUNK_SIZE_BYTES)?;
    take(left_bytes, &kvs)?;
    let mut reply = RangeReply { kvs, more: false, count: 0, revision };
    while !cursor.is_done() {
        if cursor.unsorted() > SORTED_HERE_ROWS_MAX {
            // Off this thread: heartbeats run on it.
            let sorting = context.config.surroundings.blocking(move || {
                cursor.arrange();
                cursor
            });
            cursor = sorting.await.map_err(|error| Status::internal(error.to_string()))?;
        } else {
            cursor.arrange();
        }
        tokio::task::yield_now().await;
        let (kvs, _) = asked.piece(&mut cursor, CHUNK_ROWS_MAX, CHUNK_SIZE_BYTES)?;
        take(left_bytes, &kvs)?;
        reply.kvs.extend(kvs);
    }
    reply.more = cursor.more();
    reply.count = cursor.count();
    Ok(reply)
}

fn take(left_bytes: &mut usize, kvs: &[KeyValue]) -> Result<(), Status> {
    let size_bytes: usize = kvs.iter().map(KeyValue::size_bytes).sum();
    let left = left_bytes.checked_sub(size_bytes);
    *left_bytes = left.ok_or_else(|| long::too_long(ANSWER_SIZE_BYTES_MAX - *left_bytes + size_bytes))?;
    Ok(())
}

impl KvService {
    async fn respond<M: prost::Message + Default + 'static>(
        &self,
        size_bytes: usize,
        make: impl FnOnce() -> M + Send + 'static,
    ) -> Result<Response<M>, Status> {
        long::respond(&self.context.config.surroundings, size_bytes, make).await
    }

    /// The pieces of a streamed read; header, count and `more` come with the last. The header's revision is the store's
    /// when the read began, as in every read.
    fn pieces(&self, asked: Authorized<RangeQuery>) -> RangeStream {
        let context = self.context.clone();
        let state = Some((asked.cursor(), STREAM_ROWS_FIRST, None));
        Box::pin(stream::try_unfold(state, move |state| {
            let (context, asked) = (context.clone(), asked.clone());
            async move {
                let Some((mut cursor, rows_max, begun_at)) = state else { return Ok(None) };
                tokio::task::yield_now().await;
                let (kvs, revision) = asked.piece(&mut cursor, rows_max, CHUNK_SIZE_BYTES)?;
                let begun_at = begun_at.unwrap_or(revision);
                let mut response = pb::RangeResponse { kvs: convert::key_values(kvs), ..Default::default() };
                let next = if cursor.is_done() {
                    response.header = Some(context.header(begun_at));
                    response.more = cursor.more();
                    response.count = cursor.count();
                    None
                } else {
                    Some((cursor, (rows_max * 2).min(CHUNK_ROWS_MAX), Some(begun_at)))
                };
                Ok(Some((pb::RangeStreamResponse { range_response: Some(response) }, next)))
            }
        }))
    }
}
