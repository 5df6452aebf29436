//! Every answer against the log: is each acknowledged write in it, is each answer the state at its revision, and does
//! no answer go back behind what somebody had been told before the question.
//!
//! Sound and complete for operations that carry a revision, given that the log is right, which `Log::agreed` and the
//! search (search.rs) decide on their own. Linear in the number of operations, after sorting.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::history::{Answer, Key, LEASED, Operation, Outcome, Request, Value, Violation, held};
use crate::log::{Change, Log, told};

/// What was found out about the operations whose outcome the clients did not know.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    pub happened: usize,
    pub did_not: usize,
    /// Deletions: nothing in the log names which of them it was, only which it may have been.
    pub open: usize,
    /// Keys of which a deletion happened that was acknowledged to nobody. On all other keys no deletion with an unknown
    /// outcome had an effect.
    pub deleted_by_unknown: BTreeSet<Key>,
}

/// `Err`: the first violation, as a sentence.
pub fn check(log: &Log, operations: &[Operation]) -> Result<Resolved, Violation> {
    answers_agree_with_the_log(log, operations)?;
    let (persisted, resolved) = every_change_was_asked_for(log, operations)?;
    nothing_goes_back_in_time(operations, &persisted)?;
    Ok(resolved)
}

fn answers_agree_with_the_log(log: &Log, operations: &[Operation]) -> Result<(), Violation> {
    let mut claimed: HashMap<i64, &Operation> = HashMap::new();
    for (position, operation) in operations.iter().enumerate() {
        let violation = |sentence| Err(Violation::at(position, sentence));
        let Outcome::Done(answer) = &operation.outcome else { continue };
        let revision = answer.revision();
        if revision > log.last_revision() {
            return violation(format!("no member told of revision {revision}, but {operation}"));
        }
        if answer.changed() {
            let change = log.change(revision);
            let asked = (operation.request.key(), operation.request.value());
            if change.map(|change| (change.key, change.value)) != Some(asked) {
                return violation(format!(
                    "acknowledged, but the log has {} there: {operation}",
                    told(log.at(revision))
                ));
            }
            if let Some(other) = claimed.insert(revision, operation) {
                return violation(format!("one revision for two writes: {other}; and {operation}"));
            }
        }
        let key = operation.request.key();
        let right = match (*answer, operation.request) {
            (Answer::Found { entry, .. }, Request::Get { .. }) => log.entry(key, revision) == entry,
            (Answer::Put { .. }, Request::Put { .. }) => true, // compared above
            (Answer::Deleted { existed, .. }, Request::Delete { .. }) => {
                let before = if existed { revision - 1 } else { revision };
                log.entry(key, before).is_some() == existed
            }
            (Answer::Swapped { .. }, Request::Swap { expected_revision, .. }) => {
                log.entry(key, revision - 1).map_or(0, |entry| entry.mod_revision) == expected_revision
            }
            (Answer::Kept { entry, .. }, Request::Swap { expected_revision, .. }) => {
                let held = log.entry(key, revision);
                held == entry && held.map_or(0, |entry| entry.mod_revision) != expected_revision
            }
            _ => false,
        };
        if !right {
            return violation(format!(
                "at revision {revision} the key is {}, before it {}, but {operation}",
                held(log.entry(key, revision)),
                held(log.entry(key, revision - 1))
            ));
        }
    }
    Ok(())
}

/// Revisions of writes, by the position of their operation.
type Persisted = HashMap<usize, i64>;

/// When it was known at the latest that the log had reached a revision: the first return of an answer with that
/// revision or a later one. Sorted by revision; what is asked later cannot have caused the revision.
struct Known(Vec<(i64, u64)>);

impl Known {
    fn new(operations: &[Operation]) -> Known {
        let mut answers: Vec<(i64, u64)> = operations
            .iter()
            .filter_map(|operation| match &operation.outcome {
                Outcome::Done(answer) => Some((answer.revision(), operation.return_ns)),
                Outcome::Refused(_) | Outcome::Unknown(_) => None,
            })
            .collect();
        answers.sort_unstable();
        let mut first = u64::MAX;
        for (_, return_ns) in answers.iter_mut().rev() {
            first = first.min(*return_ns);
            *return_ns = first;
        }
        Known(answers)
    }

    fn at_ns(&self, revision: i64) -> u64 {
        let place = self.0.partition_point(|(other, _)| *other < revision);
        self.0.get(place).map_or(u64::MAX, |(_, return_ns)| *return_ns)
    }
}

fn every_change_was_asked_for(
    log: &Log,
    operations: &[Operation],
) -> Result<(Persisted, Resolved), Violation> {
    let known = Known::new(operations);
    let mut by_value: HashMap<Value, (usize, &Operation)> = HashMap::new();
    let mut acknowledged: HashMap<i64, usize> = HashMap::new();
    // Per key the deletions with an unknown outcome, as (call, position), the earliest call first.
    let mut open_deletes: BTreeMap<Key, BTreeSet<(u64, usize)>> = BTreeMap::new();
    let mut resolved = Resolved::default();
    for (position, operation) in operations.iter().enumerate() {
        if let Some(value) = operation.request.value() {
            by_value.insert(value, (position, operation));
        }
        match (&operation.outcome, operation.request) {
            (Outcome::Done(answer), _) if answer.changed() => {
                acknowledged.insert(answer.revision(), position);
            }
            (Outcome::Unknown(_), Request::Delete { key }) => {
                open_deletes.entry(key).or_default().insert((operation.call_ns, position));
                resolved.open += 1;
            }
            _ => {}
        }
    }
    let mut persisted = Persisted::new();
    for change in log.changes().iter().filter(|change| change.key < LEASED) {
        if let Some(position) = acknowledged.get(&change.revision) {
            persisted.insert(*position, change.revision);
            continue;
        }
        let Some(value) = change.value else {
            // Any that was asked before the revision was known will do: what may have caused this deletion may also
            // have caused every later one, so taking it here takes no choice from them that they need.
            let asked = open_deletes.get_mut(&change.key).and_then(BTreeSet::pop_first);
            match asked.filter(|(call_ns, _)| *call_ns <= known.at_ns(change.revision)) {
                Some((_, position)) => {
                    persisted.insert(position, change.revision);
                    resolved.deleted_by_unknown.insert(change.key);
                }
                None => {
                    let sentence = format!(
                        "nobody had asked for this when it was seen, or was told that it failed: {change}"
                    );
                    return Err(sentence.into());
                }
            }
            continue;
        };
        match by_value.get(&value) {
            Some((position, operation)) if matches!(operation.outcome, Outcome::Unknown(_)) => {
                unknown_write_may_be(log, change, operation)
                    .map_err(|sentence| Violation::at(*position, sentence))?;
                if persisted.insert(*position, change.revision).is_some() {
                    return Err(Violation::at(*position, format!("happened twice: {operation}")));
                }
                resolved.happened += 1;
            }
            Some((position, operation)) => {
                return Err(Violation::at(
                    *position,
                    format!("in the log as {change}, but its client was told otherwise: {operation}"),
                ));
            }
            None => return Err(format!("nobody asked for {change}").into()),
        }
    }
    let unknown_values = operations.iter().filter(|operation| {
        matches!(operation.outcome, Outcome::Unknown(_)) && operation.request.value().is_some()
    });
    resolved.did_not = unknown_values.count() - resolved.happened;
    Ok((persisted, resolved))
}

/// `Err`: why `change` cannot be what `operation` did.
fn unknown_write_may_be(log: &Log, change: &Change, operation: &Operation) -> Result<(), String> {
    if operation.request.key() != change.key {
        return Err(format!("{change} is on another key than {operation}"));
    }
    if let Request::Swap { key, expected_revision, .. } = operation.request
        && log.entry(key, change.revision - 1).map_or(0, |entry| entry.mod_revision) != expected_revision
    {
        return Err(format!("{change} happened although its comparison was false: {operation}"));
    }
    Ok(())
}

/// A question that was asked after an answer was given is answered with that state or a later one; a write makes a
/// later one.
fn nothing_goes_back_in_time(operations: &[Operation], persisted: &Persisted) -> Result<(), Violation> {
    /// Answers before questions at the same instant would be too strict.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    enum Edge {
        Call,
        Return,
    }
    let mut edges: Vec<(u64, Edge, usize, i64)> = Vec::new();
    for (position, operation) in operations.iter().enumerate() {
        let revision = match &operation.outcome {
            Outcome::Done(answer) => {
                edges.push((operation.return_ns, Edge::Return, position, answer.revision()));
                answer.revision()
            }
            Outcome::Refused(_) => continue,
            Outcome::Unknown(_) => match persisted.get(&position) {
                Some(revision) => *revision,
                None => continue,
            },
        };
        edges.push((operation.call_ns, Edge::Call, position, revision));
    }
    edges.sort_unstable();
    let mut told: Option<(i64, usize)> = None;
    for (_, edge, position, revision) in edges {
        match (edge, told) {
            (Edge::Return, Some((highest, _))) if highest >= revision => {}
            (Edge::Return, _) => told = Some((revision, position)),
            (Edge::Call, Some((highest, by))) => {
                let late = match persisted.contains_key(&position) {
                    true => revision <= highest,
                    false => revision < highest,
                };
                if late {
                    return Err(Violation::at(
                        position,
                        format!(
                            "revision {revision} after revision {highest} had been told: {}; told before: {}",
                            operations[position], operations[by]
                        ),
                    ));
                }
            }
            (Edge::Call, None) => {}
        }
    }
    Ok(())
}
