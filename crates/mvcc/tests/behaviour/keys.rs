//! Puts and deletions: revisions, versions, previous values.

use crate::script::check;

#[test]
fn a_store_begins_at_revision_one_and_each_write_adds_one() {
    check(
        "revision      -> 1
         get a         -> none
         put a 1       -> revision 2
         put b 2       -> revision 3
         get a         -> 1
         revision      -> 3",
    );
}

#[test]
fn versions_count_puts_and_start_over_after_a_deletion() {
    check(
        "put a 1       -> revision 2
         show a        -> a=1 create 2 mod 2 version 1 lease 0
         put a 2       -> revision 3
         show a        -> a=2 create 2 mod 3 version 2 lease 0
         delete a      -> deleted 1, revision 4
         show a        -> none
         put a 3       -> revision 5
         show a        -> a=3 create 5 mod 5 version 1 lease 0
         show a @3     -> a=2 create 2 mod 3 version 2 lease 0
         show a @4     -> none",
    );
}

#[test]
fn a_deletion_that_finds_nothing_leaves_the_revision() {
    check(
        "put a 1       -> revision 2
         delete b      -> deleted 0, revision 2
         delete a..a   -> deleted 0, revision 2
         delete z..a   -> deleted 0, revision 2
         delete a      -> deleted 1, revision 3
         delete a      -> deleted 0, revision 3",
    );
}

#[test]
fn a_deletion_of_many_keys_is_one_revision() {
    check(
        "put a 1       -> revision 2
         put b 2       -> revision 3
         put c 3       -> revision 4
         put d 4       -> revision 5
         delete b..d   -> deleted 2, revision 6
         range a..     -> a=1 d=4 count 2
         range a.. @5  -> a=1 b=2 c=3 d=4 count 4
         put cc 5      -> revision 7
         delete c..    -> deleted 2, revision 8
         put ab 6      -> revision 9
         delete a*     -> deleted 2, revision 10
         range a..     -> count 0
         keys          -> 0",
    );
}

#[test]
fn previous_pairs_come_when_asked_for() {
    check(
        "put a 1 prev      -> revision 2
         put a 2 prev      -> revision 3, was a=1@2
         put a 3           -> revision 4
         put b 1           -> revision 5
         delete a..c prev  -> deleted 2, revision 6, was a=3@4, was b=1@5
         delete a prev     -> deleted 0, revision 6
         put a 4 prev      -> revision 7",
    );
}

#[test]
fn a_put_can_keep_value_or_lease_of_an_existing_key_only() {
    check(
        r#"grant 7 ttl=60                        -> lease 7 ttl 60
           put a "" ignore-value                 -> error: key not found
           put a 1 ignore-lease                  -> error: key not found
           put a 1 lease=7                       -> revision 2
           put a "" ignore-value                 -> revision 3
           show a                                -> a=1 create 2 mod 3 version 2 lease 0
           put a 2 lease=7                       -> revision 4
           put a 3 ignore-lease                  -> revision 5
           show a                                -> a=3 create 2 mod 5 version 4 lease 7
           put a "" ignore-value ignore-lease    -> revision 6
           show a                                -> a=3 create 2 mod 6 version 5 lease 7
           delete a                              -> deleted 1, revision 7
           put a "" ignore-value                 -> error: key not found
           revision                              -> 7"#,
    );
}

#[test]
fn empty_values_and_odd_keys_are_as_good_as_any() {
    check(
        r#"put a ""       -> revision 2
           get a          -> ""
           put ~ x        -> revision 3
           put \0 y       -> revision 4
           range a..      -> a="" ~=x count 2
           noop           -> ok
           revision       -> 4"#,
    );
}

#[test]
fn members_and_the_cluster_version_are_kept() {
    check(
        "member 9 m9 http://a http://b -> ok
         cluster-version 3.6.0         -> ok
         revision                      -> 1",
    );
    let mut machine = crate::script::Machine::quiet();
    machine.run("member 9 m9 http://a http://b -> ok\n cluster-version 3.6.0 -> ok\n restart -> ok");
    let attributes = machine.store.member_attributes(9).unwrap();
    assert_eq!((attributes.name.as_str(), attributes.client_urls.len()), ("m9", 2));
    assert_eq!(machine.store.cluster_version(), Some("3.6.0"));
    assert_eq!(machine.store.member_attributes(8), None);
}
