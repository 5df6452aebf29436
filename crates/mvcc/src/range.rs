//! Reads at one revision: whole, and in pieces for streams.
//!
//! Invariants: the index decides what exists, records are read only for what is returned; `count` is of the whole
//! range, whatever limit and filters say. A piece pins the revision of the first piece and is bounded in rows, bytes
//! and keys looked at. Not here: who may read (authorize.rs).

use crate::command::{RangeQuery, SortOrder, SortTarget};
use crate::index::State;
use crate::keys::{KeyRange, KeyValue};
use crate::leases::Leases;
use crate::reply::{RangeError, RangeReply};
use crate::rows::{Records, RecordsError};
use crate::space::Space;
use bytes::Bytes;

/// Keys that one piece of a stream looks at, so that counting a huge range does not hold anything up for long.
const PIECE_KEYS_MAX: usize = 16_384;

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

    pub(crate) fn range(
        &self,
        records: &dyn Records,
        leases: &Leases,
        query: &RangeQuery,
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
                let mut kvs = self.read_all(records, leases, false, &found)?;
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
                self.read_all(records, leases, query.keys_only, &found)?
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
    ) -> Result<Vec<KeyValue>, RecordsError> {
        found.iter().map(|(key, state)| self.read_one(records, leases, keys_only, key, *state)).collect()
    }

    fn read_one(
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
        let mut kv = self.record(records, state.revision)?.kv;
        if keys_only {
            kv.value = Bytes::new();
        }
        Ok(kv)
    }

    pub(crate) fn range_piece(
        &self,
        records: &dyn Records,
        leases: &Leases,
        cursor: &mut RangeCursor,
        rows_max: usize,
        size_bytes_max: usize,
    ) -> Result<Vec<KeyValue>, RangeError> {
        let Some(rest) = cursor.rest.take() else { return Ok(Vec::new()) };
        if cursor.revision == 0 {
            self.check_revision(cursor.query.revision)?;
            cursor.revision = if cursor.query.revision > 0 { cursor.query.revision } else { self.revision };
        }
        self.check_revision(cursor.revision)?;
        let mut kvs: Vec<KeyValue> = Vec::new();
        let mut size_bytes = 0;
        for (looked_at, (key, history)) in self.index.range(&rest).enumerate() {
            if kvs.len() >= rows_max.max(1)
                || size_bytes >= size_bytes_max.max(1)
                || looked_at >= PIECE_KEYS_MAX
            {
                cursor.rest = Some(starting_at(&rest, Bytes::copy_from_slice(key)));
                break;
            }
            let Some(state) = history.at(cursor.revision).filter(State::is_live) else { continue };
            cursor.count += 1;
            if cursor.query.count_only {
                continue;
            }
            if cursor.query.limit > 0 && cursor.returned >= cursor.query.limit {
                cursor.more = true;
                continue;
            }
            let kv = self.read_one(records, leases, cursor.query.keys_only, key, state)?;
            size_bytes += kv.size_bytes();
            cursor.returned += 1;
            kvs.push(kv);
        }
        Ok(kvs)
    }
}

/// A long read at one revision, taken in pieces.
#[derive(Clone, Debug)]
pub struct RangeCursor {
    query: RangeQuery,
    /// 0 until the first piece.
    revision: i64,
    /// `None`: all was looked at.
    rest: Option<KeyRange>,
    returned: i64,
    count: i64,
    more: bool,
}

impl RangeCursor {
    /// Sorting and revision filters cannot be served in pieces: the caller refuses them.
    pub fn new(query: RangeQuery) -> RangeCursor {
        debug_assert!(query.sort.is_none() && !query.is_filtered());
        RangeCursor {
            rest: Some(query.range.clone()),
            query,
            revision: 0,
            returned: 0,
            count: 0,
            more: false,
        }
    }

    /// The revision that the first piece pinned; 0 before.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// No more pieces. Only now are `count` and `more` complete.
    pub fn is_done(&self) -> bool {
        self.rest.is_none()
    }

    pub fn count(&self) -> i64 {
        self.count
    }

    pub fn more(&self) -> bool {
        self.more
    }
}

fn starting_at(range: &KeyRange, start: Bytes) -> KeyRange {
    match range {
        KeyRange::Key(_) => KeyRange::Key(start),
        KeyRange::Span { end, .. } => KeyRange::Span { start, end: end.clone() },
        KeyRange::From(_) => KeyRange::From(start),
    }
}

fn passes(query: &RangeQuery, state: &State) -> bool {
    let within = |number: i64, min: i64, max: i64| (min == 0 || number >= min) && (max == 0 || number <= max);
    within(state.revision.main, query.min_mod_revision, query.max_mod_revision)
        && within(state.create_revision, query.min_create_revision, query.max_create_revision)
}

/// Stable, so that equal entries stay in key order in either direction.
fn sort<T>(items: &mut [T], order: SortOrder, mut compare: impl FnMut(&T, &T) -> std::cmp::Ordering) {
    match order {
        SortOrder::Ascend => items.sort_by(|left, right| compare(left, right)),
        SortOrder::Descend => items.sort_by(|left, right| compare(right, left)),
    }
}

fn compare_states(target: SortTarget, left: &(&[u8], State), right: &(&[u8], State)) -> std::cmp::Ordering {
    match target {
        SortTarget::Key => left.0.cmp(right.0),
        SortTarget::Version => left.1.version.cmp(&right.1.version),
        SortTarget::Create => left.1.create_revision.cmp(&right.1.create_revision),
        SortTarget::Mod => left.1.revision.main.cmp(&right.1.revision.main),
        SortTarget::Value => std::cmp::Ordering::Equal,
    }
}
