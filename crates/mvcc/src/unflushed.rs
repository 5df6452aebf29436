//! Records that are not yet known to be in the state file, and rows that wait for the flusher.
//!
//! Invariants: a record is readable here from the moment it is written until the flusher reported it; rows are given
//! out once, records first and in revision order, then deletions, then meta rows. Not here: when to flush.

use crate::keys::Revision;
use crate::rows::Row;
use bytes::Bytes;
use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};

#[derive(Default)]
pub(crate) struct Unflushed {
    records: VecDeque<(Revision, Bytes)>,
    /// How many of `records`, from the front, were already given out.
    taken: usize,
    size_bytes: usize,
    deleted: Vec<Revision>,
    /// `None`: the row goes away.
    meta: BTreeMap<Bytes, Option<Bytes>>,
}

impl Unflushed {
    pub(crate) fn push(&mut self, revision: Revision, bytes: Bytes) {
        debug_assert!(self.records.back().is_none_or(|(last, _)| *last < revision));
        self.size_bytes += bytes.len();
        self.records.push_back((revision, bytes));
    }

    pub(crate) fn delete(&mut self, revision: Revision) {
        self.deleted.push(revision);
    }

    pub(crate) fn set_meta(&mut self, key: Bytes, value: Bytes) {
        self.meta.insert(key, Some(value));
    }

    pub(crate) fn delete_meta(&mut self, key: Bytes) {
        self.meta.insert(key, None);
    }

    pub(crate) fn read(&self, revision: Revision) -> Option<&Bytes> {
        let (first, _) = self.records.front().filter(|(first, _)| *first <= revision)?;
        // Every revision has a record, so this is where it lies if each has only one, and else it lies behind.
        let at_least = usize::try_from(revision.main - first.main).ok()?;
        let mut reach = 1;
        while self.records.get(at_least + reach).is_some_and(|(own, _)| *own <= revision) {
            reach *= 2;
        }
        let (mut start, mut end) = (at_least, self.records.len().min(at_least + reach));
        while start < end {
            let middle = start + (end - start) / 2;
            let (own, bytes) = self.records.get(middle)?;
            match own.cmp(&revision) {
                Ordering::Equal => return Some(bytes),
                Ordering::Less => start = middle + 1,
                Ordering::Greater => end = middle,
            }
        }
        None
    }

    /// Records after `revision`, ascending.
    pub(crate) fn after(&self, revision: Revision) -> impl Iterator<Item = &(Revision, Bytes)> {
        let skip = self.records.partition_point(|(own, _)| *own <= revision);
        self.records.range(skip..)
    }

    pub(crate) fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    pub(crate) fn take_rows(&mut self) -> Vec<Row> {
        let fresh = self.records.range(self.taken..);
        let mut rows: Vec<Row> =
            fresh.map(|(revision, bytes)| Row::Record(*revision, bytes.clone())).collect();
        self.taken = self.records.len();
        rows.extend(self.deleted.drain(..).map(Row::DeleteRecord));
        rows.extend(std::mem::take(&mut self.meta).into_iter().map(|(key, value)| match value {
            Some(value) => Row::Meta(key, value),
            None => Row::DeleteMeta(key),
        }));
        rows
    }

    /// Forgets records up to `upto`, which the state file answers from now on. Records that were never given out
    /// stay, whatever the caller says.
    pub(crate) fn flushed(&mut self, upto: Revision) {
        while self.taken > 0 && self.records.front().is_some_and(|(first, _)| *first <= upto) {
            if let Some((_, bytes)) = self.records.pop_front() {
                self.size_bytes -= bytes.len();
                self.taken -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled() -> Unflushed {
        let mut unflushed = Unflushed::default();
        for main in 2..6 {
            unflushed.push(Revision::new(main, 0), Bytes::from(vec![main as u8]));
        }
        unflushed
    }

    #[test]
    fn records_answer_until_they_are_flushed() {
        let mut unflushed = filled();
        assert_eq!(unflushed.take_rows().len(), 4);
        assert!(unflushed.take_rows().is_empty());
        unflushed.flushed(Revision::new(3, 0));
        assert_eq!(unflushed.read(Revision::new(3, 0)), None);
        assert_eq!(unflushed.read(Revision::new(4, 0)), Some(&Bytes::from_static(&[4])));
        assert_eq!(unflushed.after(Revision::new(4, 0)).count(), 1);
        assert_eq!(unflushed.size_bytes(), 2);
    }

    #[test]
    fn records_that_were_not_given_out_cannot_be_forgotten() {
        let mut unflushed = filled();
        unflushed.take_rows();
        unflushed.push(Revision::new(6, 0), Bytes::from_static(&[6]));
        unflushed.flushed(Revision::new(9, 0));
        assert_eq!(unflushed.read(Revision::new(6, 0)), Some(&Bytes::from_static(&[6])));
        assert_eq!(unflushed.take_rows(), vec![Row::Record(Revision::new(6, 0), Bytes::from_static(&[6]))]);
    }

    #[test]
    fn every_record_is_found_however_many_a_revision_has() {
        let mut unflushed = Unflushed::default();
        let counts = [1, 1, 5, 1, 200, 1, 1, 30, 2];
        for (main, count) in (2..).zip(counts) {
            for sub in 0..count {
                unflushed.push(Revision::new(main, sub), Bytes::from(format!("{main}.{sub}")));
            }
        }
        for (main, count) in (2..).zip(counts) {
            for sub in 0..count {
                let bytes = unflushed.read(Revision::new(main, sub));
                assert_eq!(bytes, Some(&Bytes::from(format!("{main}.{sub}"))));
            }
            assert_eq!(unflushed.read(Revision::new(main, count)), None);
        }
        assert_eq!(unflushed.read(Revision::new(1, 0)), None);
        assert_eq!(unflushed.read(Revision::new(99, 0)), None);
        assert_eq!(unflushed.read(Revision::new(i64::MAX, 0)), None);
    }
}
