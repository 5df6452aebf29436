//! Rows as values that others may read and make: for backups, which have a format of their own.
//!
//! Invariants: a row that is read and made again has the same bytes, as far as a store does not order them by itself.
//! Not here: that format, and whether rows fit together (restore.rs checks it).

use bytes::Bytes;

use crate::auth::{Role, RoleView, User, UserView};
use crate::command::MemberAttributes;
use crate::encoding::DecodeError;
use crate::keys::{KeyValue, Revision};
use crate::meta::MetaRow;
use crate::record::{self, PutState};
use crate::reply::{AlarmMember, LeaseTime};
use crate::rows::{RecordsError, Row};

/// One row of the small state beside the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Saved {
    Revision(i64),
    /// What a backup was restored at: up to there a revision may have no records.
    Restored(i64),
    /// Reads below it fail.
    CompactScheduled(i64),
    /// What it made unreachable is gone.
    CompactFinished(i64),
    Lease(LeaseTime),
    Alarm(AlarmMember),
    Auth {
        enabled: bool,
        revision: u64,
    },
    User(UserView),
    Role(RoleView),
    Member(MemberAttributes),
    ClusterVersion(String),
}

impl Saved {
    pub fn from_row(key: &[u8], value: Bytes) -> Result<Saved, DecodeError> {
        Ok(match MetaRow::decode(key, value)? {
            MetaRow::Revision(revision) => Saved::Revision(revision),
            MetaRow::Restored(revision) => Saved::Restored(revision),
            MetaRow::CompactScheduled(revision) => Saved::CompactScheduled(revision),
            MetaRow::CompactFinished(revision) => Saved::CompactFinished(revision),
            MetaRow::Lease { id, ttl_s, remaining_s } => Saved::Lease(LeaseTime { id, ttl_s, remaining_s }),
            MetaRow::Alarm(alarm) => Saved::Alarm(alarm),
            MetaRow::Auth { enabled, revision } => Saved::Auth { enabled, revision },
            MetaRow::User(name, User { password_hash, no_password, roles }) => {
                Saved::User(UserView { name, password_hash, no_password, roles: roles.into_iter().collect() })
            }
            MetaRow::Role(name, Role { permissions }) => Saved::Role(RoleView { name, permissions }),
            MetaRow::Member(attributes) => Saved::Member(attributes),
            MetaRow::ClusterVersion(version) => Saved::ClusterVersion(version),
        })
    }

    pub fn into_row(self) -> Row {
        let (key, value) = match self {
            Saved::Revision(revision) => MetaRow::Revision(revision),
            Saved::Restored(revision) => MetaRow::Restored(revision),
            Saved::CompactScheduled(revision) => MetaRow::CompactScheduled(revision),
            Saved::CompactFinished(revision) => MetaRow::CompactFinished(revision),
            Saved::Lease(LeaseTime { id, ttl_s, remaining_s }) => MetaRow::Lease { id, ttl_s, remaining_s },
            Saved::Alarm(alarm) => MetaRow::Alarm(alarm),
            Saved::Auth { enabled, revision } => MetaRow::Auth { enabled, revision },
            Saved::User(UserView { name, password_hash, no_password, roles }) => {
                MetaRow::User(name, User { password_hash, no_password, roles: roles.into_iter().collect() })
            }
            Saved::Role(RoleView { name, mut permissions }) => {
                permissions.sort_by_key(|permission| permission.range.to_wire());
                permissions.dedup_by_key(|permission| permission.range.to_wire());
                MetaRow::Role(name, Role { permissions })
            }
            Saved::Member(attributes) => MetaRow::Member(attributes),
            Saved::ClusterVersion(version) => MetaRow::ClusterVersion(version),
        }
        .encode();
        Row::Meta(key, value)
    }
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedRecord {
    pub revision: Revision,
    /// A deletion: of the pair only the key means something.
    pub is_delete: bool,
    /// Its `mod_revision` is the revision's `main`.
    pub kv: KeyValue,
}

impl SavedRecord {
    /// Verifies the record.
    pub fn from_bytes(revision: Revision, bytes: &Bytes) -> Result<SavedRecord, RecordsError> {
        let record = record::decode(revision, bytes)?;
        Ok(SavedRecord { revision, is_delete: record.is_delete, kv: record.kv })
    }

    pub fn to_row(&self) -> Row {
        let SavedRecord { revision, is_delete, kv } = self;
        let encoded = if *is_delete {
            record::encode_delete(*revision, &kv.key)
        } else {
            let KeyValue { create_revision, version, lease, .. } = *kv;
            let state = PutState { create_revision, version, lease };
            record::encode_put(*revision, &kv.key, &kv.value, state)
        };
        Row::Record(*revision, encoded.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Access, AlarmKind, Permission};
    use crate::keys::KeyRange;

    #[test]
    fn rows_come_back() {
        let permission =
            |key: &'static str| Permission { access: Access::Read, range: KeyRange::Key(key.into()) };
        let user = UserView {
            name: "u".into(),
            password_hash: "h".into(),
            no_password: false,
            roles: vec!["a".into(), "b".into()],
        };
        let rows = [
            Saved::Revision(7),
            Saved::Restored(6),
            Saved::CompactScheduled(6),
            Saved::CompactFinished(5),
            Saved::Lease(LeaseTime { id: 4, ttl_s: 3, remaining_s: 2 }),
            Saved::Alarm(AlarmMember { member: 1, kind: AlarmKind::NoSpace }),
            Saved::Auth { enabled: true, revision: 9 },
            Saved::User(user),
            Saved::Role(RoleView { name: "a".into(), permissions: vec![permission("x"), permission("y")] }),
            Saved::ClusterVersion("3.6.0".into()),
        ];
        for row in rows {
            let Row::Meta(key, value) = row.clone().into_row() else { panic!("not a meta row") };
            assert_eq!(Saved::from_row(&key, value), Ok(row));
        }
        let kv = KeyValue {
            key: "k".into(),
            value: "v".into(),
            create_revision: 2,
            mod_revision: 3,
            version: 2,
            lease: 1,
        };
        let put = SavedRecord { revision: Revision::new(3, 1), is_delete: false, kv };
        let kv = KeyValue { key: "k".into(), mod_revision: 4, ..KeyValue::default() };
        let delete = SavedRecord { revision: Revision::new(4, 0), is_delete: true, kv };
        for record in [put, delete] {
            let Row::Record(revision, bytes) = record.to_row() else { panic!("not a record") };
            assert_eq!(SavedRecord::from_bytes(revision, &bytes), Ok(record));
        }
    }
}
