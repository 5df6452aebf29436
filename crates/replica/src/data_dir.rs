//! A member's directory: who it belongs to, who has it open, whether the member may vote.
//!
//! ```text
//! <data-dir>/member/identity     cluster and member id, checksummed, written once
//!                   lock         held while a process has the directory open
//!                   wal/         the log
//!                   state.redb   the state file; state.redb.incoming while a snapshot is received
//!                   quarantine   present while the member must not vote (quarantine.rs)
//! ```
//! Invariant: a file appears under its name only whole and fsynced. Drawn in docs/formats.md.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use parking_lot::Mutex;
use wal::{DirectoryLock, Disk};

use crate::quarantine::Reason;
use crate::start::StartError;
use crate::surroundings::{exists, read_whole, remove, write_whole};

const IDENTITY_MAGIC: &[u8; 8] = b"BNCLMEM1";

/// Which member of which cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub cluster_id: u64,
    pub member_id: u64,
}

/// An opened and locked directory.
pub(crate) struct DataDir {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    wal: PathBuf,
    lock: Mutex<Option<Box<dyn DirectoryLock>>>,
}

impl DataDir {
    /// Creates it with mode 0700 if it is missing.
    pub(crate) fn open(disk: Arc<dyn Disk>, data_dir: &Path) -> Result<DataDir, StartError> {
        let root = data_dir.join("member");
        let wrap = |source| StartError::Io { path: root.clone(), source };
        disk.create_directory(&root).map_err(wrap)?;
        let path = root.join("lock");
        match disk.lock(&path) {
            Ok(Some(lock)) => Ok(DataDir { disk, wal: root.join("wal"), root, lock: Mutex::new(Some(lock)) }),
            Ok(None) => Err(StartError::Locked { path }),
            Err(source) => Err(StartError::Io { path, source }),
        }
    }

    /// What is in it beside the lock; `None` in a new one.
    pub(crate) fn first_file(&self) -> io::Result<Option<PathBuf>> {
        let files = self.disk.list(&self.root)?;
        Ok(files.into_iter().find(|name| name != "lock").map(|name| self.root.join(name)))
    }

    /// Lets another process (or a later life of this member) have the directory.
    pub(crate) fn unlock(&self) {
        *self.lock.lock() = None;
    }

    /// Has the log somewhere else. The log locks its directory itself.
    pub(crate) fn with_wal(self, wal: Option<PathBuf>) -> DataDir {
        let wal = wal.unwrap_or_else(|| self.root.join("wal"));
        DataDir { wal, ..self }
    }

    pub(crate) fn wal(&self) -> PathBuf {
        self.wal.clone()
    }

    /// Whether there are files of a log.
    pub(crate) fn has_log(&self) -> bool {
        self.disk.list(&self.wal).is_ok_and(|files| !files.is_empty())
    }

    pub(crate) fn state_file(&self) -> PathBuf {
        self.root.join("state.redb")
    }

    pub(crate) fn incoming_state_file(&self) -> PathBuf {
        self.root.join("state.redb.incoming")
    }

    pub(crate) fn identity(&self) -> Result<Option<Identity>, StartError> {
        read_identity(&*self.disk, &self.root.join("identity"))
    }

    pub(crate) fn set_identity(&self, identity: Identity) -> Result<(), StartError> {
        let path = self.root.join("identity");
        let mut bytes = Vec::with_capacity(28);
        bytes.put_slice(IDENTITY_MAGIC);
        bytes.put_u64_le(identity.cluster_id);
        bytes.put_u64_le(identity.member_id);
        bytes.put_u32_le(crc32c::crc32c(&bytes));
        write_whole(&*self.disk, &self.root, "identity", &bytes)
            .map_err(|source| StartError::Io { path, source })
    }

    /// Present while the member may have lost acknowledged log entries (or its whole directory), so that a vote of it
    /// could elect a leader without them. See quarantine.rs for when it is removed.
    pub(crate) fn quarantined(&self) -> bool {
        // If that cannot be told, it is.
        exists(&*self.disk, &self.root.join("quarantine")).unwrap_or(true)
    }

    /// Why, if it is.
    pub(crate) fn quarantine(&self) -> Option<Reason> {
        if !self.quarantined() {
            return None;
        }
        let text = read_whole(&*self.disk, &self.root.join("quarantine")).ok().flatten();
        Some(Reason::from_text(&String::from_utf8_lossy(&text.unwrap_or_default())))
    }

    pub(crate) fn set_quarantine(&self, reason: Reason) -> io::Result<()> {
        write_whole(&*self.disk, &self.root, "quarantine", reason.text().as_bytes())
    }

    pub(crate) fn lift_quarantine(&self) -> io::Result<()> {
        remove(&*self.disk, &self.root.join("quarantine"))?;
        self.disk.sync_directory(&self.root)
    }
}

/// What a data directory says about itself, without opening it. A restarted member keeps the ids that it has, whatever
/// its flags say about the initial cluster.
pub fn stored_identity(disk: &dyn Disk, data_dir: &Path) -> Result<Option<Identity>, StartError> {
    read_identity(disk, &data_dir.join("member").join("identity"))
}

fn read_identity(disk: &dyn Disk, path: &Path) -> Result<Option<Identity>, StartError> {
    let bytes = match read_whole(disk, path) {
        Ok(Some(bytes)) => Bytes::from(bytes),
        Ok(None) => return Ok(None),
        Err(source) => return Err(StartError::Io { path: path.to_owned(), source }),
    };
    let corrupt = || StartError::Corrupt { file: path.to_owned(), offset: 0 };
    let body = bytes.len().checked_sub(4).map(|length| bytes.slice(..length)).ok_or_else(corrupt)?;
    let mut fields = bytes.clone();
    if body.len() != 24 || !body.starts_with(IDENTITY_MAGIC) {
        return Err(corrupt());
    }
    fields.advance(IDENTITY_MAGIC.len());
    let identity = Identity { cluster_id: fields.get_u64_le(), member_id: fields.get_u64_le() };
    if fields.get_u32_le() != crc32c::crc32c(&body) {
        return Err(corrupt());
    }
    Ok(Some(identity))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> Arc<dyn Disk> {
        Arc::new(wal::RealDisk::new())
    }

    #[test]
    fn a_directory_remembers_who_it_belongs_to_and_can_be_open_once() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(stored_identity(&*disk(), directory.path()).unwrap(), None);
        let open = DataDir::open(disk(), directory.path()).unwrap();
        let identity = Identity { cluster_id: 5, member_id: 6 };
        open.set_identity(identity).unwrap();
        assert!(matches!(DataDir::open(disk(), directory.path()), Err(StartError::Locked { .. })));
        drop(open);
        assert_eq!(stored_identity(&*disk(), directory.path()).unwrap(), Some(identity));
        assert!(DataDir::open(disk(), directory.path()).is_ok());
    }

    #[test]
    fn a_damaged_identity_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let open = DataDir::open(disk(), directory.path()).unwrap();
        open.set_identity(Identity { cluster_id: 5, member_id: 6 }).unwrap();
        let path = directory.path().join("member/identity");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[10] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(stored_identity(&*disk(), directory.path()), Err(StartError::Corrupt { .. })));
        std::fs::write(&path, b"short").unwrap();
        assert!(matches!(stored_identity(&*disk(), directory.path()), Err(StartError::Corrupt { .. })));
    }
}
