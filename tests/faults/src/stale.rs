//! SER: serializable reads and reads at a past revision equal the state that the log gives for the revision they name,
//! and through one process of a member a client's serializable reads never go back.
//!
//! Such reads may be old, so they are no operations of linear.rs.

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::history::{self, Entry, Key, Violation, key_name, seconds};
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

impl fmt::Display for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "client {} through m{} from {} to {}: read {}",
            self.client,
            self.member + 1,
            seconds(self.call_ns),
            seconds(self.return_ns),
            key_name(self.key)
        )?;
        match self.at {
            Some(at) => write!(f, " as of revision {at}")?,
            None => write!(f, ", however old")?,
        }
        write!(f, " -> {}, at revision {}", history::held(self.entry), self.revision)
    }
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
        let says = |sentence| Err(Violation::seen(read.call_ns, sentence));
        let as_of = read.at.unwrap_or(read.revision);
        if as_of > log.last_revision() || read.revision > log.last_revision() {
            return says(format!("no member told of revision {as_of} in a watch, but {read}"));
        }
        if as_of > read.revision {
            return says(format!("answered from a revision that the member did not have: {read}"));
        }
        let held = log.entry(read.key, as_of);
        if held != read.entry {
            return says(format!("at revision {as_of} the key is {}, but {read}", history::held(held)));
        }
        if let Some(before) = last.insert((read.client, read.member), read)
            && before.revision > read.revision
            && !restarted(starts, read.member, before.call_ns, read.return_ns)
        {
            return says(format!(
                "client {} saw m{} go back from revision {} to {}: {before}; then {read}",
                read.client,
                read.member + 1,
                before.revision,
                read.revision
            ));
        }
    }
    Ok(reads.len())
}

fn restarted(starts: &[Started], member: usize, from_ns: u64, until_ns: u64) -> bool {
    starts.iter().any(|start| start.member == member && (from_ns..=until_ns).contains(&start.at_ns))
}
