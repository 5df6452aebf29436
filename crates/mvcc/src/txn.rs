//! Transactions: which branch runs, whether it can, and running it.
//!
//! Invariants: all compares, nested ones included, are evaluated on the state before the first operation; all that
//! can refuse the transaction is checked before the first change, so it has all of its effect or none; operations
//! run in order and see earlier ones. Not here: static checks (check.rs), permissions (authorize.rs).

use crate::command::{Compare, CompareResult, CompareTarget, Op, Put, RangeQuery, Txn};
use crate::keys::KeyRange;
use crate::reply::{ApplyError, DeleteRangeReply, OpReply, PutReply, RangeError, RangeReply, TxnReply};
use crate::rows::{Records, RecordsError};
use crate::store::Store;
use bytes::Bytes;
use std::cmp::Ordering;

/// A transaction whose compares are decided, down to the last nested one.
struct Plan<'a> {
    succeeded: bool,
    steps: Vec<Step<'a>>,
}

enum Step<'a> {
    Op(&'a Op),
    Txn(Plan<'a>),
}

/// What is left to do of a transaction without writes: its compares were decided at `revision`, and its reads can be
/// taken in pieces, each at the revision that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadPlan {
    pub succeeded: bool,
    /// The store's, when it was decided.
    pub revision: i64,
    pub reads: Vec<PlannedRead>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlannedRead {
    /// At a revision that exists, never at "the latest".
    Range(RangeQuery),
    Txn(ReadPlan),
}

impl Store {
    pub(crate) fn apply_txn(&mut self, records: &dyn Records, txn: &Txn) -> Result<TxnReply, ApplyError> {
        let plan = self.plan(records, txn)?;
        self.check_plan(&plan)?;
        self.run_plan(records, &plan)
    }

    /// Runs a transaction without writes; the answer is as of one revision.
    pub(crate) fn run_read_txn(&self, records: &dyn Records, txn: &Txn) -> Result<TxnReply, RangeError> {
        let plan = self.plan(records, txn)?;
        self.read_plan(records, &plan)
    }

    pub(crate) fn pinned(&self, records: &dyn Records, txn: &Txn) -> Result<ReadPlan, RangeError> {
        self.pinned_plan(&self.plan(records, txn)?)
    }

    fn pinned_plan(&self, plan: &Plan<'_>) -> Result<ReadPlan, RangeError> {
        let mut reads = Vec::with_capacity(plan.steps.len());
        for step in &plan.steps {
            match step {
                Step::Op(Op::Range(query)) => {
                    self.space.check_revision(query.revision)?;
                    let revision = if query.revision > 0 { query.revision } else { self.revision() };
                    reads.push(PlannedRead::Range(RangeQuery { revision, ..query.clone() }));
                }
                Step::Txn(nested) => reads.push(PlannedRead::Txn(self.pinned_plan(nested)?)),
                Step::Op(Op::Put(_) | Op::DeleteRange(_) | Op::Txn(_)) => {
                    unreachable!("the caller asked for a transaction without writes")
                }
            }
        }
        Ok(ReadPlan { succeeded: plan.succeeded, revision: self.revision(), reads })
    }

    fn plan<'a>(&self, records: &dyn Records, txn: &'a Txn) -> Result<Plan<'a>, RecordsError> {
        let mut succeeded = true;
        for compare in &txn.compare {
            if !self.holds(records, compare)? {
                succeeded = false;
                break;
            }
        }
        let ops = if succeeded { &txn.success } else { &txn.failure };
        let steps = ops.iter().map(|op| match op {
            Op::Txn(nested) => Ok(Step::Txn(self.plan(records, nested)?)),
            Op::Range(_) | Op::Put(_) | Op::DeleteRange(_) => Ok(Step::Op(op)),
        });
        Ok(Plan { succeeded, steps: steps.collect::<Result<_, RecordsError>>()? })
    }

    fn holds(&self, records: &dyn Records, compare: &Compare) -> Result<bool, RecordsError> {
        let mut is_empty = true;
        for (key, history) in self.space.index.range(&compare.range) {
            let state = history.latest();
            if !state.is_live() {
                continue;
            }
            is_empty = false;
            let ordering = match &compare.target {
                CompareTarget::Version(number) => state.version.cmp(number),
                CompareTarget::CreateRevision(number) => state.create_revision.cmp(number),
                CompareTarget::ModRevision(number) => state.revision.main.cmp(number),
                CompareTarget::Lease(number) => self.leases.of_key(key).cmp(number),
                CompareTarget::Value(value) => {
                    self.space.record(records, state.revision)?.kv.value.cmp(value)
                }
            };
            if !holds_as(compare.result, ordering) {
                return Ok(false);
            }
        }
        if !is_empty {
            return Ok(true);
        }
        // A missing key is compared as zeros; a missing value compares with nothing.
        Ok(match &compare.target {
            CompareTarget::Value(_) => false,
            CompareTarget::Version(number)
            | CompareTarget::CreateRevision(number)
            | CompareTarget::ModRevision(number)
            | CompareTarget::Lease(number) => holds_as(compare.result, 0.cmp(number)),
        })
    }

    fn check_plan(&self, plan: &Plan<'_>) -> Result<(), ApplyError> {
        plan.steps.iter().try_for_each(|step| match step {
            // The other way round than for a put alone: etcd's order.
            Step::Op(Op::Put(put)) => self.check_kept(put).and_then(|()| self.check_lease(put)),
            Step::Op(Op::Range(query)) => Ok(self.space.check_revision(query.revision)?),
            Step::Op(Op::DeleteRange(_) | Op::Txn(_)) => Ok(()),
            Step::Txn(nested) => self.check_plan(nested),
        })
    }

    fn check_lease(&self, put: &Put) -> Result<(), ApplyError> {
        if put.lease == 0 || self.leases.exists(put.lease) { Ok(()) } else { Err(ApplyError::LeaseNotFound) }
    }

    fn check_kept(&self, put: &Put) -> Result<(), ApplyError> {
        let keeps = put.ignore_value || put.ignore_lease;
        if keeps && self.space.index.live(&put.key).is_none() { Err(ApplyError::KeyNotFound) } else { Ok(()) }
    }

    fn run_plan(&mut self, records: &dyn Records, plan: &Plan<'_>) -> Result<TxnReply, ApplyError> {
        let mut responses = Vec::with_capacity(plan.steps.len());
        for step in &plan.steps {
            responses.push(match step {
                Step::Op(Op::Range(query)) => OpReply::Range(self.read(records, query)?),
                Step::Op(Op::Put(put)) => OpReply::Put(self.run_put(records, put)?),
                Step::Op(Op::DeleteRange(delete)) => {
                    OpReply::DeleteRange(self.run_delete(records, &delete.range, delete.prev_kv)?)
                }
                Step::Txn(nested) => OpReply::Txn(self.run_plan(records, nested)?),
                Step::Op(Op::Txn(nested)) => unreachable!("planned as a nested plan: {nested:?}"),
            });
        }
        Ok(TxnReply { succeeded: plan.succeeded, responses })
    }

    fn read_plan(&self, records: &dyn Records, plan: &Plan<'_>) -> Result<TxnReply, RangeError> {
        let mut responses = Vec::with_capacity(plan.steps.len());
        for step in &plan.steps {
            match step {
                Step::Op(Op::Range(query)) => responses.push(OpReply::Range(self.read(records, query)?)),
                Step::Txn(nested) => responses.push(OpReply::Txn(self.read_plan(records, nested)?)),
                Step::Op(Op::Put(_) | Op::DeleteRange(_) | Op::Txn(_)) => {
                    unreachable!("the caller asked for a transaction without writes")
                }
            }
        }
        Ok(TxnReply { succeeded: plan.succeeded, responses })
    }

    fn read(&self, records: &dyn Records, query: &RangeQuery) -> Result<RangeReply, RangeError> {
        self.space.range(records, &self.leases, query)
    }

    pub(crate) fn apply_put(&mut self, records: &dyn Records, put: &Put) -> Result<PutReply, ApplyError> {
        self.check_lease(put)?;
        self.check_kept(put)?;
        Ok(self.run_put(records, put)?)
    }

    fn run_put(&mut self, records: &dyn Records, put: &Put) -> Result<PutReply, RecordsError> {
        let before =
            if put.prev_kv || put.ignore_value { self.space.latest(records, &put.key)? } else { None };
        let lease = if put.ignore_lease { self.leases.of_key(&put.key) } else { put.lease };
        let kept = before.as_ref().map(|kv| &kv.value).filter(|_| put.ignore_value);
        self.space.put(&put.key, kept.unwrap_or(&put.value), lease);
        self.leases.attach(&put.key, lease);
        Ok(PutReply { prev: before.filter(|_| put.prev_kv), revision: self.space.working_revision() })
    }

    pub(crate) fn run_delete(
        &mut self,
        records: &dyn Records,
        range: &KeyRange,
        prev_kv: bool,
    ) -> Result<DeleteRangeReply, RecordsError> {
        let keys = self.space.live_keys_of(range);
        let mut prev_kvs = Vec::new();
        if prev_kv {
            for key in &keys {
                prev_kvs.extend(self.space.latest(records, key)?);
            }
        }
        self.delete_keys(&keys);
        let revision = self.space.working_revision();
        Ok(DeleteRangeReply { deleted: keys.len() as i64, prev_kvs, revision })
    }

    pub(crate) fn delete_keys(&mut self, keys: &[Bytes]) {
        for key in keys {
            self.space.delete(key);
            self.leases.attach(key, 0);
        }
    }
}

fn holds_as(result: CompareResult, ordering: Ordering) -> bool {
    match result {
        CompareResult::Equal => ordering == Ordering::Equal,
        CompareResult::Greater => ordering == Ordering::Greater,
        CompareResult::Less => ordering == Ordering::Less,
        CompareResult::NotEqual => ordering != Ordering::Equal,
    }
}

impl From<RangeError> for ApplyError {
    fn from(error: RangeError) -> ApplyError {
        match error {
            RangeError::Compacted => ApplyError::Compacted,
            RangeError::FutureRevision => ApplyError::FutureRevision,
            RangeError::Records(error) => ApplyError::Records(error),
        }
    }
}
