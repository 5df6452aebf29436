//! One record: a 32-byte header, the payload, zeros up to the next multiple of 8.
//!
//! Always holds: a header is valid only in the segment (sequence and salt) and at the offset it was written for, so
//! a recycled or misplaced block never passes for a new record. Header and payload are checked apart: a damaged
//! payload does not hide where the record ends, and looking for a record costs the same at every offset.
//! Format: docs/formats.md, "Write-ahead log". Not here: files (segment.rs), meaning (recovery.rs).

use crate::planted::{self, Bug};

pub(crate) const HEADER_SIZE_BYTES: usize = 32;
pub(crate) const ALIGNMENT_BYTES: usize = 8;

/// What a record is for; the payload is opaque.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordKind {
    Entry,
    Vote,
    /// A hint, not synced by itself.
    Committed,
    /// Drops the entries at `index` and above.
    Truncate,
    /// Drops the entries at `index` and below.
    Purge,
    /// Everything before this record was synced when it was written; `index` is the last entry then.
    Mark,
    /// Acknowledged data was lost; the payload is the note.
    Loss,
    /// What was lost is there again.
    Healed,
}

impl RecordKind {
    fn code(self) -> u8 {
        match self {
            RecordKind::Entry => 1,
            RecordKind::Vote => 2,
            RecordKind::Committed => 3,
            RecordKind::Truncate => 4,
            RecordKind::Purge => 5,
            RecordKind::Mark => 6,
            RecordKind::Loss => 7,
            RecordKind::Healed => 8,
        }
    }

    fn from_code(code: u8) -> Option<RecordKind> {
        Some(match code {
            1 => RecordKind::Entry,
            2 => RecordKind::Vote,
            3 => RecordKind::Committed,
            4 => RecordKind::Truncate,
            5 => RecordKind::Purge,
            6 => RecordKind::Mark,
            7 => RecordKind::Loss,
            8 => RecordKind::Healed,
            _ => return None,
        })
    }
}

/// Where all checksums of one segment start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed(u32);

impl Seed {
    pub(crate) fn new(sequence: u64, salt: u64) -> Seed {
        if planted::is(Bug::ChecksumNotSeeded) {
            return Seed(0);
        }
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&sequence.to_le_bytes());
        bytes[8..].copy_from_slice(&salt.to_le_bytes());
        Seed(crc32c::crc32c(&bytes))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: RecordKind,
    pub(crate) term: u64,
    pub(crate) index: u64,
    pub(crate) payload_size_bytes: u32,
    payload_checksum: u32,
}

impl Header {
    /// `None`: no record of this segment starts at `offset`. `bytes` may be longer than a header.
    pub(crate) fn decode(bytes: &[u8], seed: Seed, offset: u64) -> Option<Header> {
        let bytes: &[u8; HEADER_SIZE_BYTES] = bytes.first_chunk()?;
        let [c0, c1, c2, c3, p0, p1, p2, p3, s0, s1, s2, s3, code, 0, 0, 0, rest @ ..] = bytes else {
            return None;
        };
        let kind = RecordKind::from_code(*code)?;
        if u32::from_le_bytes([*c0, *c1, *c2, *c3]) != header_checksum(bytes, seed, offset) {
            return None;
        }
        let (term, index) = rest.split_first_chunk::<8>()?;
        Some(Header {
            kind,
            term: u64::from_le_bytes(*term),
            index: u64::from_le_bytes(*index.first_chunk()?),
            payload_size_bytes: u32::from_le_bytes([*s0, *s1, *s2, *s3]),
            payload_checksum: u32::from_le_bytes([*p0, *p1, *p2, *p3]),
        })
    }

    pub(crate) fn payload_is_intact(&self, payload: &[u8], seed: Seed) -> bool {
        self.payload_checksum == crc32c::crc32c_append(seed.0, payload)
    }

    /// With header and padding.
    pub(crate) fn record_size_bytes(&self) -> u64 {
        size_bytes(self.payload_size_bytes as usize)
    }
}

/// Size of a record with this payload, with header and padding.
pub(crate) fn size_bytes(payload_size_bytes: usize) -> u64 {
    (HEADER_SIZE_BYTES as u64 + payload_size_bytes as u64).next_multiple_of(ALIGNMENT_BYTES as u64)
}

/// Appends a record to `out`, whose first byte lies at `base_offset` of the segment; returns the record's offset.
pub(crate) fn encode(
    out: &mut Vec<u8>,
    base_offset: u64,
    seed: Seed,
    kind: RecordKind,
    (term, index): (u64, u64),
    payload: &[u8],
) -> u64 {
    let offset = base_offset + out.len() as u64;
    let mut header = [0; HEADER_SIZE_BYTES];
    header[4..8].copy_from_slice(&crc32c::crc32c_append(seed.0, payload).to_le_bytes());
    // The writer refuses payloads that do not fit a segment, and a segment is at most 1 GiB.
    header[8..12].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    header[12] = kind.code();
    header[16..24].copy_from_slice(&term.to_le_bytes());
    header[24..32].copy_from_slice(&index.to_le_bytes());
    let checksum = header_checksum(&header, seed, offset);
    header[..4].copy_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(payload);
    out.resize(out.len().next_multiple_of(ALIGNMENT_BYTES), 0);
    offset
}

/// Makes the checksums of the records in `bytes` right, whose first one lies at `offset`; for fuzzing.rs.
pub(crate) fn repair(mut bytes: &mut [u8], mut offset: u64, seed: Seed) {
    while let Some((header, rest)) = bytes.split_first_chunk_mut::<HEADER_SIZE_BYTES>() {
        let [.., s0, s1, s2, s3] = header[..12] else { return };
        let payload_size = u32::from_le_bytes([s0, s1, s2, s3]) as usize;
        let Some(payload) = rest.get(..payload_size) else { return };
        header[4..8].copy_from_slice(&crc32c::crc32c_append(seed.0, payload).to_le_bytes());
        let checksum = header_checksum(header, seed, offset);
        header[..4].copy_from_slice(&checksum.to_le_bytes());
        let size = size_bytes(payload_size);
        let Some(behind) = rest.get_mut(size as usize - HEADER_SIZE_BYTES..) else { return };
        bytes = behind;
        offset += size;
    }
}

fn header_checksum(header: &[u8; HEADER_SIZE_BYTES], seed: Seed, offset: u64) -> u32 {
    let checksum = crc32c::crc32c_append(seed.0, &offset.to_le_bytes());
    crc32c::crc32c_append(checksum, &header[4..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(seed: Seed, offset: u64) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&mut out, offset, seed, RecordKind::Entry, (7, 42), b"hello");
        out
    }

    #[test]
    fn a_record_reads_back_in_its_own_segment_and_place_only() {
        let seed = Seed::new(3, 9);
        let bytes = record(seed, 128);
        assert_eq!(bytes.len() as u64, size_bytes(5));
        let header = Header::decode(&bytes, seed, 128).unwrap();
        assert_eq!((header.kind, header.term, header.index), (RecordKind::Entry, 7, 42));
        assert_eq!(header.record_size_bytes(), 40);
        assert!(header.payload_is_intact(b"hello", seed));
        assert!(!header.payload_is_intact(b"hellp", seed));
        assert_eq!(Header::decode(&bytes, Seed::new(4, 9), 128), None);
        assert_eq!(Header::decode(&bytes, Seed::new(3, 8), 128), None);
        assert_eq!(Header::decode(&bytes, seed, 136), None);
        assert_eq!(Header::decode(&bytes[..31], seed, 128), None);
    }

    #[test]
    fn any_flipped_bit_of_a_header_is_noticed() {
        let seed = Seed::new(3, 9);
        let bytes = record(seed, 128);
        for bit in 0..HEADER_SIZE_BYTES * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&damaged, seed, 128), None, "bit {bit}");
        }
    }

    /// Pins the bytes of format version 1.
    #[test]
    fn the_bytes_of_a_record_do_not_change() {
        let bytes = record(Seed::new(1, 2), 128);
        let golden = "161304c9cfa0f77d050000000100000007000000000000002a0000000000000068656c6c6f000000";
        assert_eq!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), golden);
    }
}
