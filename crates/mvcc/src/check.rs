//! Checks of requests that need no state, with etcd's texts. The edge runs them before it proposes, so that what
//! can never succeed costs no log entry.
//!
//! Not here: checks against the store (txn.rs, leases.rs); apply stays safe without these.

use crate::command::{DeleteRange, Op, Put, RangeQuery, Txn};
use crate::keys::KeyRange;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// Deepest nesting of transactions, in the log and from clients. Protobuf's own bound of 100 messages is reached
/// before.
pub const TXN_DEPTH_MAX: usize = 64;

/// Longest lease; etcd counts `i64` nanoseconds and refuses what comes near their end.
pub const LEASE_TTL_S_MAX: i64 = 9_000_000_000;

/// Why a request is not worth proposing. Texts are etcd's, without the `etcdserver: ` prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    #[error("key is not provided")]
    EmptyKey,
    #[error("value is provided")]
    ValueProvided,
    #[error("lease is provided")]
    LeaseProvided,
    #[error("too many operations in txn request")]
    TooManyOps,
    #[error("duplicate key given in txn request")]
    DuplicateKey,
}

pub fn check_put(put: &Put) -> Result<(), CheckError> {
    if put.key.is_empty() {
        return Err(CheckError::EmptyKey);
    }
    if put.ignore_value && !put.value.is_empty() {
        return Err(CheckError::ValueProvided);
    }
    if put.ignore_lease && put.lease != 0 {
        return Err(CheckError::LeaseProvided);
    }
    Ok(())
}

pub fn check_range(query: &RangeQuery) -> Result<(), CheckError> {
    check_key(&query.range)
}

pub fn check_delete_range(delete: &DeleteRange) -> Result<(), CheckError> {
    check_key(&delete.range)
}

fn check_key(range: &KeyRange) -> Result<(), CheckError> {
    if range.start().is_empty() { Err(CheckError::EmptyKey) } else { Ok(()) }
}

/// `ops_max` is etcd's `--max-txn-ops`, 128 by default. A nested transaction may use what its parent left over.
pub fn check_txn(txn: &Txn, ops_max: usize) -> Result<(), CheckError> {
    check_ops(txn, ops_max, TXN_DEPTH_MAX)?;
    check_branches(txn).map(|_| ())
}

fn check_ops(txn: &Txn, ops_max: usize, depth_left: usize) -> Result<(), CheckError> {
    let own = txn.compare.len().max(txn.success.len()).max(txn.failure.len());
    let left = ops_max.checked_sub(own).ok_or(CheckError::TooManyOps)?;
    let depth_left = depth_left.checked_sub(1).ok_or(CheckError::TooManyOps)?;
    txn.compare.iter().try_for_each(|compare| check_key(&compare.range))?;
    txn.success.iter().chain(&txn.failure).try_for_each(|op| match op {
        Op::Range(query) => check_range(query),
        Op::Put(put) => check_put(put),
        Op::DeleteRange(delete) => check_delete_range(delete),
        Op::Txn(nested) => check_ops(nested, left, depth_left),
    })
}

/// What a list of operations writes, as far as it can be known without running it.
#[derive(Default)]
struct Writes<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Deleted<'a>,
}

impl<'a> Writes<'a> {
    /// The smaller one goes into the larger one: a client chooses both.
    fn union(mut self, mut other: Writes<'a>) -> Writes<'a> {
        if self.puts.len() < other.puts.len() {
            std::mem::swap(&mut self.puts, &mut other.puts);
        }
        self.puts.extend(other.puts);
        if self.deletes.spans.len() < other.deletes.spans.len() {
            std::mem::swap(&mut self.deletes, &mut other.deletes);
        }
        for (start, end) in other.deletes.spans {
            self.deletes.insert(start, end);
        }
        self
    }
}

/// Keys that deletions name, as spans that do not overlap. Each is found by its start. Without deletions that have no
/// upper bound: etcd takes their `\0` for a bound below every key, so it sees no conflict with them. Both then happen, in
/// order.
#[derive(Default)]
struct Deleted<'a> {
    spans: BTreeMap<&'a [u8], End<'a>>,
}

/// Ends of spans, in their order behind the same bytes: without a key, with it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End<'a> {
    Before(&'a [u8]),
    With(&'a [u8]),
}

impl End<'_> {
    fn rank(&self) -> (&[u8], bool) {
        match self {
            End::Before(key) => (key, false),
            End::With(key) => (key, true),
        }
    }

    /// Whether the key lies before the end.
    fn covers(&self, key: &[u8]) -> bool {
        self.rank() > (key, false)
    }
}

impl<'a> Deleted<'a> {
    fn add(&mut self, range: &'a KeyRange) {
        match range {
            KeyRange::Key(key) => self.insert(key, End::With(key)),
            KeyRange::Span { start, end } if start < end => self.insert(start, End::Before(end)),
            KeyRange::Span { .. } | KeyRange::From(_) => {}
        }
    }

    /// Spans that meet the new one become part of it, so each goes only once.
    fn insert(&mut self, mut start: &'a [u8], mut end: End<'a>) {
        if let Some((before, its_end)) = self.last_until(start)
            && its_end.covers(start)
        {
            start = before;
        }
        while let Some((next, its_end)) = self.first_from(start)
            && (next == start || end.covers(next))
        {
            self.spans.remove(next);
            if its_end.rank() > end.rank() {
                end = its_end;
            }
        }
        self.spans.insert(start, end);
    }

    fn last_until(&self, key: &[u8]) -> Option<(&'a [u8], End<'a>)> {
        let until = (Bound::Unbounded, Bound::Included(key));
        self.spans.range::<[u8], _>(until).next_back().map(|(start, end)| (*start, *end))
    }

    fn first_from(&self, key: &[u8]) -> Option<(&'a [u8], End<'a>)> {
        let from = (Bound::Included(key), Bound::Unbounded);
        self.spans.range::<[u8], _>(from).next().map(|(start, end)| (*start, *end))
    }

    fn contains(&self, key: &[u8]) -> bool {
        self.last_until(key).is_some_and(|(_, end)| end.covers(key))
    }
}

/// Only one of the two can happen, so what both write is no conflict.
fn check_branches(txn: &Txn) -> Result<Writes<'_>, CheckError> {
    Ok(check_list(&txn.success)?.union(check_list(&txn.failure)?))
}

/// A key may be put once on any path, and not deleted on the same. Like etcd, this sees a nested deletion behind a
/// nested put of the same level as no conflict; both then happen, in order.
fn check_list(ops: &[Op]) -> Result<Writes<'_>, CheckError> {
    let mut writes = Writes::default();
    for op in ops {
        if let Op::DeleteRange(delete) = op {
            writes.deletes.add(&delete.range);
        }
    }
    for op in ops {
        if let Op::Txn(nested) = op {
            let nested = check_branches(nested)?;
            if nested.puts.iter().any(|key| writes.puts.contains(key) || writes.deletes.contains(key)) {
                return Err(CheckError::DuplicateKey);
            }
            writes = writes.union(nested);
        }
    }
    for op in ops {
        if let Op::Put(put) = op
            && (writes.deletes.contains(&put.key) || !writes.puts.insert(&put.key))
        {
            return Err(CheckError::DuplicateKey);
        }
    }
    Ok(writes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every list of up to four deletions among few keys, against asking each deletion.
    #[test]
    fn spans_hold_what_their_ranges_hold() {
        let keys: Vec<&[u8]> = vec![b"a", b"a\0", b"ab", b"b", b"c", b"c\0", b"d"];
        let mut ranges: Vec<KeyRange> = Vec::new();
        for start in ["a", "ab", "b", "c"] {
            ranges.push(KeyRange::from_wire(start.into(), "".into()));
            ranges.push(KeyRange::from_wire(start.into(), "\0".into()));
            ranges.extend(["ab", "b", "c", "d"].map(|end| KeyRange::from_wire(start.into(), end.into())));
        }
        let count = ranges.len();
        for number in 0..count.pow(4) {
            let list: Vec<&KeyRange> = (0..4).map(|at| &ranges[number / count.pow(at) % count]).collect();
            let mut deleted = Deleted::default();
            list.iter().for_each(|range| deleted.add(range));
            for key in &keys {
                let expected =
                    list.iter().any(|range| !matches!(range, KeyRange::From(_)) && range.contains(key));
                assert_eq!(deleted.contains(key), expected, "{list:?} {key:?}");
            }
        }
    }
}
