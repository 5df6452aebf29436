//! The Election service: the first in the queue of a name leads and tells a value.
//!
//! `Observe` tells the newest state after each change; values that were replaced before it looked are left out.

use std::{pin::Pin, sync::Arc};

use futures_util::Stream;
use mvcc::{DeleteRange, KeyRange, Op, Put};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use wire::v3electionpb::{self as pb, election_server::Election};

use crate::{
    context::{Context, Learner},
    convert,
    queue::Queue,
    status::{self, Refusal},
    turns::Connection,
};

#[derive(Clone)]
pub(crate) struct ElectionService {
    pub context: Arc<Context>,
}

/// etcd answers so, without a code of its own.
fn not_leader() -> Status {
    Status::unknown("election: not leader")
}

/// What the client says about the place that it holds.
fn leader_key(leader: Option<pb::LeaderKey>) -> Result<pb::LeaderKey, Status> {
    leader.ok_or_else(|| Status::unknown("\"leader\" field must be provided"))
}

#[tonic::async_trait]
impl Election for ElectionService {
    type ObserveStream = Pin<Box<dyn Stream<Item = Result<pb::LeaderResponse, Status>> + Send>>;

    async fn campaign(
        &self,
        request: Request<pb::CampaignRequest>,
    ) -> Result<Response<pb::CampaignResponse>, Status> {
        let connection = Connection::of(&request);
        let (asker, request) = self.context.admit_long(request, Learner::Refuses)?;
        let pb::CampaignRequest { name, lease, value } = request;
        let queue = Queue::new(self.context.clone(), (asker, connection), &name);
        let place = queue.enter(lease, value.clone()).await.map_err(status::recipe)?;
        if place.value_before.as_ref().is_some_and(|before| *before != value) {
            let put = Put { key: place.key.clone(), value, lease: place.lease, ..Put::default() };
            let put = queue.if_held(place.key.clone(), place.revision, Op::Put(put)).await;
            if !put.map_err(status::recipe)?.1 {
                return Err(not_leader());
            }
        }
        if !queue.hold(&place).await.map_err(status::recipe)? {
            return Err(Status::unknown("election: session is expired"));
        }
        let leader = pb::LeaderKey { name, key: place.key, rev: place.revision, lease: place.lease };
        Ok(Response::new(pb::CampaignResponse {
            // As in etcd: of when the candidate came, not of when it won.
            header: Some(self.context.header(place.entered)),
            leader: Some(leader),
        }))
    }

    async fn proclaim(
        &self,
        request: Request<pb::ProclaimRequest>,
    ) -> Result<Response<pb::ProclaimResponse>, Status> {
        let connection = Connection::of(&request);
        let (asker, request) = self.context.admit_long(request, Learner::Refuses)?;
        let pb::ProclaimRequest { leader, value } = request;
        let leader = leader_key(leader)?;
        let queue = Queue::new(self.context.clone(), (asker, connection), &leader.name);
        let put = Put { key: leader.key.clone(), value, lease: leader.lease, ..Put::default() };
        match queue.if_held(leader.key, leader.rev, Op::Put(put)).await.map_err(status::recipe)? {
            (revision, true) => {
                Ok(Response::new(pb::ProclaimResponse { header: Some(self.context.header(revision)) }))
            }
            (_, false) => Err(not_leader()),
        }
    }

    async fn leader(
        &self,
        request: Request<pb::LeaderRequest>,
    ) -> Result<Response<pb::LeaderResponse>, Status> {
        let connection = Connection::of(&request);
        let (asker, request) = self.context.admit_long(request, Learner::Refuses)?;
        self.context.barrier().await.map_err(status::recipe)?;
        let queue = Queue::new(self.context.clone(), (asker, connection), &request.name);
        let first = queue.first().map_err(status::recipe)?;
        let first = first.ok_or_else(|| Status::unknown("election: no leader"))?;
        let header = Some(self.context.header_now());
        Ok(Response::new(pb::LeaderResponse { header, kv: Some(convert::key_value(first)) }))
    }

    async fn observe(
        &self,
        request: Request<pb::LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let connection = Connection::of(&request);
        let (asker, request) = self.context.admit_long(request, Learner::Refuses)?;
        let queue = Queue::new(self.context.clone(), (asker, connection), &request.name);
        let (answers, receiver) = mpsc::channel(1);
        let context = self.context.clone();
        tokio::spawn(async move {
            let end = tokio::select! {
                status = observe(&context, &queue, &answers) => status,
                () = answers.closed() => return,
                () = context.shutdown.cancelled() => Refusal::Stopped.into(),
            };
            // Nobody is left to be told when this fails.
            let _ = answers.try_send(Err(end));
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn resign(
        &self,
        request: Request<pb::ResignRequest>,
    ) -> Result<Response<pb::ResignResponse>, Status> {
        let connection = Connection::of(&request);
        let (asker, request) = self.context.admit_long(request, Learner::Refuses)?;
        let leader = leader_key(request.leader)?;
        let queue = Queue::new(self.context.clone(), (asker, connection), &leader.name);
        let delete = DeleteRange { range: KeyRange::Key(leader.key.clone()), prev_kv: false };
        let deleted = queue.if_held(leader.key, leader.rev, Op::DeleteRange(delete)).await;
        let (revision, _) = deleted.map_err(status::recipe)?;
        Ok(Response::new(pb::ResignResponse { header: Some(self.context.header(revision)) }))
    }
}

/// Tells each new leader and each new value of it; ends with the reason.
async fn observe(
    context: &Context,
    queue: &Queue,
    answers: &mpsc::Sender<Result<pb::LeaderResponse, Status>>,
) -> Status {
    let ear = queue.listen();
    let mut told = 0;
    loop {
        match queue.first() {
            Err(status) => return status,
            Ok(Some(first)) if first.mod_revision != told => {
                told = first.mod_revision;
                let header = Some(context.header_now());
                let answer = pb::LeaderResponse { header, kv: Some(convert::key_value(first)) };
                if answers.send(Ok(answer)).await.is_err() {
                    return Refusal::Stopped.into();
                }
            }
            Ok(_) => {}
        }
        ear.inbox.wake.notified().await;
        ear.inbox.take();
    }
}
