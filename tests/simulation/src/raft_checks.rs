//! What must hold between the logs of all members at every moment, whatever openraft, the log and the network do.
//!
//! Checked are election safety, log matching, leader completeness, that what is committed stays and is on the disks of a
//! majority, that votes, terms and commits never go back, and the order purged <= durable <= applied, committed <= last.
//! Always holds: members that do not run, or whose disk was damaged, may have anything. Not here: the state that entries
//! make (checks.rs).

use std::collections::{BTreeMap, BTreeSet};

use replica::{LogView, Status};

/// Entries of each log that are compared.
pub(crate) const NEWEST_MAX: usize = 64;

/// Sets of member ids; each decides by majority.
pub(crate) type Voters = Vec<BTreeSet<u64>>;

pub(crate) struct Seen {
    pub member: usize,
    pub life: u64,
    pub status: Status,
    pub log: LogView,
    /// As the newest membership in its log has them.
    pub voters: Voters,
    pub is_damaged: bool,
}

#[derive(Default)]
pub(crate) struct Logs {
    /// Of each committed index the term, and the member that said so first.
    committed: BTreeMap<u64, (u64, usize)>,
    /// Of each term the highest index that was committed in it.
    highest: BTreeMap<u64, u64>,
    /// Of each leader and term: its voters at the last look.
    voters: BTreeMap<(usize, u64), Voters>,
    /// Of each leader and term: what it had committed, and who decided when that was seen first.
    deciders: BTreeMap<(usize, u64), (u64, Vec<Voters>)>,
    /// Of each member and life, its vote and what it knew to be committed.
    before: BTreeMap<(usize, u64), (u64, u64)>,
}

impl Logs {
    /// `seen`: the members that run.
    pub(crate) fn look(&mut self, seen: &[Seen]) -> Result<(), String> {
        for one in seen {
            in_order(one)?;
            self.nothing_goes_back(one)?;
            self.committed_stays(one)?;
        }
        for (position, one) in seen.iter().enumerate() {
            seen[position + 1..].iter().try_for_each(|other| logs_match(one, other))?;
        }
        for leader in seen.iter().filter(|one| one.status.is_leader) {
            self.leader_is_complete(leader)?;
            self.is_on_a_majority(leader, seen)?;
        }
        Ok(())
    }

    /// What a leader has committed in its own term is on the disks of a majority of the voters who decided: those that
    /// were in force when that was seen first, or at the look before.
    fn is_on_a_majority(&mut self, leader: &Seen, seen: &[Seen]) -> Result<(), String> {
        let key = (leader.member, leader.status.term);
        let before = self.voters.insert(key, leader.voters.clone());
        let Some((term, index)) = leader.log.committed else { return Ok(()) };
        if term != leader.status.term || leader.voters.is_empty() {
            return Ok(());
        }
        let now = || {
            let earlier = before.into_iter().filter(|voters| !voters.is_empty() && *voters != leader.voters);
            earlier.chain([leader.voters.clone()]).collect()
        };
        let deciders = match self.deciders.remove(&key) {
            Some((known, deciders)) if known == index => deciders,
            Some(_) | None => now(),
        };
        let without: Vec<&Seen> = seen.iter().filter(|one| lacks(one, term, index)).collect();
        let decides = |voters: &BTreeSet<u64>| {
            let lacking =
                without.iter().filter(|one| voters.contains(&one.status.identity.member_id)).count();
            (voters.len() - lacking) * 2 > voters.len()
        };
        let is_there = deciders.iter().any(|sets| sets.iter().all(decides));
        self.deciders.insert(key, (index, deciders));
        if is_there {
            return Ok(());
        }
        let without: Vec<usize> = without.iter().map(|one| one.member).collect();
        Err(format!(
            "member {} has committed index {index} in its term {term}, but members {without:?} do not have it on disk",
            leader.member
        ))
    }

    fn nothing_goes_back(&mut self, one: &Seen) -> Result<(), String> {
        let now = (one.log.vote_term, one.log.committed.map_or(0, |(_, index)| index));
        let before = self.before.insert((one.member, one.life), now).unwrap_or_default();
        if now.0 < before.0 || now.1 < before.1 {
            return Err(format!(
                "member {} went back from a vote in term {} and commit {} to term {} and commit {}",
                one.member, before.0, before.1, now.0, now.1
            ));
        }
        Ok(())
    }

    fn committed_stays(&mut self, one: &Seen) -> Result<(), String> {
        let Some((term, committed)) = one.log.committed else { return Ok(()) };
        let highest = self.highest.entry(term).or_default();
        *highest = committed.max(*highest);
        let newest = one.log.newest.iter().filter(|(_, index)| *index <= committed);
        for (term, index) in newest.copied().chain([(term, committed)]) {
            let (before, by) = *self.committed.entry(index).or_insert((term, one.member));
            if before != term {
                return Err(format!(
                    "index {index} was committed in term {before}, as member {by} said, and in term {term}, as member {} \
                     says",
                    one.member
                ));
            }
        }
        Ok(())
    }

    /// What was committed in an earlier term is in the leader's log.
    fn leader_is_complete(&self, leader: &Seen) -> Result<(), String> {
        let term = leader.status.term;
        let earlier = self.highest.range(..term).map(|(_, index)| *index).max();
        let last = leader.log.last.map_or(0, |(_, index)| index);
        match earlier {
            Some(index) if index > last => Err(format!(
                "member {} leads term {term} with a log up to {last}, but {index} was committed before",
                leader.member
            )),
            Some(_) | None => Ok(()),
        }
    }
}

fn in_order(one: &Seen) -> Result<(), String> {
    let index = |place: Option<(u64, u64)>| place.map_or(0, |(_, index)| index);
    let status = &one.status;
    let last = index(one.log.last).max(status.applied_index);
    let order = [
        ("purged", index(one.log.purged), "durable", status.snapshot_index),
        ("durable", status.snapshot_index, "applied", status.applied_index),
        ("committed", index(one.log.committed), "last", last),
    ];
    match order.into_iter().find(|(_, lower, _, higher)| lower > higher) {
        Some((lower_name, lower, higher_name, higher)) => Err(format!(
            "member {} has {lower_name} index {lower} above {higher_name} index {higher}",
            one.member
        )),
        None => Ok(()),
    }
}

/// Where two logs have the same term at one index, they are the same below it.
fn logs_match(one: &Seen, other: &Seen) -> Result<(), String> {
    let terms: BTreeMap<u64, u64> = other.log.newest.iter().map(|(term, index)| (*index, *term)).collect();
    let mut same_above = false;
    for (term, index) in one.log.newest.iter().rev() {
        let Some(others) = terms.get(index) else { continue };
        if others == term {
            same_above = true;
        } else if same_above {
            return Err(format!(
                "members {} and {} have the same entry above index {index}, but there terms {term} and {others}",
                one.member, other.member
            ));
        }
    }
    Ok(())
}

/// Members that were damaged may lack anything.
fn lacks(one: &Seen, term: u64, index: u64) -> bool {
    let first = one.log.newest.first().map_or(u64::MAX, |(_, first)| *first);
    let is_there = one.log.newest.contains(&(term, index)) && index < one.log.flushed_next;
    let is_below = index < first && one.log.last.is_some_and(|last| last >= (term, index));
    !one.is_damaged && one.status.applied_index < index && !is_there && !is_below
}
