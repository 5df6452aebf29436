//! A run of the API servers as it is saved (lines.rs), so that it can be judged again.
//!
//! Invariant: what is read back is equal to what was written.

use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::api::history::{Attempt, Increment, Node, Observed, Stream, Toggle};
use crate::api::informers::Informed;
use crate::lines::{self, Workload};
use crate::record::{Finding, Injected, Sample};

/// Everything that a verdict needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recording {
    pub about: About,
    pub nodes: Vec<Node>,
    /// What the store itself told, one stream a kind.
    pub store: Vec<Stream>,
    pub streams: Vec<Stream>,
    pub informers: Vec<Informed>,
    pub increments: Vec<Increment>,
    pub toggles: Vec<Toggle>,
    pub observed: Vec<Observed>,
    pub attempts: Vec<Attempt>,
    pub faults: Vec<Injected>,
    /// What the members' stores said of themselves.
    pub samples: Vec<Sample>,
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
    /// Whether all streams came to the end.
    pub complete: bool,
    /// Per kind the version of the object that was created last of all.
    pub ends: Vec<(String, u64)>,
    /// From the end of the last fault until every API server answered and a new pod had a node.
    pub healed_ms: Option<u64>,
}

/// The files of a recording, without `.jsonl`.
pub const FILES: [&str; 11] = [
    "nodes",
    "store",
    "streams",
    "informers",
    "increments",
    "toggles",
    "observed",
    "attempts",
    "faults",
    "cluster",
    "findings",
];

/// A stream may have been written in pieces, in their order.
fn joined(pieces: Vec<Stream>, same: impl Fn(&Stream, &Stream) -> bool) -> Vec<Stream> {
    let mut streams: Vec<Stream> = Vec::new();
    for piece in pieces {
        match streams.iter_mut().find(|stream| same(stream, &piece)) {
            Some(stream) => {
                stream.told.extend(piece.told);
                stream.resumed += piece.resumed;
            }
            None => streams.push(piece),
        }
    }
    streams
}

fn joined_informers(pieces: Vec<Informed>) -> Vec<Informed> {
    let mut informers: Vec<Informed> = Vec::new();
    for piece in pieces {
        let same =
            |informed: &&mut Informed| (informed.member, &informed.plural) == (piece.member, &piece.plural);
        match informers.iter_mut().find(same) {
            Some(informed) => informed.heard.extend(piece.heard),
            None => informers.push(piece),
        }
    }
    informers
}

impl Recording {
    pub fn save(&self, dir: &Path) -> Result<()> {
        lines::begin(dir, Workload::Api, &self.about)?;
        lines::write(dir, "nodes", &self.nodes)?;
        lines::write(dir, "store", &self.store)?;
        lines::write(dir, "streams", &self.streams)?;
        lines::write(dir, "informers", &self.informers)?;
        lines::write(dir, "increments", &self.increments)?;
        lines::write(dir, "toggles", &self.toggles)?;
        lines::write(dir, "observed", &self.observed)?;
        lines::write(dir, "attempts", &self.attempts)?;
        lines::write(dir, "faults", &self.faults)?;
        lines::write(dir, "cluster", &self.samples)?;
        lines::write(dir, "findings", &self.findings)
    }

    pub fn load(dir: &Path) -> Result<Recording> {
        Ok(Recording {
            about: lines::about(dir)?.1,
            nodes: lines::read(dir, "nodes")?,
            // The store's is followed through one member after another.
            store: joined(lines::read(dir, "store")?, |one, other| one.plural == other.plural),
            streams: joined(lines::read(dir, "streams")?, |one, other| {
                (one.member, &one.plural) == (other.member, &other.plural)
            }),
            informers: joined_informers(lines::read(dir, "informers")?),
            increments: lines::read(dir, "increments")?,
            toggles: lines::read(dir, "toggles")?,
            observed: lines::read(dir, "observed")?,
            attempts: lines::read(dir, "attempts")?,
            faults: lines::read(dir, "faults")?,
            samples: lines::read(dir, "cluster")?,
            findings: lines::read(dir, "findings")?,
        })
    }
}
