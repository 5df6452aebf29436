//! Requests over sockets, with pooled connections and failover among the servers.
//!
//! A request moves on to the next server only when the connection could not be opened: then nothing was sent. When a
//! connection breaks later, or a server says that it cannot serve, the caller hears of it and the next request prefers
//! the next server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{AUTHORIZATION, HeaderValue};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower::Service;

use super::TransportError;
use super::connector::Connector;
use super::tls::{Endpoint, EndpointError};
use crate::{Body, BoxError};

/// A dead server is noticed within their sum, also under an idle watch.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub(super) struct Remote {
    client: Client<Connector, Full<Bytes>>,
    servers: Arc<[Uri]>,
    preferred: Preferred,
    authorization: Option<HeaderValue>,
}

/// Which server the next request goes to, shared by all clones of a transport.
#[derive(Clone)]
pub(super) struct Preferred {
    index: Arc<AtomicUsize>,
    servers: usize,
}

impl Preferred {
    fn get(&self) -> usize {
        self.index.load(Ordering::Relaxed)
    }

    fn set(&self, index: usize) {
        self.index.store(index, Ordering::Relaxed);
    }

    /// Moves on from a server, unless somebody has done so already.
    fn avoid(&self, index: usize) {
        let next = (index + 1) % self.servers;
        let _ = self.index.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    pub(super) fn avoid_current(&self) {
        self.avoid(self.get());
    }
}

impl Remote {
    pub(super) fn preferred(&self) -> Preferred {
        self.preferred.clone()
    }

    pub(super) fn new(endpoint: Endpoint) -> Result<Remote, EndpointError> {
        let servers = endpoint.parse_servers()?;
        let connector = Connector { tls: endpoint.tls(&servers)?, server_name: endpoint.server_name()? };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .http2_keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .http2_keep_alive_while_idle(true)
            .http2_adaptive_window(true)
            .build(connector);
        Ok(Remote {
            client,
            preferred: Preferred { index: Arc::default(), servers: servers.len() },
            servers: servers.into(),
            authorization: endpoint.authorization()?,
        })
    }

    async fn send(self, request: Request<Body>) -> Result<Response<Body>, TransportError> {
        let (mut parts, body) = request.into_parts();
        if let Some(authorization) = &self.authorization {
            parts.headers.insert(AUTHORIZATION, authorization.clone());
        }
        let body = body.collect().await.map_err(TransportError::Broken)?.to_bytes();
        let first = self.preferred.get();
        let mut last_error = None;
        for attempt in 0..self.servers.len() {
            let index = (first + attempt) % self.servers.len();
            let Some(server) = self.servers.get(index) else { break };
            parts.uri = absolute(server, &parts.uri).map_err(|error| TransportError::Broken(error.into()))?;
            let request = Request::from_parts(parts.clone(), Full::new(body.clone()));
            match self.client.request(request).await {
                Ok(response) => {
                    if attempt > 0 {
                        self.preferred.set(index);
                    }
                    if matches!(
                        response.status(),
                        StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
                    ) {
                        self.preferred.avoid(index);
                    }
                    // a broken answer (a watch, mostly) moves the next request to another server
                    let preferred = self.preferred;
                    return Ok(response.map(|body| {
                        body.map_err(move |error| {
                            preferred.avoid(index);
                            BoxError::from(error)
                        })
                        .boxed_unsync()
                    }));
                }
                Err(error) if error.is_connect() => {
                    tracing::debug!(server = %server, error = %describe(&error), "server cannot be reached");
                    last_error = Some(TransportError::Unreachable {
                        server: server.to_string(),
                        source: describe(&error).into(),
                    });
                }
                Err(error) => {
                    self.preferred.avoid(index);
                    return Err(TransportError::Broken(describe(&error).into()));
                }
            }
        }
        Err(last_error.unwrap_or_else(|| TransportError::Broken("no server".into())))
    }
}

/// The causes of an error in one line; hyper's own text alone says only "client error".
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// The request's path and query below the server's base URL.
fn absolute(server: &Uri, target: &Uri) -> Result<Uri, http::Error> {
    let base = server.path().trim_end_matches('/');
    let path = target.path_and_query().map_or("/", |path| path.as_str());
    let mut parts = http::uri::Parts::default();
    parts.scheme = server.scheme().cloned();
    parts.authority = server.authority().cloned();
    parts.path_and_query = Some(format!("{base}{path}").parse()?);
    Ok(Uri::from_parts(parts)?)
}

impl Service<Request<Body>> for Remote {
    type Response = Response<Body>;
    type Error = TransportError;
    type Future = BoxFuture<'static, Result<Response<Body>, TransportError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().send(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_go_below_the_servers_base() {
        let table = [
            ("https://h:1", "/api/v1?x=1", "https://h:1/api/v1?x=1"),
            ("https://h:1/k8s/clusters/c/", "/api/v1", "https://h:1/k8s/clusters/c/api/v1"),
        ];
        for (server, target, result) in table {
            let absolute = absolute(&server.parse().unwrap(), &target.parse().unwrap()).unwrap();
            assert_eq!(absolute.to_string(), result);
        }
    }
}
