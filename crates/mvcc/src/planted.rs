//! Bugs that the simulation must find (`cargo xtask zoo`); see `planted.rs` of `replica`, whose rules hold here too.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, unreachable_pub, reason = "only the simulation plants them")]
pub enum Bug {
    /// Z11: a read that refuses its transaction is noticed when it is made, which is only where somebody waits for the
    /// answer: that member has a part of the effect, the others have all of it.
    RefusedByReadInPart,
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
