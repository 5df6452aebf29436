//! Reads at one revision, whole: those of transactions.
//!
//! Invariants: the index decides what exists, records are read only for what is returned; `count` is of the whole
//! range, whatever limit and filters say. What is looked at is counted (work.rs): nothing comes between. Not here: reads in pieces (pieces.rs), who may read (authorize.rs).

use crate::command::{RangeQuery, SortOrder, SortTarget};
use crate::index::State;
use crate::keys::KeyValue;
use crate::leases::Leases;
use crate::reply::{RangeError, RangeReply};
use crate::rows::{Records, RecordsError, noted};
use crate::space::Space;
use crate::work::Work;
use bytes::Bytes;

impl Space {
    /// Whether a read at `revision` (0 or less: the latest) can be answered.
    pub(crate) fn check_revision(&self, revision: i64) -> Result<(), RangeError> {
        if revision > self.working_revision() {
            return Err(RangeError::FutureRevision);
        }
        if revision > 0 && revision < self.compaction.scheduled {
            return Err(RangeError::Compacted);
        }
        Ok(())
    }

    /// The same inside of a transaction, where a negative revision is one before the first. Source: etcd
    /// server/etcdserver/txn/txn.go `checkRange`; before the first compaction the first revision is -1 there.
    pub(crate) fn check_txn_revision(&self, revision: i64) -> Result<(), RangeError> {
        let first = if self.compaction.scheduled > 0 { self.compaction.scheduled } else { -1 };
        if revision != 0 && revision < first {
            return Err(RangeError::Compacted);
        }
        self.check_revision(revision)
    }

    pub(crate) fn range(
        &self,
        records: &dyn Records,
        leases: &Leases,
        query: &RangeQuery,
        work: &mut Work,
    ) -> Result<RangeReply, RangeError> {
        self.check_revision(query.revision)?;
        let at = if query.revision > 0 { query.revision } else { i64::MAX };
        let limit = usize::try_from(query.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        // Without sort and filter, the first keys are the answer and the rest is only counted.
        let in_key_order = matches!(query.sort, None | Some((SortTarget::Key, SortOrder::Ascend)));
        let collect_max = match (query.count_only, in_key_order && !query.is_filtered()) {
            (true, _) => 0,
            (false, true) => limit,
            (false, false) => usize::MAX,
        };
        let mut count = 0;
        let mut found: Vec<(&[u8], State)> = Vec::new();
        for (key, history) in self.index.range(&query.range) {
            work.keys(1)?;
            let Some(state) = history.at(at).filter(State::is_live) else { continue };
            count += 1;
            if found.len() < collect_max && passes(query, &state) {
                found.push((key, state));
            }
        }
        let revision = self.working_revision();
        if query.count_only {
            return Ok(RangeReply { kvs: Vec::new(), more: false, count, revision });
        }
        let cut = found.len() > limit || (collect_max == limit && count as u64 > limit as u64);
        let kvs = match query.sort {
            Some((SortTarget::Value, order)) => {
                let mut kvs = self.read_all(records, leases, false, &found, work)?;
                sort(&mut kvs, order, |left, right| left.value.cmp(&right.value));
                kvs.truncate(limit);
                if query.keys_only {
                    kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
                }
                kvs
            }
            sorting => {
                if let Some((target, order)) = sorting {
                    sort(&mut found, order, |left, right| compare_states(target, left, right));
                }
                found.truncate(limit);
                self.read_all(records, leases, query.keys_only, &found, work)?
            }
        };
        Ok(RangeReply { kvs, more: cut, count, revision })
    }

    fn read_all(
        &self,
        records: &dyn Records,
        leases: &Leases,
        keys_only: bool,
        found: &[(&[u8], State)],
        work: &mut Work,
    ) -> Result<Vec<KeyValue>, RangeError> {
        let mut kvs = Vec::new();
        for (key, state) in found {
            let kv = self.read_one(records, leases, keys_only, key, *state)?;
            work.record(kv.size_bytes())?;
            kvs.push(kv);
        }
        Ok(kvs)
    }

    pub(crate) fn read_one(
        &self,
        records: &dyn Records,
        leases: &Leases,
        keys_only: bool,
        key: &[u8],
        state: State,
    ) -> Result<KeyValue, RecordsError> {
        // The index knows all but the lease, and of latest states the leases know that.
        let is_latest =
            || self.index.get(key).is_some_and(|history| history.latest().revision == state.revision);
        if keys_only && is_latest() {
            return Ok(KeyValue {
                key: Bytes::copy_from_slice(key),
                value: Bytes::new(),
                create_revision: state.create_revision,
                mod_revision: state.revision.main,
                version: state.version,
                lease: leases.of_key(key),
            });
        }
        let mut kv = match self.record(records, state.revision) {
            Err(error @ RecordsError::Missing { .. }) => noted(records, Err(error))?,
            result => result?,
        }
        .kv;
        if keys_only {
            kv.value = Bytes::new();
        }
        Ok(kv)
    }
}

pub(crate) fn passes(query: &RangeQuery, state: &State) -> bool {
    let within = |number: i64, min: i64, max: i64| (min == 0 || number >= min) && (max == 0 || number <= max);
    within(state.revision.main, query.min_mod_revision, query.max_mod_revision)
        && within(state.create_revision, query.min_create_revision, query.max_create_revision)
}

/// Stable, so that equal entries stay in key order in either direction.
pub(crate) fn sort<T>(
    items: &mut [T],
    order: SortOrder,
    mut compare: impl FnMut(&T, &T) -> std::cmp::Ordering,
) {
    match order {
        SortOrder::Ascend => items.sort_by(|left, right| compare(left, right)),
        SortOrder::Descend => items.sort_by(|left, right| compare(right, left)),
    }
}

pub(crate) fn compare_states<K: Ord>(
    target: SortTarget,
    left: &(K, State),
    right: &(K, State),
) -> std::cmp::Ordering {
    match target {
        SortTarget::Key => left.0.cmp(&right.0),
        SortTarget::Version => left.1.version.cmp(&right.1.version),
        SortTarget::Create => left.1.create_revision.cmp(&right.1.create_revision),
        SortTarget::Mod => left.1.revision.main.cmp(&right.1.revision.main),
        SortTarget::Value => std::cmp::Ordering::Equal,
    }
}
