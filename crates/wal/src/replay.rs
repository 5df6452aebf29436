//! Reads the records of one segment back into the state of the log.
//!
//! Always holds: stops at the first record that is not valid here, or that does not follow; nothing is skipped.
//! Not here: what a stop means and which segments count (recovery.rs).

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;

use crate::api::Entry;
use crate::damage::Note;
use crate::disk::DiskFile;
use crate::index::Index;
use crate::record::{ALIGNMENT_BYTES, HEADER_SIZE_BYTES, Header, RecordKind, Seed};
use crate::segment::{self, Window};
use crate::vote_file::Place;
use crate::writer::Carried;

const LOOK_CHUNK_BYTES: u64 = 128 << 10;

#[derive(Default)]
pub(crate) struct State {
    pub(crate) entries: VecDeque<Entry>,
    pub(crate) next_index: Option<u64>,
    pub(crate) carried: Carried,
    /// Where `carried.vote` was found last.
    pub(crate) vote_place: Option<Place>,
    /// The highest index that a mark speaks of.
    pub(crate) acknowledged_index: u64,
}

impl State {
    /// `false`: an entry or truncation that does not follow what is there.
    fn apply(&mut self, header: &Header, payload: &[u8]) -> bool {
        let payload = || Bytes::copy_from_slice(payload);
        match header.kind {
            RecordKind::Entry => {
                if self.next_index.is_some_and(|next| next != header.index) || header.index == u64::MAX {
                    return false;
                }
                self.entries.push_back(Entry { term: header.term, index: header.index, payload: payload() });
                self.next_index = Some(header.index + 1);
            }
            RecordKind::Vote => self.carried.vote = Some(payload()),
            RecordKind::Committed => self.carried.committed = Some(payload()),
            RecordKind::Truncate => {
                if self.next_index.is_none_or(|next| next < header.index) {
                    return false;
                }
                while self.entries.back().is_some_and(|entry| entry.index >= header.index) {
                    self.entries.pop_back();
                }
                self.next_index = Some(header.index);
            }
            RecordKind::Purge => self.purge(header.index, payload()),
            RecordKind::Mark => self.acknowledged_index = self.acknowledged_index.max(header.index),
            RecordKind::Loss => self.carried.loss = Some(Note::decode(&payload())),
            RecordKind::Healed => self.carried.loss = None,
        }
        true
    }

    pub(crate) fn purge(&mut self, upto_index: u64, payload: Bytes) {
        while self.entries.front().is_some_and(|entry| entry.index <= upto_index) {
            self.entries.pop_front();
        }
        self.next_index = self.next_index.max(Some(upto_index.saturating_add(1)));
        self.carried.purged = Some((upto_index, payload));
    }
}

/// Where reading a segment stopped.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stop {
    pub(crate) offset: u64,
    pub(crate) last_mark: Option<u64>,
    pub(crate) after_mark: bool,
}

/// Applies the records up to `limit`, or up to the first that is not valid.
pub(crate) fn replay(
    file: &dyn DiskFile,
    (sequence, seed): (u64, Seed),
    limit: Option<u64>,
    state: &mut State,
    index: &mut Index,
) -> io::Result<Stop> {
    let mut window = Window::new(file)?;
    let mut stop = Stop { offset: segment::HEADER_SIZE_BYTES, last_mark: None, after_mark: false };
    while limit.is_none_or(|limit| stop.offset < limit) {
        let Some((header, payload)) = read(&mut window, seed, stop.offset)? else { break };
        let end = stop.offset + header.record_size_bytes();
        if limit.is_some_and(|limit| end > limit) || !state.apply(&header, payload) {
            break;
        }
        match header.kind {
            // A segment is at most 1 GiB, but a longer file may lie here: such a record is not ours.
            RecordKind::Entry => match u32::try_from(stop.offset) {
                Ok(offset) => index.append(header.index, offset),
                Err(_) => break,
            },
            RecordKind::Truncate => index.truncate(header.index),
            RecordKind::Purge => index.purge(header.index),
            RecordKind::Mark => stop.last_mark = Some(stop.offset),
            RecordKind::Vote => state.vote_place = Some((sequence, stop.offset)),
            RecordKind::Committed | RecordKind::Loss | RecordKind::Healed => {}
        }
        stop.after_mark = header.kind == RecordKind::Mark;
        stop.offset = end;
    }
    Ok(stop)
}

/// The record at `offset`; `None`: there is no intact one.
pub(crate) fn read<'w>(
    window: &'w mut Window<'_>,
    seed: Seed,
    offset: u64,
) -> io::Result<Option<(Header, &'w [u8])>> {
    let Some(bytes) = window.get(offset, HEADER_SIZE_BYTES)? else { return Ok(None) };
    let Some(header) = Header::decode(bytes, seed, offset) else { return Ok(None) };
    let size = header.payload_size_bytes as usize;
    let Some(bytes) = window.get(offset, HEADER_SIZE_BYTES + size)? else { return Ok(None) };
    let payload = bytes.get(HEADER_SIZE_BYTES..HEADER_SIZE_BYTES + size).unwrap_or_default();
    Ok(header.payload_is_intact(payload, seed).then_some((header, payload)))
}

/// What lies behind the place where reading stopped.
#[derive(Clone, Debug, Default)]
pub(crate) struct Beyond {
    /// There is a mark, so everything before it had been synced.
    pub(crate) marked: bool,
    pub(crate) acknowledged_index: u64,
    /// End of the last record whose header is valid, intact or not.
    pub(crate) records_end: Option<u64>,
    /// The last intact vote, and its offset.
    pub(crate) vote: Option<(u64, Bytes)>,
    /// No record was begun at the place itself.
    pub(crate) begins_with_zeros: bool,
}

/// Looks at every place where a record could start.
pub(crate) fn look_beyond(file: &dyn DiskFile, seed: Seed, offset: u64) -> io::Result<Beyond> {
    let mut window = Window::new(file)?;
    let size = window.file_size_bytes();
    let head = window.get(offset, HEADER_SIZE_BYTES)?.and_then(|bytes| bytes.get(..HEADER_SIZE_BYTES));
    let begins_with_zeros = head.is_none_or(|bytes| bytes.iter().all(|byte| *byte == 0));
    let mut beyond = Beyond { begins_with_zeros, ..Beyond::default() };
    let mut votes = Vec::new();
    let mut at = offset;
    while at + HEADER_SIZE_BYTES as u64 <= size {
        let take = LOOK_CHUNK_BYTES.min(size - at) as usize;
        let Some(chunk) = window.get(at, take)? else { break };
        for bytes in chunk.get(..take).unwrap_or_default().windows(HEADER_SIZE_BYTES).step_by(ALIGNMENT_BYTES)
        {
            if let Some(header) = Header::decode(bytes, seed, at) {
                beyond.note(&header, at);
                if header.kind == RecordKind::Vote {
                    votes.push(at);
                }
            }
            at += ALIGNMENT_BYTES as u64;
        }
    }
    for place in votes.into_iter().rev() {
        if let Some((_, payload)) = read(&mut window, seed, place)? {
            beyond.vote = Some((place, Bytes::copy_from_slice(payload)));
            break;
        }
    }
    Ok(beyond)
}

impl Beyond {
    fn note(&mut self, header: &Header, offset: u64) {
        self.records_end = Some(offset + header.record_size_bytes());
        if header.kind == RecordKind::Mark {
            self.marked = true;
            self.acknowledged_index = self.acknowledged_index.max(header.index);
        }
    }
}
