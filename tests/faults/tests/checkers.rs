//! The checks themselves: they accept what a correct store could have said, and find every kind of lie.
//!
//! Histories are made by a store of a few lines that answers at one instant between call and return; each lie is told
//! by changing such a history.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::HashMap;

use faults::history::{Answer, Entry, Operation, Outcome, Request, Violation};
use faults::judge::{Judgement, State, Verdict};
use faults::linear;
use faults::log::{Change, FIRST_REVISION, Log};
use faults::search::{self, Hints};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

struct History {
    operations: Vec<Operation>,
    changes: Vec<Change>,
}

/// Overlapping operations of eight clients on three keys, some with an unknown outcome of both kinds.
fn correct(seed: u64, count: usize) -> History {
    let mut random = StdRng::seed_from_u64(seed);
    let mut entries: HashMap<u32, Entry> = HashMap::new();
    let mut changes: Vec<Change> = Vec::new();
    let mut operations = Vec::new();
    let mut free_at = [0_u64; 8];
    let mut instant = 0_u64;
    for number in 0..count {
        instant += random.random_range(1..50);
        let client = random.random_range(0..free_at.len());
        let call_ns = free_at[client].max(instant.saturating_sub(random.random_range(0..100)));
        let happens = instant.max(call_ns);
        instant = happens;
        let return_ns = happens + random.random_range(1..100);
        free_at[client] = return_ns + 1;
        let key = random.random_range(0..3);
        let value = number as u64;
        let held = entries.get(&key).copied();
        let request = match random.random_range(0..4) {
            0 => Request::Get { key },
            1 => Request::Put { key, value },
            2 => Request::Delete { key },
            _ => {
                let fresh = random.random_bool(0.7);
                let seen = held.filter(|_| fresh);
                Request::Swap {
                    key,
                    expected_revision: seen.map_or(0, |entry| entry.mod_revision),
                    expected: seen.map(|entry| entry.value),
                    value,
                }
            }
        };
        let unknown = random.random_bool(0.03);
        let mut outcome = Outcome::Unknown("no answer".into());
        if !unknown || random.random_bool(0.5) {
            let answer = take_place(request, held, &mut entries, &mut changes);
            if !unknown {
                outcome = Outcome::Done(answer);
            }
        }
        operations.push(Operation { client, member: client % 3, call_ns, return_ns, request, outcome });
    }
    History { operations, changes }
}

fn take_place(
    request: Request,
    held: Option<Entry>,
    entries: &mut HashMap<u32, Entry>,
    changes: &mut Vec<Change>,
) -> Answer {
    let current = FIRST_REVISION - 1 + changes.len() as i64;
    let key = request.key();
    let mut put = |value| {
        let revision = current + 1;
        let create_revision = held.map_or(revision, |entry| entry.create_revision);
        let version = held.map_or(0, |entry| entry.version) + 1;
        entries.insert(key, Entry { value, create_revision, mod_revision: revision, version });
        changes.push(Change { revision, key, value: Some(value) });
        revision
    };
    match request {
        Request::Get { .. } => Answer::Found { revision: current, entry: held },
        Request::Put { value, .. } => Answer::Put { revision: put(value) },
        Request::Swap { expected_revision, value, .. } => {
            match held.map_or(0, |entry| entry.mod_revision) == expected_revision {
                true => Answer::Swapped { revision: put(value) },
                false => Answer::Kept { revision: current, entry: held },
            }
        }
        Request::Delete { .. } if held.is_none() => Answer::Deleted { revision: current, existed: false },
        Request::Delete { .. } => {
            entries.remove(&key);
            changes.push(Change { revision: current + 1, key, value: None });
            Answer::Deleted { revision: current + 1, existed: true }
        }
    }
}

fn judge(history: &History) -> Result<linear::Resolved, Violation> {
    linear::check(&Log::new(history.changes.clone())?, &history.operations)
}

#[test]
fn correct_histories_are_accepted_by_both_checks() {
    for seed in 0..40 {
        let history = correct(seed, 400);
        judge(&history).unwrap();
        let verdict = search::check(&history.operations, &Hints::default());
        assert!(!matches!(verdict, search::Verdict::Violation(_)), "seed {seed}: {verdict:?}");
    }
}

#[test]
fn unknown_outcomes_are_resolved_by_the_log() {
    let history = correct(1, 2_000);
    let resolved = judge(&history).unwrap();
    assert!(resolved.happened > 0 && resolved.did_not > 0 && resolved.open > 0, "{resolved:?}");
}

/// Changes a history somewhere; `false` if there was no place for it.
type Lie = fn(&mut History, &mut StdRng) -> bool;

fn done_at(
    history: &History,
    random: &mut StdRng,
    fits: impl Fn(&Operation, &Answer) -> bool,
) -> Option<usize> {
    let places: Vec<usize> = (0..history.operations.len())
        .filter(|place| {
            let operation = &history.operations[*place];
            matches!(&operation.outcome, Outcome::Done(answer) if fits(operation, answer))
        })
        .collect();
    (!places.is_empty()).then(|| places[random.random_range(0..places.len())])
}

/// What was acknowledged disappears from the log and from all later states, as if a leader had forgotten it.
fn an_acknowledged_write_is_lost(history: &mut History, random: &mut StdRng) -> bool {
    let Some(place) = done_at(history, random, |_, answer| matches!(answer, Answer::Put { .. })) else {
        return false;
    };
    let value = history.operations[place].request.value();
    let before = history.changes.len();
    history.changes.retain(|change| change.value != value);
    for (position, change) in history.changes.iter_mut().enumerate() {
        change.revision = FIRST_REVISION + position as i64;
    }
    before > history.changes.len()
}

fn a_read_is_stale(history: &mut History, random: &mut StdRng) -> bool {
    let log = Log::new(history.changes.clone()).unwrap();
    let Some(place) = done_at(history, random, |operation, answer| {
        // Far enough back that somebody had been told of something newer before the call.
        let Answer::Found { revision, .. } = answer else { return false };
        let told = history.operations.iter().filter(|other| other.return_ns < operation.call_ns);
        let newest = told.filter_map(|other| match &other.outcome {
            Outcome::Done(answer) => Some(answer.revision()),
            _ => None,
        });
        newest.max().is_some_and(|newest| newest >= *revision - 5 && newest > 20)
    }) else {
        return false;
    };
    let operation = &mut history.operations[place];
    let Outcome::Done(Answer::Found { revision, .. }) = operation.outcome else { return false };
    let stale = revision - 12;
    let entry = log.entry(operation.request.key(), stale);
    operation.outcome = Outcome::Done(Answer::Found { revision: stale, entry });
    true
}

fn a_read_is_wrong(history: &mut History, random: &mut StdRng) -> bool {
    let Some(place) =
        done_at(history, random, |_, answer| matches!(answer, Answer::Found { entry: Some(_), .. }))
    else {
        return false;
    };
    let Outcome::Done(Answer::Found { entry: Some(entry), .. }) = &mut history.operations[place].outcome
    else {
        return false;
    };
    entry.value += 1;
    true
}

fn a_refused_write_happened(history: &mut History, random: &mut StdRng) -> bool {
    let Some(place) = done_at(history, random, |_, answer| matches!(answer, Answer::Put { .. })) else {
        return false;
    };
    history.operations[place].outcome = Outcome::Refused("no".into());
    true
}

fn a_swap_ignored_its_comparison(history: &mut History, random: &mut StdRng) -> bool {
    let Some(place) = done_at(history, random, |_, answer| matches!(answer, Answer::Swapped { .. })) else {
        return false;
    };
    let Request::Swap { expected_revision, .. } = &mut history.operations[place].request else {
        return false;
    };
    *expected_revision += 1;
    true
}

fn two_writes_share_a_revision(history: &mut History, random: &mut StdRng) -> bool {
    let Some(place) = done_at(history, random, |_, answer| matches!(answer, Answer::Put { .. })) else {
        return false;
    };
    let copy = history.operations[place].clone();
    history.operations.push(copy);
    true
}

/// Only where no deletion of that key has an unknown outcome, which could be the one that happened.
fn a_deletion_found_nothing(history: &mut History, random: &mut StdRng) -> bool {
    let open: Vec<Request> = history
        .operations
        .iter()
        .filter(|operation| matches!(operation.outcome, Outcome::Unknown(_)))
        .map(|operation| operation.request)
        .collect();
    let fits = |operation: &Operation, answer: &Answer| {
        matches!(answer, Answer::Deleted { existed: true, .. }) && !open.contains(&operation.request)
    };
    let Some(place) = done_at(history, random, fits) else { return false };
    let Outcome::Done(Answer::Deleted { existed, .. }) = &mut history.operations[place].outcome else {
        return false;
    };
    *existed = false;
    true
}

#[test]
fn every_kind_of_lie_is_found_by_the_linear_check() {
    let lies: [(&str, Lie); 7] = [
        ("lost write", an_acknowledged_write_is_lost),
        ("stale read", a_read_is_stale),
        ("wrong read", a_read_is_wrong),
        ("refused write", a_refused_write_happened),
        ("swap", a_swap_ignored_its_comparison),
        ("shared revision", two_writes_share_a_revision),
        ("deletion", a_deletion_found_nothing),
    ];
    for (name, lie) in lies {
        let mut told = 0;
        for seed in 0..25 {
            let mut history = correct(seed, 300);
            if lie(&mut history, &mut StdRng::seed_from_u64(seed)) {
                told += 1;
                assert!(judge(&history).is_err(), "{name} with seed {seed} was believed");
            }
        }
        assert!(told >= 15, "{name} was told in {told} of 25 histories only");
    }
}

/// The search knows no revisions: it must see from values and times alone that an old value came back.
#[test]
fn the_search_finds_a_value_that_comes_back() {
    let operation = |call_ns, return_ns, request, answer| Operation {
        client: 0,
        member: 0,
        call_ns,
        return_ns,
        request,
        outcome: Outcome::Done(answer),
    };
    let read = |value| Answer::Found {
        revision: 0,
        entry: Some(Entry { value, create_revision: 0, mod_revision: 0, version: 0 }),
    };
    let mut operations = vec![
        operation(0, 10, Request::Put { key: 0, value: 1 }, Answer::Put { revision: 0 }),
        operation(20, 30, Request::Put { key: 0, value: 2 }, Answer::Put { revision: 0 }),
        operation(25, 40, Request::Get { key: 0 }, read(1)),
        operation(50, 60, Request::Get { key: 0 }, read(2)),
    ];
    assert_eq!(search::check(&operations, &Hints::default()), search::Verdict::Linearizable);
    operations.push(operation(70, 80, Request::Get { key: 0 }, read(1)));
    assert!(matches!(search::check(&operations, &Hints::default()), search::Verdict::Violation(_)));
}

#[test]
fn members_that_tell_different_logs_are_found() {
    let changes = correct(3, 100).changes;
    assert!(Log::agreed(&[changes.clone(), changes.clone()]).is_ok());
    let mut other = changes.clone();
    other[5].key += 1;
    assert!(Log::agreed(&[changes.clone(), other]).unwrap_err().contains("disagree"));
    let mut gap = changes.clone();
    gap.remove(5);
    assert!(Log::agreed(&[changes.clone(), gap]).unwrap_err().contains("was due"));
    let mut repeat = changes.clone();
    repeat.insert(5, repeat[5]);
    assert!(Log::agreed(&[changes.clone(), repeat]).unwrap_err().contains("was due"));
    let mut short = changes.clone();
    short.pop();
    assert!(Log::agreed(&[changes, short]).unwrap_err().contains("ended after"));
}

/// What the self-check with lying disks asks for: a cluster that does not come back proves nothing about lost data.
#[test]
fn only_lost_data_counts_as_found_when_disks_lie() {
    let judged = |checkers: &[&'static str]| Judgement {
        verdicts: checkers
            .iter()
            .map(|checker| Verdict {
                checker,
                meaning: "",
                state: State::Violated,
                checked: 0,
                unit: "",
                violation: Some("it is so".to_owned().into()),
            })
            .collect(),
        resolved: linear::Resolved::default(),
        log: Log::default(),
        invalid: None,
    };
    for without in [&["LIV"][..], &["LIV", "BND", "CON"], &[]] {
        assert_eq!(judged(without).first_loss(), None);
    }
    for loss in ["LIN", "WGL", "DUR"] {
        let found = judged(&["LIV", loss]).first_loss().unwrap();
        assert_eq!(found, format!("VIOLATION of {loss}: it is so"));
    }
}
