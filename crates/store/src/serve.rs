//! The client port: accepts connections, TLS or not, HTTP/2 or HTTP/1.1, and sorts requests by their content type.
//!
//! Invariants: a slow handshake or a broken connection holds up nobody else; at shutdown no new request begins and
//! those under way have a bounded time to end.

mod authority;
mod metered;

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Response, header::CONTENT_TYPE};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::body::Body;

use crate::{
    config::Config,
    context::{CertificateUser, Context, Own},
    http::HttpService,
    serve::{authority::Readable, metered::Metered},
    services::Services,
    tls::{self, Reloading},
    url::Url,
};

/// Bounds of one connection.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
const HEADER_TIME_MAX: Duration = Duration::from_secs(30);
const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// Requests that a client may give up before they were looked at; more is an attack and ends the connection.
const RESET_STREAMS_MAX: usize = 1000;
/// After a failed accept (no file descriptors left) the next one waits.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("listen {url}: address already in use")]
    InUse { url: Url },
    #[error("listen {url}: {source}")]
    Listen { url: Url, source: io::Error },
    #[error("listen {url}: no such host")]
    NoHost { url: Url },
}

/// What a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// gRPC and every HTTP path.
    Everything,
    /// Metrics and health only.
    Metrics,
}

/// A bound address.
pub(crate) struct Listener {
    pub url: Url,
    socket: TcpListener,
    scope: Scope,
}

impl Listener {
    /// Binds the first address that the host resolves to; a port of 0 becomes the real one in `url`.
    pub(crate) async fn bind(url: &Url, scope: Scope) -> Result<Listener, ListenError> {
        let address = resolve(url).await?;
        let socket = TcpListener::bind(address).await.map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => ListenError::InUse { url: url.clone() },
            _ => ListenError::Listen { url: url.clone(), source },
        })?;
        let port =
            socket.local_addr().map_err(|source| ListenError::Listen { url: url.clone(), source })?.port();
        Ok(Listener { url: Url { port, ..url.clone() }, socket, scope })
    }
}

/// The address to bind for a URL; IPv4 first, so that `localhost` is where clients look.
pub(crate) async fn resolve(url: &Url) -> Result<SocketAddr, ListenError> {
    let failed = |source| ListenError::Listen { url: url.clone(), source };
    let mut addresses: Vec<SocketAddr> =
        tokio::net::lookup_host((url.host.as_str(), url.port)).await.map_err(failed)?.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    addresses.into_iter().next().ok_or_else(|| ListenError::NoHost { url: url.clone() })
}

/// Everything that a connection needs.
struct Front {
    context: Arc<Context>,
    services: Services,
    http: HttpService,
    tls: Option<Arc<Reloading<ServerConfig>>>,
    builder: auto::Builder<TokioExecutor>,
    /// Whether the common name of a client's certificate is its user name.
    certificate_users: bool,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Serves until `stop`; resolves when the last connection has ended.
pub(crate) async fn serve(
    own: Own,
    services: Services,
    listeners: Vec<Listener>,
    tls: Option<Arc<Reloading<ServerConfig>>>,
    stop: CancellationToken,
) {
    let front = Arc::new(Front {
        builder: builder(&own.context.config),
        certificate_users: own.context.config.client_tls.as_ref().is_some_and(|tls| tls.client_cert_auth),
        http: HttpService::new(own.clone(), services.clone()),
        context: own.context,
        services,
        tls,
        stop: stop.clone(),
        tasks: TaskTracker::new(),
    });
    for listener in listeners {
        front.tasks.spawn(accept(front.clone(), listener));
    }
    front.tasks.close();
    front.tasks.wait().await;
}

fn builder(config: &Config) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(config.concurrent_streams_max)
        .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
        .keep_alive_interval(config.keepalive_interval)
        .keep_alive_timeout(config.keepalive_timeout);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIME_MAX);
    builder
}

async fn accept(front: Arc<Front>, listener: Listener) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.socket.accept() => accepted,
            () = front.stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                front.tasks.spawn(connection(front.clone(), stream, peer, listener.url.tls, listener.scope));
            }
            Err(error) => {
                tracing::warn!(%error, url = %listener.url, "connection not accepted");
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(front: Arc<Front>, stream: TcpStream, peer: SocketAddr, is_tls: bool, scope: Scope) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, %peer, "no delay not set");
    }
    let metrics = &front.context.metrics;
    let stream = Metered::new(stream, metrics.received_bytes.clone(), metrics.sent_bytes.clone());
    let Some(tls) = front.tls.clone().filter(|_| is_tls) else {
        return exchange(front, stream, peer, None, scope).await;
    };
    match time::timeout(HANDSHAKE_TIME_MAX, TlsAcceptor::from(tls.current()).accept(stream)).await {
        Ok(Ok(stream)) => {
            let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let user = certificate.filter(|_| front.certificate_users).and_then(tls::common_name);
            let user = user.map(|name| CertificateUser(name.into()));
            exchange(front, stream, peer, user, scope).await;
        }
        Ok(Err(error)) => tracing::warn!(%error, %peer, "rejected connection on client endpoint"),
        Err(_) => {
            tracing::warn!(error = "TLS handshake took too long", %peer, "rejected connection on client endpoint")
        }
    }
}

/// Speaks HTTP until the client closes, or until it was asked to at shutdown.
async fn exchange<S>(
    front: Arc<Front>,
    stream: S,
    peer: SocketAddr,
    user: Option<CertificateUser>,
    scope: Scope,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handler = front.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (front, user) = (handler.clone(), user.clone());
        async move { Ok::<_, Infallible>(front.answer(request, user, scope).await) }
    });
    let connection =
        front.builder.serve_connection_with_upgrades(TokioIo::new(Readable::new(stream)), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = front.stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, %peer, "connection ended");
    }
}

impl Front {
    async fn answer(
        &self,
        mut request: Request<Incoming>,
        user: Option<CertificateUser>,
        scope: Scope,
    ) -> Response<Body> {
        let grpc = request
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        if grpc && scope == Scope::Everything {
            if let Some(user) = user {
                request.extensions_mut().insert(user);
            }
            return self.services.call(request).await;
        }
        // Over the gateway a certificate names no user: the connection could be a proxy's.
        self.http.answer(request, scope).await
    }
}
