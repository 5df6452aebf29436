//! What a command or a read answers, and every way in which it can be refused.
//!
//! The texts of `ApplyError` and `RangeError` are etcd's, without the `etcdserver: ` prefix that the edge adds.
//! Not here: mapping to gRPC codes.

use crate::command::{AlarmKind, LeaseRemaining};
use crate::keys::KeyValue;
use crate::rows::RecordsError;
use bytes::Bytes;

/// The outcome of one applied proposal.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The store's revision after the command; unchanged if the command changed no key.
    pub revision: i64,
    pub result: Result<Reply, ApplyError>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Noop,
    Put(PutReply),
    DeleteRange(DeleteRangeReply),
    Txn(TxnReply),
    Compact,
    LeaseGrant(LeaseGrantReply),
    LeaseRevoke,
    /// The leases that did expire; empty when the term did not match.
    LeaseExpire(Vec<i64>),
    LeaseCheckpoint(Vec<LeaseRemaining>),
    /// The alarms that were switched on or off.
    Alarm(Vec<AlarmMember>),
    Auth,
    MemberAttributes,
    ClusterVersion,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutReply {
    /// Only when asked for with `prev_kv` and when the key existed.
    pub prev: Option<KeyValue>,
    /// For the header of a response inside a transaction.
    pub revision: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteRangeReply {
    pub deleted: i64,
    /// Only when asked for with `prev_kv`, in key order.
    pub prev_kvs: Vec<KeyValue>,
    /// For the header of a response inside a transaction.
    pub revision: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnReply {
    pub succeeded: bool,
    /// One for each operation of the branch that ran.
    pub responses: Vec<OpReply>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpReply {
    Range(RangeReply),
    Put(PutReply),
    DeleteRange(DeleteRangeReply),
    /// etcd leaves the header revision of a nested transaction 0.
    Txn(TxnReply),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeReply {
    pub kvs: Vec<KeyValue>,
    /// The limit cut something off.
    pub more: bool,
    /// All keys of the range; neither limit nor revision filters change it.
    pub count: i64,
    /// The store's revision when it was read, not the revision asked for.
    pub revision: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseGrantReply {
    pub id: i64,
    pub ttl_s: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AlarmMember {
    pub member: u64,
    pub kind: AlarmKind,
}

/// Why a command changed nothing. The same on every member, except `Records`.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ApplyError {
    #[error("key not found")]
    KeyNotFound,
    #[error("mvcc: required revision has been compacted")]
    Compacted,
    #[error("mvcc: required revision is a future revision")]
    FutureRevision,
    #[error("mvcc: database space exceeded")]
    NoSpace,
    #[error("corrupt cluster")]
    Corrupt,
    #[error("requested lease not found")]
    LeaseNotFound,
    #[error("lease already exists")]
    LeaseExists,
    #[error("too large lease TTL")]
    LeaseTtlTooLarge,
    /// Compares and deletions of a transaction would look at too many keys; nothing was changed.
    #[error("request is too large")]
    TooMuchWork,
    /// The changes are made, but what was to be told about them is too much. Only the member that was asked sees this.
    #[error("the changes were made, but the answer is too large")]
    AnswerTooLong,
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// Not an answer: this member cannot read its own state any more and must stop before it counts the entry as
    /// applied.
    #[error("state cannot be read")]
    Records(#[from] RecordsError),
}

/// Refusals of the access rules and of changes to users and roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    #[error("permission denied")]
    PermissionDenied,
    #[error("revision of auth store is old")]
    OldRevision,
    #[error("user name is empty")]
    UserEmpty,
    #[error("role name is empty")]
    RoleEmpty,
    #[error("root user does not exist")]
    RootUserNotExist,
    #[error("root user does not have root role")]
    RootRoleNotExist,
    #[error("user name already exists")]
    UserAlreadyExist,
    #[error("user name not found")]
    UserNotFound,
    #[error("role name already exists")]
    RoleAlreadyExist,
    #[error("role name not found")]
    RoleNotFound,
    #[error("role is not granted to the user")]
    RoleNotGranted,
    #[error("permission is not granted to the role")]
    PermissionNotGranted,
    #[error("invalid auth management")]
    InvalidManagement,
    #[error("authentication is not enabled")]
    NotEnabled,
}

/// Why a read has no answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RangeError {
    #[error("mvcc: required revision has been compacted")]
    Compacted,
    #[error("mvcc: required revision is a future revision")]
    FutureRevision,
    /// It would hold up everything else for too long.
    #[error("request is too large")]
    TooMuchWork,
    #[error("state cannot be read")]
    Records(#[from] RecordsError),
}

/// Why history from a revision cannot be told.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EventsError {
    #[error("mvcc: required revision has been compacted")]
    Compacted { compact_revision: i64 },
    #[error("state cannot be read")]
    Records(#[from] RecordsError),
}

/// A lease as it stands in the log; how much time is left is known to the leader alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseView {
    pub id: i64,
    pub ttl_s: i64,
    /// The last checkpoint; 0 if there was none.
    pub remaining_s: i64,
    /// Attached keys, sorted.
    pub keys: Vec<Bytes>,
}

/// What a new leader needs to start a lease's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTime {
    pub id: i64,
    pub ttl_s: i64,
    /// The last checkpoint; 0 if there was none: start with `ttl_s`.
    pub remaining_s: i64,
}

/// Checksum of the history up to a revision; equal on all members that hold the same data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    pub hash: u32,
    pub compact_revision: i64,
    /// The revision up to which was hashed.
    pub hash_revision: i64,
}
