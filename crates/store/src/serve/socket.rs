//! Addresses that are listened on: TCP ports and socket files, and the connections that come in there.
//!
//! Invariants: each place is bound once. A client whose machine or network is gone is noticed, whatever it speaks. One port serves TLS and plain connections when both kinds of URL name it: the first
//! byte of a connection tells which it is.
//! Not here: what is spoken (serve.rs).

use std::{
    io,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
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
/// How long a connection is silent before the client's machine is asked whether it still knows it, and the pause between
/// questions. Source: Go's net, whose listeners etcd uses.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Questions without an answer after which the connection is over.
const KEEPALIVE_QUESTIONS: u32 = 9;
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
    /// Small answers go out at once, and a client that vanished is noticed. Streams over HTTP/1.1 have nothing else that
    /// would end them: they may be silent for as long as nothing happens.
    pub(super) fn prepare(&self) -> io::Result<()> {
        let Stream::Tcp(stream) = self else { return Ok(()) };
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_INTERVAL)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_QUESTIONS);
        let asked = SockRef::from(stream).set_tcp_keepalive(&keepalive);
        stream.set_nodelay(true).and(asked)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_machine_of_a_silent_client_is_asked_whether_it_is_still_there() {
        let urls: [Url; 1] = ["http://127.0.0.1:0".parse().unwrap()];
        let options = SocketOptions::default();
        let listener = Listener::bind_all(&urls, Scope::Everything, options).await.unwrap().pop().unwrap();
        let client = TcpStream::connect(("127.0.0.1", listener.urls[0].port().unwrap())).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        assert_eq!(peer, client.local_addr().unwrap().to_string());
        stream.prepare().unwrap();
        let Stream::Tcp(stream) = &stream else { panic!("a TCP port gives TCP connections") };
        let socket = SockRef::from(stream);
        assert!(socket.keepalive().unwrap() && stream.nodelay().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_INTERVAL);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), KEEPALIVE_QUESTIONS);
    }
}
