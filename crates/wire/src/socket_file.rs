//! Listening on a socket file.
//!
//! Invariants: a file that somebody listens on is never taken away; one that was left behind is replaced; ours goes when
//! nobody listens on it any more. Not here: what is spoken on it.

use std::{
    fs, io,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixStream};

/// A socket file that connections come in at.
#[derive(Debug)]
pub struct SocketFile {
    listener: UnixListener,
    path: PathBuf,
}

impl SocketFile {
    /// `AddrInUse` when somebody else listens there.
    pub async fn bind(path: &Path) -> io::Result<SocketFile> {
        let left_behind = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
        if left_behind {
            if UnixStream::connect(path).await.is_ok() {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            fs::remove_file(path)?;
        }
        Ok(SocketFile { listener: UnixListener::bind(path)?, path: path.to_owned() })
    }

    pub async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Whoever finds it left behind replaces it.
        drop(fs::remove_file(&self.path));
    }
}
