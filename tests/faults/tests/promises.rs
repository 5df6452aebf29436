//! The checkers of watches, old reads, leases and locks: they accept what a correct store could have said, and find each
//! kind of lie.
//!
//! One correct history is written out by hand; each lie changes it in one place.

#![expect(clippy::unwrap_used, reason = "a test")]

use faults::history::{Answer, Entry, LEASED, Operation, Outcome, Request};
use faults::images::{self, Image};
use faults::leases::{self, Lease};
use faults::linear;
use faults::locks::{self, COUNTER, Section};
use faults::log::{Change, Log};
use faults::stale::{self, Read, Started};
use faults::watch::{self, Event, Progress, Stream};

const SECOND: u64 = 1_000_000_000;
const LOCK_A: u32 = 1_000_001;
const LOCK_B: u32 = 1_000_002;
const ONE: u32 = LEASED + 1;
const TWO: u32 = LEASED + 2;

struct History {
    log: Log,
    stream: Stream,
    reads: Vec<Read>,
    starts: Vec<Started>,
    leases: Vec<Lease>,
    sections: Vec<Section>,
}

/// revision: 2 put 1, 3 put 1 again, 4 and 5 keys of two leases, 6 lock A, 7 counter 1, 8 lock A is given
/// back, 9 lock B, 10 counter 2, 11 delete 1, 12 both leases end at once.
fn correct() -> History {
    let change = |revision, key, value| Change { revision, key, value };
    let changes = vec![
        change(2, 1, Some(11)),
        change(3, 1, Some(12)),
        change(4, ONE, Some(13)),
        change(5, TWO, Some(14)),
        change(6, LOCK_A, Some(0)),
        change(7, COUNTER, Some(1)),
        change(8, LOCK_A, None),
        change(9, LOCK_B, Some(0)),
        change(10, COUNTER, Some(2)),
        change(11, 1, None),
        change(12, ONE, None),
        change(12, TWO, None),
    ];
    let log = Log::new(changes.clone()).unwrap();
    let event = |change: &Change| {
        let entry = log.entry(change.key, change.revision);
        Event {
            revision: change.revision,
            key: change.key,
            value: change.value,
            create_revision: entry.map_or(0, |entry| entry.create_revision),
            version: entry.map_or(0, |entry| entry.version),
            previous: log.entry(change.key, change.revision - 1),
            response: change.revision.unsigned_abs(),
            arrived_ns: change.revision.unsigned_abs() * SECOND,
        }
    };
    let stream = Stream {
        events: changes.iter().map(event).collect(),
        progress: vec![Progress { revision: 3, events: 2 }, Progress { revision: 12, events: 12 }],
    };
    let read = |call_s: u64, at, revision| Read {
        client: 0,
        member: 0,
        call_ns: call_s * SECOND,
        return_ns: call_s * SECOND + 1,
        key: 1,
        at,
        revision,
        entry: log.entry(1, at.unwrap_or(revision)),
    };
    let reads = vec![read(1, None, 2), read(2, None, 3), read(3, Some(2), 6), read(4, None, 11)];
    let lease = |id, key, put_revision| Lease {
        id,
        key,
        ttl_s: 4,
        renewals_asked_ns: vec![3 * SECOND, 7 * SECOND],
        put_revision: Some(put_revision),
        revoke_asked_ns: None,
        revoked: None,
    };
    let section = |client, lock, locked_revision, read, written| Section {
        client,
        member: 0,
        lock,
        locked_revision,
        entered_ns: 0,
        left_ns: 1,
        read,
        written_revision: Some(written),
    };
    History {
        leases: vec![lease(1, ONE, 4), lease(2, TWO, 5)],
        sections: vec![section(0, LOCK_A, 6, 0, 7), section(1, LOCK_B, 9, 1, 10)],
        starts: Vec::new(),
        log,
        stream,
        reads,
    }
}

fn judge(history: &History) -> [(&'static str, Result<usize, String>); 4] {
    let History { log, stream, reads, starts, leases, sections } = history;
    let streams = std::slice::from_ref(stream);
    let sentence = |result: Result<usize, faults::history::Violation>| result.map_err(|bad| bad.sentence);
    [
        ("WAT", sentence(watch::check(log, streams))),
        ("SER", sentence(stale::check(log, reads, starts))),
        ("LEA", sentence(leases::check(log, streams, leases, 1.0))),
        ("LOC", sentence(locks::check(log, sections))),
    ]
}

#[test]
fn what_a_correct_store_says_is_accepted() {
    let checked = judge(&correct()).map(|(checker, result)| (checker, result.unwrap()));
    assert_eq!(checked, [("WAT", 12), ("SER", 4), ("LEA", 2), ("LOC", 2)]);
}

type Lie = fn(&mut History);

#[test]
fn each_lie_is_found_by_the_checker_that_is_there_for_it() {
    let lies: [(&str, &str, &str, Lie); 16] = [
        ("previous value", "WAT", "says that before it the key was absent", |history| {
            history.stream.events[1].previous = None;
        }),
        ("version", "WAT", "but the log has", |history| history.stream.events[1].version += 1),
        ("creation", "WAT", "but the log has", |history| history.stream.events[1].create_revision += 1),
        ("a step in two responses", "WAT", "tore revision", |history| {
            history.stream.events[11].response += 1;
        }),
        ("progress ahead of events", "WAT", "was delivered, then came", |history| {
            history.stream.progress[0].revision = 4;
        }),
        ("an old value at a new revision", "SER", "the key is", |history| {
            history.reads[3].entry = history.reads[0].entry;
        }),
        ("a revision that never was", "SER", "no member told of", |history| history.reads[3].revision = 40),
        ("back in time", "SER", "go back", |history| history.reads.swap(1, 0)),
        ("a past read from the future", "SER", "did not have", |history| history.reads[2].revision = 1),
        ("a lease that ends early", "LEA", "nobody had revoked it", |history| {
            history.leases[0].renewals_asked_ns.push(9 * SECOND);
        }),
        ("a revocation asked afterwards excuses nothing", "LEA", "nobody had revoked it", |history| {
            history.leases[0].renewals_asked_ns.push(9 * SECOND);
            history.leases[0].revoke_asked_ns = Some(13 * SECOND);
        }),
        ("a revoked lease whose key stays", "LEA", "still there at revision", |history| {
            history.leases[0].revoke_asked_ns = Some(8 * SECOND);
            history.leases[0].revoked = Some((9 * SECOND, 10));
        }),
        ("a lease that never ends", "LEA", "still there", |history| {
            let kept = history.log.changes().iter().filter(|change| change.revision < 12);
            history.log = Log::new(kept.copied().collect()).unwrap();
        }),
        ("two sections read the same", "LOC", "acknowledged, but the log has", |history| {
            history.sections[1].read = 0;
        }),
        ("a write without the lock", "LOC", "without its lock", |history| history.sections[1].lock = LOCK_A),
        ("a lock given while it is held", "LOC", "two sections at once", |history| {
            history.sections[1].locked_revision = 6;
        }),
    ];
    for (name, expected, text, lie) in lies {
        let mut history = correct();
        lie(&mut history);
        let found = judge(&history);
        let (_, result) = found.iter().find(|(checker, _)| *checker == expected).unwrap();
        let sentence = result.as_ref().expect_err(&format!("{name} was believed"));
        assert!(sentence.contains(text), "{name}: {sentence}");
    }
}

/// A member that was started again may be behind what its predecessor had told.
#[test]
fn old_reads_may_go_back_over_a_restart_of_the_member() {
    let mut history = correct();
    history.reads.swap(0, 1);
    let between = history.reads[1].return_ns - 1;
    history.reads[0].call_ns = 0;
    history.starts = vec![Started { member: 1, at_ns: between }];
    assert!(stale::check(&history.log, &history.reads, &history.starts).is_err(), "another member's restart");
    history.starts[0].member = 0;
    assert!(stale::check(&history.log, &history.reads, &history.starts).is_ok());
}

#[test]
fn a_lost_increment_under_the_lock_is_found() {
    let mut changes = correct().log.changes().to_vec();
    changes[8].value = Some(1);
    let found = locks::check(&Log::new(changes).unwrap(), &[]);
    assert!(found.unwrap_err().sentence.contains("was 1 and did not go up by one"));
}

/// A deletion that nobody had asked for yet cannot be excused by one that was asked for later with an unknown outcome.
#[test]
fn an_unknown_deletion_explains_only_what_was_seen_after_it_was_asked() {
    let log = Log::new(vec![
        Change { revision: 2, key: 1, value: Some(1) },
        Change { revision: 3, key: 1, value: None },
    ])
    .unwrap();
    let operation = |call_ns, request, outcome| Operation {
        client: 0,
        member: 0,
        call_ns,
        return_ns: call_ns + 5,
        request,
        outcome,
    };
    let entry: Option<Entry> = None;
    let history = |asked_ns| {
        vec![
            operation(0, Request::Put { key: 1, value: 1 }, Outcome::Done(Answer::Put { revision: 2 })),
            operation(10, Request::Get { key: 1 }, Outcome::Done(Answer::Found { revision: 3, entry })),
            operation(asked_ns, Request::Delete { key: 1 }, Outcome::Unknown("no answer".into())),
        ]
    };
    assert!(linear::check(&log, &history(14)).is_ok());
    let bad = linear::check(&log, &history(16)).unwrap_err();
    assert!(bad.sentence.contains("nobody had asked for this"), "{bad}");
}

#[test]
fn a_majority_of_crash_images_must_hold_what_was_told_and_each_must_open() {
    let log = correct().log;
    let image = |member, revision| Image {
        at_ns: SECOND,
        member,
        wanted: 10,
        revision,
        entries: if revision < 10 { Vec::new() } else { log.state(10).into_iter().collect() },
        failed: None,
    };
    let good = [image(0, 10), image(1, 12), image(2, 9)];
    assert_eq!(images::check(&log, 3, &good), Ok(3));
    let found = |images: &[Image]| images::check(&log, 3, images).unwrap_err().sentence;

    let behind = [image(0, 10), image(1, 9), image(2, 9)];
    assert!(found(&behind).contains("only 1 of 3 crash images"), "{}", found(&behind));
    let mut changed = good.clone();
    changed[0].entries[0].1.value += 1;
    assert!(found(&changed).contains("only 1 of 3 crash images"), "{}", found(&changed));
    let mut shut = good;
    shut[2].failed = Some("the process ended".to_owned());
    assert!(found(&shut).contains("m3 does not open: the process ended"), "{}", found(&shut));
}
