//! The second copy of the last vote, in a file of its own: a lost entry comes back from another member, a forgotten vote
//! from nobody, and one lost sector of a segment, its header's above all, takes many records with it.
//!
//! Always holds: written after the sync of the log that has the vote, and synced before the vote is acknowledged; so while
//! it is overwritten the log has it. It says which place of the log it speaks for: the later of the two copies counts.
//! A damaged or missing file is no loss, the log is read without it and the next open writes it anew.
//! Format: docs/formats.md, "Write-ahead log". Not here: votes in the log (writer.rs, replay.rs).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::{Disk, DiskFile};
use crate::segment::{read_full, write_full};

const NAME: &str = "vote";
const MAGIC: &[u8; 8] = b"BINVOTE1";
const HEADER_SIZE_BYTES: usize = 32;
/// Far more than a vote has.
const PAYLOAD_SIZE_BYTES_MAX: usize = 64 << 10;

/// Sequence of a segment and an offset in it; later ones are greater.
pub(crate) type Place = (u64, u64);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Saved {
    pub(crate) place: Place,
    pub(crate) vote: Bytes,
}

impl Saved {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_SIZE_BYTES + self.vote.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[0; 4]);
        // The log refuses longer payloads.
        bytes.extend_from_slice(&(self.vote.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.place.0.to_le_bytes());
        bytes.extend_from_slice(&self.place.1.to_le_bytes());
        bytes.extend_from_slice(&self.vote);
        let checksum = crc32c::crc32c(&bytes);
        bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// `None`: damaged, or not whole. A longer vote may have left bytes behind this one.
    fn decode(bytes: &[u8]) -> Option<Saved> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_SIZE_BYTES>()?;
        let [m0, m1, m2, m3, m4, m5, m6, m7, c0, c1, c2, c3, s0, s1, s2, s3, place @ ..] = header;
        let vote = rest.get(..u32::from_le_bytes([*s0, *s1, *s2, *s3]) as usize)?;
        let mut cleared = *header;
        cleared[8..12].fill(0);
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&cleared), vote);
        let is_ours = [*m0, *m1, *m2, *m3, *m4, *m5, *m6, *m7] == *MAGIC;
        if !is_ours || u32::from_le_bytes([*c0, *c1, *c2, *c3]) != checksum {
            return None;
        }
        let (sequence, offset) = place.split_first_chunk::<8>()?;
        let place = (u64::from_le_bytes(*sequence), u64::from_le_bytes(*offset.first_chunk()?));
        Some(Saved { place, vote: Bytes::copy_from_slice(vote) })
    }
}

pub(crate) struct VoteFile {
    pub(crate) path: PathBuf,
    file: Option<Arc<dyn DiskFile>>,
}

impl VoteFile {
    pub(crate) fn new(directory: &Path) -> VoteFile {
        VoteFile { path: directory.join(NAME), file: None }
    }

    /// Opens it if `names`, the directory's, have it; returns what it holds. Changes nothing.
    pub(crate) fn read(&mut self, disk: &dyn Disk, names: &[String]) -> io::Result<Option<Saved>> {
        if !names.iter().any(|name| name == NAME) {
            return Ok(None);
        }
        let file = disk.open(&self.path)?;
        let mut bytes = vec![0; HEADER_SIZE_BYTES + PAYLOAD_SIZE_BYTES_MAX];
        let size = read_full(&*file, &mut bytes, 0)?;
        self.file = Some(file);
        Ok(Saved::decode(bytes.get(..size).unwrap_or_default()))
    }

    /// Durable when this returns, if `fsync`.
    pub(crate) fn save(&mut self, disk: &dyn Disk, saved: &Saved, fsync: bool) -> io::Result<()> {
        let (file, is_new) = match &self.file {
            Some(file) => (Arc::clone(file), false),
            None => (disk.create(&self.path)?, true),
        };
        self.file = Some(Arc::clone(&file));
        write_full(&*file, &saved.encode(), 0)?;
        if !fsync {
            return Ok(());
        }
        file.sync_data()?;
        match self.path.parent().filter(|_| is_new) {
            Some(directory) => disk.sync_directory(directory),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved() -> Saved {
        Saved { place: (3, 4096), vote: Bytes::from_static(b"for b") }
    }

    #[test]
    fn a_vote_reads_back_and_any_flipped_bit_is_noticed() {
        let mut bytes = saved().encode();
        assert_eq!(Saved::decode(&bytes), Some(saved()));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Saved::decode(&damaged), None, "bit {bit}");
        }
        assert_eq!(Saved::decode(&bytes[..bytes.len() - 1]), None);
        bytes.extend_from_slice(b"left by a longer one");
        assert_eq!(Saved::decode(&bytes), Some(saved()));
    }

    #[test]
    fn the_bytes_of_the_vote_file_do_not_change() {
        let golden = "42494e564f544531397c36d00500000003000000000000000010000000000000666f722062";
        let text: String = saved().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, golden);
    }
}
