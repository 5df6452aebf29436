//! Compaction: what can still be read, what is dropped, and what a restart in the middle does.

use crate::script::{Machine, check};
use mvcc::{HashCursor, ScanBound};

/// Compaction removes history below the revision, and a read at exactly that revision still works.
#[test]
fn compaction_hides_older_revisions() {
    check(
        "put a 1     -> revision 2
         delete a    -> deleted 1, revision 3
         put a 2     -> revision 4
         get a @2    -> 1
         compact 3   -> ok
         get a @2    -> error: mvcc: required revision has been compacted
         get a @3    -> none
         get a       -> 2
         compacted   -> 3
         revision    -> 4",
    );
}

#[test]
fn a_compaction_goes_forward_and_not_beyond_now() {
    check(
        "compact 2     -> error: mvcc: required revision is a future revision
         compact -1    -> error: mvcc: required revision has been compacted
         compact 0     -> ok
         compact 0     -> error: mvcc: required revision has been compacted
         put a 1       -> revision 2
         put a 2       -> revision 3
         compact 4     -> error: mvcc: required revision is a future revision
         compact 3     -> ok
         compact 3     -> error: mvcc: required revision has been compacted
         compact 2     -> error: mvcc: required revision has been compacted
         get a @3      -> 2
         get a @2      -> error: mvcc: required revision has been compacted
         put a 3       -> revision 4
         compact 4     -> ok
         get a         -> 3",
    );
}

#[test]
fn what_is_left_is_the_newest_state_of_each_key() {
    let mut machine = Machine::quiet();
    machine.run(
        "put a 1  -> revision 2
         put a 2  -> revision 3
         put b 1  -> revision 4
         put a 3  -> revision 5
         delete b -> deleted 1, revision 6
         put c 1  -> revision 7
         compact 5 -> ok
         finish-compaction -> ok",
    );
    machine.flush();
    let left =
        |machine: &Machine| machine.disk.records.keys().map(|revision| revision.main).collect::<Vec<_>>();
    assert_eq!(left(&machine), [4, 5, 6, 7]);
    machine.run("compact 6 -> ok\n finish-compaction -> ok");
    machine.flush();
    assert_eq!(left(&machine), [5, 6, 7], "a deletion exactly at the revision stays");
    machine.run("compact 7 -> ok\n finish-compaction -> ok");
    machine.flush();
    assert_eq!(left(&machine), [5, 7], "a deletion below the revision goes");
}

/// A watch from exactly the compact revision must see the deletion made there.
#[test]
fn a_deletion_at_the_compact_revision_is_still_told() {
    check(
        "put a 1           -> revision 2
         delete a          -> deleted 1, revision 3
         compact 3         -> ok
         finish-compaction -> ok
         restart           -> ok
         events 3          -> 3: -a
         events 2          -> error: mvcc: required revision has been compacted
         put b 1           -> revision 4
         compact 4         -> ok
         finish-compaction -> ok
         restart           -> ok
         events 4          -> 4: b=1
         range a..         -> b=1 count 1",
    );
}

#[test]
fn the_revision_survives_the_loss_of_every_key() {
    check(
        "put a 1           -> revision 2
         delete a          -> deleted 1, revision 3
         put b 1           -> revision 4
         delete b          -> deleted 1, revision 5
         compact 5         -> ok
         finish-compaction -> ok
         restart           -> ok
         revision          -> 5
         compacted         -> 5
         put a 2           -> revision 6
         compact 6         -> ok
         show a            -> a=2 create 6 mod 6 version 1 lease 0",
    );
}

#[test]
fn an_interrupted_compaction_is_finished_after_a_restart() {
    for steps in 0..12 {
        let mut machine = Machine::quiet();
        for number in 0..20 {
            machine.run(&format!("put k{} {number} -> revision {}", number % 4, number + 2));
        }
        machine.flush();
        machine.run("compact 21 -> ok");
        for _ in 0..steps {
            machine.store.compact_step(2);
            machine.flush();
        }
        machine.restart();
        machine.run(
            "get k0 @20        -> error: mvcc: required revision has been compacted
             range k* @21      -> k0=16 k1=17 k2=18 k3=19 count 4
             finish-compaction -> ok
             range k*          -> k0=16 k1=17 k2=18 k3=19 count 4",
        );
        machine.flush();
        assert_eq!(machine.disk.records.len(), 4, "after {steps} steps");
        assert!(!machine.store.compaction_pending());
    }
}

#[test]
fn a_second_compaction_during_the_first_ends_both() {
    let mut machine = Machine::quiet();
    for number in 0..30 {
        machine.run(&format!("put k{} {number} -> revision {}", number % 3, number + 2));
    }
    machine.run("compact 10 -> ok");
    assert!(machine.store.compact_step(1));
    machine.run("compact 31 -> ok\n finish-compaction -> ok");
    machine.flush();
    assert_eq!(machine.disk.records.len(), 3);
}

/// A step is bounded even when one key has a long history.
#[test]
fn a_step_removes_no_more_than_it_was_allowed() {
    let mut machine = Machine::quiet();
    for number in 0..100 {
        machine.run(&format!("put k {number} -> revision {}", number + 2));
    }
    machine.flush();
    machine.run("compact 101 -> ok");
    let mut steps = 0;
    while machine.store.compaction_pending() {
        let before = machine.disk.records.len();
        machine.store.compact_step(10);
        machine.flush();
        assert!(before - machine.disk.records.len() <= 10);
        steps += 1;
    }
    assert!(steps >= 10, "{steps} steps");
    assert_eq!(machine.disk.records.len(), 1);
}

#[test]
fn live_bytes_shrink_with_the_command_and_allocated_bytes_with_the_steps() {
    let mut machine = Machine::quiet();
    machine.run("put a 1 -> revision 2");
    let one = machine.store.size_bytes_in_use();
    machine.run("put a 2 -> revision 3\n put a 3 -> revision 4");
    assert_eq!(machine.store.size_bytes_in_use(), 3 * one);
    machine.run("compact 4 -> ok");
    assert_eq!((machine.store.size_bytes_in_use(), machine.store.size_bytes_allocated()), (one, 3 * one));
    machine.run("finish-compaction -> ok");
    assert_eq!(machine.store.size_bytes_allocated(), one);
    machine.run("delete a -> deleted 1, revision 5\n compact 5 -> ok");
    let tombstone = machine.store.size_bytes_in_use();
    assert!(tombstone > 0 && tombstone < one, "the deletion at the revision still counts");
    machine.run("put b 1 -> revision 6\n compact 6 -> ok\n finish-compaction -> ok");
    assert_eq!((machine.store.size_bytes_in_use(), machine.store.size_bytes_allocated()), (one, one));
}

#[test]
fn hash_kv_is_the_same_before_during_and_after_compaction_steps() {
    check(
        "put a 1           -> revision 2
         put a 2           -> revision 3
         put b 1           -> revision 4
         delete b          -> deleted 1, revision 5
         put c 1           -> revision 6
         compact 3         -> ok
         hashkv @4         -> same
         hashkv @6         -> same
         hashkv            -> same
         finish-compaction -> ok
         hashkv @4         -> same
         hashkv @6         -> same
         restart           -> ok
         hashkv @4         -> same
         put d 1           -> revision 7
         hashkv @6         -> same
         hashkv @2         -> error: mvcc: required revision has been compacted
         hashkv @8         -> error: mvcc: required revision is a future revision",
    );
}

#[test]
fn hash_kv_and_state_hash_tell_different_stores_apart() {
    let hashes = |script: &str| {
        let mut machine = Machine::quiet();
        let state_hash = machine.run(script);
        (machine.store.hash_kv(&machine.disk, 0).unwrap().hash, state_hash)
    };
    let scripts = [
        "put a 1 -> revision 2",
        "put a 2 -> revision 2",
        "put b 1 -> revision 2",
        "put a 1 -> revision 2\n put a 1 -> revision 3",
        "put a 1 -> revision 2\n put b 1 -> revision 3",
        "put b 1 -> revision 2\n put a 1 -> revision 3",
        "put a 1 -> revision 2\n put a 1 -> revision 3\n compact 3 -> ok",
    ];
    let all: Vec<(u32, u64)> = scripts.iter().map(|script| hashes(script)).collect();
    for (at, left) in all.iter().enumerate() {
        for right in &all[at + 1..] {
            assert_ne!(left.0, right.0);
            assert_ne!(left.1, right.1);
        }
    }
    let with_lease = hashes("grant 7 ttl=60 -> lease 7 ttl 60\n put a 1 -> revision 2");
    assert_eq!(with_lease.0, all[0].0, "leases are not part of the history");
    assert_ne!(with_lease.1, all[0].1, "but of the state");
}

fn rows(rows_max: usize) -> ScanBound {
    ScanBound { rows_max, size_bytes_max: usize::MAX }
}

#[test]
fn a_step_of_hash_kv_is_bounded_by_bytes_too() {
    let mut machine = Machine::quiet();
    let value = "v".repeat(1000);
    for number in 0..20 {
        machine.run(&format!("put k{number} {value} -> revision {}", number + 2));
        if number == 9 {
            machine.flush();
        }
    }
    let whole = machine.store.hash_kv(&machine.disk, 0).unwrap();
    for (size_bytes_max, steps_min) in [(1, 20), (4_000, 5), (1_000_000, 1)] {
        let (mut cursor, mut steps) = (HashCursor::new(0), 1);
        let bound = ScanBound { rows_max: 1000, size_bytes_max };
        let told = loop {
            match machine.store.hash_kv_step(&machine.disk, &mut cursor, bound).unwrap() {
                Some(told) => break told,
                None => steps += 1,
            }
        };
        assert_eq!(told, whole);
        assert!((steps_min..=steps_min + 1).contains(&steps), "{steps} steps of {size_bytes_max} bytes");
    }
}

#[test]
fn hash_kv_in_steps_is_the_same_and_begins_again_after_a_compaction() {
    let mut machine = Machine::quiet();
    for number in 0..20 {
        machine.run(&format!("put k{} {number} -> revision {}", number % 4, number + 2));
    }
    machine.flush();
    machine.run("compact 9 -> ok\n put z 1 -> revision 22");
    for rows_max in [1, 3, 7, 21, 1000] {
        for revision in [0, 9, 15, 22] {
            let mut cursor = HashCursor::new(revision);
            let mut steps = 0;
            let told = loop {
                steps += 1;
                if let Some(told) =
                    machine.store.hash_kv_step(&machine.disk, &mut cursor, rows(rows_max)).unwrap()
                {
                    break told;
                }
            };
            assert_eq!(told, machine.store.hash_kv(&machine.disk, revision).unwrap());
            assert!(steps <= 21 / rows_max + 1, "{steps} steps of {rows_max}");
        }
    }
    let mut cursor = HashCursor::new(0);
    assert_eq!(machine.store.hash_kv_step(&machine.disk, &mut cursor, rows(2)), Ok(None));
    machine.run("compact 10 -> ok");
    assert_eq!(
        machine.store.hash_kv_step(&machine.disk, &mut cursor, rows(2)),
        Err(mvcc::RangeError::Compacted)
    );
}
