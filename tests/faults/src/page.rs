//! The report of a run for people: one HTML file that holds its data and needs no network.
//!
//! Invariant: it stays a few megabytes large: of a long run it shows all operations around the violation, and an even
//! sample of the others. Not here: the figures (judge.rs) and what is decided.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value as Json, json};

use crate::history::{Operation, Outcome, Violation};
use crate::judge::{Judgement, State, figures};
use crate::log::Log;
use crate::record::Recording;

const TEMPLATE: &str = include_str!("page.html");
const OPERATIONS_MAX: usize = 12_000;
/// Operations before and after the violation that are all shown.
const AROUND: usize = 1_000;

/// Writes `report.json`, `report.html` and the recording into `dir`.
pub fn write(dir: &Path, recording: &Recording, judgement: &Judgement) -> Result<()> {
    recording.save(dir)?;
    let figures = figures(recording, judgement);
    fs::write(dir.join("report.json"), serde_json::to_vec_pretty(&figures)?)?;
    let html = html(recording, judgement, &figures);
    fs::write(dir.join("report.html"), html).with_context(|| format!("cannot write into {}", dir.display()))
}

fn html(recording: &Recording, judgement: &Judgement, figures: &Json) -> String {
    let data = data(recording, judgement, figures).to_string();
    // In a script element only this could end the data early.
    let data = data.replace("</", "<\\/").replace("<!--", "<\\!--");
    TEMPLATE.replace("SEED", &recording.about.seed.to_string()).replacen("DATA", &data, 1)
}

fn data(recording: &Recording, judgement: &Judgement, figures: &Json) -> Json {
    let operations = &recording.operations;
    let first = judgement.violations().find_map(|verdict| verdict.violation.as_ref()?.operation);
    let ms = |ns: u64| (ns / 1_000) as f64 / 1_000.0;
    let faults: Vec<Json> = recording
        .faults
        .iter()
        .map(|fault| {
            json!({
                "kind": fault.kind, "target": fault.target, "members": fault.members,
                "from": ms(fault.began_ns), "to": ms(fault.ended_ns),
                "effect": fault.effect, "evidence": fault.evidence,
            })
        })
        .collect();
    let samples: Vec<Json> = recording
        .samples
        .iter()
        .map(|sample| {
            json!([
                ms(sample.at_ns),
                sample.member,
                sample.answered,
                sample.leads,
                sample.term,
                sample.revision,
                sample.resident_kib,
                sample.descriptors
            ])
        })
        .collect();
    let shown: Vec<Json> = chosen(operations, first)
        .map(|position| {
            let operation = &operations[position];
            let (state, revision) = match &operation.outcome {
                Outcome::Done(answer) => ("done", Some(answer.revision())),
                Outcome::Refused(_) => ("refused", None),
                Outcome::Unknown(_) => ("unknown", None),
            };
            let what =
                format!("m{}: {:?} -> {:?}", operation.member + 1, operation.request, operation.outcome);
            let cannot_be = u8::from(first == Some(position));
            json!([
                operation.client,
                ms(operation.call_ns),
                ms(operation.return_ns),
                state,
                revision,
                what,
                cannot_be
            ])
        })
        .collect();
    let mut returns: Vec<u64> = operations
        .iter()
        .filter(|operation| matches!(operation.outcome, Outcome::Done(_)))
        .map(|operation| operation.return_ns / 1_000_000)
        .collect();
    returns.sort_unstable();
    let last_ns = operations.iter().map(|operation| operation.return_ns);
    let last_ns = last_ns.chain(recording.faults.iter().map(|fault| fault.ended_ns)).max();
    json!({
        "figures": figures,
        "verdicts": judgement.verdicts.iter().map(|verdict| json!({
            "checker": verdict.checker,
            "meaning": verdict.meaning,
            "state": match verdict.state {
                State::Passed => "passed",
                State::Violated => "violated",
                State::Undecided => "undecided",
                State::Idle => "idle",
            },
            "checked": verdict.checked,
            "sentence": verdict.violation.as_ref().map(|violation| &violation.sentence),
            "first": verdict.violation.as_ref().and_then(|violation| of(operations, violation)).map(Operation::to_string),
            "before": verdict.violation.as_ref().and_then(|violation| model(&judgement.log, operations, violation, -1)),
            "after": verdict.violation.as_ref().and_then(|violation| model(&judgement.log, operations, violation, 0)),
        })).collect::<Vec<_>>(),
        "faults": faults,
        "samples": samples,
        "operations": shown,
        "returns": returns,
        "end_ms": ms(last_ns.unwrap_or(1_000_000)),
    })
}

fn of<'a>(operations: &'a [Operation], violation: &Violation) -> Option<&'a Operation> {
    operations.get(violation.operation?)
}

/// The state of the operation's key at its revision plus `offset`, as the log has it.
fn model(log: &Log, operations: &[Operation], violation: &Violation, offset: i64) -> Option<String> {
    let operation = of(operations, violation)?;
    let revision = match &operation.outcome {
        Outcome::Done(answer) => answer.revision(),
        Outcome::Refused(_) | Outcome::Unknown(_) => log.last_revision(),
    } + offset;
    let key = operation.request.key();
    Some(match log.entry(key, revision) {
        Some(entry) => format!("revision {revision}: key {key} holds {entry:?}"),
        None => format!("revision {revision}: key {key} is absent"),
    })
}

/// Positions of the operations that are shown.
fn chosen(operations: &[Operation], first: Option<usize>) -> impl Iterator<Item = usize> {
    // Clients follow each other in the list, so nearness in time is what counts.
    let mut by_time: Vec<usize> = (0..operations.len()).collect();
    by_time.sort_by_key(|position| operations[*position].call_ns);
    let place = first.and_then(|first| by_time.iter().position(|position| *position == first));
    let every = by_time.len().div_ceil(OPERATIONS_MAX).max(1);
    by_time.into_iter().enumerate().filter_map(move |(at, position)| {
        let near = place.is_some_and(|place| at.abs_diff(place) <= AROUND);
        (near || at % every == 0).then_some(position)
    })
}
