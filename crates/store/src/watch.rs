//! The Watch service: one task per stream, many watches on it.
//!
//! hub.rs knows which stream wants which keys and hands it matching batches; stream.rs answers one client.

pub(crate) mod hub;
mod register;
mod stream;
mod watcher;

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use wire::etcdserverpb::{self as pb, watch_server::Watch};

use crate::context::{Context, Learner, wants_leader};

/// Answers that may wait for a slow client before its stream stops to read events.
const ANSWERS_MAX: usize = 16;

#[derive(Clone)]
pub(crate) struct WatchService {
    pub context: Arc<Context>,
}

#[tonic::async_trait]
impl Watch for WatchService {
    type WatchStream = ReceiverStream<Result<pb::WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let needs_leader = wants_leader(request.metadata());
        let (asker, requests) = self.context.admit_long(request, Learner::Refuses)?;
        let (answers, receiver) = mpsc::channel(ANSWERS_MAX);
        let stream = stream::Stream::new(self.context.clone(), asker, needs_leader, answers);
        tokio::spawn(stream.run(requests));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
