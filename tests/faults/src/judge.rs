//! All checkers on one recording, and whether the run was worth anything.
//!
//! Invariant: a checker that had nothing to look at says so and is not counted as passed.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value as Json, json};

use crate::history::{Operation, Outcome, Violation};
use crate::log::{Change, Log};
use crate::record::{Finding, Injected, Recording, Sample};
use crate::search::{self, Hint, Hints};
use crate::{images, leases, linear, locks, stale, watch};

/// Below this many answered operations a run says nothing.
pub const ANSWERED_MIN: usize = 200;
/// Members of a run with a few keys stay far below both.
const RESIDENT_KIB_MAX: u64 = 2 * 1024 * 1024;
const DESCRIPTORS_MAX: u64 = 2_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Passed,
    Violated,
    /// The bound on steps was reached.
    Undecided,
    /// Nothing to check.
    Idle,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Passed => "passed",
            State::Violated => "violated",
            State::Undecided => "undecided",
            State::Idle => "idle",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Verdict {
    pub checker: &'static str,
    /// What it says about the store, when it passes.
    pub meaning: &'static str,
    pub state: State,
    /// How many `unit` it looked at; zero unless it passed.
    pub checked: usize,
    pub unit: &'static str,
    pub violation: Option<Violation>,
}

impl Verdict {
    /// Of a violation.
    pub(crate) fn sentence(&self) -> String {
        let sentence = self.violation.as_ref().map_or("", |violation| &violation.sentence);
        format!("VIOLATION of {}: {sentence}", self.checker)
    }
}

pub struct Judgement {
    pub verdicts: Vec<Verdict>,
    pub resolved: linear::Resolved,
    pub log: Log,
    /// Why the run proves nothing, if so.
    pub invalid: Option<String>,
}

impl Judgement {
    pub fn violations(&self) -> impl Iterator<Item = &Verdict> {
        self.verdicts.iter().filter(|verdict| verdict.state == State::Violated)
    }

    /// The first violation, as `checker: sentence`.
    pub fn first_violation(&self) -> Option<String> {
        self.violation_of(|_| true)
    }

    /// The first violation that says that acknowledged data is gone. That a cluster does not come back is none.
    pub fn first_loss(&self) -> Option<String> {
        self.violation_of(|checker| LOSSES.contains(&checker))
    }

    fn violation_of(&self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let verdict = self.violations().find(|verdict| wanted(verdict.checker))?;
        Some(verdict.sentence())
    }
}

/// Checkers that see that something acknowledged is gone.
const LOSSES: [&str; 3] = ["LIN", "WGL", "DUR"];

/// What a checker is called, says when it passes, and counts.
pub(crate) type Checker = (&'static str, &'static str, &'static str);

const CHECKERS: [Checker; 11] = [
    (
        "WAT",
        "watches are ordered, complete, unique and atomic, equal on all members, and say what was there before",
        "events",
    ),
    (
        "LIN",
        "every answer is the state at its revision, no write is lost or happens twice, and nothing goes back in time",
        "operations",
    ),
    (
        "WGL",
        "each key's operations have an order that explains all answers, without looking at revisions",
        "operations",
    ),
    ("SER", "reads that may be old are the state at the revision they name, and do not go back", "reads"),
    ("LEA", "keys of leases live as long as promised and then go", "leases"),
    ("LOC", "sections fenced by a lock do not overlap", "sections"),
    ("DUR", "what was acknowledged is there after every crash", "writes"),
    ("COR", "while bits on a disk are flipped, nothing of what is served is wrong", "flipped bits"),
    ("CON", "all members end with the same state", "members"),
    ("LIV", "the healed cluster answers soon", "cluster"),
    ("BND", "members' memory and open files stay bounded", "samples"),
];

pub fn judge(recording: &Recording) -> Judgement {
    let mut found: BTreeMap<&str, Result<usize, Violation>> = BTreeMap::new();
    let mut resolved = linear::Resolved::default();
    let mut undecided = false;
    let streams = &recording.streams;
    let changes: Vec<_> = streams.iter().map(watch::Stream::changes).collect();
    // Streams that did not come to their end may differ in length; the run is lost anyhow, but not what it shows.
    let log = match recording.about.complete {
        true => Log::agreed(&changes),
        false => Log::agreed_as_far_as_told(&changes),
    };
    let log = match log {
        Err(sentence) => {
            found.insert("WAT", Err(sentence.into()));
            if recording.about.complete {
                // These two need no history that all members agree on.
                let operations = &recording.operations;
                if let search::Verdict::Violation(violation) = search::check(operations, &Hints::default()) {
                    found.insert("WGL", Err(violation));
                }
                let lost = changes.iter().find_map(|told| in_every_history(told, operations).err());
                if let Some(violation) = lost {
                    found.insert("DUR", Err(violation));
                }
            }
            Log::default()
        }
        Ok(log) => {
            found.insert("WAT", watch::check(&log, streams));
            if recording.about.complete {
                let operations = &recording.operations;
                let linear = linear::check(&log, operations);
                let hints = linear
                    .as_ref()
                    .map_or_else(|_| Hints::default(), |resolved| hints(&log, operations, resolved));
                found.insert(
                    "LIN",
                    linear.map(|result| {
                        resolved = result;
                        operations.len()
                    }),
                );
                let searched = match search::check(operations, &hints) {
                    search::Verdict::Linearizable => Ok(operations.len()),
                    search::Verdict::Undecided => {
                        undecided = true;
                        Ok(operations.len())
                    }
                    search::Verdict::Violation(violation) => Err(violation),
                };
                found.insert("WGL", searched);
                found.insert("SER", stale::check(&log, &recording.reads, &recording.starts));
                found.insert("LEA", leases::check(&log, streams, &recording.leases, recording.about.drift));
                found.insert("LOC", locks::check(&log, &recording.sections));
                let there = acknowledged_is_there(&log, &recording.operations);
                let images = || images::check(&log, recording.about.members, &recording.images);
                found.insert("DUR", there.and_then(|writes| images().map(|_| writes)));
            }
            log
        }
    };
    if recording.about.healed_ms.is_some() {
        found.insert("LIV", Ok(1));
    }
    // Reads and watches were compared with the log above; only damage makes that a test of bytes on disk.
    let damaged = recording.faults.iter().filter(|fault| fault.kind == "FlipBit" && fault.effect > 0).count();
    if recording.about.complete && found.values().all(Result::is_ok) {
        found.insert("COR", Ok(damaged));
    }
    found.insert("CON", same_hashes(recording));
    found.insert("BND", bounded(recording));
    let mut verdicts = verdicts(&CHECKERS, found, &recording.findings);
    for verdict in verdicts.iter_mut().filter(|verdict| verdict.checker == "WGL" && undecided) {
        verdict.state = State::Undecided;
    }
    Judgement { verdicts, resolved, log, invalid: invalid(recording) }
}

/// One verdict per checker. `findings` are what was decided while the run still went on.
pub(crate) fn verdicts(
    checkers: &[Checker],
    mut found: BTreeMap<&str, Result<usize, Violation>>,
    findings: &[Finding],
) -> Vec<Verdict> {
    for finding in findings {
        let checker = checkers.iter().map(|(name, ..)| *name).find(|name| *name == finding.checker);
        found.insert(checker.unwrap_or("LIV"), Err(finding.sentence.clone().into()));
    }
    let verdict = |(checker, meaning, unit): &Checker| {
        let (state, checked, violation) = match found.remove(checker) {
            None | Some(Ok(0)) => (State::Idle, 0, None),
            Some(Ok(checked)) => (State::Passed, checked, None),
            Some(Err(violation)) => (State::Violated, 0, Some(violation)),
        };
        Verdict { checker, meaning, state, checked, unit, violation }
    };
    checkers.iter().map(verdict).collect()
}

fn hints(log: &Log, operations: &[Operation], resolved: &linear::Resolved) -> Hints {
    let mut hints = Hints::default();
    for operation in operations {
        if let (Outcome::Unknown(_), Some(value)) = (&operation.outcome, operation.request.value()) {
            hints.values.insert(value, Hint::DidNot);
        }
        hints.undeleted.insert(operation.request.key());
    }
    for value in log.changes().iter().filter_map(|change| change.value) {
        if let Some(hint) = hints.values.get_mut(&value) {
            *hint = Hint::Happened;
        }
    }
    hints.undeleted.retain(|key| !resolved.deleted_by_unknown.contains(key));
    hints
}

/// The number of acknowledged writes.
fn acknowledged_is_there(log: &Log, operations: &[Operation]) -> Result<usize, Violation> {
    let mut acknowledged = 0;
    for (position, operation) in operations.iter().enumerate() {
        let Outcome::Done(answer) = &operation.outcome else { continue };
        if !answer.changed() {
            continue;
        }
        acknowledged += 1;
        let asked = (operation.request.key(), operation.request.value());
        if log.change(answer.revision()).is_none_or(|change| (change.key, change.value) != asked) {
            let sentence = format!("acknowledged and lost: {operation}");
            return Err(Violation::at(position, sentence));
        }
    }
    Ok(acknowledged)
}

/// What was acknowledged must be in each member's own history, also when the members disagree.
fn in_every_history(told: &[Change], operations: &[Operation]) -> Result<(), Violation> {
    let written: BTreeSet<_> =
        told.iter().map(|change| (change.revision, change.key, change.value)).collect();
    for (position, operation) in operations.iter().enumerate() {
        let Outcome::Done(answer) = &operation.outcome else { continue };
        let asked = (answer.revision(), operation.request.key(), operation.request.value());
        if answer.changed() && !written.contains(&asked) {
            let sentence = format!("acknowledged, and in the history of one member lost: {operation}");
            return Err(Violation::at(position, sentence));
        }
    }
    Ok(())
}

/// The number of members compared.
fn same_hashes(recording: &Recording) -> Result<usize, Violation> {
    let hashes = &recording.about.hashes;
    if hashes.windows(2).any(|pair| (pair[0].1, pair[0].2) != (pair[1].1, pair[1].2)) {
        let said = hashes.iter().map(|(member, revision, hash)| {
            format!("m{} has revision {revision} with hash {hash:08x}", member + 1)
        });
        return Err(format!("members differ: {}", said.collect::<Vec<_>>().join(", ")).into());
    }
    Ok(hashes.len())
}

/// The number of samples.
fn bounded(recording: &Recording) -> Result<usize, Violation> {
    for sample in &recording.samples {
        if sample.resident_kib > RESIDENT_KIB_MAX || sample.descriptors > DESCRIPTORS_MAX {
            let sentence = format!(
                "m{} uses {} KiB of memory and {} open files",
                sample.member + 1,
                sample.resident_kib,
                sample.descriptors
            );
            return Err(Violation::seen(sample.at_ns, sentence));
        }
    }
    Ok(recording.samples.len())
}

fn invalid(recording: &Recording) -> Option<String> {
    if !recording.about.complete && recording.findings.is_empty() {
        return Some("the run was cut off before its end".to_owned());
    }
    let answered = count(&recording.operations, |outcome| matches!(outcome, Outcome::Done(_)));
    if answered < ANSWERED_MIN {
        return Some(format!("only {answered} operations were answered"));
    }
    let effective = recording.faults.iter().filter(|fault| fault.effect > 0).count();
    if effective == 0 || effective * 3 < recording.faults.len() {
        return Some(format!("of {} faults only {effective} took effect", recording.faults.len()));
    }
    None
}

fn count(operations: &[Operation], wanted: impl Fn(&Outcome) -> bool) -> usize {
    operations.iter().filter(|operation| wanted(&operation.outcome)).count()
}

/// The longest time in which no client was answered.
fn longest_silence_ms(operations: &[Operation]) -> u64 {
    let mut returns: Vec<u64> = operations
        .iter()
        .filter(|operation| matches!(operation.outcome, Outcome::Done(_)))
        .map(|operation| operation.return_ns)
        .collect();
    returns.sort_unstable();
    returns.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0) / 1_000_000
}

/// Faults by kind: how many, how many with an effect, and the sum of the effects.
pub(crate) fn fault_figures(faults: &[Injected]) -> Json {
    let mut kinds: BTreeMap<&str, (u64, u64, u64)> = BTreeMap::new();
    for fault in faults {
        let kind = kinds.entry(&fault.kind).or_default();
        kind.0 += 1;
        kind.1 += u64::from(fault.effect > 0);
        kind.2 += fault.effect;
    }
    let figures = kinds.into_iter().map(|(kind, (count, effective, effect))| {
        (kind.to_owned(), json!({ "count": count, "with_effect": effective, "effect_count": effect }))
    });
    Json::Object(figures.collect())
}

pub(crate) fn verdict_figures(verdicts: &[Verdict]) -> Json {
    let figures = verdicts.iter().map(|verdict| {
        let violation = verdict.violation.as_ref().map(|violation| &violation.sentence);
        let state = verdict.state.name();
        let figures = json!({ "verdict": state, "checked": verdict.checked, "violation": violation });
        (verdict.checker.to_owned(), figures)
    });
    Json::Object(figures.collect())
}

/// How far the term went up.
pub(crate) fn elections(samples: &[Sample]) -> u64 {
    let terms = || samples.iter().map(|sample| sample.term).filter(|term| *term > 0);
    terms().max().unwrap_or(0).saturating_sub(terms().min().unwrap_or(0))
}

/// The time that so many of a hundred `took_ns`, which are sorted, stay below, in milliseconds.
pub(crate) fn percentile_ms(took_ns: &[u64], percent: usize) -> Option<f64> {
    let at = (took_ns.len() * percent / 100).min(took_ns.len().checked_sub(1)?);
    Some((took_ns[at] / 1_000) as f64 / 1_000.0)
}

/// The figures of one run.
pub fn figures(recording: &Recording, judgement: &Judgement) -> Json {
    let operations = &recording.operations;
    let about = &recording.about;
    let answered = operations.iter().filter(|operation| matches!(operation.outcome, Outcome::Done(_)));
    let mut took_ns: Vec<u64> =
        answered.map(|operation| operation.return_ns.saturating_sub(operation.call_ns)).collect();
    took_ns.sort_unstable();
    json!({
        "workload": "store",
        "level": about.level,
        "seed": about.seed,
        "seconds": about.seconds,
        "members": about.members,
        "operations": operations.len(),
        "answered": took_ns.len(),
        "refused": count(operations, |outcome| matches!(outcome, Outcome::Refused(_))),
        "unknown": count(operations, |outcome| matches!(outcome, Outcome::Unknown(_))),
        "unknown_that_happened": judgement.resolved.happened,
        "unknown_that_did_not": judgement.resolved.did_not,
        "unknown_deletions": judgement.resolved.open,
        "median_ms": percentile_ms(&took_ns, 50),
        "percentile_99_ms": percentile_ms(&took_ns, 99),
        "slowest_ms": percentile_ms(&took_ns, 100),
        "changes": judgement.log.changes().len(),
        "watch_events_checked": recording.streams.iter().map(|stream| stream.events.len()).sum::<usize>(),
        "reads_checked": recording.reads.len(),
        "leases_checked": recording.leases.iter().filter(|lease| lease.put_revision.is_some()).count(),
        "sections_checked": recording.sections.len(),
        "compactions": about.compactions,
        "defragmentations": about.defragmentations,
        "faults": recording.faults.len(),
        "faults_with_effect": recording.faults.iter().filter(|fault| fault.effect > 0).count(),
        "faults_by_kind": fault_figures(&recording.faults),
        "elections": elections(&recording.samples),
        "longest_silence_ms": longest_silence_ms(operations),
        "answered_after_last_fault_ms": about.healed_ms,
        "verdicts": verdict_figures(&judgement.verdicts),
        "valid_test": judgement.invalid.is_none(),
        "invalid_because": judgement.invalid,
        "violations": judgement.violations().count(),
    })
}
