//! Reads requests as scripts write them.

use bytes::Bytes;
use mvcc::*;
use std::iter::Peekable;
use std::str::SplitWhitespace;

pub(super) type Words<'a> = Peekable<SplitWhitespace<'a>>;

fn bytes(word: &str) -> Bytes {
    Bytes::copy_from_slice(if word == "\"\"" { b"" } else { word.as_bytes() })
}

pub(crate) fn parse_range(word: &str) -> KeyRange {
    match word.split_once("..") {
        Some((start, "")) => KeyRange::From(bytes(start)),
        Some((start, end)) => KeyRange::Span { start: bytes(start), end: bytes(end) },
        None => match word.strip_suffix('*') {
            Some(prefix) => KeyRange::prefix(bytes(prefix)),
            None => KeyRange::Key(bytes(word)),
        },
    }
}

pub(super) fn query(word: &str, words: &mut Words<'_>) -> RangeQuery {
    let mut query = RangeQuery::latest(parse_range(words.next().unwrap()));
    let mut target = None;
    let mut order = SortOrder::Ascend;
    while let Some(option) = words.peek().copied().filter(|word| !["}", ";"].contains(word)) {
        words.next();
        if let Some(revision) = option.strip_prefix('@') {
            query.revision = revision.parse().unwrap();
            continue;
        }
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let number = || value.parse::<i64>().unwrap();
        match name {
            "limit" => query.limit = number(),
            "min-mod" => query.min_mod_revision = number(),
            "max-mod" => query.max_mod_revision = number(),
            "min-create" => query.min_create_revision = number(),
            "max-create" => query.max_create_revision = number(),
            "keys" => query.keys_only = true,
            "count" => query.count_only = true,
            "desc" => order = SortOrder::Descend,
            "sort" => {
                target = Some(match value {
                    "key" => SortTarget::Key,
                    "version" => SortTarget::Version,
                    "create" => SortTarget::Create,
                    "mod" => SortTarget::Mod,
                    "value" => SortTarget::Value,
                    _ => panic!("sort by {value}?"),
                });
            }
            _ => panic!("{word} with {option}?"),
        }
    }
    query.sort = target.map(|target| (target, order));
    query
}

fn put(words: &mut Words<'_>) -> Put {
    let mut put =
        Put { key: bytes(words.next().unwrap()), value: bytes(words.next().unwrap()), ..Put::default() };
    while let Some(option) = words.peek().copied().filter(|word| !["}", ";"].contains(word)) {
        words.next();
        match option {
            "prev" => put.prev_kv = true,
            "ignore-value" => put.ignore_value = true,
            "ignore-lease" => put.ignore_lease = true,
            _ => put.lease = option.strip_prefix("lease=").unwrap().parse().unwrap(),
        }
    }
    put
}

fn delete(words: &mut Words<'_>) -> DeleteRange {
    let range = parse_range(words.next().unwrap());
    let prev_kv = words.next_if(|word| *word == "prev").is_some();
    DeleteRange { range, prev_kv }
}

fn compare(word: &str) -> Compare {
    let (target, rest) = word.split_once('(').unwrap();
    let (range, rest) = rest.split_once(')').unwrap();
    let (result, operand) = [
        ("!=", CompareResult::NotEqual),
        ("=", CompareResult::Equal),
        (">", CompareResult::Greater),
        ("<", CompareResult::Less),
    ]
    .into_iter()
    .find_map(|(sign, result)| rest.strip_prefix(sign).map(|operand| (result, operand)))
    .unwrap();
    let number = || operand.parse().unwrap();
    let target = match target {
        "version" => CompareTarget::Version(number()),
        "create" => CompareTarget::CreateRevision(number()),
        "mod" => CompareTarget::ModRevision(number()),
        "lease" => CompareTarget::Lease(number()),
        "value" => CompareTarget::Value(bytes(operand)),
        _ => panic!("compare {target}?"),
    };
    Compare { range: parse_range(range), result, target }
}

/// Reads `if COMPARE ... then { OP ; OP } else { OP }`, each part optional.
fn txn(words: &mut Words<'_>) -> Txn {
    let mut txn = Txn::default();
    if words.next_if_eq(&"if").is_some() {
        while let Some(word) = words.next_if(|word| word.contains('(')) {
            txn.compare.push(compare(word));
        }
    }
    if words.next_if_eq(&"then").is_some() {
        txn.success = ops(words);
    }
    if words.next_if_eq(&"else").is_some() {
        txn.failure = ops(words);
    }
    txn
}

fn ops(words: &mut Words<'_>) -> Vec<Op> {
    assert_eq!(words.next(), Some("{"));
    let mut ops = Vec::new();
    loop {
        match words.next().expect("a closing }") {
            "}" => return ops,
            ";" => {}
            "put" => ops.push(Op::Put(put(words))),
            "delete" => ops.push(Op::DeleteRange(delete(words))),
            "txn" => ops.push(Op::Txn(txn(words))),
            word => ops.push(Op::Range(query(word, words))),
        }
    }
}

/// Reads a transaction as scripts write it.
pub(crate) fn parse_txn(script: &str) -> Txn {
    let mut words = script.split_whitespace().peekable();
    let parsed = txn(&mut words);
    assert_eq!(words.next(), None, "left over in {script}");
    parsed
}

pub(super) fn command(word: &str, words: &mut Words<'_>) -> Command {
    let number = |word: Option<&str>| -> i64 {
        let word = word.expect("a number");
        word.split_once('=').map_or(word, |(_, number)| number).parse().unwrap()
    };
    let mut name = || words.next().map(|word| if word == "\"\"" { String::new() } else { word.to_owned() });
    match word {
        "noop" => Command::Noop,
        "put" => Command::Put(put(words)),
        "delete" => Command::DeleteRange(delete(words)),
        "txn" => Command::Txn(txn(words)),
        "compact" => Command::Compact(Compact { revision: number(words.next()) }),
        "grant" => Command::LeaseGrant(LeaseGrant { id: number(words.next()), ttl_s: number(words.next()) }),
        "revoke" => Command::LeaseRevoke(LeaseRevoke { id: number(words.next()) }),
        "expire" => Command::LeaseExpire(LeaseExpire {
            term: number(words.next()) as u64,
            ids: words.map(|word| word.parse().unwrap()).collect(),
        }),
        "checkpoint" => Command::LeaseCheckpoint(LeaseCheckpoint {
            leases: vec![LeaseRemaining { id: number(words.next()), remaining_s: number(words.next()) }],
        }),
        "alarm" => {
            let action = match words.next() {
                Some("on") => AlarmAction::Activate,
                _ => AlarmAction::Deactivate,
            };
            let kind = match words.next() {
                Some("nospace") => Some(AlarmKind::NoSpace),
                Some("corrupt") => Some(AlarmKind::Corrupt),
                _ => None,
            };
            Command::Alarm(AlarmCommand { action, member: number(words.next()) as u64, kind })
        }
        "enable" => Command::Auth(AuthCommand::Enable),
        "disable" => Command::Auth(AuthCommand::Disable),
        "user-add" => Command::Auth(AuthCommand::UserAdd {
            name: name().unwrap(),
            password_hash: Bytes::from_static(b"hash"),
            no_password: false,
        }),
        "user-delete" => Command::Auth(AuthCommand::UserDelete { name: name().unwrap() }),
        "user-password" => Command::Auth(AuthCommand::UserChangePassword {
            name: name().unwrap(),
            password_hash: bytes(&name().unwrap()),
        }),
        "user-grant" => {
            Command::Auth(AuthCommand::UserGrantRole { user: name().unwrap(), role: name().unwrap() })
        }
        "user-revoke" => {
            Command::Auth(AuthCommand::UserRevokeRole { user: name().unwrap(), role: name().unwrap() })
        }
        "role-add" => Command::Auth(AuthCommand::RoleAdd { name: name().unwrap() }),
        "role-delete" => Command::Auth(AuthCommand::RoleDelete { name: name().unwrap() }),
        "role-grant" => {
            let role = name().unwrap();
            let access = match words.next().unwrap() {
                "read" => Access::Read,
                "write" => Access::Write,
                _ => Access::ReadWrite,
            };
            let range = parse_range(words.next().unwrap());
            Command::Auth(AuthCommand::RoleGrantPermission { role, permission: Permission { access, range } })
        }
        "role-revoke" => {
            let role = name().unwrap();
            let range = parse_range(words.next().unwrap());
            Command::Auth(AuthCommand::RoleRevokePermission { role, range })
        }
        "login" => {
            let name = name().unwrap();
            let (token, auth_revision) = (words.next().unwrap().as_bytes()[0], number(words.next()) as u64);
            Command::Auth(AuthCommand::Token { name, digest: [token; 32], auth_revision })
        }
        "member" => Command::MemberAttributes(MemberAttributes {
            member: number(words.next()) as u64,
            name: words.next().unwrap().to_owned(),
            client_urls: words.map(str::to_owned).collect(),
        }),
        "cluster-version" => Command::ClusterVersion(ClusterVersion { version: name().unwrap() }),
        _ => panic!("command {word}?"),
    }
}
