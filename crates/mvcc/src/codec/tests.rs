//! The bytes of commands: pinned one by one, round trips of everything, junk of every kind.

use super::*;
use crate::keys::KeyRange;
use proptest::collection::vec;
use proptest::prelude::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Bytes {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn encoded(command: &Command) -> Vec<u8> {
    let mut out = Vec::new();
    command.encode(&mut out);
    out
}

fn key(text: &str) -> KeyRange {
    KeyRange::Key(Bytes::copy_from_slice(text.as_bytes()))
}

fn span(start: &str, end: &str) -> KeyRange {
    KeyRange::from_wire(Bytes::copy_from_slice(start.as_bytes()), Bytes::copy_from_slice(end.as_bytes()))
}

fn auth(command: AuthCommand) -> Command {
    Command::Auth(command)
}

/// Every kind of command with the bytes that it has for ever. Entries written by an older version are read by this
/// one: a row may be added, none may change.
fn pinned() -> Vec<(Command, &'static str)> {
    let put = Put {
        key: Bytes::from_static(b"k"),
        value: Bytes::from_static(b"vv"),
        lease: 7,
        prev_kv: true,
        ignore_value: false,
        ignore_lease: true,
    };
    let query = RangeQuery {
        limit: 500,
        revision: -1,
        sort: Some((SortTarget::Mod, SortOrder::Descend)),
        keys_only: true,
        max_mod_revision: 9,
        ..RangeQuery::latest(span("a", "\0"))
    };
    let compare = |result, target| Compare { range: key("a"), result, target };
    let txn = Txn {
        compare: vec![
            compare(CompareResult::Equal, CompareTarget::Version(0)),
            compare(CompareResult::Greater, CompareTarget::CreateRevision(1)),
            compare(CompareResult::Less, CompareTarget::ModRevision(-1)),
            compare(CompareResult::NotEqual, CompareTarget::Value(Bytes::from_static(b"v"))),
            compare(CompareResult::Equal, CompareTarget::Lease(i64::MAX)),
        ],
        success: vec![
            Op::Put(put.clone()),
            Op::Range(RangeQuery::latest(key("a"))),
            Op::DeleteRange(DeleteRange { range: span("a", "c"), prev_kv: true }),
        ],
        failure: vec![Op::Txn(Txn { success: vec![Op::Range(query)], ..Txn::default() })],
    };
    let user = || "u".to_owned();
    let role = || "r".to_owned();
    let hash = || Bytes::from_static(b"h");
    let permission = |access| Permission { access, range: span("a", "c") };
    vec![
        (Command::Noop, "01 00"),
        (Command::Put(put), "01 01 05 0e 016b 027676"),
        (Command::DeleteRange(DeleteRange { range: key("k"), prev_kv: false }), "01 02 00 00 016b"),
        (
            Command::Txn(txn),
            "01 03
             05 00 00 00 00 0161  01 01 02 00 0161  02 02 01 00 0161  03 03 0176 00 0161
                00 04 feffffffffffffffff01 00 0161
             03 01 05 0e 016b 027676  00 00 00 0161 00 00  02 01 01 0161 0163
             01 03 00 01 00 0d 02 0161 e807 01 03 02 00 12 00 00 00",
        ),
        (Command::Compact(Compact { revision: 300 }), "01 04 d804"),
        (Command::LeaseGrant(LeaseGrant { id: -1, ttl_s: 60 }), "01 05 01 78"),
        (Command::LeaseRevoke(LeaseRevoke { id: 7 }), "01 06 0e"),
        (Command::LeaseExpire(LeaseExpire { ids: vec![7, 8], term: 5 }), "01 07 05 02 0e 10"),
        (
            Command::LeaseCheckpoint(LeaseCheckpoint {
                leases: vec![LeaseRemaining { id: 7, remaining_s: 20 }],
            }),
            "01 08 01 0e 28",
        ),
        (
            Command::Alarm(AlarmCommand {
                action: AlarmAction::Activate,
                member: 9,
                kind: Some(AlarmKind::NoSpace),
            }),
            "01 09 01 09 01",
        ),
        (
            Command::Alarm(AlarmCommand {
                action: AlarmAction::Deactivate,
                member: 0,
                kind: Some(AlarmKind::Corrupt),
            }),
            "01 09 02 00 02",
        ),
        (
            Command::Alarm(AlarmCommand { action: AlarmAction::Deactivate, member: 0, kind: None }),
            "01 09 02 00 00",
        ),
        (auth(AuthCommand::Enable), "01 0a 00"),
        (auth(AuthCommand::Disable), "01 0a 01"),
        (
            auth(AuthCommand::UserAdd { name: user(), password_hash: hash(), no_password: true }),
            "01 0a 02 0175 0168 01",
        ),
        (auth(AuthCommand::UserDelete { name: user() }), "01 0a 03 0175"),
        (auth(AuthCommand::UserChangePassword { name: user(), password_hash: hash() }), "01 0a 04 0175 0168"),
        (auth(AuthCommand::UserGrantRole { user: user(), role: role() }), "01 0a 05 0175 0172"),
        (auth(AuthCommand::UserRevokeRole { user: user(), role: role() }), "01 0a 06 0175 0172"),
        (auth(AuthCommand::RoleAdd { name: role() }), "01 0a 07 0172"),
        (auth(AuthCommand::RoleDelete { name: role() }), "01 0a 08 0172"),
        (
            auth(AuthCommand::RoleGrantPermission {
                role: role(),
                permission: permission(Access::ReadWrite),
            }),
            "01 0a 09 0172 02 01 0161 0163",
        ),
        (
            auth(AuthCommand::RoleGrantPermission { role: role(), permission: permission(Access::Write) }),
            "01 0a 09 0172 01 01 0161 0163",
        ),
        (
            auth(AuthCommand::RoleRevokePermission { role: role(), range: span("a", "c") }),
            "01 0a 0a 0172 01 0161 0163",
        ),
        (
            auth(AuthCommand::Token { name: user(), digest: [0xab; 32], auth_revision: 300 }),
            "01 0a 0b 0175 20 abababababababababababababababababababababababababababababababab ac02",
        ),
        (
            Command::MemberAttributes(MemberAttributes {
                member: 200,
                name: "m".to_owned(),
                client_urls: vec!["http://x".to_owned()],
            }),
            "01 0b c801 016d 01 08 687474703a2f2f78",
        ),
        (Command::ClusterVersion(ClusterVersion { version: "3.6.0".to_owned() }), "01 0c 05 332e362e30"),
    ]
}

#[test]
fn commands_keep_these_bytes() {
    for (command, bytes) in pinned() {
        assert_eq!(hex(&encoded(&command)), hex(&unhex(bytes)), "{command:?}");
        assert_eq!(Command::decode(unhex(bytes)), Ok(command));
    }
}

#[test]
fn proposals_keep_these_bytes() {
    let user = Caller::User { name: "u".to_owned(), auth_revision: 3 };
    for (caller, bytes) in [(Caller::System, "00"), (Caller::Anonymous, "01"), (user, "02 0175 03")] {
        let proposal = Proposal { id: 300, member: 9, caller, command: Command::Noop };
        let bytes = unhex(&format!("01 ac02 09 {bytes} 00"));
        let mut out = Vec::new();
        proposal.encode(&mut out);
        assert_eq!(hex(&out), hex(&bytes));
        assert_eq!(Proposal::decode(bytes), Ok(proposal));
    }
}

/// Each row: bytes and why they are not a command.
#[test]
fn junk_is_named() {
    let rows = [
        ("", DecodeError::Truncated),
        ("02 00", DecodeError::Format(2)),
        ("01", DecodeError::Truncated),
        ("01 0d", DecodeError::Tag { what: "command", tag: 13 }),
        ("01 00 00", DecodeError::Trailing),
        ("01 01 08 00 00 00", DecodeError::Invalid("flags")),
        ("01 01 00 00 ff7f", DecodeError::Truncated),
        ("01 02 00 03", DecodeError::Tag { what: "range", tag: 3 }),
        ("01 03 00 01 04", DecodeError::Tag { what: "operation", tag: 4 }),
        ("01 03 01 04", DecodeError::Tag { what: "comparison", tag: 4 }),
        ("01 03 01 00 05", DecodeError::Tag { what: "compare target", tag: 5 }),
        ("01 03 00 01 00 08 00 00 00 00 00 00 00 00", DecodeError::Invalid("filter")),
        ("01 03 ffffff7f", DecodeError::Truncated),
        ("01 07 00 ffffffffffffffffffff01", DecodeError::Invalid("number")),
        ("01 0a 07 01ff", DecodeError::Invalid("text")),
        ("01 0a 0c", DecodeError::Tag { what: "auth command", tag: 12 }),
        ("01 0a 0b 0175 02 abab 01", DecodeError::Invalid("digest")),
        ("01 09 03 00 00", DecodeError::Tag { what: "alarm action", tag: 3 }),
        ("01 09 01 00 03", DecodeError::Tag { what: "alarm", tag: 3 }),
    ];
    for (bytes, error) in rows {
        assert_eq!(Command::decode(unhex(bytes)), Err(error), "{bytes}");
    }
}

#[test]
fn nesting_stops_at_its_bound() {
    let nested = |depth: usize| {
        let txn = (1..depth)
            .fold(Txn::default(), |inner, _| Txn { success: vec![Op::Txn(inner)], ..Txn::default() });
        Command::decode(encoded(&Command::Txn(txn)).into()).map(|_| ())
    };
    assert_eq!(nested(TXN_DEPTH_MAX), Ok(()));
    assert_eq!(nested(TXN_DEPTH_MAX + 1), Err(DecodeError::TooDeep));
    // A bomb: each level says "one operation, a transaction".
    let mut bomb = vec![FORMAT, 3];
    bomb.extend([0, 1, 3].repeat(1_000_000));
    assert_eq!(Command::decode(bomb.into()), Err(DecodeError::TooDeep));
}

#[test]
fn decoding_copies_no_value() {
    let put = Put { key: "k".into(), value: vec![7; 1000].into(), ..Put::default() };
    let bytes = Bytes::from(encoded(&Command::Put(put)));
    let Ok(Command::Put(put)) = Command::decode(bytes.clone()) else { panic!() };
    assert!(bytes.as_ptr_range().contains(&put.value.as_ptr()));
}

fn any_bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..6).prop_map(Bytes::from)
}

fn any_range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        any_bytes().prop_map(KeyRange::Key),
        (any_bytes(), any_bytes()).prop_map(|(start, end)| KeyRange::Span { start, end }),
        any_bytes().prop_map(KeyRange::From),
    ]
}

fn any_put() -> impl Strategy<Value = Put> {
    (any_bytes(), any_bytes(), any::<i64>(), any::<[bool; 3]>()).prop_map(|(key, value, lease, flags)| {
        let [prev_kv, ignore_value, ignore_lease] = flags;
        Put { key, value, lease, prev_kv, ignore_value, ignore_lease }
    })
}

fn any_query() -> impl Strategy<Value = RangeQuery> {
    let targets =
        [SortTarget::Key, SortTarget::Version, SortTarget::Create, SortTarget::Mod, SortTarget::Value];
    let sort = proptest::option::of((0..5usize, any::<bool>()).prop_map(move |(target, ascends)| {
        (targets[target], if ascends { SortOrder::Ascend } else { SortOrder::Descend })
    }));
    (any_range(), any::<[i64; 6]>(), sort, any::<[bool; 2]>(), 0..3i64).prop_map(
        |(range, numbers, sort, [keys_only, count_only], scale)| {
            let [limit, revision, a, b, c, d] = numbers;
            RangeQuery {
                range,
                limit,
                revision,
                sort,
                keys_only,
                count_only,
                min_mod_revision: a.saturating_mul(scale),
                max_mod_revision: b.saturating_mul(scale),
                min_create_revision: c.saturating_mul(scale),
                max_create_revision: d.saturating_mul(scale),
            }
        },
    )
}

fn any_compare() -> impl Strategy<Value = Compare> {
    let results =
        [CompareResult::Equal, CompareResult::Greater, CompareResult::Less, CompareResult::NotEqual];
    let target = prop_oneof![
        any::<i64>().prop_map(CompareTarget::Version),
        any::<i64>().prop_map(CompareTarget::CreateRevision),
        any::<i64>().prop_map(CompareTarget::ModRevision),
        any_bytes().prop_map(CompareTarget::Value),
        any::<i64>().prop_map(CompareTarget::Lease),
    ];
    (any_range(), 0..4usize, target).prop_map(move |(range, result, target)| Compare {
        range,
        result: results[result],
        target,
    })
}

fn any_txn() -> impl Strategy<Value = Txn> {
    let op = prop_oneof![
        any_query().prop_map(Op::Range),
        any_put().prop_map(Op::Put),
        (any_range(), any::<bool>())
            .prop_map(|(range, prev_kv)| Op::DeleteRange(DeleteRange { range, prev_kv })),
    ];
    let op = op.prop_recursive(3, 12, 3, |inner| {
        (vec(any_compare(), 0..2), vec(inner.clone(), 0..3), vec(inner, 0..3))
            .prop_map(|(compare, success, failure)| Op::Txn(Txn { compare, success, failure }))
    });
    (vec(any_compare(), 0..4), vec(op.clone(), 0..4), vec(op, 0..4))
        .prop_map(|(compare, success, failure)| Txn { compare, success, failure })
}

fn any_command() -> impl Strategy<Value = Command> {
    let pinned: Vec<Command> = pinned().into_iter().map(|(command, _)| command).collect();
    prop_oneof![
        any_put().prop_map(Command::Put),
        any_txn().prop_map(Command::Txn),
        (any::<u64>(), vec(any::<i64>(), 0..5))
            .prop_map(|(term, ids)| Command::LeaseExpire(LeaseExpire { ids, term })),
        (0..pinned.len()).prop_map(move |at| pinned[at].clone()),
    ]
}

proptest! {
    #[test]
    fn every_command_comes_back(command in any_command()) {
        prop_assert_eq!(Command::decode(encoded(&command).into()), Ok(command));
    }

    #[test]
    fn any_bytes_decode_or_fail(bytes in vec(any::<u8>(), 0..200)) {
        let mut framed = vec![FORMAT];
        framed.extend(&bytes);
        let framed = Bytes::from(framed);
        for bytes in [framed, bytes.into()] {
            if let Ok(command) = Command::decode(bytes.clone()) {
                prop_assert_eq!(Command::decode(encoded(&command).into()), Ok(command));
            }
            let _ = Proposal::decode(bytes);
        }
    }

    #[test]
    fn changed_bytes_decode_or_fail(command in any_command(), at in any::<prop::sample::Index>(), byte: u8, cut: bool) {
        let mut bytes = encoded(&command);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if cut {
            bytes.truncate(at);
        }
        let _ = Command::decode(bytes.into());
    }
}
