//! The listener: TCP, TLS, HTTP/2 and 1.1, with a deadline or a bound for everything that a peer can withhold.
//!
//! Invariants: at most `connections_max` connections; a handshake must be complete in 10 s, an HTTP/1 request head in
//! 32 s; idle HTTP/2 connections are pinged; when told to stop, the listener closes first, then every connection
//! finishes what it has begun, for at most `DRAIN_S_MAX`. Not here: what a request means (`chain.rs`).

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::util::BoxCloneSyncService;
use tracing::{debug, info, warn};

use crate::chain::{self, Origin};
use crate::{ApiServer, Body, BoxError, User};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// For the head of an HTTP/1 request, counted from the answer before it. Source: kube-apiserver `ReadHeaderTimeout`.
const HEADER_TIMEOUT: Duration = Duration::from_secs(32);
/// Source: kube-apiserver `--http2-...` defaults, golang.org/x/net/http2 `ReadIdleTimeout`.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
const HEADER_BYTES_MAX: u32 = 64 * 1024;
const DRAIN_S_MAX: u64 = 10;

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the listener has no local address")]
    Listener(#[source] std::io::Error),
}

impl ApiServer {
    /// Serves HTTPS on `listener` until `shutdown`, then drains.
    pub async fn serve(
        &self,
        listener: TcpListener,
        tls: Arc<ServerConfig>,
        shutdown: CancellationToken,
    ) -> Result<(), ServeError> {
        let address = listener.local_addr().map_err(ServeError::Listener)?;
        info!(%address, "serving HTTPS");
        let acceptor = TlsAcceptor::from(tls);
        let places = Arc::new(Semaphore::new(self.config().connections_max));
        let connections = TaskTracker::new();
        let drain = self.drain_signal(shutdown);
        let cut = CancellationToken::new();
        let _cut_at_the_latest = cut.clone().drop_guard();
        loop {
            let accepted = tokio::select! {
                () = drain.cancelled() => break,
                accepted = accept(&listener, &places) => accepted,
            };
            let Some((stream, peer, place)) = accepted else { continue };
            let (server, acceptor, drain, cut) = (self.clone(), acceptor.clone(), drain.clone(), cut.clone());
            connections.spawn(async move {
                tokio::select! {
                    () = server.connection(stream, peer, acceptor, drain) => {}
                    () = cut.cancelled() => debug!(%peer, "connection dropped"),
                }
                drop(place);
            });
        }
        drop(listener);
        connections.close();
        if tokio::time::timeout(Duration::from_secs(DRAIN_S_MAX), connections.wait()).await.is_err() {
            warn!(%address, "connections were still open after {DRAIN_S_MAX} s and are dropped");
        }
        Ok(())
    }

    /// The same service without a socket, for a part of this process that acts as `identity`.
    pub fn local(&self, identity: User) -> BoxCloneSyncService<Request<Body>, Response<Body>, BoxError> {
        let server = self.clone();
        let origin = Arc::new(Origin::InProcess(identity));
        BoxCloneSyncService::new(tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            let origin = origin.clone();
            async move { Ok::<_, BoxError>(chain::handle(&server, &origin, request).await) }
        }))
    }

    /// Resolves once the server answers requests with a synced feed and its bootstrap objects in place.
    pub async fn ready(&self) {
        self.health().started().await;
    }

    /// Cancelled `shutdown_delay` after `shutdown`: until then only /readyz tells that the server is leaving.
    fn drain_signal(&self, shutdown: CancellationToken) -> CancellationToken {
        let drain = CancellationToken::new();
        let server = self.clone();
        let signal = drain.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = server.shutdown().cancelled() => {}
            }
            server.health().set_stopping();
            tokio::time::sleep(server.config().shutdown_delay).await;
            server.shutdown().cancel();
            signal.cancel();
        });
        drain
    }

    /// Serves one connection until either side ends it. After `drain`, or once a request has asked for it, no new
    /// request is taken (GOAWAY on HTTP/2) and those under way are finished.
    async fn connection(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        acceptor: TlsAcceptor,
        drain: CancellationToken,
    ) {
        let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return debug!(%peer, %error, "TLS handshake failed"),
            Err(_) => return debug!(%peer, "TLS handshake took too long"),
        };
        let (_, session) = stream.get_ref();
        let certificates = session
            .peer_certificates()
            .map(|chain| chain.iter().map(|one| one.clone().into_owned()).collect());
        let leave = drain.child_token();
        let origin = Arc::new(Origin::network(peer, certificates.unwrap_or_default(), leave.clone()));
        let server = self.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let server = server.clone();
            let origin = origin.clone();
            async move {
                let request = request.map(|body| body.map_err(BoxError::from).boxed_unsync());
                Ok::<_, Infallible>(chain::handle(&server, &origin, request).await)
            }
        });
        let builder = self.http();
        let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = leave.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            debug!(%peer, %error, "connection ended with an error");
        }
    }

    fn http(&self) -> auto::Builder<TokioExecutor> {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(usize::try_from(HEADER_BYTES_MAX).unwrap_or(usize::MAX));
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .max_concurrent_streams(self.config().http2_max_streams_per_connection)
            .max_header_list_size(HEADER_BYTES_MAX)
            .initial_stream_window_size(256 * 1024)
            .initial_connection_window_size(1024 * 1024);
        builder
    }
}

/// The next connection and its place; `None` after an error that has been waited out.
async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = connections.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => {
            if let Err(error) = stream.set_nodelay(true) {
                debug!(%peer, %error, "TCP_NODELAY refused");
            }
            Some((stream, peer, permit))
        }
        Err(error) => {
            // Out of file descriptors or memory: give the connections that exist time to end.
            warn!(%error, "cannot accept a connection");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}
