//! Changes of the member list, with etcd's refusals.
//!
//! A member that is added as a voter enters Raft as a learner that is marked `joining` and becomes a voter on its own
//! once it has caught up: a member that was added and does not start can so never cost the cluster its quorum. To
//! clients it is a voter from the start, as in etcd.
//! Invariant: only the leader changes members; other members hand the question on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{ChangeMembers, Instant};

use crate::codec::MembershipChange;
use crate::config::Member;
use crate::handle::Inner;
use crate::raft_types::Node;

/// Display is etcd's text, without its `etcdserver: ` prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, bincode::Encode, bincode::Decode)]
pub enum MembershipError {
    #[error("member not found")]
    MemberNotFound,
    #[error("member ID already exist")]
    MemberIdExists,
    #[error("Peer URLs already exists")]
    PeerUrlExists,
    #[error("given member URLs are invalid")]
    InvalidUrls,
    #[error("can only promote a learner member which is in sync with leader")]
    LearnerNotReady,
    #[error("can only promote a learner member")]
    MemberNotLearner,
    #[error("too many learner members in cluster")]
    TooManyLearners,
    #[error("re-configuration failed due to not enough started members")]
    NotEnoughStartedMembers,
    #[error("unhealthy cluster")]
    Unhealthy,
    #[error("not leader")]
    NotLeader,
    #[error("bad leader transferee")]
    BadTransferee,
    #[error("request timed out, leader transfer took too long")]
    LeaderTransferTimeout,
    /// Another change is not committed yet.
    #[error("another member change is in progress")]
    InProgress,
    #[error("no leader")]
    NoLeader,
    #[error("request timed out")]
    Timeout { waited: Duration },
    #[error("server stopped")]
    Stopped,
}

/// Contact within this time counts as connected. Source: etcd server/etcdserver/server.go `HealthInterval`.
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);
const IN_PROGRESS_RETRY: Duration = Duration::from_millis(50);
const READY_PERCENT: u64 = 90;

impl Inner {
    /// The local view: applied membership with published names and URLs, by id.
    pub(crate) fn members(&self) -> Vec<Member> {
        let logged = self.raft.metrics().borrow_watched().membership_config.clone();
        self.state.with_core(|core| {
            let applied = core.position.membership.membership();
            // A new cluster knows its members before it has applied anything.
            let membership = if core.position.applied.is_none() { logged.membership() } else { applied };
            let voters: BTreeSet<u64> = membership.voter_ids().collect();
            let member = |(id, node): (&u64, &Node)| {
                let attributes = core.store.member_attributes(*id);
                Member {
                    id: *id,
                    name: attributes.map_or_else(|| node.name.clone(), |published| published.name.clone()),
                    peer_urls: node.peer_urls.clone(),
                    client_urls: attributes
                        .map(|published| published.client_urls.clone())
                        .unwrap_or_default(),
                    is_learner: !voters.contains(id) && !node.joining,
                }
            };
            membership.nodes().map(member).collect()
        })
    }

    /// Makes a change on this member, which must lead. Answers the index at which it is committed.
    pub(crate) async fn change_members(&self, change: &MembershipChange) -> Result<u64, MembershipError> {
        if self.leadership.borrow().leader != Some(self.identity.member_id) {
            return Err(MembershipError::NotLeader);
        }
        // What the checks look at must not be older than what was acknowledged.
        self.read_index
            .index(true, self.config.request_timeout)
            .await
            .map_err(|error| self.read_failed(&error))?;
        let (members, retain) = self.checked_change(change)?;
        let index = self.commit_change(members, retain).await?;
        if let MembershipChange::Remove { id } = change {
            self.peers.forget(*id);
        }
        Ok(index)
    }

    fn read_failed(&self, error: &crate::ReadError) -> MembershipError {
        match error {
            crate::ReadError::NoLeader | crate::ReadError::LeaderChanged => MembershipError::NoLeader,
            crate::ReadError::Timeout { waited } => MembershipError::Timeout { waited: *waited },
            crate::ReadError::TooManyRequests => MembershipError::InProgress,
            crate::ReadError::Stopped => MembershipError::Stopped,
        }
    }

    /// What to ask of openraft; the second value: whether removed voters stay as learners.
    fn checked_change(
        &self,
        change: &MembershipChange,
    ) -> Result<(ChangeMembers<u64, Node>, bool), MembershipError> {
        let members = self.members();
        let (membership, removed) =
            self.state.with_core(|core| (core.position.membership.clone(), core.position.removed.clone()));
        let find =
            |id: &u64| members.iter().find(|member| member.id == *id).ok_or(MembershipError::MemberNotFound);
        match change {
            MembershipChange::Add { id, peer_urls, is_learner } => {
                self.check_urls(&members, peer_urls, None)?;
                if removed.contains(id) || members.iter().any(|member| member.id == *id) {
                    return Err(MembershipError::MemberIdExists);
                }
                if *is_learner {
                    if members.iter().filter(|member| member.is_learner).count() >= self.config.learners_max {
                        return Err(MembershipError::TooManyLearners);
                    }
                } else {
                    self.check_may_add(&members)?;
                }
                let node = Node { name: String::new(), peer_urls: peer_urls.clone(), joining: !is_learner };
                Ok((ChangeMembers::AddNodes(BTreeMap::from([(*id, node)])), true))
            }
            MembershipChange::Promote { id } => {
                if !find(id)?.is_learner {
                    return Err(MembershipError::MemberNotLearner);
                }
                if !self.is_caught_up(*id) {
                    return Err(MembershipError::LearnerNotReady);
                }
                Ok((ChangeMembers::AddVoterIds(BTreeSet::from([*id])), true))
            }
            MembershipChange::Remove { id } => {
                let member = find(id)?;
                if !member.is_learner {
                    self.check_may_remove(&members, *id)?;
                }
                let voter = membership.voter_ids().any(|voter| voter == *id);
                let set = BTreeSet::from([*id]);
                let members =
                    if voter { ChangeMembers::RemoveVoters(set) } else { ChangeMembers::RemoveNodes(set) };
                Ok((members, false))
            }
            MembershipChange::Update { id, peer_urls } => {
                find(id)?;
                self.check_urls(&members, peer_urls, Some(*id))?;
                let node = membership.get_node(id).cloned().ok_or(MembershipError::MemberNotFound)?;
                let node = Node { peer_urls: peer_urls.clone(), ..node };
                Ok((ChangeMembers::SetNodes(BTreeMap::from([(*id, node)])), true))
            }
        }
    }

    fn check_urls(
        &self,
        members: &[Member],
        urls: &[String],
        except: Option<u64>,
    ) -> Result<(), MembershipError> {
        let valid = |url: &String| {
            let file = url.strip_prefix("unix://").or_else(|| url.strip_prefix("unixs://"));
            if let Some(path) = file {
                return !path.is_empty();
            }
            url.parse::<http::Uri>().is_ok_and(|uri| {
                matches!(uri.scheme_str(), Some("http" | "https"))
                    && uri.host().is_some()
                    && uri.port_u16().is_some()
            })
        };
        if urls.is_empty() || !urls.iter().all(valid) {
            return Err(MembershipError::InvalidUrls);
        }
        let taken = members
            .iter()
            .filter(|member| Some(member.id) != except)
            .any(|member| member.peer_urls.iter().any(|url| urls.contains(url)));
        if taken { Err(MembershipError::PeerUrlExists) } else { Ok(()) }
    }

    /// Source: etcd server/etcdserver/server.go `mayAddMember`, membership/cluster.go `IsReadyToAddVotingMember`.
    fn check_may_add(&self, members: &[Member]) -> Result<(), MembershipError> {
        if !self.config.strict_reconfig_check {
            return Ok(());
        }
        let voting: Vec<&Member> = members.iter().filter(|member| !member.is_learner).collect();
        let started = voting.iter().filter(|member| !member.name.is_empty()).count();
        let quorum_after = voting.len().div_ceil(2) + 1;
        let first_addition = started == 1 && voting.len() == 1;
        if !first_addition && started < quorum_after {
            return Err(MembershipError::NotEnoughStartedMembers);
        }
        let connected = self.connected(voting.iter().map(|member| member.id));
        if connected < voting.len() { Err(MembershipError::Unhealthy) } else { Ok(()) }
    }

    /// Source: etcd server/etcdserver/server.go `mayRemoveMember`, membership/cluster.go `IsReadyToRemoveVotingMember`.
    fn check_may_remove(&self, members: &[Member], id: u64) -> Result<(), MembershipError> {
        if !self.config.strict_reconfig_check {
            return Ok(());
        }
        let left = || members.iter().filter(|member| !member.is_learner && member.id != id);
        let started = left().filter(|member| !member.name.is_empty()).count();
        if started < left().count() / 2 + 1 {
            return Err(MembershipError::NotEnoughStartedMembers);
        }
        if self.connected([id].into_iter()) == 0 {
            return Ok(());
        }
        let connected = self.connected(left().map(|member| member.id));
        if connected < left().count() / 2 + 1 { Err(MembershipError::Unhealthy) } else { Ok(()) }
    }

    /// How many of these were heard from lately, this member included.
    fn connected(&self, ids: impl Iterator<Item = u64>) -> usize {
        let receiver = self.raft.metrics();
        let metrics = receiver.borrow_watched();
        let heard = |id: u64| {
            id == self.identity.member_id
                || metrics
                    .heartbeat
                    .as_ref()
                    .and_then(|beats| beats.get(&id).cloned().flatten())
                    .is_some_and(|at| at.into_inner().elapsed() < HEALTH_INTERVAL)
        };
        ids.filter(|id| heard(*id)).count()
    }

    /// At least nine tenths of the leader's log. Source: etcd server/etcdserver/server.go `readyPercent`.
    fn is_caught_up(&self, id: u64) -> bool {
        let receiver = self.raft.metrics();
        let metrics = receiver.borrow_watched();
        let matched = metrics.replication.as_ref().and_then(|progress| progress.get(&id).copied().flatten());
        let last = metrics.last_log_index.unwrap_or(0);
        matched.is_some_and(|matched| matched.index.saturating_mul(100) >= last.saturating_mul(READY_PERCENT))
    }

    async fn commit_change(
        &self,
        members: ChangeMembers<u64, Node>,
        retain: bool,
    ) -> Result<u64, MembershipError> {
        let deadline = tokio::time::Instant::now() + self.config.request_timeout;
        loop {
            let timed_out = MembershipError::Timeout { waited: self.config.request_timeout };
            let attempt = self.raft.change_membership(members.clone(), retain);
            let result = tokio::time::timeout_at(deadline, attempt).await.map_err(|_| timed_out)?;
            let error = match result {
                Ok(response) => return Ok(response.log_id.index),
                Err(RaftError::Fatal(_)) => return Err(MembershipError::Stopped),
                Err(RaftError::APIError(error)) => error,
            };
            match error {
                ClientWriteError::ForwardToLeader(_) => return Err(MembershipError::NotLeader),
                ClientWriteError::LogEntryDiscarded(_) => {
                    return Err(MembershipError::Timeout { waited: self.config.request_timeout });
                }
                ClientWriteError::ChangeMembershipError(
                    ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
                ) => tokio::time::sleep(IN_PROGRESS_RETRY).await,
                ClientWriteError::ChangeMembershipError(ChangeMembershipError::LearnerNotFound(_)) => {
                    return Err(MembershipError::MemberNotFound);
                }
                ClientWriteError::ChangeMembershipError(ChangeMembershipError::EmptyMembership(_)) => {
                    return Err(MembershipError::NotEnoughStartedMembers);
                }
                ClientWriteError::ChangeMembershipError(error) => {
                    tracing::warn!(%error, "member change");
                    return Err(MembershipError::InProgress);
                }
                ClientWriteError::PreconditionFailed(_) => return Err(MembershipError::InProgress),
            }
        }
    }

    /// Makes voters of members that were added as voters and have caught up. Runs on the leader from time to time.
    pub(crate) async fn promote_joined(&self) {
        let joined: Vec<u64> = self.state.with_core(|core| {
            let membership = core.position.membership.membership();
            let learners: BTreeSet<u64> = membership.learner_ids().collect();
            membership
                .nodes()
                .filter(|(id, node)| node.joining && learners.contains(id))
                .map(|(id, _)| *id)
                .collect()
        });
        for id in joined {
            if self.is_caught_up(id) && self.connected([id].into_iter()) == 1 {
                match self.commit_change(ChangeMembers::AddVoterIds(BTreeSet::from([id])), true).await {
                    Ok(_) => tracing::info!(member = format!("{id:x}"), "joined as a voter"),
                    Err(error) => {
                        tracing::warn!(member = format!("{id:x}"), %error, "joining member stays a learner")
                    }
                }
            }
        }
    }
}
