//! The ordered index in memory: for each key, where its states lie in history.
//!
//! A state is what one change left behind: a put or a deletion (version 0). A key's states are kept from the oldest
//! that compaction left to the latest. Worked example, with `put a`, `put a`, `delete a`, `put a` at revisions 2 to 5:
//!
//! ```text
//! a: [2.0 created 2 version 1] [3.0 created 2 version 2] [4.0 deleted] [5.0 created 5 version 1]
//!    at(1) none   at(2) 2.0   at(3) 3.0   at(4) deleted   at(5), at(9) 5.0
//! compact(3) drops 2.0: a later state at or below 3 replaced it
//! compact(4) drops 2.0 and 3.0 and keeps the deletion, because a watch from 4 must still tell it
//! compact(5) drops all but 5.0
//! ```
//!
//! Invariants: a key's states ascend by revision; states vanish from the front only; a key without states is not in
//! the index. A key costs about 100 bytes: the latest state lies in the tree itself, older ones in one box that most
//! keys do not have. Not here: values (record.rs), when to compact (compaction.rs).

use crate::keys::{KeyRange, Revision};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

/// What one change left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) revision: Revision,
    pub(crate) create_revision: i64,
    /// 0: deleted.
    pub(crate) version: i64,
    /// Of the record.
    pub(crate) size_bytes: u32,
}

impl State {
    pub(crate) fn is_live(&self) -> bool {
        self.version != 0
    }
}

/// `State` without wasted bytes.
#[derive(Clone, Copy)]
struct Packed {
    main: i64,
    create_revision: i64,
    version: i64,
    sub: u32,
    size_bytes: u32,
}

impl Packed {
    fn pack(state: State) -> Packed {
        let State { revision, create_revision, version, size_bytes } = state;
        let sub = u32::try_from(revision.sub).expect("one write changes fewer keys than memory has bytes");
        Packed { main: revision.main, create_revision, version, sub, size_bytes }
    }

    fn unpack(self) -> State {
        State {
            revision: Revision::new(self.main, i64::from(self.sub)),
            create_revision: self.create_revision,
            version: self.version,
            size_bytes: self.size_bytes,
        }
    }
}

/// All states of one key that compaction left.
pub(crate) struct History {
    latest: Packed,
    /// Of the latest record: lets the hash of the live state forget it again.
    checksum: u32,
    #[allow(clippy::box_collection, reason = "8 bytes instead of 32 for the many keys without older states")]
    older: Option<Box<VecDeque<Packed>>>,
}

impl History {
    pub(crate) fn new(state: State, checksum: u32) -> History {
        History { latest: Packed::pack(state), checksum, older: None }
    }

    pub(crate) fn latest(&self) -> State {
        self.latest.unpack()
    }

    pub(crate) fn checksum(&self) -> u32 {
        self.checksum
    }

    pub(crate) fn push(&mut self, state: State, checksum: u32) {
        debug_assert!(self.latest().revision < state.revision);
        // One place first: most keys have one older state at most before it is compacted.
        self.older.get_or_insert_with(|| Box::new(VecDeque::with_capacity(1))).push_back(self.latest);
        self.latest = Packed::pack(state);
        self.checksum = checksum;
    }

    /// The newest state at or before `main`, which may be a deletion.
    pub(crate) fn at(&self, main: i64) -> Option<State> {
        if self.latest.main <= main {
            return Some(self.latest());
        }
        let older = self.older.as_ref()?;
        let after = older.partition_point(|state| state.main <= main);
        after.checked_sub(1).and_then(|at| older.get(at)).map(|state| state.unpack())
    }

    /// Whether a compaction could have something to do here.
    fn is_settled(&self) -> bool {
        self.older.is_none() && self.latest().is_live()
    }
}

#[derive(Default)]
pub(crate) struct Index {
    keys: BTreeMap<Box<[u8]>, History>,
}

impl Index {
    /// Keys with states, deleted ones included.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&History> {
        self.keys.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: &[u8]) -> Option<&mut History> {
        self.keys.get_mut(key)
    }

    pub(crate) fn insert(&mut self, key: &[u8], history: History) {
        self.keys.insert(key.into(), history);
    }

    /// The latest state of a key that is not deleted.
    pub(crate) fn live(&self, key: &[u8]) -> Option<State> {
        self.keys.get(key).map(History::latest).filter(State::is_live)
    }

    /// Keys of the range in order, deleted ones included.
    pub(crate) fn range(&self, range: &KeyRange) -> impl Iterator<Item = (&[u8], &History)> {
        let bounds: (Bound<&[u8]>, Bound<&[u8]>) = match range {
            KeyRange::Key(key) => (Bound::Included(key), Bound::Included(key)),
            // An end before the start would be a panic; a span from its start to itself holds nothing.
            KeyRange::Span { start, end } => (Bound::Included(start), Bound::Excluded(end.max(start))),
            KeyRange::From(start) => (Bound::Included(start), Bound::Unbounded),
        };
        self.keys.range::<[u8], _>(bounds).map(|(key, history)| (&**key, history))
    }

    /// Drops what a compaction at `revision` makes unreachable, from the first key at or after `from`, until about
    /// `work_max` keys and states have been handled. Calls `dropped` for each state, oldest first for each key.
    /// Returns where to go on, or `None` when the end was reached.
    pub(crate) fn compact(
        &mut self,
        revision: i64,
        from: &[u8],
        work_max: usize,
        mut dropped: impl FnMut(State),
    ) -> Option<Box<[u8]>> {
        let mut work = 0;
        let mut gone = Vec::new();
        let mut next = None;
        for (key, history) in self.keys.range_mut::<[u8], _>((Bound::Included(from), Bound::Unbounded)) {
            if work >= work_max {
                next = Some(key.clone());
                break;
            }
            work += 1;
            if history.is_settled() {
                continue;
            }
            match compact_key(history, revision, work_max - work + 1, &mut dropped) {
                Compacted::Some(states) => work += states,
                Compacted::All => gone.push(key.clone()),
                Compacted::Unfinished => {
                    next = Some(key.clone());
                    break;
                }
            }
        }
        for key in gone {
            self.keys.remove(&key);
        }
        next
    }
}

enum Compacted {
    Some(usize),
    /// Nothing of the key is left.
    All,
    /// Stopped at the bound.
    Unfinished,
}

fn compact_key(
    history: &mut History,
    revision: i64,
    states_max: usize,
    dropped: &mut impl FnMut(State),
) -> Compacted {
    let latest = history.latest();
    let mut states = 0;
    if let Some(older) = &mut history.older {
        while let Some(state) = older.front().copied() {
            let replaced_at = older.get(1).map_or(latest.revision.main, |next| next.main);
            if !is_unreachable(state.unpack(), Some(replaced_at), revision) {
                break;
            }
            if states == states_max {
                return Compacted::Unfinished;
            }
            older.pop_front();
            dropped(state.unpack());
            states += 1;
        }
        if older.is_empty() {
            history.older = None;
        } else if older.capacity() > 4 * older.len() {
            older.shrink_to_fit();
        }
    }
    if history.older.is_none() && is_unreachable(latest, None, revision) {
        dropped(latest);
        return Compacted::All;
    }
    Compacted::Some(states)
}

/// The rule of compaction: a state is unreachable when a later one at or below the revision replaced it, and a
/// deletion also when it lies below the revision. A deletion exactly at the revision stays, for watches from there.
pub(crate) fn is_unreachable(state: State, replaced_at: Option<i64>, compact_revision: i64) -> bool {
    replaced_at.is_some_and(|main| main <= compact_revision)
        || (!state.is_live() && state.revision.main < compact_revision)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(main: i64, create_revision: i64, version: i64) -> State {
        State { revision: Revision::new(main, 0), create_revision, version, size_bytes: 1 }
    }

    /// The key of the module's worked example.
    fn example() -> Index {
        let mut index = Index::default();
        let mut history = History::new(state(2, 2, 1), 0);
        history.push(state(3, 2, 2), 0);
        history.push(state(4, 0, 0), 0);
        history.push(state(5, 5, 1), 0);
        index.insert(b"a", history);
        index
    }

    fn compact(index: &mut Index, revision: i64, work_max: usize) -> Vec<i64> {
        let mut dropped = Vec::new();
        let mut from: Box<[u8]> = Box::default();
        while let Some(next) =
            index.compact(revision, &from, work_max, |state| dropped.push(state.revision.main))
        {
            from = next;
        }
        dropped
    }

    #[test]
    fn old_states_are_found_as_in_the_worked_example() {
        let index = example();
        let history = index.get(b"a").unwrap();
        let mains = [1, 2, 3, 4, 5, 9].map(|main| history.at(main).map(|state| state.revision.main));
        assert_eq!(mains, [None, Some(2), Some(3), Some(4), Some(5), Some(5)]);
        assert!(!history.at(4).unwrap().is_live());
    }

    #[test]
    fn compaction_drops_states_as_in_the_worked_example() {
        for (revision, dropped) in
            [(2, vec![]), (3, vec![2]), (4, vec![2, 3]), (5, vec![2, 3, 4]), (9, vec![2, 3, 4])]
        {
            for work_max in [1, 2, 100] {
                assert_eq!(
                    compact(&mut example(), revision, work_max),
                    dropped,
                    "at {revision} by {work_max}"
                );
            }
        }
    }

    #[test]
    fn a_deleted_key_leaves_the_index_after_its_deletion_was_compacted() {
        let mut index = Index::default();
        let mut history = History::new(state(2, 2, 1), 0);
        history.push(state(3, 0, 0), 0);
        index.insert(b"a", history);
        assert_eq!(compact(&mut index, 3, 10), vec![2]);
        assert_eq!(index.len(), 1);
        assert_eq!(compact(&mut index, 4, 10), vec![3]);
        assert_eq!(index.len(), 0);
    }

    #[test]
    fn a_range_with_its_end_before_its_start_is_empty() {
        let index = example();
        let range = KeyRange::from_wire("z".into(), "a".into());
        assert_eq!(index.range(&range).count(), 0);
    }
}
