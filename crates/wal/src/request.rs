//! What the writer is asked to do, and what it refuses.
//!
//! Always holds: a refused request leaves the log as it was, and an accepted one fits into one segment, record by
//! record. Not here: carrying it out (writer.rs).

use bytes::Bytes;

use crate::api::Entry;
use crate::damage::NOTE_SIZE_BYTES_MAX;
use crate::{record, segment};

pub(crate) enum Request {
    Append(Vec<Entry>),
    Vote(Bytes),
    Committed(Bytes),
    Truncate(u64),
    Purge(u64, Bytes),
    Healed,
}

/// What a request is judged by.
pub(crate) struct Bounds {
    pub(crate) segment_size_bytes: u64,
    /// Index of the next entry; `None`: any.
    pub(crate) next_index: Option<u64>,
    pub(crate) purged_index: Option<u64>,
}

/// Largest payload of a vote, a commit hint or a purge, for a segment size.
fn state_payload_bytes_max(segment_size_bytes: u64) -> u64 {
    (segment_size_bytes / 16).min(64 << 10)
}

/// Largest payload of an entry: what surely fits behind the header, the carried records and a mark.
pub(crate) fn entry_payload_bytes_max(segment_size_bytes: u64) -> u64 {
    let state = record::size_bytes(state_payload_bytes_max(segment_size_bytes) as usize);
    let records = 2 * record::HEADER_SIZE_BYTES + record::ALIGNMENT_BYTES;
    let note = record::size_bytes(NOTE_SIZE_BYTES_MAX);
    segment_size_bytes - segment::HEADER_SIZE_BYTES - 3 * state - note - records as u64
}

impl Request {
    /// Payload only.
    pub(crate) fn size_bytes(&self) -> u64 {
        match self {
            Request::Append(entries) => entries.iter().map(|entry| entry.payload.len() as u64).sum(),
            Request::Vote(payload) | Request::Committed(payload) | Request::Purge(_, payload) => {
                payload.len() as u64
            }
            Request::Truncate(_) | Request::Healed => 0,
        }
    }

    /// Why the request breaks the caller's side of the contract; `None`: it does not.
    pub(crate) fn refusal(&self, bounds: &Bounds) -> Option<String> {
        match self {
            Request::Append(entries) => append_refusal(entries, bounds),
            Request::Vote(payload) | Request::Committed(payload) => state_refusal(payload, bounds),
            Request::Truncate(from_index) => {
                let purged = bounds.purged_index.filter(|purged| from_index <= purged)?;
                Some(format!("truncate from {from_index}, purged up to {purged}"))
            }
            Request::Purge(u64::MAX, _) => Some("purge up to the largest index".to_owned()),
            Request::Purge(_, payload) => state_refusal(payload, bounds),
            Request::Healed => None,
        }
    }
}

fn state_refusal(payload: &Bytes, bounds: &Bounds) -> Option<String> {
    let limit = state_payload_bytes_max(bounds.segment_size_bytes);
    let refusal = || format!("payload of {} bytes, limit is {limit}", payload.len());
    (payload.len() as u64 > limit).then(refusal)
}

fn append_refusal(entries: &[Entry], bounds: &Bounds) -> Option<String> {
    let limit = entry_payload_bytes_max(bounds.segment_size_bytes);
    let mut next = bounds.next_index;
    for entry in entries {
        if next.is_some_and(|next| next != entry.index) || entry.index == u64::MAX {
            return Some(format!("append of index {}, expected {next:?}", entry.index));
        }
        if entry.payload.len() as u64 > limit {
            let size_bytes = entry.payload.len();
            return Some(format!("entry {} is {size_bytes} bytes, limit is {limit}", entry.index));
        }
        next = Some(entry.index + 1);
    }
    None
}
