//! Transactions: compares, branches, nesting, order, and all-or-nothing refusals.

use crate::script::{Machine, check, parse_txn};
use mvcc::*;

#[test]
fn the_branch_that_the_compares_choose_runs_in_one_revision() {
    check(
        "txn if version(a)=0 then { put a 1 ; put b 1 } else { get a } -> then: put at 2 ; put at 2, revision 2
         txn if version(a)=0 then { put a 2 } else { get a }           -> else: a=1 count 1 at 2, revision 2
         show b                                                        -> b=1 create 2 mod 2 version 1 lease 0
         txn                                                           -> then:, revision 2
         txn then { delete a..c }                                      -> then: deleted 2 at 3, revision 3
         txn then { delete a..c }                                      -> then: deleted 0 at 3, revision 3",
    );
}

/// Each compare of the example holds or not, as etcd has it.
#[test]
fn compares_hold_as_in_etcd() {
    let before = "grant 7 ttl=60      -> lease 7 ttl 60
                  put a m             -> revision 2
                  put a m lease=7     -> revision 3
                  put b n             -> revision 4
                  put c o             -> revision 5
                  delete c            -> deleted 1, revision 6";
    let rows = [
        ("version(a)=2", true),
        ("version(a)!=2", false),
        ("version(a)>1", true),
        ("version(a)<2", false),
        ("create(a)=2", true),
        ("create(b)>3", true),
        ("mod(a)=3", true),
        ("mod(a)<3", false),
        ("value(a)=m", true),
        ("value(a)!=m", false),
        ("value(a)<n", true),
        ("value(a)>l", true),
        ("lease(a)=7", true),
        ("lease(b)=0", true),
        ("lease(b)!=0", false),
        // Missing and deleted keys are all zeros, but have no value at all.
        ("version(x)=0", true),
        ("version(c)=0", true),
        ("create(x)<1", true),
        ("mod(c)!=0", false),
        ("lease(x)=0", true),
        ("value(x)=\"\"", false),
        ("value(x)!=m", false),
        ("value(c)<z", false),
        // A range holds when every key of it does.
        ("version(a..c)>0", true),
        ("version(a..c)=2", false),
        ("value(a..)!=q", true),
        ("value(a..)!=n", false),
        ("mod(x..z)=0", true),
        ("value(x..z)!=m", false),
        // All must hold.
        ("version(a)=2 version(b)=1", true),
        ("version(a)=2 version(b)=2", false),
    ];
    let rows = rows.map(|(compares, holds)| {
        format!("txn if {compares} -> {}, revision 6", if holds { "then:" } else { "else:" })
    });
    check(&format!("{before}\n{}", rows.join("\n")));
}

#[test]
fn operations_see_what_earlier_ones_did() {
    check(
        "put a 0 -> revision 2
         txn then { get a ; put a 1 ; get a ; range a.. @2 ; delete b ; put b 1 ; range a.. count } \
             -> then: a=0 count 1 at 2 ; put at 3 ; a=1 count 1 at 3 ; a=0 count 1 at 3 ; deleted 0 at 3 ; put at 3 ; count 2 at 3, revision 3
         txn then { delete a..z prev ; range a.. ; delete a..z } \
             -> then: deleted 2 at 4, was a=1@3, was b=1@3 ; count 0 at 4 ; deleted 0 at 4, revision 4",
    );
}

#[test]
fn nested_compares_see_the_state_before_the_whole_transaction() {
    check(
        "txn then { put a 1 ; txn if version(a)=0 then { put b 1 } else { put c 1 } } \
             -> then: put at 2 ; (then: put at 2), revision 2
         txn then { delete a ; txn if version(a)=1 then { txn if value(b)=1 then { put d 1 } } } \
             -> then: deleted 1 at 3 ; (then: (then: put at 3)), revision 3
         range a.. -> b=1 d=1 count 2",
    );
}

#[test]
fn a_refused_transaction_has_no_effect() {
    check(
        r#"put a 1                                                      -> revision 2
           put a 2                                                      -> revision 3
           put a 3                                                      -> revision 4
           compact 3                                                    -> ok
           txn then { put b 1 ; put c 1 lease=7 }                       -> error: requested lease not found
           txn then { put b 1 ; put c "" ignore-value }                 -> error: key not found
           txn then { put b 1 ; put c 1 ignore-lease }                  -> error: key not found
           txn then { put b 1 ; get a @2 }                              -> error: mvcc: required revision has been compacted
           txn then { put b 1 ; get a @-1 }                             -> error: mvcc: required revision has been compacted
           txn then { get a @-1 }                                       -> error: mvcc: required revision has been compacted
           txn then { put b 1 ; get a @5 }                              -> error: mvcc: required revision is a future revision
           txn then { put b 1 ; txn then { get a @9 } }                 -> error: mvcc: required revision is a future revision
           txn then { put b 1 ; txn then { put c 1 lease=7 } }          -> error: requested lease not found
           range a..                                                    -> a=3 count 1
           revision                                                     -> 4
           txn then { put b 1 ; get a @3 ; get a @4 }                   -> then: put at 5 ; a=2 count 1 at 5 ; a=3 count 1 at 5, revision 5"#,
    );
}

#[test]
fn a_branch_that_does_not_run_cannot_refuse() {
    check(
        "txn if version(a)=0 then { put a 1 } else { put b 1 lease=7 } -> then: put at 2, revision 2
         txn if version(a)=0 then { get a @99 } else { put b 1 }       -> else: put at 3, revision 3",
    );
}

#[test]
fn changes_of_one_transaction_are_ordered_by_operation() {
    check(
        "txn then { put b 1 ; put a 1 ; txn then { put c 1 } ; put d 1 } \
             -> then: put at 2 ; put at 2 ; (then: put at 2) ; put at 2, revision 2
         txn then { delete d ; put e 1 ; delete a..c } -> then: deleted 1 at 3 ; put at 3 ; deleted 2 at 3, revision 3
         events 1 -> 2: b=1 a=1 c=1 d=1, 3: -d e=1 -a -b",
    );
}

#[test]
fn a_put_alone_misses_its_lease_first_and_one_in_a_transaction_its_key() {
    check(
        r#"put a "" ignore-value lease=7                -> error: requested lease not found
           txn then { put a "" ignore-value lease=7 }   -> error: key not found"#,
    );
}

/// etcd lets this through its checks, so it has to mean something: both happen, in order, in one revision.
#[test]
fn a_key_can_be_put_and_deleted_by_two_nested_transactions() {
    check(
        "put a 0 -> revision 2
         txn then { txn then { put a 1 } ; txn then { delete a prev } } \
             -> then: (then: put at 3) ; (then: deleted 1 at 3, was a=1@3), revision 3
         events 3 prev     -> 3: a=1(was 0) -a(was 0)
         get a             -> none
         get a @2          -> 0
         put a 2           -> revision 4
         show a            -> a=2 create 4 mod 4 version 1 lease 0
         compact 3         -> ok
         finish-compaction -> ok
         hashkv            -> same
         restart           -> ok
         get a @3          -> none
         events 3          -> 3: -a, 4: a=2
         compact 4         -> ok
         finish-compaction -> ok
         show a            -> a=2 create 4 mod 4 version 1 lease 0",
    );
}

#[test]
fn a_transaction_without_writes_is_answered_without_the_log() {
    let mut machine = Machine::quiet();
    machine.run("put a 1 -> revision 2");
    let txn = parse_txn("if version(a)=1 then { get a ; txn then { range a.. count } } else { get b }");
    assert!(txn.is_read_only());
    let reply = machine.store.read_txn(&machine.disk, &txn).unwrap();
    assert!(reply.succeeded);
    assert_eq!(reply.responses.len(), 2);
    let future = parse_txn("then { get a @3 }");
    assert_eq!(machine.store.read_txn(&machine.disk, &future), Err(RangeError::FutureRevision));

    // Decided now, read later: as of the moment of the decision.
    let plan = machine.store.plan_read_txn(&machine.disk, &txn).unwrap();
    assert_eq!(machine.store.plan_read_txn(&machine.disk, &future), Err(RangeError::FutureRevision));
    machine.run("put a 2 -> revision 3\nput b 1 -> revision 4");
    assert_eq!(without_revisions(run(&machine, &plan)), without_revisions(reply));
    let now = machine.store.read_txn(&machine.disk, &txn).unwrap();
    assert!(!now.succeeded, "the compare holds no more");
    for writes in ["then { put a 1 }", "else { delete a }", "then { get a ; txn else { put a 1 } }"] {
        assert!(!parse_txn(writes).is_read_only(), "{writes}");
    }
}

fn run(machine: &Machine, plan: &ReadPlan) -> TxnReply {
    let read = |read: &PlannedRead| match read {
        PlannedRead::Range(query) => OpReply::Range(machine.store.range(&machine.disk, query).unwrap()),
        PlannedRead::Txn(nested) => OpReply::Txn(run(machine, nested)),
    };
    TxnReply { succeeded: plan.succeeded, responses: plan.reads.iter().map(read).collect() }
}

/// A reply says which revision the store has by now.
fn without_revisions(mut reply: TxnReply) -> TxnReply {
    for response in &mut reply.responses {
        match response {
            OpReply::Range(range) => range.revision = 0,
            OpReply::Txn(nested) => *nested = without_revisions(nested.clone()),
            OpReply::Put(_) | OpReply::DeleteRange(_) => {}
        }
    }
    reply
}

/// A store of 1500 keys, and what a list of operations on all of them does when each comes 4000 times.
fn repeated(op: &str) -> (Machine, Proposal) {
    repeated_so_often(op, 4000)
}

fn repeated_so_often(op: &str, times: usize) -> (Machine, Proposal) {
    let mut machine = Machine::quiet();
    for number in 0..1500 {
        machine.run(&format!("put k{number:04} 1 -> revision {}", number + 2));
    }
    let txn = parse_txn(&format!("then {{ put a 1 ; {op} }}"));
    let (first, repeated) = txn.success.split_first().unwrap();
    let success = std::iter::once(first.clone())
        .chain(repeated.iter().cycle().take(times * repeated.len()).cloned())
        .collect();
    let command = Command::Txn(Txn { success, ..txn });
    (machine, Proposal { id: 1, member: 1, caller: Caller::System, command })
}

#[test]
fn a_transaction_that_passes_too_many_keys_changes_nothing() {
    for op in ["delete k*", "txn if version(k*)>0 then { get a }"] {
        let (mut machine, proposal) = repeated(op);
        let before = machine.store.state_hash();
        for _ in 0..2 {
            let applied = machine.store.apply(&machine.disk, 1, &proposal);
            assert_eq!(applied, Applied { revision: 1501, result: Err(ApplyError::TooMuchWork) }, "{op}");
            assert_eq!(machine.store.state_hash(), before, "{op}");
        }
    }
}

#[test]
fn an_answer_that_is_too_long_is_refused_where_somebody_waits_and_the_changes_are_the_same_everywhere() {
    for op in ["range k*", "range k* count", "range z* ; txn then { range k* keys sort=mod desc }"] {
        let (mut asked, proposal) = repeated(op);
        let (mut other, _) = repeated(op);
        let told = asked.store.apply(&asked.disk, 1, &proposal);
        assert_eq!(told, Applied { revision: 1502, result: Err(ApplyError::AnswerTooLong) }, "{op}");
        let unheard = other.store.apply_unheard(&other.disk, 1, &proposal);
        assert_eq!(unheard.revision, 1502, "{op}");
        assert_eq!(asked.store.state_hash(), other.store.state_hash(), "{op}");
        asked.run("get a -> 1");
    }
}

#[test]
fn where_nobody_waits_the_changes_are_the_same_and_nothing_is_read() {
    let script = "put a 1 -> revision 2";
    let txn = parse_txn("then { range a..z ; put b 2 prev ; delete a prev ; put c 3 ; range a..z }");
    let proposal = Proposal { id: 1, member: 1, caller: Caller::System, command: Command::Txn(txn) };
    let (mut heard, mut unheard) = (Machine::quiet(), Machine::quiet());
    heard.run(script);
    unheard.run(script);
    let told = heard.store.apply(&heard.disk, 1, &proposal);
    let untold = unheard.store.apply_unheard(&unheard.disk, 1, &proposal);
    assert_eq!(told.revision, untold.revision);
    assert_eq!(heard.store.state_hash(), unheard.store.state_hash());
    let (Ok(Reply::Txn(told)), Ok(Reply::Txn(untold))) = (told.result, untold.result) else {
        panic!("both answer");
    };
    let rows = |reply: &TxnReply| -> usize {
        let count = |reply: &OpReply| match reply {
            OpReply::Range(range) => range.kvs.len(),
            OpReply::DeleteRange(delete) => delete.prev_kvs.len(),
            OpReply::Put(put) => usize::from(put.prev.is_some()),
            OpReply::Txn(_) => 0,
        };
        reply.responses.iter().map(count).sum()
    };
    assert_eq!((rows(&told), rows(&untold)), (4, 0));
}

/// At the limit every key counts, so a deleted key that one member's clean-up took and another's did not would decide.
#[test]
fn how_far_the_clean_up_is_does_not_decide_whether_a_transaction_is_too_large() {
    for op in ["delete k*", "txn if version(k*)>0 then { get a }"] {
        // 1500 keys in the range, a few of them deleted: just below the limit without the deleted ones, just above with.
        for (repeated_times, refused) in [(3400, false), (3600, true)] {
            let outcomes = [false, true].map(|is_clean| {
                let (mut machine, proposal) = repeated_so_often(op, repeated_times);
                machine.run("delete k00* -> deleted 100, revision 1502\ncompact 1502 -> ok");
                machine.run("put z 1 -> revision 1503\ncompact 1503 -> ok");
                if is_clean {
                    while machine.store.compact_step(1000) {}
                }
                let result = machine.store.apply(&machine.disk, 1, &proposal).result;
                assert_eq!(matches!(result, Err(ApplyError::TooMuchWork)), refused, "{op} {is_clean}");
                machine.store.state_hash()
            });
            assert_eq!(outcomes[0], outcomes[1], "{op}");
        }
    }
}
