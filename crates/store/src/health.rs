//! The standard gRPC health service: a server that answers is serving.
//!
//! As in etcd 3.5 and 3.6, a lost leader or quorum changes nothing here: clients take a connection away from a server that
//! says NOT_SERVING, and one without a leader still answers serializable reads and may be the first to have one again.
//! Whether requests would succeed is told by `/readyz` and `/health` (http/probes.rs).

use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, StreamExt as _, stream};
use tonic::{Request, Response, Status};
use wire::healthpb::{self as pb, health_check_response::ServingStatus, health_server::Health};

use crate::context::{Context, Learner};

#[derive(Clone)]
pub(crate) struct HealthService {
    pub context: Arc<Context>,
}

/// Only the server as a whole has a name here: none.
fn status(request: &Request<pb::HealthCheckRequest>) -> ServingStatus {
    match request.get_ref().service.is_empty() {
        true => ServingStatus::Serving,
        false => ServingStatus::ServiceUnknown,
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<pb::HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<pb::HealthCheckRequest>,
    ) -> Result<Response<pb::HealthCheckResponse>, Status> {
        self.context.admit(&request, Learner::Refuses)?;
        match status(&request) {
            ServingStatus::Serving => {
                Ok(Response::new(pb::HealthCheckResponse { status: ServingStatus::Serving.into() }))
            }
            _ => Err(Status::not_found("unknown service")),
        }
    }

    /// The state, which never changes, until the client or the server ends.
    async fn watch(
        &self,
        request: Request<pb::HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.context.admit(&request, Learner::Refuses)?;
        let now = pb::HealthCheckResponse { status: status(&request).into() };
        let end = self.context.shutdown.clone().cancelled_owned();
        let told = stream::iter([Ok(now)]).chain(stream::pending()).take_until(end);
        Ok(Response::new(Box::pin(told)))
    }
}
