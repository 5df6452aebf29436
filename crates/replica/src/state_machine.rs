//! Applies committed entries, in log order, in memory only.
//!
//! Invariants: an entry counts as applied only with its position in the same lock. Waiters and watchers hear of an entry
//! after it is readable. What cannot be decoded or read back stops the member: it never guesses.
//! Not here: what commands do (mvcc), the bytes of snapshots (snapshot.rs).

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use mvcc::{Applied, ApplyError, Command, Proposal};
use openraft::storage::{ApplyResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot};
use tokio::time::Instant;
use wal::Disk;

use crate::data_dir::DataDir;
use crate::fatal::{Fatal, FatalReason};
use crate::flusher::FlusherHandle;
use crate::leases::Leases;
use crate::log_store::LogStore;
use crate::metrics::Counters;
use crate::planted::{self, Bug};
use crate::raft_types::*;
use crate::slow_apply;
use crate::snapshot::{Prepared, SnapshotBody};
use crate::state::{Core, State};
use crate::waiters::{Outcome, Waiters};

/// Entries applied under one lock. Other tasks of the runtime run between batches.
const BATCH_ENTRIES_MAX: usize = 128;

#[derive(Clone)]
pub(crate) struct StateMachine {
    pub member_id: u64,
    pub state: Arc<State>,
    pub waiters: Arc<Waiters>,
    pub leases: Arc<Leases>,
    pub log: LogStore,
    pub flusher: FlusherHandle,
    pub data_dir: Arc<DataDir>,
    pub disk: Arc<dyn Disk>,
    pub counters: Arc<Counters>,
    /// An apply that takes longer is logged.
    pub slow_apply: Duration,
    pub fatal: Fatal,
}

type SnapshotOf =
    openraft::Snapshot<openraft::vote::leader_id_std::CommittedLeaderId<u64>, u64, Node, SnapshotBody>;

struct Decoded {
    log_id: LogId,
    what: What,
}

enum What {
    Blank,
    Proposal(Box<Proposal>),
    Membership(Membership),
}

fn decoded(entry: RaftEntry) -> io::Result<Decoded> {
    let what = match entry.payload {
        EntryPayload::Blank => What::Blank,
        EntryPayload::Normal(Payload(bytes)) => {
            let proposal = Proposal::decode(bytes.slice(1..)).map_err(|error| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("log entry {}: {error}", entry.log_id.index),
                )
            })?;
            What::Proposal(Box::new(proposal))
        }
        EntryPayload::Membership(membership) => What::Membership(membership),
    };
    Ok(Decoded { log_id: entry.log_id, what })
}

impl StateMachine {
    /// Applies entries read straight from the log, before openraft runs.
    pub(crate) fn replay(&mut self, entries: Vec<RaftEntry>) -> io::Result<()> {
        for batch in entries.chunks(BATCH_ENTRIES_MAX) {
            let batch = batch.iter().cloned().map(decoded).collect::<io::Result<Vec<_>>>()?;
            self.apply_batch(batch)?;
        }
        Ok(())
    }

    fn apply_batch(&mut self, batch: Vec<Decoded>) -> io::Result<()> {
        let mut outcomes = Vec::new();
        let mut next = None;
        self.state.change(|core| {
            for entry in batch {
                let applied = self.apply_entry(core, &entry)?;
                core.position.applied = Some(entry.log_id);
                next = Some(entry.log_id.index + 1);
                if let (Some(applied), What::Proposal(proposal)) = (applied, &entry.what)
                    && proposal.member == self.member_id
                {
                    outcomes.push((proposal.id, applied));
                }
            }
            self.flusher.nudge(core.store.unflushed_size_bytes());
            Ok::<(), io::Error>(())
        })?;
        if let Some(next) = next {
            self.log.applied(next);
        }
        self.state.announce();
        if planted::is(Bug::AnswersSwapped) && outcomes.len() > 1 {
            let mut ids: Vec<u64> = outcomes.iter().map(|(id, _)| *id).collect();
            ids.rotate_left(1);
            outcomes.iter_mut().zip(ids).for_each(|(outcome, id)| outcome.0 = id);
        }
        if planted::is(Bug::AnswerLost) && outcomes.len() > 1 {
            outcomes.pop();
        }
        for (id, applied) in outcomes {
            self.waiters.complete(id, Outcome::Applied(applied));
        }
        Ok(())
    }

    fn apply_entry(&self, core: &mut Core, entry: &Decoded) -> io::Result<Option<Applied>> {
        match &entry.what {
            What::Blank => Ok(None),
            What::Proposal(proposal) => {
                let term = match &proposal.command {
                    Command::LeaseExpire(expire) if planted::is(Bug::ExpireAnyTerm) => expire.term,
                    _ => entry.log_id.leader_id.term,
                };
                let begin = Instant::now();
                // Only who waits sees the answer: at a replay and on the other members its reads would be for nobody.
                let heard = proposal.member == self.member_id && self.waiters.waits(proposal.id);
                let applied = if heard {
                    core.store.apply(core.file.as_ref(), term, proposal)
                } else {
                    core.store.apply_unheard(core.file.as_ref(), term, proposal)
                };
                let took = begin.elapsed();
                if took > self.slow_apply {
                    self.counters.applied.slow.fetch_add(1, Ordering::Relaxed);
                    slow_apply::warn(took, self.slow_apply, &proposal.command, &applied);
                }
                if let Err(ApplyError::Records(error)) = &applied.result {
                    self.fatal.set(FatalReason::StateFile(error.to_string()));
                    return Err(io::Error::other(error.to_string()));
                }
                self.leases.observe(&proposal.command, &applied);
                self.counters.applied.count(&proposal.command, &applied, took);
                Ok(Some(applied))
            }
            What::Membership(membership) => {
                let before: Vec<u64> = core.position.membership.nodes().map(|(id, _)| *id).collect();
                for id in before {
                    if membership.get_node(&id).is_none() && !core.position.removed.contains(&id) {
                        core.position.removed.push(id);
                    }
                }
                // Only `--force-new-cluster` names a member that was removed.
                core.position.removed.retain(|id| membership.get_node(id).is_none());
                core.position.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                Ok(None)
            }
        }
    }

    fn install(&mut self, prepared: Prepared) -> io::Result<()> {
        let Prepared { mut store, position, file, synced_in: _ } = prepared;
        let target = self.data_dir.state_file();
        let next = next_index(position.applied.as_ref());
        let (before, term) =
            (self.state.applied_next().saturating_sub(1), position.applied.map(|id| id.leader_id.term));
        let directory = target.parent().unwrap_or(&target);
        self.state.change(|core| {
            if planted::is(Bug::StateRemovedFirst) {
                self.disk.remove(&target)?;
                self.disk.sync_directory(directory)?;
            }
            self.disk.rename(file.path(), &target)?;
            if !planted::is(Bug::InstallNotSynced) {
                self.disk.sync_directory(directory)?;
            }
            store.succeed(&core.store);
            *core = Core { store, position, file: Arc::new(file.renamed(target.clone())) };
            Ok::<(), io::Error>(())
        })?;
        self.log.applied(next);
        self.state.durable(next);
        self.state.announce_install();
        tracing::info!(
            "current-applied-index" = before,
            "incoming-leader-snapshot-index" = next.saturating_sub(1),
            "incoming-leader-snapshot-term" = term.unwrap_or(0),
            "applied snapshot"
        );
        Ok(())
    }

    fn current_snapshot(&self) -> io::Result<Option<SnapshotOf>> {
        let file = self.state.with_core(|core| core.file.clone());
        let view = file.view().map_err(io::Error::other)?;
        if view.position.applied.is_none() {
            return Ok(None);
        }
        let meta = SnapshotMeta {
            last_log_id: view.position.applied,
            last_membership: view.position.membership.clone(),
        };
        Ok(Some(Snapshot { meta, snapshot: SnapshotBody::Outgoing(view) }))
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotBody;
    type SnapshotBuilder = StateMachine;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let position = self.state.position();
        Ok((position.applied, position.membership))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<(RaftEntry, Option<ApplyResponder<TypeConfig>>), io::Error>>
            + Unpin
            + OptionalSend,
    {
        let mut responders = Vec::new();
        loop {
            let mut batch = Vec::new();
            while batch.len() < BATCH_ENTRIES_MAX {
                let Some(item) = entries.next().await else { break };
                let (entry, responder) = item?;
                batch.push(decoded(entry)?);
                responders.extend(responder);
            }
            let last = batch.len() < BATCH_ENTRIES_MAX;
            if !batch.is_empty() {
                self.apply_batch(batch)?;
            }
            for responder in responders.drain(..) {
                responder.send(());
            }
            if last {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    }

    async fn get_snapshot_builder(&mut self) -> StateMachine {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMeta,
        snapshot: SnapshotBody,
    ) -> Result<(), io::Error> {
        match snapshot {
            SnapshotBody::Incoming(prepared) => {
                self.log.truncated().await;
                let result = self.install(*prepared);
                if let Err(error) = &result {
                    self.fatal.set(FatalReason::StateFile(format!("install snapshot: {error}")));
                }
                result
            }
            // Our own view at start: the state already is what the view says.
            SnapshotBody::Outgoing(_) => Ok(()),
        }
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf>, io::Error> {
        self.current_snapshot()
    }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotBody;

    /// Nothing is built: the state file at its applied index is the snapshot.
    async fn build_snapshot(&mut self) -> Result<SnapshotOf, io::Error> {
        self.current_snapshot()?.ok_or_else(|| io::Error::other("nothing is applied yet"))
    }
}
