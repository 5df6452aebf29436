//! Bugs that the simulation and the crash suite must find (`cargo xtask zoo`).
//!
//! Always holds: outside `cfg(test)` and the feature `planted`, which only those two ever ask for, `is` is the constant
//! `false` and nothing can plant anything. A bug is planted for the calling thread: a simulation is one. Not here: how
//! they are found (crash_suite.rs, tests/simulation).

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, unreachable_pub, reason = "only tests plant them")]
pub enum Bug {
    /// Z13: the leader serves linearizable reads without asking a quorum.
    ReadWithoutQuorum,
    /// A linearizable read does not wait until this member has applied what it must see.
    ReadBeforeApply,
    /// Z1: the applied index is written in a transaction of its own, ahead of the rows.
    PositionAlone,
    /// The log is cut behind what is applied instead of what is durable.
    PurgeAheadOfState,
    /// openraft hears that a vote is saved before it is on disk.
    VoteNotSaved,
    /// A proposal that was handed to a leader is offered again when its answer takes long.
    ProposeTwice,
    /// A new leader gives leases no time of their own.
    NoFullTime,
    /// Z8: a transaction that carries a compaction's deletions leaves the revision out.
    RevisionLeftOut,
    /// Z18: a new state file has its final name from the beginning.
    StateNamedFirst,
    /// Z18: identity and quarantine get their name before their content is on disk.
    SmallFileNotSynced,
    /// The names of identity and quarantine are not synced.
    SmallFileNameNotSynced,
    /// A received snapshot gets the state file's name before its content is on disk.
    SnapshotNamedFirst,
    /// The old state file is removed before the received one has its name.
    StateRemovedFirst,
    /// The directory is not synced after a received snapshot got the state file's name.
    InstallNotSynced,
    /// The flusher's durable transactions do not wait for the disk.
    NeverDurable,
    /// A restored directory says whose it is before its state is in place.
    RestoreNamedFirst,
    /// Z15: an expiry counts whoever leads when it gets into the log.
    ExpireAnyTerm,
    /// Z14: a snapshot leaves out the leases.
    SnapshotWithoutLeases,
    /// Proposals are numbered from 0 in each life: an entry of a former life answers a waiter of this one.
    IdsFromZero,
    /// Of the answers of one batch, each goes to the waiter of the next.
    AnswersSwapped,
    /// Of the answers of one batch, the last is forgotten.
    AnswerLost,
    /// A forward stream that ends counts as a refusal of all that was handed over.
    StreamEndRefuses,
    /// A linearizable read that came while a round was under way is served by it.
    JoinsRunningRound,
    /// Rows leave the unflushed layer when they are taken for the file, not when they are in it.
    LayerEmptiedEarly,
    /// A member that lost acknowledged entries votes at once.
    QuarantineIgnored,
    /// The start applies all of the log, not only what is known to be committed.
    ReplaysUncommitted,
    /// Z3: defragmentation writes a copy, which gets the state file's name before its content is on disk.
    DefragmentedNotSynced,
    /// Z17: members that could not be compared count as equal.
    NotComparedIsEqual,
}

#[cfg(any(test, feature = "planted"))]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// From here on this thread has the bug, or none.
#[cfg(any(test, feature = "planted"))]
#[allow(unreachable_pub, reason = "the module is private without the feature")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

#[cfg(any(test, feature = "planted"))]
pub(crate) fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

#[cfg(not(any(test, feature = "planted")))]
pub(crate) const fn is(_bug: Bug) -> bool {
    false
}

#[cfg(all(feature = "planted", not(debug_assertions)))]
compile_error!("bugs are planted for tests, never in a release build");

/// What the crash suite must find within `DISK_BUG_STATES_MAX` states, and a seed that is quick to find it.
#[cfg(any(test, feature = "planted"))]
#[allow(unreachable_pub, reason = "the module is private without the feature")]
pub const DISK_BUGS: [(Bug, u64); 13] = [
    (Bug::PositionAlone, 2),
    (Bug::PurgeAheadOfState, 1),
    (Bug::VoteNotSaved, 1),
    (Bug::RevisionLeftOut, 6),
    (Bug::StateNamedFirst, 1),
    (Bug::SmallFileNotSynced, 1),
    (Bug::SmallFileNameNotSynced, 1),
    (Bug::SnapshotNamedFirst, 1),
    (Bug::StateRemovedFirst, 1),
    (Bug::InstallNotSynced, 1),
    (Bug::NeverDurable, 1),
    (Bug::RestoreNamedFirst, 5),
    (Bug::DefragmentedNotSynced, 1),
];

#[cfg(any(test, feature = "planted"))]
#[allow(unreachable_pub, reason = "the module is private without the feature")]
pub const DISK_BUG_STATES_MAX: u64 = 20_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash_suite::{self, Finding, Report};

    fn run(seed: u64) -> Result<Report, Finding> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(crash_suite::run(DISK_BUG_STATES_MAX, seed))
    }

    #[test]
    fn the_crash_suite_finds_every_planted_bug() {
        let mut missed = Vec::new();
        for (bug, seed) in DISK_BUGS {
            plant(Some(bug));
            let result = run(seed);
            plant(None);
            match result {
                Ok(report) => missed.push((bug, report)),
                Err(finding) => println!("{bug:?}: {finding}"),
            }
        }
        assert!(missed.is_empty(), "not found: {missed:?}");
    }
}
