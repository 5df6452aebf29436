//! Makes requests of old gRPC clients readable: grpc-go before 1.32 sends the endpoint as it was written, with its
//! scheme (`http://HOST:PORT`), as HTTP/2's `:authority`. Our HTTP library refuses that as malformed; Go's accepts it.
//!
//! Invariants: such a value is replaced by `etcd` before HTTP sees it, and nothing else changes. The replacement stays
//! an entry of the same index in the header compression's table, and is shorter than what it replaces, so the table of
//! the reader keeps every entry that the writer still refers to. A connection whose first request is well-formed, or
//! that is not HTTP/2, passes through untouched from there on. At most one frame is held. What cannot be parsed is left
//! to the HTTP library to refuse.
//! Not here: what an authority is used for (nothing, for gRPC calls).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER_BYTES: usize = 9;
/// The largest frame that a client may send without being allowed more. Source: RFC 9113, section 6.5.2.
const FRAME_BYTES_MAX: usize = 16 * 1024;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// `:authority` in the static table of header names. Source: RFC 7541, appendix A.
const AUTHORITY: usize = 1;
/// What a malformed authority becomes: a literal string of four plain bytes.
const REPLACEMENT: &[u8] = b"\x04etcd";
const READ_BYTES: usize = 4096;

/// How malformed authorities begin: plain, and as the bits of the Huffman code (RFC 7541, appendix B).
const MALFORMED: [(&[u8], &[&str]); 5] = [
    (b"http://", &["100111", "01001", "01001", "101011", "1011100", "011000", "011000"]),
    (b"https://", &["100111", "01001", "01001", "101011", "01000", "1011100", "011000", "011000"]),
    (b"unix://", &["101101", "101010", "00110", "1111001", "1011100", "011000", "011000"]),
    (b"unixs://", &["101101", "101010", "00110", "1111001", "01000", "1011100", "011000", "011000"]),
    (b"#init", &["111111111010", "00110", "101010", "00110", "01001"]),
];

/// A connection of which the reader sees well-formed authorities.
pub(super) struct Readable<S> {
    stream: S,
    filter: Filter,
    /// Filtered bytes, of which `given` were read.
    ready: Vec<u8>,
    given: usize,
}

impl<S> Readable<S> {
    pub(super) fn new(stream: S) -> Readable<S> {
        Readable { stream, filter: Filter::default(), ready: Vec::new(), given: 0 }
    }
}

/// Where in the client's bytes the filter is.
#[derive(Debug, Default, PartialEq, Eq)]
enum Position {
    #[default]
    Preface,
    Frames,
    /// The rest of the connection is none of the filter's business.
    Through,
}

#[derive(Debug, Default)]
struct Filter {
    position: Position,
    /// Bytes that are too few to judge.
    held: Vec<u8>,
    /// Bytes of the current frame still to be passed on unseen.
    pass_bytes: usize,
    /// Whether an authority was replaced on this connection.
    replaced: bool,
}

impl Filter {
    /// Takes what the client sent, and appends to `out` what may be read of it.
    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.held.extend_from_slice(bytes);
        let mut done = 0;
        while let Some(used) = self.step(done, out) {
            done += used;
        }
        self.held.drain(..done);
        if self.position == Position::Through {
            self.end(out);
        }
    }

    /// Handles the bytes held from `from` on; the number of those dealt with, or none if there must be more.
    fn step(&mut self, from: usize, out: &mut Vec<u8>) -> Option<usize> {
        let bytes = &self.held[from..];
        match self.position {
            Position::Preface if bytes.len() >= PREFACE.len() && bytes.starts_with(PREFACE) => {
                self.position = Position::Frames;
                out.extend_from_slice(PREFACE);
                Some(PREFACE.len())
            }
            Position::Preface => {
                if !PREFACE.starts_with(bytes) {
                    self.position = Position::Through;
                }
                None
            }
            Position::Through => None,
            Position::Frames if bytes.is_empty() => None,
            Position::Frames if self.pass_bytes > 0 => {
                let used = self.pass_bytes.min(bytes.len());
                out.extend_from_slice(&bytes[..used]);
                self.pass_bytes -= used;
                Some(used)
            }
            Position::Frames => self.frame(from, out),
        }
    }

    fn frame(&mut self, from: usize, out: &mut Vec<u8>) -> Option<usize> {
        let bytes = &self.held[from..];
        let header = bytes.first_chunk::<FRAME_HEADER_BYTES>()?;
        let size_bytes =
            FRAME_HEADER_BYTES + u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        if header[3] != HEADERS || size_bytes > FRAME_HEADER_BYTES + FRAME_BYTES_MAX {
            self.pass_bytes = size_bytes;
            return Some(0);
        }
        let frame = bytes.get(..size_bytes)?;
        match well_formed(frame) {
            Some(frame) => {
                self.replaced = true;
                out.extend_from_slice(&frame);
            }
            None => {
                out.extend_from_slice(frame);
                if !self.replaced {
                    self.position = Position::Through;
                }
            }
        }
        Some(size_bytes)
    }

    /// Gives back what is held: the client sends no more, or the filter is done.
    fn end(&mut self, out: &mut Vec<u8>) {
        self.position = Position::Through;
        out.append(&mut std::mem::take(&mut self.held));
    }
}

/// The HEADERS frame with another authority, if its own is malformed.
fn well_formed(frame: &[u8]) -> Option<Vec<u8>> {
    let flags = *frame.get(4)?;
    let mut start = FRAME_HEADER_BYTES;
    let mut end = frame.len();
    if flags & PADDED != 0 {
        end = end.checked_sub(usize::from(*frame.get(start)?))?;
        start += 1;
    }
    if flags & PRIORITY != 0 {
        start += 5;
    }
    let block = frame.get(start..end)?;
    let value = authority(block)?;
    let is_malformed = malformed(block.get(value.clone())?)?;
    if !is_malformed {
        return None;
    }
    let size_bytes = frame.len() - value.len() + REPLACEMENT.len() - FRAME_HEADER_BYTES;
    let mut replaced = Vec::with_capacity(FRAME_HEADER_BYTES + size_bytes);
    replaced.extend_from_slice(&u32::try_from(size_bytes).ok()?.to_be_bytes()[1..]);
    replaced.extend_from_slice(&frame[3..start + value.start]);
    replaced.extend_from_slice(REPLACEMENT);
    replaced.extend_from_slice(&frame[start + value.end..]);
    Some(replaced)
}

/// Where in a header block the value of `:authority` is, with its length in front, if it is spelled out there.
fn authority(block: &[u8]) -> Option<std::ops::Range<usize>> {
    let mut at = 0;
    loop {
        let first = *block.get(at)?;
        let name = match first {
            0x80.. => {
                at = integer(block, at, 7)?.1; // both name and value are in a table
                continue;
            }
            0x40..=0x7f => integer(block, at, 6)?,
            0x20..=0x3f => {
                at = integer(block, at, 5)?.1; // a new size of the table
                continue;
            }
            ..=0x1f => integer(block, at, 4)?,
        };
        at = if name.0 == 0 { string_end(block, name.1)? } else { name.1 };
        let end = string_end(block, at)?;
        if name.0 == AUTHORITY {
            return Some(at..end);
        }
        at = end;
    }
}

/// Whether a string (length in front) begins as a malformed authority does. None if it cannot be read.
fn malformed(string: &[u8]) -> Option<bool> {
    let is_coded = string.first()? & 0x80 != 0;
    let text = string.get(integer(string, 0, 7)?.1..)?;
    if !is_coded {
        return Some(MALFORMED.iter().any(|(plain, _)| text.starts_with(plain)));
    }
    Some(MALFORMED.iter().any(|(_, code)| {
        let code = code.iter().flat_map(|bits| bits.bytes()).map(|bit| bit == b'1');
        let mut bits = text.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1));
        code.into_iter().all(|expected| bits.next() == Some(expected))
    }))
}

/// The position behind the string that starts at `at`.
fn string_end(block: &[u8], at: usize) -> Option<usize> {
    let (size_bytes, start) = integer(block, at, 7)?;
    let end = start.checked_add(size_bytes)?;
    (end <= block.len()).then_some(end)
}

/// An integer whose first byte has `prefix` bits of it, and the position behind it. Source: RFC 7541, section 5.1.
fn integer(block: &[u8], at: usize, prefix: u32) -> Option<(usize, usize)> {
    let most = (1_usize << prefix) - 1;
    let mut value = usize::from(*block.get(at)?) & most;
    if value < most {
        return Some((value, at + 1));
    }
    // Three more bytes reach further than a frame can.
    for extra in 0..3 {
        let byte = *block.get(at + 1 + extra)?;
        value += usize::from(byte & 0x7f) << (7 * extra);
        if byte & 0x80 == 0 {
            return Some((value, at + 2 + extra));
        }
    }
    None
}

impl<S: AsyncRead + Unpin> AsyncRead for Readable<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            let left = &this.ready[this.given..];
            if !left.is_empty() {
                let count = left.len().min(buffer.remaining());
                buffer.put_slice(&left[..count]);
                this.given += count;
                return Poll::Ready(Ok(()));
            }
            this.ready.clear();
            this.given = 0;
            if this.filter.position == Position::Through {
                this.ready = Vec::new();
                return Pin::new(&mut this.stream).poll_read(context, buffer);
            }
            let mut bytes = [0; READ_BYTES];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut read))?;
            match read.filled() {
                [] => this.filter.end(&mut this.ready),
                filled => this.filter.push(filled, &mut this.ready),
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Readable<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::{FRAME_HEADER_BYTES, Filter, PREFACE, Position};

    /// Fields in front of and behind `:authority`, as Go's encoder writes them for a call of grpc-go.
    const BEFORE: &str = "8386459760a924882d9dcb6571afa066a925a87510ac6e48d36a3f";
    const BEHIND: &str = "5f8b1d75d0620d263d4c4d65647a8a9acac8b4c7602b89c5c140027465864d833505b11f";
    /// The field as Go's encoder writes it.
    const AUTHORITIES: [(&str, &str); 5] = [
        ("http://localhost:2379", "418f9d29aee30c50720e89ce84dc132ebf"),
        ("https://127.0.0.1:2379", "41909d29ad1718602275702e05c3704cbaff"),
        ("unix://localhost:1", "418db6a379b8c3141c83a273a13703"),
        ("unixs://localhost:1", "418eb6a37945c618a0e41d139d09b81f"),
        ("#initially=[http://localhost:2379]", "419bffa35464987451ea0ffdce94d7718628390744e7426e09975fffe7"),
    ];
    const FINE: &str = "418aa0e41d139d09b8265d7f"; // localhost:2379
    const ETCD: &str = "410465746364";

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&size[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn headers(fields: &str) -> Vec<u8> {
        frame(1, 4, &bytes(fields))
    }

    fn connection(frames: &[Vec<u8>]) -> Vec<u8> {
        [PREFACE, &frame(4, 0, &[]), &frames.concat()].concat()
    }

    /// What is read of a connection whose bytes arrive in pieces of this size.
    fn read(sent: &[u8], piece: usize) -> Vec<u8> {
        let (mut filter, mut out) = (Filter::default(), Vec::new());
        for piece in sent.chunks(piece) {
            filter.push(piece, &mut out);
            assert!(filter.held.len() < FRAME_HEADER_BYTES + super::FRAME_BYTES_MAX);
        }
        filter.end(&mut out);
        out
    }

    fn check(sent: &[Vec<u8>], expected: &[Vec<u8>]) {
        let (sent, expected) = (connection(sent), connection(expected));
        for piece in [1, 2, 7, 30, 4096] {
            assert_eq!(read(&sent, piece), expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn an_authority_with_a_scheme_is_replaced_and_everything_else_stays() {
        for (authority, field) in AUTHORITIES {
            println!("{authority}");
            let expected = headers(&format!("{BEFORE}{ETCD}{BEHIND}"));
            check(&[headers(&format!("{BEFORE}{field}{BEHIND}"))], std::slice::from_ref(&expected));
            // Without Huffman code, and as a field that may not be compressed.
            let mut plain = format!("{:02x}", authority.len());
            authority.bytes().for_each(|byte| write!(plain, "{byte:02x}").unwrap());
            check(&[headers(&format!("{BEFORE}41{plain}{BEHIND}"))], &[expected]);
            let expected = headers(&format!("{BEFORE}11{}{BEHIND}", &ETCD[2..]));
            check(&[headers(&format!("{BEFORE}11{plain}{BEHIND}"))], &[expected]);
        }
    }

    #[test]
    fn every_later_request_of_such_a_connection_is_looked_at_too() {
        let malformed = || headers(&format!("{BEFORE}{}{BEHIND}", AUTHORITIES[0].1));
        let replaced = || headers(&format!("{BEFORE}{ETCD}{BEHIND}"));
        let (data, indexed) = (frame(0, 1, &[7; 20_000]), headers("8386c4c3c2c1c0bf"));
        check(
            &[malformed(), data.clone(), indexed.clone(), malformed()],
            &[replaced(), data, indexed, replaced()],
        );
    }

    #[test]
    fn padding_and_priority_are_kept() {
        let block = |field: &str| bytes(&format!("{BEFORE}{field}{BEHIND}"));
        let padded =
            |field: &str| frame(1, 0x2c, &[&[3, 0, 0, 0, 0, 9][..], &block(field), &[0, 0, 0]].concat());
        check(&[padded(AUTHORITIES[0].1)], &[padded(ETCD)]);
    }

    #[test]
    fn a_well_formed_connection_passes_through_from_its_first_request_on() {
        let (mut filter, mut out) = (Filter::default(), Vec::new());
        let sent = connection(&[headers(&format!("{BEFORE}{FINE}{BEHIND}")), frame(1, 4, b"whatever")]);
        filter.push(&sent, &mut out);
        assert_eq!((filter.position, out), (Position::Through, sent));
    }

    #[test]
    fn what_is_no_http2_or_damaged_is_left_to_be_refused() {
        for sent in
            [&b"GET /health HTTP/1.1\r\n\r\n"[..], b"PRI * HTTP/1.1\r\n\r\n", b"P", b"", &PREFACE[..5]]
        {
            assert_eq!(read(sent, 3), sent);
        }
        let whole = connection(&[headers(&format!("{BEFORE}{}{BEHIND}", AUTHORITIES[0].1))]);
        for end in 0..whole.len() {
            assert_eq!(read(&whole[..end], 5), &whole[..end], "cut at {end}");
        }
        // Header blocks that end early, or whose lengths point beyond them.
        for fields in [
            "",
            "41",
            "418f9d",
            "41ff",
            "41ffffffffff",
            "7fffffffffff",
            "00",
            "0003616263",
            "ffffffff",
            "3fff",
        ] {
            check(&[headers(fields)], &[headers(fields)]);
        }
        for flags in [0x8, 0x20, 0x28] {
            for payload in [&[][..], &[200], &[1, 2, 3]] {
                check(&[frame(1, flags, payload)], &[frame(1, flags, payload)]);
            }
        }
    }
}
