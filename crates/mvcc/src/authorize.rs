//! Who may do what: the one place that decides, for every operation, nested ones included.
//!
//! Invariants: the match over `Operation` and the one over `Command` name every variant, so a new one does not
//! compile until somebody decided; whatever is not allowed is denied. Under `apply` the decision is made again, on
//! the state in which the command takes effect. Not here: users and roles (auth.rs), who a caller is.

use crate::auth::{Auth, Rights};
use crate::command::{AuthCommand, Caller, Command, Compare, DeleteRange, Op, Put, RangeQuery, Txn};
use crate::keys::KeyRange;
use crate::leases::Leases;
use crate::reply::AuthError;
use std::cell::RefCell;
use std::collections::BTreeSet;

/// Everything that a caller can ask for.
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
    /// To exchange a password for a token.
    Login,
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

pub(crate) fn authorize(
    auth: &Auth,
    leases: &Leases,
    caller: &Caller,
    operation: Operation<'_>,
) -> Result<(), AuthError> {
    if !auth.enabled {
        return Ok(());
    }
    let judge = match caller {
        Caller::System => return Ok(()),
        Caller::Anonymous => Judge { auth, leases, user: None },
        Caller::User { name, auth_revision } => {
            Judge { auth, leases, user: Some((name.as_str(), *auth_revision)) }
        }
    };
    match operation {
        Operation::Command(command) => judge.command(command),
        Operation::Range(query) => judge.reader()?.range(query),
        Operation::ReadTxn(txn) => judge.reader()?.txn(txn),
        Operation::Watch(range) => judge.reader()?.read(range),
        Operation::LeaseKeepAlive { id } => judge.reader()?.write_lease(id),
        Operation::LeaseTimeToLive { id, keys: true } => judge.reader()?.read_lease(id),
        Operation::LeaseTimeToLive { id: _, keys: false } => judge.known(),
        Operation::LeaseLeases => {
            let reader = judge.reader()?;
            leases.iter().try_for_each(|(id, _)| reader.read_lease(id))
        }
        Operation::AlarmList | Operation::Status | Operation::MemberList => judge.known(),
        Operation::AuthStatus | Operation::Login => Ok(()),
        Operation::UserGet { name } => match judge.user {
            Some((own, _)) if own == name => Ok(()),
            Some(_) | None => judge.root(),
        },
        Operation::RoleGet { name } => match judge.user {
            Some((own, _)) if auth.users.get(own).is_some_and(|user| user.roles.contains(name)) => Ok(()),
            Some(_) | None => judge.root(),
        },
        Operation::MemberChange | Operation::UserList | Operation::RoleList | Operation::Maintenance => {
            judge.root()
        }
    }
}

/// Who asks, before anything is known about the right to do so.
struct Judge<'a> {
    auth: &'a Auth,
    leases: &'a Leases,
    user: Option<(&'a str, u64)>,
}

impl<'a> Judge<'a> {
    fn command(&self, command: &Command) -> Result<(), AuthError> {
        match command {
            Command::Noop | Command::LeaseGrant(_) => self.known(),
            Command::Put(put) => self.reader()?.put(put),
            Command::DeleteRange(delete) => self.reader()?.delete_range(delete),
            Command::Txn(txn) => self.reader()?.txn(txn),
            Command::LeaseRevoke(revoke) => self.reader()?.write_lease(revoke.id),
            // Only the store itself proposes these.
            Command::Auth(AuthCommand::Token { .. })
            | Command::LeaseExpire(_)
            | Command::LeaseCheckpoint(_)
            | Command::MemberAttributes(_)
            | Command::ClusterVersion(_) => match self.user {
                Some(_) => Err(AuthError::PermissionDenied),
                None => Err(AuthError::UserEmpty),
            },
            Command::Compact(_) | Command::Alarm(_) | Command::Auth(_) => self.root(),
        }
    }

    /// Any user that exists.
    fn known(&self) -> Result<(), AuthError> {
        let (name, _) = self.user.ok_or(AuthError::UserEmpty)?;
        self.auth.rights(name).map(|_| ()).ok_or(AuthError::PermissionDenied)
    }

    /// Users with the role root. An old auth revision does not matter: the role is looked up now.
    fn root(&self) -> Result<(), AuthError> {
        let (name, _) = self.user.ok_or(AuthError::UserEmpty)?;
        match self.auth.rights(name) {
            Some(rights) if rights.is_root => Ok(()),
            Some(_) => Err(AuthError::PermissionDenied),
            // etcd's `IsAdminPermitted` says so here, and only here.
            None => Err(AuthError::UserNotFound),
        }
    }

    /// Somebody whose rights on keys can be looked at.
    fn reader(&self) -> Result<KeyJudge<'a>, AuthError> {
        let (name, auth_revision) = self.user.ok_or(AuthError::UserEmpty)?;
        if auth_revision < self.auth.revision {
            return Err(AuthError::OldRevision);
        }
        let rights = self.auth.rights(name).ok_or(AuthError::PermissionDenied)?;
        Ok(KeyJudge { rights, leases: self.leases, writable_leases: RefCell::default() })
    }
}

/// Judges operations on keys by the rights of one user.
struct KeyJudge<'a> {
    rights: &'a Rights,
    leases: &'a Leases,
    /// Whose keys were all looked at: a transaction may name one lease with many keys ten thousand times.
    writable_leases: RefCell<BTreeSet<i64>>,
}

impl KeyJudge<'_> {
    fn read(&self, range: &KeyRange) -> Result<(), AuthError> {
        allow(self.rights.is_root || self.rights.read.covers(range))
    }

    fn write(&self, range: &KeyRange) -> Result<(), AuthError> {
        allow(self.rights.is_root || self.rights.write.covers(range))
    }

    fn range(&self, query: &RangeQuery) -> Result<(), AuthError> {
        self.read(&query.range)
    }

    fn put(&self, put: &Put) -> Result<(), AuthError> {
        let key = KeyRange::Key(put.key.clone());
        self.write(&key)?;
        if put.prev_kv {
            self.read(&key)?;
        }
        // Who cannot revoke the lease must not hang more keys on it.
        self.write_lease(put.lease)
    }

    fn delete_range(&self, delete: &DeleteRange) -> Result<(), AuthError> {
        self.write(&delete.range)?;
        if delete.prev_kv { self.read(&delete.range) } else { Ok(()) }
    }

    /// Both branches, whichever will run, and all that is nested in them.
    fn txn(&self, txn: &Txn) -> Result<(), AuthError> {
        txn.compare.iter().try_for_each(|Compare { range, .. }| self.read(range))?;
        txn.success.iter().chain(&txn.failure).try_for_each(|op| match op {
            Op::Range(query) => self.range(query),
            Op::Put(put) => self.put(put),
            Op::DeleteRange(delete) => self.delete_range(delete),
            Op::Txn(nested) => self.txn(nested),
        })
    }

    fn read_lease(&self, id: i64) -> Result<(), AuthError> {
        if self.rights.is_root {
            return Ok(());
        }
        self.leases.keys(id).try_for_each(|key| self.read(&KeyRange::Key(key.clone())))
    }

    fn write_lease(&self, id: i64) -> Result<(), AuthError> {
        if self.rights.is_root || self.writable_leases.borrow().contains(&id) {
            return Ok(());
        }
        self.leases.keys(id).try_for_each(|key| self.write(&KeyRange::Key(key.clone())))?;
        self.writable_leases.borrow_mut().insert(id);
        Ok(())
    }
}

fn allow(allowed: bool) -> Result<(), AuthError> {
    if allowed { Ok(()) } else { Err(AuthError::PermissionDenied) }
}
