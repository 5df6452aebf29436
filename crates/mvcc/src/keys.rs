//! Keys, ranges of keys, key-value pairs and revisions.
//!
//! A range is half open and is one of three shapes, so that "no range end" and "no upper bound" cannot be mixed up.
//! Not here: what a key holds at which revision (index.rs).

use bytes::Bytes;
use std::fmt;

/// The key of `KeyRange` and etcd's one-byte marker for "no bound".
const UNBOUNDED: &[u8] = &[0];

/// Which keys an operation means.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyRange {
    /// Exactly this key.
    Key(Bytes),
    /// `start <= key < end`; empty when `end <= start`.
    Span { start: Bytes, end: Bytes },
    /// This key and every greater one.
    From(Bytes),
}

impl KeyRange {
    /// Reads etcd's pair: an empty `range_end` means one key, `\0` means "to the end", and a key of `\0` together
    /// with that end means everything.
    pub fn from_wire(key: Bytes, range_end: Bytes) -> KeyRange {
        if range_end.is_empty() {
            KeyRange::Key(key)
        } else if range_end.as_ref() == UNBOUNDED {
            KeyRange::From(key)
        } else {
            KeyRange::Span { start: key, end: range_end }
        }
    }

    /// Every key.
    pub fn all() -> KeyRange {
        KeyRange::From(Bytes::from_static(UNBOUNDED))
    }

    /// All keys that begin with `prefix`; an empty prefix means every key.
    pub fn prefix(prefix: impl Into<Bytes>) -> KeyRange {
        let start = prefix.into();
        let Some(last) = start.iter().rposition(|byte| *byte < 0xff) else {
            return if start.is_empty() { KeyRange::all() } else { KeyRange::From(start) };
        };
        let mut end = start[..=last].to_vec();
        end[last] += 1;
        KeyRange::Span { start, end: end.into() }
    }

    /// The pair that `from_wire` reads back to the same range.
    pub fn to_wire(&self) -> (Bytes, Bytes) {
        match self {
            KeyRange::Key(key) => (key.clone(), Bytes::new()),
            KeyRange::Span { start, end } => (start.clone(), end.clone()),
            KeyRange::From(start) => (start.clone(), Bytes::from_static(UNBOUNDED)),
        }
    }

    /// The first key that can be in the range.
    pub fn start(&self) -> &Bytes {
        match self {
            KeyRange::Key(key) => key,
            KeyRange::Span { start, .. } | KeyRange::From(start) => start,
        }
    }

    /// Whether `key` is in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            KeyRange::Key(own) => own.as_ref() == key,
            KeyRange::Span { start, end } => start.as_ref() <= key && key < end.as_ref(),
            KeyRange::From(start) => start.as_ref() <= key,
        }
    }

    /// True when no key can be in the range.
    pub fn is_empty(&self) -> bool {
        matches!(self, KeyRange::Span { start, end } if end <= start)
    }

    /// Whether every key of `other` is in this range.
    pub fn covers(&self, other: &KeyRange) -> bool {
        if other.is_empty() {
            return true;
        }
        match (self, other) {
            (_, KeyRange::Key(key)) => self.contains(key),
            (KeyRange::Key(key), KeyRange::Span { start, end }) => key == start && is_successor(end, key),
            (KeyRange::Key(_), KeyRange::From(_)) | (KeyRange::Span { .. }, KeyRange::From(_)) => false,
            (KeyRange::Span { start, end }, KeyRange::Span { start: inner, end: inner_end }) => {
                start <= inner && inner_end <= end
            }
            (KeyRange::From(start), KeyRange::Span { start: inner, .. } | KeyRange::From(inner)) => {
                start <= inner
            }
        }
    }

    /// Whether some key is in both ranges.
    pub fn overlaps(&self, other: &KeyRange) -> bool {
        match (self, other) {
            (KeyRange::Key(key), range) | (range, KeyRange::Key(key)) => range.contains(key),
            (KeyRange::From(_), KeyRange::From(_)) => true,
            (KeyRange::From(start), span @ KeyRange::Span { end, .. })
            | (span @ KeyRange::Span { end, .. }, KeyRange::From(start)) => !span.is_empty() && start < end,
            (left @ KeyRange::Span { start, end }, right @ KeyRange::Span { start: start_2, end: end_2 }) => {
                !left.is_empty() && !right.is_empty() && start < end_2 && start_2 < end
            }
        }
    }
}

/// Whether `end` is the very next key after `key`, so that `[key, end)` holds one key.
fn is_successor(end: &[u8], key: &[u8]) -> bool {
    end.len() == key.len() + 1 && end.starts_with(key) && end.last() == Some(&0)
}

/// A key with what it holds at one revision. A deletion's pair has only `key` and `mod_revision`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Bytes,
    pub value: Bytes,
    /// Revision of the put that created the key, or created it again after a deletion.
    pub create_revision: i64,
    pub mod_revision: i64,
    /// 1 when created, one more with each put.
    pub version: i64,
    /// 0 when no lease is attached.
    pub lease: i64,
}

impl KeyValue {
    /// Bytes that the pair takes on the wire, within a few bytes.
    pub fn size_bytes(&self) -> usize {
        self.key.len() + self.value.len() + 32
    }
}

/// A place in history: `main` counts the writes, `sub` the changes inside one write (from 0).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    pub main: i64,
    pub sub: i64,
}

impl Revision {
    pub const fn new(main: i64, sub: i64) -> Revision {
        Revision { main, sub }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.main, self.sub)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: &'static str, end: &'static str) -> KeyRange {
        KeyRange::from_wire(Bytes::from_static(start.as_bytes()), Bytes::from_static(end.as_bytes()))
    }

    /// Each row: outer range, inner range, covers, overlaps.
    #[test]
    fn ranges_cover_and_overlap_as_sets_do() {
        let rows = [
            (span("a", ""), span("a", ""), true, true),
            (span("a", ""), span("a", "a\0"), true, true),
            (span("a", ""), span("a", "b"), false, true),
            (span("a", "c"), span("b", ""), true, true),
            (span("a", "c"), span("c", ""), false, false),
            (span("a", "c"), span("b", "d"), false, true),
            (span("a", "c"), span("c", "d"), false, false),
            (span("a", "c"), span("b", "\0"), false, true),
            (span("a", "\0"), span("b", "\0"), true, true),
            (span("b", "\0"), span("a", "\0"), false, true),
            (span("b", "\0"), span("a", "b"), false, false),
            (span("\0", "\0"), span("a", "z"), true, true),
            (span("a", "c"), span("z", "b"), true, false),
        ];
        for (outer, inner, covers, overlaps) in rows {
            assert_eq!(outer.covers(&inner), covers, "{outer:?} covers {inner:?}");
            assert_eq!(outer.overlaps(&inner), overlaps, "{outer:?} overlaps {inner:?}");
            assert_eq!(inner.overlaps(&outer), overlaps, "{inner:?} overlaps {outer:?}");
        }
    }

    #[test]
    fn a_prefix_ends_before_the_next_prefix() {
        assert_eq!(KeyRange::prefix("ab"), span("ab", "ac"));
        assert_eq!(KeyRange::prefix(""), span("\0", "\0"));
        assert_eq!(KeyRange::prefix(vec![b'a', 0xff]), span_bytes(&[b'a', 0xff], b"b"));
        assert_eq!(KeyRange::prefix(vec![0xff, 0xff]), KeyRange::From(Bytes::from_static(&[0xff, 0xff])));
    }

    fn span_bytes(start: &[u8], end: &[u8]) -> KeyRange {
        KeyRange::Span { start: Bytes::copy_from_slice(start), end: Bytes::copy_from_slice(end) }
    }

    #[test]
    fn a_range_survives_the_way_over_the_wire() {
        for range in [span("a", ""), span("a", "b"), span("a", "\0"), KeyRange::all()] {
            let (key, range_end) = range.to_wire();
            assert_eq!(KeyRange::from_wire(key, range_end), range);
        }
    }
}
