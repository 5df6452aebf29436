//! The log, the key space and what members tell each other.

use std::path::Path;

use bytes::Bytes;
use mvcc::{
    Access, AlarmAction, AlarmCommand, AlarmKind, AlarmMember, AuthCommand, Caller, Command, Compare,
    CompareResult, CompareTarget, DeleteRange, KeyRange, LeaseTime, Limits, Op, Permission, Proposal, Put,
    RangeQuery, Revision, RoleView, Row, Saved, SavedRecord, SortOrder, SortTarget, Store, Txn, UserView,
};
use wal::Disk as _;
use wal::sim_disk::SimDisk;

use super::{Decoder, Target};

const DIR: &str = "/log";
const SEGMENT: &str = "/log/wal-0000000000000001";

pub(super) fn targets() -> Vec<Target> {
    let base = Target::default();
    let mut targets = vec![
        Target {
            name: "command",
            samples: || proposals().iter().map(|proposal| command_bytes(&proposal.command)).collect(),
            decoder: Decoder::Encodes(|input| Some(command_bytes(&Command::decode(own(input)).ok()?))),
            // An operation of three bytes is some two hundred here, in lists that grow by doubling.
            allocation_factor: 256,
            ..base.clone()
        },
        Target {
            name: "proposal",
            samples: || proposals().iter().map(proposal_bytes).collect(),
            decoder: Decoder::Encodes(|input| Some(proposal_bytes(&Proposal::decode(own(input)).ok()?))),
            allocation_factor: 256,
            ..base.clone()
        },
        Target {
            name: "row of the key space",
            samples: || rows().iter().filter_map(meta_bytes).collect(),
            decoder: Decoder::Encodes(|input| {
                let at = input.iter().position(|byte| *byte == b'=')?;
                let saved = Saved::from_row(&input[..at], own(&input[at + 1..])).ok()?;
                // Names may have any byte in them.
                meta_bytes(&saved.into_row())
                    .filter(|row| row.iter().position(|byte| *byte == b'=') == Some(at))
            }),
            ..base.clone()
        },
        Target {
            name: "record",
            samples: || rows().iter().filter_map(record_bytes).collect(),
            decoder: Decoder::Encodes(|input| {
                let revision = Revision { main: 2, sub: 0 };
                record_bytes(&SavedRecord::from_bytes(revision, &own(input)).ok()?.to_row())
            }),
            repair: Some(|input| repair_record(input, Revision { main: 2, sub: 0 })),
            ..base.clone()
        },
        Target {
            name: "key space",
            samples: || vec![replica::fuzzing::snapshot_row_bytes(&rows())],
            decoder: Decoder::Judges(restores),
            repair: Some(|input| {
                let Some(mut rows) = replica::fuzzing::snapshot_rows(input) else { return };
                for row in &mut rows {
                    if let Row::Record(revision, bytes) = row {
                        let mut record = bytes.to_vec();
                        repair_record(&mut record, *revision);
                        *bytes = record.into();
                    }
                }
                *input = replica::fuzzing::snapshot_row_bytes(&rows);
            }),
            // A row of nothing has a few bytes there and some tens here, in lists that grow by doubling.
            allocation_factor: 64,
            ..base.clone()
        },
        Target {
            name: "header of a segment",
            samples: || vec![segment()[..128].to_vec()],
            decoder: Decoder::Encodes(wal::fuzzing::header),
            repair: Some(|input| wal::fuzzing::repair_segment(input)),
            ..base.clone()
        },
        Target {
            name: "note about lost data",
            samples: || vec![wal::fuzzing::sample_note()],
            decoder: Decoder::Encodes(wal::fuzzing::note),
            ..base.clone()
        },
        Target {
            name: "segment",
            samples: || vec![segment()],
            decoder: Decoder::Judges(opens),
            repair: Some(|input| wal::fuzzing::repair_segment(input)),
            // The window through which it is read, and the copies that the simulated disk keeps.
            allocation_bytes: 8 << 20,
            ..base.clone()
        },
    ];
    targets.extend(replica::fuzzing::TARGETS.iter().map(|(name, samples, decode)| Target {
        name,
        samples: *samples,
        decoder: Decoder::Encodes(*decode),
        // Where bincode is at work it makes room for what a length says, up to its limit.
        allocation_bytes: 64 << 20,
        ..base.clone()
    }));
    targets
}

fn own(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn command_bytes(command: &Command) -> Vec<u8> {
    let mut out = Vec::new();
    command.encode(&mut out);
    out
}

fn proposal_bytes(proposal: &Proposal) -> Vec<u8> {
    let mut out = Vec::new();
    proposal.encode(&mut out);
    out
}

/// The key, `=`, the value.
fn meta_bytes(row: &Row) -> Option<Vec<u8>> {
    match row {
        Row::Meta(key, value) => Some([&key[..], b"=", &value[..]].concat()),
        Row::Record(..) | Row::DeleteRecord(_) | Row::DeleteMeta(_) => None,
    }
}

fn record_bytes(row: &Row) -> Option<Vec<u8>> {
    match row {
        Row::Record(_, bytes) => Some(bytes.to_vec()),
        Row::Meta(..) | Row::DeleteRecord(_) | Row::DeleteMeta(_) => None,
    }
}

/// Makes it a record of that place, with the checksum of its bytes.
fn repair_record(record: &mut [u8], revision: Revision) {
    if record.len() >= 22 {
        record[6..14].copy_from_slice(&revision.main.to_le_bytes());
        record[14..22].copy_from_slice(&revision.sub.to_le_bytes());
        let checksum = crc32c::crc32c(&record[4..]);
        record[..4].copy_from_slice(&checksum.to_le_bytes());
    }
}

fn restores(input: &[u8]) -> bool {
    let Some(rows) = replica::fuzzing::snapshot_rows(input) else { return false };
    let (mut meta, mut records) = (Vec::new(), Vec::new());
    for row in rows {
        match row {
            Row::Meta(key, value) => meta.push(Ok((key, value))),
            Row::Record(revision, bytes) => records.push(Ok((revision, bytes))),
            Row::DeleteRecord(_) | Row::DeleteMeta(_) => {}
        }
    }
    Store::restore(Limits::default(), meta.into_iter(), records.into_iter()).is_ok()
}

/// What a store writes that has been used for everything. Its only record is at revision 2.0.
fn rows() -> Vec<Row> {
    let mut store = Store::new(Limits::default());
    let disk = mvcc::MemoryRecords::default();
    for (term, proposal) in (1..).zip(proposals()) {
        // Refused or not, it leaves rows or none.
        drop(store.apply(&disk, term, &proposal));
    }
    let mut rows: Vec<Row> =
        store.take_rows().into_iter().filter(|row| !matches!(row, Row::Record(..))).collect();
    let user = UserView {
        name: "ana".to_owned(),
        password_hash: Bytes::from_static(b"hash"),
        no_password: false,
        roles: vec!["r".to_owned()],
    };
    let permission = Permission { access: Access::ReadWrite, range: KeyRange::prefix("a") };
    let saved = [
        Saved::Revision(7),
        Saved::Restored(6),
        Saved::CompactScheduled(1),
        Saved::CompactFinished(1),
        Saved::Lease(LeaseTime { id: 4, ttl_s: 3, remaining_s: 2 }),
        Saved::Alarm(AlarmMember { member: 1, kind: AlarmKind::NoSpace }),
        Saved::Auth { enabled: true, revision: 9 },
        Saved::User(user),
        Saved::Role(RoleView { name: "r".to_owned(), permissions: vec![permission] }),
        Saved::ClusterVersion("3.6.0".to_owned()),
    ];
    rows.retain(|row| matches!(row, Row::Meta(key, _) if key.starts_with(b"member/")));
    rows.extend(saved.into_iter().map(Saved::into_row));
    let kv = mvcc::KeyValue {
        key: Bytes::from_static(b"key"),
        value: Bytes::from_static(b"value"),
        create_revision: 2,
        mod_revision: 2,
        version: 1,
        lease: 4,
    };
    rows.push(SavedRecord { revision: Revision { main: 2, sub: 0 }, is_delete: false, kv }.to_row());
    rows
}

/// One of every kind of command.
fn proposals() -> Vec<Proposal> {
    let key = |text: &'static str| KeyRange::Key(Bytes::from_static(text.as_bytes()));
    let put = Put { key: Bytes::from_static(b"key"), value: Bytes::from_static(b"value"), ..Put::default() };
    let query = RangeQuery {
        limit: 500,
        sort: Some((SortTarget::Mod, SortOrder::Descend)),
        max_mod_revision: 9,
        ..RangeQuery::latest(KeyRange::prefix("a"))
    };
    let compare = |target| Compare { range: key("a"), result: CompareResult::Equal, target };
    let nested = Txn {
        compare: vec![
            compare(CompareTarget::Lease(7)),
            compare(CompareTarget::Value(Bytes::from_static(b"v"))),
        ],
        success: vec![
            Op::Range(query),
            Op::DeleteRange(DeleteRange { range: KeyRange::all(), prev_kv: true }),
        ],
        failure: Vec::new(),
    };
    let txn = Txn {
        compare: vec![compare(CompareTarget::Version(1)), compare(CompareTarget::ModRevision(i64::MAX))],
        success: vec![Op::Put(put.clone()), Op::Txn(nested.clone())],
        failure: vec![Op::Txn(Txn { success: vec![Op::Txn(nested)], ..Txn::default() })],
    };
    let name = |text: &str| text.to_owned();
    let permission = Permission { access: Access::Write, range: KeyRange::prefix("a") };
    let commands = vec![
        Command::Noop,
        Command::Put(put),
        Command::DeleteRange(DeleteRange { range: KeyRange::all(), prev_kv: true }),
        Command::Txn(txn),
        Command::Compact(mvcc::Compact { revision: 300 }),
        Command::LeaseGrant(mvcc::LeaseGrant { id: -1, ttl_s: 60 }),
        Command::LeaseRevoke(mvcc::LeaseRevoke { id: 7 }),
        Command::LeaseExpire(mvcc::LeaseExpire { ids: vec![7, 8], term: 5 }),
        Command::LeaseCheckpoint(mvcc::LeaseCheckpoint {
            leases: vec![mvcc::LeaseRemaining { id: 7, remaining_s: 20 }],
        }),
        Command::Alarm(AlarmCommand {
            action: AlarmAction::Activate,
            member: 9,
            kind: Some(AlarmKind::NoSpace),
        }),
        Command::Auth(AuthCommand::UserAdd {
            name: name("u"),
            password_hash: Bytes::from_static(b"h"),
            no_password: true,
        }),
        Command::Auth(AuthCommand::UserGrantRole { user: name("u"), role: name("r") }),
        Command::Auth(AuthCommand::RoleGrantPermission { role: name("r"), permission }),
        Command::MemberAttributes(mvcc::MemberAttributes {
            member: 200,
            name: name("m"),
            client_urls: vec![name("http://127.0.0.1:2379")],
        }),
        Command::ClusterVersion(mvcc::ClusterVersion { version: name("3.6.0") }),
    ];
    let callers = [Caller::System, Caller::Anonymous, Caller::User { name: name("ana"), auth_revision: 7 }];
    let callers = callers.into_iter().cycle();
    let proposals = (1..).zip(commands).zip(callers);
    proposals.map(|((id, command), caller)| Proposal { id, member: 1 << 40, caller, command }).collect()
}

fn config() -> wal::Config {
    wal::Config { segment_size_bytes: 4096, salt: 77, ..wal::Config::new(DIR) }
}

/// The file of a log with a few entries and marks in it.
fn segment() -> Vec<u8> {
    let disk = SimDisk::new();
    let Ok((log, mut owner, _)) = wal::open_inline(config(), disk.clone()) else { return Vec::new() };
    for index in 1..=3 {
        let payload = Bytes::from(vec![b'x'; 40 * index as usize]);
        log.append(vec![wal::Entry { term: 1, index, payload }], Box::new(drop));
        log.save_vote(Bytes::from_static(b"vote"), Box::new(drop));
        log.save_committed(Bytes::from_static(b"committed"));
        while owner.step() {}
    }
    log.truncate(3, Box::new(drop));
    while owner.step() {}
    let Ok(file) = disk.open(Path::new(SEGMENT)) else { return Vec::new() };
    let mut bytes = vec![0; file.size_bytes().unwrap_or(0) as usize];
    let read = file.read_at(&mut bytes, 0).unwrap_or(0);
    bytes.truncate(read.min(1024));
    bytes
}

/// Opens a log whose only segment is this file.
fn opens(input: &[u8]) -> bool {
    let disk = SimDisk::new();
    let write = || -> std::io::Result<()> {
        disk.create_directory(Path::new(DIR))?;
        let file = disk.create(Path::new(SEGMENT))?;
        let mut written = 0;
        while written < input.len() {
            written += file.write_at(&input[written..], written as u64)?;
        }
        disk.sync_directory(Path::new(DIR))
    };
    write().is_ok() && wal::open_inline(config(), disk).is_ok()
}
