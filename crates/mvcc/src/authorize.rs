//! Who may do what.

use crate::command::{Command, RangeQuery, Txn};
use crate::keys::KeyRange;

/// Everything that a caller can ask for. The match in `Store::authorize` is exhaustive: a new operation does not
/// compile until somebody decided who may do it.
#[derive(Clone, Copy, Debug)]
pub enum Operation<'a> {
    Command(&'a Command),
    Range(&'a RangeQuery),
    /// A transaction without writes, answered without the log.
    ReadTxn(&'a Txn),
    Watch(&'a KeyRange),
    LeaseKeepAlive {
        id: i64,
    },
    LeaseTimeToLive {
        id: i64,
        keys: bool,
    },
    LeaseLeases,
    AlarmList,
    Status,
    MemberList,
    /// Add, remove, update, promote.
    MemberChange,
    AuthStatus,
    UserGet {
        name: &'a str,
    },
    UserList,
    RoleGet {
        name: &'a str,
    },
    RoleList,
    /// Defragment, Hash, HashKV, Snapshot, MoveLeader, Downgrade.
    Maintenance,
}
