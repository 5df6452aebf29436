//! This crate's decoders under names that fuzz targets can call. For tests/fuzz and nobody else.
//!
//! A decoder answers with the bytes that its result encodes to, or with `None` if it refused the input.

use crate::damage::Note;
use crate::record;
use crate::segment::{HEADER_SIZE_BYTES, Header, HeaderState};

/// The header of the first segment.
pub fn header(bytes: &[u8]) -> Option<Vec<u8>> {
    match Header::decode(bytes, 1) {
        HeaderState::Valid(header) => header.encode().ok(),
        HeaderState::Damaged | HeaderState::Unsupported(_) => None,
    }
}

/// The note about lost data; every input is one.
pub fn note(bytes: &[u8]) -> Option<Vec<u8>> {
    Some(Note::decode(bytes).encode().to_vec())
}

pub fn sample_note() -> Vec<u8> {
    let file_name = "wal-0000000000000001".to_owned();
    Note { file_name, offset: 128, last_good_index: 4, acknowledged_index: 9 }.encode().to_vec()
}

/// Makes the checksums of a segment's file right again, so that what lies behind them is looked at.
pub fn repair_segment(file: &mut [u8]) {
    let Some((header, records)) = file.split_at_mut_checked(HEADER_SIZE_BYTES as usize) else { return };
    let body_size = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
    if let Some(body) = header.get(16..16usize.saturating_add(body_size)) {
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&header[..12]), body);
        header[12..16].copy_from_slice(&checksum.to_le_bytes());
    }
    let HeaderState::Valid(header) = Header::decode(header, 1) else { return };
    record::repair(records, HEADER_SIZE_BYTES, record::Seed::new(header.sequence, header.salt));
}
