//! Bugs that the simulation must find (`cargo xtask zoo`).
//!
//! Always holds: without the feature `planted`, which only the simulation ever asks for, `is` is the constant `false`
//! and nothing can plant anything. A bug is planted for the calling thread: a simulation is one. Not here: finding them.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, unreachable_pub, reason = "only the simulation plants them")]
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
}

#[cfg(feature = "planted")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// From here on this thread has the bug, or none.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

#[cfg(feature = "planted")]
pub(crate) fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

#[cfg(not(feature = "planted"))]
pub(crate) const fn is(_bug: Bug) -> bool {
    false
}
