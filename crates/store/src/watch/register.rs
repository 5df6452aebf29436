//! Which watches want a key.
//!
//! Single keys and prefixes, which is what nearly everybody watches, are found by look-ups: one for the key and one
//! for each length that some watched prefix has. Only ranges of other shapes are looked through one by one.

use std::collections::BTreeMap;

use bytes::Bytes;
use mvcc::KeyRange;

/// A watch: its stream and its id there.
pub(super) type Id = (u64, i64);

pub(super) struct Register<T> {
    keys: Places<T>,
    prefixes: Places<T>,
    /// Length of a prefix -> how many watches have one of that length.
    prefix_lengths: BTreeMap<usize, usize>,
    ranges: BTreeMap<Id, (KeyRange, T)>,
}

/// Watches by key or by prefix.
type Places<T> = BTreeMap<Bytes, BTreeMap<Id, T>>;

/// How a range is found again.
enum Shape<'a> {
    Key(&'a Bytes),
    Prefix(&'a Bytes),
    Other,
}

impl<T> Default for Register<T> {
    fn default() -> Register<T> {
        Register {
            keys: BTreeMap::new(),
            prefixes: BTreeMap::new(),
            prefix_lengths: BTreeMap::new(),
            ranges: BTreeMap::new(),
        }
    }
}

impl<T> Register<T> {
    /// The id must not be in use.
    pub(super) fn add(&mut self, id: Id, range: &KeyRange, value: T) {
        match shape(range) {
            Shape::Key(key) => {
                self.keys.entry(key.clone()).or_default().insert(id, value);
            }
            Shape::Prefix(prefix) => {
                *self.prefix_lengths.entry(prefix.len()).or_default() += 1;
                self.prefixes.entry(prefix.clone()).or_default().insert(id, value);
            }
            Shape::Other => {
                self.ranges.insert(id, (range.clone(), value));
            }
        }
    }

    /// `range` must be the one that the id was added with.
    pub(super) fn remove(&mut self, id: Id, range: &KeyRange) {
        match shape(range) {
            Shape::Key(key) => {
                take(&mut self.keys, key, id);
            }
            Shape::Prefix(prefix) => {
                if !take(&mut self.prefixes, prefix, id) {
                    return;
                }
                if let Some(count) = self.prefix_lengths.get_mut(&prefix.len()) {
                    *count -= 1;
                    if *count == 0 {
                        self.prefix_lengths.remove(&prefix.len());
                    }
                }
            }
            Shape::Other => {
                self.ranges.remove(&id);
            }
        }
    }

    /// Calls `found` once for each watch that wants the key.
    pub(super) fn matching(&self, key: &[u8], mut found: impl FnMut(Id, &T)) {
        let prefixes = self.prefix_lengths.keys().filter_map(|length| self.prefixes.get(key.get(..*length)?));
        for (id, value) in self.keys.get(key).into_iter().chain(prefixes).flatten() {
            found(*id, value);
        }
        for (id, (range, value)) in &self.ranges {
            if range.contains(key) {
                found(*id, value);
            }
        }
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        let places = self.keys.values().chain(self.prefixes.values()).flat_map(BTreeMap::values);
        places.chain(self.ranges.values().map(|(_, value)| value))
    }
}

fn shape(range: &KeyRange) -> Shape<'_> {
    match range {
        KeyRange::Key(key) => Shape::Key(key),
        KeyRange::Span { start, end } if wire::prefix_end(start) == end => Shape::Prefix(start),
        KeyRange::Span { .. } | KeyRange::From(_) => Shape::Other,
    }
}

fn take<T>(places: &mut Places<T>, key: &Bytes, id: Id) -> bool {
    let Some(watches) = places.get_mut(key) else { return false };
    let taken = watches.remove(&id).is_some();
    if watches.is_empty() {
        places.remove(key);
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(key: &str, end: &str) -> KeyRange {
        KeyRange::from_wire(key.to_owned().into(), end.to_owned().into())
    }

    /// Every key of a small alphabet finds exactly the watches whose range holds it, before and after some left.
    #[test]
    fn look_ups_find_what_looking_through_all_would() {
        let ranges = [
            range("a", ""),
            range("ab", ""),
            range("a", "b"),
            range("ab", "ac"),
            range("a", "c"),
            range("a", "ab"),
            range("b", "\0"),
            range("\0", "\0"),
            range("abc", "abd"),
            range("a", "b"),
            range("b", "a"),
        ];
        let mut register = Register::default();
        for (number, range) in ranges.iter().enumerate() {
            register.add((number as u64, 0), range, number);
        }
        let keys: Vec<String> =
            ["", "a", "b", "c", "ab", "abc", "abcd", "ac", "ba", "aa"].map(str::to_owned).into();
        for left in 0..=ranges.len() {
            for key in &keys {
                let mut found = Vec::new();
                register.matching(key.as_bytes(), |_, number| found.push(*number));
                found.sort_unstable();
                let wanted: Vec<usize> =
                    (left..ranges.len()).filter(|number| ranges[*number].contains(key.as_bytes())).collect();
                assert_eq!(found, wanted, "key {key:?}, {left} left");
            }
            assert_eq!(register.values().count(), ranges.len() - left);
            if left < ranges.len() {
                register.remove((left as u64, 0), &ranges[left]);
            }
        }
        assert!(
            register.prefix_lengths.is_empty() && register.prefixes.is_empty() && register.keys.is_empty()
        );
    }
}
