//! Addresses that are listened on: TCP ports and socket files, and the connections that come in there.
//!
//! Invariants: each place is bound once. One port serves TLS and plain connections when both kinds of URL name it: the first
//! byte of a connection tells which it is.
//! Not here: what is spoken (serve.rs).

use std::{
    io,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream, UnixStream},
};

use wire::SocketFile;

use super::{ListenError, Scope};
use crate::{
    config::SocketOptions,
    url::{Place, Url},
};

/// Connections that wait to be accepted. Source: Go takes the system's, which is 4096 on Linux.
const BACKLOG: u32 = 4096;
/// How a TLS connection begins: the record type of a handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// Which connections a listener takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Security {
    Plain,
    Tls,
    Both,
}

/// A bound address.
pub(crate) struct Listener {
    /// All URLs with this place; a port of 0 has become the real one.
    pub urls: Vec<Url>,
    socket: Socket,
    pub(super) security: Security,
    pub(super) scope: Scope,
}

enum Socket {
    Tcp(TcpListener),
    File(SocketFile),
}

impl Listener {
    /// Binds each place once, in the order of the URLs.
    pub(crate) async fn bind_all(
        urls: &[Url],
        scope: Scope,
        options: SocketOptions,
    ) -> Result<Vec<Listener>, ListenError> {
        let mut groups: Vec<Vec<Url>> = Vec::new();
        for url in urls {
            // Each port 0 is a port of its own.
            let same = |group: &&mut Vec<Url>| url.port() != Some(0) && group[0].place == url.place;
            match groups.iter_mut().find(same) {
                Some(group) if group.contains(url) => {}
                Some(group) => group.push(url.clone()),
                None => groups.push(vec![url.clone()]),
            }
        }
        let mut listeners = Vec::with_capacity(groups.len());
        for group in groups {
            listeners.push(Listener::bind(group, scope, options).await?);
        }
        Ok(listeners)
    }

    async fn bind(mut urls: Vec<Url>, scope: Scope, options: SocketOptions) -> Result<Listener, ListenError> {
        let url = urls[0].clone();
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => ListenError::InUse { url: url.clone() },
            _ => ListenError::Listen { url: url.clone(), source },
        };
        let socket = match &url.place {
            Place::Tcp { .. } => Socket::Tcp(bind_tcp(super::resolve(&url).await?, options).map_err(failed)?),
            Place::Socket(path) => Socket::File(SocketFile::bind(Path::new(path)).await.map_err(failed)?),
        };
        if let Socket::Tcp(listener) = &socket {
            let bound = listener.local_addr().map_err(failed)?.port();
            for url in &mut urls {
                if let Place::Tcp { port, .. } = &mut url.place {
                    *port = bound;
                }
            }
        }
        let security = match (urls.iter().any(|url| url.tls), urls.iter().any(|url| !url.tls)) {
            (true, true) => Security::Both,
            (true, false) => Security::Tls,
            (false, _) => Security::Plain,
        };
        Ok(Listener { urls, socket, security, scope })
    }

    /// The next connection and where it comes from.
    pub(super) async fn accept(&self) -> io::Result<(Stream, String)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Stream::Tcp(stream), peer.to_string()))
            }
            Socket::File(file) => Ok((Stream::File(file.accept().await?), "unix".to_owned())),
        }
    }
}

fn bind_tcp(address: SocketAddr, options: SocketOptions) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Without it a restarted member would have to wait for the connections of its former life to be forgotten; Go's
    // listeners always have it.
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(options.reuse_port)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A connection.
pub(super) enum Stream {
    Tcp(TcpStream),
    File(UnixStream),
}

impl Stream {
    pub(super) fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.set_nodelay(true),
            Stream::File(_) => Ok(()),
        }
    }

    /// Whether the client begins with TLS; waits for its first byte. A socket file cannot be asked: see
    /// `Config::check`.
    pub(super) async fn begins_with_tls(&self) -> io::Result<bool> {
        let mut first = [0];
        match self {
            Stream::Tcp(stream) => Ok(stream.peek(&mut first).await? == 1 && first[0] == TLS_HANDSHAKE),
            Stream::File(_) => Ok(false),
        }
    }
}

macro_rules! either {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream {
            Stream::Tcp($inner) => $call,
            Stream::File($inner) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_read(context, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(context, parts))
    }

    fn is_write_vectored(&self) -> bool {
        either!(self, stream => stream.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(context))
    }
}
