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

/// A data directory that is being made. Dropped before `finish` it leaves files that nobody starts from.
pub struct NewState {
    disk: Arc<dyn Disk>,
    data_dir: DataDir,
    file: NewStateFile,
    unfinished: PathBuf,
    identity: Identity,
    position: Position,
}

impl NewState {
    /// For the member `identity` of a cluster that consists of `members`.
    pub fn create(data_dir: &Path, identity: Identity, members: &[Member]) -> Result<NewState, StartError> {
        NewState::create_on(Arc::new(wal::RealDisk::new()), data_dir, identity, members)
    }

    pub(crate) fn create_on(
        disk: Arc<dyn Disk>,
        data_dir: &Path,
        identity: Identity,
        members: &[Member],
    ) -> Result<NewState, StartError> {
        let data_dir = DataDir::open(disk.clone(), data_dir)?;
        let applied = log_id(0, members.len().max(1) as u64);
        let membership = StoredMembership::new(Some(applied), first_membership(members)?);
        let position = Position { applied: Some(applied), membership, removed: Vec::new() };
        let unfinished = data_dir.incoming_state_file();
        let file = NewStateFile::create(&*disk, &unfinished, CACHE_SIZE_BYTES)?;
        Ok(NewState { disk, data_dir, file, unfinished, identity, position })
    }

    /// Records must ascend over all calls.
    pub fn add(&mut self, rows: Vec<Row>) -> Result<(), StartError> {
        Ok(self.file.add(rows)?)
    }

    /// Makes it durable and the member's own. Answers its revision.
    pub fn finish(self) -> Result<i64, StartError> {
        let NewState { disk, data_dir, file, unfinished, identity, position } = self;
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
        Ok(store.revision())
    }
}
