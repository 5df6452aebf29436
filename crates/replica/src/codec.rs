//! Bytes of log entries, Raft metadata and peer messages. Drawn in docs/formats.md (`## Peer messages`).
//!
//! Everything read here comes from a disk or a network: every decoder answers an error on junk, never panics, and never
//! allocates by a length that it has not checked. Numbers are little-endian.
//! Not here: the frames around these bytes (the log's are in `wal`, the network's are gRPC).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::EntryPayload as RaftPayload;
use openraft::raft::{StreamAppendError, TransferLeaderError, TransferLeaderRequest};

use crate::raft_types::*;

/// First byte of a log entry's payload.
const ENTRY_BLANK: u8 = 0;
pub(crate) const ENTRY_NORMAL: u8 = 1;
const ENTRY_MEMBERSHIP: u8 = 2;

/// No message between members is larger; a longer length is junk. Snapshots travel as chunks far below this.
pub(crate) const FRAME_SIZE_BYTES_MAX: usize = 512 << 20;

#[derive(Debug, thiserror::Error)]
#[error("malformed {what}")]
pub struct CodecError {
    pub what: &'static str,
}

impl From<CodecError> for std::io::Error {
    fn from(error: CodecError) -> Self {
        std::io::Error::new(std::io::ErrorKind::InvalidData, error)
    }
}

type Decoded<T> = Result<T, CodecError>;

fn junk(what: &'static str) -> CodecError {
    CodecError { what }
}

fn take_u8(bytes: &mut Bytes, what: &'static str) -> Decoded<u8> {
    bytes.try_get_u8().map_err(|_| junk(what))
}

fn take_u32(bytes: &mut Bytes, what: &'static str) -> Decoded<u32> {
    bytes.try_get_u32_le().map_err(|_| junk(what))
}

fn take_u64(bytes: &mut Bytes, what: &'static str) -> Decoded<u64> {
    bytes.try_get_u64_le().map_err(|_| junk(what))
}

fn take_slice(bytes: &mut Bytes, length: usize, what: &'static str) -> Decoded<Bytes> {
    if bytes.len() < length {
        return Err(junk(what));
    }
    Ok(bytes.split_to(length))
}

// --- Raft metadata -------------------------------------------------------------------------------------------------

pub(crate) fn put_vote(out: &mut impl BufMut, vote: &Vote) {
    out.put_u64_le(vote.leader_id.term);
    out.put_u64_le(vote.leader_id.voted_for);
    out.put_u8(u8::from(vote.committed));
}

pub(crate) fn take_vote(bytes: &mut Bytes) -> Decoded<Vote> {
    let term = take_u64(bytes, "vote")?;
    let voted_for = take_u64(bytes, "vote")?;
    Ok(match take_u8(bytes, "vote")? {
        0 => Vote::new(term, voted_for),
        1 => Vote::new_committed(term, voted_for),
        _ => return Err(junk("vote")),
    })
}

pub(crate) fn vote_bytes(vote: &Vote) -> Bytes {
    let mut out = BytesMut::with_capacity(17);
    put_vote(&mut out, vote);
    out.freeze()
}

pub(crate) fn put_log_id(out: &mut impl BufMut, id: Option<&LogId>) {
    match id {
        None => out.put_u8(0),
        Some(id) => {
            out.put_u8(1);
            out.put_u64_le(id.leader_id.term);
            out.put_u64_le(id.index);
        }
    }
}

pub(crate) fn take_log_id(bytes: &mut Bytes) -> Decoded<Option<LogId>> {
    Ok(match take_u8(bytes, "log id")? {
        0 => None,
        1 => Some(log_id(take_u64(bytes, "log id")?, take_u64(bytes, "log id")?)),
        _ => return Err(junk("log id")),
    })
}

pub(crate) fn log_id_bytes(id: Option<&LogId>) -> Bytes {
    let mut out = BytesMut::with_capacity(17);
    put_log_id(&mut out, id);
    out.freeze()
}

/// A membership as it is stored: voter sets (two while a change is under way) and every member, voter or learner.
#[derive(bincode::Encode, bincode::Decode)]
struct MembershipRecord {
    configs: Vec<Vec<u64>>,
    nodes: Vec<(u64, Node)>,
}

fn bincode_config() -> impl bincode::config::Config {
    // 16 MiB is far above any membership and keeps junk from asking for memory.
    bincode::config::standard().with_limit::<{ 16 << 20 }>()
}

pub(crate) fn put_membership(out: &mut Vec<u8>, membership: &Membership) {
    let record = MembershipRecord {
        configs: membership.get_joint_config().iter().map(|set| set.iter().copied().collect()).collect(),
        nodes: membership.nodes().map(|(id, node)| (*id, node.clone())).collect(),
    };
    bincode::encode_into_std_write(&record, out, bincode_config()).expect("a Vec takes every byte");
}

/// Decodes a membership from the front of `bytes`; the second value is how many bytes it took.
fn membership_from(bytes: &[u8]) -> Decoded<(Membership, usize)> {
    let (record, used): (MembershipRecord, usize) =
        bincode::decode_from_slice(bytes, bincode_config()).map_err(|_| junk("membership"))?;
    // Nothing writes such a one, and what is not there has a form of its own.
    if record.configs.is_empty() {
        return Err(junk("membership"));
    }
    let configs = record.configs.into_iter().map(|set| set.into_iter().collect()).collect();
    let nodes: std::collections::BTreeMap<u64, Node> = record.nodes.into_iter().collect();
    let membership = Membership::new(configs, nodes).map_err(|_| junk("membership"))?;
    Ok((membership, used))
}

/// Optional log id, then the membership.
pub(crate) fn put_stored_membership(out: &mut Vec<u8>, stored: &StoredMembership) {
    put_log_id(out, stored.log_id().as_ref());
    let empty = stored.membership().get_joint_config().is_empty();
    out.put_u8(u8::from(!empty));
    if !empty {
        put_membership(out, stored.membership());
    }
}

pub(crate) fn take_stored_membership(bytes: &mut Bytes) -> Decoded<StoredMembership> {
    let id = take_log_id(bytes)?;
    match take_u8(bytes, "membership")? {
        0 if id.is_none() => Ok(StoredMembership::default()),
        1 => {
            let (membership, used) = membership_from(bytes)?;
            bytes.advance(used);
            Ok(StoredMembership::new(id, membership))
        }
        _ => Err(junk("membership")),
    }
}

// --- Log entries ---------------------------------------------------------------------------------------------------

/// The payload bytes of an entry, in the log and between members.
pub(crate) fn entry_payload_bytes(payload: &EntryPayload) -> Bytes {
    match payload {
        RaftPayload::Blank => Bytes::from_static(&[ENTRY_BLANK]),
        RaftPayload::Normal(Payload(bytes)) => bytes.clone(),
        RaftPayload::Membership(membership) => {
            let mut out = vec![ENTRY_MEMBERSHIP];
            put_membership(&mut out, membership);
            out.into()
        }
    }
}

pub(crate) fn entry(term: u64, index: u64, payload: Bytes) -> Decoded<RaftEntry> {
    let payload = match payload.first() {
        Some(&ENTRY_BLANK) if payload.len() == 1 => RaftPayload::Blank,
        Some(&ENTRY_NORMAL) => RaftPayload::Normal(Payload(payload)),
        Some(&ENTRY_MEMBERSHIP) => RaftPayload::Membership(membership_from(&payload[1..])?.0),
        _ => return Err(junk("log entry")),
    };
    Ok(RaftEntry { log_id: log_id(term, index), payload })
}

// --- Append --------------------------------------------------------------------------------------------------------

pub(crate) fn append_request_bytes(request: &AppendRequest) -> Bytes {
    let payloads: Vec<Bytes> =
        request.entries.iter().map(|entry| entry_payload_bytes(&entry.payload)).collect();
    let size: usize = payloads.iter().map(|payload| payload.len() + 20).sum();
    let mut out = BytesMut::with_capacity(64 + size);
    put_vote(&mut out, &request.vote);
    put_log_id(&mut out, request.prev_log_id.as_ref());
    put_log_id(&mut out, request.leader_commit.as_ref());
    out.put_u32_le(u32::try_from(payloads.len()).expect("openraft sends at most max_payload_entries"));
    for (entry, payload) in request.entries.iter().zip(payloads) {
        out.put_u64_le(entry.log_id.leader_id.term);
        out.put_u64_le(entry.log_id.index);
        out.put_u32_le(u32::try_from(payload.len()).expect("requests are limited far below 4 GiB"));
        out.put_slice(&payload);
    }
    out.freeze()
}

pub(crate) fn append_request(mut bytes: Bytes) -> Decoded<AppendRequest> {
    let what = "append request";
    let vote = take_vote(&mut bytes)?;
    let prev_log_id = take_log_id(&mut bytes)?;
    let leader_commit = take_log_id(&mut bytes)?;
    let count = take_u32(&mut bytes, what)?;
    let mut entries = Vec::with_capacity((count as usize).min(bytes.len() / 20));
    // Not `next_index`, which would overflow at what a peer may send.
    let first = match &prev_log_id {
        Some(id) => id.index.checked_add(1).ok_or(junk(what))?,
        None => 0,
    };
    for offset in 0..u64::from(count) {
        let term = take_u64(&mut bytes, what)?;
        let index = take_u64(&mut bytes, what)?;
        if Some(index) != first.checked_add(offset) {
            return Err(junk(what));
        }
        let length = take_u32(&mut bytes, what)? as usize;
        entries.push(entry(term, index, take_slice(&mut bytes, length, what)?)?);
    }
    Ok(AppendRequest { vote, prev_log_id, entries, leader_commit })
}

pub(crate) fn append_result_bytes(result: &StreamAppendResult) -> Bytes {
    let mut out = BytesMut::with_capacity(20);
    match result {
        Ok(id) => {
            out.put_u8(0);
            put_log_id(&mut out, id.as_ref());
        }
        Err(StreamAppendError::Conflict(id)) => {
            out.put_u8(1);
            put_log_id(&mut out, Some(id));
        }
        Err(StreamAppendError::HigherVote(vote)) => {
            out.put_u8(2);
            put_vote(&mut out, vote);
        }
    }
    out.freeze()
}

pub(crate) fn append_result(mut bytes: Bytes) -> Decoded<StreamAppendResult> {
    let what = "append answer";
    Ok(match take_u8(&mut bytes, what)? {
        0 => Ok(take_log_id(&mut bytes)?),
        1 => Err(StreamAppendError::Conflict(take_log_id(&mut bytes)?.ok_or(junk(what))?)),
        2 => Err(StreamAppendError::HigherVote(take_vote(&mut bytes)?)),
        _ => return Err(junk(what)),
    })
}

// --- Votes and leader transfer -------------------------------------------------------------------------------------

pub(crate) fn vote_request_bytes(request: &VoteRequest) -> Bytes {
    let mut out = BytesMut::with_capacity(40);
    put_vote(&mut out, &request.vote);
    put_log_id(&mut out, request.last_log_id.as_ref());
    out.put_u8(u8::from(request.leadership_transfer));
    out.freeze()
}

pub(crate) fn vote_request(mut bytes: Bytes) -> Decoded<VoteRequest> {
    let mut request = VoteRequest::new(take_vote(&mut bytes)?, take_log_id(&mut bytes)?);
    request.leadership_transfer = take_u8(&mut bytes, "vote request")? == 1;
    Ok(request)
}

pub(crate) fn vote_response_bytes(response: &VoteResponse) -> Bytes {
    let mut out = BytesMut::with_capacity(40);
    put_vote(&mut out, &response.vote);
    out.put_u8(u8::from(response.vote_granted));
    put_log_id(&mut out, response.last_log_id.as_ref());
    out.freeze()
}

pub(crate) fn vote_response(mut bytes: Bytes) -> Decoded<VoteResponse> {
    let vote = take_vote(&mut bytes)?;
    let granted = take_u8(&mut bytes, "vote answer")? == 1;
    Ok(VoteResponse::new(vote, take_log_id(&mut bytes)?, granted))
}

pub(crate) fn transfer_request_bytes(request: &TransferLeaderRequest<TypeConfig>) -> Bytes {
    let mut out = BytesMut::with_capacity(48);
    put_vote(&mut out, request.from_leader());
    out.put_u64_le(*request.to_node_id());
    put_log_id(&mut out, request.last_log_id());
    out.freeze()
}

pub(crate) fn transfer_request(mut bytes: Bytes) -> Decoded<TransferLeaderRequest<TypeConfig>> {
    let from = take_vote(&mut bytes)?;
    let to = take_u64(&mut bytes, "transfer request")?;
    Ok(TransferLeaderRequest::new(from, to, take_log_id(&mut bytes)?))
}

pub(crate) fn transfer_response_bytes(response: &Result<(), TransferLeaderError<TypeConfig>>) -> Bytes {
    let mut out = BytesMut::with_capacity(48);
    match response {
        Ok(()) => out.put_u8(0),
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            out.put_u8(1);
            put_vote(&mut out, expected);
            put_vote(&mut out, actual);
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            out.put_u8(2);
            put_log_id(&mut out, expected.as_ref());
            put_log_id(&mut out, actual.as_ref());
        }
    }
    out.freeze()
}

pub(crate) fn transfer_response(mut bytes: Bytes) -> Decoded<Result<(), TransferLeaderError<TypeConfig>>> {
    let what = "transfer answer";
    Ok(match take_u8(&mut bytes, what)? {
        0 => Ok(()),
        1 => Err(TransferLeaderError::VoteChanged {
            expected: take_vote(&mut bytes)?,
            actual: take_vote(&mut bytes)?,
        }),
        2 => Err(TransferLeaderError::LogNotFlushed {
            expected: take_log_id(&mut bytes)?,
            actual: take_log_id(&mut bytes)?,
        }),
        _ => return Err(junk(what)),
    })
}

// --- Forwarded proposals -------------------------------------------------------------------------------------------

/// Proposals of a follower, as entry payloads ready for the log.
pub(crate) fn forward_bytes(proposals: &[(u64, Bytes)]) -> Bytes {
    let size: usize = proposals.iter().map(|(_, payload)| payload.len() + 12).sum();
    let mut out = BytesMut::with_capacity(4 + size);
    out.put_u32_le(u32::try_from(proposals.len()).expect("the queue is bounded far below"));
    for (id, payload) in proposals {
        out.put_u64_le(*id);
        out.put_u32_le(u32::try_from(payload.len()).expect("requests are limited far below 4 GiB"));
        out.put_slice(payload);
    }
    out.freeze()
}

pub(crate) fn forward(mut bytes: Bytes) -> Decoded<Vec<(u64, Bytes)>> {
    let what = "forwarded proposals";
    let count = take_u32(&mut bytes, what)?;
    let mut proposals = Vec::with_capacity((count as usize).min(bytes.len() / 12));
    for _ in 0..count {
        let id = take_u64(&mut bytes, what)?;
        let length = take_u32(&mut bytes, what)? as usize;
        let payload = take_slice(&mut bytes, length, what)?;
        if payload.first() != Some(&ENTRY_NORMAL) {
            return Err(junk(what));
        }
        proposals.push((id, payload));
    }
    Ok(proposals)
}

pub(crate) fn refusal_bytes(id: u64, refusal: crate::waiters::Refusal) -> Bytes {
    use crate::waiters::Refusal;
    let mut out = BytesMut::with_capacity(9);
    out.put_u64_le(id);
    out.put_u8(match refusal {
        Refusal::NotLeader => 0,
        Refusal::TooManyRequests => 1,
        Refusal::Unknown => 2,
    });
    out.freeze()
}

pub(crate) fn refusal(mut bytes: Bytes) -> Decoded<(u64, crate::waiters::Refusal)> {
    use crate::waiters::Refusal;
    let id = take_u64(&mut bytes, "refusal")?;
    Ok((
        id,
        match take_u8(&mut bytes, "refusal")? {
            0 => Refusal::NotLeader,
            1 => Refusal::TooManyRequests,
            2 => Refusal::Unknown,
            _ => return Err(junk("refusal")),
        },
    ))
}

// --- Questions to another member -----------------------------------------------------------------------------------

/// `Peer.Ask`. Small and rare, so bincode.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) enum Question {
    /// Answered without a cluster check: that is how a new member learns which cluster it joins.
    WhoAreYou,
    LeaseRenew {
        id: i64,
    },
    LeaseRemaining {
        id: i64,
    },
    Membership(MembershipChange),
    /// The checksum of the records up to a revision.
    HashKv {
        revision: i64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) enum MembershipChange {
    Add { id: u64, peer_urls: Vec<String>, is_learner: bool },
    Promote { id: u64 },
    Remove { id: u64 },
    Update { id: u64, peer_urls: Vec<String> },
}

/// Whether a member gives votes, and why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) enum Standing {
    Votes,
    /// It does not know yet whether its cluster is new.
    FirstStart,
    /// It may have lost what it acknowledged.
    Quarantined,
}

#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) enum Answer {
    Description {
        cluster_id: u64,
        member_id: u64,
        leader: Option<u64>,
        members: Vec<MemberRecord>,
        /// The highest one that it voted in or follows a leader of; `None`: it may have forgotten.
        term: Option<u64>,
        /// Of its log or its state, whichever is further. The first entry of a new cluster has 0.
        last_index: u64,
        standing: Standing,
    },
    /// Granted and remaining time; `None`: no such lease.
    Lease(Option<(i64, i64)>),
    /// The change is committed at this index.
    Changed {
        index: u64,
    },
    Refused(crate::membership::MembershipError),
    NotLeader,
    TimedOut,
    /// With the revision that the member is at.
    HashKv {
        hash: u32,
        compact_revision: i64,
        revision: i64,
    },
    /// Why there is no checksum at that revision.
    NoHash {
        reason: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct MemberRecord {
    pub id: u64,
    pub name: String,
    pub peer_urls: Vec<String>,
    pub client_urls: Vec<String>,
    pub is_learner: bool,
}

pub(crate) fn to_bytes<T: bincode::Encode>(value: &T) -> Bytes {
    bincode::encode_to_vec(value, bincode_config()).expect("a Vec takes every byte").into()
}

pub(crate) fn from_bytes<T: bincode::Decode<()>>(bytes: &[u8], what: &'static str) -> Decoded<T> {
    bincode::decode_from_slice(bytes, bincode_config()).map(|(value, _)| value).map_err(|_| junk(what))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn sample_membership() -> Membership {
        let node = |n: u64| Node {
            name: format!("m{n}"),
            peer_urls: vec![format!("http://127.0.0.1:{n}")],
            joining: n == 4,
        };
        let nodes: BTreeMap<u64, Node> = (1..=4).map(|n| (n, node(n))).collect();
        Membership::new(vec![[1, 2, 3].into(), [1, 2].into()], nodes).unwrap()
    }

    #[test]
    fn an_append_request_survives_the_wire() {
        let request = AppendRequest {
            vote: Vote::new_committed(7, 3),
            prev_log_id: Some(log_id(6, 10)),
            entries: vec![
                RaftEntry { log_id: log_id(7, 11), payload: RaftPayload::Blank },
                RaftEntry {
                    log_id: log_id(7, 12),
                    payload: RaftPayload::Normal(Payload(Bytes::from_static(b"\x01abc"))),
                },
                RaftEntry { log_id: log_id(7, 13), payload: RaftPayload::Membership(sample_membership()) },
            ],
            leader_commit: None,
        };
        let bytes = append_request_bytes(&request);
        let back = append_request(bytes.clone()).unwrap();
        assert_eq!(format!("{request:?}"), format!("{back:?}"));
        assert_eq!(append_request_bytes(&back), bytes);
    }

    #[test]
    fn no_prefix_of_a_message_is_taken_for_a_whole_one_and_none_panics() {
        let request = AppendRequest {
            vote: Vote::new(1, 1),
            prev_log_id: None,
            entries: vec![RaftEntry {
                log_id: log_id(1, 0),
                payload: RaftPayload::Membership(sample_membership()),
            }],
            leader_commit: Some(log_id(1, 0)),
        };
        let whole = append_request_bytes(&request);
        for length in 0..whole.len() {
            assert!(append_request(whole.slice(..length)).is_err(), "prefix of {length} bytes");
        }
        let forwarded =
            forward_bytes(&[(1, Bytes::from_static(b"\x01x")), (2, Bytes::from_static(b"\x01yz"))]);
        assert_eq!(forward(forwarded.clone()).unwrap().len(), 2);
        for length in 0..forwarded.len() {
            assert!(forward(forwarded.slice(..length)).is_err(), "prefix of {length} bytes");
        }
    }

    /// Found by the fuzz target "position": it was taken, but not as what it was encoded to.
    #[test]
    fn a_membership_without_voters_is_refused() {
        let mut out = Vec::new();
        put_log_id(&mut out, Some(&log_id(6, 10)));
        out.extend_from_slice(&[1, 0, 0]);
        assert!(take_stored_membership(&mut out.into()).is_err());
        let mut out = Vec::new();
        put_log_id(&mut out, Some(&log_id(6, 10)));
        out.push(0);
        assert!(take_stored_membership(&mut out.into()).is_err());
    }

    /// Found by the fuzz target "append request".
    #[test]
    fn a_previous_entry_at_the_last_index_of_all_is_refused() {
        let request = AppendRequest {
            vote: Vote::new(1, 1),
            prev_log_id: Some(log_id(1, u64::MAX)),
            entries: Vec::new(),
            leader_commit: None,
        };
        assert!(append_request(append_request_bytes(&request)).is_err());
    }

    #[test]
    fn a_gap_between_entries_is_refused() {
        let request = AppendRequest {
            vote: Vote::new(1, 1),
            prev_log_id: Some(log_id(1, 4)),
            entries: vec![RaftEntry { log_id: log_id(1, 6), payload: RaftPayload::Blank }],
            leader_commit: None,
        };
        assert!(append_request(append_request_bytes(&request)).is_err());
    }

    #[test]
    fn a_stored_membership_survives() {
        for stored in
            [StoredMembership::default(), StoredMembership::new(Some(log_id(2, 9)), sample_membership())]
        {
            let mut out = Vec::new();
            put_stored_membership(&mut out, &stored);
            out.extend_from_slice(b"tail");
            let mut bytes = Bytes::from(out);
            assert_eq!(take_stored_membership(&mut bytes).unwrap(), stored);
            assert_eq!(bytes, "tail");
        }
    }
}
