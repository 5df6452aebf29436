//! The Lock service: the first in the queue of a name holds its lock.
//!
//! A lock is only as good as its lease: a holder that was paused may still believe in it after its lease has ended.
//! Whoever writes elsewhere under a lock passes the key's creation revision along and lets the other side refuse
//! smaller ones.

use std::sync::Arc;

use bytes::Bytes;
use tonic::{Request, Response, Status};
use wire::v3lockpb::{self as pb, lock_server::Lock};

use crate::{
    context::{Context, Learner},
    queue::Queue,
    status,
    turns::Connection,
};

#[derive(Clone)]
pub(crate) struct LockService {
    pub context: Arc<Context>,
}

#[tonic::async_trait]
impl Lock for LockService {
    async fn lock(&self, request: Request<pb::LockRequest>) -> Result<Response<pb::LockResponse>, Status> {
        let connection = Connection::of(&request);
        let (asker, request) = self.context.admit_long(request, Learner::Refuses)?;
        let pb::LockRequest { name, lease } = request;
        let queue = Queue::new(self.context.clone(), (asker, connection), &name);
        let place = queue.enter(lease, Bytes::new()).await.map_err(status::recipe)?;
        if !queue.hold(&place).await.map_err(status::recipe)? {
            return Err(Status::unknown("mutex: session is expired"));
        }
        Ok(Response::new(pb::LockResponse { header: Some(self.context.header_now()), key: place.key }))
    }

    async fn unlock(
        &self,
        request: Request<pb::UnlockRequest>,
    ) -> Result<Response<pb::UnlockResponse>, Status> {
        let connection = Connection::of(&request);
        let (asker, request) = self.context.admit_long(request, Learner::Refuses)?;
        let queue = Queue::new(self.context.clone(), (asker, connection), &[]);
        let key = request.key;
        if key.is_empty() {
            return Err(status::recipe(status::check(mvcc::CheckError::EmptyKey)));
        }
        let revision = queue.leave(key).await.map_err(status::recipe)?;
        Ok(Response::new(pb::UnlockResponse { header: Some(self.context.header(revision)) }))
    }
}
