//! What a damaged state file must lead to: a named error, and nothing of it on disk or in an answer.

use crate::script::Machine;
use bytes::Bytes;
use mvcc::*;

/// Three flushed records and nothing in memory.
fn flushed() -> Machine {
    let mut machine = Machine::quiet();
    machine.run(
        "grant 7 ttl=60  -> lease 7 ttl 60
         put a 1         -> revision 2
         put b 1 lease=7 -> revision 3
         put a 2         -> revision 4",
    );
    machine.restart();
    machine
}

fn restore(machine: &Machine) -> Result<Store, RestoreError> {
    let meta = machine.disk.meta.clone().into_iter().map(Ok);
    let records = machine.disk.records.clone().into_iter().map(Ok);
    Store::restore(Limits::default(), meta, records)
}

fn flip(machine: &mut Machine, main: i64) {
    let bytes = machine.disk.records.get_mut(&Revision::new(main, 0)).unwrap();
    let mut flipped = bytes.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    *bytes = flipped.into();
}

#[test]
fn a_flipped_bit_is_never_an_answer() {
    let mut machine = flushed();
    flip(&mut machine, 4);
    let told = "error: state cannot be read";
    machine.run(&format!("get a -> {told}\n get a @2 -> 1\n get b -> 1\n hashkv -> {told}"));
    let error = restore(&machine).err().unwrap();
    assert_eq!(error.to_string(), "record 4.0 is damaged: checksum does not match");
    let bound = EventsBound { revisions_max: 9, size_bytes_max: 1 << 20 };
    assert!(matches!(machine.store.events(&machine.disk, 2, bound), Err(EventsError::Records(_))));
}

#[test]
fn a_missing_record_is_never_an_empty_answer() {
    let mut machine = flushed();
    machine.disk.records.remove(&Revision::new(3, 0));
    let query = RangeQuery::latest(KeyRange::all());
    let error = machine.store.range(&machine.disk, &query).unwrap_err();
    let missing = RecordsError::Missing { revision: Revision::new(3, 0) };
    assert_eq!(error, RangeError::Records(missing.clone()));
    let bound = EventsBound { revisions_max: 9, size_bytes_max: 1 << 20 };
    assert_eq!(machine.store.events(&machine.disk, 2, bound), Err(EventsError::Records(missing)));
}

#[test]
fn the_last_revision_cannot_vanish_from_history() {
    let mut machine = flushed();
    machine.disk.records.remove(&Revision::new(4, 0));
    let bound = EventsBound { revisions_max: 9, size_bytes_max: 1 << 20 };
    let missing = RecordsError::Missing { revision: Revision::new(4, 0) };
    assert_eq!(machine.store.events(&machine.disk, 2, bound), Err(EventsError::Records(missing)));
}

/// A command that cannot be finished must not leave half of itself on disk.
#[test]
fn after_a_failed_read_under_apply_no_row_leaves_the_store() {
    let mut machine = flushed();
    flip(&mut machine, 3);
    machine.store.take_rows();
    let txn = crate::script::parse_txn("then { put z 1 ; delete b prev }");
    let proposal = Proposal { id: 1, member: 1, caller: Caller::System, command: Command::Txn(txn) };
    let applied = machine.store.apply(&machine.disk, 1, &proposal);
    assert!(matches!(applied.result, Err(ApplyError::Records(RecordsError::Damaged { .. }))));
    assert_eq!(machine.store.take_rows(), Vec::new());
}

#[test]
fn rows_that_do_not_fit_together_are_refused() {
    let mut older = flushed();
    let (key, value) = older.disk.meta.iter().find(|(key, _)| key.as_ref() == b"revision").unwrap();
    let (key, mut value) = (key.clone(), value.to_vec());
    value[1] -= 2;
    older.disk.meta.insert(key, value.into());
    let error = restore(&older).err().unwrap();
    assert_eq!(error.to_string(), "record 4.0 and compaction -1 do not fit to revision 3");

    let mut unknown = flushed();
    unknown.disk.meta.insert(Bytes::from_static(b"novelty"), Bytes::from_static(&[1]));
    assert!(matches!(restore(&unknown), Err(RestoreError::Meta { .. })));

    let mut newer = flushed();
    for value in newer.disk.meta.values_mut() {
        let mut bytes = value.to_vec();
        bytes[0] = 2;
        *value = bytes.into();
    }
    assert!(matches!(restore(&newer), Err(RestoreError::Meta { source: DecodeError::Format(2), .. })));

    let machine = flushed();
    let mut records: Vec<_> = machine.disk.records.clone().into_iter().map(Ok).collect();
    records.reverse();
    let meta = machine.disk.meta.clone().into_iter().map(Ok);
    let error = Store::restore(Limits::default(), meta, records.into_iter()).err().unwrap();
    assert_eq!(error.to_string(), "record 3.0 comes after record 4.0");
}

#[test]
fn a_read_failure_while_restoring_is_passed_on() {
    let failure = || RecordsError::Missing { revision: Revision::new(9, 9) };
    let meta = std::iter::once(Err(failure()));
    let error = Store::restore(Limits::default(), meta, std::iter::empty()).err().unwrap();
    assert_eq!(error.to_string(), "record 9.9 is missing");
}

#[test]
fn no_rows_make_a_new_store() {
    let store = Store::restore(Limits::default(), std::iter::empty(), std::iter::empty()).unwrap();
    assert_eq!(store.revision(), 1);
    assert_eq!(store.state_hash(), Store::new(Limits::default()).state_hash());
}
