//! The search for an order against the definition of linearizability, taken literally: all orders of all operations, each
//! tried in full. Small random histories, some true and some not; both must say the same of each.

use std::collections::HashMap;

use faults::history::{Answer, Entry, Operation, Outcome, Request};
use faults::search::{self, Hints, Verdict};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};

const HISTORIES: u64 = 6_000;

fn entry(value: u64) -> Entry {
    Entry { value, create_revision: 0, mod_revision: 0, version: 0 }
}

/// What a register with this content answers, and what it holds then.
fn replay(register: Option<u64>, request: Request) -> (Answer, Option<u64>) {
    let revision = 0;
    match request {
        Request::Get { .. } => (Answer::Found { revision, entry: register.map(entry) }, register),
        Request::Put { value, .. } => (Answer::Put { revision }, Some(value)),
        Request::Delete { .. } => (Answer::Deleted { revision, existed: register.is_some() }, None),
        Request::Swap { expected, value, .. } if expected == register => {
            (Answer::Swapped { revision }, Some(value))
        }
        Request::Swap { .. } => (Answer::Kept { revision, entry: register.map(entry) }, register),
    }
}

/// Operations on up to two keys. Each takes place at a moment of its own between call and return, or later or never if its
/// client was told nothing; then one or two answers may be changed.
fn history(random: &mut StdRng) -> Vec<Operation> {
    let count = random.random_range(2..=7);
    let keys = random.random_range(1..=2);
    let mut happens: Vec<(u64, usize)> = Vec::new();
    let mut operations: Vec<Operation> = Vec::new();
    for position in 0..count {
        let key = random.random_range(0..keys);
        let value = position as u64 + 1;
        let expected = random.random_bool(0.7).then(|| random.random_range(1..=count as u64));
        let request = match random.random_range(0..5) {
            0 | 1 => Request::Get { key },
            2 => Request::Put { key, value },
            3 => Request::Delete { key },
            _ => Request::Swap { key, expected_revision: 0, expected, value },
        };
        let call_ns = random.random_range(0..24);
        let return_ns = call_ns + random.random_range(1..12);
        let is_unknown = random.random_bool(0.15);
        let latest = if is_unknown { 60 } else { return_ns };
        if !is_unknown || random.random_bool(0.6) {
            happens.push((random.random_range(call_ns..=latest), position));
        }
        let outcome = Outcome::Unknown("nothing".into());
        operations.push(Operation { client: position, member: 0, call_ns, return_ns, request, outcome });
        if is_unknown {
            operations[position].client = usize::MAX;
        }
    }
    happens.shuffle(random);
    happens.sort_by_key(|(at, _)| *at);
    let mut registers: HashMap<u32, Option<u64>> = HashMap::new();
    for (_, position) in happens {
        let operation = &mut operations[position];
        let register = registers.entry(operation.request.key()).or_default();
        let (answer, after) = replay(*register, operation.request);
        *register = after;
        if operation.client != usize::MAX {
            operation.outcome = Outcome::Done(answer);
        }
    }
    for _ in 0..random.random_range(0..3) {
        let position = random.random_range(0..operations.len());
        let other = random.random_bool(0.7).then(|| random.random_range(1..=count as u64));
        let operation = &mut operations[position];
        let Outcome::Done(_) = operation.outcome else { continue };
        // As if the register had held something else, perhaps what it did hold.
        operation.outcome = Outcome::Done(replay(other, operation.request).0);
    }
    operations
}

/// Whether some order of all that were answered, and of any of the others, respects time and explains all answers.
fn by_definition(operations: &[&Operation]) -> bool {
    let answered = |position: &usize| matches!(operations[*position].outcome, Outcome::Done(_));
    let (done, open): (Vec<usize>, Vec<usize>) = (0..operations.len()).partition(answered);
    (0..1_u32 << open.len()).any(|chosen| {
        let mut taken = done.clone();
        taken.extend(open.iter().enumerate().filter(|(bit, _)| chosen >> bit & 1 == 1).map(|(_, at)| *at));
        let mut tried = false;
        permutations(&mut taken, 0, &mut |order| tried |= explains(operations, order));
        tried
    })
}

fn explains(operations: &[&Operation], order: &[usize]) -> bool {
    let in_time = order.iter().enumerate().all(|(place, later)| {
        order[..place].iter().all(|earlier| {
            // Nothing that had ended before another began may come behind it.
            let ended = matches!(operations[*later].outcome, Outcome::Done(_));
            !(ended && operations[*later].return_ns < operations[*earlier].call_ns)
        })
    });
    let mut register = None;
    in_time
        && order.iter().all(|position| {
            let (answer, after) = replay(register, operations[*position].request);
            register = after;
            match &operations[*position].outcome {
                Outcome::Done(told) => *told == answer,
                _ => true,
            }
        })
}

fn permutations(items: &mut [usize], fixed: usize, visit: &mut impl FnMut(&[usize])) {
    if fixed == items.len() {
        return visit(items);
    }
    for next in fixed..items.len() {
        items.swap(fixed, next);
        permutations(items, fixed + 1, visit);
        items.swap(fixed, next);
    }
}

#[test]
fn the_search_and_the_definition_say_the_same_of_every_small_history() {
    let (mut good, mut bad) = (0, 0);
    for seed in 0..HISTORIES {
        let operations = history(&mut StdRng::seed_from_u64(seed));
        let expected = [0, 1].iter().all(|key| {
            let of_key: Vec<&Operation> =
                operations.iter().filter(|operation| operation.request.key() == *key).collect();
            by_definition(&of_key)
        });
        let found = search::check(&operations, &Hints::default());
        let lines: Vec<String> = operations.iter().map(ToString::to_string).collect();
        match expected {
            true => assert_eq!(found, Verdict::Linearizable, "seed {seed}:\n{}", lines.join("\n")),
            false => {
                let Verdict::Violation(violation) = found else {
                    panic!("seed {seed}: the search says {found:?} of\n{}", lines.join("\n"));
                };
                assert!(violation.operation.unwrap() < operations.len());
            }
        }
        *(if expected { &mut good } else { &mut bad }) += 1;
    }
    assert!(good > HISTORIES / 4 && bad > HISTORIES / 10, "{good} good and {bad} bad histories");
}
