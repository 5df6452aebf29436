//! The store: everything that the log decides.

use crate::authorize::Operation;
use crate::codec::DecodeError;
use crate::command::*;
use crate::events::{Event, EventBatch, EventsBound};
use crate::keys::{KeyValue, Revision};
use crate::reply::*;
use crate::rows::{Records, RecordsError, Row};
use bytes::Bytes;
use std::sync::Arc;

/// Bounds of one member. They may differ between members, so nothing that `apply` decides depends on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Live bytes above which `has_space_for` says no; 0 is no quota.
    pub quota_bytes: u64,
    /// Newest history kept in memory for watchers.
    pub event_log_size_bytes: usize,
    pub event_log_revisions: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { quota_bytes: 2 << 30, event_log_size_bytes: 64 << 20, event_log_revisions: 100_000 }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(transparent)]
    Records(#[from] RecordsError),
    #[error("row {row} is damaged")]
    Meta { row: String, source: DecodeError },
    #[error("record {revision} is damaged: {reason}")]
    Order { revision: Revision, reason: &'static str },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserView {
    pub name: String,
    pub password_hash: Bytes,
    pub no_password: bool,
    /// Sorted.
    pub roles: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleView {
    pub name: String,
    /// Sorted by key.
    pub permissions: Vec<Permission>,
}

/// A long read at one revision, taken in pieces.
#[derive(Clone, Debug)]
pub struct RangeCursor {
    query: RangeQuery,
}

impl RangeCursor {
    /// Sort and revision filters are not served in pieces: the caller refuses them.
    pub fn new(query: RangeQuery) -> RangeCursor {
        RangeCursor { query }
    }
    /// The revision that the first piece pinned; 0 before.
    pub fn revision(&self) -> i64 {
        unimplemented!()
    }
    /// No more pieces; only now `count` and `more` are complete.
    pub fn is_done(&self) -> bool {
        unimplemented!()
    }
    pub fn count(&self) -> i64 {
        unimplemented!()
    }
    pub fn more(&self) -> bool {
        let _ = &self.query;
        unimplemented!()
    }
}

pub struct Store {}

#[allow(unused_variables)]
impl Store {
    pub fn new(limits: Limits) -> Store {
        unimplemented!()
    }
    pub fn restore(
        limits: Limits,
        meta: impl Iterator<Item = Result<(Bytes, Bytes), RecordsError>>,
        records: impl Iterator<Item = Result<(Revision, Bytes), RecordsError>>,
    ) -> Result<Store, RestoreError> {
        unimplemented!()
    }
    pub fn apply(&mut self, records: &dyn Records, term: u64, proposal: &Proposal) -> Applied {
        unimplemented!()
    }
    pub fn take_rows(&mut self) -> Vec<Row> {
        unimplemented!()
    }
    pub fn flushed(&mut self, upto: Revision) {
        unimplemented!()
    }
    pub fn compact_step(&mut self, keys_max: usize) -> bool {
        unimplemented!()
    }
    pub fn compaction_pending(&self) -> bool {
        unimplemented!()
    }
    pub fn range(&self, records: &dyn Records, query: &RangeQuery) -> Result<RangeReply, RangeError> {
        unimplemented!()
    }
    pub fn range_chunk(
        &self,
        records: &dyn Records,
        cursor: &mut RangeCursor,
        rows_max: usize,
        size_bytes_max: usize,
    ) -> Result<Vec<KeyValue>, RangeError> {
        unimplemented!()
    }
    pub fn read_txn(&self, records: &dyn Records, txn: &Txn) -> Result<TxnReply, RangeError> {
        unimplemented!()
    }
    pub fn events(
        &self,
        records: &dyn Records,
        from_revision: i64,
        bound: EventsBound,
    ) -> Result<Vec<Arc<EventBatch>>, EventsError> {
        unimplemented!()
    }
    pub fn previous(&self, records: &dyn Records, event: &Event) -> Result<Option<KeyValue>, RecordsError> {
        unimplemented!()
    }
    pub fn authorize(&self, caller: &Caller, operation: Operation<'_>) -> Result<(), AuthError> {
        unimplemented!()
    }
    pub fn has_space_for(&self, command: &Command) -> bool {
        unimplemented!()
    }
    pub fn revision(&self) -> i64 {
        unimplemented!()
    }
    pub fn compact_revision(&self) -> i64 {
        unimplemented!()
    }
    pub fn hash_kv(&self, records: &dyn Records, revision: i64) -> Result<HashKv, RangeError> {
        unimplemented!()
    }
    pub fn state_hash(&self) -> u64 {
        unimplemented!()
    }
    pub fn key_count(&self) -> usize {
        unimplemented!()
    }
    pub fn size_bytes_in_use(&self) -> u64 {
        unimplemented!()
    }
    pub fn size_bytes_allocated(&self) -> u64 {
        unimplemented!()
    }
    pub fn unflushed_size_bytes(&self) -> usize {
        unimplemented!()
    }
    pub fn set_quota_bytes(&mut self, quota_bytes: u64) {
        unimplemented!()
    }
    /// Ids ascending.
    pub fn leases(&self) -> impl Iterator<Item = LeaseTime> + '_ {
        std::iter::empty()
    }
    pub fn lease_ttl_s(&self, id: i64) -> Option<i64> {
        unimplemented!()
    }
    pub fn lease(&self, id: i64) -> Option<LeaseView> {
        unimplemented!()
    }
    pub fn alarms(&self) -> Vec<AlarmMember> {
        unimplemented!()
    }
    pub fn member_attributes(&self, member: u64) -> Option<&MemberAttributes> {
        unimplemented!()
    }
    pub fn cluster_version(&self) -> Option<&str> {
        unimplemented!()
    }
    pub fn auth_enabled(&self) -> bool {
        unimplemented!()
    }
    pub fn auth_revision(&self) -> u64 {
        unimplemented!()
    }
    pub fn users(&self) -> Vec<String> {
        unimplemented!()
    }
    pub fn user(&self, name: &str) -> Option<UserView> {
        unimplemented!()
    }
    pub fn roles(&self) -> Vec<String> {
        unimplemented!()
    }
    pub fn role(&self, name: &str) -> Option<RoleView> {
        unimplemented!()
    }
}
