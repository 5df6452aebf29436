//! The rules of `crates/replica/src/leases.rs`: no lease ends before the time that its holder was last promised, whoever
//! leads (Z15).
//!
//! One lease, a clock that all share, and the log as the newest leader has it. A deposed leader goes on looking at its clock,
//! and what it proposed may still get into its successor's log. Not here: checkpoints, several leases, which members are up.

use models::{Model, search};

const TIME_MAX: u8 = 7;
const TTL: u8 = 2;
const TERM_MAX: u8 = 3;
const LOG_MAX: usize = 5;

/// What is done otherwise than the code does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Z15: an expiry counts in whichever term it gets into the log.
    ExpiresInAnyTerm,
    /// A new leader gives no lease its time anew.
    NoFullTime,
    /// A new leader renews before it has applied what its predecessors wrote.
    RenewsBeforeApply,
    /// A lease whose time is over is renewed: its expiry may be under way.
    RenewsAfterDeadline,
    /// A leader renews without asking whether it leads.
    RenewsUnconfirmed,
}

/// An entry: its term, and if it is an expiry the term that it carries.
type Entry = (u8, Option<u8>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Clock {
    term: u8,
    deadline: u8,
    expiring: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    time: u8,
    log: Vec<Entry>,
    committed: usize,
    /// By the leader.
    applied: usize,
    leader: Clock,
    /// A leader that does not know that it is none any more.
    deposed: Option<Clock>,
    /// The term of an expiry that waits for a leader that takes it.
    offered: Option<u8>,
    promised_until: u8,
    ended_early: bool,
}

#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "the fields are for the words about what was found")]
enum Step {
    TimePasses,
    Renews,
    DeposedRenews,
    Expires,
    DeposedExpires,
    OffersExpiry,
    TakesOffered,
    Commits(usize),
    Applies,
    Leads { keeps: usize, applied: usize },
}

impl State {
    fn push(&mut self, entry: Entry) {
        self.log.push(entry);
    }
}

impl Fault {
    fn counts(self, (term, carried): Entry) -> bool {
        carried.is_some_and(|carried| carried == term || self == Fault::ExpiresInAnyTerm)
    }

    fn is_alive(self, state: &State, upto: usize) -> bool {
        !state.log.iter().take(upto).any(|entry| self.counts(*entry))
    }

    /// The leader's first entry is applied, and with it all that came before.
    fn caught_up(self, state: &State) -> bool {
        let own = state.log.iter().position(|(term, _)| *term == state.leader.term);
        own.is_some_and(|own| state.applied > own) || self == Fault::RenewsBeforeApply
    }
}

impl Model for Fault {
    type State = State;
    type Step = Step;

    fn initial(&self) -> State {
        State {
            time: 0,
            log: vec![(1, None)],
            committed: 1,
            applied: 1,
            leader: Clock { term: 1, deadline: TTL, expiring: false },
            deposed: None,
            offered: None,
            promised_until: TTL,
            ended_early: false,
        }
    }

    fn broken(&self, state: &State) -> Option<&'static str> {
        state.ended_early.then_some("a lease ended before its promised time")
    }

    fn steps(&self, state: &State) -> Vec<(Step, State)> {
        let mut steps = Vec::new();
        let mut add = |step: Step, change: &dyn Fn(&mut State)| {
            let mut next = state.clone();
            change(&mut next);
            steps.push((step, next));
        };
        let alive = self.is_alive(state, state.applied);
        let has_room = state.log.len() < LOG_MAX;
        let may_renew = |clock: &Clock| state.time < clock.deadline || *self == Fault::RenewsAfterDeadline;
        if state.time < TIME_MAX {
            add(Step::TimePasses, &|next| next.time += 1);
        }
        if alive && may_renew(&state.leader) && self.caught_up(state) {
            add(Step::Renews, &|next| {
                next.leader.deadline = next.time + TTL;
                next.promised_until = next.time + TTL;
            });
        }
        let runs_out = |clock: &Clock| alive && state.time >= clock.deadline && !clock.expiring;
        if runs_out(&state.leader) {
            if has_room {
                add(Step::Expires, &|next| {
                    next.leader.expiring = true;
                    next.push((next.leader.term, Some(next.leader.term)));
                });
            }
            add(Step::OffersExpiry, &|next| {
                next.leader.expiring = true;
                next.offered = Some(next.leader.term);
            });
        }
        if let Some(deposed) = state.deposed {
            if runs_out(&deposed) {
                add(Step::DeposedExpires, &|next| {
                    next.deposed = Some(Clock { expiring: true, ..deposed });
                    next.offered = Some(deposed.term);
                });
            }
            if *self == Fault::RenewsUnconfirmed && may_renew(&deposed) {
                add(Step::DeposedRenews, &|next| {
                    next.deposed = Some(Clock { deadline: next.time + TTL, ..deposed });
                    next.promised_until = next.time + TTL;
                });
            }
        }
        if let Some(carried) = state.offered
            && has_room
        {
            add(Step::TakesOffered, &|next| {
                next.offered = None;
                next.push((next.leader.term, Some(carried)));
            });
        }
        for upto in state.committed + 1..=state.log.len() {
            if state.log[upto - 1].0 == state.leader.term {
                add(Step::Commits(upto), &|next| next.committed = upto);
            }
        }
        if state.applied < state.committed {
            add(Step::Applies, &|next| {
                let ends = self.counts(next.log[next.applied]) && alive;
                next.applied += 1;
                next.ended_early |= ends && next.time < next.promised_until;
            });
        }
        if state.leader.term < TERM_MAX && has_room {
            for keeps in state.committed..=state.log.len() {
                for applied in 0..=state.committed {
                    add(Step::Leads { keeps, applied }, &|next| {
                        next.deposed = Some(next.leader);
                        let time = if *self == Fault::NoFullTime { 0 } else { TTL };
                        let term = next.leader.term + 1;
                        next.leader = Clock { term, deadline: next.time + time, expiring: false };
                        next.log.truncate(keeps);
                        next.push((term, None));
                        next.applied = applied;
                    });
                }
            }
        }
        steps
    }
}

#[test]
fn no_lease_ends_before_its_promised_time() {
    match search(&Fault::None, 4_000_000) {
        Ok(states) => println!("{states} states"),
        Err(found) => panic!("{found}"),
    }
}

#[test]
fn each_part_of_the_rule_is_needed() {
    for fault in [
        Fault::ExpiresInAnyTerm,
        Fault::NoFullTime,
        Fault::RenewsBeforeApply,
        Fault::RenewsAfterDeadline,
        Fault::RenewsUnconfirmed,
    ] {
        match search(&fault, 4_000_000) {
            Ok(states) => panic!("{fault:?} was not found in {states} states"),
            Err(found) => println!("{fault:?}: {found}"),
        }
    }
}
