//! The bytes of meta rows: pinned one by one, and junk.

use super::*;
use crate::command::{Access, AlarmKind, Permission};
use crate::keys::KeyRange;
use proptest::collection::vec;
use proptest::prelude::*;

fn told(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// Every kind of row with the key and value that it has for ever.
#[test]
fn rows_keep_these_bytes() {
    let user = User {
        password_hash: Bytes::from_static(b"hash"),
        no_password: false,
        roles: ["b".to_owned(), "a".to_owned()].into(),
    };
    let range = KeyRange::Span { start: Bytes::from_static(b"a"), end: Bytes::from_static(b"c") };
    let role = Role { permissions: vec![Permission { access: Access::Write, range }] };
    let member = MemberAttributes {
        member: 258,
        name: "m".to_owned(),
        client_urls: vec!["u".to_owned(), "v".to_owned()],
    };
    let rows = [
        (MetaRow::Revision(300), "revision", r"\x01\xd8\x04"),
        (MetaRow::Restored(300), "restored", r"\x01\xd8\x04"),
        (MetaRow::CompactScheduled(2), "compact/scheduled", r"\x01\x04"),
        (MetaRow::CompactFinished(2), "compact/finished", r"\x01\x04"),
        (
            MetaRow::Lease { id: 7, ttl_s: 60, remaining_s: 20 },
            r"lease/\x00\x00\x00\x00\x00\x00\x00\x07",
            r"\x01x(",
        ),
        (
            MetaRow::Alarm(AlarmMember { member: 9, kind: AlarmKind::Corrupt }),
            r"alarm/\x00\x00\x00\x00\x00\x00\x00\t\x02",
            r"\x01",
        ),
        (MetaRow::Auth { enabled: true, revision: 12 }, "auth", r"\x01\x01\x0c"),
        (MetaRow::User("u".to_owned(), user), "user/u", r"\x01\x00\x04hash\x02\x01a\x01b"),
        (MetaRow::Role("r".to_owned(), role), "role/r", r"\x01\x01\x01\x01\x01a\x01c"),
        (MetaRow::Member(member), r"member/\x00\x00\x00\x00\x00\x00\x01\x02", r"\x01\x01m\x02\x01u\x01v"),
        (MetaRow::ClusterVersion("3.6.0".to_owned()), "cluster_version", r"\x01\x053.6.0"),
    ];
    for (row, key, value) in rows {
        let (own_key, own_value) = row.encode();
        assert_eq!((told(&own_key).as_str(), told(&own_value).as_str()), (key, value), "{row:?}");
        assert_eq!(MetaRow::decode(&own_key, own_value), Ok(row));
    }
}

/// Each row: a key and a value that are not a row.
#[test]
fn junk_rows_are_named() {
    let rows: [(&[u8], &[u8], DecodeError); 8] = [
        (b"revision", b"", DecodeError::Truncated),
        (b"revision", b"\x02\x00", DecodeError::Format(2)),
        (b"revision", b"\x01\x00\x00", DecodeError::Trailing),
        (b"revisions", b"\x01\x00", DecodeError::Invalid("row key")),
        (b"lease/1234567", b"\x01\x00\x00", DecodeError::Invalid("row key")),
        (b"alarm/", b"\x01", DecodeError::Invalid("row key")),
        (b"alarm/12345678\x03", b"\x01", DecodeError::Tag { what: "alarm", tag: 3 }),
        (b"user/\xff", b"\x01\x00\x00\x00", DecodeError::Invalid("row key")),
    ];
    for (key, value, error) in rows {
        assert_eq!(MetaRow::decode(key, Bytes::copy_from_slice(value)), Err(error), "{}", told(key));
    }
}

proptest! {
    #[test]
    fn any_row_decodes_or_fails(
        family in 0..10usize,
        rest in vec(any::<u8>(), 0..10),
        value in vec(any::<u8>(), 0..60),
    ) {
        let families =
            [REVISION, COMPACT_SCHEDULED, COMPACT_FINISHED, LEASE, ALARM, AUTH, USER, ROLE, MEMBER, CLUSTER_VERSION];
        let mut framed = vec![FORMAT];
        framed.extend(value);
        for key in [families[family].to_vec(), [families[family], &rest].concat()] {
            let _ = MetaRow::decode(&key, framed.clone().into());
        }
    }
}
