//! Long reads at one revision, in pieces between which the store goes on.
//!
//! Invariants: a piece pins the revision of the first piece and is bounded in rows, bytes and keys looked at; all pieces
//! together are the answer that the whole read (range.rs) would have given at that revision. A sorted read first looks
//! at every key and keeps the best as far as the limit wants them, without their values unless they are what is sorted
//! by; sorting needs no store (`RangeCursor::arrange`), so that it can be done outside of its lock.
//! Not here: who may read (authorize.rs).

use crate::command::{RangeQuery, SortOrder, SortTarget};
use crate::index::State;
use crate::keys::{KeyRange, KeyValue};
use crate::leases::Leases;
use crate::range::{compare_states, passes, sort};
use crate::reply::RangeError;
use crate::rows::Records;
use crate::space::Space;
use bytes::Bytes;
use std::collections::VecDeque;

/// Keys that one piece looks at, so that counting a huge range does not hold anything up for long.
const PIECE_KEYS_MAX: usize = 16_384;
/// Beyond twice the limit, what was found is cut to the limit; not for less than this, since cutting means sorting.
const CUT_ROWS_MIN: usize = 8_192;

/// A long read, between two pieces.
#[derive(Clone, Debug)]
pub struct RangeCursor {
    query: RangeQuery,
    /// 0 until the first piece.
    revision: i64,
    phase: Phase,
    /// Keys of the range, and those of them that pass the filters.
    count: i64,
    passed: i64,
    found: Found,
}

#[derive(Clone, Debug)]
enum Phase {
    /// Looks at these keys.
    Look(KeyRange),
    /// Sorted reads: every key was looked at.
    Sort,
    /// Sorted reads: hands out what was found.
    Give,
    Done,
}

/// What a sorted read keeps until it has seen every key.
#[derive(Clone, Debug)]
enum Found {
    /// Nothing: the answer is in key order, pieces give it as they go.
    InOrder,
    States(VecDeque<(Bytes, State)>),
    /// Sorted by value.
    Pairs(VecDeque<KeyValue>),
}

impl RangeCursor {
    pub fn new(query: RangeQuery) -> RangeCursor {
        let found = match query.sort {
            _ if query.count_only => Found::InOrder,
            None | Some((SortTarget::Key, SortOrder::Ascend)) => Found::InOrder,
            Some((SortTarget::Value, _)) => Found::Pairs(VecDeque::new()),
            Some(_) => Found::States(VecDeque::new()),
        };
        let phase = Phase::Look(query.range.clone());
        RangeCursor { query, revision: 0, phase, count: 0, passed: 0, found }
    }

    /// The revision that the first piece pinned; 0 before.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// No more pieces. Only now are `count` and `more` complete.
    pub fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    pub fn count(&self) -> i64 {
        self.count
    }

    pub fn more(&self) -> bool {
        !self.query.count_only && self.query.limit > 0 && self.passed > self.query.limit
    }

    /// `usize::MAX` for none.
    fn limit(&self) -> usize {
        usize::try_from(self.query.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX)
    }

    /// Rows that `arrange` would sort; 0 if it has nothing to do.
    pub fn unsorted(&self) -> usize {
        let kept = match &self.found {
            Found::InOrder => 0,
            Found::States(states) => states.len(),
            Found::Pairs(pairs) => pairs.len(),
        };
        let is_long = kept >= self.limit().saturating_mul(2).max(CUT_ROWS_MIN);
        match self.phase {
            Phase::Sort => kept,
            Phase::Look(_) if is_long => kept,
            Phase::Look(_) | Phase::Give | Phase::Done => 0,
        }
    }

    /// Sorts what was found so far and forgets what the limit cuts off. To be called between pieces, so that the store is
    /// not held up by it; a piece that finds it undone does it itself.
    pub fn arrange(&mut self) {
        if self.unsorted() > 0 {
            let limit = self.limit();
            match (&mut self.found, self.query.sort) {
                (Found::States(states), Some((target, order))) => {
                    sort(states.make_contiguous(), order, |left, right| compare_states(target, left, right));
                    states.truncate(limit);
                }
                (Found::Pairs(pairs), Some((_, order))) => {
                    sort(pairs.make_contiguous(), order, |left, right| left.value.cmp(&right.value));
                    pairs.truncate(limit);
                }
                (Found::InOrder | Found::States(_) | Found::Pairs(_), _) => {}
            }
        }
        if let Phase::Sort = self.phase {
            self.phase = Phase::Give;
        }
    }
}

/// What a piece has taken so far.
struct Piece {
    kvs: Vec<KeyValue>,
    rows: usize,
    size_bytes: usize,
    rows_max: usize,
    size_bytes_max: usize,
}

impl Piece {
    fn is_full(&self) -> bool {
        self.rows >= self.rows_max.max(1) || self.size_bytes >= self.size_bytes_max.max(1)
    }

    fn read(&mut self, kv: &KeyValue) {
        self.rows += 1;
        self.size_bytes += kv.size_bytes();
    }
}

impl Space {
    pub(crate) fn range_piece(
        &self,
        records: &dyn Records,
        leases: &Leases,
        cursor: &mut RangeCursor,
        rows_max: usize,
        size_bytes_max: usize,
    ) -> Result<Vec<KeyValue>, RangeError> {
        if cursor.is_done() {
            return Ok(Vec::new());
        }
        if cursor.revision == 0 {
            self.check_revision(cursor.query.revision)?;
            cursor.revision = if cursor.query.revision > 0 { cursor.query.revision } else { self.revision };
        }
        self.check_revision(cursor.revision)?;
        let mut piece = Piece { kvs: Vec::new(), rows: 0, size_bytes: 0, rows_max, size_bytes_max };
        cursor.arrange();
        match std::mem::replace(&mut cursor.phase, Phase::Done) {
            Phase::Look(rest) => self.look(records, leases, cursor, &rest, &mut piece)?,
            Phase::Sort | Phase::Give => self.give(records, leases, cursor, &mut piece)?,
            Phase::Done => {}
        }
        Ok(piece.kvs)
    }

    fn look(
        &self,
        records: &dyn Records,
        leases: &Leases,
        cursor: &mut RangeCursor,
        rest: &KeyRange,
        piece: &mut Piece,
    ) -> Result<(), RangeError> {
        let keys_only = cursor.query.keys_only;
        for (looked_at, (key, history)) in self.index.range(rest).enumerate() {
            if piece.is_full() || looked_at >= PIECE_KEYS_MAX {
                cursor.phase = Phase::Look(starting_at(rest, Bytes::copy_from_slice(key)));
                return Ok(());
            }
            let Some(state) = history.at(cursor.revision).filter(State::is_live) else { continue };
            cursor.count += 1;
            if cursor.query.count_only || !passes(&cursor.query, &state) {
                continue;
            }
            cursor.passed += 1;
            match &mut cursor.found {
                Found::InOrder if cursor.query.limit > 0 && cursor.passed > cursor.query.limit => {}
                Found::InOrder => {
                    let kv = self.read_one(records, leases, keys_only, key, state)?;
                    piece.read(&kv);
                    piece.kvs.push(kv);
                }
                Found::States(states) => states.push_back((Bytes::copy_from_slice(key), state)),
                Found::Pairs(pairs) => {
                    let kv = self.read_one(records, leases, false, key, state)?;
                    piece.read(&kv);
                    pairs.push_back(kv);
                }
            }
        }
        cursor.phase = match cursor.found {
            Found::InOrder => Phase::Done,
            Found::States(_) | Found::Pairs(_) => Phase::Sort,
        };
        Ok(())
    }

    fn give(
        &self,
        records: &dyn Records,
        leases: &Leases,
        cursor: &mut RangeCursor,
        piece: &mut Piece,
    ) -> Result<(), RangeError> {
        let keys_only = cursor.query.keys_only;
        while !piece.is_full() {
            let kv = match &mut cursor.found {
                Found::InOrder => None,
                Found::States(states) => match states.pop_front() {
                    Some((key, state)) => Some(self.read_one(records, leases, keys_only, &key, state)?),
                    None => None,
                },
                Found::Pairs(pairs) => pairs.pop_front(),
            };
            let Some(mut kv) = kv else { return Ok(()) };
            if keys_only {
                kv.value = Bytes::new();
            }
            piece.read(&kv);
            piece.kvs.push(kv);
        }
        cursor.phase = Phase::Give;
        Ok(())
    }
}

fn starting_at(range: &KeyRange, start: Bytes) -> KeyRange {
    match range {
        KeyRange::Key(_) => KeyRange::Key(start),
        KeyRange::Span { end, .. } => KeyRange::Span { start, end: end.clone() },
        KeyRange::From(_) => KeyRange::From(start),
    }
}
