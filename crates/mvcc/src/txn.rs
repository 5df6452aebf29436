//! Transactions: which branch runs, whether it can, and running it.
//!
//! Invariants: all compares, nested ones included, are evaluated on the state before the first operation; all that
//! can refuse the transaction is checked before the first change, so it has all of its effect or none; operations
//! run in order and see earlier ones. What a transaction looks at is bounded (work.rs): the compares and deletions are
//! counted before the first change, its reads are made only where somebody waits for the answer.
//! Not here: static checks (check.rs), permissions (authorize.rs).

use crate::command::{Compare, CompareResult, CompareTarget, Op, Put, RangeQuery, Txn};
use crate::keys::KeyRange;
use crate::planted::{self, Bug};
use crate::reply::{ApplyError, DeleteRangeReply, OpReply, PutReply, RangeError, RangeReply, TxnReply};
use crate::rows::{Records, RecordsError};
use crate::store::Store;
use crate::work::{Answers, TooMuchWork, Work};
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
    pub(crate) fn apply_txn(
        &mut self,
        records: &dyn Records,
        txn: &Txn,
        answers: &mut Answers,
    ) -> Result<TxnReply, ApplyError> {
        let mut work = Work::new();
        let plan = self.plan(records, txn, &mut work)?;
        self.check_plan(&plan, &mut work)?;
        self.run_plan(records, &plan, answers)
    }

    /// Runs a transaction without writes; the answer is as of one revision.
    pub(crate) fn run_read_txn(&self, records: &dyn Records, txn: &Txn) -> Result<TxnReply, RangeError> {
        let mut work = Work::new();
        let plan = self.plan(records, txn, &mut work)?;
        self.read_plan(records, &plan, &mut work)
    }

    pub(crate) fn pinned(&self, records: &dyn Records, txn: &Txn) -> Result<ReadPlan, RangeError> {
        self.pinned_plan(&self.plan(records, txn, &mut Work::new())?)
    }

    fn pinned_plan(&self, plan: &Plan<'_>) -> Result<ReadPlan, RangeError> {
        let mut reads = Vec::with_capacity(plan.steps.len());
        for step in &plan.steps {
            match step {
                Step::Op(Op::Range(query)) => {
                    self.space.check_txn_revision(query.revision)?;
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

    fn plan<'a>(&self, records: &dyn Records, txn: &'a Txn, work: &mut Work) -> Result<Plan<'a>, RangeError> {
        let mut succeeded = true;
        for compare in &txn.compare {
            if !self.holds(records, compare, work)? {
                succeeded = false;
                break;
            }
        }
        let ops = if succeeded { &txn.success } else { &txn.failure };
        let steps = ops.iter().map(|op| match op {
            Op::Txn(nested) => Ok(Step::Txn(self.plan(records, nested, work)?)),
            Op::Range(_) | Op::Put(_) | Op::DeleteRange(_) => Ok(Step::Op(op)),
        });
        Ok(Plan { succeeded, steps: steps.collect::<Result<_, RangeError>>()? })
    }

    fn holds(&self, records: &dyn Records, compare: &Compare, work: &mut Work) -> Result<bool, RangeError> {
        let mut is_empty = true;
        for (key, history) in self.space.index.range(&compare.range) {
            let state = history.latest();
            if self.space.is_kept(state) {
                work.keys(1)?;
            }
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
                    let kv = self.space.record(records, state.revision)?.kv;
                    work.record(kv.value.len())?;
                    kv.value.cmp(value)
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

    fn check_plan(&self, plan: &Plan<'_>, work: &mut Work) -> Result<(), ApplyError> {
        plan.steps.iter().try_for_each(|step| match step {
            // The other way round than for a put alone: etcd's order.
            Step::Op(Op::Put(put)) => self.check_kept(put).and_then(|()| self.check_lease(put)),
            Step::Op(Op::Range(_)) if planted::is(Bug::RefusedByReadInPart) => Ok(()),
            Step::Op(Op::Range(query)) => Ok(self.space.check_txn_revision(query.revision)?),
            Step::Op(Op::DeleteRange(delete)) => {
                let passed = self.space.index.range(&delete.range);
                let kept = passed.filter(|(_, history)| self.space.is_kept(history.latest()));
                Ok(work.keys(kept.take(work.keys_left().saturating_add(1)).count())?)
            }
            Step::Op(Op::Txn(_)) => Ok(()),
            Step::Txn(nested) => self.check_plan(nested, work),
        })
    }

    fn check_lease(&self, put: &Put) -> Result<(), ApplyError> {
        if put.lease == 0 || self.leases.exists(put.lease) { Ok(()) } else { Err(ApplyError::LeaseNotFound) }
    }

    fn check_kept(&self, put: &Put) -> Result<(), ApplyError> {
        let keeps = put.ignore_value || put.ignore_lease;
        if keeps && self.space.index.live(&put.key).is_none() { Err(ApplyError::KeyNotFound) } else { Ok(()) }
    }

    fn run_plan(
        &mut self,
        records: &dyn Records,
        plan: &Plan<'_>,
        answers: &mut Answers,
    ) -> Result<TxnReply, ApplyError> {
        let mut responses = Vec::with_capacity(plan.steps.len());
        for step in &plan.steps {
            responses.push(match step {
                Step::Op(Op::Range(query)) => OpReply::Range(self.read_for(records, query, answers)?),
                Step::Op(Op::Put(put)) => OpReply::Put(self.run_put(records, put, answers)?),
                Step::Op(Op::DeleteRange(delete)) => {
                    OpReply::DeleteRange(self.run_delete(records, &delete.range, delete.prev_kv, answers)?)
                }
                Step::Txn(nested) => OpReply::Txn(self.run_plan(records, nested, answers)?),
                Step::Op(Op::Txn(nested)) => unreachable!("planned as a nested plan: {nested:?}"),
            });
        }
        Ok(TxnReply { succeeded: plan.succeeded, responses })
    }

    fn read_plan(
        &self,
        records: &dyn Records,
        plan: &Plan<'_>,
        work: &mut Work,
    ) -> Result<TxnReply, RangeError> {
        let mut responses = Vec::with_capacity(plan.steps.len());
        for step in &plan.steps {
            match step {
                Step::Op(Op::Range(query)) => {
                    self.space.check_txn_revision(query.revision)?;
                    responses.push(OpReply::Range(self.read(records, query, work)?));
                }
                Step::Txn(nested) => responses.push(OpReply::Txn(self.read_plan(records, nested, work)?)),
                Step::Op(Op::Put(_) | Op::DeleteRange(_) | Op::Txn(_)) => {
                    unreachable!("the caller asked for a transaction without writes")
                }
            }
        }
        Ok(TxnReply { succeeded: plan.succeeded, responses })
    }

    pub(crate) fn read(
        &self,
        records: &dyn Records,
        query: &RangeQuery,
        work: &mut Work,
    ) -> Result<RangeReply, RangeError> {
        self.space.range(records, &self.leases, query, work)
    }

    /// A read beside writes: nothing but the revision where nobody waits, or where the answer is too long already.
    fn read_for(
        &self,
        records: &dyn Records,
        query: &RangeQuery,
        answers: &mut Answers,
    ) -> Result<RangeReply, ApplyError> {
        let unread =
            RangeReply { kvs: Vec::new(), more: false, count: 0, revision: self.space.working_revision() };
        let Some(work) = answers.work() else { return Ok(unread) };
        match self.read(records, query, work) {
            Err(RangeError::TooMuchWork) => {
                answers.exhausted();
                Ok(unread)
            }
            result => Ok(result?),
        }
    }

    pub(crate) fn apply_put(
        &mut self,
        records: &dyn Records,
        put: &Put,
        answers: &mut Answers,
    ) -> Result<PutReply, ApplyError> {
        self.check_lease(put)?;
        self.check_kept(put)?;
        Ok(self.run_put(records, put, answers)?)
    }

    fn run_put(
        &mut self,
        records: &dyn Records,
        put: &Put,
        answers: &mut Answers,
    ) -> Result<PutReply, RecordsError> {
        let told = put.prev_kv && answers.work().is_some();
        let before = if told || put.ignore_value { self.space.latest(records, &put.key)? } else { None };
        let lease = if put.ignore_lease { self.leases.of_key(&put.key) } else { put.lease };
        let kept = before.as_ref().map(|kv| &kv.value).filter(|_| put.ignore_value);
        self.space.put(&put.key, kept.unwrap_or(&put.value), lease);
        self.leases.attach(&put.key, lease);
        let prev = before.filter(|kv| told && answers.afford(kv));
        Ok(PutReply { prev, revision: self.space.working_revision() })
    }

    pub(crate) fn run_delete(
        &mut self,
        records: &dyn Records,
        range: &KeyRange,
        prev_kv: bool,
        answers: &mut Answers,
    ) -> Result<DeleteRangeReply, RecordsError> {
        let keys = self.space.live_keys_of(range);
        let mut prev_kvs = Vec::new();
        for key in keys.iter().filter(|_| prev_kv) {
            if answers.work().is_none() {
                break;
            }
            prev_kvs.extend(self.space.latest(records, key)?.filter(|kv| answers.afford(kv)));
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
            RangeError::TooMuchWork => ApplyError::TooMuchWork,
            RangeError::Records(error) => ApplyError::Records(error),
        }
    }
}

impl From<TooMuchWork> for ApplyError {
    fn from(_: TooMuchWork) -> ApplyError {
        ApplyError::TooMuchWork
    }
}

impl From<TooMuchWork> for RangeError {
    fn from(_: TooMuchWork) -> RangeError {
        RangeError::TooMuchWork
    }
}
