//! What clients of the API servers asked and were told.
//!
//! Times are nanoseconds of the harness's monotonic clock; versions are `resourceVersion`s, which are revisions of the
//! store. Of an object only what a checker looks at is kept, and a digest of all of it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::history::seconds;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Facts {
    /// A ConfigMap that counts; `writer` names the increment that wrote it (0: its creation).
    Counter {
        count: u64,
        writer: u64,
    },
    Pod {
        node: Option<String>,
        cpu_m: u64,
        /// Only nodes with this disk will do.
        disk: Option<String>,
        /// Nothing checks it; it explains what the scheduler counts.
        #[serde(default)]
        phase: String,
        /// Likewise.
        #[serde(default)]
        deleting: bool,
    },
    /// A RoleBinding; `grant` names the request that created it.
    Binding {
        grant: u64,
    },
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    pub name: String,
    pub uid: String,
    pub version: u64,
    /// Of the whole object, so that two members that tell different ones are found.
    pub digest: u64,
    pub facts: Facts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    Added,
    Modified,
    Deleted,
}

/// What a client that lists and then watches was told, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    List {
        version: u64,
        at_ns: u64,
        objects: Vec<Object>,
    },
    /// A deleted object is its last state, with the version of the deletion.
    Event {
        change: Change,
        object: Object,
        at_ns: u64,
    },
    /// Everything up to this version has been told.
    Bookmark {
        version: u64,
    },
}

impl Told {
    /// When, if that was written down.
    pub fn at_ns(&self) -> Option<u64> {
        match self {
            Told::List { at_ns, .. } | Told::Event { at_ns, .. } => Some(*at_ns),
            Told::Bookmark { .. } => None,
        }
    }
}

/// One client's list and watches of one kind in one namespace, through one member, however often it had to resume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    pub member: usize,
    /// `configmaps`, `pods`, `rolebindings`
    pub plural: String,
    pub told: Vec<Told>,
    /// How often a watch went on behind the last version that it had told.
    pub resumed: usize,
}

impl Stream {
    /// One thing that it was told, as a stream of its own: what was told is the same in pieces.
    pub fn piece(&self, told: Told) -> Stream {
        Stream { member: self.member, plural: self.plural.clone(), told: vec![told], resumed: 0 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// At this version.
    Done(u64),
    /// Certainly without effect.
    Refused(String),
    /// It may have happened.
    Unknown(String),
}

/// A counter is read and written back with one more, guarded by the version that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Increment {
    pub client: usize,
    pub member: usize,
    pub name: String,
    pub read_call_ns: u64,
    pub read_version: u64,
    pub read_count: u64,
    /// Names this write; greater than zero.
    pub writer: u64,
    pub call_ns: u64,
    pub return_ns: u64,
    pub outcome: Outcome,
}

/// Where pods may be put; no node changes during a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub name: String,
    pub cpu_m: u64,
    pub pods: u64,
    pub disk: Option<String>,
    pub cordoned: bool,
}

/// Rights are given by creating a RoleBinding, taken by deleting it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toggle {
    /// Names the binding.
    pub grant: u64,
    /// It is created, otherwise deleted.
    pub gives: bool,
    pub call_ns: u64,
}

/// Through `member` somebody was told the state of bindings at `version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    pub member: usize,
    pub version: u64,
    pub at_ns: u64,
}

/// A request by somebody who may make it only while the binding is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    pub member: usize,
    pub call_ns: u64,
    pub return_ns: u64,
    pub allowed: bool,
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Facts::Counter { count, writer } => write!(f, "count {count}, by increment {writer}"),
            Facts::Pod { node, cpu_m, disk, phase, deleting } => {
                write!(f, "{cpu_m}m CPU")?;
                if let Some(disk) = disk {
                    write!(f, ", disk {disk}")?;
                }
                match node {
                    Some(node) => write!(f, ", on {node}")?,
                    None => f.write_str(", on no node")?,
                }
                if !phase.is_empty() {
                    write!(f, ", {phase}")?;
                }
                if *deleting { f.write_str(", being deleted") } else { Ok(()) }
            }
            Facts::Binding { grant } => write!(f, "grant {grant}"),
            Facts::Other => f.write_str("nothing that is checked"),
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at version {} ({})", self.name, self.version, self.facts)
    }
}

/// What somebody told of an object.
pub fn told(change: Change, object: &Object) -> String {
    let change = match change {
        Change::Added => "added",
        Change::Modified => "modified",
        Change::Deleted => "deleted",
    };
    format!("{change} {object}")
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Done(version) => write!(f, "done at version {version}"),
            Outcome::Refused(why) => write!(f, "refused: {why}"),
            Outcome::Unknown(why) => write!(f, "outcome unknown: {why}"),
        }
    }
}

impl Increment {
    /// Without who asked and when.
    pub fn asked(&self) -> String {
        let Increment { name, read_version, read_count, writer, outcome, .. } = self;
        format!(
            "increment {writer}: {name} from {read_count} (version {read_version}) to {} -> {outcome}",
            read_count + 1
        )
    }
}

impl fmt::Display for Increment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (seconds(self.read_call_ns), seconds(self.return_ns));
        write!(f, "client {} through m{} from {from} to {to}: {}", self.client, self.member + 1, self.asked())
    }
}
