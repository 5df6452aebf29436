//! Which segment files follow each other: each header names the segment that it continues.
//!
//! Always holds: the newest segment is the last of the chain. A file that no chain needs (below the purged index, or
//! made void by a repair) is left out. Not here: records and damage (recovery.rs).

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::api::{Config, OpenError};
use crate::disk::{Disk, DiskFile};
use crate::record::{RecordKind, Seed};
use crate::recovery::disk_error;
use crate::replay;
use crate::segment::{self, Header, HeaderState, Name, Window, read_full};

/// A new segment repeats at most this many records: vote (older builds: twice), commit hint, purge, loss.
const CARRIED_RECORDS_MAX: usize = 5;

/// A segment file as the directory shows it.
pub(crate) struct Found {
    pub(crate) sequence: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn DiskFile>,
    /// `None`: damaged.
    pub(crate) header: Option<Header>,
}

impl Found {
    pub(crate) fn seed(&self) -> Option<Seed> {
        self.header.as_ref().map(|header| Seed::new(self.sequence, header.salt))
    }
}

/// The segments by sequence, with their headers.
pub(crate) fn find(disk: &dyn Disk, config: &Config, names: &[String]) -> Result<Vec<Found>, OpenError> {
    let mut sequences: Vec<u64> = Vec::new();
    for name in names {
        if let Name::Segment(sequence) = Name::parse(name) {
            sequences.push(sequence);
        }
    }
    sequences.sort_unstable();
    sequences.into_iter().map(|sequence| open(disk, config, sequence)).collect()
}

fn open(disk: &dyn Disk, config: &Config, sequence: u64) -> Result<Found, OpenError> {
    let path = segment::path(&config.dir, sequence);
    let file = disk.open(&path).map_err(disk_error("open", &path))?;
    let mut bytes = [0; segment::HEADER_SIZE_BYTES as usize];
    let size = read_full(&*file, &mut bytes, 0).map_err(disk_error("read", &path))?;
    let header = match Header::decode(bytes.get(..size).unwrap_or_default(), sequence) {
        HeaderState::Valid(header) => Some(header),
        HeaderState::Damaged => None,
        HeaderState::Unsupported(version) => {
            let supported = segment::FORMAT_VERSION;
            return Err(OpenError::UnsupportedVersion { file: path, version, supported });
        }
    };
    let identity = header.as_ref().and_then(Header::identity);
    match (config.identity, identity) {
        (Some(expected), Some(found)) if expected != found => {
            Err(OpenError::WrongIdentity { file: path, expected, found })
        }
        _ => Ok(Found { sequence, path, file, header }),
    }
}

/// Takes the chain out of `found`, oldest first, beginning where no older entry can be needed; the rest is useless.
pub(crate) fn link(found: &mut Vec<Found>) -> io::Result<Vec<Found>> {
    let mut chain = Vec::new();
    let mut useless = Vec::new();
    let mut previous_sequence = u64::MAX;
    while let Some(segment) = found.pop() {
        if segment.sequence > previous_sequence {
            useless.push(segment);
            continue;
        }
        // Behind a damaged header nobody knows: take the next older one, reading will stop here anyway.
        previous_sequence = segment.header.as_ref().map_or(u64::MAX, |header| header.previous_sequence);
        chain.push(segment);
    }
    chain.reverse();
    let purged = newest_purge(&chain)?.map(|(purged, _)| purged);
    let begins = |segment: &Found| {
        let header = segment.header.as_ref();
        header.is_some_and(|header| is_covered(header.first_index, purged))
    };
    let start = chain.iter().rposition(begins).unwrap_or(0);
    useless.extend(chain.drain(..start));
    *found = useless;
    Ok(chain)
}

/// The log needs nothing from before a segment that began at `first_index`.
pub(crate) fn is_covered(first_index: Option<u64>, purged: Option<u64>) -> bool {
    first_index.is_none_or(|first| purged.is_some_and(|purged| first <= purged.saturating_add(1)))
}

/// The purge that the newest segment with a valid header carries.
pub(crate) fn newest_purge(chain: &[Found]) -> io::Result<Option<(u64, Bytes)>> {
    let newest = chain.iter().rev().find_map(|segment| Some((&segment.file, segment.seed()?)));
    let Some((file, seed)) = newest else { return Ok(None) };
    let mut window = Window::new(&**file)?;
    let mut offset = segment::HEADER_SIZE_BYTES;
    let mut purge = None;
    for _ in 0..CARRIED_RECORDS_MAX {
        let Some((header, payload)) = replay::read(&mut window, seed, offset)? else { break };
        if header.kind == RecordKind::Purge {
            purge = Some((header.index, Bytes::copy_from_slice(payload)));
        }
        offset += header.record_size_bytes();
    }
    Ok(purge)
}
