//! What must hold of what a run recorded, whoever was cut off or lost its power.
//!
//! The log, every answer against it and the search that ignores revisions are those of the suite on real processes
//! (`faults`). Here are the rest: reads of one member's own state, leases, and what members say of themselves.

use std::collections::{BTreeMap, BTreeSet};

use faults::history::{Operation, Outcome, Request};
use faults::linear;
use faults::log::{Change, Log};
use faults::search::{self, Hint, Hints, Verdict};

use crate::observers::{BATCH_KEYS, Batch, Observed};
use crate::workload::{Held, LEASE_KEYS, LocalRead, Recorded};

/// What was looked at.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    pub changes: usize,
    pub answered: usize,
    pub unknown: usize,
    pub local_reads: usize,
    pub leases: usize,
    pub leases_expired: usize,
    pub observed: usize,
    pub batches: usize,
    pub undecided: bool,
}

/// How far members' clocks may have been ahead of the right time.
#[derive(Clone, Debug)]
pub(crate) struct Drift {
    /// The rate of the fastest.
    pub percent: u64,
    /// When one of them jumped, and how far, in nanoseconds.
    pub jumps: Vec<(u64, u64)>,
}

impl Drift {
    /// When something may be over that lasts for `lasts_ns` from `from_ns` on, if it was over at `until_ns`.
    fn due_ns(&self, from_ns: u64, lasts_ns: u64, until_ns: u64) -> u64 {
        let jumped = self.jumps.iter().filter(|(at_ns, _)| (from_ns..=until_ns).contains(at_ns));
        let jumped_ns: u64 = jumped.map(|(_, jump_ns)| jump_ns).sum();
        from_ns + lasts_ns.saturating_sub(jumped_ns) * 100 / self.percent
    }
}

/// `Err`: the first violation, as a sentence.
pub(crate) fn all(recorded: &Recorded, drift: &Drift) -> Result<Checked, String> {
    if let Some(finding) = recorded.findings.first() {
        return Err(finding.clone());
    }
    let log = Log::agreed(&recorded.streams)?;
    let expirations = expirations(&log, &recorded.operations);
    let leases_expired = expirations.len();
    let mut operations = recorded.operations.clone();
    operations.extend(expirations);
    let resolved = linear::check(&log, &operations).map_err(|violation| violation.sentence)?;
    let undecided = match search::check(&operations, &hints(&log, &operations, &resolved)) {
        Verdict::Linearizable => false,
        Verdict::Undecided => true,
        Verdict::Violation(violation) => return Err(violation.sentence),
    };
    local_reads(&log, &recorded.local_reads)?;
    leases(&log, &recorded.operations, &recorded.leases, drift)?;
    observed(&log, &recorded.observed)?;
    batches(&log, &recorded.batches)?;
    answered_while_calm(recorded)?;
    let count = |wanted: fn(&Outcome) -> bool| {
        recorded.operations.iter().filter(|operation| wanted(&operation.outcome)).count()
    };
    Ok(Checked {
        changes: log.changes().len(),
        answered: count(|outcome| matches!(outcome, Outcome::Done(_))),
        unknown: count(|outcome| matches!(outcome, Outcome::Unknown(_))),
        local_reads: recorded.local_reads.len(),
        leases: recorded.leases.len(),
        leases_expired,
        observed: recorded.observed.len(),
        batches: recorded.batches.len(),
        undecided,
    })
}

/// A lease that ends deletes its key, which nobody asked for: for each such deletion an operation that says so, called
/// when the key was and answered to nobody.
fn expirations(log: &Log, operations: &[Operation]) -> Vec<Operation> {
    let mut asked: BTreeMap<u32, &Operation> = BTreeMap::new();
    for operation in operations {
        if (LEASE_KEYS..BATCH_KEYS).contains(&operation.request.key()) && operation.request.value().is_some()
        {
            asked.insert(operation.request.key(), operation);
        }
    }
    let ended = |change: &&Change| change.key >= LEASE_KEYS && change.value.is_none();
    let expiration = |change: &Change| {
        let put = asked.get(&change.key)?;
        Some(Operation {
            request: Request::Delete { key: change.key },
            outcome: Outcome::Unknown("the end of a lease".to_owned()),
            ..(*put).clone()
        })
    };
    log.changes().iter().filter(ended).filter_map(expiration).collect()
}

fn hints(log: &Log, operations: &[Operation], resolved: &linear::Resolved) -> Hints {
    let mut hints = Hints::default();
    for operation in operations {
        if let (Outcome::Unknown(_), Some(value)) = (&operation.outcome, operation.request.value()) {
            hints.values.insert(value, Hint::DidNot);
        }
        hints.undeleted.insert(operation.request.key());
    }
    for value in log.changes().iter().filter_map(|change| change.value) {
        if let Some(hint) = hints.values.get_mut(&value) {
            *hint = Hint::Happened;
        }
    }
    hints.undeleted.retain(|key| *key < LEASE_KEYS && !resolved.deleted_by_unknown.contains(key));
    hints
}

/// Each is the state at its revision. How old it is, only its member knows.
fn local_reads(log: &Log, reads: &[LocalRead]) -> Result<(), String> {
    for read in reads {
        if read.revision > log.last_revision() {
            return Err(format!("nobody told of the revision of {read}"));
        }
        let right = log.entry(read.key, read.revision);
        if right != read.entry {
            return Err(format!("the state at that revision was {right:?}, but {read}"));
        }
    }
    Ok(())
}

/// Each stream is a piece of the log without a gap, from where it was to begin to what it was told is complete.
fn observed(log: &Log, streams: &[Observed]) -> Result<(), String> {
    for stream in streams {
        let Observed { member, from, changes, complete } = stream;
        let until = changes.last().map_or(*complete, |change| change.revision.max(*complete));
        let right: Vec<&Change> =
            log.changes().iter().filter(|change| (*from..=until).contains(&change.revision)).collect();
        let differs = changes.iter().zip(&right).find(|(told, right)| told != *right);
        if let Some((told, right)) = differs {
            return Err(format!(
                "a watch through member {member} from revision {from} told {told:?} where {right:?} was due"
            ));
        }
        if changes.len() != right.len() {
            return Err(format!(
                "a watch through member {member} from revision {from} told {} changes up to {until} (complete up to \
                 {complete}), there are {}",
                changes.len(),
                right.len()
            ));
        }
    }
    Ok(())
}

/// A transaction happened at one revision, whole, or not at all.
fn batches(log: &Log, batches: &[Batch]) -> Result<(), String> {
    let mut revisions: BTreeMap<u64, i64> = BTreeMap::new();
    for change in log.changes().iter().filter(|change| change.key >= BATCH_KEYS) {
        if let Some(value) = change.value
            && let Some(before) = revisions.insert(value, change.revision)
        {
            return Err(format!("happened twice, at revisions {before} and {}: {change:?}", change.revision));
        }
    }
    for batch in batches {
        let at: BTreeSet<Option<i64>> =
            batch.puts.iter().map(|(_, value)| revisions.get(value).copied()).collect();
        if at.len() > 1 {
            return Err(format!("happened in parts, at revisions {at:?}: {batch:?}"));
        }
        let happened = at.first().copied().flatten();
        if batch.refused && happened.is_some() {
            return Err(format!("refused, but happened at {happened:?}: {batch:?}"));
        }
        if !batch.puts.is_empty() && batch.done.is_some() && happened != batch.done {
            return Err(format!("acknowledged, but happened at {happened:?}: {batch:?}"));
        }
        let Some(revision) = happened.or(batch.done) else { continue };
        if let Some(kept) = batch.deletes.iter().find(|key| log.entry(**key, revision).is_some()) {
            return Err(format!("key {kept} is there after revision {revision} of {batch:?}"));
        }
    }
    Ok(())
}

/// When nothing is wrong, nobody waits in vain.
fn answered_while_calm(recorded: &Recorded) -> Result<(), String> {
    let Some(since_ns) = recorded.calm_since_ns else { return Ok(()) };
    let waits = |operation: &&Operation| {
        operation.call_ns >= since_ns && matches!(operation.outcome, Outcome::Unknown(_))
    };
    match recorded.operations.iter().find(waits) {
        Some(operation) => Err(format!("not answered although nothing was wrong any more: {operation}")),
        None => Ok(()),
    }
}

/// No lease ends before its time on the clocks that there are, counted from the last renewal that was acknowledged, unless its holder ended it.
fn leases(log: &Log, operations: &[Operation], leases: &[Held], drift: &Drift) -> Result<(), String> {
    let mut told: Vec<(i64, u64)> = operations
        .iter()
        .filter_map(|operation| match &operation.outcome {
            Outcome::Done(answer) => Some((answer.revision(), operation.return_ns)),
            Outcome::Refused(_) | Outcome::Unknown(_) => None,
        })
        .collect();
    told.sort_unstable();
    // From each revision on: when somebody first knew of it or of a later one.
    let mut first_known: Vec<(i64, u64)> = Vec::with_capacity(told.len());
    let mut earliest = u64::MAX;
    for (revision, at_ns) in told.into_iter().rev() {
        earliest = earliest.min(at_ns);
        first_known.push((revision, earliest));
    }
    first_known.reverse();
    for lease in leases {
        let end = log.changes().iter().find(|change| change.key == lease.key && change.value.is_none());
        let Some(end) = end else { continue };
        let position = first_known.partition_point(|(revision, _)| *revision < end.revision);
        let Some((_, known_ns)) = first_known.get(position) else { continue };
        let due_ns = drift.due_ns(lease.renewed_ns, lease.ttl_ns, *known_ns);
        if *known_ns < due_ns && !(lease.revoked && *known_ns >= lease.left_ns) {
            return Err(format!(
                "{lease:?} ended too early: its key was deleted at revision {}, known at {:.3} s, due at {:.3} s",
                end.revision,
                *known_ns as f64 / 1e9,
                due_ns as f64 / 1e9
            ));
        }
    }
    Ok(())
}

/// A comparison of what all members hold passes only if all of them could be asked (Z17).
#[derive(Default)]
pub(crate) struct Comparisons {
    /// Of each member and life: how many comparisons had ended, and who could be asked since.
    since: BTreeMap<(usize, u64), (Compared, BTreeSet<usize>)>,
}

/// How many comparisons of a member's life have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Compared {
    pub passed: u64,
    /// Not every member could be asked.
    pub incomplete: u64,
}

impl Comparisons {
    /// `answering`: the members that could be asked now, of `members` in the list.
    pub(crate) fn look(
        &mut self,
        (member, life): (usize, u64),
        now: Compared,
        answering: &BTreeSet<usize>,
        members: usize,
    ) -> Result<(), String> {
        let (before, asked) = self.since.entry((member, life)).or_default();
        asked.extend(answering);
        if now.passed > before.passed && asked.len() < members {
            return Err(format!(
                "member {member} says that all {members} members hold the same, but only {asked:?} could be asked since its \
                 last comparison"
            ));
        }
        if now != *before {
            (*before, *asked) = (now, answering.clone());
        }
        Ok(())
    }
}

/// What members say of themselves while they run, looked at again and again.
#[derive(Default)]
pub(crate) struct Invariants {
    leaders: BTreeMap<u64, u64>,
    /// Per member, over its lives.
    terms: BTreeMap<usize, u64>,
    /// Per member and life.
    applied: BTreeMap<(usize, u64), (u64, i64)>,
    /// What the state was at an applied index, on whichever member was seen there first.
    states: BTreeMap<u64, (i64, u64, usize)>,
    pub looks: u64,
}

pub(crate) struct Look {
    pub member: usize,
    pub life: u64,
    pub term: u64,
    pub is_leader: bool,
    pub member_id: u64,
    pub applied_index: u64,
    pub revision: i64,
    /// Only sometimes: it takes long.
    pub state_hash: Option<u64>,
}

impl Invariants {
    /// The member begins anew, with an empty disk.
    pub(crate) fn forget(&mut self, member: usize) {
        self.terms.remove(&member);
    }

    pub(crate) fn look(&mut self, look: &Look) -> Result<(), String> {
        self.looks += 1;
        let member = look.member;
        let term = self.terms.entry(member).or_default();
        if look.term < *term {
            return Err(format!("member {member} is in term {} after term {term}", look.term));
        }
        *term = look.term;
        if look.is_leader {
            let leader = *self.leaders.entry(look.term).or_insert(look.member_id);
            if leader != look.member_id {
                return Err(format!(
                    "term {} has two leaders: {leader:x} and {:x}",
                    look.term, look.member_id
                ));
            }
        }
        let applied = self.applied.entry((member, look.life)).or_default();
        if look.applied_index < applied.0 || look.revision < applied.1 {
            return Err(format!(
                "member {member} went back from index {}, revision {} to index {}, revision {}",
                applied.0, applied.1, look.applied_index, look.revision
            ));
        }
        *applied = (look.applied_index, look.revision);
        let Some(hash) = look.state_hash else { return Ok(()) };
        let (revision, seen, by) =
            *self.states.entry(look.applied_index).or_insert((look.revision, hash, member));
        if (revision, seen) != (look.revision, hash) {
            return Err(format!(
                "at index {} member {by} had revision {revision} and state {seen:x}, member {member} has revision {} \
                 and state {hash:x}",
                look.applied_index, look.revision
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten seconds from 1 s on; the fastest clock goes at twice the rate, and one jumped by four seconds at 3 s.
    #[test]
    fn a_lease_may_end_early_by_what_clocks_were_wrong_and_no_more() {
        let second = 1_000_000_000;
        let right = Drift { percent: 100, jumps: Vec::new() };
        let wrong = Drift { percent: 200, jumps: vec![(3 * second, 4 * second)] };
        assert_eq!(right.due_ns(second, 10 * second, 5 * second), 11 * second);
        assert_eq!(wrong.due_ns(second, 10 * second, 5 * second), 4 * second);
        assert_eq!(wrong.due_ns(second, 10 * second, 2 * second), 6 * second, "not yet");
        assert_eq!(wrong.due_ns(4 * second, 10 * second, 5 * second), 9 * second, "before it was renewed");
    }
}
