//! What a member touches outside itself: disk, network, threads. A deterministic simulation gives it others.
//!
//! Always holds: no other file of this crate opens a file, a socket or a thread, or lets tokio do so
//! (`Surroundings::blocking` is the way to what blocks). Time is tokio's, which a simulation moves; randomness comes
//! from the operating system through `rand`, where a simulation puts its own. Not here: bytes of any format.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpSocket;
use tokio::task::JoinError;
use wal::{Disk, DiskFile};
use wire::SocketFile;

use crate::planted::{self, Bug};

/// Cheap to clone.
#[derive(Clone)]
pub struct Surroundings {
    pub disk: Arc<dyn Disk>,
    pub network: Arc<dyn Network>,
    pub threads: Threads,
}

/// Where a member does what blocks.
#[derive(Clone)]
pub enum Threads {
    /// The log and the state file have a thread each, the rest runs on tokio's blocking pool.
    System,
    /// Everything is a task of the caller's runtime, one step after the other. Before each batch of the log and of the
    /// state file the disk takes as long as this says.
    Tasks(Latency),
}

pub type Latency = Arc<dyn Fn() -> Duration + Send + Sync>;

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Connections to and from other members.
pub trait Network: Send + Sync {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Stream>>;
    /// `AddrInUse` when somebody else listens there.
    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>>;
}

pub trait Listener: Send {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Stream, SocketAddr)>>;
}

impl Surroundings {
    /// The operating system's.
    pub fn system() -> Surroundings {
        Surroundings {
            disk: Arc::new(wal::RealDisk::new()),
            network: Arc::new(SystemNetwork { shares_ports: false }),
            threads: Threads::System,
        }
    }

    /// Lets other processes listen on the same ports.
    pub fn share_ports(&mut self) {
        if self.has_sockets() {
            self.network = Arc::new(SystemNetwork { shares_ports: true });
        }
    }

    /// `false` in a simulation, whose clients do not come through the system's sockets.
    pub fn has_sockets(&self) -> bool {
        matches!(self.threads, Threads::System)
    }

    /// Runs what may block, so that the caller's runtime goes on meanwhile if there are threads.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        match &self.threads {
            Threads::System => tokio::task::spawn_blocking(work).await,
            Threads::Tasks(_) => Ok(work()),
        }
    }
}

impl Default for Surroundings {
    fn default() -> Surroundings {
        Surroundings::system()
    }
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.threads {
            Threads::System => "Surroundings of the system",
            Threads::Tasks(_) => "Surroundings without threads",
        })
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection, whatever it runs over.
pub struct Stream(Box<dyn Io>);

impl Stream {
    pub fn new(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Stream {
        Stream(Box::new(stream))
    }
}

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

struct SystemNetwork {
    shares_ports: bool,
}

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

impl Network for SystemNetwork {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Stream>> {
        Box::pin(async move {
            let socket = tokio::net::TcpStream::connect((host, port)).await?;
            socket.set_nodelay(true)?;
            Ok(Stream::new(socket))
        })
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let socket = match address {
                SocketAddr::V4(_) => TcpSocket::new_v4()?,
                SocketAddr::V6(_) => TcpSocket::new_v6()?,
            };
            socket.set_reuseaddr(true)?;
            socket.set_reuseport(self.shares_ports)?;
            socket.bind(address)?;
            Ok(Box::new(socket.listen(BACKLOG)?) as Box<dyn Listener>)
        })
    }
}

impl Listener for tokio::net::TcpListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Stream, SocketAddr)>> {
        Box::pin(async move {
            let (socket, peer) = tokio::net::TcpListener::accept(self).await?;
            socket.set_nodelay(true)?;
            Ok((Stream::new(socket), peer))
        })
    }
}

/// Socket files are for members on one machine; a simulation has none.
pub(crate) async fn connect_file(path: &str) -> io::Result<Stream> {
    Ok(Stream::new(tokio::net::UnixStream::connect(path).await?))
}

pub(crate) async fn listen_file(path: &Path) -> io::Result<Box<dyn Listener>> {
    Ok(Box::new(SocketFile::bind(path).await?))
}

impl Listener for SocketFile {
    /// From nowhere: whoever connects to a file has no address.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Stream, SocketAddr)>> {
        Box::pin(async move {
            let stream = SocketFile::accept(self).await?;
            Ok((Stream::new(stream), SocketAddr::from(([0, 0, 0, 0], 0))))
        })
    }
}

/// An error if that cannot be told: a file that cannot be opened is not one that is missing.
pub(crate) fn exists(disk: &dyn Disk, path: &Path) -> io::Result<bool> {
    match disk.open(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The whole of a small file. `None`: there is none.
pub(crate) fn read_whole(disk: &dyn Disk, path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match disk.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut bytes = vec![0; usize::try_from(file.size_bytes()?).map_err(io::Error::other)?];
    read_full(&*file, &mut bytes, 0)?;
    Ok(Some(bytes))
}

/// Replaces a small file by other bytes, all or nothing, and makes that durable.
pub(crate) fn write_whole(disk: &dyn Disk, directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = directory.join(format!("{name}.new"));
    remove(disk, &temporary)?;
    let file = disk.create(&temporary)?;
    write_full(&*file, bytes, 0)?;
    if !planted::is(Bug::SmallFileNotSynced) {
        file.sync_data()?;
    }
    disk.rename(&temporary, &directory.join(name))?;
    if planted::is(Bug::SmallFileNameNotSynced) {
        return Ok(());
    }
    disk.sync_directory(directory)
}

/// Not an error if there is no such file.
pub(crate) fn remove(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The state file's pages.
pub(crate) struct Pages(pub Arc<dyn DiskFile>);

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pages")
    }
}

impl redb::StorageBackend for Pages {
    fn len(&self) -> io::Result<u64> {
        self.0.size_bytes()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        read_full(&*self.0, out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_size_bytes(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        write_full(&*self.0, data, offset)
    }
}

fn read_full(file: &dyn DiskFile, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match file.read_at(buffer, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(size) => {
                buffer = buffer.get_mut(size..).unwrap_or_default();
                offset += size as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn write_full(file: &dyn DiskFile, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(size) => {
                bytes = bytes.get(size..).unwrap_or_default();
                offset += size as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
