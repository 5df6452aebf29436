//! Sets of keys that a user may touch, as merged intervals.
//!
//! Invariants: intervals are sorted, not empty, and neither overlap nor touch, so that one interval contains a
//! permitted range whole. Not here: users and roles (auth.rs).

use crate::keys::KeyRange;
use bytes::Bytes;

/// `start <= key`, and `key < end` if there is an end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Interval {
    start: Bytes,
    end: Option<Bytes>,
}

impl Interval {
    fn of(range: &KeyRange) -> Option<Interval> {
        match range {
            KeyRange::Key(key) => {
                // The next key after `key` is `key` with a zero byte behind it.
                let mut end = Vec::with_capacity(key.len() + 1);
                end.extend_from_slice(key);
                end.push(0);
                Some(Interval { start: key.clone(), end: Some(end.into()) })
            }
            KeyRange::Span { start, end } if start < end => {
                Some(Interval { start: start.clone(), end: Some(end.clone()) })
            }
            KeyRange::Span { .. } => None,
            KeyRange::From(start) => Some(Interval { start: start.clone(), end: None }),
        }
    }

    fn reaches(&self, key: &[u8]) -> bool {
        self.end.as_ref().is_none_or(|end| key <= end.as_ref())
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeySet {
    intervals: Vec<Interval>,
}

impl KeySet {
    pub(crate) fn union<'a>(ranges: impl Iterator<Item = &'a KeyRange>) -> KeySet {
        let mut sorted: Vec<Interval> = ranges.filter_map(Interval::of).collect();
        sorted.sort_by(|left, right| left.start.cmp(&right.start));
        let mut intervals: Vec<Interval> = Vec::new();
        for next in sorted {
            match intervals.last_mut() {
                Some(last) if last.reaches(&next.start) => {
                    last.end = match (last.end.take(), next.end) {
                        (Some(left), Some(right)) => Some(left.max(right)),
                        (None, _) | (_, None) => None,
                    };
                }
                Some(_) | None => intervals.push(next),
            }
        }
        KeySet { intervals }
    }

    /// Whether every key of the range is in the set. A range that can hold no key is asked for in vain, so it is
    /// judged by its start.
    pub(crate) fn covers(&self, range: &KeyRange) -> bool {
        let asked = Interval::of(range)
            .unwrap_or_else(|| Interval { start: range.start().clone(), end: Some(range.start().clone()) });
        let after = self.intervals.partition_point(|own| own.start <= asked.start);
        let Some(own) = after.checked_sub(1).and_then(|at| self.intervals.get(at)) else { return false };
        match (&own.end, &asked.end) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own_end), Some(asked_end)) => asked_end <= own_end && asked.start < *own_end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> KeyRange {
        let (key, end) = text.split_once("..").unwrap_or((text, ""));
        let end = if end == "*" { "\0" } else { end };
        KeyRange::from_wire(Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(end.as_bytes()))
    }

    /// Each row: granted ranges, asked range, allowed.
    #[test]
    fn a_set_covers_what_its_ranges_cover_together() {
        let rows = [
            ("a", "a", true),
            ("a", "b", false),
            ("a", "a..b", false),
            ("a..c", "b", true),
            ("a..c", "c", false),
            ("a..c", "a..c", true),
            ("a..c c..e", "b..d", true),
            ("a..c d..e", "b..d", false),
            ("a..c b..d", "a..d", true),
            ("a..z b..c", "a..z", true),
            ("b..*", "a..*", false),
            ("b..*", "b..*", true),
            ("b..*", "x..y", true),
            ("a..b b..*", "a..*", true),
            ("", "a", false),
            ("c..a", "b", false),
            ("a..c", "b..a", true),
            ("a..c", "x..a", false),
        ];
        for (granted, asked, allowed) in rows {
            let granted_ranges: Vec<KeyRange> = granted.split_whitespace().map(range).collect();
            let set = KeySet::union(granted_ranges.iter());
            assert_eq!(set.covers(&range(asked)), allowed, "{granted:?} covers {asked}");
        }
    }
}
