//! `snapshot save`: one member's state into a file.
//!
//! Invariants: a file with the name given is whole: it is written beside, its size and its hash are checked and it is
//! on disk before it gets its name. Whatever ends the command early leaves nothing behind.

use std::{
    fs::{File, OpenOptions},
    io::{BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use tokio_stream::StreamExt;
use tonic::Streaming;
use wire::etcdserverpb::{SnapshotRequest, SnapshotResponse};

use crate::{
    catalog::{Command, Run},
    failure::Failure,
    flags::Line,
    output,
    progress::Progress,
    session::{Session, cause},
    signals::Signals,
};

pub(crate) const COMMANDS: &[Command] = &[Command {
    name: "snapshot save",
    takes: "<filename>",
    about: "Stores a snapshot of one member's state in a given file",
    detail: "The file has the format of etcd. There is no timeout unless --command-timeout is given.",
    example: "snapshot save /backup/etcd-snapshot.db --endpoints=10.0.0.1:2379",
    flags: &[],
    run: Run::Online(|session, line| Box::pin(save(session, line))),
}];

/// Of the hash behind the pages.
const HASH_SIZE_BYTES: usize = 32;
/// What the pages are a multiple of.
const SECTOR_SIZE_BYTES: u64 = 512;

async fn save(session: &Session, line: &Line) -> Result<(), Failure> {
    let [path] = line.words_of("snapshot save expects one argument")?;
    if session.options.endpoints.len() > 1 {
        let endpoints = session.options.endpoints.join(" ");
        return Err(Failure::interrupted(format!(
            "snapshot must be requested to one selected node, not multiple [{endpoints}]"
        )));
    }
    let mut signals = Signals::catch();
    let limit = session.options.command_timeout_given.then_some(session.options.command_timeout);
    let late = async {
        match limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let version = tokio::select! {
        saved = fetch(session, Path::new(path)) => saved?,
        _ = signals.next() => return Err(Failure::interrupted("interrupted, nothing was saved")),
        () = late => return Err(Failure::interrupted("context deadline exceeded, nothing was saved")),
    };
    output::line(format!("Snapshot saved at {path}"));
    if !version.is_empty() {
        output::line(format!("Server version {version}"));
    }
    Ok(())
}

/// Answers the version of the member.
async fn fetch(session: &Session, path: &Path) -> Result<String, Failure> {
    let mut part = Part::create(path)?;
    let mut client = session.client.maintenance.clone();
    let chunks = client.snapshot(session.ask(SnapshotRequest {})).await;
    let chunks = chunks.map_err(|status| Failure::interrupted(session.failed(&status).text))?.into_inner();
    let version = receive(session, chunks, &mut part).await?;
    part.keep(path)?;
    Ok(version)
}

async fn receive(
    session: &Session,
    mut chunks: Streaming<SnapshotResponse>,
    part: &mut Part,
) -> Result<String, Failure> {
    let progress = Progress::bytes("Saving", 0);
    let mut version = String::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|status| Failure::interrupted(session.failed(&status).text))?;
        part.write(&chunk.blob)?;
        progress.set(part.size_bytes, part.size_bytes + chunk.remaining_bytes);
        if !chunk.version.is_empty() {
            version = chunk.version;
        }
    }
    Ok(version)
}

/// The file while it is not whole. Removed when dropped, unless it was kept.
struct Part {
    path: PathBuf,
    file: BufWriter<File>,
    size_bytes: u64,
    hash: Sha256,
    /// The last bytes so far, which are not hashed: they may be the hash.
    tail: Vec<u8>,
}

impl Part {
    fn create(path: &Path) -> Result<Part, Failure> {
        let mut name = path.as_os_str().to_owned();
        name.push(".part");
        let path = PathBuf::from(name);
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let file = file.map_err(|error| {
            Failure::interrupted(format!("could not open {0} (open {0}: {1})", path.display(), cause(&error)))
        })?;
        let file = BufWriter::with_capacity(1 << 20, file);
        Ok(Part { path, file, size_bytes: 0, hash: Sha256::new(), tail: Vec::new() })
    }

    fn failed(&self, error: &std::io::Error) -> Failure {
        Failure::file(format!("could not write {}: {}", self.path.display(), cause(error)))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(|error| self.failed(&error))?;
        self.size_bytes += bytes.len() as u64;
        self.tail.extend_from_slice(bytes);
        let hashed = self.tail.len().saturating_sub(HASH_SIZE_BYTES);
        self.hash.update(self.tail.drain(..hashed).as_slice());
        Ok(())
    }

    /// Checks the content, puts it on disk and gives it its name.
    fn keep(mut self, path: &Path) -> Result<(), Failure> {
        if self.size_bytes % SECTOR_SIZE_BYTES != HASH_SIZE_BYTES as u64 {
            return Err(Failure::interrupted(format!(
                "sha256 checksum not found [bytes: {}], nothing was saved",
                self.size_bytes
            )));
        }
        let found = std::mem::take(&mut self.hash).finalize();
        if found.as_slice() != self.tail {
            return Err(Failure::interrupted(
                "sha256 checksum does not match what was received, nothing was saved",
            ));
        }
        let flushed = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        flushed.map_err(|error| self.failed(&error))?;
        std::fs::rename(&self.path, path).map_err(|error| {
            let (part, path) = (self.path.display(), path.display());
            Failure::file(format!("could not rename {part} to {path} ({})", cause(&error)))
        })?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| self.failed(&error))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path); // gone if it was kept
    }
}

#[cfg(test)]
mod tests {
    use super::{Digest, Part, Sha256};

    fn saved(bytes: &[u8]) -> (Result<(), String>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let mut part = Part::create(&path).unwrap();
        for chunk in bytes.chunks(100) {
            part.write(chunk).unwrap();
        }
        let kept = part.keep(&path).map_err(|failure| failure.text);
        let names = std::fs::read_dir(folder.path()).unwrap();
        (kept, names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
    }

    #[test]
    fn a_file_gets_its_name_only_if_its_hash_is_right() {
        let mut bytes = vec![7; 1024];
        let hash = Sha256::digest(&bytes);
        bytes.extend_from_slice(&hash);
        assert_eq!(saved(&bytes), (Ok(()), vec!["a.db".to_owned()]));
        bytes[1] = 8;
        let (kept, names) = saved(&bytes);
        assert!(kept.unwrap_err().starts_with("sha256 checksum does not match") && names.is_empty());
        let (kept, names) = saved(&bytes[..1000]);
        assert!(kept.unwrap_err().starts_with("sha256 checksum not found [bytes: 1000]") && names.is_empty());
    }
}
