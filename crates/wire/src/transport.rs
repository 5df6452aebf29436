//! How requests reach a member: over HTTP/2 to the first endpoint that answers, or straight into this process.
//!
//! A request is sent at most once: another endpoint is tried only while no connection stands, or for later
//! requests after a connection broke or its member answered `Unavailable`.
//! Not here: repeating requests (the caller knows which may be repeated, and may come in between with `through`).

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::uri::{PathAndQuery, Uri};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    sync::{Mutex, watch},
    time,
};
use tonic::{Code, Status, body::Body, service::Routes};
use tower::{Service, ServiceExt, util::BoxCloneSyncService};

use crate::{ClientTls, Endpoint, EndpointError, TlsError};

/// Windows for big ranges: one round trip must not limit a stream to 64 KiB.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// A silent connection with requests under way is asked for a sign of life. Servers of etcd end connections that ask
/// more often than every 5 s.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a request that failed waits for what its connection says about it.
const REASON_TIME_MAX: Duration = Duration::from_millis(100);

/// How long a connection may be silent, and how long a sign of life may take.
#[derive(Clone, Copy)]
struct KeepAlive {
    interval: Duration,
    time_max: Duration,
}

/// Why a transport could not be made. Whether anyone answers shows only at the first request.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("no endpoint given")]
    NoEndpoint,
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("endpoint {0} needs TLS, but no TLS options were given")]
    TlsMissing(Endpoint),
}

/// A cheap handle; clones share the connection.
#[derive(Clone)]
pub struct Transport {
    inner: Inner,
}

#[derive(Clone)]
enum Inner {
    Remote(Arc<Remote>),
    Local(Routes),
    Through(BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Status>),
}

struct Remote {
    endpoints: Vec<Target>,
    connect_timeout: Duration,
    keep_alive: KeepAlive,
    /// The only state; held while connecting, so that many callers make one connection.
    current: Mutex<Current>,
}

struct Target {
    endpoint: Endpoint,
    tls: Option<(tokio_rustls::TlsConnector, rustls::pki_types::ServerName<'static>)>,
    /// It has answered a request: it speaks what we speak.
    answered: AtomicBool,
}

/// A connection that stands, or stood.
#[derive(Clone)]
struct Link {
    sender: SendRequest<Body>,
    /// Why it ended, if not in order.
    failed: watch::Receiver<Option<String>>,
}

#[derive(Default)]
struct Current {
    /// The endpoint in use, or the first to try next.
    position: usize,
    /// Grows with each connection, so that a late failure cannot hit a newer one.
    generation: u64,
    link: Option<Link>,
}

impl Transport {
    /// Prepares for these endpoints, tried in order; connects at the first request and again when that breaks.
    /// `timeout` bounds one attempt to connect to one endpoint.
    pub fn connect(
        endpoints: &[String],
        tls: Option<ClientTls>,
        timeout: Duration,
    ) -> Result<Transport, ConnectError> {
        let settings = tls.as_ref().map(ClientTls::settings).transpose()?;
        let mut targets = Vec::with_capacity(endpoints.len());
        for text in endpoints {
            let endpoint = Endpoint::parse(text, tls.is_some())?;
            let tls = match (endpoint.is_tls(), &tls, &settings) {
                (false, ..) => None,
                (true, Some(options), Some(settings)) => {
                    let name = options.name_for(endpoint.host())?;
                    Some((tokio_rustls::TlsConnector::from(settings.clone()), name))
                }
                (true, ..) => return Err(ConnectError::TlsMissing(endpoint)),
            };
            targets.push(Target { endpoint, tls, answered: AtomicBool::new(false) });
        }
        if targets.is_empty() {
            return Err(ConnectError::NoEndpoint);
        }
        let keep_alive = KeepAlive { interval: PING_INTERVAL, time_max: PING_TIME_MAX };
        let remote =
            Remote { endpoints: targets, connect_timeout: timeout, keep_alive, current: Mutex::default() };
        Ok(Transport { inner: Inner::Remote(Arc::new(remote)) })
    }

    /// Sets when a silent connection is asked for a sign of life, for a transport that has no clones yet. Nobody is
    /// asked more often than every 10 s.
    #[must_use]
    pub fn keep_alive(mut self, interval: Duration, time_max: Duration) -> Transport {
        if let Inner::Remote(remote) = &mut self.inner
            && let Some(remote) = Arc::get_mut(remote)
        {
            remote.keep_alive = KeepAlive { interval: interval.max(PING_INTERVAL), time_max };
        }
        self
    }

    /// Calls the services of this process: no socket, no TLS, no copy of values.
    pub fn local(routes: Routes) -> Transport {
        Transport { inner: Inner::Local(routes.prepare()) }
    }

    /// Hands every request to `ask`, which passes it on to another transport as often as it sees fit.
    pub fn through<A>(ask: impl Fn(http::Request<Body>) -> A + Clone + Send + Sync + 'static) -> Transport
    where
        A: Future<Output = Result<http::Response<Body>, Status>> + Send + 'static,
    {
        Transport { inner: Inner::Through(BoxCloneSyncService::new(tower::service_fn(ask))) }
    }

    /// Sends one request of any service.
    pub async fn ask(&self, request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
        self.clone().call(request).await
    }
}

impl Service<http::Request<Body>> for Transport {
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Status>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match &self.inner {
            Inner::Remote(remote) => {
                let remote = remote.clone();
                Box::pin(async move { remote.send(request).await })
            }
            Inner::Local(routes) => {
                let answer = routes.clone().oneshot(request);
                Box::pin(async move {
                    let answer: Result<http::Response<Body>, Infallible> = answer.await;
                    answer.map_err(|never| match never {})
                })
            }
            Inner::Through(service) => Box::pin(service.clone().oneshot(request)),
        }
    }
}

impl Remote {
    async fn send(&self, mut request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
        let (mut link, position, generation) = self.connection().await?;
        let target = &self.endpoints[position];
        let endpoint = &target.endpoint;
        let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(endpoint.scheme.clone());
        parts.authority = Some(endpoint.authority.clone());
        parts.path_and_query = Some(path);
        *request.uri_mut() =
            Uri::from_parts(parts).map_err(|error| Status::internal(format!("request address: {error}")))?;
        match link.sender.send_request(request).await {
            Ok(response) => {
                target.answered.store(true, Ordering::Relaxed);
                if self.endpoints.len() > 1 && refused(&response) {
                    self.leave(generation).await;
                }
                Ok(response.map(Body::new))
            }
            Err(error) => {
                self.leave(generation).await;
                let reason = link.reason().await.unwrap_or_else(|| chain(&error));
                Err(Status::unavailable(format!("{endpoint}: {reason}{}", target.doubt())))
            }
        }
    }

    /// The standing connection, or a new one to the first endpoint that takes it.
    async fn connection(&self) -> Result<(Link, usize, u64), Status> {
        let mut current = self.current.lock().await;
        if let Some(link) = &current.link
            && !link.sender.is_closed()
        {
            return Ok((link.clone(), current.position, current.generation));
        }
        current.link = None;
        let mut failures = Vec::new();
        for step in 0..self.endpoints.len() {
            let position = (current.position + step) % self.endpoints.len();
            let target = &self.endpoints[position];
            match time::timeout(self.connect_timeout, target.dial(self.keep_alive)).await {
                Ok(Ok(link)) => {
                    current.position = position;
                    current.generation += 1;
                    current.link = Some(link.clone());
                    return Ok((link, position, current.generation));
                }
                Ok(Err(reason)) => failures.push(format!("{}: {reason}", target.endpoint)),
                Err(_) => {
                    let waited = self.connect_timeout;
                    failures.push(format!("{}: no connection within {waited:?}", target.endpoint));
                }
            }
        }
        Err(Status::unavailable(failures.join("; ")))
    }

    /// Later requests go to the next endpoint. Requests under way on the old connection may still finish.
    async fn leave(&self, generation: u64) {
        let mut current = self.current.lock().await;
        if current.generation == generation && current.link.take().is_some() {
            current.position = (current.position + 1) % self.endpoints.len();
        }
    }
}

impl Link {
    /// What the connection itself says, such as the TLS alert that refused a certificate.
    async fn reason(&mut self) -> Option<String> {
        let failed = time::timeout(REASON_TIME_MAX, self.failed.wait_for(Option::is_some)).await;
        failed.ok()?.ok()?.clone()
    }
}

impl Target {
    /// What may be wrong with an endpoint that took connections but never answered on any.
    fn doubt(&self) -> &'static str {
        match self.tls {
            _ if self.answered.load(Ordering::Relaxed) => "",
            None => " (it has answered nothing yet: does it speak TLS?)",
            Some(_) => " (it has answered nothing yet: does it take this client certificate, or want one?)",
        }
    }

    async fn dial(&self, keep_alive: KeepAlive) -> Result<Link, String> {
        if let Some(path) = &self.endpoint.socket {
            let stream = UnixStream::connect(path).await.map_err(|error| error.to_string())?;
            return self.secure(stream, keep_alive).await;
        }
        let stream = TcpStream::connect((self.endpoint.host(), self.endpoint.port()))
            .await
            .map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        self.secure(stream, keep_alive).await
    }

    async fn secure<S>(&self, stream: S, keep_alive: KeepAlive) -> Result<Link, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match &self.tls {
            None => handshake(TokioIo::new(stream), keep_alive).await,
            Some((connector, name)) => {
                let stream =
                    connector.connect(name.clone(), stream).await.map_err(|error| tls_reason(&error))?;
                handshake(TokioIo::new(stream), keep_alive).await
            }
        }
    }
}

async fn handshake<I>(io: I, keep_alive: KeepAlive) -> Result<Link, String>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(keep_alive.interval)
        .keep_alive_timeout(keep_alive.time_max)
        .max_concurrent_reset_streams(1024)
        .handshake(io)
        .await
        .map_err(|error| chain(&error))?;
    let (fail, failed) = watch::channel(None);
    // Ends by itself when the last sender is dropped or the peer goes away.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            let reason = chain(&error);
            tracing::debug!(error = %reason, "connection to a member ended");
            fail.send_replace(Some(reason));
        }
    });
    Ok(Link { sender, failed })
}

fn tls_reason(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidMessage(_)) => format!("it does not speak TLS ({error})"),
        _ => error.to_string(),
    }
}

/// Whether the member itself said at once that it cannot serve (it stops, or knows no leader).
fn refused(response: &http::Response<hyper::body::Incoming>) -> bool {
    Status::from_header_map(response.headers()).is_some_and(|status| status.code() == Code::Unavailable)
}

/// An error with its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
