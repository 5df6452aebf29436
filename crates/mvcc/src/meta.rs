//! The small replicated state beside the keys, as rows of the state file and of a snapshot.
//!
//! Format: docs/formats.md, "Records and meta rows". Invariants: what `encode` writes, `decode` reads back; the key
//! names the row's family, a family that is not known is an error, never skipped. Not here: what the rows mean.

use crate::auth::{Role, User};
use crate::codec::{alarm_kind, alarm_kind_tag, permission, put_permission};
use crate::command::MemberAttributes;
use crate::encoding::{DecodeError, Reader, put_bytes, put_flags, put_i64, put_list, put_u64};
use crate::reply::AlarmMember;
use bytes::Bytes;

const FORMAT: u8 = 1;

const REVISION: &[u8] = b"revision";
const RESTORED: &[u8] = b"restored";
const COMPACT_SCHEDULED: &[u8] = b"compact/scheduled";
const COMPACT_FINISHED: &[u8] = b"compact/finished";
const LEASE: &[u8] = b"lease/";
const ALARM: &[u8] = b"alarm/";
const AUTH: &[u8] = b"auth";
const USER: &[u8] = b"user/";
const ROLE: &[u8] = b"role/";
const MEMBER: &[u8] = b"member/";
const CLUSTER_VERSION: &[u8] = b"cluster_version";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MetaRow {
    Revision(i64),
    Restored(i64),
    CompactScheduled(i64),
    CompactFinished(i64),
    Lease { id: i64, ttl_s: i64, remaining_s: i64 },
    Alarm(AlarmMember),
    Auth { enabled: bool, revision: u64 },
    User(String, User),
    Role(String, Role),
    Member(MemberAttributes),
    ClusterVersion(String),
}

fn key_of(family: &[u8], rest: &[u8]) -> Bytes {
    [family, rest].concat().into()
}

pub(crate) fn lease_key(id: i64) -> Bytes {
    key_of(LEASE, &id.to_be_bytes())
}

pub(crate) fn alarm_key(alarm: AlarmMember) -> Bytes {
    let mut rest = alarm.member.to_be_bytes().to_vec();
    rest.push(alarm_kind_tag(alarm.kind));
    key_of(ALARM, &rest)
}

pub(crate) fn user_key(name: &str) -> Bytes {
    key_of(USER, name.as_bytes())
}

pub(crate) fn role_key(name: &str) -> Bytes {
    key_of(ROLE, name.as_bytes())
}

impl MetaRow {
    pub(crate) fn encode(&self) -> (Bytes, Bytes) {
        let mut out = vec![FORMAT];
        let key = match self {
            MetaRow::Revision(revision) => {
                put_i64(&mut out, *revision);
                Bytes::from_static(REVISION)
            }
            MetaRow::Restored(revision) => {
                put_i64(&mut out, *revision);
                Bytes::from_static(RESTORED)
            }
            MetaRow::CompactScheduled(revision) => {
                put_i64(&mut out, *revision);
                Bytes::from_static(COMPACT_SCHEDULED)
            }
            MetaRow::CompactFinished(revision) => {
                put_i64(&mut out, *revision);
                Bytes::from_static(COMPACT_FINISHED)
            }
            MetaRow::Lease { id, ttl_s, remaining_s } => {
                put_i64(&mut out, *ttl_s);
                put_i64(&mut out, *remaining_s);
                lease_key(*id)
            }
            MetaRow::Alarm(alarm) => alarm_key(*alarm),
            MetaRow::Auth { enabled, revision } => {
                put_flags(&mut out, &[*enabled]);
                put_u64(&mut out, *revision);
                Bytes::from_static(AUTH)
            }
            MetaRow::User(name, user) => {
                put_flags(&mut out, &[user.no_password]);
                put_bytes(&mut out, &user.password_hash);
                let roles: Vec<&String> = user.roles.iter().collect();
                put_list(&mut out, &roles, |out, role| put_bytes(out, role.as_bytes()));
                user_key(name)
            }
            MetaRow::Role(name, role) => {
                put_list(&mut out, &role.permissions, put_permission);
                role_key(name)
            }
            MetaRow::Member(attributes) => {
                put_bytes(&mut out, attributes.name.as_bytes());
                put_list(&mut out, &attributes.client_urls, |out, url| put_bytes(out, url.as_bytes()));
                key_of(MEMBER, &attributes.member.to_be_bytes())
            }
            MetaRow::ClusterVersion(version) => {
                put_bytes(&mut out, version.as_bytes());
                Bytes::from_static(CLUSTER_VERSION)
            }
        };
        (key, out.into())
    }

    pub(crate) fn decode(key: &[u8], value: Bytes) -> Result<MetaRow, DecodeError> {
        let mut reader = Reader::with_format(value, FORMAT)?;
        let row = decode_row(key, &mut reader)?;
        reader.finish()?;
        Ok(row)
    }
}

fn decode_row(key: &[u8], reader: &mut Reader) -> Result<MetaRow, DecodeError> {
    Ok(match key {
        REVISION => MetaRow::Revision(reader.i64()?),
        RESTORED => MetaRow::Restored(reader.i64()?),
        COMPACT_SCHEDULED => MetaRow::CompactScheduled(reader.i64()?),
        COMPACT_FINISHED => MetaRow::CompactFinished(reader.i64()?),
        AUTH => {
            let [enabled] = reader.flags()?;
            MetaRow::Auth { enabled, revision: reader.u64()? }
        }
        CLUSTER_VERSION => MetaRow::ClusterVersion(reader.string()?),
        _ => return decode_member_of_family(key, reader),
    })
}

fn decode_member_of_family(key: &[u8], reader: &mut Reader) -> Result<MetaRow, DecodeError> {
    if let Some(id) = key.strip_prefix(LEASE) {
        let id = i64::from_be_bytes(number(id)?);
        return Ok(MetaRow::Lease { id, ttl_s: reader.i64()?, remaining_s: reader.i64()? });
    }
    if let Some(rest) = key.strip_prefix(ALARM) {
        let (tag, member) = rest.split_last().ok_or(DecodeError::Invalid("row key"))?;
        let member = u64::from_be_bytes(number(member)?);
        return Ok(MetaRow::Alarm(AlarmMember { member, kind: alarm_kind(*tag)? }));
    }
    if let Some(name) = key.strip_prefix(USER) {
        let [no_password] = reader.flags()?;
        let password_hash = reader.bytes()?;
        let roles = reader.list(Reader::string)?.into_iter().collect();
        return Ok(MetaRow::User(text(name)?, User { password_hash, no_password, roles }));
    }
    if let Some(name) = key.strip_prefix(ROLE) {
        return Ok(MetaRow::Role(text(name)?, Role { permissions: reader.list(permission)? }));
    }
    if let Some(member) = key.strip_prefix(MEMBER) {
        return Ok(MetaRow::Member(MemberAttributes {
            member: u64::from_be_bytes(number(member)?),
            name: reader.string()?,
            client_urls: reader.list(Reader::string)?,
        }));
    }
    Err(DecodeError::Invalid("row key"))
}

fn number(bytes: &[u8]) -> Result<[u8; 8], DecodeError> {
    bytes.try_into().map_err(|_| DecodeError::Invalid("row key"))
}

fn text(bytes: &[u8]) -> Result<String, DecodeError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| DecodeError::Invalid("row key"))
}

#[cfg(test)]
mod tests;
