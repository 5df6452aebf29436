//! The standard gRPC health service: serving while a leader is known and this member takes part.

use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, stream};
use tonic::{Request, Response, Status};
use wire::healthpb::{self as pb, health_check_response::ServingStatus, health_server::Health};

use crate::context::{Context, Learner};

#[derive(Clone)]
pub(crate) struct HealthService {
    pub context: Arc<Context>,
}

impl HealthService {
    fn now(&self) -> pb::HealthCheckResponse {
        let status =
            if self.context.has_leader() { ServingStatus::Serving } else { ServingStatus::NotServing };
        pb::HealthCheckResponse { status: status.into() }
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<pb::HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<pb::HealthCheckRequest>,
    ) -> Result<Response<pb::HealthCheckResponse>, Status> {
        if !request.get_ref().service.is_empty() {
            return Err(Status::not_found("unknown service"));
        }
        self.context.admit(&request, Learner::Refuses)?;
        Ok(Response::new(self.now()))
    }

    /// The state now and after each change; an unknown service is told so once and may become known.
    async fn watch(
        &self,
        request: Request<pb::HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        if !request.get_ref().service.is_empty() {
            let unknown = pb::HealthCheckResponse { status: ServingStatus::ServiceUnknown.into() };
            return Ok(Response::new(Box::pin(stream::iter([Ok(unknown)]))));
        }
        self.context.admit(&request, Learner::Refuses)?;
        let (service, leadership) = (self.clone(), self.context.leadership());
        let changes = stream::unfold((leadership, None), move |(mut leadership, told)| {
            let service = service.clone();
            async move {
                loop {
                    let now = service.now();
                    if told != Some(now.status) {
                        let status = now.status;
                        return Some((Ok(now), (leadership, Some(status))));
                    }
                    tokio::select! {
                        changed = leadership.changed() => if changed.is_err() { return None },
                        () = service.context.shutdown.cancelled() => return None,
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(changes)))
    }
}
