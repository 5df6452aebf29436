//! The client port: accepts connections, TLS or not, HTTP/2 or HTTP/1.1, and sorts requests by their content type.
//!
//! Invariants: a slow handshake or a broken connection holds up nobody else; at shutdown no new request begins and
//! those under way have a bounded time to end.

mod authority;
mod handshakes;
pub(crate) mod metered;
mod pings;
mod socket;

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{Request, Response, Version, header::CONTENT_TYPE};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::body::Body;

use crate::{
    config::Config,
    context::{CertificateUser, Context, Own},
    http::HttpService,
    serve::{
        authority::Readable,
        handshakes::{Handshakes, Place},
        metered::Metered,
        pings::Enforced,
        socket::{Security, Stream},
    },
    services::Services,
    tls::{self, Reloading},
    turns::Connection,
    url::{self, Url},
};
pub(crate) use socket::Listener;

/// Bounds of one connection.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// Handshakes under way at once; each takes some tens of kilobytes.
const HANDSHAKES_MAX: usize = 1000;
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

/// The address to bind for a TCP URL: the first that the host resolves to, IPv4 first, so that `localhost` is where clients look.
pub(crate) async fn resolve(url: &Url) -> Result<SocketAddr, ListenError> {
    let failed = |source| ListenError::Listen { url: url.clone(), source };
    let url::Place::Tcp { host, port } = &url.place else {
        return Err(ListenError::NoHost { url: url.clone() });
    };
    let mut addresses: Vec<SocketAddr> =
        tokio::net::lookup_host((host.as_str(), *port)).await.map_err(failed)?.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    addresses.into_iter().next().ok_or_else(|| ListenError::NoHost { url: url.clone() })
}

/// How a connection is protected.
#[derive(Debug, Clone)]
pub(crate) enum Secured {
    No,
    /// With the user whom the client's certificate names, if certificates name users.
    Tls(Option<CertificateUser>),
}

/// Everything that a connection needs.
struct Front {
    context: Arc<Context>,
    services: Services,
    http: HttpService,
    tls: Option<Arc<Reloading<ServerConfig>>>,
    handshakes: Arc<Handshakes>,
    /// How many there have been.
    connections: AtomicU64,
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
        handshakes: Handshakes::new(HANDSHAKES_MAX),
        connections: AtomicU64::new(0),
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
            accepted = listener.accept() => accepted,
            () = front.stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (security, scope) = (listener.security, listener.scope);
                let place = match security {
                    Security::Plain => None,
                    Security::Tls | Security::Both => tokio::select! {
                        place = front.handshakes.begin() => place,
                        () = front.stop.cancelled() => return,
                    },
                };
                front.tasks.spawn(connection(front.clone(), (stream, peer), place, security, scope));
            }
            Err(error) => {
                tracing::warn!(%error, url = %listener.urls[0], "connection not accepted");
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(
    front: Arc<Front>,
    (stream, peer): (Stream, String),
    place: Option<Place>,
    security: Security,
    scope: Scope,
) {
    if let Err(error) = stream.prepare() {
        tracing::debug!(%error, %peer, "options of a socket not set");
    }
    let given_up = async {
        match &place {
            Some(place) => place.given_up().await,
            None => std::future::pending().await,
        }
    };
    let shaken = tokio::select! {
        shaken = time::timeout(HANDSHAKE_TIME_MAX, shake(&front, stream, security)) => {
            shaken.unwrap_or_else(|_| Err("TLS handshake took too long".to_owned()))
        }
        () = given_up => Err("too many TLS handshakes at once".to_owned()),
    };
    drop(place);
    match shaken {
        Ok(Shaken::Plain(stream)) => exchange(front, stream, peer, Secured::No, scope).await,
        Ok(Shaken::Tls(stream)) => {
            let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let user = certificate.filter(|_| front.certificate_users).and_then(tls::common_name);
            let user = user.map(|name| CertificateUser(name.into()));
            exchange(front, *stream, peer, Secured::Tls(user), scope).await;
        }
        Ok(Shaken::Nobody) => {}
        Err(error) => tracing::warn!(error, %peer, "rejected connection on client endpoint"),
    }
}

/// A connection on which nothing was asked yet.
enum Shaken {
    Plain(Metered<Stream>),
    Tls(Box<TlsStream<Metered<Stream>>>),
    /// Nobody who wants something.
    Nobody,
}

async fn shake(front: &Front, stream: Stream, security: Security) -> Result<Shaken, String> {
    let is_tls = match security {
        Security::Plain => false,
        Security::Tls => true,
        Security::Both => match stream.begins_with_tls().await {
            Ok(is_tls) => is_tls,
            Err(_) => return Ok(Shaken::Nobody),
        },
    };
    let metrics = &front.context.metrics;
    let stream = Metered::new(stream, metrics.received_bytes.clone(), metrics.sent_bytes.clone());
    let Some(tls) = front.tls.as_ref().filter(|_| is_tls) else { return Ok(Shaken::Plain(stream)) };
    let accepted = TlsAcceptor::from(tls.current()).accept(stream).await;
    Ok(Shaken::Tls(Box::new(accepted.map_err(|error| wire::tls_failure(&error))?)))
}

/// Speaks HTTP until the client closes, or until it was asked to at shutdown.
async fn exchange<S>(front: Arc<Front>, stream: S, peer: String, secured: Secured, scope: Scope)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // etcd watches pings only where its gRPC library reads the socket itself, which is without TLS.
    let min_time = match &secured {
        Secured::No => Some(front.context.config.keepalive_min_time),
        Secured::Tls(_) => None,
    };
    let handler = front.clone();
    let number = Connection(front.connections.fetch_add(1, Ordering::Relaxed) + 1);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (front, secured) = (handler.clone(), secured.clone());
        request.extensions_mut().insert(number);
        async move { Ok::<_, Infallible>(front.answer(request, secured, scope).await) }
    });
    let stream = Enforced::new(stream, min_time);
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
    async fn answer(&self, mut request: Request<Incoming>, secured: Secured, scope: Scope) -> Response<Body> {
        let kind = request.headers().get(CONTENT_TYPE);
        let grpc = request.version() == Version::HTTP_2
            && kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        if grpc && scope == Scope::Everything {
            if let Secured::Tls(Some(user)) = secured {
                request.extensions_mut().insert(user);
            }
            return self.services.call(request).await;
        }
        self.http.answer(request, &secured, scope).await
    }
}
