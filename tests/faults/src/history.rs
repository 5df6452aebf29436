//! What clients asked, what they were told, and when.
//!
//! Times are nanoseconds of the harness's monotonic clock, the only clock that is compared. Every value that is written
//! is written once in a run, so a value names its write.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One of the keys of a run.
pub type Key = u32;
/// Names the write that wrote it.
pub type Value = u64;

/// Keys from here on belong to leases and locks: they also go without being asked, and leases.rs and locks.rs decide
/// about them. Numbers below are the keys of [`Operation`]s.
pub const LEASED: Key = 1_000;

/// What cannot have been, as a sentence that a person understands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub sentence: String,
    /// Position of the first operation that cannot be explained, if it is one.
    pub operation: Option<usize>,
    /// When it was seen, if it is no operation but was seen at one moment.
    pub at_ns: Option<u64>,
}

impl Violation {
    pub fn at(operation: usize, sentence: String) -> Violation {
        Violation { sentence, operation: Some(operation), at_ns: None }
    }

    pub fn seen(at_ns: u64, sentence: String) -> Violation {
        Violation { sentence, operation: None, at_ns: Some(at_ns) }
    }
}

impl From<String> for Violation {
    fn from(sentence: String) -> Violation {
        Violation { sentence, operation: None, at_ns: None }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Linearizable.
    Get {
        key: Key,
    },
    Put {
        key: Key,
        value: Value,
    },
    Delete {
        key: Key,
    },
    /// A transaction: if the key's modification revision is `expected_revision`, put; else get.
    /// `expected` is the value that the client saw at that revision (`None` with revision 0: absent).
    Swap {
        key: Key,
        expected_revision: i64,
        expected: Option<Value>,
        value: Value,
    },
}

impl Request {
    pub fn key(&self) -> Key {
        match *self {
            Request::Get { key }
            | Request::Put { key, .. }
            | Request::Delete { key }
            | Request::Swap { key, .. } => key,
        }
    }

    pub fn value(&self) -> Option<Value> {
        match *self {
            Request::Put { value, .. } | Request::Swap { value, .. } => Some(value),
            Request::Get { .. } | Request::Delete { .. } => None,
        }
    }
}

/// What a key held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub value: Value,
    pub create_revision: i64,
    pub mod_revision: i64,
    pub version: i64,
}

/// An answer; `revision` is that of its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Found {
        revision: i64,
        entry: Option<Entry>,
    },
    Put {
        revision: i64,
    },
    Deleted {
        revision: i64,
        existed: bool,
    },
    Swapped {
        revision: i64,
    },
    /// The comparison failed; what was there instead.
    Kept {
        revision: i64,
        entry: Option<Entry>,
    },
}

impl Answer {
    pub fn revision(&self) -> i64 {
        match *self {
            Answer::Found { revision, .. }
            | Answer::Put { revision }
            | Answer::Deleted { revision, .. }
            | Answer::Swapped { revision }
            | Answer::Kept { revision, .. } => revision,
        }
    }

    /// Whether a change was made at `revision`.
    pub fn changed(&self) -> bool {
        matches!(self, Answer::Put { .. } | Answer::Swapped { .. } | Answer::Deleted { existed: true, .. })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Done(Answer),
    /// Certainly without effect.
    Refused(String),
    /// It may have happened, or may still happen.
    Unknown(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    pub client: usize,
    /// Position of the member that was asked.
    pub member: usize,
    pub call_ns: u64,
    pub return_ns: u64,
    pub request: Request,
    pub outcome: Outcome,
}

/// What clients call the key.
pub fn key_name(key: Key) -> String {
    format!("k/{key}")
}

/// What a key holds, for people.
pub fn held(entry: Option<Entry>) -> String {
    entry.map_or_else(|| "absent".to_owned(), |entry| entry.to_string())
}

/// A moment of a run, for people.
pub fn seconds(at_ns: u64) -> String {
    format!("{:.6} s", std::time::Duration::from_nanos(at_ns).as_secs_f64())
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = key_name(self.key());
        match self {
            Request::Get { .. } => write!(f, "read {key}"),
            Request::Put { value, .. } => write!(f, "put {key} = {value}"),
            Request::Delete { .. } => write!(f, "delete {key}"),
            Request::Swap { expected_revision: 0, value, .. } => {
                write!(f, "put {key} = {value} if it is absent")
            }
            Request::Swap { expected_revision, value, .. } => {
                write!(f, "put {key} = {value} if it is unchanged since revision {expected_revision}")
            }
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { value, create_revision, mod_revision, version } = self;
        write!(
            f,
            "{value} (version {version}, created at revision {create_revision}, written at {mod_revision})"
        )
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let revision = self.revision();
        match self {
            Answer::Found { entry, .. } => write!(f, "{}, at revision {revision}", held(*entry)),
            Answer::Put { .. } | Answer::Swapped { .. } => write!(f, "done at revision {revision}"),
            Answer::Deleted { existed: true, .. } => write!(f, "deleted at revision {revision}"),
            Answer::Deleted { existed: false, .. } => write!(f, "nothing to delete at revision {revision}"),
            Answer::Kept { entry, .. } => {
                write!(f, "not done, it is {}, at revision {revision}", held(*entry))
            }
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Done(answer) => answer.fmt(f),
            Outcome::Refused(why) => write!(f, "refused: {why}"),
            Outcome::Unknown(why) => write!(f, "outcome unknown: {why}"),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "client {} through m{} from {} to {}: {} -> {}",
            self.client,
            self.member + 1,
            seconds(self.call_ns),
            seconds(self.return_ns),
            self.request,
            self.outcome
        )
    }
}
