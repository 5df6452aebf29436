//! A run of the API servers as it is saved, one JSON object a line, so that it can be judged again.
//!
//! Invariant: what is read back is equal to what was written.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::api::history::{Attempt, Increment, Node, Observed, Stream, Toggle};
use crate::record::{Finding, Injected, lines, read};

/// Everything that a verdict needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recording {
    pub about: About,
    pub nodes: Vec<Node>,
    /// What the store itself told, one stream a kind.
    pub store: Vec<Stream>,
    pub streams: Vec<Stream>,
    pub increments: Vec<Increment>,
    pub toggles: Vec<Toggle>,
    pub observed: Vec<Observed>,
    pub attempts: Vec<Attempt>,
    pub faults: Vec<Injected>,
    pub findings: Vec<Finding>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct About {
    pub seed: u64,
    pub seconds: f64,
    pub members: usize,
    /// How the members were run, for people.
    pub level: String,
    /// Whether all streams came to the end.
    pub complete: bool,
    /// Per kind the version of the object that was created last of all.
    pub ends: Vec<(String, u64)>,
    /// From the end of the last fault until every API server answered and a new pod had a node.
    pub healed_ms: Option<u64>,
}

impl Recording {
    pub fn save(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        fs::write(dir.join("about-api.json"), serde_json::to_vec_pretty(&self.about)?)?;
        lines(dir, "nodes", &self.nodes)?;
        lines(dir, "store", &self.store)?;
        lines(dir, "streams", &self.streams)?;
        lines(dir, "increments", &self.increments)?;
        lines(dir, "toggles", &self.toggles)?;
        lines(dir, "observed", &self.observed)?;
        lines(dir, "attempts", &self.attempts)?;
        lines(dir, "faults", &self.faults)?;
        lines(dir, "findings", &self.findings)
    }

    /// Whether `dir` holds such a run.
    pub fn is_in(dir: &Path) -> bool {
        dir.join("about-api.json").is_file()
    }

    pub fn load(dir: &Path) -> Result<Recording> {
        let about =
            fs::read(dir.join("about-api.json")).with_context(|| format!("no run in {}", dir.display()))?;
        Ok(Recording {
            about: serde_json::from_slice(&about)?,
            nodes: read(dir, "nodes")?,
            store: read(dir, "store")?,
            streams: read(dir, "streams")?,
            increments: read(dir, "increments")?,
            toggles: read(dir, "toggles")?,
            observed: read(dir, "observed")?,
            attempts: read(dir, "attempts")?,
            faults: read(dir, "faults")?,
            findings: read(dir, "findings")?,
        })
    }
}
