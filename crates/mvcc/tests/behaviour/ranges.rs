//! Reads: bounds, revisions, limits, sorting, filters, and pieces of long reads.

use crate::script::{Machine, check};
use bytes::Bytes;
use mvcc::*;

#[test]
fn ranges_are_half_open() {
    check(
        "put a 1       -> revision 2
         put b 2       -> revision 3
         put c 3       -> revision 4
         range a       -> a=1 count 1
         range a..c    -> a=1 b=2 count 2
         range b..     -> b=2 c=3 count 2
         range a..a    -> count 0
         range c..a    -> count 0
         range z       -> count 0
         range b*      -> b=2 count 1",
    );
}

#[test]
fn reads_see_the_revision_that_they_ask_for() {
    check(
        "put a 1       -> revision 2
         put a 2       -> revision 3
         delete a      -> deleted 1, revision 4
         get a @1      -> none
         get a @2      -> 1
         get a @3      -> 2
         get a @4      -> none
         get a @0      -> none
         get a @-3     -> none
         get a @5      -> error: mvcc: required revision is a future revision
         put a 3       -> revision 5
         get a @-1     -> 3
         get a @3      -> 2",
    );
}

#[test]
fn a_limit_cuts_and_says_so_while_the_count_is_of_all() {
    check(
        "put a 1             -> revision 2
         put b 2             -> revision 3
         put c 3             -> revision 4
         range a.. limit=2   -> a=1 b=2 count 3 more
         range a.. limit=3   -> a=1 b=2 c=3 count 3
         range a.. limit=9   -> a=1 b=2 c=3 count 3
         range a.. limit=0   -> a=1 b=2 c=3 count 3
         range a.. limit=-1  -> a=1 b=2 c=3 count 3
         range a.. limit=1 @3 -> a=1 count 2 more
         range a.. count     -> count 3
         range a.. count limit=1 -> count 3",
    );
}

#[test]
fn sorting_comes_before_the_limit() {
    check(
        "put a 3                         -> revision 2
         put b 1                         -> revision 3
         put c 2                         -> revision 4
         put a 3                         -> revision 5
         range a.. sort=key              -> a=3 b=1 c=2 count 3
         range a.. sort=key desc         -> c=2 b=1 a=3 count 3
         range a.. sort=key desc limit=1 -> c=2 count 3 more
         range a.. sort=mod              -> b=1 c=2 a=3 count 3
         range a.. sort=mod desc limit=2 -> a=3 c=2 count 3 more
         range a.. sort=create desc      -> c=2 b=1 a=3 count 3
         range a.. sort=version          -> b=1 c=2 a=3 count 3
         range a.. sort=version desc     -> a=3 b=1 c=2 count 3
         range a.. sort=value            -> b=1 c=2 a=3 count 3
         range a.. sort=value desc limit=1 -> a=3 count 3 more
         range a.. sort=value desc limit=3 -> a=3 c=2 b=1 count 3",
    );
}

#[test]
fn filters_are_inclusive_and_do_not_change_the_count() {
    check(
        "put a 1                         -> revision 2
         put b 2                         -> revision 3
         put c 3                         -> revision 4
         put a 4                         -> revision 5
         range a.. min-mod=4             -> a=4 c=3 count 3
         range a.. max-mod=4             -> b=2 c=3 count 3
         range a.. min-mod=3 max-mod=4   -> b=2 c=3 count 3
         range a.. min-create=3          -> b=2 c=3 count 3
         range a.. max-create=2          -> a=4 count 3
         range a.. min-mod=4 limit=1     -> a=4 count 3 more
         range a.. min-mod=4 limit=2     -> a=4 c=3 count 3
         range a.. min-mod=9             -> count 3
         range a.. min-mod=3 sort=mod desc limit=1 -> a=4 count 3 more",
    );
}

#[test]
fn keys_only_blanks_values_and_keeps_the_rest() {
    check(
        r#"grant 7 ttl=60                  -> lease 7 ttl 60
           put a 1 lease=7                 -> revision 2
           put b 2                         -> revision 3
           range a.. keys                  -> a="" b="" count 2
           show a keys                     -> a="" create 2 mod 2 version 1 lease 7
           put a 0                         -> revision 4
           show a keys                     -> a="" create 2 mod 4 version 2 lease 0
           show a keys @3                  -> a="" create 2 mod 2 version 1 lease 7
           range a.. keys sort=value       -> a="" b="" count 2
           range a.. keys sort=value desc limit=1 -> b="" count 2 more"#,
    );
}

fn pieces(
    store: &Store,
    query: RangeQuery,
    rows_max: usize,
    size_bytes_max: usize,
) -> (Vec<KeyValue>, RangeCursor) {
    let (mut all, mut cursor) = (Vec::new(), RangeCursor::new(query));
    while !cursor.is_done() {
        let piece =
            store.range_chunk(&MemoryRecords::default(), &mut cursor, rows_max, size_bytes_max).unwrap();
        assert!(piece.len() <= rows_max);
        all.extend(piece);
    }
    (all, cursor)
}

#[test]
fn the_pieces_of_a_long_read_are_the_whole_read() {
    let mut machine = Machine::quiet();
    for number in 0..50 {
        machine.run(&format!("put k{number:03} v{number} -> revision {}", number + 2));
    }
    machine.run("delete k010..k020 -> deleted 10, revision 52");
    for (range, limit, revision) in
        [("a..", 0, 0), ("k*", 7, 0), ("k*", 40, 0), ("k005..k030", 0, 40), ("k003", 0, 0), ("zz", 0, 0)]
    {
        let mut query = RangeQuery::latest(crate::script::parse_range(range));
        (query.limit, query.revision) = (limit, revision);
        let whole = machine.store.range(&machine.disk, &query).unwrap();
        for (rows_max, size_bytes_max) in [(1, 1 << 20), (3, 1 << 20), (1000, 60), (1000, 1 << 20)] {
            let (kvs, cursor) = pieces(&machine.store, query.clone(), rows_max, size_bytes_max);
            assert_eq!(kvs, whole.kvs, "{range} by {rows_max}");
            assert_eq!((cursor.count(), cursor.more()), (whole.count, whole.more), "{range} by {rows_max}");
        }
    }
}

#[test]
fn a_long_read_stays_at_its_revision_and_ends_when_that_is_compacted() {
    let mut machine = Machine::quiet();
    machine.run(
        "put a 1 -> revision 2
         put b 1 -> revision 3
         put c 1 -> revision 4",
    );
    let mut cursor = RangeCursor::new(RangeQuery::latest(KeyRange::all()));
    let mut next = |machine: &Machine| machine.store.range_chunk(&machine.disk, &mut cursor, 1, 1 << 20);
    assert_eq!(next(&machine).unwrap()[0].key, Bytes::from_static(b"a"));
    machine.run(
        "delete a..  -> deleted 3, revision 5
         compact 4   -> ok
         finish-compaction -> ok",
    );
    assert_eq!(next(&machine).unwrap()[0].key, Bytes::from_static(b"b"));
    machine.run("compact 5 -> ok");
    assert_eq!(next(&machine), Err(RangeError::Compacted));
}
