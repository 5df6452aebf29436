//! The whole state for whoever writes it in another format, and a data directory made from such a state.
//!
//! Invariants: a `Frozen` is one moment of this member's state file and does not move. A directory that `NewState`
//! makes belongs to nobody until `finish`, which checks that a member can start from it. All members that are made
//! from the same rows begin at the same place: their log is cut behind an index that a new cluster's first entry does
//! not reach, so one that starts empty by mistake is sent the state instead of a log that does not have it.
//! Not here: what rows mean (mvcc), the other format (store).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use mvcc::{Revision, Row};
use wal::Disk;

use crate::config::Member;
use crate::data_dir::{DataDir, Identity};
use crate::flusher::FlushError;
use crate::handle::Handle;
use crate::planted::{self, Bug};
use crate::raft_types::{Node, StoredMembership, log_id, next_index};
use crate::start::{StartError, first_membership};
use crate::state;
use crate::state_file::{NewStateFile, Position, StateFile, StateFileError, StateView};

const CACHE_SIZE_BYTES: usize = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Flush(#[from] FlushError),
    #[error(transparent)]
    StateFile(#[from] StateFileError),
}

/// The state at one moment. Keeps space of the state file from being reused, so it must not be kept for long.
pub struct Frozen {
    view: StateView,
}

impl Handle {
    /// Everything that was applied before the call is in it.
    pub async fn frozen(&self) -> Result<Frozen, BackupError> {
        self.flush().await?;
        let file = self.inner.state.with_core(|core| Arc::clone(&core.file));
        Ok(Frozen { view: file.view()? })
    }
}

impl Frozen {
    pub fn applied_index(&self) -> u64 {
        self.view.position.applied.map_or(0, |id| id.index)
    }

    pub fn applied_term(&self) -> u64 {
        self.view.position.applied.map_or(0, |id| id.leader_id.term)
    }

    /// Without the client URLs, which are among the rows. Sorted by id.
    pub fn members(&self) -> Vec<Member> {
        let membership = self.view.position.membership.membership();
        let voters: std::collections::BTreeSet<u64> = membership.voter_ids().collect();
        let member = |(id, node): (&u64, &Node)| Member {
            id: *id,
            name: node.name.clone(),
            peer_urls: node.peer_urls.clone(),
            client_urls: Vec::new(),
            is_learner: !voters.contains(id) && !node.joining,
        };
        membership.nodes().map(member).collect()
    }

    pub fn removed_members(&self) -> &[u64] {
        &self.view.position.removed
    }

    /// Key and value of each meta row.
    pub fn meta(&self) -> Result<Vec<(Bytes, Bytes)>, StateFileError> {
        self.view.meta()
    }

    /// Ascending; an error is the last item.
    pub fn records(
        &self,
    ) -> Result<impl Iterator<Item = Result<(Revision, Bytes), StateFileError>> + use<>, StateFileError> {
        self.view.records()
    }
}

/// A data directory that is being made. Dropped before `finish` it leaves no more than there was before.
pub struct NewState {
    disk: Arc<dyn Disk>,
    file: NewStateFile,
    /// Before the lock in the order in which they are dropped: what is taken away is locked.
    made: Option<Made>,
    data_dir: DataDir,
    unfinished: PathBuf,
    identity: Identity,
    position: Position,
}

impl NewState {
    /// For the member `identity` of a cluster that consists of `members`. The directory must be empty or missing.
    pub fn create(path: &Path, identity: Identity, members: &[Member]) -> Result<NewState, StartError> {
        let disk: Arc<dyn Disk> = Arc::new(wal::RealDisk::new());
        let existed = path.exists();
        let data_dir = DataDir::open(disk.clone(), path)?;
        // Another process may have been here since whoever calls has looked.
        if let Some(other) = data_dir.first_file().map_err(|source| io_error(path, source))? {
            return Err(io_error(&other, std::io::ErrorKind::AlreadyExists.into()));
        }
        let made = Made { path: path.to_owned(), existed, finished: false };
        NewState::begin(disk, data_dir, Some(made), identity, members)
    }

    /// On a disk that is no file system: nothing is looked at before, nothing is taken away after a failure.
    pub(crate) fn create_on(
        disk: Arc<dyn Disk>,
        path: &Path,
        identity: Identity,
        members: &[Member],
    ) -> Result<NewState, StartError> {
        let data_dir = DataDir::open(disk.clone(), path)?;
        NewState::begin(disk, data_dir, None, identity, members)
    }

    fn begin(
        disk: Arc<dyn Disk>,
        data_dir: DataDir,
        made: Option<Made>,
        identity: Identity,
        members: &[Member],
    ) -> Result<NewState, StartError> {
        let applied = log_id(0, members.len().max(1) as u64);
        let membership = StoredMembership::new(Some(applied), first_membership(members)?);
        let position = Position { applied: Some(applied), membership, removed: Vec::new() };
        let unfinished = data_dir.incoming_state_file();
        let file = NewStateFile::create(&*disk, &unfinished, CACHE_SIZE_BYTES)?;
        Ok(NewState { disk, file, made, data_dir, unfinished, identity, position })
    }

    /// Records must ascend over all calls.
    pub fn add(&mut self, rows: Vec<Row>) -> Result<(), StartError> {
        Ok(self.file.add(rows)?)
    }

    /// Makes it durable and the member's own. Answers its revision.
    pub fn finish(self) -> Result<i64, StartError> {
        // The last one is dropped first.
        let NewState { disk, data_dir, mut made, file, unfinished, identity, position } = self;
        if planted::is(Bug::RestoreNamedFirst) {
            data_dir.set_identity(identity)?;
        }
        debug_assert!(next_index(position.applied.as_ref()) > 1);
        file.finish(&position)?;
        let written = StateFile::open(&disk, &unfinished, CACHE_SIZE_BYTES)?;
        let store = state::restore(&written.view()?, mvcc::Limits::default())?;
        written.close();
        let path = data_dir.state_file();
        let directory = path.parent().unwrap_or(&path);
        disk.rename(&unfinished, &path)
            .and_then(|()| disk.sync_directory(directory))
            .map_err(|source| StartError::Io { path: path.clone(), source })?;
        data_dir.set_identity(identity)?;
        if let Some(made) = &mut made {
            made.finished = true;
        }
        Ok(store.revision())
    }
}

fn io_error(path: &Path, source: std::io::Error) -> StartError {
    StartError::Io { path: path.to_owned(), source }
}

/// Takes away what was made, and nothing else, unless it was finished.
struct Made {
    path: PathBuf,
    existed: bool,
    finished: bool,
}

impl Drop for Made {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let removed = std::fs::remove_dir_all(self.path.join("member"));
        let removed = match self.existed {
            true => removed,
            // Fails when somebody else has put something there meanwhile.
            false => removed.and_then(|()| std::fs::remove_dir(&self.path)),
        };
        if let Err(error) = removed {
            tracing::warn!(%error, path = %self.path.display(), "an unfinished data directory is left");
        }
    }
}
