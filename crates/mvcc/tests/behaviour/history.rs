//! Events for watches: whole revisions, in order, without gaps, from memory or from records.

use crate::script::{Machine, check, parse_range};
use mvcc::*;

#[test]
fn history_is_told_from_any_revision() {
    check(
        "events 1          -> none
         put a 1           -> revision 2
         put b 1           -> revision 3
         put a 2           -> revision 4
         delete a..c       -> deleted 2, revision 5
         events 0          -> 2: a=1, 3: b=1, 4: a=2, 5: -a -b
         events 4          -> 4: a=2, 5: -a -b
         events 5          -> 5: -a -b
         events 6          -> none
         events 99         -> none",
    );
}

#[test]
fn each_event_knows_what_was_before() {
    check(
        "put a 1           -> revision 2
         put a 2           -> revision 3
         put b 1           -> revision 4
         delete a..c       -> deleted 2, revision 5
         put a 3           -> revision 6
         events 2 prev     -> 2: a=1(was none), 3: a=2(was 1), 4: b=1(was none), 5: -a(was 2) -b(was 1), 6: a=3(was none)",
    );
}

#[test]
fn after_compaction_and_a_restart_history_begins_at_the_compact_revision() {
    check(
        "put a 1           -> revision 2
         put a 2           -> revision 3
         put a 3           -> revision 4
         put a 4           -> revision 5
         compact 4         -> ok
         finish-compaction -> ok
         restart           -> ok
         events 3          -> error: mvcc: required revision has been compacted
         events 4 prev     -> 4: a=3(was none), 5: a=4(was 3)",
    );
}

/// A watcher that is a little behind is not cut off by a compaction while memory still has what it needs.
#[test]
fn memory_still_tells_what_compaction_took() {
    let mut machine = Machine::quiet();
    machine.run(
        "put a 1           -> revision 2
         put a 2           -> revision 3
         put a 3           -> revision 4
         compact 4         -> ok
         events 2          -> 2: a=1, 3: a=2, 4: a=3",
    );
}

/// Whatever the size of the memory, the bound of a call and the flushes, the story is one.
#[test]
fn memory_and_records_tell_one_story() {
    for (event_log_revisions, event_log_size_bytes) in
        [(0, 1 << 20), (1, 1 << 20), (7, 1 << 20), (1000, 1000), (1000, 1 << 20)]
    {
        let limits = Limits { event_log_revisions, event_log_size_bytes, ..Limits::default() };
        let mut machine = Machine::quiet();
        machine.store = Store::new(limits);
        for number in 0..600 {
            let command = match number % 3 {
                0 => format!("put k{} {number} -> revision {}", number % 10, number + 2),
                1 => format!(
                    "txn then {{ put x{number} 1 ; put y{number} 2 }} -> then: put at {0} ; put at {0}, revision {0}",
                    number + 2
                ),
                _ => format!("delete y* -> deleted 1, revision {}", number + 2),
            };
            machine.run(&command);
            if number % 50 == 49 {
                machine.flush();
            }
        }
        for revisions_max in [1, 10, 1000] {
            let bound = EventsBound { revisions_max, size_bytes_max: 4096 };
            let mut next = 2;
            while next <= machine.store.revision() {
                let batches = machine.store.events(&machine.disk, next, bound).unwrap();
                assert!(!batches.is_empty() && batches.len() <= revisions_max);
                for batch in batches {
                    assert_eq!(batch.revision, next);
                    let number = next - 2;
                    let expected = if number % 3 == 1 { 2 } else { 1 };
                    assert_eq!(batch.events.len(), expected, "revision {next}");
                    assert!(batch.events.iter().all(|event| event.kv.mod_revision == next));
                    next += 1;
                }
            }
        }
    }
}

#[test]
fn a_revision_above_the_bound_is_still_told_whole() {
    let mut machine = Machine::quiet();
    let ops = (0..100).map(|number| format!("put k{number:03} value")).collect::<Vec<_>>().join(" ; ");
    let told = vec!["put at 2"; 100].join(" ; ");
    machine.run(&format!("txn then {{ {ops} }} -> then: {told}, revision 2\n put z 1 -> revision 3"));
    let bound = EventsBound { revisions_max: 10, size_bytes_max: 1 };
    for _ in 0..2 {
        let batches = machine.store.events(&machine.disk, 2, bound).unwrap();
        assert_eq!(batches.iter().map(|batch| batch.events.len()).collect::<Vec<_>>(), [100]);
        machine.restart();
    }
}

#[test]
fn a_batch_tells_what_matches_a_range() {
    let mut machine = Machine::quiet();
    machine
        .run("txn then { put a 1 ; put b 1 ; put c 1 } -> then: put at 2 ; put at 2 ; put at 2, revision 2");
    let bound = EventsBound { revisions_max: 1, size_bytes_max: 1 };
    let batches = machine.store.events(&machine.disk, 2, bound).unwrap();
    for (range, count) in [("a", 1), ("a..c", 2), ("b..", 2), ("x", 0)] {
        assert_eq!(batches[0].matching(&parse_range(range)).count(), count, "{range}");
    }
}

/// A store as a backup leaves it: so many revisions without records, then again some, then the raised revision.
fn restored(revisions: &[i64], raised_to: i64, is_noted: bool) -> Machine {
    let mut machine = Machine::quiet();
    let record = |(version, main): (i64, &i64)| {
        let kv = KeyValue {
            key: "k".into(),
            create_revision: revisions[0],
            mod_revision: *main,
            version,
            ..KeyValue::default()
        };
        SavedRecord { revision: Revision::new(*main, 0), is_delete: false, kv }.to_row()
    };
    machine.disk.write((1..).zip(revisions).map(record).collect());
    machine.disk.write(vec![Saved::Revision(raised_to).into_row()]);
    if is_noted {
        machine.disk.write(vec![Saved::Restored(raised_to).into_row()]);
    }
    let meta = machine.disk.meta.clone().into_iter().map(Ok);
    let records = machine.disk.records.clone().into_iter().map(Ok);
    machine.store = Store::restore(Limits::default(), meta, records).unwrap();
    machine
}

#[test]
fn a_restored_store_has_no_events_where_its_backup_has_no_records() {
    let script = r#"
        events 2          -> 2: k="", 3: k="", 9: k=""
        events 4          -> 9: k=""
        events 10         -> none
        put a 1           -> revision 21
        events 3          -> 3: k="", 9: k="", 21: a=1
        events 10         -> 21: a=1"#;
    let mut machine = restored(&[2, 3, 9], 20, true);
    machine.run(script);
    machine.restart();
    machine.run(
        r#"events 3       -> 3: k="", 9: k="", 21: a=1
         events 10        -> 21: a=1
         put a 2          -> revision 22
         events 15        -> 21: a=1, 22: a=2"#,
    );
    machine.disk.records.remove(&Revision::new(21, 0));
    let bound = EventsBound { revisions_max: 100, size_bytes_max: 1 << 20 };
    let meta = machine.disk.meta.clone().into_iter().map(Ok);
    let records = machine.disk.records.clone().into_iter().map(Ok);
    let store = Store::restore(Limits::default(), meta, records).unwrap();
    let missing = store.events(&machine.disk, 10, bound).unwrap_err();
    let expected = RecordsError::Missing { revision: Revision::new(21, 0) };
    assert_eq!(missing, EventsError::Records(expected), "above the restored revision each has a record");
}

#[test]
fn without_the_note_of_a_restore_a_gap_is_missing_data() {
    let machine = restored(&[2, 3, 9], 20, false);
    let bound = EventsBound { revisions_max: 100, size_bytes_max: 1 << 20 };
    for (from, missing) in [(2, 4), (5, 5), (10, 10)] {
        let error = machine.store.events(&machine.disk, from, bound).unwrap_err();
        let expected = RecordsError::Missing { revision: Revision::new(missing, 0) };
        assert_eq!(error, EventsError::Records(expected), "from {from}");
    }
}
