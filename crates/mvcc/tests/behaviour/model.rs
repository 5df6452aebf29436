//! A store so simple that it is obviously right: it keeps the whole state of every revision.
//!
//! It shares the request and reply types with the real store and nothing else.

use bytes::Bytes;
use mvcc::*;
use std::collections::BTreeMap;

/// What a record takes beside key and value (docs/formats.md).
const RECORD_HEADER_SIZE_BYTES: u64 = 50;

type State = BTreeMap<Bytes, KeyValue>;

pub(crate) struct Model {
    /// The state after each revision; revisions 0 and 1 are empty.
    pub(crate) states: Vec<State>,
    /// The changes of each revision, deletions with version 0.
    pub(crate) changes: Vec<Vec<KeyValue>>,
    pub(crate) compacted: i64,
    pub(crate) leases: BTreeMap<i64, i64>,
}

impl Model {
    pub(crate) fn new() -> Model {
        Model {
            states: vec![State::new(), State::new()],
            changes: vec![Vec::new(), Vec::new()],
            compacted: -1,
            leases: BTreeMap::new(),
        }
    }

    pub(crate) fn revision(&self) -> i64 {
        self.states.len() as i64 - 1
    }

    pub(crate) fn now(&self) -> &State {
        &self.states[self.states.len() - 1]
    }

    pub(crate) fn apply(&mut self, command: &Command) -> Applied {
        let mut write =
            Write { state: self.now().clone(), changes: Vec::new(), revision: self.revision() + 1 };
        let result = match command {
            Command::Put(put) => self.check_put(put).map(|()| Reply::Put(write.put(put))),
            Command::DeleteRange(delete) => Ok(Reply::DeleteRange(write.delete(delete))),
            Command::Txn(txn) => self.check_txn(txn).map(|()| Reply::Txn(self.txn(txn, &mut write))),
            Command::Compact(Compact { revision }) if *revision <= self.compacted => {
                Err(ApplyError::Compacted)
            }
            Command::Compact(Compact { revision }) if *revision > self.revision() => {
                Err(ApplyError::FutureRevision)
            }
            Command::Compact(Compact { revision }) => {
                self.compacted = *revision;
                Ok(Reply::Compact)
            }
            Command::LeaseGrant(grant) if self.leases.contains_key(&grant.id) => Err(ApplyError::LeaseExists),
            Command::LeaseGrant(grant) => {
                self.leases.insert(grant.id, grant.ttl_s);
                Ok(Reply::LeaseGrant(LeaseGrantReply { id: grant.id, ttl_s: grant.ttl_s }))
            }
            Command::LeaseRevoke(revoke) if self.leases.remove(&revoke.id).is_none() => {
                Err(ApplyError::LeaseNotFound)
            }
            Command::LeaseRevoke(revoke) => {
                for key in keys_of_lease(self.now(), revoke.id) {
                    write.delete(&DeleteRange { range: KeyRange::Key(key), prev_kv: false });
                }
                Ok(Reply::LeaseRevoke)
            }
            other => panic!("the model does not know {other:?}"),
        };
        if result.is_ok() && !write.changes.is_empty() {
            self.states.push(write.state);
            self.changes.push(write.changes);
        }
        Applied { revision: self.revision(), result }
    }

    fn check_put(&self, put: &Put) -> Result<(), ApplyError> {
        if put.lease != 0 && !self.leases.contains_key(&put.lease) {
            Err(ApplyError::LeaseNotFound)
        } else if (put.ignore_value || put.ignore_lease) && !self.now().contains_key(&put.key) {
            Err(ApplyError::KeyNotFound)
        } else {
            Ok(())
        }
    }

    fn check_txn(&self, txn: &Txn) -> Result<(), ApplyError> {
        for op in self.branch(txn) {
            match op {
                Op::Put(put) if put.lease != 0 && put.ignore_value && !self.now().contains_key(&put.key) => {
                    return Err(ApplyError::KeyNotFound);
                }
                Op::Put(put) => self.check_put(put)?,
                Op::Range(query) if query.revision > self.revision() => {
                    return Err(ApplyError::FutureRevision);
                }
                // Here a negative one is no name for the latest.
                Op::Range(query) if query.revision != 0 && query.revision < self.first_revision() => {
                    return Err(ApplyError::Compacted);
                }
                Op::Range(_) | Op::DeleteRange(_) => {}
                Op::Txn(nested) => self.check_txn(nested)?,
            }
        }
        Ok(())
    }

    fn first_revision(&self) -> i64 {
        if self.compacted > 0 { self.compacted } else { -1 }
    }

    /// Chosen by the state before the transaction, however deep.
    fn branch<'a>(&self, txn: &'a Txn) -> &'a [Op] {
        if txn.compare.iter().all(|compare| holds(self.now(), compare)) { &txn.success } else { &txn.failure }
    }

    fn txn(&self, txn: &Txn, write: &mut Write) -> TxnReply {
        let succeeded = txn.compare.iter().all(|compare| holds(self.now(), compare));
        let responses = self.branch(txn).iter().map(|op| match op {
            Op::Put(put) => OpReply::Put(write.put(put)),
            Op::DeleteRange(delete) => OpReply::DeleteRange(write.delete(delete)),
            Op::Range(query) if query.revision > 0 => {
                OpReply::Range(range_of(&self.states[query.revision as usize], query, write.header()))
            }
            Op::Range(query) => OpReply::Range(range_of(&write.state, query, write.header())),
            Op::Txn(nested) => OpReply::Txn(self.txn(nested, write)),
        });
        TxnReply { responses: responses.collect(), succeeded }
    }

    pub(crate) fn range(&self, query: &RangeQuery) -> Result<RangeReply, RangeError> {
        if query.revision > self.revision() {
            return Err(RangeError::FutureRevision);
        }
        if query.revision > 0 && query.revision < self.compacted {
            return Err(RangeError::Compacted);
        }
        let at = if query.revision > 0 { query.revision } else { self.revision() };
        Ok(range_of(&self.states[at as usize], query, self.revision()))
    }

    pub(crate) fn keys_of_lease(&self, id: i64) -> Vec<Bytes> {
        keys_of_lease(self.now(), id)
    }

    /// Whether a write put a key again that it had deleted. Known fault of the store: it counts such a deletion until the
    /// next revision is compacted, although it is gone with its own.
    pub(crate) fn took_back_a_deletion(&self) -> bool {
        self.changes.iter().any(|changes| {
            let again = |sub: usize, key: &Bytes| changes[sub + 1..].iter().any(|other| other.key == *key);
            changes.iter().enumerate().any(|(sub, kv)| kv.version == 0 && again(sub, &kv.key))
        })
    }

    /// Bytes of all records that some read or watch can still reach.
    pub(crate) fn live_bytes(&self) -> u64 {
        let mut sum = 0;
        for (main, changes) in self.changes.iter().enumerate() {
            for (sub, kv) in changes.iter().enumerate() {
                let again = changes[sub + 1..].iter().any(|other| other.key == kv.key);
                let until = (main + 1..self.changes.len())
                    .find(|later| self.changes[*later].iter().any(|other| other.key == kv.key))
                    .map_or(i64::MAX, |later| later as i64);
                let until = if again { main as i64 } else { until };
                let is_delete = kv.version == 0;
                if until > self.compacted && !(is_delete && (main as i64) < self.compacted) {
                    sum += RECORD_HEADER_SIZE_BYTES + kv.key.len() as u64 + kv.value.len() as u64;
                }
            }
        }
        sum
    }
}

fn keys_of_lease(state: &State, id: i64) -> Vec<Bytes> {
    state.values().filter(|kv| kv.lease == id).map(|kv| kv.key.clone()).collect()
}

/// One write in progress.
struct Write {
    state: State,
    changes: Vec<KeyValue>,
    revision: i64,
}

impl Write {
    /// What a response inside the write says in its header.
    fn header(&self) -> i64 {
        if self.changes.is_empty() { self.revision - 1 } else { self.revision }
    }

    fn put(&mut self, put: &Put) -> PutReply {
        let before = self.state.get(&put.key).cloned();
        let old = before.clone().unwrap_or_default();
        let kv = KeyValue {
            key: put.key.clone(),
            value: if put.ignore_value { old.value } else { put.value.clone() },
            create_revision: if before.is_some() { old.create_revision } else { self.revision },
            mod_revision: self.revision,
            version: old.version + 1,
            lease: if put.ignore_lease { old.lease } else { put.lease },
        };
        self.state.insert(put.key.clone(), kv.clone());
        self.changes.push(kv);
        PutReply { prev: before.filter(|_| put.prev_kv), revision: self.header() }
    }

    fn delete(&mut self, delete: &DeleteRange) -> DeleteRangeReply {
        let doomed: Vec<KeyValue> =
            self.state.values().filter(|kv| delete.range.contains(&kv.key)).cloned().collect();
        for kv in &doomed {
            self.state.remove(&kv.key);
            self.changes.push(KeyValue {
                key: kv.key.clone(),
                mod_revision: self.revision,
                ..KeyValue::default()
            });
        }
        let deleted = doomed.len() as i64;
        let prev_kvs = if delete.prev_kv { doomed } else { Vec::new() };
        DeleteRangeReply { deleted, prev_kvs, revision: self.header() }
    }
}

fn holds(state: &State, compare: &Compare) -> bool {
    let found: Vec<&KeyValue> = state.values().filter(|kv| compare.range.contains(&kv.key)).collect();
    let zero = KeyValue::default();
    let compared = if found.is_empty() { vec![&zero] } else { found.clone() };
    if found.is_empty() && matches!(compare.target, CompareTarget::Value(_)) {
        return false;
    }
    compared.into_iter().all(|kv| {
        let (less, equal) = match &compare.target {
            CompareTarget::Version(number) => (kv.version < *number, kv.version == *number),
            CompareTarget::CreateRevision(number) => {
                (kv.create_revision < *number, kv.create_revision == *number)
            }
            CompareTarget::ModRevision(number) => (kv.mod_revision < *number, kv.mod_revision == *number),
            CompareTarget::Lease(number) => (kv.lease < *number, kv.lease == *number),
            CompareTarget::Value(value) => (kv.value < *value, kv.value == *value),
        };
        match compare.result {
            CompareResult::Equal => equal,
            CompareResult::NotEqual => !equal,
            CompareResult::Less => less,
            CompareResult::Greater => !less && !equal,
        }
    })
}

fn range_of(state: &State, query: &RangeQuery, revision: i64) -> RangeReply {
    let all: Vec<&KeyValue> = state.values().filter(|kv| query.range.contains(&kv.key)).collect();
    let count = all.len() as i64;
    if query.count_only {
        return RangeReply { kvs: Vec::new(), more: false, count, revision };
    }
    let at_least = |number: i64, bound: i64| bound == 0 || number >= bound;
    let at_most = |number: i64, bound: i64| bound == 0 || number <= bound;
    let mut kvs: Vec<KeyValue> = all
        .into_iter()
        .filter(|kv| at_least(kv.mod_revision, query.min_mod_revision))
        .filter(|kv| at_most(kv.mod_revision, query.max_mod_revision))
        .filter(|kv| at_least(kv.create_revision, query.min_create_revision))
        .filter(|kv| at_most(kv.create_revision, query.max_create_revision))
        .cloned()
        .collect();
    if let Some((target, order)) = query.sort {
        let rank = |kv: &KeyValue| match target {
            SortTarget::Key => (0, kv.key.clone()),
            SortTarget::Version => (kv.version, Bytes::new()),
            SortTarget::Create => (kv.create_revision, Bytes::new()),
            SortTarget::Mod => (kv.mod_revision, Bytes::new()),
            SortTarget::Value => (0, kv.value.clone()),
        };
        match order {
            SortOrder::Ascend => kvs.sort_by_key(rank),
            SortOrder::Descend => kvs.sort_by_key(|kv| std::cmp::Reverse(rank(kv))),
        }
    }
    let limit = if query.limit > 0 { query.limit as usize } else { usize::MAX };
    let more = kvs.len() > limit;
    kvs.truncate(limit);
    if query.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
    }
    RangeReply { kvs, more, count, revision }
}
