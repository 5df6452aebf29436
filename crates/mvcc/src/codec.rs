//! Bytes of commands and proposals.

use crate::command::{Command, Proposal};
use bytes::Bytes;

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

impl Command {
    pub fn encode(&self, _out: &mut Vec<u8>) {
        unimplemented!()
    }
    pub fn decode(_bytes: Bytes) -> Result<Command, DecodeError> {
        unimplemented!()
    }
}
impl Proposal {
    pub fn encode(&self, _out: &mut Vec<u8>) {
        unimplemented!()
    }
    /// Keys and values are slices of `bytes`: nothing is copied.
    pub fn decode(_bytes: Bytes) -> Result<Proposal, DecodeError> {
        unimplemented!()
    }
}
