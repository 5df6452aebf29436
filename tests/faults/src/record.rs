//! A run as it is saved (lines.rs): what clients, watchers and the harness saw, so that it can be judged again without
//! being repeated.
//!
//! Invariant: what is read back is equal to what was written. All times are nanoseconds since the run's start.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::history::Operation;
use crate::images::Image;
use crate::leases::Lease;
use crate::lines::{self, Workload};
use crate::locks::Section;
use crate::stale::{Read, Started};
use crate::watch::{Event, Progress, Stream};

/// Everything that a verdict needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recording {
    pub about: About,
    pub operations: Vec<Operation>,
    /// One per member.
    pub streams: Vec<Stream>,
    pub faults: Vec<Injected>,
    pub samples: Vec<Sample>,
    pub reads: Vec<Read>,
    pub starts: Vec<Started>,
    pub leases: Vec<Lease>,
    pub sections: Vec<Section>,
    pub images: Vec<Image>,
    /// What was decided while the cluster still ran.
    pub findings: Vec<Finding>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct About {
    pub seed: u64,
    pub seconds: f64,
    pub members: usize,
    /// How the members were run, for people.
    pub level: String,
    /// The kinds of faults that were drawn, if not all.
    #[serde(default)]
    pub only: Vec<String>,
    /// Whether the run came to its quiet end, so that all streams are complete.
    pub complete: bool,
    /// The fastest that a member's clock ran.
    pub drift: f64,
    pub compactions: usize,
    pub defragmentations: usize,
    /// From the end of the last fault until every member answered.
    pub healed_ms: Option<u64>,
    /// (member, revision, state hash) at the end.
    pub hashes: Vec<(usize, i64, u32)>,
}

/// A fault and what it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Injected {
    pub kind: String,
    pub target: String,
    pub members: Vec<usize>,
    pub began_ns: u64,
    pub ended_ns: u64,
    /// Zero: it did nothing. Otherwise packets dropped, processes stopped, calls that failed, bits changed, ...
    pub effect: u64,
    pub evidence: String,
}

/// What a member said of itself, and what its process used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    pub at_ns: u64,
    pub member: usize,
    pub answered: bool,
    pub leads: bool,
    pub term: u64,
    pub revision: i64,
    pub resident_kib: u64,
    pub descriptors: u64,
}

/// A violation that no history shows: a cluster that did not come back, members that differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub checker: String,
    pub sentence: String,
}

/// The files of a recording, without `.jsonl`.
pub const FILES: [&str; 10] = [
    "operations",
    "faults",
    "cluster",
    "reads",
    "starts",
    "leases",
    "sections",
    "images",
    "findings",
    "watches",
];

#[derive(Serialize, Deserialize)]
#[serde(tag = "what")]
pub(crate) enum Watched {
    Event { member: usize, event: Event },
    Progress { member: usize, progress: Progress },
}

impl Recording {
    pub fn save(&self, dir: &Path) -> Result<()> {
        lines::begin(dir, Workload::Store, &self.about)?;
        lines::write(dir, "operations", &self.operations)?;
        lines::write(dir, "faults", &self.faults)?;
        lines::write(dir, "cluster", &self.samples)?;
        lines::write(dir, "reads", &self.reads)?;
        lines::write(dir, "starts", &self.starts)?;
        lines::write(dir, "leases", &self.leases)?;
        lines::write(dir, "sections", &self.sections)?;
        lines::write(dir, "images", &self.images)?;
        lines::write(dir, "findings", &self.findings)?;
        let watched = self.streams.iter().enumerate().flat_map(|(member, stream)| {
            let events = stream.events.iter().map(move |event| Watched::Event { member, event: *event });
            let progress =
                stream.progress.iter().map(move |progress| Watched::Progress { member, progress: *progress });
            events.chain(progress)
        });
        lines::write(dir, "watches", &watched.collect::<Vec<_>>())
    }

    pub fn load(dir: &Path) -> Result<Recording> {
        let (_, about) = lines::about::<About>(dir)?;
        let mut streams = vec![Stream::default(); about.members];
        for watched in lines::read::<Watched>(dir, "watches")? {
            let member = match watched {
                Watched::Event { member, .. } | Watched::Progress { member, .. } => member,
            };
            let stream = streams.get_mut(member).context("a watch through a member that there is not")?;
            match watched {
                Watched::Event { event, .. } => stream.events.push(event),
                Watched::Progress { progress, .. } => stream.progress.push(progress),
            }
        }
        Ok(Recording {
            about,
            operations: lines::read(dir, "operations")?,
            streams,
            faults: lines::read(dir, "faults")?,
            samples: lines::read(dir, "cluster")?,
            reads: lines::read(dir, "reads")?,
            starts: lines::read(dir, "starts")?,
            leases: lines::read(dir, "leases")?,
            sections: lines::read(dir, "sections")?,
            images: lines::read(dir, "images")?,
            findings: lines::read(dir, "findings")?,
        })
    }
}
