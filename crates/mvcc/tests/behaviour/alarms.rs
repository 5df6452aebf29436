//! Alarms and the quota.

use crate::script::{Machine, check, parse_txn};
use bytes::Bytes;
use mvcc::*;

#[test]
fn an_alarm_stays_until_it_is_switched_off() {
    check(
        "alarms                -> none
         alarm on nospace 1    -> NoSpace 1
         alarm on nospace 1    -> NoSpace 1
         alarm on corrupt 2    -> Corrupt 2
         alarm on none 1       -> none
         restart               -> ok
         alarms                -> NoSpace 1, Corrupt 2
         alarm off corrupt 1   -> none
         alarm off nospace 1   -> NoSpace 1
         alarms                -> Corrupt 2
         alarm off all 0       -> none
         alarm off corrupt 0   -> none
         alarm off corrupt 2   -> Corrupt 2
         alarms                -> none
         revision              -> 1",
    );
}

#[test]
fn without_space_only_what_needs_none_is_allowed() {
    check(
        "grant 7 ttl=60                  -> lease 7 ttl 60
         put a 1 lease=7                 -> revision 2
         put b 1                         -> revision 3
         alarm on nospace 1              -> NoSpace 1
         put a 2                         -> error: mvcc: database space exceeded
         grant 8 ttl=60                  -> error: mvcc: database space exceeded
         txn then { put c 1 }            -> error: mvcc: database space exceeded
         txn else { put c 1 }            -> error: mvcc: database space exceeded
         txn then { txn else { put c 1 } } -> error: mvcc: database space exceeded
         txn then { get a ; delete b }   -> then: a=1 count 1 at 3 ; deleted 1 at 4, revision 4
         compact 4                       -> ok
         revoke 7                        -> revision 5
         alarm off nospace 1             -> NoSpace 1
         put a 2                         -> revision 6",
    );
}

#[test]
fn a_corrupt_cluster_refuses_everything_on_keys() {
    check(
        "grant 7 ttl=60          -> lease 7 ttl 60
         put a 1                 -> revision 2
         alarm on corrupt 3      -> Corrupt 3
         put a 2                 -> error: corrupt cluster
         delete a                -> error: corrupt cluster
         txn then { get a }      -> error: corrupt cluster
         compact 2               -> error: corrupt cluster
         grant 8 ttl=60          -> error: corrupt cluster
         revoke 7                -> error: corrupt cluster
         expire term=5 7         -> error: corrupt cluster
         role-add r              -> ok
         alarm off corrupt 3     -> Corrupt 3
         put a 2                 -> revision 3",
    );
}

/// The quota of etcd's own tests: 13 pages, filled with puts of one page.
#[test]
fn a_quota_of_thirteen_pages_is_filled_by_a_dozen_pages_and_freed_by_compaction() {
    let quota_bytes = 13 * 4096;
    let mut machine = Machine::quiet();
    machine.store.set_quota_bytes(quota_bytes);
    let page = Command::Put(Put {
        key: Bytes::from_static(b"key"),
        value: Bytes::from(vec![b'x'; 4096]),
        ..Put::default()
    });
    let mut puts = 0;
    while machine.store.has_space_for(&page) {
        let proposal = Proposal { id: 0, member: 0, caller: Caller::System, command: page.clone() };
        machine.store.apply(&machine.disk, 1, &proposal).result.unwrap();
        puts += 1;
    }
    assert!((10..=13).contains(&puts), "{puts} puts");
    let small = Command::Txn(parse_txn("then { delete a..z ; get a }"));
    assert!(machine.store.has_space_for(&small), "what adds nothing always fits");
    let either = Command::Txn(parse_txn("if version(a)=0 then { get a } else { put a 1 }"));
    machine.store.set_quota_bytes(machine.store.size_bytes_in_use() + 200);
    assert!(!machine.store.has_space_for(&either), "the dearer branch counts");
    machine.store.set_quota_bytes(quota_bytes);
    machine.run(&format!("compact {} -> ok", machine.store.revision()));
    assert!(machine.store.has_space_for(&page), "compaction made room");
    machine.store.set_quota_bytes(0);
    assert!(machine.store.has_space_for(&page), "0 is no quota");
}
