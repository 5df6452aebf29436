//! YAML bodies, read into the same trees as JSON and under the same rules; and trees written as YAML.
//!
//! One document per body. Aliases are expanded, with a bound on how much they may grow; tags other than YAML's own are
//! ignored. Complaints about repeated members have the text that JSON gives them.

use serde::de::Error as _;
use serde_saphyr::{DuplicateKeyPolicy, MergeKeyPolicy};

use crate::Value;
use crate::json::{self, DEPTH_MAX, TreeError};

/// Most parser events of one document, those of expanded aliases included.
const EVENTS_MAX: usize = 500_000;

#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("error converting YAML to JSON: {0}")]
    Syntax(Box<serde_saphyr::Error>),
    #[error("exceeded max depth of {DEPTH_MAX}")]
    TooDeep,
}

/// Reads one YAML document, of which JSON is one form. Returns the tree and complaints about repeated members.
pub fn decode(bytes: &[u8]) -> Result<(Value, Vec<String>), DecodeError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX + 1, // so that ours is met first
            max_events: EVENTS_MAX,
            max_aliases: 10_000,
            max_anchors: 10_000,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: EVENTS_MAX },
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        merge_keys: MergeKeyPolicy::Merge,
        with_snippet: false,
    };
    let mut too_deep = false;
    let result = serde_saphyr::with_deserializer_from_slice_with_options(bytes, options, |deserializer| {
        json::tree(deserializer).map_err(|error| match error {
            TreeError::Syntax(error) => error,
            TreeError::TooDeep => {
                too_deep = true;
                serde_saphyr::Error::custom("exceeded max depth")
            }
        })
    });
    match result {
        Ok(read) => Ok(read),
        Err(_) if too_deep => Err(DecodeError::TooDeep),
        Err(error) => Err(DecodeError::Syntax(Box::new(error))),
    }
}

/// Writes a tree as YAML, lists not indented, as kubectl shows them.
pub fn encode(value: &Value) -> String {
    let options = serde_saphyr::ser_options! { compact_list_indent: true, empty_as_braces: true };
    // A JSON tree has nothing that YAML cannot hold.
    serde_saphyr::to_string_with_options(value, options).unwrap_or_default()
}

#[cfg(test)]
mod tests;
