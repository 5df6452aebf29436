//! Sockets between members: lazily connected channels out, accepted and optionally TLS-wrapped streams in.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use super::LinkError;
use super::meter::Meter;
use crate::config::PeerTls;
use crate::surroundings::{self, Listener, Network, Stream};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections whose TLS handshake is under way or that wait to be served.
const HANDSHAKES_MAX: usize = 64;

pub(super) const STREAM_WINDOW_BYTES: u32 = 8 << 20;
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;

/// A connection whose bytes are counted.
pub(super) struct Metered {
    stream: Stream,
    meter: Arc<Meter>,
    /// Whom we reached over TLS. It may still refuse our certificate: with TLS 1.3 the side that connects has finished
    /// its handshake before the other has looked at it.
    peer: Option<String>,
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if let Err(error) = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer)) {
            self.peer.iter().for_each(|peer| tell_refused(&error, peer));
            return Poll::Ready(Err(error));
        }
        self.meter.received(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.meter.sent(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        self.meter.sent(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl tonic::transport::server::Connected for Metered {
    type ConnectInfo = Arc<Meter>;
    fn connect_info(&self) -> Arc<Meter> {
        self.meter.clone()
    }
}

#[derive(Clone)]
struct Address {
    place: Place,
    secure: bool,
}

#[derive(Clone)]
enum Place {
    Tcp {
        host: String,
        port: u16,
    },
    /// The path of a socket file.
    File(String),
}

fn address(url: &str) -> Result<Address, LinkError> {
    let wrong = |reason| LinkError::Url { url: url.to_owned(), reason };
    for (scheme, secure) in [("unix://", false), ("unixs://", true)] {
        match url.strip_prefix(scheme) {
            Some("") => return Err(wrong("no socket file")),
            Some(path) => return Ok(Address { place: Place::File(path.to_owned()), secure }),
            None => {}
        }
    }
    let uri: http::Uri = url.parse().map_err(|_| wrong("not a URL"))?;
    let secure = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(wrong("the scheme must be http, https, unix or unixs")),
    };
    let host = uri.host().ok_or_else(|| wrong("no host"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = uri.port_u16().ok_or_else(|| wrong("no port"))?;
    Ok(Address { place: Place::Tcp { host, port }, secure })
}

/// A channel that connects when it is used, to the next of the URLs after each failure.
pub(super) fn channel(
    network: &Arc<dyn Network>,
    urls: &[String],
    tls: Option<&PeerTls>,
    dead_after: Duration,
    meter: Arc<Meter>,
) -> Result<Channel, LinkError> {
    let addresses = urls.iter().map(|url| address(url)).collect::<Result<Vec<_>, _>>()?;
    if addresses.is_empty() {
        return Err(LinkError::None);
    }
    if tls.is_none() && addresses.iter().any(|address| address.secure) {
        return Err(LinkError::Url { url: urls.join(","), reason: "https needs peer certificates" });
    }
    let (network, tls) = (network.clone(), tls.cloned());
    let addresses: Arc<[Address]> = addresses.into();
    let turn = Arc::new(AtomicUsize::new(0));
    let connector = tower::service_fn(move |_: http::Uri| {
        let address = addresses[turn.fetch_add(1, Ordering::Relaxed) % addresses.len()].clone();
        let tls = tls.as_ref().map(|tls| tokio_rustls::TlsConnector::from((tls.client)()));
        let (network, meter) = (network.clone(), meter.clone());
        async move { tokio::time::timeout(CONNECT_TIMEOUT, connect(&*network, address, tls, meter)).await? }
    });
    let dead_after = dead_after.max(Duration::from_secs(1));
    let endpoint = Endpoint::from_static("http://peer")
        .http2_keep_alive_interval(dead_after / 2)
        .keep_alive_timeout(dead_after)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    Ok(endpoint.connect_with_connector_lazy(connector))
}

async fn connect(
    network: &dyn Network,
    address: Address,
    tls: Option<tokio_rustls::TlsConnector>,
    meter: Arc<Meter>,
) -> io::Result<TokioIo<Metered>> {
    let socket = match &address.place {
        Place::Tcp { host, port } => network.connect(host, *port).await?,
        Place::File(path) => surroundings::connect_file(path).await?,
    };
    let Some(tls) = tls.filter(|_| address.secure) else {
        return Ok(TokioIo::new(Metered { stream: socket, meter, peer: None }));
    };
    let (host, peer) = match address.place {
        Place::Tcp { host, port } => (host.clone(), format!("{host}:{port}")),
        Place::File(path) => ("localhost".to_owned(), path),
    };
    let name = rustls::pki_types::ServerName::try_from(host).map_err(io::Error::other)?;
    let stream = tls.connect(name, socket).await.inspect_err(|error| tell_refused(error, &peer))?;
    Ok(TokioIo::new(Metered { stream: Stream::new(stream), meter, peer: Some(peer) }))
}

fn tell_refused(error: &io::Error, peer: &str) {
    if wire::is_tls_alert(error) {
        tracing::warn!(error = wire::tls_failure(error), peer, "the peer refused this member's certificate");
    }
}

/// Accepts until `shutdown`; a slow handshake holds up nobody else.
pub(super) fn accept(
    mut listener: Box<dyn Listener>,
    tls: Option<&PeerTls>,
    shutdown: CancellationToken,
) -> impl futures_util::Stream<Item = io::Result<Metered>> + use<> {
    let tls = tls.cloned();
    let (sender, receiver) = mpsc::channel(HANDSHAKES_MAX);
    tokio::spawn(async move {
        let slots = Arc::new(tokio::sync::Semaphore::new(HANDSHAKES_MAX));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = shutdown.cancelled() => return,
            };
            let (socket, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accept a peer connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let tls = tls.as_ref().map(|tls| tokio_rustls::TlsAcceptor::from((tls.server)()));
            let sender = sender.clone();
            tokio::spawn(async move {
                let _slot = slot;
                match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake(socket, tls)).await {
                    // A closed receiver means that the server stops.
                    Ok(Ok(stream)) => drop(sender.send(Ok(stream)).await),
                    Ok(Err(error)) => {
                        let error = wire::tls_failure(&error);
                        tracing::warn!(error, %peer, "rejected connection on peer endpoint");
                    }
                    Err(_) => {
                        let error = "TLS handshake took too long";
                        tracing::warn!(error, %peer, "rejected connection on peer endpoint");
                    }
                }
            });
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(receiver)
}

async fn handshake(socket: Stream, tls: Option<tokio_rustls::TlsAcceptor>) -> io::Result<Metered> {
    let stream = match tls {
        None => socket,
        Some(tls) => Stream::new(tls.accept(socket).await?),
    };
    Ok(Metered { stream, meter: Arc::default(), peer: None })
}
