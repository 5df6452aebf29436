//! A search for an order of one key's operations that explains all answers, without looking at any revision.
//!
//! The algorithm is Wing and Gong's with Lowe's memory of visited configurations (G. Lowe, "Testing for
//! linearizability", 2017), over a register that holds a value or nothing. Keys are independent of each other, so each
//! is searched alone. What the log said about unknown outcomes may be used to make the search short (`Hint`); without
//! it the answer is the same, or "undecided" when the bound on steps is reached.

use std::collections::{HashMap, HashSet};

use crate::history::{Answer, Key, Operation, Outcome, Request, Value, Violation};

/// Configurations that are looked at per key before the search gives up.
pub const STEPS_MAX: usize = 200_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Linearizable,
    /// The operation up to which an order exists and with which none does.
    Violation(Violation),
    Undecided,
}

/// What is known about a write whose client was told nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    Happened,
    DidNot,
}

/// What the log says about writes with an unknown outcome.
#[derive(Debug, Default)]
pub struct Hints {
    pub values: HashMap<Value, Hint>,
    /// Keys on which no such deletion had an effect.
    pub undeleted: HashSet<Key>,
}

type Register = Option<Value>;

struct Step {
    request: Request,
    /// `None`: nobody was told; the step may take place at any time after its call, or never.
    answer: Option<Answer>,
    may_be_left_out: bool,
    call_ns: u64,
    return_ns: u64,
    /// For the text of a violation.
    position: usize,
}

/// Searches every key.
pub fn check(operations: &[Operation], hints: &Hints) -> Verdict {
    let mut by_key: HashMap<Key, Vec<Step>> = HashMap::new();
    for (position, operation) in operations.iter().enumerate() {
        let Some(step) = step(position, operation, hints) else { continue };
        by_key.entry(operation.request.key()).or_default().push(step);
    }
    let mut keys: Vec<_> = by_key.into_iter().collect();
    keys.sort_unstable_by_key(|(key, _)| *key);
    let mut undecided = false;
    for (_, mut steps) in keys {
        steps.sort_by_key(|step| step.call_ns);
        match search(&steps) {
            Found::Order => {}
            Found::None { stuck_at } => {
                let position = steps[stuck_at].position;
                let sentence = format!("no order explains: {}", operations[position]);
                return Verdict::Violation(Violation::at(position, sentence));
            }
            Found::GaveUp => undecided = true,
        }
    }
    if undecided { Verdict::Undecided } else { Verdict::Linearizable }
}

fn step(position: usize, operation: &Operation, hints: &Hints) -> Option<Step> {
    let request = operation.request;
    let (answer, may_be_left_out, return_ns) = match &operation.outcome {
        Outcome::Done(answer) => (Some(*answer), false, operation.return_ns),
        Outcome::Refused(_) => return None,
        Outcome::Unknown(_) => {
            let hint = request.value().and_then(|value| hints.values.get(&value));
            match (request, hint) {
                (Request::Get { .. }, _) | (_, Some(Hint::DidNot)) => return None,
                (Request::Delete { key }, _) if hints.undeleted.contains(&key) => return None,
                (_, Some(Hint::Happened)) => (None, false, u64::MAX),
                (_, None) => (None, true, u64::MAX),
            }
        }
    };
    Some(Step { request, answer, may_be_left_out, call_ns: operation.call_ns, return_ns, position })
}

/// The register after the step, or `None` if the step's answer cannot be given now.
fn apply(register: Register, step: &Step) -> Option<Register> {
    let told = step.answer;
    match step.request {
        Request::Get { .. } => match told {
            Some(Answer::Found { entry, .. }) => {
                (entry.map(|entry| entry.value) == register).then_some(register)
            }
            _ => None,
        },
        Request::Put { value, .. } => Some(Some(value)),
        Request::Delete { .. } => match told {
            Some(Answer::Deleted { existed, .. }) => (existed == register.is_some()).then_some(None),
            _ => Some(None),
        },
        Request::Swap { expected, value, .. } => match told {
            Some(Answer::Swapped { .. }) => (register == expected).then_some(Some(value)),
            Some(Answer::Kept { entry, .. }) => {
                (register != expected && entry.map(|entry| entry.value) == register).then_some(register)
            }
            // Nobody was told: it has done what its comparison said.
            _ => Some(if register == expected { Some(value) } else { register }),
        },
    }
}

enum Found {
    Order,
    None { stuck_at: usize },
    GaveUp,
}

/// Which steps have been taken: all below `from`, and those in `ahead`. Kept small because steps are sorted by their
/// call, and a step can only be taken while no step that had returned before its call is left.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Taken {
    from: usize,
    ahead: Vec<usize>,
}

impl Taken {
    fn with(&self, step: usize) -> Taken {
        let mut next = self.clone();
        if let Err(place) = next.ahead.binary_search(&step) {
            next.ahead.insert(place, step);
        }
        let run =
            next.ahead.iter().enumerate().take_while(|(offset, step)| **step == next.from + offset).count();
        next.ahead.drain(..run);
        next.from += run;
        next
    }
}

/// `steps` are sorted by their call.
fn search(steps: &[Step]) -> Found {
    let mut visited: HashSet<(Taken, Register)> = HashSet::new();
    let mut stack = vec![(Taken { from: 0, ahead: Vec::new() }, None)];
    let mut furthest = 0;
    while let Some((taken, register)) = stack.pop() {
        if !visited.insert((taken.clone(), register)) {
            continue;
        }
        if visited.len() > STEPS_MAX {
            return Found::GaveUp;
        }
        let open = || (taken.from..steps.len()).filter(|step| taken.ahead.binary_search(step).is_err());
        if open().all(|step| steps[step].may_be_left_out) {
            return Found::Order;
        }
        furthest = furthest.max(taken.from);
        let mut first_return = u64::MAX;
        let mut next = Vec::new();
        for step in open() {
            if steps[step].call_ns > first_return {
                break; // this and all later ones were called after a step had returned that is not taken yet
            }
            first_return = first_return.min(steps[step].return_ns);
            if let Some(register) = apply(register, &steps[step]) {
                next.push((taken.with(step), register));
            }
        }
        // The earliest call is tried first: it is the most likely order.
        stack.extend(next.into_iter().rev());
    }
    Found::None { stuck_at: furthest }
}
