//! A breadth-first search through all states of a small model of one of our rules.
//!
//! Always holds: every state that can be reached is looked at, or the search fails; what it finds is a shortest way there.
//! A model stands for the rule that the code states, not for the code: a rule that changes there must change here. Each is
//! searched with the rule broken, too, which must be found, so that a model too small to show the fault is noticed.
//! Not here: the models (tests/).

use std::collections::HashSet;
use std::fmt::{self, Debug, Write as _};
use std::hash::Hash;

/// What is searched.
pub trait Model {
    type State: Clone + Eq + Hash;
    type Step: Clone + Debug;

    fn initial(&self) -> Self::State;
    /// All that may happen next.
    fn steps(&self, state: &Self::State) -> Vec<(Self::Step, Self::State)>;
    /// The one of the states that differ in names alone that stands for all of them.
    fn canonical(&self, state: &Self::State) -> Self::State {
        state.clone()
    }
    /// What is wrong with the state.
    fn broken(&self, state: &Self::State) -> Option<&'static str>;
}

/// A state that must not be, and the steps that lead there.
#[derive(Debug)]
pub struct Found {
    pub what: &'static str,
    pub steps: Vec<String>,
}

impl fmt::Display for Found {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.what.to_owned();
        for step in &self.steps {
            write!(text, "\n  {step}")?;
        }
        formatter.write_str(&text)
    }
}

/// A state, the place of the one before it, and the step between them.
type Reached<S, T> = (S, Option<(usize, T)>);

/// The number of states, or the first that is broken.
///
/// Panics at more than `states_max`: then the model is not as small as was thought.
pub fn search<M: Model>(model: &M, states_max: usize) -> Result<usize, Found> {
    let first = model.initial();
    let mut known = HashSet::from([model.canonical(&first)]);
    let mut reached: Vec<Reached<M::State, M::Step>> = vec![(first, None)];
    let mut next = 0;
    while let Some((state, _)) = reached.get(next) {
        if let Some(what) = model.broken(state) {
            return Err(Found { what, steps: way(&reached, next) });
        }
        for (step, state) in model.steps(&state.clone()) {
            if known.insert(model.canonical(&state)) {
                reached.push((state, Some((next, step))));
            }
        }
        assert!(reached.len() <= states_max, "more than {states_max} states");
        next += 1;
    }
    Ok(reached.len())
}

fn way<S, T: Debug>(reached: &[Reached<S, T>], mut at: usize) -> Vec<String> {
    let mut steps = Vec::new();
    while let Some((_, Some((before, step)))) = reached.get(at) {
        steps.push(format!("{step:?}"));
        at = *before;
    }
    steps.reverse();
    steps
}
