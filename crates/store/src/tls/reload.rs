//! Settings made from files, made again when a file has changed.
//!
//! Looking costs one `stat` per file and handshake. A change that cannot be used is reported once and tried again when a
//! file changes once more, so certificate and key need not be replaced at the same moment.

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf, sync::Arc, time::SystemTime};

use parking_lot::Mutex;

use super::TlsError;

/// What a file looked like: when it was written, its length and its inode. None if it cannot be seen.
type Stamp = Option<(Option<SystemTime>, u64, u64)>;

pub(crate) struct Reloading<T> {
    paths: Vec<PathBuf>,
    read: Box<dyn Fn() -> Result<T, TlsError> + Send + Sync>,
    state: Mutex<(Vec<Stamp>, Arc<T>)>,
}

impl<T> Reloading<T> {
    /// Reads for the first time, when an unusable file is an error.
    pub(super) fn new(
        paths: Vec<PathBuf>,
        read: impl Fn() -> Result<T, TlsError> + Send + Sync + 'static,
    ) -> Result<Arc<Reloading<T>>, TlsError> {
        let stamps = stamps(&paths);
        let value = Arc::new(read()?);
        Ok(Arc::new(Reloading { paths, read: Box::new(read), state: Mutex::new((stamps, value)) }))
    }

    /// What the files say now, or what they said when they last could be used.
    pub(crate) fn current(&self) -> Arc<T> {
        let stamps = stamps(&self.paths);
        let mut state = self.state.lock();
        if state.0 != stamps {
            match (self.read)() {
                Ok(value) => {
                    state.1 = Arc::new(value);
                    tracing::info!(files = ?self.paths, "certificates were read again");
                }
                Err(error) => {
                    tracing::warn!(%error, "changed certificates cannot be used, the former ones stay");
                }
            }
            state.0 = stamps;
        }
        state.1.clone()
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Stamp> {
    paths
        .iter()
        .map(|path| fs::metadata(path).ok().map(|file| (file.modified().ok(), file.len(), file.ino())))
        .collect()
}
