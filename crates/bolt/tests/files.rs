//! Files that are written and read back, and files that are damaged.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::collections::BTreeMap;
use std::io::Cursor;

use bolt::{Bucket, Entry, ReadError, Reader, WriteError, Writer};
use proptest::prelude::*;

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;
type Content = BTreeMap<Vec<u8>, Pairs>;

fn written(content: &Content) -> Vec<u8> {
    let mut writer = Writer::new(Cursor::new(Vec::new())).unwrap();
    for (name, pairs) in content {
        writer.bucket(name).unwrap();
        for (key, value) in pairs {
            writer.put(key, value).unwrap();
        }
    }
    let (file, size_bytes) = writer.finish().unwrap();
    let bytes = file.into_inner();
    assert_eq!(bytes.len() as u64, size_bytes);
    bytes
}

fn pairs(reader: &Reader<Vec<u8>>, bucket: &Bucket) -> Result<Pairs, ReadError> {
    let mut pairs = Pairs::new();
    for entry in reader.entries(bucket)? {
        if let Entry::Pair { key, value } = entry? {
            pairs.insert(key.to_vec(), value.to_vec());
        }
    }
    Ok(pairs)
}

fn content(bytes: Vec<u8>) -> Result<Content, ReadError> {
    let reader = Reader::open(bytes)?;
    let mut content = Content::new();
    for entry in reader.entries(&reader.root())? {
        if let Entry::Bucket { name, bucket } = entry? {
            content.insert(name.to_vec(), pairs(&reader, &bucket)?);
        }
    }
    Ok(content)
}

fn numbered(count: u32, value_size_bytes: usize) -> Pairs {
    let value = |n: u32| vec![n.to_le_bytes()[0]; value_size_bytes];
    (0..count).map(|n| (n.to_be_bytes().to_vec(), value(n))).collect()
}

fn one_bucket(pairs: Pairs) -> Content {
    [(b"key".to_vec(), pairs)].into()
}

#[test]
fn every_size_of_value_comes_back_from_files_of_every_size() {
    for value_size_bytes in [0, 1, 100, 4_039, 4_040, 4_041, 4_096, 20_000] {
        for count in [0, 1, 2, 3, 203, 204, 205, 1_000] {
            let content_in = one_bucket(numbered(count, value_size_bytes));
            let bytes = written(&content_in);
            assert_eq!(content(bytes).unwrap(), content_in, "{count} values of {value_size_bytes} bytes");
        }
    }
}

#[test]
fn a_deep_tree_comes_back() {
    // Long keys: three or four to a branch.
    let pairs: Pairs =
        (0..800_u32).map(|n| ([&n.to_be_bytes()[..], &[7; 1_000]].concat(), vec![1; 9])).collect();
    let content_in = one_bucket(pairs);
    assert_eq!(content(written(&content_in)).unwrap(), content_in);
    // Keys longer than a page: a branch of two has overflow pages.
    let pairs: Pairs =
        (0..20_u32).map(|n| ([&n.to_be_bytes()[..], &[7; 9_000]].concat(), vec![1; 9])).collect();
    let content_in = one_bucket(pairs);
    assert_eq!(content(written(&content_in)).unwrap(), content_in);
}

#[test]
fn a_value_of_many_pages_comes_back() {
    let content_in = one_bucket([(b"a".to_vec(), vec![5; 3 << 20]), (b"b".to_vec(), vec![6])].into());
    assert_eq!(content(written(&content_in)).unwrap(), content_in);
}

#[test]
fn what_bbolt_would_not_take_is_refused() {
    let mut writer = Writer::new(Cursor::new(Vec::new())).unwrap();
    writer.bucket(b"b").unwrap();
    writer.put(b"k", b"").unwrap();
    assert!(matches!(writer.put(b"k", b""), Err(WriteError::Order { .. })));
    assert!(matches!(writer.put(b"j", b""), Err(WriteError::Order { .. })));
    assert!(matches!(writer.put(b"", b""), Err(WriteError::KeySize { size_bytes: 0 })));
    assert!(matches!(writer.put(&[9; 32_769], b""), Err(WriteError::KeySize { .. })));
    assert!(matches!(writer.bucket(b"b"), Err(WriteError::Twice { .. })));
}

#[test]
fn a_file_that_was_not_finished_or_is_cut_is_refused() {
    assert!(matches!(content(Vec::new()), Err(ReadError::NotBolt)));
    assert!(matches!(content(vec![0; 9_000]), Err(ReadError::NotBolt)));
    let bytes = written(&one_bucket(numbered(500, 10)));
    for pages in 1..bytes.len() / 4_096 {
        assert!(content(bytes[..pages * 4_096].to_vec()).is_err(), "{pages} pages");
    }
    let longer = [&bytes[..], &[0; 32]].concat();
    assert_eq!(content(longer).unwrap().len(), 1, "what is behind the pages does not matter");
}

#[test]
fn one_damaged_meta_page_is_survived() {
    let content_in = one_bucket(numbered(5, 5));
    for page in [0, 1] {
        let mut bytes = written(&content_in);
        bytes[page * 4_096 + 40] ^= 1;
        assert_eq!(content(bytes).unwrap(), content_in);
    }
}

#[test]
fn a_tree_that_leads_into_itself_ends() {
    let mut bytes = written(&one_bucket(numbered(1_000, 10)));
    let branch = (2..bytes.len() / 4_096).find(|page| bytes[page * 4_096 + 8] == 1).unwrap();
    let own = (branch as u64).to_le_bytes();
    for element in 0..2 {
        let at = branch * 4_096 + 16 + element * 16 + 8;
        bytes[at..at + 8].copy_from_slice(&own);
    }
    assert!(matches!(content(bytes), Err(ReadError::Damaged { .. })));
}

/// The checksum covers the meta pages only, so every other bit may lie; none may cause a panic.
#[test]
fn no_flipped_bit_causes_a_panic() {
    let mut wanted = one_bucket(numbered(150, 60));
    wanted.insert(b"empty".to_vec(), Pairs::new());
    let bytes = written(&wanted);
    let mut noticed = 0;
    for page in 2..bytes.len() / 4_096 {
        for offset in 0..4_096 {
            // Headers and elements densely, keys and values here and there.
            if offset > 700 && offset % 97 != 0 {
                continue;
            }
            for bit in [0, 3, 7] {
                let mut damaged = bytes.clone();
                damaged[page * 4_096 + offset] ^= 1 << bit;
                noticed += u32::from(content(damaged).is_err());
            }
        }
    }
    assert!(noticed > 500, "{noticed} were noticed");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_written_is_read(
        wanted in prop::collection::btree_map(
            prop::collection::vec(any::<u8>(), 1..20),
            prop::collection::btree_map(
                prop::collection::vec(any::<u8>(), 1..600),
                prop::collection::vec(any::<u8>(), 0..6_000),
                0..40,
            ),
            0..6,
        )
    ) {
        prop_assert_eq!(content(written(&wanted)).unwrap(), wanted);
    }

    #[test]
    fn junk_behind_a_valid_meta_page_never_panics(
        junk in prop::collection::vec((8_192_usize..40_960, any::<u8>()), 1..200)
    ) {
        let mut bytes = written(&one_bucket(numbered(600, 30)));
        for (offset, byte) in junk {
            if let Some(target) = bytes.get_mut(offset) {
                *target = byte;
            }
        }
        let _ = content(bytes);
    }
}
