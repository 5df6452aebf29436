//! What openraft is told about our types: plain Raft terms (one leader per term), `u64` member ids, entries whose
//! payload is the bytes of the log and of the wire, unchanged.

use std::fmt;

use bytes::Bytes;
use openraft::impls::leader_id_std;
use openraft::vote::leader_id_std::CommittedLeaderId;
use serde::{Deserialize, Serialize};

use crate::waiters::WriteResponder;

/// A member as the Raft membership knows it. Client URLs are not Raft's business: a member publishes them through the
/// log (`mvcc::Command::MemberAttributes`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub(crate) struct Node {
    /// Empty for a member that was added at run time and has not started yet.
    pub name: String,
    pub peer_urls: Vec<String>,
    /// Added as a voter, still a learner to Raft until it has caught up. Means nothing for a voter.
    pub joining: bool,
}

/// A log entry's payload: the kind byte of `codec::EntryKind::Normal`, then an encoded `mvcc::Proposal`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Payload(pub Bytes);

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TypeConfig;

// By hand: `declare_raft_types!` cannot name a generic `Responder<T>`.
impl openraft::RaftTypeConfig for TypeConfig {
    type D = Payload;
    type R = ();
    type NodeId = u64;
    type Node = Node;
    type Term = u64;
    type LeaderId = leader_id_std::LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Payload, u64, Node>;
    type Entry = openraft::Entry<CommittedLeaderId<u64>, Self::Payload>;
    #[allow(deprecated, reason = "the alternative is one more direct dependency for the same type")]
    type AsyncRuntime = openraft::impls::TokioRuntime;
    type Responder<T>
        = WriteResponder<T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

pub(crate) type LogId = openraft::LogId<CommittedLeaderId<u64>>;
pub(crate) type Vote = openraft::impls::Vote<leader_id_std::LeaderId<u64, u64>>;
pub(crate) type EntryPayload = openraft::EntryPayload<Payload, u64, Node>;
pub(crate) type RaftEntry = openraft::Entry<CommittedLeaderId<u64>, EntryPayload>;
pub(crate) type Membership = openraft::Membership<u64, Node>;
pub(crate) type StoredMembership = openraft::StoredMembership<CommittedLeaderId<u64>, u64, Node>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId<u64>, u64, Node>;
pub(crate) type AppendRequest = openraft::raft::AppendEntriesRequest<TypeConfig>;
pub(crate) type StreamAppendResult = openraft::raft::StreamAppendResult<TypeConfig>;
pub(crate) type VoteRequest = openraft::raft::VoteRequest<TypeConfig>;
pub(crate) type VoteResponse = openraft::raft::VoteResponse<TypeConfig>;

pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

/// Index that follows an optional log id; the first index of a Raft log is 0 here.
pub(crate) fn next_index(id: Option<&LogId>) -> u64 {
    id.map_or(0, |id| id.index + 1)
}
