//! Cuts a byte stream into JSON values, whatever the chunks and the whitespace between values.
//!
//! Every byte is looked at once; what is kept is at most one incomplete value, which is bounded.

use bytes::{Bytes, BytesMut};

/// Largest value: well above the largest object that a server stores.
const FRAME_BYTES_MAX: usize = 32 << 20;

#[derive(Debug, Default)]
pub(crate) struct Framing {
    buffer: BytesMut,
    /// Bytes of `buffer` already scanned.
    scanned: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FramingError {
    #[error("the stream has {0:#04x} where an object should begin")]
    NoObject(u8),
    #[error("a value of the stream is larger than {FRAME_BYTES_MAX} bytes")]
    TooLarge,
}

impl Framing {
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// True between values: the stream may end here.
    pub(crate) fn is_empty(&self) -> bool {
        self.depth == 0
    }

    /// The next complete object, if all of it has arrived.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, FramingError> {
        if self.depth == 0 {
            let blank = self.buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            let _ = self.buffer.split_to(blank);
            match self.buffer.first() {
                None => return Ok(None),
                Some(b'{') => {}
                Some(other) => return Err(FramingError::NoObject(*other)),
            }
        }
        while let Some(byte) = self.buffer.get(self.scanned) {
            self.scanned += 1;
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        let frame = self.buffer.split_to(self.scanned).freeze();
                        self.scanned = 0;
                        return Ok(Some(frame));
                    }
                }
                _ => {}
            }
        }
        if self.buffer.len() > FRAME_BYTES_MAX { Err(FramingError::TooLarge) } else { Ok(None) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The frames are the same however the bytes are cut.
    #[test]
    fn frames_do_not_depend_on_chunks() {
        let text = "{\"a\":\"}\\\"{\"}\n {\"b\":[1,{\"c\":{}}]}{\"d\":\"\\\\\"}\r\n";
        let expected = ["{\"a\":\"}\\\"{\"}", "{\"b\":[1,{\"c\":{}}]}", "{\"d\":\"\\\\\"}"];
        for size in 1..=text.len() {
            let mut framing = Framing::default();
            let mut frames = Vec::new();
            for chunk in text.as_bytes().chunks(size) {
                framing.push(chunk);
                while let Some(frame) = framing.next().unwrap() {
                    frames.push(String::from_utf8(frame.to_vec()).unwrap());
                }
            }
            assert_eq!(frames, expected, "chunks of {size}");
            assert!(framing.is_empty());
        }
    }

    #[test]
    fn an_incomplete_object_is_kept_and_junk_is_refused() {
        let mut framing = Framing::default();
        framing.push(b"{\"a\":");
        assert_eq!(framing.next(), Ok(None));
        assert!(!framing.is_empty());
        let mut framing = Framing::default();
        framing.push(b"404 page");
        assert_eq!(framing.next(), Err(FramingError::NoObject(b'4')));
    }
}
