//! What only the leader can do: lease time, member changes, handing over. Other members ask it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use mvcc::{Caller, Command, LeaseCheckpoint, LeaseExpire, LeaseRemaining as LeaseCheckpointed};
use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Inner, LeaseError};
use crate::codec::{Answer, MembershipChange, Question, Standing};
use crate::leases::{LeaseRemaining, ROUND_INTERVAL, Renewal, Renewed};
use crate::membership::MembershipError;
use crate::node_of;
use crate::peers::AskError;
use crate::propose::ProposeError;
use crate::read_index::ReadError;

/// Between two attempts to find a leader that answers.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// How long a successor may take before it is told again.
const TRANSFER_RETRY: Duration = Duration::from_millis(300);

impl Inner {
    /// Asks the leader, wherever it is, until one answers or the request's time is over.
    pub(crate) async fn lease(&self, question: &Question) -> Result<Option<LeaseRemaining>, LeaseError> {
        let timeout = self.config.request_timeout;
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline {
            let leader = self.leadership.borrow().leader;
            match leader {
                Some(id) if id == self.identity.member_id => match self.lease_here(question).await {
                    Err(LeaseError::NoLeader) => {}
                    answer => return answer,
                },
                Some(id) => {
                    if let Ok(Answer::Lease(lease)) = self.ask(id, question, deadline).await {
                        return Ok(lease.map(|(granted_ttl_s, remaining_s)| LeaseRemaining {
                            granted_ttl_s,
                            remaining_s,
                        }));
                    }
                }
                None => {}
            }
            if self.shutdown.is_cancelled() {
                return Err(LeaseError::Stopped);
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        if self.leadership.borrow().leader.is_none() {
            return Err(LeaseError::NoLeader);
        }
        Err(LeaseError::Timeout { waited: timeout })
    }

    /// Confirms that this member still leads: a deposed leader must not promise time.
    async fn confirm_lead(&self) -> Result<(), LeaseError> {
        let timeout = self.config.request_timeout;
        let confirmed = self.read_index.index(true, timeout).await;
        confirmed.map(drop).map_err(|error| match error {
            ReadError::Stopped => LeaseError::Stopped,
            ReadError::NoLeader | ReadError::LeaderChanged => LeaseError::NoLeader,
            ReadError::Timeout { .. } | ReadError::TooManyRequests => LeaseError::Timeout { waited: timeout },
        })
    }

    /// Full time again for the lease. One whose time is over may yet begin anew on another leader, so until it is gone
    /// nobody is told that it is.
    async fn renew_here(&self, id: i64) -> Result<Option<LeaseRemaining>, LeaseError> {
        let timeout = self.config.request_timeout;
        let deadline = Instant::now() + timeout;
        loop {
            self.confirm_lead().await?;
            let mut changed = pin!(self.leases.changed.notified());
            changed.as_mut().enable();
            match self.leases.renew(id).map_err(|_| LeaseError::NoLeader)? {
                Renewal::Unknown => return Ok(None),
                Renewal::Renewed(Renewed { ttl_s, was_checkpointed }) => {
                    if was_checkpointed {
                        self.void_checkpoint(id).await?;
                    }
                    return Ok(Some(LeaseRemaining { granted_ttl_s: ttl_s, remaining_s: ttl_s }));
                }
                Renewal::Over => {}
            }
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(deadline) => return Err(LeaseError::Timeout { waited: timeout }),
                () = self.shutdown.cancelled() => return Err(LeaseError::Stopped),
            }
        }
    }

    pub(crate) async fn lease_here(&self, question: &Question) -> Result<Option<LeaseRemaining>, LeaseError> {
        if !self.leads() {
            return Err(LeaseError::NoLeader);
        }
        match question {
            Question::LeaseRenew { id } => self.renew_here(*id).await,
            Question::LeaseRemaining { id } => {
                self.confirm_lead().await?;
                self.leases.remaining(*id).map_err(|_| LeaseError::NoLeader)
            }
            Question::WhoAreYou | Question::Membership(_) | Question::HashKv { .. } => Ok(None),
        }
    }

    /// After this a new leader gives the lease its full time again.
    async fn void_checkpoint(&self, id: i64) -> Result<(), LeaseError> {
        let leases = vec![LeaseCheckpointed { id, remaining_s: 0 }];
        let command = Command::LeaseCheckpoint(LeaseCheckpoint { leases });
        let (handed_over, before) = {
            let _in_order = self.leases.checkpointing.lock().await;
            let before = self.leases.handed_over();
            (self.hand_over_here(command).await, before)
        };
        let applied = match handed_over {
            Ok(handed_over) => handed_over.applied().await,
            Err(error) => Err(error),
        };
        match applied {
            Ok(_) => {
                self.leases.voided(id, before);
                Ok(())
            }
            Err(ProposeError::NoLeader) => Err(LeaseError::NoLeader),
            Err(ProposeError::Stopped) => Err(LeaseError::Stopped),
            Err(
                ProposeError::OutcomeUnknown { .. }
                | ProposeError::TooManyRequests
                | ProposeError::TooLarge { .. },
            ) => Err(LeaseError::Timeout { waited: self.config.request_timeout }),
        }
    }

    async fn checkpoint_leases(&self) {
        let handed_over = {
            let _in_order = self.leases.checkpointing.lock().await;
            let leases = self.leases.due_checkpoints();
            if leases.is_empty() {
                return;
            }
            self.hand_over_here(Command::LeaseCheckpoint(LeaseCheckpoint { leases })).await
        };
        let applied = match handed_over {
            Ok(handed_over) => handed_over.applied().await,
            Err(error) => Err(error),
        };
        if let Err(error) = applied {
            tracing::warn!(%error, "checkpoint leases");
        }
    }

    pub(crate) async fn ask(
        &self,
        id: u64,
        question: &Question,
        deadline: Instant,
    ) -> Result<Answer, AskError> {
        let node = node_of(&self.raft, id).ok_or(AskError::TimedOut)?;
        self.peers.ask(id, &node, question, deadline.saturating_duration_since(Instant::now())).await
    }

    pub(crate) async fn change_members_anywhere(
        &self,
        change: MembershipChange,
    ) -> Result<(), MembershipError> {
        let timeout = self.config.request_timeout;
        let deadline = Instant::now() + timeout;
        let question = Question::Membership(change.clone());
        loop {
            let leader = match self.known_leader(deadline).await {
                Some(Ok(leader)) => leader,
                Some(Err(())) => return Err(MembershipError::Stopped),
                None => return Err(MembershipError::NoLeader),
            };
            let result = if leader == self.identity.member_id {
                self.change_members(&change).await
            } else {
                match self.ask(leader, &question, deadline).await {
                    Ok(Answer::Changed { index }) => Ok(index),
                    Ok(Answer::Refused(error)) => Err(error),
                    Ok(Answer::NotLeader) => Err(MembershipError::NotLeader),
                    Ok(_) | Err(AskError::TimedOut) => Err(MembershipError::Timeout { waited: timeout }),
                    Err(AskError::Link(_) | AskError::Refused(_) | AskError::Codec(_)) => {
                        Err(MembershipError::NotLeader)
                    }
                }
            };
            match result {
                Ok(index) => {
                    let mut applied = self.state.applied_watch();
                    let applied =
                        tokio::time::timeout_at(deadline, applied.wait_for(|next| *next > index)).await;
                    return applied.map(|_| ()).map_err(|_| MembershipError::Timeout { waited: timeout });
                }
                Err(MembershipError::NotLeader) if Instant::now() < deadline => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                // A leader is known, but none took the change in time.
                Err(MembershipError::NotLeader) => return Err(MembershipError::Timeout { waited: timeout }),
                Err(error) => return Err(error),
            }
        }
    }

    /// openraft tells the successor once, and refuses writes from then on; a message that got lost would leave a leader
    /// that takes nothing. So the successor is told again until somebody else leads. One in quarantine is waited for
    /// first: it would not take over, and needs a write to get its vote back.
    pub(crate) async fn transfer(&self, to: u64, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        while self.is_in_quarantine(to).await {
            if Instant::now() + TRANSFER_RETRY >= deadline {
                return false;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        let me = self.identity.member_id;
        let mut leadership = self.leadership.clone();
        while Instant::now() < deadline {
            if self.raft.trigger().transfer_leader(to).await.is_err() {
                return false;
            }
            let moved = leadership.wait_for(|now| now.leader.is_some_and(|leader| leader != me));
            let round = deadline.min(Instant::now() + TRANSFER_RETRY);
            match tokio::time::timeout_at(round, moved).await {
                Ok(Ok(now)) => return now.leader == Some(to),
                Ok(Err(_)) => return false,
                Err(_) => {}
            }
        }
        false
    }

    /// As far as it says so itself.
    async fn is_in_quarantine(&self, id: u64) -> bool {
        let answer = self.ask(id, &Question::WhoAreYou, Instant::now() + TRANSFER_RETRY).await;
        matches!(answer, Ok(Answer::Description(said)) if said.standing != Standing::Votes)
    }

    /// One in quarantine only if there is nobody else: it would have to be waited for.
    pub(crate) async fn best_successor(&self) -> Option<u64> {
        let successors = self.successors();
        for id in &successors {
            if !self.is_in_quarantine(*id).await {
                return Some(*id);
            }
        }
        successors.first().copied()
    }

    /// The voters that are not known to be silent, those with most of the log first. A leader that has only just been
    /// elected has heard from nobody yet.
    fn successors(&self) -> Vec<u64> {
        let receiver = self.raft.metrics();
        let metrics = receiver.borrow_watched();
        let patience = Duration::from_millis(self.config.election_timeout_ms);
        let heard_at = |id: &u64| metrics.heartbeat.as_ref()?.get(id).cloned().flatten();
        let silent = |id: &u64| heard_at(id).is_some_and(|at| at.into_inner().elapsed() > patience);
        let matched =
            |id: &u64| metrics.replication.as_ref().and_then(|progress| progress.get(id).copied().flatten());
        let voters = metrics.membership_config.voter_ids();
        let mut successors: Vec<u64> =
            voters.filter(|id| *id != self.identity.member_id && !silent(id)).collect();
        successors.sort_by_key(|id| std::cmp::Reverse((heard_at(id).is_some(), matched(id))));
        successors
    }

    /// Proposes the expiry of leases whose time is over, while this member leads.
    pub(crate) async fn expire_leases(self: Arc<Self>, shutdown: CancellationToken) {
        let mut round = tokio::time::interval(ROUND_INTERVAL);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = round.tick() => {}
            }
            let leadership = *self.leadership.borrow();
            if leadership.leader != Some(self.identity.member_id) {
                continue;
            }
            if self.config.lease_checkpoint_interval.is_some() {
                self.checkpoint_leases().await;
            }
            let ids = self.leases.expired();
            if ids.is_empty() {
                continue;
            }
            let command = Command::LeaseExpire(LeaseExpire { ids, term: leadership.term });
            if let Err(error) = self.propose(Caller::System, command).await {
                tracing::warn!(%error, "expire leases");
            }
        }
    }
}
