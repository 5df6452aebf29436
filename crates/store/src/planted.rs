//! Bugs that the simulation must find (`cargo xtask zoo`); see `planted.rs` of `replica`, whose rules hold here too.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, unreachable_pub, reason = "only the simulation plants them")]
pub enum Bug {
    /// Z4: a progress answer does not wait for the events before it.
    ProgressOvertakes,
    /// Z5: a watch that fell behind begins again where it once started.
    CursorReset,
    /// A stream that fell behind goes on with what is new.
    BehindSkipped,
    /// Z6: a stream that fell behind gets the last change once more.
    BehindRepeats,
    /// Z9: a watch from the compacted revision on is not told of a deletion there.
    TombstoneDropped,
    /// Z12: a watch from a future revision on begins with the next one.
    FutureBeginsNow,
    /// A linearizable read is served like a serializable one.
    BarrierSkipped,
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

#[cfg(all(feature = "planted", not(debug_assertions)))]
compile_error!("bugs are planted for tests, never in a release build");
