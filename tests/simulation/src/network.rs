//! Simulated sockets, for members and for clients.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use replica::{BoxFuture, Listener, Network, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint};
use turmoil::net::{TcpListener, TcpStream};

/// Connections break when nothing comes back for so long: a simulated partition loses bytes for good.
const SILENCE_MAX: Duration = Duration::from_secs(1);
const NARROW_WINDOW_SIZE_BYTES: u32 = 512;
const CONNECT_TIME_MAX: Duration = Duration::from_secs(1);

/// Between members, as one of them sees it.
pub(crate) struct SimNetwork {
    /// Connections that the member has tried to make, over its lives.
    pub connects: Arc<AtomicU64>,
}

struct SimListener(TcpListener);

impl Network for SimNetwork {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Stream>> {
        self.connects.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move { Ok(Stream::new(TcpStream::connect((host, port)).await?)) })
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let listener = TcpListener::bind(address).await?;
            Ok(Box::new(SimListener(listener)) as Box<dyn Listener>)
        })
    }
}

impl Listener for SimListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Stream, SocketAddr)>> {
        Box::pin(async move {
            let (socket, peer) = self.0.accept().await?;
            Ok((Stream::new(socket), peer))
        })
    }
}

/// A client's way to the gRPC services of one host; connects when it is used, and again after each failure.
pub(crate) fn channel(host: &str, port: u16) -> Channel {
    connected(Endpoint::from_static("http://member"), host, port)
}

/// The same for a client that lets a member be only a few answers ahead.
pub(crate) fn narrow_channel(host: &str, port: u16) -> Channel {
    connected(
        Endpoint::from_static("http://member").initial_stream_window_size(NARROW_WINDOW_SIZE_BYTES),
        host,
        port,
    )
}

fn connected(endpoint: Endpoint, host: &str, port: u16) -> Channel {
    let host = host.to_owned();
    let connector = tower::service_fn(move |_: http::Uri| {
        let host = host.clone();
        async move {
            let connecting = TcpStream::connect((host.as_str(), port));
            Ok::<_, io::Error>(TokioIo::new(tokio::time::timeout(CONNECT_TIME_MAX, connecting).await??))
        }
    });
    endpoint
        .http2_keep_alive_interval(SILENCE_MAX)
        .keep_alive_timeout(SILENCE_MAX)
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(connector)
}

/// A client's connection as its server sees it.
pub(crate) struct Accepted(pub TcpStream);

impl Connected for Accepted {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
