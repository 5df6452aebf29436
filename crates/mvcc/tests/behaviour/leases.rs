//! Leases: granting, attaching, ending, checkpoints.

use crate::script::check;

#[test]
fn a_lease_is_granted_once() {
    check(
        "grant 7 ttl=60           -> lease 7 ttl 60
         grant 7 ttl=10           -> error: lease already exists
         grant 0 ttl=10           -> error: requested lease not found
         grant 8 ttl=9000000000   -> lease 8 ttl 9000000000
         grant 9 ttl=9000000001   -> error: too large lease TTL
         grant 9 ttl=-5           -> lease 9 ttl 1
         leases                   -> 7 ttl 60 remaining 0, 8 ttl 9000000000 remaining 0, 9 ttl 1 remaining 0
         revision                 -> 1",
    );
}

#[test]
fn a_put_needs_its_lease() {
    check(
        "put a 1 lease=7  -> error: requested lease not found
         grant 7 ttl=60   -> lease 7 ttl 60
         put a 1 lease=7  -> revision 2
         show a           -> a=1 create 2 mod 2 version 1 lease 7
         lease 7          -> ttl 60 keys a",
    );
}

#[test]
fn revoking_deletes_the_keys_in_order_in_one_revision() {
    check(
        "grant 7 ttl=60   -> lease 7 ttl 60
         put c 1 lease=7  -> revision 2
         put a 1 lease=7  -> revision 3
         put b 1          -> revision 4
         put d 1 lease=7  -> revision 5
         revoke 7         -> revision 6
         events 6         -> 6: -a -c -d
         range a..        -> b=1 count 1
         lease 7          -> none
         revoke 7         -> error: requested lease not found
         put a 1 lease=7  -> error: requested lease not found
         grant 7 ttl=60   -> lease 7 ttl 60
         revoke 7         -> revision 6",
    );
}

#[test]
fn a_key_hangs_on_its_last_lease_only() {
    check(
        "grant 7 ttl=60   -> lease 7 ttl 60
         grant 8 ttl=60   -> lease 8 ttl 60
         put a 1 lease=7  -> revision 2
         put a 2 lease=8  -> revision 3
         lease 7          -> ttl 60 keys none
         lease 8          -> ttl 60 keys a
         revoke 7         -> revision 3
         get a            -> 2
         put a 3          -> revision 4
         lease 8          -> ttl 60 keys none
         put b 1 lease=8  -> revision 5
         delete b         -> deleted 1, revision 6
         put b 2          -> revision 7
         revoke 8         -> revision 7
         range a..        -> a=3 b=2 count 2",
    );
}

#[test]
fn expiry_counts_only_in_the_term_that_decided_it() {
    check(
        "grant 7 ttl=60         -> lease 7 ttl 60
         grant 8 ttl=60         -> lease 8 ttl 60
         put a 1 lease=7        -> revision 2
         put b 1 lease=8        -> revision 3
         expire term=4 7        -> expired none, revision 3
         expire term=6 7        -> expired none, revision 3
         get a                  -> 1
         expire term=5 7 9 8    -> expired 7, 8, revision 5
         events 4               -> 4: -a, 5: -b
         expire term=5 7        -> expired none, revision 5",
    );
}

#[test]
fn a_checkpoint_stays_within_the_ttl() {
    check(
        "grant 7 ttl=60               -> lease 7 ttl 60
         checkpoint 7 remaining=20    -> 1 changed
         checkpoint 9 remaining=20    -> 0 changed
         leases                       -> 7 ttl 60 remaining 20
         checkpoint 7 remaining=99    -> 1 changed
         leases                       -> 7 ttl 60 remaining 60
         checkpoint 7 remaining=-1    -> 1 changed
         restart                      -> ok
         leases                       -> 7 ttl 60 remaining 0",
    );
}

#[test]
fn keys_are_attached_again_after_compaction_and_restart() {
    check(
        "grant 7 ttl=60     -> lease 7 ttl 60
         put a 1 lease=7    -> revision 2
         put a 2 lease=7    -> revision 3
         put b 1 lease=7    -> revision 4
         delete b           -> deleted 1, revision 5
         compact 5          -> ok
         finish-compaction  -> ok
         restart            -> ok
         lease 7            -> ttl 60 keys a
         txn if lease(a)=7 then { put c 1 lease=7 } -> then: put at 6, revision 6
         revoke 7           -> revision 7
         events 7           -> 7: -a -c",
    );
}
