//! What one member asks another, and the answers: small and rare, so bincode. Drawn in docs/formats.md.
//!
//! Variants and fields keep their places: new variants come last, new fields come last in a message that says so
//! (`Description`), nothing else changes. Not here: asking and answering (peers.rs, peers/server.rs).

use bincode::Decode;
use bincode::de::Decoder;
use bincode::de::read::Reader;
use bincode::error::DecodeError;
use bytes::Bytes;

use super::{Decoded, bincode_config, junk, unknown};

/// `Peer.Ask`.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) enum Question {
    /// Answered without a cluster check: that is how a new member learns which cluster it joins. One byte, for ever.
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
    Description(Description),
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

/// What a member says about itself and its cluster. The first four fields are what every build sends.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode)]
pub(crate) struct Description {
    pub(crate) cluster_id: u64,
    pub(crate) member_id: u64,
    pub(crate) leader: Option<u64>,
    pub(crate) members: Vec<MemberRecord>,
    /// The highest one that it voted in or follows a leader of; `None`: it may have forgotten, or does not tell.
    pub(crate) term: Option<u64>,
    /// Of its log or its state, whichever is further. The first entry of a new cluster has 0. An older build does not tell:
    /// then the largest, because it may have anything.
    pub(crate) last_index: u64,
    /// An older build does not tell: then it votes.
    pub(crate) standing: Standing,
}

impl<Context> Decode<Context> for Description {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Ok(Description {
            cluster_id: Decode::decode(decoder)?,
            member_id: Decode::decode(decoder)?,
            leader: Decode::decode(decoder)?,
            members: Decode::decode(decoder)?,
            term: told(decoder)?.unwrap_or(None),
            last_index: told(decoder)?.unwrap_or(u64::MAX),
            standing: told(decoder)?.unwrap_or(Standing::Votes),
        })
    }
}

bincode::impl_borrow_decode!(Description);

/// A field of the tail; `None`: the message ends before it, so its sender is an older build. It must be the last of the
/// message, and a message must be decoded from a slice.
fn told<Context, D: Decoder<Context = Context>, T: Decode<Context>>(
    decoder: &mut D,
) -> Result<Option<T>, DecodeError> {
    if decoder.reader().peek_read(1).is_none() { Ok(None) } else { T::decode(decoder).map(Some) }
}

/// In a list, so no field can be added: what else there is to say about members belongs at the end of `Description`.
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

/// What lies behind the value is a later version's.
pub(crate) fn from_bytes<T: Decode<()>>(bytes: &[u8], what: &'static str) -> Decoded<T> {
    match bincode::decode_from_slice(bytes, bincode_config()) {
        Ok((value, _)) => Ok(value),
        Err(DecodeError::UnexpectedVariant { .. }) => Err(unknown(what)),
        Err(_) => Err(junk(what)),
    }
}
