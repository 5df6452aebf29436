//! All checkers on one run of the API servers, and whether the run was worth anything.
//!
//! Invariant: a checker that had nothing to look at says so and is not counted as passed.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use crate::api::history::{Outcome, Stream, Told};
use crate::api::informers::{self, Informed};
use crate::api::record::Recording;
use crate::api::truth::{self, Truth};
use crate::api::{counters, placement, rights};
use crate::history::Violation;
use crate::judge::{self, Checker, State, Verdict};

/// Below these a run says nothing.
pub const INCREMENTS_MIN: usize = 20;
const BOUND_MIN: usize = 5;

const CHECKERS: [Checker; 6] = [
    (
        "UPD",
        "no guarded update is lost, done twice, or done on what was not read; reads are fresh",
        "updates",
    ),
    ("PLC", "a pod gets a node once, and only one that can take it", "placements"),
    (
        "API-WAT",
        "watches and lists of all API servers tell one history, in order and complete, also over restarts",
        "events",
    ),
    (
        "API-INF",
        "our informers never go back, tell what was, and end with what the store holds",
        "deliveries",
    ),
    (
        "RBA",
        "rights are never decided on a state older than one told before through the same member",
        "attempts",
    ),
    ("LIV", "the healed servers answer and place pods soon, and all watches go on", "cluster"),
];

pub struct Judgement {
    pub verdicts: Vec<Verdict>,
    pub invalid: Option<String>,
}

impl Judgement {
    pub fn violations(&self) -> impl Iterator<Item = &Verdict> {
        self.verdicts.iter().filter(|verdict| verdict.state == State::Violated)
    }

    /// The first violation, as `checker: sentence`.
    pub fn first_violation(&self) -> Option<String> {
        self.violations().next().map(Verdict::sentence)
    }
}

pub fn judge(recording: &Recording) -> Judgement {
    let mut found: BTreeMap<&str, Result<usize, Violation>> = BTreeMap::new();
    let mut truths: BTreeMap<&str, Truth> = BTreeMap::new();
    let of = |plural: &str| -> Vec<&Stream> {
        recording.streams.iter().filter(|stream| stream.plural == plural).collect()
    };
    let mut watched = Ok(0);
    for plural in ["configmaps", "pods", "rolebindings"] {
        let streams = of(plural);
        let end = recording.about.ends.iter().find(|(kind, _)| kind == plural).map_or(0, |(_, end)| *end);
        let store = recording.store.iter().find(|stream| stream.plural == plural);
        match Truth::agreed(store, &streams) {
            Err(sentence) => watched = watched.and(Err(sentence.into())),
            Ok(truth) => {
                let checked = truth::check(&truth, &streams, end);
                watched = watched.and_then(|before| Ok(before + checked?));
                truths.insert(plural, truth);
            }
        }
    }
    found.insert("API-WAT", watched);
    if recording.about.complete {
        found.insert("API-INF", informed(recording, &truths));
        if let Some(truth) = truths.get("configmaps") {
            found.insert("UPD", counters::check(truth, &recording.increments));
        }
        if let Some(truth) = truths.get("pods") {
            found.insert("PLC", placement::check(truth, &recording.nodes).map_err(Violation::from));
        }
        if let Some(truth) = truths.get("rolebindings") {
            let mut observed = rights::observed(&of("rolebindings"));
            observed.extend(&recording.observed);
            let checked = rights::check(truth, &recording.toggles, &observed, &recording.attempts);
            found.insert("RBA", checked);
        }
    }
    if recording.about.healed_ms.is_some() {
        found.insert("LIV", Ok(1));
    }
    let verdicts = judge::verdicts(&CHECKERS, found, &recording.findings);
    let bound = verdicts
        .iter()
        .find(|verdict| verdict.checker == "PLC")
        .filter(|verdict| verdict.violation.is_none());
    let bound = bound.map_or(BOUND_MIN, |verdict| verdict.checked);
    Judgement { invalid: invalid(recording, bound), verdicts }
}

/// The number of events of informers.
fn informed(recording: &Recording, truths: &BTreeMap<&str, Truth>) -> Result<usize, Violation> {
    let mut events = 0;
    for (plural, truth) in truths {
        let of_kind: Vec<&Informed> =
            recording.informers.iter().filter(|informed| informed.plural == *plural).collect();
        let end = recording.about.ends.iter().find(|(kind, _)| kind == plural).map_or(0, |(_, end)| *end);
        events += informers::check(truth, &of_kind, end)?;
    }
    Ok(events)
}

fn done(recording: &Recording) -> usize {
    recording.increments.iter().filter(|increment| matches!(increment.outcome, Outcome::Done(_))).count()
}

fn invalid(recording: &Recording, bound: usize) -> Option<String> {
    if !recording.about.complete && recording.findings.is_empty() {
        return Some("the run was cut off before its end".to_owned());
    }
    let done = done(recording);
    if done < INCREMENTS_MIN {
        return Some(format!("only {done} updates were acknowledged"));
    }
    if bound < BOUND_MIN {
        return Some(format!("only {bound} pods got a node"));
    }
    let denied = recording.attempts.iter().filter(|attempt| !attempt.allowed).count();
    if denied == 0 || denied == recording.attempts.len() {
        return Some(format!("of {} attempts {denied} were denied", recording.attempts.len()));
    }
    let effective = recording.faults.iter().filter(|fault| fault.effect > 0).count();
    if effective == 0 || effective * 3 < recording.faults.len() {
        return Some(format!("of {} faults only {effective} took effect", recording.faults.len()));
    }
    None
}

/// The figures of one run.
pub fn figures(recording: &Recording, judgement: &Judgement) -> Json {
    let count = |wanted: fn(&Outcome) -> bool| {
        recording.increments.iter().filter(|increment| wanted(&increment.outcome)).count()
    };
    let told = |wanted: fn(&Told) -> bool| {
        let each =
            recording.streams.iter().map(|stream| stream.told.iter().filter(|told| wanted(told)).count());
        each.sum::<usize>()
    };
    let done = recording.increments.iter().filter(|increment| matches!(increment.outcome, Outcome::Done(_)));
    let mut took_ns: Vec<u64> =
        done.map(|increment| increment.return_ns.saturating_sub(increment.call_ns)).collect();
    took_ns.sort_unstable();
    let placed = judgement.verdicts.iter().find(|verdict| verdict.checker == "PLC");
    json!({
        "workload": "api",
        "level": recording.about.level,
        "seed": recording.about.seed,
        "seconds": recording.about.seconds,
        "members": recording.about.members,
        "updates": recording.increments.len(),
        "updates_done": count(|outcome| matches!(outcome, Outcome::Done(_))),
        "updates_refused": count(|outcome| matches!(outcome, Outcome::Refused(_))),
        "updates_unknown": count(|outcome| matches!(outcome, Outcome::Unknown(_))),
        "watch_events": told(|told| matches!(told, Told::Event { .. })),
        "lists": told(|told| matches!(told, Told::List { .. })),
        "watches_resumed": recording.streams.iter().map(|stream| stream.resumed).sum::<usize>(),
        "attempts": recording.attempts.len(),
        "attempts_denied": recording.attempts.iter().filter(|attempt| !attempt.allowed).count(),
        "toggles": recording.toggles.len(),
        "faults": recording.faults.len(),
        "faults_with_effect": recording.faults.iter().filter(|fault| fault.effect > 0).count(),
        "faults_by_kind": judge::fault_figures(&recording.faults),
        "elections": judge::elections(&recording.samples),
        "median_ms": judge::percentile_ms(&took_ns, 50),
        "percentile_99_ms": judge::percentile_ms(&took_ns, 99),
        "slowest_ms": judge::percentile_ms(&took_ns, 100),
        "answered_after_last_fault_ms": recording.about.healed_ms,
        "pods_placed": placed.map_or(0, |verdict| verdict.checked),
        "verdicts": judge::verdict_figures(&judgement.verdicts),
        "valid_test": judgement.invalid.is_none(),
        "invalid_because": judgement.invalid,
        "violations": judgement.violations().count(),
    })
}
