//! Everything that can be written: the closed set of commands that the log carries, and who asks.
//!
//! A command holds what its effect needs and nothing that differs between members: no time, no random number, no
//! plain password. Checks that need no state are in check.rs; bytes are in codec.rs.

use crate::keys::KeyRange;
use crate::tokens::TokenDigest;
use bytes::Bytes;

/// The payload of one log entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Finds the waiter on the proposing member; unique there.
    pub id: u64,
    /// The member whose client waits.
    pub member: u64,
    pub caller: Caller,
    pub command: Command,
}

/// On whose behalf something is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The store itself (lease expiry, alarms, member attributes); never a client.
    System,
    /// A client that gave no identity.
    Anonymous,
    /// A client whose token or certificate was checked when the users and roles were at `auth_revision`.
    User { name: String, auth_revision: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Changes nothing; its place in the log is what the proposer wants.
    Noop,
    Put(Put),
    DeleteRange(DeleteRange),
    Txn(Txn),
    Compact(Compact),
    LeaseGrant(LeaseGrant),
    LeaseRevoke(LeaseRevoke),
    LeaseExpire(LeaseExpire),
    LeaseCheckpoint(LeaseCheckpoint),
    Alarm(AlarmCommand),
    Auth(AuthCommand),
    MemberAttributes(MemberAttributes),
    ClusterVersion(ClusterVersion),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Put {
    pub key: Bytes,
    pub value: Bytes,
    /// 0 for none.
    pub lease: i64,
    pub prev_kv: bool,
    /// Keep the value that the key has; fails if the key does not exist.
    pub ignore_value: bool,
    /// Keep the lease that the key has; fails if the key does not exist.
    pub ignore_lease: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteRange {
    pub range: KeyRange,
    pub prev_kv: bool,
}

/// All compares hold: `success` runs, else `failure`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    pub compare: Vec<Compare>,
    pub success: Vec<Op>,
    pub failure: Vec<Op>,
}

impl Txn {
    /// Whether no branch, nested ones included, can change anything: such a transaction needs no log entry.
    pub fn is_read_only(&self) -> bool {
        self.success.iter().chain(&self.failure).all(|op| match op {
            Op::Range(_) => true,
            Op::Put(_) | Op::DeleteRange(_) => false,
            Op::Txn(txn) => txn.is_read_only(),
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Range(RangeQuery),
    Put(Put),
    DeleteRange(DeleteRange),
    Txn(Txn),
}

/// Holds when it holds for every key of the range; a range without keys is compared as one key of all zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    pub range: KeyRange,
    pub result: CompareResult,
    pub target: CompareTarget,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompareResult {
    Equal,
    Greater,
    Less,
    NotEqual,
}

/// What of the key is compared, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompareTarget {
    Version(i64),
    CreateRevision(i64),
    ModRevision(i64),
    /// Never holds on a missing key, not even `NotEqual`.
    Value(Bytes),
    Lease(i64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeQuery {
    pub range: KeyRange,
    /// 0 or less for no limit; applied after filters and sorting.
    pub limit: i64,
    /// 0 or less for the latest.
    pub revision: i64,
    /// `None`: in key order, which costs nothing.
    pub sort: Option<(SortTarget, SortOrder)>,
    pub keys_only: bool,
    pub count_only: bool,
    /// The four bounds are inclusive; 0 is off.
    pub min_mod_revision: i64,
    pub max_mod_revision: i64,
    pub min_create_revision: i64,
    pub max_create_revision: i64,
}

impl RangeQuery {
    /// All of `range` as it is now.
    pub fn latest(range: KeyRange) -> RangeQuery {
        RangeQuery {
            range,
            limit: 0,
            revision: 0,
            sort: None,
            keys_only: false,
            count_only: false,
            min_mod_revision: 0,
            max_mod_revision: 0,
            min_create_revision: 0,
            max_create_revision: 0,
        }
    }

    /// Whether one of the four revision bounds is on.
    pub fn is_filtered(&self) -> bool {
        self.min_mod_revision != 0
            || self.max_mod_revision != 0
            || self.min_create_revision != 0
            || self.max_create_revision != 0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortTarget {
    Key,
    Version,
    Create,
    Mod,
    Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortOrder {
    Ascend,
    Descend,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compact {
    pub revision: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseGrant {
    /// Chosen by the proposer; never 0.
    pub id: i64,
    /// Already raised to the least TTL that the cluster grants.
    pub ttl_s: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseRevoke {
    pub id: i64,
}

/// Leases whose time ran out on the leader of `term`. Ignored when the entry was written in another term: a leader
/// that lost its office must not end leases that its successor has extended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseExpire {
    pub ids: Vec<i64>,
    pub term: u64,
}

/// Remaining seconds of long leases, so that a new leader does not start them over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseCheckpoint {
    pub leases: Vec<LeaseRemaining>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseRemaining {
    pub id: i64,
    pub remaining_s: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlarmKind {
    /// The quota is used up: puts and lease grants are refused.
    NoSpace,
    /// Members disagree about the data: everything that reads or writes keys is refused.
    Corrupt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlarmAction {
    Activate,
    Deactivate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlarmCommand {
    pub action: AlarmAction,
    pub member: u64,
    /// `None` changes nothing.
    pub kind: Option<AlarmKind>,
}

/// Changes of users and roles, and logins. Passwords and tokens arrive hashed; the store keeps them as given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthCommand {
    Enable,
    Disable,
    UserAdd {
        name: String,
        password_hash: Bytes,
        no_password: bool,
    },
    UserDelete {
        name: String,
    },
    UserChangePassword {
        name: String,
        password_hash: Bytes,
    },
    UserGrantRole {
        user: String,
        role: String,
    },
    UserRevokeRole {
        user: String,
        role: String,
    },
    RoleAdd {
        name: String,
    },
    RoleDelete {
        name: String,
    },
    RoleGrantPermission {
        role: String,
        permission: Permission,
    },
    RoleRevokePermission {
        role: String,
        range: KeyRange,
    },
    /// A user has logged in: the password was right when users and roles were at `auth_revision`. Only the store itself
    /// proposes it, once it has compared the password.
    Token {
        name: String,
        digest: TokenDigest,
        auth_revision: u64,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    pub access: Access,
    pub range: KeyRange,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    ReadWrite,
}

/// What a member tells the others about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberAttributes {
    pub member: u64,
    pub name: String,
    pub client_urls: Vec<String>,
}

/// The version that all members can speak, as `major.minor.patch`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterVersion {
    pub version: String,
}
