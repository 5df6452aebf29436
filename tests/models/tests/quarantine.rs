//! The rules of `crates/replica/src/quarantine.rs` on three members: no acknowledged entry is ever lost, and no term has two
//! leaders, as long as at most one member at a time lacks what it once had.
//!
//! A member is its log (the terms of its entries), its vote, what it leads with, and its quarantine. Votes and appends are
//! handled as they are sent; what is kept of them is what matters, a leader's belief of how far the others are, which
//! outlives their disks. A restart that loses nothing is not a step: it only takes beliefs and candidacies away.
//! Not here: who is reached when (any order is tried), membership, snapshots.

use models::{Model, search};

const MEMBERS: usize = 3;
const LOG_MAX: usize = 3;
const TERM_MAX: u8 = 3;
const NOBODY: u8 = 9;
/// In this term it votes for nobody any more.
const SPENT: u8 = 8;
const UNKNOWN: u8 = 9;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Role {
    Follower,
    Candidate,
    /// With how many entries it believes each member to have.
    Leader([u8; MEMBERS]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Quarantine {
    No,
    FirstStart,
    /// Emptied or damaged.
    Behind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Member {
    /// Terms; 0 behind the end.
    log: [u8; LOG_MAX],
    term: u8,
    voted_for: u8,
    role: Role,
    quarantine: Quarantine,
    /// The least term of a leader that it follows.
    floor: u8,
    /// Index and term of what it proposed after its return.
    own: Option<(u8, u8)>,
    /// It lost something, and no rule has said yet that this does no harm any more.
    lacks: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct State {
    members: [Member; MEMBERS],
    /// Terms of what was ever committed.
    committed: [u8; LOG_MAX],
    leaders: [u8; TERM_MAX as usize + 1],
    losses: u8,
    broken: Option<Broken>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Broken {
    TwoLeaders,
    LostEntry,
}

/// What is done otherwise than the code does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Z20: who lost data votes at once.
    NoQuarantine,
    /// The vote comes back once all that is committed is there.
    CommittedIsEnough,
    /// What it proposed before its last loss counts, too.
    OldProposalCounts,
    /// An emptied member follows whoever leads.
    NoFloor,
    /// It asks one other for its term.
    OneTermIsEnough,
    /// A first start votes in terms that the others have seen.
    NewForgetsTerms,
    /// A first start hears only some of the others: what the module calls not covered.
    SomeAreHeard,
}

#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "the fields are for the words about what was found")]
enum Step {
    Stands(usize),
    Wins(usize, usize),
    Appends(usize, usize),
    Writes(usize),
    WritesFor(usize, usize),
    Commits(usize, usize),
    IsEmptied(usize),
    LosesFrom(usize, usize),
    IsNew(usize),
    HasHistory(usize),
    HearsTerms(usize, u8),
    VotesAgain(usize),
}

fn length(log: &[u8; LOG_MAX]) -> usize {
    log.iter().take_while(|term| **term > 0).count()
}

fn is_prefix(short: &[u8; LOG_MAX], long: &[u8; LOG_MAX]) -> bool {
    short.iter().zip(long).all(|(one, other)| *one == 0 || one == other)
}

impl Member {
    fn fresh() -> Member {
        Member {
            log: [0; LOG_MAX],
            term: 0,
            voted_for: NOBODY,
            role: Role::Follower,
            quarantine: Quarantine::FirstStart,
            floor: UNKNOWN,
            own: None,
            lacks: false,
        }
    }

    fn last(&self) -> (u8, usize) {
        let length = length(&self.log);
        (length.checked_sub(1).map_or(0, |last| self.log[last]), length)
    }

    fn push(&mut self, limits: Limits, term: u8) -> bool {
        let length = length(&self.log);
        let has_room = length < limits.entries;
        if has_room {
            self.log[length] = term;
        }
        has_room
    }
}

/// How far the search goes.
#[derive(Clone, Copy, Debug)]
struct Limits {
    entries: usize,
    terms: u8,
    /// Of directories and logs.
    losses: u8,
}

struct Rules(Fault, Limits);

const ORDERS: [[usize; MEMBERS]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// With the members called otherwise: `names[old]` is the new one.
fn renamed(state: &State, names: [usize; MEMBERS]) -> State {
    let name = |old: u8| names.get(old as usize).map_or(old, |new| *new as u8);
    let mut next = *state;
    for (old, new) in names.into_iter().enumerate() {
        let member = &mut next.members[new];
        *member = state.members[old];
        member.voted_for = name(member.voted_for);
        if let (Role::Leader(before), Role::Leader(believed)) = (state.members[old].role, &mut member.role) {
            names.into_iter().zip(before).for_each(|(new, entries)| believed[new] = entries);
        }
    }
    next.leaders = state.leaders.map(name);
    next
}

impl Model for Rules {
    type State = State;
    type Step = Step;

    fn initial(&self) -> State {
        State {
            members: [Member::fresh(); MEMBERS],
            committed: [0; LOG_MAX],
            leaders: [NOBODY; TERM_MAX as usize + 1],
            losses: self.1.losses,
            broken: None,
        }
    }

    fn canonical(&self, state: &State) -> State {
        ORDERS.into_iter().map(|names| renamed(state, names)).min().unwrap_or(*state)
    }

    fn broken(&self, state: &State) -> Option<&'static str> {
        state.broken.map(|broken| match broken {
            Broken::TwoLeaders => "a term has two leaders",
            Broken::LostEntry => "an acknowledged entry is lost",
        })
    }

    fn steps(&self, state: &State) -> Vec<(Step, State)> {
        let mut steps = Vec::new();
        for me in 0..MEMBERS {
            votes(self.1, state, me, &mut steps);
            leads(self.1, state, me, &mut steps);
            self.0.fails(state, me, &mut steps);
            self.0.returns(state, me, &mut steps);
        }
        steps
    }
}

fn others(me: usize) -> [usize; 2] {
    [(me + 1) % MEMBERS, (me + 2) % MEMBERS]
}

fn votes(limits: Limits, state: &State, me: usize, steps: &mut Vec<(Step, State)>) {
    let member = state.members[me];
    if member.quarantine != Quarantine::No {
        return;
    }
    if member.term < limits.terms && !matches!(member.role, Role::Leader(_)) {
        let mut next = *state;
        next.members[me] =
            Member { term: member.term + 1, voted_for: me as u8, role: Role::Candidate, ..member };
        steps.push((Step::Stands(me), next));
    }
    if member.role != Role::Candidate {
        return;
    }
    for voter in others(me) {
        let asked = state.members[voter];
        let free = asked.term < member.term || (asked.term == member.term && asked.voted_for == me as u8);
        if asked.quarantine != Quarantine::No || !free || asked.last() > member.last() {
            continue;
        }
        let mut next = *state;
        next.members[voter] =
            Member { term: member.term, voted_for: me as u8, role: Role::Follower, ..asked };
        let leader = &mut next.members[me];
        leader.role = Role::Leader([0; MEMBERS]);
        // Its first entry, if the model has room.
        let _had_room = leader.push(limits, member.term);
        if !is_prefix(&state.committed, &leader.log) {
            next.broken = Some(Broken::LostEntry);
        }
        let of_term = &mut next.leaders[member.term as usize];
        if *of_term != NOBODY && *of_term != me as u8 {
            next.broken = Some(Broken::TwoLeaders);
        }
        *of_term = me as u8;
        steps.push((Step::Wins(me, voter), next));
    }
}

fn leads(limits: Limits, state: &State, me: usize, steps: &mut Vec<(Step, State)>) {
    let leader = state.members[me];
    let Role::Leader(believed) = leader.role else { return };
    let entries = length(&leader.log);
    let mut next = *state;
    if next.members[me].push(limits, leader.term) {
        steps.push((Step::Writes(me), next));
    }
    for other in others(me) {
        let follower = state.members[other];
        if follower.floor > leader.term || follower.term > leader.term {
            continue;
        }
        let mut next = *state;
        let moved = &mut next.members[other];
        (moved.term, moved.voted_for, moved.role) = (leader.term, me as u8, Role::Follower);
        let before = believed[other] as usize;
        let mut belief = believed;
        if before > 0 && follower.log[before - 1] != leader.log[before - 1] {
            belief[other] = 0; // refused
        } else if before < entries {
            if follower.log[before] != leader.log[before] {
                moved.log[before..].fill(0);
                moved.log[before] = leader.log[before];
            }
            belief[other] += 1;
        }
        next.members[me].role = Role::Leader(belief);
        if next != *state {
            steps.push((Step::Appends(me, other), next));
        }
        let follows = follower.term == leader.term && follower.voted_for == me as u8;
        let mut next = *state;
        if follower.quarantine == Quarantine::Behind && follows && next.members[me].push(limits, leader.term)
        {
            next.members[other].own = Some((entries as u8, leader.term));
            steps.push((Step::WritesFor(me, other), next));
        }
    }
    for end in 1..=entries {
        let copies = others(me).into_iter().filter(|other| believed[*other] as usize >= end).count();
        if leader.log[end - 1] != leader.term || copies == 0 {
            continue;
        }
        let mut next = *state;
        let mut upto = leader.log;
        upto[end..].fill(0);
        if is_prefix(&state.committed, &upto) {
            next.committed = upto;
        } else if !is_prefix(&upto, &state.committed) {
            next.broken = Some(Broken::LostEntry);
        }
        if next != *state {
            steps.push((Step::Commits(me, end), next));
        }
    }
}

impl Fault {
    fn fails(self, state: &State, me: usize, steps: &mut Vec<(Step, State)>) {
        let member = state.members[me];
        // Who comes back proposes anew.
        let own = member.own.filter(|_| self == Fault::OldProposalCounts);
        let one_lacks = others(me).into_iter().any(|other| state.members[other].lacks);
        if state.losses == 0 || one_lacks || member.lacks {
            return;
        }
        let mut lost = |step: Step, member: Member| {
            let mut next = *state;
            next.losses -= 1;
            next.members[me] = match self {
                Fault::NoQuarantine => Member { quarantine: Quarantine::No, floor: 0, ..member },
                _ => Member { lacks: true, ..member },
            };
            steps.push((step, next));
        };
        if member.quarantine != Quarantine::FirstStart {
            let floor = if self == Fault::NoFloor { 0 } else { UNKNOWN };
            lost(Step::IsEmptied(me), Member { floor, ..Member::fresh() });
        }
        for from in 0..length(&member.log) {
            let mut log = member.log;
            log[from..].fill(0);
            lost(
                Step::LosesFrom(me, from),
                Member { log, quarantine: Quarantine::Behind, role: Role::Follower, own, ..member },
            );
        }
    }

    fn returns(self, state: &State, me: usize, steps: &mut Vec<(Step, State)>) {
        let member = state.members[me];
        let mut returns = |step: Step, member: Member| {
            let mut next = *state;
            next.members[me] = member;
            steps.push((step, next));
        };
        if member.quarantine == Quarantine::FirstStart {
            let [one, other] = others(me);
            let heard: &[&[usize]] = match self {
                Fault::SomeAreHeard => &[&[one], &[other], &[one, other]],
                _ => &[&[one, other]],
            };
            for heard in heard {
                let has_history = |other: &usize| {
                    let other = state.members[*other];
                    length(&other.log) > 0 || other.quarantine == Quarantine::Behind
                };
                if heard.iter().any(has_history) {
                    returns(Step::HasHistory(me), Member { quarantine: Quarantine::Behind, ..member });
                } else {
                    let told = heard.iter().map(|other| state.members[*other].term).max().unwrap_or(0);
                    let term = if self == Fault::NewForgetsTerms { 0 } else { told };
                    let votes = Member { quarantine: Quarantine::No, floor: 0, lacks: false, ..member };
                    returns(
                        Step::IsNew(me),
                        Member { term, voted_for: if term > 0 { SPENT } else { NOBODY }, ..votes },
                    );
                }
            }
        }
        if member.quarantine != Quarantine::Behind {
            return;
        }
        if member.floor == UNKNOWN {
            let told = |other: usize| {
                let other = state.members[other];
                (other.floor != UNKNOWN).then(|| other.floor.max(other.term))
            };
            let [one, other] = others(me).map(told);
            let heard = match self {
                Fault::OneTermIsEnough => vec![one, other],
                _ => vec![one.zip(other).map(|(one, other)| one.max(other))],
            };
            for term in heard.into_iter().flatten() {
                returns(Step::HearsTerms(me, term), Member { floor: term, ..member });
            }
        }
        let has = |(index, term): (u8, u8)| {
            let place = index as usize;
            member.log[place] == term && state.committed[place] == term
        };
        let caught_up = match self {
            Fault::CommittedIsEnough => member.floor != UNKNOWN && is_prefix(&state.committed, &member.log),
            _ => member.own.is_some_and(has),
        };
        if caught_up {
            let votes = Member { quarantine: Quarantine::No, own: None, lacks: false, ..member };
            returns(Step::VotesAgain(me), votes);
        }
    }
}

#[test]
fn no_acknowledged_entry_is_lost_and_no_term_has_two_leaders() {
    for limits in [
        Limits { entries: 2, terms: 3, losses: 2 },
        Limits { entries: 3, terms: 2, losses: 2 },
        Limits { entries: 3, terms: 3, losses: 1 },
    ] {
        match search(&Rules(Fault::None, limits), 6_000_000) {
            Ok(states) => println!("{limits:?}: {states} states"),
            Err(found) => panic!("{limits:?}: {found}"),
        }
    }
}

#[test]
fn each_part_of_the_rule_is_needed() {
    let limits = Limits { entries: 3, terms: 3, losses: 2 };
    for fault in [
        Fault::NoQuarantine,
        Fault::CommittedIsEnough,
        Fault::OldProposalCounts,
        Fault::NoFloor,
        Fault::OneTermIsEnough,
        Fault::NewForgetsTerms,
        Fault::SomeAreHeard,
    ] {
        match search(&Rules(fault, limits), 6_000_000) {
            Ok(states) => panic!("{fault:?} was not found in {states} states"),
            Err(found) => println!("{fault:?}: {found}"),
        }
    }
}
