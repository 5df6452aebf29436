//! Checks of requests that need no state, with etcd's texts. The edge runs them before it proposes, so that what
//! can never succeed costs no log entry.
//!
//! Not here: checks against the store (txn.rs, leases.rs); apply stays safe without these.

use crate::command::{DeleteRange, Op, Put, RangeQuery, Txn};
use crate::keys::KeyRange;
use std::collections::BTreeSet;

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
    /// Without those that have no upper bound: etcd takes their `\0` for a bound below every key, so it sees no
    /// conflict with them. Both then happen, in order.
    deletes: Vec<&'a KeyRange>,
}

impl<'a> Writes<'a> {
    fn deletes_any(&self, key: &[u8]) -> bool {
        self.deletes.iter().any(|range| range.contains(key))
    }

    fn union(mut self, other: Writes<'a>) -> Writes<'a> {
        self.puts.extend(other.puts);
        self.deletes.extend(other.deletes);
        self
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
        if let Op::DeleteRange(delete) = op
            && !matches!(delete.range, KeyRange::From(_))
        {
            writes.deletes.push(&delete.range);
        }
    }
    for op in ops {
        if let Op::Txn(nested) = op {
            let nested = check_branches(nested)?;
            if nested.puts.iter().any(|key| writes.puts.contains(key) || writes.deletes_any(key)) {
                return Err(CheckError::DuplicateKey);
            }
            writes = writes.union(nested);
        }
    }
    for op in ops {
        if let Op::Put(put) = op
            && (writes.deletes_any(&put.key) || !writes.puts.insert(&put.key))
        {
            return Err(CheckError::DuplicateKey);
        }
    }
    Ok(writes)
}
