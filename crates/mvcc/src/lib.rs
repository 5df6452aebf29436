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

mod check;

mod codec;
mod encoding;

mod store;

mod auth;
mod authorize;
mod permissions;
mod tokens;

mod txn;
mod work;

mod leases;

mod index;
mod record;
mod space;

mod compaction;
mod pieces;
mod range;

mod events;
mod history;

mod hash;

mod meta;
mod restore;
mod rows;
mod saved;
mod unflushed;

#[cfg(feature = "planted")]
pub mod planted;
#[cfg(not(feature = "planted"))]
mod planted;

pub use auth::{RoleView, UserView};
pub use authorize::Operation;
pub use check::{
    CheckError, LEASE_TTL_S_MAX, TXN_DEPTH_MAX, check_delete_range, check_put, check_range, check_txn,
};
pub use command::{
    Access, AlarmAction, AlarmCommand, AlarmKind, AuthCommand, Caller, ClusterVersion, Command, Compact,
    Compare, CompareResult, CompareTarget, DeleteRange, LeaseCheckpoint, LeaseExpire, LeaseGrant,
    LeaseRemaining, LeaseRevoke, MemberAttributes, Op, Permission, Proposal, Put, RangeQuery, SortOrder,
    SortTarget, Txn,
};
pub use encoding::DecodeError;
pub use events::{Event, EventBatch, EventKind, EventsBound};
pub use hash::HashCursor;
pub use keys::{KeyRange, KeyValue, Revision};
pub use pieces::RangeCursor;
pub use record::verify as verify_record;
pub use reply::{
    AlarmMember, Applied, ApplyError, AuthError, DeleteRangeReply, EventsError, HashKv, LeaseGrantReply,
    LeaseTime, LeaseView, OpReply, PutReply, RangeError, RangeReply, Reply, TxnReply,
};
pub use restore::RestoreError;
pub use rows::{MemoryRecords, Records, RecordsError, Row, ScanBound, Scanned};
pub use saved::{Saved, SavedRecord};
pub use store::{Limits, Store};
pub use tokens::{TokenDigest, TokenView};
pub use txn::{PlannedRead, ReadPlan};
