//! Bytes of commands and proposals: what a log entry carries, on disk and between members.
//!
//! Format: docs/formats.md, "Commands". Invariants: the first byte is the format; tags never change their meaning;
//! what `encode` writes, `decode` reads back; junk of any kind is an error, never a panic, and cannot make the
//! decoder recurse deeper than `TXN_DEPTH_MAX` or allocate beyond a small multiple of its input.

use crate::check::TXN_DEPTH_MAX;
use crate::command::*;
use crate::encoding::{DecodeError, Reader, put_bytes, put_flags, put_i64, put_list, put_u64};
use crate::keys::KeyRange;
use bytes::Bytes;

/// First byte of every command and proposal.
const FORMAT: u8 = 1;

impl Command {
    /// Appends the command's bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(FORMAT);
        put_command(out, self);
    }

    /// Keys and values are slices of `bytes`: nothing is copied.
    pub fn decode(bytes: Bytes) -> Result<Command, DecodeError> {
        let mut reader = Reader::with_format(bytes, FORMAT)?;
        let command = command(&mut reader)?;
        reader.finish()?;
        Ok(command)
    }
}

impl Proposal {
    /// Appends the proposal's bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(FORMAT);
        put_u64(out, self.id);
        put_u64(out, self.member);
        match &self.caller {
            Caller::System => out.push(0),
            Caller::Anonymous => out.push(1),
            Caller::User { name, auth_revision } => {
                out.push(2);
                put_bytes(out, name.as_bytes());
                put_u64(out, *auth_revision);
            }
        }
        put_command(out, &self.command);
    }

    /// Keys and values are slices of `bytes`: nothing is copied.
    pub fn decode(bytes: Bytes) -> Result<Proposal, DecodeError> {
        let mut reader = Reader::with_format(bytes, FORMAT)?;
        let id = reader.u64()?;
        let member = reader.u64()?;
        let caller = match reader.u8()? {
            0 => Caller::System,
            1 => Caller::Anonymous,
            2 => Caller::User { name: reader.string()?, auth_revision: reader.u64()? },
            tag => return Err(DecodeError::Tag { what: "caller", tag }),
        };
        let command = command(&mut reader)?;
        reader.finish()?;
        Ok(Proposal { id, member, caller, command })
    }
}

fn put_command(out: &mut Vec<u8>, command: &Command) {
    match command {
        Command::Noop => out.push(0),
        Command::Put(put) => {
            out.push(1);
            put_put(out, put);
        }
        Command::DeleteRange(delete) => {
            out.push(2);
            put_delete_range(out, delete);
        }
        Command::Txn(txn) => {
            out.push(3);
            put_txn(out, txn);
        }
        Command::Compact(compact) => {
            out.push(4);
            put_i64(out, compact.revision);
        }
        Command::LeaseGrant(grant) => {
            out.push(5);
            put_i64(out, grant.id);
            put_i64(out, grant.ttl_s);
        }
        Command::LeaseRevoke(revoke) => {
            out.push(6);
            put_i64(out, revoke.id);
        }
        Command::LeaseExpire(expire) => {
            out.push(7);
            put_u64(out, expire.term);
            put_list(out, &expire.ids, |out, id| put_i64(out, *id));
        }
        Command::LeaseCheckpoint(checkpoint) => {
            out.push(8);
            put_list(out, &checkpoint.leases, |out, lease| {
                put_i64(out, lease.id);
                put_i64(out, lease.remaining_s);
            });
        }
        Command::Alarm(alarm) => {
            out.push(9);
            put_alarm(out, alarm);
        }
        Command::Auth(auth) => {
            out.push(10);
            put_auth(out, auth);
        }
        Command::MemberAttributes(attributes) => {
            out.push(11);
            put_u64(out, attributes.member);
            put_bytes(out, attributes.name.as_bytes());
            put_list(out, &attributes.client_urls, |out, url| put_bytes(out, url.as_bytes()));
        }
        Command::ClusterVersion(cluster) => {
            out.push(12);
            put_bytes(out, cluster.version.as_bytes());
        }
    }
}

fn command(reader: &mut Reader) -> Result<Command, DecodeError> {
    Ok(match reader.u8()? {
        0 => Command::Noop,
        1 => Command::Put(put(reader)?),
        2 => Command::DeleteRange(delete_range(reader)?),
        3 => Command::Txn(txn(reader, TXN_DEPTH_MAX)?),
        4 => Command::Compact(Compact { revision: reader.i64()? }),
        5 => Command::LeaseGrant(LeaseGrant { id: reader.i64()?, ttl_s: reader.i64()? }),
        6 => Command::LeaseRevoke(LeaseRevoke { id: reader.i64()? }),
        7 => Command::LeaseExpire(LeaseExpire { term: reader.u64()?, ids: reader.list(Reader::i64)? }),
        8 => Command::LeaseCheckpoint(LeaseCheckpoint {
            leases: reader
                .list(|reader| Ok(LeaseRemaining { id: reader.i64()?, remaining_s: reader.i64()? }))?,
        }),
        9 => Command::Alarm(alarm(reader)?),
        10 => Command::Auth(auth(reader)?),
        11 => Command::MemberAttributes(MemberAttributes {
            member: reader.u64()?,
            name: reader.string()?,
            client_urls: reader.list(Reader::string)?,
        }),
        12 => Command::ClusterVersion(ClusterVersion { version: reader.string()? }),
        tag => return Err(DecodeError::Tag { what: "command", tag }),
    })
}

fn put_put(out: &mut Vec<u8>, put: &Put) {
    put_flags(out, &[put.prev_kv, put.ignore_value, put.ignore_lease]);
    put_i64(out, put.lease);
    put_bytes(out, &put.key);
    put_bytes(out, &put.value);
}

fn put(reader: &mut Reader) -> Result<Put, DecodeError> {
    let [prev_kv, ignore_value, ignore_lease] = reader.flags()?;
    let lease = reader.i64()?;
    Ok(Put { key: reader.bytes()?, value: reader.bytes()?, lease, prev_kv, ignore_value, ignore_lease })
}

fn put_delete_range(out: &mut Vec<u8>, delete: &DeleteRange) {
    put_flags(out, &[delete.prev_kv]);
    put_range(out, &delete.range);
}

fn delete_range(reader: &mut Reader) -> Result<DeleteRange, DecodeError> {
    let [prev_kv] = reader.flags()?;
    Ok(DeleteRange { range: range(reader)?, prev_kv })
}

pub(crate) fn put_range(out: &mut Vec<u8>, range: &KeyRange) {
    match range {
        KeyRange::Key(key) => {
            out.push(0);
            put_bytes(out, key);
        }
        KeyRange::Span { start, end } => {
            out.push(1);
            put_bytes(out, start);
            put_bytes(out, end);
        }
        KeyRange::From(start) => {
            out.push(2);
            put_bytes(out, start);
        }
    }
}

pub(crate) fn range(reader: &mut Reader) -> Result<KeyRange, DecodeError> {
    Ok(match reader.u8()? {
        0 => KeyRange::Key(reader.bytes()?),
        1 => KeyRange::Span { start: reader.bytes()?, end: reader.bytes()? },
        2 => KeyRange::From(reader.bytes()?),
        tag => return Err(DecodeError::Tag { what: "range", tag }),
    })
}

fn put_txn(out: &mut Vec<u8>, txn: &Txn) {
    put_list(out, &txn.compare, put_compare);
    put_list(out, &txn.success, put_op);
    put_list(out, &txn.failure, put_op);
}

fn txn(reader: &mut Reader, depth_left: usize) -> Result<Txn, DecodeError> {
    let depth_left = depth_left.checked_sub(1).ok_or(DecodeError::TooDeep)?;
    Ok(Txn {
        compare: reader.list(compare)?,
        success: reader.list(|reader| op(reader, depth_left))?,
        failure: reader.list(|reader| op(reader, depth_left))?,
    })
}

fn put_op(out: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Range(query) => {
            out.push(0);
            put_query(out, query);
        }
        Op::Put(put) => {
            out.push(1);
            put_put(out, put);
        }
        Op::DeleteRange(delete) => {
            out.push(2);
            put_delete_range(out, delete);
        }
        Op::Txn(txn) => {
            out.push(3);
            put_txn(out, txn);
        }
    }
}

fn op(reader: &mut Reader, depth_left: usize) -> Result<Op, DecodeError> {
    Ok(match reader.u8()? {
        0 => Op::Range(query(reader)?),
        1 => Op::Put(put(reader)?),
        2 => Op::DeleteRange(delete_range(reader)?),
        3 => Op::Txn(txn(reader, depth_left)?),
        tag => return Err(DecodeError::Tag { what: "operation", tag }),
    })
}

fn put_compare(out: &mut Vec<u8>, compare: &Compare) {
    out.push(match compare.result {
        CompareResult::Equal => 0,
        CompareResult::Greater => 1,
        CompareResult::Less => 2,
        CompareResult::NotEqual => 3,
    });
    let (tag, number) = match &compare.target {
        CompareTarget::Version(number) => (0, *number),
        CompareTarget::CreateRevision(number) => (1, *number),
        CompareTarget::ModRevision(number) => (2, *number),
        CompareTarget::Value(value) => {
            out.push(3);
            put_bytes(out, value);
            return put_range(out, &compare.range);
        }
        CompareTarget::Lease(number) => (4, *number),
    };
    out.push(tag);
    put_i64(out, number);
    put_range(out, &compare.range);
}

fn compare(reader: &mut Reader) -> Result<Compare, DecodeError> {
    let result = match reader.u8()? {
        0 => CompareResult::Equal,
        1 => CompareResult::Greater,
        2 => CompareResult::Less,
        3 => CompareResult::NotEqual,
        tag => return Err(DecodeError::Tag { what: "comparison", tag }),
    };
    let target = match reader.u8()? {
        0 => CompareTarget::Version(reader.i64()?),
        1 => CompareTarget::CreateRevision(reader.i64()?),
        2 => CompareTarget::ModRevision(reader.i64()?),
        3 => CompareTarget::Value(reader.bytes()?),
        4 => CompareTarget::Lease(reader.i64()?),
        tag => return Err(DecodeError::Tag { what: "compare target", tag }),
    };
    Ok(Compare { result, target, range: range(reader)? })
}

fn put_query(out: &mut Vec<u8>, query: &RangeQuery) {
    put_flags(out, &[query.keys_only, query.count_only, query.sort.is_some(), query.is_filtered()]);
    put_range(out, &query.range);
    put_i64(out, query.limit);
    put_i64(out, query.revision);
    if let Some((target, order)) = query.sort {
        out.push(match target {
            SortTarget::Key => 0,
            SortTarget::Version => 1,
            SortTarget::Create => 2,
            SortTarget::Mod => 3,
            SortTarget::Value => 4,
        });
        out.push(match order {
            SortOrder::Ascend => 1,
            SortOrder::Descend => 2,
        });
    }
    if query.is_filtered() {
        put_i64(out, query.min_mod_revision);
        put_i64(out, query.max_mod_revision);
        put_i64(out, query.min_create_revision);
        put_i64(out, query.max_create_revision);
    }
}

fn query(reader: &mut Reader) -> Result<RangeQuery, DecodeError> {
    let [keys_only, count_only, sorted, filtered] = reader.flags()?;
    let mut query = RangeQuery { keys_only, count_only, ..RangeQuery::latest(range(reader)?) };
    query.limit = reader.i64()?;
    query.revision = reader.i64()?;
    if sorted {
        let target = match reader.u8()? {
            0 => SortTarget::Key,
            1 => SortTarget::Version,
            2 => SortTarget::Create,
            3 => SortTarget::Mod,
            4 => SortTarget::Value,
            tag => return Err(DecodeError::Tag { what: "sort target", tag }),
        };
        let order = match reader.u8()? {
            1 => SortOrder::Ascend,
            2 => SortOrder::Descend,
            tag => return Err(DecodeError::Tag { what: "sort order", tag }),
        };
        query.sort = Some((target, order));
    }
    if filtered {
        query.min_mod_revision = reader.i64()?;
        query.max_mod_revision = reader.i64()?;
        query.min_create_revision = reader.i64()?;
        query.max_create_revision = reader.i64()?;
        if !query.is_filtered() {
            return Err(DecodeError::Invalid("filter"));
        }
    }
    Ok(query)
}

fn put_alarm(out: &mut Vec<u8>, alarm: &AlarmCommand) {
    out.push(match alarm.action {
        AlarmAction::Activate => 1,
        AlarmAction::Deactivate => 2,
    });
    put_u64(out, alarm.member);
    out.push(alarm.kind.map_or(0, alarm_kind_tag));
}

fn alarm(reader: &mut Reader) -> Result<AlarmCommand, DecodeError> {
    let action = match reader.u8()? {
        1 => AlarmAction::Activate,
        2 => AlarmAction::Deactivate,
        tag => return Err(DecodeError::Tag { what: "alarm action", tag }),
    };
    let member = reader.u64()?;
    let kind = match reader.u8()? {
        0 => None,
        tag => Some(alarm_kind(tag)?),
    };
    Ok(AlarmCommand { action, member, kind })
}

/// etcd's number of the alarm.
pub(crate) fn alarm_kind_tag(kind: AlarmKind) -> u8 {
    match kind {
        AlarmKind::NoSpace => 1,
        AlarmKind::Corrupt => 2,
    }
}

pub(crate) fn alarm_kind(tag: u8) -> Result<AlarmKind, DecodeError> {
    match tag {
        1 => Ok(AlarmKind::NoSpace),
        2 => Ok(AlarmKind::Corrupt),
        tag => Err(DecodeError::Tag { what: "alarm", tag }),
    }
}

fn put_auth(out: &mut Vec<u8>, command: &AuthCommand) {
    let put_names = |out: &mut Vec<u8>, tag: u8, names: &[&str]| {
        out.push(tag);
        names.iter().for_each(|name| put_bytes(out, name.as_bytes()));
    };
    match command {
        AuthCommand::Enable => out.push(0),
        AuthCommand::Disable => out.push(1),
        AuthCommand::UserAdd { name, password_hash, no_password } => {
            put_names(out, 2, &[name]);
            put_bytes(out, password_hash);
            put_flags(out, &[*no_password]);
        }
        AuthCommand::UserDelete { name } => put_names(out, 3, &[name]),
        AuthCommand::UserChangePassword { name, password_hash } => {
            put_names(out, 4, &[name]);
            put_bytes(out, password_hash);
        }
        AuthCommand::UserGrantRole { user, role } => put_names(out, 5, &[user, role]),
        AuthCommand::UserRevokeRole { user, role } => put_names(out, 6, &[user, role]),
        AuthCommand::RoleAdd { name } => put_names(out, 7, &[name]),
        AuthCommand::RoleDelete { name } => put_names(out, 8, &[name]),
        AuthCommand::RoleGrantPermission { role, permission } => {
            put_names(out, 9, &[role]);
            put_permission(out, permission);
        }
        AuthCommand::RoleRevokePermission { role, range } => {
            put_names(out, 10, &[role]);
            put_range(out, range);
        }
        AuthCommand::Token { name, digest, auth_revision } => {
            put_names(out, 11, &[name]);
            put_bytes(out, digest);
            put_u64(out, *auth_revision);
        }
    }
}

fn auth(reader: &mut Reader) -> Result<AuthCommand, DecodeError> {
    Ok(match reader.u8()? {
        0 => AuthCommand::Enable,
        1 => AuthCommand::Disable,
        2 => {
            let (name, password_hash) = (reader.string()?, reader.bytes()?);
            let [no_password] = reader.flags()?;
            AuthCommand::UserAdd { name, password_hash, no_password }
        }
        3 => AuthCommand::UserDelete { name: reader.string()? },
        4 => AuthCommand::UserChangePassword { name: reader.string()?, password_hash: reader.bytes()? },
        5 => AuthCommand::UserGrantRole { user: reader.string()?, role: reader.string()? },
        6 => AuthCommand::UserRevokeRole { user: reader.string()?, role: reader.string()? },
        7 => AuthCommand::RoleAdd { name: reader.string()? },
        8 => AuthCommand::RoleDelete { name: reader.string()? },
        9 => AuthCommand::RoleGrantPermission { role: reader.string()?, permission: permission(reader)? },
        10 => AuthCommand::RoleRevokePermission { role: reader.string()?, range: range(reader)? },
        11 => {
            let (name, digest) = (reader.string()?, reader.bytes()?);
            let digest = digest.as_ref().try_into().map_err(|_| DecodeError::Invalid("digest"))?;
            AuthCommand::Token { name, digest, auth_revision: reader.u64()? }
        }
        tag => return Err(DecodeError::Tag { what: "auth command", tag }),
    })
}

pub(crate) fn put_permission(out: &mut Vec<u8>, permission: &Permission) {
    out.push(match permission.access {
        Access::Read => 0,
        Access::Write => 1,
        Access::ReadWrite => 2,
    });
    put_range(out, &permission.range);
}

pub(crate) fn permission(reader: &mut Reader) -> Result<Permission, DecodeError> {
    let access = match reader.u8()? {
        0 => Access::Read,
        1 => Access::Write,
        2 => Access::ReadWrite,
        tag => return Err(DecodeError::Tag { what: "permission", tag }),
    };
    Ok(Permission { access, range: range(reader)? })
}

#[cfg(test)]
mod tests;
