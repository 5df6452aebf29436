//! SER: serializable reads and reads at a past revision equal the state that the log gives for the revision they name,
//! and through one process of a member a client's serializable reads never go back.
//!
//! Such reads may be old, so they are no operations of linear.rs.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::history::{Entry, Key, Violation};
use crate::log::Log;

/// An answered read that was allowed to be old.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    pub client: usize,
    pub member: usize,
    pub call_ns: u64,
    pub return_ns: u64,
    pub key: Key,
    /// The revision that was asked for; `None`: whatever the member has, without asking the others.
    pub at: Option<i64>,
    /// Of the answer's header.
    pub revision: i64,
    pub entry: Option<Entry>,
}

/// A process of a member was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    pub member: usize,
    pub at_ns: u64,
}

/// The number of reads checked. `reads` of one client are in the order in which it made them.
pub fn check(log: &Log, reads: &[Read], starts: &[Started]) -> Result<usize, Violation> {
    let mut last: HashMap<(usize, usize), &Read> = HashMap::new();
    for read in reads {
        let as_of = read.at.unwrap_or(read.revision);
        if as_of > log.last_revision() || read.revision > log.last_revision() {
            return Err(format!("no member told of revision {as_of} in a watch, but {read:?}").into());
        }
        if as_of > read.revision {
            return Err(format!("answered from a revision that the member did not have: {read:?}").into());
        }
        let held = log.entry(read.key, as_of);
        if held != read.entry {
            return Err(format!("the state at revision {as_of} was {held:?}, but {read:?}").into());
        }
        if let Some(before) = last.insert((read.client, read.member), read)
            && before.revision > read.revision
            && !restarted(starts, read.member, before.call_ns, read.return_ns)
        {
            let sentence = format!(
                "client {} saw member {} go back from revision {} to {}: {before:?}, then {read:?}",
                read.client, read.member, before.revision, read.revision
            );
            return Err(sentence.into());
        }
    }
    Ok(reads.len())
}

fn restarted(starts: &[Started], member: usize, from_ns: u64, until_ns: u64) -> bool {
    starts.iter().any(|start| start.member == member && (from_ns..=until_ns).contains(&start.at_ns))
}
