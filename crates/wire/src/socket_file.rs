//! Listening on a socket file.
//!
//! Invariants: a file that somebody listens on is never taken away; one that was left behind is replaced; ours, and no
//! other that stands in its place by now, goes when nobody listens on it any more. Not here: what is spoken on it.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixStream};

/// A socket file that connections come in at.
#[derive(Debug)]
pub struct SocketFile {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode.
    made: Option<(u64, u64)>,
}

impl SocketFile {
    /// `AddrInUse` when somebody else listens there.
    pub async fn bind(path: &Path) -> io::Result<SocketFile> {
        let found = fs::symlink_metadata(path).ok().filter(|file| file.file_type().is_socket());
        if let Some(found) = found {
            refuse_if_in_use(path).await?;
            if place(path) == Some((found.dev(), found.ino())) {
                fs::remove_file(path)?;
            }
        }
        let listener = UnixListener::bind(path)?;
        Ok(SocketFile { listener, path: path.to_owned(), made: place(path) })
    }

    pub async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.made.is_some() && place(&self.path) == self.made {
            // Whoever finds it left behind replaces it.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Only a refused connection proves that nobody listens: one that is busy or lets in others only lives.
async fn refuse_if_in_use(path: &Path) -> io::Result<()> {
    match UnixStream::connect(path).await {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Ok(()),
            // Its queue of connections is full.
            io::ErrorKind::WouldBlock => Err(io::ErrorKind::AddrInUse.into()),
            _ => Err(error),
        },
    }
}

fn place(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net;

    use super::*;

    fn folder() -> PathBuf {
        let folder = std::env::temp_dir().join(format!("socket-file-{}-{}", std::process::id(), line!()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[tokio::test]
    async fn only_a_file_that_nobody_listens_on_is_replaced() {
        let path = folder().join("left");
        drop(net::UnixListener::bind(&path).unwrap());
        let first = SocketFile::bind(&path).await.unwrap();
        assert_eq!(SocketFile::bind(&path).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_listener_that_is_too_busy_to_answer_keeps_its_file() {
        let path = folder().join("busy");
        let socket = tokio::net::UnixSocket::new_stream().unwrap();
        socket.bind(&path).unwrap();
        let listener = socket.listen(1).unwrap();
        let mut queued = Vec::new();
        // Nobody accepts: the queue of the listener fills up.
        let refused = loop {
            match UnixStream::connect(&path).await {
                Ok(stream) => queued.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(SocketFile::bind(&path).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(path.exists());
        drop((listener, queued));
        fs::remove_file(&path).unwrap();
    }

    #[tokio::test]
    async fn a_file_that_another_has_put_in_its_place_stays() {
        let path = folder().join("replaced");
        let first = SocketFile::bind(&path).await.unwrap();
        fs::rename(&path, path.with_extension("old")).unwrap();
        let second = net::UnixListener::bind(&path).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        fs::remove_file(path.with_extension("old")).unwrap();
        fs::remove_file(&path).unwrap();
    }
}
