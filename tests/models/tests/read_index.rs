//! The rules of `crates/replica/src/read_index.rs`: a linearizable read shows every write that was acknowledged before it
//! began, whatever comes late.
//!
//! One leader, which may be deposed without knowing it, and its successor. What was acknowledged is a number; a round asks
//! the members of the majority whether they still follow, and their answers may come at any later time.
//! Not here: elections, and waiting for apply up to the index.

use models::{Model, search};

const WRITES_MAX: u8 = 3;
const ROUNDS_MAX: u8 = 3;

/// What is done otherwise than the code does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Z13: the leader asks nobody.
    NoQuorum,
    /// An answer to an earlier round confirms this one.
    LateAnswersCount,
    /// A reader that came when the round was under way is served by it.
    JoinsRunningRound,
    /// A new leader takes what it knows to be committed for all that is.
    NoEntryOfItsOwn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
struct State {
    /// Writes that were acknowledged to somebody.
    acknowledged: u8,
    /// Of them the first leader knows so many, and it was deposed.
    known: u8,
    deposed: bool,
    /// The second leader, once there is one.
    second_knows: u8,
    second_committed_its_own: bool,
    rounds: u8,
    /// Index of the round that is under way.
    round: Option<u8>,
    /// By round: a question and an answer that are on their way.
    asked: [bool; ROUNDS_MAX as usize],
    answers: [bool; ROUNDS_MAX as usize],
    /// What had been acknowledged when the reader came, and whether the round began after that.
    reader: Option<(u8, bool)>,
    read_too_little: bool,
}

#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "the fields are for the words about what was found")]
enum Step {
    Writes,
    IsDeposed { successor_knows: u8 },
    SuccessorWrites,
    ReaderComes,
    ReaderGivesUp,
    RoundBegins,
    MajorityAnswers(usize),
    AnswerArrives(usize),
    RoundFails,
    SuccessorReads,
}

impl State {
    fn read(&mut self, index: u8, must_show: u8) {
        self.read_too_little |= index < must_show;
    }

    fn answer(&mut self, fault: Fault) {
        let Some(index) = self.round.take() else { return };
        match self.reader {
            Some((must_show, waited)) if waited || fault == Fault::JoinsRunningRound => {
                self.reader = None;
                self.read(index, must_show);
            }
            _ => {}
        }
    }
}

impl Model for Fault {
    type State = State;
    type Step = Step;

    fn initial(&self) -> State {
        State::default()
    }

    fn broken(&self, state: &State) -> Option<&'static str> {
        state.read_too_little.then_some("a read misses a write that was acknowledged before")
    }

    fn steps(&self, state: &State) -> Vec<(Step, State)> {
        let mut steps = Vec::new();
        let mut add = |step: Step, change: &dyn Fn(&mut State)| {
            let mut next = *state;
            change(&mut next);
            steps.push((step, next));
        };
        if !state.deposed {
            if state.acknowledged < WRITES_MAX {
                add(Step::Writes, &|next| {
                    next.acknowledged += 1;
                    next.known += 1;
                });
            }
            for successor_knows in 0..=state.acknowledged {
                add(Step::IsDeposed { successor_knows }, &|next| {
                    next.deposed = true;
                    next.second_knows = successor_knows;
                });
            }
        }
        if state.deposed && state.acknowledged < WRITES_MAX {
            // With it all that was committed before.
            add(Step::SuccessorWrites, &|next| {
                next.acknowledged += 1;
                next.second_knows = next.acknowledged;
                next.second_committed_its_own = true;
            });
        }
        if state.deposed && (state.second_committed_its_own || *self == Fault::NoEntryOfItsOwn) {
            add(Step::SuccessorReads, &|next| next.read(next.second_knows, next.acknowledged));
        }
        if state.reader.is_none() {
            add(Step::ReaderComes, &|next| next.reader = Some((next.acknowledged, false)));
        }
        if state.reader.is_some() {
            add(Step::ReaderGivesUp, &|next| next.reader = None);
        }
        if state.reader.is_some() && state.round.is_none() && state.rounds < ROUNDS_MAX {
            add(Step::RoundBegins, &|next| {
                next.round = Some(next.known);
                next.asked[next.rounds as usize] = true;
                next.rounds += 1;
                next.reader = next.reader.map(|(must_show, _)| (must_show, true));
                if *self == Fault::NoQuorum {
                    next.answer(*self);
                }
            });
        }
        for round in 0..ROUNDS_MAX as usize {
            if state.asked[round] && !state.deposed {
                add(Step::MajorityAnswers(round), &|next| {
                    next.asked[round] = false;
                    next.answers[round] = true;
                });
            }
            if state.answers[round] {
                add(Step::AnswerArrives(round), &|next| {
                    next.answers[round] = false;
                    if round + 1 == next.rounds as usize || *self == Fault::LateAnswersCount {
                        next.answer(*self);
                    }
                });
            }
        }
        if state.round.is_some() {
            add(Step::RoundFails, &|next| {
                next.round = None;
                next.reader = next.reader.map(|(must_show, _)| (must_show, false));
            });
        }
        steps
    }
}

#[test]
fn a_linearizable_read_shows_every_write_that_was_acknowledged_before_it() {
    match search(&Fault::None, 1_000_000) {
        Ok(states) => println!("{states} states"),
        Err(found) => panic!("{found}"),
    }
}

#[test]
fn each_part_of_the_rule_is_needed() {
    for fault in [Fault::NoQuorum, Fault::LateAnswersCount, Fault::JoinsRunningRound, Fault::NoEntryOfItsOwn]
    {
        match search(&fault, 1_000_000) {
            Ok(states) => panic!("{fault:?} was not found in {states} states"),
            Err(found) => println!("{fault:?}: {found}"),
        }
    }
}
