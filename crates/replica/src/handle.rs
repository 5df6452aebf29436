//! What the rest of the process does with a member.

mod leading;
mod proposals;

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mvcc::{Applied, Caller, Command, HashKv, RangeError, Records, Store};
use openraft::async_runtime::watch::WatchReceiver;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::codec::{Answer, Description, MembershipChange, Question, Standing};
use crate::config::{Config, Member};
use crate::data_dir::{DataDir, Identity};
use crate::fatal::{Fatal, FatalReason};
use crate::flusher::{FlushError, Flusher, FlusherHandle};
use crate::leadership::{Contact, Leadership};
use crate::leases::{LeaseRemaining, Leases};
use crate::log_owner::LogOwner;
use crate::log_store::{LogStore, LogView};
use crate::membership::MembershipError;
use crate::metrics::{Counters, Metrics};
use crate::peers::Peers;
use crate::planted::{self, Bug};
use crate::propose::{Forwarder, ProposeError};
use crate::quarantine::{Floor, Reason};
use crate::raft_types::Membership;
use crate::read_index::{ReadError, ReadIndex};
use crate::state::State;
use crate::waiters::Waiters;
use crate::{Raft, ids};

/// A running member. Clones are the same member.
#[derive(Clone)]
pub struct Handle {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub config: Config,
    pub identity: Identity,
    pub raft: Raft,
    pub state: Arc<State>,
    pub waiters: Arc<Waiters>,
    pub leases: Arc<Leases>,
    pub log: LogStore,
    pub log_owner: LogOwner,
    pub peers: Arc<Peers>,
    pub flusher: Flusher,
    pub flusher_handle: FlusherHandle,
    pub data_dir: Arc<DataDir>,
    pub leadership: watch::Receiver<Leadership>,
    pub read_index: ReadIndex,
    pub forwarder: Forwarder,
    pub contact: Arc<Contact>,
    pub counters: Arc<Counters>,
    pub fatal: Fatal,
    /// Why it was quarantined when it started.
    pub quarantine: Option<Reason>,
    pub quarantined: AtomicBool,
    pub floor: Arc<Floor>,
    /// Removed already, although what removes them may not be applied yet.
    pub left_behind: BTreeSet<u64>,
    pub incoming_snapshot: Arc<tokio::sync::Mutex<()>>,
    pub shutdown: CancellationToken,
    /// Set by whoever stops the member first.
    pub stopping: Mutex<Option<watch::Receiver<bool>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    #[error("no leader")]
    NoLeader,
    #[error("request timed out")]
    Timeout { waited: Duration },
    #[error("server stopped")]
    Stopped,
}

#[derive(Clone, Debug)]
pub struct Status {
    pub identity: Identity,
    pub leader: Option<u64>,
    pub term: u64,
    /// Highest index that this member knows to be committed.
    pub raft_index: u64,
    pub applied_index: u64,
    pub is_learner: bool,
    pub is_leader: bool,
    pub revision: i64,
    /// The key space's own accounting, what etcd calls the database size; not the size of a file.
    pub size_bytes: u64,
    pub size_in_use_bytes: u64,
    pub size_on_disk_bytes: u64,
    /// The member gives no votes until a leader has re-sent what it may have lost.
    pub quarantined: bool,
    /// Highest index that is durable in the state file.
    pub snapshot_index: u64,
    /// Highest index that was cut from the log.
    pub purged_index: u64,
}

impl Handle {
    pub fn identity(&self) -> Identity {
        self.inner.identity
    }

    /// What its log holds, with at most `newest_max` of the entries that memory has.
    pub fn log(&self, newest_max: usize) -> LogView {
        self.inner.log.view(newest_max)
    }

    /// Waits until the command is applied on this member. Any member takes any command.
    pub async fn propose(&self, caller: Caller, command: Command) -> Result<Applied, ProposeError> {
        self.inner.propose(caller, command).await
    }

    /// The same for a caller that has waited already: not longer than until `deadline`.
    pub async fn propose_by(
        &self,
        caller: Caller,
        command: Command,
        deadline: tokio::time::Instant,
    ) -> Result<Applied, ProposeError> {
        self.inner.propose_by(caller, command, deadline).await
    }

    /// After this, `read` sees everything that was acknowledged anywhere before the call.
    pub async fn read_barrier(&self) -> Result<(), ReadError> {
        let inner = &self.inner;
        match inner.read_index.index(true, inner.config.request_timeout).await {
            Ok(_) => Ok(()),
            Err(ReadError::Timeout { .. }) if inner.leadership.borrow().leader.is_none() => {
                Err(ReadError::NoLeader)
            }
            Err(error) => Err(error),
        }
    }

    /// The state as it is now on this member. Apply waits meanwhile, so keep it short.
    pub fn read<T>(&self, f: impl FnOnce(&Store, &dyn Records) -> T) -> T {
        self.inner.state.read(f)
    }

    /// Moves after the events up to a revision are readable, and after a snapshot was installed.
    pub fn revision_watch(&self) -> watch::Receiver<i64> {
        self.inner.state.revision_watch()
    }

    /// Highest index that is applied here.
    pub fn applied_index(&self) -> u64 {
        self.inner.state.applied_next().saturating_sub(1)
    }

    /// Resolves when everything up to `index` is applied here, which may be never.
    pub async fn applied(&self, index: u64) {
        let mut applied = self.inner.state.applied_watch();
        if applied.wait_for(|next| *next > index).await.is_err() {
            // The member is gone; so is whoever asked, soon.
            std::future::pending::<()>().await;
        }
    }

    /// Gives a lease its full time again; answers its granted time. `None`: there is no such lease.
    pub async fn lease_renew(&self, id: i64) -> Result<Option<i64>, LeaseError> {
        let answer = self.inner.lease(&Question::LeaseRenew { id }).await?;
        Ok(answer.map(|lease| lease.granted_ttl_s))
    }

    /// By the leader's clock. `None`: there is no such lease.
    pub async fn lease_remaining(&self, id: i64) -> Result<Option<LeaseRemaining>, LeaseError> {
        self.inner.lease(&Question::LeaseRemaining { id }).await
    }

    pub fn status(&self) -> Status {
        self.inner.status()
    }

    /// Whether its directory was empty when it started and the cluster cannot count on it yet: until then it is as good as
    /// not there, and no other member should go.
    pub fn is_new_here(&self) -> bool {
        let reason = self.inner.quarantine;
        self.inner.is_quarantined() && matches!(reason, Some(Reason::FirstStart | Reason::Emptied))
    }

    /// Cheap enough to be asked for each request, unlike `status`.
    pub fn is_learner(&self) -> bool {
        self.inner.is_learner()
    }

    /// The local view: applied membership with what members published, by id.
    pub fn members(&self) -> Vec<Member> {
        self.inner.members()
    }

    /// The sets of voters of which each decides by majority, by the newest membership in this member's log: two while
    /// one follows on the other, otherwise one.
    pub fn voters(&self) -> Vec<BTreeSet<u64>> {
        let metrics = self.inner.raft.metrics();
        metrics.borrow_watched().membership_config.membership().get_joint_config().clone()
    }

    /// The new member and the list with it.
    pub async fn add_member(
        &self,
        peer_urls: Vec<String>,
        is_learner: bool,
    ) -> Result<(Member, Vec<Member>), MembershipError> {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let id = ids::member_id(&peer_urls, "", Some(i64::try_from(now_s).unwrap_or(i64::MAX)));
        let members = self.change(MembershipChange::Add { id, peer_urls, is_learner }).await?;
        let member =
            members.iter().find(|member| member.id == id).cloned().ok_or(MembershipError::MemberNotFound)?;
        Ok((member, members))
    }

    pub async fn promote_member(&self, id: u64) -> Result<Vec<Member>, MembershipError> {
        self.change(MembershipChange::Promote { id }).await
    }

    pub async fn remove_member(&self, id: u64) -> Result<Vec<Member>, MembershipError> {
        self.change(MembershipChange::Remove { id }).await
    }

    pub async fn update_member(
        &self,
        id: u64,
        peer_urls: Vec<String>,
    ) -> Result<Vec<Member>, MembershipError> {
        self.change(MembershipChange::Update { id, peer_urls }).await
    }

    async fn change(&self, change: MembershipChange) -> Result<Vec<Member>, MembershipError> {
        self.inner.change_members_anywhere(change).await?;
        Ok(self.inner.members())
    }

    /// Only on the leader.
    pub async fn move_leader(&self, to: u64) -> Result<(), MembershipError> {
        let inner = &self.inner;
        if !inner.leads() {
            return Err(MembershipError::NotLeader);
        }
        let voter = inner.raft.metrics().borrow_watched().membership_config.voter_ids().any(|id| id == to);
        if !voter {
            return Err(MembershipError::BadTransferee);
        }
        if to == inner.identity.member_id {
            return Ok(());
        }
        if inner.transfer(to, inner.config.request_timeout).await {
            return Ok(());
        }
        // The leader takes no more writes once it has begun to hand over: then somebody who is there must have it.
        if inner.leads()
            && let Some(other) = inner.best_successor().await
        {
            let timeout = Duration::from_millis(inner.config.election_timeout_ms);
            tracing::warn!(
                to = format!("{other:x}"),
                "the asked successor did not take over, another one is told"
            );
            inner.transfer(other, timeout).await;
        }
        Err(MembershipError::LeaderTransferTimeout)
    }

    pub fn leader_watch(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.clone()
    }

    /// Resolves when the member must end: its disk failed, Raft gave up, or it was removed.
    pub fn fatal(&self) -> impl Future<Output = FatalReason> + Send + use<> {
        let fatal = self.inner.fatal.clone();
        async move { fatal.wait().await }
    }

    /// Hands leadership to the member that is most up to date, then stops.
    pub async fn transfer_leadership_and_stop(&self) {
        if self.inner.leads()
            && let Some(to) = self.inner.best_successor().await
        {
            let timeout = Duration::from_millis(self.inner.config.election_timeout_ms);
            if !self.inner.transfer(to, timeout).await {
                tracing::warn!("leadership was not transferred in time");
            }
        }
        self.stop().await;
    }

    /// Stops and leaves everything that is applied in the state file.
    pub async fn stop(&self) {
        Inner::stop(&self.inner, true).await;
    }

    /// Stops without writing anything more: what a crash of the process leaves behind.
    pub async fn kill(&self) {
        Inner::stop(&self.inner, false).await;
    }

    pub fn metrics(&self) -> Metrics {
        self.inner.metrics()
    }

    /// Checksum of the records up to a revision (0: the current one), taken in steps, so that a big store goes
    /// on meanwhile.
    pub async fn hash_kv(&self, revision: i64) -> Result<HashKv, RangeError> {
        self.inner.state.hash_kv(revision).await
    }

    /// Everything applied so far is in the state file, fsynced.
    pub async fn flush(&self) -> Result<(), FlushError> {
        self.inner.flusher_handle.flush().await
    }
}

impl Inner {
    pub(crate) fn leads(&self) -> bool {
        self.leadership.borrow().leader == Some(self.identity.member_id)
    }

    pub(crate) fn is_quarantined(&self) -> bool {
        self.quarantined.load(Ordering::Relaxed) && !planted::is(Bug::QuarantineIgnored)
    }

    /// To clients: a member that was added as a voter is none, even while it catches up.
    fn is_learner(&self) -> bool {
        let me = self.identity.member_id;
        let judge = |membership: &Membership| {
            let votes = membership.get_joint_config().iter().any(|set| set.contains(&me));
            !votes && !membership.get_node(&me).is_some_and(|node| node.joining)
        };
        let applied = self.state.with_core(|core| {
            core.position.applied.is_some().then(|| judge(core.position.membership.membership()))
        });
        applied.unwrap_or_else(|| judge(self.raft.metrics().borrow_watched().membership_config.membership()))
    }

    pub(crate) fn describe(&self) -> Answer {
        Answer::Description(Description {
            cluster_id: self.identity.cluster_id,
            member_id: self.identity.member_id,
            leader: self.leadership.borrow().leader,
            members: self.members().into_iter().map(Into::into).collect(),
            term: self.floor.term().map(|floor| floor.max(self.log.view(0).vote_term)),
            last_index: self.last_index(),
            standing: self.standing(),
        })
    }

    /// Of the log or the state, whichever is further.
    pub(crate) fn last_index(&self) -> u64 {
        let logged = self.log.view(0).last.map_or(0, |(_, index)| index);
        logged.max(self.state.applied_next().saturating_sub(1))
    }

    fn standing(&self) -> Standing {
        match self.quarantine {
            Some(_) if !self.is_quarantined() => Standing::Votes,
            None => Standing::Votes,
            Some(Reason::FirstStart) if self.last_index() == 0 => Standing::FirstStart,
            Some(_) => Standing::Quarantined,
        }
    }

    fn status(&self) -> Status {
        let leadership = *self.leadership.borrow();
        let member_id = self.identity.member_id;
        let previous = |next: u64| next.saturating_sub(1);
        let is_learner = self.is_learner();
        self.state.with_core(|core| Status {
            identity: self.identity,
            leader: leadership.leader,
            term: leadership.term,
            raft_index: self
                .log
                .committed()
                .map_or(0, |id| id.index)
                .max(previous(self.state.applied_next())),
            applied_index: previous(self.state.applied_next()),
            is_learner,
            is_leader: leadership.leader == Some(member_id),
            revision: core.store.revision(),
            size_bytes: core.store.size_bytes_allocated(),
            size_in_use_bytes: core.store.size_bytes_in_use(),
            size_on_disk_bytes: core.file.size_on_disk_bytes(),
            quarantined: self.is_quarantined(),
            snapshot_index: previous(self.state.durable_next()),
            purged_index: self.log.purged().map_or(0, |id| id.index),
        })
    }

    fn metrics(&self) -> Metrics {
        let status = self.status();
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let flusher = &self.flusher_handle.counters;
        Metrics {
            leader_changes: load(&self.counters.leader_changes),
            has_leader: status.leader.is_some(),
            is_leader: status.is_leader,
            is_learner: status.is_learner,
            proposals_pending: self.waiters.waiting() as u64,
            proposals_committed: status.raft_index,
            proposals_applied: status.applied_index,
            proposals_failed: load(&self.waiters.failed),
            slow_read_indexes: load(&self.counters.slow_read_indexes),
            read_indexes_failed: load(&self.counters.read_indexes_failed),
            snapshots_sent: load(&self.counters.snapshots_sent),
            snapshots_received: load(&self.counters.snapshots_received),
            heartbeats_answered_early: load(&self.counters.heartbeats_answered_early),
            log_purges: load(&self.counters.log_purges),
            corruption_checks_passed: load(&self.counters.corruption_checks.passed),
            corruption_checks_failed: load(&self.counters.corruption_checks.failed),
            corruption_checks_incomplete: load(&self.counters.corruption_checks.incomplete),
            wal: self.log.wal().metrics(),
            applied: self.counters.applied.metrics(),
            peers: self.peers.meters.metrics(),
            snapshots_being_sent: load(&self.counters.snapshots_being_sent),
            snapshots_being_received: load(&self.counters.snapshots_being_received),
            snapshot_send: self.counters.snapshot_send.durations(),
            snapshot_receive: self.counters.snapshot_receive.durations(),
            snapshot_sync: self.counters.snapshot_sync.durations(),
            state_commit: flusher.commit.durations(),
            state_durable_commit: flusher.durable_commit.durations(),
            state_rows: load(&flusher.rows),
            compaction: flusher.compaction.metrics(),
            state_damage_found: self.state.damage.found(),
            scrub_passes: load(&flusher.scrub.passes),
            scrub_size_bytes: load(&flusher.scrub.size_bytes),
            unflushed_size_bytes: self.state.with_core(|core| core.store.unflushed_size_bytes()) as u64,
        }
    }

    /// Only one caller does the work; the others wait for it.
    async fn stop(inner: &Arc<Inner>, flush: bool) {
        let (sender, mut done) = watch::channel(false);
        let first = {
            let mut stopping = inner.stopping.lock();
            match stopping.as_ref() {
                Some(other) => {
                    done = other.clone();
                    false
                }
                None => {
                    *stopping = Some(done.clone());
                    true
                }
            }
        };
        if !first {
            // An error means that the other caller was dropped in between; there is nothing to wait for then.
            let _ = done.wait_for(|done| *done).await;
            return;
        }
        inner.shutdown.cancel();
        if inner.raft.shutdown().await.is_err() {
            tracing::warn!("raft ended badly");
        }
        inner.waiters.stop();
        inner.flusher.stop(flush).await;
        let blocking = inner.clone();
        let stopped = inner.config.surroundings.blocking(move || {
            blocking.log.wal().close();
            blocking.state.with_core(|core| core.file.close());
        });
        if stopped.await.is_err() {
            tracing::error!("stopping the disk threads panicked");
        }
        inner.log_owner.ended().await;
        inner.data_dir.unlock();
        sender.send_replace(true);
    }
}
