//! A run as it is saved: what clients, watchers and the harness saw, one JSON object a line, so that it can be judged
//! again without being repeated.
//!
//! Invariant: what is read back is equal to what was written. All times are nanoseconds since the run's start.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::history::Operation;
use crate::leases::Lease;
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
pub const FILES: [&str; 9] =
    ["operations", "faults", "cluster", "reads", "starts", "leases", "sections", "findings", "watches"];

#[derive(Serialize, Deserialize)]
#[serde(tag = "what")]
pub(crate) enum Watched {
    Event { member: usize, event: Event },
    Progress { member: usize, progress: Progress },
}

impl Recording {
    pub fn save(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        fs::write(dir.join("about.json"), serde_json::to_vec_pretty(&self.about)?)?;
        lines(dir, "operations", &self.operations)?;
        lines(dir, "faults", &self.faults)?;
        lines(dir, "cluster", &self.samples)?;
        lines(dir, "reads", &self.reads)?;
        lines(dir, "starts", &self.starts)?;
        lines(dir, "leases", &self.leases)?;
        lines(dir, "sections", &self.sections)?;
        lines(dir, "findings", &self.findings)?;
        let watched = self.streams.iter().enumerate().flat_map(|(member, stream)| {
            let events = stream.events.iter().map(move |event| Watched::Event { member, event: *event });
            let progress =
                stream.progress.iter().map(move |progress| Watched::Progress { member, progress: *progress });
            events.chain(progress)
        });
        lines(dir, "watches", &watched.collect::<Vec<_>>())
    }

    pub fn load(dir: &Path) -> Result<Recording> {
        let about =
            fs::read(dir.join("about.json")).with_context(|| format!("no run in {}", dir.display()))?;
        let about: About = serde_json::from_slice(&about)?;
        let mut streams = vec![Stream::default(); about.members];
        for watched in read::<Watched>(dir, "watches")? {
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
            operations: read(dir, "operations")?,
            streams,
            faults: read(dir, "faults")?,
            samples: read(dir, "cluster")?,
            reads: read(dir, "reads")?,
            starts: read(dir, "starts")?,
            leases: read(dir, "leases")?,
            sections: read(dir, "sections")?,
            findings: read(dir, "findings")?,
        })
    }
}

pub(crate) fn lines<T: Serialize>(dir: &Path, name: &str, records: &[T]) -> Result<()> {
    let mut file = BufWriter::new(File::create(dir.join(format!("{name}.jsonl")))?);
    for record in records {
        serde_json::to_writer(&mut file, record)?;
        file.write_all(b"\n")?;
    }
    Ok(file.flush()?)
}

pub(crate) fn read<T: DeserializeOwned>(dir: &Path, name: &str) -> Result<Vec<T>> {
    let path = dir.join(format!("{name}.jsonl"));
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut records = Vec::new();
    // A harness that was killed may have left a part of a line.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for (number, line) in whole.lines().enumerate() {
        let record =
            serde_json::from_str(line).with_context(|| format!("{}, line {}", path.display(), number + 1))?;
        records.push(record);
    }
    Ok(records)
}
