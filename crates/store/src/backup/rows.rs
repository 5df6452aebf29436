//! Keys and values in the buckets of etcd's database, both ways.
//!
//! Format: docs/formats.md, "Backup file". Source: etcd server/storage/schema and server/storage/mvcc.
//! Invariant: what is read is checked before it becomes a row. Not here: files.

use bytes::Bytes;
use mvcc::{
    Access, AlarmKind, AlarmMember, KeyRange, KeyValue, LeaseTime, Permission, Revision, RoleView,
    SavedRecord, UserView,
};
use prost::Message as _;
use wire::{authpb, etcdserverpb as pb, mvccpb};

pub(crate) const KEY: &[u8] = b"key";
pub(crate) const META: &[u8] = b"meta";
pub(crate) const LEASE: &[u8] = b"lease";
pub(crate) const ALARM: &[u8] = b"alarm";
pub(crate) const CLUSTER: &[u8] = b"cluster";
pub(crate) const MEMBERS: &[u8] = b"members";
pub(crate) const MEMBERS_REMOVED: &[u8] = b"members_removed";
pub(crate) const AUTH: &[u8] = b"auth";
pub(crate) const AUTH_USERS: &[u8] = b"authUsers";
pub(crate) const AUTH_ROLES: &[u8] = b"authRoles";

pub(crate) const SCHEDULED_COMPACTION: &[u8] = b"scheduledCompactRev";
pub(crate) const FINISHED_COMPACTION: &[u8] = b"finishedCompactRev";
pub(crate) const AUTH_ENABLED: &[u8] = b"authEnabled";
pub(crate) const AUTH_REVISION: &[u8] = b"authRevision";

/// Behind the revision of a deletion.
const TOMBSTONE: u8 = b't';

/// `leasepb.Lease`.
#[derive(Clone, PartialEq, prost::Message)]
struct Lease {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(int64, tag = "2")]
    ttl_s: i64,
    #[prost(int64, tag = "3")]
    remaining_s: i64,
}

/// Why an entry of a database is none of etcd's.
#[derive(Debug, thiserror::Error)]
#[error("{what} is not as etcd writes it")]
pub struct RowError {
    pub what: &'static str,
}

fn wrong<E>(what: &'static str) -> impl Fn(E) -> RowError {
    move |_| RowError { what }
}

pub(crate) fn revision_key(revision: Revision, is_delete: bool) -> Vec<u8> {
    let mut key = Vec::with_capacity(18);
    key.extend_from_slice(&revision.main.to_be_bytes());
    key.push(b'_');
    key.extend_from_slice(&revision.sub.to_be_bytes());
    if is_delete {
        key.push(TOMBSTONE);
    }
    key
}

/// The revision, and whether it is a deletion's.
pub(crate) fn revision(key: &[u8]) -> Result<(Revision, bool), RowError> {
    let (main, rest) = key.split_first_chunk::<8>().ok_or(RowError { what: "a revision" })?;
    let (sub, is_delete) = match rest {
        [b'_', sub @ ..] if sub.len() == 8 => (sub, false),
        [b'_', sub @ .., TOMBSTONE] if sub.len() == 8 => (sub, true),
        _ => return Err(RowError { what: "a revision" }),
    };
    let number = |bytes: &[u8]| bytes.try_into().map(i64::from_be_bytes).map_err(wrong("a revision"));
    let revision = Revision::new(i64::from_be_bytes(*main), number(sub)?);
    if revision.main < 0 || u32::try_from(revision.sub).is_err() {
        return Err(RowError { what: "a revision" });
    }
    Ok((revision, is_delete))
}

pub(crate) fn key_value(record: &SavedRecord) -> Vec<u8> {
    let kv = &record.kv;
    if record.is_delete {
        return mvccpb::KeyValue { key: kv.key.clone(), ..Default::default() }.encode_to_vec();
    }
    mvccpb::KeyValue {
        key: kv.key.clone(),
        value: kv.value.clone(),
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        lease: kv.lease,
    }
    .encode_to_vec()
}

pub(crate) fn record(revision: Revision, is_delete: bool, value: Bytes) -> Result<SavedRecord, RowError> {
    let what = "a key-value pair";
    let kv = mvccpb::KeyValue::decode(value).map_err(wrong(what))?;
    let kv = if is_delete {
        KeyValue { key: kv.key, mod_revision: revision.main, ..KeyValue::default() }
    } else if kv.version <= 0 || kv.mod_revision != revision.main || kv.create_revision > revision.main {
        return Err(RowError { what });
    } else {
        let mvccpb::KeyValue { key, value, create_revision, mod_revision, version, lease } = kv;
        KeyValue { key, value, create_revision, mod_revision, version, lease }
    };
    Ok(SavedRecord { revision, is_delete, kv })
}

pub(crate) fn lease_entry(lease: &LeaseTime) -> (Vec<u8>, Vec<u8>) {
    let value = Lease { id: lease.id, ttl_s: lease.ttl_s, remaining_s: lease.remaining_s };
    (lease.id.to_be_bytes().to_vec(), value.encode_to_vec())
}

pub(crate) fn lease(value: Bytes) -> Result<LeaseTime, RowError> {
    let what = "a lease";
    let Lease { id, ttl_s, remaining_s } = Lease::decode(value).map_err(wrong(what))?;
    if id == 0 || ttl_s < 0 || remaining_s < 0 {
        return Err(RowError { what });
    }
    Ok(LeaseTime { id, ttl_s, remaining_s })
}

/// An alarm is a key without a value.
pub(crate) fn alarm_key(alarm: AlarmMember) -> Vec<u8> {
    let kind = match alarm.kind {
        AlarmKind::NoSpace => pb::AlarmType::Nospace,
        AlarmKind::Corrupt => pb::AlarmType::Corrupt,
    };
    pb::AlarmMember { member_id: alarm.member, alarm: kind.into() }.encode_to_vec()
}

pub(crate) fn alarm(key: Bytes) -> Result<Option<AlarmMember>, RowError> {
    let alarm = pb::AlarmMember::decode(key).map_err(wrong("an alarm"))?;
    let kind = match pb::AlarmType::try_from(alarm.alarm).map_err(wrong("an alarm"))? {
        pb::AlarmType::None => return Ok(None),
        pb::AlarmType::Nospace => AlarmKind::NoSpace,
        pb::AlarmType::Corrupt => AlarmKind::Corrupt,
    };
    Ok(Some(AlarmMember { member: alarm.member_id, kind }))
}

pub(crate) fn user_value(user: &UserView) -> Vec<u8> {
    authpb::User {
        name: user.name.clone().into(),
        password: user.password_hash.clone(),
        roles: user.roles.clone(),
        options: Some(authpb::UserAddOptions { no_password: user.no_password }),
    }
    .encode_to_vec()
}

pub(crate) fn user(value: Bytes) -> Result<UserView, RowError> {
    let what = "a user";
    let authpb::User { name, password, roles, options } = authpb::User::decode(value).map_err(wrong(what))?;
    Ok(UserView {
        name: String::from_utf8(name.into()).map_err(wrong(what))?,
        password_hash: password,
        no_password: options.is_some_and(|options| options.no_password),
        roles,
    })
}

pub(crate) fn role_value(role: &RoleView) -> Vec<u8> {
    let permission = |permission: &Permission| {
        let (key, range_end) = permission.range.to_wire();
        let access = match permission.access {
            Access::Read => authpb::permission::Type::Read,
            Access::Write => authpb::permission::Type::Write,
            Access::ReadWrite => authpb::permission::Type::Readwrite,
        };
        authpb::Permission { perm_type: access.into(), key, range_end }
    };
    let key_permission = role.permissions.iter().map(permission).collect();
    authpb::Role { name: role.name.clone().into(), key_permission }.encode_to_vec()
}

pub(crate) fn role(value: Bytes) -> Result<RoleView, RowError> {
    let what = "a role";
    let authpb::Role { name, key_permission } = authpb::Role::decode(value).map_err(wrong(what))?;
    let permission = |permission: authpb::Permission| {
        use authpb::permission::Type;
        let access = match Type::try_from(permission.perm_type).map_err(wrong(what))? {
            Type::Read => Access::Read,
            Type::Write => Access::Write,
            Type::Readwrite => Access::ReadWrite,
        };
        Ok(Permission { access, range: KeyRange::from_wire(permission.key, permission.range_end) })
    };
    Ok(RoleView {
        name: String::from_utf8(name.into()).map_err(wrong(what))?,
        permissions: key_permission.into_iter().map(permission).collect::<Result<_, RowError>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_etcds_bytes() {
        let key = revision_key(Revision::new(258, 1), true);
        assert_eq!(key, b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x01t");
        assert_eq!(revision(&key).unwrap(), (Revision::new(258, 1), true));
        assert_eq!(revision(&key[..17]).unwrap(), (Revision::new(258, 1), false));
        for wrong in [&key[..16], &key[1..], b"", &[0xff; 17], b"\0\0\0\0\0\0\x01\x02-\0\0\0\0\0\0\0\x01"] {
            assert!(revision(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn leases_alarms_users_and_roles_come_back() {
        let lease_in = LeaseTime { id: i64::MAX, ttl_s: 60, remaining_s: 5 };
        assert_eq!(lease(lease_entry(&lease_in).1.into()).unwrap(), lease_in);
        let alarm_in = AlarmMember { member: 7, kind: AlarmKind::Corrupt };
        assert_eq!(alarm(alarm_key(alarm_in).into()).unwrap(), Some(alarm_in));
        let user_in = UserView {
            name: "u".into(),
            password_hash: "x".into(),
            no_password: true,
            roles: vec!["r".into()],
        };
        assert_eq!(user(user_value(&user_in).into()).unwrap(), user_in);
        let permissions = [Access::Read, Access::Write, Access::ReadWrite]
            .map(|access| Permission { access, range: KeyRange::From("a".into()) })
            .to_vec();
        let role_in = RoleView { name: "r".into(), permissions };
        assert_eq!(role(role_value(&role_in).into()).unwrap(), role_in);
    }
}
