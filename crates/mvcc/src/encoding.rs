//! The few shapes that all our bytes are made of, and a reader that junk cannot hurt.
//!
//! Invariants: a length is compared with what is left before anything is allocated; byte strings are slices of the
//! input. Numbers are LEB128, signed ones zigzag first; a byte string is its length and its bytes.
//! Not here: what the shapes mean (codec.rs, meta.rs).

use bytes::{Buf, Bytes};

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("ends too early")]
    Truncated,
    #[error("format {0} is not known")]
    Format(u8),
    #[error("{what} has no variant {tag}")]
    Tag { what: &'static str, tag: u8 },
    #[error("{0} is not valid")]
    Invalid(&'static str),
    #[error("nested too deep")]
    TooDeep,
    #[error("has bytes behind its end")]
    Trailing,
}

/// Elements for which room is made before they have been seen.
const LIST_ROOM_MAX: usize = 64;

pub(crate) fn put_u64(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub(crate) fn put_i64(out: &mut Vec<u8>, number: i64) {
    put_u64(out, ((number << 1) ^ (number >> 63)) as u64);
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(crate) fn put_list<T>(out: &mut Vec<u8>, items: &[T], mut put: impl FnMut(&mut Vec<u8>, &T)) {
    put_u64(out, items.len() as u64);
    for item in items {
        put(out, item);
    }
}

/// Packs up to eight switches into one byte, the first into bit 0.
pub(crate) fn put_flags(out: &mut Vec<u8>, flags: &[bool]) {
    debug_assert!(flags.len() <= 8);
    out.push(flags.iter().enumerate().fold(0, |byte, (bit, flag)| byte | u8::from(*flag) << bit));
}

pub(crate) struct Reader {
    rest: Bytes,
}

impl Reader {
    pub(crate) fn new(bytes: Bytes) -> Reader {
        Reader { rest: bytes }
    }

    /// Starts behind the format byte, which must be `format`.
    pub(crate) fn with_format(bytes: Bytes, format: u8) -> Result<Reader, DecodeError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            found if found == format => Ok(reader),
            found => Err(DecodeError::Format(found)),
        }
    }

    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        if self.rest.is_empty() {
            return Err(DecodeError::Truncated);
        }
        Ok(self.rest.get_u8())
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(DecodeError::Invalid("number"))
    }

    pub(crate) fn i64(&mut self) -> Result<i64, DecodeError> {
        let number = self.u64()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    pub(crate) fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        let length = usize::try_from(self.u64()?).map_err(|_| DecodeError::Truncated)?;
        if length > self.rest.len() {
            return Err(DecodeError::Truncated);
        }
        Ok(self.rest.split_to(length))
    }

    pub(crate) fn string(&mut self) -> Result<String, DecodeError> {
        let bytes = self.bytes()?;
        std::str::from_utf8(&bytes).map(str::to_owned).map_err(|_| DecodeError::Invalid("text"))
    }

    /// Reads `N` switches; a bit that is set beyond them is an error.
    pub(crate) fn flags<const N: usize>(&mut self) -> Result<[bool; N], DecodeError> {
        let byte = self.u8()?;
        if N < 8 && byte >> N != 0 {
            return Err(DecodeError::Invalid("flags"));
        }
        Ok(std::array::from_fn(|bit| byte >> bit & 1 == 1))
    }

    /// Every element takes at least one byte, so a count above what is left is a lie.
    pub(crate) fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Reader) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = usize::try_from(self.u64()?).map_err(|_| DecodeError::Truncated)?;
        if count > self.rest.len() {
            return Err(DecodeError::Truncated);
        }
        let mut items = Vec::with_capacity(count.min(LIST_ROOM_MAX));
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_length_come_back() {
        for shift in 0..64 {
            for number in [1u64 << shift, (1u64 << shift) - 1, !(1u64 << shift)] {
                let mut out = Vec::new();
                put_u64(&mut out, number);
                put_i64(&mut out, number as i64);
                let mut reader = Reader::new(out.into());
                assert_eq!((reader.u64(), reader.i64()), (Ok(number), Ok(number as i64)));
                assert_eq!(reader.finish(), Ok(()));
            }
        }
    }

    /// Each row: bytes that are not a byte string, and why.
    #[test]
    fn a_length_is_never_believed() {
        let rows: [(&[u8], DecodeError); 4] = [
            (&[], DecodeError::Truncated),
            (&[5, 1, 2], DecodeError::Truncated),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], DecodeError::Truncated),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], DecodeError::Invalid("number")),
        ];
        for (bytes, error) in rows {
            assert_eq!(Reader::new(Bytes::copy_from_slice(bytes)).bytes(), Err(error), "{bytes:?}");
            let list = Reader::new(Bytes::copy_from_slice(bytes)).list(|reader| reader.u64());
            assert_eq!(list, Err(error), "{bytes:?}");
        }
    }
}
