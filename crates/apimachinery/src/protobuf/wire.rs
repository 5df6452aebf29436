//! Protobuf's wire format: field keys, varints, and lengths. Knows no types.

use super::DecodeError;

/// What stands on the wire for one field.
#[derive(Debug, Clone, Copy)]
pub(super) enum Raw<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

/// Reads the fields of one message.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// The next field's number and content; `None` at the end.
    pub(super) fn field(&mut self) -> Result<Option<(u32, Raw<'a>)>, DecodeError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok().filter(|number| (1..1 << 29).contains(number));
        let number = number.ok_or(DecodeError::Malformed("illegal tag"))?;
        let content = match key & 7 {
            0 => Raw::Varint(self.varint()?),
            1 => Raw::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length =
                    usize::try_from(self.varint()?).map_err(|_| DecodeError::Malformed("invalid length"))?;
                Raw::Bytes(self.take(length)?)
            }
            5 => {
                self.array::<4>()?;
                Raw::Fixed32
            }
            _ => return Err(DecodeError::Malformed("illegal wireType")),
        };
        Ok(Some((number, content)))
    }

    pub(super) fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(DecodeError::Malformed("unexpected EOF"))?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Malformed("integer overflow"))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(DecodeError::Malformed("unexpected EOF"))?;
        self.0 = rest;
        Ok(*head)
    }

    pub(super) fn fixed64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(DecodeError::Malformed("unexpected EOF"))?;
        self.0 = rest;
        Ok(head)
    }
}

/// Writes the fields of messages, inner messages in place.
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn with_capacity(size_bytes: usize) -> Writer {
        Writer(Vec::with_capacity(size_bytes))
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn varint(&mut self, number: u32, value: u64) {
        self.put_varint(u64::from(number) << 3);
        self.put_varint(value);
    }

    pub(super) fn fixed64(&mut self, number: u32, value: u64) {
        self.put_varint(u64::from(number) << 3 | 1);
        self.raw(&value.to_le_bytes());
    }

    pub(super) fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.put_varint(u64::from(number) << 3 | 2);
        self.put_varint(bytes.len() as u64);
        self.raw(bytes);
    }

    /// A message whose length is known only after it is written: one byte is kept free for it, and the message moves
    /// when it needs more.
    pub(super) fn message<T>(&mut self, number: u32, write: impl FnOnce(&mut Writer) -> T) -> T {
        self.put_varint(u64::from(number) << 3 | 2);
        let start = self.0.len();
        self.0.push(0);
        let result = write(self);
        let length = self.0.len() - start - 1;
        let mut head = Writer::with_capacity(5);
        head.put_varint(length as u64);
        self.0.splice(start..=start, head.0);
        result
    }

    fn put_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}
