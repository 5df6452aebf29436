//! Where requests go: over sockets to one of several servers, or straight into a service of this process.
//!
//! A transport only moves HTTP messages. When a server cannot be reached the next one is tried and stays the
//! preferred one. Not here: URLs of resources, retries of answers (client.rs).

mod connector;
mod remote;
mod tls;

use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::{Request, Response};
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt};

use crate::{Body, BoxError};

pub use tls::{Endpoint, EndpointError};

/// A service in this process, for example the API server's with an identity of its own.
pub type LocalService = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// Nothing was sent.
    #[error("cannot reach {server}: {source}")]
    Unreachable { server: String, source: BoxError },
    /// The request may have been sent.
    #[error("connection broke: {0}")]
    Broken(#[source] BoxError),
}

/// Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Transport {
    inner: BoxCloneSyncService<Request<Body>, Response<Body>, TransportError>,
    /// `None` in process.
    preferred: Option<remote::Preferred>,
}

impl Transport {
    /// Connects lazily: errors of the network appear on the first request.
    pub fn connect(endpoint: Endpoint) -> Result<Transport, EndpointError> {
        let remote = remote::Remote::new(endpoint)?;
        let preferred = Some(remote.preferred());
        Ok(Transport { inner: BoxCloneSyncService::new(remote), preferred })
    }

    /// Calls the service directly. Requests carry a path and query, no authority.
    pub fn local(service: LocalService) -> Transport {
        let service = service.map_err(TransportError::Broken);
        Transport { inner: BoxCloneSyncService::new(service), preferred: None }
    }

    /// The current server keeps us waiting: later requests go to the next one.
    pub(crate) fn avoid_current(&self) {
        if let Some(preferred) = &self.preferred {
            preferred.avoid_current();
        }
    }

    /// Boxed here, where the types are concrete: in an async function the compiler cannot prove that it is `Send`.
    pub(crate) fn send(
        &self,
        request: Request<Body>,
    ) -> BoxFuture<'static, Result<Response<Body>, TransportError>> {
        Box::pin(self.inner.clone().oneshot(request))
    }
}

impl Service<Request<Body>> for Transport {
    type Response = Response<Body>;
    type Error = TransportError;
    type Future = BoxFuture<'static, Result<Response<Body>, TransportError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.inner.call(request)
    }
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Transport")
    }
}

#[cfg(test)]
mod tests;
