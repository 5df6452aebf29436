//! Sockets between members: lazily connected channels out, accepted and optionally TLS-wrapped streams in.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use super::LinkError;
use crate::config::PeerTls;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections whose TLS handshake is under way or that wait to be served.
const HANDSHAKES_MAX: usize = 64;

pub(super) const STREAM_WINDOW_BYTES: u32 = 8 << 20;
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection, whatever it runs over.
pub(super) struct Stream(Box<dyn Io>);

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl tonic::transport::server::Connected for Stream {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

#[derive(Clone)]
struct Address {
    host: String,
    port: u16,
    secure: bool,
}

fn address(url: &str) -> Result<Address, LinkError> {
    let wrong = |reason| LinkError::Url { url: url.to_owned(), reason };
    let uri: http::Uri = url.parse().map_err(|_| wrong("not a URL"))?;
    let secure = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(wrong("the scheme must be http or https")),
    };
    let host = uri.host().ok_or_else(|| wrong("no host"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = uri.port_u16().ok_or_else(|| wrong("no port"))?;
    Ok(Address { host, port, secure })
}

/// A channel that connects when it is used, to the next of the URLs after each failure.
pub(super) fn channel(
    urls: &[String],
    tls: Option<&PeerTls>,
    dead_after: Duration,
) -> Result<Channel, LinkError> {
    let addresses = urls.iter().map(|url| address(url)).collect::<Result<Vec<_>, _>>()?;
    if addresses.is_empty() {
        return Err(LinkError::None);
    }
    if tls.is_none() && addresses.iter().any(|address| address.secure) {
        return Err(LinkError::Url { url: urls.join(","), reason: "https needs peer certificates" });
    }
    let tls = tls.cloned();
    let addresses: Arc<[Address]> = addresses.into();
    let turn = Arc::new(AtomicUsize::new(0));
    let connector = tower::service_fn(move |_: http::Uri| {
        let address = addresses[turn.fetch_add(1, Ordering::Relaxed) % addresses.len()].clone();
        let tls = tls.as_ref().map(|tls| tokio_rustls::TlsConnector::from((tls.client)()));
        async move { tokio::time::timeout(CONNECT_TIMEOUT, connect(address, tls)).await? }
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

async fn connect(address: Address, tls: Option<tokio_rustls::TlsConnector>) -> io::Result<TokioIo<Stream>> {
    let socket = TcpStream::connect((address.host.as_str(), address.port)).await?;
    socket.set_nodelay(true)?;
    let Some(tls) = tls.filter(|_| address.secure) else { return Ok(TokioIo::new(Stream(Box::new(socket)))) };
    let name = rustls::pki_types::ServerName::try_from(address.host).map_err(io::Error::other)?;
    Ok(TokioIo::new(Stream(Box::new(tls.connect(name, socket).await?))))
}

/// Accepts until `shutdown`; a slow handshake holds up nobody else.
pub(super) fn accept(
    listener: TcpListener,
    tls: Option<&PeerTls>,
    shutdown: CancellationToken,
) -> impl futures_util::Stream<Item = io::Result<Stream>> + use<> {
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
                    Ok(Err(error)) => tracing::warn!(%error, %peer, "rejected connection on peer endpoint"),
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

async fn handshake(socket: TcpStream, tls: Option<tokio_rustls::TlsAcceptor>) -> io::Result<Stream> {
    socket.set_nodelay(true)?;
    Ok(match tls {
        None => Stream(Box::new(socket)),
        Some(tls) => Stream(Box::new(tls.accept(socket).await?)),
    })
}
