//! Who may do what, against an oracle that judges key by key and shares no code with the store's intervals.
//!
//! Two questions are asked of every random operation, nested transactions included. Is it let through exactly when the
//! oracle would? And did it, once let through, show only keys that the caller may read and change only keys that the
//! caller may write? The second needs no rule about operations at all, so a forgotten rule is found by it.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mvcc::*;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// Every bound of every range is one of these. Keys between two neighbours are all treated alike, so that judging
/// `POINTS` is judging every key.
const BOUNDS: &[&[u8]] = &[b"\0", b"a", b"a\0", b"aa", b"b", b"b\xff", b"c", b"d", b"\xff"];

/// The bounds and the key right behind each: a grant of one key ends there.
fn points() -> Vec<Vec<u8>> {
    BOUNDS.iter().flat_map(|bound| [bound.to_vec(), [bound, &b"\0"[..]].concat()]).collect()
}

fn holds(range: &KeyRange, key: &[u8]) -> bool {
    let (start, end) = range.to_wire();
    match (&end[..], key) {
        (b"", key) => key == &start[..],
        (b"\0", key) => key >= &start[..],
        (end, key) => key >= &start[..] && key < end,
    }
}

#[derive(Clone, Debug)]
struct Role {
    grants: Vec<(Access, KeyRange)>,
}

/// A user's roles by their numbers. Two users are special: `root`, who always is there, and `nobody`, who has no role.
#[derive(Clone, Debug)]
struct World {
    roles: Vec<Role>,
    users: Vec<Vec<usize>>,
    /// Keys that exist, with the lease they hang on; 0 for none.
    keys: Vec<(Bytes, i64)>,
}

impl World {
    fn user(number: usize) -> String {
        format!("user{number}")
    }

    /// Whether a grant of one of the user's roles gives this access to this key. Of two grants of a role for the very
    /// same range the later one counts.
    fn may(&self, user: usize, access: Access, key: &[u8]) -> bool {
        self.users[user].iter().any(|role| {
            let mut last: BTreeMap<(Bytes, Bytes), Access> = BTreeMap::new();
            for (given, range) in &self.roles[*role].grants {
                last.insert(range.to_wire(), *given);
            }
            last.iter().any(|((start, end), given)| {
                (*given == Access::ReadWrite || *given == access)
                    && holds(&KeyRange::from_wire(start.clone(), end.clone()), key)
            })
        })
    }

    /// All of the range; one that can hold no key is judged by where it begins.
    fn may_all(&self, user: usize, access: Access, range: &KeyRange) -> bool {
        let (start, end) = range.to_wire();
        if end.len() + start.len() > 0 && !end.is_empty() && end[..] != b"\0"[..] && end <= start {
            return self.may(user, access, &start);
        }
        points().iter().filter(|point| holds(range, point)).all(|point| self.may(user, access, point))
    }
}

/// What there is now, read from the store as its owner.
#[derive(Clone, Debug, PartialEq)]
struct Contents(BTreeMap<Bytes, KeyValue>);

impl Contents {
    fn of(store: &Store, disk: &MemoryRecords) -> Contents {
        let all = RangeQuery::latest(KeyRange::all());
        let kvs = store.range(disk, &all).unwrap().kvs;
        Contents(kvs.into_iter().map(|kv| (kv.key.clone(), kv)).collect())
    }

    fn on_lease(&self, lease: i64) -> impl Iterator<Item = &Bytes> {
        self.0.values().filter(move |kv| lease != 0 && kv.lease == lease).map(|kv| &kv.key)
    }

    /// Keys that are different, or only in one of the two.
    fn changed<'a>(&'a self, other: &'a Contents) -> BTreeSet<&'a Bytes> {
        self.0.keys().chain(other.0.keys()).filter(|key| self.0.get(*key) != other.0.get(*key)).collect()
    }
}

/// The oracle: what the caller needs is collected first, as pairs of an access and a range, and then looked up.
struct Needs(Vec<(Access, KeyRange)>);

impl Needs {
    fn of_command(command: &Command, contents: &Contents) -> Needs {
        let mut needs = Needs(Vec::new());
        match command {
            Command::Put(put) => needs.put(put, contents),
            Command::DeleteRange(delete) => needs.delete(delete),
            Command::Txn(txn) => needs.txn(txn, contents),
            Command::LeaseRevoke(LeaseRevoke { id }) => needs.lease(Access::Write, *id, contents),
            other => panic!("{other:?} is not made here"),
        }
        needs
    }

    fn add(&mut self, access: Access, range: &KeyRange) {
        self.0.push((access, range.clone()));
    }

    fn put(&mut self, put: &Put, contents: &Contents) {
        let key = KeyRange::Key(put.key.clone());
        self.add(Access::Write, &key);
        if put.prev_kv {
            self.add(Access::Read, &key);
        }
        self.lease(Access::Write, put.lease, contents);
    }

    fn delete(&mut self, delete: &DeleteRange) {
        self.add(Access::Write, &delete.range);
        if delete.prev_kv {
            self.add(Access::Read, &delete.range);
        }
    }

    fn txn(&mut self, txn: &Txn, contents: &Contents) {
        for compare in &txn.compare {
            self.add(Access::Read, &compare.range);
        }
        for op in [&txn.success, &txn.failure].into_iter().flatten() {
            match op {
                Op::Range(query) => self.add(Access::Read, &query.range),
                Op::Put(put) => self.put(put, contents),
                Op::DeleteRange(delete) => self.delete(delete),
                Op::Txn(nested) => self.txn(nested, contents),
            }
        }
    }

    fn lease(&mut self, access: Access, id: i64, contents: &Contents) {
        for key in contents.on_lease(id) {
            self.add(access, &KeyRange::Key(key.clone()));
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Who {
    Anonymous,
    Root,
    User(usize),
    /// A user whose token was made before the last change of users and roles.
    Late(usize),
    /// The token of a user who was deleted.
    Gone,
}

impl Who {
    fn caller(self, auth_revision: u64) -> Caller {
        let named = |name: String, auth_revision| Caller::User { name, auth_revision };
        match self {
            Who::Anonymous => Caller::Anonymous,
            Who::Root => named("root".to_owned(), auth_revision),
            Who::User(number) => named(World::user(number), auth_revision),
            Who::Late(number) => named(World::user(number), auth_revision - 1),
            Who::Gone => named("gone".to_owned(), auth_revision),
        }
    }

    fn judge(self, world: &World, needs: &Needs) -> Result<(), AuthError> {
        match self {
            Who::Anonymous => Err(AuthError::UserEmpty),
            Who::Root => Ok(()),
            Who::Late(_) => Err(AuthError::OldRevision),
            Who::Gone => Err(AuthError::PermissionDenied),
            Who::User(number) => {
                let all = needs.0.iter().all(|(access, range)| world.may_all(number, *access, range));
                if all { Ok(()) } else { Err(AuthError::PermissionDenied) }
            }
        }
    }

    fn may(self, world: &World, access: Access, key: &[u8]) -> bool {
        match self {
            Who::Root => true,
            Who::User(number) => world.may(number, access, key),
            Who::Anonymous | Who::Late(_) | Who::Gone => false,
        }
    }
}

/// Keys that an answer tells about.
fn shown(reply: &Reply) -> Vec<&Bytes> {
    fn of_txn<'a>(reply: &'a TxnReply, keys: &mut Vec<&'a Bytes>) {
        for response in &reply.responses {
            match response {
                OpReply::Range(range) => keys.extend(range.kvs.iter().map(|kv| &kv.key)),
                OpReply::Put(put) => keys.extend(put.prev.iter().map(|kv| &kv.key)),
                OpReply::DeleteRange(delete) => keys.extend(delete.prev_kvs.iter().map(|kv| &kv.key)),
                OpReply::Txn(nested) => of_txn(nested, keys),
            }
        }
    }
    let mut keys = Vec::new();
    match reply {
        Reply::Put(put) => keys.extend(put.prev.iter().map(|kv| &kv.key)),
        Reply::DeleteRange(delete) => keys.extend(delete.prev_kvs.iter().map(|kv| &kv.key)),
        Reply::Txn(txn) => of_txn(txn, &mut keys),
        _ => {}
    }
    keys
}

struct Member {
    store: Store,
    disk: MemoryRecords,
}

impl Member {
    fn apply(&mut self, caller: Caller, command: Command) -> Applied {
        let proposal = Proposal { id: 1, member: 1, caller, command };
        self.store.apply(&self.disk, 1, &proposal)
    }

    fn auth(&mut self, command: AuthCommand) {
        self.apply(Caller::System, Command::Auth(command)).result.unwrap();
    }

    fn new(world: &World) -> Member {
        let mut member = Member { store: Store::new(Limits::default()), disk: MemoryRecords::default() };
        let add = |name: &str| AuthCommand::UserAdd {
            name: name.to_owned(),
            password_hash: Bytes::from_static(b"h"),
            no_password: false,
        };
        for name in ["root", "gone"] {
            member.auth(add(name));
        }
        member.auth(AuthCommand::UserGrantRole { user: "root".to_owned(), role: "root".to_owned() });
        for (number, role) in world.roles.iter().enumerate() {
            let name = format!("role{number}");
            member.auth(AuthCommand::RoleAdd { name: name.clone() });
            for (access, range) in &role.grants {
                let permission = Permission { access: *access, range: range.clone() };
                member.auth(AuthCommand::RoleGrantPermission { role: name.clone(), permission });
            }
        }
        for (number, roles) in world.users.iter().enumerate() {
            member.auth(add(&World::user(number)));
            for role in roles {
                member.auth(AuthCommand::UserGrantRole {
                    user: World::user(number),
                    role: format!("role{role}"),
                });
            }
        }
        for id in 1..4 {
            let grant = Command::LeaseGrant(LeaseGrant { id, ttl_s: 60 });
            member.apply(Caller::System, grant).result.unwrap();
        }
        for (key, lease) in &world.keys {
            let put = Put { key: key.clone(), lease: *lease, ..Put::default() };
            member.apply(Caller::System, Command::Put(put)).result.unwrap();
        }
        member.auth(AuthCommand::UserDelete { name: "gone".to_owned() });
        member.auth(AuthCommand::Enable);
        member
    }
}

fn any_bound() -> impl Strategy<Value = Bytes> {
    prop::sample::select(BOUNDS).prop_map(Bytes::from_static)
}

/// As it comes from clients: one key, a span (possibly an empty one), from a key on, or everything.
fn any_range() -> impl Strategy<Value = KeyRange> {
    let from = |start| KeyRange::from_wire(start, Bytes::from_static(b"\0"));
    prop_oneof![
        5 => any_bound().prop_map(KeyRange::Key),
        3 => (any_bound(), any_bound()).prop_map(|(start, end)| KeyRange::from_wire(start, end)),
        1 => any_bound().prop_map(from),
    ]
}

fn any_access() -> impl Strategy<Value = Access> {
    prop::sample::select(vec![Access::Read, Access::Write, Access::ReadWrite, Access::ReadWrite])
}

/// Mostly wide grants, so that transactions of several operations are allowed often enough.
fn any_grant() -> impl Strategy<Value = (Access, KeyRange)> {
    let wide = (any_bound(), any_bound()).prop_map(|(one, other)| {
        let (start, end) = if one < other { (one, other) } else { (other, one) };
        if start == end { KeyRange::Key(start) } else { KeyRange::from_wire(start, end) }
    });
    let from = any_bound().prop_map(|start| KeyRange::from_wire(start, Bytes::from_static(b"\0")));
    let range = prop_oneof![3 => any_bound().prop_map(KeyRange::Key), 4 => wide, 2 => from];
    (any_access(), range)
}

fn any_world() -> impl Strategy<Value = World> {
    let roles = vec(vec(any_grant(), 0..5).prop_map(|grants| Role { grants }), 3);
    let users = vec(prop::sample::subsequence(vec![0usize, 1, 2], 0..=3), 3);
    let keys = vec((any_bound(), 0..4i64), 0..8);
    (roles, users, keys).prop_map(|(roles, users, keys)| World { roles, users, keys })
}

fn any_who() -> impl Strategy<Value = Who> {
    prop_oneof![
        1 => Just(Who::Anonymous),
        1 => Just(Who::Root),
        16 => (0..3usize).prop_map(Who::User),
        1 => (0..3usize).prop_map(Who::Late),
        1 => Just(Who::Gone),
    ]
}

fn any_put() -> impl Strategy<Value = Put> {
    let lease = prop_oneof![5 => Just(0i64), 2 => 1..4i64];
    (any_bound(), lease, prop::bool::weighted(0.3), 0..10u8).prop_map(|(key, lease, prev_kv, keep)| {
        let (ignore_value, ignore_lease) = (keep == 1, keep == 2);
        let value = if ignore_value { Bytes::new() } else { Bytes::from_static(b"v") };
        Put { key, value, lease: if ignore_lease { 0 } else { lease }, prev_kv, ignore_value, ignore_lease }
    })
}

fn any_delete() -> impl Strategy<Value = DeleteRange> {
    (any_range(), prop::bool::weighted(0.3)).prop_map(|(range, prev_kv)| DeleteRange { range, prev_kv })
}

fn any_compare() -> impl Strategy<Value = Compare> {
    let target = prop_oneof![
        (0..2i64).prop_map(CompareTarget::Version),
        Just(CompareTarget::Value(Bytes::from_static(b"v"))),
        (0..4i64).prop_map(CompareTarget::Lease),
    ];
    let result = prop::sample::select(vec![CompareResult::Equal, CompareResult::NotEqual]);
    (any_range(), result, target).prop_map(|(range, result, target)| Compare { range, result, target })
}

fn any_txn() -> impl Strategy<Value = Txn> {
    let op = prop_oneof![
        3 => any_range().prop_map(|range| Op::Range(RangeQuery::latest(range))),
        3 => any_put().prop_map(Op::Put),
        2 => any_delete().prop_map(Op::DeleteRange),
    ];
    let op = op.prop_recursive(4, 10, 3, |inner| {
        (vec(any_compare(), 0..2), vec(inner.clone(), 0..3), vec(inner, 0..3))
            .prop_map(|(compare, success, failure)| Op::Txn(Txn { compare, success, failure }))
    });
    (vec(any_compare(), 0..2), vec(op.clone(), 0..3), vec(op, 0..3))
        .prop_map(|(compare, success, failure)| Txn { compare, success, failure })
}

#[derive(Clone, Debug)]
enum Asked {
    Write(Command),
    Range(KeyRange),
    ReadTxn(Txn),
    Watch(KeyRange),
    KeepAlive(i64),
    TimeToLive(i64, bool),
    Leases,
}

fn any_asked() -> impl Strategy<Value = Asked> {
    prop_oneof![
        3 => any_put().prop_map(|put| Asked::Write(Command::Put(put))),
        3 => any_delete().prop_map(|delete| Asked::Write(Command::DeleteRange(delete))),
        8 => any_txn().prop_map(|txn| match txn.is_read_only() {
            true => Asked::ReadTxn(txn),
            false => Asked::Write(Command::Txn(txn)),
        }),
        1 => (1..4i64).prop_map(|id| Asked::Write(Command::LeaseRevoke(LeaseRevoke { id }))),
        2 => any_range().prop_map(Asked::Range),
        2 => any_range().prop_map(Asked::Watch),
        1 => (1..5i64).prop_map(Asked::KeepAlive),
        1 => (1..5i64, any::<bool>()).prop_map(|(id, keys)| Asked::TimeToLive(id, keys)),
        1 => Just(Asked::Leases),
    ]
}

/// How often each outcome was seen: a run that denies or allows everything has tested nothing.
#[derive(Default)]
struct Seen {
    allowed: Cell<u32>,
    denied: Cell<u32>,
    allowed_trees: Cell<u32>,
    denied_trees: Cell<u32>,
    keys_shown: Cell<u32>,
    keys_changed: Cell<u32>,
}

fn count(cell: &Cell<u32>, number: usize) {
    cell.set(cell.get() + u32::try_from(number).unwrap());
}

fn check(world: &World, asked: &[(Who, Asked)], seen: &Seen) -> Result<(), TestCaseError> {
    let mut member = Member::new(world);
    for (who, asked) in asked {
        let caller = who.caller(member.store.auth_revision());
        let contents = Contents::of(&member.store, &member.disk);
        let mut needs = Needs(Vec::new());
        let query;
        let operation = match asked {
            Asked::Write(command) => {
                needs = Needs::of_command(command, &contents);
                Operation::Command(command)
            }
            Asked::Range(range) => {
                needs.add(Access::Read, range);
                query = RangeQuery::latest(range.clone());
                Operation::Range(&query)
            }
            Asked::ReadTxn(txn) => {
                needs.txn(txn, &contents);
                Operation::ReadTxn(txn)
            }
            Asked::Watch(range) => {
                needs.add(Access::Read, range);
                Operation::Watch(range)
            }
            Asked::KeepAlive(id) => {
                needs.lease(Access::Write, *id, &contents);
                Operation::LeaseKeepAlive { id: *id }
            }
            Asked::TimeToLive(id, keys) => {
                if *keys {
                    needs.lease(Access::Read, *id, &contents);
                }
                Operation::LeaseTimeToLive { id: *id, keys: *keys }
            }
            Asked::Leases => {
                (1..4).for_each(|id| needs.lease(Access::Read, id, &contents));
                Operation::LeaseLeases
            }
        };
        let mut expected = who.judge(world, &needs);
        if let (Asked::TimeToLive(_, false), Who::Late(_)) = (asked, who) {
            expected = Ok(()); // needs no right on any key, so it does not matter how old they are
        }
        prop_assert_eq!(member.store.authorize(&caller, operation), expected, "{:?} {:?}", who, asked);
        let is_tree = matches!(asked, Asked::Write(Command::Txn(txn)) | Asked::ReadTxn(txn)
            if txn.success.iter().chain(&txn.failure).any(|op| matches!(op, Op::Txn(_))));
        match (expected.is_ok(), is_tree) {
            (true, true) => count(&seen.allowed_trees, 1),
            (true, false) => count(&seen.allowed, 1),
            (false, true) => count(&seen.denied_trees, 1),
            (false, false) => count(&seen.denied, 1),
        }
        let reply = match asked {
            Asked::Write(command) => {
                // A command that the edge would refuse tells nothing about rights.
                if matches!(command, Command::Txn(txn) if check_txn(txn, 128).is_err()) {
                    continue;
                }
                let applied = member.apply(caller, command.clone());
                let refused = match &applied.result {
                    Err(ApplyError::Auth(error)) => Err(*error),
                    Ok(_) | Err(_) => Ok(()),
                };
                prop_assert_eq!(refused, expected, "applied: {:?} {:?}", who, asked);
                applied.result.ok()
            }
            Asked::ReadTxn(txn) if expected.is_ok() => {
                Some(Reply::Txn(member.store.read_txn(&member.disk, txn).unwrap()))
            }
            _ => None,
        };
        let now = Contents::of(&member.store, &member.disk);
        let changed = contents.changed(&now);
        count(&seen.keys_changed, changed.len());
        for key in changed {
            prop_assert!(who.may(world, Access::Write, key), "{:?} changed {:?}: {:?}", who, key, asked);
        }
        let shown = reply.as_ref().map(shown).unwrap_or_default();
        count(&seen.keys_shown, shown.len());
        for key in shown {
            prop_assert!(who.may(world, Access::Read, key), "{:?} saw {:?}: {:?}", who, key, asked);
        }
    }
    Ok(())
}

#[test]
fn nobody_comes_further_than_key_by_key_judgement_lets_them() {
    let seen = Seen::default();
    let mut runner = TestRunner::new(Config { cases: 1500, ..Config::default() });
    let asked = vec((any_who(), any_asked()), 1..12);
    let result = runner.run(&(any_world(), asked), |(world, asked)| check(&world, &asked, &seen));
    result.unwrap_or_else(|error| panic!("{error}"));
    for (what, cell) in [
        ("plain operations allowed", &seen.allowed),
        ("plain operations denied", &seen.denied),
        ("nested transactions allowed", &seen.allowed_trees),
        ("nested transactions denied", &seen.denied_trees),
        ("keys shown", &seen.keys_shown),
        ("keys changed", &seen.keys_changed),
    ] {
        assert!(cell.get() >= 100, "only {} {what}", cell.get());
    }
}
