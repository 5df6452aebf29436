//! Checks that need no state.

use crate::script::{parse_range, parse_txn};
use mvcc::*;

fn told<T>(result: Result<T, CheckError>) -> String {
    result.map_or_else(|error| error.to_string(), |_| "ok".to_owned())
}

/// Each row: a transaction, and what a check with at most three operations says.
#[test]
fn transactions_are_checked_before_they_are_proposed() {
    let rows = [
        ("", "ok"),
        ("then { put a 1 ; put b 1 ; get a }", "ok"),
        ("then { put a 1 ; put b 1 ; put c 1 ; get a }", "too many operations in txn request"),
        ("else { get a ; get b ; get c ; get d }", "too many operations in txn request"),
        ("if version(a)=1 version(a)=1 version(a)=1 version(a)=1", "too many operations in txn request"),
        ("then { txn then { get a ; get b } ; get c }", "too many operations in txn request"),
        ("then { txn then { get a ; get b } }", "ok"),
        ("then { txn then { txn then { get a } } }", "ok"),
        ("then { txn then { txn then { txn } } }", "ok"),
        ("then { txn then { txn then { txn then { get a } } } }", "too many operations in txn request"),
        ("then { put \"\" 1 }", "key is not provided"),
        ("then { get \"\" }", "key is not provided"),
        ("else { delete \"\" }", "key is not provided"),
        ("if version(\"\")=0", "key is not provided"),
        ("then { txn if version(\"\")=0 }", "key is not provided"),
        ("then { put a 1 ignore-value }", "value is provided"),
        ("then { put a \"\" lease=7 ignore-lease }", "lease is provided"),
        // A key may be put once on any path, and not deleted on the same.
        ("then { put a 1 ; put a 2 }", "duplicate key given in txn request"),
        ("then { put a 1 ; delete a }", "duplicate key given in txn request"),
        ("then { delete a..c ; put b 1 }", "duplicate key given in txn request"),
        ("then { delete a..c ; put c 1 }", "ok"),
        ("then { delete a..c ; delete b..d }", "ok"),
        ("then { put a 1 } else { put a 2 }", "ok"),
        ("then { put a 1 } else { delete a }", "ok"),
        ("then { put a 1 ; txn then { put a 2 } }", "duplicate key given in txn request"),
        ("then { txn then { put a 2 } ; put a 1 }", "duplicate key given in txn request"),
        ("then { txn else { delete a..c } ; put b 1 }", "duplicate key given in txn request"),
        ("then { put b 1 ; txn else { delete a..c } }", "duplicate key given in txn request"),
        // etcd does not see into a range without an upper bound.
        ("then { put b 1 ; delete a.. }", "ok"),
        ("then { txn else { delete a.. } ; put b 1 }", "ok"),
        ("then { txn then { put a 1 } ; txn else { put a 1 } }", "duplicate key given in txn request"),
        ("then { txn then { put a 1 } ; txn else { delete a } }", "ok"),
        ("then { txn else { delete a } ; txn then { put a 1 } }", "duplicate key given in txn request"),
        ("then { txn then { put a 1 } else { put a 2 } }", "ok"),
        ("then { txn then { put a 1 } else { delete a } }", "ok"),
    ];
    for (script, expected) in rows {
        assert_eq!(told(check_txn(&parse_txn(script), 3)), expected, "{script}");
    }
}

#[test]
fn nesting_is_bounded_whatever_the_number_of_operations() {
    let nested = |depth: usize| {
        (1..depth).fold(Txn::default(), |inner, _| Txn { success: vec![Op::Txn(inner)], ..Txn::default() })
    };
    assert_eq!(check_txn(&nested(TXN_DEPTH_MAX), 1000), Ok(()));
    assert_eq!(check_txn(&nested(TXN_DEPTH_MAX + 1), 1000), Err(CheckError::TooManyOps));
}

#[test]
fn single_requests_are_checked_too() {
    let empty = || parse_range("\"\"");
    assert_eq!(told(check_range(&RangeQuery::latest(empty()))), "key is not provided");
    assert_eq!(told(check_range(&RangeQuery::latest(parse_range("\"\"..b")))), "key is not provided");
    assert_eq!(told(check_range(&RangeQuery::latest(KeyRange::all()))), "ok");
    let delete = DeleteRange { range: empty(), prev_kv: false };
    assert_eq!(told(check_delete_range(&delete)), "key is not provided");
    assert_eq!(told(check_put(&Put::default())), "key is not provided");
}
