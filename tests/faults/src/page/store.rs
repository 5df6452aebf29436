//! What the page shows of a run of the store's clients.
//!
//! Invariant: an operation is shown with what its client was told; what the log decided of an unknown outcome is said
//! beside it.

use std::collections::BTreeMap;

use crate::history::{Answer, Operation, Outcome, Request, Violation, held, key_name, seconds};
use crate::judge::{Judgement, figures};
use crate::log::{Change, Log, told};
use crate::page::{Bar, Card, Lane, Page, faults, grouped, milliseconds, only, samples, us};
use crate::record::Recording;

/// Operations that a page shows at most, so that it stays a few megabytes large.
const OPERATIONS_MAX: usize = 60_000;
/// Changes of the key before and after a violation that are shown.
const AROUND: usize = 4;

// Positions in it are below.
const STYLES: [(&str, &str); 5] = [
    ("read", "read, answered"),
    ("write", "write, answered"),
    ("refused", "refused"),
    ("unknown", "outcome unknown"),
    ("bad", "cannot be"),
];
const READ: usize = 0;
const WRITE: usize = 1;
const REFUSED: usize = 2;
const UNKNOWN: usize = 3;
const BAD: usize = 4;

pub fn page(recording: &Recording, judgement: &Judgement) -> Page {
    let about = &recording.about;
    let figures = figures(recording, judgement);
    let number = |name: &str| grouped(figures[name].as_u64().unwrap_or(0) as usize);
    let (lanes, sampled) = lanes(recording, judgement);
    let clients = lanes.len();
    let mut summary = format!(
        "{} operations of {clients} clients on {} members while faults were injected for {:.0} s: {} of {} faults had a \
         verified effect. {} operations have an outcome that their client does not know",
        number("operations"),
        about.members,
        about.seconds,
        number("faults_with_effect"),
        number("faults"),
        number("unknown"),
    );
    // Where LIN is violated, nothing is known of them.
    let resolved = judgement.resolved.happened + judgement.resolved.did_not;
    summary = match resolved {
        0 => format!("{summary}."),
        _ => format!(
            "{summary}; the log shows that {} of these writes happened and {} did not.",
            number("unknown_that_happened"),
            number("unknown_that_did_not")
        ),
    };
    if sampled > 1 {
        summary = format!("{summary} Of the operations that were answered one in {sampled} is shown.");
    }
    let end_ns = recording.operations.iter().map(|operation| operation.return_ns);
    let end_ns = end_ns.chain(recording.faults.iter().map(|fault| fault.ended_ns)).max().unwrap_or(1);
    let of = |name: &str| milliseconds(figures[name].as_f64());
    let per_second = figures["answered"].as_f64().unwrap_or(0.0) * 1e9 / end_ns.max(1) as f64;
    let ((median, median_unit), (late, late_unit)) = (of("median_ms"), of("percentile_99_ms"));
    let ((silence, silence_unit), (back, back_unit)) =
        (of("longest_silence_ms"), of("answered_after_last_fault_ms"));
    let lies = if about.level.contains("lie") { "--lying-disks " } else { "" };
    let again = format!("{lies}{}", only(&about.only));
    Page {
        product: "Binnacle, faults on real processes",
        title: format!("Clients of the store, seed {}", about.seed),
        summary,
        level: about.level.clone(),
        members: about.members,
        invalid: judgement.invalid.clone(),
        tiles: vec![
            ("operations", number("operations"), ""),
            ("answered", grouped(per_second.round() as usize), "/s"),
            ("median", median, median_unit),
            ("99 of 100 below", late, late_unit),
            ("outcome unknown", number("unknown"), ""),
            ("faults with effect", number("faults_with_effect"), ""),
            ("elections", number("elections"), ""),
            ("longest silence", silence, silence_unit),
            ("healed within", back, back_unit),
        ],
        verdicts: judgement
            .verdicts
            .iter()
            .map(|verdict| card(recording, judgement, Card::new(verdict), verdict.violation.as_ref()))
            .collect(),
        faults: faults(&recording.faults),
        samples: samples(&recording.samples),
        find: "k/3, = 17, revision 120",
        styles: STYLES.to_vec(),
        lanes,
        measured: "latency and operations per second",
        repeat: format!(
            "cargo run -p faults -- {again}--seed {} --seconds {:.0} --report target/faults",
            about.seed, about.seconds
        ),
        again: format!("cargo run -p faults -- check target/faults/seed-{}", about.seed),
        figures,
        end: us(end_ns),
    }
}

/// One lane a client, and one in how many of the answered operations is in it.
fn lanes(recording: &Recording, judgement: &Judgement) -> (Vec<Lane>, usize) {
    let operations = &recording.operations;
    let impossible: Vec<usize> =
        judgement.violations().filter_map(|verdict| verdict.violation.as_ref()?.operation).collect();
    let written: BTreeMap<u64, i64> =
        judgement.log.changes().iter().filter_map(|change| Some((change.value?, change.revision))).collect();
    let every = operations.len().div_ceil(OPERATIONS_MAX).max(1);
    let mut clients: BTreeMap<(usize, usize), Vec<Bar>> = BTreeMap::new();
    for (position, operation) in operations.iter().enumerate() {
        let style = match (&operation.outcome, operation.request) {
            _ if impossible.contains(&position) => BAD,
            (Outcome::Unknown(_), _) => UNKNOWN,
            (Outcome::Refused(_), _) => REFUSED,
            (Outcome::Done(_), Request::Get { .. }) => READ,
            (Outcome::Done(_), _) => WRITE,
        };
        if (style == READ || style == WRITE) && position % every != 0 {
            continue;
        }
        let mut text = format!("{} \u{2192} {}", operation.request, operation.outcome);
        if let (Outcome::Unknown(_), Some(value)) = (&operation.outcome, operation.request.value()) {
            text = match written.get(&value) {
                None if judgement.log.changes().is_empty() => text,
                Some(revision) => format!("{text}; the log shows that it happened, at revision {revision}"),
                None => format!("{text}; the log shows that it did not happen"),
            };
        }
        let lane = clients.entry((operation.member, operation.client)).or_default();
        lane.push(Bar { from_ns: operation.call_ns, to_ns: operation.return_ns, style, text });
    }
    let lane = |((member, client), bars)| {
        Lane::new("clients", format!("client {client} \u{00b7} m{}", member + 1), true, bars)
    };
    (clients.into_iter().map(lane).collect(), every)
}

/// Adds where a violation is, and what the log says around it.
fn card(recording: &Recording, judgement: &Judgement, mut card: Card, violation: Option<&Violation>) -> Card {
    let operations = &recording.operations;
    let Some(operation) = violation.and_then(|violation| operations.get(violation.operation?)) else {
        return card;
    };
    let mut clients: Vec<(usize, usize)> =
        operations.iter().map(|operation| (operation.member, operation.client)).collect();
    clients.sort_unstable();
    clients.dedup();
    card.at = Some(us(operation.call_ns));
    card.until = Some(us(operation.return_ns));
    card.lane = clients.binary_search(&(operation.member, operation.client)).ok();
    let log = &judgement.log;
    let key = operation.request.key();
    card.model.push(("first operation that cannot be explained", operation.to_string()));
    match &operation.outcome {
        Outcome::Done(answer) if log.changes().is_empty() => {
            // The members tell different logs, or none: the model is what clients and each watch were told.
            let state = last_acknowledged(operations, operation);
            card.model.push(("the model before it", state));
            let revision = answer.revision();
            for (member, stream) in recording.streams.iter().enumerate() {
                let changes: Vec<Change> =
                    stream.changes().into_iter().filter(|change| change.revision == revision).collect();
                let said = format!("m{} told of revision {revision}: {}", member + 1, told(&changes));
                card.model.push(("the model after it", said));
            }
        }
        Outcome::Done(answer) => {
            let revision = answer.revision();
            let state = |at| format!("{} is {}", key_name(key), held(log.entry(key, at)));
            card.model
                .push(("the model before it", format!("revision {}: {}", revision - 1, state(revision - 1))));
            card.model.push(("the model after it", format!("revision {revision}: {}", state(revision))));
            if revision > log.last_revision() {
                card.model.push(("the log ends at", format!("revision {}", log.last_revision())));
            }
            card.history = history(log, operations, operation, answer);
        }
        Outcome::Refused(_) | Outcome::Unknown(_) => {
            let value = operation.request.value();
            let change = log.changes().iter().find(|change| value.is_some() && change.value == value);
            let change = change.map_or_else(|| "nothing of it".to_owned(), ToString::to_string);
            card.model.push(("the log holds", change));
        }
    }
    card.history_of = format!("What the log says of {} around it", key_name(key));
    card
}

/// What the key held as far as clients knew when the operation was asked for.
fn last_acknowledged(operations: &[Operation], operation: &Operation) -> String {
    let before = operations.iter().filter(|other| {
        let changed = matches!(&other.outcome, Outcome::Done(answer) if answer.changed());
        changed && other.request.key() == operation.request.key() && other.return_ns < operation.call_ns
    });
    match before.max_by_key(|other| other.return_ns) {
        Some(last) => format!("the last that was acknowledged: {last}"),
        None => format!("nothing was acknowledged of {} before", key_name(operation.request.key())),
    }
}

/// Changes of the operation's key around the revision of its answer, with who asked for them.
fn history(
    log: &Log,
    operations: &[Operation],
    operation: &Operation,
    answer: &Answer,
) -> Vec<(bool, Vec<String>)> {
    let changes: Vec<_> =
        log.changes().iter().filter(|change| change.key == operation.request.key()).collect();
    let place = changes.partition_point(|change| change.revision < answer.revision());
    let around = &changes[place.saturating_sub(AROUND)..changes.len().min(place + AROUND)];
    let row = |change: &&Change| {
        let by = operations.iter().find(|other| match (&other.outcome, change.value) {
            (_, Some(value)) => other.request.value() == Some(value),
            (Outcome::Done(told), None) => told.changed() && told.revision() == change.revision,
            _ => false,
        });
        let by = by.map_or_else(String::new, |other| {
            let (from, to) = (seconds(other.call_ns), seconds(other.return_ns));
            format!(
                "client {} through m{}, {from} to {to}: {}",
                other.client,
                other.member + 1,
                other.outcome
            )
        });
        let value = change.value.map_or_else(|| "deleted".to_owned(), |value| format!("= {value}"));
        (change.revision == answer.revision(), vec![format!("revision {}", change.revision), value, by])
    };
    around.iter().map(row).collect()
}
