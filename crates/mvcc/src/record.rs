//! One change of one key as bytes: the unit of history in memory, on disk and in a snapshot.
//!
//! Format: docs/formats.md, "Records and meta rows". Invariants: the checksum covers every other byte and is
//! verified on each read, also from memory; a record names its own revision, so a record read from the wrong place
//! is noticed. Records are written once. Not here: where records lie.

use crate::keys::{KeyValue, Revision};
use crate::rows::RecordsError;
use bytes::Bytes;

/// Bytes before the key.
pub(crate) const HEADER_SIZE_BYTES: usize = 50;
const FORMAT: u8 = 1;
const KIND_PUT: u8 = 0;
const KIND_DELETE: u8 = 1;

/// A verified record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) revision: Revision,
    /// A deletion has no value, version, lease or creation.
    pub(crate) is_delete: bool,
    pub(crate) kv: KeyValue,
    pub(crate) checksum: u32,
}

/// A record's bytes with their checksum, and the pair as slices of those bytes.
pub(crate) struct Encoded {
    pub(crate) bytes: Bytes,
    pub(crate) checksum: u32,
    pub(crate) kv: KeyValue,
}

/// What a put stores besides key, value and revision.
#[derive(Clone, Copy)]
pub(crate) struct PutState {
    pub(crate) create_revision: i64,
    pub(crate) version: i64,
    pub(crate) lease: i64,
}

pub(crate) fn encode_put(revision: Revision, key: &[u8], value: &[u8], state: PutState) -> Encoded {
    encode(KIND_PUT, revision, key, value, state)
}

pub(crate) fn encode_delete(revision: Revision, key: &[u8]) -> Encoded {
    encode(KIND_DELETE, revision, key, &[], PutState { create_revision: 0, version: 0, lease: 0 })
}

fn encode(kind: u8, revision: Revision, key: &[u8], value: &[u8], state: PutState) -> Encoded {
    let mut out = Vec::with_capacity(HEADER_SIZE_BYTES + key.len() + value.len());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&[FORMAT, kind]);
    out.extend_from_slice(&revision.main.to_le_bytes());
    out.extend_from_slice(&revision.sub.to_le_bytes());
    out.extend_from_slice(&state.create_revision.to_le_bytes());
    out.extend_from_slice(&state.version.to_le_bytes());
    out.extend_from_slice(&state.lease.to_le_bytes());
    let key_len = u32::try_from(key.len()).expect("a request is far below 4 GiB");
    out.extend_from_slice(&key_len.to_le_bytes());
    debug_assert_eq!(out.len(), HEADER_SIZE_BYTES);
    out.extend_from_slice(key);
    out.extend_from_slice(value);
    let checksum = crc32c::crc32c(&out[4..]);
    out[..4].copy_from_slice(&checksum.to_le_bytes());
    let bytes = Bytes::from(out);
    let value_at = HEADER_SIZE_BYTES + key.len();
    let kv = KeyValue {
        key: bytes.slice(HEADER_SIZE_BYTES..value_at),
        value: bytes.slice(value_at..),
        create_revision: state.create_revision,
        mod_revision: revision.main,
        version: state.version,
        lease: state.lease,
    };
    Encoded { bytes, checksum, kv }
}

/// Whether the bytes are the record of `revision`, unharmed.
pub fn verify(revision: Revision, bytes: &[u8]) -> Result<(), RecordsError> {
    let damaged = |reason| Err(RecordsError::Damaged { revision, reason });
    let Some((header, _)) = bytes.split_first_chunk::<HEADER_SIZE_BYTES>() else {
        return damaged("shorter than a header");
    };
    if crc32c::crc32c(&bytes[4..]) != u32::from_le_bytes(field(header, 0)) {
        return damaged("checksum does not match");
    }
    let number = |at| i64::from_le_bytes(field(header, at));
    if (Revision { main: number(6), sub: number(14) }) != revision {
        return damaged("belongs to another revision");
    }
    Ok(())
}

/// Verifies and reads the record that must be `revision`.
pub(crate) fn decode(revision: Revision, bytes: &Bytes) -> Result<Record, RecordsError> {
    let damaged = |reason| RecordsError::Damaged { revision, reason };
    verify(revision, bytes)?;
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_SIZE_BYTES>() else {
        return Err(damaged("shorter than a header"));
    };
    let checksum = u32::from_le_bytes(field(header, 0));
    let ([format], [kind]) = (field(header, 4), field(header, 5));
    if format != FORMAT {
        return Err(damaged("format is not known"));
    }
    let is_delete = match kind {
        KIND_PUT => false,
        KIND_DELETE => true,
        _ => return Err(damaged("kind is not known")),
    };
    let number = |at| i64::from_le_bytes(field(header, at));
    let key_len = u32::from_le_bytes(field(header, 46)) as usize;
    if key_len > rest.len() {
        return Err(damaged("key is longer than the record"));
    }
    let value_at = HEADER_SIZE_BYTES + key_len;
    let kv = KeyValue {
        key: bytes.slice(HEADER_SIZE_BYTES..value_at),
        value: bytes.slice(value_at..),
        create_revision: number(22),
        mod_revision: revision.main,
        version: number(30),
        lease: number(38),
    };
    Ok(Record { revision, is_delete, kv, checksum })
}

/// `N` bytes of the header from `at`; every caller's field lies inside it.
fn field<const N: usize>(header: &[u8; HEADER_SIZE_BYTES], at: usize) -> [u8; N] {
    std::array::from_fn(|offset| header[at + offset])
}

#[cfg(test)]
mod tests {
    use super::*;

    const REVISION: Revision = Revision::new(7, 1);

    fn sample() -> Encoded {
        encode_put(REVISION, b"key", b"value", PutState { create_revision: 5, version: 2, lease: 9 })
    }

    #[test]
    fn a_record_keeps_these_bytes() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(
            hex(&sample().bytes),
            "634843bd0100\
             0700000000000000010000000000000005000000000000000200000000000000090000000000000003000000\
             6b657976616c7565"
        );
        assert_eq!(
            hex(&encode_delete(REVISION, b"key").bytes),
            "3c15b2130101\
             0700000000000000010000000000000000000000000000000000000000000000000000000000000003000000\
             6b6579"
        );
    }

    #[test]
    fn a_record_reads_back_as_written() {
        let put = sample();
        let record = decode(REVISION, &put.bytes).unwrap();
        assert_eq!(
            record,
            Record { revision: REVISION, is_delete: false, kv: put.kv, checksum: put.checksum }
        );
        let delete = encode_delete(REVISION, b"key");
        let record = decode(REVISION, &delete.bytes).unwrap();
        assert!(record.is_delete);
        assert_eq!(record.kv, delete.kv);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = sample().bytes.to_vec();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert!(decode(REVISION, &flipped.into()).is_err(), "byte {at} bit {bit}");
            }
            assert!(decode(REVISION, &Bytes::copy_from_slice(&bytes[..at])).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_record_from_another_place_is_noticed() {
        let error = decode(Revision::new(8, 0), &sample().bytes).unwrap_err();
        assert_eq!(error.to_string(), "record 8.0 is damaged: belongs to another revision");
    }
}
