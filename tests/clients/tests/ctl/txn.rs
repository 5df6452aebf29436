//! Transactions whose input ends too early.

use crate::rig::Rig;

#[test]
fn input_that_ends_inside_of_a_transaction_commits_nothing() {
    let mut rig = Rig::start(&[]);
    let whole = "ver(\"a\") = \"0\"\n\nput a 1\n\nput b 1\n\n";
    for length in 0..whole.len() {
        // Every line, and a place within it.
        if !whole[..length].ends_with(['\n', '1', '"']) && length > 0 {
            continue;
        }
        let mut txn = rig.spawn("txn");
        txn.type_in(&whole[..length]);
        assert_eq!(txn.wait().code(), Some(3), "after {:?}", &whole[..length]);
        assert_eq!(txn.printed(), "Error: EOF\n", "after {:?}", &whole[..length]);
    }
    assert_eq!(rig.run("get a --from-key"), "");
    let mut txn = rig.spawn("txn");
    txn.type_in(whole);
    assert!(txn.wait().success());
    assert_eq!(txn.printed(), "SUCCESS\n\nOK\n");
}
