//! What the page shows of a run of the API servers: counters, rights and who used them, watches, and pods on nodes.
//!
//! Invariant: when an object changed is when somebody was first told of it.

use std::collections::BTreeMap;

use crate::api::history::{Change, Facts, Object, Outcome, Stream, Told, told};
use crate::api::informers::{Heard, Informed};
use crate::api::judge::{Judgement, figures};
use crate::api::record::Recording;
use crate::history::Violation;
use crate::page::{Bar, Card, Lane, Page, faults, grouped, milliseconds, only, samples, us};

// Positions in it are below.
const STYLES: [(&str, &str); 7] = [
    ("write", "done"),
    ("refused", "refused"),
    ("unknown", "outcome unknown"),
    ("bad", "cannot be"),
    ("given", "right given, allowed"),
    ("neutral", "denied, or told by a watch"),
    ("list", "listed"),
];
const DONE: usize = 0;
const REFUSED: usize = 1;
const UNKNOWN: usize = 2;
const BAD: usize = 3;
const GIVEN: usize = 4;
const NEUTRAL: usize = 5;
const LIST: usize = 6;
/// Changes of the counter before and after a violation that are shown.
const AROUND: usize = 4;

pub fn page(recording: &Recording, judgement: &Judgement) -> Page {
    let about = &recording.about;
    let figures = figures(recording, judgement);
    let number = |name: &str| grouped(figures[name].as_u64().unwrap_or(0) as usize);
    let ends = recording.increments.iter().map(|increment| increment.return_ns);
    let ends = ends.chain(recording.faults.iter().map(|fault| fault.ended_ns));
    let end_ns = ends.chain(all_told(&recording.streams).map(|(at_ns, _)| at_ns)).max().unwrap_or(1);
    let of = |name: &str| milliseconds(figures[name].as_f64());
    let ((median, median_unit), (late, late_unit)) = (of("median_ms"), of("percentile_99_ms"));
    let (back, back_unit) = of("answered_after_last_fault_ms");
    let impossible: Vec<usize> =
        judgement.violations().filter_map(|verdict| verdict.violation.as_ref()?.operation).collect();
    let mut lanes = counters(recording, &impossible);
    lanes.extend(rights(recording, end_ns));
    lanes.extend(watches(recording));
    lanes.extend(nodes(recording, end_ns));
    Page {
        product: "Binnacle, faults on real processes",
        title: format!("Clients of the API servers, seed {}", about.seed),
        summary: format!(
            "{} guarded updates, {} placed pods, {} attempts to use a right and {} events of watches on {} control \
             planes while faults were injected for {:.0} s: {} of {} faults had a verified effect. {} updates have an \
             outcome that their client does not know.",
            number("updates"),
            number("pods_placed"),
            number("attempts"),
            number("watch_events"),
            about.members,
            about.seconds,
            number("faults_with_effect"),
            number("faults"),
            number("updates_unknown"),
        ),
        level: about.level.clone(),
        members: about.members,
        invalid: judgement.invalid.clone(),
        tiles: vec![
            ("updates", number("updates"), ""),
            ("median", median, median_unit),
            ("99 of 100 below", late, late_unit),
            ("outcome unknown", number("updates_unknown"), ""),
            ("pods placed", number("pods_placed"), ""),
            ("attempts denied", number("attempts_denied"), ""),
            ("watches resumed", number("watches_resumed"), ""),
            ("faults with effect", number("faults_with_effect"), ""),
            ("elections", number("elections"), ""),
            ("healed within", back, back_unit),
        ],
        verdicts: judgement
            .verdicts
            .iter()
            .map(|verdict| card(recording, Card::new(verdict), verdict.violation.as_ref()))
            .collect(),
        faults: faults(&recording.faults),
        samples: samples(&recording.samples),
        find: "counter-2, pod-1-7, version 120",
        styles: STYLES.to_vec(),
        lanes,
        measured: "updates: latency and number per second",
        repeat: format!(
            "cargo run -p faults -- --workload api {}--seed {} --seconds {:.0} --report target/faults",
            only(&about.only),
            about.seed,
            about.seconds
        ),
        again: format!("cargo run -p faults -- check target/faults/api-seed-{}", about.seed),
        figures,
        end: us(end_ns),
    }
}

fn counters(recording: &Recording, impossible: &[usize]) -> Vec<Lane> {
    let mut clients: BTreeMap<(usize, usize), Vec<Bar>> = BTreeMap::new();
    // What the store says of increments whose clients were not told.
    let store = recording.store.iter().filter(|stream| stream.plural == "configmaps");
    let written: BTreeMap<u64, u64> = store
        .flat_map(|stream| &stream.told)
        .filter_map(|told| match told {
            Told::Event { object: Object { facts: Facts::Counter { writer, .. }, version, .. }, .. } => {
                Some((*writer, *version))
            }
            _ => None,
        })
        .collect();
    for (position, increment) in recording.increments.iter().enumerate() {
        let style = match &increment.outcome {
            _ if impossible.contains(&position) => BAD,
            Outcome::Done(_) => DONE,
            Outcome::Refused(_) => REFUSED,
            Outcome::Unknown(_) => UNKNOWN,
        };
        let mut text = increment.asked();
        if style == UNKNOWN {
            text = match written.get(&increment.writer) {
                Some(version) => format!("{text}; the store shows that it happened, at version {version}"),
                None => format!("{text}; the store shows that it did not happen"),
            };
        }
        let lane = clients.entry((increment.member, increment.client)).or_default();
        lane.push(Bar { from_ns: increment.call_ns, to_ns: increment.return_ns, style, text });
    }
    let lane = |((member, client), bars)| {
        Lane::new("counters", format!("client {client} \u{00b7} m{}", member + 1), true, bars)
    };
    clients.into_iter().map(lane).collect()
}

/// When the right was there, and who used it.
fn rights(recording: &Recording, end_ns: u64) -> Vec<Lane> {
    let mut given: Vec<Bar> = Vec::new();
    for (at_ns, change, object) in changes(recording, "rolebindings") {
        let Facts::Binding { grant } = object.facts else { continue };
        match change {
            Change::Deleted => {
                if let Some(bar) = given.last_mut() {
                    bar.to_ns = at_ns;
                    bar.text = format!("{}, taken at version {}", bar.text, object.version);
                }
            }
            _ => given.push(Bar {
                from_ns: at_ns,
                to_ns: end_ns,
                style: GIVEN,
                text: format!("grant {grant}, given at version {}", object.version),
            }),
        }
    }
    let mut lanes = vec![Lane::new("rights", "binding".to_owned(), false, given)];
    for member in 0..recording.about.members {
        let attempts = recording.attempts.iter().filter(|attempt| attempt.member == member);
        let bars = attempts.map(|attempt| Bar {
            from_ns: attempt.call_ns,
            to_ns: attempt.return_ns,
            style: if attempt.allowed { GIVEN } else { NEUTRAL },
            text: format!("Ana reads a counter: {}", if attempt.allowed { "allowed" } else { "denied" }),
        });
        lanes.push(Lane::new("rights", format!("Ana \u{00b7} m{}", member + 1), false, bars.collect()));
    }
    lanes
}

fn watches(recording: &Recording) -> Vec<Lane> {
    let lane = |stream: &Stream| {
        let bars = stream.told.iter().filter_map(|heard| {
            let at_ns = heard.at_ns()?;
            let (style, text) = match heard {
                Told::Event { change, object, .. } => (NEUTRAL, told(*change, object)),
                Told::List { version, objects, .. } => {
                    (LIST, format!("listed {} objects at version {version}", objects.len()))
                }
                Told::Bookmark { .. } => return None,
            };
            Some(Bar { from_ns: at_ns, to_ns: at_ns, style, text })
        });
        Lane::new(
            "watches",
            format!("{} \u{00b7} m{}", stream.plural, stream.member + 1),
            false,
            bars.collect(),
        )
    };
    recording.streams.iter().map(lane).chain(recording.informers.iter().map(informer)).collect()
}

fn informer(informed: &Informed) -> Lane {
    let bars = informed.heard.iter().map(|heard| {
        let (at_ns, style, text) = match heard {
            Heard::Applied { object, at_ns, .. } => (*at_ns, NEUTRAL, format!("has {object}")),
            Heard::Deleted { object, at_ns } => (*at_ns, NEUTRAL, format!("no longer has {object}")),
            Heard::Synced { at_ns } => (*at_ns, LIST, "has heard all that was there".to_owned()),
        };
        Bar { from_ns: at_ns, to_ns: at_ns, style, text }
    });
    let name = format!("{} \u{00b7} m{}", informed.plural, informed.member + 1);
    Lane::new("informers", name, false, bars.collect())
}

/// A bar from when a pod's place was told until it was gone.
fn nodes(recording: &Recording, end_ns: u64) -> Vec<Lane> {
    let mut placed: BTreeMap<&str, Vec<(&str, Bar)>> = BTreeMap::new();
    for (at_ns, change, object) in changes(recording, "pods") {
        let Facts::Pod { node: Some(node), .. } = &object.facts else { continue };
        let bars = placed.entry(node).or_default();
        let known = bars.iter().position(|(uid, _)| *uid == object.uid);
        match (change, known) {
            (Change::Deleted, Some(known)) => bars[known].1.to_ns = at_ns,
            (Change::Deleted, None) | (_, Some(_)) => {}
            (_, None) => {
                let bar = Bar { from_ns: at_ns, to_ns: end_ns, style: DONE, text: object.to_string() };
                bars.push((&object.uid, bar));
            }
        }
    }
    let lane = |node: &crate::api::history::Node| {
        let bars = placed.remove(node.name.as_str()).unwrap_or_default();
        let bars = bars.into_iter().map(|(_, bar)| bar).collect();
        Lane::new("pods on nodes", node.name.clone(), false, bars).stacked()
    };
    recording.nodes.iter().map(lane).collect()
}

/// Changes of a kind in order, each when it was first told.
fn changes<'a>(recording: &'a Recording, plural: &str) -> Vec<(u64, Change, &'a Object)> {
    let mut changes: BTreeMap<u64, (u64, Change, &Object)> = BTreeMap::new();
    let streams = recording.store.iter().chain(&recording.streams);
    for (at_ns, heard) in all_told(streams.filter(|stream| stream.plural == plural)) {
        if let Told::Event { change, object, .. } = heard {
            let first = changes.entry(object.version).or_insert((at_ns, *change, object));
            first.0 = first.0.min(at_ns);
        }
    }
    changes.into_values().collect()
}

fn all_told<'a>(streams: impl IntoIterator<Item = &'a Stream>) -> impl Iterator<Item = (u64, &'a Told)> {
    streams.into_iter().flat_map(|stream| &stream.told).filter_map(|told| Some((told.at_ns()?, told)))
}

/// Adds where a violation is, and what the store says around it.
fn card(recording: &Recording, mut card: Card, violation: Option<&Violation>) -> Card {
    let position = violation.and_then(|violation| violation.operation);
    let Some(increment) = position.and_then(|position| recording.increments.get(position)) else {
        return card;
    };
    let mut clients: Vec<(usize, usize)> =
        recording.increments.iter().map(|increment| (increment.member, increment.client)).collect();
    clients.sort_unstable();
    clients.dedup();
    card.at = Some(us(increment.call_ns));
    card.until = Some(us(increment.return_ns));
    card.lane = clients.binary_search(&(increment.member, increment.client)).ok();
    card.model.push(("first update that cannot be explained", increment.to_string()));
    let counter: Vec<_> = changes(recording, "configmaps")
        .into_iter()
        .filter(|(_, _, object)| object.name == increment.name)
        .collect();
    let version = match increment.outcome {
        Outcome::Done(version) => version,
        Outcome::Refused(_) | Outcome::Unknown(_) => increment.read_version,
    };
    let place = counter.partition_point(|(_, _, object)| object.version < version);
    let state = |at: Option<usize>| {
        let held = at.and_then(|at| counter.get(at));
        held.map_or_else(|| "not there".to_owned(), |(_, change, object)| told(*change, object))
    };
    card.model.push(("the counter before it", state(place.checked_sub(1))));
    card.model.push(("the counter after it", state(Some(place))));
    card.history_of = format!("What the store says of {} around it", increment.name);
    for (at_ns, change, object) in &counter[place.saturating_sub(AROUND)..counter.len().min(place + AROUND)] {
        let cells = vec![crate::history::seconds(*at_ns), told(*change, object)];
        card.history.push((object.version == version, cells));
    }
    card
}
