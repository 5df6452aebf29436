//! The replicated key space: a pure function of the log.
//!
//! Invariants: nothing under `Store::apply` reads a clock, randomness, the environment, hash order or a file; two
//! stores that applied the same proposals answer the same and have the same `state_hash`, however often their rows
//! were flushed or their garbage was removed in between. What a member's disk cannot give back (`RecordsError`) is
//! never an answer, it stops the member.
//! Not here: Raft, threads, gRPC, lease time.

mod keys;

mod command;
mod reply;

mod rows;

mod events;

mod authorize;

mod check;
mod codec;

mod store;

pub use authorize::Operation;
pub use check::{
    CheckError, TXN_DEPTH_MAX, check_delete_range, check_lease_grant, check_put, check_range, check_txn,
};
pub use codec::DecodeError;
pub use command::{
    Access, AlarmAction, AlarmCommand, AlarmKind, AuthCommand, Caller, ClusterVersion, Command, Compact,
    Compare, CompareResult, CompareTarget, DeleteRange, LeaseCheckpoint, LeaseExpire, LeaseGrant,
    LeaseRemaining, LeaseRevoke, MemberAttributes, Op, Permission, Proposal, Put, RangeQuery, SortOrder,
    SortTarget, Txn,
};
pub use events::{Event, EventBatch, EventKind, EventsBound};
pub use keys::{KeyRange, KeyValue, Revision};
pub use reply::{
    AlarmMember, Applied, ApplyError, AuthError, DeleteRangeReply, EventsError, HashKv, LeaseGrantReply,
    LeaseTime, LeaseView, OpReply, PutReply, RangeError, RangeReply, Reply, TxnReply,
};
pub use rows::{MemoryRecords, Records, RecordsError, Row};
pub use store::{Limits, RangeCursor, RestoreError, RoleView, Store, UserView};
