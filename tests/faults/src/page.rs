//! The report of a run for people: one HTML file that holds its data and needs no network, whatever the workload.
//!
//! Invariants: what is shown is what was recorded; of a long run all that went wrong and an even sample of the rest, and
//! then the page says so. Times are microseconds. Not here: what is decided (judge.rs), and what a workload shows
//! (page/store.rs, api/page.rs).

pub mod store;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::{Value as Json, json};

use crate::judge::Verdict;
use crate::record::{Injected, Sample};

const TEMPLATE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/style.css");
const SCRIPT: &str = include_str!("page/script.js");

/// What the page shows of a run.
#[derive(Serialize)]
pub struct Page {
    pub product: &'static str,
    pub title: String,
    /// One sentence on how much was done.
    pub summary: String,
    /// How the members were run.
    pub level: String,
    pub members: usize,
    /// Why the run proves nothing, if so.
    pub invalid: Option<String>,
    /// Name, value, and what follows it in small letters.
    pub tiles: Vec<(&'static str, String, &'static str)>,
    pub verdicts: Vec<Card>,
    pub faults: Vec<Json>,
    pub samples: Vec<Json>,
    /// What is looked for in a run, as an example.
    pub find: &'static str,
    /// Names of what a bar can be, each with what it means; script.js treats `unknown`, `refused` and `bad` as such.
    pub styles: Vec<(&'static str, &'static str)>,
    pub lanes: Vec<Lane>,
    /// What the lanes are whose times and rates are drawn.
    pub measured: &'static str,
    pub figures: Json,
    pub end: u64,
    /// The commands that run it and judge it again.
    pub repeat: String,
    pub again: String,
}

/// A verdict, and on a violation what a person needs to understand it.
#[derive(Serialize)]
pub struct Card {
    checker: &'static str,
    meaning: &'static str,
    unit: &'static str,
    state: &'static str,
    checked: usize,
    sentence: String,
    /// Where in the timeline it is.
    pub at: Option<u64>,
    pub until: Option<u64>,
    pub lane: Option<usize>,
    /// The model's state, as name and value.
    pub model: Vec<(&'static str, String)>,
    pub history_of: String,
    /// Rows of the history around it, and whether it is this one.
    pub history: Vec<(bool, Vec<String>)>,
}

impl Card {
    pub fn new(verdict: &Verdict) -> Card {
        let violation = verdict.violation.as_ref();
        Card {
            checker: verdict.checker,
            meaning: verdict.meaning,
            unit: verdict.unit,
            state: verdict.state.name(),
            checked: verdict.checked,
            sentence: violation.map_or_else(String::new, |violation| violation.sentence.clone()),
            at: violation.and_then(|violation| violation.at_ns).map(us),
            until: None,
            lane: None,
            model: Vec::new(),
            history_of: String::new(),
            history: Vec::new(),
        }
    }
}

/// A row of bars, column by column, in order of their beginning.
#[derive(Serialize)]
pub struct Lane {
    pub group: &'static str,
    pub name: String,
    /// Whether how long its bars are says how fast the servers are.
    pub measured: bool,
    /// Lines that its bars are on.
    pub rows: usize,
    row: Vec<usize>,
    from: Vec<u64>,
    to: Vec<u64>,
    style: Vec<usize>,
    text: Vec<String>,
}

/// Something that began and ended; `style` is a position in [`Page::styles`].
pub struct Bar {
    pub from_ns: u64,
    pub to_ns: u64,
    pub style: usize,
    pub text: String,
}

impl Lane {
    pub fn new(group: &'static str, name: String, measured: bool, mut bars: Vec<Bar>) -> Lane {
        bars.sort_by_key(|bar| (bar.from_ns, bar.to_ns));
        Lane {
            group,
            name,
            measured,
            rows: 1,
            row: Vec::new(),
            from: bars.iter().map(|bar| us(bar.from_ns)).collect(),
            to: bars.iter().map(|bar| us(bar.to_ns)).collect(),
            style: bars.iter().map(|bar| bar.style).collect(),
            text: bars.into_iter().map(|bar| bar.text).collect(),
        }
    }

    /// Bars that overlap get lines of their own.
    pub fn stacked(mut self) -> Lane {
        let mut ends: Vec<u64> = Vec::new();
        for (from, to) in self.from.iter().zip(&self.to) {
            let free = ends.iter().position(|end| end <= from);
            let row = free.unwrap_or(ends.len());
            match free {
                Some(row) => ends[row] = *to,
                None => ends.push(*to),
            }
            self.row.push(row);
        }
        self.rows = ends.len().max(1);
        self
    }
}

pub fn us(ns: u64) -> u64 {
    ns / 1_000
}

pub fn faults(faults: &[Injected]) -> Vec<Json> {
    let fault = |fault: &Injected| {
        json!({
            "kind": fault.kind, "target": fault.target, "members": fault.members,
            "from": us(fault.began_ns), "to": us(fault.ended_ns),
            "effect": fault.effect, "evidence": fault.evidence,
        })
    };
    let mut sorted: Vec<&Injected> = faults.iter().collect();
    sorted.sort_by_key(|fault| fault.began_ns);
    sorted.into_iter().map(fault).collect()
}

pub fn samples(samples: &[Sample]) -> Vec<Json> {
    let sample = |sample: &Sample| {
        let Sample { at_ns, member, answered, leads, term, revision, resident_kib, descriptors } = *sample;
        json!([us(at_ns), member, answered, leads, term, revision, resident_kib, descriptors])
    };
    samples.iter().map(sample).collect()
}

/// A number as people read it.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join("\u{202f}")
}

/// Milliseconds as people read them; a dash if there are none.
pub fn milliseconds(ms: Option<f64>) -> (String, &'static str) {
    match ms {
        None => ("-".to_owned(), ""),
        Some(ms) if ms < 10.0 => (format!("{ms:.2}"), "ms"),
        Some(ms) if ms < 1_000.0 => (format!("{ms:.0}"), "ms"),
        Some(ms) => (format!("{:.1}", ms / 1_000.0), "s"),
    }
}

/// The flag that draws these kinds of faults again.
pub fn only(kinds: &[String]) -> String {
    if kinds.is_empty() { String::new() } else { format!("--only {} ", kinds.join(",")) }
}

/// Writes `report.json` and `report.html` into `dir`.
pub fn write(dir: &Path, page: &Page) -> Result<()> {
    fs::write(dir.join("report.json"), serde_json::to_vec_pretty(&page.figures)?)?;
    fs::write(dir.join("report.html"), html(page)?)
        .with_context(|| format!("cannot write into {}", dir.display()))
}

fn html(page: &Page) -> Result<String> {
    // Whatever a text of the run holds, it ends neither the element that it is in nor begins another.
    let data = serde_json::to_string(page)?.replace('<', "\\u003c");
    let title = page.title.replace('&', "&amp;").replace('<', "&lt;");
    // The data comes last, so that nothing in it is taken for a place to fill.
    let html = TEMPLATE.replacen("@TITLE@", &title, 1).replacen("@STYLE@", STYLE, 1);
    Ok(html.replacen("@SCRIPT@", SCRIPT, 1).replacen("@DATA@", &data, 1))
}
