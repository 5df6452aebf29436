//! `Maintenance.Snapshot` and its way back: the state as an etcd database.
//!
//! A snapshot is one moment of the state, written to a nameless file in the data directory and sent from there, so
//! that a slow client holds up nothing but its own file. Invariants: memory is bounded by one value; no more than
//! `EXPORTS_MAX` at a time, and whoever takes nothing for a while makes room for the next. Not here: buckets and values (rows.rs), a data directory from a database (restore.rs).

mod export;
pub mod restore;
mod rows;

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use futures_util::{Stream, StreamExt as _, stream};
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use wire::etcdserverpb as pb;

use crate::{STORAGE_VERSION, context::Context, status};

/// Bytes of the database in one message, as etcd has it.
const BLOB_SIZE_BYTES: usize = 32 << 10;
/// Each is a file as large as the state.
const EXPORTS_MAX: usize = 2;
/// Messages that wait for a slow client.
const BLOBS_WAITING_MAX: usize = 8;
/// Messages that are read from the file at once.
const BLOBS_READ_MAX: usize = 32;

type Blob = Result<pb::SnapshotResponse, Status>;
pub(crate) type Blobs = Pin<Box<dyn Stream<Item = Blob> + Send>>;

pub(crate) fn slots() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(EXPORTS_MAX))
}

fn failed(error: &dyn std::fmt::Display) -> Status {
    Status::unavailable(format!("etcdserver: snapshot: {error}"))
}

/// The answer to `Snapshot`. The work goes on while the client reads, and ends when the client is gone.
pub(crate) async fn stream(handle: &replica::Handle, context: Arc<Context>) -> Result<Blobs, Status> {
    let slot = context.exports.clone().acquire_owned().await.map_err(|error| failed(&error))?;
    let begin = Instant::now();
    let frozen = handle.frozen().await.map_err(frozen_failed)?;
    let (sender, receiver) = mpsc::channel(BLOBS_WAITING_MAX);
    let work = tokio::spawn(async move {
        let _slot = slot;
        let made = make(&context, frozen, &sender).await;
        match &made {
            Ok(()) => context.metrics.backup.observe(begin.elapsed()),
            Err(status) => tracing::warn!(error = status.message(), "a snapshot could not be made"),
        }
        made
    });
    // An error comes behind what waits: a client that took everything before it must not hold it for the end.
    let end = stream::once(work).filter_map(async |ended| match ended {
        Ok(Ok(())) => None,
        Ok(Err(status)) => Some(Err(status)),
        Err(panic) => Some(Err(failed(&panic))),
    });
    Ok(Box::pin(ReceiverStream::new(receiver).chain(end)))
}

fn frozen_failed(error: replica::BackupError) -> Status {
    match error {
        replica::BackupError::Flush(error) => status::flush(error),
        replica::BackupError::StateFile(error) => failed(&error),
    }
}

async fn make(context: &Context, frozen: replica::Frozen, sender: &mpsc::Sender<Blob>) -> Result<(), Status> {
    let surroundings = &context.config.surroundings;
    let folder = context.config.data_dir.join("member");
    let written = surroundings.blocking(move || {
        nameless_file(&folder)
            .map_err(export::ExportError::Create)
            .and_then(|file| export::export(&frozen, file))
    });
    let (mut file, size_bytes) =
        written.await.map_err(|panic| failed(&panic))?.map_err(|error| failed(&error))?;
    file.seek(SeekFrom::Start(0)).map_err(|error| failed(&error))?;
    let patience = context.config.snapshot_patience;
    let mut sending = Sending { file, remaining_bytes: size_bytes, hash: Sha256::new(), complete: false };
    loop {
        let read = surroundings.blocking(move || {
            let blobs = sending.read();
            (sending, blobs)
        });
        let (rest, blobs) = read.await.map_err(|panic| failed(&panic))?;
        sending = rest;
        let blobs = blobs.map_err(|error| failed(&error))?;
        if blobs.is_empty() {
            return Ok(());
        }
        for blob in blobs {
            match tokio::time::timeout(patience, sender.send(Ok(blob))).await {
                Ok(Ok(())) => {}
                // The client is gone.
                Ok(Err(_)) => return Ok(()),
                Err(_) => return Err(failed(&format_args!("the client took nothing for {patience:?}"))),
            }
        }
    }
}

/// A file without a name goes away with the process; what a crash leaves between the two calls is empty.
fn nameless_file(folder: &Path) -> std::io::Result<File> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed) % 16;
    let path = folder.join(format!("backup-{number}.new"));
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// What is left to be sent of a snapshot.
struct Sending {
    file: File,
    remaining_bytes: u64,
    hash: Sha256,
    complete: bool,
}

impl Sending {
    /// The next messages; none after the last one, which is the hash of all others.
    fn read(&mut self) -> std::io::Result<Vec<pb::SnapshotResponse>> {
        let mut blobs = Vec::with_capacity(BLOBS_READ_MAX);
        while blobs.len() < BLOBS_READ_MAX && !self.complete {
            let left = usize::try_from(self.remaining_bytes).unwrap_or(usize::MAX).min(BLOB_SIZE_BYTES);
            let mut blob = vec![0; left];
            self.file.read_exact(&mut blob)?;
            self.hash.update(&blob);
            self.remaining_bytes -= left as u64;
            if left == 0 {
                self.complete = true;
                blob = self.hash.finalize_reset().to_vec();
            }
            blobs.push(pb::SnapshotResponse {
                header: None,
                remaining_bytes: self.remaining_bytes,
                blob: blob.into(),
                version: STORAGE_VERSION.to_owned(),
            });
        }
        Ok(blobs)
    }
}
