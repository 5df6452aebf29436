//! Bugs that the crash suite and the simulation must find: each is off until it is turned on for one thread.
//!
//! Always holds: outside `cfg(test)` and the feature `planted`, which only tests ever ask for, the answer is
//! the constant `false`. Not here: the suite (crash_suite.rs).

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, unreachable_pub, reason = "each is made only by the tests that plant it")]
pub enum Bug {
    /// Checksums do not depend on the segment: a recycled block passes for new.
    ChecksumNotSeeded,
    /// Callbacks run before the fdatasync, which comes with the next batch.
    AcknowledgeBeforeSync,
    /// A new segment gets its name before its header is synced.
    NameBeforeHeader,
    /// The directory is not synced after a segment got its name.
    DirectoryNotSynced,
    /// Segments are recycled without syncing the directory in between.
    RecycleUnordered,
    /// After a torn write the log goes on in the same segment, over the stale records.
    StaleTailKept,
    /// A mark is written into the batch that it speaks for.
    MarkTooEarly,
    /// Recovery does not sync what it found in the page cache.
    FoundNotSynced,
    /// Recovery looks for no mark behind damage: lost data passes for a torn write.
    MarksIgnored,
    /// The second copy of a vote is not written.
    VoteInLogOnly,
    /// Z21: a sync that failed is tried again, and a second success is believed.
    SyncRetried,
}

#[cfg(any(test, feature = "planted"))]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
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

/// From here on this thread has the bug, or none.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Runs `work` with the bug in place.
#[cfg(test)]
pub(crate) fn with<T>(bug: Bug, work: impl FnOnce() -> T) -> T {
    PLANTED.set(Some(bug));
    let result = work();
    PLANTED.set(None);
    result
}

/// What the crash suite must find, and the number of states within which; about thrice what it takes.
#[cfg(any(test, feature = "planted"))]
#[allow(unreachable_pub, reason = "the module is private without the feature")]
pub const BUGS: [(Bug, u64); 10] = [
    (Bug::ChecksumNotSeeded, 2_000),
    (Bug::AcknowledgeBeforeSync, 1_000),
    (Bug::NameBeforeHeader, 1_000),
    (Bug::DirectoryNotSynced, 1_000),
    (Bug::RecycleUnordered, 2_000),
    (Bug::StaleTailKept, 250_000),
    (Bug::MarkTooEarly, 1_000),
    (Bug::FoundNotSynced, 8_000),
    (Bug::MarksIgnored, 8_000),
    (Bug::VoteInLogOnly, 8_000),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash_suite;

    #[test]
    fn the_crash_suite_finds_every_planted_bug() {
        for (bug, states) in BUGS {
            let finding = with(bug, || crash_suite::run(states, 1)).expect_err("a planted bug was not found");
            println!("{bug:?}: {finding}");
        }
    }
}
