//! Segment files: their names, their header, and reading them in chunks.
//!
//! Always holds: a file gets a segment's name only after its header is durable, so a segment without a valid header
//! is damaged, never "just created". Format: docs/formats.md, "Write-ahead log".
//! Not here: what follows the header (record.rs), the order of files (recovery.rs).

use std::io;
use std::path::{Path, PathBuf};

use crate::api::Identity;
use crate::disk::DiskFile;

pub(crate) const FORMAT_VERSION: u16 = 1;
/// Records start here.
pub(crate) const HEADER_SIZE_BYTES: u64 = 128;
const MAGIC: &[u8; 6] = b"BINWAL";
const PREFIX_SIZE_BYTES: usize = 16;
const WINDOW_SIZE_BYTES: usize = 256 << 10;

fn bincode_config() -> impl bincode::config::Config {
    bincode::config::standard().with_little_endian().with_fixed_int_encoding().with_limit::<112>()
}

#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) struct Header {
    pub(crate) sequence: u64,
    pub(crate) salt: u64,
    /// Cluster and member.
    pub(crate) identity: Option<(u64, u64)>,
    /// Index that an entry would have had when the segment was begun; `None`: the log had no entry and no purge.
    pub(crate) first_index: Option<u64>,
    /// The segment that this one continues; 0: none. Sequences between the two are void.
    pub(crate) previous_sequence: u64,
    /// Where that segment's records end; what lies behind is void.
    pub(crate) previous_end_bytes: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderState {
    Valid(Header),
    Damaged,
    /// Of a later format; intact.
    Unsupported(u16),
}

impl Header {
    pub(crate) fn identity(&self) -> Option<Identity> {
        self.identity.map(|(cluster_id, member_id)| Identity { cluster_id, member_id })
    }

    /// Exactly `HEADER_SIZE_BYTES`.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, bincode::error::EncodeError> {
        let body = bincode::encode_to_vec(self, bincode_config())?;
        let mut bytes = Vec::with_capacity(HEADER_SIZE_BYTES as usize);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes), &body);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes.resize(HEADER_SIZE_BYTES as usize, 0);
        Ok(bytes)
    }

    /// `sequence` as in the file's name.
    pub(crate) fn decode(bytes: &[u8], sequence: u64) -> HeaderState {
        Header::decode_checked(bytes, sequence).unwrap_or(HeaderState::Damaged)
    }

    fn decode_checked(bytes: &[u8], sequence: u64) -> Option<HeaderState> {
        let (prefix, rest) = bytes.split_first_chunk::<PREFIX_SIZE_BYTES>()?;
        let [magic @ .., v0, v1, s0, s1, s2, s3, c0, c1, c2, c3] = prefix;
        let body = rest.get(..u32::from_le_bytes([*s0, *s1, *s2, *s3]) as usize)?;
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&prefix[..12]), body);
        if magic != MAGIC || u32::from_le_bytes([*c0, *c1, *c2, *c3]) != checksum {
            return None;
        }
        let version = u16::from_le_bytes([*v0, *v1]);
        if version != FORMAT_VERSION {
            return Some(HeaderState::Unsupported(version));
        }
        let (header, _) = bincode::decode_from_slice::<Header, _>(body, bincode_config()).ok()?;
        (header.sequence == sequence).then_some(HeaderState::Valid(header))
    }
}

pub(crate) fn path(directory: &Path, sequence: u64) -> PathBuf {
    directory.join(format!("wal-{sequence:016x}"))
}

pub(crate) fn spare_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("spare-{number:016x}"))
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Segment(u64),
    Spare(u64),
    Other,
}

impl Name {
    pub(crate) fn parse(name: &str) -> Name {
        let number = |digits: &str| {
            let valid =
                digits.len() == 16 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            if valid { u64::from_str_radix(digits, 16).ok() } else { None }
        };
        if let Some(sequence) = name.strip_prefix("wal-").and_then(number) {
            return Name::Segment(sequence);
        }
        name.strip_prefix("spare-").and_then(number).map_or(Name::Other, Name::Spare)
    }
}

/// Reads a file front to back in chunks.
pub(crate) struct Window<'a> {
    file: &'a dyn DiskFile,
    size_bytes: u64,
    start: u64,
    buffer: Vec<u8>,
}

impl<'a> Window<'a> {
    pub(crate) fn new(file: &'a dyn DiskFile) -> io::Result<Window<'a>> {
        Ok(Window { file, size_bytes: file.size_bytes()?, start: 0, buffer: Vec::new() })
    }

    pub(crate) fn file_size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// `None`: the file ends before. The answer may be longer than asked.
    pub(crate) fn get(&mut self, offset: u64, size_bytes: usize) -> io::Result<Option<&[u8]>> {
        let Some(end) = offset.checked_add(size_bytes as u64).filter(|end| *end <= self.size_bytes) else {
            return Ok(None);
        };
        if offset < self.start || end > self.start + self.buffer.len() as u64 {
            let wanted = (size_bytes.max(WINDOW_SIZE_BYTES) as u64).min(self.size_bytes - offset);
            self.buffer.resize(wanted as usize, 0);
            self.start = offset;
            let read = read_full(self.file, &mut self.buffer, offset)?;
            self.buffer.truncate(read);
        }
        let from = (offset - self.start) as usize;
        // The file may have been cut since its size was taken.
        Ok(self.buffer.get(from..).filter(|rest| rest.len() >= size_bytes))
    }
}

/// Reads until the buffer is full or the file ends.
pub(crate) fn read_full(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while let Some(rest) = buffer.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + read as u64) {
            Ok(0) => break,
            Ok(size) => read += size,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// Writes all, or says how far it came.
pub(crate) fn write_full(file: &dyn DiskFile, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match file.write_at(rest, offset + written as u64) {
            Ok(0) => {
                let message = format!("short write: {written} of {} bytes at offset {offset}", bytes.len());
                return Err(io::Error::new(io::ErrorKind::WriteZero, message));
            }
            Ok(size) => written += size,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            sequence: 5,
            salt: 77,
            identity: Some((1, 2)),
            first_index: Some(10),
            previous_sequence: 4,
            previous_end_bytes: 4096,
        }
    }

    #[test]
    fn a_header_reads_back_under_its_own_name_only() {
        let bytes = header().encode().unwrap();
        assert_eq!(bytes.len() as u64, HEADER_SIZE_BYTES);
        assert_eq!(Header::decode(&bytes, 5), HeaderState::Valid(header()));
        assert_eq!(Header::decode(&bytes, 6), HeaderState::Damaged);
        assert_eq!(Header::decode(&bytes[..20], 5), HeaderState::Damaged);
        assert_eq!(Header::decode(&[0; 128], 5), HeaderState::Damaged);
        for bit in 0..(PREFIX_SIZE_BYTES + 58) * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&damaged, 5), HeaderState::Damaged, "bit {bit}");
        }
    }

    #[test]
    fn a_later_format_is_named_and_not_called_damage() {
        let mut bytes = header().encode().unwrap();
        bytes[6] = 2;
        let size = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize;
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..16 + size]);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(Header::decode(&bytes, 5), HeaderState::Unsupported(2));
    }

    /// Pins the bytes of format version 1.
    #[test]
    fn the_bytes_of_a_header_do_not_change() {
        let bytes = header().encode().unwrap();
        let golden = "42494e57414c01003a000000d0cb5e1605000000000000004d0000000000000001010000000000000002000000\
                      00000000010a0000000000000004000000000000000010";
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        assert_eq!(bytes[..used].iter().map(|byte| format!("{byte:02x}")).collect::<String>(), golden);
    }

    #[test]
    fn names_are_parsed_strictly() {
        assert_eq!(Name::parse("wal-000000000000000a"), Name::Segment(10));
        assert_eq!(Name::parse("spare-0000000000000002"), Name::Spare(2));
        for other in ["wal-0a", "wal-000000000000000A", "wal-+00000000000000a", "lock", "damage", "spare-"] {
            assert_eq!(Name::parse(other), Name::Other, "{other}");
        }
    }
}
