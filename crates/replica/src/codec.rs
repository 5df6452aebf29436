//! Bytes of log entries, Raft metadata and peer messages. Drawn in docs/formats.md (`## Peer messages`).
//!
//! Everything read here comes from a disk or a network: every decoder answers an error on junk, never panics, and never
//! allocates by a length that it has not checked. Numbers are little-endian.
//! Members of two versions understand each other while a cluster is upgraded: what is written here never changes, new fields
//! come last, whoever knows fewer ignores the rest, and a field that an older build does not send has a default. A tag
//! without a meaning is an error (`CodecError::Unknown`), never a guess. What a receiver must not ignore gets a new call.
//! Not here: the frames around these bytes (the log's are in `wal`, the network's are gRPC).

mod questions;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::EntryPayload as RaftPayload;
use openraft::raft::{StreamAppendError, TransferLeaderError, TransferLeaderRequest};

pub(crate) use questions::*;

use crate::raft_types::*;

/// First byte of a log entry's payload.
const ENTRY_BLANK: u8 = 0;
pub(crate) const ENTRY_NORMAL: u8 = 1;
const ENTRY_MEMBERSHIP: u8 = 2;

/// No message between members is larger; a longer length is junk. Snapshots travel as chunks far below this.
pub(crate) const FRAME_SIZE_BYTES_MAX: usize = 512 << 20;

#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("malformed {what}")]
    Malformed { what: &'static str },
    #[error("{what} of a kind that this version does not know, perhaps a later one's")]
    Unknown { what: &'static str },
}

impl From<CodecError> for std::io::Error {
    fn from(error: CodecError) -> Self {
        std::io::Error::new(std::io::ErrorKind::InvalidData, error)
    }
}

type Decoded<T> = Result<T, CodecError>;

pub(crate) fn junk(what: &'static str) -> CodecError {
    CodecError::Malformed { what }
}

fn unknown(what: &'static str) -> CodecError {
    CodecError::Unknown { what }
}

fn take_u8(bytes: &mut Bytes, what: &'static str) -> Decoded<u8> {
    bytes.try_get_u8().map_err(|_| junk(what))
}

fn take_bool(bytes: &mut Bytes, what: &'static str) -> Decoded<bool> {
    match take_u8(bytes, what)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(junk(what)),
    }
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
        None | Some(&ENTRY_BLANK) => return Err(junk("log entry")),
        Some(_) => return Err(unknown("log entry")),
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
        _ => return Err(unknown(what)),
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
    request.leadership_transfer = take_bool(&mut bytes, "vote request")?;
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
    let granted = take_bool(&mut bytes, "vote answer")?;
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
        _ => return Err(unknown(what)),
    })
}

// --- Read index ----------------------------------------------------------------------------------------------------

pub(crate) fn read_index_bytes(index: u64) -> Bytes {
    Bytes::copy_from_slice(&index.to_le_bytes())
}

pub(crate) fn read_index(mut bytes: Bytes) -> Decoded<u64> {
    take_u64(&mut bytes, "read index")
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
            _ => return Err(unknown("refusal")),
        },
    ))
}

#[cfg(test)]
mod tests;
