//! `Maintenance.Snapshot` and its way back: the state as an etcd database.
//!
//! A snapshot is one moment of the state, written to a nameless file in the data directory and sent from there, so
//! that a slow client holds up nothing but its own file. Invariants: memory is bounded by one value; no more than
//! `EXPORTS_MAX` at a time. Not here: buckets and values (rows.rs), a data directory from a database (restore.rs).

mod export;
pub mod restore;
mod rows;

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use wire::etcdserverpb as pb;

use crate::{STORAGE_VERSION, context::Context};

/// Bytes of the database in one message, as etcd has it.
const BLOB_SIZE_BYTES: usize = 32 << 10;
/// Each is a file as large as the state.
const EXPORTS_MAX: usize = 2;
/// Messages that wait for a slow client.
const BLOBS_WAITING_MAX: usize = 8;

static EXPORTS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(EXPORTS_MAX));

pub(crate) type Blobs = ReceiverStream<Result<pb::SnapshotResponse, Status>>;

/// The answer to `Snapshot`. The work goes on while the client reads, and ends when the client is gone.
pub(crate) async fn stream(handle: &replica::Handle, context: Arc<Context>) -> Result<Blobs, Status> {
    let failed =
        |error: &dyn std::fmt::Display| Status::unavailable(format!("etcdserver: snapshot: {error}"));
    let slot = EXPORTS.acquire().await.map_err(|error| failed(&error))?;
    let begin = Instant::now();
    let frozen = handle.frozen().await.map_err(|error| failed(&error))?;
    let folder = context.config.data_dir.join("member");
    let (sender, receiver) = mpsc::channel(BLOBS_WAITING_MAX);
    tokio::task::spawn_blocking(move || {
        let _slot = slot;
        let written = nameless_file(&folder)
            .map_err(export::ExportError::Create)
            .and_then(|file| export::export(&frozen, file));
        drop(frozen);
        let sent = written.map_err(|error| error.to_string()).and_then(|(file, size_bytes)| {
            send(file, size_bytes, &sender).map_err(|error| error.to_string())
        });
        match sent {
            Ok(()) => context.metrics.backup.observe(begin.elapsed()),
            Err(error) => {
                tracing::warn!(%error, "a snapshot could not be made");
                let answer = Status::unavailable(format!("etcdserver: snapshot: {error}"));
                let _ = sender.blocking_send(Err(answer));
            }
        }
    });
    Ok(ReceiverStream::new(receiver))
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

fn send(
    mut file: File,
    size_bytes: u64,
    sender: &mpsc::Sender<Result<pb::SnapshotResponse, Status>>,
) -> std::io::Result<()> {
    let mut hash = Sha256::new();
    let mut remaining_bytes = size_bytes;
    file.seek(SeekFrom::Start(0))?;
    let deliver = |remaining_bytes, blob| {
        let version = STORAGE_VERSION.to_owned();
        sender
            .blocking_send(Ok(pb::SnapshotResponse { header: None, remaining_bytes, blob, version }))
            .is_ok()
    };
    while remaining_bytes > 0 {
        let length =
            usize::try_from(remaining_bytes).map_or(BLOB_SIZE_BYTES, |left| left.min(BLOB_SIZE_BYTES));
        let mut blob = vec![0; length];
        file.read_exact(&mut blob)?;
        hash.update(&blob);
        remaining_bytes -= length as u64;
        if !deliver(remaining_bytes, blob.into()) {
            return Ok(());
        }
    }
    deliver(0, hash.finalize().to_vec().into());
    Ok(())
}
