//! The script language: one line is `command -> what it tells`.
//!
//! ```text
//! put K V [lease=N] [prev] [ignore-value] [ignore-lease]     revision N[, was K=V@REV | was none]
//! delete K[..END] [prev]                                     deleted N, revision N[, was ...]
//! get K [@REV]                                               V | none
//! show K [@REV]                                              K=V create N mod N version N lease N | none
//! range K..END [@REV] [limit=N] [sort=TARGET] [desc] [keys] [count] [min-mod=N] ...      K=V ... count N[ more]
//! txn if COMPARE ... then { OP ; OP } else { OP }            then: OUT ; OUT, revision N
//!     COMPARE: version(K)=N create(K)<N mod(K)>N lease(K)=N value(K..END)!=V
//! compact REV | grant ID ttl=N | revoke ID | expire term=N ID ... | checkpoint ID remaining=N
//! lease ID | leases | events REV [prev] | alarm on|off KIND MEMBER | alarms | enable | disable | user ... | role ...
//! as USER COMMAND (with the current auth revision), as USER@REV COMMAND, as nobody COMMAND
//! hashkv [@REV] remembers the first answer for that revision and must be told `same`
//! login USER T auth-revision=N (T is one letter) | token T
//! finish-compaction | restart | revision
//! ```
//! `K..` is from K to the end, `K*` all keys with that prefix; `""` is the empty string. Each script also ends on the
//! same state hash whatever the schedule was.

mod parse;

use mvcc::*;
use parse::{Words, command, query};
pub(crate) use parse::{parse_range, parse_txn};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The term of every entry that a script applies.
const TERM: u64 = 5;

/// When rows leave the store and garbage goes, while a script runs.
#[derive(Clone, Copy, Debug)]
enum Schedule {
    /// Everything stays in memory.
    Never,
    /// After each line.
    FlushAlways,
    /// Rows are taken after each line, but the store is told a line later.
    FlushLate,
    /// Flush and one small compaction step after each line.
    StepAlways,
    /// The store is built anew from its rows after each line.
    RestartAlways,
}

/// Runs the script on every schedule.
pub(crate) fn check(script: &str) {
    let schedules = [
        Schedule::Never,
        Schedule::FlushAlways,
        Schedule::FlushLate,
        Schedule::StepAlways,
        Schedule::RestartAlways,
    ];
    let hashes: Vec<u64> = schedules.iter().map(|schedule| Machine::new(*schedule).run(script)).collect();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "state hashes of {schedules:?}: {hashes:x?}");
}

pub(crate) struct Machine {
    schedule: Schedule,
    pub(crate) store: Store,
    pub(crate) disk: MemoryRecords,
    untold: Option<Revision>,
    hashes: BTreeMap<i64, HashKv>,
}

impl Machine {
    fn new(schedule: Schedule) -> Machine {
        Machine {
            schedule,
            store: Store::new(Limits::default()),
            disk: MemoryRecords::default(),
            untold: None,
            hashes: BTreeMap::new(),
        }
    }

    /// A machine that never flushes or restarts by itself.
    pub(crate) fn quiet() -> Machine {
        Machine::new(Schedule::Never)
    }

    pub(crate) fn run(&mut self, script: &str) -> u64 {
        for (number, line) in script.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let (command, expected) = line.split_once("->").unwrap_or_else(|| panic!("no -> in {line}"));
            let told = self.line(command.trim());
            let (line, schedule) = (number + 1, self.schedule);
            assert_eq!(told, expected.trim(), "line {line} ({command}), schedule {schedule:?}");
            self.between_lines();
        }
        self.store.state_hash()
    }

    fn between_lines(&mut self) {
        match self.schedule {
            Schedule::Never => {}
            Schedule::FlushAlways => self.flush(),
            Schedule::FlushLate => {
                if let Some(upto) = self.untold.take() {
                    self.store.flushed(upto);
                }
                self.untold = self.disk.write(self.store.take_rows());
            }
            Schedule::StepAlways => {
                self.store.compact_step(1);
                self.flush();
            }
            Schedule::RestartAlways => self.restart(),
        }
    }

    pub(crate) fn flush(&mut self) {
        let told = self.disk.write(self.store.take_rows());
        if let Some(upto) = told.or(self.untold.take()) {
            self.store.flushed(upto);
        }
    }

    pub(crate) fn restart(&mut self) {
        self.flush();
        let meta = self.disk.meta.clone().into_iter().map(Ok);
        let records = self.disk.records.clone().into_iter().map(Ok);
        let hash = self.store.state_hash();
        self.store = Store::restore(Limits::default(), meta, records).unwrap();
        self.untold = None;
        assert_eq!(self.store.state_hash(), hash, "state hash after a restart");
    }

    fn line(&mut self, line: &str) -> String {
        let mut words = line.split_whitespace().peekable();
        let mut caller = Caller::System;
        if words.peek() == Some(&"as") {
            words.next();
            caller = self.caller(words.next().unwrap());
        }
        let word = words.next().unwrap();
        match word {
            "get" | "show" | "range" => {
                let query = query(word, &mut words);
                if let Err(error) = self.store.authorize(&caller, Operation::Range(&query)) {
                    return format!("error: {error}");
                }
                match self.store.range(&self.disk, &query) {
                    Ok(reply) => tell_range(word, &reply),
                    Err(error) => format!("error: {error}"),
                }
            }
            "events" => self.events(&mut words),
            "hashkv" => self.hash_kv(words.next()),
            "revision" => self.store.revision().to_string(),
            "compacted" => self.store.compact_revision().to_string(),
            "alarms" => {
                list(self.store.alarms().iter().map(|alarm| format!("{:?} {}", alarm.kind, alarm.member)))
            }
            "leases" => list(
                self.store
                    .leases()
                    .map(|lease| format!("{} ttl {} remaining {}", lease.id, lease.ttl_s, lease.remaining_s)),
            ),
            "lease" => match self.store.lease(words.next().unwrap().parse().unwrap()) {
                Some(lease) => {
                    format!("ttl {} keys {}", lease.ttl_s, list(lease.keys.iter().map(|key| text(key))))
                }
                None => "none".to_owned(),
            },
            "users" => list(self.store.users().iter().map(|name| {
                let user = self.store.user(name).unwrap();
                format!("{name}({})", user.roles.join(" "))
            })),
            "role-get" => match self.store.role(words.next().unwrap()) {
                Some(role) => list(role.permissions.iter().map(|permission| {
                    let (key, end) = permission.range.to_wire();
                    format!("{:?} {}..{}", permission.access, text(&key), text(&end))
                })),
                None => "none".to_owned(),
            },
            "token" => match self.store.token(&[words.next().unwrap().as_bytes()[0]; 32]) {
                Some(token) => token.name.clone(),
                None => "none".to_owned(),
            },
            "auth-revision" => self.store.auth_revision().to_string(),
            "may" => self.may(&caller, &mut words),
            "finish-compaction" => {
                while self.store.compact_step(2) {}
                "ok".to_owned()
            }
            "restart" => {
                self.restart();
                "ok".to_owned()
            }
            "size" => self.store.size_bytes_in_use().to_string(),
            "keys" => self.store.key_count().to_string(),
            _ => {
                let command = command(word, &mut words);
                assert_eq!(words.next(), None, "left over in {line}");
                self.apply(caller, command)
            }
        }
    }

    fn apply(&mut self, caller: Caller, command: Command) -> String {
        // Every command passes through its bytes, as in the log.
        let proposal = Proposal { id: 1, member: 1, caller, command };
        let mut bytes = Vec::new();
        proposal.encode(&mut bytes);
        let proposal = Proposal::decode(bytes.into()).unwrap();
        let before = self.store.revision();
        let applied = self.store.apply(&self.disk, TERM, &proposal);
        assert_eq!(applied.revision, self.store.revision());
        match applied.result {
            Ok(reply) => tell_reply(&reply, applied.revision),
            Err(error) => {
                assert_eq!(applied.revision, before, "a refused command changed something");
                format!("error: {error}")
            }
        }
    }

    fn caller(&self, word: &str) -> Caller {
        match word.split_once('@') {
            _ if word == "nobody" => Caller::Anonymous,
            Some((name, revision)) => {
                Caller::User { name: name.to_owned(), auth_revision: revision.parse().unwrap() }
            }
            None => Caller::User { name: word.to_owned(), auth_revision: self.store.auth_revision() },
        }
    }

    /// Asks about operations that are not commands.
    fn may(&self, caller: &Caller, words: &mut Words<'_>) -> String {
        let (what, name) = (words.next().unwrap(), words.next().unwrap_or_default());
        let range = parse_range(name);
        let id = name.parse().unwrap_or(0);
        let operation = match what {
            "watch" => Operation::Watch(&range),
            "keep-alive" => Operation::LeaseKeepAlive { id },
            "time-to-live" => Operation::LeaseTimeToLive { id, keys: false },
            "time-to-live-keys" => Operation::LeaseTimeToLive { id, keys: true },
            "leases" => Operation::LeaseLeases,
            "alarm-list" => Operation::AlarmList,
            "status" => Operation::Status,
            "member-list" => Operation::MemberList,
            "member-change" => Operation::MemberChange,
            "auth-status" => Operation::AuthStatus,
            "user-get" => Operation::UserGet { name },
            "user-list" => Operation::UserList,
            "role-get" => Operation::RoleGet { name },
            "role-list" => Operation::RoleList,
            "maintenance" => Operation::Maintenance,
            _ => panic!("may {what}?"),
        };
        match self.store.authorize(caller, operation) {
            Ok(()) => "yes".to_owned(),
            Err(error) => format!("error: {error}"),
        }
    }

    fn events(&self, words: &mut Words<'_>) -> String {
        let from = words.next().unwrap().parse().unwrap();
        let with_previous = words.next() == Some("prev");
        // Small bounds, so that history is told in many pieces.
        let bound = EventsBound { revisions_max: 2, size_bytes_max: 1 << 20 };
        let (mut told, mut from): (Vec<String>, i64) = (Vec::new(), from);
        loop {
            let batches = match self.store.events(&self.disk, from, bound) {
                Ok(batches) => batches,
                Err(error) => return format!("error: {error}"),
            };
            let Some(last) = batches.last() else { return list(told.into_iter()) };
            from = last.revision + 1;
            for batch in batches {
                let mut line = format!("{}:", batch.revision);
                for event in &batch.events {
                    let kv = &event.kv;
                    assert_eq!(kv.mod_revision, batch.revision);
                    match event.kind {
                        EventKind::Put => write!(line, " {}={}", text(&kv.key), text(&kv.value)).unwrap(),
                        EventKind::Delete => {
                            assert_eq!((kv.version, kv.create_revision, kv.lease), (0, 0, 0));
                            write!(line, " -{}", text(&kv.key)).unwrap();
                        }
                    }
                    if with_previous {
                        let previous = self.store.previous(&self.disk, event).unwrap();
                        let value = previous.map_or("none".to_owned(), |kv| text(&kv.value));
                        write!(line, "(was {value})").unwrap();
                    }
                }
                told.push(line);
            }
        }
    }

    fn hash_kv(&mut self, at: Option<&str>) -> String {
        let revision = at.map_or(0, |word| word.trim_start_matches('@').parse().unwrap());
        match self.store.hash_kv(&self.disk, revision) {
            Ok(hash) => {
                let first = self.hashes.entry(hash.hash_revision).or_insert(hash);
                if *first == hash { "same".to_owned() } else { format!("{hash:?}, was {first:?}") }
            }
            Err(error) => format!("error: {error}"),
        }
    }
}

pub(crate) fn list(items: impl Iterator<Item = String>) -> String {
    let joined = items.collect::<Vec<_>>().join(", ");
    if joined.is_empty() { "none".to_owned() } else { joined }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    match bytes {
        b"" => "\"\"".to_owned(),
        b"\0" => "\\0".to_owned(),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

fn tell_reply(reply: &Reply, revision: i64) -> String {
    match reply {
        Reply::Put(put) => format!("revision {revision}{}", tell_was(put.prev.as_slice())),
        Reply::DeleteRange(delete) => {
            format!("deleted {}, revision {revision}{}", delete.deleted, tell_was(&delete.prev_kvs))
        }
        Reply::Txn(txn) => format!("{}, revision {revision}", tell_txn(txn)),
        Reply::LeaseGrant(grant) => format!("lease {} ttl {}", grant.id, grant.ttl_s),
        Reply::LeaseExpire(ids) => {
            format!("expired {}, revision {revision}", list(ids.iter().map(i64::to_string)))
        }
        Reply::LeaseRevoke => format!("revision {revision}"),
        Reply::LeaseCheckpoint(leases) => format!("{} changed", leases.len()),
        Reply::Alarm(alarms) => list(alarms.iter().map(|alarm| format!("{:?} {}", alarm.kind, alarm.member))),
        Reply::Noop | Reply::Compact | Reply::Auth | Reply::MemberAttributes | Reply::ClusterVersion => {
            "ok".to_owned()
        }
    }
}

fn tell_was(prev: &[KeyValue]) -> String {
    prev.iter().fold(String::new(), |mut told, kv| {
        write!(told, ", was {}={}@{}", text(&kv.key), text(&kv.value), kv.mod_revision).unwrap();
        told
    })
}

fn tell_txn(txn: &TxnReply) -> String {
    let branch = if txn.succeeded { "then" } else { "else" };
    let responses = txn.responses.iter().map(|response| match response {
        OpReply::Range(range) => format!("{} at {}", tell_range("range", range), range.revision),
        OpReply::Put(put) => format!("put at {}{}", put.revision, tell_was(put.prev.as_slice())),
        OpReply::DeleteRange(delete) => {
            format!("deleted {} at {}{}", delete.deleted, delete.revision, tell_was(&delete.prev_kvs))
        }
        OpReply::Txn(nested) => format!("({})", tell_txn(nested)),
    });
    format!("{branch}: {}", responses.collect::<Vec<_>>().join(" ; ")).trim_end().to_owned()
}

fn tell_range(word: &str, reply: &RangeReply) -> String {
    match word {
        "get" => reply.kvs.first().map_or("none".to_owned(), |kv| text(&kv.value)),
        "show" => reply.kvs.first().map_or("none".to_owned(), |kv| {
            let KeyValue { key, value, create_revision, mod_revision, version, lease } = kv;
            format!(
                "{}={} create {create_revision} mod {mod_revision} version {version} lease {lease}",
                text(key),
                text(value)
            )
        }),
        _ => {
            let mut told = String::new();
            for kv in &reply.kvs {
                write!(told, "{}={} ", text(&kv.key), text(&kv.value)).unwrap();
            }
            write!(told, "count {}{}", reply.count, if reply.more { " more" } else { "" }).unwrap();
            told
        }
    }
}
