//! How much one command may look at: apply runs on every member, under one lock, and again at each replay.
//!
//! Invariants: what may refuse a command counts only what the log decides, never what compaction has or has not removed on
//! this member yet, so all members refuse the same, today's and those that replay the log later: the numbers below are part
//! of what the log means. It is counted before the first change. What only an answer needs is counted apart and looked at
//! only where somebody waits for it.
//! Not here: what is looked at (txn.rs, range.rs).

use crate::keys::KeyValue;

/// About a second: a key that is passed in the index is one step.
const STEPS_MAX: u64 = 5_000_000;
/// A record may come from the file.
const RECORD_STEPS: u64 = 20;
const STEP_SIZE_BYTES: u64 = 64;

/// More than one command may look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMuchWork;

/// What is left for one command.
pub(crate) struct Work {
    steps_left: u64,
}

impl Work {
    pub(crate) fn new() -> Work {
        Work { steps_left: STEPS_MAX }
    }

    /// How many keys may still be passed.
    pub(crate) fn keys_left(&self) -> usize {
        usize::try_from(self.steps_left).unwrap_or(usize::MAX)
    }

    pub(crate) fn keys(&mut self, count: usize) -> Result<(), TooMuchWork> {
        self.take(count as u64)
    }

    pub(crate) fn record(&mut self, size_bytes: usize) -> Result<(), TooMuchWork> {
        self.take(RECORD_STEPS + size_bytes as u64 / STEP_SIZE_BYTES)
    }

    fn take(&mut self, steps: u64) -> Result<(), TooMuchWork> {
        let left = self.steps_left.checked_sub(steps);
        self.steps_left = left.unwrap_or(0);
        left.map(|_| ()).ok_or(TooMuchWork)
    }
}

/// What the reads of a command that also writes may cost, for whoever waits for it.
pub(crate) struct Answers {
    work: Work,
    is_wanted: bool,
    /// The changes are made, and there is no answer that could be sent.
    pub(crate) too_long: bool,
}

impl Answers {
    pub(crate) fn wanted() -> Answers {
        Answers { work: Work::new(), is_wanted: true, too_long: false }
    }

    pub(crate) fn unwanted() -> Answers {
        Answers { is_wanted: false, ..Answers::wanted() }
    }

    /// What the rest of the answer may cost; `None`: nobody will see it.
    pub(crate) fn work(&mut self) -> Option<&mut Work> {
        (self.is_wanted && !self.too_long).then_some(&mut self.work)
    }

    pub(crate) fn exhausted(&mut self) {
        self.too_long = true;
    }

    /// Whether the answer may have this as well.
    pub(crate) fn afford(&mut self, kv: &KeyValue) -> bool {
        let fits = self.work().is_some_and(|work| work.record(kv.size_bytes()).is_ok());
        self.too_long |= !fits;
        fits
    }
}
