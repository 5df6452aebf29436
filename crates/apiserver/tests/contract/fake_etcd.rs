//! An etcd of one process, for tests: a log of events, and reads that replay it.
//!
//! It keeps what the API server relies on: revisions, compares of `mod_revision`, ordered watches with previous values,
//! progress answers after events, compaction. Faults can be planted: see `Faults`. Not here: leases that expire, auth.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};
use wire::etcdserverpb as pb;
use wire::etcdserverpb::kv_server::{Kv, KvServer};
use wire::etcdserverpb::lease_server::{Lease, LeaseServer};
use wire::etcdserverpb::watch_server::{Watch, WatchServer};
use wire::mvccpb::{Event, KeyValue, event::EventType};

#[derive(Clone)]
pub(crate) struct FakeEtcd {
    state: Arc<Mutex<State>>,
    /// Length of the log.
    changed: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    revision: i64,
    compacted: i64,
    log: Vec<Event>,
    faults: Faults,
    leases: i64,
}

/// What goes wrong next.
#[derive(Default)]
pub(crate) struct Faults {
    /// The next write is applied, but its caller is told `Unavailable`.
    pub(crate) lose_next_answer: bool,
    /// Watches are cut and refused while set.
    pub(crate) cut_watches: bool,
}

type Rows = BTreeMap<Bytes, KeyValue>;

impl FakeEtcd {
    pub(crate) fn new() -> FakeEtcd {
        let state = State { revision: 1, ..State::default() };
        FakeEtcd { state: Arc::new(Mutex::new(state)), changed: watch::Sender::new(0) }
    }

    /// A store whose first revisions are compacted away.
    pub(crate) fn with_a_past() -> FakeEtcd {
        let etcd = FakeEtcd::new();
        for _ in 0..10 {
            etcd.put("/registry/elsewhere", "x");
        }
        etcd.compact(etcd.revision());
        etcd
    }

    pub(crate) fn client(&self) -> wire::Client {
        let routes = tonic::service::Routes::new(KvServer::new(self.clone()))
            .add_service(WatchServer::new(self.clone()))
            .add_service(LeaseServer::new(self.clone()));
        wire::Client::new(wire::Transport::local(routes))
    }

    pub(crate) fn revision(&self) -> i64 {
        self.state.lock().unwrap().revision
    }

    pub(crate) fn with_faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.state.lock().unwrap().faults);
        self.changed.send_modify(|_| {});
    }

    /// Writes behind the API server's back.
    pub(crate) fn put(&self, key: &str, value: &str) -> i64 {
        let put = pb::PutRequest {
            key: Bytes::from(key.to_owned()),
            value: Bytes::from(value.to_owned()),
            ..Default::default()
        };
        let mut state = self.state.lock().unwrap();
        state.revision += 1;
        let revision = state.revision;
        state.put(put);
        let length = state.log.len();
        drop(state);
        self.changed.send_replace(length);
        revision
    }

    pub(crate) fn value(&self, key: &str) -> Option<(String, i64)> {
        let rows = self.state.lock().unwrap().rows(i64::MAX);
        let row = rows.get(key.as_bytes())?;
        Some((String::from_utf8_lossy(&row.value).into_owned(), row.lease))
    }

    /// The values below a prefix as they were at a revision.
    pub(crate) fn values_at(&self, revision: i64, prefix: &str) -> Vec<String> {
        let rows = self.state.lock().unwrap().rows(revision);
        let below = rows.into_iter().filter(|(key, _)| key.starts_with(prefix.as_bytes()));
        below.map(|(_, row)| String::from_utf8_lossy(&row.value).into_owned()).collect()
    }

    pub(crate) fn compacted(&self) -> i64 {
        self.state.lock().unwrap().compacted
    }

    pub(crate) fn compact(&self, revision: i64) {
        self.state.lock().unwrap().compacted = revision;
    }

    fn header(&self) -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader { revision: self.revision(), ..Default::default() })
    }
}

impl State {
    fn rows(&self, revision: i64) -> Rows {
        let mut rows = Rows::new();
        for event in self.log.iter() {
            let kv = event.kv.clone().unwrap();
            if kv.mod_revision > revision {
                break;
            }
            match event.r#type == EventType::Delete as i32 {
                true => rows.remove(&kv.key),
                false => rows.insert(kv.key.clone(), kv),
            };
        }
        rows
    }

    fn get(&self, key: &Bytes) -> Option<KeyValue> {
        self.rows(i64::MAX).remove(key)
    }

    fn put(&mut self, put: pb::PutRequest) {
        let previous = self.get(&put.key);
        let kv = KeyValue {
            key: put.key,
            value: put.value,
            lease: put.lease,
            create_revision: previous.as_ref().map_or(self.revision, |previous| previous.create_revision),
            mod_revision: self.revision,
            version: previous.as_ref().map_or(1, |previous| previous.version + 1),
        };
        self.log.push(Event { r#type: EventType::Put as i32, kv: Some(kv), prev_kv: previous });
    }

    fn delete(&mut self, key: Bytes) {
        let previous = self.get(&key);
        let kv = KeyValue { key, mod_revision: self.revision, ..Default::default() };
        self.log.push(Event { r#type: EventType::Delete as i32, kv: Some(kv), prev_kv: previous });
    }

    fn range(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
        if request.revision > 0 && request.revision < self.compacted {
            return Err(Status::out_of_range("etcdserver: mvcc: required revision has been compacted"));
        }
        if request.revision > self.revision {
            return Err(Status::out_of_range("etcdserver: mvcc: required revision is a future revision"));
        }
        let at = if request.revision > 0 { request.revision } else { i64::MAX };
        let inside = |key: &Bytes| match request.range_end.as_ref() {
            b"" => *key == request.key,
            b"\0" => *key >= request.key,
            end => *key >= request.key && key.as_ref() < end,
        };
        let mut kvs: Vec<KeyValue> = self.rows(at).into_values().filter(|kv| inside(&kv.key)).collect();
        let count = kvs.len();
        if request.count_only {
            kvs.clear();
        }
        if request.limit > 0 {
            kvs.truncate(request.limit as usize);
        }
        Ok(pb::RangeResponse {
            header: Some(pb::ResponseHeader { revision: self.revision, ..Default::default() }),
            more: !request.count_only && kvs.len() < count,
            kvs,
            count: count as i64,
        })
    }

    fn execute(&mut self, op: pb::RequestOp) -> Result<pb::ResponseOp, Status> {
        use pb::request_op::Request as Op;
        use pb::response_op::Response as Answer;
        let answer = match op.request {
            Some(Op::RequestRange(range)) => Answer::ResponseRange(self.range(&range)?),
            Some(Op::RequestPut(put)) => {
                self.put(put);
                Answer::ResponsePut(pb::PutResponse::default())
            }
            Some(Op::RequestDeleteRange(delete)) => {
                self.delete(delete.key);
                Answer::ResponseDeleteRange(pb::DeleteRangeResponse::default())
            }
            _ => return Err(Status::unimplemented("nested transactions")),
        };
        Ok(pb::ResponseOp { response: Some(answer) })
    }
}

#[tonic::async_trait]
impl Kv for FakeEtcd {
    async fn range(&self, request: Request<pb::RangeRequest>) -> Result<Response<pb::RangeResponse>, Status> {
        let answer = self.state.lock().unwrap().range(&request.into_inner())?;
        Ok(Response::new(answer))
    }

    type RangeStreamStream = Pin<Box<dyn Stream<Item = Result<pb::RangeStreamResponse, Status>> + Send>>;

    async fn range_stream(
        &self,
        _: Request<pb::RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(Status::unimplemented("range stream"))
    }

    async fn put(&self, _: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        Err(Status::unimplemented("the API server writes in transactions only"))
    }

    async fn delete_range(
        &self,
        _: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        Err(Status::unimplemented("the API server writes in transactions only"))
    }

    async fn txn(&self, request: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state.lock().unwrap();
        let succeeded = request.compare.iter().all(|compare| {
            let current = state.get(&compare.key);
            match compare.target_union {
                Some(pb::compare::TargetUnion::ModRevision(expected)) => {
                    current.map_or(0, |kv| kv.mod_revision) == expected
                }
                Some(pb::compare::TargetUnion::Version(expected)) => {
                    current.map_or(0, |kv| kv.version) == expected
                }
                _ => panic!("the API server compares revisions and versions only"),
            }
        });
        let operations = if succeeded { request.success } else { request.failure };
        let writes =
            operations.iter().any(|op| !matches!(op.request, Some(pb::request_op::Request::RequestRange(_))));
        if writes {
            state.revision += 1;
        }
        let mut responses = Vec::new();
        for op in operations {
            responses.push(state.execute(op)?);
        }
        let header = Some(pb::ResponseHeader { revision: state.revision, ..Default::default() });
        let lost = writes && std::mem::take(&mut state.faults.lose_next_answer);
        let length = state.log.len();
        drop(state);
        self.changed.send_replace(length);
        if lost {
            return Err(Status::unavailable("etcdserver: request timed out"));
        }
        Ok(Response::new(pb::TxnResponse { header, succeeded, responses }))
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        FakeEtcd::compact(self, request.into_inner().revision);
        Ok(Response::new(pb::CompactionResponse { header: self.header() }))
    }
}

#[tonic::async_trait]
impl Watch for FakeEtcd {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<pb::WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        if self.state.lock().unwrap().faults.cut_watches {
            return Err(Status::unavailable("etcdserver: no leader"));
        }
        let (answers, outgoing) = mpsc::channel(16);
        tokio::spawn(self.clone().follow(request.into_inner(), answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}

impl FakeEtcd {
    /// One stream with one watch, as the API server uses it.
    async fn follow(
        self,
        mut requests: Streaming<pb::WatchRequest>,
        answers: mpsc::Sender<Result<pb::WatchResponse, Status>>,
    ) {
        use pb::watch_request::RequestUnion;
        let mut changed = self.changed.subscribe();
        let mut from = None;
        let mut next = 0;
        loop {
            let mut progress = false;
            tokio::select! {
                request = requests.next() => match request {
                    Some(Ok(pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) })) => {
                        let compacted = self.state.lock().unwrap().compacted;
                        let created = pb::WatchResponse { header: self.header(), created: true, ..Default::default() };
                        if answers.send(Ok(created)).await.is_err() { return }
                        if create.start_revision <= compacted {
                            let canceled = pb::WatchResponse { canceled: true, compact_revision: compacted, ..Default::default() };
                            let _ = answers.send(Ok(canceled)).await;
                            return;
                        }
                        from = Some(create);
                    }
                    Some(Ok(pb::WatchRequest { request_union: Some(RequestUnion::ProgressRequest(_)) })) => progress = true,
                    Some(Ok(_)) => {}
                    _ => return,
                },
                _ = changed.changed() => {}
            }
            let Some(create) = &from else { continue };
            let (events, header, cut) = {
                let state = self.state.lock().unwrap();
                let inside = |event: &&Event| {
                    let kv = event.kv.as_ref().unwrap();
                    kv.mod_revision >= create.start_revision
                        && kv.key >= create.key
                        && (create.range_end.is_empty() || kv.key < create.range_end)
                };
                let events: Vec<Event> = state.log[next..].iter().filter(inside).cloned().collect();
                next = state.log.len();
                let header = Some(pb::ResponseHeader { revision: state.revision, ..Default::default() });
                (events, header, state.faults.cut_watches)
            };
            if cut {
                let _ = answers.send(Err(Status::unavailable("etcdserver: no leader"))).await;
                return;
            }
            if !events.is_empty() {
                let answer = pb::WatchResponse { header, events, ..Default::default() };
                if answers.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
            if progress {
                let answer = pb::WatchResponse { header, watch_id: -1, ..Default::default() };
                if answers.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[tonic::async_trait]
impl Lease for FakeEtcd {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let mut state = self.state.lock().unwrap();
        state.leases += 1;
        let ttl = request.into_inner().ttl;
        Ok(Response::new(pb::LeaseGrantResponse { id: state.leases, ttl, ..Default::default() }))
    }

    async fn lease_revoke(
        &self,
        _: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        Err(Status::unimplemented("leases are never revoked"))
    }

    type LeaseKeepAliveStream =
        Pin<Box<dyn Stream<Item = Result<pb::LeaseKeepAliveResponse, Status>> + Send>>;

    async fn lease_keep_alive(
        &self,
        _: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        Err(Status::unimplemented("leases are never kept alive"))
    }

    async fn lease_time_to_live(
        &self,
        _: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        Err(Status::unimplemented("lease time to live"))
    }

    async fn lease_leases(
        &self,
        _: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        Err(Status::unimplemented("lease list"))
    }
}
